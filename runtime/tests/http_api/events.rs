//! The live status, and what a store that is away comes to.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{raw, request};
use crate::face::{Face, start_away};

/// For whatever a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a stream until `wanted` has come.
async fn read_until(stream: &mut TcpStream, seen: &mut String, wanted: &str) {
    let read = async {
        let mut bytes = [0; 4_096];
        while !seen.contains(wanted) {
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the stream ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    read.unwrap_or_else(|_| panic!("waited in vain for {wanted}"));
}

async fn listen(face: &Face) -> TcpStream {
    let mut stream = TcpStream::connect(face.address).await.unwrap();
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n\r\n",
        face.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn listeners_hear_of_a_change() {
    let face = Face::start().await;
    let mut stream = listen(&face).await;
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "\n\n").await;
    read_until(&mut stream, &mut seen, "event: status\ndata: {").await;
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(!seen.contains("planned works"), "{seen}");
    face.change(
        "POST",
        "/api/v1/pause",
        &json!({ "reason": "planned works" }),
    )
    .await
    .expect(200);
    read_until(&mut stream, &mut seen, "planned works").await;
}

#[tokio::test]
async fn listeners_are_bounded_and_their_places_come_back() {
    let face = Face::start().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = listen(&face).await;
        let mut seen = String::new();
        read_until(&mut stream, &mut seen, "data: {").await;
        streams.push(stream);
    }
    let refused = face.get("/api/v1/events").await.expect(503);
    assert!(refused.body.contains("16 listen already"), "{refused:?}");
    drop(streams);
    let come_back = async {
        loop {
            let mut stream = listen(&face).await;
            let mut bytes = [0; 15];
            stream.read_exact(&mut bytes).await.unwrap();
            if &bytes == b"HTTP/1.1 200 OK" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, come_back).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_is_told_and_hurts_nothing_else() {
    let (address, server) = start_away().await;
    let host = format!("Host: {address}");
    let ask = async |path: &str| raw(address, &request("GET", path, &[&host], b"")).await;
    for path in [
        "/api/v1/status",
        "/api/v1/users",
        "/api/v1/users/ada",
        "/api/v1/jobs?state=failed",
    ] {
        let answer = ask(path).await.expect(503);
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
        assert!(answer.body.contains("the cable is out"), "{answer:?}");
    }
    for path in ["/", "/healthz", "/metrics", "/api/v1/openapi.json"] {
        ask(path).await.expect(200);
    }
    let metrics = ask("/metrics").await.body;
    assert!(metrics.contains("\nkalends_store_up 0\n"), "{metrics}");
    assert!(!metrics.contains("kalends_users"), "{metrics}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let asked = format!("GET /api/v1/events HTTP/1.1\r\n{host}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut seen = String::new();
    read_until(
        &mut stream,
        &mut seen,
        "\"store_away\":\"the cable is out\"",
    )
    .await;
    server.abort();
}
