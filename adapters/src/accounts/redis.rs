//! The register in Redis, beside the queue: one script a question, so each is atomic.
//!
//! | key | what it is |
//! |---|---|
//! | `{prefix}:accounts` | hash by user: `REVISION LETTER JSON`; the letter is `k` for an account, `r` for a removed one |
//! | `{prefix}:account-names` | sorted set of users with an account, by name |
//! | `{prefix}:account-revisions` | sorted set of users by the revision of their last change |
//! | `{prefix}:account-notes` | sorted set of removed users by when that was, in milliseconds |
//! | `{prefix}:account-revision` | text: the last revision |

use async_trait::async_trait;
use kalends_core::id::UserId;
use kalends_core::port::StoreUnavailable;
use kalends_core::time::Timestamp;
use redis::{Script, Value};

use super::row::Row;
use super::{Account, Accounts, Changes, Expected, NOTE_MS, PAGE_MAX, Stored};
use crate::redis::link::{CallError, Link};
use crate::redis::{BadAddress, RedisSettings};

/// Notes of removed accounts that one removal lets go of at the most.
const NOTES_FORGOTTEN_MAX: u32 = 100;

const KEYS: [&str; 5] = [
    "accounts",
    "account-names",
    "account-revisions",
    "account-notes",
    "account-revision",
];

/// user
const FIND: &str = "return redis.call('HGET', KEYS[1], ARGV[1])";

/// user, row, expected revision (0: none)
const PUT: &str = "
local old = redis.call('HGET', KEYS[1], ARGV[1])
local revision, letter = '0', 'r'
if old then revision, letter = string.match(old, '^(%d+) (%a)') end
if letter ~= 'k' then revision = '0' end
if revision ~= ARGV[3] then return 0 end
local next = redis.call('INCR', KEYS[5])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d k %s', next, ARGV[2]))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], next, ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1";

/// user, row, now, whether the graph is to be emptied, when notes are old, how many of them may go
const REMOVE: &str = "
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[5], 'LIMIT', 0, ARGV[6])) do
  redis.call('HDEL', KEYS[1], old)
  redis.call('ZREM', KEYS[3], old)
  redis.call('ZREM', KEYS[4], old)
end
local old = redis.call('HGET', KEYS[1], ARGV[1])
local was_there = old and string.match(old, '^%d+ k') and 1 or 0
if was_there == 0 and ARGV[4] ~= '1' then return 0 end
local next = redis.call('INCR', KEYS[5])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d r %s', next, ARGV[2]))
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], next, ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return was_there";

/// user, row; only a removed account is written
const PURGED: &str = "
local old = redis.call('HGET', KEYS[1], ARGV[1])
local revision = old and string.match(old, '^(%d+) r')
if revision then redis.call('HSET', KEYS[1], ARGV[1], revision .. ' r ' .. ARGV[2]) end
return 1";

/// '-' or '(' and the last name, limit
const PAGE: &str = "
local names = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], '+', 'LIMIT', 0, ARGV[2])
if #names == 0 then return {} end
return redis.call('HMGET', KEYS[1], unpack(names))";

/// the last revision seen, limit
const CHANGES: &str = "
local names = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
local rows = {}
if #names > 0 then rows = redis.call('HMGET', KEYS[1], unpack(names)) end
return {redis.call('GET', KEYS[5]) or '0', names, rows}";

/// The register in a Redis. It connects when it is first asked, and reading alone leaves nothing in a Redis that nobody uses.
#[derive(Debug)]
pub struct RedisAccounts {
    reading: Link,
    writing: Link,
    keys: Vec<String>,
}

impl RedisAccounts {
    /// The register at this address. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address or the prefix cannot be understood.
    pub fn new(settings: &RedisSettings) -> Result<Self, BadAddress> {
        let prefix = &settings.prefix;
        Ok(RedisAccounts {
            reading: Link::only_looking(settings)?,
            writing: Link::new(settings)?,
            keys: KEYS.map(|key| format!("{{{prefix}}}:{key}")).to_vec(),
        })
    }

    async fn read(&self, script: &str, arguments: &[&str]) -> Result<Value, StoreUnavailable> {
        self.ask(&self.reading, script, arguments).await
    }

    async fn write(&self, script: &str, arguments: &[&str]) -> Result<Value, StoreUnavailable> {
        self.ask(&self.writing, script, arguments).await
    }

    async fn ask(
        &self,
        link: &Link,
        script: &str,
        arguments: &[&str],
    ) -> Result<Value, StoreUnavailable> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|text| text.as_bytes()).collect();
        let script = Script::new(script);
        let answer = link.call(&script, &self.keys, &arguments).await;
        answer.map_err(|CallError { detail, .. }| StoreUnavailable { detail })
    }
}

fn misread() -> StoreUnavailable {
    StoreUnavailable {
        detail: "what Redis answered for the accounts cannot be read: does another version of Kalends, or another program, \
                 write keys with this redis.prefix?"
            .to_owned(),
    }
}

fn read<T: redis::FromRedisValue>(value: Value) -> Result<T, StoreUnavailable> {
    redis::from_redis_value(value).map_err(|_| misread())
}

fn read_row(text: &str) -> Result<(u64, Row), StoreUnavailable> {
    let mut parts = text.splitn(3, ' ');
    let revision = parts.next().and_then(|number| number.parse().ok());
    let json = parts.nth(1);
    let (Some(revision), Some(json)) = (revision, json) else {
        return Err(misread());
    };
    let row = Row::read(json).map_err(|detail| StoreUnavailable { detail })?;
    Ok((revision, row))
}

fn kept(row: (u64, Row)) -> Option<Stored> {
    match row {
        (revision, Row::Kept(account)) => Some(Stored { revision, account }),
        _ => None,
    }
}

#[async_trait]
impl Accounts for RedisAccounts {
    async fn find(&self, user: &UserId) -> Result<Option<Stored>, StoreUnavailable> {
        let found: Option<String> = read(self.read(FIND, &[user.as_str()]).await?)?;
        let row = found.map(|text| read_row(&text)).transpose()?;
        Ok(row.and_then(kept))
    }

    async fn put(&self, account: Account, expected: Expected) -> Result<bool, StoreUnavailable> {
        let user = account.user.clone();
        let expected = match expected {
            Expected::Absent => 0,
            Expected::Revision(revision) => revision,
        };
        let row = Row::Kept(account).text();
        let arguments = [user.as_str(), &row, &expected.to_string()];
        let written: u8 = read(self.write(PUT, &arguments).await?)?;
        Ok(written == 1)
    }

    async fn remove(
        &self,
        user: &UserId,
        purge: bool,
        now: Timestamp,
    ) -> Result<bool, StoreUnavailable> {
        let row = Row::Removed { purge }.text();
        let old = now.as_ms().saturating_sub_unsigned(NOTE_MS);
        let arguments = [
            user.as_str(),
            &row,
            &now.as_ms().to_string(),
            if purge { "1" } else { "0" },
            &old.to_string(),
            &NOTES_FORGOTTEN_MAX.to_string(),
        ];
        let was_there: u8 = read(self.write(REMOVE, &arguments).await?)?;
        Ok(was_there == 1)
    }

    async fn purged(&self, user: &UserId) -> Result<(), StoreUnavailable> {
        let row = Row::Removed { purge: false }.text();
        self.write(PURGED, &[user.as_str(), &row]).await.map(drop)
    }

    async fn page(
        &self,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreUnavailable> {
        let from = after.map_or_else(|| "-".to_owned(), |user| format!("({user}"));
        let limit = limit.min(PAGE_MAX).to_string();
        let rows: Vec<String> = read(self.read(PAGE, &[&from, &limit]).await?)?;
        let mut page = Vec::new();
        for text in rows {
            page.extend(kept(read_row(&text)?));
        }
        Ok(page)
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Changes, StoreUnavailable> {
        let limit = limit.min(PAGE_MAX).to_string();
        let answer = self.read(CHANGES, &[&after.to_string(), &limit]).await?;
        let (last, names, rows): (String, Vec<String>, Vec<String>) = read(answer)?;
        let revision = last.parse().map_err(|_| misread())?;
        let mut changes = Vec::new();
        for (name, text) in names.into_iter().zip(rows) {
            let (revision, row) = read_row(&text)?;
            let user = UserId::new(&name).map_err(|_| misread())?;
            changes.push((revision, row.change(user)));
        }
        Ok(Changes { changes, revision })
    }
}
