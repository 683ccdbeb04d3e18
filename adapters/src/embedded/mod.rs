//! The embedded store: queue and graph in one SQLite file, for one process, with nothing to install.
//!
//! The problem: a process may be killed at any instant, and whatever it acknowledged has to be there when it starts
//! again. The idea: one thread owns the file and the state, applies what is asked, commits, and answers after that.
//!
//! What always holds:
//!
//! 1. nothing is acknowledged before its commit has reached the disk (write-ahead log, `synchronous = FULL`);
//! 2. the state in memory never runs ahead of the disk: when a commit fails it is read back from the file;
//! 3. one process at a time: a second one is refused, and told who is there;
//! 4. memory does not grow with the file: the page cache is bounded, and batches, groups and the channel are.
//!
//! `file` opens the directory, `schema` has the tables, `writer` is the thread, `queue_table` the queue's rows,
//! `graph_write` (with `graph_people`) and `graph_read` are the graph, `properties` its JSON; `reader` is for looking on from another process.

mod file;
mod graph_people;
mod graph_read;
mod graph_write;
mod properties;
mod queue_table;
mod reader;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use kalends_core::failure::Failure;
use kalends_core::graph::{GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::port::{Graph, Store, StoreUnavailable};
use kalends_core::queue::command::{Command, LeaseToken, Reply, Stamped};
use kalends_core::time::Clock;
use tokio::sync::{mpsc, oneshot};

pub use file::{FILE_NAME, LOCK_NAME, OpenError};
pub(crate) use file::{create_directory, private_file};
pub use reader::EmbeddedReader;
pub use writer::{GROUP_EVENTS_MAX, GROUP_MAX, QUEUE_DEPTH_MAX};

use queue_table::LoadError;
use writer::{Caller, Request, Shared, Work, Writer};

/// What callers hear when the writing thread is gone.
const GONE: &str = "the embedded store has stopped (it was closed, or met a fault that the log shows); start the process again, its file holds all that was acknowledged";

/// The queue and the graph in one file. See the head of this module.
#[derive(Debug)]
pub struct EmbeddedStore {
    path: PathBuf,
    requests: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

impl EmbeddedStore {
    /// Opens the store in `directory` for this process alone, and creates both where they are missing (readable by this
    /// user only). `clock` is the time of the store.
    ///
    /// # Errors
    /// If another process has it, or the file there is not one of ours that this program can read. Then nothing was
    /// created or changed.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<EmbeddedStore, OpenError> {
        let opened = file::open(directory)?;
        let queue = queue_table::load(&opened.connection).map_err(|error| match error {
            LoadError::Sql(error) => file::from_sqlite(&opened.path, &error),
            LoadError::Restore(error) => OpenError::Corrupt {
                path: opened.path.clone(),
                detail: error.to_string(),
            },
        })?;
        let (requests, receiver) = mpsc::channel(QUEUE_DEPTH_MAX);
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            connection: opened.connection,
            path: opened.path.clone(),
            wake_at: queue.next_wake_at(clock.now()),
            clock,
            shared: Arc::clone(&shared),
            queue: Some(queue),
            lock: opened.lock,
        };
        let thread = std::thread::Builder::new()
            .name("kalends-store".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| OpenError::Unreadable {
                path: opened.path.clone(),
                error,
            })?;
        Ok(EmbeddedStore {
            path: opened.path,
            requests,
            thread: Mutex::new(Some(thread)),
            shared,
        })
    }

    /// Opens the store in `directory` for looking on, whether or not a process is running it.
    ///
    /// # Errors
    /// If there is none, or the file is not one of ours that this program can read.
    pub fn open_read_only(
        directory: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<EmbeddedReader, OpenError> {
        EmbeddedReader::open(directory, clock)
    }

    /// Transactions that wrote something, since the store was opened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Takes back the jobs that were leased when the store was opened: whoever held them is gone, since the lock lets one
    /// process in at a time. So a process that was killed is followed at once, and not after its leases have run out.
    /// How many there were. To be called before anything is claimed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn recover_orphans(&self) -> Result<u64, StoreUnavailable> {
        match self.command(Work::RecoverOrphans).await?.value {
            Reply::Count { count } => Ok(count),
            other => panic!("a recovery was answered by {other:?}"),
        }
    }

    async fn command(&self, work: Work) -> Result<Stamped<Reply>, StoreUnavailable> {
        let gone = || StoreUnavailable {
            detail: GONE.to_owned(),
        };
        let (caller, reply) = oneshot::channel();
        let caller = Caller::Command(caller);
        let request = Request { work, caller };
        self.requests.send(request).await.map_err(|_| gone())?;
        reply.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Finishes what waits, copies the log into the file and gives the directory back. Later requests fail. Closing
    /// twice does nothing more.
    pub async fn close(&self) {
        // Fails if the thread has ended already: then there is nothing to ask for.
        let _ = self
            .requests
            .send(Request {
                work: Work::Close,
                caller: Caller::Nobody,
            })
            .await;
        self.requests.closed().await;
        self.join();
    }

    /// Resolves when the writing thread takes no more requests: after [`EmbeddedStore::close`], or when it met a fault
    /// that it could not survive. Whoever runs on this store should end then, for every later request fails.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the embedded store's thread ended by a panic");
        }
    }
}

impl Drop for EmbeddedStore {
    /// As [`EmbeddedStore::close`]; blocks for the commit in hand, so that the directory is free afterwards.
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, closed));
        self.join();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        self.command(Work::Command(command)).await
    }

    /// Wakes one waiter each time. A wake that finds nobody waiting is kept for the next one who comes.
    async fn wait_for_wake(&self) {
        self.shared.wake.notified().await;
    }
}

#[async_trait]
impl Graph for EmbeddedStore {
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure> {
        let (caller, reply) = oneshot::channel();
        let request = Request {
            work: Work::Write(Box::new(write)),
            caller: Caller::Write(caller),
        };
        if self.requests.send(request).await.is_err() {
            return Err(Failure::transient(GONE));
        }
        reply
            .await
            .unwrap_or_else(|_| Err(Failure::transient(GONE)))
    }

    async fn remove_user(&self, user: &UserId, fence: LeaseToken) -> Result<bool, Failure> {
        let (caller, reply) = oneshot::channel();
        let request = Request {
            work: Work::RemoveUser(user.clone(), fence),
            caller: Caller::RemoveUser(caller),
        };
        if self.requests.send(request).await.is_err() {
            return Err(Failure::transient(GONE));
        }
        reply
            .await
            .unwrap_or_else(|_| Err(Failure::transient(GONE)))
    }

    async fn snapshot(&self, user: &UserId) -> Result<GraphSnapshot, Failure> {
        read_snapshot(self.path.clone(), user.clone()).await
    }
}

/// Reads a user's graph on a thread and a connection of its own, so that writing goes on meanwhile.
async fn read_snapshot(path: PathBuf, user: UserId) -> Result<GraphSnapshot, Failure> {
    let read = tokio::task::spawn_blocking(move || {
        file::connect_reader(&path)
            .map_err(graph_read::ReadError::Sql)
            .and_then(|connection| graph_read::snapshot(&connection, &user))
            .map_err(|error| {
                Failure::transient(format!(
                    "the graph in {} could not be read: {error}; check the disk, then try again",
                    path.display()
                ))
            })
    });
    read.await.unwrap_or_else(|error| {
        Err(Failure::transient(format!(
            "reading the graph failed: {error}"
        )))
    })
}
