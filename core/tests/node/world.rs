//! A small world for nodes: one queue value as the store, scripted answers for everything else, time that jumps.

use std::collections::BTreeMap;

use kalends_core::failure::Failure;
use kalends_core::google::page::{EventsPage, FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphCounts, GraphReply};
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, EffectResult, Input, Notice, Op, Output};
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;
use kalends_core::time::Timestamp;

/// 2026-11-02, a Monday, at midnight UTC.
pub(crate) const MIDNIGHT: Timestamp = Timestamp::from_ms(1_793_577_600_000);
/// How long every effect takes, in milliseconds.
pub(crate) const LATENCY_MS: u64 = 20;
/// More events than any test needs: a loop without progress ends here.
const EVENTS_MAX: u64 = 3_000_000;

/// What a scripted fetch or write does: an answer, or nothing at all.
pub(crate) type Answer = Option<EffectResult>;

struct Process {
    node: Node,
    /// Its clock minus the true time, in milliseconds.
    skew_ms: i64,
    alive: bool,
    finished: bool,
    wake_at: Timestamp,
}

/// An effect's result on its way back.
struct Pending {
    process: usize,
    id: EffectId,
    result: Option<EffectResult>,
    op: Option<Op>,
}

type Script = Box<dyn FnMut(Timestamp, usize, &Op) -> Answer>;

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) queue: Queue,
    pub(crate) store_up: bool,
    /// Loses the reply of a command, after it was applied, if this says so.
    pub(crate) lose_reply: Box<dyn FnMut(&Command) -> bool>,
    pub(crate) notices: Vec<(Timestamp, usize, Notice)>,
    pub(crate) fetches: Vec<(Timestamp, UserId)>,
    script: Script,
    processes: Vec<Process>,
    pending: BTreeMap<(Timestamp, u64), Pending>,
    sequence: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            now: MIDNIGHT,
            queue: Queue::new(),
            store_up: true,
            lose_reply: Box::new(|_| false),
            notices: Vec::new(),
            fetches: Vec::new(),
            script: Box::new(|_, _, op| Some(quiet(op))),
            processes: Vec::new(),
            pending: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Google and the graph answer as `script` says.
    pub(crate) fn script(&mut self, script: impl FnMut(Timestamp, usize, &Op) -> Answer + 'static) {
        self.script = Box::new(script);
    }

    /// Starts a process whose clock is off by `skew_ms`; its number.
    pub(crate) fn start(&mut self, settings: NodeSettings, skew_ms: i64) -> usize {
        let local = Timestamp::from_ms(self.now.as_ms() + skew_ms);
        let node = Node::new(local, settings);
        self.processes.push(Process {
            node,
            skew_ms,
            alive: true,
            finished: false,
            wake_at: self.now,
        });
        let index = self.processes.len() - 1;
        self.drain(index);
        index
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        self.processes[index].alive = false;
    }

    /// Users are laid out otherwise from now on.
    pub(crate) fn lay_out(&mut self, index: usize, spread: Spread, jitter: Jitter) {
        let local = self.local(index);
        let layout = Input::Layout { spread, jitter };
        self.processes[index].node.handle_input(local, layout);
        self.drain(index);
    }

    /// SIGTERM, with a deadline.
    pub(crate) fn terminate(&mut self, index: usize, deadline_ms: u64) {
        let local = self.local(index);
        let deadline = local.plus_ms(deadline_ms);
        self.processes[index]
            .node
            .handle_input(local, Input::Shutdown { deadline });
        self.drain(index);
    }

    pub(crate) fn finished(&self, index: usize) -> bool {
        self.processes[index].finished
    }

    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        let reply = self.queue.apply(self.now, command);
        self.wake_all();
        reply
    }

    /// Runs until `until`, jumping from event to event.
    pub(crate) fn run_until(&mut self, until: Timestamp) {
        for _ in 0..EVENTS_MAX {
            let next_pending = self.pending.keys().next().map(|(at, _)| *at);
            let next_wake = self
                .awake()
                .map(|index| self.processes[index].wake_at)
                .min();
            let next = next_pending
                .into_iter()
                .chain(next_wake)
                .min()
                .unwrap_or(until);
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if next_pending == Some(next) {
                self.deliver();
                continue;
            }
            let due: Vec<usize> = self
                .awake()
                .filter(|index| self.processes[*index].wake_at <= self.now)
                .collect();
            if due.is_empty() {
                break;
            }
            for index in due {
                let local = self.local(index);
                self.processes[index].node.handle_timeout(local);
                self.drain(index);
                let process = &self.processes[index];
                assert!(
                    process.finished || process.wake_at > self.now || !self.pending.is_empty(),
                    "process {index} asks to be woken at a time that has passed, and does nothing"
                );
            }
        }
        self.now = self.now.max(until);
        self.queue.check_invariants();
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        self.run_until(self.now.plus_ms(ms));
    }

    fn awake(&self) -> impl Iterator<Item = usize> + '_ {
        let ready = |process: &Process| process.alive && !process.finished;
        (0..self.processes.len()).filter(move |index| ready(&self.processes[*index]))
    }

    fn local(&self, index: usize) -> Timestamp {
        Timestamp::from_ms(self.now.as_ms() + self.processes[index].skew_ms)
    }

    fn wake_all(&mut self) {
        let awake: Vec<usize> = self.awake().collect();
        for index in awake {
            let local = self.local(index);
            self.processes[index].node.handle_input(local, Input::Wake);
            self.drain(index);
        }
    }

    fn deliver(&mut self) {
        let (_, pending) = self.pending.pop_first().expect("the caller saw one");
        let index = pending.process;
        let mut wake = false;
        let result = match pending.op {
            // A command reaches the store now; its reply comes back later.
            Some(Op::Store(command)) => {
                let lost = (self.lose_reply)(&command);
                wake = matches!(*command, Command::Enqueue { .. } | Command::Tick { .. });
                let result = self.store(*command);
                if !lost {
                    self.later(index, pending.id, Some(result), None);
                }
                None
            }
            Some(op) => {
                if let Op::Fetch(request) = &op {
                    self.fetches.push((self.now, request.user().clone()));
                }
                if let Some(result) = (self.script)(self.now, index, &op) {
                    self.later(index, pending.id, Some(result), None);
                }
                None
            }
            None => pending.result,
        };
        if let (Some(result), true) = (result, self.processes[index].alive) {
            let local = self.local(index);
            let input = Input::Done {
                id: pending.id,
                result,
            };
            self.processes[index].node.handle_input(local, input);
            self.drain(index);
        }
        if wake {
            self.wake_all();
        }
    }

    fn store(&mut self, command: Command) -> EffectResult {
        if !self.store_up {
            let detail = "connection refused".to_owned();
            return EffectResult::Store(Err(StoreUnavailable { detail }));
        }
        let value = self.queue.apply(self.now, command);
        EffectResult::Store(Ok(Stamped {
            now: self.now,
            value,
        }))
    }

    fn later(
        &mut self,
        process: usize,
        id: EffectId,
        result: Option<EffectResult>,
        op: Option<Op>,
    ) {
        self.sequence += 1;
        let at = self.now.plus_ms(LATENCY_MS / 2);
        self.pending.insert(
            (at, self.sequence),
            Pending {
                process,
                id,
                result,
                op,
            },
        );
    }

    fn drain(&mut self, index: usize) {
        loop {
            match self.processes[index].node.poll_output() {
                Output::Effect { id, op } => self.later(index, id, None, Some(op)),
                Output::Cancel { id } => {
                    self.pending
                        .retain(|_, pending| pending.process != index || pending.id != id);
                }
                Output::Notice(notice) => self.notices.push((self.now, index, notice)),
                Output::Timeout { at, .. } => {
                    let skew_ms = self.processes[index].skew_ms;
                    self.processes[index].wake_at =
                        Timestamp::from_ms(at.as_ms().saturating_sub(skew_ms));
                    return;
                }
                Output::Finished => {
                    self.processes[index].finished = true;
                    return;
                }
            }
        }
    }

    pub(crate) fn done_jobs(&self) -> Vec<(Timestamp, UserId)> {
        let synced = |notice: &Notice| match notice {
            Notice::JobDone {
                key: kalends_core::queue::state::JobKey::Sync { user, .. },
                ..
            } => Some(user.clone()),
            _ => None,
        };
        self.notices
            .iter()
            .filter_map(|(at, _, notice)| Some((*at, synced(notice)?)))
            .collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices
            .iter()
            .filter(|(_, _, notice)| wanted(notice))
            .count()
    }
}

/// A calendar in which nothing ever happens.
pub(crate) fn quiet(op: &Op) -> EffectResult {
    match op {
        Op::Fetch(request) => EffectResult::Fetch(match **request {
            FetchRequest::Events { .. } => Ok(page(PageEnd::Done {
                sync_token: Some("token".to_owned()),
            })),
            FetchRequest::Calendars { .. }
            | FetchRequest::Watch { .. }
            | FetchRequest::StopChannel { .. } => Err(Failure::permanent("not scripted")),
        }),
        Op::Graph(_) => EffectResult::Graph(Ok(GraphReply::Written(GraphCounts::default()))),
        Op::Store(_) => panic!("the store is not scripted"),
    }
}

pub(crate) fn page(end: PageEnd) -> FetchReply {
    FetchReply::Events(EventsPage {
        summary: None,
        time_zone: None,
        access_role: None,
        events: Vec::new(),
        unreadable: Vec::new(),
        end,
    })
}

pub(crate) fn user(index: usize) -> UserId {
    UserId::new(&format!("user-{index}@example.com")).unwrap()
}

pub(crate) fn schedule_name() -> ScheduleName {
    ScheduleName::new("calendar-sync").unwrap()
}

/// Every 15 minutes, no job limit, `users` users; the mission's defaults otherwise.
pub(crate) fn settings(name: &str, users: usize) -> NodeSettings {
    let mut settings = NodeSettings::new(WorkerId::new(name).unwrap(), 7);
    settings.sources.push(SourceDefinition {
        name: SourceName::google_calendar(),
        settings: SourceSettings {
            jobs: None,
            ..SourceSettings::default()
        },
        sync: SyncSettings::default(),
        enroll: (0..users).map(|index| (user(index), 1)).collect(),
    });
    settings
        .schedules
        .push((schedule_name(), definition("*/15 * * * *")));
    settings
}

pub(crate) fn definition(cron: &str) -> ScheduleDefinition {
    ScheduleDefinition {
        source: SourceName::google_calendar(),
        cron: cron.parse().unwrap(),
        time_zone: "UTC".parse().unwrap(),
        catch_up: "once".parse().unwrap(),
    }
}
