//! Push: notifications on their way from Google to the webhooks of the fleet, the webhooks themselves, and what is watched over
//! of both. Only in plans that say so; what it draws comes from a sub-stream of its own.
//!
//! A notification goes by a load balancer to one of the processes that run. What finds nobody, or is told to come again, Google
//! sends again, later and later. Each process has a [`Listener`], the one of production, whose questions go over the same
//! network to the same store as those of its node; when the process dies, what its listener knew is gone.

use std::collections::{BTreeSet, VecDeque};

use kalends_core::google::query::FetchRequest;
use kalends_core::node::io::{EffectId, EffectResult};
use kalends_core::push::listener::{Listener, Notification, STOP_MS_MAX, Verdict, Wish};
use kalends_core::queue::command::{Command, Commit, CommitOutcome, Reply};
use kalends_core::queue::state::JobKey;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::sync::cursor::SyncCursor;
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::event::{Address, Event};
use super::trace::Moment;
use super::watch::troubles_store;
use super::{Phase, World};
use crate::google::{Notification as Told, channel_token, user_of_channel};
use crate::invariants::push::{Channels, PushLedger};
use crate::invariants::user_number;
use crate::legacy::Service;
use crate::plan::bound::{catch_up_ms, period_ms, waits_ms};
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
        let mut period = period_ms(&plan.policy.schedule, plan);
        let mut catch_up = catch_up_ms(plan, plan.policy.source.jobs.as_ref());
        for fault in &plan.faults {
            match &fault.kind {
                FaultKind::ChangeSchedule { schedule }
                | FaultKind::Deploy {
                    schedule: Some(schedule),
                    ..
                } => period = period.max(period_ms(schedule, plan)),
                FaultKind::SetLimit { limit } => {
                    catch_up = catch_up.max(catch_up_ms(plan, limit.as_ref()));
                }
                _ => {}
            }
        }
        Some(Box::new(PushWorld {
            rng: substream(plan.seed, "push"),
            ledger: PushLedger::new(settings, users),
            unseen: vec![VecDeque::new(); users],
            period_ms: period,
            // Twice: everybody may have asked for a sync of their own just before.
            bound_ms: 2 * catch_up + PATIENCE_MS,
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

/// What a commit tells of channels: kept beside the command, which the store takes.
pub(super) struct Committed {
    user: u32,
    cursor: SyncCursor,
    due_at: Option<Timestamp>,
    was_nominal: bool,
}

impl Committed {
    pub(super) fn of(command: &Command) -> Option<Self> {
        let Command::Complete { lease, commit } = command else {
            return None;
        };
        let JobKey::Sync { user, .. } = &lease.key else {
            return None;
        };
        let Commit {
            cursor: Some(cursor),
            next_due_at,
            outcome: CommitOutcome::Synced { .. },
        } = commit
        else {
            return None;
        };
        Some(Committed {
            user: user_number(user)?,
            cursor: SyncCursor::read(Some(cursor)),
            due_at: *next_due_at,
            was_nominal: next_due_at.is_some(),
        })
    }
}

/// Whether this is the answer to a webhook, and not to a node.
pub(super) fn is_for_webhook(id: EffectId) -> bool {
    id.0 & PUSH_BIT != 0
}

/// Whether a fault concerns notifications on their way alone.
fn is_harmless(kind: &FaultKind) -> bool {
    kind.family() == Family::Push && !matches!(kind, FaultKind::WatchLost { .. })
}

/// Whether a fault is that people want more than usual.
fn is_of_load(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::SyncAll | FaultKind::Flood { .. })
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
        push.ledger.may_ask_again(process, None);
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

    // -- on the way ------------------------------------------------------------------------------------------------

    /// Somebody has changed a calendar of the user.
    pub(super) fn changed(&mut self, user: u32) {
        if let Some(push) = &mut self.push {
            let unseen = &mut push.unseen[user as usize];
            if unseen.len() < UNSEEN_MAX {
                unseen.push_back(self.now);
            }
            self.send_notifications();
        }
    }

    /// What Google has to tell goes on its way.
    pub(super) fn send_notifications(&mut self) {
        if self.push.is_none() {
            return;
        }
        for told in self.google.notifications(self.now) {
            self.tally.push.sent += 1;
            if self.push_chance(self.weather.push_dropped_ppm) {
                self.marks.mark("push-dropped");
                self.tally.push.lost += 1;
                continue;
            }
            if self.push_chance(self.weather.push_doubled_ppm) {
                self.marks.mark("push-doubled");
                self.tally.push.doubled += 1;
                self.post(told.clone());
            }
            self.post(told);
        }
    }

    fn post(&mut self, told: Told) {
        let (least, most) = self.weather.push_delay_ms;
        self.marks.mark_if(most > 0, "push-late");
        let mut way_ms = u64::from(WAY.min_ms + least);
        way_ms += self.draw_push(u64::from(WAY.max_ms - WAY.min_ms));
        way_ms += self.draw_push(u64::from(most - least));
        let posted = Box::new(Posted { told, tries: 0 });
        let at = self.now.plus_ms(way_ms);
        self.heap.push(at, Event::Posted { posted });
    }

    /// A notification comes to the load balancer.
    pub(super) fn posted(&mut self, posted: Box<Posted>) {
        let processes = 0..self.plan.size.processes;
        let up: Vec<u32> = processes
            .filter(|process| self.processes[*process as usize].ear.is_some())
            .collect();
        if up.is_empty() {
            self.marks.mark("push-nobody-there");
            return self.come_again(posted);
        }
        let chosen = self.draw_push(up.len() as u64 - 1);
        let process = up[usize::try_from(chosen).expect("below the length")];
        let place = &mut self.processes[process as usize];
        if place.paused_at.is_some() {
            let incarnation = place.incarnation;
            place.held.push_back(Event::Hear {
                process,
                incarnation,
                posted,
            });
            return;
        }
        self.hear(process, posted);
    }

    /// A process that was paused finds a notification.
    pub(super) fn hear_late(&mut self, process: u32, incarnation: u32, posted: Box<Posted>) {
        let place = &self.processes[process as usize];
        if place.incarnation == incarnation && place.ear.is_some() {
            self.hear(process, posted);
        } else {
            self.tally.push.lost += 1;
        }
    }

    fn come_again(&mut self, mut posted: Box<Posted>) {
        if posted.told.forged {
            return;
        }
        if posted.tries >= AGAIN_MAX {
            self.marks.mark("push-given-up");
            self.tally.push.lost += 1;
            return;
        }
        let at = self.now.plus_ms(AGAIN_MS << posted.tries);
        posted.tries += 1;
        self.tally.push.came_again += 1;
        self.heap.push(at, Event::Posted { posted });
    }

    // -- a webhook -------------------------------------------------------------------------------------------------

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
                    self.tally.push.orphans += 1;
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
                let odd = |kind: &FaultKind| {
                    kind.family() == Family::Clock || troubles_store(kind)
                };
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
                    push.ledger.may_ask_again(to.process, None);
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

    // -- what is wrong ---------------------------------------------------------------------------------------------

    /// Somebody posts what Google never sent.
    pub(super) fn forge(&mut self, index: u32) {
        let FaultKind::PushForged { every_ms } = self.plan.faults[index as usize].kind else {
            panic!("only a forger forges");
        };
        if self.push.is_none() || !self.active[index as usize] {
            return;
        }
        let users = u64::from(self.plan.size.users);
        let drawn = self.draw_push(users - 1);
        let user = self.users[usize::try_from(drawn).expect("below the length")].clone();
        let live = self
            .google
            .channels_of(user.as_str(), "primary")
            .expect("a user of the emulator");
        let stolen = live.last().map_or("nobody-s", |(id, _)| id.as_str());
        let good = channel_token(&user, stolen);
        // A channel that there is with another's token, one's own channel, a token that is nearly good, none at all.
        let (channel, token) = match self.draw_push(3) {
            0 => (stolen.to_owned(), channel_token(&user, "another")),
            1 => ("kalends-0-00".to_owned(), good),
            2 => (stolen.to_owned(), good[..good.len() - 1].to_owned()),
            _ => (stolen.to_owned(), String::new()),
        };
        let header = |name: &str, value: String| (name.to_owned(), value);
        self.post(Told {
            at: self.now,
            address: String::new(),
            headers: vec![
                header("x-goog-channel-id", channel),
                header("x-goog-channel-token", token),
                header("x-goog-resource-state", "exists".to_owned()),
            ],
            forged: true,
        });
        let at = self.now.plus_ms(every_ms.max(1));
        self.heap.push(at, Event::Forge { index });
    }

    /// Google tells of one calendar again and again.
    pub(super) fn tell_again(&mut self, index: u32) {
        let FaultKind::PushFlood { user, every_ms } = self.plan.faults[index as usize].kind else {
            panic!("only a flood floods");
        };
        if self.push.is_none() || !self.active[index as usize] {
            return;
        }
        let user = self.users[(user % self.plan.size.users) as usize].clone();
        self.google
            .tell_again(self.now, user.as_str())
            .expect("a user of the emulator");
        self.send_notifications();
        let at = self.now.plus_ms(every_ms.max(1));
        self.heap.push(at, Event::TellAgain { index });
    }

    /// Whether Google's answer to this request is to be lost after a channel was made.
    pub(super) fn loses_watch(&mut self, request: &FetchRequest) -> bool {
        matches!(request, FetchRequest::Watch { .. })
            && self.push.is_some()
            && self.push_chance(self.weather.watch_lost_ppm)
    }

    // -- what is watched over --------------------------------------------------------------------------------------

    /// A channel is being asked for: the others that its calendar has.
    pub(super) fn channels_before(&self, request: &FetchRequest) -> Vec<(String, Timestamp)> {
        match request {
            FetchRequest::Watch { user, calendar, .. } if self.push.is_some() => self
                .google
                .channels_of(user.as_str(), calendar.as_str())
                .expect("a user of the emulator"),
            _ => Vec::new(),
        }
    }

    /// Google has answered; `before` was there before.
    pub(super) fn watch_channels(
        &mut self,
        request: &FetchRequest,
        before: &[(String, Timestamp)],
        has_failed: bool,
    ) {
        let Some(push) = &self.push else {
            return;
        };
        let FetchRequest::Watch {
            user,
            calendar,
            channel,
            ..
        } = request
        else {
            return;
        };
        let after = self.google.channels_of(user.as_str(), calendar.as_str());
        let after = after.expect("a user of the emulator");
        if !after.iter().any(|(id, _)| id == channel) {
            self.marks.mark("channel-refused");
            return;
        }
        self.marks.mark_if(has_failed, "channel-answer-lost");
        let number = user_number(user).expect("a user of the emulator");
        let now = self.now;
        let verdict = push
            .ledger
            .watched(now, number, before, |ms| self.push_is_well(ms));
        self.tally.push.made += 1;
        let (live, ended): (Vec<_>, Vec<_>) = before.iter().partition(|(_, end)| *end > now);
        self.tally.push.renewed += u64::from(!live.is_empty());
        self.marks.mark_if(!live.is_empty(), "channel-renewed");
        self.marks
            .mark_if(live.is_empty() && !ended.is_empty(), "channel-ended");
        self.judge(verdict);
        self.send_notifications();
    }

    /// Whether nothing but notifications went wrong within so many milliseconds, and Google has no quota of its own.
    fn push_is_well(&self, ms: u64) -> bool {
        self.plan.climate.google_quota.is_none()
            && !self.fault_within(ms, |kind| !is_harmless(kind))
    }

    /// The store has taken a command.
    pub(super) fn watch_push(
        &mut self,
        committed: Option<Committed>,
        store_now: Timestamp,
        reply: &Reply,
    ) {
        if let Reply::Claimed { leases, .. } = reply {
            let push = self.push.as_mut().expect("asked for by plans that watch");
            for lease in leases {
                if let JobKey::Sync { user, .. } = &lease.lease.key {
                    push.ledger.started(user_number(user).expect("a user"));
                }
            }
        }
        let Some(committed) = committed.filter(|_| *reply == Reply::Done) else {
            return;
        };
        let user = committed.user as usize;
        let begun_at = self.ledger.fresh_since(user);
        let push = self.push.as_mut().expect("asked for by plans that watch");
        let unseen = &mut push.unseen[user];
        while let Some(at) = unseen.front().copied().filter(|at| *at <= begun_at) {
            unseen.pop_front();
            if self.phase == Phase::Faults {
                self.tally.push.found(self.now.since_ms(at));
            }
        }
        let calendars = self.channels_of(&committed);
        let odd = |kind: &FaultKind| {
            kind.family() == Family::Clock || matches!(kind, FaultKind::StoreClockStep { .. })
        };
        let is_odd = self.fault_within(CLOCK_TROUBLE_MS, odd);
        let push = self.push.as_ref().expect("asked for by plans that watch");
        let due_at = committed.due_at.filter(|_| !is_odd);
        let verdict = push.ledger.committed(
            store_now,
            committed.user,
            due_at,
            push.period_ms,
            &calendars,
            |ms| self.push_is_well(ms),
        );
        let is_slow = due_at.is_some_and(|at| at > store_now.plus_ms(2 * push.period_ms));
        let is_slow_poll = is_slow && committed.was_nominal;
        self.tally.push.slow_polls += u64::from(is_slow_poll);
        self.marks.mark_if(is_slow_poll, "watched-polled");
        self.judge(verdict);
    }

    fn channels_of(&self, committed: &Committed) -> Vec<Channels> {
        let user = self.users[committed.user as usize].as_str();
        let calendars = committed.cursor.calendars.iter();
        let of = |calendar: &str| self.google.channels_of(user, calendar);
        calendars
            .map(|(calendar, cursor)| {
                let known = cursor.watch.channels.iter();
                let mut live = of(calendar.as_str()).expect("a user of the emulator");
                live.retain(|(_, end)| *end > self.now);
                Channels {
                    known: known.map(|channel| channel.id.clone()).collect(),
                    live,
                }
            })
            .collect()
    }

    /// Was all that was heard synced?
    pub(super) fn audit_push(&mut self) {
        let Some(push) = &self.push else {
            return;
        };
        let bound_ms = push.bound_ms;
        let trouble_ms = bound_ms + push.waits_ms + 2 * super::AUDIT_EVERY_MS;
        let is_up = self.processes.iter().all(super::Process::is_up);
        let is_well = is_up
            && self.phase == Phase::Faults
            && !self.fault_within(trouble_ms, |kind| !is_of_load(kind) && !is_harmless(kind));
        let push = self.push.as_mut().expect("looked at just now");
        if !is_well {
            return push.ledger.excuse();
        }
        let ledger = &self.ledger;
        let verdict = push
            .ledger
            .look(self.now, bound_ms, |user| ledger.accepts(user));
        self.judge(verdict);
    }

    /// The world has become well: what channels there are.
    pub(super) fn count_channels(&mut self) {
        if self.push.is_none() {
            return;
        }
        for user in &self.users {
            let name = user.as_str();
            let calendars = match self.plan.size.calendars_per_user {
                1 => vec!["primary".to_owned()],
                _ => self.google.calendars(name).expect("a user of the emulator"),
            };
            for calendar in calendars {
                let channels = self.google.channels_of(name, &calendar);
                let channels = channels.expect("a user of the emulator");
                let live = channels.iter().filter(|(_, end)| *end > self.now).count() as u64;
                self.tally.push.left_over += live.saturating_sub(1);
                self.tally.push.unwatched += u64::from(live == 0);
            }
        }
    }
}
