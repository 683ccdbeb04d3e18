//! The commands as a user types them, against emulators: what they print, what they cost, and what they never print.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::process::{Command, Stdio};

use kalends::emulate::face::FaceOptions;
use kalends_sim::google::Fault;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{Process, emulator, kalends, kalends_binary, status, wait_until};
use serde_json::{Value, json};

#[test]
fn sync_tells_what_it_did_and_a_second_one_costs_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 30);
    KalendsToml::of(&google).write(folder.path());
    let user = google.users().remove(0).email;

    let first = kalends(folder.path(), &["sync", &user]).done();
    let expected =
        format!("{user} synced: 30 events written, 0 removed, 0 set aside as invalid, 1 requests");
    assert!(first.output.starts_with(&expected), "{}", first.output);
    assert_eq!(google.lock().emulator.counters().token_requests, 1);

    let data = folder.path().join("kalends-data");
    let second = kalends(folder.path(), &["sync", &user, "--json"]).done();
    let second = second.json();
    assert_eq!(second["requests"], 1, "{second}");
    assert_eq!(second["upserted"], 0, "{second}");
    assert_eq!(second["deleted"], 0, "{second}");
    assert_eq!(second["full"], false, "{second}");
    let counters = google.lock().emulator.counters().clone();
    assert_eq!((counters.full_passes, counters.increments), (1, 1));
    assert_eq!(counters.further_pages, 0);

    // Only the one who was named.
    let verdict = google.compare(&data);
    let other = google.users().remove(1).email;
    let _ = kalends(folder.path(), &["sync", &other]).done();
    assert!(verdict.mismatches > 0, "the other user was synced, too");
    google.assert_synced(&data);
}

#[test]
fn a_sync_that_fails_says_why_and_ends_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    KalendsToml::of(&google)
        .set("retry", "attempts", "1")
        .write(folder.path());
    let user = google.users().remove(0).email;
    google
        .lock()
        .emulator
        .inject(None, Fault::Html { status: 503 })
        .unwrap();
    let failed = kalends(folder.path(), &["sync", &user]);
    assert_eq!(failed.code, Some(1), "{}", failed.errors);
    assert_eq!(failed.output, "");
    let expected = format!("{user} failed: ");
    assert!(failed.errors.contains(&expected), "{}", failed.errors);

    google.lock().emulator.revoke(&user).unwrap();
    let parked = kalends(folder.path(), &["sync", &user, "--json"]);
    assert_eq!(parked.code, Some(1), "{}", parked.errors);
    assert_eq!(parked.json()["parked"], true, "{}", parked.output);
    assert_eq!(parked.json()["outcome"], "failed");
}

#[test]
fn status_tells_the_same_of_a_running_and_a_stopped_process() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 3, 5);
    KalendsToml::of(&google).write(folder.path());
    let before = kalends(folder.path(), &["status"]);
    assert_eq!(before.code, Some(2));
    assert!(
        before
            .errors
            .contains("start Kalends with this data directory first"),
        "{}",
        before.errors
    );

    let process = Process::start(folder.path(), &["run"]);
    wait_until("all syncs", || {
        folder.path().join("kalends-data/kalends.db").exists()
            && status(folder.path())["completed_total"] == 3
    });
    wait_until("rest", || status(folder.path())["active"] == 0);
    let words_running = kalends(folder.path(), &["status"]).done().output;
    let running = status(folder.path());
    process.stop();
    let words_stopped = kalends(folder.path(), &["status"]).done().output;
    let stopped = status(folder.path());

    for (words, status) in [(words_running, running), (words_stopped, stopped)] {
        for part in [
            "schedule  calendar-sync: google-calendar at 0 0 1 1 * in UTC",
            "0 waiting, 0 delayed, 0 active; kept: 3 completed, 0 failed",
            "source    google-calendar: 3 users, 0 parked, 0 never synced",
        ] {
            assert!(words.contains(part), "{part}\n{words}");
        }
        assert_eq!(status["schedules"][0]["name"], "calendar-sync", "{status}");
        assert_eq!(status["sources"][0]["users"], 3, "{status}");
        assert_eq!(status["sources"][0]["never_synced"], 0, "{status}");
        assert_eq!(status["sources"][0]["overload"], Value::Null, "{status}");
        assert_eq!(status["workers"], json!([]), "{status}");
    }
}

#[test]
fn status_shows_who_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 500);
    google.lock().delay = std::time::Duration::from_millis(50);
    KalendsToml::of(&google)
        .set("google", "page_size", "5")
        .write(folder.path());
    let process = Process::start(folder.path(), &["run", "--node-name", "weaver"]);
    wait_until("pages", || google.pages_asked() >= 3);
    let during = status(folder.path());
    assert_eq!(during["active"], 1, "{during}");
    assert_eq!(during["workers"].as_array().unwrap().len(), 1, "{during}");
    let worker = during["workers"][0]["worker"].as_str().unwrap();
    assert!(worker.starts_with("weaver-"), "{during}");
    let words = kalends(folder.path(), &["status"]).done().output;
    assert!(words.contains("worker    weaver-"), "{words}");
    assert!(words.contains("active    google-calendar sync of user-00001@example.com"));
    process.kill();
}

#[test]
fn config_check_warns_with_the_figure() {
    let folder = tempfile::tempdir().unwrap();
    let many = (1..=200).fold(KalendsToml::new("http://127.0.0.1:9"), |toml, index| {
        toml.user(&format!("user-{index}@example.com"), "planted-token", None)
    });
    many.set("schedule", "cron", r#""*/15 * * * *""#)
        .set("limits", "jobs", "10")
        .write(folder.path());
    let checked = kalends(folder.path(), &["config", "check"]).done();
    assert!(checked.output.starts_with("kalends.toml: OK\n"));
    let expected = "warning: limits.jobs: 200 syncs are needed every 15 min, but the limit lets only 150 through, \
                    so each user is synced about every 20 min; raise the limit to at least 14 a minute";
    assert!(checked.errors.contains(expected), "{}", checked.errors);
    let shown = kalends(folder.path(), &["config", "show"]).done();
    assert!(shown.output.contains("jobs = 10  # kalends.toml:"));
    assert!(!format!("{checked:?}{shown:?}").contains("planted-token"));
    assert!(!format!("{checked:?}{shown:?}").contains(CLIENT_SECRET));
    assert!(!folder.path().join("kalends-data").exists());
}

#[test]
fn the_demo_ends_with_one_json_object() {
    let folder = tempfile::tempdir().unwrap();
    let demo = ["demo", "--users", "5", "--events", "10", "--json"];
    let figures = kalends(folder.path(), &demo).done().json();
    let keys = [
        "users",
        "synced",
        "events",
        "google_requests",
        "graph_writes",
        "mismatches",
        "failed",
        "duration_ms",
        "peak_rss_mb",
    ];
    for key in keys {
        assert!(figures[key].is_u64(), "{key} in {figures}");
    }
    assert_eq!(figures["users"], 5);
    assert_eq!(figures["synced"], 5);
    assert_eq!(figures["mismatches"], 0);
    assert_eq!(figures["failed"], 0);
    assert!(figures["events"].as_u64() >= Some(40), "{figures}");
    assert!(figures["google_requests"].as_u64() >= Some(10), "{figures}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn help_is_there_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let commands: [(&[&str], &str); 27] = [
        (&[], "Exit codes: 0 done, 1 failed, 2 bad input"),
        (&["run"], "--config"),
        (&["demo"], "--unlimited"),
        (&["sync"], "--all"),
        (&["status"], "--json"),
        (&["jobs"], "retry"),
        (&["jobs", "list"], "--state"),
        (&["jobs", "retry"], "--all"),
        (&["jobs", "cancel"], "--schedule"),
        (&["pause"], "--reason"),
        (&["resume"], "--source"),
        (&["limits"], "--window-ms"),
        (&["schedules"], "remove"),
        (&["schedules", "set"], "--time-zone"),
        (&["users"], "connect"),
        (&["users", "add"], "--refresh-token-file"),
        (&["users", "connect"], "--no-browser"),
        (&["users", "import"], "--dry-run"),
        (&["users", "remove"], "--purge"),
        (&["doctor"], "Ends with 0"),
        (&["completions"], "zsh"),
        (&["man"], "--dir"),
        (&["config", "check"], "--data-dir"),
        (&["config", "show"], "--defaults"),
        (&["emulate"], "neo4j"),
        (&["emulate", "google"], "--fixture"),
        (&["emulate", "neo4j"], "--port"),
    ];
    for (command, part) in commands {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = kalends(folder.path(), &arguments).done();
        assert!(help.output.contains("Usage: kalends"), "{}", help.output);
        assert!(help.output.contains(part), "{part}\n{}", help.output);
        assert_eq!(help.errors, "");
    }
    let version = kalends(folder.path(), &["--version"]).done();
    assert!(version.output.starts_with("kalends "));
}

#[test]
fn a_revoked_grant_parks_the_user_and_costs_one_token_call() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 5);
    KalendsToml::of(&google).write(folder.path());
    let user = google.users().remove(0).email;
    google.lock().emulator.revoke(&user).unwrap();
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("parked until the user connects again");
    process.wait_for_log("synced");
    wait_until("rest", || status(folder.path())["active"] == 0);
    let running = status(folder.path());
    assert_eq!(running["sources"][0]["parked"], 1, "{running}");
    assert_eq!(running["sources"][0]["users"], 2, "{running}");
    let words = kalends(folder.path(), &["status"]).done().output;
    assert!(words.contains("2 users, 1 parked"), "{words}");
    assert!(words.contains(&format!("failed    google-calendar sync of {user}")));
    process.stop();
    // One for each of the two users.
    assert_eq!(google.lock().emulator.counters().token_requests, 2);

    // The same grant would only be refused again: a start asks nobody for anything on behalf of this user.
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("ready");
    process.stop();
    assert_eq!(status(folder.path())["sources"][0]["parked"], 1);

    // Once the user has connected again, a person says so (or the configuration holds another token).
    let now = google.lock().emulator.settings().epoch;
    google.lock().emulator.restore(now, &user).unwrap();
    let synced = kalends(folder.path(), &["sync", &user]).done().output;
    assert!(synced.contains("synced"), "{synced}");
    assert_eq!(status(folder.path())["sources"][0]["parked"], 0);
    google.assert_synced(&folder.path().join("kalends-data"));
}

#[test]
fn who_is_taken_out_of_the_configuration_is_not_synced_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 5);
    KalendsToml::of(&google).write(folder.path());
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("ready");
    wait_until("both are synced", || {
        status(folder.path())["completed_total"].as_u64() >= Some(2)
    });
    process.stop();
    let stays = google.users().remove(0);
    KalendsToml::new(&google.url)
        .user(&stays.email, &stays.refresh_token, None)
        .write(folder.path());
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("no longer configured");
    process.wait_for_log("ready");
    process.stop();
    assert_eq!(status(folder.path())["sources"][0]["users"], 1);
}

#[test]
fn nobody_who_reads_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 5);
    KalendsToml::of(&google).write(folder.path());
    let _ = kalends(folder.path(), &["sync", "user-00001@example.com"]).done();
    for arguments in [
        &["config", "show", "--defaults"][..],
        &["config", "show"],
        &["status"],
        &["sync", "user-00001@example.com"],
        &["--help"],
    ] {
        let mut child = Command::new(kalends_binary())
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    }

    // A log that nobody takes any more does not stop the work.
    let process = Process::start(folder.path(), &["run"]);
    process.close_outputs();
    wait_until("the syncs", || {
        let source = &status(folder.path())["sources"][0];
        source["users"] == 2 && source["never_synced"] == 0
    });
    process.stop();
    google.assert_synced(&folder.path().join("kalends-data"));
}

#[test]
fn with_emulators_by_hand_a_user_without_a_graph_database_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let (google, google_url) = emulator(
        folder.path(),
        &[
            "google", "--port", "0", "--users", "2", "--events", "7", "--seed", "5",
        ],
    );
    let (neo4j, neo4j_url) = emulator(folder.path(), &["neo4j", "--port", "0"]);
    let said = google.output();
    let users: Vec<(&str, &str)> = said
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    assert_eq!(users.len(), 2, "{said}");
    KalendsToml::new(&google_url)
        .user(users[0].0, users[0].1, Some("neo4j"))
        .user(users[1].0, users[1].1, None)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{neo4j_url:?}"))
        .set("graph", "password", r#""kalends""#)
        .set("graph", "database_per_user", "true")
        .write(folder.path());
    let checked = kalends(folder.path(), &["config", "check"]).done();
    let expected = "1 of 2 users have no graph_database and will be skipped";
    assert!(checked.errors.contains(expected), "{}", checked.errors);

    let with = kalends(folder.path(), &["sync", users[0].0]).done();
    assert!(with.output.contains("7 events written"), "{}", with.output);
    let without = kalends(folder.path(), &["sync", users[1].0]).done();
    assert!(
        without
            .output
            .starts_with(&format!("{} skipped: ", users[1].0)),
        "{}",
        without.output
    );
    let json = kalends(folder.path(), &["sync", users[1].0, "--json"])
        .done()
        .json();
    assert_eq!(json["outcome"], "skipped", "{json}");
    let status = status(folder.path());
    assert_eq!(status["failed_total"], 0, "{status}");
    for emulator in [google, neo4j] {
        emulator.stop();
    }
}

/// An emulated Neo4j with this password, for as long as its runtime lives.
fn neo4j(password: &str) -> (tokio::runtime::Runtime, Neo4jServer) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let options = FaceOptions::default();
    let server = runtime.block_on(Neo4jServer::start_with(password, &["neo4j"], options));
    (runtime, server)
}

#[test]
fn a_sync_without_changes_sends_nothing_to_the_graph() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 30);
    let (_runtime, neo4j) = neo4j("of the graph");
    KalendsToml::of(&google)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", r#""of the graph""#)
        .write(folder.path());
    let sync = ["sync", "user-00001@example.com", "--json"];
    let first = kalends(folder.path(), &sync).done().json();
    assert_eq!(first["upserted"], 30, "{first}");
    let statements = neo4j.emulator().statements();
    assert!(statements > 0);
    let second = kalends(folder.path(), &sync).done().json();
    assert_eq!(second["requests"], 1, "{second}");
    assert_eq!(neo4j.emulator().statements(), statements);
}

#[test]
fn secrets_are_never_printed_even_at_the_finest_level() {
    const PASSWORD: &str = "planted-neo4j-password-93ab";
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(9, 4, 20);
    let users = google.users();
    {
        let mut google = google.lock();
        // Whatever is told of a misfortune is told here.
        google.emulator.revoke(&users[1].email).unwrap();
        let faults = [
            Fault::Unauthorized,
            Fault::CutBody,
            Fault::MalformedJson,
            Fault::Html { status: 502 },
        ];
        for fault in faults {
            google
                .emulator
                .inject(Some(&users[2].email), fault)
                .unwrap();
        }
        let error = "invalid_client".to_owned();
        let fault = Fault::Token { status: 401, error };
        google
            .emulator
            .inject(Some(&users[3].email), fault)
            .unwrap();
    }
    // Neo4j with a password that can be told from everything else that is logged.
    let (_runtime, neo4j) = neo4j(PASSWORD);

    let mut all = String::new();
    for (level, format, password) in [
        ("trace", "text", PASSWORD),
        ("trace", "json", "planted-wrong-password-77e0"),
    ] {
        KalendsToml::of(&google)
            .set("graph", "kind", r#""neo4j""#)
            .set("graph", "url", &format!("{:?}", neo4j.url))
            .set("graph", "password", &format!("{password:?}"))
            .set("log", "level", &format!("{level:?}"))
            .set("log", "format", &format!("{format:?}"))
            .set("retry", "backoff_base_ms", "10")
            .write(folder.path());
        let mut process = Process::start(folder.path(), &["run"]);
        if password == PASSWORD {
            process.wait_for_log("synced");
            process.wait_for_log("parked");
        } else {
            process.wait_for_log("ready");
        }
        let ended = process.stop();
        all.push_str(&format!("{}{}", ended.output, ended.errors));
        let commands = [
            &["config", "check"][..],
            &["config", "show"],
            &["status"],
            &["status", "--json"],
            &["sync", &users[0].email],
        ];
        for command in commands {
            let ended = kalends(folder.path(), command);
            all.push_str(&format!("{}{}", ended.output, ended.errors));
        }
    }
    assert!(all.contains("synced") && all.contains("parked"), "{all}");
    let mut secrets = vec![
        CLIENT_SECRET.to_owned(),
        PASSWORD.to_owned(),
        "planted-wrong-password-77e0".to_owned(),
    ];
    secrets.extend(users.iter().map(|access| access.refresh_token.clone()));
    let bearers: Vec<String> = google
        .lock()
        .pages
        .iter()
        .map(|page| page.bearer.clone())
        .collect();
    assert!(!bearers.is_empty());
    let tokens = bearers
        .iter()
        .filter_map(|bearer| bearer.strip_prefix("Bearer "));
    secrets.extend(tokens.map(str::to_owned));
    for secret in secrets {
        assert!(secret.len() >= 8, "too short to look for");
        assert!(
            !all.contains(&secret),
            "a secret was printed: {secret}\n{all}"
        );
    }
}
