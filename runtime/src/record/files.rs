//! The journal's files: the current one, the older ones behind it, the key beside it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use kalends_sim::incident::Key;

use super::Bounds;

/// Only its owner reads a journal.
const MODE: u32 = 0o600;
/// A journal begins so, behind the hash of its first line.
const BEGINNING: &[u8] = b" {\"head\":";
/// Where that stands, in bytes.
const BEGINNING_AT: usize = 16;

/// The journal's files.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    bounds: Bounds,
    file: BufWriter<File>,
    bytes: u64,
    head_bytes: u64,
}

impl Files {
    /// Begins the journal with its first line. One that is there already becomes `FILE.1`.
    pub(super) fn begin(path: &Path, bounds: Bounds, head: &[u8]) -> Result<Self, String> {
        if path.exists() {
            if !is_journal(path)? {
                return Err(format!(
                    "{} is there and is no journal; name a file that may be written",
                    path.display()
                ));
            }
            keep(path, bounds)?;
        }
        let mut files = Files {
            file: create(path)?,
            path: path.to_owned(),
            bounds,
            bytes: 0,
            head_bytes: head.len() as u64,
        };
        files.write(head)?;
        files.flush()?;
        Ok(files)
    }

    pub(super) fn write(&mut self, line: &[u8]) -> Result<(), String> {
        self.bytes += line.len() as u64;
        let written = self.file.write_all(line);
        written.map_err(|error| self.failed(&error))
    }

    pub(super) fn flush(&mut self) -> Result<(), String> {
        let flushed = self.file.flush();
        flushed.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("{} cannot be written: {error}", self.path.display())
    }

    /// Whether it is time for the next file. What the head takes does not count: it must leave room for turns.
    pub(super) fn is_full(&self) -> bool {
        self.bytes - self.head_bytes.min(self.bytes) >= self.bounds.file_bytes_max
    }

    /// Ends this file with its last line and begins the next with its first.
    pub(super) fn rotate(&mut self, last: &[u8], head: &[u8]) -> Result<(), String> {
        self.write(last)?;
        self.flush()?;
        keep(&self.path, self.bounds)?;
        self.file = create(&self.path)?;
        self.bytes = 0;
        self.head_bytes = head.len() as u64;
        self.write(head)?;
        self.flush()
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// Moves each file one place back; the oldest goes.
fn keep(path: &Path, bounds: Bounds) -> Result<(), String> {
    for place in (1..bounds.files_max.max(1)).rev() {
        let from = if place == 1 {
            path.to_owned()
        } else {
            with_suffix(path, &format!(".{}", place - 1))
        };
        let to = with_suffix(path, &format!(".{place}"));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(format!(
                    "{} cannot become {}: {error}",
                    from.display(),
                    to.display()
                ));
            }
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// An empty file counts as one: nothing is lost.
fn is_journal(path: &Path) -> Result<bool, String> {
    let cannot = |error| format!("{} cannot be read: {error}", path.display());
    if path.is_dir() {
        return Err(format!("{} is a folder; name a file in it", path.display()));
    }
    let mut beginning = Vec::new();
    File::open(path)
        .map_err(cannot)?
        .take((BEGINNING_AT + BEGINNING.len()) as u64)
        .read_to_end(&mut beginning)
        .map_err(cannot)?;
    Ok(beginning.is_empty() || beginning.get(BEGINNING_AT..) == Some(BEGINNING))
}

/// Where the key of a journal is kept: `FILE.key`, for `FILE.1` and the others, too.
#[must_use]
pub fn key_path(journal: &Path) -> PathBuf {
    let is_older = |suffix: &std::ffi::OsStr| {
        let suffix = suffix.to_string_lossy();
        !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit())
    };
    if journal.extension().is_some_and(is_older) {
        with_suffix(&journal.with_extension(""), ".key")
    } else {
        with_suffix(journal, ".key")
    }
}

/// The key beside a journal, if there is one that can be read.
#[must_use]
pub fn key_beside(journal: &Path) -> Option<Key> {
    Key::read(&std::fs::read_to_string(key_path(journal)).ok()?)
}

/// The key of the journal at `path`: the one that is there, so that names stay the same over restarts, or a new one.
pub(super) fn own_key(path: &Path, new: impl FnOnce() -> Key) -> Result<Key, String> {
    let place = key_path(path);
    if place.exists() {
        return key_beside(path).ok_or_else(|| {
            format!(
                "{} is there and holds no key; remove it, or name another journal",
                place.display()
            )
        });
    }
    let key = new();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&place)
        .and_then(|mut file| writeln!(file, "{}", key.expose()));
    written.map_err(|error| format!("{} cannot be written: {error}", place.display()))?;
    Ok(key)
}
