//! Telling systemd how the process does: ready, reloading, stopping, still alive (`sd_notify(3)`, `Type=notify`).
//!
//! The protocol is a datagram of lines to the socket that `NOTIFY_SOCKET` names; without that variable nobody is told. A
//! process is ready for systemd once everything a person must put right was checked and the node was started: a store that is
//! away is no reason to wait, as it may come by itself, and stands in the status line.
//!
//! With `WatchdogSec=` the process says twice in each interval that it is alive. What says so is a task on the same runtime as
//! the node, so a runtime that does not come to its tasks any more is ended and started again.

use std::collections::BTreeMap;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::sync::watch;

use crate::handle::Readiness;

/// The variable that names the socket.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// The variable that holds the interval within which a sign of life is expected, in microseconds.
pub const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
/// The variable that says of which process a sign of life is expected.
pub const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The longest status line, in characters.
const STATUS_CHARS_MAX: usize = 300;

/// Whoever supervises this process, if it wants to be told.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The supervisor that these variables name; nobody, if they name none. One that cannot be reached is warned of, and is
    /// then nobody: the process does its work all the same.
    #[must_use]
    pub fn of(environment: &BTreeMap<String, String>) -> Self {
        let Some(path) = environment
            .get(NOTIFY_SOCKET)
            .filter(|path| !path.is_empty())
        else {
            return Supervisor::default();
        };
        match connect(path) {
            Ok(socket) => Supervisor {
                socket: Some(socket),
                watchdog: watchdog(environment, std::process::id()),
            },
            Err(error) => {
                tracing::warn!("the supervisor is not told anything: {NOTIFY_SOCKET}: {error}");
                Supervisor::default()
            }
        }
    }

    /// All is checked and started; `detail` is for `systemctl status`.
    pub fn ready(&self, detail: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(detail)));
    }

    /// The configuration is read again; [`Supervisor::ready`] says that it was.
    pub fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=Reading the configuration again");
    }

    /// What the process is at, for `systemctl status`.
    pub fn status(&self, detail: &str) {
        self.tell(&format!("STATUS={}", line(detail)));
    }

    /// No new work is taken; the end comes within `deadline_ms` milliseconds, and the supervisor waits for it.
    pub fn stopping(&self, deadline_ms: u64) {
        let extend_us = deadline_ms
            .saturating_add(STOP_MARGIN_MS)
            .saturating_mul(1_000);
        self.tell(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={extend_us}\nSTATUS=Stopping: running syncs finish or are handed back"
        ));
    }

    /// Says what the readiness is whenever it changes, and that the process lives, for as long as it is polled.
    pub async fn keep_told(&self, mut readiness: watch::Receiver<Readiness>) {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        // A tick in a year where no sign of life is wanted.
        let every = self.watchdog.unwrap_or(Duration::from_secs(365 * 86_400));
        let mut alive = tokio::time::interval((every / 2).max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                _ = alive.tick() => if self.watchdog.is_some() { self.tell("WATCHDOG=1") },
                changed = readiness.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let detail = describe(&readiness.borrow_and_update());
                    self.status(&detail);
                }
            }
        }
    }

    fn tell(&self, lines: &str) {
        let Some(socket) = &self.socket else { return };
        match socket.send(lines.as_bytes()) {
            Ok(sent) => assert_eq!(sent, lines.len(), "a datagram goes as a whole"),
            // A full socket: a sign of life or a status line is lost, and the next one comes.
            Err(error) => tracing::debug!("the supervisor was not told: {error}"),
        }
    }
}

/// Added to the deadline of a shutdown before a supervisor may kill, in milliseconds: stores are closed after the last job.
/// The unit and the manifests in `deploy/` add the same.
pub const STOP_MARGIN_MS: u64 = 5_000;

/// What a readiness is, in a line.
#[must_use]
pub fn describe(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Starting => {
            "Starting: the store is being told of sources, schedules and users".to_owned()
        }
        Readiness::Ready => "Ready".to_owned(),
        Readiness::StoreAway { detail, .. } => format!("The store does not answer: {detail}"),
        Readiness::Stopping => "Stopping: running syncs finish or are handed back".to_owned(),
        Readiness::Stopped { .. } => "Stopped".to_owned(),
    }
}

/// One line of it, not too long.
fn line(detail: &str) -> String {
    let shown = detail.chars().take(STATUS_CHARS_MAX);
    shown
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

fn connect(path: &str) -> io::Result<UnixDatagram> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

fn watchdog(environment: &BTreeMap<String, String>, process: u32) -> Option<Duration> {
    let is_ours = match environment.get(WATCHDOG_PID) {
        Some(expected) => expected.parse() == Ok(process),
        None => true,
    };
    let interval_us: u64 = environment.get(WATCHDOG_USEC)?.parse().ok()?;
    (is_ours && interval_us > 0).then(|| Duration::from_micros(interval_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 2_048];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn lines_go_to_a_path_and_to_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let named = format!("kalends-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&named).unwrap();
        let listeners = [
            (path.display().to_string(), UnixDatagram::bind(&path)),
            (format!("@{named}"), UnixDatagram::bind_addr(&abstract_name)),
        ];
        for (name, socket) in listeners {
            let socket = socket.unwrap();
            let supervisor = Supervisor::of(&variables(&[(NOTIFY_SOCKET, &name)]));
            supervisor.ready("a line\nand another");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=a line and another");
            supervisor.stopping(25_000);
            assert!(heard(&socket).contains("EXTEND_TIMEOUT_USEC=30000000\n"));
            supervisor.status(&"long ".repeat(1_000));
            assert!(heard(&socket).len() < 400);
        }
    }

    #[test]
    fn nobody_is_told_where_nobody_asked_or_nobody_is() {
        let nobody = [
            variables(&[]),
            variables(&[(NOTIFY_SOCKET, "")]),
            variables(&[(NOTIFY_SOCKET, "/nobody/is/here")]),
        ];
        for environment in nobody {
            let supervisor = Supervisor::of(&environment);
            assert!(supervisor.socket.is_none());
            supervisor.ready("said into the wind");
        }
    }

    #[test]
    fn a_sign_of_life_is_given_by_the_process_that_is_meant() {
        let every = |of: &[(&str, &str)]| watchdog(&variables(of), 7);
        let second = Some(Duration::from_secs(1));
        assert_eq!(every(&[(WATCHDOG_USEC, "1000000")]), second);
        assert_eq!(
            every(&[(WATCHDOG_USEC, "1000000"), (WATCHDOG_PID, "7")]),
            second
        );
        assert_eq!(
            every(&[(WATCHDOG_USEC, "1000000"), (WATCHDOG_PID, "8")]),
            None
        );
        assert_eq!(every(&[(WATCHDOG_USEC, "0")]), None);
        assert_eq!(every(&[(WATCHDOG_USEC, "soon")]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_and_signs_of_life_are_told_while_it_is_polled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor::of(&variables(&[
            (NOTIFY_SOCKET, path.to_str().unwrap()),
            (WATCHDOG_USEC, "2000000"),
        ]));
        let (told, changes) = watch::channel(Readiness::Starting);
        let keeping = tokio::spawn(async move { supervisor.keep_told(changes).await });
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        for _ in 0..3 {
            assert_eq!(heard(&socket), "WATCHDOG=1");
        }
        told.send_replace(Readiness::Ready);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(heard(&socket), "STATUS=Ready");
        keeping.abort();
    }
}
