//! The fleet itself changes, or much is to be done at once.

use kalends_core::policy::limit::Limit;
use kalends_core::time::MINUTE_MS;

use super::expect::{everybody_synced, nobody_failed, ticks, well_within, within};
use super::{Scenario, expect_gap};
use crate::plan::{FaultKind, OutageKind, Plan};

/// Users of the thundering herd.
const HERD: u32 = 100_000;
/// Syncs a minute that the herd is allowed.
const HERD_STARTS_A_MINUTE: u32 = 20_000;

/// The fleet's scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "rolling-deploy",
        sentence: "processes are replaced one by one by a release with another pattern: one schedule remains, nothing is lost",
        covers: &[4],
        seeds: 5,
        plan: |seed| {
            let schedule = crate::plan::schedule("7,22,37,52 * * * *", "Europe/Berlin");
            let deploy = FaultKind::Deploy {
                schedule: Some(schedule),
                gap_ms: MINUTE_MS,
                deadline_ms: 25_000,
            };
            Plan::quiet(seed).with(301, 5, deploy)
        },
        expect: |report| {
            // Were both to fire, there would be nearly twice as many.
            ticks(report, (95, 101), (0, 0))?;
            nobody_failed(report)?;
            expect_gap(report, 30)
        },
    },
    Scenario {
        name: "thundering-herd",
        sentence: "100,000 users are due at once after an outage: the peak at Google stays within the limit, the rest is spread, all catch up in minutes",
        covers: &[26, 35],
        seeds: 1,
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.size.users = HERD;
            plan.size.events_per_calendar = 1;
            plan.size.duration_ms = 50 * MINUTE_MS;
            plan.climate.changes_a_day = 10_000;
            plan.policy.concurrency = 100;
            plan.policy.source.jobs = Some(Limit {
                count: HERD_STARTS_A_MINUTE,
                window_ms: MINUTE_MS,
            });
            plan.policy.source.requests_project = Some(Limit {
                count: 2 * HERD_STARTS_A_MINUTE,
                window_ms: MINUTE_MS,
            });
            // Everybody was synced once; then three ticks pass without a store, and the world heals.
            let how = OutageKind::Refusing;
            plan.with(17, 33, FaultKind::StoreOutage { how })
        },
        expect: |report| {
            let tally = &report.tally;
            // A request of the minute before may arrive in this one.
            let most = u64::from(HERD_STARTS_A_MINUTE) * 21 / 20;
            let peak = u64::from(tally.fetches_a_minute_peak());
            within("requests in the busiest minute", peak, most / 2, most)?;
            // Even over the minute it would be 333; a rush in the first second would be thousands.
            let peak = u64::from(tally.fetches_a_second_peak);
            within("requests in the busiest second", peak, 333, 1_700)?;
            nobody_failed(report)?;
            everybody_synced(report, HERD, 2)?;
            // Five minutes at the limit, laid over the period of the tick that comes first.
            well_within(report, 15)
        },
    },
    Scenario {
        name: "enrolment-wave-waits-its-turn",
        sentence: "four fifths of the users are enrolled in one moment: those who were there stay fresh, the new ones come in turn",
        covers: &[10],
        seeds: 3,
        plan: |seed| Plan::quiet(seed).with(120, 0, FaultKind::EnrolWave { percent: 80 }),
        expect: |report| {
            nobody_failed(report)?;
            expect_gap(report, 20)?;
            everybody_synced(report, 100, 80)
        },
    },
];
