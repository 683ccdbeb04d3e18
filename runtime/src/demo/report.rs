//! What the demo found, in words and as one line of JSON.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kalends_adapters::google::GoogleCalendar;
use kalends_sim::oracle::Verdict;
use serde::Serialize;

use super::Finished;
use super::progress::Progress;
use crate::driver::Effects;

/// The figures of one demo.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Users in the emulated Google.
    pub users: u64,
    /// Users that were synced well at least once.
    pub synced: u64,
    /// Events in the calendars at the end, all of them compared.
    pub events: u64,
    /// Requests to the Calendar API.
    pub google_requests: u64,
    /// Writes to the graph.
    pub graph_writes: u64,
    /// Differences between graphs and calendars.
    pub mismatches: u64,
    /// Jobs that were given up, users that were never synced, a driver that panicked, and each thing that the demo is to
    /// show and did not: changes to calendars, sync tokens that expire, answers 429.
    pub failed: u64,
    /// How long the syncing took, in milliseconds of the world; the comparison at the end is not part of it.
    pub duration_ms: u64,
    /// The most memory that the process had, emulator included, in MiB; 0 where the system does not say.
    pub peak_rss_mb: u64,
    /// How long the first sync of everybody took, in milliseconds of the world.
    pub first_sync_ms: u64,
    /// Events a second during the first sync.
    pub first_sync_events_per_s: u64,
    /// Good syncs in all.
    pub jobs: u64,
    /// Store commands.
    pub store_commands: u64,
    /// Ticks that fired.
    pub ticks: u64,
    /// Changes made to calendars meanwhile.
    pub changes: u64,
    /// Sync tokens that were made to expire.
    pub expired_tokens: u64,
    /// Jobs that were told to slow down.
    pub limited: u64,
    #[serde(skip)]
    words: String,
}

impl Report {
    pub(super) fn new(
        progress: &Progress,
        finished: &Finished,
        verdict: &Verdict,
        effects: &Effects,
        source: &GoogleCalendar,
        duration: Duration,
    ) -> Self {
        let totals = progress.totals();
        let milliseconds =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let first_sync_ms = milliseconds(finished.first_sync);
        let never_synced = progress.users() - totals.synced;
        let missing = not_shown(finished, totals.limited);
        let mut report = Report {
            users: progress.users(),
            synced: totals.synced,
            events: verdict.expected,
            google_requests: source.requests_total(),
            graph_writes: effects.graph.load(Ordering::Relaxed),
            mismatches: verdict.mismatches,
            failed: totals.failed
                + never_synced
                + u64::from(!finished.complete)
                + u64::from(finished.driver_panicked)
                + missing.len() as u64,
            duration_ms: milliseconds(duration),
            peak_rss_mb: peak_rss_mb(),
            first_sync_ms,
            first_sync_events_per_s: verdict.expected * 1_000 / first_sync_ms.max(1),
            jobs: totals.jobs,
            store_commands: effects.store.load(Ordering::Relaxed),
            ticks: totals.ticks,
            changes: finished.weather.changes,
            expired_tokens: finished.weather.expired_tokens,
            limited: totals.limited,
            words: String::new(),
        };
        report.words = report.describe(finished, verdict, &totals);
        report
    }

    fn describe(
        &self,
        finished: &Finished,
        verdict: &Verdict,
        totals: &super::progress::Totals,
    ) -> String {
        let mut words = String::new();
        let mut line = |text: String| {
            let _ = writeln!(words, "{text}");
        };
        line(format!(
            "{} users were synced {} times in {:.1} s: {} events, {} requests to Google, {} graph writes.",
            self.synced,
            self.jobs,
            self.duration_ms as f64 / 1_000.0,
            self.events,
            self.google_requests,
            self.graph_writes
        ));
        line(format!(
            "The first sync of everybody took {:.1} s ({} events a second). Peak memory {} MiB, emulated Google included.",
            self.first_sync_ms as f64 / 1_000.0,
            self.first_sync_events_per_s,
            self.peak_rss_mb
        ));
        line(format!(
            "Meanwhile: {} ticks, {} changes to calendars, {} expired sync tokens, {} bursts of 429 ({} jobs told to \
             slow down), {} full syncs, {} retries.",
            self.ticks,
            self.changes,
            self.expired_tokens,
            finished.weather.bursts,
            self.limited,
            totals.full_syncs,
            totals.retried
        ));
        line(format!(
            "Events written or changed: {}, removed: {}.",
            totals.upserted, totals.deleted
        ));
        if totals.quarantined > 0 {
            line(format!(
                "{} invalid events were set aside.",
                totals.quarantined
            ));
        }
        for difference in &verdict.described {
            line(format!("  differs: {difference}"));
        }
        if !finished.complete {
            line(
                "It came to a halt before everybody was synced; the figures are what there is."
                    .to_owned(),
            );
        }
        if finished.driver_panicked {
            line("The driver ended by a panic, which stands above.".to_owned());
        }
        for what in not_shown(finished, self.limited) {
            line(format!(
                "There were no {what}, so the demo shows less than it says."
            ));
        }
        line(if self.mismatches == 0 && self.failed == 0 {
            "Every graph equals its calendar, item by item.".to_owned()
        } else {
            format!(
                "NOT equal: {} differences, {} failed.",
                self.mismatches, self.failed
            )
        });
        words
    }

    /// For people.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    /// For programs: one JSON object in one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers always become JSON")
    }
}

/// What was to happen and did not.
fn not_shown(finished: &Finished, limited: u64) -> Vec<&'static str> {
    [
        ("changes to calendars", finished.weather.changes),
        ("expired sync tokens", finished.weather.expired_tokens),
        ("answers 429", limited),
    ]
    .into_iter()
    .filter(|(_, count)| *count == 0)
    .map(|(what, _)| what)
    .collect()
}

/// The high-water mark of this process's memory (Linux: `VmHWM` in `/proc/self/status`), in MiB.
fn peak_rss_mb() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0).div_ceil(1_024)
}
