//! The fleet simulator: drawn plans hold, the same plan is the same run, and what once failed does not fail again.

#![allow(clippy::disallowed_methods)] // the kept plans are read from their folder

mod fetch;
mod push;

use std::fs;
use std::path::Path;

use kalends_core::time::{HOUR_MS, MINUTE_MS};
use kalends_sim::marks::Marks;
use kalends_sim::plan::{FaultKind, OutageKind, Plan};
use kalends_sim::report::FailureClass;
use kalends_sim::scenario;
use kalends_sim::world::trace::{HashLog, Moment, Tracer};
use kalends_sim::world::{run, run_with};

/// Seeds that are played here; the program plays thousands.
const SEEDS: u64 = 60;
/// Users and minutes of the small plans.
const USERS: u32 = 12;
const MINUTES: u64 = 180;

/// The largest scenarios that are played here, in users times hours and in events; `scripts/test` plays all.
const USER_HOURS_MAX: u64 = 240;
const EVENTS_MAX: u32 = 100;

/// A drawn plan, made small enough for a build without optimisation.
fn small(seed: u64) -> Plan {
    let mut plan = Plan::draw(seed);
    plan.size.users = USERS;
    plan.size.duration_ms = MINUTES * MINUTE_MS;
    plan.climate.changes_a_day /= 2;
    // All faults are kept, in a shorter day.
    for fault in &mut plan.faults {
        fault.at_ms /= 8;
        fault.lasting_ms = fault.lasting_ms.min(plan.size.duration_ms - fault.at_ms);
    }
    plan
}

#[test]
fn drawn_plans_hold_and_meet_what_they_are_for() {
    let mut marks = Marks::default();
    for seed in 0..SEEDS {
        let report = run(&small(seed));
        assert_eq!(
            report.failed, None,
            "kalends-sim: small plan of seed {seed}"
        );
        assert!(report.tally.syncs > 0, "seed {seed}");
        marks.add(&report.marks);
    }
    let missing = marks.missing(false);
    assert!(missing.len() < 25, "never reached: {missing:?}");
}

#[test]
fn the_same_plan_is_the_same_run_event_by_event() {
    for seed in [3, 14, 159] {
        let plan = small(seed);
        let (mut one, mut two) = (HashLog::default(), HashLog::default());
        let first = run_with(&plan, &mut one);
        let second = run_with(&plan, &mut two);
        assert_eq!(one.first_difference(&two), None, "seed {seed}");
        assert_eq!(first.unseed, second.unseed);
        assert_eq!(
            first.unseed,
            run(&plan).unseed,
            "an onlooker changes nothing"
        );
        let other = Plan {
            seed: seed + 1,
            ..plan
        };
        let mut three = HashLog::default();
        let _ = run_with(&other, &mut three);
        assert!(one.first_difference(&three).is_some());
    }
}

/// The same on every machine and in every build. A change of what a seed draws, of the world or of a decision of the
/// core changes them: then print the new ones and say so in the changelog.
const GOLDEN: [(u64, u64); 3] = [
    (1, 0x3094_b8ce_011e_b3f3),
    (2, 0x0252_519a_caf5_903e),
    (7, 0x2f81_e944_f47b_baeb),
];

#[test]
fn golden_hashes_stand() {
    let found = GOLDEN.map(|(seed, _)| (seed, run(&small(seed)).unseed));
    assert_eq!(found, GOLDEN, "now it is {found:#x?}");
}

#[test]
fn plans_go_to_json_and_back() {
    for seed in 0..500 {
        let plan = Plan::draw(seed);
        assert_eq!(
            Plan::from_json(&plan.to_json()),
            Ok(plan.clone()),
            "seed {seed}"
        );
    }
    let mut late = Plan::quiet(1).with(24 * 60, 1, FaultKind::SyncAll);
    assert!(Plan::from_json(&late.to_json()).is_err());
    late.faults.clear();
    late.size.users = 0;
    assert!(late.check().is_err());
}

/// Every plan that failed once, made small: it must hold now.
#[test]
fn what_failed_once_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/regressions");
    let files = fs::read_dir(folder).expect("the folder is part of the sources");
    let mut played = 0;
    for file in files {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let plan = Plan::from_json(&fs::read_to_string(&path).unwrap());
            let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(run(&plan).failed, None, "{}", path.display());
            played += 1;
        }
    }
    assert!(played > 0, "no plan was found");
}

#[test]
fn a_world_that_cannot_become_well_in_time_is_a_liveness_failure() {
    // Nobody can be synced by a schedule that fires once a day, within the bound of one that fires every minute.
    let mut plan = small(0);
    plan.faults.clear();
    plan.size.users = 1;
    plan.policy.source.jobs = Some(kalends_core::policy::limit::Limit {
        count: 1,
        window_ms: kalends_core::time::DAY_MS,
    });
    plan.policy.schedule = kalends_sim::plan::schedule("0 0 30 2 *", "UTC");
    let failed = run(&plan).failed.expect("the schedule never fires");
    assert_eq!(failed.class, FailureClass::Liveness);
}

#[test]
fn scenarios_of_small_fleets_meet_their_expectations() {
    let mut played = 0;
    for scenario in scenario::all() {
        let plan = (scenario.plan)(1);
        let hours = plan.size.duration_ms.div_ceil(HOUR_MS);
        let size = u64::from(plan.size.users) * hours;
        if size > USER_HOURS_MAX || plan.size.events_per_calendar > EVENTS_MAX {
            continue;
        }
        played += 1;
        let report = run(&plan);
        assert_eq!(report.failed, None, "{}", scenario.name);
        assert_eq!((scenario.expect)(&report), Ok(()), "{}", scenario.name);
    }
    assert!(played > 10, "only {played} are small enough");
}

/// Counts what processes tell.
#[derive(Default)]
struct Counter {
    started: u32,
    healed: bool,
    converged: bool,
}

impl Tracer for Counter {
    fn moment(&mut self, _: kalends_core::time::Timestamp, moment: &Moment<'_>) {
        match moment {
            Moment::Started { .. } => self.started += 1,
            Moment::Healed => self.healed = true,
            Moment::Converged => {
                assert!(self.healed, "first the faults end");
                self.converged = true;
            }
            _ => {}
        }
    }
}

#[test]
fn a_process_that_dies_is_replaced_and_the_world_becomes_well() {
    let mut plan = small(0);
    plan.faults.clear();
    let how = OutageKind::Silent;
    let plan = plan.with(30, 5, FaultKind::Crash { process: 1 }).with(
        60,
        5,
        FaultKind::StoreOutage { how },
    );
    let mut counter = Counter::default();
    let report = run_with(&plan, &mut counter);
    assert_eq!(report.failed, None);
    assert_eq!(counter.started, 4);
    assert!(counter.converged);
    assert!(report.marks.count("store-back") > 0);
}
