//! The queue once more, as naively as it can be written: lists, and loops over all of them.
//!
//! It shares nothing with the real one but the command language and the policies. Where it is slow, it is clear.

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
        self.answer(now, command)
    }

    /// The last command changed something, so a step back of the clock is measured against it.
    pub(crate) fn note_change(&mut self, now: Timestamp) {
        self.latest = self.latest.max(now);
    }

    fn step_back(&mut self, now: Timestamp) {
        self.latest = now;
        let day = now.plus_ms(24 * 3_600_000);
        for job in &mut self.jobs {
            job.held = None;
            if let Some((_, _, expires, length)) = &mut job.lease {
                *expires = (*expires).min(now.plus_ms(*length));
            }
        }
        for user in &mut self.users {
            user.state.gate_until = user.state.gate_until.map(|gate| gate.min(day));
            user.requests.record(now, 0);
            let mut sources = self.sources.iter();
            let of = sources.find(|one| one.name == user.source).unwrap();
            if of.settings.requests_user.is_none() {
                user.requests = SlidingWindow::new(1_000);
            }
        }
        for source in &mut self.sources {
            source.gate = source.gate.map(|gate| gate.min(day));
            source.starts.record(now, 0);
            source.requests.record(now, 0);
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

    /// Jobs outside leases whose time has come, in the order in which they may start.
    fn line(&self, now: Timestamp, of: Option<&SourceName>) -> Vec<JobKey> {
        let mut ready: Vec<_> = self
            .jobs
            .iter()
            .filter(|job| job.lease.is_none() && group(&job.key) == of.cloned())
            .filter(|job| self.ready_at(job) <= now)
            .map(|job| {
                let users = self.users.iter().find(|user| sync(user) == job.key);
                let due = users.map(|user| user.state.due_at).unwrap_or_default();
                let now_lane = job.priority == Priority::Now;
                let due = if now_lane { Timestamp::EPOCH } else { due };
                (!now_lane, job.run_at, due, job.key.clone())
            })
            .collect();
        ready.sort();
        ready.into_iter().map(|(_, _, _, key)| key).collect()
    }

    fn claim(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        mut slots: u32,
        mut fan_out_slots: u32,
        lease_ms: u64,
        held: Vec<LeaseToken>,
    ) -> Reply {
        for (what, count) in [("slots", slots), ("fan-out slots", fan_out_slots)] {
            if count > 1_000 {
                return too_large(format!(
                    "{count} {what}; at most 1000 are allowed in one command"
                ));
            }
        }
        if lease_ms == 0 || lease_ms > LEASE_MS_MAX {
            return too_large(format!("lease_ms is {lease_ms}; give 1 to {LEASE_MS_MAX}"));
        }
        let mut expired: Vec<(Timestamp, JobKey)> = self
            .jobs
            .iter()
            .filter_map(|job| Some((job.lease.as_ref()?.2, job.key.clone())))
            .filter(|(expires, _)| *expires <= now)
            .collect();
        expired.sort();
        let (mut recovered, mut buried) = (0, 0);
        for (_, key) in expired.into_iter().take(100) {
            if self.stall(now, &key) {
                buried += 1;
            } else {
                recovered += 1;
            }
        }
        let mut leases = Vec::new();
        let mut unknown: Vec<(LeaseToken, JobKey)> = self
            .jobs
            .iter()
            .filter_map(|job| Some((job.lease.clone()?, job.key.clone())))
            .filter(|((by, token, expires, _), _)| {
                *by == worker && *expires > now && !held.contains(token)
            })
            .map(|((_, token, _, _), key)| (token, key))
            .collect();
        unknown.sort();
        for (token, key) in unknown {
            let left = match key {
                JobKey::FanOut { .. } => &mut fan_out_slots,
                JobKey::Sync { .. } => &mut slots,
            };
            if *left > 0 {
                *left -= 1;
                let expires = now.plus_ms(lease_ms);
                self.job(&key).unwrap().lease = Some((worker.clone(), token, expires, lease_ms));
                leases.push(self.lease_of(&key));
            }
        }
        for key in self.line(now, None) {
            if fan_out_slots > 0 {
                fan_out_slots -= 1;
                leases.push(self.start(now, &key, &worker, lease_ms));
            }
        }
        let mut sources: Vec<SourceName> =
            self.sources.iter().map(|one| one.name.clone()).collect();
        sources.sort();
        for name in sources {
            let mut first = true;
            for key in self.line(now, Some(&name)) {
                let source = self.source(&name).unwrap();
                if slots == 0 || !source.admits(now) {
                    break;
                }
                let limit = source.settings.requests_user;
                let user = self.user_of(&key).unwrap();
                let opens =
                    limit.map_or(now, |limit| user.requests.clone().opens_at(now, &limit, 1));
                if opens > now {
                    self.job(&key).unwrap().held = Some(opens);
                    continue;
                }
                user.state.last_started_at = Some(now);
                user.ask(now, limit, 1);
                let source = self.source(&name).unwrap();
                // Asking forgets what can matter no more; the windows are asked once in a claim that starts something.
                if let Some(limit) = source.settings.jobs {
                    if first {
                        let _ = source.starts.available(now, &limit);
                    }
                    source.starts.record(now, 1);
                }
                if let Some(limit) = source.settings.requests_project {
                    if first {
                        let _ = source.requests.available(now, &limit);
                    }
                    source.requests.record(now, 1);
                }
                first = false;
                if let Some((since, starts)) = &mut source.ramp {
                    *starts += 1;
                    let jobs = source.settings.jobs;
                    if ramp_allowance(jobs.as_ref(), now.since_ms(*since)).is_none() {
                        source.ramp = None;
                    }
                }
                slots -= 1;
                leases.push(self.start(now, &key, &worker, lease_ms));
            }
        }
        Reply::Claimed {
            leases,
            recovered,
            buried,
            next_at: self.next_at(now),
        }
    }

    fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        let mut times = Vec::new();
        for job in &self.jobs {
            if let Some((_, _, expires, _)) = job.lease {
                times.push(expires);
                continue;
            }
            match &job.key {
                JobKey::FanOut { .. } => times.push(self.ready_at(job)),
                JobKey::Sync { source, .. } => {
                    let source = self.sources.iter().find(|one| one.name == *source).unwrap();
                    if source.paused.is_none() {
                        times.push(self.ready_at(job).max(source.opens_at(now)));
                    }
                }
            }
        }
        times.into_iter().min().map(|at| at.max(now))
    }

    fn answer(&mut self, now: Timestamp, command: Command) -> Reply {
        match command {
            Command::DefineSource { source, settings } => {
                for (name, limit) in [
                    ("jobs", settings.jobs),
                    ("requests_project", settings.requests_project),
                    ("requests_user", settings.requests_user),
                ] {
                    if let Some(Err(error)) = limit.map(|limit| limit.validate()) {
                        return Reply::Refused {
                            refusal: Refusal::Invalid {
                                what: format!("{name}: {error}"),
                            },
                        };
                    }
                }
                let Some(found) = self.source(&source) else {
                    self.sources.push(Source {
                        name: source,
                        defined: settings.clone(),
                        settings,
                        paused: None,
                        gate: None,
                        reason: None,
                        streak: 0,
                        starts: SlidingWindow::new(1),
                        requests: SlidingWindow::new(1_000),
                        ramp: None,
                    });
                    return Reply::Done;
                };
                if found.defined != settings {
                    let other_user_limit = found.settings.requests_user != settings.requests_user;
                    found.defined = settings.clone();
                    found.settings = settings;
                    for job in &mut self.jobs {
                        if other_user_limit && group(&job.key) == Some(source.clone()) {
                            job.held = None;
                        }
                    }
                    self.trim();
                }
                Reply::Done
            }
            Command::DefineSchedule {
                schedule,
                definition,
            } => {
                if self.source(&definition.source).is_none() {
                    return unknown(definition.source);
                }
                for found in &mut self.schedules {
                    if found.name == schedule {
                        if found.state.definition != definition {
                            found.state.definition = definition;
                            found.state.revision += 1;
                        }
                        return Reply::Schedule {
                            state: found.state.clone(),
                        };
                    }
                }
                let state = ScheduleState {
                    definition,
                    revision: 1,
                    last_tick_at: now,
                    fired: 0,
                    missed: 0,
                };
                self.schedules.push(Schedule {
                    name: schedule,
                    state: state.clone(),
                    ended: None,
                });
                Reply::Schedule { state }
            }
            Command::RemoveSchedule { schedule } => {
                self.schedules.retain(|found| found.name != schedule);
                let key = JobKey::FanOut { schedule };
                self.jobs.retain(|job| job.key != key);
                Reply::Done
            }
            Command::Tick {
                schedule,
                revision,
                after,
                at,
                missed,
                fire,
            } => {
                if at <= after || at > now {
                    return Reply::Refused {
                        refusal: Refusal::Invalid {
                            what: format!(
                                "the tick {at} must be later than {after} and not later than {now}"
                            ),
                        },
                    };
                }
                let found = self.schedules.iter_mut().find(|one| one.name == schedule);
                let Some(found) = found else {
                    return Reply::AlreadyFired { state: None };
                };
                let state = &mut found.state;
                if state.revision != revision || state.last_tick_at != after {
                    return Reply::AlreadyFired {
                        state: Some(state.clone()),
                    };
                }
                state.last_tick_at = at;
                state.missed += missed;
                if fire {
                    state.fired += 1;
                }
                let state = state.clone();
                if fire {
                    let key = JobKey::FanOut { schedule };
                    self.want(&key, now, Priority::Scheduled, Some(at), false);
                }
                Reply::Fired { state }
            }
            Command::Enqueue {
                source,
                jobs,
                checkpoint,
            } => self.enqueue(now, source, jobs, checkpoint),
            Command::Claim {
                worker,
                slots,
                fan_out_slots,
                lease_ms,
                held,
            } => self.claim(now, worker, slots, fan_out_slots, lease_ms, held),
            Command::Heartbeat { leases, lease_ms } => {
                let mut lost = Vec::new();
                for lease in leases {
                    if self.live(now, &lease) {
                        let job = self.job(&lease.key).unwrap();
                        let (_, _, expires, length) = job.lease.as_mut().unwrap();
                        *expires = now.plus_ms(lease_ms);
                        *length = lease_ms;
                    } else {
                        lost.push(lease.token);
                    }
                }
                Reply::Heartbeat { lost }
            }
            Command::Checkpoint {
                lease,
                progress,
                requests,
            } => self.checkpoint(now, lease, progress, requests),
            Command::Complete { lease, commit } => {
                if let Some(cursor) = &commit.cursor
                    && cursor.len() > CURSOR_BYTES_MAX
                {
                    return too_large(format!(
                        "cursor of {} bytes; at most {CURSOR_BYTES_MAX} are kept",
                        cursor.len()
                    ));
                }
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                let synced = matches!(commit.outcome, CommitOutcome::Synced { .. });
                if let Some(user) = self.user_of(&lease.key) {
                    let state = &mut user.state;
                    if commit.cursor.is_some() {
                        state.cursor = commit.cursor;
                    }
                    if let Some(due) = commit.next_due_at {
                        state.due_at = due;
                    }
                    state.last_outcome = Some(commit.outcome.clone());
                    state.last_error = None;
                    if synced {
                        state.last_success_at = Some(now);
                        state.gate_until = None;
                        state.limited_in_a_row = 0;
                    }
                }
                if let (JobKey::Sync { source, .. }, true) = (&lease.key, synced) {
                    self.source(source).unwrap().streak = 0;
                }
                let attempt = self.job(&lease.key).unwrap().attempts + 1;
                let outcome = Some(commit.outcome);
                self.file(now, &lease.key, JobState::Completed, attempt, outcome, None);
                Reply::Done
            }
            Command::Retry { lease, at, error } => {
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                if let Some(user) = self.user_of(&lease.key) {
                    user.state.last_error = Some(cut(&error));
                }
                let job = self.job(&lease.key).unwrap();
                job.attempts += 1;
                job.error = Some(cut(&error));
                self.back(&lease.key, Some(at));
                Reply::Done
            }
            Command::Fail {
                lease,
                error,
                next_due_at,
                park,
            } => {
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                if let Some(user) = self.user_of(&lease.key) {
                    user.state.last_error = Some(cut(&error));
                    if let Some(due) = next_due_at {
                        user.state.due_at = due;
                    }
                    if park.is_some() {
                        user.state.parked = park;
                    }
                }
                let attempt = self.job(&lease.key).unwrap().attempts + 1;
                let error = Some(cut(&error));
                self.file(now, &lease.key, JobState::Failed, attempt, None, error);
                Reply::Done
            }
            Command::Release { lease, at } => {
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                self.back(&lease.key, at);
                Reply::Done
            }
            Command::Limited {
                lease,
                scope,
                retry_after_ms,
                jitter_ms,
                reason,
            } => self.limited(now, lease, scope, (retry_after_ms, jitter_ms), &reason),
            Command::Pause { source, reason } => {
                for found in &mut self.sources {
                    if source.is_none() || source.as_ref() == Some(&found.name) {
                        found.paused = Some(cut(&reason));
                    }
                }
                Reply::Done
            }
            Command::Resume { source } => {
                for found in &mut self.sources {
                    let meant = source.is_none() || source.as_ref() == Some(&found.name);
                    if meant && found.paused.is_some() {
                        found.paused = None;
                        found.ramp = Some((found.gate.unwrap_or(now).max(now), 0));
                    }
                }
                Reply::Done
            }
            Command::SetLimit { source, jobs } => {
                let Some(found) = self.source(&source) else {
                    return unknown(source);
                };
                if let Some(Err(error)) = jobs.map(|limit| limit.validate()) {
                    let what = format!("jobs: {error}");
                    return Reply::Refused {
                        refusal: Refusal::Invalid { what },
                    };
                }
                found.settings.jobs = jobs;
                Reply::Done
            }
            Command::DueUsers {
                source,
                due_by,
                after,
                limit,
            } => {
                let mut due: Vec<(Timestamp, UserId)> = self
                    .users
                    .iter()
                    .filter(|user| user.source == source && user.state.parked.is_none())
                    .map(|user| (user.state.due_at, user.name.clone()))
                    .filter(|(due, _)| *due <= due_by)
                    .collect();
                due.sort();
                let due_total = after.is_none().then_some(due.len() as u64);
                due.retain(|entry| after.as_ref().is_none_or(|after| entry > after));
                due.truncate(limit as usize);
                Reply::DueUsers {
                    users: due,
                    due_total,
                }
            }
            Command::Enroll {
                source,
                users,
                due_at,
            } => {
                if users.len() > 1_000 {
                    let count = users.len();
                    return too_large(format!(
                        "{count} users; at most 1000 are allowed in one command"
                    ));
                }
                if self.source(&source).is_none() {
                    return unknown(source);
                }
                let mut enrolled = Vec::new();
                for name in users {
                    if let Some(user) = self.user(&source, &name) {
                        if user.state.parked.take().is_some() {
                            user.state.due_at = due_at;
                            enrolled.push(name);
                        }
                        continue;
                    }
                    enrolled.push(name.clone());
                    self.users.push(User {
                        source: source.clone(),
                        name,
                        state: UserState {
                            enrolled_at: now,
                            due_at,
                            parked: None,
                            cursor: None,
                            last_started_at: None,
                            last_success_at: None,
                            last_outcome: None,
                            last_error: None,
                            gate_until: None,
                            limited_in_a_row: 0,
                        },
                        ended: None,
                        requests: SlidingWindow::new(1_000),
                    });
                }
                Reply::Enrolled {
                    source,
                    users: enrolled,
                }
            }
            Command::Unenroll { source, users } => {
                let before = self.users.len();
                for name in users {
                    self.users
                        .retain(|user| user.source != source || user.name != name);
                    let source = source.clone();
                    let key = JobKey::Sync { source, user: name };
                    self.jobs.retain(|job| job.key != key);
                }
                Reply::Count {
                    count: (before - self.users.len()) as u64,
                }
            }
            Command::User { source, user } => Reply::User {
                state: self.user(&source, &user).map(|user| user.state.clone()),
            },
            Command::Users {
                source,
                after,
                limit,
            } => {
                let mut users: Vec<(UserId, UserState)> = self
                    .users
                    .iter()
                    .filter(|user| user.source == source)
                    .map(|user| (user.name.clone(), user.state.clone()))
                    .filter(|(name, _)| after.as_ref().is_none_or(|after| name > after))
                    .collect();
                users.sort_by(|left, right| left.0.cmp(&right.0));
                users.truncate(limit as usize);
                Reply::Users { users }
            }
            Command::Schedules => {
                let mut schedules: Vec<_> = self
                    .schedules
                    .iter()
                    .map(|found| (found.name.clone(), found.state.clone()))
                    .collect();
                schedules.sort_by(|left, right| left.0.cmp(&right.0));
                Reply::Schedules { schedules }
            }
            Command::Stats => self.stats(now),
            Command::Jobs {
                state,
                offset,
                limit,
            } => {
                let jobs = self.listing(now, state);
                let page = jobs.into_iter().skip(offset as usize);
                Reply::Jobs {
                    jobs: page.take(limit as usize).collect(),
                }
            }
            Command::RetryFailed { number } => {
                let mut count = 0;
                for entry in self.finished.clone() {
                    let listing = &entry.listing;
                    let meant = number.is_none() || number == listing.number;
                    if listing.state != JobState::Failed || !meant {
                        continue;
                    }
                    let welcome = match &listing.key {
                        JobKey::FanOut { schedule } => {
                            self.schedules.iter().any(|found| found.name == *schedule)
                        }
                        key => self
                            .user_of(key)
                            .is_some_and(|user| user.state.parked.is_none()),
                    };
                    if welcome {
                        count += 1;
                        self.finished
                            .retain(|other| other.listing.number != listing.number);
                        self.want(&listing.key, now, Priority::Scheduled, entry.nominal, true);
                    }
                }
                Reply::Count { count }
            }
            Command::Remove { key } => {
                let before = self.jobs.len();
                self.jobs
                    .retain(|job| job.key != key || job.lease.is_some());
                Reply::Count {
                    count: (before - self.jobs.len()) as u64,
                }
            }
        }
    }

    fn enqueue(
        &mut self,
        now: Timestamp,
        source: SourceName,
        jobs: Vec<NewJob>,
        checkpoint: Option<(LeaseRef, String)>,
    ) -> Reply {
        if self.source(&source).is_none() {
            return unknown(source);
        }
        if let Some((lease, progress)) = checkpoint {
            if group(&lease.key).is_some() {
                return Reply::Refused {
                    refusal: Refusal::Invalid {
                        what: "only a fan-out's lease goes with an enqueue".to_owned(),
                    },
                };
            }
            if !self.live(now, &lease) {
                return lost();
            }
            self.job(&lease.key).unwrap().progress = Some(progress);
        }
        let (mut added, mut coalesced, mut refused) = (0, 0, 0);
        for job in jobs {
            let state = self.user(&source, &job.user).map(|user| user.state.clone());
            let Some(state) = state.filter(|state| state.parked.is_none()) else {
                refused += 1;
                continue;
            };
            let mut priority = job.priority;
            if let Some(started) = state.last_started_at
                && now.as_ms() < started.as_ms() + 60_000
            {
                priority = Priority::Scheduled;
            }
            let key = JobKey::Sync {
                source: source.clone(),
                user: job.user,
            };
            let hurries = priority == Priority::Now;
            if self.want(&key, job.run_at, priority, job.nominal_at, hurries) {
                added += 1;
            } else {
                coalesced += 1;
            }
        }
        Reply::Enqueued {
            added,
            coalesced,
            refused,
        }
    }

    fn owner(&self, key: &JobKey) -> Option<SourceName> {
        match key {
            JobKey::Sync { source, .. } => Some(source.clone()),
            JobKey::FanOut { schedule } => {
                let found = self.schedules.iter().find(|one| one.name == *schedule);
                found.map(|found| found.state.definition.source.clone())
            }
        }
    }

    fn checkpoint(
        &mut self,
        now: Timestamp,
        lease: LeaseRef,
        progress: Option<String>,
        requests: u32,
    ) -> Reply {
        if !self.live(now, &lease) {
            return lost();
        }
        let name = self.owner(&lease.key).unwrap();
        let source = self.source(&name).unwrap().clone();
        let settings = &source.settings;
        for limit in [settings.requests_project, settings.requests_user] {
            if let Some(Limit { count, .. }) = limit
                && requests > count
            {
                return too_large(format!(
                    "{requests} requests; at most {count} are allowed in one command"
                ));
            }
        }
        if let Some(progress) = progress {
            match self.user_of(&lease.key) {
                Some(user) => user.state.cursor = Some(progress),
                None => self.job(&lease.key).unwrap().progress = Some(progress),
            }
        }
        if requests == 0 {
            return Reply::Permit { wait_until: None };
        }
        let mut waits = vec![now];
        waits.extend(source.gate);
        if source.paused.is_some() {
            waits.push(now.plus_ms(60_000));
        }
        if let Some(limit) = settings.requests_project {
            waits.push(source.requests.clone().opens_at(now, &limit, requests));
        }
        if let Some(user) = self.user_of(&lease.key) {
            waits.extend(user.state.gate_until);
            if let Some(limit) = settings.requests_user {
                waits.push(user.requests.clone().opens_at(now, &limit, requests));
            }
        }
        let until = waits.into_iter().max().unwrap();
        if until > now {
            let wait_until = Some(until);
            return Reply::Permit { wait_until };
        }
        if settings.requests_project.is_some() {
            self.source(&name).unwrap().requests.record(now, requests);
        }
        if let Some(user) = self.user_of(&lease.key) {
            user.ask(now, settings.requests_user, requests);
        }
        Reply::Permit { wait_until: None }
    }

    fn limited(
        &mut self,
        now: Timestamp,
        lease: LeaseRef,
        scope: LimitScope,
        (retry_after_ms, jitter_ms): (Option<u64>, u64),
        reason: &str,
    ) -> Reply {
        if group(&lease.key).is_none() && scope == LimitScope::User {
            return Reply::Refused {
                refusal: Refusal::Invalid {
                    what: "a fan-out has no user whose gate could close".to_owned(),
                },
            };
        }
        let ending = self.ending(now, &lease);
        if ending == Some(Reply::AlreadyDone) {
            return Reply::AlreadyDone;
        }
        let close = |gate: &mut Option<Timestamp>, streak: &mut u32| {
            // Told while it is closed: of the same moment.
            if *streak == 0 || gate.is_none_or(|until| until <= now) {
                *streak += 1;
            }
            let mut grown_ms = 1_000;
            for _ in 1..*streak {
                grown_ms = 64_000.min(grown_ms * 2);
            }
            let pause_ms = retry_after_ms.unwrap_or(grown_ms).saturating_add(jitter_ms);
            let until = now.plus_ms(pause_ms.min(24 * 3_600_000));
            *gate = Some(gate.unwrap_or(until).max(until));
            gate.unwrap()
        };
        let mut until = now;
        if scope == LimitScope::User {
            if let Some(user) = self.user_of(&lease.key) {
                let state = &mut user.state;
                until = close(&mut state.gate_until, &mut state.limited_in_a_row);
            }
        } else if let Some(name) = self.owner(&lease.key)
            && let Some(source) = self.source(&name)
        {
            until = close(&mut source.gate, &mut source.streak);
            source.reason = Some(cut(reason));
            source.ramp = Some((until, 0));
        }
        if let Some(reply) = ending {
            return reply;
        }
        self.note_end(&lease);
        self.back(&lease.key, (scope == LimitScope::User).then_some(until));
        Reply::GateClosed { until }
    }

    fn listing(&self, now: Timestamp, state: JobState) -> Vec<JobListing> {
        let mut jobs: Vec<JobListing> = Vec::new();
        for job in &self.jobs {
            let (of, at, worker) = match &job.lease {
                Some((worker, _, expires, _)) => (JobState::Active, *expires, Some(worker.clone())),
                None if self.ready_at(job) <= now => (JobState::Waiting, self.ready_at(job), None),
                None => (JobState::Delayed, self.ready_at(job), None),
            };
            if of == state {
                jobs.push(JobListing {
                    key: job.key.clone(),
                    state,
                    number: None,
                    at,
                    priority: job.priority,
                    attempt: job.attempts + u32::from(worker.is_some()),
                    worker,
                    outcome: None,
                    error: job.error.clone(),
                });
            }
        }
        match state {
            JobState::Active => jobs.sort_by(|left, right| left.key.cmp(&right.key)),
            _ => jobs.sort_by_key(|job| (job.at, job.key.clone())),
        }
        for entry in self.finished.iter().rev() {
            if entry.listing.state == state {
                jobs.push(entry.listing.clone());
            }
        }
        jobs
    }

    fn stats(&self, now: Timestamp) -> Reply {
        let count = |state| self.listing(now, state).len() as u64;
        let mut workers: Vec<(WorkerId, u64)> = Vec::new();
        for job in &self.jobs {
            if let Some((worker, _, _, _)) = &job.lease {
                match workers.iter_mut().find(|(known, _)| known == worker) {
                    Some((_, leases)) => *leases += 1,
                    None => workers.push((worker.clone(), 1)),
                }
            }
        }
        workers.sort();
        let mut sources: Vec<(SourceName, SourceStats)> = Vec::new();
        for source in &self.sources {
            let users: Vec<&User> = self
                .users
                .iter()
                .filter(|user| user.source == source.name)
                .collect();
            let parked = |user: &&&User| user.state.parked.is_some();
            let starts = source.settings.jobs.map_or(0, |limit| {
                limit.count - source.starts.clone().available(now, &limit)
            });
            sources.push((
                source.name.clone(),
                SourceStats {
                    settings: source.settings.clone(),
                    paused: source.paused.clone(),
                    gate_until: source.gate.filter(|until| *until > now),
                    gate_reason: source.reason.clone(),
                    starts_in_window: u64::from(starts),
                    users: users.len() as u64,
                    parked: users.iter().filter(parked).count() as u64,
                    never_synced: users
                        .iter()
                        .filter(|user| user.state.last_success_at.is_none())
                        .count() as u64,
                    oldest_success_at: users
                        .iter()
                        .filter(|user| !parked(user))
                        .filter_map(|user| user.state.last_success_at)
                        .min(),
                },
            ));
        }
        sources.sort_by(|left, right| left.0.cmp(&right.0));
        Reply::Stats {
            stats: QueueStats {
                waiting: count(JobState::Waiting),
                delayed: count(JobState::Delayed),
                active: count(JobState::Active),
                completed: count(JobState::Completed),
                failed: count(JobState::Failed),
                completed_total: self.completed_total,
                failed_total: self.failed_total,
                sources,
                workers,
            },
        }
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

    fn admits(&self, now: Timestamp) -> bool {
        let fits = |window: &SlidingWindow, limit: Option<Limit>| {
            limit.is_none_or(|limit| window.clone().available(now, &limit) > 0)
        };
        self.paused.is_none()
            && self.gate.is_none_or(|until| until <= now)
            && fits(&self.starts, self.settings.jobs)
            && fits(&self.requests, self.settings.requests_project)
            && self.ramp_admits(now)
    }

    fn opens_at(&self, now: Timestamp) -> Timestamp {
        let opens = |window: &SlidingWindow, limit: Option<Limit>| {
            limit.map_or(now, |limit| window.clone().opens_at(now, &limit, 1))
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
                self.requests = SlidingWindow::new(1_000);
            }
            self.requests.record(now, requests);
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
