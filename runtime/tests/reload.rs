//! What was read again is said to the store once more when the store was emptied, as the node only knows its beginning; and what was
//! cut short is done by reading it again.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kalends::accounts::Register;
use kalends::clock::SystemClock;
use kalends::config::{Config, Request, load};
use kalends::logging::LevelControl;
use kalends::reload::{InForce, NotReloaded, Reloader};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::time::Timestamp;
use tokio::sync::watch;

type Wanted = fn(&Command) -> bool;

/// A store that fails once, at the first command that is wanted.
struct Failing {
    store: EmbeddedStore,
    fails_at: Mutex<Option<Wanted>>,
}

#[async_trait]
impl Store for Failing {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        let fails = self.fails_at.lock().unwrap().take_if(|at| at(&command));
        if fails.is_some() {
            return Err(StoreUnavailable {
                detail: "the cable is out".to_owned(),
            });
        }
        self.store.apply(command).await
    }

    async fn wait_for_wake(&self) {
        self.store.wait_for_wake().await;
    }
}

/// A configuration, and what the store has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    jobs: u32,
    cron: &'static str,
    users: Vec<&'static str>,
}

fn told(jobs: u32, cron: &'static str, users: &[&'static str]) -> Told {
    let users = users.to_vec();
    Told { jobs, cron, users }
}

impl Told {
    fn write(&self, folder: &Path) {
        let users = self.users.iter().map(|user| {
            format!("[[users]]\nid = \"{user}\"\nrefresh_token = \"token of {user}\"\n")
        });
        let toml = format!(
            "[google]\nclient_id = \"id\"\nclient_secret = \"secret\"\n[limits]\njobs = {}\n[schedule]\ncron = \"{}\"\n{}",
            self.jobs,
            self.cron,
            users.collect::<String>()
        );
        std::fs::write(folder.join("kalends.toml"), toml).unwrap();
    }
}

struct World {
    folder: tempfile::TempDir,
    at_start: Config,
    store: Arc<Failing>,
    reloader: Arc<Reloader>,
    boots: watch::Sender<u64>,
}

impl World {
    /// A node's, which was started with `first` and has told nobody yet.
    fn start(first: &Told) -> Self {
        let folder = tempfile::tempdir().unwrap();
        first.write(folder.path());
        let request = Request {
            file: Some("kalends.toml".to_owned()),
            folder: folder.path().to_owned(),
            ..Request::default()
        };
        let config = load(&request, &BTreeMap::new()).unwrap().config;
        let store = EmbeddedStore::open(&folder.path().join("store"), Arc::new(SystemClock));
        let store = Arc::new(Failing {
            store: store.unwrap(),
            fails_at: Mutex::new(None),
        });
        let in_force = InForce {
            config: config.clone(),
            store: store.clone(),
            register: Register::open(&config).unwrap(),
            level: LevelControl::none(),
            handle: None,
        };
        let reloader = Arc::new(Reloader::new(request, BTreeMap::new(), in_force));
        let (boots, changes) = watch::channel(0);
        let keeping = Arc::clone(&reloader);
        tokio::spawn(async move { keeping.keep_defined(changes).await });
        World {
            folder,
            at_start: config,
            store,
            reloader,
            boots,
        }
    }

    async fn ask(&self, command: Command) -> Reply {
        self.store.store.apply(command).await.unwrap().value
    }

    /// The store is emptied, and told by the node what that knows: its beginning.
    async fn boot(&self) {
        let config = &self.at_start;
        let source = config.schedule.definition.source.clone();
        let Reply::Users { users } = self.ask(users(&source)).await else {
            panic!("the users");
        };
        let users = users.into_iter().map(|(user, _)| user).collect();
        for command in [
            Command::Unenroll {
                source: source.clone(),
                users,
            },
            Command::DefineSource {
                source: source.clone(),
                settings: config.source_settings(),
            },
            Command::DefineSchedule {
                schedule: config.schedule.name.clone(),
                definition: config.schedule.definition.clone(),
            },
            Command::Enroll {
                source,
                users: config.users.iter().map(|user| user.id.clone()).collect(),
                due_at: Timestamp::EPOCH,
            },
        ] {
            self.ask(command).await;
        }
        self.boots.send_modify(|boots| *boots += 1);
    }

    /// Whether the store has exactly this.
    async fn has(&self, wanted: &Told) -> bool {
        let source = &self.at_start.schedule.definition.source;
        let Reply::Stats { stats } = self.ask(Command::Stats).await else {
            panic!("the stats");
        };
        let Reply::Schedules { schedules } = self.ask(Command::Schedules).await else {
            panic!("the schedules");
        };
        let Reply::Users { users } = self.ask(users(source)).await else {
            panic!("the users");
        };
        let jobs = stats.sources[0].1.settings.jobs.map(|limit| limit.count);
        let cron = schedules[0].1.definition.cron.to_string();
        let names: Vec<&str> = users.iter().map(|(user, _)| UserId::as_str(user)).collect();
        jobs == Some(wanted.jobs) && cron == wanted.cron && names == wanted.users
    }

    async fn comes_to_have(&self, wanted: &Told) {
        while !self.has(wanted).await {
            tokio::task::yield_now().await;
        }
    }

    fn fail_at(&self, wanted: Wanted) {
        *self.store.fails_at.lock().unwrap() = Some(wanted);
    }

    async fn failed(&self) {
        while self.store.fails_at.lock().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    }
}

fn users(source: &SourceName) -> Command {
    Command::Users {
        source: source.clone(),
        after: None,
        limit: 100,
    }
}

/// What a reload says, in one order or another.
const STEPS: [(&str, Wanted); 5] = [
    ("a schedule", |command| {
        matches!(command, Command::DefineSchedule { .. })
    }),
    ("a source", |command| {
        matches!(command, Command::DefineSource { .. })
    }),
    (
        "users who come",
        |command| matches!(command, Command::Enroll { users, .. } if !users.is_empty()),
    ),
    ("grants", |command| {
        matches!(command, Command::Connect { .. })
    }),
    ("users who go", |command| {
        matches!(command, Command::Unenroll { .. })
    }),
];

#[tokio::test]
async fn what_was_read_again_outlives_an_emptied_store() {
    let first = told(5, "0 1 * * *", &["ada", "bob"]);
    let world = World::start(&first);
    // The node begins, and nothing was read again: what an operator sets then is left alone.
    world.boot().await;
    assert!(world.has(&first).await);

    let second = told(6, "0 2 * * *", &["bob", "eve"]);
    second.write(world.folder.path());
    let reloaded = world.reloader.reload().await.unwrap();
    assert_eq!(reloaded.applied, ["limits", "schedule", "users"]);
    assert!(world.has(&second).await);

    world.boot().await;
    world.comes_to_have(&second).await;
}

/// Wherever the store goes away while an emptied one is told of what was read last, reading the same again completes it.
#[tokio::test]
async fn what_an_emptied_store_was_not_told_is_told_when_it_is_read_again() {
    for (step, wanted) in STEPS {
        let world = World::start(&told(5, "0 1 * * *", &["ada", "bob"]));
        world.boot().await;
        let second = told(6, "0 2 * * *", &["bob", "eve"]);
        second.write(world.folder.path());
        world.reloader.reload().await.unwrap();

        world.fail_at(wanted);
        world.boot().await;
        world.failed().await;
        let reloaded = world.reloader.reload().await.unwrap();
        assert!(reloaded.applied.is_empty(), "{step}: {reloaded:?}");
        assert!(world.has(&second).await, "{step}");
    }
}

/// Wherever the store goes away in a reload, doing it again completes it, and so does what the file said before.
#[tokio::test]
async fn a_reload_that_was_cut_short_is_completed_by_the_next() {
    for (step, wanted) in STEPS {
        for goes_back in [false, true] {
            let first = told(5, "0 1 * * *", &["ada", "bob"]);
            let world = World::start(&first);
            world.boot().await;
            let second = told(6, "0 2 * * *", &["bob", "eve"]);
            second.write(world.folder.path());
            world.fail_at(wanted);
            let away = world.reloader.reload().await;
            assert!(matches!(away, Err(NotReloaded::StoreAway(_))), "{away:?}");
            let last = if goes_back { &first } else { &second };
            last.write(world.folder.path());
            world.reloader.reload().await.unwrap();
            assert!(world.has(last).await, "{step}, back: {goes_back}");
        }
    }
}

/// A store that was emptied, and has not been told anew yet, is left to the node, which would not see it any more otherwise.
#[tokio::test]
async fn a_store_that_refuses_is_as_it_was() {
    let world = World::start(&told(5, "0 1 * * *", &["ada"]));
    for other in [
        told(6, "0 1 * * *", &["ada"]),
        told(6, "0 2 * * *", &["ada"]),
    ] {
        other.write(world.folder.path());
        let refused = world.reloader.reload().await;
        assert!(
            matches!(refused, Err(NotReloaded::Refused(_))),
            "{refused:?}"
        );
        let Reply::Stats { stats } = world.ask(Command::Stats).await else {
            panic!("the stats");
        };
        assert!(stats.sources.is_empty(), "{stats:?}");
    }
    // And when the node has told it, all is read again.
    world.boot().await;
    world.reloader.reload().await.unwrap();
    assert!(world.has(&told(6, "0 2 * * *", &["ada"])).await);
}

/// The old client cannot use a new client's grants.
#[tokio::test]
async fn another_client_of_google_waits_for_a_restart_with_its_users() {
    let first = told(5, "0 1 * * *", &["ada"]);
    let world = World::start(&first);
    world.boot().await;
    told(6, "0 1 * * *", &["ada", "bob"]).write(world.folder.path());
    let path = world.folder.path().join("kalends.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, toml.replace("\"id\"", "\"another\"")).unwrap();
    let reloaded = world.reloader.reload().await.unwrap();
    assert_eq!(reloaded.applied, ["limits"]);
    assert_eq!(reloaded.needs_restart, ["google", "users"]);
    assert!(world.has(&told(6, "0 1 * * *", &["ada"])).await);
}
