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
use kalends_core::port::{Graph, Store, StoreUnavailable};
use kalends_core::rng::{KalendsRng, substream};
use kalends_core::time::{MINUTE_MS, SECOND_MS};
use tokio::sync::watch;

use super::carry::{self, Layout};
use super::{Register, purge};
use crate::config::ScheduleConfig;

/// How often the register is looked at, in milliseconds.
pub const LOOK_MS: u64 = 2 * SECOND_MS;
/// So long somebody may still be writing for a user who was not seen at work when the user was removed, in milliseconds: a job
/// may have been given out at that very moment.
const LINGER_MS_MIN: u64 = 2 * SECOND_MS;
/// A graph that could not be emptied is tried again after so long, in milliseconds.
const PURGE_AGAIN_MS: u64 = MINUTE_MS;

/// What a follower is told.
pub struct Follow {
    /// The register. The users of the configuration, which it knows, too, are none of a follower's business.
    pub register: Register,
    /// The queue.
    pub store: Arc<dyn Store>,
    /// The graph, for users who are removed with their data.
    pub graph: Arc<dyn Graph>,
    /// The grant of all users, if a service account speaks for them.
    pub common_grant: Option<u64>,
    /// The schedule over whose period many new users are laid, and how: as the configuration was read last.
    pub schedule: watch::Receiver<ScheduleConfig>,
    /// The seed of the chance in it.
    pub seed: u64,
    /// How long a lease lasts, in milliseconds: so long somebody may write for a user who was removed.
    pub lease_ms: u64,
}

impl Follow {
    fn source(&self) -> SourceName {
        self.schedule.borrow().definition.source.clone()
    }
}

/// Follows the register for as long as it is polled.
pub async fn follow(settings: Follow) {
    let mut follower = Follower {
        rng: substream(settings.seed, "accounts"),
        configured: settings.register.configured().revision(),
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
    /// The revision of the configuration's users up to which that is so.
    configured: u64,
    rng: KalendsRng,
    /// Removed users whose graph is still to be emptied, with how long somebody may still be writing. What a process that ends has left of it is begun anew by the next,
    /// from the notes in the register.
    to_empty: BTreeMap<UserId, u64>,
    /// Not to be tried before this.
    empty_after: Instant,
}

impl Follower {
    async fn catch_up(&mut self) -> Result<(), StoreUnavailable> {
        let configured = self.settings.register.configured().revision();
        if configured != self.configured {
            // Whoever left the configuration may be in the register, so everybody is looked at anew.
            self.seen = 0;
            self.configured = configured;
        }
        let accounts = self.settings.register.accounts();
        let mut page = accounts.changes(self.seen, PAGE_MAX).await?;
        if page.revision < self.seen {
            // Emptied, or put back from a backup: everything is looked at anew.
            self.seen = 0;
            page = accounts.changes(0, PAGE_MAX).await?;
        }
        let began_at = self.seen;
        let mut layout = Layout::of(page.revision - self.seen.min(page.revision));
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
            if self.settings.register.configured().holds(user) {
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
        let mut users = Vec::with_capacity(kept.len());
        for account in kept {
            settings.register.remember_database(&account);
            let own = account.grant.map(|grant| grant.fingerprint);
            users.push((account.user, settings.common_grant.or(own)));
        }
        // Taken anew each time: a reload may have changed it.
        let schedule = settings.schedule.borrow().clone();
        carry::enroll(&*settings.store, &schedule, &mut self.rng, layout, users).await
    }

    async fn unenroll(&mut self, removed: Vec<(UserId, bool)>) -> Result<(), StoreUnavailable> {
        let settings = &self.settings;
        let source = settings.source();
        let users = removed.iter().map(|(user, _)| user.clone()).collect();
        let (active, count) = carry::forget(&*settings.store, &source, users).await?;
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
    let source = settings.source();
    let now = carry::store_time(&*settings.store, &source, user).await;
    let now = now.map_err(said)?;
    let purged = purge(&*settings.graph, user, now, linger_ms).await;
    let calendars = purged.map_err(|failure| failure.detail)?;
    tracing::info!(%user, calendars, "the removed user's graph is empty");
    accounts.purged(user).await.map_err(said)
}

/// How long a removed user's node stays in the graph, in milliseconds: see [`purge`](super::purge).
pub(crate) fn linger_ms(active: &BTreeSet<UserId>, user: &UserId, lease_ms: u64) -> u64 {
    if active.contains(user) {
        lease_ms.max(LINGER_MS_MIN)
    } else {
        LINGER_MS_MIN
    }
}
