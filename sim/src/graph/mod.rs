//! One user's graph as a value: what Kalends' statements make of a Neo4j database, with maps instead of Cypher.
//!
//! The emulator in [`crate::neo4j`] follows the statements clause by clause, over JSON; a simulated day of a fleet would
//! spend most of its time there. This value keeps the rules of [`kalends_core::graph`] (fenced, idempotent, versioned,
//! exact, swept) directly, and a property test holds it to the emulator (`tests.rs`).
//!
//! Invariants: the fence only grows; an event that stands is never replaced by an older state of itself.

mod packed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kalends_core::graph::{
    CalendarRow, EventRow, GraphCounts, GraphReply, GraphSnapshot, GraphWrite, Person,
    SnapshotEvent,
};
use kalends_core::id::CalendarId;
use kalends_core::mutant::{Mutant, planted};

use packed::PackedRow;

/// An event as it stands.
#[derive(Clone, Debug)]
struct Standing {
    id: Box<str>,
    version: i64,
    generation: u64,
    row: PackedRow,
}

/// A calendar as it stands; it may have events before it has a row, and none of them.
///
/// Calendars and events stand in sorted vectors: a map makes room for eleven where most users have one and four, which
/// at a hundred thousand users was 250 MB of nothing.
#[derive(Clone, Debug)]
struct CalendarGraph {
    id: CalendarId,
    row: Option<Box<CalendarRow>>,
    /// By id.
    events: Vec<Standing>,
}

/// Everything in the graph of one user.
#[derive(Clone, Debug, Default)]
pub struct UserGraph {
    fence: u64,
    /// By id.
    calendars: Vec<CalendarGraph>,
}

impl UserGraph {
    /// Applies one write, all of it or nothing.
    pub fn write(&mut self, write: GraphWrite) -> GraphReply {
        let fence = write.fence().0;
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
                let calendar = self.calendar_mut(&row.id);
                calendar.row = Some(Box::new(row));
                for deletion in deletions {
                    if !calendar.is_newer(&deletion.id, deletion.version) {
                        counts.deleted += u64::from(calendar.remove(&deletion.id));
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
            GraphWrite::Spare {
                calendar,
                generation,
                events,
                ..
            } => {
                if let Ok(place) = self.find(&calendar) {
                    let calendar = &mut self.calendars[place];
                    for event in events {
                        if let Ok(place) = calendar.find(&event) {
                            calendar.events[place].generation = generation;
                        }
                    }
                }
            }
            GraphWrite::Sweep {
                calendar,
                generation,
                ..
            } => {
                if let Ok(place) = self.find(&calendar) {
                    let calendar = &mut self.calendars[place];
                    let before = calendar.events.len();
                    calendar
                        .events
                        .retain(|standing| standing.generation >= generation);
                    counts.deleted = (before - calendar.events.len()) as u64;
                }
            }
            GraphWrite::RemoveCalendar { calendar, .. } => {
                if let Ok(place) = self.find(&calendar) {
                    counts.deleted = self.calendars.remove(place).events.len() as u64;
                }
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
        let calendar = &self.calendars[self.find(calendar).ok()?];
        Some(calendar.get(event)?.version)
    }

    /// The events that stand in a calendar, with their versions.
    #[must_use]
    pub fn versions(&self, calendar: &CalendarId) -> Vec<(String, i64)> {
        let calendar = self.find(calendar).ok().map(|place| &self.calendars[place]);
        let events = calendar.into_iter().flat_map(|calendar| &calendar.events);
        events
            .map(|standing| (standing.id.to_string(), standing.version))
            .collect()
    }

    /// How many events stand, over all calendars.
    #[must_use]
    pub fn events(&self) -> usize {
        let calendars = self.calendars.iter();
        calendars.map(|calendar| calendar.events.len()).sum()
    }

    /// All of it, for comparison with the calendar.
    #[must_use]
    pub fn snapshot(&self) -> GraphSnapshot {
        let mut snapshot = GraphSnapshot::default();
        let mut contacts: BTreeMap<String, Person> = BTreeMap::new();
        for calendar in &self.calendars {
            snapshot.calendars.extend(calendar.row.as_deref().cloned());
            for standing in &calendar.events {
                let row = standing.row.unpack();
                let attendees = row.attendees.iter().map(|attendee| &attendee.person);
                for person in attendees.chain(&row.organizer) {
                    contacts.insert(person.key.clone(), person.clone());
                }
                snapshot.events.push(SnapshotEvent {
                    calendar: calendar.id.clone(),
                    row,
                    generation: standing.generation,
                });
            }
        }
        snapshot.contacts = contacts.into_values().collect();
        snapshot
    }

    /// Where a calendar stands, or would.
    fn find(&self, calendar: &CalendarId) -> Result<usize, usize> {
        self.calendars.binary_search_by(|one| one.id.cmp(calendar))
    }

    fn calendar_mut(&mut self, id: &CalendarId) -> &mut CalendarGraph {
        let place = self.find(id).unwrap_or_else(|place| {
            let calendar = CalendarGraph {
                id: id.clone(),
                row: None,
                events: Vec::new(),
            };
            self.calendars.insert(place, calendar);
            place
        });
        &mut self.calendars[place]
    }
}

impl CalendarGraph {
    /// Where an event stands, or would.
    fn find(&self, id: &str) -> Result<usize, usize> {
        self.events.binary_search_by(|one| (*one.id).cmp(id))
    }

    fn get(&self, id: &str) -> Option<&Standing> {
        Some(&self.events[self.find(id).ok()?])
    }

    /// Removes an event; whether there was one.
    fn remove(&mut self, id: &str) -> bool {
        let place = self.find(id);
        if let Ok(place) = place {
            self.events.remove(place);
        }
        place.is_ok()
    }

    fn is_newer(&self, id: &str, version: i64) -> bool {
        self.get(id)
            .is_some_and(|standing| standing.version > version)
    }

    /// Removes the exceptions of a series: those whose original start is later than `after_ms`, or all. How many.
    fn drop_exceptions(&mut self, series: &str, after_ms: Option<i64>) -> u64 {
        if after_ms.is_none() && planted(Mutant::ExceptionsStay) {
            return 0;
        }
        let before = self.events.len();
        self.events.retain(|standing| {
            let Some((of, start_ms)) = standing.row.exception() else {
                return true;
            };
            if of != series {
                return true;
            }
            after_ms.is_some_and(|after| start_ms.is_none_or(|start| start <= after))
        });
        (before - self.events.len()) as u64
    }

    /// Whether the event was created or really changed.
    fn upsert(&mut self, mut row: EventRow, generation: u64) -> bool {
        row.series_until_ms = None;
        let place = match self.find(&row.id) {
            Ok(place) => place,
            Err(place) => {
                let standing = Standing {
                    id: row.id.as_str().into(),
                    version: row.version,
                    generation,
                    row: PackedRow::pack(&row),
                };
                self.events.insert(place, standing);
                return true;
            }
        };
        let standing = &mut self.events[place];
        // Also of an older state the pass has seen the event: it must not be swept for that.
        standing.generation = generation;
        if standing.version > row.version {
            return false;
        }
        if planted(Mutant::AttendeeStays) {
            let before = standing.row.unpack();
            let gone = before.attendees.into_iter();
            let gone = gone.filter(|old| row.attendees.iter().all(|new| new.person != old.person));
            row.attendees.extend(gone.collect::<Vec<_>>());
        }
        let packed = PackedRow::pack(&row);
        let changed = standing.row != packed;
        standing.version = row.version;
        standing.row = packed;
        changed
    }
}
