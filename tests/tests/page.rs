//! The page, in a real browser, on a real process.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::path::PathBuf;
use std::process::Command;

use kalends::clock::SystemClock;
use kalends_core::time::{Clock as _, HOUR_MS, Timestamp};
use kalends_sim::google::{Change, DraftStart, EventDraft, Fault};
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::process::{Process, status, wait_until};

const TOKEN: &str = "planted-api-token-51d0";
/// A name that would be a picture with a script, were it taken for markup.
const HOSTILE: &str = "<img src=x onerror=planted=1>";

/// Titles that would do something, were they shown as they are; none is shown at all.
const TITLES: [&str; 3] = [
    "<img src=x onerror=planted=2>planted-title",
    "</script><script>planted=3</script>planted-title",
    "\u{202e}planted-title\u{1b}[31m",
];

/// One a line.
fn never_shown(google: &GoogleServer) -> String {
    let grants = google.users().into_iter().map(|one| one.refresh_token);
    let fixed = [
        TOKEN,
        CLIENT_SECRET,
        "no-such-grant",
        "planted-title",
        "ya29.",
    ];
    let words: Vec<String> = fixed.map(str::to_owned).into_iter().chain(grants).collect();
    words.join("\n")
}

fn create(google: &GoogleServer, user: &str, title: &str) {
    let now = SystemClock.now();
    let draft = EventDraft {
        summary: Some(title.to_owned()),
        start: DraftStart::At {
            at: Timestamp::from_ms(now.as_ms() / 1_000 * 1_000).plus_ms(24 * HOUR_MS),
            zone: "Europe/Berlin".to_owned(),
        },
        length_minutes: 30,
        repeat: None,
        guests: 1,
    };
    let emulator = &mut google.lock().emulator;
    emulator.apply(now, user, &Change::Create(draft)).unwrap();
}

/// Pictures are left in the folder that `KALENDS_PICTURES` names.
#[test]
#[ignore = "needs Chromium and Node.js; scripts/test runs it"]
fn the_page_shows_changes_and_changes_things() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(7, 40, 5);
    let failed = google.users().remove(3).email;
    for user in google.users() {
        for title in TITLES {
            create(&google, &user.email, title);
        }
    }
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
        // What the page must never hold: secrets, and what events say.
        .env("KALENDS_NEVER_SHOWN", never_shown(&google))
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
