//! The runtime.

pub mod cli;
pub mod commands;
pub mod config;
pub mod exit;
pub mod logging;
