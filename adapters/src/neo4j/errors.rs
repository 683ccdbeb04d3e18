//! What went wrong before or around an answer of the server, as a [`Failure`].
//!
//! The meaning of the server's own error codes is core's: [`kalends_core::graph::server_failure`].

use std::error::Error;
use std::fmt;

use kalends_core::failure::Failure;

/// Why a [`Neo4jGraph`](super::Neo4jGraph) could not be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// The address is not a URL; says why.
    Url(String),
    /// The address is neither `https` nor on this machine, so the password would travel in the clear.
    Insecure(String),
    /// The HTTP client could not be made; says why.
    Client(String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::Url(why) => write!(
                formatter,
                "the graph's address is not a URL ({why}); write it like https://graph.example.com:7473"
            ),
            SettingsError::Insecure(scheme) => write!(
                formatter,
                "the graph's address begins with {scheme}://, which would send the password unprotected; \
                 use https:// (http:// only for this machine)"
            ),
            SettingsError::Client(why) => {
                write!(formatter, "the HTTP client cannot be made: {why}")
            }
        }
    }
}

impl Error for SettingsError {}

/// The failure that a request without an answer is. Whether the statement ran is not known; trying again is safe.
pub(super) fn failure_of_transport(error: &reqwest::Error) -> Failure {
    let what = if error.is_timeout() {
        "did not answer in time"
    } else if error.is_connect() {
        "cannot be reached: perhaps the database is paused, or the address is wrong"
    } else {
        "broke off in the middle of an answer"
    };
    Failure::transient(format!("Neo4j {what} ({})", innermost(error)))
}

/// The innermost cause: the outer ones repeat the address, which may hold a user's name.
fn innermost(error: &reqwest::Error) -> String {
    /// Chains of causes are a handful long.
    const CAUSES_MAX: usize = 16;
    let mut cause: &dyn Error = error;
    for _ in 0..CAUSES_MAX {
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    if std::ptr::addr_eq(cause, error) {
        return "no further cause given".to_owned();
    }
    cause.to_string()
}
