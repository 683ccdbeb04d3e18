//! An emulator of a Neo4j server, as far as Kalends talks to one: the HTTP Query API v2 for Kalends' own statements.
//!
//! A value with no I/O: a [`Request`] and the time go in, a [`Response`] comes out. It answers as the real server was
//! seen to: 202 before success is known, errors in the body, unknown fields refused, keys that are null and maps as
//! properties refused, databases that do not exist. Each statement is a transaction over a small [`PropertyGraph`].
//! Faults are injected per statement.
//!
//! What it is not: a Cypher engine (it knows our texts only), a cluster, or a store with typed JSON.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kalends_core::graph::cypher;
use kalends_core::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::http::{Delivery, Request, Response};
use answer::{Table, empty, failed_after_data, refused, success};
use statements::Known;

mod answer;
mod fault;
mod property_graph;
mod statements;

pub use answer::ServerError;
pub use fault::Fault;
pub use property_graph::{Node, NodeId, Properties, PropertyGraph, Relationship};

/// After so many bad logins in a row the server refuses all for a while.
const BAD_LOGINS_MAX: u32 = 3;

/// How long it refuses them, in milliseconds.
const LOCKED_OUT_MS: u64 = 5_000;

/// Longer texts are refused, in characters, as the server's JSON reader does.
const TEXT_CHARS_MAX: usize = 20_000_000;

/// The fields of a request's body that every version since 5.25 knows; others are refused.
const BODY_FIELDS: [&str; 7] = [
    "statement",
    "parameters",
    "includeCounters",
    "accessMode",
    "maxExecutionTime",
    "bookmarks",
    "impersonatedUser",
];

/// How the emulated server is set up.
#[derive(Clone)]
pub struct Neo4jEmulatorSettings {
    /// The name to log in with.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The databases that exist.
    pub databases: Vec<String>,
}

impl Default for Neo4jEmulatorSettings {
    /// User and database `neo4j`, password `kalends`.
    fn default() -> Self {
        Neo4jEmulatorSettings {
            user: "neo4j".to_owned(),
            password: "kalends".to_owned(),
            databases: vec!["neo4j".to_owned()],
        }
    }
}

impl fmt::Debug for Neo4jEmulatorSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Neo4jEmulatorSettings({:?}, {:?})",
            self.user, self.databases
        )
    }
}

#[derive(Default)]
struct Database {
    graph: PropertyGraph,
    commits: u64,
}

/// The emulated server.
pub struct Neo4jEmulator {
    settings: Neo4jEmulatorSettings,
    databases: BTreeMap<String, Database>,
    faults: VecDeque<Option<Fault>>,
    bad_logins: u32,
    locked_until: Timestamp,
    statements: u64,
}

impl Neo4jEmulator {
    /// A server with empty databases.
    #[must_use]
    pub fn new(settings: Neo4jEmulatorSettings) -> Self {
        let databases = settings
            .databases
            .iter()
            .map(|name| (name.clone(), Database::default()))
            .collect();
        Neo4jEmulator {
            settings,
            databases,
            faults: VecDeque::new(),
            bad_logins: 0,
            locked_until: Timestamp::EPOCH,
            statements: 0,
        }
    }

    /// The next statement that has no fault yet befalls `fault`. Faults befall statements in the order given.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.push_back(Some(fault));
    }

    /// The next `count` statements that have no fault yet pass unharmed.
    pub fn let_pass(&mut self, count: usize) {
        self.faults.extend(std::iter::repeat_n(None, count));
    }

    /// Takes back the faults that have not befallen a statement yet.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Makes a database, empty; one that is there stays as it is.
    pub fn create_database(&mut self, name: &str) {
        self.databases.entry(name.to_owned()).or_default();
    }

    /// Drops a database with all that is in it.
    pub fn drop_database(&mut self, name: &str) {
        self.databases.remove(name);
    }

    /// A database's graph, to look at.
    #[must_use]
    pub fn graph(&self, database: &str) -> Option<&PropertyGraph> {
        self.databases.get(database).map(|found| &found.graph)
    }

    /// A database's graph, to put something in as another program would.
    pub fn graph_mut(&mut self, database: &str) -> Option<&mut PropertyGraph> {
        self.databases
            .get_mut(database)
            .map(|found| &mut found.graph)
    }

    /// How many statements reached a database, failed ones included.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.statements
    }

    /// Answers one request.
    pub fn handle(&mut self, now: Timestamp, request: &Request) -> Response {
        if request.path == "/" && request.method == "GET" {
            return discovery();
        }
        let Some(database) = database_of_path(&request.path) else {
            return empty(404);
        };
        if request.method != "POST" {
            return empty(405);
        }
        if let Some(refusal) = self.check_login(now, request) {
            return refusal;
        }
        if !speaks_json(request.header("content-type"), false) {
            return empty(415);
        }
        if !speaks_json(request.header("accept"), true) {
            return empty(406);
        }
        let query = match Query::read(&request.body) {
            Ok(query) => query,
            Err(error) => return refused(400, &error),
        };
        self.statements += 1;
        let fault = self.faults.pop_front().flatten();
        self.perform(&database, &query, fault)
    }

    fn perform(&mut self, database: &str, query: &Query, fault: Option<Fault>) -> Response {
        let known = statements::known(&query.statement);
        match &fault {
            Some(Fault::Refused(status, error)) => return refused(*status, error),
            Some(Fault::FailedAfterData(error)) => {
                return failed_after_data(known.map_or(&[], |known| known.fields), error);
            }
            Some(Fault::Html(status)) => {
                return Response::html(*status, "<html><body>Service unavailable</body></html>");
            }
            Some(Fault::LostBefore) => return Response::lost(),
            Some(Fault::CutBody | Fault::CutConnection | Fault::LostAfter) | None => {}
        }
        let Some(found) = self.databases.get_mut(database) else {
            let message = format!("no database is named '{database}'");
            return refused(
                404,
                &ServerError::new("Neo.ClientError.Database.DatabaseNotFound", message),
            );
        };
        let Some(known) = known else {
            let message = "this emulator knows no statements but those of Kalends";
            return refused(
                400,
                &ServerError::new("Neo.ClientError.Statement.SyntaxError", message),
            );
        };
        let mut response = found.run(database, &known, query);
        match fault {
            Some(Fault::CutBody) => response.body.truncate(response.body.len() / 2),
            Some(Fault::CutConnection) => {
                response.body.truncate(response.body.len() / 2);
                response.delivery = Delivery::CutShort;
            }
            Some(Fault::LostAfter) => response = Response::lost(),
            _ => {}
        }
        response
    }

    fn check_login(&mut self, now: Timestamp, request: &Request) -> Option<Response> {
        let Some(header) = request.header("authorization") else {
            let message = "No authentication header supplied.";
            return Some(unauthorized(message));
        };
        let Some(encoded) = header.strip_prefix("Basic ") else {
            return Some(refused(
                400,
                &ServerError::new(
                    "Neo.ClientError.Request.InvalidFormat",
                    "Invalid authentication header.",
                ),
            ));
        };
        if now < self.locked_until {
            return Some(refused(
                429,
                &ServerError::new(
                    "Neo.ClientError.Security.AuthenticationRateLimit",
                    "too many bad logins; wait 5 seconds and try again",
                ),
            ));
        }
        let right = format!("{}:{}", self.settings.user, self.settings.password);
        if STANDARD.decode(encoded.trim()).ok() == Some(right.into_bytes()) {
            self.bad_logins = 0;
            return None;
        }
        self.bad_logins += 1;
        if self.bad_logins >= BAD_LOGINS_MAX {
            self.bad_logins = 0;
            self.locked_until = now.plus_ms(LOCKED_OUT_MS);
        }
        Some(unauthorized("Invalid credential."))
    }
}

impl fmt::Debug for Neo4jEmulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Neo4jEmulator({:?}, {} statements)",
            self.settings, self.statements
        )
    }
}

impl Database {
    /// One statement as one transaction.
    fn run(&mut self, name: &str, known: &Known, query: &Query) -> Response {
        if known.writes && query.read_only {
            let message = "writing in read access mode is not allowed";
            return refused(
                400,
                &ServerError::new("Neo.ClientError.Statement.AccessMode", message),
            );
        }
        if let Some(error) = self.check_bookmarks(name, &query.bookmarks) {
            return refused(400, &error);
        }
        if let Some(error) = check_parameters(&query.statement, &query.parameters) {
            return refused(400, &error);
        }
        match (known.run)(&mut self.graph, &Value::Object(query.parameters.clone())) {
            Ok(table) => {
                let counters = self.graph.commit();
                if known.writes {
                    self.commits += 1;
                }
                let table = if known.fields.is_empty() {
                    Table::default()
                } else {
                    table
                };
                let bookmark = format!("FB:{name}:{}", self.commits);
                success(table, query.include_counters.then_some(counters), &bookmark)
            }
            Err(error) => {
                self.graph.roll_back();
                // A statement with columns has begun its answer when it fails.
                if known.fields.is_empty() {
                    refused(400, &error)
                } else {
                    failed_after_data(known.fields, &error)
                }
            }
        }
    }

    fn check_bookmarks(&self, name: &str, bookmarks: &[String]) -> Option<ServerError> {
        for bookmark in bookmarks {
            let number = bookmark
                .strip_prefix("FB:")
                .and_then(|rest| rest.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|number| number.parse::<u64>().ok());
            match number {
                Some(number) if number <= self.commits => {}
                Some(_) => {
                    return Some(ServerError::new(
                        "Neo.TransientError.Transaction.BookmarkTimeout",
                        "the database has not come as far as the bookmark says",
                    ));
                }
                None => {
                    return Some(ServerError::new(
                        "Neo.ClientError.Transaction.InvalidBookmark",
                        "this bookmark is not one of this database",
                    ));
                }
            }
        }
        None
    }
}

/// A request's body, checked.
struct Query {
    statement: String,
    parameters: Map<String, Value>,
    include_counters: bool,
    read_only: bool,
    bookmarks: Vec<String>,
}

impl Query {
    fn read(body: &[u8]) -> Result<Self, ServerError> {
        let bad = || ServerError::new("Neo.ClientError.Request.Invalid", "Bad Request");
        let Ok(Value::Object(mut fields)) = serde_json::from_slice::<Value>(body) else {
            return Err(bad());
        };
        if fields
            .keys()
            .any(|name| !BODY_FIELDS.contains(&name.as_str()))
        {
            return Err(bad());
        }
        let statement = match fields.get("statement") {
            Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
            _ => return Err(bad()),
        };
        let parameters = match fields.remove("parameters") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(parameters)) if parameters.values().all(fits) => parameters,
            Some(_) => return Err(bad()),
        };
        let include_counters = match fields.get("includeCounters") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(include)) => *include,
            Some(_) => return Err(bad()),
        };
        let read_only = match fields.get("accessMode") {
            None | Some(Value::Null) => false,
            Some(Value::String(mode)) if mode.eq_ignore_ascii_case("read") => true,
            Some(Value::String(mode)) if mode.eq_ignore_ascii_case("write") => false,
            Some(_) => return Err(bad()),
        };
        let bookmarks = match fields.remove("bookmarks") {
            None | Some(Value::Null) => Vec::new(),
            Some(list) => serde_json::from_value(list).map_err(|_| bad())?,
        };
        Ok(Query {
            statement,
            parameters,
            include_counters,
            read_only,
            bookmarks,
        })
    }
}

/// Whether the server's JSON reader takes the value: numbers within an `i64`, texts not endless.
fn fits(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_f64(),
        Value::String(text) => {
            text.len() <= TEXT_CHARS_MAX || text.chars().count() <= TEXT_CHARS_MAX
        }
        Value::Array(items) => items.iter().all(fits),
        Value::Object(fields) => fields.values().all(fits),
        Value::Null | Value::Bool(_) => true,
    }
}

fn check_parameters(statement: &str, parameters: &Map<String, Value>) -> Option<ServerError> {
    let mut missing: Vec<&str> = cypher::parameters_of(statement)
        .filter(|name| !parameters.contains_key(*name))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return None;
    }
    Some(ServerError::new(
        "Neo.ClientError.Statement.ParameterMissing",
        format!("Expected parameter(s): {}", missing.join(", ")),
    ))
}

fn unauthorized(message: &str) -> Response {
    refused(
        401,
        &ServerError::new("Neo.ClientError.Security.Unauthorized", message),
    )
}

fn discovery() -> Response {
    let body = json!({
        "query": "/db/{databaseName}/query/v2",
        "neo4j_version": "5.26.31",
        "neo4j_edition": "emulated",
    });
    Response::json(200, body.to_string().into_bytes())
}

/// The database that `/db/{name}/query/v2` names.
fn database_of_path(path: &str) -> Option<String> {
    let name = path.strip_prefix("/db/")?.strip_suffix("/query/v2")?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()
        .map(|name| name.into_owned())
}

/// Whether a header names plain JSON; `or_any` for `Accept`, which may be missing or say anything.
fn speaks_json(header: Option<&str>, or_any: bool) -> bool {
    let Some(header) = header else {
        return or_any;
    };
    header.split(',').any(|item| {
        let media_type = item.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
            || or_any && matches!(media_type, "*/*" | "application/*")
    })
}

#[cfg(test)]
mod tests;
