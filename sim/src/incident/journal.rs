//! The journal's lines: a head, a line for each turn, and one that says why it ends.
//!
//! ```text
//! <16 hex: hash over all before and this line> <JSON>
//! ```
//!
//! A turn is what the driver told the node between two rounds of asking it, all at one time, and what the node then said.
//! What it was told stands there hidden; what it said stands there as a kind and a digest each (nine characters), with a
//! digest over all decisions so far.

use std::fmt;

use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, Op};
use kalends_core::node::settings::NodeSettings;
use kalends_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::decision::{Decision, Kind};
use super::hash::{Digest, link};
use super::told::Told;

/// The format of these lines. A change of what a line means, or of what a node remembers, is another format.
pub const FORMAT: u32 = 1;
/// The longest line, in bytes: a head with a hundred thousand users and many large pages under way stays below it.
pub const LINE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How much memory of a long line is kept for the next ones, in bytes.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Hexadecimal digits of a line's hash.
const HASH_DIGITS: usize = 16;
/// Characters of one decision: its kind and eight digits.
const DECISION_CHARS: usize = 9;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    /// The first.
    #[serde(rename = "head")]
    Head(Box<Head>),
    /// One turn.
    #[serde(rename = "n")]
    Step(Step),
    /// The last.
    #[serde(rename = "end")]
    End(End),
}

/// Where a journal begins.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// The release of Kalends that wrote it; another one may decide otherwise.
    pub release: String,
    /// The turns before this file.
    pub turns: u64,
    /// The node.
    pub standing: Standing,
}

/// The node at the head of a journal.
#[derive(Debug, Serialize, Deserialize)]
pub enum Standing {
    /// It begins, with these settings, the seed among them; at the time of the first turn.
    #[serde(rename = "begins")]
    Begins(Box<NodeSettings>),
    /// It is in the midst of its work.
    #[serde(rename = "goes_on")]
    GoesOn {
        /// All of it.
        node: Box<Node>,
        /// The time of the last turn, on the driver's clock.
        now: Timestamp,
        /// The effects under way.
        in_flight: Vec<(EffectId, Op)>,
        /// Over all decisions so far.
        digest: u64,
    },
}

/// One turn, hidden.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The driver's clock.
    #[serde(rename = "t")]
    pub at: Timestamp,
    /// What the node was told. Nothing, when it only began.
    #[serde(rename = "i")]
    pub told: Vec<Told>,
    /// What it decided: a letter and eight hexadecimal digits each.
    #[serde(rename = "o")]
    pub decided: String,
    /// Over all decisions so far.
    #[serde(rename = "d")]
    pub digest: u64,
}

/// Why a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The node has finished.
    Finished,
    /// The node was abandoned, or its process ended otherwise than by a shutdown.
    Abandoned,
    /// The next file goes on.
    Rotated,
    /// The writer could not keep up, and turns were lost: the replay ends here.
    Gap,
    /// The shadow decided otherwise than the node: a fault of the recorder.
    Differs,
}

impl End {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            End::Finished => "the node finished",
            End::Abandoned => "the node ended without finishing",
            End::Rotated => "the journal goes on in the next newer file",
            End::Gap => {
                "a gap: the writer could not keep up, and what came after it was not recorded"
            }
            End::Differs => {
                "recording stopped because its shadow decided otherwise: please report it"
            }
        }
    }
}

/// Why a journal cannot be read on. What was read before is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// It does not begin as one.
    NotAJournal,
    /// Another format.
    Format(u32),
    /// This line, or one before it, was changed, or lines are missing; its number, from 1.
    Changed(u64),
    /// This line is whole and means nothing to this release.
    Unreadable(u64),
    /// A line is longer than [`LINE_BYTES_MAX`].
    TooLong(u64),
    /// Something follows the line that says that it ends, or a second head.
    OutOfPlace(u64),
}

impl fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::NotAJournal => write!(
                formatter,
                "it is no journal of `kalends run --record`: check the file's name"
            ),
            JournalError::Format(found) => write!(
                formatter,
                "it has format {found}, and this release reads {FORMAT}: replay it with the release that wrote it"
            ),
            JournalError::Changed(line) => write!(
                formatter,
                "line {line} does not follow from those before it: it was changed, or lines are missing; get an untouched copy"
            ),
            JournalError::Unreadable(line) => write!(
                formatter,
                "line {line} means nothing to this release: replay it with the release that wrote it"
            ),
            JournalError::TooLong(line) => write!(
                formatter,
                "line {line} is longer than {LINE_BYTES_MAX} bytes: it is no journal, or a damaged one"
            ),
            JournalError::OutOfPlace(line) => write!(
                formatter,
                "line {line} is out of place: two journals were joined; replay them one by one"
            ),
        }
    }
}

impl std::error::Error for JournalError {}

/// Makes lines.
#[derive(Debug, Default)]
pub struct Writer {
    hash: u64,
    /// The last line: its memory is used again.
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer of a new file.
    #[must_use]
    pub fn new() -> Self {
        Writer::default()
    }

    /// The line as it is to be written, with its end.
    ///
    /// # Panics
    /// Never for what a recorder writes: all of it is plain data.
    pub fn line(&mut self, line: &Line) -> &[u8] {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.resize(HASH_DIGITS + 1, b' ');
        serde_json::to_writer(&mut *bytes, line).expect("plain values always become JSON");
        self.hash = link(self.hash, &bytes[HASH_DIGITS + 1..]);
        bytes[..HASH_DIGITS].copy_from_slice(format!("{:016x}", self.hash).as_bytes());
        bytes.push(b'\n');
        &self.bytes
    }

    /// The line that was made last.
    pub(super) fn last(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads lines, and sees whether they follow from one another.
#[derive(Debug, Default)]
pub struct Reader {
    hash: u64,
    lines: u64,
    ended: bool,
}

impl Reader {
    /// A reader of a file from its beginning.
    #[must_use]
    pub fn new() -> Self {
        Reader::default()
    }

    /// Whether the line that says why it ends was read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next line, without its end.
    ///
    /// # Errors
    /// If the journal is damaged, forged, or another release's.
    pub fn line(&mut self, bytes: &[u8]) -> Result<Line, JournalError> {
        self.lines += 1;
        let number = self.lines;
        let damaged = match number {
            1 => JournalError::NotAJournal,
            _ => JournalError::Changed(number),
        };
        if bytes.len() > LINE_BYTES_MAX {
            return Err(JournalError::TooLong(number));
        }
        let (Some(digits), Some(b' '), Some(body)) = (
            bytes.get(..HASH_DIGITS),
            bytes.get(HASH_DIGITS),
            bytes.get(HASH_DIGITS + 1..),
        ) else {
            return Err(damaged);
        };
        let hash = link(self.hash, body);
        if digits != format!("{hash:016x}").as_bytes() {
            return Err(damaged);
        }
        self.hash = hash;
        if self.ended {
            return Err(JournalError::OutOfPlace(number));
        }
        if number == 1 {
            // Read before the rest, of which another format may have another idea.
            let format = serde_json::from_slice::<Begun>(body)
                .map_err(|_| JournalError::NotAJournal)?
                .head
                .format;
            if format != FORMAT {
                return Err(JournalError::Format(format));
            }
        }
        let line = serde_json::from_slice(body).map_err(|_| JournalError::Unreadable(number))?;
        match (&line, number) {
            (Line::Head(_), 1) => {}
            (Line::Head(_), _) | (_, 1) => return Err(JournalError::OutOfPlace(number)),
            (Line::Step(_), _) => {}
            (Line::End(_), _) => self.ended = true,
        }
        Ok(line)
    }
}

#[derive(Deserialize)]
struct Begun {
    head: BegunHead,
}

#[derive(Deserialize)]
struct BegunHead {
    format: u32,
}

/// Decisions as a line holds them.
pub(super) fn write_decision(text: &mut String, decision: Decision) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push(decision.kind as u8 as char);
    for place in (0..DECISION_CHARS - 1).rev() {
        let digit = (decision.digest >> (4 * place)) & 0xf;
        text.push(char::from(DIGITS[digit as usize]));
    }
}

/// The decision at `index`, if there is one that can be read.
pub(super) fn read_decision(text: &str, index: usize) -> Option<Decision> {
    let begin = index.checked_mul(DECISION_CHARS)?;
    let one = text
        .as_bytes()
        .get(begin..begin.checked_add(DECISION_CHARS)?)?;
    let digits = std::str::from_utf8(&one[1..]).ok()?;
    Some(Decision {
        kind: Kind::read(one[0])?,
        digest: u32::from_str_radix(digits, 16).ok()?,
    })
}

/// The digest over all decisions, with one more.
pub(super) fn roll(digest: u64, decision: Decision) -> u64 {
    let one = u64::from(decision.digest) << 8 | decision.kind as u64;
    Digest::new(digest).add(one).end()
}
