//! What recording costs: the same syncs with and without, in turns, in the same run.
//!
//! A real driver over the real embedded store. Google is asked twice over: by the real client over HTTP on this machine, as
//! every sync is in production, and from memory, where nothing is left but Kalends's own work on one store: the worst
//! case. Run it with `cargo bench -p kalends --bench record`. Of each kind the best round counts: whatever else the
//! machine does only makes a round slower.
//!
//! What a neighbour on the machine cannot spoil is CPU time: on a machine whose cores are all busy, throughput falls by the
//! part that recording adds to it, and otherwise by less. The bench ends with 1 if that is more than [`COST_MAX`] over HTTP.
#![allow(clippy::unwrap_used, missing_docs)] // a benchmark ends at the first thing that goes wrong

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::driver::Ports;
use kalends::emulate::face::{FaceOptions, serve};
use kalends::handle::start_recorded;
use kalends::record::{Bounds, Recorder};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_adapters::google::{GoogleAuth, GoogleCalendar, GoogleSettings, RefreshTokens};
use kalends_adapters::secret::Secret;
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
use kalends_core::time::Clock as _;
use kalends_sim::google::{GoogleEmulator, GoogleSettings as EmulatorSettings};

/// Users of a round: one first sync and two unchanged ones each.
const USERS: usize = 1_000;
/// Events of each user's first page.
const EVENTS: usize = 20;
/// Rounds of each kind.
const ROUNDS: usize = 6;
/// How long the recording thread may need to catch up.
const SETTLE: Duration = Duration::from_millis(100);
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
            other => panic!("only primary calendars are synced, and not {other:?}"),
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

/// An emulated Google behind HTTP, and its client.
struct Served {
    users: Vec<UserId>,
    source: Arc<dyn Source>,
}

struct Tokens(BTreeMap<UserId, String>);

impl RefreshTokens for Tokens {
    fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        self.0.get(user).cloned().map(Secret::new)
    }
}

async fn served() -> Served {
    let clock = Arc::new(SystemClock);
    let users = u32::try_from(USERS).unwrap();
    let events = u32::try_from(EVENTS).unwrap();
    let emulator = GoogleEmulator::new(EmulatorSettings::new(1, users, events, clock.now()));
    let tokens: BTreeMap<UserId, String> = emulator
        .users()
        .map(|user| (UserId::new(&user.email).unwrap(), user.refresh_token))
        .collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = FaceOptions {
        gzip: false,
        ..FaceOptions::default()
    };
    tokio::spawn(serve(
        listener,
        Arc::new(Mutex::new(emulator)),
        clock.clone(),
        options,
        std::future::pending(),
    ));
    let users = tokens.keys().cloned().collect();
    let settings = GoogleSettings {
        api_base_url: format!("http://{address}/calendar/v3"),
        token_url: format!("http://{address}/token"),
        request_timeout_ms: 20_000,
        auth: GoogleAuth::RefreshTokens {
            client_id: "bench".to_owned(),
            client_secret: Secret::new("bench"),
            tokens: Arc::new(Tokens(tokens)),
        },
    };
    Served {
        users,
        source: Arc::new(GoogleCalendar::new(settings, clock).unwrap()),
    }
}

/// The CPU time of this process so far, in clock ticks of 10 ms, where the system tells it (Linux); else 0.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// What one kind of sync took, of one kind of round: the best time, and all the CPU time.
#[derive(Clone, Copy)]
struct Took {
    best: Duration,
    cpu_ticks: u64,
}

/// Adds what the first syncs, and two unchanged ones of each user, took.
async fn round(served: &Served, journal: Option<&Path>, took: &mut [Took; 2]) {
    let users = || served.users.clone();
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
        source: Arc::clone(&served.source),
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
    let (begun, cpu) = (Instant::now(), cpu_ticks());
    let handle = start_recorded(settings, ports, observe, recorder);
    for _ in 0..USERS {
        done.recv().await.unwrap();
    }
    took[0].best = took[0].best.min(begun.elapsed());
    // What waits for the recording thread counts, too.
    tokio::time::sleep(SETTLE).await;
    took[0].cpu_ticks += cpu_ticks() - cpu;
    let (begun, cpu) = (Instant::now(), cpu_ticks());
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
    took[1].best = took[1].best.min(begun.elapsed());
    tokio::time::sleep(SETTLE).await;
    took[1].cpu_ticks += cpu_ticks() - cpu;
    handle.shutdown(5_000).await;
    if let Some(journal) = journal {
        journal.closed().await;
    }
    store.close().await;
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let http = runtime.block_on(served());
    let memory = Served {
        users: http.users.clone(),
        source: Arc::new(google()),
    };
    let mut good = true;
    for (served, where_from, counts) in
        [(&http, "over HTTP", true), (&memory, "from memory", false)]
    {
        let none = Took {
            best: Duration::MAX,
            cpu_ticks: 0,
        };
        let mut took = [[none; 2]; 2];
        for _ in 0..ROUNDS {
            for (which, journal) in [None, Some(journal.as_path())].into_iter().enumerate() {
                runtime.block_on(round(served, journal, &mut took[which]));
            }
        }
        for (kind, name, syncs) in [(0, "first syncs", USERS), (1, "unchanged syncs", 2 * USERS)] {
            let [without, with] = [took[0][kind], took[1][kind]];
            let rate = |took: Took| syncs as f64 / took.best.as_secs_f64();
            let cpu_us = |took: Took| took.cpu_ticks as f64 * 1e4 / (syncs * ROUNDS) as f64;
            let cost = 1.0 - cpu_us(without) / cpu_us(with);
            println!(
                "{where_from:>11}, {name:>15}: {:.0}/s without, {:.0}/s with a journal; CPU a sync {:.0} and {:.0} us: {:.1} % \
                 of throughput where all cores are busy",
                rate(without),
                rate(with),
                cpu_us(without),
                cpu_us(with),
                cost * 100.0
            );
            good &= cost <= COST_MAX || !counts;
        }
    }
    let bytes: u64 = std::fs::metadata(&journal).map_or(0, |file| file.len());
    println!(
        "{:.0} bytes of journal a sync, one first to two unchanged",
        bytes as f64 / (3 * USERS) as f64
    );
    if good {
        ExitCode::SUCCESS
    } else {
        println!("more than {:.0} %", COST_MAX * 100.0);
        ExitCode::FAILURE
    }
}
