//! The status, live: server-sent events, one a second for as long as somebody listens.
//!
//! One task asks the store, however many listen. A listener holds the newest status and nothing else: who reads slowly
//! misses some, and memory does not grow.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use axum::response::Response;
use http_body::{Body as HttpBody, Frame};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::Web;
use super::look::status_json;
use super::problem::Problem;
use super::request::Asked;

/// Listeners at a time; more are refused.
pub(super) const LISTENERS_MAX: usize = 16;
/// The time between two events, in milliseconds.
const EVERY_MS: u64 = 1_000;
/// How long a client waits before it comes again, in milliseconds.
const COME_AGAIN_MS: u64 = 2_000;

/// Who listens, and the event that was told last.
pub(super) struct Listeners {
    places: Arc<Semaphore>,
    newest: watch::Sender<Bytes>,
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners {
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            newest: watch::Sender::new(Bytes::new()),
        }
    }
}

/// Tells all listeners how things stand, for as long as it is polled. Without listeners nobody is asked.
pub(super) async fn tell_listeners(web: Arc<Web>) {
    let mut next = tokio::time::interval(Duration::from_millis(EVERY_MS));
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        if web.listeners.newest.receiver_count() > 0 {
            let event = event(&web).await;
            web.listeners.newest.send_replace(event);
        }
    }
}

async fn event(web: &Web) -> Bytes {
    let body = match web.status_now().await {
        Ok(status) => status_json(web, &status),
        Err(unavailable) => json!({
            "store_away": unavailable.detail,
            "process": web.process_json(),
        }),
    };
    // JSON of serde_json has no line breaks, which would end the event.
    Bytes::from(format!("event: status\ndata: {body}\n\n"))
}

pub(super) fn listen(web: &Arc<Web>, asked: &Asked) -> Result<Response, Problem> {
    asked.only(&[])?;
    let Ok(place) = Arc::clone(&web.listeners.places).try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{LISTENERS_MAX} listen already; close a page, or read /api/v1/status now and then"
            ),
        ));
    };
    asked.peer.streams.store(true, Ordering::Relaxed);
    let (events, body) = mpsc::channel(1);
    tokio::spawn(forward(Arc::clone(web), events, place));
    let mut response = Response::new(Body::new(Events(body)));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// Brings events to one listener until it is gone; it keeps its place until then.
async fn forward(web: Arc<Web>, events: mpsc::Sender<Bytes>, place: OwnedSemaphorePermit) {
    let mut newest = web.listeners.newest.subscribe();
    let first = event(&web).await;
    let hello = Bytes::from(format!("retry: {COME_AGAIN_MS}\n\n"));
    for bytes in [hello, first] {
        if events.send(bytes).await.is_err() {
            return;
        }
    }
    loop {
        tokio::select! {
            changed = newest.changed() => {
                let bytes = newest.borrow_and_update().clone();
                if changed.is_err() || events.send(bytes).await.is_err() {
                    break;
                }
            }
            () = events.closed() => break,
        }
    }
    drop(place);
}

/// The events as a body.
struct Events(mpsc::Receiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| Some(Ok(Frame::data(bytes?))))
    }
}
