//! The store: the real queue behind a network that loses and delays, with a clock of its own and a replica.

use kalends_core::id::SourceName;
use kalends_core::node::io::{EffectResult, Input};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, Refusal, Reply, Stamped};
use kalends_core::time::Timestamp;

use super::World;
use super::event::{Address, Event};
use super::push::Committed;
use super::trace::Moment;
use crate::invariants::promises::Asked;
use crate::invariants::{Seen, StoreLedger};
use crate::plan::OutageKind;

/// An operator's command that the store did not take is sent again after so long, in milliseconds.
const OPERATOR_RETRY_MS: u64 = 5_000;

/// The store's server.
pub(super) struct StoreServer {
    pub(super) queue: Queue,
    /// Its clock minus true time, in milliseconds.
    pub(super) clock_ms: i64,
    /// What it was when its replica fell behind, with what the ledgers knew then.
    pub(super) replica: Option<Box<(Queue, StoreLedger)>>,
    /// When a claim could give something, as was last called out.
    wake_at: Option<Timestamp>,
}

impl StoreServer {
    pub(super) fn new() -> Self {
        StoreServer {
            queue: Queue::new(),
            clock_ms: 0,
            replica: None,
            wake_at: None,
        }
    }
}

/// Commands after which somebody else may have something to do sooner than it knows.
fn may_hurry(command: &Command) -> bool {
    matches!(
        command,
        Command::Enqueue { .. }
            | Command::Tick { .. }
            | Command::Resume { .. }
            | Command::SetLimit { .. }
            | Command::RetryFailed { .. }
            | Command::Release { .. }
    )
}

impl World<'_> {
    /// The store's time.
    pub(super) fn store_now(&self) -> Timestamp {
        Timestamp::from_ms(self.now.as_ms() + self.store.clock_ms)
    }

    pub(super) fn send_to_store(&mut self, from: Address, command: Box<Command>) {
        if self.is_cut(self.weather.cut_store, from.process, "partition-store")
            || self.loses_message()
        {
            return;
        }
        let at = self.now.plus_ms(self.store_way_ms());
        if self.doubles() {
            let again_at = self.now.plus_ms(self.store_way_ms());
            let command = command.clone();
            self.heap.push(
                again_at,
                Event::ToStore {
                    from,
                    command,
                    served: false,
                },
            );
        }
        self.heap.push(
            at,
            Event::ToStore {
                from,
                command,
                served: false,
            },
        );
    }

    pub(super) fn at_store(&mut self, from: Address, command: Box<Command>, served: bool) {
        match self.weather.store {
            Some(OutageKind::Refusing) => return self.store_refuses(from, "store-refused"),
            Some(OutageKind::Breaking) => return self.store_refuses(from, "store-refused"),
            Some(OutageKind::Silent) => return self.marks.mark("store-silent"),
            None => {}
        }
        if self.weather.store_slow_ms_max > 0 && !served {
            let slow_ms = self.draw_network(u64::from(self.weather.store_slow_ms_max));
            let at = self.now.plus_ms(slow_ms);
            self.heap.push(
                at,
                Event::ToStore {
                    from,
                    command,
                    served: true,
                },
            );
            return;
        }
        let (now, reply) = self.apply(Some(from.process), *command);
        if self.weather.reply_lost_ppm > 0 && self.chance(self.weather.reply_lost_ppm) {
            self.marks.mark("reply-lost");
            return;
        }
        let result = EffectResult::Store(Ok(Stamped { now, value: reply }));
        self.send_back_from_store(from, result);
    }

    fn store_refuses(&mut self, from: Address, mark: &str) {
        self.marks.mark(mark);
        let detail = "connection refused".to_owned();
        self.send_back_from_store(from, EffectResult::Store(Err(StoreUnavailable { detail })));
    }

    fn send_back_from_store(&mut self, to: Address, result: EffectResult) {
        if self.is_cut(self.weather.cut_store, to.process, "partition-store")
            || self.loses_message()
        {
            return;
        }
        let at = self.now.plus_ms(self.store_way_ms());
        let result = Box::new(result);
        self.heap.push(at, Event::Back { to, result });
    }

    /// An operator's command: applied now, or as soon as the store takes it, in the order in which they were given.
    pub(super) fn operate(&mut self, command: Command) {
        if self.legacy.is_some() {
            // Nobody has such a lever on the replaced service.
            return;
        }
        self.operators.push_back(command);
        if self.operators.len() == 1 {
            self.operate_on();
        }
    }

    /// The operators try again.
    pub(super) fn operate_on(&mut self) {
        if self.weather.store.is_some() {
            let at = self.now.plus_ms(OPERATOR_RETRY_MS);
            self.heap.push(at, Event::Operator);
            return;
        }
        while let Some(command) = self.operators.pop_front() {
            // In a store that was emptied just now nobody has defined the source yet; users would be lost there.
            let about_users = matches!(command, Command::Enroll { .. } | Command::Connect { .. });
            let again = about_users.then(|| command.clone());
            let (_, reply) = self.apply(None, command);
            let unknown = matches!(
                reply,
                Reply::Refused {
                    refusal: Refusal::UnknownSource { .. }
                }
            );
            if let Some(command) = again.filter(|_| unknown) {
                self.operators.push_front(command);
                let at = self.now.plus_ms(OPERATOR_RETRY_MS);
                self.heap.push(at, Event::Operator);
                return;
            }
        }
    }

    /// Applies a command; every ledger looks on.
    pub(super) fn apply(&mut self, process: Option<u32>, command: Command) -> (Timestamp, Reply) {
        let now = self.store_now();
        self.tally.commands += 1;
        let seen = Seen::of(&command, self.users.len());
        let asked = Asked::of(&command, self.users.len());
        let kept = self.tracer.is_some().then(|| command.clone());
        let hurries = may_hurry(&command);
        let committed = match self.push {
            Some(_) => Committed::of(&command),
            None => None,
        };
        let reply = self.store.queue.apply(now, command);
        self.mark_reply(&seen, &reply);
        let verdict = self
            .ledger
            .observe(self.now, now, seen, &reply, &mut self.store.queue);
        self.store.queue.visit_changes(&mut self.hasher);
        let last = self.ledger.last;
        if last.started > 0 {
            self.wakers.started();
        }
        if last.syncs_started > 0 {
            let since_start_ms = self.now.since_ms(self.plan.size.start);
            self.tally.started(since_start_ms, last.syncs_started);
        }
        if let Some(user) = last.synced {
            self.tally.synced(user);
            self.synced(user, self.ledger.fresh_since(user as usize));
        }
        self.marks
            .mark_if(last.given_again > 0, "lease-given-again");
        if let Some(gap_ms) = last.gap_ms {
            self.tally.gap(gap_ms);
        }
        let ledger = &mut self.ledger;
        let kept_promises = ledger
            .promises
            .keep(now, asked, &reply, &mut self.store.queue);
        for verdict in [verdict, kept_promises] {
            if let Err(violation) = verdict {
                self.broken(violation);
            }
        }
        self.watch_reply(asked, now, &reply);
        if self.push.is_some() {
            self.watch_push(committed, now, &reply);
        }
        if let Some(command) = kept {
            self.tell(&Moment::Applied {
                process,
                store_now: now,
                command: &command,
                reply: &reply,
            });
        }
        if hurries {
            self.call_out(now);
        } else if let Reply::Claimed { next_at, .. } = &reply {
            self.store.wake_at = *next_at;
        }
        (now, reply)
    }

    /// Calls every process, if something may start sooner than was known.
    fn call_out(&mut self, now: Timestamp) {
        let known = self.store.wake_at.map(|at| at.max(now));
        self.store.wake_at = self.store.queue.next_wake_at(now);
        let sooner = match (self.store.wake_at, known) {
            (Some(at), Some(known)) => at < known || at == now,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !sooner {
            return;
        }
        for process in 0..self.plan.size.processes {
            if self.weather.wake_loss_ppm > 0 && self.chance(self.weather.wake_loss_ppm) {
                self.marks.mark("wake-lost");
                continue;
            }
            if self.weather.cut_store >> process & 1 == 1 {
                continue;
            }
            let incarnation = self.processes[process as usize].incarnation;
            let at = self.now.plus_ms(self.store_way_ms());
            self.heap.push(
                at,
                Event::Call {
                    process,
                    incarnation,
                },
            );
        }
    }

    /// A process hears a call.
    pub(super) fn called(&mut self, process: u32, incarnation: u32) {
        if self.processes[process as usize].incarnation == incarnation {
            self.input(process, Input::Wake);
        }
    }

    /// The replica becomes the store.
    pub(super) fn fail_over(&mut self) {
        let Some(replica) = self.store.replica.take() else {
            return;
        };
        let (mut queue, mut ledger) = *replica;
        if queue != self.store.queue {
            self.marks.mark("failover-lost-writes");
        }
        // What changed since is hashed by the commands that follow.
        queue.visit_changes(&mut self.hasher);
        ledger.outlive(&self.ledger);
        self.store.queue = queue;
        self.ledger = ledger;
        self.store.wake_at = None;
    }

    /// Everything in the store is gone, in its replica as well.
    pub(super) fn empty_the_store(&mut self) {
        self.marks.mark("store-emptied");
        self.store.queue = Queue::new();
        self.store.queue.visit_changes(&mut self.hasher);
        self.store.replica = None;
        self.store.wake_at = None;
        self.ledger = self.ledger.emptied(self.plan.policy.backoff);
    }

    /// The source of all calendars.
    pub(super) fn source(&self) -> SourceName {
        SourceName::google_calendar()
    }
}
