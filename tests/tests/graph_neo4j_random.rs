//! Random writes, with random faults between, leave the graph in Neo4j as they leave the naive model.

use std::collections::BTreeMap;

use kalends_core::graph::{EventRow, GraphReply, GraphSnapshot, GraphWrite, event_uid};
use kalends_core::id::UserId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use kalends_sim::neo4j::Fault;
use kalends_tests::graph_model::GraphModel;
use kalends_tests::graph_rows::{attended, calendar, deletion, event, exception, person, series};
use kalends_tests::neo4j_server::{Neo4jServer, ties};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;

const CALENDARS: [&str; 2] = ["primary", "other"];
const EMAILS: [&str; 3] = ["ada@example.com", "bob@example.com", "cyd@example.com"];
const SERIES: [&str; 2] = ["s", "t"];

/// What varies of an event, so that equal ones come up often.
#[derive(Clone, Debug)]
struct Content {
    version: i64,
    name: u8,
    people: u8,
    organizer: Option<usize>,
    until_ms: Option<i64>,
}

#[derive(Clone, Debug)]
enum Step {
    Apply {
        calendar: usize,
        fence: u64,
        generation: u64,
        upserts: BTreeMap<usize, Content>,
        deletions: BTreeMap<usize, i64>,
    },
    Spare(usize, u64, u64, Vec<usize>),
    Sweep(usize, u64, u64),
    RemoveCalendar(usize, u64),
}

/// The events that there can be: two single ones, two series, three exceptions of each.
const EVENTS: usize = 10;

fn row(number: usize, content: &Content) -> EventRow {
    let mut row = match number {
        0 | 1 => event(&format!("e{number}"), content.version),
        2 | 3 => EventRow {
            series_until_ms: content.until_ms,
            ..series(SERIES[number - 2], content.version)
        },
        _ => {
            let start_ms = 1_000 * (1 + (number as i64 - 4) / 2);
            exception(SERIES[number % 2], start_ms, content.version)
        }
    };
    row.name = Some(format!("name {}", content.name));
    row.organizer = content.organizer.map(|index| person(EMAILS[index]));
    let invited: Vec<&str> = (0..EMAILS.len())
        .filter(|bit| content.people & (1 << bit) != 0)
        .map(|bit| EMAILS[bit])
        .collect();
    attended(row, &invited)
}

fn id(number: usize) -> String {
    let content = Content {
        version: 1,
        name: 0,
        people: 0,
        organizer: None,
        until_ms: None,
    };
    row(number, &content).id
}

fn content() -> impl Strategy<Value = Content> {
    (
        1_i64..5,
        0_u8..2,
        0_u8..8,
        option::of(0..EMAILS.len()),
        option::weighted(0.4, 0_i64..4),
    )
        .prop_map(|(version, name, people, organizer, until)| Content {
            version,
            name,
            people,
            organizer,
            until_ms: until.map(|until| until * 1_000),
        })
}

fn step() -> impl Strategy<Value = Step> {
    let calendar = 0..CALENDARS.len();
    let fence = prop_oneof![8 => Just(2_u64), 1 => Just(1_u64), 1 => Just(3_u64)];
    let apply = (
        calendar.clone(),
        fence.clone(),
        1_u64..4,
        btree_map(0..EVENTS, content(), 0..6),
        btree_map(0..EVENTS, 1_i64..5, 0..3),
    )
        .prop_map(
            |(calendar, fence, generation, upserts, deletions)| Step::Apply {
                calendar,
                fence,
                generation,
                upserts,
                deletions,
            },
        );
    prop_oneof![
        6 => apply,
        1 => (calendar.clone(), fence.clone(), 1_u64..4, subsequence((0..EVENTS).collect::<Vec<usize>>(), 0..4))
            .prop_map(|(calendar, fence, generation, events)| Step::Spare(calendar, fence, generation, events)),
        1 => (calendar.clone(), fence.clone(), 1_u64..4)
            .prop_map(|(calendar, fence, generation)| Step::Sweep(calendar, fence, generation)),
        1 => (calendar, fence).prop_map(|(calendar, fence)| Step::RemoveCalendar(calendar, fence)),
    ]
}

fn write(user: &UserId, step: &Step) -> GraphWrite {
    let user = user.clone();
    match step {
        Step::Apply {
            calendar: number,
            fence,
            generation,
            upserts,
            deletions,
        } => GraphWrite::Apply {
            user,
            fence: LeaseToken(*fence),
            calendar: calendar(CALENDARS[*number]),
            generation: *generation,
            upserts: upserts
                .iter()
                .map(|(number, content)| row(*number, content))
                .collect(),
            deletions: deletions
                .iter()
                .map(|(number, version)| deletion(&id(*number), *version))
                .collect(),
        },
        Step::Spare(number, fence, generation, events) => GraphWrite::Spare {
            user,
            fence: LeaseToken(*fence),
            calendar: calendar(CALENDARS[*number]).id,
            generation: *generation,
            events: events.iter().map(|number| id(*number)).collect(),
        },
        Step::Sweep(number, fence, generation) => GraphWrite::Sweep {
            user,
            fence: LeaseToken(*fence),
            calendar: calendar(CALENDARS[*number]).id,
            generation: *generation,
        },
        Step::RemoveCalendar(number, fence) => GraphWrite::RemoveCalendar {
            user,
            fence: LeaseToken(*fence),
            calendar: calendar(CALENDARS[*number]).id,
        },
    }
}

fn fault(number: usize) -> Fault {
    match number {
        0 => Fault::deadlock(),
        1 => Fault::leader_switch(),
        2 => Fault::CutBody,
        3 => Fault::LostAfter,
        _ => Fault::LostBefore,
    }
}

/// Every exception whose series stands is tied to it, and nothing else is.
fn expected_ties(user: &UserId, snapshot: &GraphSnapshot) -> Vec<(String, String)> {
    let uid = |calendar, id: &str| event_uid(user, calendar, id);
    let stands = |uid_wanted: &str| {
        snapshot
            .events
            .iter()
            .any(|event| uid(&event.calendar, &event.row.id) == uid_wanted)
    };
    let mut ties: Vec<(String, String)> = snapshot
        .events
        .iter()
        .filter_map(|event| {
            let series = uid(&event.calendar, event.row.series_id.as_deref()?);
            stands(&series).then(|| (uid(&event.calendar, &event.row.id), series))
        })
        .collect();
    ties.sort();
    ties
}

#[test]
fn random_writes_leave_what_the_model_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, graph) = runtime.block_on(Neo4jServer::shared());
    let mut users_given = 0;
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let story = vec(
        (step(), option::weighted(0.15, (0_usize..2, 0_usize..5))),
        1..14,
    );
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let users = std::cell::RefCell::new(&mut users_given);
    let verdict = runner.run(&story, |story| {
        let user = {
            let mut given = users.borrow_mut();
            **given += 1;
            UserId::new(&format!("user-{:05}@example.com", **given)).unwrap()
        };
        let mut model = GraphModel::default();
        for (step, trouble) in &story {
            let write = write(&user, step);
            if let Some((later, number)) = trouble {
                let mut emulator = server.emulator();
                emulator.let_pass(*later);
                emulator.inject(fault(*number));
            }
            let reply = runtime.block_on(async {
                // A fault befalls one statement, and a write that fails is sent again: as the queue does.
                for _ in 0..3 {
                    if let Ok(reply) = graph.write(write.clone()).await {
                        return reply;
                    }
                }
                panic!("a write failed without a fault");
            });
            let expected = model.write(&write);
            if trouble.is_none() {
                prop_assert_eq!(reply, expected);
            } else {
                let fenced = |reply| matches!(reply, GraphReply::Fenced);
                prop_assert_eq!(fenced(reply), fenced(expected));
            }
            // A fault that waits for a second statement where there was none must not wait for a snapshot.
            server.emulator().clear_faults();
            let snapshot = runtime.block_on(graph.snapshot(&user)).unwrap();
            prop_assert_eq!(&snapshot, &model.snapshot(&user));
            let emulator = server.emulator();
            let found: Vec<(String, String)> =
                ties(emulator.graph("neo4j").unwrap(), "EXCEPTION_OF")
                    .into_iter()
                    .filter(|(from, _)| from.starts_with(user.as_str()))
                    .collect();
            prop_assert_eq!(found, expected_ties(&user, &snapshot));
        }
        Ok(())
    });
    if let Err(failure) = verdict {
        panic!("{failure}");
    }
}
