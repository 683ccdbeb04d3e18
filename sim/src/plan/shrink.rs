//! Making a failing plan smaller while it fails in the same way: fewer faults, processes, users and events, shorter.
//!
//! Greedy, and bounded in the number of runs: halves of the faults first, then single ones, then sizes. What "the same
//! way" means is the caller's: usually that the same invariant is broken.

use super::Plan;
use kalends_core::time::MINUTE_MS;

/// At most so many runs for one shrink.
pub const RUNS_MAX: u32 = 300;

/// The smallest plan found for which `fails` still says yes, in at most `runs_max` runs.
pub fn shrink(plan: &Plan, runs_max: u32, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut shrinker = Shrinker {
        best: plan.clone(),
        runs_left: runs_max,
    };
    loop {
        let before = shrinker.best.clone();
        shrinker.fewer_faults(&mut fails);
        shrinker.smaller(&mut fails);
        if shrinker.best == before || shrinker.runs_left == 0 {
            return shrinker.best;
        }
    }
}

struct Shrinker {
    best: Plan,
    runs_left: u32,
}

impl Shrinker {
    /// Keeps `candidate` if it fails, too.
    fn offer(&mut self, candidate: Plan, fails: &mut impl FnMut(&Plan) -> bool) -> bool {
        if self.runs_left == 0 || candidate == self.best || candidate.check().is_err() {
            return false;
        }
        self.runs_left -= 1;
        let kept = fails(&candidate);
        if kept {
            self.best = candidate;
        }
        kept
    }

    fn fewer_faults(&mut self, fails: &mut impl FnMut(&Plan) -> bool) {
        let mut width = self.best.faults.len().div_ceil(2);
        while width > 0 {
            let mut begin = 0;
            while begin < self.best.faults.len() {
                let mut candidate = self.best.clone();
                let end = (begin + width).min(candidate.faults.len());
                candidate.faults.drain(begin..end);
                if !self.offer(candidate, fails) {
                    begin += width;
                }
            }
            width /= 2;
        }
    }

    fn smaller(&mut self, fails: &mut impl FnMut(&Plan) -> bool) {
        let changes: [fn(&mut Plan); 10] = [
            |plan| plan.climate.changes_a_day = 0,
            |plan| plan.climate.google_quota = None,
            |plan| plan.size.events_per_calendar = plan.size.events_per_calendar.min(1),
            |plan| plan.size.users = plan.size.users.div_ceil(8),
            |plan| plan.size.users = plan.size.users.div_ceil(2),
            |plan| plan.size.processes = 1,
            |plan| plan.size.processes -= u32::from(plan.size.processes > 1),
            |plan| shorten(plan, 4),
            |plan| shorten(plan, 2),
            |plan| {
                for fault in &mut plan.faults {
                    fault.lasting_ms /= 2;
                }
            },
        ];
        for change in changes {
            loop {
                let mut candidate = self.best.clone();
                change(&mut candidate);
                if !self.offer(candidate, fails) {
                    break;
                }
            }
        }
        // Whatever came before the first fault was ordinary.
        for divisor in [1, 2] {
            let firsts = self.best.faults.iter().map(|fault| fault.at_ms);
            let back_ms = firsts.min().unwrap_or(0) / divisor;
            let mut candidate = self.best.clone();
            for fault in &mut candidate.faults {
                fault.at_ms -= back_ms;
            }
            candidate.size.duration_ms -= back_ms;
            self.offer(candidate, fails);
        }
    }
}

/// Cuts the duration, down to the end of the last fault.
fn shorten(plan: &mut Plan, divisor: u64) {
    let ends = plan.faults.iter();
    let last_ms = ends.map(|fault| fault.at_ms + fault.lasting_ms).max();
    let least_ms = last_ms.unwrap_or(0).max(MINUTE_MS);
    plan.size.duration_ms = (plan.size.duration_ms / divisor).max(least_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FaultKind;

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let mut plan = Plan::quiet(1);
        for minute in 0..40 {
            plan = plan.with(minute * 10, 5, FaultKind::Crash { process: 1 });
        }
        let plan = plan.with(300, 5, FaultKind::Failover);
        let mut runs = 0;
        let small = shrink(&plan, RUNS_MAX, |candidate| {
            runs += 1;
            let failover = |fault: &crate::plan::Fault| fault.kind == FaultKind::Failover;
            candidate.faults.iter().any(failover) && candidate.size.users > 3
        });
        assert_eq!(small.faults.len(), 1);
        assert_eq!(small.faults[0].at_ms, 0);
        assert_eq!((small.size.users, small.size.processes), (4, 1));
        assert!(small.size.duration_ms <= 5 * MINUTE_MS, "{small:?}");
        assert!(runs <= RUNS_MAX);
        assert_eq!(small.check(), Ok(()));
    }
}
