//! Calendars from files.

use kalends_sim::google::{Change, ChangeError, FixtureError, GoogleEmulator};
use serde_json::json;

use crate::client::{ADA, Client, EPOCH, body, events_request, settings, truth};

const EVENTS: &str = r#"[
  {"why": "plain", "event": {"id": "plain1", "status": "confirmed", "etag": "\"1\"", "x-new":  [1.50],
    "start": {"date": "2026-03-02"}, "end": {"date": "2026-03-03"}, "organizer": {"email": "Ada@Example.org"},
    "attendees": [{"email": "Bob@Example.org", "responseStatus": "accepted"}, {"displayName": "no address"}]}},
  {"why": "deleted", "event": {"id": "gone1", "status": "cancelled"}},
  {"why": "series", "event": {"id": "weekly1", "recurrence": ["RRULE:FREQ=WEEKLY"],
    "start": {"dateTime": "2026-03-02T09:00:00-05:00", "timeZone": "America/New_York"},
    "end": {"dateTime": "2026-03-02T09:30:00-05:00"}}},
  {"why": "taken out", "event": {"id": "weekly1_20260309T130000Z", "status": "cancelled",
    "recurringEventId": "weekly1", "originalStartTime": {"dateTime": "2026-03-09T09:00:00-04:00"}}},
  {"why": "taken out of nothing", "event": {"id": "other1_20260309", "status": "cancelled",
    "recurringEventId": "other1"}},
  {"why": "nameless", "event": {"summary": "no id"}}
]"#;

fn emulator(json: &str) -> GoogleEmulator {
    let mut emulator = GoogleEmulator::new(settings(2, 25));
    emulator.load_fixture(ADA, json).unwrap();
    emulator
}

#[test]
fn events_are_served_as_they_are() {
    let mut emulator = emulator(EVENTS);
    let request = events_request(&emulator);
    let response = emulator.handle(EPOCH, &request);
    let text = String::from_utf8(response.body.clone()).unwrap();
    assert!(
        text.contains(r#""x-new":  [1.50]"#),
        "not a blank is changed"
    );
    let page = body(&response);
    let ids: Vec<&str> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["id"].as_str())
        .collect();
    assert_eq!(ids, ["plain1", "weekly1", "weekly1_20260309T130000Z"]);
    assert_eq!(
        page["items"].as_array().unwrap().len(),
        4,
        "and the nameless one"
    );
    let masked = events_request(&emulator).with_query("fields", "items(id,organizer/email)");
    let page = body(&emulator.handle(EPOCH, &masked));
    assert_eq!(
        page["items"][0],
        json!({"id": "plain1", "organizer": {"email": "Ada@Example.org"}})
    );
    let shown = events_request(&emulator).with_query("showDeleted", "true");
    let page = body(&emulator.handle(EPOCH, &shown));
    assert_eq!(page["items"].as_array().unwrap().len(), 6);
}

#[test]
fn the_truth_is_what_remains() {
    let emulator = emulator(EVENTS);
    let truth = truth(&emulator, ADA);
    let ids: Vec<&str> = truth.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["plain1", "weekly1", "weekly1_20260309T130000Z"]);
    let organizer = truth[0].organizer.as_ref().unwrap();
    assert_eq!(organizer.email.as_deref(), Some("ada@example.org"));
    assert_eq!(
        truth[0].attendees[0].email.as_deref(),
        Some("bob@example.org")
    );
    assert_eq!(truth[0].attendees[1].email, None);
    assert_eq!(
        truth[1].start.as_ref().unwrap().epoch_ms,
        Some(1_772_460_000_000)
    );
    assert_eq!(truth[2].status, "cancelled");
}

#[test]
fn answers_are_played_one_after_another() {
    let played = json!([
        {"items": [
            {"id": "a1", "summary": "one", "start": {"date": "2026-03-02"}, "end": {"date": "2026-03-03"}},
            {"id": "s1", "recurrence": ["RRULE:FREQ=DAILY"], "start": {"date": "2026-03-02"},
             "end": {"date": "2026-03-03"}},
            {"id": "s1_20260304", "recurringEventId": "s1", "start": {"date": "2026-03-05"},
             "end": {"date": "2026-03-06"}}]},
        {"items": [{"id": "a1", "summary": "two", "start": {"date": "2026-03-02"}, "end": {"date": "2026-03-03"}}]},
        {"items": [{"id": "s1", "status": "cancelled"}]}
    ]);
    let mut emulator = emulator(&played.to_string());
    let mut client = Client::new(1);
    assert_eq!(client.sync(&mut emulator, EPOCH, |_| ()).len(), 3);
    assert_eq!(client.truth(), truth(&emulator, ADA));
    assert_eq!(emulator.play_next_fixture(EPOCH, ADA), Ok(true));
    let news = client.sync(&mut emulator, EPOCH, |_| ());
    assert_eq!(news, [played[1]["items"][0].clone()]);
    assert_eq!(emulator.play_next_fixture(EPOCH, ADA), Ok(true));
    let news = client.sync(&mut emulator, EPOCH, |_| ());
    assert_eq!(news, [json!({"id": "s1", "status": "cancelled"})]);
    assert_eq!(client.truth(), truth(&emulator, ADA));
    assert_eq!(client.events.len(), 1);
    assert_eq!(emulator.play_next_fixture(EPOCH, ADA), Ok(false));
    assert!(client.sync(&mut emulator, EPOCH, |_| ()).is_empty());
    let fixed = emulator.apply(
        EPOCH,
        ADA,
        &Change::Cancel {
            id: "a1".to_owned(),
        },
    );
    assert_eq!(fixed, Err(ChangeError::FromFile));
}

#[test]
fn files_that_are_not_understood_are_refused() {
    let mut emulator = GoogleEmulator::new(settings(1, 25));
    for bad in ["3", "[1]", "{}", "{\"items\": 3}"] {
        assert_eq!(
            emulator.load_fixture(ADA, bad),
            Err(FixtureError::Shape),
            "{bad}"
        );
    }
    assert!(matches!(
        emulator.load_fixture(ADA, "[{]"),
        Err(FixtureError::NotJson(_))
    ));
    assert_eq!(
        emulator.load_fixture("nobody", "[]"),
        Err(FixtureError::UnknownUser)
    );
    let mut client = Client::new(100);
    assert_eq!(
        client.sync(&mut emulator, EPOCH, |_| ()).len(),
        25,
        "nothing was replaced"
    );
    assert_eq!(emulator.load_fixture(ADA, "[]"), Ok(()));
    assert!(truth(&emulator, ADA).is_empty());
}

#[test]
fn a_cut_takes_the_exceptions_behind_it_along() {
    let master = |rule: &str| {
        json!({"id": "s1", "recurrence": [rule], "start": {"dateTime": "2026-03-02T09:00:00Z"},
               "end": {"dateTime": "2026-03-02T10:00:00Z"}})
    };
    let exception = |day: u32| {
        json!({"id": format!("s1_{day}"), "recurringEventId": "s1",
               "originalStartTime": {"dateTime": format!("2026-03-{day:02}T09:00:00Z")},
               "start": {"dateTime": "2026-03-04T12:00:00Z"}, "end": {"dateTime": "2026-03-04T13:00:00Z"}})
    };
    let ids = |emulator: &GoogleEmulator| -> Vec<String> {
        let truth = truth(emulator, ADA).into_iter();
        truth.map(|event| event.id).collect()
    };
    let all = ["s1", "s1_3", "s1_5", "s1_6"];
    for (until, left) in [
        ("20260305T000000Z", &all[..2]),
        ("20260305", &all[..3]),
        ("soon\u{2026}", &all[..]),
    ] {
        let cut = master(&format!("RRULE:FREQ=DAILY;UNTIL={until}"));
        let played = json!([
            {"items": [master("RRULE:FREQ=DAILY"), exception(3), exception(5), exception(6)]},
            {"items": [cut, exception(3)]}
        ]);
        let mut emulator = emulator(&played.to_string());
        assert_eq!(ids(&emulator), all);
        assert_eq!(emulator.play_next_fixture(EPOCH, ADA), Ok(true));
        assert_eq!(ids(&emulator), left, "{until}");
        let request = events_request(&emulator);
        let page = body(&emulator.handle(EPOCH, &request));
        assert_eq!(page["items"].as_array().unwrap().len(), left.len());
    }
}
