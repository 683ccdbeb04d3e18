//! The command line: what may be typed, and the help that explains it. Nothing is done here.
//!
//! Flags that overrule a setting are handed on as text: their bounds stand with the setting, not here.

pub mod doctor;
pub mod emulate;
pub mod operate;
pub mod users;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kalends_adapters::bullmq::PREFIX_DEFAULT;
use kalends_adapters::secret::Secret;
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

pub use emulate::{EmulateCommand, EmulateGoogleArgs, EmulateNeo4jArgs};

use crate::config::{Config, LogFormat, LogLevel, Request, load};
use crate::logging;
use crate::wiring::Refused;

/// Keeps every user's Google Calendar in a graph.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kalends",
    version,
    about = "Keeps every user's Google Calendar in a graph: on time, and exactly as it stands at Google",
    after_help = "Examples:\n  \
        kalends demo                         see the whole job, with nothing to install\n  \
        kalends config show --defaults       print a complete kalends.toml\n  \
        kalends config check                 explain every mistake in ./kalends.toml\n  \
        kalends users connect USER           let a user consent, and keep the grant sealed\n  \
        kalends doctor                       look at everything that a start needs\n  \
        kalends run --config kalends.toml    sync, until SIGTERM or Ctrl-C\n  \
        kalends replay journal               go through what run --record wrote\n\n\
        Exit codes: 0 done, 1 failed, 2 bad input, or store or port in use (nothing was started)\n  \
        0  done; of run: stopped by SIGTERM or Ctrl-C with everything handed back\n  \
        1  it began and failed, or some part did (import, doctor, replay, migrate); trying again may help\n  \
        2  flags, configuration or files are wrong, or a store or port is another process's; nothing was started"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Sync all users by the schedule, until told to stop.
    Run(RunArgs),
    /// Show the whole job at work against an emulated Google, and compare the outcome item by item.
    Demo(DemoArgs),
    /// Sync one user now, once, or all users spread over the period.
    Sync(SyncArgs),
    /// Show what is waiting, running, done and failed.
    Status(StatusArgs),
    /// List, retry and cancel jobs.
    #[command(subcommand)]
    Jobs(operate::JobsCommand),
    /// Stop all syncs until resumed.
    Pause(operate::PauseArgs),
    /// Go on after a pause.
    Resume(operate::ResumeArgs),
    /// Have the running process read its configuration again.
    Reload(operate::ReloadArgs),
    /// Show the limits in force, or set how many syncs may start.
    Limits(operate::LimitsArgs),
    /// List, define and remove schedules.
    #[command(subcommand)]
    Schedules(operate::SchedulesCommand),
    /// Look at configuration, store, Google and graph, and say for each what to do.
    Doctor(doctor::DoctorArgs),
    /// Add, connect, list and remove users.
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// Go through a journal of run --record: what was decided, why, and whether it would be decided again.
    Replay(ReplayArgs),
    /// Take over the queue of a service that Kalends replaces.
    Migrate(MigrateArgs),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions of a shell.
    #[command(after_help = "Examples:\n  \
        kalends completions bash > /etc/bash_completion.d/kalends\n  \
        kalends completions zsh > ~/.zfunc/_kalends\n  \
        kalends completions fish > ~/.config/fish/completions/kalends.fish")]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command into a folder.
    #[command(after_help = "Examples:\n  \
        kalends man | man -l -\n  \
        kalends man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
    /// Serve an emulated Google or Neo4j on this machine, for tests.
    #[command(subcommand)]
    Emulate(EmulateCommand),
}

/// `kalends completions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// `kalends man`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ManArgs {
    /// Write kalends.1, kalends-run.1 and so on into this folder instead
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ConfigArgs {
    /// The configuration file [default: $KALENDS_CONFIG, else ./kalends.toml if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of the store, overruling store.data_dir
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How log lines look, overruling log.format
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// The least important log lines shown, overruling log.level
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,
}

impl ConfigArgs {
    /// Loads it, and begins to log as it says.
    ///
    /// # Errors
    /// If something is wrong in it.
    pub fn load(&self, environment: &BTreeMap<String, String>) -> Result<Config, Refused> {
        let loaded = load(&self.request(), environment)
            .map_err(|error| Refused::bad_input(error.to_string()))?;
        logging::start(loaded.config.log);
        Ok(loaded.config)
    }

    /// What to load.
    #[must_use]
    pub fn request(&self) -> Request {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut flags = Vec::new();
        if let Some(data_dir) = &self.data_dir {
            flags.push(("--data-dir", path(data_dir)));
        }
        if let Some(format) = self.log_format {
            flags.push(("--log-format", word(format)));
        }
        if let Some(level) = self.log_level {
            flags.push(("--log-level", word(level)));
        }
        Request {
            file: self.config.as_ref().map(path),
            flags,
            folder: PathBuf::new(),
        }
    }
}

fn word(value: impl ValueEnum) -> String {
    let value = value
        .to_possible_value()
        .expect("no word of these is hidden");
    value.get_name().to_owned()
}

/// `kalends run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends run\n  \
    kalends run --config /etc/kalends.toml --data-dir /var/lib/kalends --log-format json\n  \
    KALENDS_REDIS_URL=rediss://cache.example.com KALENDS_REDIS_PREFIX=production kalends run --http 127.0.0.1:7878\n  \
    kalends run --record /var/lib/kalends/journal\n\n\
    Stops on SIGTERM or Ctrl-C: running syncs finish, or are handed back after worker.shutdown_ms.")]
pub struct RunArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How many syncs run at the same time, overruling worker.concurrency
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub concurrency: Option<String>,
    /// The name of this process in logs and status, overruling worker.name
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Serve API, page, /metrics, /healthz and /readyz at this address, like 127.0.0.1:7878, overruling http.listen
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Write a journal for kalends replay to this file, overruling record.file; names and texts are hidden in it
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// The seed of all chance in this process, to repeat a run [default: drawn, and logged]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub seed: Option<String>,
}

impl RunArgs {
    /// What to load.
    #[must_use]
    pub fn request(&self) -> Request {
        let mut request = self.config.request();
        let own = [
            ("--concurrency", &self.concurrency),
            ("--node-name", &self.node_name),
            ("--http", &self.http),
            ("--seed", &self.seed),
        ];
        for (flag, value) in own {
            if let Some(value) = value {
                request.flags.push((flag, value.clone()));
            }
        }
        if let Some(file) = &self.record {
            let file = file.to_string_lossy().into_owned();
            request.flags.push(("--record", file));
        }
        request
    }
}

/// `kalends demo`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends demo\n  \
    kalends demo --users 1000 --events 100 --unlimited --json\n\n\
    Needs no account, no server and no configuration. Ends with 0 only if every graph equals its calendar.")]
pub struct DemoArgs {
    /// How many users
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// How many events each user's calendar begins with
    #[arg(long, value_name = "M", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub events: u32,
    /// The seed from which calendars and changes are drawn; the same one shows the same demo
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// End with one line of JSON that holds the figures
    #[arg(long)]
    pub json: bool,
    /// Lift all limits: as fast as this machine can
    #[arg(long)]
    pub unlimited: bool,
    /// Keep the store in this folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `kalends sync`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends sync ada@example.com\n  \
    kalends sync --all\n\n\
    One user is synced by this command itself, or by the process that has the store in data_dir. All users are put into the\n\
    queue, spread over the schedule's period, for whoever runs `kalends run`.")]
pub struct SyncArgs {
    /// The user's id, as configured or added
    #[arg(value_name = "USER", required_unless_present = "all")]
    pub user: Option<String>,
    /// All users, never all at once
    #[arg(long, conflicts_with = "user")]
    pub all: bool,
    /// Where and how.
    #[command(flatten)]
    pub desk: operate::DeskArgs,
}

/// `kalends status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  kalends status\n  kalends status --json")]
pub struct StatusArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the state as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// `kalends replay`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends replay journal                            everything that happened, and the verdict\n  \
    kalends replay journal.1 --quiet                  only the verdict\n  \
    kalends replay journal --user ada@example.com     one user; needs journal.key beside it\n  \
    kalends replay journal --user anon-00f1e2d3c4b5a697\n  \
    kalends replay journal --job calendar-sync        the ticks and fan-outs of a schedule\n  \
    kalends replay journal --job 1793577600000001     what was done under one lease, by its token\n  \
    kalends replay journal --quiet --go-on 1h         what would come next in a quiet world\n\n\
    Each older file (journal.1, journal.2, ...) is a journal of its own. Names in a journal are pseudonyms; journal.key\n\
    finds a user's: keep it to yourself, and hand on the journal alone.\n\n\
    Ends with 0 if all decisions are the same again (a journal without an end is replayed up to there, and says so),\n\
    with 1 if one differs or the journal is damaged, with 2 if it is no journal of this release.")]
pub struct ReplayArgs {
    /// The journal
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show only what concerns this user: a pseudonym, or with the key beside the journal the user's id
    #[arg(long, value_name = "USER_OR_PSEUDONYM")]
    pub user: Option<String>,
    /// Show only what concerns this job: a lease's token, or a schedule's name
    #[arg(long, value_name = "TOKEN_OR_SCHEDULE")]
    pub job: Option<String>,
    /// Show only the verdict
    #[arg(long, short)]
    pub quiet: bool,
    /// Then go on for this long in a quiet world: like 90s, 15m, 1h, at most 7d
    #[arg(long, value_name = "TIME", value_parser = go_on_ms)]
    pub go_on: Option<u64>,
    /// Print one JSON object a line; the last one is the verdict
    #[arg(long)]
    pub json: bool,
}

/// The longest time to go on for, in milliseconds.
const GO_ON_MS_MAX: u64 = 7 * DAY_MS;

fn go_on_ms(text: &str) -> Result<u64, String> {
    let units = [
        ("ms", 1),
        ("s", SECOND_MS),
        ("m", MINUTE_MS),
        ("h", HOUR_MS),
        ("d", DAY_MS),
    ];
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = units
        .iter()
        .find(|(unit, _)| *unit == &text[digits.len()..]);
    let time_ms = unit.and_then(|(_, ms)| digits.parse::<u64>().ok()?.checked_mul(*ms));
    time_ms
        .filter(|ms| *ms <= GO_ON_MS_MAX)
        .ok_or_else(|| "write a time like 90s, 15m or 1h, at most 7d".to_owned())
}

/// What a queue is taken over from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrateFrom {
    /// BullMQ for Node.js, as versions 4 and 5 keep their queues in Redis
    Bullmq,
}

/// `kalends migrate`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends migrate --from bullmq --queue data-sync --dry-run\n  \
    kalends migrate --from bullmq --queue data-sync --bullmq-url redis://10.0.0.5:6379/2 --json\n\n\
    Reads repeatables, job schedulers, and waiting, prioritized and delayed jobs; makes schedules, users and jobs of them\n\
    in the configured store. The BullMQ queue is left as it is. A second time changes nothing more. Stop the old service\n\
    first.\n\n\
    Ends with 0 if all was taken over (with --dry-run: can be), with 1 if something was not, which the lines say, with 2\n\
    if nothing was done.")]
pub struct MigrateArgs {
    /// What kind of queue it is
    #[arg(long, value_name = "KIND", value_enum)]
    pub from: MigrateFrom,
    /// The queue's name
    #[arg(long, value_name = "NAME")]
    pub queue: String,
    /// The address of its Redis, like redis://user:password@host:6379/0 [default: redis.url]
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub bullmq_url: Option<Secret>,
    /// What the names of its keys begin with
    #[arg(long, value_name = "PREFIX", default_value = PREFIX_DEFAULT)]
    pub bullmq_prefix: String,
    /// The field of a job's data that holds the user's id, like payload.userId [default: the usual names are tried]
    #[arg(long, value_name = "FIELD")]
    pub user_field: Option<String>,
    /// A further name for Google Calendar in the field "source" of a job's data; may be given several times
    #[arg(long, value_name = "NAME")]
    pub source_name: Vec<String>,
    /// Enqueue failed jobs, too
    #[arg(long)]
    pub with_failed: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

/// `kalends config ...`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Explain every mistake with file and line, and warn of what looks unwise. Starts nothing.
    #[command(
        after_help = "Example:\n  kalends config check --config kalends.toml\n\n\
            Ends with 0 if the configuration is usable (warnings may be printed), with 2 if it is not."
    )]
    Check(ConfigCheckArgs),
    /// Show every setting in force and where it comes from, with secrets hidden.
    #[command(after_help = "Examples:\n  \
        kalends config show\n  \
        kalends config show --defaults > kalends.toml")]
    Show(ConfigShowArgs),
}

/// `kalends config check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ConfigCheckArgs {
    /// What would be run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `kalends config show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ConfigShowArgs {
    /// What would be run.
    #[command(flatten)]
    pub run: RunArgs,
    /// Print a complete configuration file with every setting, its help and its default instead
    #[arg(long)]
    pub defaults: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SETTINGS;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_run_reach_the_settings_they_overrule() {
        let typed = "kalends run --config a.toml --data-dir d --log-format json --log-level debug \
                     --concurrency -3 --node-name n --http 127.0.0.1:1 --record j --seed 7";
        let cli = Cli::try_parse_from(typed.split_whitespace()).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("not run");
        };
        let request = run.request();
        assert_eq!(request.file.as_deref(), Some("a.toml"));
        let mut typed: Vec<&str> = request.flags.iter().map(|(flag, _)| *flag).collect();
        let mut known: Vec<&str> = SETTINGS.iter().filter_map(|setting| setting.flag).collect();
        typed.sort_unstable();
        known.sort_unstable();
        assert_eq!(typed, known);
        assert!(request.flags.contains(&("--concurrency", "-3".to_owned())));
        assert!(request.flags.contains(&("--log-level", "debug".to_owned())));
    }

    #[test]
    fn an_address_with_a_password_is_not_shown() {
        let typed = "kalends migrate --from bullmq --queue q --bullmq-url redis://:hunter2@h";
        let cli = Cli::try_parse_from(typed.split_whitespace()).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
        let Command::Migrate(args) = cli.command else {
            panic!("not migrate");
        };
        assert_eq!(args.bullmq_url.unwrap().expose(), "redis://:hunter2@h");
        assert_eq!(args.bullmq_prefix, "bull");
    }

    #[test]
    fn only_a_fixture_can_be_played() {
        let parse = |typed: &str| Cli::try_parse_from(typed.split_whitespace());
        assert!(parse("kalends emulate google --play-every 5").is_err());
        assert!(parse("kalends emulate google --fixture a.json --play-every 0").is_err());
        let cli = parse("kalends emulate google --fixture a.json --play-every 5").unwrap();
        let Command::Emulate(EmulateCommand::Google(args)) = cli.command else {
            panic!("not emulate google");
        };
        assert_eq!(args.play_every, Some(5));
    }

    #[test]
    fn usage_errors_end_with_two() {
        let wrong = Cli::try_parse_from(["kalends", "demo", "--users", "0"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
    }
}
