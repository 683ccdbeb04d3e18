//! Gates, permits and pauses: how a source, or one user of it, is left in peace.
//!
//! "Slow down" is never a failure: the job goes back unharmed, a gate closes, and everybody who runs already is told
//! to wait at the next request. A gate only ever moves away from now; when it opens, a ramp lets starts in one by one.

use super::check::check_size;
use super::command::{LeaseRef, Refusal, Reply};
use super::records::user_key;
use super::rows::{FlowRow, Ramp, opens_at};
use super::state::JobKey;
use super::{GATE_BASE_MS, GATE_CAP_MS, GATE_MS_MAX, PAUSED_RECHECK_MS, Queue};
use crate::failure::LimitScope;
use crate::id::SourceName;
use crate::mutant::{Mutant, planted};
use crate::time::Timestamp;

/// A "slow down", as reported.
pub(super) struct Limited {
    pub(super) lease: LeaseRef,
    pub(super) scope: LimitScope,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) jitter_ms: u64,
    pub(super) reason: String,
}

impl Queue {
    pub(super) fn limited(
        &mut self,
        now: Timestamp,
        mut limited: Limited,
    ) -> Result<Reply, Refusal> {
        if planted(Mutant::UserGateClosesAll) {
            limited.scope = LimitScope::Source;
        }
        let lease = &limited.lease;
        let user = user_key(&lease.key);
        let ended = self.is_ended(now, lease);
        if ended == Ok(true) {
            return Ok(Reply::AlreadyDone);
        }
        // What the source said holds, whoever holds the job by now.
        let until = match limited.scope {
            LimitScope::User => user.as_ref().and_then(|user| {
                self.users.contains(user).then(|| {
                    self.edit_user(user, |row| {
                        let state = &mut row.state;
                        let closed = state.gate_until.is_some_and(|until| until > now);
                        state.limited_in_a_row = grown(state.limited_in_a_row, closed);
                        let until = gate_until(now, &limited, state.limited_in_a_row);
                        let until = state.gate_until.map_or(until, |before| before.max(until));
                        state.gate_until = Some(until);
                        until
                    })
                })
            }),
            LimitScope::Source => self
                .source_of(&lease.key)
                .and_then(|source| self.close_source(now, &source, &limited)),
        };
        ended?;
        let until = until.expect("a live lease has a user and a source");
        self.remember_finished(lease);
        // Also when it is the source that waits: the others then go first, so that a user who alone brings the answer
        // about cannot shut everybody out again and again.
        self.hand_back(&lease.key, Some(until));
        if planted(Mutant::LimitedIsAttempt) {
            self.edit_job(&lease.key, |row| row.attempts += 1);
        }
        if limited.scope == LimitScope::Source {
            // The gate keeps it back, not a wait of its own: should the gate be opened before its time, the next tick
            // brings it forward.
            self.edit_job(&lease.key, |row| row.backing_off = false);
        }
        Ok(Reply::GateClosed { until })
    }

    fn close_source(
        &mut self,
        now: Timestamp,
        source: &SourceName,
        limited: &Limited,
    ) -> Option<Timestamp> {
        let until = self.sources.edit(source, |row| {
            let closed = row.gate_until.is_some_and(|until| until > now);
            row.limited_in_a_row = grown(row.limited_in_a_row, closed);
            let until = gate_until(now, limited, row.limited_in_a_row);
            let until = row.gate_until.map_or(until, |before| before.max(until));
            row.gate_until = Some(until);
            row.gate_reason = Some(limited.reason.clone());
            until
        })?;
        self.start_ramp(source, until);
        Some(until)
    }

    /// From `since` on, starts come back one by one.
    fn start_ramp(&mut self, source: &SourceName, since: Timestamp) {
        let mut flow = self.flow(source);
        flow.ramp = Some(Ramp { since, starts: 0 });
        self.flows.insert(source, flow);
    }

    /// A source that answers is not in trouble: the next pause begins small again.
    pub(super) fn reset_source_limited(&mut self, source: &SourceName) {
        let row = self.sources.get(source);
        if row.is_some_and(|row| row.limited_in_a_row > 0) {
            self.sources.edit(source, |row| row.limited_in_a_row = 0);
        }
    }

    /// The source of a job; for a fan-out, that of its schedule.
    fn source_of(&self, key: &JobKey) -> Option<SourceName> {
        match key {
            JobKey::Sync { source, .. } => Some(source.clone()),
            JobKey::FanOut { schedule } => self
                .schedules
                .get(schedule)
                .map(|row| row.state.definition.source.clone()),
        }
    }

    pub(super) fn checkpoint(
        &mut self,
        now: Timestamp,
        lease: &LeaseRef,
        progress: Option<String>,
        requests: u32,
    ) -> Result<Reply, Refusal> {
        if self.live(now, lease).is_none() {
            return Err(Refusal::LeaseLost);
        }
        let source = self.source_of(&lease.key).expect("a job has its source");
        let settings = self.settings(&source);
        for limit in [settings.requests_project, settings.requests_user] {
            let count_max = limit.map_or(u32::MAX, |limit| limit.count);
            check_size("requests", requests as usize, count_max as usize)?;
        }
        if let Some(progress) = progress {
            match user_key(&lease.key) {
                Some(user) => {
                    let state = self.user_of(&lease.key);
                    let cursor = state.and_then(|state| state.cursor.as_ref());
                    if cursor != Some(&progress) {
                        self.edit_user(&user, |row| row.state.cursor = Some(progress));
                        // A job that gets further each time is no poison, however often its process is killed.
                        self.edit_job(&lease.key, |row| row.stalls = 0);
                    }
                }
                None if self.has_progress(&lease.key, &progress) => {}
                None => self.edit_job(&lease.key, |row| row.progress = Some(progress)),
            }
        }
        let wait_until = self.permit(now, &lease.key, &source, requests);
        Ok(Reply::Permit { wait_until })
    }

    /// Records the requests, or says until when all of them have to wait.
    fn permit(
        &mut self,
        now: Timestamp,
        key: &JobKey,
        source: &SourceName,
        requests: u32,
    ) -> Option<Timestamp> {
        if requests == 0 {
            return None;
        }
        let row = self.sources.get(source).expect("a job has its source");
        let user = user_key(key);
        let project = row.settings.requests_project;
        let for_user = row.settings.requests_user;
        let flow = self.flows.get(source);
        let mut wait_until = flow.map_or(now, |flow| {
            now.max(opens_at(&flow.requests, now, project.as_ref(), requests))
        });
        wait_until = wait_until.max(row.gate_until.unwrap_or(now));
        if row.paused.is_some() && !planted(Mutant::PauseLetsRequests) {
            wait_until = wait_until.max(now.plus_ms(PAUSED_RECHECK_MS));
        }
        if let Some(user) = &user {
            let gate = self.user_of(key).and_then(|user| user.gate_until);
            let opens_at = self.user_opens_at(user, now, for_user.as_ref(), requests);
            wait_until = wait_until.max(gate.unwrap_or(now)).max(opens_at);
        }
        if wait_until > now {
            return Some(wait_until);
        }
        if let Some(limit) = &project {
            if !self.flows.contains(source) {
                self.flows.insert(source, FlowRow::new());
            }
            self.flows
                .edit(source, |flow| flow.requests.record(now, requests, limit));
        }
        if let Some(user) = &user {
            self.record_user_requests(user, now, for_user.as_ref(), requests);
        }
        None
    }

    pub(super) fn pause(&mut self, source: Option<SourceName>, reason: String) -> Reply {
        for source in self.named_or_all(source) {
            let row = self.sources.get(&source).expect("it was listed");
            if row.paused.as_ref() != Some(&reason) {
                let paused = Some(reason.clone());
                self.sources.edit(&source, |row| row.paused = paused);
            }
        }
        Reply::Done
    }

    pub(super) fn resume(&mut self, now: Timestamp, source: Option<SourceName>) -> Reply {
        for source in self.named_or_all(source) {
            let row = self.sources.get(&source).expect("it was listed");
            let shut = row.gate_until.is_some_and(|until| until > now);
            if row.paused.is_some() || shut {
                self.sources.edit(&source, |row| {
                    row.paused = None;
                    row.gate_until = None;
                });
                self.start_ramp(&source, now);
            }
        }
        Reply::Done
    }

    fn named_or_all(&self, source: Option<SourceName>) -> Vec<SourceName> {
        match source {
            Some(source) if self.sources.contains(&source) => vec![source],
            Some(_) => Vec::new(),
            None => self.sources.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// The answers in a row after one more. Requests that were under way together hear "slow down" together: whoever finds
/// the gate closed already tells of the same moment, and the pause does not double for it.
fn grown(in_a_row: u32, closed: bool) -> u32 {
    if closed {
        in_a_row.max(1)
    } else {
        in_a_row.saturating_add(1)
    }
}

/// When a gate that closes now opens, on the `in_a_row`th answer.
fn gate_until(now: Timestamp, limited: &Limited, in_a_row: u32) -> Timestamp {
    let doublings = in_a_row.saturating_sub(1).min(GATE_CAP_MS.ilog2());
    let grown_ms = (GATE_BASE_MS << doublings).min(GATE_CAP_MS);
    let asked_ms = limited.retry_after_ms;
    let asked_ms = asked_ms.filter(|_| !planted(Mutant::RetryAfterIgnored));
    let pause_ms = asked_ms.unwrap_or(grown_ms);
    now.plus_ms(pause_ms.saturating_add(limited.jitter_ms).min(GATE_MS_MAX))
}
