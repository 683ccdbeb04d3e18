//! The fleet itself changes, or much is to be done at once.

use kalends_core::policy::limit::Limit;
use kalends_core::time::{HOUR_MS, MINUTE_MS};

use super::{Scenario, expect, expect_gap};
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
        seeds: 20,
        plan: |seed| {
            let schedule = crate::plan::schedule("7,22,37,52 * * * *", "Europe/Berlin");
            let deploy = FaultKind::Deploy {
                schedule: Some(schedule),
                gap_ms: MINUTE_MS,
                deadline_ms: 25_000,
            };
            Plan::quiet(seed).with(301, 5, deploy)
        },
        expect: |report| expect_gap(report, 30),
    },
    Scenario {
        name: "thundering-herd",
        sentence: "100,000 users are due at once after an outage: the peak at Google stays within the limit, all catch up",
        seeds: 1,
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.size.users = HERD;
            plan.size.events_per_calendar = 1;
            plan.size.duration_ms = 3 * HOUR_MS;
            plan.policy.concurrency = 100;
            plan.policy.source.jobs = Some(Limit {
                count: HERD_STARTS_A_MINUTE,
                window_ms: MINUTE_MS,
            });
            plan.policy.source.requests_project = Some(Limit {
                count: 2 * HERD_STARTS_A_MINUTE,
                window_ms: MINUTE_MS,
            });
            let how = OutageKind::Refusing;
            plan.with(60, 60, FaultKind::StoreOutage { how })
        },
        expect: |report| {
            let peak = report.tally.fetches_a_minute_peak();
            // A request of the minute before may arrive in this one.
            let most = HERD_STARTS_A_MINUTE + HERD_STARTS_A_MINUTE / 20;
            expect(peak <= most, || {
                format!("{peak} requests reached Google in one minute, not {most}")
            })
        },
    },
];
