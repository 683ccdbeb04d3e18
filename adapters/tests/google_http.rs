//! The Google adapter against a scripted server on loopback: what it puts on the wire, and what it makes of answers that
//! are late, cut, too large, redirected or refusals.

#![allow(clippy::unwrap_used)] // a test's helpers are tests

mod scripted;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use kalends_adapters::google::{
    GoogleAuth, GoogleCalendar, GoogleSettings, RefreshTokens, ServiceAccountKey,
};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{Failure, FailureKind, LimitScope};
use kalends_core::google::page::{FetchReply, PageEnd};
use kalends_core::google::query::{EventsFrom, EventsQuery, FetchRequest};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Source;
use kalends_core::time::{Clock, Timestamp};
use scripted::{Reply, Request, Server, answer};

const TIMEOUT_MS: u64 = 10_000;
const NOW_MS: i64 = 1_777_881_600_000; // 2026-05-04T08:00:00Z
const PAGE: &str = r#"{"items":[{"id":"lunch1","summary":"Lunch"}],"nextSyncToken":"s1"}"#;
const PRIVATE_KEY: &str = include_str!("data/test_only_private_key.pem");
const PUBLIC_KEY: &str = include_str!("data/test_only_public_key.pem");

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// Everybody is connected but `stranger@example.com`.
struct Grants;

impl RefreshTokens for Grants {
    fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        let connected = user.as_str() != "stranger@example.com";
        connected.then(|| Secret::new("1//planted-refresh+token&"))
    }
}

struct World {
    server: Server,
    google: Arc<GoogleCalendar>,
    clock: Arc<TestClock>,
}

impl World {
    async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> World {
        let auth = GoogleAuth::RefreshTokens {
            client_id: "client-1.example".to_owned(),
            client_secret: Secret::new("planted-client-secret"),
            tokens: Arc::new(Grants),
        };
        World::with(auth, TIMEOUT_MS, script).await
    }

    async fn with(
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

    async fn fetch(&self) -> Result<FetchReply, Failure> {
        self.google
            .fetch(events("ada@example.com", "primary"))
            .await
    }

    async fn kind(&self) -> FailureKind {
        self.fetch().await.unwrap_err().kind
    }

    /// Requests to the API and to the token endpoint, as the server saw them; the adapter's counters agree.
    fn requests(&self) -> (u64, u64) {
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

fn events(user: &str, calendar: &str) -> FetchRequest {
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

fn token(text: &str) -> Reply {
    answer(
        200,
        "",
        format!(r#"{{"access_token":"{text}","expires_in":3600,"token_type":"Bearer"}}"#),
    )
}

/// A script that gives every user a token and answers each API request with `reply`.
fn granted(reply: impl Fn() -> Reply + Send + Sync) -> impl Fn(&Request) -> Reply + Send + Sync {
    move |request| {
        if request.is_token() {
            token("ya29.t")
        } else {
            reply()
        }
    }
}

fn transient(retry_after_ms: Option<u64>) -> FailureKind {
    FailureKind::Transient { retry_after_ms }
}

fn refusal(reason: &str) -> String {
    format!(r#"{{"error":{{"errors":[{{"reason":"{reason}"}}]}}}}"#)
}

async fn fetch_at_once(world: &World, count: usize) -> Vec<Result<FetchReply, Failure>> {
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

#[tokio::test]
async fn a_page_of_events_comes_back_and_the_request_is_as_google_wants_it() {
    let world = World::start(granted(|| answer(200, "", PAGE))).await;
    let calendar = "en.usa#holiday@group.v.calendar.google.com";
    let reply = world
        .google
        .fetch(events("ada@example.com", calendar))
        .await
        .unwrap();
    let FetchReply::Events(page) = reply else {
        panic!("events were asked for, not {reply:?}");
    };
    assert_eq!(page.events[0].summary.as_deref(), Some("Lunch"));
    let sync_token = Some("s1".to_owned());
    assert_eq!(page.end, PageEnd::Done { sync_token });

    let requests = world.server.requests();
    assert_eq!(requests[0].method, "POST");
    assert_eq!(
        requests[0].body,
        "grant_type=refresh%5Ftoken&client_id=client%2D1%2Eexample&client_secret=planted%2Dclient%2Dsecret\
         &refresh_token=1%2F%2Fplanted%2Drefresh%2Btoken%26"
    );
    assert!(
        requests[0]
            .head
            .contains("content-type: application/x-www-form-urlencoded")
    );
    let (path, query) = requests[1].target.split_once('?').unwrap();
    assert_eq!(
        path,
        "/calendar/v3/calendars/en.usa%23holiday%40group.v.calendar.google.com/events"
    );
    assert!(
        query.starts_with("maxResults=250&singleEvents=false&fields=kind%2Cetag"),
        "{query}"
    );
    assert!(
        query.ends_with("&syncToken=CPDA%2Bplanted%3Dsync%2Ftoken"),
        "{query}"
    );
    assert!(!query.contains("quotaUser"));
    assert_eq!(requests[1].bearer(), Some("ya29.t"));
    assert!(requests[1].head.contains("accept-encoding: gzip\r\n"));
    let agent = format!(
        "user-agent: kalends/{} (gzip)\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(requests[1].head.contains(&agent), "{}", requests[1].head);
}

#[tokio::test]
async fn the_list_of_calendars_comes_back() {
    let body = r#"{"items":[{"id":"ada@example.com","primary":true}],"nextPageToken":"p2"}"#;
    let world = World::start(granted(move || answer(200, "", body))).await;
    let user = UserId::new("ada@example.com").unwrap();
    let request = FetchRequest::Calendars {
        user,
        page_token: Some("p1".to_owned()),
    };
    let FetchReply::Calendars(page) = world.google.fetch(request).await.unwrap() else {
        panic!("calendars were asked for");
    };
    assert!(page.calendars[0].primary);
    assert_eq!(page.next_page_token.as_deref(), Some("p2"));
    let target = &world.server.requests()[1].target;
    assert!(
        target.starts_with("/calendar/v3/users/me/calendarList?maxResults=250&"),
        "{target}"
    );
    assert!(target.ends_with("&pageToken=p1"), "{target}");
}

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
async fn a_gzip_answer_is_read() {
    let world = World::start(granted(|| {
        answer(200, "content-encoding: gzip\r\n", gzip(PAGE.as_bytes()))
    }))
    .await;
    assert!(matches!(world.fetch().await, Ok(FetchReply::Events(page)) if page.events.len() == 1));
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let trap = Server::start(|_: &Request| answer(200, "", PAGE)).await;
    let location = format!("location: {}/trap\r\n", trap.address);
    for status in [301, 302, 307, 308] {
        let to = location.clone();
        let world = World::start(granted(move || answer(status, &to, ""))).await;
        assert_eq!(world.kind().await, transient(None), "{status}");
        let to = location.clone();
        let world = World::start(move |_: &Request| answer(status, &to, "")).await;
        assert_eq!(
            world.kind().await,
            transient(None),
            "{status} from the token endpoint"
        );
    }
    assert_eq!(trap.requests().len(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_a_bad_moment() {
    let cut = || {
        let Reply::Bytes(mut bytes) = answer(200, "", PAGE) else {
            unreachable!("answer() gives bytes")
        };
        bytes.truncate(bytes.len() - 10);
        bytes
    };
    let short_gzip = || {
        let gzip = gzip(PAGE.as_bytes());
        answer(200, "content-encoding: gzip\r\n", &gzip[..gzip.len() / 2])
    };
    let scripts: [(&str, Box<dyn Fn() -> Reply + Send + Sync>); 6] = [
        ("broke off", Box::new(move || Reply::Bytes(cut()))),
        ("broke off", Box::new(short_gzip)),
        ("gave no answer", Box::new(|| Reply::Bytes(Vec::new()))),
        (
            "gave no answer",
            Box::new(|| Reply::Bytes(b"nonsense\r\n\r\n".to_vec())),
        ),
        ("not a page", Box::new(|| answer(200, "", "<html>"))),
        ("not a page", Box::new(|| answer(200, "", &PAGE[..20]))),
    ];
    for (words, script) in scripts {
        let world = World::start(granted(script)).await;
        let failure = world.fetch().await.unwrap_err();
        assert_eq!(failure.kind, transient(None), "{failure}");
        assert!(failure.detail.contains(words), "{words}: {failure}");
        assert_eq!(world.requests(), (1, 1), "a request is sent once");
    }
}

#[tokio::test]
async fn a_slow_answer_ends_with_the_timeout() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n{\"items\":".to_vec();
    for bytes in [half, Vec::new()] {
        let script = granted(move || Reply::Hang(bytes.clone()));
        let auth = GoogleAuth::RefreshTokens {
            client_id: String::new(),
            client_secret: Secret::new(""),
            tokens: Arc::new(Grants),
        };
        let world = World::with(auth, 400, script).await;
        let failure = world.fetch().await.unwrap_err();
        assert_eq!(failure.kind, transient(None));
        assert!(failure.detail.contains("within 400 ms"), "{failure}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_short() {
    // 70 MiB of blanks in 70 KiB: what counts is the size after decompression.
    let bomb = gzip(&vec![b' '; 70 * 1024 * 1024]);
    let world = World::start(granted(move || {
        answer(200, "content-encoding: gzip\r\n", &bomb)
    }))
    .await;
    let failure = world.fetch().await.unwrap_err();
    assert_eq!(failure.kind, transient(None));
    assert!(
        failure.detail.contains("more than 67108864 bytes"),
        "{failure}"
    );

    // A refusal is understood by its status, however long it is.
    let world = World::start(granted(|| answer(404, "", vec![b'x'; 1024 * 1024]))).await;
    assert_eq!(world.kind().await, FailureKind::CalendarUnavailable);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_bad_moment() {
    let world = World::start(granted(|| answer(200, "", PAGE))).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let settings = GoogleSettings {
        api_base_url: nobody,
        token_url: format!("{}/token", world.server.address),
        request_timeout_ms: TIMEOUT_MS,
        auth: GoogleAuth::ServiceAccount(service_account()),
    };
    let google = GoogleCalendar::new(settings, world.clock.clone()).unwrap();
    let failure = google
        .fetch(events("ada@example.com", "primary"))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, transient(None));
    assert!(
        failure
            .detail
            .contains("cannot be reached: Connection refused"),
        "{failure}"
    );
}

#[tokio::test]
async fn refusals_are_told_apart_and_the_wish_to_wait_is_heard() {
    let html = "<!DOCTYPE html><title>Error 502</title>";
    for (status, headers, body, kind) in [
        (
            502,
            "content-type: text/html\r\n",
            html.to_owned(),
            transient(None),
        ),
        (
            503,
            "retry-after: 120\r\n",
            String::new(),
            transient(Some(120_000)),
        ),
        (
            503,
            "retry-after: Mon, 04 May 2026 08:00:45 GMT\r\n",
            String::new(),
            transient(Some(45_000)),
        ),
        (
            503,
            "retry-after: in a while\r\n",
            String::new(),
            transient(None),
        ),
        (
            410,
            "",
            refusal("fullSyncRequired"),
            FailureKind::Gone { malformed: false },
        ),
        (
            404,
            "",
            refusal("notFound"),
            FailureKind::CalendarUnavailable,
        ),
        (
            429,
            "retry-after: 3\r\n",
            refusal("userRateLimitExceeded"),
            FailureKind::Limited {
                scope: LimitScope::User,
                retry_after_ms: Some(3_000),
            },
        ),
        (204, "", String::new(), transient(None)),
    ] {
        let world = World::start(granted(move || answer(status, headers, &body))).await;
        assert_eq!(world.kind().await, kind, "{status} {headers}");
        assert_eq!(world.requests(), (1, 1), "a refusal is not asked again");
    }
}

fn service_account() -> ServiceAccountKey {
    let json = serde_json::json!({
        "type": "service_account",
        "client_email": "robot@project.example.com",
        "private_key": PRIVATE_KEY,
        "private_key_id": "key-7",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    ServiceAccountKey::from_json(json.to_string().as_bytes()).unwrap()
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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
