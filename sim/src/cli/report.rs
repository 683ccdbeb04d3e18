//! `report`: one page with pictures, of runs made for it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use kalends_sim::compare::{SEED_DEFAULT, USERS_DEFAULT};
use kalends_sim::marks::Marks;
use kalends_sim::picture::{Facts, Scenes, Watched, outages, page, watch};
use kalends_sim::plan::Plan;

use super::batch::describe;
use super::{compare, usage};

/// Plans of the table of marks.
const MARKS_PLANS: u64 = 150;
/// A run of Kalends failed: the page says which.
const EXIT_FAILED: u8 = 14;

#[derive(Debug, Args)]
pub(super) struct ReportPage {
    /// Where the page goes.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// The seed of the runs; drawn plans count up from it.
    #[arg(long, default_value_t = SEED_DEFAULT)]
    seed: u64,
}

fn facts(seed: u64) -> Result<Facts, String> {
    let scenes = Scenes::new(seed);
    let mut failures = Vec::new();
    let told = |text: &str| eprintln!("kalends-sim: {text}");
    told("a herd after an outage, a day with outages");
    let watched = std::thread::scope(|scope| {
        let threads = scenes.plans().map(|plan| scope.spawn(move || watch(plan)));
        threads.map(|thread| thread.join().expect("a failing run is a report"))
    });
    let [together, spread, day, legacy_day] = watched.map(|(watch, report)| {
        failures.extend(report.failed.as_ref().map(describe));
        watch
    });
    told("the comparison");
    let comparison = compare::play(&USERS_DEFAULT, 24, seed)?;
    if !comparison.is_good() {
        failures.push("a run of the comparison".to_owned());
    }
    told("drawn plans, for the marks");
    let plans: Vec<Plan> = (seed..seed.saturating_add(MARKS_PLANS))
        .map(Plan::draw)
        .collect();
    let mut marks = Marks::default();
    for report in compare::play_all(&plans) {
        marks.add(&report.marks);
        let failed = report.failed.as_ref();
        failures.extend(failed.map(|failed| format!("seed {}: {}", report.seed, describe(failed))));
    }
    Ok(Facts {
        seed,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        watched: Watched {
            together,
            spread,
            day,
            legacy_day,
        },
        outages: outages(&scenes.day),
        comparison,
        marks,
        marks_plans: MARKS_PLANS,
        failures,
    })
}

pub(super) fn main(arguments: &ReportPage) -> ExitCode {
    super::batch::silence_panics();
    let begun = Instant::now();
    let facts = match facts(arguments.seed) {
        Ok(facts) => facts,
        Err(error) => return usage(&error),
    };
    let text = page::render(&facts);
    if let Err(error) = std::fs::write(&arguments.out, &text) {
        return usage(&format!("{}: {error}", arguments.out.display()));
    }
    println!(
        "{}: {} KiB, {} s",
        arguments.out.display(),
        text.len() / 1_024,
        begun.elapsed().as_secs()
    );
    for failure in &facts.failures {
        println!("failed: {failure}");
    }
    if facts.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}
