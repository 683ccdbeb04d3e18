//! `kalends users ...`: who is synced beside the users of the configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ConfigArgs;

/// `kalends users ...`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum UsersCommand {
    /// Add a user. With a service account that is all; otherwise connect the user afterwards, or give a token.
    #[command(after_help = "Examples:\n  \
        kalends users add ada@example.com\n  \
        kalends users add ada@example.com --refresh-token-file ada-token\n\n\
        A running `kalends run` takes the user up within seconds. Ends with 2 if there is such a user already.")]
    Add(AddArgs),
    /// Let a user consent at Google, and keep the grant sealed; adds the user if need be.
    #[command(after_help = "Examples:\n  \
        kalends users connect ada@example.com\n  \
        kalends users connect ada@example.com --no-browser\n  \
        ssh -L 8085:127.0.0.1:8085 server kalends users connect ada@example.com --no-browser --port 8085\n\n\
        The browser comes back to this machine. If it runs on another one, forward the port as above, or paste the address\n\
        at which it ended (where nothing answers) into this command.\n\n\
        The OAuth client must be of the type \"Desktop app\". Needs a key: see credentials.keys_file.")]
    Connect(ConnectArgs),
    /// List all users: where they come from, whether they are connected, and how fresh they are.
    #[command(
        after_help = "Examples:\n  kalends users list\n  kalends users list --needs-reauth --json"
    )]
    List(ListArgs),
    /// Show all that is known of one user, but no secret.
    #[command(after_help = "Example:\n  kalends users show ada@example.com")]
    Show(ShowArgs),
    /// Add or connect many users from a CSV or JSON file, with a line of report for each.
    #[command(after_help = "Examples:\n  \
        kalends users import users.csv\n  \
        kalends users import users.json --dry-run\n\n\
        CSV: a first line that names the columns, id and any of refresh_token and graph_database; values may be quoted.\n\
        JSON: an array of objects with these keys, or one object a line.\n\n\
        A user who is there already is connected anew if the line holds another token, and left alone otherwise. Ends with 0\n\
        if every line was taken, with 1 if one was not.")]
    Import(ImportArgs),
    /// Stop syncing a user: jobs are cancelled, the grant is forgotten; with --purge the graph forgets the user, too.
    #[command(after_help = "Examples:\n  \
        kalends users remove ada@example.com\n  \
        kalends users remove ada@example.com --purge\n\n\
        The grant at Google stays until the user takes it away at https://myaccount.google.com/permissions.")]
    Remove(RemoveArgs),
    /// Seal all grants again by the first key, so that older keys can be taken away.
    #[command(after_help = "Example:\n  \
        (openssl rand -hex 32; cat credentials-keys) > new-keys && mv new-keys credentials-keys\n  \
        kalends users reseal\n\n\
        Start running processes again before, so that they know the new key; take the old key away afterwards.")]
    Reseal(ResealArgs),
}

/// `kalends users add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct AddArgs {
    /// The user's id; with a service account the e-mail address
    #[arg(value_name = "USER")]
    pub user: String,
    /// A file that holds the user's refresh token and nothing else; - reads it from standard input
    #[arg(long, value_name = "FILE")]
    pub refresh_token_file: Option<PathBuf>,
    /// The user's Neo4j database, for graph.database_per_user
    #[arg(long, value_name = "NAME")]
    pub graph_database: Option<String>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `kalends users connect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ConnectArgs {
    /// The user's id
    #[arg(value_name = "USER")]
    pub user: String,
    /// Only print the address at which the user consents
    #[arg(long)]
    pub no_browser: bool,
    /// The port on 127.0.0.1 to which the browser comes back; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
    /// Accept whatever Google account consents, though the user's id is the address of another one
    #[arg(long)]
    pub any_account: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `kalends users list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Only those who have to connect (again)
    #[arg(long)]
    pub needs_reauth: bool,
    /// Print the users as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `kalends users show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ShowArgs {
    /// The user's id
    #[arg(value_name = "USER")]
    pub user: String,
    /// Print it as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `kalends users import`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ImportArgs {
    /// A .csv, .json, .jsonl or .ndjson file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object a line; the last one holds the counts
    #[arg(long)]
    pub json: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `kalends users remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RemoveArgs {
    /// The user's id
    #[arg(value_name = "USER")]
    pub user: String,
    /// Remove what was synced of the user from the graph, too
    #[arg(long)]
    pub purge: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `kalends users reseal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ResealArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}
