//! Random streams of commands: what a rough fleet sends to a store.
//!
//! Three workers that lose replies, send again, come back with dead leases and restart; a clock that jumps, stands still
//! and steps back; operators who pause, limit and remove. A step is a handful of numbers, so a failing stream shrinks,
//! and what they mean depends on what the fleet has heard, so that most commands are sensible ones.
//!
//! It knows the command language only: any store can be driven with it, and compared with the queue after each command.

#![allow(
    clippy::unwrap_used,
    reason = "the names and patterns in here are good ones"
)]

mod met;

use std::collections::BTreeMap;

use kalends_core::failure::LimitScope;
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::queue::command::*;
use kalends_core::queue::state::*;
use kalends_core::time::Timestamp;
use proptest::collection::vec;
use proptest::strategy::Strategy;

pub(crate) use met::Met;

/// All states of jobs, to be listed after a command.
pub(crate) const STATES: [JobState; 5] = [
    JobState::Waiting,
    JobState::Delayed,
    JobState::Active,
    JobState::Completed,
    JobState::Failed,
];

/// One step: the command's kind, and three numbers that make it and the time that passes before it.
pub(crate) type Step = (u8, u32, u32, u32);

/// Streams of up to `steps_max` steps.
pub(crate) fn streams(steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..105, 0_u32..10_000, 0_u32..10_000, 0_u32..100_000);
    vec(step, 1..steps_max)
}

fn name_at<T>(names: &[&str], index: u32, make: impl Fn(&str) -> T) -> T {
    make(names[index as usize % names.len()])
}

/// A source, by any number.
pub(crate) fn source(index: u32) -> SourceName {
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
pub(crate) struct Fleet {
    /// The store's time.
    pub(crate) now: Timestamp,
    /// The last command with its reply.
    pub(crate) last: Option<(Command, Reply)>,
    leases: Vec<LeaseRef>,
    sent: Vec<Command>,
    schedules: BTreeMap<ScheduleName, ScheduleState>,
}

impl Fleet {
    pub(crate) fn new() -> Fleet {
        Fleet {
            now: Timestamp::from_ms(1_767_225_600_000),
            last: None,
            leases: Vec::new(),
            sent: Vec::new(),
            schedules: BTreeMap::new(),
        }
    }

    /// The commands that come before every stream: two sources with users and a schedule each.
    pub(crate) fn set_up(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (name, users) in [(0, 0..6), (3, 0..3)] {
            commands.push(Command::DefineSource {
                source: source(name),
                settings: settings(37 + name),
            });
            commands.push(Command::Enroll {
                source: source(name),
                users: users.map(user).collect(),
                due_at: self.now,
            });
            commands.push(Command::DefineSchedule {
                schedule: schedule(name),
                definition: definition(source(name), name),
            });
        }
        commands
    }

    /// Whether a lease was given to the fleet before.
    fn knows(&self, lease: &LeaseRef) -> bool {
        self.leases.contains(lease)
    }

    /// Hears the reply to the command of `step`, unless it is lost.
    pub(crate) fn hear(&mut self, step: Step, command: Command, reply: Reply) {
        match &reply {
            Reply::Claimed { leases, .. } if !step.1.is_multiple_of(5) => {
                let leases = leases.iter().map(|lease| lease.lease.clone());
                self.leases.extend(leases);
            }
            Reply::Schedule { state } | Reply::Fired { state } => {
                if let Command::DefineSchedule { schedule, .. } | Command::Tick { schedule, .. } =
                    &command
                {
                    self.schedules.insert(schedule.clone(), state.clone());
                }
            }
            _ => {}
        }
        self.sent.push(command.clone());
        self.last = Some((command, reply));
    }

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
        // Now and then a time that no calendar has and no store keeps.
        match index % 199 {
            0 => return Timestamp::MAX,
            1 => return Timestamp::from_ms(i64::MIN),
            _ => {}
        }
        let seconds = u64::from(index / 2 % 40);
        match index % 2 {
            0 => self.now.plus_ms(seconds * 700),
            _ => self.now.minus_ms(seconds * 900),
        }
    }

    /// Lets time pass, stand still, or step back, by a number up to 100,000.
    pub(crate) fn pass_time(&mut self, index: u32) {
        let amount = u64::from(index / 32);
        self.now = match index % 32 {
            0..=13 => self.now.plus_ms(amount % 400),
            14..=22 => self.now.plus_ms(amount % 4_000),
            23..=26 => self.now.plus_ms(amount % 30_000),
            27 => self.now.plus_ms(amount % 200_000),
            28 => self.now.minus_ms(amount % 900),
            29 if amount.is_multiple_of(4) => self.now.minus_ms(amount * 40),
            30 if amount.is_multiple_of(8) => self.now.minus_ms(15 * 60_000 + amount * 1_000),
            31 if amount.is_multiple_of(8) => self.now.plus_ms(amount * 1_500),
            _ => self.now,
        };
    }

    /// The command of a step.
    pub(crate) fn command(&self, (kind, a, b, c): Step) -> Command {
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
            5 if a % 2 == 0 => Command::RemoveSchedule {
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
                    slots: match c % 50 {
                        0 => 1_001,
                        1 => 1_000,
                        2 => 101,
                        _ => b % 4,
                    },
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
                users: (0..1 + c % 2).map(|index| user(b + index)).collect(),
            },
            94 => Command::Users {
                source: source(a),
                after: (b % 2 == 0).then(|| user(b)),
                limit: c % 4,
            },
            95 if c % 4 == 0 => Command::DiscardFailed {
                number: (a % 3 > 0).then(|| u64::from(b % 30)),
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
            97 => Command::Jobs {
                state: match a % 5 {
                    0 => JobState::Waiting,
                    1 => JobState::Delayed,
                    2 => JobState::Active,
                    3 => JobState::Completed,
                    _ => JobState::Failed,
                },
                offset: b % 5,
                limit: c % 5,
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
