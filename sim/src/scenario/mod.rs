//! Named scenarios: a fault and its expected outcome, as a sentence.
//!
//! A file holds those of one theme, as [`Scenario`] values. Invariants and convergence are demanded of each, always;
//! `expect` states beside them what the sentence promises, in numbers that a mistake would move. `covers` tells which
//! numbered items of the list of what really happens ([`ITEMS`]) a scenario plays; an item that no scenario can play here
//! stands in [`ELSEWHERE`], with the test that does.
//!
//! To add one: a value in the file of its theme, with a name that says fault and outcome, and the sentence.

mod expect;
mod fleet;
mod google;
mod graph;
mod leases;
mod limits;
mod outages;
mod planted;
mod push;
mod schedules;
mod store;

use crate::plan::Plan;
use crate::report::Report;

pub use expect::{Told, expect, expect_gap};

/// The items of the list: schedules 1 to 11, leases 12 to 20, limits 21 to 30, the store 31 to 37, Google and Neo4j 38
/// to 48.
pub const ITEMS: std::ops::RangeInclusive<u8> = 1..=48;

/// Items that the simulated fleet cannot play: why, and which test does.
pub const ELSEWHERE: &[(u8, &str, &str)] = &[
    (
        15,
        "no handler panics by itself in a world of values",
        "core/tests/node: a_panic_in_an_adapter_fails_that_job_alone",
    ),
    (
        34,
        "the simulated store is the Queue value, which has no ids apart from its rows",
        "tests/tests/redis_model.rs holds Redis to the Queue value; core/src/queue/invariants.rs",
    ),
    (
        36,
        "one simulated store holds one environment",
        "tests/tests/redis_fleet.rs: two_environments_on_one_server_do_not_know_each_other",
    ),
    (
        37,
        "memory and roles are Redis' own",
        "tests/tests/redis_faults.rs: a full server, a master that becomes a replica, one that loads",
    ),
    (
        47,
        "what one event holds is no fault of the fleet: fixtures and the convert tests hold such events",
        "sim/tests/google/fixtures.rs, tests/tests/fixtures, core/src/sync/convert.rs",
    ),
    (
        48,
        "as 47",
        "sim/tests/google/fixtures.rs, tests/tests/fixtures, core/src/sync/convert.rs",
    ),
];

/// A fault and its expected outcome.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, and what is expected of it.
    pub sentence: &'static str,
    /// The items of the list that it plays.
    pub covers: &'static [u8],
    /// With how many seeds it is played at the most.
    pub seeds: u64,
    /// The plan for a seed.
    pub plan: fn(u64) -> Plan,
    /// What must be true of the report, beside no failure. In words: what is not.
    pub expect: fn(&Report) -> Told,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        schedules::SCENARIOS,
        leases::SCENARIOS,
        limits::SCENARIOS,
        store::SCENARIOS,
        google::SCENARIOS,
        graph::SCENARIOS,
        outages::SCENARIOS,
        fleet::SCENARIOS,
        push::SCENARIOS,
        planted::SCENARIOS,
    ]
    .concat()
}

/// The one of this name.
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_item_of_the_list_is_played_here_or_tested_elsewhere_and_none_is_both() {
        let played: BTreeSet<u8> = all()
            .iter()
            .flat_map(|scenario| scenario.covers.iter().copied())
            .collect();
        let elsewhere: BTreeSet<u8> = ELSEWHERE.iter().map(|(item, ..)| *item).collect();
        let both: Vec<&u8> = played.intersection(&elsewhere).collect();
        assert!(both.is_empty(), "played here and exempt: {both:?}");
        let missing: Vec<u8> = ITEMS
            .filter(|item| !played.contains(item) && !elsewhere.contains(item))
            .collect();
        assert!(missing.is_empty(), "nobody plays {missing:?}");
        assert!(played.iter().all(|item| ITEMS.contains(item)));
    }

    #[test]
    fn names_are_unique_and_in_kebab_case_and_every_plan_can_be_played() {
        let mut names = BTreeSet::new();
        for scenario in all() {
            let name = scenario.name;
            assert!(names.insert(name), "{name} twice");
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(kebab), "{name}");
            assert!(scenario.seeds > 0, "{name}");
            assert_eq!((scenario.plan)(1).check(), Ok(()), "{name}");
        }
    }
}
