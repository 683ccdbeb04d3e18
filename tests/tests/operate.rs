//! An operator's commands: straight against a store that nobody has, through the API of a process that has it, and against
//! a shared Redis beside it. Three ways, one meaning.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;
use std::sync::Arc;

use kalends::clock::SystemClock;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::port::Store;
use kalends_core::queue::command::{Command, Reply};
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::process::{Ended, Process, kalends, kalends_binary, status, wait_until};
use kalends_tests::redis_server::{RedisOptions, RedisServer, free_port, store_of};
use serde_json::Value;

const TOKEN: &str = "planted-http-token-0123456789";

fn words(folder: &Path, line: &str) -> Ended {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    kalends(folder, &arguments)
}

fn done(folder: &Path, line: &str) -> String {
    words(folder, line).done().output
}

fn limit(folder: &Path) -> Value {
    let limits = words(folder, "limits --json").done().json();
    limits["sources"][0]["settings"]["jobs"].clone()
}

/// What holds whichever way is taken. `user` has a job that waits, and there is one failed job.
fn operate(folder: &Path, user: &str) {
    let listed = done(folder, "jobs list --state failed");
    assert!(
        listed.contains(user) && listed.contains("1 jobs"),
        "{listed}"
    );
    let all = words(folder, "jobs list --json").done().json();
    let failed = all["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["state"] == "failed");
    let number = failed.unwrap()["number"].as_u64().unwrap();

    assert!(done(folder, "pause --reason moving").contains("everything is paused"));
    assert_eq!(status(folder)["sources"][0]["paused"], "moving");
    assert!(done(folder, "limits").contains("paused: moving"));

    let retried = done(folder, &format!("jobs retry {number}"));
    assert_eq!(retried, "1 jobs are tried again\n");
    let gone = words(folder, &format!("jobs discard {number}"));
    assert_eq!(gone.code, Some(2), "{}", gone.errors);
    assert!(gone.errors.contains("no failed job of this number"));
    assert_eq!(
        done(folder, "jobs discard --all"),
        "0 failed jobs are forgotten\n"
    );
    let again = words(folder, &format!("jobs retry {number}"));
    assert_eq!(again.code, Some(1), "{}", again.errors);
    assert!(
        again.errors.contains("no failed job of this number"),
        "{}",
        again.errors
    );
    // Paused, so it waits.
    assert!(done(folder, "jobs list --state waiting").contains(user));
    assert_eq!(
        done(folder, &format!("jobs cancel {user}")),
        "1 job cancelled\n"
    );
    let again = words(folder, &format!("jobs remove {user}"));
    assert_eq!(again.code, Some(2), "{}", again.errors);

    assert!(done(folder, "sync --all").contains("users are synced over the next"));
    assert_eq!(
        status(folder)["waiting"].as_u64().unwrap() + status(folder)["delayed"].as_u64().unwrap(),
        2
    );

    assert!(done(folder, "limits --jobs 7 --window-ms 30000").contains("7 syncs in 30000 ms"));
    assert_eq!(limit(folder)["count"], 7);
    assert_eq!(limit(folder)["window_ms"], 30_000);
    let _ = done(folder, "limits --jobs unlimited");
    assert!(limit(folder).is_null());
    let wrong = words(folder, "limits --jobs 0");
    assert_eq!(wrong.code, Some(2), "{}", wrong.errors);

    let set = [
        "schedules",
        "set",
        "nightly",
        "--cron",
        "0 3 * * *",
        "--time-zone",
        "Europe/Berlin",
    ];
    let set = kalends(folder, &set).done();
    assert!(
        set.output
            .starts_with("nightly: google-calendar at 0 3 * * *"),
        "{}",
        set.output
    );
    assert_eq!(done(folder, "schedules list").lines().count(), 2);
    let wrong = ["schedules", "set", "nightly", "--cron", "0 25 * * *"];
    let wrong = kalends(folder, &wrong);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.errors.contains("hour"), "{}", wrong.errors);
    let _ = done(folder, "schedules remove nightly");
    assert_eq!(words(folder, "schedules remove nightly").code, Some(2));

    assert_eq!(done(folder, "resume"), "everything goes on\n");
    assert!(status(folder)["sources"][0]["paused"].is_null());
}

/// Each of these users fails once, by a sync that is asked for by hand.
fn fail(folder: &Path, google: &GoogleServer, users: &[String]) {
    let failed = || status(folder)["failed"].as_u64().unwrap();
    for user in users {
        let before = failed();
        let fault = kalends_sim::google::Fault::Html { status: 503 };
        google.lock().emulator.inject(Some(user), fault).unwrap();
        // By the process that has the store, it is only asked for.
        let _ = words(folder, &format!("sync {user}"));
        wait_until("a failed sync", || failed() == before + 1);
    }
}

/// The fan-out of a tick waits, as no process runs: it is cancelled.
fn cancel_a_fan_out(folder: &Path) {
    let waiting = done(folder, "jobs list --state waiting");
    assert!(waiting.contains("fan-out of calendar-sync"), "{waiting}");
    let cancelled = done(folder, "jobs cancel --schedule calendar-sync");
    assert_eq!(cancelled, "1 job cancelled\n");
    assert_eq!(status(folder)["waiting"], 0);
}

/// What holds for all at once, and for one source and one schedule, whichever way is taken. Nothing waits and nothing has failed.
fn operate_on_all(folder: &Path, google: &GoogleServer) {
    // A process begins a fan-out at once, so beside one there is none that waits.
    for schedule in ["calendar-sync", "nothing"] {
        let refused = words(folder, &format!("jobs cancel --schedule {schedule}"));
        assert_eq!(refused.code, Some(2), "{}", refused.errors);
        assert!(
            refused.errors.contains("no such job that waits"),
            "{}",
            refused.errors
        );
    }
    let _ = done(folder, "pause --reason works");
    let paused = || status(folder)["sources"][0]["paused"].clone();
    let resumed = done(folder, "resume --source google-calendar");
    assert_eq!(resumed, "google-calendar goes on\n");
    assert!(paused().is_null());

    let users: Vec<String> = google.users().into_iter().map(|one| one.email).collect();
    fail(folder, google, &users);
    let told = done(folder, "pause --source google-calendar --reason moving");
    assert!(told.contains("google-calendar is paused"), "{told}");
    assert_eq!(paused(), "moving");
    for line in [
        "pause --source nowhere --reason x",
        "resume --source nowhere",
    ] {
        let refused = words(folder, line);
        assert_eq!(refused.code, Some(2), "{line}: {}", refused.errors);
        assert!(refused.errors.contains("no source"), "{}", refused.errors);
    }
    let count = users.len();
    let retried = done(folder, "jobs retry --all");
    assert_eq!(retried, format!("{count} jobs are tried again\n"));
    let now = status(folder);
    assert_eq!(
        (&now["failed"], &now["waiting"]),
        (&0.into(), &count.into()),
        "{now}"
    );
    for user in &users {
        let _ = done(
            folder,
            &format!("jobs cancel {user} --source google-calendar"),
        );
    }
    let _ = done(folder, "resume --source google-calendar");

    fail(folder, google, &users);
    let listed = words(folder, "jobs list --state failed --json")
        .done()
        .json();
    let one = &listed["jobs"][0];
    let told = done(folder, &format!("jobs discard {}", one["number"]));
    assert_eq!(told, "1 failed jobs are forgotten\n");
    let left = done(folder, "jobs list --state failed");
    assert!(!left.contains(one["user"].as_str().unwrap()), "{left}");
    let told = done(folder, "jobs discard --all");
    assert_eq!(told, format!("{} failed jobs are forgotten\n", count - 1));
    assert_eq!(status(folder)["failed"], 0);
}

/// The schedule of the configuration fires.
fn fire(folder: &Path, store: &dyn Store) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let apply = |command| runtime.block_on(store.apply(command)).unwrap();
    let stamped = apply(Command::Schedules);
    let Reply::Schedules { schedules } = stamped.value else {
        panic!("not a list");
    };
    let found = schedules
        .into_iter()
        .find(|(name, _)| name.as_str() == "calendar-sync");
    let (schedule, state) = found.unwrap_or_else(|| panic!("no schedule in {}", folder.display()));
    let fired = apply(Command::Tick {
        schedule,
        revision: state.revision,
        after: state.last_tick_at,
        at: stamped.now,
        missed: 0,
        fire: true,
    });
    assert!(matches!(fired.value, Reply::Fired { .. }), "{fired:?}");
}

/// A fleet's worth of state: two users of whom the first has failed once.
fn prepared(folder: &Path, toml: KalendsToml, google: &GoogleServer) -> String {
    toml.set("retry", "attempts", "1").write(folder);
    let users = google.users();
    let fault = kalends_sim::google::Fault::Html { status: 503 };
    for _ in 0..2 {
        google.lock().emulator.inject(None, fault.clone()).unwrap();
    }
    let process = Process::start(folder, &["run"]);
    wait_until("both to have failed", || {
        let store = folder.join("kalends-data/kalends.db");
        (store.exists() || !toml_is_embedded(folder)) && status(folder)["failed_total"] == 2
    });
    process.stop();
    // One failed job is enough.
    let user = users[0].email.clone();
    let all = words(folder, "jobs list --state failed --json")
        .done()
        .json();
    let jobs = all["jobs"].as_array().unwrap();
    let other = jobs
        .iter()
        .find(|job| job["user"] != user.as_str())
        .unwrap();
    let _ = done(folder, &format!("jobs retry {}", other["number"]));
    let _ = done(
        folder,
        &format!("jobs cancel {}", other["user"].as_str().unwrap()),
    );
    user
}

fn toml_is_embedded(folder: &Path) -> bool {
    !std::fs::read_to_string(folder.join("kalends.toml"))
        .unwrap()
        .contains("[redis]")
}

#[test]
fn a_store_that_nobody_has_is_operated_directly() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 1);
    let user = prepared(folder.path(), KalendsToml::of(&google), &google);
    operate(folder.path(), &user);
}

#[test]
fn a_store_in_use_is_operated_through_the_process_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 1);
    let toml = KalendsToml::of(&google);
    let user = prepared(folder.path(), toml.clone(), &google);

    // Without an address it is said what to do.
    let process = Process::start(folder.path(), &["run"]);
    wait_until("the start", || process.errors().contains("started"));
    let refused = words(folder.path(), "pause --reason x");
    assert_eq!(refused.code, Some(2));
    assert!(refused.errors.contains("http.listen"), "{}", refused.errors);
    process.stop();

    let address = format!("127.0.0.1:{}", free_port());
    let toml = toml
        .set("retry", "attempts", "1")
        .set("http", "listen", &format!("{address:?}"))
        .set("http", "token", &format!("{TOKEN:?}"));
    toml.write(folder.path());
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("/readyz are served");
    operate(folder.path(), &user);

    let synced = done(folder.path(), &format!("sync {user}"));
    assert!(synced.contains("the running process does it"), "{synced}");
    wait_until("the sync", || {
        status(folder.path())["completed_total"].as_u64() >= Some(1)
    });

    // A parked user is told, and Google is not asked.
    google.lock().emulator.revoke(&user).unwrap();
    google
        .lock()
        .emulator
        .expire_access_tokens(
            kalends_core::time::Clock::now(&kalends::clock::SystemClock),
            &user,
        )
        .unwrap();
    let _ = done(folder.path(), &format!("sync {user}"));
    wait_until("the user to be parked", || {
        status(folder.path())["parked"] == 1
    });
    let asked = google.lock().emulator.counters().token_requests;
    let refused = words(folder.path(), &format!("sync {user}"));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.errors.contains("must connect again"),
        "{}",
        refused.errors
    );
    assert_eq!(google.lock().emulator.counters().token_requests, asked);

    // Another token.
    toml.clone()
        .set("http", "token", r#""another-http-token-0123456789""#)
        .write(folder.path());
    let refused = words(folder.path(), "resume");
    assert_eq!(refused.code, Some(2));
    assert!(refused.errors.contains("http.token"), "{}", refused.errors);
    // Somebody else answers there.
    let elsewhere = format!("{:?}", google.url.trim_start_matches("http://"));
    toml.set("http", "listen", &elsewhere).write(folder.path());
    let refused = words(folder.path(), "resume");
    assert_ne!(refused.code, Some(0), "{}", refused.errors);
    let ended = process.stop();
    for said in [&ended.errors, &ended.output, &refused.errors] {
        assert!(
            !said.contains(TOKEN) && !said.contains(CLIENT_SECRET),
            "{said}"
        );
    }
}

#[test]
fn a_shared_redis_is_operated_beside_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 1);
    let redis = RedisServer::start(&RedisOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (neo4j, _) = runtime.block_on(kalends_tests::neo4j_server::Neo4jServer::shared());
    let toml = KalendsToml::of(&google)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""operate-test""#)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", r#""kalends""#);
    let user = prepared(folder.path(), toml, &google);
    operate(folder.path(), &user);
}

/// Three users who were synced once; nobody has the store.
fn synced(folder: &Path, toml: KalendsToml, google: &GoogleServer) {
    toml.set("retry", "attempts", "1").write(folder);
    let process = Process::start(folder, &["run"]);
    wait_until("the first syncs", || {
        let store = folder.join("kalends-data/kalends.db");
        (store.exists() || !toml_is_embedded(folder)) && status(folder)["completed_total"] == 3
    });
    assert_eq!(google.users().len(), 3);
    process.stop();
}

#[test]
fn all_at_once_is_operated_directly() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 3, 1);
    synced(folder.path(), KalendsToml::of(&google), &google);
    let store = EmbeddedStore::open(&folder.path().join("kalends-data"), Arc::new(SystemClock));
    fire(folder.path(), &store.unwrap());
    cancel_a_fan_out(folder.path());
    operate_on_all(folder.path(), &google);
}

#[test]
fn all_at_once_is_operated_through_the_process_that_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 3, 1);
    let address = format!("127.0.0.1:{}", free_port());
    let toml = KalendsToml::of(&google)
        .set("http", "listen", &format!("{address:?}"))
        .set("http", "token", &format!("{TOKEN:?}"));
    synced(folder.path(), toml, &google);
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("/readyz are served");
    operate_on_all(folder.path(), &google);
    let ended = process.stop();
    // It was asked, and did it itself.
    for part in [
        "failed jobs tried again, by the API",
        "failed jobs forgotten, by the API",
        "a waiting job was cancelled, by the API",
        "paused, by the API",
        "resumed, by the API",
    ] {
        assert!(ended.errors.contains(part), "{part}: {}", ended.errors);
    }
}

#[test]
fn all_at_once_is_operated_in_a_shared_redis() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 3, 1);
    let redis = RedisServer::start(&RedisOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (neo4j, _) = runtime.block_on(kalends_tests::neo4j_server::Neo4jServer::shared());
    let toml = KalendsToml::of(&google)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""operate-all-test""#)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", r#""kalends""#);
    synced(folder.path(), toml, &google);
    let store = {
        let _inside = runtime.enter();
        store_of(&redis.url(), "operate-all-test")
    };
    fire(folder.path(), &store);
    cancel_a_fan_out(folder.path());
    operate_on_all(folder.path(), &google);
}

#[test]
fn shells_and_man_are_told_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = words(folder.path(), &format!("completions {shell}"))
            .done()
            .output;
        for command in ["doctor", "connect", "--needs-reauth", "resume"] {
            let word = if shell == "fish" {
                command.trim_start_matches("--")
            } else {
                command
            };
            assert!(script.contains(word), "{word} for {shell}");
        }
        if shell == "bash" {
            let path = folder.path().join("kalends.bash");
            std::fs::write(&path, script).unwrap();
            let checked = std::process::Command::new("bash")
                .arg("-n")
                .arg(&path)
                .status()
                .unwrap();
            assert!(checked.success());
        }
    }
    let page = words(folder.path(), "man").done().output;
    assert!(
        page.starts_with(".ie") || page.contains(".TH kalends 1"),
        "{page}"
    );
    assert!(page.contains("Exit codes"), "{page}");
    let _ = words(folder.path(), "man --dir pages").done();
    for name in [
        "kalends.1",
        "kalends-run.1",
        "kalends-users-connect.1",
        "kalends-jobs-cancel.1",
    ] {
        assert!(folder.path().join("pages").join(name).exists(), "{name}");
    }
    assert!(kalends_binary().exists());
}
