//! The page of metrics: what this process counted, and what the store says of the fleet.

use std::sync::atomic::{AtomicU64, Ordering};

use kalends_core::queue::state::{FRESHNESS_BOUNDS_MS, SourceStats};
use kalends_core::time::Timestamp;

use super::process::{open_descriptors, resident_bytes};
use super::text::Text;
use super::{Counters, Metrics};
use crate::status::Status;

impl Metrics {
    /// All of it, in Prometheus' text format. `status` is what the store said just now; `None`: it did not answer, and
    /// nothing is said of the fleet.
    #[must_use]
    pub fn render(&self, status: Option<&Status>, is_ready: bool) -> String {
        let mut text = Text::default();
        self.process(&mut text, is_ready);
        self.work(&mut text);
        self.outside(&mut text);
        text.single(
            "kalends_store_up",
            "gauge",
            "Whether the store answered the question for the figures of the fleet.",
            u8::from(status.is_some()),
        );
        if let Some(status) = status {
            fleet(&mut text, status);
        }
        text.finish()
    }

    fn process(&self, text: &mut Text, is_ready: bool) {
        text.metric("kalends_build_info", "gauge", "The version that runs.");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        text.sample("kalends_build_info", &version, 1);
        text.single(
            "kalends_ready",
            "gauge",
            "Whether this process fires ticks and takes jobs.",
            u8::from(is_ready),
        );
        text.single(
            "kalends_slots",
            "gauge",
            "How many syncs this process runs at a time.",
            self.slots,
        );
        text.single(
            "process_start_time_seconds",
            "gauge",
            "When this process started, in seconds since 1970.",
            self.started_at.as_ms() / 1_000,
        );
        if let Some(bytes) = resident_bytes() {
            text.single(
                "process_resident_memory_bytes",
                "gauge",
                "The memory of this process that is resident.",
                bytes,
            );
        }
        if let Some(count) = open_descriptors() {
            text.single(
                "process_open_fds",
                "gauge",
                "Descriptors that this process has open.",
                count,
            );
        }
    }

    fn work(&self, text: &mut Text) {
        let by_label: [(&Counters, &str, &str); 8] = [
            (
                &self.ticks_fired,
                "kalends_ticks_fired_total",
                "Ticks that this process fired.",
            ),
            (
                &self.ticks_missed,
                "kalends_ticks_missed_total",
                "Ticks that were skipped for good, as found by this process.",
            ),
            (
                &self.jobs,
                "kalends_jobs_total",
                "Attempts that ended in this process, by how.",
            ),
            (
                &self.events,
                "kalends_events_total",
                "Events written, removed, and set aside as invalid.",
            ),
            (
                &self.recovered,
                "kalends_jobs_recovered_total",
                "Jobs of processes that went silent, as found by this one.",
            ),
            (
                &self.pauses,
                "kalends_pauses_total",
                "Times that Google asked to slow down, by what had to wait.",
            ),
            (
                &self.timed_out,
                "kalends_effects_timed_out_total",
                "Store commands, requests and writes that were given up.",
            ),
            (
                &self.faults,
                "kalends_faults_total",
                "What an operator should look at, as it is told in the log.",
            ),
        ];
        for (counters, name, help) in by_label {
            counters.write(text, name, help);
        }
        let mut single = |name, help, counter: &AtomicU64| {
            text.single(name, "counter", help, counter.load(Ordering::Relaxed));
        };
        single(
            "kalends_job_attempts_total",
            "Attempts that began in this process.",
            &self.attempts,
        );
        single(
            "kalends_leases_lost_total",
            "Leases that this process lost.",
            &self.leases_lost,
        );
        single(
            "kalends_limiter_waits_total",
            "Times that a running sync had to wait for leave for its next request.",
            &self.limiter_waits,
        );
        text.single(
            "kalends_limiter_wait_seconds_total",
            "counter",
            "For how long running syncs were told to wait for leave.",
            seconds(self.limiter_waited_ms.load(Ordering::Relaxed)),
        );
        let name = "kalends_job_duration_seconds";
        // Not "job": Prometheus has that label for itself, and renames ours.
        text.metric(
            name,
            "histogram",
            "How long jobs took that ended well, from their start.",
        );
        self.syncs_took.write(text, name, Some(("kind", "sync")));
        self.fan_outs_took
            .write(text, name, Some(("kind", "fan_out")));
    }

    fn outside(&self, text: &mut Text) {
        self.google_requests.write(
            text,
            "kalends_google_requests_total",
            "Requests to the Calendar API, by status; none: no answer.",
        );
        self.token_requests.write(
            text,
            "kalends_google_token_requests_total",
            "Requests to the token endpoint, by status; none: no answer.",
        );
        self.notifications.write(
            text,
            "kalends_push_notifications_total",
            "Notifications of changes: accepted, of a new channel, forged, or told to come again.",
        );
        let name = "kalends_google_fetch_duration_seconds";
        text.metric(
            name,
            "histogram",
            "How long it took to fetch a page, tokens and second attempts included.",
        );
        self.fetch_took.write(text, name, None);
        self.graph_writes.write(
            text,
            "kalends_graph_writes_total",
            "Writes to the graph, by how they ended.",
        );
        let name = "kalends_graph_write_duration_seconds";
        text.metric(name, "histogram", "How long writes to the graph took.");
        self.graph_took.write(text, name, None);
        self.store.write(text);
        text.single(
            "kalends_store_outages_total",
            "counter",
            "Times that the store ceased to answer.",
            self.store_outages.load(Ordering::Relaxed),
        );
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "2^53 milliseconds are 285,000 years"
)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn fleet(text: &mut Text, status: &Status) {
    let stats = &status.stats;
    let name = "kalends_jobs";
    text.metric(name, "gauge", "Jobs of the whole fleet, by state.");
    for (state, count) in [
        ("waiting", stats.waiting),
        ("delayed", stats.delayed),
        ("active", stats.active),
        ("completed", stats.completed),
        ("failed", stats.failed),
    ] {
        text.sample(name, &[("state", state)], count);
    }
    text.single(
        "kalends_workers",
        "gauge",
        "Processes that hold jobs.",
        stats.workers.len(),
    );
    of_sources(text, status);
    let name = "kalends_schedule_next_tick_time_seconds";
    text.metric(
        name,
        "gauge",
        "When a schedule fires next, in seconds since 1970.",
    );
    for (schedule, state) in status.schedules.iter().take(super::counters::VALUES_MAX) {
        if let Some(next) = status.next_tick(state) {
            let labels = [("schedule", schedule.as_str())];
            text.sample(name, &labels, next.as_ms() / 1_000);
        }
    }
}

/// What is told of a source: the name of the metric, its help, and its value, if there is one.
type OfSource<'a> = (&'a str, &'a str, &'a dyn Fn(&SourceStats) -> Option<f64>);

fn of_sources(text: &mut Text, status: &Status) {
    let sources = &status.stats.sources;
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of users stay below 2^53"
    )]
    let count = |count: u64| Some(count as f64);
    let closed_for = |source: &SourceStats| {
        let until = source.gate_until.unwrap_or(status.now);
        Some(seconds(until.since_ms(status.now)))
    };
    let metrics: [OfSource; 6] = [
        ("kalends_users", "Enrolled users.", &|source| {
            count(source.users)
        }),
        (
            "kalends_users_parked",
            "Users that wait until somebody acts.",
            &|source| count(source.parked),
        ),
        (
            "kalends_users_never_synced",
            "Users without a successful sync.",
            &|source| count(source.never_synced),
        ),
        (
            "kalends_source_paused",
            "Whether an operator paused the source.",
            &|source| count(u64::from(source.paused.is_some())),
        ),
        (
            "kalends_source_gate_closed_seconds",
            "For how long the source still has to wait because Google asked for it.",
            &closed_for,
        ),
        (
            "kalends_source_job_starts_in_window",
            "Job starts that count against the limit now.",
            &|source| count(source.starts_in_window),
        ),
    ];
    for (name, help, value) in metrics {
        text.metric(name, "gauge", help);
        for (source, stats) in sources {
            if let Some(value) = value(stats) {
                text.sample(name, &[("source", source.as_str())], value);
            }
        }
    }
    freshness(text, status);
}

fn freshness(text: &mut Text, status: &Status) {
    let sources = &status.stats.sources;
    let name = "kalends_freshness_age_seconds";
    text.metric(
        name,
        "gauge",
        "How long ago the last success is of users that are not parked: so many of them are fresher.",
    );
    for (source, stats) in sources {
        let freshness = &stats.freshness;
        let quantiles: [(&str, Option<Timestamp>); 4] = [
            ("0.5", freshness.p50_at),
            ("0.95", freshness.p95_at),
            ("0.99", freshness.p99_at),
            ("1", stats.oldest_success_at),
        ];
        for (quantile, at) in quantiles {
            if let Some(at) = at {
                let labels = [("source", source.as_str()), ("quantile", quantile)];
                text.sample(name, &labels, seconds(status.now.since_ms(at)));
            }
        }
    }
    let name = "kalends_users_synced_within";
    text.metric(
        name,
        "gauge",
        "Users that are not parked and whose last success is at most so many seconds ago.",
    );
    for (source, stats) in sources {
        for (bound_ms, users) in FRESHNESS_BOUNDS_MS.iter().zip(stats.freshness.within) {
            let within = (bound_ms / 1_000).to_string();
            let labels = [("source", source.as_str()), ("age_seconds", &*within)];
            text.sample(name, &labels, users);
        }
    }
}
