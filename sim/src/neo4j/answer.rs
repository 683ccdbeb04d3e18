//! The Query API's answers, in the shapes that real servers were seen to give.

use serde_json::{Map, Value, json};

use super::property_graph::Counters;
use crate::http::Response;

/// An error of the server: a code and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Such as `Neo.ClientError.Statement.TypeError`.
    pub code: String,
    /// What happened.
    pub message: String,
}

impl ServerError {
    /// An error with `code`, explained by `message`.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        ServerError {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    fn to_value(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) fields: &'static [&'static str],
    pub(super) values: Vec<Vec<Value>>,
}

impl Table {
    pub(super) fn row(fields: &'static [&'static str], row: Vec<Value>) -> Self {
        Table {
            fields,
            values: vec![row],
        }
    }
}

/// A statement that worked.
pub(super) fn success(table: Table, counters: Option<Counters>, bookmark: &str) -> Response {
    let mut body = Map::new();
    body.insert("data".to_owned(), data(table));
    if let Some(counters) = counters {
        body.insert("counters".to_owned(), counters_value(counters));
    }
    body.insert("bookmarks".to_owned(), json!([bookmark]));
    Response::json(202, Value::Object(body).to_string().into_bytes())
}

/// A statement that failed after its answer had begun: the status says success, the body does not.
pub(super) fn failed_after_data(fields: &'static [&'static str], error: &ServerError) -> Response {
    let table = Table {
        fields,
        values: Vec::new(),
    };
    let body = json!({ "data": data(table), "errors": [error.to_value()] });
    Response::json(202, body.to_string().into_bytes())
}

/// A request that was refused before any data.
pub(super) fn refused(status: u16, error: &ServerError) -> Response {
    let body = json!({ "errors": [error.to_value()] });
    let mut response = Response::json(status, body.to_string().into_bytes());
    if status == 401 {
        response.headers.push((
            "www-authenticate".to_owned(),
            "Basic realm=\"Neo4j\", Bearer realm=\"Neo4j\"".to_owned(),
        ));
    }
    response
}

/// A refusal without a body.
pub(super) fn empty(status: u16) -> Response {
    let mut response = Response::json(status, Vec::new());
    response.headers.clear();
    response
}

fn data(table: Table) -> Value {
    json!({ "fields": table.fields, "values": table.values })
}

fn counters_value(counters: Counters) -> Value {
    let updates = counters != Counters::default();
    json!({
        "containsUpdates": updates,
        "nodesCreated": counters.nodes_created,
        "nodesDeleted": counters.nodes_deleted,
        "propertiesSet": counters.properties_set,
        "relationshipsCreated": counters.relationships_created,
        "relationshipsDeleted": counters.relationships_deleted,
        "labelsAdded": counters.nodes_created,
        "labelsRemoved": 0,
        "indexesAdded": counters.indexes_added,
        "indexesRemoved": 0,
        "constraintsAdded": counters.constraints_added,
        "constraintsRemoved": 0,
        "containsSystemUpdates": false,
        "systemUpdates": 0,
    })
}
