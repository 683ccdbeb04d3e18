//! What is happening, as a person sees it: a bar, rates, and a word about what goes on.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kalends_core::id::UserId;
use kalends_core::node::io::Notice;
use kalends_core::queue::command::CommitOutcome;
use kalends_core::queue::state::JobKey;
use kalends_core::time::{Clock as _, Timestamp};

use super::{LOOK, STALLED};
use crate::clock::SteadyClock;
use crate::driver::Effects;
use crate::output;

/// How often a line is printed where there is no terminal.
const PLAIN_LINE: Duration = Duration::from_secs(2);
/// The width of the bar, in characters.
const BAR_WIDTH: usize = 24;

/// What the demo is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    FirstSync,
    Changing,
    Settling,
    Comparing,
}

impl Stage {
    fn words(self) -> &'static str {
        match self {
            Stage::FirstSync => "first sync of everybody",
            Stage::Changing => "calendars change, tokens expire, Google answers 429",
            Stage::Settling => "calm again: everybody is synced once more",
            Stage::Comparing => "comparing every graph with its calendar",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// When each user's last good sync started, on the demo's clock.
    synced: BTreeMap<UserId, Timestamp>,
    started: BTreeMap<UserId, Timestamp>,
    jobs: u64,
    full_syncs: u64,
    upserted: u64,
    deleted: u64,
    failed: u64,
    retried: u64,
    limited: u64,
    ticks: u64,
    quarantined: u64,
}

/// What was seen so far; shared by the driver and the story.
pub(super) struct Progress {
    users: u64,
    begun: Instant,
    counts: Mutex<Counts>,
    stage: Mutex<Stage>,
    compared: AtomicU64,
    terminal: bool,
    last_line: Mutex<Instant>,
}

/// The figures at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) synced: u64,
    pub(super) jobs: u64,
    pub(super) full_syncs: u64,
    pub(super) upserted: u64,
    pub(super) deleted: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    pub(super) limited: u64,
    pub(super) ticks: u64,
    pub(super) quarantined: u64,
}

impl Progress {
    pub(super) fn new(users: u64, begun: Instant) -> Self {
        Progress {
            users,
            begun,
            counts: Mutex::default(),
            stage: Mutex::new(Stage::FirstSync),
            compared: AtomicU64::new(0),
            terminal: std::io::stderr().is_terminal(),
            last_line: Mutex::new(begun),
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn users(&self) -> u64 {
        self.users
    }

    /// Takes a notice of the node.
    pub(super) fn observe(&self, notice: &Notice, now: Timestamp) {
        let mut counts = self.counts();
        match notice {
            Notice::JobStarted {
                key: JobKey::Sync { user, .. },
                ..
            } => {
                counts.started.insert(user.clone(), now);
            }
            Notice::JobDone {
                key: JobKey::Sync { user, .. },
                outcome,
                ..
            } => {
                counts.jobs += 1;
                let started = counts.started.remove(user).unwrap_or(now);
                if let CommitOutcome::Synced {
                    upserted,
                    deleted,
                    quarantined,
                    full,
                    ..
                } = outcome
                {
                    counts.synced.insert(user.clone(), started);
                    counts.upserted += upserted;
                    counts.deleted += deleted;
                    counts.quarantined += quarantined;
                    counts.full_syncs += u64::from(*full);
                }
            }
            Notice::JobFailed { .. } => counts.failed += 1,
            Notice::JobRetried { .. } => counts.retried += 1,
            Notice::Limited { .. } => counts.limited += 1,
            Notice::TickFired { .. } => counts.ticks += 1,
            _ => {}
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let counts = self.counts();
        Totals {
            synced: counts.synced.len() as u64,
            jobs: counts.jobs,
            full_syncs: counts.full_syncs,
            upserted: counts.upserted,
            deleted: counts.deleted,
            failed: counts.failed,
            retried: counts.retried,
            limited: counts.limited,
            ticks: counts.ticks,
            quarantined: counts.quarantined,
        }
    }

    pub(super) fn stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        if !self.terminal {
            output::error(&format!(
                "{:6.1} s  {}\n",
                self.begun.elapsed().as_secs_f64(),
                stage.words()
            ));
        }
    }

    pub(super) fn compared(&self) {
        let compared = self.compared.fetch_add(1, Ordering::Relaxed) + 1;
        self.show(compared, &format!("{compared} of {} users", self.users));
    }

    /// Waits until every user had a good sync that started after `since`; `false` if nothing happens any more.
    pub(super) async fn wait_for_all(
        &self,
        clock: SteadyClock,
        effects: &Effects,
        since: Timestamp,
    ) -> bool {
        self.wait(
            clock,
            effects,
            |counts| {
                counts
                    .synced
                    .values()
                    .filter(|started| **started > since)
                    .count() as u64
            },
            self.users,
        )
        .await
    }

    /// Waits until a tick has fired; `false` if nothing happens any more.
    pub(super) async fn wait_for_tick(&self, clock: SteadyClock, effects: &Effects) -> bool {
        let wanted = self.counts().ticks + 1;
        self.wait(clock, effects, |counts| counts.ticks, wanted)
            .await
    }

    async fn wait(
        &self,
        clock: SteadyClock,
        effects: &Effects,
        done: impl Fn(&Counts) -> u64,
        wanted: u64,
    ) -> bool {
        let mut last_change = (Instant::now(), 0);
        loop {
            let (so_far, jobs) = {
                let counts = self.counts();
                (done(&counts), counts.jobs + counts.ticks + counts.limited)
            };
            if so_far >= wanted {
                return true;
            }
            if jobs != last_change.1 {
                last_change = (Instant::now(), jobs);
            } else if last_change.0.elapsed() > STALLED {
                return false;
            }
            self.show(
                so_far * self.users / wanted.max(1),
                &self.rates(clock, effects),
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    fn rates(&self, clock: SteadyClock, effects: &Effects) -> String {
        let totals = self.totals();
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} syncs, {} events ({:.0}/s), {} requests, {} told to slow down, clock {}",
            totals.jobs,
            totals.upserted,
            totals.upserted as f64 / seconds,
            load(&effects.fetch),
            totals.limited,
            &clock.now().to_rfc3339()[11..16],
        )
    }

    fn show(&self, done: u64, words: &str) {
        let mut last_line = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let every = if self.terminal { LOOK } else { PLAIN_LINE };
        if last_line.elapsed() < every {
            return;
        }
        *last_line = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64();
        if !self.terminal {
            output::error(&format!("{seconds:6.1} s    {words}\n"));
            return;
        }
        let stage = *self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let part = (done.min(self.users) as usize * BAR_WIDTH) / (self.users.max(1) as usize);
        let bar: String = (0..BAR_WIDTH)
            .map(|at| if at < part { '█' } else { '░' })
            .collect();
        // Back to the start of the line, and clear what is left of the one before.
        output::error(&format!(
            "\r\x1b[K{seconds:5.1} s {bar} {}: {words}",
            stage.words()
        ));
    }

    pub(super) fn end(&self) {
        if self.terminal {
            output::error("\r\x1b[K\n");
        }
    }
}
