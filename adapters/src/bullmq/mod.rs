//! A BullMQ queue, for reading: what `kalends migrate` takes over from the service that it replaces.
//!
//! BullMQ keeps a queue in many keys named `PREFIX:QUEUE:...`. Jobs are hashes `PREFIX:QUEUE:ID`; lists and sorted sets
//! hold their ids, one for each state. A repeatable is a member of the sorted set `repeat` (its score: when it is next)
//! with a hash `repeat:MEMBER` beside it, both for what version 5 calls a repeatable job and for job schedulers (5.16 on,
//! told by the field `ic`); before 5.10 there was no hash, and the member itself says all:
//! `NAME:ID:END:TIME ZONE:PATTERN`. The score of a delayed job is its time in milliseconds, times 4,096, plus a counter.
//!
//! Invariants:
//! - nothing is written: `EXISTS`, `TYPE`, counts, ranges, `HSTRLEN`, `HGET` and `CLIENT LIST` are all that is sent;
//! - what stands there is hostile: a field is asked for its length before it is fetched, a page has [`PAGE_ITEMS`]
//!   items, and whatever is not as BullMQ writes it becomes a value that says so ([`Lookup`], [`Field`]), no error.
//!
//! Pages go by position. If somebody takes jobs out meanwhile, later ones move forward, and a page may miss some: the
//! service must be stopped.

mod fields;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kalends_core::time::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind, cmd};

use crate::secret::Secret;

pub use fields::{Field, JobFields, Lookup, RepeatFields};

/// What the names of a BullMQ queue's keys begin with unless its options say otherwise.
pub const PREFIX_DEFAULT: &str = "bull";
/// Items that one range command asks for.
pub const PAGE_ITEMS: usize = 500;
/// The longest id of a job or repeatable that is looked up, in bytes.
pub const ID_BYTES_MAX: usize = 1_024;
/// The longest queue name or prefix that is accepted, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one answer (a page) may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// What a delayed job's score is divided by to have its time in milliseconds.
const SCORES_A_MS: f64 = 4_096.0;

/// Why a queue cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BullmqError {
    /// The server does not answer, or not yet: trying again may help.
    Away {
        /// What happened, without secrets.
        detail: String,
    },
    /// The address, the password, a name is wrong, or this is no BullMQ queue.
    Wrong {
        /// What is wrong and what to do, without secrets.
        detail: String,
    },
}

impl std::fmt::Display for BullmqError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BullmqError::Away { detail } | BullmqError::Wrong { detail } => {
                formatter.write_str(detail)
            }
        }
    }
}

impl std::error::Error for BullmqError {}

/// Where jobs stand that have yet to run, or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobSet {
    /// The list of those that may start.
    Wait,
    /// The list in which they stand while the queue is paused.
    Paused,
    /// Those with a priority, in its order.
    Prioritized,
    /// Those whose time has not come.
    Delayed,
    /// Those that were given up.
    Failed,
}

impl JobSet {
    /// The last part of its key, which is also its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            JobSet::Wait => "wait",
            JobSet::Paused => "paused",
            JobSet::Prioritized => "prioritized",
            JobSet::Delayed => "delayed",
            JobSet::Failed => "failed",
        }
    }

    fn is_list(self) -> bool {
        matches!(self, JobSet::Wait | JobSet::Paused)
    }
}

/// How many of everything there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Repeatable jobs and job schedulers.
    pub repeats: u64,
    /// See [`JobSet::Wait`].
    pub wait: u64,
    /// See [`JobSet::Paused`].
    pub paused: u64,
    /// See [`JobSet::Prioritized`].
    pub prioritized: u64,
    /// See [`JobSet::Delayed`].
    pub delayed: u64,
    /// Those that a worker runs.
    pub active: u64,
    /// Those that wait for others, which came out of them.
    pub waiting_children: u64,
    /// See [`JobSet::Failed`].
    pub failed: u64,
    /// Those that ended well and are kept.
    pub completed: u64,
    /// Whether the queue was paused.
    pub is_paused: bool,
    /// Connections of the queue's workers to this server; `None` if the server does not let us look.
    pub worker_connections: Option<u64>,
}

impl Counts {
    /// How many jobs stand in `set`.
    #[must_use]
    pub fn of(&self, set: JobSet) -> u64 {
        match set {
            JobSet::Wait => self.wait,
            JobSet::Paused => self.paused,
            JobSet::Prioritized => self.prioritized,
            JobSet::Delayed => self.delayed,
            JobSet::Failed => self.failed,
        }
    }
}

/// A repeatable job or a job scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeat {
    /// Its key: a scheduler's id, a hash, or all that there is to know.
    pub key: String,
    /// When it is next, in milliseconds since the epoch, as BullMQ computed it.
    pub next_ms: f64,
    /// Its hash.
    pub lookup: Lookup<RepeatFields>,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id, cut to [`ID_BYTES_MAX`].
    pub id: String,
    /// Not to be started earlier; `None` but for delayed ones, and for a score that is no time.
    pub due_at: Option<Timestamp>,
    /// Its hash.
    pub lookup: Lookup<JobFields>,
}

/// A page, and where the next one begins; `None` after the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// At most [`PAGE_ITEMS`].
    pub items: Vec<T>,
    /// The offset of the next page.
    pub next: Option<u64>,
}

/// A connection to a BullMQ queue.
#[derive(Clone)]
pub struct BullmqQueue {
    connection: MultiplexedConnection,
    /// `PREFIX:QUEUE`
    base: String,
    worker_name: String,
}

impl BullmqQueue {
    /// Connects, and looks whether there is such a queue.
    ///
    /// # Errors
    /// If the address, the prefix or the name is wrong, the server is away, or has no such queue.
    pub async fn connect(url: &Secret, prefix: &str, queue: &str) -> Result<Self, BullmqError> {
        for (what, name) in [("the queue's name", queue), ("the prefix", prefix)] {
            let length = name.len();
            if !(1..=NAME_BYTES_MAX).contains(&length) {
                let detail = format!("{what} has {length} bytes; give 1 to {NAME_BYTES_MAX}");
                return Err(BullmqError::Wrong { detail });
            }
        }
        let client = Client::open(url.expose()).map_err(|error| BullmqError::Wrong {
            detail: format!(
                "the address of BullMQ's Redis cannot be used ({}); write redis://[user:password@]host[:port][/database], \
                 or rediss:// for TLS",
                error.category()
            ),
        })?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| explain(&error))?;
        let found = BullmqQueue {
            connection,
            base: format!("{prefix}:{queue}"),
            worker_name: format!("{prefix}:{}", BASE64.encode(queue)),
        };
        if found.exists().await? {
            return Ok(found);
        }
        Err(BullmqError::Wrong {
            detail: format!(
                "there is no BullMQ queue {queue:?} with the prefix {prefix:?} in this database; look at the name \
                 (--queue), at the prefix (--bullmq-prefix) and at the address with its database number (--bullmq-url)"
            ),
        })
    }

    async fn exists(&self) -> Result<bool, BullmqError> {
        let mut exists = cmd("EXISTS");
        for name in [
            "meta",
            "id",
            "repeat",
            "wait",
            "paused",
            "prioritized",
            "delayed",
            "active",
            "failed",
            "completed",
        ] {
            exists.arg(self.key(name));
        }
        let count: u64 = self.ask(&exists).await?;
        Ok(count > 0)
    }

    /// Counts everything.
    ///
    /// # Errors
    /// If the server goes away, or a key is not of the type that BullMQ gives it.
    pub async fn counts(&self) -> Result<Counts, BullmqError> {
        let count = async |command: &str, name: &str| -> Result<u64, BullmqError> {
            self.ask(cmd(command).arg(self.key(name))).await
        };
        let is_paused: bool = self
            .ask(cmd("HEXISTS").arg(self.key("meta")).arg("paused"))
            .await?;
        Ok(Counts {
            repeats: count("ZCARD", "repeat").await?,
            wait: count("LLEN", "wait").await?,
            paused: count("LLEN", "paused").await?,
            prioritized: count("ZCARD", "prioritized").await?,
            delayed: count("ZCARD", "delayed").await?,
            active: count("LLEN", "active").await?,
            waiting_children: count("ZCARD", "waiting-children").await?,
            failed: count("ZCARD", "failed").await?,
            completed: count("ZCARD", "completed").await?,
            is_paused,
            worker_connections: self.worker_connections().await,
        })
    }

    /// Workers give their connections a name made of the prefix and the queue's name in base 64.
    async fn worker_connections(&self) -> Option<u64> {
        // A user of the server who may not look at its clients gets no answer: nothing depends on it.
        let clients: String = self.ask(cmd("CLIENT").arg("LIST")).await.ok()?;
        let ours = |name: &&str| {
            let rest = name.strip_prefix(self.worker_name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(":w:"))
        };
        let names = clients.lines().filter_map(|client| {
            let mut parts = client.split(' ');
            parts.find_map(|part| part.strip_prefix("name="))
        });
        Some(names.filter(ours).count() as u64)
    }

    /// A page of repeatables, the next to run first.
    ///
    /// # Errors
    /// As [`BullmqQueue::counts`].
    pub async fn repeats(&self, offset: u64) -> Result<Page<Repeat>, BullmqError> {
        let members = self.scored("repeat", offset).await?;
        let next = next_offset(offset, members.len());
        let ids: Vec<&[u8]> = members.iter().map(|(id, _)| id.as_slice()).collect();
        let lookups = self.look_up::<RepeatFields>("repeat:", &ids).await?;
        let items = members.iter().zip(lookups);
        Ok(Page {
            items: items
                .map(|((id, score), lookup)| Repeat {
                    key: fields::id_text(id),
                    next_ms: *score,
                    lookup,
                })
                .collect(),
            next,
        })
    }

    /// A page of jobs of one state.
    ///
    /// # Errors
    /// As [`BullmqQueue::counts`].
    pub async fn jobs(&self, set: JobSet, offset: u64) -> Result<Page<Job>, BullmqError> {
        let mut members: Vec<(Vec<u8>, f64)> = if set.is_list() {
            let range = self.range("LRANGE", set.name(), offset);
            let ids: Vec<Vec<u8>> = self.ask(&range).await?;
            ids.into_iter().map(|id| (id, 0.0)).collect()
        } else {
            self.scored(set.name(), offset).await?
        };
        let next = next_offset(offset, members.len());
        // Marks that older versions put among the jobs to wake a worker; no id of a job begins so.
        members.retain(|(id, _)| !id.starts_with(b"0:"));
        let ids: Vec<&[u8]> = members.iter().map(|(id, _)| id.as_slice()).collect();
        let lookups = self.look_up::<JobFields>("", &ids).await?;
        let due_at = |score: f64| (set == JobSet::Delayed).then(|| time_of(score)).flatten();
        let items = members.iter().zip(lookups);
        Ok(Page {
            items: items
                .map(|((id, score), lookup)| Job {
                    id: fields::id_text(id),
                    due_at: due_at(*score),
                    lookup,
                })
                .collect(),
            next,
        })
    }

    async fn scored(&self, name: &str, offset: u64) -> Result<Vec<(Vec<u8>, f64)>, BullmqError> {
        let mut range = self.range("ZRANGE", name, offset);
        self.ask(range.arg("WITHSCORES")).await
    }

    fn range(&self, command: &str, name: &str, offset: u64) -> redis::Cmd {
        let mut range = cmd(command);
        let last = offset.saturating_add(PAGE_ITEMS as u64 - 1);
        range.arg(self.key(name)).arg(offset).arg(last);
        range
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.base)
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BullmqError> {
        let mut connection = self.connection.clone();
        let answer = command.query_async(&mut connection).await;
        answer.map_err(|error| explain(&error))
    }
}

fn next_offset(offset: u64, count: usize) -> Option<u64> {
    (count >= PAGE_ITEMS).then(|| offset.saturating_add(count as u64))
}

/// The time that a delayed job's score stands for; `None` if it is none within the years that JavaScript's clock knows.
fn time_of(score: f64) -> Option<Timestamp> {
    /// The last millisecond of a JavaScript `Date`.
    const LATEST_MS: f64 = 8.64e15;
    let ms = (score / SCORES_A_MS).floor();
    if !(0.0..=LATEST_MS).contains(&ms) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within bounds, and whole")]
    Some(Timestamp::from_ms(ms as i64))
}

/// An error in words. The server's own words are kept, as they hold no secret; the client's are not, as they may hold
/// the address.
fn explain(error: &RedisError) -> BullmqError {
    let said = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) if error.is_connection_refusal() => "connection refused".to_owned(),
        (None, _) if error.is_timeout() => "no answer in time".to_owned(),
        (None, _) => error.category().to_owned(),
    };
    let said: String = said.chars().take(300).collect();
    let code = error.code().unwrap_or_default();
    match error.kind() {
        ErrorKind::AuthenticationFailed => BullmqError::Wrong {
            detail: format!(
                "BullMQ's Redis refuses the user or the password ({said}); correct them in the address"
            ),
        },
        _ if matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM") => BullmqError::Wrong {
            detail: format!(
                "BullMQ's Redis does not let us read the queue ({said}); give a user and password that may, in the address"
            ),
        },
        _ if code == "WRONGTYPE" => BullmqError::Wrong {
            detail: format!(
                "a key of this queue is not of the type that BullMQ gives it ({said}); look at the queue's name and prefix"
            ),
        },
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => BullmqError::Wrong {
            detail: format!(
                "BullMQ's Redis is a Cluster, and the queue is at another node ({said}); give that node's address"
            ),
        },
        ErrorKind::InvalidClientConfig => BullmqError::Wrong {
            detail: format!("the address of BullMQ's Redis cannot be used ({said})"),
        },
        _ => BullmqError::Away {
            detail: format!(
                "BullMQ's Redis does not answer as it should ({said}); look whether it is up and the address is right, \
                 then try again"
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_a_time_or_nothing() {
        let score = 1_767_225_600_000.0 * 4_096.0;
        for counter in [0.0, 1.0, 4_095.0] {
            let expected = Some(Timestamp::from_ms(1_767_225_600_000));
            assert_eq!(time_of(score + counter), expected);
        }
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
            assert_eq!(time_of(nonsense), None, "{nonsense}");
        }
    }

    #[tokio::test]
    async fn a_wrong_address_is_told_without_its_password() {
        let url = Secret::new("redis://ada:hunter2@[broken");
        let error = BullmqQueue::connect(&url, "bull", "q").await.err().unwrap();
        assert!(matches!(error, BullmqError::Wrong { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        // Nobody listens on the port "discard" of this machine.
        let url = Secret::new("redis://ada:hunter2@127.0.0.1:9/");
        let error = BullmqQueue::connect(&url, "bull", "q").await.err().unwrap();
        assert!(matches!(error, BullmqError::Away { .. }), "{error}");
        assert!(error.to_string().contains("connection refused"), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        for name in ["", &"x".repeat(NAME_BYTES_MAX + 1)] {
            let error = BullmqQueue::connect(&url, "bull", name)
                .await
                .err()
                .unwrap();
            assert!(matches!(error, BullmqError::Wrong { .. }), "{error}");
        }
    }
}
