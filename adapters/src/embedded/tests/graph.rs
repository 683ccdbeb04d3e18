//! The rules of the graph, one by one, and what this graph adds to them.

use kalends_core::failure::FailureKind;
use kalends_core::graph::{BATCH_EVENTS_MAX, GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::CalendarId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use rusqlite::Connection;

use super::{apply, attendee, calendar, counts, deletion, event, exception, open, person, user};
use crate::embedded::{EmbeddedStore, FILE_NAME};

async fn ids(store: &EmbeddedStore) -> Vec<String> {
    let snapshot = store.snapshot(&user("ada")).await.unwrap();
    snapshot
        .events
        .into_iter()
        .map(|event| event.row.id)
        .collect()
}

async fn contact_keys(store: &EmbeddedStore) -> Vec<String> {
    let snapshot = store.snapshot(&user("ada")).await.unwrap();
    snapshot
        .contacts
        .into_iter()
        .map(|contact| contact.key)
        .collect()
}

#[tokio::test]
async fn what_is_written_is_read_back_in_full() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut row = event("e1", 7);
    row.description = Some("<b>bold</b> \u{0} \"quoted\" \u{1f600}".to_owned());
    row.location = Some("Room".to_owned());
    row.all_day = true;
    row.created = Some("2026-01-01T00:00:00Z".to_owned());
    row.updated = Some("2026-01-02T00:00:00Z".to_owned());
    row.sequence = 3;
    row.ical_uid = Some("uid@google.com".to_owned());
    row.visibility = Some("private".to_owned());
    row.transparency = Some("transparent".to_owned());
    row.recurrence = vec!["RRULE:FREQ=DAILY".to_owned(), "EXDATE:20260101".to_owned()];
    row.organizer = Some(person("boss@example.com", Some("Boss")));
    row.attendees = vec![
        attendee("id:17", None),
        attendee("optional@example.com", Some("Olga")),
        attendee("self@example.com", None),
    ];
    row.attendees_omitted = true;
    let mut odd = exception("e1", -5, -1);
    odd.start.zone = None;
    let write = apply(1, 4, vec![row.clone(), odd.clone()], vec![]);
    assert_eq!(store.write(write).await, Ok(counts(2, 0)));
    let snapshot = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(snapshot.calendars, [calendar("primary")]);
    let rows: Vec<_> = snapshot.events.iter().map(|event| &event.row).collect();
    assert_eq!(rows, [&row, &odd]);
    assert!(snapshot.events.iter().all(|event| event.generation == 4));
    let people: Vec<_> = snapshot
        .contacts
        .iter()
        .map(|contact| (contact.key.as_str(), contact.name.as_deref()))
        .collect();
    let expected = [
        ("boss@example.com", Some("Boss")),
        ("id:17", None),
        ("optional@example.com", Some("Olga")),
        ("self@example.com", None),
    ];
    assert_eq!(people, expected);
    let nobody = store.snapshot(&user("nobody")).await.unwrap();
    assert_eq!(nobody, GraphSnapshot::default());
}

#[tokio::test]
async fn the_same_again_is_neither_counted_nor_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut row = event("e1", 7);
    row.attendees = vec![attendee("a@example.com", None)];
    let write = apply(1, 4, vec![row.clone()], vec![deletion("gone", 9)]);
    store.write(write.clone()).await.unwrap();
    let before = store.snapshot(&user("ada")).await.unwrap();
    let commits = store.commits();
    assert_eq!(store.write(write).await, Ok(counts(0, 0)));
    assert_eq!(store.commits(), commits);
    assert_eq!(store.snapshot(&user("ada")).await.unwrap(), before);
    // A new generation is stamped, and still nothing counts.
    let next = apply(1, 5, vec![row.clone()], vec![]);
    assert_eq!(store.write(next).await, Ok(counts(0, 0)));
    let stamped = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(stamped.events[0].generation, 5);
    // The same version with other content or other people is a change.
    row.location = Some("elsewhere".to_owned());
    let moved = apply(1, 5, vec![row.clone()], vec![]);
    assert_eq!(store.write(moved).await, Ok(counts(1, 0)));
    row.attendees[0].response_status = "declined".to_owned();
    let declined = apply(1, 5, vec![row.clone()], vec![]);
    assert_eq!(store.write(declined).await, Ok(counts(1, 0)));
    let read = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(read.events[0].row, row);
}

#[tokio::test]
async fn an_older_lease_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let write = apply(5, 1, vec![event("e1", 1)], vec![]);
    assert_eq!(store.write(write).await, Ok(counts(1, 0)));
    let late = apply(4, 2, vec![event("e2", 1)], vec![deletion("e1", 9)]);
    assert_eq!(store.write(late).await, Ok(GraphReply::Fenced));
    for write in [
        GraphWrite::Sweep {
            user: user("ada"),
            fence: LeaseToken(4),
            calendar: calendar("primary").id,
            generation: 9,
        },
        GraphWrite::RemoveCalendar {
            user: user("ada"),
            fence: LeaseToken(4),
            calendar: calendar("primary").id,
        },
    ] {
        assert_eq!(store.write(write).await, Ok(GraphReply::Fenced));
    }
    assert_eq!(ids(&store).await, ["e1"]);
    // Every kind of write moves the fence, even one that finds nothing to do, and for a user not seen before.
    let sweep = GraphWrite::Sweep {
        user: user("bob"),
        fence: LeaseToken(8),
        calendar: calendar("primary").id,
        generation: 1,
    };
    assert_eq!(store.write(sweep.clone()).await, Ok(counts(0, 0)));
    let earlier = GraphWrite::RemoveCalendar {
        user: user("bob"),
        fence: LeaseToken(7),
        calendar: calendar("primary").id,
    };
    assert_eq!(store.write(earlier).await, Ok(GraphReply::Fenced));
    assert_eq!(store.write(sweep).await, Ok(counts(0, 0)));
}

#[tokio::test]
async fn an_older_state_never_replaces_a_newer_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let newer = event("e1", 10);
    let write = apply(1, 1, vec![newer.clone()], vec![]);
    store.write(write).await.unwrap();
    let mut older = event("e1", 9);
    older.name = Some("old".to_owned());
    let write = apply(1, 2, vec![older], vec![deletion("e1", 9)]);
    assert_eq!(store.write(write).await, Ok(counts(0, 0)));
    let read = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(read.events[0].row, newer);
    // The full pass of generation 2 did see it.
    let sweep = GraphWrite::Sweep {
        user: user("ada"),
        fence: LeaseToken(1),
        calendar: calendar("primary").id,
        generation: 2,
    };
    assert_eq!(store.write(sweep).await, Ok(counts(0, 0)));
    let write = apply(1, 2, vec![], vec![deletion("e1", 10)]);
    assert_eq!(store.write(write).await, Ok(counts(0, 1)));
    assert!(ids(&store).await.is_empty());
}

#[tokio::test]
async fn people_are_exactly_those_of_the_row_and_unused_contacts_go() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut first = event("e1", 1);
    first.organizer = Some(person("o@example.com", None));
    first.attendees = vec![
        attendee("a@example.com", Some("A")),
        attendee("b@example.com", None),
    ];
    let mut second = event("e2", 1);
    second.attendees = vec![attendee("a@example.com", None)];
    let write = apply(1, 1, vec![first.clone(), second], vec![]);
    store.write(write).await.unwrap();
    let all = ["a@example.com", "b@example.com", "o@example.com"];
    assert_eq!(contact_keys(&store).await, all);
    let read = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(read.contacts[0].name.as_deref(), Some("A"));

    // B leaves, the organiser becomes an attendee, a new one comes.
    first.version = 2;
    first.organizer = None;
    first.attendees = vec![
        attendee("c@example.com", None),
        attendee("o@example.com", None),
    ];
    let write = apply(1, 1, vec![first.clone()], vec![]);
    assert_eq!(store.write(write).await, Ok(counts(1, 0)));
    let left = ["a@example.com", "c@example.com", "o@example.com"];
    assert_eq!(contact_keys(&store).await, left);
    let read = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(read.events[0].row, first);

    let write = apply(1, 1, vec![], vec![deletion("e1", i64::MAX)]);
    assert_eq!(store.write(write).await, Ok(counts(0, 1)));
    assert_eq!(contact_keys(&store).await, ["a@example.com"]);
}

#[tokio::test]
async fn a_series_takes_its_exceptions_along_and_a_cut_the_later_ones() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let rows = vec![
        event("s", 1),
        exception("s", 100, 1),
        exception("s", 200, 1),
        exception("s", 300, 50),
        exception("other", 300, 1),
    ];
    store.write(apply(1, 1, rows, vec![])).await.unwrap();
    let mut cut = event("s", 2);
    cut.series_until_ms = Some(200);
    let write = apply(1, 1, vec![cut.clone()], vec![]);
    assert_eq!(store.write(write.clone()).await, Ok(counts(1, 1)));
    assert_eq!(store.write(write).await, Ok(counts(0, 0)));
    assert_eq!(ids(&store).await, ["other_300", "s", "s_100", "s_200"]);
    // An older state of the series cuts nothing, and an older deletion deletes nothing.
    let mut old = event("s", 1);
    old.series_until_ms = Some(0);
    let write = apply(1, 1, vec![old], vec![deletion("s", 1)]);
    assert_eq!(store.write(write).await, Ok(counts(0, 0)));
    let write = apply(1, 1, vec![], vec![deletion("s", 2)]);
    assert_eq!(store.write(write).await, Ok(counts(0, 3)));
    // The series of this one never came; it goes all the same.
    let write = apply(1, 1, vec![], vec![deletion("other", 2)]);
    assert_eq!(store.write(write).await, Ok(counts(0, 1)));
    assert!(ids(&store).await.is_empty());
}

#[tokio::test]
async fn a_sweep_removes_what_was_not_seen_and_a_calendar_goes_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut seen = event("seen", 1);
    seen.attendees = vec![attendee("kept@example.com", None)];
    // More than one page of the sweep.
    let mut rows: Vec<_> = (0..1_500)
        .map(|number| {
            let mut row = event(&format!("unseen{number}"), 1);
            row.attendees = vec![attendee("gone@example.com", None)];
            row
        })
        .collect();
    rows.push(seen.clone());
    store.write(apply(1, 1, rows, vec![])).await.unwrap();
    let write = GraphWrite::Apply {
        user: user("ada"),
        fence: LeaseToken(1),
        calendar: calendar("second"),
        generation: 1,
        upserts: vec![event("elsewhere", 1)],
        deletions: vec![deletion("seen", 9)],
    };
    assert_eq!(store.write(write).await, Ok(counts(1, 0)));
    store.write(apply(1, 2, vec![seen], vec![])).await.unwrap();
    let sweep = GraphWrite::Sweep {
        user: user("ada"),
        fence: LeaseToken(1),
        calendar: calendar("primary").id,
        generation: 2,
    };
    let before = store.commits();
    assert_eq!(store.write(sweep.clone()).await, Ok(counts(0, 1_500)));
    assert_eq!(store.commits() - before, 2, "one transaction a step");
    assert_eq!(store.write(sweep).await, Ok(counts(0, 0)));
    assert_eq!(ids(&store).await, ["seen", "elsewhere"]);
    assert_eq!(contact_keys(&store).await, ["kept@example.com"]);
    let remove = GraphWrite::RemoveCalendar {
        user: user("ada"),
        fence: LeaseToken(1),
        calendar: calendar("primary").id,
    };
    assert_eq!(store.write(remove.clone()).await, Ok(counts(0, 1)));
    assert_eq!(store.write(remove).await, Ok(counts(0, 0)));
    let read = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(read.calendars, [calendar("second")]);
    assert_eq!(read.events.len(), 1);
    assert!(read.contacts.is_empty());
}

#[tokio::test]
async fn users_and_labels_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    // The calendar's id is an attendee's address: both have the key `ada|ada@example.com`.
    let mut row = event("e1", 1);
    row.attendees = vec![attendee("ada@example.com", None)];
    let write = |name: &str| GraphWrite::Apply {
        user: user(name),
        fence: LeaseToken(1),
        calendar: calendar("ada@example.com"),
        generation: 1,
        upserts: vec![row.clone()],
        deletions: vec![],
    };
    assert_eq!(store.write(write("ada")).await, Ok(counts(1, 0)));
    assert_eq!(store.write(write("bob")).await, Ok(counts(1, 0)));
    let remove = GraphWrite::RemoveCalendar {
        user: user("bob"),
        fence: LeaseToken(1),
        calendar: CalendarId::new("ada@example.com").unwrap(),
    };
    assert_eq!(store.write(remove).await, Ok(counts(0, 1)));
    let read = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(read.events[0].row, row);
    assert_eq!(read.contacts.len(), 1);
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_nothing_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let rows = (0..=BATCH_EVENTS_MAX)
        .map(|number| event(&format!("e{number}"), 1))
        .collect();
    let refused = store.write(apply(1, 1, rows, vec![])).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::TooLarge);
    let refused = store.write(apply(u64::MAX, 1, vec![], vec![])).await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::Rejected);

    // "ada" with the calendar "b|c" and "ada|b" with "c" would have one key for two events.
    let collide = |name: &str, id: &str, fence| GraphWrite::Apply {
        user: user(name),
        fence: LeaseToken(fence),
        calendar: calendar(id),
        generation: 1,
        upserts: vec![event("x", 1)],
        deletions: vec![],
    };
    store.write(collide("ada", "b|c", 1)).await.unwrap();
    let (refused, good) = tokio::join!(
        store.write(collide("ada|b", "c", 9)),
        store.write(apply(1, 1, vec![event("good", 1)], vec![]))
    );
    assert_eq!(refused.unwrap_err().kind, FailureKind::Rejected);
    assert_eq!(good, Ok(counts(1, 0)));
    let other = store.snapshot(&user("ada|b")).await.unwrap();
    assert_eq!(other, GraphSnapshot::default());
    assert_eq!(ids(&store).await, ["x", "good"]);
}

#[tokio::test]
async fn the_view_shows_every_relationship() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut row = event("s", 1);
    row.organizer = Some(person("o@example.com", None));
    row.attendees = vec![attendee("a@example.com", None)];
    let write = apply(1, 1, vec![exception("s", 5, 1), row], vec![]);
    store.write(write).await.unwrap();
    store.close().await;
    let connection = Connection::open(directory.path().join(FILE_NAME)).unwrap();
    let mut statement = connection
        .prepare(
            "SELECT s.uid || ' ' || type || ' ' || d.uid FROM relationship
             JOIN node AS s ON s.id = src JOIN node AS d ON d.id = dst ORDER BY 1",
        )
        .unwrap();
    let lines: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected = [
        "ada HAS_CALENDAR ada|primary",
        "ada|primary HAS_EVENT ada|primary|s",
        "ada|primary HAS_EVENT ada|primary|s_5",
        "ada|primary|s ATTENDED_BY ada|a@example.com",
        "ada|primary|s ORGANIZED_BY ada|o@example.com",
        "ada|primary|s_5 EXCEPTION_OF ada|primary|s",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_large_calendar_goes_in_steps_and_keeps_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(directory.path()));
    for batch in 0..4 {
        let rows = (0..BATCH_EVENTS_MAX)
            .map(|number| event(&format!("e{batch}-{number}"), 1))
            .collect();
        store.write(apply(1, 1, rows, vec![])).await.unwrap();
    }
    let remove = GraphWrite::RemoveCalendar {
        user: user("ada"),
        fence: LeaseToken(1),
        calendar: calendar("primary").id,
    };
    let before = store.commits();
    let removal = tokio::spawn({
        let (store, remove) = (std::sync::Arc::clone(&store), remove.clone());
        async move { store.write(remove).await }
    });
    while store.commits() == before {
        tokio::task::yield_now().await;
    }
    // Another user's write comes in between two steps, and a later lease of the same user ends the removal.
    let mut other = apply(1, 1, vec![event("theirs", 1)], vec![]);
    if let GraphWrite::Apply { user: whose, .. } = &mut other {
        *whose = user("bob");
    }
    assert_eq!(store.write(other).await, Ok(counts(1, 0)));
    assert!(!removal.is_finished(), "the other one waited for all of it");
    let later = apply(2, 2, vec![event("later", 1)], vec![]);
    assert_eq!(store.write(later).await, Ok(counts(1, 0)));
    assert_eq!(removal.await.unwrap(), Ok(GraphReply::Fenced));
    let left = ids(&store).await.len();
    assert!(1 < left && left < 4 * BATCH_EVENTS_MAX, "{left} events");
    let remove = GraphWrite::RemoveCalendar {
        user: user("ada"),
        fence: LeaseToken(2),
        calendar: calendar("primary").id,
    };
    let removed = u64::try_from(left).unwrap();
    assert_eq!(store.write(remove).await, Ok(counts(0, removed)));
    assert!(ids(&store).await.is_empty());
}
