//! A node by hand: what it asks is answered when the test says so.

use std::collections::{BTreeMap, VecDeque};

use kalends_core::id::SourceName;
use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, EffectResult, Input, Op, Output};
use kalends_core::node::settings::NodeSettings;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, NewJob, Priority, Reply, Stamped};
use kalends_core::time::Timestamp;

use crate::world::{MIDNIGHT, quiet, user};

/// A node by hand: what it asks of the store is answered when the test says so, everything else at once, or when the test
/// says so, too.
pub(crate) struct Hand {
    pub(crate) node: Node,
    pub(crate) now: Timestamp,
    pub(crate) queue: Queue,
    /// What the store was sent and has not answered yet.
    pub(crate) sent: BTreeMap<EffectId, Command>,
    pub(crate) cancelled: usize,
    pub(crate) fetched: usize,
    /// Requests and writes end at once.
    pub(crate) works: bool,
    /// Those that do not.
    under_way: VecDeque<(EffectId, Op)>,
    /// So many jobs ran at a time at the most.
    pub(crate) running_max: usize,
}

impl Hand {
    /// A node that is ready, with a job for each of `jobs` users, all of them due.
    pub(crate) fn new(settings: NodeSettings, jobs: usize) -> Self {
        let mut hand = Hand {
            node: Node::new(MIDNIGHT, settings),
            now: MIDNIGHT,
            queue: Queue::new(),
            sent: BTreeMap::new(),
            cancelled: 0,
            fetched: 0,
            works: true,
            under_way: VecDeque::new(),
            running_max: 0,
        };
        while !hand.node.is_ready() {
            hand.turn();
            hand.answer(|_| true);
        }
        // The claim of the start finds nothing.
        hand.turn();
        hand.answer(|_| true);
        let source = SourceName::google_calendar();
        hand.queue.apply(
            hand.now,
            Command::Enroll {
                source: source.clone(),
                users: (0..jobs).map(user).collect(),
                due_at: hand.now,
            },
        );
        let job = |index| NewJob {
            user: user(index),
            run_at: MIDNIGHT,
            nominal_at: Some(MIDNIGHT),
            priority: Priority::Scheduled,
        };
        hand.queue.apply(
            hand.now,
            Command::Enqueue {
                source,
                jobs: (0..jobs).map(job).collect(),
                checkpoint: None,
            },
        );
        hand.node.handle_input(hand.now, Input::Wake);
        hand.turn();
        hand
    }

    /// Lets the node speak until it has nothing more to say; requests to Google and writes end at once.
    pub(crate) fn turn(&mut self) {
        loop {
            match self.node.poll_output() {
                Output::Effect {
                    id,
                    op: Op::Store(command),
                } => {
                    self.sent.insert(id, *command);
                }
                Output::Effect { id, op } => {
                    self.fetched += usize::from(matches!(op, Op::Fetch(_)));
                    self.running_max = self.running_max.max(self.node.running_jobs());
                    self.under_way.push_back((id, op));
                }
                Output::Cancel { id } => {
                    self.cancelled += usize::from(self.sent.remove(&id).is_some())
                }
                Output::Notice(_) => {}
                Output::Timeout { .. } | Output::Finished => {
                    if !self.works || !self.end_effects() {
                        return;
                    }
                }
            }
        }
    }

    /// Ends the requests and writes under way; whether there were any.
    fn end_effects(&mut self) -> bool {
        let effects = std::mem::take(&mut self.under_way);
        let were_any = !effects.is_empty();
        for (id, op) in effects {
            let result = quiet(&op);
            self.node.handle_input(self.now, Input::Done { id, result });
        }
        were_any
    }

    /// The jobs that run take this long.
    pub(crate) fn work_for(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let is_write = |(_, op): &(EffectId, Op)| matches!(op, Op::Graph(_));
        self.end_effects();
        self.turn();
        while self.under_way.iter().any(is_write) {
            let (writes, begun) = self.under_way.drain(..).partition(is_write);
            self.under_way = writes;
            self.end_effects();
            self.under_way = begun;
            self.turn();
        }
    }

    /// The store answers what is of interest, in the order in which it was sent.
    pub(crate) fn answer(&mut self, of_interest: impl Fn(&Command) -> bool) {
        let ids: Vec<EffectId> = self
            .sent
            .iter()
            .filter(|(_, command)| of_interest(command))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let command = self.sent.remove(&id).unwrap();
            let now = self.now;
            let value = self.queue.apply(now, command);
            let result = EffectResult::Store(Ok(Stamped { now, value }));
            self.node.handle_input(now, Input::Done { id, result });
        }
        self.turn();
    }

    pub(crate) fn fail_all(&mut self) {
        for id in std::mem::take(&mut self.sent).into_keys() {
            let detail = "connection reset".to_owned();
            let result = EffectResult::Store(Err(StoreUnavailable { detail }));
            self.node.handle_input(self.now, Input::Done { id, result });
        }
        self.turn();
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.node.handle_timeout(self.now);
        self.turn();
    }

    pub(crate) fn ends(&self) -> Vec<Command> {
        let ends = self.sent.values().filter(|command| is_complete(command));
        ends.cloned().collect()
    }

    pub(crate) fn completes(&self) -> usize {
        self.ends().len()
    }

    /// How many jobs were completed, once none is left.
    pub(crate) fn drained(&mut self) -> u64 {
        self.queue.check_invariants();
        let Reply::Stats { stats } = self.queue.apply(self.now, Command::Stats) else {
            panic!("not stats")
        };
        assert_eq!((stats.waiting, stats.delayed, stats.active), (0, 0, 0));
        stats.completed_total
    }

    /// Jobs that go back unharmed, told to the store.
    pub(crate) fn releases(&self) -> usize {
        let releases = self.sent.values();
        releases.filter(|command| is_release(command)).count()
    }

    /// Slots and held leases of the claim that is under way.
    pub(crate) fn claim(&self) -> Option<(u32, usize)> {
        let mut claims = self.sent.values().filter_map(|command| match command {
            Command::Claim { slots, held, .. } => Some((*slots, held.len())),
            _ => None,
        });
        let claim = claims.next();
        assert!(claims.next().is_none(), "one claim is under way at a time");
        claim
    }
}

pub(crate) fn is_complete(command: &Command) -> bool {
    matches!(command, Command::Complete { .. })
}

pub(crate) fn is_release(command: &Command) -> bool {
    matches!(command, Command::Release { at: None, .. })
}

pub(crate) fn is_claim(command: &Command) -> bool {
    matches!(command, Command::Claim { .. })
}
