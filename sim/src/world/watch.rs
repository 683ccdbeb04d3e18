//! Sentences that need more than the store's commands: what Google was asked, what runs in a process, what else was wrong.
//!
//! - a sync that is called a success has read its calendar (D22)
//! - no more runs in a process than it has slots (C14)
//! - no lease runs out while nothing is wrong with processes, clocks and the way to the store (C12)
//! - after a downtime one tick fires, if the schedule says so (B6)
//! - nothing that Google still has is removed from a graph (F38)

use kalends_core::graph::GraphWrite;
use kalends_core::id::CalendarId;
use kalends_core::node::FAN_OUT_SLOTS;
use kalends_core::policy::catch_up::CatchUp;
use kalends_core::queue::command::Reply;
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::World;
use crate::invariants::promises::Asked;
use crate::invariants::{Invariant, Violation};
use crate::plan::{Family, FaultKind};

/// After a fault leases may run out for so long beyond their own length, in milliseconds: outages are waited for.
const LEASE_TROUBLE_MS: u64 = 2 * MINUTE_MS;
/// A tick that fires is not older than this if there is a newer one, in milliseconds: on time is a minute, and a slow
/// store adds to it.
const TICK_OLD_MS: u64 = 3 * MINUTE_MS;
/// So long after a clock was wrong ticks are judged again, in milliseconds.
const CLOCK_TROUBLE_MS: u64 = 10 * MINUTE_MS;
/// No outage that is drawn lasts longer, with what follows it, in milliseconds.
const OUTAGE_MS_MAX: u64 = 130 * MINUTE_MS;

/// Whether a fault is one of processes, clocks, or the way to the store. Calls that are lost are none: there is a poll.
pub(super) fn troubles_store(kind: &FaultKind) -> bool {
    match kind.family() {
        Family::Process | Family::Store | Family::Clock | Family::Emptied => true,
        Family::Network => !matches!(kind, FaultKind::WakeLoss { .. }),
        Family::Google
        | Family::Graph
        | Family::Load
        | Family::Operator
        | Family::Content
        | Family::Sharing
        | Family::Push => false,
    }
}

impl World<'_> {
    /// Whether a fault that matters lasts, or has ended within so many milliseconds.
    pub(super) fn fault_within(&self, ms: u64, matters: impl Fn(&FaultKind) -> bool) -> bool {
        let since_start_ms = self.now.since_ms(self.plan.size.start);
        self.plan.faults.iter().any(|fault| {
            let ended_ms = fault.at_ms + fault.lasting_ms;
            fault.at_ms <= since_start_ms && since_start_ms < ended_ms + ms && matters(&fault.kind)
        })
    }

    /// The store has answered.
    pub(super) fn watch_reply(&mut self, asked: Asked, now: Timestamp, reply: &Reply) {
        match (asked, reply) {
            (
                _,
                Reply::Claimed {
                    recovered, buried, ..
                },
            ) if recovered + buried > 0 => {
                let ms = self.policy.lease_ms + LEASE_TROUBLE_MS;
                if !self.fault_within(ms, troubles_store) {
                    let count = recovered + buried;
                    self.broken(Violation::new(
                        Invariant::LeasesKept,
                        format!("{count} leases ran out although nothing was wrong with whoever held them"),
                    ));
                }
            }
            (Asked::Tick { at, fire: true }, Reply::Fired { state }) => {
                let definition = &state.definition;
                let is_once = definition.catch_up == CatchUp::Once;
                let next = definition.next_after(at);
                let old = next.is_some_and(|next| next.plus_ms(TICK_OLD_MS) <= now);
                let is_clock = |kind: &FaultKind| {
                    kind.family() == Family::Clock
                        || matches!(kind, FaultKind::StoreClockStep { .. })
                };
                // A clock that stood still is wrong until the store answers, which an outage may put off.
                let cut_off = self.fault_within(CLOCK_TROUBLE_MS, troubles_store)
                    && self.fault_within(OUTAGE_MS_MAX, is_clock);
                let excused = cut_off || self.fault_within(CLOCK_TROUBLE_MS, is_clock);
                if is_once && old && !excused {
                    self.broken(Violation::new(
                        Invariant::TicksExactlyOnce,
                        format!("the tick {at} fires at {now}, although newer ones have come and one is wanted"),
                    ));
                }
            }
            _ => {}
        }
        if let Some(user) = self.ledger.last.synced {
            let claimed_at = self.ledger.last.claimed_at;
            let begun_at = claimed_at.expect("a sync that succeeded had a lease");
            let read_at = self.read_at[user as usize];
            if read_at < begun_at {
                self.broken(Violation::new(
                    Invariant::SuccessIsReal,
                    format!(
                        "the sync of {} that began at {begun_at} is called a success, and Google gave it nothing",
                        self.users[user as usize]
                    ),
                ));
            }
        }
    }

    /// A job began in a process.
    pub(super) fn watch_slots(&mut self, process: u32) {
        let machine = self.processes[process as usize].machine.as_ref();
        let running = machine.map_or(0, |machine| machine.running_jobs());
        let slots = self.policy.concurrency + FAN_OUT_SLOTS;
        if running > slots as usize {
            self.broken(Violation::new(
                Invariant::SlotsHold,
                format!("{running} jobs run in process {process}, which has {slots} slots"),
            ));
        }
    }

    /// What stands in a graph before a write that may remove much of the user's own calendar. (Others come and go with
    /// their owners, who are asked nothing here; what is left of them is compared at the end.)
    pub(super) fn before_removal(&self, user: u32, write: &GraphWrite) -> Vec<(String, i64)> {
        match write {
            GraphWrite::Sweep { calendar, .. } | GraphWrite::RemoveCalendar { calendar, .. }
                if calendar.as_str() == "primary" =>
            {
                self.graphs[user as usize].versions(calendar)
            }
            _ => Vec::new(),
        }
    }

    /// Of what stood in the graph of a user only that may be gone which Google has no more, or has otherwise.
    pub(super) fn watch_removal(&mut self, user: u32, before: &[(String, i64)]) {
        if before.is_empty() {
            return;
        }
        let graph = &self.graphs[user as usize];
        let name = self.users[user as usize].as_str();
        let primary = CalendarId::new("primary").expect("a constant, valid name");
        let gone = before
            .iter()
            .filter(|(id, _)| graph.version(&primary, id).is_none());
        let gone: Vec<&(String, i64)> = gone.collect();
        if gone.is_empty() {
            return;
        }
        let truth = self.google.calendar_truth(name, "primary");
        let truth = truth.expect("a user of the emulator");
        let version =
            |etag: Option<String>| etag.and_then(|etag| etag.trim_matches('"').parse().ok());
        let wiped = truth
            .filter_map(|event| Some((event.id, version(event.etag)?)))
            .find(|event| gone.contains(&event));
        if let Some((id, _)) = wiped {
            let detail =
                format!("{id} was removed from the graph of {name}, and Google has it unchanged");
            self.broken(Violation::new(Invariant::NothingWiped, detail));
        }
    }
}
