//! The graph in the embedded store, held to the contract of all graphs and to the naive model.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::sync::Arc;

use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::graph::{EventRow, GraphReply, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{Clock, Timestamp};
use kalends_tests::graph_contract;
use kalends_tests::graph_model::GraphModel;
use kalends_tests::graph_rows::{attended, calendar, deletion, event, exception, person, series};

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}

#[tokio::test]
async fn the_embedded_graph_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), Arc::new(Still)).unwrap();
    graph_contract::run(&store, "first").await;
    // A used graph, opened again.
    store.close().await;
    let store = EmbeddedStore::open(directory.path(), Arc::new(Still)).unwrap();
    graph_contract::run(&store, "second").await;
}

const EMAILS: [&str; 3] = ["ada@example.com", "bob@example.com", "cyd@example.com"];

/// One of ten events: two single ones, two series and three exceptions of each.
fn row(rng: &mut KalendsRng, number: u64, version: i64) -> EventRow {
    let mut row = match number {
        0 | 1 => event(&format!("e{number}"), version),
        2 | 3 => EventRow {
            series_until_ms: (uniform(rng, 2) == 0).then(|| uniform(rng, 4).cast_signed() * 1_000),
            ..series(["s", "t"][usize::try_from(number).unwrap() - 2], version)
        },
        _ => {
            let start_ms = (number.cast_signed() - 2) / 2 * 1_000;
            exception(
                if number.is_multiple_of(2) { "s" } else { "t" },
                start_ms,
                version,
            )
        }
    };
    row.name = Some(format!("name {}", uniform(rng, 2)));
    let mut draw = |odds| uniform(rng, odds) == 0;
    row.organizer = draw(2).then(|| person(EMAILS[1]));
    let invited: Vec<&str> = EMAILS.into_iter().filter(|_| draw(1)).collect();
    attended(row, &invited)
}

/// A write by a lease that is now and then too old. Versions of upserts only grow (what an older one does is in the
/// contract), those of deletions are any.
fn random_write(rng: &mut KalendsRng, user: &UserId, step: u64) -> GraphWrite {
    let user = user.clone();
    let in_calendar = calendar(["primary", "other"][usize::try_from(uniform(rng, 1)).unwrap()]);
    let fence = LeaseToken(step / 50 + 2 - u64::from(uniform(rng, 9) == 0));
    let generation = step / 8 + 1;
    match uniform(rng, 9) {
        0 => GraphWrite::RemoveCalendar {
            user,
            fence,
            calendar: in_calendar.id,
        },
        2 => GraphWrite::Spare {
            user,
            fence,
            calendar: in_calendar.id,
            generation,
            events: (0..10)
                .step_by(3)
                .map(|number| row(rng, number, 0).id)
                .collect(),
        },
        1 => GraphWrite::Sweep {
            user,
            fence,
            calendar: in_calendar.id,
            generation,
        },
        _ => {
            let (mut upserts, mut deletions) = (Vec::new(), Vec::new());
            for number in 0..10 {
                let version = step.cast_signed();
                match uniform(rng, 5) {
                    0 | 1 => upserts.push(row(rng, number, version)),
                    2 => {
                        let id = row(rng, number, 0).id;
                        deletions.push(deletion(&id, uniform(rng, step + 1).cast_signed()));
                    }
                    _ => {}
                }
            }
            GraphWrite::Apply {
                user,
                fence,
                calendar: in_calendar,
                generation,
                upserts,
                deletions,
            }
        }
    }
}

#[tokio::test]
async fn random_writes_leave_the_graph_as_they_leave_the_naive_model() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), Arc::new(Still)).unwrap();
    let (mut fenced, mut deleted, mut removed) = (0, 0, 0);
    // One for all: a removal of one user is felt by others whose first write is older.
    let mut model = GraphModel::default();
    for seed in 0..4 {
        let user = UserId::new(&format!("user{seed}")).unwrap();
        let mut rng = substream(seed, "graph");
        // Tokens grow from user to user, as a store's do.
        for step in 150 * seed..150 * (seed + 1) {
            let write = random_write(&mut rng, &user, step);
            // Sent twice now and then, as after a lost answer.
            for _ in 0..=u64::from(uniform(&mut rng, 3) == 0) {
                let expected = model.write(&write);
                let reply = store.write(write.clone()).await;
                assert_eq!(reply, Ok(expected), "seed {seed}, step {step}: {write:?}");
                match expected {
                    GraphReply::Fenced => fenced += 1,
                    GraphReply::Written(counts) => deleted += counts.deleted,
                }
            }
            if uniform(&mut rng, 9) == 0 {
                let fence = LeaseToken(step / 50 + 2 - u64::from(uniform(&mut rng, 3) == 0));
                for calendar in model.snapshot(&user).calendars {
                    let removal = GraphWrite::RemoveCalendar {
                        user: user.clone(),
                        fence,
                        calendar: calendar.id,
                    };
                    let expected = model.write(&removal);
                    assert_eq!(
                        store.write(removal).await,
                        Ok(expected),
                        "seed {seed}, step {step}"
                    );
                }
                let expected = model.remove_user(&user, fence.0);
                let reply = store.remove_user(&user, fence).await;
                assert_eq!(reply, Ok(expected), "seed {seed}, step {step}");
                removed += u32::from(expected);
            }
            let read = store.snapshot(&user).await.unwrap();
            assert_eq!(read, model.snapshot(&user), "seed {seed}, step {step}");
        }
    }
    assert!(
        fenced > 10 && deleted > 100 && removed > 5,
        "fenced {fenced}, deleted {deleted}, removed {removed}"
    );
}
