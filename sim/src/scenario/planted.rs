//! What only shows in a world that is well, or in one that is made for it: where planted bugs would hide from drawn plans.

use kalends_core::policy::limit::Limit;
use kalends_core::time::{HOUR_MS, MINUTE_MS};

use super::{Scenario, expect, expect_gap};
use crate::plan::{FaultKind, Mishap, Plan, Span};

/// From one fault that gathers to the next, in minutes.
const EVERY_MIN: u64 = 60;
/// From the beginning of a minute until jobs are at work, in milliseconds.
const AT_WORK_AFTER_MS: u64 = 8_000;
/// What a failover forgets, in milliseconds.
const FORGOTTEN_MS: u64 = 8_000;
/// Users of a fan-out of several pages.
const MANY_USERS: u32 = 800;

/// The scenarios of this file.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "quiet-day",
        sentence: "nothing goes wrong: every user is synced every quarter of an hour, not later and not more often",
        covers: &[],
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
        covers: &[],
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
        covers: &[],
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
    Scenario {
        name: "zombies",
        sentence: "processes sleep past their leases in the middle of slow jobs: what they do late is refused",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = slow(Plan::quiet(seed));
            for quarter in 1..15 {
                let process = u32::try_from(quarter).expect("few") % 3;
                let at = 15 * quarter + 1;
                plan = plan.with(at, 1, FaultKind::Pause { process });
                plan = plan.with(at, 4, FaultKind::GraphSlow { max_ms: 80_000 });
            }
            in_the_middle(plan)
        },
        expect: |report| {
            expect(report.marks.count("commit-refused") > 0, || {
                "nobody came late".to_owned()
            })
        },
    },
    Scenario {
        name: "failovers",
        sentence: "the store forgets the last seconds again and again: what was begun in them is begun anew under new tokens",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.size.users = 40;
            plan.size.duration_ms = 3 * HOUR_MS;
            for quarter in 1..11 {
                plan = plan.with(15 * quarter + 1, 0, FaultKind::Failover);
            }
            let failovers = plan.faults.iter_mut();
            failovers.for_each(|fault| fault.lasting_ms = FORGOTTEN_MS);
            plan
        },
        expect: |report| {
            expect(report.marks.count("failover-lost-writes") > 0, || {
                "nothing was forgotten".to_owned()
            })
        },
    },
    Scenario {
        name: "stopped-at-work",
        sentence: "processes are told to stop in the middle of slow jobs: they are gone in time and hand all of it back",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = slow(Plan::quiet(seed));
            for quarter in 1..15 {
                let stop = FaultKind::Terminate {
                    process: u32::try_from(quarter).expect("few") % 3,
                    deadline_ms: 4_000,
                };
                plan = plan.with(15 * quarter + 2, 1, stop);
            }
            in_the_middle(plan)
        },
        expect: |report| {
            expect(report.marks.count("shutdown-handed-back") > 0, || {
                "nobody was at work".to_owned()
            })
        },
    },
    Scenario {
        name: "tokens-gone-at-work",
        sentence: "all sync tokens become worthless while much changes, pages are empty and the source is paused: nothing is wiped, nothing stays",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = slow(Plan::quiet(seed));
            plan.climate.changes_a_day = 10_000;
            plan.policy.page_size = 5;
            plan.size.events_per_calendar = 20;
            for hour in 1..4 {
                plan = plan
                    .with(60 * hour - 5, 0, FaultKind::ExpireSyncTokens { user: None })
                    .with(60 * hour + 1, 2, FaultKind::PauseSource);
            }
            let mishap = Mishap::EmptyPage;
            plan.with(
                30,
                200,
                FaultKind::GoogleMishap {
                    mishap,
                    ppm: 50_000,
                },
            )
        },
        expect: |report| {
            expect(report.marks.count("all-tokens-gone") > 0, || {
                "no token was refused".to_owned()
            })
        },
    },
];

/// A plan of four hours in which every job takes long, so that what happens finds jobs at work.
fn slow(mut plan: Plan) -> Plan {
    plan.size.users = 40;
    plan.size.duration_ms = 4 * HOUR_MS;
    plan.climate.google = Span::new(500, 25_000);
    plan.climate.graph = Span::new(100, 5_000);
    plan.climate.changes_a_day = 2_000;
    plan
}

/// This plan with all its faults some seconds later. Under the limit of ten a minute jobs begin in the first seconds of
/// each minute; then they are at work.
fn in_the_middle(mut plan: Plan) -> Plan {
    let faults = plan.faults.iter_mut();
    faults.for_each(|fault| fault.at_ms += AT_WORK_AFTER_MS);
    plan
}
