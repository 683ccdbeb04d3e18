//! What a server says of itself, for `kalends doctor`.

use std::time::Instant;

use redis::Script;

use super::RedisStore;
use super::Unusable;
use super::check::format_key;
use super::failure::shown;

/// The longest text of the server's that is repeated, in characters.
const TEXT_CHARS_MAX: usize = 32;

/// A server that may be used, and what it says of itself; `None`: this user may not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its name and version, like `Redis 7.2.4`.
    pub version: Option<String>,
    /// What it does when its memory is full.
    pub memory_policy: Option<String>,
    /// Whether what it acknowledged survives its end: by its append-only file.
    pub keeps_log: Option<bool>,
    /// How far its clock is ahead of `now_ms` as it was given, in milliseconds; known up to half of `answer_ms`.
    pub clock_ahead_ms: i64,
    /// How long the answer took, in milliseconds.
    pub answer_ms: u64,
}

const ASK: &str = "
local time = redis.call('TIME')
local told = redis.pcall('INFO')
if type(told) == 'table' then told = '' end
return {time[1], time[2], told}";

impl RedisStore {
    /// Looks whether the server may be used, and asks it for its facts. `now_ms` is this machine's clock, read when it is
    /// called.
    ///
    /// # Errors
    /// As [`RedisStore::check`].
    pub async fn facts(
        &self,
        prefix: &str,
        now_ms: impl Fn() -> i64 + Send,
    ) -> Result<ServerFacts, Unusable> {
        self.check().await?;
        let away = |detail: String| Unusable::Away { detail };
        let (begun, before_ms) = (Instant::now(), now_ms());
        let link = self.asker.link();
        let answer = link
            .call(&Script::new(ASK), &[format_key(prefix)], &[])
            .await
            .map_err(|error| away(error.detail))?;
        let answer_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let read: Result<(String, String, String), _> = redis::from_redis_value(answer);
        let unreadable = || away("Redis does not tell its time; is it a Redis?".to_owned());
        let (seconds, micros, info) = read.map_err(|_| unreadable())?;
        let (Ok(seconds), Ok(micros)) = (seconds.parse::<i64>(), micros.parse::<i64>()) else {
            return Err(unreadable());
        };
        let server_ms = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        let middle_ms = before_ms.saturating_add_unsigned(answer_ms / 2);
        let text = |name: &str| {
            let found = info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.map(|value| shown(value.trim(), TEXT_CHARS_MAX))
        };
        Ok(ServerFacts {
            version: text("valkey_version")
                .map(|version| format!("Valkey {version}"))
                .or_else(|| text("redis_version").map(|version| format!("Redis {version}"))),
            memory_policy: text("maxmemory_policy"),
            keeps_log: text("aof_enabled").map(|enabled| enabled == "1"),
            clock_ahead_ms: server_ms.saturating_sub(middle_ms),
            answer_ms,
        })
    }
}
