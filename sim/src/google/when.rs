//! Dates, times and zones as Google writes them.
//!
//! An event's time is a date (no zone, no instant) or an instant with the zone that governs it. Instants are written
//! with the offset of the calendar's zone (or of the one that was asked for); the governing zone stands beside it.
//! Written by hand into a byte buffer, because four of them go into every event of every page.

use chrono::{NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp};

/// When an event starts or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// All day: days since 1970-01-01.
    Date(i32),
    /// A point in time, and the zone in which a series repeats it.
    Time { at: Timestamp, zone: Tz },
}

impl When {
    /// The instant; for a date, its midnight in UTC.
    pub(crate) fn instant(self) -> Timestamp {
        match self {
            When::Date(day) => Timestamp::from_ms(i64::from(day) * DAY_MS.cast_signed()),
            When::Time { at, .. } => at,
        }
    }

    /// The same, later or earlier by `minutes`; a date moves by whole days (at least one).
    pub(crate) fn moved_by_minutes(self, minutes: i32) -> Self {
        const DAY_MINUTES: i32 = 24 * 60;
        match self {
            When::Date(day) => {
                let days = minutes / DAY_MINUTES;
                let days = if days == 0 { minutes.signum() } else { days };
                When::Date(day + days)
            }
            When::Time { at, zone } => When::Time {
                at: Timestamp::from_ms(at.as_ms() + i64::from(minutes) * MINUTE_MS.cast_signed()),
                zone,
            },
        }
    }

    /// Whether it lies in the years 1970 to 9999, which can be written with four digits and calculated with.
    pub(crate) fn is_in_range(self) -> bool {
        const LAST_MS: i64 = 253_402_300_799_999;
        (0..=LAST_MS).contains(&self.instant().as_ms())
    }

    /// As it stands in an instance's id: `20260302T140000Z` or `20260302`.
    pub(crate) fn id_suffix(self) -> String {
        let mut out = Vec::with_capacity(16);
        match self {
            When::Date(day) => compact_date(&mut out, day),
            When::Time { at, .. } => {
                compact_time(&mut out, at);
                out.push(b'Z');
            }
        }
        ascii(out)
    }

    /// As it stands in the id of the second half of a split series: the same without `Z` (recorded so).
    pub(crate) fn split_suffix(self) -> String {
        let mut text = self.id_suffix();
        if text.ends_with('Z') {
            text.pop();
        }
        text
    }
}

fn ascii(out: Vec<u8>) -> String {
    String::from_utf8(out).expect("digits and letters only")
}

/// Seconds east of UTC at that instant in that zone.
pub(crate) fn offset_seconds(at: Timestamp, zone: Tz) -> i32 {
    if zone == Tz::UTC {
        return 0;
    }
    match chrono::DateTime::from_timestamp_millis(at.as_ms()) {
        Some(utc) => zone
            .offset_from_utc_datetime(&utc.naive_utc())
            .fix()
            .local_minus_utc(),
        None => 0,
    }
}

/// The instant at which clocks in `zone` show `minute_of_day` on `day`; an hour later if that is in a gap.
pub(crate) fn local_instant(day: i32, minute_of_day: u32, zone: Tz) -> Timestamp {
    let local = Timestamp::from_ms(
        i64::from(day) * DAY_MS.cast_signed() + i64::from(minute_of_day) * MINUTE_MS.cast_signed(),
    );
    let Some(naive) = chrono::DateTime::from_timestamp_millis(local.as_ms()) else {
        return local;
    };
    let naive = naive.naive_utc();
    let found = zone
        .from_local_datetime(&naive)
        .earliest()
        .or_else(|| {
            zone.from_local_datetime(&(naive + chrono::Duration::hours(1)))
                .earliest()
        })
        .map_or(local.as_ms(), |at| at.timestamp_millis());
    Timestamp::from_ms(found)
}

/// Day (since 1970-01-01) and minute of the day that clocks in `zone` show at `at`.
pub(crate) fn local_day_and_minute(at: Timestamp, zone: Tz) -> (i32, u32) {
    let local = at.as_ms() + i64::from(offset_seconds(at, zone)) * SECOND_MS.cast_signed();
    let day = local.div_euclid(DAY_MS.cast_signed());
    let minute = local.rem_euclid(DAY_MS.cast_signed()) / MINUTE_MS.cast_signed();
    (
        i32::try_from(day).expect("events lie within a few years of the epoch"),
        u32::try_from(minute).expect("a day has 1,440 minutes"),
    )
}

/// The weekday of a day as an RRULE names it.
pub(crate) fn weekday(day: i32) -> &'static str {
    // 1970-01-01 was a Thursday.
    ["TH", "FR", "SA", "SU", "MO", "TU", "WE"][usize::try_from(day.rem_euclid(7)).expect("0..7")]
}

/// Reads `2026-03-02`; `None` if it is no date.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// Year, month and day of a day since 1970-01-01 (proleptic Gregorian; Hinnant's `civil_from_days`).
fn civil(day: i32) -> (u32, u32, u32) {
    let shifted = i64::from(day) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |value: i64| u32::try_from(value).unwrap_or(0);
    (small(year), small(month), small(day_of_month))
}

fn two(out: &mut Vec<u8>, value: u32) {
    // Only the last two digits: callers pass 0..=99.
    let value = u8::try_from(value % 100).expect("below 100");
    out.extend_from_slice(&[b'0' + value / 10, b'0' + value % 10]);
}

fn four(out: &mut Vec<u8>, value: u32) {
    two(out, value / 100);
    two(out, value);
}

/// Writes `2026-03-02`.
pub(crate) fn write_date(out: &mut Vec<u8>, day: i32) {
    let (year, month, day) = civil(day);
    four(out, year);
    out.push(b'-');
    two(out, month);
    out.push(b'-');
    two(out, day);
}

fn compact_date(out: &mut Vec<u8>, day: i32) {
    let (year, month, day) = civil(day);
    four(out, year);
    two(out, month);
    two(out, day);
}

/// Days since the epoch, and milliseconds into the day.
fn split(ms: i64) -> (i32, u64) {
    let day = i32::try_from(ms.div_euclid(DAY_MS.cast_signed())).unwrap_or(0);
    (day, ms.rem_euclid(DAY_MS.cast_signed()).unsigned_abs())
}

fn hours_minutes_seconds(ms: u64) -> (u32, u32, u32) {
    let small = |value: u64| u32::try_from(value).expect("parts of a day");
    (
        small(ms / HOUR_MS),
        small(ms / MINUTE_MS % 60),
        small(ms / SECOND_MS % 60),
    )
}

fn compact_time(out: &mut Vec<u8>, at: Timestamp) {
    let (day, ms) = split(at.as_ms());
    let (hours, minutes, seconds) = hours_minutes_seconds(ms);
    compact_date(out, day);
    out.push(b'T');
    two(out, hours);
    two(out, minutes);
    two(out, seconds);
}

/// The instant as an RRULE's UNTIL: `20260302T140000Z`.
pub(crate) fn until_text(at: Timestamp) -> String {
    let mut out = Vec::with_capacity(16);
    compact_time(&mut out, at);
    out.push(b'Z');
    ascii(out)
}

/// The date as an RRULE's UNTIL: `20260302`.
pub(crate) fn until_date_text(day: i32) -> String {
    When::Date(day).id_suffix()
}

fn write_clock(out: &mut Vec<u8>, local_ms: i64) -> u64 {
    let (day, ms) = split(local_ms);
    let (hours, minutes, seconds) = hours_minutes_seconds(ms);
    write_date(out, day);
    out.push(b'T');
    two(out, hours);
    out.push(b':');
    two(out, minutes);
    out.push(b':');
    two(out, seconds);
    ms % SECOND_MS
}

/// Writes `2026-03-02T09:00:00-05:00`, or with `Z` if the zone is UTC.
pub(crate) fn write_local_time(out: &mut Vec<u8>, at: Timestamp, zone: Tz) {
    let offset = offset_seconds(at, zone);
    write_clock(
        out,
        at.as_ms() + i64::from(offset) * SECOND_MS.cast_signed(),
    );
    if zone == Tz::UTC {
        out.push(b'Z');
        return;
    }
    out.push(if offset < 0 { b'-' } else { b'+' });
    two(out, offset.unsigned_abs() / 3_600);
    out.push(b':');
    two(out, offset.unsigned_abs() / 60 % 60);
}

/// Writes `2026-03-02T14:00:00.176Z` from microseconds, cut to milliseconds as Google does.
pub(crate) fn write_stamp(out: &mut Vec<u8>, stamp_us: i64) {
    let ms = write_clock(out, stamp_us.div_euclid(1_000));
    out.push(b'.');
    let ms = u32::try_from(ms).expect("below 1,000");
    out.push(b'0' + u8::try_from(ms / 100).expect("one digit"));
    two(out, ms);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn written_times_are_what_chrono_writes() {
        for ms in [0, 1_772_460_000_123, 1_709_164_800_000, 4_102_444_799_999] {
            let at = Timestamp::from_ms(ms);
            assert_eq!(text(|out| write_stamp(out, ms * 1_000)), at.to_rfc3339());
            for zone in [Tz::America__New_York, Tz::Asia__Kathmandu, Tz::UTC] {
                let written = text(|out| write_local_time(out, at, zone));
                let read = Timestamp::parse_rfc3339(&written).unwrap();
                assert_eq!(read.as_ms(), ms - ms % 1_000, "{written}");
            }
        }
    }

    #[test]
    fn a_local_time_keeps_its_clock_over_summer_time() {
        let before = parse_date("2026-03-02").unwrap();
        let zone = Tz::America__New_York;
        let winter = local_instant(before, 9 * 60, zone);
        let summer = local_instant(before + 7, 9 * 60, zone);
        assert_eq!(winter.to_rfc3339(), "2026-03-02T14:00:00.000Z");
        assert_eq!(summer.to_rfc3339(), "2026-03-09T13:00:00.000Z");
        assert_eq!(local_day_and_minute(summer, zone), (before + 7, 9 * 60));
        assert_eq!(weekday(before), "MO");
    }

    #[test]
    fn a_time_inside_the_gap_comes_an_hour_later() {
        let day = parse_date("2026-03-08").unwrap();
        let at = local_instant(day, 2 * 60 + 30, Tz::America__New_York);
        assert_eq!(at.to_rfc3339(), "2026-03-08T07:30:00.000Z");
    }

    #[test]
    fn dates_move_by_days_and_times_by_minutes() {
        assert_eq!(When::Date(10).moved_by_minutes(30), When::Date(11));
        assert_eq!(When::Date(10).moved_by_minutes(-2 * 1_440), When::Date(8));
        let noon = When::Time {
            at: Timestamp::from_ms(0),
            zone: Tz::UTC,
        };
        assert_eq!(
            noon.moved_by_minutes(-1).instant(),
            Timestamp::from_ms(-60_000)
        );
    }
}
