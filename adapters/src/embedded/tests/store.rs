//! The queue in the file: durable before the answer, never ahead of the disk, and in groups.

use std::sync::Arc;

use kalends_core::graph::GraphWrite;
use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::port::{Graph, Store};
use kalends_core::queue::Queue;
use kalends_core::queue::command::{
    Command, Commit, CommitOutcome, LeaseRef, NewJob, Priority, Refusal, Reply,
};
use kalends_core::queue::state::{JobState, SourceSettings};
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::Timestamp;
use tokio::sync::oneshot;

use super::{TestClock, apply, counts, event, open, user};
use crate::embedded::writer::{Caller, Work};
use crate::embedded::{EmbeddedStore, FILE_NAME, GROUP_MAX, OpenError, file, queue_table};

const NOW_MS: i64 = 1_772_000_000_000;

fn define() -> Command {
    let unlimited = SourceSettings {
        jobs: None,
        requests_project: None,
        requests_user: None,
        ..SourceSettings::default()
    };
    Command::DefineSource {
        source: SourceName::google_calendar(),
        settings: unlimited,
    }
}

fn enroll(users: Vec<UserId>) -> Command {
    Command::Enroll {
        source: SourceName::google_calendar(),
        users,
        due_at: Timestamp::from_ms(NOW_MS),
    }
}

/// The answer to [`enroll`] when all of them are new.
fn enrolled(users: Vec<UserId>) -> Reply {
    Reply::Enrolled {
        source: SourceName::google_calendar(),
        users,
    }
}

fn enqueue(users: Vec<UserId>, run_at: Timestamp) -> Command {
    let jobs = users.into_iter().map(|user| NewJob {
        user,
        run_at,
        nominal_at: None,
        priority: Priority::Scheduled,
    });
    Command::Enqueue {
        source: SourceName::google_calendar(),
        jobs: jobs.collect(),
        checkpoint: None,
    }
}

fn claim(slots: u32) -> Command {
    Command::Claim {
        worker: WorkerId::new("worker").unwrap(),
        slots,
        fan_out_slots: 0,
        lease_ms: 60_000,
        held: vec![],
    }
}

fn complete(lease: LeaseRef) -> Command {
    Command::Complete {
        lease,
        commit: Commit {
            cursor: Some("a cursor".to_owned()),
            next_due_at: None,
            outcome: CommitOutcome::Skipped {
                note: "nothing to do".to_owned(),
            },
        },
    }
}

/// The queue as a reader finds it in the file at this moment.
fn stored(directory: &std::path::Path) -> Queue {
    let connection = file::connect_reader(&directory.join(FILE_NAME)).unwrap();
    queue_table::load(&connection).unwrap()
}

/// A command that makes sense more often than not.
fn random_command(rng: &mut KalendsRng, leases: &mut Vec<LeaseRef>) -> Command {
    let mut some_users = |count: u64| -> Vec<UserId> {
        (0..count)
            .map(|_| user(&format!("user{}", uniform(rng, 30))))
            .collect()
    };
    let users = some_users(3);
    let choice = uniform(rng, 9);
    let picked = (!leases.is_empty()).then(|| {
        let last = leases.len() as u64 - 1;
        let index = usize::try_from(uniform(rng, last)).unwrap();
        leases.swap_remove(index)
    });
    match (choice, picked) {
        (0, _) => enroll(users),
        (1, _) => Command::Unenroll {
            source: SourceName::google_calendar(),
            users: users[..1].to_vec(),
        },
        (2 | 3, _) => {
            let later_ms = i64::try_from(uniform(rng, 2_000)).unwrap();
            enqueue(users, Timestamp::from_ms(NOW_MS + later_ms))
        }
        (4 | 5, Some(lease)) => complete(lease),
        (6, Some(lease)) => Command::Retry {
            lease,
            at: Timestamp::from_ms(NOW_MS),
            error: "again".to_owned(),
        },
        (7, Some(lease)) => Command::Fail {
            lease,
            error: "given up".to_owned(),
            next_due_at: None,
            park: None,
        },
        (8, _) => Command::RetryFailed { number: None },
        _ => claim(2),
    }
}

#[tokio::test]
async fn every_command_is_in_the_file_before_its_answer() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let clock = TestClock::at(NOW_MS);
        let mut store = EmbeddedStore::open(directory.path(), clock.clone()).unwrap();
        let mut model = Queue::new();
        let mut rng = substream(seed, "commands");
        let mut leases = Vec::new();
        let everybody = (0..20)
            .map(|number| user(&format!("user{number}")))
            .collect();
        let mut first = vec![enroll(everybody), define()];
        for step in 0..200 {
            let command = first
                .pop()
                .unwrap_or_else(|| random_command(&mut rng, &mut leases));
            let now = clock.forward(uniform(&mut rng, 100));
            let reply = store.apply(command.clone()).await.unwrap();
            assert_eq!(reply.now, now);
            assert_eq!(reply.value, model.apply(now, command));
            if let Reply::Claimed { leases: given, .. } = reply.value {
                leases.extend(given.into_iter().map(|given| given.lease));
            }
            let found = stored(directory.path());
            assert_eq!(found.rows(), model.rows(), "seed {seed}, step {step}");
            if uniform(&mut rng, 20) == 0 {
                store.close().await;
                store = EmbeddedStore::open(directory.path(), clock.clone()).unwrap();
            }
        }
        model.check_invariants();
        stored(directory.path()).check_invariants();
        let Reply::Stats { stats } = model.apply(clock.forward(0), Command::Stats) else {
            panic!("asked for the counts");
        };
        assert!(
            stats.completed_total > 10,
            "the stream did not get anywhere"
        );
    }
}

#[tokio::test]
async fn reading_costs_no_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.apply(define()).await.unwrap();
    let commits = store.commits();
    assert_eq!(commits, 1);
    store.apply(Command::Stats).await.unwrap();
    store.apply(Command::Schedules).await.unwrap();
    assert_eq!(store.commits(), commits);
}

#[tokio::test]
async fn commands_that_wait_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    store.apply(define()).await.unwrap();
    let before = store.commits();
    // The thread is kept busy while a hundred callers come.
    let (caller, busy) = oneshot::channel();
    let long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000)
                INSERT INTO queue SELECT 'none', 'none', count(*) FROM n WHERE i < 0 HAVING count(*) > 0";
    store
        .ask(Work::Execute(long.to_owned()), Caller::Execute(caller))
        .await;
    let callers: Vec<_> = (0..100)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store
                    .apply(enroll(vec![user(&format!("user{number}"))]))
                    .await
            })
        })
        .collect();
    for (number, caller) in callers.into_iter().enumerate() {
        let reply = caller.await.unwrap().unwrap();
        assert_eq!(reply.value, enrolled(vec![user(&format!("user{number}"))]));
    }
    busy.await.unwrap();
    let commits = store.commits() - before;
    assert!(
        (1..=10).contains(&commits),
        "{commits} commits for 100 commands"
    );
    const { assert!(GROUP_MAX >= 100) };
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_is_got_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.apply(define()).await.unwrap();
    let first: Vec<UserId> = (0..10)
        .map(|number| user(&format!("first{number}")))
        .collect();
    store.apply(enroll(first.clone())).await.unwrap();
    store
        .write(apply(1, 1, vec![event("before", 1)], vec![]))
        .await
        .unwrap();
    let before = stored(directory.path());
    let graph_before = store.snapshot(&user("ada")).await.unwrap();

    // No page more than there are.
    store.execute("PRAGMA max_page_count = 1").await;
    let many: Vec<UserId> = (0..900)
        .map(|number| user(&format!("late{number}")))
        .collect();
    let refused = store.apply(enroll(many.clone())).await.unwrap_err();
    assert!(refused.detail.contains("disk"), "{refused}");
    let rows: Vec<_> = (0..500).map(|n| event(&format!("late{n}"), 1)).collect();
    let refused = store.write(apply(2, 1, rows.clone(), vec![])).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(
            refused.kind,
            kalends_core::failure::FailureKind::Transient { .. }
        ),
        "{refused}"
    );
    // A command that needs no space shares the fate of its group, in whatever order the two come.
    let (small, large) = tokio::join!(
        store.apply(enqueue(first.clone(), Timestamp::from_ms(NOW_MS))),
        store.apply(enroll(many.clone()))
    );
    assert!(large.is_err());
    let small_was_kept = small.is_ok();

    // Memory says what the file says.
    let found = stored(directory.path());
    if !small_was_kept {
        assert_eq!(found.rows(), before.rows());
    }
    let in_memory = store.apply(Command::Stats).await.unwrap().value;
    let mut in_file = stored(directory.path());
    assert_eq!(
        in_memory,
        in_file.apply(Timestamp::from_ms(NOW_MS), Command::Stats)
    );
    let Reply::Stats { stats } = in_memory else {
        panic!("asked for the counts");
    };
    assert_eq!(stats.sources[0].1.users, 10);
    assert_eq!(store.snapshot(&user("ada")).await.unwrap(), graph_before);

    // Space returns.
    store.execute("PRAGMA max_page_count = 4294967294").await;
    let reply = store.apply(enroll(many.clone())).await.unwrap();
    assert_eq!(reply.value, enrolled(many));
    assert_eq!(
        store.write(apply(2, 1, rows, vec![])).await,
        Ok(counts(500, 0))
    );
    store.close().await;
    let found = stored(directory.path());
    found.check_invariants();
    assert_eq!(stats.waiting == 10, small_was_kept);
}

#[tokio::test]
async fn a_panic_in_the_thread_is_heard_and_nobody_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.apply(define()).await.unwrap();
    let shortly = tokio::time::Duration::from_millis(20);
    let early = tokio::time::timeout(shortly, store.ended()).await;
    assert!(early.is_err(), "the thread is there");
    store.ask(Work::Panic, Caller::Nobody).await;
    let ended = tokio::time::timeout(shortly * 500, store.ended()).await;
    assert!(ended.is_ok(), "nobody was told that the thread is gone");
    let error = store.apply(define()).await.unwrap_err();
    assert!(error.detail.contains("start the process again"), "{error}");
    let error = store.write(apply(1, 1, vec![], vec![])).await.unwrap_err();
    assert!(error.detail.contains("start the process again"), "{error}");
    store.close().await;
    let again = open(directory.path());
    assert!(again.apply(Command::Stats).await.is_ok());
}

#[tokio::test]
async fn a_waiter_is_woken_when_there_is_something_to_claim() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.apply(define()).await.unwrap();
    store.apply(enroll(vec![user("ada")])).await.unwrap();
    let waits = tokio::time::Duration::from_millis(50);
    let early = tokio::time::timeout(waits, store.wait_for_wake()).await;
    assert!(early.is_err(), "nothing is claimable yet");
    let job = enqueue(vec![user("ada")], Timestamp::from_ms(NOW_MS));
    let (woken, _) = tokio::join!(
        tokio::time::timeout(waits * 100, store.wait_for_wake()),
        store.apply(job.clone())
    );
    assert!(woken.is_ok());
    // A wake that finds nobody is kept.
    store.apply(claim(1)).await.unwrap();
    store.apply(job).await.unwrap();
    let woken = tokio::time::timeout(waits * 100, store.wait_for_wake()).await;
    assert!(woken.is_ok());
}

#[tokio::test]
async fn what_a_killed_process_had_leased_is_claimed_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.apply(define()).await.unwrap();
    store.apply(enroll(vec![user("ada")])).await.unwrap();
    let job = enqueue(vec![user("ada")], Timestamp::from_ms(NOW_MS));
    store.apply(job).await.unwrap();
    store.apply(claim(1)).await.unwrap();
    // The clock stands still: no lease runs out.
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.recover_orphans().await, Ok(1));
    let Reply::Claimed { leases, .. } = store.apply(claim(1)).await.unwrap().value else {
        panic!("a claim was not answered");
    };
    assert_eq!(leases.len(), 1);
    assert_eq!(
        leases[0].attempt, 1,
        "it counts as a stall, not as an attempt"
    );
}

#[tokio::test]
async fn a_reader_looks_on_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = EmbeddedStore::open_read_only(directory.path(), TestClock::at(0));
    assert!(matches!(missing.unwrap_err(), OpenError::Missing { .. }));
    let store = open(directory.path());
    let reader = EmbeddedStore::open_read_only(directory.path(), TestClock::at(NOW_MS)).unwrap();
    store.apply(define()).await.unwrap();
    store.apply(enroll(vec![user("ada")])).await.unwrap();
    store
        .write(apply(1, 1, vec![event("e1", 1)], vec![]))
        .await
        .unwrap();
    let users = Command::Users {
        source: SourceName::google_calendar(),
        after: None,
        limit: 10,
    };
    for open in [true, false] {
        let seen = reader.apply(users.clone()).await.unwrap().value;
        let Reply::Users { users } = seen else {
            panic!("asked for users");
        };
        assert_eq!(users.len(), 1);
        assert_eq!(reader.snapshot(&user("ada")).await.unwrap().events.len(), 1);
        if open {
            store.close().await;
        }
    }
    let refused = reader.apply(claim(1)).await.unwrap_err();
    assert!(refused.detail.contains("reading only"));
    let sweep = GraphWrite::RemoveCalendar {
        user: user("ada"),
        fence: kalends_core::queue::command::LeaseToken(9),
        calendar: super::calendar("primary").id,
    };
    assert!(reader.write(sweep).await.is_err());
    std::fs::write(directory.path().join(FILE_NAME), b"something else").unwrap();
    let foreign = EmbeddedStore::open_read_only(directory.path(), TestClock::at(0));
    assert!(matches!(foreign.unwrap_err(), OpenError::NotOurs { .. }));
}

#[tokio::test]
async fn a_refusal_by_the_queue_is_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let reply = store.apply(enroll(vec![user("ada")])).await.unwrap();
    let source = SourceName::google_calendar();
    let refusal = Refusal::UnknownSource { source };
    assert_eq!(reply.value, Reply::Refused { refusal });
    let jobs = Command::Jobs {
        state: JobState::Waiting,
        offset: 0,
        limit: 10,
    };
    let reply = store.apply(jobs).await.unwrap();
    assert_eq!(reply.value, Reply::Jobs { jobs: vec![] });
}

#[tokio::test]
async fn a_queue_row_that_cannot_be_read_is_corruption() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store
        .execute("INSERT INTO queue VALUES ('users', 'junk', 'junk')")
        .await;
    store.close().await;
    let error = EmbeddedStore::open(directory.path(), TestClock::at(0)).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}
