//! What a run of the stream has met: pairs of a command and what it heard. One that misses a pair proves too little.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kalends_core::queue::command::*;
use kalends_core::queue::state::*;
use kalends_core::time::{DAY_MS, Timestamp};

use super::Fleet;

/// What must have been met over a run: the command, and what it heard.
pub(crate) const OUTCOMES: &[&str] = &[
    "define_source done",
    "define_source invalid",
    "define_schedule schedule",
    "define_schedule unknown_source",
    "remove_schedule done",
    "tick fired",
    "tick already_fired",
    "tick already_fired none",
    "tick invalid",
    "enqueue added",
    "enqueue coalesced",
    "enqueue refused",
    "enqueue unknown_source",
    "enqueue lease_lost",
    "enqueue invalid",
    "enqueue with checkpoint",
    "claim sync",
    "claim fan_out",
    "claim nothing",
    "claim again",
    "claim retried",
    "claim recovered",
    "claim buried",
    "claim too_large",
    "claim next now",
    "claim next never",
    "heartbeat kept",
    "heartbeat lost",
    "checkpoint go",
    "checkpoint wait",
    "checkpoint lease_lost",
    "checkpoint too_large",
    "complete done",
    "complete already_done",
    "complete lease_lost",
    "complete runs again",
    "retry done",
    "retry already_done",
    "retry lease_lost",
    "fail done",
    "fail already_done",
    "fail lease_lost",
    "release done",
    "release already_done",
    "release lease_lost",
    "limited gate_closed",
    "limited already_done",
    "limited lease_lost",
    "limited invalid",
    "pause done",
    "resume done",
    "set_limit done",
    "set_limit invalid",
    "set_limit unknown_source",
    "due_users some",
    "enroll some",
    "enroll none",
    "connect some",
    "connect none",
    "enroll unknown_source",
    "unenroll some",
    "unenroll none",
    "retry_failed some",
    "retry_failed none",
    "discard_failed some",
    "discard_failed none",
    "remove some",
    "remove none",
    "jobs jobs",
    "jobs some after an offset",
    "pause with running jobs",
    "state user delayed by gate",
    "state clock stepped back",
    "state clock stepped back far",
];

/// How often each outcome was met, over many streams.
#[derive(Default)]
pub(crate) struct Met {
    counts: RefCell<BTreeMap<String, u64>>,
}

impl Met {
    /// Fails unless every outcome was met.
    pub(crate) fn check(&self) {
        let counts = self.counts.borrow();
        let missing: Vec<&&str> = OUTCOMES
            .iter()
            .filter(|outcome| !counts.contains_key(**outcome))
            .collect();
        assert!(
            missing.is_empty(),
            "never met: {missing:?} among {counts:#?}"
        );
    }

    /// Adds what another run met.
    #[allow(
        dead_code,
        reason = "not every test that drives streams runs them side by side"
    )]
    pub(crate) fn add(&self, other: Met) {
        let mut counts = self.counts.borrow_mut();
        for (outcome, count) in other.counts.into_inner() {
            *counts.entry(outcome).or_default() += count;
        }
    }

    /// Prints the table: each outcome, and how often it was met.
    #[allow(dead_code, reason = "not every test that drives streams prints it")]
    pub(crate) fn print(&self) {
        for (outcome, count) in self.counts.borrow().iter() {
            println!("{count:>9}  {outcome}");
        }
    }

    fn meet(&self, outcome: &str) {
        *self.counts.borrow_mut().entry(outcome.into()).or_default() += 1;
    }

    fn meet_if(&self, holds: bool, outcome: &str) {
        if holds {
            self.meet(outcome);
        }
    }

    /// The clock went from `before` to where the fleet now is.
    pub(crate) fn note_time(&self, before: Timestamp, fleet: &Fleet) {
        let back_ms = before.since_ms(fleet.now);
        self.meet_if(back_ms > 1_000, "state clock stepped back");
        self.meet_if(back_ms > 15 * 60_000, "state clock stepped back far");
    }

    /// A listing after the last command of the fleet, of all jobs in a state.
    pub(crate) fn note_listing(&self, fleet: &Fleet, state: JobState, jobs: &[JobListing]) {
        let last = fleet.last.as_ref();
        match state {
            JobState::Waiting | JobState::Delayed => {
                let after = |job: &JobListing| job.at.since_ms(fleet.now);
                let gated = jobs
                    .iter()
                    .any(|job| (40_000..DAY_MS).contains(&after(job)));
                self.meet_if(gated, "state user delayed by gate");
                if let Some((Command::Complete { lease, .. }, Reply::Done)) = last {
                    let again = jobs.iter().any(|job| job.key == lease.key);
                    self.meet_if(again, "complete runs again");
                }
            }
            JobState::Active => {
                let paused = matches!(last, Some((Command::Pause { .. }, Reply::Done)));
                self.meet_if(paused && !jobs.is_empty(), "pause with running jobs");
            }
            JobState::Completed | JobState::Failed => {}
        }
    }

    /// What a command heard; before the fleet is told of it.
    pub(crate) fn note(&self, command: &Command, reply: &Reply, fleet: &Fleet) {
        let tag = |value: serde_json::Value, tag: &str| value[tag].as_str().unwrap().to_owned();
        let asked = tag(serde_json::to_value(command).unwrap(), "command");
        let heard = match reply {
            Reply::Refused { refusal } => tag(serde_json::to_value(refusal).unwrap(), "refusal"),
            Reply::Enrolled { users, .. } if users.is_empty() => "none".into(),
            Reply::Enrolled { .. } => "some".into(),
            Reply::Count { count: 0 } => "none".into(),
            Reply::Count { .. } => "some".into(),
            Reply::AlreadyFired { state: None } => "already_fired none".into(),
            Reply::Permit { wait_until: None } => "go".into(),
            Reply::Permit { .. } => "wait".into(),
            other => tag(serde_json::to_value(other).unwrap(), "reply"),
        };
        self.meet(&format!("{asked} {heard}"));
        match (command, reply) {
            (Command::Heartbeat { leases, .. }, Reply::Heartbeat { lost }) => {
                self.meet_if(lost.len() < leases.len(), "heartbeat kept");
                self.meet_if(!lost.is_empty(), "heartbeat lost");
            }
            (Command::DueUsers { .. }, Reply::DueUsers { users, .. }) => {
                self.meet_if(!users.is_empty(), "due_users some");
            }
            (
                Command::Enqueue { checkpoint, .. },
                Reply::Enqueued {
                    added,
                    coalesced,
                    refused,
                },
            ) => {
                self.meet_if(*added > 0, "enqueue added");
                self.meet_if(*coalesced > 0, "enqueue coalesced");
                self.meet_if(*refused > 0, "enqueue refused");
                self.meet_if(checkpoint.is_some(), "enqueue with checkpoint");
            }
            (
                _,
                Reply::Claimed {
                    leases,
                    recovered,
                    buried,
                    next_at,
                },
            ) => {
                for lease in leases {
                    let again = fleet.knows(&lease.lease);
                    self.meet_if(again, "claim again");
                    self.meet_if(lease.attempt > 1, "claim retried");
                    let fan_out = matches!(lease.lease.key, JobKey::FanOut { .. });
                    self.meet(if fan_out {
                        "claim fan_out"
                    } else {
                        "claim sync"
                    });
                }
                self.meet_if(leases.is_empty(), "claim nothing");
                self.meet_if(*recovered > 0, "claim recovered");
                self.meet_if(*buried > 0, "claim buried");
                self.meet_if(*next_at == Some(fleet.now), "claim next now");
                self.meet_if(next_at.is_none(), "claim next never");
            }
            (Command::Jobs { offset, .. }, Reply::Jobs { jobs }) => {
                let some = *offset > 0 && !jobs.is_empty();
                self.meet_if(some, "jobs some after an offset");
            }
            _ => {}
        }
    }
}
