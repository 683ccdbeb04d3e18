//! Leases ahead of the work. While jobs are over in no time, a process that asks for no more than it has slots spends its
//! time waiting for the store, and the store waits for it. So a node may hold leases of jobs that are *ready*: claimed,
//! not begun. It asks for more when half of them are used up, and works off the other half meanwhile.
//!
//! A job that is ready here cannot be had by another process, so there are none unless jobs are known to be short:
//!
//! - [`PREFETCH_PROOF_JOBS`] syncs in a row were done within [`PREFETCH_MS`] of their claim; then as many are ready as
//!   there are slots, and after each such stretch twice as many, up to [`PREFETCH_MAX`];
//! - a sync that took longer, or did not simply succeed, ends it at once; so does a claim that was not filled, as then
//!   nothing waits;
//! - whoever has waited here for [`PREFETCH_HOLD_MS_MAX`] goes back unharmed, and so do all at a shutdown;
//! - a source with a limit has none: a start that was handed back would still count against it. There the limit, not the
//!   store, is what a process waits for.
//!
//! A calendar's real answer takes more than 10 ms, so what this is for is a source close by, and a store that is not.

use serde::{Deserialize, Serialize};

use super::Node;
use super::slots::Ending;
use crate::queue::CLAIM_BATCH_MAX;
use crate::queue::command::{Command, LeaseToken};
use crate::queue::state::SourceSettings;
use crate::time::Timestamp;

/// A sync that is done so soon after its claim is a short one, in milliseconds.
pub const PREFETCH_MS: u64 = 10;
/// So many short syncs in a row are proof enough to hold more leases.
pub const PREFETCH_PROOF_JOBS: u32 = 32;
/// Jobs that are ready in one process at the most: what two claims can give, so that one claim's are worked off while the
/// store looks for the next.
pub const PREFETCH_MAX: u32 = 2 * CLAIM_BATCH_MAX as u32;
/// A job that has not begun so long after its claim goes back, in milliseconds: it may be that one slow job holds up all
/// the others, and another process has a slot for them.
pub const PREFETCH_HOLD_MS_MAX: u64 = 100;

/// How many jobs may be ready, and what speaks for more.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Prefetch {
    window: u32,
    short_in_a_row: u32,
}

impl Prefetch {
    /// So many jobs may be ready beside those that run.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// A sync was done so long after its claim.
    pub(super) fn done_after(&mut self, age_ms: u64) {
        if age_ms > PREFETCH_MS {
            self.stop();
        } else {
            self.short_in_a_row = self.short_in_a_row.saturating_add(1);
        }
    }

    /// There is nothing to be said for it any more.
    pub(super) fn stop(&mut self) {
        *self = Prefetch::default();
    }

    fn grow(&mut self, concurrency: u32) {
        if self.short_in_a_row < PREFETCH_PROOF_JOBS {
            return;
        }
        let wider = self.window.saturating_mul(2).max(concurrency);
        self.window = wider.min(PREFETCH_MAX);
        self.short_in_a_row = 0;
        assert!(self.window > 0, "a node has at least one slot");
    }
}

fn is_unlimited(settings: &SourceSettings) -> bool {
    settings.jobs.is_none()
        && settings.requests_project.is_none()
        && settings.requests_user.is_none()
}

impl Node {
    /// How many jobs were claimed here and have not begun: see the [module's documentation](self).
    #[must_use]
    pub fn ready_jobs(&self) -> usize {
        self.slots.ready_syncs() as usize
    }

    /// Before a claim goes out: should it ask for more than there are slots?
    pub(super) fn widen_prefetch(&mut self) {
        let mut sources = self.settings.sources.iter();
        if sources.all(|source| is_unlimited(&source.settings)) {
            self.prefetch.grow(self.settings.concurrency);
        }
    }

    /// When the first of the jobs that are ready goes back, on the driver's clock.
    pub(super) fn next_hand_back_at(&self) -> Option<Timestamp> {
        let claimed_at = self.slots.ready_slots().next()?.claimed_at;
        Some(claimed_at.plus_ms(PREFETCH_HOLD_MS_MAX))
    }

    /// Hands back what has been ready for too long; at a shutdown, all of it.
    pub(super) fn hand_back_ready(&mut self, now: Timestamp) {
        let all = self.shutdown.is_some();
        let mut late: Vec<LeaseToken> = Vec::new();
        for slot in self.slots.ready_slots() {
            if !all && now < slot.claimed_at.plus_ms(PREFETCH_HOLD_MS_MAX) {
                break;
            }
            late.push(slot.lease.token);
        }
        if late.is_empty() {
            return;
        }
        self.prefetch.stop();
        for token in late {
            self.end_job(now, token, Ending::Released, |lease| Command::Release {
                lease,
                at: None,
            });
        }
    }
}
