//! The real `kalends` binary, started as a user would start it.
//!
//! The binary belongs to another package, so cargo does not build it for these tests; [`kalends_binary`] does, once a
//! test process, with the same profile and into the same target directory, where it mostly is built already.
//!
//! No process outlives the value that stands for it: dropping a [`Process`] kills the child and waits for it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The path of the built binary.
///
/// # Panics
/// If it cannot be built.
pub fn kalends_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test is an executable file");
    // A test lies in target/PROFILE/deps, the binary in target/PROFILE.
    let profile_folder = test
        .parent()
        .and_then(Path::parent)
        .expect("cargo puts tests two folders below the target directory");
    let folder_name = profile_folder
        .file_name()
        .expect("the profile's folder has a name");
    let profile = if folder_name == "debug" {
        "dev".as_ref()
    } else {
        folder_name
    };
    let target = profile_folder
        .parent()
        .expect("the profile's folder is in the target directory");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--package", "kalends"])
        .args(["--bin", "kalends", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--profile")
        .arg(profile)
        .arg("--target-dir")
        .arg(target)
        .args(cfg!(feature = "otel").then_some("--features=otel"))
        .status()
        .expect("cargo, which built this test, can be started");
    assert!(built.success(), "cargo does not build kalends");
    profile_folder.join(format!("kalends{}", std::env::consts::EXE_SUFFIX))
}

/// Waits until `done`.
///
/// # Panics
/// If that takes longer than [`PATIENCE`]; `what` says what was waited for.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Sends a process a signal by its name, such as `TERM`.
///
/// # Panics
/// If there is no such signal or process, or no shell.
pub fn send_signal(process: u32, name: &str) {
    // `forbid(unsafe_code)` leaves no system call; every shell has this one built in.
    let sent = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {process}"))
        .status()
        .expect("there is a shell");
    assert!(sent.success(), "kill -{name} was refused");
}

type Text = Arc<Mutex<Vec<u8>>>;

fn text(bytes: &Text) -> String {
    let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A running `kalends`.
pub struct Process {
    child: Child,
    arguments: String,
    output: Text,
    errors: Text,
    readers: Vec<JoinHandle<()>>,
    closed: Arc<AtomicBool>,
}

/// How a `kalends` ended, and what it said.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Process {
    /// Starts `kalends` with these arguments in `folder`, with no `KALENDS_` variables but `variables`.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn start_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = Command::new(kalends_binary());
        command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KALENDS_") {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("the binary was built just now");
        let (output, errors) = (Text::default(), Text::default());
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let closed = Arc::<AtomicBool>::default();
        let readers = vec![
            collect(stdout, Arc::clone(&output), Arc::clone(&closed)),
            collect(stderr, Arc::clone(&errors), Arc::clone(&closed)),
        ];
        Process {
            child,
            arguments: arguments.join(" "),
            output,
            errors,
            readers,
            closed,
        }
    }

    /// Starts `kalends` with these arguments in `folder`.
    #[must_use]
    pub fn start(folder: &Path, arguments: &[&str]) -> Process {
        Process::start_with(folder, arguments, &[])
    }

    /// Starts `kalends run` in `folder` with its HTTP face on a free port; the process, and the address (`127.0.0.1:PORT`).
    ///
    /// # Panics
    /// If it ends before it has one.
    #[must_use]
    pub fn serve(folder: &Path, variables: &[(&str, &str)]) -> (Process, String) {
        let arguments = ["run", "--http", "127.0.0.1:0"];
        let mut process = Process::start_with(folder, &arguments, variables);
        let place = "are served at http://";
        process.wait_for_log(place);
        let errors = process.errors();
        let (_, rest) = errors.split_once(place).expect("it was waited for");
        let address = rest.lines().next().unwrap_or_default().trim().to_owned();
        (process, address)
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        text(&self.output)
    }

    /// What it logged so far.
    #[must_use]
    pub fn errors(&self) -> String {
        text(&self.errors)
    }

    /// Stops reading what it says: after the next piece it writes into pipes that nobody holds.
    pub fn close_outputs(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until standard error holds `part`.
    ///
    /// # Panics
    /// If it ends before, or takes too long.
    pub fn wait_for_log(&mut self, part: &str) {
        self.wait_for(part, Process::errors);
    }

    /// Waits until standard output holds `part`.
    ///
    /// # Panics
    /// If it ends before, or takes too long.
    pub fn wait_for_output(&mut self, part: &str) {
        self.wait_for(part, Process::output);
    }

    fn wait_for(&mut self, part: &str, of: impl Fn(&Process) -> String) {
        let begun = Instant::now();
        while !of(self).contains(part) {
            let ended = self.ended();
            // What it said last may have come between the two looks.
            let said = of(self).contains(part);
            assert!(
                said || (ended.is_none() && begun.elapsed() < PATIENCE),
                "kalends {}: waited in vain for {part:?} ({ended:?}):\n{}{}",
                self.arguments,
                self.output(),
                self.errors()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Panics
    /// If there is no such signal, or no shell.
    pub fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    /// Ends it by SIGKILL.
    ///
    /// # Panics
    /// If it had ended by itself.
    pub fn kill(mut self) -> Ended {
        assert_eq!(self.ended(), None, "ended by itself: {}", self.errors());
        self.child.kill().expect("the child is not reaped yet");
        let ended = self.wait();
        assert_eq!(ended.code, None, "ended by itself: {}", ended.errors);
        ended
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child can always be asked for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn wait(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "kalends {} does not end:\n{}{}",
                self.arguments,
                self.output(),
                self.errors()
            );
            std::thread::sleep(LOOK);
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("collecting bytes does not panic");
        }
        Ended {
            code: status.code(),
            output: self.output(),
            errors: self.errors(),
        }
    }

    /// Ends it by SIGTERM, as a supervisor would.
    ///
    /// # Panics
    /// If it does not end with code 0.
    pub fn stop(self) -> Ended {
        self.signal("TERM");
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(
    mut from: impl Read + Send + 'static,
    into: Text,
    closed: Arc<AtomicBool>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if closed.load(Ordering::Relaxed) {
                return;
            }
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            into.extend_from_slice(&bytes[..count]);
        }
    })
}

/// Runs `kalends` to its end.
#[must_use]
pub fn kalends(folder: &Path, arguments: &[&str]) -> Ended {
    Process::start(folder, arguments).wait()
}

impl Ended {
    /// Itself, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn done(self) -> Ended {
        assert_eq!(self.code, Some(0), "{}{}", self.output, self.errors);
        self
    }

    /// The last line of standard output, as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let last = self.output.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("{error} in {:?}\n{}", self.output, self.errors))
    }
}

/// What `kalends status --json` says in `folder`.
///
/// # Panics
/// If it does not end well.
#[must_use]
pub fn status(folder: &Path) -> serde_json::Value {
    kalends(folder, &["status", "--json"]).done().json()
}

/// Starts an emulator by hand, as its help says, and gives it with its address.
///
/// # Panics
/// If it does not come up.
#[must_use]
pub fn emulator(folder: &Path, arguments: &[&str]) -> (Process, String) {
    let arguments: Vec<&str> = ["emulate"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let mut process = Process::start(folder, &arguments);
    process.wait_for_output("# ready");
    let output = process.output();
    let address = output
        .split("http://")
        .nth(1)
        .expect("it tells its address");
    let address: String = address
        .chars()
        .take_while(|letter| letter.is_ascii_digit() || ".:".contains(*letter))
        .collect();
    (process, format!("http://{address}"))
}
