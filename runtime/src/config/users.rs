//! Users, as they are given: tables `[[users]]`, and the lines of `users_file`.
//!
//! A users' file is JSON, one object a line with the keys of `[[users]]`, or CSV with a first line that names the
//! columns. The CSV is plain: ids, tokens and database names hold neither commas nor quotes, so a line with a quote
//! is refused rather than read wrongly.

use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::load::{FILE_BYTES_MAX, Given, read_text};
use super::locate::{Place, Problems};
use super::settings::{self, Kind, USER_KEYS, USERS};
use super::value::{self, Raw};

/// The most users of one configuration.
pub const USERS_MAX: usize = 1_000_000;

/// A user as given.
pub(super) struct RawUser {
    /// Where the user begins.
    pub(super) place: Place,
    /// What was given: key, where, value. Only keys of [`USER_KEYS`], none twice.
    pub(super) fields: Vec<(&'static str, Place, Raw)>,
}

impl RawUser {
    /// The value of `key`, and where it is.
    pub(super) fn field(&self, key: &str) -> Option<(&Place, &Raw)> {
        self.fields
            .iter()
            .find(|(known, ..)| *known == key)
            .map(|(_, place, raw)| (place, raw))
    }

    /// The variable that holds the user's token, if one is named.
    pub(super) fn token_variable(&self) -> Option<&str> {
        match self.field("refresh_token_env") {
            Some((_, Raw::Text(name))) => Some(name),
            _ => None,
        }
    }

    fn add(&mut self, key: &str, place: Place, raw: Raw, problems: &mut Problems) {
        let name = format!("{USERS}.{key}");
        let Some((known, _)) = USER_KEYS.iter().find(|(known, _)| *known == key) else {
            let keys: Vec<&str> = USER_KEYS.iter().map(|(known, _)| *known).collect();
            let message = match settings::nearest(key, keys.iter().copied()) {
                Some(near) => format!("is not known; did you mean {near}?"),
                None => format!("is not known; a user has {}", keys.join(", ")),
            };
            problems.add(place, name, message);
            return;
        };
        if self.field(known).is_some() {
            problems.add(place, name, "is given twice; give it once");
            return;
        }
        self.fields.push((known, place, raw));
    }
}

/// Takes the tables `[[users]]` of the configuration file.
pub(super) fn gather_tables(
    given: &mut Given,
    value: &Spanned<DeValue<'_>>,
    place: &Place,
    at: &impl Fn(usize) -> Place,
    problems: &mut Problems,
) {
    let DeValue::Array(tables) = value.get_ref() else {
        let message = "is a list of tables; write [[users]], with two brackets, above each user";
        problems.add(place.clone(), USERS, message);
        return;
    };
    for table in tables.iter() {
        let place = at(table.span().start);
        let DeValue::Table(fields) = table.get_ref() else {
            problems.add(
                place,
                USERS,
                "is not a table; write [[users]] and below it id = \"...\"",
            );
            continue;
        };
        let mut user = RawUser {
            place,
            fields: Vec::new(),
        };
        for (key, value) in fields {
            let place = at(key.span().start);
            user.add(
                key.get_ref(),
                place,
                Raw::from_toml(value.get_ref()),
                problems,
            );
        }
        add_user(given, user, problems);
    }
}

fn add_user(given: &mut Given, user: RawUser, problems: &mut Problems) {
    if given.users.len() < USERS_MAX {
        given.users.push(user);
    } else {
        problems.add(
            user.place,
            USERS,
            format!("are more than {USERS_MAX}; use several installations"),
        );
    }
}

/// Takes the lines of `users_file`, if there is one.
pub(super) fn gather_users_file(given: &mut Given, problems: &mut Problems) {
    let Some(file) = given.values.get(&("", "users_file")) else {
        return;
    };
    let place = file.place.clone().expect("users_file has no default");
    let name = match value::text(&file.raw, Kind::Path) {
        Ok(name) => name,
        Err(message) => {
            problems.add(place, "users_file", message);
            return;
        }
    };
    let path = given.resolve(&name, Some(&place));
    let extension = Path::new(&name)
        .extension()
        .and_then(|extension| extension.to_str());
    let is_csv = match extension {
        Some("jsonl" | "ndjson") => false,
        Some("csv") => true,
        _ => {
            problems.add(
                place,
                "users_file",
                format!(
                    "is {}, of which the format cannot be told; name it .jsonl or .csv",
                    value::echo(&name)
                ),
            );
            return;
        }
    };
    let text = match read_text(&path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(message) => {
            problems.add(
                place,
                "users_file",
                format!(
                    "{} {message}; make the file, or correct the path",
                    value::echo(&name)
                ),
            );
            return;
        }
    };
    given.users_path = Some(path);
    let mut reading = Reading {
        given,
        file: name,
        line: 0,
        columns: Vec::new(),
        columns_are_wrong: false,
    };
    for (line, text) in (1_u32..).zip(text.lines()) {
        reading.line = line;
        if text.trim().is_empty() {
            continue;
        }
        if is_csv {
            reading.csv_line(text, problems);
        } else {
            reading.json_line(text, problems);
        }
    }
}

/// A users' file, half read.
struct Reading<'a> {
    given: &'a mut Given,
    file: String,
    line: u32,
    /// The columns of a CSV file, once its first line was read.
    columns: Vec<String>,
    /// Of the lines below nothing can be said.
    columns_are_wrong: bool,
}

impl Reading<'_> {
    fn place(&self) -> Place {
        Place::File {
            order: 1,
            line: self.line,
            file: self.file.clone(),
        }
    }

    fn add(&mut self, fields: impl IntoIterator<Item = (String, Raw)>, problems: &mut Problems) {
        let place = self.place();
        let mut user = RawUser {
            place: place.clone(),
            fields: Vec::new(),
        };
        for (key, raw) in fields {
            user.add(&key, place.clone(), raw, problems);
        }
        add_user(self.given, user, problems);
    }

    fn json_line(&mut self, text: &str, problems: &mut Problems) {
        const EXAMPLE: &str = "write one object a line, such as {\"id\": \"ada@example.com\", \"refresh_token\": \"...\"}";
        // A message of serde_json for an untyped value names a position, never the text: tokens stay hidden.
        match serde_json::from_str(text) {
            Ok(serde_json::Value::Object(object)) => {
                let fields = object
                    .into_iter()
                    .map(|(key, value)| (key, Raw::from_json(value)));
                self.add(fields, problems);
            }
            Ok(_) => problems.add(self.place(), "", format!("is not an object; {EXAMPLE}")),
            Err(error) => problems.add(
                self.place(),
                "",
                format!(
                    "is not JSON (at character {}); {EXAMPLE}",
                    error.column().max(1)
                ),
            ),
        }
    }

    fn csv_line(&mut self, text: &str, problems: &mut Problems) {
        if text.contains('"') {
            let message = "holds a quote; write plain values, or use a .jsonl file";
            problems.add(self.place(), "", message);
            return;
        }
        let cells: Vec<String> = text.split(',').map(|cell| cell.trim().to_owned()).collect();
        if self.columns.is_empty() {
            self.csv_columns(&cells, problems);
            self.columns = cells;
            return;
        }
        if self.columns_are_wrong {
            return;
        }
        if cells.len() != self.columns.len() {
            problems.add(
                self.place(),
                "",
                format!(
                    "has {} values; the first line names {} columns",
                    cells.len(),
                    self.columns.len()
                ),
            );
            return;
        }
        let fields: Vec<(String, Raw)> = self
            .columns
            .iter()
            .cloned()
            .zip(cells)
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(key, cell)| (key, Raw::Text(cell)))
            .collect();
        self.add(fields, problems);
    }

    fn csv_columns(&mut self, columns: &[String], problems: &mut Problems) {
        let keys: Vec<&str> = USER_KEYS.iter().map(|(known, _)| *known).collect();
        let is_known = |column: &String| keys.contains(&column.as_str());
        let mut distinct: Vec<&String> = columns.iter().collect();
        distinct.sort();
        distinct.dedup();
        let has_id = columns.iter().any(|column| column == "id");
        if !has_id || !columns.iter().all(is_known) || distinct.len() != columns.len() {
            self.columns_are_wrong = true;
            let message = format!(
                "must name the columns, id and any of {}, each once: id,refresh_token,graph_database",
                keys[1..].join(", ")
            );
            problems.add(self.place(), "", message);
        }
    }
}
