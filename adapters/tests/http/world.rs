//! One adapter, one scripted server and one clock, and the answers that most tests need.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kalends_adapters::google::{
    GoogleAuth, GoogleCalendar, GoogleSettings, RefreshTokens, ServiceAccountKey,
};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::{EventsFrom, EventsQuery, FetchRequest};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Source;
use kalends_core::time::{Clock, Timestamp};

use super::scripted::{Reply, Request, Server, answer};

pub(super) const TIMEOUT_MS: u64 = 10_000;
pub(super) const NOW_MS: i64 = 1_777_881_600_000; // 2026-05-04T08:00:00Z
pub(super) const PAGE: &str =
    r#"{"items":[{"id":"lunch1","summary":"Lunch"}],"nextSyncToken":"s1"}"#;
pub(super) const PRIVATE_KEY: &str = include_str!("../data/test_only_private_key.pem");
pub(super) const PUBLIC_KEY: &str = include_str!("../data/test_only_public_key.pem");

pub(super) struct TestClock(pub(super) AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// Everybody is connected but `stranger@example.com`.
pub(super) struct Grants;

impl RefreshTokens for Grants {
    fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        let connected = user.as_str() != "stranger@example.com";
        connected.then(|| Secret::new("1//planted-refresh+token&"))
    }
}

pub(super) struct World {
    pub(super) server: Server,
    pub(super) google: Arc<GoogleCalendar>,
    pub(super) clock: Arc<TestClock>,
}

impl World {
    pub(super) async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> World {
        let auth = GoogleAuth::RefreshTokens {
            client_id: "client-1.example".to_owned(),
            client_secret: Secret::new("planted-client-secret"),
            tokens: Arc::new(Grants),
        };
        World::with(auth, TIMEOUT_MS, script).await
    }

    pub(super) async fn with(
        auth: GoogleAuth,
        request_timeout_ms: u64,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> World {
        let server = Server::start(script).await;
        let clock = Arc::new(TestClock(AtomicI64::new(NOW_MS)));
        let settings = GoogleSettings {
            api_base_url: format!("{}/calendar/v3", server.address),
            token_url: format!("{}/token", server.address),
            request_timeout_ms,
            auth,
        };
        let google = GoogleCalendar::new(settings, clock.clone()).unwrap();
        World {
            server,
            google: Arc::new(google),
            clock,
        }
    }

    pub(super) async fn fetch(&self) -> Result<FetchReply, Failure> {
        self.google
            .fetch(events("ada@example.com", "primary"))
            .await
    }

    pub(super) async fn kind(&self) -> FailureKind {
        self.fetch().await.unwrap_err().kind
    }

    /// Requests to the API and to the token endpoint, as the server saw them; the adapter's counters agree.
    pub(super) fn requests(&self) -> (u64, u64) {
        let (tokens, api): (Vec<Request>, Vec<Request>) = self
            .server
            .requests()
            .into_iter()
            .partition(Request::is_token);
        let seen = (api.len() as u64, tokens.len() as u64);
        assert_eq!(
            seen,
            (
                self.google.requests_total(),
                self.google.token_requests_total()
            )
        );
        seen
    }
}

pub(super) fn events(user: &str, calendar: &str) -> FetchRequest {
    FetchRequest::Events {
        user: UserId::new(user).unwrap(),
        query: EventsQuery {
            calendar: CalendarId::new(calendar).unwrap(),
            from: EventsFrom::SyncToken("CPDA+planted=sync/token".to_owned()),
            page_token: None,
            page_size: 250,
        },
    }
}

pub(super) fn token(text: &str) -> Reply {
    answer(
        200,
        "",
        format!(r#"{{"access_token":"{text}","expires_in":3600,"token_type":"Bearer"}}"#),
    )
}

/// A script that gives every user a token and answers each API request with `reply`.
pub(super) fn granted(
    reply: impl Fn() -> Reply + Send + Sync,
) -> impl Fn(&Request) -> Reply + Send + Sync {
    move |request| {
        if request.is_token() {
            token("ya29.t")
        } else {
            reply()
        }
    }
}

pub(super) fn transient(retry_after_ms: Option<u64>) -> FailureKind {
    FailureKind::Transient { retry_after_ms }
}

pub(super) fn refusal(reason: &str) -> String {
    format!(r#"{{"error":{{"errors":[{{"reason":"{reason}"}}]}}}}"#)
}

pub(super) async fn fetch_at_once(world: &World, count: usize) -> Vec<Result<FetchReply, Failure>> {
    let fetches: Vec<_> = (0..count)
        .map(|_| {
            let google = Arc::clone(&world.google);
            tokio::spawn(async move { google.fetch(events("ada@example.com", "primary")).await })
        })
        .collect();
    let mut results = Vec::new();
    for fetch in fetches {
        results.push(fetch.await.unwrap());
    }
    results
}

pub(super) fn service_account() -> ServiceAccountKey {
    let json = serde_json::json!({
        "type": "service_account",
        "client_email": "robot@project.example.com",
        "private_key": PRIVATE_KEY,
        "private_key_id": "key-7",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    ServiceAccountKey::from_json(json.to_string().as_bytes()).unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
