//! The process that `tests/kill.rs` kills: eight writers on one embedded store, at full load, until the end.
//!
//! `store_victim DIRECTORY ROUND SEED`. Each line that it prints is one thing that the store acknowledged, printed
//! after the acknowledgement: a number, what it was, and its name. Names are never used twice over all rounds.
//!
//! A user is enrolled, gets one job, and that job is completed, each at some time and by some writer, so whatever was
//! acknowledged can be seen in the file ever after. A batch of events names its own size: it is there whole or not at
//! all.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::graph::{
    Attendee, CalendarRow, EventRow, EventTime, GraphReply, GraphWrite, Person,
};
use kalends_core::id::{CalendarId, SourceName, UserId, WorkerId};
use kalends_core::port::{Graph, Store};
use kalends_core::queue::command::{
    Command, Commit, CommitOutcome, LeaseToken, NewJob, Priority, Reply,
};
use kalends_core::queue::state::{JobKey, SourceSettings};
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{Clock, Timestamp};

/// Writers at the same time.
const WRITERS: u64 = 8;
/// Jobs that a writer claims at a time, at most.
const CLAIM_MAX: u32 = 4;
/// Events of a batch, at most.
const BATCH_EVENTS_MAX: u64 = 5;
/// How long a lease lasts, in milliseconds: short, so that a later round takes over what a killed one held.
const LEASE_MS: u64 = 1_000;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the system's clock is past 1970");
        Timestamp::from_ms(i64::try_from(since.as_millis()).expect("fits for a long time"))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| {
        arguments
            .next()
            .unwrap_or_else(|| panic!("{name} is missing: store_victim DIRECTORY ROUND SEED"))
    };
    let directory = argument("DIRECTORY");
    let round: u64 = argument("ROUND").parse().expect("ROUND is a number");
    let seed: u64 = argument("SEED").parse().expect("SEED is a number");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = EmbeddedStore::open(Path::new(&directory), Arc::new(SystemClock))
            .unwrap_or_else(|error| panic!("{error}"));
        let settings = SourceSettings {
            jobs: None,
            requests_project: None,
            requests_user: None,
            stalls_max: 1_000_000,
            ..SourceSettings::default()
        };
        let define = Command::DefineSource {
            source: SourceName::google_calendar(),
            settings,
        };
        ask(&store, define).await;
        let victim = Arc::new(Victim {
            store,
            acknowledged: AtomicU64::new(0),
            round,
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let rng = substream(seed, &format!("round {round} writer {writer}"));
                tokio::spawn(Arc::clone(&victim).write(writer, rng))
            })
            .collect();
        for writer in writers {
            writer
                .await
                .expect("a writer goes on until the process is killed");
        }
    });
}

struct Victim {
    store: EmbeddedStore,
    acknowledged: AtomicU64,
    round: u64,
}

async fn ask(store: &EmbeddedStore, command: Command) -> Reply {
    let reply = store.apply(command).await;
    reply.unwrap_or_else(|error| panic!("{error}")).value
}

impl Victim {
    fn tell(&self, what: &str, name: &str) {
        let number = self.acknowledged.fetch_add(1, Ordering::Relaxed);
        println!("{number} {what} {name}");
    }

    async fn write(self: Arc<Self>, writer: u64, mut rng: KalendsRng) {
        let worker = WorkerId::new(&format!("round{}writer{writer}", self.round)).expect("a name");
        for number in 0_u64.. {
            let name = format!("r{}w{writer}n{number}", self.round);
            match uniform(&mut rng, 3) {
                0 => self.enrol(&name).await,
                1 => {
                    let events = 1 + uniform(&mut rng, BATCH_EVENTS_MAX - 1);
                    self.write_events(writer, &name, events).await;
                }
                2 => {
                    self.enrol(&name).await;
                    self.enqueue(&name).await;
                }
                _ => self.work(&worker).await,
            }
        }
    }

    async fn enrol(&self, name: &str) {
        let source = SourceName::google_calendar();
        let users = vec![UserId::new(name).expect("a name")];
        let command = Command::Enroll {
            source: source.clone(),
            users: users.clone(),
            due_at: Timestamp::EPOCH,
        };
        let reply = ask(&self.store, command).await;
        assert_eq!(reply, Reply::Enrolled { source, users });
        self.tell("enrolled", name);
    }

    async fn enqueue(&self, name: &str) {
        let command = Command::Enqueue {
            source: SourceName::google_calendar(),
            jobs: vec![NewJob {
                user: UserId::new(name).expect("a name"),
                run_at: Timestamp::EPOCH,
                nominal_at: None,
                priority: Priority::Scheduled,
            }],
            checkpoint: None,
        };
        let reply = ask(&self.store, command).await;
        assert!(
            matches!(reply, Reply::Enqueued { added: 1, .. }),
            "{reply:?}"
        );
        self.tell("enqueued", name);
    }

    async fn work(&self, worker: &WorkerId) {
        let command = Command::Claim {
            worker: worker.clone(),
            slots: CLAIM_MAX,
            fan_out_slots: 0,
            lease_ms: LEASE_MS,
            held: Vec::new(),
        };
        let Reply::Claimed { leases, .. } = ask(&self.store, command).await else {
            panic!("a claim is answered by leases");
        };
        for given in leases {
            let JobKey::Sync { user, .. } = &given.lease.key else {
                panic!("there are no fan-outs here");
            };
            let user = user.clone();
            let command = Command::Complete {
                lease: given.lease,
                commit: Commit {
                    cursor: Some(format!("done {user}")),
                    next_due_at: None,
                    outcome: CommitOutcome::Skipped {
                        note: "only to be seen".to_owned(),
                    },
                },
            };
            // A writer that was held up longer than its lease hears that it is lost.
            if ask(&self.store, command).await == Reply::Done {
                self.tell("completed", user.as_str());
            }
        }
    }

    async fn write_events(&self, writer: u64, name: &str, events: u64) {
        let write = GraphWrite::Apply {
            user: UserId::new(&format!("graph{writer}")).expect("a name"),
            fence: LeaseToken(self.round + 1),
            calendar: CalendarRow {
                id: CalendarId::new("primary").expect("a name"),
                name: None,
                time_zone: None,
                access_role: None,
            },
            generation: self.round,
            upserts: (0..events)
                .map(|index| event(name, events, index))
                .collect(),
            deletions: Vec::new(),
        };
        match self.store.write(write).await {
            Ok(GraphReply::Written(counts)) => assert_eq!(counts.upserted, events),
            other => panic!("the graph answered {other:?}"),
        }
        self.tell("wrote", &format!("{name}of{events}"));
    }
}

fn event(name: &str, events: u64, index: u64) -> EventRow {
    let time = EventTime {
        text: "2026-03-02".to_owned(),
        epoch_ms: 1_772_409_600_000,
        zone: None,
    };
    let address = format!("colleague{index}@example.com");
    EventRow {
        id: format!("{name}of{events}-{index}"),
        version: 1,
        etag: "\"1\"".to_owned(),
        status: "confirmed".to_owned(),
        name: Some(name.to_owned()),
        description: None,
        location: None,
        start: time.clone(),
        end: time,
        all_day: true,
        created: None,
        updated: None,
        sequence: 0,
        ical_uid: None,
        event_type: "default".to_owned(),
        visibility: None,
        transparency: None,
        recurrence: Vec::new(),
        series_id: None,
        original_start: None,
        series_until_ms: None,
        organizer: None,
        attendees: vec![Attendee {
            person: Person {
                key: address.clone(),
                email: Some(address),
                name: None,
            },
            response_status: "accepted".to_owned(),
            optional: false,
            resource: false,
            is_self: false,
        }],
        attendees_omitted: false,
    }
}
