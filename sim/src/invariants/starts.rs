//! G4: starts in any sliding window stay within the limit, over all processes, restarts and changes.
//!
//! An exact log of starts, against which the queue's own (which gathers them in buckets) must never be too early. A
//! window that is lengthened while its count is raised finds what the queue still knows; it holds from its first full
//! length on (`core/src/policy/limit.rs`), so starts before such a change are not counted.

use std::collections::VecDeque;

use kalends_core::policy::limit::Limit;
use kalends_core::time::Timestamp;

use super::{Invariant, Verdict, Violation};

/// The starts that may still count.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    limit: Option<Limit>,
    defined: bool,
    log: VecDeque<Timestamp>,
}

impl Starts {
    /// The source was defined; only the first definition counts, as an operator's limit outlives restarts.
    pub fn defined(&mut self, limit: Option<Limit>) {
        if !self.defined {
            self.defined = true;
            self.limit = limit;
        }
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// An operator changed the limit.
    pub fn changed(&mut self, limit: Option<Limit>) {
        if let (Some(old), Some(new)) = (self.limit, limit)
            && new.window_ms > old.window_ms
            && new.count > old.count
        {
            self.log.clear();
        }
        self.limit = limit;
    }

    /// A sync started.
    ///
    /// # Errors
    /// If it was one too many.
    pub fn started(&mut self, now: Timestamp) -> Verdict {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        while self
            .log
            .front()
            .is_some_and(|at| at.plus_ms(limit.window_ms) <= now)
        {
            self.log.pop_front();
        }
        self.log.push_back(now);
        if self.log.len() as u64 > u64::from(limit.count) {
            return Err(Violation::new(
                Invariant::LimitHolds,
                format!(
                    "{} starts in the {} ms up to {now}; at most {} are allowed",
                    self.log.len(),
                    limit.window_ms,
                    limit.count
                ),
            ));
        }
        Ok(())
    }

    /// The store's clock stepped back: what lies ahead counts from now.
    pub fn restamp(&mut self, now: Timestamp) {
        for at in self.log.iter_mut().rev() {
            *at = (*at).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_start_in_a_minute_is_a_violation_wherever_the_minute_begins() {
        let limit = Limit {
            count: 10,
            window_ms: 60_000,
        };
        let mut starts = Starts::default();
        starts.defined(Some(limit));
        let at = |second: i64| Timestamp::from_ms(second * 1_000);
        for second in 0..10 {
            starts.started(at(50 + second)).unwrap();
        }
        assert!(
            starts.clone().started(at(109)).is_err(),
            "a fixed window would let it pass"
        );
        assert!(starts.clone().started(at(110)).is_ok());
        starts.changed(Some(Limit { count: 5, ..limit }));
        assert!(
            starts.started(at(112)).is_err(),
            "a lower limit holds at once"
        );
    }
}
