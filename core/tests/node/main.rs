//! Nodes in a small world: each test is a fault and its expected outcome.
#![allow(clippy::unwrap_used, missing_docs)] // a test crate: a failed unwrap is a failed test

mod hand;
mod prefetch;
mod slots;
mod world;

use std::cell::Cell;
use std::rc::Rc;

use kalends_core::failure::{Failure, FailureKind, LimitScope};
use kalends_core::google::page::PageEnd;
use kalends_core::id::{SourceName, UserId};
use kalends_core::node::io::{EffectResult, Notice, Op};
use kalends_core::policy::{Jitter, Spread};
use kalends_core::push::PushSettings;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::queue::state::{JobState, QueueStats};
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp};

use world::{MIDNIGHT, World, page, quiet, schedule_name, settings, user};

fn stats(world: &mut World) -> QueueStats {
    match world.apply(Command::Stats) {
        Reply::Stats { stats } => stats,
        other => panic!("not stats: {other:?}"),
    }
}

fn failure(kind: FailureKind) -> Option<EffectResult> {
    Some(EffectResult::Fetch(Err(Failure::new(kind, "scripted"))))
}

fn fired(world: &World) -> usize {
    world.count(|notice| matches!(notice, Notice::TickFired { .. }))
}

#[test]
fn every_15_minutes_means_96_a_day_for_every_user() {
    let mut world = World::new();
    world.now = MIDNIGHT.minus_ms(HOUR_MS);
    world.start(settings("a", 4), 0);
    world.run_until(MIDNIGHT.minus_ms(1));
    world.notices.clear();
    world.run_until(MIDNIGHT.plus_ms(DAY_MS - 1));
    assert_eq!(fired(&world), 96);
    for index in 0..4 {
        let syncs: Vec<Timestamp> = world
            .done_jobs()
            .iter()
            .filter(|(_, done)| *done == user(index))
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(syncs.len(), 96, "user {index}");
        let gaps = syncs.windows(2).map(|pair| pair[1].since_ms(pair[0]));
        assert!(
            gaps.into_iter()
                .all(|gap| gap.abs_diff(15 * MINUTE_MS) < 12 * SECOND_MS)
        );
    }
}

#[test]
fn new_users_are_synced_at_once_spread_and_jittered() {
    let mut world = World::new();
    world.start(settings("a", 20), 0);
    world.run_for(30 * SECOND_MS);
    let starts: Vec<Timestamp> = world.fetches.iter().map(|(at, _)| *at).collect();
    assert_eq!(starts.len(), 20);
    let last = starts.iter().max().unwrap().since_ms(starts[0]);
    assert!(last > 15 * SECOND_MS, "they are spread: {last} ms");
    let even = starts
        .windows(2)
        .all(|pair| pair[1].since_ms(pair[0]) == SECOND_MS);
    assert!(!even, "they are jittered");
}

#[test]
fn a_new_layout_holds_from_the_next_tick_on() {
    let mut world = World::new();
    let process = world.start(settings("a", 20), 0);
    world.run_until(MIDNIGHT.plus_ms(14 * MINUTE_MS));
    let spread = Spread::Stagger {
        step_ms: 10 * SECOND_MS,
    };
    world.lay_out(process, spread, Jitter { max_ms: 0 });
    world.fetches.clear();
    world.run_until(MIDNIGHT.plus_ms(29 * MINUTE_MS));
    let starts: Vec<Timestamp> = world.fetches.iter().map(|(at, _)| *at).collect();
    assert_eq!(starts.len(), 20);
    let gaps: Vec<u64> = starts
        .windows(2)
        .map(|pair| pair[1].since_ms(pair[0]))
        .collect();
    // A claim takes its time.
    let is_laid = |gap: &u64| gap.abs_diff(10 * SECOND_MS) <= 20;
    assert!(gaps.iter().all(is_laid), "{gaps:?}");
}

#[test]
fn a_user_that_failed_is_due_again_by_time_alone() {
    let mut world = World::new();
    let broken = Rc::new(Cell::new(true));
    let is_broken = Rc::clone(&broken);
    world.script(move |_, _, op| match op {
        Op::Fetch(request) if *request.user() == user(1) && is_broken.get() => {
            failure(FailureKind::Permanent)
        }
        op => Some(quiet(op)),
    });
    world.start(settings("a", 3), 0);
    world.run_for(10 * MINUTE_MS);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::JobFailed { .. })),
        1
    );
    broken.set(false);
    world.run_for(20 * MINUTE_MS);
    assert!(world.done_jobs().iter().any(|(_, done)| *done == user(1)));
}

#[test]
fn transient_failures_are_tried_three_times_with_growing_pauses_and_then_again_at_the_next_tick() {
    let mut world = World::new();
    world.script(|_, _, op| match op {
        Op::Fetch(_) => failure(FailureKind::Transient {
            retry_after_ms: None,
        }),
        op => Some(quiet(op)),
    });
    world.start(settings("a", 1), 0);
    world.run_until(MIDNIGHT.plus_ms(14 * MINUTE_MS));
    assert_eq!(world.fetches.len(), 3);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::JobFailed { .. })),
        1
    );
    world.run_until(MIDNIGHT.plus_ms(29 * MINUTE_MS));
    assert_eq!(world.fetches.len(), 6);
}

#[test]
fn a_channel_is_not_waited_for_behind_another_jobs_429() {
    let mut world = World::new();
    world.script(|_, _, op| match op {
        Op::Fetch(request) if *request.user() == user(1) => failure(FailureKind::Limited {
            scope: LimitScope::Source,
            retry_after_ms: Some(4 * MINUTE_MS),
        }),
        op => Some(quiet(op)),
    });
    let mut settings = settings("a", 2);
    settings.spread = Spread::Stagger { step_ms: 0 };
    settings.jitter.max_ms = 0;
    settings.sources[0].settings.requests_user = None;
    settings.sources[0].settings.requests_project = None;
    settings.sources[0].sync.push = Some(PushSettings::default());
    world.start(settings, 0);
    world.run_until(MIDNIGHT.plus_ms(MINUTE_MS));
    let asked: Vec<UserId> = world.fetches.iter().map(|(_, user)| user.clone()).collect();
    assert_eq!(asked, [user(0), user(1)], "no channel is asked for");
    let done: Vec<UserId> = world
        .done_jobs()
        .into_iter()
        .map(|(_, user)| user)
        .collect();
    assert_eq!(done, [user(0)], "what it read and wrote counts");
}

#[test]
fn one_429_stops_the_others_too_and_fails_nobody() {
    let mut world = World::new();
    let until = MIDNIGHT.plus_ms(5 * MINUTE_MS);
    // Every user has pages without end until the storm is over.
    world.script(move |now, _, op| match op {
        Op::Fetch(request) if now < until => {
            if *request.user() == user(0) && now > MIDNIGHT.plus_ms(20 * SECOND_MS) {
                let scope = LimitScope::Source;
                failure(FailureKind::Limited {
                    scope,
                    retry_after_ms: Some(4 * MINUTE_MS),
                })
            } else {
                Some(EffectResult::Fetch(Ok(page(PageEnd::Next(format!(
                    "page at {now}"
                ))))))
            }
        }
        op => Some(quiet(op)),
    });
    let mut settings = settings("a", 3);
    settings.sources[0].settings.requests_user = None;
    settings.sources[0].settings.requests_project = None;
    world.start(settings, 0);
    world.run_until(MIDNIGHT.plus_ms(30 * SECOND_MS));
    let asked = world.fetches.len();
    world.run_until(MIDNIGHT.plus_ms(4 * MINUTE_MS));
    assert_eq!(
        world.fetches.len(),
        asked,
        "nobody asks while the gate is closed"
    );
    world.run_until(MIDNIGHT.plus_ms(14 * MINUTE_MS));
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::JobFailed { .. })),
        0
    );
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::JobRetried { .. })),
        0
    );
    assert_eq!(world.done_jobs().len(), 3);
}

#[test]
fn a_revoked_grant_parks_the_user_and_costs_no_further_request() {
    let mut world = World::new();
    world.script(|_, _, op| match op {
        Op::Fetch(_) => failure(FailureKind::Unauthorized),
        op => Some(quiet(op)),
    });
    world.start(settings("a", 1), 0);
    world.run_for(2 * HOUR_MS);
    assert_eq!(world.fetches.len(), 1);
    assert_eq!(stats(&mut world).sources[0].1.parked, 1);
}

#[test]
fn a_user_without_a_graph_database_is_skipped_and_not_failed() {
    let mut world = World::new();
    world.script(|_, _, op| match op {
        Op::Graph(_) => {
            let failure = Failure::new(FailureKind::NotReady, "no graph database");
            Some(EffectResult::Graph(Err(failure)))
        }
        op => Some(quiet(op)),
    });
    world.start(settings("a", 1), 0);
    world.run_for(5 * MINUTE_MS);
    assert_eq!(world.done_jobs().len(), 1);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::JobFailed { .. })),
        0
    );
}

#[test]
fn sigterm_hands_everything_back_and_leaves_the_schedule_alone() {
    let mut world = World::new();
    // The syncs of three users hang in Google.
    world.script(|_, process, op| match op {
        Op::Fetch(_) if process == 0 => None,
        op => Some(quiet(op)),
    });
    let first = world.start(settings("a", 3), 0);
    world.run_for(10 * SECOND_MS);
    world.terminate(first, 8 * SECOND_MS);
    world.run_for(9 * SECOND_MS);
    assert!(world.finished(first));
    assert_eq!(stats(&mut world).active, 0);
    world.start(settings("b", 3), 0);
    world.run_for(HOUR_MS);
    assert_eq!(fired(&world), 4);
    assert!(world.done_jobs().len() >= 12);
}

#[test]
fn sigkill_of_one_process_loses_no_job_and_no_tick() {
    let mut world = World::new();
    world.script(|_, process, op| match op {
        Op::Fetch(_) if process == 0 => None,
        op => Some(quiet(op)),
    });
    let first = world.start(settings("a", 3), 0);
    world.start(settings("b", 3), 0);
    world.run_for(10 * SECOND_MS);
    world.kill(first);
    world.run_until(MIDNIGHT.plus_ms(HOUR_MS - SECOND_MS));
    assert_eq!(fired(&world), 3);
    assert_eq!(stats(&mut world).active, 0);
    for index in 0..3 {
        assert!(
            world
                .done_jobs()
                .iter()
                .any(|(_, done)| *done == user(index))
        );
    }
}

#[test]
fn three_processes_fire_each_tick_once_whatever_their_clocks_say() {
    let mut world = World::new();
    world.start(settings("a", 2), 0);
    world.start(settings("b", 2), 5 * MINUTE_MS as i64);
    world.start(settings("c", 2), -(5 * MINUTE_MS as i64));
    world.run_until(MIDNIGHT.plus_ms(4 * HOUR_MS + MINUTE_MS));
    assert_eq!(fired(&world), 16);
    for (at, _, notice) in &world.notices {
        if let Notice::TickFired { at: tick, .. } = notice {
            assert!(
                at >= tick && at.since_ms(*tick) < SECOND_MS,
                "{tick} fired at {at}"
            );
        }
    }
}

#[test]
fn a_store_that_is_away_for_an_hour_is_asked_on_and_work_resumes_within_five_seconds() {
    let mut world = World::new();
    world.start(settings("a", 2), 0);
    world.run_for(5 * MINUTE_MS);
    world.store_up = false;
    world.run_for(HOUR_MS);
    world.notices.clear();
    world.store_up = true;
    let back = world.now;
    world.run_for(30 * SECOND_MS);
    let first = world.done_jobs()[0].0;
    assert!(
        first.since_ms(back) < 5 * SECOND_MS + 6 * SECOND_MS,
        "within 5 s, plus jitter"
    );
    assert_eq!(fired(&world), 1, "one catch-up");
    let missed = world.count(|notice| matches!(notice, Notice::TicksMissed { count: 3, .. }));
    assert_eq!(missed, 1);
}

#[test]
fn a_process_starts_without_its_store_and_begins_when_it_comes() {
    let mut world = World::new();
    world.store_up = false;
    world.start(settings("a", 1), 0);
    world.run_for(10 * MINUTE_MS);
    assert_eq!(world.count(|notice| matches!(notice, Notice::Ready)), 0);
    let asked = world.count(|notice| matches!(notice, Notice::StoreAway { .. }));
    assert!(
        (100..400).contains(&asked),
        "with growing intervals: {asked}"
    );
    world.store_up = true;
    world.run_for(5 * SECOND_MS);
    assert_eq!(world.count(|notice| matches!(notice, Notice::Ready)), 1);
}

#[test]
fn lost_replies_neither_lose_nor_double_anything() {
    let mut world = World::new();
    let mut count = 0_u32;
    world.lose_reply = Box::new(move |_| {
        count += 1;
        count.is_multiple_of(5)
    });
    let mut settings = settings("a", 5);
    settings.deadlines.store_ms = 1_000;
    world.start(settings, 0);
    world.run_until(MIDNIGHT.plus_ms(HOUR_MS - 1));
    let Reply::Schedules { schedules } = world.apply(Command::Schedules) else {
        panic!()
    };
    assert_eq!(schedules[0].1.fired, 3);
    for index in 0..5 {
        let syncs = world
            .fetches
            .iter()
            .filter(|(_, who)| *who == user(index))
            .count();
        assert_eq!(syncs, 4, "user {index}: the first sync and three ticks");
    }
}

#[test]
fn three_hung_requests_do_not_stop_a_process_with_three_slots() {
    let mut world = World::new();
    let hung = Rc::new(Cell::new(0));
    let counted = Rc::clone(&hung);
    world.script(move |_, _, op| match op {
        Op::Fetch(_) if counted.get() < 3 => {
            counted.set(counted.get() + 1);
            None
        }
        op => Some(quiet(op)),
    });
    world.start(settings("a", 6), 0);
    world.run_for(5 * MINUTE_MS);
    assert_eq!(hung.get(), 3);
    assert_eq!(world.done_jobs().len(), 6);
}

#[test]
fn a_panic_in_an_adapter_fails_that_job_alone() {
    let mut world = World::new();
    world.script(|_, _, op| match op {
        Op::Fetch(request) if *request.user() == user(0) => Some(EffectResult::Panicked {
            detail: "boom".to_owned(),
        }),
        op => Some(quiet(op)),
    });
    world.start(settings("a", 3), 0);
    world.run_for(5 * MINUTE_MS);
    assert_eq!(world.done_jobs().len(), 2);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::JobFailed { .. })),
        1
    );
}

#[test]
fn a_worker_that_slept_past_its_lease_can_commit_nothing() {
    let mut world = World::new();
    world.script(|_, process, op| match op {
        Op::Fetch(_) if process == 0 => None,
        op => Some(quiet(op)),
    });
    world.start(settings("a", 1), 0);
    world.run_for(10 * SECOND_MS);
    let Reply::Jobs { jobs } = world.apply(Command::Jobs {
        state: JobState::Active,
        offset: 0,
        limit: 10,
    }) else {
        panic!()
    };
    assert_eq!(jobs.len(), 1);
    // The process is gone for longer than its lease; another one takes the job.
    world.kill(0);
    world.start(settings("b", 1), 0);
    world.run_for(40 * SECOND_MS);
    assert_eq!(world.done_jobs().len(), 1);
    assert_eq!(stats(&mut world).active, 0);
}

#[test]
fn a_fan_out_whose_process_died_in_the_middle_goes_on_where_it_stopped() {
    let mut world = World::new();
    let first = world.start(settings("a", 0), 0);
    let users = (0..1_800).map(user).collect::<Vec<_>>();
    world.run_for(SECOND_MS);
    for page in users.chunks(1_000) {
        let source = SourceName::google_calendar();
        let due_at = MIDNIGHT;
        world.apply(Command::Enroll {
            source,
            users: page.to_vec(),
            due_at,
        });
    }
    // The process dies as soon as its fan-out has enqueued two pages.
    let pages = Rc::new(Cell::new(0));
    let counted = Rc::clone(&pages);
    world.lose_reply = Box::new(move |command| {
        if matches!(command, Command::Enqueue { .. }) {
            counted.set(counted.get() + 1);
        }
        counted.get() >= 2
    });
    world.run_until(MIDNIGHT.plus_ms(15 * MINUTE_MS + 2 * SECOND_MS));
    world.kill(first);
    world.lose_reply = Box::new(|_| false);
    let before = stats(&mut world);
    assert_eq!(
        before.waiting + before.delayed + before.active,
        2 * 250 + 1,
        "two pages and itself"
    );
    world.start(settings("b", 0), 0);
    world.run_for(MINUTE_MS);
    let after = stats(&mut world);
    let finished = world.done_jobs().len() as u64;
    assert_eq!(
        after.waiting + after.delayed + after.active + finished,
        1_800
    );
    let told = world.count(|notice| {
        matches!(notice, Notice::JobDone { outcome, .. }
            if *outcome == kalends_core::queue::command::CommitOutcome::FannedOut { users: 1_800 })
    });
    assert_eq!(told, 1);
}

#[test]
fn a_changed_pattern_leaves_one_schedule_the_new_one() {
    let mut world = World::new();
    let old = world.start(settings("old", 1), 0);
    world.run_for(20 * MINUTE_MS);
    let mut new = settings("new", 1);
    new.schedules[0].1 = world::definition("*/30 * * * *");
    world.start(new, 0);
    world.run_until(MIDNIGHT.plus_ms(4 * HOUR_MS + MINUTE_MS));
    assert!(!world.finished(old));
    // The tick of 00:15 was the old pattern's; from then on half past and full hours only.
    assert_eq!(fired(&world), 1 + 8);
    let Reply::Schedules { schedules } = world.apply(Command::Schedules) else {
        panic!()
    };
    assert_eq!(schedules.len(), 1);
    assert_eq!(schedules[0].0, schedule_name());
}

#[test]
fn more_users_than_the_limit_allows_is_said_and_coalesced() {
    let mut world = World::new();
    let mut settings = settings("a", 300);
    settings.sources[0].settings.jobs = kalends_core::queue::state::SourceSettings::default().jobs;
    world.start(settings, 0);
    world.run_for(3 * HOUR_MS);
    assert!(world.count(|notice| matches!(notice, Notice::Overloaded { .. })) > 0);
    let stats = stats(&mut world);
    assert!(stats.waiting + stats.delayed + stats.active <= 300 + 1);
    for pair in world.fetches.windows(11) {
        let span = pair[10].0.since_ms(pair[0].0);
        assert!(
            span >= MINUTE_MS - 2 * world::LATENCY_MS,
            "11 starts within {span} ms"
        );
    }
}

#[test]
fn a_store_that_was_emptied_is_known_within_a_poll_if_work_was_left_and_at_the_next_tick_if_not() {
    for (emptied_after_ms, known_within_ms) in [
        (15 * MINUTE_MS + 2 * SECOND_MS, 10 * SECOND_MS),
        (29 * MINUTE_MS + 50 * SECOND_MS, 15 * SECOND_MS),
    ] {
        let mut world = World::new();
        world.start(settings("a", 10), 0);
        world.run_until(MIDNIGHT.plus_ms(emptied_after_ms));
        world.queue = Queue::new();
        world.notices.clear();
        world.run_for(known_within_ms);
        let known = world.count(|notice| matches!(notice, Notice::StoreEmptied));
        assert_eq!(known, 1, "emptied {emptied_after_ms} ms after midnight");
        world.run_for(HOUR_MS);
        assert!(fired(&world) >= 4);
    }
}

#[test]
fn a_store_that_was_emptied_in_mid_flight_is_defined_again_and_everybody_is_synced() {
    let mut world = World::new();
    let hang = Rc::new(Cell::new(false));
    let hangs = Rc::clone(&hang);
    // One fetch is under way while the store is emptied, and never answered.
    world.script(move |_, _, op| match op {
        Op::Fetch(_) if hangs.take() => None,
        op => Some(quiet(op)),
    });
    for name in ["a", "b"] {
        world.start(settings(name, 6), 0);
    }
    world.run_until(MIDNIGHT.plus_ms(15 * MINUTE_MS));
    hang.set(true);
    while hang.get() {
        world.run_for(SECOND_MS);
    }
    assert_eq!(stats(&mut world).active, 1, "a job is under way");
    world.queue = Queue::new();
    world.notices.clear();
    world.run_for(4 * MINUTE_MS);
    let emptied = world.count(|notice| matches!(notice, Notice::StoreEmptied));
    assert!((1..=2).contains(&emptied), "told {emptied} times");
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::Ready)),
        emptied
    );
    assert!(world.count(|notice| matches!(notice, Notice::LeaseLost { .. })) >= 1);
    for index in 0..6 {
        let synced = world
            .done_jobs()
            .iter()
            .any(|(_, done)| *done == user(index));
        assert!(synced, "user {index}");
    }
    // The schedule is back, too, and nobody finds the store empty once more.
    world.notices.clear();
    world.run_for(HOUR_MS);
    assert_eq!(fired(&world), 4);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::StoreEmptied)),
        0
    );
}
