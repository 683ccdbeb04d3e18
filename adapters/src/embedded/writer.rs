//! The one thread that writes: it owns the connection and the queue, and it commits in groups.
//!
//! Requests wait in a bounded channel. The thread takes all that wait, up to a bound, applies each inside one
//! transaction, commits, and only then answers them all: an answer never runs ahead of the disk, and a hundred callers
//! share one flush. While the thread waits for the disk the next group gathers, so groups grow with the load by
//! themselves and a lone request waits for nobody.
//!
//! If anything goes wrong with the file, the whole group is rolled back, nobody in it is told that it was done, and the
//! queue is read back from the file before the next group: memory never runs ahead of the disk. One graph write that
//! is refused is rolled back alone, by its savepoint.
//!
//! A write that removes a whole calendar's events would keep everybody waiting, leases that run out among them. It is
//! done in steps, one a group and each committed, and its caller is answered after the last: a step that is done twice,
//! or a removal that a crash cut short, leaves nothing wrong, since the write is simply made again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kalends_core::failure::Failure;
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, LeaseToken, Reply, Stamped};
use kalends_core::time::{Clock, Timestamp};
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use super::file::DirectoryLock;
use super::graph_write::{self, Step, Unfinished, WriteError};
use super::queue_table::{self, LoadError};

/// At most this many requests wait for the writing thread; further callers wait to be let in.
pub const QUEUE_DEPTH_MAX: usize = 1_024;
/// At most this many requests share a transaction.
pub const GROUP_MAX: usize = 256;
/// A transaction takes no further request once it holds this many events: large batches gain nothing by waiting for
/// each other, and the log stays short.
pub const GROUP_EVENTS_MAX: usize = 5_000;

/// While this many writes wait for their next step, no new request is taken: they would pile up beside the channel.
const UNFINISHED_MAX: usize = 64;

/// What the thread is asked to do.
pub(super) enum Work {
    /// Apply a command to the queue.
    Command(Command),
    /// Take back the jobs that processes which are gone had leased.
    RecoverOrphans,
    /// Write to the graph.
    Write(Box<GraphWrite>),
    /// Remove a user's node from the graph, if no later lease than this one wrote to it.
    RemoveUser(UserId, LeaseToken),
    /// Do the next step of a write to the graph; only the thread itself asks for this.
    GoOn(Box<Unfinished>),
    /// Finish what waits, copy the log into the file and end.
    Close,
    /// Run SQL within the group.
    #[cfg(test)]
    Execute(String),
    /// Panic.
    #[cfg(test)]
    Panic,
}

impl Work {
    fn events(&self) -> usize {
        match self {
            Work::Write(write) => graph_write::weight_of(write),
            Work::GoOn(unfinished) => graph_write::weight_of(&unfinished.write),
            _ => 0,
        }
    }
}

/// Who waits for the outcome.
pub(super) enum Caller {
    Command(oneshot::Sender<Result<Stamped<Reply>, StoreUnavailable>>),
    Write(oneshot::Sender<Result<GraphReply, Failure>>),
    RemoveUser(oneshot::Sender<Result<bool, Failure>>),
    Nobody,
    #[cfg(test)]
    Execute(oneshot::Sender<()>),
}

impl Caller {
    /// Answers, after the commit. Whoever asked may have gone; what was done stays done.
    fn acknowledge(self, outcome: Outcome) {
        match (self, outcome) {
            (Caller::Command(caller), Outcome::Command(reply)) => drop(caller.send(Ok(reply))),
            (Caller::Write(caller), Outcome::Write(reply)) => drop(caller.send(reply)),
            (Caller::RemoveUser(caller), Outcome::UserRemoved(removed)) => {
                drop(caller.send(Ok(removed)))
            }
            #[cfg(test)]
            (Caller::Execute(caller), Outcome::Nothing) => drop(caller.send(())),
            (Caller::Nobody, Outcome::Nothing) => {}
            _ => panic!("an outcome goes to the one who asked for it"),
        }
    }

    /// Says that nothing was kept.
    fn refuse(self, detail: &str) {
        match self {
            Caller::Command(caller) => drop(caller.send(Err(StoreUnavailable {
                detail: detail.to_owned(),
            }))),
            Caller::Write(caller) => drop(caller.send(Err(Failure::transient(detail)))),
            Caller::RemoveUser(caller) => drop(caller.send(Err(Failure::transient(detail)))),
            Caller::Nobody => {}
            #[cfg(test)]
            Caller::Execute(caller) => drop(caller),
        }
    }
}

/// What work came to, held back until the commit.
enum Outcome {
    Command(Stamped<Reply>),
    Write(Result<GraphReply, Failure>),
    /// Whether a user's node was removed.
    UserRemoved(bool),
    /// One step of it is done.
    Unfinished(Box<Unfinished>),
    Nothing,
}

/// Work with whoever waits for it.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) caller: Caller,
}

/// What the thread shares with its callers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Transactions that wrote something.
    pub(super) commits: AtomicU64,
    /// Told when something may have become claimable.
    pub(super) wake: Notify,
}

/// The thread's belongings.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<Shared>,
    /// `None` after a failure, until it could be read back.
    pub(super) queue: Option<Queue>,
    /// When a claim could give something, as of the last commit.
    pub(super) wake_at: Option<Timestamp>,
    /// Dropped last: nobody else may open the directory before the connection is closed.
    pub(super) lock: DirectoryLock,
}

impl Writer {
    /// Serves requests until the channel closes or [`Work::Close`] comes, and then all that were already waiting.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        // Never more than UNFINISHED_MAX and those of one group.
        let mut unfinished = VecDeque::new();
        while let Some(first) = unfinished.pop_front().or_else(|| requests.blocking_recv()) {
            let mut events = first.work.events();
            group.push(first);
            while group.len() < GROUP_MAX
                && events < GROUP_EVENTS_MAX
                && unfinished.len() < UNFINISHED_MAX
            {
                let Ok(next) = requests.try_recv() else { break };
                events += next.work.events();
                group.push(next);
            }
            if group
                .iter()
                .any(|request| matches!(request.work, Work::Close))
            {
                requests.close();
            }
            self.serve(&mut group, &mut unfinished);
        }
        self.end();
    }

    /// Applies one group, commits it and answers it; what has steps left is put at the end of `unfinished`.
    fn serve(&mut self, group: &mut Vec<Request>, unfinished: &mut VecDeque<Request>) {
        let (work, callers): (Vec<Work>, Vec<Caller>) = group
            .drain(..)
            .map(|request| (request.work, request.caller))
            .unzip();
        let changes_before = self.connection.total_changes();
        match self.apply(work) {
            Ok(outcomes) => {
                if self.connection.total_changes() != changes_before {
                    self.shared.commits.fetch_add(1, Ordering::Relaxed);
                }
                let added = outcomes.iter().any(adds_a_job);
                for (caller, outcome) in callers.into_iter().zip(outcomes) {
                    match outcome {
                        Outcome::Unfinished(rest) => unfinished.push_back(Request {
                            work: Work::GoOn(rest),
                            caller,
                        }),
                        outcome => caller.acknowledge(outcome),
                    }
                }
                self.wake_if_worth_it(added);
            }
            Err(error) => {
                self.roll_back();
                let detail = self.explain(&error);
                tracing::warn!(requests = callers.len(), "{detail}");
                for caller in callers {
                    caller.refuse(&detail);
                }
            }
        }
    }

    /// Applies a group in one transaction and commits it. A transaction that wrote nothing costs no flush.
    fn apply(&mut self, group: Vec<Work>) -> Result<Vec<Outcome>, LoadError> {
        // Taken out, and put back only after the commit: an error on the way leaves it to be read from the file.
        let mut queue = match self.queue.take() {
            Some(queue) => queue,
            None => queue_table::load(&self.connection)?,
        };
        let mut outcomes = Vec::with_capacity(group.len());
        self.execute("BEGIN")?;
        for work in group {
            outcomes.push(match work {
                Work::Command(command) => {
                    let now = self.clock.now();
                    let value = queue.apply(now, command);
                    Outcome::Command(Stamped { now, value })
                }
                Work::RecoverOrphans => {
                    let now = self.clock.now();
                    let count = queue.recover_orphans(now);
                    let value = Reply::Count { count };
                    Outcome::Command(Stamped { now, value })
                }
                Work::Write(write) => self.write(Unfinished::new(*write))?,
                Work::RemoveUser(user, fence) => {
                    let removed = graph_write::remove_user(&self.connection, &user, fence)?;
                    Outcome::UserRemoved(removed)
                }
                Work::GoOn(unfinished) => self.write(*unfinished)?,
                Work::Close => Outcome::Nothing,
                #[cfg(test)]
                Work::Execute(sql) => {
                    self.connection.execute_batch(&sql)?;
                    Outcome::Nothing
                }
                #[cfg(test)]
                Work::Panic => panic!("a test asked for it"),
            });
        }
        queue_table::save(&self.connection, &queue.take_changes())?;
        self.execute("COMMIT")?;
        self.queue = Some(queue);
        Ok(outcomes)
    }

    /// Applies one graph write, or its next step, by itself within the group.
    ///
    /// # Errors
    /// If the file fails: then the whole group fails.
    fn write(&self, mut write: Unfinished) -> rusqlite::Result<Outcome> {
        self.execute("SAVEPOINT one_write")?;
        match graph_write::apply(&self.connection, &mut write) {
            Ok(step) => {
                self.execute("RELEASE one_write")?;
                Ok(match step {
                    Step::Done(reply) => Outcome::Write(Ok(reply)),
                    Step::More => Outcome::Unfinished(Box::new(write)),
                })
            }
            Err(WriteError::Refused(failure)) => {
                self.execute("ROLLBACK TO one_write")?;
                self.execute("RELEASE one_write")?;
                Ok(Outcome::Write(Err(failure)))
            }
            Err(WriteError::Sql(error)) => Err(error),
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Wakes the node if a job was added, or if a claim can give something sooner than was known so far.
    fn wake_if_worth_it(&mut self, added: bool) {
        let Some(queue) = &self.queue else { return };
        let now = self.clock.now();
        let known = self.wake_at.map(|at| at.max(now));
        self.wake_at = queue.next_wake_at(now);
        let sooner = match (self.wake_at, known) {
            (Some(at), Some(known)) => at < known,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if added || sooner {
            self.shared.wake.notify_one();
        }
    }

    fn roll_back(&self) {
        // SQLite rolls back by itself after some errors; then there is nothing left to roll back.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!("{}", self.explain(&LoadError::Sql(error)));
        }
    }

    fn explain(&self, error: &LoadError) -> String {
        format!(
            "{} could not be read or written ({error}) and nothing of this request was kept; check that the disk has space and is healthy, then it goes on by itself",
            self.path.display()
        )
    }

    fn end(self) {
        // Only tidiness: a log that stays behind is read at the next start.
        if let Err(error) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::warn!(
                "the log of {} stays until the next start: {error}",
                self.path.display()
            );
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!("{} was not closed cleanly: {error}", self.path.display());
        }
        drop(self.lock);
    }
}

/// Whether a job was added that a claim may give.
fn adds_a_job(outcome: &Outcome) -> bool {
    let Outcome::Command(reply) = outcome else {
        return false;
    };
    match &reply.value {
        Reply::Enqueued {
            added, coalesced, ..
        } => added + coalesced > 0,
        Reply::Fired { .. } => true,
        _ => false,
    }
}
