//! The one connection that all calls of a process share.
//!
//! Problem: a server restarts, hangs, fails over, forgets its scripts, or is not there yet; the core asks again by its
//! own backoff and wants a prompt and honest answer each time. Idea: there is either one live connection or none. A call
//! uses it, or makes it first. Whatever shows that the connection is of no more use (`ends_connection` knows) ends it for
//! everybody, and the next call makes a new one. So there is no loop, no wait and no background task here, and nothing is
//! sent again behind the core's back: the one exception is `EVALSHA` after `NOSCRIPT`, which was not executed.
//!
//! Invariants:
//! - No lock is held while an answer is awaited: concurrent calls are pipelined, and what is asked at the same moment
//!   leaves in one write.
//! - Only one call connects; the others wait for its result and share its failure.
//! - A connection is used only after the server behind it passed the check of its role, memory policy and format.

pub(super) mod dial;

pub use super::failure::CallError;
pub use super::wake::Wake;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, ToRedisArgs, Value};

use self::dial::{Connection, Dialer, OnPush};
use super::BadAddress;
use super::check::{self, Checked, Purpose};
use super::failure::ends_connection;
use super::settings::RedisSettings;

/// A call that its caller gave up after this long makes the connection suspect: it may be dead, and no later caller may
/// have more patience.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// The way to one server: see the module's text. Shared by reference.
pub struct Link {
    dialer: Arc<Dialer>,
    prefix: String,
    purpose: Purpose,
    live: Mutex<Option<Connection>>,
    connecting: tokio::sync::Mutex<Connecting>,
}

/// What is known from the last connecting.
#[derive(Default)]
struct Connecting {
    failed: Option<(Instant, CallError)>,
    checked: Option<Checked>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Link")
            .field("dialer", &self.dialer)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A link that is not connected yet. Does nothing that could wait.
    ///
    /// # Errors
    /// If the settings cannot be understood.
    pub fn new(settings: &RedisSettings) -> Result<Link, BadAddress> {
        Link::with_purpose(settings, Purpose::Work)
    }

    /// As [`Link::new`], for somebody who only looks: connecting writes nothing.
    pub(crate) fn only_looking(settings: &RedisSettings) -> Result<Link, BadAddress> {
        Link::with_purpose(settings, Purpose::Look)
    }

    fn with_purpose(settings: &RedisSettings, purpose: Purpose) -> Result<Link, BadAddress> {
        Ok(Link {
            dialer: Arc::new(Dialer::new(settings, check::format_key(&settings.prefix))?),
            prefix: settings.prefix.clone(),
            purpose,
            live: Mutex::new(None),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// A listener for what is published to the prefix's wake-up channel, on a connection of its own.
    #[must_use]
    pub fn wake(&self) -> Wake {
        Wake::new(Arc::clone(&self.dialer), &self.prefix)
    }

    /// Runs `script`, all of whose keys have the prefix's hash tag. Connects first if need be. If the server does not
    /// know the script, it is loaded. Takes at most a few connect timeouts and response timeouts.
    ///
    /// # Errors
    /// If no answer came, in which case the script may have been run; or if the server, or the script, answered an error.
    pub async fn call(
        &self,
        script: &Script,
        keys: &[impl ToRedisArgs],
        arguments: &[&[u8]],
    ) -> Result<Value, CallError> {
        let command = invocation(script, keys, arguments);
        let connection = match self.live() {
            Some(connection) => connection,
            // Boxed, as it is large, and nearly every call does without it.
            None => Box::pin(self.connection()).await?,
        };
        let unanswered = Unanswered::new(&connection);
        let mut answer = connection.ask(&command).await;
        if answer.as_ref().is_err_and(is_unknown_script) {
            answer = Box::pin(load_and_ask(&connection, script, &command)).await;
        }
        unanswered.answered();
        answer.map_err(|error| failed(&connection, &error))
    }

    /// Connects if need be, and looks whether the server may be used (again, if it was connected already).
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn check(&self) -> Result<(), CallError> {
        let Some(connection) = self.live() else {
            return self.connection().await.map(drop);
        };
        let mut connecting = self.connecting.lock().await;
        let checked = self
            .inspect(&connection, connecting.checked.as_ref())
            .await?;
        connecting.checked = Some(checked);
        Ok(())
    }

    /// The live connection, if there is one.
    fn live(&self) -> Option<Connection> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(Connection::is_lost) {
            *live = None;
        }
        live.clone()
    }

    /// The live connection, or a new one.
    async fn connection(&self) -> Result<Connection, CallError> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let mut connecting = self.connecting.lock().await;
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        if let Some((at, error)) = &connecting.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        match self.connect(connecting.checked.as_ref()).await {
            Ok((connection, checked)) => {
                connecting.failed = None;
                connecting.checked = Some(checked);
                *self.live.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                connecting.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(
        &self,
        checked_before: Option<&Checked>,
    ) -> Result<(Connection, Checked), CallError> {
        let nothing: OnPush = Arc::new(|_| {});
        let connection = self.dialer.connect(&nothing).await?;
        let checked = self.inspect(&connection, checked_before).await?;
        Ok((connection, checked))
    }

    /// A server that does not pass is left at once: it is looked at anew at the next call.
    async fn inspect(
        &self,
        connection: &Connection,
        checked_before: Option<&Checked>,
    ) -> Result<Checked, CallError> {
        let wanted = (self.prefix.as_str(), self.purpose);
        let checked = check::check(connection, &self.dialer, wanted, checked_before).await;
        checked.inspect_err(|_| connection.give_up())
    }
}

/// The script's call in one buffer. (The library's own would give each key a buffer first.)
fn invocation(script: &Script, keys: &[impl ToRedisArgs], arguments: &[&[u8]]) -> Cmd {
    /// About what a key takes, in bytes.
    const KEY_BYTES: usize = 64;
    let bytes: usize = arguments.iter().map(|argument| argument.len()).sum();
    let count = 3 + keys.len() + arguments.len();
    let mut command = Cmd::with_capacity(count, 128 + keys.len() * KEY_BYTES + bytes);
    command
        .arg("EVALSHA")
        .arg(script.get_hash())
        .arg(keys.len())
        .arg(keys);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

async fn load_and_ask(
    connection: &Connection,
    script: &Script,
    command: &Cmd,
) -> Result<Value, RedisError> {
    script.load_async(&mut connection.handle()).await?;
    connection.ask(command).await
}

/// Ends the connection if `error` says so, and puts the error into words.
fn failed(connection: &Connection, error: &RedisError) -> CallError {
    if ends_connection(error) {
        connection.give_up();
    }
    CallError::new(error, &connection.address)
}

/// A call under way. Dropped with it when its caller has no more patience.
struct Unanswered<'a> {
    connection: Option<&'a Connection>,
    since: Instant,
}

impl<'a> Unanswered<'a> {
    fn new(connection: &'a Connection) -> Self {
        Unanswered {
            connection: Some(connection),
            since: Instant::now(),
        }
    }

    fn answered(mut self) {
        self.connection = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection
            && self.since.elapsed() >= SUSPECT_AFTER
        {
            connection.give_up();
        }
    }
}
