//! The only ways to change a job, a user or a user's requests: each keeps the indexes in step with the rows.

use super::Queue;
use super::clock::WOBBLE_MS;
use super::command::{LeaseRef, LeaseToken, Refusal};
use super::index::UserPlace;
use super::rows::{ActiveLease, JobRow, MetaRow, UserFlowRow, UserKey, UserRow, Wish, opens_at};
use super::state::{JobKey, UserState};
use crate::mutant::{Mutant, planted};
use crate::policy::limit::Limit;
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
        self.jobs.insert(key, row);
        self.index_job(key);
    }

    /// Lets `change` at a job that is there.
    pub(super) fn edit_job<R>(&mut self, key: &JobKey, change: impl FnOnce(&mut JobRow) -> R) -> R {
        let answer = self.jobs.edit(key, change);
        let answer = answer.expect("the caller found this job");
        self.move_job(key);
        answer
    }

    pub(super) fn remove_job(&mut self, key: &JobKey) -> Option<JobRow> {
        self.index.remove_job(key);
        self.jobs.remove(key)
    }

    fn index_job(&mut self, key: &JobKey) {
        if let Some(row) = self.jobs.get(key) {
            let user = user_key(key).and_then(|user| self.users.get(&user));
            self.index.add_job(key, row, user.map(|user| &user.state));
        }
    }

    /// A job may stand elsewhere in the indexes now.
    fn move_job(&mut self, key: &JobKey) {
        if let Some(row) = self.jobs.get(key) {
            let user = match (&row.active, key) {
                // Of a lease the indexes ask nothing of its user.
                (None, JobKey::Sync { .. }) => user_key(key).and_then(|user| self.users.get(&user)),
                _ => None,
            };
            self.index.move_job(key, row, user.map(|user| &user.state));
        }
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
            self.index.remove_user(key, before);
            self.index.add_user(key, after);
        }
        if before.gate_until != after.gate_until {
            self.move_job(&sync_key(key));
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
        let mut row = self.remove_user_flow(key).unwrap_or_else(UserFlowRow::new);
        if row.requests.available(now, limit) == limit.count {
            // The log would keep old requests for a longer limit to come; for so many users that is too much memory.
            row = UserFlowRow::new();
        }
        row.requests.record(now, requests, limit);
        row.empty_at = row.requests.opens_at(now, limit, limit.count);
        self.index.user_flows.insert((row.empty_at, key.clone()));
        self.user_flows.insert(key, row);
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
            let Some((empty_at, key)) = self.index.user_flows.first().cloned() else {
                return;
            };
            if empty_at > forgotten_by {
                return;
            }
            self.index.user_flows.pop_first();
            let row = self.user_flows.get(&key).cloned();
            let mut row = row.expect("an indexed row is there");
            let settings = self.sources.get(&key.0).map(|source| &source.settings);
            let limit = settings.and_then(|settings| settings.requests_user);
            row.empty_at =
                limit.map_or(now, |limit| row.requests.opens_at(now, &limit, limit.count));
            if row.empty_at > now {
                // A longer window was set since, or the clock stepped back.
                self.index.user_flows.insert((row.empty_at, key.clone()));
                self.user_flows.insert_unseen(&key, row);
            } else {
                self.user_flows.remove_unseen(&key);
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
