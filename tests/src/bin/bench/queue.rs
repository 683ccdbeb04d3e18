//! The queue that is measured, and what is done to it: jobs that do nothing, through the real adapter, node and driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kalends::driver::Ports;
use kalends::handle::start_observed;
use kalends_adapters::redis::{RedisSettings, RedisStore};
use kalends_adapters::secret::Secret;
use kalends_core::failure::Failure;
use kalends_core::google::page::{EventsPage, FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphCounts, GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::node::io::Notice;
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::port::{Graph, Source, Store as _};
use kalends_core::queue::CLAIM_BATCH_MAX;
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority, Reply};
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;
use kalends_core::time::Timestamp;

use crate::fan_out::{self, FanOut};

/// Nothing that is measured may take longer than this.
const PATIENCE: Duration = Duration::from_secs(600);
/// Single enqueues, and pick-ups, that are measured.
const SINGLE_JOBS: usize = 5_000;
const PICKUPS: usize = 300;
/// Callers who enqueue one job at a time, all at once, as the requests of a web application do; and their jobs in all.
const CALLERS: usize = 50;
const CALLERS_JOBS: usize = 20_000;
/// Active jobs whose memory is measured.
const HELD_JOBS: usize = 5_000;
/// How long an idle process is watched.
const IDLE: Duration = Duration::from_secs(20);
/// How long after its last job a process counts as idle.
const SETTLE: Duration = Duration::from_secs(2);
/// Leave for a node to end.
const SHUTDOWN_MS: u64 = 5_000;

/// A source that has nothing new, and a graph that nobody writes to.
pub(crate) struct Unchanged;

#[async_trait]
impl Source for Unchanged {
    async fn fetch(&self, _request: FetchRequest) -> Result<FetchReply, Failure> {
        Ok(FetchReply::Events(EventsPage {
            summary: None,
            time_zone: None,
            access_role: None,
            events: Vec::new(),
            unreadable: Vec::new(),
            end: PageEnd::Done {
                sync_token: Some("CPDAlvWDx70CEPDAlvWDx70CGAU=".to_owned()),
            },
        }))
    }
}

#[async_trait]
impl Graph for Unchanged {
    async fn write(&self, _write: GraphWrite) -> Result<GraphReply, Failure> {
        Ok(GraphReply::Written(GraphCounts::default()))
    }

    async fn snapshot(&self, _user: &UserId) -> Result<GraphSnapshot, Failure> {
        Err(Failure::permanent("the benchmark keeps no graph"))
    }
}

pub(crate) struct Bench {
    url: String,
    prefix: String,
    store: Arc<RedisStore>,
    side: redis::aio::MultiplexedConnection,
    pub(crate) users: Vec<UserId>,
}

pub(crate) fn source() -> SourceName {
    SourceName::google_calendar()
}

pub(crate) fn settings() -> SourceSettings {
    SourceSettings {
        jobs: None,
        requests_project: None,
        requests_user: None,
        ..SourceSettings::default()
    }
}

pub(crate) fn store_at(url: &str, prefix: &str) -> Result<RedisStore, String> {
    RedisStore::new(RedisSettings {
        url: Secret::new(url.to_owned()),
        prefix: prefix.to_owned(),
        connect_timeout_ms: 5_000,
        response_timeout_ms: 30_000,
        ca_file: None,
    })
    .map_err(|error| error.to_string())
}

async fn ask(store: &RedisStore, command: Command) -> Result<Reply, String> {
    let stamped = store.apply(command).await;
    match stamped.map_err(|error| error.detail)?.value {
        Reply::Refused { refusal } => Err(refusal.to_string()),
        reply => Ok(reply),
    }
}

fn jobs(source: &SourceName, users: &[UserId]) -> Command {
    let job = |user: &UserId| NewJob {
        user: user.clone(),
        run_at: Timestamp::from_ms(1_767_225_660_000),
        nominal_at: Some(Timestamp::from_ms(1_767_225_600_000)),
        priority: Priority::Scheduled,
    };
    Command::Enqueue {
        source: source.clone(),
        jobs: users.iter().map(job).collect(),
        checkpoint: None,
    }
}

impl Bench {
    /// A queue of its own, with `jobs` users to be enrolled.
    pub(crate) async fn new(url: &str, jobs: usize) -> Result<Bench, String> {
        let prefix = format!("kalends-bench-{}", std::process::id());
        let client = redis::Client::open(url).map_err(|error| error.to_string())?;
        let side = client.get_multiplexed_async_connection().await;
        let name = |index| UserId::new(&format!("user-{index:07}@example.com"));
        Ok(Bench {
            url: url.to_owned(),
            store: Arc::new(store_at(url, &prefix)?),
            prefix,
            side: side.map_err(|error| error.to_string())?,
            users: (0..jobs)
                .map(|index| name(index).expect("a good name"))
                .collect(),
        })
    }

    async fn ask(&self, command: Command) -> Result<Reply, String> {
        ask(&self.store, command).await
    }

    /// A connection beside the queue's own.
    pub(crate) fn side(&self) -> redis::aio::MultiplexedConnection {
        self.side.clone()
    }

    pub(crate) async fn info(&self, section: &str, field: &str) -> Result<u64, String> {
        let text: String = redis::cmd("INFO")
            .arg(section)
            .query_async(&mut self.side.clone())
            .await
            .map_err(|error| error.to_string())?;
        text.lines()
            .find_map(|line| {
                line.strip_prefix(field)?
                    .strip_prefix(':')?
                    .trim()
                    .parse()
                    .ok()
            })
            .ok_or_else(|| format!("INFO has no {field}"))
    }

    pub(crate) async fn enroll(&self) -> Result<(), String> {
        let define = Command::DefineSource {
            source: source(),
            settings: settings(),
        };
        self.ask(define).await?;
        for users in self.users.chunks(BATCH_MAX) {
            let enroll = Command::Enroll {
                source: source(),
                users: users.to_vec(),
                due_at: Timestamp::from_ms(1_767_225_600_000),
            };
            self.ask(enroll).await?;
        }
        Ok(())
    }

    /// Enqueues a job for every user; jobs a second.
    pub(crate) async fn enqueue_all(&self) -> Result<f64, String> {
        let begun = Instant::now();
        for users in self.users.chunks(BATCH_MAX) {
            self.ask(jobs(&source(), users)).await?;
        }
        Ok(self.users.len() as f64 / begun.elapsed().as_secs_f64())
    }

    /// Enqueues some jobs one by one; jobs a second.
    pub(crate) async fn enqueue_singly(&self) -> Result<f64, String> {
        let users = self.first(SINGLE_JOBS);
        let begun = Instant::now();
        for user in users {
            self.ask(jobs(&source(), std::slice::from_ref(user)))
                .await?;
        }
        Ok(users.len() as f64 / begun.elapsed().as_secs_f64())
    }

    /// Many callers in one process enqueue, each one job after another; jobs a second.
    pub(crate) async fn enqueue_by_callers(&self) -> Result<f64, String> {
        let users = self.first(CALLERS_JOBS);
        let mut callers = tokio::task::JoinSet::new();
        let begun = Instant::now();
        for users in users.chunks(users.len().div_ceil(CALLERS)) {
            let (store, source) = (Arc::clone(&self.store), source());
            let commands: Vec<Command> = users
                .iter()
                .map(|user| jobs(&source, std::slice::from_ref(user)))
                .collect();
            callers.spawn(async move {
                for command in commands {
                    ask(&store, command).await?;
                }
                Ok::<(), String>(())
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(users.len() as f64 / begun.elapsed().as_secs_f64())
    }

    /// What no client can be faster than that waits for each answer: a `PING`, and the smallest script that there is, one
    /// after another over a connection of the same kind; commands a second.
    pub(crate) async fn floor(&self) -> Result<(f64, f64), String> {
        let digest: String = redis::cmd("SCRIPT")
            .arg(&["LOAD", "return 1"])
            .query_async(&mut self.side())
            .await
            .map_err(|error| error.to_string())?;
        let mut script = redis::cmd("EVALSHA");
        script.arg(digest).arg(0);
        let mut figures = [0.0; 2];
        for (figure, command) in figures.iter_mut().zip([redis::cmd("PING"), script]) {
            let begun = Instant::now();
            for _ in 0..SINGLE_JOBS {
                command
                    .query_async::<redis::Value>(&mut self.side())
                    .await
                    .map_err(|error| error.to_string())?;
            }
            *figure = SINGLE_JOBS as f64 / begun.elapsed().as_secs_f64();
        }
        Ok((figures[0], figures[1]))
    }

    fn first(&self, most: usize) -> &[UserId] {
        &self.users[..self.users.len().min(most)]
    }

    /// Enqueues jobs and gives them all to workers, who keep them; bytes that such a job takes.
    pub(crate) async fn hold(&self) -> Result<f64, String> {
        let users = self.first(HELD_JOBS);
        let empty = self.info("memory", "used_memory").await?;
        for users in users.chunks(BATCH_MAX) {
            self.ask(jobs(&source(), users)).await?;
        }
        for (index, users) in users.chunks(CLAIM_BATCH_MAX).enumerate() {
            let claim = Command::Claim {
                worker: WorkerId::new(&format!("bench-{index}")).expect("a good name"),
                slots: users.len() as u32,
                fan_out_slots: 0,
                lease_ms: 600_000,
                held: Vec::new(),
            };
            match self.ask(claim).await? {
                Reply::Claimed { leases, .. } if leases.len() == users.len() => {}
                other => return Err(format!("jobs were expected, not {other:?}")),
            }
        }
        let full = self.info("memory", "used_memory").await?;
        Ok(full.saturating_sub(empty) as f64 / users.len() as f64)
    }

    fn node(&self, concurrency: u32, fan_out_slots: u32) -> NodeSettings {
        let worker = format!("bench-{concurrency}-{fan_out_slots}");
        let mut settings_of = NodeSettings::new(WorkerId::new(&worker).expect("a good name"), 7);
        settings_of.concurrency = concurrency;
        settings_of.fan_out_slots = fan_out_slots;
        settings_of.sources.push(SourceDefinition {
            name: source(),
            settings: settings(),
            sync: SyncSettings::default(),
            enroll: Vec::new(),
        });
        settings_of
    }

    fn start(&self, concurrency: u32) -> Result<(kalends::handle::Handle, Arc<AtomicU64>), String> {
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let ports = Ports {
            store: Arc::new(store_at(&self.url, &self.prefix)?),
            source: Arc::new(Unchanged),
            graph: Arc::new(Unchanged),
        };
        let handle = start_observed(self.node(concurrency, 0), ports, move |notice| {
            if matches!(notice, Notice::JobDone { .. }) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok((handle, done))
    }

    async fn wait_for(&self, done: &AtomicU64, jobs: u64) -> Result<(), String> {
        let begun = Instant::now();
        while done.load(Ordering::Relaxed) < jobs {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{jobs} jobs did not end in {PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Lets a node do all jobs that wait, one for each user; jobs a second.
    pub(crate) async fn drain(&self, concurrency: u32) -> Result<f64, String> {
        self.drain_jobs(concurrency, self.users.len()).await
    }

    /// The same for the jobs that were enqueued one by one.
    pub(crate) async fn drain_singles(&self, concurrency: u32) -> Result<f64, String> {
        self.drain_jobs(concurrency, self.first(SINGLE_JOBS).len())
            .await
    }

    /// The same for those of the many callers.
    pub(crate) async fn drain_callers(&self, concurrency: u32) -> Result<f64, String> {
        self.drain_jobs(concurrency, self.first(CALLERS_JOBS).len())
            .await
    }

    async fn drain_jobs(&self, concurrency: u32, jobs: usize) -> Result<f64, String> {
        let begun = Instant::now();
        let (handle, done) = self.start(concurrency)?;
        self.wait_for(&done, jobs as u64).await?;
        let per_s = jobs as f64 / begun.elapsed().as_secs_f64();
        handle.shutdown(SHUTDOWN_MS).await;
        Ok(per_s)
    }

    /// Commands that clients sent: scripts and `PING`. (`total_commands_processed` counts those within scripts, too.)
    pub(crate) async fn scripts_called(&self) -> Result<u64, String> {
        let text: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut self.side.clone())
            .await
            .map_err(|error| error.to_string())?;
        let calls = text.lines().filter_map(|line| {
            let rest = line
                .strip_prefix("cmdstat_evalsha:calls=")
                .or_else(|| line.strip_prefix("cmdstat_ping:calls="))?;
            rest.split(',').next()?.parse::<u64>().ok()
        });
        Ok(calls.sum())
    }

    /// A whole fan-out of all users, which leaves a job for each.
    pub(crate) fn fan_out(&self) -> Result<FanOut, String> {
        let measured = fan_out::measure(&self.url, &self.prefix)?;
        if measured.users < self.users.len() as f64 {
            return Err(format!(
                "only {} of {} users were fanned out",
                measured.users,
                self.users.len()
            ));
        }
        Ok(measured)
    }

    /// An idle process: commands a second, and how long a job that is due at once waits to be done (p99, ms).
    pub(crate) async fn idle(&self) -> Result<(f64, f64), String> {
        let (handle, done) = self.start(3)?;
        tokio::time::sleep(SETTLE).await;
        let before = self.scripts_called().await?;
        tokio::time::sleep(IDLE).await;
        let idle_per_s = (self.scripts_called().await? - before) as f64 / IDLE.as_secs_f64();
        let mut waits = Vec::with_capacity(PICKUPS);
        let mut seen = done.load(Ordering::Relaxed);
        for index in 0..PICKUPS {
            let user = &self.users[index % self.users.len()];
            tokio::time::sleep(Duration::from_millis(20)).await;
            let begun = Instant::now();
            self.ask(jobs(&source(), std::slice::from_ref(user)))
                .await?;
            seen += 1;
            while done.load(Ordering::Relaxed) < seen {
                if begun.elapsed() > PATIENCE {
                    return Err("a job was not picked up".to_owned());
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            waits.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        handle.shutdown(SHUTDOWN_MS).await;
        waits.sort_by(f64::total_cmp);
        Ok((idle_per_s, waits[waits.len() * 99 / 100]))
    }

    pub(crate) async fn forget(&self) -> Result<(), String> {
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let (next, found): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{{{}}}:*", self.prefix))
                .arg("COUNT")
                .arg(1_000)
                .query_async(&mut self.side.clone())
                .await
                .map_err(|error| error.to_string())?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        redis::cmd("UNLINK")
            .arg(&keys)
            .query_async::<()>(&mut self.side.clone())
            .await
            .map_err(|error| error.to_string())
    }
}
