//! A calendar: what was made up at the start, with what has changed since laid over it.
//!
//! The base costs nothing (see `generator.rs`); the overlay holds only items that were touched, each with its stamp.
//! Read together they are one list ordered by id. Stamps are microseconds and strictly grow within a calendar, so
//! "everything changed after stamp s" is an increment, and the last stamp is the state.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use kalends_core::rng::stable_hash;
use kalends_core::time::Timestamp;

use super::event::Event;
use super::fixture::{Fixture, FixtureItem};
use super::generator::BaseCalendar;
use super::person::Person;

/// An item that differs from the base.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Live(Box<Event>),
    /// Deleted: what remains is the id.
    Deleted {
        stamp_us: i64,
    },
    /// Gone with its series; Google does not mention it again.
    Hidden,
}

/// What a user may do with a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRole {
    /// All.
    Owner,
    /// Write events.
    Writer,
    /// Read events.
    Reader,
    /// See only when somebody is busy: made-up events come without details (those of a file stay as they are).
    FreeBusyReader,
}

impl AccessRole {
    pub(crate) fn text(self) -> &'static str {
        match self {
            AccessRole::Owner => "owner",
            AccessRole::Writer => "writer",
            AccessRole::Reader => "reader",
            AccessRole::FreeBusyReader => "freeBusyReader",
        }
    }
}

/// All that is kept of a calendar that is not as it was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct CalendarState {
    pub(crate) overlay: BTreeMap<String, Entry>,
    /// The last change; `None` if there was none since the start.
    pub(crate) last_stamp_us: Option<i64>,
    /// How often all sync tokens were made worthless.
    pub(crate) generation: u32,
    pub(crate) removed: bool,
    pub(crate) role: Option<AccessRole>,
    /// When the calendar's entry in the list last changed; 0 is never.
    pub(crate) list_stamp_us: i64,
    /// Events from a file instead of made-up ones.
    pub(crate) fixture: Option<Fixture>,
}

impl CalendarState {
    /// A stamp for a change now: later than every earlier one.
    pub(crate) fn next_stamp_us(&mut self, base: &BaseCalendar, now: Timestamp) -> i64 {
        let last = self.last_stamp_us.unwrap_or(base.last_stamp_us());
        let stamp = now.as_ms().saturating_mul(1_000).max(last + 1);
        self.last_stamp_us = Some(stamp);
        stamp
    }
}

/// One item of a calendar as a list sees it.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are events, and a box would cost an allocation for each"
)]
#[derive(Clone, Debug)]
pub(crate) enum Listed<'a> {
    Event(Cow<'a, Event>),
    Deleted { id: &'a str, stamp_us: i64 },
    Fixture(&'a FixtureItem),
}

impl Listed<'_> {
    pub(crate) fn id(&self) -> &str {
        match self {
            Listed::Event(event) => &event.id,
            Listed::Deleted { id, .. } => id,
            Listed::Fixture(item) => &item.key,
        }
    }

    pub(crate) fn stamp_us(&self) -> i64 {
        match self {
            Listed::Event(event) => event.stamp_us,
            Listed::Deleted { stamp_us, .. } => *stamp_us,
            Listed::Fixture(item) => item.stamp_us,
        }
    }
}

/// A calendar to read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calendar<'a> {
    pub(crate) base: BaseCalendar,
    pub(crate) state: Option<&'a CalendarState>,
}

impl<'a> Calendar<'a> {
    pub(crate) fn last_stamp_us(&self) -> i64 {
        let changed = self.state.and_then(|state| state.last_stamp_us);
        changed.unwrap_or(self.base.last_stamp_us())
    }

    pub(crate) fn generation(&self) -> u32 {
        self.state.map_or(0, |state| state.generation)
    }

    /// No list of it is longer than this.
    pub(crate) fn items_max(&self) -> usize {
        let touched = self.state.map_or(0, |state| state.overlay.len());
        let fixed = self.fixture().map_or(0, Fixture::items);
        self.base.count as usize + touched + fixed
    }

    fn fixture(&self) -> Option<&'a Fixture> {
        self.state.and_then(|state| state.fixture.as_ref())
    }

    /// The item with this id, if it is there (or is a cancelled instance).
    pub(crate) fn event(&self, id: &str) -> Option<Cow<'a, Event>> {
        match self.state.and_then(|state| state.overlay.get(id)) {
            Some(Entry::Live(event)) => Some(Cow::Borrowed(event)),
            Some(Entry::Deleted { .. } | Entry::Hidden) => None,
            None => {
                let index = self.base.find(id)?;
                Some(Cow::Owned(self.base.event(index)))
            }
        }
    }

    /// Every item after the key (an id; empty is before all), by id.
    pub(crate) fn items_after(self, key: &str) -> Box<dyn Iterator<Item = Listed<'a>> + 'a> {
        if let Some(fixture) = self.fixture() {
            return Box::new(fixture.items_after(key).map(Listed::Fixture));
        }
        let mut overlay = self.overlay_after(key).peekable();
        let first = if key.is_empty() {
            0
        } else {
            self.base.first_after(key)
        };
        let mut base = (first..self.base.count).peekable();
        let untouched = self.state.is_none_or(|state| state.overlay.is_empty());
        Box::new(std::iter::from_fn(move || {
            loop {
                let Some(index) = base.peek().copied() else {
                    let (id, entry) = overlay.next()?;
                    match listed(id, entry) {
                        Some(item) => return Some(item),
                        None => continue,
                    }
                };
                if untouched {
                    base.next();
                    return Some(Listed::Event(Cow::Owned(self.base.event(index))));
                }
                let base_id = self.base.id(index);
                match overlay.peek() {
                    Some((id, _)) if id.as_str() <= base_id.as_str() => {
                        if id.as_str() == base_id.as_str() {
                            base.next();
                        }
                        let (id, entry) = overlay.next().expect("just peeked");
                        if let Some(item) = listed(id, entry) {
                            return Some(item);
                        }
                    }
                    _ => {
                        base.next();
                        return Some(Listed::Event(Cow::Owned(self.base.event(index))));
                    }
                }
            }
        }))
    }

    /// Every item after the key that changed after the stamp, by id.
    pub(crate) fn changed_after(
        self,
        since_us: i64,
        key: &str,
    ) -> Box<dyn Iterator<Item = Listed<'a>> + 'a> {
        if let Some(fixture) = self.fixture() {
            let changed = fixture.changed_after(since_us, key);
            return Box::new(changed.map(Listed::Fixture));
        }
        let entries = self.overlay_after(key);
        let items = entries.filter_map(|(id, entry)| listed(id, entry));
        Box::new(items.filter(move |item| item.stamp_us() > since_us))
    }

    fn overlay_after(self, key: &str) -> Box<dyn Iterator<Item = (&'a String, &'a Entry)> + 'a> {
        match self.state {
            None => Box::new(std::iter::empty()),
            Some(state) => {
                let range = (Bound::Excluded(key.to_owned()), Bound::Unbounded);
                Box::new(state.overlay.range(range))
            }
        }
    }

    /// The ids of a series and of everything split off it: all that begin with its first id.
    pub(crate) fn family(self, base_id: &str) -> Vec<Cow<'a, Event>> {
        let prefix = base_id.to_owned();
        let before = base_id[..base_id.len().saturating_sub(1)].to_owned();
        // Ids of one family are neighbours; what lies between `before` and the family is passed over.
        let after = self.items_after(&before);
        let from = after.skip_while({
            let prefix = prefix.clone();
            move |item| item.id() < prefix.as_str()
        });
        let members = from.take_while(move |item| item.id().starts_with(&prefix));
        let live = members.filter_map(|item| match item {
            Listed::Event(event) => Some(event),
            Listed::Deleted { .. } | Listed::Fixture(_) => None,
        });
        live.collect()
    }
}

fn listed<'a>(id: &'a str, entry: &'a Entry) -> Option<Listed<'a>> {
    match entry {
        Entry::Live(event) => Some(Listed::Event(Cow::Borrowed(event))),
        Entry::Deleted { stamp_us } => Some(Listed::Deleted {
            id,
            stamp_us: *stamp_us,
        }),
        Entry::Hidden => None,
    }
}

/// The id of a user's calendar: the address, then a holiday-like one with a `#`, then groups.
pub(crate) fn calendar_id(seed: u64, user: u32, calendar: u32) -> String {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&user.to_le_bytes());
    key[4..].copy_from_slice(&calendar.to_le_bytes());
    let hash = stable_hash(seed ^ 0x6361_6c69_6473, &key);
    match calendar {
        0 => Person::User(user).email(),
        1 => format!("en.k{hash:016x}#holiday@group.v.calendar.google.com"),
        _ => format!("c_{hash:016x}@group.calendar.google.com"),
    }
}
