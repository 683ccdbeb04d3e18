//! Every Cypher statement that Kalends sends, as constants; what varies is a parameter, never the text.
//!
//! One form runs on Neo4j 5.25 and later, as Cypher 5 and as Cypher 25: no CALL subqueries, no `exists()`; lists are
//! emptied by CASE where something must not happen. [`params`](super::params) makes the parameters.
//!
//! What the statements rely on:
//!
//! - **The user's node is the lock.** Each write sets a property of it before it reads the fence, so two writers of
//!   one user queue up there, and everything after the fence check sees the other's work whole.
//! - **Who was removed is not made again by an older lease.** One node of the database, `KalendsRemoval`, keeps the largest fencing
//!   token of a removal, and no name. A write that has just made its user's node is held to that token; one with an older token
//!   takes the node away again, in the same transaction.
//! - **A list may be empty, the row must live on.** `UNWIND` of an empty list ends a statement without a row, so a
//!   list that may be empty is replaced by `[null]`, and `OPTIONAL MATCH` finds nothing for null.
//! - **Events remember what they are tied to.** [`APPLY_EVENTS`] writes `content_hash`; [`APPLY_RELATIONSHIPS`] copies
//!   it to `linked_hash` when the event's relationships are as the row says. An event with both equal costs nothing,
//!   and a crash between the two statements is mended by the next write of that event, whoever makes it.
//! - **Others may use the graph too.** Nodes are changed with `+=`, so foreign properties stay, and only contacts with
//!   `made_by = 'kalends'` are ever removed.

/// The schema: keys are unique (without that, concurrent MERGEs could make two nodes of one), and what is looked up
/// by range or by series has an index. Each is a statement of its own; all are safe to repeat.
pub const ENSURE_SCHEMA: [&str; 6] = [
    "CREATE CONSTRAINT kalends_user_uid IF NOT EXISTS FOR (n:User) REQUIRE n.uid IS UNIQUE",
    "CREATE CONSTRAINT kalends_calendar_uid IF NOT EXISTS FOR (n:Calendar) REQUIRE n.uid IS UNIQUE",
    "CREATE CONSTRAINT kalends_event_uid IF NOT EXISTS FOR (n:Event) REQUIRE n.uid IS UNIQUE",
    "CREATE CONSTRAINT kalends_contact_uid IF NOT EXISTS FOR (n:Contact) REQUIRE n.uid IS UNIQUE",
    "CREATE INDEX kalends_event_start IF NOT EXISTS FOR (n:Event) ON (n.start_ms)",
    "CREATE INDEX kalends_event_series IF NOT EXISTS FOR (n:Event) ON (n.series_uid)",
];

/// The server's name, versions and edition, one row a component: is the database there, and are we let in?
pub const PROBE: &str = "\
CALL dbms.components() YIELD name, versions, edition
RETURN name, versions, edition";

/// The first statement of an Apply: fence, user, calendar, deletions, events.
///
/// Parameters: `user`, `fence`, `calendar {uid, properties}`, `deletions [{uid, version}]`,
/// `cuts [{uid, version, until_ms}]`, `events [{uid, version, content_hash, properties}]`, `generation`,
/// `mentioned [contact uid]` (contacts that the second statement will need). Row: `fenced`, `upserted`, `deleted`.
pub const APPLY_EVENTS: &str = "\
MERGE (u:User {uid: $user})
ON CREATE SET u.fence = -1
SET u.id = $user, u.lock = true
WITH u
OPTIONAL MATCH (w:KalendsRemoval {uid: 'kalends'})
WITH u, max(w.fence) AS removed
WITH u, u.fence < 0 AS made,
  CASE WHEN u.fence < 0 THEN coalesce(removed, 0) ELSE coalesce(u.fence, 0) END <= $fence AS live
FOREACH (ignored IN CASE WHEN made AND NOT live THEN [true] ELSE [] END | DELETE u)
FOREACH (ignored IN CASE WHEN live THEN [true] ELSE [] END |
  SET u.fence = $fence
  MERGE (k:Calendar {uid: $calendar.uid})
  SET k += $calendar.properties
  MERGE (u)-[:HAS_CALENDAR]->(k)
)
WITH live
OPTIONAL MATCH (c:Calendar {uid: $calendar.uid})
WITH live, c
UNWIND CASE WHEN live AND size($deletions) > 0 THEN $deletions ELSE [null] END AS deletion
OPTIONAL MATCH (d:Event {uid: deletion.uid})
OPTIONAL MATCH (x:Event {series_uid: deletion.uid})
WHERE d IS NULL OR d.version IS NULL OR d.version <= deletion.version
WITH live, c, collect(DISTINCT CASE WHEN d.version IS NULL OR d.version <= deletion.version THEN d END) AS named,
  collect(DISTINCT x) AS followers
UNWIND CASE WHEN live AND size($cuts) > 0 THEN $cuts ELSE [null] END AS cut
OPTIONAL MATCH (s:Event {uid: cut.uid})
OPTIONAL MATCH (y:Event {series_uid: cut.uid})
WHERE (s IS NULL OR s.version IS NULL OR s.version <= cut.version) AND y.original_start_ms > cut.until_ms
WITH live, c, named, followers, collect(DISTINCT y) AS leftovers
UNWIND named + followers + leftovers + [null] AS doomed
WITH live, c, collect(DISTINCT doomed) AS removed
UNWIND removed + [null] AS r
OPTIONAL MATCH (r)-[:ATTENDED_BY|ORGANIZED_BY]->(p:Contact)
WITH live, c, removed, collect(DISTINCT p) AS people
FOREACH (r IN removed | DETACH DELETE r)
WITH live, c, size(removed) AS deleted, people
UNWIND people + [null] AS p
WITH live, c, deleted, collect(CASE
  WHEN p.made_by = 'kalends' AND NOT p.uid IN $mentioned AND NOT EXISTS { (p)--() } THEN p
END) AS orphans
FOREACH (p IN orphans | DELETE p)
WITH live, c, deleted
UNWIND CASE WHEN live AND size($events) > 0 THEN $events ELSE [null] END AS row
OPTIONAL MATCH (e:Event {uid: row.uid})
WITH live, c, deleted,
  collect(CASE
    WHEN e.version > row.version OR (e.version = row.version AND e.content_hash = row.content_hash) THEN e
  END) AS seen,
  collect(CASE
    WHEN row IS NULL THEN null
    WHEN e IS NULL OR e.version IS NULL OR e.version < row.version THEN row
    WHEN e.version = row.version AND (e.content_hash IS NULL OR e.content_hash <> row.content_hash) THEN row
  END) AS changed
FOREACH (e IN seen | SET e.generation = $generation)
FOREACH (row IN changed |
  MERGE (e:Event {uid: row.uid})
  SET e += row.properties, e.version = row.version, e.content_hash = row.content_hash, e.generation = $generation
  MERGE (c)-[:HAS_EVENT]->(e)
)
RETURN NOT live AS fenced, size(changed) AS upserted, deleted";

/// The second statement of an Apply: contacts and relationships of the events that the first one applied.
///
/// Parameters: `user`, `fence`, `mentioned`, `rows [{uid, version, content_hash, series_uid, attendee_uids,
/// organizer_uids, attendees [{uid, key, email, name, relation}], organizers [{uid, key, email, name}]}]`.
/// Row: `fenced`, `linked`; no row at all if the user's node is gone.
pub const APPLY_RELATIONSHIPS: &str = "\
MATCH (u:User {uid: $user})
SET u.lock = true
WITH coalesce(u.fence, 0) <= $fence AS live
UNWIND CASE WHEN live THEN $rows ELSE [] END AS row
MATCH (e:Event {uid: row.uid})
WHERE e.version = row.version AND e.content_hash = row.content_hash
  AND (e.linked_hash IS NULL OR e.linked_hash <> row.content_hash)
OPTIONAL MATCH (e)-[old:ATTENDED_BY|ORGANIZED_BY]->(p:Contact)
WHERE (type(old) = 'ATTENDED_BY' AND NOT p.uid IN row.attendee_uids)
  OR (type(old) = 'ORGANIZED_BY' AND NOT p.uid IN row.organizer_uids)
WITH e, row, collect(old) AS stale, collect(DISTINCT p) AS parted
FOREACH (old IN stale | DELETE old)
FOREACH (a IN row.attendees |
  MERGE (p:Contact {uid: a.uid})
  ON CREATE SET p.id = a.uid, p.key = a.key, p.user_id = $user, p.made_by = 'kalends'
  SET p.email = coalesce(a.email, p.email), p.name = coalesce(a.name, p.name)
  MERGE (e)-[t:ATTENDED_BY]->(p)
  SET t += a.relation
)
FOREACH (o IN row.organizers |
  MERGE (p:Contact {uid: o.uid})
  ON CREATE SET p.id = o.uid, p.key = o.key, p.user_id = $user, p.made_by = 'kalends'
  SET p.email = coalesce(o.email, p.email), p.name = coalesce(o.name, p.name)
  MERGE (e)-[:ORGANIZED_BY]->(p)
)
WITH e, row, parted
OPTIONAL MATCH (e)-[tie:EXCEPTION_OF]->(other:Event)
WHERE row.series_uid IS NULL OR other.uid <> row.series_uid
WITH e, row, parted, collect(tie) AS ties
FOREACH (tie IN ties | DELETE tie)
WITH e, row, parted
OPTIONAL MATCH (s:Event {uid: row.series_uid})
OPTIONAL MATCH (x:Event {series_uid: row.uid})
WITH e, row, parted, collect(DISTINCT s) AS series, collect(DISTINCT x) AS exceptions
FOREACH (s IN series | MERGE (e)-[:EXCEPTION_OF]->(s))
FOREACH (x IN exceptions | MERGE (x)-[:EXCEPTION_OF]->(e))
SET e.linked_hash = row.content_hash
WITH count(e) AS linked, collect(parted) AS partings
OPTIONAL MATCH (m:Contact)
WHERE m.uid IN $mentioned
WITH linked, partings, collect(m) AS mentioned
UNWIND partings + [mentioned] AS people
UNWIND people + [null] AS p
WITH linked, collect(DISTINCT p) AS candidates
UNWIND candidates + [null] AS p
WITH linked, collect(CASE WHEN p.made_by = 'kalends' AND NOT EXISTS { (p)--() } THEN p END) AS orphans
FOREACH (p IN orphans | DELETE p)
WITH linked
MATCH (u:User {uid: $user})
RETURN coalesce(u.fence, 0) > $fence AS fenced, linked";

/// Stamps events as seen by a full pass, and leaves them else as they are; what is not there is not made.
///
/// Parameters: `user`, `fence`, `generation`, `events [uid]`. Row: `fenced`, `spared`.
pub const SPARE: &str = "\
MERGE (u:User {uid: $user})
ON CREATE SET u.fence = -1
SET u.id = $user, u.lock = true
WITH u
OPTIONAL MATCH (w:KalendsRemoval {uid: 'kalends'})
WITH u, max(w.fence) AS removed
WITH u, u.fence < 0 AS made,
  CASE WHEN u.fence < 0 THEN coalesce(removed, 0) ELSE coalesce(u.fence, 0) END <= $fence AS live
FOREACH (ignored IN CASE WHEN made AND NOT live THEN [true] ELSE [] END | DELETE u)
FOREACH (ignored IN CASE WHEN live THEN [true] ELSE [] END | SET u.fence = $fence)
WITH live
OPTIONAL MATCH (e:Event)
WHERE live AND e.uid IN $events
WITH live, collect(e) AS spared
FOREACH (e IN spared | SET e.generation = $generation)
RETURN NOT live AS fenced, size(spared) AS spared";

/// Removes at most `limit` events of a calendar whose generation is older than `generation`.
///
/// Parameters: `user`, `fence`, `calendar` (uid), `generation`, `limit`. Row: `fenced`, `deleted`. To be repeated
/// while `deleted` equals `limit`, so that no transaction outgrows the server's memory.
pub const SWEEP: &str = "\
MERGE (u:User {uid: $user})
ON CREATE SET u.fence = -1
SET u.id = $user, u.lock = true
WITH u
OPTIONAL MATCH (w:KalendsRemoval {uid: 'kalends'})
WITH u, max(w.fence) AS removed
WITH u, u.fence < 0 AS made,
  CASE WHEN u.fence < 0 THEN coalesce(removed, 0) ELSE coalesce(u.fence, 0) END <= $fence AS live
FOREACH (ignored IN CASE WHEN made AND NOT live THEN [true] ELSE [] END | DELETE u)
FOREACH (ignored IN CASE WHEN live THEN [true] ELSE [] END | SET u.fence = $fence)
WITH live
OPTIONAL MATCH (c:Calendar {uid: $calendar})-[:HAS_EVENT]->(e:Event)
WHERE live AND e.generation < $generation
WITH live, e
LIMIT $limit
OPTIONAL MATCH (e)-[:ATTENDED_BY|ORGANIZED_BY]->(p:Contact)
WITH live, collect(DISTINCT e) AS removed, collect(DISTINCT p) AS people
FOREACH (e IN removed | DETACH DELETE e)
WITH live, size(removed) AS deleted, people
UNWIND people + [null] AS p
WITH live, deleted, collect(CASE WHEN p.made_by = 'kalends' AND NOT EXISTS { (p)--() } THEN p END) AS orphans
FOREACH (p IN orphans | DELETE p)
RETURN NOT live AS fenced, deleted";

/// Removes at most `limit` events of a calendar, and the calendar itself once fewer than `limit` were left.
///
/// Parameters: `user`, `fence`, `calendar` (uid), `limit`. Row: `fenced`, `deleted`. Repeated like [`SWEEP`].
pub const REMOVE_CALENDAR: &str = "\
MERGE (u:User {uid: $user})
ON CREATE SET u.fence = -1
SET u.id = $user, u.lock = true
WITH u
OPTIONAL MATCH (w:KalendsRemoval {uid: 'kalends'})
WITH u, max(w.fence) AS removed
WITH u, u.fence < 0 AS made,
  CASE WHEN u.fence < 0 THEN coalesce(removed, 0) ELSE coalesce(u.fence, 0) END <= $fence AS live
FOREACH (ignored IN CASE WHEN made AND NOT live THEN [true] ELSE [] END | DELETE u)
FOREACH (ignored IN CASE WHEN live THEN [true] ELSE [] END | SET u.fence = $fence)
WITH live
OPTIONAL MATCH (c:Calendar {uid: $calendar})-[:HAS_EVENT]->(e:Event)
WHERE live
WITH live, e
LIMIT $limit
OPTIONAL MATCH (e)-[:ATTENDED_BY|ORGANIZED_BY]->(p:Contact)
WITH live, collect(DISTINCT e) AS removed, collect(DISTINCT p) AS people
FOREACH (e IN removed | DETACH DELETE e)
WITH live, size(removed) AS deleted, people
UNWIND people + [null] AS p
WITH live, deleted, collect(CASE WHEN p.made_by = 'kalends' AND NOT EXISTS { (p)--() } THEN p END) AS orphans
FOREACH (p IN orphans | DELETE p)
WITH live, deleted
OPTIONAL MATCH (c:Calendar {uid: $calendar})
WHERE live AND deleted < $limit
WITH live, deleted, collect(c) AS calendars
FOREACH (c IN calendars | DETACH DELETE c)
RETURN NOT live AS fenced, deleted";

/// Removes at most `limit` contacts that Kalends made and nothing refers to: what a crash between the two statements
/// of an Apply can leave behind. Sent once after a sweep.
///
/// Parameters: `user`, `fence`, `prefix` (of the user's contact uids), `limit`. Row: `removed`.
pub const REMOVE_ORPHANS: &str = "\
MATCH (u:User {uid: $user})
SET u.lock = true
WITH coalesce(u.fence, 0) <= $fence AS live
OPTIONAL MATCH (p:Contact)
WHERE live AND p.uid STARTS WITH $prefix AND p.user_id = $user AND p.made_by = 'kalends' AND NOT EXISTS { (p)--() }
WITH p
LIMIT $limit
WITH collect(p) AS orphans
FOREACH (p IN orphans | DELETE p)
RETURN size(orphans) AS removed";

/// A page of a user's calendars after the uid `after`.
///
/// Parameters: `user`, `after`, `limit`. Columns as named.
pub const READ_CALENDARS: &str = "\
MATCH (:User {uid: $user})-[:HAS_CALENDAR]->(c:Calendar)
WHERE c.uid > $after
RETURN c.uid AS uid, c.calendar_id AS calendar_id, c.name AS name, c.time_zone AS time_zone,
  c.access_role AS access_role
ORDER BY uid
LIMIT $limit";

/// A page of a user's events after the uid `after`, with their people.
///
/// Parameters: `user`, `prefix` (of the user's uids), `after`, `limit`. `calendar_id` is null for an event outside of
/// any calendar.
pub const READ_EVENTS: &str = "\
MATCH (e:Event)
WHERE e.uid STARTS WITH $prefix AND e.uid > $after AND e.user_id = $user
WITH e
ORDER BY e.uid
LIMIT $limit
OPTIONAL MATCH (:User {uid: $user})-[:HAS_CALENDAR]->(c:Calendar)-[:HAS_EVENT]->(e)
WITH e, head(collect(c.calendar_id)) AS calendar_id
OPTIONAL MATCH (e)-[:ORGANIZED_BY]->(o:Contact)
WITH e, calendar_id,
  head(collect(CASE WHEN o IS NULL THEN null ELSE {key: o.key, email: o.email, name: o.name} END)) AS organizer
OPTIONAL MATCH (e)-[t:ATTENDED_BY]->(p:Contact)
WITH e, calendar_id, organizer, collect(CASE WHEN p IS NULL THEN null ELSE {
  key: p.key, email: p.email, name: p.name,
  response_status: t.response_status, optional: t.optional, resource: t.resource, is_self: t.is_self
} END) AS attendees
RETURN e.uid AS uid, calendar_id, properties(e) AS properties, organizer, attendees
ORDER BY uid";

/// A page of a user's contacts after the uid `after`.
///
/// Parameters: `user`, `prefix` (of the user's uids), `after`, `limit`. Columns as named.
pub const READ_CONTACTS: &str = "\
MATCH (p:Contact)
WHERE p.uid STARTS WITH $prefix AND p.uid > $after AND p.user_id = $user
RETURN p.uid AS uid, p.key AS key, p.email AS email, p.name AS name
ORDER BY uid
LIMIT $limit";

/// Removes a user's node, if nothing hangs on it any more: the last step when a user is removed with all data. A later
/// lease's write, or something of another program's on the node, keeps it. When it is gone, however, older leases cannot make it again.
///
/// Parameters: `user`, `fence`. Row: `removed`.
pub const REMOVE_USER: &str = "\
MERGE (u:User {uid: $user})
ON CREATE SET u.fence = -1
SET u.lock = true
WITH u, coalesce(u.fence, 0) < 0 AS made
OPTIONAL MATCH (u)-[tie]-()
WITH u, made, count(tie) AS ties
WITH u, made, ties = 0 AND coalesce(u.fence, 0) <= $fence AS doomed
FOREACH (ignored IN CASE WHEN doomed THEN [true] ELSE [] END |
  MERGE (w:KalendsRemoval {uid: 'kalends'})
  SET w.fence = CASE WHEN w.fence > $fence THEN w.fence ELSE $fence END
)
FOREACH (ignored IN CASE WHEN doomed THEN [true] ELSE [] END | DELETE u)
RETURN CASE WHEN doomed AND NOT made THEN 1 ELSE 0 END AS removed";

/// Every statement with its name: for tests, linters and whoever wants to read the server's query log.
pub const ALL: [(&str, &str); 17] = [
    ("ensure_user", ENSURE_SCHEMA[0]),
    ("ensure_calendar", ENSURE_SCHEMA[1]),
    ("ensure_event", ENSURE_SCHEMA[2]),
    ("ensure_contact", ENSURE_SCHEMA[3]),
    ("ensure_event_start", ENSURE_SCHEMA[4]),
    ("ensure_event_series", ENSURE_SCHEMA[5]),
    ("probe", PROBE),
    ("apply_events", APPLY_EVENTS),
    ("apply_relationships", APPLY_RELATIONSHIPS),
    ("spare", SPARE),
    ("sweep", SWEEP),
    ("remove_calendar", REMOVE_CALENDAR),
    ("remove_orphans", REMOVE_ORPHANS),
    ("remove_user", REMOVE_USER),
    ("read_calendars", READ_CALENDARS),
    ("read_events", READ_EVENTS),
    ("read_contacts", READ_CONTACTS),
];

/// The names of the parameters that a statement reads, in order, each as often as it is read. A server refuses a
/// statement (`ParameterMissing`) whose parameters do not hold them all.
pub fn parameters_of(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|rest| {
        let end = rest
            .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    })
}
