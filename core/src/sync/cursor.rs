//! How far the sync of one user came: the text that the queue keeps, opaque to it, committed only under a live lease.
//!
//! It holds, for each calendar, the sync token with the fingerprint of the query that made it, and the traversal that is
//! under way, so that whoever takes the job over goes on at the very page where it stopped.

mod plain;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::CalendarId;
use crate::push::{Channel, Watch};
use crate::time::{DAY_MS, Timestamp};

/// How many invalid events are remembered with their reasons, over all calendars of a user.
pub const QUARANTINE_KEPT_MAX: usize = 50;

/// The longest id that is kept with an invalid event, in characters.
pub const QUARANTINE_ID_CHARS_MAX: usize = 100;

/// The longest reason that is kept with an invalid event, in characters.
pub const QUARANTINE_REASON_CHARS_MAX: usize = 200;

/// A traversal of a calendar's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// A full pass stamps its own generation and sweeps at its end; `None` for an incremental one.
    pub full_generation: Option<u64>,
    /// The next page; `None`: the first one.
    pub page_token: Option<String>,
    /// Pages read so far.
    #[serde(default)]
    pub pages: u32,
}

impl Pass {
    /// An incremental pass from its first page.
    #[must_use]
    pub fn incremental() -> Self {
        Pass {
            full_generation: None,
            page_token: None,
            pages: 0,
        }
    }

    /// A full pass from its first page, that stamps `generation`.
    #[must_use]
    pub fn full(generation: u64) -> Self {
        Pass {
            full_generation: Some(generation),
            ..Pass::incremental()
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where one calendar stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarCursor {
    /// Events that ended before it are not kept. Fixed at the first sync, so that every later full pass covers all that
    /// the graph may hold.
    pub window_start: Timestamp,
    /// The token for the next increment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_token: Option<String>,
    /// The query for which the token is good.
    #[serde(default)]
    pub fingerprint: u64,
    /// The generation of the last full pass.
    #[serde(default)]
    pub generation: u64,
    /// The traversal under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// The title from the user's own list of calendars, where that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A hash of the calendar's own properties as last written; 0: never written.
    #[serde(default)]
    pub row_hash: u64,
    /// The day (since the epoch) whose full resyncs are counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resync_day: u64,
    /// Full resyncs on that day; the first sync is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resyncs: u64,
    /// Not readable since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_since: Option<Timestamp>,
    /// Invalid events with the reason, by id; at most [`QUARANTINE_KEPT_MAX`] over all calendars.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<String, String>,
    /// Its push channels.
    #[serde(default, skip_serializing_if = "Watch::is_empty")]
    pub watch: Watch,
}

impl CalendarCursor {
    /// A calendar that was never synced.
    #[must_use]
    pub fn new(window_start: Timestamp) -> Self {
        CalendarCursor {
            window_start,
            sync_token: None,
            fingerprint: 0,
            generation: 0,
            pass: None,
            title: None,
            row_hash: 0,
            resync_day: 0,
            resyncs: 0,
            unavailable_since: None,
            quarantined: BTreeMap::new(),
            watch: Watch::default(),
        }
    }

    /// Counts one full resync against the day's budget; `false` if it is used up.
    pub fn spend_resync(&mut self, now: Timestamp, budget: u32) -> bool {
        let budget = u64::from(budget);
        let day = now.since_ms(Timestamp::EPOCH) / DAY_MS;
        if self.resync_day != day {
            self.resync_day = day;
            self.resyncs = 0;
        }
        if self.resyncs >= budget {
            return false;
        }
        self.resyncs += 1;
        true
    }

    /// Remembers an invalid event, if there is `room` for more.
    pub fn quarantine(&mut self, id: &str, reason: &str, room: usize) {
        let id: String = id.chars().take(QUARANTINE_ID_CHARS_MAX).collect();
        if room == 0 && !self.quarantined.contains_key(&id) {
            return;
        }
        let reason = reason.chars().take(QUARANTINE_REASON_CHARS_MAX).collect();
        self.quarantined.insert(id, reason);
    }
}

/// Where all of a user's calendars stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCursor {
    /// Each calendar that is or was kept.
    /// Boxed, as a map makes room for eleven where most users have one.
    pub calendars: BTreeMap<CalendarId, Box<CalendarCursor>>,
    /// What is left to do of a round that was broken off; empty: the next round begins with all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub round: Vec<CalendarId>,
    /// Push channels of calendars that are not kept any more, still to be stopped; at most
    /// [`LEFT_OVER_MAX`](crate::push::LEFT_OVER_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_over: Vec<Channel>,
}

impl SyncCursor {
    /// Reads a stored cursor; one that cannot be read is a new one, and leads to a full pass.
    #[must_use]
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|text| plain::read(text).or_else(|| serde_json::from_str(text).ok()))
            .unwrap_or_default()
    }

    /// Whether the push channel `id` is known.
    #[must_use]
    pub fn has_channel(&self, id: &str) -> bool {
        let of_calendars = self
            .calendars
            .values()
            .flat_map(|kept| &kept.watch.channels);
        of_calendars
            .chain(&self.left_over)
            .any(|known| known.id == id)
    }

    /// How many more invalid events can be remembered.
    #[must_use]
    pub fn quarantine_room(&self) -> usize {
        let kept: usize = self
            .calendars
            .values()
            .map(|calendar| calendar.quarantined.len())
            .sum();
        QUARANTINE_KEPT_MAX.saturating_sub(kept)
    }

    /// The cursor as text.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text =
            serde_json::to_string(self).expect("a map of plain values always becomes JSON");
        // One is kept for each user: what the writing left over is not.
        text.shrink_to_fit();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_there_and_back_and_rubbish_is_a_new_one() {
        let mut cursor = SyncCursor::default();
        let mut calendar = CalendarCursor::new(Timestamp::from_ms(5));
        calendar.pass = Some(Pass {
            page_token: Some("p".to_owned()),
            ..Pass::full(3)
        });
        cursor
            .calendars
            .insert(CalendarId::new("primary").unwrap(), Box::new(calendar));
        assert_eq!(SyncCursor::read(Some(&cursor.write())), cursor);
        assert_eq!(SyncCursor::read(Some("{")), SyncCursor::default());
        assert_eq!(SyncCursor::read(None), SyncCursor::default());
    }

    #[test]
    fn the_budget_of_full_resyncs_comes_back_the_next_day() {
        let mut calendar = CalendarCursor::new(Timestamp::EPOCH);
        let noon = Timestamp::from_ms(0).plus_ms(DAY_MS / 2);
        assert!(calendar.spend_resync(noon, 2));
        assert!(calendar.spend_resync(noon, 2));
        assert!(!calendar.spend_resync(noon, 2));
        assert!(calendar.spend_resync(noon.plus_ms(DAY_MS), 2));
    }

    #[test]
    fn quarantine_is_bounded_over_all_calendars() {
        let mut cursor = SyncCursor::default();
        for name in ["a", "b"] {
            let mut calendar = CalendarCursor::new(Timestamp::EPOCH);
            let mut room = cursor.quarantine_room();
            for index in 0..40 {
                calendar.quarantine(
                    &format!("{index}{}", "i".repeat(900)),
                    &"x".repeat(1_000),
                    room,
                );
                room = room.saturating_sub(1);
            }
            cursor
                .calendars
                .insert(CalendarId::new(name).unwrap(), Box::new(calendar));
        }
        assert_eq!(cursor.quarantine_room(), 0);
        assert!(cursor.write().len() < QUARANTINE_KEPT_MAX * 320 + 1_000);
    }
}
