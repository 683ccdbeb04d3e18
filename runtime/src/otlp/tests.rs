//! Spans become records, and a queue that is full loses the newest without waiting.

use serde_json::Value;
use tracing::info_span;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use super::message::message;
use super::*;
use crate::hostile::{Hostile, LONG_MS, Manner, PATIENCE};

fn with_spans(work: impl FnOnce()) -> (Vec<Record>, u64) {
    let (layer, mut collected) = collect(7);
    let subscriber = Registry::default().with(layer);
    tracing::subscriber::with_default(subscriber, work);
    let records = std::iter::from_fn(|| collected.records.try_recv().ok()).collect();
    let lost = collected.lost.load(std::sync::atomic::Ordering::Relaxed);
    (records, lost)
}

#[test]
fn a_child_is_in_its_parents_trace_and_strangers_are_left_out() {
    let (records, lost) = with_spans(|| {
        let stranger = info_span!(target: "hyper", "authorization", token = "PLANTED");
        let parent = info_span!(
            target: TARGET, parent: None, "sync", kalends.attempt = 2_u32,
            kalends.outcome = tracing::field::Empty, otel.status_code = tracing::field::Empty,
        );
        stranger.in_scope(|| {
            let child = info_span!(target: TARGET, parent: &parent, "store", otel.name = "store claim", otel.kind = "client");
            // As an adapter does it: below whatever is being done.
            child.in_scope(|| drop(info_span!(target: TARGET, "request", otel.name = "GET")));
        });
        parent.record("kalends.outcome", "failed");
        parent.record("otel.status_code", "ERROR");
    });
    assert_eq!(lost, 0);
    let [grandchild, child, parent] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert_eq!(
        [parent.parent, child.parent, grandchild.parent],
        [None, Some(parent.span), Some(child.span)]
    );
    assert!(records.iter().all(|record| record.trace == parent.trace));
    assert!(records.iter().all(|record| record.ended >= record.begun));

    let text = message(&Resource::new("worker-1"), &records);
    let message: Value = serde_json::from_str(&text).unwrap();
    let resource = &message["resourceSpans"][0];
    let attributes = &resource["resource"]["attributes"];
    assert_eq!(attributes[0]["value"]["stringValue"], "kalends");
    assert_eq!(attributes[2]["value"]["stringValue"], "worker-1");
    let spans = &resource["scopeSpans"][0]["spans"];
    assert_eq!(spans[0]["name"], "GET");
    assert_eq!(spans[1]["name"], "store claim");
    assert_eq!(
        (&spans[1]["kind"], &spans[2]["kind"]),
        (&3.into(), &1.into())
    );
    assert_eq!(spans[2]["status"]["code"], 2);
    assert_eq!(spans[2]["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(spans[2]["spanId"], spans[1]["parentSpanId"]);
    assert_eq!(spans[2]["attributes"][0]["value"]["intValue"], "2");
    assert!(spans[2].get("parentSpanId").is_none());
    assert!(!text.contains("PLANTED"), "{text}");
}

#[test]
fn a_full_queue_loses_spans_and_counts_them() {
    let (records, lost) = with_spans(|| {
        for _ in 0..QUEUE_SPANS_MAX + 3 {
            drop(info_span!(target: TARGET, "sync"));
        }
    });
    assert_eq!(records.len(), QUEUE_SPANS_MAX);
    assert_eq!(lost, 3);
}

/// Takes what is told at the level "warn", as the numbers in it.
#[derive(Clone, Default)]
struct Warned(Arc<std::sync::Mutex<Vec<u64>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warned {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN {
            event.record(&mut self.clone());
        }
    }
}

impl tracing::field::Visit for Warned {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        assert_eq!(field.name(), "lost");
        self.0.lock().unwrap().push(value);
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

/// A queue that ran over while the collector was there all the time, and all that is left when one is busy at the end.
#[tokio::test]
async fn what_is_lost_is_told_at_once_and_at_the_end() {
    for (status, wanted) in [
        (200, 3),
        (503, QUEUE_SPANS_MAX as u64 + 3),
        (400, QUEUE_SPANS_MAX as u64 + 3),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        let router = axum::Router::new().fallback(move || async move { status });
        let serving = tokio::spawn(async { axum::serve(listener, router).await });

        let (layer, collected) = collect(7);
        let warned = Warned::default();
        let subscriber = Registry::default().with(layer).with(warned.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        for _ in 0..QUEUE_SPANS_MAX + 3 {
            drop(info_span!(target: TARGET, "sync"));
        }
        let export = collected.export(&endpoint, "worker-1").unwrap();
        // Whoever takes spans hears of what was lost before the end.
        while status.is_success() && warned.0.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // As at its close, but however long it takes.
        export.stop.send_replace(true);
        export.task.await.unwrap();
        let warned = warned.0.lock().unwrap().clone();
        assert_eq!(warned, [wanted], "{status}");
        serving.abort();
    }
}

#[test]
fn a_text_is_cut_and_facts_are_few() {
    let (records, _) = with_spans(|| {
        let long = "æ".repeat(1_000);
        let span = info_span!(target: TARGET, "sync", kalends.outcome = long.as_str());
        for _ in 0..100 {
            span.record("kalends.outcome", "again");
        }
    });
    let facts = &records[0].facts;
    assert_eq!(facts.len(), 32);
    let layer::Fact::Text(text) = &facts[0].1 else {
        panic!("{facts:?}");
    };
    assert_eq!(text.chars().count(), 128);
}

/// Sends one span to `server` and stops, as at an end, but without a bound on that; how many spans it said are lost.
async fn sent_to(server: &Hostile, request_ms: u64) -> u64 {
    let (layer, collected) = collect(7);
    let warned = Warned::default();
    let subscriber = Registry::default().with(layer).with(warned.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    drop(info_span!(target: TARGET, "sync"));
    let endpoint = format!("http://{}", server.address);
    let export = collected
        .export_within(&endpoint, "worker-1", request_ms)
        .unwrap();
    export.stop.send_replace(true);
    let ended = tokio::time::timeout(PATIENCE, export.task).await;
    ended.expect("a request ends").unwrap();
    assert_eq!(server.asked().len(), 1);
    warned.0.lock().unwrap().iter().sum()
}

#[tokio::test]
async fn spans_do_not_follow_a_redirect() {
    let trap = Hostile::start(Manner::Trap).await;
    for status in [301, 302, 303, 307, 308] {
        let server = Hostile::start(Manner::Redirect(status, trap.address)).await;
        assert_eq!(sent_to(&server, LONG_MS).await, 1, "{status}");
    }
    assert_eq!(trap.asked().len(), 0);
}

#[tokio::test]
async fn an_answer_that_never_comes_or_never_ends_holds_nobody_up() {
    let silent = Hostile::start(Manner::Silent).await;
    assert_eq!(sent_to(&silent, 100).await, 1);
    // It was taken; what else the collector has to say is not read to its end.
    let endless = Hostile::start(Manner::Endless).await;
    assert_eq!(sent_to(&endless, LONG_MS).await, 0);
}
