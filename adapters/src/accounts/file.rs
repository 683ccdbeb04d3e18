//! The register as a file: SQLite, opened by each process that needs it, for each question anew.
//!
//! Questions are few (a token an hour and user, a look every few seconds), so a connection is made for each, on a thread
//! that may wait. Nobody holds the file in between, and SQLite's own locks let several processes write in turn.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use kalends_core::id::UserId;
use kalends_core::port::StoreUnavailable;
use kalends_core::time::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use super::row::Row;
use super::{Account, Accounts, Changes, Expected, NOTE_MS, PAGE_MAX, Stored};
use crate::embedded::{create_directory, private_file};

/// The name of the file, beside the queue's.
pub const ACCOUNTS_FILE_NAME: &str = "accounts.db";
/// Marks the file as ours, in its header: "Kaln" in ASCII, as the queue's.
const APPLICATION_ID: i32 = 0x4b61_6c6e;
/// The version of the tables below.
const SCHEMA_VERSION: i32 = 1;
/// How long one process waits for another one's write, in milliseconds.
const BUSY_TIMEOUT_MS: u64 = 5_000;

const TABLES: &str = "
CREATE TABLE account (
  user TEXT PRIMARY KEY,
  revision INTEGER NOT NULL UNIQUE,
  removed_at INTEGER,
  row TEXT NOT NULL
) STRICT;
CREATE TABLE revision (last INTEGER NOT NULL) STRICT;
INSERT INTO revision VALUES (0);
";

/// The register in a folder. Nothing is made before something is written.
#[derive(Clone, Debug)]
pub struct AccountsFile {
    folder: PathBuf,
}

enum Failure {
    Sql(rusqlite::Error),
    Words(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Failure::Words(words)
    }
}

impl AccountsFile {
    /// The register in the folder of the embedded store.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        AccountsFile {
            folder: folder.to_owned(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(ACCOUNTS_FILE_NAME)
    }

    /// Does `work` on a connection, on a thread that may wait; `absent` if there is no file yet.
    async fn read<T: Send + 'static>(
        &self,
        absent: T,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreUnavailable> {
        let path = self.path();
        self.on_a_thread(move || {
            if !path.exists() {
                return Ok(absent);
            }
            work(&open(&path)?)
        })
        .await
    }

    /// Does `work` in one transaction, and makes folder and file first where they are missing.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreUnavailable> {
        let (folder, path) = (self.folder.clone(), self.path());
        self.on_a_thread(move || {
            create_directory(&folder).map_err(|error| error.to_string())?;
            let made = private_file().open(&path);
            drop(made.map_err(|error| error.to_string())?);
            let mut connection = open(&path)?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: i32 =
                transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                transaction.execute_batch(&format!(
                    "{TABLES}PRAGMA application_id = {APPLICATION_ID};PRAGMA user_version = {SCHEMA_VERSION};"
                ))?;
            }
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreUnavailable> {
        let unavailable = |words: String| StoreUnavailable {
            detail: format!(
                "the accounts in {} cannot be used: {words}; check the disk and who may write there, then try again",
                self.path().display()
            ),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Failure::Sql(error))) => Err(unavailable(error.to_string())),
            Ok(Err(Failure::Words(words))) => Err(unavailable(words)),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }
}

fn open(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    // A removed grant is overwritten, not only let go of. Without a log beside it the file is all there is of it.
    connection.execute_batch("PRAGMA secure_delete = ON; PRAGMA synchronous = FULL;")?;
    let mark = |name: &str| connection.query_row(name, [], |row| row.get::<_, i32>(0));
    let (id, version) = (mark("PRAGMA application_id")?, mark("PRAGMA user_version")?);
    match (id, version) {
        (APPLICATION_ID, SCHEMA_VERSION) | (0, 0) => Ok(connection),
        (APPLICATION_ID, newer) => Err(Failure::Words(format!(
            "its schema has version {newer} and this Kalends knows {SCHEMA_VERSION}, so use the newer Kalends that wrote it"
        ))),
        _ => Err(Failure::Words("another program wrote that file".to_owned())),
    }
}

/// Whether the tables are there: another process may be about to make them.
fn is_made(connection: &Connection) -> Result<bool, Failure> {
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(version != 0)
}

fn next_revision(connection: &Connection) -> Result<i64, Failure> {
    connection.execute("UPDATE revision SET last = last + 1", [])?;
    Ok(connection.query_row("SELECT last FROM revision", [], |row| row.get(0))?)
}

fn write_row(
    connection: &Connection,
    user: &UserId,
    row: &Row,
    removed_at: Option<Timestamp>,
) -> Result<(), Failure> {
    let revision = next_revision(connection)?;
    connection.execute(
        "INSERT INTO account (user, revision, removed_at, row) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (user) DO UPDATE SET revision = ?2, removed_at = ?3, row = ?4",
        params![
            user.as_str(),
            revision,
            removed_at.map(Timestamp::as_ms),
            row.text()
        ],
    )?;
    Ok(())
}

fn read_row(connection: &Connection, user: &UserId) -> Result<Option<(u64, Row)>, Failure> {
    let found: Option<(i64, String)> = connection
        .query_row(
            "SELECT revision, row FROM account WHERE user = ?1",
            [user.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    match found {
        None => Ok(None),
        Some((revision, text)) => Ok(Some((revision.cast_unsigned(), Row::read(&text)?))),
    }
}

fn name(text: &str) -> Result<UserId, Failure> {
    UserId::new(text).map_err(|error| Failure::Words(format!("a name in it {error}")))
}

#[async_trait]
impl Accounts for AccountsFile {
    async fn find(&self, user: &UserId) -> Result<Option<Stored>, StoreUnavailable> {
        let user = user.clone();
        self.read(None, move |connection| {
            if !is_made(connection)? {
                return Ok(None);
            }
            Ok(match read_row(connection, &user)? {
                Some((revision, Row::Kept(account))) => Some(Stored { revision, account }),
                _ => None,
            })
        })
        .await
    }

    async fn put(&self, account: Account, expected: Expected) -> Result<bool, StoreUnavailable> {
        self.write(move |connection| {
            let found = match read_row(connection, &account.user)? {
                Some((revision, Row::Kept(_))) => Expected::Revision(revision),
                _ => Expected::Absent,
            };
            if found != expected {
                return Ok(false);
            }
            let user = account.user.clone();
            write_row(connection, &user, &Row::Kept(account), None)?;
            Ok(true)
        })
        .await
    }

    async fn remove(
        &self,
        user: &UserId,
        purge: bool,
        now: Timestamp,
    ) -> Result<bool, StoreUnavailable> {
        let user = user.clone();
        self.write(move |connection| {
            let found = read_row(connection, &user)?;
            let was_there = matches!(found, Some((_, Row::Kept(_))));
            if was_there || purge {
                write_row(connection, &user, &Row::Removed { purge }, Some(now))?;
            }
            let old = now.as_ms().saturating_sub_unsigned(NOTE_MS);
            connection.execute("DELETE FROM account WHERE removed_at < ?1", [old])?;
            Ok(was_there)
        })
        .await
    }

    async fn purged(&self, user: &UserId) -> Result<(), StoreUnavailable> {
        let user = user.clone();
        self.write(move |connection| {
            // No new revision: nobody has to do anything about it.
            if let Some((_, Row::Removed { purge: true })) = read_row(connection, &user)? {
                let row = Row::Removed { purge: false };
                connection.execute(
                    "UPDATE account SET row = ?2 WHERE user = ?1",
                    params![user.as_str(), row.text()],
                )?;
            }
            Ok(())
        })
        .await
    }

    async fn page(
        &self,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreUnavailable> {
        // No name sorts before the empty one.
        let after = after.map_or_else(String::new, |user| user.as_str().to_owned());
        self.read(Vec::new(), move |connection| {
            if !is_made(connection)? {
                return Ok(Vec::new());
            }
            let mut statement = connection.prepare(
                "SELECT revision, row FROM account WHERE user > ?1 AND removed_at IS NULL ORDER BY user LIMIT ?2",
            )?;
            let rows = statement.query_map(params![after, limit.min(PAGE_MAX)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut page = Vec::new();
            for row in rows {
                let (revision, text) = row?;
                if let Row::Kept(account) = Row::read(&text)? {
                    let revision = revision.cast_unsigned();
                    page.push(Stored { revision, account });
                }
            }
            Ok(page)
        })
        .await
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Changes, StoreUnavailable> {
        let nothing = Changes {
            changes: Vec::new(),
            revision: 0,
        };
        let absent = nothing.clone();
        self.read(absent, move |connection| {
            if !is_made(connection)? {
                return Ok(nothing);
            }
            // Of one moment, both.
            let connection = connection.unchecked_transaction()?;
            let last: i64 =
                connection.query_row("SELECT last FROM revision", [], |row| row.get(0))?;
            let mut statement = connection.prepare(
                "SELECT user, revision, row FROM account WHERE revision > ?1 ORDER BY revision LIMIT ?2",
            )?;
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![after, limit.min(PAGE_MAX)], |row| {
                let user: String = row.get(0)?;
                Ok((user, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
            })?;
            let mut changes = Vec::new();
            for row in rows {
                let (user, revision, text) = row?;
                let change = Row::read(&text)?.change(name(&user)?);
                changes.push((revision.cast_unsigned(), change));
            }
            Ok(Changes {
                changes,
                revision: last.cast_unsigned(),
            })
        })
        .await
    }
}
