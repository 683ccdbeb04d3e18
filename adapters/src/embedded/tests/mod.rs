//! What the tests of the embedded store share.

mod directory;
mod graph;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kalends_core::graph::{
    Attendee, CalendarRow, EventDeletion, EventRow, EventTime, GraphCounts, GraphReply, GraphWrite,
    Person,
};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::queue::command::LeaseToken;
use kalends_core::time::{Clock, Timestamp};
use tokio::sync::oneshot;

use super::EmbeddedStore;
use super::writer::{Caller, Request, Work};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn at(ms: i64) -> Arc<Self> {
        Arc::new(TestClock(AtomicI64::new(ms)))
    }

    /// Moves the clock and says what it then shows.
    pub(super) fn forward(&self, ms: u64) -> Timestamp {
        let ms = i64::try_from(ms).unwrap();
        Timestamp::from_ms(self.0.fetch_add(ms, Ordering::Relaxed) + ms)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::Relaxed))
    }
}

pub(super) fn open(directory: &Path) -> EmbeddedStore {
    EmbeddedStore::open(directory, TestClock::at(1_772_000_000_000)).unwrap()
}

impl EmbeddedStore {
    /// Runs SQL on the writing connection.
    pub(super) async fn execute(&self, sql: &str) {
        let (caller, done) = oneshot::channel();
        self.ask(Work::Execute(sql.to_owned()), Caller::Execute(caller))
            .await;
        done.await.unwrap();
    }

    pub(super) async fn ask(&self, work: Work, caller: Caller) {
        let request = Request { work, caller };
        assert!(self.requests.send(request).await.is_ok());
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn calendar(id: &str) -> CalendarRow {
    CalendarRow {
        id: CalendarId::new(id).unwrap(),
        name: Some(format!("The calendar {id}")),
        time_zone: Some("Europe/Berlin".to_owned()),
        access_role: None,
    }
}

pub(super) fn person(key: &str, name: Option<&str>) -> Person {
    Person {
        key: key.to_owned(),
        email: key.contains('@').then(|| key.to_owned()),
        name: name.map(str::to_owned),
    }
}

pub(super) fn attendee(key: &str, name: Option<&str>) -> Attendee {
    Attendee {
        person: person(key, name),
        response_status: "accepted".to_owned(),
        optional: key.starts_with('o'),
        resource: false,
        is_self: key.starts_with('s'),
    }
}

fn time(epoch_ms: i64) -> EventTime {
    EventTime {
        text: format!("{}", Timestamp::from_ms(epoch_ms)),
        epoch_ms,
        zone: Some("UTC".to_owned()),
    }
}

pub(super) fn event(id: &str, version: i64) -> EventRow {
    EventRow {
        id: id.to_owned(),
        version,
        etag: format!("\"{version}\""),
        status: "confirmed".to_owned(),
        name: Some(format!("Event {id}")),
        description: None,
        location: None,
        start: time(1_772_000_000_000),
        end: time(1_772_003_600_000),
        all_day: false,
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
        attendees: Vec::new(),
        attendees_omitted: false,
    }
}

pub(super) fn exception(series: &str, original_ms: i64, version: i64) -> EventRow {
    EventRow {
        series_id: Some(series.to_owned()),
        original_start: Some(time(original_ms)),
        ..event(&format!("{series}_{original_ms}"), version)
    }
}

pub(super) fn deletion(id: &str, version: i64) -> EventDeletion {
    EventDeletion {
        id: id.to_owned(),
        version,
    }
}

/// A write to the calendar `primary` of `ada`.
pub(super) fn apply(
    fence: u64,
    generation: u64,
    upserts: Vec<EventRow>,
    deletions: Vec<EventDeletion>,
) -> GraphWrite {
    GraphWrite::Apply {
        user: user("ada"),
        fence: LeaseToken(fence),
        calendar: calendar("primary"),
        generation,
        upserts,
        deletions,
    }
}

pub(super) fn counts(upserted: u64, deleted: u64) -> GraphReply {
    GraphReply::Written(GraphCounts { upserted, deleted })
}
