//! What was read again is said to the store once more when the store was emptied, as the node only knows its beginning.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kalends::accounts::Register;
use kalends::clock::SystemClock;
use kalends::config::{Config, Request, load};
use kalends::handle::Readiness;
use kalends::logging::LevelControl;
use kalends::reload::{InForce, NotReloaded, Reloader};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::port::Store as _;
use kalends_core::queue::command::{Command, Reply};
use tokio::sync::watch;

fn write(folder: &Path, jobs: &str, name: &str) {
    let toml = format!(
        "[google]\nclient_id = \"id\"\nclient_secret = \"secret\"\n[limits]\njobs = {jobs}\n[schedule]\nname = \"{name}\"\n\
         [[users]]\nid = \"ada\"\nrefresh_token = \"token\"\n"
    );
    std::fs::write(folder.join("kalends.toml"), toml).unwrap();
}

fn request(folder: &Path) -> Request {
    Request {
        file: Some("kalends.toml".to_owned()),
        folder: folder.to_owned(),
        ..Request::default()
    }
}

async fn define(store: &EmbeddedStore, config: &Config) {
    for command in [
        Command::DefineSource {
            source: config.schedule.definition.source.clone(),
            settings: config.source_settings(),
        },
        Command::DefineSchedule {
            schedule: config.schedule.name.clone(),
            definition: config.schedule.definition.clone(),
        },
    ] {
        store.apply(command).await.unwrap();
    }
}

async fn jobs(store: &EmbeddedStore) -> Option<u32> {
    match store.apply(Command::Stats).await.unwrap().value {
        Reply::Stats { stats } => stats.sources[0].1.settings.jobs.map(|limit| limit.count),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_read_again_outlives_an_emptied_store() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "5", "first");
    let config = load(&request(folder.path()), &BTreeMap::new())
        .unwrap()
        .config;
    let store = EmbeddedStore::open(&folder.path().join("store"), Arc::new(SystemClock));
    let store = Arc::new(store.unwrap());
    let reloader = Arc::new(Reloader::new(
        request(folder.path()),
        BTreeMap::new(),
        InForce {
            config: config.clone(),
            store: store.clone(),
            register: Register::open(&config).unwrap(),
            level: LevelControl::none(),
            handle: None,
        },
    ));
    let (readiness, changes) = watch::channel(Readiness::Starting);
    let keeping = Arc::clone(&reloader);
    let keeping = tokio::spawn(async move { keeping.keep_defined(changes).await });

    // The node begins, and nothing was read again: what an operator sets then is left alone.
    define(&store, &config).await;
    readiness.send_replace(Readiness::Ready);
    assert_eq!(jobs(&store).await, Some(5));

    write(folder.path(), "6", "second");
    let reloaded = reloader.reload().await.unwrap();
    assert_eq!(reloaded.applied, ["limits", "schedule"]);
    assert!(
        reloaded
            .warnings
            .iter()
            .any(|warning| warning.contains("first")),
        "{reloaded:?}"
    );
    assert_eq!(jobs(&store).await, Some(6));

    // The node finds its store emptied and says what it knows, which is the beginning.
    define(&store, &config).await;
    assert_eq!(jobs(&store).await, Some(5));
    readiness.send_replace(Readiness::Starting);
    tokio::task::yield_now().await;
    readiness.send_replace(Readiness::Ready);
    while jobs(&store).await != Some(6) {
        tokio::task::yield_now().await;
    }

    // A store that does not answer: told, and done when it is asked again.
    store.close().await;
    write(folder.path(), "7", "second");
    let away = reloader.reload().await;
    assert!(matches!(away, Err(NotReloaded::StoreAway(_))), "{away:?}");
    keeping.abort();
}
