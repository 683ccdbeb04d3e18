//! The section `[push]`: where Google's notifications come in, and by which key genuine ones are known.

use kalends_adapters::google::Webhook;
use kalends_core::time::MINUTE_MS;

use super::super::PushConfig;
use super::super::value;
use super::Checker;

impl Checker<'_> {
    /// `None` in `Some(None)`: nothing is watched. What is not used is still checked.
    pub(super) fn push(&mut self) -> Option<Option<PushConfig>> {
        let has = |key| self.given("push", key).is_some();
        let (has_address, has_listen) = (has("address"), has("listen"));
        let has_key = has("key") || has("key_file");
        let poll_ms = self
            .integer("push", "poll_minutes")
            .map(|minutes| minutes * MINUTE_MS);
        let listen = self.parse("push", "listen", value::listen);
        let address = self.read("push", "address", value::url);
        let connections_per_address_max = self.connections_per_address_max("push")?;
        if has_listen {
            listen?;
        }
        if !has_address {
            if has_listen || has_key {
                self.wrong(
                    "push",
                    "address",
                    "is missing: write the https address at which Google reaches push.listen, such as \
                     \"https://hooks.example.com/google\", or leave the section out",
                );
                return None;
            }
            return Some(None);
        }
        let address = address?;
        if !has_listen {
            self.wrong(
                "push",
                "listen",
                "is missing: write where notifications come in, such as \"127.0.0.1:7879\", behind whatever serves \
                 push.address with a certificate",
            );
        }
        if !has_key {
            self.wrong(
                "push",
                "key_file",
                "is missing: write key_file = \"FILE\" with what `openssl rand -hex 32` prints, the same for all \
                 processes, or set KALENDS_PUSH_KEY",
            );
            return None;
        }
        let key = self.secret("push", "key", "key_file")?;
        // What the adapter cannot use is found here and not at the start.
        if let Err(error) = Webhook::new(&address, &key) {
            let key = match error.setting {
                "push.address" => "address",
                _ if self.given("push", "key").is_some() => "key",
                _ => "key_file",
            };
            self.wrong("push", key, error.detail);
            return None;
        }
        Some(Some(PushConfig {
            address,
            listen: listen?,
            key,
            poll_ms: poll_ms?,
            connections_per_address_max,
        }))
    }
}
