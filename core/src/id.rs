//! Names of things: users, sources, calendars, schedules, workers.
//!
//! A name is text that came from a person, a configuration or Google. It is checked once, here, and carried as its
//! own type from then on.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes a name of it.
            ///
            /// # Errors
            /// If it is empty, longer than [`NAME_BYTES_MAX`] or holds a control character.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok($name(Arc::from(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // As text; but two copies of one name are seen to be the same without a look at it, and most comparisons of
        // the queue are of such.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, hasher: &mut H) {
                self.0.hash(hasher);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
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
                name.0.to_string()
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
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:?}", &self.0)
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
        SourceName(Arc::from("google-calendar"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
