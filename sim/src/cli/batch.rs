//! Many plans at a time: seeds handed to threads, results added up, the first failure shrunk and shown.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kalends_sim::invariants::same_hash;
use kalends_sim::marks::Marks;
use kalends_sim::plan::Plan;
use kalends_sim::plan::shrink::{RUNS_MAX, shrink};
use kalends_sim::report::{Failed, FailureClass, Report};
use kalends_sim::scenario::{self, Scenario};
use kalends_sim::world::trace::HashLog;
use kalends_sim::world::{run as play, run_with};
use serde_json::json;

use super::{PolicyName, Run, usage};

/// A scenario's own expectation was not met.
const EXIT_EXPECTATION: u8 = 14;
/// A mark was never reached.
const EXIT_MARKS: u8 = 15;
/// A batch of so many seeds must reach every mark.
const MARKS_SEEDS_MIN: u64 = 1_000;
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

/// Plays a plan, twice if asked; two runs that differ are a failure.
fn play_checked(plan: &Plan, twice: bool) -> Report {
    let mut report = play(plan);
    if twice && report.failed.is_none() {
        let again = play(plan);
        if again.unseed != report.unseed {
            let (mut one, mut two) = (HashLog::default(), HashLog::default());
            let _ = (run_with(plan, &mut one), run_with(plan, &mut two));
            let detail = match same_hash::check(&one, &two) {
                Err(violation) => violation.detail,
                Ok(()) => "two later runs were the same".to_owned(),
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

/// How many plans are played at a time.
fn jobs(run: &Run) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    run.jobs.unwrap_or_else(cores).max(1)
}

pub(super) fn run(run: &Run) -> ExitCode {
    silence_panics();
    if let Some(name) = &run.scenario {
        return run_scenarios(name, run);
    }
    let begun = Instant::now();
    let next = AtomicU64::new(run.seeds.start);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..jobs(run) {
            workers.push(scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= run.seeds.end {
                        break;
                    }
                    let report = play_checked(&run.size.plan_of(seed), run.twice);
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
        explain(&run.size.plan_of(*seed), failed, run);
    }
    let many = run.scenario.is_none() && sum.seeds >= MARKS_SEEDS_MIN;
    if run.marks || (many && !run.no_marks) {
        let with_push = run.size.push;
        for (name, sentence, count) in sum.marks.table(with_push) {
            println!("{count:>9}  {name:<28} {sentence}");
        }
        let missing = sum.marks.missing(with_push);
        let names = sum.marks.table(with_push).count();
        println!("{} of {names} marks reached", names - missing.len());
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

/// Kind, seed, commit, the shrunk plan, and the one command that shows it again.
fn explain(plan: &Plan, failed: &Failed, run: &Run) {
    println!("seed {}: {}", plan.seed, describe(failed));
    println!("commit {}", commit());
    let mut small = plan.clone();
    if failed.class != FailureClass::Nondeterminism {
        small = shrink(plan, RUNS_MAX, |candidate| {
            play(candidate).fails_like(failed)
        });
        if let Some(failed) = &play(&small).failed {
            println!("shrunk: {}", describe(failed));
        }
    }
    println!("{}", small.to_json());
    match save(&small, failed, run) {
        Ok(file) => println!("show it again: kalends-sim replay {}", file.display()),
        Err(error) => {
            eprintln!("kalends-sim: the plan could not be saved: {error}");
            println!("show it again: kalends-sim show {}", plan.seed);
        }
    }
}

/// Writes a plan where it was asked for, or among the system's temporary files; where.
fn save(plan: &Plan, failed: &Failed, run: &Run) -> std::io::Result<PathBuf> {
    let folder = run.save.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&folder)?;
    let invariant = failed.violation.invariant.name();
    let file = folder.join(format!("kalends-sim-{invariant}-{}.json", plan.seed));
    std::fs::write(&file, plan.to_json() + "\n")?;
    Ok(file)
}

/// The commit of the checkout in which this runs; outside of one, the version.
fn commit() -> String {
    let git = std::process::Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .stderr(std::process::Stdio::null())
        .output();
    let found = git.ok().filter(|output| output.status.success());
    let name = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("of version {}", env!("CARGO_PKG_VERSION")))
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

/// One scenario, or all; every one of its seeds, on as many threads as were asked for.
fn run_scenarios(name: &str, run: &Run) -> ExitCode {
    let chosen = match (name, scenario::find(name)) {
        ("all", _) => scenario::all(),
        (_, Some(scenario)) => vec![scenario],
        (_, None) => {
            return usage(&format!(
                "no scenario is called {name}; kalends-sim scenarios lists them"
            ));
        }
    };
    let begun = Instant::now();
    let mut games = Vec::new();
    for scenario in &chosen {
        let end = run.seeds.end.min(run.seeds.start + scenario.seeds);
        games.extend((run.seeds.start..end).map(|seed| (scenario, seed)));
    }
    let next = AtomicUsize::new(0);
    let sum = Mutex::new(Sum::default());
    let unmet = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs(run) {
            scope.spawn(|| {
                while let Some((scenario, seed)) = games.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = play_scenario(scenario, *seed, run, &unmet);
                    sum.lock()
                        .expect("no thread panics while it adds")
                        .add(report);
                }
            });
        }
    });
    let mut sum = sum.into_inner().expect("no thread panicked");
    let unmet = unmet.into_inner().expect("no thread panicked");
    // A failure of a scenario's plan is shown by its own plan, not by that which its seed draws.
    sum.failures.clear();
    for ((name, seed), (failed, text)) in &unmet {
        println!("FAILED {name}, seed {seed}: {text}");
        if let (Some(failed), Some(scenario)) = (failed, scenario::find(name)) {
            explain(&(scenario.plan)(*seed), failed, run);
        }
    }
    let code = unmet.values().next().map(|(failed, _)| {
        let class = failed.as_ref().map(|failed| failed.class.exit_code());
        class.unwrap_or(EXIT_EXPECTATION)
    });
    let finished = finish(&sum, begun.elapsed(), run);
    code.map_or(finished, ExitCode::from)
}

/// By scenario and seed: what was not met, and the failure if it was one.
type Unmet = BTreeMap<(&'static str, u64), (Option<Failed>, String)>;

fn play_scenario(scenario: &Scenario, seed: u64, run: &Run, unmet: &Mutex<Unmet>) -> Report {
    let begun = Instant::now();
    let report = play_checked(&(scenario.plan)(seed), run.twice);
    let told = match &report.failed {
        Some(failed) => Some((Some(failed.clone()), describe(failed))),
        None => (scenario.expect)(&report).err().map(|text| (None, text)),
    };
    let verdict = if told.is_some() { "FAILED" } else { "ok" };
    println!(
        "{verdict:<6} {}, seed {seed}: gap p50 {} min, p95 {} min; at most {} requests a minute, {} a second; fresh after {} s; {:.1} s",
        scenario.name,
        report.tally.gap_percentile(50),
        report.tally.gap_percentile(95),
        report.tally.fetches_a_minute_peak(),
        report.tally.fetches_a_second_peak,
        report.fresh_ms.unwrap_or(0) / 1_000,
        begun.elapsed().as_secs_f64()
    );
    if let Some(told) = told {
        let mut unmet = unmet.lock().expect("no thread panics while it adds");
        unmet.insert((scenario.name, seed), told);
    }
    report
}
