//! What an increment says of each kind of change, as recorded from Google.

use kalends_core::time::{DAY_MS, MINUTE_MS};
use kalends_sim::google::{
    Change, ChangeError, DraftStart, EventDraft, GoogleEmulator, Patch, Repeat,
};
use serde_json::{Value, json};

use crate::client::{ADA, Client, EPOCH, settings, truth};

/// A calendar with one weekly series of Mondays, 09:00 in New York, and nothing else; the client knows it.
fn weekly() -> (GoogleEmulator, Client, String) {
    let mut emulator = GoogleEmulator::new(settings(1, 0));
    let draft = EventDraft {
        summary: Some("Weekly".to_owned()),
        start: DraftStart::At {
            at: EPOCH.plus_ms(5 * 60 * MINUTE_MS),
            zone: "America/New_York".to_owned(),
        },
        length_minutes: 30,
        repeat: Some(Repeat::Weeks(1)),
        guests: 0,
    };
    let mut ids = emulator.apply(EPOCH, ADA, &Change::Create(draft)).unwrap();
    let mut client = Client::new(100);
    client.sync(&mut emulator, EPOCH, |_| ());
    (emulator, client, ids.remove(0))
}

fn apply(emulator: &mut GoogleEmulator, client: &mut Client, change: &Change) -> Vec<Value> {
    let mentioned = emulator.apply(EPOCH, ADA, change).unwrap();
    let news = client.sync(emulator, EPOCH, |_| ());
    assert_eq!(news.len(), mentioned.len());
    assert_eq!(client.truth(), truth(emulator, ADA));
    let etags: std::collections::BTreeSet<&str> = news
        .iter()
        .map(|item| item["etag"].as_str().unwrap())
        .collect();
    assert_eq!(etags.len(), 1, "one change, one etag");
    news
}

fn renamed(summary: &str) -> Patch {
    Patch {
        summary: Some(summary.to_owned()),
        ..Patch::default()
    }
}

fn skip(series: &str, occurrence: u32) -> Change {
    Change::CancelInstance {
        series: series.to_owned(),
        occurrence,
    }
}

#[test]
fn an_edited_instance_brings_the_master_and_every_exception() {
    let (mut emulator, mut client, series) = weekly();
    let change = Change::MoveInstance {
        series: series.clone(),
        occurrence: 1,
        by_minutes: 60,
    };
    let news = apply(&mut emulator, &mut client, &change);
    assert_eq!(news[0]["id"], series.as_str());
    // Summer time began on 8 March: 09:00 in New York is 13:00 UTC.
    assert_eq!(news[1]["id"], format!("{series}_20260309T130000Z"));
    assert_eq!(news[1]["recurringEventId"], series.as_str());
    assert_eq!(news[1]["iCalUID"], format!("{series}@google.com"));
    let start = |item: &Value, name: &str| item[name]["dateTime"].as_str().unwrap().to_owned();
    let before = chrono_ms(&start(&news[1], "originalStartTime"));
    assert_eq!(chrono_ms(&start(&news[1], "start")), before + 3_600_000);
    assert_eq!(news[1]["originalStartTime"]["timeZone"], "America/New_York");
    assert_eq!(news[1]["sequence"], 1);

    let change = Change::EditInstance {
        series: series.clone(),
        occurrence: 3,
        patch: renamed("Special"),
    };
    let news = apply(&mut emulator, &mut client, &change);
    assert_eq!(news.len(), 3, "master, old exception, new exception");
}

fn chrono_ms(text: &str) -> i64 {
    kalends_core::time::Timestamp::parse_rfc3339(text)
        .unwrap()
        .as_ms()
}

#[test]
fn a_deleted_instance_is_a_stub_tied_to_its_series() {
    let (mut emulator, mut client, series) = weekly();
    let news = apply(&mut emulator, &mut client, &skip(&series, 1));
    assert_eq!(news.len(), 2);
    let mut names: Vec<&str> = news[1]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    let expected = [
        "etag",
        "id",
        "kind",
        "originalStartTime",
        "recurringEventId",
        "status",
    ];
    assert_eq!(names, expected);
    assert_eq!(news[1]["status"], "cancelled");
    assert_eq!(
        emulator.apply(EPOCH, ADA, &skip(&series, 1)),
        Err(ChangeError::NoSuchOccurrence)
    );
    // The stub is kept and comes again with every change of the series.
    let edit = Change::EditSeries {
        series: series.clone(),
        patch: renamed("Other"),
    };
    let news = apply(&mut emulator, &mut client, &edit);
    assert_eq!(news.len(), 2);
    // In a full pass it comes, too, although deleted events do not.
    let mut fresh = Client::new(1);
    assert_eq!(fresh.sync(&mut emulator, EPOCH, |_| ()).len(), 2);
}

#[test]
fn a_deleted_series_is_one_stub() {
    let (mut emulator, mut client, series) = weekly();
    apply(&mut emulator, &mut client, &skip(&series, 1));
    let change = Change::MoveInstance {
        series: series.clone(),
        occurrence: 2,
        by_minutes: 30,
    };
    apply(&mut emulator, &mut client, &change);
    let delete = Change::DeleteSeries {
        series: series.clone(),
    };
    let news = apply(&mut emulator, &mut client, &delete);
    let etag = news[0]["etag"].clone();
    let stub = json!({"kind": "calendar#event", "etag": etag, "id": series, "status": "cancelled"});
    assert_eq!(news, [stub]);
    assert!(client.events.is_empty());
    assert_eq!(
        emulator.apply(EPOCH, ADA, &delete),
        Err(ChangeError::NoSuchEvent)
    );
}

#[test]
fn this_and_following_cuts_the_series_and_begins_a_new_one() {
    let (mut emulator, mut client, series) = weekly();
    apply(&mut emulator, &mut client, &skip(&series, 1));
    apply(&mut emulator, &mut client, &skip(&series, 5));
    let split = Change::SplitSeries {
        series: series.clone(),
        occurrence: 4,
        patch: renamed("New"),
    };
    let news = apply(&mut emulator, &mut client, &split);
    let find = |id: &str| news.iter().find(|item| item["id"] == id).unwrap();
    let old = find(&series);
    // The cut is on 30 March; the rule ends a second before that day begins in New York.
    assert_eq!(
        old["recurrence"],
        json!(["RRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20260330T035959Z"])
    );
    assert_eq!(old["summary"], "Weekly");
    let next = format!("{series}_R20260330T130000");
    assert_eq!(
        find(&next)["recurrence"],
        json!(["RRULE:FREQ=WEEKLY;BYDAY=MO"])
    );
    assert_eq!(find(&next)["iCalUID"], format!("{next}@google.com"));
    assert_eq!(find(&next)["summary"], "New");
    assert!(find(&next).get("recurringEventId").is_none());
    // Before the cut a stub of the series, behind it a bare deleted id.
    let kept = find(&format!("{series}_20260309T130000Z"));
    assert_eq!(kept["recurringEventId"], series.as_str());
    let swallowed = find(&format!("{series}_20260406T130000Z"));
    assert_eq!(swallowed["status"], "cancelled");
    assert!(swallowed.get("recurringEventId").is_none());
    assert_eq!(news.len(), 4);

    // An edit of all touches both halves and their exceptions.
    let edit = Change::EditSeries {
        series: next.clone(),
        patch: renamed("All"),
    };
    let news = apply(&mut emulator, &mut client, &edit);
    assert_eq!(news.len(), 3);
    assert_eq!(client.events[&series]["summary"], "All");
    // And the new half can be split again; its id still begins with the first one's.
    let again = Change::SplitSeries {
        series: next,
        occurrence: 2,
        patch: Patch::default(),
    };
    let news = apply(&mut emulator, &mut client, &again);
    assert_eq!(news[1]["id"], format!("{series}_R20260413T130000"));
}

#[test]
fn deleting_this_and_following_only_cuts() {
    let (mut emulator, mut client, series) = weekly();
    apply(&mut emulator, &mut client, &skip(&series, 3));
    let cut = Change::TruncateSeries {
        series: series.clone(),
        occurrence: 2,
    };
    let news = apply(&mut emulator, &mut client, &cut);
    assert_eq!(news.len(), 2);
    assert_eq!(news[1]["status"], "cancelled");
    assert!(news[1].get("recurringEventId").is_none());
    assert_eq!(client.events.len(), 1);
    assert_eq!(
        emulator.apply(EPOCH, ADA, &skip(&series, 2)),
        Err(ChangeError::NoSuchOccurrence)
    );
}

#[test]
fn single_events_are_made_edited_moved_and_deleted() {
    let mut emulator = GoogleEmulator::new(settings(1, 20));
    let mut client = Client::new(100);
    client.sync(&mut emulator, EPOCH, |_| ());
    let draft = EventDraft {
        summary: None,
        start: DraftStart::Day(20_514),
        length_minutes: 0,
        repeat: None,
        guests: 4,
    };
    let news = apply(&mut emulator, &mut client, &Change::Create(draft.clone()));
    let id = news[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 26);
    assert!(
        id.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte))
    );
    assert_eq!(news[0]["start"], json!({"date": "2026-03-02"}));
    assert_eq!(news[0]["end"], json!({"date": "2026-03-03"}));
    assert!(news[0].get("summary").is_none());
    let patch = Patch {
        guests: Some(0),
        ..renamed("Titled")
    };
    let edit = Change::Edit {
        id: id.clone(),
        patch,
    };
    let edited = apply(&mut emulator, &mut client, &edit);
    assert_eq!(edited[0]["summary"], "Titled");
    assert!(news[0]["attendees"].is_array() && edited[0].get("attendees").is_none());
    let moved = Change::Move {
        id: id.clone(),
        by_minutes: 3 * 1_440,
    };
    let moved = apply(&mut emulator, &mut client, &moved);
    assert_eq!(moved[0]["start"]["date"], "2026-03-05");
    assert_eq!(moved[0]["sequence"], 1);
    let cancel = Change::Cancel { id };
    assert_eq!(
        apply(&mut emulator, &mut client, &cancel)[0]["status"],
        "cancelled"
    );
    assert_eq!(
        emulator.apply(EPOCH, ADA, &cancel),
        Err(ChangeError::NoSuchEvent)
    );
    assert_eq!(client.events.len(), 20);
    let bad = Change::Create(EventDraft {
        guests: 200,
        ..draft
    });
    assert_eq!(emulator.apply(EPOCH, ADA, &bad), Err(ChangeError::Draft));
    for start in [
        DraftStart::Day(i32::MAX),
        DraftStart::At {
            at: kalends_core::time::Timestamp::MAX,
            zone: "UTC".to_owned(),
        },
        DraftStart::At {
            at: EPOCH,
            zone: "Mars/Olympus".to_owned(),
        },
    ] {
        let bad = Change::Create(EventDraft {
            start,
            length_minutes: 1,
            summary: None,
            repeat: Some(Repeat::Weeks(u16::MAX)),
            guests: 0,
        });
        assert_eq!(emulator.apply(EPOCH, ADA, &bad), Err(ChangeError::Draft));
    }
    let token = client.sync_token.clone();
    assert!(client.sync(&mut emulator, EPOCH, |_| ()).is_empty());
    assert_eq!(client.sync_token, token, "a refused change leaves no trace");
}

#[test]
fn changes_in_one_millisecond_share_updated_but_not_the_etag() {
    let mut emulator = GoogleEmulator::new(settings(1, 20));
    let mut client = Client::new(100);
    client.sync(&mut emulator, EPOCH, |_| ());
    let now = EPOCH.plus_ms(DAY_MS);
    let id = truth(&emulator, ADA)[0].id.clone();
    let mut seen = Vec::new();
    for number in 0..3 {
        let patch = renamed(&number.to_string());
        let edit = Change::Edit {
            id: id.clone(),
            patch,
        };
        emulator.apply(now, ADA, &edit).unwrap();
        let news = client.sync(&mut emulator, now, |_| ());
        let stamp_us: i64 = (now.as_ms()) * 1_000 + number;
        assert_eq!(news[0]["etag"], format!("\"{}\"", stamp_us * 2));
        seen.push(news[0]["updated"].clone());
    }
    assert!(
        seen.iter()
            .all(|updated| updated == now.to_rfc3339().as_str())
    );
}
