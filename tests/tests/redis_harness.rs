//! The harness for real Redis servers does what its names say: a fault test stands on it.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::time::{Duration, Instant};

use kalends_tests::process::wait_until;
use kalends_tests::redis_cluster::RedisCluster;
use kalends_tests::redis_server::{RedisOptions, RedisServer};
use kalends_tests::tcp_proxy::{TcpProxy, Traffic};

fn connect(url: &str) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open(url).unwrap();
    let connection = client.get_connection_with_timeout(Duration::from_secs(10))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(connection)
}

#[test]
fn a_durable_server_that_is_killed_comes_back_with_what_it_had() {
    let mut server = RedisServer::start(&RedisOptions::default().durable());
    server.cli(&["SET", "kept", "1"]);
    server.kill();
    assert!(server.command(&["PING"]).is_err());
    server.restart();
    assert_eq!(server.cli(&["GET", "kept"]), "1");
}

#[test]
fn a_server_that_keeps_nothing_comes_back_empty() {
    let mut server = RedisServer::start(&RedisOptions::default());
    server.cli(&["SET", "lost", "1"]);
    server.kill();
    server.restart();
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[test]
fn a_paused_server_answers_after_it_went_on() {
    let server = RedisServer::start(&RedisOptions::default());
    server.pause();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.cli(&["INCR", "n"]));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!asked.is_finished());
        server.resume();
        assert_eq!(asked.join().unwrap(), "1");
    });
}

#[test]
fn a_password_is_asked_for() {
    let server = RedisServer::start(&RedisOptions::default().set("requirepass", "planted"));
    server.cli(&["PING"]);
    let refused = connect(&format!("redis://:wrong@127.0.0.1:{}", server.port));
    assert!(refused.is_err());
}

#[test]
fn a_replica_follows_and_is_promoted() {
    let master = RedisServer::start(&RedisOptions::default().set("requirepass", "planted"));
    let replica = RedisServer::start(&RedisOptions::default());
    master.cli(&["SET", "a", "1"]);
    replica.follow(&master);
    assert_eq!(replica.cli(&["GET", "a"]), "1");
    assert!(replica.command(&["SET", "a", "2"]).is_err());
    replica.promote();
    replica.cli(&["SET", "a", "2"]);
}

#[test]
fn a_cluster_of_three_knows_who_owns_a_key() {
    let cluster = RedisCluster::start(3, &RedisOptions::default());
    assert_eq!(cluster.owner(), None);
    let stored = cluster
        .masters
        .iter()
        .filter(|master| master.command(&["SET", "{a}b", "1"]).is_ok())
        .count();
    assert_eq!(stored, 1);
    assert!(cluster.owner().is_some());
}

#[test]
fn a_reply_is_cut_after_its_command_was_applied() {
    let server = RedisServer::start(&RedisOptions::default());
    let proxy = TcpProxy::start(server.port);
    let mut connection = connect(&proxy.url()).unwrap();
    let increment = |connection: &mut redis::Connection| -> redis::RedisResult<i64> {
        redis::cmd("INCR").arg("n").query(connection)
    };
    assert_eq!(increment(&mut connection).unwrap(), 1);
    for bytes in [0, 1, 100] {
        proxy.cut_within_reply(1, bytes);
        let before = increment(&mut connection).unwrap();
        assert!(increment(&mut connection).is_err());
        assert!(!proxy.is_cut_pending());
        assert_eq!(server.cli(&["GET", "n"]), (before + 1).to_string());
        connection = connect(&proxy.url()).unwrap();
    }
    assert_eq!(proxy.cuts(), 3);
}

#[test]
fn a_proxy_is_slow_or_silent_or_refuses_or_leads_elsewhere() {
    let server = RedisServer::start(&RedisOptions::default().set("maxclients", "50"));
    let other = RedisServer::start(&RedisOptions::default());
    let proxy = TcpProxy::start(server.port);
    let get = |connection: &mut redis::Connection| -> redis::RedisResult<String> {
        redis::cmd("GET").arg("who").query(connection)
    };
    server.cli(&["SET", "who", "first"]);
    other.cli(&["SET", "who", "second"]);

    let mut connection = connect(&proxy.url()).unwrap();
    proxy.delay(Duration::from_millis(100));
    let begun = Instant::now();
    assert_eq!(get(&mut connection).unwrap(), "first");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    proxy.delay(Duration::ZERO);

    proxy.set_traffic(Traffic::Silent);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| get(&mut connection));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!asked.is_finished());
        proxy.set_traffic(Traffic::Flows);
        assert_eq!(asked.join().unwrap().unwrap(), "first");
    });

    proxy.set_traffic(Traffic::Refused);
    assert!(get(&mut connection).is_err());
    assert!(connect(&proxy.url()).and_then(|mut c| get(&mut c)).is_err());
    proxy.set_traffic(Traffic::Flows);

    let mut connection = connect(&proxy.url()).unwrap();
    proxy.lead_to(other.port);
    assert!(get(&mut connection).is_err());
    let mut connection = connect(&proxy.url()).unwrap();
    assert_eq!(get(&mut connection).unwrap(), "second");
    wait_until("the first server to be alone", || {
        server.info("connected_clients") == "1"
    });
}
