//! A service is away for a while, and comes back.

use super::{Scenario, expect, expect_gap};
use crate::plan::{FaultKind, OutageKind, Plan};

/// The outages' scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "google-outage",
        sentence: "Google is away for an hour: everybody is synced again soon after, nobody is lost",
        seeds: 20,
        plan: |seed| {
            let how = OutageKind::Refusing;
            Plan::quiet(seed).with(180, 60, FaultKind::GoogleOutage { how })
        },
        expect: |report| {
            expect(report.marks.count("google-refused") > 0, || {
                "Google was never asked meanwhile".to_owned()
            })?;
            expect_gap(report, 90)
        },
    },
    Scenario {
        name: "redis-outage",
        sentence: "the store is away for an hour: work resumes by itself within seconds, missed ticks are counted",
        seeds: 20,
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
            expect_gap(report, 90)
        },
    },
    Scenario {
        name: "neo4j-outage",
        sentence: "the graph is away for an hour: no change of a calendar is lost",
        seeds: 20,
        plan: |seed| {
            let how = OutageKind::Refusing;
            Plan::quiet(seed).with(180, 60, FaultKind::GraphOutage { how })
        },
        expect: |report| {
            expect(report.marks.count("event-written") > 0, || {
                "nothing was written".to_owned()
            })
        },
    },
];
