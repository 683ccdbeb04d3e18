//! Access tokens: how often they are asked for, what a refusal means, and that none of it is ever seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kalends_adapters::google::{GoogleAuth, GoogleSettings, ServiceAccountKey};
use kalends_adapters::secret::Secret;
use kalends_core::failure::FailureKind;
use kalends_core::port::Source;

use super::scripted::{Reply, Request, answer};
use super::world::*;

#[tokio::test]
async fn twenty_fetches_at_once_ask_for_one_token() {
    let world = World::start(granted(|| answer(200, "", PAGE))).await;
    let results = fetch_at_once(&world, 20).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(world.requests(), (20, 1));
    // Another user's token is another token.
    world
        .google
        .fetch(events("bo@example.com", "primary"))
        .await
        .unwrap();
    assert_eq!(world.requests(), (21, 2));
}

#[tokio::test]
async fn a_token_is_renewed_at_80_percent_of_its_life() {
    let world = World::start(granted(|| answer(200, "", PAGE))).await;
    for (after_ms, requests) in [(0, (1, 1)), (2_879_999, (2, 1)), (2_880_000, (3, 2))] {
        world.clock.0.store(NOW_MS + after_ms, Ordering::SeqCst);
        world.fetch().await.unwrap();
        assert_eq!(world.requests(), requests);
    }
}

#[tokio::test]
async fn a_401_is_answered_with_one_new_token() {
    let tokens = AtomicUsize::new(0);
    let world = World::start(move |request| {
        if request.is_token() {
            return token(&format!("t{}", tokens.fetch_add(1, Ordering::SeqCst)));
        }
        match request.bearer() {
            Some("t0") => answer(401, "", refusal("authError")),
            _ => answer(200, "", PAGE),
        }
    })
    .await;
    world.fetch().await.unwrap();
    assert_eq!(world.requests(), (2, 2));
    // The new token is kept.
    world.fetch().await.unwrap();
    assert_eq!(world.requests(), (3, 2));
}

#[tokio::test]
async fn a_401_for_many_at_once_is_answered_with_one_new_token() {
    let (tokens, revoked) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let switch = Arc::clone(&revoked);
    let world = World::start(move |request| {
        if request.is_token() {
            return token(&format!("t{}", tokens.fetch_add(1, Ordering::SeqCst)));
        }
        match request.bearer() {
            Some("t0") if switch.load(Ordering::SeqCst) => answer(401, "", ""),
            _ => answer(200, "", PAGE),
        }
    })
    .await;
    world.fetch().await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    let results = fetch_at_once(&world, 20).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(world.requests().1, 2);
}

#[tokio::test]
async fn a_second_401_means_that_the_user_has_to_connect_again() {
    let world = World::start(granted(|| answer(401, "", refusal("authError")))).await;
    assert_eq!(world.kind().await, FailureKind::Unauthorized);
    assert_eq!(world.requests(), (2, 2));
}

#[tokio::test]
async fn a_grant_that_is_too_narrow_is_not_used_after_the_user_connected_again() {
    let world = World::start(granted(|| {
        answer(403, "", refusal("insufficientPermissions"))
    }))
    .await;
    assert_eq!(world.kind().await, FailureKind::Unauthorized);
    assert_eq!(world.requests(), (1, 1));
    assert_eq!(world.kind().await, FailureKind::Unauthorized);
    assert_eq!(world.requests(), (2, 2));
}

#[tokio::test]
async fn a_revoked_grant_costs_one_token_request_and_no_other() {
    let world = World::start(|_: &Request| {
        answer(
            400,
            "",
            r#"{"error":"invalid_grant","error_description":"Expired."}"#,
        )
    })
    .await;
    for result in fetch_at_once(&world, 20).await {
        assert_eq!(result.unwrap_err().kind, FailureKind::Unauthorized);
    }
    assert_eq!(world.requests(), (0, 1));

    let stranger = world
        .google
        .fetch(events("stranger@example.com", "primary"))
        .await;
    let failure = stranger.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(failure.detail.contains("connect the user"), "{failure}");
    assert_eq!(world.requests(), (0, 1));
}

#[tokio::test]
async fn a_token_endpoint_with_a_bad_moment_says_nothing_about_the_grant() {
    let world = World::start(|_: &Request| answer(503, "retry-after: 9\r\n", "")).await;
    assert_eq!(world.kind().await, transient(Some(9_000)));
    assert_eq!(world.requests(), (0, 1));
    for body in [
        "<html>",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":7}"#,
        "{\"access_token\":\"a\\r\\nx-evil: 1\"}",
        r#"{"access_token":"pl\u00e4nted"}"#,
    ] {
        let world = World::start(move |_: &Request| answer(200, "", body)).await;
        assert_eq!(world.kind().await, transient(None), "{body}");
    }
}

#[tokio::test]
async fn a_service_account_signs_for_the_user_and_names_the_user_to_the_quota() {
    let auth = GoogleAuth::ServiceAccount(service_account());
    let world = World::with(auth, TIMEOUT_MS, granted(|| answer(200, "", PAGE))).await;
    for user in ["ada@example.com", "bo@example.com", "ada@example.com"] {
        world.google.fetch(events(user, "primary")).await.unwrap();
    }
    assert_eq!(world.requests(), (3, 2));
    let requests = world.server.requests();

    let assertion = requests[0]
        .body
        .strip_prefix(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant%2Dtype%3Ajwt%2Dbearer&assertion=",
        )
        .unwrap();
    let assertion = assertion
        .replace("%2E", ".")
        .replace("%2D", "-")
        .replace("%5F", "_");
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(PUBLIC_KEY.as_bytes()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.set_audience(&["https://oauth2.googleapis.com/token"]);
    rules.validate_exp = false; // the test's clock is not the machine's
    let jwt = jsonwebtoken::decode::<serde_json::Value>(&assertion, &key, &rules).unwrap();
    assert_eq!(jwt.header.kid.as_deref(), Some("key-7"));
    assert_eq!(
        jwt.claims,
        serde_json::json!({
            "iss": "robot@project.example.com",
            "sub": "ada@example.com",
            "scope": "https://www.googleapis.com/auth/calendar.readonly",
            "aud": "https://oauth2.googleapis.com/token",
            "iat": NOW_MS / 1_000,
            "exp": NOW_MS / 1_000 + 3_600,
        })
    );

    let names: Vec<String> = requests
        .iter()
        .filter(|request| !request.is_token())
        .map(|request| {
            request
                .target
                .split_once("&quotaUser=")
                .unwrap()
                .1
                .to_owned()
        })
        .collect();
    assert_eq!(names[0], names[2], "one user, one name");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2);
    assert!(
        names
            .iter()
            .all(|name| name.len() <= 40 && !name.contains("ada")),
        "{names:?}"
    );
}

#[test]
fn a_bad_key_file_is_told_at_the_start_without_its_key() {
    let file = |private_key: &str| {
        serde_json::json!({"client_email": "a@example.com", "private_key": private_key}).to_string()
    };
    let no_key = "-----BEGIN PRIVATE KEY-----\ncGxhbnRlZA==\n-----END PRIVATE KEY-----\n";
    for json in [
        String::new(),
        "planted".to_owned(),
        r#"{"client_email":"a@example.com"}"#.to_owned(),
        r#"{"private_key":"planted"}"#.to_owned(),
        r#"{"client_email":"a@example.com","private_key":["planted"]}"#.to_owned(),
        file("planted"),
        file(no_key),
        file(PUBLIC_KEY),
        "planted".repeat(20_000),
    ] {
        let error = ServiceAccountKey::from_json(json.as_bytes()).unwrap_err();
        assert_eq!(error.setting, "service_account_key");
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains("planted") && !text.contains("cGxh"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn no_secret_is_in_an_error_or_a_debug() {
    let secrets = ["planted", "ya29", "MII", "en.usa"];
    let clean = |text: String| {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    };
    let echo = r#"{"error":{"message":"planted ya29.t","errors":[{"reason":"ya29.planted","message":"planted"}]}}"#;
    let echo_token = r#"{"error":"planted/refresh","error_description":"planted"}"#;
    for status in [200, 302, 400, 401, 403, 404, 410, 429, 500] {
        let headers = "location: http://127.0.0.1:1/planted\r\nretry-after: planted\r\n";
        let world = World::start(granted(move || answer(status, headers, echo))).await;
        let request = events(
            "ada@example.com",
            "en.usa#holiday@group.v.calendar.google.com",
        );
        let failure = world.google.fetch(request).await.unwrap_err();
        clean(format!("{failure} {failure:?}"));
        let world = World::start(move |_: &Request| answer(status, headers, echo_token)).await;
        let failure = world.fetch().await.unwrap_err();
        clean(format!("{failure} {failure:?}"));
    }
    for script in [
        || Reply::Bytes(Vec::new()),
        || Reply::Bytes(b"planted\r\n\r\n".to_vec()),
    ] {
        let world = World::start(granted(script)).await;
        let failure = world.fetch().await.unwrap_err();
        clean(format!("{failure} {failure:?}"));
    }
    let settings = |auth| GoogleSettings {
        api_base_url: "https://example.com".to_owned(),
        token_url: "https://example.com/token".to_owned(),
        request_timeout_ms: 1,
        auth,
    };
    clean(format!(
        "{:?}",
        settings(GoogleAuth::ServiceAccount(service_account()))
    ));
    let auth = GoogleAuth::RefreshTokens {
        client_id: "client-1".to_owned(),
        client_secret: Secret::new("planted"),
        tokens: Arc::new(Grants),
    };
    let text = format!("{:?}", settings(auth));
    assert!(text.contains("client-1"));
    clean(text);
}
