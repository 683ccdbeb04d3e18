//! Reading the configuration again without a restart: at SIGHUP, and by `POST /api/v1/reload`.
//!
//! Limits, what is kept of the past, the schedule and the log level come into force at once; limits and schedule in the store, so
//! for the whole fleet. All else is as it was until a restart, and what differs there is told. A configuration with a mistake
//! changes nothing at all.
//!
//! What was read again is said to the store once more whenever the node has told it of sources and schedules anew (it was emptied,
//! say), as the node itself only knows what stood in the configuration at its start.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use crate::config::{self, Config};
use crate::handle::Readiness;
use crate::logging::LevelControl;

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What differs from before and is in force now.
    pub applied: Vec<&'static str>,
    /// What differs and waits for a restart.
    pub needs_restart: Vec<&'static str>,
    /// What looks unwise, each in a sentence.
    pub warnings: Vec<String>,
}

impl Reloaded {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "applied": self.applied,
            "needs_restart": self.needs_restart,
            "warnings": self.warnings,
        })
    }
}

/// Why the configuration that was in force stays so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// It has mistakes; nothing was changed.
    Wrong(String),
    /// The store does not answer: limits and schedule may have been changed or not. Doing it again is safe.
    StoreAway(StoreUnavailable),
    /// The store refused; in words.
    Refused(String),
}

impl fmt::Display for NotReloaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReloaded::Wrong(problems) => write!(
                formatter,
                "the configuration has mistakes, and the old one stays in force: {problems}"
            ),
            NotReloaded::StoreAway(unavailable) => write!(
                formatter,
                "the store does not answer, try again when it does: {unavailable}"
            ),
            NotReloaded::Refused(words) => write!(
                formatter,
                "the store refused, and the old configuration stays in force: {words}"
            ),
        }
    }
}

impl std::error::Error for NotReloaded {}

struct State {
    /// What is in force: as at the start, with what was applied since.
    config: Config,
    /// Whether something was applied since, which the node does not know of.
    is_changed: bool,
}

/// Reads the configuration again, as it was read at the start: the same file, variables and flags.
pub struct Reloader {
    request: config::Request,
    environment: BTreeMap<String, String>,
    store: Arc<dyn Store>,
    level: LevelControl,
    state: Mutex<State>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment holds secrets.
        formatter.write_str("Reloader")
    }
}

impl Reloader {
    /// `config` is what is in force, read by `request` and `environment`.
    #[must_use]
    pub fn new(
        request: config::Request,
        environment: BTreeMap<String, String>,
        config: Config,
        store: Arc<dyn Store>,
        level: LevelControl,
    ) -> Self {
        Reloader {
            request,
            environment,
            store,
            level,
            state: Mutex::new(State {
                config,
                is_changed: false,
            }),
        }
    }

    /// Reads it again and applies what can be. One at a time.
    ///
    /// # Errors
    /// If it has mistakes, or the store does not answer or refuses.
    pub async fn reload(&self) -> Result<Reloaded, NotReloaded> {
        let mut state = self.state.lock().await;
        let loaded = self.load().await?;
        let (next, mut reloaded) = merge(&state.config, loaded.config);
        reloaded.warnings = loaded.warnings;
        if next.schedule.name != state.config.schedule.name {
            reloaded.warnings.push(format!(
                "the schedule {} stays in the store beside the new one; remove it with DELETE /api/v1/schedules/{0}",
                state.config.schedule.name
            ));
        }
        define(&*self.store, &state.config, &next).await?;
        self.level.set(next.log.level);
        let differs = next != state.config;
        state.is_changed |= differs;
        state.config = next;
        tracing::info!(
            applied = reloaded.applied.join(", "),
            needs_restart = reloaded.needs_restart.join(", "),
            "the configuration was read again"
        );
        if !reloaded.needs_restart.is_empty() {
            tracing::warn!(
                "changed, but only in force after a restart: {}",
                reloaded.needs_restart.join(", ")
            );
        }
        for warning in &reloaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(reloaded)
    }

    async fn load(&self) -> Result<config::Loaded, NotReloaded> {
        let (request, environment) = (self.request.clone(), self.environment.clone());
        // Files of up to hundreds of megabytes are read.
        let load = move || config::load(&request, &environment);
        match tokio::task::spawn_blocking(load).await {
            Ok(loaded) => loaded.map_err(|error| NotReloaded::Wrong(error.to_string())),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Says to the store what was read again, each time the node is ready anew, for as long as it is polled.
    pub async fn keep_defined(&self, mut readiness: watch::Receiver<Readiness>) {
        while readiness.changed().await.is_ok() {
            if *readiness.borrow_and_update() != Readiness::Ready {
                continue;
            }
            let state = self.state.lock().await;
            if !state.is_changed {
                continue;
            }
            // From nothing: the node has said what stood there at its start.
            if let Err(error) = define_all(&*self.store, &state.config).await {
                tracing::warn!("limits and schedule are as at the start, reload again: {error}");
            }
        }
    }
}

/// `old` with all of `new` that can be applied, and what that is.
fn merge(old: &Config, new: Config) -> (Config, Reloaded) {
    // Taken apart whole, so that a section that is new cannot be passed over.
    let Config {
        schedule,
        limits,
        worker,
        retry,
        history,
        google,
        users,
        credentials,
        graph,
        store,
        redis,
        http,
        push,
        log,
        record,
        telemetry,
    } = new;
    let mut next = old.clone();
    let applied = [
        (old.limits != limits, "limits"),
        (old.history != history, "history"),
        (
            old.schedule.name != schedule.name || old.schedule.definition != schedule.definition,
            "schedule",
        ),
        (old.log.level != log.level, "log.level"),
    ];
    next.limits = limits;
    next.history = history;
    next.schedule.name = schedule.name;
    next.schedule.definition = schedule.definition;
    next.log.level = log.level;
    let kept = [
        (old.schedule.jitter != schedule.jitter, "schedule.jitter_ms"),
        (old.schedule.spread != schedule.spread, "schedule.spread"),
        (old.worker != worker, "worker"),
        (old.retry != retry, "retry"),
        (old.google != google, "google"),
        (old.users != users, "users"),
        (old.credentials != credentials, "credentials"),
        (old.graph != graph, "graph"),
        (old.store != store, "store"),
        (old.redis != redis, "redis"),
        (old.http != http, "http"),
        (old.push != push, "push"),
        (old.log.format != log.format, "log.format"),
        (old.record != record, "record"),
        (old.telemetry != telemetry, "telemetry"),
    ];
    let names = |differences: &[(bool, &'static str)]| {
        let differing = differences.iter().filter(|(differs, _)| *differs);
        differing.map(|(_, name)| *name).collect()
    };
    let reloaded = Reloaded {
        applied: names(&applied),
        needs_restart: names(&kept),
        warnings: Vec::new(),
    };
    (next, reloaded)
}

/// Tells the store what differs, so that nothing else that an operator set is touched.
async fn define(store: &dyn Store, old: &Config, new: &Config) -> Result<(), NotReloaded> {
    if old.source_settings() != new.source_settings() {
        define_source(store, new).await?;
    }
    let (was, is) = (&old.schedule, &new.schedule);
    if was.name != is.name || was.definition != is.definition {
        define_schedule(store, new).await?;
    }
    Ok(())
}

async fn define_all(store: &dyn Store, config: &Config) -> Result<(), NotReloaded> {
    define_source(store, config).await?;
    define_schedule(store, config).await
}

async fn define_source(store: &dyn Store, config: &Config) -> Result<(), NotReloaded> {
    let command = Command::DefineSource {
        source: config.schedule.definition.source.clone(),
        settings: config.source_settings(),
    };
    apply(store, command).await
}

async fn define_schedule(store: &dyn Store, config: &Config) -> Result<(), NotReloaded> {
    let command = Command::DefineSchedule {
        schedule: config.schedule.name.clone(),
        definition: config.schedule.definition.clone(),
    };
    apply(store, command).await
}

async fn apply(store: &dyn Store, command: Command) -> Result<(), NotReloaded> {
    let stamped = store.apply(command).await.map_err(NotReloaded::StoreAway)?;
    match stamped.value {
        Reply::Refused { refusal } => Err(NotReloaded::Refused(refusal.to_string())),
        _ => Ok(()),
    }
}
