//! `kalends users`: adds, connects, lists and removes users, while processes run or not.
//!
//! Only the register is written (see [`accounts`](crate::accounts)); running processes carry it into the queue. The one
//! exception is a removal, which nobody should have to wait for: if no process has the embedded store, or the queue is in
//! Redis, this command takes the user out of the queue itself.

mod connect;
mod import;
mod list;
mod loopback;
mod remove;

pub(crate) use remove::is_in_use;

use std::collections::BTreeMap;
use std::io::Read as _;

use kalends_adapters::accounts::{Account, Expected, Grant, Stored};
use kalends_adapters::seal::Purpose;
use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;
use kalends_core::port::StoreUnavailable;
use kalends_core::time::{Clock as _, Timestamp};

use crate::accounts::Register;
use crate::cli::users::{AddArgs, ResealArgs, UsersCommand};
use crate::clock::SystemClock;
use crate::config::{Config, GoogleAuth};
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::{self, Refused};

/// The longest refresh token that is taken, in bytes. Google's have at most 512.
const TOKEN_BYTES_MAX: usize = 4_096;
/// How often a change is tried again because somebody else changed the account in between.
const TRIES_MAX: u32 = 5;

/// Does it.
///
/// # Errors
/// If something is wrong with what the command was given, or the register cannot be used.
pub async fn users(
    command: &UsersCommand,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    match command {
        UsersCommand::Add(args) => add(args, environment).await,
        UsersCommand::Connect(args) => connect::connect(args, environment).await,
        UsersCommand::List(args) => list::list(args, environment).await,
        UsersCommand::Show(args) => list::show(args, environment).await,
        UsersCommand::Import(args) => import::import(args, environment).await,
        UsersCommand::Remove(args) => remove::remove(args, environment).await,
        UsersCommand::Reseal(args) => reseal(args, environment).await,
    }
}

/// What every one of these commands begins with.
struct Desk {
    config: Config,
    register: Register,
}

impl Desk {
    fn open(
        args: &crate::cli::ConfigArgs,
        environment: &BTreeMap<String, String>,
    ) -> Result<Desk, Refused> {
        let config = args.load(environment)?;
        let register = Register::open(&config)?;
        Ok(Desk { config, register })
    }

    /// A user who is not one of the configuration's.
    fn own_user(&self, text: &str) -> Result<UserId, Refused> {
        let user = user_id(text)?;
        if self.config.users.iter().any(|known| known.id == user) {
            return Err(Refused::bad_input(format!(
                "{user} is a user of the configuration; change that, or take the user out of it first"
            )));
        }
        Ok(user)
    }

    async fn find(&self, user: &UserId) -> Result<Option<Stored>, Refused> {
        let found = self.register.accounts().find(user).await;
        found.map_err(unavailable)
    }

    async fn put(&self, account: Account, expected: Expected) -> Result<bool, Refused> {
        let put = self.register.accounts().put(account, expected).await;
        put.map_err(unavailable)
    }

    /// Seals a token.
    fn grant(&self, user: &UserId, token: &Secret, given: Given) -> Result<Grant, Refused> {
        let sealed = self
            .register
            .keys()?
            .seal(Purpose::GoogleRefreshToken, user, token);
        let now = SystemClock.now();
        Ok(Grant {
            sealed,
            fingerprint: wiring::grant_of_token(token, given.is_consent.then_some(now)),
            scopes: given.scopes,
            account: given.account,
            connected_at: now,
        })
    }

    /// Gives a user this grant, and adds the user if need be; whether the user is new.
    async fn connected(&self, user: &UserId, grant: Grant) -> Result<bool, Refused> {
        for _ in 0..TRIES_MAX {
            let found = self.find(user).await?;
            let is_new = found.is_none();
            let expected = found.as_ref().map_or(Expected::Absent, |stored| {
                Expected::Revision(stored.revision)
            });
            let account = match found {
                Some(stored) => stored.account,
                None => new_account(user.clone(), SystemClock.now()),
            };
            let account = Account {
                grant: Some(grant.clone()),
                ..account
            };
            if self.put(account, expected).await? {
                return Ok(is_new);
            }
        }
        Err(busy(user))
    }
}

/// Where a token comes from.
#[derive(Clone, Debug, Default)]
struct Given {
    /// A person has just consented to it.
    is_consent: bool,
    scopes: Vec<String>,
    account: Option<String>,
}

fn new_account(user: UserId, now: Timestamp) -> Account {
    Account {
        user,
        grant: None,
        graph_database: None,
        added_at: now,
    }
}

fn busy(user: &UserId) -> Refused {
    failed(format!(
        "{user} is being changed by others again and again; try again"
    ))
}

fn failed(detail: impl Into<String>) -> Refused {
    Refused {
        exit: Exit::Failed,
        detail: detail.into(),
    }
}

#[allow(clippy::needless_pass_by_value)] // it is made for map_err
fn unavailable(unavailable: StoreUnavailable) -> Refused {
    failed(unavailable.detail)
}

fn user_id(text: &str) -> Result<UserId, Refused> {
    UserId::new(text).map_err(|error| Refused::bad_input(format!("the user's name {error}")))
}

/// A token as it was given, or what is wrong with it, without a letter of it.
fn token(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the refresh token is empty".to_owned());
    }
    if text.len() > TOKEN_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the refresh token is no token: at most {TOKEN_BYTES_MAX} letters, digits and signs, without blanks"
        ));
    }
    Ok(Secret::new(text))
}

fn uses_refresh_tokens(config: &Config) -> bool {
    matches!(config.google.auth, GoogleAuth::RefreshToken { .. })
}

async fn add(args: &AddArgs, environment: &BTreeMap<String, String>) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let user = desk.own_user(&args.user)?;
    let mut account = new_account(user.clone(), SystemClock.now());
    if let Some(name) = &args.graph_database {
        let name = crate::config::database_name(name)
            .map_err(|message| Refused::bad_input(format!("--graph-database: {message}")))?;
        account.graph_database = Some(name);
    }
    if let Some(path) = &args.refresh_token_file {
        let mut text = String::new();
        let limit = u64::try_from(TOKEN_BYTES_MAX + 2).expect("it is small");
        let read = if path.as_os_str() == "-" {
            std::io::stdin().take(limit).read_to_string(&mut text)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
        };
        read.map_err(|error| {
            Refused::bad_input(format!("--refresh-token-file: {}: {error}", path.display()))
        })?;
        let token = token(&text).map_err(Refused::bad_input)?;
        // Which scopes it has is not known; Google says so when it is asked.
        let given = Given::default();
        account.grant = Some(desk.grant(&user, &token, given)?);
    }
    let is_connected = account.grant.is_some();
    if !desk.put(account, Expected::Absent).await? {
        return Err(Refused::bad_input(format!(
            "{user} is there already; `kalends users show {user}` tells more"
        )));
    }
    if is_connected || !uses_refresh_tokens(&desk.config) {
        say(&format!("{user} added\n"));
    } else {
        say(&format!(
            "{user} added, not connected yet: `kalends users connect {user}`\n"
        ));
    }
    Ok(Exit::Done)
}

async fn reseal(
    args: &ResealArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let keys = desk.register.keys()?;
    let (mut sealed_anew, mut left, mut failures) = (0_u64, 0_u64, 0_u64);
    for stored in desk.register.all().await.map_err(unavailable)? {
        let user = stored.account.user.clone();
        let Some(grant) = stored.account.grant.clone() else {
            continue;
        };
        if keys.is_current(&grant.sealed) {
            left += 1;
            continue;
        }
        match keys.open(Purpose::GoogleRefreshToken, &user, &grant.sealed) {
            Ok(token) => {
                let sealed = keys.seal(Purpose::GoogleRefreshToken, &user, &token);
                let account = Account {
                    grant: Some(Grant { sealed, ..grant }),
                    ..stored.account
                };
                let expected = Expected::Revision(stored.revision);
                if desk.put(account, expected).await? {
                    sealed_anew += 1;
                } else {
                    failures += 1;
                    say(&format!(
                        "{user}: was changed meanwhile; run this command again\n"
                    ));
                }
            }
            Err(error) => {
                failures += 1;
                say(&format!("{user}: {error}\n"));
            }
        }
    }
    say(&format!(
        "{sealed_anew} sealed by the key {}, {left} were already, {failures} could not be\n",
        keys.ids()[0]
    ));
    Ok(if failures == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}
