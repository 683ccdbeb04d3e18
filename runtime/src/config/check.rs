//! Checking: from values as they were given to a [`Config`] in which every value is within its bounds.
//!
//! Each section reads all of its values before it gives up, and gives up only on itself, so that one run names every
//! problem. A function here returns `None` exactly when it, or something it called, has added a problem.

mod credentials;
mod http;
mod push;
mod redis;
mod telemetry;
mod users;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kalends_adapters::google::ServiceAccountKey;
use kalends_adapters::secret::Secret;
use kalends_core::id::{CalendarId, ScheduleName, SourceName};
use kalends_core::policy::{
    Backoff, CatchUp, CronExpression, Jitter, Limit, ScheduleDefinition, Spread, TimeZone,
};
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::load::{Given, GivenValue, SECRET_FILE_BYTES_MAX, read_text};
use super::locate::{Place, Problems};
use super::settings::{self, Kind};
use super::value::{self, Raw, echo};
use super::{
    CalendarSelection, Config, GoogleAuth, GoogleConfig, GraphConfig, GraphDatabases,
    HistoryConfig, LimitsConfig, LogConfig, LogFormat, LogLevel, Neo4jConfig, ScheduleConfig,
    StoreConfig, UserConfig, WorkerConfig,
};

/// The longest name of a process, in bytes: its incarnation's id is made of it and stays below the bound of ids.
const WORKER_NAME_BYTES_MAX: usize = 100;
/// Names of Neo4j databases have 3 to 63 characters (Neo4j's operations manual, "Database names").
const DATABASE_NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=63;

/// Makes a configuration of what was given, or adds the reasons why there is none.
pub(super) fn check(
    given: &Given,
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<Config> {
    let mut checker = Checker {
        given,
        environment,
        problems,
    };
    let auth_kind = checker.read("google", "auth", value::choice);
    let auth = auth_kind.and_then(|kind| checker.auth(kind));
    let users = checker.users(auth_kind == Some("refresh_token"));
    checker.assemble(auth, users)
}

/// The configuration that consists of defaults and these values.
pub(super) fn defaults(auth: GoogleAuth, users: Vec<UserConfig>, data_dir: PathBuf) -> Config {
    let given = Given::new(PathBuf::new());
    let mut problems = Problems::default();
    let mut checker = Checker {
        given: &given,
        environment: &BTreeMap::new(),
        problems: &mut problems,
    };
    let config = checker.assemble(Some(auth), Some(users));
    let config = config.expect("defaults are within their bounds; the tests look at all of them");
    Config {
        store: StoreConfig { data_dir },
        ..config
    }
}

struct Checker<'a> {
    given: &'a Given,
    environment: &'a BTreeMap<String, String>,
    problems: &'a mut Problems,
}

impl<'a> Checker<'a> {
    fn assemble(
        &mut self,
        auth: Option<GoogleAuth>,
        users: Option<Vec<UserConfig>>,
    ) -> Option<Config> {
        let schedule = self.schedule();
        let limits = self.limits();
        let worker = self.worker();
        let retry = self.retry();
        let history = self.history();
        let google = self.google(auth);
        let credentials = self.credentials();
        let graph = self.graph();
        let store = self.store();
        let redis = self.redis();
        if let (Some(Some(_)), Some(GraphConfig::Embedded)) = (&redis, &graph) {
            self.refuse_embedded_graph();
        }
        let http = self.http();
        let push = self.push();
        let log = self.log();
        let record = self.record();
        let telemetry = self.telemetry();
        Some(Config {
            schedule: schedule?,
            limits: limits?,
            worker: worker?,
            retry: retry?,
            history: history?,
            google: google?,
            credentials: credentials?,
            users: users?,
            graph: graph?,
            store: store?,
            redis: redis?,
            http: http?,
            push: push?,
            log: log?,
            record: record?,
            telemetry: telemetry?,
        })
    }

    fn given(&self, section: &'static str, key: &'static str) -> Option<&'a GivenValue> {
        self.given.values.get(&(section, key))
    }

    /// Where a setting was given; for a default, where its section is.
    fn place(&self, section: &'static str, key: &'static str) -> Place {
        self.given(section, key)
            .and_then(|given| given.place.clone())
            .unwrap_or_else(|| self.given.place_of_section(section))
    }

    fn wrong(&mut self, section: &'static str, key: &'static str, message: impl Into<String>) {
        let place = self.place(section, key);
        self.problems
            .add(place, format!("{section}.{key}"), message);
    }

    /// The value of a setting, as `reader` understands it; `None` if it is wrong, or was not given.
    fn read<T>(
        &mut self,
        section: &'static str,
        key: &'static str,
        reader: impl Fn(&Raw, Kind) -> Result<T, String>,
    ) -> Option<T> {
        let setting = settings::find(section, key).expect("only settings of the table are read");
        let given = self.given(section, key)?;
        match reader(&given.raw, setting.kind) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(section, key, message);
                None
            }
        }
    }

    fn integer(&mut self, section: &'static str, key: &'static str) -> Option<u64> {
        self.read(section, key, value::integer)
    }

    fn small(&mut self, section: &'static str, key: &'static str) -> Option<u32> {
        let value = self.integer(section, key)?;
        Some(u32::try_from(value).expect("the table's bound of this setting is below 2^32"))
    }

    /// Reads text and makes something of it by `parse`, whose error says what is wrong and what is right.
    fn parse<T>(
        &mut self,
        section: &'static str,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.read(section, key, |raw, kind| parse(&value::text(raw, kind)?))
    }

    fn schedule(&mut self) -> Option<ScheduleConfig> {
        let name = self.parse("schedule", "name", |text| {
            ScheduleName::new(text).map_err(|error| error.to_string())
        });
        let source = self.parse("schedule", "source", |text| {
            let known = SourceName::google_calendar();
            if text == known.as_str() {
                return Ok(known);
            }
            Err(format!(
                "source {} is not known; write {:?}",
                echo(text),
                known.as_str()
            ))
        });
        let cron = self.parse("schedule", "cron", |text| {
            CronExpression::parse(text).map_err(|error| {
                let field = match error.field {
                    "expression" => format!("{} ", echo(text)),
                    field => format!("{field} field of {}: ", echo(text)),
                };
                format!("{field}{}; {}", error.problem, error.remedy)
            })
        });
        let time_zone = self.parse("schedule", "time_zone", |text| {
            TimeZone::parse(text).map_err(|error| error.to_string())
        });
        let catch_up = self.parse("schedule", "catch_up", |text| {
            let parsed = text.parse::<CatchUp>();
            parsed.map_err(|error| format!("{} is {error}", echo(text)))
        });
        let jitter = self.integer("schedule", "jitter_ms");
        let spread = self.read("schedule", "spread", value::choice);
        let step_ms = self.integer("schedule", "stagger_ms");
        let definition = ScheduleDefinition {
            source: source?,
            cron: cron?,
            time_zone: time_zone?,
            catch_up: catch_up?,
        };
        if definition.next_after(Timestamp::EPOCH).is_none() {
            let message = "names a date that never comes; correct day of month and month";
            self.wrong("schedule", "cron", message);
            return None;
        }
        let step_ms = step_ms?;
        Some(ScheduleConfig {
            name: name?,
            definition,
            jitter: Jitter { max_ms: jitter? },
            spread: match spread? {
                "even" => Spread::Even {
                    step_ms_max: step_ms,
                },
                "stagger" => Spread::Stagger { step_ms },
                _ => Spread::Phase,
            },
        })
    }

    /// `None` in `Some(None)` is "unlimited".
    fn limit(
        &mut self,
        section: &'static str,
        key: &'static str,
        window_ms: u64,
    ) -> Option<Option<Limit>> {
        let count = self.read(section, key, value::integer_or_unlimited)?;
        Some(count.map(|count| {
            Limit {
                count: u32::try_from(count)
                    .expect("the table's bound of a limit is that of Limit, below 2^32"),
                window_ms,
            }
        }))
    }

    fn limits(&mut self) -> Option<LimitsConfig> {
        let window_ms = self.integer("limits", "jobs_window_ms");
        let jobs = self.limit("limits", "jobs", window_ms.unwrap_or(MINUTE_MS));
        let requests = self.limit("limits", "requests_per_minute", MINUTE_MS);
        let requests_per_user = self.limit("limits", "requests_per_minute_per_user", MINUTE_MS);
        window_ms?;
        Some(LimitsConfig {
            jobs: jobs?,
            requests: requests?,
            requests_per_user: requests_per_user?,
        })
    }

    fn worker(&mut self) -> Option<WorkerConfig> {
        let concurrency = self.small("worker", "concurrency");
        let lease_ms = self.integer("worker", "lease_ms");
        let shutdown_ms = self.integer("worker", "shutdown_ms");
        let name = self.parse("worker", "name", |text| {
            if text.len() > WORKER_NAME_BYTES_MAX {
                return Err(format!(
                    "has {} bytes; at most {WORKER_NAME_BYTES_MAX} are allowed",
                    text.len()
                ));
            }
            Ok(text.to_owned())
        });
        let has_seed = self.given("worker", "seed").is_some();
        let seed = self.integer("worker", "seed");
        if has_seed {
            seed?;
        }
        Some(WorkerConfig {
            concurrency: concurrency?,
            lease_ms: lease_ms?,
            shutdown_ms: shutdown_ms?,
            name: name?,
            seed,
        })
    }

    fn retry(&mut self) -> Option<Backoff> {
        let attempts = self.small("retry", "attempts");
        let base_ms = self.integer("retry", "backoff_base_ms");
        let cap_ms = self.integer("retry", "backoff_cap_ms");
        let (attempts_max, base_ms, cap_ms) = (attempts?, base_ms?, cap_ms?);
        if cap_ms < base_ms {
            let at_fault = match self.given("retry", "backoff_cap_ms") {
                Some(given) if given.place.is_some() => "backoff_cap_ms",
                _ => "backoff_base_ms",
            };
            let message = format!(
                "backoff_cap_ms is {cap_ms} and below backoff_base_ms, which is {base_ms}; \
                 write a backoff_cap_ms of at least {base_ms}"
            );
            self.wrong("retry", at_fault, message);
            return None;
        }
        Some(Backoff {
            base_ms,
            cap_ms,
            attempts_max,
            ..Backoff::default()
        })
    }

    fn history(&mut self) -> Option<HistoryConfig> {
        let completed = self.small("history", "completed");
        let failed = self.small("history", "failed");
        Some(HistoryConfig {
            completed: completed?,
            failed: failed?,
        })
    }

    fn google(&mut self, auth: Option<GoogleAuth>) -> Option<GoogleConfig> {
        let api_base_url = self.read("google", "api_base_url", value::url);
        let token_url = self.read("google", "token_url", value::url);
        let auth_url = self.read("google", "auth_url", value::url);
        let calendars = self.read("google", "calendars", calendars);
        let page_size = self.small("google", "page_size");
        let look_back_days = self.small("google", "look_back_days");
        let request_timeout_ms = self.integer("google", "request_timeout_ms");
        Some(GoogleConfig {
            api_base_url: api_base_url?,
            token_url: token_url?,
            auth_url: auth_url?,
            calendars: calendars?,
            page_size: page_size?,
            look_back_days: look_back_days?,
            request_timeout_ms: request_timeout_ms?,
            auth: auth?,
        })
    }

    fn auth(&mut self, kind: &str) -> Option<GoogleAuth> {
        if kind == "service_account" {
            return self.service_account();
        }
        let client_id = self.required("google", "client_id", "the id of your OAuth client");
        let client_secret = self.secret("google", "client_secret", "client_secret_file");
        Some(GoogleAuth::RefreshToken {
            client_id: client_id?,
            client_secret: client_secret?,
        })
    }

    fn required(&mut self, section: &'static str, key: &'static str, what: &str) -> Option<String> {
        if self.given(section, key).is_none() {
            let setting = settings::find(section, key).expect("a setting of the table");
            let message = format!(
                "is missing; write {what}, or set {}",
                setting.environment_name()
            );
            self.wrong(section, key, message);
        }
        self.read(section, key, value::text)
    }

    /// A secret that stands in `key` or in the file named by `key_file`. If both are given, the one that was given
    /// later (variable after file) counts; both in one place contradict each other.
    fn secret(
        &mut self,
        section: &'static str,
        key: &'static str,
        key_file: &'static str,
    ) -> Option<Secret> {
        let rank = |key| {
            let place = self.given(section, key)?.place.as_ref();
            place.map(|place| match place {
                Place::File { .. } | Place::Nowhere => 0,
                Place::Environment(_) => 1,
                Place::Flag(_) => 2,
            })
        };
        match (rank(key), rank(key_file)) {
            (None, None) => {
                let setting = settings::find(section, key).expect("a setting of the table");
                let message = format!(
                    "is missing; write {key_file} = \"FILE\", or set {}",
                    setting.environment_name()
                );
                self.wrong(section, key, message);
                None
            }
            (Some(own), Some(file)) if own == file => {
                let message = format!("is given beside {key_file}; give one of the two");
                self.wrong(section, key, message);
                None
            }
            (own, file) if own > file => {
                let text = self.read(section, key, value::text)?;
                Some(Secret::new(text))
            }
            _ => {
                let name = self.read(section, key_file, value::text)?;
                let place = self.given(section, key_file)?.place.as_ref();
                let path = self.given.resolve(&name, place);
                match read_secret(&path) {
                    Ok(secret) => Some(secret),
                    Err(message) => {
                        self.wrong(section, key_file, format!("{} {message}", echo(&name)));
                        None
                    }
                }
            }
        }
    }

    fn service_account(&mut self) -> Option<GoogleAuth> {
        const KEY: &str = "service_account_key_file";
        let name = self.required(
            "google",
            KEY,
            "the path of the key file that Google gave you",
        )?;
        let place = self.given("google", KEY)?.place.as_ref();
        let path = self.given.resolve(&name, place);
        match read_service_account_key(&path) {
            Ok(key_json) => Some(GoogleAuth::ServiceAccount { key_json }),
            Err(message) => {
                self.wrong("google", KEY, format!("{} {message}", echo(&name)));
                None
            }
        }
    }

    fn graph(&mut self) -> Option<GraphConfig> {
        let kind = self.read("graph", "kind", value::choice);
        let url = self.read("graph", "url", value::url);
        let user = self.read("graph", "user", value::text);
        let database = self.parse("graph", "database", database_name);
        let is_per_user = self.read("graph", "database_per_user", value::boolean);
        let request_timeout_ms = self.integer("graph", "request_timeout_ms");
        match kind? {
            "embedded" => {
                // What is not used is still checked, and its problem told by now.
                url?;
                user?;
                database?;
                is_per_user?;
                request_timeout_ms?;
                Some(GraphConfig::Embedded)
            }
            _ => {
                let password = self.secret("graph", "password", "password_file");
                let shared = database?;
                Some(GraphConfig::Neo4j(Neo4jConfig {
                    url: url?,
                    user: user?,
                    password: password?,
                    databases: if is_per_user? {
                        GraphDatabases::PerUser
                    } else {
                        GraphDatabases::Shared(shared)
                    },
                    request_timeout_ms: request_timeout_ms?,
                }))
            }
        }
    }

    fn store(&mut self) -> Option<StoreConfig> {
        let name = self.read("store", "data_dir", value::text)?;
        let place = self.given("store", "data_dir")?.place.as_ref();
        let data_dir = self.given.resolve(&name, place);
        if data_dir.exists() && !data_dir.is_dir() {
            let message = format!("{} is not a folder; name one", echo(&name));
            self.wrong("store", "data_dir", message);
            return None;
        }
        Some(StoreConfig { data_dir })
    }

    fn record(&mut self) -> Option<Option<PathBuf>> {
        let Some(given) = self.given("record", "file") else {
            return Some(None);
        };
        let place = given.place.clone();
        let name = self.read("record", "file", value::text)?;
        let file = self.given.resolve(&name, place.as_ref());
        if file.is_dir() {
            let message = format!("{} is a folder; name a file in it", echo(&name));
            self.wrong("record", "file", message);
            return None;
        }
        Some(Some(file))
    }

    fn log(&mut self) -> Option<LogConfig> {
        let format = self.read("log", "format", value::choice);
        let level = self.read("log", "level", value::choice);
        Some(LogConfig {
            format: match format? {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            level: match level? {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                _ => LogLevel::Info,
            },
        })
    }
}

fn calendars(raw: &Raw, kind: Kind) -> Result<CalendarSelection, String> {
    let names: Vec<String> = match raw {
        Raw::Text(text) => vec![text.clone()],
        Raw::Outside(text) => text.split(',').map(|id| id.trim().to_owned()).collect(),
        Raw::List(items) => items
            .iter()
            .map(|item| value::text(item, Kind::Text))
            .collect::<Result<_, _>>()
            .map_err(|message| format!("holds something that {message}"))?,
        _ => {
            return Err(format!(
                "is neither text nor a list; {}",
                value::expected(kind)
            ));
        }
    };
    let is_list = matches!(raw, Raw::List(_));
    match names.as_slice() {
        [] => return Err(format!("is an empty list; {}", value::expected(kind))),
        [word] if !is_list && word == "primary" => return Ok(CalendarSelection::Primary),
        [word] if !is_list && word == "all" => return Ok(CalendarSelection::All),
        [word] if matches!(raw, Raw::Text(_)) => {
            return Err(format!("is {}; {}", echo(word), value::expected(kind)));
        }
        _ => {}
    }
    let mut calendars: Vec<CalendarId> = Vec::new();
    for name in &names {
        if name == "all" {
            return Err("holds \"all\"; write calendars = \"all\", or ids only".to_owned());
        }
        let calendar =
            CalendarId::new(name).map_err(|error| format!("holds an id that {error}"))?;
        if calendars.contains(&calendar) {
            return Err(format!("holds {} twice; write it once", echo(name)));
        }
        calendars.push(calendar);
    }
    Ok(CalendarSelection::Listed(calendars))
}

pub(crate) fn database_name(text: &str) -> Result<String, String> {
    let is_allowed =
        |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '-';
    let begins_well = text.starts_with(|letter: char| letter.is_ascii_alphabetic());
    if !DATABASE_NAME_CHARS.contains(&text.len()) || !begins_well || !text.chars().all(is_allowed) {
        return Err(format!(
            "{} is no name of a Neo4j database; write {} to {} letters, digits, dots and dashes, a letter first",
            echo(text),
            DATABASE_NAME_CHARS.start(),
            DATABASE_NAME_CHARS.end()
        ));
    }
    if text.eq_ignore_ascii_case("system") {
        return Err("\"system\" is Neo4j's own; name another database".to_owned());
    }
    Ok(text.to_owned())
}

/// The secret in a file, without the line break at its end.
fn read_secret(path: &std::path::Path) -> Result<Secret, String> {
    let text = read_text(path, SECRET_FILE_BYTES_MAX)
        .map_err(|message| format!("{message}; make the file, or correct the path"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty; write the secret into it".to_owned());
    }
    if text.len() > value::TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(
            "holds more than one line; write the secret into it and nothing else".to_owned(),
        );
    }
    Ok(Secret::new(text.to_owned()))
}

fn read_service_account_key(path: &std::path::Path) -> Result<Secret, String> {
    let text = read_text(path, SECRET_FILE_BYTES_MAX)
        .map_err(|message| format!("{message}; make the file, or correct the path"))?;
    let key: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        format!(
            "is not JSON (line {}); take the key file as Google gives it",
            error.line()
        )
    })?;
    for field in ["client_email", "private_key"] {
        if !key.get(field).is_some_and(serde_json::Value::is_string) {
            return Err(format!(
                "has no {field}; take the JSON key of a service account as Google gives it"
            ));
        }
    }
    // Signs once, so that a key that cannot is found here and not by every user's first sync.
    ServiceAccountKey::from_json(text.as_bytes()).map_err(|error| error.detail)?;
    Ok(Secret::new(text))
}
