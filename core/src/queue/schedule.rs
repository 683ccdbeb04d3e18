//! Schedules and ticks: a tick is a row that one command moves, so it fires exactly once over all processes.
//!
//! There is no leader and no chain from tick to tick. Whoever sees that a tick is due says "from the last one to this
//! one"; the first to say so wins, and the fan-out is enqueued in the same step.

use super::command::{Priority, Refusal, Reply};
use super::rows::{ScheduleRow, UserKey, Wish};
use super::state::{JobKey, ScheduleState};
use super::{Queue, SCHEDULES_MAX};
use crate::id::{ScheduleName, SourceName};
use crate::mutant::{Mutant, planted};
use crate::policy::schedule::ScheduleDefinition;
use crate::time::Timestamp;

/// A tick, as reported.
pub(super) struct Tick {
    pub(super) schedule: ScheduleName,
    pub(super) revision: u64,
    pub(super) after: Timestamp,
    pub(super) at: Timestamp,
    pub(super) missed: u64,
    pub(super) fire: bool,
}

impl Queue {
    /// Nobody waits for a tick of the old pattern (a year, after a slip of the pen) when there is a new one. Who is
    /// parked waits for none: connecting again sets when such a user is due.
    fn due_by_latest(&mut self, source: &SourceName, latest: Timestamp) {
        let Some(index) = self.index.sources.get(source) else {
            return;
        };
        let by_due = index.due.iter().rev();
        let later = by_due.take_while(|(due_at, _)| *due_at > latest);
        let users: Vec<UserKey> = later
            .map(|(_, user)| (source.clone(), user.clone()))
            .collect();
        for user in users {
            self.edit_user(&user, |row| row.state.due_at = latest);
        }
    }

    pub(super) fn define_schedule(
        &mut self,
        now: Timestamp,
        schedule: &ScheduleName,
        definition: ScheduleDefinition,
    ) -> Result<Reply, Refusal> {
        self.check_source(&definition.source)?;
        match self.schedules.get(schedule) {
            Some(row) if row.state.definition == definition => {}
            Some(_) => {
                if let Some(first) = definition.next_after(now) {
                    self.due_by_latest(&definition.source, first);
                }
                self.schedules.edit(schedule, |row| {
                    row.state.definition = definition;
                    row.state.revision += 1;
                });
            }
            None => {
                if self.schedules.len() >= SCHEDULES_MAX {
                    return Err(Refusal::TooLarge {
                        what: format!("there are {SCHEDULES_MAX} schedules already; remove one"),
                    });
                }
                let state = ScheduleState {
                    definition,
                    revision: 1,
                    last_tick_at: now,
                    fired: 0,
                    missed: 0,
                };
                let row = ScheduleRow {
                    state,
                    finished: None,
                };
                self.schedules.insert(schedule, row);
            }
        }
        let row = self.schedules.get(schedule).expect("it is defined");
        Ok(Reply::Schedule {
            state: row.state.clone(),
        })
    }

    pub(super) fn remove_schedule(&mut self, schedule: ScheduleName) -> Reply {
        self.schedules.remove(&schedule);
        self.remove_job(&JobKey::FanOut { schedule });
        Reply::Done
    }

    pub(super) fn tick(&mut self, now: Timestamp, tick: Tick) -> Result<Reply, Refusal> {
        let Tick { at, after, .. } = tick;
        if at <= after || at > now {
            let what = format!("the tick {at} must be later than {after} and not later than {now}");
            return Err(Refusal::Invalid { what });
        }
        let Some(row) = self.schedules.get(&tick.schedule) else {
            return Ok(Reply::AlreadyFired { state: None });
        };
        let is_next = row.state.last_tick_at == after || planted(Mutant::TickTwice);
        if row.state.revision != tick.revision || !is_next {
            return Ok(Reply::AlreadyFired {
                state: Some(row.state.clone()),
            });
        }
        let state = self.schedules.edit(&tick.schedule, |row| {
            row.state.last_tick_at = at;
            row.state.missed = row.state.missed.saturating_add(tick.missed);
            row.state.fired += u64::from(tick.fire);
            row.state.clone()
        });
        if tick.fire {
            let wish = Wish {
                run_at: now,
                priority: Priority::Scheduled,
                nominal_at: Some(at),
            };
            let schedule = tick.schedule;
            self.want(&JobKey::FanOut { schedule }, wish, false);
        }
        let state = state.expect("it was just read");
        Ok(Reply::Fired { state })
    }

    pub(super) fn list_schedules(&self) -> Reply {
        let schedules = self.schedules.iter();
        Reply::Schedules {
            schedules: schedules
                .map(|(name, row)| (name.clone(), row.state.clone()))
                .collect(),
        }
    }
}
