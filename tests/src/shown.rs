//! All that a process and its commands show of themselves, gathered to be looked through.

use std::collections::BTreeMap;
use std::path::Path;

use crate::http_client::{ask_api, listen};
use crate::process::kalends;

/// Texts by where they were seen.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<String, String>);

impl Shown {
    /// Adds what was seen somewhere.
    pub fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0
            .entry(place.into())
            .or_default()
            .push_str(&text.into());
    }

    /// Adds every answer of the process at `address` that only tells, for each of `users`, too.
    ///
    /// # Panics
    /// If one is refused.
    pub fn add_answers(&mut self, address: &str, token: &str, users: &[String]) {
        let mut paths = [
            "/",
            "/app.js",
            "/app.css",
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/v1/openapi.json",
            "/api/v1/status",
            "/api/v1/users",
            "/api/v1/users?needs_reauth=true",
        ]
        .map(str::to_owned)
        .to_vec();
        for state in ["waiting", "delayed", "active", "completed", "failed"] {
            paths.push(format!("/api/v1/jobs?state={state}&limit=200"));
        }
        paths.extend(users.iter().map(|user| format!("/api/v1/users/{user}")));
        for path in paths {
            let (status, body) = ask_api(address, token, "GET", &path, "");
            assert_eq!(status, 200, "{path}: {body}");
            self.add(format!("GET {path}"), body);
        }
        let events = listen(address, "/api/v1/events", "}\n\n");
        self.add("events", events);
    }

    /// Adds what commands say in `folder`; of what they are told is wrong, too.
    pub fn add_commands(&mut self, folder: &Path, users: &[String]) {
        let mut lines = [
            "status",
            "doctor",
            "users list",
            "jobs list",
            "jobs list --state completed",
            "limits",
            "schedules list",
        ]
        .map(str::to_owned)
        .to_vec();
        lines.extend(users.iter().map(|user| format!("users show {user}")));
        let in_json: Vec<String> = lines.iter().map(|line| format!("{line} --json")).collect();
        lines.extend(in_json);
        lines.extend(["config show".to_owned(), "config check".to_owned()]);
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let ended = kalends(folder, &words);
            self.add(
                format!("kalends {line}"),
                format!("{}{}", ended.output, ended.errors),
            );
        }
    }

    /// Adds every file of `folder` whose name begins so.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn add_files(&mut self, folder: &Path, begins: &str) {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let entry = entry.expect("its entries can be listed");
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(begins) {
                let bytes = std::fs::read(entry.path()).expect("the file is there");
                self.add(name, String::from_utf8_lossy(&bytes));
            }
        }
    }

    /// The places that show `word`.
    #[must_use]
    pub fn places_of(&self, word: &str) -> Vec<&str> {
        assert!(!word.is_empty(), "nothing is everywhere");
        let places = self.0.iter().filter(|(_, text)| text.contains(word));
        places.map(|(place, _)| place.as_str()).collect()
    }

    /// What was seen at a place.
    ///
    /// # Panics
    /// If nothing was.
    #[must_use]
    pub fn at(&self, place: &str) -> &str {
        self.0
            .get(place)
            .unwrap_or_else(|| panic!("nothing was seen of {place}"))
    }

    /// Checks that nobody shows any of these.
    ///
    /// # Panics
    /// If somebody does.
    pub fn assert_nowhere<'word>(&self, words: impl IntoIterator<Item = &'word String>) {
        for word in words {
            let places = self.places_of(word);
            assert!(places.is_empty(), "{word} is shown by {places:?}");
        }
    }
}
