//! The front door of the library: say what differs from the defaults, start, and get a handle.
//!
//! Every part behind a port can be another one: the queue's store, the source of calendars, the graph, the clock, and where
//! chance comes from. What is not said is as `kalends run` has it by default: syncs every quarter of an hour, spread over it,
//! ten a minute, three at a time, three attempts.
//!
//! What a host's own parts may do wrong stays with them. A panic in a source or a graph fails the job at hand and no
//! other; one in a store is an outage, which the node sits out. (That needs unwinding, Rust's default: not `panic =
//! "abort"`.) A part that never answers is given up after its deadline ([`Deadlines`](kalends_core::node::settings::Deadlines)).
//!
//! One source a [`Kalends`]: jobs of one user in two sources would write into one graph under each other's fencing tokens.
//! For a second source start a second one, with a store and a graph of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kalends_adapters::google::{GoogleCalendar, GoogleSettings};
use kalends_adapters::neo4j::{Neo4jGraph, Neo4jSettings};
use kalends_adapters::redis::{RedisSettings, RedisStore};
use kalends_core::id::{ScheduleName, SourceName, UserId};
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::{CatchUp, CronExpression, Limit, ScheduleDefinition, TimeZone};
use kalends_core::port::{Graph, Source, Store};
use kalends_core::queue::command::{Command, LEASE_MS_MAX};
use kalends_core::queue::state::SourceSettings;
use kalends_core::rng::Rng;
use kalends_core::sync::SyncSettings;
use kalends_core::time::Clock;

use crate::clock::{SteadyClock, SystemClock};
use crate::config::settings::CONCURRENCY_MAX;
use crate::driver::Ports;
use crate::handle::{Handle, Why, start_by};
use crate::spans::UserNames;
use crate::wiring::{Queue, Refused, fresh_seed, store as open_store, worker_id};

/// The schedule of a [`Builder`] that is told none: every quarter of an hour, in UTC.
pub const CRON_DEFAULT: &str = "*/15 * * * *";
/// Its name, as `kalends run` has it.
pub const SCHEDULE_NAME_DEFAULT: &str = "calendar-sync";
/// The name of this process in logs and status, unless told otherwise.
const NAME_DEFAULT: &str = "kalends";
/// A lease is at least this long, in milliseconds: a heartbeat goes out every third of it, and has to arrive.
const LEASE_MS_MIN: u64 = 1_000;

/// Why nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// A part that has no default was not given; what to say.
    Missing(&'static str),
    /// A setting is out of its bounds; which, and what they are.
    OutOfBounds(String),
    /// The store cannot be had, or must not be used as it is; why, and what to do.
    Store(String),
    /// Google's settings cannot be used; why.
    Google(String),
    /// Neo4j's settings cannot be used; why.
    Neo4j(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Missing(what) => write!(formatter, "nothing to begin with: {what}"),
            StartError::OutOfBounds(detail) | StartError::Store(detail) => {
                formatter.write_str(detail)
            }
            StartError::Google(detail) => write!(formatter, "Google's settings: {detail}"),
            StartError::Neo4j(detail) => write!(formatter, "Neo4j's settings: {detail}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running Kalends inside another program. [`Kalends::builder`] is how one begins.
///
/// Dropping it stops nothing: it works for as long as the tokio runtime lives. [`Kalends::shutdown`] ends it in good order.
#[derive(Debug)]
pub struct Kalends {
    handle: Handle,
    /// What was opened here, and is closed here.
    queue: Option<Queue>,
}

impl Kalends {
    /// A builder with everything by default, and no source yet.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle, to be copied to wherever it is needed: it asks for syncs, tells the status and what happens, pauses, resumes.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until nothing is done any more; why that is. An embedded store that ends by a fault of its own ends this, too.
    pub async fn stopped(&self) -> Why {
        let Some(queue) = &self.queue else {
            return self.handle.stopped().await;
        };
        match queue.serving(self.handle.stopped()).await {
            Ok(why) => why,
            Err(refused) => {
                self.handle.abandon();
                Why::Fault(refused.detail)
            }
        }
    }

    /// Takes no new jobs, lets those that run finish within `deadline_ms` milliseconds, hands the others back unharmed, and
    /// closes the store if it was opened here. Schedules and waiting jobs stay in it.
    pub async fn shutdown(self, deadline_ms: u64) -> Why {
        self.handle.begin_shutdown(deadline_ms);
        let why = self.stopped().await;
        if let Some(queue) = &self.queue {
            queue.close().await;
        }
        why
    }
}

enum StoreChoice {
    Folder(PathBuf),
    Redis(RedisSettings),
    Own(Arc<dyn Store>),
}

enum SourceChoice {
    Google(GoogleSettings),
    Own(Arc<dyn Source>),
}

enum GraphChoice {
    Neo4j(Neo4jSettings),
    Own(Arc<dyn Graph>),
}

/// Says what a [`Kalends`] is made of; [`Builder::start`] begins.
///
/// A source and a store must be said; a graph, too, unless the store is a folder, which holds one.
#[must_use = "nothing happens before start()"]
pub struct Builder {
    store: Option<StoreChoice>,
    source: Option<SourceChoice>,
    graph: Option<GraphChoice>,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    name: String,
    source_name: SourceName,
    source_settings: SourceSettings,
    sync: SyncSettings,
    users: Vec<(UserId, u64)>,
    names: Option<UserNames>,
    schedules: Option<Vec<(ScheduleName, ScheduleDefinition)>>,
    change: Box<dyn FnOnce(&mut NodeSettings) + Send>,
}

impl Builder {
    fn new() -> Self {
        Builder {
            store: None,
            source: None,
            graph: None,
            clock: None,
            seed: None,
            name: NAME_DEFAULT.to_owned(),
            source_name: SourceName::google_calendar(),
            source_settings: SourceSettings::default(),
            sync: SyncSettings::default(),
            users: Vec::new(),
            names: None,
            schedules: None,
            change: Box::new(|_| {}),
        }
    }

    // -- the parts -------------------------------------------------------------------------------------------------

    /// Queue and graph are one file in this folder, which is made if it does not exist. One process at a time has it.
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.store = Some(StoreChoice::Folder(folder.as_ref().to_owned()));
        self
    }

    /// The queue is in a Redis that many processes may share. It need not be there yet when this starts.
    pub fn redis(mut self, settings: RedisSettings) -> Self {
        self.store = Some(StoreChoice::Redis(settings));
        self
    }

    /// A store of the host's own, or one of Kalends' that the host opened and closes.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(StoreChoice::Own(store));
        self
    }

    /// Calendars come from Google.
    pub fn google(mut self, settings: GoogleSettings) -> Self {
        self.source = Some(SourceChoice::Google(settings));
        self
    }

    /// Calendars come from a source of the host's own. It answers as Google does: pages, and at the end a token from which
    /// the next sync goes on.
    pub fn source(mut self, source: Arc<dyn Source>) -> Self {
        self.source = Some(SourceChoice::Own(source));
        self
    }

    /// Events go to a Neo4j.
    pub fn neo4j(mut self, settings: Neo4jSettings) -> Self {
        self.graph = Some(GraphChoice::Neo4j(settings));
        self
    }

    /// Events go to a graph, or a sink, of the host's own. [`kalends_core::graph`] says which rules it has to keep.
    pub fn graph(mut self, graph: Arc<dyn Graph>) -> Self {
        self.graph = Some(GraphChoice::Own(graph));
        self
    }

    /// All time comes from this clock, which must not step back: a test's, or one that runs faster than the world. By
    /// default it is the system's; what has to be steady follows the monotonic one.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The seed of all chance in the node: jitter, backoff. With the same seed, and told the same at the same times, it
    /// decides the same. By default it is drawn from the system's entropy, and logged.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How users are named in spans ([`spans`](crate::spans)); by default so that nobody can tell whose name it is, and otherwise at
    /// each start.
    pub fn user_names(mut self, names: UserNames) -> Self {
        self.names = Some(names);
        self
    }

    /// As [`Builder::seed`], drawn from a generator of the host's own. One number is drawn; every use of chance in the node
    /// has a stream of its own that follows from it.
    pub fn rng(self, rng: &mut impl Rng) -> Self {
        let seed = rng.next_u64();
        self.seed(seed)
    }

    // -- what is synced, and when ----------------------------------------------------------------------------------

    /// A user to be synced. `grant` tells one grant of the user from another
    /// ([`grant_hash`](crate::handle::grant_hash)): a user who is parked because the grant was revoked is tried again with
    /// another one only. 0 where there are no grants.
    pub fn user(mut self, user: UserId, grant: u64) -> Self {
        self.users.push((user, grant));
        self
    }

    /// Many of them.
    pub fn users(mut self, users: impl IntoIterator<Item = (UserId, u64)>) -> Self {
        self.users.extend(users);
        self
    }

    /// A schedule, instead of [`CRON_DEFAULT`] or beside those said before. It is stored under its name and outlives the
    /// process; the same name again changes it.
    pub fn schedule(
        mut self,
        name: ScheduleName,
        cron: CronExpression,
        time_zone: TimeZone,
        catch_up: CatchUp,
    ) -> Self {
        let definition = ScheduleDefinition {
            source: self.source_name.clone(),
            cron,
            time_zone,
            catch_up,
        };
        let schedules = self.schedules.get_or_insert_default();
        schedules.push((name, definition));
        self
    }

    /// No schedule: users are synced once when they are new, and then when somebody asks.
    pub fn no_schedule(mut self) -> Self {
        self.schedules = Some(Vec::new());
        self
    }

    /// Job starts in every sliding window, over the whole fleet; `None`: unlimited. 10 a minute by default.
    pub fn job_limit(mut self, limit: Option<Limit>) -> Self {
        self.source_settings.jobs = limit;
        self
    }

    /// The other limits of the source, and how much of the past is kept. It sets the job limit, too.
    pub fn source_settings(mut self, settings: SourceSettings) -> Self {
        self.source_settings = settings;
        self
    }

    /// Which calendars of a user are synced, the page size, and how far a first sync looks back.
    pub fn sync_settings(mut self, settings: SyncSettings) -> Self {
        self.sync = settings;
        self
    }

    /// The name under which the store keeps the source's users and jobs; `google-calendar` by default.
    pub fn source_name(mut self, name: SourceName) -> Self {
        self.source_name = name;
        self
    }

    /// The name of this process in logs and status, `kalends` by default; something unique is added to it.
    pub fn process_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The last word on everything else: concurrency, lease, jitter, spread, retries, deadlines.
    pub fn node_settings(
        mut self,
        change: impl FnOnce(&mut NodeSettings) + Send + 'static,
    ) -> Self {
        self.change = Box::new(change);
        self
    }

    // -- start -----------------------------------------------------------------------------------------------------

    /// Opens what has to be opened and starts, on the current tokio runtime. It does not wait for a store that is away:
    /// work begins when it answers.
    ///
    /// # Errors
    /// If a part is missing, a setting is out of bounds, or a folder or a Redis must not be used as it is. Nothing was
    /// started then.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub async fn start(mut self) -> Result<Kalends, StartError> {
        let source = self.source.take().ok_or(StartError::Missing(
            "say google(...) or source(...): where calendars come from",
        ))?;
        let choice = self.store.take().ok_or(StartError::Missing(
            "say folder(...), redis(...) or store(...): where the queue is kept",
        ))?;
        let graph = self.graph.take();
        if graph.is_none() && !matches!(choice, StoreChoice::Folder(_)) {
            return Err(StartError::Missing(
                "say neo4j(...) or graph(...): only a store in a folder(...) holds a graph, too",
            ));
        }
        let own_clock = self.clock.take();
        let wall = own_clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
        let driving = own_clock.unwrap_or_else(|| Arc::new(SteadyClock::new(SystemClock.now(), 1)));
        let names = self.names.take().unwrap_or_else(UserNames::drawn);
        let settings = self.settings()?;

        // All that cannot wait or lock comes first, so that a mistake leaves nothing open.
        let source: Arc<dyn Source> = match source {
            SourceChoice::Own(source) => source,
            SourceChoice::Google(settings) => {
                let google = GoogleCalendar::new(settings, Arc::clone(&wall));
                Arc::new(google.map_err(|error| StartError::Google(error.to_string()))?)
            }
        };
        let graph: Option<Arc<dyn Graph>> = match graph {
            None => None,
            Some(GraphChoice::Own(graph)) => Some(graph),
            Some(GraphChoice::Neo4j(settings)) => {
                let neo4j = Neo4jGraph::new(settings);
                Some(Arc::new(
                    neo4j.map_err(|error| StartError::Neo4j(error.to_string()))?,
                ))
            }
        };
        let refused = |refused: Refused| StartError::Store(refused.detail);
        let (queue, store): (Option<Queue>, Arc<dyn Store>) = match choice {
            StoreChoice::Own(store) => (None, store),
            StoreChoice::Folder(folder) => {
                let store = open_store(&folder, wall).await.map_err(refused)?;
                (Some(Queue::Embedded(Arc::clone(&store))), store)
            }
            StoreChoice::Redis(settings) => {
                let store = RedisStore::new(settings);
                let store = store.map_err(|bad| StartError::Store(format!("redis: {bad}")))?;
                let queue = Queue::Redis(Arc::new(store));
                if let Some(detail) = queue.check().await.map_err(refused)? {
                    tracing::warn!(
                        "the store is not there yet, work begins when it comes: {detail}"
                    );
                }
                let store = queue.store();
                (Some(queue), store)
            }
        };
        let graph = match (graph, &queue) {
            (Some(graph), _) => graph,
            (None, Some(Queue::Embedded(store))) => Arc::clone(store) as Arc<dyn Graph>,
            (None, _) => unreachable!("refused above: only a folder holds a graph"),
        };
        tracing::info!(
            worker = %settings.worker, seed = settings.seed, users = settings.sources[0].enroll.len(),
            "started"
        );
        let ports = Ports {
            store,
            source,
            graph,
        };
        let handle = start_by(driving, settings, ports, |_| {}, None, names);
        Ok(Kalends { handle, queue })
    }

    fn settings(self) -> Result<NodeSettings, StartError> {
        // The unique part and its hyphen take 17 bytes of a name's 320.
        let is_name = ScheduleName::new(&self.name).is_ok() && self.name.len() <= 256;
        if !is_name {
            return Err(StartError::OutOfBounds(
                "process_name: write 1 to 256 bytes without control characters".to_owned(),
            ));
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut settings = NodeSettings::new(worker_id(&self.name), seed);
        let source = self.source_name;
        settings.schedules = match self.schedules {
            // The source may have been named after the schedules.
            Some(schedules) => schedules
                .into_iter()
                .map(|(name, definition)| {
                    let source = source.clone();
                    (
                        name,
                        ScheduleDefinition {
                            source,
                            ..definition
                        },
                    )
                })
                .collect(),
            None => vec![default_schedule(source.clone())],
        };
        settings.sources.push(SourceDefinition {
            name: source,
            settings: self.source_settings,
            sync: self.sync,
            enroll: self.users,
        });
        (self.change)(&mut settings);
        check(&settings)?;
        Ok(settings)
    }
}

fn default_schedule(source: SourceName) -> (ScheduleName, ScheduleDefinition) {
    let name = ScheduleName::new(SCHEDULE_NAME_DEFAULT).expect("it is a name");
    let definition = ScheduleDefinition {
        source,
        cron: CronExpression::parse(CRON_DEFAULT).expect("it is an expression"),
        time_zone: TimeZone::default(),
        catch_up: CatchUp::default(),
    };
    (name, definition)
}

/// What the node or the store would refuse, or panic at.
fn check(settings: &NodeSettings) -> Result<(), StartError> {
    let out = |detail: String| Err(StartError::OutOfBounds(detail));
    if settings.sources.len() != 1 {
        return out(
            "node_settings: one source, no more; start a second Kalends for another one".to_owned(),
        );
    }
    if !(1..=CONCURRENCY_MAX).contains(&u64::from(settings.concurrency)) {
        return out(format!(
            "concurrency: is {}; write 1 to {CONCURRENCY_MAX}",
            settings.concurrency
        ));
    }
    if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&settings.lease_ms) {
        return out(format!(
            "lease_ms: is {}; write {LEASE_MS_MIN} to {LEASE_MS_MAX} milliseconds",
            settings.lease_ms
        ));
    }
    // As the store will, which would refuse it for as long as the node asks.
    let SourceDefinition { name, settings, .. } = &settings.sources[0];
    let (source, settings) = (name.clone(), settings.clone());
    let define = Command::DefineSource { source, settings };
    match define.check() {
        Err(refusal) => out(format!("source_settings: {refusal}")),
        Ok(()) => Ok(()),
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parts need not be printable, and settings may hold secrets.
        formatter
            .debug_struct("Builder")
            .field("source_name", &self.source_name)
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}
