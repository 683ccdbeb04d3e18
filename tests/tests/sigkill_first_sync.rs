//! SIGKILL in the middle of a first sync, several times, each time started again: in the end the graph is the
//! calendar, and no page was fetched twice beyond the one in flight at each kill.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use kalends_core::rng::{substream, uniform};
use kalends_tests::google_server::{GoogleServer, PageAsked};
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, kalends, wait_until};

/// The seed of everything but the operating system.
const SEED: u64 = 11;
/// Events in the calendar.
const EVENTS: u32 = 5_000;
/// Events a page, and so a hundred pages.
const PAGE_SIZE: u32 = 50;
/// Pages of a pass that nothing disturbs.
const PAGES: usize = (EVENTS / PAGE_SIZE) as usize;
/// Kills, each in a further stretch of the pass: as many as a sync may suffer before it is given up until the next tick
/// (`stalls_max`).
const KILLS: usize = 3;
/// A kill comes after 1 to this many further pages, so that all of them together stay far from the end.
const NEW_PAGES_MAX: u64 = 15;
/// How long Google takes for a page: with this a test that is held up for a second still kills in the middle.
const PAGE: Duration = Duration::from_millis(40);
/// And up to this long after that page was asked for, in microseconds: it is answered, written, committed meanwhile.
const AFTER_PAGE_US_MAX: u64 = 80_000;

#[test]
fn a_first_sync_that_is_killed_again_and_again_ends_in_the_same_graph() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(SEED, 1, EVENTS);
    google.lock().delay = PAGE;
    KalendsToml::of(&google)
        .set("google", "page_size", &PAGE_SIZE.to_string())
        .write(folder.path());
    let mut rng = substream(SEED, "kills");

    for kill in 0..KILLS {
        let process = Process::start(folder.path(), &["run"]);
        let new_pages = 1 + uniform(&mut rng, NEW_PAGES_MAX - 1) as usize;
        let pages = google.pages_asked() + new_pages;
        wait_until("further pages", || google.pages_asked() >= pages);
        std::thread::sleep(Duration::from_micros(uniform(&mut rng, AFTER_PAGE_US_MAX)));
        process.kill();
        assert!(
            google.pages_asked() < PAGES + kill,
            "kill {kill} came after the end"
        );
    }
    google.lock().delay = Duration::ZERO;
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("synced");
    process.stop();

    google.assert_synced(&folder.path().join("kalends-data"));
    let mut asked: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for PageAsked {
        sync_token,
        page_token,
        ..
    } in &google.lock().pages
    {
        assert_eq!(*sync_token, None, "the first pass was not over");
        *asked.entry(page_token.clone()).or_default() += 1;
    }
    assert_eq!(asked.len(), PAGES, "every page was fetched");
    let again: usize = asked.values().map(|times| times - 1).sum();
    assert!(
        again <= KILLS,
        "{again} pages were fetched again: {asked:?}"
    );
    let counters = google.lock().emulator.counters().clone();
    let served = counters.events_served;
    assert!(served >= u64::from(EVENTS), "{counters:?}");

    // What was committed is a cursor: the next sync is an increment.
    let user = google.users().remove(0).email;
    let next = kalends(folder.path(), &["sync", &user, "--json"]).done();
    assert_eq!(next.json()["requests"], 1, "{}", next.output);
    assert_eq!(google.lock().emulator.counters().increments, 1);
}
