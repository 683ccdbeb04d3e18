//! The runtime.

pub mod emulate;
