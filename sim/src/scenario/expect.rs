//! What scenarios expect, in words that say what was found instead; and the sizes that they share.

use kalends_core::policy::limit::Limit;
use kalends_core::time::{HOUR_MS, MINUTE_MS};

use crate::plan::{Fault, FaultKind, Plan};
use crate::report::Report;

/// `Err` tells what was expected and not found.
pub type Told = Result<(), String>;

/// `Err` with the text unless `met`.
///
/// # Errors
/// If it was not met.
pub fn expect(met: bool, otherwise: impl FnOnce() -> String) -> Told {
    if met { Ok(()) } else { Err(otherwise()) }
}

/// A number is at least `least` and at most `most`.
pub(super) fn within(what: &str, found: u64, least: u64, most: u64) -> Told {
    expect((least..=most).contains(&found), || {
        format!("{what}: {found}, expected {least} to {most}")
    })
}

/// Nobody waited longer than so many minutes between two syncs, but one in a hundred.
///
/// # Errors
/// If somebody did.
pub fn expect_gap(report: &Report, minutes_max: usize) -> Told {
    let gap = report.tally.gap_percentile(99);
    expect(gap <= minutes_max, || {
        format!("99 % of the gaps are within {gap} minutes, not {minutes_max}")
    })
}

/// Half of the gaps are within so many minutes, and all but 5 % within so many.
pub(super) fn gaps(report: &Report, p50_max: usize, p95_max: usize) -> Told {
    let (p50, p95) = (
        report.tally.gap_percentile(50),
        report.tally.gap_percentile(95),
    );
    expect(p50 <= p50_max && p95 <= p95_max, || {
        format!("gaps of p50 {p50} and p95 {p95} minutes, expected {p50_max} and {p95_max}")
    })
}

/// All of these were met: without them the scenario shows nothing.
pub(super) fn marks(report: &Report, names: &[&str]) -> Told {
    let missing: Vec<&&str> = names
        .iter()
        .filter(|name| report.marks.count(name) == 0)
        .collect();
    expect(missing.is_empty(), || format!("never reached: {missing:?}"))
}

/// None of these was met.
pub(super) fn no_marks(report: &Report, names: &[&str]) -> Told {
    let met: Vec<&&str> = names
        .iter()
        .filter(|name| report.marks.count(name) > 0)
        .collect();
    expect(met.is_empty(), || {
        format!("reached, and must not be: {met:?}")
    })
}

/// No job was given up and nobody was parked.
pub(super) fn nobody_failed(report: &Report) -> Told {
    let tally = &report.tally;
    expect(tally.failed == 0 && tally.buried == 0, || {
        format!("{} jobs failed, {} were buried", tally.failed, tally.buried)
    })
}

/// Ticks that fired, and that were counted as missed.
pub(super) fn ticks(report: &Report, fired: (u64, u64), missed: (u64, u64)) -> Told {
    within("ticks fired", report.tally.ticks_fired, fired.0, fired.1)?;
    within(
        "ticks missed",
        report.tally.ticks_missed,
        missed.0,
        missed.1,
    )
}

/// Everybody was synced at least so often.
pub(super) fn everybody_synced(report: &Report, users: u32, times: u32) -> Told {
    let least = report.tally.syncs_min(users);
    expect(least >= times, || {
        format!("somebody was synced {least} times, expected at least {times}")
    })
}

/// The healed world was well within so many minutes.
pub(super) fn well_within(report: &Report, minutes: u64) -> Told {
    let took_ms = report.fresh_ms.unwrap_or(u64::MAX);
    expect(took_ms <= minutes * MINUTE_MS, || {
        format!("everybody was fresh after {took_ms} ms, expected {minutes} minutes")
    })
}

/// A quiet plan of so many users and hours.
pub(super) fn quiet(seed: u64, users: u32, hours: u64) -> Plan {
    let mut plan = Plan::quiet(seed);
    plan.size.users = users;
    plan.size.duration_ms = hours * HOUR_MS;
    plan.climate.changes_a_day = users * 4;
    plan
}

/// So many a minute.
pub(super) fn a_minute(count: u32) -> Limit {
    Limit {
        count,
        window_ms: MINUTE_MS,
    }
}

/// The plan with a fault, to the second.
pub(super) fn at_second(mut plan: Plan, second: u64, seconds: u64, kind: FaultKind) -> Plan {
    plan.faults.push(Fault {
        at_ms: second * 1_000,
        lasting_ms: seconds * 1_000,
        kind,
    });
    plan.faults.sort_by_key(|fault| fault.at_ms);
    plan
}
