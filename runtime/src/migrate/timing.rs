//! When a repeatable fires, as a cron expression of five fields in a time zone.
//!
//! BullMQ has patterns of five fields, of six with seconds in front, and periods in milliseconds. A period becomes an
//! expression if it divides an hour, a day or a week: BullMQ's runs lie on multiples of the period since 1970, in UTC,
//! moved by an offset. Up to an hour the offset is dropped: for a scheduler it mostly is the accident of when it was
//! made, and Kalends lays a tick's users over the whole period anyway. Above an hour it is kept, to the minute.

use kalends_adapters::bullmq::{Field, RepeatFields};
use kalends_core::policy::CronExpression;
use kalends_core::policy::schedule::TimeZone;
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::{Obstacle, echo};

const HOUR_MINUTES: u64 = 60;
const DAY_MINUTES: u64 = 24 * HOUR_MINUTES;
const WEEK_MINUTES: u64 = 7 * DAY_MINUTES;
/// The day of the week on which multiples of a week since 1970 fall: Thursday, counted from Sunday.
const EPOCH_WEEKDAY: u64 = 4;
/// What to do about timing that a cron expression does not say.
const CHOOSE: &str =
    "choose a cron expression for schedule.cron in the configuration, such as \"*/15 * * * *\"";

/// When something fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The minutes of local time.
    pub cron: CronExpression,
    /// Whose local time.
    pub time_zone: TimeZone,
    /// The pattern names hours or days but no time zone, so BullMQ read it in the zone of its machine.
    pub zone_unsaid: bool,
}

/// What became of a repeatable's timing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// It goes on like this.
    Timing(Timing),
    /// Its end has come already.
    Ended(Timestamp),
}

/// Reads the timing of a repeatable that is next at `next_ms`.
///
/// # Errors
/// If Kalends cannot say it.
pub fn read(fields: &RepeatFields, next_ms: f64, now: Timestamp) -> Result<Read, Obstacle> {
    if let Some(end) = number("endDate", &fields.end_date)? {
        let end = time(end);
        if end <= now {
            return Ok(Read::Ended(end));
        }
        return Err(Obstacle::new(
            format!("ends at {end}, and schedules of Kalends have no end"),
            "choose: a schedule without an end in the configuration (schedule.cron), or none",
        ));
    }
    if let Some(limit) = number("limit", &fields.limit)? {
        return Err(limited(limit));
    }
    if let Some(start) = number("startDate", &fields.start_date)?
        && time(start) > now
    {
        return Err(Obstacle::new(
            format!(
                "begins at {}, and schedules of Kalends begin at once",
                time(start)
            ),
            "migrate again after that time",
        ));
    }
    let every = number("every", &fields.every)?;
    match (text("pattern", &fields.pattern)?, every) {
        (Some(pattern), None) => pattern_timing(pattern, text("tz", &fields.time_zone)?),
        (None, Some(every_ms)) => {
            let offset_ms = number("offset", &fields.offset)?;
            let phase_ms = offset_ms.unwrap_or_else(|| phase(next_ms, every_ms));
            period_timing(every_ms, phase_ms)
        }
        (Some(_), Some(_)) => Err(Obstacle::new("has a pattern and a period", CHOOSE)),
        (None, None) => Err(Obstacle::new("has neither pattern nor period", CHOOSE)),
    }
    .map(Read::Timing)
}

/// What is said of a repeatable that ends after `limit` runs.
pub(super) fn limited(limit: u64) -> Obstacle {
    Obstacle::new(
        format!("ends after {limit} runs, and schedules of Kalends have no end"),
        "choose: a schedule without an end in the configuration (schedule.cron), or none",
    )
}

fn pattern_timing(pattern: &str, zone: Option<&str>) -> Result<Timing, Obstacle> {
    let mut fields: Vec<&str> = pattern.split_ascii_whitespace().collect();
    if fields.len() == 6 {
        let second = fields.remove(0);
        let on_the_minute = second.bytes().all(|digit| digit == b'0');
        if !on_the_minute {
            let rest = fields.join(" ");
            let what = format!(
                "{} fires at second {}, and schedules of Kalends fire on the minute",
                echo(pattern),
                echo(second)
            );
            let remedy = format!("if {} will do, write it as schedule.cron", echo(&rest));
            return Err(Obstacle::new(what, remedy));
        }
    }
    if let [_, _, day_of_month, _, day_of_week] = fields.as_mut_slice() {
        for day in [day_of_month, day_of_week] {
            if *day == "?" {
                *day = "*";
            }
        }
    }
    let cron = CronExpression::parse(&fields.join(" "))
        .map_err(|error| Obstacle::new(format!("{}: {error}", echo(pattern)), CHOOSE))?;
    let time_zone = match zone {
        Some(zone) => TimeZone::parse(zone).map_err(|error| {
            Obstacle::new(format!("its time zone: {error}"), "correct it there, or write schedule.cron and schedule.time_zone in the configuration")
        })?,
        None => TimeZone::UTC,
    };
    let every_hour = fields.get(1) == Some(&"*");
    Ok(Timing {
        cron,
        time_zone,
        zone_unsaid: zone.is_none() && !every_hour,
    })
}

fn period_timing(every_ms: u64, phase_ms: u64) -> Result<Timing, Obstacle> {
    let cron = period_cron(every_ms, phase_ms).ok_or_else(|| {
        Obstacle::new(
            format!(
                "runs every {every_ms} ms, which divides neither an hour nor a day nor a week into whole minutes"
            ),
            CHOOSE,
        )
    })?;
    Ok(Timing {
        cron: CronExpression::parse(&cron).expect("made of numbers within their bounds"),
        time_zone: TimeZone::UTC,
        zone_unsaid: false,
    })
}

/// An expression that fires every so many milliseconds; `None` if there is none.
fn period_cron(every_ms: u64, phase_ms: u64) -> Option<String> {
    let every = every_ms / MINUTE_MS;
    if every == 0 || !every_ms.is_multiple_of(MINUTE_MS) {
        return None;
    }
    if HOUR_MINUTES.is_multiple_of(every) {
        return Some(match every {
            1 => "* * * * *".to_owned(),
            HOUR_MINUTES => "0 * * * *".to_owned(),
            _ => format!("*/{every} * * * *"),
        });
    }
    let phase = phase_ms / MINUTE_MS % every;
    let (minute, hour) = (phase % HOUR_MINUTES, phase / HOUR_MINUTES);
    if every == DAY_MINUTES {
        return Some(format!("{minute} {hour} * * *"));
    }
    if every == WEEK_MINUTES {
        let weekday = (EPOCH_WEEKDAY + hour / 24) % 7;
        return Some(format!("{minute} {} * * {weekday}", hour % 24));
    }
    if every.is_multiple_of(HOUR_MINUTES) && DAY_MINUTES.is_multiple_of(every) {
        let hours = every / HOUR_MINUTES;
        let from = if hour == 0 {
            "*".to_owned()
        } else {
            format!("{hour}-23")
        };
        return Some(format!("{minute} {from}/{hours} * * *"));
    }
    None
}

/// How far a run at `next_ms` lies behind a multiple of `every_ms`.
fn phase(next_ms: f64, every_ms: u64) -> u64 {
    if every_ms == 0 || !(0.0..=8.64e15).contains(&next_ms) {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within bounds; parts of a millisecond do not matter"
    )]
    let next_ms = next_ms as u64;
    next_ms % every_ms
}

fn time(ms: u64) -> Timestamp {
    Timestamp::EPOCH.plus_ms(ms)
}

fn text<'a>(name: &str, field: &'a Field) -> Result<Option<&'a str>, Obstacle> {
    match field {
        Field::Absent => Ok(None),
        Field::Text(text) => Ok(Some(text)),
        Field::TooLong(bytes) => Err(Obstacle::new(
            format!("its {name} has {bytes} bytes"),
            "this is not what BullMQ writes: look at it there",
        )),
    }
}

fn number(name: &str, field: &Field) -> Result<Option<u64>, Obstacle> {
    let Some(text) = text(name, field)? else {
        return Ok(None);
    };
    // Lua writes large numbers as 1.7e+12.
    let number = text.parse::<f64>().ok().filter(|number| {
        const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;
        (0.0..=WHOLE_MAX).contains(number) && number.fract() == 0.0
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and within bounds"
    )]
    match number {
        Some(number) => Ok(Some(number as u64)),
        None => Err(Obstacle::new(
            format!("its {name} is {}, no whole number", echo(text)),
            "this is not what BullMQ writes: look at it there",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::id::SourceName;
    use kalends_core::policy::ScheduleDefinition;
    use kalends_core::time::{DAY_MS, HOUR_MS};

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-03-02T10:07:23Z").unwrap()
    }

    fn pattern(pattern: &str, zone: &str) -> RepeatFields {
        RepeatFields {
            pattern: pattern.into(),
            time_zone: if zone.is_empty() {
                Field::Absent
            } else {
                zone.into()
            },
            ..RepeatFields::default()
        }
    }

    fn every(every_ms: u64, offset_ms: Option<u64>) -> RepeatFields {
        RepeatFields {
            every: every_ms.to_string().as_str().into(),
            offset: offset_ms.map_or(Field::Absent, |offset| offset.to_string().as_str().into()),
            ..RepeatFields::default()
        }
    }

    fn read_one(fields: &RepeatFields) -> Result<String, Obstacle> {
        match read(fields, 0.0, now())? {
            Read::Timing(timing) => Ok(format!("{} {}", timing.cron.as_str(), timing.time_zone)),
            Read::Ended(at) => Ok(format!("ended {at}")),
        }
    }

    #[test]
    fn patterns_keep_their_fields_and_zone() {
        for (fields, expected) in [
            (pattern("0 */15 * * * *", ""), "*/15 * * * * UTC"),
            (
                pattern("*/15 * * * *", "Europe/Berlin"),
                "*/15 * * * * Europe/Berlin",
            ),
            (
                pattern("00 30 2 ? * MON-FRI", "America/New_York"),
                "30 2 * * MON-FRI America/New_York",
            ),
            (pattern("@hourly", ""), "@hourly UTC"),
        ] {
            assert_eq!(read_one(&fields).unwrap(), expected);
        }
    }

    #[test]
    fn an_unsaid_zone_matters_only_where_hours_are_named() {
        for (text, zone, unsaid) in [
            ("*/15 * * * *", "", false),
            ("0 2 * * *", "", true),
            ("0 2 * * *", "UTC", false),
        ] {
            let Read::Timing(timing) = read(&pattern(text, zone), 0.0, now()).unwrap() else {
                panic!("it has not ended");
            };
            assert_eq!(timing.zone_unsaid, unsaid, "{text} {zone}");
        }
    }

    #[test]
    fn what_kalends_cannot_say_is_an_obstacle_that_says_what_to_do() {
        let ending = |fields: RepeatFields, end: &str| RepeatFields {
            end_date: end.into(),
            ..fields
        };
        let quarter = || pattern("*/15 * * * *", "");
        for (fields, part) in [
            (pattern("30 */15 * * * *", ""), "fires at second \"30\""),
            (pattern("* * * * * *", ""), "fires at second \"*\""),
            (pattern("0 0 L * *", ""), "day-of-month"),
            (pattern("0 0 * *", ""), "instead of five"),
            (pattern("*/15 * * * *", "Europe/Berln"), "Europe/Berlin"),
            (every(7 * MINUTE_MS, None), "every 420000 ms"),
            (every(90_000, None), "every 90000 ms"),
            (every(0, None), "every 0 ms"),
            (every(u64::MAX, None), "no whole number"),
            (ending(quarter(), "1e300"), "no whole number"),
            (ending(quarter(), "NaN"), "no whole number"),
            (ending(quarter(), "4102444800000"), "ends at 2100-01-01"),
            (
                RepeatFields {
                    limit: "3".into(),
                    ..quarter()
                },
                "ends after 3 runs",
            ),
            (
                RepeatFields {
                    start_date: "4102444800000".into(),
                    ..quarter()
                },
                "begins at 2100-01-01",
            ),
            (
                RepeatFields {
                    every: "900000".into(),
                    ..quarter()
                },
                "a pattern and a period",
            ),
            (
                RepeatFields {
                    pattern: Field::TooLong(99_999),
                    ..quarter()
                },
                "99999 bytes",
            ),
            (RepeatFields::default(), "neither"),
        ] {
            let obstacle = read_one(&fields).unwrap_err();
            assert!(obstacle.what.contains(part), "{part}: {obstacle:?}");
            assert!(!obstacle.remedy.is_empty());
        }
        let over = ending(quarter(), "1.7e+12");
        assert_eq!(read_one(&over).unwrap(), "ended 2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn periods_fire_when_bullmq_would_have() {
        const PHASES_MS: [u64; 4] = [
            0,
            7 * MINUTE_MS,
            3 * HOUR_MS + 30 * MINUTE_MS,
            2 * DAY_MS + HOUR_MS,
        ];
        for every_minutes in [
            1, 2, 5, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1_440, 10_080,
        ] {
            let every_ms = every_minutes * MINUTE_MS;
            for phase_ms in PHASES_MS {
                let timing = match read(&every(every_ms, Some(phase_ms)), 0.0, now()).unwrap() {
                    Read::Timing(timing) => timing,
                    Read::Ended(at) => panic!("ended at {at}"),
                };
                let definition = ScheduleDefinition {
                    source: SourceName::google_calendar(),
                    cron: timing.cron,
                    time_zone: timing.time_zone,
                    catch_up: Default::default(),
                };
                let kept_ms = if every_minutes <= 60 {
                    0
                } else {
                    phase_ms % every_ms
                };
                let mut tick = now();
                for _ in 0..20 {
                    let since_ms = tick.since_ms(Timestamp::EPOCH) + every_ms - kept_ms;
                    let expected_ms = (since_ms / every_ms) * every_ms + kept_ms;
                    tick = definition.next_after(tick).unwrap();
                    assert_eq!(
                        tick,
                        time(expected_ms),
                        "every {every_minutes} min + {phase_ms} ms: {definition}"
                    );
                }
            }
        }
    }

    #[test]
    fn without_an_offset_the_next_run_tells_the_phase() {
        let next_ms = 1_767_225_600_000.0 + 3.0 * 3_600_000.0 + 61_000.0;
        let read = read(&every(DAY_MS, None), next_ms, now()).unwrap();
        let Read::Timing(timing) = read else {
            panic!("it has not ended");
        };
        assert_eq!(timing.cron.as_str(), "1 3 * * *");
        for next_ms in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(phase(next_ms, DAY_MS), 0);
        }
    }
}
