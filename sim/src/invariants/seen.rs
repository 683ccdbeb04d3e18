//! What a ledger must know of a command, taken before the store applies it (and takes it away).

use kalends_core::failure::LimitScope;
use kalends_core::id::{ScheduleName, WorkerId};
use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::queue::command::{Command, CommitOutcome, LeaseRef, Priority};
use kalends_core::queue::state::JobKey;
use kalends_core::time::Timestamp;

use super::{JobNumber, user_number};

/// How a job's end was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// Done; whether it was a sync that succeeded.
    Completed {
        /// All of the user's calendars were read.
        synced: bool,
    },
    /// Given up; whether its user was parked.
    Failed {
        /// The grant is gone.
        parked: bool,
    },
    /// To be tried again then.
    Retried(Timestamp),
    /// Handed back, until then.
    Released(Option<Timestamp>),
    /// "Slow down".
    Limited(LimitScope),
}

/// A lease, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseNumber {
    /// The job.
    pub job: JobNumber,
    /// Its token.
    pub token: u64,
}

/// What a ledger must know of a command.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Jobs are asked for.
    Claim(WorkerId),
    /// Leases are extended.
    Heartbeat {
        /// Which.
        leases: Vec<LeaseNumber>,
        /// By how much from now, in milliseconds.
        lease_ms: u64,
    },
    /// A job ends.
    End(LeaseNumber, EndKind),
    /// A job under way asks leave for requests.
    Ask {
        /// Whose.
        lease: LeaseNumber,
        /// How many.
        requests: u32,
    },
    /// Jobs are enqueued.
    Enqueue {
        /// Whose, from when on, and in which lane.
        jobs: Vec<(JobNumber, Timestamp, Priority)>,
        /// With a fan-out's progress.
        with_checkpoint: bool,
    },
    /// A tick is told.
    Tick {
        /// Of which schedule.
        schedule: ScheduleName,
        /// The last one, as the sender knows it.
        after: Timestamp,
        /// This one.
        at: Timestamp,
        /// Skipped between the two.
        missed: u64,
        /// Whether it fires.
        fire: bool,
    },
    /// A source is defined.
    DefineSource(Option<Limit>),
    /// A schedule is defined.
    DefineSchedule(ScheduleName, ScheduleDefinition),
    /// The job limit is changed.
    SetLimit(Option<Limit>),
    /// The source is paused.
    Pause,
    /// The source is resumed.
    Resume,
    /// Users are enrolled.
    Enroll(Vec<JobNumber>),
    /// Users are connected, by these grants.
    Connect(Vec<(JobNumber, u64)>),
    /// Something that changes jobs in ways that only the queue knows.
    Reshuffle,
    /// Nothing that a ledger minds.
    Other,
}

impl Seen {
    /// Reads a command; `users` is how many users there are, and the number of the fan-out.
    ///
    /// # Panics
    /// If it speaks of a user that is none of the emulator's.
    #[must_use]
    pub fn of(command: &Command, users: usize) -> Seen {
        let end = |lease: &LeaseRef, kind| Seen::End(lease_number(lease, users), kind);
        match command {
            Command::Claim { worker, .. } => Seen::Claim(worker.clone()),
            Command::Heartbeat { leases, lease_ms } => Seen::Heartbeat {
                leases: leases
                    .iter()
                    .map(|lease| lease_number(lease, users))
                    .collect(),
                lease_ms: *lease_ms,
            },
            Command::Complete { lease, commit } => {
                let synced = matches!(commit.outcome, CommitOutcome::Synced { .. });
                end(lease, EndKind::Completed { synced })
            }
            Command::Fail { lease, park, .. } => end(
                lease,
                EndKind::Failed {
                    parked: park.is_some(),
                },
            ),
            Command::Retry { lease, at, .. } => end(lease, EndKind::Retried(*at)),
            Command::Release { lease, at } => end(lease, EndKind::Released(*at)),
            Command::Limited { lease, scope, .. } => end(lease, EndKind::Limited(*scope)),
            Command::Checkpoint {
                lease, requests, ..
            } if *requests > 0 => Seen::Ask {
                lease: lease_number(lease, users),
                requests: *requests,
            },
            Command::Enqueue {
                jobs, checkpoint, ..
            } => Seen::Enqueue {
                jobs: jobs
                    .iter()
                    .map(|job| {
                        let number = user_number(&job.user).expect("a user of the emulator");
                        (number as usize, job.run_at, job.priority)
                    })
                    .collect(),
                with_checkpoint: checkpoint.is_some(),
            },
            Command::Tick {
                schedule,
                after,
                at,
                missed,
                fire,
                ..
            } => Seen::Tick {
                schedule: schedule.clone(),
                after: *after,
                at: *at,
                missed: *missed,
                fire: *fire,
            },
            Command::DefineSource { settings, .. } => Seen::DefineSource(settings.jobs),
            Command::DefineSchedule {
                schedule,
                definition,
            } => Seen::DefineSchedule(schedule.clone(), definition.clone()),
            Command::SetLimit { jobs, .. } => Seen::SetLimit(*jobs),
            Command::Pause { .. } => Seen::Pause,
            Command::Resume { .. } => Seen::Resume,
            Command::Enroll { users, .. } => Seen::Enroll(
                users
                    .iter()
                    .map(|user| user_number(user).expect("a user of the emulator") as usize)
                    .collect(),
            ),
            Command::Connect { grants, .. } => Seen::Connect(
                grants
                    .iter()
                    .map(|(user, grant)| {
                        let number = user_number(user).expect("a user of the emulator");
                        (number as usize, *grant)
                    })
                    .collect(),
            ),
            Command::RetryFailed { .. }
            | Command::Remove { .. }
            | Command::Unenroll { .. }
            | Command::RemoveSchedule { .. } => Seen::Reshuffle,
            _ => Seen::Other,
        }
    }
}

fn lease_number(lease: &LeaseRef, users: usize) -> LeaseNumber {
    LeaseNumber {
        job: job_number(&lease.key, users),
        token: lease.token.0,
    }
}

/// The number of a job.
///
/// # Panics
/// If it is the sync of a user that is none of the emulator's.
#[must_use]
pub fn job_number(key: &JobKey, users: usize) -> JobNumber {
    match key {
        JobKey::FanOut { .. } => users,
        JobKey::Sync { user, .. } => user_number(user).expect("a user of the emulator") as usize,
    }
}
