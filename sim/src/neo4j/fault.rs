//! What can go wrong with one statement, on demand.

use super::answer::ServerError;

/// A fault that befalls one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused before any data, with this HTTP status: nothing is changed.
    Refused(u16, ServerError),
    /// Status 202, then an error after the data: nothing is changed.
    FailedAfterData(ServerError),
    /// A page of HTML with this status, as a proxy gives while the database is paused: nothing is changed.
    Html(u16),
    /// The statement is applied, but its answer is no whole JSON.
    CutBody,
    /// The connection breaks within the answer; the statement is applied.
    CutConnection,
    /// The statement is applied, and the answer is lost.
    LostAfter,
    /// The request is lost: nothing is changed.
    LostBefore,
}

impl Fault {
    /// Two transactions waited for each other and this one was ended.
    #[must_use]
    pub fn deadlock() -> Self {
        Fault::Refused(
            400,
            ServerError::new(
                "Neo.TransientError.Transaction.DeadlockDetected",
                "this transaction waited in a circle and was ended",
            ),
        )
    }

    /// The cluster's leader changed during the transaction.
    #[must_use]
    pub fn leader_switch() -> Self {
        Fault::FailedAfterData(ServerError::new(
            "Neo.TransientError.Transaction.LeaderSwitch",
            "the leader changed before the commit",
        ))
    }

    /// The member that was asked is not the leader.
    #[must_use]
    pub fn not_a_leader() -> Self {
        Fault::Refused(
            400,
            ServerError::new(
                "Neo.ClientError.Cluster.NotALeader",
                "this member does not take writes",
            ),
        )
    }

    /// The statement needed more memory than a transaction may have.
    #[must_use]
    pub fn memory_limit() -> Self {
        Fault::FailedAfterData(ServerError::new(
            "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
            "the transaction grew beyond its memory limit",
        ))
    }

    /// The password was changed.
    #[must_use]
    pub fn wrong_password() -> Self {
        Fault::Refused(
            401,
            ServerError::new(
                "Neo.ClientError.Security.Unauthorized",
                "Invalid credential.",
            ),
        )
    }
}
