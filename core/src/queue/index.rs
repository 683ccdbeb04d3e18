//! Indexes: what makes each question cheap. They follow from the rows, are never stored, and are built anew on restore.
//!
//! A job that is not active stands in its [`Lane`], one that is under its lease: so each command finds the jobs that it
//! touches at once, and nobody scans over the others.

use std::collections::{BTreeMap, BTreeSet};

use super::Queue;
use super::command::{LeaseToken, Priority};
use super::lane::Lane;
use super::rows::{FinishedRow, JobRow, UserKey};
use super::state::{JobKey, UserState};
use crate::id::{SourceName, UserId, WorkerId};
use crate::time::Timestamp;

/// All of a job and its user that the indexes depend on: where the job stands in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Outside {
        ready_at: Timestamp,
        priority: Priority,
    },
    Leased {
        expires_at: Timestamp,
        worker: WorkerId,
        token: LeaseToken,
    },
}

impl Place {
    /// Of a job whose user's gate is closed until `gate`, which of a leased one nobody asks.
    pub(super) fn of(row: &JobRow, gate: Option<Timestamp>) -> Place {
        match &row.active {
            Some(lease) => Place::Leased {
                expires_at: lease.expires_at,
                worker: lease.worker.clone(),
                token: lease.token,
            },
            None => Place::Outside {
                ready_at: ready_at(row, gate),
                priority: row.wish.priority,
            },
        }
    }
}

/// All of a user that the indexes depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserPlace {
    due_at: Timestamp,
    last_success_at: Option<Timestamp>,
    parked: bool,
    /// When this user's job may start at the earliest depends on it.
    pub(super) gate_until: Option<Timestamp>,
}

impl UserPlace {
    pub(super) fn of(state: &UserState) -> UserPlace {
        UserPlace {
            due_at: state.due_at,
            last_success_at: state.last_success_at,
            parked: state.parked.is_some(),
            gate_until: state.gate_until,
        }
    }
}

/// What is known of a source at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceIndex {
    pub(super) lane: Lane,
    /// Users that are not parked, by due time.
    pub(super) due: BTreeSet<(Timestamp, UserId)>,
    /// Users that are not parked, by last success.
    pub(super) success: BTreeSet<(Timestamp, UserId)>,
    pub(super) users: u64,
    pub(super) parked: u64,
    pub(super) never_synced: u64,
}

/// Whose history: a source's, or (`None`) that of the fan-outs.
pub(super) type Ring = Option<SourceName>;

/// All indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) fan_outs: Lane,
    pub(super) sources: BTreeMap<SourceName, SourceIndex>,
    /// Active jobs by when their lease expires.
    pub(super) expiry: BTreeSet<(Timestamp, JobKey)>,
    /// Active jobs by who holds them.
    pub(super) workers: BTreeMap<WorkerId, BTreeMap<LeaseToken, JobKey>>,
    /// Rows of users' requests, by when none counts any more.
    pub(super) user_flows: BTreeSet<(Timestamp, UserKey)>,
    pub(super) completed: BTreeMap<Ring, BTreeSet<u64>>,
    pub(super) failed: BTreeMap<Ring, BTreeSet<u64>>,
}

impl Index {
    pub(super) fn new() -> Self {
        Index {
            fan_outs: Lane::default(),
            sources: BTreeMap::new(),
            expiry: BTreeSet::new(),
            workers: BTreeMap::new(),
            user_flows: BTreeSet::new(),
            completed: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// The indexes of the queue's rows.
    pub(super) fn build(queue: &Queue) -> Index {
        let mut index = Index::new();
        for (source, _) in queue.sources.iter() {
            index.sources.entry(source.clone()).or_default();
        }
        for (key, row) in queue.users.iter() {
            index.add_user(key, UserPlace::of(&row.state));
        }
        for (key, row) in queue.jobs.iter() {
            let gate = queue.user_of(key).and_then(|user| user.gate_until);
            index.stand(key, &Place::of(row, gate));
        }
        for (key, row) in queue.user_flows.iter() {
            index.user_flows.insert((row.empty_at, key.clone()));
        }
        for (number, row) in queue.completed.iter() {
            let ring = index.completed.entry(ring_of(row)).or_default();
            ring.insert(*number);
        }
        for (number, row) in queue.failed.iter() {
            let ring = index.failed.entry(ring_of(row)).or_default();
            ring.insert(*number);
        }
        index
    }

    /// All lanes in the order of claims: that of the fan-outs, then each source's by its name.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        let sources = self.sources.values().map(|source| &source.lane);
        std::iter::once(&self.fan_outs).chain(sources)
    }

    fn lane_mut(&mut self, key: &JobKey) -> &mut Lane {
        match key {
            JobKey::FanOut { .. } => &mut self.fan_outs,
            JobKey::Sync { source, .. } => {
                &mut self.sources.entry(source.clone()).or_default().lane
            }
        }
    }

    /// The job has changed; most changes leave it where it stands.
    pub(super) fn move_job(&mut self, key: &JobKey, before: &Place, after: &Place) {
        if before != after {
            self.leave(key, before);
            self.stand(key, after);
        }
    }

    /// The job, which is not in, stands there from now on.
    pub(super) fn stand(&mut self, key: &JobKey, place: &Place) {
        match place {
            Place::Leased {
                expires_at,
                worker,
                token,
            } => {
                self.expiry.insert((*expires_at, key.clone()));
                let held = self.workers.entry(worker.clone()).or_default();
                held.insert(*token, key.clone());
            }
            Place::Outside { ready_at, priority } => {
                let lane = self.lane_mut(key);
                lane.insert(*priority, (*ready_at, key.clone()));
            }
        }
    }

    /// The job, which stands there, does so no more.
    pub(super) fn leave(&mut self, key: &JobKey, place: &Place) {
        match place {
            Place::Leased {
                expires_at,
                worker,
                token,
            } => {
                self.expiry.remove(&(*expires_at, key.clone()));
                let held = self
                    .workers
                    .get_mut(worker)
                    .expect("a lease has its worker");
                held.remove(token);
                if held.is_empty() {
                    self.workers.remove(worker);
                }
            }
            Place::Outside { ready_at, priority } => {
                let lane = self.lane_mut(key);
                lane.remove(*priority, &(*ready_at, key.clone()));
            }
        }
    }

    pub(super) fn add_user(&mut self, (source, user): &UserKey, state: UserPlace) {
        let index = self.sources.entry(source.clone()).or_default();
        index.users += 1;
        match state.last_success_at {
            None => index.never_synced += 1,
            Some(at) if !state.parked => {
                index.success.insert((at, user.clone()));
            }
            Some(_) => {}
        }
        if state.parked {
            index.parked += 1;
        } else {
            index.due.insert((state.due_at, user.clone()));
        }
    }

    /// The user has changed; most changes leave some of the places as they were.
    pub(super) fn move_user(&mut self, key: &UserKey, before: UserPlace, after: UserPlace) {
        let same_kind = before.parked == after.parked
            && before.last_success_at.is_some() == after.last_success_at.is_some();
        if !same_kind {
            self.remove_user(key, before);
            self.add_user(key, after);
            return;
        }
        if after.parked {
            return;
        }
        let (source, user) = key;
        let index = self.sources.get_mut(source).expect("a user has its source");
        if before.due_at != after.due_at {
            index.due.remove(&(before.due_at, user.clone()));
            index.due.insert((after.due_at, user.clone()));
        }
        if let (Some(old), Some(new)) = (before.last_success_at, after.last_success_at)
            && old != new
        {
            index.success.remove(&(old, user.clone()));
            index.success.insert((new, user.clone()));
        }
    }

    pub(super) fn remove_user(&mut self, (source, user): &UserKey, state: UserPlace) {
        let index = self.sources.get_mut(source).expect("a user has its source");
        index.users -= 1;
        match state.last_success_at {
            None => index.never_synced -= 1,
            Some(at) => {
                index.success.remove(&(at, user.clone()));
            }
        }
        if state.parked {
            index.parked -= 1;
        } else {
            index.due.remove(&(state.due_at, user.clone()));
        }
    }
}

/// When a job may start at the earliest, as far as it and its user are concerned.
fn ready_at(row: &JobRow, gate: Option<Timestamp>) -> Timestamp {
    let until = gate.max(row.held_until);
    until.map_or(row.wish.run_at, |until| row.wish.run_at.max(until))
}

pub(super) fn ring_of(row: &FinishedRow) -> Ring {
    match &row.key {
        JobKey::FanOut { .. } => None,
        JobKey::Sync { source, .. } => Some(source.clone()),
    }
}

/// The numbers of a history source by source, by their names, and then those of the fan-outs; each source's oldest first.
pub(super) fn by_source(
    history: &BTreeMap<Ring, BTreeSet<u64>>,
) -> impl Iterator<Item = &BTreeSet<u64>> {
    let sources = history.iter().filter(|(ring, _)| ring.is_some());
    let sources = sources.map(|(_, numbers)| numbers);
    sources.chain(history.get(&None))
}
