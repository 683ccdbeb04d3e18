//! Recording: from what a driver told a node and heard from it to lines of a journal.
//!
//! It steps a shadow of the node, the machine that a replay will be, over the hidden inputs. So each line is known to
//! replay when it is written, and a new file can begin at any turn.

use kalends_core::node::io::{Op, Output};
use kalends_core::node::settings::NodeSettings;
use kalends_core::time::Timestamp;

use super::decision::{Decision, decision};
use super::hash::Key;
use super::hide::Hider;
use super::journal::{End, FORMAT, Head, Line, Standing, Step, Writer, roll, write_decision};
use super::replay::{Replay, ReplayError};
use super::told::Told;

/// What a driver told a node between two rounds of asking it, and what the node said then.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The driver's clock.
    pub at: Timestamp,
    /// What the node was told, in order, by [`Hider::told`]; nothing, when the node was only made.
    pub told: Vec<Told>,
    /// The outputs, in order; the last one is a timeout or the end.
    pub said: Vec<Said>,
}

/// One output, as the driver hands it on: a batch of events is not copied for its digest.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A copy of the output.
    Output(Output),
    /// Its digest.
    Decision(Decision),
}

impl Said {
    /// What is handed on of `output`.
    #[must_use]
    pub fn of(output: &Output, hider: &Hider) -> Self {
        match output {
            Output::Effect {
                op: Op::Graph(_), ..
            } => Said::Decision(decision(output, hider.key())),
            output => Said::Output(output.clone()),
        }
    }

    /// Whether the node says that it has finished.
    #[must_use]
    pub fn is_the_end(&self) -> bool {
        matches!(self, Said::Output(Output::Finished))
    }
}

/// One node's recording.
#[derive(Debug)]
pub struct Recording {
    hider: Hider,
    shadow: Replay,
    writer: Writer,
    digest: u64,
}

impl Recording {
    /// The recording of a node that is made with `settings`, and the first line of its journal.
    #[must_use]
    pub fn new(settings: &NodeSettings, key: Key) -> (Self, Vec<u8>) {
        let hider = Hider::new(key, settings);
        let hidden = hider.settings(settings);
        let mut recording = Recording {
            hider,
            shadow: Replay::shadow(hidden.clone()),
            writer: Writer::new(),
            digest: 0,
        };
        let head = recording.head(Standing::Begins(Box::new(hidden))).to_vec();
        (recording, head)
    }

    /// What hides for it.
    #[must_use]
    pub fn hider(&self) -> &Hider {
        &self.hider
    }

    fn head(&mut self, standing: Standing) -> &[u8] {
        self.writer = Writer::new();
        self.writer.line(&Line::Head(Box::new(Head {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            turns: self.shadow.turns(),
            standing,
        })))
    }

    /// The line of a turn. With an error, too, the line is to be written, and [`End::Differs`] behind it: it shows what
    /// went wrong.
    ///
    /// # Errors
    /// If the shadow decided otherwise than the node.
    pub fn turn(&mut self, turn: Turn) -> (&[u8], Result<(), ReplayError>) {
        let mut decided = String::with_capacity(turn.said.len() * 9);
        for said in &turn.said {
            let one = match said {
                Said::Output(output) => decision(output, self.hider.key()),
                Said::Decision(decision) => *decision,
            };
            self.digest = roll(self.digest, one);
            write_decision(&mut decided, one);
        }
        let line = Line::Step(Step {
            at: turn.at,
            told: turn.told,
            decided,
            digest: self.digest,
        });
        self.writer.line(&line);
        let Line::Step(step) = line else {
            unreachable!("made above");
        };
        let agrees = self.shadow.step(step, &mut |_| {});
        (self.writer.last(), agrees)
    }

    /// The last line of a file.
    pub fn end(&mut self, end: End) -> &[u8] {
        self.writer.line(&Line::End(end))
    }

    /// The last line of this file and the first of the next; `None` before the first turn.
    pub fn rotate(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let standing = self.shadow.standing()?;
        let last = self.end(End::Rotated).to_vec();
        Some((last, self.head(standing).to_vec()))
    }
}
