//! The one thread that writes: it owns the connection, and it commits in groups.
//!
//! Requests wait in a bounded channel. The thread takes all that wait, up to a bound, applies each inside one
//! transaction, commits, and only then answers them all: an answer never runs ahead of the disk, and a hundred callers
//! share one flush. While the thread waits for the disk the next group gathers, so groups grow with the load by
//! themselves and a lone request waits for nobody.
//!
//! If anything goes wrong with the file, the whole group is rolled back and nobody in it is told that it was done.
//! One graph write that is refused is rolled back alone, by its savepoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kalends_core::failure::Failure;
use kalends_core::graph::{GraphReply, GraphWrite};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::file::DirectoryLock;
use super::graph_write::{self, WriteError};

/// At most this many requests wait for the writing thread; further callers wait to be let in.
pub const QUEUE_DEPTH_MAX: usize = 1_024;
/// At most this many requests share a transaction.
pub const GROUP_MAX: usize = 256;
/// A transaction takes no further request once it holds this many events: large batches gain nothing by waiting for
/// each other, and the log stays short.
pub const GROUP_EVENTS_MAX: usize = 5_000;

/// What the thread is asked to do.
pub(super) enum Request {
    /// Write to the graph.
    Write {
        write: Box<GraphWrite>,
        answer: oneshot::Sender<Result<GraphReply, Failure>>,
    },
    /// Finish what waits, copy the log into the file and end.
    Close,
    /// Run SQL outside any group.
    #[cfg(test)]
    Execute {
        sql: String,
        answer: oneshot::Sender<()>,
    },
    /// Panic.
    #[cfg(test)]
    Panic,
}

impl Request {
    fn events(&self) -> usize {
        match self {
            Request::Write { write, .. } => graph_write::events_of(write),
            _ => 0,
        }
    }
}

/// What applying a request came to, held back until the commit.
enum Outcome {
    Written(Result<GraphReply, Failure>),
    Nothing,
}

/// Answers a request whose group is committed. Whoever asked may have gone; what was done stays done.
fn acknowledge(request: Request, outcome: Outcome) {
    match (request, outcome) {
        (Request::Write { answer, .. }, Outcome::Written(reply)) => drop(answer.send(reply)),
        #[cfg(test)]
        (Request::Execute { answer, .. }, Outcome::Nothing) => drop(answer.send(())),
        (_, outcome) => assert!(
            matches!(outcome, Outcome::Nothing),
            "an outcome belongs to the request it came from"
        ),
    }
}

/// Tells a request that nothing of it was kept.
fn refuse(request: Request, detail: &str) {
    if let Request::Write { answer, .. } = request {
        drop(answer.send(Err(Failure::transient(detail))));
    }
}

/// Figures of the thread that others may read.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Transactions that wrote something.
    pub(super) commits: AtomicU64,
}

/// The thread's belongings.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) figures: Arc<Figures>,
    /// Dropped last: nobody else may open the directory before the connection is closed.
    pub(super) lock: DirectoryLock,
}

impl Writer {
    /// Serves requests until the channel closes or [`Request::Close`] comes, and then all that were already waiting.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(GROUP_MAX);
        while let Some(first) = requests.blocking_recv() {
            let mut events = first.events();
            waiting.push(first);
            while waiting.len() < GROUP_MAX && events < GROUP_EVENTS_MAX {
                let Ok(next) = requests.try_recv() else { break };
                events += next.events();
                waiting.push(next);
            }
            if waiting
                .iter()
                .any(|request| matches!(request, Request::Close))
            {
                requests.close();
            }
            self.serve(&mut waiting);
        }
        self.end();
    }

    /// Applies one group, commits it and answers it.
    fn serve(&mut self, group: &mut Vec<Request>) {
        let changes_before = self.connection.total_changes();
        match self.apply(group) {
            Ok(outcomes) => {
                if self.connection.total_changes() != changes_before {
                    self.figures.commits.fetch_add(1, Ordering::Relaxed);
                }
                for (request, outcome) in group.drain(..).zip(outcomes) {
                    acknowledge(request, outcome);
                }
            }
            Err(error) => {
                self.roll_back();
                let detail = self.explain(&error);
                tracing::warn!(requests = group.len(), "{detail}");
                for request in group.drain(..) {
                    refuse(request, &detail);
                }
            }
        }
    }

    /// Applies a group in one transaction and commits it. A transaction that wrote nothing costs no flush.
    fn apply(&mut self, group: &[Request]) -> rusqlite::Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(group.len());
        self.execute("BEGIN")?;
        for request in group {
            outcomes.push(match request {
                Request::Write { write, .. } => Outcome::Written(self.write(write)?),
                Request::Close => Outcome::Nothing,
                #[cfg(test)]
                Request::Execute { sql, .. } => {
                    self.connection.execute_batch(sql)?;
                    Outcome::Nothing
                }
                #[cfg(test)]
                Request::Panic => panic!("a test asked for it"),
            });
        }
        self.execute("COMMIT")?;
        Ok(outcomes)
    }

    /// Applies one graph write by itself within the group.
    ///
    /// # Errors
    /// If the file fails: then the whole group fails.
    fn write(&self, write: &GraphWrite) -> rusqlite::Result<Result<GraphReply, Failure>> {
        self.execute("SAVEPOINT one_write")?;
        match graph_write::apply(&self.connection, write) {
            Ok(reply) => {
                self.execute("RELEASE one_write")?;
                Ok(Ok(reply))
            }
            Err(WriteError::Refused(failure)) => {
                self.execute("ROLLBACK TO one_write")?;
                self.execute("RELEASE one_write")?;
                Ok(Err(failure))
            }
            Err(WriteError::Sql(error)) => Err(error),
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn roll_back(&self) {
        // SQLite rolls back by itself after some errors; then there is nothing left to roll back.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!("{}", self.explain(&error));
        }
    }

    fn explain(&self, error: &rusqlite::Error) -> String {
        format!(
            "{} could not be written ({error}) and nothing of this request was kept; check that the disk has space and is healthy, then it goes on by itself",
            self.path.display()
        )
    }

    fn end(self) {
        // Only tidiness: a log that stays behind is read at the next start.
        if let Err(error) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::warn!("{}", self.explain(&error));
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!("{} was not closed cleanly: {error}", self.path.display());
        }
        drop(self.lock);
    }
}
