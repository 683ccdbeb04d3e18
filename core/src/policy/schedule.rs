//! Schedules: the instants at which a cron expression fires in a time zone, and what to do about missed ones.
//!
//! A tick follows from time alone, never from the tick before it: whoever asks at any instant gets the same answer,
//! so a crash between two ticks breaks no chain.
//!
//! **When the clocks change.** An expression with fixed minutes and hours ("30 2 * * *") means an event of the local
//! day; one with `*` or a step in minute or hour ("*/15 * * * *", "30 * * * *") means elapsed time.
//! - A local time that does not exist fires once, at the gap's end. Only a repeating expression that fires at the
//!   same instant anyway (by the new clock: 02:30 is 03:30) has nothing to make up and gains no extra tick.
//! - A local time that comes twice fires once, the first time; a repeating expression fires both times.
//!
//! So 02:30 in Berlin fires once on every day of the year, and `*/15` fires 92 and 100 times on the two change days,
//! 15 minutes apart throughout.
//!
//! **How it is fast.** Days that do not match are skipped whole, months too. In a day around which the offset does
//! not change, the tick is found in the bits of the expression. Only in the two or three days around a change is the
//! day laid out minute by minute.

use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Offset, TimeZone as _};
use serde::{Deserialize, Serialize};

use super::catch_up::plan;
use super::cron::CronExpression;
use crate::id::SourceName;
use crate::time::Timestamp;

pub use super::catch_up::{CatchUp, CatchUpError, CatchUpPlan};
pub use super::time_zone::{TimeZone, TimeZoneError};

/// How far a tick is searched for, in days: 41 years. 29 February on a given weekday comes every 28 years, and every
/// 40 across 2100; what does not come within this never comes.
pub const SEARCH_DAYS_MAX: u64 = 41 * 366;

/// Ticks are found from 0001-01-01 on, in seconds since the epoch.
const EARLIEST_S: i64 = -62_135_596_800;
/// Ticks are found until 9999-12-31, in seconds since the epoch.
const LATEST_S: i64 = 253_402_214_400;

const MINUTE_S: i64 = 60;
const DAY_S: i64 = 86_400;
/// How far around a local day its offset is looked at, in seconds: more than any offset from UTC (16 h) and any
/// change of it (24 h), and little enough that a day holds one change at most. In the tz database two changes of one
/// zone are never less than 167 hours apart; the tests look again.
const AROUND_DAY_S: i64 = 30 * 3_600;
/// A day near a change may have ticks that lie among those of this many neighbouring days.
const OVERLAP_DAYS: u64 = 2;

/// A schedule as it is stored: what to sync, when, and what to do about ticks that were missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleDefinition {
    /// What is synced at each tick.
    pub source: SourceName,
    /// The minutes of local time it fires at.
    pub cron: CronExpression,
    /// Whose local time.
    #[serde(default)]
    pub time_zone: TimeZone,
    /// What becomes of ticks that nobody was there to fire.
    #[serde(default)]
    pub catch_up: CatchUp,
}

impl ScheduleDefinition {
    /// The first tick strictly after `after`. `None` if there is none within [`SEARCH_DAYS_MAX`] (30 February), or
    /// beyond the year 9999.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after_s = after.as_ms().div_euclid(1_000).max(EARLIEST_S);
        if after_s >= LATEST_S {
            return None;
        }
        let mut date = self.local_date(after_s);
        if self.day(date).is_near_change() {
            date = date - Days::new(1);
        }
        let last_date = date + Days::new(SEARCH_DAYS_MAX);
        while date <= last_date {
            if !self.cron.matches_month(date.month()) {
                date = date.with_day(1).expect("every month has a first") + Months::new(1);
                continue;
            }
            if self.matches(date) {
                let day = self.day(date);
                if let Some(found_s) = self.first_after(&day, after_s) {
                    let also = (1..=OVERLAP_DAYS)
                        .filter(|_| day.is_near_change())
                        .map(|ahead| date + Days::new(ahead))
                        .filter(|date| self.matches(*date))
                        .filter_map(|date| self.first_after(&self.day(date), after_s));
                    return Some(timestamp(also.fold(found_s, i64::min)));
                }
            }
            date = date + Days::new(1);
        }
        None
    }

    /// The last tick at or before `at`. `None` if there is none within [`SEARCH_DAYS_MAX`], or before the year 1.
    #[must_use]
    pub fn previous_at_or_before(&self, at: Timestamp) -> Option<Timestamp> {
        let at_s = at.as_ms().div_euclid(1_000).min(LATEST_S);
        if at_s <= EARLIEST_S {
            return None;
        }
        let mut date = self.local_date(at_s);
        if self.day(date).is_near_change() {
            date = date + Days::new(1);
        }
        let first_date = date - Days::new(SEARCH_DAYS_MAX);
        while date >= first_date {
            if !self.cron.matches_month(date.month()) {
                date = date.with_day(1).expect("every month has a first") - Days::new(1);
                continue;
            }
            if self.matches(date) {
                let day = self.day(date);
                if let Some(found_s) = self.last_to(&day, at_s) {
                    let also = (1..=OVERLAP_DAYS)
                        .filter(|_| day.is_near_change())
                        .map(|back| date - Days::new(back))
                        .filter(|date| self.matches(*date))
                        .filter_map(|date| self.last_to(&self.day(date), at_s));
                    return Some(timestamp(also.fold(found_s, i64::max)));
                }
            }
            date = date - Days::new(1);
        }
        None
    }

    /// The time between the next two ticks after `around`, in milliseconds; `None` if there are not two.
    #[must_use]
    pub fn period_ms(&self, around: Timestamp) -> Option<u64> {
        let first = self.next_after(around)?;
        Some(self.next_after(first)?.since_ms(first))
    }

    /// What to fire at `now` when the last tick that was fired or skipped is `last_tick`: see [`CatchUpPlan`].
    ///
    /// A tick at most `late_ms` old is on time.
    #[must_use]
    pub fn catch_up(&self, last_tick: Timestamp, now: Timestamp, late_ms: u64) -> CatchUpPlan {
        let newest_first = std::iter::successors(self.previous_at_or_before(now), |tick| {
            self.previous_at_or_before(tick.minus_ms(1))
        })
        .take_while(|tick| *tick > last_tick);
        plan(self.catch_up, newest_first, now, late_ms)
    }

    fn matches(&self, date: NaiveDate) -> bool {
        self.cron.matches_date(
            date.month(),
            date.day(),
            date.weekday().num_days_from_sunday(),
        )
    }

    fn offset_s(&self, at_s: i64) -> i64 {
        let at =
            DateTime::from_timestamp(at_s, 0).expect("within the years 1 to 9999 and a search");
        let offset = self
            .time_zone
            .tz()
            .offset_from_utc_datetime(&at.naive_utc());
        i64::from(offset.fix().local_minus_utc())
    }

    fn local_date(&self, at_s: i64) -> NaiveDate {
        date_of_local(at_s + self.offset_s(at_s))
    }

    /// The local day `date` with the offset, or the change of it, that holds around it.
    fn day(&self, date: NaiveDate) -> Day {
        let midnight_s = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
        let mut low_s = midnight_s - AROUND_DAY_S;
        let mut high_s = midnight_s + DAY_S + AROUND_DAY_S;
        let (before_s, after_s) = (self.offset_s(low_s), self.offset_s(high_s));
        if before_s == after_s {
            return Day {
                midnight_s,
                offsets: Offsets::Same(before_s),
            };
        }
        // 84 hours are halved until one second is left: 19 rounds.
        while high_s - low_s > 1 {
            let middle_s = low_s + (high_s - low_s) / 2;
            if self.offset_s(middle_s) == before_s {
                low_s = middle_s;
            } else {
                high_s = middle_s;
            }
        }
        Day {
            midnight_s,
            offsets: Offsets::Change {
                at_s: high_s,
                before_s,
                after_s,
            },
        }
    }

    fn first_after(&self, day: &Day, after_s: i64) -> Option<i64> {
        let Offsets::Same(offset_s) = day.offsets else {
            let ticks = self.ticks_near_change(day);
            return ticks.into_iter().filter(|tick_s| *tick_s > after_s).min();
        };
        let into_day_s = after_s + offset_s - day.midnight_s;
        let from_minute = (into_day_s.div_euclid(MINUTE_S) + 1).max(0);
        let minute = self
            .cron
            .first_minute_from(u32::try_from(from_minute).ok()?)?;
        Some(day.midnight_s + i64::from(minute) * MINUTE_S - offset_s)
    }

    fn last_to(&self, day: &Day, at_s: i64) -> Option<i64> {
        let Offsets::Same(offset_s) = day.offsets else {
            let ticks = self.ticks_near_change(day);
            return ticks.into_iter().filter(|tick_s| *tick_s <= at_s).max();
        };
        let into_day_s = at_s + offset_s - day.midnight_s;
        let to_minute = u32::try_from(into_day_s.div_euclid(MINUTE_S).min(DAY_S)).ok()?;
        let minute = self.cron.last_minute_to(to_minute)?;
        Some(day.midnight_s + i64::from(minute) * MINUTE_S - offset_s)
    }

    /// The ticks of a matching local day around which the offset changes, in no order.
    fn ticks_near_change(&self, day: &Day) -> Vec<i64> {
        let Offsets::Change {
            at_s,
            before_s,
            after_s,
        } = day.offsets
        else {
            unreachable!("only called for days near a change");
        };
        let mut ticks = Vec::new();
        let next = |from: u32| self.cron.first_minute_from(from);
        for minute in std::iter::successors(next(0), |minute| next(minute + 1)) {
            let local_s = day.midnight_s + i64::from(minute) * MINUTE_S;
            let by_old_clock = Some(local_s - before_s).filter(|tick_s| *tick_s < at_s);
            let by_new_clock = Some(local_s - after_s).filter(|tick_s| *tick_s >= at_s);
            match (by_old_clock, by_new_clock) {
                (Some(first), Some(second)) => {
                    ticks.push(first);
                    if self.cron.repeats() {
                        ticks.push(second);
                    }
                }
                (Some(only), None) | (None, Some(only)) => ticks.push(only),
                (None, None) => {
                    let same_instant_s = local_s + after_s - before_s;
                    if !(self.cron.repeats() && self.matches_local(same_instant_s)) {
                        ticks.push(at_s);
                    }
                }
            }
        }
        ticks
    }

    fn matches_local(&self, local_s: i64) -> bool {
        let minute_of_day =
            u32::try_from(local_s.rem_euclid(DAY_S) / MINUTE_S).expect("a day has 1,440 minutes");
        local_s.rem_euclid(MINUTE_S) == 0
            && self.cron.matches_minute_of_day(minute_of_day)
            && self.matches(date_of_local(local_s))
    }
}

impl fmt::Display for ScheduleDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} at {} in {}",
            self.source, self.cron, self.time_zone
        )
    }
}

/// A local day: its midnight as if local time were UTC, in seconds since the epoch, and how far local time is ahead.
struct Day {
    midnight_s: i64,
    offsets: Offsets,
}

enum Offsets {
    /// One offset all through the day and well around it, in seconds.
    Same(i64),
    /// From the instant `at_s` on another offset than before it.
    Change {
        at_s: i64,
        before_s: i64,
        after_s: i64,
    },
}

impl Day {
    fn is_near_change(&self) -> bool {
        matches!(self.offsets, Offsets::Change { .. })
    }
}

fn date_of_local(local_s: i64) -> NaiveDate {
    DateTime::from_timestamp(local_s, 0)
        .expect("within the years 1 to 9999 and a search")
        .date_naive()
}

fn timestamp(at_s: i64) -> Timestamp {
    Timestamp::from_ms(at_s * 1_000)
}

#[cfg(test)]
mod tests;
