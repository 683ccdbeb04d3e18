//! What each subcommand does, once the command line is understood.

pub mod config;
pub mod doctor;
pub mod emulate;
pub mod migrate;
pub mod operate;
pub mod papers;
pub mod replay;
pub mod run;
pub mod status;
pub mod sync;
pub mod users;
