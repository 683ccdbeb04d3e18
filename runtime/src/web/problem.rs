//! What went wrong, as RFC 9457 says it: `application/problem+json`, with a detail that says what to do.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::Refusal;
use serde_json::json;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// After a store that did not answer, in seconds.
const RETRY_AFTER_STORE: &str = "5";

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// For people: what is wrong and what to do. It holds no secret and nothing of the request but names.
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        assert!(
            status.is_client_error() || status.is_server_error(),
            "{status} is no problem"
        );
        Problem {
            status,
            detail: detail.into(),
        }
    }

    /// The request itself is wrong.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// It does not go together with how things stand.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, detail)
    }

    pub(super) fn response(&self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Problem"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let bearer = HeaderValue::from_static("Bearer realm=\"kalends\"");
                headers.insert(WWW_AUTHENTICATE, bearer);
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_STORE));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreUnavailable> for Problem {
    fn from(unavailable: StoreUnavailable) -> Self {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the store does not answer: {unavailable}"),
        )
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::UnknownSource { .. } => StatusCode::NOT_FOUND,
            Refusal::LeaseLost => StatusCode::CONFLICT,
            Refusal::TooLarge { .. } | Refusal::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Problem::new(status, refusal.to_string())
    }
}
