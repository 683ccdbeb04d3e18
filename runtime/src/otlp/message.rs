//! From records to the JSON of an `ExportTraceServiceRequest`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::layer::{Fact, Record};

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_CLIENT` of OTLP's `trace.proto`.
const KIND_INTERNAL: u8 = 1;
const KIND_CLIENT: u8 = 3;
/// `STATUS_CODE_ERROR` of the same.
const STATUS_ERROR: u8 = 2;

/// Who sends: the same in every message.
pub(super) struct Resource(Value);

impl Resource {
    pub(super) fn new(instance: &str) -> Self {
        let text = |key: &'static str, value: &str| attribute(key, &Fact::Text(value.to_owned()));
        Resource(json!({ "attributes": [
            text("service.name", "kalends"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
        ]}))
    }
}

/// A batch, as it is sent.
pub(super) fn message(resource: &Resource, records: &[Record]) -> String {
    let spans: Vec<Value> = records.iter().map(span).collect();
    let scope = json!({ "name": "kalends", "version": env!("CARGO_PKG_VERSION") });
    json!({ "resourceSpans": [{
        "resource": resource.0,
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }]})
    .to_string()
}

fn span(record: &Record) -> Value {
    let facts = record.facts.iter();
    let attributes: Vec<Value> = facts.map(|(key, fact)| attribute(key, fact)).collect();
    let kind = if record.is_client {
        KIND_CLIENT
    } else {
        KIND_INTERNAL
    };
    let mut span = json!({
        "traceId": format!("{:032x}", record.trace),
        "spanId": format!("{:016x}", record.span),
        "name": record.name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(record.begun),
        "endTimeUnixNano": nanoseconds(record.ended.max(record.begun)),
        "attributes": attributes,
    });
    if let Some(parent) = record.parent {
        span["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    if record.is_error {
        span["status"] = json!({ "code": STATUS_ERROR });
    }
    span
}

fn attribute(key: &str, fact: &Fact) -> Value {
    let value = match fact {
        Fact::Text(text) => json!({ "stringValue": text }),
        Fact::Whole(number) => json!({ "intValue": number.to_string() }),
        Fact::Is(is) => json!({ "boolValue": is }),
        Fact::Number(number) => json!({ "doubleValue": number }),
    };
    json!({ "key": key, "value": value })
}

fn nanoseconds(time: SystemTime) -> String {
    // A clock before 1970 counts as 1970.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}
