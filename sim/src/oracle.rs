//! The oracle: does a user's graph hold exactly what the user's calendar says?
//!
//! It compares a graph as read back with [`TruthEvent`]s, which come from the emulator's own state and not from its
//! answers. It shares no code with the conversion that it judges: what a row should be is written down here again, in
//! terms of the calendar.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use kalends_core::graph::{CalendarRow, EventRow, EventTime, GraphSnapshot};

use crate::google::{TruthAttendee, TruthCalendar, TruthEvent, TruthTime};

/// At most this many differences of one user are described; more are only counted.
pub const DESCRIBED_MAX: usize = 20;

/// What the comparison of one user found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Events that should be there.
    pub expected: u64,
    /// Differences.
    pub mismatches: u64,
    /// The first of them, in words.
    pub described: Vec<String>,
}

impl Verdict {
    fn differs(&mut self, what: impl FnOnce() -> String) {
        self.mismatches += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(what());
        }
    }
}

/// Compares one calendar of one user, its events and its own row, with `snapshot`, and, since the user has that one
/// calendar only, the contacts.
#[must_use]
pub fn compare(
    calendar: &TruthCalendar,
    truth: impl Iterator<Item = TruthEvent>,
    snapshot: &GraphSnapshot,
) -> Verdict {
    let mut comparison = Comparison::of(snapshot, 1);
    comparison.calendar(calendar, truth);
    comparison.verdict()
}

/// A comparison of all calendars of one user, one after the other, with a graph.
pub struct Comparison<'a> {
    verdict: Verdict,
    /// The number of calendars is right; if not, that is told once.
    counts_agree: bool,
    calendars: BTreeMap<&'a str, &'a CalendarRow>,
    /// By calendar and id.
    rows: BTreeMap<&'a str, BTreeMap<&'a str, &'a EventRow>>,
    people: BTreeSet<(String, Option<String>)>,
    contacts: BTreeSet<(String, Option<String>)>,
}

impl<'a> Comparison<'a> {
    /// With this graph, of a user who has so many calendars.
    #[must_use]
    pub fn of(snapshot: &'a GraphSnapshot, calendars: usize) -> Self {
        let mut verdict = Verdict::default();
        let found = snapshot.calendars.len();
        if found != calendars {
            verdict.differs(|| {
                format!("there are {found} calendars in the graph, and should be {calendars}")
            });
        }
        let mut rows: BTreeMap<&str, BTreeMap<&str, &EventRow>> = BTreeMap::new();
        for event in &snapshot.events {
            let (calendar, id) = (event.calendar.as_str(), event.row.id.as_str());
            let standing = rows.entry(calendar).or_default();
            if standing.insert(id, &event.row).is_some() {
                verdict.differs(|| format!("{id} is in the graph twice"));
            }
        }
        let mut contacts = BTreeSet::new();
        for contact in &snapshot.contacts {
            if !contacts.insert((contact.key.clone(), contact.email.clone())) {
                verdict.differs(|| format!("contact {} is in the graph twice", contact.key));
            }
        }
        let by_id = snapshot.calendars.iter().map(|row| (row.id.as_str(), row));
        Comparison {
            verdict,
            counts_agree: found == calendars,
            calendars: by_id.collect(),
            rows,
            people: BTreeSet::new(),
            contacts,
        }
    }

    /// One of the calendars, with its events.
    pub fn calendar(&mut self, calendar: &TruthCalendar, truth: impl Iterator<Item = TruthEvent>) {
        let Comparison {
            verdict,
            rows,
            people,
            ..
        } = self;
        match self.calendars.get(calendar.id.as_str()) {
            Some(row) => compare_calendar(calendar, row, verdict),
            None if !self.counts_agree => {}
            None => {
                verdict.differs(|| format!("the calendar {} is missing in the graph", calendar.id))
            }
        }
        let mut standing = rows.remove(calendar.id.as_str()).unwrap_or_default();
        for event in truth {
            verdict.expected += 1;
            let mentioned = event.organizer.iter().chain(&event.attendees);
            people.extend(mentioned.filter_map(|person| Some((key(person)?, address(person)))));
            let id = event.id.as_str();
            let mut elsewhere = || {
                let mut others = rows.iter_mut();
                others.find_map(|(other, standing)| Some((*other, standing.remove(id)?)))
            };
            let found = standing.remove(id).or_else(|| {
                let (other, row) = elsewhere()?;
                verdict.differs(|| format!("{id} is in the calendar {other}"));
                Some(row)
            });
            let Some(row) = found else {
                verdict.differs(|| format!("{id} is missing in the graph"));
                continue;
            };
            for (field, expected, found) in differences(&event, row) {
                verdict.differs(|| {
                    format!(
                        "{}: {field} is {found} in the graph, {expected} in the calendar",
                        event.id
                    )
                });
            }
        }
        for id in standing.keys() {
            verdict.differs(|| format!("{id} is in the graph and not in the calendar"));
        }
    }

    /// What was found, when all calendars have been told.
    #[must_use]
    pub fn verdict(mut self) -> Verdict {
        for (calendar, standing) in &self.rows {
            for id in standing.keys() {
                let (id, calendar) = (*id, *calendar);
                self.verdict
                    .differs(|| format!("{id} is in the calendar {calendar}"));
            }
        }
        for person in self.people.symmetric_difference(&self.contacts) {
            self.verdict
                .differs(|| format!("contact {person:?} is only on one side"));
        }
        self.verdict
    }
}

fn compare_calendar(calendar: &TruthCalendar, row: &CalendarRow, verdict: &mut Verdict) {
    for (field, expected, found) in [
        ("id", calendar.id.clone(), row.id.to_string()),
        ("name", text(&calendar.name), text(&row.name)),
        ("time zone", text(&calendar.time_zone), text(&row.time_zone)),
        (
            "access role",
            text(&calendar.access_role),
            text(&row.access_role),
        ),
    ] {
        if expected != found {
            verdict.differs(|| {
                format!("the calendar's {field} is {found} in the graph and should be {expected}")
            });
        }
    }
}

/// What tells people apart in one user's graph: the address in lower case, else the profile, else the name.
fn key(person: &TruthAttendee) -> Option<String> {
    if let Some(email) = address(person) {
        return Some(email);
    }
    if let Some(id) = said(&person.id) {
        return Some(format!("id:{id}"));
    }
    said(&person.display_name).map(|name| format!("name:{}", name.to_lowercase()))
}

fn address(person: &TruthAttendee) -> Option<String> {
    said(&person.email).map(str::to_lowercase)
}

/// Text that says something.
fn said(text: &Option<String>) -> Option<&str> {
    text.as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

type Difference = (&'static str, String, String);

/// Values are put into words only where they differ: a fleet's comparison is of millions.
fn check<T: PartialEq + Display>(
    found: &mut Vec<Difference>,
    field: &'static str,
    expected: T,
    actual: T,
) {
    if expected != actual {
        found.push((field, expected.to_string(), actual.to_string()));
    }
}

fn check_text(
    found: &mut Vec<Difference>,
    field: &'static str,
    expected: &Option<String>,
    actual: &Option<String>,
) {
    if expected != actual {
        found.push((field, text(expected), text(actual)));
    }
}

fn differences(event: &TruthEvent, row: &EventRow) -> Vec<Difference> {
    let mut found = Vec::new();
    check(
        &mut found,
        "etag",
        event.etag.clone().unwrap_or_default(),
        row.etag.clone(),
    );
    if event.status != row.status {
        check(
            &mut found,
            "status",
            event.status.clone(),
            row.status.clone(),
        );
    }
    check_text(
        &mut found,
        "series",
        &event.recurring_event_id,
        &row.series_id,
    );
    check(
        &mut found,
        "original start",
        time(event.original_start.as_ref()),
        row_time(row.original_start.as_ref()),
    );
    if event.status == "cancelled" {
        // Of a cancelled instance Google tells no more, and its place is where it was.
        check(
            &mut found,
            "start",
            time(event.original_start.as_ref()),
            row_time(Some(&row.start)),
        );
        return found;
    }
    check_text(&mut found, "name", &event.summary, &row.name);
    check_text(
        &mut found,
        "description",
        &event.description,
        &row.description,
    );
    check_text(&mut found, "location", &event.location, &row.location);
    check(
        &mut found,
        "start",
        time(event.start.as_ref()),
        row_time(Some(&row.start)),
    );
    // Where the calendar leaves the end open, the event ends as it starts.
    let end = event.end.as_ref().or(event.start.as_ref());
    check(&mut found, "end", time(end), row_time(Some(&row.end)));
    check(
        &mut found,
        "recurrence",
        event.recurrence.join("\n"),
        row.recurrence.join("\n"),
    );
    check(
        &mut found,
        "organizer",
        text(&event.organizer.as_ref().and_then(key)),
        text(&row.organizer.as_ref().map(|person| person.key.clone())),
    );
    check(&mut found, "attendees", guests(event), attendees(row));
    check(
        &mut found,
        "sequence",
        event.sequence.unwrap_or(0),
        row.sequence,
    );
    let event_type = event
        .event_type
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    check(&mut found, "event type", event_type, row.event_type.clone());
    check_text(&mut found, "updated", &event.updated, &row.updated);
    check_text(&mut found, "created", &event.created, &row.created);
    check(&mut found, "all day", event.all_day, row.all_day);
    check_text(&mut found, "iCalendar UID", &event.ical_uid, &row.ical_uid);
    check_text(&mut found, "visibility", &event.visibility, &row.visibility);
    check_text(
        &mut found,
        "transparency",
        &event.transparency,
        &row.transparency,
    );
    check(
        &mut found,
        "attendees omitted",
        event.attendees_omitted,
        row.attendees_omitted,
    );
    found
}

fn text(value: &Option<String>) -> String {
    value
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"))
}

fn time(time: Option<&TruthTime>) -> String {
    let Some(time) = time else {
        return "nothing".to_owned();
    };
    match (&time.date_time, &time.date) {
        (Some(at), _) => format!(
            "{at} {} {}",
            text(&time.time_zone),
            time.epoch_ms.unwrap_or(i64::MIN)
        ),
        (None, Some(day)) => format!("{day} {}", time.epoch_ms.unwrap_or(i64::MIN)),
        (None, None) => "nothing".to_owned(),
    }
}

fn row_time(time: Option<&EventTime>) -> String {
    let Some(time) = time else {
        return "nothing".to_owned();
    };
    if time.text.contains('T') {
        format!("{} {} {}", time.text, text(&time.zone), time.epoch_ms)
    } else {
        format!("{} {}", time.text, time.epoch_ms)
    }
}

/// What is compared of a guest, beside the key. Of two spellings of one address the first counts, but a name that only
/// the second has is taken from there, and either may be the owner.
#[derive(PartialEq, Eq, Debug)]
struct Guest {
    status: String,
    name: Option<String>,
    optional: bool,
    resource: bool,
    is_self: bool,
}

fn guests(event: &TruthEvent) -> String {
    let mut guests: BTreeMap<String, Guest> = BTreeMap::new();
    for guest in &event.attendees {
        let Some(key) = key(guest) else { continue };
        let name = said(&guest.display_name).map(str::to_owned);
        let status = guest.response_status.as_deref().unwrap_or("needsAction");
        let first = guests.entry(key).or_insert_with(|| Guest {
            status: status.to_owned(),
            name: None,
            optional: guest.optional,
            resource: guest.resource,
            is_self: false,
        });
        first.is_self |= guest.is_self;
        if first.name.is_none() {
            first.name = name;
        }
    }
    format!("{guests:?}")
}

fn attendees(row: &EventRow) -> String {
    let attendees: BTreeMap<String, Guest> = row
        .attendees
        .iter()
        .map(|attendee| {
            let guest = Guest {
                status: attendee.response_status.clone(),
                name: attendee.person.name.clone(),
                optional: attendee.optional,
                resource: attendee.resource,
                is_self: attendee.is_self,
            };
            (attendee.person.key.clone(), guest)
        })
        .collect();
    // Somebody who is there twice would be lost in the map.
    format!(
        "{attendees:?}{}",
        if attendees.len() == row.attendees.len() {
            ""
        } else {
            " and one twice"
        }
    )
}

#[cfg(test)]
mod tests {
    use kalends_core::graph::{Attendee, CalendarRow, Person, SnapshotEvent};
    use kalends_core::id::CalendarId;

    use super::*;

    /// One event with a guest without an address, as it is in the calendar and as it is in the graph.
    fn both() -> (TruthCalendar, TruthEvent, GraphSnapshot) {
        let day = |day: &str, epoch_ms| {
            let truth = TruthTime {
                date: Some(day.to_owned()),
                epoch_ms: Some(epoch_ms),
                ..TruthTime::default()
            };
            let row = EventTime {
                text: day.to_owned(),
                epoch_ms,
                zone: None,
            };
            (truth, row)
        };
        let (start, row_start) = day("2026-03-02", 1_772_409_600_000);
        let (end, row_end) = day("2026-03-03", 1_772_496_000_000);
        let some = |text: &str| Some(text.to_owned());
        let calendar = TruthCalendar {
            id: "primary".to_owned(),
            name: some("Ada"),
            time_zone: some("Europe/Berlin"),
            access_role: some("owner"),
        };
        let event = TruthEvent {
            id: "e1".to_owned(),
            etag: some("\"2\""),
            status: "confirmed".to_owned(),
            start: Some(start),
            end: Some(end),
            attendees: vec![TruthAttendee {
                display_name: some("The Board"),
                is_self: true,
                ..TruthAttendee::default()
            }],
            created: some("2026-01-01T00:00:00.000Z"),
            all_day: true,
            ical_uid: some("e1@google.com"),
            visibility: some("private"),
            transparency: some("transparent"),
            attendees_omitted: true,
            ..TruthEvent::default()
        };
        let board = Person {
            key: "name:the board".to_owned(),
            email: None,
            name: some("The Board"),
        };
        let row = EventRow {
            id: "e1".to_owned(),
            version: 2,
            etag: "\"2\"".to_owned(),
            status: "confirmed".to_owned(),
            name: None,
            description: None,
            location: None,
            start: row_start,
            end: row_end,
            all_day: true,
            created: event.created.clone(),
            updated: None,
            sequence: 0,
            ical_uid: event.ical_uid.clone(),
            event_type: "default".to_owned(),
            visibility: event.visibility.clone(),
            transparency: event.transparency.clone(),
            recurrence: Vec::new(),
            series_id: None,
            original_start: None,
            series_until_ms: None,
            organizer: None,
            attendees: vec![Attendee {
                person: board.clone(),
                response_status: "needsAction".to_owned(),
                optional: false,
                resource: false,
                is_self: true,
            }],
            attendees_omitted: true,
        };
        let snapshot = GraphSnapshot {
            calendars: vec![CalendarRow {
                id: CalendarId::new("primary").unwrap(),
                name: calendar.name.clone(),
                time_zone: calendar.time_zone.clone(),
                access_role: calendar.access_role.clone(),
            }],
            events: vec![SnapshotEvent {
                calendar: CalendarId::new("primary").unwrap(),
                row,
                generation: 1,
            }],
            contacts: vec![board],
        };
        (calendar, event, snapshot)
    }

    #[test]
    fn every_part_of_a_graph_is_looked_at() {
        type Spoil = fn(&mut GraphSnapshot);
        let spoils: [(&str, Spoil); 15] = [
            ("all day", |graph| graph.events[0].row.all_day = false),
            ("created", |graph| graph.events[0].row.created = None),
            ("UID", |graph| graph.events[0].row.ical_uid = None),
            ("visibility", |graph| graph.events[0].row.visibility = None),
            ("transparency", |graph| {
                graph.events[0].row.transparency = None;
            }),
            ("omitted", |graph| {
                graph.events[0].row.attendees_omitted = false;
            }),
            ("attendees", |graph| {
                graph.events[0].row.attendees[0].is_self = false;
            }),
            ("attendees", |graph| {
                graph.events[0].row.attendees[0].person.name = None;
            }),
            ("contact", |graph| graph.contacts.clear()),
            ("name", |graph| graph.calendars[0].name = None),
            ("time zone", |graph| graph.calendars[0].time_zone = None),
            ("access role", |graph| graph.calendars[0].access_role = None),
            ("calendars", |graph| graph.calendars.clear()),
            ("elsewhere", |graph| {
                graph.events[0].calendar = CalendarId::new("elsewhere").unwrap();
            }),
            ("missing", |graph| graph.events.clear()),
        ];
        let (calendar, event, graph) = both();
        let verdict = compare(&calendar, std::iter::once(event.clone()), &graph);
        assert_eq!(verdict.described, Vec::<String>::new());
        for (word, spoil) in spoils {
            let mut spoiled = graph.clone();
            spoil(&mut spoiled);
            let verdict = compare(&calendar, std::iter::once(event.clone()), &spoiled);
            assert_eq!(verdict.mismatches, 1, "{:?}", verdict.described);
            assert!(verdict.described[0].contains(word), "{word}: {verdict:?}");
        }
    }
}
