//! Reads a store while another process runs it: for `kalends status`.
//!
//! Each question opens the file, reads the queue as it stands and asks that value; nothing is kept open in between, so
//! a reader never holds up the process that writes. Whatever would change something is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kalends_core::failure::Failure;
use kalends_core::graph::{GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::port::{Graph, Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::time::Clock;

use super::file::{self, OpenError};
use super::queue_table;
use super::read_snapshot;

/// What callers hear who want to change something.
const READ_ONLY: &str =
    "the store is open for reading only; send this to the process that runs on it";

/// A store that another process may be running, open for reading. Get one from
/// [`EmbeddedStore::open_read_only`](super::EmbeddedStore::open_read_only).
pub struct EmbeddedReader {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for EmbeddedReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EmbeddedReader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl EmbeddedReader {
    pub(super) fn open(
        directory: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<EmbeddedReader, OpenError> {
        let path = file::check_for_reading(directory)?;
        Ok(EmbeddedReader { path, clock })
    }
}

/// Whether a command only reads.
fn only_reads(command: &Command) -> bool {
    matches!(
        command,
        Command::DueUsers { .. }
            | Command::User { .. }
            | Command::Users { .. }
            | Command::Schedules
            | Command::Stats
            | Command::Jobs { .. }
    )
}

#[async_trait]
impl Store for EmbeddedReader {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        let unavailable = |detail: String| StoreUnavailable { detail };
        if !only_reads(&command) {
            return Err(unavailable(READ_ONLY.to_owned()));
        }
        let path = self.path.clone();
        let now = self.clock.now();
        let read = tokio::task::spawn_blocking(move || {
            file::connect_reader(&path)
                .map_err(queue_table::LoadError::Sql)
                .and_then(|connection| queue_table::load(&connection))
                .map(|mut queue| queue.apply(now, command))
                .map_err(|error| {
                    format!(
                        "the queue in {} could not be read: {error}; check the disk, then try again",
                        path.display()
                    )
                })
        });
        match read.await {
            Ok(Ok(value)) => Ok(Stamped { now, value }),
            Ok(Err(detail)) => Err(unavailable(detail)),
            Err(error) => Err(unavailable(format!("reading the queue failed: {error}"))),
        }
    }

    /// Never wakes: the process that writes has no way to call a reader.
    async fn wait_for_wake(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Graph for EmbeddedReader {
    async fn write(&self, _: GraphWrite) -> Result<GraphReply, Failure> {
        Err(Failure::permanent(READ_ONLY))
    }

    async fn snapshot(&self, user: &UserId) -> Result<GraphSnapshot, Failure> {
        read_snapshot(self.path.clone(), user.clone()).await
    }
}
