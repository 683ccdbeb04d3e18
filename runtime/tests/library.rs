//! Kalends inside another program: every part replaced by one of the host's own, the examples run, and a host's faults stay
//! where they are.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::prelude::*;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::google::page::{EventsPage, PageEnd};
use kalends_core::policy::{CatchUp, CronExpression, Jitter, TimeZone};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::HISTORY_KEEP_MAX;
use kalends_core::queue::command::{Reply, Stamped};
use kalends_core::queue::state::SourceSettings;
use kalends_core::rng::substream;
use tokio::sync::watch;

#[allow(dead_code)] // its main() is for people
#[path = "../examples/embed_in_axum.rs"]
mod embed_in_axum;
#[allow(dead_code)]
#[path = "../examples/own_graph.rs"]
mod own_graph;
#[allow(dead_code)]
#[path = "../examples/own_source.rs"]
mod own_source;

fn google() -> SourceName {
    SourceName::google_calendar()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn empty_page() -> FetchReply {
    FetchReply::Events(EventsPage {
        summary: None,
        time_zone: None,
        access_role: None,
        events: Vec::new(),
        unreadable: Vec::new(),
        end: PageEnd::Done {
            sync_token: Some("1".to_owned()),
        },
    })
}

/// A host's source that has a fault for one of its users.
#[derive(Default)]
struct Faulty {
    asked: AtomicU64,
}

#[async_trait]
impl Source for Faulty {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert_ne!(request.user().as_str(), "bob", "a fault of the host's");
        Ok(empty_page())
    }
}

/// A store that counts claims since the first job was enqueued.
struct Looking {
    store: EmbeddedStore,
    /// Held for a command at a time, so that it is known what came after what.
    is_enqueued: tokio::sync::Mutex<bool>,
    claims: watch::Sender<u64>,
}

#[async_trait]
impl Store for Looking {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        let mut is_enqueued = self.is_enqueued.lock().await;
        let is_claim = matches!(command, Command::Claim { .. });
        let is_enqueue = matches!(command, Command::Enqueue { .. });
        let answer = self.store.apply(command).await;
        *is_enqueued |= is_enqueue;
        if is_claim && *is_enqueued {
            self.claims.send_modify(|claims| *claims += 1);
        }
        answer
    }

    async fn wait_for_wake(&self) {
        self.store.wait_for_wake().await;
    }
}

fn builder(folder: &tempfile::TempDir) -> Builder {
    Kalends::builder()
        .folder(folder.path())
        .node_settings(|settings| settings.jitter = Jitter { max_ms: 0 })
}

async fn ready(handle: &Handle) {
    let mut changes = handle.readiness_changes();
    let wanted = |readiness: &Readiness| *readiness == Readiness::Ready;
    changes.wait_for(wanted).await.unwrap();
}

/// The next event of which `wanted` says something.
async fn next<T>(events: &mut Events, wanted: impl Fn(Notice) -> Option<T>) -> T {
    loop {
        let event = events.next().await.expect("it goes on");
        if let Event::Happened(notice) = event
            && let Some(found) = wanted(notice)
        {
            return found;
        }
    }
}

async fn done(events: &mut Events, who: &str) {
    let key = JobKey::Sync {
        source: google(),
        user: user(who),
    };
    next(events, |notice| match notice {
        Notice::JobDone { key: done, .. } if done == key => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_a_hosts_source_fails_that_job_alone() {
    let folder = tempfile::tempdir().unwrap();
    let kalends = builder(&folder).source(Arc::new(Faulty::default()));
    let kalends = kalends.no_schedule().start().await.unwrap();
    let handle = kalends.handle();
    let mut events = handle.events();
    ready(&handle).await;
    handle.enroll(google(), user("bob"), 0).await.unwrap();
    let failure = next(&mut events, |notice| match notice {
        Notice::JobFailed { key, failure, .. } => {
            assert!(key.to_string().ends_with("bob"), "{key} failed");
            Some(failure)
        }
        _ => None,
    })
    .await;
    assert!(
        failure.detail.contains("a fault of the host's"),
        "{failure}"
    );
    // The others are synced as ever.
    for who in ["ada", "eve"] {
        handle.enroll(google(), user(who), 0).await.unwrap();
        done(&mut events, who).await;
    }
    assert_eq!(handle.readiness(), Readiness::Ready);
    let status = handle.status().await.unwrap();
    assert_eq!((status.stats.completed, status.stats.failed), (2, 1));
    assert_eq!(kalends.shutdown(5_000).await, Why::Asked);
    // The stream ends with the node.
    while events.next().await.is_some() {}
    assert!(handle.events().next().await.is_none());
}

#[tokio::test]
async fn a_handle_pauses_and_resumes_the_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Faulty::default());
    let store = EmbeddedStore::open(folder.path(), Arc::new(SystemClock)).unwrap();
    let store = Arc::new(Looking {
        claims: watch::Sender::new(0),
        is_enqueued: tokio::sync::Mutex::new(false),
        store,
    });
    let kalends = Kalends::builder()
        .store(store.clone())
        .graph(Arc::new(
            EmbeddedStore::open(&folder.path().join("graph"), Arc::new(SystemClock)).unwrap(),
        ))
        .node_settings(|settings| settings.jitter = Jitter { max_ms: 0 })
        .source(source.clone())
        .no_schedule();
    let kalends = kalends.start().await.unwrap();
    let handle = kalends.handle();
    let mut events = handle.events();
    ready(&handle).await;
    for reason in ["", "  ", &"long".repeat(51)] {
        let refused = handle.pause(None, reason).await;
        assert!(matches!(refused, Err(NotDone::Refused(_))), "{refused:?}");
    }
    handle.pause(Some(google()), "moving house").await.unwrap();
    handle.enroll(google(), user("ada"), 0).await.unwrap();
    // The node has asked for work since there is some.
    let mut claims = store.claims.subscribe();
    claims.wait_for(|claims| *claims > 0).await.unwrap();
    let status = handle.status().await.unwrap();
    assert_eq!((status.stats.active, status.stats.completed), (0, 0));
    let paused = &status.stats.sources[0].1.paused;
    assert!(format!("{paused:?}").contains("moving house"), "{paused:?}");
    assert_eq!(source.asked.load(Ordering::SeqCst), 0);
    handle.resume(Some(google())).await.unwrap();
    done(&mut events, "ada").await;
    handle.unenroll(google(), user("ada")).await.unwrap();
    let gone = handle.enqueue_sync(google(), user("ada")).await;
    assert_eq!(gone, Err(NotEnqueued::UnknownUser));
    let unknown = handle.enroll(SourceName::new("other").unwrap(), user("ada"), 0);
    assert!(matches!(unknown.await, Err(NotDone::Refused(_))));
    kalends.shutdown(5_000).await;
}

/// A clock that a test moves.
#[derive(Default)]
struct ByHand(AtomicI64);

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// A store, a graph, a source, a clock and a generator of the host's own: all time is the clock's, so a tick comes when the
/// test says that it is time.
#[tokio::test]
async fn every_part_can_be_the_hosts_own() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ByHand(AtomicI64::new(1_000_000_000_000)));
    let store = Arc::new(EmbeddedStore::open(folder.path(), clock.clone()).unwrap());
    let kalends = Kalends::builder()
        .store(store.clone())
        .graph(store.clone())
        .source(Arc::new(Faulty::default()))
        .clock(clock.clone())
        .rng(&mut substream(7, "a host's"))
        .process_name("host")
        .schedule(
            ScheduleName::new("hourly").unwrap(),
            CronExpression::parse("0 * * * *").unwrap(),
            TimeZone::default(),
            CatchUp::default(),
        )
        .user(user("ada"), grant_hash("a token"))
        .node_settings(|settings| settings.jitter = Jitter { max_ms: 0 })
        .start()
        .await
        .unwrap();
    let handle = kalends.handle();
    let mut events = handle.events();
    ready(&handle).await;
    done(&mut events, "ada").await;
    let before = handle.status().await.unwrap();
    assert_eq!(before.now, clock.now());
    assert_eq!(before.schedules[0].1.fired, 0);
    let next_tick = before.next_tick(&before.schedules[0].1).unwrap();
    clock.0.store(next_tick.as_ms(), Ordering::SeqCst);
    let fired_at = next(&mut events, |notice| match notice {
        Notice::TickFired { at, .. } => Some(at),
        _ => None,
    })
    .await;
    assert_eq!(fired_at, next_tick);
    done(&mut events, "ada").await;
    assert_eq!(kalends.shutdown(5_000).await, Why::Asked);
    // What the host opened, the host closes.
    assert!(store.apply(Command::Stats).await.is_ok());
    store.close().await;
}

#[tokio::test]
async fn what_cannot_begin_says_what_is_missing_and_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = || Arc::new(Faulty::default());
    let refused = [
        Kalends::builder().folder(folder.path()),
        Kalends::builder().source(source()),
        Kalends::builder().source(source()).store(Arc::new(
            EmbeddedStore::open(tempfile::tempdir().unwrap().path(), Arc::new(SystemClock))
                .unwrap(),
        )),
        builder(&folder).source(source()).process_name(""),
        builder(&folder)
            .source(source())
            .job_limit(Some(kalends_core::policy::Limit {
                count: 0,
                window_ms: 60_000,
            })),
        builder(&folder)
            .source(source())
            .source_settings(SourceSettings {
                keep_completed: HISTORY_KEEP_MAX + 1,
                ..SourceSettings::default()
            }),
        builder(&folder)
            .source(source())
            .source_settings(SourceSettings {
                keep_failed: HISTORY_KEEP_MAX + 1,
                ..SourceSettings::default()
            }),
        builder(&folder)
            .source(source())
            .node_settings(|settings| settings.concurrency = 0),
        builder(&folder)
            .source(source())
            .node_settings(|settings| settings.lease_ms = 3),
        builder(&folder)
            .source(source())
            .node_settings(|settings| settings.sources.clear()),
    ];
    let said = [
        "google(...) or source(...)",
        "folder(...), redis(...) or store(...)",
        "neo4j(...) or graph(...)",
        "process_name",
        "jobs: ",
        "keep_completed is 100001",
        "keep_failed is 100001",
        "concurrency: is 0; write 1 to",
        "lease_ms: is 3; write 1000 to",
        "one source",
    ];
    for (builder, said) in refused.into_iter().zip(said) {
        let error = builder.start().await.unwrap_err().to_string();
        assert!(error.contains(said), "{error} does not say {said}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());

    // A folder that another one has is told, and free again after its end.
    let first = builder(&folder).source(source()).start().await.unwrap();
    let second = builder(&folder).source(source()).start().await;
    assert!(matches!(second, Err(StartError::Store(_))), "{second:?}");
    first.shutdown(5_000).await;
    let third = builder(&folder).source(source()).start().await.unwrap();
    third.shutdown(5_000).await;
}

// -- the examples --------------------------------------------------------------------------------------------------

#[test]
fn the_example_of_an_own_source_keeps_a_rota() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = runtime.block_on(own_source::run()).unwrap();
    let first = ["Ada is on duty", "Grace is on duty"];
    assert_eq!(seen[0], first);
    assert_eq!(seen[1], ["Edsger is on duty"]);
}

#[test]
fn the_example_of_an_own_graph_announces_every_event_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let changes = runtime.block_on(own_graph::run(20)).unwrap();
    let ids: std::collections::BTreeSet<_> = changes.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), changes.len(), "one is announced twice");
    assert!(changes.len() >= 20, "{} events", changes.len());
    assert!(changes.iter().all(|(_, title)| title.is_some()));
}

/// One request to the example, as its users would make it; the status and the body.
async fn curl(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn the_example_in_axum_connects_syncs_and_stops() {
    let (google_url, users) = embed_in_axum::emulated_google().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stop_asked = async {
        let _ = stopped.await;
    };
    let served = embed_in_axum::serve(listener, &google_url, folder.path(), stop_asked);
    let used = async {
        let path = format!("/calendars/{}", users[0].email);
        // Before the source is known to the store a connection is told to come again.
        while curl(&address, "POST", &path, &users[0].refresh_token)
            .await
            .0
            != 201
        {
            tokio::task::yield_now().await;
        }
        let completed = async |wanted: u64| loop {
            let (status, body) = curl(&address, "GET", "/calendars", "").await;
            assert_eq!(status, 200, "{body}");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            if body["completed_total"].as_u64().unwrap() >= wanted {
                return body;
            }
        };
        let body = completed(1).await;
        assert_eq!(body["sources"][0]["users"], 1);
        let (status, _) = curl(&address, "POST", &format!("{path}/sync"), "").await;
        assert_eq!(status, 202);
        completed(2).await;
        let (status, _) = curl(&address, "DELETE", &path, "").await;
        assert_eq!(status, 200);
        let (status, _) = curl(&address, "POST", &format!("{path}/sync"), "").await;
        assert_eq!(status, 409);
        stop.send(()).unwrap();
    };
    let (served, ()) = tokio::join!(served, used);
    served.unwrap();
}
