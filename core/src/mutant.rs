//! Planted bugs: real mistakes of schedulers and calendar syncs, one line each, at the very place where they are made.
//!
//! A simulator that never fails proves little: is the program right, or is the simulator blind? So each of these mistakes
//! can be planted, and `kalends-sim mutants` must catch every one. Whoever asks [`planted`] stands where the mistake
//! would stand; that line is the bug, and the line beside it is the cure.
//!
//! # Why this harms nobody
//!
//! Without the cargo feature `mutants`, which no normal build has, [`planted`] is a constant `false`: the branch is not in
//! the program. There is nothing to switch on at run time, by no setting and no variable.
//!
//! # Why it is pure
//!
//! With the feature there is one switch a thread. The simulator sets it before a run begins and takes it back when the
//! run is over (`plant`), so during a run it is a constant: another program, not another input. A thread plays one run at
//! a time and a run is played by one thread, so runs beside it do not see it.
//!
//! # How to plant a bug
//!
//! 1. A line in the list below: what is wrong, as a sentence, the variant, its name on the command line.
//! 2. The deviation: `if planted(Mutant::TheVariant) { the mistake }`, in one line if it can be, where the rule lives.
//! 3. `cargo run --release -p kalends-sim --features mutants -- mutants --only its-name`. If it is missed, the simulator is
//!    not good enough: a new ledger, a sharper one, or a fault that provokes it.

macro_rules! mutants {
    ($($(#[doc = $sentence:literal])+ $variant:ident => $name:literal,)+) => {
        /// A mistake that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $sentence])+ $variant,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$variant,)+];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mutant::$variant => $name,)+
                }
            }

            /// What is wrong, in words.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Mutant::$variant => concat!($($sentence),+),)+
                }
            }

            /// The variant, as it is written in the code.
            #[must_use]
            pub const fn variant(self) -> &'static str {
                match self {
                    $(Mutant::$variant => stringify!($variant),)+
                }
            }
        }
    };
}

mutants! {
    /// Whoever held a job once may end it, whatever lease holds it now.
    NoFencingCheck => "no-fencing-check",
    /// Tokens come from a counter alone: what a failover forgot is given out again.
    TokenReused => "token-reused",
    /// The limiter counts by fixed windows.
    FixedWindow => "fixed-window",
    /// Each of three processes has a limiter of its own.
    LimiterPerProcess => "limiter-per-process",
    /// Retries have no jitter.
    RetryWithoutJitter => "retry-without-jitter",
    /// A user is due a period after the last start, and not after the nominal time.
    DueFromLastStart => "due-from-last-start",
    /// The heartbeat comes when the lease has ended.
    HeartbeatLate => "heartbeat-late",
    /// After a 410 what was deleted meanwhile is not swept.
    GoneWithoutSweep => "gone-without-sweep",
    /// After a 410 the calendar is wiped before it is read again.
    GoneWipesFirst => "gone-wipes-first",
    /// The graph takes a write of an older lease after one of a newer.
    OlderWriteWins => "older-write-wins",
    /// The cursor is saved before what it has passed is written.
    CursorBeforeWrite => "cursor-before-write",
    /// A process that stops drops its jobs and keeps their leases.
    LeaseNotReleased => "lease-not-released",
    /// A job that failed stays outstanding for ever, so no other one takes its place.
    DedupKeyLeaked => "dedup-key-leaked",
    /// A tick that another process has fired fires again.
    TickTwice => "tick-twice",
    /// Ticks of a downtime are skipped and not counted.
    MissedNotCounted => "missed-not-counted",
    /// After a downtime every missed tick fires, although one is wanted.
    CatchUpAll => "catch-up-all",
    /// A sync that was told to slow down counts as done.
    LimitedIsSuccess => "limited-is-success",
    /// "Slow down" counts as a failed attempt.
    LimitedIsAttempt => "limited-is-attempt",
    /// A user whose sync failed is never due again.
    FailedNeverDue => "failed-never-due",
    /// A user whose grant is gone is tried at each tick.
    ParkedRetried => "parked-retried",
    /// A job that kills its process each time is started again for ever.
    PoisonNeverBuried => "poison-never-buried",
    /// A request that hangs is waited for, for ever.
    HungNeverGivenUp => "hung-never-given-up",
    /// There is no poll behind the calls that work may be due.
    NoPoll => "no-poll",
    /// Jobs are claimed although no slot is free.
    ClaimWithoutSlot => "claim-without-slot",
    /// A wish that comes while its job is active is dropped.
    RerunDropped => "rerun-dropped",
    /// The gate of one user closes the whole source.
    UserGateClosesAll => "user-gate-closes-all",
    /// Jobs that run go on asking while their source is paused.
    PauseLetsRequests => "pause-lets-requests",
    /// A limit that is changed in the middle of a window is ignored.
    LimitChangeIgnored => "limit-change-ignored",
    /// A fan-out's progress is not saved, so its retry starts from the first user.
    FanOutRestarts => "fan-out-restarts",
    /// A series is cancelled and its exceptions stay.
    ExceptionsStay => "exceptions-stay",
    /// A guest who was taken off an event stays on it.
    AttendeeStays => "attendee-stays",
    /// An empty page is taken for the last one.
    EmptyPageEnds => "empty-page-ends",
    /// A process that was told to stop waits for its jobs a minute longer than it has.
    ShutdownLate => "shutdown-late",
    /// For how long Google wants to be left alone is not heeded.
    RetryAfterIgnored => "retry-after-ignored",
    /// The history is never trimmed.
    HistoryUnbounded => "history-unbounded",
    /// A heartbeat extends a lease that was lost to another worker.
    HeartbeatExtendsLost => "heartbeat-extends-lost",
    /// A sync token that has expired is sent again and again.
    ExpiredTokenLoops => "expired-token-loops",
    /// A notification is believed whatever its token says.
    PushTokenUnchecked => "push-token-unchecked",
    /// Each notification asks for a sync, however many of one change there are.
    PushNotDebounced => "push-not-debounced",
    /// What comes within the debounce counts as covered, however early the sync began.
    PushNotLookedAfter => "push-not-looked-after",
    /// A push channel is renewed when it has ended.
    RenewedLate => "renewed-late",
    /// A push channel that was replaced is not stopped.
    ReplacedStays => "replaced-stays",
    /// A push channel that nobody has any more is left alone.
    OrphanStays => "orphan-stays",
    /// A user who is watched is not polled any more.
    WatchedNeverPolled => "watched-never-polled",
    /// A user is polled slowly as soon as one calendar is watched.
    SlowThoughUnwatched => "slow-though-unwatched",
}

/// Whether this mistake is planted: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn planted(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::{Planted, plant, planted};

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static SWITCH: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this mistake is planted in runs of this thread.
    #[must_use]
    pub fn planted(mutant: Mutant) -> bool {
        SWITCH.get() == Some(mutant)
    }

    /// A mistake is planted while this lives.
    #[derive(Debug)]
    #[must_use = "the mistake is taken back when this is dropped"]
    pub struct Planted {
        before: Option<Mutant>,
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            SWITCH.set(self.before);
        }
    }

    /// Plants a mistake in all that this thread plays, until the answer is dropped; `None`: plants none.
    pub fn plant(mutant: Option<Mutant>) -> Planted {
        Planted {
            before: SWITCH.replace(mutant),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_sentences_are_sentences() {
        let names: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(Mutant::ALL.len() >= 28);
        for mutant in Mutant::ALL {
            assert!(mutant.sentence().ends_with('.'), "{mutant:?}");
        }
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn nothing_is_planted_in_a_normal_build() {
        const { assert!(!planted(Mutant::NoFencingCheck)) }
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn one_is_planted_while_its_guard_lives() {
        {
            let _planted = plant(Some(Mutant::TickTwice));
            assert!(planted(Mutant::TickTwice) && !planted(Mutant::FixedWindow));
        }
        assert!(!planted(Mutant::TickTwice));
    }
}
