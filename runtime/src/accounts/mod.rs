//! Users who were added by command, beside those of the configuration: their grants, and how a running process hears of
//! them.
//!
//! The configuration's users are the configuration's: whoever stands in both is synced by what the file says. Of all
//! others the register knows (`kalends_adapters::accounts`); [`follow`] carries its changes into the queue, so nobody has to
//! start anything again, and [`Tokens`] opens a grant when Google is to be asked, and not before.

pub(crate) mod carry;
mod configured;
mod follow;
mod purge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use kalends_adapters::accounts::{
    Account, Accounts, AccountsFile, PAGE_MAX, RedisAccounts, Stored,
};
use kalends_adapters::google::RefreshTokens;
use kalends_adapters::neo4j::UserDatabases;
use kalends_adapters::seal::{Keys, NotOpened, Purpose, Sealed};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::id::UserId;
use kalends_core::port::StoreUnavailable;

use crate::config::Config;
use crate::wiring::Refused;

pub(crate) use carry::{forget, store_time};
pub use configured::Configured;
pub(crate) use follow::linger_ms;
pub use follow::{Follow, LOOK_MS, follow};
pub use purge::purge;

/// What is said where a key is wanted and none is there.
pub const NO_KEYS: &str = "there is no key to seal or open credentials with: put what `openssl rand -hex 32` prints into a file that only \
     you can read, and write keys_file = \"FILE\" into [credentials], or set KALENDS_CREDENTIALS_KEYS";

/// The register, with the keys to the grants in it.
#[derive(Clone)]
pub struct Register {
    accounts: Arc<dyn Accounts>,
    keys: Option<Arc<Keys>>,
    databases: Arc<RwLock<BTreeMap<UserId, String>>>,
    configured: Configured,
}

impl std::fmt::Debug for Register {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Register")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Register {
    /// The register that belongs to the configured store. Nothing is opened, made or asked yet.
    ///
    /// # Errors
    /// If the address of the Redis cannot be used.
    pub fn open(config: &Config) -> Result<Register, Refused> {
        let accounts: Arc<dyn Accounts> = match &config.redis {
            Some(redis) => Arc::new(
                RedisAccounts::new(&redis.settings())
                    .map_err(|bad| Refused::bad_input(format!("redis.url: {bad}")))?,
            ),
            None => Arc::new(AccountsFile::new(&config.store.data_dir)),
        };
        let keys = config.credentials.keys.as_ref().map(|text| {
            let keys = Keys::parse(text).expect("the configuration has read them once");
            Arc::new(keys)
        });
        Ok(Register {
            accounts,
            keys,
            databases: Arc::default(),
            configured: Configured::new(&config.users),
        })
    }

    /// The accounts themselves.
    #[must_use]
    pub fn accounts(&self) -> &dyn Accounts {
        &*self.accounts
    }

    /// The users of the configuration: whoever is among them is none of the register's, whether or not it holds an account.
    #[must_use]
    pub fn configured(&self) -> &Configured {
        &self.configured
    }

    /// The keys.
    ///
    /// # Errors
    /// If none are configured.
    pub fn keys(&self) -> Result<&Keys, Refused> {
        let keys = self.keys.as_deref();
        keys.ok_or_else(|| Refused::bad_input(NO_KEYS))
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// If the register cannot be read.
    pub async fn all(&self) -> Result<Vec<Stored>, StoreUnavailable> {
        let mut all: Vec<Stored> = Vec::new();
        loop {
            let after = all.last().map(|stored| &stored.account.user);
            let page = self.accounts.page(after, PAGE_MAX).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The names of all accounts.
    ///
    /// # Errors
    /// If the register cannot be read.
    pub async fn names(&self) -> Result<BTreeSet<UserId>, StoreUnavailable> {
        let all = self.all().await?;
        Ok(all.into_iter().map(|stored| stored.account.user).collect())
    }

    /// Opens a grant.
    ///
    /// # Errors
    /// If there are no keys, or it does not open. Nobody else is concerned, so it is no [`FailureKind::Misconfigured`].
    pub fn open_grant(&self, user: &UserId, sealed: &Sealed) -> Result<Secret, Failure> {
        let Some(keys) = &self.keys else {
            return Err(Failure::permanent(NO_KEYS));
        };
        let opened = keys.open(Purpose::GoogleRefreshToken, user, sealed);
        opened.map_err(|error| {
            let kind = match &error {
                // The key may be given back.
                NotOpened::UnknownKey(_) => FailureKind::Permanent,
                NotOpened::Forged => FailureKind::Unauthorized,
            };
            Failure::new(kind, error.to_string())
        })
    }

    fn remember_database(&self, account: &Account) {
        let mut databases = self
            .databases
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match &account.graph_database {
            Some(database) => databases.insert(account.user.clone(), database.clone()),
            None => databases.remove(&account.user),
        };
    }

    fn forget_database(&self, user: &UserId) {
        let mut databases = self
            .databases
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        databases.remove(user);
    }
}

/// The refresh tokens of all users: those of the configuration, then those of the register.
pub struct Tokens(Register);

impl Tokens {
    /// The tokens of this register, and of the configuration's users that it knows.
    #[must_use]
    pub fn new(register: Register) -> Tokens {
        Tokens(register)
    }
}

#[async_trait]
impl RefreshTokens for Tokens {
    fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        self.0.configured.refresh_token(user)
    }

    async fn find_refresh_token(&self, user: &UserId) -> Result<Option<Secret>, Failure> {
        if let Some(token) = self.refresh_token(user) {
            return Ok(Some(token));
        }
        let found = self.0.accounts.find(user).await;
        let found = found.map_err(|unavailable| Failure::transient(unavailable.detail))?;
        let Some(stored) = found else {
            // In a fleet somebody else's configuration may name the user already, or still: that is no reason to park anybody.
            return Err(Failure::transient(
                "this process knows no such user; give all processes the same configuration, and reload or restart them",
            ));
        };
        match stored.account.grant {
            Some(grant) => self.0.open_grant(user, &grant.sealed).map(Some),
            None => Ok(None),
        }
    }
}

/// The graph databases of all users: those of the configuration, then those of the register as far as it was followed
/// or [`Register::load_databases`] was called.
pub struct GraphDatabasesOf(Register);

impl GraphDatabasesOf {
    /// The databases of this register's users, and of the configuration's users that it knows.
    #[must_use]
    pub fn new(register: Register) -> GraphDatabasesOf {
        GraphDatabasesOf(register)
    }
}

impl UserDatabases for GraphDatabasesOf {
    fn database_of(&self, user: &UserId) -> Option<String> {
        self.0.configured.graph_database(user).or_else(|| {
            let databases = self.0.databases.read();
            let databases = databases.unwrap_or_else(PoisonError::into_inner);
            databases.get(user).cloned()
        })
    }
}

impl Register {
    /// Reads one account's graph database, for a process that does not follow the register.
    ///
    /// # Errors
    /// If the register cannot be read.
    pub async fn load_databases(&self, user: &UserId) -> Result<(), StoreUnavailable> {
        if let Some(stored) = self.accounts.find(user).await? {
            self.remember_database(&stored.account);
        }
        Ok(())
    }
}
