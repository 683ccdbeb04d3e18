//! The Google emulator, seen from outside as a client sees it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
mod client;
mod consent;
mod convergence;
mod faults;
mod fixtures;
mod lists;
mod oauth;
mod push;
mod push_days;
mod schema;
mod weight;
