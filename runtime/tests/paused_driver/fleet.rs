//! Two real drivers on paused time, over adapters in memory that misbehave by a seed; and the ledger that watches them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kalends::clock::SteadyClock;
use kalends::driver::{Effects, Ports, drive};
use kalends_core::failure::{Failure, FailureKind, LimitScope};
use kalends_core::google::page::{EventsPage, FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphCounts, GraphReply, GraphSnapshot, GraphWrite};
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::node::Node;
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::port::{Graph, Source, Store, StoreUnavailable};
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, LeaseRef, LeaseToken, Reply, Stamped};
use kalends_core::queue::state::{JobKey, SourceSettings};
use kalends_core::rng::{KalendsRng, stable_hash, substream, uniform};
use kalends_core::sync::SyncSettings;
use kalends_core::time::{Clock as _, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// 2026-11-02, a Monday, at midnight UTC.
pub(crate) const MIDNIGHT: Timestamp = Timestamp::from_ms(1_793_577_600_000);
pub(crate) const USERS: usize = 6;

/// What all share: the queue, chance, faults, the ledger and the trace.
pub(crate) struct Shared {
    queue: Queue,
    rng: KalendsRng,
    pub(crate) faulty: bool,
    away_until: Timestamp,
    /// Leases as the ledger believes them: token and end.
    live: BTreeMap<JobKey, (LeaseToken, Timestamp)>,
    fences: BTreeMap<UserId, LeaseToken>,
    pub(crate) synced_at: BTreeMap<UserId, Timestamp>,
    pub(crate) trace: u64,
    pub(crate) met: BTreeMap<&'static str, u64>,
}

impl Shared {
    fn dice(&mut self, sides: u64, what: &'static str) -> bool {
        let hit = self.faulty && uniform(&mut self.rng, sides - 1) == 0;
        if hit {
            *self.met.entry(what).or_default() += 1;
        }
        hit
    }

    pub(crate) fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn note(&mut self, now: Timestamp, what: &str) {
        let text = format!("{} {what}", now.as_ms());
        self.trace = stable_hash(self.trace, text.as_bytes());
    }

    /// Believes what the store did, and objects to two live leases on one job.
    fn watch(&mut self, now: Timestamp, command: &Command, reply: &Reply) {
        let ends = |lease: &LeaseRef| Some((lease.key.clone(), lease.token));
        let ended = match command {
            Command::Complete { lease, .. }
            | Command::Retry { lease, .. }
            | Command::Fail { lease, .. }
            | Command::Release { lease, .. }
            | Command::Limited { lease, .. }
                if matches!(reply, Reply::Done | Reply::GateClosed { .. }) =>
            {
                ends(lease)
            }
            _ => None,
        };
        if let Some((key, token)) = ended {
            let live = self.live.get(&key).copied();
            assert!(
                live.is_some_and(|(live, until)| live == token && until > now),
                "{key}: ended under {token:?} while {live:?} is live at {now}"
            );
            self.live.remove(&key);
        }
        if let (Command::Heartbeat { leases, lease_ms }, Reply::Heartbeat { lost }) =
            (command, reply)
        {
            for lease in leases.iter().filter(|lease| !lost.contains(&lease.token)) {
                if let Some((live, until)) = self.live.get_mut(&lease.key) {
                    assert_eq!(*live, lease.token, "{}: two live leases", lease.key);
                    *until = now.plus_ms(*lease_ms);
                }
            }
        }
        if let Reply::Claimed { leases, .. } = reply {
            for lease in leases {
                let key = &lease.lease.key;
                let given = (lease.lease.token, lease.expires_at);
                let before = self.live.insert(key.clone(), given);
                if let Some((token, until)) = before {
                    assert!(
                        token == given.0 || until <= now,
                        "{key}: {token:?} lives until {until}, and {:?} was given at {now}",
                        given.0
                    );
                }
            }
        }
        if let (Command::Complete { lease, .. }, Reply::Done) = (command, reply)
            && let JobKey::Sync { user, .. } = &lease.key
        {
            self.synced_at.insert(user.clone(), now);
        }
    }
}

/// One process's view of what all share. Counts the effects that are under way in it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) shared: Arc<Mutex<Shared>>,
    clock: SteadyClock,
    calls: Arc<Notify>,
    under_way: Arc<AtomicI64>,
}

struct UnderWay(Arc<AtomicI64>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        World {
            shared: Arc::new(Mutex::new(Shared {
                queue: Queue::new(),
                rng: substream(seed, "paused"),
                faulty: true,
                away_until: MIDNIGHT,
                live: BTreeMap::new(),
                fences: BTreeMap::new(),
                synced_at: BTreeMap::new(),
                trace: seed,
                met: BTreeMap::new(),
            })),
            clock: SteadyClock::new(MIDNIGHT, 1),
            calls: Arc::new(Notify::new()),
            under_way: Arc::new(AtomicI64::new(0)),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Effects under way: those of drivers that have ended are none.
    pub(crate) fn under_way(&self) -> i64 {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(crate) fn draw(&self, bound: u64) -> u64 {
        uniform(&mut self.shared.lock().unwrap().rng, bound)
    }

    fn begin(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.under_way))
    }

    async fn wait(&self, usual_ms: u64) {
        let wait_ms = {
            let mut shared = self.shared.lock().unwrap();
            if shared.dice(40, "slow") {
                uniform(&mut shared.rng, 20_000)
            } else {
                uniform(&mut shared.rng, usual_ms)
            }
        };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }

    async fn hang(&self) {
        tokio::time::sleep(Duration::from_secs(100_000)).await;
    }
}

#[async_trait]
impl Store for World {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        let _under_way = self.begin();
        self.wait(20).await;
        let away = |detail: &str| StoreUnavailable {
            detail: detail.to_owned(),
        };
        let calls = matches!(command, Command::Enqueue { .. } | Command::Tick { .. });
        let (reply, lost, hangs) = {
            let mut shared = self.shared.lock().unwrap();
            let now = self.now();
            if shared.dice(300, "store away") {
                shared.away_until = now.plus_ms(45_000);
            }
            if shared.faulty && now < shared.away_until {
                return Err(away("connection refused"));
            }
            shared.note(now, &format!("{command:?}"));
            let value = shared.queue.apply(now, command.clone());
            shared.watch(now, &command, &value);
            let lost = shared.dice(40, "reply lost");
            let hangs = shared.dice(120, "reply never comes");
            (Stamped { now, value }, lost, hangs)
        };
        if calls {
            self.calls.notify_waiters();
        }
        if hangs {
            self.hang().await;
        }
        self.wait(20).await;
        if lost {
            return Err(away("connection reset"));
        }
        Ok(reply)
    }

    async fn wait_for_wake(&self) {
        self.calls.notified().await;
    }
}

#[async_trait]
impl Source for World {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        let _under_way = self.begin();
        self.wait(300).await;
        let now = self.now();
        let failure = {
            let mut shared = self.shared.lock().unwrap();
            shared.note(now, &format!("{request:?}"));
            if shared.dice(40, "panic") {
                drop(shared);
                panic!("a bug in the source's adapter");
            }
            let retry_after_ms = Some(1_500);
            if shared.dice(20, "429") {
                let scope = LimitScope::Source;
                Some(FailureKind::Limited {
                    scope,
                    retry_after_ms,
                })
            } else if shared.dice(20, "503") {
                Some(FailureKind::Transient { retry_after_ms })
            } else if shared.dice(60, "410") {
                Some(FailureKind::Gone { malformed: false })
            } else {
                None
            }
        };
        if let Some(kind) = failure {
            return Err(Failure::new(kind, "a fault of the seed"));
        }
        let hangs = self.shared.lock().unwrap().dice(60, "source hangs");
        if hangs {
            self.hang().await;
        }
        Ok(FetchReply::Events(EventsPage {
            summary: Some("days".to_owned()),
            time_zone: None,
            access_role: None,
            events: Vec::new(),
            unreadable: Vec::new(),
            end: PageEnd::Done {
                sync_token: Some(format!("token-{}", now.as_ms())),
            },
        }))
    }
}

#[async_trait]
impl Graph for World {
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure> {
        let _under_way = self.begin();
        self.wait(100).await;
        let mut shared = self.shared.lock().unwrap();
        let now = self.now();
        shared.note(now, &format!("{write:?}"));
        if shared.dice(20, "graph transient") {
            return Err(Failure::transient("deadlock"));
        }
        let seen = shared.fences.entry(write.user().clone()).or_default();
        if *seen > write.fence() {
            return Ok(GraphReply::Fenced);
        }
        *seen = write.fence();
        Ok(GraphReply::Written(GraphCounts::default()))
    }

    async fn snapshot(&self, _: &UserId) -> Result<GraphSnapshot, Failure> {
        Err(Failure::permanent("nobody reads this graph"))
    }
}

pub(crate) fn user(index: usize) -> UserId {
    UserId::new(&format!("user-{index}@example.com")).unwrap()
}

fn settings(name: &str, seed: u64) -> NodeSettings {
    let mut settings = NodeSettings::new(WorkerId::new(name).unwrap(), seed);
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings {
            jobs: None,
            ..SourceSettings::default()
        },
        sync: SyncSettings::default(),
        enroll: (0..USERS).map(|index| (user(index), 1)).collect(),
    });
    settings.schedules.push((
        ScheduleName::new("calendar-sync").unwrap(),
        ScheduleDefinition {
            source: SourceName::google_calendar(),
            cron: "*/5 * * * *".parse().unwrap(),
            time_zone: "UTC".parse().unwrap(),
            catch_up: "once".parse().unwrap(),
        },
    ));
    settings.poll_ms = 15_000;
    settings
}

/// One process: the real driver.
pub(crate) struct Process {
    stop: watch::Sender<Option<Timestamp>>,
    driven: JoinHandle<()>,
}

impl Process {
    pub(crate) fn start(world: &World, name: &str, seed: u64) -> Process {
        let node = Node::new(world.now(), settings(name, seed));
        let ports = Ports {
            store: Arc::new(world.clone()),
            source: Arc::new(world.clone()),
            graph: Arc::new(world.clone()),
        };
        let (stop, stopped) = watch::channel(None);
        let shared = Arc::clone(&world.shared);
        let clock = world.clock;
        let observe = move |_: &Node, notice: &_| {
            let mut shared = shared.lock().unwrap();
            shared.note(clock.now(), &format!("{notice:?}"));
        };
        let driven = drive(
            node,
            ports,
            world.clock,
            stopped,
            Arc::new(Effects::default()),
            observe,
        );
        Process {
            stop,
            driven: tokio::spawn(driven),
        }
    }

    /// SIGTERM: it ends by its deadline, whatever hangs.
    pub(crate) async fn shut_down(self, world: &World, deadline_ms: u64) {
        let deadline = world.now().plus_ms(deadline_ms);
        self.stop.send_replace(Some(deadline));
        self.driven.await.expect("a driver does not panic");
        // A millisecond for the timer, which rounds up.
        assert!(
            world.now() <= deadline.plus_ms(1),
            "ended at {}, asked for {deadline}",
            world.now()
        );
    }

    /// SIGKILL.
    pub(crate) async fn kill(self) {
        self.driven.abort();
        let ended = self.driven.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}
