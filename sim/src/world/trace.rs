//! What an onlooker sees of a run: each thing that happens, with its time. Nobody looks unless asked to, and looking
//! changes nothing.

use kalends_core::failure::Failure;
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::GraphReply;
use kalends_core::id::UserId;
use kalends_core::node::io::Notice;
use kalends_core::push::listener::Verdict;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::time::Timestamp;

use crate::plan::Fault;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Moment<'a> {
    /// A process came to life.
    Started {
        /// Which.
        process: u32,
        /// How often it has been started, from 1.
        incarnation: u32,
    },
    /// A process ended.
    Ended {
        /// Which.
        process: u32,
        /// How.
        how: &'static str,
    },
    /// A process said something.
    Said {
        /// Which.
        process: u32,
        /// What.
        notice: &'a Notice,
    },
    /// A process of the replaced service did something.
    Noted {
        /// Which.
        process: u32,
        /// What, in words.
        line: &'a str,
    },
    /// The store applied a command.
    Applied {
        /// Whose; `None`: an operator's.
        process: Option<u32>,
        /// The store's time.
        store_now: Timestamp,
        /// What was asked.
        command: &'a Command,
        /// What was answered.
        reply: &'a Reply,
    },
    /// Google answered a request.
    Fetched {
        /// Whose.
        process: u32,
        /// What was asked.
        request: &'a FetchRequest,
        /// What was answered.
        result: &'a Result<FetchReply, Failure>,
    },
    /// The graph answered a write.
    Wrote {
        /// Whose.
        process: u32,
        /// The user.
        user: &'a UserId,
        /// What was answered.
        result: &'a Result<GraphReply, Failure>,
    },
    /// A webhook answered a notification.
    Heard {
        /// Whose.
        process: u32,
        /// The user, if it was believed.
        user: Option<&'a UserId>,
        /// What was answered.
        verdict: Verdict,
    },
    /// A fault began.
    FaultBegan(&'a Fault),
    /// A fault ended.
    FaultEnded(&'a Fault),
    /// The faults are over; from now on everything must become well.
    Healed,
    /// Everybody is fresh and the graph equals the calendars.
    Converged,
}

/// Looks on.
pub trait Tracer {
    /// Something happened at `at`, true time.
    fn moment(&mut self, at: Timestamp, moment: &Moment<'_>) {
        let _ = (at, moment);
    }

    /// Event number `number` (from 1) of the kind `kind` was handled at `at`; `hash` is the hash of the run so far.
    fn event(&mut self, number: u64, at: Timestamp, kind: &'static str, hash: u64) {
        let _ = (number, at, kind, hash);
    }
}

/// Keeps the hash after every event, to find where two runs part.
#[derive(Clone, Debug, Default)]
pub struct HashLog {
    /// Time, kind and hash of each event.
    pub events: Vec<(Timestamp, &'static str, u64)>,
}

impl Tracer for HashLog {
    fn event(&mut self, _: u64, at: Timestamp, kind: &'static str, hash: u64) {
        self.events.push((at, kind, hash));
    }
}

impl HashLog {
    /// The number (from 1) of the first event in which two runs differ, with what it was in each.
    #[must_use]
    pub fn first_difference(&self, other: &HashLog) -> Option<(usize, String)> {
        let longest = self.events.len().max(other.events.len());
        let place =
            (0..longest).find(|place| self.events.get(*place) != other.events.get(*place))?;
        let (one, two) = (self.events.get(place), other.events.get(place));
        Some((
            place + 1,
            format!("{one:?} in one run, {two:?} in the other"),
        ))
    }
}
