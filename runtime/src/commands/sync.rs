//! `kalends sync USER`: one user, now, once.
//!
//! The job goes into the queue before all that are only scheduled, and this process runs it with a node of one slot. A
//! queue in Redis is shared, so another process may take the job first: then the user's state tells how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kalends_core::id::{SourceName, UserId};
use kalends_core::node::io::Notice;
use kalends_core::port::Store;
use kalends_core::queue::command::{Command, CommitOutcome, NewJob, Priority, Reply};
use kalends_core::queue::state::{JobKey, JobListing, JobState, UserState};
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::accounts::{Register, Tokens};
use crate::cli::SyncArgs;
use crate::clock::SystemClock;
use crate::commands::operate::{self, Desk};
use crate::commands::users::is_in_use;
use crate::config::Config;
use crate::driver::Ports;
use crate::exit::Exit;
use crate::handle::{Why, start_observed};
use crate::logging;
use crate::say::{complain, say};
use crate::wiring::{self, Queue, Refused};

/// How often a shared queue is asked whether another process has done it, in milliseconds.
const LOOK_MS: u64 = SECOND_MS / 2;
/// For so long a sync in a shared queue is waited for, in milliseconds.
const WAIT_MS_MAX: u64 = 30 * MINUTE_MS;
/// Finished jobs that are looked through for the user's: more cannot finish between two looks.
const FINISHED_LOOKED_AT: u32 = 200;

/// How the sync ended.
#[derive(Clone, Debug, PartialEq)]
enum Ended {
    Done(CommitOutcome),
    Failed { detail: String, parked: bool },
}

/// Syncs one user of the configuration and prints how it went.
///
/// # Errors
/// If something is wrong with what the command was given, another process has the store, or it does not answer.
pub async fn sync(
    args: &SyncArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let Some(named) = &args.user else {
        return operate::sync_all(&args.desk, environment).await;
    };
    let config = args.desk.load(environment)?;
    logging::start(config.log);
    let register = Register::open(&config)?;
    let (user, grant) = known(&config, &register, named).await?;
    if config.redis.is_none() && is_in_use(&config.store.data_dir) {
        return by_running(args, &config, &user).await;
    }
    let wall = Arc::new(SystemClock);
    let tokens = Arc::new(Tokens::new(register.clone()));
    let source = wiring::google_with(&config, wall.clone(), tokens)?;
    let queue = Queue::open(&config, wall).await?;
    let graph = wiring::graph(&config, &queue, &register)?;
    if let Some(detail) = queue.check().await? {
        return Err(failed(detail));
    }
    let seed = config.worker.seed.unwrap_or_else(wiring::fresh_seed);
    let mut settings = wiring::node_settings(&config, seed);
    // This process does one thing: no ticks, no other user, one slot.
    settings.schedules.clear();
    settings.fan_out_slots = 0;
    settings.concurrency = 1;
    settings.sources[0].enroll.clear();
    let name = SourceName::google_calendar();
    let define = Command::DefineSource {
        source: name.clone(),
        settings: settings.sources[0].settings.clone(),
    };
    let enqueued_at = enqueue(&*queue.store(), &user, grant, define).await?;

    let key = JobKey::Sync { source: name, user };
    let ports = Ports {
        store: queue.store(),
        source: Arc::new(source),
        graph,
    };
    let (tell_end, mut own_end) = watch::channel(None);
    let wanted = key.clone();
    let handle = start_observed(settings, ports, move |notice| {
        if let Some(end) = end_of(notice, &wanted) {
            tell_end.send_if_modified(|first| first.is_none() && first.replace(end).is_none());
        }
    });
    let waited = async {
        tokio::select! {
            Ok(end) = own_end.wait_for(Option::is_some) => end.clone(),
            end = ended_elsewhere(&queue, &key, enqueued_at) => Some(end),
            () = interrupted() => None,
            // Told below.
            _ = handle.stopped() => None,
        }
    };
    let waited = queue.serving(waited).await;
    let why = match &waited {
        Ok(_) => {
            queue
                .serving(handle.shutdown(config.worker.shutdown_ms))
                .await
        }
        Err(refused) => Err(refused.clone()),
    };
    handle.abandon();
    queue.close().await;
    if let Why::Fault(detail) = why? {
        return Err(failed(detail));
    }
    // An interruption lets the sync finish, if it does so in time.
    let late = own_end.borrow().clone();
    Ok(tell(args, named, waited?.or(late)))
}

/// The process that has the store is asked, and how it goes is told by its log, `kalends users show` and the page.
async fn by_running(args: &SyncArgs, config: &Config, user: &UserId) -> Result<Exit, Refused> {
    let desk = Desk::to_change(config).await?;
    let body = serde_json::json!({ "user": user });
    let answer = desk.ask("POST", "/api/v1/sync", Some(&body)).await;
    let is_remote = desk.is_remote();
    desk.close().await;
    let answer = answer?;
    if args.desk.json {
        say(&format!("{answer}\n"));
    } else {
        let by = if is_remote {
            "the running process does it"
        } else {
            "the next `kalends run` does it"
        };
        say(&format!(
            "{user} is to be synced now: {by}; `kalends users show {user}` tells how it went\n"
        ));
    }
    Ok(Exit::Done)
}

fn failed(detail: impl Into<String>) -> Refused {
    Refused {
        exit: Exit::Failed,
        detail: detail.into(),
    }
}

/// Makes the user known and connected, and puts the job into the queue; when that was, by the store's clock.
async fn enqueue(
    store: &dyn Store,
    user: &UserId,
    grant: Option<u64>,
    define: Command,
) -> Result<Timestamp, Refused> {
    let source = SourceName::google_calendar;
    let now = apply(store, define).await?;
    let job = NewJob {
        user: user.clone(),
        run_at: now,
        nominal_at: None,
        priority: Priority::Now,
    };
    let commands = [
        Command::Enroll {
            source: source(),
            users: vec![user.clone()],
            due_at: now,
        },
        Command::Connect {
            source: source(),
            grants: grant.iter().map(|grant| (user.clone(), *grant)).collect(),
            due_at: now,
            force: true,
        },
        Command::Enqueue {
            source: source(),
            jobs: vec![job],
            checkpoint: None,
        },
    ];
    for command in commands {
        apply(store, command).await?;
    }
    Ok(now)
}

/// Applies a command that is not refused in good order; when, by the store's clock.
async fn apply(store: &dyn Store, command: Command) -> Result<Timestamp, Refused> {
    let stamped = store.apply(command).await;
    let stamped = stamped.map_err(|unavailable| failed(unavailable.detail))?;
    match stamped.value {
        Reply::Refused { refusal } => Err(failed(refusal.to_string())),
        _ => Ok(stamped.now),
    }
}

/// Waits until a shared queue says that the sync has ended, here or elsewhere. A queue of this process's own has nothing
/// to tell that its node does not.
async fn ended_elsewhere(queue: &Queue, key: &JobKey, enqueued_at: Timestamp) -> Ended {
    if !queue.is_shared() {
        return std::future::pending().await;
    }
    let store = queue.store();
    let look = async {
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            // A store that is away may come back; the node says in the log that it is.
            if let Some(end) = look(&*store, key, enqueued_at).await {
                return end;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_millis(WAIT_MS_MAX), look).await;
    waited.unwrap_or_else(|_| Ended::Failed {
        detail: format!(
            "it did not end within {} minutes; the sync stays in the queue, `kalends status` shows what holds it up",
            WAIT_MS_MAX / MINUTE_MS
        ),
        parked: false,
    })
}

async fn look(store: &dyn Store, key: &JobKey, enqueued_at: Timestamp) -> Option<Ended> {
    let JobKey::Sync { source, user } = key else {
        panic!("only users are synced by hand, not {key}");
    };
    let asked = Command::User {
        source: source.clone(),
        user: user.clone(),
    };
    let stamped = store.apply(asked).await.ok()?;
    let Reply::User { state } = stamped.value else {
        return None;
    };
    let Some(state) = state else {
        return Some(Ended::Failed {
            detail: "the user was taken out of the queue meanwhile".to_owned(),
            parked: false,
        });
    };
    if let Some(end) = end_in_state(&state, stamped.now, enqueued_at) {
        return Some(end);
    }
    let started_at = state.last_started_at.filter(|at| *at >= enqueued_at)?;
    for finished in [JobState::Completed, JobState::Failed] {
        let listing = Command::Jobs {
            state: finished,
            offset: 0,
            limit: FINISHED_LOOKED_AT,
        };
        let Reply::Jobs { jobs } = store.apply(listing).await.ok()?.value else {
            return None;
        };
        let newest = jobs.into_iter().find(|job| job.key == *key);
        if let Some(job) = newest.filter(|job| job.at >= started_at) {
            return Some(end_in_history(job));
        }
    }
    None
}

/// How the sync ended, as far as the user's state tells; `None`: it does not tell.
fn end_in_state(state: &UserState, now: Timestamp, enqueued_at: Timestamp) -> Option<Ended> {
    if state.parked.is_some() {
        let detail = state.last_error.clone();
        return Some(Ended::Failed {
            detail: detail.unwrap_or_else(|| "the user is parked".to_owned()),
            parked: true,
        });
    }
    let started_at = state.last_started_at.filter(|at| *at >= enqueued_at)?;
    if let Some(until) = state.gate_until.filter(|until| *until > now) {
        return Some(limited(until, "by another process"));
    }
    if state.last_success_at.is_some_and(|at| at >= started_at) {
        return state.last_outcome.clone().map(Ended::Done);
    }
    None
}

fn end_in_history(job: JobListing) -> Ended {
    match job.outcome {
        Some(outcome) => Ended::Done(outcome),
        None => Ended::Failed {
            detail: job.error.unwrap_or_else(|| "no reason given".to_owned()),
            parked: false,
        },
    }
}

fn limited(until: Timestamp, detail: &str) -> Ended {
    Ended::Failed {
        detail: format!(
            "asked to slow down until {until} ({detail}); the sync stays in the queue, and goes on by \
             `kalends run` or another `kalends sync` then"
        ),
        parked: false,
    }
}

async fn interrupted() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// The user of that name, with a hash of the grant: of the configuration, else of the register.
async fn known(
    config: &Config,
    register: &Register,
    wanted: &str,
) -> Result<(UserId, Option<u64>), Refused> {
    let found = config.users.iter().find(|user| user.id.as_str() == wanted);
    if let Some(user) = found {
        return Ok((user.id.clone(), Some(wiring::grant(config, user))));
    }
    if let Ok(user) = UserId::new(wanted) {
        let found = register.accounts().find(&user).await;
        let found = found.map_err(|unavailable| failed(unavailable.detail))?;
        if let Some(stored) = found {
            register
                .load_databases(&user)
                .await
                .map_err(|unavailable| failed(unavailable.detail))?;
            let own = stored.account.grant.map(|grant| grant.fingerprint);
            return Ok((user, wiring::common_grant(config).or(own)));
        }
    }
    let known: Vec<&str> = config
        .users
        .iter()
        .take(5)
        .map(|user| user.id.as_str())
        .collect();
    let known = if known.is_empty() {
        "nobody".to_owned()
    } else {
        known.join(", ")
    };
    Err(Refused::bad_input(format!(
        "{wanted}: no such user is configured or was added by `kalends users`; known are {known}{}",
        if config.users.len() > 5 { ", ..." } else { "" }
    )))
}

fn end_of(notice: &Notice, wanted: &JobKey) -> Option<Ended> {
    match notice {
        Notice::JobDone { key, outcome, .. } if key == wanted => Some(Ended::Done(outcome.clone())),
        Notice::JobFailed {
            key,
            failure,
            parked,
        } if key == wanted => Some(Ended::Failed {
            detail: failure.detail.clone(),
            parked: *parked,
        }),
        Notice::Limited {
            key, until, detail, ..
        } if key == wanted => Some(limited(*until, detail)),
        _ => None,
    }
}

fn tell(args: &SyncArgs, user: &str, ended: Option<Ended>) -> Exit {
    let (json, words, exit) = match ended {
        Some(Ended::Done(outcome)) => {
            let words = match &outcome {
                CommitOutcome::Synced {
                    upserted,
                    deleted,
                    quarantined,
                    requests,
                    full,
                } => format!(
                    "{} synced: {upserted} events written, {deleted} removed, {quarantined} set aside as invalid, \
                     {requests} requests{}",
                    user,
                    if *full { " (full pass)" } else { "" }
                ),
                CommitOutcome::Skipped { note } => format!("{} skipped: {note}", user),
                CommitOutcome::FannedOut { .. } => panic!("a user's sync is no fan-out"),
            };
            let value = serde_json::to_value(&outcome).expect("plain values always become JSON");
            (value, words, Exit::Done)
        }
        Some(Ended::Failed { detail, parked }) => {
            let hint = if parked {
                "; the user must connect again"
            } else {
                ""
            };
            let words = format!("{} failed: {detail}{hint}", user);
            let value =
                serde_json::json!({ "outcome": "failed", "error": detail, "parked": parked });
            (value, words, Exit::Failed)
        }
        None => {
            let words = format!("{} interrupted: the job stays in the queue", user);
            (
                serde_json::json!({ "outcome": "interrupted" }),
                words,
                Exit::Failed,
            )
        }
    };
    if args.desk.json {
        say(&format!("{json}\n"));
    } else if exit == Exit::Done {
        say(&format!("{words}\n"));
    } else {
        complain(&format!("{words}\n"));
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::queue::command::ParkReason;

    const BEFORE: Timestamp = Timestamp::from_ms(1_000);
    const ENQUEUED: Timestamp = Timestamp::from_ms(2_000);
    const STARTED: Timestamp = Timestamp::from_ms(3_000);
    const NOW: Timestamp = Timestamp::from_ms(4_000);

    fn skipped() -> CommitOutcome {
        CommitOutcome::Skipped {
            note: "x".to_owned(),
        }
    }

    fn user() -> UserState {
        UserState {
            enrolled_at: BEFORE,
            due_at: BEFORE,
            parked: None,
            grant: None,
            cursor: None,
            last_started_at: Some(BEFORE),
            last_success_at: Some(BEFORE),
            last_outcome: Some(skipped()),
            last_error: None,
            gate_until: None,
            limited_in_a_row: 0,
        }
    }

    #[test]
    fn only_a_sync_that_began_after_it_was_asked_for_counts() {
        let end = |state: &UserState| end_in_state(state, NOW, ENQUEUED);
        assert_eq!(end(&user()), None);
        // One that ran already when it was asked for is followed by another.
        let earlier = UserState {
            last_success_at: Some(NOW),
            ..user()
        };
        assert_eq!(end(&earlier), None);
        let running = UserState {
            last_started_at: Some(STARTED),
            ..user()
        };
        assert_eq!(end(&running), None);
        let done = UserState {
            last_success_at: Some(NOW),
            ..running.clone()
        };
        assert_eq!(end(&done), Some(Ended::Done(skipped())));
        let parked = UserState {
            parked: Some(ParkReason::NeedsReauth),
            last_error: Some("revoked".to_owned()),
            ..user()
        };
        let expected = Ended::Failed {
            detail: "revoked".to_owned(),
            parked: true,
        };
        assert_eq!(end(&parked), Some(expected));
        let gate = |until| UserState {
            gate_until: Some(until),
            ..running.clone()
        };
        assert_eq!(end(&gate(NOW)), None);
        assert!(matches!(
            end(&gate(NOW.plus_ms(1))),
            Some(Ended::Failed { parked: false, .. })
        ));
    }
}
