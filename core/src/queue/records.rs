//! The only ways to change a job, a user or a user's requests: each keeps the indexes in step with the rows.

use super::Queue;
use super::clock::WOBBLE_MS;
use super::command::{LeaseRef, LeaseToken, Refusal};
use super::index::{Place, UserPlace};
use super::rows::{ActiveLease, JobRow, MetaRow, UserFlowRow, UserKey, UserRow, Wish, opens_at};
use super::state::{JobKey, UserState};
use crate::mutant::{Mutant, planted};
use crate::policy::limit::{Limit, SlidingWindow};
use crate::time::Timestamp;

/// Rows of users' requests that are dropped in one claim at the most.
const USER_FLOWS_DROPPED_MAX: usize = 100;

impl Queue {
    pub(super) fn meta(&self) -> MetaRow {
        self.meta.get(&()).cloned().unwrap_or_default()
    }

    pub(super) fn edit_meta<R>(&mut self, change: impl FnOnce(&mut MetaRow) -> R) -> R {
        if !self.meta.contains(&()) {
            self.meta.insert(&(), MetaRow::default());
        }
        let answer = self.meta.edit(&(), change);
        answer.expect("the row is there")
    }

    /// The user of a sync job; `None` for a fan-out.
    pub(super) fn user_of(&self, key: &JobKey) -> Option<&UserState> {
        self.users.get(&user_key(key)?).map(|row| &row.state)
    }

    pub(super) fn insert_job(&mut self, key: &JobKey, row: JobRow) {
        assert!(!self.jobs.contains(key), "{key} is outstanding already");
        let place = Place::of(&row, self.gate_of(key));
        self.index.stand(key, &place);
        self.jobs.insert(key, row);
    }

    /// Lets `change` at a job that is there.
    pub(super) fn edit_job<R>(&mut self, key: &JobKey, change: impl FnOnce(&mut JobRow) -> R) -> R {
        let gate = self.gate_of(key);
        let edited = self.jobs.edit(key, |row| {
            let before = Place::of(row, gate);
            let answer = change(row);
            (answer, before, Place::of(row, gate))
        });
        let (answer, before, after) = edited.expect("the caller found this job");
        self.index.move_job(key, &before, &after);
        answer
    }

    pub(super) fn remove_job(&mut self, key: &JobKey) -> Option<JobRow> {
        let row = self.jobs.remove(key)?;
        let gate = match row.active {
            Some(_) => None,
            None => self.gate_of(key),
        };
        let place = Place::of(&row, gate);
        self.index.leave(key, &place);
        Some(row)
    }

    /// Until when the gate of a job's user is closed, as far as there is one.
    fn gate_of(&self, key: &JobKey) -> Option<Timestamp> {
        self.user_of(key).and_then(|user| user.gate_until)
    }

    pub(super) fn insert_user(&mut self, key: &UserKey, row: UserRow) {
        assert!(!self.users.contains(key), "{key:?} is enrolled already");
        self.index.add_user(key, UserPlace::of(&row.state));
        self.users.insert(key, row);
    }

    /// Lets `change` at a user that is there.
    pub(super) fn edit_user<R>(
        &mut self,
        key: &UserKey,
        change: impl FnOnce(&mut UserRow) -> R,
    ) -> R {
        let edited = self.users.edit(key, |row| {
            let before = UserPlace::of(&row.state);
            let answer = change(row);
            (answer, before, UserPlace::of(&row.state))
        });
        let (answer, before, after) = edited.expect("the caller found this user");
        if before != after {
            self.index.move_user(key, before, after);
        }
        if before.gate_until != after.gate_until {
            let job = sync_key(key);
            if let Some(row) = self.jobs.get(&job) {
                let before = Place::of(row, before.gate_until);
                let after = Place::of(row, after.gate_until);
                self.index.move_job(&job, &before, &after);
            }
        }
        answer
    }

    /// Forgets a user with all that belongs to the user but the history; whether there was one.
    pub(super) fn remove_user(&mut self, key: &UserKey) -> bool {
        self.remove_job(&sync_key(key));
        self.remove_user_flow(key);
        match self.users.remove(key) {
            Some(row) => {
                self.index.remove_user(key, UserPlace::of(&row.state));
                true
            }
            None => false,
        }
    }

    /// When `wanted` more requests on behalf of the user fit.
    pub(super) fn user_opens_at(
        &self,
        key: &UserKey,
        now: Timestamp,
        limit: Option<&Limit>,
        wanted: u32,
    ) -> Timestamp {
        self.user_flows
            .get(key)
            .map_or(now, |row| opens_at(&row.requests, now, limit, wanted))
    }

    pub(super) fn record_user_requests(
        &mut self,
        key: &UserKey,
        now: Timestamp,
        limit: Option<&Limit>,
        requests: u32,
    ) {
        let Some(limit) = limit else { return };
        let record = |row: &mut UserFlowRow| {
            if row.requests.available(now, limit) == limit.count {
                // The log would keep old requests for a longer limit to come; for so many users that is too much memory.
                row.requests = SlidingWindow::new();
            }
            row.requests.record(now, requests, limit);
            let before = row.empty_at;
            row.empty_at = row.requests.opens_at(now, limit, limit.count);
            (before, row.empty_at)
        };
        let edited = self.user_flows.edit(key, record);
        let (before, after) = edited.unwrap_or_else(|| {
            let mut row = UserFlowRow::new();
            let places = record(&mut row);
            self.user_flows.insert(key, row);
            places
        });
        let (before, after) = ((before, key.clone()), (after, key.clone()));
        if before != after {
            self.index.user_flows.remove(&before);
        }
        self.index.user_flows.insert(after);
    }

    fn remove_user_flow(&mut self, key: &UserKey) -> Option<UserFlowRow> {
        let row = self.user_flows.remove(key)?;
        self.index.user_flows.remove(&(row.empty_at, key.clone()));
        Some(row)
    }

    /// By when users' requests had left the window that may be forgotten. Measured from the last change, as a step back
    /// of the clock is: whether they were dropped by then makes no difference.
    fn user_flows_forgotten_by(&self) -> Timestamp {
        self.meta().changed_at.minus_ms(WOBBLE_MS)
    }

    /// Drops rows of users' requests that count no more. It is seen by nobody, so it does not count as a change.
    pub(super) fn drop_user_flows(&mut self, now: Timestamp) {
        let forgotten_by = self.user_flows_forgotten_by();
        for _ in 0..USER_FLOWS_DROPPED_MAX {
            // Most claims end here: nothing is copied before it is known that there is something to drop.
            let first = self.index.user_flows.first();
            if first.is_none_or(|(empty_at, _)| *empty_at > forgotten_by) {
                return;
            }
            let (_, key) = self.index.user_flows.pop_first().expect("looked at above");
            let row = self.user_flows.remove_unseen(&key);
            let mut row = row.expect("an indexed row is there");
            let settings = self.sources.get(&key.0).map(|source| &source.settings);
            let limit = settings.and_then(|settings| settings.requests_user);
            row.empty_at =
                limit.map_or(now, |limit| row.requests.opens_at(now, &limit, limit.count));
            if row.empty_at > now {
                // A longer window was set since, or the clock stepped back.
                self.index.user_flows.insert((row.empty_at, key.clone()));
                self.user_flows.insert_unseen(&key, row);
            }
        }
    }

    /// Takes requests of users that lie in the future to have been made now, and drops those that count no more.
    pub(super) fn restamp_user_flows(&mut self, now: Timestamp) {
        let forgotten_by = self.user_flows_forgotten_by();
        let keys: Vec<UserKey> = self.user_flows.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            let mut row = self.remove_user_flow(&key).expect("it was listed");
            let Some(limit) = self.settings(&key.0).requests_user else {
                continue;
            };
            if row.empty_at <= forgotten_by {
                continue;
            }
            row.requests.restamp(now);
            row.empty_at = row.requests.opens_at(now, &limit, limit.count);
            self.index.user_flows.insert((row.empty_at, key.clone()));
            self.user_flows.insert(&key, row);
        }
    }

    /// The lease, if it is live: it is on the job, under this token, and has not expired.
    pub(super) fn live(&self, now: Timestamp, lease: &LeaseRef) -> Option<&ActiveLease> {
        let active = self.jobs.get(&lease.key)?.active.as_ref()?;
        (active.token == lease.token && active.expires_at > now).then_some(active)
    }

    /// Whether the holder of this lease has ended it already. Refuses a lease that is neither live nor ended so.
    pub(super) fn is_ended(&self, now: Timestamp, lease: &LeaseRef) -> Result<bool, Refusal> {
        let is_held = || {
            self.jobs
                .get(&lease.key)
                .is_some_and(|row| row.active.is_some())
        };
        if self.live(now, lease).is_some() || planted(Mutant::NoFencingCheck) && is_held() {
            Ok(false)
        } else if self.finished(&lease.key) == Some(lease.token) {
            Ok(true)
        } else {
            Err(Refusal::LeaseLost)
        }
    }

    fn finished(&self, key: &JobKey) -> Option<LeaseToken> {
        match key {
            JobKey::FanOut { schedule } => self.schedules.get(schedule)?.finished,
            JobKey::Sync { source, user } => {
                self.users.get(&(source.clone(), user.clone()))?.finished
            }
        }
    }

    pub(super) fn remember_finished(&mut self, lease: &LeaseRef) {
        match (&lease.key, user_key(&lease.key)) {
            (JobKey::FanOut { schedule }, _) => {
                let token = Some(lease.token);
                self.schedules.edit(schedule, |row| row.finished = token);
            }
            (JobKey::Sync { .. }, user) => {
                let user = user.expect("a sync job has a user");
                self.edit_user(&user, |row| row.finished = Some(lease.token));
            }
        }
    }

    /// A new job, or one more wish on the outstanding one; whether it is new.
    ///
    /// `hurries`: may shorten a wait that an ended attempt has set.
    pub(super) fn want(&mut self, key: &JobKey, wish: Wish, hurries: bool) -> bool {
        if !self.jobs.contains(key) {
            self.insert_job(key, JobRow::fresh(wish));
            return true;
        }
        self.edit_job(key, |row| {
            if row.active.is_some() && planted(Mutant::RerunDropped) {
                // The wish is lost.
            } else if row.active.is_some() {
                row.rerun = Some(row.rerun.map_or(wish, |rerun| rerun.and(wish)));
            } else {
                let run_at = row.wish.run_at;
                row.wish = row.wish.and(wish);
                if row.backing_off && !hurries {
                    row.wish.run_at = run_at;
                }
            }
        });
        false
    }
}

/// The user of a sync job.
pub(super) fn user_key(key: &JobKey) -> Option<UserKey> {
    match key {
        JobKey::FanOut { .. } => None,
        JobKey::Sync { source, user } => Some((source.clone(), user.clone())),
    }
}

/// The sync job of a user.
pub(super) fn sync_key((source, user): &UserKey) -> JobKey {
    JobKey::Sync {
        source: source.clone(),
        user: user.clone(),
    }
}
