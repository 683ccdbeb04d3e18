//! HTTP: health and readiness, metrics, the API under `/api/v1`, and the page that uses it.
//!
//! Off unless an address is configured. On this machine everybody may look, and whoever shows the token may change
//! things; an address that other machines reach needs the token for everything. Every connection, head, body and answer is
//! bounded in time and size, and their number is bounded, so that no client can hold the process up.
//!
//! | module | what it holds |
//! |---|---|
//! | `server`, `places` | the listener and its connections |
//! | `gate` | what every request passes and every answer carries; with `hosts`, `rates`, `auth` |
//! | `inside` | the API without a socket, for commands |
//! | `routes` | the table of all paths |
//! | `request`, `problem` | what was asked, and how a refusal is told |
//! | `webhook` | Google's notifications, at an address of their own |
//! | `probes`, `look`, `change`, `sync_all`, `events`, `page` | the answers |

mod auth;
mod change;
mod events;
mod gate;
mod hosts;
mod inside;
mod look;
mod page;
mod places;
mod probes;
mod problem;
mod rates;
mod request;
mod routes;
mod server;
mod sync_all;
#[cfg(test)]
mod tests;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use axum::response::Response;
use kalends_adapters::secret::Secret;
use kalends_core::id::{SourceName, WorkerId};
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::Store;
use serde_json::Value;
use tokio::sync::watch;

use crate::handle::Readiness;
use crate::metrics::Metrics;
use crate::reload::Reloader;

pub use inside::{ANSWER_BYTES_MAX, ask};
pub use places::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};
pub use rates::Rate;
pub use server::{Bounds, bind, bind_for, serve};
pub use webhook::{Hooks, serve_webhook};

/// What the face is told.
#[derive(Clone, Debug)]
pub struct WebSettings {
    /// Where it listens: whether that is this machine only decides who needs the token.
    pub address: SocketAddr,
    /// What a caller must show; `None`: nothing can be changed.
    pub token: Option<Secret>,
    /// Host names under which it is asked, in small letters, beside those of this machine.
    pub hosts: Vec<String>,
    /// The process, as jobs name it.
    pub worker: WorkerId,
    /// The source that is meant if a request names none.
    pub source: SourceName,
    /// How "sync all" lays users over the period, unless there is a reloader, which knows it.
    pub spread: Spread,
    /// How far a start of "sync all" may be moved back at random.
    pub jitter: Jitter,
    /// The seed of that chance.
    pub seed: u64,
    /// Reads the configuration again; `None`: there is none, so nothing can be read.
    pub reloader: Option<Arc<Reloader>>,
    /// How often one address may ask.
    pub requests: Rate,
    /// How often one address may ask for a change.
    pub changes: Rate,
    /// How long a client may take.
    pub bounds: Bounds,
    /// Connections that one address may have at a time, of [`CONNECTIONS_MAX`] in all; `None`: [`CONNECTIONS_PER_ADDRESS_MAX`],
    /// and as many as there are from this machine.
    pub connections_per_address_max: Option<usize>,
}

impl WebSettings {
    /// How often one address may ask, unless told otherwise.
    pub const REQUESTS: Rate = Rate {
        burst: 200,
        a_second: 50,
    };
    /// How often one address may ask for a change, unless told otherwise.
    pub const CHANGES: Rate = Rate {
        burst: 30,
        a_second: 5,
    };
    /// How long a client may take, unless told otherwise.
    pub const BOUNDS: Bounds = Bounds {
        head_ms: 5_000,
        body_ms: 5_000,
        request_ms: 15_000,
        connection_ms: 60_000,
        stream_ms: 15 * 60_000,
    };
}

/// What all requests share.
pub struct Web {
    store: Arc<dyn Store>,
    readiness: watch::Receiver<Readiness>,
    metrics: Arc<Metrics>,
    settings: WebSettings,
    is_loopback: bool,
    token: Option<auth::Token>,
    hosts: hosts::Hosts,
    requests: rates::Rates,
    changes: rates::Rates,
    seen: look::Seen,
    listeners: events::Listeners,
    sync_all: sync_all::SyncAll,
}

impl Web {
    /// A face of this store and this process.
    ///
    /// # Panics
    /// If other machines can reach the address and there is no token: the configuration refuses that.
    #[must_use]
    pub fn new(
        settings: WebSettings,
        store: Arc<dyn Store>,
        readiness: watch::Receiver<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Arc<Web> {
        let is_loopback = settings.address.ip().is_loopback();
        assert!(
            is_loopback || settings.token.is_some(),
            "{} can be reached from other machines and needs a token",
            settings.address
        );
        Arc::new(Web {
            store,
            readiness,
            metrics,
            is_loopback,
            token: settings.token.as_ref().map(auth::Token::new),
            hosts: hosts::Hosts::new(settings.hosts.clone(), is_loopback),
            requests: rates::Rates::new(settings.requests),
            changes: rates::Rates::new(settings.changes),
            seen: look::Seen::default(),
            listeners: events::Listeners::default(),
            sync_all: sync_all::SyncAll::default(),
            settings,
        })
    }
}

impl Web {
    /// How "sync all" lays users over the period: as it was read last.
    fn layout(&self) -> (Spread, Jitter) {
        match &self.settings.reloader {
            Some(reloader) => {
                let schedule = reloader.schedule();
                let schedule = schedule.borrow();
                (schedule.spread, schedule.jitter)
            }
            None => (self.settings.spread, self.settings.jitter),
        }
    }
}

/// An answer in JSON.
fn json_with(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
