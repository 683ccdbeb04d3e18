//! Times as every store keeps them: a command's are brought within [`TIME_MS_MAX`] before it is applied.
//!
//! A store that counts in floating point keeps whole numbers exactly up to 2^53 - 1 only, and the distance of two times
//! is to be such a number, too. No calendar reaches that far, but a hostile date or an overflow may; with the same bound
//! everywhere all stores still answer alike.

use super::command::{Command, TIME_MS_MAX};
use crate::time::Timestamp;

impl Command {
    /// The command with each of its times brought within [`TIME_MS_MAX`] on either side of 1970.
    /// [`Queue::apply`](super::Queue::apply) does so by itself; a store that is not built on it has to.
    #[must_use]
    pub fn with_times_kept(mut self) -> Self {
        self.keep_times();
        self
    }

    /// As [`Command::with_times_kept`], in place: a command is large to move.
    pub(super) fn keep_times(&mut self) {
        match self {
            Command::Tick { after, at, .. } => {
                keep(after);
                keep(at);
            }
            Command::Enqueue { jobs, .. } => {
                for job in jobs {
                    keep(&mut job.run_at);
                    job.nominal_at.as_mut().map(keep);
                }
            }
            Command::Complete { commit, .. } => {
                commit.next_due_at.as_mut().map(keep);
            }
            Command::Retry { at, .. } => keep(at),
            Command::Fail { next_due_at, .. } => {
                next_due_at.as_mut().map(keep);
            }
            Command::Release { at, .. } => {
                at.as_mut().map(keep);
            }
            Command::DueUsers { due_by, after, .. } => {
                keep(due_by);
                if let Some((due_at, _)) = after {
                    keep(due_at);
                }
            }
            Command::Enroll { due_at, .. } | Command::Connect { due_at, .. } => keep(due_at),
            // No times in these. Each is named, so that a new command is not forgotten here.
            Command::DefineSource { .. }
            | Command::DefineSchedule { .. }
            | Command::RemoveSchedule { .. }
            | Command::Claim { .. }
            | Command::Heartbeat { .. }
            | Command::Checkpoint { .. }
            | Command::Limited { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::SetLimit { .. }
            | Command::Unenroll { .. }
            | Command::User { .. }
            | Command::Users { .. }
            | Command::Schedules
            | Command::Stats
            | Command::Jobs { .. }
            | Command::RetryFailed { .. }
            | Command::DiscardFailed { .. }
            | Command::Remove { .. } => {}
        }
    }
}

fn keep(at: &mut Timestamp) {
    *at = Timestamp::from_ms(at.as_ms().clamp(-TIME_MS_MAX, TIME_MS_MAX));
}

#[cfg(test)]
mod tests {
    use super::super::command::{
        Commit, CommitOutcome, LeaseRef, LeaseToken, NewJob, ParkReason, Priority,
    };
    use super::super::state::JobKey;
    use super::*;
    use crate::id::{ScheduleName, SourceName, UserId};

    /// Every command that has times, with all of them at `at`.
    fn commands(at: Timestamp) -> Vec<Command> {
        let source = SourceName::google_calendar();
        let user = UserId::new("ada").unwrap();
        let schedule = ScheduleName::new("daily").unwrap();
        let lease = LeaseRef {
            key: JobKey::FanOut {
                schedule: schedule.clone(),
            },
            token: LeaseToken(1),
        };
        vec![
            Command::Tick {
                schedule,
                revision: 1,
                after: at,
                at,
                missed: 0,
                fire: true,
            },
            Command::Enqueue {
                source: source.clone(),
                jobs: vec![NewJob {
                    user: user.clone(),
                    run_at: at,
                    nominal_at: Some(at),
                    priority: Priority::Now,
                }],
                checkpoint: None,
            },
            Command::Complete {
                lease: lease.clone(),
                commit: Commit {
                    cursor: None,
                    next_due_at: Some(at),
                    outcome: CommitOutcome::FannedOut { users: 0 },
                },
            },
            Command::Retry {
                lease: lease.clone(),
                at,
                error: String::new(),
            },
            Command::Fail {
                lease: lease.clone(),
                error: String::new(),
                next_due_at: Some(at),
                park: Some(ParkReason::Operator),
            },
            Command::Release {
                lease,
                at: Some(at),
            },
            Command::DueUsers {
                source: source.clone(),
                due_by: at,
                after: Some((at, user.clone())),
                limit: 1,
            },
            Command::Enroll {
                source: source.clone(),
                users: vec![user.clone()],
                due_at: at,
            },
            Command::Connect {
                source,
                grants: vec![(user, 1)],
                due_at: at,
                force: true,
            },
        ]
    }

    #[test]
    fn times_beyond_the_bound_are_the_bound_and_others_stay() {
        let at = Timestamp::from_ms;
        for (asked_ms, kept_ms) in [
            (i64::MAX, TIME_MS_MAX),
            (TIME_MS_MAX + 1, TIME_MS_MAX),
            (TIME_MS_MAX, TIME_MS_MAX),
            (0, 0),
            (-TIME_MS_MAX - 1, -TIME_MS_MAX),
            (i64::MIN, -TIME_MS_MAX),
        ] {
            let kept = commands(at(asked_ms)).into_iter();
            let kept: Vec<Command> = kept.map(Command::with_times_kept).collect();
            assert_eq!(kept, commands(at(kept_ms)));
        }
    }
}
