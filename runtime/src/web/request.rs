//! What was asked: path, query and body, bounded and checked before anybody works on it.

use std::time::Duration;

use axum::RequestExt as _;
use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::gate::Trusted;
use super::problem::Problem;
use super::server::Peer;

/// The largest body, in bytes. All that can be asked for takes a few hundred.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// A request without its body.
pub(super) struct Asked {
    pub(super) peer: Peer,
    pub(super) trusted: Trusted,
    /// The part of the path that a name stands for, decoded.
    named: Option<String>,
    query: Vec<(String, String)>,
}

/// A body that was not read yet.
pub(super) struct Payload {
    headers: HeaderMap,
    body: Body,
    /// It must be there within this time, in milliseconds.
    within_ms: u64,
}

/// What was asked, and what comes with it within `body_ms` milliseconds.
pub(super) async fn take_apart(
    mut request: Request,
    body_ms: u64,
) -> Result<(Asked, Payload), Problem> {
    let params: RawPathParams = request
        .extract_parts()
        .await
        .map_err(|_| Problem::bad("the path is not UTF-8; percent-encode it as UTF-8"))?;
    let named = params.iter().next().map(|(_, value)| value.to_owned());
    let extensions = request.extensions();
    let peer = extensions.get::<Peer>().expect("the server adds it");
    let trusted = extensions.get::<Trusted>().expect("the gate adds it");
    let (peer, trusted) = (peer.clone(), *trusted);
    let query = request.uri().query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes());
    let query = query.into_owned().collect();
    let (head, body) = request.into_parts();
    let asked = Asked {
        peer,
        trusted,
        named,
        query,
    };
    let payload = Payload {
        headers: head.headers,
        body,
        within_ms: body_ms,
    };
    Ok((asked, payload))
}

impl Asked {
    /// The part of the path that a name stands for.
    pub(super) fn named(&self) -> &str {
        self.named.as_deref().expect("the route has a name in it")
    }

    /// A parameter of the query. One that is empty counts as not given.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter().filter(|(known, _)| known == name);
        let (_, value) = found.next()?;
        (!value.is_empty()).then_some(value)
    }

    /// Refuses a query that holds something else than these: a misspelt one must not be passed over.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Problem> {
        for (place, (name, _)) in self.query.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                let known = names.join(", ");
                return Err(Problem::bad(format!(
                    "the query holds a parameter that is not known; known are: {known}"
                )));
            }
            if self.query[..place].iter().any(|(before, _)| before == name) {
                return Err(Problem::bad(format!("{name} is given twice; give it once")));
            }
        }
        Ok(())
    }

    /// A whole number of the query, from `min` to `max`; `default` if it is not given.
    pub(super) fn number(
        &self,
        name: &str,
        (min, max): (u32, u32),
        default: u32,
    ) -> Result<u32, Problem> {
        let Some(text) = self.parameter(name) else {
            return Ok(default);
        };
        let number = text.parse().ok();
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| {
                Problem::bad(format!(
                    "{name} is no whole number from {min} to {max}; write one"
                ))
            })
    }
}

impl Payload {
    /// The body, as JSON of this shape.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let kind = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let essence = kind.and_then(|kind| kind.split(';').next());
        if !essence.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send JSON, with Content-Type: application/json",
            ));
        }
        let within_ms = self.within_ms;
        let limit = Duration::from_millis(within_ms);
        let read = tokio::time::timeout(limit, to_bytes(self.body, BODY_BYTES_MAX));
        let body = read
            .await
            .map_err(|_| {
                Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("the body was not there within {within_ms} ms; send it at once"),
                )
            })?
            .map_err(|_| {
                Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!(
                        "the body has more than {BODY_BYTES_MAX} bytes, or broke off; send less"
                    ),
                )
            })?;
        serde_json::from_slice(&body).map_err(|error| {
            Problem::bad(format!(
                "the body is not what is wanted here: {error}; /api/v1/openapi.json describes it"
            ))
        })
    }
}
