//! Reads a user's graph back, whole, through a connection that only reads.

use kalends_core::graph::{
    CalendarRow, EventRow, GraphSnapshot, Person, SnapshotEvent, calendar_uid, contact_uid,
};
use kalends_core::id::{CalendarId, UserId};
use rusqlite::{Connection, OptionalExtension, params};

use super::properties::{ContactProperties, attendee, calendar_row, event_row};

/// Why a graph could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// SQLite could not read.
    Sql(rusqlite::Error),
    /// What it read is not what we write; holds the node's key.
    Malformed(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Sql(error)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Sql(error) => write!(formatter, "{error}"),
            ReadError::Malformed(uid) => write!(formatter, "the node {uid:?} is malformed"),
        }
    }
}

/// The graph of `user` as of one moment; empty if there is none.
pub(super) fn snapshot(connection: &Connection, user: &UserId) -> Result<GraphSnapshot, ReadError> {
    // One transaction: the parts belong to the same moment, whatever is written meanwhile.
    let transaction = connection.unchecked_transaction()?;
    let user_node: Option<i64> = transaction
        .prepare_cached("SELECT id FROM node WHERE label = 'User' AND uid = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?;
    let Some(user_node) = user_node else {
        return Ok(GraphSnapshot::default());
    };
    let mut snapshot = GraphSnapshot {
        contacts: contacts(&transaction, user, user_node)?,
        ..GraphSnapshot::default()
    };
    for (calendar_node, calendar) in calendars(&transaction, user, user_node)? {
        events(
            &transaction,
            user,
            calendar_node,
            &calendar.id,
            &mut snapshot.events,
        )?;
        snapshot.calendars.push(calendar);
    }
    Ok(snapshot)
}

/// A page of a label's nodes that belong to `parent`, sorted by key: id, key, properties.
fn children(
    connection: &Connection,
    parent: i64,
    label: &str,
) -> rusqlite::Result<Vec<(i64, String, String)>> {
    connection
        .prepare_cached(
            // Left to itself, the planner walks all users' nodes of the label to save a sort.
            "SELECT id, uid, props FROM node INDEXED BY node_by_parent
             WHERE parent = ?1 AND label = ?2 ORDER BY uid",
        )?
        .query_map(params![parent, label], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect()
}

/// The part of a key that follows `prefix`.
fn suffix(uid: &str, prefix: &str) -> Result<String, ReadError> {
    uid.strip_prefix(prefix)
        .map(str::to_owned)
        .ok_or_else(|| ReadError::Malformed(uid.to_owned()))
}

fn contacts(
    connection: &Connection,
    user: &UserId,
    user_node: i64,
) -> Result<Vec<Person>, ReadError> {
    let prefix = contact_uid(user, "");
    children(connection, user_node, "Contact")?
        .into_iter()
        .map(|(_, uid, props)| {
            let read: ContactProperties<'_> =
                serde_json::from_str(&props).map_err(|_| ReadError::Malformed(uid.clone()))?;
            Ok(Person {
                key: suffix(&uid, &prefix)?,
                email: read.email.map(Into::into),
                name: read.name.map(Into::into),
            })
        })
        .collect()
}

fn calendars(
    connection: &Connection,
    user: &UserId,
    user_node: i64,
) -> Result<Vec<(i64, CalendarRow)>, ReadError> {
    // The key of a calendar begins as that of a contact: the user, then the id.
    let prefix = contact_uid(user, "");
    children(connection, user_node, "Calendar")?
        .into_iter()
        .map(|(node, uid, props)| {
            let id = CalendarId::new(&suffix(&uid, &prefix)?)
                .map_err(|_| ReadError::Malformed(uid.clone()))?;
            assert_eq!(uid, calendar_uid(user, &id));
            let row = calendar_row(id, &props).map_err(|_| ReadError::Malformed(uid))?;
            Ok((node, row))
        })
        .collect()
}

fn events(
    connection: &Connection,
    user: &UserId,
    calendar_node: i64,
    calendar: &CalendarId,
    events: &mut Vec<SnapshotEvent>,
) -> Result<(), ReadError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, uid, props, version, generation, original_start_ms
         FROM node INDEXED BY node_by_parent WHERE parent = ?1 AND label = 'Event' ORDER BY uid",
    )?;
    let mut rows = statement.query([calendar_node])?;
    while let Some(row) = rows.next()? {
        let node: i64 = row.get(0)?;
        let uid: String = row.get(1)?;
        let props: String = row.get(2)?;
        let generation: i64 = row.get(4)?;
        let mut event = event_row(&props, row.get(3)?, row.get(5)?)
            .map_err(|_| ReadError::Malformed(uid.clone()))?;
        people(connection, user, node, &mut event)?;
        events.push(SnapshotEvent {
            calendar: calendar.clone(),
            row: event,
            generation: u64::try_from(generation).map_err(|_| ReadError::Malformed(uid))?,
        });
    }
    Ok(())
}

fn people(
    connection: &Connection,
    user: &UserId,
    node: i64,
    event: &mut EventRow,
) -> Result<(), ReadError> {
    let prefix = contact_uid(user, "");
    let mut statement = connection.prepare_cached(
        "SELECT edge.type, edge.props, node.uid, node.props FROM edge JOIN node ON node.id = edge.dst
         WHERE edge.src = ?1 ORDER BY node.uid",
    )?;
    let mut rows = statement.query([node])?;
    while let Some(row) = rows.next()? {
        let edge_type: String = row.get(0)?;
        let props: String = row.get(1)?;
        let uid: String = row.get(2)?;
        let contact: String = row.get(3)?;
        let contact: ContactProperties<'_> =
            serde_json::from_str(&contact).map_err(|_| ReadError::Malformed(uid.clone()))?;
        let person = Person {
            key: suffix(&uid, &prefix)?,
            email: contact.email.map(Into::into),
            name: contact.name.map(Into::into),
        };
        let read = attendee(&props, person).map_err(|_| ReadError::Malformed(uid))?;
        match edge_type.as_str() {
            "ORGANIZED_BY" => event.organizer = Some(read.person),
            "ATTENDED_BY" => event.attendees.push(read),
            // Somebody else's relationship in our file: not ours to judge.
            _ => {}
        }
    }
    Ok(())
}
