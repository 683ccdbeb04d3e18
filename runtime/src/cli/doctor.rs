//! `kalends doctor`.

use clap::Args;

use super::ConfigArgs;

/// `kalends doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(
    after_help = "Examples:\n  kalends doctor\n  kalends doctor --json\n\n\
    Checks the configuration, the store (Redis: version, memory policy, clock), Google (a token call and a look at one\n\
    user's list of calendars), the graph (Neo4j: version, constraints, leave to write) and the sealed grants, and says for\n\
    each finding what to do. In Neo4j constraints are made where they are missing, and a node is written and removed.\n\n\
    Ends with 0 if nothing is wrong (there may be warnings), with 1 if something is, with 2 if the configuration is."
)]
pub struct DoctorArgs {
    /// Print the findings as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}
