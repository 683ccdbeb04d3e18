//! `kalends users remove`: the grant goes first, then the jobs, then what was synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kalends_adapters::accounts::Change;
use kalends_adapters::embedded::LOCK_NAME;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::time::{Clock as _, SECOND_MS};

use super::{Desk, failed, unavailable, user_id};
use crate::accounts::{LOOK_MS, forget, linger_ms, purge, store_time};
use crate::cli::users::RemoveArgs;
use crate::clock::SystemClock;
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::{self, Queue, Refused};

/// So long a running process is waited for, in milliseconds.
const WAIT_MS_MAX: u64 = 5 * LOOK_MS;
/// How often it is looked whether it has done it, in milliseconds.
const WAIT_LOOK_MS: u64 = SECOND_MS / 4;

pub(super) async fn remove(
    args: &RemoveArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let user = if args.purge {
        desk.own_user(&args.user)?
    } else {
        user_id(&args.user)?
    };
    let is_configured = desk.config.users.iter().any(|known| known.id == user);
    // The graph of a user who has one alone is found by this.
    desk.register
        .load_databases(&user)
        .await
        .map_err(unavailable)?;
    let accounts = desk.register.accounts();
    let was_there = accounts
        .remove(&user, args.purge, SystemClock.now())
        .await
        .map_err(unavailable)?;
    if is_configured {
        let hint =
            "is a user of the configuration, too, and stays one: take the user out of it as well";
        return Err(Refused::bad_input(format!("{user} {hint}")));
    }
    if !was_there && !args.purge {
        return Err(Refused::bad_input(format!(
            "{user}: there is no such user; `kalends users list` shows all"
        )));
    }
    let is_done = match open_queue(&desk).await? {
        Some(queue) => {
            let done = by_hand(&desk, &queue, &user, args.purge).await;
            queue.close().await;
            done?;
            true
        }
        None => wait_for_running(&desk, &user, args.purge).await?,
    };
    let forgotten = if was_there {
        "removed, its grant forgotten"
    } else {
        "removed"
    };
    let rest = match (is_done, args.purge) {
        (true, true) => ", its graph emptied",
        (true, false) => "",
        (false, true) => "; the running process empties its graph, and says so in its log",
        (false, false) => "; the running process cancels its jobs when it looks next",
    };
    say(&format!("{user} {forgotten}{rest}\n"));
    Ok(Exit::Done)
}

/// The queue, unless another process has it to itself.
async fn open_queue(desk: &Desk) -> Result<Option<Queue>, Refused> {
    let config = &desk.config;
    if config.redis.is_none() && is_in_use(&config.store.data_dir) {
        return Ok(None);
    }
    let queue = Queue::open(config, Arc::new(SystemClock)).await?;
    match queue.check().await? {
        None => Ok(Some(queue)),
        Some(detail) => Err(failed(detail)),
    }
}

/// Whether a process has the embedded store in this folder.
pub(crate) fn is_in_use(folder: &Path) -> bool {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(folder.join(LOCK_NAME));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

async fn by_hand(
    desk: &Desk,
    queue: &Queue,
    user: &UserId,
    wants_purge: bool,
) -> Result<(), Refused> {
    let source = SourceName::google_calendar();
    let store = queue.store();
    let (active, _) = forget(&*store, &source, vec![user.clone()])
        .await
        .map_err(unavailable)?;
    if !wants_purge {
        return Ok(());
    }
    let graph = wiring::graph(&desk.config, queue, &desk.register)?;
    let now = store_time(&*store, &source, user)
        .await
        .map_err(unavailable)?;
    // Nobody else can be writing to a store that this process has to itself.
    let linger_ms = if queue.is_shared() {
        linger_ms(&active, user, desk.config.worker.lease_ms)
    } else {
        0
    };
    let purged = purge(&*graph, user, now, linger_ms).await;
    purged.map_err(|failure| {
        failed(format!(
            "the user is removed, but the graph is not empty yet: {}; a running process goes on with it, or this command \
             given again",
            failure.detail
        ))
    })?;
    let accounts = desk.register.accounts();
    accounts.purged(user).await.map_err(unavailable)
}

/// Waits a moment for the process that has the store; whether it has done it.
async fn wait_for_running(desk: &Desk, user: &UserId, wants_purge: bool) -> Result<bool, Refused> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(WAIT_MS_MAX) {
        if is_done(desk, user, wants_purge).await.unwrap_or(false) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(WAIT_LOOK_MS)).await;
    }
    Ok(false)
}

async fn is_done(desk: &Desk, user: &UserId, wants_purge: bool) -> Result<bool, StoreUnavailable> {
    let said = |refused: Refused| StoreUnavailable {
        detail: refused.detail,
    };
    let reader = Queue::open_read_only(&desk.config, Arc::new(SystemClock)).map_err(said)?;
    let asked = Command::User {
        source: SourceName::google_calendar(),
        user: user.clone(),
    };
    let gone = matches!(
        reader.apply(asked).await?.value,
        Reply::User { state: None }
    );
    if !gone || !wants_purge {
        return Ok(gone);
    }
    let mut after = 0;
    loop {
        let page = desk.register.accounts().changes(after, 250).await?;
        let Some((last, _)) = page.changes.last() else {
            return Ok(true);
        };
        after = *last;
        let mut changes = page.changes.into_iter();
        let own = changes.find(
            |(_, change)| matches!(change, Change::Removed { user: known, .. } if known == user),
        );
        if let Some((_, Change::Removed { purge, .. })) = own {
            return Ok(!purge);
        }
    }
}
