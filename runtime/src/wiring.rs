//! From a configuration to a node and what it works with. Everything that can be wrong is found here, before anything
//! is started.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::Arc;

use kalends_adapters::embedded::{EmbeddedStore, OpenError};
use kalends_adapters::google::{
    GoogleCalendar, GoogleSettings, RefreshTokens, ServiceAccountKey, Webhook,
};
use kalends_adapters::neo4j::{Databases, Neo4jGraph, Neo4jSettings};
use kalends_adapters::redis::{BadAddress, RedisStore, Unusable};
use kalends_adapters::secret::Secret;
use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::node::settings::{Deadlines, NodeSettings, SourceDefinition};
use kalends_core::port::{Graph, Store, StoreUnavailable};
use kalends_core::push::PushSettings;
use kalends_core::queue::command::{BATCH_MAX, Command, Reply};
use kalends_core::queue::state::SourceSettings;
use kalends_core::rng::stable_hash;
use kalends_core::sync::{CalendarSelection, SyncSettings};
use kalends_core::time::{Clock, DAY_MS, Timestamp};

use crate::accounts::{GraphDatabasesOf, Register};
use crate::config::{self, Config, GoogleAuth, GraphConfig, GraphDatabases, UserConfig};
use crate::exit::Exit;
use crate::handle::grant_hash;

/// Added to the request timeout of an adapter for the node's own deadline, in milliseconds: the adapter's, which knows
/// better what was slow, comes first.
const DEADLINE_MARGIN_MS: u64 = 5_000;

/// Requests that one write may take at the most, each with the full request timeout: the six statements that make an
/// index or a constraint where a database is new, the write, and the write once more.
const GRAPH_REQUESTS_A_WRITE_MAX: u64 = 8;

/// Why a command could not begin, or not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The exit code that belongs to it.
    pub exit: Exit,
    /// What is wrong and what to do, in words.
    pub detail: String,
}

impl Refused {
    /// Bad input, or something that is in use.
    #[must_use]
    pub fn bad_input(detail: impl Into<String>) -> Self {
        Refused {
            exit: Exit::BadInput,
            detail: detail.into(),
        }
    }
}

impl From<OpenError> for Refused {
    fn from(error: OpenError) -> Self {
        Refused::bad_input(error.to_string())
    }
}

/// A number that nobody can foretell: the seed of a process that was not given one.
#[must_use]
pub fn fresh_seed() -> u64 {
    // The standard library seeds this hasher from the operating system's entropy.
    RandomState::new().hash_one(std::process::id())
}

/// The name of this incarnation of this process: never used again.
///
/// # Panics
/// If `name` is no valid name; the configuration has checked it.
#[must_use]
pub fn worker_id(name: &str) -> WorkerId {
    WorkerId::new(&format!("{name}-{:016x}", fresh_seed())).expect("the name was checked")
}

/// What a node is told by a configuration.
#[must_use]
pub fn node_settings(config: &Config, seed: u64) -> NodeSettings {
    let mut settings = NodeSettings::new(worker_id(&config.worker.name), seed);
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings {
            jobs: config.limits.jobs,
            requests_project: config.limits.requests,
            requests_user: config.limits.requests_per_user,
            keep_completed: config.history.completed,
            keep_failed: config.history.failed,
            ..SourceSettings::default()
        },
        sync: SyncSettings {
            calendars: match &config.google.calendars {
                config::CalendarSelection::Primary => CalendarSelection::Primary,
                config::CalendarSelection::All => CalendarSelection::AllReadable,
                config::CalendarSelection::Listed(listed) => {
                    CalendarSelection::List(listed.clone())
                }
            },
            page_size: config.google.page_size,
            look_back_ms: u64::from(config.google.look_back_days) * DAY_MS,
            push: config.push.as_ref().map(|push| PushSettings {
                poll_ms: push.poll_ms,
                ..PushSettings::default()
            }),
            ..SyncSettings::default()
        },
        enroll: config
            .users
            .iter()
            .map(|user| (user.id.clone(), grant(config, user)))
            .collect(),
    });
    let schedule = &config.schedule;
    settings
        .schedules
        .push((schedule.name.clone(), schedule.definition.clone()));
    settings.concurrency = config.worker.concurrency;
    settings.lease_ms = config.worker.lease_ms;
    settings.jitter = schedule.jitter;
    settings.spread = schedule.spread;
    settings.backoff = config.retry;
    // One request may be made twice (with a new token), after a token call.
    let fetch_ms = config.google.request_timeout_ms.saturating_mul(4) + DEADLINE_MARGIN_MS;
    let graph_ms = match &config.graph {
        GraphConfig::Embedded => Deadlines::default().graph_ms,
        GraphConfig::Neo4j(neo4j) => {
            let requests_ms = neo4j
                .request_timeout_ms
                .saturating_mul(GRAPH_REQUESTS_A_WRITE_MAX);
            requests_ms.saturating_add(DEADLINE_MARGIN_MS)
        }
    };
    settings.deadlines = Deadlines {
        fetch_ms,
        graph_ms,
        ..Deadlines::default()
    };
    settings
}

/// Tells one grant of a user from another: a hash, from which the grant cannot be had back.
#[must_use]
pub fn grant(config: &Config, user: &UserConfig) -> u64 {
    let own = || user.refresh_token.as_ref().map_or("", Secret::expose);
    common_grant(config).unwrap_or_else(|| grant_hash(own()))
}

/// As [`grant`], of all users, if a service account speaks for them.
#[must_use]
pub fn common_grant(config: &Config) -> Option<u64> {
    match &config.google.auth {
        GoogleAuth::ServiceAccount { key_json } => Some(grant_hash(key_json.expose())),
        GoogleAuth::RefreshToken { .. } => None,
    }
}

/// As [`grant`], of an added user. `connected_at` is given when a person has just consented: then the grant counts as another
/// one even if the token is the same.
#[must_use]
pub fn grant_of_token(token: &Secret, connected_at: Option<Timestamp>) -> u64 {
    let token = grant_hash(token.expose());
    match connected_at {
        None => token,
        Some(at) => stable_hash(token, &at.as_ms().to_le_bytes()),
    }
}

/// The refresh tokens of the configuration.
struct ConfiguredTokens(BTreeMap<UserId, Secret>);

impl RefreshTokens for ConfiguredTokens {
    fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        self.0.get(user).cloned()
    }
}

/// Google, as configured.
///
/// # Errors
/// If an address or a key cannot be used.
pub fn google(config: &Config, clock: Arc<dyn Clock>) -> Result<GoogleCalendar, Refused> {
    let tokens = config.users.iter();
    let tokens = tokens.filter_map(|user| Some((user.id.clone(), user.refresh_token.clone()?)));
    google_with(config, clock, Arc::new(ConfiguredTokens(tokens.collect())))
}

/// As [`google`], with other refresh tokens than the configuration's.
///
/// # Errors
/// As [`google`].
pub fn google_with(
    config: &Config,
    clock: Arc<dyn Clock>,
    tokens: Arc<dyn RefreshTokens>,
) -> Result<GoogleCalendar, Refused> {
    let auth = match &config.google.auth {
        GoogleAuth::RefreshToken {
            client_id,
            client_secret,
        } => kalends_adapters::google::GoogleAuth::RefreshTokens {
            client_id: client_id.clone(),
            client_secret: client_secret.clone(),
            tokens,
        },
        GoogleAuth::ServiceAccount { key_json } => {
            let key =
                ServiceAccountKey::from_json(key_json.expose().as_bytes()).map_err(|error| {
                    Refused::bad_input(format!("google.service_account_key_file: {error}"))
                })?;
            kalends_adapters::google::GoogleAuth::ServiceAccount(key)
        }
    };
    let settings = GoogleSettings {
        api_base_url: config.google.api_base_url.clone(),
        token_url: config.google.token_url.clone(),
        request_timeout_ms: config.google.request_timeout_ms,
        auth,
    };
    let google = GoogleCalendar::new(settings, clock)
        .map_err(|error| Refused::bad_input(format!("google.{error}")))?;
    Ok(match webhook(config)? {
        Some(webhook) => google.with_webhook(webhook),
        None => google,
    })
}

/// Where Google is told to send notifications, as configured.
///
/// # Errors
/// If the address or the key cannot be used.
pub fn webhook(config: &Config) -> Result<Option<Arc<Webhook>>, Refused> {
    let Some(push) = &config.push else {
        return Ok(None);
    };
    let webhook = Webhook::new(&push.address, &push.key)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    Ok(Some(Arc::new(webhook)))
}

/// The graph, as configured.
///
/// # Errors
/// If the address cannot be used, or the graph is a file of one process and the queue is not.
pub fn graph(
    config: &Config,
    queue: &Queue,
    register: &Register,
) -> Result<Arc<dyn Graph>, Refused> {
    let neo4j = match (&config.graph, queue) {
        (GraphConfig::Embedded, Queue::Embedded(store)) => {
            return Ok(Arc::clone(store) as Arc<dyn Graph>);
        }
        (GraphConfig::Embedded, Queue::Redis(_)) => {
            return Err(Refused::bad_input(
                "graph.kind: \"embedded\" is a file of one process, and the queue in Redis is shared; use \"neo4j\"",
            ));
        }
        (GraphConfig::Neo4j(neo4j), _) => neo4j,
    };
    let databases = match &neo4j.databases {
        GraphDatabases::Shared(name) => Databases::Shared(name.clone()),
        GraphDatabases::PerUser => {
            let databases = GraphDatabasesOf::new(register.clone());
            Databases::PerUser(Arc::new(databases))
        }
    };
    let settings = Neo4jSettings {
        url: neo4j.url.clone(),
        user: neo4j.user.clone(),
        password: neo4j.password.clone(),
        databases,
        timeout_ms: neo4j.request_timeout_ms,
    };
    let graph =
        Neo4jGraph::new(settings).map_err(|error| Refused::bad_input(format!("graph.{error}")))?;
    Ok(Arc::new(graph))
}

/// Users that are in the store, and neither in the configuration nor in the register, cease to be synced; how many.
///
/// What was synced of them stays in the graph.
///
/// # Errors
/// If the store does not answer.
pub async fn forget_removed_users(
    store: &dyn Store,
    register: &Register,
) -> Result<u64, StoreUnavailable> {
    let mut known: BTreeSet<UserId> = register.names().await?;
    known.extend(register.configured().names());
    let source = SourceName::google_calendar();
    let limit = u32::try_from(BATCH_MAX).expect("a batch is small");
    let mut after = None;
    let mut forgotten = 0;
    loop {
        let page = Command::Users {
            source: source.clone(),
            after: after.clone(),
            limit,
        };
        let Reply::Users { users } = store.apply(page).await?.value else {
            return Ok(forgotten);
        };
        let Some((last, _)) = users.last() else {
            return Ok(forgotten);
        };
        after = Some(last.clone());
        let mut gone = Vec::new();
        for (user, _) in users {
            // Somebody may have been added since the names were read.
            if !known.contains(&user)
                && !register.configured().holds(&user)
                && register.accounts().find(&user).await?.is_none()
            {
                gone.push(user);
            }
        }
        let users = gone;
        if users.is_empty() {
            continue;
        }
        let unenroll = Command::Unenroll {
            source: source.clone(),
            users,
        };
        if let Reply::Count { count } = store.apply(unenroll).await?.value {
            forgotten += count;
        }
    }
}

/// The embedded store, as configured, with whatever a killed process had under way back in its queue.
///
/// # Errors
/// If another process has it, what lies there is not a store that this program can read, or it cannot be written.
pub async fn store(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<EmbeddedStore>, Refused> {
    let store = Arc::new(EmbeddedStore::open(data_dir, clock)?);
    match store.recover_orphans().await {
        Ok(0) => {}
        Ok(jobs) => tracing::warn!(
            jobs,
            "a process ended without handing back its jobs; they are in the queue again"
        ),
        Err(unavailable) => {
            return Err(Refused {
                exit: Exit::Failed,
                detail: unavailable.detail,
            });
        }
    }
    Ok(store)
}

/// The store of the queue: a file of this process, or a Redis that many share.
#[derive(Clone, Debug)]
pub enum Queue {
    /// Opened, locked, and with its orphans back in the queue.
    Embedded(Arc<EmbeddedStore>),
    /// It connects when it is first asked, and again whenever the connection was lost.
    Redis(Arc<RedisStore>),
}

fn bad_redis_url(bad: BadAddress) -> Refused {
    Refused::bad_input(format!("redis.url: {bad}"))
}

impl Queue {
    /// The queue, as configured. A Redis need not be there yet.
    ///
    /// # Errors
    /// If the embedded store cannot be had (see [`store`]), or the address of the Redis cannot be used.
    pub async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Refused> {
        match &config.redis {
            Some(redis) => {
                let store = RedisStore::new(redis.settings()).map_err(bad_redis_url)?;
                Ok(Queue::Redis(Arc::new(store)))
            }
            None => Ok(Queue::Embedded(store(&config.store.data_dir, clock).await?)),
        }
    }

    /// The queue to be looked at only: the embedded store may be open elsewhere.
    ///
    /// # Errors
    /// If there is no embedded store yet, or it cannot be read, or the address of the Redis cannot be used.
    pub fn open_read_only(
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<dyn Store>, Refused> {
        match &config.redis {
            Some(redis) => Ok(Arc::new(
                RedisStore::only_looking(&redis.settings()).map_err(bad_redis_url)?,
            )),
            None => Ok(Arc::new(EmbeddedStore::open_read_only(
                &config.store.data_dir,
                clock,
            )?)),
        }
    }

    /// The port for a node.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Queue::Embedded(store) => store.clone(),
            Queue::Redis(store) => store.clone(),
        }
    }

    /// Whether other processes may work on it at the same time.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Queue::Redis(_))
    }

    /// Looks once whether it answers: `Ok(None)` if it does, `Ok(Some(detail))` if it is away but may come by itself.
    ///
    /// # Errors
    /// If it answers and must not be used as it is.
    pub async fn check(&self) -> Result<Option<String>, Refused> {
        let Queue::Redis(store) = self else {
            return Ok(None);
        };
        match store.check().await {
            Ok(()) => Ok(None),
            Err(Unusable::Away { detail }) => Ok(Some(detail)),
            Err(Unusable::Refused { detail }) => {
                Err(Refused::bad_input(format!("redis: {detail}")))
            }
        }
    }

    /// Resolves when it has ended by a fault of its own and cannot come back within this process.
    async fn ended(&self) {
        match self {
            Queue::Embedded(store) => store.ended().await,
            // Nothing of it lives in this process: it may always come back.
            Queue::Redis(_) => std::future::pending().await,
        }
    }

    /// Lets go of it: an embedded store is free for another process afterwards.
    pub async fn close(&self) {
        match self {
            Queue::Embedded(store) => store.close().await,
            Queue::Redis(_) => {}
        }
    }

    /// Does `work` for as long as the queue can come back. Without its embedded store a node would back off for ever,
    /// looking alive.
    ///
    /// # Errors
    /// If the store ends before the work does.
    pub async fn serving<T>(&self, work: impl Future<Output = T>) -> Result<T, Refused> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.ended() => Err(Refused {
                exit: Exit::Failed,
                detail: "the embedded store has stopped by a fault of its own, which the log shows above; \
                         start the process again: its file holds all that was acknowledged"
                    .to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn work_ends_with_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), Arc::new(SystemClock)).await.unwrap();
        let queue = Queue::Embedded(store);
        assert_eq!(queue.serving(async { 7 }).await, Ok(7));
        let (ended, ()) = tokio::join!(queue.serving(std::future::pending::<()>()), queue.close());
        assert_eq!(ended.unwrap_err().exit, Exit::Failed);
    }
}
