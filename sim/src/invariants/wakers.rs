//! G9: when work is due and slots are free, something is on its way that will start it.
//!
//! Looked at every few seconds: if the queue says that something may start now, and goes on saying so for longer than a
//! poll and a few round trips while the world is well and slots are free, nobody will ever come.

use kalends_core::time::Timestamp;

use super::{Invariant, Verdict, Violation};

/// Since when work is due that nobody starts.
#[derive(Clone, Debug, Default)]
pub struct Wakers {
    due_since: Option<Timestamp>,
}

impl Wakers {
    /// Looks at `now` (true time): whether work is due, and whether the world is such that it must be started.
    /// `patience_ms` is how long that may take.
    ///
    /// # Errors
    /// If it has taken longer.
    pub fn look(
        &mut self,
        now: Timestamp,
        is_due: bool,
        is_well: bool,
        patience_ms: u64,
    ) -> Verdict {
        if !is_due || !is_well {
            self.due_since = None;
            return Ok(());
        }
        let since = *self.due_since.get_or_insert(now);
        if now.since_ms(since) > patience_ms {
            return Err(Violation::new(
                Invariant::EveryWaitHasAWaker,
                format!(
                    "work is due since {since}, slots are free, and nobody has started it by {now}"
                ),
            ));
        }
        Ok(())
    }

    /// Something started.
    pub fn started(&mut self) {
        self.due_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_work_that_nobody_starts_is_a_violation_only_in_a_world_that_is_well() {
        let at = |second: i64| Timestamp::from_ms(second * 1_000);
        let mut wakers = Wakers::default();
        assert!(wakers.look(at(0), true, true, 20_000).is_ok());
        assert!(wakers.look(at(20), true, true, 20_000).is_ok());
        assert!(wakers.clone().look(at(21), true, true, 20_000).is_err());
        assert!(wakers.clone().look(at(21), true, false, 20_000).is_ok());
        wakers.started();
        assert!(wakers.look(at(21), true, true, 20_000).is_ok());
    }
}
