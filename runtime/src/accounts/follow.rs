//! Carries changes of the register into the queue: added users are enrolled, connected ones unparked, removed ones
//! forgotten.
//!
//! Every process of a fleet does it. That is harmless, since all it sends may be sent again: enrolling somebody twice
//! changes nothing, the same grant unparks nobody, and a user's jobs coalesce. Whoever enrolls a user first is told so by
//! the store, and asks for the first sync; if that process dies in between, the next tick does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kalends_adapters::accounts::{Account, Change, PAGE_MAX};
use kalends_core::id::{SourceName, UserId};
use kalends_core::policy::{Jitter, ScheduleDefinition, Spread};
use kalends_core::port::{Graph, Store, StoreUnavailable};
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority, Reply};
use kalends_core::queue::state::{JobKey, JobState};
use kalends_core::rng::{KalendsRng, substream};
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};

use super::{Register, purge};
use crate::status;

/// How often the register is looked at, in milliseconds.
pub const LOOK_MS: u64 = 2 * SECOND_MS;
/// Up to so many users at a time are synced one after another at once; more are laid over the schedule's period.
const PROMPT_MAX: u64 = 20;
/// So long somebody may still be writing for a user who was not seen at work when the user was removed, in milliseconds: a job
/// may have been given out at that very moment.
const LINGER_MS_MIN: u64 = 2 * SECOND_MS;
/// A graph that could not be emptied is tried again after so long, in milliseconds.
const PURGE_AGAIN_MS: u64 = MINUTE_MS;
/// Over so long users are laid if the schedule never fires again, in milliseconds.
const PERIOD_MS_DEFAULT: u64 = 15 * MINUTE_MS;

/// What a follower is told.
pub struct Follow {
    /// The register.
    pub register: Register,
    /// The queue.
    pub store: Arc<dyn Store>,
    /// The graph, for users who are removed with their data.
    pub graph: Arc<dyn Graph>,
    /// The users of the configuration, who are none of its business.
    pub configured: BTreeSet<UserId>,
    /// The grant of all users, if a service account speaks for them.
    pub common_grant: Option<u64>,
    /// The schedule over whose period many new users are laid.
    pub schedule: ScheduleDefinition,
    /// How.
    pub spread: Spread,
    /// How far a start may be moved back at random.
    pub jitter: Jitter,
    /// The seed of that chance.
    pub seed: u64,
    /// How long a lease lasts, in milliseconds: so long somebody may write for a user who was removed.
    pub lease_ms: u64,
}

/// Follows the register for as long as it is polled.
pub async fn follow(settings: Follow) {
    let mut follower = Follower {
        rng: substream(settings.seed, "accounts"),
        settings,
        seen: 0,
        to_empty: BTreeMap::new(),
        empty_after: Instant::now(),
    };
    let mut is_away = false;
    loop {
        match follower.catch_up().await {
            Ok(()) if is_away => {
                is_away = false;
                tracing::info!("the register of added users is followed again");
            }
            Ok(()) => {}
            Err(unavailable) if !is_away => {
                is_away = true;
                tracing::warn!("added and removed users are not seen for now: {unavailable}");
            }
            Err(_) => {}
        }
        follower.empty_graphs().await;
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

struct Follower {
    settings: Follow,
    /// The revision up to which all is done.
    seen: u64,
    rng: KalendsRng,
    /// Removed users whose graph is still to be emptied, with how long somebody may still be writing. What a process that ends has left of it is begun anew by the next,
    /// from the notes in the register.
    to_empty: BTreeMap<UserId, u64>,
    /// Not to be tried before this.
    empty_after: Instant,
}

/// Where the first syncs of one catching-up are laid.
struct Layout {
    total: u64,
    placed: u64,
}

impl Follower {
    async fn catch_up(&mut self) -> Result<(), StoreUnavailable> {
        let accounts = self.settings.register.accounts();
        let mut page = accounts.changes(self.seen, PAGE_MAX).await?;
        if page.revision < self.seen {
            // Emptied, or put back from a backup: everything is looked at anew.
            self.seen = 0;
            page = accounts.changes(0, PAGE_MAX).await?;
        }
        let began_at = self.seen;
        let mut layout = Layout {
            total: page.revision - self.seen.min(page.revision),
            placed: 0,
        };
        while let Some((last, _)) = page.changes.last() {
            let last = *last;
            let changes = page.changes.into_iter().map(|(_, change)| change);
            self.carry(changes.collect(), &mut layout).await?;
            self.seen = last;
            let accounts = self.settings.register.accounts();
            page = accounts.changes(last, PAGE_MAX).await?;
        }
        if self.seen != began_at {
            tracing::debug!(
                revision = self.seen,
                "changes of added users are carried into the queue"
            );
        }
        Ok(())
    }

    async fn carry(
        &mut self,
        changes: Vec<Change>,
        layout: &mut Layout,
    ) -> Result<(), StoreUnavailable> {
        let mut kept = Vec::new();
        let mut removed = Vec::new();
        for change in changes {
            let user = match &change {
                Change::Kept(account) => &account.user,
                Change::Removed { user, .. } => user,
            };
            if self.settings.configured.contains(user) {
                continue;
            }
            match change {
                Change::Kept(account) => kept.push(account),
                Change::Removed { user, purge } => removed.push((user, purge)),
            }
        }
        if !kept.is_empty() {
            self.enroll(kept, layout).await?;
        }
        if !removed.is_empty() {
            self.unenroll(removed).await?;
        }
        Ok(())
    }

    async fn enroll(
        &mut self,
        kept: Vec<Account>,
        layout: &mut Layout,
    ) -> Result<(), StoreUnavailable> {
        let settings = &self.settings;
        let source = settings.schedule.source.clone();
        let store = &*settings.store;
        let due_at = store_time(store, &source, &kept[0].user).await?;
        let mut users = Vec::with_capacity(kept.len());
        let mut grants = Vec::with_capacity(kept.len());
        for account in kept {
            settings.register.remember_database(&account);
            let own = account.grant.map(|grant| grant.fingerprint);
            if let Some(grant) = settings.common_grant.or(own) {
                grants.push((account.user.clone(), grant));
            }
            users.push(account.user);
        }
        let enroll = Command::Enroll {
            source: source.clone(),
            users,
            due_at,
        };
        let connect = Command::Connect {
            source: source.clone(),
            grants,
            due_at,
            force: false,
        };
        let new = enrolled(store, enroll).await?;
        let unparked = enrolled(store, connect).await?;
        for user in &new {
            tracing::info!(%user, "a new user is synced from now on");
        }
        for user in &unparked {
            tracing::info!(%user, "connected again");
        }
        let first: Vec<UserId> = new.into_iter().chain(unparked).collect();
        if first.is_empty() {
            return Ok(());
        }
        let period_ms = settings.schedule.period_ms(due_at);
        let period_ms = period_ms.unwrap_or(PERIOD_MS_DEFAULT);
        let total = layout.total.max(layout.placed + first.len() as u64);
        let mut jobs = Vec::with_capacity(first.len());
        for user in first {
            let place = layout.placed;
            layout.placed += 1;
            let offset_ms = match total {
                0..=PROMPT_MAX => place * SECOND_MS,
                _ => {
                    let spread = &self.settings.spread;
                    spread.offset_ms(place, total, &user, period_ms)
                }
            };
            let jitter_ms = self.settings.jitter.draw(&mut self.rng);
            jobs.push(NewJob {
                user,
                run_at: due_at.plus_ms(offset_ms).plus_ms(jitter_ms),
                nominal_at: None,
                priority: Priority::Scheduled,
            });
        }
        let enqueue = Command::Enqueue {
            source,
            jobs,
            checkpoint: None,
        };
        store.apply(enqueue).await?;
        Ok(())
    }

    async fn unenroll(&mut self, removed: Vec<(UserId, bool)>) -> Result<(), StoreUnavailable> {
        let settings = &self.settings;
        let source = &settings.schedule.source;
        let users = removed.iter().map(|(user, _)| user.clone()).collect();
        let (active, count) = forget(&*settings.store, source, users).await?;
        if count > 0 {
            tracing::info!(users = count, "removed: not synced any more");
        }
        for (user, purge) in removed {
            if purge {
                let linger_ms = linger_ms(&active, &user, settings.lease_ms);
                self.to_empty.insert(user, linger_ms);
                self.empty_after = Instant::now();
            } else {
                settings.register.forget_database(&user);
            }
        }
        Ok(())
    }

    /// Empties the graphs of removed users, of which one that fails keeps nobody waiting.
    async fn empty_graphs(&mut self) {
        if self.to_empty.is_empty() || Instant::now() < self.empty_after {
            return;
        }
        let settings = &self.settings;
        let mut left = BTreeMap::new();
        for (user, linger_ms) in std::mem::take(&mut self.to_empty) {
            match empty_graph(settings, &user, linger_ms).await {
                Ok(()) => settings.register.forget_database(&user),
                Err(detail) => {
                    tracing::warn!(%user, "the graph of a removed user is not empty yet: {detail}");
                    left.insert(user, linger_ms);
                }
            }
        }
        self.to_empty = left;
        self.empty_after = Instant::now() + Duration::from_millis(PURGE_AGAIN_MS);
    }
}

/// Empties a removed user's graph, unless the user has come back meanwhile.
async fn empty_graph(settings: &Follow, user: &UserId, linger_ms: u64) -> Result<(), String> {
    let said = |unavailable: StoreUnavailable| unavailable.detail;
    let accounts = settings.register.accounts();
    if accounts.find(user).await.map_err(said)?.is_some() {
        return Ok(());
    }
    let source = &settings.schedule.source;
    let now = store_time(&*settings.store, source, user).await;
    let now = now.map_err(said)?;
    let purged = purge(&*settings.graph, user, now, linger_ms).await;
    let calendars = purged.map_err(|failure| failure.detail)?;
    tracing::info!(%user, calendars, "the removed user's graph is empty");
    accounts.purged(user).await.map_err(said)
}

/// The users that an enrolment or a connection was about.
async fn enrolled(store: &dyn Store, command: Command) -> Result<Vec<UserId>, StoreUnavailable> {
    match store.apply(command).await?.value {
        Reply::Enrolled { users, .. } => Ok(users),
        Reply::Refused { refusal } => Err(StoreUnavailable {
            detail: refusal.to_string(),
        }),
        other => panic!("an enrolment was answered by {other:?}"),
    }
}

/// The store's time, by the cheapest question.
pub(crate) async fn store_time(
    store: &dyn Store,
    source: &SourceName,
    user: &UserId,
) -> Result<Timestamp, StoreUnavailable> {
    let question = Command::User {
        source: source.clone(),
        user: user.clone(),
    };
    Ok(store.apply(question).await?.now)
}

/// How long a removed user's node stays in the graph, in milliseconds: see [`purge`](super::purge).
pub(crate) fn linger_ms(active: &BTreeSet<UserId>, user: &UserId, lease_ms: u64) -> u64 {
    if active.contains(user) {
        lease_ms.max(LINGER_MS_MIN)
    } else {
        LINGER_MS_MIN
    }
}

/// Takes users out of the queue; which of them were being synced at that moment, and how many were enrolled.
pub(crate) async fn forget(
    store: &dyn Store,
    source: &SourceName,
    users: Vec<UserId>,
) -> Result<(BTreeSet<UserId>, u64), StoreUnavailable> {
    let limit = u32::try_from(BATCH_MAX).expect("a batch is small");
    let (_, jobs) = status::jobs(store, JobState::Active, 0, limit).await?;
    let active = jobs.into_iter().filter_map(|job| match job.key {
        JobKey::Sync { user, .. } if users.contains(&user) => Some(user),
        _ => None,
    });
    let active = active.collect();
    let unenroll = Command::Unenroll {
        source: source.clone(),
        users,
    };
    match store.apply(unenroll).await?.value {
        Reply::Count { count } => Ok((active, count)),
        Reply::Refused { refusal } => Err(StoreUnavailable {
            detail: refusal.to_string(),
        }),
        other => panic!("a removal was answered by {other:?}"),
    }
}
