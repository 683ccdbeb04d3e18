//! Cron expressions: five fields that say which minutes of local time a schedule fires at.
//!
//! `minute hour day-of-month month day-of-week`, each `*`, a number, a range `a-b`, a step `*/n`, `a-b/n` or `a/n`,
//! or a list of these. Months and weekdays may be named by their first three letters; Sunday is 0 or 7. `@hourly`,
//! `@daily`, `@weekly`, `@monthly` and `@yearly` stand for what they say.
//!
//! Each field becomes a mask of bits, so that "does it fire?" and "when next in this day?" cost a few instructions
//! however long the list was. What a mask cannot tell is kept beside it:
//! - whether a day field begins with `*`. If neither does, either may match (`0 0 13 * 5`: every 13th and every
//!   Friday); if one does, both must. That is Vixie cron's rule.
//! - whether minute or hour is `*` or a step. Such an expression means "every so often" rather than "at", which
//!   matters when the clocks change (see [`super::schedule`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest expression that is accepted, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// The schedule unless configured otherwise: every 15 minutes.
pub const CRON_DEFAULT: &str = "*/15 * * * *";

/// Minutes in a day of local time.
pub(super) const DAY_MINUTES: u32 = 24 * 60;

const FIELD_COUNT: usize = 5;
/// The most characters of a faulty text that an error repeats.
const ECHO_CHARS_MAX: usize = 40;

const MONTH_NAMES: &[&str] = &[
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAY_NAMES: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const MACROS: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Why a text is not a cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    /// The field at fault: `minute`, `hour`, `day-of-month`, `month`, `day-of-week`, or `expression` for the whole.
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for CronError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {}; {}",
            self.field, self.problem, self.remedy
        )
    }
}

impl std::error::Error for CronError {}

/// A cron expression. Equal if written alike; shown as it was written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronExpression {
    text: String,
    minutes: u64,
    hours: u64,
    days_of_month: u64,
    months: u64,
    days_of_week: u64,
    /// Either day field begins with `*`, so both must match.
    days_must_both_match: bool,
    /// Minute or hour is `*` or a step.
    repeats: bool,
}

impl CronExpression {
    /// Reads an expression.
    ///
    /// # Errors
    /// If it is longer than [`CRON_BYTES_MAX`], has not five fields, or a field cannot be read. Dates that never
    /// come (30 February) are not an error here: [`super::ScheduleDefinition::next_after`] says `None`.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let whole = |problem: String, remedy: &str| CronError {
            field: "expression",
            problem,
            remedy: remedy.to_owned(),
        };
        if text.len() > CRON_BYTES_MAX {
            return Err(whole(
                format!("has {} bytes", text.len()),
                &format!("at most {CRON_BYTES_MAX} are allowed; use ranges and steps"),
            ));
        }
        let text = text.trim();
        let expanded = if text.starts_with('@') {
            MACROS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text))
                .map(|(_, expanded)| *expanded)
                .ok_or_else(|| {
                    whole(
                        format!("{} is not known", echo(text)),
                        "write @hourly, @daily, @weekly, @monthly, @yearly or five fields",
                    )
                })?
        } else {
            text
        };
        let fields: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let Ok([minute, hour, day_of_month, month, day_of_week]) =
            <[&str; FIELD_COUNT]>::try_from(fields.as_slice())
        else {
            return Err(whole(
                format!("has {} fields instead of five", fields.len()),
                "write minute, hour, day-of-month, month and day-of-week, \
                 such as \"*/15 * * * *\" for every 15 minutes",
            ));
        };
        let (minute, hour) = (MINUTE.parse(minute)?, HOUR.parse(hour)?);
        let day_of_month = DAY_OF_MONTH.parse(day_of_month)?;
        let month = MONTH.parse(month)?;
        let day_of_week = DAY_OF_WEEK.parse(day_of_week)?;
        const SUNDAY_AS_7: u64 = 1 << 7;
        let sunday = u64::from(day_of_week.mask & SUNDAY_AS_7 != 0);
        Ok(CronExpression {
            text: text.to_owned(),
            minutes: minute.mask,
            hours: hour.mask,
            days_of_month: day_of_month.mask,
            months: month.mask,
            days_of_week: (day_of_week.mask & !SUNDAY_AS_7) | sunday,
            days_must_both_match: day_of_month.starts_with_star || day_of_week.starts_with_star,
            repeats: minute.repeats || hour.repeats,
        })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether minute or hour is `*` or a step: the expression means "every so often", not "at".
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// Whether it may fire in this month (1 to 12).
    #[must_use]
    pub fn matches_month(&self, month: u32) -> bool {
        has(self.months, month)
    }

    /// Whether it fires on this date: `month` from 1, `day_of_month` from 1, `day_of_week` from Sunday = 0.
    #[must_use]
    pub fn matches_date(&self, month: u32, day_of_month: u32, day_of_week: u32) -> bool {
        let of_month = has(self.days_of_month, day_of_month);
        let of_week = has(self.days_of_week, day_of_week);
        let day = if self.days_must_both_match {
            of_month && of_week
        } else {
            of_month || of_week
        };
        day && has(self.months, month)
    }

    /// Whether it fires at this minute of a day that matches, counted from midnight.
    #[must_use]
    pub fn matches_minute_of_day(&self, minute_of_day: u32) -> bool {
        has(self.hours, minute_of_day / 60) && has(self.minutes, minute_of_day % 60)
    }

    /// The first minute of a day that matches, from `minute_of_day` on.
    #[must_use]
    pub fn first_minute_from(&self, minute_of_day: u32) -> Option<u32> {
        if minute_of_day >= DAY_MINUTES {
            return None;
        }
        let (hour, minute) = (minute_of_day / 60, minute_of_day % 60);
        if has(self.hours, hour)
            && let Some(minute) = lowest(self.minutes & (u64::MAX << minute))
        {
            return Some(hour * 60 + minute);
        }
        let later_hour = lowest(self.hours & (u64::MAX << (hour + 1)))?;
        Some(later_hour * 60 + lowest(self.minutes)?)
    }

    /// The last minute of a day that matches, up to `minute_of_day` inclusive (cut to the day's last).
    #[must_use]
    pub fn last_minute_to(&self, minute_of_day: u32) -> Option<u32> {
        let minute_of_day = minute_of_day.min(DAY_MINUTES - 1);
        let (hour, minute) = (minute_of_day / 60, minute_of_day % 60);
        if has(self.hours, hour)
            && let Some(minute) = highest(self.minutes & (u64::MAX >> (63 - minute)))
        {
            return Some(hour * 60 + minute);
        }
        let earlier_hour = highest(self.hours & !(u64::MAX << hour))?;
        Some(earlier_hour * 60 + highest(self.minutes)?)
    }
}

impl Default for CronExpression {
    fn default() -> Self {
        CronExpression::parse(CRON_DEFAULT).expect("a constant that the tests parse")
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for CronExpression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.text)
    }
}

impl FromStr for CronExpression {
    type Err = CronError;
    fn from_str(text: &str) -> Result<Self, CronError> {
        CronExpression::parse(text)
    }
}

impl TryFrom<String> for CronExpression {
    type Error = CronError;
    fn try_from(text: String) -> Result<Self, CronError> {
        CronExpression::parse(&text)
    }
}

impl From<CronExpression> for String {
    fn from(expression: CronExpression) -> String {
        expression.text
    }
}

fn has(mask: u64, bit: u32) -> bool {
    bit < u64::BITS && mask & (1 << bit) != 0
}

fn lowest(mask: u64) -> Option<u32> {
    (mask != 0).then(|| mask.trailing_zeros())
}

fn highest(mask: u64) -> Option<u32> {
    (mask != 0).then(|| 63 - mask.leading_zeros())
}

/// A faulty text as an error repeats it: quoted, without control characters, cut.
fn echo(text: &str) -> String {
    let mut cut: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// What may stand in one field.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// The names of values, from `min` on.
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
};
const DAY_OF_MONTH: Field = Field {
    name: "day-of-month",
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: MONTH_NAMES,
};
const DAY_OF_WEEK: Field = Field {
    name: "day-of-week",
    min: 0,
    max: 7,
    names: WEEKDAY_NAMES,
};

struct Parsed {
    mask: u64,
    starts_with_star: bool,
    repeats: bool,
}

impl Field {
    fn parse(&self, text: &str) -> Result<Parsed, CronError> {
        let mut parsed = Parsed {
            mask: 0,
            starts_with_star: text.starts_with('*'),
            repeats: false,
        };
        for item in text.split(',') {
            self.parse_item(item, &mut parsed)?;
        }
        Ok(parsed)
    }

    fn parse_item(&self, item: &str, parsed: &mut Parsed) -> Result<(), CronError> {
        let (span, step) = match item.split_once('/') {
            Some((span, step)) => (span, Some(self.parse_step(step)?)),
            None => (item, None),
        };
        let (first, last) = if span == "*" {
            (self.min, self.max)
        } else if let Some((first, last)) = span.split_once('-') {
            let (first_value, last_value) =
                (self.parse_value(first)?, self.parse_range_end(first, last)?);
            if first_value > last_value {
                return Err(self.error(
                    format!("the range {} runs backwards", echo(span)),
                    format!(
                        "put the smaller value first, or write two ranges: {first}-{},{}-{last}",
                        self.max, self.min
                    ),
                ));
            }
            (first_value, last_value)
        } else {
            let value = self.parse_value(span)?;
            (value, if step.is_some() { self.max } else { value })
        };
        // `*` in the weekday field must not count Sunday twice: 0-6 by steps, not 0-7.
        let last = if span == "*" {
            last.min(self.min + self.size() - 1)
        } else {
            last
        };
        parsed.repeats |= span == "*" || step.is_some();
        let step = step.unwrap_or(1);
        let mut value = first;
        while value <= last {
            parsed.mask |= 1 << value;
            value += step;
        }
        Ok(())
    }

    /// How many different values there are; 0 and 7 are both Sunday.
    fn size(&self) -> u32 {
        let distinct = self.max - self.min + 1;
        if self.names.is_empty() {
            distinct
        } else {
            u32::try_from(self.names.len()).expect("at most 12 names")
        }
    }

    fn parse_step(&self, text: &str) -> Result<u32, CronError> {
        match parse_number(text) {
            Some(step) if (1..=self.size()).contains(&step) => Ok(step),
            _ => Err(self.error(
                format!(
                    "the step {} is not a number from 1 to {}",
                    echo(text),
                    self.size()
                ),
                format!("write */n with n from 1 to {}", self.size()),
            )),
        }
    }

    /// As a value, but SUN ends a range as 7, so that FRI-SUN is a weekend and not backwards.
    fn parse_range_end(&self, first: &str, text: &str) -> Result<u32, CronError> {
        let value = self.parse_value(text)?;
        let ends_on_sunday = self.max == DAY_OF_WEEK.max
            && text.eq_ignore_ascii_case(WEEKDAY_NAMES[0])
            && !first.eq_ignore_ascii_case(WEEKDAY_NAMES[0]);
        Ok(if ends_on_sunday { self.max } else { value })
    }

    fn parse_value(&self, text: &str) -> Result<u32, CronError> {
        let named = self
            .names
            .iter()
            .zip(self.min..)
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, value)) = named {
            return Ok(value);
        }
        let remedy = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(
                "write {} to {}, {first} to {last}, a range such as {first}-{last}, a list, or *",
                self.min, self.max
            ),
            _ => format!(
                "write {} to {}, a range such as {}-{}, a list, a step such as */5, or *",
                self.min, self.max, self.min, self.max
            ),
        };
        match parse_number(text) {
            Some(value) if (self.min..=self.max).contains(&value) => Ok(value),
            Some(value) => Err(self.error(
                format!("{value} is not within {} to {}", self.min, self.max),
                remedy,
            )),
            None if text.is_empty() => Err(self.error("a value is missing".to_owned(), remedy)),
            None => Err(self.error(format!("{} cannot be read", echo(text)), remedy)),
        }
    }

    fn error(&self, problem: String, remedy: String) -> CronError {
        CronError {
            field: self.name,
            problem,
            remedy,
        }
    }
}

/// A whole number written in digits alone (no sign), small enough for any field.
fn parse_number(text: &str) -> Option<u32> {
    const DIGITS_MAX: usize = 4;
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || text.len() > DIGITS_MAX || !all_digits {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cron(text: &str) -> CronExpression {
        CronExpression::parse(text).unwrap()
    }

    fn days_of_week(text: &str) -> Vec<u32> {
        let expression = cron(&format!("0 0 * * {text}"));
        (0..7)
            .filter(|day| expression.matches_date(1, 1, *day))
            .collect()
    }

    #[test]
    fn fields_take_lists_ranges_steps_and_names() {
        let expression = cron("0,30-40/5 8-18/5 * jan,Mar-MAY *");
        let minutes: Vec<u32> = (8 * 60..9 * 60)
            .filter(|minute| expression.matches_minute_of_day(*minute))
            .map(|minute| minute % 60)
            .collect();
        assert_eq!(minutes, [0, 30, 35, 40]);
        let hours: Vec<u32> = (0..24)
            .filter(|hour| expression.matches_minute_of_day(hour * 60))
            .collect();
        assert_eq!(hours, [8, 13, 18]);
        let months: Vec<u32> = (1..=12)
            .filter(|month| expression.matches_month(*month))
            .collect();
        assert_eq!(months, [1, 3, 4, 5]);
        assert!(cron("50/5 * * * *").matches_minute_of_day(55));
        assert!(!cron("50/5 * * * *").matches_minute_of_day(45));
    }

    #[test]
    fn sunday_is_0_and_7() {
        assert_eq!(days_of_week("7"), [0]);
        assert_eq!(days_of_week("0"), [0]);
        assert_eq!(days_of_week("5-7"), [0, 5, 6]);
        assert_eq!(days_of_week("fri-sun"), [0, 5, 6]);
        assert_eq!(days_of_week("SUN-TUE"), [0, 1, 2]);
        assert_eq!(days_of_week("*/7"), [0]);
        assert_eq!(days_of_week("*"), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn either_day_field_may_match_if_both_are_restricted() {
        let either = cron("0 0 13 * 5");
        assert!(either.matches_date(1, 13, 1));
        assert!(either.matches_date(1, 2, 5));
        assert!(!either.matches_date(1, 2, 1));
        let both = cron("0 0 */2 * 5");
        assert!(both.matches_date(1, 3, 5));
        assert!(!both.matches_date(1, 2, 5));
        assert!(!both.matches_date(1, 3, 4));
    }

    #[test]
    fn macros_mean_their_fields() {
        for (name, expanded) in MACROS {
            let (named, plain) = (cron(name), cron(expanded));
            assert_eq!(named.as_str(), *name);
            assert_eq!(
                CronExpression {
                    text: plain.text.clone(),
                    ..named
                },
                plain
            );
        }
    }

    #[test]
    fn star_and_step_repeat_and_times_do_not() {
        for text in [
            "*/15 * * * *",
            "30 * * * *",
            "* 2 * * *",
            "0-30/10 2 * * *",
            CRON_DEFAULT,
        ] {
            assert!(cron(text).repeats(), "{text}");
        }
        for text in ["30 2 * * *", "0,30 2,3 * * *", "0-59 1-3 */2 * *", "@daily"] {
            assert!(!cron(text).repeats(), "{text}");
        }
    }

    #[test]
    fn errors_name_the_field_and_the_way_out() {
        let cases = [
            (
                "60 * * * *",
                "minute: 60 is not within 0 to 59; write 0 to 59",
            ),
            ("* 24 * * *", "hour: 24 is not within 0 to 23"),
            ("* * 0 * *", "day-of-month: 0 is not within 1 to 31"),
            ("* * * 13 *", "month: 13 is not within 1 to 12"),
            (
                "* * * * MOO",
                "day-of-week: \"MOO\" cannot be read; write 0 to 7, SUN to SAT",
            ),
            (
                "*/0 * * * *",
                "minute: the step \"0\" is not a number from 1 to 60",
            ),
            ("*/61 * * * *", "minute: the step \"61\""),
            ("5-1 * * * *", "minute: the range \"5-1\" runs backwards"),
            ("1,,2 * * * *", "minute: a value is missing"),
            ("-5 * * * *", "minute: a value is missing"),
            ("+5 * * * *", "minute: \"+5\" cannot be read"),
            (
                "99999999999 * * * *",
                "minute: \"99999999999\" cannot be read",
            ),
            ("* * L * *", "day-of-month: \"L\" cannot be read"),
            ("* * * *", "expression: has 4 fields instead of five"),
            ("0 */15 * * * *", "expression: has 6 fields instead of five"),
            ("", "expression: has 0 fields"),
            (
                "@reboot",
                "expression: \"@reboot\" is not known; write @hourly",
            ),
        ];
        for (text, expected) in cases {
            let error = CronExpression::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(CronExpression::parse(&"*".repeat(CRON_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn goes_through_text_and_json_as_written() {
        let expression = cron("  0   9 * * MON-fri ");
        assert_eq!(expression.to_string(), "0   9 * * MON-fri");
        let json = serde_json::to_string(&expression).unwrap();
        assert_eq!(json, "\"0   9 * * MON-fri\"");
        assert_eq!(
            serde_json::from_str::<CronExpression>(&json).unwrap(),
            expression
        );
        assert!(serde_json::from_str::<CronExpression>("\"61 * * * *\"").is_err());
        assert_eq!(CronExpression::default().as_str(), CRON_DEFAULT);
    }

    proptest! {
        #[test]
        fn hostile_text_is_refused_without_a_panic(text in "[-0-9*/,A-Za-z@ \u{0}-\u{1f}é]{0,40}") {
            if let Err(error) = CronExpression::parse(&text) {
                prop_assert!(!error.to_string().contains(|letter: char| letter.is_control()));
            }
        }

        #[test]
        fn first_and_last_minute_agree_with_a_scan(
            minutes in prop::collection::btree_set(0_u32..60, 1..6),
            hours in prop::collection::btree_set(0_u32..24, 1..6),
            from in 0_u32..DAY_MINUTES + 10,
        ) {
            let list = |values: &std::collections::BTreeSet<u32>| {
                values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
            };
            let expression = cron(&format!("{} {} * * *", list(&minutes), list(&hours)));
            let matches = |minute: &u32| hours.contains(&(minute / 60)) && minutes.contains(&(minute % 60));
            prop_assert_eq!(expression.first_minute_from(from), (from..DAY_MINUTES).find(matches));
            prop_assert_eq!(expression.last_minute_to(from), (0..=from.min(DAY_MINUTES - 1)).rev().find(matches));
        }
    }
}
