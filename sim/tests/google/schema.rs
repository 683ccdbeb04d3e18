//! Answers against the shapes of the API: every member is known and of its type, whatever the calendar holds.

use kalends_core::rng::substream;
use kalends_sim::google::GoogleEmulator;
use kalends_sim::http::Request;
use serde_json::Value;

use crate::client::{ADA, EPOCH, bearer, body, events_request, settings};

/// The part of the API's resources that is used here: object, member, type. `*` before a member: always there.
const SCHEMA: &str = "
Events *kind=calendar#events *etag:string summary:string description:string *updated:time timeZone:string
Events *accessRole:string *defaultReminders:[Reminder *items:[Event nextPageToken:string nextSyncToken:string
Reminder *method:string *minutes:integer
Event *kind=calendar#event *etag:string *id:string *status:string htmlLink:string created:time updated:time
Event summary:string description:string location:string creator:Person organizer:Person start:When end:When
Event recurrence:[string recurringEventId:string originalStartTime:When transparency:string iCalUID:string
Event sequence:integer attendees:[Attendee attendeesOmitted:boolean reminders:Reminders eventType:string
Event birthdayProperties:Birthday
Birthday *type:string
Person *email:string displayName:string self:boolean
When date:date dateTime:time timeZone:string
Attendee *email:string displayName:string organizer:boolean self:boolean resource:boolean optional:boolean
Attendee *responseStatus:string
Reminders *useDefault:boolean
CalendarList *kind=calendar#calendarList *etag:string *items:[Entry nextPageToken:string nextSyncToken:string
Entry *kind=calendar#calendarListEntry *etag:string *id:string summary:string timeZone:string accessRole:string
Entry defaultReminders:[Reminder selected:boolean primary:boolean deleted:boolean
";

fn check(kind: &str, value: &Value, place: &str) {
    if let Some(kind) = kind.strip_prefix('[') {
        let items = value
            .as_array()
            .unwrap_or_else(|| panic!("{place}: no array"));
        items.iter().for_each(|item| check(kind, item, place));
        return;
    }
    let text = || {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{place}: no text: {value}"))
    };
    match kind {
        "string" => assert!(value.is_string(), "{place}: {value}"),
        "integer" => assert!(value.is_u64(), "{place}: {value}"),
        "boolean" => assert!(value.is_boolean(), "{place}: {value}"),
        "time" => assert!(
            kalends_core::time::Timestamp::parse_rfc3339(text()).is_some(),
            "{place}: {value}"
        ),
        "date" => assert_eq!(text().len(), 10, "{place}"),
        _ => check_object(kind, value, place),
    }
}

fn check_object(kind: &str, value: &Value, place: &str) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{place}: no object: {value}"));
    let lines = SCHEMA.lines().filter_map(|line| line.split_once(' '));
    let members: Vec<&str> = lines
        .filter(|(name, _)| *name == kind)
        .flat_map(|(_, members)| members.split(' '))
        .collect();
    assert!(!members.is_empty(), "the schema has no {kind}");
    let mut known = 0;
    for member in members {
        let bare = member.trim_start_matches('*');
        let (name, expected) = bare.split_once([':', '=']).unwrap();
        let Some(found) = object.get(name) else {
            assert!(!member.starts_with('*'), "{place} lacks {name}");
            continue;
        };
        known += 1;
        if bare.contains(':') {
            check(expected, found, &format!("{place}.{name}"));
        } else {
            assert_eq!(found, expected, "{place}.{name}");
        }
    }
    assert_eq!(known, object.len(), "{place} has unknown members: {value}");
}

#[test]
fn answers_have_the_shapes_of_the_api() {
    let mut settings = settings(1, 400);
    settings.calendars_per_user = 3;
    let mut emulator = GoogleEmulator::new(settings);
    let list = Request::get("/calendar/v3/users/me/calendarList")
        .with_query("showDeleted", "true")
        .with_header("authorization", bearer(&emulator, 0));
    let first = body(&emulator.handle(EPOCH, &events_request(&emulator)));
    check("Events", &first, "events");
    let mut rng = substream(11, "schema");
    for _ in 0..200 {
        let change = emulator.random_change(EPOCH, ADA, &mut rng).unwrap();
        emulator.apply(EPOCH, ADA, &change).unwrap();
    }
    let group = emulator.calendars(ADA).unwrap().pop().unwrap();
    emulator.remove_calendar(EPOCH, ADA, &group).unwrap();
    check(
        "CalendarList",
        &body(&emulator.handle(EPOCH, &list)),
        "list",
    );
    for parameters in [
        ("maxAttendees", "1"),
        ("showDeleted", "true"),
        ("maxResults", "2500"),
    ] {
        let request = events_request(&emulator).with_query(parameters.0, parameters.1);
        let page = body(&emulator.handle(EPOCH, &request));
        check("Events", &page, "events");
        for event in page["items"].as_array().unwrap() {
            if event["status"] == "cancelled" {
                assert!(
                    event.as_object().unwrap().len() <= 6,
                    "a stub is a stub: {event}"
                );
                continue;
            }
            for time in ["start", "end"] {
                let members = event[time].as_object().unwrap();
                assert!(members.contains_key("date") != members.contains_key("dateTime"));
                assert_eq!(
                    members.contains_key("dateTime"),
                    members.contains_key("timeZone")
                );
            }
            assert_eq!(
                event.get("recurringEventId").is_some(),
                event.get("originalStartTime").is_some()
            );
        }
    }
}
