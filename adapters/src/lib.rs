//! Thin adapters: translate, call, translate back.

pub mod google;
pub mod secret;
