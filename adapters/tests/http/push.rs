//! Push channels on the wire: what is posted, and what is made of the answers.

use std::sync::Arc;

use kalends_adapters::google::{GoogleAuth, GoogleCalendar, GoogleSettings, Webhook};
use kalends_adapters::secret::Secret;
use kalends_core::failure::FailureKind;
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Source;
use kalends_core::time::{DAY_MS, Timestamp};

use super::scripted::{Reply, Server, answer};
use super::world::*;

const ADDRESS: &str = "https://hooks.example.com/google";
const KEY: &str = "planted-push-key-0123456789abcdef-0123";
const CHANNEL: &str = "kalends-0006500000000000-00";

fn user() -> UserId {
    UserId::new("ada@example.com").unwrap()
}

fn watch() -> FetchRequest {
    FetchRequest::Watch {
        user: user(),
        calendar: CalendarId::new("primary").unwrap(),
        channel: CHANNEL.to_owned(),
        life_ms: DAY_MS,
    }
}

fn stop() -> FetchRequest {
    FetchRequest::StopChannel {
        user: user(),
        channel: CHANNEL.to_owned(),
        resource: "r1".to_owned(),
    }
}

fn webhook() -> Arc<Webhook> {
    Arc::new(Webhook::new(ADDRESS, &Secret::new(KEY)).unwrap())
}

/// An adapter that knows a webhook, if it is to, and its server.
async fn google(
    knows_webhook: bool,
    script: impl Fn() -> Reply + Send + Sync + 'static,
) -> (GoogleCalendar, Server) {
    let server = Server::start(granted(script)).await;
    let settings = GoogleSettings {
        api_base_url: format!("{}/calendar/v3", server.address),
        token_url: format!("{}/token", server.address),
        request_timeout_ms: TIMEOUT_MS,
        auth: GoogleAuth::RefreshTokens {
            client_id: "client-1.example".to_owned(),
            client_secret: Secret::new("planted-client-secret"),
            tokens: Arc::new(Grants),
        },
    };
    let clock = Arc::new(TestClock(NOW_MS.into()));
    let google = GoogleCalendar::new(settings, clock).unwrap();
    let google = match knows_webhook {
        true => google.with_webhook(webhook()),
        false => google,
    };
    (google, server)
}

#[tokio::test]
async fn a_channel_is_asked_for_as_google_describes_it() {
    let made = r#"{"kind":"api#channel","id":"k","resourceId":"r1","expiration":"1777967000000"}"#;
    let (google, server) = google(true, move || answer(200, "", made)).await;
    let FetchReply::Watched(made) = google.fetch(watch()).await.unwrap() else {
        panic!("a channel was asked for");
    };
    assert_eq!(made.resource, "r1");
    assert_eq!(made.expires_at, Timestamp::from_ms(1_777_967_000_000));
    let request = server.requests().pop().unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!(
        request.target,
        "/calendar/v3/calendars/primary/events/watch"
    );
    assert!(request.head.contains("content-type: application/json"));
    assert!(
        request
            .head
            .to_lowercase()
            .contains("authorization: bearer ya29.t")
    );
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body["id"], CHANNEL);
    assert_eq!(body["address"], ADDRESS);
    assert_eq!(body["type"], "web_hook");
    let expires_ms = NOW_MS + i64::try_from(DAY_MS).unwrap();
    assert_eq!(body["expiration"], expires_ms.to_string());
    // The token is good for this channel, and holds no key.
    let token = body["token"].as_str().unwrap();
    assert_eq!(webhook().user_of(CHANNEL, token), Some(user()));
    assert!(!request.body.contains(KEY));
}

#[tokio::test]
async fn a_stopped_channel_is_stopped_and_one_that_is_gone_too() {
    for status in [204, 200, 404] {
        let (google, server) = google(true, move || answer(status, "", "")).await;
        assert_eq!(
            google.fetch(stop()).await,
            Ok(FetchReply::Stopped),
            "{status}"
        );
        let request = server.requests().pop().unwrap();
        assert_eq!(request.target, "/calendar/v3/channels/stop");
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({ "id": CHANNEL, "resourceId": "r1" })
        );
    }
    let (google, _server) = google(true, || answer(503, "", "")).await;
    let failure = google.fetch(stop()).await.unwrap_err();
    assert!(
        matches!(failure.kind, FailureKind::Transient { .. }),
        "{failure}"
    );
}

#[tokio::test]
async fn a_refusal_is_a_failure_and_without_a_webhook_nobody_is_asked() {
    let refusal = r#"{"error":{"errors":[{"domain":"global","reason":"pushNotSupportedForRequestedResource"}],"code":400}}"#;
    let (refused, _server) = google(true, move || answer(400, "", refusal)).await;
    let failure = refused.fetch(watch()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
    let (cut, _server) = google(true, || answer(200, "", "{")).await;
    let failure = cut.fetch(watch()).await.unwrap_err();
    assert!(
        matches!(failure.kind, FailureKind::Transient { .. }),
        "{failure}"
    );
    let (without, _server) = google(false, || answer(200, "", "{}")).await;
    let failure = without.fetch(watch()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.detail.contains("push.address"), "{failure}");
    assert_eq!(without.requests_total(), 0);
}
