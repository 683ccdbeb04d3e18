//! The page at which users consent, and the codes that come back from it.

use kalends_core::time::{MINUTE_MS, Timestamp};
use kalends_sim::google::{GoogleEmulator, OauthClient};
use kalends_sim::http::{Request, Response};

use crate::client::{ADA, EPOCH, body, settings};

/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:4711/";
const SCOPE: &str = "https://www.googleapis.com/auth/calendar.readonly";

fn asked(without: &str) -> Request {
    let all = [
        ("response_type", "code"),
        ("client_id", "my app"),
        ("redirect_uri", REDIRECT),
        ("scope", SCOPE),
        ("state", "a state"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("access_type", "offline"),
        ("login_hint", ADA),
    ];
    let given = all.into_iter().filter(|(name, _)| *name != without);
    given.fold(
        Request::get("/o/oauth2/v2/auth"),
        |request, (name, value)| request.with_query(name, value),
    )
}

/// The code of an answer, still encoded.
fn code(response: &Response) -> String {
    assert_eq!(response.status, 302);
    let place = response.header("location").unwrap();
    let rest = place.strip_prefix("http://127.0.0.1:4711/?code=").unwrap();
    assert!(rest.ends_with("&state=a%20state"), "{place}");
    rest.split('&').next().unwrap().to_owned()
}

fn exchange(
    emulator: &mut GoogleEmulator,
    now: Timestamp,
    code: &str,
    change: (&str, &str),
) -> Response {
    let mut form = format!(
        "grant_type=authorization_code&code={code}&client_id=my+app&client_secret=s%26t&code_verifier={VERIFIER}\
         &redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2F"
    );
    form = form.replace(change.0, change.1);
    emulator.handle(now, &Request::post("/token", form))
}

fn refresh(emulator: &mut GoogleEmulator, now: Timestamp, token: &str) -> u16 {
    let form = format!(
        "grant_type=refresh_token&refresh_token={token}&client_id=my+app&client_secret=s%26t"
    );
    emulator.handle(now, &Request::post("/token", form)).status
}

fn token(response: &Response) -> String {
    assert_eq!(
        response.status,
        200,
        "{}",
        String::from_utf8_lossy(&response.body)
    );
    body(response)["refresh_token"].as_str().unwrap().to_owned()
}

#[test]
fn a_code_is_good_once_for_whoever_knows_its_verifier() {
    let mut emulator = GoogleEmulator::new(settings(2, 1));
    let answer = emulator.handle(EPOCH, &asked(""));
    let code_text = code(&answer);
    let granted = exchange(&mut emulator, EPOCH, &code_text, ("", ""));
    assert_eq!(body(&granted)["scope"], SCOPE);
    let refresh_token = token(&granted);
    assert_eq!(refresh(&mut emulator, EPOCH, &refresh_token), 200);
    assert_eq!(
        exchange(&mut emulator, EPOCH, &code_text, ("", "")).status,
        400
    );

    // Whoever stole it has spoilt it.
    for change in [
        (VERIFIER, "another-verifier"),
        ("&code_verifier=", "&no="),
        ("%3A4711", "%3A4712"),
        ("my+app", "another"),
    ] {
        let answer = emulator.handle(EPOCH, &asked(""));
        let stolen = code(&answer);
        assert_eq!(
            exchange(&mut emulator, EPOCH, &stolen, change).status,
            400,
            "{change:?}"
        );
        assert_eq!(
            exchange(&mut emulator, EPOCH, &stolen, ("", "")).status,
            400,
            "{change:?}"
        );
    }
    let answer = emulator.handle(EPOCH, &asked(""));
    let old = code(&answer);
    let later = EPOCH.plus_ms(10 * MINUTE_MS);
    assert_eq!(exchange(&mut emulator, later, &old, ("", "")).status, 400);

    let answer = emulator.handle(EPOCH, &asked("access_type"));
    let online = code(&answer);
    let granted = exchange(&mut emulator, EPOCH, &online, ("", ""));
    assert!(body(&granted).get("refresh_token").is_none());
}

#[test]
fn a_new_consent_brings_a_revoked_user_back_and_no_older_token() {
    let mut emulator = GoogleEmulator::new(settings(2, 1));
    let first = emulator.users().next().unwrap().refresh_token;
    let connect = |emulator: &mut GoogleEmulator| {
        let answer = emulator.handle(EPOCH, &asked(""));
        let code = code(&answer);
        token(&exchange(emulator, EPOCH, &code, ("", "")))
    };
    let second = connect(&mut emulator);
    assert_ne!(first, second);
    assert_eq!(refresh(&mut emulator, EPOCH, &first), 200, "both live");
    emulator.revoke(ADA).unwrap();
    assert_eq!(refresh(&mut emulator, EPOCH, &second), 400);
    let third = connect(&mut emulator);
    assert_eq!(refresh(&mut emulator, EPOCH, &third), 200);
    for dead in [&first, &second] {
        assert_eq!(refresh(&mut emulator, EPOCH, dead), 400);
    }
    let other = emulator.users().nth(1).unwrap().refresh_token;
    assert_eq!(refresh(&mut emulator, EPOCH, &other), 200);
}

#[test]
fn what_is_asked_wrongly_goes_nowhere() {
    let mut settings = settings(2, 1);
    settings.client = Some(OauthClient {
        id: "my app".to_owned(),
        secret: "s&t".to_owned(),
    });
    let mut emulator = GoogleEmulator::new(settings);
    for without in [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "code_challenge_method",
    ] {
        let answer = emulator.handle(EPOCH, &asked(without));
        assert_eq!(answer.status, 400, "{without}");
    }
    let elsewhere =
        asked("redirect_uri").with_query("redirect_uri", "http://127.0.0.1.example.com/");
    assert_eq!(emulator.handle(EPOCH, &elsewhere).status, 400);
    let another = asked("client_id").with_query("client_id", "another");
    assert_eq!(emulator.handle(EPOCH, &another).status, 400);

    let page = emulator.handle(EPOCH, &asked("login_hint"));
    assert_eq!(page.status, 200);
    let page = String::from_utf8(page.body).unwrap();
    assert!(
        page.contains("user-00001@example.com") && page.contains("login_hint="),
        "{page}"
    );
    let denied = emulator.handle(EPOCH, &asked("").with_query("emulate", "deny"));
    assert_eq!(
        denied.header("location"),
        Some("http://127.0.0.1:4711/?error=access%5Fdenied&state=a%20state")
    );
    assert_eq!(emulator.counters().consents_asked, 9);
}
