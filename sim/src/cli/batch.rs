//! Many plans at a time: seeds handed to threads, results added up, the first failure shrunk and shown.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kalends_sim::marks::Marks;
use kalends_sim::plan::Plan;
use kalends_sim::plan::shrink::{RUNS_MAX, shrink};
use kalends_sim::report::{Failed, FailureClass, Report};
use kalends_sim::scenario;
use kalends_sim::world::trace::HashLog;
use kalends_sim::world::{run as play, run_with};
use serde_json::json;

use super::{PolicyName, Run, SizeOverrides, usage};

/// A scenario's own expectation was not met.
const EXIT_EXPECTATION: u8 = 14;
/// A mark was never reached.
const EXIT_MARKS: u8 = 15;
/// After so many failing seeds the others are not played any more.
const FAILURES_MAX: usize = 20;
/// How often the progress is told, in milliseconds.
const PROGRESS_EVERY_MS: u64 = 500;
/// How wide the bar is, in characters.
const BAR_CHARS: u64 = 24;

/// What the threads add up.
#[derive(Default)]
struct Sum {
    seeds: u64,
    simulated_ms: u64,
    syncs: u64,
    lost: u64,
    events: u64,
    marks: Marks,
    failures: Vec<(u64, Failed)>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.simulated_ms += report.tally.simulated_ms;
        self.syncs += report.tally.syncs;
        self.lost += report.tally.lost;
        self.events += report.tally.events;
        self.marks.add(&report.marks);
        if let Some(failed) = report.failed {
            self.failures.push((report.seed, failed));
        }
    }
}

/// In one line: what was broken, where.
pub(super) fn describe(failed: &Failed) -> String {
    format!(
        "{} ({}) at {} in event {}: {}",
        failed.class.name(),
        failed.violation.invariant.name(),
        failed.at,
        failed.event,
        failed.violation.detail
    )
}

fn plan_of(seed: u64, size: &SizeOverrides) -> Plan {
    let mut plan = Plan::draw(seed);
    size.apply(&mut plan);
    plan
}

/// Plays a plan, twice if asked; two runs that differ are a failure.
fn play_checked(plan: &Plan, twice: bool) -> Report {
    let mut report = play(plan);
    if twice && report.failed.is_none() {
        let again = play(plan);
        if again.unseed != report.unseed {
            let (mut one, mut two) = (HashLog::default(), HashLog::default());
            let _ = (run_with(plan, &mut one), run_with(plan, &mut two));
            let difference = one.first_difference(&two);
            let detail = match difference {
                Some((number, what)) => format!("event {number}: {what}"),
                None => "two later runs were the same".to_owned(),
            };
            report.failed = Some(kalends_sim::report::differs(&report, detail));
        }
    }
    report
}

/// No text of a panic is wanted: it is in the report.
pub(super) fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

pub(super) fn run(run: &Run) -> ExitCode {
    silence_panics();
    if let Some(name) = &run.scenario {
        return run_scenario(name, run);
    }
    let jobs = run
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let begun = Instant::now();
    let next = AtomicU64::new(run.seeds.start);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..jobs.max(1) {
            workers.push(scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= run.seeds.end {
                        break;
                    }
                    let report = play_checked(&plan_of(seed, &run.size), run.twice);
                    let mut sum = sum.lock().expect("no thread panics while it adds");
                    if let Some(failed) = &report.failed {
                        eprintln!("\nseed {seed}: {}", describe(failed));
                    }
                    sum.add(report);
                    if sum.failures.len() >= FAILURES_MAX {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }));
        }
        let shown = std::io::stderr().is_terminal();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if shown && told.elapsed() > Duration::from_millis(PROGRESS_EVERY_MS) {
                told = Instant::now();
                progress(
                    &sum.lock().expect("no thread panics while it adds"),
                    begun,
                    run,
                );
            }
        }
    });
    if std::io::stderr().is_terminal() {
        // The bar's line belongs to the result.
        eprint!("\r\x1b[K");
    }
    let sum = sum.into_inner().expect("no thread panicked");
    finish(&sum, begun.elapsed(), run)
}

fn progress(sum: &Sum, begun: Instant, run: &Run) {
    let all = run.seeds.end - run.seeds.start;
    let rates = rates(sum, begun.elapsed());
    let filled = usize::try_from(sum.seeds * BAR_CHARS / all.max(1)).unwrap_or(0);
    let bar: String = (0..BAR_CHARS as usize)
        .map(|place| if place < filled { '█' } else { '░' })
        .collect();
    let left_s = (all - sum.seeds.min(all)) as f64 / rates.0.max(1e-9);
    let left = if sum.seeds == 0 {
        String::new()
    } else {
        format!(", {left_s:.0} s left")
    };
    eprint!(
        "\r{bar} {} of {all} seeds, {:.1} a second, {:.0} times real time, {} failed{left}\x1b[K",
        sum.seeds,
        rates.0,
        rates.1,
        sum.failures.len()
    );
    let _ = std::io::stderr().flush();
}

/// Seeds a second, and simulated time to real time.
fn rates(sum: &Sum, took: Duration) -> (f64, f64) {
    let seconds = took.as_secs_f64().max(1e-9);
    (
        sum.seeds as f64 / seconds,
        sum.simulated_ms as f64 / 1e3 / seconds,
    )
}

fn finish(sum: &Sum, took: Duration, run: &Run) -> ExitCode {
    let mut code = 0;
    if let Some((seed, failed)) = sum.failures.iter().min_by_key(|(seed, _)| *seed) {
        code = failed.class.exit_code();
        explain(&plan_of(*seed, &run.size), failed, run);
    }
    if run.marks {
        for (name, sentence, count) in sum.marks.table() {
            println!("{count:>9}  {name:<28} {sentence}");
        }
        let missing = sum.marks.missing();
        if !missing.is_empty() {
            println!("never reached: {}", missing.join(", "));
            code = if code == 0 { EXIT_MARKS } else { code };
        }
    }
    let (seeds_per_s, time_factor) = rates(sum, took);
    let lost = match run.size.policy {
        PolicyName::Kalends => String::new(),
        PolicyName::Legacy => format!(", {} users lost", sum.lost),
    };
    if run.json {
        let line = json!({
            "seeds": sum.seeds,
            "failed": sum.failures.len(),
            "seeds_per_s": (seeds_per_s * 100.0).round() / 100.0,
            "time_factor": time_factor.round(),
            "syncs": sum.syncs,
            "behind": sum.lost,
            "events": sum.events,
            "seconds": (took.as_secs_f64() * 100.0).round() / 100.0,
        });
        println!("{line}");
    } else {
        println!(
            "{} seeds, {} failed, {seeds_per_s:.1} seeds a second, {time_factor:.0} times real time, {} syncs{lost}",
            sum.seeds,
            sum.failures.len(),
            sum.syncs
        );
    }
    ExitCode::from(code)
}

/// Shrinks a failing plan, and says how to show it again.
fn explain(plan: &Plan, failed: &Failed, run: &Run) {
    println!("seed {}: {}", plan.seed, describe(failed));
    println!("version {}", env!("CARGO_PKG_VERSION"));
    if failed.class == FailureClass::Nondeterminism {
        return;
    }
    let small = shrink(plan, RUNS_MAX, |candidate| {
        play(candidate).fails_like(failed)
    });
    println!("{}", small.to_json());
    let again = play(&small);
    if let Some(failed) = &again.failed {
        println!("shrunk: {}", describe(failed));
    }
    match &run.save {
        Some(file) => {
            if let Err(error) = std::fs::write(file, small.to_json() + "\n") {
                eprintln!("{}: {error}", file.display());
            }
            println!(
                "show it again: kalends-sim replay --show {}",
                file.display()
            );
        }
        None => println!("show it again: kalends-sim show {}", plan.seed),
    }
}

pub(super) fn replay(plan: &Plan, file: &Path) -> ExitCode {
    silence_panics();
    let report = play_checked(plan, true);
    println!(
        "{} events, {} syncs, unseed {:016x}",
        report.tally.events, report.tally.syncs, report.unseed
    );
    match report.failed {
        None => ExitCode::SUCCESS,
        Some(failed) => {
            println!("{}", describe(&failed));
            println!("show it: kalends-sim replay --show {}", file.display());
            ExitCode::from(failed.class.exit_code())
        }
    }
}

fn run_scenario(name: &str, run: &Run) -> ExitCode {
    let Some(scenario) = scenario::find(name) else {
        return usage(&format!(
            "no scenario is called {name}; kalends-sim scenarios lists them"
        ));
    };
    let begun = Instant::now();
    let mut sum = Sum::default();
    let mut code = 0;
    for seed in run.seeds.start..run.seeds.end.min(run.seeds.start + scenario.seeds) {
        let plan = (scenario.plan)(seed);
        let report = play_checked(&plan, run.twice);
        if let Some(failed) = &report.failed {
            eprintln!("{name}, seed {seed}: {}", describe(failed));
            code = failed.class.exit_code();
        } else if let Err(unmet) = (scenario.expect)(&report) {
            eprintln!("{name}, seed {seed}: {unmet}");
            code = EXIT_EXPECTATION;
        }
        println!(
            "{name}, seed {seed}: gap p50 {} min, p95 {} min; at most {} requests a minute; well after {} s",
            report.tally.gap_percentile(50),
            report.tally.gap_percentile(95),
            report.tally.fetches_a_minute_peak(),
            report.healed_ms.unwrap_or(0) / 1_000
        );
        sum.add(report);
    }
    if code != 0 {
        return ExitCode::from(code);
    }
    finish(&sum, begun.elapsed(), run)
}
