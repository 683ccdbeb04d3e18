//! The page, in a real browser, on a real process.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::PathBuf;
use std::process::Command;

use kalends_sim::google::Fault;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, status, wait_until};

const TOKEN: &str = "planted-api-token-51d0";
/// A name that would be a picture with a script, were it taken for markup.
const HOSTILE: &str = "<img src=x onerror=planted=1>";

/// Pictures are left in the folder that `KALENDS_PICTURES` names.
#[test]
#[ignore = "needs Chromium and Node.js; scripts/test runs it"]
fn the_page_shows_changes_and_changes_things() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(7, 40, 5);
    let failed = google.users().remove(3).email;
    let fault = Fault::Html { status: 503 };
    google.lock().emulator.inject(Some(&failed), fault).unwrap();
    KalendsToml::of(&google)
        .user(HOSTILE, "no-such-grant", None)
        .set("http", "token", &format!("{TOKEN:?}"))
        .set("retry", "attempts", "1")
        .write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[]);
    let url = format!("http://{address}");
    wait_until("everybody's first sync", || {
        let status = status(folder.path());
        status["completed_total"] == 39 && status["failed_total"] == 2
    });

    let pictures = std::env::var_os("KALENDS_PICTURES").map(PathBuf::from);
    let pictures = pictures.unwrap_or_else(|| folder.path().to_owned());
    std::fs::create_dir_all(&pictures).unwrap();
    let ended = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/browser/page.mjs"))
        .args([&url, TOKEN, &failed, HOSTILE])
        .arg(&pictures)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned()
        + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("all is well"), "{said}");
    let ended = process.stop();
    assert!(!ended.errors.contains(TOKEN), "{}", ended.errors);
}
