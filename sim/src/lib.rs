//! The world as values: what Kalends talks to, without a socket, a clock or a thread; and a fleet in it, from a seed.
//!
//! # The rooms
//!
//! | module | what it holds |
//! |---|---|
//! | [`google`], [`neo4j`] | models of the servers: a request and the time in, an answer out; also served over HTTP elsewhere |
//! | [`http`], [`oracle`] | what they speak; whether a user's graph holds what the user's calendar says |
//! | [`graph`] | one user's graph as a value, for speed; held to [`neo4j`] by a test |
//! | [`plan`] | what is decided before a run, as data: sizes, policies, faults; drawn by swarm, shrunk, kept as JSON |
//! | [`world`] | the fleet: real nodes, the real queue, networks, clocks, faults, one heap of events |
//! | [`invariants`] | what must hold after every event: one small ledger a sentence |
//! | [`marks`] | places that a batch must reach sometimes |
//! | [`scenario`] | named plans with an expectation |
//! | [`report`] | what came of a run |
//! | [`incident`] | what a node in production met, recorded and replayed |
//! | [`legacy`] | the service that Kalends replaces, as a policy in the same world |
//! | [`compare`], [`picture`] | that service and Kalends side by side; one page with plots of what was seen |
//!
//! ```
//! use kalends_sim::plan::{FaultKind, Plan};
//! use kalends_sim::world::run;
//!
//! let mut plan = Plan::quiet(1);
//! plan.size.users = 3;
//! plan.size.duration_ms = 60 * 60 * 1_000;
//! let plan = plan.with(20, 5, FaultKind::Crash { process: 0 });
//! let report = run(&plan);
//! assert_eq!(report.failed, None);
//! assert_eq!(report.unseed, run(&plan).unseed);
//! ```
//!
//! The program `kalends-sim` (`main.rs`, `cli/`) plays many plans at a time. It is the one impure part of this crate.
//!
//! # How to add a fault
//!
//! 1. [`plan::FaultKind`]: a variant, with its family and its units.
//! 2. `world/weather.rs`: what it makes of the weather while it lasts; or `world/faults.rs`: what it does when it begins
//!    and ends. Then the place that asks the weather: `store.rs`, `google.rs`, `process.rs`.
//! 3. `plan/draw.rs`: how a seed draws it. Append to the family's choices; a new family draws from a sub-stream of its own.
//! 4. `plan/bound.rs`, if something of it may still be in force when it has ended.
//! 5. A mark in [`marks::NAMES`] (of push: [`marks::PUSH_NAMES`]), so that a batch which never meets it fails.
//!
//! # How to add an invariant
//!
//! 1. [`invariants::Invariant`]: a variant and a name.
//! 2. A file of its own in `invariants/`: a value that sees events and answers a [`invariants::Verdict`]; tests on
//!    violations made by hand.
//! 3. Who tells it: `invariants/store.rs` for commands (its state is then taken back at a failover), the file in `world/`
//!    where it happens for anything else; what is broken goes to `World::broken`.
//!
//! # How to add a scenario
//!
//! A [`scenario::Scenario`] in a file of `scenario/`: a name, a sentence with fault and outcome, the plan for a seed, and
//! what is expected beside the invariants and convergence, which always hold.

pub mod compare;
pub mod google;
pub mod graph;
pub mod http;
pub mod incident;
pub mod invariants;
pub mod legacy;
pub mod marks;
pub mod neo4j;
pub mod oracle;
pub mod picture;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod world;
