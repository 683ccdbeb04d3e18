//! Kalends decides here, and only here: when a tick fires, who is due, what a page of a calendar means, what to do when
//! something breaks. No I/O, no clock, no entropy: time and chance come in, decisions go out.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`time`], [`rng`], [`id`], [`failure`] | the values that everything speaks in |
//! | [`pseudonym`] | what stands in a recording where a person's text stood |
//! | [`policy`] | schedules, jitter, spread, backoff, limits: small values with one rule each |
//! | [`queue`] | the Queue machine: a command in, a reply out; jobs, leases, limits, schedules, cursors |
//! | [`google`] | Google Calendar's protocol: what to ask, how to read an answer |
//! | [`graph`] | the graph's write model, and its statements for Neo4j |
//! | [`sync`] | the Sync machine: one user's job, page by page |
//! | [`node`] | the Node machine: one process; ticks, fan-out, claims, slots, heartbeats, shutdown |
//! | [`port`] | the traits that adapters implement |
//! | [`mutant`] | bugs that the simulator plants to see that it catches them; in no normal build |
//!
//! # The driving contract
//!
//! A [`node::Node`] wants three things of its driver: tell it what happened, perform the effects that it names, and
//! call it again at the time that it names. It needs nothing else, and it never blocks. The canonical loop:
//!
//! ```
//! use kalends_core::id::WorkerId;
//! use kalends_core::node::io::{EffectResult, Input, Op, Output};
//! use kalends_core::node::{Node, settings::NodeSettings};
//! use kalends_core::queue::Queue;
//! use kalends_core::queue::command::Stamped;
//! use kalends_core::time::Timestamp;
//!
//! // Here the store is the Queue value itself and time is a number that jumps. A real driver spawns each effect, sleeps
//! // until the timeout, and takes `now` from a monotonic clock; the calls on the node are the same.
//! let mut store = Queue::new();
//! let mut now = Timestamp::from_ms(1_000);
//! let mut node = Node::new(now, NodeSettings::new(WorkerId::new("worker-1").unwrap(), 42));
//! let stop_at = now.plus_ms(60_000);
//!
//! loop {
//!     match node.poll_output() {
//!         Output::Effect { id, op } => {
//!             let result = match op {
//!                 Op::Store(command) => {
//!                     let value = store.apply(now, *command);
//!                     EffectResult::Store(Ok(Stamped { now, value }))
//!                 }
//!                 Op::Fetch(_) | Op::Graph(_) => unreachable!("no user is enrolled"),
//!             };
//!             node.handle_input(now, Input::Done { id, result });
//!         }
//!         Output::Cancel { .. } | Output::Notice(_) => {}
//!         Output::Timeout { at, .. } => {
//!             assert!(at >= now, "a node never asks for a time that has passed");
//!             now = at;
//!             if now >= stop_at {
//!                 node.handle_input(now, Input::Shutdown { deadline: now.plus_ms(5_000) });
//!             } else {
//!                 node.handle_timeout(now);
//!             }
//!         }
//!         Output::Finished => break,
//!     }
//! }
//! assert!(node.is_ready());
//! ```

pub mod failure;
pub mod google;
pub mod graph;
pub mod id;
pub mod mutant;
pub mod node;
pub mod policy;
pub mod port;
pub mod pseudonym;
pub mod push;
pub mod queue;
pub mod rng;
pub mod sync;
pub mod time;
