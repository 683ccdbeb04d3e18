//! The contract of a graph: what every implementation of [`Graph`] does with the same writes.
//!
//! [`run`] takes any graph and works under user names of its own, so the graph may hold other users; only the prefix
//! of those names must be new to it. It panics, with the name of the case, at the first rule that does not hold.

use kalends_core::graph::{
    CalendarRow, EventDeletion, EventRow, GraphCounts, GraphReply, GraphSnapshot, GraphWrite,
    Person, SnapshotEvent,
};
use kalends_core::id::UserId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;

use crate::graph_rows::{
    attended, attendee, calendar, deletion, event, exception, person, series, time,
};

/// Runs the whole contract against `graph`; users are named by `prefix`, which the graph must not know, and the case.
///
/// # Panics
/// If a rule does not hold, or the graph fails.
pub async fn run(graph: &dyn Graph, prefix: &str) {
    let case = |name: &str| Case::new(graph, prefix, name);
    a_smaller_fence_changes_nothing(&case("fence")).await;
    the_same_batch_twice_leaves_the_same_graph(&case("idempotent")).await;
    an_older_version_changes_nothing(&case("version")).await;
    an_older_deletion_removes_nothing(&case("deletion")).await;
    deletions_come_before_upserts(&case("order")).await;
    an_edit_leaves_exactly_the_attendees_of_the_row(&case("attendees")).await;
    an_edit_leaves_exactly_the_organiser_of_the_row(&case("organiser")).await;
    what_a_row_leaves_out_is_removed(&case("properties")).await;
    a_person_is_one_contact_wherever_named(&case("contacts")).await;
    a_contact_gets_a_new_name_and_keeps_it(&case("names")).await;
    contacts_that_nothing_refers_to_are_removed(&case("orphans")).await;
    a_deleted_series_takes_its_exceptions_along(&case("series")).await;
    an_exception_may_come_before_its_series(&case("early")).await;
    a_cancelled_instance_is_kept(&case("cancelled")).await;
    a_cut_series_loses_its_later_exceptions(&case("cut")).await;
    a_sweep_removes_what_the_full_pass_did_not_see(&case("sweep")).await;
    what_a_full_pass_set_aside_is_spared(&case("spared")).await;
    an_event_seen_in_an_older_state_is_not_swept(&case("sweep-older")).await;
    a_large_sweep_is_complete(&case("large-sweep")).await;
    a_removed_calendar_takes_its_events_along(&case("remove")).await;
    users_do_not_see_each_other(graph, prefix).await;
    an_id_may_stand_in_two_calendars(&case("twice")).await;
    text_is_only_text(&case("text")).await;
    five_hundred_attendees_fit(&case("crowd")).await;
    time_is_long(&case("eras")).await;
    counts_say_what_really_changed(&case("counts")).await;
    an_empty_batch_writes_the_calendar(&case("empty")).await;
    a_full_row_comes_back_whole(&case("whole")).await;
}

/// One user's corner of the graph.
struct Case<'a> {
    graph: &'a dyn Graph,
    name: String,
    user: UserId,
}

impl<'a> Case<'a> {
    fn new(graph: &'a dyn Graph, prefix: &str, name: &str) -> Self {
        Case {
            graph,
            name: name.to_owned(),
            user: UserId::new(&format!("{prefix}-{name}@example.com"))
                .expect("tests choose short prefixes"),
        }
    }

    async fn write(&self, write: GraphWrite) -> GraphReply {
        match self.graph.write(write).await {
            Ok(reply) => reply,
            Err(failure) => panic!("{}: the graph failed: {failure:?}", self.name),
        }
    }

    async fn apply_in(
        &self,
        calendar: CalendarRow,
        fence: u64,
        generation: u64,
        upserts: &[EventRow],
        deletions: &[EventDeletion],
    ) -> GraphReply {
        self.write(GraphWrite::Apply {
            user: self.user.clone(),
            fence: LeaseToken(fence),
            calendar,
            generation,
            upserts: upserts.to_vec(),
            deletions: deletions.to_vec(),
        })
        .await
    }

    /// An Apply to the calendar `primary` that is not fenced: (upserted, deleted).
    async fn apply(&self, upserts: &[EventRow], deletions: &[EventDeletion]) -> (u64, u64) {
        let reply = self
            .apply_in(calendar("primary"), 1, 1, upserts, deletions)
            .await;
        self.counts(reply)
    }

    async fn sweep(&self, id: &str, fence: u64, generation: u64) -> GraphReply {
        self.write(GraphWrite::Sweep {
            user: self.user.clone(),
            fence: LeaseToken(fence),
            calendar: calendar(id).id,
            generation,
        })
        .await
    }

    async fn spare(&self, id: &str, fence: u64, generation: u64, events: &[&str]) -> GraphReply {
        self.write(GraphWrite::Spare {
            user: self.user.clone(),
            fence: LeaseToken(fence),
            calendar: calendar(id).id,
            generation,
            events: events.iter().map(|id| (*id).to_owned()).collect(),
        })
        .await
    }

    async fn remove_calendar(&self, id: &str, fence: u64) -> GraphReply {
        self.write(GraphWrite::RemoveCalendar {
            user: self.user.clone(),
            fence: LeaseToken(fence),
            calendar: calendar(id).id,
        })
        .await
    }

    fn counts(&self, reply: GraphReply) -> (u64, u64) {
        match reply {
            GraphReply::Written(GraphCounts { upserted, deleted }) => (upserted, deleted),
            GraphReply::Fenced => panic!("{}: fenced without a reason", self.name),
        }
    }

    async fn snapshot(&self) -> GraphSnapshot {
        match self.graph.snapshot(&self.user).await {
            Ok(snapshot) => snapshot,
            Err(failure) => panic!("{}: no snapshot: {failure:?}", self.name),
        }
    }

    /// The events' ids, in the snapshot's order.
    async fn ids(&self) -> Vec<String> {
        let snapshot = self.snapshot().await;
        snapshot
            .events
            .into_iter()
            .map(|event| event.row.id)
            .collect()
    }

    async fn contacts(&self) -> Vec<String> {
        let snapshot = self.snapshot().await;
        snapshot
            .contacts
            .into_iter()
            .map(|contact| contact.key)
            .collect()
    }

    /// The rows of the calendar `primary` are these, at generation 1.
    async fn expect_rows(&self, rows: &[EventRow]) {
        let mut expected: Vec<SnapshotEvent> = rows
            .iter()
            .map(|row| SnapshotEvent {
                calendar: calendar("primary").id,
                row: EventRow {
                    series_until_ms: None,
                    ..row.clone()
                },
                generation: 1,
            })
            .collect();
        expected.sort_by(|left, right| left.row.id.cmp(&right.row.id));
        assert_eq!(self.snapshot().await.events, expected, "{}", self.name);
    }
}

async fn a_smaller_fence_changes_nothing(case: &Case<'_>) {
    let primary = || calendar("primary");
    let first = attended(event("a", 1), &["ada@example.com"]);
    case.apply_in(primary(), 5, 1, &[first], &[]).await;
    let before = case.snapshot().await;

    let newer = attended(event("a", 9), &["bob@example.com"]);
    let renamed = CalendarRow {
        name: Some("Renamed".to_owned()),
        ..primary()
    };
    let refused = case
        .apply_in(
            renamed,
            4,
            9,
            &[newer, event("b", 1)],
            &[deletion("a", i64::MAX)],
        )
        .await;
    assert_eq!(refused, GraphReply::Fenced);
    assert_eq!(case.sweep("primary", 4, 9).await, GraphReply::Fenced);
    assert_eq!(case.remove_calendar("primary", 4).await, GraphReply::Fenced);
    assert_eq!(case.snapshot().await, before);

    // The same lease goes on; a later one takes over, by whatever write it begins.
    case.counts(case.apply_in(primary(), 5, 1, &[event("c", 1)], &[]).await);
    case.counts(case.sweep("primary", 6, 1).await);
    let late = case.apply_in(primary(), 5, 1, &[event("d", 1)], &[]).await;
    assert_eq!(late, GraphReply::Fenced);
    assert_eq!(case.ids().await, ["a", "c"]);
}

async fn the_same_batch_twice_leaves_the_same_graph(case: &Case<'_>) {
    case.apply(&[event("gone", 1)], &[]).await;
    let batch = [
        attended(event("a", 3), &["ada@example.com", "bob@example.com"]),
        series("s", 3),
        exception("s", 1_000, 3),
    ];
    let deletions = [deletion("gone", 5)];
    assert_eq!(case.apply(&batch, &deletions).await, (3, 1));
    let once = case.snapshot().await;
    assert_eq!(case.apply(&batch, &deletions).await, (0, 0));
    assert_eq!(case.snapshot().await, once);
}

async fn an_event_seen_in_an_older_state_is_not_swept(case: &Case<'_>) {
    let standing = event("a", 5);
    case.counts(
        case.apply_in(
            calendar("primary"),
            1,
            1,
            &[standing.clone(), event("b", 5)],
            &[],
        )
        .await,
    );
    // A full pass reads a page that is older than what stands there; it has seen the event all the same.
    case.counts(
        case.apply_in(calendar("primary"), 1, 2, &[event("a", 4)], &[])
            .await,
    );
    assert_eq!(case.counts(case.sweep("primary", 1, 2).await), (0, 1));
    assert_eq!(case.ids().await, ["a"]);
    assert_eq!(case.snapshot().await.events[0].row, standing);
}

async fn an_older_version_changes_nothing(case: &Case<'_>) {
    let standing = attended(event("a", 5), &["ada@example.com"]);
    case.apply(std::slice::from_ref(&standing), &[]).await;
    let stale = attended(
        EventRow {
            name: Some("Older".to_owned()),
            organizer: None,
            ..event("a", 4)
        },
        &["bob@example.com"],
    );
    assert_eq!(case.apply(&[stale], &[]).await, (0, 0));
    case.expect_rows(std::slice::from_ref(&standing)).await;
    assert_eq!(
        case.contacts().await,
        ["ada@example.com", "olga@example.com"]
    );

    // Not older is enough: the same version with other content is written.
    let same_version = EventRow {
        name: Some("Same version".to_owned()),
        ..standing.clone()
    };
    assert_eq!(
        case.apply(std::slice::from_ref(&same_version), &[]).await,
        (1, 0)
    );
    case.expect_rows(&[same_version]).await;
    let newer = EventRow {
        version: 6,
        ..standing
    };
    assert_eq!(case.apply(std::slice::from_ref(&newer), &[]).await, (1, 0));
    case.expect_rows(&[newer]).await;
}

async fn an_older_deletion_removes_nothing(case: &Case<'_>) {
    case.apply(&[event("a", 5), event("b", 5), event("c", 5)], &[])
        .await;
    assert_eq!(case.apply(&[], &[deletion("a", 4)]).await, (0, 0));
    assert_eq!(case.ids().await, ["a", "b", "c"]);
    let due = [
        deletion("a", 5),
        deletion("b", i64::MAX),
        deletion("unknown", 1),
    ];
    assert_eq!(case.apply(&[], &due).await, (0, 2));
    assert_eq!(case.ids().await, ["c"]);
}

async fn deletions_come_before_upserts(case: &Case<'_>) {
    case.apply(&[attended(event("a", 1), &["ada@example.com"])], &[])
        .await;
    let anew = attended(event("a", 3), &["bob@example.com"]);
    case.apply(std::slice::from_ref(&anew), &[deletion("a", 2)])
        .await;
    case.expect_rows(&[anew]).await;
    assert_eq!(
        case.contacts().await,
        ["bob@example.com", "olga@example.com"]
    );
}

async fn an_edit_leaves_exactly_the_attendees_of_the_row(case: &Case<'_>) {
    let three = ["ada@example.com", "bob@example.com", "cyd@example.com"];
    case.apply(&[attended(event("a", 1), &three)], &[]).await;
    let mut edited = attended(event("a", 2), &["bob@example.com", "dan@example.com"]);
    edited.attendees[0].response_status = "declined".to_owned();
    edited.attendees[0].optional = true;
    edited.attendees[1].resource = true;
    edited.attendees[1].is_self = true;
    case.apply(std::slice::from_ref(&edited), &[]).await;
    case.expect_rows(&[edited]).await;
    let nobody = event("a", 3);
    case.apply(std::slice::from_ref(&nobody), &[]).await;
    case.expect_rows(&[nobody]).await;
    assert_eq!(case.contacts().await, ["olga@example.com"]);
}

async fn an_edit_leaves_exactly_the_organiser_of_the_row(case: &Case<'_>) {
    case.apply(&[event("a", 1)], &[]).await;
    for (version, organizer) in [(2, Some(person("otto@example.com"))), (3, None)] {
        let row = EventRow {
            organizer,
            ..event("a", version)
        };
        case.apply(std::slice::from_ref(&row), &[]).await;
        case.expect_rows(&[row]).await;
    }
    assert!(case.contacts().await.is_empty());
}

async fn what_a_row_leaves_out_is_removed(case: &Case<'_>) {
    let rich = EventRow {
        description: Some("<b>Bring</b> cake".to_owned()),
        location: Some("Room 1".to_owned()),
        visibility: Some("private".to_owned()),
        transparency: Some("transparent".to_owned()),
        recurrence: vec!["RRULE:FREQ=DAILY".to_owned()],
        ..event("a", 1)
    };
    case.apply(&[rich], &[]).await;
    let bare = EventRow {
        name: None,
        created: None,
        updated: None,
        ical_uid: None,
        ..event("a", 2)
    };
    case.apply(std::slice::from_ref(&bare), &[]).await;
    case.expect_rows(&[bare]).await;
}

async fn a_person_is_one_contact_wherever_named(case: &Case<'_>) {
    // Keys arrive lower-cased: whoever wrote `Ada@Example.com` means the same contact.
    let nameless = Person {
        key: "id:114".to_owned(),
        email: None,
        name: Some("No Address".to_owned()),
    };
    let mut first = attended(event("a", 1), &["ada@example.com"]);
    first.organizer = Some(person("ada@example.com"));
    let mut second = attended(event("b", 1), &["ada@example.com"]);
    second.organizer = Some(nameless.clone());
    let rows = [first, second];
    case.apply(&rows, &[]).await;
    case.expect_rows(&rows).await;
    let contacts = case.snapshot().await.contacts;
    assert_eq!(contacts, [person("ada@example.com"), nameless]);
}

async fn a_contact_gets_a_new_name_and_keeps_it(case: &Case<'_>) {
    let named = |id: &str, name: Option<&str>| EventRow {
        organizer: Some(Person {
            name: name.map(str::to_owned),
            ..person("ada@example.com")
        }),
        ..event(id, 1)
    };
    // The contact's, and so that of everybody in every event who is this person.
    let name = |snapshot: GraphSnapshot| {
        let name = snapshot.contacts[0].name.clone();
        for event in &snapshot.events {
            let guests = event.row.attendees.iter().map(|guest| &guest.person);
            for person in guests.chain(&event.row.organizer) {
                assert_eq!(person.name, name, "in event {}", event.row.id);
            }
        }
        name
    };
    case.apply(&[named("a", None)], &[]).await;
    assert_eq!(name(case.snapshot().await), None);
    case.apply(&[named("b", Some("Ada"))], &[]).await;
    assert_eq!(name(case.snapshot().await).as_deref(), Some("Ada"));
    case.apply(&[named("c", None)], &[]).await;
    assert_eq!(name(case.snapshot().await).as_deref(), Some("Ada"));
    case.apply(&[named("d", Some("Ada L."))], &[]).await;
    assert_eq!(name(case.snapshot().await).as_deref(), Some("Ada L."));
    // Two names in one event: the organiser's counts. Two in one batch: the later event's.
    let mut both = attended(named("e", Some("A. Lovelace")), &["ada@example.com"]);
    case.apply(&[both.clone()], &[]).await;
    assert_eq!(name(case.snapshot().await).as_deref(), Some("A. Lovelace"));
    both.id = "f".to_owned();
    case.apply(&[both, named("g", Some("Lady L."))], &[]).await;
    assert_eq!(name(case.snapshot().await).as_deref(), Some("Lady L."));
}

async fn contacts_that_nothing_refers_to_are_removed(case: &Case<'_>) {
    let rows = [
        attended(event("a", 1), &["ada@example.com", "bob@example.com"]),
        attended(event("b", 1), &["bob@example.com", "cyd@example.com"]),
    ];
    case.apply(&rows, &[]).await;
    case.apply(&[], &[deletion("a", 1)]).await;
    let left = ["bob@example.com", "cyd@example.com", "olga@example.com"];
    assert_eq!(case.contacts().await, left);
    case.apply(&[], &[deletion("b", 1)]).await;
    assert!(case.contacts().await.is_empty());
}

async fn a_deleted_series_takes_its_exceptions_along(case: &Case<'_>) {
    let rows = [
        series("s", 5),
        attended(exception("s", 1_000, 3), &["ada@example.com"]),
        exception("s", 2_000, 3),
        series("t", 5),
        exception("t", 1_000, 3),
    ];
    case.apply(&rows, &[]).await;
    assert_eq!(case.apply(&[], &[deletion("s", 4)]).await, (0, 0));
    assert_eq!(case.apply(&[], &[deletion("s", 6)]).await, (0, 3));
    assert_eq!(case.ids().await, ["t", "t_1000"]);
    assert_eq!(case.contacts().await, ["olga@example.com"]);

    // The series itself may never have been seen.
    case.apply(&[exception("u", 1_000, 3)], &[]).await;
    assert_eq!(case.apply(&[], &[deletion("u", 6)]).await, (0, 1));
    // Named beside its series, an exception is still removed once.
    let both = [deletion("t", 6), deletion("t_1000", 6)];
    assert_eq!(case.apply(&[], &both).await, (0, 2));
    assert!(case.ids().await.is_empty());
}

async fn an_exception_may_come_before_its_series(case: &Case<'_>) {
    let early = exception("s", 1_000, 3);
    let late = exception("s", 2_000, 3);
    case.apply(std::slice::from_ref(&early), &[]).await;
    case.apply(&[series("s", 3)], &[]).await;
    case.apply(std::slice::from_ref(&late), &[]).await;
    case.expect_rows(&[early, late, series("s", 3)]).await;
    assert_eq!(case.apply(&[], &[deletion("s", 4)]).await, (0, 3));
}

async fn a_cancelled_instance_is_kept(case: &Case<'_>) {
    let cancelled = EventRow {
        status: "cancelled".to_owned(),
        name: None,
        organizer: None,
        ..exception("s", 1_000, 3)
    };
    let rows = [series("s", 3), cancelled];
    assert_eq!(case.apply(&rows, &[]).await, (2, 0));
    case.expect_rows(&rows).await;
}

async fn a_cut_series_loses_its_later_exceptions(case: &Case<'_>) {
    let cut = |version, until_ms| EventRow {
        series_until_ms: Some(until_ms),
        ..series("s", version)
    };
    let rows = [
        series("s", 5),
        exception("s", 1_000, 3),
        exception("s", 2_000, 3),
        attended(exception("s", 3_000, 3), &["ada@example.com"]),
        exception("t", 9_000, 3),
    ];
    case.apply(&rows, &[]).await;
    assert_eq!(case.apply(&[cut(4, 0)], &[]).await, (0, 0));
    assert_eq!(case.ids().await.len(), 5);
    assert_eq!(case.apply(&[cut(6, 2_000)], &[]).await, (1, 1));
    assert_eq!(case.ids().await, ["s", "s_1000", "s_2000", "t_9000"]);
    assert_eq!(case.contacts().await, ["olga@example.com"]);
}

async fn a_sweep_removes_what_the_full_pass_did_not_see(case: &Case<'_>) {
    let other = || calendar("other");
    let primary = || calendar("primary");
    let rows = [event("a", 1), attended(event("b", 1), &["ada@example.com"])];
    case.apply_in(primary(), 1, 1, &rows, &[]).await;
    case.apply_in(other(), 1, 1, &[event("a", 1)], &[]).await;
    // Seen again unchanged: nothing to count, but the generation is the new one.
    let again = case.apply_in(primary(), 1, 2, &[event("a", 1)], &[]).await;
    assert_eq!(case.counts(again), (0, 0));
    assert_eq!(case.counts(case.sweep("primary", 1, 2).await), (0, 1));
    assert_eq!(case.ids().await, ["a", "a"]);
    assert_eq!(case.contacts().await, ["olga@example.com"]);
    assert_eq!(case.counts(case.sweep("primary", 1, 2).await), (0, 0));
    assert_eq!(case.counts(case.sweep("unknown", 1, 9).await), (0, 0));
    let generations: Vec<u64> = case
        .snapshot()
        .await
        .events
        .iter()
        .map(|event| event.generation)
        .collect();
    assert_eq!(generations, [1, 2], "other, then primary");
}

async fn what_a_full_pass_set_aside_is_spared(case: &Case<'_>) {
    let primary = || calendar("primary");
    let rows = [
        event("a", 7),
        attended(event("b", 7), &["ada@example.com"]),
        event("c", 7),
    ];
    case.apply_in(primary(), 1, 1, &rows, &[]).await;
    case.apply_in(calendar("other"), 1, 1, &[event("b", 7)], &[])
        .await;
    let spared = case.spare("primary", 2, 2, &["b", "unknown"]).await;
    assert_eq!(case.counts(spared), (0, 0));
    assert_eq!(
        case.spare("primary", 1, 9, &["a"]).await,
        GraphReply::Fenced
    );
    assert_eq!(
        case.counts(case.spare("unknown", 2, 2, &["a"]).await),
        (0, 0)
    );
    assert_eq!(case.counts(case.sweep("primary", 2, 2).await), (0, 2));
    assert_eq!(case.ids().await, ["b", "b"]);
    let events = case.snapshot().await.events;
    let seen = events
        .iter()
        .map(|event| (event.generation, event.row.version));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [(1, 7), (2, 7)],
        "other, then primary"
    );
    assert_eq!(
        case.contacts().await,
        ["ada@example.com", "olga@example.com"]
    );
}

async fn a_large_sweep_is_complete(case: &Case<'_>) {
    const EVENTS: u64 = 1_100;
    let rows: Vec<EventRow> = (0..EVENTS)
        .map(|index| event(&format!("e{index}"), 1))
        .collect();
    assert_eq!(case.apply(&rows, &[]).await, (EVENTS, 0));
    assert_eq!(case.ids().await.len() as u64, EVENTS);
    assert_eq!(case.counts(case.sweep("primary", 1, 2).await), (0, EVENTS));
    assert!(case.ids().await.is_empty());
    assert!(case.contacts().await.is_empty());
}

async fn a_removed_calendar_takes_its_events_along(case: &Case<'_>) {
    let rows = [event("a", 1), attended(event("b", 1), &["ada@example.com"])];
    case.apply(&rows, &[]).await;
    case.apply_in(calendar("other"), 1, 1, &[event("a", 1)], &[])
        .await;
    assert_eq!(
        case.counts(case.remove_calendar("primary", 1).await),
        (0, 2)
    );
    let snapshot = case.snapshot().await;
    assert_eq!(snapshot.calendars, [calendar("other")]);
    assert_eq!(snapshot.events.len(), 1);
    assert_eq!(snapshot.contacts, [person("olga@example.com")]);
    assert_eq!(
        case.counts(case.remove_calendar("primary", 1).await),
        (0, 0)
    );
    // It may come back.
    assert_eq!(case.apply(&rows, &[]).await, (2, 0));
}

async fn users_do_not_see_each_other(graph: &dyn Graph, prefix: &str) {
    // One name begins with the other.
    let ada = Case::new(graph, prefix, "us");
    let bob = Case {
        user: UserId::new(&format!("{}.au", ada.user)).expect("a short name"),
        ..Case::new(graph, prefix, "others")
    };
    let rows = [attended(event("a", 1), &["ada@example.com"])];
    ada.apply(&rows, &[]).await;
    bob.apply(&rows, &[]).await;
    let before = bob.snapshot().await;
    assert_eq!(ada.snapshot().await, before);
    let high = ada
        .apply_in(calendar("primary"), 99, 1, &[], &[deletion("a", 9)])
        .await;
    assert_eq!(ada.counts(high), (0, 1));
    assert!(ada.contacts().await.is_empty());
    assert_eq!(bob.snapshot().await, before);
    // Nor does one user's fence stop another.
    assert_eq!(bob.apply(&[event("b", 1)], &[]).await, (1, 0));
}

async fn an_id_may_stand_in_two_calendars(case: &Case<'_>) {
    case.apply(&[series("s", 1), exception("s", 1_000, 1)], &[])
        .await;
    let elsewhere = [series("s", 9), exception("s", 1_000, 9)];
    case.apply_in(calendar("other"), 1, 1, &elsewhere, &[])
        .await;
    assert_eq!(case.snapshot().await.events.len(), 4);
    assert_eq!(case.apply(&[], &[deletion("s", 5)]).await, (0, 2));
    let left: Vec<(String, i64)> = case
        .snapshot()
        .await
        .events
        .into_iter()
        .map(|event| (event.calendar.to_string(), event.row.version))
        .collect();
    assert_eq!(left, [("other".to_owned(), 9), ("other".to_owned(), 9)]);
}

async fn text_is_only_text(case: &Case<'_>) {
    let planes = "\u{7f}\u{a0}é漢\u{fffd}\u{feff}\u{1f600}\u{20000}\u{e0001}\u{f0000}\u{10ffff}";
    let hostile = [
        "'}) DETACH DELETE n //",
        "\"; MATCH (n) DETACH DELETE n; //",
        "`$user` {uid: $fence} \\u0027 \\' %s ? :x @y",
        "Robert'); DROP TABLE node;--",
        "tab\tline\nreturn\r\u{1}\u{1f}",
    ];
    let mut rows: Vec<EventRow> = hostile
        .iter()
        .enumerate()
        .map(|(index, text)| EventRow {
            name: Some((*text).to_owned()),
            description: Some(text.repeat(200)),
            location: Some(format!("{planes}{text}")),
            ..event(&format!("t{index}"), 1)
        })
        .collect();
    let mut odd = event("odd", 1);
    odd.name = Some(String::new());
    odd.attendees = vec![attendee("o'brien|\"x\"@example.com")];
    rows.push(odd);
    case.apply(&rows, &[]).await;
    case.expect_rows(&rows).await;
    let odd_calendar = CalendarRow {
        name: Some(hostile[0].to_owned()),
        ..calendar("c'}) x")
    };
    case.apply_in(odd_calendar.clone(), 1, 1, &[event("a", 1)], &[])
        .await;
    assert!(case.snapshot().await.calendars.contains(&odd_calendar));
}

async fn five_hundred_attendees_fit(case: &Case<'_>) {
    let emails: Vec<String> = (0..500)
        .map(|index| format!("p{index:03}@example.com"))
        .collect();
    let all: Vec<&str> = emails.iter().map(String::as_str).collect();
    let row = EventRow {
        attendees_omitted: true,
        ..attended(event("a", 1), &all)
    };
    case.apply(std::slice::from_ref(&row), &[]).await;
    case.expect_rows(&[row]).await;
    let fewer = attended(event("a", 2), &all[..250]);
    case.apply(std::slice::from_ref(&fewer), &[]).await;
    case.expect_rows(&[fewer]).await;
    assert_eq!(case.contacts().await.len(), 251);
}

async fn time_is_long(case: &Case<'_>) {
    let day = |text: &str, epoch_ms| kalends_core::graph::EventTime {
        zone: None,
        ..time(text, epoch_ms)
    };
    let rows = [
        EventRow {
            start: day("0001-01-01", -62_135_596_800_000),
            end: day("0001-01-02", -62_135_510_400_000),
            all_day: true,
            ..event("first", 1)
        },
        EventRow {
            start: time("9999-12-31T23:00:00Z", 253_402_297_200_000),
            end: time("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            sequence: i64::from(i32::MAX),
            ..event("last", i64::MAX - 1)
        },
    ];
    case.apply(&rows, &[]).await;
    case.expect_rows(&rows).await;
}

async fn counts_say_what_really_changed(case: &Case<'_>) {
    assert_eq!(
        case.apply(&[event("a", 1), event("b", 1)], &[]).await,
        (2, 0)
    );
    let batch = [event("a", 1), event("b", 2), event("c", 1)];
    assert_eq!(case.apply(&batch, &[]).await, (2, 0));
    // A new attendee is a change, even under the same version.
    let joined = attended(event("a", 1), &["ada@example.com"]);
    assert_eq!(case.apply(&[joined], &[]).await, (1, 0));
    let deletions = [deletion("a", 1), deletion("b", 1), deletion("x", 1)];
    assert_eq!(case.apply(&[], &deletions).await, (0, 1));
}

async fn an_empty_batch_writes_the_calendar(case: &Case<'_>) {
    assert_eq!(case.snapshot().await, GraphSnapshot::default());
    assert_eq!(case.apply(&[], &[]).await, (0, 0));
    let expected = GraphSnapshot {
        calendars: vec![calendar("primary")],
        ..GraphSnapshot::default()
    };
    assert_eq!(case.snapshot().await, expected);
    let bare = CalendarRow {
        name: None,
        time_zone: None,
        access_role: None,
        ..calendar("primary")
    };
    case.apply_in(bare.clone(), 1, 1, &[], &[]).await;
    assert_eq!(case.snapshot().await.calendars, [bare]);
}

async fn a_full_row_comes_back_whole(case: &Case<'_>) {
    let full = EventRow {
        status: "tentative".to_owned(),
        description: Some("d".to_owned()),
        location: Some("l".to_owned()),
        sequence: 7,
        event_type: "outOfOffice".to_owned(),
        visibility: Some("private".to_owned()),
        transparency: Some("transparent".to_owned()),
        recurrence: vec!["RRULE:FREQ=DAILY".to_owned(), "EXDATE:20260303".to_owned()],
        attendees_omitted: true,
        ..attended(
            exception("s", 1_000, 3),
            &["bob@example.com", "ada@example.com"],
        )
    };
    let plain = event("a", 1);
    let other = attended(event("z", 1), &["zoe@example.com"]);
    case.apply_in(
        calendar("z-calendar"),
        1,
        3,
        std::slice::from_ref(&other),
        &[],
    )
    .await;
    case.apply(&[full.clone(), plain.clone()], &[]).await;
    let expected = GraphSnapshot {
        calendars: vec![calendar("primary"), calendar("z-calendar")],
        events: vec![
            SnapshotEvent {
                calendar: calendar("primary").id,
                row: plain,
                generation: 1,
            },
            SnapshotEvent {
                calendar: calendar("primary").id,
                row: full,
                generation: 1,
            },
            SnapshotEvent {
                calendar: calendar("z-calendar").id,
                row: other,
                generation: 3,
            },
        ],
        contacts: ["ada", "bob", "olga", "zoe"]
            .map(|name| person(&format!("{name}@example.com")))
            .to_vec(),
    };
    assert_eq!(case.snapshot().await, expected);
}
