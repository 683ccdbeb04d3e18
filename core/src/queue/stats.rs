//! What the queue shows of itself: counts and listings, all from the indexes.

use std::ops::Bound;

use super::Queue;
use super::command::{BATCH_MAX, Refusal, Reply};
use super::records::check_size;
use super::rows::FinishedRow;
use super::state::{JobKey, JobListing, JobState, QueueStats, SourceStats};
use crate::id::SourceName;
use crate::time::Timestamp;

impl Queue {
    pub(super) fn stats(&self, now: Timestamp) -> Reply {
        let meta = self.meta();
        let active = self.index.active.len();
        let waiting = self.index.ready_count();
        let sources = self.sources.iter();
        let workers = self.index.workers.iter();
        Reply::Stats {
            stats: QueueStats {
                waiting: waiting as u64,
                delayed: (self.jobs.len() - active - waiting) as u64,
                active: active as u64,
                completed: self.completed.len() as u64,
                failed: self.failed.len() as u64,
                completed_total: meta.completed_total,
                failed_total: meta.failed_total,
                sources: sources
                    .map(|(name, _)| (name.clone(), self.source_stats(now, name)))
                    .collect(),
                workers: workers
                    .map(|(worker, held)| (worker.clone(), held.len() as u64))
                    .collect(),
            },
        }
    }

    fn source_stats(&self, now: Timestamp, source: &SourceName) -> SourceStats {
        let row = self.sources.get(source).expect("the caller listed it");
        let index = self.index.sources.get(source);
        let index = index.expect("every source has its index");
        let starts = self.flow(source).starts;
        let starts_in_window = row.settings.jobs.map_or(0, |limit| {
            // More than the limit may have started before it was lowered; shown is what counts against it.
            u64::from(limit.count - starts.available(now, &limit))
        });
        SourceStats {
            settings: row.settings.clone(),
            paused: row.paused.clone(),
            gate_until: row.gate_until.filter(|until| *until > now),
            gate_reason: row.gate_reason.clone(),
            starts_in_window,
            users: index.users,
            parked: index.parked,
            never_synced: index.never_synced,
            oldest_success_at: index.success.first().map(|(at, _)| *at),
        }
    }

    pub(super) fn list_jobs(
        &self,
        state: JobState,
        offset: u32,
        limit: u32,
    ) -> Result<Reply, Refusal> {
        check_size("jobs", limit as usize, BATCH_MAX)?;
        let (offset, limit) = (offset as usize, limit as usize);
        let now = self.index.watermark();
        let later = (Bound::Excluded(now), Bound::Unbounded);
        let waiting = |(at, key): (&Timestamp, &JobKey)| self.outstanding(key, state, *at);
        let by_key = |(at, keys)| std::iter::repeat(at).zip(keys);
        let jobs = match state {
            JobState::Waiting => {
                let rows = self.index.by_time.range(..=now).flat_map(by_key);
                rows.skip(offset).take(limit).map(waiting).collect()
            }
            JobState::Delayed => {
                let rows = self.index.by_time.range(later).flat_map(by_key);
                rows.skip(offset).take(limit).map(waiting).collect()
            }
            JobState::Active => {
                let keys = self.index.active.iter().skip(offset).take(limit);
                keys.map(|key| self.outstanding(key, state, now)).collect()
            }
            JobState::Completed => {
                let rows = self.completed.iter().rev().skip(offset).take(limit);
                rows.map(|(number, row)| finished(*number, state, row))
                    .collect()
            }
            JobState::Failed => {
                let rows = self.failed.iter().rev().skip(offset).take(limit);
                rows.map(|(number, row)| finished(*number, state, row))
                    .collect()
            }
        };
        Ok(Reply::Jobs { jobs })
    }

    fn outstanding(&self, key: &JobKey, state: JobState, at: Timestamp) -> JobListing {
        let row = self.jobs.get(key).expect("an indexed job is there");
        let active = row.active.as_ref();
        JobListing {
            key: key.clone(),
            state,
            number: None,
            at: active.map_or(at, |lease| lease.expires_at),
            priority: row.wish.priority,
            attempt: row.attempts + u32::from(active.is_some()),
            worker: active.map(|lease| lease.worker.clone()),
            outcome: None,
            error: row.error.clone(),
        }
    }
}

fn finished(number: u64, state: JobState, row: &FinishedRow) -> JobListing {
    JobListing {
        key: row.key.clone(),
        state,
        number: Some(number),
        at: row.at,
        priority: row.priority,
        attempt: row.attempt,
        worker: None,
        outcome: row.outcome.clone(),
        error: row.error.clone(),
    }
}
