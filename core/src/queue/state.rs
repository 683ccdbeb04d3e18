//! What the queue keeps: sources, schedules, users, jobs, dead letters. Every type here is plain data that can be
//! written to a file and read back.

use serde::{Deserialize, Serialize};

use crate::id::{ScheduleName, SourceName, UserId, WorkerId};
use crate::policy::limit::Limit;
use crate::policy::schedule::ScheduleDefinition;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};

/// Which job. A schedule has one fan-out and a user one sync job a source at a time; the key is the job's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum JobKey {
    /// The fan-out of a schedule's tick.
    FanOut {
        /// The schedule.
        schedule: ScheduleName,
    },
    /// The sync of one user.
    Sync {
        /// The source.
        source: SourceName,
        /// The user.
        user: UserId,
    },
}

impl std::fmt::Display for JobKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JobKey::FanOut { schedule } => write!(formatter, "fan-out of {schedule}"),
            JobKey::Sync { source, user } => write!(formatter, "{source} sync of {user}"),
        }
    }
}

/// Who goes first among jobs of a source that are ready. Within a priority: who was ready first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// The scheduled background sync.
    #[default]
    Scheduled,
    /// "Sync now": ahead of scheduled ones, unless this user started within
    /// [`SYNC_NOW_INTERVAL_MS`](super::SYNC_NOW_INTERVAL_MS), so that one flooding user takes nothing from others.
    Now,
}

/// How a finished job ended, as it is kept in the history and on the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CommitOutcome {
    /// The user's graph equals the calendar as of this sync.
    Synced {
        /// Events written or updated.
        upserted: u64,
        /// Events removed.
        deleted: u64,
        /// Events set aside as invalid, in this sync.
        quarantined: u64,
        /// Requests made to the source.
        requests: u64,
        /// A full pass was made (first sync, or after a lost token).
        full: bool,
    },
    /// Nothing to write to, or nothing to do; the note says why.
    Skipped {
        /// The reason, for people.
        note: String,
    },
    /// A fan-out laid this many users over the period.
    FannedOut {
        /// Users for whom a job was enqueued or coalesced.
        users: u64,
    },
}

/// Why a user is parked: not scheduled until somebody acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkReason {
    /// The grant was revoked or is too narrow: the user must connect again.
    NeedsReauth,
    /// An operator parked the user.
    Operator,
}

/// The settings of a source, the same for all processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSettings {
    /// Job starts allowed in every sliding window, over all processes; `None`: unlimited. Default 10 a minute.
    /// While a limit is `None` nothing is logged: one that is set later counts from then on.
    pub jobs: Option<Limit>,
    /// Requests allowed to the whole project in every sliding window; `None`: unlimited.
    pub requests_project: Option<Limit>,
    /// Requests allowed on behalf of one user in every sliding window; `None`: unlimited.
    pub requests_user: Option<Limit>,
    /// How many completed jobs are kept for status.
    pub keep_completed: u32,
    /// How many dead letters are kept.
    pub keep_failed: u32,
    /// How often a lease may expire on one job, without progress in between, before it is given up: the bound on a job
    /// that kills its process.
    pub stalls_max: u32,
}

impl Default for SourceSettings {
    fn default() -> Self {
        SourceSettings {
            jobs: Some(Limit {
                count: 10,
                window_ms: 60_000,
            }),
            requests_project: Some(Limit {
                count: 10_000,
                window_ms: 60_000,
            }),
            requests_user: Some(Limit {
                count: 600,
                window_ms: 60_000,
            }),
            keep_completed: 100,
            keep_failed: 500,
            stalls_max: 3,
        }
    }
}

/// A schedule as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// What it is.
    pub definition: ScheduleDefinition,
    /// Grows by one with each change of the definition, from 1.
    pub revision: u64,
    /// The last tick that was recorded, fired or skipped; at first the time of definition.
    pub last_tick_at: Timestamp,
    /// Ticks that fired.
    pub fired: u64,
    /// Ticks that were skipped for good.
    pub missed: u64,
}

/// A user of a source, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserState {
    /// Since when the user is enrolled.
    pub enrolled_at: Timestamp,
    /// The nominal time from which the user is due. Only time decides: no status keeps a user from being due.
    pub due_at: Timestamp,
    /// Parked users are not due until somebody acts.
    pub parked: Option<ParkReason>,
    /// A hash of the grant by which the user is connected, as far as it was told.
    #[serde(default)]
    pub grant: Option<u64>,
    /// How far the sync came, opaque to the queue.
    pub cursor: Option<String>,
    /// When the last job started.
    pub last_started_at: Option<Timestamp>,
    /// When the last successful sync ended.
    pub last_success_at: Option<Timestamp>,
    /// How the last completed job ended.
    pub last_outcome: Option<CommitOutcome>,
    /// The last error, if the last attempt failed.
    pub last_error: Option<String>,
    /// The user's gate is closed until then.
    pub gate_until: Option<Timestamp>,
    /// "Slow down" answers in a row.
    pub limited_in_a_row: u32,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Its time has come; it waits for a slot, or for the source: its limits, its gate, a pause.
    Waiting,
    /// Its time has not come, or its user's gate is closed, or its user's requests were found used up.
    Delayed,
    /// Leased.
    Active,
    /// Ended well; the newest are kept.
    Completed,
    /// Given up: a dead letter.
    Failed,
}

/// One job in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobListing {
    /// The job.
    pub key: JobKey,
    /// Its state.
    pub state: JobState,
    /// The number of a finished job in the history, for [`Command::RetryFailed`](super::Command::RetryFailed).
    pub number: Option<u64>,
    /// Waiting and delayed: when it may start at the earliest. Active: when the lease expires. Finished: when it ended.
    pub at: Timestamp,
    /// Its lane.
    pub priority: Priority,
    /// Attempts begun that count.
    pub attempt: u32,
    /// Who holds it.
    pub worker: Option<WorkerId>,
    /// How it ended, if it was completed.
    pub outcome: Option<CommitOutcome>,
    /// The last error.
    pub error: Option<String>,
}

/// What a source looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStats {
    /// The settings in force.
    pub settings: SourceSettings,
    /// Why an operator paused it, if so.
    pub paused: Option<String>,
    /// The gate is closed until then, if it is.
    pub gate_until: Option<Timestamp>,
    /// Why the gate was closed last.
    pub gate_reason: Option<String>,
    /// Job starts that count against the job limit now; 0 without one.
    pub starts_in_window: u64,
    /// Enrolled users.
    pub users: u64,
    /// Users that are parked.
    pub parked: u64,
    /// Enrolled users that never had a successful sync.
    pub never_synced: u64,
    /// The oldest last success among users that are not parked.
    pub oldest_success_at: Option<Timestamp>,
    /// How fresh those users are.
    pub freshness: Freshness,
}

/// The ages by which [`Freshness`] counts, in milliseconds: the default period, and from there to a week.
pub const FRESHNESS_BOUNDS_MS: [u64; 8] = [
    5 * MINUTE_MS,
    15 * MINUTE_MS,
    30 * MINUTE_MS,
    HOUR_MS,
    2 * HOUR_MS,
    6 * HOUR_MS,
    DAY_MS,
    7 * DAY_MS,
];

/// How long ago the last successes of a source's users were: of those that are not parked and had one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// How many users they are.
    pub users: u64,
    /// How many of them had their last success at most so long ago as each of [`FRESHNESS_BOUNDS_MS`] says, all smaller
    /// ages included.
    pub within: [u64; FRESHNESS_BOUNDS_MS.len()],
    /// Half of them had their last success then or later.
    pub p50_at: Option<Timestamp>,
    /// 95 of a hundred had their last success then or later.
    pub p95_at: Option<Timestamp>,
    /// 99 of a hundred had their last success then or later.
    pub p99_at: Option<Timestamp>,
}

impl Freshness {
    /// Which place, from 0, the last success has that `percent` of `users` reach, the oldest success first; `None`
    /// without users.
    #[must_use]
    pub fn place(users: u64, percent: u64) -> Option<u64> {
        assert!((1..=100).contains(&percent), "a hundred is all of them");
        // The nearest rank: the fewest users that are at least so many percent.
        let enough = (users * percent).div_ceil(100);
        (users > 0).then(|| users - enough)
    }
}

/// The counts of the whole queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Jobs that may start.
    pub waiting: u64,
    /// Jobs whose time has not come.
    pub delayed: u64,
    /// Jobs under a lease.
    pub active: u64,
    /// Completed jobs kept.
    pub completed: u64,
    /// Dead letters kept.
    pub failed: u64,
    /// Completed jobs ever.
    pub completed_total: u64,
    /// Dead letters ever.
    pub failed_total: u64,
    /// Each source.
    pub sources: Vec<(SourceName, SourceStats)>,
    /// Workers that hold leases, with how many.
    pub workers: Vec<(WorkerId, u64)>,
}
