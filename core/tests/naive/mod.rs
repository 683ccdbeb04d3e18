//! The queue once more, as naively as it can be written: lists, and loops over all of them.
//!
//! It shares nothing with the real one but the command language and the policies. Where it is slow, it is clear.

mod answer;
mod claim;
mod flow;
mod look;

use kalends_core::failure::{DETAIL_CHARS_MAX, LimitScope};
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::policy::limit::{Limit, SlidingWindow, ramp_allowance, ramp_opens_after_ms};
use kalends_core::queue::command::*;
use kalends_core::queue::state::*;
use kalends_core::time::Timestamp;

#[derive(Clone)]
struct Source {
    name: SourceName,
    settings: SourceSettings,
    defined: SourceSettings,
    paused: Option<String>,
    gate: Option<Timestamp>,
    reason: Option<String>,
    streak: u32,
    starts: SlidingWindow,
    requests: SlidingWindow,
    ramp: Option<(Timestamp, u64)>,
}

#[derive(Clone)]
struct User {
    source: SourceName,
    name: UserId,
    state: UserState,
    ended: Option<LeaseToken>,
    requests: SlidingWindow,
}

#[derive(Clone)]
struct Schedule {
    name: ScheduleName,
    state: ScheduleState,
    ended: Option<LeaseToken>,
}

#[derive(Clone)]
struct Job {
    key: JobKey,
    run_at: Timestamp,
    priority: Priority,
    nominal: Option<Timestamp>,
    attempts: u32,
    stalls: u32,
    fixed: bool,
    held: Option<Timestamp>,
    progress: Option<String>,
    error: Option<String>,
    /// Worker, token, expiry, length.
    lease: Option<(WorkerId, LeaseToken, Timestamp, u64)>,
    again: Option<(Timestamp, Priority, Option<Timestamp>)>,
}

#[derive(Clone)]
struct Finished {
    listing: JobListing,
    nominal: Option<Timestamp>,
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    sources: Vec<Source>,
    users: Vec<User>,
    schedules: Vec<Schedule>,
    jobs: Vec<Job>,
    finished: Vec<Finished>,
    last_token: u64,
    last_number: u64,
    completed_total: u64,
    failed_total: u64,
    latest: Timestamp,
}

fn too_large(what: String) -> Reply {
    Reply::Refused {
        refusal: Refusal::TooLarge { what },
    }
}

fn lost() -> Reply {
    Reply::Refused {
        refusal: Refusal::LeaseLost,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

impl Model {
    pub(crate) fn apply(&mut self, now: Timestamp, command: Command) -> Reply {
        if self.latest.since_ms(now) > 1_000 {
            self.step_back(now);
        }
        self.answer(now, command.with_times_kept())
    }

    /// The last command changed something, so a step back of the clock is measured against it.
    pub(crate) fn note_change(&mut self, now: Timestamp) {
        self.latest = self.latest.max(now);
    }

    fn step_back(&mut self, now: Timestamp) {
        let before = self.latest;
        let step = before.since_ms(now);
        self.latest = now;
        if step > 15 * 60_000 {
            let nearer = |at: &mut Timestamp| {
                if *at > now {
                    *at = at.minus_ms(step).max(now);
                }
            };
            for schedule in &mut self.schedules {
                schedule.state.last_tick_at = schedule.state.last_tick_at.min(now);
            }
            for user in &mut self.users {
                nearer(&mut user.state.due_at);
            }
            for job in &mut self.jobs {
                nearer(&mut job.run_at);
                if let Some((at, _, _)) = &mut job.again {
                    nearer(at);
                }
            }
        }
        let day = now.plus_ms(24 * 3_600_000);
        for job in &mut self.jobs {
            job.held = None;
            if let Some((_, _, expires, length)) = &mut job.lease {
                *expires = (*expires).min(now.plus_ms(*length));
            }
        }
        for user in &mut self.users {
            user.state.gate_until = user.state.gate_until.map(|gate| gate.min(day));
            let mut sources = self.sources.iter();
            let of = sources.find(|one| one.name == user.source).unwrap();
            let left = |limit: &Limit| {
                let by = before.minus_ms(1_000);
                user.requests.available(by, limit) == limit.count
            };
            if of.settings.requests_user.as_ref().is_none_or(left) {
                user.requests = SlidingWindow::new();
            }
            user.requests.restamp(now);
        }
        for source in &mut self.sources {
            source.gate = source.gate.map(|gate| gate.min(day));
            source.starts.restamp(now);
            source.requests.restamp(now);
            if let Some((since, _)) = &mut source.ramp {
                *since = (*since).min(source.gate.unwrap_or(now).max(now));
            }
        }
    }

    fn source(&mut self, name: &SourceName) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.name == *name)
    }

    fn user(&mut self, of: &SourceName, name: &UserId) -> Option<&mut User> {
        self.users
            .iter_mut()
            .find(|user| user.source == *of && user.name == *name)
    }

    fn user_of(&mut self, key: &JobKey) -> Option<&mut User> {
        match key {
            JobKey::Sync { source, user } => self.user(source, user),
            JobKey::FanOut { .. } => None,
        }
    }

    fn job(&mut self, key: &JobKey) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.key == *key)
    }

    fn ready_at(&self, job: &Job) -> Timestamp {
        let mut at = job.run_at.max(job.held.unwrap_or(job.run_at));
        for user in &self.users {
            if job.key == sync(user) {
                at = at.max(user.state.gate_until.unwrap_or(at));
            }
        }
        at
    }

    fn live(&self, now: Timestamp, lease: &LeaseRef) -> bool {
        self.jobs.iter().any(|job| {
            job.key == lease.key
                && job
                    .lease
                    .as_ref()
                    .is_some_and(|(_, token, expires, _)| *token == lease.token && *expires > now)
        })
    }

    /// What a command that ends a lease hears instead, if the lease is not live.
    fn ending(&self, now: Timestamp, lease: &LeaseRef) -> Option<Reply> {
        if self.live(now, lease) {
            return None;
        }
        let by_users = self
            .users
            .iter()
            .any(|user| sync(user) == lease.key && user.ended == Some(lease.token));
        let by_schedules = self.schedules.iter().any(|schedule| {
            let schedule_key = JobKey::FanOut {
                schedule: schedule.name.clone(),
            };
            schedule_key == lease.key && schedule.ended == Some(lease.token)
        });
        Some(if by_users || by_schedules {
            Reply::AlreadyDone
        } else {
            lost()
        })
    }

    fn note_end(&mut self, lease: &LeaseRef) {
        if let Some(user) = self.user_of(&lease.key) {
            user.ended = Some(lease.token);
        }
        if let JobKey::FanOut { schedule } = &lease.key {
            for found in &mut self.schedules {
                if found.name == *schedule {
                    found.ended = Some(lease.token);
                }
            }
        }
    }

    fn want(
        &mut self,
        key: &JobKey,
        run_at: Timestamp,
        priority: Priority,
        nominal: Option<Timestamp>,
        hurries: bool,
    ) -> bool {
        let Some(job) = self.job(key) else {
            self.jobs.push(Job {
                key: key.clone(),
                run_at,
                priority,
                nominal,
                attempts: 0,
                stalls: 0,
                fixed: false,
                held: None,
                progress: None,
                error: None,
                lease: None,
                again: None,
            });
            return true;
        };
        if job.lease.is_some() {
            let (at, lane, tick) = job.again.unwrap_or((run_at, priority, nominal));
            job.again = Some((at.min(run_at), lane.max(priority), tick.max(nominal)));
            return false;
        }
        if run_at < job.run_at && (hurries || !job.fixed) {
            job.run_at = run_at;
        }
        job.priority = job.priority.max(priority);
        job.nominal = job.nominal.max(nominal);
        false
    }

    fn back(&mut self, key: &JobKey, at: Option<Timestamp>) {
        let job = self.job(key).unwrap();
        job.lease = None;
        job.fixed = at.is_some();
        job.run_at = at.unwrap_or(job.run_at);
        if let Some((_, lane, tick)) = job.again.take() {
            job.priority = job.priority.max(lane);
            job.nominal = job.nominal.max(tick);
        }
    }

    /// Takes the job away into the history, and puts the wish that came meanwhile in its place.
    fn file(
        &mut self,
        now: Timestamp,
        key: &JobKey,
        state: JobState,
        attempt: u32,
        outcome: Option<CommitOutcome>,
        error: Option<String>,
    ) {
        let position = self.jobs.iter().position(|job| job.key == *key).unwrap();
        let job = self.jobs.remove(position);
        self.last_number += 1;
        match state {
            JobState::Completed => self.completed_total += 1,
            _ => self.failed_total += 1,
        }
        self.finished.push(Finished {
            listing: JobListing {
                key: key.clone(),
                state,
                number: Some(self.last_number),
                at: now,
                priority: job.priority,
                attempt,
                worker: None,
                outcome,
                error,
            },
            nominal: job.nominal,
        });
        self.trim();
        let parked = self
            .user_of(key)
            .is_some_and(|user| user.state.parked.is_some());
        if let (Some((at, lane, tick)), false) = (job.again, parked) {
            self.want(key, at, lane, tick, false);
        }
    }

    fn trim(&mut self) {
        let sources = self.sources.clone();
        let mut kept: Vec<Finished> = Vec::new();
        for entry in self.finished.iter().rev() {
            let completed = entry.listing.state == JobState::Completed;
            let keep = match &entry.listing.key {
                JobKey::FanOut { .. } => 100,
                JobKey::Sync { source, .. } => {
                    let found = sources.iter().find(|one| one.name == *source).unwrap();
                    if completed {
                        found.settings.keep_completed
                    } else {
                        found.settings.keep_failed
                    }
                }
            };
            let alike = kept
                .iter()
                .filter(|other| {
                    other.listing.state == entry.listing.state
                        && group(&other.listing.key) == group(&entry.listing.key)
                })
                .count();
            if alike < keep as usize {
                kept.push(entry.clone());
            }
        }
        kept.reverse();
        self.finished = kept;
    }

    fn stall(&mut self, now: Timestamp, key: &JobKey) -> bool {
        let stalls_max = match key {
            JobKey::FanOut { .. } => 3,
            JobKey::Sync { source, .. } => self.source(source).unwrap().settings.stalls_max,
        };
        let job = self.job(key).unwrap();
        job.stalls += 1;
        let (stalls, attempts) = (job.stalls, job.attempts);
        let error = format!("the lease expired without a heartbeat ({stalls} times)");
        if let Some(user) = self.user_of(key) {
            user.state.last_error = Some(error.clone());
        }
        if stalls > stalls_max {
            self.file(now, key, JobState::Failed, attempts, None, Some(error));
            return true;
        }
        let job = self.job(key).unwrap();
        job.lease = None;
        job.error = Some(error);
        if let Some((at, lane, tick)) = job.again.take() {
            job.run_at = job.run_at.min(at);
            job.priority = job.priority.max(lane);
            job.nominal = job.nominal.max(tick);
        }
        false
    }

    fn lease_of(&mut self, key: &JobKey) -> Lease {
        let cursor = self.user_of(key).map(|user| user.state.cursor.clone());
        let requests = u32::from(cursor.is_some());
        let job = self.job(key).unwrap();
        let (_, token, expires_at, _) = job.lease.clone().unwrap();
        Lease {
            lease: LeaseRef {
                key: key.clone(),
                token,
            },
            expires_at,
            attempt: job.attempts + 1,
            nominal_at: job.nominal,
            cursor: cursor.unwrap_or(job.progress.clone()),
            requests,
        }
    }

    fn start(&mut self, now: Timestamp, key: &JobKey, worker: &WorkerId, lease_ms: u64) -> Lease {
        self.last_token = (self.last_token + 1).max(now.as_ms().max(0) as u64 * 1_000);
        let token = LeaseToken(self.last_token);
        let job = self.job(key).unwrap();
        job.held = None;
        job.fixed = false;
        job.lease = Some((worker.clone(), token, now.plus_ms(lease_ms), lease_ms));
        self.lease_of(key)
    }
}

impl Source {
    fn ramp_admits(&self, now: Timestamp) -> bool {
        let Some((since, starts)) = self.ramp else {
            return true;
        };
        let allowed = ramp_allowance(self.settings.jobs.as_ref(), now.since_ms(since));
        allowed.is_none_or(|allowed| starts < allowed)
    }

    /// Whether one more may start after `started` others in the same claim.
    fn admits(&self, now: Timestamp, started: u32) -> bool {
        let fits = |window: &SlidingWindow, limit: Option<Limit>| {
            limit.is_none_or(|limit| window.available(now, &limit) > started)
        };
        self.paused.is_none()
            && self.gate.is_none_or(|until| until <= now)
            && fits(&self.starts, self.settings.jobs)
            && fits(&self.requests, self.settings.requests_project)
            && self.ramp_admits(now)
    }

    fn opens_at(&self, now: Timestamp) -> Timestamp {
        let opens = |window: &SlidingWindow, limit: Option<Limit>| {
            limit.map_or(now, |limit| window.opens_at(now, &limit, 1))
        };
        let ramp = match self.ramp {
            Some((since, starts)) if !self.ramp_admits(now) => {
                since.plus_ms(ramp_opens_after_ms(self.settings.jobs.as_ref(), starts))
            }
            _ => now,
        };
        opens(&self.starts, self.settings.jobs)
            .max(opens(&self.requests, self.settings.requests_project))
            .max(ramp)
            .max(self.gate.unwrap_or(now))
    }
}

impl User {
    fn ask(&mut self, now: Timestamp, limit: Option<Limit>, requests: u32) {
        if let Some(limit) = limit {
            // Requests that count no more are forgotten even for a longer limit to come.
            if self.requests.available(now, &limit) == limit.count {
                self.requests = SlidingWindow::new();
            }
            self.requests.record(now, requests, &limit);
        }
    }
}

fn unknown(source: SourceName) -> Reply {
    Reply::Refused {
        refusal: Refusal::UnknownSource { source },
    }
}

fn sync(user: &User) -> JobKey {
    JobKey::Sync {
        source: user.source.clone(),
        user: user.name.clone(),
    }
}

fn group(key: &JobKey) -> Option<SourceName> {
    match key {
        JobKey::FanOut { .. } => None,
        JobKey::Sync { source, .. } => Some(source.clone()),
    }
}
