//! What is to be seen from outside: lists of jobs, and counts.

use std::cmp::Reverse;

use super::*;

impl Model {
    pub(super) fn listing(&self, now: Timestamp, state: JobState) -> Vec<JobListing> {
        let mut jobs: Vec<JobListing> = Vec::new();
        let mut outstanding: Vec<&Job> = self.jobs.iter().collect();
        match state {
            JobState::Active => outstanding.sort_by_key(|job| {
                let expires = job.lease.as_ref().map(|(_, _, expires, _)| *expires);
                (expires, job.key.clone())
            }),
            // No source sorts before any: the fan-outs come first.
            _ => outstanding.sort_by_key(|job| (group(&job.key), self.place(job))),
        }
        for job in outstanding {
            let (of, at, worker) = match &job.lease {
                Some((worker, _, expires, _)) => (JobState::Active, *expires, Some(worker.clone())),
                None if self.ready_at(job) <= now => (JobState::Waiting, self.ready_at(job), None),
                None => (JobState::Delayed, self.ready_at(job), None),
            };
            if of == state {
                jobs.push(JobListing {
                    key: job.key.clone(),
                    state,
                    number: None,
                    at,
                    priority: job.priority,
                    attempt: job.attempts + u32::from(worker.is_some()),
                    worker,
                    outcome: None,
                    error: job.error.clone(),
                });
            }
        }
        let mut finished = self.by_source();
        finished.retain(|entry| entry.listing.state == state);
        finished.sort_by_key(|entry| {
            let source = group(&entry.listing.key);
            (source.is_none(), source, Reverse(entry.listing.number))
        });
        jobs.extend(finished.into_iter().map(|entry| entry.listing));
        jobs
    }

    /// The history: source by source, then the fan-outs', the oldest of each first.
    pub(super) fn by_source(&self) -> Vec<Finished> {
        let mut finished = self.finished.clone();
        finished.sort_by_key(|entry| {
            let source = group(&entry.listing.key);
            (source.is_none(), source, entry.listing.number)
        });
        finished
    }

    pub(super) fn stats(&self, now: Timestamp) -> Reply {
        let count = |state| self.listing(now, state).len() as u64;
        let mut workers: Vec<(WorkerId, u64)> = Vec::new();
        for job in &self.jobs {
            if let Some((worker, _, _, _)) = &job.lease {
                match workers.iter_mut().find(|(known, _)| known == worker) {
                    Some((_, leases)) => *leases += 1,
                    None => workers.push((worker.clone(), 1)),
                }
            }
        }
        workers.sort();
        let mut sources: Vec<(SourceName, SourceStats)> = Vec::new();
        for source in &self.sources {
            let users: Vec<&User> = self
                .users
                .iter()
                .filter(|user| user.source == source.name)
                .collect();
            let parked = |user: &&&User| user.state.parked.is_some();
            let starts = source.settings.jobs.map_or(0, |limit| {
                limit.count - source.starts.available(now, &limit)
            });
            sources.push((
                source.name.clone(),
                SourceStats {
                    settings: source.settings.clone(),
                    paused: source.paused.clone(),
                    gate_until: source.gate.filter(|until| *until > now),
                    gate_reason: source.reason.clone(),
                    starts_in_window: u64::from(starts),
                    users: users.len() as u64,
                    parked: users.iter().filter(parked).count() as u64,
                    never_synced: users
                        .iter()
                        .filter(|user| user.state.last_success_at.is_none())
                        .count() as u64,
                    oldest_success_at: users
                        .iter()
                        .filter(|user| !parked(user))
                        .filter_map(|user| user.state.last_success_at)
                        .min(),
                    freshness: freshness(now, &users),
                },
            ));
        }
        sources.sort_by(|left, right| left.0.cmp(&right.0));
        Reply::Stats {
            stats: QueueStats {
                waiting: count(JobState::Waiting),
                delayed: count(JobState::Delayed),
                active: count(JobState::Active),
                completed: count(JobState::Completed),
                failed: count(JobState::Failed),
                completed_total: self.completed_total,
                failed_total: self.failed_total,
                sources,
                workers,
            },
        }
    }
}

/// Each figure by a look at everybody.
fn freshness(now: Timestamp, users: &[&User]) -> Freshness {
    let mut ages: Vec<(u64, Timestamp)> = users
        .iter()
        .filter(|user| user.state.parked.is_none())
        .filter_map(|user| user.state.last_success_at)
        .map(|at| (now.since_ms(at), at))
        .collect();
    ages.sort_by_key(|(_, at)| Reverse(*at));
    let at = |percent: usize| {
        let reached = (1..=ages.len()).find(|count| count * 100 >= ages.len() * percent);
        reached.map(|count| ages[count - 1].1)
    };
    Freshness {
        users: ages.len() as u64,
        within: FRESHNESS_BOUNDS_MS
            .map(|bound| ages.iter().filter(|(age, _)| *age <= bound).count() as u64),
        p50_at: at(50),
        p95_at: at(95),
        p99_at: at(99),
    }
}
