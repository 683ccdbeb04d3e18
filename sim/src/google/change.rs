//! What people do with their calendars, and what the next increment says of it.
//!
//! A change is planned against the calendar as it is (or refused), then written down under one stamp. What a plan
//! mentions is what the next increment mentions; that of series follows recorded answers of Google (`series.rs`).

use chrono_tz::Tz;
use kalends_core::rng::stable_hash;
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::GoogleEmulator;
use super::calendar::{Calendar, Entry};
use super::event::{Attendee, Event, Frequency, Kind, Reply, Rule, Status, Text};
use super::person::Person;
use super::series;
use super::when::When;

/// The longest an event may last, in minutes (ten years).
pub const LENGTH_MINUTES_MAX: u32 = 10 * 366 * 24 * 60;
/// The farthest an event may be moved at once, in minutes (ten years).
pub const MOVE_MINUTES_MAX: u32 = LENGTH_MINUTES_MAX;
/// The most guests of an event that a change makes.
pub const GUESTS_MAX: u8 = 50;
const DAY_MINUTES: u32 = 24 * 60;

/// When a new event starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftStart {
    /// A whole day, counted from 1970-01-01.
    Day(i32),
    /// A point in time, in an IANA zone.
    At {
        /// The point.
        at: Timestamp,
        /// The zone's name, such as `Europe/Berlin`.
        zone: String,
    },
}

/// How a new series repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Every so many days, from 1.
    Days(u16),
    /// Every so many weeks, from 1, on the weekday of the start.
    Weeks(u16),
}

/// A new event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// Its title; `None` is an untitled event.
    pub summary: Option<String>,
    /// When it starts.
    pub start: DraftStart,
    /// How long it lasts; whole days for all-day events (at least one). At most [`LENGTH_MINUTES_MAX`].
    pub length_minutes: u32,
    /// For a series.
    pub repeat: Option<Repeat>,
    /// How many of the user's contacts are invited; at most [`GUESTS_MAX`].
    pub guests: u8,
}

/// What of an event becomes different; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// The title; empty takes it away.
    pub summary: Option<String>,
    /// The description; empty takes it away.
    pub description: Option<String>,
    /// The place; empty takes it away.
    pub location: Option<String>,
    /// A new list of that many guests out of the user's contacts; at most [`GUESTS_MAX`].
    pub guests: Option<u8>,
}

/// Something done to a calendar. `occurrence` counts the instances of a series from 0, as its rule has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new event or series.
    Create(EventDraft),
    /// A single event gets other text or guests.
    Edit {
        /// The event's id.
        id: String,
        /// What becomes different.
        patch: Patch,
    },
    /// A single event is put elsewhere in time, with a new `sequence`.
    Move {
        /// The event's id.
        id: String,
        /// Later (or, negative, earlier) by so many minutes; all-day events by whole days, at least one.
        by_minutes: i32,
    },
    /// A single event is deleted: what remains is its id.
    Cancel {
        /// The event's id.
        id: String,
    },
    /// One instance of a series is deleted.
    CancelInstance {
        /// The master's id.
        series: String,
        /// Which instance.
        occurrence: u32,
    },
    /// One instance of a series is put elsewhere in time.
    MoveInstance {
        /// The master's id.
        series: String,
        /// Which instance.
        occurrence: u32,
        /// As in [`Change::Move`].
        by_minutes: i32,
    },
    /// One instance of a series gets other text or guests.
    EditInstance {
        /// The master's id.
        series: String,
        /// Which instance.
        occurrence: u32,
        /// What becomes different.
        patch: Patch,
    },
    /// A whole series, with all that was split off it, gets other text or guests.
    EditSeries {
        /// The master's id.
        series: String,
        /// What becomes different.
        patch: Patch,
    },
    /// "This and following": the series ends before an instance, and a new one begins there.
    SplitSeries {
        /// The master's id.
        series: String,
        /// The first instance of the new series; at least 1.
        occurrence: u32,
        /// What is different about the new series.
        patch: Patch,
    },
    /// "Delete this and following": the series ends before an instance.
    TruncateSeries {
        /// The master's id.
        series: String,
        /// The first instance that goes; at least 1.
        occurrence: u32,
    },
    /// A series goes, with all its exceptions, of which Google says nothing.
    DeleteSeries {
        /// The master's id.
        series: String,
    },
}

/// Why a change is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// No such user or calendar.
    Unknown,
    /// The calendar comes from a file, which only plays what is in it.
    FromFile,
    /// No such event, or it is deleted, or it is not of the kind the change needs (single, series).
    NoSuchEvent,
    /// The series has no such instance (any more), or it is one that the change cannot begin with.
    NoSuchOccurrence,
    /// The draft or patch has a zone, a time (outside the years 1970 to 9999), a length or a number that is not
    /// possible.
    Draft,
}

impl std::fmt::Display for ChangeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            ChangeError::Unknown => "there is no such user or calendar",
            ChangeError::FromFile => "the calendar comes from a file: play the file's next answer",
            ChangeError::NoSuchEvent => "there is no such event that this change fits",
            ChangeError::NoSuchOccurrence => "the series has no such instance to change",
            ChangeError::Draft => "the zone, time, length or number of guests is not possible",
        })
    }
}

impl std::error::Error for ChangeError {}

/// One item of a planned change.
#[derive(Clone, Debug)]
pub(super) enum Planned {
    Put(Box<Event>),
    Delete(String),
    Hide(String),
}

/// What a plan may look at.
pub(super) struct Planner<'a> {
    pub(super) calendar: Calendar<'a>,
    pub(super) seed: u64,
    pub(super) user: u32,
    pub(super) stamp_us: i64,
}

impl GoogleEmulator {
    /// Does something to a user's primary calendar at the time `now`; the ids that the next increment mentions.
    ///
    /// # Errors
    /// If there is no such user, event or instance, or the calendar comes from a file; then nothing has changed.
    pub fn apply(
        &mut self,
        now: Timestamp,
        user: &str,
        change: &Change,
    ) -> Result<Vec<String>, ChangeError> {
        self.apply_in(now, user, "primary", change)
    }

    /// As [`GoogleEmulator::apply`], to any calendar of the user.
    ///
    /// # Errors
    /// As [`GoogleEmulator::apply`], and if there is no such calendar.
    pub fn apply_in(
        &mut self,
        now: Timestamp,
        user: &str,
        calendar: &str,
        change: &Change,
    ) -> Result<Vec<String>, ChangeError> {
        let user = self.user(user).map_err(|_| ChangeError::Unknown)?;
        let calendar = self
            .calendar_number(user, calendar)
            .ok_or(ChangeError::Unknown)?;
        let planned = self.planner(now, user, calendar)?.plan(change)?;
        let base = self.base(user, calendar);
        let state = self.states.entry((user, calendar)).or_default();
        let stamp_us = state.next_stamp_us(&base, now);
        let mut mentioned = Vec::with_capacity(planned.len());
        for item in planned {
            let (id, entry) = match item {
                Planned::Put(mut event) => {
                    event.stamp_us = stamp_us;
                    (event.id.clone(), Entry::Live(event))
                }
                Planned::Delete(id) => (id, Entry::Deleted { stamp_us }),
                Planned::Hide(id) => {
                    state.overlay.insert(id, Entry::Hidden);
                    continue;
                }
            };
            mentioned.push(id.clone());
            state.overlay.insert(id, entry);
        }
        self.tell_watchers(now, user, calendar);
        Ok(mentioned)
    }

    /// What a change at `now` is planned with.
    pub(super) fn planner(
        &self,
        now: Timestamp,
        user: u32,
        calendar: u32,
    ) -> Result<Planner<'_>, ChangeError> {
        let view = self.calendar(user, calendar);
        if view.state.is_some_and(|state| state.fixture.is_some()) {
            return Err(ChangeError::FromFile);
        }
        Ok(Planner {
            calendar: view,
            seed: self.settings.seed,
            user,
            stamp_us: now
                .as_ms()
                .saturating_mul(1_000)
                .max(view.last_stamp_us() + 1),
        })
    }
}

impl Planner<'_> {
    /// Everything the change writes, or why it is not possible.
    pub(super) fn plan(&self, change: &Change) -> Result<Vec<Planned>, ChangeError> {
        match change {
            Change::Create(draft) => Ok(vec![Planned::Put(Box::new(self.create(draft)?))]),
            Change::Edit { id, patch } => {
                let mut event = self.single(id)?;
                self.patch(&mut event, patch)?;
                Ok(vec![Planned::Put(Box::new(event))])
            }
            Change::Move { id, by_minutes } => {
                let mut event = self.single(id)?;
                shift(&mut event, *by_minutes)?;
                Ok(vec![Planned::Put(Box::new(event))])
            }
            Change::Cancel { id } => Ok(vec![Planned::Delete(self.single(id)?.id)]),
            Change::CancelInstance { series, occurrence } => {
                series::change_instance(self, series, *occurrence, |event| {
                    event.status = Status::Cancelled;
                    Ok(())
                })
            }
            Change::MoveInstance {
                series,
                occurrence,
                by_minutes,
            } => series::change_instance(self, series, *occurrence, |event| {
                shift(event, *by_minutes)
            }),
            Change::EditInstance {
                series,
                occurrence,
                patch,
            } => {
                series::change_instance(self, series, *occurrence, |event| self.patch(event, patch))
            }
            Change::EditSeries { series, patch } => series::edit(self, series, patch),
            Change::SplitSeries {
                series,
                occurrence,
                patch,
            } => series::cut(self, series, *occurrence, Some(patch)),
            Change::TruncateSeries { series, occurrence } => {
                series::cut(self, series, *occurrence, None)
            }
            Change::DeleteSeries { series } => series::delete(self, series),
        }
    }

    fn single(&self, id: &str) -> Result<Event, ChangeError> {
        let event = self.calendar.event(id).ok_or(ChangeError::NoSuchEvent)?;
        if event.rule.is_some() || event.instance.is_some() {
            return Err(ChangeError::NoSuchEvent);
        }
        Ok(event.into_owned())
    }

    fn create(&self, draft: &EventDraft) -> Result<Event, ChangeError> {
        if draft.length_minutes > LENGTH_MINUTES_MAX {
            return Err(ChangeError::Draft);
        }
        let (start, end) = match &draft.start {
            DraftStart::Day(day) => {
                let days = (draft.length_minutes / DAY_MINUTES).max(1);
                let last = day.checked_add_unsigned(days).ok_or(ChangeError::Draft)?;
                (When::Date(*day), When::Date(last))
            }
            DraftStart::At { at, zone } => {
                let zone: Tz = zone.parse().map_err(|_| ChangeError::Draft)?;
                let end = at.plus_ms(u64::from(draft.length_minutes) * MINUTE_MS);
                (When::Time { at: *at, zone }, When::Time { at: end, zone })
            }
        };
        if !start.is_in_range() || !end.is_in_range() {
            return Err(ChangeError::Draft);
        }
        let frequency = match draft.repeat {
            None => None,
            Some(Repeat::Days(0) | Repeat::Weeks(0)) => return Err(ChangeError::Draft),
            Some(Repeat::Days(every)) => Some(Frequency::Days(every)),
            Some(Repeat::Weeks(every)) => Some(Frequency::Weeks(every)),
        };
        let now = Timestamp::from_ms(self.stamp_us.div_euclid(1_000));
        Ok(Event {
            id: self.new_id(),
            status: Status::Confirmed,
            stamp_us: self.stamp_us,
            created: Timestamp::from_ms(now.as_ms() / 1_000 * 1_000),
            summary: draft.summary.clone().map(Text::Owned),
            description: None,
            location: None,
            start,
            end,
            rule: frequency.map(|frequency| Rule {
                frequency,
                until: None,
            }),
            instance: None,
            organizer: Person::User(self.user),
            attendees: self.guests(Person::User(self.user), draft.guests)?,
            sequence: 0,
            kind: Kind::Default,
            transparent: matches!(draft.start, DraftStart::Day(_)),
        })
    }

    /// An id that follows from the place and the stamp, and so is new.
    fn new_id(&self) -> String {
        let key = stable_hash(
            self.seed ^ u64::from(self.user),
            &self.stamp_us.to_le_bytes(),
        );
        let other = stable_hash(key, self.calendar.base.id_salt().as_slice());
        super::generator::base32hex(u128::from(key) << 64 | u128::from(other), 26)
    }

    /// Changes text and guests of an event.
    pub(super) fn patch(&self, event: &mut Event, patch: &Patch) -> Result<(), ChangeError> {
        for (field, change) in [
            (&mut event.summary, &patch.summary),
            (&mut event.description, &patch.description),
            (&mut event.location, &patch.location),
        ] {
            if let Some(text) = change {
                *field = (!text.is_empty()).then(|| Text::Owned(text.clone()));
            }
        }
        if let Some(guests) = patch.guests {
            event.attendees = self.guests(event.organizer, guests)?;
        }
        Ok(())
    }

    fn guests(&self, organizer: Person, count: u8) -> Result<Vec<Attendee>, ChangeError> {
        if count > GUESTS_MAX {
            return Err(ChangeError::Draft);
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut attendees = vec![Attendee {
            who: organizer,
            reply: Reply::Accepted,
            optional: false,
            capitals: false,
        }];
        for number in 0..u64::from(count) {
            let choice = stable_hash(self.stamp_us.unsigned_abs(), &number.to_le_bytes());
            let who = Person::contact_of(self.seed, self.user, choice);
            // A user knows fewer people than may be asked for; nobody is invited twice.
            if attendees.iter().all(|other| other.who != who) {
                attendees.push(Attendee {
                    who,
                    reply: Reply::NeedsAction,
                    optional: choice >> 40 & 7 == 0,
                    capitals: false,
                });
            }
        }
        Ok(attendees)
    }
}

/// Puts an event elsewhere in time.
fn shift(event: &mut Event, by_minutes: i32) -> Result<(), ChangeError> {
    if by_minutes.unsigned_abs() > MOVE_MINUTES_MAX {
        return Err(ChangeError::Draft);
    }
    event.start = event.start.moved_by_minutes(by_minutes);
    event.end = event.end.moved_by_minutes(by_minutes);
    if !event.start.is_in_range() || !event.end.is_in_range() {
        return Err(ChangeError::Draft);
    }
    event.sequence += 1;
    Ok(())
}
