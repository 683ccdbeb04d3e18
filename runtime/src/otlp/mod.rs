//! Spans go out to a collector of OpenTelemetry, by OTLP over HTTP in JSON (feature `otel`).
//!
//! ```text
//! a span ends ──► layer: one record ──► queue, 4,096 at the most ──► task: batches of 512 ──► POST ENDPOINT/v1/traces
//!                                        what does not fit is lost, and counted
//! ```
//!
//! No job waits for any of this. A collector that is away is told of once, and once more when it is back; a batch that it did not
//! take is kept and tried again after [`AGAIN_MS`], while newer spans fill the queue. What it refuses is dropped.
//!
//! The protocol is written down here, and not taken from the crates of OpenTelemetry: these would be 21 more in `Cargo.lock`,
//! for one kind of message of which this program is the only sender. It is OTLP 1.x, "OTLP/HTTP" and "JSON Protobuf Encoding": ids in hex,
//! whole numbers of 64 bits as text, names in lowerCamelCase.
//!
//! Reading order: this file, `layer` (from `tracing` to records), `message` (from records to JSON), `send` (the task).

mod layer;
mod message;
mod send;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;

use crate::logging::BoxedLayer;
use crate::spans::TARGET;
use crate::wiring::Refused;

use layer::{Collect, Record};
use message::Resource;
use send::Sender;

/// So many ended spans wait at the most: some MiB.
const QUEUE_SPANS_MAX: usize = 4_096;
/// So many spans go in one request at the most.
const BATCH_SPANS_MAX: usize = 512;
/// After its first span a batch is filled for so long, in milliseconds.
const FILL_MS: u64 = 1_000;
/// A batch that was not taken is tried again after so long, in milliseconds.
const AGAIN_MS: u64 = 5_000;
/// One request may take so long, in milliseconds.
const REQUEST_MS_MAX: u64 = 10_000;
/// What is left at the end may take so long to be sent, in milliseconds: within the 5 s that a supervisor gives beyond
/// `worker.shutdown_ms`.
const FLUSH_MS_MAX: u64 = 2_000;
/// What of an answer is read, so that its connection can be used again, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Spans that were collected and not sent yet.
pub(crate) struct Collected {
    records: mpsc::Receiver<Record>,
    lost: Arc<AtomicU64>,
}

/// The task that sends.
pub(crate) struct Export {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What collects spans from now on, to be put into the subscriber; they wait until [`Collected::export`]. `seed` is chance.
pub(crate) fn collect(seed: u64) -> (BoxedLayer, Collected) {
    let (sender, records) = mpsc::channel(QUEUE_SPANS_MAX);
    let lost = Arc::<AtomicU64>::default();
    let filter = Targets::new().with_target(TARGET, LevelFilter::INFO);
    let layer = Collect::new(seed, sender, Arc::clone(&lost)).with_filter(filter);
    (layer.boxed(), Collected { records, lost })
}

impl Collected {
    /// Sends them, and all that come, to the collector at `endpoint`, in the name of the process `instance`.
    ///
    /// # Errors
    /// If no TLS client can be made.
    pub(crate) fn export(self, endpoint: &str, instance: &str) -> Result<Export, Refused> {
        self.export_within(endpoint, instance, REQUEST_MS_MAX)
    }

    /// As [`Collected::export`], where a request may take `request_ms` milliseconds.
    fn export_within(
        self,
        endpoint: &str,
        instance: &str,
        request_ms: u64,
    ) -> Result<Export, Refused> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_millis(request_ms))
            .build()
            .map_err(|error| {
                Refused::bad_input(format!(
                    "telemetry.otlp_endpoint: no HTTP client can be made: {error}"
                ))
            })?;
        let (stop, stopped) = watch::channel(false);
        let sender = Sender {
            client,
            address: format!("{endpoint}/v1/traces"),
            resource: Resource::new(instance),
            records: self.records,
            lost: self.lost,
            stopped,
        };
        Ok(Export {
            stop,
            task: tokio::spawn(sender.run()),
        })
    }
}

impl Export {
    /// Sends what is left, within [`FLUSH_MS_MAX`], and ends.
    pub(crate) async fn close(mut self) {
        self.stop.send_replace(true);
        let flush = Duration::from_millis(FLUSH_MS_MAX);
        if tokio::time::timeout(flush, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the newest spans were not sent: the collector takes too long");
        }
    }
}
