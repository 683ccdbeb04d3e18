//! Google Calendar's protocol without I/O: what to ask, and what an answer means.
//!
//! The adapter only sends a [`query`] and hands the answer's status and bytes back; reading a page, telling a rate
//! limit from a missing permission and choosing parameters happen here, so that the simulator runs the same code.
//!
//! Reading order: [`query`] (what is asked), [`event`] (the wire form of one event), [`page`] (reading an answer),
//! [`failure`] (what a refusal means; `refusal` reads its body). `lenient` holds the rules by which all JSON is read.

pub mod event;
pub mod failure;
mod lenient;
pub mod page;
pub mod push;
pub mod query;
mod refusal;
