//! A replay: the same machine, told the same again, and compared decision by decision.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, Op, Output};
use kalends_core::node::settings::NodeSettings;
use kalends_core::queue::command::Command;
use kalends_core::time::Timestamp;

use super::decision::{Kind, decision};
use super::go_on::Known;
use super::hash::Hidden;
use super::journal::{Head, Standing, Step, read_decision, roll};
use super::told::Told;

/// Why a replay ended before its journal did.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplayError {
    /// The machine decided otherwise than is recorded.
    Differs {
        /// In which turn, from 1.
        turn: u64,
        /// At which time, on the driver's clock.
        at: Timestamp,
        /// Which decision of the turn, from 1.
        decision: u64,
        /// What is recorded; `None`: no further decision, or none that can be read.
        recorded: Option<Kind>,
        /// What was decided now.
        replayed: Box<Output>,
    },
    /// The decisions agree and the digest over them does not: the journal was changed.
    Digest {
        /// In which turn, from 1.
        turn: u64,
        /// At which time.
        at: Timestamp,
    },
    /// The machine met what cannot happen: the journal is forged, or another release's.
    Panicked {
        /// In which turn, from 1.
        turn: u64,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Differs {
                turn,
                at,
                decision,
                recorded,
                replayed,
            } => write!(
                formatter,
                "turn {turn} at {at}, decision {decision}: recorded is {}, and now it is {}; replay it with the release \
                 that wrote it, and if that is this one, please report it",
                recorded.map_or("nothing more", Kind::name),
                super::decision::decision(replayed, &Hidden).kind.name(),
            ),
            ReplayError::Digest { turn, at } => write!(
                formatter,
                "turn {turn} at {at}: the digest over the decisions is another one; the journal was changed"
            ),
            ReplayError::Panicked { turn } => write!(
                formatter,
                "turn {turn} tells the machine what cannot happen; the journal is forged, or another release's"
            ),
        }
    }
}

impl std::error::Error for ReplayError {}

/// What is seen while a turn is replayed, in order.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'turn> {
    /// What the node was told.
    Told(&'turn Told, Option<&'turn Op>),
    /// What it said.
    Decided(&'turn Output),
}

/// Where a replay stands after its last turn: what it takes to go on from there, in a simulator or anywhere.
///
/// The node wants the results of `in_flight` by [`Node::handle_input`], and to be called at the time that
/// [`Node::poll_output`] names. All names in it are pseudonyms.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The node.
    pub node: Node,
    /// Its clock.
    pub now: Timestamp,
    /// What it asked for and has not heard of yet.
    pub in_flight: Vec<(EffectId, Op)>,
    /// What the store told it in this journal.
    pub known: Known,
}

/// Whether a cursor has to be read for the digest of `output`: that costs as much as all the rest.
fn holds_cursor(output: &Output) -> bool {
    matches!(
        output,
        Output::Effect {
            op: Op::Store(command),
            ..
        } if matches!(**command, Command::Complete { .. } | Command::Checkpoint { .. })
    )
}

/// A node that is told again what it was told.
#[derive(Debug)]
pub struct Replay {
    /// `None` only before the first turn of a node that begins.
    node: Option<Node>,
    settings: Option<Box<NodeSettings>>,
    now: Timestamp,
    in_flight: BTreeMap<EffectId, Op>,
    digest: u64,
    turns: u64,
    /// A shadow need not know.
    known: Option<Known>,
}

impl Replay {
    /// A replay from a journal's head.
    #[must_use]
    pub fn new(head: Head) -> Self {
        let mut replay = Replay {
            node: None,
            settings: None,
            now: Timestamp::EPOCH,
            in_flight: BTreeMap::new(),
            digest: 0,
            turns: head.turns,
            known: Some(Known::default()),
        };
        match head.standing {
            Standing::Begins(settings) => replay.settings = Some(settings),
            Standing::GoesOn {
                node,
                now,
                in_flight,
                digest,
            } => {
                replay.known = Some(Known::of(node.settings()));
                replay.node = Some(*node);
                replay.now = now;
                replay.in_flight = in_flight.into_iter().collect();
                replay.digest = digest;
            }
        }
        replay
    }

    /// A shadow: the same, without remembering what the store told.
    pub(super) fn shadow(settings: NodeSettings) -> Self {
        Replay {
            node: None,
            settings: Some(Box::new(settings)),
            now: Timestamp::EPOCH,
            in_flight: BTreeMap::new(),
            digest: 0,
            turns: 0,
            known: None,
        }
    }

    /// Turns so far, those of earlier files included.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// The clock at the last turn.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Over all decisions so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Replays one turn; `see` is shown everything in it. After an error nothing more can be replayed.
    ///
    /// # Errors
    /// If the machine decides otherwise than is recorded.
    pub fn step(&mut self, step: Step, see: &mut dyn FnMut(Seen<'_>)) -> Result<(), ReplayError> {
        self.turns += 1;
        let turn = self.turns;
        // A forged journal can make the machine panic; it is not used any more then.
        catch_unwind(AssertUnwindSafe(|| self.step_unguarded(step, see)))
            .unwrap_or(Err(ReplayError::Panicked { turn }))
    }

    fn step_unguarded(
        &mut self,
        step: Step,
        see: &mut dyn FnMut(Seen<'_>),
    ) -> Result<(), ReplayError> {
        let (turn, at) = (self.turns, step.at);
        self.now = at;
        if let Some(settings) = self.settings.take() {
            if self.known.is_some() {
                self.known = Some(Known::of(&settings));
            }
            self.node = Some(Node::new(at, *settings));
        }
        let node = self.node.as_mut().expect("made with the first turn");
        for told in step.told {
            let ended = match &told {
                Told::Done(id, _) => self.in_flight.remove(id),
                _ => None,
            };
            see(Seen::Told(&told, ended.as_ref()));
            if let (Some(known), Told::Done(_, outcome)) = (&mut self.known, &told) {
                known.heard(ended.as_ref(), outcome);
            }
            match told.into_input() {
                Some(input) => node.handle_input(at, input),
                None => node.handle_timeout(at),
            }
        }
        for index in 0.. {
            let output = node.poll_output();
            let recorded = read_decision(&step.decided, index);
            let decided = match (&self.known, recorded) {
                // A shadow is not shown each cursor: what is wrong with one shows in the next request.
                (None, Some(recorded)) if holds_cursor(&output) && recorded.kind == Kind::Store => {
                    recorded
                }
                _ => decision(&output, &Hidden),
            };
            if recorded != Some(decided) {
                return Err(ReplayError::Differs {
                    turn,
                    at,
                    decision: index as u64 + 1,
                    recorded: recorded.map(|recorded| recorded.kind),
                    replayed: Box::new(output),
                });
            }
            self.digest = roll(self.digest, decided);
            see(Seen::Decided(&output));
            match output {
                Output::Effect { id, op } => {
                    self.in_flight.insert(id, op);
                }
                Output::Cancel { id } => {
                    self.in_flight.remove(&id);
                }
                Output::Notice(_) => {}
                Output::Timeout { .. } | Output::Finished => break,
            }
        }
        if self.digest != step.digest {
            return Err(ReplayError::Digest { turn, at });
        }
        Ok(())
    }

    /// The node as it stands, for the head of a new file. `None` before the first turn.
    pub(super) fn standing(&self) -> Option<Standing> {
        let node = self.node.as_ref()?;
        assert!(node.is_drained(), "a turn ends when all was asked for");
        let in_flight = self.in_flight.iter();
        Some(Standing::GoesOn {
            node: Box::new(node.clone()),
            now: self.now,
            in_flight: in_flight.map(|(id, op)| (*id, op.clone())).collect(),
            digest: self.digest,
        })
    }

    /// Where it stands after the last turn; `None` if there was none.
    #[must_use]
    pub fn into_ended(self) -> Option<Ended> {
        Some(Ended {
            node: self.node?,
            now: self.now,
            in_flight: self.in_flight.into_iter().collect(),
            known: self.known.unwrap_or_default(),
        })
    }
}
