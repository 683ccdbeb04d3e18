//! A `kalends.toml` for a test: as a user would write it, pointed at emulators, and as fast as possible.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::google_server::GoogleServer;

/// The client secret in every such file: no log may show it.
pub const CLIENT_SECRET: &str = "planted-client-secret-6c1f";

/// A configuration file in the making. Values are TOML: texts come with their quotes.
#[derive(Clone, Debug)]
pub struct KalendsToml {
    settings: BTreeMap<(&'static str, &'static str), String>,
    users: Vec<String>,
}

impl KalendsToml {
    /// Google at `url`, no limits, no jitter, no stagger, a tick a year, nobody to sync.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let empty = KalendsToml {
            settings: BTreeMap::new(),
            users: Vec::new(),
        };
        empty
            .set("google", "client_id", r#""planted-client""#)
            .set("google", "client_secret", &format!("{CLIENT_SECRET:?}"))
            .set("google", "api_base_url", &format!(r#""{url}/calendar/v3""#))
            .set("google", "token_url", &format!(r#""{url}/token""#))
            .set(
                "google",
                "auth_url",
                &format!(r#""{url}/o/oauth2/v2/auth""#),
            )
            // A test that runs over the end of a quarter of an hour must not see a tick that it does not wait for.
            .set("schedule", "cron", r#""0 0 1 1 *""#)
            .set("schedule", "jitter_ms", "0")
            .set("schedule", "spread", r#""even""#)
            .set("schedule", "stagger_ms", "1")
            .set("limits", "jobs", r#""unlimited""#)
            .set("limits", "requests_per_minute", r#""unlimited""#)
            .set("limits", "requests_per_minute_per_user", r#""unlimited""#)
            .set("worker", "lease_ms", "5000")
            .set("log", "level", r#""debug""#)
    }

    /// As [`KalendsToml::new`], with all users of a server.
    #[must_use]
    pub fn of(google: &GoogleServer) -> Self {
        google
            .users()
            .iter()
            .fold(KalendsToml::new(&google.url), |toml, access| {
                toml.user(&access.email, &access.refresh_token, None)
            })
    }

    /// With `section.key = value`; an empty section stands above all others.
    #[must_use]
    pub fn set(mut self, section: &'static str, key: &'static str, value: &str) -> Self {
        self.settings.insert((section, key), value.to_owned());
        self
    }

    /// Without `section.key`.
    #[must_use]
    pub fn without(mut self, section: &'static str, key: &'static str) -> Self {
        self.settings.remove(&(section, key));
        self
    }

    /// With one more user.
    #[must_use]
    pub fn user(mut self, id: &str, refresh_token: &str, database: Option<&str>) -> Self {
        let mut user = format!("[[users]]\nid = {id:?}\nrefresh_token = {refresh_token:?}\n");
        if let Some(database) = database {
            user.push_str(&format!("graph_database = {database:?}\n"));
        }
        self.users.push(user);
        self
    }

    /// Writes it where `kalends` looks for it when started in `folder`.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("kalends.toml"), self.to_string())
            .expect("a temporary folder can be written");
    }
}

impl fmt::Display for KalendsToml {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut current = "";
        for ((section, key), value) in &self.settings {
            if *section != current {
                current = section;
                writeln!(formatter, "[{section}]")?;
            }
            writeln!(formatter, "{key} = {value}")?;
        }
        self.users
            .iter()
            .try_for_each(|user| formatter.write_str(user))
    }
}
