//! The queue in Redis against the Queue value: the same random streams of commands to both, at the same times, equal
//! replies and equal visible state after each. Ends of attempts that follow one another, and a claim after them, go in one
//! script, and so do enqueues, as they do when a process sends them at the same moment.
//!
//! The streams are those by which core's own test drives the Queue value against a naive one, so the three agree. A real
//! server runs the scripts; the test passes the time. A stream that fails shrinks. A run that does not meet every outcome
//! that the streams can lead to at least once proves too little, and fails; the table is printed (`--nocapture`).

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds nothing where something must be has failed"
)]

#[path = "../../core/tests/stream/mod.rs"]
mod stream;

use std::cell::Cell;

use kalends_adapters::redis::{RedisSettings, RedisStore};
use kalends_adapters::secret::Secret;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::time::Timestamp;
use kalends_tests::redis_server::{RedisOptions, RedisServer};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stream::{Fleet, Met, STATES, Step, source, streams};

/// Proptest's number of cases (256, or `PROPTEST_CASES`) times this is run, over all threads.
const CASES_FACTOR: u32 = 8;
const STEPS_MAX: usize = 160;
/// Streams that run side by side, each with a server of its own.
const THREADS: u32 = 2;

struct Bench<'a> {
    queue: Queue,
    store: RedisStore,
    runtime: &'a tokio::runtime::Runtime,
    met: &'a Met,
}

impl Bench<'_> {
    fn apply(&mut self, now: Timestamp, command: Command) -> Reply {
        let expected = self.queue.apply(now, command.clone());
        let applied = self.store.apply_at(Some(now), command.clone());
        let stamped = self.runtime.block_on(applied);
        let stamped = stamped.unwrap_or_else(|error| panic!("{error}, to {command:?}"));
        assert_eq!(stamped.value, expected, "at {} to {command:?}", now.as_ms());
        assert_eq!(stamped.now, now);
        expected
    }

    /// Ends of attempts and the claim after them, which go in one script.
    fn turn(&mut self, now: Timestamp, commands: &[Command]) -> Vec<Reply> {
        let expected: Vec<Reply> = commands
            .iter()
            .map(|command| self.queue.apply(now, command.clone()))
            .collect();
        let (claims, ends): (Vec<_>, Vec<_>) = commands.iter().cloned().partition(is_claim);
        let turned = self
            .store
            .apply_turn_at(Some(now), ends, claims.into_iter().next());
        let (replies, claimed) = self.runtime.block_on(turned).unwrap();
        let told: Vec<Reply> = replies
            .into_iter()
            .chain(claimed)
            .map(|stamped| stamped.value)
            .collect();
        assert_eq!(told, expected, "at {} to {commands:?}", now.as_ms());
        expected
    }

    /// Enqueues in one source, which go in one script.
    fn enqueues(&mut self, now: Timestamp, commands: &[Command]) -> Vec<Reply> {
        let expected: Vec<Reply> = commands
            .iter()
            .map(|command| self.queue.apply(now, command.clone()))
            .collect();
        let applied = self.store.apply_enqueues_at(Some(now), commands.to_vec());
        let told: Vec<Reply> = self
            .runtime
            .block_on(applied)
            .unwrap()
            .into_iter()
            .map(|stamped| stamped.value)
            .collect();
        assert_eq!(told, expected, "at {} to {commands:?}", now.as_ms());
        expected
    }

    fn compare(&mut self, fleet: &Fleet) {
        let now = fleet.now;
        let mut looks = vec![Command::Stats, Command::Schedules];
        looks.extend(STATES.map(|state| Command::Jobs {
            state,
            offset: 0,
            limit: 1_000,
        }));
        looks.extend([0, 3].map(|index| Command::Users {
            source: source(index),
            after: None,
            limit: 1_000,
        }));
        let expected: Vec<Reply> = looks
            .iter()
            .map(|look| self.queue.apply(now, look.clone()))
            .collect();
        // All at once: they change nothing, and one round trip is quicker than nine.
        let asked = looks
            .iter()
            .map(|look| self.store.apply_at(Some(now), look.clone()));
        let told = self.runtime.block_on(async {
            let mut told = Vec::new();
            for one in join_all(asked).await {
                told.push(one.unwrap().value);
            }
            told
        });
        for ((look, expected), told) in looks.iter().zip(expected).zip(told) {
            assert_eq!(told, expected, "at {} to {look:?}", now.as_ms());
            if let (Command::Jobs { state, .. }, Reply::Jobs { jobs }) = (look, &expected) {
                self.met.note_listing(fleet, *state, jobs);
            }
        }
    }
}

/// Claims that went in one script with ends. Ends are written with the claim, or before it if a job waits again. And
/// enqueues of several that went in one script, by whether all had the same outcome.
#[derive(Default)]
struct Turns {
    written_with_claim: Cell<u32>,
    written_before: Cell<u32>,
    enqueued_alike: Cell<u32>,
    enqueued_otherwise: Cell<u32>,
}

impl Turns {
    fn note(&self, commands: &[Command], replies: &[Reply]) {
        let [ends @ .., Command::Claim { .. }] = commands else {
            return;
        };
        let waits_again = ends.iter().zip(replies).any(|(end, reply)| {
            matches!(end, Command::Retry { .. } | Command::Release { .. }) && *reply == Reply::Done
        });
        let count = match waits_again {
            true => &self.written_before,
            false => &self.written_with_claim,
        };
        count.set(count.get() + 1);
    }

    fn note_enqueues(&self, replies: &[Reply]) {
        let count = match replies.iter().all(|reply| *reply == replies[0]) {
            true => &self.enqueued_alike,
            false => &self.enqueued_otherwise,
        };
        count.set(count.get() + 1);
    }

    fn check(&self) {
        assert!(
            self.enqueued_alike.get() > 0 && self.enqueued_otherwise.get() > 0,
            "enqueues that went together did not differ, or always did: the streams prove too little"
        );
        assert!(
            self.written_with_claim.get() > 0 && self.written_before.get() > 0,
            "not both kinds of turns were met: the streams prove too little"
        );
    }
}

fn is_claim(command: &Command) -> bool {
    matches!(command, Command::Claim { .. })
}

fn is_end(command: &Command) -> bool {
    matches!(
        command,
        Command::Complete { .. }
            | Command::Retry { .. }
            | Command::Fail { .. }
            | Command::Release { .. }
    )
}

/// The steps from the first one on that make a turn: ends of attempts, none of them refused for what it says itself,
/// and at the most one claim at their end.
fn turn_of(fleet: &Fleet, steps: &[Step]) -> Vec<(Step, Command)> {
    let mut turn = Vec::new();
    for step in steps {
        let command = fleet.command(*step);
        let fits = command.check().is_ok() && (is_end(&command) || is_claim(&command));
        let last = is_claim(&command);
        if fits {
            turn.push((*step, command));
        }
        if last || !fits {
            break;
        }
    }
    turn
}

/// The steps from the first one on that enqueue in one source, without a checkpoint.
fn enqueues_of(fleet: &Fleet, steps: &[Step]) -> Vec<(Step, Command)> {
    let mut enqueues: Vec<(Step, Command)> = Vec::new();
    for step in steps {
        let command = fleet.command(*step);
        let Command::Enqueue {
            source,
            checkpoint: None,
            ..
        } = &command
        else {
            break;
        };
        let is_of_another = enqueues.first().is_some_and(
            |(_, first)| !matches!(first, Command::Enqueue { source: of, .. } if of == source),
        );
        if is_of_another || command.check().is_err() {
            break;
        }
        enqueues.push((*step, command));
    }
    enqueues
}

/// Awaits all of them together, in order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        match all {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    let outputs = pending.into_iter();
    outputs.map(|(_, output)| output.unwrap()).collect()
}

fn run(
    server: &RedisServer,
    runtime: &tokio::runtime::Runtime,
    stream: u32,
    steps: &[Step],
    met: &Met,
    turns: &Turns,
) {
    let store = RedisStore::new(RedisSettings {
        url: Secret::new(server.url()),
        prefix: format!("stream-{stream}"),
        connect_timeout_ms: 5_000,
        response_timeout_ms: 30_000,
        ca_file: None,
    });
    let mut bench = Bench {
        queue: Queue::new(),
        store: store.unwrap(),
        runtime,
        met,
    };
    let mut fleet = Fleet::new();
    for command in fleet.set_up() {
        bench.apply(fleet.now, command);
    }
    let mut rest = steps;
    while let [step, later @ ..] = rest {
        let before = fleet.now;
        fleet.pass_time(step.3);
        met.note_time(before, &fleet);
        let (turn, enqueues) = (turn_of(&fleet, rest), enqueues_of(&fleet, rest));
        let are_enqueues = enqueues.len() > 1;
        let turn = if are_enqueues { enqueues } else { turn };
        if turn.len() > 1 {
            rest = &rest[turn.len()..];
            let commands: Vec<Command> = turn.iter().map(|(_, command)| command.clone()).collect();
            let replies = if are_enqueues {
                let replies = bench.enqueues(fleet.now, &commands);
                turns.note_enqueues(&replies);
                replies
            } else {
                let replies = bench.turn(fleet.now, &commands);
                turns.note(&commands, &replies);
                replies
            };
            for ((step, command), reply) in turn.into_iter().zip(replies) {
                met.note(&command, &reply, &fleet);
                fleet.hear(step, command, reply);
            }
        } else {
            rest = later;
            let command = fleet.command(*step);
            let reply = bench.apply(fleet.now, command.clone());
            met.note(&command, &reply, &fleet);
            fleet.hear(*step, command, reply);
        }
        bench.compare(&fleet);
    }
    server.cli(&["FLUSHALL"]);
}

fn run_part(part: u32, cases: u32) -> Met {
    let server = RedisServer::start(&RedisOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[0] = u8::try_from(part).unwrap();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let met = Met::default();
    let (number, turns) = (Cell::new(0), Turns::default());
    let outcome = runner.run(&streams(STEPS_MAX), |steps| {
        number.set(number.get() + 1);
        run(&server, &runtime, number.get(), &steps, &met, &turns);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    turns.check();
    met
}

#[test]
fn the_queue_in_redis_answers_as_the_queue_value() {
    let cases = Config::default().cases * CASES_FACTOR / THREADS;
    let met = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..THREADS)
            .map(|part| scope.spawn(move || run_part(part, cases)))
            .collect();
        let met = Met::default();
        for part in parts {
            match part.join() {
                Ok(other) => met.add(other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        met
    });
    met.print();
    met.check();
}
