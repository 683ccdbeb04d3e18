//! Rate limits over sliding windows, as Google keeps them: what counts is every span of 60 seconds.
//!
//! One queue of admitted requests serves both limits; a refused request does not count. The queue is no longer than
//! the project's limit.

use std::collections::{BTreeMap, VecDeque};

use kalends_core::time::{MINUTE_MS, Timestamp};
use serde_json::json;

use super::settings::{LimitAnswer, QuotaSettings};
use crate::http::Response;

/// Who is charged: a user, a `quotaUser`, or all that service accounts ask without naming one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Payer {
    User(u32),
    /// Hash of the `quotaUser` text.
    Named(u64),
    ServiceAccount,
}

/// The requests of the last minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quota {
    admitted: VecDeque<(Timestamp, Payer)>,
    of_payer: BTreeMap<Payer, u32>,
}

impl Quota {
    /// Admits a request or says how it is refused.
    pub(crate) fn admit(
        &mut self,
        settings: &QuotaSettings,
        now: Timestamp,
        payer: Payer,
    ) -> Result<(), Response> {
        while let Some((at, old)) = self.admitted.front().copied() {
            if at.plus_ms(MINUTE_MS) > now {
                break;
            }
            self.admitted.pop_front();
            let count = self.of_payer.get_mut(&old).expect("counted when admitted");
            *count -= 1;
            if *count == 0 {
                self.of_payer.remove(&old);
            }
        }
        let of_payer = self.of_payer.get(&payer).copied().unwrap_or(0);
        if of_payer >= settings.per_user_per_minute {
            return Err(refusal(settings, Limit::User));
        }
        if self.admitted.len() as u64 >= u64::from(settings.per_project_per_minute) {
            return Err(refusal(settings, Limit::Project));
        }
        // A clock that stepped back must not bring the queue out of order.
        let at = self.admitted.back().map_or(now, |(last, _)| now.max(*last));
        self.admitted.push_back((at, payer));
        *self.of_payer.entry(payer).or_default() += 1;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Limit {
    User,
    Project,
}

fn refusal(settings: &QuotaSettings, limit: Limit) -> Response {
    let mut response = match settings.answer {
        LimitAnswer::TooManyRequests => limited(429),
        LimitAnswer::Forbidden => long_form(settings, limit),
    };
    if let Some(seconds) = settings.retry_after_s {
        let header = ("retry-after".to_owned(), seconds.to_string());
        response.headers.push(header);
    }
    response
}

/// The short refusal, with 403 or 429.
pub(crate) fn limited(status: u16) -> Response {
    super::error::ApiError::new(
        status,
        "usageLimits",
        "rateLimitExceeded",
        "Rate Limit Exceeded",
    )
    .response()
}

fn long_form(settings: &QuotaSettings, limit: Limit) -> Response {
    let (name, id, value) = match limit {
        Limit::User => (
            "Queries per minute per user",
            "defaultPerMinutePerUser",
            settings.per_user_per_minute,
        ),
        Limit::Project => (
            "Queries per minute",
            "defaultPerMinutePerProject",
            settings.per_project_per_minute,
        ),
    };
    let message = format!(
        "Quota exceeded for quota metric 'Queries' and limit '{name}' of service \
         'calendar-json.googleapis.com' for consumer 'project_number:1'."
    );
    let body = json!({"error": {
        "code": 403,
        "message": message,
        "errors": [
            {"message": message, "domain": "usageLimits", "reason": "rateLimitExceeded"}
        ],
        "status": "PERMISSION_DENIED",
        "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "RATE_LIMIT_EXCEEDED",
            "domain": "googleapis.com",
            "metadata": {
                "consumer": "projects/1",
                "quota_limit": id,
                "quota_limit_value": value.to_string(),
                "quota_location": "global",
                "quota_metric": "calendar-json.googleapis.com/default",
                "service": "calendar-json.googleapis.com",
            }
        }]
    }});
    Response::json(403, body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_ms(seconds * 1_000)
    }

    #[test]
    fn no_window_of_a_minute_holds_more_than_the_limit() {
        let settings = QuotaSettings {
            per_user_per_minute: 3,
            per_project_per_minute: 4,
            ..QuotaSettings::default()
        };
        let mut quota = Quota::default();
        let user = Payer::User(1);
        for second in [0, 30, 59] {
            assert!(quota.admit(&settings, at(second), user).is_ok());
        }
        let refused = quota.admit(&settings, at(59), user).unwrap_err();
        assert_eq!(refused.status, 403);
        let text = String::from_utf8(refused.body).unwrap();
        assert!(text.contains("defaultPerMinutePerUser"), "{text}");
        assert!(quota.admit(&settings, at(59), Payer::User(2)).is_ok());
        let refused = quota.admit(&settings, at(59), Payer::User(3)).unwrap_err();
        let text = String::from_utf8(refused.body).unwrap();
        assert!(text.contains("defaultPerMinutePerProject"), "{text}");
        // The first request leaves the window; the others are still in it.
        assert!(quota.admit(&settings, at(60), user).is_ok());
        assert!(quota.admit(&settings, at(60), user).is_err());
    }

    #[test]
    fn old_requests_cost_no_memory() {
        let settings = QuotaSettings::default();
        let mut quota = Quota::default();
        for second in 0..10_000 {
            let payer = Payer::User(u32::try_from(second).unwrap());
            assert!(quota.admit(&settings, at(second), payer).is_ok());
        }
        assert_eq!(quota.admitted.len(), 60);
        assert_eq!(quota.of_payer.len(), 60);
    }
}
