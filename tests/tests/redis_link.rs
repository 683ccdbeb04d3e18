//! The link to Redis, against real servers that restart, hang, refuse, evict, fail over and forget.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kalends_adapters::redis::RedisSettings;
use kalends_adapters::redis::link::{CallError, Link, Wake};
use kalends_adapters::secret::Secret;
use kalends_tests::process::{PATIENCE, wait_until};
use kalends_tests::redis_cluster::RedisCluster;
use kalends_tests::redis_server::{RedisOptions, RedisServer, free_port};
use redis::{Script, Value};

/// Long enough for a busy machine, for answers that are expected.
const LONG_MS: u64 = 30_000;
/// Short, for answers that are expected not to come.
const SHORT_MS: u64 = 500;

const SECRET: &str = "hunter2";

fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: Secret::new(url),
        prefix: "link".to_owned(),
        ca_file: None,
        connect_timeout_ms: LONG_MS,
        response_timeout_ms: LONG_MS,
    }
}

fn link_to(url: &str) -> Link {
    Link::new(&settings(url)).expect("the address is well formed")
}

fn impatient_link_to(url: &str) -> Link {
    Link::new(&RedisSettings {
        connect_timeout_ms: SHORT_MS,
        response_timeout_ms: SHORT_MS,
        ..settings(url)
    })
    .expect("the address is well formed")
}

/// Counts in the key `{link}:count`, and gives the count.
async fn count(link: &Link) -> Result<i64, CallError> {
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    match link.call(&script, &["{link}:count"], &[b"1"]).await? {
        Value::Int(count) => Ok(count),
        other => panic!("INCRBY answers a number, not {other:?}"),
    }
}

/// Asks until the answer is good: the last good answer, and the failures before it.
async fn eventually<T, Asked: Future<Output = Result<T, CallError>>>(
    what: &str,
    mut ask: impl FnMut() -> Asked,
) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(
                begun.elapsed() < PATIENCE,
                "waited in vain for {what}: {error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn refused(outcome: Result<impl std::fmt::Debug, CallError>) -> String {
    let error = outcome.expect_err("it must be refused");
    assert!(error.is_refusal, "an operator must act: {error}");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    error.detail
}

fn away(outcome: Result<impl std::fmt::Debug, CallError>) -> String {
    let error = outcome.expect_err("it must fail");
    assert!(!error.is_refusal, "it may pass: {error}");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    error.detail
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_made_while_nothing_listens_and_works_as_soon_as_something_does() {
    let mut server = RedisServer::start(&RedisOptions::default());
    server.kill();
    let link = link_to(&server.url());
    let detail = away(link.check().await);
    assert!(detail.contains("nothing listens at 127.0.0.1:"), "{detail}");
    away(count(&link).await);
    server.restart();
    assert_eq!(count(&link).await, Ok(1));
    assert_eq!(link.check().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_found_again_at_the_next_call() {
    let mut server = RedisServer::start(&RedisOptions::default().durable());
    let link = link_to(&server.url());
    assert_eq!(count(&link).await, Ok(1));
    server.kill();
    away(count(&link).await);
    server.restart();
    assert_eq!(count(&link).await, Ok(2));
    // A restart that no call saw: at most the one call that meets the dead connection pays for it.
    server.kill();
    server.restart();
    let next = match count(&link).await {
        Ok(count) => count,
        Err(_) => count(&link).await.expect("the connection is made anew"),
    };
    assert_eq!(next, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_runs_into_the_timeout_and_is_used_again_when_it_goes_on() {
    let server = RedisServer::start(&RedisOptions::default());
    let link = impatient_link_to(&server.url());
    eventually("the first answer", || count(&link)).await;
    server.pause();
    for _ in 0..2 {
        let detail = away(in_time("the timeout", count(&link)).await);
        assert!(detail.contains("does not answer in time"), "{detail}");
    }
    server.resume();
    eventually("an answer after the pause", || count(&link)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_patience_does_not_leave_a_dead_connection_to_the_others() {
    let server = RedisServer::start(&RedisOptions::default());
    // The link itself would wait for half a minute.
    let link = link_to(&server.url());
    assert_eq!(count(&link).await, Ok(1));
    let connected_before: u64 = server
        .info("total_connections_received")
        .parse()
        .expect("a number");
    server.pause();
    let gave_up = tokio::time::timeout(Duration::from_secs(3), count(&link)).await;
    assert!(gave_up.is_err());
    server.resume();
    let after = count(&link).await.expect("the server goes on");
    assert!(after >= 2);
    let connected: u64 = server
        .info("total_connections_received")
        .parse()
        .expect("a number");
    // One is the link's new one, one that of the question.
    assert!(
        connected >= connected_before + 2,
        "{connected_before} {connected}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_share_one_connection() {
    let server = RedisServer::start(&RedisOptions::default());
    let link = Arc::new(link_to(&server.url()));
    let before: u64 = server
        .info("total_connections_received")
        .parse()
        .expect("a number");
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let link = Arc::clone(&link);
            tokio::spawn(async move { count(&link).await.expect("the server is there") })
        })
        .collect();
    let mut counts = Vec::new();
    for call in calls {
        counts.push(call.await.expect("no call panics"));
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=200).collect::<Vec<_>>());
    let after: u64 = server
        .info("total_connections_received")
        .parse()
        .expect("a number");
    assert_eq!(
        after - before,
        2,
        "the link's own, and that of the question"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_users_and_databases_are_told_and_never_shown() {
    let server = RedisServer::start(&RedisOptions::default().set("requirepass", SECRET));
    let port = server.port;
    let none = link_to(&format!("redis://127.0.0.1:{port}"));
    let detail = refused(count(&none).await);
    assert!(detail.contains("wants a password"), "{detail}");
    let wrong = link_to(&format!("redis://:x{SECRET}@127.0.0.1:{port}"));
    let detail = refused(wrong.check().await);
    assert!(detail.contains("refuses user and password"), "{detail}");
    assert!(!format!("{wrong:?}").contains(SECRET), "{wrong:?}");

    server.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        &format!(">{SECRET}"),
        "~{link}:*",
        "&{link}:*",
        "+@all",
        "-@dangerous",
    ]);
    let app = link_to(&format!("redis://app:{SECRET}@127.0.0.1:{port}/3"));
    assert_eq!(
        app.check().await,
        Ok(()),
        "who may not ask for INFO is let through"
    );
    assert_eq!(count(&app).await, Ok(1));
    assert_eq!(server.info("db3").split(',').next(), Some("keys=2"));
    server.cli(&["ACL", "SETUSER", "app", "-evalsha"]);
    let detail = refused(count(&app).await);
    assert!(detail.contains("NOPERM"), "{detail}");
    server.cli(&["ACL", "SETUSER", "app", "+evalsha"]);
    assert_eq!(count(&app).await, Ok(2));

    let no_such = link_to(&format!("redis://:{SECRET}@127.0.0.1:{port}/999"));
    let error = no_such.check().await.expect_err("Redis has 16 databases");
    assert!(error.detail.contains("database"), "{error}");
    assert!(error.detail.contains("/999"), "{error}");
    assert!(error.is_refusal, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_way_in() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let socket = folder.path().join("redis.sock");
    let socket = socket.to_str().expect("the path is UTF-8");
    let server = RedisServer::start(&RedisOptions::default().set("unixsocket", socket));
    let link = link_to(&format!("unix://{socket}?db=1"));
    assert_eq!(count(&link).await, Ok(1));
    assert!(server.info("db1").starts_with("keys=2"));
    let nowhere = link_to(&format!("unix://{socket}.not"));
    let detail = away(nowhere.check().await);
    assert!(detail.contains("there is no"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_evicts_is_refused_until_it_does_not() {
    let server =
        RedisServer::start(&RedisOptions::default().set("maxmemory-policy", "allkeys-lru"));
    let link = link_to(&server.url());
    for outcome in [link.check().await, count(&link).await.map(drop)] {
        let detail = refused(outcome);
        assert!(detail.contains("maxmemory-policy allkeys-lru"), "{detail}");
        assert!(
            detail.contains("set `maxmemory-policy noeviction`"),
            "{detail}"
        );
    }
    server.configure("maxmemory-policy", "noeviction");
    assert_eq!(count(&link).await, Ok(1));
    // Changed behind our back: the next check sees it, and so does every call after.
    server.configure("maxmemory-policy", "volatile-ttl");
    refused(link.check().await);
    refused(count(&link).await);
    server.configure("maxmemory-policy", "noeviction");
    assert_eq!(count(&link).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_says_so_and_goes_on_when_there_is_some() {
    let server = RedisServer::start(&RedisOptions::default());
    let link = link_to(&server.url());
    assert_eq!(count(&link).await, Ok(1));
    server.configure("maxmemory", "1");
    let error = count(&link).await.expect_err("there is no memory");
    assert_eq!(error.code.as_deref(), Some("OOM"));
    assert!(error.detail.contains("raise `maxmemory`"), "{error}");
    server.configure("maxmemory", "0");
    assert_eq!(count(&link).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_refused_and_a_master_that_becomes_one_is_left() {
    let master = RedisServer::start(&RedisOptions::default());
    let replica = RedisServer::start(&RedisOptions::default());
    let link = link_to(&replica.url());
    assert_eq!(count(&link).await, Ok(1));
    replica.follow(&master);
    // The first call meets it on the living connection, the second at the check of a new one.
    for _ in 0..2 {
        let detail = refused(count(&link).await);
        assert!(detail.contains("is a replica"), "{detail}");
        assert!(detail.contains("give the master's address"), "{detail}");
    }
    replica.promote();
    assert_eq!(count(&link).await, Ok(1), "it has the other's data now");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_version_are_left_alone() {
    let server = RedisServer::start(&RedisOptions::default());
    server.cli(&["SET", "{link}:format", "kalends 99"]);
    let link = link_to(&server.url());
    let detail = refused(count(&link).await);
    assert!(detail.contains("another version"), "{detail}");
    assert_eq!(server.cli(&["KEYS", "*"]), "{link}:format");
    server.cli(&["DEL", "{link}:format"]);
    server.cli(&["LPUSH", "{link}:format", "x"]);
    let detail = refused(count(&link).await);
    assert!(detail.contains("another prefix"), "{detail}");
    server.cli(&["DEL", "{link}:format"]);
    assert_eq!(count(&link).await, Ok(1));
    assert_eq!(server.cli(&["GET", "{link}:format"]), "kalends 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = RedisServer::start(&RedisOptions::default());
    let link = link_to(&server.url());
    for expected in 1..=3 {
        assert_eq!(count(&link).await, Ok(expected));
        server.cli(&["SCRIPT", "FLUSH"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_answers_an_error_gives_its_code() {
    let server = RedisServer::start(&RedisOptions::default());
    let link = link_to(&server.url());
    let script = Script::new("return redis.error_reply('KALENDS that was odd')");
    let error = link
        .call(&script, &["{link}:count"], &[])
        .await
        .expect_err("the script says so");
    assert_eq!(error.code.as_deref(), Some("KALENDS"));
    assert!(error.detail.contains("that was odd"), "{error}");
    assert_eq!(count(&link).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_whom_the_given_authority_signed() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let file = |name: &str| folder.path().join(name).display().to_string();
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    );
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=server -addext subjectAltName=IP:127.0.0.1 \
         -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem",
    );
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem",
    );
    let tls_port = free_port();
    let server = RedisServer::start(
        &RedisOptions::default()
            .set("tls-port", &tls_port.to_string())
            .set("tls-cert-file", &file("server.pem"))
            .set("tls-key-file", &file("server.key"))
            .set("tls-ca-cert-file", &file("ca.pem"))
            .set("tls-auth-clients", "no"),
    );
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let trusting = |name: Option<&str>| {
        Link::new(&RedisSettings {
            ca_file: name.map(|name| PathBuf::from(file(name))),
            ..settings(&url)
        })
        .expect("the address is well formed")
    };
    let link = trusting(Some("ca.pem"));
    assert_eq!(count(&link).await, Ok(1));
    assert!(server.cli(&["GET", "{link}:count"]).contains('1'));
    for name in [None, Some("other.pem")] {
        let detail = refused(count(&trusting(name)).await);
        assert!(detail.contains("certificate"), "{detail}");
    }
    let detail = refused(count(&trusting(Some("none.pem"))).await);
    assert!(
        detail.contains("none.pem") && detail.contains("cannot be used"),
        "{detail}"
    );
    // TLS spoken to a port without it must not hang, nor pass.
    let plain = Link::new(&RedisSettings {
        ca_file: Some(PathBuf::from(file("ca.pem"))),
        ..settings(&format!("rediss://127.0.0.1:{}", server.port))
    })
    .expect("the address is well formed");
    in_time("a refusal", count(&plain))
        .await
        .expect_err("that is no TLS port");
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_sentinel_is_followed() {
    let options = RedisOptions::default()
        .set("requirepass", SECRET)
        .set("masterauth", SECRET);
    let mut master = RedisServer::start(&options);
    let replica = RedisServer::start(&options);
    replica.follow(&master);
    let sentinel = Sentinel::start(&master);
    wait_until("the sentinel to know the replica", || {
        sentinel
            .ask("SENTINEL REPLICAS main")
            .contains(&replica.port.to_string())
    });
    let dead = free_port();
    let link = link_to(&format!(
        "redis+sentinel://:{SECRET}@127.0.0.1:{dead},127.0.0.1:{}/main",
        sentinel.port
    ));
    let wake = Arc::new(link.wake());
    assert_eq!(count(&link).await, Ok(1));
    in_time("the listener", wake.wait()).await;

    let unknown = link_to(&format!(
        "redis+sentinel://127.0.0.1:{}/other",
        sentinel.port
    ));
    let detail = refused(count(&unknown).await);
    assert!(detail.contains("correct the service name"), "{detail}");
    let not_said = link_to(&format!("redis://127.0.0.1:{}", sentinel.port));
    let detail = refused(count(&not_said).await);
    assert!(detail.contains("redis+sentinel://"), "{detail}");

    master.kill();
    eventually("the new master", || count(&link)).await;
    assert!(!replica.cli(&["GET", "{link}:count"]).is_empty());
    assert_eq!(replica.info("role"), "master");
    publish_until_heard(&replica, &wake).await;
}

/// A `redis-server --sentinel` that alone decides.
struct Sentinel {
    port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start(master: &RedisServer) -> Sentinel {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let port = free_port();
        let configuration = folder.path().join("sentinel.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel auth-pass main {SECRET}\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 10000\n",
            folder.path().display(),
            master.port
        );
        std::fs::write(&configuration, text).expect("a temporary folder can be written");
        let child = Command::new("redis-server")
            .arg(&configuration)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let sentinel = Sentinel {
            port,
            child,
            _folder: folder,
        };
        wait_until("the sentinel", || sentinel.ask("PING").contains("PONG"));
        sentinel
    }

    fn ask(&self, words: &str) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words.split(' '))
            .output()
            .expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Both fail only if it has ended and was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_the_keys_are_found_from_every_node_and_followed_when_they_move() {
    let cluster = RedisCluster::start(3, &RedisOptions::default());
    let mut expected = 0;
    for seed in &cluster.masters {
        let link = link_to(&format!("redis+cluster://127.0.0.1:{}", seed.port));
        expected += 1;
        assert_eq!(count(&link).await, Ok(expected));
    }
    let link = link_to(&cluster.url());
    let wake = link.wake();
    assert_eq!(count(&link).await, Ok(expected + 1));
    in_time("the listener", wake.wait()).await;
    let owner = cluster.owner().expect("there are keys");
    let other = (owner + 1) % cluster.masters.len();
    publish_until_heard(&cluster.masters[other], &wake).await;

    let alone = link_to(&format!(
        "redis://127.0.0.1:{}",
        cluster.masters[owner].port
    ));
    let detail = refused(count(&alone).await);
    assert!(detail.contains("redis+cluster://"), "{detail}");

    // The whole slot is given to another node.
    let (from, to) = (&cluster.masters[owner], &cluster.masters[other]);
    let slot = from.cli(&["CLUSTER", "KEYSLOT", "{link}:count"]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    for key in ["{link}:count", "{link}:format"] {
        from.cli(&[
            "MIGRATE",
            "127.0.0.1",
            &to.port.to_string(),
            key,
            "0",
            "30000",
        ]);
    }
    for node in [to, from] {
        node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    let detail = away(count(&link).await);
    assert!(detail.contains("moving"), "{detail}");
    let next = eventually("the new owner", || count(&link)).await;
    assert_eq!(next, expected + 2);
    assert_eq!(to.cli(&["GET", "{link}:count"]), next.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_up_arrives_also_after_the_listener_was_cut_off() {
    let mut server = RedisServer::start(&RedisOptions::default());
    let link = link_to(&server.url());
    let wake = link.wake();
    in_time("the listener", wake.wait()).await;
    publish_until_heard(&server, &wake).await;
    // Each time it comes to listen again, it wakes by itself: something may have been missed.
    assert_eq!(server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]), "1");
    in_time("the listener after CLIENT KILL", wake.wait()).await;
    assert_eq!(
        server.cli(&["PUBLISH", "{link}:wake", ""]),
        "1",
        "it listens when it says so"
    );
    in_time("the message", wake.wait()).await;
    server.kill();
    server.restart();
    in_time("the listener after a restart", wake.wait()).await;
    publish_until_heard(&server, &wake).await;
    drop(wake);
    wait_until("the listener to leave", || {
        server.cli(&["PUBLISH", "{link}:wake", ""]) == "0"
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_server_hangs_dials_again() {
    let server = RedisServer::start(&RedisOptions::default());
    let link = impatient_link_to(&server.url());
    let wake = link.wake();
    in_time("the listener", wake.wait()).await;
    // Nothing is closed, nothing is answered: only its own PING can tell. On a busy machine it may come too late for one
    // pause. Nobody publishes, so that it wakes means that it dialled again.
    let begun = Instant::now();
    loop {
        server.pause();
        let in_the_pause = tokio::time::timeout(Duration::from_secs(7), wake.wait()).await;
        server.resume();
        let after = tokio::time::timeout(Duration::from_secs(4), wake.wait()).await;
        if in_the_pause.is_ok() || after.is_ok() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it never dialled again");
    }
}

/// Publishes until somebody listens, and waits for the wake-up.
async fn publish_until_heard(server: &RedisServer, wake: &Wake) {
    let waiting = async {
        // The listener may just be dialling, and may have woken for that already.
        loop {
            tokio::select! {
                () = wake.wait() => break,
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    server.cli(&["PUBLISH", "{link}:wake", ""]);
                }
            }
        }
    };
    in_time("a wake-up", waiting).await;
}
