//! Google Calendar over HTTPS: one [`FetchRequest`] in, one page or one typed failure out.
//!
//! What to ask, what an answer means and what to do about a failure is decided in `kalends_core::google`; here the
//! request is put on the wire, with an access token that is good. The one thing this adapter does twice is a request
//! that was answered with 401: with a new access token, once. It does not sleep, retry or count quotas.
//!
//! Invariants: credentials go over `https` only (or to this machine itself), and never along a redirect; an answer
//! costs at most [`BODY_BYTES_MAX`] of memory and the request timeout; no secret is in an error or a `Debug`.
//!
//! Reading order: this file, [`GoogleAuth`] (where access tokens come from), `token_cache` (how they are kept),
//! `client` (HTTP).

mod auth;
mod client;
mod connect;
mod push;
mod service_account;
mod token_cache;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::failure::{classify, new_token_may_help};
use kalends_core::google::page::{BODY_BYTES_MAX, FetchReply, read_calendars, read_events};
use kalends_core::google::push::{is_stopped, read_watched, stop_body, watch_body};
use kalends_core::google::query::FetchRequest;
use kalends_core::id::UserId;
use kalends_core::port::Source;
use kalends_core::rng::stable_hash;
use kalends_core::time::{Clock, Timestamp};
use tracing::{Instrument as _, Span};

pub use auth::{GoogleAuth, RefreshTokens};
pub use client::{API_BASE_URL_DEFAULT, REQUEST_TIMEOUT_MS_DEFAULT, TOKEN_URL_DEFAULT};
pub use connect::{AUTH_URL_DEFAULT, ConnectSettings, Consent, Granted};
pub use push::{KEY_BYTES_MIN, Webhook};
pub use service_account::{CALENDAR_SCOPE, ServiceAccountKey};
pub use token_cache::TOKENS_MAX;

use auth::TokenSource;
use client::{Answer, Client};
use token_cache::{AccessToken, TokenCache};

/// The seed of the hash that names a user to Google's quota. Changing it would count every user anew once.
const QUOTA_USER_SEED: u64 = 0x6b61_6c65_6e64_7331;

/// How to reach Google.
#[derive(Clone, Debug)]
pub struct GoogleSettings {
    /// The Calendar API's base address, [`API_BASE_URL_DEFAULT`] unless an emulator is meant. `https`, or `http` to a
    /// loopback host.
    pub api_base_url: String,
    /// The OAuth token endpoint, [`TOKEN_URL_DEFAULT`] unless an emulator is meant. `https`, or `http` to a loopback
    /// host.
    pub token_url: String,
    /// How long one request may take from connecting to the last byte, in milliseconds, at least 1.
    pub request_timeout_ms: u64,
    /// In whose name, and by which credentials.
    pub auth: GoogleAuth,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The setting's name: a field of [`GoogleSettings`] or of a service account's key file.
    pub setting: &'static str,
    /// What is wrong and what would be right, without the value of a secret.
    pub detail: String,
}

impl SettingsError {
    fn new(setting: &'static str, detail: impl Into<String>) -> Self {
        SettingsError {
            setting,
            detail: detail.into(),
        }
    }
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.setting, self.detail)
    }
}

impl std::error::Error for SettingsError {}

/// What of Google was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The Calendar API.
    Calendar,
    /// The token endpoint.
    Token,
}

/// The target of the spans in which requests are made, one for each HTTP request: for traces. They hold method, status and which
/// endpoint, and neither an address nor anything that is sent.
pub const SPANS: &str = "kalends::spans";

/// Is told of every HTTP request when its answer is there: which endpoint, and the status; `None`: no answer came.
pub type RequestObserver = Arc<dyn Fn(Endpoint, Option<u16>) + Send + Sync>;

/// The source of calendars that is Google.
pub struct GoogleCalendar {
    client: Client,
    token_source: TokenSource,
    tokens: TokenCache,
    clock: Arc<dyn Clock>,
    requests: AtomicU64,
    token_requests: AtomicU64,
    observer: Option<RequestObserver>,
    webhook: Option<Arc<Webhook>>,
}

impl GoogleCalendar {
    /// Checks the settings and makes the connection pools. Nothing is sent yet.
    ///
    /// # Errors
    /// If an address is not `https` (or `http` to a loopback host), the timeout is 0, or no TLS client can be made.
    pub fn new(settings: GoogleSettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let client = Client::new(
            &settings.api_base_url,
            &settings.token_url,
            settings.request_timeout_ms,
        )?;
        Ok(GoogleCalendar {
            client,
            token_source: TokenSource::new(settings.auth),
            tokens: TokenCache::new(TOKENS_MAX),
            clock,
            requests: AtomicU64::new(0),
            token_requests: AtomicU64::new(0),
            observer: None,
            webhook: None,
        })
    }

    /// Itself, telling `observer` of every request: for metrics. It must not block.
    #[must_use]
    pub fn observed_by(mut self, observer: RequestObserver) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Itself, telling Google to send notifications there. Without it no channel can be made.
    #[must_use]
    pub fn with_webhook(mut self, webhook: Arc<Webhook>) -> Self {
        self.webhook = Some(webhook);
        self
    }

    fn observe(&self, endpoint: Endpoint, span: &Span, answer: &Result<Answer, Failure>) {
        let status = answer.as_ref().ok().map(|answer| answer.status);
        if let Some(status) = status {
            span.record("http.response.status_code", status);
        }
        if status.is_none_or(|status| status >= 400) {
            span.record("otel.status_code", "ERROR");
        }
        if let Some(observer) = &self.observer {
            observer(endpoint, status);
        }
    }

    /// How many requests were sent to the Calendar API so far, answered or not.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How many requests were sent to the token endpoint so far, answered or not.
    #[must_use]
    pub fn token_requests_total(&self) -> u64 {
        self.token_requests.load(Ordering::Relaxed)
    }

    /// Gets an access token for `user`, unless a good one is kept: shows whether the credentials are.
    ///
    /// # Errors
    /// What the token endpoint says, or why it is not asked.
    pub async fn check_token(&self, user: &UserId) -> Result<(), Failure> {
        self.access_token(user).await.map(drop)
    }

    async fn access_token(&self, user: &UserId) -> Result<AccessToken, Failure> {
        let now = || self.clock.now();
        let obtain = || async {
            let form = self.token_source.form(user, now()).await?;
            self.token_requests.fetch_add(1, Ordering::Relaxed);
            let asked_at = now();
            let span = request_span("token", "POST");
            let asked = self.client.post_token(&form, asked_at);
            let answer = asked.instrument(span.clone()).await;
            self.observe(Endpoint::Token, &span, &answer);
            auth::read_token(&answer?, asked_at)
        };
        self.tokens.get(user, now(), obtain).await
    }

    async fn send(&self, request: &FetchRequest, token: &AccessToken) -> Result<Answer, Failure> {
        let mut parameters = request.parameters();
        if self.token_source.acts_for_users() {
            // Without it, all users of a service account share one user's quota.
            let name = stable_hash(QUOTA_USER_SEED, request.user().as_str().as_bytes());
            parameters.push(("quotaUser", format!("{name:016x}")));
        }
        let url = self.client.api_url(&request.path_segments(), &parameters)?;
        let (token, now) = (token.secret(), self.clock.now());
        let body = self.body(request, now)?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (span, answer) = match body {
            None => {
                let span = request_span("calendar", "GET");
                let asked = self.client.get(url, token, now);
                (span.clone(), asked.instrument(span).await)
            }
            Some(body) => {
                let span = request_span("calendar", "POST");
                let asked = self.client.post(url, body, token, now);
                (span.clone(), asked.instrument(span).await)
            }
        };
        self.observe(Endpoint::Calendar, &span, &answer);
        answer
    }

    /// What is posted; `None` for what is only read.
    fn body(&self, request: &FetchRequest, now: Timestamp) -> Result<Option<String>, Failure> {
        match request {
            FetchRequest::Calendars { .. } | FetchRequest::Events { .. } => Ok(None),
            FetchRequest::Watch {
                user,
                channel,
                life_ms,
                ..
            } => {
                let webhook = self.webhook.as_ref().ok_or_else(|| {
                    Failure::permanent(
                        "this process knows no webhook; set push.address and push.key",
                    )
                })?;
                let token = webhook.token(user, channel).ok_or_else(|| {
                    Failure::permanent("the user's name is too long for a push channel's token")
                })?;
                let expires_at = now.plus_ms(*life_ms);
                Ok(Some(watch_body(
                    channel,
                    webhook.address(),
                    &token,
                    expires_at,
                )))
            }
            FetchRequest::StopChannel {
                channel, resource, ..
            } => Ok(Some(stop_body(channel, resource))),
        }
    }

    async fn ask(&self, request: &FetchRequest) -> Result<Answer, Failure> {
        let user = request.user();
        let token = self.access_token(user).await?;
        let answer = self.send(request, &token).await?;
        if !new_token_may_help(answer.status) {
            return Ok(answer);
        }
        self.tokens.forget(user, &token).await;
        let token = self.access_token(user).await?;
        self.send(request, &token).await
    }
}

/// Named as OpenTelemetry's conventions for HTTP clients say.
fn request_span(endpoint: &'static str, method: &'static str) -> Span {
    tracing::info_span!(
        target: SPANS, "request", otel.name = method, otel.kind = "client", http.request.method = method,
        http.response.status_code = tracing::field::Empty, kalends.endpoint = endpoint,
        otel.status_code = tracing::field::Empty,
    )
}

#[async_trait]
impl Source for GoogleCalendar {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        let answer = self.ask(&request).await?;
        let is_stop = matches!(request, FetchRequest::StopChannel { .. });
        if is_stop && is_stopped(answer.status) {
            return Ok(FetchReply::Stopped);
        }
        if answer.status != 200 {
            let failure = classify(answer.status, answer.retry_after_ms, &answer.body);
            if failure.kind == FailureKind::Unauthorized {
                // When the user has connected again, the next request must not use what is left of the old grant.
                self.tokens.forget_user(request.user());
            }
            return Err(failure);
        }
        let body = answer.whole_body()?;
        match request {
            FetchRequest::Calendars { .. } => read_calendars(body).map(FetchReply::Calendars),
            FetchRequest::Events { .. } => read_events(body).map(FetchReply::Events),
            FetchRequest::Watch { .. } => read_watched(body).map(FetchReply::Watched),
            FetchRequest::StopChannel { .. } => unreachable!("200 is as good as stopped"),
        }
    }
}
