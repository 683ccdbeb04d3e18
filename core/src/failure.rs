//! How an effect can fail: typed, so that nothing is ever a silent success and every kind has one meaning.

use serde::{Deserialize, Serialize};

/// The longest explanation that is kept with a failure, in characters.
pub const DETAIL_CHARS_MAX: usize = 500;

/// What a rate limit closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// One user's gate: only this user's jobs wait.
    User,
    /// The whole source: nobody asks it for anything until the gate opens.
    Source,
}

/// What kind of failure it is, and so what is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FailureKind {
    /// The world was bad for a moment (5xx, a cut connection, a deadlock): the same request may succeed later.
    Transient {
        /// How long the other side asked us to wait, in milliseconds, if it said so.
        retry_after_ms: Option<u64>,
    },
    /// A rate limit or a quota: wait, and do not count the attempt.
    Limited {
        /// What has to wait.
        scope: LimitScope,
        /// How long, in milliseconds; `None` if the other side did not say.
        retry_after_ms: Option<u64>,
    },
    /// The user's grant is gone or too narrow: only the user can mend it.
    Unauthorized,
    /// The sync token or page token is of no use any more: a full pass is needed.
    Gone {
        /// The token was refused as malformed (HTTP 400), which points at a fault of ours.
        malformed: bool,
    },
    /// This calendar does not exist or is not readable any more; the user's other calendars may be.
    CalendarUnavailable,
    /// The user has nothing to write to (no graph database): skipped, not failed.
    NotReady,
    /// The request is larger than the other side can take: send less at a time.
    TooLarge,
    /// The other side understood and refused the data; some part of it will never be accepted.
    Rejected,
    /// Our own set-up is wrong (API not enabled, client deleted, wrong graph password): everybody is affected,
    /// an operator must act.
    Misconfigured,
    /// Nothing of the above: trying again will not help.
    Permanent,
}

/// A failure with its explanation. The explanation is for people; decisions look only at the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened, in words, without secrets and at most [`DETAIL_CHARS_MAX`] characters.
    pub detail: String,
}

impl Failure {
    /// A failure of `kind`, explained by `detail` (cut to [`DETAIL_CHARS_MAX`] characters).
    #[must_use]
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(DETAIL_CHARS_MAX) {
            detail.truncate(end);
        }
        Failure { kind, detail }
    }

    /// A transient failure without a wish how long to wait.
    #[must_use]
    pub fn transient(detail: impl Into<String>) -> Self {
        Failure::new(
            FailureKind::Transient {
                retry_after_ms: None,
            },
            detail,
        )
    }

    /// A permanent failure.
    #[must_use]
    pub fn permanent(detail: impl Into<String>) -> Self {
        Failure::new(FailureKind::Permanent, detail)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}
