//! From a [`GraphWrite`] to the statements and parameters that a Neo4j server is sent.
//!
//! One write is at most two statements, whatever its size: nodes first, relationships second, rows sorted by key so
//! that two writers take locks in the same order. Everything that varies is a parameter. Parameters are plain JSON:
//! text, whole numbers within an `i64`, booleans, null, and lists of text; nested maps appear only where a statement
//! takes them apart.

use serde_json::{Map, Value, json};

use super::cypher;
use super::{
    Attendee, CalendarRow, EventDeletion, EventRow, EventTime, GraphWrite, Person, calendar_uid,
    contact_uid, event_uid,
};
use crate::id::{CalendarId, UserId};
use crate::rng::stable_hash;

/// What `source` says on every event that Kalends writes.
pub const SOURCE: &str = "google-calendar";

/// At most this many events are removed by one statement of a sweep or of a calendar's removal.
pub const REMOVE_EVENTS_MAX: u64 = 1_000;

/// A statement with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// One of the constants of [`cypher`].
    pub text: &'static str,
    /// A JSON object.
    pub parameters: Value,
}

/// The statements that make up `write`, to be sent in this order; the second only if the first was not fenced.
///
/// A Spare gives one statement. A Sweep and a RemoveCalendar give one, to be repeated while it removed [`REMOVE_EVENTS_MAX`] events.
#[must_use]
pub fn split(write: &GraphWrite) -> Vec<Statement> {
    match write {
        GraphWrite::Apply {
            user,
            fence,
            calendar,
            generation,
            upserts,
            deletions,
        } => {
            let batch = Batch::new(user, &calendar.id, upserts);
            let mut statements = vec![Statement {
                text: cypher::APPLY_EVENTS,
                parameters: json!({
                    "user": user,
                    "fence": integer(fence.0),
                    "calendar": calendar_value(user, calendar),
                    "deletions": deletion_values(user, &calendar.id, deletions),
                    "cuts": batch.cuts,
                    "events": batch.events,
                    "generation": integer(*generation),
                    "mentioned": &batch.mentioned,
                }),
            }];
            if !upserts.is_empty() {
                statements.push(Statement {
                    text: cypher::APPLY_RELATIONSHIPS,
                    parameters: json!({
                        "user": user,
                        "fence": integer(fence.0),
                        "mentioned": batch.mentioned,
                        "rows": batch.relationships,
                    }),
                });
            }
            statements
        }
        GraphWrite::Spare {
            user,
            fence,
            calendar,
            generation,
            events,
        } => vec![Statement {
            text: cypher::SPARE,
            parameters: json!({
                "user": user,
                "fence": integer(fence.0),
                "generation": integer(*generation),
                "events": events.iter().map(|id| event_uid(user, calendar, id)).collect::<Vec<String>>(),
            }),
        }],
        GraphWrite::Sweep {
            user,
            fence,
            calendar,
            generation,
        } => vec![Statement {
            text: cypher::SWEEP,
            parameters: json!({
                "user": user,
                "fence": integer(fence.0),
                "calendar": calendar_uid(user, calendar),
                "generation": integer(*generation),
                "limit": REMOVE_EVENTS_MAX,
            }),
        }],
        GraphWrite::RemoveCalendar {
            user,
            fence,
            calendar,
        } => vec![Statement {
            text: cypher::REMOVE_CALENDAR,
            parameters: json!({
                "user": user,
                "fence": integer(fence.0),
                "calendar": calendar_uid(user, calendar),
                "limit": REMOVE_EVENTS_MAX,
            }),
        }],
    }
}

/// The statement that removes a user's node.
#[must_use]
pub fn remove_user(user: &UserId, fence: u64) -> Statement {
    Statement {
        text: cypher::REMOVE_USER,
        parameters: json!({ "user": user, "fence": integer(fence) }),
    }
}

/// The statement that removes contacts which a crash left without an event: sent once after a sweep.
#[must_use]
pub fn remove_orphans(user: &UserId, fence: u64) -> Statement {
    Statement {
        text: cypher::REMOVE_ORPHANS,
        parameters: json!({
            "user": user,
            "fence": integer(fence),
            "prefix": contact_uid(user, ""),
            "limit": REMOVE_EVENTS_MAX,
        }),
    }
}

/// A page of a snapshot: `text` is one of [`cypher::READ_CALENDARS`], [`cypher::READ_EVENTS`] and
/// [`cypher::READ_CONTACTS`]; `after` is the last uid of the page before, empty for the first.
#[must_use]
pub fn read_page(text: &'static str, user: &UserId, after: &str, rows_max: u64) -> Statement {
    Statement {
        text,
        parameters: json!({
            "user": user,
            "prefix": contact_uid(user, ""),
            "after": after,
            "limit": rows_max,
        }),
    }
}

/// Neo4j's integers are `i64`. Tokens and generations count up from 1 and never come near its end.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn calendar_value(user: &UserId, calendar: &CalendarRow) -> Value {
    let uid = calendar_uid(user, &calendar.id);
    json!({
        "uid": uid,
        "properties": {
            "id": uid,
            "user_id": user,
            "calendar_id": calendar.id,
            "name": calendar.name,
            "time_zone": calendar.time_zone,
            "access_role": calendar.access_role,
        },
    })
}

fn deletion_values(
    user: &UserId,
    calendar: &CalendarId,
    deletions: &[EventDeletion],
) -> Vec<Value> {
    let mut keyed: Vec<(String, i64)> = deletions
        .iter()
        .map(|deletion| (event_uid(user, calendar, &deletion.id), deletion.version))
        .collect();
    keyed.sort();
    keyed
        .into_iter()
        .map(|(uid, version)| json!({ "uid": uid, "version": version }))
        .collect()
}

/// The lists of an Apply's two statements, each sorted by key.
struct Batch {
    events: Vec<Value>,
    relationships: Vec<Value>,
    cuts: Vec<Value>,
    mentioned: Vec<String>,
}

impl Batch {
    fn new(user: &UserId, calendar: &CalendarId, upserts: &[EventRow]) -> Self {
        let mut rows: Vec<(String, &EventRow)> = upserts
            .iter()
            .map(|row| (event_uid(user, calendar, &row.id), row))
            .collect();
        rows.sort_by(|left, right| left.0.cmp(&right.0));
        let mut batch = Batch {
            events: Vec::with_capacity(rows.len()),
            relationships: Vec::with_capacity(rows.len()),
            cuts: Vec::new(),
            mentioned: Vec::new(),
        };
        for (uid, row) in rows {
            batch.push(user, calendar, uid, row);
        }
        batch.mentioned.sort();
        batch.mentioned.dedup();
        batch
    }

    fn push(&mut self, user: &UserId, calendar: &CalendarId, uid: String, row: &EventRow) {
        let series_uid = row
            .series_id
            .as_deref()
            .map(|series| event_uid(user, calendar, series));
        let properties = event_properties(user, calendar, &uid, series_uid.as_deref(), row);
        let mut relations = event_relations(user, row);
        let content_hash = content_hash(&properties, &relations);
        for person in row
            .attendees
            .iter()
            .map(|attendee| &attendee.person)
            .chain(&row.organizer)
        {
            self.mentioned.push(contact_uid(user, &person.key));
        }
        if let Some(until_ms) = row.series_until_ms {
            self.cuts
                .push(json!({ "uid": uid, "version": row.version, "until_ms": until_ms }));
        }
        relations.insert("uid".to_owned(), json!(uid));
        relations.insert("version".to_owned(), json!(row.version));
        relations.insert("content_hash".to_owned(), json!(content_hash));
        relations.insert("series_uid".to_owned(), json!(series_uid));
        self.relationships.push(Value::Object(relations));
        self.events.push(json!({
            "uid": uid,
            "version": row.version,
            "content_hash": content_hash,
            "properties": properties,
        }));
    }
}

/// Everything the node keeps except its key, version, generation and hashes. What is missing is null, so that it
/// is removed from a node that has it.
fn event_properties(
    user: &UserId,
    calendar: &CalendarId,
    uid: &str,
    series_uid: Option<&str>,
    row: &EventRow,
) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut put = |name: &str, value: Value| {
        properties.insert(name.to_owned(), value);
    };
    put("id", json!(uid));
    put("google_event_id", json!(row.id));
    put("user_id", json!(user));
    put("calendar_id", json!(calendar));
    put("source", json!(SOURCE));
    put("etag", json!(row.etag));
    put("status", json!(row.status));
    put("name", json!(row.name));
    put("description", json!(row.description));
    put("location", json!(row.location));
    put_time(
        &mut put,
        ["startTime", "start_ms", "start_zone"],
        Some(&row.start),
    );
    put_time(&mut put, ["endTime", "end_ms", "end_zone"], Some(&row.end));
    put_time(
        &mut put,
        ["original_start", "original_start_ms", "original_start_zone"],
        row.original_start.as_ref(),
    );
    put("all_day", json!(row.all_day));
    put("createdAt", json!(row.created));
    put("updatedAt", json!(row.updated));
    put("sequence", json!(row.sequence));
    put("ical_uid", json!(row.ical_uid));
    put("event_type", json!(row.event_type));
    put("visibility", json!(row.visibility));
    put("transparency", json!(row.transparency));
    put("recurrence", json!(row.recurrence));
    put("recurring_event_id", json!(row.series_id));
    put("series_uid", json!(series_uid));
    put("attendees_omitted", json!(row.attendees_omitted));
    properties
}

fn put_time(put: &mut impl FnMut(&str, Value), names: [&str; 3], time: Option<&EventTime>) {
    let [text, epoch_ms, zone] = names;
    put(text, json!(time.map(|time| &time.text)));
    put(epoch_ms, json!(time.map(|time| time.epoch_ms)));
    put(zone, json!(time.and_then(|time| time.zone.as_ref())));
}

fn event_relations(user: &UserId, row: &EventRow) -> Map<String, Value> {
    let mut attendees: Vec<&Attendee> = row.attendees.iter().collect();
    attendees.sort_by(|left, right| left.person.key.cmp(&right.person.key));
    let uids: Vec<String> = attendees
        .iter()
        .map(|attendee| contact_uid(user, &attendee.person.key))
        .collect();
    let people: Vec<Value> = attendees
        .iter()
        .map(|attendee| {
            let mut person = person_value(user, &attendee.person);
            person["relation"] = json!({
                "response_status": attendee.response_status,
                "optional": attendee.optional,
                "resource": attendee.resource,
                "is_self": attendee.is_self,
            });
            person
        })
        .collect();
    let organizers: Vec<Value> = row
        .organizer
        .iter()
        .map(|person| person_value(user, person))
        .collect();
    let organizer_uids: Vec<String> = row
        .organizer
        .iter()
        .map(|person| contact_uid(user, &person.key))
        .collect();
    let mut relations = Map::new();
    relations.insert("attendee_uids".to_owned(), json!(uids));
    relations.insert("organizer_uids".to_owned(), json!(organizer_uids));
    relations.insert("attendees".to_owned(), json!(people));
    relations.insert("organizers".to_owned(), json!(organizers));
    relations
}

fn person_value(user: &UserId, person: &Person) -> Value {
    json!({
        "uid": contact_uid(user, &person.key),
        "key": person.key,
        "email": person.email,
        "name": person.name,
    })
}

/// The same for the same content, on every machine. The version is not part of it.
fn content_hash(properties: &Map<String, Value>, relations: &Map<String, Value>) -> String {
    let mut text = Value::Object(properties.clone()).to_string();
    text.push_str(&Value::Object(relations.clone()).to_string());
    format!("{:016x}", stable_hash(0, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::command::LeaseToken;

    fn time(epoch_ms: i64) -> EventTime {
        EventTime {
            text: "2026-03-02T09:00:00+01:00".to_owned(),
            epoch_ms,
            zone: Some("Europe/Berlin".to_owned()),
        }
    }

    fn person(key: &str) -> Person {
        Person {
            key: key.to_owned(),
            email: Some(key.to_owned()),
            name: None,
        }
    }

    fn row(id: &str) -> EventRow {
        EventRow {
            id: id.to_owned(),
            version: 7,
            etag: "\"14\"".to_owned(),
            status: "confirmed".to_owned(),
            name: Some("'}) DETACH DELETE n //".to_owned()),
            description: None,
            location: None,
            start: time(0),
            end: time(1),
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
            organizer: Some(person("olga@example.com")),
            attendees: Vec::new(),
            attendees_omitted: false,
        }
    }

    fn apply(upserts: Vec<EventRow>, deletions: Vec<EventDeletion>) -> GraphWrite {
        GraphWrite::Apply {
            user: UserId::new("ada").unwrap(),
            fence: LeaseToken(3),
            calendar: CalendarRow {
                id: CalendarId::new("primary").unwrap(),
                name: None,
                time_zone: None,
                access_role: None,
            },
            generation: 1,
            upserts,
            deletions,
        }
    }

    #[test]
    fn a_page_of_250_events_is_two_statements_and_one_without_upserts_is_one() {
        let rows = (0..250).map(|index| row(&format!("e{index}"))).collect();
        assert_eq!(split(&apply(rows, Vec::new())).len(), 2);
        assert_eq!(split(&apply(Vec::new(), Vec::new())).len(), 1);
    }

    #[test]
    fn rows_are_sorted_by_key_whatever_order_they_came_in() {
        let there = split(&apply(vec![row("a"), row("b")], Vec::new()));
        let back = split(&apply(vec![row("b"), row("a")], Vec::new()));
        assert_eq!(there, back);
        assert_eq!(there[0].parameters["events"][0]["uid"], "ada|primary|a");
        assert_eq!(
            there[0].parameters["mentioned"],
            json!(["ada|olga@example.com"])
        );
        let deletions = ["z", "y"].map(|id| EventDeletion {
            id: id.to_owned(),
            version: i64::MAX,
        });
        let statements = split(&apply(Vec::new(), deletions.to_vec()));
        assert_eq!(
            statements[0].parameters["deletions"][0]["uid"],
            "ada|primary|y"
        );
    }

    #[test]
    fn text_of_users_never_reaches_a_statement() {
        let (user, fence) = (UserId::new("ada").unwrap(), LeaseToken(1));
        let calendar = CalendarId::new("'}) DETACH DELETE n //").unwrap();
        let writes = [
            apply(vec![row("a")], Vec::new()),
            GraphWrite::Spare {
                user: user.clone(),
                fence,
                calendar: calendar.clone(),
                generation: 1,
                events: vec!["'}) DETACH DELETE n //".to_owned()],
            },
            GraphWrite::Sweep {
                user: user.clone(),
                fence,
                calendar: calendar.clone(),
                generation: 1,
            },
            GraphWrite::RemoveCalendar {
                user: user.clone(),
                fence,
                calendar,
            },
        ];
        let mut statements: Vec<Statement> = writes.iter().flat_map(split).collect();
        statements.push(remove_orphans(&user, 1));
        statements.push(remove_user(&user, 1));
        for statement in statements {
            let is_known = |(_, text): &(&str, &str)| *text == statement.text;
            assert!(cypher::ALL.iter().any(is_known), "{}", statement.text);
            for name in cypher::parameters_of(statement.text) {
                assert!(!statement.parameters[name].is_null(), "{name} is missing");
            }
        }
    }

    #[test]
    fn the_hash_sees_content_and_people_but_not_the_version() {
        let hash = |row: EventRow| {
            split(&apply(vec![row], Vec::new()))[0].parameters["events"][0]["content_hash"].clone()
        };
        let mut newer = row("a");
        newer.version = 8;
        assert_eq!(hash(row("a")), hash(newer));
        let mut moved = row("a");
        moved.start.epoch_ms = 5;
        assert_ne!(hash(row("a")), hash(moved));
        let mut invited = row("a");
        invited.organizer = Some(person("otto@example.com"));
        assert_ne!(hash(row("a")), hash(invited));
    }

    #[test]
    fn every_statement_gets_exactly_the_parameters_that_it_names() {
        let user = UserId::new("ada").unwrap();
        let calendar = CalendarId::new("primary").unwrap();
        let mut statements = split(&apply(vec![row("a")], Vec::new()));
        statements.extend(split(&GraphWrite::Sweep {
            user: user.clone(),
            fence: LeaseToken(3),
            calendar: calendar.clone(),
            generation: 2,
        }));
        statements.extend(split(&GraphWrite::RemoveCalendar {
            user: user.clone(),
            fence: LeaseToken(u64::MAX),
            calendar,
        }));
        statements.push(remove_orphans(&user, 3));
        for text in [
            cypher::READ_CALENDARS,
            cypher::READ_EVENTS,
            cypher::READ_CONTACTS,
        ] {
            statements.push(read_page(text, &user, "", 10));
        }
        for statement in statements {
            let given = statement.parameters.as_object().unwrap();
            for named in cypher::parameters_of(statement.text) {
                assert!(given.contains_key(named), "{named} in {}", statement.text);
            }
        }
    }
}
