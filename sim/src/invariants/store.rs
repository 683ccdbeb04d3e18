//! The ledgers of the store together: each command that was applied, with its reply, goes to those whom it concerns.
//!
//! It is a value that can be copied: a failover that loses writes takes it back to what it was when the replica fell
//! behind (see the parent module for what that excuses).

use kalends_core::id::SourceName;
use kalends_core::policy::backoff::Backoff;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{BATCH_MAX, Command, Lease, Refusal, Reply};
use kalends_core::queue::state::{JobKey, JobListing, JobState};
use kalends_core::time::Timestamp;

use super::attempts::Attempts;
use super::fresh::Freshness;
use super::jobs::Jobs;
use super::leases::Leases;
use super::promises::Promises;
use super::seen::{EndKind, LeaseNumber, Seen, job_number};
use super::starts::Starts;
use super::ticks::Ticks;
use super::waits::{Waits, WishState};
use super::{JobNumber, Verdict, user_number};

/// What all ledgers of the store know.
#[derive(Clone, Debug)]
pub struct StoreLedger {
    users: usize,
    leases: Leases,
    starts: Starts,
    waits: Waits,
    attempts: Attempts,
    jobs: Jobs,
    ticks: Ticks,
    freshness: Freshness,
    /// The store's clock stepped back: the next command settles what that means.
    clock_was_wrong: bool,
    /// Jobs that were active when jobs were changed in ways that only the queue knows: it may have a wish for one more.
    unsure: Vec<bool>,
    /// The grant by which each user is connected.
    grants: Vec<Option<u64>>,
    /// What the last observed command did, for marks and reports.
    pub last: Effects,
    /// What was promised beside jobs.
    pub promises: Promises,
}

/// What one command did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Jobs that started.
    pub started: u32,
    /// Those of them that are syncs.
    pub syncs_started: u32,
    /// Leases given again that the worker did not know of.
    pub given_again: u32,
    /// A user whose sync succeeded.
    pub synced: Option<u32>,
    /// When the lease was granted under which it succeeded (true time).
    pub claimed_at: Option<Timestamp>,
    /// From the true start of that user's round before to that of this one, in milliseconds, if there was one.
    pub gap_ms: Option<u64>,
}

impl StoreLedger {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(users: usize, backoff: Backoff) -> Self {
        let jobs = users + 1;
        StoreLedger {
            users,
            leases: Leases::new(jobs),
            starts: Starts::default(),
            waits: Waits::new(jobs),
            attempts: Attempts::new(jobs, backoff.attempts_max),
            jobs: Jobs::new(jobs),
            ticks: Ticks::default(),
            freshness: Freshness::new(users, jobs),
            clock_was_wrong: false,
            unsure: vec![false; jobs],
            grants: vec![None; users],
            last: Effects::default(),
            promises: Promises::new(jobs, backoff),
        }
    }

    /// Takes a command that was applied at `now`, the store's time; `true_now` is the world's.
    ///
    /// # Errors
    /// If a sentence was broken by it.
    pub fn observe(
        &mut self,
        true_now: Timestamp,
        now: Timestamp,
        seen: Seen,
        reply: &Reply,
        queue: &mut Queue,
    ) -> Verdict {
        self.last = Effects::default();
        let was_wrong = std::mem::take(&mut self.clock_was_wrong);
        if was_wrong {
            self.starts.restamp(now);
        }
        let verdict = self.observe_by(true_now, now, seen, reply, queue);
        if was_wrong {
            self.take_over(now, queue);
            if let Reply::Claimed { leases, .. } = reply {
                for lease in leases {
                    let job = job_number(&lease.lease.key, self.users);
                    self.freshness
                        .claimed(job, true_now, lease.cursor.as_deref());
                    self.leases.name(job, lease.lease.token.0);
                }
            }
            return Ok(());
        }
        verdict
    }

    fn observe_by(
        &mut self,
        true_now: Timestamp,
        now: Timestamp,
        seen: Seen,
        reply: &Reply,
        queue: &mut Queue,
    ) -> Verdict {
        match (seen, reply) {
            (
                Seen::Claim(_),
                Reply::Claimed {
                    leases,
                    recovered,
                    buried,
                    ..
                },
            ) => self.claimed(
                true_now,
                now,
                leases,
                u64::from(*recovered) + u64::from(*buried),
                *buried > 0,
                queue,
            ),
            (Seen::Heartbeat { leases, lease_ms }, Reply::Heartbeat { lost }) => {
                for lease in leases {
                    if lost.iter().any(|token| token.0 == lease.token) {
                        self.leases.refused(now, lease)?;
                    } else {
                        self.leases.extended(now, lease, lease_ms)?;
                    }
                }
                Ok(())
            }
            (Seen::End(lease, kind), Reply::Done | Reply::GateClosed { .. }) => {
                self.ended(now, lease, kind, reply, queue)
            }
            (
                Seen::End(lease, EndKind::Limited(scope)),
                Reply::Refused {
                    refusal: Refusal::LeaseLost,
                },
            ) => {
                // The gate closes even then; until when is not told, so it is asked.
                let until = gate_of(queue, now, lease.job, self.users, scope);
                self.waits.gate_closed(lease.job, scope, until);
                self.leases.refused(now, lease)
            }
            (
                Seen::End(lease, _),
                Reply::Refused {
                    refusal: Refusal::LeaseLost,
                },
            ) => self.leases.refused(now, lease),
            (Seen::Ask { lease, requests }, Reply::Permit { wait_until: None }) => {
                self.waits.permitted(now, lease.job, requests)
            }
            (
                Seen::Enqueue {
                    jobs,
                    with_checkpoint,
                },
                Reply::Enqueued {
                    added,
                    coalesced,
                    refused,
                },
            ) => self.enqueued(now, &jobs, with_checkpoint, [*added, *coalesced, *refused]),
            (
                Seen::Tick {
                    schedule,
                    after,
                    at,
                    missed,
                    fire,
                },
                Reply::Fired { .. },
            ) => {
                self.ticks.fired(&schedule, after, at, missed, fire)?;
                if fire {
                    self.wish(
                        now,
                        self.users,
                        now,
                        kalends_core::queue::command::Priority::Scheduled,
                    );
                }
                Ok(())
            }
            (Seen::DefineSource(limit), Reply::Done) => {
                self.starts.defined(limit);
                Ok(())
            }
            (Seen::DefineSchedule(name, definition), Reply::Schedule { state }) => {
                self.ticks.defined(&name, definition, state)
            }
            (Seen::SetLimit(limit), Reply::Done) => {
                self.starts.changed(limit);
                Ok(())
            }
            (Seen::Pause, _) => {
                self.waits.paused(true);
                Ok(())
            }
            (Seen::Resume, _) => {
                self.waits.paused(false);
                Ok(())
            }
            (Seen::Enroll(users), Reply::Enrolled { .. }) => {
                users.iter().for_each(|user| self.jobs.enrolled(*user));
                Ok(())
            }
            (Seen::Connect(grants), Reply::Enrolled { users, .. }) => {
                for (job, grant) in grants {
                    self.connected(job, grant);
                }
                let unparked = users.iter().filter_map(user_number);
                unparked.for_each(|user| self.jobs.parked(user as usize, false));
                Ok(())
            }
            (Seen::Reshuffle, _) => {
                self.take_over(now, queue);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn claimed(
        &mut self,
        true_now: Timestamp,
        now: Timestamp,
        leases: &[Lease],
        back: u64,
        some_buried: bool,
        queue: &Queue,
    ) -> Verdict {
        let expired = self.leases.expire(now);
        self.jobs.recovered(expired.len() as u64, back)?;
        for job in expired {
            // The order of a claim: what expired goes back first, and may be given in the same command.
            let is_there = !some_buried || queue.is_outstanding(&self.key(job));
            let buried = some_buried && !is_there;
            let outstanding = self.waits.stalled(job, buried);
            self.promises.stalled(job, some_buried)?;
            if buried {
                self.attempts.forget(job);
            }
            if some_buried && is_there {
                // It may have been given up and be there again, for a wish that came meanwhile.
                self.waits.forget_one(job);
                self.attempts.ask_again(job);
            }
            self.jobs.note(job, outstanding || is_there);
        }
        for lease in leases {
            let job = job_number(&lease.lease.key, self.users);
            let number = LeaseNumber {
                job,
                token: lease.lease.token.0,
            };
            if !self.leases.granted(now, number, lease.expires_at)? {
                self.last.given_again += 1;
                continue;
            }
            self.last.started += 1;
            let is_sync = job < self.users;
            self.freshness
                .claimed(job, true_now, lease.cursor.as_deref());
            self.waits.started(now, job, is_sync)?;
            if !some_buried {
                self.attempts.started(job, lease.attempt)?;
            }
            if is_sync {
                self.last.syncs_started += 1;
                self.starts.started(now)?;
            }
        }
        Ok(())
    }

    fn ended(
        &mut self,
        now: Timestamp,
        lease: LeaseNumber,
        kind: EndKind,
        reply: &Reply,
        queue: &Queue,
    ) -> Verdict {
        let verdict = self.leases.ended(now, lease);
        let job = lease.job;
        let gate_until = match reply {
            Reply::GateClosed { until } => Some(*until),
            _ => None,
        };
        if let EndKind::Failed { parked: true } = kind
            && job < self.users
        {
            self.jobs.parked(job, true);
        }
        let mut outstanding = self.waits.ended(job, kind, gate_until);
        if std::mem::take(&mut self.unsure[job]) {
            outstanding = queue.is_outstanding(&self.key(job));
        }
        self.attempts.ended(job, kind);
        self.jobs.note(job, outstanding);
        if kind == (EndKind::Completed { synced: true }) && job < self.users {
            let success = self.freshness.synced(job);
            self.last.synced = u32::try_from(job).ok();
            self.last.claimed_at = Some(success.claimed_at);
            self.last.gap_ms = success.gap_ms;
        }
        verdict
    }

    fn enqueued(
        &mut self,
        now: Timestamp,
        jobs: &[(JobNumber, Timestamp, kalends_core::queue::command::Priority)],
        with_checkpoint: bool,
        told: [u64; 3],
    ) -> Verdict {
        if with_checkpoint && told == [0; 3] {
            // This very page was enqueued before.
            return Ok(());
        }
        let mut expected = [0; 3];
        for (job, run_at, priority) in jobs {
            let place = if !self.jobs.is_accepted(*job) {
                2
            } else {
                usize::from(!self.wish(now, *job, *run_at, *priority))
            };
            expected[place] += 1;
        }
        self.jobs.enqueued(expected, told)
    }

    /// A user is connected by this grant; what runs under another one goes back.
    fn connected(&mut self, job: JobNumber, grant: u64) {
        if !self.jobs.is_enrolled(job) || self.grants[job] == Some(grant) {
            return;
        }
        self.grants[job] = Some(grant);
        if self.leases.is_held(job) {
            self.leases.taken_away(job);
            self.waits.ended(job, EndKind::Released(None), None);
        }
    }

    /// Somebody wishes for a job; whether it is a new one.
    fn wish(
        &mut self,
        now: Timestamp,
        job: JobNumber,
        run_at: Timestamp,
        priority: kalends_core::queue::command::Priority,
    ) -> bool {
        let state = if !self.jobs.is_outstanding(job) {
            WishState::New
        } else if self.leases.is_held(job) {
            WishState::Active
        } else {
            WishState::Waiting
        };
        self.waits.wished(now, job, run_at, priority, state);
        self.jobs.note(job, true);
        state == WishState::New
    }

    /// The store's clock stepped back.
    pub fn clock_stepped_back(&mut self) {
        self.clock_was_wrong = true;
        self.promises.forget();
    }

    /// This copy was made when the replica fell behind, and the replica is the store now; `lost` is what happened since.
    pub fn outlive(&mut self, lost: &StoreLedger) {
        self.leases.outlive(lost.leases.last_token());
        self.freshness.outlive(&lost.freshness);
    }

    /// What is promised by a store that was emptied: nothing, but that its tokens grow on.
    #[must_use]
    pub fn emptied(&self, backoff: Backoff) -> Self {
        let mut anew = StoreLedger::new(self.users, backoff);
        anew.leases.outlive(self.leases.last_token());
        anew.freshness = self.freshness.emptied();
        anew
    }

    /// Takes over which jobs are outstanding, from the queue.
    fn take_over(&mut self, now: Timestamp, queue: &mut Queue) {
        let mut active = Vec::new();
        for job in 0..=self.users {
            self.jobs.note(job, false);
        }
        for state in [JobState::Waiting, JobState::Delayed, JobState::Active] {
            for listed in list(queue, now, state) {
                let job = job_number(&listed.key, self.users);
                self.jobs.note(job, true);
                if state == JobState::Active {
                    active.push((job, listed.at));
                }
            }
        }
        active.iter().for_each(|(job, _)| self.unsure[*job] = true);
        self.leases.take_over(&active);
        self.waits.forget();
        // A dead letter that is tried again while its user's job is active makes that run once more.
        for (job, _) in active {
            self.waits.runs_again(job, queue.runs_again(&self.key(job)));
        }
        if let Reply::Schedules { schedules } = queue.apply(now, Command::Schedules) {
            for (name, state) in schedules {
                self.ticks.take_over(&name, &state);
            }
        }
    }

    fn key(&self, job: JobNumber) -> JobKey {
        if job == self.users {
            let schedule = crate::world::schedule_name();
            return JobKey::FanOut { schedule };
        }
        JobKey::Sync {
            source: SourceName::google_calendar(),
            user: crate::world::user_id(u32::try_from(job).expect("few users")),
        }
    }

    /// Compares the queue's own counts with what follows from what was accepted.
    ///
    /// # Errors
    /// If they differ.
    pub fn audit(&mut self, now: Timestamp, queue: &mut Queue) -> Verdict {
        if self.clock_was_wrong {
            return Ok(());
        }
        let Reply::Stats { stats } = queue.apply(now, Command::Stats) else {
            panic!("stats are always answered");
        };
        self.jobs.counted(&stats, self.leases.count())
    }

    /// Whether a user is parked.
    #[must_use]
    pub fn accepts(&self, user: usize) -> bool {
        self.jobs.is_accepted(user)
    }

    /// Whether a user is enrolled.
    #[must_use]
    pub fn is_enrolled(&self, user: usize) -> bool {
        self.jobs.is_enrolled(user)
    }

    /// From now on users are counted whose successful round of syncing began at or after `from` (true time).
    pub fn count_fresh_from(&mut self, from: Timestamp) {
        self.freshness.count_from(from);
    }

    /// How many those are.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.freshness.fresh()
    }

    /// When a user's last successful round of syncing began (true time); the beginning of time if there was none.
    #[must_use]
    pub fn fresh_since(&self, user: usize) -> Timestamp {
        self.freshness.since(user)
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> Option<kalends_core::policy::limit::Limit> {
        self.starts.limit()
    }

    /// How many leases are held.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.count()
    }
}

fn list(queue: &mut Queue, now: Timestamp, state: JobState) -> Vec<JobListing> {
    let mut listed = Vec::new();
    loop {
        let limit = u32::try_from(BATCH_MAX).expect("a batch is small");
        let offset = u32::try_from(listed.len()).expect("few jobs");
        let Reply::Jobs { jobs } = queue.apply(
            now,
            Command::Jobs {
                state,
                offset,
                limit,
            },
        ) else {
            panic!("listings are always answered");
        };
        let last = jobs.len() < BATCH_MAX;
        listed.extend(jobs);
        if last {
            return listed;
        }
    }
}

fn gate_of(
    queue: &mut Queue,
    now: Timestamp,
    job: JobNumber,
    users: usize,
    scope: kalends_core::failure::LimitScope,
) -> Option<Timestamp> {
    use kalends_core::failure::LimitScope;
    let source = SourceName::google_calendar();
    match scope {
        LimitScope::Source => match queue.apply(now, Command::Stats) {
            Reply::Stats { stats } => stats
                .sources
                .first()
                .and_then(|(_, stats)| stats.gate_until),
            _ => None,
        },
        LimitScope::User if job < users => {
            let user = crate::world::user_id(u32::try_from(job).expect("few users"));
            match queue.apply(now, Command::User { source, user }) {
                Reply::User { state: Some(state) } => state.gate_until,
                _ => None,
            }
        }
        LimitScope::User => None,
    }
}
