//! The timeline: one line for what came in (`<`) and one for what was decided (`>`), with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::node::io::{Notice, Op, Output, Reason};
use kalends_core::pseudonym::Pseudonym;
use kalends_core::queue::command::{Command, CommitOutcome, LeaseToken, Reply};
use kalends_core::queue::state::JobKey;
use kalends_core::time::Timestamp;
use kalends_sim::incident::{Outcome, Seen, Told};
use serde_json::json;

use crate::say::say;

/// What is to be shown; all `None`: everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The name in the user's pseudonym.
    pub(super) user: Option<u64>,
    pub(super) token: Option<LeaseToken>,
    pub(super) schedule: Option<String>,
}

/// Whom a line concerns.
#[derive(Debug, Default)]
struct About {
    users: Vec<UserId>,
    tokens: Vec<LeaseToken>,
    schedules: Vec<String>,
}

impl About {
    fn key(&mut self, key: &JobKey) {
        match key {
            JobKey::Sync { user, .. } => self.users.push(user.clone()),
            JobKey::FanOut { schedule } => self.schedules.push(schedule.to_string()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Timeline {
    wanted: Wanted,
    quiet: bool,
    json: bool,
    turn: u64,
    at: Timestamp,
    decisions: u64,
    /// Under which lease each user's job runs: requests name the user alone.
    leases: BTreeMap<UserId, LeaseToken>,
}

impl Timeline {
    pub(super) fn new(wanted: Wanted, quiet: bool, json: bool) -> Self {
        Timeline {
            wanted,
            quiet,
            json,
            turn: 0,
            at: Timestamp::EPOCH,
            decisions: 0,
            leases: BTreeMap::new(),
        }
    }

    pub(super) fn decisions(&self) -> u64 {
        self.decisions
    }

    pub(super) fn turn(&mut self, turn: u64, at: Timestamp) {
        self.turn = turn;
        self.at = at;
    }

    pub(super) fn goes_on(&mut self, assumed: &[String]) {
        if self.json {
            say(&format!("{}\n", json!({ "goes_on": assumed })));
            return;
        }
        say("-- from here on it is assumed --\n");
        for sentence in assumed {
            say(&format!("-- {sentence}\n"));
        }
    }

    pub(super) fn seen(&mut self, seen: Seen<'_>) {
        let (sign, what, about) = match seen {
            Seen::Told(told, op) => {
                let (what, about) = self.told(told, op);
                ('<', what, about)
            }
            Seen::Decided(output) => {
                self.decisions += 1;
                let (what, about) = decided(output);
                ('>', what, about)
            }
        };
        if self.quiet || !self.concerns(&about) {
            return;
        }
        if self.json {
            let kind = if sign == '<' { "told" } else { "decided" };
            let line = json!({
                "turn": self.turn, "at": self.at.to_rfc3339(), "kind": kind, "what": what,
            });
            say(&format!("{line}\n"));
        } else {
            say(&format!("{} {sign} {what}\n", self.at));
        }
    }

    fn concerns(&self, about: &About) -> bool {
        let Wanted {
            user,
            token,
            schedule,
        } = &self.wanted;
        if let Some(name) = user {
            let is_user = |user: &UserId| {
                Pseudonym::read(user.as_str()).is_some_and(|found| found.name == *name)
            };
            if !about.users.iter().any(is_user) {
                return false;
            }
        }
        if let Some(token) = token {
            let runs = |user: &UserId| self.leases.get(user) == Some(token);
            let by_user = about.tokens.is_empty() && about.users.iter().any(runs);
            if !by_user && !about.tokens.contains(token) {
                return false;
            }
        }
        schedule
            .as_ref()
            .is_none_or(|schedule| about.schedules.contains(schedule))
    }

    fn told(&mut self, told: &Told, op: Option<&Op>) -> (String, About) {
        let mut about = op.map(about_op).unwrap_or_default();
        let what = match told {
            Told::Timeout => "the announced time has come".to_owned(),
            Told::Wake => "the store calls: something may be due".to_owned(),
            Told::Layout(spread, jitter) => format!(
                "users are laid over the period otherwise: {spread:?}, jitter up to {} ms",
                jitter.max_ms
            ),
            Told::Shutdown(deadline) => format!("stop, by {deadline}"),
            Told::Done(id, outcome) => {
                if let Outcome::Store(_, Reply::Claimed { leases, .. }) = outcome {
                    for lease in leases {
                        about.key(&lease.lease.key);
                        about.tokens.push(lease.lease.token);
                        if let JobKey::Sync { user, .. } = &lease.lease.key {
                            self.leases.insert(user.clone(), lease.lease.token);
                        }
                    }
                }
                let asked = op.map_or("an effect that was given up".to_owned(), op_words);
                format!("#{} {}  ({asked})", id.0, outcome_words(outcome))
            }
        };
        (what, about)
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Store(now, reply) => format!("the store, at {now}: {}", reply_words(reply)),
        Outcome::Away(detail) => format!("the store does not answer ({detail})"),
        Outcome::Calendars(page) => format!("a list of {} calendars", page.calendars.len()),
        Outcome::Events(page) => format!(
            "a page of {} events{}",
            page.items(),
            if page.has_next() {
                ", more to come"
            } else {
                ", the last one"
            }
        ),
        Outcome::Watched(made) => format!("a push channel, until {}", made.expires_at),
        Outcome::ChannelStopped => "the push channel has ended".to_owned(),
        Outcome::FetchFailed(failure) => format!("the source refuses: {}", failure_words(failure)),
        Outcome::Written(GraphReply::Written(counts)) => format!(
            "the graph: {} written, {} removed",
            counts.upserted, counts.deleted
        ),
        Outcome::Written(GraphReply::Fenced) => {
            "the graph: a later lease has written before".to_owned()
        }
        Outcome::WriteFailed(failure) => format!("the graph refuses: {}", failure_words(failure)),
        Outcome::Panicked(detail) => format!("the adapter panicked ({detail})"),
    }
}

fn failure_words(failure: &Failure) -> String {
    let kind = match &failure.kind {
        FailureKind::Transient { retry_after_ms } => {
            format!("transient{}", wait_words(*retry_after_ms))
        }
        FailureKind::Limited {
            scope,
            retry_after_ms,
        } => format!("slow down ({scope:?}{})", wait_words(*retry_after_ms)).to_lowercase(),
        FailureKind::Unauthorized => "the grant is gone".to_owned(),
        FailureKind::Gone { malformed: false } => "the token is of no use any more".to_owned(),
        FailureKind::Gone { malformed: true } => "the token was malformed".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("{kind}, {}", failure.detail)
}

fn wait_words(retry_after_ms: Option<u64>) -> String {
    retry_after_ms.map_or_else(String::new, |ms| format!(", after {ms} ms"))
}

fn reply_words(reply: &Reply) -> String {
    match reply {
        Reply::Claimed {
            leases,
            recovered,
            buried,
            next_at,
        } => {
            let mut words = format!("{} leases", leases.len());
            for lease in leases {
                let _ = write!(
                    words,
                    "; {} attempt {} token {}",
                    lease.lease.key, lease.attempt, lease.lease.token.0
                );
            }
            if *recovered > 0 || *buried > 0 {
                let _ = write!(words, "; {recovered} recovered, {buried} given up");
            }
            if let Some(next_at) = next_at {
                let _ = write!(words, "; ask again at {next_at}");
            }
            words
        }
        Reply::Refused { refusal } => format!("refused, {refusal}"),
        Reply::Fired { .. } => "the tick is ours".to_owned(),
        Reply::AlreadyFired { .. } => "the tick had fired".to_owned(),
        Reply::Enrolled { users, .. } => format!("{} users are new", users.len()),
        Reply::Enqueued {
            added,
            coalesced,
            refused,
        } => format!("{added} jobs added, {coalesced} coalesced, {refused} not taken"),
        Reply::Heartbeat { lost } => format!("heard, {} leases lost", lost.len()),
        Reply::Permit { wait_until: None } => "saved, go ahead".to_owned(),
        Reply::Permit {
            wait_until: Some(until),
        } => format!("saved, wait until {until}"),
        Reply::GateClosed { until } => format!("the gate is closed until {until}"),
        Reply::DueUsers { users, due_total } => match due_total {
            Some(total) => format!("{} due users of {total}", users.len()),
            None => format!("{} due users", users.len()),
        },
        Reply::Schedules { schedules } => format!("{} schedules", schedules.len()),
        Reply::AlreadyDone => "it had been done".to_owned(),
        _ => "done".to_owned(),
    }
}

fn decided(output: &Output) -> (String, About) {
    match output {
        Output::Effect { id, op } => (format!("#{} {}", id.0, op_words(op)), about_op(op)),
        Output::Cancel { id } => (format!("give #{} up", id.0), About::default()),
        Output::Notice(notice) => notice_words(notice),
        Output::Timeout { at, reason } => {
            let why = match reason {
                Reason::Tick => "a tick is due then",
                Reason::Claim => "jobs may be due then",
                Reason::Heartbeat => "leases want a heartbeat then",
                Reason::EffectDeadline => "an effect has run out of time then",
                Reason::StoreRetry => "the store is asked again then",
                Reason::HandBack => "jobs that have not begun go back then",
                Reason::Shutdown => "the shutdown's deadline",
                Reason::Never => "nothing is planned",
            };
            let words = match reason {
                Reason::Never => format!("wait: {why}"),
                _ => format!("wait until {at}: {why}"),
            };
            (words, About::default())
        }
        Output::Finished => ("finished".to_owned(), About::default()),
    }
}

fn about_op(op: &Op) -> About {
    let mut about = About::default();
    match op {
        Op::Fetch(request) => about.users.push(request.user().clone()),
        Op::Graph(write) => {
            about.users.push(write.user().clone());
            about.tokens.push(write.fence());
        }
        Op::Store(command) => match &**command {
            Command::Enqueue {
                jobs, checkpoint, ..
            } => {
                about.users.extend(jobs.iter().map(|job| job.user.clone()));
                if let Some((lease, _)) = checkpoint {
                    about.key(&lease.key);
                    about.tokens.push(lease.token);
                }
            }
            Command::Heartbeat { leases, .. } => {
                for lease in leases {
                    about.key(&lease.key);
                    about.tokens.push(lease.token);
                }
            }
            Command::Checkpoint { lease, .. }
            | Command::Complete { lease, .. }
            | Command::Retry { lease, .. }
            | Command::Fail { lease, .. }
            | Command::Release { lease, .. }
            | Command::Limited { lease, .. } => {
                about.key(&lease.key);
                about.tokens.push(lease.token);
            }
            Command::Tick { schedule, .. } | Command::DefineSchedule { schedule, .. } => {
                about.schedules.push(schedule.to_string());
            }
            Command::Enroll { users, .. } => about.users.clone_from(users),
            Command::Connect { grants, .. } => {
                about
                    .users
                    .extend(grants.iter().map(|(user, _)| user.clone()));
            }
            _ => {}
        },
    }
    about
}

fn op_words(op: &Op) -> String {
    match op {
        Op::Fetch(request) => fetch_words(request),
        Op::Graph(write) => write_words(write),
        Op::Store(command) => command_words(command),
    }
}

fn fetch_words(request: &FetchRequest) -> String {
    match request {
        FetchRequest::Calendars { user, .. } => {
            format!("ask for the calendars of {user}")
        }
        FetchRequest::Events { user, query } => {
            let from = match &query.from {
                EventsFrom::Full { .. } => "all",
                EventsFrom::SyncToken(_) => "what is new",
            };
            let page = query.page_token.as_ref().map_or("", |_| ", a further page");
            format!("ask for {from} in {} of {user}{page}", query.calendar)
        }
        FetchRequest::Watch { user, calendar, .. } => {
            format!("ask to be told of changes in {calendar} of {user}")
        }
        FetchRequest::StopChannel { user, channel, .. } => {
            format!("stop the channel {channel} of {user}")
        }
    }
}

fn write_words(write: &GraphWrite) -> String {
    match write {
        GraphWrite::Apply {
            user,
            calendar,
            upserts,
            deletions,
            ..
        } => format!(
            "write {} events and remove {} in {} of {user}",
            upserts.len(),
            deletions.len(),
            calendar.id
        ),
        GraphWrite::Spare {
            user,
            calendar,
            events,
            ..
        } => {
            let count = events.len();
            format!(
                "spare {count} events that were set aside in {calendar} of {user} from the sweep"
            )
        }
        GraphWrite::Sweep { user, calendar, .. } => {
            format!("sweep what the full pass did not see in {calendar} of {user}")
        }
        GraphWrite::RemoveCalendar { user, calendar, .. } => {
            format!("remove {calendar} of {user}")
        }
    }
}

fn command_words(command: &Command) -> String {
    match command {
        Command::DefineSource { source, .. } => format!("define source {source}"),
        Command::DefineSchedule { schedule, .. } => format!("define schedule {schedule}"),
        Command::Tick {
            schedule,
            at,
            missed,
            fire,
            ..
        } => {
            let verb = if *fire { "fire" } else { "record" };
            format!("{verb} the tick of {schedule} at {at}, {missed} missed")
        }
        Command::Enqueue { jobs, .. } => match (jobs.first(), jobs.last()) {
            (Some(first), Some(last)) => format!(
                "enqueue {} jobs, from {} ({}) to {} ({})",
                jobs.len(),
                first.run_at,
                first.user,
                last.run_at,
                last.user
            ),
            _ => "enqueue no job".to_owned(),
        },
        Command::Claim {
            slots,
            fan_out_slots,
            held,
            ..
        } => format!(
            "claim up to {slots} syncs and {fan_out_slots} fan-outs, holding {}",
            held.len()
        ),
        Command::Heartbeat { leases, .. } => format!("keep {} leases", leases.len()),
        Command::Checkpoint {
            lease, requests, ..
        } => format!(
            "save how far {} came, and ask leave for {requests}",
            lease.key
        ),
        Command::Complete { lease, commit } => {
            let due = commit.next_due_at;
            let due = due.map_or_else(String::new, |due| format!(", due again at {due}"));
            format!("complete {}{due}", lease.key)
        }
        Command::Retry { lease, at, .. } => format!("try {} again at {at}", lease.key),
        Command::Fail { lease, park, .. } => {
            let park = park.map_or("", |_| " and park the user");
            format!("give {} up{park}", lease.key)
        }
        Command::Release { lease, at } => {
            let at = at.map_or_else(String::new, |at| format!(", not before {at}"));
            format!("hand {} back{at}", lease.key)
        }
        Command::Limited { lease, scope, .. } => {
            format!("close the gate ({scope:?}) for {}", lease.key).to_lowercase()
        }
        Command::DueUsers { due_by, .. } => format!("who is due by {due_by}?"),
        Command::Enroll { users, .. } if users.is_empty() => {
            "does the store still know the source?".to_owned()
        }
        Command::Enroll { users, .. } => format!("enroll {} users", users.len()),
        Command::Connect { grants, .. } => format!("tell the grants of {} users", grants.len()),
        Command::Schedules => "read the schedules".to_owned(),
        _ => "a store command".to_owned(),
    }
}

fn notice_words(notice: &Notice) -> (String, About) {
    let mut about = About::default();
    let words = match notice {
        Notice::Ready => "ready".to_owned(),
        Notice::StoreAway {
            failures, retry_at, ..
        } => format!("the store is away ({failures} in a row), asked again at {retry_at}"),
        Notice::StoreBack { away_ms } => format!("the store is back after {away_ms} ms"),
        Notice::StoreEmptied => "the store was emptied: everything is defined again".to_owned(),
        Notice::TickFired { schedule, at } => {
            about.schedules.push(schedule.to_string());
            format!("tick of {schedule} at {at}")
        }
        Notice::TicksMissed { schedule, count } => {
            about.schedules.push(schedule.to_string());
            format!("{count} ticks of {schedule} are skipped")
        }
        Notice::ScheduleNeverFires { schedule } => {
            about.schedules.push(schedule.to_string());
            format!("{schedule} never fires")
        }
        Notice::Overloaded { source, overload } => format!("{source}: {overload}"),
        Notice::JobStarted { key, attempt } => {
            about.key(key);
            format!("{key} begins, attempt {attempt}")
        }
        Notice::JobDone {
            key,
            outcome,
            duration_ms,
        } => {
            about.key(key);
            let how = match outcome {
                CommitOutcome::Synced {
                    upserted,
                    deleted,
                    quarantined,
                    full,
                    ..
                } => {
                    let full = if *full { ", a full pass" } else { "" };
                    format!("{upserted} written, {deleted} removed, {quarantined} set aside{full}")
                }
                CommitOutcome::Skipped { .. } => "skipped".to_owned(),
                CommitOutcome::FannedOut { users } => format!("{users} users laid out"),
            };
            format!("{key} is done after {duration_ms} ms: {how}")
        }
        Notice::JobRetried { key, failure, at } => {
            about.key(key);
            let why = failure_words(failure);
            format!("{key} is tried again at {at}, because: {why}")
        }
        Notice::JobFailed {
            key,
            failure,
            parked,
        } => {
            about.key(key);
            let parked = if *parked { ", the user is parked" } else { "" };
            format!(
                "{key} is given up{parked}, because: {}",
                failure_words(failure)
            )
        }
        Notice::JobReleased { key } => {
            about.key(key);
            format!("{key} is handed back")
        }
        Notice::LeaseLost { key } => {
            about.key(key);
            format!("the lease on {key} is lost")
        }
        Notice::Limited {
            key, scope, until, ..
        } => {
            about.key(key);
            format!("{key} was told to slow down ({scope:?}), until {until}")
        }
        Notice::Misconfigured { source, .. } => format!("{source} is set up wrongly"),
        Notice::MalformedToken { user } => {
            about.users.push(user.clone());
            format!("a token of {user} was malformed")
        }
        Notice::Recovered { recovered, buried } => {
            format!("{recovered} jobs of silent processes are back, {buried} given up")
        }
        Notice::Refused { .. } => "the store refused a command".to_owned(),
        Notice::EffectTimedOut { what, after_ms } => {
            format!("a {what} did not end within {after_ms} ms")
        }
        Notice::ClockCorrected { offset_ms } => {
            format!("the store's clock is {offset_ms} ms from ours")
        }
    };
    (words, about)
}
