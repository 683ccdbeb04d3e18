//! What a Neo4j server's error means for us, by its code and never by the HTTP status that carried it.
//!
//! The server answers 202 before it has run a statement, and 400 for a deadlock as for a syntax error, so a status
//! says little. The rules follow the official drivers, with two of our own: every write of ours is idempotent, so
//! an unknown outcome is simply tried again; and a violated uniqueness constraint can only come from two MERGEs of
//! the same new key at once, so it is tried again too.
//!
//! The server's own message is never handed on: it quotes what it complains of, and that is what users wrote into their
//! calendars. The code and our own words are all that a failure says.

use crate::failure::{Failure, FailureKind, LimitScope};
use crate::time::HOUR_MS;

/// How long a user waits whose own database refuses us, in milliseconds: long enough to cost little, short enough that
/// the user follows soon after an operator has granted access.
pub const FORBIDDEN_PAUSE_MS: u64 = HOUR_MS;

/// The longest code that is repeated in an explanation, in bytes. The server's own stay below 80.
const CODE_BYTES_MAX: usize = 128;

/// How users are spread over databases, which decides what a missing database means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseLayout {
    /// All users in one database: if it is missing, the set-up is wrong.
    Shared,
    /// One database a user: if one is missing, that user has no graph yet.
    PerUser,
}

const TRANSIENT: FailureKind = FailureKind::Transient {
    retry_after_ms: None,
};

/// What kind of failure the server's `code` is, such as `Neo.TransientError.Transaction.DeadlockDetected`.
#[must_use]
pub fn kind_of_code(code: &str, layout: DatabaseLayout) -> FailureKind {
    let mut parts = code.splitn(4, '.');
    let (Some("Neo"), Some(class), Some(category), Some(title)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return FailureKind::Permanent;
    };
    match (class, category, title) {
        (_, "General", "MemoryPoolOutOfMemoryError" | "TransactionMemoryLimit")
        | (_, "General", "OutOfMemoryError" | "StackOverFlowError") => FailureKind::TooLarge,
        // An operator or a limit ended the transaction on purpose; the drivers do not try these again either.
        ("TransientError", "Transaction", "Terminated" | "LockClientStopped") => {
            FailureKind::Permanent
        }
        ("TransientError", _, _) => TRANSIENT,
        ("ClientError", "Cluster", "NotALeader")
        | ("ClientError", "General", "ForbiddenOnReadOnlyDatabase")
        | ("ClientError", "Security", "AuthorizationExpired")
        | ("ClientError", "Schema", "ConstraintValidationFailed")
        // Bookmarks are forgotten with the failure, so the next attempt carries none.
        | ("ClientError", "Transaction", "InvalidBookmark" | "InvalidBookmarkMixture")
        // Somebody removed meanwhile what the statement had found; the next attempt finds it gone.
        | ("ClientError", "Statement", "EntityNotFound")
        | ("ClientError", "Transaction", "TransactionTimedOut")
        | ("ClientError", "Transaction", "TransactionTimedOutClientConfiguration") => TRANSIENT,
        // The credentials are good, or the code would be another: one database is closed to them.
        ("ClientError", "Security", "Forbidden" | "AuthorizationFailed")
            if layout == DatabaseLayout::PerUser =>
        {
            FailureKind::Limited {
                scope: LimitScope::User,
                retry_after_ms: Some(FORBIDDEN_PAUSE_MS),
            }
        }
        ("ClientError", "Security", _) => FailureKind::Misconfigured,
        ("ClientError", "Database", "DatabaseNotFound") => match layout {
            DatabaseLayout::Shared => FailureKind::Misconfigured,
            DatabaseLayout::PerUser => FailureKind::NotReady,
        },
        (
            "ClientError",
            "Statement",
            "TypeError"
            | "ArgumentError"
            | "ArithmeticError"
            | "PropertyNotFound"
            | "InvalidTargetTypeArgument"
            | "ConstraintVerificationFailed",
        ) => FailureKind::Rejected,
        // A full disk, an internal fault: nothing that the data did.
        ("DatabaseError", "Schema", _) => FailureKind::Misconfigured,
        ("DatabaseError", "Statement", "CodeGenerationFailed") => FailureKind::Permanent,
        ("DatabaseError", _, _) => TRANSIENT,
        // Among them `Request.*` and `Statement.SyntaxError` and `SemanticError`: the request or the statement is not
        // understood, whatever data it carries, so no smaller batch would fare better.
        _ => FailureKind::Permanent,
    }
}

/// The failure that an error of the server is, in words: its code and ours.
#[must_use]
pub fn failure_of_error(code: &str, layout: DatabaseLayout) -> Failure {
    let kind = kind_of_code(code, layout);
    let advice = match kind {
        FailureKind::Misconfigured => {
            "check the graph's address, user, password and database name, and what that user may do"
        }
        FailureKind::NotReady => "the user has no graph database yet: skipped",
        FailureKind::TooLarge => "fewer events at a time may fit",
        FailureKind::Limited { .. } => {
            "the graph's user may not write to this user's database; grant it, the user is tried again every hour"
        }
        FailureKind::Rejected => "the server does not take some of the data",
        FailureKind::Transient { .. } => "trying again is safe and may help",
        _ => "trying again will not help; Neo4j's own log says more",
    };
    let readable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_';
    let code = if !code.is_empty() && code.len() <= CODE_BYTES_MAX && code.bytes().all(readable) {
        code
    } else {
        "an error without a readable code"
    };
    Failure::new(kind, format!("Neo4j: {code}: {advice}"))
}

/// The failure that an answer without a readable error is: an HTML page of a proxy, an empty refusal, a cut body.
///
/// `retry_after_ms` is what the answer asked for, if anything.
#[must_use]
pub fn failure_of_status(status: u16, retry_after_ms: Option<u64>) -> Failure {
    let (kind, advice) = match status {
        // 202 and its like without a readable body: the outcome is unknown, and trying again is safe.
        200..=299 => (
            TRANSIENT,
            "its body is cut or not JSON; trying again is safe",
        ),
        300..=399 => (
            FailureKind::Misconfigured,
            "it redirects, which is not followed; set the graph's address to where it points",
        ),
        401 | 403 => (
            FailureKind::Misconfigured,
            "check the graph's user and password",
        ),
        406 | 415 => (
            FailureKind::Permanent,
            "it does not speak the Query API's JSON; Neo4j 5.25 or later is needed",
        ),
        404 => (
            TRANSIENT,
            "there is no Query API at this address: Neo4j is older than 5.25, perhaps the database is paused, or the address is \
             another server's",
        ),
        413 => (FailureKind::TooLarge, "fewer events at a time may fit"),
        408 | 425 | 429 | 500..=599 => (
            FailureKind::Transient { retry_after_ms },
            "perhaps the database is paused or starting",
        ),
        // A hosted database that is away answers with a page of whatever stands before it.
        _ => (
            TRANSIENT,
            "this is no answer of Neo4j: perhaps the database is paused, or the address is another server's",
        ),
    };
    Failure::new(kind, format!("Neo4j answered HTTP {status}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: &str) -> FailureKind {
        kind_of_code(code, DatabaseLayout::Shared)
    }

    #[test]
    fn what_passes_is_tried_again() {
        for code in [
            "Neo.TransientError.Transaction.DeadlockDetected",
            "Neo.TransientError.Transaction.LeaderSwitch",
            "Neo.TransientError.General.DatabaseUnavailable",
            "Neo.TransientError.Cluster.ReplicationFailure",
            "Neo.ClientError.Cluster.NotALeader",
            "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
            "Neo.ClientError.Security.AuthorizationExpired",
            "Neo.ClientError.Schema.ConstraintValidationFailed",
            "Neo.ClientError.Transaction.InvalidBookmark",
            "Neo.ClientError.Statement.EntityNotFound",
            "Neo.DatabaseError.General.UnknownError",
            "Neo.DatabaseError.Transaction.TransactionStartFailed",
        ] {
            assert_eq!(kind(code), TRANSIENT, "{code}");
        }
    }

    #[test]
    fn what_stays_is_told_apart() {
        for (code, expected) in [
            (
                "Neo.TransientError.Transaction.Terminated",
                FailureKind::Permanent,
            ),
            (
                "Neo.TransientError.Transaction.LockClientStopped",
                FailureKind::Permanent,
            ),
            (
                "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
                FailureKind::TooLarge,
            ),
            (
                "Neo.TransientError.General.TransactionMemoryLimit",
                FailureKind::TooLarge,
            ),
            (
                "Neo.ClientError.Security.Unauthorized",
                FailureKind::Misconfigured,
            ),
            (
                "Neo.ClientError.Security.AuthenticationRateLimit",
                FailureKind::Misconfigured,
            ),
            (
                "Neo.ClientError.Security.Forbidden",
                FailureKind::Misconfigured,
            ),
            (
                "Neo.ClientError.Database.DatabaseNotFound",
                FailureKind::Misconfigured,
            ),
            ("Neo.ClientError.Statement.TypeError", FailureKind::Rejected),
            (
                "Neo.ClientError.Statement.ArgumentError",
                FailureKind::Rejected,
            ),
            ("Neo.ClientError.Request.Invalid", FailureKind::Permanent),
            (
                "Neo.ClientError.Statement.SemanticError",
                FailureKind::Permanent,
            ),
            (
                "Neo.ClientError.Statement.SyntaxError",
                FailureKind::Permanent,
            ),
            (
                "Neo.ClientError.Statement.ParameterMissing",
                FailureKind::Permanent,
            ),
            ("Neo.ClientError.Brand.New", FailureKind::Permanent),
            ("Something.Else", FailureKind::Permanent),
            ("", FailureKind::Permanent),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }

    #[test]
    fn a_missing_database_is_the_users_or_the_operators() {
        let code = "Neo.ClientError.Database.DatabaseNotFound";
        assert_eq!(
            kind_of_code(code, DatabaseLayout::PerUser),
            FailureKind::NotReady
        );
        assert_eq!(
            kind_of_code(code, DatabaseLayout::Shared),
            FailureKind::Misconfigured
        );
    }

    #[test]
    fn a_closed_database_is_the_users_or_the_operators() {
        let paused = FailureKind::Limited {
            scope: LimitScope::User,
            retry_after_ms: Some(FORBIDDEN_PAUSE_MS),
        };
        for code in [
            "Neo.ClientError.Security.Forbidden",
            "Neo.ClientError.Security.AuthorizationFailed",
        ] {
            assert_eq!(kind_of_code(code, DatabaseLayout::PerUser), paused);
            assert_eq!(kind(code), FailureKind::Misconfigured);
        }
        assert_eq!(
            kind_of_code(
                "Neo.ClientError.Security.Unauthorized",
                DatabaseLayout::PerUser
            ),
            FailureKind::Misconfigured
        );
    }

    #[test]
    fn an_explanation_repeats_nothing_but_a_code() {
        let detail = |code| failure_of_error(code, DatabaseLayout::Shared).detail;
        assert!(
            detail("Neo.ClientError.Statement.TypeError")
                .starts_with("Neo4j: Neo.ClientError.Statement.TypeError: ")
        );
        for code in ["", "Dinner with the private life", &"private".repeat(100)] {
            let detail = detail(code);
            assert!(!detail.contains("private"), "{detail}");
        }
    }

    #[test]
    fn answers_without_an_error_are_judged_by_status() {
        for (status, expected) in [
            (202, TRANSIENT),
            (302, FailureKind::Misconfigured),
            (401, FailureKind::Misconfigured),
            (404, TRANSIENT),
            (406, FailureKind::Permanent),
            (413, FailureKind::TooLarge),
            (
                503,
                FailureKind::Transient {
                    retry_after_ms: Some(7),
                },
            ),
        ] {
            assert_eq!(
                failure_of_status(status, Some(7)).kind,
                expected,
                "{status}"
            );
        }
    }
}
