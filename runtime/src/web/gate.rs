//! What every request passes before it is looked at, and what every answer carries.
//!
//! In this order: is it asked under a name of ours, does it come too often, does it show the token where one is needed,
//! and does it end in time. A request that changes something always needs the token; so does every other one, but for the
//! page itself and the probes, which hold no data, if other machines can reach the address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{self, HOST, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::Web;
use super::auth::Shown;
use super::problem::{PROBLEM_JSON, Problem};
use super::routes;
use super::server::Peer;

/// The longest path with its query, in bytes.
const TARGET_BYTES_MAX: usize = 4 * 1024;

/// Scripts, styles and data from here only, nothing inline, in nobody's frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether the caller showed the token, for handlers that tell less without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trusted(pub(super) bool);

pub(super) async fn gate(
    State(web): State<Arc<Web>>,
    mut request: Request,
    next: Next,
) -> Response {
    let answer = match admit(&web, &request) {
        Ok(trusted) => {
            request.extensions_mut().insert(trusted);
            let limit = Duration::from_millis(web.settings.bounds.request_ms);
            tokio::time::timeout(limit, next.run(request))
                .await
                .unwrap_or_else(|_| {
                    let detail =
                        "it took too long; the store may be slow: see /readyz, then try again";
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).response()
                })
        }
        Err(problem) => problem.response(),
    };
    finish(answer)
}

fn admit(web: &Web, request: &Request) -> Result<Trusted, Problem> {
    let is_served = |host: &str| web.hosts.is_served(host);
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let authority = request.uri().authority().map(|named| named.as_str());
    if !host.is_some_and(is_served) || !authority.is_none_or(is_served) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this host name is not served; ask 127.0.0.1, [::1] or localhost, or add the name to http.hosts",
        ));
    }
    let path = request.uri().path();
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    let peer = request.extensions().get::<Peer>();
    let address = peer.expect("the server adds it").address.ip();
    let is_probe = routes::is_probe(path);
    let now = Instant::now();
    let in_rate = is_probe || web.requests.take(address, now);
    if !in_rate || (is_change && !web.changes.take(address, now)) {
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests; try again in a second",
        ));
    }
    if request
        .uri()
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX)
    {
        return Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            format!("the address is longer than {TARGET_BYTES_MAX} bytes; shorten it"),
        ));
    }
    let shown = match &web.token {
        Some(token) => token.shown_in(request.headers()),
        None => Shown::Nothing,
    };
    let is_open = is_probe || routes::is_page(path);
    match shown {
        Shown::Right => Ok(Trusted(true)),
        Shown::Nothing if is_change && web.token.is_none() => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this process has no token, so nothing can be changed here; set http.token_file (or KALENDS_HTTP_TOKEN) and \
             start it again",
        )),
        Shown::Nothing if !is_change && (web.is_loopback || is_open) => {
            Ok(Trusted(web.is_loopback))
        }
        Shown::Nothing | Shown::Wrong => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "send the token of http.token in the header Authorization: Bearer TOKEN",
        )),
    }
}

/// The headers of every answer; and a refusal that the router made itself becomes a problem like others.
fn finish(mut answer: Response) -> Response {
    let is_problem = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == PROBLEM_JSON);
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED && !is_problem {
        let allow = answer.headers().get(header::ALLOW).cloned();
        let allowed = allow.as_ref().and_then(|allow| allow.to_str().ok());
        let detail = format!(
            "this method is not served here; use {}",
            allowed.unwrap_or("another one")
        );
        answer = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).response();
        if let Some(allow) = allow {
            answer.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = answer.headers_mut();
    let own = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ];
    for (name, value) in own {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let cache = headers.entry(header::CACHE_CONTROL);
    cache.or_insert(HeaderValue::from_static("no-store"));
    answer
}

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
