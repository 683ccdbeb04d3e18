//! Enqueueing: one outstanding job a user, whatever is asked of it how often.
//!
//! A second wish coalesces into the job that is there: the earlier time, the higher priority, the newest tick. One
//! that comes while the job is active makes it run once more afterwards, so that no wish is lost to a sync that had
//! already looked. A job that waits after a failed attempt keeps its wait, unless somebody asks for "sync now".

use super::command::{LeaseRef, NewJob, Priority, Refusal, Reply};
use super::records::sync_key;
use super::rows::{UserKey, Wish};
use super::state::JobKey;
use super::{Queue, SYNC_NOW_INTERVAL_MS};
use crate::id::SourceName;
use crate::mutant::{Mutant, planted};
use crate::time::Timestamp;

impl Queue {
    pub(super) fn enqueue(
        &mut self,
        now: Timestamp,
        source: &SourceName,
        jobs: Vec<NewJob>,
        checkpoint: Option<(LeaseRef, String)>,
    ) -> Result<Reply, Refusal> {
        self.check_source(source)?;
        if let Some((lease, progress)) = checkpoint {
            if self.live(now, &lease).is_none() {
                return Err(Refusal::LeaseLost);
            }
            if self.has_progress(&lease.key, &progress) {
                // The reply to this very page was lost: its jobs may have run since.
                return Ok(Reply::Enqueued {
                    added: 0,
                    coalesced: 0,
                    refused: 0,
                });
            }
            if !planted(Mutant::FanOutRestarts) {
                self.edit_job(&lease.key, |row| row.progress = Some(progress));
            }
        }
        let (mut added, mut coalesced, mut refused) = (0, 0, 0);
        for job in jobs {
            let user: UserKey = (source.clone(), job.user);
            let Some(row) = self.users.get(&user) else {
                refused += 1;
                continue;
            };
            if row.state.parked.is_some() {
                refused += 1;
                continue;
            }
            let started_at = row.state.last_started_at;
            let floods = started_at.is_some_and(|at| now.since_ms(at) < SYNC_NOW_INTERVAL_MS);
            let priority = if floods {
                Priority::Scheduled
            } else {
                job.priority
            };
            let wish = Wish {
                run_at: job.run_at,
                priority,
                nominal_at: job.nominal_at,
            };
            if self.want(&sync_key(&user), wish, priority == Priority::Now) {
                added += 1;
            } else {
                coalesced += 1;
            }
        }
        Ok(Reply::Enqueued {
            added,
            coalesced,
            refused,
        })
    }

    /// Whether a fan-out's progress is this text already.
    pub(super) fn has_progress(&self, key: &JobKey, progress: &str) -> bool {
        let row = self.jobs.get(key);
        row.and_then(|row| row.progress.as_deref()) == Some(progress)
    }

    pub(super) fn remove(&mut self, key: &JobKey) -> Reply {
        let waits = self.jobs.get(key).is_some_and(|row| row.active.is_none());
        if waits {
            self.remove_job(key);
        }
        Reply::Count {
            count: u64::from(waits),
        }
    }

    pub(super) fn check_source(&self, source: &SourceName) -> Result<(), Refusal> {
        if self.sources.contains(source) {
            return Ok(());
        }
        Err(Refusal::UnknownSource {
            source: source.clone(),
        })
    }
}
