//! The adapters that speak HTTP against a scripted server on loopback.

#![allow(clippy::unwrap_used)] // a test's helpers are tests

mod answers;
mod credentials;
mod neo4j;
mod push;
mod scripted;
mod world;
