//! An emulated Google on a port of its own that writes down who asked for what.
//!
//! It lives in the test, not in a process, so that a test sees each request, changes calendars, and compares the
//! outcome with what the emulator itself knows. It runs on a thread of its own: tests may block.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use kalends::clock::SystemClock;
use kalends::emulate::face::{Emulated, FaceOptions, serve};
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::id::UserId;
use kalends_core::port::Graph as _;
use kalends_core::time::{Clock as _, Timestamp};
use kalends_sim::google::{GoogleEmulator, GoogleSettings, UserAccess};
use kalends_sim::http::{Request, Response};
use kalends_sim::oracle::{self, Verdict};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// One request for a page of events, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageAsked {
    /// Whose page: the access token.
    pub bearer: String,
    /// `syncToken`.
    pub sync_token: Option<String>,
    /// `pageToken`; `None` is the first page.
    pub page_token: Option<String>,
}

/// Google, with a memory of what was asked.
pub struct RecordingGoogle {
    /// The emulator itself.
    pub emulator: GoogleEmulator,
    /// Every request for a page of events, in order.
    pub pages: Vec<PageAsked>,
    /// How long each answer with events takes; no other is given meanwhile.
    pub delay: Duration,
}

impl Emulated for RecordingGoogle {
    fn handle(&mut self, now: Timestamp, request: &Request) -> Response {
        if request.path.ends_with("/events") {
            let own = |name| request.parameter(name).map(str::to_owned);
            self.pages.push(PageAsked {
                bearer: request
                    .header("authorization")
                    .unwrap_or_default()
                    .to_owned(),
                sync_token: own("syncToken"),
                page_token: own("pageToken"),
            });
            std::thread::sleep(self.delay);
        }
        self.emulator.handle(now, request)
    }
}

/// The server, until it is dropped.
pub struct GoogleServer {
    /// Its address, without a path.
    pub url: String,
    google: Arc<Mutex<RecordingGoogle>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl GoogleServer {
    /// Serves `users` users with `events` events each around now.
    ///
    /// # Panics
    /// If this machine has no port to give.
    #[must_use]
    pub fn start(seed: u64, users: u32, events: u32) -> Self {
        GoogleServer::start_with(GoogleSettings::new(seed, users, events, SystemClock.now()))
    }

    /// Serves a Google of these settings.
    ///
    /// # Panics
    /// If this machine has no port to give.
    #[must_use]
    pub fn start_with(settings: GoogleSettings) -> Self {
        let google = Arc::new(Mutex::new(RecordingGoogle {
            emulator: GoogleEmulator::new(settings),
            pages: Vec::new(),
            delay: Duration::ZERO,
        }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("this machine gives threads");
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("this machine has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        listener
            .set_nonblocking(true)
            .expect("every socket can be told so");
        let (stop, stopped) = oneshot::channel();
        let served_google = Arc::clone(&google);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener =
                    TcpListener::from_std(listener).expect("the socket is new and does not block");
                let served = serve(
                    listener,
                    served_google,
                    Arc::new(SystemClock),
                    FaceOptions::default(),
                    std::future::pending(),
                );
                tokio::select! {
                    served = served => served.expect("the socket of a test does not fail"),
                    _ = stopped => {}
                }
            });
        });
        GoogleServer {
            url: format!("http://{address}"),
            google,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The emulator and its memory.
    ///
    /// # Panics
    /// If a request made it panic.
    pub fn lock(&self) -> MutexGuard<'_, RecordingGoogle> {
        self.google.lock().expect("the emulator does not panic")
    }

    /// All users.
    #[must_use]
    pub fn users(&self) -> Vec<UserAccess> {
        self.lock().emulator.users().collect()
    }

    /// How many pages of events were asked for so far.
    #[must_use]
    pub fn pages_asked(&self) -> usize {
        self.lock().pages.len()
    }

    /// Compares the graphs of all users, in the store in `data_dir`, with their calendars.
    ///
    /// # Panics
    /// If the store cannot be read.
    #[must_use]
    pub fn compare(&self, data_dir: &Path) -> Verdict {
        // On a thread of its own, for tests that run in a runtime.
        std::thread::scope(|scope| {
            let compared = scope.spawn(|| self.compare_all(data_dir));
            compared.join().expect("the store can be read")
        })
    }

    fn compare_all(&self, data_dir: &Path) -> Verdict {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("this machine gives threads");
        let store = EmbeddedStore::open_read_only(data_dir, Arc::new(SystemClock))
            .expect("the store can be read");
        let mut total = Verdict::default();
        for access in self.users() {
            let user = UserId::new(&access.email).expect("the emulator's addresses are valid");
            let snapshot = runtime
                .block_on(store.snapshot(&user))
                .expect("the graph can be read");
            let google = self.lock();
            let truth = google
                .emulator
                .calendar_truth(&access.email, "primary")
                .expect("the emulator knows its users");
            let calendar = google
                .emulator
                .calendar_row_truth(&access.email, "primary")
                .expect("the emulator knows its users");
            let verdict = oracle::compare(&calendar, truth, &snapshot);
            total.expected += verdict.expected;
            total.mismatches += verdict.mismatches;
            total.described.extend(verdict.described);
        }
        total
    }

    /// Checks that every graph equals its calendar.
    ///
    /// # Panics
    /// If one does not.
    pub fn assert_synced(&self, data_dir: &Path) {
        let verdict = self.compare(data_dir);
        assert!(verdict.expected > 0, "there is nothing to compare");
        assert_eq!(verdict.mismatches, 0, "{:#?}", verdict.described);
    }
}

impl Drop for GoogleServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has shown itself where the test locked the emulator.
            let _ = thread.join();
        }
    }
}
