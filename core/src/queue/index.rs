//! Indexes: what makes each question cheap. They follow from the rows, are never stored, and are built anew on restore.
//!
//! The idea that keeps claims cheap: a job is *ready* from the later of its own time and its user's gate, and only
//! ready jobs stand in a lane. A watermark says up to which time jobs were moved into the lanes, so the passing of
//! time costs each job one move, a clock that steps back moves them out again, and nobody scans over jobs that cannot
//! start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::Queue;
use super::command::{LeaseToken, Priority};
use super::rows::{FinishedRow, JobRow, UserKey};
use super::state::{JobKey, UserState};
use crate::id::{SourceName, UserId, WorkerId};
use crate::time::Timestamp;

/// The order of ready jobs: "sync now" by its time; scheduled ones by their time, then by how overdue the user is.
pub(super) type Rank = (Reverse<Priority>, Timestamp, Timestamp, JobKey);

/// Where a job stands in the indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Outside {
        ready_at: Timestamp,
        rank: Rank,
    },
    Leased {
        expires_at: Timestamp,
        worker: WorkerId,
        token: LeaseToken,
    },
}

/// The jobs of a source, or all fan-outs, that are not active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// All of them, by when they are ready.
    pub(super) by_time: BTreeSet<(Timestamp, JobKey)>,
    /// Those that are ready as of the watermark.
    pub(super) ready: BTreeSet<Rank>,
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
    watermark: Timestamp,
    /// Jobs that are not active, by when they are ready.
    pub(super) by_time: BTreeMap<Timestamp, BTreeSet<JobKey>>,
    pub(super) fan_outs: Lane,
    pub(super) sources: BTreeMap<SourceName, SourceIndex>,
    /// Active jobs by when their lease expires.
    pub(super) expiry: BTreeSet<(Timestamp, JobKey)>,
    /// Active jobs by who holds them.
    pub(super) workers: BTreeMap<WorkerId, BTreeMap<LeaseToken, JobKey>>,
    pub(super) active: BTreeSet<JobKey>,
    /// Rows of users' requests, by when none counts any more.
    pub(super) user_flows: BTreeSet<(Timestamp, UserKey)>,
    pub(super) completed: BTreeMap<Ring, BTreeSet<u64>>,
    pub(super) failed: BTreeMap<Ring, BTreeSet<u64>>,
    places: BTreeMap<JobKey, Place>,
}

impl Index {
    pub(super) fn new() -> Self {
        Index {
            watermark: Timestamp::EPOCH,
            by_time: BTreeMap::new(),
            fan_outs: Lane::default(),
            sources: BTreeMap::new(),
            expiry: BTreeSet::new(),
            workers: BTreeMap::new(),
            active: BTreeSet::new(),
            user_flows: BTreeSet::new(),
            completed: BTreeMap::new(),
            failed: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// The indexes of the queue's rows, with the lanes as of `watermark`.
    pub(super) fn build(queue: &Queue, watermark: Timestamp) -> Index {
        let mut index = Index::new();
        index.watermark = watermark;
        for (source, _) in queue.sources.iter() {
            index.sources.entry(source.clone()).or_default();
        }
        for (key, row) in queue.users.iter() {
            index.add_user(key, &row.state);
        }
        for (key, row) in queue.jobs.iter() {
            index.add_job(key, row, queue.user_of(key));
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

    pub(super) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Moves the watermark to `now`, forwards or backwards.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let before = self.watermark;
        self.watermark = now;
        let (from, to) = (before.min(now), before.max(now));
        let moved: Vec<JobKey> = self
            .by_time
            .range((Bound::Excluded(from), Bound::Included(to)))
            .flat_map(|(_, keys)| keys.iter().cloned())
            .collect();
        for key in moved {
            let Some(Place::Outside { rank, .. }) = self.places.get(&key) else {
                unreachable!("by_time holds only jobs that are not active");
            };
            let rank = rank.clone();
            let lane = self.lane_mut(&key);
            if now > before {
                lane.ready.insert(rank);
            } else {
                lane.ready.remove(&rank);
            }
        }
    }

    fn lane_mut(&mut self, key: &JobKey) -> &mut Lane {
        match key {
            JobKey::FanOut { .. } => &mut self.fan_outs,
            JobKey::Sync { source, .. } => {
                &mut self.sources.entry(source.clone()).or_default().lane
            }
        }
    }

    pub(super) fn add_job(&mut self, key: &JobKey, row: &JobRow, user: Option<&UserState>) {
        let place = match &row.active {
            Some(lease) => {
                self.expiry.insert((lease.expires_at, key.clone()));
                self.active.insert(key.clone());
                let held = self.workers.entry(lease.worker.clone()).or_default();
                held.insert(lease.token, key.clone());
                Place::Leased {
                    expires_at: lease.expires_at,
                    worker: lease.worker.clone(),
                    token: lease.token,
                }
            }
            None => {
                let ready_at = ready_at(row, user);
                let rank = rank(key, row, user);
                let watermark = self.watermark;
                self.by_time
                    .entry(ready_at)
                    .or_default()
                    .insert(key.clone());
                let lane = self.lane_mut(key);
                lane.by_time.insert((ready_at, key.clone()));
                if ready_at <= watermark {
                    lane.ready.insert(rank.clone());
                }
                Place::Outside { ready_at, rank }
            }
        };
        let former = self.places.insert(key.clone(), place);
        assert!(former.is_none(), "{key} stood in the indexes already");
    }

    /// Takes the job out, if it is in.
    pub(super) fn remove_job(&mut self, key: &JobKey) {
        match self.places.remove(key) {
            None => {}
            Some(Place::Leased {
                expires_at,
                worker,
                token,
            }) => {
                self.expiry.remove(&(expires_at, key.clone()));
                self.active.remove(key);
                let held = self
                    .workers
                    .get_mut(&worker)
                    .expect("a lease has its worker");
                held.remove(&token);
                if held.is_empty() {
                    self.workers.remove(&worker);
                }
            }
            Some(Place::Outside { ready_at, rank }) => {
                let keys = self.by_time.get_mut(&ready_at).expect("a job has its time");
                keys.remove(key);
                if keys.is_empty() {
                    self.by_time.remove(&ready_at);
                }
                let lane = self.lane_mut(key);
                lane.by_time.remove(&(ready_at, key.clone()));
                lane.ready.remove(&rank);
            }
        }
    }

    pub(super) fn add_user(&mut self, (source, user): &UserKey, state: &UserState) {
        let index = self.sources.entry(source.clone()).or_default();
        index.users += 1;
        match state.last_success_at {
            None => index.never_synced += 1,
            Some(at) if state.parked.is_none() => {
                index.success.insert((at, user.clone()));
            }
            Some(_) => {}
        }
        if state.parked.is_some() {
            index.parked += 1;
        } else {
            index.due.insert((state.due_at, user.clone()));
        }
    }

    pub(super) fn remove_user(&mut self, (source, user): &UserKey, state: &UserState) {
        let index = self.sources.get_mut(source).expect("a user has its source");
        index.users -= 1;
        match state.last_success_at {
            None => index.never_synced -= 1,
            Some(at) => {
                index.success.remove(&(at, user.clone()));
            }
        }
        if state.parked.is_some() {
            index.parked -= 1;
        } else {
            index.due.remove(&(state.due_at, user.clone()));
        }
    }

    /// How many jobs are ready as of the watermark.
    pub(super) fn ready_count(&self) -> usize {
        self.sources
            .values()
            .fold(self.fan_outs.ready.len(), |sum, source| {
                sum + source.lane.ready.len()
            })
    }
}

/// When a job may start at the earliest, as far as it and its user are concerned.
pub(super) fn ready_at(row: &JobRow, user: Option<&UserState>) -> Timestamp {
    let gate = user.and_then(|user| user.gate_until);
    let until = gate.max(row.held_until);
    until.map_or(row.wish.run_at, |until| row.wish.run_at.max(until))
}

fn rank(key: &JobKey, row: &JobRow, user: Option<&UserState>) -> Rank {
    let due_at = match (row.wish.priority, user) {
        (Priority::Scheduled, Some(user)) => user.due_at,
        _ => Timestamp::EPOCH,
    };
    (
        Reverse(row.wish.priority),
        row.wish.run_at,
        due_at,
        key.clone(),
    )
}

pub(super) fn ring_of(row: &FinishedRow) -> Ring {
    match &row.key {
        JobKey::FanOut { .. } => None,
        JobKey::Sync { source, .. } => Some(source.clone()),
    }
}
