//! Claims and heartbeats: when to ask for jobs, for how many, and how their leases are kept.
//!
//! One claim is under way at a time. A claim for one job costs the store as much as a claim for many, so a slot that
//! becomes free while others still work waits for them, but for no longer than [`CLAIM_LINGER_MS`]; when many slots are
//! free, or none works any more, the claim goes out at once. That is asked for only if the last claim was filled: if it
//! was not, nothing more was due, and the store said when to ask again.

use serde::{Deserialize, Serialize};

use super::link::Purpose;
use super::prefetch::PREFETCH_MAX;
use super::{HELD_PER_SLOT, Node};
use crate::mutant::{Mutant, planted};
use crate::queue::CLAIM_BATCH_MAX;
use crate::queue::command::{BATCH_MAX, Command, LeaseRef, Reply};
use crate::queue::state::JobKey;
use crate::time::Timestamp;

/// The least time between two claims that gave nothing, in milliseconds; it doubles while they go on giving nothing.
const CLAIM_GAP_MS: u64 = 10;
/// How often that gap doubles at the most: to 5 s, the poll.
const CLAIM_DOUBLINGS_MAX: u32 = 9;
/// So many free slots are worth a claim, whatever the others do.
const CLAIM_BATCH: u32 = 16;
/// Syncs that one claim asks for at the most. It could give more ([`CLAIM_BATCH_MAX`]), but the script that finds them, and
/// ends as many along, holds up everybody else's.
const CLAIM_ASK_MAX: u32 = 80;
/// A free slot waits for others to become free for so long, in milliseconds, when it is known that there is more to do.
const CLAIM_LINGER_MS: u64 = 2;
/// While every sync slot is taken, only a fan-out could start: the store is asked for one no more often than this, in
/// milliseconds.
const FAN_OUT_CLAIM_GAP_MS: u64 = 250;

/// When to claim, and whether a claim is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ClaimState {
    in_flight: bool,
    /// For how many syncs the last claim asked.
    asked: u32,
    /// When it was sent, on the driver's clock.
    sent_at: Timestamp,
    /// When the next one is worth sending, on the driver's clock.
    at: Timestamp,
    /// The last claim for syncs was given as many as it asked for: there may be more.
    more: bool,
    /// Something called while a claim was under way: it may have come too late for that one.
    again: bool,
    /// Claims in a row that gave nothing although something was said to be due.
    empty_in_a_row: u32,
    /// The last claim gave jobs, or said that there are some for later.
    something_outstanding: bool,
}

impl Default for ClaimState {
    fn default() -> Self {
        ClaimState {
            in_flight: false,
            asked: 0,
            sent_at: Timestamp::from_ms(i64::MIN),
            at: Timestamp::MAX,
            more: true,
            again: false,
            empty_in_a_row: 0,
            something_outstanding: false,
        }
    }
}

impl ClaimState {
    /// Something may be due now.
    pub(super) fn soon(&mut self, now: Timestamp) {
        self.at = self.at.min(now);
        self.again |= self.in_flight;
        self.empty_in_a_row = 0;
    }

    /// The store did not answer.
    pub(super) fn failed(&mut self, retry_at: Timestamp) {
        self.in_flight = false;
        self.at = retry_at;
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }
}

/// When to send a heartbeat, and whether one is under way.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct HeartbeatState {
    in_flight: bool,
    /// On the driver's clock.
    at: Timestamp,
}

impl HeartbeatState {
    /// The first job is here.
    pub(super) fn begin(&mut self, now: Timestamp, lease_ms: u64) {
        self.at = now.plus_ms(heartbeat_after_ms(lease_ms));
    }

    /// The store did not answer.
    pub(super) fn failed(&mut self, retry_at: Timestamp) {
        self.in_flight = false;
        self.at = retry_at;
    }
}

const _: () = assert!(CLAIM_ASK_MAX as usize <= CLAIM_BATCH_MAX);

/// From one heartbeat to the next: two may be lost before the lease is.
fn heartbeat_after_ms(lease_ms: u64) -> u64 {
    if planted(Mutant::HeartbeatLate) {
        return lease_ms;
    }
    lease_ms / 3
}

impl Node {
    /// Syncs that may be here beside those that end: one a slot, and those that are ready.
    fn room(&self) -> u32 {
        let ready_max = self.prefetch.window();
        assert!(ready_max <= PREFETCH_MAX, "no more is claimed ahead");
        self.settings.concurrency.saturating_add(ready_max)
    }

    /// Syncs that run or are ready.
    fn syncs_to_do(&self) -> u32 {
        self.slots.running_syncs() + self.slots.ready_syncs()
    }

    /// How many jobs may be asked for now: syncs, and fan-outs. None while more than half of those held ahead are there.
    fn free_slots(&self) -> (u32, u32) {
        let (concurrency, fan_out_slots) = (self.settings.concurrency, self.settings.fan_out_slots);
        let batch_max = u32::try_from(BATCH_MAX).expect("a batch is small");
        let held_max = self
            .room()
            .saturating_mul(HELD_PER_SLOT)
            .min(batch_max.saturating_sub(fan_out_slots));
        if planted(Mutant::ClaimWithoutSlot) {
            return (concurrency, fan_out_slots);
        }
        let here = self.syncs_to_do();
        let is_enough = here > self.room() / 2 && here >= concurrency;
        let syncs = if self.prefetch.window() > 0 && is_enough {
            0
        } else {
            self.room()
                .saturating_sub(here)
                .min(held_max.saturating_sub(self.slots.syncs()))
                .min(CLAIM_ASK_MAX)
        };
        (syncs, fan_out_slots.saturating_sub(self.slots.fan_outs()))
    }

    /// When the next claim is to be sent, on the driver's clock; `None` while there is no slot for what it would bring.
    pub(super) fn next_claim_at(&self) -> Option<Timestamp> {
        if !self.booted || self.shutdown.is_some() || self.claim.in_flight {
            return None;
        }
        match self.free_slots() {
            (0, 0) => None,
            (0, _) => {
                let open_at = self.claim.sent_at.plus_ms(FAN_OUT_CLAIM_GAP_MS);
                Some(self.claim.at.max(open_at))
            }
            _ => Some(self.claim.at),
        }
    }

    pub(super) fn send_claim(&mut self, now: Timestamp) {
        if self.next_claim_at().is_none_or(|at| now < at) {
            return;
        }
        if self.claim.more {
            self.widen_prefetch();
        }
        let (slots, fan_out_slots) = self.free_slots();
        self.claim.in_flight = true;
        self.claim.asked = slots;
        self.claim.sent_at = now;
        let command = Command::Claim {
            worker: self.settings.worker.clone(),
            slots,
            fan_out_slots,
            lease_ms: self.settings.lease_ms,
            held: self.slots.tokens().collect(),
        };
        self.send_store(now, Purpose::Claim, command);
    }

    pub(super) fn claimed(&mut self, now: Timestamp, reply: Reply) {
        self.claim.in_flight = false;
        self.claim.at = if planted(Mutant::NoPoll) {
            Timestamp::MAX
        } else {
            now.plus_ms(self.settings.poll_ms)
        };
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
            self.notice(super::io::Notice::Recovered { recovered, buried });
        }
        let something = !leases.is_empty() || next_at.is_some();
        if std::mem::replace(&mut self.claim.something_outstanding, something) && !something {
            // All is done, or all is gone: a store that was emptied answers alike.
            self.refresh_at = self.refresh_at.min(now);
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
        let is_sync = |key: &JobKey| matches!(key, JobKey::Sync { .. });
        let syncs = leases
            .iter()
            .filter(|lease| is_sync(&lease.lease.key))
            .count();
        if self.claim.asked > 0 {
            self.claim.more = syncs >= self.claim.asked as usize;
        }
        if !self.claim.more {
            self.prefetch.stop();
        }
        for lease in leases {
            self.take_job(now, lease);
        }
        if std::mem::take(&mut self.claim.again) {
            self.claim.at = now;
        }
        self.slot_freed(now);
    }

    /// A slot may have become free: is a claim worth its cost?
    pub(super) fn slot_freed(&mut self, now: Timestamp) {
        let (free, _) = self.free_slots();
        if !self.claim.more || self.claim.in_flight || free == 0 {
            return;
        }
        let at_once = if self.prefetch.window() > 0 {
            self.syncs_to_do() <= self.room() / 2
        } else {
            free >= CLAIM_BATCH || self.slots.running_syncs() == 0
        };
        let at = if at_once {
            now
        } else {
            now.plus_ms(CLAIM_LINGER_MS)
        };
        self.claim.at = self.claim.at.min(at);
    }

    /// When the leases want a heartbeat, on the driver's clock.
    pub(super) fn next_heartbeat_at(&self) -> Option<Timestamp> {
        let idle = self.slots.is_empty() || self.heartbeat.in_flight;
        (!idle).then_some(self.heartbeat.at)
    }

    pub(super) fn send_heartbeat(&mut self, now: Timestamp) {
        if self.next_heartbeat_at().is_none_or(|at| now < at) {
            return;
        }
        self.heartbeat.in_flight = true;
        self.heartbeat.at = now.plus_ms(heartbeat_after_ms(self.settings.lease_ms));
        let leases: Vec<LeaseRef> = self.slots.leases().cloned().collect();
        let lease_ms = self.settings.lease_ms;
        self.send_store(
            now,
            Purpose::Heartbeat,
            Command::Heartbeat { leases, lease_ms },
        );
    }

    pub(super) fn heartbeat_answered(&mut self, now: Timestamp, reply: Reply) {
        self.heartbeat.in_flight = false;
        if let Reply::Heartbeat { lost } = reply {
            for token in lost {
                self.lease_lost(now, token);
            }
        }
    }
}
