//! The commands that take more than an arm: enqueue, checkpoint, "slow down".

use super::*;

impl Model {
    pub(super) fn enqueue(
        &mut self,
        now: Timestamp,
        source: SourceName,
        jobs: Vec<NewJob>,
        checkpoint: Option<(LeaseRef, String)>,
    ) -> Reply {
        let is_sync = |(lease, _): &(LeaseRef, String)| group(&lease.key).is_some();
        if checkpoint.as_ref().is_some_and(is_sync) {
            return Reply::Refused {
                refusal: Refusal::Invalid {
                    what: "only a fan-out's lease goes with an enqueue".to_owned(),
                },
            };
        }
        if self.source(&source).is_none() {
            return unknown(source);
        }
        if let Some((lease, progress)) = checkpoint {
            if !self.live(now, &lease) {
                return lost();
            }
            let job = self.job(&lease.key).unwrap();
            if job.progress.as_ref() == Some(&progress) {
                return Reply::Enqueued {
                    added: 0,
                    coalesced: 0,
                    refused: 0,
                };
            }
            job.progress = Some(progress);
        }
        let (mut added, mut coalesced, mut refused) = (0, 0, 0);
        for job in jobs {
            let state = self.user(&source, &job.user).map(|user| user.state.clone());
            let Some(state) = state.filter(|state| state.parked.is_none()) else {
                refused += 1;
                continue;
            };
            let mut priority = job.priority;
            if let Some(started) = state.last_started_at
                && now.as_ms() < started.as_ms() + 60_000
            {
                priority = Priority::Scheduled;
            }
            let key = JobKey::Sync {
                source: source.clone(),
                user: job.user,
            };
            let hurries = priority == Priority::Now;
            if self.want(&key, job.run_at, priority, job.nominal_at, hurries) {
                added += 1;
            } else {
                coalesced += 1;
            }
        }
        Reply::Enqueued {
            added,
            coalesced,
            refused,
        }
    }

    pub(super) fn owner(&self, key: &JobKey) -> Option<SourceName> {
        match key {
            JobKey::Sync { source, .. } => Some(source.clone()),
            JobKey::FanOut { schedule } => {
                let found = self.schedules.iter().find(|one| one.name == *schedule);
                found.map(|found| found.state.definition.source.clone())
            }
        }
    }

    pub(super) fn checkpoint(
        &mut self,
        now: Timestamp,
        lease: LeaseRef,
        progress: Option<String>,
        requests: u32,
    ) -> Reply {
        if !self.live(now, &lease) {
            return lost();
        }
        let name = self.owner(&lease.key).unwrap();
        let source = self.source(&name).unwrap().clone();
        let settings = &source.settings;
        for limit in [settings.requests_project, settings.requests_user] {
            if let Some(Limit { count, .. }) = limit
                && requests > count
            {
                return too_large(format!(
                    "{requests} requests; at most {count} are allowed in one command"
                ));
            }
        }
        if let Some(progress) = progress {
            match self.user_of(&lease.key) {
                Some(user) => {
                    let further = user.state.cursor.as_ref() != Some(&progress);
                    user.state.cursor = Some(progress);
                    if further {
                        self.job(&lease.key).unwrap().stalls = 0;
                    }
                }
                None => self.job(&lease.key).unwrap().progress = Some(progress),
            }
        }
        if requests == 0 {
            return Reply::Permit { wait_until: None };
        }
        let mut waits = vec![now];
        waits.extend(source.gate);
        if source.paused.is_some() {
            waits.push(now.plus_ms(60_000));
        }
        if let Some(limit) = settings.requests_project {
            waits.push(source.requests.opens_at(now, &limit, requests));
        }
        if let Some(user) = self.user_of(&lease.key) {
            waits.extend(user.state.gate_until);
            if let Some(limit) = settings.requests_user {
                waits.push(user.requests.opens_at(now, &limit, requests));
            }
        }
        let until = waits.into_iter().max().unwrap();
        if until > now {
            let wait_until = Some(until);
            return Reply::Permit { wait_until };
        }
        if let Some(limit) = settings.requests_project {
            let source = self.source(&name).unwrap();
            source.requests.record(now, requests, &limit);
        }
        if let Some(user) = self.user_of(&lease.key) {
            user.ask(now, settings.requests_user, requests);
        }
        Reply::Permit { wait_until: None }
    }

    pub(super) fn limited(
        &mut self,
        now: Timestamp,
        lease: LeaseRef,
        scope: LimitScope,
        (retry_after_ms, jitter_ms): (Option<u64>, u64),
        reason: &str,
    ) -> Reply {
        if group(&lease.key).is_none() && scope == LimitScope::User {
            return Reply::Refused {
                refusal: Refusal::Invalid {
                    what: "a fan-out has no user whose gate could close".to_owned(),
                },
            };
        }
        let ending = self.ending(now, &lease);
        if ending == Some(Reply::AlreadyDone) {
            return Reply::AlreadyDone;
        }
        let close = |gate: &mut Option<Timestamp>, streak: &mut u32| {
            // Told while it is closed: of the same moment.
            if *streak == 0 || gate.is_none_or(|until| until <= now) {
                *streak += 1;
            }
            let mut grown_ms = 1_000;
            for _ in 1..*streak {
                grown_ms = 64_000.min(grown_ms * 2);
            }
            let pause_ms = retry_after_ms.unwrap_or(grown_ms).saturating_add(jitter_ms);
            let until = now.plus_ms(pause_ms.min(24 * 3_600_000));
            *gate = Some(gate.unwrap_or(until).max(until));
            gate.unwrap()
        };
        let mut until = now;
        if scope == LimitScope::User {
            if let Some(user) = self.user_of(&lease.key) {
                let state = &mut user.state;
                until = close(&mut state.gate_until, &mut state.limited_in_a_row);
            }
        } else if let Some(name) = self.owner(&lease.key)
            && let Some(source) = self.source(&name)
        {
            until = close(&mut source.gate, &mut source.streak);
            source.reason = Some(cut(reason));
            source.ramp = Some((until, 0));
        }
        if let Some(reply) = ending {
            return reply;
        }
        self.note_end(&lease);
        self.back(&lease.key, Some(until));
        self.job(&lease.key).unwrap().fixed = scope == LimitScope::User;
        Reply::GateClosed { until }
    }
}
