//! `kalends users` as a person uses it: added, connected, imported and removed, beside a running process, against an
//! emulated Google; and no grant is ever seen again.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;

use kalends_core::id::UserId;
use kalends_core::port::Graph as _;
use kalends_core::queue::command::LeaseToken;
use kalends_tests::browser::visit;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{Ended, Process, kalends, status, wait_until};
use kalends_tests::redis_server::{RedisOptions, RedisServer, free_port};
use serde_json::Value;

const KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const NEWER_KEY: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
/// What every refresh token of the emulator begins with.
const TOKEN_PREFIX: &str = "refresh-0";

fn configured(folder: &Path, google: &GoogleServer) -> KalendsToml {
    std::fs::write(folder.join("keys"), format!("{KEY}\n")).unwrap();
    KalendsToml::new(&google.url).set("credentials", "keys_file", r#""keys""#)
}

/// Begins a consent; the process, and the address that it prints.
fn begin_connect(folder: &Path, user: &str, more: &[&str]) -> (Process, String) {
    let arguments = [&["users", "connect", user, "--no-browser"][..], more].concat();
    let mut process = Process::start(folder, &arguments);
    process.wait_for_output("/o/oauth2/v2/auth?");
    process.wait_for_output("\n");
    let address = process.output().trim().to_owned();
    (process, address)
}

fn connect(folder: &Path, user: &str) -> Ended {
    let (process, address) = begin_connect(folder, user, &[]);
    let (code, place, _) = visit(&address);
    assert_eq!(code, 302);
    let (code, _, page) = visit(&place.unwrap());
    assert_eq!(code, 200, "{page}");
    process.wait()
}

fn users(folder: &Path) -> Vec<Value> {
    let listed = kalends(folder, &["users", "list", "--json"]).done().json();
    listed["users"].as_array().unwrap().clone()
}

fn said(ended: &Ended) -> String {
    format!("{}{}", ended.output, ended.errors)
}

/// Every file below `folder`, as bytes that are looked through for secrets.
fn assert_no_secret_on_disk(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for secret in [TOKEN_PREFIX, CLIENT_SECRET, KEY, "ya29."] {
                let found = bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} in {}", path.display());
            }
        }
    }
    assert!(files > 0);
}

fn assert_no_secret(text: &str) {
    for secret in [TOKEN_PREFIX, CLIENT_SECRET, KEY, "ya29."] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
}

#[test]
fn a_user_who_connects_while_a_process_runs_is_synced_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 5);
    let [ada, bob] = [0, 1].map(|place| google.users().remove(place).email);
    let address = format!("127.0.0.1:{}", free_port());
    configured(folder.path(), &google)
        .set("http", "listen", &format!("{address:?}"))
        .set("log", "level", r#""trace""#)
        .write(folder.path());
    let data = folder.path().join("kalends-data");
    let process = Process::start(folder.path(), &["run", "--record", "journal"]);
    wait_until("a store", || data.join("kalends.db").exists());

    // Without a grant the user is there, visibly, and costs Google nothing.
    let added = kalends(folder.path(), &["users", "add", &bob]).done();
    assert!(
        added.output.contains("not connected yet"),
        "{}",
        added.output
    );
    let again = kalends(folder.path(), &["users", "add", &bob]);
    assert_eq!(again.code, Some(2), "{}", again.errors);
    wait_until("the one without a grant to be parked", || {
        status(folder.path())["parked"] == 1
    });
    assert_eq!(google.lock().emulator.counters().token_requests, 0);
    let waiting = kalends(folder.path(), &["users", "list", "--needs-reauth"]).done();
    assert!(waiting.output.contains(&bob), "{}", waiting.output);
    assert!(
        waiting.output.contains("not connected"),
        "{}",
        waiting.output
    );

    let ended = [&ada, &bob].map(|user| connect(folder.path(), user).done());
    assert!(
        ended[0]
            .errors
            .contains(&format!("{ada} added and connected"))
    );
    assert!(ended[1].errors.contains(&format!("{bob} connected")));
    wait_until("both to be synced", || {
        status(folder.path())["completed_total"] == 2
    });
    assert_eq!(status(folder.path())["parked"], 0);
    google.assert_synced(&data);
    for user in users(folder.path()) {
        assert_eq!(user["condition"], "ok", "{user}");
        assert_eq!(user["account"], user["user"], "{user}");
        assert_eq!(
            user["scopes"][0],
            "https://www.googleapis.com/auth/calendar.readonly"
        );
        assert!(user["key"].is_string(), "{user}");
        assert_no_secret(&user.to_string());
    }
    let shown = kalends(folder.path(), &["users", "show", &ada]).done();
    assert!(
        shown.output.contains("condition        ok"),
        "{}",
        shown.output
    );

    for path in [
        "status",
        "users",
        &format!("users/{ada}"),
        "jobs?state=completed",
    ] {
        let (code, _, answer) = visit(&format!("http://{address}/api/v1/{path}"));
        assert_eq!(code, 200, "{path}");
        assert_no_secret(&answer);
    }
    let (_, _, metrics) = visit(&format!("http://{address}/metrics"));
    assert_no_secret(&metrics);

    // Removed, with everything: the running process does it.
    let removed = kalends(folder.path(), &["users", "remove", &ada, "--purge"]).done();
    assert!(
        removed.output.contains("its graph emptied"),
        "{}",
        removed.output
    );
    wait_until("the graph to be empty", || {
        let log = process.errors();
        log.contains("the removed user's graph is empty")
    });
    let names: Vec<Value> = users(folder.path());
    assert_eq!(names.len(), 1, "{names:?}");
    let ended_run = process.stop();
    for text in [
        said(&ended[0]),
        said(&ended[1]),
        said(&shown),
        said(&removed),
        said(&ended_run),
    ] {
        assert_no_secret(&text);
    }
    assert_no_secret_on_disk(&data);
    for name in ["journal", "journal.key"] {
        assert_no_secret(&std::fs::read_to_string(folder.path().join(name)).unwrap());
    }
    let connection = rusqlite::Connection::open(data.join("kalends.db")).unwrap();
    let mut left: Vec<String> = connection
        .prepare("SELECT uid FROM node WHERE label = 'User'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    left.sort();
    assert_eq!(left, [bob]);
}

#[test]
fn a_revoked_grant_costs_one_call_and_waits_for_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let ada = google.users().remove(0).email;
    configured(folder.path(), &google).write(folder.path());
    let _ = connect(folder.path(), &ada).done();
    google.lock().emulator.revoke(&ada).unwrap();
    let asked = || google.lock().emulator.counters().token_requests;
    let before = asked();

    let process = Process::start(folder.path(), &["run"]);
    wait_until("the user to be parked", || {
        folder.path().join("kalends-data/kalends.db").exists()
            && status(folder.path())["parked"] == 1
    });
    assert_eq!(asked(), before + 1);
    let listed = users(folder.path());
    assert_eq!(listed[0]["condition"], "needs reauth", "{listed:?}");
    assert_eq!(
        status(folder.path())["needs_reauth"],
        serde_json::json!([ada])
    );
    let words = kalends(folder.path(), &["status"]).done().output;
    assert!(
        words.contains(&format!("must connect again: {ada}")),
        "{words}"
    );
    process.stop();
    // A start tells the same grant anew, and asks nobody.
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("changes of added users are carried into the queue");
    let now = status(folder.path());
    let under_way = ["waiting", "delayed", "active"].map(|name| now[name].as_u64().unwrap());
    assert_eq!(
        (now["parked"].as_u64(), under_way),
        (Some(1), [0; 3]),
        "{now}"
    );
    assert_eq!(asked(), before + 1);

    let _ = connect(folder.path(), &ada).done();
    wait_until("the sync", || status(folder.path())["completed_total"] == 1);
    assert_eq!(users(folder.path())[0]["condition"], "ok");
    process.stop();
    google.assert_synced(&folder.path().join("kalends-data"));
}

#[test]
fn a_consent_that_goes_wrong_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 1);
    let [ada, bob] = [0, 1].map(|place| google.users().remove(place).email);
    configured(folder.path(), &google).write(folder.path());

    // The user refuses; somebody else answers first, with a state that is not ours.
    let (process, address) = begin_connect(folder.path(), &ada, &[]);
    let (_, place, _) = visit(&format!("{address}&emulate=deny"));
    let place = place.unwrap();
    let forged = place
        .replace("error=access%5Fdenied", "code=forged")
        .replace("state=", "state=x");
    assert_eq!(visit(&forged).0, 404);
    assert_eq!(visit(&place).0, 200);
    let ended = process.wait();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.errors.contains("Google says access_denied"),
        "{}",
        ended.errors
    );

    // The tick at the calendars is taken away.
    let (process, address) = begin_connect(folder.path(), &ada, &[]);
    let (_, place, _) = visit(&format!("{address}&emulate=no_scope"));
    let _ = visit(&place.unwrap());
    let ended = process.wait();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.errors.contains("did not allow the calendars"),
        "{}",
        ended.errors
    );

    // Another account consents.
    let hint = format!("login_hint={}", ada.replace('@', "%40"));
    let other = format!("login_hint={}", bob.replace('@', "%40"));
    let (process, address) = begin_connect(folder.path(), &ada, &[]);
    assert!(address.contains(&hint), "{address}");
    let (_, place, _) = visit(&address.replace(&hint, &other));
    let _ = visit(&place.unwrap());
    let ended = process.wait();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .errors
            .contains(&format!("{bob} consented, not {ada}")),
        "{}",
        ended.errors
    );
    assert!(users(folder.path()).is_empty());
    let (process, address) = begin_connect(folder.path(), &ada, &["--any-account"]);
    let (_, place, _) = visit(&address.replace(&hint, &other));
    let _ = visit(&place.unwrap());
    assert!(
        process
            .wait()
            .done()
            .errors
            .contains(&format!("to the calendars of {bob}"))
    );

    // Nobody comes.
    let ended = kalends(
        folder.path(),
        &["users", "connect", &bob, "--no-browser", "--timeout", "1"],
    );
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.errors.contains("nobody came back"),
        "{}",
        ended.errors
    );

    // Without a key nobody is sent to Google at all.
    KalendsToml::new(&google.url).write(folder.path());
    let ended = kalends(folder.path(), &["users", "connect", &bob, "--no-browser"]);
    assert_eq!((ended.code, ended.output.as_str()), (Some(2), ""));
    assert!(
        ended.errors.contains("openssl rand -hex 32"),
        "{}",
        ended.errors
    );
}

#[test]
fn a_file_is_imported_line_by_line_and_keys_can_change() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 4, 2);
    let accesses = google.users();
    let toml =
        configured(folder.path(), &google).user("cfg@example.com", "planted-cfg-token", None);
    toml.write(folder.path());
    let mut file = "id,refresh_token,graph_database\n".to_owned();
    for access in &accesses[..3] {
        file.push_str(&format!("\"{}\",{},\n", access.email, access.refresh_token));
    }
    file.push_str("cfg@example.com,refresh-0-x,\nbad token@example.com,refresh-0 planted,\nonly-two,refresh-0-x\n");
    file.push_str(&format!("{},refresh-0-x,\n", accesses[0].email));
    std::fs::write(folder.path().join("users.csv"), &file).unwrap();
    let import = |more: &[&str]| {
        kalends(
            folder.path(),
            &[&["users", "import", "users.csv"][..], more].concat(),
        )
    };

    let dry = import(&["--dry-run"]);
    assert!(
        dry.output
            .contains("3 added, 0 connected anew, 0 unchanged, 4 refused (nothing was changed)"),
        "{}",
        said(&dry)
    );
    assert_eq!(users(folder.path()).len(), 1);
    let first = import(&[]);
    assert_eq!(first.code, Some(1));
    for part in [
        "line 2: user-00001@example.com added\n",
        "line 5: cfg@example.com refused: is a user of the configuration",
        "line 6: bad token@example.com refused: the refresh token is no token",
        "line 7: refused: has 2 values; the first line names 3 columns",
        "line 8: user-00001@example.com refused: stands in this file twice",
        "3 added, 0 connected anew, 0 unchanged, 4 refused\n",
    ] {
        assert!(first.output.contains(part), "{part}\n{}", said(&first));
    }
    let second = import(&["--json"]);
    assert_eq!(second.json()["unchanged"], 3, "{}", second.output);

    // Added users are synced like others, by hand, too.
    let _ = kalends(folder.path(), &["sync", &accesses[0].email]).done();

    // A new key in front; then the old one goes.
    std::fs::write(folder.path().join("keys"), format!("{NEWER_KEY}\n{KEY}\n")).unwrap();
    let resealed = kalends(folder.path(), &["users", "reseal"]).done();
    assert!(
        resealed.output.contains("3 sealed by the key"),
        "{}",
        resealed.output
    );
    std::fs::write(folder.path().join("keys"), format!("{NEWER_KEY}\n")).unwrap();
    let resealed = kalends(folder.path(), &["users", "reseal"]).done();
    assert!(
        resealed.output.starts_with("0 sealed"),
        "{}",
        resealed.output
    );
    let _ = kalends(folder.path(), &["sync", &accesses[1].email]).done();
    // With the old one alone nothing opens, and nobody is parked for it.
    std::fs::write(folder.path().join("keys"), format!("{KEY}\n")).unwrap();
    let failed = kalends(folder.path(), &["sync", &accesses[2].email, "--json"]);
    assert_eq!(failed.json()["parked"], false, "{}", said(&failed));
    assert!(
        failed.output.contains("not among credentials.keys"),
        "{}",
        failed.output
    );

    for ended in [&dry, &first, &second, &resealed, &failed] {
        assert_no_secret(&said(ended));
    }
    assert_no_secret_on_disk(&folder.path().join("kalends-data"));

    // Nobody runs: removed at once, by the command itself.
    let user = &accesses[0].email;
    let removed = kalends(folder.path(), &["users", "remove", user, "--purge"]).done();
    assert!(
        removed.output.contains("its graph emptied"),
        "{}",
        removed.output
    );
    let unknown = kalends(folder.path(), &["users", "show", user]);
    assert_eq!(unknown.code, Some(2), "{}", said(&unknown));
    let nobody = kalends(folder.path(), &["users", "remove", user]);
    assert_eq!(nobody.code, Some(2), "{}", said(&nobody));
}

#[test]
fn in_redis_the_same_holds_with_a_graph_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 2, 4);
    let [ada, bob] = [0, 1].map(|place| google.users().remove(place).email);
    let redis = RedisServer::start(&RedisOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (neo4j, graph) = runtime.block_on(Neo4jServer::shared());
    configured(folder.path(), &google)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""users-test""#)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", r#""kalends""#)
        .write(folder.path());
    let process = Process::start(folder.path(), &["run"]);
    let ended = [&ada, &bob].map(|user| connect(folder.path(), user).done());
    wait_until("both to be synced", || {
        status(folder.path())["completed_total"] == 2
    });

    let removed = kalends(folder.path(), &["users", "remove", &ada, "--purge"]).done();
    assert!(
        removed.output.contains("its graph emptied"),
        "{}",
        removed.output
    );
    assert_eq!(users(folder.path()).len(), 1);
    let events = |name: &str| {
        let user = UserId::new(name).unwrap();
        runtime
            .block_on(graph.snapshot(&user))
            .unwrap()
            .events
            .len()
    };
    assert_eq!((events(&ada), events(&bob)), (0, 4));
    let remove = |name: &str| {
        let user = UserId::new(name).unwrap();
        runtime
            .block_on(graph.remove_user(&user, LeaseToken(u64::MAX >> 12)))
            .unwrap()
    };
    assert!(!remove(&ada), "the node is gone");
    assert!(!remove(&bob), "this one has a calendar");
    let ended_run = process.stop();
    for text in [
        said(&ended[0]),
        said(&ended[1]),
        said(&removed),
        said(&ended_run),
    ] {
        assert_no_secret(&text);
    }
    let mut values = 0;
    for key in redis.cli(&["KEYS", "*"]).lines() {
        for ask in [
            ["GET", key].as_slice(),
            &["HGETALL", key],
            &["ZRANGE", key, "0", "-1"],
            &["LRANGE", key, "0", "-1"],
        ] {
            if let Ok(value) = redis.command(ask) {
                values += 1;
                assert_no_secret(&value);
            }
        }
    }
    assert!(values > 10, "{values}");
    let sealed = redis.cli(&["HGETALL", "{users-test}:accounts"]);
    assert!(sealed.contains(&bob) && sealed.contains("k1."), "{sealed}");
}
