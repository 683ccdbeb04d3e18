//! What this process counts, for Prometheus and for the page.
//!
//! Where it comes from: the node's notices ([`Metrics::observe`]), the ports, around each of which stands one that
//! measures ([`Metrics::around`]), and the Google adapter, which tells of each HTTP request. Nothing of it is in the driver
//! or in core. What the whole fleet agrees on (queue depths, freshness, pauses) is asked of the store when somebody looks.
//!
//! Every label has few values, and none of them is ever a user.

mod counters;
mod expose;
mod histogram;
mod hour;
mod ports;
mod process;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kalends_adapters::google::{Endpoint, RequestObserver};
use kalends_core::failure::LimitScope;
use kalends_core::node::io::Notice;
use kalends_core::queue::command::CommitOutcome;
use kalends_core::queue::state::JobKey;
use kalends_core::time::Timestamp;

use counters::Counters;
use histogram::{Histogram, LONG_US, SHORT_US};
use hour::Hour;
use ports::StoreTimes;

pub use hour::SLOT_S;
pub(crate) use text::CONTENT_TYPE;

/// One process's counts, from its start.
#[derive(Debug)]
pub struct Metrics {
    started_at: Timestamp,
    slots: u32,
    ticks_fired: Counters,
    ticks_missed: Counters,
    jobs: Counters,
    events: Counters,
    attempts: AtomicU64,
    leases_lost: AtomicU64,
    recovered: Counters,
    pauses: Counters,
    timed_out: Counters,
    faults: Counters,
    store_outages: AtomicU64,
    syncs_took: Histogram,
    fan_outs_took: Histogram,
    store: StoreTimes,
    limiter_waits: AtomicU64,
    limiter_waited_ms: AtomicU64,
    fetch_took: Histogram,
    google_requests: Counters,
    token_requests: Counters,
    notifications: Counters,
    google_hour: Mutex<Hour>,
    graph_took: Histogram,
    graph_writes: Counters,
}

/// How jobs end, as far as it is known from the start.
const JOB_OUTCOMES: [&str; 8] = [
    "synced",
    "skipped",
    "fanned_out",
    "retried",
    "failed",
    "parked",
    "released",
    "lease_lost",
];
/// What a request to Google may come to.
const STATUSES: [&str; 10] = [
    "2xx", "3xx", "401", "403", "404", "410", "429", "4xx", "5xx", "none",
];

impl Metrics {
    /// Nothing is counted yet; the process started at `started_at` and runs `slots` syncs at a time.
    #[must_use]
    pub fn new(started_at: Timestamp, slots: u32) -> Self {
        Metrics {
            started_at,
            slots,
            ticks_fired: Counters::new("schedule", &[]),
            ticks_missed: Counters::new("schedule", &[]),
            jobs: Counters::new("outcome", &JOB_OUTCOMES),
            events: Counters::new("change", &["upserted", "deleted", "quarantined"]),
            attempts: AtomicU64::new(0),
            leases_lost: AtomicU64::new(0),
            recovered: Counters::new("fate", &["requeued", "buried"]),
            pauses: Counters::new("scope", &["user", "source"]),
            timed_out: Counters::new("effect", &[]),
            faults: Counters::new(
                "fault",
                &[
                    "store_emptied",
                    "store_refused",
                    "misconfigured",
                    "malformed_token",
                    "schedule_never_fires",
                    "overloaded",
                ],
            ),
            store_outages: AtomicU64::new(0),
            syncs_took: Histogram::new(LONG_US),
            fan_outs_took: Histogram::new(LONG_US),
            store: StoreTimes::default(),
            limiter_waits: AtomicU64::new(0),
            limiter_waited_ms: AtomicU64::new(0),
            fetch_took: Histogram::new(SHORT_US),
            google_requests: Counters::new("status", &STATUSES),
            token_requests: Counters::new("status", &STATUSES),
            notifications: Counters::new(
                "outcome",
                &["accepted", "channel", "forged", "told_to_come_again"],
            ),
            google_hour: Mutex::new(Hour::new(Instant::now())),
            graph_took: Histogram::new(SHORT_US),
            graph_writes: Counters::new("outcome", &["written", "fenced"]),
        }
    }

    /// A notification of Google's came, or what was to pass for one.
    pub(crate) fn notification(&self, outcome: &'static str) {
        self.notifications.add(outcome, 1);
    }

    /// When the process started.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// How many syncs the process runs at a time.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Counts a notice.
    pub fn observe(&self, notice: &Notice) {
        match notice {
            Notice::TickFired { schedule, .. } => self.ticks_fired.add(schedule.as_str(), 1),
            Notice::TicksMissed { schedule, count } => {
                self.ticks_missed.add(schedule.as_str(), *count);
            }
            Notice::JobStarted { .. } => add(&self.attempts, 1),
            Notice::JobDone {
                key,
                outcome,
                duration_ms,
            } => self.job_done(key, outcome, *duration_ms),
            Notice::JobRetried { .. } => self.jobs.add("retried", 1),
            Notice::JobFailed { parked, .. } => {
                self.jobs.add(if *parked { "parked" } else { "failed" }, 1);
            }
            Notice::JobReleased { .. } => self.jobs.add("released", 1),
            Notice::LeaseLost { .. } => {
                self.jobs.add("lease_lost", 1);
                add(&self.leases_lost, 1);
            }
            Notice::Recovered { recovered, buried } => {
                self.recovered.add("requeued", u64::from(*recovered));
                self.recovered.add("buried", u64::from(*buried));
            }
            Notice::Limited { scope, .. } => self.pauses.add(
                match scope {
                    LimitScope::User => "user",
                    LimitScope::Source => "source",
                },
                1,
            ),
            Notice::EffectTimedOut { what, .. } => self.timed_out.add(what, 1),
            Notice::StoreAway { failures: 1, .. } => add(&self.store_outages, 1),
            Notice::StoreEmptied => self.faults.add("store_emptied", 1),
            Notice::Refused { .. } => self.faults.add("store_refused", 1),
            Notice::Misconfigured { .. } => self.faults.add("misconfigured", 1),
            Notice::MalformedToken { .. } => self.faults.add("malformed_token", 1),
            Notice::ScheduleNeverFires { .. } => self.faults.add("schedule_never_fires", 1),
            Notice::Overloaded { .. } => self.faults.add("overloaded", 1),
            Notice::Ready
            | Notice::StoreAway { .. }
            | Notice::StoreBack { .. }
            | Notice::ClockCorrected { .. } => {}
        }
    }

    fn job_done(&self, key: &JobKey, outcome: &CommitOutcome, duration_ms: u64) {
        let took = match key {
            JobKey::Sync { .. } => &self.syncs_took,
            JobKey::FanOut { .. } => &self.fan_outs_took,
        };
        took.record(Duration::from_millis(duration_ms));
        match outcome {
            CommitOutcome::Synced {
                upserted,
                deleted,
                quarantined,
                ..
            } => {
                self.jobs.add("synced", 1);
                self.events.add("upserted", *upserted);
                self.events.add("deleted", *deleted);
                self.events.add("quarantined", *quarantined);
            }
            CommitOutcome::Skipped { .. } => self.jobs.add("skipped", 1),
            CommitOutcome::FannedOut { .. } => self.jobs.add("fanned_out", 1),
        }
    }

    /// What the Google adapter is to tell of each request.
    #[must_use]
    pub fn google_observer(self: &Arc<Self>) -> RequestObserver {
        let metrics = Arc::clone(self);
        Arc::new(move |endpoint, status| metrics.google(endpoint, status))
    }

    fn google(&self, endpoint: Endpoint, status: Option<u16>) {
        let label = status_label(status);
        match endpoint {
            Endpoint::Token => self.token_requests.add(label, 1),
            Endpoint::Calendar => {
                self.google_requests.add(label, 1);
                let mut hour = self
                    .google_hour
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                hour.count(Instant::now());
            }
        }
    }

    /// Requests to the Calendar API in each of the last slots of [`SLOT_S`] seconds, at most an hour's, the oldest first.
    #[must_use]
    pub fn google_hour(&self) -> Vec<u32> {
        let mut hour = self
            .google_hour
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        hour.whole_slots(Instant::now())
    }
}

/// The statuses that mean something of their own to a sync, and the classes of the others.
fn status_label(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(401) => "401",
        Some(403) => "403",
        Some(404) => "404",
        Some(410) => "410",
        Some(429) => "429",
        Some(500..) => "5xx",
        Some(_) => "4xx",
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
