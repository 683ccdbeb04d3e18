//! Who is let in.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kalends_core::time::{SECOND_MS, Timestamp};
use kalends_sim::google::{GoogleEmulator, LimitAnswer, OauthClient, QuotaSettings};
use kalends_sim::http::{Request, Response};
use serde_json::json;

use crate::client::{ADA, EPOCH, body, events_request, refusal, settings};

const JWT_GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

fn refresh_form(emulator: &GoogleEmulator) -> String {
    let token = emulator.users().next().unwrap().refresh_token;
    format!("grant_type=refresh_token&refresh_token={token}&client_id=my+app&client_secret=s%26t")
}

fn token(emulator: &mut GoogleEmulator, now: Timestamp, form: &str) -> Response {
    emulator.handle(now, &Request::post("/token", form))
}

fn list(emulator: &mut GoogleEmulator, now: Timestamp, access: &str) -> Response {
    let request = Request::get("/calendar/v3/calendars/primary/events")
        .with_header("authorization", format!("Bearer {access}"));
    emulator.handle(now, &request)
}

fn access(response: &Response) -> String {
    assert_eq!(response.status, 200);
    body(response)["access_token"].as_str().unwrap().to_owned()
}

fn oauth_refusal(response: &Response) -> (u16, String) {
    (
        response.status,
        body(response)["error"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn a_refresh_token_gives_access_for_an_hour() {
    let mut emulator = GoogleEmulator::new(settings(2, 3));
    let form = refresh_form(&emulator);
    let granted = token(&mut emulator, EPOCH, &form);
    assert_eq!(body(&granted)["expires_in"], 3_599);
    assert_eq!(body(&granted)["token_type"], "Bearer");
    assert!(
        body(&granted).get("refresh_token").is_none(),
        "they do not rotate"
    );
    let access = access(&granted);
    assert_eq!(list(&mut emulator, EPOCH, &access).status, 200);
    let last = EPOCH.plus_ms(3_599 * SECOND_MS);
    assert_eq!(list(&mut emulator, last.minus_ms(1), &access).status, 200);
    let refused = list(&mut emulator, last, &access);
    assert_eq!(refusal(&refused), (401, "authError".to_owned()));
    let other_path = Request::post("/oauth2/v4/token", form);
    assert_eq!(emulator.handle(last, &other_path).status, 200);
    assert_eq!(emulator.counters().token_requests, 2);
}

#[test]
fn strangers_are_not_let_in() {
    let mut emulator = GoogleEmulator::new(settings(2, 3));
    let nobody = Request::get("/calendar/v3/users/me/calendarList");
    assert_eq!(
        refusal(&emulator.handle(EPOCH, &nobody)),
        (401, "required".to_owned())
    );
    let good = access(&token(
        &mut emulator,
        EPOCH,
        &refresh_form(&GoogleEmulator::new(settings(2, 3))),
    ));
    for bad in [
        good.replace("ya29.u.0", "ya29.u.1"),
        format!("{good}0"),
        "ya29.x".to_owned(),
        "refresh-00001-0".to_owned(),
    ] {
        let refused = list(&mut emulator, EPOCH, &bad);
        assert_eq!(refusal(&refused), (401, "authError".to_owned()));
    }
    for (form, expected) in [
        ("", (400, "invalid_request")),
        ("grant_type=password", (400, "unsupported_grant_type")),
        ("grant_type=refresh_token", (400, "invalid_request")),
        (
            "grant_type=refresh_token&refresh_token=refresh-00009-00",
            (400, "invalid_grant"),
        ),
    ] {
        let refused = token(&mut emulator, EPOCH, form);
        assert_eq!(
            oauth_refusal(&refused),
            (expected.0, expected.1.to_owned()),
            "{form}"
        );
    }
}

#[test]
fn a_known_client_is_asked_for_its_secret() {
    let mut settings = settings(1, 3);
    settings.client = Some(OauthClient {
        id: "my app".to_owned(),
        secret: "s&t".to_owned(),
    });
    assert!(!format!("{settings:?}").contains("s&t"));
    let mut emulator = GoogleEmulator::new(settings);
    let form = refresh_form(&emulator);
    assert_eq!(token(&mut emulator, EPOCH, &form).status, 200);
    for bad in [
        form.replace("my+app", "other"),
        form.replace("s%26t", "guess"),
    ] {
        let refused = token(&mut emulator, EPOCH, &bad);
        assert_eq!(oauth_refusal(&refused), (401, "invalid_client".to_owned()));
    }
}

#[test]
fn a_revoked_user_is_out_until_connected_again() {
    let mut emulator = GoogleEmulator::new(settings(2, 3));
    let form = refresh_form(&emulator);
    let before = access(&token(&mut emulator, EPOCH, &form));
    emulator.revoke(ADA).unwrap();
    let refused = token(&mut emulator, EPOCH, &form);
    assert_eq!(oauth_refusal(&refused), (400, "invalid_grant".to_owned()));
    assert_eq!(list(&mut emulator, EPOCH, &before).status, 401);
    let later = EPOCH.plus_ms(1);
    emulator.restore(later, ADA).unwrap();
    assert_eq!(list(&mut emulator, later, &before).status, 401);
    let after = access(&token(&mut emulator, later, &form));
    assert_eq!(list(&mut emulator, later, &after).status, 200);
    let revoke = Request::post("/revoke", format!("token={after}"));
    assert_eq!(emulator.handle(later, &revoke).status, 200);
    assert_eq!(emulator.handle(later, &revoke).status, 400);
    assert_eq!(list(&mut emulator, later, &after).status, 401);
    assert!(emulator.revoke("nobody@example.com").is_err());
}

fn assertion(claims: &serde_json::Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = part(&claims.to_string());
    let jwt = format!(
        "{}.{claims}.{}",
        part("{\"alg\":\"RS256\"}"),
        part("signature")
    );
    format!("grant_type={JWT_GRANT}&assertion={jwt}")
}

#[test]
fn a_service_account_comes_in_for_a_user() {
    let mut settings = settings(1, 3);
    settings.service_account_issuer = Some("robot@example.com".to_owned());
    let mut emulator = GoogleEmulator::new(settings);
    let now_s = EPOCH.as_ms() / 1_000;
    let good = json!({"iss": "robot@example.com", "sub": ADA, "scope": "calendar",
        "iat": now_s, "exp": now_s + 3_600});
    let access = access(&token(&mut emulator, EPOCH, &assertion(&good)));
    assert_eq!(list(&mut emulator, EPOCH, &access).status, 200);
    for (name, value, status, error) in [
        ("iss", json!("else@example.com"), 401, "unauthorized_client"),
        ("sub", json!("else@example.com"), 400, "invalid_grant"),
        ("scope", json!(""), 400, "invalid_scope"),
        ("exp", json!(now_s + 3_601), 400, "invalid_grant"),
        ("exp", json!(now_s - 301), 400, "invalid_grant"),
        ("iat", json!(now_s + 301), 400, "invalid_grant"),
        ("iat", json!(i64::MIN), 400, "invalid_grant"),
        ("iat", json!(null), 400, "invalid_grant"),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        let refused = token(&mut emulator, EPOCH, &assertion(&claims));
        assert_eq!(
            oauth_refusal(&refused),
            (status, error.to_owned()),
            "{claims}"
        );
    }
    let rubbish = format!("grant_type={JWT_GRANT}&assertion=a.b");
    assert_eq!(token(&mut emulator, EPOCH, &rubbish).status, 400);
}

#[test]
fn quotas_count_users_and_whom_they_are_charged_to() {
    let mut settings = settings(2, 3);
    settings.quota = Some(QuotaSettings {
        per_user_per_minute: 2,
        per_project_per_minute: 5,
        answer: LimitAnswer::TooManyRequests,
        retry_after_s: Some(17),
    });
    let mut emulator = GoogleEmulator::new(settings);
    let request = events_request(&emulator);
    for _ in 0..2 {
        assert_eq!(emulator.handle(EPOCH, &request).status, 200);
    }
    let refused = emulator.handle(EPOCH, &request);
    assert_eq!(refusal(&refused), (429, "rateLimitExceeded".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("17"));
    let named = request.clone().with_query("quotaUser", "someone");
    assert_eq!(emulator.handle(EPOCH, &named).status, 200);
    // A service account that names nobody is one user for everybody.
    let now_s = EPOCH.as_ms() / 1_000;
    let mut statuses = Vec::new();
    for user in [
        "user-00001@example.com",
        "user-00002@example.com",
        "user-00002@example.com",
    ] {
        let claims = json!({"sub": user, "scope": "c", "iat": now_s, "exp": now_s + 60});
        let access = access(&token(&mut emulator, EPOCH, &assertion(&claims)));
        statuses.push(list(&mut emulator, EPOCH, &access).status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    let minute_later = EPOCH.plus_ms(60 * SECOND_MS);
    assert_eq!(emulator.handle(minute_later, &request).status, 200);
    assert_eq!(emulator.counters().statuses[&429], 2);
}
