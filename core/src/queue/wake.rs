//! When to ask again: the earliest time at which a claim could give something, or take something back.
//!
//! Every wait has a waker. Windows and ramps only drain while nothing starts, so the latest of what holds a source
//! back is exactly when its next job may start. A paused source wakes nobody: [`Command::Resume`](super::Command)
//! does.

use super::Queue;
use super::rows::opens_at;
use crate::id::SourceName;
use crate::policy::limit::{ramp_allowance, ramp_opens_after_ms};
use crate::time::Timestamp;

impl Queue {
    /// When a claim could next give something, or has an expired lease to take back; `None`: nothing is outstanding
    /// that time alone will start. Never earlier than `now`.
    #[must_use]
    pub fn next_wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let expiry = self.index.expiry.first().map(|(at, _)| *at);
        let fan_out = self.index.fan_outs.ready_at();
        let syncs = self.index.sources.iter().filter_map(|(source, index)| {
            Some(
                index
                    .lane
                    .ready_at()?
                    .max(self.source_opens_at(now, source)?),
            )
        });
        let earliest = syncs.chain(expiry).chain(fan_out).min()?;
        Some(earliest.max(now))
    }

    /// When the source lets its next job start; `None` while it is paused.
    fn source_opens_at(&self, now: Timestamp, source: &SourceName) -> Option<Timestamp> {
        let row = self.sources.get(source)?;
        if row.paused.is_some() {
            return None;
        }
        let gate = row.gate_until.unwrap_or(now);
        let Some(flow) = self.flows.get(source) else {
            return Some(gate);
        };
        let jobs = row.settings.jobs.as_ref();
        let ramp = flow.ramp.map_or(now, |ramp| {
            match ramp_allowance(jobs, now.since_ms(ramp.since)) {
                Some(allowed) if allowed <= ramp.starts => {
                    ramp.since.plus_ms(ramp_opens_after_ms(jobs, ramp.starts))
                }
                _ => now,
            }
        });
        let starts = opens_at(&flow.starts, now, jobs, 1);
        let project = row.settings.requests_project.as_ref();
        let requests = opens_at(&flow.requests, now, project, 1);
        Some(gate.max(ramp).max(starts).max(requests))
    }
}
