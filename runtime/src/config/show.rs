//! What is in force, and why: every setting with its value and its origin, as TOML that could be a file.
//!
//! Secrets are hidden: only that they are set, and where, is shown.

use std::fmt::Write as _;

use super::load::{Given, Loaded};
use super::settings::{Kind, SETTINGS};
use super::value::Raw;

/// A setting, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its section; empty for a key above all sections.
    pub section: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Its value as TOML, `"***"` for a secret; `None` if it is not set.
    pub value: Option<String>,
    /// Where it comes from: `default`, a file and line, a variable or a flag.
    pub origin: String,
}

/// Every setting of the table.
pub(super) fn effective(given: &Given) -> Vec<Effective> {
    SETTINGS
        .iter()
        .map(|setting| {
            let found = given.values.get(&(setting.section, setting.key));
            Effective {
                section: setting.section,
                key: setting.key,
                value: found.map(|found| in_toml(&found.raw, setting.kind)),
                origin: match found.map(|found| &found.place) {
                    Some(Some(place)) => place.to_string(),
                    Some(None) => "default".to_owned(),
                    None => "not set".to_owned(),
                },
            }
        })
        .collect()
}

/// A checked value as it would be written in the file.
fn in_toml(raw: &Raw, kind: Kind) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match (kind, raw) {
        (Kind::Secret, _) => quoted("***"),
        (Kind::Calendars, Raw::Outside(text)) if text.contains(',') || !is_word(text.trim()) => {
            let ids: Vec<String> = text.split(',').map(|id| quoted(id.trim())).collect();
            format!("[{}]", ids.join(", "))
        }
        (Kind::Integer(..) | Kind::IntegerOrUnlimited(..) | Kind::Boolean, Raw::Outside(text))
            if text.trim() != "unlimited" =>
        {
            text.trim().to_owned()
        }
        (_, Raw::Text(text) | Raw::Outside(text)) => quoted(text.trim()),
        (_, Raw::Integer(number)) => number.map_or_else(String::new, |number| number.to_string()),
        (_, Raw::Boolean(value)) => value.to_string(),
        (_, Raw::List(items)) => {
            let items: Vec<String> = items.iter().map(|item| in_toml(item, Kind::Text)).collect();
            format!("[{}]", items.join(", "))
        }
        (_, Raw::Other(_)) => String::new(),
    }
}

fn is_word(text: &str) -> bool {
    text == "primary" || text == "all"
}

/// The configuration as it is in force, for `kalends config show`.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in &loaded.effective {
        if setting.section != section {
            section = setting.section;
            let _ = write!(text, "\n[{section}]\n");
        }
        let _ = match &setting.value {
            Some(value) => writeln!(text, "{} = {value}  # {}", setting.key, setting.origin),
            None => writeln!(text, "# {} is not set", setting.key),
        };
    }
    let users = loaded.config.users.len();
    let _ = writeln!(text, "\n# [[users]]: {users}, their tokens hidden");
    for user in loaded.config.users.iter().take(USERS_SHOWN_MAX) {
        let _ = writeln!(text, "#   {}", user.id);
    }
    if users > USERS_SHOWN_MAX {
        let _ = writeln!(text, "#   and {} more", users - USERS_SHOWN_MAX);
    }
    text
}

/// The most users that are named.
const USERS_SHOWN_MAX: usize = 20;
