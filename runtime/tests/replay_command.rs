//! `kalends replay`, as it is typed: a verdict, a timeline, and an exit code that tells good from bad.
#![allow(clippy::unwrap_used)] // a test ends at the first thing that goes wrong

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::driver::Ports;
use kalends::handle::{Why, start_recorded};
use kalends::record::{Bounds, Recorder};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::failure::Failure;
use kalends_core::google::page::{EventsPage, FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::node::io::Notice;
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::jitter::Jitter;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::port::Source;
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;

struct Google;

#[async_trait]
impl Source for Google {
    async fn fetch(&self, _: FetchRequest) -> Result<FetchReply, Failure> {
        Ok(FetchReply::Events(EventsPage {
            summary: None,
            time_zone: None,
            access_role: None,
            events: Vec::new(),
            unreadable: Vec::new(),
            end: PageEnd::Done {
                sync_token: Some("token".to_owned()),
            },
        }))
    }
}

async fn record(folder: &Path) -> PathBuf {
    let journal_path = folder.join("journal");
    let store = Arc::new(EmbeddedStore::open(&folder.join("data"), Arc::new(SystemClock)).unwrap());
    let mut settings = NodeSettings::new(WorkerId::new("test").unwrap(), 1);
    settings.jitter = Jitter { max_ms: 0 };
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings::default(),
        sync: SyncSettings::default(),
        enroll: vec![(UserId::new("ada@example.com").unwrap(), 1)],
    });
    settings.schedules.push((
        ScheduleName::new("calendar-sync").unwrap(),
        ScheduleDefinition {
            source: SourceName::google_calendar(),
            cron: "*/15 * * * *".parse().unwrap(),
            time_zone: "UTC".parse().unwrap(),
            catch_up: "once".parse().unwrap(),
        },
    ));
    let ports = Ports {
        store: store.clone(),
        source: Arc::new(Google),
        graph: store.clone(),
    };
    let (recorder, journal) = Recorder::start(&journal_path, &settings, Bounds::default()).unwrap();
    let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
    let observe = move |notice: &Notice| {
        if matches!(notice, Notice::JobDone { .. }) {
            let _ = sender.send(());
        }
    };
    let handle = start_recorded(settings, ports, observe, Some(recorder));
    tokio::time::timeout(Duration::from_secs(60), done.recv())
        .await
        .unwrap();
    // Not shut down: the node goes on in what is recorded, and can go on in a quiet world, too.
    handle.abandon();
    assert!(matches!(handle.stopped().await, Why::Fault(_)));
    journal.closed().await;
    store.close().await;
    journal_path
}

fn replay(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kalends"))
        .arg("replay")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("no signal");
    (code, text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_journal_is_told_line_by_line_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = record(folder.path()).await;
    let file = path.to_str().unwrap();

    let (code, all, _) = replay(&[file]);
    assert_eq!(code, 0, "{all}");
    assert!(all.contains("the same decisions as recorded"), "{all}");
    assert!(all.contains("the node ended without finishing"), "{all}");
    assert!(
        all.contains("wait until") && all.contains("jobs may be due then"),
        "{all}"
    );
    assert!(!all.contains("ada@example.com"));

    let (code, ada, _) = replay(&[file, "--user", "ada@example.com"]);
    assert_eq!(code, 0);
    assert!(
        ada.contains("begins, attempt 1") && ada.contains("is done after"),
        "{ada}"
    );
    assert!(ada.lines().count() < all.lines().count());
    let (_, nobody, _) = replay(&[file, "--user", "bob@example.com"]);
    assert_eq!(nobody.lines().count(), 2, "{nobody}");
    let token = ada.split("token ").nth(1).unwrap();
    let token: String = token.chars().take_while(char::is_ascii_digit).collect();
    let (_, job, _) = replay(&[file, "--job", &token]);
    assert!(
        job.contains("ask for all") && job.contains("complete"),
        "{job}"
    );
    let (_, schedule, _) = replay(&[file, "--job", "calendar-sync"]);
    assert!(
        schedule.contains("define schedule calendar-sync"),
        "{schedule}"
    );

    let (code, json, _) = replay(&[file, "--quiet", "--json", "--go-on", "1h"]);
    assert_eq!(code, 0);
    let verdict: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(verdict["verdict"], "same");
    assert!(verdict["assumed"].as_array().unwrap().len() >= 4);
    let (_, later, _) = replay(&[file, "--go-on", "1h"]);
    let (_, later) = later.split_once("from here on it is assumed").unwrap();
    assert_eq!(later.matches("> tick of calendar-sync at").count(), 4);
    assert!(later.contains("users laid out"), "{later}");

    // Without the key nobody is found by name.
    std::fs::remove_file(folder.path().join("journal.key")).unwrap();
    let (code, _, error) = replay(&[file, "--user", "ada@example.com"]);
    assert_eq!(code, 2);
    assert!(error.contains("journal.key"), "{error}");

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let (code, cut, _) = replay(&[file, "-q"]);
    assert_eq!(code, 0, "{cut}");
    assert!(cut.contains("the journal has no end"), "{cut}");
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    let (code, damaged, _) = replay(&[file, "-q"]);
    assert_eq!(code, 1, "{damaged}");
    assert!(damaged.contains("good only up to there"), "{damaged}");
    std::fs::write(&path, "[worker]\n").unwrap();
    let (code, _, error) = replay(&[file]);
    assert_eq!(code, 2);
    assert!(error.contains("no journal"), "{error}");
}
