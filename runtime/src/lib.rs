//! Kalends keeps every user's Google Calendar in a Neo4j graph: on time, exactly as it stands at Google, and without
//! stampeding anyone.
//!
//! It wakes by a cron schedule, spreads the users over the period, asks Google only for what changed since the last time,
//! and writes events, attendees and organisers to Neo4j, or to a file of its own. All that decides anything is in the pure
//! [`kalends_core`]; [`kalends_adapters`] talks to the world; this crate joins the two, as a library and as the command
//! `kalends`.
//!
//! # Inside another program
//!
//! [`Kalends::builder`] says what differs from the defaults, [`Builder::start`](builder::Builder::start) begins on the tokio
//! runtime at hand and returns at once, and a [`Handle`] asks and stops it. A host does not depend on a store that may be
//! away, nor on its own parts being without faults: see [`builder`].
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use kalends::prelude::*;
//! use kalends_core::google::event::{ApiEvent, ApiTime};
//! use kalends_core::google::page::{EventsPage, PageEnd};
//!
//! /// A calendar with one event in it, from the host itself. `google(...)` instead of `source(...)` asks Google.
//! struct Birthday;
//!
//! #[async_trait]
//! impl Source for Birthday {
//!     async fn fetch(&self, _: FetchRequest) -> Result<FetchReply, Failure> {
//!         let day = ApiTime { date: Some("2030-12-10".to_owned()), ..ApiTime::default() };
//!         let event = ApiEvent {
//!             id: Some("birthday".to_owned()),
//!             summary: Some("Ada's birthday".to_owned()),
//!             start: Some(day.clone()),
//!             end: Some(day),
//!             ..ApiEvent::default()
//!         };
//!         Ok(FetchReply::Events(EventsPage {
//!             summary: Some("Birthdays".to_owned()),
//!             time_zone: None,
//!             access_role: None,
//!             events: vec![event],
//!             unreadable: Vec::new(),
//!             end: PageEnd::Done { sync_token: Some("all".to_owned()) },
//!         }))
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let kalends = Kalends::builder()
//!     .folder(folder) // queue and graph in one file; or redis(...) and neo4j(...)
//!     .source(Arc::new(Birthday))
//!     .start()
//!     .await?;
//!
//! let handle = kalends.handle(); // a copy for whoever needs one
//! let mut events = handle.events();
//! handle.readiness_changes().wait_for(|readiness| *readiness == Readiness::Ready).await?;
//! let (calendars, ada) = (SourceName::google_calendar(), UserId::new("ada@example.com")?);
//! handle.enroll(calendars.clone(), ada, 0).await?; // and is synced at once
//! while let Some(event) = events.next().await {
//!     if let Event::Happened(Notice::JobDone { .. }) = event {
//!         break;
//!     }
//! }
//! assert_eq!(handle.status().await?.stats.completed, 1);
//! handle.pause(Some(calendars), "the graph is being moved").await?;
//!
//! assert_eq!(kalends.shutdown(25_000).await, Why::Asked);
//! # Ok(())
//! # }
//! ```
//!
//! `runtime/examples` holds whole programs, which a test runs: a web application on axum whose users connect while it runs
//! (`embed_in_axum`), a source of one's own (`own_source`), a graph of one's own (`own_graph`).
//!
//! | what may be another one | by | the rules it keeps |
//! |---|---|---|
//! | where calendars come from | [`Builder::source`](builder::Builder::source) | [`Source`](kalends_core::port::Source) |
//! | where events go | [`Builder::graph`](builder::Builder::graph) | [`Graph`](kalends_core::port::Graph), [`kalends_core::graph`] |
//! | where the queue is | [`Builder::store`](builder::Builder::store) | [`Store`](kalends_core::port::Store): it answers as the [`Queue`](kalends_core::queue::Queue) value does |
//! | time | [`Builder::clock`](builder::Builder::clock) | [`Clock`](kalends_core::time::Clock): never back |
//! | chance | [`Builder::rng`](builder::Builder::rng), [`Builder::seed`](builder::Builder::seed) | [`Rng`](kalends_core::rng::Rng) |
//!
//! # Rooms
//!
//! | module | what it holds |
//! |---|---|
//! | [`builder`] | [`Kalends`]: the front door of the library |
//! | [`prelude`] | what a host names most |
//! | [`handle`] | a started node, asked and stopped; [`start`] is the long form of the builder |
//! | [`config`] | `kalends.toml`, environment and flags, checked |
//! | [`wiring`] | from a configuration to a node and its ports |
//! | [`accounts`] | users who were added by command |
//! | [`driver`] | the loop that performs what the node names |
//! | [`record`] | the journal of `kalends run --record`: its thread and its files |
//! | [`web`] | HTTP: health, readiness, metrics, the API and the page |
//! | [`spans`] | what a node does, as spans for whoever subscribes to them |
//! | [`metrics`] | what a process counts, for Prometheus and the page |
//! | [`status`] | what the store says of a fleet, for command line, API and page |
//! | [`clock`] | clocks for drivers |
//! | [`commands`], [`cli`], [`exit`], [`logging`], [`say`] | the `kalends` command |
//! | [`reload`], [`supervisor`] | the configuration read again; systemd told how the process does |
//! | [`migrate`] | what becomes of the queue of a service that is replaced |
//! | [`demo`] | the whole main job against an emulated Google, compared item by item |
//! | [`emulate`] | the emulators of Google and Neo4j behind HTTP |

pub mod accounts;
pub mod builder;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod demo;
pub mod driver;
pub mod emulate;
pub mod exit;
pub mod handle;
#[cfg(test)]
mod hostile;
pub mod logging;
pub mod metrics;
pub mod migrate;
pub mod notices;
#[cfg(feature = "otel")]
mod otlp;
pub mod prelude;
pub mod record;
pub mod reload;
pub mod say;
pub mod spans;
pub mod status;
pub mod supervisor;
pub mod web;
pub mod wiring;

pub use builder::Kalends;
pub use handle::{Handle, Readiness, start};
// Their types are in the surface of this crate: a host needs no further dependency to name them.
pub use {kalends_adapters, kalends_core};
