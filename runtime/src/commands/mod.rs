//! What each subcommand does, once the command line is understood.

pub mod config;
