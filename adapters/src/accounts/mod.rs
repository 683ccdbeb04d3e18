//! Accounts: the users that were added by command, each with the grant by which Kalends reads the calendar.
//!
//! The problem: users come and go while processes run, their grants are secrets, and whoever adds a user (a command, on
//! any machine) is not the process that syncs. The idea: a register beside the queue that several processes may open at
//! once. Each change gets the next revision, so a running process asks for what came after the last one that it saw; and
//! a removed account stays for a while as a note without any secret, so that the removal is seen, too.
//!
//! The register is a file of its own in the folder of the embedded store ([`AccountsFile`]: the queue's file belongs to one process
//! at a time, this one does not), or keys beside the queue's in Redis ([`RedisAccounts`]). Grants come and go sealed
//! ([`seal`](crate::seal)): neither of the two ever has a key.

mod file;
mod redis;
mod row;

use async_trait::async_trait;
use kalends_core::id::UserId;
use kalends_core::port::StoreUnavailable;
use kalends_core::time::{DAY_MS, Timestamp};
use serde::{Deserialize, Serialize};

use crate::seal::Sealed;

pub use file::{ACCOUNTS_FILE_NAME, AccountsFile};
pub use redis::RedisAccounts;

/// The most accounts or changes in one answer.
pub const PAGE_MAX: u32 = 250;
/// The note of a removed account is kept for so long, in milliseconds: a process that is up has seen it long before, and
/// one that starts compares everybody.
pub const NOTE_MS: u64 = 30 * DAY_MS;

/// How an account is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The refresh token.
    pub sealed: Sealed,
    /// Tells one grant of a user from another; the token cannot be had back from it. As hexadecimal text, since not
    /// every reader of JSON keeps 64 bits.
    #[serde(with = "row::hexadecimal")]
    pub fingerprint: u64,
    /// The scopes that were granted, as far as they are known.
    pub scopes: Vec<String>,
    /// Whose calendars they are at the source, if it is known.
    pub account: Option<String>,
    /// When it was connected.
    pub connected_at: Timestamp,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Who it is.
    pub user: UserId,
    /// By what; `None`: not connected (a service account needs no grant of the user's).
    pub grant: Option<Grant>,
    /// The user's graph database, if each user has one.
    pub graph_database: Option<String>,
    /// When it was added.
    pub added_at: Timestamp,
}

/// An account as it stands in the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Grows with each change of the register.
    pub revision: u64,
    /// The account.
    pub account: Account,
}

/// What became of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, new or changed.
    Kept(Account),
    /// It was removed.
    Removed {
        /// Who it was.
        user: UserId,
        /// Whether what was synced of the user is still to be removed from the graph.
        purge: bool,
    },
}

/// A page of changes, in the order of their revisions. Of several changes of an account there is the last one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Revision and change.
    pub changes: Vec<(u64, Change)>,
    /// The last revision of all. Less than what a process saw before: the register was emptied meanwhile.
    pub revision: u64,
}

/// What has to stand in the register for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No account of that name.
    Absent,
    /// The account at this revision.
    Revision(u64),
}

/// The register of accounts. A change is atomic, and durable when it is answered.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// One account.
    ///
    /// # Errors
    /// If the register cannot be read.
    async fn find(&self, user: &UserId) -> Result<Option<Stored>, StoreUnavailable>;

    /// Writes an account if the register holds what is `expected`; whether it did.
    ///
    /// # Errors
    /// If the register cannot be written. It may have been, all the same.
    async fn put(&self, account: Account, expected: Expected) -> Result<bool, StoreUnavailable>;

    /// Removes an account with its grant, at `now`, and notes whether its graph is to be emptied; whether there was one.
    /// Without an account, a wish to empty the graph is noted all the same.
    ///
    /// # Errors
    /// As [`Accounts::put`].
    async fn remove(
        &self,
        user: &UserId,
        purge: bool,
        now: Timestamp,
    ) -> Result<bool, StoreUnavailable>;

    /// Notes that the graph of a removed account is empty.
    ///
    /// # Errors
    /// As [`Accounts::put`].
    async fn purged(&self, user: &UserId) -> Result<(), StoreUnavailable>;

    /// Accounts by name, after `after`; at most [`PAGE_MAX`].
    ///
    /// # Errors
    /// If the register cannot be read.
    async fn page(
        &self,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreUnavailable>;

    /// What changed after revision `after`; at most [`PAGE_MAX`] changes. From 0: everything.
    ///
    /// # Errors
    /// If the register cannot be read.
    async fn changes(&self, after: u64, limit: u32) -> Result<Changes, StoreUnavailable>;
}
