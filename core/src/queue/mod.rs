//! The queue: a value that takes a command and gives a reply.
//!
//! Everything that a fleet agrees on is in here: which ticks fired, who is due, which job is leased to whom, what the
//! limits still allow. [`Queue::apply`] is the only way in; its [`Reply`] the only way out. The value knows no clock
//! (the store's time comes in with each command), draws no chance, and does no I/O, so the same commands at the same
//! times make the same queue, in the simulator, in the embedded store, and, as the specification, in Redis.
//!
//! The state is a handful of tables ([`state`] shows what they mean, `rows` how they are stored). Each mutation marks
//! its row, so [`Queue::take_changes`] names exactly what a durable store has to write after a command. Indexes follow
//! from the tables and make a command cost the logarithm of the queue for each job that it touches.
//!
//! What always holds:
//! - a user has at most one outstanding job a source, a schedule at most one fan-out
//! - at most one live lease for a job, and only its holder ends the job; tokens only grow
//! - no job starts before its time, through a closed gate, in a paused source, or beyond a limit in any sliding window
//! - a job that was taken stays until it is completed, buried in the dead letters, or removed by name
//! - memory is bounded by users, schedules and the history that is kept

mod check;
mod claim;
mod clock;
pub mod command;
mod enqueue;
mod finish;
mod gate;
mod history;
mod index;
mod invariants;
mod lane;
mod records;
mod restore;
mod rows;
mod schedule;
mod source;
pub mod state;
mod stats;
mod table;
mod times;
mod users;
mod wake;

#[cfg(test)]
mod tests;

pub use command::{Command, Reply};
pub use restore::{Change, ChangeSink, RestoreError};

use claim::Claim;
use command::{LeaseRef, Refusal};
use gate::Limited;
use index::Index;
use rows::{
    FinishedRow, FlowRow, JobRow, MetaRow, ScheduleRow, SourceRow, UserFlowRow, UserKey, UserRow,
};
use schedule::Tick;
use state::JobKey;
use table::Table;

use crate::id::{ScheduleName, SourceName};
use crate::mutant::{Mutant, planted};
use crate::time::Timestamp;

/// A "sync now" goes ahead of scheduled work at most once in this time for one user, in milliseconds.
pub const SYNC_NOW_INTERVAL_MS: u64 = 60_000;
/// The first pause after a "slow down" without a wish how long, in milliseconds.
pub const GATE_BASE_MS: u64 = 1_000;
/// The longest such pause, in milliseconds (Google's advice: truncated exponential backoff up to 64 s).
pub const GATE_CAP_MS: u64 = 64_000;
/// The longest pause that a source can impose with one answer, in milliseconds.
pub const GATE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How soon a running job asks again for requests while its source is paused, in milliseconds.
pub const PAUSED_RECHECK_MS: u64 = 60_000;
/// Expired leases that one claim takes back at the most.
pub const EXPIRE_BATCH_MAX: usize = 100;
/// The most syncs, and the most fan-outs, that one claim gives, whatever slots were offered; in jobs. So a store never
/// works on one claim for long, and a worker with more slots claims again.
pub const CLAIM_BATCH_MAX: usize = 100;
/// How often a lease may expire on one fan-out before it is given up (a sync: see
/// [`stalls_max`](state::SourceSettings::stalls_max)).
pub const FAN_OUT_STALLS_MAX: u32 = 3;
/// Completed fan-outs that are kept, over all schedules.
pub const FAN_OUTS_KEEP_COMPLETED: u32 = 100;
/// Dead letters of fan-outs that are kept, over all schedules.
pub const FAN_OUTS_KEEP_FAILED: u32 = 100;
/// The most completed jobs, and the most dead letters, that a source's settings may keep.
pub const HISTORY_KEEP_MAX: u32 = 100_000;
/// The most sources.
pub const SOURCES_MAX: usize = 100;
/// The most schedules: all of them fit in one reply.
pub const SCHEDULES_MAX: usize = 1_000;

/// The queue. See the [module](self) for the idea.
#[derive(Clone, Debug)]
pub struct Queue {
    meta: Table<(), MetaRow>,
    sources: Table<SourceName, SourceRow>,
    flows: Table<SourceName, FlowRow>,
    user_flows: Table<UserKey, UserFlowRow>,
    schedules: Table<ScheduleName, ScheduleRow>,
    users: Table<UserKey, UserRow>,
    jobs: Table<JobKey, JobRow>,
    completed: Table<u64, FinishedRow>,
    failed: Table<u64, FinishedRow>,
    index: Index,
}

impl Default for Queue {
    fn default() -> Self {
        Queue::new()
    }
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Queue {
            meta: Table::new("meta"),
            sources: Table::new("sources"),
            flows: Table::new("flows"),
            user_flows: Table::new("user_flows"),
            schedules: Table::new("schedules"),
            users: Table::new("users"),
            jobs: Table::new("jobs"),
            completed: Table::new("completed"),
            failed: Table::new("failed"),
            index: Index::new(),
        }
    }

    /// Applies `command` at `now`, the store's time, and says what came of it.
    ///
    /// A refused command changed nothing (but see [`Command::Limited`]). Time may stand still or step back.
    ///
    /// The latest time at which a command changed anything is remembered: against it a step back of the clock is
    /// measured. So that every store measures alike, this is what counts as a change:
    /// - a step back of the clock that was minded, whatever the command
    /// - [`Command::DefineSource`], [`Command::DefineSchedule`]: what is new, or unlike the last definition
    /// - [`Command::RemoveSchedule`]: of one that was there
    /// - [`Command::Tick`]: one that was recorded ([`Reply::Fired`])
    /// - [`Command::Enqueue`]: a job added or coalesced, or a checkpoint that is not the one saved already
    /// - [`Command::Claim`]: a lease given, given again, taken back or buried, or a job put aside because its user's
    ///   requests are used up
    /// - [`Command::Heartbeat`]: a lease extended
    /// - [`Command::Checkpoint`]: progress unlike the saved one, or requests recorded: given, and limited for the
    ///   project or for the user whose job it is
    /// - [`Command::Complete`], [`Command::Retry`], [`Command::Fail`], [`Command::Release`]: done, not done already
    /// - [`Command::Limited`]: a gate closed, even if the lease was lost
    /// - [`Command::Pause`], [`Command::SetLimit`]: another reason or limit than before;
    ///   [`Command::Resume`]: of a source that was paused, or whose gate was closed
    /// - [`Command::Enroll`]: a user who is new; [`Command::Connect`]: another grant, or a user unparked;
    ///   [`Command::Unenroll`]: a user who was enrolled
    /// - [`Command::RetryFailed`], [`Command::DiscardFailed`], [`Command::Remove`]: a job counted
    ///
    /// Forgetting requests that count no more is none.
    pub fn apply(&mut self, now: Timestamp, mut command: Command) -> Reply {
        command.keep_times();
        let before = self.touches();
        self.mind_the_clock(now);
        let reply = match command.check() {
            Ok(()) => {
                command.shorten();
                let reply = self.dispatch(now, command);
                reply.unwrap_or_else(|refusal| Reply::Refused { refusal })
            }
            Err(refusal) => Reply::Refused { refusal },
        };
        if self.touches() > before {
            self.edit_meta(|meta| meta.changed_at = meta.changed_at.max(now));
        }
        reply
    }

    fn touches(&self) -> u64 {
        self.meta.touches()
            + self.sources.touches()
            + self.flows.touches()
            + self.user_flows.touches()
            + self.schedules.touches()
            + self.users.touches()
            + self.jobs.touches()
            + self.completed.touches()
            + self.failed.touches()
    }

    fn dispatch(&mut self, now: Timestamp, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::DefineSource { source, settings } => self.define_source(&source, settings),
            Command::DefineSchedule {
                schedule,
                definition,
            } => self.define_schedule(now, &schedule, definition),
            Command::RemoveSchedule { schedule } => Ok(self.remove_schedule(schedule)),
            Command::Tick {
                schedule,
                revision,
                after,
                at,
                missed,
                fire,
            } => self.tick(
                now,
                Tick {
                    schedule,
                    revision,
                    after,
                    at,
                    missed,
                    fire,
                },
            ),
            Command::Enqueue {
                source,
                jobs,
                checkpoint,
            } => self.enqueue(now, &source, jobs, checkpoint),
            Command::Claim {
                worker,
                slots,
                fan_out_slots,
                lease_ms,
                held,
            } => self.claim(
                now,
                Claim {
                    worker,
                    slots,
                    fan_out_slots,
                    lease_ms,
                    held,
                },
            ),
            Command::Heartbeat { leases, lease_ms } => self.heartbeat(now, leases, lease_ms),
            Command::Checkpoint {
                lease,
                progress,
                requests,
            } => self.checkpoint(now, &lease, progress, requests),
            Command::Complete { lease, commit } => self.complete(now, &lease, commit),
            Command::Retry { lease, at, error } => self.retry(now, &lease, at, error),
            Command::Fail {
                lease,
                error,
                next_due_at,
                park,
            } => self.fail(now, &lease, error, next_due_at, park),
            Command::Release { lease, at } => self.release(now, &lease, at),
            Command::Limited {
                lease,
                scope,
                retry_after_ms,
                jitter_ms,
                reason,
            } => self.limited(
                now,
                Limited {
                    lease,
                    scope,
                    retry_after_ms,
                    jitter_ms,
                    reason,
                },
            ),
            Command::Pause { source, reason } => Ok(self.pause(source, reason)),
            Command::Resume { source } => Ok(self.resume(now, source)),
            Command::SetLimit { source, jobs } => self.set_limit(&source, jobs),
            Command::DueUsers {
                source,
                due_by,
                after,
                limit,
            } => self.due_users(&source, due_by, after, limit),
            Command::Enroll {
                source,
                users,
                due_at,
            } => self.enroll(now, &source, users, due_at),
            Command::Connect {
                source,
                grants,
                due_at,
                force,
            } => self.connect(&source, grants, due_at, force),
            Command::Unenroll { source, users } => self.unenroll(&source, users),
            Command::User { source, user } => Ok(self.user(source, user)),
            Command::Users {
                source,
                after,
                limit,
            } => self.list_users(source, after, limit),
            Command::Schedules => Ok(self.list_schedules()),
            Command::Stats => Ok(self.stats(now)),
            Command::Jobs {
                state,
                offset,
                limit,
            } => self.list_jobs(now, state, offset, limit),
            Command::RetryFailed { number } => Ok(self.retry_failed(now, number)),
            Command::DiscardFailed { number } => Ok(self.discard_failed(number)),
            Command::Remove { key } => Ok(self.remove(&key)),
        }
    }

    fn heartbeat(
        &mut self,
        now: Timestamp,
        leases: Vec<LeaseRef>,
        lease_ms: u64,
    ) -> Result<Reply, Refusal> {
        let mut lost = Vec::new();
        for lease in leases {
            let is_held = || {
                self.jobs
                    .get(&lease.key)
                    .is_some_and(|row| row.active.is_some())
            };
            let is_live = self.live(now, &lease).is_some();
            if is_live || planted(Mutant::HeartbeatExtendsLost) && is_held() {
                self.extend_lease(now, &lease.key, lease_ms);
            } else {
                lost.push(lease.token);
            }
        }
        Ok(Reply::Heartbeat { lost })
    }
}
