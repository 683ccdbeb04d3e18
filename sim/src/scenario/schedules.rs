//! Schedules and ticks: items 1 to 11.

use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};

use super::Scenario;
use super::expect::{
    at_second, everybody_synced, gaps, marks, nobody_failed, quiet, ticks, within,
};
use crate::plan::{FaultKind, OutageKind, Plan, Span, schedule};

/// Ticks that may fire after the end of the plan, until everybody is fresh.
const LATER: u64 = 4;

/// Days with a change of clocks: at midnight UTC before it, and the zone. In Cairo it is at midnight.
const CHANGES: [(i64, &str); 6] = [
    (1_774_699_200_000, "Europe/Berlin"),
    (1_792_843_200_000, "Europe/Berlin"),
    (1_776_988_800_000 - 86_400_000, "Africa/Cairo"),
    (1_793_318_400_000 - 86_400_000, "Africa/Cairo"),
    (1_772_928_000_000, "America/New_York"),
    (1_793_491_200_000, "America/New_York"),
];

/// A plan on a day on which clocks change.
fn change_day(seed: u64, cron: &str) -> Plan {
    let mut plan = quiet(seed, 20, 24);
    let place = usize::try_from(seed % CHANGES.len() as u64).expect("a small number");
    let (start_ms, zone) = CHANGES[place];
    plan.size.start = Timestamp::from_ms(start_ms);
    plan.policy.schedule = schedule(cron, zone);
    plan
}

/// The schedules' scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slow-syncs-keep-quarter-hours-quarter-hours",
        sentence: "syncs take long and end late: due is measured from the nominal time, so the gap stays 15 minutes",
        covers: &[1],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 12);
            plan.climate.google = Span::new(5_000, 20_000);
            plan.policy.concurrency = 10;
            plan
        },
        expect: |report| {
            gaps(report, 15, 17)?;
            ticks(report, (48, 48 + LATER), (0, 0))?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "crash-at-every-tick-breaks-no-chain",
        sentence: "all processes die in the second of each tick, and the store breaks off at another: every tick fires all the same",
        covers: &[2],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 6);
            for tick in 1..20 {
                for process in 0..3 {
                    plan = at_second(plan, tick * 900, 5, FaultKind::Crash { process });
                }
            }
            let how = OutageKind::Breaking;
            at_second(plan, 21 * 900 - 5, 20, FaultKind::StoreOutage { how })
        },
        expect: |report| {
            marks(report, &["process-crashed", "store-refused"])?;
            ticks(report, (24, 24 + LATER), (0, 0))?;
            gaps(report, 15, 17)
        },
    },
    Scenario {
        name: "three-starts-at-once-leave-one-schedule",
        sentence: "all processes begin in the same moment, again and again, each defining the schedule: each tick fires once",
        covers: &[3],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 6);
            for minute in [20, 50, 80, 110, 140] {
                for process in 0..3 {
                    plan = plan.with(minute, 1, FaultKind::Crash { process });
                }
            }
            plan
        },
        expect: |report| {
            marks(report, &["tick-already-fired"])?;
            ticks(report, (24, 24 + LATER), (0, 0))?;
            gaps(report, 15, 17)
        },
    },
    Scenario {
        name: "one-of-three-stops-and-the-schedule-goes-on",
        sentence: "one process is told to stop and stays away for hours: the schedule is not its own, and goes on",
        covers: &[5],
        seeds: 3,
        plan: |seed| {
            let stop = FaultKind::Terminate {
                process: 0,
                deadline_ms: 10_000,
            };
            quiet(seed, 40, 6).with(61, 180, stop)
        },
        expect: |report| {
            marks(report, &["process-terminated"])?;
            ticks(report, (24, 24 + LATER), (0, 0))?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "all-down-over-two-ticks-fires-one-and-counts-the-other",
        sentence: "nobody runs while two ticks pass: the newest fires when they are back, the other is counted as missed",
        covers: &[6],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 6);
            for process in 0..3 {
                plan = plan.with(62, 35, FaultKind::Crash { process });
            }
            plan
        },
        expect: |report| {
            marks(report, &["ticks-missed"])?;
            ticks(report, (23, 23 + LATER), (1, 1))
        },
    },
    Scenario {
        name: "dst-day",
        sentence: "the clocks of the schedule's zone change, at two or at midnight: every quarter of an hour is a tick, none twice",
        covers: &[7],
        seeds: 6,
        plan: |seed| change_day(seed, "*/15 * * * *"),
        expect: |report| {
            marks(report, &["change-of-clocks"])?;
            ticks(report, (95, 96 + LATER), (0, 0))?;
            gaps(report, 15, 17)
        },
    },
    Scenario {
        name: "nightly-in-the-changed-hour-fires-once-a-night",
        sentence: "half past two is skipped or comes twice: the nightly sync is neither lost nor run twice",
        covers: &[7],
        seeds: 6,
        plan: |seed| change_day(seed, "30 2 * * *"),
        // A day, and the one or two after it in which everybody becomes fresh.
        expect: |report| ticks(report, (1, 3), (0, 0)),
    },
    Scenario {
        name: "overload-never-starves-the-fan-out",
        sentence: "more users are due than the limit lets through: the fan-out does not wait behind its own children, and who still waits at the next tick coalesces",
        covers: &[8, 11],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 6);
            plan.policy.concurrency = 1;
            plan.size.processes = 1;
            plan.policy.source.jobs = Some(super::expect::a_minute(2));
            plan
        },
        expect: |report| {
            marks(report, &["overloaded", "job-coalesced"])?;
            // 60 users at 2 a minute are 30 minutes; those who became due meanwhile wait a little longer.
            gaps(report, 31, 46)?;
            within("fan-outs", report.tally.fan_outs, 23, 24)?;
            everybody_synced(report, 60, 8)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "fan-out-killed-half-way-goes-on-from-there",
        sentence: "every process dies in the middle of a fan-out of a thousand users: at most one page is enqueued again",
        covers: &[9],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 1_000, 1);
            plan.size.duration_ms = 40 * MINUTE_MS;
            plan.policy.concurrency = 30;
            plan.policy.source.jobs = Some(super::expect::a_minute(600));
            plan.policy.lease_ms = 10 * SECOND_MS;
            // Each page takes some seconds, so the death finds it half way.
            plan = at_second(plan, 895, 60, FaultKind::StoreSlow { max_ms: 4_000 });
            for process in 0..3 {
                plan = at_second(plan, 918, 2, FaultKind::Crash { process });
            }
            plan
        },
        expect: |report| {
            marks(report, &["process-crashed-with-leases", "lease-expired"])?;
            within("wishes that coalesced", report.tally.coalesced, 0, 260)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "users-enrolled-together-do-not-stay-in-step",
        sentence: "three hundred users are enrolled in one moment, without any limit: their syncs are laid out, a second from one to the next",
        covers: &[10],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 300, 3);
            plan.policy.source.jobs = None;
            plan.policy.concurrency = 50;
            plan.with(5, 0, FaultKind::EnrolWave { percent: 100 })
        },
        expect: |report| {
            // A second from one to the next, by the default spread; in step it would be 300.
            within(
                "starts in the busiest minute",
                u64::from(report.tally.starts_a_minute_peak()),
                20,
                75,
            )?;
            let a_second = u64::from(report.tally.fetches_a_second_peak);
            within("requests in the busiest second", a_second, 1, 10)?;
            gaps(report, 15, 17)
        },
    },
];
