//! Misfortune on demand.

use kalends_core::time::MINUTE_MS;
use kalends_sim::google::{Fault, GoogleEmulator};
use kalends_sim::http::{Delivery, Request};
use serde_json::Value;

use crate::client::{ADA, EPOCH, bearer, body, events_request, refusal, settings};

fn emulator() -> GoogleEmulator {
    GoogleEmulator::new(settings(2, 30))
}

#[test]
fn faults_come_in_order_and_to_their_user_only() {
    let mut emulator = emulator();
    let request = events_request(&emulator);
    let other = Request::get("/calendar/v3/users/me/calendarList")
        .with_header("authorization", bearer(&emulator, 1));
    let error = |status, reason: &str| Fault::Error {
        status,
        reason: reason.to_owned(),
    };
    emulator
        .inject(Some(ADA), error(403, "quotaExceeded"))
        .unwrap();
    emulator
        .inject(Some(ADA), error(500, "backendError"))
        .unwrap();
    emulator
        .inject(Some(ADA), Fault::Html { status: 502 })
        .unwrap();
    emulator.inject(Some(ADA), Fault::Unauthorized).unwrap();
    assert_eq!(emulator.handle(EPOCH, &other).status, 200);
    let refused = emulator.handle(EPOCH, &request);
    assert_eq!(refusal(&refused), (403, "quotaExceeded".to_owned()));
    assert_eq!(emulator.handle(EPOCH, &request).status, 500);
    let page = emulator.handle(EPOCH, &request);
    assert_eq!(page.status, 502);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=UTF-8")
    );
    assert_eq!(
        refusal(&emulator.handle(EPOCH, &request)),
        (401, "authError".to_owned())
    );
    assert_eq!(emulator.handle(EPOCH, &request).status, 200);
    emulator.inject(None, error(503, "backendError")).unwrap();
    assert_eq!(emulator.handle(EPOCH, &other).status, 503);
    assert_eq!(emulator.handle(EPOCH, &request).status, 200);
    assert!(emulator.inject(Some("nobody"), Fault::CutBody).is_err());
}

#[test]
fn a_burst_lasts_until_its_time() {
    let mut emulator = emulator();
    let request = events_request(&emulator);
    let until = EPOCH.plus_ms(MINUTE_MS);
    let burst = Fault::LimitedUntil {
        until,
        status: 429,
        retry_after_s: Some(60),
    };
    emulator.inject(None, burst).unwrap();
    for second in [0, 30_000, 59_999] {
        let refused = emulator.handle(EPOCH.plus_ms(second), &request);
        assert_eq!(refusal(&refused), (429, "rateLimitExceeded".to_owned()));
        assert_eq!(refused.header("retry-after"), Some("60"));
    }
    assert_eq!(emulator.handle(until, &request).status, 200);
}

#[test]
fn answers_break_in_all_ways() {
    let mut emulator = emulator();
    let request = events_request(&emulator);
    let whole = emulator.handle(EPOCH, &request);
    for fault in [
        Fault::CutBody,
        Fault::MalformedJson,
        Fault::LostRequest,
        Fault::LostAnswer,
    ] {
        emulator.inject(Some(ADA), fault).unwrap();
    }
    let cut = emulator.handle(EPOCH, &request);
    assert_eq!(cut.delivery, Delivery::CutShort);
    assert_eq!(cut.body[..], whole.body[..whole.body.len() / 2]);
    let malformed = emulator.handle(EPOCH, &request);
    assert_eq!(
        (malformed.status, malformed.delivery),
        (200, Delivery::Whole)
    );
    assert!(serde_json::from_slice::<Value>(&malformed.body).is_err());
    assert_eq!(emulator.handle(EPOCH, &request).delivery, Delivery::Lost);
    assert_eq!(emulator.handle(EPOCH, &request).delivery, Delivery::Lost);
    assert_eq!(emulator.counters().statuses[&0], 2);
    assert_eq!(emulator.handle(EPOCH, &request), whole);
}

#[test]
fn a_page_is_empty_or_lacks_its_token() {
    let mut emulator = emulator();
    emulator.inject(Some(ADA), Fault::EmptyPage).unwrap();
    emulator.inject(Some(ADA), Fault::NoSyncToken).unwrap();
    let request = events_request(&emulator).with_query("maxResults", "20");
    let empty = body(&emulator.handle(EPOCH, &request));
    assert!(empty["items"].as_array().unwrap().is_empty());
    let next = |page: &Value| page["nextPageToken"].as_str().unwrap().to_owned();
    let second = request.clone().with_query("pageToken", next(&empty));
    let first = body(&emulator.handle(EPOCH, &second));
    assert_eq!(first["items"].as_array().unwrap().len(), 20);
    // The fault waits for a last page.
    let third = request.clone().with_query("pageToken", next(&first));
    let last = body(&emulator.handle(EPOCH, &third));
    assert_eq!(last["items"].as_array().unwrap().len(), 10);
    assert!(last.get("nextPageToken").is_none() && last.get("nextSyncToken").is_none());
    let again = body(&emulator.handle(EPOCH, &third));
    assert!(again["nextSyncToken"].is_string());
}

#[test]
fn an_access_token_ends_in_the_middle() {
    let mut emulator = emulator();
    let refresh = emulator.users().next().unwrap().refresh_token;
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let token = Request::post("/token", form);
    let list = |emulator: &mut GoogleEmulator, now, access: &str| {
        let request = Request::get("/calendar/v3/calendars/primary/events")
            .with_header("authorization", format!("Bearer {access}"));
        emulator.handle(now, &request).status
    };
    let access = |response: &kalends_sim::http::Response| {
        body(response)["access_token"].as_str().unwrap().to_owned()
    };
    let old = access(&emulator.handle(EPOCH, &token));
    emulator
        .inject(Some(ADA), Fault::AccessTokenExpires)
        .unwrap();
    assert_eq!(list(&mut emulator, EPOCH, &old), 401);
    assert_eq!(list(&mut emulator, EPOCH, &old), 401, "not only once");
    let later = EPOCH.plus_ms(1);
    emulator
        .inject(
            None,
            Fault::Token {
                status: 503,
                error: "internal_failure".to_owned(),
            },
        )
        .unwrap();
    assert_eq!(emulator.handle(later, &token).status, 503);
    let new = access(&emulator.handle(later, &token));
    assert_eq!(list(&mut emulator, later, &new), 200);
}
