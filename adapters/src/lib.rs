//! Thin adapters: translate, call, translate back. No retries, no waiting, no decisions: those are core's.

pub mod accounts;
pub mod bullmq;
pub mod embedded;
pub mod google;
pub mod neo4j;
pub mod redis;
pub mod seal;
pub mod secret;
