//! Fleets that watch: drawn plans hold, meet what they are for, and are the same run each time.

use kalends_core::time::MINUTE_MS;
use kalends_sim::marks::Marks;
use kalends_sim::plan::{FaultKind, Plan};
use kalends_sim::world::run;
use kalends_sim::world::trace::HashLog;

use super::run_with;

/// Seeds that are played here; `scripts/test` plays many more.
const SEEDS: u64 = 40;

/// A drawn plan of a fleet that watches, made small enough for a build without optimisation.
fn small(seed: u64) -> Plan {
    let mut plan = Plan::draw_push(seed);
    plan.size.users = 8;
    plan.size.duration_ms /= 4;
    plan.climate.changes_a_day = plan.climate.changes_a_day.max(200);
    let push = plan.policy.push.as_mut().expect("it watches");
    push.life_ms /= 4;
    push.poll_ms /= 4;
    for fault in &mut plan.faults {
        fault.at_ms /= 4;
        fault.lasting_ms = fault.lasting_ms.min(plan.size.duration_ms - fault.at_ms);
        if let FaultKind::PushForged { every_ms } | FaultKind::PushFlood { every_ms, .. } =
            &mut fault.kind
        {
            *every_ms = (*every_ms).max(500);
        }
    }
    plan
}

#[test]
fn drawn_plans_that_watch_hold_and_meet_what_they_are_for() {
    let mut marks = Marks::default();
    for seed in 0..SEEDS {
        let report = run(&small(seed));
        assert_eq!(
            report.failed, None,
            "kalends-sim: small plan of seed {seed} that watches"
        );
        assert!(report.tally.push.made > 0, "seed {seed}");
        marks.add(&report.marks);
    }
    for name in [
        "push-accepted",
        "push-forged",
        "push-came-again",
        "push-doubled",
        "push-dropped",
        "push-late",
        "channel-renewed",
        "channel-answer-lost",
        "orphan-stopped",
        "watched-polled",
    ] {
        assert!(marks.count(name) > 0, "never reached: {name}");
    }
}

#[test]
fn the_same_plan_that_watches_is_the_same_run_event_by_event() {
    for seed in [2, 5] {
        let plan = small(seed);
        let (mut one, mut two) = (HashLog::default(), HashLog::default());
        let _ = (run_with(&plan, &mut one), run_with(&plan, &mut two));
        assert_eq!(one.first_difference(&two), None, "seed {seed}");
    }
}

/// The same on every machine and in every build, as those of plans that do not watch.
const GOLDEN: [(u64, u64); 2] = [(1, 0x683f_dc93_b9a6_40c2), (4, 0x3d55_2a33_91b2_f29e)];

#[test]
fn golden_hashes_of_plans_that_watch_stand() {
    let found = GOLDEN.map(|(seed, _)| (seed, run(&small(seed)).unseed));
    assert_eq!(found, GOLDEN, "now it is {found:#x?}");
}

#[test]
fn a_plan_that_watches_goes_to_json_and_back_and_one_that_does_not_has_no_word_of_it() {
    for seed in 0..200 {
        let (plan, standard) = (Plan::draw_push(seed), Plan::draw(seed));
        assert_eq!(
            Plan::from_json(&plan.to_json()),
            Ok(plan.clone()),
            "seed {seed}"
        );
        assert!(!standard.to_json().contains("\"push"), "seed {seed}");
        let rest = plan
            .faults
            .iter()
            .filter(|fault| standard.faults.contains(fault));
        assert_eq!(rest.count(), standard.faults.len(), "seed {seed}");
    }
}

#[test]
fn faults_of_push_do_nothing_to_a_fleet_that_does_not_watch() {
    let mut plan = small(3);
    plan.policy.push = None;
    plan.faults.clear();
    let minutes = plan.size.duration_ms / MINUTE_MS - 2;
    let with = plan
        .clone()
        .with(1, minutes, FaultKind::PushForged { every_ms: 1_000 })
        .with(1, minutes, FaultKind::WatchLost { ppm: 1_000_000 });
    let (without, with) = (run(&plan), run(&with));
    assert_eq!((without.failed, with.failed), (None, None));
    assert_eq!(without.tally.syncs, with.tally.syncs);
    assert_eq!(with.tally.push, kalends_sim::report::PushTally::default());
}
