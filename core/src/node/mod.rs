//! The Node machine: one process of the fleet, without I/O.
//!
//! A node decides which tick is due and what was missed, lays a fan-out's users over the period, claims jobs, runs one
//! [`SyncMachine`](crate::sync::SyncMachine) a slot, sends heartbeats, gives up effects that hang, keeps asking a store
//! that is away, and drains at shutdown. It reads no clock and does no I/O: see the loop in the [crate's
//! documentation](crate).
//!
//! # How to drive it
//!
//! - [`Node::handle_input`] for whatever happened, [`Node::handle_timeout`] when the announced time has come;
//! - after each, or after a few that came together, [`Node::poll_output`] until it says [`Output::Timeout`] (nothing
//!   more to say for now) or [`Output::Finished`];
//! - each [`Output::Effect`] is performed, in any order and at the same time as others, and its result brought back.
//!
//! # Time
//!
//! The driver's time is local and need only be steady; it is best taken from a monotonic clock. Each store reply
//! carries the store's time, and the node keeps the difference: ticks, leases and gates are judged by the store's clock
//! alone, so a process whose clock is five minutes off neither runs anything early nor steals leases.
//!
//! # Slots
//!
//! The concurrency bounds the jobs that *run*. A job's slot is free for the next one as soon as its work is done and its
//! end is on its way to the store; the job itself stays until the store has acknowledged the end, is sent again after an
//! outage, gets heartbeats, and is named in each claim as held. So the ends of some jobs and the claim for the next ones
//! travel together, and a round trip to a store that is a network away is paid once for a whole claim. What stays is
//! bounded: [`HELD_PER_SLOT`]. While jobs are very short, a node holds leases of some that have not begun, too: see
//! [`prefetch`].
//!
//! # Rooms
//!
//! [`io`] is what goes in and out; [`settings`] what it is told at the start; `boot` makes that known to the store; `link` talks to the store and its clock;
//! `ticks` fires schedules; `fan_out` lays users over a period; `claims` decides when to ask for jobs, and keeps their
//! leases alive; [`prefetch`] decides for how many; `slots` holds them; `jobs` runs them and ends them.

mod boot;
mod claims;
mod fan_out;
pub mod io;
mod jobs;
mod link;
pub mod prefetch;
pub mod settings;
mod slots;
mod ticks;

pub use fan_out::Progress as FanOutProgress;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::google::page::EventsPage;
use crate::google::query::EventsQuery;
use crate::id::{ScheduleName, SourceName};
use crate::mutant::{Mutant, planted};
use crate::queue::command::{Command, LeaseRef, Reply};
use crate::rng::{KalendsRng, substream};
use crate::time::Timestamp;
use boot::boot_commands;
use claims::{ClaimState, HeartbeatState};
use io::{EffectId, EffectResult, Input, Notice, Op, Output, Reason};
use link::{EffectKind, Effects, InFlight, Purpose, StoreLink};
use prefetch::Prefetch;
use settings::{NodeSettings, SourceDefinition};
use slots::{Slots, Work};
use ticks::TickView;

/// Fan-outs at a time in one process: a lane of their own.
pub const FAN_OUT_SLOTS: u32 = 1;
/// Sync jobs that one process holds at the most, for each that runs or is ready: itself, and one whose end the store has
/// not acknowledged yet. (And never more than fit into one claim or heartbeat, [`BATCH_MAX`](crate::queue::command::BATCH_MAX).)
pub const HELD_PER_SLOT: u32 = 2;
/// Users in one page of a fan-out: its jobs and the progress are one step of the store, which must stay short.
pub const FAN_OUT_PAGE: u32 = 250;
/// How often the list of schedules is read again, in milliseconds: schedules that other processes define. The node also
/// asks then whether the store still knows its sources.
pub const SCHEDULES_REFRESH_MS: u64 = 60_000;
/// This long before a shutdown's deadline the jobs that still run are handed back, in milliseconds.
pub const HAND_BACK_MS: u64 = 2_000;

/// One process of the fleet. See the [module documentation](self).
///
/// It is a value: a copy, also one that was written and read back while [`is_drained`](Node::is_drained), goes on as the
/// original does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    settings: NodeSettings,
    /// What was decided and not yet asked for; a copy is only written when all was asked for.
    #[serde(skip)]
    outputs: VecDeque<Output>,
    /// Something happened at this time, and what is due since then is not done yet (the driver's clock).
    due_at: Option<Timestamp>,
    effects: Effects,
    link: StoreLink,
    /// Commands that make sources, schedules and users known; work begins when they are done.
    boot: VecDeque<Command>,
    booted: bool,
    ticks: BTreeMap<ScheduleName, TickView>,
    refresh_at: Timestamp,
    refreshing: bool,
    claim: ClaimState,
    prefetch: Prefetch,
    heartbeat: HeartbeatState,
    slots: Slots,
    /// Gates of whole sources that are known to be closed, until then (store time).
    gates: BTreeMap<SourceName, Timestamp>,
    /// Of each source's query: the same for all its jobs.
    fingerprints: BTreeMap<SourceName, u64>,
    jitter_rng: KalendsRng,
    backoff_rng: KalendsRng,
    shutdown: Option<Timestamp>,
    finished: bool,
}

fn fingerprint_of(source: &SourceDefinition) -> (SourceName, u64) {
    let fingerprint = EventsQuery::fingerprint(source.sync.page_size);
    (source.name.clone(), fingerprint)
}

impl Node {
    /// A node that begins at once: its first outputs define sources, schedules and users.
    ///
    /// # Panics
    /// If the settings are out of bounds (no slot at all, a lease of zero): a fault of the caller, who checks them.
    #[must_use]
    pub fn new(now: Timestamp, settings: NodeSettings) -> Self {
        assert!(settings.concurrency > 0, "a node needs at least one slot");
        assert!(
            settings.lease_ms >= 3,
            "a lease must be long enough for a heartbeat"
        );
        let seed = settings.seed;
        let mut node = Node {
            link: StoreLink::new(substream(seed, "store-backoff")),
            jitter_rng: substream(seed, "jitter"),
            backoff_rng: substream(seed, "backoff"),
            boot: boot_commands(&settings),
            fingerprints: settings.sources.iter().map(fingerprint_of).collect(),
            settings,
            outputs: VecDeque::new(),
            due_at: None,
            effects: Effects::default(),
            booted: false,
            ticks: BTreeMap::new(),
            refresh_at: now.plus_ms(SCHEDULES_REFRESH_MS),
            refreshing: false,
            claim: ClaimState::default(),
            prefetch: Prefetch::default(),
            heartbeat: HeartbeatState::default(),
            slots: Slots::default(),
            gates: BTreeMap::new(),
            shutdown: None,
            finished: false,
        };
        node.send_boot(now);
        node
    }

    // -- what the driver tells -------------------------------------------------------------------------------------

    /// Takes what happened at `now` (the driver's clock).
    pub fn handle_input(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Wake => self.claim.soon(now),
            Input::Layout { spread, jitter } => {
                self.settings.spread = spread;
                self.settings.jitter = jitter;
            }
            Input::Shutdown { mut deadline } => {
                if planted(Mutant::ShutdownLate) {
                    deadline = deadline.plus_ms(SCHEDULES_REFRESH_MS);
                }
                self.shutdown = Some(self.shutdown.map_or(deadline, |old| old.min(deadline)));
            }
            Input::Done { id, result } => {
                // An effect that is not known was given up before; its late result is of no interest.
                if let Some(ended) = self.effects.end(id) {
                    self.effect_ended(now, ended, result);
                }
            }
        }
        self.due_at = Some(now);
    }

    /// The announced time has come (or any other: calling it early or twice does no harm).
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.due_at = Some(now);
    }

    // -- what the driver asks --------------------------------------------------------------------------------------

    /// What to do next; to be called until it says [`Output::Timeout`] or [`Output::Finished`].
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        // Only now, so that jobs that ended together are followed by one claim for all their slots.
        if let Some(now) = self.due_at.take() {
            self.advance(now);
        }
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        if self.finished {
            return Output::Finished;
        }
        let (at, reason) = self.next_timeout();
        Output::Timeout { at, reason }
    }

    /// Whether sources, schedules and users are defined and work has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.booted
    }

    /// Whether the store is away just now.
    #[must_use]
    pub fn store_is_away(&self) -> bool {
        self.link.is_away()
    }

    /// How many jobs run here; those whose end is on its way to the store do not run any more.
    #[must_use]
    pub fn running_jobs(&self) -> usize {
        self.slots.running()
    }

    /// How many leases this process holds: of jobs that are ready, of those that run, and of those whose end the store has
    /// not acknowledged yet.
    #[must_use]
    pub fn held_jobs(&self) -> usize {
        self.slots.len()
    }

    /// What it was told at its start.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The jobs whose leases this process holds, with the attempt and the tick of each.
    pub fn leases(&self) -> impl Iterator<Item = (&LeaseRef, u32, Option<Timestamp>)> + '_ {
        self.slots.facts()
    }

    /// Whether anything that was decided waits to be asked for: only a node without may be copied by serialisation.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.outputs.is_empty() && self.due_at.is_none()
    }

    /// The hash by which the job that waits for `id` will see whether `page` changes its calendar's own properties. For
    /// recordings, which tell the hash instead of the properties; changes nothing.
    #[must_use]
    pub fn calendar_hash(&self, id: EffectId, page: &EventsPage) -> Option<u64> {
        let Purpose::Job(token) = self.effects.purpose(id)? else {
            return None;
        };
        match &self.slots.get(*token)?.work {
            Work::Sync { machine, .. } => machine.row_hash(page),
            Work::FanOut(_) => None,
        }
    }

    /// The store's time when the driver's clock says `now`.
    #[must_use]
    pub fn store_now(&self, now: Timestamp) -> Timestamp {
        self.link.store_time(now)
    }

    // -- inside ----------------------------------------------------------------------------------------------------

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    /// Sends a command, or keeps it until the store is asked again.
    fn send_store(&mut self, now: Timestamp, purpose: Purpose, command: Command) {
        if self.link.is_closed(now) {
            self.link.hold(purpose, command);
            return;
        }
        let timeout_ms = self.settings.deadlines.store_ms;
        let token = if let Purpose::Job(token) = &purpose {
            Some(*token)
        } else {
            None
        };
        let command = Box::new(command);
        let kept = purpose.is_sent_again().then(|| command.clone());
        let id = self
            .effects
            .begin(purpose, kept, now, timeout_ms, EffectKind::Store);
        self.outputs.push_back(Output::Effect {
            id,
            op: Op::Store(command),
        });
        if let Some(slot) = token.and_then(|token| self.slots.get_mut(token)) {
            slot.effect = Some(id);
        }
    }

    #[expect(
        clippy::boxed_local,
        reason = "boxed as it was kept: it is large to move, and mostly only its purpose is wanted"
    )]
    fn effect_ended(&mut self, now: Timestamp, ended: Box<InFlight>, result: EffectResult) {
        let InFlight {
            purpose,
            command,
            kind,
            ..
        } = *ended;
        match (kind, result) {
            (EffectKind::Store, EffectResult::Store(Ok(stamped))) => {
                for notice in self.link.answered(now, stamped.now) {
                    self.notice(notice);
                }
                self.store_answered(now, purpose, stamped.value);
            }
            (EffectKind::Store, EffectResult::Store(Err(unavailable))) => {
                self.store_failed(now, purpose, command, unavailable.detail);
            }
            (EffectKind::Store, EffectResult::Panicked { detail }) => {
                let detail = format!("the store adapter panicked: {detail}");
                self.store_failed(now, purpose, command, detail);
            }
            (_, result) => {
                let Purpose::Job(token) = purpose else {
                    panic!("only jobs fetch and write, not {purpose:?}");
                };
                self.job_effect_ended(now, token, result);
            }
        }
    }

    fn store_failed(
        &mut self,
        now: Timestamp,
        purpose: Purpose,
        command: Option<Box<Command>>,
        detail: String,
    ) {
        if let Some(notice) = self.link.failed(now, detail) {
            self.notice(notice);
        }
        let retry_at = self.link.retry_at();
        match purpose {
            Purpose::Claim => self.claim.failed(retry_at),
            Purpose::Heartbeat => self.heartbeat.failed(retry_at),
            Purpose::Refresh => self.refreshing = false,
            // The next refresh asks again.
            Purpose::Probe => {}
            Purpose::Tick { schedule, .. } => {
                if let Some(view) = self.ticks.get_mut(&schedule) {
                    view.in_flight = false;
                }
            }
            Purpose::Boot | Purpose::FirstSync | Purpose::Job(_) => {
                let command = command.expect("a command that is sent again was kept");
                self.link.hold(purpose, *command);
            }
        }
    }

    fn store_answered(&mut self, now: Timestamp, purpose: Purpose, reply: Reply) {
        match purpose {
            Purpose::Boot => self.boot_answered(now, reply),
            Purpose::FirstSync => self.expect_accepted("first syncs", &reply),
            Purpose::Refresh => {
                self.refreshing = false;
                if let Reply::Schedules { schedules } = reply {
                    self.ticks_refreshed(schedules);
                }
            }
            Purpose::Probe => self.probed(now, &reply),
            Purpose::Tick {
                schedule,
                at,
                fire,
                missed,
            } => {
                self.tick_answered(now, schedule, at, fire, missed, reply);
            }
            Purpose::Claim => self.claimed(now, reply),
            Purpose::Heartbeat => self.heartbeat_answered(now, reply),
            Purpose::Job(token) => self.job_answered(now, token, reply),
        }
    }

    fn expect_accepted(&mut self, what: &str, reply: &Reply) {
        if let Reply::Refused { refusal } = reply {
            self.notice(Notice::Refused {
                detail: format!("{what}: {refusal}"),
            });
        }
    }

    // -- what is due -----------------------------------------------------------------------------------------------

    /// Does everything that is due at `now`. Afterwards nothing is due that this node could do something about.
    fn advance(&mut self, now: Timestamp) {
        if self.finished {
            return;
        }
        while let Some((id, late)) = self.effects.expire(now) {
            self.outputs.push_back(Output::Cancel { id });
            self.notice(Notice::EffectTimedOut {
                what: late.kind.name(),
                after_ms: late.timeout_ms,
            });
            let result = late.timed_out();
            self.effect_ended(now, late, result);
        }
        while let Some((purpose, command)) = self.link.release(now) {
            self.send_store(now, purpose, command);
        }
        self.hand_back_ready(now);
        let is_open = self.booted && !self.link.is_closed(now);
        if is_open && self.shutdown.is_none() {
            if self.settings.fan_out_slots > 0 {
                self.send_ticks(now);
            }
            self.send_refresh(now);
            // Before more begin: the store looks for the next ones while these are worked off.
            self.send_claim(now);
        }
        self.begin_ready(now);
        if is_open {
            self.send_claim(now);
            self.send_heartbeat(now);
        }
        if let Some(deadline) = self.shutdown {
            self.shut_down(now, deadline);
        }
    }

    // -- the end ---------------------------------------------------------------------------------------------------

    fn shut_down(&mut self, now: Timestamp, deadline: Timestamp) {
        if now >= deadline.minus_ms(HAND_BACK_MS) {
            self.hand_back_all(now);
        }
        let idle = self.slots.is_empty() && !self.claim.is_in_flight();
        if idle || now >= deadline {
            self.finished = true;
        }
    }

    // -- the next timeout ------------------------------------------------------------------------------------------

    fn next_timeout(&self) -> (Timestamp, Reason) {
        let mut next = (Timestamp::MAX, Reason::Never);
        let mut offer = |at: Timestamp, reason: Reason| {
            if at < next.0 {
                next = (at, reason);
            }
        };
        if let Some(at) = self.effects.next_deadline() {
            offer(at, Reason::EffectDeadline);
        }
        if self.link.has_held() {
            offer(self.link.retry_at(), Reason::StoreRetry);
        }
        // While the store is away nothing else can be sent before it is asked again.
        let open_at = self.link.retry_at();
        if self.booted {
            if self.shutdown.is_none() {
                if let Some(at) = self.next_tick_at() {
                    offer(at.max(open_at), Reason::Tick);
                }
                if let Some(at) = self.next_claim_at() {
                    offer(at.max(open_at), Reason::Claim);
                }
                if !self.refreshing {
                    offer(self.refresh_at.max(open_at), Reason::Tick);
                }
            }
            if let Some(at) = self.next_heartbeat_at() {
                offer(at.max(open_at), Reason::Heartbeat);
            }
        }
        if let Some(at) = self.next_hand_back_at() {
            offer(at, Reason::HandBack);
        }
        if let Some(deadline) = self.shutdown {
            let hand_back_at = deadline.minus_ms(HAND_BACK_MS);
            let at = if self.slots.running() > 0 {
                hand_back_at
            } else {
                deadline
            };
            offer(at, Reason::Shutdown);
        }
        next
    }
}
