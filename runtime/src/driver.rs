//! The driver loop: performs what the node names, and tells it what happened. It decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, EffectResult, Input, Notice, Op, Output};
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::{Graph, Source, Store};
use kalends_core::time::{Clock, Timestamp};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::Instrument as _;

use crate::record::Recorder;
use crate::spans::{Spans, UnderWay, UserNames};

/// So many results at the most are told to the node before it is asked again what to do: those that came together are
/// followed by one claim for all of them.
const BURST_MAX: usize = 128;

/// What a node works with.
#[derive(Clone)]
pub struct Ports {
    /// The queue.
    pub store: Arc<dyn Store>,
    /// Where calendars come from.
    pub source: Arc<dyn Source>,
    /// Where they are kept.
    pub graph: Arc<dyn Graph>,
}

/// Counts of effects, for reports and benchmarks.
#[derive(Debug, Default)]
pub struct Effects {
    /// Store commands sent.
    pub store: AtomicU64,
    /// Requests to the source.
    pub fetch: AtomicU64,
    /// Graph writes.
    pub graph: AtomicU64,
}

/// Drives `node` until it has finished: after a deadline was sent through `shutdown` (on `clock`), or never.
///
/// `observe` sees every notice, in order.
pub async fn drive(
    node: Node,
    ports: Ports,
    clock: impl Clock,
    shutdown: watch::Receiver<Option<Timestamp>>,
    effects: Arc<Effects>,
    observe: impl FnMut(&Node, &Notice),
) {
    let begun = clock.now();
    let (_, layout) = watch::channel(None);
    let orders = Orders { shutdown, layout };
    let names = UserNames::drawn();
    drive_recorded(
        node, begun, ports, clock, orders, effects, observe, None, names,
    )
    .await;
}

/// What the outside asks of a node.
pub(crate) struct Orders {
    /// A deadline, when it is to stop.
    pub(crate) shutdown: watch::Receiver<Option<Timestamp>>,
    /// How users are to be laid over the period, if otherwise than at the start.
    pub(crate) layout: watch::Receiver<Option<(Spread, Jitter)>>,
}

/// As [`drive`], with a journal of it all, and users named so in spans. `begun` is the time with which the node was made.
#[allow(clippy::too_many_arguments)] // one call each in `drive` and in `handle`, and nobody else's concern
pub(crate) async fn drive_recorded(
    mut node: Node,
    begun: Timestamp,
    ports: Ports,
    clock: impl Clock,
    orders: Orders,
    effects: Arc<Effects>,
    mut observe: impl FnMut(&Node, &Notice),
    mut recorder: Option<Recorder>,
    names: UserNames,
) {
    let Orders {
        mut shutdown,
        mut layout,
    } = orders;
    let mut now = begun;
    let ports = Arc::new(ports);
    let store = Arc::clone(&ports.store);
    let mut woken = store.wait_for_wake();
    let mut tasks: JoinSet<EffectResult> = JoinSet::new();
    let mut running = Running::default();
    let mut spans = Spans::new(names);
    loop {
        let wake_at = loop {
            let output = node.poll_output();
            if let Some(recorder) = &mut recorder {
                recorder.said(&output);
                if matches!(output, Output::Timeout { .. } | Output::Finished) {
                    recorder.turn_ends(now);
                }
            }
            match output {
                Output::Effect { id, op } => {
                    let told = UnderWay::of(spans.of(&op));
                    let performed = perform(Arc::clone(&ports), op, Arc::clone(&effects));
                    let handle = tasks.spawn(traced(told, performed));
                    running.begin(id, handle);
                }
                Output::Cancel { id } => running.cancel(id),
                Output::Notice(notice) => {
                    spans.observe(&notice);
                    observe(&node, &notice);
                }
                Output::Timeout { at, .. } => break at,
                Output::Finished => return,
            }
        };
        // In this order, so that a run on paused time is the same each time. Nobody starves: ended tasks are told below
        // whatever came first, and with every input the node does all that is due.
        let input = tokio::select! {
            biased;
            Ok(()) = shutdown.changed() => {
                shutdown.borrow_and_update().map(|deadline| Input::Shutdown { deadline })
            }
            Ok(()) = layout.changed() => {
                let layout = *layout.borrow_and_update();
                layout.map(|(spread, jitter)| Input::Layout { spread, jitter })
            }
            () = &mut woken => {
                woken = store.wait_for_wake();
                Some(Input::Wake)
            }
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => running.end(ended),
            () = tokio::time::sleep(clock.wait_until(wake_at)) => None,
        };
        now = clock.now();
        if let Some(recorder) = &mut recorder {
            recorder.told(&node, input.as_ref());
        }
        match input {
            Some(input) => node.handle_input(now, input),
            None => node.handle_timeout(now),
        }
        for _ in 1..BURST_MAX {
            let Some(ended) = tasks.try_join_next_with_id() else {
                break;
            };
            if let Some(input) = running.end(ended) {
                if let Some(recorder) = &mut recorder {
                    recorder.told(&node, Some(&input));
                }
                node.handle_input(now, input);
            }
        }
    }
}

async fn traced(told: UnderWay, performed: impl Future<Output = EffectResult>) -> EffectResult {
    let result = performed.instrument(told.span()).await;
    told.ended(&result);
    result
}

async fn perform(ports: Arc<Ports>, op: Op, effects: Arc<Effects>) -> EffectResult {
    match op {
        Op::Store(command) => {
            effects.store.fetch_add(1, Ordering::Relaxed);
            EffectResult::Store(ports.store.apply(*command).await)
        }
        Op::Fetch(request) => {
            effects.fetch.fetch_add(1, Ordering::Relaxed);
            EffectResult::Fetch(ports.source.fetch(*request).await)
        }
        Op::Graph(write) => {
            effects.graph.fetch_add(1, Ordering::Relaxed);
            EffectResult::Graph(ports.graph.write(*write).await)
        }
    }
}

/// Which task performs which effect.
#[derive(Default)]
struct Running {
    effects: BTreeMap<EffectId, AbortHandle>,
    tasks: std::collections::HashMap<Id, EffectId>,
}

impl Running {
    fn begin(&mut self, id: EffectId, handle: AbortHandle) {
        self.tasks.insert(handle.id(), id);
        self.effects.insert(id, handle);
    }

    fn cancel(&mut self, id: EffectId) {
        if let Some(handle) = self.effects.remove(&id) {
            handle.abort();
        }
    }

    /// What an ended task means for the node; nothing if it was cancelled.
    fn end(&mut self, ended: Result<(Id, EffectResult), JoinError>) -> Option<Input> {
        let (task, result) = match ended {
            Ok((task, result)) => (task, Some(result)),
            Err(error) => (error.id(), panic_of(error)),
        };
        let id = self.tasks.remove(&task)?;
        self.effects.remove(&id);
        Some(Input::Done {
            id,
            result: result?,
        })
    }
}

fn panic_of(error: JoinError) -> Option<EffectResult> {
    let panic = error.try_into_panic().ok()?;
    let detail = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned());
    Some(EffectResult::Panicked { detail })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kalends_core::port::StoreUnavailable;
    use tracing::field::{Field, Visit};
    use tracing::span::{Id as SpanId, Record};
    use tracing::{Subscriber, info_span};
    use tracing_subscriber::layer::{Context, SubscriberExt as _};
    use tracing_subscriber::{Layer, Registry};

    use super::*;

    /// What is said of spans, in order.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Said {
        fn on_record(&self, _: &SpanId, values: &Record<'_>, _: Context<'_, S>) {
            values.record(&mut self.clone());
        }
    }

    impl Visit for Said {
        fn record_str(&mut self, _: &Field, value: &str) {
            self.0.lock().expect("one thread").push(value.to_owned());
        }

        fn record_debug(&mut self, field: &Field, _: &dyn std::fmt::Debug) {
            panic!("{field} is a text");
        }
    }

    #[tokio::test]
    async fn however_an_effect_ends_its_span_says_so() {
        let said = Said::default();
        let subscriber = Registry::default().with(said.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        let told = || {
            UnderWay::of(info_span!(
                "effect",
                kalends.outcome = tracing::field::Empty,
                otel.status_code = tracing::field::Empty
            ))
        };
        let taken = || std::mem::take(&mut *said.0.lock().expect("one thread"));

        let away = StoreUnavailable {
            detail: String::new(),
        };
        let away = EffectResult::Store(Err(away));
        traced(told(), async { away }).await;
        assert_eq!(taken(), ["away", "ERROR"]);

        let panics = tokio::spawn(traced(told(), async { panic!("a fault of the host's") }));
        assert!(panics.await.expect_err("it panics").is_panic());
        assert_eq!(taken(), ["panicked", "ERROR"]);

        for was_begun in [false, true] {
            let hangs = tokio::spawn(traced(told(), std::future::pending()));
            if was_begun {
                tokio::task::yield_now().await;
            }
            hangs.abort();
            assert!(hangs.await.expect_err("it is aborted").is_cancelled());
            assert_eq!(taken(), ["cancelled", "ERROR"]);
        }
    }
}
