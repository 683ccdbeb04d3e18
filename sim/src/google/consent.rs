//! The page at which a user allows an application to read, and the code that comes back from it.
//!
//! Nobody is there to press a button: a request that names a user (`login_hint`) is allowed at once. One that names
//! nobody gets a page with a link for each user, and one that refuses. Two parameters of the emulator's own say how it
//! ends: `emulate=deny` (the user refuses) and `emulate=no_scope` (the user takes the tick away from the calendars).
//!
//! A code is good once, for ten minutes, for the same client and address, and for whoever knows the verifier of its
//! challenge (RFC 7636).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kalends_core::rng::stable_hash;
use kalends_core::time::{MINUTE_MS, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::oauth::SCOPES;
use super::person::{Person, user_of_email};
use super::settings::GoogleSettings;
use crate::http::{Request, Response};

/// Codes that are kept at the most; the oldest go first.
const CODES_MAX: usize = 1_000;
/// How long a code is good, in milliseconds.
const CODE_LIFE_MS: u64 = 10 * MINUTE_MS;
/// Users that the page shows.
const SHOWN_MAX: u32 = 100;
const CODE_SALT: u64 = 0x636f_6465_2121_2121;
/// What a user is left with who takes the tick away.
const NO_CALENDAR: &str = "openid";

/// Codes that were given out and not used yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codes {
    given: u64,
    waiting: BTreeMap<u64, Code>,
}

#[derive(Clone)]
struct Code {
    text: String,
    user: u32,
    scope: String,
    client: String,
    redirect_uri: String,
    challenge: Option<String>,
    offline: bool,
    given_at: Timestamp,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Code(of user {}, hidden)", self.user)
    }
}

/// What a code is good for.
pub(super) struct Allowed {
    pub(super) user: u32,
    pub(super) scope: String,
    pub(super) offline: bool,
}

impl Codes {
    /// Answers `GET /o/oauth2/v2/auth`.
    pub(super) fn authorize(
        &mut self,
        settings: &GoogleSettings,
        now: Timestamp,
        request: &Request,
    ) -> Response {
        let given = |name| request.parameter(name).filter(|value| !value.is_empty());
        let refuse = |what: &str| {
            let page = format!("<!doctype html><title>Error 400</title><p>Error 400: {what}");
            Response::html(400, &page)
        };
        let Some(redirect_uri) = given("redirect_uri").filter(|uri| is_loopback(uri)) else {
            return refuse("redirect_uri_mismatch");
        };
        let Some(client) = given("client_id") else {
            return refuse("invalid_request: client_id is missing");
        };
        if settings
            .client
            .as_ref()
            .is_some_and(|known| known.id != client)
        {
            return refuse("invalid_client: the OAuth client was not found");
        }
        if given("response_type") != Some("code") {
            return refuse("invalid_request: response_type is not code");
        }
        let asked = given("scope").unwrap_or_default();
        if !asked.split(' ').any(|scope| scope == SCOPES) {
            return refuse("invalid_scope");
        }
        let challenge = given("code_challenge");
        if challenge.is_some() && given("code_challenge_method") != Some("S256") {
            return refuse("invalid_request: only code_challenge_method S256 is emulated");
        }
        if given("emulate") == Some("deny") {
            return redirect(redirect_uri, &[("error", "access_denied")], given("state"));
        }
        let user = given("login_hint").and_then(|hint| user_of_email(hint, settings.users));
        let Some(user) = user else {
            return choice(settings, request);
        };
        let scope = match given("emulate") {
            Some("no_scope") => NO_CALENDAR,
            _ => SCOPES,
        };
        let text = self.give(
            settings,
            Code {
                text: String::new(),
                user,
                scope: scope.to_owned(),
                client: client.to_owned(),
                redirect_uri: redirect_uri.to_owned(),
                challenge: challenge.map(str::to_owned),
                offline: given("access_type") == Some("offline"),
                given_at: now,
            },
        );
        let answer = [("code", text.as_str()), ("scope", scope)];
        redirect(redirect_uri, &answer, given("state"))
    }

    fn give(&mut self, settings: &GoogleSettings, code: Code) -> String {
        self.given += 1;
        let secret = stable_hash(settings.seed ^ CODE_SALT, &self.given.to_le_bytes());
        // Google's hold a slash, which has to survive being a parameter.
        let text = format!("4/0-{}-{secret:016x}", self.given);
        let named = Code {
            text: text.clone(),
            ..code
        };
        self.waiting.insert(self.given, named);
        while self.waiting.len() > CODES_MAX {
            self.waiting.pop_first();
        }
        text
    }

    /// What the code of this form is good for, once; or what is wrong with it.
    pub(super) fn redeem(
        &mut self,
        now: Timestamp,
        form: &BTreeMap<String, String>,
    ) -> Result<Allowed, (&'static str, &'static str)> {
        let given = |name: &str| form.get(name).map(String::as_str);
        let text = given("code").ok_or(("invalid_request", "Missing required parameter: code"))?;
        let mut waiting = self.waiting.iter();
        let number = waiting.find(|(_, code)| code.text == text).map(|(n, _)| *n);
        let number = number.ok_or(("invalid_grant", "Malformed auth code."))?;
        // Whoever shows it wrongly has used it up, too.
        let code = self.waiting.remove(&number).expect("found just now");
        if now >= code.given_at.plus_ms(CODE_LIFE_MS) {
            return Err(("invalid_grant", "Bad Request"));
        }
        if given("redirect_uri") != Some(code.redirect_uri.as_str()) {
            return Err(("redirect_uri_mismatch", "Bad Request"));
        }
        if given("client_id") != Some(code.client.as_str()) {
            return Err(("invalid_grant", "Bad Request"));
        }
        if let Some(challenge) = &code.challenge {
            let verifier =
                given("code_verifier").ok_or(("invalid_grant", "Missing code verifier."))?;
            if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != *challenge {
                return Err(("invalid_grant", "Invalid code verifier."));
            }
        }
        Ok(Allowed {
            user: code.user,
            scope: code.scope,
            offline: code.offline,
        })
    }
}

/// What Google allows an installed application: an address of the machine itself, with any port.
fn is_loopback(uri: &str) -> bool {
    ["http://127.0.0.1", "http://[::1]", "http://localhost"]
        .iter()
        .filter_map(|host| uri.strip_prefix(host))
        .any(|rest| rest.is_empty() || rest.starts_with(':') || rest.starts_with('/'))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn redirect(uri: &str, parameters: &[(&str, &str)], state: Option<&str>) -> Response {
    let mut address = uri.to_owned();
    let state = state.map(|state| ("state", state));
    let mut sign = if uri.contains('?') { '&' } else { '?' };
    for (name, value) in parameters.iter().copied().chain(state) {
        let _ = write!(address, "{sign}{name}={}", encoded(value));
        sign = '&';
    }
    let mut response = Response::html(302, "");
    response.headers.push(("location".to_owned(), address));
    response
}

/// The page for a request that names nobody.
fn choice(settings: &GoogleSettings, request: &Request) -> Response {
    let mut query = String::new();
    for (name, value) in &request.query {
        if name != "login_hint" {
            let _ = write!(query, "{}={}&amp;", encoded(name), encoded(value));
        }
    }
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Emulated Google</title>\
         <h1>Who allows this application to read calendars?</h1><ul>",
    );
    for user in 0..settings.users.min(SHOWN_MAX) {
        let email = Person::User(user).email();
        let _ = write!(
            page,
            "<li><a href=\"?{query}login_hint={}\">{email}</a>",
            encoded(&email)
        );
    }
    let _ = write!(page, "</ul><p><a href=\"?{query}emulate=deny\">nobody</a>");
    Response::html(200, &page)
}
