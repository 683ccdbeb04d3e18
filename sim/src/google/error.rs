//! Refusals in Google's own shape: `{"error":{"errors":[{domain,reason,message,...}],"code","message"}}`.

use serde_json::json;

use crate::http::Response;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: u16,
    domain: &'static str,
    reason: String,
    message: String,
    /// `locationType` and `location`.
    location: Option<(&'static str, &'static str)>,
}

impl ApiError {
    pub(crate) fn new(status: u16, domain: &'static str, reason: &str, message: &str) -> Self {
        ApiError {
            status,
            domain,
            reason: reason.to_owned(),
            message: message.to_owned(),
            location: None,
        }
    }

    fn at_parameter(mut self, parameter: &'static str) -> Self {
        self.location = Some(("parameter", parameter));
        self
    }

    /// 400 `invalid` at a parameter.
    pub(crate) fn invalid(parameter: &'static str, message: &str) -> Self {
        ApiError::new(400, "global", "invalid", message).at_parameter(parameter)
    }

    /// 400 `invalidParameter` for a field selector that names no field.
    pub(crate) fn invalid_fields(unknown: &str) -> Self {
        let shown: String = unknown.chars().take(80).collect();
        let message = format!("Invalid field selection {shown}");
        ApiError::new(400, "global", "invalidParameter", &message).at_parameter("fields")
    }

    /// 400 `timeRangeEmpty`.
    pub(crate) fn empty_time_range() -> Self {
        let message = "The specified time range is empty.";
        ApiError::new(400, "calendar", "timeRangeEmpty", message).at_parameter("timeMax")
    }

    /// 410 `fullSyncRequired`.
    pub(crate) fn full_sync_required() -> Self {
        let message = "Sync token is no longer valid, a full sync is required.";
        ApiError::new(410, "calendar", "fullSyncRequired", message).at_parameter("syncToken")
    }

    /// 400 for a sync token that is none.
    pub(crate) fn invalid_sync_token() -> Self {
        ApiError::invalid("syncToken", "Invalid sync token value.")
    }

    /// 400 for a page token that is none, or belongs to another request.
    pub(crate) fn invalid_page_token() -> Self {
        ApiError::invalid("pageToken", "Invalid page token value.")
    }

    /// 404 `notFound`.
    pub(crate) fn not_found() -> Self {
        ApiError::new(404, "global", "notFound", "Not Found")
    }

    /// 401: there is no token in the request.
    pub(crate) fn login_required() -> Self {
        ApiError {
            location: Some(("header", "Authorization")),
            ..ApiError::new(401, "global", "required", "Login Required")
        }
    }

    /// 401: the token is unknown, expired or revoked.
    pub(crate) fn invalid_credentials() -> Self {
        ApiError {
            location: Some(("header", "Authorization")),
            ..ApiError::new(401, "global", "authError", "Invalid Credentials")
        }
    }

    /// The answer that says so.
    pub(crate) fn response(&self) -> Response {
        let mut detail = json!({
            "domain": self.domain, "reason": self.reason, "message": self.message
        });
        if let Some((kind, place)) = self.location {
            detail["locationType"] = json!(kind);
            detail["location"] = json!(place);
        }
        let body = json!({"error": {
            "errors": [detail], "code": self.status, "message": self.message
        }});
        Response::json(self.status, body.to_string().into_bytes())
    }
}

/// A refusal of the token endpoint, in the shape of OAuth.
pub(crate) fn oauth_error(status: u16, error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description});
    Response::json(status, body.to_string().into_bytes())
}
