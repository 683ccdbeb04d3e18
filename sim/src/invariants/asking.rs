//! G5 for requests under way: a process that was told to slow down asks Google nothing until then.
//!
//! The store's gate keeps others from starting; this is about jobs that run already in the very process that was told.
//! Known to the ledger from the answer as it arrived, in true time; a process judges by the store's clock as it last heard
//! it, so messages that were late excuse as much, and wrong clocks excuse all.

use kalends_core::id::UserId;
use kalends_core::queue::GATE_MS_MAX;
use kalends_core::time::Timestamp;

use super::{Invariant, Violation};

/// Until when each process asks nothing.
#[derive(Clone, Debug)]
pub struct Asking {
    until: Vec<Option<Timestamp>>,
    /// By so much a process may misjudge the time, in milliseconds; `None`: by any amount.
    slack_ms: Option<u64>,
}

impl Asking {
    /// Nobody was told anything.
    #[must_use]
    pub fn new(processes: usize, slack_ms: Option<u64>) -> Self {
        Asking {
            until: vec![None; processes],
            slack_ms,
        }
    }

    /// Another process runs in this place, and was told nothing.
    pub fn begins_anew(&mut self, process: usize) {
        self.until[process] = None;
    }

    /// A process was told to ask nothing for so long, in milliseconds.
    pub fn told(&mut self, now: Timestamp, process: usize, pause_ms: u64) {
        let until = now.plus_ms(pause_ms.min(GATE_MS_MAX));
        self.until[process] = self.until[process].max(Some(until));
    }

    /// A process asks; whether it is the first time since it was told not to.
    ///
    /// # Errors
    /// If it is too early.
    pub fn asks(
        &mut self,
        now: Timestamp,
        process: usize,
        user: &UserId,
    ) -> Result<bool, Violation> {
        let Some(until) = self.until[process] else {
            return Ok(false);
        };
        let Some(slack_ms) = self.slack_ms else {
            return Ok(false);
        };
        if now.plus_ms(slack_ms) < until {
            return Err(Violation::new(
                Invariant::StopsAsking,
                format!(
                    "process {process} asks for {user} at {now}, and was told to wait until {until}"
                ),
            ));
        }
        self.until[process] = None;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_asks_before_the_pause_is_over_is_a_violation() {
        let at = |second: i64| Timestamp::from_ms(second * 1_000);
        let ada = UserId::new("ada").unwrap();
        let mut asking = Asking::new(2, Some(1_000));
        asking.told(at(0), 0, 60_000);
        asking.told(at(1), 0, 1_000);
        assert!(
            asking.clone().asks(at(58), 0, &ada).is_err(),
            "a later, shorter pause does not end a longer one"
        );
        assert_eq!(
            asking.clone().asks(at(58), 1, &ada),
            Ok(false),
            "another process"
        );
        assert_eq!(
            asking.asks(at(59), 0, &ada),
            Ok(true),
            "within the error of its clock"
        );
        asking.told(at(60), 0, 60_000);
        asking.begins_anew(0);
        assert_eq!(asking.asks(at(61), 0, &ada), Ok(false));
    }
}
