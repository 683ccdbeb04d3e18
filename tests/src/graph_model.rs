//! The graph as a person would write it on one page: maps and obvious loops, to compare real graphs with.

use std::collections::BTreeMap;

use kalends_core::graph::{
    CalendarRow, EventRow, GraphCounts, GraphReply, GraphSnapshot, GraphWrite, Person,
    SnapshotEvent,
};
use kalends_core::id::{CalendarId, UserId};

#[derive(Default)]
struct UserGraph {
    fence: u64,
    calendars: BTreeMap<CalendarId, CalendarRow>,
    events: BTreeMap<(CalendarId, String), (EventRow, u64)>,
}

/// Every user's graph. A person's name must always be the same: this model remembers nobody.
#[derive(Default)]
pub struct GraphModel {
    users: BTreeMap<UserId, UserGraph>,
    /// The largest fence of a removal.
    removed: u64,
}

impl GraphModel {
    /// Applies one write.
    pub fn write(&mut self, write: &GraphWrite) -> GraphReply {
        let fence = write.fence().0;
        if !self.users.contains_key(write.user()) && fence < self.removed {
            return GraphReply::Fenced;
        }
        let user = self.users.entry(write.user().clone()).or_default();
        if fence < user.fence {
            return GraphReply::Fenced;
        }
        user.fence = fence;
        let before = user.events.len() as u64;
        let mut upserted = 0;
        let deleted = match write {
            GraphWrite::Apply {
                calendar,
                generation,
                upserts,
                deletions,
                ..
            } => {
                user.calendars.insert(calendar.id.clone(), calendar.clone());
                for deletion in deletions {
                    if !user.is_newer(&calendar.id, &deletion.id, deletion.version) {
                        user.events
                            .remove(&(calendar.id.clone(), deletion.id.clone()));
                        user.drop_exceptions(&calendar.id, &deletion.id, None);
                    }
                }
                for row in upserts {
                    if let Some(until_ms) = row.series_until_ms
                        && !user.is_newer(&calendar.id, &row.id, row.version)
                    {
                        user.drop_exceptions(&calendar.id, &row.id, Some(until_ms));
                    }
                }
                let deleted = before - user.events.len() as u64;
                for row in upserts {
                    upserted += u64::from(user.upsert(&calendar.id, row, *generation));
                }
                deleted
            }
            GraphWrite::Spare {
                calendar,
                generation,
                events,
                ..
            } => {
                for event in events {
                    let key = (calendar.clone(), event.clone());
                    if let Some((_, seen)) = user.events.get_mut(&key) {
                        *seen = *generation;
                    }
                }
                0
            }
            GraphWrite::Sweep {
                calendar,
                generation,
                ..
            } => {
                user.events
                    .retain(|key, (_, seen)| key.0 != *calendar || *seen >= *generation);
                before - user.events.len() as u64
            }
            GraphWrite::RemoveCalendar { calendar, .. } => {
                user.calendars.remove(calendar);
                user.events.retain(|key, _| key.0 != *calendar);
                before - user.events.len() as u64
            }
        };
        GraphReply::Written(GraphCounts { upserted, deleted })
    }

    /// Removes a user without calendars; whether there was one.
    pub fn remove_user(&mut self, user: &UserId, fence: u64) -> bool {
        let standing = self.users.get(user);
        if standing.is_some_and(|user| !user.calendars.is_empty() || fence < user.fence) {
            return false;
        }
        self.removed = self.removed.max(fence);
        self.users.remove(user).is_some()
    }

    /// The user's graph.
    #[must_use]
    pub fn snapshot(&self, user: &UserId) -> GraphSnapshot {
        let Some(user) = self.users.get(user) else {
            return GraphSnapshot::default();
        };
        let mut contacts: BTreeMap<String, Person> = BTreeMap::new();
        let mut events = Vec::new();
        for ((calendar, _), (row, generation)) in &user.events {
            let attendees = row.attendees.iter().map(|attendee| &attendee.person);
            for person in attendees.chain(&row.organizer) {
                contacts.insert(person.key.clone(), person.clone());
            }
            events.push(SnapshotEvent {
                calendar: calendar.clone(),
                row: row.clone(),
                generation: *generation,
            });
        }
        GraphSnapshot {
            calendars: user.calendars.values().cloned().collect(),
            events,
            contacts: contacts.into_values().collect(),
        }
    }
}

impl UserGraph {
    fn is_newer(&self, calendar: &CalendarId, id: &str, version: i64) -> bool {
        self.events
            .get(&(calendar.clone(), id.to_owned()))
            .is_some_and(|(standing, _)| standing.version > version)
    }

    /// Removes the exceptions of a series: those whose original start is later than `after_ms`, or all.
    fn drop_exceptions(&mut self, calendar: &CalendarId, series: &str, after_ms: Option<i64>) {
        self.events.retain(|key, (row, _)| {
            let start_ms = row.original_start.as_ref().map(|start| start.epoch_ms);
            let stays = after_ms.is_some_and(|after| start_ms.is_none_or(|start| start <= after));
            key.0 != *calendar || row.series_id.as_deref() != Some(series) || stays
        });
    }

    /// Whether the event was created or really changed.
    fn upsert(&mut self, calendar: &CalendarId, row: &EventRow, generation: u64) -> bool {
        let newer = self.is_newer(calendar, &row.id, row.version);
        if let Some((_, seen)) = self.events.get_mut(&(calendar.clone(), row.id.clone()))
            && newer
        {
            // The pass has seen this event, in an older state: it must not be swept for that.
            *seen = generation;
            return false;
        }
        let stored = EventRow {
            series_until_ms: None,
            ..row.clone()
        };
        let key = (calendar.clone(), row.id.clone());
        let old = self.events.insert(key, (stored.clone(), generation));
        old.is_none_or(|(old, _)| old != stored)
    }
}
