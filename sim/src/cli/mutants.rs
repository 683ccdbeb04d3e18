//! Planted bugs: each is played until something catches it, and nothing may be caught without one.
//!
//! The plans: those that seeds draw, with fewer users ([`USERS`]) and all their faults in a shorter day ([`HOURS`]), so
//! that many are played in little time; and, after the first of them ([`SEEDS_FIRST`]), every scenario that has no more users than
//! [`SCENARIO_USERS_MAX`], with seed 0, its own expectation included. Each thread plays one mistake at a time.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use kalends_core::mutant::{Mutant, plant};
use kalends_core::time::HOUR_MS;
use kalends_sim::plan::Plan;
use kalends_sim::scenario::{self, Scenario};
use kalends_sim::world::run as play;
use serde_json::json;

use super::{EXIT_USAGE, batch};

/// Users of the drawn plans.
const USERS: u32 = 40;
/// Hours of the drawn plans, into which the faults of 24 are brought.
const HOURS: u64 = 8;
/// So many drawn plans are played before the scenarios.
const SEEDS_FIRST: u64 = 25;
/// A scenario with more users takes too long to be played for each mistake.
const SCENARIO_USERS_MAX: u32 = 1_000;
/// A mistake was not caught, or something was caught where there is none.
const EXIT_MISSED: u8 = 1;

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct Mutants {
    /// How many seeds each mistake is given.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// How many at a time; by default as many as the machine has cores.
    #[arg(long)]
    jobs: Option<usize>,
    /// Only this mistake.
    #[arg(long)]
    only: Option<String>,
    /// The last line is one JSON object.
    #[arg(long)]
    json: bool,
}

/// A plan to play.
#[derive(Clone, Copy)]
enum Trial {
    Seed(u64),
    Named(Scenario),
}

impl Trial {
    fn name(self) -> String {
        match self {
            Trial::Seed(seed) => format!("seed {seed}"),
            Trial::Named(scenario) => scenario.name.to_owned(),
        }
    }

    /// What is wrong with it, and in which words, if anything is.
    fn fault(self) -> Option<(String, String)> {
        let plan = match self {
            Trial::Seed(seed) => drawn(seed),
            Trial::Named(scenario) => (scenario.plan)(0),
        };
        let report = play(&plan);
        if let Some(failed) = &report.failed {
            return Some((
                failed.violation.invariant.name().to_owned(),
                batch::describe(failed),
            ));
        }
        let Trial::Named(scenario) = self else {
            return None;
        };
        let unmet = (scenario.expect)(&report).err()?;
        Some(("expectation".to_owned(), unmet))
    }
}

/// The plan of a seed, made small.
fn drawn(seed: u64) -> Plan {
    let mut plan = Plan::draw(seed);
    let long_ms = plan.size.duration_ms;
    let short_ms = HOURS * HOUR_MS;
    plan.size.users = USERS;
    plan.size.duration_ms = short_ms;
    for fault in &mut plan.faults {
        fault.at_ms = fault.at_ms * short_ms / long_ms;
        fault.lasting_ms = fault.lasting_ms.min(short_ms - fault.at_ms);
    }
    plan
}

/// What is played for each mistake, in this order; of the scenarios the small ones first.
fn trials(seeds: u64) -> Vec<Trial> {
    let size = |scenario: &Scenario| (scenario.plan)(0).size;
    let mut named = scenario::all();
    named.retain(|scenario| size(scenario).users <= SCENARIO_USERS_MAX);
    named.sort_by_key(|scenario| u64::from(size(scenario).users) * size(scenario).duration_ms);
    let first = (0..seeds.min(SEEDS_FIRST)).map(Trial::Seed);
    let rest = (SEEDS_FIRST..seeds).map(Trial::Seed);
    let named = named.into_iter().map(Trial::Named);
    first.chain(named).chain(rest).collect()
}

/// How one mistake fared.
struct Fate {
    /// Which trial caught it, with the invariant and the words; `None`: none did.
    caught: Option<(usize, String, String)>,
    seconds: f64,
}

/// Hands the numbers below `count` to `jobs` threads.
fn in_parallel(count: usize, jobs: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
}

pub(super) fn run(asked: &Mutants) -> ExitCode {
    batch::silence_panics();
    let all = Mutant::ALL.iter().copied();
    let named = |mutant: &Mutant| asked.only.as_ref().is_none_or(|only| only == mutant.name());
    let mutants: Vec<Mutant> = all.filter(named).collect();
    if mutants.is_empty() {
        let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        eprintln!(
            "kalends-sim: no such mistake; there are {}",
            names.join(", ")
        );
        return ExitCode::from(EXIT_USAGE);
    }
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = asked.jobs.unwrap_or_else(cores);
    let trials = trials(asked.seeds);
    let begun = Instant::now();
    let fates: Mutex<BTreeMap<Mutant, Fate>> = Mutex::new(BTreeMap::new());
    in_parallel(mutants.len(), jobs, |number| {
        let mutant = mutants[number];
        let begun = Instant::now();
        let planted = plant(Some(mutant));
        let caught = trials.iter().enumerate().find_map(|(place, trial)| {
            let (invariant, detail) = trial.fault()?;
            Some((place, invariant, detail))
        });
        drop(planted);
        let seconds = begun.elapsed().as_secs_f64();
        let mut fates = fates.lock().expect("no thread panics while it adds");
        fates.insert(mutant, Fate { caught, seconds });
        eprint!("\r{} of {} planted   ", fates.len(), mutants.len());
    });
    eprintln!();
    let fates = fates.into_inner().expect("no thread panicked");
    // Without a mistake the very same plans must pass; of a mistake that was missed only as many as others took.
    let caught = || fates.values().filter_map(|fate| fate.caught.as_ref());
    let played = caught()
        .map(|(place, ..)| place + 1)
        .max()
        .unwrap_or(trials.len());
    let false_alarms: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
    in_parallel(played, jobs, |place| {
        if let Some((_, detail)) = trials[place].fault() {
            let mut alarms = false_alarms.lock().expect("no thread panics while it adds");
            alarms.push((place, detail));
        }
    });
    let mut false_alarms = false_alarms.into_inner().expect("no thread panicked");
    false_alarms.sort();
    tell(
        asked,
        &mutants,
        &fates,
        &trials,
        played,
        &false_alarms,
        begun,
    )
}

fn tell(
    asked: &Mutants,
    mutants: &[Mutant],
    fates: &BTreeMap<Mutant, Fate>,
    trials: &[Trial],
    played: usize,
    false_alarms: &[(usize, String)],
    begun: Instant,
) -> ExitCode {
    println!(
        "{:<24} {:<24} {:<18} {:>7}",
        "mistake", "caught by", "with", "seconds"
    );
    let mut rows = Vec::new();
    for mutant in mutants {
        let Fate { caught, seconds } = &fates[mutant];
        let (by, with) = match caught {
            Some((place, invariant, _)) => (invariant.as_str(), trials[*place].name()),
            None => ("MISSED", String::new()),
        };
        println!("{:<24} {by:<24} {with:<18} {seconds:>7.1}", mutant.name());
        if asked.only.is_some()
            && let Some((_, _, detail)) = caught
        {
            println!("  {}\n  {detail}", mutant.sentence());
        }
        rows.push(json!({ "mistake": mutant.name(), "caught_by": by, "with": with }));
    }
    for (place, detail) in false_alarms {
        println!("false alarm, {}: {detail}", trials[*place].name());
    }
    println!(
        "control: {played} of the same plans without a mistake, {} failed",
        false_alarms.len()
    );
    let missed = fates.values().filter(|fate| fate.caught.is_none()).count();
    let caught = fates.len() - missed;
    let seconds = begun.elapsed().as_secs_f64();
    if asked.json {
        let line = json!({
            "caught": caught,
            "missed": missed,
            "false_alarms": false_alarms.len(),
            "control": played,
            "seconds": seconds.round(),
            "mistakes": rows,
        });
        println!("{line}");
    } else {
        println!("{caught} caught, {missed} missed, in {seconds:.0} s");
    }
    if missed > 0 || !false_alarms.is_empty() {
        return ExitCode::from(EXIT_MISSED);
    }
    ExitCode::SUCCESS
}
