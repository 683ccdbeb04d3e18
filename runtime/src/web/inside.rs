//! The API without a socket: for commands that have the store in their own hands. They ask what a client would ask, so a
//! command and the API cannot come to mean different things.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use super::Web;
use super::gate::Trusted;
use super::routes::open_router;
use super::server::Peer;

/// The largest answer, in bytes: a page of jobs with their errors has a few hundred kilobytes.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Asks as if the token had been shown; the status and the answer. What goes on in the background afterwards has ended
/// when this returns.
///
/// # Panics
/// If `method` or `path` is none.
pub async fn ask(web: &Arc<Web>, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let method = Method::from_bytes(method.as_bytes()).expect("callers know their methods");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .expect("callers encode their paths");
    request.extensions_mut().insert(Peer {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        streams: Arc::new(AtomicBool::new(false)),
    });
    request.extensions_mut().insert(Trusted(true));
    let answer = TowerToHyperService::new(open_router(web)).call(request);
    let answer = answer.await.unwrap_or_else(|never| match never {});
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await;
    let value = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    web.sync_all.ended().await;
    (status, value.unwrap_or(Value::Null))
}
