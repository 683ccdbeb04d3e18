//! Several `kalends run` on one Redis: one tick each minute, the limit held over all of them, any of them killed or
//! stopped at any time without a user lost, a rolling deploy that leaves one schedule, the new one; and two environments
//! beside each other.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kalends::emulate::face::FaceOptions;
use kalends_adapters::neo4j::Databases;
use kalends_adapters::redis::RedisStore;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Graph as _, Store as _};
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority, Reply};
use kalends_core::queue::state::{QueueStats, ScheduleState, UserState};
use kalends_core::time::MINUTE_MS;
use kalends_sim::oracle;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::neo4j_server::Neo4jServer;
use kalends_tests::process::{PATIENCE, Process};
use kalends_tests::redis_server::{RedisOptions, RedisServer, store_of};
use tempfile::TempDir;

/// How many processes share the queue.
const PROCESSES: usize = 3;

/// One Redis, one Google, one Neo4j, and what is started on them.
struct Fleet {
    redis: Arc<RedisServer>,
    prefix: &'static str,
    google: GoogleServer,
    neo4j: Neo4jServer,
    store: RedisStore,
}

impl Fleet {
    async fn new(seed: u64, users: u32, events: u32) -> Fleet {
        let redis = RedisServer::start(&RedisOptions::default().durable());
        Fleet::on(Arc::new(redis), "test", seed, users, events).await
    }

    /// One of several environments on a server.
    async fn on(
        redis: Arc<RedisServer>,
        prefix: &'static str,
        seed: u64,
        users: u32,
        events: u32,
    ) -> Fleet {
        let store = store_of(&redis.url(), prefix);
        Fleet {
            redis,
            prefix,
            google: GoogleServer::start(seed, users, events),
            neo4j: Neo4jServer::start(&["neo4j"], FaceOptions::default()).await,
            store,
        }
    }

    fn configuration(&self) -> KalendsToml {
        KalendsToml::of(&self.google)
            .set("graph", "kind", r#""neo4j""#)
            .set("graph", "url", &format!("{:?}", self.neo4j.url))
            .set("graph", "password", r#""kalends""#)
            .set("redis", "url", &format!("{:?}", self.redis.url()))
            .set("redis", "prefix", &format!("{:?}", self.prefix))
    }

    /// Starts a process in a folder of its own.
    fn start(configuration: &KalendsToml) -> Member {
        let folder = tempfile::tempdir().unwrap();
        configuration.write(folder.path());
        let process = Process::start(folder.path(), &["run"]);
        Member {
            process,
            _folder: folder,
        }
    }

    async fn ask(&self, command: Command) -> Reply {
        self.store.apply(command).await.unwrap().value
    }

    async fn stats(&self) -> QueueStats {
        let Reply::Stats { stats } = self.ask(Command::Stats).await else {
            panic!("asked for the counts");
        };
        stats
    }

    /// The one schedule, if it is defined already.
    async fn schedule(&self) -> Option<ScheduleState> {
        let Reply::Schedules { mut schedules } = self.ask(Command::Schedules).await else {
            panic!("asked for schedules");
        };
        assert!(schedules.len() <= 1, "{schedules:?}");
        schedules.pop().map(|(_, state)| state)
    }

    async fn users(&self) -> BTreeMap<UserId, UserState> {
        let mut all = BTreeMap::new();
        loop {
            let command = Command::Users {
                source: SourceName::google_calendar(),
                after: all
                    .last_key_value()
                    .map(|(user, _): (&UserId, _)| user.clone()),
                limit: u32::try_from(BATCH_MAX).unwrap(),
            };
            let Reply::Users { users } = self.ask(command).await else {
                panic!("asked for users");
            };
            if users.is_empty() {
                return all;
            }
            all.extend(users);
        }
    }

    /// Waits until `done` of the counts.
    async fn wait_for(&self, what: &str, done: impl Fn(&QueueStats) -> bool) -> QueueStats {
        let begun = std::time::Instant::now();
        loop {
            let stats = self.stats().await;
            if done(&stats) {
                return stats;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "waited in vain for {what}: {stats:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Checks that every user's graph equals the calendar.
    async fn assert_synced(&self) {
        let graph = self
            .neo4j
            .client("kalends", Databases::Shared("neo4j".to_owned()));
        for access in self.google.users() {
            let user = UserId::new(&access.email).unwrap();
            let snapshot = graph.snapshot(&user).await.unwrap();
            let google = self.google.lock();
            let truth = google
                .emulator
                .calendar_truth(&access.email, "primary")
                .unwrap();
            let calendar = google
                .emulator
                .calendar_row_truth(&access.email, "primary")
                .unwrap();
            let verdict = oracle::compare(&calendar, truth, &snapshot);
            assert!(verdict.expected > 0, "{user}: nothing to compare");
            assert_eq!(verdict.mismatches, 0, "{user}: {:#?}", verdict.described);
        }
    }
}

struct Member {
    process: Process,
    _folder: TempDir,
}

impl Member {
    fn stop(self) {
        self.process.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_over_all_and_no_user_is_lost_though_one_is_killed_and_one_stopped() {
    const USERS: u32 = 2_000;
    const STARTS_MAX: usize = 100;
    const WINDOW_MS: u64 = 2_000;
    let fleet = Fleet::new(1, USERS, 3).await;
    let configuration = fleet
        .configuration()
        .set("limits", "jobs", &STARTS_MAX.to_string())
        .set("limits", "jobs_window_ms", &WINDOW_MS.to_string());
    let mut members: Vec<Member> = (0..PROCESSES)
        .map(|_| Fleet::start(&configuration))
        .collect();

    let part = u64::from(USERS) / 4;
    let stats = fleet
        .wait_for("a quarter", |stats| stats.completed_total >= part)
        .await;
    assert!(stats.active + stats.waiting + stats.delayed > 0);
    // SIGKILL: what it held comes back when its leases expire.
    members.remove(0).process.kill();
    fleet
        .wait_for("half", |stats| stats.completed_total >= 2 * part)
        .await;
    members.remove(0).stop();
    members.push(Fleet::start(&configuration));
    let stats = fleet
        .wait_for("all", |stats| {
            stats.completed_total >= u64::from(USERS)
                && stats.active + stats.waiting + stats.delayed == 0
        })
        .await;
    assert_eq!(stats.failed_total, 0, "{stats:?}");
    for member in members {
        member.stop();
    }

    let users = fleet.users().await;
    assert_eq!(users.len(), USERS as usize);
    let mut starts: Vec<_> = users
        .values()
        .map(|user| {
            assert!(user.last_success_at.is_some(), "{user:?}");
            user.last_started_at.unwrap()
        })
        .collect();
    starts.sort_unstable();
    for window in starts.windows(STARTS_MAX + 1) {
        let length_ms = window[STARTS_MAX].since_ms(window[0]);
        assert!(
            length_ms >= WINDOW_MS,
            "{} starts within {length_ms} ms",
            STARTS_MAX + 1
        );
    }
    fleet.assert_synced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_minute_is_one_tick_whoever_is_there() {
    const USERS: u32 = 20;
    const TICKS: u64 = 2;
    let fleet = Fleet::new(2, USERS, 2).await;
    let configuration = fleet
        .configuration()
        .set("schedule", "cron", r#""* * * * *""#);
    let before = fleet.redis.time();
    let mut members: Vec<Member> = (0..PROCESSES)
        .map(|_| Fleet::start(&configuration))
        .collect();
    let defined = loop {
        if let Some(schedule) = fleet.schedule().await {
            break schedule;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let after = fleet.redis.time();
    let minute = |ms: i64| u64::try_from(ms).unwrap() / MINUTE_MS;
    let begun = minute(before.as_ms())..=minute(after.as_ms());

    let begun_at = std::time::Instant::now();
    let schedule = loop {
        let schedule = fleet.schedule().await.unwrap();
        assert_eq!(schedule.definition, defined.definition);
        if schedule.fired > 0 && members.len() == PROCESSES {
            members.remove(0).process.kill();
        }
        if schedule.fired >= TICKS {
            break schedule;
        }
        assert!(begun_at.elapsed() < PATIENCE, "{schedule:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // The first tick was the first minute after the definition, and none was left out or came twice.
    let last = minute(schedule.last_tick_at.as_ms());
    assert_eq!(schedule.missed, 0, "{schedule:?}");
    assert!(
        begun.contains(&(last - schedule.fired)),
        "{begun:?} {schedule:?}"
    );
    // For each tick a fan-out and a sync of each user; the first syncs may have met a tick's.
    let all = schedule.fired * (u64::from(USERS) + 1);
    fleet
        .wait_for("the syncs", |stats| {
            stats.completed_total >= all && stats.active + stats.waiting + stats.delayed == 0
        })
        .await;
    for member in members {
        member.stop();
    }
    // One request a tick, one for the first sync, and one more if the kill broke a sync off.
    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    for page in &fleet.google.lock().pages {
        *asked.entry(page.bearer.clone()).or_default() += 1;
    }
    let fired = fleet.schedule().await.unwrap().fired;
    assert!(asked.values().all(|&count| count <= fired + 2), "{asked:?}");
    fleet.assert_synced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_with_another_pattern_leaves_one_schedule_the_new_one() {
    let fleet = Fleet::new(3, 10, 2).await;
    let old = fleet.configuration();
    let new = fleet
        .configuration()
        .set("schedule", "cron", r#""30 2 * * *""#);
    let mut olds: Vec<Member> = (0..PROCESSES).map(|_| Fleet::start(&old)).collect();
    for member in &mut olds {
        member.process.wait_for_log("started");
    }
    fleet
        .wait_for("the first syncs", |stats| stats.completed_total >= 10)
        .await;
    let before = fleet.schedule().await.unwrap();
    let mut news = Vec::new();
    let mut revisions = BTreeSet::new();
    for member in olds {
        let mut next = Fleet::start(&new);
        next.process.wait_for_log("started");
        let begun = std::time::Instant::now();
        while fleet.schedule().await.unwrap().definition == before.definition {
            assert!(begun.elapsed() < PATIENCE, "the new pattern does not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        revisions.insert(fleet.schedule().await.unwrap().revision);
        news.push(next);
        member.stop();
    }
    let after = fleet.schedule().await.unwrap();
    assert_eq!(revisions, BTreeSet::from([before.revision + 1]));
    assert_eq!(after.revision, before.revision + 1);
    assert!(format!("{:?}", after.definition).contains("30 2 * * *"));
    for member in news {
        member.stop();
    }
    assert_eq!(fleet.schedule().await, Some(after));
    assert_eq!(fleet.users().await.len(), 10);
    fleet.assert_synced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_environments_on_one_server_do_not_know_each_other() {
    let redis = Arc::new(RedisServer::start(&RedisOptions::default()));
    let staging = Fleet::on(Arc::clone(&redis), "staging", 4, 4, 2).await;
    let production = Fleet::on(Arc::clone(&redis), "production", 5, 9, 2).await;
    let all_done = |users: u64| {
        move |stats: &QueueStats| {
            stats.completed_total >= users && stats.active + stats.waiting + stats.delayed == 0
        }
    };
    let tester = Fleet::start(&staging.configuration());
    staging.wait_for("staging", all_done(4)).await;
    let paused = Command::Pause {
        source: None,
        reason: "a test of staging's own".to_owned(),
    };
    assert_eq!(staging.ask(paused).await, Reply::Done);
    let of_staging: Vec<UserId> = staging.users().await.into_keys().collect();
    let sync_now = Command::Enqueue {
        source: SourceName::google_calendar(),
        jobs: vec![NewJob {
            user: of_staging[0].clone(),
            run_at: redis.time(),
            nominal_at: None,
            priority: Priority::Now,
        }],
        checkpoint: None,
    };
    staging.ask(sync_now).await;
    let before = staging.stats().await;
    assert_eq!(before.waiting, 1, "it is paused: {before:?}");

    let worker = Fleet::start(&production.configuration());
    production.wait_for("production", all_done(9)).await;
    let of_production: Vec<UserId> = production.users().await.into_keys().collect();
    let names = |fleet: &Fleet| {
        let mut names: Vec<UserId> = fleet
            .google
            .users()
            .iter()
            .map(|access| UserId::new(&access.email).unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(of_production, names(&production));
    assert_eq!(of_staging, names(&staging));
    assert_eq!(staging.stats().await, before, "production did not touch it");
    worker.stop();

    let resumed = Command::Resume { source: None };
    assert_eq!(staging.ask(resumed).await, Reply::Done);
    staging.wait_for("the paused job", all_done(5)).await;
    tester.stop();
    assert_eq!(production.stats().await.completed_total, 9);
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 2, "{keys}");
    for key in keys.lines() {
        let is_known = key.starts_with("{staging}:") || key.starts_with("{production}:");
        assert!(is_known, "{key} belongs to nobody");
    }
    production.assert_synced().await;
}
