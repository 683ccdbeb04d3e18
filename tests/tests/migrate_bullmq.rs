//! `kalends migrate --from bullmq` against a real Redis: a queue that the npm package `bullmq` made, and keys as hostile
//! as somebody with access to that Redis could write them.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kalends::clock::SystemClock;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_adapters::redis::{RedisSettings, RedisStore};
use kalends_adapters::secret::Secret;
use kalends_core::port::Store;
use kalends_core::queue::command::{Command as Ask, Reply};
use kalends_core::queue::state::{JobKey, JobListing, JobState, Priority};
use kalends_core::time::Timestamp;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Ended, kalends, status, wait_until};
use kalends_tests::redis_server::{RedisOptions, RedisServer};
use serde_json::{Value, json};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bullmq");

/// How often anything was written, ever: this server never saves, which would set it back.
fn writes(redis: &RedisServer) -> String {
    redis.info("rdb_changes_since_last_save")
}

/// The folder with `node_modules`, installed once for each lock file.
fn bullmq_package() -> PathBuf {
    let lock = std::fs::read(Path::new(SOURCES).join("package-lock.json")).unwrap();
    let mut hasher = DefaultHasher::new();
    lock.hash(&mut hasher);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(format!("bullmq-{:016x}", hasher.finish()));
    if folder.join("node_modules/bullmq/package.json").exists() {
        return folder;
    }
    std::fs::create_dir_all(target).unwrap();
    let fresh = tempfile::tempdir_in(target).unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(Path::new(SOURCES).join(file), fresh.path().join(file)).unwrap();
    }
    // `npm ci` would want every optional package of every platform in the lock file, needed or not.
    let installed = Command::new("npm")
        .args([
            "install",
            "--no-save",
            "--omit=optional",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ])
        .current_dir(fresh.path())
        .output()
        .expect("this test needs Node.js 18 or later and npm: apt-get install nodejs npm");
    assert!(
        installed.status.success(),
        "npm cannot install bullmq: {}",
        String::from_utf8_lossy(&installed.stderr)
    );
    // Another process may have been quicker; then its folder is as good.
    if std::fs::rename(fresh.path(), &folder).is_err() {
        assert!(folder.join("node_modules/bullmq/package.json").exists());
    }
    folder
}

/// The old service: its queue is made, its worker connected.
struct OldService {
    child: Child,
    made: Value,
}

impl OldService {
    fn start(redis: &RedisServer, queue: &str) -> OldService {
        let mut child = Command::new("node")
            .arg(Path::new(SOURCES).join("make_queue.cjs"))
            .args([&format!("127.0.0.1:{}", redis.port), queue])
            .env("NODE_PATH", bullmq_package().join("node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs Node.js 18 or later: apt-get install nodejs");
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let made = serde_json::from_str(&line)
            .expect("the script says what it made; see its errors above");
        OldService { child, made }
    }

    fn stop(mut self) -> Value {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        std::mem::take(&mut self.made)
    }
}

impl Drop for OldService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configured(users: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let empty = KalendsToml::new("http://127.0.0.1:9").set("schedule", "cron", r#""*/15 * * * *""#);
    let toml = users
        .iter()
        .fold(empty, |toml, user| toml.user(user, "planted-token", None));
    toml.write(folder.path());
    folder
}

fn migrate(folder: &Path, redis: &RedisServer, queue: &str, more: &[&str]) -> Ended {
    let url = redis.url();
    let mut arguments = vec![
        "migrate",
        "--from",
        "bullmq",
        "--queue",
        queue,
        "--bullmq-url",
        &url,
    ];
    arguments.extend(more);
    kalends(folder, &arguments)
}

fn jobs(folder: &Path) -> BTreeMap<String, JobListing> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let data = folder.join("kalends-data");
        let store = EmbeddedStore::open_read_only(&data, Arc::new(SystemClock)).unwrap();
        jobs_in(&store).await
    })
}

async fn jobs_in(store: &dyn Store) -> BTreeMap<String, JobListing> {
    let mut found = BTreeMap::new();
    for state in [JobState::Waiting, JobState::Delayed] {
        let ask = Ask::Jobs {
            state,
            offset: 0,
            limit: 1_000,
        };
        let Reply::Jobs { jobs } = store.apply(ask).await.unwrap().value else {
            panic!("no jobs");
        };
        for job in jobs {
            let JobKey::Sync { user, .. } = &job.key else {
                panic!("a fan-out: {job:?}");
            };
            found.insert(user.to_string(), job.clone());
        }
    }
    found
}

fn places(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem["place"].as_str().unwrap())
        .collect()
}

#[test]
fn a_queue_that_bullmq_made_is_taken_over() {
    let redis = RedisServer::start(&RedisOptions::default());
    let service = OldService::start(&redis, "data-sync");
    let folder = configured(&[
        "ada",
        "bob@example.com",
        "cleo",
        "dora",
        "emil",
        "finn",
        "gina",
        "hugo",
    ]);
    let folder = folder.path();

    let refused = migrate(folder, &redis, "data-sync", &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.output);
    assert!(
        refused.errors.contains("the old service still runs"),
        "{}",
        refused.errors
    );
    let made = service.stop();
    let written = writes(&redis);

    // A dry run says it all, and changes nothing in either place.
    let dry = migrate(folder, &redis, "data-sync", &["--dry-run", "--json"]);
    assert_eq!(dry.code, Some(1), "{}", dry.errors);
    let report = dry.json();
    assert!(!folder.join("kalends-data").exists());
    let schedules = report["schedules"].as_array().unwrap();
    let told: Vec<Value> = schedules
        .iter()
        .map(|schedule| {
            json!([
                schedule["name"],
                schedule["cron"],
                schedule["time_zone"],
                schedule["change"]
            ])
        })
        .collect();
    let expected = [
        json!(["calendar-sync", "*/15 * * * *", "UTC", "new"]),
        json!(["half-hourly", "*/30 * * * *", "UTC", "new"]),
        json!(["nightly", "30 2 * * *", "Europe/Berlin", "new"]),
    ];
    assert_eq!(told, expected, "{report:#}");
    for schedule in schedules {
        assert_eq!(
            schedule["next_ticks"].as_array().unwrap().len(),
            3,
            "{schedule}"
        );
    }
    assert_eq!(report["found"]["repeatables"], 7, "{report:#}");
    assert_eq!(report["found"]["failed"], 1, "{report:#}");
    assert_eq!(report["found"]["active"], 1, "{report:#}");
    assert_eq!(report["found"]["worker_connections"], 0, "{report:#}");
    assert_eq!(
        report["users"],
        json!({ "total": 6, "new": 6 }),
        "{report:#}"
    );
    assert_eq!(report["jobs"]["taken"], 7, "{report:#}");
    assert_eq!(report["jobs"]["users"], 6, "{report:#}");
    assert_eq!(report["jobs"]["later"], 1, "{report:#}");
    assert_eq!(report["jobs"]["sync_now"], 2, "{report:#}");
    assert_eq!(report["repeatables_of_users"], 1, "{report:#}");
    let problems = places(&report);
    assert_eq!(problems.len(), 6, "{problems:?}");
    for part in [
        "\"odd-seconds\"",
        "\"odd-period\"",
        "repeatable \"sync-mail\"",
        "\"tidy-up\" in wait",
    ] {
        assert!(
            problems.iter().any(|place| place.contains(part)),
            "{part}: {problems:?}"
        );
    }
    let words = migrate(folder, &redis, "data-sync", &["--dry-run"]).output;
    for part in [
        "dry run: nothing is changed",
        "nightly: google-calendar at 30 2 * * * in Europe/Berlin (new)",
        "--user-field",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }

    // For real: what the dry run said is in the store.
    let real = migrate(folder, &redis, "data-sync", &["--json"]);
    assert_eq!(real.code, Some(1), "{}", real.errors);
    let applied =
        json!({ "schedules": 3, "enrolled": 6, "added": 6, "coalesced": 0, "refused": 0 });
    assert_eq!(real.json()["applied"], applied);
    assert_eq!(places(&real.json()), problems);
    let stored = status(folder);
    let stored = stored["schedules"].as_array().unwrap().iter();
    let stored: Vec<Value> = stored
        .map(|schedule| {
            let definition = &schedule["definition"];
            json!([
                schedule["name"],
                definition["cron"],
                definition["time_zone"],
                "new"
            ])
        })
        .collect();
    assert_eq!(stored, expected);
    let taken = jobs(folder);
    let users: Vec<&str> = taken.keys().map(String::as_str).collect();
    assert_eq!(
        users,
        ["ada", "bob@example.com", "cleo", "dora", "emil", "finn"]
    );
    for (user, job) in &taken {
        let priority = match user.as_str() {
            "dora" | "finn" => Priority::Now,
            _ => Priority::Scheduled,
        };
        assert_eq!(job.priority, priority, "{job:?}");
        let later = user == "cleo";
        assert_eq!(job.state == JobState::Delayed, later, "{job:?}");
    }
    let delayed_until = Timestamp::from_ms(made["delayed_until"].as_i64().unwrap());
    assert_eq!(taken["cleo"].at, delayed_until);

    // A second time nothing is new but what was asked for in addition.
    let again = migrate(folder, &redis, "data-sync", &["--json", "--with-failed"]).json();
    let applied =
        json!({ "schedules": 0, "enrolled": 1, "added": 1, "coalesced": 6, "refused": 0 });
    assert_eq!(again["applied"], applied, "{again:#}");
    let same = jobs(folder);
    assert!(same.contains_key("gina") && same.len() == 7);
    assert_eq!(same["cleo"], taken["cleo"]);
    assert_eq!(writes(&redis), written, "BullMQ's queue was changed");
}

#[test]
fn hostile_and_odd_data_are_told_and_never_break_it() {
    let redis = RedisServer::start(&RedisOptions::default());
    let folder = configured(&["ada", "bob"]);
    let folder = folder.path();
    let big = "x".repeat(100_000);
    let mut id = 0;
    let mut job = |set: &[&str], data: &str, more: &[&str]| {
        id += 1;
        let id = id.to_string();
        let key = format!("own:q:{id}");
        let fields = ["HSET", &key, "name", "sync", "data", data, "opts", "{}"];
        redis.cli(&[&fields, more].concat());
        redis.cli(&[set, &[id.as_str()]].concat());
    };
    let wait = ["LPUSH", "own:q:wait"];
    let score = |ms: i64| (i128::from(ms) * 4_096 + 7).to_string();
    let (late, past) = (score(4_102_444_800_000), score(1_000_000_000_000));
    // Four good ones, in the places where they may stand.
    job(&["LPUSH", "own:q:paused"], r#"{"userId":"ada"}"#, &[]);
    job(
        &["ZADD", "own:q:delayed", &late],
        r#"{"userId":"ada"}"#,
        &["priority", "1"],
    );
    job(
        &["ZADD", "own:q:delayed", &past],
        r#"{"userId":"bob"}"#,
        &[],
    );
    job(
        &["ZADD", "own:q:prioritized", "1"],
        r#"{"userId":"bob"}"#,
        &["opts", "not json"],
    );
    // Nine bad ones.
    job(&wait, "{", &[]);
    job(&wait, &big, &[]);
    job(&wait, &"[".repeat(9_000), &[]);
    job(&wait, "{\"userId\":\"\u{1b}[31mada\"}", &[]);
    job(&wait, "\"ada\"", &[]);
    job(
        &["ZADD", "own:q:delayed", "inf"],
        r#"{"userId":"ada"}"#,
        &[],
    );
    redis.cli(&["LPUSH", "own:q:wait", "gone"]);
    redis.cli(&["SET", "own:q:text", "no hash"]);
    redis.cli(&["LPUSH", "own:q:wait", "text"]);
    redis.cli(&["LPUSH", "own:q:wait", &"i".repeat(100_000)]);
    // No job at all: the mark of an older version.
    redis.cli(&["LPUSH", "own:q:wait", "0:1795480200000"]);
    // Repeatables from before 5.10 say all in their keys; two of them fire at the same time, and four are wrong.
    for key in [
        "sync-all:::Europe/Berlin:0 0 7 * * *",
        "sync-all::::3600000",
        "hourly::::0 * * * *",
        "over::946684800000::0 * * * *",
        "no-zone:::Mars/Olympus:0 * * * *",
        "just-a-name",
        "\u{7}::::1 * * * *",
    ] {
        redis.cli(&["ZADD", "own:q:repeat", "1795480200000", key]);
    }
    redis.cli(&["ZADD", "own:q:repeat", "-inf", "big"]);
    redis.cli(&["HSET", "own:q:repeat:big", "name", "big", "pattern", &big]);
    redis.cli(&["HSET", "own:q:meta", "paused", "1"]);

    let own = ["--bullmq-prefix", "own", "--json"];
    let report = migrate(folder, &redis, "q", &own);
    assert_eq!(report.code, Some(1), "{}", report.errors);
    let report = report.json();
    let problems = places(&report);
    let of_jobs = problems
        .iter()
        .filter(|place| place.starts_with("job "))
        .count();
    assert_eq!((of_jobs, problems.len()), (9, 13), "{report:#}");
    assert!(problems.iter().all(|place| place.len() < 300));
    assert!(!report.to_string().contains('\u{1b}'));
    assert_eq!(report["repeatables_ended"], 1, "{report:#}");
    assert_eq!(report["found"]["is_paused"], true, "{report:#}");
    let schedules = report["schedules"].as_array().unwrap().iter();
    let schedules: Vec<String> = schedules
        .map(|schedule| {
            format!(
                "{} {} {}",
                schedule["name"], schedule["cron"], schedule["time_zone"]
            )
        })
        .collect();
    assert_eq!(
        schedules,
        [
            r#""hourly" "0 * * * *" "UTC""#,
            r#""sync-all" "0 7 * * *" "Europe/Berlin""#,
        ],
        "{report:#}"
    );
    let taken = jobs(folder);
    assert_eq!(taken.len(), 2, "{report:#}");
    assert_eq!(
        (taken["ada"].priority, taken["ada"].state),
        (Priority::Now, JobState::Waiting)
    );
    assert_eq!(
        (taken["bob"].priority, taken["bob"].state),
        (Priority::Scheduled, JobState::Waiting)
    );
}

#[test]
fn jobs_move_within_one_redis_from_bullmqs_keys_to_those_of_the_prefix() {
    let redis = RedisServer::start(&RedisOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    KalendsToml::new("http://127.0.0.1:9")
        .set("schedule", "cron", r#""*/15 * * * *""#)
        .set("graph", "kind", r#""neo4j""#)
        .set("graph", "url", r#""http://127.0.0.1:9""#)
        .set("graph", "password", r#""planted-password""#)
        .set("redis", "url", &format!("{:?}", redis.url()))
        .set("redis", "prefix", r#""moved""#)
        .user("ada", "planted-token", None)
        .user("bob", "planted-token", None)
        .write(folder);
    let later = 4_102_444_800_000;
    for (id, user) in [("1", "ada"), ("2", "bob")] {
        let (key, data) = (
            format!("bull:q:{id}"),
            json!({ "userId": user }).to_string(),
        );
        redis.cli(&["HSET", &key, "name", "sync", "data", &data, "opts", "{}"]);
    }
    redis.cli(&["LPUSH", "bull:q:wait", "1"]);
    let score = (later * 4_096_i64).to_string();
    redis.cli(&["ZADD", "bull:q:delayed", &score, "2"]);
    let of_bullmq = || {
        let keys = ["wait", "delayed", "1", "2"].map(|key| format!("bull:q:{key}"));
        keys.map(|key| redis.cli(&["DUMP", &key]))
    };
    let before = of_bullmq();

    // Without --bullmq-url the queue is sought where the jobs go.
    let arguments = ["migrate", "--from", "bullmq", "--queue", "q", "--json"];
    let dry = kalends(folder, &[&arguments[..], &["--dry-run"]].concat()).done();
    assert_eq!(dry.json()["jobs"]["taken"], 2, "{}", dry.output);
    let status = kalends(folder, &["status"]).done();
    assert!(status.output.contains("0 waiting"), "{}", status.output);
    assert_eq!(
        redis.cli(&["KEYS", "*moved*"]).trim(),
        "",
        "a look writes nothing"
    );
    assert_eq!(of_bullmq(), before, "a dry run changed BullMQ's queue");
    let real = kalends(folder, &arguments).done().json();
    let applied =
        json!({ "schedules": 0, "enrolled": 2, "added": 2, "coalesced": 0, "refused": 0 });
    assert_eq!(real["applied"], applied, "{real:#}");
    assert!(!folder.join("kalends-data").exists());
    assert_eq!(of_bullmq(), before, "BullMQ's queue was changed");

    let of_prefix = |prefix: &str| {
        let settings = RedisSettings {
            url: Secret::new(redis.url()),
            prefix: prefix.to_owned(),
            ca_file: None,
            connect_timeout_ms: 2_000,
            response_timeout_ms: 5_000,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { jobs_in(&RedisStore::new(settings).unwrap()).await })
    };
    let taken = of_prefix("moved");
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert_eq!(taken["ada"].state, JobState::Waiting);
    assert_eq!(taken["bob"].state, JobState::Delayed);
    assert_eq!(taken["bob"].at, Timestamp::from_ms(later));
    assert!(of_prefix("kalends").is_empty());

    let again = kalends(folder, &arguments).done().json();
    let applied =
        json!({ "schedules": 0, "enrolled": 0, "added": 0, "coalesced": 2, "refused": 0 });
    assert_eq!(again["applied"], applied, "{again:#}");
}

#[test]
fn what_it_was_given_wrong_is_told_with_two_and_a_server_that_is_away_with_one() {
    let redis = RedisServer::start(&RedisOptions::default());
    let folder = configured(&["ada"]);
    let folder = folder.path();
    let wrong = migrate(folder, &redis, "no-such-queue", &["--dry-run"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.output);
    assert!(
        wrong
            .errors
            .contains("there is no BullMQ queue \"no-such-queue\""),
        "{}",
        wrong.errors
    );

    redis.cli(&["SET", "bull:text:wait", "no list"]);
    let wrong = migrate(folder, &redis, "text", &["--dry-run"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.output);
    assert!(wrong.errors.contains("WRONGTYPE"), "{}", wrong.errors);

    // A worker is known by its connection's name, prefix and queue in base 64, with its own name behind or without.
    redis.cli(&["HSET", "bull:text2:meta", "opts.maxLenEvents", "10000"]);
    let mut worker = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    worker
        .write_all(b"CLIENT SETNAME bull:dGV4dDI=:w:weaver\r\n")
        .unwrap();
    wait_until("the worker's name", || {
        redis.cli(&["CLIENT", "LIST"]).contains("weaver")
    });
    let wrong = migrate(folder, &redis, "text2", &[]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.output);
    assert!(
        wrong.errors.contains("1 connections of workers"),
        "{}",
        wrong.errors
    );
    let dry = migrate(folder, &redis, "text2", &["--dry-run"]).done();
    assert!(
        dry.output.contains("the old service still runs"),
        "{}",
        dry.output
    );

    redis.cli(&["CONFIG", "SET", "requirepass", "planted-password"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    let dry = ["migrate", "--from", "bullmq", "--queue", "q", "--dry-run"];
    let wrong = kalends(folder, &[&dry[..], &["--bullmq-url", &url]].concat());
    assert_eq!(wrong.code, Some(2), "{}", wrong.errors);
    assert!(!wrong.errors.contains("hunter2"), "{}", wrong.errors);
    let away = kalends(
        folder,
        &[&dry[..], &["--bullmq-url", "redis://127.0.0.1:9"]].concat(),
    );
    assert_eq!(away.code, Some(1), "{}", away.errors);
    let unsaid = kalends(folder, &dry);
    assert_eq!(unsaid.code, Some(2), "{}", unsaid.errors);
    assert!(unsaid.errors.contains("--bullmq-url"), "{}", unsaid.errors);
    assert!(!folder.join("kalends-data").exists());
}
