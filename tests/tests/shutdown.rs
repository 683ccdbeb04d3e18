//! SIGTERM and SIGINT: the process ends with 0, nothing stays active, schedules and waiting jobs stay, and whoever
//! starts it again goes on where it was.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kalends_core::rng::{substream, uniform};
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, status, wait_until};
use serde_json::Value;

/// What has to hold after every shutdown.
fn assert_at_rest(folder: &Path) -> Value {
    let status = status(folder);
    assert_eq!(status["active"], 0, "{status}");
    assert_eq!(status["active_jobs"], serde_json::json!([]), "{status}");
    assert_eq!(status["failed_total"], 0, "{status}");
    assert_eq!(status["schedules"][0]["name"], "calendar-sync", "{status}");
    assert!(status["schedules"][0]["next_tick_at"].is_string());
    status
}

fn idle(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 5);
    KalendsToml::of(&google).write(folder.path());
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("synced");
    wait_until("idle", || status(folder.path())["active"] == 0);
    process.signal(signal);
    let ended = process.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(
        ended.errors.contains(&format!("SIG{signal}: no new syncs")),
        "{}",
        ended.errors
    );
    let status = assert_at_rest(folder.path());
    assert_eq!(status["completed_total"], 1, "{status}");
    google.assert_synced(&folder.path().join("kalends-data"));
}

#[test]
fn sigterm_while_idle_ends_at_once() {
    idle("TERM");
}

#[test]
fn sigterm_at_the_very_start_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 5);
    KalendsToml::of(&google).write(folder.path());
    for _ in 0..5 {
        let mut process = Process::start(folder.path(), &["run"]);
        process.wait_for_log("started");
        process.stop();
    }
}

#[test]
fn sigint_does_the_same() {
    idle("INT");
}

#[test]
fn signals_while_jobs_are_claimed_lose_nothing() {
    const USERS: u32 = 120;
    const STOPS: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(2, USERS, 10);
    KalendsToml::of(&google).write(folder.path());
    let mut rng = substream(2, "stops");
    for stop in 0..STOPS {
        let process = Process::start(folder.path(), &["run"]);
        let pages = google.pages_asked() + 1 + uniform(&mut rng, 15) as usize;
        wait_until("further syncs", || google.pages_asked() >= pages);
        std::thread::sleep(Duration::from_micros(uniform(&mut rng, 20_000)));
        process.signal(if stop % 2 == 0 { "TERM" } else { "INT" });
        let ended = process.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        let status = assert_at_rest(folder.path());
        let left = ["waiting", "delayed", "completed_total"].map(|what| status[what].as_u64());
        let all: u64 = left.iter().map(|count| count.unwrap()).sum();
        assert_eq!(all, u64::from(USERS), "{status}");
    }
    let process = Process::start(folder.path(), &["run"]);
    wait_until("the end", || {
        status(folder.path())["completed_total"] == USERS
    });
    process.stop();
    google.assert_synced(&folder.path().join("kalends-data"));
    // Ten events are one page, and every sync that had begun was allowed to finish.
    assert_eq!(google.pages_asked(), USERS as usize);
}

/// A sync of a hundred slow pages.
fn long_sync(shutdown_ms: &str) -> (tempfile::TempDir, GoogleServer, Process) {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(3, 1, 1_000);
    google.lock().delay = Duration::from_millis(100);
    KalendsToml::of(&google)
        .set("google", "page_size", "10")
        .set("worker", "shutdown_ms", shutdown_ms)
        .write(folder.path());
    let process = Process::start(folder.path(), &["run"]);
    wait_until("the middle", || google.pages_asked() >= 10);
    (folder, google, process)
}

/// Starts it again at full speed; it goes on at the page where it was.
fn goes_on(folder: &Path, google: &GoogleServer) {
    google.lock().delay = Duration::ZERO;
    let mut process = Process::start(folder, &["run"]);
    process.wait_for_log("synced");
    process.stop();
    google.assert_synced(&folder.join("kalends-data"));
    let google = google.lock();
    let pages: BTreeSet<&Option<String>> =
        google.pages.iter().map(|page| &page.page_token).collect();
    assert_eq!(pages.len(), 100);
    let again = google.pages.len() - pages.len();
    assert!(again <= 1, "{again} pages were fetched again");
}

#[test]
fn a_long_sync_is_handed_back_at_the_deadline_and_goes_on_after_a_restart() {
    let (folder, google, process) = long_sync("3000");
    process.signal("TERM");
    let ended = process.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(ended.errors.contains("handed back"), "{}", ended.errors);
    let status = assert_at_rest(folder.path());
    assert_eq!(status["waiting"], 1, "{status}");
    assert!(google.pages_asked() < 100);
    goes_on(folder.path(), &google);
}

#[test]
fn a_long_sync_may_finish_before_the_deadline() {
    let (folder, google, process) = long_sync("170000");
    process.signal("INT");
    let ended = process.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let status = assert_at_rest(folder.path());
    assert_eq!(status["completed_total"], 1, "{status}");
    assert_eq!(google.pages_asked(), 100);
    google.assert_synced(&folder.path().join("kalends-data"));
}

#[test]
fn a_second_signal_hurries() {
    let (folder, google, mut process) = long_sync("170000");
    process.signal("TERM");
    process.wait_for_log("SIGTERM: no new syncs");
    process.signal("TERM");
    let ended = process.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let status = assert_at_rest(folder.path());
    assert_eq!(status["waiting"], 1, "{status}");
    assert!(google.pages_asked() < 100);
    goes_on(folder.path(), &google);
}
