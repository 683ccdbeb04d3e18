//! The graph's write model: what one batch asks, in terms that every graph understands.
//!
//! ```text
//! (User)-[:HAS_CALENDAR]->(Calendar)-[:HAS_EVENT]->(Event)-[:ATTENDED_BY {response_status, ..}]->(Contact)
//!                                                  (Event)-[:ORGANIZED_BY]->(Contact)
//!                                                  (Event)-[:EXCEPTION_OF]->(Event)      an exception and its series
//! ```
//!
//! Every node has one key property, `uid`. Rules that hold for each implementation, and that the contract suite checks:
//!
//! 1. **Fenced.** A batch carries the fencing token of its lease; the user's node keeps the largest one seen. A batch
//!    with a smaller one changes nothing and says [`GraphReply::Fenced`]. One that would make the user's node must not be
//!    older than the last removal of any user either.
//! 2. **Idempotent.** The same batch twice leaves the same graph.
//! 3. **Versioned.** An event is written only if its version is not older than the one that stands there; a deletion
//!    likewise.
//! 4. **Exact.** After an upsert the event has exactly the attendees, organiser and properties of the row. A deleted
//!    series takes its exceptions along. Contacts that Kalends made and that nothing refers to any more are removed.
//! 5. **Swept, never wiped.** A full pass stamps what it saw with its generation (also what it saw in an older state); [`GraphWrite::Sweep`] then removes
//!    the calendar's events with an older one.
//!
//! Property names that readers of the replaced service know are kept: `Event{id, name, startTime, endTime, location,
//! description, createdAt, updatedAt, google_event_id, source, recurring_event_id}`, `Contact{id, name, email,
//! organization}`, `ATTENDED_BY{response_status}`.

pub mod cypher;
pub mod params;
pub mod server_failure;

use serde::{Deserialize, Serialize};

use crate::id::{CalendarId, UserId};
use crate::queue::command::LeaseToken;

/// At most this many events (upserts and deletions together) in one batch.
pub const BATCH_EVENTS_MAX: usize = 2_500;

/// A point in time or a day, ready for the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTime {
    /// As text: RFC 3339 as Google wrote it (its offset kept), or `yyyy-mm-dd` for a day.
    pub text: String,
    /// Milliseconds since the epoch; a day counts from midnight UTC.
    pub epoch_ms: i64,
    /// The named time zone, if Google gave one; for days none.
    pub zone: Option<String>,
}

/// Somebody an event refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The key within the user's graph: the lower-cased address, or `id:` and the profile id where there is none.
    pub key: String,
    /// The lower-cased address, if there is one.
    pub email: Option<String>,
    /// The name, if Google gave one.
    pub name: Option<String>,
}

/// An attendee of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attendee {
    /// Who.
    pub person: Person,
    /// Google's `responseStatus`; `needsAction` where it is missing.
    pub response_status: String,
    /// Need not come.
    pub optional: bool,
    /// A room or a device.
    pub resource: bool,
    /// Is the calendar's owner.
    pub is_self: bool,
}

/// One event to write: everything the graph keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Google's id.
    pub id: String,
    /// Orders the states of one event: microseconds (twice, as in Google's etag), growing with each change.
    pub version: i64,
    /// Google's etag.
    pub etag: String,
    /// `confirmed`, `tentative`, or `cancelled` for a cancelled instance of a live series.
    pub status: String,
    /// The title; `None` for an untitled or private one.
    pub name: Option<String>,
    /// The description, as Google gave it (it may hold HTML, and is never trusted).
    pub description: Option<String>,
    /// The place.
    pub location: Option<String>,
    /// The start; a cancelled instance has its original start here if Google gave no other.
    pub start: EventTime,
    /// The end, exclusive; equal to the start where Google left it open.
    pub end: EventTime,
    /// Whole days, not times.
    pub all_day: bool,
    /// When it was created, as Google wrote it.
    pub created: Option<String>,
    /// When it was changed, as Google wrote it.
    pub updated: Option<String>,
    /// The iCalendar sequence number.
    pub sequence: i64,
    /// The iCalendar UID; a series and its exceptions share it.
    pub ical_uid: Option<String>,
    /// Google's `eventType`; `default` where it is missing.
    pub event_type: String,
    /// Google's `visibility`, if not the default.
    pub visibility: Option<String>,
    /// Google's `transparency`, if not the default.
    pub transparency: Option<String>,
    /// RRULE, RDATE and EXDATE lines of a series, as Google gave them; empty otherwise.
    pub recurrence: Vec<String>,
    /// An exception's series.
    pub series_id: Option<String>,
    /// An exception's original start: its identity within the series.
    pub original_start: Option<EventTime>,
    /// For a series that ends: exceptions whose original start is later than this (milliseconds since the epoch) are
    /// left over from before a cut and are removed with this write.
    pub series_until_ms: Option<i64>,
    /// The organiser.
    pub organizer: Option<Person>,
    /// The attendees, each person once, sorted by key.
    pub attendees: Vec<Attendee>,
    /// Google left attendees out.
    pub attendees_omitted: bool,
}

/// One event to remove. A series takes its exceptions along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDeletion {
    /// Google's id.
    pub id: String,
    /// The version of the deletion; a newer event is left alone. `i64::MAX` where Google gave none.
    pub version: i64,
}

/// What is known of a calendar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarRow {
    /// Google's id, or the keyword `primary`.
    pub id: CalendarId,
    /// Its title.
    pub name: Option<String>,
    /// Its time zone.
    pub time_zone: Option<String>,
    /// What the user may do with it.
    pub access_role: Option<String>,
}

/// One write. Each is atomic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "write", rename_all = "snake_case")]
pub enum GraphWrite {
    /// Writes and removes events of one calendar. Deletions are applied before upserts.
    Apply {
        /// Whose graph.
        user: UserId,
        /// The fencing token of the lease.
        fence: LeaseToken,
        /// The calendar, written too.
        calendar: CalendarRow,
        /// Stamped on every event upserted.
        generation: u64,
        /// Events to write; no id twice.
        upserts: Vec<EventRow>,
        /// Events to remove; no id twice.
        deletions: Vec<EventDeletion>,
    },
    /// Stamps events as seen and changes nothing else of them: those that a full pass saw and had to set aside, whose older
    /// state must outlive the pass's sweep. What the graph has not is not made.
    Spare {
        /// Whose graph.
        user: UserId,
        /// The fencing token of the lease.
        fence: LeaseToken,
        /// The calendar.
        calendar: CalendarId,
        /// Stamped on every event named.
        generation: u64,
        /// The ids; none twice.
        events: Vec<String>,
    },
    /// Removes the calendar's events whose generation is older: what a full pass did not see.
    Sweep {
        /// Whose graph.
        user: UserId,
        /// The fencing token of the lease.
        fence: LeaseToken,
        /// The calendar.
        calendar: CalendarId,
        /// The generation of the full pass.
        generation: u64,
    },
    /// Removes a calendar that is gone from the user's list, with all its events.
    RemoveCalendar {
        /// Whose graph.
        user: UserId,
        /// The fencing token of the lease.
        fence: LeaseToken,
        /// The calendar.
        calendar: CalendarId,
    },
}

impl GraphWrite {
    /// Whose graph is written.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            GraphWrite::Apply { user, .. }
            | GraphWrite::Spare { user, .. }
            | GraphWrite::Sweep { user, .. }
            | GraphWrite::RemoveCalendar { user, .. } => user,
        }
    }

    /// The fencing token of the lease under which it is written.
    #[must_use]
    pub fn fence(&self) -> LeaseToken {
        match self {
            GraphWrite::Apply { fence, .. }
            | GraphWrite::Spare { fence, .. }
            | GraphWrite::Sweep { fence, .. }
            | GraphWrite::RemoveCalendar { fence, .. } => *fence,
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphCounts {
    /// Events that were created or really changed. An event that stood there already, the same, is not counted.
    pub upserted: u64,
    /// Events that were removed, exceptions of removed series included.
    pub deleted: u64,
}

/// What a graph answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum GraphReply {
    /// Written.
    Written(GraphCounts),
    /// A later lease has written before: nothing was changed, and the sender has lost its lease.
    Fenced,
}

/// The key of a calendar's node.
#[must_use]
pub fn calendar_uid(user: &UserId, calendar: &CalendarId) -> String {
    format!("{user}|{calendar}")
}

/// The key of an event's node.
#[must_use]
pub fn event_uid(user: &UserId, calendar: &CalendarId, event_id: &str) -> String {
    format!("{user}|{calendar}|{event_id}")
}

/// The key of a contact's node.
#[must_use]
pub fn contact_uid(user: &UserId, person_key: &str) -> String {
    format!("{user}|{person_key}")
}

/// A user's graph as read back: for comparison with the calendar, and for the contract suite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphSnapshot {
    /// The calendars, by id.
    pub calendars: Vec<CalendarRow>,
    /// The events, sorted by calendar and id, with the generation at which each was last seen.
    pub events: Vec<SnapshotEvent>,
    /// The contacts, sorted by key.
    pub contacts: Vec<Person>,
}

/// One event of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEvent {
    /// The calendar it belongs to.
    pub calendar: CalendarId,
    /// The event; `series_until_ms` is not stored and is `None` here. A person has one name in a graph, the latest that
    /// was given, whichever event gave it.
    pub row: EventRow,
    /// The generation at which it was last written.
    pub generation: u64,
}
