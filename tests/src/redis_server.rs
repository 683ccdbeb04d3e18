//! A real `redis-server`, started by the test on a port and in a folder of its own.
//!
//! A test does to it what happens to servers: it is killed and comes back on the same port with what it had on disk,
//! it is stopped for a while, it is told to be a replica, to refuse writes, to forget everything. Nothing is shared
//! between tests, and no server outlives the value that stands for it.
//!
//! Ports are taken from below those that the system gives to outgoing connections: a client that knocks at a dead
//! server's port would else, now and then, be connected to itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kalends_adapters::redis::{RedisSettings, RedisStore};
use kalends_adapters::secret::Secret;
use kalends_core::time::Timestamp;
use redis::Value;

use crate::process::{PATIENCE, send_signal, wait_until};

/// Ports are given from here ...
const PORT_MIN: u16 = 12_000;
/// ... to here, exclusively: below what Linux takes for outgoing connections (from 32768).
const PORT_MAX: u16 = 32_000;
/// How often another port is tried before a test gives up.
const PORT_TRIES_MAX: u32 = 50;
/// How long one answer to the test itself may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How much of the end of a log is shown when a test fails, in bytes.
const LOG_TAIL_BYTES: usize = 6_000;

/// Lines of `redis.conf`. Without any: nothing is kept on disk, no password, loopback only.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    lines: Vec<(String, String)>,
}

impl RedisOptions {
    /// With one more line, `name value`; a later one of the same name wins where Redis allows one only.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Every write is on disk before its answer: what was acknowledged survives SIGKILL and more.
    #[must_use]
    pub fn durable(self) -> Self {
        self.set("appendonly", "yes").set("appendfsync", "always")
    }
}

/// A running (or killed, or stopped) `redis-server`.
pub struct RedisServer {
    /// Its port on 127.0.0.1, the same for all its lives.
    pub port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
    password: Option<String>,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If there is no `redis-server`, or it does not start with these lines.
    #[must_use]
    pub fn start(options: &RedisOptions) -> RedisServer {
        for _ in 0..PORT_TRIES_MAX {
            let mut server = RedisServer::prepare(free_port(), options);
            server.spawn();
            if server.comes_up() {
                server.wait_until_ready();
                return server;
            }
        }
        panic!("found no free port in {PORT_TRIES_MAX} tries");
    }

    fn prepare(port: u16, options: &RedisOptions) -> RedisServer {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {port}"),
            format!("dir {}", folder.path().display()),
            "save \"\"".to_owned(),
            "daemonize no".to_owned(),
            // A replica is given its data at once.
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        lines.extend(
            options
                .lines
                .iter()
                .map(|(name, value)| format!("{name} {value}")),
        );
        lines.push(String::new());
        std::fs::write(folder.path().join("redis.conf"), lines.join("\n"))
            .expect("a temporary folder can be written");
        let password = options.lines.iter().rev().find_map(|(name, value)| {
            let is_password = name == "requirepass";
            is_password.then(|| value.clone())
        });
        RedisServer {
            port,
            folder,
            child: None,
            password,
        }
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("redis.log"))
            .expect("a temporary folder can be written");
        let errors = log.try_clone().expect("a file can be opened twice");
        let child = Command::new("redis-server")
            .arg(self.folder.path().join("redis.conf"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server: {error}; scripts/test installs it, or: apt-get install redis-server")
            });
        self.child = Some(child);
    }

    /// Waits until it listens; `false` if it ended because somebody else has the port.
    fn comes_up(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.answers() {
                return true;
            }
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a child can be asked for") {
                self.child = None;
                let log = self.log();
                assert!(
                    log.contains("Address already in use"),
                    "redis-server ended ({status}):\n{log}"
                );
                return false;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "redis-server does not answer:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it says anything at all, be it "loading".
    fn answers(&self) -> bool {
        match self.value(&["PING"]) {
            Ok(_) => true,
            Err(error) => matches!(error.code(), Some("LOADING" | "MASTERDOWN")),
        }
    }

    /// Waits until it has loaded its data.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_until_ready(&self) {
        wait_until("redis-server to be ready", || {
            self.command(&["PING"]).is_ok()
        });
    }

    /// The address for a store, with the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port, self.password.as_deref())
    }

    /// Its folder: the configuration, the log, what it keeps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it logged, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.folder.path().join("redis.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Ends it by SIGKILL, stopped or not.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the child is not reaped yet");
        child.wait().expect("a killed child ends");
    }

    /// Starts it again after [`RedisServer::kill`], on the same port and folder; waits until it has loaded its data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.restart_loading();
        self.wait_until_ready();
    }

    /// As [`RedisServer::restart`], but returns as soon as it answers at all, be it "loading".
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart_loading(&mut self) {
        self.spawn();
        assert!(self.comes_up(), "somebody took its port:\n{}", self.log());
    }

    /// Adds a line to its configuration, for its next life.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn set_for_next_life(&self, name: &str, value: &str) {
        let path = self.folder.path().join("redis.conf");
        let mut text = std::fs::read_to_string(&path).expect("it was written at the start");
        text.push_str(&format!("{name} {value}\n"));
        std::fs::write(path, text).expect("a temporary folder can be written");
    }

    /// Stops it where it stands (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        send_signal(child.id(), name);
    }

    /// Sends one command, on a connection of its own, and gives the answer as text: nested answers one line a value,
    /// nothing as an empty text.
    ///
    /// # Errors
    /// The server's error, or why it could not be asked.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        let value = self.value(words).map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        flatten(&value, &mut lines);
        Ok(lines.join("\n"))
    }

    fn value(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    /// As [`RedisServer::command`], for what cannot fail.
    ///
    /// # Panics
    /// If it does.
    pub fn cli(&self, words: &[&str]) -> String {
        self.command(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.log()))
    }

    /// One value of `INFO`, or an empty text.
    #[must_use]
    pub fn info(&self, name: &str) -> String {
        let info = self.cli(&["INFO"]);
        info.lines()
            .find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .to_owned()
    }

    /// Changes a setting of the running server.
    ///
    /// # Panics
    /// If it refuses.
    pub fn configure(&self, name: &str, value: &str) {
        assert_eq!(self.cli(&["CONFIG", "SET", name, value]), "OK");
    }

    /// Makes it a replica of `master` and waits until it has the master's data.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn follow(&self, master: &RedisServer) {
        if let Some(password) = &master.password {
            self.configure("masterauth", password);
        }
        self.follow_port(master.port);
    }

    /// As [`RedisServer::follow`], of a master without a password behind this port of 127.0.0.1.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn follow_port(&self, master_port: u16) {
        self.cli(&["REPLICAOF", "127.0.0.1", &master_port.to_string()]);
        wait_until("the replica to follow", || {
            self.info("master_link_status") == "up"
        });
    }

    /// Its time.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        let answer = self.cli(&["TIME"]);
        let (seconds, microseconds) = answer.split_once('\n').expect("TIME gives two numbers");
        let [seconds, microseconds]: [i64; 2] =
            [seconds, microseconds].map(|number| number.parse().expect("TIME gives numbers"));
        Timestamp::from_ms(seconds * 1_000 + microseconds / 1_000)
    }

    /// Makes it a master of its own.
    pub fn promote(&self) {
        assert_eq!(self.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let begin = log.len().saturating_sub(LOG_TAIL_BYTES);
            let tail = log.get(begin..).unwrap_or(&log);
            eprintln!("--- redis-server on port {}:\n{tail}---", self.port);
        }
        if let Some(child) = self.child.as_mut() {
            // Both fail only if it has ended and was reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A store at this address that waits at most a second for a connection or an answer.
///
/// # Panics
/// If the address is not understood.
#[must_use]
pub fn store_at(url: &str) -> RedisStore {
    store_of(url, "test")
}

/// The same for the environment with this prefix.
///
/// # Panics
/// If the address is not understood.
#[must_use]
pub fn store_of(url: &str, prefix: &str) -> RedisStore {
    RedisStore::new(RedisSettings {
        url: Secret::new(url),
        prefix: prefix.to_owned(),
        ca_file: None,
        connect_timeout_ms: 1_000,
        response_timeout_ms: 1_000,
    })
    .expect("the addresses of tests are understood")
}

/// The address of a server on this machine.
#[must_use]
pub fn url(port: u16, password: Option<&str>) -> String {
    match password {
        Some(password) => format!("redis://:{password}@127.0.0.1:{port}/0"),
        None => format!("redis://127.0.0.1:{port}/0"),
    }
}

fn flatten(value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Nil => lines.push(String::new()),
        Value::Int(number) => lines.push(number.to_string()),
        Value::BulkString(bytes) => lines.push(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => lines.push(text.clone()),
        Value::Okay => lines.push("OK".to_owned()),
        Value::Array(values) | Value::Set(values) => {
            for value in values {
                flatten(value, lines);
            }
        }
        Value::Map(pairs) => {
            for (key, value) in pairs {
                flatten(key, lines);
                flatten(value, lines);
            }
        }
        other => lines.push(format!("{other:?}")),
    }
}

/// A port of 127.0.0.1 that nobody has now and that no other test of this process is given.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..PORT_TRIES_MAX {
        // The system draws a port; it is only the draw that is used, to begin elsewhere than other processes do.
        let drawn = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("this machine has a free port")
            .port();
        let port = PORT_MIN + drawn % (PORT_MAX - PORT_MIN);
        let is_new = GIVEN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(port);
        if is_new && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("found no free port in {PORT_TRIES_MAX} tries");
}
