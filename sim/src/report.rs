//! What came of a run.

use kalends_core::time::{MINUTE_MS, Timestamp};
use serde::{Deserialize, Serialize};

use crate::invariants::Violation;
use crate::marks::Marks;

/// Gaps are counted by the minute up to this, in minutes; longer ones with it.
pub const GAP_MINUTES_MAX: usize = 24 * 60;

/// How a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Something panicked.
    Crash,
    /// An invariant was broken.
    Safety,
    /// The healed world did not become well in time.
    Liveness,
    /// Two runs of one plan differed.
    Nondeterminism,
}

impl FailureClass {
    /// The exit code that tells it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            FailureClass::Crash => 10,
            FailureClass::Safety => 11,
            FailureClass::Liveness => 12,
            FailureClass::Nondeterminism => 13,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FailureClass::Crash => "crash",
            FailureClass::Safety => "safety",
            FailureClass::Liveness => "liveness",
            FailureClass::Nondeterminism => "nondeterminism",
        }
    }
}

/// A failure, with where it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What sort of failure.
    pub class: FailureClass,
    /// What was broken.
    pub violation: Violation,
    /// When, true time.
    pub at: Timestamp,
    /// In which event, from 1.
    pub event: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events handled.
    pub events: u64,
    /// Commands that the store applied.
    pub commands: u64,
    /// Requests that reached Google.
    pub fetches: u64,
    /// Writes that reached the graph.
    pub graph_writes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// How much time passed in the world, in milliseconds.
    pub simulated_ms: u64,
    /// Requests that reached Google, in each minute since the start.
    pub fetches_by_minute: Vec<u32>,
    /// Fan-outs that ran while faults and load lasted.
    pub fan_outs: u64,
    /// Users whose last sync was too long ago when the faults ended: longer than a healed world may take to sync everybody
    /// ([`heal_bound_ms`](crate::plan::bound::heal_bound_ms)).
    pub lost: u64,
    /// Jobs that fan-outs made; counted for the replaced service only, see [`crate::legacy`].
    pub enqueued: u64,
    /// Those of them whose user already had one waiting. Kalends has one job a user, and an invariant watches over it.
    pub duplicates: u64,
    /// How often so many minutes lay between the starts of two successful syncs of one user.
    pub gaps_by_minute: Vec<u64>,
}

impl Tally {
    /// A request reached Google in this minute since the start.
    pub fn fetch_in(&mut self, minute: u64) {
        let minute = usize::try_from(minute).unwrap_or(usize::MAX);
        if self.fetches_by_minute.len() <= minute {
            self.fetches_by_minute.resize(minute + 1, 0);
        }
        self.fetches_by_minute[minute] += 1;
    }

    /// So many milliseconds lay between two successful syncs of one user.
    pub fn gap(&mut self, gap_ms: u64) {
        let minutes = usize::try_from((gap_ms + MINUTE_MS / 2) / MINUTE_MS).unwrap_or(usize::MAX);
        let minutes = minutes.min(GAP_MINUTES_MAX);
        if self.gaps_by_minute.len() <= minutes {
            self.gaps_by_minute.resize(minutes + 1, 0);
        }
        self.gaps_by_minute[minutes] += 1;
    }

    /// The gap below which so many percent of all gaps lie, in minutes.
    #[must_use]
    pub fn gap_percentile(&self, percent: u64) -> usize {
        let all: u64 = self.gaps_by_minute.iter().sum();
        let mut below = 0;
        for (minutes, count) in self.gaps_by_minute.iter().enumerate() {
            below += count;
            if below * 100 >= all * percent {
                return minutes;
            }
        }
        0
    }

    /// Takes over what the processes of the replaced service counted themselves.
    pub(crate) fn take_legacy(&mut self, counted: &Tally) {
        self.syncs = counted.syncs;
        self.fan_outs = counted.fan_outs;
        self.enqueued = counted.enqueued;
        self.duplicates = counted.duplicates;
        self.gaps_by_minute.clone_from(&counted.gaps_by_minute);
    }

    /// The duplicates among all jobs that fan-outs made, in percent.
    #[must_use]
    pub fn duplicates_percent(&self) -> u64 {
        (self.duplicates * 100 + self.enqueued / 2) / self.enqueued.max(1)
    }

    /// The most requests to Google in one minute.
    #[must_use]
    pub fn fetches_a_minute_peak(&self) -> u32 {
        self.fetches_by_minute.iter().copied().max().unwrap_or(0)
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the plan.
    pub seed: u64,
    /// How it failed, if it did.
    pub failed: Option<Failed>,
    /// How long the healed world took until its end, in milliseconds.
    pub healed_ms: Option<u64>,
    /// The hash of all that happened: the same plan gives the same.
    pub unseed: u64,
    /// What was met.
    pub marks: Marks,
    /// What was counted.
    pub tally: Tally,
}

impl Report {
    /// Whether two runs failed in the same way: the same sentence was broken.
    #[must_use]
    pub fn fails_like(&self, other: &Failed) -> bool {
        self.failed.as_ref().is_some_and(|mine| {
            mine.class == other.class && mine.violation.invariant == other.violation.invariant
        })
    }
}

/// Two runs of one plan differed.
#[must_use]
pub fn differs(report: &Report, detail: String) -> Failed {
    Failed {
        class: FailureClass::Nondeterminism,
        violation: Violation::new(crate::invariants::Invariant::SameHash, detail),
        at: Timestamp::EPOCH,
        event: report.tally.events,
    }
}
