//! The service that Kalends replaces, as a policy: its rules, in the same world.
//!
//! A TypeScript service on BullMQ synced calendars into Neo4j. Figures of it are known ([`figures`]): how seldom users
//! were synced, how many jobs were duplicates, how many users were never synced again. Here are the rules that make those
//! figures, so that the same world which judges Kalends can be held to something that really happened: played with these
//! rules, it must come near them. That is what the tests of this module and `sim/tests/compare` ask.
//!
//! # The rules
//!
//! 1. A repeatable enqueues a **fan-out** every 15 minutes, into the one queue that also holds the syncs, first in, first
//!    out ([`queue`]). While a fan-out waits behind the jobs of the one before, the next ones do not exist.
//! 2. It takes the users whose status is **`idle`** and whose **last start** is at least 15 minutes ago. A user starts some
//!    seconds after the tick, so at the next tick it is not due yet: every 15 minutes means every 30.
//! 3. It makes a job for each, 1 second apart, with 0 to 5 seconds of jitter. Whether the user's earlier job still waits
//!    is not asked: above about 250 users many have two.
//! 4. A **fixed window** lets 10 jobs a minute through, the fan-out among them; 3 run at a time in a process.
//! 5. A job sets its user to `syncing`, and to `idle` when it has succeeded. Of a user with any other status it thinks
//!    that somebody else is at it, and ends as a success.
//! 6. A failure sets the status to `error` and is tried again, 3 attempts, after 1 and 2 seconds. But the next attempt finds
//!    a user who is not idle (5), and so does every fan-out (2): **who failed once is never synced again**.
//! 7. A **429 is caught, logged and counted as a success**; the line that sets the status back is not reached. The user
//!    stays `syncing`, for ever.
//! 8. **SIGTERM removes the repeatable**, in whichever process: the others have no schedule any more.
//!
//! # What is left out, all of it in the service's favour
//!
//! Its Redis and the status in Neo4j are always there and answer at once; a fan-out takes no time; how one calendar is
//! read and written is done by Kalends's own [`SyncMachine`](kalends_core::sync::SyncMachine), with fences and cursors that
//! the service never had. What is compared is when somebody is synced, not how.

pub mod figures;
mod machine;
pub mod queue;

use std::cell::RefCell;
use std::rc::Rc;

use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};
use serde::{Deserialize, Serialize};

use crate::report::Tally;
pub(crate) use machine::Replica;
use queue::{Job, Queue, Work};

/// From one fan-out to the next, and from a user's last start until the user is due again, in milliseconds.
pub const PERIOD_MS: u64 = 15 * MINUTE_MS;
/// Jobs of all kinds in a window, over all processes.
pub const JOBS_A_WINDOW: u32 = 10;
/// The window of the limiter, in milliseconds.
pub const WINDOW_MS: u64 = MINUTE_MS;
/// Jobs at a time in one process.
pub const CONCURRENCY: usize = 3;
/// From one user of a fan-out to the next, in milliseconds.
pub const STAGGER_MS: u64 = SECOND_MS;
/// Added to that by chance, at most, in milliseconds.
pub const JITTER_MS: u64 = 5 * SECOND_MS;
/// Attempts at a job.
pub const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubled before each further one. In milliseconds.
pub const BACKOFF_BASE_MS: u64 = SECOND_MS;

/// Which service a plan is played with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Kalends.
    #[default]
    Kalends,
    /// The one it replaces.
    Legacy,
}

impl Service {
    /// Whether it is Kalends: plans do not mention that.
    #[must_use]
    pub fn is_kalends(&self) -> bool {
        *self == Service::Kalends
    }
}

/// What a user's node in Neo4j says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Idle,
    Syncing,
    Error,
}

/// What is kept of a user.
#[derive(Clone, Debug)]
struct Row {
    status: Status,
    last_start: Option<Timestamp>,
    /// The start of the last sync that succeeded: nobody but the world looks at it.
    fresh_since: Option<Timestamp>,
    cursor: Option<String>,
    /// Jobs that wait for this user.
    jobs: u32,
}

/// What all processes of the service share: the queue in Redis, the users in Neo4j.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Queue,
    rows: Vec<Row>,
    rng: KalendsRng,
    /// Counts the syncs: the fence of their writes.
    syncs_begun: u64,
    /// What came of it.
    pub(crate) tally: Tally,
    /// Something was added to the queue since the world last asked.
    added: bool,
    /// What an onlooker wants to know, where one looks on.
    lines: Option<Vec<String>>,
}

/// How the processes hold what they share; a run is one thread.
pub(crate) type SharedRef = Rc<RefCell<Shared>>;

impl Shared {
    /// A service with so many users, none of them ever synced; with `tells`, it keeps lines for an onlooker.
    pub(crate) fn new(seed: u64, users: u32, tells: bool) -> Self {
        let row = Row {
            status: Status::Idle,
            last_start: None,
            fresh_since: None,
            cursor: None,
            jobs: 0,
        };
        Shared {
            queue: Queue::default(),
            rows: vec![row; users as usize],
            rng: substream(seed, "legacy"),
            syncs_begun: 0,
            tally: Tally::default(),
            added: false,
            lines: tells.then(Vec::new),
        }
    }

    /// Whether something was added to the queue since this was last asked: the other processes may have to hurry.
    pub(crate) fn take_added(&mut self) -> bool {
        std::mem::take(&mut self.added)
    }

    /// The lines for an onlooker since this was last asked.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The start of a user's last sync that succeeded.
    pub(crate) fn fresh_since(&self, user: usize) -> Option<Timestamp> {
        self.rows[user].fresh_since
    }

    /// A number that tells one state from another, for the hash of a run.
    pub(crate) fn digest(&self) -> u64 {
        let tally = &self.tally;
        tally.enqueued << 32 ^ tally.syncs << 8 ^ self.queue.waiting() as u64
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// Rules 2 and 3.
    fn fan_out(&mut self, now: Timestamp) {
        self.tally.fan_outs += 1;
        let mut index = 0;
        let mut doubled = 0;
        for user in 0..self.rows.len() {
            let row = &mut self.rows[user];
            let is_due = row
                .last_start
                .is_none_or(|start| now.since_ms(start) >= PERIOD_MS);
            if row.status != Status::Idle || !is_due {
                continue;
            }
            doubled += u64::from(row.jobs > 0);
            row.jobs += 1;
            let delay_ms = index * STAGGER_MS + uniform(&mut self.rng, JITTER_MS);
            let work = Work::Sync(u32::try_from(user).expect("few users"));
            self.queue
                .add(Job { work, attempt: 1 }, now.plus_ms(delay_ms));
            index += 1;
        }
        self.tally.enqueued += index;
        self.tally.duplicates += doubled;
        self.added = true;
        let waiting = self.queue.waiting();
        self.tell(|| format!("fan-out: {index} jobs, {doubled} duplicates, {waiting} wait"));
    }

    /// Rule 5: the user, set to `syncing`, with the cursor; `None` if somebody else seems to be at it.
    fn begin(&mut self, user: u32, now: Timestamp) -> Option<Option<String>> {
        let row = &mut self.rows[user as usize];
        if row.status != Status::Idle {
            let status = row.status;
            self.tell(|| format!("user {user} is {status:?}: left alone, a success"));
            return None;
        }
        row.status = Status::Syncing;
        row.last_start = Some(now);
        self.syncs_begun += 1;
        self.tell(|| format!("user {user} begins"));
        Some(self.rows[user as usize].cursor.clone())
    }

    fn succeeded(&mut self, user: u32, cursor: String) {
        let row = &mut self.rows[user as usize];
        row.status = Status::Idle;
        row.cursor = Some(cursor);
        let start = row.last_start.expect("it has begun");
        if let Some(before) = row.fresh_since.replace(start) {
            self.tally.gap(start.since_ms(before));
        }
        self.tally.syncs += 1;
        self.tell(|| format!("user {user} is synced"));
    }

    /// Rule 6.
    fn failed(&mut self, user: u32, attempt: u32, now: Timestamp) {
        self.rows[user as usize].status = Status::Error;
        self.tell(|| format!("user {user} failed, attempt {attempt}: error"));
        if attempt >= ATTEMPTS_MAX {
            return;
        }
        self.rows[user as usize].jobs += 1;
        let work = Work::Sync(user);
        let attempt = attempt + 1;
        let delay_ms = BACKOFF_BASE_MS << (attempt - 2);
        self.queue.add(Job { work, attempt }, now.plus_ms(delay_ms));
        self.added = true;
    }

    /// Rule 7.
    fn swallowed(&mut self, user: u32) {
        self.tell(|| format!("user {user}: 429, counted as a success, stays syncing"));
    }
}
