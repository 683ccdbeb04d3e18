//! Incidents: what a node in production was told and what it decided, to be gone through again at leisure.
//!
//! A node decides by its settings, its seed and what it is told at which time, and by nothing else. So a journal of just
//! these is the whole incident: the same machine, told the same, decides the same. What makes it more than a log:
//!
//! ```text
//! driver ──► Turn ──► Recording: hides, steps a shadow of the node, compares ──► lines of the journal
//!                                                                                   │
//!                   Ended: node, time, effects under way ◄── Replay: steps, compares ◄── Reader: is it whole?
//!                      └──► GoOn: the same node in a quiet world
//! ```
//!
//! - **Nobody's data.** What persons and Google wrote is replaced by pseudonyms ([`told`](Told)); the key is not in it.
//! - **The same decisions.** Hiding must not change one. So the recorder steps a *shadow*: the same machine over the hidden
//!   inputs. Its decisions are compared with the real ones at once, output by output; the first difference ends the
//!   recording and says so. A replay is the same comparison later.
//! - **Any file will do.** A node is a value. A new file begins with the shadow as it stands, so each file of a rotated
//!   journal can be replayed alone, and the oldest ones can go.
//! - **Whole or said not to be.** Each line carries a hash over itself and all before it: a changed byte, or a line that is
//!   missing, is found; a journal that was cut off lacks its last line, and is replayed as far as it goes.
//! - **Hostile files.** A journal that somebody forged can make a machine meet what cannot happen: that panic is caught,
//!   and is an error like the others.
//!
//! Everything here is a value. Threads, files and their sizes are the runtime's (`kalends::record`).

mod decision;
mod go_on;
mod hash;
mod hide;
mod journal;
mod record;
mod replay;
mod told;

pub use decision::{Decision, Kind};
pub use go_on::{GoOn, Known};
pub use hash::Key;
pub use hide::Hider;
pub use journal::{
    End, FORMAT, Head, JournalError, LINE_BYTES_MAX, Line, Reader, Standing, Step, Writer,
};
pub use record::{Recording, Said, Turn};
pub use replay::{Ended, Replay, ReplayError, Seen};
pub use told::{Outcome, Page, Told};
