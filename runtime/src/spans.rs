//! What a node does, as spans of `tracing`: one for each attempt at a job, and below it one for each request to the source,
//! each graph write and each store command that is about this job. A command for many jobs (a claim, a heartbeat, a tick) is
//! a span of its own.
//!
//! They are made by the driver, from what the node says; core knows nothing of them. Whoever wants them subscribes to the
//! target [`TARGET`]: `kalends run` with the feature `otel` and `telemetry.otlp_endpoint` does, a host program may do it with
//! a subscriber of its own (names and kinds are written as the crate `tracing-opentelemetry` reads them). For nobody, a span
//! costs a look at a number.
//!
//! What is told: kinds, counts, outcomes. Never told: tokens, texts of calendars, addresses, explanations. A user is a
//! pseudonym by a key ([`UserNames`]), so that all of one user's attempts can be found, and nobody without the key can try an
//! address against it. With the keys that seal grants it is the same in all processes; without, in one process until its end.

use std::collections::BTreeMap;

use kalends_adapters::seal::{Keys, TRACE_NAMES_KEY_BYTES};
use kalends_core::failure::{Failure, FailureKind, LimitScope};
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::node::io::{EffectResult, Notice, Op};
use kalends_core::queue::command::{Command, CommitOutcome, Refusal, Reply};
use kalends_core::queue::state::JobKey;
use kalends_sim::incident::Key;
use tracing::field::Empty;
use tracing::{Span, info_span};

pub use kalends_adapters::google::SPANS as TARGET;

/// So many attempts have a span at once at the most. A node holds fewer jobs; what is more was left behind by jobs whose end
/// was never told.
const ATTEMPTS_MAX: usize = 4_096;

/// How users are named in spans: `anon-` and 16 digits, by a key (as in the journals of incidents).
#[derive(Clone, Debug)]
pub struct UserNames(Key);

impl UserNames {
    /// By a key that nobody has: the names are this value's alone, and whoever wants to know whose one is cannot.
    ///
    /// # Panics
    /// If the operating system has no entropy.
    #[must_use]
    pub fn drawn() -> Self {
        let mut bytes = [0; TRACE_NAMES_KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives entropy");
        UserNames::by(bytes)
    }

    /// By the key that seals grants, or rather by one that is derived of it: the same in all processes that have it in front.
    #[must_use]
    pub fn of(keys: &Keys) -> Self {
        UserNames::by(keys.trace_names())
    }

    fn by(bytes: [u8; TRACE_NAMES_KEY_BYTES]) -> Self {
        let both = u128::from_be_bytes(bytes);
        let low = both & u128::from(u64::MAX);
        let half = |number: u128| u64::try_from(number).expect("64 bits are left");
        UserNames(Key::new(half(both >> u64::BITS), half(low)))
    }

    /// A user's name.
    #[must_use]
    pub fn of_user(&self, user: &UserId) -> String {
        self.0.pseudonym(user.as_str()).text()
    }
}

/// The spans of one node's attempts that are under way.
#[derive(Debug)]
pub(crate) struct Spans {
    names: UserNames,
    attempts: BTreeMap<JobKey, Span>,
}

impl Spans {
    pub(crate) fn new(names: UserNames) -> Self {
        Spans {
            names,
            attempts: BTreeMap::new(),
        }
    }

    /// Begins and ends attempts.
    pub(crate) fn observe(&mut self, notice: &Notice) {
        match notice {
            Notice::JobStarted { key, attempt } => self.begin(key, *attempt),
            Notice::JobDone { key, outcome, .. } => self.done(key, outcome),
            Notice::JobRetried { key, failure, .. } => self.failed(key, "retried", &failure.kind),
            Notice::JobFailed {
                key,
                failure,
                parked,
            } => {
                let outcome = if *parked { "parked" } else { "failed" };
                self.failed(key, outcome, &failure.kind);
            }
            Notice::JobReleased { key } => self.end(key, "released", None),
            Notice::LeaseLost { key } => self.end(key, "lease_lost", None),
            Notice::Limited { key, scope, .. } => {
                let scope = match scope {
                    LimitScope::User => "limited_user",
                    LimitScope::Source => "limited_source",
                };
                self.end(key, scope, None);
            }
            _ => {}
        }
    }

    fn begin(&mut self, key: &JobKey, attempt: u32) {
        let span = match key {
            JobKey::Sync { source, user } => info_span!(
                target: TARGET, parent: None, "sync",
                kalends.job = "sync", kalends.source = source.as_str(), kalends.user = self.names.of_user(user).as_str(),
                kalends.attempt = attempt, kalends.outcome = Empty, kalends.failure = Empty,
                kalends.requests = Empty, kalends.events_upserted = Empty, kalends.events_deleted = Empty,
                kalends.events_quarantined = Empty, kalends.full = Empty, otel.status_code = Empty,
            ),
            JobKey::FanOut { schedule } => info_span!(
                target: TARGET, parent: None, "fan-out",
                kalends.job = "fan_out", kalends.schedule = schedule.as_str(), kalends.attempt = attempt,
                kalends.outcome = Empty, kalends.failure = Empty, kalends.users = Empty, otel.status_code = Empty,
            ),
        };
        if span.is_disabled() {
            return;
        }
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.pop_first();
        }
        self.attempts.insert(key.clone(), span);
    }

    fn done(&mut self, key: &JobKey, outcome: &CommitOutcome) {
        let Some(span) = self.attempts.get(key) else {
            return;
        };
        let word = match outcome {
            CommitOutcome::Synced {
                upserted,
                deleted,
                quarantined,
                requests,
                full,
            } => {
                span.record("kalends.events_upserted", upserted);
                span.record("kalends.events_deleted", deleted);
                span.record("kalends.events_quarantined", quarantined);
                span.record("kalends.requests", requests);
                span.record("kalends.full", full);
                "synced"
            }
            CommitOutcome::Skipped { .. } => "skipped",
            CommitOutcome::FannedOut { users } => {
                span.record("kalends.users", users);
                "fanned_out"
            }
        };
        self.end(key, word, None);
    }

    fn failed(&mut self, key: &JobKey, outcome: &str, kind: &FailureKind) {
        self.end(key, outcome, Some(failure_label(kind)));
    }

    fn end(&mut self, key: &JobKey, outcome: &str, failure: Option<&str>) {
        let Some(span) = self.attempts.remove(key) else {
            return;
        };
        span.record("kalends.outcome", outcome);
        if let Some(failure) = failure {
            span.record("kalends.failure", failure);
            span.record("otel.status_code", "ERROR");
        }
    }

    /// The span of an effect; it begins now.
    pub(crate) fn of(&self, op: &Op) -> Span {
        match op {
            Op::Store(command) => info_span!(
                target: TARGET, parent: self.attempt(job_of(command)), "store",
                otel.name = format!("store {}", command_label(command)).as_str(), otel.kind = "client",
                kalends.command = command_label(command), kalends.outcome = Empty, otel.status_code = Empty,
            ),
            Op::Fetch(request) => info_span!(
                target: TARGET, parent: self.attempt_of(request.user()), "fetch",
                otel.name = fetch_label(request), kalends.operation = fetch_label(request),
                kalends.outcome = Empty, otel.status_code = Empty,
            ),
            Op::Graph(write) => info_span!(
                target: TARGET, parent: self.attempt_of(write.user()), "graph",
                otel.name = format!("graph {}", write_label(write)).as_str(), otel.kind = "client",
                kalends.operation = write_label(write), kalends.events = events_in(write),
                kalends.outcome = Empty, otel.status_code = Empty,
            ),
        }
    }

    fn attempt(&self, key: Option<&JobKey>) -> Option<tracing::Id> {
        self.attempts.get(key?)?.id()
    }

    /// A user has one outstanding job a source, and a node nearly always one source.
    fn attempt_of(&self, user: &UserId) -> Option<tracing::Id> {
        let is_its =
            |key: &&JobKey| matches!(key, JobKey::Sync { user: whose, .. } if whose == user);
        let key = self.attempts.keys().find(is_its);
        self.attempt(key)
    }
}

/// The span of an effect that is being performed. One that is dropped before its end says so: it panicked, or the node gave it up.
pub(crate) struct UnderWay {
    span: Span,
    has_ended: bool,
}

impl UnderWay {
    pub(crate) fn of(span: Span) -> Self {
        let has_ended = false;
        UnderWay { span, has_ended }
    }

    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Says how it ended.
    pub(crate) fn ended(mut self, result: &EffectResult) {
        self.has_ended = true;
        if !self.span.is_disabled() {
            ended(&self.span, result);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let outcome = match std::thread::panicking() {
            true => "panicked",
            false => "cancelled",
        };
        self.span.record("kalends.outcome", outcome);
        self.span.record("otel.status_code", "ERROR");
    }
}

fn ended(span: &Span, result: &EffectResult) {
    let (outcome, is_error) = match result {
        EffectResult::Store(Ok(stamped)) => match &stamped.value {
            Reply::Refused {
                refusal: Refusal::LeaseLost,
            } => ("lease_lost", false),
            Reply::Refused { .. } => ("refused", true),
            _ => ("done", false),
        },
        EffectResult::Store(Err(_)) => ("away", true),
        EffectResult::Fetch(Ok(_)) => ("done", false),
        EffectResult::Graph(Ok(GraphReply::Written(_))) => ("written", false),
        EffectResult::Graph(Ok(GraphReply::Fenced)) => ("fenced", false),
        EffectResult::Fetch(Err(Failure { kind, .. }))
        | EffectResult::Graph(Err(Failure { kind, .. })) => (failure_label(kind), true),
        EffectResult::Panicked { .. } => unreachable!("who panics returns nothing"),
    };
    span.record("kalends.outcome", outcome);
    if is_error {
        span.record("otel.status_code", "ERROR");
    }
}

/// A kind of failure, as spans and metrics name it.
pub(crate) fn failure_label(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Transient { .. } => "transient",
        FailureKind::Limited { .. } => "limited",
        FailureKind::Unauthorized => "unauthorized",
        FailureKind::Gone { .. } => "gone",
        FailureKind::CalendarUnavailable => "calendar_unavailable",
        FailureKind::NotReady => "not_ready",
        FailureKind::TooLarge => "too_large",
        FailureKind::Rejected => "rejected",
        FailureKind::Misconfigured => "misconfigured",
        FailureKind::Permanent => "permanent",
    }
}

fn fetch_label(request: &FetchRequest) -> &'static str {
    match request {
        FetchRequest::Calendars { .. } => "calendarList.list",
        FetchRequest::Events { .. } => "events.list",
        FetchRequest::Watch { .. } => "events.watch",
        FetchRequest::StopChannel { .. } => "channels.stop",
    }
}

fn write_label(write: &GraphWrite) -> &'static str {
    match write {
        GraphWrite::Apply { .. } => "apply",
        GraphWrite::Spare { .. } => "spare",
        GraphWrite::Sweep { .. } => "sweep",
        GraphWrite::RemoveCalendar { .. } => "remove_calendar",
    }
}

fn events_in(write: &GraphWrite) -> usize {
    match write {
        GraphWrite::Apply {
            upserts, deletions, ..
        } => upserts.len() + deletions.len(),
        GraphWrite::Spare { events, .. } => events.len(),
        GraphWrite::Sweep { .. } | GraphWrite::RemoveCalendar { .. } => 0,
    }
}

/// The one job that a command is about, if it is about one.
fn job_of(command: &Command) -> Option<&JobKey> {
    match command {
        Command::Checkpoint { lease, .. }
        | Command::Complete { lease, .. }
        | Command::Retry { lease, .. }
        | Command::Fail { lease, .. }
        | Command::Release { lease, .. }
        | Command::Limited { lease, .. }
        | Command::Enqueue {
            checkpoint: Some((lease, _)),
            ..
        } => Some(&lease.key),
        _ => None,
    }
}

fn command_label(command: &Command) -> &'static str {
    match command {
        Command::DefineSource { .. } => "define_source",
        Command::DefineSchedule { .. } => "define_schedule",
        Command::RemoveSchedule { .. } => "remove_schedule",
        Command::Tick { .. } => "tick",
        Command::Enqueue { .. } => "enqueue",
        Command::Claim { .. } => "claim",
        Command::Heartbeat { .. } => "heartbeat",
        Command::Checkpoint { .. } => "checkpoint",
        Command::Complete { .. } => "complete",
        Command::Retry { .. } => "retry",
        Command::Fail { .. } => "fail",
        Command::Release { .. } => "release",
        Command::Limited { .. } => "limited",
        Command::Pause { .. } => "pause",
        Command::Resume { .. } => "resume",
        Command::SetLimit { .. } => "set_limit",
        Command::DueUsers { .. } => "due_users",
        Command::Enroll { .. } => "enroll",
        Command::Connect { .. } => "connect",
        Command::Unenroll { .. } => "unenroll",
        Command::User { .. } => "user",
        Command::Users { .. } => "users",
        Command::Schedules => "schedules",
        Command::Stats => "stats",
        Command::Jobs { .. } => "jobs",
        Command::RetryFailed { .. } => "retry_failed",
        Command::DiscardFailed { .. } => "discard_failed",
        Command::Remove { .. } => "remove",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_adapters::secret::Secret;

    #[test]
    fn a_user_is_named_by_the_key_and_by_nothing_that_can_be_guessed() {
        let keys = |text: &str| Keys::parse(&Secret::new(text)).unwrap();
        let (one, two) = ("0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
        let ada = UserId::new("ada@example.com").unwrap();
        let name = UserNames::of(&keys(&one)).of_user(&ada);
        assert!(name.starts_with("anon-") && name.len() == 21, "{name}");
        let after_rotation = keys(&format!("{one} {two}"));
        assert_eq!(UserNames::of(&after_rotation).of_user(&ada), name);
        let others = [
            UserNames::of(&keys(&two)),
            UserNames::drawn(),
            UserNames::drawn(),
        ];
        let mut seen = std::collections::BTreeSet::from([name]);
        for other in others {
            assert!(seen.insert(other.of_user(&ada)), "no two keys name alike");
            assert!(!format!("{other:?}").contains(|letter: char| letter.is_ascii_digit()));
        }
    }
}
