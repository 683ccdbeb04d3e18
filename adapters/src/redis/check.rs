//! Whether a server may be used as it is.
//!
//! A queue in a Redis that evicts keys loses jobs without a word; in a replica nothing can be written; a format of
//! another version would be misread. Each is found here before the first command, and again at each reconnecting, for
//! after a failover the server is another one. It costs one `INFO` and one small transaction of the format key, and for
//! a server not met before one question more.
//!
//! A user that may not ask (`INFO` and `CONFIG` are `@dangerous` to Redis' access lists) is warned and let through: what
//! could not be seen is not held against the server.

use redis::{RedisError, Value};

use super::failure::{CallError, ends_connection, shown};
use super::link::dial::{Connection, Dialer};

/// What the format key holds if this version may use what is there.
pub(super) const FORMAT: &str = "kalends 1";

/// The oldest Redis whose scripts and commands suffice.
const VERSION_MIN: (u64, u64) = (6, 2);

/// A server that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Which run of which server it was; `None` if it did not say.
    run_id: Option<String>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Commands that change the queue.
    Work,
    /// Only to be looked at: nothing is written, not even the format.
    Look,
}

/// The key that says which version's data stand there.
pub(super) fn format_key(prefix: &str) -> String {
    format!("{{{prefix}}}:format")
}

/// Looks whether the server at the other end may be used. What is only unwise is warned of, once for each run of a
/// server: `checked_before` is what the last check gave.
///
/// # Errors
/// Why it must not be used, or cannot be used yet.
pub(super) async fn check(
    connection: &Connection,
    dialer: &Dialer,
    (prefix, purpose): (&str, Purpose),
    checked_before: Option<&Checked>,
) -> Result<Checked, CallError> {
    let info = match connection.ask::<String>(&redis::cmd("INFO")).await {
        Ok(text) => Some(text),
        Err(error) if is_forbidden(&error) => None,
        Err(error) => return Err(told(connection, &error)),
    };
    let info = info.as_deref().unwrap_or_default();
    let checked = Checked {
        run_id: field(info, "run_id").map(str::to_owned),
    };
    let is_new = checked.run_id.is_none() || Some(&checked) != checked_before;
    let address = &connection.address;
    judge(info, address, dialer)?;
    let policy = match field(info, "maxmemory_policy") {
        Some(policy) => Some(policy.to_owned()),
        None => setting(connection, "maxmemory-policy").await?,
    };
    match policy.as_deref() {
        Some("noeviction") => {}
        Some(policy) => {
            return Err(CallError::refused(format!(
                "Redis at {address} evicts keys when its memory is full (maxmemory-policy {}), so jobs would vanish: set \
                 `maxmemory-policy noeviction` in its configuration",
                shown(policy, 64)
            )));
        }
        None if is_new => tracing::warn!(
            server = %address,
            "this user may ask Redis neither for INFO nor for CONFIG GET: make sure yourself that maxmemory-policy is noeviction"
        ),
        None => {}
    }
    if is_new
        && field(info, "aof_enabled") == Some("0")
        && setting(connection, "save").await?.as_deref() == Some("")
    {
        tracing::warn!(
            server = %address,
            "Redis keeps nothing on its disk (neither AOF nor RDB): what is acknowledged is lost when it restarts; set appendonly yes"
        );
    }
    look_at_format(connection, prefix, purpose).await?;
    Ok(checked)
}

/// What `INFO` alone shows. A field that is not there is not held against the server.
fn judge(info: &str, address: &str, dialer: &Dialer) -> Result<(), CallError> {
    let refuse = |text: String| Err(CallError::refused(text));
    match field(info, "redis_mode") {
        Some("sentinel") => {
            return refuse(format!(
                "{address} is a sentinel, not a Redis that holds data: write redis+sentinel://host:port/service-name"
            ));
        }
        Some("cluster") if !dialer.is_cluster() => {
            return refuse(format!(
                "Redis at {address} is a node of a Cluster: write redis+cluster://host:port,host:port"
            ));
        }
        _ => {}
    }
    let is_valkey = field(info, "server_name") == Some("valkey");
    if let Some(version) = field(info, "redis_version")
        && !is_valkey
        && version_of(version).is_some_and(|version| version < VERSION_MIN)
    {
        return refuse(format!(
            "Redis at {address} is of version {}: {}.{} or newer is needed (or Valkey)",
            shown(version, 32),
            VERSION_MIN.0,
            VERSION_MIN.1
        ));
    }
    if field(info, "loading") == Some("1") {
        return Err(CallError::away(format!(
            "Redis at {address} is loading its data: it will answer when that is done"
        )));
    }
    if field(info, "role") == Some("slave") {
        if dialer.follows_failover() || field(info, "master_link_status") == Some("down") {
            return Err(CallError::away(format!(
                "Redis at {address} is a replica and no master (yet): a failover may be going on"
            )));
        }
        return refuse(format!(
            "Redis at {address} is a replica: give the master's address, or redis+sentinel:// to have it followed"
        ));
    }
    Ok(())
}

/// Looks at what the format key holds; whoever means to work writes it first, if there is none.
async fn look_at_format(
    connection: &Connection,
    prefix: &str,
    purpose: Purpose,
) -> Result<(), CallError> {
    let key = format_key(prefix);
    let mut commands = redis::pipe();
    if purpose == Purpose::Work {
        commands.cmd("SET").arg(&key).arg(FORMAT).arg("NX").ignore();
    }
    commands.cmd("GET").arg(&key);
    let (found,): (Option<String>,) = commands
        .query_async(&mut connection.handle())
        .await
        .map_err(|error| told(connection, &first_of(error)))?;
    match found.as_deref() {
        Some(FORMAT) => Ok(()),
        None if purpose == Purpose::Look => Ok(()),
        found => Err(CallError::refused(format!(
            "the data under `{key}` in Redis at {} were written by another version (format `{}`, this one knows `{FORMAT}`): \
             use that version, or another prefix",
            connection.address,
            shown(found.unwrap_or_default(), 64)
        ))),
    }
}

/// The value of one setting of the server; `None` if this user may not ask, or the server does not know it.
async fn setting(connection: &Connection, name: &str) -> Result<Option<String>, CallError> {
    let answer: Result<Value, RedisError> = connection
        .ask(redis::cmd("CONFIG").arg("GET").arg(name))
        .await;
    match answer {
        Ok(Value::Map(pairs)) => Ok(pairs
            .into_iter()
            .next()
            .and_then(|(_, value)| redis::from_redis_value(value).ok())),
        Ok(_) => Ok(None),
        // Services that run a Redis for others often have no CONFIG at all.
        Err(error) if is_forbidden(&error) || error.code() == Some("ERR") => Ok(None),
        Err(error) => Err(told(connection, &error)),
    }
}

/// Of several errors in a pipeline, the first: it has a code of its own.
fn first_of(error: RedisError) -> RedisError {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => first.clone().into(),
        _ => error,
    }
}

fn told(connection: &Connection, error: &RedisError) -> CallError {
    if ends_connection(error) {
        connection.give_up();
    }
    CallError::new(error, &connection.address)
}

fn is_forbidden(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

/// The value of `name` in an answer to `INFO`, which is lines of `name:value`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn version_of(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::RedisSettings;
    use crate::secret::Secret;

    fn judged(url: &str, info: &str) -> Result<(), (bool, String)> {
        let settings = RedisSettings {
            url: Secret::new(url),
            prefix: "kalends".to_owned(),
            ca_file: None,
            connect_timeout_ms: 1,
            response_timeout_ms: 1,
        };
        let dialer = Dialer::new(&settings, format_key(&settings.prefix)).unwrap();
        let info = info.replace(' ', "\r\n");
        judge(&info, "host:1", &dialer).map_err(|error| (error.is_refusal, error.detail))
    }

    #[test]
    fn servers_are_judged_by_what_they_say_of_themselves() {
        const SINGLE: &str = "redis://host";
        const SENTINEL: &str = "redis+sentinel://host/main";
        const CLUSTER: &str = "redis+cluster://host";
        for (url, info) in [
            (SINGLE, ""),
            (
                SINGLE,
                "redis_version:6.2.0 redis_mode:standalone role:master loading:0",
            ),
            (SINGLE, "redis_version:10.0.1 role:master"),
            (SINGLE, "redis_version:odd"),
            (
                SINGLE,
                "redis_version:6.0.0 server_name:valkey valkey_version:9.0.0 role:master",
            ),
            (
                CLUSTER,
                "redis_version:7.0.15 redis_mode:cluster role:master",
            ),
        ] {
            assert_eq!(judged(url, info), Ok(()), "{info}");
        }
        for (url, info, refusal, words) in [
            (SINGLE, "redis_version:6.0.16", true, "6.2 or newer"),
            (SINGLE, "redis_version:5.9", true, "6.2 or newer"),
            (SINGLE, "redis_mode:sentinel", true, "redis+sentinel://"),
            (
                SINGLE,
                "redis_mode:cluster role:master",
                true,
                "redis+cluster://",
            ),
            (SINGLE, "redis_version:7.0.0 loading:1", false, "loading"),
            (
                SINGLE,
                "role:slave master_link_status:up",
                true,
                "give the master's address",
            ),
            (
                SINGLE,
                "role:slave master_link_status:down",
                false,
                "failover",
            ),
            (
                SENTINEL,
                "role:slave master_link_status:up",
                false,
                "failover",
            ),
            (
                CLUSTER,
                "redis_mode:cluster role:slave master_link_status:up",
                false,
                "failover",
            ),
        ] {
            let (is_refusal, detail) = judged(url, info).unwrap_err();
            assert_eq!(is_refusal, refusal, "{info}: {detail}");
            assert!(detail.contains(words), "{info}: {detail}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Memory\r\nxmaxmemory:1\r\nmaxmemory_policy:noeviction\r\nmaxmemory:7\r\n";
        assert_eq!(field(info, "maxmemory"), Some("7"));
        assert_eq!(field(info, "maxmemory_policy"), Some("noeviction"));
        assert_eq!(field(info, "policy"), None);
    }
}
