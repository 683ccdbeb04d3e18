//! The answers that only tell: status, metrics, jobs, users.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use axum::response::Response;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{BATCH_MAX, Command, ParkReason, Reply};
use kalends_core::queue::state::{JobKey, JobListing, JobState, UserState};
use kalends_core::time::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::probes::readiness_json;
use super::problem::Problem;
use super::request::Asked;
use super::{Web, json_with};
use crate::handle::Readiness;
use crate::metrics::{CONTENT_TYPE as METRICS_TYPE, SLOT_S};
use crate::status::{self, Shown, Status, job_json};

/// Jobs that a status lists.
const SHOWN: Shown = Shown {
    active: 100,
    failed: 20,
};
/// What was read of the store is told again for so long, in milliseconds, however many ask.
const SEEN_MS: u64 = 500;
/// A scrape waits so long for the store, in milliseconds, and then goes without it.
const SCRAPE_MS_MAX: u64 = 3_000;
/// Entries of a page at the most, and by default.
const PAGE_MAX: u32 = 200;
const PAGE_DEFAULT: u32 = 50;
/// Pages of users that one request for those who must connect again looks through.
const WAITING_PAGES_MAX: u32 = 5;
/// Finished jobs of each kind that are looked through for one user's.
const HISTORY_LOOKED_AT: u32 = 1_000;
/// Entries of one user's history at the most.
const HISTORY_MAX: usize = 50;

/// What was read last, so that many listeners cost the store one question.
#[derive(Default)]
pub(super) struct Seen(Mutex<Option<(Instant, Arc<Status>)>>);

impl Web {
    /// What the store says now, or said a moment ago.
    pub(super) async fn status_now(&self) -> Result<Arc<Status>, StoreUnavailable> {
        // Whoever comes while one asks waits for that answer.
        let mut seen = self.seen.0.lock().await;
        if let Some((at, status)) = &*seen
            && at.elapsed() < Duration::from_millis(SEEN_MS)
        {
            return Ok(Arc::clone(status));
        }
        let status = Arc::new(Status::read(&*self.store, SHOWN).await?);
        *seen = Some((Instant::now(), Arc::clone(&status)));
        Ok(status)
    }

    /// Something was changed: the next one who asks sees it.
    pub(super) async fn forget_seen(&self) {
        *self.seen.0.lock().await = None;
    }

    /// What this process knows of itself.
    pub(super) fn process_json(&self) -> Value {
        json!({
            "worker": self.settings.worker,
            "version": env!("CARGO_PKG_VERSION"),
            "slots": self.metrics.slots(),
            "started_at": self.metrics.started_at().to_rfc3339(),
            "readiness": readiness_json(&self.readiness.borrow()),
            "can_change": self.token.is_some(),
            "google_requests": { "slot_seconds": SLOT_S, "counts": self.metrics.google_hour() },
        })
    }

    /// The source that a request names, or the usual one.
    pub(super) fn source_of(&self, named: Option<&str>) -> Result<SourceName, Problem> {
        match named {
            None => Ok(self.settings.source.clone()),
            Some(name) => SourceName::new(name)
                .map_err(|error| Problem::bad(format!("the source's name {error}"))),
        }
    }
}

/// The status, with what this process knows of itself.
pub(super) fn status_json(web: &Web, status: &Status) -> Value {
    let mut body = status.json();
    body["process"] = web.process_json();
    body
}

pub(super) async fn status(web: &Web) -> Result<Response, Problem> {
    let status = web.status_now().await?;
    Ok(json_with(StatusCode::OK, &status_json(web, &status)))
}

pub(super) async fn metrics(web: &Web) -> Response {
    let limit = Duration::from_millis(SCRAPE_MS_MAX);
    let status = tokio::time::timeout(limit, web.status_now()).await;
    let status = status.ok().and_then(Result::ok);
    let is_ready = *web.readiness.borrow() == Readiness::Ready;
    let text = web.metrics.render(status.as_deref(), is_ready);
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static(METRICS_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub(super) async fn jobs(web: &Web, asked: &Asked) -> Result<Response, Problem> {
    asked.only(&["state", "after", "limit"])?;
    let state = match asked.parameter("state") {
        Some("waiting") => JobState::Waiting,
        Some("delayed") => JobState::Delayed,
        Some("active") => JobState::Active,
        Some("completed") => JobState::Completed,
        Some("failed") => JobState::Failed,
        _ => {
            return Err(Problem::bad(
                "state is missing or unknown; give waiting, delayed, active, completed or failed",
            ));
        }
    };
    let after = asked.number("after", (0, u32::MAX - PAGE_MAX - 1), 0)?;
    let limit = asked.number("limit", (1, PAGE_MAX), PAGE_DEFAULT)?;
    // One more than is shown tells whether there is another page.
    let (now, mut jobs) = status::jobs(&*web.store, state, after, limit + 1).await?;
    let has_more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let body = json!({
        "now": now.to_rfc3339(),
        "state": state,
        "jobs": jobs.iter().map(job_json).collect::<Vec<_>>(),
        "next": has_more.then(|| (after + limit).to_string()),
    });
    Ok(json_with(StatusCode::OK, &body))
}

pub(super) async fn users(web: &Web, asked: &Asked) -> Result<Response, Problem> {
    asked.only(&["source", "after", "prefix", "limit", "needs_reauth"])?;
    let source = web.source_of(asked.parameter("source"))?;
    let limit = asked.number("limit", (1, PAGE_MAX), PAGE_DEFAULT)?;
    let prefix = asked.parameter("prefix").unwrap_or_default();
    match asked.parameter("needs_reauth") {
        None | Some("false") => {}
        Some("true") if prefix.is_empty() => return waiting_users(web, asked, source, limit).await,
        _ => {
            return Err(Problem::bad(
                "needs_reauth is true or false, and does not go together with prefix",
            ));
        }
    }
    let name = |text: &str| {
        UserId::new(text).map_err(|error| Problem::bad(format!("a user's name {error}")))
    };
    let mut found = Vec::new();
    let mut now = None;
    let after = match asked.parameter("after") {
        Some(after) => Some(name(after)?),
        // Names that begin with the prefix follow it directly, but it may be somebody's whole name.
        None if !prefix.is_empty() => {
            let exact = name(prefix)?;
            let (at, state) = read_user(web, &source, &exact).await?;
            now = Some(at);
            found.extend(state.map(|state| (exact.clone(), state)));
            Some(exact)
        }
        None => None,
    };
    let command = Command::Users {
        source,
        after,
        limit: limit + 1,
    };
    let stamped = web.store.apply(command).await?;
    let now = now.map_or(stamped.now, |at: Timestamp| at.max(stamped.now));
    match stamped.value {
        Reply::Users { users } => found.extend(
            users
                .into_iter()
                .take_while(|(user, _)| user.as_str().starts_with(prefix)),
        ),
        Reply::Refused { refusal } => return Err(refusal.into()),
        other => panic!("users were asked for, not {other:?}"),
    }
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|(user, _)| user);
    let body = json!({
        "now": now.to_rfc3339(),
        "users": found
            .iter()
            .map(|(user, state)| user_json(user, state, now))
            .collect::<Vec<_>>(),
        "next": next,
    });
    Ok(json_with(StatusCode::OK, &body))
}

/// Users who must connect again. So many users are looked through at the most that one request costs the store little; what it
/// did not come to is the next page.
async fn waiting_users(
    web: &Web,
    asked: &Asked,
    source: SourceName,
    limit: u32,
) -> Result<Response, Problem> {
    let name = |text: &str| {
        UserId::new(text).map_err(|error| Problem::bad(format!("a user's name {error}")))
    };
    let mut after = asked.parameter("after").map(name).transpose()?;
    let mut now = Timestamp::EPOCH;
    let mut found = Vec::new();
    let mut is_over = false;
    for _ in 0..WAITING_PAGES_MAX {
        let command = Command::Users {
            source: source.clone(),
            after: after.clone(),
            limit: u32::try_from(BATCH_MAX).expect("a batch is small"),
        };
        let stamped = web.store.apply(command).await?;
        now = stamped.now;
        let users = match stamped.value {
            Reply::Users { users } => users,
            Reply::Refused { refusal } => return Err(refusal.into()),
            other => panic!("users were asked for, not {other:?}"),
        };
        is_over = users.len() < BATCH_MAX;
        for (user, state) in users {
            if found.len() == limit as usize {
                is_over = false;
                break;
            }
            after = Some(user.clone());
            if state.parked == Some(ParkReason::NeedsReauth) {
                found.push(user_json(&user, &state, now));
            }
        }
        if is_over || found.len() == limit as usize {
            break;
        }
    }
    let body = json!({
        "now": now.to_rfc3339(),
        "users": found,
        "next": after.filter(|_| !is_over),
    });
    Ok(json_with(StatusCode::OK, &body))
}

pub(super) async fn user(web: &Web, asked: &Asked) -> Result<Response, Problem> {
    asked.only(&["source"])?;
    let source = web.source_of(asked.parameter("source"))?;
    let user = UserId::new(asked.named())
        .map_err(|error| Problem::bad(format!("the user's name {error}")))?;
    let (now, state) = read_user(web, &source, &user).await?;
    let state = state.ok_or_else(|| unknown_user(&source))?;
    let key = JobKey::Sync { source, user };
    let mut history = Vec::new();
    for finished in [JobState::Completed, JobState::Failed] {
        let (_, jobs) = status::jobs(&*web.store, finished, 0, HISTORY_LOOKED_AT).await?;
        history.extend(jobs.into_iter().filter(|job| job.key == key));
    }
    history.sort_by_key(|job: &JobListing| std::cmp::Reverse((job.at, job.number)));
    history.truncate(HISTORY_MAX);
    let JobKey::Sync { user, .. } = &key else {
        panic!("it was made as one");
    };
    let mut body = user_json(user, &state, now);
    body["now"] = json!(now.to_rfc3339());
    body["history"] = history.iter().map(job_json).collect();
    Ok(json_with(StatusCode::OK, &body))
}

pub(super) fn unknown_user(source: &SourceName) -> Problem {
    Problem::not_found(format!(
        "no such user is enrolled for {source}; GET /api/v1/users lists all"
    ))
}

async fn read_user(
    web: &Web,
    source: &SourceName,
    user: &UserId,
) -> Result<(Timestamp, Option<UserState>), Problem> {
    let command = Command::User {
        source: source.clone(),
        user: user.clone(),
    };
    let stamped = web.store.apply(command).await?;
    match stamped.value {
        Reply::User { state } => Ok((stamped.now, state)),
        Reply::Refused { refusal } => Err(refusal.into()),
        other => panic!("a user was asked for, not {other:?}"),
    }
}

/// A user without what belongs to nobody else: the cursor holds Google's sync tokens, the grant a hash of a secret.
fn user_json(user: &UserId, state: &UserState, now: Timestamp) -> Value {
    let gate = state.gate_until.filter(|until| *until > now);
    let time = |at: Option<Timestamp>| at.map(Timestamp::to_rfc3339);
    json!({
        "user": user,
        "enrolled_at": state.enrolled_at.to_rfc3339(),
        "due_at": state.due_at.to_rfc3339(),
        "parked": state.parked,
        "needs_reauth": state.parked == Some(ParkReason::NeedsReauth),
        "last_started_at": time(state.last_started_at),
        "last_success_at": time(state.last_success_at),
        "age_ms": state.last_success_at.map(|at| now.since_ms(at)),
        "last_outcome": state.last_outcome,
        "last_error": state.last_error,
        "limited_until": time(gate),
    })
}
