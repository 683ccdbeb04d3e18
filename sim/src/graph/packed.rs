//! A row as it is kept: one piece of text instead of a struct with thirty pieces.
//!
//! A simulated fleet of a hundred thousand users keeps some 400,000 rows for a day and reads most of them once, at its
//! end. As structs they took two kilobytes each, mostly pointers and capacities; packed they take a third of that. Two
//! rows are equal exactly if what they are packed into is.

use kalends_core::graph::{Attendee, EventRow, EventTime, Person};
use serde::Serialize;

/// A row, packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedRow {
    /// An exception's series, and its original start: what writes to the series ask for.
    exception: Option<Box<(String, Option<i64>)>>,
    /// A [`Packed`] as JSON: without the names of the fields.
    text: Box<str>,
}

type Time<T> = (T, i64, Option<T>);
type Somebody<T> = (T, Option<T>, Option<T>);
type Guest<T> = (Somebody<T>, T, bool, bool, bool);

/// The fields of an [`EventRow`] in their order, in groups; `T` is text, borrowed or owned.
type Packed<T> = (
    (T, i64, T, T, Option<T>, Option<T>, Option<T>),
    (Time<T>, Time<T>, bool, Option<T>, Option<T>, i64),
    (Option<T>, T, Option<T>, Option<T>, Vec<T>),
    (Option<T>, Option<Time<T>>, Option<i64>),
    (Option<Somebody<T>>, Vec<Guest<T>>, bool),
);

fn time(time: &EventTime) -> Time<&str> {
    (&time.text, time.epoch_ms, time.zone.as_deref())
}

fn time_back((text, epoch_ms, zone): Time<String>) -> EventTime {
    EventTime {
        text,
        epoch_ms,
        zone,
    }
}

fn somebody(person: &Person) -> Somebody<&str> {
    (&person.key, person.email.as_deref(), person.name.as_deref())
}

fn somebody_back((key, email, name): Somebody<String>) -> Person {
    Person { key, email, name }
}

fn guest(guest: &Attendee) -> Guest<&str> {
    let Attendee {
        person,
        response_status,
        optional,
        resource,
        is_self,
    } = guest;
    (
        somebody(person),
        response_status,
        *optional,
        *resource,
        *is_self,
    )
}

fn guest_back((person, response_status, optional, resource, is_self): Guest<String>) -> Attendee {
    Attendee {
        person: somebody_back(person),
        response_status,
        optional,
        resource,
        is_self,
    }
}

impl PackedRow {
    pub(super) fn pack(row: &EventRow) -> Self {
        // All fields are named, so that a new one is not forgotten.
        let EventRow {
            id,
            version,
            etag,
            status,
            name,
            description,
            location,
            start,
            end,
            all_day,
            created,
            updated,
            sequence,
            ical_uid,
            event_type,
            visibility,
            transparency,
            recurrence,
            series_id,
            original_start,
            series_until_ms,
            organizer,
            attendees,
            attendees_omitted,
        } = row;
        let packed: Packed<&str> = (
            (
                id,
                *version,
                etag,
                status,
                name.as_deref(),
                description.as_deref(),
                location.as_deref(),
            ),
            (
                time(start),
                time(end),
                *all_day,
                created.as_deref(),
                updated.as_deref(),
                *sequence,
            ),
            (
                ical_uid.as_deref(),
                event_type,
                visibility.as_deref(),
                transparency.as_deref(),
                recurrence.iter().map(String::as_str).collect(),
            ),
            (
                series_id.as_deref(),
                original_start.as_ref().map(time),
                *series_until_ms,
            ),
            (
                organizer.as_ref().map(somebody),
                attendees.iter().map(guest).collect(),
                *attendees_omitted,
            ),
        );
        let exception = series_id.as_ref().map(|series| {
            let start_ms = original_start.as_ref().map(|start| start.epoch_ms);
            Box::new((series.clone(), start_ms))
        });
        PackedRow {
            exception,
            text: to_text(&packed).into(),
        }
    }

    /// Of an exception its series, and its original start in milliseconds since the epoch, if that is known.
    pub(super) fn exception(&self) -> Option<(&str, Option<i64>)> {
        let exception = self.exception.as_deref();
        exception.map(|(series, start_ms)| (series.as_str(), *start_ms))
    }

    pub(super) fn unpack(&self) -> EventRow {
        let packed: Packed<String> =
            serde_json::from_str(&self.text).expect("a row that was packed here");
        let (
            (id, version, etag, status, name, description, location),
            (start, end, all_day, created, updated, sequence),
            (ical_uid, event_type, visibility, transparency, recurrence),
            (series_id, original_start, series_until_ms),
            (organizer, attendees, attendees_omitted),
        ) = packed;
        EventRow {
            id,
            version,
            etag,
            status,
            name,
            description,
            location,
            start: time_back(start),
            end: time_back(end),
            all_day,
            created,
            updated,
            sequence,
            ical_uid,
            event_type,
            visibility,
            transparency,
            recurrence,
            series_id,
            original_start: original_start.map(time_back),
            series_until_ms,
            organizer: organizer.map(somebody_back),
            attendees: attendees.into_iter().map(guest_back).collect(),
            attendees_omitted,
        }
    }
}

fn to_text(packed: &impl Serialize) -> String {
    serde_json::to_string(packed).expect("plain values always become JSON")
}
