//! The users of the configuration, as it was read last: shared by all who look a user up, changed as a whole by a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;

use crate::config::UserConfig;

#[derive(Default)]
struct State {
    users: BTreeMap<UserId, UserConfig>,
    revision: u64,
}

/// Who stands in the configuration now. A copy is the same list.
#[derive(Clone, Default)]
pub struct Configured(Arc<RwLock<State>>);

impl Configured {
    /// These users.
    #[must_use]
    pub fn new(users: &[UserConfig]) -> Self {
        let configured = Configured::default();
        configured.set(users);
        configured
    }

    /// These from now on, and nobody else.
    pub fn set<'a>(&self, users: impl IntoIterator<Item = &'a UserConfig>) {
        let users = users.into_iter().cloned();
        let users = users.map(|user| (user.id.clone(), user)).collect();
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.users = users;
        state.revision += 1;
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Grows with each [`set`](Configured::set).
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.look(|state| state.revision)
    }

    /// Whether `user` is one of them.
    #[must_use]
    pub fn holds(&self, user: &UserId) -> bool {
        self.look(|state| state.users.contains_key(user))
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.look(|state| state.users.len())
    }

    /// All of them.
    #[must_use]
    pub fn users(&self) -> Vec<UserConfig> {
        self.look(|state| state.users.values().cloned().collect())
    }

    /// All their names.
    #[must_use]
    pub fn names(&self) -> BTreeSet<UserId> {
        self.look(|state| state.users.keys().cloned().collect())
    }

    /// The grant that the configuration holds of `user`.
    #[must_use]
    pub fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        self.look(|state| state.users.get(user)?.refresh_token.clone())
    }

    /// The graph database that the configuration names for `user`.
    #[must_use]
    pub fn graph_database(&self, user: &UserId) -> Option<String> {
        self.look(|state| state.users.get(user)?.graph_database.clone())
    }
}
