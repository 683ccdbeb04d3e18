//! The Google adapter against a scripted server on loopback.

#![allow(clippy::unwrap_used)] // a test's helpers are tests

mod answers;
mod credentials;
mod push;
mod scripted;
mod world;
