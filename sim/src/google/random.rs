//! Changes by chance: one that is possible, from the injected generator.

use kalends_core::rng::{Rng, uniform};
use kalends_core::time::{HOUR_MS, Timestamp};

use super::GoogleEmulator;
use super::change::{Change, ChangeError, DraftStart, EventDraft, Patch, Planner, Repeat};
use super::event::{Event, Frequency};

/// How often a draw is repeated until it fits the calendar; after that a new event is made.
const DRAWS_MAX: u32 = 40;
/// Instances farther into a series than this are not touched.
const OCCURRENCE_MAX: u64 = 12;

const TITLES: [&str; 6] = [
    "Coffee",
    "Handover",
    "Check-in",
    "Postponed",
    "Now on site",
    "Äußerst wichtig",
];
const PLACES: [&str; 4] = ["Room 2", "Video call", "Rooftop", ""];

impl GoogleEmulator {
    /// Draws a change that is possible in a user's primary calendar at `now`, for [`GoogleEmulator::apply`]. All
    /// kinds come, single events more often than series.
    ///
    /// # Errors
    /// If there is no such user, or the calendar comes from a file.
    pub fn random_change(
        &self,
        now: Timestamp,
        user: &str,
        rng: &mut impl Rng,
    ) -> Result<Change, ChangeError> {
        self.random_change_in(now, user, 0, rng)
    }

    /// As [`GoogleEmulator::random_change`], in a user's calendar of this number, for [`GoogleEmulator::apply_in`].
    ///
    /// # Errors
    /// As [`GoogleEmulator::random_change`].
    pub fn random_change_in(
        &self,
        now: Timestamp,
        user: &str,
        calendar: u32,
        rng: &mut impl Rng,
    ) -> Result<Change, ChangeError> {
        let user = self.user(user).map_err(|_| ChangeError::Unknown)?;
        let planner = self.planner(now, user, calendar)?;
        for _ in 0..DRAWS_MAX {
            if let Some(change) = draw(&planner, now, rng)
                && planner.plan(&change).is_ok()
            {
                return Ok(change);
            }
        }
        Ok(Change::Create(draft(now, rng)))
    }
}

fn draw(planner: &Planner<'_>, now: Timestamp, rng: &mut impl Rng) -> Option<Change> {
    let kind = uniform(rng, 99);
    if kind < 22 {
        return Some(Change::Create(draft(now, rng)));
    }
    let event = pick_event(planner, rng)?;
    let is_series = event.rule.is_some();
    if kind < 62 {
        if is_series || event.instance.is_some() {
            return None;
        }
        let id = event.id;
        return Some(match kind {
            22..=36 => Change::Edit {
                id,
                patch: patch(rng),
            },
            37..=51 => Change::Move {
                id,
                by_minutes: minutes(rng),
            },
            _ => Change::Cancel { id },
        });
    }
    let rule = event.rule?;
    let series = event.id;
    if rule.frequency == Frequency::Years {
        // A birthday has no instances to change one by one.
        return Some(match kind {
            62..=90 => Change::EditSeries {
                series,
                patch: patch(rng),
            },
            _ => Change::DeleteSeries { series },
        });
    }
    let occurrence = u32::try_from(uniform(rng, OCCURRENCE_MAX)).expect("a small bound");
    Some(match kind {
        62..=69 => Change::CancelInstance { series, occurrence },
        70..=77 => Change::MoveInstance {
            series,
            occurrence,
            by_minutes: minutes(rng),
        },
        78..=83 => Change::EditInstance {
            series,
            occurrence,
            patch: patch(rng),
        },
        84..=88 => Change::EditSeries {
            series,
            patch: patch(rng),
        },
        89..=92 => Change::SplitSeries {
            series,
            occurrence,
            patch: patch(rng),
        },
        93..=96 => Change::TruncateSeries { series, occurrence },
        _ => Change::DeleteSeries { series },
    })
}

/// Any item that is there, from the base or from what has changed.
fn pick_event(planner: &Planner<'_>, rng: &mut impl Rng) -> Option<Event> {
    let calendar = planner.calendar;
    let overlay = calendar.state.map(|state| &state.overlay);
    let count = u64::from(calendar.base.count) + overlay.map_or(0, |overlay| overlay.len() as u64);
    let place = uniform(rng, count.checked_sub(1)?);
    let id = match u32::try_from(place) {
        Ok(index) if index < calendar.base.count => calendar.base.id(index),
        _ => {
            let place = place - u64::from(calendar.base.count);
            let place = usize::try_from(place).ok()?;
            overlay?.keys().nth(place)?.clone()
        }
    };
    Some(calendar.event(&id)?.into_owned())
}

fn draft(now: Timestamp, rng: &mut impl Rng) -> EventDraft {
    let at = now.plus_ms(uniform(rng, 24 * 60) * HOUR_MS);
    let start = if uniform(rng, 4) == 0 {
        let day = at.as_ms().div_euclid(24 * HOUR_MS.cast_signed());
        DraftStart::Day(i32::try_from(day).unwrap_or(0))
    } else {
        let zones = ["America/New_York", "Europe/Berlin", "Asia/Tokyo", "UTC"];
        DraftStart::At {
            at: Timestamp::from_ms(at.as_ms() / 900_000 * 900_000),
            zone: choose(&zones, rng).to_owned(),
        }
    };
    EventDraft {
        summary: (uniform(rng, 20) > 0).then(|| choose(&TITLES, rng).to_owned()),
        start,
        length_minutes: 15 * (1 + small(rng, 7)),
        repeat: match uniform(rng, 7) {
            0 => Some(Repeat::Days(1)),
            1 => Some(Repeat::Weeks(1)),
            _ => None,
        },
        guests: match uniform(rng, 3) {
            0 => 3,
            _ => 0,
        },
    }
}

fn patch(rng: &mut impl Rng) -> Patch {
    let mut patch = Patch::default();
    match uniform(rng, 3) {
        0 => patch.location = Some(choose(&PLACES, rng).to_owned()),
        1 => patch.description = Some(format!("Note {}", uniform(rng, 999))),
        2 => patch.guests = Some(u8::try_from(uniform(rng, 5)).expect("a small bound")),
        _ => patch.summary = Some(choose(&TITLES, rng).to_owned()),
    }
    patch
}

fn minutes(rng: &mut impl Rng) -> i32 {
    let quarters = i32::try_from(uniform(rng, 40)).expect("a small bound") - 20;
    if quarters == 0 { 15 } else { quarters * 15 }
}

fn small(rng: &mut impl Rng, bound_inclusive: u64) -> u32 {
    u32::try_from(uniform(rng, bound_inclusive)).expect("a small bound")
}

fn choose<'a>(choices: &[&'a str], rng: &mut impl Rng) -> &'a str {
    let place = uniform(rng, choices.len() as u64 - 1);
    choices[usize::try_from(place).expect("below the length")]
}
