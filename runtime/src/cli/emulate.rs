//! `kalends emulate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `kalends emulate ...`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum EmulateCommand {
    /// Serve Google's consent page, token endpoint (/token) and Calendar API (/calendar/v3), printing one refresh token a user.
    #[command(after_help = "Examples:\n  \
        kalends emulate google\n  \
        kalends emulate google --port 4500 --users 100 --events 50 --seed 1\n  \
        kalends emulate google --users 1 --fixture events.json\n  \
        kalends emulate google --users 1 --fixture answers.json --play-every 60\n  \
        kalends emulate google --users 5 --change-every 10 --push-forged-every 3\n\n\
        A fixture is the API's own JSON: an array of events, one events.list answer (an object with \"items\"), or an\n\
        array of answers: the first is the calendar, the others are changes that --play-every plays one after another.\n\
        All users have the same fixture.\n\n\
        Who watches a calendar (push.address) is told of its changes, on this machine only, and what each answered is printed.\n\
        Notifications can come late, twice, not at all, and beside forged ones; who answers 5xx is told again a few times.")]
    Google(EmulateGoogleArgs),
    /// Serve Neo4j's Query API for the statements that Kalends sends.
    #[command(after_help = "Example:\n  kalends emulate neo4j --port 7474")]
    Neo4j(EmulateNeo4jArgs),
}

/// `kalends emulate google`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EmulateGoogleArgs {
    /// The port on 127.0.0.1; 0 takes a free one and prints it
    #[arg(long, value_name = "PORT", default_value_t = 4500)]
    pub port: u16,
    /// How many users
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// How many events each user's calendar begins with
    #[arg(long, value_name = "M", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub events: u32,
    /// The seed from which calendars are drawn
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Events to load instead, as the API's own JSON (an events.list answer, or several)
    #[arg(long, value_name = "FILE")]
    pub fixture: Option<PathBuf>,
    /// Play the fixture's next answer every so many seconds, and say so; without it only the first one is shown
    #[arg(long, value_name = "SECONDS", requires = "fixture", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub play_every: Option<u32>,
    /// Somebody changes a calendar every so many seconds: events come, move and go
    #[arg(long, value_name = "SECONDS", conflicts_with = "fixture", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub change_every: Option<u32>,
    /// Push notifications come so many milliseconds late
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub push_delay_ms: u64,
    /// Every Nth push notification comes twice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub push_doubled_every: Option<u64>,
    /// Every Nth push notification does not come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub push_dropped_every: Option<u64>,
    /// With every Nth push notification comes a forged one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub push_forged_every: Option<u64>,
    /// Post push notifications to other machines, too, by https
    #[arg(long)]
    pub push_elsewhere: bool,
}

/// `kalends emulate neo4j`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EmulateNeo4jArgs {
    /// The port on 127.0.0.1; 0 takes a free one and prints it
    #[arg(long, value_name = "PORT", default_value_t = 7474)]
    pub port: u16,
}
