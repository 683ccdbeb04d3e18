//! The section `[http]`: where the API and the page are served, to whom, and by which secret.

use kalends_adapters::secret::Secret;

use super::super::HttpConfig;
use super::super::value::{self, echo};
use super::Checker;

/// The shortest token that is accepted, in characters: 16 random letters cannot be found by trying.
const TOKEN_CHARS_MIN: usize = 16;
/// The most host names.
const HOSTS_MAX: usize = 100;
/// The longest host name, in characters (RFC 1035, 2.3.4).
const HOST_CHARS_MAX: usize = 253;

impl Checker<'_> {
    pub(super) fn http(&mut self) -> Option<HttpConfig> {
        let has = |key| self.given("http", key).is_some();
        let (has_listen, has_hosts) = (has("listen"), has("hosts"));
        let has_token = has("token") || has("token_file");
        let listen = self.parse("http", "listen", value::listen);
        let token = match has_token {
            true => Some(self.http_token()?),
            false => None,
        };
        let hosts = self.parse("http", "hosts", hosts);
        let connections_per_address_max = self.connections_per_address_max("http")?;
        if has_listen {
            listen?;
        }
        if has_hosts {
            hosts.as_ref()?;
        }
        if let (Some(address), None) = (listen, &token)
            && !address.ip().is_loopback()
        {
            let message = format!(
                "{address} can be reached from other machines, and nobody would be asked for a token; write \
                 token_file = \"FILE\" with what `openssl rand -hex 32` prints, or set KALENDS_HTTP_TOKEN, or write \
                 \"127.0.0.1:{0}\" or \"[::1]:{0}\"",
                address.port()
            );
            self.wrong("http", "listen", message);
            return None;
        }
        Some(HttpConfig {
            listen,
            token,
            hosts: hosts.unwrap_or_default(),
            connections_per_address_max,
        })
    }

    /// `None` in `Some(None)`: it is not set.
    pub(super) fn connections_per_address_max(
        &mut self,
        section: &'static str,
    ) -> Option<Option<usize>> {
        let key = "connections_per_address_max";
        if self.given(section, key).is_none() {
            return Some(None);
        }
        let max = usize::try_from(self.integer(section, key)?);
        Some(Some(max.expect("the table's bound is small")))
    }

    fn http_token(&mut self) -> Option<Secret> {
        let token = self.secret("http", "token", "token_file")?;
        let text = token.expose();
        // RFC 6750, 2.1: a bearer token is made of these; and of nothing that a header could not carry.
        let is_allowed =
            |letter: char| letter.is_ascii_alphanumeric() || "-._~+/=".contains(letter);
        if text.len() >= TOKEN_CHARS_MIN && text.chars().all(is_allowed) {
            return Some(token);
        }
        let key = match self.given("http", "token") {
            Some(_) => "token",
            None => "token_file",
        };
        let message = format!(
            "is no token; give at least {TOKEN_CHARS_MIN} letters, digits or -._~+/= that nobody can guess, such as what \
             `openssl rand -hex 32` prints"
        );
        self.wrong("http", key, message);
        None
    }
}

/// Host names, separated by commas.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let hosts: Vec<String> = text
        .split(',')
        .map(|host| host.trim().to_ascii_lowercase())
        .collect();
    let is_name = |host: &String| {
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        (1..=HOST_CHARS_MAX).contains(&host.len()) && host.chars().all(is_allowed)
    };
    match hosts.iter().find(|host| !is_name(host)) {
        Some(wrong) => Err(format!(
            "holds {}; write host names without port and scheme, separated by commas, such as \"kalends.example.com\"",
            echo(wrong)
        )),
        None if hosts.len() > HOSTS_MAX => Err(format!(
            "holds {} names; at most {HOSTS_MAX} are allowed",
            hosts.len()
        )),
        None => Ok(hosts),
    }
}
