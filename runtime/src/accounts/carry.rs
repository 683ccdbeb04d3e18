//! Users come into the queue and leave it, while a node is at work: by the register, or by a configuration that was read again.
//!
//! All of it may be done twice, or by several processes.

use std::collections::BTreeSet;

use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority, Reply};
use kalends_core::queue::state::{JobKey, JobState};
use kalends_core::rng::KalendsRng;
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};

use crate::config::ScheduleConfig;
use crate::status;

/// Up to so many users at a time are synced one after another at once; more are laid over the schedule's period.
const PROMPT_MAX: u64 = 20;
/// Over so long users are laid if the schedule never fires again, in milliseconds.
const PERIOD_MS_DEFAULT: u64 = 15 * MINUTE_MS;

/// Where the first syncs of users who come together are laid.
pub(crate) struct Layout {
    /// How many they are, roughly.
    pub(crate) total: u64,
    placed: u64,
}

impl Layout {
    pub(crate) fn of(total: u64) -> Self {
        Layout { total, placed: 0 }
    }
}

/// Users are synced from now on, the first time soon; a parked one whose grant is another is no longer parked. At most
/// [`BATCH_MAX`] of them, with the hash of each one's grant, if there is one.
pub(crate) async fn enroll(
    store: &dyn Store,
    schedule: &ScheduleConfig,
    rng: &mut KalendsRng,
    layout: &mut Layout,
    users: Vec<(UserId, Option<u64>)>,
) -> Result<(), StoreUnavailable> {
    assert!(users.len() <= BATCH_MAX, "a command is bounded");
    let Some((first, _)) = users.first() else {
        return Ok(());
    };
    let source = schedule.definition.source.clone();
    let due_at = store_time(store, &source, first).await?;
    let grants = users
        .iter()
        .filter_map(|(user, grant)| Some((user.clone(), (*grant)?)));
    let connect = Command::Connect {
        source: source.clone(),
        grants: grants.collect(),
        due_at,
        force: false,
    };
    let enroll = Command::Enroll {
        source: source.clone(),
        users: users.into_iter().map(|(user, _)| user).collect(),
        due_at,
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
    let period_ms = schedule.definition.period_ms(due_at);
    let period_ms = period_ms.unwrap_or(PERIOD_MS_DEFAULT);
    let total = layout.total.max(layout.placed + first.len() as u64);
    let mut jobs = Vec::with_capacity(first.len());
    for user in first {
        let place = layout.placed;
        layout.placed += 1;
        let offset_ms = match total {
            0..=PROMPT_MAX => place * SECOND_MS,
            _ => schedule.spread.offset_ms(place, total, &user, period_ms),
        };
        let jitter_ms = schedule.jitter.draw(rng);
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
