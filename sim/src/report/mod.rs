//! What came of a run.

mod push;

use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};
use serde::{Deserialize, Serialize};

use crate::invariants::Violation;
use crate::marks::Marks;

pub use push::PushTally;

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
    /// The longest of those gaps, in milliseconds.
    pub gap_ms_max: u64,
    /// The most requests that reached Google within one second of the world's clock.
    pub fetches_a_second_peak: u32,
    /// The second in which requests are being counted, and how many came in it.
    second: (u64, u32),
    /// Ticks that fired.
    pub ticks_fired: u64,
    /// Ticks that were skipped for good, and counted.
    pub ticks_missed: u64,
    /// Leases of syncs that were given.
    pub sync_starts: u64,
    /// The same in each minute since the start.
    pub starts_by_minute: Vec<u32>,
    /// Successful syncs of each user.
    pub syncs_by_user: Vec<u32>,
    /// Wishes that coalesced into outstanding jobs.
    pub coalesced: u64,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Jobs that were given up.
    pub failed: u64,
    /// Users who were parked.
    pub parked: u64,
    /// Jobs that were given up because their leases ran out too often.
    pub buried: u64,
    /// Jobs that went back because their lease ran out.
    pub recovered: u64,
    /// Leases that were lost, as their workers heard.
    pub leases_lost: u64,
    /// Jobs that ended because Google said "slow down".
    pub limited: u64,
    /// Ends that were accepted from a worker, of any kind.
    pub ends: u64,
    /// Ends that were refused because the lease was lost.
    pub ends_refused: u64,
    /// Full passes.
    pub full_passes: u64,
    /// Events set aside.
    pub quarantined: u64,
    /// Events written, and removed.
    pub written: u64,
    /// Shutdowns that ended by themselves.
    pub shutdowns: u64,
    /// The longest of them, in milliseconds.
    pub shutdown_ms_max: u64,
    /// Of push channels, in plans that watch calendars.
    pub push: PushTally,
}

impl Tally {
    /// A request reached Google so many milliseconds after the start.
    pub fn fetched(&mut self, since_start_ms: u64) {
        self.fetches += 1;
        count_in(&mut self.fetches_by_minute, since_start_ms);
        let second = since_start_ms / SECOND_MS;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.fetches_a_second_peak = self.fetches_a_second_peak.max(self.second.1);
    }

    /// Syncs were leased so many milliseconds after the start.
    pub fn started(&mut self, since_start_ms: u64, syncs: u32) {
        self.sync_starts += u64::from(syncs);
        for _ in 0..syncs {
            count_in(&mut self.starts_by_minute, since_start_ms);
        }
    }

    /// A process that was told to stop is gone, after so many milliseconds.
    pub fn shutdown(&mut self, took_ms: u64) {
        self.shutdowns += 1;
        self.shutdown_ms_max = self.shutdown_ms_max.max(took_ms);
    }

    /// A user was synced.
    pub fn synced(&mut self, user: u32) {
        let user = user as usize;
        if self.syncs_by_user.len() <= user {
            self.syncs_by_user.resize(user + 1, 0);
        }
        self.syncs_by_user[user] += 1;
    }

    /// So many milliseconds lay between two successful syncs of one user.
    pub fn gap(&mut self, gap_ms: u64) {
        self.gap_ms_max = self.gap_ms_max.max(gap_ms);
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

    /// The requests to Google from one minute since the start to another (without it).
    #[must_use]
    pub fn fetches_between(&self, first_minute: usize, end_minute: usize) -> u64 {
        let minutes = self.fetches_by_minute.iter().take(end_minute);
        minutes
            .skip(first_minute)
            .map(|count| u64::from(*count))
            .sum()
    }

    /// How often a user was synced.
    #[must_use]
    pub fn syncs_of(&self, user: usize) -> u32 {
        self.syncs_by_user.get(user).copied().unwrap_or(0)
    }

    /// How often the user was synced who was synced least, of so many.
    #[must_use]
    pub fn syncs_min(&self, users: u32) -> u32 {
        (0..users as usize)
            .map(|user| self.syncs_of(user))
            .min()
            .unwrap_or(0)
    }

    /// The most starts of syncs in one minute of the world's clock.
    #[must_use]
    pub fn starts_a_minute_peak(&self) -> u32 {
        self.starts_by_minute.iter().copied().max().unwrap_or(0)
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

/// Counts one in the minute of this time.
fn count_in(by_minute: &mut Vec<u32>, since_start_ms: u64) {
    let minute = usize::try_from(since_start_ms / MINUTE_MS).unwrap_or(usize::MAX);
    if by_minute.len() <= minute {
        by_minute.resize(minute + 1, 0);
    }
    by_minute[minute] += 1;
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
    /// How long it took until everybody was fresh and the graphs equalled the calendars, in milliseconds.
    pub fresh_ms: Option<u64>,
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
