//! The commands that only look: one user, users, counts, listings.

use std::slice;

use kalends_core::id::{SourceName, UserId, WorkerId};
use kalends_core::policy::limit::Limit;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Priority, Reply};
use kalends_core::queue::state::{
    FRESHNESS_BOUNDS_MS, Freshness, JobListing, JobState, QueueStats, SourceSettings, SourceStats,
    UserState,
};
use kalends_core::time::Timestamp;

use super::admin::read_user;
use super::asker::{Answer, Asker, Scope, misread};
use super::blocks::read_key;
use super::jobs::Answered;
use super::outcome;
use super::scripts::SCRIPTS;
use super::stamped;
use super::wire::{Unreadable, Value, Writer};

/// Users, with their cursors, that one script reads at the most.
const USERS_PAGE: u32 = 100;
/// Jobs that one script lists at the most.
const JOBS_PAGE: u32 = 250;

impl Asker {
    pub(super) async fn user(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        user: UserId,
    ) -> Answered {
        let (at, users) = self.read_users(now, &source, Some(&user), 0).await?;
        let state = users.into_iter().next().map(|(_, state)| state);
        Ok(stamped(at, Reply::User { state }))
    }

    pub(super) async fn users(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        after: Option<UserId>,
        limit: u32,
    ) -> Answered {
        let mut users: Vec<(UserId, UserState)> = Vec::new();
        let mut after = after;
        let mut left = limit;
        loop {
            // A page of none asks for the time only.
            let page = left.min(USERS_PAGE);
            let (at, mut found) = match page {
                0 => (self.schedules(now).await?.now, Vec::new()),
                page => self.read_users(now, &source, after.as_ref(), page).await?,
            };
            let is_last = found.len() < page as usize;
            left -= page;
            after = found.last().map(|(user, _)| user.clone());
            users.append(&mut found);
            if is_last || left == 0 {
                return Ok(stamped(at, Reply::Users { users }));
            }
        }
    }

    async fn read_users(
        &self,
        now: Option<Timestamp>,
        source: &SourceName,
        name: Option<&UserId>,
        limit: u32,
    ) -> Result<(Timestamp, Vec<(UserId, UserState)>), StoreUnavailable> {
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer
                .maybe_text(name.map(UserId::as_str))
                .number(u64::from(limit));
        };
        let scope = Scope::Of(slice::from_ref(source));
        let answer = self.ask(&SCRIPTS.users, scope, now, write).await?;
        let now = answer.now;
        let read = || -> Result<Vec<(UserId, UserState)>, Unreadable> {
            let [found] = answer.fields()?;
            let found = found.list()?.into_iter();
            found
                .map(|one| {
                    let [name, cursor, state] = one.fields()?;
                    Ok((name.name()?, read_user(cursor, state)?))
                })
                .collect()
        };
        Ok((now, read().map_err(misread)?))
    }

    pub(super) async fn stats(&self, now: Option<Timestamp>) -> Answered {
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer.list(FRESHNESS_BOUNDS_MS.len());
            for bound_ms in FRESHNESS_BOUNDS_MS {
                writer.number(bound_ms);
            }
        };
        let answer = self.ask(&SCRIPTS.stats, Scope::All, now, write).await?;
        let now = answer.now;
        let stats = read_stats(now, answer).map_err(misread)?;
        Ok(stamped(now, Reply::Stats { stats }))
    }

    pub(super) async fn jobs(
        &self,
        now: Option<Timestamp>,
        state: JobState,
        offset: u32,
        limit: u32,
    ) -> Answered {
        let mut jobs = Vec::new();
        loop {
            let listed = u32::try_from(jobs.len()).expect("a page is bounded");
            let page = (limit - listed).min(JOBS_PAGE);
            let write = |writer: &mut Writer, _: &[SourceName]| {
                let state = match state {
                    JobState::Waiting => 0,
                    JobState::Delayed => 1,
                    JobState::Active => 2,
                    JobState::Completed => 3,
                    JobState::Failed => 4,
                };
                writer.number(state);
                writer
                    .number(u64::from(offset) + u64::from(listed))
                    .number(u64::from(page));
            };
            let answer = self.ask(&SCRIPTS.jobs, Scope::All, now, write).await?;
            let at = answer.now;
            let mut found = read_jobs(answer, state).map_err(misread)?;
            let is_last = found.len() < page as usize || found.len() + jobs.len() >= limit as usize;
            jobs.append(&mut found);
            if is_last {
                jobs.truncate(limit as usize);
                return Ok(stamped(at, Reply::Jobs { jobs }));
            }
        }
    }
}

fn read_jobs(answer: Answer, state: JobState) -> Result<Vec<JobListing>, Unreadable> {
    let sources = answer.sources.clone();
    let [found] = answer.fields()?;
    let found = found.list()?.into_iter();
    found
        .map(|one| {
            let [
                block,
                name,
                number,
                at,
                priority,
                attempt,
                worker,
                ended,
                error,
            ] = one.fields()?;
            let ended = ended.maybe(Value::text)?;
            Ok(JobListing {
                key: read_key(&block, name, &sources)?,
                state,
                number: number.maybe(|number| number.number())?,
                at: at.time()?,
                priority: match priority.number::<u8>()? {
                    0 => Priority::Scheduled,
                    _ => Priority::Now,
                },
                attempt: attempt.number()?,
                worker: worker.maybe(Value::name::<WorkerId>)?,
                outcome: ended.map(|text| outcome::from_text(&text)).transpose()?,
                error: error.maybe(Value::text)?,
            })
        })
        .collect()
}

fn read_stats(now: Timestamp, answer: Answer) -> Result<QueueStats, Unreadable> {
    let names = answer.sources.clone();
    let [counts, by_source, holders] = answer.fields()?;
    let [
        waiting,
        delayed,
        active,
        completed,
        failed,
        completed_total,
        failed_total,
    ] = counts.fields()?;
    let mut sources = Vec::new();
    for (name, row) in names.into_iter().zip(by_source.list()?) {
        sources.push((name, read_source(now, row)?));
    }
    let mut workers = Vec::new();
    let mut values = holders.list()?.into_iter();
    while let (Some(worker), Some(count)) = (values.next(), values.next()) {
        workers.push((worker.name::<WorkerId>()?, count.number()?));
    }
    workers.sort();
    Ok(QueueStats {
        waiting: waiting.number()?,
        delayed: delayed.number()?,
        active: active.number()?,
        completed: completed.number()?,
        failed: failed.number()?,
        completed_total: completed_total.number()?,
        failed_total: failed_total.number()?,
        sources,
        workers,
    })
}

fn read_source(now: Timestamp, row: Value) -> Result<SourceStats, Unreadable> {
    let [
        row,
        starts_in_window,
        users,
        parked,
        never_synced,
        oldest,
        fresh,
        within,
        ranks,
    ] = row.fields()?;
    let mut counts = [0; FRESHNESS_BOUNDS_MS.len()];
    for (count, value) in counts.iter_mut().zip(within.list()?) {
        *count = value.number()?;
    }
    let [p50_at, p95_at, p99_at] = ranks.fields()?;
    let [
        jobs_count,
        jobs_ms,
        project_count,
        project_ms,
        user_count,
        user_ms,
        keep_completed,
        keep_failed,
        stalls_max,
        _defined,
        paused,
        gate_until,
        gate_reason,
        _in_a_row,
        _ramp_since,
        _ramp_starts,
        _had_user_limit,
    ] = row.fields()?;
    let limit = |count: Value, window_ms: Value| -> Result<Option<Limit>, Unreadable> {
        count.maybe(|count| {
            Ok(Limit {
                count: count.number()?,
                window_ms: window_ms.number()?,
            })
        })
    };
    Ok(SourceStats {
        settings: SourceSettings {
            jobs: limit(jobs_count, jobs_ms)?,
            requests_project: limit(project_count, project_ms)?,
            requests_user: limit(user_count, user_ms)?,
            keep_completed: keep_completed.number()?,
            keep_failed: keep_failed.number()?,
            stalls_max: stalls_max.number()?,
        },
        paused: paused.maybe(Value::text)?,
        gate_until: gate_until.maybe_time()?.filter(|until| *until > now),
        gate_reason: gate_reason.maybe(Value::text)?,
        starts_in_window: starts_in_window.number()?,
        users: users.number()?,
        parked: parked.number()?,
        never_synced: never_synced.number()?,
        oldest_success_at: oldest.maybe_time()?,
        freshness: Freshness {
            users: fresh.number()?,
            within: counts,
            p50_at: p50_at.maybe_time()?,
            p95_at: p95_at.maybe_time()?,
            p99_at: p99_at.maybe_time()?,
        },
    })
}
