//! A service account with domain-wide delegation: a key file of Google's, and the signed assertion that is exchanged for
//! an access token in a user's name (Google's OAuth guide "service account"; RFC 7523).

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::id::UserId;
use kalends_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::SettingsError;
use super::client::TOKEN_URL_DEFAULT;
use crate::secret::Secret;

/// The scope that is asked for, and that an administrator has to delegate: reading calendars and the list of them.
pub const CALENDAR_SCOPE: &str = "https://www.googleapis.com/auth/calendar.readonly";

/// How long an assertion may be used, in seconds: the longest that Google takes.
const ASSERTION_LIFE_SECONDS: i64 = 3_600;
/// The largest key file that is read, in bytes. Google's have about 2,400.
const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

/// A service account's key, as Google's console gives it out.
#[derive(Clone)]
pub struct ServiceAccountKey {
    client_email: String,
    private_key_id: Option<String>,
    token_uri: String,
    key: EncodingKey,
}

#[derive(Deserialize)]
struct KeyFile {
    client_email: Option<String>,
    private_key: Option<Secret>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl ServiceAccountKey {
    /// Reads Google's key file and tries the key, so that a bad one is found at the start.
    ///
    /// # Errors
    /// If it is not such a file or the key cannot sign. The error holds nothing of the key.
    pub fn from_json(json: &[u8]) -> Result<Self, SettingsError> {
        let not_a_key = |why: &str| {
            SettingsError::new(
                "service_account_key",
                format!(
                    "{why}; create a JSON key of the service account in the Google Cloud console"
                ),
            )
        };
        if json.len() > KEY_FILE_BYTES_MAX {
            return Err(not_a_key("is too large for a key file"));
        }
        // serde's message could quote the key.
        let file: KeyFile = serde_json::from_slice(json)
            .map_err(|_| not_a_key("is not the JSON of a service account's key"))?;
        let (Some(client_email), Some(private_key)) = (file.client_email, file.private_key) else {
            return Err(not_a_key("has no client_email or no private_key"));
        };
        let key = EncodingKey::from_rsa_pem(private_key.expose().as_bytes())
            .map_err(|_| not_a_key("has a private_key that is no RSA key in PEM"))?;
        let key = ServiceAccountKey {
            client_email,
            private_key_id: file.private_key_id,
            token_uri: file
                .token_uri
                .unwrap_or_else(|| TOKEN_URL_DEFAULT.to_owned()),
            key,
        };
        key.sign("trial", Timestamp::EPOCH)
            .map_err(|_| not_a_key("has a private_key that cannot sign"))?;
        Ok(key)
    }

    /// The service account's address, which an administrator needs for the delegation.
    #[must_use]
    pub fn client_email(&self) -> &str {
        &self.client_email
    }

    /// The assertion that this account acts for `user`, from `now` on for an hour.
    pub(super) fn assertion(&self, user: &UserId, now: Timestamp) -> Result<Secret, Failure> {
        let signed = self.sign(user.as_str(), now);
        signed.map(Secret::new).map_err(|_| {
            Failure::new(
                FailureKind::Misconfigured,
                "the service account's key cannot sign; create a new key",
            )
        })
    }

    fn sign(&self, user: &str, now: Timestamp) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid.clone_from(&self.private_key_id);
        let issued_at = now.as_ms().div_euclid(1_000);
        let claims = Claims {
            iss: &self.client_email,
            sub: user,
            scope: CALENDAR_SCOPE,
            aud: &self.token_uri,
            iat: issued_at,
            exp: issued_at.saturating_add(ASSERTION_LIFE_SECONDS),
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}

impl std::fmt::Debug for ServiceAccountKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServiceAccountKey")
            .field("client_email", &self.client_email)
            .finish_non_exhaustive()
    }
}
