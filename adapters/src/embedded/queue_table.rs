//! The queue's rows in the file: written as they change, read back whole at the start and after a failure.

use kalends_core::queue::{Change, Queue, RestoreError};
use rusqlite::{Connection, params};

/// Why the queue could not be read back.
#[derive(Debug)]
pub(super) enum LoadError {
    /// SQLite could not read.
    Sql(rusqlite::Error),
    /// What it read is no queue.
    Restore(RestoreError),
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        LoadError::Sql(error)
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Sql(error) => write!(formatter, "{error}"),
            LoadError::Restore(error) => write!(formatter, "{error}"),
        }
    }
}

/// Writes what changed; the caller has a transaction open.
pub(super) fn save(connection: &Connection, changes: &[Change]) -> rusqlite::Result<()> {
    for change in changes {
        match &change.value {
            Some(value) => connection
                .prepare_cached(
                    "INSERT INTO queue (tbl, key, value) VALUES (?1, ?2, ?3)
                     ON CONFLICT (tbl, key) DO UPDATE SET value = excluded.value",
                )?
                .execute(params![change.table, change.key, value])?,
            None => connection
                .prepare_cached("DELETE FROM queue WHERE tbl = ?1 AND key = ?2")?
                .execute(params![change.table, change.key])?,
        };
    }
    Ok(())
}

/// The queue as the file has it. Rows go over one by one: a large queue is not in memory twice.
pub(super) fn load(connection: &Connection) -> Result<Queue, LoadError> {
    let mut statement = connection.prepare_cached("SELECT tbl, key, value FROM queue")?;
    let mut rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut failed = None;
    let restored = Queue::restore(std::iter::from_fn(|| match rows.next()? {
        Ok(row) => Some(row),
        Err(error) => {
            failed = Some(error);
            None
        }
    }));
    match failed {
        Some(error) => Err(LoadError::Sql(error)),
        None => restored.map_err(LoadError::Restore),
    }
}
