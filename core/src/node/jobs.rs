//! Leased jobs: a machine a slot, driven step by step, until its end has been acknowledged by the store.

mod endings;

use super::Node;
use super::fan_out::FanOut;
use super::io::{EffectId, EffectResult, Notice, Op, Output};
use super::link::{EffectKind, Purpose};
use super::slots::{Ending, Slot, Work};
use crate::failure::{Failure, FailureKind, LimitScope};
use crate::id::SourceName;
use crate::mutant::{Mutant, planted};
use crate::policy::overload::overload;
use crate::queue::command::{
    Command, Commit, CommitOutcome, Lease, LeaseRef, LeaseToken, Refusal, Reply,
};
use crate::queue::state::JobKey;
use crate::sync::{Answer, End, Step, SyncMachine};
use crate::time::{MINUTE_MS, Timestamp};

/// A job that this process cannot do goes back for this long, in milliseconds.
const FOREIGN_JOB_MS: u64 = MINUTE_MS;

impl Node {
    /// A job was claimed: it begins at once if there is a slot for it, and else when there is one.
    pub(super) fn take_job(&mut self, now: Timestamp, lease: Lease) {
        let token = lease.lease.token;
        if self.slots.get(token).is_some() {
            return;
        }
        if self.slots.is_empty() {
            self.heartbeat.begin(now, self.settings.lease_ms);
        }
        let Some(work) = self.work_of(now, &lease) else {
            self.send_foreign_back(now, lease.lease);
            return;
        };
        let is_sync = matches!(work, Work::Sync { .. });
        let slot = Slot::new(lease.lease, lease.attempt, lease.nominal_at, now, work);
        // Not before those that came earlier.
        let waits = self.slots.ready_syncs() > 0
            || self.prefetch.window() > 0
            || self.slots.running_syncs() >= self.settings.concurrency;
        if is_sync && waits && self.shutdown.is_none() {
            self.slots.insert_ready(slot);
            return;
        }
        self.slots.insert(slot);
        if self.shutdown.is_some() {
            // The claim was under way when the shutdown came.
            self.end_job(now, token, Ending::Released, |lease| Command::Release {
                lease,
                at: None,
            });
            return;
        }
        self.begin(now, token);
    }

    /// Jobs that are ready begin, as far as there are slots.
    pub(super) fn begin_ready(&mut self, now: Timestamp) {
        let bound = self.slots.ready_syncs();
        for _ in 0..bound {
            let is_full = self.slots.running_syncs() >= self.settings.concurrency
                && !planted(Mutant::ClaimWithoutSlot);
            if is_full {
                return;
            }
            let Some(slot) = self.slots.begin_next(now) else {
                return;
            };
            let token = slot.lease.token;
            self.begin(now, token);
        }
    }

    fn begin(&mut self, now: Timestamp, token: LeaseToken) {
        let slot = self.slots.its(token);
        let (key, attempt) = (slot.lease.key.clone(), slot.attempt);
        self.notice(Notice::JobStarted { key, attempt });
        self.go_on(now, token);
    }

    fn work_of(&self, now: Timestamp, lease: &Lease) -> Option<Work> {
        match &lease.lease.key {
            JobKey::Sync { source, user } => {
                let definition = self.settings.source(source)?;
                let machine = SyncMachine::new(
                    user.clone(),
                    lease.lease.token,
                    definition.sync.clone(),
                    lease.cursor.as_deref(),
                    lease.requests,
                );
                let machine = match self.fingerprints.get(source) {
                    Some(fingerprint) => machine.with_fingerprint(*fingerprint),
                    None => machine,
                };
                Some(Work::Sync {
                    source: source.clone(),
                    machine: Box::new(machine),
                })
            }
            JobKey::FanOut { schedule } => {
                let source = self.ticks.get(schedule)?.state.definition.source.clone();
                let tick = lease
                    .nominal_at
                    .unwrap_or_else(|| self.link.store_time(now));
                let period_ms = self.room_ms(schedule, tick);
                let cursor = lease.cursor.as_deref();
                Some(Work::FanOut(FanOut::new(source, tick, period_ms, cursor)))
            }
        }
    }

    /// A source or schedule that this process does not know (a newer release runs beside it, say).
    fn send_foreign_back(&mut self, now: Timestamp, lease: LeaseRef) {
        self.notice(Notice::Refused {
            detail: format!("{}: not known to this process", lease.key),
        });
        let at = Some(self.link.store_time(now).plus_ms(FOREIGN_JOB_MS));
        let token = lease.token;
        self.send_store(now, Purpose::Job(token), Command::Release { lease, at });
    }

    /// The first step of a job that has just been claimed.
    fn go_on(&mut self, now: Timestamp, token: LeaseToken) {
        let store_now = self.link.store_time(now);
        let slot = self.slots.its(token);
        match &mut slot.work {
            Work::Sync { machine, .. } => {
                let step = machine.begin(store_now);
                self.take_step(now, token, step);
            }
            Work::FanOut(_) => self.fan_out_next(now, token),
        }
    }

    fn take_step(&mut self, now: Timestamp, token: LeaseToken, step: Step) {
        let store_now = self.link.store_time(now);
        let slot = self.slots.its(token);
        let Work::Sync { source, machine } = &mut slot.work else {
            panic!("steps are for syncs");
        };
        match step {
            Step::Fetch(request) => {
                let gate = self.gates.get(source).copied();
                if let Some(until) = gate.filter(|until| *until > store_now) {
                    // Another job here was told to slow down: this one stops asking, too.
                    let Step::End(end) = machine.must_wait(until) else {
                        panic!("who must wait has ended");
                    };
                    self.sync_ended(now, token, end);
                    return;
                }
                let timeout_ms = self.settings.deadlines.fetch_ms;
                self.send_effect(
                    now,
                    token,
                    Op::Fetch(Box::new(request)),
                    timeout_ms,
                    EffectKind::Fetch,
                );
            }
            Step::Write(write) => {
                let timeout_ms = self.settings.deadlines.graph_ms;
                let write = Box::new(write);
                self.send_effect(now, token, Op::Graph(write), timeout_ms, EffectKind::Graph);
            }
            Step::Checkpoint { progress, requests } => {
                let lease = slot.lease.clone();
                let command = Command::Checkpoint {
                    lease,
                    progress: Some(progress),
                    requests,
                };
                self.send_store(now, Purpose::Job(token), command);
            }
            Step::End(end) => self.sync_ended(now, token, end),
        }
    }

    fn send_effect(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        op: Op,
        timeout_ms: u64,
        kind: EffectKind,
    ) {
        let id = self
            .effects
            .begin(Purpose::Job(token), None, now, timeout_ms, kind);
        self.outputs.push_back(Output::Effect { id, op });
        let slot = self.slots.its(token);
        slot.effect = Some(id);
    }

    /// A fetch or a write ended, or a job's effect panicked.
    pub(super) fn job_effect_ended(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        result: EffectResult,
    ) {
        let store_now = self.link.store_time(now);
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        slot.effect = None;
        assert!(
            slot.ending().is_none(),
            "a job that ends has only its last command under way"
        );
        let Work::Sync { source, machine } = &mut slot.work else {
            panic!("a fan-out has only store commands");
        };
        if let EffectResult::Fetch(Err(Failure {
            kind:
                FailureKind::Limited {
                    scope: LimitScope::Source,
                    retry_after_ms,
                },
            ..
        })) = &result
        {
            // Known here at once; the store's answer says until when exactly, and tells the fleet. What a request for a channel
            // was answered stays in this process, as the sync is done all the same: others hear it from their own.
            let pause_ms = retry_after_ms.unwrap_or(crate::queue::GATE_BASE_MS);
            self.gates.insert(
                source.clone(),
                store_now.plus_ms(pause_ms.min(crate::queue::GATE_MS_MAX)),
            );
        }
        let step = match result {
            EffectResult::Fetch(result) => machine.resume(store_now, Answer::Fetched(result)),
            EffectResult::Graph(result) => machine.resume(store_now, Answer::Written(result)),
            EffectResult::Panicked { detail } => {
                let failure = Failure::permanent(format!("the adapter panicked: {detail}"));
                Step::End(End::Failed(failure))
            }
            EffectResult::Store(_) => panic!("store results are routed elsewhere"),
        };
        self.take_step(now, token, step);
    }

    /// The store answered a job's command.
    pub(super) fn job_answered(&mut self, now: Timestamp, token: LeaseToken, reply: Reply) {
        let store_now = self.link.store_time(now);
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        slot.effect = None;
        if let Reply::Refused { refusal } = &reply {
            if *refusal == Refusal::LeaseLost {
                self.drop_lost(token);
                self.slot_freed(now);
            } else {
                let detail = format!("{}: {refusal}", slot.lease.key);
                self.store_refused(now, token, detail);
            }
            return;
        }
        if slot.ending().is_some() {
            self.ending_acknowledged(now, token, reply);
            return;
        }
        match (&mut slot.work, reply) {
            (Work::Sync { machine, .. }, Reply::Permit { wait_until }) => {
                let step = machine.resume(store_now, Answer::Saved { wait_until });
                self.take_step(now, token, step);
            }
            (Work::FanOut(fan_out), Reply::DueUsers { users, due_total }) => {
                let layout = (&self.settings.spread, &self.settings.jitter);
                let lease = slot.lease.clone();
                let (source, period_ms) = (fan_out.source.clone(), fan_out.period_ms());
                let command = fan_out.page(
                    store_now,
                    users,
                    due_total,
                    &lease,
                    layout,
                    &mut self.jitter_rng,
                );
                if let Some(due_total) = due_total {
                    self.warn_overload(source, due_total, period_ms);
                }
                match command {
                    Some(command) => self.send_store(now, Purpose::Job(token), command),
                    None => self.fan_out_next(now, token),
                }
            }
            (Work::FanOut(_), Reply::Enqueued { .. }) => self.fan_out_next(now, token),
            (_, reply) => {
                let detail = format!("{}: an answer out of place: {reply:?}", slot.lease.key);
                self.store_refused(now, token, detail);
            }
        }
    }

    fn warn_overload(&mut self, source: SourceName, users: u64, period_ms: u64) {
        let limit = self
            .settings
            .source(&source)
            .and_then(|known| known.settings.jobs);
        if let Some(overload) = overload(users, period_ms, limit.as_ref()) {
            self.notice(Notice::Overloaded { source, overload });
        }
    }

    fn fan_out_next(&mut self, now: Timestamp, token: LeaseToken) {
        let slot = self.slots.its(token);
        let Work::FanOut(fan_out) = &slot.work else {
            panic!("a sync is no fan-out")
        };
        if let Some(command) = fan_out.ask() {
            self.send_store(now, Purpose::Job(token), command);
            return;
        }
        let outcome = CommitOutcome::FannedOut {
            users: fan_out.users(),
        };
        let commit = Commit {
            cursor: None,
            next_due_at: None,
            outcome: outcome.clone(),
        };
        self.end_job(now, token, Ending::Done(outcome), |lease| {
            Command::Complete { lease, commit }
        });
        // The children may be due already.
        self.claim.soon(now);
    }

    /// A heartbeat said that this lease is gone.
    pub(super) fn lease_lost(&mut self, now: Timestamp, token: LeaseToken) {
        // A job whose end is on its way has given its lease up itself.
        let slot = self.slots.get(token);
        if slot.is_some_and(|slot| slot.ending().is_none()) {
            self.drop_lost(token);
            self.slot_freed(now);
        }
    }

    fn drop_lost(&mut self, token: LeaseToken) {
        let Some(slot) = self.slots.remove(token) else {
            return;
        };
        self.cancel_work(token, slot.effect);
        self.notice(Notice::LeaseLost {
            key: slot.lease.key,
        });
    }

    fn cancel_work(&mut self, token: LeaseToken, effect: Option<EffectId>) {
        self.link.forget_job(token);
        if let Some(id) = effect
            && self.effects.end(id).is_some()
        {
            self.outputs.push_back(Output::Cancel { id });
        }
    }

    /// The shutdown's deadline is near: everything that still runs goes back unharmed.
    pub(super) fn hand_back_all(&mut self, now: Timestamp) {
        if planted(Mutant::LeaseNotReleased) {
            let running = self.slots.running_tokens();
            return running.into_iter().for_each(|token| self.drop_lost(token));
        }
        for token in self.slots.running_tokens() {
            self.end_job(now, token, Ending::Released, |lease| Command::Release {
                lease,
                at: None,
            });
        }
    }
}
