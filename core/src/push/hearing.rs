//! What a notification leads to: a sync that waits a moment for others, or nothing.
//!
//! Google tells of one change several times, late, or for channels that were stopped long ago. A sync that waits covers every
//! notification until it begins, so the first one within [`DEBOUNCE_MS`] asks for a sync and the others ask nobody. Which
//! notification is genuine is not decided here: whoever calls has checked the channel's token.

use std::collections::BTreeMap;

use super::made_at;
use crate::id::UserId;
use crate::sync::cursor::SyncCursor;
use crate::time::{HOUR_MS, MINUTE_MS, Timestamp};

/// A sync that a notification asks for begins after this, in milliseconds.
pub const DEBOUNCE_MS: u64 = 2_000;
/// Users for whom a sync is known to wait, and channels that were stopped a while ago: beyond it nothing is remembered, which
/// costs a question to the store.
pub const REMEMBERED_MAX: usize = 10_000;
/// A channel that is in no cursor is taken for an orphan only when it is older than this, in milliseconds: a sync that made it may
/// not have committed yet.
pub const ORPHAN_AGE_MS: u64 = HOUR_MS;
/// A channel that was stopped may be heard of for a while; it is not stopped again within this, in milliseconds.
const STOP_AGAIN_MS: u64 = 10 * MINUTE_MS;

/// `X-Goog-Resource-State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceState {
    /// The channel was made; nothing has changed.
    Sync,
    /// Something changed, or is gone; or a word that is newer than this program.
    Changed,
}

impl ResourceState {
    /// Reads the header.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text {
            "sync" => ResourceState::Sync,
            _ => ResourceState::Changed,
        }
    }
}

/// What is remembered between notifications, in one process. Another process that hears one of the same change asks for a sync,
/// too; the queue makes one job of them.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    /// A sync of this user begins then, not earlier.
    waiting: BTreeMap<UserId, Timestamp>,
    stopped: BTreeMap<String, Timestamp>,
}

impl Hearing {
    /// Whether a notification of `user` asks for a sync, [`DEBOUNCE_MS`] from now.
    pub fn asks_for_sync(&mut self, now: Timestamp, user: &UserId, state: ResourceState) -> bool {
        if state == ResourceState::Sync {
            return false;
        }
        if self
            .waiting
            .get(user)
            .is_some_and(|begins_at| now < *begins_at)
        {
            return false;
        }
        make_room(&mut self.waiting, now);
        if self.waiting.len() < REMEMBERED_MAX {
            let begins_at = now.plus_ms(DEBOUNCE_MS);
            self.waiting.insert(user.clone(), begins_at);
        }
        true
    }

    /// The sync could not be asked for: the next notification tries again.
    pub fn not_asked(&mut self, user: &UserId) {
        self.waiting.remove(user);
    }

    /// Whether the channel `id`, which told of a change of a user with this cursor (`None`: there is no such user), belongs to
    /// nobody and is to be stopped.
    pub fn is_orphan(&mut self, now: Timestamp, id: &str, cursor: Option<&str>) -> bool {
        let Some(made_at) = made_at(id) else {
            return false;
        };
        if now.since_ms(made_at) < ORPHAN_AGE_MS {
            return false;
        }
        if SyncCursor::read(cursor).has_channel(id) {
            return false;
        }
        if self.stopped.get(id).is_some_and(|until| now < *until) {
            return false;
        }
        make_room(&mut self.stopped, now);
        if self.stopped.len() < REMEMBERED_MAX {
            let until = now.plus_ms(STOP_AGAIN_MS);
            self.stopped.insert(id.to_owned(), until);
        }
        true
    }
}

fn make_room<K: Ord>(remembered: &mut BTreeMap<K, Timestamp>, now: Timestamp) {
    if remembered.len() >= REMEMBERED_MAX {
        remembered.retain(|_, until| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CalendarId;
    use crate::push::{Channel, Watch, channel_id};
    use crate::queue::command::LeaseToken;
    use crate::sync::cursor::CalendarCursor;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(1_793_600_000_000).plus_ms(ms)
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn fifty_notifications_in_a_second_ask_for_one_sync() {
        let mut hearing = Hearing::default();
        let asked = (0..50)
            .filter(|number| {
                hearing.asks_for_sync(at(number * 20), &user("ada"), ResourceState::Changed)
            })
            .count();
        assert_eq!(asked, 1);
        assert!(hearing.asks_for_sync(at(10), &user("bob"), ResourceState::Changed));
        // When that sync may have begun, a change is a new one.
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS), &user("ada"), ResourceState::Changed));
        // One that could not be asked for is asked for by the next.
        hearing.not_asked(&user("ada"));
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS + 1), &user("ada"), ResourceState::Changed));
    }

    #[test]
    fn the_message_that_a_channel_is_there_asks_for_nothing() {
        let mut hearing = Hearing::default();
        assert!(!hearing.asks_for_sync(at(0), &user("ada"), ResourceState::read("sync")));
        for word in ["exists", "not_exists", "something newer"] {
            let who = user(word);
            assert!(hearing.asks_for_sync(at(0), &who, ResourceState::read(word)));
        }
    }

    #[test]
    fn a_flood_of_users_takes_bounded_memory_and_loses_nobody() {
        let mut hearing = Hearing::default();
        for number in 0..REMEMBERED_MAX + 500 {
            let who = user(&format!("user-{number}"));
            assert!(hearing.asks_for_sync(at(0), &who, ResourceState::Changed));
        }
        assert_eq!(hearing.waiting.len(), REMEMBERED_MAX);
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS), &user("late"), ResourceState::Changed));
        assert_eq!(hearing.waiting.len(), 1);
    }

    #[test]
    fn an_orphan_is_old_ours_and_in_no_cursor() {
        let made_us = u64::try_from(at(0).as_ms()).unwrap() * 1_000;
        let id = channel_id(LeaseToken(made_us), 3);
        assert!(id.len() <= crate::google::push::CHANNEL_BYTES_MAX);
        assert_eq!(made_at(&id), Some(at(0)));
        let mut cursor = SyncCursor::default();
        let mut calendar = CalendarCursor::new(at(0));
        calendar.watch = Watch {
            channels: vec![Channel {
                id: id.clone(),
                resource: "r".to_owned(),
                expires_at: at(0).plus_ms(7 * 24 * HOUR_MS),
            }],
            refused_until: None,
        };
        let primary = CalendarId::new("primary").unwrap();
        cursor.calendars.insert(primary, Box::new(calendar));
        let (known, later) = (cursor.write(), at(ORPHAN_AGE_MS));
        let mut hearing = Hearing::default();
        assert!(!hearing.is_orphan(later, &id, Some(&known)));
        assert!(
            !hearing.is_orphan(later.minus_ms(1), &id, None),
            "too young"
        );
        assert!(!hearing.is_orphan(later, "somebody-else-s", None));
        assert!(hearing.is_orphan(later, &id, None), "no such user");
        assert!(!hearing.is_orphan(later, &id, None), "just stopped");
        let other = SyncCursor::default().write();
        assert!(hearing.is_orphan(later.plus_ms(STOP_AGAIN_MS), &id, Some(&other)));
    }
}
