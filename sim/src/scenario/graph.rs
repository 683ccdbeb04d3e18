//! Neo4j: item 46.

use super::Scenario;
use super::expect::{everybody_synced, expect_gap, gaps, marks, nobody_failed, quiet, within};
use crate::plan::{FaultKind, OutageKind};

/// The graph's scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "deadlocks-and-leader-switches-are-tried-again",
        sentence: "one write in twenty fails for the moment: tried again, nearly nobody fails, everybody stays fresh",
        covers: &[46],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 8);
            plan.climate.changes_a_day = 8_000;
            plan.with(60, 360, FaultKind::GraphTransient { ppm: 50_000 })
        },
        expect: |report| {
            marks(report, &["graph-transient", "job-retried"])?;
            gaps(report, 15, 17)?;
            everybody_synced(report, 60, 30)
        },
    },
    Scenario {
        name: "paused-graph-frees-its-slots-and-loses-nothing",
        sentence: "the graph takes everything and answers nothing, then is slow: writes run out of time and are made again",
        covers: &[46],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 6);
            plan.climate.changes_a_day = 8_000;
            let how = OutageKind::Silent;
            plan.with(62, 30, FaultKind::GraphOutage { how }).with(
                150,
                60,
                FaultKind::GraphSlow { max_ms: 20_000 },
            )
        },
        expect: |report| {
            marks(report, &["effect-timed-out", "event-written"])?;
            expect_gap(report, 62)?;
            everybody_synced(report, 40, 18)
        },
    },
    Scenario {
        name: "wrong-password-stops-the-source-and-fails-nobody",
        sentence: "the graph refuses the password for an hour: work stops and says why, no attempt is burnt, it goes on when the password is right",
        covers: &[46],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 6);
            plan.climate.changes_a_day = 8_000;
            plan.with(62, 60, FaultKind::GraphMisconfigured)
        },
        expect: |report| {
            marks(report, &["graph-misconfigured"])?;
            nobody_failed(report)?;
            // Asked every five minutes or so by each process, and not by each job.
            let asked = report.tally.fetches_between(63, 122);
            within("requests while it was wrong", asked, 5, 150)?;
            expect_gap(report, 92)
        },
    },
    Scenario {
        name: "one-poison-event-is-set-aside-and-the-rest-is-written",
        sentence: "the graph chokes on some events of a user: each is found and set aside alone, and written when the graph takes it",
        covers: &[46],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 6);
            for user in 0..5 {
                plan = plan.with(60, 120, FaultKind::PoisonEvents { user, events: 7 });
            }
            plan
        },
        expect: |report| {
            marks(report, &["event-poisoned", "event-quarantined"])?;
            within("events set aside", report.tally.quarantined, 35, 5 * 7 * 12)?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
];
