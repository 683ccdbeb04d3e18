//! The oracle: what a perfect reader of a calendar holds in the end.
//!
//! It is read off the emulator's own state, never off its answers, so a wrong page cannot hide behind itself. For
//! calendars from a file it is a second, small reading of the file, apart from the one that serves it.
//!
//! The truth is the whole calendar as its owner sees it: every event that is not deleted, and every cancelled
//! instance of a series that is there. A client that asked for a window (`timeMin`) must be compared within it.

use serde_json::Value;

use kalends_core::time::Timestamp;

use super::calendar::{Calendar, Listed};
use super::event::{Attendee, Event};
use super::person::Person;
use super::when::{When, parse_date, write_date, write_local_time, write_stamp};
use super::{GoogleEmulator, Unknown};

/// A start, an end, or where an instance first was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TruthTime {
    /// For all-day events: `2026-03-02`.
    pub date: Option<String>,
    /// For timed events, as Google writes it: `2026-03-02T09:00:00-05:00`.
    pub date_time: Option<String>,
    /// The zone that governs it, if given.
    pub time_zone: Option<String>,
    /// The instant in milliseconds since the epoch; for a date, its midnight in UTC. `None` if it cannot be read.
    pub epoch_ms: Option<i64>,
}

/// A guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TruthAttendee {
    /// In lower case; a guest may lack one.
    pub email: Option<String>,
    /// The profile's id, where Google gives one.
    pub id: Option<String>,
    /// The name shown.
    pub display_name: Option<String>,
    /// `needsAction`, `declined`, `tentative` or `accepted`.
    pub response_status: Option<String>,
    /// Need not come.
    pub optional: bool,
    /// A room or a thing.
    pub resource: bool,
    /// Is the calendar's owner.
    pub is_self: bool,
}

/// What a graph must hold of a calendar itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TruthCalendar {
    /// Under which it was asked for.
    pub id: String,
    /// The title.
    pub name: Option<String>,
    /// The zone in which times are written.
    pub time_zone: Option<String>,
    /// What the user may do, such as `owner`.
    pub access_role: Option<String>,
}

/// An event as it must be in the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TruthEvent {
    /// Google's id.
    pub id: String,
    /// With its quotes.
    pub etag: Option<String>,
    /// `confirmed`, `tentative`, or, for an instance taken out of its series, `cancelled`. Of a cancelled instance
    /// only id, etag, series and original start are filled.
    pub status: String,
    /// The title, if any.
    pub summary: Option<String>,
    /// May be HTML.
    pub description: Option<String>,
    /// Free text.
    pub location: Option<String>,
    /// When it starts.
    pub start: Option<TruthTime>,
    /// When it ends; exclusive for dates.
    pub end: Option<TruthTime>,
    /// The lines of a series.
    pub recurrence: Vec<String>,
    /// For an exception: the id of its series.
    pub recurring_event_id: Option<String>,
    /// For an exception: where the rule had put it.
    pub original_start: Option<TruthTime>,
    /// Who organises it; only address, id and name are filled.
    pub organizer: Option<TruthAttendee>,
    /// The guests, in Google's order.
    pub attendees: Vec<TruthAttendee>,
    /// Google's revision counter.
    pub sequence: Option<i64>,
    /// Such as `default`.
    pub event_type: Option<String>,
    /// The last change, RFC 3339 in milliseconds.
    pub updated: Option<String>,
    /// When it was made, likewise.
    pub created: Option<String>,
    /// Whole days: the start is a date.
    pub all_day: bool,
    /// The iCalendar UID, which a series shares with its exceptions.
    pub ical_uid: Option<String>,
    /// `visibility`, if given.
    pub visibility: Option<String>,
    /// `transparency`, if given.
    pub transparency: Option<String>,
    /// Google leaves guests out.
    pub attendees_omitted: bool,
}

impl GoogleEmulator {
    /// What a perfect reader of one calendar must hold of the calendar itself.
    ///
    /// # Errors
    /// If there is no such user, or no such calendar, or it was removed.
    pub fn calendar_row_truth(&self, user: &str, calendar: &str) -> Result<TruthCalendar, Unknown> {
        let user = self.user(user)?;
        let number = self.calendar_number(user, calendar).ok_or(Unknown)?;
        if self.is_removed(user, number) {
            return Err(Unknown);
        }
        Ok(TruthCalendar {
            id: calendar.to_owned(),
            name: Some(self.calendar_summary(user, number)),
            time_zone: Some(self.base(user, number).zone.name().to_owned()),
            access_role: Some(self.access_role(user, number).text().to_owned()),
        })
    }

    /// What a perfect reader of one calendar must hold, in order of ids.
    ///
    /// # Errors
    /// If there is no such user, or no such calendar, or it was removed.
    pub fn calendar_truth(
        &self,
        user: &str,
        calendar: &str,
    ) -> Result<Box<dyn Iterator<Item = TruthEvent> + '_>, Unknown> {
        let user = self.user(user)?;
        let number = self.calendar_number(user, calendar).ok_or(Unknown)?;
        if self.is_removed(user, number) {
            return Err(Unknown);
        }
        let calendar = self.calendar(user, number);
        if let Some(fixture) = calendar.state.and_then(|state| state.fixture.as_ref()) {
            return Ok(Box::new(fixture_truth(fixture.texts()).into_iter()));
        }
        Ok(Box::new(native_truth(calendar, user)))
    }
}

fn native_truth(calendar: Calendar<'_>, user: u32) -> impl Iterator<Item = TruthEvent> {
    calendar.items_after("").filter_map(move |item| match item {
        Listed::Event(event) => Some(event_truth(&event, &calendar, user)),
        Listed::Deleted { .. } => None,
        Listed::Fixture(_) => unreachable!("a calendar from a file was told apart before"),
    })
}

fn event_truth(event: &Event, calendar: &Calendar<'_>, user: u32) -> TruthEvent {
    let mut truth = TruthEvent {
        id: event.id.clone(),
        etag: Some(format!("\"{}\"", event.stamp_us * 2)),
        status: event.status.text().to_owned(),
        ..TruthEvent::default()
    };
    if let Some(instance) = &event.instance {
        truth.recurring_event_id = Some(instance.series.clone());
        truth.original_start = Some(time_truth(instance.original, calendar));
    }
    if event.is_cancelled() {
        return truth;
    }
    let text = |text: &Option<super::event::Text>| text.as_ref().map(|text| text.to_string());
    truth.summary = text(&event.summary);
    truth.description = text(&event.description);
    truth.location = text(&event.location);
    truth.start = Some(time_truth(event.start, calendar));
    truth.end = Some(time_truth(event.end, calendar));
    truth.recurrence = event
        .rule
        .iter()
        .map(|rule| rule.line(event.start))
        .collect();
    truth.organizer = Some(TruthAttendee {
        email: Some(event.organizer.email()),
        display_name: Some(event.organizer.name()),
        ..TruthAttendee::default()
    });
    truth.attendees = event
        .attendees
        .iter()
        .map(|attendee| attendee_truth(attendee, user))
        .collect();
    truth.sequence = Some(i64::from(event.sequence));
    truth.event_type = Some(event.kind.text().to_owned());
    truth.updated = Some(written(|out| write_stamp(out, event.stamp_us)));
    truth.created = Some(event.created.to_rfc3339());
    truth.all_day = matches!(event.start, When::Date(_));
    // A series and its exceptions are one thing to other calendars.
    let whole = match &event.instance {
        Some(instance) => &instance.series,
        None => &event.id,
    };
    truth.ical_uid = Some(format!("{whole}@google.com"));
    truth.transparency = event.transparent.then(|| "transparent".to_owned());
    truth
}

fn time_truth(when: When, calendar: &Calendar<'_>) -> TruthTime {
    let epoch_ms = Some(when.instant().as_ms());
    match when {
        When::Date(day) => TruthTime {
            date: Some(written(|out| write_date(out, day))),
            epoch_ms,
            ..TruthTime::default()
        },
        When::Time { at, zone } => TruthTime {
            date_time: Some(written(|out| write_local_time(out, at, calendar.base.zone))),
            time_zone: Some(zone.name().to_owned()),
            epoch_ms,
            ..TruthTime::default()
        },
    }
}

fn attendee_truth(attendee: &Attendee, user: u32) -> TruthAttendee {
    TruthAttendee {
        email: Some(attendee.who.email()),
        display_name: Some(attendee.who.name()),
        response_status: Some(attendee.reply.text().to_owned()),
        optional: attendee.optional,
        resource: matches!(attendee.who, Person::Room(_)),
        is_self: attendee.who == Person::User(user),
        id: None,
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(32);
    write(&mut out);
    String::from_utf8(out).expect("times are ASCII")
}

/// What remains of a file: events that are not cancelled and whose series was not deleted, and cancelled instances of
/// series that are there. Events without an id are nobody's.
fn fixture_truth<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<TruthEvent> {
    let values = texts.map(serde_json::from_str::<Value>);
    let values: Vec<Value> = values
        .map(|value| value.expect("it was JSON when it was read"))
        .filter(|value| value["id"].is_string())
        .collect();
    let cancelled = |value: &Value| value["status"] == "cancelled";
    let series_of = |event: &Value| {
        let id = event["recurringEventId"].as_str()?;
        values.iter().find(|value| value["id"] == id)
    };
    let remains = values.iter().filter(|event| {
        let series = series_of(event);
        if cancelled(event) {
            return series.is_some_and(|series| !cancelled(series));
        }
        series.is_none_or(|series| !cancelled(series))
    });
    let mut truth: Vec<TruthEvent> = remains.map(value_truth).collect();
    truth.sort_by(|left, right| left.id.cmp(&right.id));
    truth
}

fn value_truth(value: &Value) -> TruthEvent {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let mut truth = TruthEvent {
        id: text("id").unwrap_or_default(),
        etag: text("etag"),
        status: text("status").unwrap_or_else(|| "confirmed".to_owned()),
        recurring_event_id: text("recurringEventId"),
        original_start: value_time(&value["originalStartTime"]),
        ..TruthEvent::default()
    };
    if truth.status == "cancelled" {
        return truth;
    }
    truth.summary = text("summary");
    truth.description = text("description");
    truth.location = text("location");
    truth.start = value_time(&value["start"]);
    truth.end = value_time(&value["end"]);
    let lines = value["recurrence"].as_array().into_iter().flatten();
    truth.recurrence = lines
        .filter_map(|line| line.as_str().map(str::to_owned))
        .collect();
    truth.organizer = value["organizer"].is_object().then(|| TruthAttendee {
        is_self: false,
        ..value_attendee(&value["organizer"])
    });
    let guests = value["attendees"].as_array().into_iter().flatten();
    truth.attendees = guests.map(value_attendee).collect();
    truth.sequence = value["sequence"].as_i64();
    truth.event_type = text("eventType");
    truth.updated = text("updated");
    truth.created = text("created");
    truth.all_day = value["start"]["date"].is_string() && !value["start"]["dateTime"].is_string();
    truth.ical_uid = text("iCalUID");
    truth.visibility = text("visibility");
    truth.transparency = text("transparency");
    truth.attendees_omitted = value["attendeesOmitted"] == true;
    truth
}

fn value_attendee(value: &Value) -> TruthAttendee {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    TruthAttendee {
        email: value["email"].as_str().map(str::to_lowercase),
        display_name: text("displayName"),
        response_status: text("responseStatus"),
        optional: value["optional"] == true,
        resource: value["resource"] == true,
        is_self: value["self"] == true,
        id: text("id"),
    }
}

fn value_time(value: &Value) -> Option<TruthTime> {
    if !value.is_object() {
        return None;
    }
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let (date, date_time) = (text("date"), text("dateTime"));
    let of_date = |date: &String| Some(When::Date(parse_date(date)?).instant().as_ms());
    let of_time = |time: &String| Some(Timestamp::parse_rfc3339(time)?.as_ms());
    Some(TruthTime {
        epoch_ms: date_time
            .as_ref()
            .and_then(of_time)
            .or_else(|| date.as_ref().and_then(of_date)),
        date,
        date_time,
        time_zone: text("timeZone"),
    })
}
