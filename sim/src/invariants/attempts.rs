//! G6: attempts stay within their maximum, and those that a limit or a shutdown ended do not count.

use super::seen::EndKind;
use super::{Invariant, JobNumber, Verdict, Violation};

/// How many attempts of a job have failed is not known.
const UNKNOWN: u32 = u32::MAX;

/// Failed attempts of each job.
#[derive(Clone, Debug)]
pub struct Attempts {
    /// [`UNKNOWN`]: as the next start says.
    failed: Vec<u32>,
    attempts_max: u32,
}

impl Attempts {
    /// No attempt has failed; `attempts_max` are allowed in all.
    #[must_use]
    pub fn new(jobs: usize, attempts_max: u32) -> Self {
        Attempts {
            failed: vec![0; jobs],
            attempts_max,
        }
    }

    /// A job started, and the store calls it this attempt.
    ///
    /// # Errors
    /// If it is another one, or one too many.
    pub fn started(&mut self, job: JobNumber, attempt: u32) -> Verdict {
        if self.failed[job] == UNKNOWN {
            self.failed[job] = attempt.saturating_sub(1);
        }
        let expected = self.failed[job] + 1;
        if attempt != expected || attempt > self.attempts_max {
            return Err(Violation::new(
                Invariant::AttemptsBounded,
                format!(
                    "job {job} starts as attempt {attempt}; {} have failed, {} are allowed",
                    self.failed[job], self.attempts_max
                ),
            ));
        }
        Ok(())
    }

    /// A job ended.
    pub fn ended(&mut self, job: JobNumber, kind: EndKind) {
        match kind {
            EndKind::Completed { .. } | EndKind::Failed { .. } => self.failed[job] = 0,
            EndKind::Retried(_) => {
                if self.failed[job] != UNKNOWN {
                    self.failed[job] += 1;
                }
            }
            EndKind::Released(_) | EndKind::Limited(_) => {}
        }
    }

    /// A job was given up, or is another one now.
    pub fn forget(&mut self, job: JobNumber) {
        self.failed[job] = 0;
    }
}

impl Attempts {
    /// A job was perhaps given up and is there again, perhaps not: the store alone knows.
    pub fn ask_again(&mut self, job: JobNumber) {
        self.failed[job] = UNKNOWN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::failure::LimitScope;
    use kalends_core::time::Timestamp;

    #[test]
    fn a_limit_does_not_count_and_a_fourth_attempt_is_a_violation() {
        let mut attempts = Attempts::new(1, 3);
        attempts.ended(0, EndKind::Limited(LimitScope::Source));
        assert!(attempts.started(0, 1).is_ok());
        assert!(attempts.started(0, 2).is_err(), "the limit was counted");
        for _ in 0..3 {
            attempts.ended(0, EndKind::Retried(Timestamp::EPOCH));
        }
        assert!(attempts.started(0, 4).is_err());
    }
}
