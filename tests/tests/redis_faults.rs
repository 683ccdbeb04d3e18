//! Faults of real Redis servers under load: killed, stopped, cut off, failed over, restarted in a Cluster, full, emptied.
//!
//! After each of them nothing that was acknowledged is lost (beyond what Redis itself lost in a failover), no job runs
//! under two live leases, each completion counts once, tokens only grow (all that is the ledger's to see), and work
//! goes on by itself within seconds.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::time::Duration;

use kalends_adapters::redis::Unusable;
use kalends_core::rng::{substream, uniform};
use kalends_core::time::Timestamp;
use kalends_tests::process::wait_until;
use kalends_tests::redis_cluster::RedisCluster;
use kalends_tests::redis_load::{Load, LoadOptions};
use kalends_tests::redis_server::{RedisOptions, RedisServer, store_at};
use kalends_tests::tcp_proxy::{TcpProxy, Traffic};

/// Completions before a fault, so that it meets a fleet at work.
const WARM: u64 = 60;
/// Completions after which work counts as resumed.
const RESUMED: u64 = 5;
/// Work resumes within 5 s of the server's return on a machine that has nothing else to do. Here other tests run on
/// the same cores, so more is allowed; how long it took is printed.
const RESUME_MAX: Duration = Duration::from_secs(15);

async fn load(url: &str, seed: u64) -> Load {
    let options = LoadOptions {
        seed,
        ..LoadOptions::default()
    };
    let load = Load::start(options, || store_at(url)).await;
    load.more_completions(WARM).await;
    load
}

/// Asserts that work has resumed: to be called right after the fault's end.
async fn assert_resumes(load: &Load) {
    let took = load.more_completions(RESUMED).await;
    println!("resumed within {} ms", took.as_millis());
    assert!(took < RESUME_MAX, "resumed only after {took:?}");
}

/// Waits until some commands failed, and gives what was said last.
async fn failures(load: &Load) -> String {
    let wanted = load.ledger().unanswered + 4;
    load.wait_for("failures", |ledger| ledger.unanswered >= wanted)
        .await;
    load.ledger().last_failure.clone()
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_restarted_has_lost_nothing_it_acknowledged() {
    const ROUNDS: u64 = 8;
    let mut server = RedisServer::start(&RedisOptions::default().durable());
    let load = load(&server.url(), 1).await;
    let mut rng = substream(1, "kills");
    for _ in 0..ROUNDS {
        load.more_completions(uniform(&mut rng, WARM)).await;
        server.kill();
        sleep_ms(uniform(&mut rng, 1_000)).await;
        server.restart();
        assert_resumes(&load).await;
    }
    let report = load.finish(None).await;
    assert!(report.ledger.unanswered >= ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_for_40_seconds_goes_on_where_it_was() {
    let server = RedisServer::start(&RedisOptions::default());
    let load = load(&server.url(), 2).await;
    server.pause();
    tokio::time::sleep(Duration::from_secs(40)).await;
    let completions = load.ledger().completions;
    assert!(load.ledger().unanswered > 0);
    server.resume();
    assert_resumes(&load).await;
    assert!(load.ledger().completions > completions);
    load.more_completions(WARM).await;
    load.finish(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_within_a_reply_has_its_command_count_once() {
    const CUTS: u64 = 80;
    let server = RedisServer::start(&RedisOptions::default());
    let proxy = TcpProxy::start(server.port);
    let load = load(&proxy.url(), 3).await;
    let mut rng = substream(3, "cuts");
    for _ in 0..CUTS {
        let replies = uniform(&mut rng, 12);
        let bytes = uniform(&mut rng, 60) as usize;
        proxy.cut_within_reply(replies, bytes);
        load.wait_for("the cut", |_| !proxy.is_cut_pending()).await;
        load.more_completions(1).await;
    }
    assert_resumes(&load).await;
    let report = load.finish(None).await;
    assert_eq!(proxy.cuts(), CUTS);
    // Commands whose reply was lost were met: ends that were told "before", and leases that were given again.
    assert!(report.ledger.done_before > 0, "{:?}", report.stats);
    assert!(report.ledger.given_again > 0, "{:?}", report.stats);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_slow_or_silent_loses_nothing() {
    let server = RedisServer::start(&RedisOptions::default());
    let proxy = TcpProxy::start(server.port);
    let load = load(&proxy.url(), 4).await;
    proxy.set_traffic(Traffic::Silent);
    sleep_ms(4_000).await;
    proxy.set_traffic(Traffic::Flows);
    assert_resumes(&load).await;
    proxy.delay(Duration::from_millis(200));
    load.more_completions(RESUMED).await;
    // Longer than the stores wait for an answer: every command is applied, and none is answered in time.
    proxy.delay(Duration::from_millis(1_500));
    failures(&load).await;
    proxy.delay(Duration::ZERO);
    assert_resumes(&load).await;
    proxy.set_traffic(Traffic::Refused);
    failures(&load).await;
    proxy.set_traffic(Traffic::Flows);
    assert_resumes(&load).await;
    load.finish(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_scripts_that_the_server_drops_are_made_anew() {
    let server = RedisServer::start(&RedisOptions::default());
    let load = load(&server.url(), 5).await;
    for _ in 0..10 {
        server.cli(&["SCRIPT", "FLUSH"]);
        load.more_completions(RESUMED).await;
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_resumes(&load).await;
    }
    load.finish(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_that_lagged_loses_the_tail_and_nothing_else() {
    let mut master = RedisServer::start(&RedisOptions::default());
    let replica = RedisServer::start(&RedisOptions::default());
    let replication = TcpProxy::start(master.port);
    let clients = TcpProxy::start(master.port);
    replica.follow_port(replication.port);
    let load = load(&clients.url(), 6).await;

    // All that was acknowledged until `kept_until` is in the replica; what comes later, more and more is not.
    let kept_until = master.time();
    let offset: u64 = master.info("master_repl_offset").parse().unwrap();
    wait_until("the replica to have all that", || {
        let has: u64 = replica.info("slave_repl_offset").parse().unwrap();
        has >= offset
    });
    replication.set_traffic(Traffic::Silent);
    load.more_completions(WARM).await;
    replication.set_traffic(Traffic::Refused);
    let in_master: u64 = master.info("master_repl_offset").parse().unwrap();
    let in_replica: u64 = replica.info("slave_repl_offset").parse().unwrap();
    assert!(in_replica < in_master, "the replica did not lag");
    master.kill();
    replica.promote();
    let lost_until = replica.time();
    clients.lead_to(replica.port);

    assert_resumes(&load).await;
    load.more_completions(WARM).await;
    load.finish(Some(kept_until.plus_ms(1)..=lost_until)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_becomes_a_replica_is_left_alone_until_it_is_a_master_again() {
    let server = RedisServer::start(&RedisOptions::default());
    let load = load(&server.url(), 7).await;
    // There is no such master: the server keeps what it has.
    let nobody = kalends_tests::redis_server::free_port();
    server.cli(&["REPLICAOF", "127.0.0.1", &nobody.to_string()]);
    let said = failures(&load).await;
    assert!(said.contains("replica"), "{said}");
    server.promote();
    assert_resumes(&load).await;
    load.finish(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_queue_in_one_slot_whose_master_may_restart() {
    let options = RedisOptions::default()
        .durable()
        .set("cluster-require-full-coverage", "no");
    let mut cluster = RedisCluster::start(3, &options);
    let load = load(&cluster.url(), 8).await;
    let owner = cluster.owner().unwrap();

    cluster.masters[owner].kill();
    failures(&load).await;
    cluster.masters[owner].restart();
    cluster.wait_until_whole();
    assert_resumes(&load).await;

    // The others do not matter.
    let other = (owner + 1) % cluster.masters.len();
    cluster.masters[other].kill();
    load.more_completions(WARM).await;
    cluster.masters[other].restart();
    cluster.wait_until_whole();
    load.more_completions(WARM).await;
    load.finish(None).await;
    assert_eq!(cluster.owner(), Some(owner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_clearly_and_work_resumes_when_it_has_room() {
    let server = RedisServer::start(&RedisOptions::default());
    let load = load(&server.url(), 9).await;
    for _ in 0..3 {
        server.configure("maxmemory", "1mb");
        let said = failures(&load).await;
        assert!(said.contains("maxmemory"), "{said}");
        server.configure("maxmemory", "0");
        assert_resumes(&load).await;
    }
    load.finish(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_its_data_is_away_until_it_has() {
    let mut server = RedisServer::start(&RedisOptions::default().durable());
    server.cli(&[
        "EVAL",
        "for i = 1, 5000 do redis.call('SET', 'other:' .. i, 'x') end",
        "0",
    ]);
    // Into one file of all keys: while such a one is read, and no log of commands, Redis answers.
    server.cli(&["BGREWRITEAOF"]);
    wait_until("the rewrite", || {
        server
            .log()
            .contains("Background AOF rewrite finished successfully")
    });
    let load = load(&server.url(), 10).await;
    // Redis has both for tests like this one: how long a key takes, in microseconds, and how often it answers meanwhile.
    server.set_for_next_life("key-load-delay", "1000");
    server.set_for_next_life("loading-process-events-interval-bytes", "1024");
    server.kill();
    server.restart_loading();
    let checked = store_at(&server.url()).check().await;
    let Err(Unusable::Away { detail }) = checked else {
        panic!("{checked:?}");
    };
    assert!(detail.contains("loading"), "{detail}");
    assert!(failures(&load).await.contains("loading"));
    server.wait_until_ready();
    assert_resumes(&load).await;
    load.finish(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_emptied_under_way_begins_anew() {
    const ROUNDS: u64 = 5;
    let server = RedisServer::start(&RedisOptions::default());
    let load = load(&server.url(), 11).await;
    for _ in 0..ROUNDS {
        server.cli(&["FLUSHALL"]);
        assert_resumes(&load).await;
        load.more_completions(WARM).await;
    }
    server.cli(&["FLUSHALL"]);
    let emptied_at = server.time();
    assert_resumes(&load).await;
    load.more_completions(WARM).await;
    let report = load
        .finish(Some(Timestamp::from_ms(i64::MIN)..=emptied_at))
        .await;
    assert!(report.ledger.forgotten > ROUNDS);
}
