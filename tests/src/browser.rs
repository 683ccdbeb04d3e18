//! A browser as far as a consent needs one: it asks for an address and follows where it is sent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::process::PATIENCE;

/// The answer to `GET url`, an `http` address with a port: the status, where it leads, and all of it as text.
///
/// # Panics
/// If nobody answers there.
#[must_use]
pub fn visit(url: &str) -> (u16, Option<String>, String) {
    let rest = url.strip_prefix("http://").expect("an http address");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(authority).expect("somebody listens there");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out above zero is accepted");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("a request of one line fits");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer is text");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let place = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_place = name.eq_ignore_ascii_case("location");
        is_place.then(|| value.trim().to_owned())
    });
    (status.unwrap_or_default(), place, answer)
}
