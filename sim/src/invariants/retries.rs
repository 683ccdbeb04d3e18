//! B27: users who failed together do not come back together. The waits after failures must be spread.
//!
//! A wait after a failed attempt lies between half of its full length and all of it. With jitter one wait in five lies in
//! the last tenth of the full length; without, all do. So when most of many waits lie there, somebody forgot the jitter.
//! Messages that are late make a wait look shorter, never longer, so they excuse nothing and accuse nobody.

use kalends_core::policy::backoff::{Backoff, BackoffJitter};
use kalends_core::time::Timestamp;

use super::{Invariant, Verdict, Violation};

/// So many waits are seen before anything is said.
const WAITS_MIN: u64 = 40;
/// At most so many of them may lie in the last tenth of their full length, in percent. By chance 28 of 40 waits do
/// so once in ten thousand million runs.
const LATE_PERCENT_MAX: u64 = 70;

/// The waits after failed attempts.
#[derive(Clone, Debug)]
pub struct Retries {
    backoff: Backoff,
    waits: u64,
    late: u64,
}

impl Retries {
    /// No attempt has failed; attempts are repeated by these rules.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Retries {
            backoff,
            waits: 0,
            late: 0,
        }
    }

    /// A failed attempt was told at `now`, to be repeated at `at`.
    ///
    /// # Errors
    /// If retries are in step.
    pub fn told(&mut self, now: Timestamp, at: Timestamp) -> Verdict {
        let Backoff {
            base_ms,
            factor,
            cap_ms,
            jitter,
            attempts_max,
        } = self.backoff;
        if jitter == BackoffJitter::None || factor != 2 {
            return Ok(());
        }
        let wait_ms = at.since_ms(now);
        let full_ms = (1..attempts_max).map(|attempt| base_ms << (attempt - 1).min(32));
        // Of lengths that double, each wait lies between the half and the whole of one: of the shortest that holds it.
        let full_ms = full_ms.take_while(|full_ms| *full_ms < cap_ms);
        let Some(full_ms) = full_ms.into_iter().find(|full_ms| wait_ms <= *full_ms) else {
            // Longer than any: the other side asked for it.
            return Ok(());
        };
        self.waits += 1;
        self.late += u64::from(wait_ms > full_ms - full_ms / 10);
        if self.waits >= WAITS_MIN && self.late * 100 > self.waits * LATE_PERCENT_MAX {
            return Err(Violation::new(
                Invariant::RetriesApart,
                format!(
                    "of {} waits after failures {} end in the last tenth of their longest: retries are in step",
                    self.waits, self.late
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::rng::substream;

    #[test]
    fn waits_without_jitter_are_a_violation_and_waits_with_it_are_not() {
        let backoff = Backoff::default();
        let mut rng = substream(1, "backoff");
        let (mut spread, mut in_step) = (Retries::new(backoff), Retries::new(backoff));
        let now = Timestamp::from_ms(1_000_000);
        let mut verdict = Ok(());
        for number in 0..100_u32 {
            let attempt = 1 + number % 2;
            let wait_ms = backoff.delay_ms(attempt, None, &mut rng);
            spread.told(now, now.plus_ms(wait_ms)).unwrap();
            // Told three milliseconds after it was decided.
            let wait_ms = (1_000 << (attempt - 1)) - 3;
            verdict = verdict.and(in_step.told(now, now.plus_ms(wait_ms)));
        }
        assert!(verdict.is_err());
    }
}
