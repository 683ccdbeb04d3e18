//! `kalends run`: sync all users by the schedule, until told to stop.
//!
//! What a person has to put right is found before anything is started, and ends the process with 2. A Redis that is not
//! there is no such thing: the process starts, says so, and begins when it comes.
//!
//! SIGTERM and SIGINT end it in good order, SIGHUP has it read its configuration again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kalends_core::id::WorkerId;
use kalends_core::node::HAND_BACK_MS;
use kalends_core::node::io::Notice;
use kalends_core::time::Clock as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::accounts::{Follow, Register, Tokens, follow};
use crate::cli::RunArgs;
use crate::clock::SystemClock;
use crate::config::{Config, load};
use crate::driver::Ports;
use crate::exit::Exit;
use crate::handle::{Handle, Readiness, Why, start_named};
#[cfg(feature = "otel")]
use crate::otlp;
use crate::record::{Bounds, Recorder};
use crate::reload::{InForce, Reloader};
use crate::spans::UserNames;
use crate::supervisor::{Supervisor, describe};
use crate::web::{self, Hooks, Web, WebSettings};
use crate::wiring::{self, Queue, Refused};
use crate::{logging, metrics::Metrics};

/// At the end, what the webhook has accepted is waited for so long until it is asked for, in milliseconds: mostly it is already.
const HEARD_MS_MAX: u64 = 1_000;

/// Runs until SIGTERM or SIGINT; everything is checked before anything is started.
///
/// # Errors
/// If something is wrong with what the process was given.
pub async fn run(args: &RunArgs, environment: &BTreeMap<String, String>) -> Result<Exit, Refused> {
    let loaded = load(&args.request(), environment)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    let config = Arc::new(loaded.config);
    #[cfg(feature = "otel")]
    let (traces, collected) = match config.telemetry.otlp_endpoint {
        Some(_) => {
            let (layer, collected) = otlp::collect(wiring::fresh_seed());
            (Some(layer), Some(collected))
        }
        None => (None, None),
    };
    #[cfg(not(feature = "otel"))]
    let traces = None;
    let level = logging::start_with(config.log, traces);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Before anything is opened or started, so that a signal at any time after this ends the process in good order.
    let mut signals = Signals::hear()?;
    let hangups = hear(SignalKind::hangup())?;
    let supervisor = Arc::new(Supervisor::of(environment));
    let listener = match config.http.listen {
        Some(listen) => Some(web::bind(listen).await?),
        None => None,
    };
    let hooks = match &config.push {
        Some(push) => Some(web::bind_for("push.listen", push.listen).await?),
        None => None,
    };
    let wall = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new(wall.now(), config.worker.concurrency));
    let register = Register::open(&config)?;
    let tokens = Arc::new(Tokens::new(register.clone()));
    let source =
        wiring::google_with(&config, wall.clone(), tokens)?.observed_by(metrics.google_observer());
    let queue = Queue::open(&config, wall).await?;
    let graph = wiring::graph(&config, &queue, &register)?;
    let away = tokio::select! {
        checked = queue.check() => checked?,
        name = signals.next() => {
            tracing::info!("{name}: stopped before anything was started");
            return Ok(Exit::Done);
        }
    };
    let seed = config.worker.seed.unwrap_or_else(wiring::fresh_seed);
    let settings = wiring::node_settings(&config, seed);
    tracing::info!(
        worker = %settings.worker, seed, users = config.users.len(),
        schedule = %config.schedule.definition, store = %described(&config),
        "started"
    );
    match &away {
        None => forget_removed_users(&queue, &register).await,
        Some(detail) => {
            tracing::warn!("the store is not there yet, work begins when it comes: {detail}");
        }
    }
    let followed_graph = Arc::clone(&graph);
    let ports = metrics.around(Ports {
        store: queue.store(),
        source: Arc::new(source),
        graph,
    });
    let source_port = Arc::clone(&ports.source);
    let worker = settings.worker.clone();
    #[cfg(feature = "otel")]
    let export = match (collected, &config.telemetry.otlp_endpoint) {
        (Some(collected), Some(endpoint)) => {
            tracing::info!("traces go to {endpoint}");
            Some(collected.export(endpoint, worker.as_str())?)
        }
        _ => None,
    };
    let (recorder, journal) = match &config.record {
        None => (None, None),
        Some(file) => {
            let (recorder, journal) = Recorder::start(file, &settings, Bounds::default())?;
            tracing::info!(file = %file.display(), "recorded; names are hidden in it, FILE.key is for you alone");
            (Some(recorder), Some(journal))
        }
    };
    let observed = Arc::clone(&metrics);
    let observe = move |notice: &Notice| observed.observe(notice);
    let names = register.keys();
    let names = names.map_or_else(|_| UserNames::drawn(), UserNames::of);
    let handle = Arc::new(start_named(settings, ports, observe, recorder, names));
    let mut tasks = tokio::task::JoinSet::new();
    let reloader = Arc::new(Reloader::new(
        args.request(),
        environment.clone(),
        InForce {
            config: (*config).clone(),
            store: queue.store(),
            register: register.clone(),
            level,
            handle: Some((*handle).clone()),
        },
    ));
    if let Some(listener) = listener {
        let settings = web_settings(&config, &listener, worker, seed, &reloader)?;
        let address = settings.address;
        tracing::info!("page, API, /metrics, /healthz and /readyz are served at http://{address}");
        let web = Web::new(
            settings,
            queue.store(),
            handle.readiness_changes(),
            Arc::clone(&metrics),
        );
        tasks.spawn(web::serve(listener, web));
    }
    let mut listening = None;
    if let (Some(listener), Some(webhook)) = (hooks, wiring::webhook(&config)?) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("notifications of changes come in at http://{address}");
        }
        let hooks = Hooks {
            webhook,
            readiness: handle.readiness_changes(),
            store: queue.store(),
            source: source_port,
            source_name: config.schedule.definition.source.clone(),
            metrics: Arc::clone(&metrics),
            connections_per_address_max: config
                .push
                .as_ref()
                .and_then(|push| push.connections_per_address_max),
        };
        listening = Some(tokio::spawn(web::serve_webhook(listener, hooks)));
    }
    if away.is_some() {
        tasks.spawn(forget_when_ready(
            Arc::clone(&handle),
            queue.clone(),
            register.clone(),
        ));
    }
    tasks.spawn({
        let (reloader, boots) = (Arc::clone(&reloader), handle.boots());
        async move { reloader.keep_defined(boots).await }
    });
    tasks.spawn({
        let (supervisor, changes) = (Arc::clone(&supervisor), handle.readiness_changes());
        async move { supervisor.keep_told(changes).await }
    });
    tasks.spawn(reload_at_hangups(
        hangups,
        Arc::clone(&reloader),
        Arc::clone(&supervisor),
        handle.readiness_changes(),
    ));
    tasks.spawn(follow_when_ready(
        Arc::clone(&handle),
        Follow {
            store: queue.store(),
            graph: followed_graph,
            common_grant: wiring::common_grant(&config),
            schedule: reloader.schedule(),
            seed,
            lease_ms: config.worker.lease_ms,
            register,
        },
    ));
    tasks.spawn(stop_at_signals(
        signals,
        Arc::clone(&handle),
        Arc::clone(&supervisor),
        config.worker.shutdown_ms,
    ));
    supervisor.ready(&describe(&handle.readiness()));
    let ended = queue.serving(handle.stopped()).await;
    handle.abandon();
    if let Some(mut listening) = listening {
        // What Google was told is heard has to be asked for, as nobody else will before the next poll.
        let limit = Duration::from_millis(HEARD_MS_MAX);
        if tokio::time::timeout(limit, &mut listening).await.is_err() {
            listening.abort();
        }
    }
    tasks.shutdown().await;
    queue.close().await;
    if let Some(journal) = journal {
        journal.closed().await;
    }
    #[cfg(feature = "otel")]
    if let Some(export) = export {
        export.close().await;
    }
    match ended? {
        Why::Asked => {
            tracing::info!("stopped; schedules and waiting jobs stay in the store");
            Ok(Exit::Done)
        }
        Why::Fault(detail) => Err(Refused {
            exit: Exit::Failed,
            detail,
        }),
    }
}

fn web_settings(
    config: &Config,
    listener: &TcpListener,
    worker: WorkerId,
    seed: u64,
    reloader: &Arc<Reloader>,
) -> Result<WebSettings, Refused> {
    let address = listener.local_addr().map_err(|error| Refused {
        exit: Exit::Failed,
        detail: format!("http.listen: the port that was taken is not known: {error}"),
    })?;
    Ok(WebSettings {
        address,
        token: config.http.token.clone(),
        hosts: config.http.hosts.clone(),
        worker,
        source: config.schedule.definition.source.clone(),
        spread: config.schedule.spread,
        jitter: config.schedule.jitter,
        seed,
        reloader: Some(Arc::clone(reloader)),
        requests: WebSettings::REQUESTS,
        changes: WebSettings::CHANGES,
        bounds: WebSettings::BOUNDS,
        connections_per_address_max: config.http.connections_per_address_max,
    })
}

/// Where the queue is, for the log.
fn described(config: &Config) -> String {
    match &config.redis {
        Some(redis) => format!("{} {}", redis.address(), redis.prefix),
        None => config.store.data_dir.display().to_string(),
    }
}

/// Once a start and never later: in a rolling deploy the older processes must not undo what the newer ones, with their
/// newer list of users, have done.
async fn forget_removed_users(queue: &Queue, register: &Register) {
    // An empty list in one process of many is rather a mistake than the wish to begin anew with everybody.
    if queue.is_shared() && register.configured().count() == 0 {
        tracing::info!("no users are configured here; those that the store knows stay");
        return;
    }
    match wiring::forget_removed_users(&*queue.store(), register).await {
        Ok(0) => {}
        Ok(users) => tracing::info!(users, "no longer configured: not synced any more"),
        Err(unavailable) => tracing::warn!("removed users stay for now: {unavailable}"),
    }
}

async fn follow_when_ready(handle: Arc<Handle>, settings: Follow) {
    let mut changes = handle.readiness_changes();
    let ready = changes.wait_for(|readiness| *readiness == Readiness::Ready);
    if ready.await.is_ok() {
        follow(settings).await;
    }
}

async fn forget_when_ready(handle: Arc<Handle>, queue: Queue, register: Register) {
    let mut changes = handle.readiness_changes();
    let ready = changes.wait_for(|readiness| *readiness == Readiness::Ready);
    if ready.await.is_ok() {
        forget_removed_users(&queue, &register).await;
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

fn hear(kind: SignalKind) -> Result<Signal, Refused> {
    signal(kind).map_err(|error| Refused {
        exit: Exit::Failed,
        detail: format!("signals cannot be heard here: {error}"),
    })
}

impl Signals {
    fn hear() -> Result<Self, Refused> {
        Ok(Signals {
            term: hear(SignalKind::terminate())?,
            int: hear(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

async fn stop_at_signals(
    mut signals: Signals,
    handle: Arc<Handle>,
    supervisor: Arc<Supervisor>,
    shutdown_ms: u64,
) {
    let name = signals.next().await;
    tracing::info!(
        shutdown_ms,
        "{name}: no new syncs; running ones finish or are handed back; again to hand back at once"
    );
    supervisor.stopping(shutdown_ms);
    handle.begin_shutdown(shutdown_ms);
    signals.next().await;
    handle.begin_shutdown(HAND_BACK_MS);
}

async fn reload_at_hangups(
    mut hangups: Signal,
    reloader: Arc<Reloader>,
    supervisor: Arc<Supervisor>,
    readiness: watch::Receiver<Readiness>,
) {
    while hangups.recv().await.is_some() {
        supervisor.reloading();
        // What was applied is in the log already.
        if let Err(error) = reloader.reload().await {
            tracing::error!("SIGHUP: {error}");
        }
        let detail = describe(&readiness.borrow());
        supervisor.ready(&detail);
    }
}
