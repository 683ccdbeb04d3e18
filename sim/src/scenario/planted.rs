//! What only shows in a world that is well, or in one that is made for it: where planted bugs would hide from drawn plans.

use kalends_core::policy::limit::Limit;
use kalends_core::time::{HOUR_MS, MINUTE_MS};

use super::{Scenario, expect, expect_gap};
use crate::plan::{FaultKind, Plan, Span};

/// From one fault that gathers to the next, in minutes.
const EVERY_MIN: u64 = 60;
/// Users of a fan-out of several pages.
const MANY_USERS: u32 = 800;

/// The scenarios of this file.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "quiet-day",
        sentence: "nothing goes wrong: every user is synced every quarter of an hour, not later and not more often",
        seeds: 5,
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.size.duration_ms = 12 * HOUR_MS;
            plan
        },
        expect: |report| {
            let median = report.tally.gap_percentile(50);
            expect(median == 15, || {
                format!("half of the gaps are within {median} minutes, not 15")
            })?;
            expect_gap(report, 17)
        },
    },
    Scenario {
        name: "calls-lost",
        sentence: "nobody hears that work is due: the poll finds it within seconds",
        seeds: 5,
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.size.users = 40;
            plan.size.duration_ms = 6 * HOUR_MS;
            let mut plan = plan.with(5, 355, FaultKind::WakeLoss { ppm: 1_000_000 });
            // Ten minutes after a tick all are synced, and nothing else would wake anybody.
            for hour in 0..5 {
                plan = plan.with(EVERY_MIN * hour + 25, 0, FaultKind::SyncAll);
            }
            plan
        },
        expect: |report| {
            expect(report.marks.count("wake-lost") > 0, || {
                "no call was lost".to_owned()
            })
        },
    },
    Scenario {
        name: "fan-out-killed",
        sentence: "all processes die in the middle of a fan-out of several pages: it goes on behind its last page",
        seeds: 5,
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.size.users = MANY_USERS;
            plan.size.events_per_calendar = 1;
            plan.size.duration_ms = 2 * HOUR_MS;
            plan.policy.concurrency = 20;
            plan.policy.source.jobs = Some(Limit {
                count: 200,
                window_ms: MINUTE_MS,
            });
            // A page takes about a second, there and back twice.
            plan.climate.store = Span::new(200, 300);
            for (tick, seconds) in [(30, 2), (45, 3), (60, 3), (75, 4)] {
                for process in 0..3 {
                    plan = plan.with(tick, 1, FaultKind::Crash { process });
                    let last = plan
                        .faults
                        .iter_mut()
                        .filter(|fault| fault.at_ms == tick * MINUTE_MS);
                    last.for_each(|fault| fault.at_ms += seconds * 1_000);
                    plan.faults.sort_by_key(|fault| fault.at_ms);
                }
            }
            plan
        },
        expect: |report| {
            expect(report.marks.count("lease-expired") > 0, || {
                "no fan-out was broken off".to_owned()
            })
        },
    },
];
