//! Where Google's notifications come in: a listener of its own, for all the world, with nothing else behind it.
//!
//! A notification is headers alone. What is asked of the caller is the channel's token, which this process can judge by itself; no
//! store is asked and nothing is waited for before the answer. A forgery costs reading a head and one hash, and whoever floods
//! takes no more than the bounded number of connections. What is genuine goes into a bounded line, of which a task asks for
//! syncs; when that is full, or the store is known to be away, Google is told to come again, which it does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use kalends_adapters::google::Webhook;
use kalends_core::google::push::RESOURCE_BYTES_MAX;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Source, Store};
use kalends_core::push::hearing::{DEBOUNCE_MS, Hearing, ResourceState};
use kalends_core::time::Clock as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::server;
use crate::clock::{SteadyClock, SystemClock};
use crate::handle::{NotEnqueued, Readiness, enqueue_sync_after, read_user};
use crate::metrics::Metrics;

/// Notifications that wait to be looked at; what comes beyond is told to come again.
const WAITING_MAX: usize = 1_024;
/// Orphans that are stopped at a time; others are left until they are heard of again.
const STOPS_MAX: usize = 4;
/// The end of an orphan is waited for so long, in milliseconds.
const STOP_MS_MAX: u64 = 30_000;

/// What the listener and the task behind it share with the process.
#[derive(Clone)]
pub struct Hooks {
    /// Knows genuine notifications.
    pub webhook: Arc<Webhook>,
    /// Whether the store is known to be away.
    pub readiness: watch::Receiver<Readiness>,
    /// Where syncs are asked for.
    pub store: Arc<dyn Store>,
    /// Where orphans are stopped.
    pub source: Arc<dyn Source>,
    /// Under which name.
    pub source_name: SourceName,
    /// Counts what became of notifications.
    pub metrics: Arc<Metrics>,
}

/// A genuine notification.
struct Heard {
    user: UserId,
    channel: String,
    resource: Option<String>,
    state: ResourceState,
}

#[derive(Clone)]
struct Face {
    hooks: Hooks,
    line: mpsc::Sender<Heard>,
}

/// Answers notifications on `listener` and asks for syncs, for as long as it is polled.
pub async fn serve_webhook(listener: TcpListener, hooks: Hooks) {
    let (line, waiting) = mpsc::channel(WAITING_MAX);
    let face = Face {
        hooks: hooks.clone(),
        line,
    };
    let router = Router::new().fallback(answer).with_state(face);
    tokio::join!(
        server::serve_router(listener, router, JoinSet::new()),
        listen(hooks, waiting)
    );
}

async fn answer(State(face): State<Face>, request: Request) -> Response {
    let (status, outcome) = receive(&face, request.method(), request.headers());
    face.hooks.metrics.notification(outcome);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The answer, and its name for the metrics.
fn receive(face: &Face, method: &Method, headers: &HeaderMap) -> (StatusCode, &'static str) {
    let header = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    let forged = (StatusCode::NOT_FOUND, "forged");
    if method != Method::POST {
        return forged;
    }
    let (Some(channel), Some(token)) =
        (header("x-goog-channel-id"), header("x-goog-channel-token"))
    else {
        return forged;
    };
    let Some(user) = face.hooks.webhook.user_of(channel, token) else {
        return forged;
    };
    let state = ResourceState::read(header("x-goog-resource-state").unwrap_or_default());
    if state == ResourceState::Sync {
        return (StatusCode::NO_CONTENT, "channel");
    }
    let is_away = matches!(*face.hooks.readiness.borrow(), Readiness::StoreAway { .. });
    let resource = header("x-goog-resource-id").filter(|id| id.len() <= RESOURCE_BYTES_MAX);
    let heard = Heard {
        user,
        channel: channel.to_owned(),
        resource: resource.map(str::to_owned),
        state,
    };
    if is_away || face.line.try_send(heard).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "told_to_come_again");
    }
    (StatusCode::NO_CONTENT, "accepted")
}

async fn listen(hooks: Hooks, mut waiting: mpsc::Receiver<Heard>) {
    let clock = SteadyClock::new(SystemClock.now(), 1);
    let mut hearing = Hearing::default();
    let mut stops = JoinSet::new();
    while let Some(heard) = waiting.recv().await {
        while stops.try_join_next().is_some() {}
        if !hearing.asks_for_sync(clock.now(), &heard.user, heard.state) {
            continue;
        }
        let (store, source) = (&*hooks.store, hooks.source_name.clone());
        let asked = match read_user(store, &source, &heard.user).await {
            Ok((now, state)) => {
                let cursor = state.cursor.as_deref();
                let is_orphan = hearing.is_orphan(now, &heard.channel, cursor);
                let asked = enqueue_sync_after(store, source, heard.user.clone(), DEBOUNCE_MS);
                let asked = asked.await;
                if is_orphan {
                    stop(&hooks, &mut stops, &heard);
                }
                asked
            }
            // Nobody has this channel any more.
            Err(NotEnqueued::UnknownUser) => {
                if hearing.is_orphan(clock.now(), &heard.channel, None) {
                    stop(&hooks, &mut stops, &heard);
                }
                continue;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = asked {
            // The next notification asks again, and the poll stands behind.
            hearing.not_asked(&heard.user);
            tracing::debug!(user = %heard.user, "a notification led to no sync: {error}");
        }
    }
}

fn stop(hooks: &Hooks, stops: &mut JoinSet<()>, heard: &Heard) {
    let Some(resource) = heard.resource.clone() else {
        return;
    };
    if stops.len() >= STOPS_MAX {
        return;
    }
    tracing::info!(
        channel = heard.channel,
        "a push channel that nobody has any more is stopped"
    );
    let request = FetchRequest::StopChannel {
        user: heard.user.clone(),
        channel: heard.channel.clone(),
        resource,
    };
    let source = Arc::clone(&hooks.source);
    stops.spawn(async move {
        let limit = Duration::from_millis(STOP_MS_MAX);
        // It ends by itself in the worst case.
        match tokio::time::timeout(limit, source.fetch(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => tracing::debug!("it could not be stopped: {failure}"),
            Err(_) => tracing::debug!("it could not be stopped in time"),
        }
    });
}
