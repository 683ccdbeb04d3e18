//! Spans become records, and a queue that is full loses the newest without waiting.

use serde_json::Value;
use tracing::info_span;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use super::message::message;
use super::*;

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
