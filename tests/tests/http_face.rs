//! The HTTP face of a real process on a real fleet: what it says by default, what `/metrics` holds and never holds, and
//! that what is asked for by the API is done.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeSet;
use std::path::Path;

use kalends_sim::google::Fault;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::ask_api;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::metrics_text::parse;
use kalends_tests::process::{Process, kalends, wait_until};
use serde_json::Value;

const TOKEN: &str = "planted-api-token-0c4e";

/// The status and the body of one request with the token.
fn ask(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    ask_api(address, TOKEN, method, path, body)
}

/// The body of what is there.
fn text(address: &str, path: &str) -> String {
    let (status, body) = ask(address, "GET", path, "");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn json(address: &str, path: &str) -> Value {
    serde_json::from_str(&text(address, path)).unwrap()
}

#[test]
fn metrics_of_a_fleet_are_well_formed_and_name_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(3, 12, 5);
    let users = google.users();
    let fault = Fault::Html { status: 503 };
    google
        .lock()
        .emulator
        .inject(Some(&users[1].email), fault)
        .unwrap();
    google.lock().emulator.revoke(&users[2].email).unwrap();
    let fault = Fault::Limited {
        status: 429,
        reason: "rateLimitExceeded".to_owned(),
        retry_after: None,
    };
    google
        .lock()
        .emulator
        .inject(Some(&users[3].email), fault)
        .unwrap();
    KalendsToml::of(&google)
        .set("http", "token", &format!("{TOKEN:?}"))
        .write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[]);
    wait_until("the first syncs", || {
        let status = json(&address, "/api/v1/status");
        status["completed_total"] == 11 && status["failed_total"] == 1
    });
    let text = text(&address, "/metrics");
    let metrics = parse(&text);

    // Names say what they are and in which unit; a counter ends with _total, nothing else does.
    for (name, (kind, samples)) in &metrics {
        assert!(
            name.starts_with("kalends_") || name.starts_with("process_"),
            "{name}"
        );
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        // Labels that Prometheus gives itself: it would rename ours, and nobody's question would find them.
        for (_, (labels, _)) in samples {
            let is_taken = labels.contains_key("job") || labels.contains_key("instance");
            assert!(!is_taken, "{name}: {labels:?}");
        }
        assert!(!name.ends_with("_ms"), "{name}");
        if kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name}");
            let mut reached = 0.0;
            for (sample, (labels, value)) in samples {
                if sample.ends_with("_bucket") {
                    assert!(*value >= reached, "{name} {labels:?} goes down");
                    reached = if labels["le"] == "+Inf" { 0.0 } else { *value };
                }
            }
        }
        assert!(samples.len() <= 300, "{name} has {} samples", samples.len());
    }
    let value = |name: &str, wanted: &[(&str, &str)]| {
        let (_, samples) = &metrics[name.trim_end_matches("_count")];
        let matching = samples.iter().filter(|(sample, (labels, _))| {
            sample == name && wanted.iter().all(|(label, text)| labels[*label] == *text)
        });
        matching.map(|(_, (_, value))| value).sum::<f64>()
    };
    assert_eq!(value("kalends_jobs_total", &[("outcome", "synced")]), 11.0);
    assert_eq!(value("kalends_jobs_total", &[("outcome", "parked")]), 1.0);
    assert_eq!(value("kalends_jobs_total", &[("outcome", "retried")]), 1.0);
    assert_eq!(
        value("kalends_job_duration_seconds_count", &[("kind", "sync")]),
        11.0
    );
    assert_eq!(
        value("kalends_google_requests_total", &[("status", "5xx")]),
        1.0
    );
    assert_eq!(
        value("kalends_google_requests_total", &[("status", "429")]),
        1.0
    );
    assert!(value("kalends_google_requests_total", &[("status", "2xx")]) >= 11.0);
    assert!(value("kalends_pauses_total", &[]) >= 1.0);
    assert!(value("kalends_graph_writes_total", &[("outcome", "written")]) >= 11.0);
    assert!(
        value(
            "kalends_store_command_duration_seconds_count",
            &[("command", "claim")]
        ) > 0.0
    );
    assert_eq!(value("kalends_users", &[]), 12.0);
    assert_eq!(value("kalends_users_parked", &[]), 1.0);
    assert_eq!(
        value("kalends_users_synced_within", &[("age_seconds", "300")]),
        11.0
    );
    assert!(value("kalends_freshness_age_seconds", &[("quantile", "0.99")]) < 300.0);
    assert_eq!(value("kalends_store_up", &[]), 1.0);
    assert!(value("process_start_time_seconds", &[]) > 1.7e9);

    // Alerts and dashboard ask for nothing that is not there.
    for file in ["prometheus/kalends.rules.yml", "grafana/kalends.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../deploy")
            .join(file);
        let asked = std::fs::read_to_string(path).unwrap();
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words = asked.split(|letter| !is_letter(letter));
        let names: BTreeSet<&str> = words
            .filter(|word| word.starts_with("kalends_") || word.starts_with("process_"))
            .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
            .collect();
        assert!(names.len() > 10, "{file}: {names:?}");
        for name in names {
            assert!(metrics.contains_key(name), "{file} asks for {name}");
        }
    }

    // Nobody's name, no secret; and what others may read holds no secret either.
    let tokens = users.iter().map(|user| user.refresh_token.as_str());
    let secrets: Vec<&str> = tokens.chain([TOKEN, CLIENT_SECRET]).collect();
    for user in &users {
        assert!(!text.contains(&user.email), "{text}");
    }
    let shown = [
        "/api/v1/status",
        "/api/v1/users",
        "/api/v1/jobs?state=failed",
    ];
    let shown: Vec<String> = shown.map(|path| json(&address, path).to_string()).into();
    let ended = process.stop();
    for secret in secrets {
        assert!(!text.contains(secret) && !ended.errors.contains(secret));
        assert!(shown.iter().all(|body| !body.contains(secret)), "{shown:?}");
    }
}

#[test]
fn what_is_asked_for_by_the_api_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(4, 3, 2);
    KalendsToml::of(&google).write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
    let done = || json(&address, "/api/v1/status")["completed_total"].clone();
    wait_until("the first syncs", || done() == 3);
    let user = google.users().remove(0).email;
    let body = format!("{{\"user\":{user:?}}}");
    let (status, answer) = ask(&address, "POST", "/api/v1/sync", &body);
    assert_eq!(status, 202, "{answer}");
    wait_until("the sync that was asked for", || done() == 4);
    let (status, answer) = ask(&address, "POST", "/api/v1/sync", "{\"all\":true}");
    assert_eq!(status, 202, "{answer}");
    wait_until("everybody once more", || done() == 7);
    // The command line says the same as the API.
    let own = kalends(folder.path(), &["status", "--json"]).done().json();
    let api = json(&address, "/api/v1/status");
    for field in [
        "completed_total",
        "failed_total",
        "waiting",
        "schedules",
        "failed_jobs",
    ] {
        assert_eq!(own[field], api[field], "{field}");
    }
    let ended = process.stop();
    assert!(!ended.errors.contains(TOKEN), "{}", ended.errors);
    assert!(
        ended.errors.contains("a sync was asked for, by the API"),
        "{}",
        ended.errors
    );
}

#[test]
fn nothing_is_served_by_default_and_other_machines_need_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(5, 1, 1);
    KalendsToml::of(&google).write(folder.path());
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("synced");
    assert!(
        !process.errors().contains("served at"),
        "{}",
        process.errors()
    );
    process.stop();

    let refused = kalends(folder.path(), &["run", "--http", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(2), "{}", refused.errors);
    for part in [
        "other machines",
        "token_file",
        "KALENDS_HTTP_TOKEN",
        "127.0.0.1:0",
    ] {
        assert!(refused.errors.contains(part), "{part}: {}", refused.errors);
    }
    let short = [("KALENDS_HTTP_TOKEN", "short")];
    let arguments = ["run", "--http", "0.0.0.0:0"];
    let refused = Process::start_with(folder.path(), &arguments, &short).wait();
    assert_eq!(refused.code, Some(2), "{}", refused.errors);
    assert!(refused.errors.contains("at least 16"), "{}", refused.errors);
}
