//! `kalends demo`: the whole main job, for real, with nothing to install.
//!
//! An emulated Google answers on the loopback interface; the real runtime (node, driver, HTTP adapter, embedded store
//! and graph) syncs its users over real HTTP. The clock of both runs faster than the world, so that quarters of an hour
//! pass in seconds and the default schedule is the one that is shown. Meanwhile calendars change, sync tokens expire and
//! Google answers 429 for a while. At the end every user's graph is compared with that user's calendar, item by item.

mod progress;
mod report;
mod weather;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kalends_adapters::embedded::EmbeddedStore;
use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;
use kalends_core::node::Node;
use kalends_core::node::settings::{Deadlines, NodeSettings};
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::Graph as _;
use kalends_core::queue::command::LEASE_MS_MAX;
use kalends_core::time::{Clock as _, MINUTE_MS, Timestamp};
use kalends_sim::google::{GoogleEmulator, GoogleSettings};
use kalends_sim::oracle::{self, Verdict};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::cli::DemoArgs;
use crate::clock::SteadyClock;
use crate::config::{Config, GoogleAuth, UserConfig};
use crate::driver::{Effects, Ports, drive};
use crate::emulate::face::{self, FaceOptions};
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::{self, Refused};
use progress::{Progress, Stage};
pub use report::Report;
use weather::Weather;

/// When the demo's clock begins: 2026-03-02T08:50:00Z, ten minutes before a full hour.
const BEGIN: Timestamp = Timestamp::from_ms(1_772_441_400_000);
/// The period of the default schedule, in milliseconds.
const PERIOD_MS: u64 = 15 * MINUTE_MS;
/// Events that are expected to be synced in the time of one period: decides how fast the clock runs.
const EVENTS_A_PERIOD: u64 = 50_000;
/// How long a period lasts at the least, in milliseconds of the world.
const PERIOD_WORLD_MS_MIN: u64 = 1_500;
/// Syncs at a time with `--unlimited`: enough to keep two cores busy while the disk is written.
const CONCURRENCY_UNLIMITED: u32 = 12;
/// The demo gives up when nothing has happened for this long.
const STALLED: Duration = Duration::from_secs(60);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a shutdown may take, in milliseconds of the world.
const SHUTDOWN_WORLD_MS: u64 = 5_000;

type Google = Arc<Mutex<GoogleEmulator>>;

fn lock(google: &Google) -> MutexGuard<'_, GoogleEmulator> {
    google.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the demo; the report is printed, and decides the exit code.
///
/// # Errors
/// If the folder cannot be used, or no port of the loopback interface, or if it is interrupted: then everything is
/// stopped in order first, so that a temporary folder goes.
pub async fn demo(args: &DemoArgs) -> Result<Exit, Refused> {
    let folder = Folder::new(args.keep.as_deref())?;
    let report = play(args, folder.path()).await?;
    if args.json {
        say(&format!("{}\n", report.json()));
    } else {
        say(report.words());
    }
    Ok(if report.mismatches == 0 && report.failed == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Where the store lies: a temporary folder, removed at the end, or one that is kept.
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(std::path::PathBuf),
}

impl Folder {
    fn new(keep: Option<&Path>) -> Result<Self, Refused> {
        if let Some(path) = keep {
            let used = path.join(kalends_adapters::embedded::FILE_NAME);
            if used.exists() {
                return Err(Refused::bad_input(format!(
                    "{} is there already; the demo begins with a fresh store: name another folder",
                    used.display()
                )));
            }
            return Ok(Folder::Kept(path.to_owned()));
        }
        tempfile::Builder::new()
            .prefix("kalends-demo-")
            .tempdir()
            .map(Folder::Temporary)
            .map_err(|error| {
                Refused::bad_input(format!(
                    "no temporary folder can be made: {error}; set TMPDIR"
                ))
            })
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Temporary(folder) => folder.path(),
            Folder::Kept(path) => path,
        }
    }
}

/// Plays the demo in `folder` and compares.
async fn play(args: &DemoArgs, folder: &Path) -> Result<Report, Refused> {
    let begun = Instant::now();
    let mut interrupted = std::pin::pin!(interruption()?);
    let clock = SteadyClock::new(BEGIN, rate(args));
    let settings = GoogleSettings::new(args.seed, args.users, args.events, BEGIN);
    let google: Google = Arc::new(Mutex::new(GoogleEmulator::new(settings)));
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| Refused::bad_input(format!("no port on 127.0.0.1 can be had: {error}")))?;
    let address = listener.local_addr().map_err(|error| {
        Refused::bad_input(format!("the emulator's port is not known: {error}"))
    })?;
    let (stop_google, google_stopped) = oneshot::channel::<()>();
    // Compressing on one side what is unpacked on the other side of the same machine would only show gzip's speed.
    let options = FaceOptions {
        gzip: false,
        ..FaceOptions::default()
    };
    let served = tokio::spawn(face::serve(
        listener,
        Arc::clone(&google),
        Arc::new(clock),
        options,
        async move {
            let _ = google_stopped.await;
        },
    ));

    let store = wiring::store(folder, Arc::new(clock)).await?;
    let config = config(args, &google, &format!("http://{address}"), folder);
    let source = Arc::new(wiring::google(&config, Arc::new(clock))?);
    let ports = Ports {
        store: store.clone(),
        source: source.clone(),
        graph: store.clone(),
    };
    let node = Node::new(clock.now(), node_settings(args, &config));
    drop(config);
    let effects = Arc::new(Effects::default());
    let (stop, stopped) = watch::channel(None);
    let progress = Arc::new(Progress::new(u64::from(args.users), begun));
    let observed = Arc::clone(&progress);
    let driven = tokio::spawn(drive(
        node,
        ports,
        clock,
        stopped,
        Arc::clone(&effects),
        move |_, notice| {
            observed.observe(notice, clock.now());
        },
    ));

    let finished = tokio::select! {
        finished = story(args, &google, &progress, &effects, clock) => Some(finished),
        () = &mut interrupted => None,
    };
    let shutdown_ms = match finished {
        Some(_) => SHUTDOWN_WORLD_MS * u64::from(rate(args)),
        None => 0,
    };
    stop.send_replace(Some(clock.now().plus_ms(shutdown_ms)));
    let driver_panicked = driven.await.is_err();
    let duration = begun.elapsed();

    let compared = match finished {
        None => None,
        Some(mut finished) => {
            finished.driver_panicked = driver_panicked;
            progress.stage(Stage::Comparing);
            tokio::select! {
                verdict = compare_all(&google, &store, &progress) => Some((finished, verdict)),
                () = &mut interrupted => None,
            }
        }
    };
    progress.end();
    let _ = stop_google.send(());
    served.abort();
    store.close().await;
    let Some((finished, verdict)) = compared else {
        return Err(Refused {
            exit: Exit::Failed,
            detail: "interrupted".to_owned(),
        });
    };
    Ok(Report::new(
        &progress, &finished, &verdict, &effects, &source, duration,
    ))
}

/// Resolves at SIGINT or SIGTERM; from now on neither ends the process by itself.
fn interruption() -> Result<impl Future<Output = ()>, Refused> {
    let hear = |kind| {
        signal(kind).map_err(|error| Refused {
            exit: Exit::Failed,
            detail: format!("signals cannot be heard here: {error}"),
        })
    };
    let mut term = hear(SignalKind::terminate())?;
    let mut int = hear(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// How many times as fast as the world the demo's clock runs.
fn rate(args: &DemoArgs) -> u32 {
    let events = u64::from(args.users) * u64::from(args.events);
    let period_world_ms = (events * 1_000 / EVENTS_A_PERIOD).max(PERIOD_WORLD_MS_MIN);
    u32::try_from((PERIOD_MS / period_world_ms).max(1)).unwrap_or(1)
}

/// The default configuration, pointed at the emulator.
fn config(args: &DemoArgs, google: &Google, base: &str, folder: &Path) -> Config {
    let users = lock(google)
        .users()
        .map(|access| UserConfig {
            id: UserId::new(&access.email).expect("the emulator's addresses are valid names"),
            refresh_token: Some(Secret::new(access.refresh_token)),
            graph_database: None,
        })
        .collect();
    let auth = GoogleAuth::RefreshToken {
        client_id: "demo".to_owned(),
        client_secret: Secret::new("demo"),
    };
    let mut config = Config::with_defaults(auth, users, folder.to_owned());
    config.google.api_base_url = format!("{base}/calendar/v3");
    config.google.token_url = format!("{base}/token");
    if args.unlimited {
        config.limits.jobs = None;
        config.limits.requests = None;
        config.limits.requests_per_user = None;
        config.worker.concurrency = CONCURRENCY_UNLIMITED;
        config.schedule.jitter = Jitter { max_ms: 0 };
        config.schedule.spread = Spread::Stagger { step_ms: 0 };
    }
    config
}

/// The real node's settings; what is meant to be long in the world is as long here, however fast the clock runs.
fn node_settings(args: &DemoArgs, config: &Config) -> NodeSettings {
    let mut settings = wiring::node_settings(config, args.seed);
    let rate = u64::from(rate(args));
    settings.lease_ms = (settings.lease_ms * rate).min(LEASE_MS_MAX);
    let Deadlines {
        store_ms,
        fetch_ms,
        graph_ms,
    } = settings.deadlines;
    settings.deadlines = Deadlines {
        store_ms: store_ms * rate,
        fetch_ms: fetch_ms * rate,
        graph_ms: graph_ms * rate,
    };
    settings
}

/// What the story came to.
struct Finished {
    complete: bool,
    driver_panicked: bool,
    first_sync: Duration,
    weather: weather::Tally,
}

/// First every user is synced once; then the weather changes, twice; then it calms and everybody is synced again.
async fn story(
    args: &DemoArgs,
    google: &Google,
    progress: &Progress,
    effects: &Effects,
    clock: SteadyClock,
) -> Finished {
    let users = lock(google).users().map(|access| access.email).collect();
    let mut weather = Weather::new(args.seed, users);
    let begun = Instant::now();
    progress.stage(Stage::FirstSync);
    let mut complete = progress
        .wait_for_all(clock, effects, Timestamp::from_ms(i64::MIN))
        .await;
    let first_sync = begun.elapsed();

    progress.stage(Stage::Changing);
    for _ in 0..2 {
        if !complete {
            break;
        }
        let now = clock.now();
        {
            let mut google = lock(google);
            weather.changes(&mut google, now);
            weather.expire(&mut google);
            weather.burst(&mut google, now);
        }
        complete = progress.wait_for_tick(clock, effects).await;
        let mut google = lock(google);
        weather.changes(&mut google, clock.now());
    }
    if complete {
        progress.stage(Stage::Settling);
        complete = progress.wait_for_all(clock, effects, clock.now()).await;
    }
    Finished {
        complete,
        driver_panicked: false,
        first_sync,
        weather: weather.tally,
    }
}

/// Compares every user's graph with that user's calendar, one user in memory at a time.
async fn compare_all(google: &Google, store: &EmbeddedStore, progress: &Progress) -> Verdict {
    let users: Vec<String> = lock(google).users().map(|access| access.email).collect();
    let mut total = Verdict::default();
    for email in users {
        let user = UserId::new(&email).expect("the emulator's addresses are valid names");
        let snapshot = match store.snapshot(&user).await {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                total.mismatches += 1;
                total
                    .described
                    .push(format!("{email}: the graph cannot be read: {failure}"));
                continue;
            }
        };
        let google = lock(google);
        let calendar = google.calendar_row_truth(&email, "primary");
        let calendar = calendar.expect("the emulator knows its own users");
        let truth = google.calendar_truth(&email, "primary");
        let truth = truth.expect("the emulator knows its own users");
        let verdict = oracle::compare(&calendar, truth, &snapshot);
        drop(google);
        total.expected += verdict.expected;
        total.mismatches += verdict.mismatches;
        let described = verdict
            .described
            .into_iter()
            .map(|line| format!("{email}: {line}"));
        let room = oracle::DESCRIBED_MAX.saturating_sub(total.described.len());
        total.described.extend(described.take(room));
        progress.compared();
    }
    total
}
