//! G2: no accepted job vanishes, and the counts shown equal the state.
//!
//! The set of outstanding jobs follows from what was accepted and what was ended; the replies' counts, and now and then
//! the queue's own, must agree with it.

use kalends_core::queue::state::QueueStats;

use super::{Invariant, JobNumber, Verdict, Violation};

/// Which jobs are outstanding, and for whom they may be.
#[derive(Clone, Debug)]
pub struct Jobs {
    outstanding: Vec<bool>,
    count: u64,
    enrolled: Vec<bool>,
    parked: Vec<bool>,
}

fn broken(detail: String) -> Violation {
    Violation::new(Invariant::NoJobVanishes, detail)
}

impl Jobs {
    /// Nobody is enrolled, nothing is outstanding.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Jobs {
            outstanding: vec![false; jobs],
            count: 0,
            enrolled: vec![false; jobs],
            parked: vec![false; jobs],
        }
    }

    /// Whether the job is outstanding.
    #[must_use]
    pub fn is_outstanding(&self, job: JobNumber) -> bool {
        self.outstanding[job]
    }

    /// Whether a job of this user is accepted.
    #[must_use]
    pub fn is_accepted(&self, job: JobNumber) -> bool {
        self.enrolled[job] && !self.parked[job]
    }

    /// Whether a user is enrolled.
    #[must_use]
    pub fn is_enrolled(&self, job: JobNumber) -> bool {
        self.enrolled[job]
    }

    /// A user was enrolled.
    pub fn enrolled(&mut self, job: JobNumber) {
        self.enrolled[job] = true;
    }

    /// A user was parked, or unparked.
    pub fn parked(&mut self, job: JobNumber, parked: bool) {
        self.parked[job] = parked;
    }

    /// Notes whether a job is outstanding.
    pub fn note(&mut self, job: JobNumber, outstanding: bool) {
        let before = std::mem::replace(&mut self.outstanding[job], outstanding);
        self.count = self.count + u64::from(outstanding) - u64::from(before);
    }

    /// The counts of an enqueue, expected and told.
    ///
    /// # Errors
    /// If they differ.
    pub fn enqueued(&self, expected: [u64; 3], told: [u64; 3]) -> Verdict {
        if expected == told {
            return Ok(());
        }
        let what = "added, coalesced and refused";
        Err(broken(format!(
            "an enqueue told {told:?} {what}, and was to tell {expected:?}"
        )))
    }

    /// The counts of leases that a claim took back, expected and told.
    ///
    /// # Errors
    /// If they differ.
    pub fn recovered(&self, expected: u64, told: u64) -> Verdict {
        if expected == told {
            return Ok(());
        }
        Err(broken(format!(
            "a claim took {told} expired leases back; {expected} had expired"
        )))
    }

    /// The queue's own counts.
    ///
    /// # Errors
    /// If they are not those that follow from what was accepted and ended.
    pub fn counted(&self, stats: &QueueStats, leases: usize) -> Verdict {
        let told = stats.waiting + stats.delayed + stats.active;
        if told != self.count || stats.active != leases as u64 {
            return Err(broken(format!(
                "the queue counts {} waiting, {} delayed and {} active; {} are outstanding, {leases} of them leased",
                stats.waiting, stats.delayed, stats.active, self.count
            )));
        }
        let enrolled = self.enrolled.iter().filter(|enrolled| **enrolled).count() as u64;
        let told: u64 = stats.sources.iter().map(|(_, source)| source.users).sum();
        if enrolled != told {
            return Err(broken(format!(
                "the queue counts {told} users; {enrolled} are enrolled"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_gone_without_an_end_is_a_violation() {
        let mut jobs = Jobs::new(3);
        jobs.note(0, true);
        jobs.note(1, true);
        let mut stats = QueueStats {
            waiting: 1,
            active: 1,
            ..QueueStats::default()
        };
        assert!(jobs.counted(&stats, 1).is_ok());
        assert!(jobs.counted(&stats, 0).is_err());
        stats.waiting = 0;
        assert!(jobs.counted(&stats, 1).is_err());
        assert!(jobs.enqueued([1, 0, 0], [0, 1, 0]).is_err());
        assert!(jobs.recovered(1, 0).is_err());
    }
}
