//! `/healthz` and `/readyz`, for whoever supervises the process.
//!
//! `/healthz` says 200 for as long as the process lives: being without a store is no reason to be killed. `/readyz` says
//! 200 while work is done, else 503 and why: still starting, the store away (since when, what it said, when it is asked
//! again), stopping. Callers from other machines who do not show the token hear the state and no explanation.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::gate::Trusted;
use super::json_with;
use crate::handle::{Readiness, Why};

pub(super) fn health() -> Response {
    json_with(StatusCode::OK, &json!({ "alive": true }))
}

pub(super) fn ready(readiness: &Readiness, trusted: Trusted) -> Response {
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut body = readiness_json(readiness);
    if !trusted.0 {
        body = json!({ "ready": body["ready"], "state": body["state"] });
    }
    json_with(status, &body)
}

/// A readiness, for programs.
pub(super) fn readiness_json(readiness: &Readiness) -> Value {
    match readiness {
        Readiness::Ready => json!({ "ready": true, "state": "ready" }),
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::time::Timestamp;

    #[test]
    fn ready_is_only_who_works_and_strangers_hear_no_reason() {
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
            assert_eq!(ready(readiness, Trusted(true)).status().as_u16(), status);
            assert_eq!(ready(readiness, Trusted(false)).status().as_u16(), status);
            let body = readiness_json(readiness);
            assert_eq!(body["state"], state, "{body}");
            assert_eq!(body["ready"], status == 200, "{body}");
        }
        let body = readiness_json(&away);
        assert_eq!(
            body["reason"],
            "the store does not answer: connection refused"
        );
        assert_eq!(body["since"], Timestamp::EPOCH.to_rfc3339());
        assert_eq!(body["retry_at"], Timestamp::from_ms(4_000).to_rfc3339());
    }
}
