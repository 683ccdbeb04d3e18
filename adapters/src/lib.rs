//! Thin adapters: translate, call, translate back.

pub mod embedded;
pub mod neo4j;
pub mod secret;
