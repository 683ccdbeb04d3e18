//! The Google emulator, seen from outside as a client sees it.

mod changes;
mod client;
mod convergence;
mod faults;
mod fixtures;
mod lists;
mod oauth;
mod schema;
mod weight;
