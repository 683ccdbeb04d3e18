//! The machine-readable part of a refusal: what its body says in words that do not change.
//!
//! Google's old form is `{"error": {"errors": [{"reason", "location"}]}}`, the new one adds
//! `"details": [{"reason", "metadata"}]` (google.rpc.ErrorInfo), OAuth's is `{"error": "…", "error_description": "…"}`.
//! All are read into one value, as far as they can be read; a body that cannot be is an empty [`Refusal`].

use serde_json::value::RawValue;

use super::lenient::{List, lenient, text_or_nothing};

/// The largest body of a refusal that is looked at, in bytes. Google's are below 4 KiB.
const REFUSAL_BYTES_MAX: usize = 256 * 1024;
/// The most entries of `errors` and `details` that are looked at.
const REASONS_MAX: usize = 64;
/// The longest reason that is repeated in an explanation, in characters.
const REASON_CHARS_MAX: usize = 64;

/// The machine-readable part of a refusal's body.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// From `errors[].reason`, `details[].reason` and OAuth's `error`, at most [`REASONS_MAX`] of each.
    pub(super) reasons: Vec<String>,
    /// Some error is about the parameter `syncToken` or `pageToken`.
    pub(super) at_token: bool,
    /// The quota that was exceeded is counted for each user.
    pub(super) per_user_quota: bool,
    /// OAuth's explanation says that the assertion itself is bad.
    pub(super) bad_assertion: bool,
    /// The body is a page for people.
    pub(super) html: bool,
}

impl Refusal {
    pub(super) fn read(body: &[u8]) -> Self {
        let body = body.trim_ascii_start();
        if body.starts_with(b"<") {
            return Refusal {
                html: true,
                ..Refusal::default()
            };
        }
        let body = body.get(..REFUSAL_BYTES_MAX).unwrap_or(body);
        let raw: RawRefusal<'_> = serde_json::from_slice(body).unwrap_or_default();
        let mut refusal = Refusal::default();
        let Some(error) = raw.error else {
            return refusal;
        };
        if let Some(code) = text_or_nothing(Some(error)) {
            refusal.reasons.push(code);
            refusal.bad_assertion = text_or_nothing(raw.description)
                .is_some_and(|text| text.starts_with("Invalid JWT"));
            return refusal;
        }
        let error: RawError<'_> = serde_json::from_str(error.get()).unwrap_or_default();
        for entry in entries(error.errors).chain(entries(error.details)) {
            refusal.reasons.extend(text_or_nothing(entry.reason));
            refusal.at_token |= text_or_nothing(entry.location)
                .is_some_and(|location| location == "syncToken" || location == "pageToken");
            refusal.per_user_quota |= entry
                .metadata
                .and_then(|raw| serde_json::from_str::<RawMetadata<'_>>(raw.get()).ok())
                .and_then(|metadata| text_or_nothing(metadata.quota_limit))
                .is_some_and(|limit| limit.to_ascii_lowercase().contains("peruser"));
        }
        refusal
    }

    pub(super) fn has(&self, reason: &str) -> bool {
        self.reasons.iter().any(|known| known == reason)
    }

    pub(super) fn explain(&self, who: &str, status: u16, advice: &str) -> String {
        // A reason is an identifier; anything else in its place is not repeated.
        let reason = self.reasons.iter().find(|reason| {
            let identifier = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            reason.len() <= REASON_CHARS_MAX && !reason.is_empty() && reason.bytes().all(identifier)
        });
        match reason {
            Some(reason) => format!("{who} answered {status} ({reason}): {advice}"),
            None => format!("{who} answered {status}: {advice}"),
        }
    }
}

fn entries(list: Option<&RawValue>) -> impl Iterator<Item = RawEntry<'_>> {
    let list =
        list.and_then(|raw| serde_json::from_str::<List<&RawValue, REASONS_MAX>>(raw.get()).ok());
    let entries = list.map(|list| list.0).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
}

/// `{"error": {…}}` of an API, or `{"error": "…", "error_description": "…"}` of OAuth (RFC 6749, 5.2).
#[derive(Default)]
struct RawRefusal<'body> {
    error: Option<&'body RawValue>,
    description: Option<&'body RawValue>,
}

lenient!('body, RawRefusal<'body> {
    "error" => error,
    "error_description" => description,
});

#[derive(Default)]
struct RawError<'body> {
    errors: Option<&'body RawValue>,
    details: Option<&'body RawValue>,
}

lenient!('body, RawError<'body> {
    "errors" => errors,
    "details" => details,
});

#[derive(Default)]
struct RawEntry<'body> {
    reason: Option<&'body RawValue>,
    location: Option<&'body RawValue>,
    metadata: Option<&'body RawValue>,
}

lenient!('body, RawEntry<'body> {
    "reason" => reason,
    "location" => location,
    "metadata" => metadata,
});

#[derive(Default)]
struct RawMetadata<'body> {
    quota_limit: Option<&'body RawValue>,
}

lenient!('body, RawMetadata<'body> {
    "quota_limit" => quota_limit,
});
