//! Kalends inside another program: started with one call, asked and stopped by a handle.
//!
//! A host application must not depend on a store that may be away. So [`start`] returns at once and never fails for
//! what the world does: the node asks the store by itself, with growing intervals, and begins when it answers. What it
//! is at is told by [`Handle::readiness`], and changes of it by [`Handle::readiness_changes`]. A fault inside ends the
//! node and not the host; the handle then says why. What a host asks of the store (a sync now, the status, a pause) is in
//! `ask`, what it is told as it happens in `events`.
//!
//! `kalends run` is this, with signals and a configuration. [`Kalends::builder`](crate::Kalends::builder) is this with less
//! to say; what follows is the long form, with every part in hand.
//!
//! ```
//! use std::sync::Arc;
//!
//! use kalends::clock::SystemClock;
//! use kalends::driver::Ports;
//! use kalends::handle::{Readiness, Why, start};
//! use kalends_adapters::embedded::EmbeddedStore;
//! use kalends_adapters::google::{GoogleAuth, GoogleCalendar, GoogleSettings, RefreshTokens};
//! use kalends_adapters::secret::Secret;
//! use kalends_core::id::{SourceName, UserId, WorkerId};
//! use kalends_core::node::settings::{NodeSettings, SourceDefinition};
//! use kalends_core::queue::state::SourceSettings;
//! use kalends_core::sync::SyncSettings;
//!
//! /// The host's own accounts; here nobody has connected a calendar yet.
//! struct Accounts;
//!
//! impl RefreshTokens for Accounts {
//!     fn refresh_token(&self, _: &UserId) -> Option<Secret> {
//!         None
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let clock = Arc::new(SystemClock);
//! let store = Arc::new(EmbeddedStore::open(folder, clock.clone())?);
//! let auth = GoogleAuth::RefreshTokens {
//!     client_id: "....apps.googleusercontent.com".to_owned(),
//!     client_secret: Secret::new("...".to_owned()),
//!     tokens: Arc::new(Accounts),
//! };
//! let google = GoogleSettings {
//!     api_base_url: "https://www.googleapis.com/calendar/v3".to_owned(),
//!     token_url: "https://oauth2.googleapis.com/token".to_owned(),
//!     request_timeout_ms: 20_000,
//!     auth,
//! };
//! let ports = Ports {
//!     store: store.clone(),
//!     source: Arc::new(GoogleCalendar::new(google, clock)?),
//!     graph: store.clone(),
//! };
//! let mut settings = NodeSettings::new(WorkerId::new("host-1")?, 42);
//! settings.sources.push(SourceDefinition {
//!     name: SourceName::google_calendar(),
//!     settings: SourceSettings::default(),
//!     sync: SyncSettings::default(),
//!     enroll: Vec::new(),
//! });
//!
//! let kalends = start(settings, ports);
//! let mut changes = kalends.readiness_changes();
//! changes.wait_for(|readiness| *readiness == Readiness::Ready).await?;
//! // ... the host does what it is there for ...
//! assert_eq!(kalends.shutdown(5_000).await, Why::Asked);
//! store.close().await;
//! # Ok(())
//! # }
//! ```

mod ask;
mod events;

use std::fmt;
use std::sync::Arc;

use kalends_core::node::Node;
use kalends_core::node::io::Notice;
use kalends_core::node::settings::NodeSettings;
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::Store;
use kalends_core::time::{Clock, Timestamp};
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinError};

use crate::clock::{SteadyClock, SystemClock};
use crate::driver::{Effects, Orders, Ports, drive_recorded};
use crate::notices;
use crate::record::Recorder;
use crate::spans::UserNames;

pub use ask::{NotDone, NotEnqueued, PAUSE_REASON_CHARS_MAX, grant_hash};
pub(crate) use ask::{enqueue_sync, pause_reason};
pub use events::{EVENTS_KEPT, Event, Events};

/// What a started node is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The store is being told of sources, schedules and users.
    Starting,
    /// Ticks are fired and jobs are taken.
    Ready,
    /// The store does not answer, or refuses. It is asked again by itself.
    StoreAway {
        /// Since when, by this process's clock.
        since: Timestamp,
        /// What it said last, without secrets.
        detail: String,
        /// When it is asked again, by this process's clock.
        retry_at: Timestamp,
    },
    /// No new jobs are taken; those that run finish or are handed back.
    Stopping,
    /// Nothing is done any more.
    Stopped {
        /// Why.
        why: Why,
    },
}

/// Why a node has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody asked for it: jobs are finished or handed back.
    Asked,
    /// It ended by a fault, or without being asked; its jobs are taken over when their leases expire. In words.
    Fault(String),
}

/// A started node. A copy is another handle of the same one. Dropping all of them leaves the node at work, for as long as
/// the tokio runtime lives.
#[derive(Clone)]
pub struct Handle {
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    stop: watch::Sender<Option<Timestamp>>,
    layout: watch::Sender<Option<(Spread, Jitter)>>,
    readiness: Arc<watch::Sender<Readiness>>,
    boots: watch::Receiver<u64>,
    events: broadcast::WeakSender<Notice>,
    driver: AbortHandle,
}

/// Starts a node on the current tokio runtime and returns at once, whether or not the store is there. What it does is
/// logged by `tracing`.
///
/// # Panics
/// If there is no tokio runtime, or the settings are out of bounds as [`Node::new`] says.
#[must_use]
pub fn start(settings: NodeSettings, ports: Ports) -> Handle {
    start_observed(settings, ports, |_| {})
}

/// As [`start`]; `observe` sees every notice, in order. It must not block. If it panics, the node stops.
///
/// # Panics
/// As [`start`].
#[must_use]
pub fn start_observed(
    settings: NodeSettings,
    ports: Ports,
    observe: impl FnMut(&Notice) + Send + 'static,
) -> Handle {
    start_recorded(settings, ports, observe, None)
}

/// As [`start_observed`], with a journal of it all, if there is to be one: see [`record`](crate::record).
///
/// # Panics
/// As [`start`].
#[must_use]
pub fn start_recorded(
    settings: NodeSettings,
    ports: Ports,
    observe: impl FnMut(&Notice) + Send + 'static,
    recorder: Option<Recorder>,
) -> Handle {
    start_named(settings, ports, observe, recorder, UserNames::drawn())
}

/// As [`start_recorded`]; in spans users have these `names`, instead of some that are this node's alone.
///
/// # Panics
/// As [`start`].
#[must_use]
pub fn start_named(
    settings: NodeSettings,
    ports: Ports,
    observe: impl FnMut(&Notice) + Send + 'static,
    recorder: Option<Recorder>,
    names: UserNames,
) -> Handle {
    let clock = Arc::new(SteadyClock::new(SystemClock.now(), 1));
    start_by(clock, settings, ports, observe, recorder, names)
}

/// As [`start_named`], by any clock that never steps back.
pub(crate) fn start_by(
    clock: Arc<dyn Clock>,
    settings: NodeSettings,
    ports: Ports,
    mut observe: impl FnMut(&Notice) + Send + 'static,
    recorder: Option<Recorder>,
    names: UserNames,
) -> Handle {
    let begun = clock.now();
    let (stop, shutdown) = watch::channel(None);
    let (laid, layout) = watch::channel(Some((settings.spread, settings.jitter)));
    let node = Node::new(begun, settings);
    let readiness = Arc::new(watch::Sender::new(Readiness::Starting));
    let (booted, boots) = watch::channel(0);
    let told = broadcast::Sender::new(EVENTS_KEPT);
    let handle_events = told.downgrade();
    let store = Arc::clone(&ports.store);
    let followed = Arc::clone(&readiness);
    let follow_clock = Arc::clone(&clock);
    let mut log = notices::Log::default();
    let driven = tokio::spawn(drive_recorded(
        node,
        begun,
        ports,
        Arc::clone(&clock),
        Orders { shutdown, layout },
        Arc::new(Effects::default()),
        move |node: &Node, notice: &Notice| {
            log.log(notice);
            followed.send_if_modified(|readiness| {
                let next = follow(readiness, notice, node.is_ready(), follow_clock.now());
                let changed = next.is_some();
                *readiness = next.unwrap_or_else(|| readiness.clone());
                changed
            });
            if *notice == Notice::Ready {
                booted.send_modify(|boots| *boots += 1);
            }
            observe(notice);
            if told.receiver_count() > 0 {
                // It fails only if the last listener left in between.
                let _ = told.send(notice.clone());
            }
        },
        recorder,
        names,
    ));
    let driver = driven.abort_handle();
    let told = Arc::clone(&readiness);
    tokio::spawn(async move {
        let ended = driven.await;
        let was_asked = *told.borrow() == Readiness::Stopping;
        let why = why(ended, was_asked);
        if let Why::Fault(detail) = &why {
            tracing::error!("stopped by a fault: {detail}");
        }
        told.send_replace(Readiness::Stopped { why });
    });
    Handle {
        clock,
        store,
        stop,
        layout: laid,
        readiness,
        boots,
        events: handle_events,
        driver,
    }
}

/// What a notice makes of the readiness; `None`: nothing new.
fn follow(
    current: &Readiness,
    notice: &Notice,
    is_ready: bool,
    now: Timestamp,
) -> Option<Readiness> {
    if matches!(current, Readiness::Stopping | Readiness::Stopped { .. }) {
        return None;
    }
    match notice {
        Notice::Ready => Some(Readiness::Ready),
        Notice::StoreBack { .. } if is_ready => Some(Readiness::Ready),
        Notice::StoreBack { .. } => Some(Readiness::Starting),
        Notice::StoreAway {
            detail, retry_at, ..
        } => Some(Readiness::StoreAway {
            since: match current {
                Readiness::StoreAway { since, .. } => *since,
                _ => now,
            },
            detail: detail.clone(),
            retry_at: *retry_at,
        }),
        _ => None,
    }
}

fn why(ended: Result<(), JoinError>, was_asked: bool) -> Why {
    match ended {
        Ok(()) if was_asked => Why::Asked,
        Ok(()) => Why::Fault("it ended without being asked to".to_owned()),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => {
                let said = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned());
                let said = said.unwrap_or_else(|| "(no message)".to_owned());
                Why::Fault(format!("a panic, please report it: {said}"))
            }
            Err(_) => Why::Fault("it was abandoned".to_owned()),
        },
    }
}

impl Handle {
    /// What the node is at now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Tells of every change of it; see [`watch::Receiver::changed`] and [`watch::Receiver::wait_for`].
    #[must_use]
    pub fn readiness_changes(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// How often the node has made all that it was started with known to the store: once at its beginning, and again each time
    /// it found the store emptied. After an outage alone the number stays.
    #[must_use]
    pub fn boots(&self) -> watch::Receiver<u64> {
        self.boots.clone()
    }

    /// What happens inside from now on, as a stream of [`Event`]s: ticks, jobs and how they end, outages. It ends when the
    /// node has stopped.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::of(self.events.upgrade())
    }

    /// Lays users over the period like this from now on, and moves starts back at random so far at the most. What is enqueued
    /// already stays as it is.
    pub fn lay_out(&self, spread: Spread, jitter: Jitter) {
        self.layout.send_if_modified(|layout| {
            let wanted = Some((spread, jitter));
            let differs = *layout != wanted;
            *layout = wanted;
            differs
        });
    }

    /// Takes no new jobs from now on. Those that run may finish within `deadline_ms` milliseconds and are handed back
    /// then. Saying it again can only bring the deadline nearer.
    pub fn begin_shutdown(&self, deadline_ms: u64) {
        self.readiness.send_if_modified(|readiness| {
            let goes_on = !matches!(readiness, Readiness::Stopping | Readiness::Stopped { .. });
            if goes_on {
                *readiness = Readiness::Stopping;
            }
            goes_on
        });
        let deadline = self.clock.now().plus_ms(deadline_ms);
        self.stop.send_replace(Some(deadline));
    }

    /// Waits until nothing is done any more; why that is.
    pub async fn stopped(&self) -> Why {
        let mut changes = self.readiness.subscribe();
        let ended = changes
            .wait_for(|readiness| matches!(readiness, Readiness::Stopped { .. }))
            .await;
        match ended.as_deref() {
            Ok(Readiness::Stopped { why }) => why.clone(),
            Ok(other) => panic!("waited for the end and got {other:?}"),
            Err(_) => panic!("the handle itself holds the sender"),
        }
    }

    /// [`Handle::begin_shutdown`], then [`Handle::stopped`].
    pub async fn shutdown(&self, deadline_ms: u64) -> Why {
        self.begin_shutdown(deadline_ms);
        self.stopped().await
    }

    /// Ends at once and hands nothing back, as if the process had been killed: for a store that is gone for good.
    pub fn abandon(&self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Stores and clocks need not be printable.
        formatter
            .debug_struct("Handle")
            .field("readiness", &*self.readiness.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
