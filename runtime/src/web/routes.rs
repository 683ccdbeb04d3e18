//! Which paths there are. The router is made of this table, and a test holds the OpenAPI document to it.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodFilter, on};

use super::gate::gate;
use super::problem::Problem;
use super::request::take_apart;
use super::{Web, change, events, look, page, probes};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Page,
    Script,
    Style,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Status,
    Jobs,
    RetryJobs,
    DiscardJobs,
    CancelJob,
    Users,
    User,
    Sync,
    Pause,
    Resume,
    Limits,
    DefineSchedule,
    RemoveSchedule,
    Events,
    Reload,
}

/// A method, a path in which `{name}` stands for one part of it, and what it is for.
pub(super) struct Route(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) Endpoint,
);

/// All that is served. What is read by GET is read by HEAD, too.
pub(super) const ROUTES: &[Route] = &[
    Route("GET", "/", Endpoint::Page),
    Route("GET", "/app.js", Endpoint::Script),
    Route("GET", "/app.css", Endpoint::Style),
    Route("GET", "/healthz", Endpoint::Health),
    Route("GET", "/readyz", Endpoint::Ready),
    Route("GET", "/metrics", Endpoint::Metrics),
    Route("GET", "/api/v1/openapi.json", Endpoint::OpenApi),
    Route("GET", "/api/v1/status", Endpoint::Status),
    Route("GET", "/api/v1/events", Endpoint::Events),
    Route("GET", "/api/v1/jobs", Endpoint::Jobs),
    Route("POST", "/api/v1/jobs/retry", Endpoint::RetryJobs),
    Route("POST", "/api/v1/jobs/discard", Endpoint::DiscardJobs),
    Route("POST", "/api/v1/jobs/cancel", Endpoint::CancelJob),
    Route("GET", "/api/v1/users", Endpoint::Users),
    Route("GET", "/api/v1/users/{user}", Endpoint::User),
    Route("POST", "/api/v1/sync", Endpoint::Sync),
    Route("POST", "/api/v1/pause", Endpoint::Pause),
    Route("POST", "/api/v1/resume", Endpoint::Resume),
    Route("PUT", "/api/v1/limits", Endpoint::Limits),
    Route(
        "PUT",
        "/api/v1/schedules/{schedule}",
        Endpoint::DefineSchedule,
    ),
    Route(
        "DELETE",
        "/api/v1/schedules/{schedule}",
        Endpoint::RemoveSchedule,
    ),
    Route("POST", "/api/v1/reload", Endpoint::Reload),
];

/// Whether a supervisor asks, who has no token and must not be turned away for asking often.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Whether it is a part of the page: the same for everybody, and needed to show the token at all.
pub(super) fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/app.js" | "/app.css")
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "GET" => MethodFilter::GET,
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        other => panic!("no route has the method {other}"),
    }
}

/// The router of the whole table, behind the gate.
pub(super) fn router(web: &Arc<Web>) -> Router {
    open_router(web).layer(from_fn_with_state(Arc::clone(web), gate))
}

/// The router of the whole table, for whoever needs no gate.
pub(super) fn open_router(web: &Arc<Web>) -> Router {
    let mut router = Router::new();
    for Route(method, path, endpoint) in ROUTES {
        let web = Arc::clone(web);
        let answered = move |request: Request| {
            let web = Arc::clone(&web);
            async move {
                let answer = answer(&web, *endpoint, request).await;
                answer.unwrap_or_else(|problem| problem.response())
            }
        };
        router = router.route(path, on(filter(method), answered));
    }
    router.fallback(|| async {
        let detail = "there is nothing under this path; /api/v1/openapi.json lists all";
        Problem::not_found(detail).response()
    })
}

async fn answer(web: &Arc<Web>, endpoint: Endpoint, request: Request) -> Result<Response, Problem> {
    let (asked, body) = take_apart(request, web.settings.bounds.body_ms).await?;
    match endpoint {
        Endpoint::Page | Endpoint::Script | Endpoint::Style => Ok(page::file(endpoint)),
        Endpoint::Health => Ok(probes::health()),
        Endpoint::Ready => Ok(probes::ready(&web.readiness.borrow(), asked.trusted)),
        Endpoint::Metrics => Ok(look::metrics(web).await),
        Endpoint::OpenApi => Ok(page::openapi()),
        Endpoint::Status => look::status(web).await,
        Endpoint::Events => events::listen(web, &asked),
        Endpoint::Jobs => look::jobs(web, &asked).await,
        Endpoint::Users => look::users(web, &asked).await,
        Endpoint::User => look::user(web, &asked).await,
        Endpoint::RetryJobs => change::retry(web, &asked, body).await,
        Endpoint::DiscardJobs => change::discard(web, &asked, body).await,
        Endpoint::CancelJob => change::cancel(web, &asked, body).await,
        Endpoint::Sync => change::sync(web, &asked, body).await,
        Endpoint::Pause => change::pause(web, &asked, body).await,
        Endpoint::Resume => change::resume(web, &asked, body).await,
        Endpoint::Limits => change::limits(web, &asked, body).await,
        Endpoint::DefineSchedule => change::define_schedule(web, &asked, body).await,
        Endpoint::RemoveSchedule => change::remove_schedule(web, &asked).await,
        Endpoint::Reload => change::reload(web, &asked).await,
    }
}
