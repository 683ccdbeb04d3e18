//! A fan-out through a real node in a process of its own, so that its memory is that of the node alone.
//!
//! The users are enrolled in a Redis already. This process knows none of them: it fires one tick and lays all users over
//! the period, page by page, as every node does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kalends::driver::Ports;
use kalends::handle::start_observed;
use kalends_core::id::{ScheduleName, SourceName, WorkerId};
use kalends_core::node::io::Notice;
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::queue::command::{Command, CommitOutcome, Reply};
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;
use tokio::sync::mpsc;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct FanOut {
    /// Users for whom a job was enqueued.
    pub users: u64,
    /// From the tick to the end of its fan-out.
    pub seconds: f64,
    /// The most memory that this process ever had, in mebibytes.
    pub peak_rss_mb: f64,
}

/// A fan-out that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(300);
/// Leave for the node to end.
const SHUTDOWN_MS: u64 = 5_000;

/// Fires one tick of `source` in the store of `ports`, and measures its fan-out.
///
/// # Errors
/// In words: the store refuses, or the fan-out does not end in time.
pub async fn run(
    source: SourceName,
    settings: SourceSettings,
    ports: Ports,
) -> Result<FanOut, String> {
    let schedule = ScheduleName::new("bench-fan-out").map_err(|error| error.to_string())?;
    let definition = ScheduleDefinition {
        source: source.clone(),
        cron: "*/15 * * * *".parse().expect("a good pattern"),
        time_zone: "UTC".parse().expect("a good time zone"),
        catch_up: "once".parse().expect("a good policy"),
    };
    let define = Command::DefineSchedule {
        schedule: schedule.clone(),
        definition: definition.clone(),
    };
    let store = Arc::clone(&ports.store);
    let defined = store.apply(define).await.map_err(|error| error.detail)?;
    let Reply::Schedule { state } = defined.value else {
        return Err(format!("the schedule was not taken: {:?}", defined.value));
    };
    let mut node = NodeSettings::new(WorkerId::new("bench-fan-out").expect("a good name"), 7);
    node.sources.push(SourceDefinition {
        name: source,
        settings,
        sync: SyncSettings::default(),
        enroll: Vec::new(),
    });
    node.schedules.push((schedule.clone(), definition));
    let (told, mut notices) = mpsc::unbounded_channel();
    let handle = start_observed(node, ports, move |notice| {
        if let Notice::JobDone {
            outcome: CommitOutcome::FannedOut { users },
            ..
        } = notice
        {
            // Nobody listens any more once the first one has ended.
            let _ = told.send(*users);
        }
    });
    // A tick must lie after the last one, which is when the schedule was defined.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let begun = Instant::now();
    let tick = Command::Tick {
        schedule,
        revision: state.revision,
        after: state.last_tick_at,
        at: state.last_tick_at.plus_ms(1_000),
        missed: 0,
        fire: true,
    };
    let fired = store.apply(tick).await.map_err(|error| error.detail)?;
    if !matches!(fired.value, Reply::Fired { .. }) {
        return Err(format!("the tick was not taken: {:?}", fired.value));
    }
    let users = tokio::time::timeout(PATIENCE, notices.recv())
        .await
        .map_err(|_| format!("the fan-out did not end in {PATIENCE:?}"))?
        .ok_or("the node ended before its fan-out")?;
    let seconds = begun.elapsed().as_secs_f64();
    handle.shutdown(SHUTDOWN_MS).await;
    Ok(FanOut {
        users,
        seconds,
        peak_rss_mb: peak_rss_mb()?,
    })
}

/// Linux tells it in kibibytes.
fn peak_rss_mb() -> Result<f64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.ok_or("/proc/self/status has no VmHWM")? / 1024.0)
}
