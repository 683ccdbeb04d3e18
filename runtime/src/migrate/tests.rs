//! Plans made of queues that a person could have left behind.

use std::collections::BTreeSet;

use kalends_adapters::bullmq::{Field, Job, JobFields, JobSet, Lookup, Repeat, RepeatFields};
use kalends_core::id::{ScheduleName, SourceName, UserId};
use kalends_core::policy::{CatchUp, ScheduleDefinition};
use kalends_core::queue::command::Priority;
use kalends_core::time::{HOUR_MS, Timestamp};

use super::plan::{Change, Configured, Plan, Target};
use super::planner::Planner;
use super::whose::Reading;

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-03-02T10:07:23Z").unwrap()
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn definition(cron: &str) -> ScheduleDefinition {
    ScheduleDefinition {
        source: SourceName::google_calendar(),
        cron: cron.parse().unwrap(),
        time_zone: Default::default(),
        catch_up: CatchUp::Skip,
    }
}

fn planner() -> Planner {
    let users: BTreeSet<UserId> = ["ada", "bob"].into_iter().map(user).collect();
    let configured = Configured {
        reading: Reading {
            users,
            ..Reading::default()
        },
        schedule: ScheduleName::new("calendar-sync").unwrap(),
        definition: definition("*/15 * * * *"),
    };
    Planner::new(configured, now())
}

/// A version 5 repeatable, or with `data` a job scheduler.
fn repeat(key: &str, name: &str, pattern: &str, data: Option<&str>) -> Repeat {
    Repeat {
        key: key.to_owned(),
        next_ms: 0.0,
        lookup: Lookup::Found(RepeatFields {
            name: name.into(),
            pattern: pattern.into(),
            data: data.map_or(Field::Absent, Field::from),
            iterations: data.map_or(Field::Absent, |_| "1".into()),
            ..RepeatFields::default()
        }),
    }
}

fn job(data: &str, opts: &str, repeat_key: Option<&str>, due_at: Option<Timestamp>) -> Job {
    Job {
        id: "1".to_owned(),
        due_at,
        lookup: Lookup::Found(JobFields {
            name: "sync".into(),
            data: data.into(),
            opts: opts.into(),
            repeat_key: repeat_key.map_or(Field::Absent, Field::from),
            ..JobFields::default()
        }),
    }
}

fn schedules(plan: &Plan) -> Vec<(&str, &str, Change)> {
    let schedules = plan.schedules.iter();
    schedules
        .map(|schedule| {
            let cron = schedule.definition.cron.as_str();
            (schedule.name.as_str(), cron, schedule.change)
        })
        .collect()
}

#[test]
fn what_fires_as_configured_is_the_configured_schedule() {
    let mut planner = planner();
    planner.repeat(repeat("5f2a", "old-name", "0 */15 * * * *", None));
    planner.repeat(repeat("new-id", "old-name", "*/15 * * * *", Some("{}")));
    let mut target = Target::default();
    let name = ScheduleName::new("calendar-sync").unwrap();
    target.schedules.insert(name, definition("*/15 * * * *"));
    let plan = planner.finish(&target);
    assert_eq!(
        schedules(&plan),
        [("calendar-sync", "*/15 * * * *", Change::Same)]
    );
    assert_eq!(plan.schedules[0].definition.catch_up, CatchUp::Skip);
    assert_eq!(
        (plan.problems_total(), plan.notes.len()),
        (0, 0),
        "{plan:?}"
    );
}

#[test]
fn the_configured_name_is_not_given_to_another_schedule() {
    let mut planner = planner();
    planner.repeat(repeat("calendar-sync", "sync", "0 * * * *", Some("{}")));
    let plan = planner.finish(&Target::default());
    assert_eq!(schedules(&plan), []);
    let problem = &plan.problems[0];
    assert_eq!(problem.place, "job scheduler \"calendar-sync\"");
    assert!(
        problem.remedy.contains("cron = \"0 * * * *\""),
        "{problem:?}"
    );
}

#[test]
fn an_old_pattern_that_stayed_is_told_and_both_are_kept_apart() {
    let mut planner = planner();
    planner.repeat(repeat("1a", "sync-all", "0 * * * *", None));
    planner.repeat(repeat("2b", "sync-all", "30 * * * *", None));
    let mut target = Target::default();
    let name = ScheduleName::new("sync-all (30 * * * * UTC)").unwrap();
    target.schedules.insert(name, definition("45 * * * *"));
    let plan = planner.finish(&target);
    let expected = [
        ("sync-all (0 * * * * UTC)", "0 * * * *", Change::New),
        ("sync-all (30 * * * * UTC)", "30 * * * *", Change::Changed),
    ];
    assert_eq!(schedules(&plan), expected);
    assert!(
        plan.notes[0].contains("2 repeatables are named \"sync-all\""),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_repeatable_belongs_to_whom_its_jobs_belong() {
    let mut planner = planner();
    planner.repeat(repeat("1a", "sync", "*/7 * * * *", None));
    planner.repeat(repeat("2b", "sync-all", "0 0 * * *", None));
    planner.repeat(repeat("3c", "sync-mail", "0 * * * *", None));
    planner.repeat(repeat("4d", "thrice", "0 * * * *", None));
    let in_an_hour = now().plus_ms(HOUR_MS);
    let later = Some(in_an_hour);
    planner.job(
        JobSet::Delayed,
        job(r#"{"userId":"ada"}"#, "{}", Some("1a"), later),
    );
    planner.job(JobSet::Delayed, job("{}", "{}", Some("2b"), later));
    planner.job(JobSet::Wait, job("{}", "{}", Some("2b"), None));
    planner.job(
        JobSet::Delayed,
        job(r#"{"source":"gmail"}"#, "{}", Some("3c"), later),
    );
    planner.job(
        JobSet::Delayed,
        job("{}", r#"{"repeat":{"limit":3}}"#, Some("4d"), later),
    );
    // Its repeatable is gone, so it is a job like others.
    planner.job(
        JobSet::Delayed,
        job(r#"{"userId":"bob"}"#, "{}", Some("5e"), later),
    );
    let plan = planner.finish(&Target::default());
    assert_eq!(schedules(&plan), [("sync-all", "0 0 * * *", Change::New)]);
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("names no time zone")),
        "{:?}",
        plan.notes
    );
    let tally = &plan.tally;
    assert_eq!(
        (tally.next_runs, tally.ticks, tally.of_users, tally.taken),
        (4, 1, 1, 1)
    );
    assert!(plan.users.contains(&user("ada")) && plan.jobs.len() == 1);
    assert_eq!(plan.jobs[&user("bob")].run_at, in_an_hour);
    let places: Vec<&str> = plan
        .problems
        .iter()
        .map(|problem| problem.place.as_str())
        .collect();
    assert_eq!(
        places,
        ["repeatable \"sync-mail\"", "repeatable \"thrice\""]
    );
}

#[test]
fn the_jobs_of_a_user_coalesce_and_those_of_a_parked_one_are_told() {
    let mut planner = planner();
    let later = Some(now().plus_ms(HOUR_MS));
    let past = Some(now().minus_ms(HOUR_MS));
    planner.job(
        JobSet::Delayed,
        job(r#"{"userId":"ada"}"#, r#"{"lifo":true}"#, None, later),
    );
    planner.job(
        JobSet::Delayed,
        job(r#"{"userId":"ada"}"#, "{}", None, past),
    );
    planner.job(JobSet::Wait, job(r#"{"userId":"bob"}"#, "{}", None, None));
    let mut target = Target::default();
    target.users.insert(user("bob"), true);
    let plan = planner.finish(&target);
    let wish = plan.jobs[&user("ada")];
    assert_eq!((wish.run_at, wish.priority), (now(), Priority::Now));
    assert_eq!(plan.new_jobs().count(), 1);
    assert_eq!(plan.problems[0].place, "user bob");
}
