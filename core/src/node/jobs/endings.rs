//! How jobs end: what the machine's last step means for the store, told in one command, and what its answer means.

use crate::failure::{Failure, FailureKind, LimitScope};
use crate::mutant::{Mutant, planted};
use crate::node::Node;
use crate::node::io::Notice;
use crate::node::link::Purpose;
use crate::node::slots::{Ending, Work};
use crate::queue::command::{
    Command, Commit, CommitOutcome, LeaseRef, LeaseToken, ParkReason, Reply,
};
use crate::queue::state::JobKey;
use crate::rng::uniform;
use crate::sync::End;
use crate::time::{MINUTE_MS, Timestamp};

/// How long a source whose set-up is wrong is left alone, in milliseconds.
const MISCONFIGURED_PAUSE_MS: u64 = 5 * MINUTE_MS;
/// A job whose writes the graph refused as too old goes back for this long, in milliseconds.
const FENCED_PAUSE_MS: u64 = 5_000;
/// Added at random to a pause that a limit imposes, so that processes do not come back in step, in milliseconds.
const LIMIT_JITTER_MS_MAX: u64 = 1_000;

impl Node {
    pub(super) fn sync_ended(&mut self, now: Timestamp, token: LeaseToken, end: End) {
        let next_due_at = self.next_due_of(token);
        let slot = self.slots.its(token);
        let claimed_at = slot.claimed_at;
        let store_now = self.link.store_time(now);
        let Work::Sync { machine, .. } = &slot.work else {
            panic!("a fan-out is no sync")
        };
        let due_after_push = machine.due_after(next_due_at, store_now);
        if machine.tally().malformed_tokens > 0
            && let JobKey::Sync { user, .. } = &slot.lease.key
        {
            let user = user.clone();
            self.notice(Notice::MalformedToken { user });
        }
        if matches!(end, End::Done { .. }) {
            self.prefetch.done_after(now.since_ms(claimed_at));
        } else {
            self.prefetch.stop();
        }
        match end {
            End::Done { cursor, outcome } => {
                let next_due_at = due_after_push;
                let commit = Commit {
                    cursor: Some(cursor),
                    next_due_at,
                    outcome: outcome.clone(),
                };
                self.end_job(now, token, Ending::Done(outcome), |lease| {
                    Command::Complete { lease, commit }
                });
            }
            End::Wait { until } => {
                self.end_job(now, token, Ending::Released, |lease| Command::Release {
                    lease,
                    at: Some(until),
                })
            }
            End::LeaseLost => {
                // The graph has seen a larger token. If the store thinks this lease is live all the same (it lost tokens
                // in a failover, or somebody was removed before this user's first write), a new lease, with a new token, is
                // what helps; if not, it says so.
                let at = Some(self.link.store_time(now).plus_ms(FENCED_PAUSE_MS));
                self.end_job(now, token, Ending::Released, |lease| Command::Release {
                    lease,
                    at,
                });
            }
            End::Failed(failure) => self.sync_failed(now, token, failure, next_due_at),
        }
    }

    fn sync_failed(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        failure: Failure,
        next_due_at: Option<Timestamp>,
    ) {
        let slot = self.slots.its(token);
        let attempt = slot.attempt;
        match failure.kind.clone() {
            FailureKind::Limited { .. } if planted(Mutant::LimitedIsSuccess) => {
                let outcome = CommitOutcome::Synced {
                    upserted: 0,
                    deleted: 0,
                    quarantined: 0,
                    requests: 1,
                    full: false,
                };
                let commit = Commit {
                    cursor: None,
                    next_due_at,
                    outcome: outcome.clone(),
                };
                self.end_job(now, token, Ending::Done(outcome), |lease| {
                    Command::Complete { lease, commit }
                });
            }
            FailureKind::Limited {
                scope,
                retry_after_ms,
            } => {
                self.job_limited(now, token, scope, retry_after_ms, failure.detail);
            }
            FailureKind::Misconfigured => {
                let Work::Sync { source, .. } = &slot.work else {
                    panic!("a fan-out is no sync")
                };
                let source = source.clone();
                self.notice(Notice::Misconfigured {
                    source,
                    detail: failure.detail.clone(),
                });
                let pause = Some(MISCONFIGURED_PAUSE_MS);
                self.job_limited(now, token, LimitScope::Source, pause, failure.detail);
            }
            FailureKind::NotReady => {
                let outcome = CommitOutcome::Skipped {
                    note: failure.detail,
                };
                let commit = Commit {
                    cursor: None,
                    next_due_at,
                    outcome: outcome.clone(),
                };
                self.end_job(now, token, Ending::Done(outcome), |lease| {
                    Command::Complete { lease, commit }
                });
            }
            FailureKind::Transient { retry_after_ms }
                if !self.settings.backoff.exhausted(attempt) =>
            {
                let delay_ms =
                    self.settings
                        .backoff
                        .delay_ms(attempt, retry_after_ms, &mut self.backoff_rng);
                let at = self.link.store_time(now).plus_ms(delay_ms);
                let error = failure.detail.clone();
                self.end_job(now, token, Ending::Retried { failure, at }, |lease| {
                    Command::Retry { lease, at, error }
                });
            }
            kind => {
                let park = (kind == FailureKind::Unauthorized).then_some(ParkReason::NeedsReauth);
                let error = failure.detail.clone();
                let ending = Ending::Failed {
                    failure,
                    parked: park.is_some(),
                };
                self.end_job(now, token, ending, |lease| Command::Fail {
                    lease,
                    error,
                    next_due_at,
                    park,
                });
            }
        }
    }

    fn job_limited(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        scope: LimitScope,
        retry_after_ms: Option<u64>,
        detail: String,
    ) {
        let jitter_ms = uniform(&mut self.backoff_rng, LIMIT_JITTER_MS_MAX);
        let reason = detail.clone();
        self.end_job(now, token, Ending::Limited { scope, detail }, |lease| {
            Command::Limited {
                lease,
                scope,
                retry_after_ms,
                jitter_ms,
                reason,
            }
        });
    }

    pub(in crate::node) fn end_job(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        ending: Ending,
        command: impl FnOnce(LeaseRef) -> Command,
    ) {
        let slot = self.slots.end(token, ending);
        let command = command(slot.lease.clone());
        let effect = slot.effect.take();
        self.cancel_work(token, effect);
        self.send_store(now, Purpose::Job(token), command);
        // The end travels first, the claim for the slot's next job right behind it.
        self.slot_freed(now);
    }

    pub(super) fn ending_acknowledged(&mut self, now: Timestamp, token: LeaseToken, reply: Reply) {
        let slot = self.slots.remove(token);
        let (lease, started_at, ending) = slot.expect("an ending belongs to a slot").into_parts();
        let key = lease.key;
        let notice = match ending.expect("checked by the caller") {
            Ending::Done(outcome) => Notice::JobDone {
                key,
                outcome,
                duration_ms: now.since_ms(started_at),
            },
            Ending::Retried { failure, at } => Notice::JobRetried { key, failure, at },
            Ending::Failed { failure, parked } => Notice::JobFailed {
                key,
                failure,
                parked,
            },
            Ending::Released => Notice::JobReleased { key },
            Ending::Limited { scope, detail } => {
                let until = match reply {
                    Reply::GateClosed { until } => until,
                    _ => self.link.store_time(now),
                };
                if let (LimitScope::Source, JobKey::Sync { source, .. }) = (scope, &key) {
                    self.gates.insert(source.clone(), until);
                }
                Notice::Limited {
                    key,
                    scope,
                    until,
                    detail,
                }
            }
        };
        self.notice(notice);
        self.slot_freed(now);
    }

    /// The store will not take this. The lease is still ours, so the job must not just be dropped: it would be given to
    /// us again for ever.
    pub(super) fn store_refused(&mut self, now: Timestamp, token: LeaseToken, detail: String) {
        self.notice(Notice::Refused {
            detail: detail.clone(),
        });
        let refused = self.slots.its(token).ending();
        if matches!(refused, Some(Ending::Failed { .. })) {
            // Not even that it failed is taken: the lease ends by itself, and stalls are counted.
            self.slots.remove(token);
            self.slot_freed(now);
            return;
        }
        self.slots.undo_end(token);
        let ending = Ending::Failed {
            failure: Failure::permanent(detail.clone()),
            parked: false,
        };
        let next_due_at = self.next_due_of(token);
        self.end_job(now, token, ending, |lease| Command::Fail {
            lease,
            error: detail,
            next_due_at,
            park: None,
        });
    }

    /// When the user of this job is due again.
    fn next_due_of(&mut self, token: LeaseToken) -> Option<Timestamp> {
        let slot = self.slots.get(token)?;
        match &slot.work {
            Work::Sync { source, .. } => {
                let (source, nominal_at) = (source.clone(), slot.nominal_at?);
                if planted(Mutant::DueFromLastStart) {
                    let start = self.link.store_time(slot.started_at);
                    return Some(start.plus_ms(self.period_ms(&source, start)));
                }
                self.next_due(&source, nominal_at)
            }
            Work::FanOut(_) => None,
        }
    }
}
