//! Answers against the shapes of the API: every member is known and of its type, whatever the calendar holds.

use kalends_core::rng::substream;
use kalends_sim::google::{Fault, GoogleEmulator, QuotaSettings};
use kalends_sim::http::Request;
use serde_json::Value;

use crate::client::{ADA, EPOCH, bearer, body, events_request, settings};

/// The resources that are used here, by the API's discovery document (calendar.v3) and, for tokens and refusals, Google's
/// guides: object, member, type. `*` before a member: always there in an answer of this emulator. `any` is not looked into.
const SCHEMA: &str = "
Events *kind=calendar#events *etag:string summary:string description:string *updated:time timeZone:string
Events *accessRole:string *defaultReminders:[Reminder *items:[Event nextPageToken:string nextSyncToken:string
Reminder *method:string *minutes:integer
Event *kind=calendar#event *etag:string *id:string *status:string htmlLink:string created:time updated:time
Event summary:string description:string location:string creator:Person organizer:Person start:When end:When
Event recurrence:[string recurringEventId:string originalStartTime:When transparency:string iCalUID:string
Event sequence:integer attendees:[Attendee attendeesOmitted:boolean reminders:Reminders eventType:string
Event birthdayProperties:Birthday anyoneCanAddSelf:boolean attachments:[any colorId:string conferenceData:any
Event endTimeUnspecified:boolean eventLabelId:string extendedProperties:any focusTimeProperties:any gadget:any
Event guestsCanInviteOthers:boolean guestsCanModify:boolean guestsCanSeeOtherGuests:boolean hangoutLink:string
Event locked:boolean visibility:string outOfOfficeProperties:any privateCopy:boolean source:any workingLocationProperties:any
Birthday *type:string contact:string customTypeName:string
Person id:string email:string displayName:string self:boolean
When date:date dateTime:time timeZone:string
Attendee email:string displayName:string organizer:boolean self:boolean resource:boolean optional:boolean
Attendee *responseStatus:string id:string asyncOperation:string comment:string additionalGuests:integer
Reminders *useDefault:boolean overrides:[Reminder
CalendarList *kind=calendar#calendarList *etag:string *items:[Entry nextPageToken:string nextSyncToken:string
Entry *kind=calendar#calendarListEntry *etag:string *id:string summary:string timeZone:string accessRole:string
Entry defaultReminders:[Reminder selected:boolean primary:boolean deleted:boolean description:string
Entry location:string summaryOverride:string colorId:string backgroundColor:string foregroundColor:string
Entry hidden:boolean dataOwner:string autoAcceptInvitations:boolean conferenceProperties:any notificationSettings:any
Refusal *error:RefusalBody
RefusalBody *errors:[Reason *code:integer *message:string status:string details:[any
Reason *domain:string *reason:string *message:string locationType:string location:string extendedHelp:string
Token *access_token:string *expires_in:integer *token_type:string scope:string refresh_token_expires_in:integer
TokenRefusal *error:string error_description:string error_uri:string
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
        "any" => {}
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

#[test]
fn a_calendar_from_a_file_is_served_in_the_shape_of_the_api() {
    let event = r#"{"kind": "calendar#event", "etag": "\"2\"", "id": "a1", "status": "confirmed",
        "start": {"date": "2026-03-02"}, "end": {"date": "2026-03-03"}, "colorId": "5", "endTimeUnspecified": true,
        "attendees": [{"id": "77", "displayName": "No address", "responseStatus": "accepted", "additionalGuests": 2}],
        "reminders": {"useDefault": false, "overrides": [{"method": "popup", "minutes": 5}]}}"#;
    let stub = r#"{"kind": "calendar#event", "etag": "\"4\"", "id": "a1", "status": "cancelled"}"#;
    let mut emulator = GoogleEmulator::new(settings(1, 0));
    let answers = format!(r#"[{{"items": [{event}]}}, {{"items": [{stub}]}}]"#);
    emulator.load_fixture(ADA, &answers).unwrap();
    let page = body(&emulator.handle(EPOCH, &events_request(&emulator)));
    check("Events", &page, "full");
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    emulator.play_next_fixture(EPOCH, ADA).unwrap();
    let token = page["nextSyncToken"].as_str().unwrap();
    let request = events_request(&emulator).with_query("syncToken", token);
    let page = body(&emulator.handle(EPOCH, &request));
    check("Events", &page, "increment");
    assert_eq!(page["items"][0]["status"], "cancelled");
}

#[test]
fn an_increment_of_the_list_of_calendars_has_the_shape_of_the_api() {
    let mut settings = settings(1, 0);
    settings.calendars_per_user = 3;
    let mut emulator = GoogleEmulator::new(settings);
    let list = |emulator: &mut GoogleEmulator, token: Option<&str>| {
        let mut request = Request::get("/calendar/v3/users/me/calendarList")
            .with_header("authorization", bearer(emulator, 0));
        if let Some(token) = token {
            request = request.with_query("syncToken", token);
        }
        body(&emulator.handle(EPOCH, &request))
    };
    let whole = list(&mut emulator, None);
    check("CalendarList", &whole, "list");
    assert_eq!(whole["items"].as_array().unwrap().len(), 3);
    let group = emulator.calendars(ADA).unwrap().pop().unwrap();
    emulator.remove_calendar(EPOCH, ADA, &group).unwrap();
    let increment = list(&mut emulator, whole["nextSyncToken"].as_str());
    check("CalendarList", &increment, "increment");
    assert_eq!(increment["items"][0]["deleted"], true);
}

#[test]
fn refusals_have_the_shape_of_the_api() {
    let mut settings = settings(1, 3);
    settings.quota = Some(QuotaSettings {
        per_user_per_minute: 10,
        ..QuotaSettings::default()
    });
    let mut emulator = GoogleEmulator::new(settings);
    let events = |emulator: &GoogleEmulator| events_request(emulator);
    let with = |emulator: &GoogleEmulator, name: &str, value: &str| {
        events_request(emulator).with_query(name, value)
    };
    let mut requests = vec![
        (401, Request::get("/calendar/v3/calendars/primary/events")),
        (404, Request::get("/calendar/v3/nothing/here")),
        (400, with(&emulator, "syncToken", "~~~")),
        (410, with(&emulator, "syncToken", "bm9uc2Vuc2U=")),
        (400, with(&emulator, "pageToken", "~~~")),
        (400, with(&emulator, "fields", "items(shoeSize)")),
    ];
    let empty = with(&emulator, "timeMin", "2026-03-02T00:00:00Z");
    requests.push((400, empty.with_query("timeMax", "2026-03-01T00:00:00Z")));
    for (status, reason) in [
        (500, "backendError"),
        (403, "quotaExceeded"),
        (404, "notFound"),
    ] {
        let reason = reason.to_owned();
        emulator
            .inject(None, Fault::Error { status, reason })
            .unwrap();
    }
    for (status, reason) in [
        (500, "backendError"),
        (403, "quotaExceeded"),
        (404, "notFound"),
    ] {
        let response = emulator.handle(EPOCH, &events(&emulator));
        assert_eq!(response.status, status, "{reason}");
        check("Refusal", &body(&response), reason);
    }
    for (status, request) in requests {
        let response = emulator.handle(EPOCH, &request);
        let place = format!("{} {:?}", request.path, request.query);
        assert_eq!(response.status, status, "{place}");
        check("Refusal", &body(&response), &place);
        assert_eq!(body(&response)["error"]["code"], status, "{place}");
    }
    let limited = (0..20).map(|_| emulator.handle(EPOCH, &events(&emulator)));
    let limited: Vec<_> = limited.filter(|response| response.status != 200).collect();
    assert!(!limited.is_empty(), "the quota is used up");
    for response in limited {
        assert_eq!(response.status, 403);
        check("Refusal", &body(&response), "limited");
    }
}

#[test]
fn the_token_endpoint_answers_in_the_shape_of_the_guide() {
    let mut emulator = GoogleEmulator::new(settings(1, 0));
    let good = emulator.users().next().unwrap().refresh_token;
    let form = |token: &str| {
        format!("grant_type=refresh_token&refresh_token={token}&client_id=a&client_secret=b")
    };
    let mut ask = |form: String| emulator.handle(EPOCH, &Request::post("/token", form));
    let granted = ask(form(&good));
    assert_eq!(granted.status, 200);
    check("Token", &body(&granted), "token");
    for wrong in [
        form("unknown"),
        "grant_type=magic".to_owned(),
        String::new(),
    ] {
        let refused = ask(wrong.clone());
        assert_eq!(refused.status, 400, "{wrong}");
        check("TokenRefusal", &body(&refused), &wrong);
    }
}
