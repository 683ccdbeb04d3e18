//! What a notification leads to: a sync that waits a moment for others, or nothing.
//!
//! Google tells of one change several times, late, or for channels that were stopped long ago. A sync that waits covers every
//! notification until it begins, so the first one asks for a sync [`DEBOUNCE_MS`] later and those that come until then ask
//! nobody. But that sync may begin earlier: it may coalesce with one that somebody else wants at once. So what came meanwhile is
//! looked after a moment later: whether a sync has begun since. Which notification is genuine is not decided here: whoever
//! calls has checked the channel's token.

use std::collections::BTreeMap;

use super::listener::Heard;
use super::made_at;
use crate::id::UserId;
use crate::mutant::{Mutant, planted};
use crate::sync::cursor::SyncCursor;
use crate::time::{HOUR_MS, MINUTE_MS, Timestamp};

/// A sync that a notification asks for begins after this, in milliseconds.
pub const DEBOUNCE_MS: u64 = 2_000;
/// So long after a sync was asked for it is seen whether what came in the time of the debounce was covered, in milliseconds: later
/// than the sync begins if nothing holds it up.
pub const LOOK_MS: u64 = 5_000;
/// Users for whom a sync is known to wait, those who are looked after once more, and channels that were stopped a while ago:
/// beyond it nothing is remembered, which costs a question to the store.
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
    /// A sync of this user was asked for, which begins then at the latest, unless it is held up.
    windows: BTreeMap<UserId, Timestamp>,
    /// What came in a window, by when it is looked after: the last notification, and when that was.
    looks: BTreeMap<(Timestamp, UserId), (Heard, Timestamp)>,
    stopped: BTreeMap<String, Timestamp>,
}

impl Hearing {
    /// Whether a notification asks for a sync, [`DEBOUNCE_MS`] from now.
    pub fn asks_for_sync(&mut self, now: Timestamp, heard: &Heard) -> bool {
        let until = self.windows.get(&heard.user).copied();
        if let Some(until) = until.filter(|until| now < *until)
            && !planted(Mutant::PushNotDebounced)
        {
            let look_at = until.plus_ms(LOOK_MS - DEBOUNCE_MS);
            let key = (look_at, heard.user.clone());
            if planted(Mutant::PushNotLookedAfter) {
                return false;
            }
            if self.looks.len() < REMEMBERED_MAX || self.looks.contains_key(&key) {
                self.looks.insert(key, (heard.clone(), now));
                return false;
            }
        }
        if self.windows.len() >= REMEMBERED_MAX {
            self.windows.retain(|_, until| now < *until);
        }
        if self.windows.len() < REMEMBERED_MAX || self.windows.contains_key(&heard.user) {
            let until = now.plus_ms(DEBOUNCE_MS);
            self.windows.insert(heard.user.clone(), until);
        }
        true
    }

    /// The sync could not be asked for: the next notification tries again.
    pub fn not_asked(&mut self, user: &UserId) {
        self.windows.remove(user);
    }

    /// What is to be looked after now, with the time of the last notification of its kind.
    pub fn look(&mut self, now: Timestamp) -> Option<(Heard, Timestamp)> {
        let first = self.looks.first_entry()?;
        (now >= first.key().0).then(|| first.remove())
    }

    /// What there would be to look after, as nobody will: each asks for a sync now.
    pub fn close(&mut self) -> Vec<Heard> {
        let looks = std::mem::take(&mut self.looks).into_values();
        let heard: Vec<Heard> = looks.map(|(heard, _)| heard).collect();
        for one in &heard {
            self.windows.remove(&one.user);
        }
        heard
    }

    /// When [`Hearing::look`] has something.
    #[must_use]
    pub fn look_at(&self) -> Option<Timestamp> {
        self.looks.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether the channel `id`, which told of a change of a user with this cursor (`None`: there is no such user), belongs to
    /// nobody and is to be stopped.
    pub fn is_orphan(&mut self, now: Timestamp, id: &str, cursor: Option<&str>) -> bool {
        let Some(made_at) = made_at(id) else {
            return false;
        };
        if now.since_ms(made_at) < ORPHAN_AGE_MS || planted(Mutant::OrphanStays) {
            return false;
        }
        if SyncCursor::read(cursor).has_channel(id) {
            return false;
        }
        if self.stopped.get(id).is_some_and(|until| now < *until) {
            return false;
        }
        if self.stopped.len() >= REMEMBERED_MAX {
            self.stopped.retain(|_, until| now < *until);
        }
        if self.stopped.len() < REMEMBERED_MAX {
            let until = now.plus_ms(STOP_AGAIN_MS);
            self.stopped.insert(id.to_owned(), until);
        }
        true
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

    fn told(name: &str) -> Heard {
        Heard {
            user: UserId::new(name).unwrap(),
            channel: "c".to_owned(),
            resource: None,
        }
    }

    #[test]
    fn fifty_notifications_in_a_second_ask_for_one_sync() {
        let mut hearing = Hearing::default();
        let asked = (0..50)
            .filter(|number| hearing.asks_for_sync(at(number * 20), &told("ada")))
            .count();
        assert_eq!(asked, 1);
        assert!(hearing.asks_for_sync(at(10), &told("bob")));
        // When that sync may have begun, a change is a new one.
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS), &told("ada")));
        // One that could not be asked for is asked for by the next.
        hearing.not_asked(&told("ada").user);
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS + 1), &told("ada")));
    }

    #[test]
    fn what_comes_within_the_debounce_is_looked_after_once() {
        let mut hearing = Hearing::default();
        let ada = told("ada");
        assert!(hearing.asks_for_sync(at(0), &ada));
        assert_eq!(hearing.look_at(), None, "nothing came since");
        for ms in [500, 900] {
            assert!(!hearing.asks_for_sync(at(ms), &ada));
        }
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS), &ada));
        assert_eq!(hearing.look_at(), Some(at(LOOK_MS)));
        assert_eq!(hearing.look(at(LOOK_MS - 1)), None);
        assert_eq!(hearing.look(at(LOOK_MS)), Some((ada, at(900))));
        assert_eq!(hearing.look(at(2 * LOOK_MS)), None);
    }

    #[test]
    fn a_flood_of_users_takes_bounded_memory_and_loses_nobody() {
        let mut hearing = Hearing::default();
        for number in 0..REMEMBERED_MAX + 500 {
            let heard = told(&format!("user-{number}"));
            assert!(hearing.asks_for_sync(at(0), &heard));
            let is_remembered = number < REMEMBERED_MAX;
            assert_eq!(hearing.asks_for_sync(at(1), &heard), !is_remembered);
        }
        assert_eq!(hearing.windows.len(), REMEMBERED_MAX);
        assert_eq!(hearing.looks.len(), REMEMBERED_MAX);
        assert!(hearing.asks_for_sync(at(DEBOUNCE_MS), &told("late")));
        assert_eq!(hearing.windows.len(), 1);
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
