//! Ticks: which one is due, what was missed, and one command that makes it exactly once over all processes.
//!
//! A tick follows from the stored last tick and the definition alone, never from a chain of "next" ones: whoever comes
//! first records it, the others hear where the schedule stands now.

use serde::{Deserialize, Serialize};

use super::io::Notice;
use super::link::Purpose;
use super::{Node, SCHEDULES_REFRESH_MS};
use crate::id::{ScheduleName, SourceName};
use crate::mutant::{Mutant, planted};
use crate::queue::command::{Command, Reply};
use crate::queue::state::ScheduleState;
use crate::time::{MINUTE_MS, Timestamp};

/// After a tick that the store did not accept, the next try comes this much later, in milliseconds.
const TICK_RETRY_MS: u64 = 250;
/// The period assumed for a source without a schedule, in milliseconds.
const PERIOD_MS_DEFAULT: u64 = 15 * MINUTE_MS;

/// A schedule as this node last heard of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TickView {
    pub(super) state: ScheduleState,
    pub(super) in_flight: bool,
    /// The next tick, in store time; `None` if there is none for years.
    next_at: Option<Timestamp>,
    /// Not to be tried before this, on the driver's clock.
    not_before: Timestamp,
    /// The last question for the tick after a nominal time, and its answer: all users of one tick ask the same.
    asked: Option<(Timestamp, Option<Timestamp>)>,
}

impl TickView {
    fn new(state: ScheduleState) -> Self {
        let next_at = state.definition.next_after(state.last_tick_at);
        TickView {
            state,
            in_flight: false,
            next_at,
            not_before: Timestamp::from_ms(i64::MIN),
            asked: None,
        }
    }

    fn update(&mut self, state: ScheduleState) {
        if state != self.state {
            self.next_at = state.definition.next_after(state.last_tick_at);
            self.state = state;
            self.asked = None;
        }
    }

    fn next_after(&mut self, nominal: Timestamp) -> Option<Timestamp> {
        match self.asked {
            Some((asked, answer)) if asked == nominal => answer,
            _ => {
                let answer = self.state.definition.next_after(nominal);
                self.asked = Some((nominal, answer));
                answer
            }
        }
    }
}

impl Node {
    pub(super) fn send_refresh(&mut self, now: Timestamp) {
        if now >= self.refresh_at && !self.refreshing {
            self.refreshing = true;
            self.refresh_at = now.plus_ms(SCHEDULES_REFRESH_MS);
            self.send_store(now, Purpose::Refresh, Command::Schedules);
            self.send_probes(now);
        }
    }

    pub(super) fn ticks_refreshed(&mut self, schedules: Vec<(ScheduleName, ScheduleState)>) {
        self.ticks
            .retain(|name, _| schedules.iter().any(|(stored, _)| stored == name));
        for (name, state) in schedules {
            self.tick_state(name, state);
        }
    }

    fn tick_state(&mut self, name: ScheduleName, state: ScheduleState) {
        if let Some(view) = self.ticks.get_mut(&name) {
            view.update(state);
            return;
        }
        let view = TickView::new(state);
        if view.next_at.is_none() {
            self.notice(Notice::ScheduleNeverFires {
                schedule: name.clone(),
            });
        }
        self.ticks.insert(name, view);
    }

    /// The gap between ticks of `source` around `at`, in milliseconds.
    pub(super) fn period_ms(&self, source: &SourceName, at: Timestamp) -> u64 {
        let views = self
            .ticks
            .values()
            .filter(|view| view.state.definition.source == *source);
        views
            .filter_map(|view| view.state.definition.period_ms(at))
            .min()
            .unwrap_or(PERIOD_MS_DEFAULT)
    }

    /// From a schedule's tick to its next one, in milliseconds: what a fan-out has room for.
    pub(super) fn room_ms(&self, schedule: &ScheduleName, tick: Timestamp) -> u64 {
        let next = self
            .ticks
            .get(schedule)
            .and_then(|view| view.state.definition.next_after(tick));
        next.map_or(PERIOD_MS_DEFAULT, |next| next.since_ms(tick))
    }

    /// When a user of `source` is due after `nominal`: at the next tick after it. Measured from the nominal time, never
    /// from when the sync really ran, so that every 15 minutes means 96 a day.
    pub(super) fn next_due(
        &mut self,
        source: &SourceName,
        nominal: Timestamp,
    ) -> Option<Timestamp> {
        let views = self
            .ticks
            .values_mut()
            .filter(|view| view.state.definition.source == *source);
        views.filter_map(|view| view.next_after(nominal)).min()
    }

    /// When the next tick is to be tried, on the driver's clock.
    pub(super) fn next_tick_at(&self) -> Option<Timestamp> {
        if self.settings.fan_out_slots == 0 {
            return None;
        }
        let waiting = self.ticks.values().filter(|view| !view.in_flight);
        waiting
            .filter_map(|view| Some(self.link.local_time(view.next_at?).max(view.not_before)))
            .min()
    }

    pub(super) fn send_ticks(&mut self, now: Timestamp) {
        let store_now = self.link.store_time(now);
        let late_ms = self.settings.late_tick_ms;
        let mut commands = Vec::new();
        for (schedule, view) in &mut self.ticks {
            let due = view.next_at.is_some_and(|next_at| next_at <= store_now);
            if !due || view.in_flight || now < view.not_before {
                continue;
            }
            let definition = &view.state.definition;
            let after = view.state.last_tick_at;
            let plan = definition.catch_up(after, store_now, late_ms);
            let fire = plan.fire.first().copied();
            // With nothing to fire, the newest of the missed ticks is recorded.
            let at = fire.or_else(|| definition.previous_at_or_before(store_now));
            let at = at.expect("a tick is due, so there is one at or before now");
            view.in_flight = true;
            // The plan counts late ticks whether they fire or not; only those that do not are skipped for good.
            let late = |tick: &&Timestamp| store_now.since_ms(**tick) > late_ms;
            let missed = plan
                .missed
                .saturating_sub(plan.fire.iter().filter(late).count() as u64);
            let missed = if planted(Mutant::MissedNotCounted) {
                0
            } else {
                missed
            };
            let fire = fire.is_some();
            let purpose = Purpose::Tick {
                schedule: schedule.clone(),
                at,
                fire,
                missed,
            };
            let revision = view.state.revision;
            let schedule = schedule.clone();
            commands.push((
                purpose,
                Command::Tick {
                    schedule,
                    revision,
                    after,
                    at,
                    missed,
                    fire,
                },
            ));
        }
        for (purpose, command) in commands {
            self.send_store(now, purpose, command);
        }
    }

    pub(super) fn tick_answered(
        &mut self,
        now: Timestamp,
        schedule: ScheduleName,
        at: Timestamp,
        fire: bool,
        missed: u64,
        reply: Reply,
    ) {
        if let Some(view) = self.ticks.get_mut(&schedule) {
            view.in_flight = false;
        }
        match reply {
            Reply::Fired { state } => {
                self.tick_state(schedule.clone(), state);
                if missed > 0 {
                    self.notice(Notice::TicksMissed {
                        schedule: schedule.clone(),
                        count: missed,
                    });
                }
                if fire {
                    self.notice(Notice::TickFired { schedule, at });
                    self.claim.soon(now);
                }
            }
            Reply::AlreadyFired { state: Some(state) } => {
                self.tick_state(schedule.clone(), state);
                if let Some(view) = self.ticks.get_mut(&schedule) {
                    view.not_before = now.plus_ms(TICK_RETRY_MS);
                }
            }
            Reply::AlreadyFired { state: None } => {
                self.ticks.remove(&schedule);
                // Somebody removed it, or the store was emptied.
                self.refresh_at = self.refresh_at.min(now);
            }
            other => {
                self.expect_accepted("a tick", &other);
                if let Some(view) = self.ticks.get_mut(&schedule) {
                    view.not_before = now.plus_ms(TICK_RETRY_MS);
                }
            }
        }
    }
}
