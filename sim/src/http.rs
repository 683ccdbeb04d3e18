//! A request and its answer as plain values, so that an emulator needs no server.
//!
//! Whoever serves an emulator over a socket translates to and from these two; nothing here knows of connections,
//! except that an answer can say that it must not arrive whole.

use std::fmt;

use kalends_core::time::Timestamp;

/// An HTTP request as an emulator sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method in capitals: `GET`, `POST`.
    pub method: String,
    /// The path from its first slash, still percent-encoded, without the query.
    pub path: String,
    /// The query's names and values in order, percent-decoded.
    pub query: Vec<(String, String)>,
    /// Header names (lower-case) and values.
    pub headers: Vec<(String, String)>,
    /// The body, already un-gzipped.
    pub body: Vec<u8>,
}

impl Request {
    /// A `GET` of `path` (percent-encoded) with nothing else yet.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Request::new("GET", path)
    }

    /// A `POST` of `body` to `path` (percent-encoded).
    #[must_use]
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Request::new("POST", path);
        request.body = body.into();
        request
    }

    fn new(method: &str, path: &str) -> Self {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The request with one more query parameter, given decoded.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    /// The request with one more header; the name in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The first value of a query parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

impl fmt::Debug for Request {
    /// Without query, headers and body: they carry tokens and secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Request({} {}, {} parameters, {} headers, {} bytes)",
            self.method,
            self.path,
            self.query.len(),
            self.headers.len(),
            self.body.len()
        )
    }
}

/// A date as HTTP writes it (IMF-fixdate; RFC 9110, 5.6.7), to the second.
#[must_use]
pub fn http_date(at: Timestamp) -> String {
    let at = chrono::DateTime::from_timestamp_millis(at.as_ms()).unwrap_or_default();
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// How much of an answer reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// All of it.
    Whole,
    /// Only the bytes that are in `body`; then the connection breaks, before the announced end.
    CutShort,
    /// Nothing: the connection is reset. The request may have had its effect or not.
    Lost,
}

/// An HTTP answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names (lower-case) and values, without `content-length`.
    pub headers: Vec<(String, String)>,
    /// The body, not compressed.
    pub body: Vec<u8>,
    /// Whether it arrives.
    pub delivery: Delivery,
}

impl Response {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Response::typed(status, "application/json; charset=UTF-8", body)
    }

    /// An answer with an HTML body, as front ends give when the service behind them is away.
    #[must_use]
    pub fn html(status: u16, body: &str) -> Self {
        Response::typed(status, "text/html; charset=UTF-8", body.into())
    }

    /// No answer at all.
    #[must_use]
    pub fn lost() -> Self {
        Response {
            status: 0,
            headers: Vec::new(),
            body: Vec::new(),
            delivery: Delivery::Lost,
        }
    }

    fn typed(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Response {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body,
            delivery: Delivery::Whole,
        }
    }

    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

impl fmt::Debug for Response {
    /// Without the body: a token endpoint's body is a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Response({}, {} bytes, {:?})",
            self.status,
            self.body.len(),
            self.delivery
        )
    }
}
