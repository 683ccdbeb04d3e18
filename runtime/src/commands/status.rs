//! `kalends status`: what the store says, whether or not a process is running on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kalends_core::id::UserId;
use kalends_core::port::Store;
use kalends_core::queue::command::{BATCH_MAX, Command, ParkReason, Reply};
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

/// Users who must connect again that are named at the most.
const WAITING_MAX: usize = 20;
/// Pages of users that are looked through for them.
const PAGES_MAX: u32 = 10;

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
    let waiting = waiting(&*reader, &status).await?;
    if args.json {
        let mut body = status.json();
        body["needs_reauth"] = waiting.iter().map(UserId::as_str).collect();
        say(&format!("{body}\n"));
    } else {
        let mut text = Words(&status).text();
        if !waiting.is_empty() {
            let names: Vec<&str> = waiting.iter().map(UserId::as_str).collect();
            let _ = writeln!(
                text,
                "reauth    must connect again: {} (kalends users list --needs-reauth)",
                names.join(", ")
            );
        }
        say(&text);
    }
    Ok(Exit::Done)
}

/// Some of the users who must connect again, by name.
async fn waiting(reader: &dyn Store, status: &Status) -> Result<Vec<UserId>, Refused> {
    let mut waiting = Vec::new();
    for (source, stats) in &status.stats.sources {
        let mut after = None;
        for _ in 0..PAGES_MAX {
            if stats.parked == 0 || waiting.len() >= WAITING_MAX {
                break;
            }
            let command = Command::Users {
                source: source.clone(),
                after: after.take(),
                limit: u32::try_from(BATCH_MAX).expect("a batch is small"),
            };
            let page = reader.apply(command).await.map_err(|unavailable| Refused {
                exit: Exit::Failed,
                detail: unavailable.detail,
            })?;
            let Reply::Users { users } = page.value else {
                break;
            };
            let Some((last, _)) = users.last() else {
                break;
            };
            after = Some(last.clone());
            let needs_reauth = users
                .into_iter()
                .filter(|(_, state)| state.parked == Some(ParkReason::NeedsReauth));
            waiting.extend(needs_reauth.map(|(user, _)| user));
        }
    }
    waiting.truncate(WAITING_MAX);
    Ok(waiting)
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
