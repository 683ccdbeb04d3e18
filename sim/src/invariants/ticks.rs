//! G1: every (schedule, tick) fires exactly once, or is counted as skipped.
//!
//! Counted naively: between two recorded ticks lie as many as the definition says, one after the other.

use std::collections::BTreeMap;

use kalends_core::id::ScheduleName;
use kalends_core::policy::catch_up::MISSED_COUNT_MAX;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::queue::state::ScheduleState;
use kalends_core::time::Timestamp;

use super::{Invariant, Verdict, Violation};

#[derive(Clone, Debug)]
struct Known {
    definition: ScheduleDefinition,
    last_tick_at: Timestamp,
}

/// Where each schedule stands.
#[derive(Clone, Debug, Default)]
pub struct Ticks {
    schedules: BTreeMap<ScheduleName, Known>,
}

fn broken(detail: String) -> Violation {
    Violation::new(Invariant::TicksExactlyOnce, detail)
}

impl Ticks {
    /// A schedule was defined.
    ///
    /// # Errors
    /// If its ticks were moved by that.
    pub fn defined(
        &mut self,
        name: &ScheduleName,
        definition: ScheduleDefinition,
        state: &ScheduleState,
    ) -> Verdict {
        let known = self.schedules.entry(name.clone()).or_insert_with(|| Known {
            definition: definition.clone(),
            last_tick_at: state.last_tick_at,
        });
        known.definition = definition;
        if known.last_tick_at != state.last_tick_at {
            return Err(broken(format!(
                "{name} was defined again, and its last tick is {} instead of {}",
                state.last_tick_at, known.last_tick_at
            )));
        }
        Ok(())
    }

    /// The store recorded a tick.
    ///
    /// # Errors
    /// If it was recorded before, is none, or the number of those skipped is wrong.
    pub fn fired(
        &mut self,
        name: &ScheduleName,
        after: Timestamp,
        at: Timestamp,
        missed: u64,
        fire: bool,
    ) -> Verdict {
        let Some(known) = self.schedules.get_mut(name) else {
            return Err(broken(format!("{name} ticks and was never defined")));
        };
        if after != known.last_tick_at || at <= known.last_tick_at {
            return Err(broken(format!(
                "{name} ticks at {at} after {after}, and its last tick was {}",
                known.last_tick_at
            )));
        }
        let mut count = 0;
        let mut tick = after;
        while let Some(next) = known.definition.next_after(tick)
            && next <= at
        {
            count += 1;
            tick = next;
            if count > MISSED_COUNT_MAX {
                break;
            }
        }
        known.last_tick_at = at;
        if count <= MISSED_COUNT_MAX && (tick != at || count != missed + u64::from(fire)) {
            return Err(broken(format!(
                "{name} recorded {at} (fired: {fire}) with {missed} skipped since {after}; there are {count} ticks up to {tick}"
            )));
        }
        Ok(())
    }

    /// Takes over where a schedule stands, after a clock that was wrong.
    pub fn take_over(&mut self, name: &ScheduleName, state: &ScheduleState) {
        if let Some(known) = self.schedules.get_mut(name) {
            known.last_tick_at = state.last_tick_at;
        }
    }

    /// The last tick of a schedule.
    #[must_use]
    pub fn last_tick_at(&self, name: &ScheduleName) -> Option<Timestamp> {
        Some(self.schedules.get(name)?.last_tick_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{START, schedule};

    #[test]
    fn a_tick_that_fires_twice_or_is_lost_without_a_count_is_a_violation() {
        let name = ScheduleName::new("quarters").unwrap();
        let quarters = schedule("*/15 * * * *", "UTC");
        let state = ScheduleState {
            definition: quarters.clone(),
            revision: 1,
            last_tick_at: START,
            fired: 0,
            missed: 0,
        };
        let mut ticks = Ticks::default();
        ticks.defined(&name, quarters, &state).unwrap();
        let at = |minute: u64| START.plus_ms(minute * 60_000);
        assert!(ticks.clone().fired(&name, START, at(15), 0, true).is_ok());
        assert!(
            ticks.clone().fired(&name, START, at(14), 0, true).is_err(),
            "no tick"
        );
        assert!(
            ticks.clone().fired(&name, START, at(45), 1, true).is_err(),
            "one lost"
        );
        assert!(ticks.clone().fired(&name, START, at(45), 2, true).is_ok());
        assert!(ticks.clone().fired(&name, START, at(45), 3, false).is_ok());
        ticks.fired(&name, START, at(15), 0, true).unwrap();
        assert!(ticks.fired(&name, START, at(15), 0, true).is_err(), "twice");
    }
}
