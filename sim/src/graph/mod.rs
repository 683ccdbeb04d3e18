//! One user's graph as a value: what Kalends' statements make of a Neo4j database, with maps instead of Cypher.
//!
//! The emulator in [`crate::neo4j`] follows the statements clause by clause, over JSON; a simulated day of a fleet would
//! spend most of its time there. This value keeps the rules of [`kalends_core::graph`] (fenced, idempotent, versioned,
//! exact, swept) directly, and a property test holds it to the emulator (`tests.rs`).
//!
//! Invariants: the fence only grows; an event that stands is never replaced by an older state of itself.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kalends_core::graph::{
    CalendarRow, EventRow, GraphCounts, GraphReply, GraphSnapshot, GraphWrite, Person,
    SnapshotEvent,
};
use kalends_core::id::CalendarId;
use kalends_core::mutant::{Mutant, planted};

/// An event as it stands.
#[derive(Clone, Debug)]
struct Standing {
    row: Box<EventRow>,
    generation: u64,
}

/// A calendar as it stands; it may have events before it has a row, and none of them.
#[derive(Clone, Debug, Default)]
struct CalendarGraph {
    row: Option<CalendarRow>,
    events: BTreeMap<String, Standing>,
}

/// Everything in the graph of one user.
#[derive(Clone, Debug, Default)]
pub struct UserGraph {
    fence: u64,
    calendars: BTreeMap<CalendarId, CalendarGraph>,
}

impl UserGraph {
    /// Applies one write, all of it or nothing.
    pub fn write(&mut self, write: GraphWrite) -> GraphReply {
        let fence = fence_of(&write);
        if fence < self.fence && !planted(Mutant::OlderWriteWins) {
            return GraphReply::Fenced;
        }
        self.fence = fence;
        let mut counts = GraphCounts::default();
        match write {
            GraphWrite::Apply {
                calendar: row,
                generation,
                upserts,
                deletions,
                ..
            } => {
                let calendar = self.calendars.entry(row.id.clone()).or_default();
                calendar.row = Some(row);
                for deletion in deletions {
                    if !calendar.is_newer(&deletion.id, deletion.version) {
                        counts.deleted += u64::from(calendar.events.remove(&deletion.id).is_some());
                        counts.deleted += calendar.drop_exceptions(&deletion.id, None);
                    }
                }
                for row in &upserts {
                    if let Some(until_ms) = row.series_until_ms
                        && !calendar.is_newer(&row.id, row.version)
                    {
                        counts.deleted += calendar.drop_exceptions(&row.id, Some(until_ms));
                    }
                }
                for row in upserts {
                    counts.upserted += u64::from(calendar.upsert(row, generation));
                }
            }
            GraphWrite::Sweep {
                calendar,
                generation,
                ..
            } => {
                if let Some(calendar) = self.calendars.get_mut(&calendar) {
                    let before = calendar.events.len();
                    calendar
                        .events
                        .retain(|_, standing| standing.generation >= generation);
                    counts.deleted = (before - calendar.events.len()) as u64;
                }
            }
            GraphWrite::RemoveCalendar { calendar, .. } => {
                let removed = self.calendars.remove(&calendar);
                counts.deleted = removed.map_or(0, |calendar| calendar.events.len() as u64);
            }
        }
        GraphReply::Written(counts)
    }

    /// The largest fencing token seen.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// The version of an event that stands.
    #[must_use]
    pub fn version(&self, calendar: &CalendarId, event: &str) -> Option<i64> {
        let standing = self.calendars.get(calendar)?.events.get(event)?;
        Some(standing.row.version)
    }

    /// The events that stand in a calendar, with their versions.
    #[must_use]
    pub fn versions(&self, calendar: &CalendarId) -> Vec<(String, i64)> {
        let events = self
            .calendars
            .get(calendar)
            .map(|calendar| &calendar.events);
        let events = events.into_iter().flatten();
        events
            .map(|(id, standing)| (id.clone(), standing.row.version))
            .collect()
    }

    /// How many events stand, over all calendars.
    #[must_use]
    pub fn events(&self) -> usize {
        let calendars = self.calendars.values();
        calendars.map(|calendar| calendar.events.len()).sum()
    }

    /// All of it, for comparison with the calendar.
    #[must_use]
    pub fn snapshot(&self) -> GraphSnapshot {
        let mut snapshot = GraphSnapshot::default();
        let mut contacts: BTreeMap<&str, &Person> = BTreeMap::new();
        for (id, calendar) in &self.calendars {
            snapshot.calendars.extend(calendar.row.clone());
            for standing in calendar.events.values() {
                let row = &standing.row;
                let attendees = row.attendees.iter().map(|attendee| &attendee.person);
                for person in attendees.chain(&row.organizer) {
                    contacts.insert(&person.key, person);
                }
                snapshot.events.push(SnapshotEvent {
                    calendar: id.clone(),
                    row: EventRow::clone(row),
                    generation: standing.generation,
                });
            }
        }
        snapshot.contacts = contacts.into_values().cloned().collect();
        snapshot
    }
}

/// The fencing token that a write carries.
#[must_use]
pub fn fence_of(write: &GraphWrite) -> u64 {
    let (GraphWrite::Apply { fence, .. }
    | GraphWrite::Sweep { fence, .. }
    | GraphWrite::RemoveCalendar { fence, .. }) = write;
    fence.0
}

impl CalendarGraph {
    fn is_newer(&self, id: &str, version: i64) -> bool {
        let standing = self.events.get(id);
        standing.is_some_and(|standing| standing.row.version > version)
    }

    /// Removes the exceptions of a series: those whose original start is later than `after_ms`, or all. How many.
    fn drop_exceptions(&mut self, series: &str, after_ms: Option<i64>) -> u64 {
        if after_ms.is_none() && planted(Mutant::ExceptionsStay) {
            return 0;
        }
        let before = self.events.len();
        self.events.retain(|_, standing| {
            let row = &standing.row;
            if row.series_id.as_deref() != Some(series) {
                return true;
            }
            let start_ms = row.original_start.as_ref().map(|start| start.epoch_ms);
            after_ms.is_some_and(|after| start_ms.is_none_or(|start| start <= after))
        });
        (before - self.events.len()) as u64
    }

    /// Whether the event was created or really changed.
    fn upsert(&mut self, mut row: EventRow, generation: u64) -> bool {
        row.series_until_ms = None;
        let Some(standing) = self.events.get_mut(&row.id) else {
            let id = row.id.clone();
            let row = Box::new(row);
            self.events.insert(id, Standing { row, generation });
            return true;
        };
        // Also of an older state the pass has seen the event: it must not be swept for that.
        standing.generation = generation;
        if standing.row.version > row.version {
            return false;
        }
        if planted(Mutant::AttendeeStays) {
            let gone = standing.row.attendees.iter();
            let gone = gone.filter(|old| row.attendees.iter().all(|new| new.person != old.person));
            row.attendees.extend(gone.cloned().collect::<Vec<_>>());
        }
        let changed = *standing.row != row;
        *standing.row = row;
        changed
    }
}
