//! SIGKILL at random instants under load: whatever the embedded store acknowledged is in the file afterwards.
//!
//! One directory goes through all rounds, so each round also shows that the store goes on from where the one before
//! was killed. `src/bin/store_victim.rs` is the victim.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kalends_adapters::embedded::{EmbeddedStore, FILE_NAME};
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::Store;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{BATCH_MAX, Command, Reply};
use kalends_core::queue::state::{JobKey, JobState, UserState};
use kalends_core::rng::{substream, uniform};
use kalends_core::time::{Clock, Timestamp};
use rusqlite::Connection;

/// How often the victim is killed.
const ROUNDS: u64 = 50;
/// The seed of everything but the operating system.
const SEED: u64 = 7;
/// The victim lives at most this long, in milliseconds; at the least it is killed while it starts.
const LIFE_MS_MAX: u64 = 250;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}

/// What the victims were told, by name.
#[derive(Default)]
struct Acknowledged {
    enrolled: BTreeSet<String>,
    enqueued: BTreeSet<String>,
    completed: BTreeSet<String>,
    wrote: BTreeSet<String>,
}

impl Acknowledged {
    /// Takes the lines that a victim printed; a last one that was cut short is no line.
    fn read(&mut self, printed: &str) -> usize {
        let mut lines = 0;
        for line in printed.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else {
                break;
            };
            let mut words = line.split(' ').skip(1);
            let (what, name) = (words.next().unwrap(), words.next().unwrap().to_owned());
            let new = match what {
                "enrolled" => self.enrolled.insert(name),
                "enqueued" => self.enqueued.insert(name),
                "completed" => self.completed.insert(name),
                "wrote" => self.wrote.insert(name),
                other => panic!("the victim printed {other}"),
            };
            assert!(new, "acknowledged twice: {line}");
            lines += 1;
        }
        lines
    }
}

/// Starts a victim, kills it after `life`, and gives what it had printed.
fn kill_one(directory: &Path, round: u64, life: Duration) -> String {
    let mut victim = Process::new(env!("CARGO_BIN_EXE_store_victim"))
        .arg(directory)
        .arg(round.to_string())
        .arg(SEED.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = victim.stdout.take().unwrap();
    let mut stderr = victim.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut printed = String::new();
        stdout.read_to_string(&mut printed).unwrap();
        printed
    });
    std::thread::sleep(life);
    // On Unix this is SIGKILL.
    victim.kill().unwrap();
    let status = victim.wait().unwrap();
    let mut complaints = String::new();
    stderr.read_to_string(&mut complaints).unwrap();
    assert_eq!(
        status.code(),
        None,
        "the victim ended by itself in round {round}: {complaints}"
    );
    assert!(complaints.is_empty(), "round {round}: {complaints}");
    reader.join().unwrap()
}

async fn users(store: &EmbeddedStore) -> BTreeMap<String, UserState> {
    let mut all = BTreeMap::new();
    let mut after: Option<UserId> = None;
    loop {
        let command = Command::Users {
            source: SourceName::google_calendar(),
            after: after.clone(),
            limit: u32::try_from(BATCH_MAX).unwrap(),
        };
        let Reply::Users { users } = store.apply(command).await.unwrap().value else {
            panic!("asked for users");
        };
        let Some((last, _)) = users.last() else {
            return all;
        };
        after = Some(last.clone());
        all.extend(
            users
                .into_iter()
                .map(|(name, state)| (name.to_string(), state)),
        );
    }
}

async fn outstanding(store: &EmbeddedStore) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let limit = u32::try_from(BATCH_MAX).unwrap();
    for state in [JobState::Waiting, JobState::Delayed, JobState::Active] {
        for page in 0.. {
            let command = Command::Jobs {
                state,
                offset: page * limit,
                limit,
            };
            let Reply::Jobs { jobs } = store.apply(command).await.unwrap().value else {
                panic!("asked for jobs");
            };
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                let JobKey::Sync { user, .. } = job.key else {
                    panic!("there are no fan-outs here");
                };
                all.insert(user.to_string());
            }
        }
    }
    all
}

/// The queue through the store itself.
async fn check_queue(directory: &Path, acknowledged: &Acknowledged) {
    let store = EmbeddedStore::open(directory, Arc::new(StoppedClock)).unwrap();
    let users = users(&store).await;
    let outstanding = outstanding(&store).await;
    for name in &acknowledged.enrolled {
        assert!(users.contains_key(name), "{name} is not enrolled");
    }
    for name in &acknowledged.enqueued {
        let done = users[name].last_outcome.is_some();
        assert!(
            done || outstanding.contains(name),
            "the job of {name} is lost"
        );
        assert!(
            !done || !outstanding.contains(name),
            "{name} would run twice"
        );
    }
    for name in &acknowledged.completed {
        let cursor = users[name].cursor.as_deref();
        assert_eq!(cursor, Some(format!("done {name}").as_str()));
        assert!(
            !outstanding.contains(name),
            "{name} was completed and is there again"
        );
    }
    store.close().await;
}

/// The file through SQLite alone.
fn check_file(directory: &Path, acknowledged: &Acknowledged) {
    let connection = Connection::open(directory.join(FILE_NAME)).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(texts("PRAGMA integrity_check"), ["ok"]);
    assert!(texts("PRAGMA foreign_key_check").is_empty());
    let mut statement = connection
        .prepare("SELECT tbl, key, value FROM queue")
        .unwrap();
    let rows: Vec<(String, String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    Queue::restore(rows).unwrap().check_invariants();

    let mut batches: BTreeMap<String, u64> = BTreeMap::new();
    for uid in texts("SELECT uid FROM node WHERE label = 'Event'") {
        let id = uid.rsplit('|').next().unwrap();
        let (batch, _) = id.split_once('-').unwrap();
        *batches.entry(batch.to_owned()).or_default() += 1;
    }
    for (batch, found) in &batches {
        let (_, size) = batch.split_once("of").unwrap();
        assert_eq!(size.parse(), Ok(*found), "a part of batch {batch}");
    }
    for batch in &acknowledged.wrote {
        assert!(batches.contains_key(batch), "batch {batch} is lost");
    }
    let events: u64 = batches.values().sum();
    let attended = texts("SELECT CAST(count(*) AS TEXT) FROM edge WHERE type = 'ATTENDED_BY'");
    assert_eq!(attended, [events.to_string()]);
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_being_killed_at_any_instant() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let mut rng = substream(SEED, "kill");
    let mut acknowledged = Acknowledged::default();
    let mut rounds_with_load = 0;
    for round in 0..ROUNDS {
        let life = Duration::from_micros(uniform(&mut rng, LIFE_MS_MAX * 1_000));
        let printed = kill_one(&directory, round, life);
        let lines = acknowledged.read(&printed);
        rounds_with_load += u64::from(lines > 0);
        check_queue(&directory, &acknowledged).await;
        check_file(&directory, &acknowledged);
    }
    // A machine so slow that hardly a victim gets to work would prove nothing.
    assert!(
        rounds_with_load > ROUNDS / 2,
        "only {rounds_with_load} victims got to work"
    );
    for (what, names) in [
        ("enrolled", &acknowledged.enrolled),
        ("enqueued", &acknowledged.enqueued),
        ("completed", &acknowledged.completed),
        ("wrote", &acknowledged.wrote),
    ] {
        println!("{what}: {}", names.len());
        assert!(names.len() > 50, "{what} only {} times", names.len());
    }
}
