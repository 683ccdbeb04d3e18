//! The jobs that are here: those that are ready, those that run, and those whose end is on its way to the store.
//!
//! How many there are of each sort is counted as they come and go, because it is asked after every event.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::fan_out::FanOut;
use super::io::EffectId;
use crate::failure::{Failure, LimitScope};
use crate::id::SourceName;
use crate::queue::command::{CommitOutcome, LeaseRef, LeaseToken};
use crate::sync::SyncMachine;
use crate::time::Timestamp;

/// What a job does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Work {
    Sync {
        source: SourceName,
        machine: Box<SyncMachine>,
    },
    FanOut(FanOut),
}

/// How a job ends, told to the store and not yet acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ending {
    Done(CommitOutcome),
    Retried { failure: Failure, at: Timestamp },
    Failed { failure: Failure, parked: bool },
    Limited { scope: LimitScope, detail: String },
    Released,
}

/// One job under one lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) lease: LeaseRef,
    pub(super) attempt: u32,
    pub(super) nominal_at: Option<Timestamp>,
    /// When its lease was given, on the driver's clock.
    pub(super) claimed_at: Timestamp,
    /// When it began, on the driver's clock.
    pub(super) started_at: Timestamp,
    pub(super) work: Work,
    /// The effect under way, if one is; a command that waits for the store is none.
    pub(super) effect: Option<EffectId>,
    has_begun: bool,
    ending: Option<Ending>,
}

impl Slot {
    pub(super) fn new(
        lease: LeaseRef,
        attempt: u32,
        nominal_at: Option<Timestamp>,
        claimed_at: Timestamp,
        work: Work,
    ) -> Self {
        Slot {
            lease,
            attempt,
            nominal_at,
            claimed_at,
            started_at: claimed_at,
            work,
            effect: None,
            has_begun: false,
            ending: None,
        }
    }

    pub(super) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    pub(super) fn into_parts(self) -> (LeaseRef, Timestamp, Option<Ending>) {
        (self.lease, self.started_at, self.ending)
    }
}

/// Jobs of each lane.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Count {
    syncs: u32,
    fan_outs: u32,
}

impl Count {
    fn of(&mut self, work: &Work) -> &mut u32 {
        match work {
            Work::Sync { .. } => &mut self.syncs,
            Work::FanOut(_) => &mut self.fan_outs,
        }
    }
}

/// All jobs that are here.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Slots {
    /// Boxed, as the map moves its entries about when one comes or goes.
    by_token: BTreeMap<LeaseToken, Box<Slot>>,
    /// Syncs that have not begun, in the order in which they came.
    ready: VecDeque<LeaseToken>,
    running: Count,
    ending: Count,
}

impl Slots {
    /// A job begins.
    pub(super) fn insert(&mut self, mut slot: Slot) {
        slot.has_begun = true;
        *self.running.of(&slot.work) += 1;
        let before = self.by_token.insert(slot.lease.token, Box::new(slot));
        assert!(before.is_none(), "a token names one lease");
    }

    /// A sync will begin later.
    pub(super) fn insert_ready(&mut self, slot: Slot) {
        assert!(
            matches!(slot.work, Work::Sync { .. }),
            "fan-outs begin at once"
        );
        self.ready.push_back(slot.lease.token);
        let before = self.by_token.insert(slot.lease.token, Box::new(slot));
        assert!(before.is_none(), "a token names one lease");
    }

    /// The first of the syncs that are ready begins.
    pub(super) fn begin_next(&mut self, now: Timestamp) -> Option<&Slot> {
        let token = self.ready.pop_front()?;
        let slot = self.by_token.get_mut(&token);
        let slot = slot.expect("a job that is ready is here");
        slot.has_begun = true;
        slot.started_at = now;
        *self.running.of(&slot.work) += 1;
        Some(slot)
    }

    /// The job's end is on its way from now on.
    pub(super) fn end(&mut self, token: LeaseToken, ending: Ending) -> &mut Slot {
        let slot = self
            .by_token
            .get_mut(&token)
            .expect("a job that ends is here");
        assert!(slot.ending.is_none(), "a job ends once");
        slot.ending = Some(ending);
        if slot.has_begun {
            *self.running.of(&slot.work) -= 1;
        } else {
            self.ready.retain(|ready| *ready != token);
            slot.has_begun = true;
        }
        *self.ending.of(&slot.work) += 1;
        slot
    }

    /// The store refused the job's end: it has to end otherwise.
    pub(super) fn undo_end(&mut self, token: LeaseToken) {
        let slot = self.by_token.get_mut(&token);
        let slot = slot.expect("a job whose end was refused is here");
        if slot.ending.take().is_some() {
            *self.ending.of(&slot.work) -= 1;
            *self.running.of(&slot.work) += 1;
        }
    }

    /// The job is over, or lost.
    pub(super) fn remove(&mut self, token: LeaseToken) -> Option<Slot> {
        let slot = self.by_token.remove(&token)?;
        if slot.ending.is_some() {
            *self.ending.of(&slot.work) -= 1;
        } else if slot.has_begun {
            *self.running.of(&slot.work) -= 1;
        } else {
            self.ready.retain(|ready| *ready != token);
        }
        Some(*slot)
    }

    pub(super) fn get(&self, token: LeaseToken) -> Option<&Slot> {
        self.by_token.get(&token).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, token: LeaseToken) -> Option<&mut Slot> {
        self.by_token.get_mut(&token).map(Box::as_mut)
    }

    /// The job that a step of its own concerns.
    pub(super) fn its(&mut self, token: LeaseToken) -> &mut Slot {
        self.get_mut(token)
            .expect("a job's step belongs to its slot")
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = LeaseToken> + '_ {
        self.by_token.keys().copied()
    }

    pub(super) fn facts(&self) -> impl Iterator<Item = (&LeaseRef, u32, Option<Timestamp>)> + '_ {
        let slots = self.by_token.values();
        slots.map(|slot| (&slot.lease, slot.attempt, slot.nominal_at))
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &LeaseRef> + '_ {
        self.by_token.values().map(|slot| &slot.lease)
    }

    /// The syncs that have not begun, in the order in which they will.
    pub(super) fn ready_slots(&self) -> impl Iterator<Item = &Slot> + '_ {
        let slots = self.ready.iter().map(|token| self.get(*token));
        slots.map(|slot| slot.expect("a job that is ready is here"))
    }

    /// The jobs whose end is not on its way.
    pub(super) fn running_tokens(&self) -> Vec<LeaseToken> {
        let running = self.by_token.values().filter(|slot| slot.ending.is_none());
        running.map(|slot| slot.lease.token).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_token.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }

    /// Jobs that run.
    pub(super) fn running(&self) -> usize {
        (self.running.syncs + self.running.fan_outs) as usize
    }

    /// Syncs that run.
    pub(super) fn running_syncs(&self) -> u32 {
        self.running.syncs
    }

    /// Syncs that have not begun.
    pub(super) fn ready_syncs(&self) -> u32 {
        u32::try_from(self.ready.len()).expect("few jobs are ready")
    }

    /// Syncs that are ready, run or end.
    pub(super) fn syncs(&self) -> u32 {
        self.ready_syncs() + self.running.syncs + self.ending.syncs
    }

    /// Fan-outs that run or end.
    pub(super) fn fan_outs(&self) -> u32 {
        self.running.fan_outs + self.ending.fan_outs
    }
}
