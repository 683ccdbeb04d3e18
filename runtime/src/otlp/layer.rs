//! From spans of `tracing` to records that can be sent.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kalends_core::rng::{KalendsRng, Rng as _, substream};
use tokio::sync::mpsc;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// So many facts of a span are kept at the most.
const FACTS_MAX: usize = 32;
/// A text is cut after so many characters.
const TEXT_CHARS_MAX: usize = 128;

/// A fact's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fact {
    Text(String),
    Whole(i64),
    Is(bool),
    Number(f64),
}

/// A span, whole once it has ended.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) parent: Option<u64>,
    pub(super) name: String,
    pub(super) is_client: bool,
    pub(super) is_error: bool,
    pub(super) begun: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) facts: Vec<(&'static str, Fact)>,
}

pub(super) struct Collect {
    ids: Mutex<KalendsRng>,
    records: mpsc::Sender<Record>,
    lost: Arc<AtomicU64>,
}

impl Collect {
    pub(super) fn new(seed: u64, records: mpsc::Sender<Record>, lost: Arc<AtomicU64>) -> Self {
        Collect {
            ids: Mutex::new(substream(seed, "traces")),
            records,
            lost,
        }
    }

    /// Neither may be zero: that stands for "none" (OTLP, `trace.proto`).
    fn new_ids(&self) -> (u128, u64) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let trace = (u128::from(ids.next_u64()) << 64) | u128::from(ids.next_u64());
        (trace.max(1), ids.next_u64().max(1))
    }
}

impl<S> Layer<S> for Collect
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).expect("the registry has just made it");
        let (trace, own) = self.new_ids();
        let above = span.parent().and_then(|parent| {
            let extensions = parent.extensions();
            let record = extensions.get::<Record>()?;
            Some((record.trace, record.span))
        });
        let now = SystemTime::now();
        let mut record = Record {
            trace: above.map_or(trace, |(trace, _)| trace),
            span: own,
            parent: above.map(|(_, span)| span),
            name: attributes.metadata().name().to_owned(),
            is_client: false,
            is_error: false,
            begun: now,
            ended: now,
            facts: Vec::new(),
        };
        attributes.record(&mut record);
        span.extensions_mut().insert(record);
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("whoever records holds it");
        if let Some(record) = span.extensions_mut().get_mut::<Record>() {
            values.record(record);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).expect("it is closed after this");
        let Some(mut record) = span.extensions_mut().remove::<Record>() else {
            return;
        };
        record.ended = SystemTime::now();
        if self.records.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Record {
    fn put(&mut self, field: &Field, fact: Fact) {
        // The names by which a span of tracing says what only OpenTelemetry has a place for.
        match (field.name(), &fact) {
            ("otel.name", Fact::Text(name)) => self.name.clone_from(name),
            ("otel.kind", Fact::Text(kind)) => self.is_client = kind == "client",
            ("otel.status_code", Fact::Text(code)) => self.is_error = code == "ERROR",
            (name, _) if self.facts.len() < FACTS_MAX => self.facts.push((name, fact)),
            _ => {}
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        let text = value.chars().take(TEXT_CHARS_MAX).collect();
        self.put(field, Fact::Text(text));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Fact::Whole(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.put(field, Fact::Whole(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Fact::Is(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Fact::Number(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text: String = format!("{value:?}").chars().take(TEXT_CHARS_MAX).collect();
        self.put(field, Fact::Text(text));
    }
}
