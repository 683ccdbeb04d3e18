//! `kalends users import`: many users from a file, each by itself: one that cannot be taken keeps none of the others.
//!
//! CSV as RFC 4180 describes it, as spreadsheets write it: values may be in quotes, a quote inside them is doubled, and a
//! line break ends a line (no value here holds one). No message holds a token.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use kalends_adapters::accounts::{Account, Expected};
use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;
use kalends_core::time::Clock as _;
use serde::Deserialize;
use serde_json::json;

use super::{Desk, Given, failed, new_account, token};
use crate::cli::users::ImportArgs;
use crate::clock::SystemClock;
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::{self, Refused};

/// The largest file that is read, in bytes: a million users with their tokens.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
const COLUMNS: [&str; 3] = ["id", "refresh_token", "graph_database"];

/// One user as given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    graph_database: Option<String>,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Added,
    Connected,
    Unchanged,
    Refused,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Added => "added",
            Outcome::Connected => "connected",
            Outcome::Unchanged => "unchanged",
            Outcome::Refused => "refused",
        }
    }
}

pub(super) async fn import(
    args: &ImportArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let entries = read(&args.file)?;
    let mut counts: BTreeMap<Outcome, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (line, entry) in entries {
        let id = entry.as_ref().map(|entry| entry.id.clone()).ok();
        let done = match entry {
            Ok(entry) => take(&desk, entry, &mut seen, args.dry_run).await?,
            Err(message) => Err(message),
        };
        let (outcome, message) = match done {
            Ok(outcome) => (outcome, None),
            Err(message) => (Outcome::Refused, Some(message)),
        };
        *counts.entry(outcome).or_default() += 1;
        report(args, line, id.as_deref(), outcome, message.as_deref());
    }
    let count = |outcome| counts.get(&outcome).copied().unwrap_or_default();
    let (added, connected) = (count(Outcome::Added), count(Outcome::Connected));
    let (unchanged, refused) = (count(Outcome::Unchanged), count(Outcome::Refused));
    if args.json {
        let body = json!({
            "added": added, "connected": connected, "unchanged": unchanged, "refused": refused, "dry_run": args.dry_run,
        });
        say(&format!("{body}\n"));
    } else {
        let would = if args.dry_run {
            " (nothing was changed)"
        } else {
            ""
        };
        say(&format!(
            "{added} added, {connected} connected anew, {unchanged} unchanged, {refused} refused{would}\n"
        ));
    }
    Ok(if refused == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn report(args: &ImportArgs, line: usize, id: Option<&str>, outcome: Outcome, why: Option<&str>) {
    let word = outcome.word();
    if args.json {
        let body = json!({ "line": line, "user": id, "outcome": word, "error": why });
        say(&format!("{body}\n"));
        return;
    }
    let mut text = format!("line {line}: ");
    // A name that was refused may hold anything.
    let id = id.map(|id| id.escape_debug().take(100).collect::<String>());
    if let Some(id) = id {
        let _ = write!(text, "{id} ");
    }
    let _ = write!(text, "{word}");
    if let Some(why) = why {
        let _ = write!(text, ": {why}");
    }
    say(&format!("{text}\n"));
}

/// Takes one user; the inner error is told and goes on with the next line.
async fn take(
    desk: &Desk,
    entry: Entry,
    seen: &mut BTreeSet<UserId>,
    is_dry: bool,
) -> Result<Result<Outcome, String>, Refused> {
    let user = match UserId::new(&entry.id) {
        Ok(user) => user,
        Err(error) => return Ok(Err(format!("the id {error}"))),
    };
    if desk.config.users.iter().any(|known| known.id == user) {
        return Ok(Err("is a user of the configuration".to_owned()));
    }
    if !seen.insert(user.clone()) {
        return Ok(Err(
            "stands in this file twice; the first one was taken".to_owned()
        ));
    }
    let given = entry
        .refresh_token
        .as_ref()
        .filter(|token| !token.expose().is_empty());
    let token = match given.map(|text| token(text.expose())).transpose() {
        Ok(token) => token,
        Err(message) => return Ok(Err(message)),
    };
    let named = entry
        .graph_database
        .as_deref()
        .filter(|name| !name.is_empty());
    let database = match named.map(crate::config::database_name).transpose() {
        Ok(database) => database,
        Err(message) => return Ok(Err(format!("graph_database: {message}"))),
    };
    let found = desk.find(&user).await?;
    let expected = found.as_ref().map_or(Expected::Absent, |stored| {
        Expected::Revision(stored.revision)
    });
    let before = found.map(|stored| stored.account);
    let mut account = match &before {
        Some(account) => account.clone(),
        None => new_account(user.clone(), SystemClock.now()),
    };
    if database.is_some() {
        account.graph_database = database;
    }
    let known = account.grant.as_ref().map(|grant| grant.fingerprint);
    if let Some(token) = &token
        && known != Some(wiring::grant_of_token(token, None))
    {
        // Which scopes it has is not known; Google says so when it is asked.
        let given = Given::default();
        account.grant = Some(desk.grant(&user, token, given)?);
    }
    let outcome = outcome(before.as_ref(), &account);
    if outcome == Outcome::Unchanged || is_dry {
        return Ok(Ok(outcome));
    }
    if !desk.put(account, expected).await? {
        return Ok(Err(
            "was changed by somebody else meanwhile; import the file again".to_owned(),
        ));
    }
    Ok(Ok(outcome))
}

fn outcome(before: Option<&Account>, after: &Account) -> Outcome {
    match before {
        None => Outcome::Added,
        Some(before) if before == after => Outcome::Unchanged,
        Some(_) => Outcome::Connected,
    }
}

type Lines = Vec<(usize, Result<Entry, String>)>;

fn read(path: &Path) -> Result<Lines, Refused> {
    let refused = |what: String| Refused::bad_input(format!("{}: {what}", path.display()));
    let extension = path.extension().and_then(|extension| extension.to_str());
    let reader: fn(&str) -> Result<Lines, String> = match extension {
        Some("csv") => csv,
        Some("json") => json_array,
        Some("jsonl" | "ndjson") => |text| Ok(json_lines(text)),
        _ => {
            return Err(refused(
                "its format cannot be told; name it .csv, .json or .jsonl".to_owned(),
            ));
        }
    };
    let size = std::fs::metadata(path)
        .map_err(|error| refused(error.to_string()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(refused(format!(
            "has {size} bytes; at most {FILE_BYTES_MAX} are read"
        )));
    }
    let bytes =
        std::fs::read(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refused("is not UTF-8; save it as UTF-8".to_owned()))?;
    reader(text.trim_start_matches('\u{feff}')).map_err(refused)
}

/// A message of serde_json may quote a value, which may be a token: only names of keys are told.
fn entry(value: &str) -> Result<Entry, String> {
    const EXAMPLE: &str = "write {\"id\": \"ada@example.com\", \"refresh_token\": \"...\"}";
    serde_json::from_str(value).map_err(|error| {
        if error.is_data() {
            format!("is no object with id and any of refresh_token and graph_database; {EXAMPLE}")
        } else {
            format!(
                "is not JSON (at character {}); {EXAMPLE}",
                error.column().max(1)
            )
        }
    })
}

fn json_lines(text: &str) -> Lines {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(place, line)| (place + 1, entry(line)))
        .collect()
}

/// An array; entries are counted as lines from 1.
fn json_array(text: &str) -> Result<Lines, String> {
    let values: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(text).map_err(|error| {
            format!(
                "is no JSON array (line {}); write [{{\"id\": \"ada@example.com\"}}]",
                error.line().max(1)
            )
        })?;
    let values = values.into_iter().enumerate();
    Ok(values
        .map(|(place, value)| (place + 1, entry(value.get())))
        .collect())
}

fn csv(text: &str) -> Result<Lines, String> {
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines
        .next()
        .ok_or("is empty; its first line names the columns: id,refresh_token")?;
    let columns = cells(head)?;
    let is_known = |column: &String| COLUMNS.contains(&column.as_str());
    let distinct: BTreeSet<&String> = columns.iter().collect();
    if !columns.iter().any(|column| column == "id")
        || !columns.iter().all(is_known)
        || distinct.len() != columns.len()
    {
        return Err("its first line must name the columns, id and any of refresh_token and graph_database, each once".to_owned());
    }
    let read = |line: &str| -> Result<Entry, String> {
        let cells = cells(line)?;
        if cells.len() != columns.len() {
            return Err(format!(
                "has {} values; the first line names {} columns",
                cells.len(),
                columns.len()
            ));
        }
        let mut named: BTreeMap<&str, String> =
            columns.iter().map(String::as_str).zip(cells).collect();
        Ok(Entry {
            id: named.remove("id").expect("it is a column"),
            refresh_token: named.remove("refresh_token").map(Secret::new),
            graph_database: named.remove("graph_database"),
        })
    };
    Ok(lines.map(|(place, line)| (place + 1, read(line))).collect())
}

/// The values of a line.
fn cells(line: &str) -> Result<Vec<String>, String> {
    let mut cells = Vec::new();
    let mut rest = line.trim();
    loop {
        let (cell, behind) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let cell = rest[..end].trim();
                if cell.contains('"') {
                    return Err("has a quote in the middle of a value".to_owned());
                }
                (cell.to_owned(), &rest[end..])
            }
        };
        cells.push(cell);
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(cells),
        }
    }
}

/// A value behind its first quote, and what follows its last one.
fn quoted_cell(text: &str) -> Result<(String, &str), String> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("has a quote that does not end")?;
        cell.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                cell.push('"');
                rest = more;
            }
            None => break,
        }
    }
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with(',') {
        return Ok((cell, rest));
    }
    Err("has something behind a quoted value".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_csv_are_read_as_spreadsheets_write_them() {
        let read = |line: &str| cells(line).unwrap();
        assert_eq!(read("a,b,"), ["a", "b", ""]);
        assert_eq!(read(" a , \"b,\"\"c\"\"\" ,\"\""), ["a", "b,\"c\"", ""]);
        assert_eq!(read(""), [""]);
        for wrong in ["a\"b", "\"a", "\"a\"b,c"] {
            assert!(cells(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_kind_of_file_is_read_by_the_end_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let array =
            r#"[{"id": "ada", "refresh_token": "one"}, {"id": "bob", "graph_database": "two"}]"#;
        let lines = "{\"id\": \"ada\", \"refresh_token\": \"one\"}\n\n{\"id\": \"bob\", \"graph_database\": \"two\"}\n";
        let table = "\u{feff}id,refresh_token,graph_database\nada,one,\nbob,,two\n";
        let files = [
            ("users.json", array, [1, 2]),
            ("users.jsonl", lines, [1, 3]),
            ("users.ndjson", lines, [1, 3]),
            ("users.csv", table, [2, 3]),
        ];
        for (name, text, places) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let read = read(&path).unwrap();
            let entries: Vec<_> = read
                .into_iter()
                .map(|(at, entry)| (at, entry.unwrap()))
                .collect();
            let ids: Vec<_> = entries
                .iter()
                .map(|(at, entry)| (*at, entry.id.as_str()))
                .collect();
            assert_eq!(ids, [(places[0], "ada"), (places[1], "bob")], "{name}");
            assert!(entries[0].1.refresh_token.is_some(), "{name}");
            assert_eq!(
                entries[1].1.graph_database.as_deref(),
                Some("two"),
                "{name}"
            );
        }
    }

    #[test]
    fn no_message_about_a_line_holds_a_token() {
        let file = "id,refresh_token\n\"ada\",planted-1\nbob,planted-2,more\n\"cleo,planted-3\n";
        let lines = csv(file).unwrap();
        let numbers: Vec<usize> = lines.iter().map(|(line, _)| *line).collect();
        assert_eq!(numbers, [2, 3, 4]);
        assert_eq!(
            lines[0].1.as_ref().ok().map(|entry| entry.id.as_str()),
            Some("ada")
        );
        let mut messages: Vec<String> = lines
            .into_iter()
            .filter_map(|(_, line)| line.err())
            .collect();
        assert_eq!(messages.len(), 2);
        let values = "{\"id\": \"dan\", \"refresh_token\": [\"planted-4\"]}\n{\"refresh_token\": \"planted-5\"}\nplanted-6\n\
                      {\"id\": \"eve\", \"planted-7\": 1}";
        messages.extend(
            json_lines(values)
                .into_iter()
                .filter_map(|(_, line)| line.err()),
        );
        assert_eq!(messages.len(), 6);
        messages.extend(json_array("{\"planted-8\": 1}").err());
        messages.extend(csv("id,planted-9\n").err());
        assert_eq!(messages.len(), 8);
        for message in messages {
            assert!(!message.contains("planted"), "{message}");
        }
    }
}
