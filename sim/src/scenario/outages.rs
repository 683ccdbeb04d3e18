//! A service is away for a while, and comes back.

use super::expect::{marks, nobody_failed, within};
use super::{Scenario, expect, expect_gap};
use crate::plan::{FaultKind, OutageKind, Plan};

/// The outages' scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "google-outage",
        sentence: "Google is away for an hour: everybody is synced again soon after, nobody is lost",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let how = OutageKind::Refusing;
            Plan::quiet(seed).with(180, 60, FaultKind::GoogleOutage { how })
        },
        expect: |report| {
            marks(report, &["google-refused"])?;
            expect_gap(report, 90)
        },
    },
    Scenario {
        name: "redis-outage",
        sentence: "the store is away for an hour: work resumes by itself within seconds, missed ticks are counted",
        covers: &[6, 31],
        seeds: 5,
        plan: |seed| {
            let how = OutageKind::Silent;
            Plan::quiet(seed).with(180, 60, FaultKind::StoreOutage { how })
        },
        expect: |report| {
            expect(report.marks.count("store-back") > 0, || {
                "no process found the store again".to_owned()
            })?;
            expect(report.marks.count("ticks-missed") > 0, || {
                "the missed ticks were not counted".to_owned()
            })?;
            within("ticks counted as missed", report.tally.ticks_missed, 2, 4)?;
            nobody_failed(report)?;
            expect_gap(report, 90)
        },
    },
    Scenario {
        name: "neo4j-outage",
        sentence: "the graph is away for an hour: no change of a calendar is lost",
        covers: &[46],
        seeds: 5,
        plan: |seed| {
            let how = OutageKind::Refusing;
            Plan::quiet(seed).with(180, 60, FaultKind::GraphOutage { how })
        },
        expect: |report| {
            marks(report, &["event-written"])?;
            expect_gap(report, 90)
        },
    },
];
