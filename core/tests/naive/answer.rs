//! One arm a command: what is asked, and what is said.

use super::*;

impl Model {
    pub(super) fn answer(&mut self, now: Timestamp, command: Command) -> Reply {
        match command {
            Command::DefineSource { source, settings } => {
                for (name, limit) in [
                    ("jobs", settings.jobs),
                    ("requests_project", settings.requests_project),
                    ("requests_user", settings.requests_user),
                ] {
                    if let Some(Err(error)) = limit.map(|limit| limit.validate()) {
                        return Reply::Refused {
                            refusal: Refusal::Invalid {
                                what: format!("{name}: {error}"),
                            },
                        };
                    }
                }
                let Some(found) = self.source(&source) else {
                    self.sources.push(Source {
                        name: source,
                        defined: settings.clone(),
                        settings,
                        paused: None,
                        gate: None,
                        reason: None,
                        streak: 0,
                        starts: SlidingWindow::new(),
                        requests: SlidingWindow::new(),
                        ramp: None,
                    });
                    return Reply::Done;
                };
                if found.defined != settings {
                    let other_user_limit = found.settings.requests_user != settings.requests_user;
                    found.defined = settings.clone();
                    found.settings = settings;
                    for job in &mut self.jobs {
                        if other_user_limit && group(&job.key) == Some(source.clone()) {
                            job.held = None;
                        }
                    }
                    self.trim();
                }
                Reply::Done
            }
            Command::DefineSchedule {
                schedule,
                definition,
            } => {
                if self.source(&definition.source).is_none() {
                    return unknown(definition.source);
                }
                for found in &mut self.schedules {
                    if found.name == schedule {
                        if found.state.definition != definition {
                            let first = definition.next_after(now);
                            for user in &mut self.users {
                                if let Some(first) = first
                                    && user.source == definition.source
                                    && user.state.parked.is_none()
                                {
                                    user.state.due_at = user.state.due_at.min(first);
                                }
                            }
                            found.state.definition = definition;
                            found.state.revision += 1;
                        }
                        return Reply::Schedule {
                            state: found.state.clone(),
                        };
                    }
                }
                let state = ScheduleState {
                    definition,
                    revision: 1,
                    last_tick_at: now,
                    fired: 0,
                    missed: 0,
                };
                self.schedules.push(Schedule {
                    name: schedule,
                    state: state.clone(),
                    ended: None,
                });
                Reply::Schedule { state }
            }
            Command::RemoveSchedule { schedule } => {
                self.schedules.retain(|found| found.name != schedule);
                let key = JobKey::FanOut { schedule };
                self.jobs.retain(|job| job.key != key);
                Reply::Done
            }
            Command::Tick {
                schedule,
                revision,
                after,
                at,
                missed,
                fire,
            } => {
                if at <= after || at > now {
                    return Reply::Refused {
                        refusal: Refusal::Invalid {
                            what: format!(
                                "the tick {at} must be later than {after} and not later than {now}"
                            ),
                        },
                    };
                }
                let found = self.schedules.iter_mut().find(|one| one.name == schedule);
                let Some(found) = found else {
                    return Reply::AlreadyFired { state: None };
                };
                let state = &mut found.state;
                if state.revision != revision || state.last_tick_at != after {
                    return Reply::AlreadyFired {
                        state: Some(state.clone()),
                    };
                }
                state.last_tick_at = at;
                state.missed += missed;
                if fire {
                    state.fired += 1;
                }
                let state = state.clone();
                if fire {
                    let key = JobKey::FanOut { schedule };
                    self.want(&key, now, Priority::Scheduled, Some(at), false);
                }
                Reply::Fired { state }
            }
            Command::Enqueue {
                source,
                jobs,
                checkpoint,
            } => self.enqueue(now, source, jobs, checkpoint),
            Command::Claim {
                worker,
                slots,
                fan_out_slots,
                lease_ms,
                held,
            } => self.claim(now, worker, slots, fan_out_slots, lease_ms, held),
            Command::Heartbeat { leases, lease_ms } => {
                let mut lost = Vec::new();
                for lease in leases {
                    if self.live(now, &lease) {
                        let job = self.job(&lease.key).unwrap();
                        let (_, _, expires, length) = job.lease.as_mut().unwrap();
                        *expires = now.plus_ms(lease_ms);
                        *length = lease_ms;
                    } else {
                        lost.push(lease.token);
                    }
                }
                Reply::Heartbeat { lost }
            }
            Command::Checkpoint {
                lease,
                progress,
                requests,
            } => self.checkpoint(now, lease, progress, requests),
            Command::Complete { lease, commit } => {
                if let Some(cursor) = &commit.cursor
                    && cursor.len() > CURSOR_BYTES_MAX
                {
                    return too_large(format!(
                        "cursor of {} bytes; at most {CURSOR_BYTES_MAX} are kept",
                        cursor.len()
                    ));
                }
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                let synced = matches!(commit.outcome, CommitOutcome::Synced { .. });
                if let Some(user) = self.user_of(&lease.key) {
                    let state = &mut user.state;
                    if commit.cursor.is_some() {
                        state.cursor = commit.cursor;
                    }
                    if let Some(due) = commit.next_due_at {
                        state.due_at = due;
                    }
                    state.last_outcome = Some(commit.outcome.clone());
                    state.last_error = None;
                    if synced {
                        state.last_success_at = Some(now);
                        state.gate_until = None;
                        state.limited_in_a_row = 0;
                    }
                }
                if let (JobKey::Sync { source, .. }, true) = (&lease.key, synced) {
                    self.source(source).unwrap().streak = 0;
                }
                let attempt = self.job(&lease.key).unwrap().attempts + 1;
                let outcome = Some(commit.outcome);
                self.file(now, &lease.key, JobState::Completed, attempt, outcome, None);
                Reply::Done
            }
            Command::Retry { lease, at, error } => {
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                if let Some(user) = self.user_of(&lease.key) {
                    user.state.last_error = Some(cut(&error));
                }
                let job = self.job(&lease.key).unwrap();
                job.attempts += 1;
                job.error = Some(cut(&error));
                self.back(&lease.key, Some(at));
                Reply::Done
            }
            Command::Fail {
                lease,
                error,
                next_due_at,
                park,
            } => {
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                if let Some(user) = self.user_of(&lease.key) {
                    user.state.last_error = Some(cut(&error));
                    if let Some(due) = next_due_at {
                        user.state.due_at = due;
                    }
                    if park.is_some() {
                        user.state.parked = park;
                    }
                }
                let attempt = self.job(&lease.key).unwrap().attempts + 1;
                let error = Some(cut(&error));
                self.file(now, &lease.key, JobState::Failed, attempt, None, error);
                Reply::Done
            }
            Command::Release { lease, at } => {
                if let Some(reply) = self.ending(now, &lease) {
                    return reply;
                }
                self.note_end(&lease);
                self.back(&lease.key, at);
                Reply::Done
            }
            Command::Limited {
                lease,
                scope,
                retry_after_ms,
                jitter_ms,
                reason,
            } => self.limited(now, lease, scope, (retry_after_ms, jitter_ms), &reason),
            Command::Pause { source, reason } => {
                for found in &mut self.sources {
                    if source.is_none() || source.as_ref() == Some(&found.name) {
                        found.paused = Some(cut(&reason));
                    }
                }
                Reply::Done
            }
            Command::Resume { source } => {
                for found in &mut self.sources {
                    let meant = source.is_none() || source.as_ref() == Some(&found.name);
                    let shut = found.gate.is_some_and(|gate| gate > now);
                    if meant && (found.paused.is_some() || shut) {
                        found.paused = None;
                        found.gate = None;
                        found.ramp = Some((now, 0));
                    }
                }
                Reply::Done
            }
            Command::SetLimit { source, jobs } => {
                if let Some(Err(error)) = jobs.map(|limit| limit.validate()) {
                    let what = format!("jobs: {error}");
                    return Reply::Refused {
                        refusal: Refusal::Invalid { what },
                    };
                }
                let Some(found) = self.source(&source) else {
                    return unknown(source);
                };
                found.settings.jobs = jobs;
                Reply::Done
            }
            Command::DueUsers {
                source,
                due_by,
                after,
                limit,
            } => {
                let mut due: Vec<(Timestamp, UserId)> = self
                    .users
                    .iter()
                    .filter(|user| user.source == source && user.state.parked.is_none())
                    .map(|user| (user.state.due_at, user.name.clone()))
                    .filter(|(due, _)| *due <= due_by)
                    .collect();
                due.sort();
                let due_total = after.is_none().then_some(due.len() as u64);
                due.retain(|entry| after.as_ref().is_none_or(|after| entry > after));
                due.truncate(limit as usize);
                Reply::DueUsers {
                    users: due,
                    due_total,
                }
            }
            Command::Enroll {
                source,
                users,
                due_at,
            } => {
                if users.len() > 1_000 {
                    let count = users.len();
                    return too_large(format!(
                        "{count} users; at most 1000 are allowed in one command"
                    ));
                }
                if self.source(&source).is_none() {
                    return unknown(source);
                }
                let mut enrolled = Vec::new();
                for name in users {
                    if self.user(&source, &name).is_some() {
                        continue;
                    }
                    enrolled.push(name.clone());
                    self.users.push(User {
                        source: source.clone(),
                        name,
                        state: UserState {
                            enrolled_at: now,
                            due_at,
                            parked: None,
                            grant: None,
                            cursor: None,
                            last_started_at: None,
                            last_success_at: None,
                            last_outcome: None,
                            last_error: None,
                            gate_until: None,
                            limited_in_a_row: 0,
                        },
                        ended: None,
                        requests: SlidingWindow::new(),
                    });
                }
                Reply::Enrolled {
                    source,
                    users: enrolled,
                }
            }
            Command::Connect {
                source,
                grants,
                due_at,
                force,
            } => {
                if self.source(&source).is_none() {
                    return unknown(source);
                }
                let (mut unparked, mut again) = (Vec::new(), Vec::new());
                for (name, grant) in grants {
                    let Some(user) = self.user(&source, &name) else {
                        continue;
                    };
                    let gone = user.state.parked == Some(ParkReason::NeedsReauth);
                    let fresh = user.state.grant != Some(grant);
                    user.state.grant = Some(grant);
                    if fresh {
                        again.push(name.clone());
                    }
                    if user.state.parked.is_some() && (force || gone && fresh) {
                        user.state.parked = None;
                        user.state.due_at = due_at;
                        unparked.push(name);
                    }
                }
                for user in again {
                    let source = source.clone();
                    let key = JobKey::Sync { source, user };
                    if self.job(&key).is_some_and(|job| job.lease.is_some()) {
                        self.back(&key, None);
                    }
                }
                Reply::Enrolled {
                    source,
                    users: unparked,
                }
            }
            Command::Unenroll { source, users } => {
                let before = self.users.len();
                for name in users {
                    self.users
                        .retain(|user| user.source != source || user.name != name);
                    let source = source.clone();
                    let key = JobKey::Sync { source, user: name };
                    self.jobs.retain(|job| job.key != key);
                }
                Reply::Count {
                    count: (before - self.users.len()) as u64,
                }
            }
            Command::User { source, user } => Reply::User {
                state: self.user(&source, &user).map(|user| user.state.clone()),
            },
            Command::Users {
                source,
                after,
                limit,
            } => {
                let mut users: Vec<(UserId, UserState)> = self
                    .users
                    .iter()
                    .filter(|user| user.source == source)
                    .map(|user| (user.name.clone(), user.state.clone()))
                    .filter(|(name, _)| after.as_ref().is_none_or(|after| name > after))
                    .collect();
                users.sort_by(|left, right| left.0.cmp(&right.0));
                users.truncate(limit as usize);
                Reply::Users { users }
            }
            Command::Schedules => {
                let mut schedules: Vec<_> = self
                    .schedules
                    .iter()
                    .map(|found| (found.name.clone(), found.state.clone()))
                    .collect();
                schedules.sort_by(|left, right| left.0.cmp(&right.0));
                Reply::Schedules { schedules }
            }
            Command::Stats => self.stats(now),
            Command::Jobs {
                state,
                offset,
                limit,
            } => {
                let jobs = self.listing(now, state);
                let page = jobs.into_iter().skip(offset as usize);
                Reply::Jobs {
                    jobs: page.take(limit as usize).collect(),
                }
            }
            Command::RetryFailed { number } => {
                let mut count = 0;
                for entry in self.by_source() {
                    let listing = &entry.listing;
                    let meant = number.is_none() || number == listing.number;
                    if listing.state != JobState::Failed || !meant {
                        continue;
                    }
                    let welcome = match &listing.key {
                        JobKey::FanOut { schedule } => {
                            self.schedules.iter().any(|found| found.name == *schedule)
                        }
                        key => self
                            .user_of(key)
                            .is_some_and(|user| user.state.parked.is_none()),
                    };
                    if welcome {
                        count += 1;
                        self.finished
                            .retain(|other| other.listing.number != listing.number);
                        self.want(&listing.key, now, Priority::Scheduled, entry.nominal, true);
                    }
                }
                Reply::Count { count }
            }
            Command::DiscardFailed { number } => {
                let before = self.finished.len();
                self.finished.retain(|entry| {
                    let meant = number.is_none() || number == entry.listing.number;
                    entry.listing.state != JobState::Failed || !meant
                });
                Reply::Count {
                    count: (before - self.finished.len()) as u64,
                }
            }
            Command::Remove { key } => {
                let before = self.jobs.len();
                self.jobs
                    .retain(|job| job.key != key || job.lease.is_some());
                Reply::Count {
                    count: (before - self.jobs.len()) as u64,
                }
            }
        }
    }
}
