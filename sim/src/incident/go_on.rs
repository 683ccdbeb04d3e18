//! Going on from where a journal ends: the same node in a quiet world.
//!
//! A journal tells one node's side. Of the store it tells what it answered this node: schedules, leases, jobs that this node
//! enqueued, the users it heard of and the cursors it got or committed. From that a queue is built
//! ([`Known::queue`]); what nobody told this node is not in it, and [`GoOn::assumptions`] says in words what was assumed. Google
//! has no news, the graph takes everything, nothing fails. So this answers "what would it have done next, left alone?" A
//! simulator that wants faults takes [`Ended`] and [`Known::queue`] and plays a world of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use kalends_core::failure::Failure;
use kalends_core::google::page::{CalendarEntry, CalendarsPage, EventsPage, FetchReply, PageEnd};
use kalends_core::google::push::Watched;
use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::graph::{GraphCounts, GraphReply};
use kalends_core::id::{CalendarId, ScheduleName, SourceName, UserId};
use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, EffectResult, Input, Op, Output};
use kalends_core::node::settings::NodeSettings;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, NewJob, Priority, Reply, Stamped};
use kalends_core::queue::state::{JobKey, ParkReason, ScheduleState};
use kalends_core::sync::cursor::SyncCursor;
use kalends_core::time::Timestamp;
use serde_json::{Value, json};

use super::hash::PRIMARY;
use super::replay::{Ended, ReplayError};
use super::told::Outcome;

/// How long each effect takes, in milliseconds.
const EFFECT_MS: u64 = 20;
/// The token of a calendar of which none is known: a pseudonym like others.
const UNKNOWN_TOKEN: &str = "anon-0000000000000000";

/// What the store told one node in one journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    sources: Vec<kalends_core::node::settings::SourceDefinition>,
    defined: Vec<(
        ScheduleName,
        kalends_core::policy::schedule::ScheduleDefinition,
    )>,
    schedules: BTreeMap<ScheduleName, ScheduleState>,
    users: BTreeMap<(SourceName, UserId), KnownUser>,
    jobs: BTreeMap<JobKey, NewJob>,
}

/// What is known of a user.
#[derive(Clone, Debug, Default, PartialEq)]
struct KnownUser {
    cursor: Option<String>,
    due_at: Option<Timestamp>,
    parked: bool,
}

impl Known {
    pub(super) fn of(settings: &NodeSettings) -> Self {
        let mut known = Known {
            sources: settings.sources.clone(),
            defined: settings.schedules.clone(),
            ..Known::default()
        };
        for source in &settings.sources {
            for (user, _) in &source.enroll {
                known.user(&source.name, user);
            }
        }
        known
    }

    fn user(&mut self, source: &SourceName, user: &UserId) -> &mut KnownUser {
        let key = (source.clone(), user.clone());
        self.users.entry(key).or_default()
    }

    fn user_of(&mut self, key: &JobKey) -> Option<&mut KnownUser> {
        match key {
            JobKey::Sync { source, user } => Some(self.user(source, user)),
            JobKey::FanOut { .. } => None,
        }
    }

    /// The store answered `op`, as far as it is known.
    pub(super) fn heard(&mut self, op: Option<&Op>, outcome: &Outcome) {
        let Outcome::Store(_, reply) = outcome else {
            return;
        };
        match reply {
            Reply::Schedules { schedules } => {
                self.schedules = schedules.iter().cloned().collect();
            }
            Reply::Claimed { leases, .. } => {
                for lease in leases {
                    self.jobs.remove(&lease.lease.key);
                    let cursor = lease.cursor.clone();
                    if let Some(user) = self.user_of(&lease.lease.key) {
                        user.cursor = cursor;
                        user.parked = false;
                    }
                }
            }
            Reply::Enrolled { source, users } => {
                for user in users {
                    self.user(source, user).parked = false;
                }
            }
            _ => {}
        }
        let Some(Op::Store(command)) = op else { return };
        match (&**command, reply) {
            (Command::Tick { schedule, .. }, Reply::Fired { state }) => {
                self.schedules.insert(schedule.clone(), state.clone());
            }
            (Command::Tick { schedule, .. }, Reply::AlreadyFired { state }) => match state {
                Some(state) => {
                    self.schedules.insert(schedule.clone(), state.clone());
                }
                None => {
                    self.schedules.remove(schedule);
                }
            },
            (Command::DueUsers { source, .. }, Reply::DueUsers { users, .. }) => {
                for (due_at, user) in users {
                    self.user(source, user).due_at = Some(*due_at);
                }
            }
            (Command::Enqueue { source, jobs, .. }, Reply::Enqueued { .. }) => {
                for job in jobs {
                    let key = JobKey::Sync {
                        source: source.clone(),
                        user: job.user.clone(),
                    };
                    self.jobs.insert(key, job.clone());
                }
            }
            (_, Reply::Refused { .. }) => {}
            (Command::Complete { lease, commit }, _) => {
                if let Some(user) = self.user_of(&lease.key) {
                    if commit.cursor.is_some() {
                        user.cursor.clone_from(&commit.cursor);
                    }
                    user.due_at = commit.next_due_at.or(user.due_at);
                }
            }
            (
                Command::Checkpoint {
                    lease,
                    progress: Some(progress),
                    ..
                },
                _,
            ) => {
                if let Some(user) = self.user_of(&lease.key) {
                    user.cursor = Some(progress.clone());
                }
            }
            (
                Command::Fail {
                    lease,
                    next_due_at,
                    park,
                    ..
                },
                _,
            ) => {
                if let Some(user) = self.user_of(&lease.key) {
                    user.due_at = next_due_at.or(user.due_at);
                    user.parked = park.is_some();
                }
            }
            (Command::Retry { lease, at, .. }, _) => self.comes_back(&lease.key, Some(*at)),
            (Command::Release { lease, at }, _) => self.comes_back(&lease.key, *at),
            (Command::Limited { lease, .. }, Reply::GateClosed { until }) => {
                self.comes_back(&lease.key, Some(*until));
            }
            _ => {}
        }
    }

    fn comes_back(&mut self, key: &JobKey, at: Option<Timestamp>) {
        if let JobKey::Sync { user, .. } = key {
            let job = NewJob {
                user: user.clone(),
                run_at: at.unwrap_or(Timestamp::EPOCH),
                nominal_at: None,
                priority: Priority::Scheduled,
            };
            self.jobs.insert(key.clone(), job);
        }
    }

    fn calendars(&self, user: &UserId) -> Vec<CalendarId> {
        let mut of_user = self.users.iter().filter(|((_, known), _)| known == user);
        let cursor = of_user.find_map(|(_, known)| known.cursor.as_deref());
        let mut calendars: Vec<CalendarId> =
            SyncCursor::read(cursor).calendars.into_keys().collect();
        if calendars.is_empty() {
            calendars.push(CalendarId::new(PRIMARY).expect("a constant, valid name"));
        }
        calendars
    }

    /// A queue that stands as the node was told, at `now` of the store, with the leases that `node` holds.
    ///
    /// # Panics
    /// If what was told fits into no queue: a forged journal.
    #[must_use]
    pub fn queue(&self, node: &Node, now: Timestamp) -> Queue {
        let mut queue = Queue::new();
        for source in &self.sources {
            queue.apply(
                now,
                Command::DefineSource {
                    source: source.name.clone(),
                    settings: source.settings.clone(),
                },
            );
        }
        let told = self.schedules.iter();
        let told = told.map(|(name, state)| (name.clone(), state.definition.clone()));
        for (schedule, definition) in self.defined.iter().cloned().chain(told) {
            queue.apply(
                now,
                Command::DefineSchedule {
                    schedule,
                    definition,
                },
            );
        }
        for ((source, user), known) in &self.users {
            queue.apply(
                now,
                Command::Enroll {
                    source: source.clone(),
                    users: vec![user.clone()],
                    due_at: known.due_at.unwrap_or(now),
                },
            );
        }
        let held: BTreeSet<&JobKey> = node.leases().map(|(lease, ..)| &lease.key).collect();
        for (key, job) in &self.jobs {
            if let (JobKey::Sync { source, .. }, false) = (key, held.contains(key)) {
                queue.apply(
                    now,
                    Command::Enqueue {
                        source: source.clone(),
                        jobs: vec![job.clone()],
                        checkpoint: None,
                    },
                );
            }
        }
        let mut rows = queue.rows();
        for (table, key, value) in &mut rows {
            self.amend(table, key, value);
        }
        let mut last_token = 0;
        for (lease, attempt, nominal_at) in node.leases() {
            last_token = last_token.max(lease.token.0);
            let row = json!({
                "wish": { "run_at": now, "priority": Priority::Scheduled, "nominal_at": nominal_at },
                "attempts": attempt.saturating_sub(1), "stalls": 0, "backing_off": false, "held_until": null,
                "progress": null, "error": null, "rerun": null,
                "active": {
                    "worker": node.settings().worker, "token": lease.token,
                    "expires_at": now.plus_ms(node.settings().lease_ms), "lease_ms": node.settings().lease_ms,
                },
            });
            let key = serde_json::to_string(&lease.key).expect("plain values become JSON");
            rows.push(("jobs".to_owned(), key, row.to_string()));
        }
        for (table, _, value) in &mut rows {
            if table == "meta"
                && let Ok(mut meta) = serde_json::from_str::<Value>(value)
            {
                meta["last_token"] =
                    json!(last_token.max(meta["last_token"].as_u64().unwrap_or(0)));
                *value = meta.to_string();
            }
        }
        Queue::restore(rows).expect("rows of a queue, amended by what a store told")
    }

    /// What a command could not say.
    fn amend(&self, table: &str, key: &str, value: &mut String) {
        let Ok(mut row) = serde_json::from_str::<Value>(value) else {
            return;
        };
        match table {
            "users" => {
                let Some(known) = serde_json::from_str::<(SourceName, UserId)>(key)
                    .ok()
                    .and_then(|key| self.users.get(&key))
                else {
                    return;
                };
                row["state"]["cursor"] = json!(known.cursor);
                if known.parked {
                    row["state"]["parked"] = json!(ParkReason::NeedsReauth);
                }
            }
            "schedules" => {
                let Some(state) = serde_json::from_str::<ScheduleName>(key)
                    .ok()
                    .and_then(|name| self.schedules.get(&name))
                else {
                    return;
                };
                row["state"] = json!(state);
            }
            _ => return,
        }
        *value = row.to_string();
    }
}

/// A node that goes on in a quiet world.
#[derive(Debug)]
pub struct GoOn {
    node: Node,
    known: Known,
    queue: Queue,
    now: Timestamp,
    /// By when they end: what is under way.
    pending: BTreeMap<(Timestamp, EffectId), Op>,
    wake_at: Timestamp,
    finished: bool,
}

impl GoOn {
    /// Goes on from where a replay ended.
    ///
    /// # Errors
    /// If what the journal told fits into no queue: it is forged.
    pub fn new(ended: Ended) -> Result<Self, ReplayError> {
        catch_unwind(AssertUnwindSafe(|| GoOn::new_unguarded(ended)))
            .map_err(|_| ReplayError::Panicked { turn: 0 })
    }

    fn new_unguarded(ended: Ended) -> Self {
        let Ended {
            node,
            now,
            in_flight,
            known,
        } = ended;
        let queue = known.queue(&node, node.store_now(now));
        let at = now.plus_ms(EFFECT_MS);
        let pending = in_flight.into_iter().map(|(id, op)| ((at, id), op));
        GoOn {
            pending: pending.collect(),
            node,
            known,
            queue,
            now,
            wake_at: now,
            finished: false,
        }
    }

    /// What was assumed, a sentence each.
    #[must_use]
    pub fn assumptions(&self) -> Vec<String> {
        let users = self.known.users.values();
        let unknown = users.filter(|user| user.cursor.is_none()).count();
        vec![
            format!(
                "The store is a queue made of what it told this process: {} schedules, {} users ({unknown} of them \
                 without a cursor: they are synced in full), {} jobs that wait, {} leases held here.",
                self.known.schedules.len(),
                self.known.users.len(),
                self.known.jobs.len(),
                self.node.held_jobs(),
            ),
            "What other processes enqueued, enrolled, paused or used up of the limits is not known, and is left out."
                .to_owned(),
            "What was under way when the journal ended reaches the other side now, for the first time.".to_owned(),
            format!(
                "Google has no news, the graph takes every write, nothing fails; each effect takes {EFFECT_MS} ms."
            ),
        ]
    }

    /// The store as it stands.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The node's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether the node has finished: the journal held its shutdown.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.finished
    }

    /// Goes on for `ms` milliseconds; `see` is shown all that the node says, with its time.
    ///
    /// # Errors
    /// If the machine meets what cannot happen: the journal is forged. Then it cannot go on.
    pub fn run(
        &mut self,
        ms: u64,
        see: &mut dyn FnMut(Timestamp, &Output),
    ) -> Result<(), ReplayError> {
        catch_unwind(AssertUnwindSafe(|| self.run_unguarded(ms, see)))
            .map_err(|_| ReplayError::Panicked { turn: 0 })
    }

    fn run_unguarded(&mut self, ms: u64, see: &mut dyn FnMut(Timestamp, &Output)) {
        let until = self.now.plus_ms(ms);
        self.drain(see);
        while !self.finished {
            let next_pending = self.pending.keys().next().map(|(at, _)| *at);
            let next = next_pending.map_or(self.wake_at, |at| at.min(self.wake_at));
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if next_pending.is_some_and(|at| at <= self.now) {
                let ((_, id), op) = self.pending.pop_first().expect("there is one");
                let wakes = matches!(
                    &op,
                    Op::Store(command)
                        if matches!(**command, Command::Enqueue { .. } | Command::Tick { .. })
                );
                let result = self.perform(op);
                self.node.handle_input(self.now, Input::Done { id, result });
                if wakes {
                    self.node.handle_input(self.now, Input::Wake);
                }
            } else {
                self.node.handle_timeout(self.now);
            }
            self.drain(see);
        }
        self.now = self.now.max(until);
    }

    fn drain(&mut self, see: &mut dyn FnMut(Timestamp, &Output)) {
        loop {
            let output = self.node.poll_output();
            see(self.now, &output);
            match output {
                Output::Effect { id, op } => {
                    self.pending.insert((self.now.plus_ms(EFFECT_MS), id), op);
                }
                Output::Cancel { id } => self.pending.retain(|(_, other), _| *other != id),
                Output::Notice(_) => {}
                Output::Timeout { at, .. } => {
                    // A node never asks for a time that has passed; a forged one shall not keep us here.
                    self.wake_at = at.max(self.now.plus_ms(1));
                    return;
                }
                Output::Finished => {
                    self.finished = true;
                    return;
                }
            }
        }
    }

    fn perform(&mut self, op: Op) -> EffectResult {
        match op {
            Op::Store(command) => {
                let now = self.node.store_now(self.now);
                let value = self.queue.apply(now, *command);
                EffectResult::Store(Ok(Stamped { now, value }))
            }
            Op::Fetch(request) => EffectResult::Fetch(self.answer(*request)),
            Op::Graph(_) => EffectResult::Graph(Ok(GraphReply::Written(GraphCounts::default()))),
        }
    }

    /// Google has nothing new.
    fn answer(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        match request {
            FetchRequest::Events { query, .. } => {
                let token = match query.from {
                    EventsFrom::SyncToken(token) => token,
                    EventsFrom::Full { .. } => UNKNOWN_TOKEN.to_owned(),
                };
                Ok(FetchReply::Events(EventsPage {
                    summary: None,
                    time_zone: None,
                    access_role: None,
                    events: Vec::new(),
                    unreadable: Vec::new(),
                    end: PageEnd::Done {
                        sync_token: Some(token),
                    },
                }))
            }
            FetchRequest::Calendars { user, .. } => {
                let entry = |id| CalendarEntry {
                    id,
                    summary: None,
                    time_zone: None,
                    access_role: None,
                    primary: false,
                    deleted: false,
                };
                let calendars = self.known.calendars(&user).into_iter().map(entry);
                Ok(FetchReply::Calendars(CalendarsPage {
                    calendars: calendars.collect(),
                    next_page_token: None,
                }))
            }
            FetchRequest::Watch { life_ms, .. } => Ok(FetchReply::Watched(Watched {
                resource: UNKNOWN_TOKEN.to_owned(),
                expires_at: self.node.store_now(self.now).plus_ms(life_ms),
            })),
            FetchRequest::StopChannel { .. } => Ok(FetchReply::Stopped),
        }
    }
}
