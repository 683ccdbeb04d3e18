//! The listener and its connections: bounded in number (by `places`), in time and in what is read of a request's head.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Web;
use super::places::Places;
use super::routes::router;
use crate::wiring::Refused;

/// After a failure to accept (no more descriptors, say) this long passes before the next attempt, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;
/// The bytes of a request's head that are read at the most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// One in so many connections that are refused to their address is told in the log, the first among them.
const TOLD_ONE_IN: u64 = 1_000;
/// What an address hears that has as many connections as it may. Google comes again after a 503, and so do proxies.
const ENOUGH: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n";

/// How long a client may take, so that none holds a connection for ever. Whatever runs out of time is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A request's head must be there within this time, in milliseconds.
    pub head_ms: u64,
    /// A body must be there within this time, in milliseconds.
    pub body_ms: u64,
    /// A request is answered within this time, its body included, in milliseconds; a stream has to begin within it.
    pub request_ms: u64,
    /// A connection lasts no longer than this, in milliseconds, however often it is used.
    pub connection_ms: u64,
    /// One that carries a stream of events lasts no longer than this, in milliseconds; its client comes again.
    pub stream_ms: u64,
}

/// Takes a port.
///
/// # Errors
/// If another process has it, or the address is not one of this machine's.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, Refused> {
    bind_for("http.listen", listen).await
}

/// As [`bind`], for another setting.
///
/// # Errors
/// As [`bind`].
pub async fn bind_for(setting: &str, listen: SocketAddr) -> Result<TcpListener, Refused> {
    TcpListener::bind(listen).await.map_err(|error| {
        Refused::bad_input(format!(
            "{setting}: {listen} cannot be listened at: {error}; choose another port or address, or end who has it"
        ))
    })
}

/// Who is on the other end of a connection, and what it is used for. It goes along with every request.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Set by a request whose answer is a stream.
    pub(super) streams: Arc<AtomicBool>,
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, web: Arc<Web>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(super::events::tell_listeners(Arc::clone(&web)));
    let places = Places::new(web.settings.connections_per_address_max);
    let bounds = web.settings.bounds;
    serve_router(listener, router(&web), places, bounds, tasks).await;
}

/// Serves a router in these places and within these bounds, beside `tasks`, for as long as it is polled.
pub(super) async fn serve_router(
    listener: TcpListener,
    router: Router,
    places: Arc<Places>,
    bounds: Bounds,
    mut tasks: JoinSet<()>,
) {
    assert!(
        bounds.stream_ms >= bounds.connection_ms,
        "a stream lasts no shorter than a connection"
    );
    let mut refused: u64 = 0;
    loop {
        let free = places.free().await;
        while tasks.try_join_next().is_some() {}
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("no connection could be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let Some(place) = places.give(free, address.ip()) else {
            if refused.is_multiple_of(TOLD_ONE_IN) {
                tracing::warn!(
                    address = %address.ip(), refused,
                    "an address has as many connections as it may; of a proxy, raise connections_per_address_max"
                );
            }
            refused += 1;
            refuse(stream);
            continue;
        };
        let router = router.clone();
        tasks.spawn(async move {
            connection(stream, address, router, bounds).await;
            drop(place);
        });
    }
}

/// Says so at once or not at all: nobody is waited for, and what is sent fits into any socket's buffer.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Whoever is refused may be gone already.
        let _ = stream.write(ENOUGH);
    }
}

async fn connection(stream: TcpStream, address: SocketAddr, router: Router, bounds: Bounds) {
    let streams = Arc::new(AtomicBool::new(false));
    let peer = Peer {
        address,
        streams: Arc::clone(&streams),
    };
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answer = service.call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(bounds.head_ms))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let out_of_time = async {
        tokio::time::sleep(Duration::from_millis(bounds.connection_ms)).await;
        if streams.load(Ordering::Relaxed) {
            let more_ms = bounds.stream_ms - bounds.connection_ms;
            tokio::time::sleep(Duration::from_millis(more_ms)).await;
        }
    };
    tokio::select! {
        // What a client does to its own connection is of no interest here.
        _ = connection => {}
        () = out_of_time => {}
    }
}
