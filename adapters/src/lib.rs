//! Thin adapters: translate, call, translate back.

pub mod embedded;
