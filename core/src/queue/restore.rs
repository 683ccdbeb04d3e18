//! Rows out, rows in: how a store makes the queue durable.
//!
//! After a command, [`Queue::take_changes`] names each row that the command touched, once. A store that writes these
//! in one transaction, and later hands all its rows to [`Queue::restore`], has the same queue again. Indexes are not
//! among the rows: they follow from them and are built anew.

use std::fmt;

use serde::Serialize;

use super::Queue;
use super::index::Index;
use super::rows::{FlowRow, UserFlowRow};
use super::state::JobKey;

/// One row that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: &'static str,
    /// The key of the row within its table: JSON text.
    pub key: String,
    /// The row as JSON text; `None`: there is no such row any more (there may never have been one in the store).
    pub value: Option<String>,
}

/// Takes rows that changed as they are, without the way through JSON.
pub trait ChangeSink {
    /// `row` of `table` under `key` was touched; `None`: there is no such row any more.
    fn change<K: Serialize, V: Serialize>(&mut self, table: &'static str, key: &K, row: Option<&V>);
}

/// Why stored rows could not be taken back. Both point at a file of another version, or a damaged one: restore a copy,
/// or start with the version that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// A table that this version does not know.
    UnknownTable(String),
    /// A row that cannot be read.
    Unreadable {
        /// Its table.
        table: String,
        /// Its key, cut to 100 characters.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::UnknownTable(table) => {
                write!(
                    formatter,
                    "unknown table {table:?}; was the file written by a newer version?"
                )
            }
            RestoreError::Unreadable { table, key, detail } => {
                write!(
                    formatter,
                    "row {key} of table {table} cannot be read ({detail}); restore a copy of the file"
                )
            }
        }
    }
}

impl std::error::Error for RestoreError {}

impl Queue {
    /// The rows touched since the last call, each once, in a fixed order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.meta.take_changes(&mut changes);
        self.sources.take_changes(&mut changes);
        self.flows.take_changes(&mut changes);
        self.user_flows.take_changes(&mut changes);
        self.schedules.take_changes(&mut changes);
        self.users.take_changes(&mut changes);
        self.jobs.take_changes(&mut changes);
        self.completed.take_changes(&mut changes);
        self.failed.take_changes(&mut changes);
        changes
    }

    /// As [`Queue::take_changes`], but each row is shown to `sink` as it is: what a simulator hashes after every command.
    /// Of a log of starts or requests only the ends and the sum are shown: each change of it is a change of those, and
    /// with all its buckets it is a hundred times as long as any other row.
    pub fn visit_changes(&mut self, sink: &mut impl ChangeSink) {
        self.meta.visit_changes(sink);
        self.sources.visit_changes(sink);
        self.flows.visit_changes_as(sink, FlowRow::outline);
        self.user_flows.visit_changes_as(sink, UserFlowRow::outline);
        self.schedules.visit_changes(sink);
        self.users.visit_changes(sink);
        self.jobs.visit_changes(sink);
        self.completed.visit_changes(sink);
        self.failed.visit_changes(sink);
    }

    /// Whether this job waits, is delayed or is leased.
    #[must_use]
    pub fn is_outstanding(&self, key: &JobKey) -> bool {
        self.jobs.contains(key)
    }

    /// Whether this job is leased and will run once more afterwards, for a wish that came meanwhile.
    #[must_use]
    pub fn runs_again(&self, key: &JobKey) -> bool {
        self.jobs.get(key).is_some_and(|row| row.rerun.is_some())
    }

    /// How many rows each table has: what the memory of the queue is made of.
    #[must_use]
    pub fn row_counts(&self) -> [(&'static str, usize); 9] {
        [
            ("meta", self.meta.len()),
            ("sources", self.sources.len()),
            ("flows", self.flows.len()),
            ("user_flows", self.user_flows.len()),
            ("schedules", self.schedules.len()),
            ("users", self.users.len()),
            ("jobs", self.jobs.len()),
            ("completed", self.completed.len()),
            ("failed", self.failed.len()),
        ]
    }

    /// All rows: table, key, JSON.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, String, String)> {
        let mut rows = Vec::new();
        self.meta.write_rows(&mut rows);
        self.sources.write_rows(&mut rows);
        self.flows.write_rows(&mut rows);
        self.user_flows.write_rows(&mut rows);
        self.schedules.write_rows(&mut rows);
        self.users.write_rows(&mut rows);
        self.jobs.write_rows(&mut rows);
        self.completed.write_rows(&mut rows);
        self.failed.write_rows(&mut rows);
        rows
    }

    /// The queue whose rows these are: table, key, JSON, in any order.
    ///
    /// # Errors
    /// If a table is unknown or a row unreadable.
    pub fn restore(
        rows: impl IntoIterator<Item = (String, String, String)>,
    ) -> Result<Queue, RestoreError> {
        let mut queue = Queue::new();
        for (table, key, value) in rows {
            let known = queue.meta.restore(&table, &key, &value)?
                || queue.sources.restore(&table, &key, &value)?
                || queue.flows.restore(&table, &key, &value)?
                || queue.user_flows.restore(&table, &key, &value)?
                || queue.schedules.restore(&table, &key, &value)?
                || queue.users.restore(&table, &key, &value)?
                || queue.jobs.restore(&table, &key, &value)?
                || queue.completed.restore(&table, &key, &value)?
                || queue.failed.restore(&table, &key, &value)?;
            if !known {
                return Err(RestoreError::UnknownTable(table));
            }
        }
        queue.index = Index::build(&queue);
        Ok(queue)
    }
}

/// Two queues are equal if their rows are.
impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta
            && self.sources == other.sources
            && self.flows == other.flows
            && self.user_flows == other.user_flows
            && self.schedules == other.schedules
            && self.users == other.users
            && self.jobs == other.jobs
            && self.completed == other.completed
            && self.failed == other.failed
    }
}
