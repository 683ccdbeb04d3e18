//! Names of things: users, sources, calendars, schedules, workers.
//!
//! A name is text that came from a person, a configuration or Google. It is checked once, here, and carried as its
//! own type from then on.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name that is accepted, in bytes. Google's calendar ids and e-mail addresses stay far below it.
pub const NAME_BYTES_MAX: usize = 320;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The name is empty.
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`]; holds its length in bytes.
    TooLong(usize),
    /// The name holds a control character.
    ControlCharacter,
}

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => write!(formatter, "is empty; give it at least one character"),
            NameError::TooLong(bytes) => {
                write!(
                    formatter,
                    "has {bytes} bytes; at most {NAME_BYTES_MAX} are allowed"
                )
            }
            NameError::ControlCharacter => {
                write!(
                    formatter,
                    "holds a control character (a line break, say); remove it"
                )
            }
        }
    }
}

impl std::error::Error for NameError {}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter);
    }
    Ok(())
}

/// The first bytes of a name as two numbers that sort as the bytes do.
///
/// Names are the keys of nearly every map of the queue. A comparison that reads the text follows a pointer, which with a
/// hundred thousand users is a miss of the cache at every step of every search; with this beside the pointer almost none
/// does (measured: a sixth of the time of a sync in such a fleet).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head(u64, u64);

/// How many bytes of a name its [`Head`] holds.
const HEAD_BYTES: usize = 16;

/// A short name is filled up with zeros: no name holds one, so that it sorts before every longer name of the same
/// beginning, as its text does.
fn head(text: &str) -> Head {
    let bytes = text.as_bytes();
    let mut first = [0; HEAD_BYTES];
    let length = bytes.len().min(HEAD_BYTES);
    first[..length].copy_from_slice(&bytes[..length]);
    let number = |from: usize| {
        let part = first[from..from + 8].try_into().expect("eight bytes");
        u64::from_be_bytes(part)
    };
    Head(number(0), number(8))
}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name {
            head: Head,
            text: Arc<str>,
        }

        impl $name {
            /// Checks `text` and makes a name of it.
            ///
            /// # Errors
            /// If it is empty, longer than [`NAME_BYTES_MAX`] or holds a control character.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok($name {
                    head: head(text),
                    text: Arc::from(text),
                })
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.text
            }
        }

        // All as text.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.text, &other.text)
                    || self.head == other.head && self.text == other.text
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, hasher: &mut H) {
                self.text.hash(hasher);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // Two copies of one name first: the keys of nearly all maps begin with the one source there is.
                if Arc::ptr_eq(&self.text, &other.text) {
                    return Ordering::Equal;
                }
                self.head
                    .cmp(&other.head)
                    .then_with(|| self.text.cmp(&other.text))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Read;
                impl Visitor<'_> for Read {
                    type Value = $name;
                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Read)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $name::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.text.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $name::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:?}", &self.text)
            }
        }
    };
}

name!(
    /// A user whose calendars are kept; often an e-mail address, but any stable text will do.
    UserId
);
name!(
    /// Where data comes from. Only sources that were defined are accepted; [`SourceName::google_calendar`] is the first.
    SourceName
);
name!(
    /// A calendar at its source: Google's calendar id, or the keyword `primary`.
    CalendarId
);
name!(
    /// A schedule, by the name under which it is stored.
    ScheduleName
);
name!(
    /// One incarnation of one process: never used again after it ended, so that orphans of a crash stay visible.
    WorkerId
);

impl SourceName {
    /// The source `google-calendar`.
    #[must_use]
    pub fn google_calendar() -> Self {
        SourceName::new("google-calendar").expect("a constant, valid name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_their_texts_do() {
        let texts = [
            " ",
            "a",
            "aa",
            "ab",
            "abcdefgh",
            "abcdefghi",
            "abcdefghijklmno",
            "abcdefghijklmnop",
            "abcdefghijklmnopq",
            "abcdefghijklmnopr",
            "abcdefghijklmnoq",
            "b",
            "\u{e9}",
            "\u{e9}a",
            "\u{1f600}",
        ];
        for left in texts {
            for right in texts {
                let (one, other) = (UserId::new(left).unwrap(), UserId::new(right).unwrap());
                assert_eq!(one.cmp(&other), left.cmp(right), "{left:?} and {right:?}");
                assert_eq!(one == other, left == right);
            }
        }
    }

    #[test]
    fn bad_names_are_refused_at_the_door() {
        assert_eq!(UserId::new(""), Err(NameError::Empty));
        assert_eq!(UserId::new("a\nb"), Err(NameError::ControlCharacter));
        assert_eq!(UserId::new(&"x".repeat(321)), Err(NameError::TooLong(321)));
        assert!(serde_json::from_str::<UserId>("\"\"").is_err());
        assert_eq!(
            UserId::new("ada@example.com").unwrap().as_str(),
            "ada@example.com"
        );
    }
}
