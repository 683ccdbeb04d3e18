//! Whose job it is: source and user, out of the JSON that the old service gave its jobs.
//!
//! The old service was free to write what it liked, so this tries the usual names of fields in their order. A user is
//! known by the configuration: of the fields that are there, the first one whose value is a configured user counts, so
//! `{"userId": 42, "email": "ada@example.com"}` works with either kind of id. With `--user-field` that field alone counts.
//!
//! A job that names no source is taken for a calendar sync, the one thing that Kalends does; one that names another
//! source is not.

use std::collections::BTreeSet;

use kalends_adapters::bullmq::Field;
use kalends_core::id::{NAME_BYTES_MAX, UserId};
use serde_json::Value;

use super::{Obstacle, echo};

/// Where a user's id is looked for, in this order; in an object, its `id` and `email` are.
const USER_FIELDS: &[&str] = &[
    "userId",
    "user_id",
    "userID",
    "user",
    "email",
    "userEmail",
    "user_email",
    "accountId",
    "account",
];
const USER_OBJECT_FIELDS: &[&str] = &["id", "userId", "email"];
/// Where a source's name is looked for, in this order.
const SOURCE_FIELDS: &[&str] = &[
    "source",
    "sourceName",
    "source_name",
    "sourceType",
    "dataSource",
    "provider",
    "integration",
];
/// Names of Google Calendar, with everything but letters and digits left out, in lower case.
const CALENDAR_NAMES: &[&str] = &[
    "googlecalendar",
    "googlecalendarsync",
    "googlecalendarevents",
    "calendar",
    "calendars",
    "calendarsync",
    "calendarevents",
    "gcal",
    "gcalendar",
    "google",
];

/// How a job's data is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The configured users.
    pub users: BTreeSet<UserId>,
    /// The field that holds the user's id, with dots between names; `None`: the usual ones are tried.
    pub user_field: Option<String>,
    /// Further names of Google Calendar.
    pub source_names: Vec<String>,
}

/// Whose job it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A configured user's.
    User(UserId),
    /// No field names a user.
    Nobody,
}

impl Reading {
    /// Reads a job's data.
    ///
    /// # Errors
    /// If it is no JSON, belongs to another source, or to a user who is not configured.
    pub fn read(&self, data: &Field) -> Result<Whose, Obstacle> {
        let text = match data {
            Field::Absent => return Ok(Whose::Nobody),
            Field::Text(text) => text,
            Field::TooLong(bytes) => {
                return Err(Obstacle::new(
                    format!("its data has {bytes} bytes, too many for a sync's"),
                    "sync its user by `kalends sync USER`, if there is one",
                ));
            }
        };
        let data: Value = serde_json::from_str(text).map_err(|error| {
            // The parser's words tell line and column, nothing of the data.
            Obstacle::new(
                format!("its data is not JSON ({error})"),
                "sync its user by `kalends sync USER`, if there is one",
            )
        })?;
        self.check_source(&data)?;
        self.user(&data)
    }

    fn check_source(&self, data: &Value) -> Result<(), Obstacle> {
        let named = SOURCE_FIELDS
            .iter()
            .find_map(|field| data.get(field)?.as_str());
        let Some(name) = named else {
            return Ok(());
        };
        let plain = plain(name);
        if CALENDAR_NAMES.contains(&plain.as_str())
            || self.source_names.iter().any(|known| known == name)
        {
            return Ok(());
        }
        Err(Obstacle::new(
            format!(
                "is of the source {}, which Kalends does not know",
                echo(name)
            ),
            "leave it to another service, or, if that is Google Calendar, give --source-name with this name",
        ))
    }

    fn user(&self, data: &Value) -> Result<Whose, Obstacle> {
        let candidates = match &self.user_field {
            Some(path) => path
                .split('.')
                .try_fold(data, |value, name| value.get(name))
                .and_then(id_of)
                .into_iter()
                .collect(),
            None => usual_candidates(data),
        };
        let known = candidates
            .iter()
            .filter_map(|candidate| UserId::new(candidate).ok())
            .find(|user| self.users.contains(user));
        match (known, candidates.first()) {
            (Some(user), _) => Ok(Whose::User(user)),
            (None, None) => Ok(Whose::Nobody),
            (None, Some(first)) => Err(Obstacle::new(
                format!(
                    "is of the user {}, who is not in the configuration",
                    echo(first)
                ),
                "add the user there and migrate again, or name the field that holds the id by --user-field",
            )),
        }
    }
}

/// What may be a user's id, in the order of trust.
fn usual_candidates(data: &Value) -> Vec<String> {
    let mut candidates = Vec::new();
    for field in USER_FIELDS {
        match data.get(field) {
            Some(Value::Object(user)) => {
                let inner = USER_OBJECT_FIELDS
                    .iter()
                    .filter_map(|field| user.get(*field));
                candidates.extend(inner.filter_map(id_of));
            }
            Some(value) => candidates.extend(id_of(value)),
            None => {}
        }
    }
    candidates
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        // Cut, as it can be no valid id any more; nothing longer is kept or shown.
        Value::String(text) => Some(text.chars().take(NAME_BYTES_MAX + 1).collect()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        let users = ["ada@example.com", "42"];
        Reading {
            users: users.iter().map(|id| UserId::new(id).unwrap()).collect(),
            ..Reading::default()
        }
    }

    fn user(id: &str) -> Whose {
        Whose::User(UserId::new(id).unwrap())
    }

    #[test]
    fn a_configured_user_is_found_under_the_usual_names() {
        for (data, id) in [
            (r#"{"userId":"ada@example.com"}"#, "ada@example.com"),
            (r#"{"userId":42,"source":"google-calendar"}"#, "42"),
            (
                r#"{"userId":"c0ffee","email":"ada@example.com","source":"GOOGLE_CALENDAR"}"#,
                "ada@example.com",
            ),
            (
                r#"{"user":{"id":7,"email":"ada@example.com"}}"#,
                "ada@example.com",
            ),
        ] {
            assert_eq!(reading().read(&data.into()).unwrap(), user(id), "{data}");
        }
        for data in [
            "{}",
            "null",
            "[]",
            "7",
            r#"{"userId":""}"#,
            r#"{"userId":null}"#,
        ] {
            assert_eq!(
                reading().read(&data.into()).unwrap(),
                Whose::Nobody,
                "{data}"
            );
        }
        assert_eq!(reading().read(&Field::Absent).unwrap(), Whose::Nobody);
    }

    #[test]
    fn a_field_that_is_named_counts_alone() {
        let reading = Reading {
            user_field: Some("payload.owner".to_owned()),
            source_names: vec!["kal".to_owned()],
            ..reading()
        };
        let data = r#"{"userId":"42","payload":{"owner":"ada@example.com"},"source":"kal"}"#;
        assert_eq!(reading.read(&data.into()).unwrap(), user("ada@example.com"));
        let data = r#"{"userId":"42"}"#;
        assert_eq!(reading.read(&data.into()).unwrap(), Whose::Nobody);
    }

    #[test]
    fn what_cannot_be_taken_says_why() {
        let long = format!(r#"{{"userId":"{}"}}"#, "x".repeat(10_000));
        let deep = "[".repeat(10_000);
        for (data, part) in [
            (Field::TooLong(1 << 30), "1073741824 bytes"),
            ("{".into(), "not JSON"),
            (deep.as_str().into(), "not JSON"),
            (
                r#"{"userId":"42","source":"gmail"}"#.into(),
                "source \"gmail\"",
            ),
            (r#"{"userId":"eve\u0007"}"#.into(), r#"user "eve\u{7}""#),
            (long.as_str().into(), "…"),
        ] {
            let obstacle = reading().read(&data).unwrap_err();
            assert!(obstacle.what.contains(part), "{part}: {obstacle:?}");
            assert!(obstacle.what.len() < 1_000 && !obstacle.remedy.is_empty());
        }
    }
}
