//! What the store says of a fleet, read once and shown by whoever asks: `kalends status`, the HTTP API, the page.

use kalends_core::id::{ScheduleName, SourceName};
use kalends_core::policy::overload;
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply};
use kalends_core::queue::state::{
    FRESHNESS_BOUNDS_MS, JobKey, JobListing, JobState, QueueStats, ScheduleState, SourceStats,
};
use kalends_core::time::Timestamp;
use serde_json::{Value, json};

/// Counts, schedules, what runs, and the newest failures, as of one moment (or a few milliseconds).
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The store's time at the last question.
    pub now: Timestamp,
    /// The counts.
    pub stats: QueueStats,
    /// The schedules, by name.
    pub schedules: Vec<(ScheduleName, ScheduleState)>,
    /// Jobs that run, the first to lose their lease first.
    pub active: Vec<JobListing>,
    /// Dead letters, the newest of each source first.
    pub failed: Vec<JobListing>,
}

/// How many jobs are listed beside the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Jobs that run.
    pub active: u32,
    /// Dead letters.
    pub failed: u32,
}

impl Status {
    /// Asks the store, by four commands.
    ///
    /// # Errors
    /// If it does not answer.
    ///
    /// # Panics
    /// If it answers something else than what it was asked for.
    pub async fn read(store: &dyn Store, shown: Shown) -> Result<Status, StoreUnavailable> {
        let stats = store.apply(Command::Stats).await?;
        let Reply::Stats { stats } = stats.value else {
            panic!("counts were asked for, not {:?}", stats.value);
        };
        let schedules = store.apply(Command::Schedules).await?;
        let Reply::Schedules { schedules } = schedules.value else {
            panic!("schedules were asked for, not {:?}", schedules.value);
        };
        let (_, active) = jobs(store, JobState::Active, 0, shown.active).await?;
        let (now, failed) = jobs(store, JobState::Failed, 0, shown.failed).await?;
        Ok(Status {
            now,
            stats,
            schedules,
            active,
            failed,
        })
    }

    /// When a schedule fires next; `None`: never.
    #[must_use]
    pub fn next_tick(&self, schedule: &ScheduleState) -> Option<Timestamp> {
        let after = schedule.last_tick_at.max(self.now);
        schedule.definition.next_after(after)
    }

    /// Whether a source has more users than its limit lets through in a period, in words.
    #[must_use]
    pub fn overload(&self, name: &SourceName, source: &SourceStats) -> Option<String> {
        let period_ms = self.period_ms(name)?;
        let users = source.users.saturating_sub(source.parked);
        overload(users, period_ms, source.settings.jobs.as_ref())
            .map(|overload| overload.to_string())
    }

    /// The time between two ticks of the first schedule of a source, in milliseconds; `None` if it has none.
    #[must_use]
    pub fn period_ms(&self, source: &SourceName) -> Option<u64> {
        self.schedules
            .iter()
            .filter(|(_, schedule)| schedule.definition.source == *source)
            .find_map(|(_, schedule)| schedule.definition.period_ms(self.now))
    }

    /// All of it, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let stats = &self.stats;
        let schedules = self.schedules.iter();
        let sources = stats.sources.iter();
        let workers = stats.workers.iter();
        json!({
            "now": self.now.to_rfc3339(),
            "waiting": stats.waiting,
            "delayed": stats.delayed,
            "active": stats.active,
            "completed": stats.completed,
            "failed": stats.failed,
            "completed_total": stats.completed_total,
            "failed_total": stats.failed_total,
            "parked": stats.sources.iter().map(|(_, source)| source.parked).sum::<u64>(),
            "schedules": schedules
                .map(|(name, schedule)| schedule_json(name, schedule, self.next_tick(schedule)))
                .collect::<Vec<_>>(),
            "sources": sources
                .map(|(name, source)| self.source_json(name, source))
                .collect::<Vec<_>>(),
            "workers": workers
                .map(|(worker, running)| json!({ "worker": worker, "running": running }))
                .collect::<Vec<_>>(),
            "active_jobs": self.active.iter().map(job_json).collect::<Vec<_>>(),
            "failed_jobs": self.failed.iter().map(job_json).collect::<Vec<_>>(),
        })
    }

    fn source_json(&self, name: &SourceName, source: &SourceStats) -> Value {
        let age_ms = |at: Option<Timestamp>| at.map(|at| self.now.since_ms(at));
        let freshness = &source.freshness;
        let within = FRESHNESS_BOUNDS_MS.iter().zip(freshness.within);
        let gate = source.gate_until.filter(|until| *until > self.now);
        json!({
            "name": name,
            "settings": source.settings,
            "paused": source.paused,
            "gate": gate.map(|until| json!({
                "until": until.to_rfc3339(),
                "reason": source.gate_reason,
            })),
            "starts_in_window": source.starts_in_window,
            "overload": self.overload(name, source),
            "users": source.users,
            "parked": source.parked,
            "never_synced": source.never_synced,
            "oldest_success_at": source.oldest_success_at.map(Timestamp::to_rfc3339),
            "freshness": {
                "users": freshness.users,
                "oldest_age_ms": age_ms(source.oldest_success_at),
                "p50_age_ms": age_ms(freshness.p50_at),
                "p95_age_ms": age_ms(freshness.p95_at),
                "p99_age_ms": age_ms(freshness.p99_at),
                "within": within
                    .map(|(age_ms, users)| json!({ "age_ms": age_ms, "users": users }))
                    .collect::<Vec<_>>(),
            },
        })
    }
}

/// A page of jobs of one state, and the store's time.
///
/// # Errors
/// If the store does not answer.
///
/// # Panics
/// If it answers something else than what it was asked for.
pub async fn jobs(
    store: &dyn Store,
    state: JobState,
    offset: u32,
    limit: u32,
) -> Result<(Timestamp, Vec<JobListing>), StoreUnavailable> {
    let command = Command::Jobs {
        state,
        offset,
        limit,
    };
    let stamped = store.apply(command).await?;
    match stamped.value {
        Reply::Jobs { jobs } => Ok((stamped.now, jobs)),
        other => panic!("jobs were asked for, not {other:?}"),
    }
}

/// A schedule, for programs.
#[must_use]
pub fn schedule_json(
    name: &ScheduleName,
    schedule: &ScheduleState,
    next: Option<Timestamp>,
) -> Value {
    json!({
        "name": name,
        "definition": schedule.definition,
        "last_tick_at": schedule.last_tick_at.to_rfc3339(),
        "next_tick_at": next.map(Timestamp::to_rfc3339),
        "fired": schedule.fired,
        "missed": schedule.missed,
    })
}

/// A job, for programs.
#[must_use]
pub fn job_json(job: &JobListing) -> Value {
    let (kind, source, user, schedule) = match &job.key {
        JobKey::FanOut { schedule } => ("fan_out", None, None, Some(schedule)),
        JobKey::Sync { source, user } => ("sync", Some(source), Some(user), None),
    };
    json!({
        "job": kind,
        "source": source,
        "user": user,
        "schedule": schedule,
        "state": job.state,
        "number": job.number,
        "at": job.at.to_rfc3339(),
        "priority": job.priority,
        "attempt": job.attempt,
        "worker": job.worker,
        "outcome": job.outcome,
        "error": job.error,
    })
}
