//! The world: a fleet of real nodes around a real queue, with simulated networks, clocks, Google and graph, driven by one
//! heap of events.
//!
//! Time jumps from event to event. Nothing here waits, and nothing reads a clock or draws entropy: chance comes from
//! sub-streams of the plan's seed, one a name, so that a new use leaves old runs as they were.
//!
//! A run has three parts. While faults last ([`Plan::size`]'s duration), every invariant is watched over. Then the world
//! heals: what was dead starts, what was revoked is connected, nobody changes anything any more; and within a bound that
//! follows from the policies ([`crate::plan::bound`]) everybody must be fresh and every graph equal its calendar. At last
//! all processes are told to stop, and must, with nothing left active.
//!
//! Reading order: this file (the loop), `process.rs` (a machine and its world), `store.rs`, `google.rs` (what is asked of
//! them), `push` (notifications and webhooks), `faults.rs` and `weather.rs` (what goes wrong), `healing.rs` (the end).

mod clock;
mod count;
mod event;
mod faults;
mod google;
pub mod hash;
mod healing;
mod heap;
mod process;
mod push;
mod store;
pub mod trace;
mod watch;
mod weather;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use kalends_core::id::{ScheduleName, UserId};
use kalends_core::node::io::Input;
use kalends_core::queue::command::Command;
use kalends_core::rng::{KalendsRng, Rng, substream, uniform};
use kalends_core::time::{DAY_MS, Timestamp};

use crate::google::{GoogleEmulator, GoogleSettings, QuotaSettings};
use crate::graph::UserGraph;
use crate::invariants::asking::Asking;
use crate::invariants::wakers::Wakers;
use crate::invariants::{Invariant, StoreLedger, Violation};
use crate::legacy::{Service, Shared, SharedRef};
use crate::marks::Marks;
use crate::plan::{FaultKind, Plan, Policy, Span};
use crate::report::{Failed, FailureClass, Report, Tally};

use event::{Address, Event};
use hash::StateHasher;
use heap::Heap;
pub use process::Machine;
use process::Process;
use push::PushWorld;
use store::StoreServer;
use trace::{Moment, Tracer};
use weather::Weather;

/// From one start of a process to the next at the beginning, in milliseconds.
const START_GAP_MS: u64 = 150;
/// How often the world looks at itself, in milliseconds.
const AUDIT_EVERY_MS: u64 = 10_000;
/// By so much a process may misjudge the store's clock in a network that is well, in milliseconds.
const ASKING_SLACK_MS: u64 = 200;

/// The one schedule of the fleet.
#[must_use]
pub fn schedule_name() -> ScheduleName {
    ScheduleName::new("calendar-sync").expect("a constant, valid name")
}

/// The name of a user, counted from 0, as the emulator has it.
#[must_use]
pub fn user_id(number: u32) -> UserId {
    let text = format!("user-{:05}@example.com", u64::from(number) + 1);
    UserId::new(&text).expect("an address is a valid name")
}

/// Plays a plan.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    play(plan, None)
}

/// Plays a plan while `tracer` looks on.
pub fn run_with(plan: &Plan, tracer: &mut dyn Tracer) -> Report {
    play(plan, Some(tracer))
}

/// A panic inside (an assertion of the core, say) is a failure of the class crash; whoever wants no text of it on the
/// standard error sets a panic hook.
fn play<'a>(plan: &'a Plan, tracer: Option<&'a mut dyn Tracer>) -> Report {
    let mut world = World::new(plan, tracer);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run_to_the_end()));
    if let Err(panic) = ended {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "(no message)".to_owned());
        world.broken(Violation::new(Invariant::NoPanic, text));
    }
    world.report()
}

/// The ledger of who was told to slow down: exact, up to messages that were late, while no clock is wrong.
fn asking_of(plan: &Plan) -> Asking {
    let mut late_ms = Some(ASKING_SLACK_MS);
    for fault in &plan.faults {
        match &fault.kind {
            FaultKind::Delay { max_ms } | FaultKind::StoreSlow { max_ms } => {
                late_ms = late_ms.map(|late_ms| late_ms + 2 * u64::from(*max_ms));
            }
            FaultKind::StoreClockStep { .. } => late_ms = None,
            kind if kind.family() == crate::plan::Family::Clock => late_ms = None,
            _ => {}
        }
    }
    Asking::new(plan.size.processes as usize, late_ms)
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Faults,
    /// Everything must become well by then.
    Healing {
        until: Timestamp,
    },
    /// All processes were told to stop; they must be gone by then.
    Ending {
        until: Timestamp,
    },
    Done,
}

/// Everything there is.
struct World<'a> {
    plan: &'a Plan,
    /// What processes that start now are told.
    policy: Policy,
    now: Timestamp,
    heap: Heap<Event>,
    phase: Phase,
    processes: Vec<Process>,
    store: StoreServer,
    google: GoogleEmulator,
    graphs: Vec<UserGraph>,
    /// What the processes share if they are the replaced service's.
    legacy: Option<SharedRef>,
    users: Vec<UserId>,
    grants: Vec<u64>,
    /// When Google last gave each user's sync something, true time.
    read_at: Vec<Timestamp>,
    /// The first so many users are enrolled.
    enrolled: usize,
    /// What operators want and the store did not take yet.
    operators: VecDeque<Command>,
    active: Vec<bool>,
    /// Users of whom something was set aside until then, since when nobody has been synced.
    set_aside_before: BTreeMap<u32, Timestamp>,
    weather: Weather,
    network_rng: KalendsRng,
    google_rng: KalendsRng,
    graph_rng: KalendsRng,
    load_rng: KalendsRng,
    ledger: StoreLedger,
    wakers: Wakers,
    asking: Asking,
    marks: Marks,
    hasher: StateHasher,
    tally: Tally,
    healed_at: Timestamp,
    fresh_at: Option<Timestamp>,
    calendars_rng: KalendsRng,
    /// `None`: nobody watches.
    push: Option<Box<PushWorld>>,
    failed: Option<Failed>,
    tracer: Option<&'a mut dyn Tracer>,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, tracer: Option<&'a mut dyn Tracer>) -> Self {
        plan.check()
            .expect("only a plan that can be played is played");
        let size = &plan.size;
        let start = size.start;
        let users = size.users as usize;
        let mut google =
            GoogleSettings::new(plan.seed, size.users, size.events_per_calendar, start);
        google.calendars_per_user = size.calendars_per_user;
        google.quota = plan
            .climate
            .google_quota
            .map(|(user, project)| QuotaSettings {
                per_user_per_minute: user,
                per_project_per_minute: project,
                ..QuotaSettings::default()
            });
        let waves = plan.faults.iter().filter_map(|fault| match fault.kind {
            FaultKind::EnrolWave { percent } => Some(percent.min(100)),
            _ => None,
        });
        let late = users * waves.max().unwrap_or(0) as usize / 100;
        let mut world = World {
            plan,
            policy: plan.policy.clone(),
            now: start,
            heap: Heap::new(),
            phase: Phase::Faults,
            processes: (0..size.processes).map(|_| Process::new(start)).collect(),
            store: StoreServer::new(),
            google: GoogleEmulator::new(google),
            graphs: vec![UserGraph::default(); users],
            legacy: (plan.service == Service::Legacy).then(|| {
                let shared = Shared::new(plan.seed, size.users, tracer.is_some());
                SharedRef::new(shared.into())
            }),
            users: (0..size.users).map(user_id).collect(),
            grants: vec![1; users],
            read_at: vec![Timestamp::from_ms(i64::MIN); users],
            enrolled: users - late,
            operators: VecDeque::new(),
            active: vec![false; plan.faults.len()],
            set_aside_before: BTreeMap::new(),
            weather: Weather::default(),
            network_rng: substream(plan.seed, "network"),
            google_rng: substream(plan.seed, "google"),
            graph_rng: substream(plan.seed, "graph"),
            load_rng: substream(plan.seed, "load"),
            ledger: StoreLedger::new(users, plan.policy.backoff),
            wakers: Wakers::default(),
            asking: asking_of(plan),
            marks: Marks::default(),
            hasher: StateHasher::default(),
            tally: Tally::default(),
            healed_at: start,
            fresh_at: None,
            calendars_rng: substream(plan.seed, "calendars"),
            push: PushWorld::of(plan),
            failed: None,
            tracer,
        };
        world.plan_all();
        world
    }

    fn plan_all(&mut self) {
        let (plan, start) = (self.plan, self.plan.size.start);
        for (index, fault) in plan.faults.iter().enumerate() {
            let index = u32::try_from(index).expect("few faults");
            let begin = start.plus_ms(fault.at_ms);
            self.heap.push(begin, Event::FaultBegins { index });
            self.heap
                .push(begin.plus_ms(fault.lasting_ms), Event::FaultEnds { index });
        }
        for process in 0..plan.size.processes {
            let at = start.plus_ms(START_GAP_MS * u64::from(process));
            self.heap.push(at, Event::Start { process });
        }
        self.plan_change();
        self.heap.push(start.plus_ms(AUDIT_EVERY_MS), Event::Audit);
        let end = start.plus_ms(plan.size.duration_ms);
        self.heap.push(end, Event::Heal);
        self.marks
            .mark_if(plan.size.calendars_per_user > 1, "many-calendars");
        let zone = &plan.policy.schedule;
        let noon = |at: Timestamp| {
            crate::plan::schedule("0 12 * * *", &zone.time_zone.to_string()).next_after(at)
        };
        let before = noon(start.minus_ms(DAY_MS));
        if let (Some(before), Some(after)) = (before, noon(start.plus_ms(DAY_MS))) {
            let changes = after.since_ms(before) != 2 * DAY_MS;
            self.marks.mark_if(changes, "change-of-clocks");
        }
    }

    fn run_to_the_end(&mut self) {
        while self.phase != Phase::Done && self.failed.is_none() {
            let next = self.heap.pop();
            let (at, event) = next.expect("while the world is not done something is planned");
            assert!(at >= self.now, "time never goes back");
            self.now = at;
            self.tally.events += 1;
            let (kind, number) = event.kind();
            self.hasher.word(at.as_ms().cast_unsigned());
            self.hasher.word(number);
            self.handle(event);
            if let Some(tracer) = &mut self.tracer {
                tracer.event(self.tally.events, at, kind, self.hasher.value());
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Timer { process } => self.timer(process),
            Event::ToStore {
                from,
                command,
                served,
            } => self.at_store(from, command, served),
            Event::ToGoogle { from, request } => self.at_google(from, &request),
            Event::ToGraph { from, write } => self.at_graph(from, *write),
            Event::Back { to, result } => {
                if let Some(result) = self.arrives(to, result) {
                    if push::is_for_webhook(to.id) {
                        return self.webhook_answered(to, *result);
                    }
                    self.hears(to.process, &result);
                    let id = to.id;
                    let result = *result;
                    self.input(to.process, Input::Done { id, result });
                }
            }
            Event::Call {
                process,
                incarnation,
            } => {
                let paused = self.processes[process as usize].paused_at.is_some();
                if !paused {
                    self.called(process, incarnation);
                }
            }
            Event::Operator => self.operate_on(),
            Event::FaultBegins { index } => self.fault_begins(index),
            Event::FaultEnds { index } => self.fault_ends(index),
            Event::Start { process } => self.start_soon(process),
            Event::Stop {
                process,
                deadline_ms,
            } => self.terminate(process, deadline_ms),
            Event::ShutdownDue {
                process,
                incarnation,
            } => self.shutdown_due(process, incarnation),
            Event::Change => self.change(),
            Event::Flood { index } => self.flood_again(index),
            Event::Posted { posted } => self.posted(posted),
            Event::Hear {
                process,
                incarnation,
                posted,
            } => self.hear_late(process, incarnation, posted),
            Event::Listen {
                process,
                incarnation,
            } => self.listen_again(process, incarnation),
            Event::StopDue { from } => self.stop_due(from),
            Event::Forge { index } => self.forge(index),
            Event::TellAgain { index } => self.tell_again(index),
            Event::Audit => self.audit(),
            Event::Heal => self.heal(),
            Event::Check => self.check(),
        }
    }

    /// Starts a process; one that is still on its way out is waited for.
    fn start_soon(&mut self, process: u32) {
        if self.phase != Phase::Faults && self.phase_is_ending() {
            return;
        }
        if self.processes[process as usize].stopping {
            let at = self.now.plus_ms(START_GAP_MS);
            self.heap.push(at, Event::Start { process });
            return;
        }
        self.start(process);
    }

    fn phase_is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Done)
    }

    /// Whether an answer finds the process that asked; one that is paused gets it later.
    fn arrives(
        &mut self,
        to: Address,
        result: Box<kalends_core::node::io::EffectResult>,
    ) -> Option<Box<kalends_core::node::io::EffectResult>> {
        let process = &mut self.processes[to.process as usize];
        if process.incarnation != to.incarnation || process.machine.is_none() {
            return None;
        }
        if process.paused_at.is_some() {
            process.held.push_back(Event::Back { to, result });
            return None;
        }
        Some(result)
    }

    // -- chance ----------------------------------------------------------------------------------------------------

    /// A number in `0..=bound`, from the named sub-stream.
    fn draw(&mut self, stream: &str, bound: u64) -> u64 {
        let rng = match stream {
            "google" => &mut self.google_rng,
            "graph" => &mut self.graph_rng,
            "load" => &mut self.load_rng,
            _ => &mut self.network_rng,
        };
        uniform(rng, bound)
    }

    fn draw_network(&mut self, bound: u64) -> u64 {
        uniform(&mut self.network_rng, bound)
    }

    fn chance(&mut self, ppm: u32) -> bool {
        self.draw_network(999_999) < u64::from(ppm)
    }

    /// A length of time from a span that is small: by multiplication, without the bias mattering.
    fn draw_span(&mut self, span: Span) -> u64 {
        let range = u64::from(span.max_ms - span.min_ms) + 1;
        let drawn = self.network_rng.next_u64() >> 32;
        u64::from(span.min_ms) + ((drawn * range) >> 32)
    }

    /// One way to or from the store, in milliseconds.
    fn store_way_ms(&mut self) -> u64 {
        let mut way_ms = self.draw_span(self.plan.climate.store);
        if self.weather.delay_ms_max > 0 {
            way_ms += self.draw_network(u64::from(self.weather.delay_ms_max));
        }
        way_ms
    }

    fn loses_message(&mut self) -> bool {
        let lost = self.weather.loss_ppm > 0 && self.chance(self.weather.loss_ppm);
        self.marks.mark_if(lost, "message-lost");
        lost
    }

    fn doubles(&mut self) -> bool {
        let doubled = self.weather.duplicate_ppm > 0 && self.chance(self.weather.duplicate_ppm);
        self.marks.mark_if(doubled, "message-doubled");
        doubled
    }

    fn is_cut(&mut self, cut: u64, process: u32, mark: &str) -> bool {
        let is_cut = cut >> process & 1 == 1;
        self.marks.mark_if(is_cut, mark);
        is_cut
    }

    // -- load ------------------------------------------------------------------------------------------------------

    fn plan_change(&mut self) {
        let changes = u64::from(self.plan.climate.changes_a_day);
        if let Some(mean_ms) = DAY_MS.checked_div(changes) {
            let wait_ms = self.draw("load", 2 * mean_ms);
            self.heap.push(self.now.plus_ms(wait_ms), Event::Change);
        }
    }

    fn change(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let number = self.draw("load", self.users.len() as u64 - 1);
        let user = self.users[usize::try_from(number).expect("below the length")].clone();
        let others = u64::from(self.plan.size.calendars_per_user) - 1;
        let calendar = if others == 0 {
            0
        } else {
            uniform(&mut self.calendars_rng, others)
        };
        let calendar = u32::try_from(calendar).expect("few calendars");
        let (now, name) = (self.now, user.as_str());
        let change = self
            .google
            .random_change_in(now, name, calendar, &mut self.load_rng);
        let change = change.expect("a user of the emulator");
        let calendar = self.google.calendar_by_number(name, calendar);
        let calendar = calendar.expect("a calendar of the emulator");
        self.google
            .apply_in(now, name, &calendar, &change)
            .expect("a change that was drawn is possible");
        self.changed(u32::try_from(number).expect("few users"));
        self.plan_change();
    }

    // -- what is told ----------------------------------------------------------------------------------------------

    fn tell(&mut self, moment: &Moment<'_>) {
        if let Some(tracer) = &mut self.tracer {
            tracer.moment(self.now, moment);
        }
    }

    /// A sentence was broken: the run ends here.
    fn broken(&mut self, violation: Violation) {
        if self.failed.is_some() {
            return;
        }
        let class = match violation.invariant {
            Invariant::NoPanic => FailureClass::Crash,
            Invariant::Convergence => FailureClass::Liveness,
            Invariant::SameHash => FailureClass::Nondeterminism,
            _ => FailureClass::Safety,
        };
        self.failed = Some(Failed {
            class,
            violation,
            at: self.now,
            event: self.tally.events,
        });
    }

    fn report(self) -> Report {
        let mut tally = self.tally;
        if let Some(shared) = &self.legacy {
            tally.take_legacy(&shared.borrow().tally);
        }
        tally.simulated_ms = self.now.since_ms(self.plan.size.start);
        let fresh_ms = self.fresh_at.map(|at| at.since_ms(self.healed_at));
        let healed_ms = self.now.since_ms(self.healed_at);
        Report {
            seed: self.plan.seed,
            fresh_ms,
            healed_ms: (self.phase == Phase::Done).then_some(healed_ms),
            failed: self.failed,
            unseed: self.hasher.value(),
            marks: self.marks,
            tally,
        }
    }
}
