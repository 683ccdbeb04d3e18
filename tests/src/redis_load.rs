//! A fleet at work on one store, with a [`Ledger`] of all that was acknowledged: the load under which faults are tried.
//!
//! Some tasks enqueue jobs of a few users, again and again; others claim them, hold them for a moment, and complete
//! them with a cursor that counts: what a node does, without Google and a graph. They come back to a store that is
//! away as a node does, and send again what got no answer. A worker now and then forgets a lease that it was given (as
//! if the reply had been lost) or hands one back.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::port::Store;
use kalends_core::queue::command::{
    Command, Commit, CommitOutcome, Lease, LeaseRef, LeaseToken, NewJob, Priority, Refusal, Reply,
    Stamped,
};
use kalends_core::queue::state::{JobKey, QueueStats, SourceSettings};
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::Timestamp;
use tokio::task::JoinHandle;

use crate::process::PATIENCE;
use crate::redis_ledger::{End, Final, Ledger};

/// How many users there are: few, so that jobs of one user meet.
const USERS: u64 = 24;
/// Tasks that claim and complete.
const WORKERS: u64 = 4;
/// Tasks that enqueue.
const PRODUCERS: u64 = 2;
/// Jobs of one worker at a time.
const SLOTS: usize = 4;
/// Jobs in one command, at most.
const BATCH: u64 = 4;
/// Between two commands of a producer, in milliseconds, at most.
const PRODUCE_MS_MAX: u64 = 20;
/// How long a worker holds its jobs before it completes one, in milliseconds, at most.
const HOLD_MS_MAX: u64 = 10;
/// One lease in so many is forgotten by its worker.
const FORGET_ONE_IN: u64 = 40;
/// One lease in so many is handed back instead of being completed.
const RELEASE_ONE_IN: u64 = 30;
/// The first pause before a store that gave no answer is asked again, in milliseconds; it doubles ...
const AWAY_BASE_MS: u64 = 100;
/// ... up to this: as in a node.
const AWAY_CAP_MS: u64 = 4_000;
/// A call of the store that takes longer than this hangs.
const CALL: Duration = Duration::from_secs(60);

/// What a load is like.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Seeds all choices.
    pub seed: u64,
    /// How long leases last, in milliseconds.
    pub lease_ms: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            seed: 1,
            lease_ms: 2_000,
        }
    }
}

struct Shared {
    ledger: Mutex<Ledger>,
    source: SourceName,
    options: LoadOptions,
    /// No more jobs are enqueued.
    drains: AtomicBool,
    /// Nothing more is done.
    stopped: AtomicBool,
    /// The store's time, in milliseconds, as its last reply said.
    store_ms: AtomicI64,
}

/// The fleet, until [`Load::finish`].
pub struct Load {
    shared: Arc<Shared>,
    producers: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    observer: Member,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// All that was acknowledged.
    pub ledger: Ledger,
    /// The counts in the end.
    pub stats: QueueStats,
}

impl Load {
    /// Defines a source without limits, enrolls the users, and starts. Every task has a store of its own.
    ///
    /// # Panics
    /// If the store does not come within minutes.
    pub async fn start<S: Store + 'static>(
        options: LoadOptions,
        mut store: impl FnMut() -> S,
    ) -> Load {
        let shared = Arc::new(Shared {
            ledger: Mutex::default(),
            source: SourceName::google_calendar(),
            options,
            drains: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            store_ms: AtomicI64::new(0),
        });
        let mut member = |name: String| Member {
            store: Arc::new(store()),
            rng: substream(options.seed, &name),
            worker: WorkerId::new(&name).expect("these names are valid"),
            shared: Arc::clone(&shared),
            failures: 0,
            unanswered: 0,
        };
        let mut observer = member("observer".to_owned());
        observer.define().await;
        let producers = (0..PRODUCERS)
            .map(|number| tokio::spawn(member(format!("producer-{number}")).produce()))
            .collect();
        let workers = (0..WORKERS)
            .map(|number| tokio::spawn(member(format!("worker-{number}")).work()))
            .collect();
        Load {
            producers,
            workers,
            observer,
            shared,
        }
    }

    /// What was acknowledged so far.
    ///
    /// # Panics
    /// If a task panicked meanwhile.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger()
    }

    /// Waits for so many more completions and tells how long that took.
    ///
    /// # Panics
    /// If that takes minutes.
    pub async fn more_completions(&self, count: u64) -> Duration {
        let wanted = self.ledger().completions + count;
        let begun = Instant::now();
        self.wait_for("completions", |ledger| ledger.completions >= wanted)
            .await;
        begun.elapsed()
    }

    /// Waits until the ledger shows what is wanted.
    ///
    /// # Panics
    /// If that takes minutes, or a task panicked.
    pub async fn wait_for(&self, what: &str, done: impl Fn(&Ledger) -> bool) {
        let begun = Instant::now();
        while !done(&self.ledger()) {
            self.look_after_tasks();
            assert!(
                begun.elapsed() < PATIENCE,
                "waited in vain for {what}: {} completions, last failure: {}",
                self.ledger().completions,
                self.ledger().last_failure
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn look_after_tasks(&self) {
        let mut tasks = self.producers.iter().chain(&self.workers);
        assert!(
            self.shared.drains.load(Ordering::Relaxed) || !tasks.any(JoinHandle::is_finished),
            "a task ended by itself"
        );
    }

    /// Enqueues no more, waits until nothing is outstanding, and checks the ledger; `lost` is the stretch of the
    /// store's time whose acknowledgements may be gone.
    ///
    /// # Panics
    /// If anything is wrong.
    pub async fn finish(mut self, lost: Option<RangeInclusive<Timestamp>>) -> Report {
        self.look_after_tasks();
        self.shared.drains.store(true, Ordering::Relaxed);
        for producer in self.producers.drain(..) {
            producer.await.expect("a producer does not panic");
        }
        let begun = Instant::now();
        let stats = loop {
            let Reply::Stats { stats } = self.observer.apply(Command::Stats).await.value else {
                panic!("asked for the counts");
            };
            if stats.waiting + stats.delayed + stats.active == 0 {
                break stats;
            }
            assert!(begun.elapsed() < PATIENCE, "does not drain: {stats:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.shared.stopped.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.await.expect("a worker does not panic");
        }
        let users = self.observer.users().await;
        let ledger = std::mem::take(&mut *self.ledger());
        let wrong = ledger.check(&users, lost);
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(stats.failed_total, 0, "jobs were given up");
        assert!(ledger.completions > 0, "nothing happened");
        println!(
            "{} leases, {} completions, {} leases lost, {} done before, {} given again, {} unanswered ({})",
            ledger.leases(),
            ledger.completions,
            ledger.leases_lost,
            ledger.done_before,
            ledger.given_again,
            ledger.unanswered,
            ledger.last_failure
        );
        Report { ledger, stats }
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no task panicked")
    }

    fn drains(&self) -> bool {
        self.drains.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn settings() -> SourceSettings {
        SourceSettings {
            jobs: None,
            requests_project: None,
            requests_user: None,
            // An outage is nothing that a job has done.
            stalls_max: 1_000,
            ..SourceSettings::default()
        }
    }
}

/// One task with its store.
struct Member {
    store: Arc<dyn Store>,
    rng: KalendsRng,
    worker: WorkerId,
    shared: Arc<Shared>,
    /// Calls in a row that got no answer.
    failures: u32,
    /// Calls ever that got no answer.
    unanswered: u64,
}

/// A lease that a worker holds.
struct Held {
    lease: LeaseRef,
    cursor: u64,
}

impl Member {
    /// One call; `None` if it got no answer, after a pause.
    async fn try_apply(&mut self, command: Command) -> Option<Stamped<Reply>> {
        let answer = tokio::time::timeout(CALL, self.store.apply(command)).await;
        match answer.expect("a call of the store ends") {
            Ok(stamped) => {
                self.failures = 0;
                self.shared
                    .store_ms
                    .store(stamped.now.as_ms(), Ordering::Relaxed);
                Some(stamped)
            }
            Err(unavailable) => {
                self.unanswered += 1;
                {
                    let mut ledger = self.shared.ledger();
                    ledger.unanswered += 1;
                    ledger.last_failure = unavailable.detail;
                }
                let pause_ms = (AWAY_BASE_MS << self.failures.min(16)).min(AWAY_CAP_MS);
                self.failures += 1;
                let half = pause_ms / 2;
                let drawn_ms = half + uniform(&mut self.rng, half);
                self.pause(drawn_ms).await;
                None
            }
        }
    }

    /// Sends a command until it is answered.
    async fn apply(&mut self, command: Command) -> Stamped<Reply> {
        let begun = Instant::now();
        loop {
            if let Some(stamped) = self.try_apply(command.clone()).await {
                return stamped;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no answer for minutes: {}",
                self.shared.ledger().last_failure
            );
        }
    }

    async fn pause(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// What a node does at its start.
    async fn define(&mut self) {
        let source = self.shared.source.clone();
        let define = Command::DefineSource {
            source: source.clone(),
            settings: Shared::settings(),
        };
        assert_eq!(self.apply(define).await.value, Reply::Done);
        let enroll = Command::Enroll {
            source,
            users: (0..USERS).map(user).collect(),
            due_at: Timestamp::MAX,
        };
        let _ = self.apply(enroll).await;
    }

    async fn produce(mut self) {
        while !self.shared.drains() {
            let mut users: Vec<u64> = (0..=uniform(&mut self.rng, BATCH - 1))
                .map(|_| uniform(&mut self.rng, USERS - 1))
                .collect();
            users.sort_unstable();
            users.dedup();
            let run_at = Timestamp::from_ms(self.shared.store_ms.load(Ordering::Relaxed));
            let jobs: Vec<NewJob> = users
                .into_iter()
                .map(|number| NewJob {
                    user: user(number),
                    run_at,
                    nominal_at: None,
                    priority: Priority::Scheduled,
                })
                .collect();
            self.enqueue(jobs).await;
            let pause_ms = uniform(&mut self.rng, PRODUCE_MS_MAX);
            self.pause(pause_ms).await;
        }
    }

    /// Enqueues until it is acknowledged; makes all known again that the server forgot.
    async fn enqueue(&mut self, jobs: Vec<NewJob>) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "not enqueued for minutes");
            for job in &jobs {
                self.shared.ledger().sending(job.user.as_str());
            }
            let command = Command::Enqueue {
                source: self.shared.source.clone(),
                jobs: jobs.clone(),
                checkpoint: None,
            };
            let Some(stamped) = self.try_apply(command).await else {
                continue;
            };
            match stamped.value {
                Reply::Enqueued { refused: 0, .. } => {
                    let mut ledger = self.shared.ledger();
                    for job in &jobs {
                        ledger.enqueued(job.user.as_str(), stamped.now);
                    }
                    return;
                }
                // The source is known again, its users are not yet, or not all were when this was sent.
                Reply::Enqueued { .. }
                | Reply::Refused {
                    refusal: Refusal::UnknownSource { .. },
                } => {
                    self.shared.ledger().forgotten += 1;
                    self.define().await;
                }
                other => panic!("enqueued, and heard {other:?}"),
            }
        }
    }

    async fn work(mut self) {
        let mut held: Vec<Held> = Vec::new();
        let beat = Duration::from_millis(self.shared.options.lease_ms / 3);
        let mut beaten = Instant::now();
        while !self.shared.stopped() {
            if held.len() < SLOTS {
                self.claim(&mut held).await;
            }
            let hold_ms = uniform(&mut self.rng, HOLD_MS_MAX);
            self.pause(hold_ms).await;
            if beaten.elapsed() > beat || uniform(&mut self.rng, 20) == 0 {
                beaten = Instant::now();
                self.heartbeat(&mut held).await;
            }
            if !held.is_empty() {
                self.end(held.remove(0)).await;
            }
        }
    }

    async fn claim(&mut self, held: &mut Vec<Held>) {
        let command = Command::Claim {
            worker: self.worker.clone(),
            slots: u32::try_from(SLOTS - held.len()).expect("there are few slots"),
            fan_out_slots: 0,
            lease_ms: self.shared.options.lease_ms,
            held: held.iter().map(|held| held.lease.token).collect(),
        };
        let Some(stamped) = self.try_apply(command).await else {
            return;
        };
        let Reply::Claimed { leases, .. } = stamped.value else {
            panic!("claimed, and heard {:?}", stamped.value);
        };
        assert!(
            held.len() + leases.len() <= SLOTS,
            "more than was asked for"
        );
        for lease in leases {
            let cursor = self.remember(&lease, stamped.now);
            if uniform(&mut self.rng, FORGET_ONE_IN - 1) > 0 {
                held.push(Held {
                    lease: lease.lease,
                    cursor,
                });
            }
        }
    }

    fn remember(&self, lease: &Lease, at: Timestamp) -> u64 {
        let JobKey::Sync { user, .. } = &lease.lease.key else {
            panic!("there are no fan-outs here");
        };
        let cursor = count(lease.cursor.as_deref());
        self.shared.ledger().leased(
            user.as_str(),
            &self.worker,
            lease.lease.token.0,
            cursor,
            at,
            lease.expires_at,
        );
        cursor
    }

    async fn heartbeat(&mut self, held: &mut Vec<Held>) {
        let lease_ms = self.shared.options.lease_ms;
        let command = Command::Heartbeat {
            leases: held.iter().map(|held| held.lease.clone()).collect(),
            lease_ms,
        };
        let Some(stamped) = self.try_apply(command).await else {
            return;
        };
        let Reply::Heartbeat { lost } = stamped.value else {
            panic!("sent a heartbeat, and heard {:?}", stamped.value);
        };
        let mut ledger = self.shared.ledger();
        held.retain(|held| {
            let LeaseToken(token) = held.lease.token;
            if lost.contains(&held.lease.token) {
                ledger.ended(token, stamped.now, End::Lost);
                return false;
            }
            ledger.extended(token, stamped.now, stamped.now.plus_ms(lease_ms));
            true
        });
    }

    /// Completes a job, or hands it back, and does not rest before it knows what came of it.
    async fn end(&mut self, held: Held) {
        let completes = uniform(&mut self.rng, RELEASE_ONE_IN - 1) > 0;
        let command = if completes {
            Command::Complete {
                lease: held.lease.clone(),
                commit: Commit {
                    cursor: Some((held.cursor + 1).to_string()),
                    next_due_at: None,
                    outcome: CommitOutcome::Synced {
                        upserted: 1,
                        deleted: 0,
                        quarantined: 0,
                        requests: 1,
                        full: false,
                    },
                },
            }
        } else {
            Command::Release {
                lease: held.lease.clone(),
                at: None,
            }
        };
        let unanswered = self.unanswered;
        let stamped = self.apply(command).await;
        let sent_again = self.unanswered > unanswered;
        let end = match (stamped.value, completes) {
            (Reply::Done, true) => End::Completed,
            (Reply::Done, false) => End::Released,
            (Reply::AlreadyDone, true) => End::CompletedBefore,
            (Reply::AlreadyDone, false) => End::ReleasedBefore,
            (
                Reply::Refused {
                    refusal: Refusal::LeaseLost,
                },
                _,
            ) => {
                if sent_again {
                    End::Unsure
                } else {
                    End::Lost
                }
            }
            (other, _) => panic!("ended a job, and heard {other:?}"),
        };
        self.shared
            .ledger()
            .ended(held.lease.token.0, stamped.now, end);
    }

    async fn users(&mut self) -> BTreeMap<String, Final> {
        let command = Command::Users {
            source: self.shared.source.clone(),
            after: None,
            limit: u32::try_from(USERS).expect("there are few users") + 1,
        };
        let Reply::Users { users } = self.apply(command).await.value else {
            panic!("asked for users");
        };
        users
            .into_iter()
            .map(|(name, state)| {
                let last = Final {
                    cursor: count(state.cursor.as_deref()),
                    last_started_at: state.last_started_at,
                };
                (name.to_string(), last)
            })
            .collect()
    }
}

fn user(number: u64) -> UserId {
    UserId::new(&format!("user-{number}@example.com")).expect("these names are valid")
}

fn count(cursor: Option<&str>) -> u64 {
    cursor.map_or(0, |text| text.parse().expect("cursors here are numbers"))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use kalends::clock::SystemClock;
    use kalends_core::port::StoreUnavailable;
    use kalends_core::queue::Queue;
    use kalends_core::time::Clock as _;

    use super::*;

    /// The model itself; every so many commands a reply is lost.
    #[derive(Clone)]
    struct Model {
        queue: Arc<Mutex<(Queue, u64)>>,
        lose_one_in: u64,
    }

    #[async_trait]
    impl Store for Model {
        async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
            let mut queue = self.queue.lock().unwrap();
            let now = SystemClock.now();
            let value = queue.0.apply(now, command);
            queue.1 += 1;
            if queue.1.is_multiple_of(self.lose_one_in) {
                return Err(StoreUnavailable {
                    detail: "the reply was lost".to_owned(),
                });
            }
            Ok(Stamped { now, value })
        }

        async fn wait_for_wake(&self) {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn the_model_passes_though_replies_are_lost() {
        let model = Model {
            queue: Arc::default(),
            lose_one_in: 50,
        };
        let load = Load::start(LoadOptions::default(), || model.clone()).await;
        load.more_completions(300).await;
        let report = load.finish(None).await;
        assert!(report.ledger.unanswered > 0);
        assert!(report.ledger.given_again > 0);
    }

    #[tokio::test]
    #[should_panic(expected = "two live leases")]
    async fn a_store_that_forgets_does_not_pass() {
        let model = Model {
            queue: Arc::default(),
            lose_one_in: u64::MAX,
        };
        let load = Load::start(LoadOptions::default(), || model.clone()).await;
        load.more_completions(50).await;
        let old = {
            let queue = model.queue.lock().unwrap();
            Queue::restore(queue.0.rows()).unwrap()
        };
        load.more_completions(200).await;
        model.queue.lock().unwrap().0 = old;
        load.more_completions(200).await;
        load.finish(None).await;
    }
}
