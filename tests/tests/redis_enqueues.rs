//! What many callers of one process enqueue at the same moment: few scripts, a reply of its own for each, and nobody waits
//! for one who lost patience.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::future::Future as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use kalends_adapters::redis::RedisStore;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::Store;
use kalends_core::queue::command::{Command, NewJob, Priority, Reply};
use kalends_core::queue::state::SourceSettings;
use kalends_core::time::Timestamp;
use kalends_tests::redis_server::{RedisOptions, RedisServer, store_at};

const USERS: usize = 400;
/// Whoever is told that the store is away asks again so often.
const TRIES: u32 = 3;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn source() -> SourceName {
    SourceName::google_calendar()
}

fn other_source() -> SourceName {
    SourceName::new("another").unwrap()
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user-{number}@example.com")).unwrap()
}

fn enqueue(source: SourceName, users: &[usize]) -> Command {
    let job = |number: &usize| NewJob {
        user: user(*number),
        run_at: Timestamp::from_ms(1_767_225_600_000),
        nominal_at: None,
        priority: Priority::Scheduled,
    };
    Command::Enqueue {
        source,
        jobs: users.iter().map(job).collect(),
        checkpoint: None,
    }
}

fn enqueued(added: u64, coalesced: u64, refused: u64) -> Reply {
    Reply::Enqueued {
        added,
        coalesced,
        refused,
    }
}

async fn ask(store: &RedisStore, command: Command) -> Reply {
    let asked = tokio::time::timeout(PATIENCE, store.apply(command)).await;
    asked.expect("nobody waits for ever").unwrap().value
}

/// A store that knows both sources, and the users of the first.
async fn set_up(server: &RedisServer) -> Arc<RedisStore> {
    let store = Arc::new(store_at(&server.url()));
    for source in [source(), other_source()] {
        let define = Command::DefineSource {
            source,
            settings: SourceSettings::default(),
        };
        assert_eq!(ask(&store, define).await, Reply::Done);
    }
    let enroll = Command::Enroll {
        source: source(),
        users: (0..USERS).map(user).collect(),
        due_at: Timestamp::from_ms(1_767_225_600_000),
    };
    let Reply::Enrolled { users, .. } = ask(&store, enroll).await else {
        panic!("not enrolled");
    };
    assert_eq!(users.len(), USERS);
    store
}

/// Scripts that the server has run.
fn scripts(server: &RedisServer) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = calls.unwrap().split(',').next().unwrap();
    calls.parse().unwrap()
}

#[tokio::test]
async fn many_callers_share_scripts_and_each_hears_of_its_own_jobs() {
    let server = RedisServer::start(&RedisOptions::default());
    let store = set_up(&server).await;
    let before = scripts(&server);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..USERS {
        let store = Arc::clone(&store);
        // New, twice the same, one who is not enrolled, one of a source without users: by turns.
        let (command, expected) = match number % 4 {
            0 => (enqueue(source(), &[number]), enqueued(1, 0, 0)),
            1 => (enqueue(source(), &[number, number]), enqueued(1, 1, 0)),
            2 => (enqueue(source(), &[USERS, number]), enqueued(1, 0, 1)),
            _ => (enqueue(other_source(), &[number]), enqueued(0, 0, 1)),
        };
        callers.spawn(async move { (ask(&store, command).await, expected) });
    }
    while let Some(called) = callers.join_next().await {
        let (reply, expected) = called.unwrap();
        assert_eq!(reply, expected);
    }
    let took = scripts(&server) - before;
    assert!(took < 40, "{took} scripts for {USERS} callers");

    // The same again joins what is there.
    let mut again = tokio::task::JoinSet::new();
    for number in (0..USERS).step_by(4) {
        let store = Arc::clone(&store);
        again.spawn(async move { ask(&store, enqueue(source(), &[number])).await });
    }
    while let Some(called) = again.join_next().await {
        assert_eq!(called.unwrap(), enqueued(0, 1, 0));
    }
    let unknown = SourceName::new("nobody-knows").unwrap();
    let refused = ask(&store, enqueue(unknown, &[1])).await;
    assert!(matches!(refused, Reply::Refused { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_first_caller_without_patience_holds_up_nobody() {
    let server = RedisServer::start(&RedisOptions::default());
    let store = set_up(&server).await;
    server.pause();
    let first = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { ask(&store, enqueue(source(), &[0])).await })
    };
    let mut others = tokio::task::JoinSet::new();
    tokio::task::yield_now().await;
    for number in 1..100 {
        let store = Arc::clone(&store);
        others.spawn(async move { ask(&store, enqueue(source(), &[number])).await });
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    server.resume();
    while let Some(called) = others.join_next().await {
        assert_eq!(called.unwrap(), enqueued(1, 0, 0));
    }
    // A lone caller is the first again.
    assert_eq!(
        ask(&store, enqueue(source(), &[200])).await,
        enqueued(1, 0, 0)
    );
}

#[test]
fn a_runtime_that_ends_under_way_leaves_a_store_that_another_can_use() {
    let server = RedisServer::start(&RedisOptions::default());
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let one = runtime();
    let store = one.block_on(set_up(&server));
    server.pause();
    one.block_on(async {
        for number in 0..50 {
            let store = Arc::clone(&store);
            tokio::spawn(async move { ask(&store, enqueue(source(), &[number])).await });
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    });
    drop(one);
    server.resume();
    let reply = runtime().block_on(async {
        for _ in 0..TRIES {
            // The first finds that the connection went with its runtime.
            let asked = store.apply(enqueue(source(), &[300]));
            let asked = tokio::time::timeout(PATIENCE, asked).await;
            if let Ok(stamped) = asked.expect("nobody waits for ever") {
                return stamped.value;
            }
        }
        panic!("not enqueued");
    });
    assert_eq!(reply, enqueued(1, 0, 0));
}

#[tokio::test]
async fn whoever_asked_first_and_does_not_look_for_the_answer_holds_up_nobody() {
    let server = RedisServer::start(&RedisOptions::default());
    let store = set_up(&server).await;
    let mut first = std::pin::pin!(store.apply(enqueue(source(), &[0])));
    let looked = std::future::poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
    assert!(looked.is_pending(), "it is under way");
    for number in 1..4 {
        let reply = ask(&store, enqueue(source(), &[number])).await;
        assert_eq!(reply, enqueued(1, 0, 0), "user {number}");
    }
    // It may look for the answer long after others were the first in their turn.
    assert_eq!(first.await.unwrap().value, enqueued(1, 0, 0));
    assert_eq!(
        ask(&store, enqueue(source(), &[4])).await,
        enqueued(1, 0, 0)
    );
}
