//! The command line.

mod batch;
mod bench;
mod compare;
#[cfg(feature = "mutants")]
mod mutants;
mod report;
mod show;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kalends_core::policy::limit::LIMIT_COUNT_MAX;
use kalends_core::time::HOUR_MS;
use kalends_sim::legacy::Service;
use kalends_sim::plan::Plan;
use kalends_sim::scenario;

/// Something was wrong with what was asked.
const EXIT_USAGE: u8 = 2;

/// Plays a fleet, its servers and its clocks from a seed.
///
/// Exit codes: 0 all good, 2 bad arguments, 10 crash, 11 an invariant was broken, 12 no convergence, 13 two runs of one
/// plan differed, 14 a scenario's expectation was not met, 15 a mark was never reached.
#[derive(Debug, Parser)]
#[command(name = "kalends-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays many seeds, or one scenario.
    Run(Run),
    /// Plays one seed and prints what happens, a column a process.
    Show(Show),
    /// Plays a plan from a file.
    Replay(Replay),
    /// Prints the plan of a seed.
    Plan(PlanOf),
    /// Lists the scenarios.
    Scenarios,
    /// Plants one bug after the other and says what catches it; exits with 1 if one is missed.
    #[cfg(feature = "mutants")]
    Mutants(mutants::Mutants),
    /// Plays the service that Kalends replaces beside Kalends, and shows both.
    Compare(compare::Compare),
    /// Writes one page with pictures, of runs made for it.
    Report(report::ReportPage),
    /// Measures the processor time of a standard seed, and of a sync in a large fleet.
    Bench(Bench),
}

#[derive(Debug, Args)]
struct Bench {
    /// Standard seeds to play, as `first..end` (without the end), or one.
    #[arg(long, default_value = "0..20", value_parser = seeds)]
    seeds: Range<u64>,
    /// Users of the large fleet.
    #[arg(long, default_value_t = 100_000)]
    users: u32,
    /// Simulated hours of the large fleet.
    #[arg(long, default_value_t = 2)]
    hours: u64,
    /// The last line is one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Run {
    /// Which seeds, as `first..end` (without the end), or one.
    #[arg(long, default_value = "0..100", value_parser = seeds)]
    seeds: Range<u64>,
    /// How many at a time; by default as many as the machine has cores.
    #[arg(long)]
    jobs: Option<usize>,
    /// The last line is one JSON object.
    #[arg(long)]
    json: bool,
    /// Plays every seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Plays this scenario instead of drawn plans; `all` plays every one.
    #[arg(long)]
    scenario: Option<String>,
    /// Prints the table of marks, and fails if one was never reached; as a batch of 1,000 seeds or more does anyway.
    #[arg(long, conflicts_with = "no_marks")]
    marks: bool,
    /// Leaves the marks out, however large the batch is.
    #[arg(long)]
    no_marks: bool,
    /// Saves the shrunk plan of the first failing seed in this folder instead of the system's temporary one.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    #[command(flatten)]
    size: SizeOverrides,
}

/// Other sizes than the standard ones.
#[derive(Clone, Debug, Default, Args)]
struct SizeOverrides {
    /// Users.
    #[arg(long)]
    users: Option<u32>,
    /// Processes.
    #[arg(long)]
    processes: Option<u32>,
    /// Simulated hours of faults and load.
    #[arg(long)]
    hours: Option<u64>,
    /// No faults at all.
    #[arg(long)]
    quiet: bool,
    /// The fleet watches calendars by push channels, with faults of push beside the others.
    #[arg(long)]
    push: bool,
    /// Which service runs: Kalends, or the one that it replaces.
    #[arg(long, default_value = "kalends")]
    policy: PolicyName,
}

/// The services there are.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PolicyName {
    #[default]
    Kalends,
    Legacy,
}

impl PolicyName {
    fn service(self) -> Service {
        match self {
            PolicyName::Kalends => Service::Kalends,
            PolicyName::Legacy => Service::Legacy,
        }
    }
}

impl SizeOverrides {
    /// The plan of a seed, with these sizes.
    fn plan_of(&self, seed: u64) -> Plan {
        let mut plan = match self.push {
            true => Plan::draw_push(seed),
            false => Plan::draw(seed),
        };
        self.apply(&mut plan);
        plan
    }

    fn apply(&self, plan: &mut Plan) {
        plan.service = self.policy.service();
        if let Some(hours) = self.hours {
            plan.size.duration_ms = hours * HOUR_MS;
            let end_ms = plan.size.duration_ms;
            plan.faults
                .retain(|fault| fault.at_ms + fault.lasting_ms <= end_ms);
        }
        if self.quiet {
            plan.faults.clear();
        }
        plan.size.processes = self.processes.unwrap_or(plan.size.processes);
        if let Some(users) = self.users {
            scale(plan, users);
        }
    }
}

/// Gives a plan so many users, and limits under which they can all be synced.
fn scale(plan: &mut Plan, users: u32) {
    let more = users.div_ceil(plan.size.users.max(1)).max(1);
    plan.size.users = users;
    let limits = [
        &mut plan.policy.source.jobs,
        &mut plan.policy.source.requests_project,
    ];
    for limit in limits.into_iter().flatten() {
        limit.count = limit.count.saturating_mul(more).min(LIMIT_COUNT_MAX);
    }
    plan.policy.concurrency = plan
        .policy
        .concurrency
        .saturating_mul(more.div_ceil(10))
        .clamp(3, 100);
}

#[derive(Debug, Args)]
struct Show {
    /// The seed.
    seed: u64,
    /// Only lines with this text.
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    size: SizeOverrides,
}

#[derive(Debug, Args)]
struct Replay {
    /// The plan.
    file: PathBuf,
    /// Prints what happens.
    #[arg(long)]
    show: bool,
    /// Only lines with this text.
    #[arg(long)]
    only: Option<String>,
}

#[derive(Debug, Args)]
struct PlanOf {
    /// The seed.
    seed: u64,
    /// Writes it to a file instead.
    #[arg(long)]
    save: Option<PathBuf>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is no seed; write 0..1000 or 7"))
    };
    match text.split_once("..") {
        None => number(text).map(|seed| seed..seed.saturating_add(1)),
        Some((first, end)) => {
            let range = number(first)?..number(end)?;
            if range.is_empty() {
                return Err(format!("{text} holds no seed; the end is not included"));
            }
            Ok(range)
        }
    }
}

pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => batch::run(&run),
        Command::Show(show) => {
            let plan = show.size.plan_of(show.seed);
            show::show(&plan, show.only.as_deref())
        }
        Command::Replay(replay) => match read(&replay.file) {
            Ok(plan) if replay.show => show::show(&plan, replay.only.as_deref()),
            Ok(plan) => batch::replay(&plan, &replay.file),
            Err(error) => usage(&error),
        },
        Command::Plan(plan) => {
            let text = Plan::draw(plan.seed).to_json();
            match plan.save {
                None => println!("{text}"),
                Some(file) => {
                    if let Err(error) = std::fs::write(&file, text + "\n") {
                        return usage(&format!("{}: {error}", file.display()));
                    }
                }
            }
            ExitCode::SUCCESS
        }
        #[cfg(feature = "mutants")]
        Command::Mutants(asked) => mutants::run(&asked),
        Command::Compare(arguments) => compare::main(&arguments),
        Command::Report(arguments) => report::main(&arguments),
        Command::Bench(bench) => bench::bench(&bench),
        Command::Scenarios => {
            for scenario in scenario::all() {
                println!("{:<60} {:?}", scenario.name, scenario.covers);
                println!("    {}", scenario.sentence);
            }
            ExitCode::SUCCESS
        }
    }
}

fn read(file: &Path) -> Result<Plan, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Plan::from_json(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn usage(error: &str) -> ExitCode {
    eprintln!("kalends-sim: {error}");
    ExitCode::from(EXIT_USAGE)
}
