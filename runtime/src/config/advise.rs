//! Advice: what is allowed and yet looks unwise, with the figures that make it so.
//!
//! A warning never stops anything. Each is one sentence or two and names the settings to change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kalends_core::policy::{Spread, overload};
use kalends_core::time::{SECOND_MS, Timestamp};

use super::load::Given;
use super::locate::Place;
use super::settings::{Kind, SETTINGS};
use super::value;
use super::{Config, GraphConfig, GraphDatabases};

/// How many ticks are looked at to find the shortest period of an uneven schedule: more than a day of `*/15`.
const TICKS_LOOKED_AT: usize = 100;
/// 2026-01-01T00:00:00Z: any start will do, but always the same, so that the advice is.
const LOOK_FROM: Timestamp = Timestamp::from_ms(1_767_225_600_000);
/// Below this page size a first sync needs very many requests.
const PAGE_SIZE_SMALL: u32 = 25;
/// Above this page size a page may take several seconds.
const PAGE_SIZE_LARGE: u32 = 1_000;
/// And should be given this time, in milliseconds.
const PAGE_LARGE_TIMEOUT_MS: u64 = 10 * SECOND_MS;

/// The settings that name a file with a secret.
const SECRET_FILES: [(&str, &str); 6] = [
    ("credentials", "keys_file"),
    ("google", "client_secret_file"),
    ("google", "service_account_key_file"),
    ("graph", "password_file"),
    ("http", "token_file"),
    ("push", "key_file"),
];
/// At most this many files that others can read are named one by one: there may be one for each user.
const FILES_NAMED_MAX: usize = 10;

/// All warnings about a configuration.
pub(super) fn advise(config: &Config, given: &Given) -> Vec<String> {
    let mut warnings = Vec::new();
    load(config, &mut warnings);
    times(config, &mut warnings);
    graph(config, &mut warnings);
    redis(config, given, &mut warnings);
    permissions(given, &mut warnings);
    warnings
}

/// The shortest time between two ticks, in milliseconds; `None` if there are not two.
#[must_use]
pub fn period_ms_min(config: &Config) -> Option<u64> {
    let definition = &config.schedule.definition;
    let mut ticks = Vec::with_capacity(TICKS_LOOKED_AT);
    let mut at = LOOK_FROM;
    while ticks.len() < TICKS_LOOKED_AT
        && let Some(tick) = definition.next_after(at)
    {
        ticks.push(tick);
        at = tick;
    }
    ticks.windows(2).map(|pair| pair[1].since_ms(pair[0])).min()
}

fn load(config: &Config, warnings: &mut Vec<String>) {
    let users = config.users.len() as u64;
    // Whoever has a key has users that are not in here.
    if users == 0 && config.credentials.keys.is_none() {
        warnings.push(
            "users: there are none in the configuration; `kalends users` adds some, or write [[users]] or users_file"
                .to_owned(),
        );
    }
    let Some(period_ms) = period_ms_min(config) else {
        return;
    };
    // Every sync needs one request at least, so both limits bound the number of syncs.
    let by_jobs = overload(users, period_ms, config.limits.jobs.as_ref());
    let by_requests = overload(users, period_ms, config.limits.requests.as_ref());
    if let Some(overload) = by_jobs {
        warnings.push(format!("limits.jobs: {overload}"));
    }
    if let Some(overload) = by_requests {
        warnings.push(format!("limits.requests_per_minute: {overload}"));
    }
    if config.schedule.jitter.max_ms >= period_ms {
        warnings.push(format!(
            "schedule.jitter_ms: {} is not below the time between two ticks, which is {period_ms} ms",
            config.schedule.jitter.max_ms
        ));
    }
    if let Spread::Stagger { step_ms } = config.schedule.spread {
        let last_ms = step_ms.saturating_mul(users.saturating_sub(1));
        if last_ms >= period_ms {
            warnings.push(format!(
                "schedule.spread: with \"stagger\" the last of {users} users starts {last_ms} ms after the tick, when \
                 the next one has come ({period_ms} ms); use \"even\", or a smaller stagger_ms"
            ));
        }
    }
}

fn times(config: &Config, warnings: &mut Vec<String>) {
    let google = &config.google;
    let worker = &config.worker;
    let mut timeouts = vec![("google", google.request_timeout_ms)];
    if let GraphConfig::Neo4j(neo4j) = &config.graph {
        timeouts.push(("graph", neo4j.request_timeout_ms));
    }
    for (section, timeout_ms) in timeouts {
        if timeout_ms > worker.lease_ms {
            warnings.push(format!(
                "{section}.request_timeout_ms: {timeout_ms} is above worker.lease_ms ({}), so a process that hangs in \
                 one request loses its sync before the request ends; lower the one or raise the other",
                worker.lease_ms
            ));
        }
        if timeout_ms > worker.shutdown_ms.max(worker.lease_ms) {
            warnings.push(format!(
                "worker.shutdown_ms: {} is below {section}.request_timeout_ms ({timeout_ms}), so a slow request is cut \
                 off at every restart",
                worker.shutdown_ms
            ));
        }
    }
    if google.page_size < PAGE_SIZE_SMALL {
        warnings.push(format!(
            "google.page_size: with {} events a page a first sync of 10000 events needs {} requests; \
             Google's own default is 250",
            google.page_size,
            10_000_u32.div_ceil(google.page_size)
        ));
    }
    if google.page_size > PAGE_SIZE_LARGE && google.request_timeout_ms < PAGE_LARGE_TIMEOUT_MS {
        warnings.push(format!(
            "google.request_timeout_ms: {} is little for pages of {} events; use at least {PAGE_LARGE_TIMEOUT_MS}, or \
             a smaller google.page_size",
            google.request_timeout_ms, google.page_size
        ));
    }
}

fn graph(config: &Config, warnings: &mut Vec<String>) {
    let GraphConfig::Neo4j(neo4j) = &config.graph else {
        return;
    };
    if neo4j.databases != GraphDatabases::PerUser {
        return;
    }
    let without = config
        .users
        .iter()
        .filter(|user| user.graph_database.is_none())
        .count();
    if without > 0 {
        warnings.push(format!(
            "graph.database_per_user: {without} of {} users have no graph_database and will be skipped",
            config.users.len()
        ));
    }
}

fn redis(config: &Config, given: &Given, warnings: &mut Vec<String>) {
    let is_set = |section, key| {
        let value = given.values.get(&(section, key));
        value.is_some_and(|value| value.place.is_some())
    };
    let Some(redis) = &config.redis else {
        if is_set("redis", "prefix") {
            warnings.push(
                "redis.prefix: is set but redis.url is not, so the queue is in store.data_dir and shared with nobody; set \
                 redis.url (KALENDS_REDIS_URL), or remove the prefix"
                    .to_owned(),
            );
        }
        return;
    };
    if is_set("store", "data_dir") {
        warnings
            .push("store.data_dir: is not used, as the queue is in Redis; remove it".to_owned());
    }
    let url = redis.url.expose();
    if value::redis_has_secret(url) && value::redis_is_readable(url) {
        warnings.push(format!(
            "redis.url: sends a password in the clear to {}; use rediss:// if the server speaks TLS",
            redis.address()
        ));
    }
}

fn permissions(given: &Given, warnings: &mut Vec<String>) {
    let stands_in_file =
        |place: &Place, file: u8| matches!(place, Place::File { order, .. } if *order == file);
    let setting_in_file = SETTINGS
        .iter()
        .filter(|setting| setting.kind == Kind::Secret)
        .filter_map(|setting| {
            let value = given.values.get(&(setting.section, setting.key))?;
            // An address without a password is none.
            let is_secret = setting.section != "redis"
                || value::text(&value.raw, setting.kind)
                    .is_ok_and(|url| value::redis_has_secret(&url));
            is_secret.then_some(value.place.as_ref()?)
        })
        .any(|place| stands_in_file(place, 0));
    let token_in_file = |file| {
        given
            .users
            .iter()
            .filter_map(|user| user.field("refresh_token"))
            .any(|(place, _)| stands_in_file(place, file))
    };
    let mut files: BTreeSet<PathBuf> = SECRET_FILES
        .into_iter()
        .filter_map(|(section, key)| {
            let value = given.values.get(&(section, key))?;
            let name = value::text(&value.raw, Kind::Path).ok()?;
            Some(given.resolve(&name, value.place.as_ref()))
        })
        .collect();
    files.extend(given.users.iter().filter_map(|user| {
        let (_, raw) = user.field("refresh_token_file")?;
        let name = value::text(raw, Kind::Path).ok()?;
        Some(given.folder_of(user).join(name))
    }));
    if setting_in_file || token_in_file(0) {
        files.extend(given.path());
    }
    if token_in_file(1) {
        files.extend(given.users_path.clone());
    }
    let open: Vec<&PathBuf> = files
        .iter()
        .filter(|path| is_readable_by_others(path))
        .collect();
    for path in open.iter().take(FILES_NAMED_MAX) {
        let name = path.display();
        warnings.push(format!(
            "{name}: holds secrets and can be read by everybody on this machine; chmod 600 {name}"
        ));
    }
    if open.len() > FILES_NAMED_MAX {
        warnings.push(format!(
            "{} more files with secrets can be read by everybody on this machine; chmod 600 them",
            open.len() - FILES_NAMED_MAX
        ));
    }
}

#[cfg(unix)]
fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    const READ_BY_OTHERS: u32 = 0o004;
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.permissions().mode() & READ_BY_OTHERS != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_path: &Path) -> bool {
    // Elsewhere permissions are lists of their own kind, about which nothing is said.
    false
}
