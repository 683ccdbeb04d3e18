//! Google: items 38 to 45.

use super::Scenario;
use super::expect::{
    at_second, everybody_synced, expect, expect_gap, gaps, marks, no_marks, nobody_failed, quiet,
    within,
};
use crate::plan::{FaultKind, Mishap, OutageKind, Span};

fn some(mishap: Mishap, ppm: u32) -> FaultKind {
    FaultKind::GoogleMishap { mishap, ppm }
}

/// Google's scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "token-expiry-wave",
        sentence: "the sync tokens of all users end in one hour, one by one and all at once: one full pass each, within the limits, nothing is wiped first",
        covers: &[38],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 90, 6);
            plan.size.events_per_calendar = 20;
            plan = plan.with(62, 0, FaultKind::ExpireSyncTokens { user: None });
            for user in 0..90 {
                let when = 180 * 60 + u64::from(user) * 30;
                plan = at_second(
                    plan,
                    when,
                    0,
                    FaultKind::ExpireSyncTokens { user: Some(user) },
                );
            }
            plan
        },
        expect: |report| {
            marks(report, &["token-gone", "all-tokens-gone"])?;
            within("full passes", report.tally.full_passes, 3 * 90, 3 * 90)?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "gone-again-on-the-resync-stays-within-the-budget",
        sentence: "tokens are refused at random, also in the middle of a resync: full passes stay within a day's budget, all converges",
        covers: &[38],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 10);
            plan.size.events_per_calendar = 20;
            plan.policy.page_size = 5;
            plan.with(60, 480, some(Mishap::Gone, 200_000))
        },
        expect: |report| {
            marks(report, &["token-gone", "full-pass-many-pages"])?;
            // The first one, and four a day; healing may last into the next day.
            within(
                "full passes",
                report.tally.full_passes,
                80,
                40 * (1 + 4 + 4),
            )
        },
    },
    Scenario {
        name: "written-and-not-committed-is-written-again-and-once",
        sentence: "processes die between a graph write and its commit, and writes whose answer is lost are sent again: neither loses nor doubles",
        covers: &[39],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 6);
            plan.climate.changes_a_day = 4_000;
            plan.climate.graph = Span::new(500, 4_000);
            plan = plan.with(60, 240, FaultKind::GraphReplyLost { ppm: 200_000 });
            for number in 1..120 {
                let process = u32::try_from(number % 3).expect("a small number");
                plan = at_second(plan, number * 173, 2, FaultKind::Crash { process });
            }
            plan
        },
        expect: |report| {
            marks(
                report,
                &[
                    "graph-reply-lost",
                    "process-crashed-with-leases",
                    "event-written",
                ],
            )?;
            everybody_synced(report, 60, 18)
        },
    },
    Scenario {
        name: "every-way-an-event-changes-reaches-the-graph",
        sentence: "events and instances move, are edited and cancelled, series end, while pages are read: the graph equals the calendar",
        covers: &[40],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 12);
            plan.size.events_per_calendar = 40;
            plan.climate.changes_a_day = 8_000;
            plan.policy.page_size = 5;
            plan
        },
        expect: |report| {
            marks(report, &["event-written", "event-deleted"])?;
            within(
                "events written and removed",
                report.tally.written,
                2_000,
                20_000,
            )?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "first-sync-of-fifty-thousand-events-resumes-where-it-was",
        sentence: "the process dies again and again in a first sync of 50,000 events, and pages fail: it resumes, and one pass is enough",
        covers: &[41],
        seeds: 1,
        plan: |seed| {
            let mut plan = quiet(seed, 1, 2);
            plan.size.events_per_calendar = 50_000;
            plan.policy.page_size = 500;
            plan.climate.changes_a_day = 0;
            plan.climate.google = Span::new(1_000, 3_000);
            for number in 1..8 {
                for process in 0..3 {
                    plan = at_second(plan, number * 40, 2, FaultKind::Crash { process });
                }
            }
            plan.with(0, 8, some(Mishap::BackendError, 50_000))
        },
        expect: |report| {
            marks(report, &["pass-resumed", "process-crashed-with-leases"])?;
            within("full passes that ended", report.tally.full_passes, 1, 1)?;
            // A hundred pages, a few of them twice, and the increments.
            within("requests", report.tally.fetches, 100, 160)
        },
    },
    Scenario {
        name: "spoilt-answers-lose-nothing-and-fail-nobody-for-good",
        sentence: "cut bodies, broken JSON, HTML, empty pages, pages without a token, answers that never come: all converges",
        covers: &[42],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 6);
            plan.size.events_per_calendar = 12;
            plan.policy.page_size = 5;
            let kinds = [
                Mishap::CutBody,
                Mishap::MalformedJson,
                Mishap::Html,
                Mishap::EmptyPage,
                Mishap::NoSyncToken,
                Mishap::LostRequest,
                Mishap::LostAnswer,
                Mishap::BackendError,
            ];
            for mishap in kinds {
                plan = plan.with(60, 180, some(mishap, 40_000));
            }
            plan.with(65, 0, FaultKind::ExpireSyncTokens { user: None })
        },
        expect: |report| {
            marks(
                report,
                &["body-cut", "body-malformed", "page-empty", "token-withheld"],
            )?;
            expect_gap(report, 60)?;
            everybody_synced(report, 40, 18)
        },
    },
    Scenario {
        name: "unreadable-events-are-set-aside-alone",
        sentence: "an item on every page is no event: it is set aside, the rest of the page is kept, and it comes when it can be read",
        covers: &[42],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 6);
            plan.climate.changes_a_day = 2_000;
            for user in 0..6 {
                plan = plan.with(60, 120, FaultKind::UnreadableEvents { user });
            }
            plan
        },
        expect: |report| {
            marks(report, &["event-unreadable", "event-quarantined"])?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "revoked-grant-parks-its-user-until-connected-again",
        sentence: "a user revokes the grant: parked and shown after one refusal, not asked for again, and back as soon as connected",
        covers: &[43],
        seeds: 5,
        plan: |seed| quiet(seed, 20, 12).with(62, 480, FaultKind::RevokeGrant { user: 3 }),
        expect: |report| {
            marks(report, &["user-parked", "user-unparked"])?;
            within("users parked", report.tally.parked, 1, 1)?;
            within("jobs that failed", report.tally.failed, 1, 1)?;
            // Four hours of twelve.
            within(
                "syncs of that user",
                report.tally.syncs_of(3).into(),
                14,
                22,
            )?;
            let others = (0..20).filter(|user| *user != 3);
            let least = others.map(|user| report.tally.syncs_of(user)).min();
            expect(least >= Some(46), || {
                format!("somebody else was synced {least:?} times, expected 46")
            })
        },
    },
    Scenario {
        name: "access-token-ends-in-mid-job-and-nobody-notices",
        sentence: "access tokens end in the middle of jobs: one refresh, one more request, no attempt is lost",
        covers: &[44],
        seeds: 5,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 6);
            // With several, a token that ends in one may be stale in another just when its own ends, and two 401 in a
            // row are believed.
            plan.size.processes = 1;
            plan.size.events_per_calendar = 20;
            plan.policy.page_size = 5;
            plan.with(30, 300, some(Mishap::AccessTokenExpires, 300_000))
        },
        expect: |report| {
            no_marks(report, &["user-parked", "job-retried"])?;
            gaps(report, 15, 17)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "two-syncs-of-one-user-overlap-and-the-older-writes-nothing",
        sentence: "a worker that lost its lease has writes under way while another one syncs the same user: the graph refuses the older",
        covers: &[45],
        seeds: 8,
        plan: |seed| {
            let mut plan = quiet(seed, 60, 8);
            plan.policy.lease_ms = 10_000;
            plan.policy.concurrency = 10;
            plan.policy.source.jobs = Some(super::expect::a_minute(120));
            for number in 1..20 {
                let cut = FaultKind::Partition {
                    process: u32::try_from(number % 3).expect("a small number"),
                    store: true,
                    google: false,
                    graph: false,
                };
                let begin = number * 1_200;
                // Full passes write whatever they find, so that every job has a write under way.
                if number <= 3 {
                    plan = at_second(plan, begin, 0, FaultKind::ExpireSyncTokens { user: None });
                }
                plan = at_second(plan, begin, 300, FaultKind::GraphSlow { max_ms: 50_000 });
                plan = at_second(plan, begin, 0, FaultKind::SyncAll);
                plan = at_second(plan, begin + 3, 120, cut);
            }
            plan.climate.changes_a_day = 20_000;
            plan
        },
        expect: |report| {
            marks(report, &["lease-expired", "graph-fenced"])?;
            everybody_synced(report, 60, 10)
        },
    },
    Scenario {
        name: "calendar-unshared-and-back-takes-its-events-along",
        sentence: "a calendar is not shared any more: its events leave the graph; it comes back: so do they; the others are not touched",
        covers: &[],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 20, 8);
            plan.size.calendars_per_user = 3;
            for user in 0..10 {
                let calendar = user % 2;
                plan = plan.with(60, 120, FaultKind::UnshareCalendar { user, calendar });
            }
            plan
        },
        expect: |report| {
            marks(
                report,
                &[
                    "calendar-unshared",
                    "calendar-shared-again",
                    "event-deleted",
                ],
            )?;
            // Three calendars each are three passes in one sync.
            within("syncs with full passes", report.tally.full_passes, 30, 45)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "google-outage-that-breaks-off-loses-no-change",
        sentence: "connections to Google break for an hour while people change their calendars: every change is in the graph soon after",
        covers: &[],
        seeds: 3,
        plan: |seed| {
            let mut plan = quiet(seed, 40, 5);
            plan.climate.changes_a_day = 4_000;
            let how = OutageKind::Breaking;
            plan.with(120, 60, FaultKind::GoogleOutage { how })
        },
        expect: |report| {
            marks(report, &["google-refused"])?;
            expect_gap(report, 90)
        },
    },
];
