//! What recording costs: the same syncs with and without, in turns, in the same run.
//!
//! A real driver over the real embedded store; Google answers at once from memory, so that nothing but Kalends's own work is
//! measured. Run it with `cargo bench -p kalends --bench record`. Of each kind the best round counts: whatever else
//! the machine does only makes a round slower. It ends with 1 if recording costs more than [`COST_MAX`].
#![allow(clippy::unwrap_used, missing_docs)] // a benchmark ends at the first thing that goes wrong

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::driver::Ports;
use kalends::handle::start_recorded;
use kalends::record::{Bounds, Recorder};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::failure::Failure;
use kalends_core::google::page::{FetchReply, read_events};
use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::node::io::Notice;
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::jitter::Jitter;
use kalends_core::policy::spread::Spread;
use kalends_core::port::{Source, Store};
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority};
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;

/// Users of a round: one first sync and two unchanged ones each.
const USERS: usize = 2_000;
/// Events of each user's first page.
const EVENTS: usize = 20;
/// Rounds of each kind.
const ROUNDS: usize = 5;
/// The part of throughput that recording may cost.
const COST_MAX: f64 = 0.05;

/// Answers as bytes, as Google gives them: reading them is part of the work.
struct Google {
    full: Vec<u8>,
    unchanged: Vec<u8>,
}

#[async_trait]
impl Source for Google {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        let body = match &request {
            FetchRequest::Events { query, .. } => match query.from {
                EventsFrom::Full { .. } => &self.full,
                EventsFrom::SyncToken(_) => &self.unchanged,
            },
            FetchRequest::Calendars { .. } => panic!("only primary calendars are synced"),
        };
        Ok(FetchReply::Events(read_events(body)?))
    }
}

fn google() -> Google {
    let event = |index: usize| {
        format!(
            r#"{{"id":"event{index}","etag":"\"35000000000{index:05}\"","status":"confirmed","summary":"Meeting {index}",
            "description":"An hour about one thing and another, with a link: https://example.com/{index}",
            "location":"Room {index}","created":"2026-03-01T09:00:00Z","updated":"2026-03-02T09:00:00Z","sequence":1,
            "start":{{"dateTime":"2026-11-02T09:00:00+01:00"}},"end":{{"dateTime":"2026-11-02T10:00:00+01:00"}},
            "attendees":[{{"email":"ada@example.com","responseStatus":"accepted"}},
            {{"email":"grace@example.com","responseStatus":"needsAction"}}]}}"#
        )
    };
    let events: Vec<String> = (0..EVENTS).map(event).collect();
    let page = |items: &str| {
        format!(
            r#"{{"summary":"Ada's days","timeZone":"Europe/Oslo","accessRole":"owner","items":[{items}],
            "nextSyncToken":"CPDAlvWDx70CEPDAlvWDx70CGAU="}}"#
        )
        .into_bytes()
    };
    Google {
        full: page(&events.join(",")),
        unchanged: page(""),
    }
}

fn users() -> Vec<UserId> {
    let user = |index| UserId::new(&format!("user-{index:05}@example.com")).unwrap();
    (0..USERS).map(user).collect()
}

/// The time of the first syncs, and of two unchanged ones of each user.
async fn round(journal: Option<&Path>) -> (Duration, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path(), Arc::new(SystemClock)).unwrap());
    let mut settings = NodeSettings::new(WorkerId::new("bench").unwrap(), 1);
    settings.jitter = Jitter { max_ms: 0 };
    settings.spread = Spread::Stagger { step_ms: 0 };
    settings.concurrency = 50;
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings {
            jobs: None,
            requests_project: None,
            requests_user: None,
            ..SourceSettings::default()
        },
        sync: SyncSettings::default(),
        enroll: users().into_iter().map(|user| (user, 1)).collect(),
    });
    let ports = Ports {
        store: store.clone(),
        source: Arc::new(google()),
        graph: store.clone(),
    };
    let recording =
        journal.map(|path| Recorder::start(path, &settings, Bounds::default()).unwrap());
    let (recorder, journal) = recording.unzip();
    let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
    let observe = move |notice: &Notice| {
        if matches!(notice, Notice::JobDone { .. }) {
            let _ = sender.send(());
        }
    };
    let begun = Instant::now();
    let handle = start_recorded(settings, ports, observe, recorder);
    for _ in 0..USERS {
        done.recv().await.unwrap();
    }
    let first = begun.elapsed();
    let begun = Instant::now();
    for _ in 0..2 {
        for users in users().chunks(BATCH_MAX) {
            let now = store.apply(Command::Stats).await.unwrap().now;
            let job = |user: &UserId| NewJob {
                user: user.clone(),
                run_at: now,
                nominal_at: Some(now),
                priority: Priority::Scheduled,
            };
            let enqueue = Command::Enqueue {
                source: SourceName::google_calendar(),
                jobs: users.iter().map(job).collect(),
                checkpoint: None,
            };
            store.apply(enqueue).await.unwrap();
        }
        for _ in 0..USERS {
            done.recv().await.unwrap();
        }
    }
    let unchanged = begun.elapsed();
    handle.shutdown(5_000).await;
    if let Some(journal) = journal {
        journal.closed().await;
    }
    store.close().await;
    (first, unchanged)
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let mut best = [[Duration::MAX; 2]; 2];
    for _ in 0..ROUNDS {
        for (which, journal) in [None, Some(journal.as_path())].into_iter().enumerate() {
            let (first, unchanged) = runtime.block_on(round(journal));
            best[which][0] = best[which][0].min(first);
            best[which][1] = best[which][1].min(unchanged);
        }
    }
    let mut good = true;
    for (kind, name, syncs) in [(0, "first syncs", USERS), (1, "unchanged syncs", 2 * USERS)] {
        let [without, with] = [best[0][kind], best[1][kind]].map(|time| time.as_secs_f64());
        let cost = 1.0 - without / with;
        println!(
            "{name:>16}: {:.0}/s without, {:.0}/s with a journal: {:.1} % of throughput",
            syncs as f64 / without,
            syncs as f64 / with,
            cost * 100.0
        );
        good &= cost <= COST_MAX;
    }
    let bytes: u64 = std::fs::metadata(&journal).map_or(0, |file| file.len());
    println!(
        "{:.0} bytes of journal a sync",
        bytes as f64 / (3 * USERS) as f64
    );
    if good {
        ExitCode::SUCCESS
    } else {
        println!("more than {:.0} %", COST_MAX * 100.0);
        ExitCode::FAILURE
    }
}
