//! What a host asks of the store by its handle: each is a command or two, and may be said again after a lost answer.

use std::fmt;

use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, NewJob, ParkReason, Priority, Reply};
use kalends_core::queue::state::UserState;
use kalends_core::rng::stable_hash;
use kalends_core::time::Timestamp;

use super::Handle;
use crate::accounts::store_time;
use crate::status::{Shown, Status};

/// The longest reason of a pause, in characters.
pub const PAUSE_REASON_CHARS_MAX: usize = 200;

/// Jobs that a status lists beside its counts.
const SHOWN: Shown = Shown {
    active: 100,
    failed: 20,
};

/// The seed of the hash that tells grants apart. Changing it would try every parked user once more.
const GRANT_SEED: u64 = 0x6772_616e_7473;

/// Tells one grant of a user (a refresh token, say) from another: a hash, from which the grant cannot be had back.
#[must_use]
pub fn grant_hash(grant: &str) -> u64 {
    stable_hash(GRANT_SEED, grant.as_bytes())
}

/// Why a sync could not be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEnqueued {
    /// The store does not answer. Asking again later is safe.
    StoreAway(StoreUnavailable),
    /// The source has no such user: enroll the user first.
    UnknownUser,
    /// The user is parked; with [`ParkReason::NeedsReauth`] the user must connect again.
    Parked(ParkReason),
    /// The store refused; in words.
    Refused(String),
}

impl fmt::Display for NotEnqueued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotEnqueued::StoreAway(unavailable) => {
                write!(formatter, "the store does not answer: {unavailable}")
            }
            NotEnqueued::UnknownUser => formatter.write_str("no such user is enrolled"),
            NotEnqueued::Parked(ParkReason::NeedsReauth) => {
                formatter.write_str("the user is parked, and must connect again")
            }
            NotEnqueued::Parked(ParkReason::Operator) => {
                formatter.write_str("the user was parked by an operator")
            }
            NotEnqueued::Refused(words) => write!(formatter, "the store refused: {words}"),
        }
    }
}

impl std::error::Error for NotEnqueued {}

/// Why something that was asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// The store does not answer; it may have been done. Asking again later is safe.
    StoreAway(StoreUnavailable),
    /// It was refused; in words, with what to do.
    Refused(String),
}

impl fmt::Display for NotDone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDone::StoreAway(unavailable) => {
                write!(formatter, "the store does not answer: {unavailable}")
            }
            NotDone::Refused(words) => formatter.write_str(words),
        }
    }
}

impl std::error::Error for NotDone {}

impl Handle {
    /// Asks that a user is synced now, before those whose turn it only is, by whichever process of the fleet is free.
    /// A sync that is running already is followed by another one.
    ///
    /// # Errors
    /// If the store does not answer, or there is no such user, or the user is parked.
    pub async fn enqueue_sync(&self, source: SourceName, user: UserId) -> Result<(), NotEnqueued> {
        enqueue_sync(&*self.store, source, user).await
    }

    /// Users and jobs by state, schedules, limits and pauses, freshness, what runs and what failed last, of the whole
    /// fleet.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn status(&self) -> Result<Status, StoreUnavailable> {
        Status::read(&*self.store, SHOWN).await
    }

    /// Stops a source, or with `None` every source that is defined, over the whole fleet, until [`Handle::resume`]: no sync
    /// starts, what runs is given no more requests. `reason` is for people, at most [`PAUSE_REASON_CHARS_MAX`] characters.
    ///
    /// # Errors
    /// If the store does not answer, or the reason is empty or too long.
    pub async fn pause(&self, source: Option<SourceName>, reason: &str) -> Result<(), NotDone> {
        let reason = pause_reason(reason).map_err(NotDone::Refused)?;
        self.ask(Command::Pause { source, reason }).await.map(drop)
    }

    /// Undoes [`Handle::pause`], and opens a gate that Google's "slow down" closed; starts come back slowly.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn resume(&self, source: Option<SourceName>) -> Result<(), NotDone> {
        self.ask(Command::Resume { source }).await.map(drop)
    }

    /// A user begins to be synced, at once, and is synced from then on by the source's schedules. `grant` tells one grant of
    /// the user from another ([`grant_hash`]); 0 if there are none. A user who is enrolled already stays so; one who is
    /// parked for want of a grant is tried again if this is another one.
    ///
    /// Users enrolled so are known to the store alone: one that was emptied forgets them.
    ///
    /// # Errors
    /// If the store does not answer, or does not know the source yet (it does from [`Readiness::Ready`](super::Readiness) on).
    pub async fn enroll(
        &self,
        source: SourceName,
        user: UserId,
        grant: u64,
    ) -> Result<(), NotDone> {
        // By the store's clock, which is the one of the whole fleet.
        let due_at = store_time(&*self.store, &source, &user).await;
        let due_at = due_at.map_err(NotDone::StoreAway)?;
        let enroll = Command::Enroll {
            source: source.clone(),
            users: vec![user.clone()],
            due_at,
        };
        self.ask(enroll).await?;
        let connect = Command::Connect {
            source: source.clone(),
            grants: vec![(user.clone(), grant)],
            due_at,
            force: false,
        };
        self.ask(connect).await?;
        match self.enqueue_sync(source, user).await {
            // Still parked: the grant is the one that was refused before.
            Ok(()) | Err(NotEnqueued::Parked(_)) => Ok(()),
            Err(NotEnqueued::StoreAway(unavailable)) => Err(NotDone::StoreAway(unavailable)),
            Err(other) => Err(NotDone::Refused(other.to_string())),
        }
    }

    /// A user ceases to be synced: waiting jobs go, an active one loses its lease. What was synced stays in the graph.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn unenroll(&self, source: SourceName, user: UserId) -> Result<(), NotDone> {
        let users = vec![user];
        self.ask(Command::Unenroll { source, users })
            .await
            .map(drop)
    }

    async fn ask(&self, command: Command) -> Result<Reply, NotDone> {
        let stamped = self.store.apply(command).await;
        match stamped.map_err(NotDone::StoreAway)?.value {
            Reply::Refused { refusal } => {
                Err(NotDone::Refused(format!("the store refused: {refusal}")))
            }
            reply => Ok(reply),
        }
    }
}

/// The reason of a pause, as it is kept.
///
/// # Errors
/// If there is none, or it is too long; in words.
pub(crate) fn pause_reason(said: &str) -> Result<String, String> {
    let reason = said.trim();
    if reason.is_empty() || reason.chars().count() > PAUSE_REASON_CHARS_MAX {
        return Err(format!(
            "the reason is empty or longer than {PAUSE_REASON_CHARS_MAX} characters; say why, in a sentence"
        ));
    }
    Ok(reason.to_owned())
}

/// As [`Handle::enqueue_sync`], for whoever has the store.
pub(crate) async fn enqueue_sync(
    store: &dyn Store,
    source: SourceName,
    user: UserId,
) -> Result<(), NotEnqueued> {
    let (now, state) = read_user(store, &source, &user).await?;
    if let Some(reason) = state.parked {
        return Err(NotEnqueued::Parked(reason));
    }
    let job = NewJob {
        user,
        run_at: now,
        nominal_at: None,
        priority: Priority::Now,
    };
    let enqueue = Command::Enqueue {
        source,
        jobs: vec![job],
        checkpoint: None,
    };
    let reply = store.apply(enqueue).await.map_err(NotEnqueued::StoreAway)?;
    match reply.value {
        Reply::Enqueued { refused: 0, .. } => Ok(()),
        // Parked or gone since the question.
        Reply::Enqueued { .. } => Err(NotEnqueued::UnknownUser),
        Reply::Refused { refusal } => Err(NotEnqueued::Refused(refusal.to_string())),
        other => panic!("an enqueue was answered by {other:?}"),
    }
}

/// What the store knows of a user, and its time.
async fn read_user(
    store: &dyn Store,
    source: &SourceName,
    user: &UserId,
) -> Result<(Timestamp, UserState), NotEnqueued> {
    let asked = Command::User {
        source: source.clone(),
        user: user.clone(),
    };
    let stamped = store.apply(asked).await.map_err(NotEnqueued::StoreAway)?;
    match stamped.value {
        Reply::User { state } => Ok((stamped.now, state.ok_or(NotEnqueued::UnknownUser)?)),
        Reply::Refused { refusal } => Err(NotEnqueued::Refused(refusal.to_string())),
        other => panic!("the question for a user was answered by {other:?}"),
    }
}
