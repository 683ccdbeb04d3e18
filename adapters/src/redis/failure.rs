//! What Redis refuses or fails at, in words that say what to do.
//!
//! Redis answers an error with a code of capital letters and a sentence. The code decides: what it means for the
//! connection (is it good for another call?), for the store (may it pass, or must an operator act?) and what is said.
//! The sentence is the server's, so it is cut and cleaned before it is shown. Addresses are shown as `host:port`, never
//! with user or password. The codes are those of Redis's own source (`server.c`, `createSharedObjects`, and `acl.c`).

use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::Unusable;

/// The most characters of a server's own text that are shown.
const SERVER_TEXT_LENGTH_MAX: usize = 200;

/// Why a call brought no answer of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What happened and what to do, without secrets.
    pub detail: String,
    /// The code of the server's answer (`OOM`, `READONLY`, one that a script gave), if there was an answer.
    pub code: Option<String>,
    /// Whether an operator must act; else it may pass by itself.
    pub is_refusal: bool,
}

impl CallError {
    /// Something that an operator must cure.
    pub(super) fn refused(detail: impl Into<String>) -> CallError {
        CallError {
            detail: detail.into(),
            code: None,
            is_refusal: true,
        }
    }

    /// Something that may pass.
    pub(super) fn away(detail: impl Into<String>) -> CallError {
        CallError {
            detail: detail.into(),
            code: None,
            is_refusal: false,
        }
    }

    /// What `error` means, met with the server at `address` (without secrets).
    pub(super) fn new(error: &RedisError, address: &str) -> CallError {
        CallError {
            detail: explain(error, address),
            code: code_of(error).map(|code| shown(code, SERVER_TEXT_LENGTH_MAX)),
            is_refusal: is_refusal(error),
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Unusable {
    fn from(error: CallError) -> Unusable {
        match error.is_refusal {
            true => Unusable::Refused {
                detail: error.detail,
            },
            false => Unusable::Away {
                detail: error.detail,
            },
        }
    }
}

/// Whether only an operator can cure it: a wrong password, a missing permission, a server that is not a master, a
/// certificate that is not trusted. All else may pass.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    match code_of(error) {
        Some("ERR") => is_bad_database(error),
        Some(code) => matches!(
            code,
            "WRONGPASS" | "NOAUTH" | "NOPERM" | "READONLY" | "WRONGTYPE" | "NOPROTO"
        ),
        None => {
            is_bad_certificate(error)
                || matches!(
                    error.kind(),
                    ErrorKind::AuthenticationFailed
                        | ErrorKind::InvalidClientConfig
                        | ErrorKind::RESP3NotSupported
                )
        }
    }
}

/// Whether the connection is of no more use: it broke, it answers nonsense, or it leads to a server that cannot serve
/// (any more), so that the next call had better look where the master is.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    match code_of(error) {
        Some(code) => matches!(
            code,
            "READONLY"
                | "LOADING"
                | "MASTERDOWN"
                | "CLUSTERDOWN"
                | "UNBLOCKED"
                | "MOVED"
                | "NOAUTH"
        ),
        None => true,
    }
}

/// The code of a server's answer; `None` if the error is not one of a server.
fn code_of(error: &RedisError) -> Option<&str> {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => error.code(),
        _ => None,
    }
}

fn is_bad_certificate(error: &RedisError) -> bool {
    // rustls tells of a bad certificate by an I/O error of this kind.
    io_kind(error) == Some(io::ErrorKind::InvalidData)
}

/// Whether the connection ended inside a reply.
fn is_cut_reply(error: &RedisError) -> bool {
    // The library gives it as a reply that cannot be parsed, told from nonsense by this line alone; what a server sent is
    // quoted in such a text, and cannot make a line of its own.
    error.kind() == ErrorKind::Parse
        && error
            .to_string()
            .lines()
            .any(|line| line == "Unexpected end of input")
}

fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    // The library keeps what it met in an `Arc`, which is what its `source` gives.
    let source = std::error::Error::source(error)?;
    let met = match source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>() {
        Some(shared) => shared.downcast_ref::<io::Error>(),
        None => source.downcast_ref::<io::Error>(),
    };
    met.map(io::Error::kind)
}

/// Whether a plain `ERR` is about the database number: there is no such one, or, in a Cluster, only 0.
fn is_bad_database(error: &RedisError) -> bool {
    let text = error.detail().unwrap_or_default();
    text.contains("DB index is out of range") || text.contains("SELECT is not allowed")
}

fn explain(error: &RedisError, address: &str) -> String {
    let Some(code) = code_of(error) else {
        return explain_connection(error, address);
    };
    let text = shown(error.detail().unwrap_or_default(), SERVER_TEXT_LENGTH_MAX);
    match code {
        "WRONGPASS" => format!(
            "Redis at {address} refuses user and password (WRONGPASS), or the user is disabled: correct them in the Redis \
             address (special characters percent-encoded)"
        ),
        "NOAUTH" => {
            format!(
                "Redis at {address} wants a password (NOAUTH): write redis://user:password@host, or redis://:password@host"
            )
        }
        "NOPERM" => format!(
            "Redis at {address} does not let this user do it (NOPERM: {text}): give the user the keys and channels of this \
             prefix and the commands it needs (ACL SETUSER)"
        ),
        "READONLY" => format!(
            "Redis at {address} is a replica (READONLY): give the master's address, or redis+sentinel:// to have it followed"
        ),
        "LOADING" => format!(
            "Redis at {address} is loading its data (LOADING): it will answer when that is done"
        ),
        "MASTERDOWN" => {
            format!(
                "Redis at {address} is a replica that lost its master (MASTERDOWN): bring the master back, or fail over"
            )
        }
        "OOM" => format!(
            "Redis at {address} has no memory left (OOM): raise `maxmemory`, or remove what else is kept there; nothing is \
             lost, it goes on when there is room"
        ),
        "MISCONF" => format!(
            "Redis at {address} takes no writes, for it cannot save to its disk (MISCONF): look at its log, free or mend the disk"
        ),
        "NOSCRIPT" => format!(
            "Redis at {address} forgets scripts as soon as they are loaded (NOSCRIPT): is a proxy between that does not know EVALSHA?"
        ),
        "CLUSTERDOWN" => format!(
            "the Redis Cluster at {address} is down (CLUSTERDOWN: {text}): see `redis-cli --cluster check`; every slot needs a master"
        ),
        "MOVED" | "ASK" | "TRYAGAIN" => {
            format!(
                "the Redis Cluster at {address} is moving these keys to another node ({code}): the next call follows them"
            )
        }
        "CROSSSLOT" => format!(
            "Redis at {address} answers CROSSSLOT: {text}; please report this, all keys should share one slot"
        ),
        "BUSY" => format!(
            "Redis at {address} is busy with somebody's endless script (BUSY): end it with SCRIPT KILL, or wait"
        ),
        "NOREPLICAS" => format!(
            "Redis at {address} has too few replicas to take writes (NOREPLICAS): bring them back, or lower min-replicas-to-write"
        ),
        "WRONGTYPE" => format!(
            "keys of this prefix in Redis at {address} are of another kind (WRONGTYPE): another program uses them, choose \
             another prefix"
        ),
        "ERR" if is_bad_database(error) => format!(
            "Redis at {address} has no database of this number ({text}): correct the number at the address's end"
        ),
        _ => format!(
            "Redis at {address} answers {}: {text}",
            shown(code, SERVER_TEXT_LENGTH_MAX)
        ),
    }
}

fn explain_connection(error: &RedisError, address: &str) -> String {
    if error.is_timeout() {
        return format!(
            "Redis at {address} does not answer in time: is it up, overloaded, or behind a firewall?"
        );
    }
    if is_bad_certificate(error) {
        return format!(
            "Redis at {address} could not be spoken to by TLS ({}): is it a TLS port, and is its certificate signed by one \
             that this system (or the given CA file) trusts, for this host name?",
            shown(&error.to_string(), SERVER_TEXT_LENGTH_MAX)
        );
    }
    match (io_kind(error), error.kind()) {
        (Some(io::ErrorKind::ConnectionRefused), _) => {
            format!("nothing listens at {address}: start Redis there, or correct the address")
        }
        (Some(io::ErrorKind::NotFound), _) => {
            format!("there is no {address}: start Redis there, or correct the address")
        }
        (Some(io::ErrorKind::PermissionDenied), _) => {
            format!("this process may not connect to {address}: give its user access to the socket")
        }
        (_, ErrorKind::RESP3NotSupported) => {
            format!(
                "the server at {address} does not know HELLO 3: Redis 6.2 or newer, or Valkey, is needed"
            )
        }
        _ if is_cut_reply(error) => format!(
            "the connection to Redis at {address} broke in the middle of an answer: is it restarting?"
        ),
        (_, ErrorKind::Io) => format!(
            "the connection to Redis at {address} broke ({}): is it restarting?",
            shown(&error.to_string(), SERVER_TEXT_LENGTH_MAX)
        ),
        _ => format!(
            "what Redis at {address} answers cannot be understood ({}): is it a Redis?",
            shown(&error.to_string(), SERVER_TEXT_LENGTH_MAX)
        ),
    }
}

/// `text` without control characters, at most `length_max` characters long.
pub(super) fn shown(text: &str, length_max: usize) -> String {
    text.chars()
        .take(length_max)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
            .and_then(redis::Value::extract_error)
            .unwrap_err()
    }

    #[test]
    fn every_code_says_what_to_do_and_whether_it_may_pass() {
        for (line, words, refusal, ends) in [
            (
                "WRONGPASS invalid username-password pair",
                "percent-encoded",
                true,
                false,
            ),
            (
                "NOAUTH Authentication required.",
                "redis://user:password@host",
                true,
                true,
            ),
            (
                "NOPERM this user has no permissions",
                "ACL SETUSER",
                true,
                false,
            ),
            (
                "READONLY You can't write against a read only replica.",
                "master's address",
                true,
                true,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                "when that is done",
                false,
                true,
            ),
            (
                "MASTERDOWN Link with MASTER is down",
                "fail over",
                false,
                true,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "raise `maxmemory`",
                false,
                false,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                "disk",
                false,
                false,
            ),
            ("NOSCRIPT No matching script.", "EVALSHA", false, false),
            (
                "CLUSTERDOWN Hash slot not served",
                "--cluster check",
                false,
                true,
            ),
            ("MOVED 12 127.0.0.1:1", "follows", false, true),
            (
                "UNBLOCKED force unblock from blocking operation",
                "UNBLOCKED",
                false,
                true,
            ),
            (
                "BUSY Redis is busy running a script.",
                "SCRIPT KILL",
                false,
                false,
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                "min-replicas-to-write",
                false,
                false,
            ),
            (
                "WRONGTYPE Operation against a key",
                "another prefix",
                true,
                false,
            ),
            (
                "ERR DB index is out of range",
                "correct the number",
                true,
                false,
            ),
            ("ERR unknown command", "unknown command", false, false),
        ] {
            let error = answered(line);
            let call_error = CallError::new(&error, "host:1");
            assert!(
                call_error.detail.contains(words),
                "{line}: {}",
                call_error.detail
            );
            assert!(
                call_error.detail.contains("host:1"),
                "{line}: {}",
                call_error.detail
            );
            assert_eq!(call_error.is_refusal, refusal, "{line}");
            assert_eq!(ends_connection(&error), ends, "{line}");
            assert_eq!(call_error.code.as_deref(), line.split(' ').next(), "{line}");
        }
    }

    #[test]
    fn what_breaks_before_an_answer_may_pass_and_ends_the_connection() {
        for (kind, words) in [
            (io::ErrorKind::ConnectionRefused, "nothing listens"),
            (io::ErrorKind::TimedOut, "in time"),
            (io::ErrorKind::BrokenPipe, "broke"),
            (io::ErrorKind::PermissionDenied, "access"),
            (io::ErrorKind::NotFound, "there is no"),
        ] {
            let error = RedisError::from(io::Error::from(kind));
            let call_error = CallError::new(&error, "host:1");
            assert!(call_error.detail.contains(words), "{}", call_error.detail);
            assert!(!call_error.is_refusal && ends_connection(&error));
            assert_eq!(call_error.code, None);
        }
    }

    /// What is met with a server that says `reply` to the first command, and then no more.
    async fn met(reply: &'static [u8]) -> RedisError {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}?protocol=resp3", listener.local_addr().unwrap());
        let client = redis::Client::open(url).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1_024];
            assert!(stream.read(&mut asked).await.unwrap() > 0);
            stream.write_all(reply).await.unwrap();
            stream.shutdown().await.unwrap();
            // Closing with something unread could overtake the reply.
            while stream.read(&mut asked).await.is_ok_and(|length| length > 0) {}
        };
        let (connection, ()) = tokio::join!(client.get_multiplexed_async_connection(), server);
        connection.expect_err("no server answers like this")
    }

    #[tokio::test]
    async fn a_connection_cut_inside_a_reply_broke_and_nonsense_is_nonsense() {
        for reply in [&b"$10\r\nabc"[..], b"%3\r\n+server\r\n", b"+OK"] {
            let error = met(reply).await;
            let call_error = CallError::new(&error, "host:1");
            assert!(call_error.detail.contains("broke"), "{}", call_error.detail);
            assert!(!call_error.is_refusal && ends_connection(&error));
        }
        for reply in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b":\nUnexpected end of input\n\r\n",
        ] {
            let detail = CallError::new(&met(reply).await, "host:1").detail;
            assert!(detail.contains("is it a Redis?"), "{detail}");
        }
    }

    #[test]
    fn a_servers_text_is_cut_and_cleaned() {
        let error = answered(&format!("ERR \u{1b}[31m{}", "x".repeat(10_000)));
        let detail = CallError::new(&error, "host:1").detail;
        assert!(detail.len() < 400, "{}", detail.len());
        assert!(!detail.chars().any(char::is_control));
    }
}
