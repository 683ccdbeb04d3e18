//! Kalends decides here, and only here.

pub mod failure;
pub mod google;
pub mod graph;
pub mod id;
pub mod policy;
pub mod port;
pub mod queue;
pub mod rng;
pub mod time;
