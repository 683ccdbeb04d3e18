//! Ports that measure how long the ones inside take, and change nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use async_trait::async_trait;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::port::{Graph, Source, Store, StoreUnavailable};
use kalends_core::queue::command::{Command, LeaseToken, Reply, Stamped};

use super::histogram::{Histogram, SHORT_US};
use super::text::Text;
use super::{Metrics, add};
use crate::driver::Ports;
use crate::spans::failure_label;

/// The commands that a node sends while it works, which are many; the rest is counted together.
const COMMANDS: [&str; 10] = [
    "claim",
    "heartbeat",
    "checkpoint",
    "complete",
    "retry",
    "enqueue",
    "due_users",
    "tick",
    "look",
    "other",
];

/// How long store commands took, by command.
#[derive(Debug)]
pub(super) struct StoreTimes {
    took: [Histogram; COMMANDS.len()],
    failures: AtomicU64,
}

impl Default for StoreTimes {
    fn default() -> Self {
        StoreTimes {
            took: std::array::from_fn(|_| Histogram::new(SHORT_US)),
            failures: AtomicU64::new(0),
        }
    }
}

impl StoreTimes {
    fn of(&self, name: &str) -> &Histogram {
        let place = COMMANDS.iter().position(|known| *known == name);
        &self.took[place.expect("every name is in the list")]
    }

    pub(super) fn write(&self, text: &mut Text) {
        let name = "kalends_store_command_duration_seconds";
        text.metric(name, "histogram", "How long commands to the store took.");
        for (command, took) in COMMANDS.iter().zip(&self.took) {
            if took.count() > 0 {
                took.write(text, name, Some(("command", command)));
            }
        }
        text.single(
            "kalends_store_command_failures_total",
            "counter",
            "Commands that the store did not answer.",
            self.failures.load(std::sync::atomic::Ordering::Relaxed),
        );
    }
}

fn name_of(command: &Command) -> &'static str {
    match command {
        Command::Claim { .. } => "claim",
        Command::Heartbeat { .. } => "heartbeat",
        Command::Checkpoint { .. } => "checkpoint",
        Command::Complete { .. } => "complete",
        Command::Retry { .. }
        | Command::Fail { .. }
        | Command::Release { .. }
        | Command::Limited { .. } => "retry",
        Command::Enqueue { .. } => "enqueue",
        Command::DueUsers { .. } => "due_users",
        Command::Tick { .. } => "tick",
        Command::User { .. }
        | Command::Users { .. }
        | Command::Schedules
        | Command::Stats
        | Command::Jobs { .. } => "look",
        _ => "other",
    }
}

impl Metrics {
    /// `ports`, measured.
    #[must_use]
    pub fn around(self: &Arc<Self>, ports: Ports) -> Ports {
        Ports {
            store: Arc::new(Measured(Arc::clone(self), ports.store)),
            source: Arc::new(Measured(Arc::clone(self), ports.source)),
            graph: Arc::new(Measured(Arc::clone(self), ports.graph)),
        }
    }
}

/// A port, and who counts.
struct Measured<P>(Arc<Metrics>, P);

#[async_trait]
impl Store for Measured<Arc<dyn Store>> {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        let Measured(metrics, store) = self;
        let name = name_of(&command);
        let begun = Instant::now();
        let answer = store.apply(command).await;
        metrics.store.of(name).record(begun.elapsed());
        match &answer {
            Ok(Stamped {
                now,
                value:
                    Reply::Permit {
                        wait_until: Some(until),
                    },
            }) => {
                add(&metrics.limiter_waits, 1);
                add(&metrics.limiter_waited_ms, until.since_ms(*now));
            }
            Ok(_) => {}
            Err(_) => add(&metrics.store.failures, 1),
        }
        answer
    }

    async fn wait_for_wake(&self) {
        self.1.wait_for_wake().await;
    }
}

#[async_trait]
impl Source for Measured<Arc<dyn Source>> {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        let Measured(metrics, source) = self;
        let begun = Instant::now();
        let answer = source.fetch(request).await;
        metrics.fetch_took.record(begun.elapsed());
        answer
    }
}

#[async_trait]
impl Graph for Measured<Arc<dyn Graph>> {
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure> {
        let Measured(metrics, graph) = self;
        let begun = Instant::now();
        let answer = graph.write(write).await;
        metrics.graph_took.record(begun.elapsed());
        metrics.graph_writes.add(
            match &answer {
                Ok(GraphReply::Written(_)) => "written",
                Ok(GraphReply::Fenced) => "fenced",
                Err(failure) => kind_label(&failure.kind),
            },
            1,
        );
        answer
    }

    async fn remove_user(&self, user: &UserId, fence: LeaseToken) -> Result<bool, Failure> {
        self.1.remove_user(user, fence).await
    }

    async fn snapshot(&self, user: &UserId) -> Result<GraphSnapshot, Failure> {
        self.1.snapshot(user).await
    }
}

/// Kinds that no graph has by itself are counted as what they come to.
fn kind_label(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Gone { .. } | FailureKind::CalendarUnavailable => {
            failure_label(&FailureKind::Permanent)
        }
        kind => failure_label(kind),
    }
}
