//! Health and readiness over HTTP, for whoever supervises the process.
//!
//! `/healthz` says 200 for as long as the process lives: being without a store is no reason to be killed. `/readyz` says
//! 200 while work is done, else 503 and in JSON why: still starting, the store away (since when, what it said, when it
//! is asked again), stopping.
//!
//! Nobody is asked for a password, so only this machine is served, and only under its own names: a web page that has
//! its host name point to 127.0.0.1 learns nothing. Every connection is bounded in time and their number is bounded, so
//! that no client can hold the process up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::handle::{Readiness, Why};
use crate::wiring::Refused;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A request's head must be there within this time, in milliseconds.
const HEADER_MS_MAX: u64 = 5_000;
/// A connection lasts no longer than this, in milliseconds, however often it is used.
const CONNECTION_MS_MAX: u64 = 60_000;
/// After a failure to accept (no more descriptors, say) this long passes before the next attempt, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;
/// The bytes of a request's head that are read at the most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Takes a port on this machine.
///
/// # Errors
/// If another process has it, or the address is not one of this machine's own.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, Refused> {
    if !listen.ip().is_loopback() {
        return Err(Refused::bad_input(format!(
            "http.listen: {listen} can be reached from other machines; use 127.0.0.1 or [::1]"
        )));
    }
    TcpListener::bind(listen).await.map_err(|error| {
        Refused::bad_input(format!(
            "http.listen: {listen} cannot be listened at: {error}; choose another port, or end who has it"
        ))
    })
}

/// Serves `/healthz` and `/readyz` for as long as it is polled.
pub async fn serve(listener: TcpListener, readiness: watch::Receiver<Readiness>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("no connection could be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let readiness = readiness.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &readiness.borrow());
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(HEADER_MS_MAX))
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // What a client does to its own connection is of no interest here.
            let _ =
                tokio::time::timeout(Duration::from_millis(CONNECTION_MS_MAX), connection).await;
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, readiness: &Readiness) -> Response<String> {
    let host = request.headers().get(HOST);
    let (status, body) = if !host.is_some_and(is_own_name) {
        let why = "this host name is not served; ask 127.0.0.1, [::1] or localhost";
        (StatusCode::MISDIRECTED_REQUEST, json!({ "error": why }))
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let why = "only GET is answered here";
        (StatusCode::METHOD_NOT_ALLOWED, json!({ "error": why }))
    } else {
        match request.uri().path() {
            "/healthz" => (StatusCode::OK, json!({ "alive": true })),
            "/readyz" => ready(readiness),
            _ => {
                let why = "there are /healthz and /readyz";
                (StatusCode::NOT_FOUND, json!({ "error": why }))
            }
        }
    };
    let mut response = Response::new(format!("{body}\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a `Host` header names this machine as itself, with whatever port.
fn is_own_name(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let is_port = |text: &str| text.is_empty() || text[1..].parse::<u16>().is_ok();
    ["127.0.0.1", "[::1]", "localhost"].iter().any(|own| {
        let named = host.get(..own.len());
        let rest = host.get(own.len()..).unwrap_or_default();
        named.is_some_and(|named| named.eq_ignore_ascii_case(own))
            && (rest.is_empty() || rest.starts_with(':'))
            && is_port(rest)
    })
}

fn ready(readiness: &Readiness) -> (StatusCode, Value) {
    let body = match readiness {
        Readiness::Ready => return (StatusCode::OK, json!({ "ready": true, "state": "ready" })),
        Readiness::Starting => json!({
            "ready": false,
            "state": "starting",
            "reason": "the store is being told of schedules and users",
        }),
        Readiness::StoreAway {
            since,
            detail,
            retry_at,
        } => json!({
            "ready": false,
            "state": "store_away",
            "reason": format!("the store does not answer: {detail}"),
            "since": since.to_rfc3339(),
            "retry_at": retry_at.to_rfc3339(),
        }),
        Readiness::Stopping => json!({
            "ready": false,
            "state": "stopping",
            "reason": "no new syncs are started; running ones finish or are handed back",
        }),
        Readiness::Stopped { why } => json!({
            "ready": false,
            "state": "stopped",
            "reason": match why {
                Why::Asked => "it was asked to stop",
                Why::Fault(detail) => detail,
            },
        }),
    };
    (StatusCode::SERVICE_UNAVAILABLE, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::time::Timestamp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    fn asked(method: &str, path: &str, host: &str, readiness: &Readiness) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .body(())
            .unwrap();
        let response = answer(&request, readiness);
        let body = serde_json::from_str(response.body()).unwrap();
        (response.status().as_u16(), body)
    }

    #[test]
    fn ready_is_only_who_works_and_alive_is_everybody() {
        let away = Readiness::StoreAway {
            since: Timestamp::EPOCH,
            detail: "connection refused".to_owned(),
            retry_at: Timestamp::from_ms(4_000),
        };
        let fault = Readiness::Stopped {
            why: Why::Fault("a panic: x".to_owned()),
        };
        let cases = [
            (&Readiness::Ready, 200, "ready"),
            (&Readiness::Starting, 503, "starting"),
            (&away, 503, "store_away"),
            (&Readiness::Stopping, 503, "stopping"),
            (&fault, 503, "stopped"),
        ];
        for (readiness, status, state) in cases {
            let (got, body) = asked("GET", "/readyz", "localhost:1", readiness);
            assert_eq!(
                (got, body["state"].as_str()),
                (status, Some(state)),
                "{body}"
            );
            assert_eq!(body["ready"], status == 200, "{body}");
            let (alive, _) = asked("GET", "/healthz", "localhost:1", readiness);
            assert_eq!(alive, 200);
        }
        let (_, body) = asked("GET", "/readyz", "[::1]:80", &away);
        assert_eq!(
            body["reason"],
            "the store does not answer: connection refused"
        );
        assert_eq!(body["since"], Timestamp::EPOCH.to_rfc3339());
        assert_eq!(body["retry_at"], Timestamp::from_ms(4_000).to_rfc3339());
    }

    #[test]
    fn only_own_names_two_paths_and_reading() {
        let status = |method, path, host| asked(method, path, host, &Readiness::Ready).0;
        for own in ["127.0.0.1", "127.0.0.1:7878", "LOCALHOST:1", "[::1]:65535"] {
            assert_eq!(status("GET", "/readyz", own), 200, "{own}");
        }
        for other in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:7878",
            "localhost:80x",
            "[::1]evil",
            "127.0.0.1@evil",
            "",
        ] {
            assert_eq!(status("GET", "/readyz", other), 421, "{other}");
        }
        assert_eq!(status("POST", "/readyz", "localhost"), 405);
        assert_eq!(status("GET", "/", "localhost"), 404);
        let request = Request::builder().uri("/readyz").body(()).unwrap();
        assert_eq!(answer(&request, &Readiness::Ready).status(), 421);
    }

    #[tokio::test]
    async fn idle_clients_keep_nobody_out() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_told, readiness) = watch::channel(Readiness::Ready);
        let server = tokio::spawn(serve(listener, readiness));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        // Answered as soon as the idle ones have run out of time.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.ends_with("{\"ready\":true,\"state\":\"ready\"}\n"),
            "{text}"
        );
        server.abort();
    }

    #[tokio::test]
    async fn nobody_else_is_served() {
        let refused = bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(
            refused.detail.contains("other machines"),
            "{}",
            refused.detail
        );
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = bind(listener.local_addr().unwrap()).await.unwrap_err();
        assert!(
            taken.detail.contains("choose another port"),
            "{}",
            taken.detail
        );
    }
}
