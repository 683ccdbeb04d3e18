//! Scripts that held the server up, as its `SLOWLOG` has them: whatever takes longer than a few milliseconds there makes
//! everybody wait.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

/// A script that takes longer is counted, in microseconds.
const SLOW_MICROSECONDS: u64 = 5_000;
/// So many slow commands the server remembers.
const REMEMBERED_MAX: u64 = 1_024;
const THRESHOLD: &str = "slowlog-log-slower-than";
const LENGTH: &str = "slowlog-max-len";

/// A watch over the server's slow commands; the server's own settings come back with [`SlowLog::end`].
pub(crate) struct SlowLog {
    connection: MultiplexedConnection,
    before: Vec<(String, String)>,
}

/// What was seen.
pub(crate) struct Slow {
    pub(crate) scripts: f64,
    pub(crate) slowest_ms: f64,
}

impl SlowLog {
    pub(crate) async fn begin(mut connection: MultiplexedConnection) -> RedisResult<SlowLog> {
        let mut before = Vec::new();
        for (name, value) in [(THRESHOLD, SLOW_MICROSECONDS), (LENGTH, REMEMBERED_MAX)] {
            let had: Vec<String> = redis::cmd("CONFIG")
                .arg(&["GET", name])
                .query_async(&mut connection)
                .await?;
            before.extend(had.get(1).map(|had| (name.to_owned(), had.clone())));
            set(&mut connection, name, &value.to_string()).await?;
        }
        redis::cmd("SLOWLOG")
            .arg("RESET")
            .query_async::<()>(&mut connection)
            .await?;
        Ok(SlowLog { connection, before })
    }

    pub(crate) async fn end(mut self) -> RedisResult<Slow> {
        let entries: Vec<Vec<Value>> = redis::cmd("SLOWLOG")
            .arg("GET")
            .arg(REMEMBERED_MAX)
            .query_async(&mut self.connection)
            .await?;
        for (name, value) in &self.before {
            set(&mut self.connection, name, value).await?;
        }
        let slow: Vec<u64> = entries.iter().filter_map(|entry| script(entry)).collect();
        Ok(Slow {
            scripts: slow.len() as f64,
            slowest_ms: slow
                .iter()
                .max()
                .map_or(0.0, |slowest| *slowest as f64 / 1e3),
        })
    }
}

async fn set(connection: &mut MultiplexedConnection, name: &str, value: &str) -> RedisResult<()> {
    redis::cmd("CONFIG")
        .arg(&["SET", name, value])
        .query_async(connection)
        .await
}

/// How long a script took, in microseconds; nothing for other commands. An entry is: number, time, duration, arguments,
/// and more (the documentation of `SLOWLOG GET`).
fn script(entry: &[Value]) -> Option<u64> {
    let [_, _, Value::Int(microseconds), Value::Array(arguments), ..] = entry else {
        return None;
    };
    let Value::BulkString(name) = arguments.first()? else {
        return None;
    };
    let is_script = name.eq_ignore_ascii_case(b"EVALSHA") || name.eq_ignore_ascii_case(b"EVAL");
    is_script.then(|| microseconds.unsigned_abs())
}
