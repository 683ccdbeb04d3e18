//! A real driver is recorded into real files, and each of them replays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::failure::Failure;
use kalends_core::google::page::{EventsPage, FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::node::io::Notice;
use kalends_core::node::settings::SourceDefinition;
use kalends_core::port::Source;
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;
use kalends_sim::incident::{End, Line, Reader, Replay};

use super::*;
use crate::clock::SystemClock;
use crate::driver::Ports;
use crate::handle::{Why, start_recorded};

struct Google;

#[async_trait]
impl Source for Google {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        if request.user().as_str().contains('7') {
            return Err(Failure::transient("planted secret: ya29.x"));
        }
        Ok(FetchReply::Events(EventsPage {
            summary: Some("planted title".to_owned()),
            time_zone: Some("Europe/Oslo".to_owned()),
            access_role: Some("owner".to_owned()),
            events: Vec::new(),
            unreadable: Vec::new(),
            end: PageEnd::Done {
                sync_token: Some("planted token".to_owned()),
            },
        }))
    }
}

fn settings(users: usize) -> NodeSettings {
    let mut settings = NodeSettings::new(WorkerId::new("test").unwrap(), 1);
    settings.jitter = kalends_core::policy::jitter::Jitter { max_ms: 0 };
    settings.spread = kalends_core::policy::spread::Spread::Stagger { step_ms: 1 };
    settings.concurrency = 50;
    let user = |index| UserId::new(&format!("user-{index}@example.com")).unwrap();
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings {
            jobs: None,
            ..SourceSettings::default()
        },
        sync: SyncSettings::default(),
        enroll: (0..users).map(|index| (user(index), 1)).collect(),
    });
    settings
}

/// Runs a recorded node until all users but those with a 7 are synced, and stops it.
async fn run(path: &Path, users: usize, bounds: Bounds) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path(), Arc::new(SystemClock)).unwrap());
    let ports = Ports {
        store: store.clone(),
        source: Arc::new(Google),
        graph: store.clone(),
    };
    let settings = settings(users);
    let (recorder, journal) = Recorder::start(path, &settings, bounds).unwrap();
    let good = (0..users)
        .filter(|index| !index.to_string().contains('7'))
        .count();
    let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
    let observe = move |notice: &Notice| {
        if matches!(notice, Notice::JobDone { .. }) {
            let _ = sender.send(());
        }
    };
    let handle = start_recorded(settings, ports, observe, Some(recorder));
    for _ in 0..good {
        let synced = tokio::time::timeout(Duration::from_secs(60), done.recv()).await;
        assert!(synced.unwrap().is_some());
    }
    assert_eq!(handle.shutdown(5_000).await, Why::Asked);
    journal.closed().await;
    store.close().await;
}

fn replay(path: &Path) -> (u64, Option<End>) {
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    for needle in ["planted", "@", "ya29", "Oslo"] {
        assert!(!text.contains(needle), "{needle} in {}", path.display());
    }
    let mut reader = Reader::new();
    let mut replay = None;
    let mut turns = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match reader.line(line.strip_suffix(b"\n").unwrap()).unwrap() {
            Line::Head(head) => replay = Some(Replay::new(*head)),
            Line::Step(step) => {
                replay.as_mut().unwrap().step(step, &mut |_| {}).unwrap();
                turns += 1;
            }
            Line::End(end) => return (turns, Some(end)),
        }
    }
    (turns, None)
}

fn older(path: &Path, place: u32) -> PathBuf {
    PathBuf::from(format!("{}.{place}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_run_is_recorded_rotated_and_bounded_and_each_file_replays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let bounds = Bounds {
        file_bytes_max: 8_000,
        files_max: 4,
    };
    run(&path, 100, bounds).await;
    assert_eq!(replay(&path).1, Some(End::Finished));
    for place in 1..4 {
        let (turns, end) = replay(&older(&path, place));
        assert!(turns > 0);
        assert_eq!(end, Some(End::Rotated));
    }
    assert!(!older(&path, 4).exists(), "the oldest go");
    // A restart keeps what is there, and names stay the same.
    let key = std::fs::read_to_string(key_path(&path)).unwrap();
    let before = std::fs::read(&path).unwrap();
    run(&path, 3, Bounds::default()).await;
    assert_eq!(std::fs::read(older(&path, 1)).unwrap(), before);
    assert_eq!(
        std::fs::read_to_string(key_path(&older(&path, 1))).unwrap(),
        key
    );
    let ada = key_beside(&path)
        .unwrap()
        .pseudonym("user-1@example.com")
        .to_string();
    assert!(
        String::from_utf8(std::fs::read(&path).unwrap())
            .unwrap()
            .contains(&ada)
    );
    assert!(
        !String::from_utf8(std::fs::read(&path).unwrap())
            .unwrap()
            .contains(key.trim())
    );
}

#[test]
fn what_is_no_journal_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let start = |path: &Path| Recorder::start(path, &settings(1), Bounds::default());
    let path = folder.path().join("kalends.toml");
    std::fs::write(&path, "[worker]\nname = \"somebody's\"\n").unwrap();
    let refused = start(&path).unwrap_err();
    assert!(
        refused.detail.contains("is no journal"),
        "{}",
        refused.detail
    );
    assert!(std::fs::read_to_string(&path).unwrap().contains("somebody"));
    let refused = start(folder.path()).unwrap_err();
    assert!(refused.detail.contains("is a folder"), "{}", refused.detail);
    let refused = start(&folder.path().join("nowhere/journal")).unwrap_err();
    assert!(
        refused.detail.contains("cannot be written"),
        "{}",
        refused.detail
    );
}

#[test]
fn a_writer_that_cannot_keep_up_ends_the_journal_with_a_gap_and_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let settings = settings(1);
    let now = Timestamp::from_ms(1_793_577_600_000);
    let (mut recorder, journal) = Recorder::start(&path, &settings, Bounds::default()).unwrap();
    let mut node = Node::new(now, settings);
    // As if a great page waited.
    recorder
        .waiting_bytes
        .fetch_add(WAITING_BYTES_MAX + 1, Ordering::Relaxed);
    let turn = |recorder: &mut Recorder, node: &mut Node| {
        loop {
            let output = node.poll_output();
            recorder.said(&output);
            if matches!(output, Output::Timeout { .. }) {
                return recorder.turn_ends(now);
            }
        }
    };
    turn(&mut recorder, &mut node);
    assert!(recorder.turns.is_none());
    for _ in 0..10 {
        recorder.told(&node, None);
        node.handle_timeout(now);
        turn(&mut recorder, &mut node);
    }
    assert!(recorder.told.is_empty() && recorder.said.is_empty());
    drop(recorder);
    journal.0.join().unwrap();
    assert_eq!(replay(&path), (0, Some(End::Gap)));
}
