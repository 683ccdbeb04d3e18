//! The answers that change something. Whoever gets here has shown the token; each change is in the log.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use kalends_core::id::{ScheduleName, SourceName, UserId};
use kalends_core::policy::{CatchUp, CronExpression, Limit, ScheduleDefinition, TimeZone};
use kalends_core::queue::command::{Command, Reply};
use kalends_core::queue::state::{JobKey, JobState};
use kalends_core::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::look::unknown_user;
use super::problem::Problem;
use super::request::{Asked, Payload};
use super::{Web, json_with};
use crate::handle::{NotEnqueued, enqueue_sync, pause_reason};
use crate::reload::NotReloaded;
use crate::status::{self, schedule_json};

/// Active jobs that are looked through to say why one cannot be cancelled.
const ACTIVE_LOOKED_AT: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailedBody {
    number: Option<u64>,
    #[serde(default)]
    all: bool,
}

/// Which failed job is meant; `None`: all.
async fn failed_number(asked: &Asked, body: Payload) -> Result<Option<u64>, Problem> {
    asked.only(&[])?;
    let body: FailedBody = body.json().await?;
    if body.all == body.number.is_some() {
        return Err(Problem::bad(
            "give either the number of a failed job, or \"all\": true",
        ));
    }
    Ok(body.number)
}

pub(super) async fn discard(web: &Web, asked: &Asked, body: Payload) -> Result<Response, Problem> {
    let number = failed_number(asked, body).await?;
    let (_, reply) = apply(web, Command::DiscardFailed { number }).await?;
    let Reply::Count { count } = reply else {
        panic!("a discard was answered by {reply:?}");
    };
    tracing::info!(number, count, "failed jobs forgotten, by the API");
    if count == 0 && number.is_some() {
        return Err(Problem::not_found(
            "there is no failed job of this number; GET /api/v1/jobs?state=failed lists what there is",
        ));
    }
    Ok(json_with(StatusCode::OK, &json!({ "discarded": count })))
}

pub(super) async fn retry(web: &Web, asked: &Asked, body: Payload) -> Result<Response, Problem> {
    let number = failed_number(asked, body).await?;
    let (_, reply) = apply(web, Command::RetryFailed { number }).await?;
    let Reply::Count { count } = reply else {
        panic!("a retry was answered by {reply:?}");
    };
    tracing::info!(number, count, "failed jobs tried again, by the API");
    if count == 0 && number.is_some() {
        return Err(Problem::conflict(
            "there is no failed job of this number, or its user is parked or gone, or its schedule is; GET \
             /api/v1/jobs?state=failed lists what there is",
        ));
    }
    Ok(json_with(StatusCode::OK, &json!({ "retried": count })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelBody {
    user: Option<String>,
    source: Option<String>,
    schedule: Option<String>,
}

pub(super) async fn cancel(web: &Web, asked: &Asked, body: Payload) -> Result<Response, Problem> {
    asked.only(&[])?;
    let body: CancelBody = body.json().await?;
    let key = match (&body.user, &body.schedule) {
        (Some(user), None) => JobKey::Sync {
            source: web.source_of(body.source.as_deref())?,
            user: user_name(user)?,
        },
        (None, Some(schedule)) => JobKey::FanOut {
            schedule: schedule_name(schedule)?,
        },
        _ => {
            return Err(Problem::bad(
                "give either the user whose sync is to be cancelled, or the schedule whose fan-out is",
            ));
        }
    };
    let (_, reply) = apply(web, Command::Remove { key: key.clone() }).await?;
    let Reply::Count { count } = reply else {
        panic!("a removal was answered by {reply:?}");
    };
    if count == 0 {
        let (_, active) = status::jobs(&*web.store, JobState::Active, 0, ACTIVE_LOOKED_AT).await?;
        return Err(match active.iter().any(|job| job.key == key) {
            true => Problem::conflict(
                "this job runs already and cannot be cancelled; it ends by itself, or pause the source",
            ),
            false => Problem::not_found("there is no such job that waits"),
        });
    }
    tracing::info!(job = %key, "a waiting job was cancelled, by the API");
    Ok(json_with(StatusCode::OK, &json!({ "cancelled": count })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncBody {
    user: Option<String>,
    #[serde(default)]
    all: bool,
    source: Option<String>,
}

pub(super) async fn sync(
    web: &Arc<Web>,
    asked: &Asked,
    body: Payload,
) -> Result<Response, Problem> {
    asked.only(&[])?;
    let body: SyncBody = body.json().await?;
    let source = web.source_of(body.source.as_deref())?;
    let body = match (&body.user, body.all) {
        (Some(user), false) => {
            let user = user_name(user)?;
            enqueue_sync(&*web.store, source.clone(), user.clone())
                .await
                .map_err(|error| not_enqueued(error, &source))?;
            tracing::info!(%source, %user, "a sync was asked for, by the API");
            json!({ "users": 1, "over_ms": 0 })
        }
        (None, true) => super::sync_all::begin(web, source).await?,
        _ => {
            return Err(Problem::bad(
                "give either the user who is to be synced, or \"all\": true",
            ));
        }
    };
    web.forget_seen().await;
    Ok(json_with(StatusCode::ACCEPTED, &body))
}

fn not_enqueued(error: NotEnqueued, source: &SourceName) -> Problem {
    match error {
        NotEnqueued::StoreAway(unavailable) => unavailable.into(),
        NotEnqueued::UnknownUser => unknown_user(source),
        NotEnqueued::Parked(_) => Problem::conflict(error.to_string()),
        NotEnqueued::Refused(_) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseBody {
    reason: String,
    source: Option<String>,
}

pub(super) async fn pause(web: &Web, asked: &Asked, body: Payload) -> Result<Response, Problem> {
    asked.only(&[])?;
    let body: PauseBody = body.json().await?;
    let reason = pause_reason(&body.reason).map_err(Problem::bad)?;
    let source = known_source(web, body.source.as_deref()).await?;
    let source_shown = source.as_ref().map_or("all", SourceName::as_str);
    tracing::info!(source = source_shown, reason, "paused, by the API");
    apply(web, Command::Pause { source, reason }).await?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResumeBody {
    source: Option<String>,
}

pub(super) async fn resume(web: &Web, asked: &Asked, body: Payload) -> Result<Response, Problem> {
    asked.only(&[])?;
    let body: ResumeBody = body.json().await?;
    let source = known_source(web, body.source.as_deref()).await?;
    let source_shown = source.as_ref().map_or("all", SourceName::as_str);
    tracing::info!(source = source_shown, "resumed, by the API");
    apply(web, Command::Resume { source }).await?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsBody {
    /// A limit, or null for none; but it has to be said.
    jobs: Value,
    source: Option<String>,
}

pub(super) async fn limits(web: &Web, asked: &Asked, body: Payload) -> Result<Response, Problem> {
    asked.only(&[])?;
    let body: LimitsBody = body.json().await?;
    let jobs: Option<Limit> = serde_json::from_value(body.jobs).map_err(|error| {
        Problem::bad(format!(
            "jobs is neither null (unlimited) nor {{\"count\": 10, \"window_ms\": 60000}}: {error}"
        ))
    })?;
    if let Some(limit) = &jobs {
        limit
            .validate()
            .map_err(|error| Problem::bad(format!("jobs.{error}")))?;
    }
    let source = web.source_of(body.source.as_deref())?;
    tracing::info!(%source, ?jobs, "the job limit was set, by the API");
    apply(web, Command::SetLimit { source, jobs }).await?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleBody {
    cron: String,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    catch_up: Option<String>,
    source: Option<String>,
}

impl ScheduleBody {
    fn definition(&self, web: &Web) -> Result<ScheduleDefinition, Problem> {
        let cron = CronExpression::parse(&self.cron).map_err(|error| {
            Problem::bad(format!(
                "cron, {}: {}; {}",
                error.field, error.problem, error.remedy
            ))
        })?;
        let time_zone = match &self.time_zone {
            Some(name) => TimeZone::parse(name)
                .map_err(|error| Problem::bad(format!("time_zone: {error}")))?,
            None => TimeZone::default(),
        };
        let catch_up = match &self.catch_up {
            Some(text) => text
                .parse::<CatchUp>()
                .map_err(|error| Problem::bad(format!("catch_up is {error}")))?,
            None => CatchUp::default(),
        };
        let definition = ScheduleDefinition {
            source: web.source_of(self.source.as_deref())?,
            cron,
            time_zone,
            catch_up,
        };
        if definition.next_after(Timestamp::EPOCH).is_none() {
            return Err(Problem::bad(
                "cron names a date that never comes; correct day of month and month",
            ));
        }
        Ok(definition)
    }
}

pub(super) async fn define_schedule(
    web: &Web,
    asked: &Asked,
    body: Payload,
) -> Result<Response, Problem> {
    asked.only(&[])?;
    let schedule = schedule_name(asked.named())?;
    let body: ScheduleBody = body.json().await?;
    let definition = body.definition(web)?;
    tracing::info!(%schedule, %definition, "a schedule was defined, by the API");
    let command = Command::DefineSchedule {
        schedule: schedule.clone(),
        definition,
    };
    let (now, reply) = apply(web, command).await?;
    let Reply::Schedule { state } = reply else {
        panic!("a schedule's definition was answered by {reply:?}");
    };
    let next = state.definition.next_after(state.last_tick_at.max(now));
    let body = schedule_json(&schedule, &state, next);
    Ok(json_with(StatusCode::OK, &body))
}

pub(super) async fn remove_schedule(web: &Web, asked: &Asked) -> Result<Response, Problem> {
    asked.only(&[])?;
    let schedule = schedule_name(asked.named())?;
    let status = web.status_now().await?;
    if !status.schedules.iter().any(|(name, _)| *name == schedule) {
        return Err(Problem::not_found(
            "there is no schedule of this name; GET /api/v1/status lists all",
        ));
    }
    tracing::info!(%schedule, "a schedule was removed, by the API");
    apply(web, Command::RemoveSchedule { schedule }).await?;
    Ok(done())
}

pub(super) async fn reload(web: &Web, asked: &Asked) -> Result<Response, Problem> {
    asked.only(&[])?;
    let Some(reloader) = &web.settings.reloader else {
        return Err(Problem::conflict(
            "this process has no configuration that could be read again; its host program sets its limits and schedules",
        ));
    };
    let reloaded = reloader.reload().await;
    web.forget_seen().await;
    match reloaded {
        Ok(reloaded) => Ok(json_with(StatusCode::OK, &reloaded.json())),
        Err(error) => {
            tracing::error!("by the API: {error}");
            Err(match error {
                NotReloaded::StoreAway(unavailable) => unavailable.into(),
                error => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            })
        }
    }
}

/// Applies a command that is not refused in good order; the store's time and its answer.
async fn apply(web: &Web, command: Command) -> Result<(Timestamp, Reply), Problem> {
    let stamped = web.store.apply(command).await;
    web.forget_seen().await;
    let stamped = stamped?;
    match stamped.value {
        Reply::Refused { refusal } => Err(refusal.into()),
        value => Ok((stamped.now, value)),
    }
}

/// The source that is named, if the store knows it; `None` if none is named, which means all.
async fn known_source(web: &Web, named: Option<&str>) -> Result<Option<SourceName>, Problem> {
    let Some(named) = named else {
        return Ok(None);
    };
    let source = web.source_of(Some(named))?;
    let status = web.status_now().await?;
    let mut known = status.stats.sources.iter();
    if !known.any(|(name, _)| *name == source) {
        return Err(Problem::not_found(
            "there is no source of this name; GET /api/v1/status lists all",
        ));
    }
    Ok(Some(source))
}

fn done() -> Response {
    json_with(StatusCode::OK, &json!({ "done": true }))
}

fn user_name(text: &str) -> Result<UserId, Problem> {
    UserId::new(text).map_err(|error| Problem::bad(format!("the user's name {error}")))
}

fn schedule_name(text: &str) -> Result<ScheduleName, Problem> {
    ScheduleName::new(text).map_err(|error| Problem::bad(format!("the schedule's name {error}")))
}
