//! The HTTP face over a real listener and a real store: who is let in, what is answered, what hostile input comes to.
#![allow(clippy::unwrap_used)] // a test ends at the first thing that goes wrong

mod api;
mod bodies;
mod client;
mod events;
mod face;
mod fuzz;
mod patience;
mod schema;
mod security;
mod webhook;
