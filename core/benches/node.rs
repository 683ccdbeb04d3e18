//! What one job costs in the node itself, and how many round trips to the store it needs.
//!
//! A node syncs users in whose calendars nothing happened: claim, one request, completion. The store is a queue value
//! that answers after a round trip of virtual time, so the figures for round trips and claims are exact and the same
//! everywhere; only the nanoseconds are measured. Run it with `cargo bench -p kalends-core --bench node`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a benchmark reads the clock: that is its purpose
#![allow(clippy::unwrap_used, missing_docs)] // and ends at the first thing that goes wrong

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kalends_core::google::page::{EventsPage, FetchReply, PageEnd};
use kalends_core::graph::{GraphCounts, GraphReply};
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, EffectResult, Input, Notice, Op, Output};
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority, Stamped};
use kalends_core::queue::state::SourceSettings;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::sync::SyncSettings;
use kalends_core::time::Timestamp;

/// Users, and so jobs, of each run.
const USERS: usize = 100_000;
/// Nanoseconds are those of the best slice of so many jobs, so that whatever else the machine does is left out.
const SLICE: usize = 1_000;
/// From a command to its reply, in microseconds of virtual time.
const ROUND_TRIP_US: u64 = 200;
/// 2026-11-02, a Monday, at midnight UTC.
const START: Timestamp = Timestamp::from_ms(1_793_577_600_000);

fn main() {
    println!("concurrency  fetch_us  node_ns  queue_ns  claims/job  jobs/s by latency alone");
    for (concurrency, fetch_us) in [
        (50, 0),
        (50, 100),
        (3, 0),
        (3, 100),
        (3, 20_000),
        (50, 20_000),
    ] {
        let mut bench = Bench::new(concurrency, fetch_us);
        // The first syncs leave the cursors with which the measured ones find nothing changed.
        bench.run();
        bench.run();
        println!(
            "{concurrency:>11}  {fetch_us:>8}  {:>7}  {:>8}  {:>10.3}  {:>12.0}",
            bench.best.0.as_nanos() / SLICE as u128,
            bench.best.1.as_nanos() / SLICE as u128,
            f64::from(bench.claims) / USERS as f64,
            USERS as f64 / (bench.took_us as f64 / 1e6),
        );
    }
}

struct Bench {
    node: Node,
    queue: Queue,
    now_us: u64,
    fetch_us: u64,
    rng: KalendsRng,
    pending: BTreeMap<(u64, EffectId), Box<EffectResult>>,
    done: usize,
    done_us: u64,
    claims: u32,
    queue_time: Duration,
    /// Of the node and of the queue, in the slice in which the node was fastest.
    best: (Duration, Duration),
    took_us: u64,
}

impl Bench {
    fn new(concurrency: u32, fetch_us: u64) -> Self {
        let mut settings = NodeSettings::new(WorkerId::new("bench").unwrap(), 7);
        settings.concurrency = concurrency;
        settings.fan_out_slots = 0;
        settings.schedules.push((
            ScheduleName::new("calendar-sync").unwrap(),
            ScheduleDefinition {
                source: SourceName::google_calendar(),
                cron: "*/15 * * * *".parse().unwrap(),
                time_zone: "Europe/Berlin".parse().unwrap(),
                catch_up: "once".parse().unwrap(),
            },
        ));
        settings.sources.push(SourceDefinition {
            name: SourceName::google_calendar(),
            settings: SourceSettings {
                jobs: None,
                requests_project: None,
                requests_user: None,
                ..SourceSettings::default()
            },
            sync: SyncSettings::default(),
            enroll: Vec::new(),
        });
        let node = Node::new(START, settings);
        Bench {
            node,
            queue: Queue::new(),
            now_us: 0,
            fetch_us,
            rng: substream(7, "fetch"),
            pending: BTreeMap::new(),
            done: 0,
            done_us: 0,
            claims: 0,
            queue_time: Duration::ZERO,
            best: (Duration::MAX, Duration::MAX),
            took_us: 0,
        }
    }

    fn now(&self) -> Timestamp {
        START.plus_ms(self.now_us / 1_000)
    }

    /// Enqueues a job for each user and waits for the last one.
    fn run(&mut self) {
        // Until source and schedule are defined.
        while !self.node.is_ready() {
            self.step();
        }
        self.enqueue();
        (self.done, self.claims) = (0, 0);
        self.best = (Duration::MAX, Duration::MAX);
        let begun_us = self.now_us;
        self.node.handle_input(self.now(), Input::Wake);
        while self.done < USERS {
            let slice_end = (self.done + SLICE).min(USERS);
            self.queue_time = Duration::ZERO;
            let begun = Instant::now();
            while self.done < slice_end {
                self.step();
            }
            let slice = (begun.elapsed() - self.queue_time, self.queue_time);
            self.best = self.best.min(slice);
        }
        self.took_us = self.done_us - begun_us;
    }

    fn enqueue(&mut self) {
        let source = SourceName::google_calendar();
        let users: Vec<UserId> = (0..USERS)
            .map(|index| UserId::new(&format!("user-{index}@example.com")).unwrap())
            .collect();
        for users in users.chunks(BATCH_MAX) {
            let source = source.clone();
            let now = self.now();
            let users = users.to_vec();
            let due_at = now;
            self.queue.apply(
                now,
                Command::Enroll {
                    source: source.clone(),
                    users: users.clone(),
                    due_at,
                },
            );
            let job = |user: &UserId| NewJob {
                user: user.clone(),
                run_at: now,
                nominal_at: Some(START),
                priority: Priority::Scheduled,
            };
            let jobs = users.iter().map(job).collect();
            self.queue.apply(
                now,
                Command::Enqueue {
                    source,
                    jobs,
                    checkpoint: None,
                },
            );
        }
    }

    /// Says what to do, then brings back all that ends next.
    fn step(&mut self) {
        let wake_us = loop {
            match self.node.poll_output() {
                Output::Effect { id, op } => self.perform(id, op),
                Output::Notice(Notice::JobDone { .. }) => {
                    self.done += 1;
                    self.done_us = self.now_us;
                }
                Output::Notice(_) => {}
                Output::Timeout { at, .. } => break at.since_ms(START) * 1_000,
                other => panic!("out of place: {other:?}"),
            }
        };
        let next_us = self.pending.keys().next().map(|(at_us, _)| *at_us);
        if next_us.is_none_or(|next_us| wake_us < next_us) {
            self.now_us = self.now_us.max(wake_us);
            self.node.handle_timeout(self.now());
            return;
        }
        self.now_us = next_us.unwrap();
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > self.now_us {
                break;
            }
            let ((_, id), result) = entry.remove_entry();
            let result = *result;
            self.node
                .handle_input(self.now(), Input::Done { id, result });
        }
    }

    fn perform(&mut self, id: EffectId, op: Op) {
        let (after_us, result) = match op {
            Op::Store(command) => {
                self.claims += u32::from(matches!(*command, Command::Claim { .. }));
                let now = self.now();
                let begun = Instant::now();
                let value = self.queue.apply(now, *command);
                self.queue_time += begun.elapsed();
                (
                    ROUND_TRIP_US,
                    EffectResult::Store(Ok(Stamped { now, value })),
                )
            }
            Op::Fetch(_) => (
                self.fetch_us / 2 + uniform(&mut self.rng, self.fetch_us),
                EffectResult::Fetch(Ok(unchanged())),
            ),
            Op::Graph(_) => {
                let written = GraphReply::Written(GraphCounts::default());
                (0, EffectResult::Graph(Ok(written)))
            }
        };
        let at_us = self.now_us + after_us;
        self.pending.insert((at_us, id), Box::new(result));
    }
}

fn unchanged() -> FetchReply {
    FetchReply::Events(EventsPage {
        summary: None,
        time_zone: None,
        access_role: None,
        events: Vec::new(),
        unreadable: Vec::new(),
        end: PageEnd::Done {
            sync_token: Some("CPDAlvWDx70CEPDAlvWDx70CGAU=".to_owned()),
        },
    })
}
