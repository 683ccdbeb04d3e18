//! What an operator does by command: pause, resume, limits, jobs, schedules, "sync all". Each is a request of the API; here
//! it is made of what was typed, and the answer is put into words.

mod desk;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::operate::{
    DeskArgs, JobsCancelArgs, JobsCommand, JobsFailedArgs, JobsListArgs, LimitsArgs, PauseArgs,
    ReloadArgs, ResumeArgs, SchedulesCommand, StateArg,
};
use crate::config::Config;
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::Refused;

pub(crate) use desk::Desk;

type Environment = BTreeMap<String, String>;

/// The longest part of an error that a table shows, in characters.
const ERROR_CHARS_MAX: usize = 100;

/// One change, asked for and told.
async fn change(
    args: &DeskArgs,
    environment: &Environment,
    (method, path): (&str, &str),
    body: Option<Value>,
    words: impl Fn(&Value) -> String,
) -> Result<Exit, Refused> {
    let config = args.load(environment)?;
    let desk = Desk::to_change(&config).await?;
    let answer = desk.ask(method, path, body.as_ref()).await;
    desk.close().await;
    let answer = answer?;
    if args.json {
        say(&format!("{answer}\n"));
    } else {
        say(&words(&answer));
    }
    Ok(Exit::Done)
}

/// A body without the members that were not given.
fn without_nothing(body: Value) -> Value {
    match body {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect(),
        other => other,
    }
}

fn of_source(source: Option<&str>) -> String {
    source.map_or_else(|| "everything".to_owned(), |source| source.to_owned())
}

/// `kalends pause`.
///
/// # Errors
/// If the store, or the process that has it, cannot be asked, or refuses.
pub async fn pause(args: &PauseArgs, environment: &Environment) -> Result<Exit, Refused> {
    let body = without_nothing(json!({ "reason": args.reason, "source": args.source }));
    let words = |_: &Value| {
        let what = of_source(args.source.as_deref());
        format!("{what} is paused; `kalends resume` goes on\n")
    };
    let path = ("POST", "/api/v1/pause");
    change(&args.desk, environment, path, Some(body), words).await
}

/// `kalends resume`.
///
/// # Errors
/// As [`pause`].
pub async fn resume(args: &ResumeArgs, environment: &Environment) -> Result<Exit, Refused> {
    let body = without_nothing(json!({ "source": args.source }));
    let words = |_: &Value| format!("{} goes on\n", of_source(args.source.as_deref()));
    let path = ("POST", "/api/v1/resume");
    change(&args.desk, environment, path, Some(body), words).await
}

/// `kalends reload`.
///
/// # Errors
/// If the configuration has a mistake, here or where the process reads it, or the process does not answer or refuses.
pub async fn reload(args: &ReloadArgs, environment: &Environment) -> Result<Exit, Refused> {
    let config = args.desk.load(environment)?;
    let desk = Desk::process(&config)?;
    let answer = desk.ask("POST", "/api/v1/reload", None).await;
    desk.close().await;
    let answer = answer?;
    if args.desk.json {
        say(&format!("{answer}\n"));
    } else {
        say(&reloaded_words(&answer));
    }
    Ok(Exit::Done)
}

fn reloaded_words(answer: &Value) -> String {
    let list = |name: &str| -> Vec<&str> {
        let listed = answer[name].as_array().into_iter().flatten();
        listed.filter_map(Value::as_str).collect()
    };
    let (applied, kept) = (list("applied"), list("needs_restart"));
    let mut text = match (applied.is_empty(), kept.is_empty()) {
        (true, true) => "nothing has changed\n".to_owned(),
        (true, false) => String::new(),
        (false, _) => format!("in force now: {}\n", applied.join(", ")),
    };
    if !kept.is_empty() {
        let _ = writeln!(
            text,
            "changed, but only in force after a restart: {}",
            kept.join(", ")
        );
    }
    for warning in list("warnings") {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// `kalends limits`.
///
/// # Errors
/// As [`pause`].
pub async fn limits(args: &LimitsArgs, environment: &Environment) -> Result<Exit, Refused> {
    let Some(jobs) = &args.jobs else {
        return show_limits(args, environment).await;
    };
    let limit = match jobs.as_str() {
        "unlimited" => Value::Null,
        text => {
            let count: u32 = text.parse().map_err(|_| {
                Refused::bad_input("--jobs is neither a whole number nor unlimited")
            })?;
            json!({ "count": count, "window_ms": args.window_ms })
        }
    };
    let mut body = json!({ "jobs": limit });
    if let Some(source) = &args.source {
        body["source"] = json!(source);
    }
    let words = |_: &Value| match jobs.as_str() {
        "unlimited" => "syncs are unlimited now\n".to_owned(),
        count => format!("{count} syncs in {} ms from now on\n", args.window_ms),
    };
    let path = ("PUT", "/api/v1/limits");
    change(&args.desk, environment, path, Some(body), words).await
}

async fn look(args: &DeskArgs, config: &Config, path: &str) -> Result<Value, Refused> {
    let desk = Desk::to_look(config)?;
    let answer = desk.ask("GET", path, None).await;
    desk.close().await;
    let answer = answer?;
    if args.json {
        say(&format!("{answer}\n"));
    }
    Ok(answer)
}

fn limit_words(limit: &Value) -> String {
    match (limit["count"].as_u64(), limit["window_ms"].as_u64()) {
        (Some(count), Some(window_ms)) => format!("{count} in {window_ms} ms"),
        _ => "unlimited".to_owned(),
    }
}

async fn show_limits(args: &LimitsArgs, environment: &Environment) -> Result<Exit, Refused> {
    let config = args.desk.load(environment)?;
    let quiet = DeskArgs::default();
    let status = look(&quiet, &config, "/api/v1/status").await?;
    let wanted = args.source.as_deref();
    let sources = status["sources"].as_array().into_iter().flatten();
    let sources: Vec<&Value> = sources
        .filter(|source| wanted.is_none_or(|wanted| source["name"] == wanted))
        .collect();
    if args.desk.json {
        say(&format!("{}\n", json!({ "sources": sources })));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for source in sources {
        let settings = &source["settings"];
        let name = source["name"].as_str().unwrap_or_default();
        let started = &source["starts_in_window"];
        let _ = writeln!(
            text,
            "{name}: jobs {} ({started} started)",
            limit_words(&settings["jobs"])
        );
        let _ = writeln!(
            text,
            "  requests {}",
            limit_words(&settings["requests_project"])
        );
        let _ = writeln!(
            text,
            "  requests of a user {}",
            limit_words(&settings["requests_user"])
        );
        if let Some(reason) = source["paused"].as_str() {
            let _ = writeln!(text, "  paused: {reason}");
        }
        if let Some(until) = source["gate"]["until"].as_str() {
            let reason = source["gate"]["reason"]
                .as_str()
                .unwrap_or("no reason given");
            let _ = writeln!(text, "  limited until {until}: {reason}");
        }
    }
    say(&text);
    Ok(Exit::Done)
}

/// `kalends jobs`.
///
/// # Errors
/// As [`pause`].
pub async fn jobs(command: &JobsCommand, environment: &Environment) -> Result<Exit, Refused> {
    match command {
        JobsCommand::List(args) => list_jobs(args, environment).await,
        JobsCommand::Retry(args) => retry(args, environment).await,
        JobsCommand::Discard(args) => discard(args, environment).await,
        JobsCommand::Cancel(args) => cancel(args, environment).await,
    }
}

impl StateArg {
    fn word(self) -> &'static str {
        match self {
            StateArg::Active => "active",
            StateArg::Waiting => "waiting",
            StateArg::Delayed => "delayed",
            StateArg::Failed => "failed",
            StateArg::Completed => "completed",
        }
    }
}

async fn list_jobs(args: &JobsListArgs, environment: &Environment) -> Result<Exit, Refused> {
    const NOT_DONE: [StateArg; 4] = [
        StateArg::Active,
        StateArg::Waiting,
        StateArg::Delayed,
        StateArg::Failed,
    ];
    let config = args.desk.load(environment)?;
    let one = args.state.map(|state| [state]);
    let states = one
        .as_ref()
        .map_or(NOT_DONE.as_slice(), |one| one.as_slice());
    let mut jobs = Vec::new();
    let mut more = Vec::new();
    let quiet = DeskArgs::default();
    for state in states {
        let state = state.word();
        let path = format!(
            "/api/v1/jobs?state={state}&after={}&limit={}",
            args.after, args.limit
        );
        let mut page = look(&quiet, &config, &path).await?;
        if let Some(next) = page["next"].as_str() {
            more.push(json!({ "state": state, "after": next }));
        }
        if let Value::Array(listed) = page["jobs"].take() {
            jobs.extend(listed);
        }
    }
    if args.desk.json {
        say(&format!("{}\n", json!({ "jobs": jobs, "more": more })));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    if !jobs.is_empty() {
        let _ = writeln!(text, "STATE      NUMBER  AT                        JOB");
    }
    for job in &jobs {
        let word = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
        let number = job["number"]
            .as_u64()
            .map_or_else(String::new, |number| number.to_string());
        let what = match job["job"].as_str() {
            Some("fan_out") => format!("fan-out of {}", word("schedule")),
            _ => word("user"),
        };
        let error: String = word("error").chars().take(ERROR_CHARS_MAX).collect();
        let error = if error.is_empty() {
            error
        } else {
            format!(": {error}")
        };
        let (state, at) = (word("state"), word("at"));
        let _ = writeln!(text, "{state:9}  {number:>6}  {at:24}  {what}{error}");
    }
    let _ = writeln!(text, "{} jobs", jobs.len());
    for page in &more {
        let (state, after) = (&page["state"], &page["after"]);
        let (state, after) = (
            state.as_str().unwrap_or_default(),
            after.as_str().unwrap_or_default(),
        );
        let _ = writeln!(
            text,
            "more: kalends jobs list --state {state} --after {after}"
        );
    }
    say(&text);
    Ok(Exit::Done)
}

impl JobsFailedArgs {
    fn body(&self) -> Value {
        match self.number {
            Some(number) => json!({ "number": number }),
            None => json!({ "all": true }),
        }
    }
}

async fn discard(args: &JobsFailedArgs, environment: &Environment) -> Result<Exit, Refused> {
    let words = |answer: &Value| format!("{} failed jobs are forgotten\n", answer["discarded"]);
    let path = ("POST", "/api/v1/jobs/discard");
    change(&args.desk, environment, path, Some(args.body()), words).await
}

async fn retry(args: &JobsFailedArgs, environment: &Environment) -> Result<Exit, Refused> {
    let words = |answer: &Value| format!("{} jobs are tried again\n", answer["retried"]);
    let path = ("POST", "/api/v1/jobs/retry");
    change(&args.desk, environment, path, Some(args.body()), words).await
}

async fn cancel(args: &JobsCancelArgs, environment: &Environment) -> Result<Exit, Refused> {
    let body = json!({ "user": args.user, "schedule": args.schedule, "source": args.source });
    let words = |answer: &Value| format!("{} job cancelled\n", answer["cancelled"]);
    let path = ("POST", "/api/v1/jobs/cancel");
    change(
        &args.desk,
        environment,
        path,
        Some(without_nothing(body)),
        words,
    )
    .await
}

/// `kalends schedules`.
///
/// # Errors
/// As [`pause`].
pub async fn schedules(
    command: &SchedulesCommand,
    environment: &Environment,
) -> Result<Exit, Refused> {
    let path = |name: &str| {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        format!("/api/v1/schedules/{name}")
    };
    match command {
        SchedulesCommand::List(args) => {
            let config = args.desk.load(environment)?;
            let status = look(&DeskArgs::default(), &config, "/api/v1/status").await?;
            let schedules = &status["schedules"];
            if args.desk.json {
                say(&format!("{}\n", json!({ "schedules": schedules })));
                return Ok(Exit::Done);
            }
            let mut text = String::new();
            for schedule in schedules.as_array().into_iter().flatten() {
                text.push_str(&schedule_words(schedule));
            }
            say(&text);
            Ok(Exit::Done)
        }
        SchedulesCommand::Set(args) => {
            let body = without_nothing(json!({
                "cron": args.cron,
                "time_zone": args.time_zone,
                "catch_up": args.catch_up,
                "source": args.source,
            }));
            let path = path(&args.name);
            change(
                &args.desk,
                environment,
                ("PUT", &path),
                Some(body),
                schedule_words,
            )
            .await
        }
        SchedulesCommand::Remove(args) => {
            let words = |_: &Value| format!("{} is removed\n", args.name);
            let path = path(&args.name);
            change(&args.desk, environment, ("DELETE", &path), None, words).await
        }
    }
}

fn schedule_words(schedule: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("never").to_owned();
    let definition = &schedule["definition"];
    format!(
        "{}: {} at {} in {}; last tick {}, next {}\n",
        word(&schedule["name"]),
        word(&definition["source"]),
        word(&definition["cron"]),
        word(&definition["time_zone"]),
        word(&schedule["last_tick_at"]),
        word(&schedule["next_tick_at"])
    )
}

/// `kalends sync --all`.
///
/// # Errors
/// As [`pause`].
pub async fn sync_all(args: &DeskArgs, environment: &Environment) -> Result<Exit, Refused> {
    let words = |answer: &Value| {
        let (users, over_ms) = (&answer["users"], &answer["over_ms"]);
        format!(
            "{users} users are synced over the next {over_ms} ms, by whoever runs `kalends run`\n"
        )
    };
    let body = Some(json!({ "all": true }));
    change(args, environment, ("POST", "/api/v1/sync"), body, words).await
}
