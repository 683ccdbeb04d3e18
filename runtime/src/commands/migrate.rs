//! `kalends migrate --from bullmq`: reads the queue of the service that Kalends replaces, says what becomes of it, and,
//! unless it is a dry run, applies that to the configured store.
//!
//! In order: the configuration is checked, BullMQ's queue is read whole, then the store is opened, and only then something
//! is written, to the store alone. So whatever is wrong with what the command was given is told before anything changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use kalends_adapters::bullmq::{BullmqError, BullmqQueue, Counts, JobSet};
use kalends_adapters::embedded::{EmbeddedStore, OpenError};
use kalends_adapters::secret::Secret;
use kalends_core::id::SourceName;
use kalends_core::port::Store;
use kalends_core::queue::command::{BATCH_MAX, Command, Reply};
use kalends_core::time::{Clock as _, Timestamp};

use crate::cli::MigrateArgs;
use crate::clock::SystemClock;
use crate::config::{Config, load};
use crate::exit::Exit;
use crate::logging;
use crate::migrate::Obstacle;
use crate::migrate::plan::{Change, Configured, Plan, Target};
use crate::migrate::planner::Planner;
use crate::migrate::report::{Applied, Report};
use crate::migrate::whose::Reading;
use crate::say::say;
use crate::wiring::{Queue, Refused};

/// The most jobs of one state that are read; what a queue has beyond is told as a problem.
const JOBS_MAX: u64 = 10_000_000;

impl From<BullmqError> for Refused {
    fn from(error: BullmqError) -> Self {
        let exit = match error {
            BullmqError::Away { .. } => Exit::Failed,
            BullmqError::Wrong { .. } => Exit::BadInput,
        };
        Refused {
            exit,
            detail: error.to_string(),
        }
    }
}

/// Takes a queue over, or says what that would do.
///
/// # Errors
/// If something is wrong with what the command was given, the old service still runs, or a server or store is away.
pub async fn migrate(
    args: &MigrateArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let loaded = load(&args.config.request(), environment)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    let config = loaded.config;
    logging::start(config.log);
    let url = address(args, &config)?;
    let bullmq = BullmqQueue::connect(&url, &args.bullmq_prefix, &args.queue).await?;
    let counts = bullmq.counts().await?;
    if !args.dry_run {
        refuse_while_running(&counts)?;
    }
    let now = SystemClock.now();
    let planner = read(args, &config, &bullmq, &counts, now).await?;

    let from = format!(
        "BullMQ queue {} (prefix {})",
        args.queue, args.bullmq_prefix
    );
    let to = match &config.redis {
        Some(redis) => format!("the Redis at {}, prefix {}", redis.address(), redis.prefix),
        None => format!("the store in {}", config.store.data_dir.display()),
    };
    let report = |plan: &Plan, target: &Target, applied: Option<Applied>| {
        let report = Report {
            from: &from,
            to: &to,
            now,
            counts: &counts,
            plan,
            target,
            applied,
        };
        if args.json {
            say(&format!("{}\n", report.json()));
        } else {
            say(&report.words());
        }
        if plan.problems_total() == 0 {
            Exit::Done
        } else {
            Exit::Failed
        }
    };
    if args.dry_run {
        let target = look(&config).await?;
        let plan = noted(planner.finish(&target), args, &counts);
        return Ok(report(&plan, &target, None));
    }
    let queue = Queue::open(&config, Arc::new(SystemClock)).await?;
    let done = async {
        if let Some(detail) = queue.check().await? {
            return Err(Refused {
                exit: Exit::Failed,
                detail,
            });
        }
        let store = queue.store();
        let target = target(&*store).await?;
        let mut plan = noted(planner.finish(&target), args, &counts);
        let applied = apply(&*store, &config, &mut plan, now).await?;
        Ok(report(&plan, &target, Some(applied)))
    };
    let done = done.await;
    queue.close().await;
    done
}

fn address(args: &MigrateArgs, config: &Config) -> Result<Secret, Refused> {
    let configured = || config.redis.as_ref().map(|redis| redis.url.clone());
    args.bullmq_url.clone().or_else(configured).ok_or_else(|| {
        Refused::bad_input(
            "where BullMQ's Redis is was not said; give --bullmq-url redis://[user:password@]host[:port][/database], or \
             set redis.url, if the jobs are to stay in the same Redis",
        )
    })
}

fn refuse_while_running(counts: &Counts) -> Result<(), Refused> {
    match counts.worker_connections {
        None | Some(0) => Ok(()),
        Some(connections) => Err(Refused::bad_input(format!(
            "the old service still runs: {connections} connections of workers of this queue are open at its Redis; stop its \
             processes, then run this again (--dry-run can be run at any time). Nothing was changed"
        ))),
    }
}

/// Reads all that is taken over.
async fn read(
    args: &MigrateArgs,
    config: &Config,
    queue: &BullmqQueue,
    counts: &Counts,
    now: Timestamp,
) -> Result<Planner, Refused> {
    let configured = Configured {
        reading: Reading {
            users: config.users.iter().map(|user| user.id.clone()).collect(),
            user_field: args.user_field.clone(),
            source_names: args.source_name.clone(),
        },
        schedule: config.schedule.name.clone(),
        definition: config.schedule.definition.clone(),
    };
    let mut planner = Planner::new(configured, now);
    let mut next = Some(0);
    while let Some(offset) = next.filter(|offset| *offset <= JOBS_MAX) {
        let page = queue.repeats(offset).await?;
        page.items
            .into_iter()
            .for_each(|repeat| planner.repeat(repeat));
        next = page.next;
    }
    let mut sets = vec![
        JobSet::Wait,
        JobSet::Paused,
        JobSet::Prioritized,
        JobSet::Delayed,
    ];
    if args.with_failed {
        sets.push(JobSet::Failed);
    }
    for set in sets {
        if counts.of(set) > JOBS_MAX {
            let what = format!(
                "are {} jobs; the first {JOBS_MAX} of them are read",
                counts.of(set)
            );
            planner.problem(format!("jobs in {}", set.name()), what);
        }
        let mut next = Some(0);
        while let Some(offset) = next.filter(|offset| *offset < JOBS_MAX) {
            let page = queue.jobs(set, offset).await?;
            page.items.into_iter().for_each(|job| planner.job(set, job));
            next = page.next;
        }
    }
    Ok(planner)
}

/// The plan, with what the counts tell a person.
fn noted(mut plan: Plan, args: &MigrateArgs, counts: &Counts) -> Plan {
    if let Some(connections @ 1..) = counts.worker_connections {
        plan.note(format!(
            "the old service still runs: {connections} connections of workers of this queue are open"
        ));
    }
    if counts.is_paused {
        plan.note("the queue is paused there; `kalends run` begins at once".to_owned());
    }
    if counts.active > 0 {
        plan.note(format!(
            "{} jobs are active there: they are not taken; let them end, or their users wait for the next tick",
            counts.active
        ));
    }
    if counts.waiting_children > 0 {
        let obstacle = Obstacle {
            what: format!(
                "{} jobs wait for others: Kalends has no such jobs",
                counts.waiting_children
            ),
            remedy: "let the old service finish them".to_owned(),
        };
        plan.problem("jobs in waiting-children".to_owned(), obstacle);
    }
    if counts.failed > 0 && !args.with_failed {
        plan.note(format!(
            "{} failed jobs stay there; --with-failed enqueues them, too",
            counts.failed
        ));
    }
    plan
}

/// What the store holds, without changing it, be it that it does not exist yet.
async fn look(config: &Config) -> Result<Target, Refused> {
    if config.redis.is_some() {
        let reader = Queue::open_read_only(config, Arc::new(SystemClock))?;
        return target(&*reader).await;
    }
    match EmbeddedStore::open_read_only(&config.store.data_dir, Arc::new(SystemClock)) {
        Ok(reader) => target(&reader).await,
        Err(OpenError::Missing { .. }) => Ok(Target::default()),
        Err(error) => Err(error.into()),
    }
}

async fn target(store: &dyn Store) -> Result<Target, Refused> {
    let mut target = Target::default();
    if let Reply::Schedules { schedules } = ask(store, Command::Schedules).await? {
        let definitions = schedules.into_iter();
        target.schedules = definitions
            .map(|(name, state)| (name, state.definition))
            .collect();
    }
    let mut after = None;
    loop {
        let page = Command::Users {
            source: SourceName::google_calendar(),
            after: after.clone(),
            limit: u32::try_from(BATCH_MAX).expect("a batch is small"),
        };
        let Reply::Users { users } = ask(store, page).await? else {
            return Ok(target);
        };
        let Some((last, _)) = users.last() else {
            return Ok(target);
        };
        after = Some(last.clone());
        let parked = users
            .into_iter()
            .map(|(user, state)| (user, state.parked.is_some()));
        target.users.extend(parked);
    }
}

/// Does what is planned. Each step may be done again.
async fn apply(
    store: &dyn Store,
    config: &Config,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Applied, Refused> {
    let source = SourceName::google_calendar();
    let mut done = Applied::default();
    let define = Command::DefineSource {
        source: source.clone(),
        settings: config.source_settings(),
    };
    accepted(ask(store, define).await?)?;
    let users: Vec<_> = plan.users.iter().cloned().collect();
    for users in users.chunks(BATCH_MAX) {
        let enroll = Command::Enroll {
            source: source.clone(),
            users: users.to_vec(),
            due_at: now,
        };
        if let Reply::Enrolled { users, .. } = accepted(ask(store, enroll).await?)? {
            done.enrolled += users.len() as u64;
        }
    }
    for schedule in plan.schedules.clone() {
        if schedule.change == Change::Same {
            continue;
        }
        let define = Command::DefineSchedule {
            schedule: schedule.name.clone(),
            definition: schedule.definition,
        };
        match ask(store, define).await? {
            Reply::Refused { refusal } => {
                let obstacle = Obstacle {
                    what: refusal.to_string(),
                    remedy: "remove repeatables that nobody needs, and migrate again".to_owned(),
                };
                plan.problem(format!("schedule {}", schedule.name), obstacle);
            }
            _ => done.schedules += 1,
        }
    }
    let jobs: Vec<_> = plan.new_jobs().collect();
    for jobs in jobs.chunks(BATCH_MAX) {
        let enqueue = Command::Enqueue {
            source: source.clone(),
            jobs: jobs.to_vec(),
            checkpoint: None,
        };
        if let Reply::Enqueued {
            added,
            coalesced,
            refused,
        } = accepted(ask(store, enqueue).await?)?
        {
            done.added += added;
            done.coalesced += coalesced;
            done.refused += refused;
        }
    }
    Ok(done)
}

async fn ask(store: &dyn Store, command: Command) -> Result<Reply, Refused> {
    let reply = store.apply(command).await;
    reply.map(|stamped| stamped.value).map_err(|unavailable| Refused {
        exit: Exit::Failed,
        detail: format!("{unavailable}; what was taken over stays, and running this again takes over the rest"),
    })
}

fn accepted(reply: Reply) -> Result<Reply, Refused> {
    match reply {
        Reply::Refused { refusal } => Err(Refused {
            exit: Exit::Failed,
            detail: refusal.to_string(),
        }),
        reply => Ok(reply),
    }
}
