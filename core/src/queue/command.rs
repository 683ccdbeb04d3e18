//! The language that every store speaks: a [`Command`] in, a [`Reply`] out.
//!
//! The same commands go to the [`Queue`](super::Queue) value in the simulator, to the embedded store and to Redis. A
//! store answers each command with a [`Stamped`] reply: the reply and the store's own time, which is the one clock of
//! the whole fleet.
//!
//! Every command may be sent again after a lost reply: the second one finds what the first one did and says so.

use serde::{Deserialize, Serialize};

pub use super::state::{CommitOutcome, ParkReason, Priority};
use super::state::{
    JobKey, JobListing, JobState, QueueStats, ScheduleState, SourceSettings, UserState,
};
use crate::failure::LimitScope;
use crate::id::{ScheduleName, SourceName, UserId, WorkerId};
use crate::policy::limit::Limit;
use crate::policy::schedule::ScheduleDefinition;
use crate::time::Timestamp;

/// At most this many jobs, users or leases in one command. A store refuses more: its scripts stay short.
pub const BATCH_MAX: usize = 1_000;
/// A cursor or progress text is at most this long, in bytes.
pub const CURSOR_BYTES_MAX: usize = 256 * 1024;
/// A lease may last at most this long, in milliseconds.
pub const LEASE_MS_MAX: u64 = 60 * 60 * 1_000;

/// Stores keep times exactly up to this, and down to its negative, in milliseconds from 1970: 2^52 - 1, so that a store
/// which counts in floating point still tells two times and their distance apart. That is 142,000 years to either side.
/// A command's time beyond is taken for the last one that is kept ([`Command::with_times_kept`]).
pub const TIME_MS_MAX: i64 = 4_503_599_627_370_495;

/// A fencing token: only ever grows within a store, and from one store to the next.
///
/// A token is the larger of "one more than the last" and the store's time in microseconds, so a store that starts
/// anew, or lost its last second in a failover, still hands out larger ones than before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LeaseToken(pub u64);

/// Names a lease: which job, and under which fencing token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseRef {
    /// The job that is leased.
    pub key: JobKey,
    /// The token under which it is.
    pub token: LeaseToken,
}

/// A job to enqueue: one sync of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// Whose calendars.
    pub user: UserId,
    /// Not to be started earlier than this (store time).
    pub run_at: Timestamp,
    /// The tick on whose behalf; `None` for "sync now".
    pub nominal_at: Option<Timestamp>,
    /// Its lane.
    pub priority: Priority,
}

/// What a completed job commits, atomically with its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The new cursor of the user, opaque to the queue; `None` leaves the stored one.
    pub cursor: Option<String>,
    /// When the user is due again (nominal, from the schedule); `None` leaves it as it stands.
    pub next_due_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: CommitOutcome,
}

/// One thing that a store is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Makes a source known, or changes its settings. Settings that are the same as the last defined ones leave an
    /// operator's [`Command::SetLimit`] in force, so a restart does not undo it.
    /// Reply: [`Reply::Done`].
    DefineSource {
        /// The source.
        source: SourceName,
        /// Its settings.
        settings: SourceSettings,
    },
    /// Stores a schedule under its name, or changes it; the same definition again changes nothing. A new schedule's
    /// first tick is the first one after now. A changed one gets a higher revision and keeps its last tick.
    /// Reply: [`Reply::Schedule`], or [`Refusal::UnknownSource`].
    DefineSchedule {
        /// Its name.
        schedule: ScheduleName,
        /// What it is.
        definition: ScheduleDefinition,
    },
    /// Forgets a schedule and its fan-out; an active one loses its lease. Reply: [`Reply::Done`], also if there was
    /// none.
    RemoveSchedule {
        /// Its name.
        schedule: ScheduleName,
    },
    /// Moves a schedule from tick `after` to tick `at`, exactly once over all processes: the first to say so wins.
    /// With `fire`, the fan-out job of this tick is enqueued in the same step.
    /// A fan-out that still waits coalesces with it and keeps its progress; one that is active runs once more.
    /// Reply: [`Reply::Fired`], [`Reply::AlreadyFired`], or [`Refusal::Invalid`] unless `after` < `at` <= now.
    Tick {
        /// The schedule.
        schedule: ScheduleName,
        /// The revision of the definition from which `at` was computed; an old one is refused.
        revision: u64,
        /// The last tick as the sender knows it.
        after: Timestamp,
        /// The tick to record; later than `after` and not later than now.
        at: Timestamp,
        /// Ticks between the two (and `at` itself, if it is not fired) that are skipped for good.
        missed: u64,
        /// Whether `at` fires.
        fire: bool,
    },
    /// Enqueues jobs, at most [`BATCH_MAX`]. A user has one outstanding job: another one coalesces into it (the earlier
    /// time and the higher priority win), and one that comes while the job is active makes it run once more afterwards.
    /// A wait that [`Command::Retry`], [`Command::Release`] or [`Command::Limited`] set is shortened by "sync now"
    /// only. A "sync now" that comes too soon ([`Priority::Now`]) is taken for a scheduled one.
    /// Jobs of users who are not enrolled, or parked, are left out and counted.
    /// Reply: [`Reply::Enqueued`], [`Refusal::UnknownSource`], or with a `checkpoint` also [`Refusal::LeaseLost`].
    Enqueue {
        /// The source.
        source: SourceName,
        /// The jobs.
        jobs: Vec<NewJob>,
        /// The lease of a fan-out (of no sync) and its progress, saved in the same step so that a crash never enqueues a page twice.
        checkpoint: Option<(LeaseRef, String)>,
    },
    /// Asks for up to `slots` jobs that may start now, at most [`CLAIM_BATCH_MAX`](super::CLAIM_BATCH_MAX) in one command:
    /// from one source after the other (by their names), "sync now" first, then by the time from which they may start,
    /// then by user. Also hands expired leases back first, and gives again whatever
    /// this worker has leased without knowing it (`held` lists what it knows), in case a reply was lost. What is given
    /// again takes up slots, too; what finds none is given by a later claim.
    /// Reply: [`Reply::Claimed`].
    Claim {
        /// Who asks.
        worker: WorkerId,
        /// How many sync jobs at the most, up to [`BATCH_MAX`].
        slots: u32,
        /// How many fan-outs at the most, up to [`BATCH_MAX`]: they have a lane of their own and never wait behind their own children.
        fan_out_slots: u32,
        /// How long the leases last without a heartbeat, in milliseconds, at most [`LEASE_MS_MAX`].
        lease_ms: u64,
        /// The leases that the worker knows it holds.
        held: Vec<LeaseToken>,
    },
    /// Extends leases to `lease_ms` from now. Reply: [`Reply::Heartbeat`] with those that are lost.
    Heartbeat {
        /// The leases.
        leases: Vec<LeaseRef>,
        /// How long from now, in milliseconds.
        lease_ms: u64,
    },
    /// Saves how far a long job came, extends nothing, and asks leave for `requests` more requests to the source.
    /// For a sync job the text replaces the user's cursor. It is saved even if the requests have to wait.
    /// Reply: [`Reply::Permit`], [`Refusal::LeaseLost`], or [`Refusal::TooLarge`] if more requests are wanted than a
    /// limit ever allows at once.
    Checkpoint {
        /// The lease.
        lease: LeaseRef,
        /// The progress, opaque to the queue, at most [`CURSOR_BYTES_MAX`] bytes; `None` saves nothing.
        progress: Option<String>,
        /// How many requests are wanted, at most [`BATCH_MAX`]; 0 asks for none.
        requests: u32,
    },
    /// Ends a job and commits, atomically. A repeated one hears [`Reply::AlreadyDone`].
    /// Reply: [`Reply::Done`], [`Reply::AlreadyDone`] or [`Refusal::LeaseLost`].
    Complete {
        /// The lease.
        lease: LeaseRef,
        /// What to commit.
        commit: Commit,
    },
    /// Ends the attempt; the job waits until `at` and is tried again. The attempt counts.
    /// Reply: as for [`Command::Complete`].
    Retry {
        /// The lease.
        lease: LeaseRef,
        /// Not before this.
        at: Timestamp,
        /// Why, for people.
        error: String,
    },
    /// Gives the job up, into the dead letters. The user stays enrolled and is due again by time alone, unless parked.
    /// Reply: as for [`Command::Complete`].
    Fail {
        /// The lease.
        lease: LeaseRef,
        /// Why, for people.
        error: String,
        /// When the user is due again; `None` leaves it as it stands.
        next_due_at: Option<Timestamp>,
        /// Parks the user, visibly, until somebody acts.
        park: Option<ParkReason>,
    },
    /// Hands a job back unharmed (shutdown, a closed gate): the attempt does not count, progress stays.
    /// Reply: as for [`Command::Complete`].
    Release {
        /// The lease.
        lease: LeaseRef,
        /// Not to be started before this; `None`: at once.
        at: Option<Timestamp>,
    },
    /// The source said "slow down": hands the job back like [`Command::Release`] and closes the gate of the user or of
    /// the whole source. Without `retry_after_ms` the pause doubles with each answer in a row, from
    /// [`GATE_BASE_MS`](super::GATE_BASE_MS) to [`GATE_CAP_MS`](super::GATE_CAP_MS).
    /// One answer closes a gate for at most [`GATE_MS_MAX`](super::GATE_MS_MAX), jitter included, and never opens it
    /// earlier.
    /// Reply: [`Reply::GateClosed`], [`Reply::AlreadyDone`], [`Refusal::LeaseLost`] (the gate closes even then), or
    /// [`Refusal::Invalid`] for the user's gate of a fan-out.
    Limited {
        /// The lease.
        lease: LeaseRef,
        /// What has to wait.
        scope: LimitScope,
        /// For how long, in milliseconds, if the source said so.
        retry_after_ms: Option<u64>,
        /// Added to the pause, in milliseconds: drawn by the node, so that processes do not come back in step.
        jitter_ms: u64,
        /// Why, for people.
        reason: String,
    },
    /// An operator stops a source (or all that are defined): no sync starts, what runs is given no more requests.
    /// Fan-outs go on. Reply: [`Reply::Done`], also for a source that is not known.
    Pause {
        /// The source; `None`: every source.
        source: Option<SourceName>,
        /// Why, for people.
        reason: String,
    },
    /// Undoes [`Command::Pause`], and opens a source's gate before its time; starts come back slowly.
    /// Reply: [`Reply::Done`].
    Resume {
        /// The source; `None`: every source.
        source: Option<SourceName>,
    },
    /// An operator changes the job limit of a source, at once. Reply: [`Reply::Done`] or [`Refusal::UnknownSource`].
    SetLimit {
        /// The source.
        source: SourceName,
        /// The new limit; `None`: unlimited.
        jobs: Option<Limit>,
    },
    /// Pages through the users that are due, the most overdue first. Parked users are not due.
    /// Reply: [`Reply::DueUsers`].
    DueUsers {
        /// The source.
        source: SourceName,
        /// Users whose due time is not later than this.
        due_by: Timestamp,
        /// The last one of the page before; `None` for the first page.
        after: Option<(Timestamp, UserId)>,
        /// How many at the most, up to [`BATCH_MAX`].
        limit: u32,
    },
    /// Users begin to be synced, due at `due_at`. An enrolled user stays as it is, parked or not.
    /// Reply: [`Reply::Enrolled`] with the users that are new, or [`Refusal::UnknownSource`].
    Enroll {
        /// The source.
        source: SourceName,
        /// The users, at most [`BATCH_MAX`].
        users: Vec<UserId>,
        /// When they are due first.
        due_at: Timestamp,
    },
    /// Tells by which grants users are connected now. A user who was parked because the grant was gone is unparked and
    /// due at `due_at` if the grant is another one than before; the same one would only be refused again. Users who are
    /// not enrolled are left out. A job that is active under another grant than the new one loses its lease and waits
    /// again, unharmed: what the old grant brought about counts for nothing.
    /// Reply: [`Reply::Enrolled`] with the users that were unparked, or
    /// [`Refusal::UnknownSource`].
    Connect {
        /// The source.
        source: SourceName,
        /// The users with a hash of each grant, at most [`BATCH_MAX`].
        grants: Vec<(UserId, u64)>,
        /// When unparked users are due.
        due_at: Timestamp,
        /// Unpark whatever the grant and the reason: a person asked for it.
        force: bool,
    },
    /// Users cease to be synced: waiting jobs go, active ones lose their lease, the cursor is forgotten.
    /// Reply: [`Reply::Count`] of users that were enrolled.
    Unenroll {
        /// The source.
        source: SourceName,
        /// The users, at most [`BATCH_MAX`].
        users: Vec<UserId>,
    },
    /// Reads one user. Reply: [`Reply::User`].
    User {
        /// The source.
        source: SourceName,
        /// The user.
        user: UserId,
    },
    /// Pages through enrolled users by name. Reply: [`Reply::Users`].
    Users {
        /// The source.
        source: SourceName,
        /// The last one of the page before.
        after: Option<UserId>,
        /// How many at the most, up to [`BATCH_MAX`].
        limit: u32,
    },
    /// Reads all schedules (there are few). Reply: [`Reply::Schedules`].
    Schedules,
    /// Reads the counts. Reply: [`Reply::Stats`].
    Stats,
    /// Pages through jobs of one state. Waiting and delayed ones come in the order of claims: fan-outs, then source by
    /// source (by name); within each "sync now" before scheduled ones, then by the time from which they may start, then
    /// by key. Active ones come by when their lease expires, then by key. Finished ones come source by source (by name)
    /// and then those of the fan-outs, the newest of each first. Offset and limit count over the whole of it.
    /// Reply: [`Reply::Jobs`].
    Jobs {
        /// The state.
        state: JobState,
        /// How many to leave out from the start.
        offset: u32,
        /// How many at the most, up to [`BATCH_MAX`].
        limit: u32,
    },
    /// Enqueues a dead letter again, to run at once, and takes it out of the list. Those whose user is parked or not
    /// enrolled, or whose schedule is gone, stay. Reply: [`Reply::Count`].
    RetryFailed {
        /// The dead letter's number; `None`: all of them (up to [`BATCH_MAX`] a command), source by source (by name), then
        /// those of the fan-outs, the oldest of each first.
        number: Option<u64>,
    },
    /// Forgets a dead letter: nobody tries it again. Totals stay. Reply: [`Reply::Count`].
    DiscardFailed {
        /// The dead letter's number; `None`: all of them, as [`Command::RetryFailed`] takes them.
        number: Option<u64>,
    },
    /// Removes a waiting or delayed job. An active one is left alone. Reply: [`Reply::Count`].
    Remove {
        /// The job.
        key: JobKey,
    },
}

/// A job, leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which job, under which token.
    pub lease: LeaseRef,
    /// The lease is lost at this time unless a heartbeat extends it.
    pub expires_at: Timestamp,
    /// Which attempt this is, from 1. Attempts that a limit or a shutdown ended do not count.
    pub attempt: u32,
    /// The tick on whose behalf; `None` for "sync now".
    pub nominal_at: Option<Timestamp>,
    /// The user's cursor, or the fan-out's progress.
    pub cursor: Option<String>,
    /// Leave for so many requests to the source is included: 1 for a sync, 0 for a fan-out, which makes none.
    pub requests: u32,
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// It had been done before, by the same lease.
    AlreadyDone,
    /// How many were affected.
    Count {
        /// The number.
        count: u64,
    },
    /// Users were enrolled.
    Enrolled {
        /// The source.
        source: SourceName,
        /// Those that are new, or that were parked until now.
        users: Vec<UserId>,
    },
    /// The schedule as it now stands.
    Schedule {
        /// Its state.
        state: ScheduleState,
    },
    /// This tick is the sender's.
    Fired {
        /// The schedule as it now stands.
        state: ScheduleState,
    },
    /// Somebody else recorded this tick, or the definition changed; `None` if the schedule is gone.
    AlreadyFired {
        /// The schedule as it now stands.
        state: Option<ScheduleState>,
    },
    /// Jobs were taken.
    Enqueued {
        /// New jobs.
        added: u64,
        /// Jobs that coalesced into an outstanding one.
        coalesced: u64,
        /// Jobs of users who are not enrolled or are parked: not taken.
        refused: u64,
    },
    /// The answer to a claim.
    Claimed {
        /// What may start now.
        leases: Vec<Lease>,
        /// Expired leases that went back to the queue in this command.
        recovered: u32,
        /// Jobs that were given up because their lease expired too often.
        buried: u32,
        /// When it is worth asking again if nobody calls before; `None`: nothing is outstanding.
        next_at: Option<Timestamp>,
    },
    /// The answer to a heartbeat.
    Heartbeat {
        /// Leases that the sender no longer holds.
        lost: Vec<LeaseToken>,
    },
    /// The answer to a wish for requests.
    Permit {
        /// `None`: go ahead. Otherwise all of them have to wait until then.
        wait_until: Option<Timestamp>,
    },
    /// A gate was closed.
    GateClosed {
        /// It opens then.
        until: Timestamp,
    },
    /// A page of due users.
    DueUsers {
        /// The users with their due times, the most overdue first.
        users: Vec<(Timestamp, UserId)>,
        /// How many are due by then in all; told with the first page only, because counting them costs time.
        due_total: Option<u64>,
    },
    /// One user, if enrolled.
    User {
        /// The user's state.
        state: Option<UserState>,
    },
    /// A page of users.
    Users {
        /// The users, by name.
        users: Vec<(UserId, UserState)>,
    },
    /// All schedules.
    Schedules {
        /// By name.
        schedules: Vec<(ScheduleName, ScheduleState)>,
    },
    /// The counts.
    Stats {
        /// The counts.
        stats: QueueStats,
    },
    /// A page of jobs.
    Jobs {
        /// The jobs.
        jobs: Vec<JobListing>,
    },
    /// The command was refused; nothing changed (but see [`Command::Limited`]).
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// The source was never defined; define it, or correct its name.
    UnknownSource {
        /// The name that is not known.
        source: SourceName,
    },
    /// The lease is not live, or its token is old: stop working on this job.
    LeaseLost,
    /// A bound was passed; send less.
    TooLarge {
        /// Which bound, in words.
        what: String,
    },
    /// The command contradicts itself.
    Invalid {
        /// What is wrong, in words.
        what: String,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::UnknownSource { source } => {
                write!(
                    formatter,
                    "unknown source {source}; define it first, or correct its name"
                )
            }
            Refusal::LeaseLost => {
                write!(
                    formatter,
                    "the lease is lost; another worker may have this job"
                )
            }
            Refusal::TooLarge { what } => write!(formatter, "too large: {what}"),
            Refusal::Invalid { what } => write!(formatter, "invalid: {what}"),
        }
    }
}

/// A value with the store's time at which it was true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// The store's time.
    pub now: Timestamp,
    /// The value.
    pub value: T,
}
