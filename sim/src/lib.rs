//! The world as values: what Kalends talks to, without a socket, a clock or a thread.
//!
//! Each model is a value that takes a request and the time and gives an answer. The simulator runs it inside itself;
//! a thin HTTP face elsewhere serves the very same value to real clients.
//!
//! [`google`] and [`neo4j`] are the models, [`http`] what they speak, [`oracle`] judges whether a user's graph holds
//! what the user's calendar says. [`incident`] is what a node in production met, recorded and replayed.

pub mod google;
pub mod http;
pub mod incident;
pub mod neo4j;
pub mod oracle;
