//! What a migration does, as a value: schedules, users, jobs, and what is told. The `planner` makes it.

use std::collections::{BTreeMap, BTreeSet};

use kalends_core::id::{ScheduleName, UserId};
use kalends_core::policy::ScheduleDefinition;
use kalends_core::queue::command::{NewJob, Priority};
use kalends_core::time::Timestamp;

use super::whose::Reading;
use super::{LINES_MAX, Obstacle, Problem};

/// What Kalends is configured to do, as far as a migration asks.
#[derive(Clone, Debug)]
pub struct Configured {
    /// How jobs are read; holds the configured users.
    pub reading: Reading,
    /// The name of the configured schedule, which `kalends run` puts in force at each start.
    pub schedule: ScheduleName,
    /// What it is.
    pub definition: ScheduleDefinition,
}

/// What Kalends' queue holds before the migration.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The enrolled users, and whether each is parked.
    pub users: BTreeMap<UserId, bool>,
    /// The schedules.
    pub schedules: BTreeMap<ScheduleName, ScheduleDefinition>,
}

/// What becomes of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is none of this name.
    New,
    /// There is one of this name, and it changes.
    Changed,
    /// It stands there already.
    Same,
}

/// A schedule to define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSchedule {
    /// Its name.
    pub name: ScheduleName,
    /// What it is.
    pub definition: ScheduleDefinition,
    /// The repeatables that it was made of, in words.
    pub from: Vec<String>,
    /// What becomes of it.
    pub change: Change,
}

/// The job that a user's BullMQ jobs coalesce into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The earliest of their times.
    pub run_at: Timestamp,
    /// The highest of their priorities.
    pub priority: Priority,
}

/// How many items ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs that were taken.
    pub taken: u64,
    /// Jobs that are the next run of a repeatable.
    pub next_runs: u64,
    /// Jobs that are a tick of a repeatable for all users.
    pub ticks: u64,
    /// Repeatables that belong to one user.
    pub of_users: u64,
    /// Repeatables whose end has come.
    pub ended: u64,
}

/// What a migration does.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Schedules to define, by name.
    pub schedules: Vec<PlannedSchedule>,
    /// Users to enroll; those who are enrolled stay as they are.
    pub users: BTreeSet<UserId>,
    /// One job a user.
    pub jobs: BTreeMap<UserId, Wish>,
    /// Counts.
    pub tally: Tally,
    /// What is not taken, at most [`LINES_MAX`] of them.
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub problems_more: u64,
    /// What a person should know, at most [`LINES_MAX`].
    pub notes: Vec<String>,
}

impl Plan {
    /// How many problems there are.
    #[must_use]
    pub fn problems_total(&self) -> u64 {
        self.problems.len() as u64 + self.problems_more
    }

    /// Says that something is not taken over.
    pub fn problem(&mut self, place: String, obstacle: Obstacle) {
        if self.problems.len() >= LINES_MAX {
            self.problems_more += 1;
            return;
        }
        self.problems.push(Problem {
            place,
            what: obstacle.what,
            remedy: obstacle.remedy,
        });
    }

    /// Says something that a person should know.
    pub fn note(&mut self, words: String) {
        if self.notes.len() < LINES_MAX {
            self.notes.push(words);
        }
    }

    /// The jobs as the queue takes them.
    pub fn new_jobs(&self) -> impl Iterator<Item = NewJob> {
        self.jobs.iter().map(|(user, wish)| NewJob {
            user: user.clone(),
            run_at: wish.run_at,
            nominal_at: None,
            priority: wish.priority,
        })
    }
}
