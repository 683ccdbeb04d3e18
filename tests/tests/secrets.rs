//! One whole run with everything on and a secret in each place that takes one, users who are synced and users who fail: then all that
//! anybody can see of it is searched for every secret.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;

use kalends::clock::SystemClock;
use kalends_core::time::Clock as _;
use kalends_sim::google::{Fault, UserAccess};
use kalends_sim::neo4j;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::{ask, ask_api};
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{Process, kalends, status, wait_until};
use kalends_tests::redis_server::{RedisOptions, RedisServer, free_port};
use kalends_tests::shown::Shown;

const HTTP_TOKEN: &str = "planted-http-token-81c2";
const PUSH_KEY: &str = "planted-push-key-0123456789abcdef-4711";
const REDIS_PASSWORD: &str = "planted-redis-password-3d";
const GRAPH_PASSWORD: &str = "planted-graph-password-9b";
const SEALING_KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const NO_GRANT: &str = "planted-refresh-token-of-nobody";
const FORGED: &str = "planted-forged-channel-token";
/// No secret: it is searched for as they are, and has to be found.
const CONTROL: &str = "planted-control-word";
const STRANGER: &str = "stranger@example.com";

/// Wrong settings, each with a secret in it or beside it; what is said of them.
fn mistakes(good: &KalendsToml) -> String {
    let mut said = String::new();
    let cases: [(&'static str, &'static str, &str); 10] = [
        ("redis", "url", r#""redis://:planted-mistake@:x""#),
        ("redis", "url", r#""http://:planted-mistake@127.0.0.1""#),
        ("http", "token", r#""planted-mistake with blanks""#),
        ("push", "key", r#""planted-mistake""#),
        (
            "push",
            "address",
            r#""http://user:planted-mistake@example.com/x""#,
        ),
        (
            "graph",
            "url",
            r#""http://user:planted-mistake@graph.example.com""#,
        ),
        (
            "google",
            "token_url",
            r#""http://user:planted-mistake@example.com""#,
        ),
        ("google", "client_secret", r#"["planted-mistake"]"#),
        ("credentials", "keys", r#""planted-mistake""#),
        ("graph", "pasword", r#""planted-mistake""#),
    ];
    for (section, key, value) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut toml = good.clone().set(section, key, value);
        if (section, key) == ("credentials", "keys") {
            toml = toml.without("credentials", "keys_file");
        }
        toml.write(folder.path());
        for command in ["check", "show"] {
            let ended = kalends(folder.path(), &["config", command]);
            assert_eq!(ended.code, Some(2), "{section}.{key}: {}", ended.errors);
            assert!(
                ended.errors.contains(key),
                "{section}.{key}: {}",
                ended.errors
            );
            said.push_str(&ended.output);
            said.push_str(&ended.errors);
        }
    }
    said
}

/// The process's end of push: a change that is told, a forged notification; the secrets in the channels.
fn push(google: &GoogleServer, hook: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let sent = google.lock().emulator.notifications(SystemClock.now());
    assert!(!sent.is_empty(), "every new channel is greeted");
    for notification in sent {
        let lines: Vec<String> = notification
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let token = |(name, value): &(String, String)| {
            (name == "x-goog-channel-token").then(|| value.clone())
        };
        tokens.extend(notification.headers.iter().find_map(token));
        for forged in [false, true] {
            let lines: Vec<String> = lines
                .iter()
                .map(|line| match line.split_once(": ") {
                    Some(("x-goog-channel-token", _)) if forged => {
                        format!("x-goog-channel-token: {FORGED}")
                    }
                    _ => line.clone(),
                })
                .chain([format!("Host: {hook}")])
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let _ = ask(hook, "POST", "/google", &lines, "");
        }
    }
    tokens
}

#[test]
fn a_whole_run_shows_no_secret_to_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let google = GoogleServer::start(5, 6, 3);
    let accesses = google.users();
    let users: Vec<String> = accesses.iter().map(|one| one.email.clone()).collect();
    let redis = RedisServer::start(&RedisOptions::default().set("requirepass", REDIS_PASSWORD));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let start = Neo4jServer::start_with(GRAPH_PASSWORD, &["neo4j"], Default::default());
    let neo4j = runtime.block_on(start);
    let hook = format!("127.0.0.1:{}", free_port());
    std::fs::write(folder.join("keys"), SEALING_KEY).unwrap();
    let last = accesses.len() - 1;
    let configured = |toml: KalendsToml, access: &UserAccess| {
        toml.user(&access.email, &access.refresh_token, None)
    };
    let toml = accesses[..last]
        .iter()
        .fold(KalendsToml::new(&google.url), configured)
        .user(STRANGER, NO_GRANT, None)
        .set("log", "level", r#""trace""#)
        .set("retry", "attempts", "1")
        .set("http", "token", &format!("{HTTP_TOKEN:?}"))
        .set("push", "address", &format!("\"http://{hook}/google\""))
        .set("push", "listen", &format!("{hook:?}"))
        .set("push", "key", &format!("{PUSH_KEY:?}"))
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""secrets-test""#)
        .set("credentials", "keys_file", r#""keys""#)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", &format!("{GRAPH_PASSWORD:?}"))
        .set("record", "file", r#""journal""#);
    toml.write(folder);

    // Whoever fails: at Google, at the graph, at the door.
    let fault = Fault::Html { status: 503 };
    google
        .lock()
        .emulator
        .inject(Some(&users[0]), fault)
        .unwrap();
    google.lock().emulator.revoke(&users[1]).unwrap();
    let refused = neo4j::ServerError::new("Neo.ClientError.Security.Unauthorized", "planted words");
    neo4j.emulator().let_pass(20);
    neo4j.emulator().inject(neo4j::Fault::Refused(401, refused));
    let (mut process, address) = Process::serve(folder, &[]);
    process.wait_for_log("notifications of changes come in");
    let import = format!(
        "id,refresh_token\n{},{}\n",
        accesses[last].email, accesses[last].refresh_token
    );
    std::fs::write(folder.join("users.csv"), import).unwrap();
    let mut shown = Shown::default();
    let imported = kalends(folder, &["users", "import", "users.csv"]).done();
    shown.add("kalends users import", imported.output + &imported.errors);
    // A graph that lets nobody in stops all for minutes, unless somebody has mended it.
    wait_until("the graph's refusal", || {
        !status(folder)["sources"][0]["gate"].is_null()
    });
    let resumed = kalends(folder, &["resume"]).done();
    shown.add("kalends resume", resumed.output + &resumed.errors);
    // Whom it met waits for minutes all the same.
    let everybody_else = users.len() as u64;
    wait_until("everybody else's first end", || {
        let now = status(folder);
        now["completed_total"].as_u64().unwrap() + now["failed_total"].as_u64().unwrap()
            >= everybody_else
    });
    let channels = push(&google, &hook);
    assert!(!channels.is_empty());
    let killed = redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(killed.is_ok(), "{killed:?}");
    let body = format!(r#"{{"reason":"{CONTROL}"}}"#);
    // Whoever meets the cut connection is told so, and asks again.
    wait_until("a pause after the cut connections", || {
        ask_api(&address, HTTP_TOKEN, "POST", "/api/v1/pause", &body).0 == 200
    });
    wait_until("a ready process after the cut connections", || {
        ask_api(&address, HTTP_TOKEN, "GET", "/readyz", "").0 == 200
    });
    let (code, said) = ask_api(&address, "planted-wrong-token", "GET", "/api/v1/status", "");
    assert_eq!(code, 401, "{said}");
    shown.add("a wrong token", said);

    shown.add_answers(
        &address,
        HTTP_TOKEN,
        &[&users[..], &[STRANGER.to_owned()]].concat(),
    );
    shown.add_commands(folder, &users);
    shown.add("mistakes", mistakes(&toml));
    let ended = process.stop();
    shown.add("log", ended.errors + &ended.output);
    shown.add_files(folder, "journal");
    let replayed = kalends(folder, &["replay", "journal"]);
    shown.add("kalends replay", replayed.output + &replayed.errors);
    {
        let emulator = neo4j.emulator();
        let graph = emulator.graph("neo4j").unwrap();
        let nodes: Vec<_> = graph.nodes().collect();
        let ties: Vec<_> = graph.relationships().collect();
        shown.add("graph", format!("{nodes:?} {ties:?}"));
    }
    redis.configure("rdbcompression", "no");
    redis.command(&["SAVE"]).unwrap();
    let mut stored = Shown::default();
    stored.add_files(redis.folder(), "dump");

    let mut secrets: Vec<String> = [
        HTTP_TOKEN,
        PUSH_KEY,
        REDIS_PASSWORD,
        GRAPH_PASSWORD,
        SEALING_KEY,
        CLIENT_SECRET,
        NO_GRANT,
        FORGED,
        "planted-wrong-token",
        "planted-mistake",
        "ya29.",
        "refresh-0",
        // `neo4j:` and the password, as HTTP Basic sends them.
        "bmVvNGo6cGxhbnRlZC1ncmFwaC1wYXNzd29yZC05Yg",
    ]
    .map(str::to_owned)
    .to_vec();
    secrets.extend(accesses.iter().map(|access| access.refresh_token.clone()));
    shown.assert_nowhere(secrets.iter().chain(&channels));
    stored.assert_nowhere(&secrets);

    // The search finds what is there, at every kind of place.
    for place in [
        "log",
        "GET /api/v1/status",
        "events",
        "kalends status",
        "kalends status --json",
        "kalends limits",
    ] {
        assert!(
            shown.at(place).contains(CONTROL),
            "{place}: {}",
            shown.at(place)
        );
    }
    assert!(shown.places_of(CONTROL).len() >= 6);
    for (place, word) in [
        ("GET /metrics", "kalends_push_notifications_total"),
        ("GET /", "<html"),
        ("GET /api/v1/jobs?state=failed&limit=200", users[0].as_str()),
        ("GET /api/v1/users?needs_reauth=true", users[1].as_str()),
        ("graph", users[2].as_str()),
        ("journal", "anon-"),
        ("kalends replay", "anon-"),
        ("kalends doctor", "maxmemory-policy"),
        ("kalends config show", "***"),
        ("kalends users import", users[last].as_str()),
        ("mistakes", "graph.pasword"),
        ("a wrong token", "http.token"),
    ] {
        assert!(
            shown.at(place).contains(word),
            "{word} in {place}: {}",
            shown.at(place)
        );
    }
    assert_eq!(stored.places_of(&users[2]), ["dump.rdb"]);
    assert_nobody_else_was_told(folder);
}

/// What is not shown, but kept: files with secrets of their own are for their owner alone.
fn assert_nobody_else_was_told(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let key = folder.join("journal.key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{}: {mode:o}", key.display());
}
