//! The queue: a value that takes a command and gives a reply.

pub mod command;
pub mod state;

pub use command::{Command, Reply};

/// A "sync now" goes ahead of scheduled work at most once in this time for one user, in milliseconds.
pub const SYNC_NOW_INTERVAL_MS: u64 = 60_000;
/// The first pause after a "slow down" without a wish how long, in milliseconds.
pub const GATE_BASE_MS: u64 = 1_000;
/// The longest such pause, in milliseconds (Google's advice: truncated exponential backoff up to 64 s).
pub const GATE_CAP_MS: u64 = 64_000;
/// The longest pause that a source can impose with one answer, in milliseconds.
pub const GATE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
