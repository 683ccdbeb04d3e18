//! `kalends status`: what the store says, whether or not a process is running on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kalends_core::time::{SECOND_MS, Timestamp};

use crate::cli::StatusArgs;
use crate::clock::SystemClock;
use crate::config::load;
use crate::exit::Exit;
use crate::say::say;
use crate::status::{Shown, Status};
use crate::wiring::{Queue, Refused};

/// Jobs that are listed.
const SHOWN: Shown = Shown {
    active: 1_000,
    failed: 10,
};

/// Prints the state of the store of the configuration.
///
/// # Errors
/// If there is no store, or it cannot be read.
pub async fn status(
    args: &StatusArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let loaded = load(&args.config.request(), environment)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    let reader = Queue::open_read_only(&loaded.config, Arc::new(SystemClock))?;
    let status = Status::read(&*reader, SHOWN)
        .await
        .map_err(|unavailable| Refused {
            exit: Exit::Failed,
            detail: unavailable.detail,
        })?;
    if args.json {
        say(&format!("{}\n", status.json()));
    } else {
        say(&Words(&status).text());
    }
    Ok(Exit::Done)
}

/// The state, for people.
struct Words<'a>(&'a Status);

impl Words<'_> {
    fn text(&self) -> String {
        let status = self.0;
        let mut text = String::new();
        let mut line = |words: String| {
            let _ = writeln!(text, "{words}");
        };
        for (name, schedule) in &status.schedules {
            let next = status
                .next_tick(schedule)
                .map_or_else(|| "never".to_owned(), |next| next.to_string());
            line(format!("schedule  {name}: {}", schedule.definition));
            line(format!(
                "          last tick {}, next {next}; {} fired, {} missed",
                schedule.last_tick_at, schedule.fired, schedule.missed
            ));
        }
        let stats = &status.stats;
        line(format!(
            "jobs      {} waiting, {} delayed, {} active; kept: {} completed, {} failed (ever: {}, {})",
            stats.waiting,
            stats.delayed,
            stats.active,
            stats.completed,
            stats.failed,
            stats.completed_total,
            stats.failed_total
        ));
        for (name, source) in &stats.sources {
            line(format!(
                "source    {name}: {} users, {} parked, {} never synced, oldest success {}",
                source.users,
                source.parked,
                source.never_synced,
                source
                    .oldest_success_at
                    .map_or_else(|| "none".to_owned(), |at| self.ago(at))
            ));
            let freshness = &source.freshness;
            if let (Some(p50), Some(p95), Some(p99)) =
                (freshness.p50_at, freshness.p95_at, freshness.p99_at)
            {
                line(format!(
                    "          half synced {}, 95 % {}, 99 % {}",
                    self.ago(p50),
                    self.ago(p95),
                    self.ago(p99)
                ));
            }
            if let Some(reason) = &source.paused {
                line(format!("          paused by an operator: {reason}"));
            }
            if let Some(until) = source.gate_until.filter(|until| *until > status.now) {
                let reason = source.gate_reason.as_deref().unwrap_or("no reason given");
                line(format!("          limited until {until}: {reason}"));
            }
            if let Some(overload) = status.overload(name, source) {
                line(format!("          overloaded: {overload}"));
            }
        }
        for (worker, leases) in &stats.workers {
            line(format!("worker    {worker}: {leases} running"));
        }
        for job in &status.active {
            line(format!(
                "active    {}, attempt {}, lease until {}",
                job.key, job.attempt, job.at
            ));
        }
        for job in &status.failed {
            let error = job.error.as_deref().unwrap_or("no reason given");
            line(format!(
                "failed    {} ({}): {error}",
                job.key,
                self.ago(job.at)
            ));
        }
        text
    }

    fn ago(&self, at: Timestamp) -> String {
        let seconds = self.0.now.since_ms(at) / SECOND_MS;
        match seconds {
            0..120 => format!("{seconds} s ago"),
            120..7_200 => format!("{} min ago", seconds / 60),
            _ => format!("{} h ago", seconds / 3_600),
        }
    }
}
