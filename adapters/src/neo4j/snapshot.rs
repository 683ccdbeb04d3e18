//! A user's graph read back, page by page, as the rows that were written.

use kalends_core::failure::Failure;
use kalends_core::graph::params::read_page;
use kalends_core::graph::{
    Attendee, CalendarRow, EventRow, EventTime, GraphSnapshot, Person, SnapshotEvent, cypher,
};
use kalends_core::id::{CalendarId, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Access, QueryApi, Rows};

/// So many rows are read at once. An event with 500 attendees is some 60 KB.
const PAGE_ROWS_MAX: u64 = 500;

/// More pages than this are not read: the graph of one user ends long before.
const PAGES_MAX: u32 = 100_000;

/// Reads the user's calendars, events and contacts.
pub(super) async fn read(
    api: &QueryApi,
    database: &str,
    user: &UserId,
) -> Result<GraphSnapshot, Failure> {
    let mut snapshot = GraphSnapshot::default();
    for row in pages::<CalendarNode>(api, database, user, cypher::READ_CALENDARS).await? {
        snapshot.calendars.push(CalendarRow {
            id: row.calendar_id,
            name: row.name,
            time_zone: row.time_zone,
            access_role: row.access_role,
        });
    }
    for row in pages::<EventNode>(api, database, user, cypher::READ_EVENTS).await? {
        // An event outside of the user's calendars is not ours to report.
        if let Some(calendar) = row.calendar_id.clone() {
            snapshot.events.push(row.into_event(calendar));
        }
    }
    for row in pages::<PersonNode>(api, database, user, cypher::READ_CONTACTS).await? {
        snapshot.contacts.push(row.into_person());
    }
    snapshot
        .calendars
        .sort_by(|left, right| left.id.cmp(&right.id));
    snapshot.events.sort_by(|left, right| {
        (&left.calendar, &left.row.id).cmp(&(&right.calendar, &right.row.id))
    });
    snapshot
        .contacts
        .sort_by(|left, right| left.key.cmp(&right.key));
    Ok(snapshot)
}

async fn pages<T: DeserializeOwned>(
    api: &QueryApi,
    database: &str,
    user: &UserId,
    text: &'static str,
) -> Result<Vec<T>, Failure> {
    let mut read = Vec::new();
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let statement = read_page(text, user, &after, PAGE_ROWS_MAX);
        let rows = api.run(database, Access::Read, statement).await?;
        let rows_read = rows.values.len() as u64;
        for row in objects(rows) {
            match row.get("uid").and_then(Value::as_str) {
                Some(uid) if uid > after.as_str() => after = uid.to_owned(),
                _ => return Err(Failure::permanent("Neo4j's rows are not in order of uid")),
            }
            read.push(serde_json::from_value(row).map_err(|why| {
                Failure::permanent(format!(
                    "a node of the graph is not as Kalends writes it: {why}"
                ))
            })?);
        }
        if rows_read < PAGE_ROWS_MAX {
            return Ok(read);
        }
    }
    Err(Failure::permanent("the user's graph has no end"))
}

fn objects(rows: Rows) -> impl Iterator<Item = Value> {
    let Rows { fields, values } = rows;
    values
        .into_iter()
        .map(move |row| Value::Object(fields.iter().cloned().zip(row).collect()))
}

#[derive(Deserialize)]
struct CalendarNode {
    calendar_id: CalendarId,
    name: Option<String>,
    time_zone: Option<String>,
    access_role: Option<String>,
}

#[derive(Deserialize)]
struct PersonNode {
    key: String,
    email: Option<String>,
    name: Option<String>,
}

impl PersonNode {
    fn into_person(self) -> Person {
        Person {
            key: self.key,
            email: self.email,
            name: self.name,
        }
    }
}

#[derive(Deserialize)]
struct AttendeeNode {
    #[serde(flatten)]
    person: PersonNode,
    response_status: String,
    optional: bool,
    resource: bool,
    is_self: bool,
}

#[derive(Deserialize)]
struct EventNode {
    calendar_id: Option<CalendarId>,
    properties: EventProperties,
    organizer: Option<PersonNode>,
    attendees: Vec<AttendeeNode>,
}

#[derive(Deserialize)]
struct EventProperties {
    google_event_id: String,
    version: i64,
    generation: u64,
    etag: String,
    status: String,
    name: Option<String>,
    description: Option<String>,
    location: Option<String>,
    #[serde(rename = "startTime")]
    start: String,
    start_ms: i64,
    start_zone: Option<String>,
    #[serde(rename = "endTime")]
    end: String,
    end_ms: i64,
    end_zone: Option<String>,
    original_start: Option<String>,
    original_start_ms: Option<i64>,
    original_start_zone: Option<String>,
    all_day: bool,
    #[serde(rename = "createdAt")]
    created: Option<String>,
    #[serde(rename = "updatedAt")]
    updated: Option<String>,
    sequence: i64,
    ical_uid: Option<String>,
    event_type: String,
    visibility: Option<String>,
    transparency: Option<String>,
    #[serde(default)]
    recurrence: Vec<String>,
    recurring_event_id: Option<String>,
    attendees_omitted: bool,
}

impl EventNode {
    fn into_event(self, calendar: CalendarId) -> SnapshotEvent {
        let node = self.properties;
        let mut attendees: Vec<Attendee> = self
            .attendees
            .into_iter()
            .map(|attendee| Attendee {
                person: attendee.person.into_person(),
                response_status: attendee.response_status,
                optional: attendee.optional,
                resource: attendee.resource,
                is_self: attendee.is_self,
            })
            .collect();
        attendees.sort_by(|left, right| left.person.key.cmp(&right.person.key));
        let original_start = match (node.original_start, node.original_start_ms) {
            (Some(text), Some(epoch_ms)) => Some(EventTime {
                text,
                epoch_ms,
                zone: node.original_start_zone,
            }),
            _ => None,
        };
        SnapshotEvent {
            calendar,
            generation: node.generation,
            row: EventRow {
                id: node.google_event_id,
                version: node.version,
                etag: node.etag,
                status: node.status,
                name: node.name,
                description: node.description,
                location: node.location,
                start: EventTime {
                    text: node.start,
                    epoch_ms: node.start_ms,
                    zone: node.start_zone,
                },
                end: EventTime {
                    text: node.end,
                    epoch_ms: node.end_ms,
                    zone: node.end_zone,
                },
                all_day: node.all_day,
                created: node.created,
                updated: node.updated,
                sequence: node.sequence,
                ical_uid: node.ical_uid,
                event_type: node.event_type,
                visibility: node.visibility,
                transparency: node.transparency,
                recurrence: node.recurrence,
                series_id: node.recurring_event_id,
                original_start,
                series_until_ms: None,
                organizer: self.organizer.map(PersonNode::into_person),
                attendees,
                attendees_omitted: node.attendees_omitted,
            },
        }
    }
}
