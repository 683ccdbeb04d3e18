//! Reading the configuration again without a restart: at SIGHUP, and by `POST /api/v1/reload`.
//!
//! Limits, what is kept of the past, the schedule, users and the log level come into force at once; limits, schedule and users in
//! the store, so for the whole fleet; spread, jitter and the users' grants in this process. All else is as it was until a
//! restart, and what differs there is told. A configuration with a mistake changes nothing at all.
//!
//! What was read again is said to the store once more whenever the node has told it of sources, schedules and users anew (it was
//! emptied, say), as the node itself only knows what stood in the configuration at its start. An outage alone is no reason to:
//! somebody else may have changed the fleet's limits meanwhile.
//!
//! What was cut short, by an outage or a refusal, is done by reading it again: then all is said, whatever was said before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kalends_core::policy::Spread;
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply};
use kalends_core::time::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use crate::accounts::Register;
use crate::config::{self, Config, ScheduleConfig, UserConfig};
use crate::handle::Handle;
use crate::logging::LevelControl;

mod users;

use users::{Counts, Difference};

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
    /// The store refused, and took nothing of it; in words.
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

impl From<StoreUnavailable> for NotReloaded {
    fn from(unavailable: StoreUnavailable) -> Self {
        NotReloaded::StoreAway(unavailable)
    }
}

struct State {
    /// What is in force: as at the start, with what was applied since.
    config: Config,
    /// Whether something was applied since, which the node does not know of.
    is_changed: bool,
    /// Whether the store may know something else than `config`: what it was being told of was cut short.
    is_unsaid: bool,
}

/// What a reload changes.
pub struct InForce {
    /// The configuration, as it was read at the start.
    pub config: Config,
    /// The queue.
    pub store: Arc<dyn Store>,
    /// The users of the configuration, and who else is synced.
    pub register: Register,
    /// What lines are shown.
    pub level: LevelControl,
    /// The node that lays users over the period; `None`: there is none.
    pub handle: Option<Handle>,
}

/// Reads the configuration again, as it was read at the start: the same file, variables and flags.
pub struct Reloader {
    request: config::Request,
    environment: BTreeMap<String, String>,
    store: Arc<dyn Store>,
    register: Register,
    level: LevelControl,
    handle: Option<Handle>,
    /// The users whom the node makes known whenever it begins anew.
    at_start: Vec<UserConfig>,
    /// Whether users' phases are in the journal, which is decided at its beginning; `None`: there is no journal.
    journal_has_phases: Option<bool>,
    schedule: watch::Sender<ScheduleConfig>,
    state: Mutex<State>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment holds secrets.
        formatter.write_str("Reloader")
    }
}

impl Reloader {
    /// `in_force` was read by `request` and `environment`.
    #[must_use]
    pub fn new(
        request: config::Request,
        environment: BTreeMap<String, String>,
        in_force: InForce,
    ) -> Self {
        let InForce {
            config,
            store,
            register,
            level,
            handle,
        } = in_force;
        let has_phases = config.schedule.spread == Spread::Phase;
        Reloader {
            request,
            environment,
            store,
            register,
            level,
            handle,
            at_start: config.users.clone(),
            journal_has_phases: config.record.is_some().then_some(has_phases),
            schedule: watch::Sender::new(config.schedule.clone()),
            state: Mutex::new(State {
                config,
                is_changed: false,
                is_unsaid: false,
            }),
        }
    }

    /// The schedule in force, with how users are laid over its period; followed as it is read again.
    #[must_use]
    pub fn schedule(&self) -> watch::Receiver<ScheduleConfig> {
        self.schedule.subscribe()
    }

    /// Reads it again and applies what can be. One at a time.
    ///
    /// # Errors
    /// If it has mistakes, or the store does not answer or refuses.
    pub async fn reload(&self) -> Result<Reloaded, NotReloaded> {
        let mut state = self.state.lock().await;
        let loaded = self.load().await?;
        let (next, mut reloaded) = merge(&state.config, loaded.config, self.journal_has_phases);
        reloaded.warnings = loaded.warnings;
        if next.schedule.name != state.config.schedule.name {
            reloaded.warnings.push(format!(
                "the schedule {} stays in the store beside the new one; remove it with DELETE /api/v1/schedules/{0}",
                state.config.schedule.name
            ));
        }
        // Before the first word, as this may be abandoned at any of them.
        let was_unsaid = std::mem::replace(&mut state.is_unsaid, true);
        let users = if was_unsaid {
            self.define_all(&state.config, &next).await?
        } else {
            self.define_difference(&state.config, &next).await?
        };
        state.is_unsaid = false;
        self.level.set(next.log.level);
        self.lay_out(&next.schedule);
        let differs = next != state.config;
        state.is_changed |= differs;
        state.config = next;
        tracing::info!(
            applied = reloaded.applied.join(", "),
            needs_restart = reloaded.needs_restart.join(", "),
            users_added = users.added,
            users_changed = users.changed,
            users_removed = users.removed,
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

    fn lay_out(&self, schedule: &ScheduleConfig) {
        self.schedule.send_if_modified(|known| {
            let differs = known != schedule;
            known.clone_from(schedule);
            differs
        });
        if let Some(handle) = &self.handle {
            handle.lay_out(schedule.spread, schedule.jitter);
        }
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

    /// Says to the store what was read again each time `boots` changes
    /// ([`Handle::boots`](crate::handle::Handle::boots)), for as long as it is polled.
    pub async fn keep_defined(&self, mut boots: watch::Receiver<u64>) {
        while boots.changed().await.is_ok() {
            boots.borrow_and_update();
            let mut state = self.state.lock().await;
            if !state.is_changed {
                continue;
            }
            state.is_unsaid = true;
            match self.define_all(&state.config, &state.config).await {
                Ok(_) => state.is_unsaid = false,
                Err(error) => tracing::warn!(
                    "limits, schedule and users may be as at the start, reload again: {error}"
                ),
            }
        }
    }
}

impl Reloader {
    /// Says what differs, so that nothing else that an operator set is touched.
    async fn define_difference(&self, old: &Config, new: &Config) -> Result<Counts, NotReloaded> {
        expect_source(&*self.store, new).await?;
        let (was, is) = (&old.schedule, &new.schedule);
        if was.name != is.name || was.definition != is.definition {
            define_schedule(&*self.store, new).await?;
        }
        if old.source_settings() != new.source_settings() {
            define_source(&*self.store, new).await?;
        }
        let users = Difference::between(&[&old.users], &new.users);
        Ok(users.carry(&*self.store, &self.register, new).await?)
    }

    /// Says it all, to a store that knows the node's beginning, or `old`, or part of what was being said.
    async fn define_all(&self, old: &Config, new: &Config) -> Result<Counts, NotReloaded> {
        expect_source(&*self.store, new).await?;
        define_schedule(&*self.store, new).await?;
        define_source(&*self.store, new).await?;
        let half_said = self.register.configured().users();
        let users = Difference::between(&[&self.at_start, &old.users, &half_said], &new.users);
        Ok(users.carry(&*self.store, &self.register, new).await?)
    }
}

/// `old` with all of `new` that can be applied, and what that is. A journal that has no users' phases must not come to need them.
fn merge(old: &Config, new: Config, journal_has_phases: Option<bool>) -> (Config, Reloaded) {
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
    let keeps_spread = schedule.spread == Spread::Phase && journal_has_phases == Some(false);
    // Google takes a user's grant of the client only to which it was given: with the old client the new grants would be refused,
    // and their users parked.
    let keeps_users = old.google.auth != google.auth;
    let (jitter_differs, spread_differs) = (
        old.schedule.jitter != schedule.jitter,
        old.schedule.spread != schedule.spread,
    );
    let users_differ = old.users != users;
    let applied = [
        (old.limits != limits, "limits"),
        (old.history != history, "history"),
        (
            old.schedule.name != schedule.name || old.schedule.definition != schedule.definition,
            "schedule",
        ),
        (jitter_differs, "schedule.jitter_ms"),
        (spread_differs && !keeps_spread, "schedule.spread"),
        (users_differ && !keeps_users, "users"),
        (old.log.level != log.level, "log.level"),
    ];
    next.limits = limits;
    next.history = history;
    next.schedule.name = schedule.name;
    next.schedule.definition = schedule.definition;
    next.schedule.jitter = schedule.jitter;
    if !keeps_spread {
        next.schedule.spread = schedule.spread;
    }
    next.log.level = log.level;
    let kept = [
        (spread_differs && keeps_spread, "schedule.spread"),
        (old.worker != worker, "worker"),
        (old.retry != retry, "retry"),
        (old.google != google, "google"),
        (users_differ && keeps_users, "users"),
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
    if !keeps_users {
        next.users = users;
    }
    (next, reloaded)
}

/// Refuses where the store does not know the source: it was emptied, or the node has not told it yet. Whoever defined the source
/// now would hide from the node, which finds an emptied store by the same question, that there is all to be told.
async fn expect_source(store: &dyn Store, config: &Config) -> Result<(), NotReloaded> {
    let command = Command::Enroll {
        source: config.schedule.definition.source.clone(),
        users: Vec::new(),
        due_at: Timestamp::EPOCH,
    };
    apply(store, command).await
}

/// Said before the source, as only this can be refused for what the store holds: then all is as it was.
async fn define_schedule(store: &dyn Store, config: &Config) -> Result<(), NotReloaded> {
    let command = Command::DefineSchedule {
        schedule: config.schedule.name.clone(),
        definition: config.schedule.definition.clone(),
    };
    apply(store, command).await
}

async fn define_source(store: &dyn Store, config: &Config) -> Result<(), NotReloaded> {
    let command = Command::DefineSource {
        source: config.schedule.definition.source.clone(),
        settings: config.source_settings(),
    };
    apply(store, command).await
}

async fn apply(store: &dyn Store, command: Command) -> Result<(), NotReloaded> {
    let stamped = store.apply(command).await?;
    match stamped.value {
        Reply::Refused { refusal } => Err(NotReloaded::Refused(refusal.to_string())),
        _ => Ok(()),
    }
}
