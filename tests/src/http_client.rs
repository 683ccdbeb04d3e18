//! One GET, as a supervisor would send it, with whatever `Host` a test likes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::process::PATIENCE;

/// All of the answer to `GET path` at `address`, under the host name `host`, as text.
///
/// # Panics
/// If nobody answers there.
pub(crate) fn text_as(host: &str, address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens there");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out above zero is accepted");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("a request of one line fits");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer is text");
    answer
}

/// The status and the JSON of `GET path` at `address` (`127.0.0.1:PORT`), under the host name `host`.
///
/// # Panics
/// If nobody answers there, or not in JSON.
#[must_use]
pub fn get_as(host: &str, address: &str, path: &str) -> (u16, Value) {
    let answer = text_as(host, address, path);
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer:?}"));
    (status, body)
}

/// As [`get_as`], under the address itself.
#[must_use]
pub fn get(address: &str, path: &str) -> (u16, Value) {
    get_as(address, address, path)
}
