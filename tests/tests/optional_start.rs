//! A process whose Redis is not there: it stays up, says what it waits for, ends in good order when asked, and begins when
//! the server comes. What only a person can put right ends the start.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use kalends::clock::SystemClock;
use kalends::emulate::face::FaceOptions;
use kalends_core::time::{Clock as _, Timestamp};
use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::{get, get_as};
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{Process, kalends, status, wait_until};
use kalends_tests::redis_server::{RedisOptions, RedisServer, free_port};
use serde_json::Value;

/// The password of every Redis here: nothing that is said may hold it.
const PASSWORD: &str = "planted-redis-password-3e9a";
/// In milliseconds, and longer than any test waits: whoever ends earlier did not wait for it.
const SHUTDOWN_MS: &str = "3600000";
/// Work begins within this time of the server's coming ...
const BEGINS: Duration = Duration::from_secs(5);
/// ... for which a store that is away must be asked at least this often, in milliseconds.
const RETRY_MS_MAX: u64 = 4_000;
/// So many outages are looked at: on a busy machine one of them may take longer to mend.
const OUTAGES: usize = 3;

/// Starts `kalends run` with its HTTP face on a free port; the process and the address.
fn run(folder: &Path, redis_url: Option<&str>) -> (Process, String) {
    let variables: Vec<(&str, &str)> = redis_url
        .map(|url| [("KALENDS_REDIS_URL", url), ("KALENDS_REDIS_PREFIX", "test")])
        .into_iter()
        .flatten()
        .collect();
    Process::serve(folder, &variables)
}

fn configuration(google: &GoogleServer, graph_url: &str) -> KalendsToml {
    KalendsToml::of(google)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{graph_url:?}"))
        .set("graph", "password", r#""kalends""#)
        .set("worker", "shutdown_ms", SHUTDOWN_MS)
}

#[test]
fn without_its_redis_a_process_stays_up_and_says_why_it_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    configuration(&google, "http://127.0.0.1:9").write(folder.path());
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", free_port());
    let (process, address) = run(folder.path(), Some(&url));

    wait_until("the store to be missed", || {
        get(&address, "/readyz").1["state"] == "store_away"
    });
    let (status, first) = get(&address, "/readyz");
    assert_eq!(status, 503, "{first}");
    assert_eq!(first["ready"], false, "{first}");
    let reason = first["reason"].as_str().unwrap();
    assert!(reason.starts_with("the store does not answer: "), "{first}");
    let (status, alive) = get(&address, "/healthz");
    assert_eq!((status, &alive["alive"]), (200, &serde_json::json!(true)));

    // It asks again, and it is still the same outage.
    wait_until("further attempts", || {
        let (_, later) = get(&address, "/readyz");
        assert_eq!(later["since"], first["since"], "{later}");
        later["retry_at"] != first["retry_at"]
    });
    let ended = process.stop();
    let lines = ended.errors.matches("the store does not answer").count();
    assert!((1..10).contains(&lines), "{lines} lines:\n{}", ended.errors);
    let said = format!("{}{}{first}", ended.output, ended.errors);
    assert!(!said.contains(PASSWORD), "{said}");
    assert!(google.lock().pages.is_empty());
    // The queue is elsewhere: nothing is kept here.
    assert!(!folder.path().join("kalends-data").exists());
}

#[test]
fn commands_that_need_the_queue_now_fail_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", free_port());
    configuration(&google, "http://127.0.0.1:9")
        .set("redis", "url", &format!("{url:?}"))
        .set("redis", "prefix", r#""test""#)
        .write(folder.path());
    let user = google.users().remove(0).email;
    for arguments in [&["status"][..], &["status", "--json"], &["sync", &user]] {
        let ended = kalends(folder.path(), arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.errors);
        assert_eq!(ended.output, "", "{arguments:?}");
        assert!(!ended.errors.contains(PASSWORD), "{}", ended.errors);
    }
    for arguments in [["config", "show"], ["config", "check"]] {
        let ended = kalends(folder.path(), &arguments).done();
        let said = format!("{}{}", ended.output, ended.errors);
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn with_its_own_file_a_process_is_ready_for_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    KalendsToml::of(&google).write(folder.path());
    let (mut process, address) = run(folder.path(), None);
    wait_until("ready", || get(&address, "/readyz").0 == 200);
    let (_, ready) = get(&address, "/readyz");
    assert_eq!(ready["ready"], true, "{ready}");
    assert_eq!(get_as("rebound.example", &address, "/readyz").0, 421);
    assert_eq!(get(&address, "/elsewhere").0, 404);
    process.wait_for_log("synced");

    // A second process finds the port taken before it touches anything.
    let second = tempfile::tempdir().unwrap();
    KalendsToml::of(&google).write(second.path());
    let refused = kalends(second.path(), &["run", "--http", &address]);
    assert_eq!(refused.code, Some(2), "{}", refused.errors);
    assert!(
        refused.errors.contains("http.listen: "),
        "{}",
        refused.errors
    );
    assert!(!second.path().join("kalends-data").exists());
    process.stop();
}

/// An emulated Neo4j, for as long as its runtime lives.
fn neo4j() -> (tokio::runtime::Runtime, Neo4jServer) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(Neo4jServer::start(&["neo4j"], FaceOptions::default()));
    (runtime, server)
}

/// A Redis that asks for the password and keeps what it acknowledged.
fn redis() -> RedisServer {
    RedisServer::start(
        &RedisOptions::default()
            .durable()
            .set("requirepass", PASSWORD),
    )
}

fn on_redis(google: &GoogleServer, neo4j: &Neo4jServer, redis: &RedisServer) -> KalendsToml {
    configuration(google, &neo4j.url)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""test""#)
}

fn time(of: &Value) -> Timestamp {
    Timestamp::parse_rfc3339(of.as_str().unwrap()).unwrap()
}

/// Waits until an outage has lasted so long that the interval between two attempts grows no more.
fn wait_for_the_longest_interval(address: &str) {
    wait_until("the longest interval", || {
        let (_, said) = get(address, "/readyz");
        if said["state"] != "store_away" {
            return false;
        }
        let (since, retry_at) = (time(&said["since"]), time(&said["retry_at"]));
        let latest = SystemClock.now().plus_ms(RETRY_MS_MAX);
        assert!(retry_at <= latest, "asked too seldom: {said}");
        retry_at.since_ms(since) > 3 * RETRY_MS_MAX
    });
}

#[test]
fn work_begins_within_five_seconds_of_the_servers_coming() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 3);
    let (_runtime, neo4j) = neo4j();
    let mut redis = redis();
    on_redis(&google, &neo4j, &redis).write(folder.path());
    redis.kill();
    let (mut process, address) = run(folder.path(), None);
    wait_for_the_longest_interval(&address);
    let (_, away) = get(&address, "/readyz");
    assert!(
        away["reason"]
            .as_str()
            .unwrap()
            .contains(&redis.port.to_string()),
        "{away}"
    );

    let mut waits = Vec::new();
    for _ in 0..OUTAGES {
        redis.restart();
        let begun = Instant::now();
        wait_until("ready", || get(&address, "/readyz").0 == 200);
        waits.push(begun.elapsed());
        if waits.iter().any(|wait| *wait < BEGINS) {
            break;
        }
        redis.kill();
        wait_for_the_longest_interval(&address);
    }
    assert!(waits.iter().any(|wait| *wait < BEGINS), "{waits:?}");
    process.wait_for_log("synced");
    wait_until("both syncs", || {
        status(folder.path())["completed_total"] == 2
    });
    let ended = process.stop();
    assert!(!ended.errors.contains(PASSWORD), "{}", ended.errors);
    let lines = ended.errors.matches("the store does not answer").count();
    assert!(lines < 10 * OUTAGES, "{lines} lines:\n{}", ended.errors);
}

#[test]
fn what_only_a_person_can_put_right_ends_the_start_and_is_told_later() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let (_runtime, neo4j) = neo4j();
    let redis = redis();
    let toml = on_redis(&google, &neo4j, &redis);
    toml.write(folder.path());

    let refused = |parts: &[&str]| {
        for arguments in [&["run"][..], &["sync", "user-00001@example.com"]] {
            let ended = kalends(folder.path(), arguments);
            assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.errors);
            for part in parts {
                assert!(ended.errors.contains(part), "{part}: {}", ended.errors);
            }
            assert!(!ended.errors.contains(PASSWORD), "{}", ended.errors);
            assert!(!ended.errors.contains("guessed"), "{}", ended.errors);
        }
    };
    redis.configure("maxmemory-policy", "allkeys-lru");
    refused(&["kalends: redis: ", "maxmemory-policy noeviction"]);
    redis.configure("maxmemory-policy", "noeviction");
    let wrong = format!("redis://:guessed@127.0.0.1:{}", redis.port);
    toml.clone()
        .set("redis", "url", &format!("{wrong:?}"))
        .write(folder.path());
    refused(&["kalends: redis: ", "password"]);

    toml.write(folder.path());
    let (process, address) = run(folder.path(), None);
    wait_until("ready", || get(&address, "/readyz").0 == 200);
    redis.configure("maxmemory-policy", "volatile-ttl");
    // Looked at anew when it connects anew.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_until("the refusal", || {
        let (status, said) = get(&address, "/readyz");
        let reason = said["reason"].as_str().unwrap_or_default();
        status == 503 && reason.contains("maxmemory-policy noeviction")
    });
    redis.configure("maxmemory-policy", "noeviction");
    wait_until("ready again", || get(&address, "/readyz").0 == 200);
    process.stop();
}

#[test]
fn a_sync_by_hand_and_status_work_beside_running_processes() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 3, 3);
    let (_runtime, neo4j) = neo4j();
    let redis = redis();
    on_redis(&google, &neo4j, &redis).write(folder.path());
    let users: Vec<String> = google.users().into_iter().map(|user| user.email).collect();
    // Alone, the command does it itself.
    let alone = kalends(folder.path(), &["sync", &users[0]]).done();
    assert!(
        alone.output.contains("3 events written"),
        "{}",
        alone.output
    );
    let processes = [run(folder.path(), None), run(folder.path(), None)];
    wait_until("first syncs", || {
        status(folder.path())["completed_total"] == 3
    });
    // Whoever takes the job, the command tells how it ended.
    for user in &users {
        let done = kalends(folder.path(), &["sync", user, "--json"]).done();
        assert_eq!(done.json()["requests"], 1, "{}", done.output);
        assert_eq!(done.json()["full"], false, "{}", done.output);
    }
    let state = status(folder.path());
    assert_eq!(state["completed_total"], 6, "{state}");

    google.lock().emulator.revoke(&users[0]).unwrap();
    let parked = kalends(folder.path(), &["sync", &users[0], "--json"]);
    assert_eq!(parked.code, Some(1), "{}", parked.errors);
    assert_eq!(parked.json()["parked"], true, "{}", parked.output);
    for (process, _) in processes {
        process.stop();
    }
    assert_eq!(status(folder.path())["active"], 0);
}

#[test]
fn who_left_the_configuration_is_forgotten_when_the_redis_comes() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 3);
    let (_runtime, neo4j) = neo4j();
    let mut redis = redis();
    on_redis(&google, &neo4j, &redis).write(folder.path());
    let (process, _) = run(folder.path(), None);
    wait_until("first syncs", || {
        status(folder.path())["completed_total"] == 2
    });
    process.stop();

    let users = || status(folder.path())["sources"][0]["users"].clone();
    let nobody = KalendsToml::new(&google.url)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", r#""kalends""#)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""test""#);
    let one = google.users().remove(0);
    nobody
        .clone()
        .user(&one.email, &one.refresh_token, None)
        .write(folder.path());
    redis.kill();
    let (mut process, _) = run(folder.path(), None);
    process.wait_for_log("the store is not there yet");
    redis.restart();
    process.wait_for_log("no longer configured");
    process.stop();
    assert_eq!(users(), 1);

    // One process without any users among many is rather a mistake than a wish.
    nobody.write(folder.path());
    let (mut process, _) = run(folder.path(), None);
    process.wait_for_log("those that the store knows stay");
    process.wait_for_log("ready");
    process.stop();
    assert_eq!(users(), 1);
}
