//! The Query API v2 of one Neo4j server: one statement there, its rows back.
//!
//! `POST /db/{database}/query/v2` with plain JSON both ways, which every version since 5.25 speaks. Only the fields
//! that all of them know are sent, since unknown ones are refused. Status 202 means that the statement was accepted,
//! not that it worked: an error may stand after the data of the same body, and a body that ends early says nothing.
//! So the answer counts only if it is whole, holds data and holds no error.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::graph::params::Statement;
use kalends_core::graph::server_failure::{DatabaseLayout, failure_of_error, failure_of_status};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Neo4jSettings;
use super::errors::{SettingsError, failure_of_transport};

/// The largest request body that is sent, in bytes; a larger batch is to be halved. The server takes 60 MB.
pub const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The largest answer that is read, in bytes. A page of a snapshot is the largest that is asked for.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long making a connection may take, in milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;

/// At most this many bookmarks are kept for one database; each writer at work adds one.
const BOOKMARKS_MAX: usize = 16;

/// Longer bookmarks are not kept, in bytes. A server's are a few dozen.
const BOOKMARK_BYTES_MAX: usize = 4_096;

/// Bookmarks are kept for at most this many databases.
const BOOKMARKED_DATABASES_MAX: usize = 10_000;

/// The rows that a statement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    /// The columns' names.
    pub(super) fields: Vec<String>,
    /// The rows, each with a value for every column.
    pub(super) values: Vec<Vec<Value>>,
}

impl Rows {
    /// The value in `column` of the first row.
    pub(super) fn first(&self, column: &str) -> Option<&Value> {
        let index = self.fields.iter().position(|field| field == column)?;
        self.values.first()?.get(index)
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Option<AnswerData>,
    #[serde(default)]
    errors: Vec<AnswerError>,
    #[serde(default)]
    bookmarks: Vec<String>,
}

#[derive(Deserialize)]
struct AnswerData {
    fields: Vec<String>,
    values: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: String,
}

/// Whether a statement writes: a cluster routes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A server, its credentials, and what is remembered between requests.
pub(super) struct QueryApi {
    client: Client,
    root: Url,
    settings: Neo4jSettings,
    bookmarks: Mutex<BTreeMap<String, Vec<String>>>,
    statements: AtomicU64,
}

impl fmt::Debug for QueryApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "QueryApi({:?})", self.settings)
    }
}

impl QueryApi {
    pub(super) fn new(settings: Neo4jSettings) -> Result<Self, SettingsError> {
        let root = Url::parse(&settings.url).map_err(|why| SettingsError::Url(why.to_string()))?;
        if root.cannot_be_a_base() || root.host_str().is_none() {
            return Err(SettingsError::Url("it names no host".to_owned()));
        }
        if root.scheme() != "https" && !(root.scheme() == "http" && is_loopback(&root)) {
            return Err(SettingsError::Insecure(root.scheme().to_owned()));
        }
        let mut builder = Client::builder()
            .timeout(Duration::from_millis(settings.timeout_ms))
            .connect_timeout(Duration::from_millis(
                CONNECT_MS_MAX.min(settings.timeout_ms),
            ))
            // A redirect would carry a user's calendar to whoever wrote it.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .https_only(root.scheme() == "https")
            .user_agent(concat!("kalends/", env!("CARGO_PKG_VERSION")));
        if root.scheme() == "http" {
            // A proxy would carry what is meant for this machine to another one, password and all, in the clear.
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|why| SettingsError::Client(why.to_string()))?;
        Ok(QueryApi {
            client,
            root,
            settings,
            bookmarks: Mutex::default(),
            statements: AtomicU64::new(0),
        })
    }

    pub(super) fn settings(&self) -> &Neo4jSettings {
        &self.settings
    }

    pub(super) fn statements_sent(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    fn layout(&self) -> DatabaseLayout {
        self.settings.databases.layout()
    }

    /// Runs one statement in `database`.
    ///
    /// # Errors
    /// Whatever kept it from working, typed by the server's code.
    pub(super) async fn run(
        &self,
        database: &str,
        access: Access,
        statement: Statement,
    ) -> Result<Rows, Failure> {
        let bookmarks = self.bookmarks_of(database);
        let body = json!({
            "statement": statement.text,
            "parameters": statement.parameters,
            "includeCounters": true,
            "accessMode": match access { Access::Read => "READ", Access::Write => "WRITE" },
            "bookmarks": bookmarks,
        })
        .to_string();
        if body.len() > REQUEST_BYTES_MAX {
            return Err(Failure::new(
                FailureKind::TooLarge,
                format!(
                    "a batch of {} bytes is more than the {REQUEST_BYTES_MAX} that are sent to Neo4j at once",
                    body.len()
                ),
            ));
        }
        self.statements.fetch_add(1, Ordering::Relaxed);
        let response = self
            .client
            .post(self.endpoint(database)?)
            .basic_auth(&self.settings.user, Some(self.settings.password.expose()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| failure_of_transport(&error))?;
        let status = response.status().as_u16();
        let retry_after_ms = retry_after_ms(&response);
        let bytes = read_bounded(response).await?;
        let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
            return Err(failure_of_status(status, retry_after_ms));
        };
        if let Some(error) = answer.errors.first() {
            // The database may be another by now (dropped and made anew): its old bookmarks would be waited for in
            // vain. Writes go to the leader, which needs none.
            self.forget_bookmarks(database);
            return Err(failure_of_error(&error.code, self.layout()));
        }
        let Some(data) = answer.data.filter(|_| (200..=299).contains(&status)) else {
            return Err(failure_of_status(status, retry_after_ms));
        };
        self.keep_bookmarks(database, &bookmarks, answer.bookmarks);
        Ok(Rows {
            fields: data.fields,
            values: data.values,
        })
    }

    fn endpoint(&self, database: &str) -> Result<Url, Failure> {
        // A name that is a path of its own would ask another resource: `Url` resolves it away.
        if matches!(database, "" | "." | "..") {
            return Err(Failure::new(
                FailureKind::Misconfigured,
                format!("{database:?} is no name of a graph database"),
            ));
        }
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(["db", database, "query", "v2"]);
        }
        Ok(url)
    }

    fn bookmarks_of(&self, database: &str) -> Vec<String> {
        let bookmarks = self
            .bookmarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        bookmarks.get(database).cloned().unwrap_or_default()
    }

    fn forget_bookmarks(&self, database: &str) {
        let mut bookmarks = self
            .bookmarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        bookmarks.remove(database);
    }

    /// What came back stands for all that was sent; what other writers got meanwhile stays beside it.
    fn keep_bookmarks(&self, database: &str, sent: &[String], received: Vec<String>) {
        if received.is_empty() {
            return;
        }
        let mut bookmarks = self
            .bookmarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if bookmarks.len() >= BOOKMARKED_DATABASES_MAX && !bookmarks.contains_key(database) {
            // Bookmarks only spare a cluster's reader from reading what is old: losing them loses nothing written.
            bookmarks.clear();
        }
        let kept = bookmarks.entry(database.to_owned()).or_default();
        kept.retain(|bookmark| !sent.contains(bookmark));
        for bookmark in received {
            if bookmark.len() <= BOOKMARK_BYTES_MAX && !kept.contains(&bookmark) {
                kept.push(bookmark);
            }
        }
        let surplus = kept.len().saturating_sub(BOOKMARKS_MAX);
        kept.drain(..surplus);
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

/// The answer's `Retry-After` in milliseconds, where it gives seconds (dates are for proxies, and rare).
fn retry_after_ms(response: &Response) -> Option<u64> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failure_of_transport(&error))?
    {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::new(
                FailureKind::TooLarge,
                format!("Neo4j's answer is longer than {ANSWER_BYTES_MAX} bytes"),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Databases;
    use super::*;
    use crate::secret::Secret;

    fn api(url: &str) -> Result<QueryApi, SettingsError> {
        QueryApi::new(Neo4jSettings {
            url: url.to_owned(),
            user: "neo4j".to_owned(),
            password: Secret::new("hunter2".to_owned()),
            databases: Databases::Shared("neo4j".to_owned()),
            timeout_ms: 1_000,
        })
    }

    #[test]
    fn a_password_travels_only_protected_or_within_the_machine() {
        for good in [
            "https://x.databases.neo4j.io",
            "http://127.0.0.1:7474",
            "http://localhost:7474/",
            "http://[::1]:7474",
        ] {
            assert!(api(good).is_ok(), "{good}");
        }
        for bad in [
            "http://graph.example.com",
            "http://127.0.0.1.example.com",
            "ftp://localhost",
        ] {
            assert!(matches!(api(bad), Err(SettingsError::Insecure(_))), "{bad}");
        }
        assert!(matches!(api("graph:"), Err(SettingsError::Url(_))));
        assert!(matches!(api("no url"), Err(SettingsError::Url(_))));
    }

    #[test]
    fn a_databases_name_stays_one_segment_of_the_path() {
        let api = api("http://localhost:7474/neo/").unwrap();
        assert_eq!(
            api.endpoint("a/../b?c%").unwrap().as_str(),
            "http://localhost:7474/neo/db/a%2F..%2Fb%3Fc%25/query/v2"
        );
        for name in ["", ".", ".."] {
            assert_eq!(
                api.endpoint(name).unwrap_err().kind,
                FailureKind::Misconfigured
            );
        }
    }

    #[test]
    fn bookmarks_replace_what_they_follow_and_never_pile_up() {
        let api = api("http://localhost:7474").unwrap();
        api.keep_bookmarks("neo4j", &[], vec!["a".to_owned()]);
        api.keep_bookmarks("neo4j", &[], vec!["b".to_owned()]);
        api.keep_bookmarks("neo4j", &["a".to_owned()], vec!["c".to_owned()]);
        assert_eq!(api.bookmarks_of("neo4j"), ["b", "c"]);
        for index in 0..100 {
            api.keep_bookmarks("neo4j", &[], vec![format!("n{index}")]);
        }
        assert_eq!(api.bookmarks_of("neo4j").len(), BOOKMARKS_MAX);
        assert_eq!(api.bookmarks_of("other"), Vec::<String>::new());
    }

    #[test]
    fn nothing_shows_the_password() {
        let api = api("http://localhost:7474").unwrap();
        assert!(!format!("{api:?}").contains("hunter2"));
    }
}
