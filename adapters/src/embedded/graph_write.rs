//! Applies one graph write inside the transaction that the writing thread has open.
//!
//! The rules are those of `kalends_core::graph`. The cost is kept low by three things: one lookup for each event (which
//! brings the version and the hash of the content, so an event that stands there the same is neither read nor written),
//! a cache of contacts that lives as long as the batch, and statements that are prepared once for the connection.
//!
//! An event whose row is older than what stands there is left alone, but stamped: a full pass did see it, if only an
//! older state of it, and must not sweep it away.

use std::collections::{BTreeMap, BTreeSet};

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::graph::{
    BATCH_EVENTS_MAX, CalendarRow, EventDeletion, EventRow, GraphCounts, GraphReply, GraphWrite,
    calendar_uid, event_uid,
};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::queue::command::LeaseToken;
use rusqlite::{Connection, OptionalExtension, params};

use super::graph_people::Contact;
use super::properties::{calendar_text, event_text};

/// At most this many events are removed in one step of a sweep, or of the removal of a calendar. It bounds how long a
/// transaction takes (some ten milliseconds) and its memory, however large the calendar is.
pub(super) const STEP_EVENTS_MAX: usize = 1_000;

/// Why a write was not applied.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The write itself cannot be accepted; the file is as it was.
    Refused(Failure),
    /// SQLite could not do it; what was done of this write has to be rolled back.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        WriteError::Sql(error)
    }
}

/// A write and how far it has come.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) write: GraphWrite,
    /// What the steps so far have done.
    counts: GraphCounts,
    /// A sweep has looked at all nodes up to this one.
    swept_to: i64,
}

impl Unfinished {
    /// A write of which nothing is done yet.
    pub(super) fn new(write: GraphWrite) -> Self {
        Unfinished {
            write,
            counts: GraphCounts::default(),
            swept_to: i64::MIN,
        }
    }
}

/// What one step of a write came to.
#[derive(Debug)]
pub(super) enum Step {
    /// That was the last one.
    Done(GraphReply),
    /// There is more to do.
    More,
}

/// At most this many events one step of a write touches: what the writing thread weighs it by.
pub(super) fn weight_of(write: &GraphWrite) -> usize {
    match write {
        GraphWrite::Apply {
            upserts, deletions, ..
        } => upserts.len() + deletions.len(),
        GraphWrite::Spare { events, .. } => events.len(),
        GraphWrite::Sweep { .. } | GraphWrite::RemoveCalendar { .. } => STEP_EVENTS_MAX,
    }
}

/// Does the next step of a write. The caller has a transaction open, and rolls back to where it stood if this fails.
pub(super) fn apply(
    connection: &Connection,
    unfinished: &mut Unfinished,
) -> Result<Step, WriteError> {
    let Unfinished {
        write,
        counts,
        swept_to,
    } = unfinished;
    let write = &*write;
    if weight_of(write) > BATCH_EVENTS_MAX {
        return Err(refused(
            FailureKind::TooLarge,
            format!("the batch has more than {BATCH_EVENTS_MAX} events; send fewer at a time"),
        ));
    }
    let (user, fence, generation) = match write {
        GraphWrite::Apply {
            user,
            fence,
            generation,
            ..
        }
        | GraphWrite::Spare {
            user,
            fence,
            generation,
            ..
        }
        | GraphWrite::Sweep {
            user,
            fence,
            generation,
            ..
        } => (user, *fence, *generation),
        GraphWrite::RemoveCalendar { user, fence, .. } => (user, *fence, 0),
    };
    let generation = signed(generation, "generation")?;
    let Some(user_node) = pass_fence(connection, user, fence)? else {
        return Ok(Step::Done(GraphReply::Fenced));
    };
    let mut batch = Batch {
        connection,
        user,
        user_node,
        contacts: BTreeMap::new(),
        loosened: BTreeSet::new(),
        counts: *counts,
    };
    let done = match write {
        GraphWrite::Apply {
            calendar,
            upserts,
            deletions,
            ..
        } => {
            batch.apply_events(calendar, generation, upserts, deletions)?;
            true
        }
        GraphWrite::Spare {
            calendar, events, ..
        } => {
            batch.spare(calendar, generation, events)?;
            true
        }
        GraphWrite::Sweep { calendar, .. } => batch.sweep(calendar, generation, swept_to)?,
        GraphWrite::RemoveCalendar { calendar, .. } => batch.remove_calendar(calendar)?,
    };
    batch.remove_unused_contacts()?;
    *counts = batch.counts;
    Ok(if done {
        Step::Done(GraphReply::Written(*counts))
    } else {
        Step::More
    })
}

/// The label and the uid of the one node that keeps the largest fencing token of a removal (as its version), and no name.
const REMOVAL: [&str; 2] = ["Removal", "kalends"];

/// Removes a user's node with what is left below it, if no calendar is and no later lease wrote to it; whether there was
/// one. When it is gone, older leases cannot make it again.
pub(super) fn remove_user(
    connection: &Connection,
    user: &UserId,
    fence: LeaseToken,
) -> rusqlite::Result<bool> {
    let fence = i64::try_from(fence.0).unwrap_or(i64::MAX);
    let removed = connection
        .prepare_cached(
            "DELETE FROM node WHERE label = 'User' AND uid = ?1 AND coalesce(version, 0) <= ?2
             AND NOT EXISTS (SELECT 1 FROM node AS below WHERE below.parent = node.id AND below.label = 'Calendar')",
        )?
        .execute(params![user.as_str(), fence])?;
    let [label, uid] = REMOVAL;
    connection
        .prepare_cached(
            "INSERT INTO node (label, uid, version, props)
             SELECT ?1, ?2, ?3, '{}' WHERE NOT EXISTS (SELECT 1 FROM node WHERE label = 'User' AND uid = ?4)
             ON CONFLICT (label, uid) DO UPDATE SET version = max(version, excluded.version)",
        )?
        .execute(params![label, uid, fence, user.as_str()])?;
    Ok(removed > 0)
}

fn refused(kind: FailureKind, detail: impl Into<String>) -> WriteError {
    WriteError::Refused(Failure::new(kind, detail))
}

/// SQLite's integers are signed; tokens and generations stay far below the difference (they count microseconds).
fn signed(value: u64, what: &str) -> Result<i64, WriteError> {
    i64::try_from(value).map_err(|_| {
        refused(
            FailureKind::Rejected,
            format!("the {what} {value} is larger than the graph can keep; no store hands it out"),
        )
    })
}

/// The user's node, with `fence` recorded on it; `None` if a later lease wrote before, or if there is none and somebody was removed
/// under a later token: it may have been this user.
fn pass_fence(
    connection: &Connection,
    user: &UserId,
    fence: LeaseToken,
) -> Result<Option<i64>, WriteError> {
    let fence = signed(fence.0, "fencing token")?;
    let standing: Option<(i64, i64)> = connection
        .prepare_cached("SELECT id, version FROM node WHERE label = 'User' AND uid = ?1")?
        .query_row([user.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match standing {
        Some((_, seen)) if fence < seen => Ok(None),
        Some((node, seen)) => {
            if fence > seen {
                connection
                    .prepare_cached("UPDATE node SET version = ?2 WHERE id = ?1")?
                    .execute([node, fence])?;
            }
            Ok(Some(node))
        }
        None => {
            let removed: Option<i64> = connection
                .prepare_cached("SELECT version FROM node WHERE label = ?1 AND uid = ?2")?
                .query_row(REMOVAL, |row| row.get(0))
                .optional()?;
            if removed.is_some_and(|removed| fence < removed) {
                return Ok(None);
            }
            connection
                .prepare_cached(
                    "INSERT INTO node (label, uid, version, props) VALUES ('User', ?1, ?2, '{}')",
                )?
                .execute(params![user.as_str(), fence])?;
            Ok(Some(connection.last_insert_rowid()))
        }
    }
}

/// An event as one lookup finds it.
struct Standing {
    node: i64,
    version: i64,
    generation: i64,
    content: i64,
}

/// One write, under way.
pub(super) struct Batch<'a> {
    pub(super) connection: &'a Connection,
    pub(super) user: &'a UserId,
    pub(super) user_node: i64,
    /// By key: contacts that this batch has looked up or made.
    pub(super) contacts: BTreeMap<&'a str, Contact>,
    /// Contacts that lost an edge: whoever has none left at the end is removed.
    pub(super) loosened: BTreeSet<i64>,
    counts: GraphCounts,
}

impl<'a> Batch<'a> {
    fn apply_events(
        &mut self,
        calendar: &'a CalendarRow,
        generation: i64,
        upserts: &'a [EventRow],
        deletions: &'a [EventDeletion],
    ) -> Result<(), WriteError> {
        let calendar_node = self.write_calendar(calendar)?;
        let mut uid = event_uid(self.user, &calendar.id, "");
        let prefix_bytes = uid.len();
        for deletion in deletions {
            uid.truncate(prefix_bytes);
            uid.push_str(&deletion.id);
            self.delete(&uid, calendar_node, deletion.version)?;
        }
        // Cuts too come before upserts: what the same answer says of an exception after the cut is newer than the cut.
        for row in upserts {
            if let Some(until_ms) = row.series_until_ms {
                uid.truncate(prefix_bytes);
                uid.push_str(&row.id);
                let standing = self.standing_event(&uid, calendar_node)?;
                if standing.is_none_or(|standing| standing.version <= row.version) {
                    self.remove_exceptions(&uid, calendar_node, Some(until_ms))?;
                }
            }
        }
        for row in upserts {
            uid.truncate(prefix_bytes);
            uid.push_str(&row.id);
            self.upsert(&uid, prefix_bytes, calendar_node, generation, row)?;
        }
        Ok(())
    }

    fn write_calendar(&mut self, calendar: &CalendarRow) -> Result<i64, WriteError> {
        let uid = calendar_uid(self.user, &calendar.id);
        let props = calendar_text(calendar);
        let standing: Option<(i64, i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT id, parent, props FROM node WHERE label = 'Calendar' AND uid = ?1",
            )?
            .query_row([&uid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        match standing {
            Some((node, parent, standing_props)) => {
                belongs(parent == self.user_node, &uid)?;
                if standing_props != props {
                    self.connection
                        .prepare_cached("UPDATE node SET props = ?2 WHERE id = ?1")?
                        .execute(params![node, props])?;
                }
                Ok(node)
            }
            None => {
                self.connection
                    .prepare_cached(
                        "INSERT INTO node (label, uid, parent, props) VALUES ('Calendar', ?1, ?2, ?3)",
                    )?
                    .execute(params![uid, self.user_node, props])?;
                Ok(self.connection.last_insert_rowid())
            }
        }
    }

    fn standing_event(
        &self,
        uid: &str,
        calendar_node: i64,
    ) -> Result<Option<Standing>, WriteError> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT id, version, generation, content, parent FROM node
                 WHERE label = 'Event' AND uid = ?1",
            )?
            .query_row([uid], |row| {
                let standing = Standing {
                    node: row.get(0)?,
                    version: row.get(1)?,
                    generation: row.get(2)?,
                    content: row.get(3)?,
                };
                Ok((standing, row.get::<_, i64>(4)?))
            })
            .optional()?;
        match found {
            Some((standing, parent)) => {
                belongs(parent == calendar_node, uid)?;
                Ok(Some(standing))
            }
            None => Ok(None),
        }
    }

    /// Writes one event.
    fn upsert(
        &mut self,
        uid: &str,
        prefix_bytes: usize,
        calendar_node: i64,
        generation: i64,
        row: &'a EventRow,
    ) -> Result<(), WriteError> {
        let standing = self.standing_event(uid, calendar_node)?;
        if let Some(standing) = &standing
            && row.version < standing.version
        {
            return self.stamp(standing, generation);
        }
        let text = event_text(row);
        let series = row.series_id.as_ref().map(|id| {
            let mut series = String::with_capacity(prefix_bytes + id.len());
            series.push_str(&uid[..prefix_bytes]);
            series.push_str(id);
            series
        });
        let original_start_ms = row.original_start.as_ref().map(|time| time.epoch_ms);
        let node = match standing {
            Some(standing)
                if standing.version == row.version && standing.content == text.content =>
            {
                return self.stamp(&standing, generation);
            }
            Some(standing) => {
                self.connection
                    .prepare_cached(
                        "UPDATE node SET version = ?2, generation = ?3, content = ?4, series = ?5,
                         original_start_ms = ?6, props = ?7 WHERE id = ?1",
                    )?
                    .execute(params![
                        standing.node,
                        row.version,
                        generation,
                        text.content,
                        series,
                        original_start_ms,
                        text.props
                    ])?;
                self.remove_people(standing.node)?;
                standing.node
            }
            None => {
                self.connection
                    .prepare_cached(
                        "INSERT INTO node (label, uid, parent, version, generation, content, series,
                         original_start_ms, props) VALUES ('Event', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?
                    .execute(params![
                        uid,
                        calendar_node,
                        row.version,
                        generation,
                        text.content,
                        series,
                        original_start_ms,
                        text.props
                    ])?;
                self.connection.last_insert_rowid()
            }
        };
        self.write_people(node, row)?;
        self.counts.upserted += 1;
        Ok(())
    }

    fn stamp(&self, standing: &Standing, generation: i64) -> Result<(), WriteError> {
        if standing.generation != generation {
            self.connection
                .prepare_cached("UPDATE node SET generation = ?2 WHERE id = ?1")?
                .execute([standing.node, generation])?;
        }
        Ok(())
    }

    /// Removes an event, and with a series its exceptions, unless something newer stands there.
    fn delete(&mut self, uid: &str, calendar_node: i64, version: i64) -> Result<(), WriteError> {
        if let Some(standing) = self.standing_event(uid, calendar_node)? {
            if version < standing.version {
                return Ok(());
            }
            self.remove_event(standing.node)?;
        }
        self.remove_exceptions(uid, calendar_node, None)
    }

    /// Removes the exceptions of a series whose original start is later than `after_ms`; all of them without it.
    fn remove_exceptions(
        &mut self,
        series: &str,
        calendar_node: i64,
        after_ms: Option<i64>,
    ) -> Result<(), WriteError> {
        let exceptions: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM node INDEXED BY node_by_series WHERE series = ?1 AND parent = ?2
                 AND (?3 IS NULL OR original_start_ms > ?3)",
            )?
            .query_map(params![series, calendar_node, after_ms], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for exception in exceptions {
            self.remove_event(exception)?;
        }
        Ok(())
    }

    fn remove_event(&mut self, node: i64) -> Result<(), WriteError> {
        self.loosen(node)?;
        self.connection
            .prepare_cached("DELETE FROM node WHERE id = ?1")?
            .execute([node])?;
        self.counts.deleted += 1;
        Ok(())
    }

    fn calendar_node(&self, calendar: &CalendarId) -> Result<Option<i64>, WriteError> {
        let uid = calendar_uid(self.user, calendar);
        let found: Option<(i64, i64)> = self
            .connection
            .prepare_cached("SELECT id, parent FROM node WHERE label = 'Calendar' AND uid = ?1")?
            .query_row([&uid], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((node, parent)) => {
                belongs(parent == self.user_node, &uid)?;
                Ok(Some(node))
            }
            None => Ok(None),
        }
    }

    fn spare(
        &mut self,
        calendar: &CalendarId,
        generation: i64,
        events: &[String],
    ) -> Result<(), WriteError> {
        let Some(calendar_node) = self.calendar_node(calendar)? else {
            return Ok(());
        };
        for event in events {
            let uid = event_uid(self.user, calendar, event);
            if let Some(standing) = self.standing_event(&uid, calendar_node)? {
                self.connection
                    .prepare_cached("UPDATE node SET generation = ?2 WHERE id = ?1")?
                    .execute([standing.node, generation])?;
            }
        }
        Ok(())
    }

    /// Does a step of a sweep; says whether it was the last one. What is written between two steps has the generation
    /// of the sweep or a newer one, so it need not be looked at, wherever its node lies.
    fn sweep(
        &mut self,
        calendar: &CalendarId,
        generation: i64,
        swept_to: &mut i64,
    ) -> Result<bool, WriteError> {
        let Some(calendar_node) = self.calendar_node(calendar)? else {
            return Ok(true);
        };
        self.remove_events(calendar_node, Some(generation), swept_to)
    }

    /// Does a step of removing a calendar; says whether it was the last one.
    fn remove_calendar(&mut self, calendar: &CalendarId) -> Result<bool, WriteError> {
        let Some(calendar_node) = self.calendar_node(calendar)? else {
            return Ok(true);
        };
        // From the beginning each time: what was written between two steps goes as well.
        let mut after = i64::MIN;
        if !self.remove_events(calendar_node, None, &mut after)? {
            return Ok(false);
        }
        self.connection
            .prepare_cached("DELETE FROM node WHERE id = ?1")?
            .execute([calendar_node])?;
        Ok(true)
    }

    /// Removes the next of the calendar's events with an older generation, or of all of them, in the order of nodes
    /// and behind `after`, which moves on. Says whether there are no more.
    fn remove_events(
        &mut self,
        calendar_node: i64,
        older_than: Option<i64>,
        after: &mut i64,
    ) -> Result<bool, WriteError> {
        let page: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM node WHERE parent = ?1 AND id > ?2
                 AND (?3 IS NULL OR generation < ?3) ORDER BY id LIMIT ?4",
            )?
            .query_map(
                params![calendar_node, *after, older_than, STEP_EVENTS_MAX as i64],
                |row| row.get(0),
            )?
            .collect::<rusqlite::Result<_>>()?;
        let is_last = page.len() < STEP_EVENTS_MAX;
        for node in page {
            self.remove_event(node)?;
            *after = node;
        }
        Ok(is_last)
    }
}

/// A key is made of names joined by `|`, and a name may hold one itself: two different things could have one key.
pub(super) fn belongs(does: bool, uid: &str) -> Result<(), WriteError> {
    if does {
        return Ok(());
    }
    Err(refused(
        FailureKind::Rejected,
        format!(
            "the key {uid:?} already stands for something of another user or calendar; rename the one that has a | in its name"
        ),
    ))
}
