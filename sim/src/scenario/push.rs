//! Push: notifications late, twice, not at all, from somebody else, too many; channels that end and renewals that get lost.
//!
//! These are no items of the list: they follow from the promise that a change is seen in moments, and at the latest by the poll
//! behind.

use kalends_core::push::PushSettings;
use kalends_core::push::hearing::{DEBOUNCE_MS, LOOK_MS};
use kalends_core::time::{HOUR_MS, MINUTE_MS, SECOND_MS};

use super::Scenario;
use super::expect::{Told, at_second, expect, marks, no_marks, nobody_failed, quiet, within};
use crate::plan::{Fault, FaultKind, OutageKind, Plan};
use crate::report::Report;

/// The pace of polls behind channels, in hours.
const POLL_HOURS: u64 = 2;
/// From when a sync may begin to its end, in milliseconds: it may have to take its turn behind thirty polls at ten a minute.
const SYNC_MS: u64 = 4 * MINUTE_MS;
/// What the schedule and its spread add to the pace of polls, in milliseconds.
const PERIOD_MS: u64 = 17 * MINUTE_MS;

/// A fleet that watches.
fn watching(seed: u64, users: u32, hours: u64) -> Plan {
    let mut plan = quiet(seed, users, hours);
    plan.policy.push = Some(PushSettings {
        life_ms: 12 * HOUR_MS,
        poll_ms: POLL_HOURS * HOUR_MS,
    });
    plan
}

/// A fault from the second minute to the end.
fn throughout(plan: Plan, kind: FaultKind) -> Plan {
    let minutes = plan.size.duration_ms / MINUTE_MS - 30;
    plan.with(30, minutes, kind)
}

/// Half of the changes were found within so long, and each within so long, in milliseconds.
fn found(report: &Report, half_ms: u64, all_ms: u64) -> Told {
    let push = &report.tally.push;
    let half = push.stale_percentile_ms(50);
    expect(push.changes() >= 50, || {
        format!("only {} changes were found", push.changes())
    })?;
    expect(half <= half_ms && push.stale_ms_max <= all_ms, || {
        format!(
            "half of the changes were found within {half} ms, all within {}, expected {half_ms} and {all_ms}",
            push.stale_ms_max
        )
    })
}

/// Push saves polls: in a fleet of `users` each is synced less often than the schedule alone would have it.
fn fewer_syncs(report: &Report, users: u64, hours: u64) -> Told {
    let polls = users * hours * 4;
    let syncs = report.tally.syncs;
    expect(syncs < polls / 2, || {
        format!("{syncs} syncs, and polls alone would be {polls}")
    })
}

/// All calendars are watched at the end, by one channel each.
fn one_channel_each(report: &Report) -> Told {
    let push = &report.tally.push;
    within("calendars without a channel", push.unwatched, 0, 0)?;
    within("channels beyond one a calendar", push.left_over, 0, 0)
}

/// Push's scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "watched-users-are-fresh-within-moments-and-polled-seldom",
        sentence: "nothing is wrong: a change is synced in moments, with less than half of the syncs; channels are renewed with overlap",
        covers: &[],
        seeds: 5,
        plan: |seed| watching(seed, 30, 24),
        expect: |report| {
            marks(
                report,
                &["channel-renewed", "watched-polled", "push-accepted"],
            )?;
            no_marks(report, &["channel-ended", "push-forged", "push-not-now"])?;
            found(
                report,
                DEBOUNCE_MS + 10 * SECOND_MS,
                DEBOUNCE_MS + LOOK_MS + SYNC_MS,
            )?;
            fewer_syncs(report, 30, 24)?;
            one_channel_each(report)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "delayed-notifications-only-delay",
        sentence: "every notification is ten to twenty minutes late: a change is synced within that delay, a debounce and a sync",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let ten_minutes = 10 * 60 * 1_000;
            throughout(
                watching(seed, 30, 12),
                FaultKind::PushDelayed {
                    min_ms: ten_minutes,
                    max_ms: 2 * ten_minutes,
                },
            )
        },
        expect: |report| {
            marks(report, &["push-late", "watched-polled"])?;
            let late_ms = 20 * MINUTE_MS + DEBOUNCE_MS + LOOK_MS;
            found(report, late_ms, late_ms + SYNC_MS)?;
            expect(report.tally.push.stale_ms_max > 10 * MINUTE_MS, || {
                "nothing was late".to_owned()
            })
        },
    },
    Scenario {
        name: "doubled-notifications-cost-no-further-sync",
        sentence: "every notification comes twice: one sync for both, as if it had come once",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            throughout(
                watching(seed, 30, 12),
                FaultKind::PushDoubled { ppm: 1_000_000 },
            )
        },
        expect: |report| {
            let push = &report.tally.push;
            marks(report, &["push-doubled"])?;
            // A change is told by one notification, here by two.
            let changes = push.changes() as u64;
            expect(push.accepted * 2 > changes * 3, || {
                format!("{} accepted for {changes} changes", push.accepted)
            })?;
            expect(push.added <= changes + changes / 10, || {
                format!("{} syncs were asked for, of {changes} changes", push.added)
            })?;
            found(
                report,
                DEBOUNCE_MS + 10 * SECOND_MS,
                DEBOUNCE_MS + LOOK_MS + SYNC_MS,
            )
        },
    },
    Scenario {
        name: "dropped-notifications-are-caught-up-by-the-poll-behind",
        sentence: "no notification comes at all: each change is found by the slower poll, within its pace",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            throughout(
                watching(seed, 30, 12),
                FaultKind::PushDropped { ppm: 1_000_000 },
            )
        },
        expect: |report| {
            marks(report, &["push-dropped", "watched-polled"])?;
            let poll_ms = POLL_HOURS * HOUR_MS;
            found(report, poll_ms, poll_ms + PERIOD_MS + SYNC_MS)?;
            expect(report.tally.push.stale_ms_max > poll_ms / 2, || {
                "no change waited for the poll".to_owned()
            })?;
            within("users lost", report.tally.lost, 0, 0)
        },
    },
    Scenario {
        name: "forged-notifications-are-refused-and-ask-nobody",
        sentence: "somebody posts twenty forged notifications a second for an hour: all are refused, and nobody is asked anything",
        covers: &[],
        seeds: 3,
        plan: |seed| {
            let mut plan = watching(seed, 20, 4);
            plan.climate.changes_a_day = 0;
            plan.with(60, 60, FaultKind::PushForged { every_ms: 50 })
        },
        expect: |report| {
            let push = &report.tally.push;
            within("forged ones refused", push.refused, 71_000, 73_000)?;
            within("accepted", push.accepted, 0, 0)?;
            within("questions to the store", push.questions, 0, 0)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "a-webhook-flood-is-bounded-and-keeps-nobody-else-waiting",
        sentence: "Google tells of one calendar twenty times a second, beside forgeries: a few questions a debounce, others are fresh in moments",
        covers: &[],
        seeds: 3,
        plan: |seed| {
            let mut plan = watching(seed, 30, 6);
            plan.climate.changes_a_day = 600;
            plan.with(
                120,
                10,
                FaultKind::PushFlood {
                    user: 3,
                    every_ms: 50,
                },
            )
            .with(120, 10, FaultKind::PushForged { every_ms: 20 })
            .with(
                124,
                1,
                FaultKind::StoreOutage {
                    how: OutageKind::Refusing,
                },
            )
        },
        expect: |report| {
            let push = &report.tally.push;
            marks(report, &["push-accepted", "push-forged"])?;
            expect(push.accepted > 8_000, || {
                format!("{} accepted", push.accepted)
            })?;
            // In each of three processes an ask and a look a debounce; each is a question or two. Then the day's changes.
            let flood = 3 * 2 * (10 * MINUTE_MS).div_ceil(DEBOUNCE_MS);
            let others = 4 * push.changes() as u64 + 30;
            within("syncs asked for", push.asked, 100, flood + others)?;
            within("questions", push.questions, 200, 2 * (flood + others))?;
            let syncs = u64::from(report.tally.syncs_of(3));
            within(
                "syncs of the flooded user",
                syncs,
                10,
                100 + (10 * MINUTE_MS) / DEBOUNCE_MS,
            )?;
            found(report, DEBOUNCE_MS + 10 * SECOND_MS, 5 * MINUTE_MS)
        },
    },
    Scenario {
        name: "what-comes-after-a-sync-that-began-early-is-not-lost",
        sentence: "bursts of notifications meet syncs that somebody wants at once: what comes after the sync began is synced, too",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = watching(seed, 4, 5);
            // One process hears all of a burst.
            plan.size.processes = 1;
            plan.climate.changes_a_day = 0;
            plan.policy.source.jobs = None;
            for burst in 0..20 {
                let user = u32::try_from(burst % 4).expect("small");
                let second = 3_600 + 600 * burst;
                let kind = FaultKind::PushFlood {
                    user,
                    every_ms: 400,
                };
                // The first are heard, then all are wanted, then the last ones come.
                plan = at_second(plan, second, 2, kind);
                plan.faults.push(Fault {
                    at_ms: second * 1_000 + 900,
                    lasting_ms: 0,
                    kind: FaultKind::SyncAll,
                });
            }
            plan.faults.sort_by_key(|fault| fault.at_ms);
            plan
        },
        expect: |report| {
            marks(report, &["sync-all", "push-accepted"])?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "channels-that-end-in-an-outage-leave-the-usual-pace",
        sentence: "Google is away for longer than channels are renewed ahead: they end, and all are watched again when it is back",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = watching(seed, 20, 24);
            plan.policy.push = Some(PushSettings {
                life_ms: 6 * HOUR_MS,
                poll_ms: HOUR_MS,
            });
            let how = OutageKind::Refusing;
            plan.with(5 * 60, 5 * 60, FaultKind::GoogleOutage { how })
        },
        expect: |report| {
            marks(
                report,
                &["channel-ended", "channel-renewed", "google-refused"],
            )?;
            one_channel_each(report)?;
            within("users lost", report.tally.lost, 0, 0)
        },
    },
    Scenario {
        name: "a-renewal-whose-answer-is-lost-leaves-no-orphan-behind",
        sentence: "channels are made and half of the answers get lost: it is tried again, and channels that nobody knows are stopped",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = watching(seed, 20, 24);
            plan.climate.changes_a_day = 800;
            plan.policy.push = Some(PushSettings {
                life_ms: 24 * HOUR_MS,
                poll_ms: HOUR_MS,
            });
            plan.with(0, 9 * 60, FaultKind::WatchLost { ppm: 500_000 })
        },
        expect: |report| {
            marks(report, &["channel-answer-lost", "orphan-stopped"])?;
            one_channel_each(report)?;
            nobody_failed(report)
        },
    },
    Scenario {
        name: "the-webhook-dies-sleeps-and-is-replaced-and-the-poll-stands-behind",
        sentence: "processes crash, sleep and are rolled while much is told: what their webhooks knew is found within the slower pace",
        covers: &[],
        seeds: 5,
        plan: |seed| {
            let mut plan = watching(seed, 30, 12);
            plan.climate.changes_a_day = 2_000;
            for hour in 1..10 {
                let process = u32::try_from(hour % 3).expect("small");
                plan = plan
                    .with(60 * hour + 7, 3, FaultKind::Crash { process })
                    .with(60 * hour + 17, 2, FaultKind::Pause { process });
            }
            // Nobody is there at all for a while.
            for process in 0..3 {
                plan = plan.with(645, 4, FaultKind::Crash { process });
            }
            let deploy = FaultKind::Deploy {
                schedule: None,
                gap_ms: 20_000,
                deadline_ms: 10_000,
            };
            plan.with(330, 5, deploy.clone()).with(570, 5, deploy)
        },
        expect: |report| {
            marks(
                report,
                &[
                    "process-crashed",
                    "process-paused",
                    "deploy",
                    "push-nobody-there",
                    "push-came-again",
                ],
            )?;
            let poll_ms = POLL_HOURS * HOUR_MS;
            found(report, MINUTE_MS, poll_ms + PERIOD_MS + SYNC_MS)
        },
    },
    Scenario {
        name: "who-has-a-calendar-that-cannot-be-watched-is-polled-as-before",
        sentence: "users have holidays beside their own calendars, which Google does not watch: nobody is polled slowly",
        covers: &[],
        seeds: 3,
        plan: |seed| {
            let mut plan = watching(seed, 10, 6);
            plan.size.calendars_per_user = 3;
            plan
        },
        expect: |report| {
            marks(report, &["channel-refused", "push-accepted"])?;
            no_marks(report, &["watched-polled"])?;
            within("gap", report.tally.gap_ms_max, 1, PERIOD_MS + 2 * MINUTE_MS)
        },
    },
];
