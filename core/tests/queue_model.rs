//! The queue against a naive one: random streams of commands, equal replies and equal visible state after each.
//!
//! The stream is what a rough fleet sends: three workers that lose replies, send again, come back with dead leases and
//! restart; a clock that jumps, stands still and steps back; operators who pause, limit and remove. After every command
//! the rows that the queue told about are put into a store, and the queue restored from them must be the same queue.
//! A run that does not meet every outcome in `OUTCOMES` at least once proves too little, and fails.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds nothing where something must be has failed"
)]

mod naive;

use std::cell::RefCell;
use std::collections::BTreeMap;

use kalends_core::failure::LimitScope;
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::queue::Queue;
use kalends_core::queue::command::*;
use kalends_core::queue::state::*;
use kalends_core::time::Timestamp;
use naive::Model;
use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The part of proptest's number of cases (256, or `PROPTEST_CASES`) that is run: each case is long.
const CASES_PART: u32 = 2;
const STEPS_MAX: usize = 160;

/// What must have been met over a run: the command, and what it heard.
const OUTCOMES: &[&str] = &[
    "define_source done",
    "define_source invalid",
    "define_schedule schedule",
    "define_schedule unknown_source",
    "remove_schedule done",
    "tick fired",
    "tick already_fired",
    "tick already_fired none",
    "tick invalid",
    "enqueue added",
    "enqueue coalesced",
    "enqueue refused",
    "enqueue unknown_source",
    "enqueue lease_lost",
    "enqueue invalid",
    "enqueue with checkpoint",
    "claim sync",
    "claim fan_out",
    "claim nothing",
    "claim again",
    "claim retried",
    "claim recovered",
    "claim buried",
    "claim too_large",
    "claim next now",
    "claim next never",
    "heartbeat kept",
    "heartbeat lost",
    "checkpoint go",
    "checkpoint wait",
    "checkpoint lease_lost",
    "checkpoint too_large",
    "complete done",
    "complete already_done",
    "complete lease_lost",
    "complete runs again",
    "retry done",
    "retry already_done",
    "retry lease_lost",
    "fail done",
    "fail already_done",
    "fail lease_lost",
    "release done",
    "release already_done",
    "release lease_lost",
    "limited gate_closed",
    "limited already_done",
    "limited lease_lost",
    "limited invalid",
    "pause done",
    "resume done",
    "set_limit done",
    "set_limit invalid",
    "set_limit unknown_source",
    "due_users some",
    "enroll some",
    "enroll none",
    "connect some",
    "connect none",
    "enroll unknown_source",
    "unenroll some",
    "unenroll none",
    "retry_failed some",
    "retry_failed none",
    "remove some",
    "remove none",
    "state user delayed by gate",
    "state clock stepped back",
];

type Step = (u8, u32, u32, u32);

fn name_at<T>(names: &[&str], index: u32, make: impl Fn(&str) -> T) -> T {
    make(names[index as usize % names.len()])
}

fn source(index: u32) -> SourceName {
    // The last one is never defined.
    let names = ["calendar", "calendar", "calendar", "mail", "mail", "none"];
    name_at(&names, index, |name| SourceName::new(name).unwrap())
}

fn user(index: u32) -> UserId {
    let names = ["ada", "ben", "cleo", "dana", "eli", "fay"];
    name_at(&names, index, |name| UserId::new(name).unwrap())
}

fn schedule(index: u32) -> ScheduleName {
    name_at(&["daily", "often"], index, |name| {
        ScheduleName::new(name).unwrap()
    })
}

fn worker(index: u32) -> WorkerId {
    name_at(&["w1", "w2", "w3"], index, |name| {
        WorkerId::new(name).unwrap()
    })
}

fn limit(index: u32) -> Option<Limit> {
    let limit = |count, window_ms| Some(Limit { count, window_ms });
    match index % 8 {
        0 => None,
        1 => limit(1, 5_000),
        2 => limit(3, 10_000),
        3 => limit(5, 2_000),
        4 => limit(0, 10_000),
        5 => limit(100, 60_000),
        _ => limit(20, 30_000),
    }
}

fn settings(index: u32) -> SourceSettings {
    SourceSettings {
        jobs: limit(index),
        requests_project: limit(index / 8).filter(|limit| limit.count > 0),
        // Always the same window: how long requests are remembered for a longer one is left open.
        requests_user: (!index.is_multiple_of(5)).then_some(Limit {
            count: 1 + index % 3,
            window_ms: 10_000,
        }),
        keep_completed: index % 4,
        keep_failed: index / 2 % 4,
        stalls_max: index / 3 % 3,
    }
}

fn definition(source: SourceName, index: u32) -> ScheduleDefinition {
    ScheduleDefinition {
        source,
        cron: ["*/15 * * * *", "0 9 * * *"][index as usize % 2]
            .parse()
            .unwrap(),
        time_zone: Default::default(),
        catch_up: Default::default(),
    }
}

/// What the fleet remembers: enough to send sensible commands, and old ones again.
struct Fleet {
    now: Timestamp,
    leases: Vec<LeaseRef>,
    sent: Vec<Command>,
    schedules: BTreeMap<ScheduleName, ScheduleState>,
}

impl Fleet {
    fn lease(&self, index: u32) -> LeaseRef {
        let count = self.leases.len();
        if count == 0 {
            return LeaseRef {
                key: JobKey::Sync {
                    source: source(index),
                    user: user(index),
                },
                token: LeaseToken(u64::from(index)),
            };
        }
        // Mostly one of the last few, now and then an old one.
        let back = match index % 8 {
            0 => index as usize / 8 % count,
            _ => index as usize / 8 % count.min(4),
        };
        self.leases[count - 1 - back].clone()
    }

    fn time(&self, index: u32) -> Timestamp {
        let seconds = u64::from(index / 2 % 40);
        match index % 2 {
            0 => self.now.plus_ms(seconds * 700),
            _ => self.now.minus_ms(seconds * 900),
        }
    }

    fn pass_time(&mut self, index: u32) {
        let amount = u64::from(index / 32);
        self.now = match index % 32 {
            0..=13 => self.now.plus_ms(amount % 400),
            14..=22 => self.now.plus_ms(amount % 4_000),
            23..=26 => self.now.plus_ms(amount % 30_000),
            27 => self.now.plus_ms(amount % 200_000),
            28 => self.now.minus_ms(amount % 900),
            29 if amount.is_multiple_of(4) => self.now.minus_ms(amount % 100_000),
            _ => self.now,
        };
    }

    fn command(&self, (kind, a, b, c): Step) -> Command {
        let outcome = |index: u32| match index % 4 {
            0 => CommitOutcome::Skipped {
                note: "no graph".into(),
            },
            _ => CommitOutcome::Synced {
                upserted: u64::from(index % 9),
                deleted: 0,
                quarantined: 0,
                requests: 1,
                full: index.is_multiple_of(2),
            },
        };
        match kind {
            0..=2 => Command::DefineSource {
                source: source(a % 5),
                settings: settings(b),
            },
            3..=4 => Command::DefineSchedule {
                schedule: schedule(a),
                definition: definition(source(b), c),
            },
            5 if a % 4 == 0 => Command::RemoveSchedule {
                schedule: schedule(b),
            },
            5..=10 => {
                let schedule = schedule(a);
                let known = self.schedules.get(&schedule);
                let after = known.map_or(self.now, |state| state.last_tick_at);
                Command::Tick {
                    schedule,
                    revision: known.map_or(1, |state| state.revision),
                    after,
                    at: if b % 8 == 0 {
                        self.time(b / 8)
                    } else {
                        self.now
                    },
                    missed: u64::from(b % 3),
                    fire: c % 4 > 0,
                }
            }
            11..=28 => {
                let count = 1 + a % 4;
                let jobs = (0..count).map(|index| NewJob {
                    user: user(b / 5 + index * (1 + c % 3)),
                    run_at: self.time(c / (index + 1)),
                    nominal_at: (c % 3 > 0).then(|| self.time(a)),
                    priority: match b % 3 {
                        0 => Priority::Now,
                        _ => Priority::Scheduled,
                    },
                });
                Command::Enqueue {
                    source: source(a),
                    jobs: jobs.collect(),
                    checkpoint: (b % 6 == 0).then(|| {
                        let fan_outs = self.leases.iter().rev();
                        let mut fan_outs =
                            fan_outs.filter(|lease| matches!(lease.key, JobKey::FanOut { .. }));
                        let lease = fan_outs.next().filter(|_| c % 5 > 0).cloned();
                        (lease.unwrap_or(self.lease(c)), format!("page {c}"))
                    }),
                }
            }
            29..=52 => {
                let knows = self.leases.len().min(a as usize % 6);
                Command::Claim {
                    worker: worker(a),
                    slots: if c % 50 == 0 { 1_001 } else { b % 4 },
                    fan_out_slots: b / 4 % 3,
                    lease_ms: [2_000, 10_000, 30_000, 60_000][c as usize % 4],
                    held: self.leases[self.leases.len() - knows..]
                        .iter()
                        .map(|lease| lease.token)
                        .collect(),
                }
            }
            53..=56 => Command::Heartbeat {
                leases: (0..a % 3).map(|index| self.lease(b + index * 8)).collect(),
                lease_ms: 1 + u64::from(c % 60_000),
            },
            57..=61 => Command::Checkpoint {
                lease: self.lease(a),
                progress: (b % 2 == 0).then(|| format!("cursor {b}")),
                requests: c % 5,
            },
            62..=71 => Command::Complete {
                lease: self.lease(a),
                commit: Commit {
                    cursor: (b % 2 == 0).then(|| format!("token {b}")),
                    next_due_at: (b % 3 > 0).then(|| self.time(c)),
                    outcome: outcome(c),
                },
            },
            72..=75 => Command::Retry {
                lease: self.lease(a),
                at: self.time(b),
                error: format!("cut off {c} {}", "x".repeat(c as usize % 600)),
            },
            76..=79 => Command::Fail {
                lease: self.lease(a),
                error: format!("refused {c}"),
                next_due_at: (b % 2 == 0).then(|| self.time(c)),
                park: (b % 3 == 0).then_some(ParkReason::NeedsReauth),
            },
            80..=82 => Command::Release {
                lease: self.lease(a),
                at: (b % 2 == 0).then(|| self.time(c)),
            },
            83..=85 => Command::Limited {
                lease: self.lease(a),
                scope: match b % 3 {
                    0 => LimitScope::Source,
                    _ => LimitScope::User,
                },
                retry_after_ms: match c % 5 {
                    0 => Some(u64::from(c) * 100_000),
                    1 => Some(u64::from(c) % 20_000),
                    _ => None,
                },
                jitter_ms: u64::from(c % 1_000),
                reason: format!("quota {b}"),
            },
            86 if a % 2 == 0 => Command::Pause {
                source: (b % 3 > 0).then(|| source(b)),
                reason: "maintenance".into(),
            },
            86..=87 => Command::Resume {
                source: (b % 3 > 0).then(|| source(b)),
            },
            88 => Command::SetLimit {
                source: source(a),
                jobs: limit(b),
            },
            89 => Command::DueUsers {
                source: source(a),
                due_by: self.time(b),
                after: (c % 3 == 0).then(|| (self.time(c / 3), user(a))),
                limit: c % 5,
            },
            90 if c % 2 == 0 => Command::Connect {
                source: source(a),
                grants: (0..1 + b % 3)
                    .map(|index| (user(b / 3 + index), u64::from(c % 3)))
                    .collect(),
                due_at: self.time(c),
                force: c % 8 == 0,
            },
            90..=92 => Command::Enroll {
                source: source(a),
                users: (0..1 + b % 3).map(|index| user(b / 3 + index)).collect(),
                due_at: self.time(c),
            },
            93 => Command::Unenroll {
                source: source(a),
                users: vec![user(b)],
            },
            94 => Command::Users {
                source: source(a),
                after: (b % 2 == 0).then(|| user(b)),
                limit: c % 4,
            },
            95 => Command::RetryFailed {
                number: (a % 2 == 0).then(|| u64::from(b % 30)),
            },
            96 => Command::Remove {
                key: match a % 3 {
                    0 => JobKey::FanOut {
                        schedule: schedule(b),
                    },
                    _ => JobKey::Sync {
                        source: source(b),
                        user: user(c),
                    },
                },
            },
            // A reply was lost, or a packet came twice: the same again.
            _ if self.sent.is_empty() => Command::Stats,
            _ => {
                let back = a as usize % self.sent.len().min(4);
                self.sent[self.sent.len() - 1 - back].clone()
            }
        }
    }
}

/// The queue under test, its model, and the store that keeps its rows.
struct Bench<'a> {
    queue: Queue,
    model: Model,
    rows: BTreeMap<(String, String), String>,
    met: &'a RefCell<BTreeMap<String, u64>>,
}

impl Bench<'_> {
    fn apply(&mut self, now: Timestamp, command: Command) -> Reply {
        let reply = self.queue.apply(now, command.clone());
        let expected = self.model.apply(now, command.clone());
        assert_eq!(reply, expected, "at {} to {command:?}", now.as_ms());
        let changes = self.queue.take_changes();
        if !changes.is_empty() {
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

    fn compare(&mut self, now: Timestamp) {
        self.apply(now, Command::Stats);
        self.apply(now, Command::Schedules);
        for state in [
            JobState::Waiting,
            JobState::Delayed,
            JobState::Active,
            JobState::Completed,
            JobState::Failed,
        ] {
            let reply = self.apply(
                now,
                Command::Jobs {
                    state,
                    offset: 0,
                    limit: 1_000,
                },
            );
            if let (JobState::Delayed, Reply::Jobs { jobs }) = (state, reply) {
                let gated = jobs.iter().any(|job| job.at.since_ms(now) > 40_000);
                self.meet_if(gated, "state user delayed by gate");
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

    fn meet(&self, outcome: &str) {
        *self.met.borrow_mut().entry(outcome.into()).or_default() += 1;
    }

    fn meet_if(&self, holds: bool, outcome: &str) {
        if holds {
            self.meet(outcome);
        }
    }

    fn note(&self, command: &Command, reply: &Reply, fleet: &Fleet) {
        let tag = |value: serde_json::Value, tag: &str| value[tag].as_str().unwrap().to_owned();
        let asked = tag(serde_json::to_value(command).unwrap(), "command");
        let heard = match reply {
            Reply::Refused { refusal } => tag(serde_json::to_value(refusal).unwrap(), "refusal"),
            Reply::Enrolled { users, .. } if users.is_empty() => "none".into(),
            Reply::Enrolled { .. } => "some".into(),
            Reply::Count { count: 0 } => "none".into(),
            Reply::Count { .. } => "some".into(),
            Reply::AlreadyFired { state: None } => "already_fired none".into(),
            Reply::Permit { wait_until: None } => "go".into(),
            Reply::Permit { .. } => "wait".into(),
            other => tag(serde_json::to_value(other).unwrap(), "reply"),
        };
        self.meet(&format!("{asked} {heard}"));
        match (command, reply) {
            (Command::Heartbeat { leases, .. }, Reply::Heartbeat { lost }) => {
                self.meet_if(lost.len() < leases.len(), "heartbeat kept");
                self.meet_if(!lost.is_empty(), "heartbeat lost");
            }
            (Command::DueUsers { .. }, Reply::DueUsers { users, .. }) => {
                self.meet_if(!users.is_empty(), "due_users some");
            }
            (
                Command::Enqueue { checkpoint, .. },
                Reply::Enqueued {
                    added,
                    coalesced,
                    refused,
                },
            ) => {
                self.meet_if(*added > 0, "enqueue added");
                self.meet_if(*coalesced > 0, "enqueue coalesced");
                self.meet_if(*refused > 0, "enqueue refused");
                self.meet_if(checkpoint.is_some(), "enqueue with checkpoint");
            }
            (
                _,
                Reply::Claimed {
                    leases,
                    recovered,
                    buried,
                    next_at,
                },
            ) => {
                for lease in leases {
                    let again = fleet.leases.contains(&lease.lease);
                    self.meet_if(again, "claim again");
                    self.meet_if(lease.attempt > 1, "claim retried");
                    let fan_out = matches!(lease.lease.key, JobKey::FanOut { .. });
                    self.meet(if fan_out {
                        "claim fan_out"
                    } else {
                        "claim sync"
                    });
                }
                self.meet_if(leases.is_empty(), "claim nothing");
                self.meet_if(*recovered > 0, "claim recovered");
                self.meet_if(*buried > 0, "claim buried");
                self.meet_if(*next_at == Some(fleet.now), "claim next now");
                self.meet_if(next_at.is_none(), "claim next never");
            }
            (Command::Complete { lease, .. }, Reply::Done) => {
                let again = self.stored().rows().into_iter().any(|(table, key, _)| {
                    table == "jobs" && key == serde_json::to_string(&lease.key).unwrap()
                });
                self.meet_if(again, "complete runs again");
            }
            _ => {}
        }
    }
}

fn run(steps: &[Step], met: &RefCell<BTreeMap<String, u64>>) {
    let mut bench = Bench {
        queue: Queue::new(),
        model: Model::default(),
        rows: BTreeMap::new(),
        met,
    };
    let mut fleet = Fleet {
        now: Timestamp::from_ms(1_767_225_600_000),
        leases: Vec::new(),
        sent: Vec::new(),
        schedules: BTreeMap::new(),
    };
    for (name, users) in [(0, 0..6), (3, 0..3)] {
        let commands = [
            Command::DefineSource {
                source: source(name),
                settings: settings(37 + name),
            },
            Command::Enroll {
                source: source(name),
                users: users.map(user).collect(),
                due_at: fleet.now,
            },
            Command::DefineSchedule {
                schedule: schedule(name),
                definition: definition(source(name), name),
            },
        ];
        for command in commands {
            bench.apply(fleet.now, command);
        }
    }
    for step in steps {
        let before = fleet.now;
        fleet.pass_time(step.3);
        bench.meet_if(
            before.since_ms(fleet.now) > 1_000,
            "state clock stepped back",
        );
        let command = fleet.command(*step);
        let reply = bench.apply(fleet.now, command.clone());
        bench.note(&command, &reply, &fleet);
        match &reply {
            Reply::Claimed { leases, .. } if step.1 % 5 > 0 => {
                let leases = leases.iter().map(|lease| lease.lease.clone());
                fleet.leases.extend(leases);
            }
            Reply::Schedule { state } | Reply::Fired { state } => {
                if let Command::DefineSchedule { schedule, .. } | Command::Tick { schedule, .. } =
                    &command
                {
                    fleet.schedules.insert(schedule.clone(), state.clone());
                }
            }
            _ => {}
        }
        fleet.sent.push(command);
        bench.compare(fleet.now);
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
    let met = RefCell::new(BTreeMap::new());
    let step = (0_u8..104, 0_u32..10_000, 0_u32..10_000, 0_u32..100_000);
    let steps = vec(step, 1..STEPS_MAX);
    let outcome = runner.run(&steps, |steps| {
        run(&steps, &met);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let met = met.into_inner();
    let missing: Vec<&&str> = OUTCOMES
        .iter()
        .filter(|outcome| !met.contains_key(**outcome))
        .collect();
    assert!(missing.is_empty(), "never met: {missing:?} among {met:#?}");
}
