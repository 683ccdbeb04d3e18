//! `compare`: Kalends beside the service that it replaces.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use kalends_sim::compare::{
    Comparison, HOURS_MAX, SEED_DEFAULT, SIZES_MAX, USERS_DEFAULT, USERS_MAX, compare, text,
};
use kalends_sim::plan::Plan;
use kalends_sim::report::Report;
use kalends_sim::world::run;

use super::usage;

/// Kalends broke an invariant, or lost somebody.
const EXIT_NOT_GOOD: u8 = 14;

#[derive(Debug, Args)]
pub(super) struct Compare {
    /// With how many users, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = USERS_DEFAULT)]
    users: Vec<u32>,
    /// How long the days without incidents are, in simulated hours.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// The seed of all runs.
    #[arg(long, default_value_t = SEED_DEFAULT)]
    seed: u64,
    /// Prints one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Plays plans on all cores; reports come in the order of the plans.
pub(super) fn play_all(plans: &[Plan]) -> Vec<Report> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let reports: Mutex<Vec<Option<Report>>> = Mutex::new(vec![None; plans.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                // The largest stand last: begun first, they do not keep the others waiting.
                while let Some(place) = {
                    let taken = next.fetch_add(1, Ordering::Relaxed);
                    plans.len().checked_sub(taken + 1)
                } {
                    let report = run(&plans[place]);
                    reports.lock().expect("no thread panics")[place] = Some(report);
                }
            });
        }
    });
    let reports = reports.into_inner().expect("no thread panicked");
    reports
        .into_iter()
        .map(|report| report.expect("each was played"))
        .collect()
}

/// Plays the comparison that is shown, or says what is wrong with the arguments.
pub(super) fn play(users: &[u32], hours: u64, seed: u64) -> Result<Comparison, String> {
    if users.is_empty() || users.len() > SIZES_MAX {
        return Err(format!("--users takes 1 to {SIZES_MAX} numbers"));
    }
    if let Some(users) = users.iter().find(|users| !(1..=USERS_MAX).contains(*users)) {
        return Err(format!("--users {users}: give 1 to {USERS_MAX}"));
    }
    if !(1..=HOURS_MAX).contains(&hours) {
        return Err(format!("--hours {hours}: give 1 to {HOURS_MAX}"));
    }
    Ok(compare(users, hours, seed, play_all))
}

pub(super) fn main(arguments: &Compare) -> ExitCode {
    super::batch::silence_panics();
    let comparison = match play(&arguments.users, arguments.hours, arguments.seed) {
        Ok(comparison) => comparison,
        Err(error) => return usage(&error),
    };
    if arguments.json {
        let line = serde_json::to_string(&comparison).expect("plain data always becomes JSON");
        println!("{line}");
    } else {
        print!("{}", text::render(&comparison));
    }
    if comparison.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_NOT_GOOD)
    }
}
