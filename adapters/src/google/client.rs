//! HTTP, bounded on every side: addresses that are checked, a timeout, a largest body, no redirects, and errors in
//! words that hold neither the address asked (it carries calendar ids and sync tokens) nor a header.

use std::net::IpAddr;
use std::time::Duration;

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::failure::retry_after_ms;
use kalends_core::time::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Url};

use super::{BODY_BYTES_MAX, SettingsError};
use crate::secret::Secret;

/// Google's Calendar API (discovery document of calendar.v3, `baseUrl`).
pub const API_BASE_URL_DEFAULT: &str = "https://www.googleapis.com/calendar/v3";
/// Google's OAuth token endpoint.
pub const TOKEN_URL_DEFAULT: &str = "https://oauth2.googleapis.com/token";
/// How long a request may take unless configured, in milliseconds. A full page takes Google a few seconds.
pub const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 30_000;

/// The longest that connecting may take, in milliseconds; less if the request timeout is.
const CONNECT_TIMEOUT_MS_MAX: u64 = 10_000;
/// Connections to one host that are kept open while idle.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// The largest body of an answer that is not a page, in bytes. Google's refusals and tokens stay below 4 KiB.
const SMALL_BODY_BYTES_MAX: usize = 256 * 1024;
/// Google sends gzip only to a user agent that says so too (Calendar API, "Performance tips").
const USER_AGENT: &str = concat!("kalends/", env!("CARGO_PKG_VERSION"), " (gzip)");

/// What needs no escape in a path's segment, whatever the server thinks of the rest (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An answer, whatever its status.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The header `Retry-After`, if there is one that can be read.
    pub(super) retry_after_ms: Option<u64>,
    /// The body, decompressed, as far as it came.
    pub(super) body: Vec<u8>,
    /// Why the body is not whole. A refusal is understood by its status all the same.
    broken: Option<Failure>,
}

impl Answer {
    /// The body, if it came whole.
    pub(super) fn whole_body(&self) -> Result<&[u8], Failure> {
        match &self.broken {
            Some(failure) => Err(failure.clone()),
            None => Ok(&self.body),
        }
    }
}

/// The connection pools and the addresses.
pub(super) struct Client {
    api: reqwest::Client,
    api_base_url: Url,
    token: reqwest::Client,
    token_url: Url,
    request_timeout_ms: u64,
}

impl Client {
    pub(super) fn new(
        api_base_url: &str,
        token_url: &str,
        request_timeout_ms: u64,
    ) -> Result<Self, SettingsError> {
        if request_timeout_ms == 0 {
            return Err(SettingsError::new(
                "request_timeout_ms",
                "is 0, so every request would fail; give at least 1, better 30000",
            ));
        }
        let api_base_url = checked_url("api_base_url", api_base_url)?;
        let token_url = checked_url("token_url", token_url)?;
        Ok(Client {
            api: http_client("api_base_url", &api_base_url, request_timeout_ms)?,
            api_base_url,
            token: http_client("token_url", &token_url, request_timeout_ms)?,
            token_url,
            request_timeout_ms,
        })
    }

    /// The address of a resource of the API.
    pub(super) fn api_url(
        &self,
        segments: &[&str],
        parameters: &[(&'static str, String)],
    ) -> Result<Url, Failure> {
        let mut path = self.api_base_url.path().trim_end_matches('/').to_owned();
        for segment in segments {
            // Both would be taken for steps in the path, even when percent-encoded, and lead to another resource.
            if matches!(*segment, "." | "..") {
                return Err(Failure::new(
                    FailureKind::CalendarUnavailable,
                    "a calendar's id cannot be . or ..; remove it from the configured calendars",
                ));
            }
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        }
        let mut url = self.api_base_url.clone();
        url.set_path(&path);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        Ok(url)
    }

    /// Asks the API. `now` is for a `Retry-After` that is a date, if the answer has none of its own.
    pub(super) async fn get(
        &self,
        url: Url,
        token: &Secret,
        now: Timestamp,
    ) -> Result<Answer, Failure> {
        let request = self.api.get(url).header(AUTHORIZATION, bearer(token));
        self.send(request, "Google Calendar", BODY_BYTES_MAX, now)
            .await
    }

    /// Asks the API with a body in JSON. `now` is for a `Retry-After` that is a date.
    pub(super) async fn post(
        &self,
        url: Url,
        body: String,
        token: &Secret,
        now: Timestamp,
    ) -> Result<Answer, Failure> {
        let request = self
            .api
            .post(url)
            .header(AUTHORIZATION, bearer(token))
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        self.send(request, "Google Calendar", SMALL_BODY_BYTES_MAX, now)
            .await
    }

    /// Asks the token endpoint. `now` is for a `Retry-After` that is a date, if the answer has none of its own.
    pub(super) async fn post_token(
        &self,
        form: &[(&'static str, Secret)],
        now: Timestamp,
    ) -> Result<Answer, Failure> {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let body: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value.expose())))
            .collect();
        let request = self
            .token
            .post(self.token_url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.join("&"));
        self.send(
            request,
            "Google's token endpoint",
            SMALL_BODY_BYTES_MAX,
            now,
        )
        .await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        who: &str,
        body_bytes_max: usize,
        now: Timestamp,
    ) -> Result<Answer, Failure> {
        let mut response = request
            .send()
            .await
            .map_err(|error| self.explain(who, &error))?;
        let status = response.status().as_u16();
        let body_bytes_max = match status {
            200 => body_bytes_max,
            _ => body_bytes_max.min(SMALL_BODY_BYTES_MAX),
        };
        let mut answer = Answer {
            status,
            retry_after_ms: wait_asked_ms(response.headers(), now),
            body: Vec::new(),
            broken: None,
        };
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.body.len() + chunk.len() > body_bytes_max => {
                    answer.broken = Some(Failure::transient(format!(
                        "{who} sent more than {body_bytes_max} bytes"
                    )));
                    return Ok(answer);
                }
                Ok(Some(chunk)) => answer.body.extend_from_slice(&chunk),
                Ok(None) => return Ok(answer),
                Err(error) => {
                    answer.broken = Some(self.explain(who, &error));
                    return Ok(answer);
                }
            }
        }
    }

    fn explain(&self, who: &str, error: &reqwest::Error) -> Failure {
        let what = if error.is_timeout() {
            return Failure::transient(format!(
                "{who} gave no whole answer within {} ms",
                self.request_timeout_ms
            ));
        } else if error.is_connect() {
            "cannot be reached"
        } else if error.is_body() || error.is_decode() {
            "broke off in the middle of an answer"
        } else {
            "gave no answer"
        };
        // The innermost cause is the one that helps ("Connection refused"), and the outer ones name the address.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        if std::ptr::addr_eq(cause, std::ptr::from_ref(error)) {
            return Failure::transient(format!("{who} {what}"));
        }
        Failure::transient(format!("{who} {what}: {cause}"))
    }
}

/// How long the answer asks to wait, if it does.
fn wait_asked_ms(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|header| header.to_str().ok());
    retry_after_ms(text(RETRY_AFTER)?, text(DATE), now)
}

fn bearer(token: &Secret) -> HeaderValue {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .expect("an access token is visible ASCII: auth::read_token takes no other");
    bearer.set_sensitive(true);
    bearer
}

pub(super) fn checked_url(setting: &'static str, text: &str) -> Result<Url, SettingsError> {
    let refuse = |why: &str| Err(SettingsError::new(setting, why));
    let Ok(url) = Url::parse(text) else {
        return refuse("is not an address; write it like https://host/path");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds a user name or a password; credentials have settings of their own");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("holds a query or a fragment; leave out everything from ? or # on");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => refuse(
            "would send credentials unencrypted to another machine; use https (http is for loopback hosts only)",
        ),
        _ => refuse("is neither https nor http"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn http_client(
    setting: &'static str,
    url: &Url,
    request_timeout_ms: u64,
) -> Result<reqwest::Client, SettingsError> {
    let connect_timeout_ms = request_timeout_ms.min(CONNECT_TIMEOUT_MS_MAX);
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .timeout(Duration::from_millis(request_timeout_ms))
        .connect_timeout(Duration::from_millis(connect_timeout_ms))
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .https_only(url.scheme() == "https");
    if url.scheme() == "http" {
        // A proxy would carry what is meant for this machine to another one, in the clear.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| {
        SettingsError::new(setting, format!("no HTTP client can be made: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(api_base_url: &str) -> Result<Client, SettingsError> {
        Client::new(api_base_url, TOKEN_URL_DEFAULT, 1_000)
    }

    #[test]
    fn credentials_never_go_in_the_clear_to_another_machine() {
        for good in [
            API_BASE_URL_DEFAULT,
            "http://127.0.0.1:4500/calendar/v3",
            "http://127.8.9.10/",
            "http://[::1]:4500",
            "http://localhost:4500/x/",
            "https://proxy.example.com",
        ] {
            assert!(client(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("http://www.googleapis.com/calendar/v3", "unencrypted"),
            ("http://127.0.0.1.example.com", "unencrypted"),
            ("http://localhost.example.com", "unencrypted"),
            ("http://10.0.0.1/", "unencrypted"),
            ("http://[::2]/", "unencrypted"),
            ("ftp://localhost", "neither"),
            ("file:///etc/passwd", "neither"),
            ("calendar/v3", "not an address"),
            ("", "not an address"),
            ("https://ada:planted@example.com", "password"),
            ("https://example.com/?key=planted", "query"),
            ("https://example.com/#planted", "fragment"),
        ] {
            let error = client(bad).err().unwrap();
            assert_eq!(error.setting, "api_base_url");
            assert!(error.detail.contains(word), "{bad}: {error}");
            assert!(!error.detail.contains("planted"), "{error}");
        }
        let error = Client::new(API_BASE_URL_DEFAULT, "http://example.com", 1)
            .err()
            .unwrap();
        assert_eq!(error.setting, "token_url");
        let error = Client::new(API_BASE_URL_DEFAULT, TOKEN_URL_DEFAULT, 0)
            .err()
            .unwrap();
        assert_eq!(error.setting, "request_timeout_ms");
    }

    #[test]
    fn a_segment_stays_one_segment() {
        let client = client("https://example.com/calendar/v3/").unwrap();
        let url = |id: &str| {
            client.api_url(
                &["calendars", id, "events"],
                &[("timeMin", "a b+c&d".to_owned())],
            )
        };
        for (id, encoded) in [
            (
                "en.usa#holiday@group.v.calendar.google.com",
                "en.usa%23holiday%40group.v.calendar.google.com",
            ),
            ("a/../b?c=%2e", "a%2F..%2Fb%3Fc%3D%252e"),
            ("æ +;\\", "%C3%A6%20%2B%3B%5C"),
        ] {
            assert_eq!(
                url(id).unwrap().as_str(),
                format!(
                    "https://example.com/calendar/v3/calendars/{encoded}/events?timeMin=a+b%2Bc%26d"
                )
            );
        }
        assert_eq!(
            url("..").unwrap_err().kind,
            FailureKind::CalendarUnavailable
        );
        assert_eq!(url(".").unwrap_err().kind, FailureKind::CalendarUnavailable);
    }
}
