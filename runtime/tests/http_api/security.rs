//! Who is let in, and what is cut off.

use std::time::Duration;

use kalends::web::Rate;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{connect_from, raw, raw_on, request};
use crate::face::{Face, TOKEN};

const PAUSE: &str = "/api/v1/pause";

#[tokio::test]
async fn a_change_needs_the_token() {
    let face = Face::start().await;
    let host = format!("Host: {}", face.address);
    let json = "Content-Type: application/json";
    let wrong = format!("Authorization: Bearer {TOKEN}x");
    let basic = format!("Authorization: Basic {TOKEN}");
    for headers in [
        &[&*host, json][..],
        &[&host, json, &wrong],
        &[&host, json, &basic],
    ] {
        let sent = request("POST", PAUSE, headers, br#"{"reason":"x"}"#);
        let refused = raw(face.address, &sent).await.expect(401);
        assert!(
            refused.head.contains("www-authenticate: bearer realm="),
            "{refused:?}"
        );
        assert!(!refused.body.contains("planted"), "{refused:?}");
    }
    // A wrong token is told even where none is needed.
    let sent = request("GET", "/api/v1/status", &[&host, &wrong], b"");
    raw(face.address, &sent).await.expect(401);
    assert_eq!(face.status().await["sources"][0]["paused"], json!(null));
    face.change("POST", PAUSE, &json!({ "reason": "x" }))
        .await
        .expect(200);
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed_and_that_is_said() {
    let face = Face::start_with(|settings| settings.token = None).await;
    face.get("/api/v1/status").await.expect(200);
    let host = format!("Host: {}", face.address);
    let sent = request("POST", PAUSE, &[&host], b"{}");
    let refused = raw(face.address, &sent).await.expect(403);
    assert!(refused.body.contains("http.token_file"), "{refused:?}");
    let status = face.status().await;
    assert_eq!(status["process"]["can_change"], false, "{status}");
}

#[tokio::test]
async fn an_address_that_others_reach_needs_the_token_for_all_that_holds_data() {
    // What counts is what the face was told, so that the test needs no other network.
    let face = Face::start_with(|settings| {
        settings.address = "192.0.2.1:7878".parse().unwrap();
    })
    .await;
    for path in [
        "/api/v1/status",
        "/api/v1/users",
        "/api/v1/jobs?state=failed",
        "/api/v1/events",
        "/api/v1/openapi.json",
        "/metrics",
        "/nowhere",
    ] {
        face.get(path).await.expect(401);
    }
    for path in ["/", "/app.js", "/app.css", "/healthz", "/readyz"] {
        face.get(path).await.expect(200);
    }
    let host = format!("Host: {}", face.address);
    let token = format!("Authorization: Bearer {TOKEN}");
    for path in ["/api/v1/status", "/metrics"] {
        let sent = request("GET", path, &[&host, &token], b"");
        raw(face.address, &sent).await.expect(200);
    }
    // Strangers hear that it is away and not what the store said.
    face.readiness
        .send_replace(kalends::handle::Readiness::StoreAway {
            since: kalends_core::time::Timestamp::EPOCH,
            detail: "planted detail".to_owned(),
            retry_at: kalends_core::time::Timestamp::EPOCH,
        });
    let away = face.get("/readyz").await;
    assert_eq!(
        (away.status, &away.json()["state"]),
        (503, &json!("store_away"))
    );
    assert!(!away.body.contains("planted"), "{away:?}");
}

#[tokio::test]
async fn only_served_host_names_are_answered() {
    let face = Face::start().await;
    let ask = async |headers: &[&str], path: &str| {
        raw(face.address, &request("GET", path, headers, b"")).await
    };
    for path in ["/api/v1/status", "/healthz", "/"] {
        for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", ""] {
            ask(&[&format!("Host: {host}")], path).await.expect(421);
        }
        ask(&[], path).await.expect(421);
        ask(&["Host: kalends.example.com"], path).await.expect(200);
    }
    // The name in the request line counts, too.
    let both = ask(&["Host: localhost"], "http://evil.example/api/v1/status").await;
    both.expect(421);
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_must_not_do() {
    let face = Face::start().await;
    for path in ["/", "/app.js", "/api/v1/status", "/nowhere"] {
        let answer = face.get(path).await;
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-",
        ] {
            assert!(answer.head.contains(header), "{path}: {header}: {answer:?}");
        }
        assert!(!answer.head.contains("access-control-"), "{answer:?}");
        assert!(!answer.head.contains("unsafe-"), "{answer:?}");
    }
    // No way round for a page from elsewhere: no preflight is answered well.
    let host = format!("Host: {}", face.address);
    let preflight = request(
        "OPTIONS",
        PAUSE,
        &[&host, "Origin: http://evil.example"],
        b"",
    );
    let refused = raw(face.address, &preflight).await.expect(401);
    assert!(!refused.head.contains("access-control-"), "{refused:?}");
}

#[tokio::test]
async fn a_form_cannot_change_anything() {
    let face = Face::start().await;
    let host = format!("Host: {}", face.address);
    let token = format!("Authorization: Bearer {TOKEN}");
    for kind in [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: text/plain",
        "Content-Type: application/jsonp",
        "X-None: 1",
    ] {
        let headers = [&*host, &*token, kind];
        let sent = request("POST", PAUSE, &headers, br#"{"reason":"x"}"#);
        raw(face.address, &sent).await.expect(415);
    }
}

#[tokio::test]
async fn large_bodies_and_long_addresses_are_cut_off() {
    let face = Face::start().await;
    let large = json!({ "reason": "x".repeat(20_000) });
    face.change("POST", PAUSE, &large).await.expect(413);
    // Also one that does not say how long it is.
    let host = format!("Host: {}", face.address);
    let mut chunked = format!(
        "POST {PAUSE} HTTP/1.1\r\n{host}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for _ in 0..20 {
        chunked.push_str(&format!("400\r\n{}\r\n", " ".repeat(1_024)));
    }
    chunked.push_str("0\r\n\r\n");
    raw(face.address, chunked.as_bytes()).await.expect(413);
    let long = format!("/api/v1/users?prefix={}", "x".repeat(5_000));
    face.get(&long).await.expect(414);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let face = Face::start().await;
    let head = format!(
        "POST {PAUSE} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        face.address
    );
    let mut stream = TcpStream::connect(face.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    // Far more than the bound on a body: this ends because the server ends it.
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut text));
    read.await.expect("the server gives up").unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_probes_are_not() {
    let face = Face::start_with(|settings| {
        settings.requests = Rate {
            burst: 5,
            a_second: 1,
        };
    })
    .await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = face.get("/api/v1/openapi.json").await;
        if answer.status == 429 {
            assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
            answer.expect(429);
            refused += 1;
        }
        face.get("/healthz").await.expect(200);
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn changes_have_a_rate_of_their_own_and_reading_goes_on() {
    let face = Face::start_with(|settings| {
        settings.changes = Rate {
            burst: 5,
            a_second: 1,
        };
    })
    .await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = face.change("POST", "/api/v1/resume", &json!({})).await;
        if answer.status == 429 {
            refused += 1;
        } else {
            answer.expect(200);
        }
        face.get("/api/v1/status").await.expect(200);
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn idle_clients_keep_nobody_out() {
    let face = Face::start().await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(face.address).await.unwrap());
    }
    // Answered as soon as the idle ones have run out of time.
    face.get("/readyz").await.expect(200);
}

#[tokio::test]
async fn one_address_with_all_the_connections_it_may_have_leaves_the_others_theirs() {
    let face = Face::start_with(|settings| settings.connections_per_address_max = Some(1)).await;
    // A stream of events is not cut off for many minutes.
    let mut patient = connect_from(2, face.address).await;
    let host = format!("Host: {}", face.address);
    let listen = format!("GET /api/v1/events HTTP/1.1\r\n{host}\r\n\r\n");
    patient.write_all(listen.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    patient.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    for _ in 0..70 {
        let refused = raw_on(connect_from(2, face.address).await, b"").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.head.contains("retry-after: "), "{refused:?}");
    }
    face.get("/readyz").await.expect(200);
    // Its place is free again when it ends.
    drop(patient);
    let ready = request("GET", "/readyz", &[&host], b"");
    let given_back = async {
        while raw_on(connect_from(2, face.address).await, &ready)
            .await
            .status
            != 200
        {
            tokio::task::yield_now().await;
        }
    };
    let given_back = tokio::time::timeout(Duration::from_secs(60), given_back).await;
    assert!(given_back.is_ok(), "its place is not given back");
}

#[tokio::test]
async fn hostile_text_leaves_as_json_only() {
    let face = Face::start().await;
    let script = "<script>alert(1)</script>";
    face.enroll(&["a\"><img src=x onerror=alert(1)>"]).await;
    face.fail("a\"><img src=x onerror=alert(1)>", script).await;
    for path in [
        "/api/v1/status",
        "/api/v1/jobs?state=failed",
        "/api/v1/users",
    ] {
        let answer = face.get(path).await.expect(200);
        assert!(
            answer.head.contains("content-type: application/json"),
            "{answer:?}"
        );
        answer.json();
    }
    let failed = face.get("/api/v1/jobs?state=failed").await.json();
    assert_eq!(failed["jobs"][0]["error"], script, "{failed}");
    // The page itself holds no data, and no script of its own beside the file.
    let page = face.get("/").await;
    assert!(!page.body.contains("alert("), "{page:?}");
    let script = face.get("/app.js").await.body;
    for unsafe_way in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
    ] {
        assert!(!script.contains(unsafe_way), "{unsafe_way}");
    }
    let inline = ["<script>", "style=", "onclick=", "onload=", "javascript:"];
    assert!(
        inline.iter().all(|way| !page.body.contains(way)),
        "{page:?}"
    );
    let outside = ["http://", "https://", "//cdn"];
    assert!(
        outside.iter().all(|way| !page.body.contains(way)),
        "{page:?}"
    );
}

#[tokio::test]
async fn no_answer_holds_the_token_the_cursor_or_the_grant() {
    let face = Face::start().await;
    face.enroll(&["ada"]).await;
    face.fail("ada", "planned trouble").await;
    for path in [
        "/api/v1/status",
        "/api/v1/users",
        "/api/v1/users/ada",
        "/api/v1/jobs?state=failed",
        "/metrics",
        "/readyz",
    ] {
        let answer = face.get(path).await.expect(200);
        assert!(!answer.body.contains(TOKEN), "{answer:?}");
        assert!(!answer.body.contains("\"cursor\""), "{answer:?}");
        assert!(!answer.body.contains("\"grant\""), "{answer:?}");
    }
    let metrics = face.get("/metrics").await;
    assert!(!metrics.body.contains("ada"), "{metrics:?}");
}
