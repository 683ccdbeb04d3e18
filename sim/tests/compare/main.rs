//! The replaced service's column comes near its published figures, and Kalends's is the point: nobody is lost.

mod page;

use kalends_core::time::DAY_MS;
use kalends_sim::compare::{by_legacy, compare, day, text, with_advised_limit};
use kalends_sim::legacy::figures::{
    DUPLICATES_TOLERANCE_POINTS, FAN_OUTS_TOLERANCE, FIGURES, Figure, LOST_A_DAY, LOST_AFTER_429,
    LOST_AFTER_429_TOLERANCE, LOST_SEVEN_DAYS, LOST_TOLERANCE, gap_is_near,
};
use kalends_sim::plan::Plan;
use kalends_sim::report::Report;
use kalends_sim::world::run;

/// Every figure is asked with so many seeds.
const SEEDS: u64 = 2;

/// Plays plans; of Kalends's seven days only the first, in a build without optimisation.
fn play(plans: &[Plan]) -> Vec<Report> {
    let shortened = plans.iter().map(|plan| {
        let mut plan = plan.clone();
        if plan.service.is_kalends() {
            plan.size.duration_ms = plan.size.duration_ms.min(DAY_MS);
            for fault in &mut plan.faults {
                fault.lasting_ms = fault.lasting_ms.min(DAY_MS - fault.at_ms);
            }
        }
        run(&plan)
    });
    shortened.collect()
}

fn is_near(figure: &Figure, seed: u64) -> Result<(), String> {
    let report = run(&by_legacy(day(seed, figure.users, 24)));
    assert_eq!(report.failed, None);
    let tally = &report.tally;
    let (p50, p95) = (tally.gap_percentile(50), tally.gap_percentile(95));
    let duplicates = tally.duplicates_percent();
    let all_near = tally.fan_outs.abs_diff(figure.fan_outs) <= FAN_OUTS_TOLERANCE
        && gap_is_near(p50, figure.gap_p50_min)
        && gap_is_near(p95, figure.gap_p95_min)
        && duplicates.abs_diff(figure.duplicates_percent) <= DUPLICATES_TOLERANCE_POINTS
        && (figure.duplicates_percent > 0 || duplicates == 0)
        && tally.lost == 0;
    let fan_outs = tally.fan_outs;
    all_near.then_some(()).ok_or_else(|| {
        format!(
            "seed {seed}: {fan_outs} fan-outs, gaps {p50}/{p95}, {duplicates} % doubled; {figure:?}"
        )
    })
}

#[test]
fn the_replaced_service_comes_near_its_published_figures_at_every_size() {
    for figure in &FIGURES {
        for seed in 1..=SEEDS {
            assert_eq!(is_near(figure, seed), Ok(()));
        }
    }
}

#[test]
fn incidents_cost_the_replaced_service_its_users_and_kalends_none() {
    let comparison = compare(&[20], 24, 1, play);
    let by_name = |word: &str| {
        let mut rows = comparison.incidents.iter();
        rows.find(|row| row.what.contains(word)).expect("is there")
    };
    let refused = by_name("429").legacy.lost;
    assert!(
        refused.abs_diff(LOST_AFTER_429) <= LOST_AFTER_429_TOLERANCE,
        "{refused} lost after the 429s"
    );
    assert_eq!(by_name("SIGTERM").legacy.lost, 100, "the schedule of all");
    let a_day = by_name("0.5 %, 24 hours").legacy.lost;
    assert!(a_day.abs_diff(LOST_A_DAY) <= LOST_TOLERANCE, "{a_day}");
    let seven_days = by_name("0.5 %, 7 days").legacy.lost;
    assert!(
        seven_days.abs_diff(LOST_SEVEN_DAYS) <= LOST_TOLERANCE,
        "{seven_days}"
    );
    for row in &comparison.incidents {
        assert_eq!((&row.kalends.failed, row.kalends.lost), (&None, 0));
        assert!(row.kalends.gap_p50_min <= Some(16), "{}", row.what);
    }
    assert!(comparison.is_good());
    let text = text::render(&comparison);
    assert!(text.contains("96 of 96     30/31"), "{text}");
}

#[test]
fn a_size_that_fits_is_synced_every_quarter_of_an_hour_and_a_raised_limit_makes_others_fit() {
    let report = run(&day(1, 100, 24));
    let tally = &report.tally;
    assert_eq!(report.failed, None);
    // Everybody's first sync comes with the enrolment, not with a tick.
    assert_eq!(tally.fan_outs, 95);
    assert!(tally.gap_percentile(50) == 15 && tally.gap_percentile(95) <= 16);

    // 300 users under 10 a minute: a gap of 30 minutes for everybody; under 20 a minute: of 15.
    let plan = day(1, 300, 8);
    let report = run(&plan);
    let tally = &report.tally;
    assert_eq!((report.failed, tally.lost, tally.fan_outs), (None, 0, 31));
    assert!((28..=32).contains(&tally.gap_percentile(50)));
    assert!(tally.gap_percentile(95) <= 34);
    let (raised, limit) = with_advised_limit(plan);
    assert_eq!(limit, 20);
    let report = run(&raised);
    assert_eq!(report.failed, None);
    assert!((14..=16).contains(&report.tally.gap_percentile(50)));
    assert!(report.tally.gap_percentile(95) <= 17);
}
