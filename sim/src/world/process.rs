//! Processes: life and death of the fleet's members, and the talk between a machine and the world.

use std::collections::VecDeque;

use kalends_core::id::WorkerId;
use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, Input, Op, Output};
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::jitter::Jitter;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::rng::stable_hash;
use kalends_core::sync::{CalendarSelection, SyncSettings};
use kalends_core::time::Timestamp;

use super::clock::LocalClock;
use super::event::{Address, Event};
use super::push::Ear;
use super::trace::Moment;
use super::watch::troubles_store;
use super::{World, schedule_name};
use crate::google::GoogleClient;
use crate::invariants::{Invariant, Violation, shutdown};
use crate::legacy::Replica;
use crate::plan::FaultKind;

/// A machine that asks for a time that has passed so often in a row never rests.
const SPINS_MAX: u32 = 1_000;
/// A process that was told to stop may be so late, in milliseconds of its own clock: the last commands are on their way.
const SHUTDOWN_GRACE_MS: u64 = 1_500;

/// What runs in a process: the driving contract of a [`Node`], so that another machine can be put in its place.
pub trait Machine {
    /// Something happened, at `now` on the process's clock.
    fn handle_input(&mut self, now: Timestamp, input: Input);
    /// The announced time has come.
    fn handle_timeout(&mut self, now: Timestamp);
    /// What to do next.
    fn poll_output(&mut self) -> Output;
    /// How many jobs run in it.
    fn running_jobs(&self) -> usize;
    /// How many leases it holds.
    fn held_jobs(&self) -> usize;
    /// Whether it cannot reach the store, as far as it knows.
    fn store_is_away(&self) -> bool;
}

impl Machine for Node {
    fn handle_input(&mut self, now: Timestamp, input: Input) {
        Node::handle_input(self, now, input);
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        Node::handle_timeout(self, now);
    }
    fn poll_output(&mut self) -> Output {
        Node::poll_output(self)
    }
    fn running_jobs(&self) -> usize {
        Node::running_jobs(self)
    }
    fn held_jobs(&self) -> usize {
        Node::held_jobs(self)
    }
    fn store_is_away(&self) -> bool {
        Node::store_is_away(self)
    }
}

/// One place of the fleet, in which one process after the other runs.
pub(super) struct Process {
    /// `None`: nothing runs here.
    pub(super) machine: Option<Box<dyn Machine>>,
    /// How many have run here.
    pub(super) incarnation: u32,
    pub(super) clock: LocalClock,
    pub(super) skew_ms: i64,
    pub(super) paused_at: Option<Timestamp>,
    /// What came while it was paused.
    pub(super) held: VecDeque<Event>,
    /// When the machine wants to be called, true time.
    pub(super) wake_at: Timestamp,
    /// The earliest timer that is planned for it.
    timer_at: Timestamp,
    spins: u32,
    pub(super) stopping: bool,
    /// Since when, true time.
    pub(super) stopping_since: Timestamp,
    pub(super) google: GoogleClient,
    /// Its webhook, in plans that watch calendars.
    pub(super) ear: Option<Box<Ear>>,
}

impl Process {
    pub(super) fn new(now: Timestamp) -> Self {
        Process {
            machine: None,
            incarnation: 0,
            clock: LocalClock::new(now, 0),
            skew_ms: 0,
            paused_at: None,
            held: VecDeque::new(),
            wake_at: Timestamp::MAX,
            timer_at: Timestamp::MAX,
            spins: 0,
            stopping: false,
            stopping_since: now,
            google: GoogleClient::new(),
            ear: None,
        }
    }

    /// Whether it runs, and is not on its way out.
    pub(super) fn is_up(&self) -> bool {
        self.machine.is_some() && !self.stopping && self.paused_at.is_none()
    }
}

impl World<'_> {
    fn name_of(&self, process: u32, incarnation: u32) -> String {
        if self.policy.same_names {
            return format!("p{process}");
        }
        format!("p{process}-{incarnation}")
    }

    fn settings(&mut self, process: u32, incarnation: u32) -> NodeSettings {
        let policy = &self.policy;
        let name = format!("p{process}-{incarnation}");
        let seed = stable_hash(self.plan.seed, name.as_bytes());
        let name = self.name_of(process, incarnation);
        let mut settings = NodeSettings::new(WorkerId::new(&name).expect("a valid name"), seed);
        settings.sources.push(SourceDefinition {
            // The schedule's copy: names that share their text are equal without a look at it.
            name: policy.schedule.source.clone(),
            settings: policy.source.clone(),
            sync: SyncSettings {
                calendars: match self.plan.size.calendars_per_user {
                    1 => CalendarSelection::Primary,
                    _ => CalendarSelection::AllReadable,
                },
                page_size: policy.page_size,
                resyncs_a_day_max: policy.resyncs_a_day_max,
                push: policy.push.filter(|_| self.push.is_some()),
                ..SyncSettings::default()
            },
            enroll: self.users[..self.enrolled]
                .iter()
                .cloned()
                .zip(self.grants.iter().copied())
                .collect(),
        });
        settings
            .schedules
            .push((schedule_name(), policy.schedule.clone()));
        settings.concurrency = policy.concurrency;
        settings.lease_ms = policy.lease_ms;
        settings.jitter = Jitter {
            max_ms: policy.jitter_ms,
        };
        settings.spread = policy.spread;
        settings.backoff = policy.backoff;
        settings.poll_ms = policy.poll_ms;
        settings
    }

    /// What runs in a process that starts at `local`, its own time.
    fn machine(&mut self, process: u32, incarnation: u32, local: Timestamp) -> Box<dyn Machine> {
        let settings = self.settings(process, incarnation);
        match &self.legacy {
            None => Box::new(Node::new(local, settings)),
            Some(shared) => {
                let (users, sync) = (self.users.clone(), settings.sources[0].sync.clone());
                Box::new(Replica::new(local, shared.clone(), users, sync))
            }
        }
    }

    /// What the replaced service's processes have put into their queue may hurry the others.
    fn tell_other_replicas(&mut self, index: u32) {
        let Some(shared) = self.legacy.clone() else {
            return;
        };
        self.hasher.word(shared.borrow().digest());
        for line in shared.borrow_mut().take_lines() {
            self.tell(&Moment::Noted {
                process: index,
                line: &line,
            });
        }
        if !shared.borrow_mut().take_added() {
            return;
        }
        for process in (0..self.plan.size.processes).filter(|process| *process != index) {
            let incarnation = self.processes[process as usize].incarnation;
            let at = self.now.plus_ms(self.store_way_ms());
            self.heap.push(
                at,
                Event::Call {
                    process,
                    incarnation,
                },
            );
        }
    }

    /// Starts a process, if none runs there.
    pub(super) fn start(&mut self, index: u32) {
        if self.processes[index as usize].machine.is_some() {
            return;
        }
        let incarnation = self.processes[index as usize].incarnation + 1;
        let now = self.now;
        let process = &mut self.processes[index as usize];
        let skew_ms = process.skew_ms;
        *process = Process {
            incarnation,
            clock: LocalClock::new(now, skew_ms),
            skew_ms,
            ..Process::new(now)
        };
        let local = process.clock.local(now);
        self.asking.begins_anew(index as usize);
        let machine = self.machine(index, incarnation, local);
        self.processes[index as usize].machine = Some(machine);
        self.processes[index as usize].ear = self.new_ear(index);
        self.tell(&Moment::Started {
            process: index,
            incarnation,
        });
        self.poll(index);
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, index: u32, how: &'static str) {
        let process = &mut self.processes[index as usize];
        let Some(machine) = process.machine.take() else {
            return;
        };
        if machine.held_jobs() > 0 {
            self.marks.mark("process-crashed-with-leases");
        }
        process.held.clear();
        process.ear = None;
        process.paused_at = None;
        process.stopping = false;
        process.wake_at = Timestamp::MAX;
        self.tell(&Moment::Ended {
            process: index,
            how,
        });
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self, index: u32, deadline_ms: u64) {
        let now = self.now;
        let process = &mut self.processes[index as usize];
        if process.machine.is_none() || process.stopping {
            return;
        }
        self.marks.mark("process-terminated");
        process.stopping = true;
        process.stopping_since = now;
        let deadline = process.clock.local(now).plus_ms(deadline_ms);
        let machine = process.machine.as_mut().expect("looked at just now");
        if machine.held_jobs() == 0 {
            self.marks.mark("shutdown-idle");
        }
        if machine.store_is_away() {
            self.marks.mark("shutdown-store-away");
        }
        let incarnation = process.incarnation;
        let due_at = process.clock.true_at(deadline.plus_ms(SHUTDOWN_GRACE_MS));
        if due_at < Timestamp::MAX {
            self.heap.push(
                due_at,
                Event::ShutdownDue {
                    process: index,
                    incarnation,
                },
            );
        }
        self.close_ear(index);
        self.input(index, Input::Shutdown { deadline });
    }

    /// By now a process that was told to stop must be gone.
    pub(super) fn shutdown_due(&mut self, index: u32, incarnation: u32) {
        let process = &self.processes[index as usize];
        let runs = process.incarnation == incarnation && process.machine.is_some();
        let runs = runs && process.stopping && process.paused_at.is_none();
        if !self.clocks_are_odd() {
            self.judge(shutdown::in_time(index, runs));
        }
    }

    fn clocks_are_odd(&self) -> bool {
        let faults = self.plan.faults.iter().zip(&self.active);
        faults
            .filter(|(_, active)| **active)
            .any(|(fault, _)| fault.kind.family() == crate::plan::Family::Clock)
    }

    pub(super) fn pause(&mut self, index: u32) {
        let process = &mut self.processes[index as usize];
        if process.machine.is_some() && process.paused_at.is_none() {
            process.paused_at = Some(self.now);
            self.marks.mark("process-paused");
        }
    }

    pub(super) fn wake_up(&mut self, index: u32) {
        let now = self.now;
        let process = &mut self.processes[index as usize];
        let Some(paused_at) = process.paused_at.take() else {
            return;
        };
        let Some(machine) = process.machine.as_mut() else {
            return;
        };
        if now.since_ms(paused_at) > self.policy.lease_ms && machine.held_jobs() > 0 {
            self.marks.mark("process-paused-past-lease");
        }
        let held = std::mem::take(&mut process.held);
        for event in held {
            self.handle(event);
        }
        self.listen(index);
        self.timeout(index);
    }

    /// The machine is called, as its time has come or something about its clock has changed.
    pub(super) fn timeout(&mut self, index: u32) {
        let now = self.now;
        let process = &mut self.processes[index as usize];
        if process.paused_at.is_some() {
            return;
        }
        if let Some(machine) = process.machine.as_mut() {
            machine.handle_timeout(process.clock.local(now));
            self.poll(index);
        }
    }

    /// A planned timer has come.
    pub(super) fn timer(&mut self, index: u32) {
        let now = self.now;
        let process = &mut self.processes[index as usize];
        if process.timer_at > now {
            // One that was planned before an earlier one, or for a process before this one.
            return;
        }
        process.timer_at = Timestamp::MAX;
        if process.machine.is_none() || process.paused_at.is_some() {
            return;
        }
        if process.wake_at > now {
            self.plan_timer(index);
            return;
        }
        self.timeout(index);
    }

    fn plan_timer(&mut self, index: u32) {
        let process = &mut self.processes[index as usize];
        if process.wake_at < process.timer_at {
            process.timer_at = process.wake_at;
            self.heap
                .push(process.wake_at, Event::Timer { process: index });
        }
    }

    /// Tells the machine something.
    pub(super) fn input(&mut self, index: u32, input: Input) {
        let now = self.now;
        let process = &mut self.processes[index as usize];
        if let Some(machine) = process.machine.as_mut() {
            machine.handle_input(process.clock.local(now), input);
            self.poll(index);
        }
    }

    /// Asks the machine what to do, until it has nothing more to say.
    fn poll(&mut self, index: u32) {
        let now = self.now;
        loop {
            let process = &mut self.processes[index as usize];
            let Some(machine) = process.machine.as_mut() else {
                return;
            };
            match machine.poll_output() {
                Output::Effect { id, op } => self.send(index, id, op),
                // What is on its way cannot be called back; its answer will find nobody.
                Output::Cancel { .. } => {}
                Output::Notice(notice) => {
                    self.note(index, &notice);
                    self.tell(&Moment::Said {
                        process: index,
                        notice: &notice,
                    });
                }
                Output::Timeout { at, .. } => {
                    let local = process.clock.local(now);
                    if at > local {
                        process.spins = 0;
                    } else {
                        process.spins += 1;
                        assert!(
                            process.spins < SPINS_MAX,
                            "process {index} asks again and again for a time that has passed"
                        );
                    }
                    process.wake_at = process.clock.true_at(at).max(now);
                    self.plan_timer(index);
                    self.tell_other_replicas(index);
                    return;
                }
                Output::Finished => {
                    self.tell_other_replicas(index);
                    self.finished(index);
                    return;
                }
            }
        }
    }

    fn send(&mut self, process: u32, id: EffectId, op: Op) {
        let from = Address {
            process,
            incarnation: self.processes[process as usize].incarnation,
            id,
        };
        self.hasher.word(id.0 << 8 | u64::from(process));
        match op {
            Op::Store(command) => self.send_to_store(from, command),
            Op::Fetch(request) => {
                self.asks(process, request.user());
                self.send_to_google(from, request);
            }
            Op::Graph(write) => self.send_to_graph(from, write),
        }
    }

    fn finished(&mut self, index: u32) {
        let now = self.now;
        let process = &mut self.processes[index as usize];
        let machine = process.machine.take().expect("it has just spoken");
        process.ear = None;
        process.stopping = false;
        process.wake_at = Timestamp::MAX;
        self.tally.shutdown(now.since_ms(process.stopping_since));
        let incarnation = self.processes[index as usize].incarnation;
        let worker = self.name_of(index, incarnation);
        let held = machine.held_jobs();
        self.tell(&Moment::Ended {
            process: index,
            how: "finished",
        });
        // What is on its way back to the store then arrives; only a store that can be reached is asked for an account.
        let stops = |kind: &FaultKind| {
            matches!(kind, FaultKind::Terminate { .. } | FaultKind::Deploy { .. })
        };
        if self.fault_within(15_000, |kind| troubles_store(kind) && !stops(kind)) {
            return;
        }
        if held > 0 {
            let detail = format!("{worker} has finished and did not hand {held} leases back");
            return self.broken(Violation::new(Invariant::ShutdownInTime, detail));
        }
        let now = self.store_now();
        if let Reply::Stats { stats } = self.store.queue.apply(now, Command::Stats) {
            self.judge(shutdown::handed_back(&worker, &stats));
        }
    }
}
