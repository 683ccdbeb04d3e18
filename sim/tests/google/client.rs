//! A small incremental client, as plain as can be: it follows tokens and keeps what it is told.

use std::collections::BTreeMap;

use kalends_core::time::Timestamp;
use kalends_sim::google::{GoogleEmulator, GoogleSettings, TruthAttendee, TruthEvent, TruthTime};
use kalends_sim::http::{Request, Response};
use serde_json::Value;

/// 2026-03-02T09:00:00Z, the epoch of all tests.
pub(crate) const EPOCH: Timestamp = Timestamp::from_ms(1_772_442_000_000);
pub(crate) const ADA: &str = "user-00001@example.com";

pub(crate) fn settings(users: u32, events: u32) -> GoogleSettings {
    GoogleSettings::new(7, users, events, EPOCH)
}

pub(crate) fn bearer(emulator: &GoogleEmulator, user: usize) -> String {
    let access = emulator.users().nth(user).unwrap();
    format!("Bearer {}", access.refresh_token)
}

/// A list of the primary calendar of the first user.
pub(crate) fn events_request(emulator: &GoogleEmulator) -> Request {
    Request::get("/calendar/v3/calendars/primary/events")
        .with_header("authorization", bearer(emulator, 0))
}

pub(crate) fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

/// Status and first reason of a refusal.
pub(crate) fn refusal(response: &Response) -> (u16, String) {
    let body = body(response);
    assert_eq!(body["error"]["code"], response.status);
    let reason = body["error"]["errors"][0]["reason"].as_str().unwrap();
    (response.status, reason.to_owned())
}

/// What the client keeps.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) events: BTreeMap<String, Value>,
    pub(crate) sync_token: Option<String>,
    pub(crate) max_results: usize,
}

impl Client {
    pub(crate) fn new(max_results: usize) -> Self {
        Client {
            max_results,
            ..Client::default()
        }
    }

    /// One pass: a full one without a token, else an increment. Before each page `between` may do what it likes.
    /// The items of all pages.
    pub(crate) fn sync(
        &mut self,
        emulator: &mut GoogleEmulator,
        now: Timestamp,
        mut between: impl FnMut(&mut GoogleEmulator),
    ) -> Vec<Value> {
        let mut seen = Vec::new();
        let mut page_token: Option<String> = None;
        for _ in 0..10_000 {
            between(emulator);
            let mut request =
                events_request(emulator).with_query("maxResults", self.max_results.to_string());
            if let Some(token) = &self.sync_token {
                request = request.with_query("syncToken", token);
            }
            if let Some(token) = &page_token {
                request = request.with_query("pageToken", token);
            }
            let response = emulator.handle(now, &request);
            let page = body(&response);
            assert_eq!(response.status, 200, "{page}");
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= self.max_results);
            for item in items {
                self.take(item);
                seen.push(item.clone());
            }
            match (&page["nextPageToken"], &page["nextSyncToken"]) {
                (Value::String(token), Value::Null) => page_token = Some(token.clone()),
                (Value::Null, Value::String(token)) => {
                    self.sync_token = Some(token.clone());
                    return seen;
                }
                _ => panic!("a page must have exactly one of the two tokens: {page}"),
            }
        }
        panic!("a traversal must end");
    }

    fn take(&mut self, item: &Value) {
        let id = item["id"].as_str().unwrap().to_owned();
        let deleted = item["status"] == "cancelled" && item["recurringEventId"].is_null();
        if deleted {
            self.events.remove(&id);
            self.events
                .retain(|_, event| event["recurringEventId"] != id.as_str());
        } else {
            self.events.insert(id, item.clone());
        }
    }

    /// What the client holds, in the oracle's words.
    pub(crate) fn truth(&self) -> Vec<TruthEvent> {
        self.events.values().map(read).collect()
    }
}

pub(crate) fn truth(emulator: &GoogleEmulator, user: &str) -> Vec<TruthEvent> {
    emulator.calendar_truth(user, "primary").unwrap().collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Reads an event as the tests' client understands it.
fn read(event: &Value) -> TruthEvent {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut read = TruthEvent {
        id: text(&event["id"]).unwrap(),
        etag: text(&event["etag"]),
        status: text(&event["status"]).unwrap_or_else(|| "confirmed".to_owned()),
        recurring_event_id: text(&event["recurringEventId"]),
        original_start: time(&event["originalStartTime"]),
        ..TruthEvent::default()
    };
    if read.status == "cancelled" {
        return read;
    }
    read.summary = text(&event["summary"]);
    read.description = text(&event["description"]);
    read.location = text(&event["location"]);
    read.start = time(&event["start"]);
    read.end = time(&event["end"]);
    read.recurrence = list(&event["recurrence"]).iter().filter_map(text).collect();
    read.organizer = event["organizer"].as_object().map(|_| TruthAttendee {
        // Who organises says nothing of coming; whose calendar it is, a reader knows from the guests.
        is_self: false,
        ..person(&event["organizer"])
    });
    read.attendees = list(&event["attendees"]).iter().map(person).collect();
    read.sequence = event["sequence"].as_i64();
    read.event_type = text(&event["eventType"]);
    read.updated = text(&event["updated"]);
    read.created = text(&event["created"]);
    read.all_day = event["start"]["date"].is_string();
    read.ical_uid = text(&event["iCalUID"]);
    read.visibility = text(&event["visibility"]);
    read.transparency = text(&event["transparency"]);
    read.attendees_omitted = event["attendeesOmitted"] == true;
    read
}

fn person(value: &Value) -> TruthAttendee {
    TruthAttendee {
        email: text(&value["email"]).map(|email| email.to_lowercase()),
        id: text(&value["id"]),
        display_name: text(&value["displayName"]),
        response_status: text(&value["responseStatus"]),
        optional: value["optional"] == true,
        resource: value["resource"] == true,
        is_self: value["self"] == true,
    }
}

fn time(value: &Value) -> Option<TruthTime> {
    value.as_object()?;
    let (date, date_time) = (text(&value["date"]), text(&value["dateTime"]));
    let instant = date_time
        .clone()
        .or_else(|| Some(format!("{}T00:00:00Z", date.as_ref()?)));
    Some(TruthTime {
        epoch_ms: Timestamp::parse_rfc3339(&instant?).map(Timestamp::as_ms),
        date,
        date_time,
        time_zone: text(&value["timeZone"]),
    })
}
