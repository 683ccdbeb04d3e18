//! What each of Kalends' statements does, told in Rust over the property graph.
//!
//! A statement is recognised by its exact text and follows that text clause by clause, from the parameters alone: so
//! a change to a statement in core shows here as an unknown one until its meaning is told anew. This is no Cypher
//! engine; that the texts are right Cypher is for Neo4j's own parser to say (`scripts/lint-cypher`).

use std::collections::BTreeSet;

use kalends_core::graph::cypher;
use serde_json::{Map, Value, json};

use super::answer::{ServerError, Table};
use super::property_graph::{NodeId, PropertyGraph};

const PEOPLE: [&str; 2] = ["ATTENDED_BY", "ORGANIZED_BY"];

type Outcome = Result<Table, ServerError>;

/// One statement that is known.
pub(super) struct Known {
    /// Its columns; empty for one without, which reports its errors by status instead of in the body.
    pub(super) fields: &'static [&'static str],
    /// Whether it needs leave to write.
    pub(super) writes: bool,
    /// What it does.
    pub(super) run: fn(&mut PropertyGraph, &Value) -> Outcome,
}

/// The statement with this text.
pub(super) fn known(text: &str) -> Option<Known> {
    let write = |fields, run| {
        Some(Known {
            fields,
            writes: true,
            run,
        })
    };
    let read = |fields, run| {
        Some(Known {
            fields,
            writes: false,
            run,
        })
    };
    match text {
        cypher::APPLY_EVENTS => write(&["fenced", "upserted", "deleted"], apply_events),
        cypher::APPLY_RELATIONSHIPS => write(&["fenced", "linked"], apply_relationships),
        cypher::SPARE => write(&["fenced", "spared"], spare),
        cypher::SWEEP => write(&["fenced", "deleted"], sweep),
        cypher::REMOVE_CALENDAR => write(&["fenced", "deleted"], remove_calendar),
        cypher::REMOVE_ORPHANS => write(&["removed"], remove_orphans),
        cypher::REMOVE_USER => write(&["removed"], remove_user),
        cypher::READ_CALENDARS => read(
            &["uid", "calendar_id", "name", "time_zone", "access_role"],
            read_calendars,
        ),
        cypher::READ_EVENTS => read(
            &["uid", "calendar_id", "properties", "organizer", "attendees"],
            read_events,
        ),
        cypher::READ_CONTACTS => read(&["uid", "key", "email", "name"], read_contacts),
        cypher::PROBE => read(&["name", "versions", "edition"], probe),
        _ => schema_rule(text),
    }
}

fn schema_rule(text: &str) -> Option<Known> {
    let runs: [fn(&mut PropertyGraph, &Value) -> Outcome; 6] = [
        |graph, _| ensure(graph, "user_uid", Some(("User", "uid"))),
        |graph, _| ensure(graph, "calendar_uid", Some(("Calendar", "uid"))),
        |graph, _| ensure(graph, "event_uid", Some(("Event", "uid"))),
        |graph, _| ensure(graph, "contact_uid", Some(("Contact", "uid"))),
        |graph, _| ensure(graph, "event_start", None),
        |graph, _| ensure(graph, "event_series", None),
    ];
    let index = cypher::ENSURE_SCHEMA
        .iter()
        .position(|rule| *rule == text)?;
    Some(Known {
        fields: &[],
        writes: true,
        run: runs[index],
    })
}

fn ensure(graph: &mut PropertyGraph, name: &str, unique: Option<(&str, &str)>) -> Outcome {
    graph.ensure_schema(name, unique)?;
    Ok(Table::default())
}

fn probe(_: &mut PropertyGraph, _: &Value) -> Outcome {
    Ok(Table::row(
        &["name", "versions", "edition"],
        vec![
            json!("Kalends' emulator of Neo4j"),
            json!([env!("CARGO_PKG_VERSION")]),
            json!("emulated"),
        ],
    ))
}

fn list(value: &Value) -> Result<&[Value], ServerError> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| ServerError::new("Neo.ClientError.Statement.TypeError", "expected a list"))
}

fn limit(parameters: &Value) -> Result<usize, ServerError> {
    parameters["limit"]
        .as_u64()
        .and_then(|limit| usize::try_from(limit).ok())
        .ok_or_else(|| {
            ServerError::new(
                "Neo.ClientError.Statement.ArgumentError",
                "LIMIT must be a whole number that is not negative",
            )
        })
}

/// Whether `left <= right` is not false: a missing left side counts as older than anything.
fn not_newer(left: &Value, right: &Value) -> bool {
    match (left.as_i64(), right.as_i64()) {
        (None, _) => true,
        (Some(left), Some(right)) => left <= right,
        (Some(_), None) => false,
    }
}

fn is_live(graph: &PropertyGraph, user: NodeId, parameters: &Value) -> bool {
    let fence = graph.get(user, "fence").as_i64().unwrap_or(0);
    parameters["fence"].as_i64().is_some_and(|own| fence <= own)
}

/// The first clauses of a write: the user's node as a lock, then the fence; one that was made just now is held to the fence of the
/// last removal, and goes again if that is larger.
fn enter(graph: &mut PropertyGraph, parameters: &Value) -> Result<(NodeId, bool), ServerError> {
    let (user, made) = graph.merge_node("User", &parameters["user"])?;
    graph.set(user, "id", parameters["user"].clone())?;
    graph.set(user, "lock", json!(true))?;
    if made {
        let removed = removal(graph).map_or(0, |(_, fence)| fence);
        graph.set(user, "fence", json!(removed))?;
    }
    let live = is_live(graph, user, parameters);
    if live {
        graph.set(user, "fence", parameters["fence"].clone())?;
    } else if made {
        graph.delete(user)?;
    }
    Ok((user, live))
}

/// The node that keeps the largest fence of a removal, and that fence.
fn removal(graph: &PropertyGraph) -> Option<(NodeId, i64)> {
    let node = *graph
        .find("KalendsRemoval", "uid", &json!("kalends"))
        .first()?;
    Some((node, graph.get(node, "fence").as_i64()?))
}

fn people_of(graph: &PropertyGraph, events: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    events
        .iter()
        .flat_map(|event| graph.outgoing(*event, &PEOPLE))
        .map(|(_, contact)| contact)
        .collect()
}

fn is_orphan(graph: &PropertyGraph, contact: NodeId) -> bool {
    graph.get(contact, "made_by") == "kalends" && !graph.is_connected(contact)
}

/// Removes events, and their contacts that are orphans then unless they are among `mentioned`.
fn remove(
    graph: &mut PropertyGraph,
    events: &BTreeSet<NodeId>,
    mentioned: &BTreeSet<&str>,
) -> Result<(), ServerError> {
    let people = people_of(graph, events);
    for event in events {
        graph.detach_delete(*event);
    }
    for contact in people {
        let uid = graph.get(contact, "uid").as_str().unwrap_or_default();
        if is_orphan(graph, contact) && !mentioned.contains(uid) {
            graph.delete(contact)?;
        }
    }
    Ok(())
}

fn apply_events(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    const FIELDS: &[&str] = &["fenced", "upserted", "deleted"];
    let (user, live) = enter(graph, parameters)?;
    if !live {
        return Ok(Table::row(FIELDS, vec![json!(true), json!(0), json!(0)]));
    }
    let (calendar, _) = graph.merge_node("Calendar", &parameters["calendar"]["uid"])?;
    graph.set_all(calendar, &parameters["calendar"]["properties"])?;
    graph.merge_relationship(user, "HAS_CALENDAR", calendar);

    let mut removed = BTreeSet::new();
    for deletion in list(&parameters["deletions"])? {
        let standing = graph.find("Event", "uid", &deletion["uid"]);
        let stale = standing
            .iter()
            .any(|event| !not_newer(graph.get(*event, "version"), &deletion["version"]));
        if !stale {
            removed.extend(standing);
            removed.extend(graph.find("Event", "series_uid", &deletion["uid"]));
        }
    }
    for cut in list(&parameters["cuts"])? {
        let stale = graph
            .find("Event", "uid", &cut["uid"])
            .iter()
            .any(|event| !not_newer(graph.get(*event, "version"), &cut["version"]));
        if !stale {
            let exceptions = graph.find("Event", "series_uid", &cut["uid"]);
            removed.extend(exceptions.into_iter().filter(|event| {
                graph.get(*event, "original_start_ms").as_i64() > cut["until_ms"].as_i64()
            }));
        }
    }
    let mentioned: BTreeSet<&str> = list(&parameters["mentioned"])?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    remove(graph, &removed, &mentioned)?;

    let mut upserted = 0_u64;
    for row in list(&parameters["events"])? {
        let standing = graph.find("Event", "uid", &row["uid"]).first().copied();
        if let Some(event) = standing {
            let version = graph.get(event, "version");
            let newer = !not_newer(version, &row["version"]);
            let same = *version == row["version"]
                && *graph.get(event, "content_hash") == row["content_hash"];
            if newer || same {
                graph.set(event, "generation", parameters["generation"].clone())?;
                continue;
            }
        }
        let (event, _) = graph.merge_node("Event", &row["uid"])?;
        graph.set_all(event, &row["properties"])?;
        for name in ["version", "content_hash"] {
            graph.set(event, name, row[name].clone())?;
        }
        graph.set(event, "generation", parameters["generation"].clone())?;
        graph.merge_relationship(calendar, "HAS_EVENT", event);
        upserted += 1;
    }
    Ok(Table::row(
        FIELDS,
        vec![json!(false), json!(upserted), json!(removed.len())],
    ))
}

fn apply_relationships(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    const FIELDS: &[&str] = &["fenced", "linked"];
    let Some(user) = graph
        .find("User", "uid", &parameters["user"])
        .first()
        .copied()
    else {
        return Ok(Table {
            fields: FIELDS,
            values: Vec::new(),
        });
    };
    graph.set(user, "lock", json!(true))?;
    let live = is_live(graph, user, parameters);
    let rows = if live {
        list(&parameters["rows"])?
    } else {
        &[]
    };
    let mut candidates = BTreeSet::new();
    let mut linked = 0_u64;
    for row in rows {
        for event in graph.find("Event", "uid", &row["uid"]) {
            let as_written = *graph.get(event, "version") == row["version"]
                && *graph.get(event, "content_hash") == row["content_hash"];
            if as_written && *graph.get(event, "linked_hash") != row["content_hash"] {
                candidates.extend(link(graph, event, row, &parameters["user"])?);
                linked += 1;
            }
        }
    }
    for uid in list(&parameters["mentioned"])? {
        candidates.extend(graph.find("Contact", "uid", uid));
    }
    for contact in candidates {
        if is_orphan(graph, contact) {
            graph.delete(contact)?;
        }
    }
    Ok(Table::row(FIELDS, vec![json!(!live), json!(linked)]))
}

/// Makes the relationships of one event as its row says; gives the contacts that it parted from.
fn link(
    graph: &mut PropertyGraph,
    event: NodeId,
    row: &Value,
    user: &Value,
) -> Result<Vec<NodeId>, ServerError> {
    let mut parted = Vec::new();
    for (kind, keep) in [
        ("ATTENDED_BY", list(&row["attendee_uids"])?),
        ("ORGANIZED_BY", list(&row["organizer_uids"])?),
    ] {
        for (relationship, contact) in graph.outgoing(event, &[kind]) {
            let uid = graph.get(contact, "uid");
            if !uid.is_null() && !keep.contains(uid) {
                graph.delete_relationship(relationship);
                parted.push(contact);
            }
        }
    }
    for person in list(&row["attendees"])? {
        let contact = merge_contact(graph, person, user)?;
        let tie = graph.merge_relationship(event, "ATTENDED_BY", contact);
        graph.set_all_of_relationship(tie, &person["relation"])?;
    }
    for person in list(&row["organizers"])? {
        let contact = merge_contact(graph, person, user)?;
        graph.merge_relationship(event, "ORGANIZED_BY", contact);
    }
    for (tie, other) in graph.outgoing(event, &["EXCEPTION_OF"]) {
        if *graph.get(other, "uid") != row["series_uid"] {
            graph.delete_relationship(tie);
        }
    }
    for series in graph.find("Event", "uid", &row["series_uid"]) {
        graph.merge_relationship(event, "EXCEPTION_OF", series);
    }
    for exception in graph.find("Event", "series_uid", &row["uid"]) {
        graph.merge_relationship(exception, "EXCEPTION_OF", event);
    }
    graph.set(event, "linked_hash", row["content_hash"].clone())?;
    Ok(parted)
}

fn merge_contact(
    graph: &mut PropertyGraph,
    person: &Value,
    user: &Value,
) -> Result<NodeId, ServerError> {
    let (contact, created) = graph.merge_node("Contact", &person["uid"])?;
    if created {
        graph.set(contact, "id", person["uid"].clone())?;
        graph.set(contact, "key", person["key"].clone())?;
        graph.set(contact, "user_id", user.clone())?;
        graph.set(contact, "made_by", json!("kalends"))?;
    }
    for name in ["email", "name"] {
        let value = match &person[name] {
            Value::Null => graph.get(contact, name).clone(),
            given => given.clone(),
        };
        graph.set(contact, name, value)?;
    }
    Ok(contact)
}

/// At most `limit` events of a calendar, those for which `wanted` says so.
fn some_events(
    graph: &PropertyGraph,
    parameters: &Value,
    wanted: impl Fn(NodeId) -> bool,
) -> Result<BTreeSet<NodeId>, ServerError> {
    let limit = limit(parameters)?;
    Ok(graph
        .find("Calendar", "uid", &parameters["calendar"])
        .into_iter()
        .flat_map(|calendar| graph.outgoing(calendar, &["HAS_EVENT"]))
        .map(|(_, event)| event)
        .filter(|event| wanted(*event))
        .take(limit)
        .collect())
}

fn spare(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    const FIELDS: &[&str] = &["fenced", "spared"];
    let (_, live) = enter(graph, parameters)?;
    let named = parameters["events"].as_array().into_iter().flatten();
    let spared: BTreeSet<NodeId> = named
        .filter(|_| live)
        .flat_map(|uid| graph.find("Event", "uid", uid))
        .collect();
    for event in &spared {
        graph.set(*event, "generation", parameters["generation"].clone())?;
    }
    Ok(Table::row(FIELDS, vec![json!(!live), json!(spared.len())]))
}

fn sweep(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    const FIELDS: &[&str] = &["fenced", "deleted"];
    let (_, live) = enter(graph, parameters)?;
    let removed = some_events(graph, parameters, |event| {
        let stands = graph.get(event, "generation").as_i64();
        let swept = parameters["generation"].as_i64();
        live && stands
            .zip(swept)
            .is_some_and(|(stands, swept)| stands < swept)
    })?;
    remove(graph, &removed, &BTreeSet::new())?;
    Ok(Table::row(FIELDS, vec![json!(!live), json!(removed.len())]))
}

fn remove_calendar(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    const FIELDS: &[&str] = &["fenced", "deleted"];
    let (_, live) = enter(graph, parameters)?;
    let removed = some_events(graph, parameters, |_| live)?;
    remove(graph, &removed, &BTreeSet::new())?;
    if live && removed.len() < limit(parameters)? {
        for calendar in graph.find("Calendar", "uid", &parameters["calendar"]) {
            graph.detach_delete(calendar);
        }
    }
    Ok(Table::row(FIELDS, vec![json!(!live), json!(removed.len())]))
}

fn remove_user(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    let mut removed = 0;
    let standing = graph.find("User", "uid", &parameters["user"]);
    for user in &standing {
        if is_live(graph, *user, parameters) && !graph.is_connected(*user) {
            graph.delete(*user)?;
            removed += 1;
        }
    }
    if removed == standing.len() {
        let known = removal(graph);
        let (node, _) = graph.merge_node("KalendsRemoval", &json!("kalends"))?;
        let own = parameters["fence"].as_i64();
        let largest = known.map(|(_, fence)| fence).max(own);
        graph.set(node, "fence", json!(largest))?;
    }
    Ok(Table::row(&["removed"], vec![json!(removed)]))
}

fn remove_orphans(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    const FIELDS: &[&str] = &["removed"];
    let Some(user) = graph
        .find("User", "uid", &parameters["user"])
        .first()
        .copied()
    else {
        return Ok(Table::row(FIELDS, vec![json!(0)]));
    };
    graph.set(user, "lock", json!(true))?;
    let mut orphans: Vec<NodeId> = Vec::new();
    if is_live(graph, user, parameters) {
        let prefix = parameters["prefix"].as_str().unwrap_or_default();
        orphans = graph
            .with_uid_prefix("Contact", prefix, "")
            .filter(|contact| *graph.get(*contact, "user_id") == parameters["user"])
            .filter(|contact| is_orphan(graph, *contact))
            .take(limit(parameters)?)
            .collect();
    }
    for contact in &orphans {
        graph.delete(*contact)?;
    }
    Ok(Table::row(FIELDS, vec![json!(orphans.len())]))
}

fn read_calendars(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    let after = parameters["after"].as_str().unwrap_or_default();
    let mut calendars: Vec<NodeId> = graph
        .find("User", "uid", &parameters["user"])
        .into_iter()
        .flat_map(|user| graph.outgoing(user, &["HAS_CALENDAR"]))
        .map(|(_, calendar)| calendar)
        .filter(|calendar| {
            graph
                .get(*calendar, "uid")
                .as_str()
                .is_some_and(|uid| uid > after)
        })
        .collect();
    calendars.sort_by_key(|calendar| graph.get(*calendar, "uid").as_str());
    calendars.truncate(limit(parameters)?);
    const FIELDS: &[&str] = &["uid", "calendar_id", "name", "time_zone", "access_role"];
    Ok(columns(graph, FIELDS, &calendars))
}

fn read_contacts(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    let contacts = page(graph, "Contact", parameters)?;
    Ok(columns(graph, &["uid", "key", "email", "name"], &contacts))
}

fn read_events(graph: &mut PropertyGraph, parameters: &Value) -> Outcome {
    let events = page(graph, "Event", parameters)?;
    let values = events
        .iter()
        .map(|event| {
            let calendar = graph
                .incoming(*event, "HAS_EVENT")
                .into_iter()
                .find(|calendar| {
                    graph
                        .incoming(*calendar, "HAS_CALENDAR")
                        .iter()
                        .any(|user| *graph.get(*user, "uid") == parameters["user"])
                })
                .map_or(Value::Null, |calendar| {
                    graph.get(calendar, "calendar_id").clone()
                });
            let organizer = graph
                .outgoing(*event, &["ORGANIZED_BY"])
                .first()
                .map_or(Value::Null, |(_, contact)| {
                    Value::Object(person(graph, *contact))
                });
            let attendees: Vec<Value> = graph
                .outgoing(*event, &["ATTENDED_BY"])
                .into_iter()
                .map(|(tie, contact)| {
                    let mut attendee = person(graph, contact);
                    for name in ["response_status", "optional", "resource", "is_self"] {
                        let value = graph.get_of_relationship(tie, name).clone();
                        attendee.insert(name.to_owned(), value);
                    }
                    Value::Object(attendee)
                })
                .collect();
            let properties = graph.node(*event).map(|node| &node.properties);
            vec![
                graph.get(*event, "uid").clone(),
                calendar,
                json!(properties),
                organizer,
                Value::Array(attendees),
            ]
        })
        .collect();
    Ok(Table {
        fields: &["uid", "calendar_id", "properties", "organizer", "attendees"],
        values,
    })
}

fn person(graph: &PropertyGraph, contact: NodeId) -> Map<String, Value> {
    ["key", "email", "name"]
        .into_iter()
        .map(|name| (name.to_owned(), graph.get(contact, name).clone()))
        .collect()
}

fn page(
    graph: &PropertyGraph,
    label: &'static str,
    parameters: &Value,
) -> Result<Vec<NodeId>, ServerError> {
    let text = |name: &str| parameters[name].as_str().unwrap_or_default();
    Ok(graph
        .with_uid_prefix(label, text("prefix"), text("after"))
        .filter(|node| *graph.get(*node, "user_id") == parameters["user"])
        .take(limit(parameters)?)
        .collect())
}

fn columns(graph: &PropertyGraph, fields: &'static [&'static str], nodes: &[NodeId]) -> Table {
    let values = nodes
        .iter()
        .map(|node| {
            fields
                .iter()
                .map(|field| graph.get(*node, field).clone())
                .collect()
        })
        .collect();
    Table { fields, values }
}
