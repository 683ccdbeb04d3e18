//! The task that sends batches, and what it says when they are not taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::layer::Record;
use super::message::{Resource, message};
use super::{AGAIN_MS, ANSWER_BYTES_MAX, BATCH_SPANS_MAX, FILL_MS};

pub(super) struct Sender {
    pub(super) client: reqwest::Client,
    pub(super) address: String,
    pub(super) resource: Resource,
    pub(super) records: mpsc::Receiver<Record>,
    pub(super) lost: Arc<AtomicU64>,
    pub(super) stopped: watch::Receiver<bool>,
}

/// What became of a batch.
enum Fate {
    Taken,
    /// The collector is away or has too much to do: it may take the batch later. Why, in words.
    Later(String),
    /// It will never take it. Why, in words.
    Refused(String),
}

/// What was said last of the collector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Away,
    Refuses,
}

impl Sender {
    pub(super) async fn run(mut self) {
        let left = self.send_all().await;
        self.tell_lost(left);
    }

    /// Sends until no more is wanted; how many are left that the collector did not take.
    async fn send_all(&mut self) -> u64 {
        let mut said = Said::Nothing;
        while let Some(batch) = self.next_batch().await {
            let body = message(&self.resource, &batch);
            loop {
                match self.post(&body).await {
                    Fate::Taken => {
                        if said != Said::Nothing {
                            said = Said::Nothing;
                            tracing::info!("the collector takes spans again");
                        }
                        self.tell_lost(0);
                        break;
                    }
                    Fate::Refused(why) => {
                        self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        if said != Said::Refuses {
                            said = Said::Refuses;
                            tracing::warn!(
                                "the collector at {} refuses spans, see telemetry.otlp_endpoint: {why}",
                                self.address
                            );
                        }
                        break;
                    }
                    Fate::Later(why) => {
                        if said != Said::Away {
                            said = Said::Away;
                            tracing::warn!(
                                "the collector at {} does not take spans, syncs go on without: {why}",
                                self.address
                            );
                        }
                        if self.is_stopped() {
                            return (batch.len() + self.records.len()) as u64;
                        }
                        // A stop is no reason to wait any longer.
                        tokio::select! {
                            () = sleep(Duration::from_millis(AGAIN_MS)) => {}
                            _ = self.stopped.changed() => {}
                        }
                    }
                }
            }
        }
        0
    }

    /// Says how many spans nobody gets, since it was last said; `more` of them are not counted yet.
    fn tell_lost(&self, more: u64) {
        let lost = self.lost.swap(0, Ordering::Relaxed) + more;
        if lost > 0 {
            tracing::warn!(
                lost,
                "spans are lost: the collector refused them, or did not take them in time"
            );
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// The next spans, when there are enough or the first has waited long enough; `None` when all is sent and no more is wanted.
    async fn next_batch(&mut self) -> Option<Vec<Record>> {
        let mut batch = Vec::new();
        let first = tokio::select! {
            biased;
            first = self.records.recv() => first?,
            _ = self.stopped.wait_for(|stopped| *stopped) => self.records.try_recv().ok()?,
        };
        batch.push(first);
        let full_at = Instant::now() + Duration::from_millis(FILL_MS);
        while batch.len() < BATCH_SPANS_MAX {
            tokio::select! {
                biased;
                next = self.records.recv() => match next {
                    Some(record) => batch.push(record),
                    None => break,
                },
                () = sleep_until(full_at) => break,
                _ = self.stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        Some(batch)
    }

    async fn post(&self, body: &str) -> Fate {
        let request = self
            .client
            .post(&self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_owned());
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Fate::Later(innermost(&error)),
        };
        let status = response.status().as_u16();
        let mut read_bytes = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read_bytes += chunk.len();
            if read_bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
        match status {
            200..=299 => Fate::Taken,
            // OTLP/HTTP, "Failures": these and no others are to be tried again.
            429 | 502 | 503 | 504 => Fate::Later(format!("it answered {status}")),
            404 => Fate::Refused(
                "it answered 404; it is to take OTLP over HTTP, mostly at port 4318".to_owned(),
            ),
            415 => Fate::Refused("it answered 415; it is to take OTLP in JSON".to_owned()),
            _ => Fate::Refused(format!("it answered {status}")),
        }
    }
}

/// The innermost cause is the one that helps ("Connection refused").
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it gives no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
