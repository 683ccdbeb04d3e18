//! What goes into a node and what comes out: inputs, effects, notices, timeouts.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, LimitScope};
use crate::google::page::FetchReply;
use crate::google::query::FetchRequest;
use crate::graph::{GraphReply, GraphWrite};
use crate::id::{ScheduleName, SourceName, UserId};
use crate::policy::jitter::Jitter;
use crate::policy::overload::Overload;
use crate::policy::spread::Spread;
use crate::port::StoreUnavailable;
use crate::queue::command::{Command, CommitOutcome, Reply, Stamped};
use crate::queue::state::JobKey;
use crate::time::Timestamp;

/// Names an effect under way; never used twice by one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId(pub u64);

/// What the driver is to do. Boxed: an effect goes through several hands, and each would move some 200 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Send this command to the store.
    Store(Box<Command>),
    /// Make this request to the source.
    Fetch(Box<FetchRequest>),
    /// Write this to the graph.
    Graph(Box<GraphWrite>),
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EffectResult {
    /// Of [`Op::Store`].
    Store(Result<Stamped<Reply>, StoreUnavailable>),
    /// Of [`Op::Fetch`].
    Fetch(Result<FetchReply, Failure>),
    /// Of [`Op::Graph`].
    Graph(Result<GraphReply, Failure>),
    /// The effect panicked: a bug in an adapter. The job fails, the process goes on.
    Panicked {
        /// What the panic said.
        detail: String,
    },
}

/// What the driver tells the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// An effect ended.
    Done {
        /// Which.
        id: EffectId,
        /// How.
        result: EffectResult,
    },
    /// The store called: something may be due.
    Wake,
    /// From now on users are laid over the period like this: those of the next page of a fan-out, and of the next start.
    Layout {
        /// How they are laid.
        spread: Spread,
        /// How far a start may be moved back at random.
        jitter: Jitter,
    },
    /// Stop: claim nothing more, let what runs finish until the deadline, hand back the rest. A second call can only
    /// bring the deadline nearer.
    Shutdown {
        /// On the driver's clock.
        deadline: Timestamp,
    },
}

/// Why the node wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A tick is due.
    Tick,
    /// Jobs may be due.
    Claim,
    /// Leases want a heartbeat.
    Heartbeat,
    /// An effect has run out of time.
    EffectDeadline,
    /// The store is asked again.
    StoreRetry,
    /// Jobs that have not begun go back.
    HandBack,
    /// The shutdown's deadline.
    Shutdown,
    /// Nothing is planned: a node that has finished.
    Never,
}

/// What the node says next.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Do this, and bring back [`Input::Done`] with the same id.
    Effect {
        /// Its name.
        id: EffectId,
        /// What to do.
        op: Op,
    },
    /// Give this effect up; its result, if it still comes, is ignored.
    Cancel {
        /// Its name.
        id: EffectId,
    },
    /// Something worth a log line or a metric.
    Notice(Notice),
    /// Nothing more to say: call [`Node::handle_timeout`](super::Node::handle_timeout) at this time, or bring an input.
    Timeout {
        /// On the driver's clock.
        at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// Shutdown is complete: everything finished or was handed back. Said for ever from then on.
    Finished,
}

/// Something worth a log line or a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Sources, schedules and users are defined; work begins.
    Ready,
    /// The store does not answer; it is asked again, with growing intervals.
    StoreAway {
        /// What it said.
        detail: String,
        /// Failures in a row.
        failures: u32,
        /// It is asked again then, on the driver's clock.
        retry_at: Timestamp,
    },
    /// The store answers again.
    StoreBack {
        /// For how long it was away, in milliseconds.
        away_ms: u64,
    },
    /// The store did not know a source that was defined: it was emptied. Everything is defined again; then comes
    /// [`Notice::Ready`].
    StoreEmptied,
    /// A tick fired, here.
    TickFired {
        /// The schedule.
        schedule: ScheduleName,
        /// The nominal time.
        at: Timestamp,
    },
    /// Ticks were skipped for good.
    TicksMissed {
        /// The schedule.
        schedule: ScheduleName,
        /// How many.
        count: u64,
    },
    /// A schedule never fires again (its day does not exist).
    ScheduleNeverFires {
        /// The schedule.
        schedule: ScheduleName,
    },
    /// More users are due than the limits allow in a period.
    Overloaded {
        /// The source.
        source: SourceName,
        /// The figures.
        overload: Overload,
    },
    /// A job started here.
    JobStarted {
        /// The job.
        key: JobKey,
        /// Which attempt.
        attempt: u32,
    },
    /// A job ended well here.
    JobDone {
        /// The job.
        key: JobKey,
        /// How.
        outcome: CommitOutcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// An attempt failed and is tried again.
    JobRetried {
        /// The job.
        key: JobKey,
        /// Why.
        failure: Failure,
        /// When, in store time.
        at: Timestamp,
    },
    /// A job was given up.
    JobFailed {
        /// The job.
        key: JobKey,
        /// Why.
        failure: Failure,
        /// The user was parked for it.
        parked: bool,
    },
    /// A job was handed back unharmed.
    JobReleased {
        /// The job.
        key: JobKey,
    },
    /// A lease was lost; the job goes on elsewhere.
    LeaseLost {
        /// The job.
        key: JobKey,
    },
    /// The source said "slow down".
    Limited {
        /// The job that was told.
        key: JobKey,
        /// What is closed.
        scope: LimitScope,
        /// Until then, in store time.
        until: Timestamp,
        /// What the source said.
        detail: String,
    },
    /// The set-up is wrong; an operator must act.
    Misconfigured {
        /// The source whose jobs are stopped for a while.
        source: SourceName,
        /// What is wrong.
        detail: String,
    },
    /// Google refused a token as malformed: a fault of ours.
    MalformedToken {
        /// Whose.
        user: UserId,
    },
    /// Jobs whose leases expired went back to the queue, or were given up.
    Recovered {
        /// Back to the queue.
        recovered: u32,
        /// Given up after too many.
        buried: u32,
    },
    /// The store refused a command that should be fine: a fault of ours, or of a store from another release.
    Refused {
        /// What was asked, and the answer.
        detail: String,
    },
    /// An effect did not end in time and was given up.
    EffectTimedOut {
        /// What it was.
        what: &'static str,
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// The store's clock and this process's clock differ.
    ClockCorrected {
        /// Store minus local, in milliseconds.
        offset_ms: i64,
    },
}
