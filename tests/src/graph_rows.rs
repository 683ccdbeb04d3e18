//! Rows for tests of a graph: short to write, and full enough to notice when a field gets lost.

use kalends_core::graph::{Attendee, CalendarRow, EventDeletion, EventRow, EventTime, Person};
use kalends_core::id::CalendarId;

/// A calendar with a title and a zone.
#[must_use]
pub fn calendar(id: &str) -> CalendarRow {
    CalendarRow {
        id: CalendarId::new(id).expect("tests name calendars well"),
        name: Some(format!("Calendar {id}")),
        time_zone: Some("Europe/Berlin".to_owned()),
        access_role: Some("owner".to_owned()),
    }
}

/// A confirmed event of one hour, with an organiser and nothing else that is optional.
#[must_use]
pub fn event(id: &str, version: i64) -> EventRow {
    EventRow {
        id: id.to_owned(),
        version,
        etag: format!("\"{version}\""),
        status: "confirmed".to_owned(),
        name: Some(format!("Event {id}")),
        description: None,
        location: None,
        start: time("2026-03-02T09:00:00+01:00", 1_772_438_400_000),
        end: time("2026-03-02T10:00:00+01:00", 1_772_442_000_000),
        all_day: false,
        created: Some("2026-01-01T00:00:00.000Z".to_owned()),
        updated: Some("2026-01-02T00:00:00.000Z".to_owned()),
        sequence: 0,
        ical_uid: Some(format!("{id}@google.com")),
        event_type: "default".to_owned(),
        visibility: None,
        transparency: None,
        recurrence: Vec::new(),
        series_id: None,
        original_start: None,
        series_until_ms: None,
        organizer: Some(person("olga@example.com")),
        attendees: Vec::new(),
        attendees_omitted: false,
    }
}

/// A weekly series.
#[must_use]
pub fn series(id: &str, version: i64) -> EventRow {
    EventRow {
        recurrence: vec!["RRULE:FREQ=WEEKLY".to_owned()],
        ..event(id, version)
    }
}

/// An exception of `series_id` whose instance stood at `original_start_ms`.
#[must_use]
pub fn exception(series_id: &str, original_start_ms: i64, version: i64) -> EventRow {
    EventRow {
        series_id: Some(series_id.to_owned()),
        original_start: Some(EventTime {
            text: format!("at {original_start_ms}"),
            epoch_ms: original_start_ms,
            zone: Some("Europe/Berlin".to_owned()),
        }),
        ..event(&format!("{series_id}_{original_start_ms}"), version)
    }
}

/// A point in time as Google writes it, in Berlin.
#[must_use]
pub fn time(text: &str, epoch_ms: i64) -> EventTime {
    EventTime {
        text: text.to_owned(),
        epoch_ms,
        zone: Some("Europe/Berlin".to_owned()),
    }
}

/// Somebody with an address and a name that follows from it.
#[must_use]
pub fn person(email: &str) -> Person {
    Person {
        key: email.to_owned(),
        email: Some(email.to_owned()),
        name: Some(format!("Name of {email}")),
    }
}

/// An attendee who accepted.
#[must_use]
pub fn attendee(email: &str) -> Attendee {
    Attendee {
        person: person(email),
        response_status: "accepted".to_owned(),
        optional: false,
        resource: false,
        is_self: false,
    }
}

/// The event with exactly these attendees, sorted by key as rows are.
#[must_use]
pub fn attended(mut row: EventRow, emails: &[&str]) -> EventRow {
    row.attendees = emails.iter().map(|email| attendee(email)).collect();
    row.attendees
        .sort_by(|left, right| left.person.key.cmp(&right.person.key));
    row
}

/// A deletion.
#[must_use]
pub fn deletion(id: &str, version: i64) -> EventDeletion {
    EventDeletion {
        id: id.to_owned(),
        version,
    }
}
