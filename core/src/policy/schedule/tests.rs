//! Ticks against a naive scan of every minute, on the days when clocks change and on the ones when they do not.

use chrono::{LocalResult, NaiveDateTime, Timelike};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::super::catch_up::{MISSED_COUNT_MAX, ON_TIME_TICKS_MAX};
use super::*;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS};

fn schedule(cron: &str, time_zone: &str) -> ScheduleDefinition {
    ScheduleDefinition {
        source: SourceName::google_calendar(),
        cron: cron.parse().unwrap(),
        time_zone: time_zone.parse().unwrap(),
        catch_up: CatchUp::default(),
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn ticks(schedule: &ScheduleDefinition, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    std::iter::successors(schedule.next_after(from.minus_ms(1)), |tick| {
        schedule.next_after(*tick)
    })
    .take_while(|tick| *tick < to)
    .collect()
}

/// The ticks of one local day, in RFC 3339 with the zone's offset.
fn ticks_of_local_day(cron: &str, time_zone: &str, date: &str) -> Vec<String> {
    let schedule = schedule(cron, time_zone);
    let tz: Tz = time_zone.parse().unwrap();
    let date: NaiveDate = date.parse().unwrap();
    let midnight = at(&format!("{date}T00:00:00Z"));
    ticks(
        &schedule,
        midnight.minus_ms(DAY_MS),
        midnight.plus_ms(2 * DAY_MS),
    )
    .iter()
    .map(|tick| {
        DateTime::from_timestamp_millis(tick.as_ms())
            .unwrap()
            .with_timezone(&tz)
    })
    .filter(|local| local.date_naive() == date)
    .map(|local| local.format("%H:%M%:z").to_string())
    .collect()
}

#[test]
fn every_quarter_of_an_hour_is_96_a_day() {
    for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
        assert_eq!(
            ticks_of_local_day("*/15 * * * *", zone, "2026-06-10").len(),
            96
        );
    }
}

#[test]
fn half_past_two_in_berlin_fires_once_on_both_change_days() {
    let on = |date| ticks_of_local_day("30 2 * * *", "Europe/Berlin", date);
    assert_eq!(on("2026-03-28"), ["02:30+01:00"]);
    assert_eq!(on("2026-03-29"), ["03:00+02:00"]);
    assert_eq!(on("2026-03-30"), ["02:30+02:00"]);
    assert_eq!(on("2026-10-25"), ["02:30+02:00"]);
    assert_eq!(on("2026-10-26"), ["02:30+01:00"]);
}

#[test]
fn quarters_stay_15_minutes_apart_on_both_change_days() {
    for (date, count) in [("2026-03-29", 92), ("2026-10-25", 100)] {
        let on = ticks_of_local_day("*/15 * * * *", "Europe/Berlin", date);
        assert_eq!(on.len(), count);
    }
    for cron in ["*/15 * * * *", "7-59/15 * * * *"] {
        let all = ticks(
            &schedule(cron, "Europe/Berlin"),
            at("2026-01-01T00:00:00Z"),
            at("2027-01-01T00:00:00Z"),
        );
        assert_eq!(all.len(), 365 * 96);
        assert!(
            all.windows(2)
                .all(|pair| pair[1].since_ms(pair[0]) == 15 * MINUTE_MS)
        );
    }
}

#[test]
fn a_step_within_a_missing_hour_is_made_up_once_and_in_a_double_hour_fires_twice() {
    let on = |date| ticks_of_local_day("*/20 2 * * *", "Europe/Berlin", date);
    assert_eq!(on("2026-03-29"), ["03:00+02:00"]);
    assert_eq!(
        on("2026-10-25"),
        [
            "02:00+02:00",
            "02:20+02:00",
            "02:40+02:00",
            "02:00+01:00",
            "02:20+01:00",
            "02:40+01:00"
        ]
    );
}

#[test]
fn fixed_times_in_and_after_the_gap_both_fire() {
    let on = ticks_of_local_day("30 2,3 * * *", "Europe/Berlin", "2026-03-29");
    assert_eq!(on, ["03:00+02:00", "03:30+02:00"]);
    // Two that fall into the gap fire once together.
    let on = ticks_of_local_day("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29");
    assert_eq!(on, ["03:00+02:00", "03:30+02:00"]);
}

#[test]
fn zones_that_change_at_midnight_lose_no_midnight() {
    for (zone, gap_day, double_day) in [
        ("America/Asuncion", "2023-10-01", "2024-03-23"),
        ("Africa/Cairo", "2024-04-26", "2024-10-31"),
    ] {
        let on_gap_day = ticks_of_local_day("0 0 * * *", zone, gap_day);
        assert_eq!(on_gap_day.len(), 1, "{zone}");
        assert!(on_gap_day[0].starts_with("01:00"), "{zone} {on_gap_day:?}");
        let late = ticks_of_local_day("30 23 * * *", zone, double_day);
        assert_eq!(late.len(), 1, "{zone}");
        let repeated = ticks_of_local_day("30 * * * *", zone, double_day);
        assert_eq!(repeated.len(), 25, "{zone}");
    }
}

#[test]
fn every_minute_fires_when_clocks_go_back_into_the_day_before() {
    // In 2010, one minute past midnight on 7 November was followed by 23:01 on the 6th.
    let minutes = schedule("* * * * *", "America/St_Johns");
    let mut now = at("2010-11-06T22:30:00-02:30");
    while now < at("2010-11-07T01:30:00-03:30") {
        let next = now.plus_ms(MINUTE_MS);
        assert_eq!(minutes.next_after(now), Some(next));
        assert_eq!(minutes.previous_at_or_before(next.minus_ms(1)), Some(now));
        now = next;
    }
    let midnight = schedule("0 0 * * *", "America/St_Johns");
    let first = at("2010-11-07T00:00:00-02:30");
    assert_eq!(midnight.next_after(first.minus_ms(1)), Some(first));
    assert_eq!(
        midnight.next_after(first),
        Some(at("2010-11-08T00:00:00-03:30"))
    );
}

#[test]
fn lord_howe_changes_by_half_an_hour() {
    let on = |cron, date| ticks_of_local_day(cron, "Australia/Lord_Howe", date);
    assert_eq!(on("15 2 * * *", "2026-10-04"), ["02:30+11:00"]);
    assert_eq!(on("45 1 * * *", "2026-04-05"), ["01:45+11:00"]);
    assert_eq!(on("*/15 * * * *", "2026-10-04").len(), 94);
    assert_eq!(on("*/15 * * * *", "2026-04-05").len(), 98);
}

#[test]
fn a_day_that_samoa_left_out_fires_at_its_end() {
    let schedule = schedule("0 12 30 12 *", "Pacific/Apia");
    let tick = schedule.next_after(at("2011-06-01T00:00:00Z")).unwrap();
    assert_eq!(tick, at("2011-12-31T00:00:00+14:00"));
}

#[test]
fn rare_dates_are_found_and_impossible_ones_end() {
    let leap = schedule("0 0 29 2 *", "UTC");
    assert_eq!(
        leap.next_after(at("2096-02-29T00:00:00Z")),
        Some(at("2104-02-29T00:00:00Z"))
    );
    assert_eq!(
        leap.previous_at_or_before(at("2104-02-28T00:00:00Z")),
        Some(at("2096-02-29T00:00:00Z"))
    );
    // 29 February on a Sunday: both day fields must match because one begins with a star.
    let rarest = schedule("0 0 29 2 */7", "UTC");
    assert_eq!(
        rarest.next_after(at("2088-02-29T00:00:00Z")),
        Some(at("2128-02-29T00:00:00Z"))
    );
    let never = schedule("0 0 30 2 *", "Europe/Berlin");
    assert_eq!(never.next_after(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(
        never.previous_at_or_before(at("2026-01-01T00:00:00Z")),
        None
    );
    assert_eq!(never.period_ms(at("2026-01-01T00:00:00Z")), None);
}

#[test]
fn the_ends_of_time_do_no_harm() {
    let quarters = schedule("*/15 * * * *", "Pacific/Apia");
    assert_eq!(quarters.next_after(Timestamp::MAX), None);
    assert_eq!(
        quarters.previous_at_or_before(Timestamp::from_ms(i64::MIN)),
        None
    );
    assert!(quarters.next_after(Timestamp::from_ms(i64::MIN)).is_some());
    assert!(quarters.previous_at_or_before(Timestamp::MAX).is_some());
    let never = schedule("0 0 30 2 *", "Pacific/Apia");
    assert_eq!(never.next_after(at("9999-12-30T00:00:00Z")), None);
    assert_eq!(
        never.previous_at_or_before(at("0001-01-02T00:00:00Z")),
        None
    );
}

#[test]
fn a_tick_within_a_second_is_at_its_beginning() {
    let quarters = schedule("*/15 * * * *", "UTC");
    let tick = at("2026-06-10T12:15:00Z");
    assert_eq!(quarters.next_after(tick.minus_ms(1)), Some(tick));
    assert_eq!(
        quarters.next_after(tick),
        Some(tick.plus_ms(15 * MINUTE_MS))
    );
    assert_eq!(quarters.previous_at_or_before(tick), Some(tick));
    assert_eq!(
        quarters.previous_at_or_before(tick.plus_ms(999)),
        Some(tick)
    );
    assert_eq!(
        quarters.previous_at_or_before(tick.minus_ms(1)),
        Some(tick.minus_ms(15 * MINUTE_MS))
    );
    assert_eq!(quarters.period_ms(tick), Some(15 * MINUTE_MS));
}

#[test]
fn is_stored_as_plain_json() {
    let json = r#"{"source":"google-calendar","cron":"*/15 * * * *","time_zone":"Europe/Berlin","catch_up":"all(4)"}"#;
    let stored: ScheduleDefinition = serde_json::from_str(json).unwrap();
    assert_eq!(stored.catch_up, CatchUp::All { max: 4 });
    assert_eq!(serde_json::to_string(&stored).unwrap(), json);
    let short = r#"{"source":"google-calendar","cron":"@daily"}"#;
    let stored: ScheduleDefinition = serde_json::from_str(short).unwrap();
    assert_eq!(stored, schedule("@daily", "UTC"));
}

// ---- catch-up ----

fn caught_up(catch_up: CatchUp, last: &str, now: &str, late_ms: u64) -> (Vec<String>, u64) {
    let schedule = ScheduleDefinition {
        catch_up,
        ..schedule("*/15 * * * *", "UTC")
    };
    let plan = schedule.catch_up(at(last), at(now), late_ms);
    let fire = plan
        .fire
        .iter()
        .map(|tick| tick.to_rfc3339()[11..16].to_owned())
        .collect();
    (fire, plan.missed)
}

const LAST: &str = "2026-06-10T08:00:00Z";

#[test]
fn a_tick_on_time_fires_whatever_the_policy() {
    for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All { max: 1 }] {
        let on_time = caught_up(catch_up, LAST, "2026-06-10T08:15:20Z", 30_000);
        assert_eq!(on_time, (vec!["08:15".to_owned()], 0));
        let nothing_yet = caught_up(catch_up, LAST, "2026-06-10T08:14:59.999Z", 30_000);
        assert_eq!(nothing_yet, (vec![], 0));
    }
}

#[test]
fn skip_drops_what_was_missed() {
    let late = caught_up(CatchUp::Skip, LAST, "2026-06-10T09:05:00Z", 30_000);
    assert_eq!(late, (vec![], 4));
    let on_time = caught_up(CatchUp::Skip, LAST, "2026-06-10T09:00:10Z", 30_000);
    assert_eq!(on_time, (vec!["09:00".to_owned()], 3));
}

#[test]
fn once_fires_one_tick() {
    let late = caught_up(CatchUp::Once, LAST, "2026-06-10T09:05:00Z", 30_000);
    assert_eq!(late, (vec!["09:00".to_owned()], 4));
    let on_time = caught_up(CatchUp::Once, LAST, "2026-06-10T09:00:10Z", 30_000);
    assert_eq!(on_time, (vec!["09:00".to_owned()], 3));
}

#[test]
fn all_fires_the_newest_oldest_first() {
    let late = caught_up(
        CatchUp::All { max: 3 },
        LAST,
        "2026-06-10T09:05:00Z",
        30_000,
    );
    assert_eq!(
        late,
        (
            vec!["08:30".to_owned(), "08:45".to_owned(), "09:00".to_owned()],
            4
        )
    );
    let few = caught_up(
        CatchUp::All { max: 9 },
        LAST,
        "2026-06-10T08:35:00Z",
        30_000,
    );
    assert_eq!(few, (vec!["08:15".to_owned(), "08:30".to_owned()], 2));
}

#[test]
fn a_year_of_downtime_is_bounded_work() {
    let minutes = ScheduleDefinition {
        catch_up: CatchUp::All { max: 2 },
        ..schedule("* * * * *", "Europe/Berlin")
    };
    let plan = minutes.catch_up(
        at("2025-06-10T08:00:00Z"),
        at("2026-06-10T08:00:30Z"),
        1_000,
    );
    assert_eq!(plan.missed, MISSED_COUNT_MAX);
    assert_eq!(
        plan.fire,
        [at("2026-06-10T07:59:00Z"), at("2026-06-10T08:00:00Z")]
    );
    let generous = minutes.catch_up(Timestamp::from_ms(i64::MIN), at(LAST), u64::MAX);
    assert_eq!(generous.fire.len(), ON_TIME_TICKS_MAX);
}

#[test]
fn a_clock_that_went_back_fires_nothing_again() {
    for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All { max: 5 }] {
        let back = caught_up(catch_up, LAST, "2026-06-10T07:00:00Z", 30_000);
        assert_eq!(back, (vec![], 0));
    }
}

// ---- the naive scan ----

/// An expression together with the values its fields stand for, written down by the generator, not by the parser.
#[derive(Clone, Debug)]
struct Naive {
    text: String,
    minutes: Vec<u32>,
    hours: Vec<u32>,
    days_of_month: Vec<u32>,
    days_of_week: Vec<u32>,
    /// Minute or hour was generated as a star or a step.
    repeats: bool,
    /// Neither day field begins with a star.
    either_day: bool,
}

fn field(min: u32, max: u32) -> impl Strategy<Value = (String, Vec<u32>, bool, bool)> {
    let list = move |values: Vec<u32>| {
        let texts: Vec<String> = values.iter().map(u32::to_string).collect();
        (texts.join(","), values, false, false)
    };
    prop_oneof![
        2 => Just(("*".to_owned(), (min..=max).collect(), true, true)),
        2 => (1..=max - min).prop_map(move |step| {
            (format!("*/{step}"), (min..=max).step_by(step as usize).collect(), true, true)
        }),
        1 => (min..=max, min..=max, 1..=(max - min).min(9)).prop_map(|(one, other, step)| {
            let (first, last) = (one.min(other), one.max(other));
            (format!("{first}-{last}/{step}"), (first..=last).step_by(step as usize).collect(), true, false)
        }),
        1 => (min..=max, min..=max).prop_map(|(one, other)| {
            let (first, last) = (one.min(other), one.max(other));
            (format!("{first}-{last}"), (first..=last).collect(), false, false)
        }),
        3 => prop::collection::vec(min..=max, 1..4).prop_map(list),
    ]
}

fn any_naive() -> impl Strategy<Value = Naive> {
    // Most clocks change between midnight and three: half of the expressions fire there.
    let night = field(0, 3).prop_map(|(text, hours, _, _)| {
        let repeats = text.contains('/');
        (text.replace('*', "0-3"), hours, repeats, false)
    });
    let hours = prop_oneof![field(0, 23), night];
    let day = |min, max| prop_oneof![3 => Just(("*".to_owned(), (min..=max).collect::<Vec<u32>>(), true, true)), 1 => field(min, max)];
    (field(0, 59), hours, day(1, 31), day(0, 6)).prop_map(
        |(minute, hour, day_of_month, day_of_week)| Naive {
            text: format!(
                "{} {} {} * {}",
                minute.0, hour.0, day_of_month.0, day_of_week.0
            ),
            repeats: minute.2 || hour.2,
            either_day: !day_of_month.3 && !day_of_week.3,
            minutes: minute.1,
            hours: hour.1,
            days_of_month: day_of_month.1,
            days_of_week: day_of_week.1,
        },
    )
}

impl Naive {
    fn matches(&self, local: NaiveDateTime) -> bool {
        let of_month = self.days_of_month.contains(&local.day());
        let of_week = self
            .days_of_week
            .contains(&local.weekday().num_days_from_sunday());
        let day = if self.either_day {
            of_month || of_week
        } else {
            of_month && of_week
        };
        day && self.hours.contains(&local.hour())
            && self.minutes.contains(&local.minute())
            && local.second() == 0
    }

    /// Every minute from `from` to `to`, asked in turn whether it is a tick.
    fn ticks(&self, tz: Tz, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
        let local = |at: Timestamp| {
            let utc = DateTime::from_timestamp_millis(at.as_ms()).unwrap();
            utc.with_timezone(&tz).naive_local()
        };
        let mut ticks = Vec::new();
        let mut now = from;
        while now < to {
            let here = local(now);
            let is_second_time = match tz.from_local_datetime(&here) {
                LocalResult::Ambiguous(first, _) => first.timestamp_millis() != now.as_ms(),
                _ => false,
            };
            let mut fires = self.matches(here) && (self.repeats || !is_second_time);
            let mut missing = local(now.minus_ms(MINUTE_MS)) + chrono::Duration::minutes(1);
            let shift = here - missing;
            while missing < here {
                let fires_by_new_clock = self.repeats && self.matches(missing + shift);
                fires |= self.matches(missing) && !fires_by_new_clock;
                missing += chrono::Duration::minutes(1);
            }
            if fires {
                ticks.push(now);
            }
            now = now.plus_ms(MINUTE_MS);
        }
        ticks
    }
}

/// Days around which clocks change, and one ordinary day.
const CHANGES: &[(&str, &str)] = &[
    ("UTC", "2026-03-29"),
    ("Asia/Kathmandu", "1986-01-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("America/Asuncion", "2023-10-01"),
    ("America/Asuncion", "2024-03-24"),
    ("Africa/Cairo", "2024-04-26"),
    ("Africa/Cairo", "2024-11-01"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/St_Johns", "2010-03-14"),
    ("America/St_Johns", "2010-11-07"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Kwajalein", "1993-08-21"),
    ("Antarctica/Troll", "2026-03-29"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ticks_are_those_of_a_scan_of_every_minute(naive in any_naive(), change in prop::sample::select(CHANGES)) {
        let (zone, date) = change;
        let schedule = schedule(&naive.text, zone);
        let day = at(&format!("{date}T00:00:00Z"));
        let (from, to) = (day.minus_ms(36 * HOUR_MS), day.plus_ms(60 * HOUR_MS));
        let expected = naive.ticks(zone.parse().unwrap(), from, to);
        prop_assert_eq!(&ticks(&schedule, from, to), &expected, "forward, {}", naive.text);
        let mut backward: Vec<Timestamp> =
            std::iter::successors(schedule.previous_at_or_before(to.minus_ms(1)), |tick| {
                schedule.previous_at_or_before(tick.minus_ms(1))
            })
            .take_while(|tick| *tick >= from)
            .collect();
        backward.reverse();
        prop_assert_eq!(&backward, &expected, "backward, {}", naive.text);
    }

    #[test]
    fn catch_up_agrees_with_the_list_of_ticks(
        naive in any_naive(), change in prop::sample::select(CHANGES),
        down_ms in 0..2 * DAY_MS, late_ms in prop_oneof![0..2 * MINUTE_MS, 0..HOUR_MS / 2], max in 1_u32..5,
    ) {
        let (zone, date) = change;
        let last = at(&format!("{date}T00:00:00Z")).minus_ms(DAY_MS);
        let now = last.plus_ms(down_ms);
        let all = ticks(&schedule(&naive.text, zone), last.plus_ms(1), now.plus_ms(1));
        let (on_time, missed): (Vec<Timestamp>, Vec<Timestamp>) = all.iter().copied().partition(|tick| now.since_ms(*tick) <= late_ms);
        for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All { max }] {
            let schedule = ScheduleDefinition { catch_up, ..schedule(&naive.text, zone) };
            let plan = schedule.catch_up(last, now, late_ms);
            prop_assert_eq!(plan.missed, missed.len() as u64);
            let fired = match catch_up {
                CatchUp::Skip => on_time.len(),
                CatchUp::Once => on_time.len().max(1),
                CatchUp::All { max } => on_time.len().max(max as usize),
            };
            prop_assert_eq!(&plan.fire[..], &all[all.len() - fired.min(all.len())..]);
        }
    }
}

#[test]
fn no_zone_changes_twice_within_a_search_window() {
    let window_days = (DAY_S + 2 * AROUND_DAY_S) / DAY_S + 1;
    for tz in chrono_tz::TZ_VARIANTS {
        let mut schedule = schedule("* * * * *", "UTC");
        schedule.time_zone = tz.into();
        let first = at("1990-01-01T00:00:00Z").as_ms() / 1_000;
        let mut last_change = None;
        let mut offset_s = schedule.offset_s(first);
        for day in 1..48 * 365 {
            let here_s = schedule.offset_s(first + day * DAY_S);
            if here_s != offset_s {
                let apart = last_change.map_or(i64::MAX, |last| day - last);
                assert!(
                    apart > window_days,
                    "{tz} changes twice within {apart} days"
                );
                (last_change, offset_s) = (Some(day), here_s);
            }
        }
    }
}
