//! `kalends status`: what the store says, whether or not a process is running on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kalends_core::id::ScheduleName;
use kalends_core::policy::overload;
use kalends_core::port::Store;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::queue::state::{JobListing, JobState, QueueStats, ScheduleState, SourceStats};
use kalends_core::time::{SECOND_MS, Timestamp};
use serde_json::{Value, json};

use crate::cli::StatusArgs;
use crate::clock::SystemClock;
use crate::config::load;
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::{Queue, Refused};

/// Dead letters that are shown.
const FAILED_SHOWN: u32 = 10;

struct Status {
    now: Timestamp,
    stats: QueueStats,
    schedules: Vec<(ScheduleName, ScheduleState)>,
    active: Vec<JobListing>,
    failed: Vec<JobListing>,
}

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
    let status = read(&*reader).await?;
    if args.json {
        say(&format!("{}\n", status.json()));
    } else {
        say(&status.words());
    }
    Ok(Exit::Done)
}

async fn read(store: &dyn Store) -> Result<Status, Refused> {
    let mut status = Status {
        now: Timestamp::EPOCH,
        stats: QueueStats::default(),
        schedules: Vec::new(),
        active: Vec::new(),
        failed: Vec::new(),
    };
    let jobs = |state, limit| Command::Jobs {
        state,
        offset: 0,
        limit,
    };
    let commands = [
        Command::Stats,
        Command::Schedules,
        jobs(JobState::Active, 1_000),
        jobs(JobState::Failed, FAILED_SHOWN),
    ];
    for command in commands {
        let stamped = store.apply(command).await.map_err(|unavailable| Refused {
            exit: Exit::Failed,
            detail: unavailable.detail,
        })?;
        status.now = stamped.now;
        match stamped.value {
            Reply::Stats { stats } => status.stats = stats,
            Reply::Schedules { schedules } => status.schedules = schedules,
            Reply::Jobs { jobs } => match jobs.first().map(|job| job.state) {
                Some(JobState::Active) => status.active = jobs,
                Some(_) => status.failed = jobs,
                None => {}
            },
            other => panic!("a question was answered by {other:?}"),
        }
    }
    Ok(status)
}

impl Status {
    fn next(&self, schedule: &ScheduleState) -> Option<Timestamp> {
        schedule
            .definition
            .next_after(schedule.last_tick_at.max(self.now))
    }

    fn overload(
        &self,
        name: &kalends_core::id::SourceName,
        source: &SourceStats,
    ) -> Option<String> {
        let mut periods = self
            .schedules
            .iter()
            .filter(|(_, schedule)| schedule.definition.source == *name)
            .filter_map(|(_, schedule)| schedule.definition.period_ms(self.now));
        let period_ms = periods.next()?;
        let users = source.users.saturating_sub(source.parked);
        overload(users, period_ms, source.settings.jobs.as_ref())
            .map(|overload| overload.to_string())
    }

    fn json(&self) -> Value {
        let schedules: Vec<Value> = self
            .schedules
            .iter()
            .map(|(name, schedule)| {
                json!({
                    "name": name,
                    "definition": schedule.definition,
                    "last_tick_at": schedule.last_tick_at.to_rfc3339(),
                    "next_tick_at": self.next(schedule).map(|next| next.to_rfc3339()),
                    "fired": schedule.fired,
                    "missed": schedule.missed,
                })
            })
            .collect();
        let sources: Vec<Value> = self
            .stats
            .sources
            .iter()
            .map(|(name, source)| {
                let mut value = serde_json::to_value(source).expect("plain values become JSON");
                value["name"] = json!(name);
                value["overload"] = json!(self.overload(name, source));
                value
            })
            .collect();
        json!({
            "now": self.now.to_rfc3339(),
            "waiting": self.stats.waiting,
            "delayed": self.stats.delayed,
            "active": self.stats.active,
            "completed": self.stats.completed,
            "failed": self.stats.failed,
            "completed_total": self.stats.completed_total,
            "failed_total": self.stats.failed_total,
            "schedules": schedules,
            "sources": sources,
            "workers": self.stats.workers,
            "active_jobs": self.active,
            "failed_jobs": self.failed,
        })
    }

    fn words(&self) -> String {
        let mut text = String::new();
        let mut line = |words: String| {
            let _ = writeln!(text, "{words}");
        };
        for (name, schedule) in &self.schedules {
            let next = self
                .next(schedule)
                .map_or_else(|| "never".to_owned(), |next| next.to_string());
            line(format!("schedule  {name}: {}", schedule.definition));
            line(format!(
                "          last tick {}, next {next}; {} fired, {} missed",
                schedule.last_tick_at, schedule.fired, schedule.missed
            ));
        }
        let stats = &self.stats;
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
            if let Some(reason) = &source.paused {
                line(format!("          paused by an operator: {reason}"));
            }
            if let Some(until) = source.gate_until.filter(|until| *until > self.now) {
                let reason = source.gate_reason.as_deref().unwrap_or("no reason given");
                line(format!("          limited until {until}: {reason}"));
            }
            if let Some(overload) = self.overload(name, source) {
                line(format!("          overloaded: {overload}"));
            }
        }
        for (worker, leases) in &stats.workers {
            line(format!("worker    {worker}: {leases} running"));
        }
        for job in &self.active {
            line(format!(
                "active    {}, attempt {}, lease until {}",
                job.key, job.attempt, job.at
            ));
        }
        for job in &self.failed {
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
        let seconds = self.now.since_ms(at) / SECOND_MS;
        match seconds {
            0..120 => format!("{seconds} s ago"),
            120..7_200 => format!("{} min ago", seconds / 60),
            _ => format!("{} h ago", seconds / 3_600),
        }
    }
}
