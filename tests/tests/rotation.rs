//! The key of the grants is changed while a process syncs with them, as the README says: nobody has to connect again, and at the end
//! every grant is opened by the new key alone.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;

use kalends::clock::SystemClock;
use kalends_core::time::Clock as _;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::ask_api;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, kalends, status, wait_until};
use serde_json::{Value, json};

const TOKEN: &str = "planted-api-token-55aa";
const FIRST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const SECOND: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
const THIRD: &str = "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13";
const USERS: u32 = 8;

fn write_keys(folder: &Path, keys: &[&str]) {
    std::fs::write(folder.join("keys"), keys.join("\n")).unwrap();
}

/// Google forgets the access tokens, so that each next sync opens a grant.
fn forget_access(google: &GoogleServer) {
    for user in google.users() {
        let emulator = &mut google.lock().emulator;
        emulator
            .expire_access_tokens(SystemClock.now(), &user.email)
            .unwrap();
    }
}

/// Asks for a sync of everybody.
fn ask_for_all(address: &str, google: &GoogleServer) {
    for user in google.users() {
        let body = json!({ "user": user.email }).to_string();
        let (code, said) = ask_api(address, TOKEN, "POST", "/api/v1/sync", &body);
        assert_eq!(code, 202, "{said}");
    }
}

fn total(folder: &Path, name: &str) -> u64 {
    status(folder)[name].as_u64().unwrap()
}

/// Everybody opens a grant and is synced by it, and nobody fails or must connect again.
fn assert_all_synced_anew(folder: &Path, address: &str, google: &GoogleServer) {
    let before = total(folder, "completed_total");
    let tokens = google.lock().emulator.counters().token_requests;
    forget_access(google);
    ask_for_all(address, google);
    wait_until("everybody's sync", || {
        total(folder, "completed_total") >= before + u64::from(USERS)
            || total(folder, "failed_total") > 0
    });
    let now = status(folder);
    assert_eq!(
        (&now["failed_total"], &now["parked"]),
        (&0.into(), &0.into()),
        "{now}"
    );
    let asked = google.lock().emulator.counters().token_requests - tokens;
    assert!(asked >= u64::from(USERS), "{asked} grants were opened");
}

/// The keys by which grants are sealed, each once.
fn keys_in_use(folder: &Path) -> Vec<Value> {
    let listed = kalends(folder, &["users", "list", "--json"]).done().json();
    let users = listed["users"].as_array().unwrap();
    assert_eq!(users.len(), USERS as usize);
    let mut keys: Vec<Value> = users.iter().map(|user| user["key"].clone()).collect();
    keys.sort_by_key(Value::to_string);
    keys.dedup();
    keys
}

#[test]
fn a_key_is_changed_while_a_process_runs_and_nobody_connects_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let google = GoogleServer::start(3, USERS, 2);
    write_keys(folder, &[FIRST]);
    KalendsToml::new(&google.url)
        .set("credentials", "keys_file", r#""keys""#)
        .set("http", "token", &format!("{TOKEN:?}"))
        .set("retry", "attempts", "1")
        .write(folder);
    let mut file = "id,refresh_token\n".to_owned();
    for access in google.users() {
        file.push_str(&format!("{},{}\n", access.email, access.refresh_token));
    }
    std::fs::write(folder.join("users.csv"), file).unwrap();
    let _ = kalends(folder, &["users", "import", "users.csv"]).done();
    let (process, _) = Process::serve(folder, &[]);
    wait_until("the first syncs", || {
        total(folder, "completed_total") == u64::from(USERS)
    });
    let [first] = &keys_in_use(folder)[..] else {
        panic!("more than one key");
    };

    // A new key on the first line, and the process is started again.
    write_keys(folder, &[SECOND, FIRST]);
    process.stop();
    let (process, address) = Process::serve(folder, &[]);
    assert_all_synced_anew(folder, &address, &google);

    // Grants are sealed anew while syncs open them: before, under and after their change.
    let reseal = Process::start(folder, &["users", "reseal"]);
    assert_all_synced_anew(folder, &address, &google);
    let resealed = reseal.wait().done();
    assert!(
        resealed.output.starts_with("8 sealed by the key"),
        "{}",
        resealed.output
    );
    assert_all_synced_anew(folder, &address, &google);
    let [second] = &keys_in_use(folder)[..] else {
        panic!("not all are sealed by the new key");
    };
    assert_ne!(first, second);

    // The old key goes.
    write_keys(folder, &[SECOND]);
    process.stop();
    let (process, address) = Process::serve(folder, &[]);
    assert_all_synced_anew(folder, &address, &google);

    // Out of order: sealed by a key that the process does not know. Syncs fail, and still nobody is parked for it.
    write_keys(folder, &[THIRD, SECOND]);
    let _ = kalends(folder, &["users", "reseal"]).done();
    forget_access(&google);
    let before = total(folder, "completed_total");
    ask_for_all(&address, &google);
    wait_until("everybody's end", || {
        let now = status(folder);
        let ended = now["completed_total"].as_u64().unwrap() - before
            + now["failed_total"].as_u64().unwrap();
        ended >= u64::from(USERS)
    });
    let now = status(folder);
    assert_eq!(now["parked"], 0, "{now}");
    assert_eq!(now["failed_total"], USERS, "{now}");
    process.stop();
    write_keys(folder, &[THIRD]);
    let (process, address) = Process::serve(folder, &[]);
    let before = total(folder, "completed_total");
    ask_for_all(&address, &google);
    wait_until("everybody's sync", || {
        total(folder, "completed_total") >= before + u64::from(USERS)
    });
    assert_eq!(total(folder, "parked"), 0);
    google.assert_synced(&folder.join("kalends-data"));
    process.stop();
}
