//! The ends of an attempt: done, once more later, given up, handed back.
//!
//! Each needs the live lease, so a worker that lost it commits nothing. Each leaves its token behind, so that the same
//! command sent again (its reply was lost) hears that it was done.

use super::Queue;
use super::command::{Commit, CommitOutcome, LeaseRef, ParkReason, Refusal, Reply};
use super::records::user_key;
use super::rows::{FinishedRow, JobRow, Wish};
use super::state::JobKey;
use crate::mutant::{Mutant, planted};
use crate::time::Timestamp;

impl Queue {
    pub(super) fn complete(
        &mut self,
        now: Timestamp,
        lease: &LeaseRef,
        commit: Commit,
    ) -> Result<Reply, Refusal> {
        if self.is_ended(now, lease)? {
            return Ok(Reply::AlreadyDone);
        }
        let job = self.remove_job(&lease.key).expect("a live lease has a job");
        let synced = matches!(commit.outcome, CommitOutcome::Synced { .. });
        let outcome = commit.outcome;
        if let Some(user) = user_key(&lease.key) {
            self.edit_user(&user, |row| {
                row.finished = Some(lease.token);
                let state = &mut row.state;
                state.cursor = commit.cursor.or(state.cursor.take());
                state.due_at = commit.next_due_at.unwrap_or(state.due_at);
                state.last_outcome = Some(outcome.clone());
                state.last_error = None;
                if synced {
                    state.last_success_at = Some(now);
                    state.gate_until = None;
                    state.limited_in_a_row = 0;
                }
            });
            if synced {
                self.reset_source_limited(&user.0);
            }
        } else {
            self.remember_finished(lease);
        }
        self.file_completed(FinishedRow {
            key: lease.key.clone(),
            at: now,
            priority: job.wish.priority,
            attempt: job.attempts.saturating_add(1),
            nominal_at: job.wish.nominal_at,
            outcome: Some(outcome),
            error: None,
        });
        self.run_again(&lease.key, job.rerun);
        Ok(Reply::Done)
    }

    pub(super) fn retry(
        &mut self,
        now: Timestamp,
        lease: &LeaseRef,
        at: Timestamp,
        error: String,
    ) -> Result<Reply, Refusal> {
        if self.is_ended(now, lease)? {
            return Ok(Reply::AlreadyDone);
        }
        self.remember_finished(lease);
        if let Some(user) = user_key(&lease.key) {
            self.edit_user(&user, |row| row.state.last_error = Some(error.clone()));
        }
        self.edit_job(&lease.key, |row| {
            row.attempts = row.attempts.saturating_add(1);
            row.error = Some(error);
        });
        self.hand_back(&lease.key, Some(at));
        Ok(Reply::Done)
    }

    pub(super) fn fail(
        &mut self,
        now: Timestamp,
        lease: &LeaseRef,
        error: String,
        next_due_at: Option<Timestamp>,
        park: Option<ParkReason>,
    ) -> Result<Reply, Refusal> {
        if self.is_ended(now, lease)? {
            return Ok(Reply::AlreadyDone);
        }
        self.remember_finished(lease);
        if planted(Mutant::DedupKeyLeaked) {
            self.hand_back(&lease.key, Some(Timestamp::MAX));
            return Ok(Reply::Done);
        }
        let job = self.remove_job(&lease.key).expect("a live lease has a job");
        if let Some(user) = user_key(&lease.key) {
            self.edit_user(&user, |row| {
                row.state.last_error = Some(error.clone());
                row.state.due_at = next_due_at.unwrap_or(row.state.due_at);
                if planted(Mutant::FailedNeverDue) {
                    row.state.due_at = Timestamp::MAX;
                }
                if !planted(Mutant::ParkedRetried) {
                    row.state.parked = park.or(row.state.parked);
                }
            });
        }
        self.bury(now, &lease.key, &job, job.attempts.saturating_add(1), error);
        self.run_again(&lease.key, job.rerun);
        Ok(Reply::Done)
    }

    pub(super) fn release(
        &mut self,
        now: Timestamp,
        lease: &LeaseRef,
        at: Option<Timestamp>,
    ) -> Result<Reply, Refusal> {
        if self.is_ended(now, lease)? {
            return Ok(Reply::AlreadyDone);
        }
        self.remember_finished(lease);
        self.hand_back(&lease.key, at);
        Ok(Reply::Done)
    }

    /// The job waits again, until `at` if that is given, else from its own time. A wish that came meanwhile is met by
    /// the next attempt, but does not bring it forward.
    pub(super) fn hand_back(&mut self, key: &JobKey, at: Option<Timestamp>) {
        self.edit_job(key, |row| {
            row.active = None;
            let run_at = at.unwrap_or(row.wish.run_at);
            if let Some(rerun) = row.rerun.take() {
                row.wish = row.wish.and(rerun);
            }
            row.wish.run_at = run_at;
            row.backing_off = at.is_some();
        });
    }

    /// Into the dead letters.
    pub(super) fn bury(
        &mut self,
        now: Timestamp,
        key: &JobKey,
        job: &JobRow,
        attempt: u32,
        error: String,
    ) {
        self.file_failed(FinishedRow {
            key: key.clone(),
            at: now,
            priority: job.wish.priority,
            attempt,
            nominal_at: job.wish.nominal_at,
            outcome: None,
            error: Some(error),
        });
    }

    /// The wish that came while a job was active, now that the job is gone. A parked user's is dropped.
    pub(super) fn run_again(&mut self, key: &JobKey, rerun: Option<Wish>) {
        let Some(wish) = rerun else { return };
        let parked = self.user_of(key).is_some_and(|user| user.parked.is_some());
        if !parked {
            self.insert_job(key, JobRow::fresh(wish));
        }
    }
}
