//! The tables of the one file, and the pragmas of the connections to it.
//!
//! What belongs to something is a column (`parent`), what refers to something is an edge. A calendar belongs to its
//! user, an event to its calendar, a contact to its user: that saves one edge row and one index entry for each event,
//! and a foreign key takes all of a calendar along with it. An exception's series is a column too, because either may
//! arrive first. The view `relationship` shows all of them as one list of relationships.
//!
//! `uid` is unique within a label, not over all of them: a user's primary calendar has the user's address for its id,
//! and that same address is a contact's key.
//!
//! The key of `edge` begins with `src`, not with `type`: a foreign key that cascades looks for the rows of a source, and
//! with `type` in front it would read the whole table for each node removed.

use rusqlite::Connection;

/// Marks a SQLite file as ours, in its header: "Kaln" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x4b61_6c6e;
/// The version of the tables below, in the file's header.
pub(super) const SCHEMA_VERSION: i32 = 1;

/// The page cache of the writing connection, in KiB: what keeps memory flat however large the file becomes.
pub(super) const WRITER_CACHE_KIB: u32 = 8_000;
/// The page cache of each reading connection, in KiB.
pub(super) const READER_CACHE_KIB: u32 = 2_000;
/// The write-ahead log is copied into the file when it has this many pages (of 4 KiB).
pub(super) const CHECKPOINT_PAGES: u32 = 4_000;
/// After one large transaction the log is cut back to this many bytes.
pub(super) const LOG_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Each connection keeps this many prepared statements: more than there are different ones.
pub(super) const STATEMENTS_MAX: usize = 64;
/// How long a reader waits for another process that is just copying the log, in milliseconds.
pub(super) const BUSY_TIMEOUT_MS: u64 = 5_000;

/// The tables.
///
/// `node.version`: an event's version; a user's largest fencing token. `node.generation`: when a full pass last saw the
/// event. `node.content`: a hash of all that was written of the event, its people included. `node.series`: the uid of
/// an exception's series.
pub(super) const TABLES: &str = "
CREATE TABLE queue (
  tbl TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (tbl, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
  id INTEGER PRIMARY KEY,
  label TEXT NOT NULL,
  uid TEXT NOT NULL,
  parent INTEGER REFERENCES node (id) ON DELETE CASCADE,
  version INTEGER,
  generation INTEGER,
  content INTEGER,
  series TEXT,
  original_start_ms INTEGER,
  props TEXT NOT NULL,
  UNIQUE (label, uid)
) STRICT;
CREATE INDEX node_by_parent ON node (parent);
CREATE INDEX node_by_series ON node (series, original_start_ms) WHERE series IS NOT NULL;

CREATE TABLE edge (
  type TEXT NOT NULL,
  src INTEGER NOT NULL REFERENCES node (id) ON DELETE CASCADE,
  dst INTEGER NOT NULL REFERENCES node (id) ON DELETE CASCADE,
  props TEXT NOT NULL,
  PRIMARY KEY (src, type, dst)
) STRICT, WITHOUT ROWID;
CREATE INDEX edge_by_dst ON edge (dst);

CREATE VIEW relationship (type, src, dst, props) AS
  SELECT type, src, dst, props FROM edge
  UNION ALL
  SELECT 'HAS_CALENDAR', parent, id, '{}' FROM node WHERE label = 'Calendar'
  UNION ALL
  SELECT 'HAS_EVENT', parent, id, '{}' FROM node WHERE label = 'Event'
  UNION ALL
  SELECT 'EXCEPTION_OF', exception.id, series.id, '{}'
    FROM node AS exception JOIN node AS series ON series.label = 'Event' AND series.uid = exception.series
    WHERE exception.series IS NOT NULL;
";

/// Writes the tables and the marks into an empty file, in one transaction.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN;{TABLES}PRAGMA application_id = {APPLICATION_ID};PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
    ))
}

/// Sets up the one connection that writes, which has its log turned on already. An acknowledged commit has reached the disk (`synchronous = FULL`).
pub(super) fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -{WRITER_CACHE_KIB};
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {LOG_BYTES_MAX};"
    ))
}

/// Sets up a connection that only reads.
pub(super) fn prepare_reader(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.execute_batch(&format!(
        "PRAGMA query_only = ON; PRAGMA cache_size = -{READER_CACHE_KIB};"
    ))
}
