//! Who may open a directory, and what is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kalends_core::port::Graph;
use rusqlite::Connection;

use super::{TestClock, apply, counts, event, open, user};
use crate::embedded::{EmbeddedStore, FILE_NAME, LOCK_NAME, OpenError};

/// Every file of a directory with its bytes.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Opens `directory`, which has to fail and to leave it as it was.
fn refused(directory: &Path) -> OpenError {
    let before = contents(directory);
    let error = EmbeddedStore::open(directory, TestClock::at(0)).unwrap_err();
    assert_eq!(
        contents(directory),
        before,
        "something was changed: {error}"
    );
    error
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let error = EmbeddedStore::open(directory.path(), TestClock::at(0)).unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == own));
    assert!(error.to_string().contains(&own.to_string()));
    store.close().await;
    open(directory.path());
    // Dropping gives the directory back as well.
    open(directory.path());
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("made/for/us");
    let store = open(&directory);
    let write = apply(1, 1, vec![event("e1", 1)], vec![]);
    assert_eq!(store.write(write).await, Ok(counts(1, 0)));
    let before = store.snapshot(&user("ada")).await.unwrap();
    store.close().await;
    store.close().await;
    let late = store.write(apply(1, 1, vec![], vec![])).await.unwrap_err();
    assert!(late.detail.contains("stopped"));
    let left: Vec<String> = contents(&directory).into_keys().collect();
    assert_eq!(left, [FILE_NAME, LOCK_NAME]);
    let again = open(&directory);
    assert_eq!(again.snapshot(&user("ada")).await.unwrap(), before);
}

#[cfg(unix)]
#[tokio::test]
async fn only_this_user_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("private");
    let store = open(&directory);
    store.write(apply(1, 1, vec![], vec![])).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for name in contents(&directory).into_keys() {
        assert_eq!(mode(&directory.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn other_programs_files_are_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    for bytes in [
        &b""[..],
        b"not a database",
        &[0_u8; 4_096][..],
        b"SQLite format 3\0",
    ] {
        fs::write(&path, bytes).unwrap();
        let error = refused(directory.path());
        assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE queue (a); INSERT INTO queue VALUES (1)",
        )
        .unwrap();
    let error = refused(directory.path());
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
}

#[test]
fn a_newer_schema_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::remove_file(directory.path().join(LOCK_NAME)).unwrap();
    Connection::open(directory.path().join(FILE_NAME))
        .unwrap()
        .execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let error = refused(directory.path());
    assert!(
        matches!(
            error,
            OpenError::NewerSchema {
                found: 99,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_damaged_file_and_a_path_that_is_no_directory_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = directory.path().join(FILE_NAME);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..4_096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let error = EmbeddedStore::open(directory.path(), TestClock::at(0)).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("kalends.db-wal"), "{error}");
    let error = EmbeddedStore::open(&path, TestClock::at(0)).unwrap_err();
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
}

#[test]
fn a_first_start_that_was_killed_is_made_up_for() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("kalends.db.new"), b"half of it").unwrap();
    fs::write(directory.path().join("kalends.db.new-journal"), b"junk").unwrap();
    drop(open(directory.path()));
    let left: Vec<String> = contents(directory.path()).into_keys().collect();
    assert_eq!(left, [FILE_NAME, LOCK_NAME]);
}

#[tokio::test]
async fn the_log_of_a_file_that_was_taken_away_is_not_played_into_a_new_one() {
    let old = tempfile::tempdir().unwrap();
    let store = open(old.path());
    let write = apply(1, 1, vec![event("e1", 1)], vec![]);
    assert_eq!(store.write(write).await, Ok(counts(1, 0)));
    let directory = tempfile::tempdir().unwrap();
    // The store still runs, so its log holds what it wrote.
    for suffix in ["-wal", "-shm"] {
        let name = format!("{FILE_NAME}{suffix}");
        fs::copy(old.path().join(&name), directory.path().join(&name)).unwrap();
    }
    fs::write(directory.path().join("kalends.db-journal"), b"junk").unwrap();
    let store = open(directory.path());
    let snapshot = store.snapshot(&user("ada")).await.unwrap();
    assert_eq!(snapshot.events, [], "the log of another file was read");
    store.close().await;
    let left: Vec<String> = contents(directory.path()).into_keys().collect();
    assert_eq!(left, [FILE_NAME, LOCK_NAME]);
}
