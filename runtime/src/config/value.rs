//! A value as it was given, before anybody knows whether it is right, and the reading of each kind of value.
//!
//! The readers are plain functions from what was given to the value, or to a sentence that says what is wrong and
//! what would be right. They know nothing of files, lines and keys; whoever calls them adds the place.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;
use url::{Host, Url};

use super::settings::{Kind, nearest};

/// The longest text that is accepted, in bytes. A service account's key stands in a file of its own.
pub(super) const TEXT_BYTES_MAX: usize = 8 * 1024;
/// The most characters of a wrong value that an error repeats.
const ECHO_CHARS_MAX: usize = 60;

/// A value as it was given. It has no `Debug`: it may hold a secret.
#[derive(Clone)]
pub(super) enum Raw {
    /// A text of the file.
    Text(String),
    /// A whole number of the file; `None` if it is beyond 128 bits.
    Integer(Option<i128>),
    /// A truth value of the file.
    Boolean(bool),
    /// A list of the file.
    List(Vec<Raw>),
    /// What no setting wants; names it, with its article.
    Other(&'static str),
    /// From a variable or a flag, where everything is text.
    Outside(String),
}

impl Raw {
    /// The value as the file has it.
    pub(super) fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Raw::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                Raw::Integer(i128::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Boolean(value) => Raw::Boolean(*value),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| Raw::from_toml(item.get_ref()));
                Raw::List(items.collect())
            }
            DeValue::Float(_) => Raw::Other("a number with a point"),
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Table(_) => Raw::Other("a table"),
        }
    }

    /// The value as a line of JSON has it.
    pub(super) fn from_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(text) => Raw::Text(text),
            serde_json::Value::Number(number) => Raw::Integer(number.as_i128()),
            serde_json::Value::Bool(value) => Raw::Boolean(value),
            serde_json::Value::Array(_) => Raw::Other("a list"),
            serde_json::Value::Object(_) => Raw::Other("an object"),
            serde_json::Value::Null => Raw::Other("null"),
        }
    }

    /// What it is, in words that may be shown only if the setting is no secret.
    fn in_words(&self) -> String {
        match self {
            Raw::Text(text) => format!("the text {}", echo(text)),
            Raw::Outside(text) => echo(text),
            Raw::Integer(Some(number)) => number.to_string(),
            Raw::Integer(None) => "a number beyond all bounds".to_owned(),
            other => other.type_in_words().to_owned(),
        }
    }

    /// Which type it is, in words that tell nothing of the value.
    fn type_in_words(&self) -> &'static str {
        match self {
            Raw::Text(_) | Raw::Outside(_) => "a text",
            Raw::Integer(_) => "a number",
            Raw::Boolean(true) => "true",
            Raw::Boolean(false) => "false",
            Raw::List(_) => "a list",
            Raw::Other(words) => words,
        }
    }
}

/// A text as an error repeats it: quoted, cut, without control characters.
pub(super) fn echo(text: &str) -> String {
    let mut cut: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// What would be right, for a setting of this kind.
pub(super) fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text => "write one line of text in quotes".to_owned(),
        Kind::Secret => "write the secret as text in quotes".to_owned(),
        Kind::Path => "write a path in quotes".to_owned(),
        Kind::Url => "write an address such as \"https://example.com\" in quotes".to_owned(),
        Kind::Integer(min, max) => format!("write a whole number from {min} to {max}"),
        Kind::IntegerOrUnlimited(min, max) => {
            format!("write a whole number from {min} to {max}, or \"unlimited\"")
        }
        Kind::Boolean => "write true or false".to_owned(),
        Kind::Choice(words) => {
            let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            format!("write {}", quoted.join(" or "))
        }
        Kind::Calendars => {
            "write \"primary\", \"all\" or a list of calendar ids such as [\"primary\", \"team@example.com\"]"
                .to_owned()
        }
    }
}

fn wrong(raw: &Raw, kind: Kind) -> String {
    format!("is {}; {}", raw.in_words(), expected(kind))
}

/// One line of text, not empty. A wrong one is never repeated, so secrets are read by it too.
pub(super) fn text(raw: &Raw, kind: Kind) -> Result<String, String> {
    let (Raw::Text(text) | Raw::Outside(text)) = raw else {
        return Err(format!("is {}; {}", raw.type_in_words(), expected(kind)));
    };
    if text.trim().is_empty() {
        return Err(format!("is empty; {}, or leave it out", expected(kind)));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!(
            "has {} bytes; at most {TEXT_BYTES_MAX} are allowed",
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(format!(
            "holds a control character (a line break, say); {}",
            expected(kind)
        ));
    }
    Ok(text.clone())
}

/// A whole number from `min` to `max`.
pub(super) fn integer(raw: &Raw, kind: Kind) -> Result<u64, String> {
    let (Kind::Integer(min, max) | Kind::IntegerOrUnlimited(min, max)) = kind else {
        unreachable!("only settings of these kinds are read as numbers");
    };
    let number = match raw {
        Raw::Integer(number) => *number,
        Raw::Outside(text) => text.trim().parse().ok(),
        Raw::Text(text) if text.trim().parse::<i128>().is_ok() => {
            return Err(format!(
                "is a number in quotes; {} without quotes",
                expected(kind)
            ));
        }
        _ => None,
    };
    number
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| wrong(raw, kind))
}

/// A whole number, or `None` for `"unlimited"`.
pub(super) fn integer_or_unlimited(raw: &Raw, kind: Kind) -> Result<Option<u64>, String> {
    match raw {
        Raw::Text(text) | Raw::Outside(text) if text.trim() == "unlimited" => Ok(None),
        other => integer(other, kind).map(Some),
    }
}

/// A truth value.
pub(super) fn boolean(raw: &Raw, kind: Kind) -> Result<bool, String> {
    match raw {
        Raw::Boolean(value) => Ok(*value),
        Raw::Outside(text) if text.trim() == "true" => Ok(true),
        Raw::Outside(text) if text.trim() == "false" => Ok(false),
        other => Err(wrong(other, kind)),
    }
}

/// One of the kind's words.
pub(super) fn choice(raw: &Raw, kind: Kind) -> Result<&'static str, String> {
    let Kind::Choice(words) = kind else {
        unreachable!("only settings of this kind are read as words");
    };
    let given = match raw {
        Raw::Text(text) | Raw::Outside(text) => text.trim(),
        other => return Err(wrong(other, kind)),
    };
    if let Some(word) = words.iter().find(|word| **word == given) {
        return Ok(word);
    }
    let mut message = wrong(raw, kind);
    if let Some(near) = nearest(given, words.iter().copied()) {
        message.push_str(&format!(" (did you mean {near:?}?)"));
    }
    Err(message)
}

/// An `https` address, or an `http` one on this machine. Without a slash at the end.
///
/// A wrong address is not repeated: it may hold a password.
pub(super) fn url(raw: &Raw, kind: Kind) -> Result<String, String> {
    let text = text(raw, kind)?;
    let url = Url::parse(text.trim()).map_err(|error| {
        format!("is not an address ({error}); write one such as \"https://example.com\"")
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "holds a user name or a password; remove them, there are settings of their own for secrets"
                .to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a `?` or a `#`; remove it and what follows".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => {
            return Err(format!(
                "sends secrets in the clear to {}; use https:// (http:// is accepted for this machine only)",
                url.host_str().unwrap_or("another machine")
            ));
        }
        "bolt" | "bolt+s" | "neo4j" | "neo4j+s" => {
            return Err(format!(
                "begins with {}://, but Neo4j is asked by its HTTP Query API; \
                 write https://HOST, or http://127.0.0.1:7474 on this machine",
                url.scheme()
            ));
        }
        other => {
            return Err(format!(
                "begins with {}; use https://",
                echo(&format!("{other}:"))
            ));
        }
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// A Redis address that the adapter accepted, without its secrets.
pub(super) fn redis_address(url: &str) -> String {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("redis", ""));
    let shown = if scheme == "unix" {
        let path = rest.find('/').map_or("", |slash| &rest[slash..]);
        path.split_once('?').map_or(path, |(path, _)| path)
    } else {
        rest.rsplit_once('@').map_or(rest, |(_, host)| host)
    };
    format!("{scheme}://{shown}")
}

/// Whether a Redis address that the adapter accepted holds a password.
pub(super) fn redis_has_secret(url: &str) -> bool {
    let without_query = url.split_once('?').map_or(url, |(address, _)| address);
    redis_address(url) != without_query.trim()
}

/// Whether what is sent to a Redis can be read on the way: it goes to another machine, and without TLS.
pub(super) fn redis_is_readable(url: &str) -> bool {
    let address = redis_address(url);
    let (scheme, hosts) = address.split_once("://").unwrap_or_default();
    let hosts = hosts.split_once('/').map_or(hosts, |(hosts, _)| hosts);
    let is_here = |host: &str| {
        ["http://", host]
            .concat()
            .parse::<Url>()
            .is_ok_and(|url| is_loopback(&url))
    };
    scheme != "unix" && !scheme.starts_with("rediss") && !hosts.split(',').all(is_here)
}

/// The longest prefix of keys, in letters.
const PREFIX_CHARS_MAX: usize = 64;

/// What the keys of one environment begin with.
pub(super) fn redis_prefix(text: &str) -> Result<String, String> {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if text.len() > PREFIX_CHARS_MAX || !text.chars().all(is_allowed) {
        return Err(format!(
            "is {}; write 1 to {PREFIX_CHARS_MAX} letters, digits, '-', '_' or '.', such as \"kalends-production\"",
            echo(text)
        ));
    }
    Ok(text.to_owned())
}

/// An address to listen at, and a port (0: any that is free).
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        format!(
            "is {}; write an address of this machine and a port, such as \"127.0.0.1:7878\" or \"[::1]:7878\"",
            echo(text)
        )
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        url(&Raw::Text(text.to_owned()), Kind::Url)
    }

    #[test]
    fn addresses_are_safe_or_on_this_machine() {
        assert_eq!(
            address("https://example.com/a/"),
            Ok("https://example.com/a".to_owned())
        );
        for local in [
            "http://127.0.0.1:7474",
            "http://[::1]:7474",
            "http://localhost:4500/x",
        ] {
            assert_eq!(address(local), Ok(local.to_owned()));
        }
        assert!(
            address("http://example.com")
                .unwrap_err()
                .contains("use https://")
        );
        assert!(
            address("http://127.0.0.1.example.com")
                .unwrap_err()
                .contains("in the clear")
        );
        assert!(
            address("bolt://127.0.0.1:7687")
                .unwrap_err()
                .contains("HTTP Query API")
        );
        assert!(
            address("file:///etc/passwd")
                .unwrap_err()
                .contains("use https://")
        );
        assert!(address("neo4j").unwrap_err().contains("is not an address"));
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let message = address("https://neo4j:PLANTED@example.com").unwrap_err();
        assert!(message.contains("password"), "{message}");
        assert!(!message.contains("PLANTED"), "{message}");
    }

    #[test]
    fn addresses_of_redis_are_shown_without_secrets() {
        let shown = [
            ("redis://127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
            ("rediss://u:PLANTED@h:6380", "rediss://h:6380"),
            ("redis://:PLAN@TED@h", "redis://h"),
            ("unix:///run/r@1.sock?db=1", "unix:///run/r@1.sock"),
            ("unix://u:PLANTED@/run/r@1.sock", "unix:///run/r@1.sock"),
            (
                "redis+sentinel://u:PLANTED@a:1,b:2/main/0",
                "redis+sentinel://a:1,b:2/main/0",
            ),
        ];
        for (url, address) in shown {
            assert_eq!(redis_address(url), address);
            assert_eq!(redis_has_secret(url), url.contains("PLAN"), "{url}");
        }
    }

    #[test]
    fn what_goes_to_another_machine_without_tls_can_be_read() {
        for safe in [
            "redis://127.0.0.1:6379/0",
            "redis://u:p@localhost",
            "redis://[::1]:6379",
            "redis+cluster://127.0.0.1:1,127.0.0.1:2",
            "unix:///run/redis.sock",
            "rediss://h",
            "rediss+sentinel://h:1/s",
        ] {
            assert!(!redis_is_readable(safe), "{safe}");
        }
        for open in [
            "redis://h",
            "redis://u:p@10.0.0.1:6379/0",
            "redis+cluster://127.0.0.1:1,h:2",
        ] {
            assert!(redis_is_readable(open), "{open}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        for good in ["127.0.0.1:7878", "[::1]:0", "0.0.0.0:80"] {
            assert!(listen(good).is_ok(), "{good}");
        }
        let nonsense = listen("localhost").unwrap_err();
        assert!(nonsense.contains("127.0.0.1:7878"), "{nonsense}");
    }

    #[test]
    fn numbers_have_bounds() {
        let kind = Kind::Integer(1, 2_500);
        assert_eq!(integer(&Raw::Integer(Some(2_500)), kind), Ok(2_500));
        assert_eq!(integer(&Raw::Outside(" 7 ".to_owned()), kind), Ok(7));
        for wrong in [0, -1, 2_501, i128::from(u64::MAX) + 1] {
            let message = integer(&Raw::Integer(Some(wrong)), kind).unwrap_err();
            assert_eq!(
                message,
                format!("is {wrong}; write a whole number from 1 to 2500")
            );
        }
        let quoted = integer(&Raw::Text("3".to_owned()), kind).unwrap_err();
        assert!(quoted.contains("without quotes"), "{quoted}");
    }
}
