//! The emulators of `kalends-sim`, startable as servers on this machine.

pub mod face;
pub mod post;
