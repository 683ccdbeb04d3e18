//! Looking at the whole world: now and then while it runs, and at its end, when it must become well.

use kalends_core::id::UserId;
use kalends_core::time::{HOUR_MS, Timestamp};

use super::event::Event;
use super::trace::Moment;
use super::{AUDIT_EVERY_MS, Phase, World};
use crate::invariants::convergence::{self, Behind};
use crate::invariants::{memory, shutdown};
use crate::oracle;
use crate::plan::bound::heal_bound_ms;
use crate::plan::{FaultKind, Mishap};

/// How often it is looked whether everybody is fresh, in milliseconds.
const CHECK_EVERY_MS: u64 = 20_000;
/// How long processes have to stop at the end, in milliseconds.
const LAST_DEADLINE_MS: u64 = 30_000;
/// How long due work may wait in a world that is well, beyond a poll, in milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// The world is well when no fault has lasted within so many milliseconds: store retries and effects' deadlines pass.
const WELL_AFTER_MS: u64 = 120_000;
impl World<'_> {
    /// The world looks at itself.
    pub(super) fn audit(&mut self) {
        let since_start_ms = self.now.since_ms(self.plan.size.start);
        if !self.phase_is_ending() {
            self.heap
                .push(self.now.plus_ms(AUDIT_EVERY_MS), Event::Audit);
        }
        self.look_for_wakers();
        self.audit_push();
        if since_start_ms.is_multiple_of(HOUR_MS) {
            self.audit_the_store();
        }
    }

    fn audit_the_store(&mut self) {
        if self.legacy.is_some() {
            return;
        }
        let now = self.store_now();
        let verdict = self.ledger.audit(now, &mut self.store.queue);
        let memory = memory::check(&self.store.queue, self.users.len(), &self.policy.source);
        for verdict in [verdict, memory] {
            if let Err(violation) = verdict {
                self.broken(violation);
            }
        }
        // Last, as it panics, and says less of what was broken.
        if self.failed.is_none() {
            self.store.queue.check_invariants();
        }
    }

    fn look_for_wakers(&mut self) {
        // Calls that are lost are no excuse, as there is a poll; nor is it that there is much to do.
        let troubles = |kind: &FaultKind| {
            !matches!(
                kind,
                FaultKind::WakeLoss { .. } | FaultKind::SyncAll | FaultKind::Flood { .. }
            )
        };
        let is_well = self.now.since_ms(self.healed_at) >= WELL_AFTER_MS
            && !self.fault_within(WELL_AFTER_MS, troubles)
            && self.processes.iter().all(super::Process::is_up);
        let now = self.store_now();
        let is_due = is_well
            && self
                .store
                .queue
                .next_wake_at(now)
                .is_some_and(|at| at <= now);
        let slots = self.policy.concurrency as usize;
        let some_free = is_due
            && self.processes.iter().any(|process| {
                let machine = process.machine.as_ref();
                machine.is_some_and(|machine| machine.running_jobs() < slots)
            });
        let patience_ms = self.policy.poll_ms + PATIENCE_MS;
        let verdict = self
            .wakers
            .look(self.now, is_due, is_well && some_free, patience_ms);
        if let Err(violation) = verdict {
            self.broken(violation);
        }
    }

    /// Counts whose last sync is longer ago than a healed world may take to sync everybody.
    fn count_the_lost(&mut self) {
        let bound_ms = heal_bound_ms(self.plan);
        let lost = (0..self.users.len()).filter(|user| {
            let fresh_since = match &self.legacy {
                Some(shared) => shared.borrow().fresh_since(*user),
                None => Some(self.ledger.fresh_since(*user)),
            };
            fresh_since.is_none_or(|since| self.now.since_ms(since) > bound_ms)
        });
        self.tally.lost = lost.count() as u64;
    }

    /// The faults are over: what is dead starts, and everything must become well.
    pub(super) fn heal(&mut self) {
        self.count_the_lost();
        if self.legacy.is_some() {
            // It does not heal: that is what it was replaced for.
            self.phase = Phase::Done;
            return;
        }
        self.healed_at = self.now;
        self.google.clear_faults();
        // Whom nobody has enrolled yet, and whose enrolment a failover or an emptied store has lost.
        let users = self.users.iter().enumerate();
        let missing = users.filter(|(user, _)| !self.ledger.is_enrolled(*user));
        let missing: Vec<UserId> = missing.map(|(_, name)| name.clone()).collect();
        if !missing.is_empty() {
            self.enroll(missing);
        }
        for process in 0..self.plan.size.processes {
            self.start(process);
        }
        self.connect_the_wronged();
        self.ledger.count_fresh_from(self.now);
        let until = self.now.plus_ms(heal_bound_ms(self.plan));
        self.phase = Phase::Healing { until };
        self.heap
            .push(self.now.plus_ms(CHECK_EVERY_MS), Event::Check);
        self.tell(&Moment::Healed);
    }

    /// Who was parked because Google refused good tokens again and again connects again, as only that user can; so does
    /// who connected while an emptied store knew nobody. Where neither happened, a parked user whose grant is good is a
    /// failure.
    fn connect_the_wronged(&mut self) {
        let wronged = self.plan.faults.iter().any(|fault| {
            matches!(
                fault.kind,
                FaultKind::EmptyStore
                    | FaultKind::GoogleMishap {
                        mishap: Mishap::Unauthorized | Mishap::AccessTokenExpires,
                        ..
                    }
            )
        });
        for user in (0..self.plan.size.users).filter(|_| wronged) {
            if !self.ledger.accepts(user as usize) {
                self.connect_again(user);
            }
        }
    }

    /// Is everybody fresh, or everything over?
    pub(super) fn check(&mut self) {
        self.heap
            .push(self.now.plus_ms(CHECK_EVERY_MS), Event::Check);
        match self.phase {
            Phase::Healing { until } => self.check_healing(until),
            Phase::Ending { until } => self.check_ending(until),
            Phase::Faults | Phase::Done => {}
        }
    }

    fn check_healing(&mut self, until: Timestamp) {
        let users = self.users.len();
        if self.ledger.fresh() < users {
            if self.now > until {
                self.judge_late(until);
            }
            return;
        }
        self.compare_all();
        if self.failed.is_some() {
            return;
        }
        self.fresh_at = Some(self.now);
        self.count_channels();
        self.tell(&Moment::Converged);
        self.phase = Phase::Ending {
            until: self.now.plus_ms(LAST_DEADLINE_MS + CHECK_EVERY_MS),
        };
        for process in 0..self.plan.size.processes {
            self.terminate(process, LAST_DEADLINE_MS);
        }
    }

    fn judge_late(&mut self, until: Timestamp) {
        let users = 0..self.users.len();
        let late = users.filter(|user| self.ledger.fresh_since(*user) < self.healed_at);
        let behind: Vec<Behind<'_>> = late
            .map(|user| Behind {
                user: &self.users[user],
                synced_at: self.ledger.fresh_since(user),
                parked: !self.ledger.accepts(user),
            })
            .collect();
        let verdict = convergence::all_fresh(self.now, self.healed_at, until, &behind);
        self.judge(verdict);
    }

    /// Every graph against its user's calendars, item by item.
    fn compare_all(&mut self) {
        for user in 0..self.users.len() {
            let name = self.users[user].as_str();
            let calendars = match self.plan.size.calendars_per_user {
                1 => vec!["primary".to_owned()],
                _ => self.google.calendars(name).expect("a user of the emulator"),
            };
            let snapshot = self.graphs[user].snapshot();
            let mut comparison = oracle::Comparison::of(&snapshot, calendars.len());
            for id in &calendars {
                let calendar = self.google.calendar_row_truth(name, id);
                let truth = self.google.calendar_truth(name, id);
                comparison.calendar(
                    &calendar.expect("a calendar of the emulator"),
                    truth.expect("a calendar of the emulator"),
                );
            }
            let verdict = convergence::graph_equals(name, &comparison.verdict());
            self.judge(verdict);
            if self.failed.is_some() {
                return;
            }
        }
    }

    fn check_ending(&mut self, until: Timestamp) {
        let processes = self.processes.iter();
        let running = processes
            .filter(|process| process.machine.is_some())
            .count();
        let leases = self.ledger.leases();
        if running == 0 && leases == 0 {
            self.audit_the_store();
            self.phase = Phase::Done;
        } else {
            self.judge(shutdown::all_gone(self.now, until, running, leases));
        }
    }
}
