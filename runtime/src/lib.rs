//! Kalends keeps every user's Google Calendar in a Neo4j graph: on time, exactly as it stands at Google, and without
//! stampeding anyone.
//!
//! This crate is the runtime: it joins the pure [`kalends_core`] with the thin [`kalends_adapters`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | `kalends.toml`, environment and flags, checked |
//! | [`wiring`] | from a configuration to a node and its ports |
//! | [`handle`] | [`start`]: a node inside another program, asked and stopped by a handle |
//! | [`accounts`] | users who were added by command |
//! | [`driver`] | the loop that performs what the node names |
//! | [`record`] | the journal of `kalends run --record`: its thread and its files |
//! | [`web`] | HTTP: health, readiness, metrics, the API and the page |
//! | [`metrics`] | what a process counts, for Prometheus and the page |
//! | [`status`] | what the store says of a fleet, for command line, API and page |
//! | [`clock`] | clocks for drivers |
//! | [`commands`], [`cli`], [`exit`], [`logging`], [`say`] | the `kalends` command |
//! | [`migrate`] | what becomes of the queue of a service that is replaced |
//! | [`demo`] | the whole main job against an emulated Google, compared item by item |
//! | [`emulate`] | the emulators of Google and Neo4j behind HTTP |

pub mod accounts;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod demo;
pub mod driver;
pub mod emulate;
pub mod exit;
pub mod handle;
pub mod logging;
pub mod metrics;
pub mod migrate;
pub mod notices;
pub mod record;
pub mod say;
pub mod status;
pub mod web;
pub mod wiring;

pub use handle::{Handle, Readiness, start};
