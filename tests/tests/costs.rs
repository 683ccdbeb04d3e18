//! What a sync costs, counted at the seams of the real driver, with real HTTP behind them: requests to Google, store
//! commands, graph writes and statements.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kalends::clock::{SteadyClock, SystemClock};
use kalends::config::{Config, GoogleAuth, UserConfig};
use kalends::driver::{Effects, Ports, drive};
use kalends::emulate::face::FaceOptions;
use kalends::wiring;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_adapters::neo4j::{Databases, Neo4jGraph};
use kalends_adapters::secret::Secret;
use kalends_core::failure::Failure;
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::{SourceName, UserId};
use kalends_core::node::Node;
use kalends_core::node::io::Notice;
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::{Graph, Source, Store, StoreUnavailable};
use kalends_core::queue::command::{Command, NewJob, Priority, Reply, Stamped};
use kalends_core::queue::state::JobKey;
use kalends_core::time::Clock as _;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::PATIENCE;
use tokio::sync::watch;

/// One effect, when it had ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A store command, by name.
    Command(String),
    /// A request to Google and the events of its answer.
    Page { events: usize },
    /// A graph write and the statements (on Neo4j) that it took.
    Write { upserts: usize, statements: u64 },
}

type Log = Arc<Mutex<Vec<Seen>>>;

struct CountedStore(Arc<EmbeddedStore>, Log);

#[async_trait]
impl Store for CountedStore {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        let debugged = format!("{command:?}");
        let name = debugged.split([' ', '{', '(']).next().unwrap();
        let reply = self.0.apply(command).await;
        // A claim that gives nothing is no part of any sync.
        let empty = matches!(
            &reply,
            Ok(Stamped { value: Reply::Claimed { leases, .. }, .. }) if leases.is_empty()
        );
        if !empty {
            self.1.lock().unwrap().push(Seen::Command(name.to_owned()));
        }
        reply
    }

    async fn wait_for_wake(&self) {
        self.0.wait_for_wake().await;
    }
}

struct CountedSource<S>(S, Log);

#[async_trait]
impl<S: Source> Source for CountedSource<S> {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        let reply = self.0.fetch(request).await;
        let events = match &reply {
            Ok(FetchReply::Events(page)) => page.events.len(),
            _ => 0,
        };
        self.1.lock().unwrap().push(Seen::Page { events });
        reply
    }
}

/// A graph, and how it counts its statements.
struct CountedGraph<G>(Arc<G>, fn(&G) -> u64, Log);

#[async_trait]
impl<G: Graph> Graph for CountedGraph<G> {
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure> {
        let upserts = match &write {
            GraphWrite::Apply { upserts, .. } => upserts.len(),
            _ => 0,
        };
        let before = (self.1)(&self.0);
        let reply = self.0.write(write).await;
        let statements = (self.1)(&self.0) - before;
        self.2.lock().unwrap().push(Seen::Write {
            upserts,
            statements,
        });
        reply
    }

    async fn snapshot(&self, user: &UserId) -> Result<GraphSnapshot, Failure> {
        self.0.snapshot(user).await
    }
}

/// The default configuration, without limits and without waits, one sync at a time.
fn config(google: &GoogleServer, data_dir: &Path) -> Config {
    let users = google
        .users()
        .into_iter()
        .map(|access| UserConfig {
            id: UserId::new(&access.email).unwrap(),
            refresh_token: Some(Secret::new(access.refresh_token)),
            graph_database: None,
        })
        .collect();
    let auth = GoogleAuth::RefreshToken {
        client_id: "id".to_owned(),
        client_secret: Secret::new("secret"),
    };
    let mut config = Config::with_defaults(auth, users, data_dir.to_owned());
    config.google.api_base_url = format!("{}/calendar/v3", google.url);
    config.google.token_url = format!("{}/token", google.url);
    config.limits.jobs = None;
    config.limits.requests = None;
    config.limits.requests_per_user = None;
    config.worker.concurrency = 1;
    config.schedule.jitter = Jitter { max_ms: 0 };
    config.schedule.spread = Spread::Stagger { step_ms: 0 };
    config
}

/// The parts of one process, all counted.
struct Counted {
    config: Config,
    store: Arc<EmbeddedStore>,
    graph: Arc<dyn Graph>,
    log: Log,
}

impl Counted {
    async fn embedded(google: &GoogleServer, data_dir: &Path) -> Self {
        let config = config(google, data_dir);
        let store = wiring::store(data_dir, Arc::new(SystemClock))
            .await
            .unwrap();
        let log = Log::default();
        let graph = Arc::new(CountedGraph(store.clone(), |_| 0, log.clone()));
        Counted {
            config,
            store,
            graph,
            log,
        }
    }

    async fn neo4j(google: &GoogleServer, data_dir: &Path, graph: Neo4jGraph) -> Self {
        let mut counted = Counted::embedded(google, data_dir).await;
        let log = counted.log.clone();
        counted.graph = Arc::new(CountedGraph(
            Arc::new(graph),
            Neo4jGraph::statements_sent,
            log,
        ));
        counted
    }

    /// Runs a process until so many syncs are done, and gives what it did.
    async fn run(&self, syncs: usize) -> Vec<Seen> {
        self.log.lock().unwrap().clear();
        let source = wiring::google(&self.config, Arc::new(SystemClock)).unwrap();
        let ports = Ports {
            store: Arc::new(CountedStore(self.store.clone(), self.log.clone())),
            source: Arc::new(CountedSource(source, self.log.clone())),
            graph: self.graph.clone(),
        };
        let clock = SteadyClock::new(SystemClock.now(), 1);
        let node = Node::new(clock.now(), wiring::node_settings(&self.config, 1));
        let (stop, stopped) = watch::channel(None);
        let mut done = 0;
        let observe = move |_: &Node, notice: &Notice| match notice {
            Notice::JobDone {
                key: JobKey::Sync { .. },
                ..
            } => {
                done += 1;
                if done == syncs {
                    stop.send_replace(Some(clock.now().plus_ms(60_000)));
                }
            }
            Notice::JobFailed { .. } | Notice::JobRetried { .. } => panic!("{notice:?}"),
            _ => {}
        };
        let effects = Arc::new(Effects::default());
        let driven = drive(node, ports, clock, stopped, effects, observe);
        tokio::time::timeout(PATIENCE, driven).await.unwrap();
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// Asks for one more sync of everybody.
    async fn again(&self) {
        let run_at = SystemClock.now();
        let jobs = self.config.users.iter().map(|user| NewJob {
            user: user.id.clone(),
            run_at,
            nominal_at: None,
            priority: Priority::Now,
        });
        let command = Command::Enqueue {
            source: SourceName::google_calendar(),
            jobs: jobs.collect(),
            checkpoint: None,
        };
        let reply = self.store.apply(command).await.unwrap();
        assert!(!matches!(reply.value, Reply::Refused { .. }), "{reply:?}");
    }
}

/// What came after the first claim that gave a job.
fn of_the_sync(seen: &[Seen]) -> &[Seen] {
    let claim = Seen::Command("Claim".to_owned());
    let begin = seen.iter().position(|seen| *seen == claim).unwrap();
    &seen[begin..]
}

fn commands(seen: &[Seen]) -> Vec<&str> {
    let names = seen.iter().filter_map(|seen| match seen {
        Seen::Command(name) => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

fn count(seen: &[Seen], what: fn(&Seen) -> bool) -> usize {
    seen.iter().filter(|seen| what(seen)).count()
}

#[tokio::test]
async fn a_sync_without_changes_costs_one_request_and_no_write() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 600);
    let counted = Counted::embedded(&google, folder.path()).await;
    let first = counted.run(1).await;
    assert!(count(&first, |seen| matches!(seen, Seen::Page { events: 250 })) == 2);

    counted.again().await;
    let requests_before = google.pages_asked();
    let commits_before = counted.store.commits();
    let seen = counted.run(1).await;
    let sync = of_the_sync(&seen);
    assert_eq!(google.pages_asked() - requests_before, 1);
    assert_eq!(count(sync, |seen| matches!(seen, Seen::Page { .. })), 1);
    assert_eq!(
        count(sync, |seen| matches!(seen, Seen::Write { .. })),
        0,
        "{sync:?}"
    );
    let commands = commands(sync);
    assert_eq!(commands.first(), Some(&"Claim"), "{commands:?}");
    assert_eq!(commands.last(), Some(&"Complete"), "{commands:?}");
    assert!(commands.len() <= 3, "{commands:?}");
    // Some commits are the new process's own, for what it defines.
    let commits = counted.store.commits() - commits_before;
    assert!(commits <= 6, "{commits} commits for {seen:?}");
    counted.store.close().await;
}

/// The pages of 250 events in a log, each with what was written until the next page: writes, statements and events.
fn full_pages(seen: &[Seen]) -> Vec<(usize, u64, usize)> {
    let mut pages: Vec<Option<(usize, u64, usize)>> = Vec::new();
    for seen in seen {
        match seen {
            Seen::Page { events } => pages.push((*events == 250).then_some((0, 0, 0))),
            Seen::Write {
                upserts,
                statements,
            } => {
                if let Some(Some(page)) = pages.last_mut() {
                    page.0 += 1;
                    page.1 += statements;
                    page.2 += upserts;
                }
            }
            Seen::Command(_) => {}
        }
    }
    pages.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_page_of_250_events_is_one_write_on_the_embedded_graph() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(2, 1, 1_100);
    let counted = Counted::embedded(&google, folder.path()).await;
    let pages = full_pages(&counted.run(1).await);
    assert_eq!(pages, [(1, 0, 250); 4]);
    counted.store.close().await;
    google.assert_synced(folder.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_250_events_is_two_statements_at_the_most_on_neo4j() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(3, 2, 1_100);
    let server = Neo4jServer::start(&["neo4j"], FaceOptions::default()).await;
    let graph = server.client("kalends", Databases::Shared("neo4j".to_owned()));
    let counted = Counted::neo4j(&google, folder.path(), graph).await;
    let pages = full_pages(&counted.run(2).await);
    assert_eq!(pages.len(), 8);
    // The very first write of a process also ensures the schema, once.
    let (first, others) = pages.split_first().unwrap();
    assert_eq!(first.2, 250);
    for (writes, statements, upserts) in others {
        assert_eq!((*writes, *upserts), (1, 250));
        assert!((1..=2).contains(statements), "{statements} statements");
    }
    counted.store.close().await;
}
