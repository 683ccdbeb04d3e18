//! Access tokens, kept for a while, and asked for by one request at a time for each user.
//!
//! The problem: twenty pages of one user's calendars may be fetched at once, and each needs the same token. The idea: a
//! lock for each user is held while the token endpoint is asked; who waited for it takes what came, the token or the
//! failure, so that a revoked grant costs one request and not twenty.
//!
//! A token is renewed at 80 % of its life, while it is still good: when the token endpoint has a bad moment then, the
//! old token is used on, and the endpoint is left alone for [`RENEWAL_PAUSE_MS`].
//!
//! Bound: [`TOKENS_MAX`] users. When it is reached, the expired tokens go, then those that were not used for longest; an
//! entry that somebody holds at this moment stays, or the next request would ask for the same token beside it. So there
//! may be as many more as there are requests under way.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::id::UserId;
use kalends_core::time::{MINUTE_MS, Timestamp};
use tokio::sync::Mutex;

use crate::secret::Secret;

/// The most users whose tokens are kept: more than that at once, and each sync would begin with a request for a token.
/// A token has at most 2 KiB, mostly a tenth of it, so a full cache takes some 40 MiB.
pub const TOKENS_MAX: usize = 100_000;

/// How long a renewal that failed for the moment is not tried again while the old token is good, in milliseconds.
const RENEWAL_PAUSE_MS: u64 = MINUTE_MS;
/// The part of all kept users that an eviction makes room for: so many insertions pay for one pass over all of them.
const EVICTED_PART: usize = 8;

/// An access token and how long it is good.
#[derive(Clone, Debug)]
pub(super) struct AccessToken {
    secret: Arc<Secret>,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl AccessToken {
    /// A token that was asked for at `asked_at` and lives for `life_ms` milliseconds.
    pub(super) fn new(secret: Secret, asked_at: Timestamp, life_ms: u64) -> Self {
        AccessToken {
            secret: Arc::new(secret),
            renew_at: asked_at.plus_ms(life_ms / 5 * 4),
            expires_at: asked_at.plus_ms(life_ms),
        }
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

#[derive(Default)]
struct Slot {
    token: Option<AccessToken>,
    /// The number of the last attempt that failed, and how.
    failed: Option<(u64, Failure)>,
}

#[derive(Default)]
struct Entry {
    slot: Mutex<Slot>,
    /// Attempts to get a token that have ended. Who arrives at attempt n and finds the failure of a later one has
    /// waited for it.
    attempts_ended: AtomicU64,
    used_at_ms: AtomicI64,
    expires_at_ms: AtomicI64,
}

/// The tokens of many users.
pub(super) struct TokenCache {
    entries: StdMutex<BTreeMap<UserId, Arc<Entry>>>,
    tokens_max: usize,
}

impl TokenCache {
    pub(super) fn new(tokens_max: usize) -> Self {
        assert!(tokens_max > 0, "a cache needs room for one token");
        TokenCache {
            entries: StdMutex::default(),
            tokens_max,
        }
    }

    /// The user's token, from `obtain` if there is none that is good for now.
    pub(super) async fn get<F>(
        &self,
        user: &UserId,
        now: Timestamp,
        obtain: impl FnOnce() -> F,
    ) -> Result<AccessToken, Failure>
    where
        F: Future<Output = Result<AccessToken, Failure>>,
    {
        let entry = self.entry(user, now);
        let attempts_seen = entry.attempts_ended.load(Ordering::Acquire);
        let mut slot = entry.slot.lock().await;
        if let Some(token) = slot.token.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.clone());
        }
        if let Some((_, failure)) = slot
            .failed
            .as_ref()
            .filter(|(attempt, _)| *attempt > attempts_seen)
        {
            return Err(failure.clone());
        }
        let result = obtain().await;
        let attempt = entry.attempts_ended.fetch_add(1, Ordering::AcqRel) + 1;
        let old = slot.token.take().filter(|old| now < old.expires_at);
        let token = match (result, old) {
            (Ok(token), _) => token,
            (Err(failure), Some(old)) if may_pass(&failure.kind) => AccessToken {
                renew_at: now.plus_ms(RENEWAL_PAUSE_MS),
                ..old
            },
            (Err(failure), _) => {
                slot.failed = Some((attempt, failure.clone()));
                return Err(failure);
            }
        };
        let expires_at_ms = token.expires_at.as_ms();
        entry.expires_at_ms.store(expires_at_ms, Ordering::Relaxed);
        slot.failed = None;
        slot.token = Some(token.clone());
        Ok(token)
    }

    /// Forgets `token` of `user`, if it was not replaced since.
    pub(super) async fn forget(&self, user: &UserId, token: &AccessToken) {
        let entry = self.entries().get(user).cloned();
        if let Some(entry) = entry {
            let mut slot = entry.slot.lock().await;
            let same = |kept: &AccessToken| Arc::ptr_eq(&kept.secret, &token.secret);
            if slot.token.as_ref().is_some_and(same) {
                slot.token = None;
            }
        }
    }

    /// Forgets all about `user`.
    pub(super) fn forget_user(&self, user: &UserId) {
        self.entries().remove(user);
    }

    fn entry(&self, user: &UserId, now: Timestamp) -> Arc<Entry> {
        let mut entries = self.entries();
        if !entries.contains_key(user) && entries.len() >= self.tokens_max {
            make_room(&mut entries, self.tokens_max, now);
        }
        let entry = entries.entry(user.clone()).or_default();
        entry.used_at_ms.store(now.as_ms(), Ordering::Relaxed);
        Arc::clone(entry)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<UserId, Arc<Entry>>> {
        // No panic can leave the map half changed, so a poisoned lock is as good as any.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the same request for a token may succeed in a while, with nobody doing anything.
fn may_pass(kind: &FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Transient { .. } | FailureKind::Limited { .. }
    )
}

fn make_room(entries: &mut BTreeMap<UserId, Arc<Entry>>, tokens_max: usize, now: Timestamp) {
    let is_held = |entry: &Arc<Entry>| Arc::strong_count(entry) > 1;
    entries.retain(|_, entry| {
        is_held(entry) || entry.expires_at_ms.load(Ordering::Relaxed) > now.as_ms()
    });
    let kept_max = tokens_max - tokens_max.div_ceil(EVICTED_PART);
    if entries.len() <= kept_max {
        return;
    }
    let mut by_use: Vec<(i64, UserId)> = entries
        .iter()
        .filter(|(_, entry)| !is_held(entry))
        .map(|(user, entry)| (entry.used_at_ms.load(Ordering::Relaxed), user.clone()))
        .collect();
    by_use.sort_unstable();
    for (_, user) in by_use.iter().take(entries.len() - kept_max) {
        entries.remove(user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    /// Asks for the token of `name` at `now_ms`; `Some(text)` is what the endpoint would give, for 1,000 ms.
    async fn ask(
        cache: &TokenCache,
        name: &str,
        now_ms: i64,
        gives: Option<&str>,
    ) -> Result<String, Failure> {
        let obtain = || async move {
            let text = gives.ok_or_else(|| Failure::transient("down"))?;
            Ok(AccessToken::new(Secret::new(text), at(now_ms), 1_000))
        };
        let token = cache.get(&user(name), at(now_ms), obtain).await?;
        Ok(token.secret().expose().to_owned())
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_80_percent_of_its_life() {
        let cache = TokenCache::new(8);
        assert_eq!(ask(&cache, "ada", 0, Some("one")).await.unwrap(), "one");
        assert_eq!(ask(&cache, "ada", 799, Some("two")).await.unwrap(), "one");
        assert_eq!(ask(&cache, "ada", 800, Some("two")).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn a_renewal_that_fails_for_the_moment_leaves_the_old_token() {
        let cache = TokenCache::new(8);
        ask(&cache, "ada", 0, Some("one")).await.unwrap();
        assert_eq!(ask(&cache, "ada", 900, None).await.unwrap(), "one");
        // The endpoint is left alone for a while…
        assert_eq!(ask(&cache, "ada", 950, Some("two")).await.unwrap(), "one");
        // …and a token that has expired is never used, whatever the endpoint says.
        let cache = TokenCache::new(8);
        ask(&cache, "ada", 0, Some("one")).await.unwrap();
        assert!(ask(&cache, "ada", 1_000, None).await.is_err());
        assert_eq!(ask(&cache, "ada", 1_001, Some("two")).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn a_revoked_grant_ends_the_old_token_too() {
        let cache = TokenCache::new(8);
        ask(&cache, "ada", 0, Some("one")).await.unwrap();
        let revoked = || async { Err(Failure::new(FailureKind::Unauthorized, "revoked")) };
        let result = cache.get(&user("ada"), at(850), revoked).await;
        assert_eq!(result.unwrap_err().kind, FailureKind::Unauthorized);
        assert!(ask(&cache, "ada", 851, None).await.is_err());
    }

    #[tokio::test]
    async fn a_token_that_was_replaced_is_not_forgotten_again() {
        let cache = TokenCache::new(8);
        ask(&cache, "ada", 0, Some("one")).await.unwrap();
        let never = || async { unreachable!("the token is good") };
        let old = cache.get(&user("ada"), at(1), never).await.unwrap();
        cache.forget(&user("ada"), &old).await;
        assert_eq!(ask(&cache, "ada", 2, Some("two")).await.unwrap(), "two");
        cache.forget(&user("ada"), &old).await;
        assert_eq!(ask(&cache, "ada", 3, Some("three")).await.unwrap(), "two");
        cache.forget_user(&user("ada"));
        assert_eq!(ask(&cache, "ada", 4, Some("four")).await.unwrap(), "four");
    }

    #[tokio::test]
    async fn the_cache_is_bounded_and_keeps_what_is_in_use() {
        let cache = TokenCache::new(8);
        for index in 0..8 {
            ask(&cache, &format!("user{index}"), index, Some("old"))
                .await
                .unwrap();
        }
        // user0 is used again, so user1 is now the one that was not used for longest.
        ask(&cache, "user0", 10, Some("new")).await.unwrap();
        ask(&cache, "another", 11, Some("old")).await.unwrap();
        assert_eq!(cache.entries().len(), 8);
        assert_eq!(ask(&cache, "user0", 12, Some("new")).await.unwrap(), "old");
        assert!(!cache.entries().contains_key(&user("user1")));

        // Expired tokens go first, all of them.
        ask(&cache, "late", 5_000, Some("new")).await.unwrap();
        assert_eq!(cache.entries().len(), 1);
        for index in 0..500 {
            ask(&cache, &format!("many{index}"), 5_001, Some("t"))
                .await
                .unwrap();
            assert!(cache.entries().len() <= 8);
        }
    }

    #[tokio::test]
    async fn a_token_that_is_being_fetched_is_fetched_once_however_full_the_cache_is() {
        let cache = TokenCache::new(2);
        let fetched = AtomicU64::new(0);
        let (go, gone) = tokio::sync::watch::channel(false);
        let slow = || async {
            fetched.fetch_add(1, Ordering::Relaxed);
            gone.clone().changed().await.unwrap();
            Ok(AccessToken::new(Secret::new("slow"), at(1), 1_000))
        };
        let ada = user("ada");
        let first = cache.get(&ada, at(1), slow);
        let crowd = async {
            for index in 0..20 {
                ask(&cache, &format!("user{index}"), 2 + index, Some("t"))
                    .await
                    .unwrap();
            }
            let second = ask(&cache, "ada", 50, Some("asked for twice"));
            let (second, ()) = tokio::join!(second, async {
                go.send_replace(true);
            });
            assert_eq!(second.unwrap(), "slow");
        };
        let (first, ()) = tokio::join!(first, crowd);
        assert!(first.is_ok());
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
        assert!(cache.entries().len() <= 3);
    }
}
