//! Where access tokens come from: a refresh token for each user, or a service account that acts for all of them.
//!
//! Both end in one form sent to the token endpoint and one answer read from it (Google's OAuth guides "web server" and
//! "service account").

use std::sync::Arc;

use async_trait::async_trait;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::failure::classify_token;
use kalends_core::id::UserId;
use kalends_core::time::{DAY_MS, HOUR_MS, Timestamp};
use serde_json::Value;

use super::client::Answer;
use super::service_account::ServiceAccountKey;
use super::token_cache::AccessToken;
use crate::secret::Secret;

/// The longest access token that is taken, in bytes. Google promises at most 2,048.
const ACCESS_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How long a token is taken to live if the answer does not say, in milliseconds: what Google grants.
const LIFE_MS_DEFAULT: u64 = HOUR_MS;
/// The longest life that is believed, in milliseconds.
const LIFE_MS_MAX: u64 = DAY_MS;

/// The refresh tokens of the users who connected their calendars.
#[async_trait]
pub trait RefreshTokens: Send + Sync {
    /// The refresh token of `user`; `None` if the user never connected or was disconnected.
    fn refresh_token(&self, user: &UserId) -> Option<Secret>;

    /// As [`RefreshTokens::refresh_token`], for whoever has to ask somebody else for it. This is what is called; unless it
    /// is written anew it asks the other one.
    ///
    /// # Errors
    /// If it cannot be told now ([`FailureKind::Transient`]), or a person has to act.
    async fn find_refresh_token(&self, user: &UserId) -> Result<Option<Secret>, Failure> {
        Ok(self.refresh_token(user))
    }
}

/// In whose name Google is asked, and by which credentials.
#[derive(Clone)]
pub enum GoogleAuth {
    /// Each user granted access; the grant is kept as a refresh token.
    RefreshTokens {
        /// The OAuth client.
        client_id: String,
        /// The OAuth client's secret.
        client_secret: Secret,
        /// The users' grants.
        tokens: Arc<dyn RefreshTokens>,
    },
    /// An administrator delegated the users of a domain to a service account; a user's id is the address at Google.
    ServiceAccount(ServiceAccountKey),
}

impl std::fmt::Debug for GoogleAuth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GoogleAuth::RefreshTokens { client_id, .. } => formatter
                .debug_struct("RefreshTokens")
                .field("client_id", client_id)
                .finish_non_exhaustive(),
            GoogleAuth::ServiceAccount(key) => {
                formatter.debug_tuple("ServiceAccount").field(key).finish()
            }
        }
    }
}

/// [`GoogleAuth`], ready to ask.
pub(super) struct TokenSource(GoogleAuth);

impl TokenSource {
    pub(super) fn new(auth: GoogleAuth) -> Self {
        TokenSource(auth)
    }

    /// Whether one identity acts for all users, so that Google has to be told whose quota a request counts against.
    pub(super) fn acts_for_users(&self) -> bool {
        matches!(self.0, GoogleAuth::ServiceAccount(_))
    }

    /// The form that asks for an access token for `user`.
    pub(super) async fn form(
        &self,
        user: &UserId,
        now: Timestamp,
    ) -> Result<Vec<(&'static str, Secret)>, Failure> {
        match &self.0 {
            GoogleAuth::RefreshTokens {
                client_id,
                client_secret,
                tokens,
            } => {
                let found = tokens.find_refresh_token(user).await?;
                let refresh_token = found.ok_or_else(|| {
                    Failure::new(
                        FailureKind::Unauthorized,
                        "there is no refresh token for this user; connect the user to Google first",
                    )
                })?;
                Ok(vec![
                    ("grant_type", Secret::new("refresh_token")),
                    ("client_id", Secret::new(client_id)),
                    ("client_secret", client_secret.clone()),
                    ("refresh_token", refresh_token),
                ])
            }
            GoogleAuth::ServiceAccount(key) => Ok(vec![
                (
                    "grant_type",
                    Secret::new("urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ),
                ("assertion", key.assertion(user, now)?),
            ]),
        }
    }
}

/// Reads the token endpoint's answer to a request that was sent at `asked_at`.
pub(super) fn read_token(answer: &Answer, asked_at: Timestamp) -> Result<AccessToken, Failure> {
    if answer.status != 200 {
        return Err(classify_token(
            answer.status,
            answer.retry_after_ms,
            &answer.body,
        ));
    }
    let bad =
        |what| Failure::transient(format!("Google's token endpoint answered 200, but {what}"));
    let value: Value =
        serde_json::from_slice(answer.whole_body()?).map_err(|_| bad("not with JSON"))?;
    let token = value
        .get("access_token")
        .and_then(Value::as_str)
        .filter(|token| {
            (1..=ACCESS_TOKEN_BYTES_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .ok_or_else(|| bad("without a usable access_token"))?;
    let life_ms = match value.get("expires_in") {
        Some(Value::String(seconds)) => seconds.parse().ok(),
        Some(seconds) => seconds.as_u64(),
        None => None,
    }
    .map_or(LIFE_MS_DEFAULT, |seconds: u64| {
        seconds.saturating_mul(1_000)
    })
    .min(LIFE_MS_MAX);
    Ok(AccessToken::new(Secret::new(token), asked_at, life_ms))
}
