//! The runtime.

pub mod config;
