//! How long a client may take: each bound by itself, shortened, beside others so long that the test would see them missing.

use std::sync::Arc;
use std::time::Duration;

use kalends::web::{Bounds, WebSettings};
use kalends_core::queue::command::{Command, Reply};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Answer;
use crate::face::{Face, Mute, TOKEN, start_over};

/// A bound that is tried, in milliseconds.
const SHORT_MS: u64 = 100;
/// A bound that nothing in these tests may need, in milliseconds.
const LONG_MS: u64 = 3_600_000;
/// Then a client was not cut off: far longer than the one bound, far shorter than all others.
const PATIENCE: Duration = Duration::from_secs(60);

const UNBOUNDED: Bounds = Bounds {
    head_ms: LONG_MS,
    body_ms: LONG_MS,
    request_ms: LONG_MS,
    connection_ms: LONG_MS,
    stream_ms: LONG_MS,
};

/// Half of a request that is good as far as it goes: 99 bytes of its body are missing.
fn half_a_request(address: std::net::SocketAddr) -> String {
    format!(
        "POST /api/v1/pause HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    )
}

/// Sends `bytes`, then waits without a word; all that comes back until the server ends the connection.
async fn wait_it_out(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await;
    // A connection that is reset is ended, too.
    let _ = read.expect("the server cuts the client off");
    String::from_utf8(text).unwrap()
}

async fn face(bounds: Bounds) -> Face {
    Face::start_with(|settings| settings.bounds = bounds).await
}

#[test]
fn the_bounds_are_those_that_are_promised() {
    let Bounds {
        head_ms,
        body_ms,
        request_ms,
        connection_ms,
        stream_ms,
    } = WebSettings::BOUNDS;
    assert_eq!((head_ms, body_ms, request_ms), (5_000, 5_000, 15_000));
    assert_eq!((connection_ms, stream_ms), (60_000, 900_000));
}

#[tokio::test]
async fn half_a_head_is_cut_off() {
    let face = face(Bounds {
        head_ms: SHORT_MS,
        ..UNBOUNDED
    })
    .await;
    for half in ["", "GET /api/v1/sta", "GET / HTTP/1.1\r\nHost: loc"] {
        let text = wait_it_out(face.address, half.as_bytes()).await;
        assert!(!text.contains(" 200 "), "{text}");
    }
    face.get("/readyz").await.expect(200);
}

#[tokio::test]
async fn half_a_body_is_refused_and_changes_nothing() {
    let face = face(Bounds {
        body_ms: SHORT_MS,
        ..UNBOUNDED
    })
    .await;
    let text = wait_it_out(face.address, half_a_request(face.address).as_bytes()).await;
    let answer = Answer::parse(&text).expect(408);
    assert!(answer.body.contains("within 100 ms"), "{answer:?}");
    // The store is asked without the face, whose bound is too short for a busy machine.
    let Reply::Stats { stats } = face.apply(Command::Stats).await else {
        panic!("not stats");
    };
    assert_eq!(stats.sources[0].1.paused, None, "{stats:?}");
}

/// The bound of the whole request holds by itself, whatever it is that takes so long.
#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_all_the_same() {
    let bounds = Bounds {
        request_ms: SHORT_MS,
        ..UNBOUNDED
    };
    let face = face(bounds).await;
    let text = wait_it_out(face.address, half_a_request(face.address).as_bytes()).await;
    let answer = Answer::parse(&text).expect(503);
    assert!(answer.body.contains("took too long"), "{answer:?}");
    let status = face.status().await;
    assert_eq!(status["sources"][0]["paused"], json!(null), "{status}");

    let (address, serving) = start_over(Arc::new(Mute), bounds).await;
    let ask =
        format!("GET /api/v1/status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let text = wait_it_out(address, ask.as_bytes()).await;
    let answer = Answer::parse(&text).expect(503);
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    serving.abort();
}

#[tokio::test]
async fn a_connection_ends_however_well_it_is_used() {
    let face = face(Bounds {
        connection_ms: SHORT_MS,
        stream_ms: 2 * SHORT_MS,
        ..UNBOUNDED
    })
    .await;
    // It stays open after an answer, as HTTP/1.1 has it.
    let ask = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", face.address);
    wait_it_out(face.address, ask.as_bytes()).await;
    // So does a stream, in its turn.
    let ask = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n\r\n",
        face.address
    );
    wait_it_out(face.address, ask.as_bytes()).await;
}
