//! Whatever comes in, the answer is an answer: no panic, no 5xx, and the next request is served.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use kalends::web::ANSWER_BYTES_MAX;

use crate::client::raw;
use crate::face::{Face, TOKEN};

/// Requests that are tried.
const CASES: u32 = 600;
/// A refusal is read by a person, in characters.
const DETAIL_CHARS_MAX: usize = 1_000;

fn path() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/jobs",
        "/api/v1/jobs/retry",
        "/api/v1/jobs/discard",
        "/api/v1/jobs/cancel",
        "/api/v1/users",
        "/api/v1/users/",
        "/api/v1/sync",
        "/api/v1/pause",
        "/api/v1/resume",
        "/api/v1/limits",
        "/api/v1/schedules/",
        "/api/v1/schedules/nightly",
        "/api/v1/reload",
    ]);
    let tail = prop_oneof![
        3 => Just(String::new()),
        1 => "[!-~]{0,30}",
        1 => "(%[0-9a-fA-F]{2}){1,8}",
    ];
    let query = prop_oneof![
        2 => Just(String::new()),
        1 => "\\?(state|after|limit|prefix|source|user)=[!-~]{0,20}(&(after|limit|state)=[0-9a-z%+-]{0,12})?",
    ];
    let whole =
        (known, tail, query).prop_map(|(known, tail, query)| format!("{known}{tail}{query}"));
    prop_oneof![5 => whole, 1 => "/[!-~]{0,60}"]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("{}".to_owned()),
        "-?[0-9]{1,25}",
        "[0-9]{1,3}\\.[0-9]{1,3}e[0-9]{1,3}",
        "\"[^\"\\\\\\x00-\\x1f]{0,20}\"",
        Just("{\"count\":10,\"window_ms\":60000}".to_owned()),
        Just("{\"count\":4294967296,\"window_ms\":-1}".to_owned()),
        Just("\"\\u0000\\ud83d\"".to_owned()),
        Just("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]".to_owned()),
    ];
    let field = prop::sample::select(vec![
        "user",
        "all",
        "number",
        "reason",
        "source",
        "jobs",
        "cron",
        "time_zone",
        "catch_up",
        "schedule",
        "other",
    ]);
    let object = prop::collection::vec((field, word), 0..4).prop_map(|fields| {
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name:?}:{value}"))
            .collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    });
    prop_oneof![
        4 => object,
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => Just(b"[".repeat(10_000)),
    ]
}

#[test]
fn whatever_is_asked_is_answered_and_nothing_breaks() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let face = runtime.block_on(Face::start());
    runtime.block_on(face.enroll(&["ada", "bob"]));
    let method = prop::sample::select(vec![
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE",
    ]);
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let asked = runner.run(&(method, path(), body()), |(method, path, body)| {
        // What is no request line is refused by the server before anything is looked at.
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            face.address,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&body);
        let answer = runtime.block_on(raw(face.address, &bytes));
        prop_assert!(answer.status < 500, "{method} {path}: {answer:?}");
        prop_assert!(!answer.body.contains(TOKEN), "{answer:?}");
        prop_assert!(answer.body.len() <= ANSWER_BYTES_MAX, "{method} {path}");
        if answer.head.contains("application/problem+json") && method != "HEAD" {
            let detail = answer.json()["detail"].as_str().map_or(0, |detail| detail.chars().count());
            prop_assert!((10..=DETAIL_CHARS_MAX).contains(&detail), "{method} {path}: {answer:?}");
        }
        Ok(())
    });
    asked.unwrap();
    let status = runtime.block_on(face.get("/api/v1/status"));
    status.expect(200);
}
