//! From Google's event to the graph's row: what is kept, what means "remove", and what is set aside as invalid.
//!
//! Google's data is hostile until it has passed here. An event that cannot be kept is never dropped silently: it is
//! quarantined with a reason, and the page goes on.

use chrono::{NaiveDate, NaiveDateTime};

use crate::google::event::{ApiEvent, ApiPerson, ApiTime};
use crate::graph::{Attendee, EventDeletion, EventRow, EventTime, Person};
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

/// The longest event id that is accepted, in bytes (events.insert: 5 to 1,024 characters).
pub const EVENT_ID_BYTES_MAX: usize = 1_024;
/// The most text that one event may hold, in bytes. Google allows a description of 8 KiB and some hundred guests.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// The most attendees that are kept of one event.
pub const ATTENDEES_MAX: usize = 2_500;

/// No zone is further from UTC than this, in milliseconds: the slack for a series' end that is given without a zone.
const ZONE_SLACK_MS: u64 = 14 * HOUR_MS;

/// What an event of a page means for the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Converted {
    /// Write it.
    Upsert(Box<EventRow>),
    /// Remove it.
    Delete(EventDeletion),
    /// Set it aside.
    Quarantine {
        /// Its id, as far as it is known.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Decides what `event` means. Single events that end at or before `window_start` have left the window and are removed.
#[must_use]
pub fn convert(event: ApiEvent, window_start: Timestamp) -> Converted {
    let id = event.id.clone().unwrap_or_default();
    match convert_checked(event, window_start) {
        Ok(converted) => converted,
        Err(reason) => Converted::Quarantine {
            id: clip(&id),
            reason,
        },
    }
}

fn convert_checked(event: ApiEvent, window_start: Timestamp) -> Result<Converted, String> {
    let id = event
        .id
        .clone()
        .filter(|id| !id.is_empty())
        .ok_or("it has no id")?;
    if id.len() > EVENT_ID_BYTES_MAX {
        return Err(format!(
            "its id has {} bytes, more than {EVENT_ID_BYTES_MAX}",
            id.len()
        ));
    }
    let version = version_of(&event);
    let cancelled = event.status.as_deref() == Some("cancelled");
    let original_start = read_time(event.original_start_time.as_ref(), "originalStartTime")?;

    if cancelled && (event.recurring_event_id.is_none() || original_start.is_none()) {
        // "Only the id is sure to be populated": deleted for good, or an exception that a cut of its series swallowed.
        return Ok(Converted::Delete(EventDeletion {
            id,
            version: version.unwrap_or(i64::MAX),
        }));
    }
    let size = text_bytes(&event);
    if size > EVENT_BYTES_MAX {
        return Err(format!(
            "it holds {size} bytes of text, more than {EVENT_BYTES_MAX}"
        ));
    }

    let start = match read_time(event.start.as_ref(), "start")? {
        Some(start) => start,
        None if cancelled => original_start
            .clone()
            .expect("checked above for cancelled events"),
        None => return Err("it has no start".to_owned()),
    };
    let end = read_time(event.end.as_ref(), "end")?.unwrap_or_else(|| start.clone());
    if end.epoch_ms < start.epoch_ms {
        return Err(format!(
            "it ends ({}) before it starts ({})",
            end.text, start.text
        ));
    }
    let all_day = start.text.len() == "yyyy-mm-dd".len();
    let single = event.recurrence.is_empty() && event.recurring_event_id.is_none();
    // A day ends at midnight of the calendar's zone, which is not known here: never too early.
    let slack_ms = if all_day { ZONE_SLACK_MS } else { 0 };
    let ends_at = Timestamp::from_ms(end.epoch_ms).plus_ms(slack_ms);
    if single && ends_at <= window_start && start.epoch_ms < window_start.as_ms() {
        return Ok(Converted::Delete(EventDeletion {
            id,
            version: version.unwrap_or(i64::MAX),
        }));
    }

    let attendees = attendees(&event.attendees);
    let attendees_omitted = event.attendees_omitted || event.attendees.len() > ATTENDEES_MAX;
    Ok(Converted::Upsert(Box::new(EventRow {
        version: version.unwrap_or(0),
        etag: event.etag.unwrap_or_default(),
        status: event.status.unwrap_or_else(|| "confirmed".to_owned()),
        name: event.summary,
        description: event.description,
        location: event.location,
        series_until_ms: series_until_ms(&event.recurrence, all_day),
        start,
        end,
        all_day,
        created: event.created,
        updated: event.updated,
        sequence: event.sequence.unwrap_or(0),
        ical_uid: event.ical_uid,
        event_type: event.event_type.unwrap_or_else(|| "default".to_owned()),
        visibility: event.visibility,
        transparency: event.transparency,
        recurrence: event.recurrence,
        series_id: event.recurring_event_id,
        original_start,
        organizer: event.organizer.as_ref().and_then(person),
        attendees,
        attendees_omitted,
        id,
    })))
}

/// Orders the states of one event: the number in Google's etag, which is twice the time of the change in microseconds,
/// or the same made from `updated`. `None` where neither can be read.
fn version_of(event: &ApiEvent) -> Option<i64> {
    let from_etag = event.etag.as_deref().and_then(|etag| {
        let digits = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        digits.parse::<i64>().ok().filter(|version| *version >= 0)
    });
    from_etag.or_else(|| {
        let updated = Timestamp::parse_rfc3339(event.updated.as_deref()?)?;
        Some(updated.as_ms().saturating_mul(2_000))
    })
}

fn read_time(time: Option<&ApiTime>, field: &str) -> Result<Option<EventTime>, String> {
    let Some(time) = time else { return Ok(None) };
    if let Some(date_time) = &time.date_time {
        let at = Timestamp::parse_rfc3339(date_time).ok_or_else(|| {
            format!(
                "{field} is not a time with an offset: {:?}",
                clip(date_time)
            )
        })?;
        return Ok(Some(EventTime {
            text: date_time.clone(),
            epoch_ms: at.as_ms(),
            zone: time.time_zone.clone(),
        }));
    }
    let Some(date) = &time.date else {
        return Ok(None);
    };
    let day = NaiveDate::parse_from_str(date, "%Y-%m-%d")
        .ok()
        .filter(|day| day.format("%Y-%m-%d").to_string() == *date)
        .ok_or_else(|| format!("{field} is not a day: {:?}", clip(date)))?;
    Ok(Some(EventTime {
        text: date.clone(),
        epoch_ms: midnight_ms(day),
        zone: None,
    }))
}

fn midnight_ms(day: NaiveDate) -> i64 {
    day.and_time(chrono::NaiveTime::MIN)
        .and_utc()
        .timestamp_millis()
}

fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

/// How much text an event holds, in bytes: more than [`EVENT_BYTES_MAX`] is too much.
#[must_use]
pub fn text_bytes(event: &ApiEvent) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let people: usize = event
        .attendees
        .iter()
        .map(|person| length(&person.email) + length(&person.display_name) + length(&person.id))
        .sum();
    length(&event.summary)
        + length(&event.description)
        + length(&event.location)
        + event.recurrence.iter().map(String::len).sum::<usize>()
        + people
}

fn person(api: &ApiPerson) -> Option<Person> {
    let filled = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let email = filled(&api.email).map(|email| email.to_lowercase());
    let name = filled(&api.display_name);
    let key = match (&email, filled(&api.id), &name) {
        (Some(email), _, _) => email.clone(),
        (None, Some(id), _) => format!("id:{id}"),
        (None, None, Some(name)) => format!("name:{}", name.to_lowercase()),
        (None, None, None) => return None,
    };
    Some(Person { key, email, name })
}

/// Each person once, sorted by key; of two spellings of one address the first one's answer counts.
fn attendees(api: &[ApiPerson]) -> Vec<Attendee> {
    let mut attendees: Vec<Attendee> = Vec::with_capacity(api.len().min(ATTENDEES_MAX));
    for entry in api.iter().take(ATTENDEES_MAX) {
        let Some(person) = person(entry) else {
            continue;
        };
        attendees.push(Attendee {
            person,
            response_status: entry
                .response_status
                .clone()
                .unwrap_or_else(|| "needsAction".into()),
            optional: entry.optional,
            resource: entry.resource,
            is_self: entry.is_self,
        });
    }
    // The sort is stable, so the first spelling stays the first and dedup keeps it.
    attendees.sort_by(|left, right| left.person.key.cmp(&right.person.key));
    attendees.dedup_by(|later, first| {
        let same = later.person.key == first.person.key;
        if same {
            first.is_self |= later.is_self;
            if first.person.name.is_none() {
                first.person.name = later.person.name.take();
            }
        }
        same
    });
    attendees
}

/// When a series ends by `UNTIL` (RFC 5545, 3.3.10), never earlier than it really does; `None` if it does not, or if
/// single dates (`RDATE`) may lie beyond.
fn series_until_ms(recurrence: &[String], all_day: bool) -> Option<i64> {
    let mut latest: Option<i64> = None;
    for line in recurrence {
        let upper = line.to_ascii_uppercase();
        if upper.starts_with("RDATE") {
            return None;
        }
        if !upper.starts_with("RRULE") {
            continue;
        }
        let (_, rule) = upper.split_once(':')?;
        let until = rule
            .split(';')
            .find_map(|part| part.strip_prefix("UNTIL="))?;
        let until_ms = until_ms(until, all_day)?;
        latest = Some(latest.map_or(until_ms, |other| other.max(until_ms)));
    }
    latest
}

fn until_ms(until: &str, all_day: bool) -> Option<i64> {
    if let Ok(day) = NaiveDate::parse_from_str(until, "%Y%m%d") {
        let slack_ms = if all_day { 0 } else { DAY_MS + ZONE_SLACK_MS };
        return Some(midnight_ms(day).saturating_add_unsigned(slack_ms));
    }
    let (text, slack_ms) = match until.strip_suffix('Z') {
        Some(text) => (text, 0),
        None => (until, ZONE_SLACK_MS),
    };
    let at = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").ok()?;
    Some(
        at.and_utc()
            .timestamp_millis()
            .saturating_add_unsigned(slack_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(id: &str, start: &str, end: &str) -> ApiEvent {
        let time = |text: &str| {
            Some(ApiTime {
                date_time: Some(text.to_owned()),
                ..ApiTime::default()
            })
        };
        ApiEvent {
            id: Some(id.to_owned()),
            etag: Some("\"3500000000000000\"".to_owned()),
            status: Some("confirmed".to_owned()),
            start: time(start),
            end: time(end),
            ..ApiEvent::default()
        }
    }

    fn row(event: ApiEvent) -> EventRow {
        match convert(event, Timestamp::EPOCH) {
            Converted::Upsert(row) => *row,
            other => panic!("not an upsert: {other:?}"),
        }
    }

    fn reason(event: ApiEvent) -> String {
        match convert(event, Timestamp::EPOCH) {
            Converted::Quarantine { reason, .. } => reason,
            other => panic!("not quarantined: {other:?}"),
        }
    }

    #[test]
    fn an_untitled_event_without_length_is_kept() {
        let event = timed(
            "a1",
            "2026-03-02T09:00:00-05:00",
            "2026-03-02T09:00:00-05:00",
        );
        let row = row(event);
        assert_eq!(row.name, None);
        assert_eq!(row.version, 3_500_000_000_000_000);
        assert_eq!(row.start.epoch_ms, row.end.epoch_ms);
        assert_eq!(row.start.text, "2026-03-02T09:00:00-05:00");
    }

    #[test]
    fn days_stay_days() {
        let day = |text: &str| {
            Some(ApiTime {
                date: Some(text.to_owned()),
                ..ApiTime::default()
            })
        };
        let mut event = timed("a1", "x", "x");
        event.start = day("0001-01-01");
        event.end = day("9999-12-31");
        let row = row(event);
        assert!(row.all_day);
        assert_eq!(
            (row.start.text.as_str(), row.end.text.as_str()),
            ("0001-01-01", "9999-12-31")
        );
    }

    #[test]
    fn what_cannot_be_kept_says_why() {
        let mut headless = timed("", "2026-03-02T09:00:00Z", "2026-03-02T10:00:00Z");
        assert!(reason(headless.clone()).contains("no id"));
        headless.id = Some("x".repeat(2_000));
        assert!(reason(headless).contains("2000 bytes"));
        assert!(reason(timed("a1", "tomorrow", "x")).contains("start is not a time"));
        assert!(
            reason(timed("a1", "2026-03-02T09:00:00Z", "2026-03-01T09:00:00Z"))
                .contains("before it starts")
        );
        let mut nowhen = timed("a1", "x", "x");
        nowhen.start = None;
        nowhen.end = None;
        assert!(reason(nowhen).contains("no start"));
        let mut huge = timed("a1", "2026-03-02T09:00:00Z", "2026-03-02T10:00:00Z");
        huge.description = Some("x".repeat(EVENT_BYTES_MAX + 1));
        assert!(reason(huge).contains("bytes of text"));
    }

    #[test]
    fn cancelled_means_removed_unless_it_is_an_instance_of_a_live_series() {
        let mut event = timed("m_20260309T130000Z", "x", "x");
        event.start = None;
        event.end = None;
        event.status = Some("cancelled".to_owned());
        assert!(matches!(
            convert(event.clone(), Timestamp::EPOCH),
            Converted::Delete(_)
        ));
        event.recurring_event_id = Some("m".to_owned());
        assert!(matches!(
            convert(event.clone(), Timestamp::EPOCH),
            Converted::Delete(_)
        ));
        event.original_start_time = Some(ApiTime {
            date_time: Some("2026-03-09T09:00:00-04:00".to_owned()),
            ..ApiTime::default()
        });
        let row = row(event);
        assert_eq!(row.status, "cancelled");
        assert_eq!(row.start.text, "2026-03-09T09:00:00-04:00");
        assert_eq!(row.series_id.as_deref(), Some("m"));
    }

    #[test]
    fn a_single_event_before_the_window_has_left_it_and_a_series_has_not() {
        let window = Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap();
        let mut event = timed("a1", "2026-03-02T09:00:00Z", "2026-03-02T10:00:00Z");
        assert!(matches!(
            convert(event.clone(), window),
            Converted::Delete(_)
        ));
        event.recurrence = vec!["RRULE:FREQ=WEEKLY".to_owned()];
        assert!(matches!(convert(event, window), Converted::Upsert(_)));
    }

    #[test]
    fn two_spellings_of_one_address_are_one_attendee() {
        let guest = |email: &str, answer: &str| ApiPerson {
            email: Some(email.to_owned()),
            response_status: Some(answer.to_owned()),
            ..ApiPerson::default()
        };
        let mut event = timed("a1", "2026-03-02T09:00:00Z", "2026-03-02T10:00:00Z");
        event.attendees = vec![
            guest("Zoe@Example.com", "accepted"),
            guest("bob@example.com", "declined"),
            guest(" zoe@example.COM ", "tentative"),
            ApiPerson {
                id: Some("77".to_owned()),
                ..ApiPerson::default()
            },
            ApiPerson {
                display_name: Some("The Board".to_owned()),
                ..ApiPerson::default()
            },
            ApiPerson::default(),
        ];
        let row = row(event);
        let keys: Vec<&str> = row
            .attendees
            .iter()
            .map(|a| a.person.key.as_str())
            .collect();
        assert_eq!(
            keys,
            [
                "bob@example.com",
                "id:77",
                "name:the board",
                "zoe@example.com"
            ]
        );
        assert_eq!(row.attendees[3].response_status, "accepted");
        assert_eq!(row.attendees[1].response_status, "needsAction");
    }

    #[test]
    fn the_end_of_a_series_is_never_taken_too_early() {
        let until = |rule: &str, all_day| series_until_ms(&[rule.to_owned()], all_day);
        let midnight = midnight_ms(NaiveDate::from_ymd_opt(2026, 4, 1).unwrap());
        assert_eq!(
            until("RRULE:FREQ=DAILY;UNTIL=20260401T000000Z", false),
            Some(midnight)
        );
        assert_eq!(
            until("RRULE:FREQ=DAILY;UNTIL=20260401", true),
            Some(midnight)
        );
        assert!(until("RRULE:FREQ=DAILY;UNTIL=20260401", false) > Some(midnight));
        assert!(until("RRULE:FREQ=DAILY;UNTIL=20260401T000000", false) > Some(midnight));
        assert_eq!(until("RRULE:FREQ=DAILY;COUNT=3", false), None);
        assert_eq!(until("RRULE:FREQ=HOURLYISH;UNTIL=soon", false), None);
        let with_date = [
            "RRULE:FREQ=DAILY;UNTIL=20260401T000000Z".to_owned(),
            "RDATE:20270101".to_owned(),
        ];
        assert_eq!(series_until_ms(&with_date, false), None);
    }

    #[test]
    fn the_version_comes_from_the_etag_or_from_updated() {
        let mut event = timed("a1", "2026-03-02T09:00:00Z", "2026-03-02T10:00:00Z");
        event.etag = Some("\"p33s8v\"".to_owned());
        event.updated = Some("2026-01-01T00:00:00.001Z".to_owned());
        assert_eq!(version_of(&event), Some(1_767_225_600_001 * 2_000));
        event.updated = None;
        assert_eq!(version_of(&event), None);
    }
}
