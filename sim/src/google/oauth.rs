//! Who asks: refresh tokens, access tokens and assertions, none of them kept.
//!
//! A user's refresh token follows from the seed and can be printed. An access token says whose it is, since when and
//! how it was got, with a check sum. What is kept of a user is only a revocation, from when on tokens count, and how often
//! the user has consented: each consent gives a refresh token of its own, and those of before a revocation stay dead.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kalends_core::rng::stable_hash;
use kalends_core::time::{SECOND_MS, Timestamp};
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::consent::Codes;
use super::error::{ApiError, oauth_error};
use super::person::user_of_email;
use super::settings::GoogleSettings;
use crate::http::{Request, Response};

const REFRESH_SALT: u64 = 0x7265_6672_6573_6821;
const ACCESS_SALT: u64 = 0x6163_6365_7373_2121;
/// Refresh tokens of one user and client that live at the same time, at Google.
const LIVE_TOKENS_MAX: u32 = 100;
/// The longest assertion that is looked at, in bytes.
const ASSERTION_BYTES_MAX: usize = 16_384;
/// The longest life an assertion may claim, in seconds.
const ASSERTION_LIFE_S_MAX: i64 = 3_600;
/// How far an assertion's clock may be from ours, in seconds.
const ASSERTION_SKEW_S_MAX: i64 = 300;
/// The one scope that there is.
pub(super) const SCOPES: &str = "https://www.googleapis.com/auth/calendar.readonly";
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What is remembered of users' grants; only of those that were touched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    users: BTreeMap<u32, Grant>,
    codes: Codes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Grant {
    revoked: bool,
    /// Access tokens issued before this no longer count.
    tokens_from: Option<Timestamp>,
    /// How often the user has consented; 0 is how everybody begins.
    consents: u32,
    /// Refresh tokens of earlier consents no longer count.
    consents_from: u32,
}

/// Who a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: u32,
    /// Got by a service account on the user's behalf.
    pub(crate) delegated: bool,
}

/// The refresh token that a user begins with.
pub(crate) fn refresh_token(seed: u64, user: u32) -> String {
    refresh_token_of(seed, user, 0)
}

/// The refresh token that a user's consent gave, counted from 1.
fn refresh_token_of(seed: u64, user: u32, consent: u32) -> String {
    let secret = match consent {
        0 => stable_hash(seed ^ REFRESH_SALT, &user.to_le_bytes()),
        _ => {
            let named = u64::from(consent) << 32 | u64::from(user);
            stable_hash(seed ^ REFRESH_SALT, &named.to_le_bytes())
        }
    };
    format!("refresh-{:05}-{secret:016x}", u64::from(user) + 1)
}

pub(crate) fn access_token(settings: &GoogleSettings, caller: Caller, now: Timestamp) -> String {
    let kind = if caller.delegated { 's' } else { 'u' };
    let body = format!("ya29.{kind}.{}.{}", caller.user, now.as_ms());
    let check = stable_hash(settings.seed ^ ACCESS_SALT, body.as_bytes());
    format!("{body}.{check:016x}")
}

fn read_access_token(settings: &GoogleSettings, text: &str) -> Option<(Caller, Timestamp)> {
    let mut parts = text.split('.').skip(1);
    let delegated = parts.next()? == "s";
    let user = parts.next()?.parse().ok()?;
    let issued = Timestamp::from_ms(parts.next()?.parse().ok()?);
    let caller = Caller { user, delegated };
    let known = user < settings.users && access_token(settings, caller, issued) == text;
    known.then_some((caller, issued))
}

impl Grants {
    /// Whose refresh token this is. Of many consents the last [`LIVE_TOKENS_MAX`] count, as at Google.
    fn user_of_refresh_token(&self, settings: &GoogleSettings, text: &str) -> Option<u32> {
        let (number, _) = text.strip_prefix("refresh-")?.split_once('-')?;
        let user = number.parse::<u32>().ok()?.checked_sub(1)?;
        if user >= settings.users {
            return None;
        }
        let grant = self.users.get(&user).copied().unwrap_or_default();
        let first = grant
            .consents_from
            .max(grant.consents.saturating_sub(LIVE_TOKENS_MAX - 1));
        let mut consents = first..=grant.consents;
        consents
            .any(|consent| refresh_token_of(settings.seed, user, consent) == text)
            .then_some(user)
    }

    /// Answers `GET /o/oauth2/v2/auth`.
    pub(crate) fn authorize(
        &mut self,
        settings: &GoogleSettings,
        now: Timestamp,
        request: &Request,
    ) -> Response {
        self.codes.authorize(settings, now, request)
    }

    /// Exchanges a code; a refresh token comes along if it was asked for.
    fn code(
        &mut self,
        settings: &GoogleSettings,
        now: Timestamp,
        form: &BTreeMap<String, String>,
    ) -> Response {
        if let Some(refusal) = wrong_client(settings, form) {
            return refusal;
        }
        let allowed = match self.codes.redeem(now, form) {
            Ok(allowed) => allowed,
            Err((error, description)) => return oauth_error(400, error, description),
        };
        let user = allowed.user;
        let grant = self.users.entry(user).or_default();
        grant.consents += 1;
        if grant.revoked {
            grant.revoked = false;
            grant.consents_from = grant.consents;
            grant.tokens_from = Some(now);
        }
        let token = refresh_token_of(settings.seed, user, grant.consents);
        let caller = Caller {
            user,
            delegated: false,
        };
        let mut body = granted_body(settings, caller, now, Some(&allowed.scope));
        if allowed.offline {
            body["refresh_token"] = json!(token);
        }
        Response::json(200, body.to_string().into_bytes())
    }

    pub(crate) fn is_revoked(&self, user: u32) -> bool {
        self.users.get(&user).is_some_and(|grant| grant.revoked)
    }

    /// Whether a token of `user` that was issued then is good.
    pub(crate) fn is_good(
        &self,
        settings: &GoogleSettings,
        now: Timestamp,
        user: u32,
        issued: Timestamp,
    ) -> bool {
        let grant = self.users.get(&user).copied().unwrap_or_default();
        let life_ms = u64::from(settings.access_token_life_s) * SECOND_MS;
        !grant.revoked
            && grant.tokens_from.is_none_or(|from| issued >= from)
            && now < issued.plus_ms(life_ms)
    }

    /// Ends every token of a user until [`Grants::restore`].
    pub(crate) fn revoke(&mut self, user: u32) {
        self.users.entry(user).or_default().revoked = true;
    }

    /// Connects a user again; access tokens of before stay dead.
    pub(crate) fn restore(&mut self, now: Timestamp, user: u32) {
        let grant = self.users.entry(user).or_default();
        grant.revoked = false;
        grant.tokens_from = Some(now);
    }

    /// Ends the access tokens that a user has now; the refresh token stays good.
    pub(crate) fn expire_access_tokens(&mut self, now: Timestamp, user: u32) {
        self.users.entry(user).or_default().tokens_from = Some(now.plus_ms(1));
    }

    /// Whose request this is.
    pub(crate) fn authenticate(
        &self,
        settings: &GoogleSettings,
        now: Timestamp,
        request: &Request,
    ) -> Result<Caller, ApiError> {
        let header = request.header("authorization");
        let bearer = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let text = bearer
            .or_else(|| request.parameter("access_token"))
            .or_else(|| request.parameter("oauth_token"));
        let text = text.ok_or_else(ApiError::login_required)?;
        // By hand it is convenient to use the printed token as it is.
        if let Some(user) = self.user_of_refresh_token(settings, text) {
            let caller = Caller {
                user,
                delegated: false,
            };
            return self.admit(caller);
        }
        let read = read_access_token(settings, text);
        let (caller, issued) = read.ok_or_else(ApiError::invalid_credentials)?;
        let life_ms = u64::from(settings.access_token_life_s) * SECOND_MS;
        let grant = self.users.get(&caller.user).copied().unwrap_or_default();
        let ended = grant.tokens_from.is_some_and(|from| issued < from);
        if ended || now >= issued.plus_ms(life_ms) {
            return Err(ApiError::invalid_credentials());
        }
        self.admit(caller)
    }

    fn admit(&self, caller: Caller) -> Result<Caller, ApiError> {
        if self.is_revoked(caller.user) {
            return Err(ApiError::invalid_credentials());
        }
        Ok(caller)
    }

    /// Answers `POST /token`.
    pub(crate) fn token(
        &mut self,
        settings: &GoogleSettings,
        now: Timestamp,
        request: &Request,
    ) -> Response {
        let form = form(&request.body);
        match form.get("grant_type").map(String::as_str) {
            Some("refresh_token") => self.refresh(settings, now, &form),
            Some("authorization_code") => self.code(settings, now, &form),
            Some(JWT_GRANT) => self.assertion(settings, now, &form),
            Some(_) => oauth_error(400, "unsupported_grant_type", "Invalid grant_type."),
            None => oauth_error(
                400,
                "invalid_request",
                "Missing required parameter: grant_type",
            ),
        }
    }

    fn refresh(
        &self,
        settings: &GoogleSettings,
        now: Timestamp,
        form: &BTreeMap<String, String>,
    ) -> Response {
        if let Some(refusal) = wrong_client(settings, form) {
            return refusal;
        }
        let Some(text) = form.get("refresh_token") else {
            let message = "Missing required parameter: refresh_token";
            return oauth_error(400, "invalid_request", message);
        };
        match self.user_of_refresh_token(settings, text) {
            None => oauth_error(400, "invalid_grant", "Bad Request"),
            Some(user) if self.is_revoked(user) => expired_or_revoked(),
            Some(user) => {
                let caller = Caller {
                    user,
                    delegated: false,
                };
                granted(settings, caller, now, Some(SCOPES))
            }
        }
    }

    fn assertion(
        &self,
        settings: &GoogleSettings,
        now: Timestamp,
        form: &BTreeMap<String, String>,
    ) -> Response {
        let Some(claims) = form.get("assertion").and_then(|text| claims(text)) else {
            return oauth_error(
                400,
                "invalid_grant",
                "Invalid JWT: not three base64url parts.",
            );
        };
        if let Some(issuer) = &settings.service_account_issuer
            && claims.iss.as_ref() != Some(issuer)
        {
            let message = "Client is unauthorized to retrieve access tokens using this method.";
            return oauth_error(401, "unauthorized_client", message);
        }
        if claims.scope.as_deref().is_none_or(str::is_empty) {
            return oauth_error(400, "invalid_scope", "No scope was asked for.");
        }
        let now_s = now.as_ms().div_euclid(SECOND_MS.cast_signed());
        let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
            return bad_times();
        };
        let too_long = exp.saturating_sub(iat) > ASSERTION_LIFE_S_MAX || exp <= iat;
        let from_the_future = iat > now_s + ASSERTION_SKEW_S_MAX;
        let over = exp < now_s - ASSERTION_SKEW_S_MAX;
        if too_long || from_the_future || over {
            return bad_times();
        }
        let user = claims
            .sub
            .and_then(|sub| user_of_email(&sub, settings.users));
        match user {
            None => oauth_error(400, "invalid_grant", "Invalid email or User ID"),
            Some(user) if self.is_revoked(user) => expired_or_revoked(),
            Some(user) => {
                let caller = Caller {
                    user,
                    delegated: true,
                };
                granted(settings, caller, now, None)
            }
        }
    }

    /// Answers `POST /revoke`; the user that was revoked, if any.
    pub(crate) fn revoke_by_token(
        &mut self,
        settings: &GoogleSettings,
        request: &Request,
    ) -> Response {
        let form = form(&request.body);
        let text = request
            .parameter("token")
            .or(form.get("token").map(String::as_str));
        let user = text.and_then(|text| {
            let by_access = || Some(read_access_token(settings, text)?.0.user);
            self.user_of_refresh_token(settings, text)
                .or_else(by_access)
        });
        match user {
            Some(user) if !self.is_revoked(user) => {
                self.revoke(user);
                Response::json(200, b"{}".to_vec())
            }
            _ => oauth_error(400, "invalid_token", "Token expired or revoked"),
        }
    }
}

/// The answer to a client that is not the known one.
fn wrong_client(settings: &GoogleSettings, form: &BTreeMap<String, String>) -> Option<Response> {
    let client = settings.client.as_ref()?;
    let same = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    if !same("client_id", &client.id) {
        let message = "The OAuth client was not found.";
        return Some(oauth_error(401, "invalid_client", message));
    }
    if !same("client_secret", &client.secret) {
        return Some(oauth_error(401, "invalid_client", "Unauthorized"));
    }
    None
}

fn granted(
    settings: &GoogleSettings,
    caller: Caller,
    now: Timestamp,
    scope: Option<&str>,
) -> Response {
    let body = granted_body(settings, caller, now, scope);
    Response::json(200, body.to_string().into_bytes())
}

fn granted_body(
    settings: &GoogleSettings,
    caller: Caller,
    now: Timestamp,
    scope: Option<&str>,
) -> Value {
    let mut body = json!({
        "access_token": access_token(settings, caller, now),
        "expires_in": settings.access_token_life_s,
        "token_type": "Bearer",
    });
    if let Some(scope) = scope {
        body["scope"] = json!(scope);
    }
    body
}

fn expired_or_revoked() -> Response {
    oauth_error(400, "invalid_grant", "Token has been expired or revoked.")
}

fn bad_times() -> Response {
    let message = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable \
                   timeframe. Check your iat and exp values in the JWT claim.";
    oauth_error(400, "invalid_grant", message)
}

/// What an assertion claims; its signature is not checked.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    scope: Option<String>,
    iat: Option<i64>,
    exp: Option<i64>,
}

fn claims(assertion: &str) -> Option<Claims> {
    if assertion.len() > ASSERTION_BYTES_MAX {
        return None;
    }
    let parts: Vec<&str> = assertion.split('.').collect();
    let [_, claims, _] = parts.as_slice() else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// Reads a form body; the first value of a name counts.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for pair in body.split(|byte| *byte == b'&') {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = decoded(halves.next().unwrap_or_default());
        let value = decoded(halves.next().unwrap_or_default());
        fields.entry(name).or_insert(value);
    }
    fields
}

fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}
