//! The rows of the queue's tables: everything that must survive a restart, and nothing that follows from it.

use serde::{Deserialize, Serialize};

use super::command::{CommitOutcome, LeaseToken, Priority};
use super::state::{JobKey, ScheduleState, SourceSettings, UserState};
use crate::id::{SourceName, UserId, WorkerId};
use crate::policy::limit::{Limit, Outline, SlidingWindow};
use crate::time::Timestamp;

/// A user of a source.
pub(super) type UserKey = (SourceName, UserId);

/// What the queue remembers of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MetaRow {
    /// The last token given out.
    pub(super) last_token: LeaseToken,
    /// The number of the last finished job.
    pub(super) last_number: u64,
    pub(super) completed_total: u64,
    pub(super) failed_total: u64,
    /// The latest time of a command that changed something: against it a step back of the clock is seen.
    pub(super) changed_at: Timestamp,
}

/// A source: what an operator or an answer of the source decides, seldom changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceRow {
    /// In force.
    pub(super) settings: SourceSettings,
    /// As last defined: tells a restart with the same settings from a change.
    pub(super) defined: SourceSettings,
    pub(super) paused: Option<String>,
    pub(super) gate_until: Option<Timestamp>,
    pub(super) gate_reason: Option<String>,
    pub(super) limited_in_a_row: u32,
}

/// Starts since a source opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ramp {
    pub(super) since: Timestamp,
    pub(super) starts: u64,
}

/// What flows through a source: changed by every start, so kept apart from [`SourceRow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FlowRow {
    pub(super) starts: SlidingWindow,
    pub(super) requests: SlidingWindow,
    pub(super) ramp: Option<Ramp>,
}

impl FlowRow {
    pub(super) fn new() -> Self {
        FlowRow {
            starts: SlidingWindow::new(),
            requests: SlidingWindow::new(),
            ramp: None,
        }
    }

    /// What tells two states of it apart.
    pub(super) fn outline(&self) -> (Outline, Outline, Option<Ramp>) {
        (self.starts.outline(), self.requests.outline(), self.ramp)
    }
}

/// The requests on behalf of one user; there is a row only while some count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserFlowRow {
    pub(super) requests: SlidingWindow,
    /// When none counts any more.
    pub(super) empty_at: Timestamp,
}

impl UserFlowRow {
    pub(super) fn new() -> Self {
        UserFlowRow {
            requests: SlidingWindow::new(),
            empty_at: Timestamp::EPOCH,
        }
    }

    /// What tells two states of it apart.
    pub(super) fn outline(&self) -> (Outline, Timestamp) {
        (self.requests.outline(), self.empty_at)
    }
}

/// An enrolled user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRow {
    pub(super) state: UserState,
    /// The last lease that was ended by its holder: a repeated end is known by it.
    pub(super) finished: Option<LeaseToken>,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScheduleRow {
    pub(super) state: ScheduleState,
    /// As [`UserRow::finished`], of the fan-out.
    pub(super) finished: Option<LeaseToken>,
}

/// What somebody wants of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) run_at: Timestamp,
    pub(super) priority: Priority,
    pub(super) nominal_at: Option<Timestamp>,
}

impl Wish {
    /// Both wishes in one: the earlier time, the higher priority, the newest tick.
    pub(super) fn and(self, other: Wish) -> Wish {
        Wish {
            run_at: self.run_at.min(other.run_at),
            priority: self.priority.max(other.priority),
            nominal_at: self.nominal_at.max(other.nominal_at),
        }
    }
}

/// A lease on a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ActiveLease {
    pub(super) worker: WorkerId,
    pub(super) token: LeaseToken,
    pub(super) expires_at: Timestamp,
    /// As last asked for: no lease is longer than this from now, whatever the clock did.
    pub(super) lease_ms: u64,
}

/// An outstanding job: waiting, delayed or active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRow {
    pub(super) wish: Wish,
    /// Attempts that failed.
    pub(super) attempts: u32,
    /// Leases that expired.
    pub(super) stalls: u32,
    /// The time of the wish was set when an attempt ended: a scheduled enqueue does not shorten it.
    pub(super) backing_off: bool,
    /// Found at the limit of the user's requests; looked at again then.
    pub(super) held_until: Option<Timestamp>,
    /// How far a fan-out came; a sync keeps its cursor with the user.
    pub(super) progress: Option<String>,
    pub(super) error: Option<String>,
    pub(super) active: Option<ActiveLease>,
    /// Asked for while active: runs once more afterwards.
    pub(super) rerun: Option<Wish>,
}

impl JobRow {
    pub(super) fn fresh(wish: Wish) -> Self {
        JobRow {
            wish,
            attempts: 0,
            stalls: 0,
            backing_off: false,
            held_until: None,
            progress: None,
            error: None,
            active: None,
            rerun: None,
        }
    }
}

/// A finished job in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FinishedRow {
    pub(super) key: JobKey,
    pub(super) at: Timestamp,
    pub(super) priority: Priority,
    pub(super) attempt: u32,
    pub(super) nominal_at: Option<Timestamp>,
    pub(super) outcome: Option<CommitOutcome>,
    pub(super) error: Option<String>,
}

/// When `wanted` more fit, if nothing else happens; now if there is no limit.
pub(super) fn opens_at(
    window: &SlidingWindow,
    now: Timestamp,
    limit: Option<&Limit>,
    wanted: u32,
) -> Timestamp {
    limit.map_or(now, |limit| window.opens_at(now, limit, wanted))
}
