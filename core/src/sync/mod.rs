//! The Sync machine: one user's job, from cursor to cursor.
//!
//! ```text
//! begin ─► calendars? ─► for each calendar: fetch page ─► write batch ─► checkpoint ─┐
//!                              ▲                                                     │ more pages
//!                              └─────────────────────────────────────────────────────┘
//!                        full pass: sweep ─► next calendar ─► ... ─► End
//! ```
//!
//! The machine asks for one thing at a time (a [`Step`]) and is told how it went ([`SyncMachine::resume`]). It holds no
//! more than one page. What it relies on, and what it guarantees:
//!
//! - A page is written before the cursor moves past it, so a crash repeats a page but never loses one; writes are
//!   idempotent and fenced, so repeating is harmless.
//! - A lost token (410) leads to one full pass in the same job, which stamps a generation of its own and sweeps what it
//!   did not see: nothing is wiped first. A second 410 in the same job is an error, and full resyncs have a budget a day.
//! - An event that Google or the graph spoilt is quarantined alone; a batch that the graph refuses is halved until the
//!   guilty event stands alone.
//! - Every request is made with leave: the first comes with the lease, each further one with a checkpoint.
//!
//! The sync protocol is Google's "Synchronize resources efficiently" guide; [`crate::google::query`] has the details.

pub mod convert;
pub mod cursor;
mod machine;
mod page;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::google::page::FetchReply;
use crate::google::query::{FetchRequest, PAGE_SIZE_DEFAULT};
use crate::graph::{GraphReply, GraphWrite};
use crate::id::CalendarId;
use crate::push::PushSettings;
use crate::queue::command::CommitOutcome;
use crate::time::{DAY_MS, Timestamp};

pub use machine::{FULL_ONLY_SUFFIX, SyncMachine};

/// At most this many calendars of one user are kept.
pub const CALENDARS_MAX: usize = 250;
/// At most this many pages of the list of calendars are read.
pub const CALENDAR_PAGES_MAX: u32 = 20;
/// At most this many pages make one traversal of a calendar: ten thousand pages of 250 are 2.5 million events.
pub const PAGES_A_PASS_MAX: u32 = 10_000;
/// The longest page token or sync token that is kept, in bytes; Google's have some hundred.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Which of a user's calendars are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CalendarSelection {
    /// The primary calendar, by Google's keyword `primary`.
    Primary,
    /// These, by id.
    List(Vec<CalendarId>),
    /// Every calendar in the user's list whose events the user may read.
    AllReadable,
}

/// How a source is synced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// Which calendars.
    pub calendars: CalendarSelection,
    /// Events a page, 1 to 2,500. Default 250.
    pub page_size: u32,
    /// How far the first sync looks back, in milliseconds. Default 90 days.
    pub look_back_ms: u64,
    /// Full resyncs of one calendar a day, at the most. Default 4.
    pub resyncs_a_day_max: u32,
    /// How calendars are watched by push channels; `None`: not at all, and channels that there are are stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushSettings>,
}

impl Default for SyncSettings {
    fn default() -> Self {
        SyncSettings {
            calendars: CalendarSelection::Primary,
            page_size: PAGE_SIZE_DEFAULT,
            look_back_ms: 90 * DAY_MS,
            resyncs_a_day_max: 4,
            push: None,
        }
    }
}

/// What the machine wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make this request; leave for it has been obtained.
    Fetch(FetchRequest),
    /// Write this to the graph.
    Write(GraphWrite),
    /// Save the progress, and ask leave for more requests.
    Checkpoint {
        /// The cursor as it stands.
        progress: String,
        /// How many requests: 1, or 0 where the job only saves before it ends.
        requests: u32,
    },
    /// The job is over.
    End(End),
}

/// How a step went.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Step::Fetch`].
    Fetched(Result<FetchReply, Failure>),
    /// To [`Step::Write`].
    Written(Result<GraphReply, Failure>),
    /// To [`Step::Checkpoint`]: saved. Without `wait_until`, the request may be made.
    Saved {
        /// The request has to wait until then.
        wait_until: Option<Timestamp>,
    },
}

/// How the job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All is committed with this cursor.
    Done {
        /// The new cursor.
        cursor: String,
        /// For the history.
        outcome: CommitOutcome,
    },
    /// No leave for a request before then; the progress is saved, the job can go back.
    Wait {
        /// Until when.
        until: Timestamp,
    },
    /// Something failed; what follows depends on the kind.
    Failed(Failure),
    /// A later lease has written to the graph: this one is lost.
    LeaseLost,
}

/// What the job did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events written or changed.
    pub upserted: u64,
    /// Events removed.
    pub deleted: u64,
    /// Events set aside.
    pub quarantined: u64,
    /// Requests made.
    pub requests: u64,
    /// Graph writes asked for.
    pub graph_writes: u64,
    /// A full pass was made.
    pub full: bool,
    /// Tokens that Google refused as malformed: a fault of ours, worth an alarm.
    pub malformed_tokens: u64,
    /// Calendars that could not be read.
    pub unavailable: u64,
}

#[cfg(test)]
mod tests;
