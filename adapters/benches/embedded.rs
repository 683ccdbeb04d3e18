//! How fast the embedded graph takes events, and what memory it costs: `cargo bench -p kalends-adapters`.
//!
//! Prints events a second for three passes over the same calendars: new events, the same events again, and the same
//! events again with a new generation (a full pass that finds nothing changed). Every figure goes through the whole
//! store: channel, thread, transaction and flush.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::graph::{
    Attendee, CalendarRow, EventRow, EventTime, GraphReply, GraphWrite, Person,
};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use kalends_core::time::{Clock, Timestamp};

/// Events in a batch: a page of Google's.
const BATCH_EVENTS: usize = 250;
/// Events of one user.
const USER_EVENTS: usize = 1_000;
/// Users.
const USERS: usize = 500;
/// Users who are written at the same time: as many as a process syncs at once.
const WRITERS: usize = 3;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the system's clock is past 1970");
        Timestamp::from_ms(i64::try_from(since.as_millis()).expect("fits for a long time"))
    }
}

fn row(user: usize, number: usize) -> EventRow {
    let person = |contact: usize| Person {
        key: format!("colleague{contact}@example.com"),
        email: Some(format!("colleague{contact}@example.com")),
        name: Some(format!("Colleague {contact}")),
    };
    // Four of five events have one attendee.
    let attendees = (number % 5 < 4)
        .then(|| Attendee {
            person: person((user * 7 + number) % 40),
            response_status: "accepted".to_owned(),
            optional: false,
            resource: false,
            is_self: false,
        })
        .into_iter()
        .collect();
    let time = |hour: usize| EventTime {
        text: format!("2026-03-{:02}T{hour:02}:00:00+01:00", number % 28 + 1),
        epoch_ms: 1_772_000_000_000 + i64::try_from(number * 3_600_000).expect("small"),
        zone: Some("Europe/Berlin".to_owned()),
    };
    // Google's ids are no order of anything.
    let scattered = (user * USER_EVENTS + number) as u64;
    EventRow {
        id: format!(
            "{:026x}",
            u128::from(scattered.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        ),
        version: 3_544_000_000_000_000,
        etag: "\"3544000000000000\"".to_owned(),
        status: "confirmed".to_owned(),
        name: Some(format!("Meeting {number} about the state of things")),
        description: Some("Agenda: what was, what is, what comes. Bring your own cup.".to_owned()),
        location: Some("Room 4".to_owned()),
        start: time(9),
        end: time(10),
        all_day: false,
        created: Some("2026-02-01T08:00:00.000Z".to_owned()),
        updated: Some("2026-02-02T08:00:00.000Z".to_owned()),
        sequence: 0,
        ical_uid: Some(format!("{number:026x}@google.com")),
        event_type: "default".to_owned(),
        visibility: None,
        transparency: None,
        recurrence: Vec::new(),
        series_id: None,
        original_start: None,
        series_until_ms: None,
        organizer: None,
        attendees,
        attendees_omitted: false,
    }
}

fn batch(user: usize, first: usize, generation: u64) -> GraphWrite {
    GraphWrite::Apply {
        user: UserId::new(&format!("user{user}@example.com")).expect("a valid name"),
        fence: LeaseToken(1),
        calendar: CalendarRow {
            id: CalendarId::new("primary").expect("a valid name"),
            name: Some("Main".to_owned()),
            time_zone: Some("Europe/Berlin".to_owned()),
            access_role: Some("owner".to_owned()),
        },
        generation,
        upserts: (first..first + BATCH_EVENTS)
            .map(|number| row(user, number))
            .collect(),
        deletions: Vec::new(),
    }
}

/// Writes the users of one writer; gives events counted as written and seconds spent in the store (the building of
/// batches is not the store's).
async fn write_share(store: Arc<EmbeddedStore>, writer: usize, generation: u64) -> u64 {
    let mut upserted = 0;
    for user in (writer..USERS).step_by(WRITERS) {
        for first in (0..USER_EVENTS).step_by(BATCH_EVENTS) {
            match store.write(batch(user, first, generation)).await {
                Ok(GraphReply::Written(counts)) => upserted += counts.upserted,
                other => panic!("the store answered {other:?}"),
            }
        }
    }
    upserted
}

/// The process's largest resident memory so far, in MB; 0 where the system does not tell.
fn peak_memory_mb() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .unwrap_or(0)
        / 1_024
}

/// Processor seconds that the store's thread has used so far; `None` where the system does not tell. This is the
/// figure to compare on a machine that is busy with other things.
fn store_seconds() -> Option<f64> {
    /// The kernel counts in hundredths of a second (`USER_HZ`).
    const TICKS_PER_SECOND: f64 = 100.0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        if name.ends_with("(kalends-store") {
            // After the name: the state is field 3, so utime (14) and stime (15) are the 12th and 13th.
            let mut fields = rest.split(' ').skip(11);
            let user: f64 = fields.next()?.parse().ok()?;
            let system: f64 = fields.next()?.parse().ok()?;
            return Some((user + system) / TICKS_PER_SECOND);
        }
    }
    None
}

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let store = Arc::new(
        EmbeddedStore::open(directory.path(), Arc::new(SystemClock)).expect("the store opens"),
    );
    let events = USERS * USER_EVENTS;
    for (name, generation) in [
        ("new events", 1),
        ("the same again", 1),
        ("the same, next generation", 2),
    ] {
        let commits_before = store.commits();
        // The thread has no name before it runs for the first time.
        let busy_before = store_seconds().or(Some(0.0));
        let started = Instant::now();
        let upserted: u64 = runtime.block_on(async {
            let shares: Vec<_> = (0..WRITERS)
                .map(|writer| tokio::spawn(write_share(Arc::clone(&store), writer, generation)))
                .collect();
            let mut upserted = 0;
            for share in shares {
                upserted += share.await.expect("a writer ends well");
            }
            upserted
        });
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{name}: {events} events in {seconds:.2} s = {:.0} events/s; written {upserted}, commits {}, peak memory {} MB",
            events as f64 / seconds,
            store.commits() - commits_before,
            peak_memory_mb(),
        );
        if let (Some(before), Some(after)) = (busy_before, store_seconds()) {
            println!(
                "    the store's thread was busy for {:.2} s: {:.0} events/s of one core",
                after - before,
                events as f64 / (after - before),
            );
        }
    }
    runtime.block_on(store.close());
    let bytes = std::fs::metadata(directory.path().join("kalends.db")).map_or(0, |file| file.len());
    println!("file: {} MB", bytes / (1 << 20));
}
