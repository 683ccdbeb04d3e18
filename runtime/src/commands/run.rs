//! `kalends run`: sync all users by the schedule, until told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use kalends_core::node::Node;
use kalends_core::node::io::Notice;
use kalends_core::time::Clock as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::RunArgs;
use crate::clock::{SteadyClock, SystemClock};
use crate::config::load;
use crate::driver::{Effects, Ports, drive};
use crate::exit::Exit;
use crate::wiring::{self, Refused};
use crate::{logging, notices};

/// Runs until SIGTERM or SIGINT; everything is checked before anything is started.
///
/// # Errors
/// If something is wrong with what the process was given.
pub async fn run(args: &RunArgs, environment: &BTreeMap<String, String>) -> Result<Exit, Refused> {
    let loaded = load(&args.request(), environment)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    let config = loaded.config;
    logging::start(config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Before anything is opened or started, so that a signal at any time after this ends the process in good order.
    let unheard = |error: std::io::Error| Refused {
        exit: Exit::Failed,
        detail: format!("signals cannot be heard here: {error}"),
    };
    let mut term = signal(SignalKind::terminate()).map_err(unheard)?;
    let mut int = signal(SignalKind::interrupt()).map_err(unheard)?;
    let wall = Arc::new(SystemClock);
    let source = wiring::google(&config, wall.clone())?;
    let store = wiring::store(&config.store.data_dir, wall).await?;
    let graph = wiring::graph(&config, &store)?;
    let seed = config.worker.seed.unwrap_or_else(wiring::fresh_seed);
    let settings = wiring::node_settings(&config, seed);
    tracing::info!(
        worker = %settings.worker, seed, users = config.users.len(),
        schedule = %config.schedule.definition, data_dir = %config.store.data_dir.display(),
        "started"
    );
    let forgotten = wiring::forget_removed_users(&store, &config).await;
    match forgotten {
        Ok(0) => {}
        Ok(users) => tracing::info!(users, "no longer configured: not synced any more"),
        Err(unavailable) => tracing::warn!("removed users stay for now: {unavailable}"),
    }
    let ports = Ports {
        store: store.clone(),
        source: Arc::new(source),
        graph,
    };
    let clock = SteadyClock::new(SystemClock.now(), 1);
    let (stop, stopped) = watch::channel(None);
    let shutdown_ms = config.worker.shutdown_ms;
    let signals = tokio::spawn(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!(
            shutdown_ms,
            "{name}: no new syncs; running ones finish or are handed back; again to hand back at once"
        );
        stop.send_replace(Some(clock.now().plus_ms(shutdown_ms)));
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.send_replace(Some(clock.now().plus_ms(kalends_core::node::HAND_BACK_MS)));
        std::future::pending::<()>().await;
    });
    let node = Node::new(clock.now(), settings);
    let effects = Arc::new(Effects::default());
    let driven = drive(
        node,
        ports,
        clock,
        stopped,
        effects,
        |_, notice: &Notice| notices::log(notice),
    );
    let driven = wiring::while_stored(&store, driven).await;
    signals.abort();
    store.close().await;
    driven?;
    tracing::info!("stopped; schedules and waiting jobs stay in the store");
    Ok(Exit::Done)
}
