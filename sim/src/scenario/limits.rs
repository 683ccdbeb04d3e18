//! Limits, pauses and retries: items 21 to 30.

use kalends_core::policy::limit::Limit;
use kalends_core::time::{MINUTE_MS, SECOND_MS};

use super::Scenario;
use super::expect::{
    a_minute, at_second, everybody_synced, expect, gaps, marks, nobody_failed, quiet, well_within,
    within,
};
use crate::plan::{FaultKind, Mishap, Plan, Span};

/// Every mishap by which Google says "slow down".
const LIMITS: [Mishap; 4] = [
    Mishap::TooMany,
    Mishap::RateLimit,
    Mishap::UserRateLimit,
    Mishap::UserQuota,
];

fn limited(status: u16, retry_after_s: Option<u32>, as_date: bool) -> FaultKind {
    FaultKind::GoogleLimited {
        status,
        reason: "rateLimitExceeded".to_owned(),
        retry_after_s,
        as_date,
    }
}

/// Every request fails for thirty seconds after each of four ticks.
fn failing_for_half_a_minute(seed: u64) -> Plan {
    let mut plan = quiet(seed, 120, 3);
    plan.policy.source.jobs = Some(a_minute(120));
    for minute in [60, 75, 90, 105] {
        let fails = FaultKind::GoogleMishap {
            mishap: Mishap::BackendError,
            ppm: 1_000_000,
        };
        plan = at_second(plan, minute * 60 + 10, 30, fails);
    }
    plan
}

/// The most starts in any of these minutes since the start.
fn starts_peak(report: &crate::report::Report, minutes: std::ops::Range<usize>) -> u64 {
    let counts = report.tally.starts_by_minute.iter().enumerate();
    let counts = counts.filter(|(minute, _)| minutes.contains(minute));
    counts
        .map(|(_, count)| u64::from(*count))
        .max()
        .unwrap_or(0)
}

/// The limits' scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a-rush-over-the-minute-stays-within-every-window",
        sentence: "everybody wants a sync just before a minute is full: no sliding window holds more starts than the limit",
        covers: &[21],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 100, 4);
            for minute in [67, 82, 97, 112] {
                plan = at_second(plan, minute * 60 + 55, 0, FaultKind::SyncAll);
            }
            plan
        },
        expect: |report| {
            let peak = u64::from(report.tally.starts_a_minute_peak());
            within("starts in the busiest minute", peak, 10, 10)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "one-429-stops-all-at-once-and-fails-nobody",
        sentence: "one request hears 429 with Retry-After while others run: they stop asking at once, no attempt counts, nobody fails",
        covers: &[22],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 90, 4);
            plan.policy.concurrency = 10;
            plan.policy.source.jobs = Some(a_minute(60));
            plan.climate.google = Span::new(500, 3_000);
            plan.climate.graph = Span::new(1_000, 6_000);
            plan.size.events_per_calendar = 20;
            plan.policy.page_size = 5;
            plan = at_second(plan, 60 * 60 + 40, 600, limited(429, Some(120), false));
            // Every pass begins anew, and has many pages, so that jobs are in the middle of them.
            at_second(plan, 60 * 60, 0, FaultKind::ExpireSyncTokens { user: None })
        },
        expect: |report| {
            marks(
                report,
                &[
                    "google-retry-after",
                    "stopped-asking",
                    "google-limited-source",
                ],
            )?;
            // Ten minutes are five pauses; each begins with what was on its way already.
            let asked = report.tally.fetches_between(61, 70);
            within("requests in nine minutes of refusals", asked, 4, 60)?;
            within("attempts that failed", report.tally.retried, 0, 0)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "limiter-that-idled-or-was-lost-is-neither-open-nor-shut",
        sentence: "hours without a start, a failover, an emptied store: the limit is neither forgotten nor closed for ever",
        covers: &[23],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 50, 9);
            plan.policy.schedule = crate::plan::schedule("0 */2 * * *", "UTC");
            let plan = plan.with(110, 1, FaultKind::Failover);
            plan.with(330, 0, FaultKind::EmptyStore)
        },
        expect: |report| {
            marks(report, &["store-emptied", "store-found-empty"])?;
            let peak = u64::from(report.tally.starts_a_minute_peak());
            within("starts in the busiest minute", peak, 1, 10)?;
            everybody_synced(report, 50, 5)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "limit-changed-in-mid-window-holds-at-once",
        sentence: "an operator lowers the limit in the middle of a minute, and later raises it: each holds from that moment on",
        covers: &[24],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 140, 6);
            for (second, count) in [(80 * 60 + 30, 3), (130 * 60 + 30, 40)] {
                let limit = Some(a_minute(count));
                plan = at_second(plan, second, 0, FaultKind::SetLimit { limit });
            }
            plan
        },
        expect: |report| {
            marks(report, &["limit-lowered", "limit-raised"])?;
            within("peak before", starts_peak(report, 20..80), 9, 10)?;
            within("peak while lowered", starts_peak(report, 82..130), 1, 3)?;
            within("peak when raised", starts_peak(report, 131..140), 20, 40)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "all-slots-end-at-once-under-a-limit-and-go-on",
        sentence: "every job takes exactly as long as every other, all slots are free in the same instant, the limiter is shut: nothing hangs",
        covers: &[25],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 100, 4);
            plan.climate.store = Span::new(1, 1);
            plan.climate.google = Span::new(1_000, 1_000);
            plan.climate.graph = Span::new(10, 10);
            plan.climate.changes_a_day = 0;
            plan.policy.jitter_ms = 0;
            plan.policy.concurrency = 4;
            plan.policy.source.jobs = Some(Limit {
                count: 12,
                window_ms: 60 * SECOND_MS,
            });
            plan.with(61, 0, FaultKind::SyncAll)
        },
        expect: |report| {
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "after-a-pause-the-due-come-back-slowly",
        sentence: "the source is paused for an hour, then a thousand are due: starts come back one by one, and all are served",
        covers: &[26],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 1_000, 3);
            plan.policy.source.jobs = Some(a_minute(600));
            plan.policy.concurrency = 30;
            plan.climate.changes_a_day = 500;
            plan.with(32, 60, FaultKind::PauseSource)
        },
        expect: |report| {
            marks(report, &["source-paused"])?;
            within("starts during the pause", starts_peak(report, 33..92), 0, 0)?;
            let first = starts_peak(report, 92..93);
            within("starts in the first minute", first, 60, 600)?;
            // Ninety slots could ask five hundred times in the first second.
            let a_second = u64::from(report.tally.fetches_a_second_peak);
            within("requests in the busiest second", a_second, 1, 25)?;
            nobody_failed(report)?;
            everybody_synced(report, 1_000, 5)
        },
    },
    Scenario {
        name: "half-a-minute-without-google-costs-nobody-a-sync",
        sentence: "Google fails for thirty seconds, and retries wait twenty seconds and more: they do not come in step, no attempt is the last",
        covers: &[27],
        seeds: 5,
        plan: |seed| {
            let mut plan = failing_for_half_a_minute(seed);
            plan.policy.backoff.base_ms = 20_000;
            plan
        },
        expect: |report| {
            marks(report, &["job-retried"])?;
            let peak = u64::from(report.tally.fetches_a_second_peak);
            within("requests in the busiest second", peak, 1, 12)?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "attempts-burnt-in-seconds-wait-for-the-next-tick-and-lose-nobody",
        sentence: "with the default backoff of a second, three attempts do not outlast the same thirty seconds: who failed is synced at the next tick",
        covers: &[27],
        seeds: 5,
        plan: failing_for_half_a_minute,
        expect: |report| {
            marks(report, &["job-retried", "job-failed"])?;
            let peak = u64::from(report.tally.fetches_a_second_peak);
            within("requests in the busiest second", peak, 1, 12)?;
            gaps(report, 15, 31)?;
            everybody_synced(report, 120, 8)
        },
    },
    Scenario {
        name: "every-kind-of-limit-is-a-wait-and-no-failure",
        sentence: "429 and 403 of every limiting reason, with Retry-After in seconds, as a date and without: waits, nobody fails",
        covers: &[28],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 8);
            for (hour, mishap) in (1..).zip(LIMITS) {
                let some = FaultKind::GoogleMishap {
                    mishap,
                    ppm: 100_000,
                };
                plan = plan.with(hour * 60, 20, some);
            }
            plan = plan.with(330, 10, limited(403, Some(60), true));
            plan.with(390, 10, limited(403, None, false))
        },
        expect: |report| {
            let seen = [
                "google-limited-user",
                "google-limited-source",
                "google-retry-after",
            ];
            marks(report, &seen)?;
            within("attempts that failed", report.tally.retried, 0, 0)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "rate-limit-storm",
        sentence: "Google's own quota is a third of what the fleet would ask: gates close and open, nobody fails, everybody is served in turn",
        covers: &[22, 28],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 100, 6);
            plan.policy.source.jobs = None;
            plan.policy.concurrency = 10;
            plan.climate.google_quota = Some((5, 20));
            for minute in (60..300).step_by(30) {
                plan = plan.with(minute, 0, FaultKind::SyncAll);
            }
            plan
        },
        expect: |report| {
            marks(report, &["google-limited-source", "stopped-asking"])?;
            nobody_failed(report)?;
            everybody_synced(report, 100, 10)?;
            well_within(report, 60)
        },
    },
    Scenario {
        name: "one-user-floods-and-the-others-stay-fresh",
        sentence: "one user says \"sync now\" every two seconds for hours: that user gets what is left of the limit, the others are served as ever",
        covers: &[29],
        seeds: 5,
        plan: |seed| {
            quiet(seed, 60, 6).with(
                60,
                240,
                FaultKind::Flood {
                    user: 5,
                    every_ms: 2_000,
                },
            )
        },
        expect: |report| {
            marks(report, &["flood", "job-coalesced"])?;
            // Ten a minute less four a minute for the others.
            let served = u64::from(report.tally.syncs_of(5));
            within("syncs of the flooding user", served, 100, 240 * 7)?;
            let others = (0..60).filter(|user| *user != 5);
            let least = others.map(|user| report.tally.syncs_of(user)).min();
            expect(least >= Some(22), || {
                format!("somebody else was synced {least:?} times, expected 22")
            })?;
            expect(report.tally.gap_ms_max <= 20 * MINUTE_MS, || {
                format!("somebody waited {} ms", report.tally.gap_ms_max)
            })
        },
    },
    Scenario {
        name: "requests-are-limited-and-not-only-jobs",
        sentence: "one job needs a hundred requests and the others one each: the limit on requests holds over all of them",
        covers: &[30],
        seeds: 3,
        plan: |seed| {
            let mut plan: Plan = quiet(seed, 20, 4);
            plan.policy.page_size = 5;
            plan.policy.source.requests_project = Some(a_minute(30));
            plan.policy.source.requests_user = Some(a_minute(20));
            let events = 500;
            plan.with(62, 0, FaultKind::HugeCalendar { user: 3, events })
        },
        expect: |report| {
            marks(report, &["huge-calendar", "request-held-back"])?;
            // A request of the minute before may arrive in this one.
            let peak = u64::from(report.tally.fetches_a_minute_peak());
            within("requests in the busiest minute", peak, 20, 31)?;
            nobody_failed(report)?;
            everybody_synced(report, 20, 13)
        },
    },
];
