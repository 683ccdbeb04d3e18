//! The world as values: what Kalends talks to, without a socket, a clock or a thread.
//!
//! Each model is a value that takes a request and the time and gives an answer. The simulator runs it inside itself;
//! a thin HTTP face elsewhere serves the very same value to real clients.

pub mod google;
pub mod http;
