//! The store: items 31 to 35.

use super::Scenario;
use super::expect::{
    at_second, everybody_synced, expect_gap, gaps, marks, nobody_failed, quiet, ticks, well_within,
    within,
};
use crate::plan::{FaultKind, OutageKind, schedule};

/// Users who are due in one millisecond.
const DUE_AT_ONCE: u32 = 10_000;
/// Processes of the idle fleet.
const IDLE: u32 = 64;

/// The store's scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "redis-away-for-half-a-minute-is-hardly-noticed",
        sentence: "the store refuses, breaks off, or says nothing, for thirty seconds each: work resumes by itself, no tick is lost",
        covers: &[31],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 5);
            let kinds = [
                OutageKind::Refusing,
                OutageKind::Breaking,
                OutageKind::Silent,
            ];
            for (hour, how) in (1..).zip(kinds) {
                plan = at_second(plan, hour * 3_600 + 890, 30, FaultKind::StoreOutage { how });
            }
            plan
        },
        expect: |report| {
            marks(report, &["store-back"])?;
            ticks(report, (20, 24), (0, 0))?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "reply-lost-and-told-again-counts-once",
        sentence: "a third of the replies is lost and many commands come twice: what is sent again finds what the first one did",
        covers: &[32],
        seeds: 5,
        plan: |seed| {
            quiet(seed, 60, 6)
                .with(60, 240, FaultKind::ReplyLost { ppm: 300_000 })
                .with(60, 240, FaultKind::Duplicate { ppm: 300_000 })
        },
        expect: |report| {
            marks(
                report,
                &[
                    "reply-lost",
                    "message-doubled",
                    "end-told-twice",
                    "lease-given-again",
                ],
            )?;
            ticks(report, (24, 28), (0, 0))?;
            nobody_failed(report)?;
            everybody_synced(report, 60, 20)
        },
    },
    Scenario {
        name: "failover-loses-the-last-writes-and-nothing-else",
        sentence: "a replica that lags by ten seconds becomes the store, again and again: no user is lost, the graph never goes back",
        covers: &[33],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 6);
            for number in 1..20 {
                plan = at_second(plan, number * 997, 10, FaultKind::Failover);
            }
            plan
        },
        expect: |report| {
            marks(report, &["failover-lost-writes"])?;
            gaps(report, 15, 20)?;
            everybody_synced(report, 60, 21)
        },
    },
    Scenario {
        name: "emptied-store-is-defined-anew",
        sentence: "everything in the store is gone: processes notice by themselves, define and enrol again, tokens grow on",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let plan = quiet(seed, 60, 6);
            at_second(plan, 62 * 60, 0, FaultKind::EmptyStore)
        },
        expect: |report| {
            marks(report, &["store-emptied", "store-found-empty"])?;
            // Cursors are gone, too: everybody has two full passes.
            within("full passes", report.tally.full_passes, 120, 130)?;
            nobody_failed(report)?;
            everybody_synced(report, 60, 22)
        },
    },
    Scenario {
        name: "ten-thousand-due-in-one-millisecond-are-served-in-order",
        sentence: "ten thousand wishes fall on one moment: commands stay small, the limit holds, all are served",
        covers: &[35],
        seeds: 1,
        plan: |seed| {
            let mut plan = quiet(seed, DUE_AT_ONCE, 1);
            plan.size.events_per_calendar = 1;
            plan.climate.changes_a_day = 0;
            plan.policy.concurrency = 50;
            plan.policy.source.jobs = Some(super::expect::a_minute(2_000));
            at_second(plan, 25 * 60, 0, FaultKind::SyncAll)
        },
        expect: |report| {
            marks(report, &["sync-all"])?;
            let peak = u64::from(report.tally.starts_a_minute_peak());
            within("starts in the busiest minute", peak, 1_800, 2_000)?;
            everybody_synced(report, DUE_AT_ONCE, 4)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "idle-fleet-costs-next-to-nothing",
        sentence: "sixty-four processes with an hourly schedule and one user: few commands a process and minute, whether work is there or not",
        covers: &[35],
        seeds: 1,
        plan: |seed| {
            let mut plan = quiet(seed, 1, 4);
            plan.size.processes = IDLE;
            plan.policy.schedule = schedule("0 * * * *", "UTC");
            plan
        },
        expect: |report| {
            let minutes = report.tally.simulated_ms / 60_000;
            // A poll every five seconds is twelve, a look at the schedules and a probe two more.
            let commands = report.tally.commands / (minutes * u64::from(IDLE));
            within("commands a process and minute", commands, 1, 16)
        },
    },
    Scenario {
        name: "store-clock-steps-and-nobody-waits-for-it",
        sentence: "the store's clock steps an hour ahead and back: waits that it set do not outlive it by more than the step",
        covers: &[],
        seeds: 3,
        plan: |seed| {
            let by_ms = 60 * 60 * 1_000;
            quiet(seed, 40, 8).with(120, 30, FaultKind::StoreClockStep { by_ms })
        },
        expect: |report| {
            marks(report, &["store-clock-forward", "store-clock-back"])?;
            expect_gap(report, 100)?;
            well_within(report, 40)
        },
    },
];
