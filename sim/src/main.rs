//! `kalends-sim`: plays plans, many at a time, and says what came of them.
//!
//! The library is pure; this is its seam to a machine. Threads, the wall clock (for seeds a second), files and arguments
//! are used here and in `cli/`, and nothing of them reaches a run.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // the seam: threads, clock, files and arguments, as above

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
