//! Calendars out of nothing: event number `index` of a calendar is computed when somebody asks for it.
//!
//! A calendar that nobody changed is only a key (a hash of seed, user and calendar), so ten thousand of them cost
//! nothing. Everything about an event is drawn from `hash(key, index, field)`; a new field leaves the others alone.
//!
//! Ids begin with their index in fixed-width base32hex, so the order of ids is the order of indexes; an exception's
//! id begins with its master's, whose index comes just before. So paging by id needs no list of ids.
//!
//! Invariants: ids ascend with the index; every event lies within -60..=+120 days of the epoch; every stamp is
//! before the epoch; the members of a series share one stamp.

use chrono_tz::Tz;
use kalends_core::rng::stable_hash;
use kalends_core::time::{DAY_MS, HOUR_MS, Timestamp};

use super::event::{Attendee, Event, Frequency, Instance, Kind, Reply, Rule, Status, Text};
use super::person::Person;
use super::when::{When, local_day_and_minute, local_instant};
use super::words::{PLACES, PROJECTS, SENTENCES, TOPICS};

/// Every so-many-th index is a series, and the few after it may be its exceptions.
const SERIES_EVERY: u32 = 10;
const SERIES_AT: u32 = 3;
const EXCEPTIONS_MAX: u32 = 3;
/// How long before the epoch the last change of an untouched calendar was.
const LAST_CHANGE_BEFORE_EPOCH_MS: u64 = HOUR_MS;

const ID_INDEX_DIGITS: usize = 5;
const ID_HASH_DIGITS: usize = 21;
const BASE32: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

const ZONES: [Tz; 9] = [
    Tz::America__New_York,
    Tz::America__Los_Angeles,
    Tz::America__Chicago,
    Tz::Europe__Berlin,
    Tz::Europe__London,
    Tz::Asia__Tokyo,
    Tz::Asia__Kolkata,
    Tz::Australia__Sydney,
    Tz::UTC,
];

/// One calendar as it was before anybody changed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseCalendar {
    seed: u64,
    key: u64,
    user: u32,
    epoch: Timestamp,
    /// How many items it holds.
    pub(crate) count: u32,
    /// The calendar's own zone, in which times are written.
    pub(crate) zone: Tz,
}

/// What an index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Single,
    Series,
    Exception { series: u32, number: u32 },
}

impl BaseCalendar {
    pub(crate) fn new(seed: u64, user: u32, calendar: u32, count: u32, epoch: Timestamp) -> Self {
        let mut name = [0; 8];
        name[..4].copy_from_slice(&user.to_le_bytes());
        name[4..].copy_from_slice(&calendar.to_le_bytes());
        let key = stable_hash(seed ^ 0x6361_6c65_6e64_6172, &name);
        BaseCalendar {
            seed,
            key,
            user,
            epoch,
            count,
            zone: pick(&ZONES, key >> 7),
        }
    }

    /// The stamp of the last change, in microseconds since the epoch of time.
    pub(crate) fn last_stamp_us(&self) -> i64 {
        self.epoch.minus_ms(LAST_CHANGE_BEFORE_EPOCH_MS).as_ms() * 1_000
    }

    fn draw(&self, index: u32, field: u8) -> u64 {
        let [a, b, c, d] = index.to_le_bytes();
        stable_hash(self.key, &[a, b, c, d, field])
    }

    fn slot(&self, index: u32) -> Slot {
        let place = index % SERIES_EVERY;
        if place == SERIES_AT {
            return Slot::Series;
        }
        let Some(number) = place.checked_sub(SERIES_AT + 1) else {
            return Slot::Single;
        };
        let series = index - number - 1;
        let exceptions = match self.draw(series, b'x') % u64::from(EXCEPTIONS_MAX + 1) {
            // A birthday's instances are never changed.
            _ if self.kind(series) == Kind::Birthday => 0,
            drawn => drawn,
        };
        if u64::from(number) < exceptions {
            Slot::Exception { series, number }
        } else {
            Slot::Single
        }
    }

    fn plain_id(&self, index: u32) -> String {
        let mut id = String::with_capacity(ID_INDEX_DIGITS + ID_HASH_DIGITS + 18);
        for digit in (0..ID_INDEX_DIGITS).rev() {
            id.push(char::from(BASE32[(index >> (5 * digit)) as usize & 31]));
        }
        let bits = u128::from(self.draw(index, b'i')) << 64 | u128::from(self.draw(index, b'j'));
        push_base32hex(&mut id, bits, ID_HASH_DIGITS);
        id
    }

    /// What tells the ids of this calendar's new events from those of another's.
    pub(crate) fn id_salt(&self) -> [u8; 8] {
        self.key.to_le_bytes()
    }

    /// The id of item `index`.
    pub(crate) fn id(&self, index: u32) -> String {
        match self.slot(index) {
            Slot::Single | Slot::Series => self.plain_id(index),
            Slot::Exception { series, number } => {
                let master = self.plain_id(series);
                format!("{master}_{}", self.original(series, number).id_suffix())
            }
        }
    }

    /// The index of the first item whose id is greater than `id`.
    pub(crate) fn first_after(&self, id: &str) -> u32 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.id(middle).as_str() > id {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The index of the item with this id.
    pub(crate) fn find(&self, id: &str) -> Option<u32> {
        let index = self.first_after(id).checked_sub(1)?;
        (self.id(index) == id).then_some(index)
    }

    /// The stamp of item `index`.
    pub(crate) fn stamp_us(&self, index: u32) -> i64 {
        let family = match self.slot(index) {
            Slot::Exception { series, .. } => series,
            Slot::Single | Slot::Series => index,
        };
        let year_us = 300 * DAY_MS.cast_signed() * 1_000;
        let before_us = (self.draw(family, b'u') % year_us.unsigned_abs()).cast_signed();
        self.last_stamp_us() - before_us
    }

    /// Which occurrence of a series its `number`-th exception replaces, and where the rule had put it.
    fn original(&self, series: u32, number: u32) -> When {
        let (start, _, rule) = self.series_times(series);
        rule.occurrence(start, 1 + 2 * number)
            .expect("series are made longer than their exceptions reach")
    }

    fn kind(&self, index: u32) -> Kind {
        match self.draw(index, b'k') % 40 {
            0 if index % SERIES_EVERY == SERIES_AT => Kind::Birthday,
            1 => Kind::OutOfOffice,
            2 => Kind::FocusTime,
            _ => Kind::Default,
        }
    }

    fn event_zone(&self, index: u32) -> Tz {
        match self.draw(index, b'z') % 5 {
            0 => pick(&ZONES, self.draw(index, b'y')),
            _ => self.zone,
        }
    }

    /// A day `low..=high` days after the epoch.
    fn day(&self, index: u32, low: i32, high: i32) -> i32 {
        let (epoch_day, _) = local_day_and_minute(self.epoch, Tz::UTC);
        let width = u64::from((high - low).unsigned_abs()) + 1;
        let drawn = i32::try_from(self.draw(index, b'd') % width).expect("a few months");
        epoch_day + low + drawn
    }

    fn single_times(&self, index: u32) -> (When, When) {
        let shape = self.draw(index, b's') % 100;
        let day = self.day(index, -58, 115);
        if shape < 8 {
            return (When::Date(day), When::Date(day + 1));
        }
        if shape < 12 {
            let length = 2 + i32::try_from(self.draw(index, b'l') % 3).expect("0..3");
            return (When::Date(day), When::Date(day + length));
        }
        let zone = self.event_zone(index);
        let minute = 7 * 60 + 15 * u32::try_from(self.draw(index, b'm') % 48).expect("0..48");
        let length = if shape < 14 {
            26 * 60
        } else {
            15 * (1 + self.draw(index, b'l') % 8)
        };
        timed(day, minute, length, zone)
    }

    fn series_times(&self, index: u32) -> (When, When, Rule) {
        let day = self.day(index, -58, 30);
        let frequency = match self.draw(index, b'f') % 8 {
            _ if self.kind(index) == Kind::Birthday => Frequency::Years,
            0 | 1 => Frequency::Days(1),
            2 => Frequency::Weeks(2),
            _ => Frequency::Weeks(1),
        };
        let all_day = frequency == Frequency::Years || self.draw(index, b's').is_multiple_of(10);
        let (start, end) = if all_day {
            (When::Date(day), When::Date(day + 1))
        } else {
            let minute = 7 * 60 + 15 * u32::try_from(self.draw(index, b'm') % 48).expect("0..48");
            let length = 15 * (1 + self.draw(index, b'l') % 6);
            timed(day, minute, length, self.event_zone(index))
        };
        let mut rule = Rule {
            frequency,
            until: None,
        };
        // One series in three ends; late enough to hold all its exceptions.
        if self.draw(index, b'n').is_multiple_of(3) {
            let last = 6 + u32::try_from(self.draw(index, b'o') % 30).expect("0..30");
            rule.until = rule.occurrence(start, last);
        }
        (start, end, rule)
    }

    /// Item `index`, which must be below `count`.
    pub(crate) fn event(&self, index: u32) -> Event {
        assert!(index < self.count, "asked for an item that is not there");
        let stamp_us = self.stamp_us(index);
        match self.slot(index) {
            Slot::Single => {
                let (start, end) = self.single_times(index);
                self.dress(index, self.plain_id(index), stamp_us, start, end)
            }
            Slot::Series => {
                let (start, end, rule) = self.series_times(index);
                let mut event = self.dress(index, self.plain_id(index), stamp_us, start, end);
                event.rule = Some(rule);
                event
            }
            Slot::Exception { series, number } => self.exception(index, series, number, stamp_us),
        }
    }

    fn exception(&self, index: u32, series: u32, number: u32, stamp_us: i64) -> Event {
        let (start, end, _) = self.series_times(series);
        let original = self.original(series, number);
        let master = self.plain_id(series);
        let id = format!("{master}_{}", original.id_suffix());
        let start = original_shifted(original, start, start);
        let end = original_shifted(original, self.series_times(series).0, end);
        let mut event = self.dress(series, id, stamp_us, start, end);
        event.instance = Some(Instance {
            series: master,
            original,
        });
        match self.draw(index, b'e') % 3 {
            0 => event.status = Status::Cancelled,
            1 => {
                event.start = event.start.moved_by_minutes(90);
                event.end = event.end.moved_by_minutes(90);
                event.sequence += 1;
            }
            _ => event.location = Some(pick(&PLACES, self.draw(index, b'p')).into()),
        }
        event
    }

    /// All that does not concern time.
    fn dress(&self, index: u32, id: String, stamp_us: i64, start: When, end: When) -> Event {
        let kind = self.kind(index);
        let organizer = if kind == Kind::Default && self.draw(index, b'g').is_multiple_of(8) {
            Person::contact_of(self.seed, self.user, self.draw(index, b'h'))
        } else {
            Person::User(self.user)
        };
        let updated = Timestamp::from_ms(stamp_us / 1_000);
        let created = updated.minus_ms(self.draw(index, b'c') % (60 * DAY_MS));
        Event {
            id,
            status: match self.draw(index, b't') % 20 {
                0 => Status::Tentative,
                _ => Status::Confirmed,
            },
            stamp_us,
            // Google gives `created` whole seconds.
            created: Timestamp::from_ms(created.as_ms() / 1_000 * 1_000),
            summary: self.summary(index, kind),
            description: self.description(index),
            location: (self.draw(index, b'p').is_multiple_of(3))
                .then(|| pick(&PLACES, self.draw(index, b'q')).into()),
            start,
            end,
            rule: None,
            instance: None,
            organizer,
            attendees: self.attendees(index, kind, organizer),
            sequence: u32::try_from(self.draw(index, b'v') % 3).expect("0..3"),
            kind,
            transparent: matches!(start, When::Date(_)),
        }
    }

    fn summary(&self, index: u32, kind: Kind) -> Option<Text> {
        let topic = pick(&TOPICS, self.draw(index, b'a'));
        let project = pick(&PROJECTS, self.draw(index, b'b'));
        match kind {
            Kind::Birthday => Some("Happy birthday!".into()),
            Kind::OutOfOffice => Some("Out of office".into()),
            Kind::FocusTime => Some("Focus time".into()),
            // An untitled event has no summary at all.
            Kind::Default if self.draw(index, b'0').is_multiple_of(50) => None,
            Kind::Default if index.is_multiple_of(2) => Some(topic.into()),
            Kind::Default => Some([project, ": ", topic].concat().into()),
        }
    }

    fn description(&self, index: u32) -> Option<Text> {
        let drawn = self.draw(index, b'1');
        let sentence = |shift: u32| pick(&SENTENCES, drawn >> shift);
        match drawn % 4 {
            0 | 1 => None,
            2 => Some(sentence(8).into()),
            _ => Some([sentence(8), " ", sentence(16)].concat().into()),
        }
    }

    fn attendees(&self, index: u32, kind: Kind, organizer: Person) -> Vec<Attendee> {
        let drawn = self.draw(index, b'2');
        if kind != Kind::Default || drawn % 100 >= 23 {
            return Vec::new();
        }
        let guests = 2 + (drawn >> 8) % 4;
        let mut attendees: Vec<Attendee> = Vec::with_capacity(5);
        for number in 0..guests {
            let draw = stable_hash(drawn, &number.to_le_bytes());
            let who = match number {
                0 => organizer,
                1 if organizer != Person::User(self.user) => Person::User(self.user),
                4 => Person::room(draw),
                _ => Person::contact_of(self.seed, self.user, draw),
            };
            if attendees.iter().any(|other| other.who == who) {
                continue;
            }
            attendees.push(Attendee {
                who,
                reply: match (number, draw >> 32 & 3) {
                    (0, _) | (_, 3) => Reply::Accepted,
                    (_, 0) => Reply::NeedsAction,
                    (_, 1) => Reply::Declined,
                    _ => Reply::Tentative,
                },
                optional: draw >> 40 & 7 == 0,
                capitals: matches!(who, Person::Contact(_)) && draw >> 48 & 7 == 0,
            });
        }
        attendees
    }
}

/// `digits` letters of Google's alphabet for ids, from the low bits of a number.
pub(crate) fn base32hex(bits: u128, digits: usize) -> String {
    let mut id = String::with_capacity(digits);
    push_base32hex(&mut id, bits, digits);
    id
}

fn push_base32hex(id: &mut String, mut bits: u128, digits: usize) {
    for _ in 0..digits {
        id.push(char::from(BASE32[(bits & 31) as usize]));
        bits >>= 5;
    }
}

fn pick<T: Copy>(choices: &[T], drawn: u64) -> T {
    let index = drawn % choices.len() as u64;
    choices[usize::try_from(index).expect("below the length")]
}

fn timed(day: i32, minute: u32, length_minutes: u64, zone: Tz) -> (When, When) {
    let at = local_instant(day, minute, zone);
    let end = at.plus_ms(length_minutes * kalends_core::time::MINUTE_MS);
    (When::Time { at, zone }, When::Time { at: end, zone })
}

/// `of` (the master's start or end) carried over to the occurrence that starts at `original`.
pub(crate) fn original_shifted(original: When, master_start: When, of: When) -> When {
    match (original, master_start, of) {
        (When::Date(day), When::Date(first), When::Date(other)) => When::Date(day + other - first),
        (When::Time { at, .. }, When::Time { at: first, .. }, When::Time { at: other, zone }) => {
            When::Time {
                at: at.plus_ms(other.since_ms(first)),
                zone,
            }
        }
        // Start and end of a generated event are of one kind.
        (_, _, other) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const EPOCH_MS: i64 = 1_790_000_000_000;

    fn calendars() -> impl Iterator<Item = BaseCalendar> {
        (0..20).map(|user| BaseCalendar::new(9, user, 0, 500, Timestamp::from_ms(EPOCH_MS)))
    }

    #[test]
    fn ids_ascend_and_are_found_again() {
        for calendar in calendars() {
            let ids: Vec<String> = (0..calendar.count)
                .map(|index| calendar.id(index))
                .collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
            for index in (0..calendar.count).step_by(7) {
                let id = &ids[index as usize];
                assert_eq!(calendar.find(id), Some(index));
                assert_eq!(&calendar.event(index).id, id);
            }
            assert_eq!(calendar.find("zzz"), None);
            assert_eq!(calendar.find(""), None);
        }
    }

    #[test]
    fn every_event_lies_in_the_window_and_was_changed_before_the_epoch() {
        let epoch = Timestamp::from_ms(EPOCH_MS);
        for calendar in calendars() {
            for index in 0..calendar.count {
                let event = calendar.event(index);
                assert!(
                    event.start.instant() >= epoch.minus_ms(60 * DAY_MS),
                    "{event:?}"
                );
                assert!(
                    event.end.instant() <= epoch.plus_ms(121 * DAY_MS),
                    "{event:?}"
                );
                assert!(event.start.instant() < event.end.instant());
                assert!(event.stamp_us <= calendar.last_stamp_us());
                assert!(event.created.as_ms() * 1_000 <= event.stamp_us);
            }
        }
    }

    #[test]
    fn members_of_a_series_belong_together() {
        let mut exceptions = 0;
        for calendar in calendars() {
            for index in 0..calendar.count {
                let event = calendar.event(index);
                let Some(instance) = &event.instance else {
                    continue;
                };
                exceptions += 1;
                let master = calendar.event(calendar.find(&instance.series).unwrap());
                assert_eq!(master.stamp_us, event.stamp_us);
                let rule = master.rule.unwrap();
                let hit = (0..40)
                    .any(|number| rule.occurrence(master.start, number) == Some(instance.original));
                assert!(hit, "{event:?}");
            }
        }
        assert!(exceptions > 500);
    }

    #[test]
    fn calendars_are_varied() {
        let mut seen = BTreeSet::new();
        let (mut events, mut guests) = (0_usize, 0_usize);
        for event in calendars().flat_map(|calendar| (0..500).map(move |i| calendar.event(i))) {
            events += 1;
            guests += event.attendees.len();
            seen.insert(event.kind.text());
            seen.insert(event.status.text());
            seen.extend(event.rule.map(|_| "series"));
            seen.extend(event.summary.is_none().then_some("untitled"));
            seen.extend(event.description.is_some().then_some("described"));
            let days = event.end.instant().since_ms(event.start.instant()) / DAY_MS;
            match event.start {
                When::Date(_) if days > 1 => seen.insert("several days"),
                When::Date(_) => seen.insert("all day"),
                When::Time { .. } if days >= 1 => seen.insert("over midnight"),
                When::Time { .. } => seen.insert("timed"),
            };
            if !matches!(event.organizer, Person::User(_)) {
                seen.insert("invited");
            }
            for attendee in &event.attendees {
                seen.insert(attendee.reply.text());
                seen.extend(attendee.optional.then_some("optional"));
                seen.extend(attendee.capitals.then_some("capitals"));
                seen.extend(matches!(attendee.who, Person::Room(_)).then_some("room"));
            }
        }
        assert_eq!(seen.len(), 21, "{seen:?}");
        let average = guests as f64 / events as f64;
        assert!((0.6..1.0).contains(&average), "{average}");
    }
}
