//! The queue in Redis: one queue for many processes and machines.
//!
//! Every command of the queue is one Lua script, so it happens as a whole or not at all, for whatever process asks. The
//! scripts follow `kalends_core::queue::Queue`, which is the specification; a property test drives both with the same
//! commands against a real server and compares every answer and everything that can be seen.
//!
//! Rooms: `settings` the address; `link` the one connection, made when needed; `check` whether a server may be used;
//! `failure` its errors in words; `wake` wake-ups by pub/sub; `layout` the keys; `lua/` and `scripts` the scripts; `wire`
//! how arguments and answers are written; `asker` how a script is asked; `jobs`, `admin`, `look` the commands; `ends` how
//! ends of attempts are gathered.
//!
//! What a script does at the most is bounded: a command for more than that (a thousand jobs, a changed schedule of a
//! million users) is several scripts, each of which may be the last if the process dies, and all of which may be run
//! again.

mod admin;
mod asker;
mod blocks;
mod check;
mod ends;
mod failure;
mod jobs;
mod layout;
pub mod link;
mod look;
mod outcome;
mod scripts;
mod settings;
mod wake;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use kalends_core::id::SourceName;
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Refusal, Reply, Stamped};
use kalends_core::time::Timestamp;

use asker::Asker;
use ends::Ends;
use jobs::Answered;
use link::Link;
pub use settings::RedisSettings;
use wake::Wake;

/// Why the settings cannot be used, whatever the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress(pub String);

impl std::fmt::Display for BadAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BadAddress {}

/// Why a server cannot be used just now, or as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It does not answer, is loading its data, or is a replica without a master: it may come.
    Away {
        /// What happened, without secrets.
        detail: String,
    },
    /// It answers, but must not be used as it is (it may evict keys, the password is wrong, the data are of another
    /// format): an operator must act.
    Refused {
        /// What is wrong and which setting cures it, without secrets.
        detail: String,
    },
}

/// The queue in Redis. Cheap to make: it connects when it is first asked, and again whenever the connection was lost.
#[derive(Debug)]
pub struct RedisStore {
    asker: Arc<Asker>,
    ends: Arc<Ends>,
    wake: Wake,
}

impl RedisStore {
    /// A store at this address. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address or the prefix cannot be understood.
    pub fn new(settings: RedisSettings) -> Result<Self, BadAddress> {
        let link = Link::new(&settings)?;
        let wake = link.wake();
        let asker = Arc::new(Asker::new(link, &settings.prefix));
        Ok(RedisStore {
            ends: Ends::new(Arc::clone(&asker)),
            asker,
            wake,
        })
    }

    /// Connects and looks whether the server may be used: its role, its memory policy, the format of what is there.
    ///
    /// # Errors
    /// [`Unusable::Away`] if it may come later by itself, [`Unusable::Refused`] if an operator must act.
    pub async fn check(&self) -> Result<(), Unusable> {
        self.asker.link().check().await.map_err(Unusable::from)
    }

    /// Applies `command` as if the server's clock said `now`; `None`: what it says (Redis `TIME`). For tests.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn apply_at(
        &self,
        now: Option<Timestamp>,
        command: Command,
    ) -> Result<Stamped<Reply>, StoreUnavailable> {
        if let Err(refusal) = command.check() {
            // The reply carries the store's time, as every other.
            let stamp = self.asker.schedules(now).await?;
            return Ok(refused(stamp.now, refusal));
        }
        let command = command.with_times_kept().shortened();
        if jobs::is_end(&command) {
            return match now {
                None => self.ends.end(command).await,
                now => self.end_alone(now, command).await,
            };
        }
        let asker = &self.asker;
        match command {
            Command::DefineSource { source, settings } => {
                asker.define_source(now, source, settings).await
            }
            Command::DefineSchedule {
                schedule,
                definition,
            } => asker.define_schedule(now, schedule, definition).await,
            Command::RemoveSchedule { schedule } => asker.remove_schedule(now, schedule).await,
            Command::Tick { .. } => asker.tick(now, command).await,
            Command::Enqueue {
                source,
                jobs,
                checkpoint,
            } => asker.enqueue(now, source, jobs, checkpoint).await,
            Command::Claim {
                worker,
                slots,
                fan_out_slots,
                lease_ms,
                held,
            } => {
                let slots = (slots, fan_out_slots);
                asker.claim(now, worker, slots, lease_ms, held).await
            }
            Command::Heartbeat { leases, lease_ms } => asker.heartbeat(now, leases, lease_ms).await,
            Command::Checkpoint {
                lease,
                progress,
                requests,
            } => asker.checkpoint(now, lease, progress, requests).await,
            Command::Complete { .. }
            | Command::Retry { .. }
            | Command::Fail { .. }
            | Command::Release { .. } => unreachable!("ends are handled above"),
            Command::Limited { .. } => asker.limited(now, command).await,
            Command::Pause { .. } | Command::Resume { .. } | Command::SetLimit { .. } => {
                asker.operate(now, command).await
            }
            Command::DueUsers {
                source,
                due_by,
                after,
                limit,
            } => asker.due_users(now, source, due_by, after, limit).await,
            Command::Enroll {
                source,
                users,
                due_at,
            } => asker.enroll(now, source, users, due_at).await,
            Command::Connect {
                source,
                grants,
                due_at,
                force,
            } => asker.connect(now, source, grants, due_at, force).await,
            Command::Unenroll { source, users } => asker.unenroll(now, source, users).await,
            Command::User { source, user } => asker.user(now, source, user).await,
            Command::Users {
                source,
                after,
                limit,
            } => asker.users(now, source, after, limit).await,
            Command::Schedules => asker.schedules(now).await,
            Command::Stats => asker.stats(now).await,
            Command::Jobs {
                state,
                offset,
                limit,
            } => asker.jobs(now, state, offset, limit).await,
            Command::RetryFailed { number } => asker.retry_failed(now, number).await,
            Command::Remove { key } => asker.remove(now, key).await,
        }
    }

    async fn end_alone(&self, now: Option<Timestamp>, end: Command) -> Answered {
        let (now, mut replies) = self.asker.finish(now, &[end]).await?;
        let reply = replies.pop().expect("finish gives a reply for each end");
        Ok(stamped(now, reply))
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        self.apply_at(None, command).await
    }

    async fn wait_for_wake(&self) {
        self.wake.wait().await;
    }
}

fn stamped(now: Timestamp, value: Reply) -> Stamped<Reply> {
    Stamped { now, value }
}

fn refused(now: Timestamp, refusal: Refusal) -> Stamped<Reply> {
    stamped(now, Reply::Refused { refusal })
}

fn lost(now: Timestamp) -> Stamped<Reply> {
    refused(now, Refusal::LeaseLost)
}

fn unknown_source(now: Timestamp, source: &SourceName) -> Stamped<Reply> {
    let source = source.clone();
    refused(now, Refusal::UnknownSource { source })
}
