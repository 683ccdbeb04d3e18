//! What a migration found, does or did: in words, or as one JSON object.

use std::fmt::Write as _;

use kalends_adapters::bullmq::Counts;
use kalends_core::queue::command::Priority;
use kalends_core::time::Timestamp;
use serde_json::{Value, json};

use super::plan::{Change, Plan, Target};

/// Ticks that are shown of each schedule.
const TICKS_SHOWN: usize = 3;

/// What the queue answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Users that were not enrolled before.
    pub enrolled: u64,
    /// Schedules that were defined.
    pub schedules: u64,
    /// Jobs that are new.
    pub added: u64,
    /// Jobs that coalesced into outstanding ones.
    pub coalesced: u64,
    /// Jobs that were not taken: their users were parked or taken out meanwhile.
    pub refused: u64,
}

/// All that is said.
#[derive(Debug)]
pub struct Report<'a> {
    /// `PREFIX:QUEUE`, in words.
    pub from: &'a str,
    /// Where to, in words.
    pub to: &'a str,
    /// When.
    pub now: Timestamp,
    /// What stands in BullMQ.
    pub counts: &'a Counts,
    /// What is done.
    pub plan: &'a Plan,
    /// What was there before.
    pub target: &'a Target,
    /// How that went; `None` in a dry run.
    pub applied: Option<Applied>,
}

impl Report<'_> {
    fn ticks(&self, definition: &kalends_core::policy::ScheduleDefinition) -> Vec<String> {
        let ticks = std::iter::successors(definition.next_after(self.now), |tick| {
            definition.next_after(*tick)
        });
        ticks.take(TICKS_SHOWN).map(Timestamp::to_rfc3339).collect()
    }

    fn users_new(&self) -> usize {
        let known = &self.target.users;
        self.plan
            .users
            .iter()
            .filter(|user| !known.contains_key(*user))
            .count()
    }

    fn jobs_now(&self) -> usize {
        let now = |wish: &&super::plan::Wish| wish.priority == Priority::Now;
        self.plan.jobs.values().filter(now).count()
    }

    fn jobs_later(&self) -> usize {
        self.plan
            .jobs
            .values()
            .filter(|wish| wish.run_at > self.now)
            .count()
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let plan = self.plan;
        let schedules: Vec<Value> = plan
            .schedules
            .iter()
            .map(|schedule| {
                json!({
                    "name": schedule.name,
                    "cron": schedule.definition.cron.as_str(),
                    "time_zone": schedule.definition.time_zone.name(),
                    "from": schedule.from,
                    "change": change(schedule.change),
                    "next_ticks": self.ticks(&schedule.definition),
                })
            })
            .collect();
        let problems: Vec<Value> = plan
            .problems
            .iter()
            .map(|problem| json!({ "place": problem.place, "what": problem.what, "remedy": problem.remedy }))
            .collect();
        let counts = self.counts;
        json!({
            "from": self.from,
            "to": self.to,
            "now": self.now.to_rfc3339(),
            "dry_run": self.applied.is_none(),
            "found": {
                "repeatables": counts.repeats,
                "wait": counts.wait,
                "paused": counts.paused,
                "prioritized": counts.prioritized,
                "delayed": counts.delayed,
                "active": counts.active,
                "waiting_children": counts.waiting_children,
                "failed": counts.failed,
                "completed": counts.completed,
                "is_paused": counts.is_paused,
                "worker_connections": counts.worker_connections,
            },
            "schedules": schedules,
            "users": { "total": plan.users.len(), "new": self.users_new() },
            "jobs": {
                "taken": plan.tally.taken,
                "users": plan.jobs.len(),
                "sync_now": self.jobs_now(),
                "later": self.jobs_later(),
                "next_runs": plan.tally.next_runs,
                "ticks": plan.tally.ticks,
            },
            "repeatables_of_users": plan.tally.of_users,
            "repeatables_ended": plan.tally.ended,
            "problems": problems,
            "problems_total": plan.problems_total(),
            "notes": plan.notes,
            "applied": self.applied.map(|applied| json!({
                "schedules": applied.schedules,
                "enrolled": applied.enrolled,
                "added": applied.added,
                "coalesced": applied.coalesced,
                "refused": applied.refused,
            })),
        })
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        let mut text = String::new();
        let mut line = |words: String| {
            let _ = writeln!(text, "{words}");
        };
        let plan = self.plan;
        let counts = self.counts;
        let dry = self.applied.is_none();
        line(format!("from      {}", self.from));
        line(format!("to        {}", self.to));
        if dry {
            line("          dry run: nothing is changed, here or there".to_owned());
        }
        line(format!(
            "found     {} repeatables; jobs: {} waiting, {} paused, {} prioritized, {} delayed, {} active, {} waiting for \
             others, {} failed, {} completed",
            counts.repeats,
            counts.wait,
            counts.paused,
            counts.prioritized,
            counts.delayed,
            counts.active,
            counts.waiting_children,
            counts.failed,
            counts.completed
        ));
        for schedule in &plan.schedules {
            line(format!(
                "schedule  {}: {} ({})",
                schedule.name,
                schedule.definition,
                change(schedule.change)
            ));
            line(format!("          of {}", schedule.from.join(", ")));
            let ticks = self.ticks(&schedule.definition);
            let ticks = if ticks.is_empty() {
                "never".to_owned()
            } else {
                ticks.join(", ")
            };
            line(format!("          next {ticks}"));
        }
        let tally = &plan.tally;
        line(format!(
            "users     {} found, {} of them new to Kalends",
            plan.users.len(),
            self.users_new()
        ));
        if tally.of_users > 0 {
            line(format!(
                "          {} repeatables of one user each: these users are synced by the schedules",
                tally.of_users
            ));
        }
        line(format!(
            "jobs      {} taken, for {} users: {} later, {} as \"sync now\"",
            tally.taken,
            plan.jobs.len(),
            self.jobs_later(),
            self.jobs_now()
        ));
        if tally.next_runs > 0 {
            line(format!(
                "          {} are next runs of repeatables, which the schedules make",
                tally.next_runs
            ));
        }
        if let Some(applied) = self.applied {
            line(format!(
                "done      {} schedules defined, {} users enrolled; jobs: {} added, {} coalesced into outstanding ones, \
                 {} refused",
                applied.schedules,
                applied.enrolled,
                applied.added,
                applied.coalesced,
                applied.refused
            ));
        }
        for note in &plan.notes {
            line(format!("note      {note}"));
        }
        for problem in &plan.problems {
            line(format!(
                "problem   {}: {}; {}",
                problem.place, problem.what, problem.remedy
            ));
        }
        if plan.problems_more > 0 {
            line(format!("problem   and {} more", plan.problems_more));
        }
        line(self.next_step());
        text
    }

    fn next_step(&self) -> String {
        let stop = "the old service must not run any more: stop its processes (those that add jobs and those that work), and \
                    look with this command whether jobs are still active";
        if self.applied.is_none() {
            return format!("next      {stop}; then run this again without --dry-run");
        }
        format!(
            "next      {stop}; the BullMQ queue stands there untouched: remove it (Queue.obliterate) when you do not want to \
             go back any more; then `kalends run`"
        )
    }
}

fn change(change: Change) -> &'static str {
    match change {
        Change::New => "new",
        Change::Changed => "changed",
        Change::Same => "there already",
    }
}
