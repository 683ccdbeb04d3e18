//! What is counted and marked of a run: what processes say, and what the store answers. Nothing here changes the world.

use kalends_core::failure::{Failure, FailureKind, LimitScope};
use kalends_core::id::UserId;
use kalends_core::node::io::{EffectResult, Notice};
use kalends_core::queue::GATE_BASE_MS;
use kalends_core::queue::command::{CommitOutcome, Refusal, Reply};

use super::World;
use crate::invariants::{Seen, Verdict};

/// A cursor longer than this may hold a page token, in bytes.
const CURSOR_WITH_PAGE_BYTES: usize = 300;

impl World<'_> {
    /// The run ends here if the verdict says so.
    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.broken(violation);
        }
    }

    /// An answer reaches a process: it may be told to slow down.
    pub(super) fn hears(&mut self, process: u32, result: &EffectResult) {
        let EffectResult::Fetch(Err(Failure {
            kind:
                FailureKind::Limited {
                    scope: LimitScope::Source,
                    retry_after_ms,
                },
            ..
        })) = result
        else {
            return;
        };
        let pause_ms = retry_after_ms.unwrap_or(GATE_BASE_MS);
        self.asking.told(self.now, process as usize, pause_ms);
    }

    /// A process asks Google something.
    pub(super) fn asks(&mut self, process: u32, user: &UserId) {
        match self.asking.asks(self.now, process as usize, user) {
            Ok(again) => self.marks.mark_if(again, "asks-again-after-pause"),
            Err(violation) => self.broken(violation),
        }
    }

    /// Marks and counts what a process said.
    pub(super) fn note(&mut self, index: u32, notice: &Notice) {
        let (marks, tally) = (&mut self.marks, &mut self.tally);
        match notice {
            Notice::StoreBack { .. } => marks.mark("store-back"),
            Notice::StoreEmptied => marks.mark("store-found-empty"),
            Notice::TicksMissed { .. } => marks.mark("ticks-missed"),
            Notice::Overloaded { .. } => marks.mark("overloaded"),
            Notice::JobDone { outcome, .. } => match outcome {
                CommitOutcome::Synced {
                    upserted,
                    deleted,
                    quarantined,
                    requests,
                    full,
                } => {
                    tally.syncs += 1;
                    tally.quarantined += quarantined;
                    tally.written += upserted + deleted;
                    tally.full_passes += u64::from(*full);
                    marks.mark_if(*upserted > 0, "event-written");
                    marks.mark_if(*deleted > 0, "event-deleted");
                    marks.mark_if(*quarantined > 0, "event-quarantined");
                    marks.mark_if(*full && *requests > 2, "full-pass-many-pages");
                }
                CommitOutcome::FannedOut { .. } => tally.fan_outs += 1,
                CommitOutcome::Skipped { .. } => {}
            },
            Notice::JobRetried { .. } => {
                tally.retried += 1;
                marks.mark("job-retried");
            }
            Notice::JobFailed { parked, .. } => {
                tally.failed += 1;
                tally.parked += u64::from(*parked);
                marks.mark("job-failed");
                marks.mark_if(*parked, "user-parked");
            }
            Notice::JobReleased { .. } => {
                let stopping = self.processes[index as usize].stopping;
                marks.mark_if(stopping, "shutdown-handed-back");
                marks.mark_if(!stopping, "stopped-asking");
            }
            Notice::LeaseLost { .. } => {
                tally.leases_lost += 1;
                marks.mark("lease-lost");
            }
            Notice::Recovered { recovered, buried } => {
                tally.recovered += u64::from(*recovered);
                tally.buried += u64::from(*buried);
                marks.mark_if(*recovered > 0, "lease-expired");
                marks.mark_if(*buried > 0, "job-buried");
            }
            Notice::EffectTimedOut { .. } => marks.mark("effect-timed-out"),
            Notice::ClockCorrected { .. } => marks.mark("clock-corrected"),
            Notice::Limited { scope, .. } => {
                tally.limited += 1;
                match scope {
                    LimitScope::User => marks.mark("google-limited-user"),
                    LimitScope::Source => marks.mark("google-limited-source"),
                }
            }
            _ => {}
        }
    }

    /// Marks and counts what the store answered.
    pub(super) fn mark_reply(&mut self, seen: &Seen, reply: &Reply) {
        let (marks, tally) = (&mut self.marks, &mut self.tally);
        match (seen, reply) {
            (Seen::End(..), Reply::Done | Reply::GateClosed { .. }) => tally.ends += 1,
            (Seen::End(..), Reply::AlreadyDone) => marks.mark("end-told-twice"),
            (
                Seen::End(..),
                Reply::Refused {
                    refusal: Refusal::LeaseLost,
                },
            ) => {
                tally.ends_refused += 1;
                marks.mark("commit-refused");
            }
            (Seen::Tick { missed, fire, .. }, Reply::Fired { .. }) => {
                tally.ticks_fired += u64::from(*fire);
                tally.ticks_missed += missed;
            }
            (
                Seen::Ask { .. },
                Reply::Permit {
                    wait_until: Some(_),
                },
            ) => {
                marks.mark("request-held-back");
            }
            (_, Reply::AlreadyFired { .. }) => marks.mark("tick-already-fired"),
            (_, Reply::Enqueued { coalesced, .. }) if *coalesced > 0 => {
                tally.coalesced += *coalesced;
                marks.mark("job-coalesced");
            }
            (Seen::Connect(_), Reply::Enrolled { users, .. }) if !users.is_empty() => {
                marks.mark("user-unparked");
            }
            (Seen::Claim(_), Reply::Claimed { leases, .. }) => {
                let resumes = |cursor: &String| cursor.contains("\"page_token\":\"");
                let some = leases.iter().filter_map(|lease| lease.cursor.as_ref());
                // A cursor that stands on a page is of a job that somebody did not end.
                if some
                    .filter(|cursor| cursor.len() > CURSOR_WITH_PAGE_BYTES)
                    .any(resumes)
                {
                    marks.mark("pass-resumed");
                }
            }
            _ => {}
        }
    }
}
