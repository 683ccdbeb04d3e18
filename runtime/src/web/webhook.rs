//! Where Google's notifications come in: a listener of its own, for all the world, with nothing else behind it.
//!
//! A notification is headers alone. What is asked of the caller is the channel's token, which this process can judge by itself; no
//! store is asked and nothing is waited for before the answer. A forgery costs reading a head and one hash, and whoever floods
//! takes no more than the bounded number of connections. All that is decided is decided by core's
//! [`Listener`](kalends_core::push::listener::Listener); here its wishes are done, by one task.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use kalends_adapters::google::Webhook;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::SourceName;
use kalends_core::port::{Source, Store, StoreUnavailable};
use kalends_core::push::listener::{
    ANSWER_MS_MAX, Listener, Notification, STOP_MS_MAX, Verdict, Wish,
};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::time::Clock as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::places::Places;
use super::{WebSettings, server};
use crate::clock::{SteadyClock, SystemClock};
use crate::handle::Readiness;
use crate::metrics::Metrics;

/// What the listener and the task behind it share with the process.
#[derive(Clone)]
pub struct Hooks {
    /// Knows genuine notifications.
    pub webhook: Arc<Webhook>,
    /// Whether the store is known to be away, or the process about to end.
    pub readiness: watch::Receiver<Readiness>,
    /// Where syncs are asked for.
    pub store: Arc<dyn Store>,
    /// Where orphans are stopped.
    pub source: Arc<dyn Source>,
    /// Under which name.
    pub source_name: SourceName,
    /// Counts what became of notifications.
    pub metrics: Arc<Metrics>,
    /// As [`WebSettings::connections_per_address_max`](super::WebSettings::connections_per_address_max).
    pub connections_per_address_max: Option<usize>,
}

#[derive(Clone)]
struct Face {
    hooks: Hooks,
    ear: Arc<Ear>,
}

/// Core's machine, between the connections and the task that does what it wishes.
struct Ear {
    listener: Mutex<Listener>,
    told: Notify,
}

impl Ear {
    fn new(source: SourceName) -> Self {
        Ear {
            listener: Mutex::new(Listener::new(source)),
            told: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Listener> {
        self.listener
            .lock()
            .expect("nothing panics while it is told something")
    }
}

/// Answers notifications on `listener` and asks for syncs, until the process is about to end and all that was accepted has been
/// asked for. Google comes again for what finds nobody.
pub async fn serve_webhook(listener: TcpListener, hooks: Hooks) {
    let ear = Arc::new(Ear::new(hooks.source_name.clone()));
    let face = Face {
        hooks: hooks.clone(),
        ear: Arc::clone(&ear),
    };
    let router = Router::new().fallback(answer).with_state(face);
    let places = Places::new(hooks.connections_per_address_max);
    tokio::select! {
        () = server::serve_router(listener, router, places, WebSettings::BOUNDS, JoinSet::new()) => {}
        () = listen(hooks, &ear) => {}
    }
}

async fn answer(State(face): State<Face>, request: Request) -> Response {
    let verdict = receive(&face, request.method(), request.headers());
    face.hooks.metrics.notification(verdict.name());
    let mut response = Response::new(Body::empty());
    *response.status_mut() =
        StatusCode::from_u16(verdict.status()).expect("core knows the statuses of HTTP");
    if verdict == Verdict::Forged {
        // Connections are few, and whoever forges shall not keep one.
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn receive(face: &Face, method: &Method, headers: &HeaderMap) -> Verdict {
    let header = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    let notification = Notification::read(header).filter(|_| method == Method::POST);
    let Some(notification) = notification else {
        return Verdict::Forged;
    };
    let user_of = |channel: &str, token: &str| face.hooks.webhook.user_of(channel, token);
    match notification.judge(user_of) {
        Err(verdict) => verdict,
        Ok(heard) => {
            let (store_is_away, is_ending) = {
                let readiness = face.hooks.readiness.borrow();
                let store_is_away = matches!(*readiness, Readiness::StoreAway { .. });
                (store_is_away, is_ending(&readiness))
            };
            let mut listener = face.ear.lock();
            if is_ending {
                // The task that does what is wished may be waiting for an answer, and has not seen it yet.
                listener.close();
            }
            let verdict = listener.hear(heard, store_is_away);
            drop(listener);
            face.ear.told.notify_one();
            verdict
        }
    }
}

fn is_ending(readiness: &Readiness) -> bool {
    matches!(readiness, Readiness::Stopping | Readiness::Stopped { .. })
}

async fn listen(mut hooks: Hooks, ear: &Ear) {
    let clock = SteadyClock::new(SystemClock.now(), 1);
    let mut stops = JoinSet::new();
    loop {
        if is_ending(&hooks.readiness.borrow_and_update()) {
            ear.lock().close();
            if ear.lock().is_idle() {
                return;
            }
        }
        while stops.try_join_next().is_some() {
            ear.lock().stopped();
        }
        let (wish, wake_at) = {
            let mut listener = ear.lock();
            (listener.poll(clock.now()), listener.wake_at())
        };
        match wish {
            Some(Wish::Ask { number, command }) => {
                let result = ask(&*hooks.store, *command).await;
                if let Err(unavailable) = &result {
                    tracing::debug!("a notification led to no sync: {unavailable}");
                }
                ear.lock().answered(clock.now(), number, result);
            }
            Some(Wish::Stop(request)) => {
                stops.spawn(stop(Arc::clone(&hooks.source), request));
            }
            None => {
                let wait_ms = wake_at.map_or(u64::MAX, |at| at.since_ms(clock.now()));
                tokio::select! {
                    () = ear.told.notified() => {}
                    Ok(()) = hooks.readiness.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(wait_ms)), if wake_at.is_some() => {}
                    Some(_) = stops.join_next(), if !stops.is_empty() => ear.lock().stopped(),
                }
            }
        }
    }
}

async fn ask(store: &dyn Store, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
    let limit = Duration::from_millis(ANSWER_MS_MAX);
    let answered = tokio::time::timeout(limit, store.apply(command)).await;
    answered.unwrap_or_else(|_| {
        let detail = format!("the store did not answer within {ANSWER_MS_MAX} ms");
        Err(StoreUnavailable { detail })
    })
}

/// It ends by itself in the worst case.
async fn stop(source: Arc<dyn Source>, request: FetchRequest) {
    if let FetchRequest::StopChannel { channel, .. } = &request {
        tracing::info!(
            channel,
            "a push channel that nobody has any more is stopped"
        );
    }
    let limit = Duration::from_millis(STOP_MS_MAX);
    match tokio::time::timeout(limit, source.fetch(request)).await {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => tracing::debug!("it could not be stopped: {failure}"),
        Err(_) => tracing::debug!("it could not be stopped in time"),
    }
}
