//! One process of the replaced service: workers over the shared queue.

use std::collections::{BTreeMap, VecDeque};

use kalends_core::failure::FailureKind;
use kalends_core::id::UserId;
use kalends_core::node::io::{EffectId, EffectResult, Input, Op, Output, Reason};
use kalends_core::queue::command::LeaseToken;
use kalends_core::sync::{Answer, End, Step, SyncMachine, SyncSettings};
use kalends_core::time::Timestamp;

use super::queue::{Job, Work};
use super::{CONCURRENCY, SharedRef};
use crate::world::Machine;

/// A job at work.
struct Running {
    user: u32,
    attempt: u32,
    sync: SyncMachine,
}

/// One process.
pub(crate) struct Replica {
    shared: SharedRef,
    users: Vec<UserId>,
    sync: SyncSettings,
    running: BTreeMap<EffectId, Running>,
    outputs: VecDeque<Output>,
    effects: u64,
    now: Timestamp,
    /// The shutdown's deadline.
    stop_at: Option<Timestamp>,
}

impl Replica {
    /// A process that starts now: it upserts the repeatable.
    pub(crate) fn new(
        now: Timestamp,
        shared: SharedRef,
        users: Vec<UserId>,
        sync: SyncSettings,
    ) -> Self {
        shared.borrow_mut().queue.define_repeatable(now);
        let mut replica = Replica {
            shared,
            users,
            sync,
            running: BTreeMap::new(),
            outputs: VecDeque::new(),
            effects: 0,
            now,
            stop_at: None,
        };
        replica.take();
        replica
    }

    /// Takes jobs while there are some and slots are free.
    fn take(&mut self) {
        while self.stop_at.is_none() && self.running.len() < CONCURRENCY {
            let job = self.shared.borrow_mut().queue.take(self.now);
            match job {
                None => return,
                Some(Job {
                    work: Work::FanOut, ..
                }) => self.shared.borrow_mut().fan_out(self.now),
                Some(Job {
                    work: Work::Sync(user),
                    attempt,
                }) => self.begin(user, attempt),
            }
        }
    }

    fn begin(&mut self, user: u32, attempt: u32) {
        let mut shared = self.shared.borrow_mut();
        shared.rows[user as usize].jobs -= 1;
        let Some(cursor) = shared.begin(user, self.now) else {
            return;
        };
        let fence = LeaseToken(shared.syncs_begun);
        drop(shared);
        let name = self.users[user as usize].clone();
        let sync = SyncMachine::new(name, fence, self.sync.clone(), cursor.as_deref(), 1);
        let mut running = Running {
            user,
            attempt,
            sync,
        };
        let step = running.sync.begin(self.now);
        self.go_on(running, step);
    }

    /// Does what a sync asks for next, or ends it.
    fn go_on(&mut self, mut running: Running, mut step: Step) {
        let op = loop {
            match step {
                Step::Fetch(request) => break Op::Fetch(Box::new(request)),
                Step::Write(write) => break Op::Graph(Box::new(write)),
                // Nobody counts requests here, and progress is kept only at the end.
                Step::Checkpoint { .. } => {
                    let saved = Answer::Saved { wait_until: None };
                    step = running.sync.resume(self.now, saved);
                }
                Step::End(end) => return self.end(&running, end),
            }
        };
        self.effects += 1;
        let id = EffectId(self.effects);
        self.running.insert(id, running);
        self.outputs.push_back(Output::Effect { id, op });
    }

    fn end(&mut self, running: &Running, end: End) {
        let mut shared = self.shared.borrow_mut();
        match end {
            End::Done { cursor, .. } => shared.succeeded(running.user, cursor),
            End::Failed(failure) if matches!(failure.kind, FailureKind::Limited { .. }) => {
                shared.swallowed(running.user);
            }
            End::Failed(_) | End::Wait { .. } | End::LeaseLost => {
                shared.failed(running.user, running.attempt, self.now);
            }
        }
    }

    fn done(&mut self, id: EffectId, result: EffectResult) {
        // What answers an effect of an earlier step, doubled on its way, is of no use.
        let Some(mut running) = self.running.remove(&id) else {
            return;
        };
        let answer = match result {
            EffectResult::Fetch(result) => Answer::Fetched(result),
            EffectResult::Graph(result) => Answer::Written(result),
            EffectResult::Store(_) | EffectResult::Panicked { .. } => {
                unreachable!("only requests and writes are asked for, and the world does not panic")
            }
        };
        let step = running.sync.resume(self.now, answer);
        self.go_on(running, step);
    }
}

impl Machine for Replica {
    fn handle_input(&mut self, now: Timestamp, input: Input) {
        self.now = now;
        match input {
            Input::Done { id, result } => self.done(id, result),
            Input::Wake | Input::Layout { .. } => {}
            // Rule 8.
            Input::Shutdown { deadline } => {
                self.stop_at = Some(deadline);
                let mut shared = self.shared.borrow_mut();
                shared.queue.remove_repeatable();
                shared.tell(|| "SIGTERM: the schedule is removed".to_owned());
            }
        }
        self.take();
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        self.take();
    }

    fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        if let Some(deadline) = self.stop_at {
            if self.running.is_empty() || self.now >= deadline {
                return Output::Finished;
            }
            let reason = Reason::Shutdown;
            return Output::Timeout {
                at: deadline,
                reason,
            };
        }
        let next = self.shared.borrow().queue.next_take_at(self.now);
        match next.filter(|_| self.running.len() < CONCURRENCY) {
            Some(at) => Output::Timeout {
                at,
                reason: Reason::Claim,
            },
            None => Output::Timeout {
                at: Timestamp::MAX,
                reason: Reason::Never,
            },
        }
    }

    fn running_jobs(&self) -> usize {
        self.running.len()
    }

    fn held_jobs(&self) -> usize {
        self.running.len()
    }

    fn store_is_away(&self) -> bool {
        false
    }
}
