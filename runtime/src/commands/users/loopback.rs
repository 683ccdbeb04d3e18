//! The address of this machine to which the browser comes back: one request is waited for, bounded on every side.
//!
//! Whoever else asks here (a browser's own wishes, a program that tries ports) gets a refusal and ends nothing: only the
//! answer that carries this consent's state counts.

use std::time::Duration;

use kalends_core::time::SECOND_MS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::failed;
use crate::wiring::Refused;

/// The longest head of a request, in bytes: a code and what else Google sends have a few hundred.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A head must be there within this time, in milliseconds.
const HEAD_MS_MAX: u64 = 5 * SECOND_MS;
/// So many requests are looked at in all.
const REQUESTS_MAX: u32 = 1_000;

/// What the browser brought.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The code to exchange.
    Code(String),
    /// Google's word for why there is none, cut to plain letters.
    Refused(String),
}

/// Reads the parameters of an answer; `None` if it is not this consent's.
pub(super) fn read(url: &Url, is_ours: impl Fn(&str) -> bool) -> Option<Answer> {
    let given = |name: &str| {
        let mut pairs = url.query_pairs();
        let found = pairs.find(|(known, _)| known == name);
        found.map(|(_, value)| value.into_owned())
    };
    if !given("state").is_some_and(|state| is_ours(&state)) {
        return None;
    }
    if let Some(error) = given("error") {
        let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        return Some(Answer::Refused(
            error.chars().filter(is_plain).take(60).collect(),
        ));
    }
    given("code")
        .filter(|code| !code.is_empty())
        .map(Answer::Code)
}

/// Waits for the browser.
///
/// # Errors
/// If the socket fails, or too many others ask.
pub(super) async fn wait(
    listener: &TcpListener,
    is_ours: impl Fn(&str) -> bool,
) -> Result<Answer, Refused> {
    for _ in 0..REQUESTS_MAX {
        let accepted = listener.accept().await;
        let (mut stream, _) =
            accepted.map_err(|error| failed(format!("the browser cannot come back: {error}")))?;
        let limit = Duration::from_millis(HEAD_MS_MAX);
        let target = tokio::time::timeout(limit, target_of(&mut stream)).await;
        let Ok(Some(target)) = target else {
            continue;
        };
        let url = Url::parse("http://127.0.0.1/").and_then(|base| base.join(&target));
        let answer = url
            .ok()
            .filter(|url| url.path() == "/")
            .and_then(|url| read(&url, &is_ours));
        let (status, words) = match &answer {
            Some(Answer::Code(_)) => (
                "200 OK",
                "Thank you. You may close this page; the command goes on.",
            ),
            Some(Answer::Refused(_)) => {
                ("200 OK", "Nothing was connected. You may close this page.")
            }
            None => ("404 Not Found", "There is nothing here."),
        };
        let page =
            format!("<!doctype html><meta charset=\"utf-8\"><title>Kalends</title><p>{words}\n");
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
             Content-Security-Policy: default-src 'none'\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n\
             Connection: close\r\n\r\n{page}",
            page.len()
        );
        // Whether the browser still listens is its own affair.
        let told = async {
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.shutdown().await;
        };
        let _ = tokio::time::timeout(limit, told).await;
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    Err(failed("too many others asked at this port; begin again"))
}

/// What a GET request asks for, once its head is there.
async fn target_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut part = [0; 1_024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let count = stream.read(&mut part).await.ok()?;
        head.extend_from_slice(&part[..count]);
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    let head = std::str::from_utf8(&head).ok()?;
    let mut words = head.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (method == "GET" && target.starts_with('/')).then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(target: &str) -> Option<Answer> {
        let url = Url::parse("http://127.0.0.1:1/")
            .unwrap()
            .join(target)
            .unwrap();
        read(&url, |state| state == "right")
    }

    #[test]
    fn only_an_answer_with_the_right_state_counts() {
        assert!(answered("/?code=4%2F0x&state=right") == Some(Answer::Code("4/0x".to_owned())));
        for other in [
            "/",
            "/?code=c",
            "/?code=c&state=wrong",
            "/?state=right",
            "/?code=&state=right",
        ] {
            assert!(answered(other).is_none(), "{other}");
        }
        let refused = answered("/?error=access_denied%0d%1b%5b31m&state=right");
        assert!(refused == Some(Answer::Refused("access_denied31m".to_owned())));
        assert!(answered("/?error=access_denied&state=wrong").is_none());
    }
}
