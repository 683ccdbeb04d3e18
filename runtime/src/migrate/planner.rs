//! The planner of a migration: fed with all that stands in a BullMQ queue, it ends as schedules, users and jobs.
//!
//! A repeatable whose data name no user is one for all users: a schedule. One that names a user becomes no schedule of
//! its own, as a source's users share their schedules: the user is enrolled. Who a version 5 repeatable belongs to stands
//! in its jobs only, so repeatables are read first, and judged when all jobs have been seen.
//!
//! What is wanted "now" in BullMQ is a job with `lifo` or with priority 1, the highest that can be asked for: it becomes
//! a "sync now". All others, without a priority or with a lower one, are scheduled syncs.

use std::collections::BTreeMap;

use kalends_adapters::bullmq::{Field, Job, JobFields, JobSet, Lookup, Repeat, RepeatFields};
use kalends_core::id::{ScheduleName, SourceName, UserId};
use kalends_core::policy::ScheduleDefinition;
use kalends_core::queue::command::Priority;
use kalends_core::time::Timestamp;
use serde_json::Value;

use super::plan::{Change, Configured, Plan, PlannedSchedule, Target, Wish};
use super::timing::{self, Read, Timing};
use super::whose::Whose;
use super::{Obstacle, echo};

/// Repeatables that are read; what a queue has beyond is told as a problem.
pub const REPEATS_MAX: usize = 100_000;
/// The highest priority that a BullMQ job can ask for.
const HIGHEST_PRIORITY: &str = "1";

/// A repeatable, as far as it is known.
#[derive(Debug)]
struct Draft {
    words: String,
    is_scheduler: bool,
    fields: RepeatFields,
    next_ms: f64,
    /// A job of it gave its data and limit.
    seen_job: bool,
}

/// Makes a [`Plan`]: first all repeatables, then all jobs, then [`Planner::finish`].
#[derive(Debug)]
pub struct Planner {
    configured: Configured,
    now: Timestamp,
    drafts: BTreeMap<String, Draft>,
    plan: Plan,
}

impl Planner {
    /// A planner at the time `now`.
    #[must_use]
    pub fn new(configured: Configured, now: Timestamp) -> Self {
        Planner {
            configured,
            now,
            drafts: BTreeMap::new(),
            plan: Plan::default(),
        }
    }

    /// Takes a repeatable.
    pub fn repeat(&mut self, repeat: Repeat) {
        if self.drafts.len() >= REPEATS_MAX {
            let what = format!("is beyond the {REPEATS_MAX} repeatables that are read");
            let obstacle = Obstacle::new(what, "remove there what nobody needs, and migrate again");
            self.plan
                .problem(format!("repeatable {}", echo(&repeat.key)), obstacle);
            return;
        }
        let fields = match repeat.lookup {
            Lookup::Found(fields) => Ok(fields),
            Lookup::Gone => {
                legacy_fields(&repeat.key).ok_or("has no hash with its pattern".to_owned())
            }
            Lookup::OtherType => Err("is no hash".to_owned()),
            Lookup::IdTooLong(bytes) => Err(format!("has a key of {bytes} bytes")),
        };
        let fields = match fields {
            Ok(fields) => fields,
            Err(what) => {
                let obstacle = Obstacle::new(
                    what,
                    "look at it there, or write schedule.cron in the configuration",
                );
                self.plan
                    .problem(format!("repeatable {}", echo(&repeat.key)), obstacle);
                return;
            }
        };
        let is_scheduler = fields.iterations != Field::Absent;
        let name = fields.name.as_text().unwrap_or(&repeat.key);
        let words = if is_scheduler {
            format!("job scheduler {}", echo(&repeat.key))
        } else {
            format!("repeatable {}", echo(name))
        };
        let draft = Draft {
            words,
            is_scheduler,
            fields,
            next_ms: repeat.next_ms,
            seen_job: false,
        };
        self.drafts.insert(repeat.key, draft);
    }

    /// Says that something was not even read.
    pub fn problem(&mut self, place: String, what: String) {
        let obstacle = Obstacle::new(what, "migrate again when these are done");
        self.plan.problem(place, obstacle);
    }

    /// Takes a job that stands in `set`.
    pub fn job(&mut self, set: JobSet, job: Job) {
        let fields = match job.lookup {
            Lookup::Found(fields) => fields,
            lost => {
                let (what, remedy) = match lost {
                    Lookup::OtherType => ("is no hash".to_owned(), "look at it there"),
                    Lookup::IdTooLong(bytes) => {
                        (format!("has an id of {bytes} bytes"), "look at it there")
                    }
                    _ => (
                        "has no data there any more".to_owned(),
                        "nothing: its user is due by the schedule",
                    ),
                };
                let place = format!("job {} in {}", echo(&job.id), set.name());
                self.plan.problem(place, Obstacle::new(what, remedy));
                return;
            }
        };
        let options = fields
            .opts
            .as_text()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let options = options.unwrap_or_default();
        let of_repeat = self.of_repeat(&fields, &options);
        if of_repeat && set == JobSet::Delayed {
            self.plan.tally.next_runs += 1;
            return;
        }
        let place = || {
            let name = fields.name.as_text().unwrap_or_default();
            format!("job {} {} in {}", echo(&job.id), echo(name), set.name())
        };
        let user = match self.configured.reading.read(&fields.data) {
            Ok(Whose::User(user)) => user,
            Ok(Whose::Nobody) if of_repeat => {
                self.plan.tally.ticks += 1;
                return;
            }
            Ok(Whose::Nobody) => {
                let remedy = "name the field that holds the user's id by --user-field, or leave it: it may be no sync";
                let obstacle = Obstacle::new("names no user in its data", remedy);
                self.plan.problem(place(), obstacle);
                return;
            }
            Err(obstacle) => {
                self.plan.problem(place(), obstacle);
                return;
            }
        };
        let run_at = match (set, job.due_at) {
            (JobSet::Delayed, Some(due_at)) => due_at.max(self.now),
            (JobSet::Delayed, None) => {
                let obstacle = Obstacle::new(
                    "has a score that is no time",
                    "sync its user by `kalends sync USER`",
                );
                self.plan.problem(place(), obstacle);
                return;
            }
            _ => self.now,
        };
        let is_now = options.get("lifo") == Some(&Value::Bool(true))
            || fields.priority.as_text() == Some(HIGHEST_PRIORITY);
        let wish = Wish {
            run_at,
            priority: if is_now {
                Priority::Now
            } else {
                Priority::Scheduled
            },
        };
        self.plan.tally.taken += 1;
        self.plan.users.insert(user.clone());
        let known = self.plan.jobs.entry(user).or_insert(wish);
        known.run_at = known.run_at.min(wish.run_at);
        known.priority = known.priority.max(wish.priority);
    }

    /// Whether a job came from a repeatable that is still there, which learns from it.
    fn of_repeat(&mut self, fields: &JobFields, options: &Value) -> bool {
        let draft = fields
            .repeat_key
            .as_text()
            .and_then(|key| self.drafts.get_mut(key));
        let Some(draft) = draft else {
            return false;
        };
        if !draft.seen_job {
            draft.seen_job = true;
            if draft.fields.data == Field::Absent {
                draft.fields.data = fields.data.clone();
            }
            let limit = options.get("repeat").and_then(|repeat| repeat.get("limit"));
            if draft.fields.limit == Field::Absent
                && let Some(limit) = limit.and_then(Value::as_u64)
            {
                draft.fields.limit = limit.to_string().as_str().into();
            }
        }
        true
    }

    /// The plan, for a queue that holds `target`.
    #[must_use]
    pub fn finish(mut self, target: &Target) -> Plan {
        let mut schedules = Vec::new();
        let mut others: BTreeMap<String, (u64, UserId)> = BTreeMap::new();
        for (key, draft) in std::mem::take(&mut self.drafts) {
            let whose = match self.configured.reading.read(&draft.fields.data) {
                Ok(whose) => whose,
                Err(obstacle) => {
                    self.plan.problem(draft.words, obstacle);
                    continue;
                }
            };
            let timing = timing::read(&draft.fields, draft.next_ms, self.now);
            match (whose, timing) {
                (_, Ok(Read::Ended(_))) => self.plan.tally.ended += 1,
                (Whose::Nobody, Ok(Read::Timing(timing))) => schedules.push((key, draft, timing)),
                (Whose::Nobody, Err(obstacle)) => self.plan.problem(draft.words, obstacle),
                (Whose::User(user), timing) => {
                    self.plan.tally.of_users += 1;
                    self.plan.users.insert(user.clone());
                    let words = match timing {
                        Ok(Read::Timing(timing)) => {
                            let definition = self.definition(&timing);
                            if definition == self.configured.definition {
                                continue;
                            }
                            format!("fires for {definition}")
                        }
                        Ok(Read::Ended(_)) => continue,
                        Err(obstacle) => obstacle.what,
                    };
                    others.entry(words).or_insert((0, user)).0 += 1;
                }
            }
        }
        for (words, (count, user)) in others {
            self.plan.note(format!(
                "{count} repeatables are of one user each, and each {words} (that of {user}, say): Kalends syncs all users \
                 of a source by one schedule, {}, {}; write another schedule.cron if that is too rare",
                self.configured.schedule, self.configured.definition
            ));
        }
        self.name_schedules(schedules, target);
        let parked = |(user, parked): (&UserId, &bool)| parked.then(|| user.clone());
        for user in target.users.iter().filter_map(parked) {
            if self.plan.jobs.remove(&user).is_some() {
                let obstacle = Obstacle::new(
                    "is parked in Kalends, so the job is not taken",
                    format!("connect the user again, or try `kalends sync {user}`"),
                );
                self.plan.problem(format!("user {user}"), obstacle);
            }
        }
        if self.plan.tally.ticks > 0 {
            self.plan.note(format!(
                "{} ticks for all users wait there; Kalends fires the next one by itself",
                self.plan.tally.ticks
            ));
        }
        self.plan
    }

    fn definition(&self, timing: &Timing) -> ScheduleDefinition {
        ScheduleDefinition {
            source: SourceName::google_calendar(),
            cron: timing.cron.clone(),
            time_zone: timing.time_zone,
            catch_up: self.configured.definition.catch_up,
        }
    }

    /// Repeatables that fire alike are one schedule; those of one name that do not are told apart by their patterns.
    fn name_schedules(&mut self, found: Vec<(String, Draft, Timing)>, target: &Target) {
        let mut alike: BTreeMap<String, Vec<(String, Draft, Timing)>> = BTreeMap::new();
        for item in found {
            let words = self.definition(&item.2).to_string();
            alike.entry(words).or_default().push(item);
        }
        let plain_name = |items: &[(String, Draft, Timing)]| {
            let (key, draft, _) = &items[0];
            let name = draft.fields.name.as_text().filter(|_| !draft.is_scheduler);
            name.unwrap_or(key).to_owned()
        };
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for items in alike.values() {
            *times.entry(plain_name(items)).or_default() += 1;
        }
        for (name, count) in times.iter().filter(|(_, count)| **count > 1) {
            self.plan.note(format!(
                "{count} repeatables are named {}, as when a pattern was changed and the old one stayed: remove there \
                 what is left over",
                echo(name)
            ));
        }
        for items in alike.values() {
            let definition = &self.definition(&items[0].2);
            let words: Vec<String> = items
                .iter()
                .map(|(_, draft, _)| draft.words.clone())
                .collect();
            let words = words.join(", ");
            let mut name = plain_name(items);
            if times[&name] > 1 {
                name = format!(
                    "{name} ({} {})",
                    definition.cron.as_str(),
                    definition.time_zone
                );
            }
            if let Some((_, draft, _)) = items.iter().find(|(_, _, timing)| timing.zone_unsaid) {
                self.plan.note(format!(
                    "{} names no time zone: BullMQ reads it in that of its machine, Kalends in UTC",
                    draft.words
                ));
            }
            match self.place_schedule(&name, definition, target) {
                Ok(mut planned) => {
                    planned.from.push(words);
                    self.plan.schedules.push(planned);
                }
                Err(obstacle) => self.plan.problem(words, obstacle),
            }
        }
        self.plan
            .schedules
            .sort_by(|left, right| left.name.cmp(&right.name));
    }

    fn place_schedule(
        &mut self,
        name: &str,
        definition: &ScheduleDefinition,
        target: &Target,
    ) -> Result<PlannedSchedule, Obstacle> {
        let configured = &self.configured;
        let write = format!(
            "cron = {:?} and time_zone = {:?} in [schedule]",
            definition.cron.as_str(),
            definition.time_zone.name()
        );
        let name = if *definition == configured.definition {
            configured.schedule.clone()
        } else {
            ScheduleName::new(name).map_err(|error| {
                Obstacle::new(format!("its name {error}"), format!("write {write}"))
            })?
        };
        if name == configured.schedule && *definition != configured.definition {
            return Err(Obstacle::new(
                format!(
                    "has the name of the configured schedule, which is another one ({}), and which `kalends run` puts in force",
                    configured.definition
                ),
                format!("to go on with this one write {write}"),
            ));
        }
        if name != configured.schedule {
            self.plan.note(format!(
                "schedule {name} fires beside the configured one, {} ({}); to have only this one, write name = {:?}, {write}",
                configured.schedule,
                configured.definition,
                name.as_str()
            ));
        }
        let change = match target.schedules.get(&name) {
            None => Change::New,
            Some(known) if known == definition => Change::Same,
            Some(_) => Change::Changed,
        };
        Ok(PlannedSchedule {
            name,
            definition: definition.clone(),
            from: Vec::new(),
            change,
        })
    }
}

/// What a repeatable from before 5.10 says in its key: `NAME:ID:END:TIME ZONE:PATTERN`, or a period in the pattern's place.
fn legacy_fields(key: &str) -> Option<RepeatFields> {
    let mut parts = key.splitn(5, ':');
    let (name, _id, end, zone, pattern) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    let field = |text: &str| {
        if text.is_empty() {
            Field::Absent
        } else {
            text.into()
        }
    };
    let is_period = pattern.bytes().all(|digit| digit.is_ascii_digit());
    let (every, pattern) = if is_period {
        (pattern, "")
    } else {
        ("", pattern)
    };
    Some(RepeatFields {
        name: field(name),
        end_date: field(end),
        time_zone: field(zone),
        every: field(every),
        pattern: field(pattern),
        ..RepeatFields::default()
    })
}
