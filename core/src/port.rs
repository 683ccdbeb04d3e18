//! The traits that adapters implement: the queue's store, the source of calendars and the graph.
//!
//! An adapter translates, calls and translates back. It does not retry, sleep or decide.

use serde::{Deserialize, Serialize};

use async_trait::async_trait;

use crate::failure::Failure;
use crate::google::page::FetchReply;
use crate::google::query::FetchRequest;
use crate::graph::{GraphReply, GraphSnapshot, GraphWrite};
use crate::id::UserId;
use crate::queue::command::{Command, LeaseToken, Reply, Stamped};

/// The store could not be asked, or did not answer. Whether the command was applied is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreUnavailable {
    /// What happened and what to do, without secrets.
    pub detail: String,
}

impl std::fmt::Display for StoreUnavailable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for StoreUnavailable {}

/// A queue shared by every process: applies one command at a time, atomically, and keeps what it acknowledged.
#[async_trait]
pub trait Store: Send + Sync {
    /// Applies `command` at the store's own time.
    ///
    /// # Errors
    /// If the store cannot be reached or gave no answer. The command may have been applied; sending it again is safe.
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable>;

    /// Waits until a job may have become due, or some other process did something worth looking at. It may wake for
    /// nothing, and it may miss something: a slow poll stands behind it.
    async fn wait_for_wake(&self);
}

/// Where calendars come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Makes one request and reads its answer.
    ///
    /// # Errors
    /// Whatever the source answered but a page, as a typed failure.
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure>;
}

/// Where calendars are kept.
#[async_trait]
pub trait Graph: Send + Sync {
    /// Applies one write, atomically.
    ///
    /// # Errors
    /// As a typed failure; [`FailureKind::NotReady`](crate::failure::FailureKind::NotReady) if this user has no graph
    /// database.
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure>;

    /// Removes the user's node, once none of the user's calendars is left: the last step when all data of a user go.
    /// A node that a lease with a larger token than `fence` has written to stays. When there is none (any more), writes under
    /// tokens smaller than `fence` that would make a user's node are [`GraphReply::Fenced`] from then on: a writer that slept
    /// brings nothing back. Whether there was one.
    ///
    /// # Errors
    /// As a typed failure; [`FailureKind::Permanent`](crate::failure::FailureKind::Permanent) from a graph that has no
    /// such node.
    async fn remove_user(&self, user: &UserId, fence: LeaseToken) -> Result<bool, Failure> {
        let _ = (user, fence);
        Err(Failure::permanent("this graph cannot remove a user"))
    }

    /// Reads a user's graph back, whole.
    ///
    /// # Errors
    /// As a typed failure.
    async fn snapshot(&self, user: &UserId) -> Result<GraphSnapshot, Failure>;
}
