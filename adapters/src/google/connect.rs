//! Connecting a user: the address at which the user consents, and the exchange of the code that comes back.
//!
//! OAuth 2.0 for installed applications (RFC 8252; Google's guide "native-app"): the browser is sent to Google, and comes
//! back to an address of this machine with a code. Three things make sure that nobody else's code, and nobody's stolen one,
//! is of use: a random state that must come back, PKCE (RFC 7636, method S256), and the one redirect address.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::failure::{classify, classify_token};
use kalends_core::google::page::read_calendars;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::UserId;
use kalends_core::time::Clock;
use reqwest::Url;
use serde_json::Value;

use super::SettingsError;
use super::client::{Client, checked_url};
use super::service_account::CALENDAR_SCOPE;
use crate::secret::Secret;

/// Google's page at which users consent.
pub const AUTH_URL_DEFAULT: &str = "https://accounts.google.com/o/oauth2/v2/auth";
/// The scopes that let calendars be read: any of them is enough.
const READING_SCOPES: [&str; 2] = [CALENDAR_SCOPE, "https://www.googleapis.com/auth/calendar"];
/// Random bytes in a verifier and in a state; RFC 7636, 4.1 recommends 32.
const RANDOM_BYTES: usize = 32;
/// The longest code that is exchanged, in bytes. Google's have at most 256.
const CODE_BYTES_MAX: usize = 2_048;
/// The longest refresh token that is taken, in bytes. Google's have at most 512.
const REFRESH_TOKEN_BYTES_MAX: usize = 4_096;
/// Pages of the list of calendars that are looked through for the primary one.
const PAGES_MAX: u32 = 4;

/// How to reach Google, and as which application.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// The page at which users consent: [`AUTH_URL_DEFAULT`] unless an emulator is meant.
    pub auth_url: String,
    /// As in [`GoogleSettings`](super::GoogleSettings).
    pub token_url: String,
    /// As in [`GoogleSettings`](super::GoogleSettings).
    pub api_base_url: String,
    /// As in [`GoogleSettings`](super::GoogleSettings).
    pub request_timeout_ms: u64,
    /// The OAuth client.
    pub client_id: String,
    /// The OAuth client's secret.
    pub client_secret: Secret,
}

/// What a user's consent gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// To be kept, sealed.
    pub refresh_token: Secret,
    /// For the next hour.
    pub access_token: Secret,
    /// What was granted.
    pub scopes: Vec<String>,
}

/// One user's consent, under way.
pub struct Consent {
    client: Client,
    auth_url: Url,
    client_id: String,
    client_secret: Secret,
    redirect_uri: String,
    verifier: Secret,
    state: Secret,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Consent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Consent")
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}

/// A text that nobody can guess.
fn random_text() -> Secret {
    let mut bytes = [0; RANDOM_BYTES];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

impl Consent {
    /// Begins one; the code is to come back to `redirect_uri`, an `http` address of this machine.
    ///
    /// # Errors
    /// If an address cannot be used.
    pub fn begin(
        settings: ConnectSettings,
        redirect_uri: String,
        clock: Arc<dyn Clock>,
    ) -> Result<Consent, SettingsError> {
        Ok(Consent {
            client: Client::new(
                &settings.api_base_url,
                &settings.token_url,
                settings.request_timeout_ms,
            )?,
            auth_url: checked_url("auth_url", &settings.auth_url)?,
            client_id: settings.client_id,
            client_secret: settings.client_secret,
            redirect_uri,
            verifier: random_text(),
            state: random_text(),
            clock,
        })
    }

    /// Where the user's browser has to go. It is of use once, and to this process only. `hint` is the address at
    /// Google, if it is known.
    #[must_use]
    pub fn address(&self, hint: Option<&str>) -> String {
        let challenge = digest(&SHA256, self.verifier.expose().as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(challenge);
        let mut url = self.auth_url.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", CALENDAR_SCOPE)
            .append_pair("state", self.state.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            // Without the two, Google gives no refresh token to somebody who consented before.
            .append_pair("access_type", "offline")
            .append_pair("prompt", "consent");
        if let Some(hint) = hint {
            url.query_pairs_mut().append_pair("login_hint", hint);
        }
        url.into()
    }

    /// Whether `state` is the one that was sent along: the answer belongs to this consent.
    #[must_use]
    pub fn is_ours(&self, state: &str) -> bool {
        verify_slices_are_equal(state.as_bytes(), self.state.expose().as_bytes()).is_ok()
    }

    /// Exchanges the code for the grant.
    ///
    /// # Errors
    /// If Google refuses, or granted too little: [`FailureKind::Unauthorized`] then.
    pub async fn exchange(&self, code: &str) -> Result<Granted, Failure> {
        let refused = |text: &str| Failure::new(FailureKind::Unauthorized, text);
        if code.len() > CODE_BYTES_MAX {
            return Err(refused(
                "what came back is no code of Google's; begin again",
            ));
        }
        let form = [
            ("grant_type", Secret::new("authorization_code")),
            ("code", Secret::new(code)),
            ("client_id", Secret::new(&self.client_id)),
            ("client_secret", self.client_secret.clone()),
            ("redirect_uri", Secret::new(&self.redirect_uri)),
            ("code_verifier", self.verifier.clone()),
        ];
        let answer = self.client.post_token(&form, self.clock.now()).await?;
        if answer.status != 200 {
            let failure = classify_token(answer.status, answer.retry_after_ms, &answer.body);
            if failure.kind == FailureKind::Unauthorized {
                return Err(refused(
                    "Google does not take the code: it was used already, or is older than ten minutes; begin again",
                ));
            }
            return Err(failure);
        }
        let value: Value = serde_json::from_slice(answer.whole_body()?).map_err(|_| {
            Failure::transient("Google's token endpoint answered 200, but not with JSON")
        })?;
        let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let scopes: Vec<String> = text("scope")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if !scopes
            .iter()
            .any(|scope| READING_SCOPES.contains(&scope.as_str()))
        {
            return Err(refused(
                "the user did not allow the calendars to be read; begin again, and leave the tick at the calendars",
            ));
        }
        let is_token = |token: &str, bytes_max: usize| {
            (1..=bytes_max).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let (refresh_token, access_token) = (text("refresh_token"), text("access_token"));
        if !is_token(refresh_token, REFRESH_TOKEN_BYTES_MAX)
            || !is_token(access_token, REFRESH_TOKEN_BYTES_MAX)
        {
            return Err(refused(
                "Google gave no refresh token; take the application away at \
                 https://myaccount.google.com/permissions, then begin again",
            ));
        }
        Ok(Granted {
            refresh_token: Secret::new(refresh_token),
            access_token: Secret::new(access_token),
            scopes,
        })
    }

    /// Whose calendars they are: the id of the primary one, which is the account's address. `None`: it is not among the
    /// first pages of the list.
    ///
    /// # Errors
    /// If the list of calendars cannot be read.
    pub async fn account(
        &self,
        user: &UserId,
        granted: &Granted,
    ) -> Result<Option<String>, Failure> {
        let mut page_token = None;
        for _ in 0..PAGES_MAX {
            let request = FetchRequest::Calendars {
                user: user.clone(),
                page_token: page_token.take(),
            };
            let url = self
                .client
                .api_url(&request.path_segments(), &request.parameters())?;
            let now = self.clock.now();
            let answer = self.client.get(url, &granted.access_token, now).await?;
            if answer.status != 200 {
                return Err(classify(answer.status, answer.retry_after_ms, &answer.body));
            }
            let page = read_calendars(answer.whole_body()?)?;
            let primary = page.calendars.into_iter().find(|entry| entry.primary);
            if let Some(primary) = primary {
                return Ok(Some(primary.id.as_str().to_owned()));
            }
            page_token = page.next_page_token;
            if page_token.is_none() {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::time::Timestamp;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }
    }

    fn consent() -> Consent {
        let settings = ConnectSettings {
            auth_url: AUTH_URL_DEFAULT.to_owned(),
            token_url: super::super::TOKEN_URL_DEFAULT.to_owned(),
            api_base_url: super::super::API_BASE_URL_DEFAULT.to_owned(),
            request_timeout_ms: 1_000,
            client_id: "client&id".to_owned(),
            client_secret: Secret::new("planted-client-secret"),
        };
        let redirect = "http://127.0.0.1:4711/".to_owned();
        Consent::begin(settings, redirect, Arc::new(Still)).unwrap()
    }

    #[test]
    fn an_address_holds_the_challenge_and_no_secret() {
        let consent = consent();
        let address = consent.address(Some("ada@example.com"));
        let url = Url::parse(&address).unwrap();
        let given = |name: &str| {
            let mut pairs = url.query_pairs();
            let found = pairs.find(|(known, _)| known == name);
            found.map(|(_, value)| value.into_owned()).unwrap()
        };
        assert_eq!(given("client_id"), "client&id");
        assert_eq!(given("redirect_uri"), "http://127.0.0.1:4711/");
        assert_eq!(given("code_challenge_method"), "S256");
        assert_eq!(given("login_hint"), "ada@example.com");
        assert_eq!(given("code_challenge").len(), 43);
        assert!(consent.is_ours(&given("state")));
        assert!(!consent.is_ours("") && !consent.is_ours(&given("code_challenge")));
        for secret in [consent.verifier.expose(), "planted"] {
            assert!(!address.contains(secret));
            assert!(!format!("{consent:?}").contains(secret));
        }
    }

    #[test]
    fn no_two_consents_share_a_state_or_a_verifier() {
        let (one, two) = (consent(), consent());
        assert_ne!(one.state, two.state);
        assert_ne!(one.verifier, two.verifier);
        assert_ne!(one.state, one.verifier);
    }
}
