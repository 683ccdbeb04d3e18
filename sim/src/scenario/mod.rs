//! Named scenarios: a fault and its expected outcome, as a sentence.
//!
//! Each file holds one, or a few of one kind, as [`Scenario`] values. To add one: a function that gives the plan for a
//! seed, an expectation beyond the invariants (which always hold) and convergence (which is always demanded), and a line
//! in [`all`].

mod fleet;
mod outages;
mod planted;

use crate::plan::Plan;
use crate::report::Report;

/// A fault and its expected outcome.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, and what is expected of it.
    pub sentence: &'static str,
    /// With how many seeds it is played at the most.
    pub seeds: u64,
    /// The plan for a seed.
    pub plan: fn(u64) -> Plan,
    /// What must be true of the report, beside no failure. In words: what is not.
    pub expect: fn(&Report) -> Result<(), String>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [outages::SCENARIOS, fleet::SCENARIOS, planted::SCENARIOS].concat()
}

/// The one of this name.
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

/// `Err` with the text unless `met`.
///
/// # Errors
/// If it was not met.
pub fn expect(met: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if met { Ok(()) } else { Err(otherwise()) }
}

/// Nobody waited longer than so many minutes between two syncs, but one in a hundred.
///
/// # Errors
/// If somebody did.
pub fn expect_gap(report: &Report, minutes_max: usize) -> Result<(), String> {
    let gap = report.tally.gap_percentile(99);
    expect(gap <= minutes_max, || {
        format!("99 % of the gaps are within {gap} minutes, not {minutes_max}")
    })
}
