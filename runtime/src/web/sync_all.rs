//! "Sync all": every user once, laid over the period as a tick would lay them, never all at once.
//!
//! It goes page by page in the background. Jobs coalesce, so doing it twice, or being broken off by a crash and begun
//! again, doubles nothing.

use std::sync::Arc;

use kalends_core::id::{SourceName, UserId};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Command, NewJob, Priority, Reply};
use kalends_core::queue::state::UserState;
use kalends_core::rng::substream;
use kalends_core::time::{MINUTE_MS, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Web;
use super::problem::Problem;

/// Users that one command enqueues at the most.
const PAGE: u32 = 250;
/// Over so long a source's users are laid that has no schedule, in milliseconds.
const PERIOD_MS_DEFAULT: u64 = 15 * MINUTE_MS;

/// One at a time.
pub(super) struct SyncAll(Arc<Semaphore>);

impl Default for SyncAll {
    fn default() -> Self {
        SyncAll(Arc::new(Semaphore::new(1)))
    }
}

impl SyncAll {
    /// Waits until none is under way.
    pub(super) async fn ended(&self) {
        drop(self.0.acquire().await);
    }
}

/// Where the users of one request are laid.
struct Layout {
    source: SourceName,
    base: Timestamp,
    total: u64,
    period_ms: u64,
}

/// Begins it; how many users, and over how long.
pub(super) async fn begin(web: &Arc<Web>, source: SourceName) -> Result<Value, Problem> {
    let Ok(alone) = Arc::clone(&web.sync_all.0).try_acquire_owned() else {
        return Err(Problem::conflict(
            "all users are being enqueued already; wait until that is done",
        ));
    };
    let status = web.status_now().await?;
    let mut sources = status.stats.sources.iter();
    let Some((_, stats)) = sources.find(|(name, _)| *name == source) else {
        return Err(Problem::not_found(
            "there is no source of this name; GET /api/v1/status lists all",
        ));
    };
    let layout = Layout {
        base: status.now,
        total: stats.users.saturating_sub(stats.parked),
        period_ms: status.period_ms(&source).unwrap_or(PERIOD_MS_DEFAULT),
        source,
    };
    let over_ms = layout.last_offset_ms(web);
    tracing::info!(
        source = %layout.source, users = layout.total, over_ms,
        "all users are to be synced, by the API"
    );
    let body = json!({ "users": layout.total, "over_ms": over_ms });
    tokio::spawn(go_on(Arc::clone(web), layout, alone));
    Ok(body)
}

impl Layout {
    /// How long after the first user the last one starts, jitter aside.
    fn last_offset_ms(&self, web: &Web) -> u64 {
        let some_user = UserId::new(" ").expect("a blank is a name");
        match web.layout().0 {
            kalends_core::policy::Spread::Phase => self.period_ms,
            spread => spread.offset_ms(
                self.total.saturating_sub(1),
                self.total,
                &some_user,
                self.period_ms,
            ),
        }
    }
}

async fn go_on(web: Arc<Web>, layout: Layout, alone: OwnedSemaphorePermit) {
    match enqueue_pages(&web, &layout).await {
        Ok(users) => tracing::info!(source = %layout.source, users, "all users are enqueued"),
        Err(unavailable) => tracing::warn!(
            source = %layout.source,
            "not all users could be enqueued, ask again: {unavailable}"
        ),
    }
    web.forget_seen().await;
    drop(alone);
}

async fn enqueue_pages(web: &Web, layout: &Layout) -> Result<u64, StoreUnavailable> {
    let mut rng = substream(web.settings.seed, "sync-all");
    let (spread, jitter) = web.layout();
    let mut after = None;
    let mut index = 0;
    loop {
        let page = Command::Users {
            source: layout.source.clone(),
            after: after.clone(),
            limit: PAGE,
        };
        let Reply::Users { users } = web.store.apply(page).await?.value else {
            return Ok(index);
        };
        let Some((last, _)) = users.last() else {
            return Ok(index);
        };
        after = Some(last.clone());
        let is_welcome = |(_, state): &(UserId, UserState)| state.parked.is_none();
        let mut jobs = Vec::with_capacity(users.len());
        for (user, _) in users.into_iter().filter(is_welcome) {
            let offset_ms = spread.offset_ms(index, layout.total, &user, layout.period_ms);
            let jitter_ms = jitter.draw(&mut rng);
            index += 1;
            jobs.push(NewJob {
                user,
                run_at: layout.base.plus_ms(offset_ms).plus_ms(jitter_ms),
                nominal_at: None,
                priority: Priority::Scheduled,
            });
        }
        if jobs.is_empty() {
            continue;
        }
        let enqueue = Command::Enqueue {
            source: layout.source.clone(),
            jobs,
            checkpoint: None,
        };
        web.store.apply(enqueue).await?;
    }
}
