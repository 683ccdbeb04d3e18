//! The page, its script and its style, and the API's description: files that are part of the binary.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;

use super::routes::Endpoint;

const PAGE: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/app.js");
const STYLE: &str = include_str!("page/app.css");
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// A part of the page.
pub(super) fn file(endpoint: Endpoint) -> Response {
    match endpoint {
        Endpoint::Page => with(PAGE, "text/html; charset=utf-8"),
        Endpoint::Script => with(SCRIPT, "text/javascript; charset=utf-8"),
        Endpoint::Style => with(STYLE, "text/css; charset=utf-8"),
        other => panic!("{other:?} is no file of the page"),
    }
}

pub(super) fn openapi() -> Response {
    with(OPENAPI, "application/json")
}

fn with(text: &'static str, kind: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // A new release's page comes with its script.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
