//! The `kalends` command: understands the command line, calls what does it, ends with its code.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser as _;
use kalends::cli::{Cli, Command};
use kalends::exit::Exit;
use kalends::say::{complain, say};
use kalends::wiring::Refused;
use kalends::{commands, demo};

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
    if let Command::Config(command) = &cli.command {
        let outcome = commands::config::config(command, &environment);
        say(&outcome.output);
        complain(&outcome.errors);
        return outcome.exit.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("kalends: the system gives no threads: {error}\n"));
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(async {
        match &cli.command {
            Command::Run(args) => commands::run::run(args, &environment).await,
            Command::Demo(args) => demo::demo(args).await,
            Command::Sync(args) => commands::sync::sync(args, &environment).await,
            Command::Status(args) => commands::status::status(args, &environment).await,
            Command::Completions(args) => Ok(commands::papers::completions(*args)),
            Command::Man(args) => commands::papers::man(args),
            Command::Jobs(command) => commands::operate::jobs(command, &environment).await,
            Command::Pause(args) => commands::operate::pause(args, &environment).await,
            Command::Resume(args) => commands::operate::resume(args, &environment).await,
            Command::Reload(args) => commands::operate::reload(args, &environment).await,
            Command::Limits(args) => commands::operate::limits(args, &environment).await,
            Command::Schedules(command) => {
                commands::operate::schedules(command, &environment).await
            }
            Command::Doctor(args) => commands::doctor::doctor(args, &environment).await,
            Command::Users(command) => commands::users::users(command, &environment).await,
            Command::Replay(args) => commands::replay::replay(args),
            Command::Migrate(args) => commands::migrate::migrate(args, &environment).await,
            Command::Emulate(command) => commands::emulate::emulate(command).await,
            Command::Config(_) => Err(Refused::bad_input("config is handled above")),
        }
    });
    match ended {
        Ok(exit) => exit.into(),
        Err(Refused { exit, detail }) => {
            complain(&format!("kalends: {}\n", detail.trim_end()));
            exit.into()
        }
    }
}
