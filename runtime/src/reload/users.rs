//! What differs between lists of users, and how that comes into the queue of a node at work.
//!
//! Whoever leaves the configuration is forgotten, unless the register holds an account: then the register's follower takes the
//! user over. Only what differs is said, so that in a fleet whose lists differ a process undoes nothing but its own.

use std::collections::BTreeMap;

use kalends_core::id::UserId;
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::BATCH_MAX;
use kalends_core::rng::substream;

use crate::accounts::Register;
use crate::accounts::carry::{self, Layout};
use crate::config::{Config, UserConfig};
use crate::wiring;

/// What is new in a list of users.
pub(super) struct Difference<'a> {
    added: Vec<&'a UserConfig>,
    /// With another grant or another graph database.
    changed: Vec<&'a UserConfig>,
    removed: Vec<&'a UserConfig>,
}

/// How many users a difference is about.
pub(super) struct Counts {
    pub(super) added: usize,
    pub(super) changed: usize,
    pub(super) removed: usize,
}

impl<'a> Difference<'a> {
    /// What differs from any of `lists`, where it is not known which of them the queue has.
    pub(super) fn between(lists: &[&'a [UserConfig]], new: &'a [UserConfig]) -> Self {
        let by_name = |users: &'a [UserConfig]| -> BTreeMap<&'a UserId, &'a UserConfig> {
            users.iter().map(|user| (&user.id, user)).collect()
        };
        let before: Vec<_> = lists.iter().map(|users| by_name(users)).collect();
        let after = by_name(new);
        let mut difference = Difference {
            added: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
        };
        for user in new {
            let known = before.iter().map(|users| users.get(&user.id).copied());
            if known.clone().any(|known| known.is_none()) {
                difference.added.push(user);
            } else if known.flatten().any(|known| known != user) {
                difference.changed.push(user);
            }
        }
        let all: BTreeMap<_, _> = before.into_iter().flatten().collect();
        let gone = all.into_iter().filter(|(id, _)| !after.contains_key(id));
        difference.removed.extend(gone.map(|(_, user)| user));
        difference
    }

    /// Says it to the queue, and has everybody who looks a user up find those of `config`. May be done again.
    ///
    /// # Errors
    /// If the store or the register does not answer.
    pub(super) async fn carry(
        &self,
        store: &dyn Store,
        register: &Register,
        config: &Config,
    ) -> Result<Counts, StoreUnavailable> {
        let counts = Counts {
            added: self.added.len(),
            changed: self.changed.len(),
            removed: self.removed.len(),
        };
        if self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty() {
            return Ok(counts);
        }
        // A new user's grant must be there before the first sync, and a removed one's for as long as a sync may begin.
        let all = config.users.iter().chain(self.removed.iter().copied());
        register.configured().set(all);
        let seed = config.worker.seed.unwrap_or_else(wiring::fresh_seed);
        let mut rng = substream(seed, "reload");
        let wanted: Vec<&UserConfig> = self.added.iter().chain(&self.changed).copied().collect();
        let mut layout = Layout::of(wanted.len() as u64);
        for users in wanted.chunks(BATCH_MAX) {
            let users = users.iter();
            let users = users.map(|user| (user.id.clone(), Some(wiring::grant(config, user))));
            let (schedule, users) = (&config.schedule, users.collect());
            carry::enroll(store, schedule, &mut rng, &mut layout, users).await?;
        }
        let source = &config.schedule.definition.source;
        for users in self.removed.chunks(BATCH_MAX) {
            let mut gone = Vec::with_capacity(users.len());
            for user in users {
                if register.accounts().find(&user.id).await?.is_none() {
                    gone.push(user.id.clone());
                }
            }
            if !gone.is_empty() {
                let (_, count) = carry::forget(store, source, gone).await?;
                tracing::info!(users = count, "no longer configured: not synced any more");
            }
        }
        register.configured().set(&config.users);
        Ok(counts)
    }
}
