//! Kalends decides here, and only here.

pub mod failure;
pub mod id;
pub mod policy;
pub mod rng;
pub mod time;
