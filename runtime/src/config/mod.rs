//! Configuration: what `kalends.toml`, the environment and the flags say, checked once and carried as typed values.
//!
//! Three sources, each overruling the one before: the file, variables named `KALENDS_SECTION_KEY`, flags. A value is
//! described in one place only, the table in [`settings`]: its name, bounds, default and help come from there, and so
//! do the variables' names, the example file and `kalends config show`.
//!
//! The way of a value: `load` gathers texts with their origin, `check` makes typed values of them, and every
//! problem found on the way is kept with its place (`locate`), so that a person hears of all of them at once. A
//! [`Config`] therefore holds only values that are within their bounds, and the secrets it needs are there.
//!
//! Nothing here reads the environment: it comes in as an argument.

mod advise;
mod check;
mod load;
mod locate;
pub mod settings;
mod show;
#[cfg(test)]
mod tests;
mod users;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;

use kalends_adapters::redis::RedisSettings;
use kalends_adapters::secret::Secret;
use kalends_core::id::{CalendarId, ScheduleName, UserId};
use kalends_core::policy::{Backoff, Jitter, Limit, ScheduleDefinition, Spread};
use kalends_core::queue::state::SourceSettings;

pub use advise::period_ms_min;
pub(crate) use check::database_name;
pub use load::{FILE_BYTES_MAX, LoadError, Loaded, Request, SECRET_FILE_BYTES_MAX, load};
pub use locate::{Place, Problem, Problems};
pub use show::{Effective, show};
pub use users::USERS_MAX;

/// All that a process needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// When users are synced, and how they are laid over the period.
    pub schedule: ScheduleConfig,
    /// How much may be started and asked for in every sliding window.
    pub limits: LimitsConfig,
    /// How this process works.
    pub worker: WorkerConfig,
    /// How failed attempts are repeated.
    pub retry: Backoff,
    /// How much of the past is kept.
    pub history: HistoryConfig,
    /// How Google is reached.
    pub google: GoogleConfig,
    /// By what the grants of added users are sealed.
    pub credentials: CredentialsConfig,
    /// Who is synced, in the order of the configuration; no two with the same id. Added users are not among them.
    pub users: Vec<UserConfig>,
    /// Where events are written to.
    pub graph: GraphConfig,
    /// Where the queue is kept if not in Redis.
    pub store: StoreConfig,
    /// The Redis that holds the queue; `None`: it is in the embedded store.
    pub redis: Option<RedisConfig>,
    /// What is served over HTTP.
    pub http: HttpConfig,
    /// How Google tells of changes; `None`: it does not, and all is polled.
    pub push: Option<PushConfig>,
    /// What is logged.
    pub log: LogConfig,
    /// The journal for `kalends replay`; `None`: none is written.
    pub record: Option<PathBuf>,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
}

/// Section `[schedule]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// The name under which the schedule is stored.
    pub name: ScheduleName,
    /// Source, cron expression, time zone and catch-up.
    pub definition: ScheduleDefinition,
    /// How far a start may be moved back at random.
    pub jitter: Jitter,
    /// How the users of one tick are laid over the period.
    pub spread: Spread,
}

/// Section `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Job starts in every sliding window; `None`: unlimited.
    pub jobs: Option<Limit>,
    /// Requests to Google by the whole project in every minute; `None`: unlimited.
    pub requests: Option<Limit>,
    /// Requests to Google on behalf of one user in every minute; `None`: unlimited.
    pub requests_per_user: Option<Limit>,
}

/// Section `[worker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How many syncs run at the same time.
    pub concurrency: u32,
    /// How long a lease lasts without a heartbeat, in milliseconds.
    pub lease_ms: u64,
    /// How long running syncs may take to finish after SIGTERM, in milliseconds.
    pub shutdown_ms: u64,
    /// The name of this process in logs and status; the id of one incarnation is made of it and something unique.
    pub name: String,
    /// The seed of all chance in this process; `None`: drawn at start, and logged.
    pub seed: Option<u64>,
}

/// Section `[history]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// How many completed jobs are kept.
    pub completed: u32,
    /// How many failed jobs (dead letters) are kept.
    pub failed: u32,
}

/// Section `[google]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleConfig {
    /// The base address of Calendar API v3, without a slash at the end.
    pub api_base_url: String,
    /// The address at which access tokens are got.
    pub token_url: String,
    /// The page at which users consent.
    pub auth_url: String,
    /// Which calendars of a user are synced.
    pub calendars: CalendarSelection,
    /// Events a page, 1 to 2,500.
    pub page_size: u32,
    /// How far a first sync looks back, in days.
    pub look_back_days: u32,
    /// How long one request may take, in milliseconds.
    pub request_timeout_ms: u64,
    /// How access tokens are got.
    pub auth: GoogleAuth,
}

/// Which calendars of a user are synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalendarSelection {
    /// The user's main calendar.
    Primary,
    /// Every calendar that the user can read.
    All,
    /// These, in this order; not empty, no two the same.
    Listed(Vec<CalendarId>),
}

/// How access tokens are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoogleAuth {
    /// Each user gave consent: [`UserConfig::refresh_token`] is exchanged for access tokens.
    RefreshToken {
        /// The OAuth client's id.
        client_id: String,
        /// The OAuth client's secret.
        client_secret: Secret,
    },
    /// A service account speaks for all users of a Workspace domain (domain-wide delegation). A user's id is the
    /// e-mail address that it speaks for.
    ServiceAccount {
        /// The content of Google's key file: a JSON object with `client_email` and `private_key`.
        key_json: Secret,
    },
}

/// Section `[credentials]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialsConfig {
    /// The keys as text that [`Keys`](kalends_adapters::seal::Keys) has read once; `None`: nothing can be sealed.
    pub keys: Option<Secret>,
}

/// One user: a table `[[users]]`, or a line of `users_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserConfig {
    /// Who it is.
    pub id: UserId,
    /// The user's grant; there whenever [`GoogleAuth::RefreshToken`] is used, `None` with a service account.
    pub refresh_token: Option<Secret>,
    /// The Neo4j database of this user, for `graph.database_per_user = true`. Without one the user is skipped there.
    pub graph_database: Option<String>,
}

/// Section `[graph]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphConfig {
    /// In the store's file.
    Embedded,
    /// A Neo4j server, by its HTTP Query API.
    Neo4j(Neo4jConfig),
}

/// A Neo4j server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neo4jConfig {
    /// The address, `https://host` or `http://127.0.0.1:7474`, without a slash at the end.
    pub url: String,
    /// The user name.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// Where a user's events go.
    pub databases: GraphDatabases,
    /// How long one request may take, in milliseconds.
    pub request_timeout_ms: u64,
}

/// Where in Neo4j a user's events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphDatabases {
    /// All users share the database of this name.
    Shared(String),
    /// Each user has a database: [`UserConfig::graph_database`].
    PerUser,
}

/// Section `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The folder of the embedded store; made if it does not exist.
    pub data_dir: PathBuf,
}

/// Section `[redis]`, if its `url` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// The address, with whatever secret it holds; [`RedisConfig::address`] may be shown.
    pub url: Secret,
    /// What all keys begin with.
    pub prefix: String,
    /// Certificates that may sign the server's; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long one answer may take, in milliseconds.
    pub response_timeout_ms: u64,
}

impl RedisConfig {
    /// What the adapter is told.
    #[must_use]
    pub fn settings(&self) -> RedisSettings {
        RedisSettings {
            url: self.url.clone(),
            prefix: self.prefix.clone(),
            ca_file: self.ca_file.clone(),
            connect_timeout_ms: self.connect_timeout_ms,
            response_timeout_ms: self.response_timeout_ms,
        }
    }

    /// The address without user, password and parameters, for people.
    #[must_use]
    pub fn address(&self) -> String {
        value::redis_address(self.url.expose())
    }
}

/// Section `[http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where API, page, metrics, health and readiness are served; `None`: nowhere. Of another machine's reach only with a
    /// token.
    pub listen: Option<SocketAddr>,
    /// What a caller must show who changes something, and whoever comes from elsewhere; `None`: nothing can be changed.
    pub token: Option<Secret>,
    /// Host names under which it is asked, beside those of this machine itself, in small letters.
    pub hosts: Vec<String>,
    /// Connections that one address may have at a time; `None`: 16, and no bound but the one for all from this machine.
    pub connections_per_address_max: Option<usize>,
}

/// Section `[push]`, if its `address` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// What Google is told.
    pub address: String,
    /// Where notifications come in.
    pub listen: SocketAddr,
    /// The key of the channels' tokens, the same for all processes.
    pub key: Secret,
    /// The pace of polls of users who are watched, in milliseconds.
    pub poll_ms: u64,
    /// As [`HttpConfig::connections_per_address_max`].
    pub connections_per_address_max: Option<usize>,
}

/// Section `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// The least important lines that are shown.
    pub level: LogLevel,
}

/// Section `[telemetry]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// The collector that takes traces by OTLP over HTTP, without a slash at the end; `None`: none are made. Always `None` in a
    /// build without the feature `otel`.
    pub otlp_endpoint: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How important a log line has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum LogLevel {
    /// Only what an operator must act on.
    Error,
    /// And what looks wrong but mends itself.
    Warn,
    /// And what happens: ticks, syncs, starts and stops.
    #[default]
    Info,
    /// And each request.
    Debug,
    /// And each step of the machines.
    Trace,
}

impl Config {
    /// The defaults, for these users: what the demo and tests begin with.
    #[must_use]
    pub fn with_defaults(auth: GoogleAuth, users: Vec<UserConfig>, data_dir: PathBuf) -> Self {
        check::defaults(auth, users, data_dir)
    }

    /// The settings of the source, as the store wants them.
    #[must_use]
    pub fn source_settings(&self) -> SourceSettings {
        SourceSettings {
            jobs: self.limits.jobs,
            requests_project: self.limits.requests,
            requests_user: self.limits.requests_per_user,
            keep_completed: self.history.completed,
            keep_failed: self.history.failed,
            ..SourceSettings::default()
        }
    }
}
