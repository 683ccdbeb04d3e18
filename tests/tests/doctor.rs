//! `kalends doctor` finds each fault, says what to do, and tells no secret.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;

use kalends::clock::SystemClock;
use kalends_adapters::neo4j::Databases;
use kalends_adapters::redis::{RedisSettings, RedisStore};
use kalends_adapters::secret::Secret;
use kalends_core::graph::cypher::ENSURE_SCHEMA;
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Graph as _;
use kalends_core::queue::command::LeaseToken;
use kalends_core::time::Clock as _;
use kalends_sim::google::{GoogleSettings, OauthClient};
use kalends_sim::neo4j::{Fault, ServerError};
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{Process, kalends, wait_until};
use kalends_tests::redis_server::{RedisOptions, RedisServer, free_port};
use serde_json::Value;

const KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const PASSWORD: &str = "planted-graph-password";

/// The exit code, and the findings of `room` as `verdict: what; remedy`.
fn examined(folder: &Path, room: &str) -> (Option<i32>, Vec<String>) {
    let ended = kalends(folder, &["doctor", "--json"]);
    let said = format!("{}{}", ended.output, ended.errors);
    for secret in [CLIENT_SECRET, KEY, PASSWORD, "refresh-0", "ya29."] {
        assert!(!said.contains(secret), "{secret} in:\n{said}");
    }
    let body = ended.json();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let findings = body["findings"].as_array().unwrap().iter();
    let findings = findings
        .filter(|finding| finding["room"] == room)
        .map(|finding| {
            let (verdict, what) = (text(finding, "verdict"), text(finding, "what"));
            format!("{verdict}: {what}; {}", text(finding, "remedy"))
        });
    (ended.code, findings.collect())
}

fn assert_has(findings: &[String], parts: &[&str]) {
    let has = |finding: &&String| parts.iter().all(|part| finding.contains(part));
    assert!(
        findings.iter().any(|finding| has(&finding)),
        "{parts:?} in {findings:#?}"
    );
}

#[test]
fn a_healthy_installation_is_found_healthy_running_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 1);
    KalendsToml::of(&google).write(folder.path());
    let (code, findings) = examined(folder.path(), "store");
    assert_eq!(code, Some(0));
    assert_has(&findings, &["ok: ", "no store yet"]);
    assert!(
        !folder.path().join("kalends-data").exists(),
        "looking makes nothing"
    );
    let (_, findings) = examined(folder.path(), "google");
    assert_has(&findings, &["ok: ", "a token was given"]);
    assert_has(&findings, &["ok: ", "can be listed"]);

    let process = Process::start(folder.path(), &["run"]);
    wait_until("a store", || {
        folder.path().join("kalends-data/kalends.db").exists()
    });
    let (code, findings) = examined(folder.path(), "store");
    assert_eq!(code, Some(0), "{findings:?}");
    assert_has(&findings, &["ok: ", "a process is running on it"]);
    process.stop();
    let words = kalends(folder.path(), &["doctor"]).done();
    assert!(words.output.contains("\n0 wrong, "), "{}", words.output);
}

#[test]
fn faults_at_google_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = GoogleSettings::new(1, 2, 1, SystemClock.now());
    settings.client = Some(OauthClient {
        id: "planted-client".to_owned(),
        secret: CLIENT_SECRET.to_owned(),
    });
    let google = GoogleServer::start_with(settings);
    let nobody = KalendsToml::new(&google.url);
    nobody.write(folder.path());
    let (code, findings) = examined(folder.path(), "google");
    assert_eq!(code, Some(0), "{findings:?}");
    assert_has(&findings, &["ok: the OAuth client is known"]);
    assert_has(&findings, &["warning: ", "kalends users connect"]);

    let unknown = r#""another-client""#;
    nobody
        .clone()
        .set("google", "client_id", unknown)
        .write(folder.path());
    let (code, findings) = examined(folder.path(), "google");
    assert_eq!(code, Some(1));
    assert_has(
        &findings,
        &["wrong: ", "check the client id and the client secret"],
    );

    // One user's grant is gone, another's is good: that is no fault of the installation.
    KalendsToml::of(&google).write(folder.path());
    let users = google.users();
    google.lock().emulator.revoke(&users[0].email).unwrap();
    let (code, findings) = examined(folder.path(), "google");
    assert_eq!(code, Some(0), "{findings:?}");
    assert_has(
        &findings,
        &["warning: ", &users[0].email, "connect the user again"],
    );
    assert_has(&findings, &["ok: ", &users[1].email]);
    google.lock().emulator.revoke(&users[1].email).unwrap();
    let (code, findings) = examined(folder.path(), "google");
    assert_eq!(code, Some(1));
    assert_has(&findings, &["wrong: none of the users", "seven days"]);

    let nowhere = format!("\"http://127.0.0.1:{}/token\"", free_port());
    nobody
        .set("google", "token_url", &nowhere)
        .write(folder.path());
    let (code, findings) = examined(folder.path(), "google");
    assert_eq!(code, Some(1));
    assert_has(
        &findings,
        &["wrong: ", "cannot be reached", "google.token_url"],
    );
}

#[test]
fn redis_and_neo4j_are_looked_at_with_their_versions() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    let redis = RedisServer::start(&RedisOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let start = Neo4jServer::start_with(PASSWORD, &["neo4j"], Default::default());
    let neo4j = runtime.block_on(start);
    let toml = KalendsToml::of(&google)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""doctor-test""#)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", &format!("{PASSWORD:?}"));
    toml.write(folder.path());
    let (code, findings) = examined(folder.path(), "store");
    assert_eq!(code, Some(0), "{findings:?}");
    assert_has(&findings, &["ok: Redis ", "prefix doctor-test"]);
    assert_has(&findings, &["ok: maxmemory-policy is noeviction"]);
    assert_has(&findings, &["ok: the clock of Redis is "]);
    assert_has(&findings, &["warning: ", "no append-only file"]);
    assert_eq!(redis.cli(&["KEYS", "*"]), "", "looking leaves nothing");
    let (_, findings) = examined(folder.path(), "graph");
    assert_has(&findings, &["ok: ", "emulator of Neo4j", "database neo4j"]);
    assert_has(&findings, &["ok: the constraints and indexes are there"]);
    assert_has(&findings, &["ok: that node was removed"]);
    {
        let emulator = neo4j.emulator();
        let graph = emulator.graph("neo4j").unwrap();
        // But for the number that keeps removals from being undone.
        let left = graph.nodes().map(|(_, node)| node.label.as_str());
        assert_eq!(left.collect::<Vec<_>>(), ["KalendsRemoval"]);
    }
    // Where somebody was removed, looking holds up nobody's first write.
    let client = neo4j.client(PASSWORD, Databases::Shared("neo4j".to_owned()));
    let gone = UserId::new("gone@example.com").unwrap();
    let removed = runtime.block_on(client.remove_user(&gone, LeaseToken(5_000)));
    assert_eq!(removed, Ok(false));
    let (code, findings) = examined(folder.path(), "graph");
    assert_eq!(code, Some(0), "{findings:?}");
    assert_has(&findings, &["ok: ", "a node was written and taken back"]);
    let new = GraphWrite::RemoveCalendar {
        user: UserId::new("new@example.com").unwrap(),
        fence: LeaseToken(5_001),
        calendar: CalendarId::new("none").unwrap(),
    };
    let written = runtime.block_on(client.write(new)).unwrap();
    assert!(matches!(written, GraphReply::Written(_)), "{written:?}");

    redis.configure("maxmemory-policy", "allkeys-lru");
    let (code, findings) = examined(folder.path(), "store");
    assert_eq!(code, Some(1));
    assert_has(&findings, &["wrong: ", "allkeys-lru", "noeviction"]);
    redis.configure("maxmemory-policy", "noeviction");

    // One fault hides no other.
    toml.clone()
        .set("graph", "password", r#""wrong""#)
        .set(
            "redis",
            "url",
            &format!("\"redis://127.0.0.1:{}\"", free_port()),
        )
        .write(folder.path());
    let (code, findings) = examined(folder.path(), "store");
    assert_eq!(code, Some(1));
    assert_has(&findings, &["wrong: ", "start that Redis"]);
    let (_, findings) = examined(folder.path(), "graph");
    assert_has(&findings, &["wrong: ", "password"]);
    let (_, findings) = examined(folder.path(), "google");
    assert_has(&findings, &["ok: ", "a token was given"]);
}

#[test]
fn faults_of_neo4j_are_told_apart_each_with_what_to_do() {
    const FORBIDDEN: &str = "Neo.ClientError.Security.Forbidden";
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let start = Neo4jServer::start_with(PASSWORD, &["neo4j"], Default::default());
    let neo4j = runtime.block_on(start);
    KalendsToml::of(&google)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", &format!("{PASSWORD:?}"))
        .write(folder.path());
    // The planted words are the server's own, which are nothing for a log: they may quote data.
    let refused = |code: &str| Fault::Refused(403, ServerError::new(code, "planted words"));
    let (probe, schema) = (1, ENSURE_SCHEMA.len());
    let cases: [(usize, Fault, &[&str]); 6] = [
        // No Query API: what a Neo4j before it answers at its address.
        (
            0,
            Fault::Html(404),
            &["Neo4j cannot be asked", "older than 5.25", "graph.url"],
        ),
        (
            0,
            refused("Neo.ClientError.Database.DatabaseNotFound"),
            &["Neo4j cannot be asked", "database name"],
        ),
        // The constraints are not there, and cannot be made.
        (
            probe,
            refused(FORBIDDEN),
            &["nothing can be written", FORBIDDEN, "what that user may do"],
        ),
        (
            probe,
            refused("Neo.DatabaseError.Schema.ConstraintCreationFailed"),
            &[
                "nothing can be written",
                "ConstraintCreationFailed",
                "check the graph's",
            ],
        ),
        // They are there, and no node may be made.
        (
            probe + schema,
            refused(FORBIDDEN),
            &["nothing can be written", FORBIDDEN, "what that user may do"],
        ),
        (
            probe + schema + 1,
            refused(FORBIDDEN),
            &["stays in neo4j", FORBIDDEN, "leave to delete nodes"],
        ),
    ];
    for (passed, fault, parts) in cases {
        neo4j.emulator().clear_faults();
        neo4j.emulator().let_pass(passed);
        neo4j.emulator().inject(fault);
        let (code, findings) = examined(folder.path(), "graph");
        assert_eq!(code, Some(1), "{findings:?}");
        let parts: Vec<&str> = ["wrong: "].iter().chain(parts).copied().collect();
        assert_has(&findings, &parts);
        assert!(
            !findings.iter().any(|told| told.contains("planted")),
            "{findings:?}"
        );
    }
    neo4j.emulator().clear_faults();
    let (code, findings) = examined(folder.path(), "graph");
    assert_eq!(code, Some(0), "{findings:?}");
}

#[test]
fn a_clock_that_is_off_is_measured() {
    let redis = RedisServer::start(&RedisOptions::default());
    let settings = RedisSettings {
        url: Secret::new(redis.url()),
        prefix: "clock-test".to_owned(),
        ca_file: None,
        connect_timeout_ms: 5_000,
        response_timeout_ms: 5_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = RedisStore::only_looking(&settings).unwrap();
    let off_ms = 3_600_000;
    let facts = store.facts("clock-test", || SystemClock.now().as_ms() - off_ms);
    let facts = runtime.block_on(facts).unwrap();
    // As exact as the answer was quick, and the wall clock steady.
    let error_ms = (facts.clock_ahead_ms - off_ms).unsigned_abs();
    assert!(error_ms <= facts.answer_ms + 1_000, "{facts:?}");
}

#[test]
fn grants_without_their_key_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    let access = google.users().remove(0);
    std::fs::write(folder.path().join("keys"), KEY).unwrap();
    std::fs::write(folder.path().join("token"), &access.refresh_token).unwrap();
    let toml = KalendsToml::new(&google.url);
    toml.clone()
        .set("credentials", "keys_file", r#""keys""#)
        .write(folder.path());
    let add = [
        "users",
        "add",
        &access.email,
        "--refresh-token-file",
        "token",
    ];
    let _ = kalends(folder.path(), &add).done();
    let (code, findings) = examined(folder.path(), "users");
    assert_eq!(code, Some(0), "{findings:?}");
    assert_has(&findings, &["ok: 1 grants are sealed"]);
    let (_, findings) = examined(folder.path(), "google");
    assert_has(&findings, &["ok: a token was given for ", &access.email]);

    let newer = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
    std::fs::write(folder.path().join("keys"), format!("{newer}\n{KEY}")).unwrap();
    let (_, findings) = examined(folder.path(), "users");
    assert_has(&findings, &["warning: ", "older key", "reseal"]);
    std::fs::write(folder.path().join("keys"), newer).unwrap();
    let (code, findings) = examined(folder.path(), "users");
    assert_eq!(code, Some(1));
    assert_has(&findings, &["wrong: 1 grants", "which is not there"]);
    toml.write(folder.path());
    let (_, findings) = examined(folder.path(), "users");
    assert_has(&findings, &["wrong: 1 grants", "openssl rand -hex 32"]);
}

#[test]
fn a_configuration_with_mistakes_ends_with_two() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kalends.toml"), "[limits]\njobs = 0\n").unwrap();
    let ended = kalends(folder.path(), &["doctor"]);
    assert_eq!((ended.code, ended.output.as_str()), (Some(2), ""));
    assert!(
        ended.errors.contains("kalends.toml:2: limits.jobs"),
        "{}",
        ended.errors
    );
}
