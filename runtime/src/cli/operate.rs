//! The commands of an operator: what the HTTP API does, against a running process or straight against the store.

use clap::{Args, Subcommand, ValueEnum};

use super::ConfigArgs;

/// Where the store is, and how the outcome is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct DeskArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The address of the process that has the store in data_dir, overruling http.listen
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Print the answer as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// `kalends pause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends pause --reason 'the graph is being moved'\n  \
    kalends pause --source google-calendar --reason 'Google is down'\n\n\
    Running syncs stop before their next request; nothing is lost. `kalends resume` goes on.")]
pub struct PauseArgs {
    /// Why, for whoever looks at the status
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends resume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Example:\n  kalends resume\n\n\
    Also opens a source before the time at which Google let it wait to. Starts come back slowly.")]
pub struct ResumeArgs {
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends reload\n  \
    kalends reload --http 127.0.0.1:7878 --json\n\n\
    Asks the process at http.listen, with http.token, to read its configuration again, as SIGHUP does. It says what is in force \
    now, and what waits for a restart. A mistake changes nothing. Of several processes each is asked by itself; limits and \
    schedules are in the store, so one is enough for these.")]
pub struct ReloadArgs {
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends limits`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = "Examples:\n  \
    kalends limits                                what is in force\n  \
    kalends limits --jobs 20                      20 syncs a minute\n  \
    kalends limits --jobs 500 --window-ms 600000\n  \
    kalends limits --jobs unlimited\n\n\
    A limit that is set here holds for all processes, until it is set again or limits.jobs is changed.")]
pub struct LimitsArgs {
    /// Syncs started in every window, or unlimited
    #[arg(long, value_name = "N")]
    pub jobs: Option<String>,
    /// The length of the window, in milliseconds
    #[arg(long, value_name = "MS", requires = "jobs", default_value_t = 60_000)]
    pub window_ms: u64,
    /// The source [default: the configured one]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// A state of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Running now
    Active,
    /// Could start now
    Waiting,
    /// Their time has not come
    Delayed,
    /// Given up
    Failed,
    /// Ended well
    Completed,
}

/// `kalends jobs ...`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum JobsCommand {
    /// List jobs, of one state or of all that are not done.
    #[command(after_help = "Examples:\n  \
        kalends jobs list\n  \
        kalends jobs list --state failed --limit 200 --json")]
    List(JobsListArgs),
    /// Try failed jobs again, at once.
    #[command(after_help = "Examples:\n  kalends jobs retry 17\n  kalends jobs retry --all")]
    Retry(JobsFailedArgs),
    /// Forget failed jobs: nobody tries them again, and their users are synced as ever.
    #[command(after_help = "Examples:\n  kalends jobs discard 17\n  kalends jobs discard --all")]
    Discard(JobsFailedArgs),
    /// Cancel a job that waits: it is removed. One that runs is left alone.
    #[command(
        visible_alias = "remove",
        after_help = "Examples:\n  \
            kalends jobs cancel ada@example.com\n  \
            kalends jobs cancel --schedule calendar-sync\n\n\
            The user stays, and is synced at the next tick."
    )]
    Cancel(JobsCancelArgs),
}

/// `kalends jobs list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct JobsListArgs {
    /// Only these
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Option<StateArg>,
    /// How many of a state to leave out from the start
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u32,
    /// How many of a state at the most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends jobs retry` and `kalends jobs discard`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct JobsFailedArgs {
    /// The number of a failed job, as `jobs list` shows it
    #[arg(value_name = "NUMBER", required_unless_present = "all")]
    pub number: Option<u64>,
    /// All failed jobs
    #[arg(long, conflicts_with = "number")]
    pub all: bool,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends jobs cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct JobsCancelArgs {
    /// The user whose sync it is
    #[arg(value_name = "USER", required_unless_present = "schedule")]
    pub user: Option<String>,
    /// The schedule whose fan-out it is
    #[arg(long, value_name = "NAME", conflicts_with = "user")]
    pub schedule: Option<String>,
    /// The source [default: the configured one]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends schedules ...`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SchedulesCommand {
    /// List schedules with their last and next ticks.
    #[command(after_help = "Example:\n  kalends schedules list")]
    List(SchedulesListArgs),
    /// Define a schedule, or change it. It stays until it is removed, over all restarts.
    #[command(after_help = "Example:\n  \
        kalends schedules set nightly --cron '0 3 * * *' --time-zone Europe/Berlin --catch-up skip")]
    Set(SchedulesSetArgs),
    /// Remove a schedule.
    #[command(after_help = "Example:\n  kalends schedules remove nightly\n\n\
        The schedule of the configuration comes back with the next start.")]
    Remove(SchedulesRemoveArgs),
}

/// `kalends schedules list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SchedulesListArgs {
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends schedules set`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SchedulesSetArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// When: minute, hour, day of month, month, day of week
    #[arg(long, value_name = "EXPRESSION")]
    pub cron: String,
    /// The IANA time zone in which that is read [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// What happens to ticks that were missed: skip, once or all(N) [default: once]
    #[arg(long, value_name = "POLICY")]
    pub catch_up: Option<String>,
    /// The source [default: the configured one]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// `kalends schedules remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SchedulesRemoveArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where and how.
    #[command(flatten)]
    pub desk: DeskArgs,
}
