//! One request on a connection of its own, as a supervisor or a program would send it, with whatever head a test likes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::process::{PATIENCE, wait_until};

/// The status of who has asked too often.
const TOO_MANY_REQUESTS: u16 = 429;

/// All of the answer at `address` to `METHOD path` with these header lines and this body, as text.
///
/// # Panics
/// If nobody answers there.
pub(crate) fn text_of(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> String {
    let mut stream = send(address, method, path, headers, body);
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer is text");
    answer
}

fn send(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("somebody listens there");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out above zero is accepted");
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .expect("a small request fits");
    stream
}

/// What comes first of an answer that does not end, a stream of events say: up to the piece in which `wanted` is there.
///
/// # Panics
/// If nobody answers there, or it ends before.
#[must_use]
pub fn listen(address: &str, path: &str, wanted: &str) -> String {
    let mut stream = send(address, "GET", path, &[&format!("Host: {address}")], "");
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let count = stream.read(&mut piece).expect("the answer goes on");
        assert!(count > 0, "it ended without {wanted:?}");
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(wanted) {
            return text.into_owned();
        }
    }
}

/// The status and the body that are answered to `METHOD path` with these header lines (`Host` is one of them) and this body.
///
/// # Panics
/// If nobody answers there.
#[must_use]
pub fn ask(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let answer = text_of(address, method, path, headers, body);
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (status, body.to_owned())
}

/// As [`ask`], of the API, under the address itself and with its token. Tests that wait for something ask more often than a process
/// lets anybody ask: then it is asked again.
///
/// # Panics
/// If nobody answers there, or it is asked too often for longer than [`PATIENCE`].
#[must_use]
pub fn ask_api(address: &str, token: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let headers = [
        &format!("Host: {address}"),
        &format!("Authorization: Bearer {token}"),
        "Content-Type: application/json",
    ];
    let mut answer = (TOO_MANY_REQUESTS, String::new());
    wait_until("leave to ask", || {
        answer = ask(address, method, path, &headers, body);
        answer.0 != TOO_MANY_REQUESTS
    });
    answer
}

/// The status and the JSON of `GET path` at `address` (`127.0.0.1:PORT`), under the host name `host`.
///
/// # Panics
/// If nobody answers there, or not in JSON.
#[must_use]
pub fn get_as(host: &str, address: &str, path: &str) -> (u16, Value) {
    let (status, body) = ask(address, "GET", path, &[&format!("Host: {host}")], "");
    let body = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body:?}"));
    (status, body)
}

/// As [`get_as`], under the address itself.
#[must_use]
pub fn get(address: &str, path: &str) -> (u16, Value) {
    get_as(address, address, path)
}
