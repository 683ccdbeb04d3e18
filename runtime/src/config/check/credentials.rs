//! The section `[credentials]`: the keys by which grants are sealed.

use std::path::Path;

use kalends_adapters::seal::Keys;
use kalends_adapters::secret::Secret;

use super::super::CredentialsConfig;
use super::super::load::{SECRET_FILE_BYTES_MAX, read_text};
use super::super::locate::Place;
use super::super::value::{self, echo};
use super::Checker;

impl Checker<'_> {
    pub(super) fn credentials(&mut self) -> Option<CredentialsConfig> {
        // As with other secrets: a variable overrules the file, and both in one place contradict each other.
        let rank = |key| {
            let place = self.given("credentials", key)?.place.as_ref();
            place.map(|place| matches!(place, Place::Environment(_)))
        };
        let (own, file) = (rank("keys"), rank("keys_file"));
        if own.is_none() && file.is_none() {
            return Some(CredentialsConfig::default());
        }
        if own == file {
            let message = "is given beside keys_file; give one of the two";
            self.wrong("credentials", "keys", message);
            return None;
        }
        let (key, text) = if own > file {
            let text = self.read("credentials", "keys", value::text)?;
            ("keys", Ok(Secret::new(text)))
        } else {
            let name = self.read("credentials", "keys_file", value::text)?;
            let place = self.given("credentials", "keys_file")?.place.as_ref();
            let path = self.given.resolve(&name, place);
            let text = read_keys(&path).map_err(|message| format!("{} {message}", echo(&name)));
            ("keys_file", text)
        };
        let read = text.and_then(|text| Keys::parse(&text).map(|_| text));
        match read {
            Ok(keys) => Some(CredentialsConfig { keys: Some(keys) }),
            Err(message) => {
                self.wrong("credentials", key, message);
                None
            }
        }
    }
}

fn read_keys(path: &Path) -> Result<Secret, String> {
    let text = read_text(path, SECRET_FILE_BYTES_MAX).map_err(|message| {
        format!("{message}; make the file with `openssl rand -hex 32`, or correct the path")
    })?;
    Ok(Secret::new(text))
}
