//! Ticks and fan-outs, and what a store needs of the rows.

use super::*;
use crate::policy::schedule::ScheduleDefinition;

const QUARTER_MS: i64 = 900_000;

fn name() -> ScheduleName {
    ScheduleName::new("quarter").unwrap()
}

fn define(desk: &mut Desk, ms: i64, cron: &str) -> ScheduleState {
    let definition = ScheduleDefinition {
        source: source(),
        cron: cron.parse().unwrap(),
        time_zone: Default::default(),
        catch_up: Default::default(),
    };
    let schedule = name();
    match desk.apply(
        ms,
        Command::DefineSchedule {
            schedule,
            definition,
        },
    ) {
        Reply::Schedule { state } => state,
        other => panic!("{other:?}"),
    }
}

fn tick(desk: &mut Desk, ms: i64, revision: u64, after_ms: i64, at_ms: i64) -> Reply {
    desk.apply(
        ms,
        Command::Tick {
            schedule: name(),
            revision,
            after: at(after_ms),
            at: at(at_ms),
            missed: 0,
            fire: true,
        },
    )
}

#[test]
fn a_tick_fires_once_whoever_says_it() {
    let mut desk = Desk::unlimited(&[]);
    define(&mut desk, 0, "*/15 * * * *");
    let first = tick(&mut desk, QUARTER_MS, 1, 0, QUARTER_MS);
    assert!(matches!(first, Reply::Fired { ref state } if state.fired == 1));
    let second = tick(&mut desk, QUARTER_MS, 1, 0, QUARTER_MS);
    assert!(matches!(second, Reply::AlreadyFired { state: Some(_) }));
    let early = tick(&mut desk, QUARTER_MS, 1, QUARTER_MS, 2 * QUARTER_MS);
    assert!(matches!(early, Reply::Refused { .. }), "not yet");
    let changed = define(&mut desk, QUARTER_MS, "0 * * * *");
    assert_eq!((changed.revision, changed.fired), (2, 1));
    let old = tick(&mut desk, 2 * QUARTER_MS, 1, QUARTER_MS, 2 * QUARTER_MS);
    assert!(
        matches!(old, Reply::AlreadyFired { .. }),
        "of the old pattern"
    );
}

#[test]
fn a_fan_out_keeps_its_progress_and_never_waits_behind_its_children() {
    let mut desk = Desk::new(Some(Limit::default()), &["ada", "ben"]);
    define(&mut desk, 0, "*/15 * * * *");
    tick(&mut desk, QUARTER_MS, 1, 0, QUARTER_MS);
    let pause = Command::Pause {
        source: None,
        reason: "children only".into(),
    };
    desk.apply(QUARTER_MS, pause);
    let leases = desk.claim(QUARTER_MS, 0);
    assert_eq!(leases[0].nominal_at, Some(at(QUARTER_MS)));
    let lease = leases[0].lease.clone();
    let jobs = vec![NewJob {
        user: user("ada"),
        run_at: at(QUARTER_MS),
        nominal_at: Some(at(QUARTER_MS)),
        priority: Priority::Scheduled,
    }];
    let page = Command::Enqueue {
        source: source(),
        jobs,
        checkpoint: Some((lease.clone(), "after ada".into())),
    };
    assert_eq!(desk.apply(QUARTER_MS + 1, page.clone()), enqueued(1, 0, 0));
    let after = QUARTER_MS + 40_000;
    let leases = desk.claim(after, 9);
    assert_eq!(names(&leases), ["fan-out"], "the crashed one, resumed");
    assert_eq!(leases[0].cursor.as_deref(), Some("after ada"));
    assert_eq!(desk.apply(after, page), lost(), "the old one is fenced off");
    tick(&mut desk, 2 * QUARTER_MS, 1, QUARTER_MS, 2 * QUARTER_MS);
}

#[test]
fn a_tick_during_a_fan_out_runs_it_once_more() {
    let mut desk = Desk::unlimited(&[]);
    define(&mut desk, 0, "*/15 * * * *");
    tick(&mut desk, QUARTER_MS, 1, 0, QUARTER_MS);
    let lease = desk.claim(QUARTER_MS + 899_990, 0)[0].lease.clone();
    tick(&mut desk, 2 * QUARTER_MS, 1, QUARTER_MS, 2 * QUARTER_MS);
    let commit = Commit {
        cursor: None,
        next_due_at: None,
        outcome: CommitOutcome::FannedOut { users: 0 },
    };
    let complete = Command::Complete { lease, commit };
    assert_eq!(
        desk.apply(2 * QUARTER_MS + 1, complete.clone()),
        Reply::Done
    );
    assert_eq!(desk.apply(2 * QUARTER_MS + 1, complete), Reply::AlreadyDone);
    let leases = desk.claim(2 * QUARTER_MS + 2, 0);
    assert_eq!(leases[0].nominal_at, Some(at(2 * QUARTER_MS)));
    let remove = Command::RemoveSchedule { schedule: name() };
    desk.apply(2 * QUARTER_MS + 3, remove);
    assert_eq!(desk.next(2 * QUARTER_MS + 4), None);
}

#[test]
fn a_question_writes_no_row() {
    let mut desk = Desk::new(Some(Limit::default()), &["ada"]);
    desk.enqueue(0, "ada");
    desk.queue.take_changes();
    desk.apply(1, Command::Stats);
    desk.claim(2, 0);
    assert_eq!(desk.queue.take_changes(), []);
}

#[test]
fn the_same_again_writes_no_row() {
    let mut desk = Desk::new(Some(Limit::default()), &["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    let jobs = Some(Limit {
        count: 3,
        window_ms: 10_000,
    });
    let source = source();
    let commands = [
        Command::Checkpoint {
            lease,
            progress: Some("page 2".into()),
            requests: 0,
        },
        Command::SetLimit { source, jobs },
        Command::Pause {
            source: None,
            reason: "maintenance".into(),
        },
    ];
    for (ms, command) in [1, 2, 3].into_iter().zip(commands) {
        let first = desk.apply(ms, command.clone());
        assert_ne!(desk.queue.take_changes(), []);
        assert_eq!(desk.apply(ms, command), first);
        assert_eq!(desk.queue.take_changes(), []);
    }
}

#[test]
fn rows_of_another_version_are_refused_with_their_place() {
    let row = |table: &str, key: &str, value: &str| {
        Queue::restore([(table.to_owned(), key.to_owned(), value.to_owned())])
    };
    assert_eq!(
        row("colours", "1", "{}").unwrap_err(),
        RestoreError::UnknownTable("colours".into())
    );
    let error = row("jobs", "7", "{}").unwrap_err();
    assert!(error.to_string().contains("row 7 of table jobs"));
}
