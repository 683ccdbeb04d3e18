//! The handle tells what the node is at, and neither an absent store nor a panic reaches the host.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::failure::Failure;
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::node::settings::SourceDefinition;
use kalends_core::port::{Source, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;

use super::*;

/// A Google that never answers well.
struct NoGoogle;

#[async_trait]
impl Source for NoGoogle {
    async fn fetch(&self, _: FetchRequest) -> Result<FetchReply, Failure> {
        Err(Failure::transient("there is no Google here"))
    }
}

/// A store that can be taken away.
struct Switched {
    store: Arc<EmbeddedStore>,
    is_away: AtomicBool,
}

#[async_trait]
impl Store for Switched {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreUnavailable {
                detail: "the cable is out".to_owned(),
            });
        }
        self.store.apply(command).await
    }

    async fn wait_for_wake(&self) {
        self.store.wait_for_wake().await;
    }
}

fn settings(users: &[&str]) -> NodeSettings {
    let mut settings = NodeSettings::new(WorkerId::new("test").unwrap(), 1);
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings::default(),
        sync: SyncSettings::default(),
        enroll: users.iter().map(|user| (user_id(user), 1)).collect(),
    });
    settings
}

fn user_id(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn switched(is_away: bool) -> (tempfile::TempDir, Arc<Switched>, Ports) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path(), Arc::new(SystemClock)).unwrap());
    let switched = Arc::new(Switched {
        store: store.clone(),
        is_away: AtomicBool::new(is_away),
    });
    let ports = Ports {
        store: switched.clone(),
        source: Arc::new(NoGoogle),
        graph: store,
    };
    (folder, switched, ports)
}

async fn wait_for(handle: &Handle, wanted: impl FnMut(&Readiness) -> bool) -> Readiness {
    let mut changes = handle.readiness_changes();
    changes.wait_for(wanted).await.unwrap().clone()
}

#[tokio::test]
async fn an_absent_store_is_told_and_work_begins_when_it_comes() {
    let (_folder, store, ports) = switched(true);
    let handle = start(settings(&["ada"]), ports);
    let away = wait_for(&handle, |state| {
        matches!(state, Readiness::StoreAway { .. })
    })
    .await;
    let Readiness::StoreAway { since, detail, .. } = away else {
        panic!("another state");
    };
    assert_eq!(detail, "the cable is out");
    // Further attempts keep the beginning and move the next one.
    let later = wait_for(&handle, |state| {
        matches!(state, Readiness::StoreAway { retry_at, .. } if retry_at.since_ms(since) > 500)
    })
    .await;
    assert!(matches!(later, Readiness::StoreAway { since: same, .. } if same == since));
    let google = SourceName::google_calendar;
    let not_now = handle.enqueue_sync(google(), user_id("ada")).await;
    assert!(matches!(not_now, Err(NotEnqueued::StoreAway(_))));

    store.is_away.store(false, Ordering::SeqCst);
    wait_for(&handle, |state| *state == Readiness::Ready).await;
    assert_eq!(handle.enqueue_sync(google(), user_id("ada")).await, Ok(()));
    assert_eq!(
        handle.enqueue_sync(google(), user_id("bob")).await,
        Err(NotEnqueued::UnknownUser)
    );

    store.is_away.store(true, Ordering::SeqCst);
    wait_for(&handle, |state| {
        matches!(state, Readiness::StoreAway { .. })
    })
    .await;
    store.is_away.store(false, Ordering::SeqCst);
    wait_for(&handle, |state| *state == Readiness::Ready).await;
    // The store has forgotten nothing, so nothing was told again.
    assert_eq!(*handle.boots().borrow(), 1);
    assert_eq!(handle.shutdown(5_000).await, Why::Asked);
    assert_eq!(handle.readiness(), Readiness::Stopped { why: Why::Asked });
}

#[tokio::test]
async fn a_store_that_is_away_does_not_hold_up_the_end() {
    let (_folder, _store, ports) = switched(true);
    let handle = start(settings(&[]), ports);
    wait_for(&handle, |state| {
        matches!(state, Readiness::StoreAway { .. })
    })
    .await;
    assert_eq!(handle.shutdown(60_000).await, Why::Asked);
}

#[tokio::test]
async fn a_panic_inside_is_told_and_the_host_goes_on() {
    let (_folder, _store, ports) = switched(false);
    let handle = start_observed(settings(&[]), ports, |_| panic!("a fault of the host's"));
    let Why::Fault(detail) = handle.stopped().await else {
        panic!("it was not asked");
    };
    assert!(detail.contains("a fault of the host's"), "{detail}");
    // Asking for the end of what has ended is answered at once.
    assert!(matches!(handle.shutdown(1).await, Why::Fault(_)));
}

#[tokio::test]
async fn an_abandoned_node_says_so() {
    let (_folder, _store, ports) = switched(false);
    let handle = start(settings(&[]), ports);
    handle.abandon();
    assert_eq!(
        handle.stopped().await,
        Why::Fault("it was abandoned".to_owned())
    );
}

#[tokio::test]
async fn a_layout_that_is_as_it_was_is_no_news_to_the_node() {
    let (_folder, _store, ports) = switched(false);
    let settings = settings(&[]);
    let (spread, jitter) = (settings.spread, settings.jitter);
    let handle = start(settings, ports);
    let mut layouts = handle.layout.subscribe();
    handle.lay_out(spread, jitter);
    assert!(!layouts.has_changed().unwrap());
    let other = Jitter {
        max_ms: jitter.max_ms + 1,
    };
    handle.lay_out(spread, other);
    assert_eq!(*layouts.borrow_and_update(), Some((spread, other)));
    handle.lay_out(spread, other);
    assert!(!layouts.has_changed().unwrap());
    assert_eq!(handle.shutdown(5_000).await, Why::Asked);
}
