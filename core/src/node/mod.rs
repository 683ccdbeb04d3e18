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
//! - after each, [`Node::poll_output`] until it says [`Output::Timeout`] (nothing more to say for now) or
//!   [`Output::Finished`];
//! - each [`Output::Effect`] is performed, in any order and at the same time as others, and its result brought back.
//!
//! # Time
//!
//! The driver's time is local and need only be steady; it is best taken from a monotonic clock. Each store reply
//! carries the store's time, and the node keeps the difference: ticks, leases and gates are judged by the store's clock
//! alone, so a process whose clock is five minutes off neither runs anything early nor steals leases.
//!
//! # Rooms
//!
//! [`io`] is what goes in and out; [`settings`] what it is told at the start; `link` talks to the store and its clock;
//! `ticks` fires schedules; `fan_out` lays users over a period; `jobs` runs leased jobs and ends them.

mod fan_out;
pub mod io;
mod jobs;
mod link;
pub mod settings;
mod ticks;

use std::collections::{BTreeMap, VecDeque};

use crate::id::{ScheduleName, SourceName};
use crate::queue::command::{BATCH_MAX, Command, LeaseRef, LeaseToken, NewJob, Priority, Reply};
use crate::rng::{KalendsRng, substream};
use crate::time::Timestamp;
use io::{EffectResult, Input, Notice, Op, Output, Reason};
use jobs::Slot;
use link::{EffectKind, Effects, Purpose, StoreLink};
use settings::NodeSettings;
use ticks::TickView;

/// Fan-outs at a time in one process: a lane of their own.
pub const FAN_OUT_SLOTS: u32 = 1;
/// Users in one page of a fan-out.
pub const FAN_OUT_PAGE: u32 = 500;
/// How often the list of schedules is read again, in milliseconds: schedules that other processes define.
pub const SCHEDULES_REFRESH_MS: u64 = 60_000;
/// The least time between two claims that gave nothing, in milliseconds; it doubles while they go on giving nothing.
pub const CLAIM_GAP_MS: u64 = 10;
/// How often that gap doubles at the most: to 5 s, the poll.
const CLAIM_DOUBLINGS_MAX: u32 = 9;
/// This long before a shutdown's deadline the jobs that still run are handed back, in milliseconds.
pub const HAND_BACK_MS: u64 = 2_000;

/// When to claim, and whether a claim is under way.
#[derive(Debug, Default)]
struct ClaimState {
    in_flight: bool,
    /// On the driver's clock.
    at: Timestamp,
    /// The last claim filled every slot it asked for: there may be more.
    more: bool,
    /// Something called while a claim was under way: it may have come too late for that one.
    again: bool,
    /// Claims in a row that gave nothing although something was said to be due.
    empty_in_a_row: u32,
}

impl ClaimState {
    /// Something may be due now.
    fn soon(&mut self, now: Timestamp) {
        self.at = self.at.min(now);
        self.again |= self.in_flight;
        self.empty_in_a_row = 0;
    }
}

/// When to send a heartbeat, and whether one is under way.
#[derive(Debug, Default)]
struct HeartbeatState {
    in_flight: bool,
    /// On the driver's clock.
    at: Timestamp,
}

/// One process of the fleet. See the [module documentation](self).
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    outputs: VecDeque<Output>,
    effects: Effects,
    link: StoreLink,
    /// Commands that make sources, schedules and users known; work begins when they are done.
    boot: VecDeque<Command>,
    booted: bool,
    ticks: BTreeMap<ScheduleName, TickView>,
    refresh_at: Timestamp,
    refreshing: bool,
    claim: ClaimState,
    heartbeat: HeartbeatState,
    slots: BTreeMap<LeaseToken, Slot>,
    /// Gates of whole sources that are known to be closed, until then (store time).
    gates: BTreeMap<SourceName, Timestamp>,
    jitter_rng: KalendsRng,
    backoff_rng: KalendsRng,
    shutdown: Option<Timestamp>,
    finished: bool,
}

impl Node {
    /// A node that begins at once: its first outputs define sources, schedules and users.
    ///
    /// # Panics
    /// If the settings are out of bounds (no slot at all, a lease of zero): a fault of the caller, who checks them.
    #[must_use]
    pub fn new(now: Timestamp, mut settings: NodeSettings) -> Self {
        assert!(settings.concurrency > 0, "a node needs at least one slot");
        assert!(
            settings.lease_ms >= 3,
            "a lease must be long enough for a heartbeat"
        );
        let mut boot = VecDeque::new();
        for source in &settings.sources {
            boot.push_back(Command::DefineSource {
                source: source.name.clone(),
                settings: source.settings.clone(),
            });
        }
        for (schedule, definition) in &settings.schedules {
            boot.push_back(Command::DefineSchedule {
                schedule: schedule.clone(),
                definition: definition.clone(),
            });
        }
        boot.push_back(Command::Schedules);
        for source in &mut settings.sources {
            for grants in std::mem::take(&mut source.enroll).chunks(BATCH_MAX) {
                // The due times are set to the store's time when the commands are sent.
                boot.push_back(Command::Enroll {
                    source: source.name.clone(),
                    users: grants.iter().map(|(user, _)| user.clone()).collect(),
                    due_at: Timestamp::EPOCH,
                });
                boot.push_back(Command::Connect {
                    source: source.name.clone(),
                    grants: grants.to_vec(),
                    due_at: Timestamp::EPOCH,
                    force: false,
                });
            }
        }
        let seed = settings.seed;
        let mut node = Node {
            link: StoreLink::new(substream(seed, "store-backoff")),
            jitter_rng: substream(seed, "jitter"),
            backoff_rng: substream(seed, "backoff"),
            settings,
            outputs: VecDeque::new(),
            effects: Effects::default(),
            boot,
            booted: false,
            ticks: BTreeMap::new(),
            refresh_at: now.plus_ms(SCHEDULES_REFRESH_MS),
            refreshing: false,
            claim: ClaimState::default(),
            heartbeat: HeartbeatState::default(),
            slots: BTreeMap::new(),
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
            Input::Shutdown { deadline } => {
                self.shutdown = Some(self.shutdown.map_or(deadline, |old| old.min(deadline)));
            }
            Input::Done { id, result } => {
                // An effect that is not known was given up before; its late result is of no interest.
                if let Some(ended) = self.effects.end(id) {
                    self.effect_ended(now, ended.purpose, ended.command, result);
                }
            }
        }
        self.advance(now);
    }

    /// The announced time has come (or any other: calling it early or twice does no harm).
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
    }

    // -- what the driver asks --------------------------------------------------------------------------------------

    /// What to do next; to be called until it says [`Output::Timeout`] or [`Output::Finished`].
    pub fn poll_output(&mut self) -> Output {
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

    /// How many jobs run here.
    #[must_use]
    pub fn active_jobs(&self) -> usize {
        self.slots.len()
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
        let kept = Some(command.clone());
        let id = self
            .effects
            .begin(purpose, kept, now, timeout_ms, EffectKind::Store);
        self.outputs.push_back(Output::Effect {
            id,
            op: Op::Store(command),
        });
        if let Some(slot) = token.and_then(|token| self.slots.get_mut(&token)) {
            slot.effect = Some(id);
        }
    }

    fn effect_ended(
        &mut self,
        now: Timestamp,
        purpose: Purpose,
        command: Option<Command>,
        result: EffectResult,
    ) {
        match (result, command) {
            (EffectResult::Store(Ok(stamped)), _) => {
                for notice in self.link.answered(now, stamped.now) {
                    self.notice(notice);
                }
                self.store_answered(now, purpose, stamped.value);
            }
            (EffectResult::Store(Err(unavailable)), Some(command)) => {
                self.store_failed(now, purpose, command, unavailable.detail);
            }
            (EffectResult::Panicked { detail }, Some(command)) => {
                let detail = format!("the store adapter panicked: {detail}");
                self.store_failed(now, purpose, command, detail);
            }
            (result, _) => {
                let Purpose::Job(token) = purpose else {
                    panic!("only jobs fetch and write, not {purpose:?}");
                };
                self.job_effect_ended(now, token, result);
            }
        }
    }

    fn store_failed(&mut self, now: Timestamp, purpose: Purpose, command: Command, detail: String) {
        if let Some(notice) = self.link.failed(now, detail) {
            self.notice(notice);
        }
        let retry_at = self.link.retry_at();
        match purpose {
            Purpose::Claim => {
                self.claim.in_flight = false;
                self.claim.at = retry_at;
            }
            Purpose::Heartbeat => {
                self.heartbeat.in_flight = false;
                self.heartbeat.at = retry_at;
            }
            Purpose::Refresh => self.refreshing = false,
            Purpose::Tick { schedule, .. } => {
                if let Some(view) = self.ticks.get_mut(&schedule) {
                    view.in_flight = false;
                }
            }
            Purpose::Boot | Purpose::FirstSync | Purpose::Job(_) => {
                self.link.hold(purpose, command)
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
            Purpose::Tick {
                schedule,
                at,
                fire,
                missed,
            } => {
                self.tick_answered(now, schedule, at, fire, missed, reply);
            }
            Purpose::Claim => self.claimed(now, reply),
            Purpose::Heartbeat => {
                self.heartbeat.in_flight = false;
                if let Reply::Heartbeat { lost } = reply {
                    for token in lost {
                        self.lease_lost(now, token);
                    }
                }
            }
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

    // -- the beginning ---------------------------------------------------------------------------------------------

    fn send_boot(&mut self, now: Timestamp) {
        let Some(mut command) = self.boot.pop_front() else {
            self.booted = true;
            self.claim.at = now;
            self.notice(Notice::Ready);
            return;
        };
        if let Command::Enroll { due_at, .. } | Command::Connect { due_at, .. } = &mut command {
            *due_at = self.link.store_time(now);
        }
        self.send_store(now, Purpose::Boot, command);
    }

    fn boot_answered(&mut self, now: Timestamp, reply: Reply) {
        self.expect_accepted("a definition at the start", &reply);
        match reply {
            Reply::Schedules { schedules } => self.ticks_refreshed(schedules),
            Reply::Enrolled { source, users } => self.first_sync(now, source, users),
            _ => {}
        }
        self.send_boot(now);
    }

    /// New users need not wait for the next tick: their first sync is laid out like a fan-out, from now.
    fn first_sync(&mut self, now: Timestamp, source: SourceName, users: Vec<crate::id::UserId>) {
        if users.is_empty() {
            return;
        }
        let base = self.link.store_time(now);
        let period_ms = self.period_ms(&source, base);
        let total = users.len() as u64;
        let mut jobs = Vec::with_capacity(users.len());
        for (index, user) in users.into_iter().enumerate() {
            let offset_ms = self
                .settings
                .spread
                .offset_ms(index as u64, total, &user, period_ms);
            let jitter_ms = self.settings.jitter.draw(&mut self.jitter_rng);
            jobs.push(NewJob {
                user,
                run_at: base.plus_ms(offset_ms + jitter_ms),
                nominal_at: Some(base),
                priority: Priority::Scheduled,
            });
        }
        self.send_store(
            now,
            Purpose::FirstSync,
            Command::Enqueue {
                source,
                jobs,
                checkpoint: None,
            },
        );
    }

    // -- what is due -----------------------------------------------------------------------------------------------

    /// Does everything that is due at `now`. Afterwards nothing is due that this node could do something about.
    fn advance(&mut self, now: Timestamp) {
        if self.finished {
            return;
        }
        for expired in self.effects.expire(now) {
            self.outputs.push_back(Output::Cancel { id: expired.id });
            self.notice(Notice::EffectTimedOut {
                what: expired.ended.kind.name(),
                after_ms: expired.ended.timeout_ms,
            });
            let result = expired.ended.timed_out();
            self.effect_ended(now, expired.ended.purpose, expired.ended.command, result);
        }
        while let Some((purpose, command)) = self.link.release(now) {
            self.send_store(now, purpose, command);
        }
        if self.booted && !self.link.is_closed(now) {
            if self.shutdown.is_none() {
                if self.settings.fan_out_slots > 0 {
                    self.send_ticks(now);
                }
                self.send_refresh(now);
                self.send_claim(now);
            }
            self.send_heartbeat(now);
        }
        if let Some(deadline) = self.shutdown {
            self.shut_down(now, deadline);
        }
    }

    fn send_refresh(&mut self, now: Timestamp) {
        if now >= self.refresh_at && !self.refreshing {
            self.refreshing = true;
            self.refresh_at = now.plus_ms(SCHEDULES_REFRESH_MS);
            self.send_store(now, Purpose::Refresh, Command::Schedules);
        }
    }

    /// Free slots: for syncs, and for fan-outs.
    fn free_slots(&self) -> (u32, u32) {
        let fan_outs = self.slots.values().filter(|slot| slot.is_fan_out()).count();
        let syncs = self.slots.len() - fan_outs;
        let free =
            |of: u32, used: usize| of.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
        (
            free(self.settings.concurrency, syncs),
            free(self.settings.fan_out_slots, fan_outs),
        )
    }

    fn wants_claim(&self) -> bool {
        let (slots, fan_out_slots) = self.free_slots();
        let may = self.booted && self.shutdown.is_none() && !self.claim.in_flight;
        may && (slots > 0 || fan_out_slots > 0)
    }

    fn send_claim(&mut self, now: Timestamp) {
        if !self.wants_claim() || now < self.claim.at {
            return;
        }
        let (slots, fan_out_slots) = self.free_slots();
        self.claim.in_flight = true;
        let command = Command::Claim {
            worker: self.settings.worker.clone(),
            slots,
            fan_out_slots,
            lease_ms: self.settings.lease_ms,
            held: self.slots.keys().copied().collect(),
        };
        self.send_store(now, Purpose::Claim, command);
    }

    fn claimed(&mut self, now: Timestamp, reply: Reply) {
        self.claim.in_flight = false;
        self.claim.at = now.plus_ms(self.settings.poll_ms);
        let Reply::Claimed {
            leases,
            recovered,
            buried,
            next_at,
        } = reply
        else {
            self.expect_accepted("a claim", &reply);
            return;
        };
        if recovered > 0 || buried > 0 {
            self.notice(Notice::Recovered { recovered, buried });
        }
        let nothing = leases.is_empty() && recovered == 0;
        self.claim.empty_in_a_row = if nothing {
            self.claim.empty_in_a_row + 1
        } else {
            0
        };
        if let Some(next_at) = next_at {
            // Due jobs for which this node has no slot must not make it ask again and again.
            let gap_ms = CLAIM_GAP_MS << self.claim.empty_in_a_row.min(CLAIM_DOUBLINGS_MAX);
            let at = self.link.local_time(next_at).max(now.plus_ms(gap_ms));
            self.claim.at = self.claim.at.min(at);
        }
        let (slots_before, _) = self.free_slots();
        let claimed = leases.len() as u64;
        for lease in leases {
            self.start_job(now, lease);
        }
        self.claim.more = claimed >= u64::from(slots_before);
        if std::mem::take(&mut self.claim.again) {
            self.claim.at = now;
        }
    }

    fn send_heartbeat(&mut self, now: Timestamp) {
        if self.heartbeat.in_flight || self.slots.is_empty() || now < self.heartbeat.at {
            return;
        }
        self.heartbeat.in_flight = true;
        self.heartbeat.at = now.plus_ms(self.settings.lease_ms / 3);
        let leases: Vec<LeaseRef> = self.slots.values().map(|slot| slot.lease.clone()).collect();
        let lease_ms = self.settings.lease_ms;
        self.send_store(
            now,
            Purpose::Heartbeat,
            Command::Heartbeat { leases, lease_ms },
        );
    }

    // -- the end ---------------------------------------------------------------------------------------------------

    fn shut_down(&mut self, now: Timestamp, deadline: Timestamp) {
        if now >= deadline.minus_ms(HAND_BACK_MS) {
            self.hand_back_all(now);
        }
        let idle = self.slots.is_empty() && !self.claim.in_flight;
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
                if self.wants_claim() {
                    offer(self.claim.at.max(open_at), Reason::Claim);
                }
                if !self.refreshing {
                    offer(self.refresh_at.max(open_at), Reason::Tick);
                }
            }
            if !self.slots.is_empty() && !self.heartbeat.in_flight {
                offer(self.heartbeat.at.max(open_at), Reason::Heartbeat);
            }
        }
        if let Some(deadline) = self.shutdown {
            let hand_back_at = deadline.minus_ms(HAND_BACK_MS);
            let running = self.slots.values().any(|slot| !slot.is_ending());
            offer(
                if running { hand_back_at } else { deadline },
                Reason::Shutdown,
            );
        }
        next
    }
}
