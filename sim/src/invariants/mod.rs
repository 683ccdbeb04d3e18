//! What must hold after every event (scenarios, G), each told by a small ledger of its own.
//!
//! A ledger sees what goes in and out at the store ([`Seen`] and the reply), and writes down just enough to say whether
//! its one sentence was kept. It does not look into the queue: a queue that lies to itself must not be able to lie here.
//! Each event costs a few array accesses.
//!
//! # What excuses what
//!
//! - **A failover that loses acknowledged writes** excuses what the lost writes would have shown, and only that: at the
//!   moment when the replica falls behind the ledgers are copied, and at the failover the copy is taken. So a tick that
//!   fired in the lost time may fire again, a job that was granted then may be granted again, starts of that time count
//!   for no limit. What outlives it: tokens only grow, whoever holds a lease of the lost time commits nothing, and the
//!   graph never goes back.
//! - **A store clock that steps back** excuses waits and dates that were set by the wrong clock: the queue brings them
//!   nearer by written rules (`core/src/queue/clock.rs`), and the ledgers take over what it made of them, once.
//! - **A store that is emptied** has promised nothing any more: the ledgers begin anew, but for tokens, which grow on.
//! - Nothing else excuses anything. Times are the store's: limits, leases and waits are promised in its time.
//!
//! The queue's own [`check_invariants`](kalends_core::queue::Queue::check_invariants) runs besides, now and then: it
//! panics, which is a failure of the kind "crash".

pub mod asking;
pub mod attempts;
pub mod convergence;
mod fresh;
pub mod graph;
pub mod jobs;
pub mod leases;
pub mod memory;
pub mod promises;
pub mod push;
pub mod retries;
pub mod same_hash;
pub mod seen;
pub mod shutdown;
pub mod starts;
mod store;
pub mod ticks;
pub mod waits;
pub mod wakers;

use kalends_core::id::UserId;
use serde::{Deserialize, Serialize};

pub use seen::Seen;
pub use store::StoreLedger;

/// The sentences that are watched over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// G1: every tick fires exactly once, or is counted as skipped.
    TicksExactlyOnce,
    /// G2: no accepted job vanishes, and the counts shown equal the state.
    NoJobVanishes,
    /// G3: at most one live lease for a job; only a live lease commits; tokens only grow.
    OneLiveLease,
    /// G4: starts in any sliding window stay within the limit.
    LimitHolds,
    /// G5: no start before its time, in a paused source, or through a closed gate.
    NotBeforeItsTime,
    /// G5 for requests: a process that was told to slow down asks nothing until then, and no leave for a request is
    /// given in a paused source or through a closed gate.
    StopsAsking,
    /// G6: attempts stay within their maximum, and those that a limit ended do not count.
    AttemptsBounded,
    /// G7: an older state of an event never replaces a newer one.
    NewerStays,
    /// G8: the queue's memory is bounded by outstanding jobs and retention.
    MemoryBounded,
    /// G9: when work is due and slots are free, something will start it.
    EveryWaitHasAWaker,
    /// G10: a shutdown ends by its deadline, with everything handed back.
    ShutdownInTime,
    /// G11: once faults stop, everybody becomes fresh and the graph equals the calendar.
    Convergence,
    /// B9: a fan-out that is taken over goes on behind its last page.
    FanOutGoesOn,
    /// B27: users who failed together do not come back together.
    RetriesApart,
    /// C12: no lease runs out while nothing is wrong with whoever holds it.
    LeasesKept,
    /// C14: no more runs in a process than it has slots.
    SlotsHold,
    /// D22: the gate of one user closes nobody else's.
    OthersGoOn,
    /// D22: a sync that is called a success has read its calendar.
    SuccessIsReal,
    /// F38: nothing that Google still has is removed from the graph.
    NothingWiped,
    /// Push: only what Google sent is believed, and all of it.
    PushVerified,
    /// Push: many notifications of one change ask for one sync.
    PushDebounced,
    /// Push: what was accepted is synced soon, while nothing is wrong.
    HeardIsSynced,
    /// Push: a channel is replaced before it ends, while nothing is wrong.
    ChannelsOverlap,
    /// Push: outside of the overlap a calendar has one channel, while nothing is wrong.
    OneChannel,
    /// Push: a user is polled slowly only while every calendar has a channel at Google that lives until then.
    SlowOnlyWatched,
    /// Push: nobody is due later than the poll behind the channels says.
    PollBehind,
    /// G12: the same plan gives the same hash after every event.
    SameHash,
    /// Not one of G: nothing panics.
    NoPanic,
}

impl Invariant {
    /// Its name, as it is printed and stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Invariant::TicksExactlyOnce => "ticks-exactly-once",
            Invariant::NoJobVanishes => "no-job-vanishes",
            Invariant::OneLiveLease => "one-live-lease",
            Invariant::LimitHolds => "limit-holds",
            Invariant::NotBeforeItsTime => "not-before-its-time",
            Invariant::StopsAsking => "stops-asking",
            Invariant::AttemptsBounded => "attempts-bounded",
            Invariant::NewerStays => "newer-stays",
            Invariant::MemoryBounded => "memory-bounded",
            Invariant::EveryWaitHasAWaker => "every-wait-has-a-waker",
            Invariant::ShutdownInTime => "shutdown-in-time",
            Invariant::Convergence => "convergence",
            Invariant::FanOutGoesOn => "fan-out-goes-on",
            Invariant::RetriesApart => "retries-apart",
            Invariant::LeasesKept => "leases-kept",
            Invariant::SlotsHold => "slots-hold",
            Invariant::OthersGoOn => "others-go-on",
            Invariant::SuccessIsReal => "success-is-real",
            Invariant::NothingWiped => "nothing-wiped",
            Invariant::PushVerified => "push-verified",
            Invariant::PushDebounced => "push-debounced",
            Invariant::HeardIsSynced => "heard-is-synced",
            Invariant::ChannelsOverlap => "channels-overlap",
            Invariant::OneChannel => "one-channel",
            Invariant::SlowOnlyWatched => "slow-only-watched",
            Invariant::PollBehind => "poll-behind",
            Invariant::SameHash => "same-hash",
            Invariant::NoPanic => "no-panic",
        }
    }
}

/// A sentence that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How, in words.
    pub detail: String,
}

impl Violation {
    /// `invariant` was broken: `detail` says how.
    #[must_use]
    pub fn new(invariant: Invariant, detail: impl Into<String>) -> Self {
        Violation {
            invariant,
            detail: detail.into(),
        }
    }
}

/// What a ledger answers.
pub type Verdict = Result<(), Violation>;

/// Which job: users by number from 0, then the fan-out.
pub type JobNumber = usize;

/// The number of a user named as the emulator names users (`user-00001@example.com` is 0).
#[must_use]
pub fn user_number(user: &UserId) -> Option<u32> {
    let digits = user.as_str().strip_prefix("user-")?;
    let mut number: u32 = 0;
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => {
                number = number
                    .checked_mul(10)?
                    .checked_add(u32::from(byte - b'0'))?
            }
            b'@' => return number.checked_sub(1),
            _ => return None,
        }
    }
    None
}
