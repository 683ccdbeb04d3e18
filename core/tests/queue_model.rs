//! The queue against a naive one: random streams of commands, equal replies and equal visible state after each.
//!
//! The streams are those of a rough fleet (`stream`). After every command the rows that the queue told about are put into
//! a store, and the queue restored from them must be the same queue. A run that does not meet every outcome that the
//! stream can lead to at least once proves too little, and fails.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds nothing where something must be has failed"
)]

mod naive;
mod stream;

use std::collections::BTreeMap;

use kalends_core::id::WorkerId;
use kalends_core::queue::Queue;
use kalends_core::queue::command::*;
use kalends_core::time::Timestamp;
use naive::Model;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stream::{Fleet, Met, STATES, Step, source, streams};

/// The part of proptest's number of cases (256, or `PROPTEST_CASES`) that is run: each case is long.
const CASES_PART: u32 = 2;
const STEPS_MAX: usize = 160;

/// The queue under test, its model, and the store that keeps its rows.
struct Bench<'a> {
    queue: Queue,
    model: Model,
    rows: BTreeMap<(String, String), String>,
    met: &'a Met,
}

impl Bench<'_> {
    fn apply(&mut self, now: Timestamp, command: Command) -> Reply {
        let reply = self.queue.apply(now, command.clone());
        let expected = self.model.apply(now, command.clone());
        assert_eq!(reply, expected, "at {} to {command:?}", now.as_ms());
        let changes = self.queue.take_changes();
        // What counts as a change moves the time of the last one, in a row of its own.
        if changes.iter().any(|change| change.table == "meta") {
            self.model.note_change(now);
        }
        for change in changes {
            let key = (change.table.to_owned(), change.key);
            match change.value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.queue.check_invariants();
        reply
    }

    fn stored(&self) -> Queue {
        let rows = self.rows.iter();
        let rows = rows.map(|((table, key), value)| (table.clone(), key.clone(), value.clone()));
        Queue::restore(rows).unwrap()
    }

    fn compare(&mut self, fleet: &Fleet) {
        let now = fleet.now;
        self.apply(now, Command::Stats);
        self.apply(now, Command::Schedules);
        for state in STATES {
            let listing = Command::Jobs {
                state,
                offset: 0,
                limit: 1_000,
            };
            match self.apply(now, listing) {
                Reply::Jobs { jobs } => self.met.note_listing(fleet, state, &jobs),
                other => panic!("{other:?}"),
            }
        }
        for index in [0, 3] {
            self.apply(
                now,
                Command::Users {
                    source: source(index),
                    after: None,
                    limit: 1_000,
                },
            );
        }
        let stored = self.stored();
        assert!(stored == self.queue, "the rows told are not the rows");
        let next_at = self.queue.next_wake_at(now);
        assert_eq!(stored.next_wake_at(now), next_at);
        self.check_wake(now, next_at);
    }

    /// A claim before the time to wake gives nothing; one at that time gives something, or puts a job aside.
    fn check_wake(&self, now: Timestamp, next_at: Option<Timestamp>) {
        let claim = |at: Timestamp| {
            let command = Command::Claim {
                worker: WorkerId::new("new").unwrap(),
                slots: 100,
                fan_out_slots: 100,
                lease_ms: 10_000,
                held: Vec::new(),
            };
            match self.queue.clone().apply(at, command) {
                Reply::Claimed {
                    leases,
                    recovered,
                    buried,
                    next_at,
                } => (leases.len() as u32 + recovered + buried, next_at),
                other => panic!("{other:?}"),
            }
        };
        if let Some(at) = next_at {
            let (given, then_at) = claim(at);
            assert!(given > 0 || then_at.is_none_or(|then| then > at));
        }
        let before = next_at.map_or(now.plus_ms(1_000_000), |at| at.minus_ms(1));
        if before >= now {
            assert_eq!(claim(before).0, 0, "{next_at:?} is too late");
        }
    }
}

fn run(steps: &[Step], met: &Met) {
    let mut bench = Bench {
        queue: Queue::new(),
        model: Model::default(),
        rows: BTreeMap::new(),
        met,
    };
    let mut fleet = Fleet::new();
    for command in fleet.set_up() {
        bench.apply(fleet.now, command);
    }
    for step in steps {
        let before = fleet.now;
        fleet.pass_time(step.3);
        met.note_time(before, &fleet);
        let command = fleet.command(*step);
        let reply = bench.apply(fleet.now, command.clone());
        met.note(&command, &reply, &fleet);
        fleet.hear(*step, command, reply);
        bench.compare(&fleet);
        if step.2 % 16 == 0 {
            bench.queue = bench.stored();
        }
    }
}

#[test]
fn the_queue_answers_as_the_naive_one_and_survives_every_restart() {
    let config = Config {
        cases: Config::default().cases / CASES_PART,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let met = Met::default();
    let outcome = runner.run(&streams(STEPS_MAX), |steps| {
        run(&steps, &met);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    met.check();
}
