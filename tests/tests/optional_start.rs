//! A process whose Redis is not there: it stays up, says what it waits for, and ends in good order when asked.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::Path;

use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::{get, get_as};
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, kalends, wait_until};
use kalends_tests::redis_server::free_port;

/// The password of every Redis here: nothing that is said may hold it.
const PASSWORD: &str = "planted-redis-password-3e9a";
/// In milliseconds, and longer than any test waits: whoever ends earlier did not wait for it.
const SHUTDOWN_MS: &str = "3600000";

/// Starts `kalends run` with its HTTP face on a free port; the process and the address.
fn run(folder: &Path, redis_url: Option<&str>) -> (Process, String) {
    let variables: Vec<(&str, &str)> = redis_url
        .map(|url| [("KALENDS_REDIS_URL", url), ("KALENDS_REDIS_PREFIX", "test")])
        .into_iter()
        .flatten()
        .collect();
    let arguments = ["run", "--http", "127.0.0.1:0"];
    let mut process = Process::start_with(folder, &arguments, &variables);
    let place = "/readyz are served at http://";
    process.wait_for_log(place);
    let errors = process.errors();
    let (_, rest) = errors.split_once(place).unwrap();
    let address = rest.lines().next().unwrap().trim().to_owned();
    (process, address)
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
