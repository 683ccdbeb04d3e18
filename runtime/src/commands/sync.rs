//! `kalends sync USER`: one user, now, once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kalends_core::id::{SourceName, UserId};
use kalends_core::node::Node;
use kalends_core::node::io::Notice;
use kalends_core::port::Store as _;
use kalends_core::queue::command::{Command, CommitOutcome, NewJob, Priority, Reply};
use kalends_core::queue::state::JobKey;
use kalends_core::time::{Clock as _, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::SyncArgs;
use crate::clock::{SteadyClock, SystemClock};
use crate::config::{Config, load};
use crate::driver::{Effects, Ports, drive};
use crate::exit::Exit;
use crate::say::{complain, say};
use crate::wiring::{self, Refused};
use crate::{logging, notices};

/// How the sync ended.
#[derive(Clone, Debug)]
enum Ended {
    Done(CommitOutcome),
    Failed { detail: String, parked: bool },
}

/// Syncs one user of the configuration and prints how it went.
///
/// # Errors
/// If something is wrong with what the command was given, or another process has the store.
pub async fn sync(
    args: &SyncArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let loaded = load(&args.config.request(), environment)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    let config = loaded.config;
    logging::start(config.log);
    let user = configured(&config, &args.user)?;
    let wall = Arc::new(SystemClock);
    let source = wiring::google(&config, wall.clone())?;
    let store = wiring::store(&config.store.data_dir, wall).await?;
    let graph = wiring::graph(&config, &store)?;
    let seed = config.worker.seed.unwrap_or_else(wiring::fresh_seed);
    let mut settings = wiring::node_settings(&config, seed);
    // This process does one thing: no ticks, no other user, one slot.
    settings.schedules.clear();
    settings.fan_out_slots = 0;
    settings.concurrency = 1;
    settings.sources[0].enroll.clear();
    let defined = settings.sources[0].settings.clone();

    let configured = config.users.iter().find(|known| known.id == user);
    let grant = wiring::grant(&config, configured.expect("found before"));
    let name = SourceName::google_calendar();
    let now = SystemClock.now();
    let job = NewJob {
        user: user.clone(),
        run_at: now,
        nominal_at: None,
        priority: Priority::Now,
    };
    let commands = [
        Command::DefineSource {
            source: name.clone(),
            settings: defined,
        },
        Command::Enroll {
            source: name.clone(),
            users: vec![user.clone()],
            due_at: now,
        },
        Command::Connect {
            source: name.clone(),
            grants: vec![(user.clone(), grant)],
            due_at: now,
            force: true,
        },
        Command::Enqueue {
            source: name.clone(),
            jobs: vec![job],
            checkpoint: None,
        },
    ];
    for command in commands {
        let reply = store.apply(command).await;
        let failed = |detail: String| Refused {
            exit: Exit::Failed,
            detail,
        };
        match reply
            .map_err(|unavailable| failed(unavailable.detail))?
            .value
        {
            Reply::Refused { refusal } => return Err(failed(refusal.to_string())),
            _ => continue,
        }
    }

    let clock = SteadyClock::new(SystemClock.now(), 1);
    let (stop, stopped) = watch::channel(None);
    let stop = Arc::new(stop);
    let ended: Arc<Mutex<Option<Ended>>> = Arc::default();
    let key = JobKey::Sync { source: name, user };
    let ports = Ports {
        store: store.clone(),
        source: Arc::new(source),
        graph,
    };
    let shutdown_ms = config.worker.shutdown_ms;
    let interrupted = tokio::spawn(on_interrupt(Arc::clone(&stop), clock, shutdown_ms));
    let observe = {
        let ended = Arc::clone(&ended);
        move |_: &Node, notice: &Notice| {
            notices::log(notice);
            if let Some(end) = end_of(notice, &key) {
                ended
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(end);
                stop.send_replace(Some(clock.now().plus_ms(shutdown_ms)));
            }
        }
    };
    let node = Node::new(clock.now(), settings);
    let driven = drive(
        node,
        ports,
        clock,
        stopped,
        Arc::new(Effects::default()),
        observe,
    );
    let driven = wiring::while_stored(&store, driven).await;
    interrupted.abort();
    store.close().await;
    driven?;
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(tell(args, ended))
}

fn configured(config: &Config, wanted: &str) -> Result<UserId, Refused> {
    let found = config.users.iter().find(|user| user.id.as_str() == wanted);
    found.map(|user| user.id.clone()).ok_or_else(|| {
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
        Refused::bad_input(format!(
            "{wanted}: no such user is configured; known are {known}{}",
            if config.users.len() > 5 { ", ..." } else { "" }
        ))
    })
}

async fn on_interrupt(
    stop: Arc<watch::Sender<Option<Timestamp>>>,
    clock: SteadyClock,
    shutdown_ms: u64,
) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.send_replace(Some(clock.now().plus_ms(shutdown_ms)));
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
        } if key == wanted => Some(Ended::Failed {
            detail: format!(
                "asked to slow down until {until} ({detail}); the sync stays in the queue, and goes on by \
                 `kalends run` or another `kalends sync` then"
            ),
            parked: false,
        }),
        _ => None,
    }
}

fn tell(args: &SyncArgs, ended: Option<Ended>) -> Exit {
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
                    args.user,
                    if *full { " (full pass)" } else { "" }
                ),
                CommitOutcome::Skipped { note } => format!("{} skipped: {note}", args.user),
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
            let words = format!("{} failed: {detail}{hint}", args.user);
            let value =
                serde_json::json!({ "outcome": "failed", "error": detail, "parked": parked });
            (value, words, Exit::Failed)
        }
        None => {
            let words = format!("{} interrupted: the job stays in the queue", args.user);
            (
                serde_json::json!({ "outcome": "interrupted" }),
                words,
                Exit::Failed,
            )
        }
    };
    if args.json {
        say(&format!("{json}\n"));
    } else if exit == Exit::Done {
        say(&format!("{words}\n"));
    } else {
        complain(&format!("{words}\n"));
    }
    exit
}
