//! An event in its native form: small, typed, and the same for pages, changes and the oracle.

use std::borrow::Cow;

use kalends_core::time::{DAY_MS, Timestamp};

use super::person::Person;
use super::when::{
    When, local_day_and_minute, local_instant, until_date_text, until_text, weekday,
};

/// Text that is either built in or was composed.
pub(crate) type Text = Cow<'static, str>;

/// `status` of an event that is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Confirmed,
    Tentative,
    /// Only of an instance that was taken out of a live series.
    Cancelled,
}

impl Status {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Status::Confirmed => "confirmed",
            Status::Tentative => "tentative",
            Status::Cancelled => "cancelled",
        }
    }
}

/// `eventType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Default,
    OutOfOffice,
    FocusTime,
    Birthday,
}

impl Kind {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Kind::Default => "default",
            Kind::OutOfOffice => "outOfOffice",
            Kind::FocusTime => "focusTime",
            Kind::Birthday => "birthday",
        }
    }
}

/// `responseStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    NeedsAction,
    Declined,
    Tentative,
    Accepted,
}

impl Reply {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reply::NeedsAction => "needsAction",
            Reply::Declined => "declined",
            Reply::Tentative => "tentative",
            Reply::Accepted => "accepted",
        }
    }
}

/// One guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attendee {
    pub(crate) who: Person,
    pub(crate) reply: Reply,
    pub(crate) optional: bool,
    /// The address is written with capitals, as whoever invited them typed it.
    pub(crate) capitals: bool,
}

/// How often a series repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frequency {
    /// Every so many days.
    Days(u16),
    /// Every so many weeks, on the weekday of its start.
    Weeks(u16),
    /// Every year; its instances are never changed one by one here.
    Years,
}

/// A series' rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) frequency: Frequency,
    /// The last instant (or, for all-day series, date) at which an occurrence may start.
    pub(crate) until: Option<When>,
}

impl Rule {
    /// The RRULE line of a series that starts at `start`.
    pub(crate) fn line(self, start: When) -> String {
        let mut line = match self.frequency {
            Frequency::Days(1) => "RRULE:FREQ=DAILY".to_owned(),
            Frequency::Days(every) => format!("RRULE:FREQ=DAILY;INTERVAL={every}"),
            Frequency::Weeks(every) => {
                let day = match start {
                    When::Date(day) => day,
                    When::Time { at, zone } => local_day_and_minute(at, zone).0,
                };
                let interval = if every == 1 {
                    String::new()
                } else {
                    format!(";INTERVAL={every}")
                };
                format!("RRULE:FREQ=WEEKLY{interval};BYDAY={}", weekday(day))
            }
            Frequency::Years => "RRULE:FREQ=YEARLY".to_owned(),
        };
        match self.until {
            None => {}
            Some(When::Date(day)) => line = format!("{line};UNTIL={}", until_date_text(day)),
            Some(When::Time { at, .. }) => line = format!("{line};UNTIL={}", until_text(at)),
        }
        line
    }

    /// When the `number`-th occurrence (0 is the first) starts; `None` beyond the end or for yearly series.
    pub(crate) fn occurrence(self, start: When, number: u32) -> Option<When> {
        let step = match self.frequency {
            Frequency::Days(every) => i32::from(every),
            Frequency::Weeks(every) => i32::from(every) * 7,
            Frequency::Years => return None,
        };
        let days = i32::try_from(number).ok()?.checked_mul(step)?;
        let at = match start {
            When::Date(day) => When::Date(day.checked_add(days)?),
            When::Time { at, zone } => {
                let (first, minute) = local_day_and_minute(at, zone);
                let day = first.checked_add(days)?;
                if !When::Date(day).is_in_range() {
                    return None;
                }
                let at = local_instant(day, minute, zone);
                When::Time { at, zone }
            }
        };
        let ended = self
            .until
            .is_some_and(|until| at.instant() > until.instant());
        (!ended).then_some(at)
    }
}

/// Which instance of which series an exception stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) series: String,
    /// Where the rule had put it; never changes.
    pub(crate) original: When,
}

/// A single event, a master or an exception that is there (deleted ones are only a stamp; see `calendar.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) status: Status,
    /// Microseconds since the epoch of the last change; `updated` and the etag follow from it.
    pub(crate) stamp_us: i64,
    pub(crate) created: Timestamp,
    pub(crate) summary: Option<Text>,
    pub(crate) description: Option<Text>,
    pub(crate) location: Option<Text>,
    pub(crate) start: When,
    pub(crate) end: When,
    pub(crate) rule: Option<Rule>,
    pub(crate) instance: Option<Instance>,
    pub(crate) organizer: Person,
    pub(crate) attendees: Vec<Attendee>,
    pub(crate) sequence: u32,
    pub(crate) kind: Kind,
    /// Does not block time.
    pub(crate) transparent: bool,
}

impl Event {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.status == Status::Cancelled
    }

    /// When the event, or the last occurrence of the series, is over; `None` if never.
    pub(crate) fn over_at(&self) -> Option<Timestamp> {
        let length_ms = self.end.instant().since_ms(self.start.instant());
        match self.rule {
            None => Some(self.end.instant()),
            // The last start lies at or before UNTIL; UNTIL is near enough for a window that only bounds pages.
            Some(rule) => rule
                .until
                .map(|until| until.instant().plus_ms(length_ms.max(DAY_MS))),
        }
    }
}

/// The etag that stands for a change: twice its microseconds, in quotes (seen in every recorded answer).
pub(crate) fn write_etag(out: &mut Vec<u8>, stamp_us: i64) {
    out.extend_from_slice(b"\\\"");
    super::person::write_padded(out, stamp_us.unsigned_abs() * 2, 1);
    out.extend_from_slice(b"\\\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::google::when::parse_date;
    use chrono_tz::Tz;

    #[test]
    fn a_weekly_series_repeats_in_its_zone_until_it_ends() {
        let zone = Tz::America__New_York;
        let day = parse_date("2026-03-02").unwrap();
        let start = When::Time {
            at: local_instant(day, 540, zone),
            zone,
        };
        let until = When::Time {
            at: local_instant(day + 15, 0, zone),
            zone,
        };
        let rule = Rule {
            frequency: Frequency::Weeks(1),
            until: Some(until),
        };
        assert_eq!(
            rule.line(start),
            "RRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20260317T040000Z"
        );
        let second = rule.occurrence(start, 1).unwrap();
        assert_eq!(second.id_suffix(), "20260309T130000Z");
        assert_eq!(second.split_suffix(), "20260309T130000");
        assert!(rule.occurrence(start, 2).is_some());
        assert_eq!(rule.occurrence(start, 3), None);
    }
}
