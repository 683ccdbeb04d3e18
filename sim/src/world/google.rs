//! Google and the graph, as the fleet's requests reach them.

use kalends_core::failure::Failure;
use kalends_core::google::page::{FetchReply, PageEnd};
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::server_failure::{DatabaseLayout, failure_of_error};
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::CalendarId;
use kalends_core::node::io::EffectResult;

use super::World;
use super::event::{Address, Event};
use super::faults::POISON;
use super::trace::Moment;
use super::weather::google_fault;
use crate::google::Fault as GoogleFault;
use crate::invariants::graph::Before;
use crate::invariants::user_number;
use crate::plan::{Mishap, OutageKind};

/// After a process died of a poisonous job another one starts so much later, in milliseconds.
const RESTART_MS: u64 = 2_000;

impl World<'_> {
    pub(super) fn send_to_google(&mut self, from: Address, request: Box<FetchRequest>) {
        if self.is_cut(self.weather.cut_google, from.process, "partition-google") {
            return;
        }
        let span = self.plan.climate.google;
        let at = self.now.plus_ms(self.draw_span(span) / 2);
        self.heap.push(at, Event::ToGoogle { from, request });
    }

    pub(super) fn at_google(&mut self, from: Address, request: &FetchRequest) {
        let user = user_number(request.user()).expect("a user of the emulator");
        self.tally.fetched(self.now.since_ms(self.plan.size.start));
        if self.weather.poison_users.contains(&user) {
            let alive = self.processes[from.process as usize].incarnation == from.incarnation;
            if alive {
                self.marks.mark("poison-user-killed");
                self.kill(from.process, "poisoned");
                let at = self.now.plus_ms(RESTART_MS);
                self.heap.push(
                    at,
                    Event::Start {
                        process: from.process,
                    },
                );
            }
            return;
        }
        if self.weather.google == Some(OutageKind::Silent) {
            return self.marks.mark("google-refused");
        }
        self.spoil(request);
        let channels = self.channels_before(request);
        let process = &mut self.processes[from.process as usize];
        process.google.clock_ms = process.clock.local(self.now).as_ms() - self.now.as_ms();
        let result = process.google.fetch(&mut self.google, self.now, request);
        if let Err(failure) = &result {
            use kalends_core::failure::FailureKind;
            match &failure.kind {
                FailureKind::Limited {
                    retry_after_ms: Some(_),
                    ..
                } => self.marks.mark("google-retry-after"),
                FailureKind::Gone { .. } => self.marks.mark("token-gone"),
                FailureKind::Unauthorized => self.marks.mark("google-unauthorized"),
                _ => {}
            }
        }
        if let Ok(FetchReply::Events(page)) = &result {
            self.marks
                .mark_if(!page.unreadable.is_empty(), "event-unreadable");
            let empty = page.events.is_empty() && matches!(page.end, PageEnd::Next(_));
            self.marks.mark_if(empty, "page-empty");
            self.read_at[user as usize] = self.now;
        }
        self.watch_channels(request, &channels, result.is_err());
        self.tell(&Moment::Fetched {
            process: from.process,
            request,
            result: &result,
        });
        if self.is_cut(self.weather.cut_google, from.process, "partition-google") {
            return;
        }
        let mut back_ms = self.draw_span(self.plan.climate.google) / 2;
        if self.weather.google_slow_ms_max > 0 {
            back_ms += self.draw("google", u64::from(self.weather.google_slow_ms_max));
        }
        let result = Box::new(EffectResult::Fetch(result));
        self.heap
            .push(self.now.plus_ms(back_ms), Event::Back { to: from, result });
    }

    /// Orders the misfortune that befalls this request, if any does.
    fn spoil(&mut self, request: &FetchRequest) {
        let fault = match self.weather.google {
            Some(OutageKind::Refusing) => Some(GoogleFault::Html { status: 503 }),
            Some(_) => Some(GoogleFault::LostRequest),
            None => self.weather.google_limited.clone(),
        };
        if fault.is_none() && self.loses_watch(request) {
            return self.order(request, GoogleFault::LostAnswer);
        }
        if let Some(fault) = fault {
            self.marks
                .mark_if(self.weather.google.is_some(), "google-refused");
            self.order(request, fault);
            return;
        }
        let user = user_number(request.user()).expect("a user of the emulator");
        if matches!(request, FetchRequest::Events { .. }) && self.weather.unreadable.contains(&user)
        {
            self.order(request, GoogleFault::UnreadableItem);
            return;
        }
        for place in 0..self.weather.mishaps.len() {
            let (mishap, ppm) = self.weather.mishaps[place];
            if self.draw("google", 999_999) >= u64::from(ppm) {
                continue;
            }
            match mishap {
                Mishap::CutBody => self.marks.mark("body-cut"),
                Mishap::MalformedJson => self.marks.mark("body-malformed"),
                Mishap::NoSyncToken => self.marks.mark("token-withheld"),
                _ => {}
            }
            self.order(request, google_fault(mishap));
            return;
        }
    }

    fn order(&mut self, request: &FetchRequest, fault: GoogleFault) {
        let user = match fault {
            GoogleFault::Token { .. } => None,
            _ => Some(request.user().as_str()),
        };
        // What an earlier order left behind would fall on a request that nobody meant.
        self.google.clear_faults();
        self.google
            .inject(user, fault)
            .expect("a user of the emulator");
    }

    // -- the graph -------------------------------------------------------------------------------------------------

    pub(super) fn send_to_graph(&mut self, from: Address, write: Box<GraphWrite>) {
        if self.is_cut(self.weather.cut_graph, from.process, "partition-graph") {
            return;
        }
        let mut there_ms = self.draw_span(self.plan.climate.graph) / 2;
        if self.weather.graph_slow_ms_max > 0 {
            there_ms += self.draw("graph", u64::from(self.weather.graph_slow_ms_max));
        }
        self.heap
            .push(self.now.plus_ms(there_ms), Event::ToGraph { from, write });
    }

    pub(super) fn at_graph(&mut self, from: Address, write: GraphWrite) {
        self.tally.graph_writes += 1;
        let user = write.user().clone();
        let Some(result) = self.write(write) else {
            return;
        };
        self.tell(&Moment::Wrote {
            process: from.process,
            user: &user,
            result: &result,
        });
        if self.is_cut(self.weather.cut_graph, from.process, "partition-graph") {
            return;
        }
        let at = self
            .now
            .plus_ms(self.draw_span(self.plan.climate.graph) / 2);
        let result = Box::new(EffectResult::Graph(result));
        self.heap.push(at, Event::Back { to: from, result });
    }

    /// What the graph makes of a write; `None`: no answer.
    fn write(&mut self, write: GraphWrite) -> Option<Result<GraphReply, Failure>> {
        let error = |code| Some(Err(failure_of_error(code, DatabaseLayout::Shared)));
        match self.weather.graph {
            Some(OutageKind::Silent) => return None,
            Some(OutageKind::Refusing) => {
                return Some(Err(Failure::transient("Neo4j cannot be reached")));
            }
            Some(OutageKind::Breaking) => {
                return Some(Err(Failure::transient(
                    "Neo4j broke off in the middle of an answer",
                )));
            }
            None => {}
        }
        if self.weather.graph_misconfigured {
            self.marks.mark("graph-misconfigured");
            return error("Neo.ClientError.Security.Unauthorized");
        }
        let user = user_number(write.user()).expect("a user of the emulator");
        let has_events = matches!(&write, GraphWrite::Apply { upserts, .. } if !upserts.is_empty());
        if has_events && self.weather.graph_rejects.contains(&user) {
            self.marks.mark("graph-rejected");
            return error("Neo.ClientError.Statement.TypeError");
        }
        if self.weather.graph_poisoned.contains(&user) && holds_poison(&write) {
            self.marks.mark("event-poisoned");
            return error("Neo.ClientError.Statement.TypeError");
        }
        if self.weather.graph_transient_ppm > 0
            && self.draw("graph", 999_999) < u64::from(self.weather.graph_transient_ppm)
        {
            self.marks.mark("graph-transient");
            return error("Neo.TransientError.Transaction.DeadlockDetected");
        }
        let removable = self.before_removal(user, &write);
        let graph = &mut self.graphs[user as usize];
        let before = Before::of(graph, &write);
        let calendar: CalendarId = match &write {
            GraphWrite::Apply { calendar, .. } => calendar.id.clone(),
            GraphWrite::Spare { calendar, .. }
            | GraphWrite::Sweep { calendar, .. }
            | GraphWrite::RemoveCalendar { calendar, .. } => calendar.clone(),
        };
        let reply = graph.write(write);
        let verdict = before.check(graph, &calendar, &reply);
        self.hasher.word(graph.fence());
        self.hasher.word(graph.events() as u64);
        if let Err(violation) = verdict {
            self.broken(violation);
        }
        self.watch_removal(user, &removable);
        self.marks
            .mark_if(reply == GraphReply::Fenced, "graph-fenced");
        if self.weather.graph_lost_ppm > 0
            && self.draw("graph", 999_999) < u64::from(self.weather.graph_lost_ppm)
        {
            self.marks.mark("graph-reply-lost");
            return Some(Err(Failure::transient(
                "Neo4j broke off in the middle of an answer",
            )));
        }
        Some(Ok(reply))
    }
}

/// Whether the graph chokes on an event of this write.
fn holds_poison(write: &GraphWrite) -> bool {
    let GraphWrite::Apply { upserts, .. } = write else {
        return false;
    };
    let mut names = upserts.iter().filter_map(|row| row.name.as_deref());
    names.any(|name| name.starts_with(POISON))
}
