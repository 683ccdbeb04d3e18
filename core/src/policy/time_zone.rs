//! Time zones by their IANA names, with a helping hand for the ones that were mistyped.

use std::fmt;
use std::str::FromStr;

use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Deserialize, Serialize};

/// The longest name that is looked at, in bytes; the longest zone of the tz database has 32.
pub const TIME_ZONE_BYTES_MAX: usize = 64;
/// How many similar names an error suggests.
const SUGGESTIONS_MAX: usize = 3;

/// An IANA time zone, such as `Europe/Berlin`. UTC unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeZone(Tz);

/// A name that is no IANA time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZoneError {
    /// The name as it was given, cut to [`TIME_ZONE_BYTES_MAX`] characters.
    pub name: String,
    /// The zones whose names are nearest to it, nearest first.
    pub suggestions: Vec<&'static str>,
}

impl fmt::Display for TimeZoneError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} is not an IANA time zone; ", self.name)?;
        if self.suggestions.is_empty() {
            write!(formatter, "write a name such as Europe/Berlin or UTC")
        } else {
            write!(formatter, "did you mean {}?", self.suggestions.join(", "))
        }
    }
}

impl std::error::Error for TimeZoneError {}

impl TimeZone {
    /// Coordinated universal time.
    pub const UTC: TimeZone = TimeZone(Tz::UTC);

    /// Finds a zone by its name, written exactly.
    ///
    /// # Errors
    /// If there is no such zone; the error suggests similar names.
    pub fn parse(name: &str) -> Result<Self, TimeZoneError> {
        Tz::from_str(name).map(TimeZone).map_err(|_| TimeZoneError {
            name: name.chars().take(TIME_ZONE_BYTES_MAX).collect(),
            suggestions: nearest(name),
        })
    }

    /// The IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    pub(super) fn tz(self) -> Tz {
        self.0
    }
}

impl Default for TimeZone {
    fn default() -> Self {
        TimeZone::UTC
    }
}

impl From<Tz> for TimeZone {
    fn from(tz: Tz) -> Self {
        TimeZone(tz)
    }
}

impl FromStr for TimeZone {
    type Err = TimeZoneError;
    fn from_str(name: &str) -> Result<Self, TimeZoneError> {
        TimeZone::parse(name)
    }
}

impl TryFrom<String> for TimeZone {
    type Error = TimeZoneError;
    fn try_from(name: String) -> Result<Self, TimeZoneError> {
        TimeZone::parse(&name)
    }
}

impl From<TimeZone> for String {
    fn from(time_zone: TimeZone) -> String {
        time_zone.name().to_owned()
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The zones whose names, or whose cities, differ from `name` in the fewest letters; none that differ in most.
fn nearest(name: &str) -> Vec<&'static str> {
    if name.is_empty() || name.len() > TIME_ZONE_BYTES_MAX {
        return Vec::new();
    }
    let wanted = comparable(name);
    let mut ranked: Vec<(usize, &'static str)> = TZ_VARIANTS
        .iter()
        .map(|zone| {
            let zone = zone.name();
            let whole = comparable(zone);
            let city = whole.rsplit('/').next().unwrap_or(&whole);
            let apart = letters_apart(&wanted, &whole).min(letters_apart(&wanted, city));
            (apart, zone)
        })
        .filter(|(apart, _)| *apart <= wanted.len() / 3)
        .collect();
    // Shorter first among equals: UTC before Etc/UTC.
    ranked.sort_unstable_by_key(|(apart, zone)| (*apart, zone.len(), *zone));
    ranked.truncate(SUGGESTIONS_MAX);
    ranked.into_iter().map(|(_, zone)| zone).collect()
}

fn comparable(name: &str) -> String {
    name.to_ascii_lowercase().replace(' ', "_")
}

/// How many letters must be put in, left out or replaced to make one text of the other (Levenshtein).
fn letters_apart(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, left_letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right_letter) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_letter != *right_letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_get_the_right_suggestion() {
        for (typed, meant) in [
            ("Europe/Berln", "Europe/Berlin"),
            ("berlin", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("America/New York", "America/New_York"),
            ("utc", "UTC"),
        ] {
            let error = TimeZone::parse(typed).unwrap_err();
            assert_eq!(error.suggestions.first(), Some(&meant), "{error}");
            assert!(error.suggestions.len() <= SUGGESTIONS_MAX);
        }
        let sentence = TimeZone::parse("Europe/Berln").unwrap_err().to_string();
        assert!(
            sentence.starts_with(
                "\"Europe/Berln\" is not an IANA time zone; did you mean Europe/Berlin"
            ),
            "{sentence}"
        );
    }

    #[test]
    fn nonsense_gets_an_example() {
        for typed in ["", "Xqzwvutsrqpo", &"x".repeat(100_000)] {
            let error = TimeZone::parse(typed).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with("write a name such as Europe/Berlin or UTC")
            );
            assert!(error.name.len() <= TIME_ZONE_BYTES_MAX);
        }
    }

    #[test]
    fn goes_through_json_by_name() {
        let berlin = TimeZone::parse("Europe/Berlin").unwrap();
        assert_eq!(serde_json::to_string(&berlin).unwrap(), "\"Europe/Berlin\"");
        assert_eq!(
            serde_json::from_str::<TimeZone>("\"Europe/Berlin\"").unwrap(),
            berlin
        );
        assert!(serde_json::from_str::<TimeZone>("\"Mars\"").is_err());
    }
}
