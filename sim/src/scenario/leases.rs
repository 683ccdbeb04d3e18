//! Leases and workers: items 12 to 20.

use kalends_core::time::{MINUTE_MS, SECOND_MS};

use super::Scenario;
use super::expect::{
    a_minute, at_second, everybody_synced, expect, gaps, marks, no_marks, nobody_failed, quiet,
    within,
};
use crate::plan::{FaultKind, OutageKind, Plan, Span};

/// Jobs that take long: ten to twenty-five seconds.
fn long_jobs(mut plan: Plan) -> Plan {
    plan.climate.google = Span::new(10_000, 25_000);
    plan
}

/// Everybody wants a sync, every twenty minutes, and half a minute later many long jobs are under way; then `fault`.
fn in_the_middle(seed: u64, seconds: u64, fault: fn(u32) -> FaultKind) -> Plan {
    let mut plan = long_jobs(quiet(seed, 60, 6));
    plan.policy.concurrency = 10;
    plan.policy.source.jobs = Some(a_minute(120));
    for number in 1..17 {
        let process = u32::try_from(number % 3).expect("a small number");
        plan = at_second(plan, number * 1_200, 0, FaultKind::SyncAll);
        plan = at_second(plan, number * 1_200 + 8, seconds, fault(process));
    }
    plan
}

/// The leases' scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "paused-past-its-lease-commits-nothing",
        sentence: "a process sleeps for 45 seconds with leases of 30, others take its jobs, it wakes: what it tells then is refused, nobody fails",
        covers: &[12],
        seeds: 5,
        plan: |seed| in_the_middle(seed, 45, |process| FaultKind::Pause { process }),
        expect: |report| {
            marks(
                report,
                &["process-paused-past-lease", "lease-expired", "lease-lost"],
            )?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "heartbeats-lost-and-the-late-end-is-refused-once",
        sentence: "one process is cut off from the store for a minute, works on, and tells the end too late: refused, not lost, not counted twice",
        covers: &[13],
        seeds: 5,
        plan: |seed| {
            in_the_middle(seed, 60, |process| FaultKind::Partition {
                process,
                store: true,
                google: false,
                graph: false,
            })
        },
        expect: |report| {
            marks(report, &["partition-store", "lease-expired"])?;
            let told_late = report.tally.leases_lost + report.tally.ends_refused;
            within("ends and heartbeats refused", told_late, 1, 16 * 20)?;
            nobody_failed(report)?;
            everybody_synced(report, 60, 22)
        },
    },
    Scenario {
        name: "jobs-wait-in-the-store-and-not-in-a-process",
        sentence: "one process with one slot and long jobs: nothing is claimed that has to wait, so no lease expires while waiting",
        covers: &[14],
        seeds: 3,
        plan: |seed| {
            let mut plan = long_jobs(quiet(seed, 30, 6));
            plan.size.processes = 1;
            plan.policy.concurrency = 1;
            plan
        },
        expect: |report| {
            no_marks(report, &["lease-expired", "lease-lost"])?;
            everybody_synced(report, 30, 20)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "poison-user-is-given-up-and-the-others-are-served",
        sentence: "whoever works for one user dies: after a bounded number of starts the job is given up, the others go on",
        covers: &[16],
        seeds: 5,
        plan: |seed| quiet(seed, 20, 6).with(62, 118, FaultKind::PoisonUser { user: 7 }),
        expect: |report| {
            marks(report, &["poison-user-killed", "job-buried"])?;
            // Eight ticks, and the one before, whose jobs the limit spreads beyond the fault's begin; at most four starts
            // for each.
            let deaths = report.marks.count("poison-user-killed");
            within("processes that died", deaths, 4, 9 * 4)?;
            within("jobs given up", report.tally.buried, 1, 9)?;
            let others = (0..20).filter(|user| *user != 7);
            let least = others.map(|user| report.tally.syncs_of(user)).min();
            expect(least >= Some(20), || {
                format!("somebody else was synced {least:?} times, expected 20")
            })
        },
    },
    Scenario {
        name: "hung-calls-give-their-slots-back",
        sentence: "Google takes everything and answers nothing for half an hour: calls run out of time, slots are free again, all is well soon after",
        covers: &[17],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 30, 4);
            plan.size.processes = 1;
            let how = OutageKind::Silent;
            plan.with(60, 30, FaultKind::GoogleOutage { how })
        },
        expect: |report| {
            marks(report, &["effect-timed-out"])?;
            gaps(report, 15, 60)?;
            // Three slots, and a call hangs for some seconds: they ask again and again.
            let asked = report.tally.fetches_between(62, 90);
            within("requests while Google was silent", asked, 20, 2_000)?;
            everybody_synced(report, 30, 12)
        },
    },
    Scenario {
        name: "sigterm-in-the-middle-hands-everything-back-in-time",
        sentence: "processes with long jobs are told to stop, at any moment: gone by the deadline, all handed back, no lease has to expire",
        covers: &[18],
        seeds: 5,
        plan: |seed| {
            let mut plan = long_jobs(quiet(seed, 60, 6));
            plan.policy.concurrency = 6;
            for number in 1..60 {
                let stop = FaultKind::Terminate {
                    process: u32::try_from(number % 3).expect("a small number"),
                    deadline_ms: 5_000,
                };
                plan = at_second(plan, number * 347, 15, stop);
            }
            plan
        },
        expect: |report| {
            marks(report, &["shutdown-handed-back"])?;
            let longest_ms = report.tally.shutdown_ms_max;
            // At the end all have half a minute.
            within("the longest shutdown, in ms", longest_ms, 0, 30 * SECOND_MS)?;
            within("shutdowns", report.tally.shutdowns, 59, 62)?;
            within("leases that ran out", report.tally.recovered, 0, 0)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "same-name-after-a-crash-hides-no-orphan",
        sentence: "processes die and come back under the same names within seconds: what they had leased is given to them again or expires, nothing hangs",
        covers: &[19],
        seeds: 5,
        plan: |seed| {
            let mut plan = long_jobs(quiet(seed, 60, 6));
            plan.policy.same_names = true;
            plan.policy.concurrency = 6;
            for number in 1..60 {
                let process = u32::try_from(number % 3).expect("a small number");
                plan = at_second(plan, number * 347, 2, FaultKind::Crash { process });
            }
            plan
        },
        expect: |report| {
            marks(
                report,
                &["process-crashed-with-leases", "lease-given-again"],
            )?;
            gaps(report, 15, 20)?;
            everybody_synced(report, 60, 22)
        },
    },
    Scenario {
        name: "one-call-for-many-jobs-leaves-nobody-idle",
        sentence: "sixty wishes come in one moment and nearly every call is lost: all are served within the minute",
        covers: &[20],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 2);
            plan.policy.source.jobs = None;
            // Far from any tick.
            let plan = plan.with(0, 119, FaultKind::WakeLoss { ppm: 900_000 });
            at_second(plan, 67 * 60 + 2, 0, FaultKind::SyncAll)
        },
        expect: |report| {
            let minute = report.tally.starts_by_minute.get(67).copied();
            within("starts in that minute", minute.unwrap_or(0).into(), 60, 75)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "a-job-of-minutes-keeps-its-lease",
        sentence: "a first sync of many slow pages lasts for minutes: heartbeats keep its lease, it is never taken for dead",
        covers: &[13, 41],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 3, 2);
            plan.size.events_per_calendar = 100;
            plan.policy.page_size = 5;
            plan.climate.google = Span::new(9_000, 12_000);
            plan.size.duration_ms = 60 * MINUTE_MS;
            plan
        },
        expect: |report| {
            no_marks(report, &["lease-expired", "lease-lost"])?;
            marks(report, &["full-pass-many-pages"])?;
            nobody_failed(report)
        },
    },
];
