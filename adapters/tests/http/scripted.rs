//! A tiny HTTP/1.1 server whose answers a test writes itself, byte by byte if need be: cut, slow, oversized or absent.
//!
//! One request a connection. Every request is kept as it came, so that a test can look at what was on the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a slow answer keeps its connection open; longer than any test's request timeout.
const HANG: Duration = Duration::from_secs(120);
/// The largest request head that is read, in bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// The path and query, not decoded.
    pub(crate) target: String,
    /// The whole head, in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

impl Request {
    /// Whether it is for the token endpoint.
    pub(crate) fn is_token(&self) -> bool {
        self.target == "/token"
    }

    /// The bearer token, in lower case.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (_, rest) = self.head.split_once("authorization: bearer ")?;
        rest.split("\r\n").next()
    }
}

/// What the server does with a connection after it has read a request.
pub(crate) enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes and then nothing for a long time.
    Hang(Vec<u8>),
    /// Sends these bytes and then blanks, until the client has enough.
    Endless(Vec<u8>),
}

/// An answer with `status`, more header lines (each ending in CR LF) and a body.
pub(crate) fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// A server on a loopback port of its own.
pub(crate) struct Server {
    /// `http://127.0.0.1:port`
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts a server that answers with what `script` returns.
    pub(crate) async fn start(
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                tokio::spawn(async move { serve(stream, &*script, &seen).await });
            }
        });
        Server { address, requests }
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &(impl Fn(&Request) -> Reply + ?Sized),
    seen: &Mutex<Vec<Request>>,
) {
    let Some(request) = read(&mut stream).await else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    // The client may close before it has read all (an oversized body): that is its right.
    match script(&request) {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            tokio::time::sleep(HANG).await;
        }
        Reply::Endless(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(&[b' '; 64 * 1024]).await.is_ok() {}
        }
    }
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let (head_length, body_length) = loop {
        if bytes.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .split("\r\n")
                .find_map(|line| line.strip_prefix("content-length: "));
            break (end + 4, length.map_or(0, |length| length.parse().unwrap()));
        }
    };
    while bytes.len() < head_length + body_length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&bytes[..head_length]).into_owned();
    let mut words = head.split(' ');
    Some(Request {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        head: head.to_lowercase(),
        body: String::from_utf8_lossy(&bytes[head_length..]).into_owned(),
    })
}
