//! The queue in Redis: one queue for many processes and machines.
//!
//! Every command of the queue is one Lua script, so it happens as a whole or not at all, for whatever process asks. The
//! scripts follow `kalends_core::queue::Queue`, which is the specification; a property test drives both with the same
//! commands against a real server and compares every answer and everything that can be seen.
//!
//! Rooms: `settings` the address; `link` the one connection, made when needed; `check` whether a server may be used;
//! `failure` its errors in words; `wake` wake-ups by pub/sub; `layout` the keys; `lua/` and `scripts` the scripts; `wire`
//! how arguments and answers are written; `asker` how a script is asked; `jobs`, `admin`, `look` the commands; `turn` ends
//! of attempts and claims, `turns` how those of one moment are gathered, and `enqueues` how enqueues are.
//!
//! What a script does at the most is bounded: a command for more than that (a thousand jobs, a changed schedule of a
//! million users) is several scripts, each of which may be the last if the process dies, and all of which may be run
//! again.

mod admin;
mod asker;
mod blocks;
mod check;
mod constants;
mod enqueues;
mod facts;
mod failure;
mod jobs;
mod layout;
pub mod link;
mod look;
mod outcome;
mod scripts;
mod settings;
mod soon;
mod turn;
mod turns;
mod wake;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use kalends_core::id::SourceName;
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, NewJob, Refusal, Reply, Stamped};
use kalends_core::time::Timestamp;

use asker::Asker;
use enqueues::Enqueues;
pub use facts::ServerFacts;
use jobs::Answered;
use link::Link;
pub use settings::RedisSettings;
use turns::Turns;
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
    turns: Arc<Turns>,
    enqueues: Arc<Enqueues>,
    wake: Wake,
}

impl RedisStore {
    /// A store at this address. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address or the prefix cannot be understood.
    pub fn new(settings: RedisSettings) -> Result<Self, BadAddress> {
        Ok(RedisStore::over(Link::new(&settings)?, &settings.prefix))
    }

    /// A store for somebody who only sends commands that read (status, a dry run): connecting to it writes nothing,
    /// so a prefix that nobody uses stays unused.
    ///
    /// # Errors
    /// As [`RedisStore::new`].
    pub fn only_looking(settings: &RedisSettings) -> Result<Self, BadAddress> {
        Ok(RedisStore::over(
            Link::only_looking(settings)?,
            &settings.prefix,
        ))
    }

    fn over(link: Link, prefix: &str) -> Self {
        let wake = link.wake();
        let asker = Arc::new(Asker::new(link, prefix));
        RedisStore {
            turns: Turns::new(Arc::clone(&asker)),
            enqueues: Enqueues::new(Arc::clone(&asker)),
            asker,
            wake,
        }
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
            let stamp = Box::pin(self.asker.schedules(now)).await?;
            return Ok(refused(stamp.now, refusal));
        }
        match command.with_times_kept().shortened() {
            Command::Enqueue {
                source,
                jobs,
                checkpoint: None,
            } if now.is_none() => self.enqueues.take(source, jobs).await,
            turn if turn::is_end(&turn) || matches!(turn, Command::Claim { .. }) => match now {
                None => self.turns.take(turn).await,
                now => Box::pin(self.turn_alone(now, turn)).await,
            },
            // Boxed, as it is large: the commands above are by far the most.
            other => Box::pin(self.apply_other(now, other)).await,
        }
    }

    async fn apply_other(&self, now: Option<Timestamp>, command: Command) -> Answered {
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
            Command::Heartbeat { leases, lease_ms } => asker.heartbeat(now, leases, lease_ms).await,
            Command::Checkpoint {
                lease,
                progress,
                requests,
            } => asker.checkpoint(now, lease, progress, requests).await,
            Command::Claim { .. }
            | Command::Complete { .. }
            | Command::Retry { .. }
            | Command::Fail { .. }
            | Command::Release { .. } => unreachable!("turns are handled above"),
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
            Command::RetryFailed { number } => asker.take_failed(now, number, false).await,
            Command::DiscardFailed { number } => asker.take_failed(now, number, true).await,
            Command::Remove { key } => asker.remove(now, key).await,
        }
    }

    /// Applies several ends of attempts and after them a claim, if there is one, in one script, as if the server's clock
    /// said `now`; `None`: what it says. Replies in the same order. This is what the store makes of ends and claims that
    /// come at the same moment; for tests.
    ///
    /// # Errors
    /// As [`Store::apply`].
    ///
    /// # Panics
    /// If there are other commands in `ends`, or `claim` is none.
    pub async fn apply_turn_at(
        &self,
        now: Option<Timestamp>,
        ends: Vec<Command>,
        claim: Option<Command>,
    ) -> Result<(Vec<Stamped<Reply>>, Option<Stamped<Reply>>), StoreUnavailable> {
        let kept = |command: Command| command.with_times_kept().shortened();
        let ends: Vec<Command> = ends.into_iter().map(kept).collect();
        let claim = claim.map(kept);
        let (now, replies, claimed) = self.asker.turn(now, &ends, claim.as_ref()).await?;
        let replies = replies.into_iter().map(|reply| stamped(now, reply));
        Ok((
            replies.collect(),
            claimed.map(|claimed| stamped(now, claimed)),
        ))
    }

    /// Applies several commands that enqueue in one source, in one script, as if the server's clock said `now`; `None`: what
    /// it says. Replies in the same order. This is what the store makes of such commands that come at the same moment; for
    /// tests.
    ///
    /// # Errors
    /// As [`Store::apply`].
    ///
    /// # Panics
    /// If there are other commands among them, or one with a checkpoint, of another source, or none at all; or more than 125
    /// jobs.
    pub async fn apply_enqueues_at(
        &self,
        now: Option<Timestamp>,
        commands: Vec<Command>,
    ) -> Result<Vec<Stamped<Reply>>, StoreUnavailable> {
        let kept = |command: Command| match command.with_times_kept().shortened() {
            Command::Enqueue {
                source,
                jobs,
                checkpoint: None,
            } => (source, jobs),
            other => panic!("not to be gathered: {other:?}"),
        };
        let commands: Vec<(SourceName, Vec<NewJob>)> = commands.into_iter().map(kept).collect();
        let (source, _) = commands.first().expect("commands to gather");
        assert!(
            commands.iter().all(|(of, _)| of == source),
            "one source only"
        );
        let jobs: Vec<&[NewJob]> = commands.iter().map(|(_, jobs)| jobs.as_slice()).collect();
        let (now, replies) = self.asker.enqueue_each(now, source, &jobs).await?;
        let replies = replies.into_iter().map(|reply| stamped(now, reply));
        Ok(replies.collect())
    }

    async fn turn_alone(&self, now: Option<Timestamp>, command: Command) -> Answered {
        let claims = matches!(command, Command::Claim { .. });
        let (ends, claim) = if claims {
            (Vec::new(), Some(&command))
        } else {
            (vec![command.clone()], None)
        };
        let (now, mut replies, claimed) = self.asker.turn(now, &ends, claim).await?;
        let reply = claimed.or_else(|| replies.pop());
        Ok(stamped(now, reply.expect("a turn answers each command")))
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
