//! Reading a refusal: HTTP status and body to a typed [`Failure`].
//!
//! The problem: Google says one thing in several shapes. A rate limit is a 403 or a 429, an expired sync token is a 410
//! or (People) a 400, and a front end answers with HTML. The idea: collect the machine-readable words of a body, the
//! reasons of both its old form (`errors[].reason`) and its new one (`details[].reason`), and decide by status and
//! reasons alone. The human text is read once, where the token endpoint gives no other key (see [`classify_token`]),
//! and is never handed on: explanations are our own words, so no token, address or secret can be in them.

use super::refusal::Refusal;
use crate::failure::{Failure, FailureKind, LimitScope};
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

/// How long a user waits after `quotaExceeded`, in milliseconds, if Google does not say: it guards against abuse by one
/// user, and its guide speaks of hours (Calendar API, "Handle API errors").
pub const USER_QUOTA_PAUSE_MS: u64 = 6 * HOUR_MS;
/// How long the source waits after `dailyLimitExceeded`, in milliseconds, if Google does not say: long enough to cost
/// few requests, short enough not to miss the reset by much.
pub const DAILY_LIMIT_PAUSE_MS: u64 = HOUR_MS;
/// How long a user waits for whom a service account may not act, in milliseconds: an administrator has to do something,
/// and the user follows soon after.
pub const NOT_DELEGATED_PAUSE_MS: u64 = HOUR_MS;
/// The longest wait that is believed, in milliseconds. A longer one, or a date far away, is cut to it.
pub const RETRY_AFTER_MS_MAX: u64 = DAY_MS;

/// Whether a new access token may turn this answer into a success: refresh once, ask once more, and only then believe
/// that the user is unauthorized (Calendar API, "Handle API errors", 401).
#[must_use]
pub fn new_token_may_help(status: u16) -> bool {
    status == 401
}

/// What an answer of the Calendar API other than a page means.
///
/// `retry_after_ms` is the header's value by [`retry_after_ms`]. A 401 is [`FailureKind::Unauthorized`] here; see
/// [`new_token_may_help`] for what to do before believing it.
#[must_use]
pub fn classify(status: u16, retry_after_ms: Option<u64>, body: &[u8]) -> Failure {
    let refusal = Refusal::read(body);
    let (kind, advice) = api_kind(status, retry_after_ms, &refusal);
    Failure::new(kind, refusal.explain("Google Calendar", status, advice))
}

/// What an answer of the OAuth token endpoint other than a token means.
///
/// The text is read in one case: `invalid_grant` is both "this user revoked the grant" and, for a service account,
/// "Invalid JWT", which is a clock or a key of ours and concerns everybody.
#[must_use]
pub fn classify_token(status: u16, retry_after_ms: Option<u64>, body: &[u8]) -> Failure {
    let refusal = Refusal::read(body);
    let (kind, advice) = token_kind(status, retry_after_ms, &refusal);
    Failure::new(
        kind,
        refusal.explain("Google's token endpoint", status, advice),
    )
}

/// The header `Retry-After` in milliseconds from now: whole seconds or an HTTP date (RFC 9110, 10.2.3), at most
/// [`RETRY_AFTER_MS_MAX`]. `None` if it is neither.
///
/// A date is by the clock of who sent it, so it is measured from the answer's own header `Date` (RFC 9110, 6.6.1). Only
/// an answer without that is measured by `now`, our clock, which may be hours off.
#[must_use]
pub fn retry_after_ms(header: &str, date: Option<&str>, now: Timestamp) -> Option<u64> {
    let header = header.trim();
    let wait_ms = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are a very long wait, not nonsense.
        let seconds: u64 = header.parse().unwrap_or(u64::MAX);
        seconds.saturating_mul(1_000)
    } else {
        let sent_at = date.and_then(http_date).unwrap_or(now);
        http_date(header)?.since_ms(sent_at)
    };
    Some(wait_ms.min(RETRY_AFTER_MS_MAX))
}

/// A date as HTTP writes it (IMF-fixdate; RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let at =
        chrono::NaiveDateTime::parse_from_str(text.trim(), "%a, %d %b %Y %H:%M:%S GMT").ok()?;
    Some(Timestamp::from_ms(at.and_utc().timestamp_millis()))
}

fn api_kind(
    status: u16,
    retry_after_ms: Option<u64>,
    refusal: &Refusal,
) -> (FailureKind, &'static str) {
    let transient = FailureKind::Transient { retry_after_ms };
    match status {
        401 => (
            FailureKind::Unauthorized,
            "the access token is not accepted; connect the user again",
        ),
        410 => (
            FailureKind::Gone { malformed: false },
            "the sync token is of no use any more; a full pass is needed",
        ),
        429 => limited(retry_after_ms, refusal),
        408 | 500..=599 => (transient, "try again later"),
        100..=399 => (
            transient,
            "that is no answer to this request; if it stays, check the API's base address",
        ),
        _ if refusal.html => (
            transient,
            "an HTML page of some server in between; if it stays, check the API's base address",
        ),
        400 if refusal.has("EXPIRED_SYNC_TOKEN") => (
            FailureKind::Gone { malformed: false },
            "the sync token is of no use any more; a full pass is needed",
        ),
        400 if refusal.at_token => (
            FailureKind::Gone { malformed: true },
            "the token was not understood; a full pass is needed, and it points at a fault of ours",
        ),
        403 => forbidden(retry_after_ms, refusal),
        404 => (
            FailureKind::CalendarUnavailable,
            "the calendar does not exist or is not shared with the user any more",
        ),
        _ => (
            FailureKind::Permanent,
            "the request will not succeed as it is",
        ),
    }
}

fn forbidden(retry_after_ms: Option<u64>, refusal: &Refusal) -> (FailureKind, &'static str) {
    // From what concerns most to what concerns least: a body with two reasons is taken by the graver one.
    if refusal.has("accessNotConfigured") || refusal.has("SERVICE_DISABLED") {
        return (
            FailureKind::Misconfigured,
            "enable the Google Calendar API in the Google Cloud project of the credentials",
        );
    }
    if refusal.has("insufficientPermissions") || refusal.has("ACCESS_TOKEN_SCOPE_INSUFFICIENT") {
        return (
            FailureKind::Unauthorized,
            "the grant is too narrow; connect the user again and allow access to the calendars",
        );
    }
    if [
        "dailyLimitExceeded",
        "quotaExceeded",
        "rateLimitExceeded",
        "userRateLimitExceeded",
    ]
    .iter()
    .any(|reason| refusal.has(reason))
        || refusal.has("RATE_LIMIT_EXCEEDED")
    {
        return limited(retry_after_ms, refusal);
    }
    if refusal
        .reasons
        .iter()
        .any(|reason| reason.starts_with("forbidden"))
    {
        return (
            FailureKind::CalendarUnavailable,
            "the user may not read this calendar",
        );
    }
    (
        FailureKind::Permanent,
        "the request will not succeed as it is",
    )
}

fn limited(retry_after_ms: Option<u64>, refusal: &Refusal) -> (FailureKind, &'static str) {
    let (scope, retry_after_ms, advice) = if refusal.has("dailyLimitExceeded") {
        (
            LimitScope::Source,
            retry_after_ms.or(Some(DAILY_LIMIT_PAUSE_MS)),
            "the project's requests of the day are used up; everybody waits",
        )
    } else if refusal.has("quotaExceeded") {
        (
            LimitScope::User,
            retry_after_ms.or(Some(USER_QUOTA_PAUSE_MS)),
            "this user's calendar usage limit is used up; the user waits for hours",
        )
    } else if refusal.has("userRateLimitExceeded") || refusal.per_user_quota {
        (
            LimitScope::User,
            retry_after_ms,
            "too many requests for this user; the user waits",
        )
    } else {
        (
            LimitScope::Source,
            retry_after_ms,
            "too many requests for the project; everybody waits",
        )
    };
    let kind = FailureKind::Limited {
        scope,
        retry_after_ms,
    };
    (kind, advice)
}

fn token_kind(
    status: u16,
    retry_after_ms: Option<u64>,
    refusal: &Refusal,
) -> (FailureKind, &'static str) {
    let transient = FailureKind::Transient { retry_after_ms };
    match status {
        429 => return limited(retry_after_ms, refusal),
        408 | 500..=599 => return (transient, "try again later"),
        100..=399 => {
            return (
                transient,
                "that is no answer to this request; if it stays, check the token address",
            );
        }
        404 | 405 => {
            return (
                FailureKind::Misconfigured,
                "there is no token endpoint; check the token address",
            );
        }
        _ if refusal.html => {
            return (
                transient,
                "an HTML page of some server in between; if it stays, check the token address",
            );
        }
        _ => {}
    }
    if refusal.has("invalid_grant") {
        return if refusal.bad_assertion {
            (
                FailureKind::Misconfigured,
                "the service account's assertion is not accepted; check this machine's clock, then the key",
            )
        } else {
            (
                FailureKind::Unauthorized,
                "the grant was revoked or has expired; connect the user again",
            )
        };
    }
    if refusal.has("admin_policy_enforced") {
        return (
            FailureKind::Unauthorized,
            "the user's administrator does not allow this application; ask the administrator",
        );
    }
    if refusal.has("unauthorized_client") {
        // Google says the same of one user outside of the domain and of everybody: the others must not stand still.
        return (
            FailureKind::Limited {
                scope: LimitScope::User,
                retry_after_ms: retry_after_ms.or(Some(NOT_DELEGATED_PAUSE_MS)),
            },
            "no token for this user; with a service account, either the user is outside of its domain (remove the user), \
             or, if it meets everybody, an administrator has to delegate the calendar scopes to the account; \
             with a refresh token, it was issued to another OAuth client",
        );
    }
    if refusal.has("invalid_scope") {
        return (
            FailureKind::Misconfigured,
            "the scopes are not accepted; delegate the calendar scopes to the service account",
        );
    }
    if status == 401 || refusal.has("invalid_client") || refusal.has("deleted_client") {
        return (
            FailureKind::Misconfigured,
            "the OAuth client is not accepted; check the client id and the client secret",
        );
    }
    (
        FailureKind::Permanent,
        "the request will not succeed as it is",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USER: LimitScope = LimitScope::User;
    const SOURCE: LimitScope = LimitScope::Source;

    fn transient() -> FailureKind {
        FailureKind::Transient {
            retry_after_ms: None,
        }
    }

    fn limited(scope: LimitScope, retry_after_ms: Option<u64>) -> FailureKind {
        FailureKind::Limited {
            scope,
            retry_after_ms,
        }
    }

    fn api(status: u16, body: &str) -> FailureKind {
        classify(status, None, body.as_bytes()).kind
    }

    fn old_form(reason: &str) -> String {
        format!(
            r#"{{"error":{{"errors":[{{"domain":"global","reason":"{reason}","message":"words"}}],"message":"words"}}}}"#
        )
    }

    fn at(location: &str) -> String {
        format!(
            r#"{{"error":{{"errors":[{{"reason":"invalid","locationType":"parameter","location":"{location}"}}]}}}}"#
        )
    }

    fn quota(limit: &str) -> String {
        format!(
            r#"{{"error":{{"status":"RESOURCE_EXHAUSTED","errors":[{{"reason":"rateLimitExceeded"}}],"details":[
              {{"@type":"type.googleapis.com/google.rpc.Help","links":[]}},
              {{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED",
                "metadata":{{"quota_limit":"{limit}","quota_limit_value":"42"}}}}]}}}}"#
        )
    }

    fn oauth(error: &str, description: &str) -> String {
        format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
    }

    #[test]
    fn each_reason_of_the_calendar_has_its_meaning() {
        use FailureKind::{CalendarUnavailable, Gone, Misconfigured, Permanent, Unauthorized};
        let gone = Gone { malformed: false };
        for (status, reason, kind) in [
            (400, "timeRangeEmpty", Permanent),
            (400, "badRequest", Permanent),
            (400, "pushNotSupportedForRequestedResource", Permanent),
            (400, "channelIdNotUnique", Permanent),
            (401, "authError", Unauthorized),
            (401, "required", Unauthorized),
            (403, "rateLimitExceeded", limited(SOURCE, None)),
            (403, "userRateLimitExceeded", limited(USER, None)),
            (
                403,
                "quotaExceeded",
                limited(USER, Some(USER_QUOTA_PAUSE_MS)),
            ),
            (
                403,
                "dailyLimitExceeded",
                limited(SOURCE, Some(DAILY_LIMIT_PAUSE_MS)),
            ),
            (403, "insufficientPermissions", Unauthorized),
            (403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT", Unauthorized),
            (403, "accessNotConfigured", Misconfigured),
            (403, "SERVICE_DISABLED", Misconfigured),
            (403, "forbidden", CalendarUnavailable),
            (403, "forbiddenForNonOrganizer", CalendarUnavailable),
            (403, "somethingNewer", Permanent),
            (404, "notFound", CalendarUnavailable),
            (409, "duplicate", Permanent),
            (410, "fullSyncRequired", gone.clone()),
            (410, "updatedMinTooLongAgo", gone.clone()),
            (410, "deleted", gone.clone()),
            (412, "conditionNotMet", Permanent),
            (429, "rateLimitExceeded", limited(SOURCE, None)),
            (429, "userRateLimitExceeded", limited(USER, None)),
            (500, "backendError", transient()),
            (503, "backendError", transient()),
        ] {
            assert_eq!(api(status, &old_form(reason)), kind, "{status} {reason}");
            let new_form = format!(r#"{{"error":{{"details":[7,null,{{"reason":"{reason}"}}]}}}}"#);
            assert_eq!(api(status, &new_form), kind, "{status} {reason}, new form");
        }
        let expired = r#"{"error":{"status":"INVALID_ARGUMENT","details":[{"reason":"EXPIRED_SYNC_TOKEN"}]}}"#;
        assert_eq!(api(400, expired), gone);
    }

    #[test]
    fn a_bad_parameter_is_told_by_its_place() {
        let malformed = FailureKind::Gone { malformed: true };
        assert_eq!(api(400, &at("syncToken")), malformed);
        assert_eq!(api(400, &at("pageToken")), malformed);
        assert_eq!(api(400, &at("orderBy")), FailureKind::Permanent);
    }

    #[test]
    fn a_quota_says_whose_it_is() {
        for status in [403, 429] {
            for limit in ["defaultPerMinutePerUser", "QUERIES_PERUSER"] {
                assert_eq!(api(status, &quota(limit)), limited(USER, None), "{limit}");
            }
            assert_eq!(
                api(status, &quota("defaultPerMinutePerProject")),
                limited(SOURCE, None)
            );
        }
    }

    #[test]
    fn an_answer_that_is_not_googles_says_nothing_about_the_calendar() {
        let html = "\r\n <!DOCTYPE html><title>Error</title>";
        for status in [302, 400, 403, 404, 408, 500, 502, 503, 504] {
            assert_eq!(api(status, html), transient(), "{status}");
        }
        assert_eq!(api(429, html), limited(SOURCE, None));
        assert_eq!(api(401, html), FailureKind::Unauthorized);
        for body in [
            "",
            "{}",
            "null",
            "[",
            r#"{"error":7}"#,
            r#"{"error":{"errors":{},"details":"x"}}"#,
        ] {
            assert_eq!(api(403, body), FailureKind::Permanent, "{body}");
            assert_eq!(api(502, body), transient(), "{body}");
        }
    }

    #[test]
    fn the_wish_to_wait_is_handed_on() {
        let kind = |status, reason| classify(status, Some(7_000), old_form(reason).as_bytes()).kind;
        assert_eq!(kind(403, "quotaExceeded"), limited(USER, Some(7_000)));
        assert_eq!(
            kind(403, "dailyLimitExceeded"),
            limited(SOURCE, Some(7_000))
        );
        assert_eq!(kind(429, "rateLimitExceeded"), limited(SOURCE, Some(7_000)));
        assert_eq!(
            kind(503, "backendError"),
            FailureKind::Transient {
                retry_after_ms: Some(7_000)
            }
        );
    }

    #[test]
    fn only_a_401_is_worth_a_new_token() {
        assert!(new_token_may_help(401));
        assert!(!new_token_may_help(403));
    }

    #[test]
    fn each_error_of_the_token_endpoint_has_its_meaning() {
        use FailureKind::{Misconfigured, Permanent, Unauthorized};
        for (status, error, description, kind) in [
            (
                400,
                "invalid_grant",
                "Token has been expired or revoked.",
                Unauthorized,
            ),
            (400, "invalid_grant", "Bad Request", Unauthorized),
            (
                400,
                "invalid_grant",
                "Invalid JWT: check iat and exp.",
                Misconfigured,
            ),
            (
                400,
                "invalid_grant",
                "Invalid JWT Signature.",
                Misconfigured,
            ),
            (401, "invalid_client", "Unauthorized", Misconfigured),
            (401, "deleted_client", "It was deleted.", Misconfigured),
            (
                401,
                "unauthorized_client",
                "Not delegated.",
                limited(USER, Some(NOT_DELEGATED_PAUSE_MS)),
            ),
            (400, "invalid_scope", "", Misconfigured),
            (400, "admin_policy_enforced", "", Unauthorized),
            (400, "something_newer", "", Permanent),
            (401, "something_newer", "", Misconfigured),
            (404, "", "", Misconfigured),
            (503, "invalid_grant", "an outage that lies", transient()),
            (429, "rate_limit", "", limited(SOURCE, None)),
            (302, "", "", transient()),
        ] {
            let body = oauth(error, description);
            let failure = classify_token(status, None, body.as_bytes());
            assert_eq!(failure.kind, kind, "{status} {body}");
        }
        assert_eq!(classify_token(502, None, b"<html>").kind, transient());
        assert_eq!(classify_token(403, None, b"<html>").kind, transient());
        assert_eq!(classify_token(400, None, b"").kind, Permanent);
    }

    #[test]
    fn an_explanation_repeats_identifiers_only() {
        let body = r#"{"error":{"message":"private","errors":[
            {"reason":"ya29.private token","message":"private","location":"private"},{"reason":"notFound"}]}}"#;
        assert_eq!(
            classify(404, None, body.as_bytes()).detail,
            "Google Calendar answered 404 (notFound): \
             the calendar does not exist or is not shared with the user any more"
        );
        let body = oauth("1//private-refresh", "private");
        let detail = classify_token(400, None, body.as_bytes()).detail;
        assert!(!detail.contains("private"), "{detail}");
    }

    /// Found by the simulator (seed 4069): a process whose clock was 13 hours behind took "in three seconds" for 13 hours,
    /// and closed the gate for the whole fleet.
    #[test]
    fn a_date_is_measured_by_the_clock_of_who_sent_it() {
        let behind = Timestamp::parse_rfc3339("2026-05-03T18:00:00Z").unwrap();
        let date = |date| retry_after_ms("Mon, 04 May 2026 08:00:30 GMT", date, behind);
        assert_eq!(date(Some("Mon, 04 May 2026 08:00:27 GMT")), Some(3_000));
        assert_eq!(date(Some("Mon, 04 May 2026 08:00:31 GMT")), Some(0));
        assert_eq!(date(Some("yesterday")), Some((14 * 3_600 + 30) * 1_000));
        let seconds = retry_after_ms("3", Some("Mon, 04 May 2026 08:00:27 GMT"), behind);
        assert_eq!(seconds, Some(3_000));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse_rfc3339("2026-05-04T08:00:00.250Z").unwrap();
        let wait = |header| retry_after_ms(header, None, now);
        assert_eq!(wait("120"), Some(120_000));
        assert_eq!(wait(" 0 "), Some(0));
        assert_eq!(wait("Mon, 04 May 2026 08:00:30 GMT"), Some(29_750));
        assert_eq!(wait("Mon, 04 May 2026 07:00:00 GMT"), Some(0));
        assert_eq!(
            wait("Tue, 04 May 2027 08:00:00 GMT"),
            Some(RETRY_AFTER_MS_MAX)
        );
        assert_eq!(wait("99999999999999999999999"), Some(RETRY_AFTER_MS_MAX));
        for nonsense in [
            "",
            "-5",
            "1.5",
            "soon",
            "Sun, 04 May 2026 08:00:30 GMT",
            "2026-05-04T08:00:30Z",
        ] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            status in 0..1_000_u16,
            body in proptest::collection::vec(any::<u8>(), 0..300),
            header in ".{0,40}",
        ) {
            for text in [&body[..], quota(&String::from_utf8_lossy(&body)).as_bytes()] {
                for failure in [classify(status, None, text), classify_token(status, None, text)] {
                    prop_assert!(failure.detail.chars().count() <= crate::failure::DETAIL_CHARS_MAX);
                }
            }
            let _ = retry_after_ms(&header, Some(&header), Timestamp::MAX);
        }
    }
}
