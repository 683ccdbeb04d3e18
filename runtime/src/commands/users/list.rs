//! `kalends users list` and `show`: configuration, register and queue side by side, without a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use kalends_adapters::accounts::Account;
use kalends_core::id::{SourceName, UserId};
use kalends_core::queue::command::{BATCH_MAX, Command, ParkReason, Reply};
use kalends_core::queue::state::UserState;
use kalends_core::time::Timestamp;
use serde_json::{Value, json};

use super::{Desk, failed, unavailable, user_id, uses_refresh_tokens};
use crate::cli::users::{ListArgs, ShowArgs};
use crate::clock::SystemClock;
use crate::exit::Exit;
use crate::say::say;
use crate::spans::UserNames;
use crate::wiring::{Queue, Refused};

/// One user, as far as each place knows.
struct Row {
    user: UserId,
    is_configured: bool,
    account: Option<Account>,
    state: Option<UserState>,
    /// Whether a grant of the user's own is wanted.
    needs_grant: bool,
}

impl Row {
    fn is_connected(&self) -> bool {
        let has_grant = self
            .account
            .as_ref()
            .is_some_and(|account| account.grant.is_some());
        self.is_configured || has_grant || !self.needs_grant
    }

    fn needs_reauth(&self) -> bool {
        let parked = self.state.as_ref().and_then(|state| state.parked);
        parked == Some(ParkReason::NeedsReauth) || !self.is_connected()
    }

    fn condition(&self) -> &'static str {
        let parked = self.state.as_ref().and_then(|state| state.parked);
        match (parked, &self.state) {
            _ if !self.is_connected() => "not connected",
            (Some(ParkReason::NeedsReauth), _) => "needs reauth",
            (Some(ParkReason::Operator), _) => "parked",
            (None, None) => "not enrolled yet",
            (None, Some(state)) if state.last_success_at.is_none() => "never synced",
            (None, Some(_)) => "ok",
        }
    }

    fn json(&self) -> Value {
        let time = |at: Option<Timestamp>| at.map(Timestamp::to_rfc3339);
        let state = self.state.as_ref();
        let grant = self
            .account
            .as_ref()
            .and_then(|account| account.grant.as_ref());
        json!({
            "user": self.user,
            "from": if self.is_configured { "configuration" } else { "added" },
            "added_at": self.account.as_ref().map(|account| account.added_at.to_rfc3339()),
            "graph_database": self.account.as_ref().and_then(|account| account.graph_database.clone()),
            "connected": self.is_connected(),
            "connected_at": grant.map(|grant| grant.connected_at.to_rfc3339()),
            "scopes": grant.map(|grant| &grant.scopes),
            "account": grant.and_then(|grant| grant.account.clone()),
            "key": grant.and_then(|grant| grant.sealed.key_id()),
            "condition": self.condition(),
            "needs_reauth": self.needs_reauth(),
            "enrolled_at": time(state.map(|state| state.enrolled_at)),
            "due_at": time(state.map(|state| state.due_at)),
            "last_started_at": time(state.and_then(|state| state.last_started_at)),
            "last_success_at": time(state.and_then(|state| state.last_success_at)),
            "last_outcome": state.and_then(|state| state.last_outcome.clone()),
            "last_error": state.and_then(|state| state.last_error.clone()),
        })
    }
}

pub(super) async fn list(
    args: &ListArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let mut rows: BTreeMap<UserId, Row> = BTreeMap::new();
    let needs_grant = uses_refresh_tokens(&desk.config);
    let row = |user: &UserId| Row {
        user: user.clone(),
        is_configured: false,
        account: None,
        state: None,
        needs_grant,
    };
    for user in &desk.config.users {
        rows.entry(user.id.clone())
            .or_insert_with(|| row(&user.id))
            .is_configured = true;
    }
    for stored in desk.register.all().await.map_err(unavailable)? {
        let user = stored.account.user.clone();
        rows.entry(user.clone())
            .or_insert_with(|| row(&user))
            .account = Some(stored.account);
    }
    for (user, state) in states(&desk).await? {
        // Whoever is only in the queue is about to be forgotten, or belongs to another process's configuration.
        rows.entry(user.clone()).or_insert_with(|| row(&user)).state = Some(state);
    }
    let shown = rows
        .values()
        .filter(|row| !args.needs_reauth || row.needs_reauth());
    if args.json {
        let users: Vec<Value> = shown.map(Row::json).collect();
        say(&format!("{}\n", json!({ "users": users })));
        return Ok(Exit::Done);
    }
    let shown: Vec<&Row> = shown.collect();
    let width = shown
        .iter()
        .map(|row| row.user.as_str().chars().count())
        .max();
    let width = width.unwrap_or_default().max(4);
    let mut table = format!(
        "{:width$}  FROM           CONDITION         LAST SUCCESS\n",
        "USER"
    );
    for row in &shown {
        let from = if row.is_configured {
            "configuration"
        } else {
            "added"
        };
        let state = row.state.as_ref();
        let last = state.and_then(|state| state.last_success_at);
        let last = last.map_or_else(|| "-".to_owned(), Timestamp::to_rfc3339);
        let user = row.user.as_str();
        let condition = row.condition();
        table.push_str(&format!(
            "{user:width$}  {from:13}  {condition:16}  {last}\n"
        ));
    }
    table.push_str(&format!("{} users\n", shown.len()));
    say(&table);
    Ok(Exit::Done)
}

pub(super) async fn show(
    args: &ShowArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let user = user_id(&args.user)?;
    let found = desk.find(&user).await?;
    let row = Row {
        is_configured: desk.config.users.iter().any(|known| known.id == user),
        account: found.map(|stored| stored.account),
        state: state(&desk, &user).await?,
        needs_grant: uses_refresh_tokens(&desk.config),
        user,
    };
    if !row.is_configured && row.account.is_none() && row.state.is_none() {
        return Err(Refused::bad_input(format!(
            "{}: there is no such user; `kalends users list` shows all",
            row.user
        )));
    }
    let mut body = row.json();
    // Without keys each process names users its own way.
    let names = desk.register.keys().ok().map(UserNames::of);
    body["name_in_traces"] = json!(names.map(|names| names.of_user(&row.user)));
    if args.json {
        say(&format!("{body}\n"));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    let Value::Object(fields) = body else {
        panic!("it was made as an object");
    };
    for (name, value) in fields {
        let shown = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        text.push_str(&format!("{name:16} {shown}\n"));
    }
    if row.needs_reauth() {
        text.push_str(&format!(
            "\n`kalends users connect {}` connects this user.\n",
            row.user
        ));
    }
    say(&text);
    Ok(Exit::Done)
}

/// The queue for looking on; `None` if there is none yet.
fn reader(desk: &Desk) -> Result<Option<Arc<dyn kalends_core::port::Store>>, Refused> {
    let config = &desk.config;
    let file = config
        .store
        .data_dir
        .join(kalends_adapters::embedded::FILE_NAME);
    if config.redis.is_none() && !file.exists() {
        return Ok(None);
    }
    Queue::open_read_only(config, Arc::new(SystemClock)).map(Some)
}

async fn states(desk: &Desk) -> Result<Vec<(UserId, UserState)>, Refused> {
    let mut all: Vec<(UserId, UserState)> = Vec::new();
    let Some(reader) = reader(desk)? else {
        return Ok(all);
    };
    loop {
        let command = Command::Users {
            source: SourceName::google_calendar(),
            after: all.last().map(|(user, _)| user.clone()),
            limit: u32::try_from(BATCH_MAX).expect("a batch is small"),
        };
        match reader.apply(command).await.map_err(unavailable)?.value {
            Reply::Users { users } if users.is_empty() => return Ok(all),
            Reply::Users { users } => all.extend(users),
            Reply::Refused { refusal } => return Err(failed(refusal.to_string())),
            other => panic!("users were asked for, not {other:?}"),
        }
    }
}

async fn state(desk: &Desk, user: &UserId) -> Result<Option<UserState>, Refused> {
    let Some(reader) = reader(desk)? else {
        return Ok(None);
    };
    let command = Command::User {
        source: SourceName::google_calendar(),
        user: user.clone(),
    };
    match reader.apply(command).await.map_err(unavailable)?.value {
        Reply::User { state } => Ok(state),
        Reply::Refused { refusal } => Err(failed(refusal.to_string())),
        other => panic!("a user was asked for, not {other:?}"),
    }
}
