//! Where something stands, and what is wrong there.
//!
//! A person who mends a configuration wants all problems at once, in the order of the file, each with its line, the
//! key, what is wrong and what would be right. A [`Problem`] says so in one line; [`Problems`] keeps them in order.
//!
//! Invariant: no problem quotes a secret. Whoever makes one of a value's text asks first whether the value is one.

use std::fmt;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    File {
        /// The order in which files are read: the configuration is 0, the users' file 1.
        order: u8,
        /// The line, from 1; `u32::MAX` for what is nowhere in the file, so that it is named last.
        line: u32,
        /// The file, as it was named.
        file: String,
    },
    /// There is no file, and it is nowhere else either.
    Nowhere,
    /// In a variable of this name.
    Environment(String),
    /// In this flag.
    Flag(String),
}

impl Place {
    /// The line that stands for "nowhere in the file".
    pub const LINE_NONE: u32 = u32::MAX;
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line, .. } if *line == Place::LINE_NONE => {
                write!(formatter, "{file}")
            }
            Place::File { file, line, .. } => write!(formatter, "{file}:{line}"),
            Place::Nowhere => formatter.write_str("configuration"),
            Place::Environment(name) => write!(formatter, "environment {name}"),
            Place::Flag(flag) => write!(formatter, "{flag}"),
        }
    }
}

/// Something that is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Which setting, as `section.key`; empty if it is none in particular.
    pub key: String,
    /// What is wrong; what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(formatter, "{}: {}", self.place, self.message)
        } else {
            write!(formatter, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// All that is wrong, in the order of the places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The most problems that are shown; a users' file of the wrong kind has one in every line.
    pub const SHOWN_MAX: usize = 50;

    /// Adds one.
    pub fn add(&mut self, place: Place, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem {
            place,
            key: key.into(),
            message: message.into(),
        });
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by file and line, then variables, then flags.
    #[must_use]
    pub fn sorted(&self) -> Vec<Problem> {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.dedup();
        sorted
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorted = self.sorted();
        for (index, problem) in sorted.iter().take(Problems::SHOWN_MAX).enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{problem}")?;
        }
        if let Some(more @ 1..) = sorted.len().checked_sub(Problems::SHOWN_MAX) {
            write!(formatter, "\nand {more} more")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The lines of a text, by byte offset.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The offset of each line's first byte.
    starts: Vec<usize>,
}

impl Lines {
    /// Looks through `text` once.
    #[must_use]
    pub(super) fn new(text: &str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Lines {
            starts: std::iter::once(0).chain(after_breaks).collect(),
        }
    }

    /// The line, from 1, in which the byte at `offset` stands.
    #[must_use]
    pub(super) fn line(&self, offset: usize) -> u32 {
        let line = self.starts.partition_point(|start| *start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let lines = Lines::new("a\n\nbc\n");
        let found: Vec<u32> = (0..6).map(|offset| lines.line(offset)).collect();
        assert_eq!(found, [1, 1, 2, 3, 3, 3]);
        assert_eq!(lines.line(6), 4);
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_are_cut() {
        let mut problems = Problems::default();
        let at = |line| Place::File {
            order: 0,
            line,
            file: "kalends.toml".to_owned(),
        };
        problems.add(Place::Flag("--seed".to_owned()), "worker.seed", "f");
        problems.add(at(Place::LINE_NONE), "google.client_id", "missing");
        problems.add(at(10), "b.c", "second");
        problems.add(at(9), "a.b", "first");
        assert_eq!(
            problems.to_string(),
            "kalends.toml:9: a.b: first\nkalends.toml:10: b.c: second\n\
             kalends.toml: google.client_id: missing\n--seed: worker.seed: f"
        );
        for line in 100..200 {
            problems.add(at(line), "x", "y");
        }
        assert!(problems.to_string().ends_with("\nand 54 more"));
    }
}
