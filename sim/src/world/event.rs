//! What can wait in the heap.

use kalends_core::google::query::FetchRequest;
use kalends_core::graph::GraphWrite;
use kalends_core::node::io::{EffectId, EffectResult};
use kalends_core::queue::command::Command;

use super::push::Posted;

/// Where an answer goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) process: u32,
    pub(crate) incarnation: u32,
    pub(crate) id: EffectId,
}

/// Something that is going to happen.
pub(crate) enum Event {
    /// A machine wants to be called.
    Timer {
        process: u32,
    },
    /// A command reaches the store; `served`: it has waited for a slow one.
    ToStore {
        from: Address,
        command: Box<Command>,
        served: bool,
    },
    /// A request reaches Google.
    ToGoogle {
        from: Address,
        request: Box<FetchRequest>,
    },
    /// A write reaches the graph.
    ToGraph {
        from: Address,
        write: Box<GraphWrite>,
    },
    /// An answer reaches a process.
    Back {
        to: Address,
        result: Box<EffectResult>,
    },
    /// A process hears that work may be due.
    Call {
        process: u32,
        incarnation: u32,
    },
    /// Operators try again what the store did not take.
    Operator,
    FaultBegins {
        index: u32,
    },
    FaultEnds {
        index: u32,
    },
    Start {
        process: u32,
    },
    Stop {
        process: u32,
        deadline_ms: u64,
    },
    ShutdownDue {
        process: u32,
        incarnation: u32,
    },
    /// Somebody changes a calendar.
    Change,
    /// The flooding user of a fault says "sync now".
    Flood {
        index: u32,
    },
    /// A notification comes to the fleet.
    Posted {
        posted: Box<Posted>,
    },
    /// A notification that came while the process was paused.
    Hear {
        process: u32,
        incarnation: u32,
        posted: Box<Posted>,
    },
    /// A webhook wants to be called.
    Listen {
        process: u32,
        incarnation: u32,
    },
    /// A webhook waits for the end of a channel no longer.
    StopDue {
        from: Address,
    },
    /// Somebody posts a forged notification.
    Forge {
        index: u32,
    },
    /// Google tells of a flooded user once more.
    TellAgain {
        index: u32,
    },
    /// The world looks at itself.
    Audit,
    /// The faults are over.
    Heal,
    /// Is everybody fresh by now?
    Check,
}

impl Event {
    /// Its name, and a number for the hash.
    pub(crate) fn kind(&self) -> (&'static str, u64) {
        match self {
            Event::Timer { process } => ("timer", u64::from(*process)),
            Event::ToStore { from, .. } => ("to-store", 0x100 | from.id.0 << 16),
            Event::ToGoogle { from, .. } => ("to-google", 0x200 | from.id.0 << 16),
            Event::ToGraph { from, .. } => ("to-graph", 0x300 | from.id.0 << 16),
            Event::Back { to, .. } => ("back", 0x400 | to.id.0 << 16),
            Event::Call { process, .. } => ("call", 0x500 | u64::from(*process) << 16),
            Event::Operator => ("operator", 0x600),
            Event::FaultBegins { index } => ("fault-begins", 0x700 | u64::from(*index) << 16),
            Event::FaultEnds { index } => ("fault-ends", 0x800 | u64::from(*index) << 16),
            Event::Start { process } => ("start", 0x900 | u64::from(*process) << 16),
            Event::Stop { process, .. } => ("stop", 0xa00 | u64::from(*process) << 16),
            Event::ShutdownDue { process, .. } => {
                ("shutdown-due", 0xb00 | u64::from(*process) << 16)
            }
            Event::Change => ("change", 0xc00),
            Event::Flood { index } => ("flood", 0xd00 | u64::from(*index) << 16),
            Event::Audit => ("audit", 0xe00),
            Event::Heal => ("heal", 0xf00),
            Event::Check => ("check", 0x1000),
            Event::Posted { .. } => ("posted", 0x1100),
            Event::Hear { process, .. } => ("hear", 0x1200 | u64::from(*process) << 16),
            Event::Listen { process, .. } => ("listen", 0x1300 | u64::from(*process) << 16),
            Event::StopDue { from } => ("stop-due", 0x1400 | from.id.0 << 16),
            Event::Forge { index } => ("forge", 0x1500 | u64::from(*index) << 16),
            Event::TellAgain { index } => ("tell-again", 0x1600 | u64::from(*index) << 16),
        }
    }
}
