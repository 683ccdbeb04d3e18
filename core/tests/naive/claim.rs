//! Who may start now, and who starts: the claim, and when to ask again.

use super::*;

impl Model {
    /// Jobs outside leases whose time has come, in the order in which they may start.
    pub(super) fn line(&self, now: Timestamp, of: Option<&SourceName>) -> Vec<JobKey> {
        let mut ready: Vec<_> = self
            .jobs
            .iter()
            .filter(|job| job.lease.is_none() && group(&job.key) == of.cloned())
            .filter(|job| self.ready_at(job) <= now)
            .map(|job| self.place(job))
            .collect();
        ready.sort();
        ready.into_iter().map(|(_, _, key)| key).collect()
    }

    /// What a job is sorted by within its source, or among the fan-outs.
    pub(super) fn place(&self, job: &Job) -> (bool, Timestamp, JobKey) {
        let patient = job.priority != Priority::Now;
        (patient, self.ready_at(job), job.key.clone())
    }

    pub(super) fn claim(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        mut slots: u32,
        mut fan_out_slots: u32,
        lease_ms: u64,
        held: Vec<LeaseToken>,
    ) -> Reply {
        for (what, count) in [("slots", slots), ("fan-out slots", fan_out_slots)] {
            if count > 1_000 {
                return too_large(format!(
                    "{count} {what}; at most 1000 are allowed in one command"
                ));
            }
        }
        if lease_ms == 0 || lease_ms > LEASE_MS_MAX {
            return too_large(format!("lease_ms is {lease_ms}; give 1 to {LEASE_MS_MAX}"));
        }
        slots = slots.min(100);
        fan_out_slots = fan_out_slots.min(100);
        let mut expired: Vec<(Timestamp, JobKey)> = self
            .jobs
            .iter()
            .filter_map(|job| Some((job.lease.as_ref()?.2, job.key.clone())))
            .filter(|(expires, _)| *expires <= now)
            .collect();
        expired.sort();
        let (mut recovered, mut buried) = (0, 0);
        for (_, key) in expired.into_iter().take(100) {
            if self.stall(now, &key) {
                buried += 1;
            } else {
                recovered += 1;
            }
        }
        let mut leases = Vec::new();
        let mut unknown: Vec<(LeaseToken, JobKey)> = self
            .jobs
            .iter()
            .filter_map(|job| Some((job.lease.clone()?, job.key.clone())))
            .filter(|((by, token, expires, _), _)| {
                *by == worker && *expires > now && !held.contains(token)
            })
            .map(|((_, token, _, _), key)| (token, key))
            .collect();
        unknown.sort();
        for (token, key) in unknown {
            let left = match key {
                JobKey::FanOut { .. } => &mut fan_out_slots,
                JobKey::Sync { .. } => &mut slots,
            };
            if *left > 0 {
                *left -= 1;
                let expires = now.plus_ms(lease_ms);
                self.job(&key).unwrap().lease = Some((worker.clone(), token, expires, lease_ms));
                leases.push(self.lease_of(&key));
            }
        }
        for key in self.line(now, None) {
            if fan_out_slots > 0 {
                fan_out_slots -= 1;
                leases.push(self.start(now, &key, &worker, lease_ms));
            }
        }
        let mut sources: Vec<SourceName> =
            self.sources.iter().map(|one| one.name.clone()).collect();
        sources.sort();
        for name in sources {
            let mut started = 0;
            for key in self.line(now, Some(&name)) {
                let source = self.source(&name).unwrap();
                if slots == 0 || !source.admits(now, started) {
                    break;
                }
                let limit = source.settings.requests_user;
                let user = self.user_of(&key).unwrap();
                let opens = limit.map_or(now, |limit| user.requests.opens_at(now, &limit, 1));
                if opens > now {
                    self.job(&key).unwrap().held = Some(opens);
                    continue;
                }
                user.state.last_started_at = Some(now);
                user.ask(now, limit, 1);
                let source = self.source(&name).unwrap();
                if let Some((since, starts)) = &mut source.ramp {
                    *starts += 1;
                    let jobs = source.settings.jobs;
                    if ramp_allowance(jobs.as_ref(), now.since_ms(*since)).is_none() {
                        source.ramp = None;
                    }
                }
                slots -= 1;
                started += 1;
                leases.push(self.start(now, &key, &worker, lease_ms));
            }
            let source = self.source(&name).unwrap();
            if let Some(limit) = source.settings.jobs {
                source.starts.record(now, started, &limit);
            }
            if let Some(limit) = source.settings.requests_project {
                source.requests.record(now, started, &limit);
            }
        }
        Reply::Claimed {
            leases,
            recovered,
            buried,
            next_at: self.next_at(now),
        }
    }

    pub(super) fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        let mut times = Vec::new();
        for job in &self.jobs {
            if let Some((_, _, expires, _)) = job.lease {
                times.push(expires);
                continue;
            }
            match &job.key {
                JobKey::FanOut { .. } => times.push(self.ready_at(job)),
                JobKey::Sync { source, .. } => {
                    let source = self.sources.iter().find(|one| one.name == *source).unwrap();
                    if source.paused.is_none() {
                        times.push(self.ready_at(job).max(source.opens_at(now)));
                    }
                }
            }
        }
        times.into_iter().min().map(|at| at.max(now))
    }
}
