//! The figures, and what has to be done for each.

use std::collections::{BTreeMap, BTreeSet};

use crate::queue::Bench;

/// All figures.
const FIGURES: [&str; 15] = [
    "bytes_per_active_job",
    "bytes_per_waiting_job",
    "commands_per_job",
    "drain_c3_per_s",
    "drain_c50_per_s",
    "empty_script_per_s",
    "enqueue_50_callers_per_s",
    "enqueue_per_s",
    "enqueue_single_per_s",
    "fanout_peak_rss_mb",
    "fanout_seconds",
    "fanout_users_per_s",
    "idle_commands_per_s",
    "pickup_p99_ms",
    "ping_per_s",
];

/// Which figures are wanted.
pub(crate) struct Wanted(BTreeSet<&'static str>);

impl Default for Wanted {
    fn default() -> Self {
        Wanted(FIGURES.into())
    }
}

impl Wanted {
    /// Those with these names, which commas separate.
    pub(crate) fn only(names: &str) -> Result<Wanted, String> {
        let one = |name: &str| {
            let known = FIGURES.into_iter().find(|figure| *figure == name);
            known.ok_or_else(|| format!("there is no figure {name}, but {}", FIGURES.join(", ")))
        };
        names
            .split(',')
            .map(one)
            .collect::<Result<_, _>>()
            .map(Wanted)
    }

    fn any(&self, figures: &[&str]) -> bool {
        figures.iter().any(|figure| self.0.contains(figure))
    }
}

/// Measures what is wanted. A figure may come with its neighbours: jobs that were enqueued have to be drained, too.
pub(crate) async fn measure(
    bench: &Bench,
    wanted: &Wanted,
) -> Result<BTreeMap<&'static str, f64>, String> {
    let mut figures = BTreeMap::new();
    let jobs = bench.users.len() as f64;
    bench.enroll().await?;
    if wanted.any(&[
        "enqueue_per_s",
        "bytes_per_waiting_job",
        "drain_c50_per_s",
        "commands_per_job",
    ]) {
        let empty = bench.info("memory", "used_memory").await?;
        figures.insert("enqueue_per_s", bench.enqueue_all().await?);
        let full = bench.info("memory", "used_memory").await?;
        let bytes = full.saturating_sub(empty) as f64;
        figures.insert("bytes_per_waiting_job", bytes / jobs);
        let before = bench.scripts_called().await?;
        figures.insert("drain_c50_per_s", bench.drain(50).await?);
        let calls = bench.scripts_called().await? - before;
        figures.insert("commands_per_job", calls as f64 / jobs);
    }
    if wanted.any(&["drain_c3_per_s"]) {
        bench.enqueue_all().await?;
        figures.insert("drain_c3_per_s", bench.drain(3).await?);
    }
    if wanted.any(&["enqueue_single_per_s"]) {
        figures.insert("enqueue_single_per_s", bench.enqueue_singly().await?);
        bench.drain_singles(50).await?;
    }
    if wanted.any(&["enqueue_50_callers_per_s"]) {
        let callers = bench.enqueue_by_callers().await?;
        figures.insert("enqueue_50_callers_per_s", callers);
        bench.drain_callers(50).await?;
    }
    if wanted.any(&["empty_script_per_s", "ping_per_s"]) {
        let (ping, empty_script) = bench.floor().await?;
        figures.insert("ping_per_s", ping);
        figures.insert("empty_script_per_s", empty_script);
    }
    if wanted.any(&["idle_commands_per_s", "pickup_p99_ms"]) {
        let (idle, pickup) = bench.idle().await?;
        figures.insert("idle_commands_per_s", idle);
        figures.insert("pickup_p99_ms", pickup);
    }
    if wanted.any(&["bytes_per_active_job"]) {
        figures.insert("bytes_per_active_job", bench.hold().await?);
    }
    if wanted.any(&["fanout_peak_rss_mb", "fanout_seconds", "fanout_users_per_s"]) {
        // Last, as the one before: these jobs are not ended. A user with an outstanding job is counted like others.
        let fan_out = bench.fan_out()?;
        figures.insert("fanout_peak_rss_mb", fan_out.peak_rss_mb);
        figures.insert("fanout_seconds", fan_out.seconds);
        figures.insert("fanout_users_per_s", fan_out.users / fan_out.seconds);
    }
    Ok(figures)
}
