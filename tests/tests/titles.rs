//! Titles of events are anybody's words. They go into the graph as they are and are shown nowhere; the words of a server that
//! refuses something are shown nowhere as they are, either.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use kalends::clock::SystemClock;
use kalends_core::time::{Clock as _, HOUR_MS, Timestamp};
use kalends_sim::google::{Change, DraftStart, EventDraft, Fault};
use kalends_sim::neo4j;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{Process, kalends, status, wait_until};
use kalends_tests::shown::Shown;
use serde_json::Value;

const TOKEN: &str = "planted-http-token-5e1f";
/// What every title here holds, in one piece.
const TITLE: &str = "planted_title";
/// What every word of a server here holds.
const WORDS: &str = "planted_words";

/// Titles that would be markup, a script, another direction of writing, other lines of a log, or much.
fn titles() -> Vec<String> {
    vec![
        format!("<img src=x onerror={TITLE}=1>"),
        format!("</script><script>{TITLE}=1</script>"),
        format!("{{{{{TITLE}}}}} ${{{TITLE}}} '; MATCH (n) DETACH DELETE n //"),
        format!("\u{202e}{TITLE}\u{2066}\u{200f}"),
        format!("{TITLE}\r\nlevel=ERROR forged=\u{1b}[31m\u{7}\u{8}\u{9b}\u{85}\u{2028}"),
        format!("{TITLE}{}", "x".repeat(20_000)),
    ]
}

/// Nothing in it writes backwards, rings or begins a line of its own.
fn assert_plain(place: &str, text: &str) {
    for (number, line) in text.lines().enumerate() {
        let odd = line.chars().find(|one| {
            one.is_control()
                || matches!(one, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(odd, None, "{place}, line {}: {line:?}", number + 1);
    }
}

fn create(google: &GoogleServer, user: &str, title: &str) {
    let now = SystemClock.now();
    // Times on the wire have whole seconds.
    let second = Timestamp::from_ms(now.as_ms() / 1_000 * 1_000);
    let draft = EventDraft {
        summary: Some(title.to_owned()),
        start: DraftStart::At {
            at: second.plus_ms(24 * HOUR_MS),
            zone: "Europe/Berlin".to_owned(),
        },
        length_minutes: 30,
        repeat: None,
        guests: 1,
    };
    let emulator = &mut google.lock().emulator;
    emulator.apply(now, user, &Change::Create(draft)).unwrap();
}

#[test]
fn hostile_titles_reach_the_graph_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let google = GoogleServer::start(9, 3, 2);
    let users: Vec<String> = google.users().into_iter().map(|one| one.email).collect();
    for user in &users {
        for title in titles() {
            create(&google, user, &title);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (neo4j, _) = runtime.block_on(Neo4jServer::shared());
    KalendsToml::of(&google)
        .set("log", "level", r#""trace""#)
        .set("http", "token", &format!("{TOKEN:?}"))
        .set("retry", "attempts", "1")
        .set("worker", "concurrency", "1")
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", &format!("{:?}", neo4j.url))
        .set("graph", "password", r#""kalends""#)
        .set("record", "file", r#""journal""#)
        .write(folder);
    // Google refuses one user in words of its own, and the graph quotes what it does not take.
    let words = format!("{WORDS}</script>\u{1b}[31m\u{202e}\r\nforged");
    let fault = Fault::Error {
        status: 400,
        reason: words.clone(),
    };
    google
        .lock()
        .emulator
        .inject(Some(&users[0]), fault)
        .unwrap();
    let quoting = |code: &str| {
        neo4j::Fault::FailedAfterData(neo4j::ServerError::new(code, &*format!("{words} {TITLE}")))
    };
    neo4j.emulator().let_pass(8);
    neo4j
        .emulator()
        .inject(quoting("Neo.ClientError.Statement.TypeError"));
    neo4j.emulator().let_pass(4);
    neo4j.emulator().inject(quoting(&words));
    let (process, address) = Process::serve(folder, &[]);
    wait_until("everybody's first end", || {
        let now = status(folder);
        now["completed_total"].as_u64().unwrap() + now["failed_total"].as_u64().unwrap() >= 3
    });
    // Once more, without faults, until all is there.
    neo4j.emulator().clear_faults();
    for user in &users {
        let before = status(folder)["completed_total"].as_u64().unwrap();
        let body = serde_json::json!({ "user": user }).to_string();
        let (code, said) =
            kalends_tests::http_client::ask_api(&address, TOKEN, "POST", "/api/v1/sync", &body);
        assert_eq!(code, 202, "{said}");
        wait_until("a sync", || {
            status(folder)["completed_total"].as_u64().unwrap() > before
        });
    }

    let mut shown = Shown::default();
    shown.add_answers(&address, TOKEN, &users);
    shown.add_commands(folder, &users);
    let ended = process.stop();
    shown.add("log", ended.errors);
    shown.add_files(folder, "journal");
    let replayed = kalends(folder, &["replay", "journal"]).done();
    shown.add("kalends replay", replayed.output + &replayed.errors);

    // They went all the way, as they are.
    let emulator = neo4j.emulator();
    let graph = emulator.graph("neo4j").unwrap();
    for title in titles() {
        let wanted = Value::String(title.clone());
        let events = graph
            .nodes()
            .filter(|(_, node)| node.properties.values().any(|value| *value == wanted));
        assert_eq!(events.count(), users.len(), "{title:?}");
    }
    shown.assert_nowhere(&[TITLE.to_owned(), WORDS.to_owned()]);
    for place in [
        "log",
        "kalends status",
        "kalends jobs list",
        "kalends replay",
        "kalends users list",
        "GET /metrics",
    ] {
        assert_plain(place, shown.at(place));
    }
    // There was something to tell of: the search sees what is told.
    assert!(
        shown.places_of(&users[0]).len() > 5,
        "{:?}",
        shown.places_of(&users[0])
    );
    let failed = shown.at("GET /api/v1/jobs?state=failed&limit=200");
    assert!(failed.contains(&users[0]), "{failed}");
    assert!(failed.contains("Google Calendar answered 400"), "{failed}");
    assert!(
        failed.contains("Neo.ClientError.Statement.TypeError"),
        "{failed}"
    );
}
