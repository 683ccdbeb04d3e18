//! `kalends completions` and `kalends man`: what shells and `man` want to know, made of the command line itself.

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::Refused;

/// `kalends completions`.
pub fn completions(args: CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kalends", &mut script);
    say(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// `kalends man`.
///
/// # Errors
/// If the folder cannot be written.
pub fn man(args: &ManArgs) -> Result<Exit, Refused> {
    let failed = |error: std::io::Error| Refused {
        exit: Exit::Failed,
        detail: format!("the manual pages cannot be written: {error}"),
    };
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).map_err(failed)?;
        say(&String::from_utf8_lossy(&page));
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    Ok(Exit::Done)
}
