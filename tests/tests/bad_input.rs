//! Bad input: exit code 2, a message that names the place, what is wrong and what would be right, and nothing started,
//! made or changed.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Ended, Process, kalends};
use rusqlite::Connection;

/// All that is below `folder`, with its content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, Vec::new());
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Runs a command that must be refused with code 2, every part of the message there, and the folder as it was.
fn assert_refused(folder: &Path, arguments: &[&str], parts: &[&str]) -> Ended {
    let before = contents(folder);
    let ended = kalends(folder, arguments);
    assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.errors);
    assert_eq!(ended.output, "", "{arguments:?}");
    for part in parts {
        assert!(
            ended.errors.contains(part),
            "{arguments:?}: {part:?} is missing in\n{}",
            ended.errors
        );
    }
    assert!(
        contents(folder) == before,
        "{arguments:?} made or changed something"
    );
    ended
}

/// A good configuration; nothing answers there.
fn good() -> KalendsToml {
    KalendsToml::new("http://127.0.0.1:9").user("ada@example.com", "planted-token", None)
}

/// The line of the file on which `key` stands, counted from 1.
fn line_of(toml: &str, key: &str) -> usize {
    let found = toml.lines().position(|line| line.starts_with(key));
    1 + found.unwrap_or_else(|| panic!("no {key} in\n{toml}"))
}

#[test]
fn a_wrong_value_is_named_with_file_line_key_and_cure() {
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            "worker",
            "concurency",
            "5",
            &["is not known", "did you mean concurrency?"],
        ),
        (
            "schedule",
            "cron",
            r#""*/15 25 * * *""#,
            &["hour", "25", "0", "23"],
        ),
        (
            "schedule",
            "cron",
            r#""*/15 * * 13 *""#,
            &["month", "13", "12"],
        ),
        (
            "schedule",
            "cron",
            r#""* * *""#,
            &["3 fields instead of five"],
        ),
        (
            "schedule",
            "time_zone",
            r#""Europe/Berlim""#,
            &["Europe/Berlim", "Europe/Berlin"],
        ),
        (
            "schedule",
            "source",
            r#""google-calender""#,
            &["google-calendar"],
        ),
        ("worker", "concurrency", "0", &["is 0", "1"]),
        ("worker", "concurrency", "-3", &["is -3", "1"]),
        ("limits", "jobs", "0", &["is 0", "unlimited"]),
        ("limits", "jobs", "-1", &["is -1", "unlimited"]),
        ("google", "page_size", "0", &["is 0", "2500"]),
        ("retry", "attempts", "-1", &["is -1", "100"]),
        (
            "google",
            "client_secret_file",
            r#""no-such-file.txt""#,
            &["no-such-file.txt"],
        ),
    ];
    for (section, key, value, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut toml = good().set(section, key, value);
        if *key == "client_secret_file" {
            toml = toml.without("google", "client_secret");
        }
        toml.write(folder.path());
        let line = line_of(&toml.to_string(), &format!("{key} ="));
        let place = format!("kalends.toml:{line}: {section}.{key}: ");
        let parts: Vec<&str> = parts.iter().copied().chain([place.as_str()]).collect();
        for command in [&["run"][..], &["config", "check"], &["status"]] {
            assert_refused(folder.path(), command, &parts);
        }
    }
}

#[test]
fn missing_secrets_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let toml = good().without("google", "client_secret");
    toml.write(folder.path());
    let line = line_of(&toml.to_string(), "[google]");
    let place = format!("kalends.toml:{line}: google.client_secret: ");
    assert_refused(folder.path(), &["run"], &[&place, "client_secret_file"]);

    let mut toml = good().to_string();
    toml.push_str("[[users]]\nid = \"bob@example.com\"\n");
    std::fs::write(folder.path().join("kalends.toml"), &toml).unwrap();
    let ended = assert_refused(
        folder.path(),
        &["run"],
        &["users.refresh_token: is missing", "refresh_token_file"],
    );
    let line = toml.lines().count() - 1;
    assert!(
        ended.errors.contains(&format!("kalends.toml:{line}")),
        "{}",
        ended.errors
    );

    let neo4j = good().set("graph", "kind", "\"neo4j\"");
    neo4j.write(folder.path());
    assert_refused(
        folder.path(),
        &["run"],
        &["graph.password", "password_file"],
    );
}

#[test]
fn a_queue_in_redis_needs_a_prefix_and_a_shared_graph() {
    let folder = tempfile::tempdir().unwrap();
    let url = r#""redis://:planted@127.0.0.1:9""#;
    let embedded = good().set("redis", "url", url);
    let neo4j = embedded
        .clone()
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "password", r#""p""#);
    let cases: [(KalendsToml, &str, &[&str]); 4] = [
        (
            neo4j.clone(),
            "[redis]",
            &[
                "redis.prefix: is missing",
                r#"prefix = "kalends-production""#,
            ],
        ),
        (
            embedded.set("redis", "prefix", r#""a""#),
            "url = \"redis",
            &[
                "redis.url: ",
                "graph.kind is \"embedded\"",
                "kind = \"neo4j\"",
            ],
        ),
        (
            neo4j.set("redis", "prefix", r#""a:b""#),
            "prefix",
            &["redis.prefix: is \"a:b\"", "letters, digits"],
        ),
        (
            good().set("http", "listen", r#""192.0.2.1:7878""#),
            "listen",
            &["http.listen: 192.0.2.1:7878", "127.0.0.1:7878"],
        ),
    ];
    for (toml, key, parts) in cases {
        toml.write(folder.path());
        let place = format!("kalends.toml:{}: ", line_of(&toml.to_string(), key));
        let parts: Vec<&str> = parts.iter().copied().chain([place.as_str()]).collect();
        for command in [&["run"][..], &["config", "check"], &["status"]] {
            let ended = assert_refused(folder.path(), command, &parts);
            assert!(!ended.errors.contains("planted"), "{}", ended.errors);
        }
    }
}

#[test]
fn all_problems_are_told_at_once_and_no_secret_with_them() {
    let folder = tempfile::tempdir().unwrap();
    good()
        .set("schedule", "cron", "\"every day\"")
        .set("worker", "concurrency", "0")
        .set("limits", "jbos", "3")
        .set("log", "level", "\"loud\"")
        .write(folder.path());
    let parts = [
        "schedule.cron",
        "worker.concurrency",
        "limits.jbos",
        "log.level",
    ];
    let ended = assert_refused(folder.path(), &["run"], &parts);
    assert!(!ended.errors.contains("planted"), "{}", ended.errors);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = ["run", "--config", "elsewhere.toml"];
    assert_refused(folder.path(), &missing, &["elsewhere.toml", "--config"]);
    // Even the superuser cannot read a folder as a file.
    std::fs::create_dir(folder.path().join("folder.toml")).unwrap();
    let unreadable = ["run", "--config", "folder.toml"];
    assert_refused(
        folder.path(),
        &unreadable,
        &[
            "folder.toml",
            "cannot be read",
            "kalends config show --defaults",
        ],
    );
    std::fs::write(folder.path().join("bytes.toml"), b"[log]\n\xff\xfe").unwrap();
    let bytes = ["run", "--config", "bytes.toml"];
    assert_refused(
        folder.path(),
        &bytes,
        &["bytes.toml", "not UTF-8", "line 2"],
    );
    std::fs::write(folder.path().join("odd.toml"), "[log]\nlevel = = 3\n").unwrap();
    let odd = ["run", "--config", "odd.toml"];
    assert_refused(folder.path(), &odd, &["odd.toml:2", "not valid TOML"]);
    let fixture = ["emulate", "google", "--port", "0", "--fixture", "none.json"];
    assert_refused(folder.path(), &fixture, &["none.json"]);
}

#[test]
fn without_any_configuration_an_example_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &["run"][..],
        &["status"],
        &["sync", "ada"],
        &["config", "check"],
    ] {
        assert_refused(
            folder.path(),
            command,
            &["there is no configuration", "[google]", "kalends demo"],
        );
    }
}

#[test]
fn flags_and_users_that_are_not_known_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    good().write(folder.path());
    assert_refused(
        folder.path(),
        &["run", "--concurency", "3"],
        &["--concurency", "--concurrency"],
    );
    assert_refused(
        folder.path(),
        &["run", "--concurrency", "0"],
        &["--concurrency: worker.concurrency", "write"],
    );
    assert_refused(folder.path(), &["runn"], &["runn", "run"]);
    assert_refused(
        folder.path(),
        &["demo", "--users", "0"],
        &["--users", "1.."],
    );
    assert_refused(
        folder.path(),
        &["sync", "nobody@example.com"],
        &["nobody@example.com", "known are ada@example.com"],
    );
}

#[test]
fn a_variable_that_is_not_known_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    good().write(folder.path());
    let variables = [("KALENDS_WORKER_CONCURENCY", "3")];
    let ended = Process::start_with(folder.path(), &["run"], &variables).wait();
    assert_eq!(ended.code, Some(2), "{}", ended.errors);
    assert!(
        ended
            .errors
            .contains("did you mean KALENDS_WORKER_CONCURRENCY"),
        "{}",
        ended.errors
    );
    assert!(!folder.path().join("kalends-data").exists());
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for what in ["google", "neo4j"] {
        assert_refused(
            folder.path(),
            &["emulate", what, "--port", &port],
            &[&format!("127.0.0.1:{port}"), "name another one with --port"],
        );
    }
}

#[test]
fn a_store_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    good().write(folder.path());
    let data = folder.path().join("kalends-data");
    std::fs::create_dir(&data).unwrap();
    let file = data.join("kalends.db");
    let commands = [&["run"][..], &["sync", "ada@example.com"], &["status"]];

    std::fs::write(&file, "Dear diary, ").unwrap();
    for command in commands {
        assert_refused(
            folder.path(),
            command,
            &["kalends.db", "was not written by Kalends"],
        );
    }
    std::fs::remove_file(&file).unwrap();
    let other = Connection::open(&file).unwrap();
    other
        .execute_batch("PRAGMA application_id = 7; CREATE TABLE diary (line TEXT)")
        .unwrap();
    other.close().unwrap();
    for command in commands {
        assert_refused(
            folder.path(),
            command,
            &["kalends.db", "was not written by Kalends"],
        );
    }
}

#[test]
fn a_newer_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    KalendsToml::of(&google).write(folder.path());
    let user = google.users().remove(0).email;
    let _ = kalends(folder.path(), &["sync", &user]).done();
    let file = folder.path().join("kalends-data").join("kalends.db");
    let store = Connection::open(&file).unwrap();
    store
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99")
        .unwrap();
    store.close().unwrap();
    for command in [&["run"][..], &["sync", &user], &["status"]] {
        assert_refused(
            folder.path(),
            command,
            &[
                "kalends.db has schema version 99",
                "start the newer Kalends",
            ],
        );
    }
}

#[test]
fn a_second_process_on_the_same_store_is_told_who_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 1);
    KalendsToml::of(&google).write(folder.path());
    let user = google.users().remove(0).email;
    let mut first = Process::start(folder.path(), &["run"]);
    first.wait_for_log("synced");
    let owner = format!("in use by process {}", first.id());
    for command in [&["run"][..], &["sync", &user]] {
        let second = kalends(folder.path(), command);
        assert_eq!(second.code, Some(2), "{}", second.errors);
        assert_eq!(second.output, "");
        for part in [owner.as_str(), "stop that one first", "kalends-data"] {
            assert!(second.errors.contains(part), "{part}: {}", second.errors);
        }
    }
    first.stop();
    let _ = kalends(folder.path(), &["sync", &user]).done();
}
