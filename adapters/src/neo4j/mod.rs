//! The graph in a Neo4j server, 5.25 or later, over its HTTP Query API.
//!
//! What is asked stands in core: [`split`] makes a write into statements, [`server_failure`] says what an error means.
//! Here a write is sent, statement after statement, and the answers are read. Nothing is retried: every write may be
//! sent again by whoever decides such things.
//!
//! A write of a batch is two statements, so it is atomic in effect but not in one transaction: a crash between the
//! two leaves events whose relationships are from before, until the batch (or any later write of those events) is
//! made again. The statements see to that themselves; [`cypher`] says how.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::graph::params::{
    REMOVE_EVENTS_MAX, Statement, remove_orphans, remove_user, split,
};
#[cfg(doc)]
use kalends_core::graph::server_failure;
use kalends_core::graph::{GraphCounts, GraphReply, GraphSnapshot, GraphWrite, cypher};
use kalends_core::id::UserId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use serde_json::Value;

use crate::secret::Secret;
use client::{Access, QueryApi, Rows};

mod client;
mod databases;
mod errors;
mod snapshot;

pub use client::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
pub use databases::{Databases, UserDatabases};
pub use errors::SettingsError;

/// A sweep or a removal ends after this many statements; the failure asks for another attempt, which goes on where
/// this one stopped.
const REMOVE_ROUNDS_MAX: u32 = 1_000;

/// The schema is remembered as ensured for at most this many databases.
const ENSURED_DATABASES_MAX: usize = 100_000;

/// Where the server is and how to be let in.
#[derive(Clone, Debug)]
pub struct Neo4jSettings {
    /// The server's address, such as `https://graph.example.com:7473`. Plain `http` only for this machine.
    pub url: String,
    /// The name to log in with.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Which database holds whose graph.
    pub databases: Databases,
    /// How long one statement may take, connecting included, in milliseconds.
    pub timeout_ms: u64,
}

/// A Neo4j server as a [`Graph`].
#[derive(Debug)]
pub struct Neo4jGraph {
    api: QueryApi,
    ensured: Mutex<BTreeSet<String>>,
    ensuring: tokio::sync::Mutex<()>,
}

impl Neo4jGraph {
    /// Prepares to talk to a server; sends nothing yet.
    ///
    /// # Errors
    /// If the address is not a URL, or would send the password unprotected.
    pub fn new(settings: Neo4jSettings) -> Result<Self, SettingsError> {
        Ok(Neo4jGraph {
            api: QueryApi::new(settings)?,
            ensured: Mutex::default(),
            ensuring: tokio::sync::Mutex::default(),
        })
    }

    /// How many statements were sent since the start, whatever became of them.
    #[must_use]
    pub fn statements_sent(&self) -> u64 {
        self.api.statements_sent()
    }

    /// Asks a database for the server's version: is it there, and are we let in? Gives something like
    /// `Neo4j Kernel 2026.09.0 (enterprise)`.
    ///
    /// # Errors
    /// As a typed failure, the same as a write would get.
    pub async fn probe(&self, database: &str) -> Result<String, Failure> {
        let statement = Statement {
            text: cypher::PROBE,
            parameters: Value::Object(serde_json::Map::new()),
        };
        let rows = self.api.run(database, Access::Read, statement).await?;
        let text = |column: &str| match rows.first(column) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(items)) => items
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
            _ => "unknown".to_owned(),
        };
        Ok(format!(
            "{} {} ({})",
            text("name"),
            text("versions"),
            text("edition")
        ))
    }

    /// Makes the constraints and indexes, once for each database.
    async fn ensure_schema(&self, database: &str) -> Result<(), Failure> {
        if self.is_ensured(database) {
            return Ok(());
        }
        // One at a time: schema changes lock, and all jobs of a start would come here together.
        let _turn = self.ensuring.lock().await;
        if self.is_ensured(database) {
            return Ok(());
        }
        for text in cypher::ENSURE_SCHEMA {
            let statement = Statement {
                text,
                parameters: Value::Object(serde_json::Map::new()),
            };
            self.api.run(database, Access::Write, statement).await?;
        }
        let mut ensured = self.ensured.lock().unwrap_or_else(PoisonError::into_inner);
        if ensured.len() >= ENSURED_DATABASES_MAX {
            ensured.clear();
        }
        ensured.insert(database.to_owned());
        Ok(())
    }

    fn is_ensured(&self, database: &str) -> bool {
        let ensured = self.ensured.lock().unwrap_or_else(PoisonError::into_inner);
        ensured.contains(database)
    }

    fn forget_schema(&self, database: &str) {
        let mut ensured = self.ensured.lock().unwrap_or_else(PoisonError::into_inner);
        ensured.remove(database);
    }

    async fn write_in(&self, database: &str, write: &GraphWrite) -> Result<GraphReply, Failure> {
        self.ensure_schema(database).await?;
        match write {
            GraphWrite::Apply { .. } => self.apply(database, write).await,
            GraphWrite::Spare { .. } => self.spare(database, write).await,
            GraphWrite::Sweep { user, fence, .. } => {
                let reply = self.remove_in_rounds(database, write).await?;
                if matches!(reply, GraphReply::Written(_)) {
                    let statement = remove_orphans(user, fence.0);
                    self.api.run(database, Access::Write, statement).await?;
                }
                Ok(reply)
            }
            GraphWrite::RemoveCalendar { .. } => self.remove_in_rounds(database, write).await,
        }
    }

    async fn apply(&self, database: &str, write: &GraphWrite) -> Result<GraphReply, Failure> {
        let mut counts = GraphCounts::default();
        for (index, statement) in split(write).into_iter().enumerate() {
            let rows = self.api.run(database, Access::Write, statement).await?;
            if is_fenced(&rows)? {
                return Ok(GraphReply::Fenced);
            }
            if index == 0 {
                counts.upserted = count(&rows, "upserted")?;
                counts.deleted = count(&rows, "deleted")?;
            }
        }
        Ok(GraphReply::Written(counts))
    }

    async fn spare(&self, database: &str, write: &GraphWrite) -> Result<GraphReply, Failure> {
        for statement in split(write) {
            let rows = self.api.run(database, Access::Write, statement).await?;
            if is_fenced(&rows)? {
                return Ok(GraphReply::Fenced);
            }
        }
        Ok(GraphReply::Written(GraphCounts::default()))
    }

    async fn remove_in_rounds(
        &self,
        database: &str,
        write: &GraphWrite,
    ) -> Result<GraphReply, Failure> {
        let mut counts = GraphCounts::default();
        for _ in 0..REMOVE_ROUNDS_MAX {
            let mut removed = 0;
            for statement in split(write) {
                let rows = self.api.run(database, Access::Write, statement).await?;
                if is_fenced(&rows)? {
                    return Ok(GraphReply::Fenced);
                }
                removed += count(&rows, "deleted")?;
            }
            counts.deleted += removed;
            if removed < REMOVE_EVENTS_MAX {
                return Ok(GraphReply::Written(counts));
            }
        }
        Err(Failure::transient(format!(
            "removed {} events and more are left; the next attempt goes on",
            counts.deleted
        )))
    }
}

#[async_trait]
impl Graph for Neo4jGraph {
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure> {
        let database = self.api.settings().databases.of(write.user())?;
        let result = self.write_in(&database, &write).await;
        if let Err(failure) = &result
            && matches!(
                failure.kind,
                FailureKind::NotReady | FailureKind::Misconfigured
            )
        {
            // The database may be made, or made anew and empty, before the next write.
            self.forget_schema(&database);
        }
        result
    }

    async fn remove_user(&self, user: &UserId, fence: LeaseToken) -> Result<bool, Failure> {
        let database = self.api.settings().databases.of(user)?;
        let statement = remove_user(user, fence.0);
        let rows = self.api.run(&database, Access::Write, statement).await?;
        Ok(count(&rows, "removed")? > 0)
    }

    async fn snapshot(&self, user: &UserId) -> Result<GraphSnapshot, Failure> {
        let database = self.api.settings().databases.of(user)?;
        snapshot::read(&self.api, &database, user).await
    }
}

fn is_fenced(rows: &Rows) -> Result<bool, Failure> {
    match rows.first("fenced") {
        Some(Value::Bool(fenced)) => Ok(*fenced),
        Some(_) => Err(unexpected("fenced")),
        // The user's node was removed between two statements: the batch starts anew.
        None => Err(Failure::transient(
            "the user's node vanished from the graph during a write",
        )),
    }
}

fn count(rows: &Rows, column: &str) -> Result<u64, Failure> {
    rows.first(column)
        .and_then(Value::as_u64)
        .ok_or_else(|| unexpected(column))
}

fn unexpected(column: &str) -> Failure {
    Failure::permanent(format!(
        "Neo4j's answer lacks a usable column {column}: is something between us and it?"
    ))
}
