//! The rules of `events.list` and `calendarList.list`.

use kalends_core::time::DAY_MS;
use kalends_sim::google::{
    AccessRole, Change, ChangedQuery, ForgedToken, GoogleEmulator, Patch, TruthEvent,
};
use kalends_sim::http::Request;
use serde_json::Value;

use crate::client::{ADA, Client, EPOCH, bearer, body, events_request, refusal, settings, truth};

fn list(emulator: &mut GoogleEmulator, parameters: &[(&str, &str)]) -> kalends_sim::http::Response {
    let mut request = events_request(emulator);
    for (name, value) in parameters {
        request = request.with_query(name, *value);
    }
    emulator.handle(EPOCH, &request)
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

fn sync_token(emulator: &mut GoogleEmulator) -> String {
    let page = body(&list(emulator, &[]));
    page["nextSyncToken"].as_str().unwrap().to_owned()
}

#[test]
fn a_first_sync_of_a_quarter_looks_back_on_everything() {
    let mut emulator = GoogleEmulator::new(settings(2, 100));
    let min = EPOCH.minus_ms(90 * DAY_MS).to_rfc3339();
    let page = body(&list(&mut emulator, &[("timeMin", &min)]));
    assert_eq!(ids(&page).len(), 100);
    assert_eq!(page["kind"], "calendar#events");
    assert_eq!(page["accessRole"], "owner");
    assert!(page["nextSyncToken"].is_string());
    assert!(page.get("nextPageToken").is_none());
}

#[test]
fn a_window_bounds_the_end_below_and_the_start_above() {
    let mut emulator = GoogleEmulator::new(settings(1, 300));
    let (min, max) = (EPOCH, EPOCH.plus_ms(7 * DAY_MS));
    let window = [("timeMin", min.to_rfc3339()), ("timeMax", max.to_rfc3339())];
    let window: Vec<(&str, &str)> = window
        .iter()
        .map(|(name, at)| (*name, at.as_str()))
        .collect();
    let listed = ids(&body(&list(&mut emulator, &window)));
    let within = |event: &TruthEvent| {
        let ms = |time: &Option<kalends_sim::google::TruthTime>| {
            time.as_ref().and_then(|time| time.epoch_ms).unwrap()
        };
        ms(&event.end) > min.as_ms() && ms(&event.start) < max.as_ms()
    };
    let truth = truth(&emulator, ADA);
    let singles: Vec<&TruthEvent> = truth
        .iter()
        .filter(|event| event.recurrence.is_empty() && event.recurring_event_id.is_none())
        .collect();
    assert!(
        singles.iter().any(|event| within(event)) && !singles.iter().all(|event| within(event))
    );
    for event in singles {
        assert_eq!(listed.contains(&event.id), within(event), "{event:?}");
    }
    let empty = [
        ("timeMin", "2026-03-02T00:00:00Z"),
        ("timeMax", "2026-03-02T00:00:00Z"),
    ];
    let refused = list(&mut emulator, &empty);
    assert_eq!(refusal(&refused), (400, "timeRangeEmpty".to_owned()));
}

#[test]
fn page_size_is_250_and_at_most_2500_and_at_least_1() {
    let mut emulator = GoogleEmulator::new(settings(1, 2_600));
    assert_eq!(ids(&body(&list(&mut emulator, &[]))).len(), 250);
    let most = body(&list(&mut emulator, &[("maxResults", "9999")]));
    assert_eq!(ids(&most).len(), 2_500);
    for bad in ["0", "-1", "many"] {
        let refused = list(&mut emulator, &[("maxResults", bad)]);
        assert_eq!(refusal(&refused), (400, "invalid".to_owned()));
    }
}

#[test]
fn a_page_token_goes_with_its_own_request_only() {
    let mut emulator = GoogleEmulator::new(settings(2, 50));
    let first = body(&list(&mut emulator, &[("maxResults", "20")]));
    let token = first["nextPageToken"].as_str().unwrap().to_owned();
    let second = body(&list(
        &mut emulator,
        &[("maxResults", "20"), ("pageToken", &token)],
    ));
    assert!(ids(&first).last() < ids(&second).first());
    // The mask and the payer may differ; what is listed may not.
    let masked = [
        ("maxResults", "20"),
        ("pageToken", &token),
        ("fields", "items/id"),
    ];
    assert_eq!(list(&mut emulator, &masked).status, 200);
    for other in [
        vec![("maxResults", "21"), ("pageToken", token.as_str())],
        vec![("maxResults", "20"), ("pageToken", "rubbish")],
        vec![
            ("maxResults", "20"),
            ("showDeleted", "true"),
            ("pageToken", &token),
        ],
    ] {
        let refused = list(&mut emulator, &other);
        assert_eq!(refusal(&refused), (400, "invalid".to_owned()), "{other:?}");
    }
    let stranger = Request::get("/calendar/v3/calendars/primary/events")
        .with_header("authorization", bearer(&emulator, 1))
        .with_query("maxResults", "20")
        .with_query("pageToken", token);
    assert_eq!(emulator.handle(EPOCH, &stranger).status, 400);
}

#[test]
fn a_sync_token_goes_with_its_own_calendar_and_query_only() {
    let mut emulator = GoogleEmulator::new(settings(2, 5));
    let token = sync_token(&mut emulator);
    assert_eq!(list(&mut emulator, &[("syncToken", &token)]).status, 200);
    let gone = (410, "fullSyncRequired".to_owned());
    let other_query = list(&mut emulator, &[("syncToken", &token), ("maxResults", "9")]);
    assert_eq!(refusal(&other_query), gone);
    let stranger = Request::get("/calendar/v3/calendars/primary/events")
        .with_header("authorization", bearer(&emulator, 1))
        .with_query("syncToken", &token);
    assert_eq!(refusal(&emulator.handle(EPOCH, &stranger)), gone);
    let damaged = format!("AAAA{token}");
    assert_eq!(
        refusal(&list(&mut emulator, &[("syncToken", &damaged)])),
        gone
    );
    let rubbish = list(&mut emulator, &[("syncToken", "%%%")]);
    assert_eq!(refusal(&rubbish), (400, "invalid".to_owned()));
    assert_eq!(
        body(&rubbish)["error"]["errors"][0]["location"],
        "syncToken"
    );
}

#[test]
fn knobs_decide_how_bad_tokens_are_refused() {
    for (forged, changed, damaged_status, rubbish_status, changed_status) in [
        (
            ForgedToken::BadRequest,
            ChangedQuery::BadRequest,
            400,
            400,
            400,
        ),
        (ForgedToken::Gone, ChangedQuery::Gone, 410, 410, 410),
    ] {
        let mut settings = settings(1, 5);
        settings.forged_token = forged;
        settings.changed_query = changed;
        let mut emulator = GoogleEmulator::new(settings);
        let token = sync_token(&mut emulator);
        let damaged = format!("AAAA{token}");
        let status = |emulator: &mut GoogleEmulator, token: &str, size: &str| {
            list(emulator, &[("syncToken", token), ("maxResults", size)]).status
        };
        assert_eq!(status(&mut emulator, &damaged, "250"), damaged_status);
        assert_eq!(status(&mut emulator, "%%%", "250"), rubbish_status);
        assert_eq!(status(&mut emulator, &token, "17"), changed_status);
    }
}

#[test]
fn what_does_not_go_with_a_sync_token_is_refused() {
    let mut emulator = GoogleEmulator::new(settings(1, 5));
    let token = sync_token(&mut emulator);
    for (name, value) in [
        ("iCalUID", "x"),
        ("orderBy", "updated"),
        ("privateExtendedProperty", "a=b"),
        ("q", "x"),
        ("sharedExtendedProperty", "a=b"),
        ("timeMin", "2026-01-01T00:00:00Z"),
        ("timeMax", "2026-01-01T00:00:00Z"),
        ("updatedMin", "2026-01-01T00:00:00Z"),
        ("showDeleted", "false"),
    ] {
        let refused = list(&mut emulator, &[("syncToken", &token), (name, value)]);
        assert_eq!(refusal(&refused), (400, "invalid".to_owned()), "{name}");
        assert_eq!(body(&refused)["error"]["errors"][0]["location"], name);
    }
    let shown = [("syncToken", token.as_str()), ("showDeleted", "true")];
    assert_eq!(list(&mut emulator, &shown).status, 200);
    for bad in [
        [("singleEvents", "true")],
        [("singleEvents", "maybe")],
        [("orderBy", "startTime")],
        [("timeMin", "2026-01-01")],
        [("timeZone", "Mars/Olympus")],
        [("fields", "items(id")],
        [("fields", "items(nonsense)")],
        [("fields", "nonsense")],
    ] {
        assert_eq!(list(&mut emulator, &bad).status, 400, "{bad:?}");
    }
}

#[test]
fn an_ordered_list_gives_no_sync_token() {
    let mut emulator = GoogleEmulator::new(settings(1, 30));
    let mut parameters = vec![
        ("orderBy", "updated".to_owned()),
        ("maxResults", "7".to_owned()),
    ];
    let mut updated: Vec<String> = Vec::new();
    let mut pages = 0;
    loop {
        let given: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let page = body(&list(&mut emulator, &given));
        assert!(page.get("nextSyncToken").is_none());
        pages += 1;
        let items = page["items"].as_array().unwrap().iter();
        updated.extend(items.filter_map(|item| item["updated"].as_str().map(str::to_owned)));
        let Some(next) = page["nextPageToken"].as_str() else {
            break;
        };
        parameters.truncate(2);
        parameters.push(("pageToken", next.to_owned()));
    }
    assert_eq!(pages, 5);
    assert!(updated.is_sorted() && updated.len() > 20);
}

#[test]
fn a_mask_leaves_only_what_was_asked_for() {
    let mut emulator = GoogleEmulator::new(settings(1, 60));
    let fields = "nextSyncToken,items(id,start/date,attendees(email,self),organizer)";
    let whole = body(&list(&mut emulator, &[]));
    let page = body(&list(
        &mut emulator,
        &[("fields", fields), ("prettyPrint", "false")],
    ));
    assert_eq!(page.as_object().unwrap().len(), 2);
    for (masked, event) in page["items"]
        .as_array()
        .unwrap()
        .iter()
        .zip(whole["items"].as_array().unwrap())
    {
        let names: Vec<&str> = masked
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert!(
            names
                .iter()
                .all(|name| ["attendees", "id", "organizer", "start"].contains(name))
        );
        assert_eq!(masked["id"], event["id"]);
        assert_eq!(masked.get("organizer"), event.get("organizer"));
        assert!(masked["start"].get("dateTime").is_none());
        assert_eq!(masked["start"].get("date"), event["start"].get("date"));
        for guest in masked["attendees"].as_array().into_iter().flatten() {
            let mut names = guest.as_object().unwrap().keys();
            assert!(names.all(|name| name == "email" || name == "self"));
        }
    }
    let bare = body(&list(&mut emulator, &[("fields", "nextSyncToken")]));
    assert!(bare.get("items").is_none() && bare["nextSyncToken"].is_string());
}

#[test]
fn other_parameters_shape_the_events() {
    let mut emulator = GoogleEmulator::new(settings(1, 250));
    let page = body(&list(
        &mut emulator,
        &[("eventTypes", "focusTime"), ("eventTypes", "outOfOffice")],
    ));
    let items = page["items"].as_array().unwrap();
    assert!(!items.is_empty());
    assert!(items.iter().all(|event| {
        // A cancelled instance is told of, whatever its type was.
        event["status"] == "cancelled"
            || event["eventType"] == "focusTime"
            || event["eventType"] == "outOfOffice"
    }));
    let page = body(&list(&mut emulator, &[("maxAttendees", "1")]));
    let guests = |event: &Value| event["attendees"].as_array().map_or(0, Vec::len);
    let items = page["items"].as_array().unwrap();
    assert!(items.iter().all(|event| guests(event) <= 1));
    assert!(items.iter().any(|event| event["attendeesOmitted"] == true));
    let page = body(&list(&mut emulator, &[("timeZone", "UTC")]));
    let mut starts = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["start"]["dateTime"].as_str());
    assert!(starts.all(|start| start.ends_with('Z')));
}

#[test]
fn expired_tokens_and_changed_access_need_a_full_pass() {
    let mut emulator = GoogleEmulator::new(settings(1, 40));
    let mut client = Client::new(10);
    client.sync(&mut emulator, EPOCH, |_| ());
    let gone = (410, "fullSyncRequired".to_owned());
    for end in [0, 1] {
        let token = client.sync_token.clone().unwrap();
        match end {
            0 => emulator.expire_sync_tokens(ADA).unwrap(),
            _ => emulator
                .set_access_role(ADA, "primary", AccessRole::Reader)
                .unwrap(),
        }
        let refused = list(
            &mut emulator,
            &[("syncToken", &token), ("maxResults", "10")],
        );
        assert_eq!(refusal(&refused), gone);
        client = Client::new(10);
        assert_eq!(client.sync(&mut emulator, EPOCH, |_| ()).len(), 40);
        assert!(client.sync(&mut emulator, EPOCH, |_| ()).is_empty());
    }
    assert_eq!(body(&list(&mut emulator, &[]))["accessRole"], "reader");
}

#[test]
fn expiry_in_the_middle_of_an_increment_ends_it() {
    let mut emulator = GoogleEmulator::new(settings(1, 40));
    let mut client = Client::new(5);
    client.sync(&mut emulator, EPOCH, |_| ());
    let singles = truth(&emulator, ADA);
    let singles = singles
        .iter()
        .filter(|event| event.recurrence.is_empty() && event.recurring_event_id.is_none());
    for event in singles.take(8) {
        let patch = Patch {
            summary: Some("changed".to_owned()),
            ..Patch::default()
        };
        emulator
            .apply(
                EPOCH,
                ADA,
                &Change::Edit {
                    id: event.id.clone(),
                    patch,
                },
            )
            .unwrap();
    }
    let token = client.sync_token.clone().unwrap();
    let page = body(&list(
        &mut emulator,
        &[("syncToken", &token), ("maxResults", "5")],
    ));
    let next = page["nextPageToken"].as_str().unwrap().to_owned();
    emulator.expire_sync_tokens(ADA).unwrap();
    let query = [
        ("syncToken", token.as_str()),
        ("maxResults", "5"),
        ("pageToken", &next),
    ];
    assert_eq!(list(&mut emulator, &query).status, 410);
}

fn calendar_list(emulator: &mut GoogleEmulator, parameters: &[(&str, &str)]) -> Value {
    let mut request = Request::get("/calendar/v3/users/me/calendarList")
        .with_header("authorization", bearer(emulator, 0));
    for (name, value) in parameters {
        request = request.with_query(name, *value);
    }
    body(&emulator.handle(EPOCH, &request))
}

#[test]
fn calendars_come_and_go() {
    let mut settings = settings(2, 10);
    settings.calendars_per_user = 3;
    let mut emulator = GoogleEmulator::new(settings);
    let known = emulator.calendars(ADA).unwrap();
    let page = calendar_list(&mut emulator, &[("maxResults", "2")]);
    let next = page["nextPageToken"].as_str().unwrap().to_owned();
    let rest = calendar_list(&mut emulator, &[("maxResults", "2"), ("pageToken", &next)]);
    assert_eq!([ids(&page), ids(&rest)].concat(), known);
    assert_eq!(page["items"][0]["primary"], true);
    let token = rest["nextSyncToken"].as_str().unwrap().to_owned();
    assert!(ids(&calendar_list(&mut emulator, &[("syncToken", &token)])).is_empty());

    let holiday = &known[1];
    assert!(holiday.contains('#'));
    let path = format!(
        "/calendar/v3/calendars/{}/events",
        holiday.replace('#', "%23").replace('@', "%40")
    );
    let request = Request::get(&path).with_header("authorization", bearer(&emulator, 0));
    let page = body(&emulator.handle(EPOCH, &request));
    assert_eq!(ids(&page).len(), 10);
    assert_eq!(page["accessRole"], "reader");

    emulator
        .set_access_role(ADA, holiday, AccessRole::FreeBusyReader)
        .unwrap();
    let quiet = calendar_list(&mut emulator, &[("syncToken", &token)]);
    assert!(
        ids(&quiet).is_empty(),
        "a change of access is not a change of the entry"
    );
    let busy = body(&emulator.handle(EPOCH, &request));
    let items = busy["items"].as_array().unwrap();
    assert!(items.iter().all(|event| event.get("summary").is_none()));
    assert!(items.iter().any(|event| event["start"].is_object()));
    emulator.remove_calendar(EPOCH, ADA, holiday).unwrap();
    let refused = emulator.handle(EPOCH, &request);
    assert_eq!(refusal(&refused), (404, "notFound".to_owned()));
    assert!(emulator.calendar_truth(ADA, holiday).is_err());
    let news = calendar_list(&mut emulator, &[("syncToken", &token)]);
    assert_eq!(&ids(&news), std::slice::from_ref(holiday));
    assert_eq!(news["items"][0]["deleted"], true);
    assert_eq!(ids(&calendar_list(&mut emulator, &[])).len(), 2);
    emulator.restore_calendar(EPOCH, ADA, holiday).unwrap();
    assert_eq!(emulator.handle(EPOCH, &request).status, 200);
    let token = news["nextSyncToken"].as_str().unwrap().to_owned();
    let news = calendar_list(&mut emulator, &[("syncToken", &token)]);
    assert_eq!(&ids(&news), std::slice::from_ref(holiday));
    assert!(news["items"][0].get("deleted").is_none());
}

#[test]
fn unknown_calendars_and_paths_are_not_found() {
    let mut emulator = GoogleEmulator::new(settings(2, 10));
    for path in [
        "/calendar/v3/calendars/user-00002%40example.com/events",
        "/calendar/v3/calendars/%ff/events",
        "/calendar/v3/nothing",
        "/",
        "",
    ] {
        let request = Request::get(path).with_header("authorization", bearer(&emulator, 0));
        assert_eq!(emulator.handle(EPOCH, &request).status, 404, "{path}");
    }
    let own = Request::get("/calendar/v3/calendars/user-00001%40example.com/events")
        .with_header("authorization", bearer(&emulator, 0));
    assert_eq!(emulator.handle(EPOCH, &own).status, 200);
    assert_eq!(emulator.counters().statuses[&404], 5);
    assert_eq!(emulator.counters().full_passes, 2);
}
