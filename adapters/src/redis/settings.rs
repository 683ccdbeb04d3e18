//! Where the Redis is, and under which names this fleet's keys stand in it.
//!
//! An address is understood here, once, without a look at the network; what cannot be understood is answered with what
//! to write instead. Nothing that is said ever holds the address as it was given, for it may hold a password.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::BadAddress;
use crate::secret::Secret;

/// How a [`RedisStore`](super::RedisStore) reaches its server.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// The address, with user, password and database number, so a secret. One of
    /// `redis://[user:password@]host[:port][/database]` (and `rediss://` for TLS),
    /// `unix://[user:password@]/path/to/socket[?db=database]`,
    /// `redis+sentinel://[user:password@]host:port,host:port/service-name[/database]`,
    /// `redis+cluster://[user:password@]host:port,host:port` (with `rediss+` for TLS). Special characters in user and
    /// password are percent-encoded (`%40` for `@`). With Sentinel they are the master's; a sentinel is told them only
    /// if it asks.
    pub url: Secret,
    /// What the names of all keys begin with: 1 to 64 letters, digits, `-`, `_` or `.`. Two environments that share a
    /// server must have different ones.
    pub prefix: String,
    /// A file of PEM certificates that may sign the server's (TLS only), read at each connecting. Without it: those
    /// that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long one answer may take, in milliseconds.
    pub response_timeout_ms: u64,
}

/// The longest prefix, in characters.
const PREFIX_LENGTH_MAX: usize = 64;

/// The most sentinels or cluster nodes that an address may name.
const HOSTS_MAX: usize = 32;

/// Where Redis listens if nobody says otherwise.
const REDIS_PORT: u16 = 6379;

/// Where Sentinel listens if nobody says otherwise.
const SENTINEL_PORT: u16 = 26379;

const FORMS: &str = "write redis://[user:password@]host[:port][/database] (rediss:// for TLS), \
    unix:///path/to/socket, redis+sentinel://host:port,host:port/service-name[/database] or \
    redis+cluster://host:port,host:port";

/// One place that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A host and a port.
    Tcp {
        /// A name or an IP address (IPv6 without brackets).
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// A Unix socket.
    Socket(PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => {
                write!(formatter, "[{host}]:{port}")
            }
            Endpoint::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Endpoint::Socket(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// How the server that holds the keys is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// It is this one.
    Single(Endpoint),
    /// Any of these sentinels knows which server is the master of this name.
    Sentinel {
        /// At least one.
        sentinels: Vec<Endpoint>,
        /// What the sentinels call it.
        service: String,
    },
    /// Any of these nodes knows which node holds the keys' slot.
    Cluster(Vec<Endpoint>),
}

/// An address, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topology: Topology,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// The number of the database, 0 unless said otherwise.
    pub(super) database: u16,
}

impl RedisSettings {
    /// Reads the address, and looks at the rest.
    ///
    /// # Errors
    /// What is wrong, and what to write instead, without secrets.
    pub(super) fn place(&self) -> Result<Place, BadAddress> {
        check_prefix(&self.prefix)?;
        if self.connect_timeout_ms == 0 || self.response_timeout_ms == 0 {
            return bad(
                "a timeout of 0 ms for Redis lets nothing through: give it at least a few hundred milliseconds",
            );
        }
        let place = parse(self.url.expose())?;
        if self.ca_file.is_some() && !place.tls {
            return bad(
                "a CA file is given, but the Redis address is not one of TLS: write rediss:// (or rediss+sentinel://, \
                 rediss+cluster://), or take the CA file away",
            );
        }
        Ok(place)
    }
}

fn bad<T>(text: impl Into<String>) -> Result<T, BadAddress> {
    Err(BadAddress(text.into()))
}

fn check_prefix(prefix: &str) -> Result<(), BadAddress> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if prefix.is_empty() || prefix.len() > PREFIX_LENGTH_MAX || !prefix.chars().all(allowed) {
        return bad(format!(
            "the prefix of the keys in Redis must be 1 to {PREFIX_LENGTH_MAX} letters, digits, `-`, `_` or `.`"
        ));
    }
    Ok(())
}

fn parse(url: &str) -> Result<Place, BadAddress> {
    let Some((scheme, rest)) = url.trim().split_once("://") else {
        return bad(format!("the Redis address has no scheme: {FORMS}"));
    };
    let (tls, kind) = match scheme {
        "unix" => return parse_socket(rest),
        "redis" => (false, ""),
        "rediss" => (true, ""),
        "redis+sentinel" => (false, "sentinel"),
        "rediss+sentinel" => (true, "sentinel"),
        "redis+cluster" => (false, "cluster"),
        "rediss+cluster" => (true, "cluster"),
        _ => {
            return bad(format!(
                "the scheme of the Redis address is unknown: {FORMS}"
            ));
        }
    };
    if let Some(sign) = rest.chars().find(|sign| "?#".contains(*sign)) {
        return bad(format!(
            "the Redis address must hold no `{sign}`: settings have names of their own, and in a password write it as %{:02X}",
            u32::from(sign)
        ));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') {
        return bad(
            "the Redis address has an `@` after a `/`: in a user or a password write `/` as %2F and `@` as %40",
        );
    }
    let (user, password, hosts) = credentials(authority)?;
    let path = path.trim_end_matches('/');
    let (topology, database) = match kind {
        "sentinel" => {
            let (service, database) = path.split_once('/').unwrap_or((path, ""));
            let service = decode(service, "service name")?;
            if service.is_empty() {
                return bad(
                    "the Redis address must say what the sentinels call the master: \
                     redis+sentinel://host:port,host:port/service-name (often `mymaster`)",
                );
            }
            let sentinels = endpoints(hosts, SENTINEL_PORT)?;
            (Topology::Sentinel { sentinels, service }, database)
        }
        "cluster" => {
            if !path.is_empty() {
                return bad(
                    "a Redis Cluster has no database numbers: end the address after the hosts \
                     (redis+cluster://host:port,host:port)",
                );
            }
            (Topology::Cluster(endpoints(hosts, REDIS_PORT)?), "")
        }
        _ => {
            if hosts.contains(',') {
                return bad(
                    "the Redis address names several hosts: write redis+sentinel://host:port,host:port/service-name or \
                     redis+cluster://host:port,host:port",
                );
            }
            (Topology::Single(endpoint(hosts, REDIS_PORT)?), path)
        }
    };
    Ok(Place {
        topology,
        tls,
        user,
        password,
        database: parse_database(database)?,
    })
}

fn parse_socket(rest: &str) -> Result<Place, BadAddress> {
    let Some(slash) = rest.find('/') else {
        return bad("the Redis address must hold the socket's whole path: unix:///path/to/socket");
    };
    let (authority, path) = rest.split_at(slash);
    let (user, password, host) = credentials(authority)?;
    if !host.is_empty() {
        return bad("a Unix socket has no host: write unix:///path/to/socket, with three slashes");
    }
    let (path, database) = match path.split_once('?') {
        None => (path, ""),
        Some((path, query)) => match query.strip_prefix("db=") {
            Some(database) => (path, database),
            None => {
                return bad(
                    "after a Unix socket's `?` only a database number can stand: unix:///path/to/socket?db=1",
                );
            }
        },
    };
    if path == "/" {
        return bad("the Redis address must hold the socket's whole path: unix:///path/to/socket");
    }
    Ok(Place {
        topology: Topology::Single(Endpoint::Socket(PathBuf::from(decode(path, "path")?))),
        tls: false,
        user,
        password,
        database: parse_database(database)?,
    })
}

/// Splits `user:password@hosts`.
fn credentials(authority: &str) -> Result<(Option<String>, Option<Secret>, &str), BadAddress> {
    let Some((credentials, hosts)) = authority.rsplit_once('@') else {
        return Ok((None, None, authority));
    };
    let Some((user, password)) = credentials.split_once(':') else {
        return bad(
            "the Redis address has a user without a password: write user:password@host, or :password@host",
        );
    };
    let user = decode(user, "user")?;
    let password = decode(password, "password")?;
    if password.is_empty() {
        return bad(
            "the password in the Redis address is empty: write user:password@host, or leave out all before the @",
        );
    }
    Ok((
        (!user.is_empty()).then_some(user),
        Some(Secret::new(password)),
        hosts,
    ))
}

fn decode(text: &str, what: &str) -> Result<String, BadAddress> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => bad(format!(
            "the {what} in the Redis address is not UTF-8 after its %-codes are read"
        )),
    }
}

fn endpoints(hosts: &str, port_default: u16) -> Result<Vec<Endpoint>, BadAddress> {
    let endpoints: Vec<Endpoint> = hosts
        .split(',')
        .take(HOSTS_MAX + 1)
        .map(|host| endpoint(host, port_default))
        .collect::<Result<_, _>>()?;
    if endpoints.len() > HOSTS_MAX {
        return bad(format!(
            "the Redis address names more than {HOSTS_MAX} hosts: a few are enough, they know the others"
        ));
    }
    Ok(endpoints)
}

fn endpoint(text: &str, port_default: u16) -> Result<Endpoint, BadAddress> {
    let (host, port) = match text
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
    {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("?"))),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(['[', ']', ' ']) {
        return bad(format!(
            "the Redis address has an empty or a broken host: {FORMS}"
        ));
    }
    let port = match port.map(str::parse) {
        None => port_default,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => {
            return bad(
                "a port in the Redis address is not a number from 1 to 65535 (an IPv6 address stands in brackets: [::1]:6379)",
            );
        }
    };
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn parse_database(text: &str) -> Result<u16, BadAddress> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse()
        .or_else(|_| bad("the database in the Redis address must be a number (Redis has 0 to 15 unless configured otherwise)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    fn single(host: &str, port: u16) -> Place {
        Place {
            topology: Topology::Single(tcp(host, port)),
            tls: false,
            user: None,
            password: None,
            database: 0,
        }
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("redis://localhost"), Ok(single("localhost", 6379)));
        assert_eq!(
            parse("rediss://app:p%40ss%2Fw:rd@[::1]:7000/3"),
            Ok(Place {
                tls: true,
                user: Some("app".to_owned()),
                password: Some(Secret::new("p@ss/w:rd")),
                database: 3,
                ..single("::1", 7000)
            })
        );
        assert_eq!(
            parse("redis://:only@host/"),
            Ok(Place {
                password: Some(Secret::new("only")),
                ..single("host", 6379)
            })
        );
        assert_eq!(
            parse("unix://:word@/run/redis.sock?db=2"),
            Ok(Place {
                topology: Topology::Single(Endpoint::Socket(PathBuf::from("/run/redis.sock"))),
                password: Some(Secret::new("word")),
                database: 2,
                ..single("", 0)
            })
        );
        assert_eq!(
            parse("redis+sentinel://a,b:1/mymaster/4"),
            Ok(Place {
                topology: Topology::Sentinel {
                    sentinels: vec![tcp("a", 26379), tcp("b", 1)],
                    service: "mymaster".to_owned(),
                },
                database: 4,
                ..single("", 0)
            })
        );
        assert_eq!(
            parse("rediss+cluster://u:w@a:7001,b:7002"),
            Ok(Place {
                topology: Topology::Cluster(vec![tcp("a", 7001), tcp("b", 7002)]),
                tls: true,
                user: Some("u".to_owned()),
                password: Some(Secret::new("w")),
                database: 0,
            })
        );
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_what_to_write_and_without_the_secret() {
        for (url, expected) in [
            ("hunter2", "redis://[user:password@]host"),
            ("http://u:hunter2@host", "redis://[user:password@]host"),
            ("redis://", "host"),
            ("redis://:hunter2@", "host"),
            ("redis://u:hunter2@host:x", "1 to 65535"),
            ("redis://u:hunter2@host:0", "1 to 65535"),
            ("redis://u:hunter2@host/a", "number"),
            ("redis://u:hunter2@host/70000", "number"),
            ("redis://hunter2@host", "user:password@host"),
            ("redis://u:@host", "empty"),
            ("redis://u:hunter2?@host", "%3F"),
            ("redis://u:hunter2/x@host", "%2F"),
            ("redis://u:hunter2@a,b", "redis+sentinel://"),
            ("redis://u:%ff%fehunter2@a", "UTF-8"),
            ("redis+sentinel://u:hunter2@a", "service-name"),
            ("redis+cluster://u:hunter2@a/1", "no database numbers"),
            ("unix://u:hunter2@host/path", "three slashes"),
            ("unix:///", "whole path"),
            ("unix:///path?pass=hunter2", "?db=1"),
        ] {
            let error = parse(url).unwrap_err().0;
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn prefixes_timeouts_and_files_are_looked_at() {
        let settings = RedisSettings {
            url: Secret::new("redis://host"),
            prefix: "kalends-1_a.b".to_owned(),
            ca_file: None,
            connect_timeout_ms: 1,
            response_timeout_ms: 1,
        };
        assert!(settings.place().is_ok());
        for prefix in ["", "a{b}", "a b", "ä", &"a".repeat(65)] {
            let settings = RedisSettings {
                prefix: prefix.to_owned(),
                ..settings.clone()
            };
            assert!(settings.place().is_err(), "{prefix}");
        }
        let no_time = RedisSettings {
            response_timeout_ms: 0,
            ..settings.clone()
        };
        assert!(no_time.place().unwrap_err().0.contains("0 ms"));
        let no_tls = RedisSettings {
            ca_file: Some(PathBuf::from("ca.pem")),
            ..settings
        };
        assert!(no_tls.place().unwrap_err().0.contains("rediss://"));
    }
}
