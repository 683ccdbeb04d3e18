//! Checking users: each has an id of its own and, where it is needed, exactly one way to get its token.

use std::collections::BTreeMap;

use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;

use super::super::UserConfig;
use super::super::locate::Place;
use super::super::settings::{Kind, USERS};
use super::super::users::RawUser;
use super::super::value::{self, echo};
use super::{Checker, database_name, read_secret};

/// The keys that give a user's token; one of them is wanted.
const TOKEN_KEYS: [&str; 3] = ["refresh_token", "refresh_token_file", "refresh_token_env"];

impl Checker<'_> {
    pub(super) fn users(&mut self, token_needed: bool) -> Option<Vec<UserConfig>> {
        let mut places: BTreeMap<UserId, &Place> = BTreeMap::new();
        let mut users = Vec::with_capacity(self.given.users.len());
        let mut all_are_right = true;
        for raw in &self.given.users {
            let Some(user) = self.user(raw, token_needed) else {
                all_are_right = false;
                continue;
            };
            if let Some(first) = places.get(&user.id) {
                let message = format!("{} is already at {first}; remove one of the two", user.id);
                self.problems
                    .add(raw.place.clone(), format!("{USERS}.id"), message);
                all_are_right = false;
            }
            places.insert(user.id.clone(), &raw.place);
            users.push(user);
        }
        all_are_right.then_some(users)
    }

    fn user(&mut self, raw: &RawUser, token_needed: bool) -> Option<UserConfig> {
        let id = match raw.field("id") {
            Some(_) => self.user_field(raw, "id", Kind::Text, |text| {
                UserId::new(&text).map_err(|error| error.to_string())
            }),
            None => {
                let message = "is missing; write id = \"...\", often an e-mail address";
                self.problems
                    .add(raw.place.clone(), format!("{USERS}.id"), message);
                None
            }
        };
        let given_database = raw.field("graph_database").is_some();
        let graph_database = self.user_field(raw, "graph_database", Kind::Text, |text| {
            database_name(&text)
        });
        let has_token = TOKEN_KEYS.iter().any(|key| raw.field(key).is_some());
        let refresh_token = if token_needed || has_token {
            Some(self.refresh_token(raw))
        } else {
            None
        };
        if given_database {
            graph_database.as_ref()?;
        }
        Some(UserConfig {
            id: id?,
            refresh_token: match refresh_token {
                Some(token) => Some(token?),
                None => None,
            },
            graph_database,
        })
    }

    fn user_field<T>(
        &mut self,
        raw: &RawUser,
        key: &'static str,
        kind: Kind,
        parse: impl FnOnce(String) -> Result<T, String>,
    ) -> Option<T> {
        let (place, value) = raw.field(key)?;
        match value::text(value, kind).and_then(parse) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems
                    .add(place.clone(), format!("{USERS}.{key}"), message);
                None
            }
        }
    }

    fn refresh_token(&mut self, raw: &RawUser) -> Option<Secret> {
        let given: Vec<&'static str> = TOKEN_KEYS
            .into_iter()
            .filter(|key| raw.field(key).is_some())
            .collect();
        match given[..] {
            ["refresh_token"] => {
                let token = self.user_field(raw, "refresh_token", Kind::Secret, Ok)?;
                Some(Secret::new(token))
            }
            ["refresh_token_file"] => {
                let folder = self.given.folder_of(raw);
                self.user_field(raw, "refresh_token_file", Kind::Path, |name| {
                    read_secret(&folder.join(&name))
                        .map_err(|message| format!("{} {message}", echo(&name)))
                })
            }
            ["refresh_token_env"] => {
                let environment = self.environment;
                self.user_field(raw, "refresh_token_env", Kind::Text, |name| {
                    // The name is repeated, the value never is.
                    match environment.get(&name).map(|text| text.trim()) {
                        None => Err(format!(
                            "names the variable {}, which is not set; set it to the refresh token",
                            echo(&name)
                        )),
                        Some("") => Err(format!(
                            "names the variable {}, which is empty; set it to the refresh token",
                            echo(&name)
                        )),
                        Some(token) => Ok(Secret::new(token.to_owned())),
                    }
                })
            }
            [] => {
                let message = "is missing; write refresh_token_file = \"FILE\", refresh_token_env = \"VARIABLE\" or \
                               refresh_token = \"...\"";
                self.problems
                    .add(raw.place.clone(), format!("{USERS}.refresh_token"), message);
                None
            }
            _ => {
                let message = format!(
                    "is given beside {}; give one of them",
                    given[1..].join(", ")
                );
                let (place, _) = raw.field(given[0]).expect("it was found above");
                self.problems
                    .add(place.clone(), format!("{USERS}.{}", given[0]), message);
                None
            }
        }
    }
}
