//! The oracle: does a user's graph hold exactly what the user's calendar says?
//!
//! It compares a graph as read back with [`TruthEvent`]s, which come from the emulator's own state and not from its
//! answers. It shares no code with the conversion that it judges: what a row should be is written down here again, in
//! terms of the calendar.

use std::collections::{BTreeMap, BTreeSet};

use kalends_core::graph::{EventRow, EventTime, GraphSnapshot};

use crate::google::{TruthEvent, TruthTime};

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

/// Compares one calendar of one user with the events of that calendar in `snapshot`, and, for a user with that one
/// calendar, the contacts.
#[must_use]
pub fn compare(truth: impl Iterator<Item = TruthEvent>, snapshot: &GraphSnapshot) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rows: BTreeMap<&str, &EventRow> = BTreeMap::new();
    for event in &snapshot.events {
        if rows.insert(&event.row.id, &event.row).is_some() {
            verdict.differs(|| format!("{} is in the graph twice", event.row.id));
        }
    }
    let mut people: BTreeSet<String> = BTreeSet::new();
    for event in truth {
        verdict.expected += 1;
        people.extend(event.organizer_email.clone());
        people.extend(
            event
                .attendees
                .iter()
                .filter_map(|guest| guest.email.clone()),
        );
        let Some(row) = rows.remove(event.id.as_str()) else {
            verdict.differs(|| format!("{} is missing in the graph", event.id));
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
    for id in rows.keys() {
        verdict.differs(|| format!("{id} is in the graph and not in the calendar"));
    }
    let contacts: BTreeSet<String> = snapshot
        .contacts
        .iter()
        .filter_map(|contact| contact.email.clone())
        .collect();
    for person in people.symmetric_difference(&contacts) {
        verdict.differs(|| format!("contact {person} is only on one side"));
    }
    verdict
}

type Difference = (&'static str, String, String);

fn differences(event: &TruthEvent, row: &EventRow) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut check = |field: &'static str, expected: String, actual: String| {
        if expected != actual {
            found.push((field, expected, actual));
        }
    };
    check(
        "etag",
        event.etag.clone().unwrap_or_default(),
        row.etag.clone(),
    );
    check("status", event.status.clone(), row.status.clone());
    check(
        "series",
        text(&event.recurring_event_id),
        text(&row.series_id),
    );
    check(
        "original start",
        time(event.original_start.as_ref()),
        row_time(row.original_start.as_ref()),
    );
    if event.status == "cancelled" {
        // Of a cancelled instance Google tells no more, and its place is where it was.
        check(
            "start",
            time(event.original_start.as_ref()),
            row_time(Some(&row.start)),
        );
        return found;
    }
    check("name", text(&event.summary), text(&row.name));
    check(
        "description",
        text(&event.description),
        text(&row.description),
    );
    check("location", text(&event.location), text(&row.location));
    check(
        "start",
        time(event.start.as_ref()),
        row_time(Some(&row.start)),
    );
    // Where the calendar leaves the end open, the event ends as it starts.
    let end = event.end.as_ref().or(event.start.as_ref());
    check("end", time(end), row_time(Some(&row.end)));
    check(
        "recurrence",
        event.recurrence.join("\n"),
        row.recurrence.join("\n"),
    );
    check(
        "organizer",
        text(&event.organizer_email),
        text(&organizer(row)),
    );
    check("attendees", guests(event), attendees(row));
    check(
        "sequence",
        event.sequence.unwrap_or(0).to_string(),
        row.sequence.to_string(),
    );
    let event_type = event
        .event_type
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    check("event type", event_type, row.event_type.clone());
    check("updated", text(&event.updated), text(&row.updated));
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

fn organizer(row: &EventRow) -> Option<String> {
    row.organizer
        .as_ref()
        .and_then(|person| person.email.clone())
}

fn guests(event: &TruthEvent) -> String {
    let mut guests: BTreeMap<String, String> = BTreeMap::new();
    for guest in &event.attendees {
        let key = match (&guest.email, &guest.profile_id, &guest.display_name) {
            (Some(email), _, _) => email.clone(),
            (None, Some(id), _) => format!("id:{id}"),
            (None, None, Some(name)) => format!("name:{}", name.to_lowercase()),
            (None, None, None) => continue,
        };
        let status = guest
            .response_status
            .clone()
            .unwrap_or_else(|| "needsAction".to_owned());
        // Of two spellings of one address the first counts.
        guests.entry(key).or_insert_with(|| {
            format!(
                "{status} optional={} resource={}",
                guest.optional, guest.resource
            )
        });
    }
    format!("{guests:?}")
}

fn attendees(row: &EventRow) -> String {
    let attendees: BTreeMap<String, String> = row
        .attendees
        .iter()
        .map(|attendee| {
            let status = &attendee.response_status;
            let (optional, resource) = (attendee.optional, attendee.resource);
            (
                attendee.person.key.clone(),
                format!("{status} optional={optional} resource={resource}"),
            )
        })
        .collect();
    format!("{attendees:?}")
}

#[cfg(test)]
mod tests {
    use kalends_core::graph::SnapshotEvent;
    use kalends_core::id::CalendarId;

    use super::*;
    use crate::google::TruthAttendee;

    const DAY: &str = "2026-03-18";
    const DAY_MS: i64 = 1_773_792_000_000;

    fn snapshot(row: EventRow) -> GraphSnapshot {
        let event = SnapshotEvent {
            calendar: CalendarId::new("primary").unwrap(),
            row,
            generation: 1,
        };
        GraphSnapshot {
            events: vec![event],
            ..GraphSnapshot::default()
        }
    }

    /// An open end, and a guest of whom only the profile is known.
    fn both_sides() -> (TruthEvent, EventRow) {
        let truth = TruthEvent {
            id: "a1".to_owned(),
            status: "confirmed".to_owned(),
            start: Some(TruthTime {
                date: Some(DAY.to_owned()),
                epoch_ms: Some(DAY_MS),
                ..TruthTime::default()
            }),
            attendees: vec![TruthAttendee {
                profile_id: Some("77".to_owned()),
                display_name: Some("Zoe".to_owned()),
                ..TruthAttendee::default()
            }],
            ..TruthEvent::default()
        };
        let row = serde_json::json!({
            "id": "a1", "version": 0, "etag": "", "status": "confirmed", "all_day": true, "sequence": 0,
            "start": {"text": DAY, "epoch_ms": DAY_MS}, "end": {"text": DAY, "epoch_ms": DAY_MS},
            "event_type": "default", "recurrence": [], "attendees_omitted": false,
            "attendees": [{
                "person": {"key": "id:77", "name": "Zoe"}, "response_status": "needsAction",
                "optional": false, "resource": false, "is_self": false
            }]
        });
        (truth, serde_json::from_value(row).unwrap())
    }

    #[test]
    fn an_open_end_is_the_start_and_a_profile_is_a_person() {
        let (truth, row) = both_sides();
        let verdict = compare([truth].into_iter(), &snapshot(row));
        assert_eq!(verdict.described, Vec::<String>::new());
    }

    #[test]
    fn another_end_and_another_guest_are_differences() {
        let (truth, mut row) = both_sides();
        row.end.epoch_ms += 1;
        row.attendees[0].person.key = "id:78".to_owned();
        let verdict = compare([truth].into_iter(), &snapshot(row));
        assert_eq!(verdict.mismatches, 2, "{:?}", verdict.described);
    }
}
