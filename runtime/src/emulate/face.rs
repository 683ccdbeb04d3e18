//! The HTTP face of an emulator: a socket on this machine before a value that knows no sockets.
//!
//! It translates there and back, and adds only what belongs to the wire: gzip, a bound for bodies, and connections
//! that break where the emulator says so. The path is passed on as it came, percent-encoded; the query decoded.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::{Router, response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body as HttpBody, Frame};
use kalends_core::time::{Clock, Timestamp};
use kalends_sim::http::{Delivery, Request, Response};
use kalends_sim::neo4j::Neo4jEmulator;
use tokio::net::TcpListener;

/// Answers up to this size are not compressed, in bytes: the header would cost what the compression saves.
const GZIP_BYTES_MIN: usize = 1_024;

/// A world that answers requests.
pub trait Emulated: Send + 'static {
    /// Answers one request at the time `now`.
    fn handle(&mut self, now: Timestamp, request: &Request) -> Response;
}

impl Emulated for Neo4jEmulator {
    fn handle(&mut self, now: Timestamp, request: &Request) -> Response {
        Neo4jEmulator::handle(self, now, request)
    }
}

/// What the face adds of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaceOptions {
    /// Compress answers for clients that accept it.
    pub gzip: bool,
    /// Larger request bodies are refused with status 413, in bytes.
    pub body_bytes_max: usize,
}

impl Default for FaceOptions {
    /// With gzip, bodies up to 64 MiB.
    fn default() -> Self {
        FaceOptions {
            gzip: true,
            body_bytes_max: 64 * 1024 * 1024,
        }
    }
}

struct Face<E> {
    emulator: Arc<Mutex<E>>,
    clock: Arc<dyn Clock>,
    options: FaceOptions,
}

impl<E> Clone for Face<E> {
    fn clone(&self) -> Self {
        Face {
            emulator: Arc::clone(&self.emulator),
            clock: Arc::clone(&self.clock),
            options: self.options,
        }
    }
}

/// Serves `emulator` on `listener` until `shutdown` is ready, then lets the requests at work finish.
///
/// # Errors
/// If the listener is not on the loopback interface (an emulator protects nothing), or the socket fails.
pub async fn serve<E: Emulated>(
    listener: TcpListener,
    emulator: Arc<Mutex<E>>,
    clock: Arc<dyn Clock>,
    options: FaceOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    if !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an emulator is served to this machine only; listen on 127.0.0.1 or [::1]",
        ));
    }
    let face = Face {
        emulator,
        clock,
        options,
    };
    let router = Router::new().fallback(answer::<E>).with_state(face);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

async fn answer<E: Emulated>(
    State(face): State<Face<E>>,
    request: axum::extract::Request,
) -> response::Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, face.options.body_bytes_max).await else {
        return status_only(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: decode_query(head.uri.query().unwrap_or_default()),
        headers: header_texts(&head.headers),
        body: body.into(),
    };
    let gzip = face.options.gzip && accepts_gzip(&head.headers);
    let now = face.clock.now();
    let response = {
        let mut emulator = face.emulator.lock().unwrap_or_else(PoisonError::into_inner);
        emulator.handle(now, &request)
    };
    onto_the_wire(response, gzip)
}

fn onto_the_wire(answer: Response, gzip: bool) -> response::Response {
    // An answer that is lost has no status; the connection breaks before a client can make anything of this one.
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let body = match answer.delivery {
        Delivery::Whole if gzip && answer.body.len() > GZIP_BYTES_MIN => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            Body::from(compressed(&answer.body))
        }
        Delivery::Whole => Body::from(answer.body),
        Delivery::CutShort => Body::new(BrokenBody(Some(answer.body.into()))),
        Delivery::Lost => Body::new(BrokenBody(None)),
    };
    let mut response = response::Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn status_only(status: StatusCode) -> response::Response {
    let mut response = response::Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn compressed(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("writing into memory does not fail")
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            named && !parts.any(|weight| weight == "q=0")
        })
}

fn header_texts(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

/// The names and values of a query in order, `+` and percent signs decoded.
fn decode_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// A body that breaks the connection, after some bytes or before any.
struct BrokenBody(Option<Bytes>);

impl HttpBody for BrokenBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(Some(match self.0.take() {
            Some(bytes) => Ok(Frame::data(bytes)),
            None => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_in_order() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            decode_query("a=1%2B1&b=x+y&a=%C3%A9&flag&=&"),
            [
                pair("a", "1+1"),
                pair("b", "x y"),
                pair("a", "é"),
                pair("flag", ""),
                pair("", "")
            ]
        );
        assert_eq!(decode_query(""), []);
    }

    #[test]
    fn gzip_is_for_those_who_ask() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip"));
        assert!(accepts("br, gzip;q=0.5"));
        assert!(!accepts("gzip;q=0"));
        assert!(!accepts("deflate"));
    }

    #[tokio::test]
    async fn an_emulator_is_not_served_to_others() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let emulator = Arc::new(Mutex::new(Neo4jEmulator::new(Default::default())));
        struct Still;
        impl Clock for Still {
            fn now(&self) -> Timestamp {
                Timestamp::EPOCH
            }
        }
        let served = serve(
            listener,
            emulator,
            Arc::new(Still),
            FaceOptions::default(),
            std::future::ready(()),
        );
        assert_eq!(
            served.await.unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
