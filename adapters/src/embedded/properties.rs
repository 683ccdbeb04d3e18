//! Graph rows as JSON properties, and back.
//!
//! The names that readers of the replaced service know are kept (see `kalends_core::graph`); the rest is written in the
//! same way as in Neo4j, so that both graphs read alike. What SQLite has to search or compare is a column of `node`
//! instead: the version, the generation, the series and the original start.

use std::borrow::Cow;

use kalends_core::graph::{Attendee, CalendarRow, EventRow, EventTime, Person};
use kalends_core::id::CalendarId;
use kalends_core::rng::stable_hash;
use serde::{Deserialize, Serialize};

/// The source named on each event.
const SOURCE: &str = "google-calendar";

fn is_false(flag: &bool) -> bool {
    !flag
}

/// An event's properties.
#[derive(Serialize, Deserialize)]
struct EventProperties<'a> {
    google_event_id: Cow<'a, str>,
    source: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<Cow<'a, str>>,
    #[serde(rename = "startTime")]
    start_time: Cow<'a, str>,
    start_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_zone: Option<Cow<'a, str>>,
    #[serde(rename = "endTime")]
    end_time: Cow<'a, str>,
    end_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_zone: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    all_day: bool,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    created_at: Option<Cow<'a, str>>,
    #[serde(rename = "updatedAt", default, skip_serializing_if = "Option::is_none")]
    updated_at: Option<Cow<'a, str>>,
    etag: Cow<'a, str>,
    status: Cow<'a, str>,
    sequence: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ical_uid: Option<Cow<'a, str>>,
    event_type: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    visibility: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transparency: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    recurrence: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recurring_event_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_start: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_start_zone: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    attendees_omitted: bool,
}

fn borrowed(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| Cow::Borrowed(text.as_str()))
}

fn owned(text: Option<Cow<'_, str>>) -> Option<String> {
    text.map(Cow::into_owned)
}

/// An event as it is written: its properties as JSON, and the hash of all that is kept of it, people included.
pub(super) struct EventText {
    pub(super) props: String,
    pub(super) content: i64,
}

/// Makes the JSON of `row` and the hash of its content. The version has a column of its own and is not part of either.
pub(super) fn event_text(row: &EventRow) -> EventText {
    let original_start = row.original_start.as_ref();
    let mut bytes = Vec::with_capacity(768);
    write_json(
        &mut bytes,
        &EventProperties {
            google_event_id: Cow::Borrowed(&row.id),
            source: Cow::Borrowed(SOURCE),
            name: borrowed(row.name.as_ref()),
            description: borrowed(row.description.as_ref()),
            location: borrowed(row.location.as_ref()),
            start_time: Cow::Borrowed(&row.start.text),
            start_ms: row.start.epoch_ms,
            start_zone: borrowed(row.start.zone.as_ref()),
            end_time: Cow::Borrowed(&row.end.text),
            end_ms: row.end.epoch_ms,
            end_zone: borrowed(row.end.zone.as_ref()),
            all_day: row.all_day,
            created_at: borrowed(row.created.as_ref()),
            updated_at: borrowed(row.updated.as_ref()),
            etag: Cow::Borrowed(&row.etag),
            status: Cow::Borrowed(&row.status),
            sequence: row.sequence,
            ical_uid: borrowed(row.ical_uid.as_ref()),
            event_type: Cow::Borrowed(&row.event_type),
            visibility: borrowed(row.visibility.as_ref()),
            transparency: borrowed(row.transparency.as_ref()),
            recurrence: Cow::Borrowed(&row.recurrence),
            recurring_event_id: borrowed(row.series_id.as_ref()),
            original_start: original_start.map(|time| Cow::Borrowed(time.text.as_str())),
            original_start_zone: original_start.and_then(|time| borrowed(time.zone.as_ref())),
            attendees_omitted: row.attendees_omitted,
        },
    );
    let props_bytes = bytes.len();
    let original_start_ms = original_start.map(|time| time.epoch_ms);
    write_json(
        &mut bytes,
        &(original_start_ms, &row.organizer, &row.attendees),
    );
    let content = stable_hash(0, &bytes).cast_signed();
    bytes.truncate(props_bytes);
    EventText {
        props: String::from_utf8(bytes).expect("serde_json writes UTF-8"),
        content,
    }
}

/// Reads an event back. Its people are edges and are added by the caller.
///
/// # Errors
/// If the text is not what [`event_text`] writes.
pub(super) fn event_row(
    props: &str,
    version: i64,
    original_start_ms: Option<i64>,
) -> serde_json::Result<EventRow> {
    let read: EventProperties<'_> = serde_json::from_str(props)?;
    let original_start = read.original_start.map(|text| EventTime {
        text: text.into_owned(),
        epoch_ms: original_start_ms.unwrap_or_default(),
        zone: owned(read.original_start_zone),
    });
    Ok(EventRow {
        id: read.google_event_id.into_owned(),
        version,
        etag: read.etag.into_owned(),
        status: read.status.into_owned(),
        name: owned(read.name),
        description: owned(read.description),
        location: owned(read.location),
        start: EventTime {
            text: read.start_time.into_owned(),
            epoch_ms: read.start_ms,
            zone: owned(read.start_zone),
        },
        end: EventTime {
            text: read.end_time.into_owned(),
            epoch_ms: read.end_ms,
            zone: owned(read.end_zone),
        },
        all_day: read.all_day,
        created: owned(read.created_at),
        updated: owned(read.updated_at),
        sequence: read.sequence,
        ical_uid: owned(read.ical_uid),
        event_type: read.event_type.into_owned(),
        visibility: owned(read.visibility),
        transparency: owned(read.transparency),
        recurrence: read.recurrence.into_owned(),
        series_id: owned(read.recurring_event_id),
        original_start,
        series_until_ms: None,
        organizer: None,
        attendees: Vec::new(),
        attendees_omitted: read.attendees_omitted,
    })
}

/// An attendee's edge. What is known of the person stands on the contact; an organiser's edge has nothing to add.
#[derive(Serialize, Deserialize)]
struct EdgeProperties<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_status: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    optional: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    resource: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    is_self: bool,
}

/// The JSON of an organiser's edge.
pub(super) const ORGANIZER_TEXT: &str = "{}";

/// The JSON of an attendee's edge.
pub(super) fn attendee_text(attendee: &Attendee) -> String {
    to_json(&EdgeProperties {
        response_status: Some(Cow::Borrowed(&attendee.response_status)),
        optional: attendee.optional,
        resource: attendee.resource,
        is_self: attendee.is_self,
    })
}

/// Reads an edge back; for an organiser only the person has a meaning.
///
/// # Errors
/// If the text is not what [`attendee_text`] writes, nor [`ORGANIZER_TEXT`].
pub(super) fn attendee(props: &str, person: Person) -> serde_json::Result<Attendee> {
    let read: EdgeProperties<'_> = serde_json::from_str(props)?;
    Ok(Attendee {
        person,
        response_status: owned(read.response_status).unwrap_or_default(),
        optional: read.optional,
        resource: read.resource,
        is_self: read.is_self,
    })
}

/// A contact's properties.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ContactProperties<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Cow<'a, str>>,
}

/// The JSON of a contact.
pub(super) fn contact_text(email: Option<&str>, name: Option<&str>) -> String {
    to_json(&ContactProperties {
        email: email.map(Cow::Borrowed),
        name: name.map(Cow::Borrowed),
    })
}

/// A calendar's properties.
#[derive(Serialize, Deserialize)]
struct CalendarProperties<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_zone: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_role: Option<Cow<'a, str>>,
}

/// The JSON of a calendar.
pub(super) fn calendar_text(calendar: &CalendarRow) -> String {
    to_json(&CalendarProperties {
        name: borrowed(calendar.name.as_ref()),
        time_zone: borrowed(calendar.time_zone.as_ref()),
        access_role: borrowed(calendar.access_role.as_ref()),
    })
}

/// Reads a calendar back.
///
/// # Errors
/// If the text is not what [`calendar_text`] writes.
pub(super) fn calendar_row(id: CalendarId, props: &str) -> serde_json::Result<CalendarRow> {
    let read: CalendarProperties<'_> = serde_json::from_str(props)?;
    Ok(CalendarRow {
        id,
        name: owned(read.name),
        time_zone: owned(read.time_zone),
        access_role: owned(read.access_role),
    })
}

fn write_json(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).expect("plain data without maps always has a JSON form");
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data without maps always has a JSON form")
}
