//! What a node is told at its start.

use serde::{Deserialize, Serialize};

use crate::id::{ScheduleName, SourceName, UserId, WorkerId};
use crate::policy::backoff::Backoff;
use crate::policy::jitter::Jitter;
use crate::policy::schedule::ScheduleDefinition;
use crate::policy::spread::Spread;
use crate::queue::state::SourceSettings;
use crate::sync::SyncSettings;

/// One source, and the users that this process's configuration names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDefinition {
    /// Its name.
    pub name: SourceName,
    /// Limits and retention, shared by all processes.
    pub settings: SourceSettings,
    /// How one user is synced.
    pub sync: SyncSettings,
    /// Users to enroll at the start, each with a hash of the grant (a parked user is tried again only with another
    /// one). Those that are new get their first sync at once, spread like a fan-out.
    pub enroll: Vec<(UserId, u64)>,
}

/// How long one effect may take before it is given up, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// A store command. Default 10 s.
    pub store_ms: u64,
    /// A request to the source. Default 60 s.
    pub fetch_ms: u64,
    /// A graph write. Default 60 s.
    pub graph_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            store_ms: 10_000,
            fetch_ms: 60_000,
            graph_ms: 60_000,
        }
    }
}

/// What a node is told at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSettings {
    /// This incarnation of this process; never used again.
    pub worker: WorkerId,
    /// The seed of all chance in this node. Log it: the same seed and inputs give the same decisions.
    pub seed: u64,
    /// The sources.
    pub sources: Vec<SourceDefinition>,
    /// The schedules that the configuration defines; others may stand in the store.
    pub schedules: Vec<(ScheduleName, ScheduleDefinition)>,
    /// Sync jobs at a time. Default 3.
    pub concurrency: u32,
    /// Fan-outs at a time: a lane of their own, [`FAN_OUT_SLOTS`](super::FAN_OUT_SLOTS). 0 for a process that leaves
    /// ticks and fan-outs to others.
    pub fan_out_slots: u32,
    /// How long a lease lasts without a heartbeat, in milliseconds; a heartbeat goes out every third of it.
    /// Default 30 s.
    pub lease_ms: u64,
    /// Random delay of each scheduled job. Default 0 to 5 s.
    pub jitter: Jitter,
    /// How a fan-out lays its users over the period.
    pub spread: Spread,
    /// Retries of failed jobs. Default 3 attempts, base 1 s.
    pub backoff: Backoff,
    /// Deadlines of single effects.
    pub deadlines: Deadlines,
    /// The slow poll behind the wake-ups, in milliseconds. Default 5 s.
    pub poll_ms: u64,
    /// A tick not older than this is on time and not "missed", in milliseconds. Default 60 s.
    pub late_tick_ms: u64,
}

impl NodeSettings {
    /// The mission's defaults for `worker`: no source, no schedule yet.
    #[must_use]
    pub fn new(worker: WorkerId, seed: u64) -> Self {
        NodeSettings {
            worker,
            seed,
            sources: Vec::new(),
            schedules: Vec::new(),
            concurrency: 3,
            fan_out_slots: super::FAN_OUT_SLOTS,
            lease_ms: 30_000,
            jitter: Jitter::default(),
            spread: Spread::default(),
            backoff: Backoff::default(),
            deadlines: Deadlines::default(),
            poll_ms: 5_000,
            late_tick_ms: 60_000,
        }
    }

    pub(super) fn source(&self, name: &SourceName) -> Option<&SourceDefinition> {
        self.sources.iter().find(|source| source.name == *name)
    }
}
