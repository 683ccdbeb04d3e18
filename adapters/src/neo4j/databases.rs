//! Which of the server's databases holds a user's graph.

use std::fmt;
use std::sync::Arc;

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::graph::server_failure::DatabaseLayout;
use kalends_core::id::UserId;

/// Knows each user's database.
pub trait UserDatabases: Send + Sync {
    /// The name of the user's database; `None` if the user has none (yet).
    fn database_of(&self, user: &UserId) -> Option<String>;
}

/// How users are spread over databases.
#[derive(Clone)]
pub enum Databases {
    /// Everybody in one, by name.
    Shared(String),
    /// One for each user who has one.
    PerUser(Arc<dyn UserDatabases>),
}

impl Databases {
    /// What a missing database means.
    pub(super) fn layout(&self) -> DatabaseLayout {
        match self {
            Databases::Shared(_) => DatabaseLayout::Shared,
            Databases::PerUser(_) => DatabaseLayout::PerUser,
        }
    }

    /// The user's database.
    ///
    /// # Errors
    /// [`FailureKind::NotReady`] if the user has none.
    pub(super) fn of(&self, user: &UserId) -> Result<String, Failure> {
        match self {
            Databases::Shared(name) => Ok(name.clone()),
            Databases::PerUser(users) => users.database_of(user).ok_or_else(|| {
                Failure::new(
                    FailureKind::NotReady,
                    "no graph database for this user: skipped",
                )
            }),
        }
    }
}

impl fmt::Debug for Databases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Databases::Shared(name) => write!(formatter, "Shared({name:?})"),
            Databases::PerUser(_) => formatter.write_str("PerUser(..)"),
        }
    }
}
