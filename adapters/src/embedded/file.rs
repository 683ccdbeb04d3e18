//! The directory: who may open it, whose file is in it, and how the file comes to be.
//!
//! A directory has one process at a time, held by a lock on `kalends.lock` that the operating system gives back when
//! the process ends, however it ends. The file says in its header whose it is and which schema it has; it is read
//! before anything is created or changed, so a wrong directory is left as it was. A new file is made under another name
//! and then renamed: a `kalends.db` that exists is a complete one, whenever the process was killed. SQLite keeps files
//! of its own beside it ([`COMPANION_SUFFIXES`]) and trusts their names alone: those of a file that was taken away would
//! be played into the next one, so they go before a new file gets its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema;

/// The name of the file that holds the queue and the graph.
pub const FILE_NAME: &str = "kalends.db";
/// The name of the file that is locked while a process has the directory; it holds the process id as text.
pub const LOCK_NAME: &str = "kalends.lock";
/// The name under which a new file is made.
const NEW_NAME: &str = "kalends.db.new";
/// What SQLite appends to a file's name for the files beside it (<https://www.sqlite.org/tempfiles.html>): the log, its
/// index, and the journal of a file without a log.
const COMPANION_SUFFIXES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What a SQLite file begins with (<https://www.sqlite.org/fileformat.html>, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The length of a SQLite file's header, in bytes.
const HEADER_BYTES: usize = 100;
/// Where the header has the schema version that the application gives, big-endian.
const USER_VERSION_AT: usize = 60;
/// Where the header has the application's mark, big-endian.
const APPLICATION_ID_AT: usize = 68;
/// A process id is shorter than this, in bytes.
const PID_BYTES_MAX: u64 = 20;

/// Why a store was not opened. Nothing was created or changed.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the directory.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
    /// There is a file of our name that another program wrote.
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A newer Kalends wrote the file.
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i32,
        /// The newest one that this program knows.
        known: i32,
    },
    /// There is no store in this directory (only when opening it for reading).
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The operating system did not let us.
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The file is ours, but damaged.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file system cannot keep a write-ahead log, on which all promises of the store rest.
    NoLog {
        /// The file.
        path: PathBuf,
        /// The journal mode that SQLite chose in its place.
        found: String,
    },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::InUse { path, pid } => {
                let path = path.display();
                match pid {
                    Some(pid) => write!(formatter, "{path} is in use by process {pid}")?,
                    None => write!(formatter, "{path} is in use by another process")?,
                }
                formatter.write_str("; stop that one first, or use another data directory")
            }
            OpenError::NotOurs { path } => write!(
                formatter,
                "{} was not written by Kalends and was left as it is; use another data directory, or move that file away",
                path.display()
            ),
            OpenError::NewerSchema { path, found, known } => write!(
                formatter,
                "{} has schema version {found}, and this Kalends knows versions up to {known}; start the newer Kalends that wrote it, or use another data directory",
                path.display()
            ),
            OpenError::Missing { path } => write!(
                formatter,
                "there is no {}; start Kalends with this data directory first, or name the right one",
                path.display()
            ),
            OpenError::Unreadable { path, error } => write!(
                formatter,
                "{} cannot be used: {error}; check that the path is right, that this user may read and write there, and that the disk has space",
                path.display()
            ),
            OpenError::Corrupt { path, detail } => write!(
                formatter,
                "{} is damaged: {detail}; put a backup in its place, or move it away and start anew (the calendars are fetched again); either way take away the files {FILE_NAME}-wal, {FILE_NAME}-shm and {FILE_NAME}-journal beside it too: they belong to the damaged file and would be played into the next one",
                path.display()
            ),
            OpenError::NoLog { path, found } => write!(
                formatter,
                "{} cannot have a write-ahead log (SQLite chose {found:?} instead), as is usual on network file systems; use a data directory on a disk of this machine",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Unreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// An opened directory: the lock and the connection that writes.
pub(super) struct Opened {
    pub(super) lock: DirectoryLock,
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

/// Opens `directory` for this process alone, and makes it and the file in it where they are missing.
pub(super) fn open(directory: &Path) -> Result<Opened, OpenError> {
    let path = directory.join(FILE_NAME);
    let mut lock = DirectoryLock::take_existing(directory)?;
    // Before the lock file is created, so that a wrong directory stays as it was.
    check_header(&path)?;
    if lock.is_none() {
        create_directory(directory)?;
        lock = Some(DirectoryLock::create(directory)?);
    }
    let mut lock = lock.expect("was taken above, or just now");
    if !check_header(&path)? {
        create_file(directory, &path)?;
    }
    let connection = Connection::open_with_flags(
        &path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| from_sqlite(&path, &error))?;
    turn_on_log(&connection, &path)?;
    schema::prepare_writer(&connection).map_err(|error| from_sqlite(&path, &error))?;
    check_tables(&connection, &path)?;
    lock.write_pid(directory)?;
    Ok(Opened {
        lock,
        connection,
        path,
    })
}

/// A connection that only reads, for a file that is known to be ours.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    schema::prepare_reader(&connection)?;
    Ok(connection)
}

/// Checks that there is a store of ours in `directory`, while another process may be writing it.
pub(super) fn check_for_reading(directory: &Path) -> Result<PathBuf, OpenError> {
    let path = directory.join(FILE_NAME);
    let exists = |path: &Path| {
        path.try_exists().map_err(|error| OpenError::Unreadable {
            path: path.to_path_buf(),
            error,
        })
    };
    if !exists(&path)? {
        return Err(OpenError::Missing { path });
    }
    // Not by `check_header`: on Unix, closing a file drops all locks that the process has on it, SQLite's too. And
    // SQLite may leave files of its own beside another program's: a directory of ours has a lock file.
    if !exists(&directory.join(LOCK_NAME))? {
        return Err(OpenError::NotOurs { path });
    }
    let marks = connect_reader(&path).and_then(|connection| {
        let application_id: i32 =
            connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((application_id, version, connection))
    });
    match marks {
        Ok((application_id, version, connection)) => {
            judge_marks(&path, application_id, version)?;
            check_tables(&connection, &path)?;
            Ok(path)
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(OpenError::NotOurs { path })
        }
        Err(error) => Err(from_sqlite(&path, &error)),
    }
}

/// Says whether there is a file, if it is one of ours that this program can read.
fn check_header(path: &Path) -> Result<bool, OpenError> {
    let unreadable = |error| OpenError::Unreadable {
        path: path.to_path_buf(),
        error,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(error)),
    };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(unreadable)?;
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return Err(OpenError::NotOurs {
            path: path.to_path_buf(),
        });
    }
    let number = |at: usize| {
        i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    judge_marks(path, number(APPLICATION_ID_AT), number(USER_VERSION_AT))?;
    Ok(true)
}

fn judge_marks(path: &Path, application_id: i32, version: i32) -> Result<(), OpenError> {
    let path = path.to_path_buf();
    if application_id != schema::APPLICATION_ID {
        return Err(OpenError::NotOurs { path });
    }
    if version > schema::SCHEMA_VERSION {
        return Err(OpenError::NewerSchema {
            path,
            found: version,
            known: schema::SCHEMA_VERSION,
        });
    }
    if version < schema::SCHEMA_VERSION {
        return Err(OpenError::Corrupt {
            path,
            detail: format!("no Kalends ever wrote schema version {version}"),
        });
    }
    Ok(())
}

fn check_tables(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let tables: i64 = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('queue', 'node', 'edge')",
            [],
            |row| row.get(0),
        )
        .map_err(|error| from_sqlite(path, &error))?;
    if tables == 3 {
        return Ok(());
    }
    Err(OpenError::Corrupt {
        path: path.to_path_buf(),
        detail: "it does not have its three tables".to_owned(),
    })
}

/// Turns on the write-ahead log. Where it cannot be had, SQLite reports no error but names the mode that it kept.
fn turn_on_log(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|error| from_sqlite(path, &error))?;
    if found == "wal" {
        return Ok(());
    }
    Err(OpenError::NoLog {
        path: path.to_path_buf(),
        found,
    })
}

/// What an error of SQLite means for opening `path`.
pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Corrupt {
            path,
            detail: error.to_string(),
        },
        _ => OpenError::Unreadable {
            path,
            error: io::Error::other(error.to_string()),
        },
    }
}

pub(crate) fn create_directory(directory: &Path) -> Result<(), OpenError> {
    let unreadable = |error| OpenError::Unreadable {
        path: directory.to_path_buf(),
        error,
    };
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(unreadable)?;
    for made in missing {
        let parent = match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match sync_names(parent) {
            // Whoever may not read a directory cannot flush it, and may still have a store below it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            result => result.map_err(unreadable)?,
        }
    }
    Ok(())
}

/// Makes the names in `directory` outlive a power cut. Only Unix can open a directory for that.
fn sync_names(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Removes a file, if it is there.
fn remove_leftover(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Options that create a file which only this user may read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn create_file(directory: &Path, path: &Path) -> Result<(), OpenError> {
    let new = directory.join(NEW_NAME);
    let unreadable = |error| OpenError::Unreadable {
        path: new.clone(),
        error,
    };
    // Left over from a process that was killed right here, and from a file that was taken away without them.
    for suffix in COMPANION_SUFFIXES {
        for name in [NEW_NAME, FILE_NAME] {
            remove_leftover(&directory.join(format!("{name}{suffix}"))).map_err(unreadable)?;
        }
    }
    remove_leftover(&new).map_err(unreadable)?;
    drop(private_file().open(&new).map_err(unreadable)?);
    Connection::open_with_flags(
        &new,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .and_then(|connection| {
        schema::create(&connection)?;
        connection.close().map_err(|(_, error)| error)
    })
    .map_err(|error| from_sqlite(&new, &error))?;
    // First that the leftovers are gone, then that the new name stands: never both the new file and an old log.
    sync_names(directory)
        .and_then(|()| std::fs::rename(&new, path))
        .and_then(|()| sync_names(directory))
        .map_err(unreadable)
}

/// The lock on a directory, given back when this value goes or the process ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Takes the lock if there is a lock file.
    fn take_existing(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = directory.join(LOCK_NAME);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => DirectoryLock::take(directory, file).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpenError::Unreadable { path, error }),
        }
    }

    fn create(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(LOCK_NAME);
        let file = private_file()
            .open(&path)
            .map_err(|error| OpenError::Unreadable { path, error })?;
        DirectoryLock::take(directory, file)
    }

    fn take(directory: &Path, mut file: File) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(DirectoryLock { file }),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Unreadable where a lock is mandatory (Windows): then the process stays unnamed.
                let _ = (&mut file).take(PID_BYTES_MAX).read_to_string(&mut text);
                Err(OpenError::InUse {
                    path: directory.to_path_buf(),
                    pid: text.trim().parse().ok(),
                })
            }
            Err(TryLockError::Error(error)) => Err(OpenError::Unreadable {
                path: directory.join(LOCK_NAME),
                error,
            }),
        }
    }

    fn write_pid(&mut self, directory: &Path) -> Result<(), OpenError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(self.file, "{}", std::process::id()))
            .map_err(|error| OpenError::Unreadable {
                path: directory.join(LOCK_NAME),
                error,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_a_log_is_refused() {
        // A database in memory answers as a file on a network file system does: with the mode that it kept.
        let connection = Connection::open_in_memory().unwrap();
        let error = turn_on_log(&connection, Path::new("kalends.db")).unwrap_err();
        assert!(
            matches!(&error, OpenError::NoLog { found, .. } if found == "memory"),
            "{error}"
        );
        assert!(error.to_string().contains("network"), "{error}");
    }
}
