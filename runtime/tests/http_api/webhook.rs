//! Whatever comes to the webhook: an answer without a body, and the store is never asked but for what is genuine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kalends::handle::Readiness;
use kalends::metrics::Metrics;
use kalends::web::{Hooks, bind, serve_webhook};
use kalends_adapters::google::Webhook;
use kalends_adapters::secret::Secret;
use kalends_core::failure::Failure;
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Source, Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::watch;

use crate::client::{connect_from, raw, raw_on, request};

/// Requests that are tried.
const CASES: u32 = 400;
const KEY: &str = "planted-push-key-0123456789abcdef0123";
/// Connections that one address may have.
const ONE_ADDRESS: usize = 2;
const CHANNEL: &str = "kalends-1-00";

/// Counts what it is asked; nobody is enrolled in it.
#[derive(Default)]
struct Asked(AtomicU64);

#[async_trait]
impl Store for Asked {
    async fn apply(&self, _: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Stamped {
            now: Timestamp::EPOCH,
            value: Reply::User { state: None },
        })
    }

    async fn wait_for_wake(&self) {
        std::future::pending().await
    }
}

#[async_trait]
impl Source for Asked {
    async fn fetch(&self, _: FetchRequest) -> Result<FetchReply, Failure> {
        Ok(FetchReply::Stopped)
    }
}

/// A part of a request as it comes, or as nobody would send it.
fn header() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "X-Goog-Channel-ID",
        "X-Goog-Channel-Token",
        "X-Goog-Resource-State",
        "X-Goog-Resource-ID",
        "X-Goog-Message-Number",
        "Host",
        "X-Forwarded-For",
    ]);
    let value = prop_oneof![
        Just(CHANNEL.to_owned()),
        Just("exists".to_owned()),
        Just("YWRh.AAAA".to_owned()),
        "[!-~]{0,40}",
        "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}",
        Just("x".repeat(5_000)),
        Just("\u{e6}\u{1f600}".to_owned()),
    ];
    (name, value).prop_map(|(name, value)| format!("{name}: {value}"))
}

#[test]
fn whatever_comes_to_the_webhook_is_answered_and_a_forgery_asks_nobody() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let asked = Arc::new(Asked::default());
    let key = Secret::new(KEY.to_owned());
    let webhook = Arc::new(Webhook::new("https://hooks.example.com/google", &key).unwrap());
    let (_keep, readiness) = watch::channel(Readiness::Ready);
    let hooks = Hooks {
        webhook: Arc::clone(&webhook),
        readiness,
        store: asked.clone(),
        source: asked.clone(),
        source_name: SourceName::google_calendar(),
        metrics: Arc::new(Metrics::new(Timestamp::EPOCH, 1)),
        connections_per_address_max: Some(ONE_ADDRESS),
    };
    let listener = runtime
        .block_on(bind("127.0.0.1:0".parse().unwrap()))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve_webhook(listener, hooks));

    let ada = UserId::new("ada@example.com").unwrap();
    let genuine = webhook.token(&ada, CHANNEL).unwrap();
    let method = prop::sample::select(vec!["POST", "POST", "POST", "GET", "PUT", "DELETE"]);
    // A genuine notification with one byte changed, or another channel's token, beside what is all made up.
    let damaged = (0..genuine.len(), "[A-Za-z0-9_.-]").prop_map({
        let genuine = genuine.clone();
        move |(place, letter)| {
            let mut token = genuine.clone();
            token.replace_range(place..=place, &letter);
            token
        }
    });
    let headers = prop_oneof![
        prop::collection::vec(header(), 0..6),
        damaged.prop_map(|token| vec![
            format!("X-Goog-Channel-ID: {CHANNEL}"),
            format!("X-Goog-Channel-Token: {token}"),
            "X-Goog-Resource-State: exists".to_owned(),
        ]),
    ];
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let line = format!("X-Goog-Channel-Token: {genuine}");
    let tried = runner.run(
        &(method, "/[!-~]{0,30}", headers, body),
        |(method, path, headers, body)| {
            // A letter may be changed into itself.
            prop_assume!(!headers.contains(&line));
            let mut lines: Vec<&str> = headers.iter().map(String::as_str).collect();
            lines.push("Host: hooks.example.com");
            let bytes = request(method, &path, &lines, &body);
            let answer = runtime.block_on(raw(address, &bytes));
            prop_assert!(
                (400..500).contains(&answer.status),
                "{headers:?}: {answer:?}"
            );
            prop_assert!(answer.body.len() < 200, "{answer:?}");
            Ok(())
        },
    );
    tried.unwrap();
    assert_eq!(asked.0.load(Ordering::Relaxed), 0, "a forgery asks nobody");

    // Nor does it keep a connection, though it asks for that: `raw` reads until the server closes.
    let kept =
        b"POST /google HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Length: 0\r\n\r\n".repeat(2);
    let answer = runtime.block_on(raw(address, &kept));
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, ""),
        "one answer, not two"
    );

    // And the genuine one is heard as ever.
    let channel = format!("X-Goog-Channel-ID: {CHANNEL}");
    let lines = [
        channel.as_str(),
        line.as_str(),
        "X-Goog-Resource-State: exists",
        "Host: hooks.example.com",
    ];
    let bytes = request("POST", "/google", &lines, b"");
    let answer = runtime.block_on(raw(address, &bytes));
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.body, "");

    // Also while another address has all the connections that it may have, and is refused more.
    runtime.block_on(async {
        let mut kept = Vec::new();
        for _ in 0..ONE_ADDRESS {
            kept.push(connect_from(2, address).await);
        }
        let refused = raw_on(connect_from(2, address).await, b"").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(raw(address, &bytes).await.status, 204);
    });
}
