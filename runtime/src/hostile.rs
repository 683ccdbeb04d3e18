//! For tests of clients: a server that does to them what a server must not be able to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body::{Body as HttpBody, Frame};
use tokio::task::JoinHandle;

/// No test waits for the end of a request for so long: nobody ended it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A time that no request may take, in milliseconds: a client that is bounded by nothing else outlasts [`PATIENCE`].
pub(crate) const LONG_MS: u64 = 3_600_000;

/// What a client gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// An answer that nobody should have asked for.
    Trap,
    /// It is sent somewhere else, with this status.
    Redirect(u16, SocketAddr),
    /// A good status, and a body without an end.
    Endless,
    /// Nothing, not even a head.
    Silent,
}

/// The server, until it is dropped.
pub(crate) struct Hostile {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
    task: JoinHandle<()>,
}

impl Hostile {
    pub(crate) async fn start(manner: Manner) -> Hostile {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let heads = Arc::clone(&asked);
        let router = Router::new().fallback(async move |request: Request| {
            heads.lock().unwrap().push(request.headers().clone());
            answer(manner).await
        });
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Hostile {
            address,
            asked,
            task,
        }
    }

    /// The heads of all that was asked.
    pub(crate) fn asked(&self) -> Vec<HeaderMap> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(manner: Manner) -> Response {
    let mut response = Response::new(Body::from("{}"));
    match manner {
        Manner::Trap => {}
        Manner::Redirect(status, to) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let place = format!("http://{to}/elsewhere").parse().unwrap();
            response.headers_mut().insert(LOCATION, place);
        }
        Manner::Endless => *response.body_mut() = Body::new(Blanks),
        Manner::Silent => std::future::pending().await,
    }
    response
}

struct Blanks;

impl HttpBody for Blanks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const BLANKS: &[u8] = &[b' '; 64 * 1024];
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(BLANKS)))))
    }
}
