//! The one place where a setting is described: name, kind, bounds, default, flag and help.
//!
//! Everything else is derived from this table: the variable's name, the line in the example file, the bound that a
//! wrong value is told, the flag that overrules it, and whether it is hidden. Keys of `[[users]]` have a list of
//! their own, as they have no defaults, no variables and no flags.

use std::fmt::Write as _;

use kalends_core::google::query::PAGE_SIZE_MAX;
use kalends_core::node::FAN_OUT_SLOTS;
use kalends_core::policy::limit::{LIMIT_COUNT_MAX, LIMIT_WINDOW_MS_MAX};
use kalends_core::queue::command::{BATCH_MAX, LEASE_MS_MAX};
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS};

use crate::web::CONNECTIONS_MAX;

/// The most syncs at a time: their leases and those of the fan-outs are kept alive by one command, which names at most
/// [`BATCH_MAX`].
pub const CONCURRENCY_MAX: u64 = BATCH_MAX as u64 - FAN_OUT_SLOTS as u64;
/// What all variables of Kalends begin with.
pub const ENVIRONMENT_PREFIX: &str = "KALENDS_";
/// The variable that names the configuration file. It is not a setting itself.
pub const ENVIRONMENT_CONFIG: &str = "KALENDS_CONFIG";
/// The name of the configuration file that is taken from the working folder.
pub const FILE_DEFAULT: &str = "kalends.toml";

/// What a setting's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text of one line, not empty.
    Text,
    /// Text that is never shown.
    Secret,
    /// A file or folder. In the file it is relative to the file's folder, elsewhere to the working folder.
    Path,
    /// An `http` or `https` address.
    Url,
    /// A whole number within bounds, both included.
    Integer(u64, u64),
    /// A whole number within bounds, or `"unlimited"`.
    IntegerOrUnlimited(u64, u64),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `"primary"`, `"all"`, or a list of calendar ids (in a variable: separated by commas).
    Calendars,
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section; empty for a key above all sections.
    pub section: &'static str,
    /// Its key.
    pub key: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its default, as it is written in the file; `None`: not set.
    pub default: Option<&'static str>,
    /// The flag that overrules it, if there is one.
    pub flag: Option<&'static str>,
    /// What it means, with its unit.
    pub help: &'static str,
}

impl Setting {
    /// `section.key`, as it is named in errors.
    #[must_use]
    pub fn name(&self) -> String {
        if self.section.is_empty() {
            self.key.to_owned()
        } else {
            format!("{}.{}", self.section, self.key)
        }
    }

    /// The variable that overrules the file.
    #[must_use]
    pub fn environment_name(&self) -> String {
        let name = self.name().replace('.', "_").to_uppercase();
        format!("{ENVIRONMENT_PREFIX}{name}")
    }
}

const fn setting(
    section: &'static str,
    key: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        section,
        key,
        kind,
        default,
        flag: None,
        help,
    }
}

const fn with_flag(flag: &'static str, setting: Setting) -> Setting {
    Setting {
        flag: Some(flag),
        ..setting
    }
}

/// A jitter or a step longer than this only delays users.
const SPREAD_MS_MAX: u64 = HOUR_MS;
/// The longest time for connecting to Redis, and the longest for one of its answers, in milliseconds. Together they must
/// stay below the node's own deadline for a store command, which `check` looks at.
const REDIS_TIMEOUT_MS_MAX: u64 = 9_000;
/// A request that takes longer than this is taken for dead.
const REQUEST_TIMEOUT_MS_MAX: u64 = 10 * MINUTE_MS;

/// All settings, in the order of the example file.
pub const SETTINGS: &[Setting] = &[
    setting(
        "",
        "users_file",
        Kind::Path,
        None,
        "Users, one a line, in addition to [[users]]: .jsonl with the same keys as [[users]], or .csv with a first line \
         that names them.",
    ),
    setting(
        "schedule",
        "name",
        Kind::Text,
        Some("\"calendar-sync\""),
        "The name under which the schedule is stored.",
    ),
    setting(
        "schedule",
        "source",
        Kind::Text,
        Some("\"google-calendar\""),
        "Where the data comes from: google-calendar.",
    ),
    setting(
        "schedule",
        "cron",
        Kind::Text,
        Some("\"*/15 * * * *\""),
        "When users are synced: minute, hour, day of month, month, day of week.",
    ),
    setting(
        "schedule",
        "time_zone",
        Kind::Text,
        Some("\"UTC\""),
        "The IANA time zone in which cron is read, like \"Europe/Berlin\".",
    ),
    setting(
        "schedule",
        "catch_up",
        Kind::Text,
        Some("\"once\""),
        "What happens after downtime to ticks that were missed: \"skip\", \"once\" or \"all(N)\", at most N of them.",
    ),
    setting(
        "schedule",
        "jitter_ms",
        Kind::Integer(0, SPREAD_MS_MAX),
        Some("5000"),
        "The longest random delay of a start, in milliseconds; 0 for none.",
    ),
    setting(
        "schedule",
        "spread",
        Kind::Choice(&["even", "stagger", "phase"]),
        Some("\"even\""),
        "How the users of one tick are laid over the period: \"even\" (stagger_ms apart, less if they would not fit), \
         \"stagger\" (always stagger_ms apart) or \"phase\" (each at a place of its own).",
    ),
    setting(
        "schedule",
        "stagger_ms",
        Kind::Integer(1, SPREAD_MS_MAX),
        Some("1000"),
        "The distance between two users, in milliseconds.",
    ),
    setting(
        "limits",
        "jobs",
        Kind::IntegerOrUnlimited(1, LIMIT_COUNT_MAX as u64),
        Some("10"),
        "Syncs started in every window of jobs_window_ms, over all processes, or \"unlimited\".",
    ),
    setting(
        "limits",
        "jobs_window_ms",
        Kind::Integer(1, LIMIT_WINDOW_MS_MAX),
        Some("60000"),
        "The length of that window, in milliseconds.",
    ),
    setting(
        "limits",
        "requests_per_minute",
        Kind::IntegerOrUnlimited(1, LIMIT_COUNT_MAX as u64),
        Some("10000"),
        "Requests to Google in every minute, or \"unlimited\". Google's own limit for a project is 10000.",
    ),
    setting(
        "limits",
        "requests_per_minute_per_user",
        Kind::IntegerOrUnlimited(1, LIMIT_COUNT_MAX as u64),
        Some("600"),
        "Requests to Google on behalf of one user in every minute, or \"unlimited\". Google's own limit is 600.",
    ),
    with_flag(
        "--concurrency",
        setting(
            "worker",
            "concurrency",
            Kind::Integer(1, CONCURRENCY_MAX),
            Some("3"),
            "How many syncs run at the same time in this process.",
        ),
    ),
    setting(
        "worker",
        "lease_ms",
        Kind::Integer(5_000, LEASE_MS_MAX),
        Some("30000"),
        "How long after its last sign of life another process may take over a sync, in milliseconds.",
    ),
    setting(
        "worker",
        "shutdown_ms",
        Kind::Integer(1, HOUR_MS),
        Some("25000"),
        "How long running syncs may take to finish after SIGTERM, in milliseconds; then they are handed back.",
    ),
    with_flag(
        "--node-name",
        setting(
            "worker",
            "name",
            Kind::Text,
            Some("\"kalends\""),
            "The name of this process in logs and status.",
        ),
    ),
    with_flag(
        "--seed",
        setting(
            "worker",
            "seed",
            Kind::Integer(0, u64::MAX),
            None,
            "The seed of all chance in this process; drawn at start if not set.",
        ),
    ),
    setting(
        "retry",
        "attempts",
        Kind::Integer(1, 100),
        Some("3"),
        "How often a sync is tried before it is given up until its next turn. Rate limits do not count.",
    ),
    setting(
        "retry",
        "backoff_base_ms",
        Kind::Integer(1, HOUR_MS),
        Some("1000"),
        "The wait after the first failed attempt, in milliseconds; it doubles with each further one.",
    ),
    setting(
        "retry",
        "backoff_cap_ms",
        Kind::Integer(1, DAY_MS),
        Some("64000"),
        "The longest such wait, in milliseconds; at least backoff_base_ms.",
    ),
    setting(
        "history",
        "completed",
        Kind::Integer(0, 100_000),
        Some("100"),
        "How many completed syncs are kept for status.",
    ),
    setting(
        "history",
        "failed",
        Kind::Integer(0, 100_000),
        Some("500"),
        "How many failed syncs are kept for status.",
    ),
    setting(
        "google",
        "auth",
        Kind::Choice(&["refresh_token", "service_account"]),
        Some("\"refresh_token\""),
        "How Google is told who asks: \"refresh_token\" (each user gave consent; needs client_id and client_secret) or \
         \"service_account\" (speaks for a whole Workspace domain; needs service_account_key_file).",
    ),
    setting(
        "google",
        "client_id",
        Kind::Text,
        None,
        "The OAuth client's id.",
    ),
    setting(
        "google",
        "client_secret",
        Kind::Secret,
        None,
        "The OAuth client's secret; better in client_secret_file or in the environment.",
    ),
    setting(
        "google",
        "client_secret_file",
        Kind::Path,
        None,
        "A file that holds the OAuth client's secret and nothing else.",
    ),
    setting(
        "google",
        "service_account_key_file",
        Kind::Path,
        None,
        "The service account's key file (JSON), as Google gives it.",
    ),
    setting(
        "google",
        "calendars",
        Kind::Calendars,
        Some("\"primary\""),
        "Which calendars of a user are synced: \"primary\", \"all\" (that can be read), or a list of ids.",
    ),
    setting(
        "google",
        "page_size",
        Kind::Integer(1, PAGE_SIZE_MAX as u64),
        Some("250"),
        "Events in one answer of Google.",
    ),
    setting(
        "google",
        "look_back_days",
        Kind::Integer(1, 36_500),
        Some("90"),
        "How far into the past a first sync looks, in days.",
    ),
    setting(
        "google",
        "request_timeout_ms",
        Kind::Integer(100, REQUEST_TIMEOUT_MS_MAX),
        Some("20000"),
        "How long one request may take, in milliseconds.",
    ),
    setting(
        "google",
        "api_base_url",
        Kind::Url,
        Some("\"https://www.googleapis.com/calendar/v3\""),
        "The address of the Calendar API; another one for tests (`kalends emulate google`).",
    ),
    setting(
        "google",
        "token_url",
        Kind::Url,
        Some("\"https://oauth2.googleapis.com/token\""),
        "The address at which access tokens are got.",
    ),
    setting(
        "google",
        "auth_url",
        Kind::Url,
        Some("\"https://accounts.google.com/o/oauth2/v2/auth\""),
        "The page at which a user consents when `kalends users connect` is used.",
    ),
    setting(
        "credentials",
        "keys",
        Kind::Secret,
        None,
        "The key that seals the grants of users who were added by `kalends users`: 64 hexadecimal digits, as `openssl rand \
         -hex 32` prints them. After it, separated by commas, older keys that only open. Better in keys_file or in the \
         environment.",
    ),
    setting(
        "credentials",
        "keys_file",
        Kind::Path,
        None,
        "A file that holds credentials.keys and nothing else, one a line, the one that seals first.",
    ),
    setting(
        "graph",
        "kind",
        Kind::Choice(&["embedded", "neo4j"]),
        Some("\"embedded\""),
        "Where events are written to: \"embedded\" (a file in data_dir) or \"neo4j\" (a server).",
    ),
    setting(
        "graph",
        "url",
        Kind::Url,
        Some("\"http://127.0.0.1:7474\""),
        "The HTTP address of the Neo4j server.",
    ),
    setting(
        "graph",
        "user",
        Kind::Text,
        Some("\"neo4j\""),
        "The Neo4j user.",
    ),
    setting(
        "graph",
        "password",
        Kind::Secret,
        None,
        "The Neo4j user's password; better in password_file or in the environment.",
    ),
    setting(
        "graph",
        "password_file",
        Kind::Path,
        None,
        "A file that holds the password and nothing else.",
    ),
    setting(
        "graph",
        "database",
        Kind::Text,
        Some("\"neo4j\""),
        "The database that all users share.",
    ),
    setting(
        "graph",
        "database_per_user",
        Kind::Boolean,
        Some("false"),
        "Whether each user has a database instead (graph_database of the user; users without one are skipped).",
    ),
    setting(
        "graph",
        "request_timeout_ms",
        Kind::Integer(100, REQUEST_TIMEOUT_MS_MAX),
        Some("30000"),
        "How long one statement may take, in milliseconds.",
    ),
    with_flag(
        "--data-dir",
        setting(
            "store",
            "data_dir",
            Kind::Path,
            Some("\"kalends-data\""),
            "The folder of the store; made if it does not exist. One process at a time uses it. Not used with redis.url.",
        ),
    ),
    setting(
        "redis",
        "url",
        Kind::Secret,
        None,
        "The Redis that holds the queue instead of data_dir, so that many processes share it: redis://HOST:6379, \
         rediss:// for TLS, unix:///SOCKET?db=0, redis+sentinel://HOST:26379,HOST:26379/SERVICE, redis+cluster://HOST:6379; \
         USER:PASSWORD@ before HOST, /DATABASE after it. Better in the environment. Needs prefix, and graph.kind = \
         \"neo4j\".",
    ),
    setting(
        "redis",
        "prefix",
        Kind::Text,
        None,
        "What all keys in Redis begin with: 1 to 64 letters, digits, '-', '_' or '.'. Environments that share a server \
         must differ in it, so it has no default.",
    ),
    setting(
        "redis",
        "ca_file",
        Kind::Path,
        None,
        "With rediss://: a file of PEM certificates that may sign the server's, instead of those that the system trusts.",
    ),
    setting(
        "redis",
        "connect_timeout_ms",
        Kind::Integer(10, REDIS_TIMEOUT_MS_MAX),
        Some("2000"),
        "How long connecting to Redis may take, in milliseconds.",
    ),
    setting(
        "redis",
        "response_timeout_ms",
        Kind::Integer(10, REDIS_TIMEOUT_MS_MAX),
        Some("5000"),
        "How long one answer of Redis may take, in milliseconds. With connect_timeout_ms it stays below 10000.",
    ),
    with_flag(
        "--http",
        setting(
            "http",
            "listen",
            Kind::Text,
            None,
            "Where API, page, /metrics, /healthz and /readyz are served, like \"127.0.0.1:7878\"; not served if not set. An \
             address that other machines reach needs a token.",
        ),
    ),
    setting(
        "http",
        "token",
        Kind::Secret,
        None,
        "What a caller must show to change anything, and from other machines for everything: at least 16 characters. \
         Better in token_file or in the environment. Without one nothing can be changed.",
    ),
    setting(
        "http",
        "token_file",
        Kind::Path,
        None,
        "A file that holds http.token and nothing else.",
    ),
    setting(
        "http",
        "hosts",
        Kind::Text,
        None,
        "Names under which this process is asked, beside localhost, separated by commas, like \"kalends.example.com\". \
         Requests under other names are refused.",
    ),
    setting(
        "http",
        "connections_per_address_max",
        Kind::Integer(1, CONNECTIONS_MAX as u64),
        None,
        "Connections that one address may have at a time; more get 503. Not set: 16, and all 64 from this machine, where a \
         proxy would be. A proxy on another machine carries everybody: 48 leaves the rest to probes.",
    ),
    setting(
        "push",
        "address",
        Kind::Url,
        None,
        "The https address at which Google reaches push.listen, to tell of changes. Users whose calendars are all watched are \
         polled every poll_minutes instead of by the schedule. Not set: all is polled.",
    ),
    setting(
        "push",
        "listen",
        Kind::Text,
        None,
        "Where notifications come in, like \"127.0.0.1:7879\"; nothing else is served there.",
    ),
    setting(
        "push",
        "key",
        Kind::Secret,
        None,
        "The key by which genuine notifications are known, the same for all processes: at least 32 characters. Better in \
         key_file or in the environment.",
    ),
    setting(
        "push",
        "key_file",
        Kind::Path,
        None,
        "A file that holds push.key and nothing else.",
    ),
    setting(
        "push",
        "poll_minutes",
        Kind::Integer(30, 24 * 60),
        Some("360"),
        "How often users who are watched are polled, in minutes: Google loses some notifications.",
    ),
    setting(
        "push",
        "connections_per_address_max",
        Kind::Integer(1, CONNECTIONS_MAX as u64),
        None,
        "As http.connections_per_address_max, for push.listen: all of Google comes through the proxy that has the \
         certificate.",
    ),
    with_flag(
        "--log-format",
        setting(
            "log",
            "format",
            Kind::Choice(&["text", "json"]),
            Some("\"text\""),
            "How log lines look: \"text\" or \"json\".",
        ),
    ),
    with_flag(
        "--log-level",
        setting(
            "log",
            "level",
            Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
            Some("\"info\""),
            "The least important lines that are shown: \"error\", \"warn\", \"info\", \"debug\" or \"trace\".",
        ),
    ),
    with_flag(
        "--record",
        setting(
            "record",
            "file",
            Kind::Path,
            None,
            "A journal of what this process is told and decides, for kalends replay: at most 8 files of 64 MiB, names and \
             texts hidden; not written if not set.",
        ),
    ),
    setting(
        "telemetry",
        "otlp_endpoint",
        Kind::Text,
        None,
        "A collector of OpenTelemetry that takes traces by OTLP over HTTP, like \"http://127.0.0.1:4318\"; /v1/traces is added. \
         Needs a build with the feature otel. No traces if not set.",
    ),
];

/// The name of the list of users in the file.
pub const USERS: &str = "users";

/// The keys of a user, each with its help.
pub const USER_KEYS: &[(&str, &str)] = &[
    (
        "id",
        "Who it is; with a service account the user's e-mail address.",
    ),
    (
        "refresh_token",
        "The user's grant; better in a file or in the environment.",
    ),
    (
        "refresh_token_file",
        "A file that holds the refresh token and nothing else.",
    ),
    (
        "refresh_token_env",
        "The name of a variable that holds the refresh token.",
    ),
    (
        "graph_database",
        "The user's Neo4j database, for graph.database_per_user = true.",
    ),
];

/// The names of all sections, in the order of the example file.
#[must_use]
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&'static str> = Vec::new();
    for setting in SETTINGS {
        if !setting.section.is_empty() && !sections.contains(&setting.section) {
            sections.push(setting.section);
        }
    }
    sections
}

/// The setting `key` of `section`, if there is one.
#[must_use]
pub fn find(section: &str, key: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.section == section && setting.key == key)
}

/// The candidate that `text` was probably meant to be, if one is near enough.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = text.to_lowercase();
    // A third of the letters may be wrong, and always two: more is another word.
    let distance_max = (text.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A complete configuration file: every setting with its help, its variable and its default.
///
/// Settings without a default stand behind a `#`.
#[must_use]
pub fn example_file() -> String {
    let mut text = String::from(
        "# Configuration of Kalends. Every line that is shown as it is may be left out: it states the default.\n\
         # A variable overrules the file, a flag overrules both. Paths are relative to this file.\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            let _ = write!(text, "\n[{section}]\n");
        }
        let _ = write!(text, "\n# {}\n", setting.help);
        let _ = write!(text, "# Variable: {}", setting.environment_name());
        if let Some(flag) = setting.flag {
            let _ = write!(text, ", flag: {flag}");
        }
        let _ = match setting.default {
            Some(default) => write!(text, "\n{} = {default}\n", setting.key),
            None => write!(text, "\n# {} =\n", setting.key),
        };
    }
    text.push_str("\n# One table for each user; give one of the three refresh_token keys.\n");
    text.push_str("# [[users]]\n");
    for (key, help) in USER_KEYS {
        let _ = writeln!(text, "# {key} = \"\"  # {help}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_follow_from_names_of_settings() {
        let name = |section, key| find(section, key).unwrap().environment_name();
        assert_eq!(name("schedule", "cron"), "KALENDS_SCHEDULE_CRON");
        assert_eq!(
            name("google", "client_secret"),
            "KALENDS_GOOGLE_CLIENT_SECRET"
        );
        assert_eq!(name("", "users_file"), "KALENDS_USERS_FILE");
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let mut names: Vec<String> = SETTINGS.iter().map(Setting::environment_name).collect();
        names.push(ENVIRONMENT_CONFIG.to_owned());
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_nearest_name_is_near() {
        let keys = ["concurrency", "lease_ms", "name"];
        assert_eq!(nearest("concurency", keys), Some("concurrency"));
        assert_eq!(nearest("leasems", keys), Some("lease_ms"));
        assert_eq!(nearest("redis", keys), None);
    }

    #[test]
    fn the_example_file_is_toml() {
        let parsed = toml::de::DeTable::parse(&example_file())
            .map(|_| ())
            .map_err(|error| error.message().to_owned());
        assert_eq!(parsed, Ok(()));
    }
}
