//! Claims: who may start what now, and what comes back from workers that fell silent.
//!
//! A claim first takes back leases that expired, then gives again what this worker holds without knowing it (its last
//! reply was lost), then starts fan-outs in their own lane, then syncs: source by source, each as far as its pause,
//! gate, limits and ramp allow. Those are asked once for the source, never once for each job.
//!
//! Every part of it is bounded. Who is ready and could start but for such a bound is there for the next claim, and the
//! reply says "now".

use super::command::{Lease, LeaseRef, LeaseToken, Refusal, Reply};
use super::records::user_key;
use super::rows::{ActiveLease, FlowRow};
use super::state::{JobKey, SourceSettings};
use super::{CLAIM_BATCH_MAX, EXPIRE_BATCH_MAX, FAN_OUT_STALLS_MAX, Queue};
use crate::id::{SourceName, WorkerId};
use crate::mutant::{Mutant, planted};
use crate::policy::limit::{Limit, SlidingWindow, ramp_allowance};
use crate::time::Timestamp;

/// Jobs of one source that one claim looks at in vain, because their user's requests are used up. Such a job then waits
/// aside.
const HELD_BATCH_MAX: usize = 100;

/// A claim, as asked.
pub(super) struct Claim {
    pub(super) worker: WorkerId,
    pub(super) slots: u32,
    pub(super) fan_out_slots: u32,
    pub(super) lease_ms: u64,
    pub(super) held: Vec<LeaseToken>,
}

impl Queue {
    pub(super) fn claim(&mut self, now: Timestamp, mut claim: Claim) -> Result<Reply, Refusal> {
        let batch_max = u32::try_from(CLAIM_BATCH_MAX).expect("a batch is small");
        claim.slots = claim.slots.min(batch_max);
        claim.fan_out_slots = claim.fan_out_slots.min(batch_max);
        let (recovered, buried) = self.expire_leases(now);
        self.drop_user_flows(now);
        let mut leases = Vec::new();
        self.give_again(now, &mut claim, &mut leases);
        self.start_fan_outs(now, &mut claim, &mut leases);
        // Most claims of an idle fleet find nobody ready: then nothing is copied.
        if claim.slots > 0 && self.some_sync_waits(now) {
            let sources: Vec<SourceName> =
                self.sources.iter().map(|(name, _)| name.clone()).collect();
            for source in sources {
                self.start_syncs(now, &source, &mut claim, &mut leases);
            }
        }
        Ok(Reply::Claimed {
            leases,
            recovered,
            buried,
            next_at: self.next_wake_at(now),
        })
    }

    fn some_sync_waits(&self, now: Timestamp) -> bool {
        let mut sources = self.index.sources.values();
        sources.any(|source| source.lane.first_waiting(now).is_some())
    }

    fn expire_leases(&mut self, now: Timestamp) -> (u32, u32) {
        let (mut recovered, mut buried) = (0, 0);
        for _ in 0..EXPIRE_BATCH_MAX {
            let first = self.index.expiry.first();
            let Some((_, key)) = first.filter(|(expires_at, _)| *expires_at <= now).cloned() else {
                break;
            };
            if self.stall(now, &key) {
                buried += 1;
            } else {
                recovered += 1;
            }
        }
        (recovered, buried)
    }

    /// Takes every leased job back at once, however long its lease would last: for a store that one process has to
    /// itself, which has just opened it, so that all who held leases are gone. It counts as a stall, like an expired
    /// lease. How many there were.
    pub fn recover_orphans(&mut self, now: Timestamp) -> u64 {
        let leased = self.index.expiry.iter();
        let orphans: Vec<JobKey> = leased.map(|(_, key)| key.clone()).collect();
        for key in &orphans {
            self.stall(now, key);
        }
        orphans.len() as u64
    }

    /// Takes a job back whose lease expired; whether it was given up, as it did so too often.
    fn stall(&mut self, now: Timestamp, key: &JobKey) -> bool {
        let stalls_max = match key {
            JobKey::FanOut { .. } => FAN_OUT_STALLS_MAX,
            JobKey::Sync { source, .. } => self.settings(source).stalls_max,
        };
        let stalls = self.edit_job(key, |row| {
            row.stalls = row
                .stalls
                .saturating_add(u32::from(!planted(Mutant::PoisonNeverBuried)));
            row.stalls
        });
        let error = format!("the lease expired without a heartbeat ({stalls} times)");
        if let Some(user) = user_key(key) {
            self.edit_user(&user, |row| row.state.last_error = Some(error.clone()));
        }
        if stalls > stalls_max {
            let row = self.remove_job(key).expect("an active job is there");
            self.bury(now, key, &row, row.attempts, error);
            self.run_again(key, row.rerun);
            return true;
        }
        self.edit_job(key, |row| {
            row.active = None;
            row.error = Some(error);
            if let Some(rerun) = row.rerun.take() {
                row.wish = row.wish.and(rerun);
            }
        });
        false
    }

    fn give_again(&mut self, now: Timestamp, claim: &mut Claim, leases: &mut Vec<Lease>) {
        let Some(leased) = self.index.workers.get(&claim.worker) else {
            return;
        };
        let mut held = std::mem::take(&mut claim.held);
        held.sort_unstable();
        let unknown: Vec<(LeaseToken, JobKey)> = leased
            .iter()
            .filter(|(token, _)| held.binary_search(token).is_err())
            .map(|(token, key)| (*token, key.clone()))
            .collect();
        for (token, key) in unknown {
            let lease = LeaseRef { key, token };
            if self.live(now, &lease).is_none() {
                continue;
            }
            let slots = match lease.key {
                JobKey::FanOut { .. } => &mut claim.fan_out_slots,
                JobKey::Sync { .. } => &mut claim.slots,
            };
            if *slots == 0 {
                continue;
            }
            *slots -= 1;
            self.extend_lease(now, &lease.key, claim.lease_ms);
            leases.push(self.lease_of(&lease.key));
        }
    }

    pub(super) fn extend_lease(&mut self, now: Timestamp, key: &JobKey, lease_ms: u64) {
        self.edit_job(key, |row| {
            let active = row.active.as_mut().expect("the lease is live");
            active.lease_ms = lease_ms;
            active.expires_at = now.plus_ms(lease_ms);
        });
    }

    fn start_fan_outs(&mut self, now: Timestamp, claim: &mut Claim, leases: &mut Vec<Lease>) {
        while claim.fan_out_slots > 0 {
            let Some(key) = self.index.fan_outs.first_waiting(now).cloned() else {
                return;
            };
            claim.fan_out_slots -= 1;
            leases.push(self.start(now, &key, claim));
        }
    }

    fn start_syncs(
        &mut self,
        now: Timestamp,
        source: &SourceName,
        claim: &mut Claim,
        leases: &mut Vec<Lease>,
    ) {
        let row = self.sources.get(source).expect("the caller listed it");
        if row.paused.is_some() || row.gate_until.is_some_and(|until| until > now) {
            return;
        }
        let index = self.index.sources.get(source);
        if claim.slots == 0 || index.is_none_or(|index| index.lane.first_waiting(now).is_none()) {
            return;
        }
        let settings = row.settings.clone();
        let mut room = match self.flows.get(source) {
            Some(flow) => flow.room(now, &settings),
            None => FlowRow::new().room(now, &settings),
        };
        let mut held = 0;
        let mut started = 0;
        while claim.slots > 0 && room > 0 && held < HELD_BATCH_MAX {
            let index = self.index.sources.get(source);
            let first = index.and_then(|index| index.lane.first_waiting(now));
            let Some(key) = first.cloned() else {
                break;
            };
            let user = user_key(&key).expect("a source's lane holds syncs");
            let limit = settings.requests_user;
            let opens_at = self.user_opens_at(&user, now, limit.as_ref(), 1);
            if opens_at > now {
                self.edit_job(&key, |row| row.held_until = Some(opens_at));
                held += 1;
                continue;
            }
            self.record_user_requests(&user, now, limit.as_ref(), 1);
            self.edit_user(&user, |row| row.state.last_started_at = Some(now));
            leases.push(self.start(now, &key, claim));
            claim.slots -= 1;
            room -= 1;
            started += 1;
        }
        if started > 0 {
            if !self.flows.contains(source) {
                self.flows.insert(source, FlowRow::new());
            }
            self.flows
                .edit(source, |flow| flow.record_starts(now, &settings, started));
        }
    }

    fn start(&mut self, now: Timestamp, key: &JobKey, claim: &Claim) -> Lease {
        let token = self.edit_meta(|meta| {
            let now_us = u64::try_from(now.as_ms())
                .unwrap_or(0)
                .saturating_mul(1_000);
            let now_us = if planted(Mutant::TokenReused) {
                0
            } else {
                now_us
            };
            meta.last_token = LeaseToken(now_us.max(meta.last_token.0.saturating_add(1)));
            meta.last_token
        });
        self.edit_job(key, |row| {
            row.held_until = None;
            row.backing_off = false;
            row.active = Some(ActiveLease {
                worker: claim.worker.clone(),
                token,
                expires_at: now.plus_ms(claim.lease_ms),
                lease_ms: claim.lease_ms,
            });
        });
        self.lease_of(key)
    }

    fn lease_of(&self, key: &JobKey) -> Lease {
        let row = self.jobs.get(key).expect("an active job is there");
        let active = row.active.as_ref().expect("the job is active");
        let (cursor, requests) = match self.user_of(key) {
            Some(user) => (user.cursor.clone(), 1),
            None => (row.progress.clone(), 0),
        };
        Lease {
            lease: LeaseRef {
                key: key.clone(),
                token: active.token,
            },
            expires_at: active.expires_at,
            attempt: row.attempts.saturating_add(1),
            nominal_at: row.wish.nominal_at,
            cursor,
            requests,
        }
    }

    pub(super) fn flow(&self, source: &SourceName) -> FlowRow {
        self.flows.get(source).cloned().unwrap_or_else(FlowRow::new)
    }

    pub(super) fn settings(&self, source: &SourceName) -> SourceSettings {
        let row = self.sources.get(source);
        row.map(|row| row.settings.clone()).unwrap_or_default()
    }
}

impl FlowRow {
    /// How many jobs may start now, as far as the source's limits and its ramp are concerned.
    fn room(&self, now: Timestamp, settings: &SourceSettings) -> u64 {
        let processes = if planted(Mutant::LimiterPerProcess) {
            3
        } else {
            1
        };
        let free = |window: &SlidingWindow, limit: Option<&Limit>| {
            let limit = limit.map(|limit| Limit {
                count: limit.count * processes,
                ..*limit
            });
            limit.map_or(u64::MAX, |limit| u64::from(window.available(now, &limit)))
        };
        let starts = free(&self.starts, settings.jobs.as_ref());
        let requests = free(&self.requests, settings.requests_project.as_ref());
        let ramp = self.ramp.and_then(|ramp| {
            let allowed = ramp_allowance(settings.jobs.as_ref(), now.since_ms(ramp.since))?;
            Some(allowed.saturating_sub(ramp.starts))
        });
        starts.min(requests).min(ramp.unwrap_or(u64::MAX))
    }

    /// Records starts, each with its first request.
    fn record_starts(&mut self, now: Timestamp, settings: &SourceSettings, starts: u32) {
        // Without a limit nothing is logged: a limit set later counts the starts since then.
        if let Some(limit) = &settings.jobs {
            self.starts.record(now, starts, limit);
        }
        if let Some(limit) = &settings.requests_project {
            self.requests.record(now, starts, limit);
        }
        self.ramp = self.ramp.and_then(|mut ramp| {
            ramp_allowance(settings.jobs.as_ref(), now.since_ms(ramp.since))?;
            ramp.starts = ramp.starts.saturating_add(u64::from(starts));
            Some(ramp)
        });
    }
}
