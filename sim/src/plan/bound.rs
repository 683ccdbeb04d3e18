//! How long a healed world may take until everybody is fresh: computed from the policies and from what may still be
//! in force when the faults end (a gate that Google asked for, a used-up budget), never guessed.

use kalends_core::google::failure::{DAILY_LIMIT_PAUSE_MS, USER_QUOTA_PAUSE_MS};
use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

use super::{FaultKind, Mishap, Plan};

/// What the bound allows for what has no length of its own (round trips, polls, jitter), in milliseconds.
const SLACK_MS: u64 = 10 * MINUTE_MS;
/// The gate and the pause of a source whose set-up is wrong, in milliseconds.
const GATE_MS: u64 = 5 * MINUTE_MS;
/// How many times all effects' deadlines may pass one after the other for one job that was caught by the end of the
/// faults.
const DEADLINES: u64 = 4;

/// From the end of the faults until every user must be fresh, in milliseconds.
#[must_use]
pub fn heal_bound_ms(plan: &Plan) -> u64 {
    let policy = &plan.policy;
    let (mut period_ms, catch_up_ms) = paces_ms(plan);
    let mut waits_ms = waits_ms(plan);
    let resyncs: usize = plan.faults.iter().map(|fault| resyncs(&fault.kind)).sum();
    if resyncs >= plan.policy.resyncs_a_day_max as usize {
        waits_ms = waits_ms.max(DAY_MS);
    }
    // Who is watched is polled that much later.
    period_ms += policy.push.map_or(0, |push| push.poll_ms);
    let retries_ms = u64::from(policy.backoff.attempts_max) * policy.backoff.cap_ms;
    let deadlines_ms = DEADLINES * 3 * MINUTE_MS;
    // Twice the period: a sync that began just before the end counts for nothing, and the next one is a period later.
    2 * period_ms
        + 2 * catch_up_ms
        + waits_ms
        + retries_ms
        + deadlines_ms
        + policy.lease_ms
        + SLACK_MS
}

/// The longest period of the schedules that the plan knows, and how long all users take, one after the other, under the tightest
/// of its limits; in milliseconds.
pub(crate) fn paces_ms(plan: &Plan) -> (u64, u64) {
    let policy = &plan.policy;
    let mut period_ms = period_ms(&policy.schedule, plan);
    let mut catch_up_ms = catch_up_ms(plan, policy.source.jobs.as_ref());
    for fault in &plan.faults {
        match &fault.kind {
            FaultKind::Deploy {
                schedule: Some(schedule),
                ..
            }
            | FaultKind::ChangeSchedule { schedule } => {
                period_ms = period_ms.max(self::period_ms(schedule, plan));
            }
            FaultKind::SetLimit { limit } => {
                catch_up_ms = catch_up_ms.max(self::catch_up_ms(plan, limit.as_ref()));
            }
            _ => {}
        }
    }
    (period_ms, catch_up_ms)
}

/// The longest wait that may still be in force when a fault has ended, in milliseconds.
pub(crate) fn waits_ms(plan: &Plan) -> u64 {
    let mut waits_ms = GATE_MS;
    for fault in &plan.faults {
        match &fault.kind {
            FaultKind::GoogleLimited {
                reason,
                retry_after_s,
                ..
            } => {
                let asked_ms = match retry_after_s {
                    Some(seconds) => u64::from(*seconds) * SECOND_MS,
                    None if reason == "dailyLimitExceeded" => DAILY_LIMIT_PAUSE_MS,
                    None => 0,
                };
                waits_ms = waits_ms.max(asked_ms * 2);
            }
            FaultKind::GoogleMishap { mishap, .. } => match mishap {
                Mishap::UserQuota => waits_ms = waits_ms.max(USER_QUOTA_PAUSE_MS),
                // The day's budget of full resyncs may be used up.
                Mishap::Gone => waits_ms = waits_ms.max(DAY_MS),
                _ => {}
            },
            // A clock that was ahead may have put gates and waits that far away.
            FaultKind::StoreClockStep { by_ms } => waits_ms = waits_ms.max(by_ms.unsigned_abs()),
            _ => {}
        }
    }
    waits_ms
}

/// Full resyncs of one user that a fault brings about; of these there is a budget a day.
fn resyncs(kind: &FaultKind) -> usize {
    match kind {
        FaultKind::ExpireSyncTokens { .. } | FaultKind::UnshareCalendar { .. } => 1,
        // One when it ends, and one for a pass that was under way then.
        FaultKind::GraphRejects { .. }
        | FaultKind::PoisonEvents { .. }
        | FaultKind::UnreadableEvents { .. } => 2,
        _ => 0,
    }
}

/// The longest gap between ticks in the two days after the end of the faults.
fn period_ms(schedule: &ScheduleDefinition, plan: &Plan) -> u64 {
    let begin = plan.size.start.plus_ms(plan.size.duration_ms);
    let mut at = begin;
    let mut longest_ms = 0;
    while at.since_ms(begin) < 2 * DAY_MS {
        let Some(next) = schedule.next_after(at) else {
            return longest_ms.max(DAY_MS);
        };
        longest_ms = longest_ms.max(next.since_ms(at));
        at = next;
    }
    longest_ms
}

/// How long all users take under a limit, one after the other, with the ramp of a source that opens again.
fn catch_up_ms(plan: &Plan, limit: Option<&Limit>) -> u64 {
    let Some(limit) = limit else {
        return MINUTE_MS;
    };
    let windows = u64::from(plan.size.users).div_ceil(u64::from(limit.count.max(1))) + 2;
    (windows * limit.window_ms).min(30 * 24 * HOUR_MS)
}
