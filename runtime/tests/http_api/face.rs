//! The face over a real store, with as much of a fleet in it as a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::handle::Readiness;
use kalends::metrics::Metrics;
use kalends::web::{Bounds, Rate, Web, WebSettings, bind, serve};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_adapters::secret::Secret;
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::policy::{CronExpression, Jitter, ScheduleDefinition, Spread};
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Lease, NewJob, Priority, Reply, Stamped};
use kalends_core::queue::state::SourceSettings;
use kalends_core::time::{Clock as _, Timestamp};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Answer, raw, request};

/// Planted as the token: no answer may hold it.
pub(crate) const TOKEN: &str = "planted-api-token-77ab12";

pub(crate) struct Face {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) readiness: watch::Sender<Readiness>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// A rate that no test reaches.
pub(crate) const UNHURRIED: Rate = Rate {
    burst: 1_000_000,
    a_second: 1_000_000,
};

/// Settings for tests, at `address`.
pub(crate) fn settings(address: SocketAddr) -> WebSettings {
    WebSettings {
        address,
        token: Some(Secret::new(TOKEN)),
        hosts: vec!["kalends.example.com".to_owned()],
        worker: WorkerId::new("test-1").unwrap(),
        source: SourceName::google_calendar(),
        spread: Spread::default(),
        jitter: Jitter { max_ms: 0 },
        seed: 1,
        reloader: None,
        requests: UNHURRIED,
        changes: UNHURRIED,
        bounds: WebSettings::BOUNDS,
        connections_per_address_max: None,
    }
}

/// A store whose cable is out.
struct Away;

#[async_trait]
impl Store for Away {
    async fn apply(&self, _: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        Err(StoreUnavailable {
            detail: "the cable is out".to_owned(),
        })
    }

    async fn wait_for_wake(&self) {
        std::future::pending().await
    }
}

/// A store that takes every question and never says a word.
pub(crate) struct Mute;

#[async_trait]
impl Store for Mute {
    async fn apply(&self, _: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        std::future::pending().await
    }

    async fn wait_for_wake(&self) {
        std::future::pending().await
    }
}

/// A face whose store does not answer; its address.
pub(crate) async fn start_away() -> (SocketAddr, JoinHandle<()>) {
    start_over(Arc::new(Away), WebSettings::BOUNDS).await
}

/// A face over a store that is no real one, within these bounds; its address.
pub(crate) async fn start_over(
    store: Arc<dyn Store>,
    bounds: Bounds,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_told, changes) = watch::channel(Readiness::Starting);
    let metrics = Arc::new(Metrics::new(SystemClock.now(), 5));
    let settings = WebSettings {
        bounds,
        ..settings(address)
    };
    let web = Web::new(settings, store, changes, metrics);
    (address, tokio::spawn(serve(listener, web)))
}

impl Face {
    /// On this machine, with a token, one source and one schedule.
    pub(crate) async fn start() -> Face {
        Face::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut WebSettings)) -> Face {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path(), Arc::new(SystemClock)).unwrap();
        let store = Arc::new(store);
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = settings(address);
        change(&mut settings);
        let (readiness, changes) = watch::channel(Readiness::Ready);
        let metrics = Arc::new(Metrics::new(SystemClock.now(), 5));
        let web = Web::new(settings, store.clone(), changes, metrics);
        let face = Face {
            address,
            store,
            readiness,
            server: tokio::spawn(serve(listener, web)),
            _folder: folder,
        };
        let source = SourceName::google_calendar();
        face.apply(Command::DefineSource {
            source: source.clone(),
            settings: SourceSettings {
                jobs: None,
                ..SourceSettings::default()
            },
        })
        .await;
        face.apply(Command::DefineSchedule {
            schedule: ScheduleName::new("quarter").unwrap(),
            definition: ScheduleDefinition {
                source,
                cron: CronExpression::parse("*/15 * * * *").unwrap(),
                time_zone: Default::default(),
                catch_up: Default::default(),
            },
        })
        .await;
        face
    }

    pub(crate) async fn apply(&self, command: Command) -> Reply {
        self.store.apply(command).await.unwrap().value
    }

    /// Enrolls users, due in a year.
    pub(crate) async fn enroll(&self, users: &[&str]) {
        self.apply(Command::Enroll {
            source: SourceName::google_calendar(),
            users: users
                .iter()
                .map(|user| UserId::new(user).unwrap())
                .collect(),
            due_at: SystemClock.now().plus_ms(365 * 24 * 3_600_000),
        })
        .await;
    }

    pub(crate) async fn enqueue(&self, user: &str, run_at: Timestamp) {
        self.apply(Command::Enqueue {
            source: SourceName::google_calendar(),
            jobs: vec![NewJob {
                user: UserId::new(user).unwrap(),
                run_at,
                nominal_at: None,
                priority: Priority::Scheduled,
            }],
            checkpoint: None,
        })
        .await;
    }

    /// Claims what waits.
    pub(crate) async fn claim(&self) -> Vec<Lease> {
        let reply = self
            .apply(Command::Claim {
                worker: WorkerId::new("test-1").unwrap(),
                slots: 100,
                fan_out_slots: 0,
                lease_ms: 60_000,
                held: Vec::new(),
            })
            .await;
        let Reply::Claimed { leases, .. } = reply else {
            panic!("{reply:?}");
        };
        leases
    }

    /// A user's sync that failed for good with this explanation.
    pub(crate) async fn fail(&self, user: &str, error: &str) {
        self.enqueue(user, Timestamp::EPOCH).await;
        for lease in self.claim().await {
            self.apply(Command::Fail {
                lease: lease.lease,
                error: error.to_owned(),
                next_due_at: None,
                park: None,
            })
            .await;
        }
    }

    /// One request under the right host name, without the token.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Answer {
        let host = format!("Host: {}", self.address);
        raw(self.address, &request(method, path, &[&host], b"")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }

    /// One request with the token and a body in JSON.
    pub(crate) async fn change(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.change_raw(method, path, body.to_string().as_bytes())
            .await
    }

    pub(crate) async fn change_raw(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let host = format!("Host: {}", self.address);
        let token = format!("Authorization: Bearer {TOKEN}");
        let headers = [&*host, &*token, "Content-Type: application/json"];
        raw(self.address, &request(method, path, &headers, body)).await
    }

    pub(crate) async fn status(&self) -> Value {
        self.get("/api/v1/status").await.expect(200).json()
    }
}

impl Drop for Face {
    fn drop(&mut self) {
        self.server.abort();
    }
}
