//! The section `[redis]`: what a queue that many processes share needs, and what does not go with it.

use std::path::PathBuf;

use kalends_adapters::redis::RedisStore;
use kalends_adapters::secret::Secret;
use kalends_core::node::settings::Deadlines;

use super::super::RedisConfig;
use super::super::load::{FILE_BYTES_MAX, read_text};
use super::super::value::{self, echo};
use super::Checker;

impl Checker<'_> {
    /// `None` in `Some(None)`: the queue is not in Redis. What is not used is still checked.
    pub(super) fn redis(&mut self) -> Option<Option<RedisConfig>> {
        let connect_timeout_ms = self.integer("redis", "connect_timeout_ms");
        let response_timeout_ms = self.integer("redis", "response_timeout_ms");
        let has_prefix = self.given("redis", "prefix").is_some();
        let prefix = self.parse("redis", "prefix", value::redis_prefix);
        let has_ca_file = self.given("redis", "ca_file").is_some();
        let ca_file = self.redis_ca_file();
        let has_url = self.given("redis", "url").is_some();
        let url = self.read("redis", "url", value::text);
        if has_url && !has_prefix {
            self.wrong(
                "redis",
                "prefix",
                "is missing, and has no default; choose one name for each environment, such as \
                 prefix = \"kalends-production\", or set KALENDS_REDIS_PREFIX",
            );
        }
        let (connect_timeout_ms, response_timeout_ms) = (connect_timeout_ms?, response_timeout_ms?);
        let store_ms = Deadlines::default().store_ms;
        if connect_timeout_ms + response_timeout_ms >= store_ms {
            let at_fault = match self.given("redis", "response_timeout_ms") {
                Some(given) if given.place.is_some() => "response_timeout_ms",
                _ => "connect_timeout_ms",
            };
            let message = format!(
                "connect_timeout_ms ({connect_timeout_ms}) and response_timeout_ms ({response_timeout_ms}) together must \
                 stay below {store_ms}, when a command is given up; lower one of them"
            );
            self.wrong("redis", at_fault, message);
            return None;
        }
        if has_ca_file {
            ca_file.as_ref()?;
        }
        if !has_url {
            if has_prefix {
                prefix?;
            }
            return Some(None);
        }
        let redis = RedisConfig {
            url: Secret::new(url?),
            prefix: prefix?,
            ca_file,
            connect_timeout_ms,
            response_timeout_ms,
        };
        // Sends nothing: what the client cannot understand is found here and not at the start.
        if let Err(bad) = RedisStore::new(redis.settings()) {
            self.wrong("redis", "url", bad.to_string());
            return None;
        }
        Some(Some(redis))
    }

    fn redis_ca_file(&mut self) -> Option<PathBuf> {
        let name = self.read("redis", "ca_file", value::text)?;
        let place = self.given("redis", "ca_file")?.place.as_ref();
        let path = self.given.resolve(&name, place);
        // Read anew at each connecting; here only so that a wrong path is told now.
        if let Err(message) = read_text(&path, FILE_BYTES_MAX) {
            let message = format!(
                "{} {message}; make the file, or correct the path",
                echo(&name)
            );
            self.wrong("redis", "ca_file", message);
            return None;
        }
        Some(path)
    }

    /// A graph in a file belongs to one process. In another one a sync would go on from the shared cursor and write its
    /// increments to a graph without their beginning.
    pub(super) fn refuse_embedded_graph(&mut self) {
        self.wrong(
            "redis",
            "url",
            "many processes share a queue in Redis, but graph.kind is \"embedded\", a file of one process; \
             write kind = \"neo4j\" below [graph], or remove this url",
        );
    }
}
