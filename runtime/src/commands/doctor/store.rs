//! The store: a folder of this machine, or a Redis.

use std::io::ErrorKind;
use std::sync::Arc;

use kalends_adapters::embedded::{EmbeddedStore, FILE_NAME, LOCK_NAME, OpenError};
use kalends_adapters::redis::{RedisStore, ServerFacts, Unusable};
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::Store;
use kalends_core::queue::command::{BATCH_MAX, Command, Reply};
use kalends_core::queue::state::UserState;
use kalends_core::time::{Clock as _, SECOND_MS};

use super::Findings;
use crate::clock::SystemClock;
use crate::commands::users::is_in_use;
use crate::config::{Config, RedisConfig};

const ROOM: &str = "store";
/// A clock that is further off than this is worth a word, in milliseconds.
const CLOCK_OFF_MS: u64 = 2 * SECOND_MS;
/// An answer that takes longer makes every sync slower, in milliseconds.
const ANSWER_SLOW_MS: u64 = 100;

/// What the store knows of users; nobody if it cannot be read.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) users: Vec<(UserId, UserState)>,
}

pub(super) async fn look(config: &Config, findings: &mut Findings) -> Seen {
    let store: Option<Arc<dyn Store>> = match &config.redis {
        Some(redis) => in_redis(redis, findings).await,
        None => in_folder(config, findings),
    };
    match store {
        None => Seen::default(),
        Some(store) => match read_users(&*store).await {
            Ok(users) => Seen { users },
            Err(detail) => {
                findings.wrong(ROOM, detail, "");
                Seen::default()
            }
        },
    }
}

async fn read_users(store: &dyn Store) -> Result<Vec<(UserId, UserState)>, String> {
    let mut all: Vec<(UserId, UserState)> = Vec::new();
    loop {
        let command = Command::Users {
            source: SourceName::google_calendar(),
            after: all.last().map(|(user, _)| user.clone()),
            limit: u32::try_from(BATCH_MAX).expect("a batch is small"),
        };
        let stamped = store.apply(command).await;
        match stamped.map_err(|unavailable| unavailable.detail)?.value {
            Reply::Users { users } if users.is_empty() => return Ok(all),
            Reply::Users { users } => all.extend(users),
            Reply::Refused { refusal } => return Err(refusal.to_string()),
            other => panic!("users were asked for, not {other:?}"),
        }
    }
}

async fn in_redis(config: &RedisConfig, findings: &mut Findings) -> Option<Arc<dyn Store>> {
    let store = match RedisStore::only_looking(&config.settings()) {
        Ok(store) => store,
        Err(bad) => {
            findings.wrong(ROOM, format!("redis.url: {bad}"), "");
            return None;
        }
    };
    let now_ms = || SystemClock.now().as_ms();
    let facts = match store.facts(&config.prefix, now_ms).await {
        Ok(facts) => facts,
        Err(Unusable::Away { detail }) => {
            let remedy =
                "start that Redis, or correct redis.url; `kalends run` waits for it meanwhile";
            findings.wrong(ROOM, detail, remedy);
            return None;
        }
        Err(Unusable::Refused { detail }) => {
            findings.wrong(ROOM, detail, "");
            return None;
        }
    };
    tell_facts(&facts, &config.address(), &config.prefix, findings);
    Some(Arc::new(store))
}

/// What a Redis that may be used says of itself.
fn tell_facts(facts: &ServerFacts, at: &str, prefix: &str, findings: &mut Findings) {
    let version = facts
        .version
        .as_deref()
        .unwrap_or("a Redis that does not tell its version");
    let (ahead_ms, answer_ms) = (facts.clock_ahead_ms, facts.answer_ms);
    findings.good(
        ROOM,
        format!("{version} at {at}, prefix {prefix}; it answered within {answer_ms} ms"),
    );
    match facts.memory_policy.as_deref() {
        Some(policy) => findings.good(ROOM, format!("maxmemory-policy is {policy}")),
        None => findings.unwise(
            ROOM,
            "this Redis user may not ask for maxmemory-policy",
            "make sure yourself that it is noeviction",
        ),
    }
    if facts.keeps_log == Some(false) {
        findings.unwise(
            ROOM,
            "Redis keeps no append-only file: the last seconds before its end are lost",
            "set `appendonly yes`, unless syncing these users once more is all right",
        );
    }
    let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let off_ms = ahead_ms.unsigned_abs();
    let words = format!(
        "the clock of Redis is {off_ms} ms {direction} this machine's (known up to {answer_ms} ms)"
    );
    if off_ms > CLOCK_OFF_MS + answer_ms {
        findings.unwise(
            ROOM,
            words,
            "have both machines set their clocks by NTP; Kalends goes by the one of Redis",
        );
    } else {
        findings.good(ROOM, words);
    }
    if answer_ms > ANSWER_SLOW_MS {
        findings.unwise(
            ROOM,
            "that Redis answers slowly",
            "run Kalends nearer to it",
        );
    }
}

fn in_folder(config: &Config, findings: &mut Findings) -> Option<Arc<dyn Store>> {
    let folder = &config.store.data_dir;
    let shown = folder.display();
    match EmbeddedStore::open_read_only(folder, Arc::new(SystemClock)) {
        Ok(store) => {
            let path = folder.join(FILE_NAME);
            if is_in_use(folder) {
                findings.good(
                    ROOM,
                    format!("{}: a process is running on it", path.display()),
                );
            } else {
                findings.good(ROOM, format!("{}: no process has it", path.display()));
                writable(config, findings);
            }
            Some(Arc::new(store))
        }
        Err(OpenError::Missing { .. }) => {
            findings.good(
                ROOM,
                format!("{shown}: no store yet, the first start makes it"),
            );
            writable(config, findings);
            None
        }
        Err(error) => {
            findings.wrong(ROOM, error.to_string(), "");
            None
        }
    }
}

/// Whether the folder, or the one in which it is to be made, lets itself be written.
fn writable(config: &Config, findings: &mut Findings) {
    let folder = &config.store.data_dir;
    let mut existing = folder
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty() && path.exists());
    let place = existing.next().unwrap_or(std::path::Path::new("."));
    let tried = if place == folder && place.join(LOCK_NAME).exists() {
        // Opening changes nothing.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(place.join(LOCK_NAME));
        file.map(drop)
    } else {
        tempfile::Builder::new()
            .prefix(".kalends-doctor")
            .tempfile_in(place)
            .map(drop)
    };
    if let Err(error) = tried {
        let what = format!("{} cannot be written: {error}", place.display());
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => {
                "give this user leave to write there, or name another store.data_dir"
            }
            _ => "look at the disk, or name another store.data_dir",
        };
        findings.wrong(ROOM, what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const GOOD: ServerFacts = ServerFacts {
        version: None,
        memory_policy: None,
        keeps_log: Some(true),
        clock_ahead_ms: 0,
        answer_ms: 1,
    };

    /// The findings that are not good, with what to do.
    fn bad(facts: &ServerFacts) -> Vec<(Verdict, String, String)> {
        let mut findings = Findings::default();
        tell_facts(facts, "127.0.0.1:6379", "kalends", &mut findings);
        let bad = findings.0.into_iter();
        bad.filter(|finding| finding.verdict != Verdict::Good)
            .map(|finding| (finding.verdict, finding.what, finding.remedy.unwrap()))
            .collect()
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_its_direction_and_its_cure() {
        let good = ServerFacts {
            version: Some("Redis 7.2.4".to_owned()),
            memory_policy: Some("noeviction".to_owned()),
            ..GOOD
        };
        assert_eq!(bad(&good), []);
        let limit_ms = i64::try_from(CLOCK_OFF_MS).unwrap();
        for (ahead_ms, direction) in [(limit_ms + 2, "ahead of"), (-limit_ms - 2, "behind")] {
            let mut off = good.clone();
            off.clock_ahead_ms = ahead_ms;
            let [(verdict, what, remedy)] = &bad(&off)[..] else {
                panic!("{:?}", bad(&off));
            };
            assert_eq!(*verdict, Verdict::Unwise);
            assert!(what.contains(&format!("2002 ms {direction}")), "{what}");
            assert!(remedy.contains("NTP"), "{remedy}");
            // Within what the length of the answer leaves open, nothing is known.
            off.answer_ms = 2;
            assert_eq!(bad(&off), []);
        }
    }

    #[test]
    fn a_slow_redis_without_a_log_whose_policy_is_not_known_is_told_three_times() {
        let facts = ServerFacts {
            keeps_log: Some(false),
            answer_ms: ANSWER_SLOW_MS + 1,
            ..GOOD
        };
        let bad = bad(&facts);
        let has = |what: &str, remedy: &str| {
            let mut found = bad.iter();
            found.any(|(verdict, told, cure)| {
                *verdict == Verdict::Unwise && told.contains(what) && cure.contains(remedy)
            })
        };
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(has("maxmemory-policy", "noeviction"), "{bad:?}");
        assert!(has("no append-only file", "appendonly yes"), "{bad:?}");
        assert!(has("slowly", "nearer"), "{bad:?}");
    }
}
