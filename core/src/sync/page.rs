//! From a page to a batch, and from a refused batch to its halves.

use std::collections::{BTreeMap, BTreeSet};

use super::convert::{Converted, convert};
use super::cursor::CalendarCursor;
use crate::google::event::ApiEvent;
use crate::google::page::UnreadableItem;
use crate::graph::{CalendarRow, EventDeletion, EventRow, GraphWrite};
use crate::pseudonym::Pseudonym;
use crate::rng::stable_hash;

/// What a page asks of the graph.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) upserts: Vec<EventRow>,
    pub(super) deletions: Vec<EventDeletion>,
    pub(super) quarantined: u64,
    /// The ids of those that were set aside, sorted; without those that have no id.
    pub(super) set_aside: BTreeSet<String>,
}

enum Wanted {
    Upsert(Box<EventRow>),
    Delete(EventDeletion),
}

impl Wanted {
    fn version(&self) -> i64 {
        match self {
            Wanted::Upsert(row) => row.version,
            Wanted::Delete(deletion) => deletion.version,
        }
    }
}

/// Converts a page's events, each id once (the newest state wins, the later one among equals), sorted by id so that
/// every graph locks in the same order. What is invalid goes into the cursor's quarantine; what is valid leaves it.
pub(super) fn batch(
    cursor: &mut CalendarCursor,
    events: Vec<ApiEvent>,
    unreadable: Vec<UnreadableItem>,
    room: usize,
) -> Batch {
    let mut batch = Batch::default();
    let kept_before = cursor.quarantined.len();
    let mut set_aside = |cursor: &mut CalendarCursor, id: &str, reason: &str| {
        batch.quarantined += 1;
        let more = cursor.quarantined.len().saturating_sub(kept_before);
        let name = if id.is_empty() { "(no id)" } else { id };
        if !id.is_empty() {
            batch.set_aside.insert(id.to_owned());
        }
        cursor.quarantine(name, reason, room.saturating_sub(more));
    };
    for item in unreadable {
        set_aside(cursor, item.id.as_deref().unwrap_or_default(), &item.reason);
    }
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for event in events {
        let (id, new) = match convert(event, cursor.window_start) {
            Converted::Upsert(row) => (row.id.clone(), Wanted::Upsert(row)),
            Converted::Delete(deletion) => (deletion.id.clone(), Wanted::Delete(deletion)),
            Converted::Quarantine { id, reason } => {
                set_aside(cursor, &id, &reason);
                continue;
            }
        };
        cursor.quarantined.remove(&id);
        if wanted
            .get(&id)
            .is_none_or(|old| old.version() <= new.version())
        {
            wanted.insert(id, new);
        }
    }
    for wanted in wanted.into_values() {
        match wanted {
            Wanted::Upsert(row) => batch.upserts.push(*row),
            Wanted::Delete(deletion) => batch.deletions.push(deletion),
        }
    }
    batch
}

/// A hash of a calendar's own properties, never 0. In a recording they are hidden, and the pseudonym in place of the time
/// zone carries the hash.
pub(super) fn row_hash(row: &CalendarRow) -> u64 {
    if let Some(carried) = row.time_zone.as_deref().and_then(Pseudonym::carried_by) {
        return carried;
    }
    let text = serde_json::to_vec(row).expect("plain values always become JSON");
    stable_hash(0, &text) | 1
}

/// What is left of a refused write.
pub(super) enum Split {
    /// It held several events.
    Halves(Box<[GraphWrite; 2]>),
    /// It held this one event; with the same write without events.
    One {
        id: String,
        is_upsert: bool,
        empty: Box<GraphWrite>,
    },
    /// It held none: the calendar itself is refused.
    None,
}

/// Halves a refused write.
pub(super) fn split(write: GraphWrite) -> Split {
    let GraphWrite::Apply {
        user,
        fence,
        calendar,
        generation,
        mut upserts,
        mut deletions,
    } = write
    else {
        return Split::None;
    };
    let half = |upserts, deletions| GraphWrite::Apply {
        user: user.clone(),
        fence,
        calendar: calendar.clone(),
        generation,
        upserts,
        deletions,
    };
    if upserts.len() + deletions.len() <= 1 {
        let is_upsert = !upserts.is_empty();
        let id = upserts
            .pop()
            .map(|row| row.id)
            .or_else(|| deletions.pop().map(|gone| gone.id));
        let empty = Box::new(half(Vec::new(), Vec::new()));
        return id.map_or(Split::None, |id| Split::One {
            id,
            is_upsert,
            empty,
        });
    }
    // Deletions and upserts apart first; both kinds are then halved in turn.
    if !deletions.is_empty() && !upserts.is_empty() {
        let halves = [half(Vec::new(), deletions), half(upserts, Vec::new())];
        return Split::Halves(Box::new(halves));
    }
    let upserts_rest = upserts.split_off(upserts.len() / 2);
    let deletions_rest = deletions.split_off(deletions.len() / 2);
    Split::Halves(Box::new([
        half(upserts, deletions),
        half(upserts_rest, deletions_rest),
    ]))
}
