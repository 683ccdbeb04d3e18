//! What the queue shows of itself: counts and listings, all from the indexes.

use std::collections::BTreeSet;

use super::Queue;
use super::command::{Refusal, Reply};
use super::index::by_source;
use super::rows::FinishedRow;
use super::state::{
    FRESHNESS_BOUNDS_MS, Freshness, JobKey, JobListing, JobState, QueueStats, SourceStats,
};
use super::table::Table;
use crate::id::{SourceName, UserId};
use crate::time::Timestamp;

impl Queue {
    pub(super) fn stats(&self, now: Timestamp) -> Reply {
        let meta = self.meta();
        let active = self.index.expiry.len();
        let lanes = self.index.lanes();
        let waiting: usize = lanes.map(|lane| lane.waiting(now).count()).sum();
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
            freshness: freshness(now, &index.success),
        }
    }

    pub(super) fn list_jobs(
        &self,
        now: Timestamp,
        state: JobState,
        offset: u32,
        limit: u32,
    ) -> Result<Reply, Refusal> {
        let (offset, limit) = (offset as usize, limit as usize);
        let outstanding = |(at, key): &(Timestamp, JobKey)| self.outstanding(key, state, *at);
        let jobs = match state {
            JobState::Waiting => {
                let rows = self.index.lanes().flat_map(|lane| lane.waiting(now));
                rows.skip(offset).take(limit).map(outstanding).collect()
            }
            JobState::Delayed => {
                let rows = self.index.lanes().flat_map(|lane| lane.delayed(now));
                rows.skip(offset).take(limit).map(outstanding).collect()
            }
            JobState::Active => {
                let rows = self.index.expiry.iter().skip(offset).take(limit);
                rows.map(outstanding).collect()
            }
            JobState::Completed => {
                let numbers = by_source(&self.index.completed).flat_map(|one| one.iter().rev());
                let page = numbers.skip(offset).take(limit);
                page.map(|number| finished(*number, state, &self.completed))
                    .collect()
            }
            JobState::Failed => {
                let numbers = by_source(&self.index.failed).flat_map(|one| one.iter().rev());
                let page = numbers.skip(offset).take(limit);
                page.map(|number| finished(*number, state, &self.failed))
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
            at,
            priority: row.wish.priority,
            attempt: row.attempts + u32::from(active.is_some()),
            worker: active.map(|lease| lease.worker.clone()),
            outcome: None,
            error: row.error.clone(),
        }
    }
}

/// One walk over the index; only who looks at a fleet asks for it.
fn freshness(now: Timestamp, success: &BTreeSet<(Timestamp, UserId)>) -> Freshness {
    let users = success.len() as u64;
    let at = |percent| {
        let place = Freshness::place(users, percent)?;
        let place = usize::try_from(place).expect("a set in memory is within usize");
        success.iter().nth(place).map(|(at, _)| *at)
    };
    let mut within = [users; FRESHNESS_BOUNDS_MS.len()];
    let mut newest_first = success.iter().rev();
    let mut fresh = 0;
    let mut next = newest_first.next();
    for (bound_ms, within) in FRESHNESS_BOUNDS_MS.iter().zip(&mut within) {
        let since = now.minus_ms(*bound_ms);
        while next.is_some_and(|(at, _)| *at >= since) {
            fresh += 1;
            next = newest_first.next();
        }
        *within = fresh;
    }
    Freshness {
        users,
        within,
        p50_at: at(50),
        p95_at: at(95),
        p99_at: at(99),
    }
}

fn finished(number: u64, state: JobState, history: &Table<u64, FinishedRow>) -> JobListing {
    let row = history.get(&number).expect("an indexed entry is there");
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
