//! Scripts that held the server up, as its `SLOWLOG` has them: whatever takes longer than a few milliseconds there makes
//! everybody wait.
//!
//! A shared machine stops the server now and then, for milliseconds. So there is a control in the same run: as many scripts
//! that only count, each about as long as ours were on average. What is slow among them is the machine's doing.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

/// A script that takes longer is counted, in microseconds.
const SLOW_MICROSECONDS: u64 = 5_000;
/// The slowest is told if it took longer than this, in microseconds.
const TOLD_MICROSECONDS: u64 = 1_500;
/// So many slow commands the server remembers.
const REMEMBERED_MAX: u64 = 8_192;
/// Scripts of the control at the most.
const CONTROLS_MAX: u64 = 100_000;
/// Turns of the control's loop in the run by which its speed is found.
const TRIAL_TURNS: u64 = 200_000;
/// What the control does: no I/O, nothing to be collected.
const CONTROL: &str =
    "local sum = 0 for i = 1, tonumber(ARGV[1]) do sum = (sum + i) % 7 end return sum";
const THRESHOLD: &str = "slowlog-log-slower-than";
const LENGTH: &str = "slowlog-max-len";

/// A watch over the server's slow commands; the server's own settings come back with [`SlowLog::end`].
pub(crate) struct SlowLog {
    connection: MultiplexedConnection,
    before: Vec<(String, String)>,
    ran_before: Ran,
}

/// What was seen.
pub(crate) struct Slow {
    pub(crate) scripts: f64,
    pub(crate) slowest_ms: f64,
    /// The same of the control.
    pub(crate) controls: f64,
    pub(crate) slowest_control_ms: f64,
    /// How long a script took on average, and one of the control.
    pub(crate) average_ms: f64,
    pub(crate) average_control_ms: f64,
}

/// Scripts that the server has run, and how long they took in all.
#[derive(Clone, Copy)]
struct Ran {
    calls: u64,
    microseconds: u64,
}

impl Ran {
    fn since(self, before: Ran) -> Ran {
        Ran {
            calls: self.calls - before.calls,
            microseconds: self.microseconds - before.microseconds,
        }
    }

    fn average_ms(self) -> f64 {
        self.microseconds as f64 / self.calls.max(1) as f64 / 1e3
    }
}

impl SlowLog {
    pub(crate) async fn begin(mut connection: MultiplexedConnection) -> RedisResult<SlowLog> {
        let mut before = Vec::new();
        for (name, value) in [(THRESHOLD, TOLD_MICROSECONDS), (LENGTH, REMEMBERED_MAX)] {
            let had: Vec<String> = redis::cmd("CONFIG")
                .arg(&["GET", name])
                .query_async(&mut connection)
                .await?;
            before.extend(had.get(1).map(|had| (name.to_owned(), had.clone())));
            set(&mut connection, name, &value.to_string()).await?;
        }
        reset(&mut connection).await?;
        Ok(SlowLog {
            ran_before: ran(&mut connection).await?,
            connection,
            before,
        })
    }

    pub(crate) async fn end(mut self) -> RedisResult<Slow> {
        let of_scripts = ran(&mut self.connection).await?.since(self.ran_before);
        let (scripts, slowest_ms) = seen(&mut self.connection).await?;
        let of_controls = self.control(of_scripts).await?;
        let (controls, slowest_control_ms) = seen(&mut self.connection).await?;
        for (name, value) in &self.before {
            set(&mut self.connection, name, value).await?;
        }
        Ok(Slow {
            scripts,
            slowest_ms,
            controls,
            slowest_control_ms,
            average_ms: of_scripts.average_ms(),
            average_control_ms: of_controls.average_ms(),
        })
    }

    /// Runs the control: as many scripts, and as long.
    async fn control(&mut self, like: Ran) -> RedisResult<Ran> {
        let digest: String = redis::cmd("SCRIPT")
            .arg(&["LOAD", CONTROL])
            .query_async(&mut self.connection)
            .await?;
        let count = |turns: u64| {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&digest).arg(0).arg(turns);
            command
        };
        let before = ran(&mut self.connection).await?;
        count(TRIAL_TURNS)
            .query_async::<u64>(&mut self.connection)
            .await?;
        let trial = ran(&mut self.connection).await?.since(before);
        let wanted = like.microseconds as f64 / like.calls.max(1) as f64;
        let turns = wanted / trial.microseconds.max(1) as f64 * TRIAL_TURNS as f64;
        let command = count(turns as u64);
        reset(&mut self.connection).await?;
        let before = ran(&mut self.connection).await?;
        for _ in 0..like.calls.min(CONTROLS_MAX) {
            command.query_async::<u64>(&mut self.connection).await?;
        }
        Ok(ran(&mut self.connection).await?.since(before))
    }
}

/// How many scripts in the log took too long, and how long the slowest took, in milliseconds; 0 if it is not in the log.
async fn seen(connection: &mut MultiplexedConnection) -> RedisResult<(f64, f64)> {
    let entries: Vec<Vec<Value>> = redis::cmd("SLOWLOG")
        .arg("GET")
        .arg(REMEMBERED_MAX)
        .query_async(connection)
        .await?;
    let took: Vec<u64> = entries.iter().filter_map(|entry| script(entry)).collect();
    let slow = took.iter().filter(|took| **took > SLOW_MICROSECONDS);
    let slowest = took.iter().max().copied().unwrap_or_default();
    Ok((slow.count() as f64, slowest as f64 / 1e3))
}

async fn ran(connection: &mut MultiplexedConnection) -> RedisResult<Ran> {
    let text: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(connection)
        .await?;
    let of_scripts = text
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let numbers = of_scripts.and_then(|rest| {
        let (calls, rest) = rest.split_once(",usec=")?;
        let (microseconds, _) = rest.split_once(',')?;
        Some((calls.parse().ok()?, microseconds.parse().ok()?))
    });
    let (calls, microseconds) = numbers.unwrap_or_default();
    Ok(Ran {
        calls,
        microseconds,
    })
}

async fn reset(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("SLOWLOG")
        .arg("RESET")
        .query_async(connection)
        .await
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
