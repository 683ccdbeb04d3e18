//! The `kalends` command: understands the command line, calls what does it, ends with its code.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use kalends::cli::{Cli, Command};
use kalends::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Variables that are not Unicode belong to somebody else; a path of ours with odd bytes is told as not found.
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    match &cli.command {
        Command::Config(command) => {
            let outcome = commands::config::config(command, &environment);
            // A reader that went away (`| head`) is no failure of ours.
            let _ = std::io::stdout().write_all(outcome.output.as_bytes());
            let _ = std::io::stderr().write_all(outcome.errors.as_bytes());
            outcome.exit.into()
        }
        Command::Run(_)
        | Command::Demo(_)
        | Command::Sync(_)
        | Command::Status(_)
        | Command::Emulate(_) => {
            eprintln!("kalends: this command is not part of this build");
            kalends::exit::Exit::Failed.into()
        }
    }
}
