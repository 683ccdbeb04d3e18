//! The queue in Redis: one queue for many processes and machines.

mod check;
mod failure;
mod link;
mod settings;
mod wake;

use async_trait::async_trait;
use kalends_core::port::{Store, StoreUnavailable};
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::time::Timestamp;

pub use settings::RedisSettings;

/// Why the settings cannot be used, whatever the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress(pub String);

impl std::fmt::Display for BadAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BadAddress {}

/// Why a server cannot be used just now, or as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It does not answer, is loading its data, or is a replica without a master: it may come.
    Away {
        /// What happened, without secrets.
        detail: String,
    },
    /// It answers, but must not be used as it is (it may evict keys, the password is wrong, the data are of another
    /// format): an operator must act.
    Refused {
        /// What is wrong and which setting cures it, without secrets.
        detail: String,
    },
}

/// The queue in Redis. Cheap to make: it connects when it is first asked, and again whenever the connection was lost.
#[derive(Debug)]
pub struct RedisStore {
    #[expect(dead_code, reason = "the link comes with the next commit")]
    settings: RedisSettings,
}

impl RedisStore {
    /// A store at this address. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address or the prefix cannot be understood.
    pub fn new(settings: RedisSettings) -> Result<Self, BadAddress> {
        Ok(RedisStore { settings })
    }

    /// Connects and looks whether the server may be used: its role, its memory policy, the format of what is there.
    ///
    /// # Errors
    /// [`Unusable::Away`] if it may come later by itself, [`Unusable::Refused`] if an operator must act.
    pub async fn check(&self) -> Result<(), Unusable> {
        Err(Unusable::Away {
            detail: "not built yet".to_owned(),
        })
    }

    /// Applies `command` as if the server's clock said `now`; `None`: what it says (Redis `TIME`). For tests.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn apply_at(
        &self,
        _now: Option<Timestamp>,
        _command: Command,
    ) -> Result<Stamped<Reply>, StoreUnavailable> {
        Err(StoreUnavailable {
            detail: "not built yet".to_owned(),
        })
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn apply(&self, command: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        self.apply_at(None, command).await
    }

    async fn wait_for_wake(&self) {
        std::future::pending().await
    }
}
