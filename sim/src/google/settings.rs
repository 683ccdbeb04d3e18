//! What a simulated Google is made of: one value, fixed for its life.

use std::fmt;

use kalends_core::time::Timestamp;

/// The most users an emulator takes.
pub const USERS_MAX: u32 = 1_000_000;
/// The most events a generated calendar holds before any change.
pub const EVENTS_PER_CALENDAR_MAX: u32 = 1_000_000;
/// The most calendars of one user.
pub const CALENDARS_PER_USER_MAX: u32 = 1_000;

/// All that shapes a simulated Google. Equal settings and equal calls give equal answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleSettings {
    /// Everything that is made up is made up from this number.
    pub seed: u64,
    /// Users `user-00001@example.com` and on; at most [`USERS_MAX`].
    pub users: u32,
    /// Items (singles, masters and exceptions) that each calendar starts with; at most [`EVENTS_PER_CALENDAR_MAX`].
    pub events_per_calendar: u32,
    /// Calendars of each user, 1 at least: the primary one, then a holiday-like one (its id holds a `#`; read
    /// only), then group calendars; at most [`CALENDARS_PER_USER_MAX`].
    pub calendars_per_user: u32,
    /// Around when the generated events lie: 60 days before to 120 days after. Their last change is before it.
    pub epoch: Timestamp,
    /// If set, `/token` refuses any other client; if not, client id and secret are not looked at.
    pub client: Option<OauthClient>,
    /// If set, assertions (JWT bearer grant) of any other issuer are refused.
    pub service_account_issuer: Option<String>,
    /// How long an access token lives, in seconds; told as `expires_in`. Google says 3599.
    pub access_token_life_s: u32,
    /// Rate limits; `None` switches them off.
    pub quota: Option<QuotaSettings>,
    /// What a sync token gets that this Google never gave out.
    pub forged_token: ForgedToken,
    /// What a sync token gets when a parameter differs from the first sync's.
    pub changed_query: ChangedQuery,
    /// Every so-many-th page of a traversal is empty but has a next page; 0 is never, 1 counts as 2.
    pub empty_page_every: u32,
    /// Every so-many-th page of a traversal holds half of what was asked for; 0 is never.
    pub short_page_every: u32,
}

impl GoogleSettings {
    /// `users` users with one calendar of `events_per_calendar` events around `epoch`; no quotas, no oddities.
    #[must_use]
    pub fn new(seed: u64, users: u32, events_per_calendar: u32, epoch: Timestamp) -> Self {
        GoogleSettings {
            seed,
            users,
            events_per_calendar,
            calendars_per_user: 1,
            epoch,
            client: None,
            service_account_issuer: None,
            access_token_life_s: 3_599,
            quota: None,
            forged_token: ForgedToken::ByShape,
            changed_query: ChangedQuery::Gone,
            empty_page_every: 0,
            short_page_every: 0,
        }
    }
}

/// The one OAuth client that is known.
#[derive(Clone, PartialEq, Eq)]
pub struct OauthClient {
    /// Its public name.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl fmt::Debug for OauthClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "OauthClient({:?}, secret hidden)", self.id)
    }
}

/// Rate limits, each over every sliding window of 60 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaSettings {
    /// Requests of one user (or one `quotaUser`).
    pub per_user_per_minute: u32,
    /// Requests of everybody together.
    pub per_project_per_minute: u32,
    /// How the refusal looks.
    pub answer: LimitAnswer,
    /// A `Retry-After` header in seconds, which Google does not promise.
    pub retry_after_s: Option<u32>,
}

impl Default for QuotaSettings {
    /// The limits of a project made since May 2026: 600 and 10,000 a minute, refused with 403, no `Retry-After`.
    fn default() -> Self {
        QuotaSettings {
            per_user_per_minute: 600,
            per_project_per_minute: 10_000,
            answer: LimitAnswer::Forbidden,
            retry_after_s: None,
        }
    }
}

/// The two ways in which Google says "too fast".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAnswer {
    /// 403 `rateLimitExceeded` with `details` that name the limit.
    Forbidden,
    /// 429 `rateLimitExceeded`.
    TooManyRequests,
}

/// What a damaged or made-up sync token gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgedToken {
    /// 410 if the text decodes, 400 if it does not; seen at Google.
    ByShape,
    /// Always 400 `invalid`.
    BadRequest,
    /// Always 410 `fullSyncRequired`.
    Gone,
}

/// What a true sync token gets when it comes with other parameters than the first sync; Google leaves it undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedQuery {
    /// 410 `fullSyncRequired`.
    Gone,
    /// 400 `invalid`.
    BadRequest,
}
