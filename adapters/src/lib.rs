//! Thin adapters: translate, call, translate back.
