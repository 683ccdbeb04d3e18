//! Whatever a Query API answers: no panic, a typed failure that says something and quotes nothing, and no endless reading.
#![allow(clippy::unwrap_used, missing_docs)] // a test crate: a failed unwrap is a failed test

use std::sync::{Arc, Mutex};

use kalends_adapters::neo4j::{Databases, Neo4jGraph, Neo4jSettings};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{DETAIL_CHARS_MAX, Failure};
use kalends_core::graph::{CalendarRow, GraphWrite};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Graph as _;
use kalends_core::queue::command::LeaseToken;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Answers that are tried, each by a write, a page of a snapshot and a probe.
const CASES: u32 = 250;
/// More requests than any of these needs: reading on without an end is seen by it.
const REQUESTS_MAX: usize = 40;
const PASSWORD: &str = "planted-graph-password";
const TEXT: &str = "planted-text-of-an-answer";

#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// The head promises more than comes.
    is_cut: bool,
}

/// Serves one answer to every request, a request a connection; counts them.
async fn serve(listener: TcpListener, answer: Arc<Mutex<Answer>>, asked: Arc<Mutex<usize>>) {
    while let Ok((stream, _)) = listener.accept().await {
        *asked.lock().unwrap() += 1;
        let answer = answer.lock().unwrap().clone();
        tokio::spawn(async move {
            // A client that has left is none of its business.
            let _ = reply(stream, answer).await;
        });
    }
}

async fn reply(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            count => request.extend_from_slice(&chunk[..count]),
        }
    }
    let promised = answer.body.len() + usize::from(answer.is_cut);
    let head = format!(
        "HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {promised}\r\nconnection: close\r\n\r\n",
        answer.status
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&answer.body).await
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[0-9]{1,22}",
        Just("1e999".to_owned()),
        Just(format!("{TEXT:?}")),
        Just("\"\\ud83d\"".to_owned()),
        "\"[a-z_]{0,12}\"",
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-z_]{0,10}", inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{name:?}:{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// An answer of the right shape, with columns that are asked for and values that need not fit.
fn rows() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "fenced", "upserted", "deleted", "name", "version", "row", "fence", "other",
    ]);
    (
        prop::collection::vec(field, 0..5),
        prop::collection::vec(prop::collection::vec(value(), 0..6), 0..5),
        prop::option::of(value()),
    )
        .prop_map(|(fields, rows, bookmarks)| {
            let fields: Vec<String> = fields.iter().map(|field| format!("{field:?}")).collect();
            let rows: Vec<String> = rows
                .iter()
                .map(|row| format!("[{}]", row.join(",")))
                .collect();
            let bookmarks = bookmarks.unwrap_or_else(|| "[]".to_owned());
            format!(
                "{{\"data\":{{\"fields\":[{}],\"values\":[{}]}},\"bookmarks\":{bookmarks}}}",
                fields.join(","),
                rows.join(",")
            )
        })
}

fn errors() -> impl Strategy<Value = String> {
    let code = prop_oneof![
        Just("Neo.ClientError.Security.Unauthorized".to_owned()),
        Just("Neo.TransientError.Transaction.DeadlockDetected".to_owned()),
        Just(format!("Neo.{TEXT}")),
        "[ -!#-\\[\\]-~]{0,80}",
    ];
    code.prop_map(|code| format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{TEXT}\"}}]}}"))
}

fn answer() -> impl Strategy<Value = Answer> {
    let body = prop_oneof![
        3 => rows().prop_map(String::into_bytes),
        2 => errors().prop_map(String::into_bytes),
        1 => value().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..400),
        1 => Just(b"[".repeat(20_000)),
    ];
    let status = prop_oneof![
        3 => Just(202_u16),
        1 => prop::sample::select(vec![200, 204, 301, 400, 401, 403, 404, 413, 429, 500, 503, 599]),
    ];
    (status, body, prop::bool::weighted(0.1)).prop_map(|(status, body, is_cut)| Answer {
        status,
        body: if status == 204 { Vec::new() } else { body },
        is_cut: is_cut && status != 204,
    })
}

/// Says whether it is a failure as one should be.
fn is_told(failure: &Failure) -> bool {
    let detail = &failure.detail;
    let length = detail.chars().count();
    (10..=DETAIL_CHARS_MAX).contains(&length) && !detail.contains(PASSWORD)
}

#[test]
fn whatever_the_server_answers_is_rows_or_a_failure_in_words() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let current = Arc::new(Mutex::new(Answer {
        status: 500,
        body: Vec::new(),
        is_cut: false,
    }));
    let asked = Arc::<Mutex<usize>>::default();
    runtime.spawn(serve(listener, Arc::clone(&current), Arc::clone(&asked)));
    let user = UserId::new("ada@example.com").unwrap();
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let tried = runner.run(&answer(), |answer| {
        *current.lock().unwrap() = answer.clone();
        *asked.lock().unwrap() = 0;
        // A new one each time: nothing of an earlier answer is remembered.
        let graph = Neo4jGraph::new(Neo4jSettings {
            url: url.clone(),
            user: "neo4j".to_owned(),
            password: Secret::new(PASSWORD.to_owned()),
            databases: Databases::Shared("neo4j".to_owned()),
            timeout_ms: 10_000,
        })
        .unwrap();
        let write = GraphWrite::Apply {
            user: user.clone(),
            fence: LeaseToken(7),
            calendar: CalendarRow {
                id: CalendarId::new("primary").unwrap(),
                name: None,
                time_zone: None,
                access_role: None,
            },
            generation: 7,
            upserts: Vec::new(),
            deletions: Vec::new(),
        };
        let failures = runtime.block_on(async {
            [
                graph.write(write).await.err(),
                graph.snapshot(&user).await.err(),
                graph.probe("neo4j").await.err(),
                graph.remove_user(&user, LeaseToken(8)).await.err(),
            ]
        });
        for failure in failures.iter().flatten() {
            prop_assert!(is_told(failure), "{failure:?} for {answer:?}");
            prop_assert!(
                !failure.detail.contains("of-an-answer") || failure.detail.contains("Neo."),
                "{failure:?}"
            );
        }
        let asked = *asked.lock().unwrap();
        prop_assert!(asked <= REQUESTS_MAX, "{asked} requests for {answer:?}");
        Ok(())
    });
    tried.unwrap();
}
