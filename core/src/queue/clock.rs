//! A clock that steps back must not freeze the queue.
//!
//! Leases and gates are bounded from now. If the store's clock steps back by more than a second (a failover to a
//! machine whose clock is behind), those that would last longer than they ever may are shortened to their bound.
//! Tokens do not care: they only grow. Starts and requests that now lie in the future count from now on, so a limit
//! shuts for one window at the most. A user's requests that had all left the window by then, wobble included, do not come
//! back into it: they may have been forgotten already.

use super::rows::UserKey;
use super::state::JobKey;
use super::{GATE_MS_MAX, Queue};
use crate::time::{MINUTE_MS, Timestamp};

/// A clock this much behind is taken for ordinary wobble, in milliseconds.
pub(super) const WOBBLE_MS: u64 = 1_000;
/// A clock further behind was wrong before, in milliseconds: what it had put far into the future comes nearer. For less,
/// ticks and jobs just wait until it has caught up, and no tick fires twice.
const WRONG_MS: u64 = 15 * MINUTE_MS;

impl Queue {
    /// Moves what lies ahead of a clock that was wrong to where it would be by the right one.
    fn bring_nearer(&mut self, now: Timestamp, step_ms: u64) {
        let nearer = |at: &mut Timestamp| {
            if *at > now {
                *at = at.minus_ms(step_ms).max(now);
            }
        };
        let schedules: Vec<_> = self
            .schedules
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        for schedule in schedules {
            self.schedules.edit(&schedule, |row| {
                row.state.last_tick_at = row.state.last_tick_at.min(now);
            });
        }
        let users: Vec<UserKey> = self.users.iter().map(|(key, _)| key.clone()).collect();
        for user in users {
            self.edit_user(&user, |row| nearer(&mut row.state.due_at));
        }
        let jobs: Vec<JobKey> = self.jobs.iter().map(|(key, _)| key.clone()).collect();
        for job in jobs {
            self.edit_job(&job, |row| {
                nearer(&mut row.wish.run_at);
                if let Some(rerun) = &mut row.rerun {
                    nearer(&mut rerun.run_at);
                }
            });
        }
    }

    /// Shortens what the clock's step back has lengthened.
    pub(super) fn mind_the_clock(&mut self, now: Timestamp) {
        let step_ms = self.meta().changed_at.since_ms(now);
        if step_ms <= WOBBLE_MS {
            return;
        }
        if step_ms > WRONG_MS {
            self.bring_nearer(now, step_ms);
        }
        let gate_max = now.plus_ms(GATE_MS_MAX);
        let too_far = |gate: Option<Timestamp>| gate.is_some_and(|until| until > gate_max);
        let jobs: Vec<JobKey> = self
            .jobs
            .iter()
            .filter(|(_, row)| {
                let active = row.active.as_ref();
                row.held_until.is_some()
                    || active.is_some_and(|lease| lease.expires_at > now.plus_ms(lease.lease_ms))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in jobs {
            self.edit_job(&key, |row| {
                row.held_until = None;
                if let Some(lease) = &mut row.active {
                    lease.expires_at = lease.expires_at.min(now.plus_ms(lease.lease_ms));
                }
            });
        }
        let users: Vec<UserKey> = self
            .users
            .iter()
            .filter(|(_, row)| too_far(row.state.gate_until))
            .map(|(key, _)| key.clone())
            .collect();
        for key in users {
            self.edit_user(&key, |row| row.state.gate_until = Some(gate_max));
        }
        let sources: Vec<_> = self.sources.iter().map(|(name, _)| name.clone()).collect();
        for source in sources {
            let row = self.sources.get(&source).expect("it was listed");
            let gate = row.gate_until;
            if too_far(gate) {
                self.sources
                    .edit(&source, |row| row.gate_until = Some(gate_max));
            }
            let since_max = gate.map_or(now, |until| until.min(gate_max).max(now));
            let mut flow = self.flow(&source);
            if let Some(ramp) = &mut flow.ramp {
                ramp.since = ramp.since.min(since_max);
            }
            flow.starts.restamp(now);
            flow.requests.restamp(now);
            self.flows.insert(&source, flow);
        }
        self.restamp_user_flows(now);
        self.edit_meta(|meta| meta.changed_at = now);
    }
}
