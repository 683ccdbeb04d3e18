//! Push as somebody tries it by hand: an emulated Google that posts, a process that listens, and nobody between them.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use kalends_tests::http_client::ask;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, emulator, status, wait_until};

#[test]
fn a_change_at_the_emulated_google_is_synced_by_push_and_forged_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let flags = "google --port 0 --users 2 --events 3 --change-every 1 --push-forged-every 2 --push-doubled-every 3";
    let flags: Vec<&str> = flags.split(' ').collect();
    let (mut google, url) = emulator(folder.path(), &flags);
    let said = google.output();
    let users = said.lines().filter_map(|line| line.split_once('\t'));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = listener.local_addr().unwrap();
    drop(listener);
    let toml = users.fold(KalendsToml::new(&url), |toml, (user, token)| {
        toml.user(user, token, None)
    });
    // A tick a year: what is synced later than the first time was told of.
    toml.set("push", "address", &format!("\"http://{hook}/google\""))
        .set("push", "listen", &format!("\"{hook}\""))
        .set(
            "push",
            "key",
            &format!("{:?}", "0123456789abcdef".repeat(2)),
        )
        .write(folder.path());
    let (process, http) = Process::serve(folder.path(), &[]);
    let counted = |outcome: &str| -> u64 {
        let host = format!("Host: {http}");
        let (_, text) = ask(&http, "GET", "/metrics", &[&host], "");
        let name = format!("kalends_push_notifications_total{{outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().parse().unwrap()
    };
    wait_until("changes that were told of", || {
        let completed = status(folder.path())["completed_total"].as_u64();
        completed.unwrap() >= 4 && counted("accepted") >= 2 && counted("forged") >= 1
    });
    google.wait_for_output("# a change, told to kalends-");
    google.wait_for_output("# forged, told to kalends-");
    let ended = process.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let said = google.stop().output;
    let answered = |what: &str| {
        let own = said.lines().filter(|line| line.starts_with(what));
        own.map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(answered("# a change").contains(&"204".to_owned()), "{said}");
    assert!(answered("# forged").contains(&"404".to_owned()), "{said}");
    assert!(!answered("# forged").contains(&"204".to_owned()), "{said}");
}
