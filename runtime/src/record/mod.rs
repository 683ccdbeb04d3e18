//! Recording: `kalends run --record FILE` writes down what its node was told, for `kalends replay`.
//!
//! [`kalends_sim::incident`] says what is written and hides what nobody else may see. Here are the thread and the files:
//!
//! - the driver hands each turn to a writer thread over a bounded channel and never waits for it. If the channel is full,
//!   the journal ends there with the word "gap", the log says so, and the node goes on unrecorded;
//! - the files are bounded: after [`Bounds::file_bytes_max`] a new one begins, the older ones are `FILE.1`, `FILE.2`, ..., and
//!   the oldest goes. Each can be replayed alone. A journal that is there when a process starts is kept as `FILE.1`, too;
//! - `FILE.key` holds the key of the pseudonyms. With it, and only with it, a user can be found by name. It stays with its
//!   owner; the journal may be handed on.
//!
//! Nothing that goes wrong here reaches the node: a full disk ends the recording.

mod files;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use kalends_core::google::page::FetchReply;
use kalends_core::node::Node;
use kalends_core::node::io::{EffectResult, Input, Output};
use kalends_core::node::settings::NodeSettings;
use kalends_core::queue::command::{Reply, Stamped};
use kalends_core::time::Timestamp;
use kalends_sim::incident::{Hider, Key, Recording, Said, Told, Turn};

use crate::wiring::{Refused, fresh_seed};

pub use files::{key_beside, key_path};

/// Turns that may wait for the writer: some tenths of a second of a busy node.
pub const TURNS_WAITING_MAX: usize = 8_192;
/// How much text may wait for the writer, in bytes.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a turn, a lease, a user is counted as, in bytes.
const OVERHEAD_BYTES: usize = 256;
/// What a hidden event is counted as, in bytes: an id that is too long is the most.
const EVENT_BYTES: usize = 1_024;

/// How much of a journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A file that has this many bytes is followed by a new one. Default 64 MiB.
    pub file_bytes_max: u64,
    /// So many files, the current one included; at least 1. Default 8.
    pub files_max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            file_bytes_max: 64 * 1024 * 1024,
            files_max: 8,
        }
    }
}

/// The driver's end: it is told what the node is told and says, and hands it on.
#[derive(Debug)]
pub struct Recorder {
    hider: Hider,
    /// `None`: the recording has ended.
    turns: Option<SyncSender<(usize, Turn)>>,
    waiting_bytes: Arc<AtomicUsize>,
    gap: Arc<AtomicBool>,
    told: Vec<Told>,
    said: Vec<Said>,
    weight_bytes: usize,
}

/// The other end: to be waited for before the process ends.
#[derive(Debug)]
pub struct Journal(JoinHandle<()>);

impl Journal {
    /// Waits until everything is in the file: after the recorder was dropped, by the end of its driver.
    pub async fn closed(self) {
        let joined = tokio::task::spawn_blocking(move || self.0.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the recording ended by a panic, please report it");
        }
    }
}

impl Recorder {
    /// Begins a journal at `path` for a node that is made with `settings`.
    ///
    /// # Errors
    /// If something else is at `path`, or it or the key beside it cannot be written or read.
    pub fn start(
        path: &Path,
        settings: &NodeSettings,
        bounds: Bounds,
    ) -> Result<(Recorder, Journal), Refused> {
        let refuse = |detail: String| Refused::bad_input(format!("record.file: {detail}"));
        let key = files::own_key(path, || Key::new(fresh_seed(), fresh_seed())).map_err(refuse)?;
        let (recording, head) = Recording::new(settings, key);
        let hider = recording.hider().clone();
        let files = files::Files::begin(path, bounds, &head).map_err(refuse)?;
        let (sender, receiver) = sync_channel(TURNS_WAITING_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let gap = Arc::new(AtomicBool::new(false));
        let writer = writer::Writer {
            recording,
            files,
            turns: receiver,
            waiting_bytes: Arc::clone(&waiting_bytes),
            gap: Arc::clone(&gap),
        };
        let thread = std::thread::Builder::new().name("kalends-record".to_owned());
        let thread = thread
            .spawn(move || writer.run())
            .map_err(|error| refuse(format!("the system gives no thread: {error}")))?;
        let recorder = Recorder {
            hider,
            turns: Some(sender),
            waiting_bytes,
            gap,
            told: Vec::new(),
            said: Vec::new(),
            weight_bytes: 0,
        };
        Ok((recorder, Journal(thread)))
    }

    /// The driver is about to tell `node` this; `None`: that its time has come.
    pub fn told(&mut self, node: &Node, input: Option<&Input>) {
        if self.turns.is_none() {
            return;
        }
        let calendar_hash = match input {
            Some(Input::Done {
                id,
                result: EffectResult::Fetch(Ok(FetchReply::Events(page))),
            }) => node.calendar_hash(*id, page),
            _ => None,
        };
        self.weight_bytes += input.map_or(0, weight_bytes);
        self.told.push(self.hider.told(input, calendar_hash));
    }

    /// The node said this.
    pub fn said(&mut self, output: &Output) {
        if self.turns.is_some() {
            self.said.push(Said::of(output, &self.hider));
        }
    }

    /// The node has nothing more to say for now: the turn is over.
    pub fn turn_ends(&mut self, at: Timestamp) {
        let Some(turns) = &self.turns else {
            return;
        };
        let turn = Turn {
            at,
            told: std::mem::take(&mut self.told),
            said: std::mem::take(&mut self.said),
        };
        let weight_bytes = std::mem::take(&mut self.weight_bytes) + OVERHEAD_BYTES;
        let waiting_bytes = self
            .waiting_bytes
            .fetch_add(weight_bytes, Ordering::Relaxed);
        let sent = if waiting_bytes > WAITING_BYTES_MAX {
            Err(TrySendError::Full((weight_bytes, turn)))
        } else {
            turns.try_send((weight_bytes, turn))
        };
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.gap.store(true, Ordering::Release);
                self.turns = None;
                tracing::error!(
                    "the journal cannot keep up and ends here; the node goes on unrecorded, a restart begins a new journal"
                );
            }
            // The writer has said why.
            Err(TrySendError::Disconnected(_)) => self.turns = None,
        }
    }
}

/// How much memory `input` takes when it is hidden, roughly.
fn weight_bytes(input: &Input) -> usize {
    let Input::Done { result, .. } = input else {
        return 0;
    };
    match result {
        EffectResult::Fetch(Ok(FetchReply::Events(page))) => {
            (page.events.len() + page.unreadable.len()) * EVENT_BYTES
        }
        EffectResult::Fetch(Ok(FetchReply::Calendars(page))) => {
            page.calendars.len() * OVERHEAD_BYTES
        }
        EffectResult::Store(Ok(Stamped {
            value: Reply::Claimed { leases, .. },
            ..
        })) => leases
            .iter()
            .map(|lease| lease.cursor.as_ref().map_or(0, String::len) + OVERHEAD_BYTES)
            .sum(),
        EffectResult::Store(Ok(Stamped {
            value: Reply::DueUsers { users, .. },
            ..
        })) => users.len() * OVERHEAD_BYTES,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
