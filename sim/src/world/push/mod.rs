//! Push: notifications on their way from Google to the webhooks of the fleet, the webhooks themselves, and what is watched over
//! of both. Only in plans that say so; what it draws comes from a sub-stream of its own.
//!
//! A notification goes by a load balancer to one of the processes that run. What finds nobody, or is told to come again, Google
//! sends again, later and later. Each process has a [`Listener`], the one of production, whose questions go over the same
//! network to the same store as those of its node; when the process dies, what its listener knew is gone.

mod look;
mod post;

use std::collections::{BTreeSet, VecDeque};

use kalends_core::node::io::{EffectId, EffectResult};
use kalends_core::push::listener::{Listener, Notification, STOP_MS_MAX, Verdict, Wish};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::World;
use super::event::{Address, Event};
use super::trace::Moment;
use super::watch::troubles_store;
use crate::google::{Notification as Told, user_of_channel};
use crate::invariants::push::PushLedger;

use crate::invariants::user_number;
use crate::legacy::Service;
use crate::plan::bound::{paces_ms, waits_ms};
use crate::plan::{Family, FaultKind, Plan, Span};

/// Marks the effects of a webhook among those of its process's node.
const PUSH_BIT: u64 = 1 << 40;
/// Marks those of them that stop a channel.
const STOP_BIT: u64 = 1 << 41;
/// From Google to a webhook, when nothing is wrong.
const WAY: Span = Span::new(20, 400);
/// Google sends again what could not be taken, first after this, in milliseconds, then each time after twice as long.
const AGAIN_MS: u64 = 1_000;
/// And so often at the most.
const AGAIN_MAX: u32 = 6;
/// Changes of one user whose sync is waited for are remembered up to so many; of more than that the oldest count.
const UNSEEN_MAX: usize = 10_000;
/// Beyond its debounce a sync that was asked for may wait for so long in a world that is well, in milliseconds: calls, polls, a
/// look after what came meanwhile, and its turn among those whose turn it is.
const PATIENCE_MS: u64 = 2 * MINUTE_MS;
/// No outage that is drawn lasts longer, with what follows it, in milliseconds.
const CLOCK_TROUBLE_MS: u64 = 130 * MINUTE_MS;

pub(super) use look::Committed;

/// What there is of push in the world.
pub(super) struct PushWorld {
    rng: KalendsRng,
    ledger: PushLedger,
    /// Changes of each user that no sync has found yet.
    unseen: Vec<VecDeque<Timestamp>>,
    /// The longest period of the schedules that the plan knows, in milliseconds.
    period_ms: u64,
    bound_ms: u64,
    /// The longest wait that a fault may leave behind, in milliseconds.
    waits_ms: u64,
}

impl PushWorld {
    /// That of a plan, if it watches calendars.
    pub(super) fn of(plan: &Plan) -> Option<Box<Self>> {
        let settings = plan.policy.push?;
        if plan.service != Service::Kalends {
            return None;
        }
        let users = plan.size.users as usize;
        let (period_ms, catch_up_ms) = paces_ms(plan);
        Some(Box::new(PushWorld {
            rng: substream(plan.seed, "push"),
            ledger: PushLedger::new(settings, users),
            unseen: vec![VecDeque::new(); users],
            period_ms,
            // Twice: everybody may have asked for a sync of their own just before.
            bound_ms: 2 * catch_up_ms + PATIENCE_MS,
            waits_ms: waits_ms(plan),
        }))
    }
}

/// The webhook of one process.
pub(super) struct Ear {
    listener: Listener,
    /// When it is to be called, true time; the earliest that is planned.
    wake_at: Timestamp,
    /// Stops that have not ended.
    stops: BTreeSet<u64>,
    stops_begun: u64,
}

/// A notification on its way.
pub(crate) struct Posted {
    told: Told,
    /// How often it was sent before.
    tries: u32,
}

/// Whether this is the answer to a webhook, and not to a node.
pub(super) fn is_for_webhook(id: EffectId) -> bool {
    id.0 & PUSH_BIT != 0
}

fn header<'a>(told: &'a Told, name: &str) -> Option<&'a str> {
    let found = told.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

impl World<'_> {
    fn draw_push(&mut self, bound: u64) -> u64 {
        let push = self.push.as_mut().expect("only plans that watch draw this");
        uniform(&mut push.rng, bound)
    }

    fn push_chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.draw_push(999_999) < u64::from(ppm)
    }

    /// The webhook of a process that starts now.
    pub(super) fn new_ear(&mut self, process: u32) -> Option<Box<Ear>> {
        let source = self.source();
        let push = self.push.as_mut()?;
        push.ledger.may_ask_again(process);
        Some(Box::new(Ear {
            listener: Listener::new(source),
            wake_at: Timestamp::MAX,
            stops: BTreeSet::new(),
            stops_begun: 0,
        }))
    }

    /// A process was told to stop.
    pub(super) fn close_ear(&mut self, index: u32) {
        if let Some(ear) = &mut self.processes[index as usize].ear {
            ear.listener.close();
            self.listen(index);
        }
    }

    fn hear(&mut self, process: u32, posted: Box<Posted>) {
        let place = &mut self.processes[process as usize];
        let machine = place.machine.as_ref();
        let store_is_away = machine.is_none_or(|machine| machine.store_is_away());
        let ear = place.ear.as_mut().expect("looked at just now");
        let told = &posted.told;
        let notification = Notification::read(|name| header(told, name));
        let judged = notification.map(|notification| notification.judge(user_of_channel));
        let (user, verdict) = match judged {
            None => (None, Verdict::Forged),
            Some(Err(verdict)) => (None, verdict),
            Some(Ok(heard)) => {
                let user = heard.user.clone();
                (Some(user), ear.listener.hear(heard, store_is_away))
            }
        };
        self.hasher.word(u64::from(verdict.status()));
        let number = user.as_ref().and_then(user_number).unwrap_or(0);
        let push = self.push.as_mut().expect("a webhook is one of push");
        let now = self.now;
        let told = push
            .ledger
            .answered(now, number, posted.told.forged, verdict);
        self.judge(told);
        self.tell(&Moment::Heard {
            process,
            user: user.as_ref(),
            verdict,
        });
        match verdict {
            Verdict::Forged => {
                self.tally.push.refused += 1;
                self.marks.mark("push-forged");
            }
            Verdict::Channel => self.marks.mark("channel-told"),
            Verdict::Accepted => {
                self.tally.push.accepted += 1;
                self.marks.mark("push-accepted");
                self.marks.mark_if(posted.tries > 0, "push-came-again");
            }
            Verdict::ComeAgain => {
                self.marks.mark("push-not-now");
                self.come_again(posted);
            }
        }
        self.listen(process);
    }

    /// Does what a webhook wishes, until it wishes nothing.
    pub(super) fn listen(&mut self, process: u32) {
        loop {
            let (now, place) = (self.now, &mut self.processes[process as usize]);
            let local = place.clock.local(now);
            let Some(ear) = place.ear.as_mut().filter(|_| place.paused_at.is_none()) else {
                return;
            };
            let incarnation = place.incarnation;
            match ear.listener.poll(local) {
                Some(Wish::Ask { number, command }) => {
                    let id = EffectId(PUSH_BIT | number);
                    self.ask_by_webhook(
                        Address {
                            process,
                            incarnation,
                            id,
                        },
                        command,
                    );
                }
                Some(Wish::Stop(request)) => {
                    ear.stops_begun += 1;
                    let number = ear.stops_begun;
                    ear.stops.insert(number);
                    self.marks.mark("orphan-stopped");
                    let id = EffectId(PUSH_BIT | STOP_BIT | number);
                    let from = Address {
                        process,
                        incarnation,
                        id,
                    };
                    let at = now.plus_ms(STOP_MS_MAX);
                    self.heap.push(at, Event::StopDue { from });
                    self.send_to_google(from, Box::new(request));
                }
                None => {
                    let Some(at) = ear.listener.wake_at() else {
                        return;
                    };
                    let at = place.clock.true_at(at).max(now.plus_ms(1));
                    if at < ear.wake_at && at < Timestamp::MAX {
                        ear.wake_at = at;
                        let event = Event::Listen {
                            process,
                            incarnation,
                        };
                        self.heap.push(at, event);
                    }
                    return;
                }
            }
        }
    }

    fn ask_by_webhook(&mut self, from: Address, command: Box<Command>) {
        self.hasher.word(from.id.0 << 8 | u64::from(from.process));
        self.tally.push.questions += 1;
        match &*command {
            Command::User { user, .. } => {
                let user = user_number(user).expect("a user of the emulator");
                let odd = |kind: &FaultKind| kind.family() == Family::Clock || troubles_store(kind);
                let is_well = !self.fault_within(CLOCK_TROUBLE_MS, odd);
                let push = self.push.as_mut().expect("a webhook is one of push");
                let verdict = push.ledger.asks(self.now, from.process, user, is_well);
                self.judge(verdict);
            }
            _ => self.tally.push.asked += 1,
        }
        self.send_to_store(from, command);
    }

    /// Its time has come.
    pub(super) fn listen_again(&mut self, process: u32, incarnation: u32) {
        let now = self.now;
        let place = &mut self.processes[process as usize];
        if place.incarnation != incarnation {
            return;
        }
        if let Some(ear) = &mut place.ear
            && ear.wake_at <= now
        {
            ear.wake_at = Timestamp::MAX;
            self.listen(process);
        }
    }

    /// An answer reaches a webhook.
    pub(super) fn webhook_answered(&mut self, to: Address, result: EffectResult) {
        let (now, place) = (self.now, &mut self.processes[to.process as usize]);
        let local = place.clock.local(now);
        let Some(ear) = place.ear.as_mut() else {
            return;
        };
        let number = to.id.0 & !(PUSH_BIT | STOP_BIT);
        match result {
            EffectResult::Store(result) => {
                if result.is_err() {
                    let push = self.push.as_mut().expect("a webhook is one of push");
                    push.ledger.may_ask_again(to.process);
                }
                if let Ok(Stamped {
                    value: Reply::Enqueued { added, .. },
                    ..
                }) = &result
                {
                    self.tally.push.added += *added;
                }
                ear.listener.answered(local, number, result);
            }
            _ => {
                if ear.stops.remove(&number) {
                    ear.listener.stopped();
                }
            }
        }
        self.listen(to.process);
    }

    /// A stop is not waited for any more.
    pub(super) fn stop_due(&mut self, from: Address) {
        let place = &mut self.processes[from.process as usize];
        if place.incarnation != from.incarnation {
            return;
        }
        let number = from.id.0 & !(PUSH_BIT | STOP_BIT);
        if let Some(ear) = &mut place.ear
            && ear.stops.remove(&number)
        {
            ear.listener.stopped();
        }
    }
}
