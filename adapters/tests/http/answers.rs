//! Requests and answers: what is on the wire, and what is made of an answer that is late, cut, too large, redirected or
//! a refusal.

use std::sync::Arc;

use kalends_adapters::google::{GoogleAuth, GoogleCalendar, GoogleSettings};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{FailureKind, LimitScope};
use kalends_core::google::page::{FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::id::UserId;
use kalends_core::port::Source;

use super::scripted::{Reply, Request, Server, answer};
use super::world::*;

type Script = Box<dyn Fn() -> Reply + Send + Sync>;

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
    let scripts: [(&str, Script); 6] = [
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
