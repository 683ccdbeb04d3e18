//! Under which host names this process answers.
//!
//! A web page elsewhere can have its own name point to this machine and then read what is served here as its own (DNS
//! rebinding). It cannot choose the name in `Host`, so a request under a name that was not configured is refused.

use std::net::IpAddr;

/// The host names that are served.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    /// In small letters.
    configured: Vec<String>,
    /// Any address as a name, not only those of this machine itself: nobody can have another name point to it, and probes
    /// and scrapers ask by address.
    any_address: bool,
}

impl Hosts {
    pub(super) fn new(configured: Vec<String>, is_loopback: bool) -> Self {
        Hosts {
            configured,
            any_address: !is_loopback,
        }
    }

    /// Whether `host`, as a `Host` header or an address has it, with or without a port, is served.
    pub(super) fn is_served(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let name = name.to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        match address.parse::<IpAddr>() {
            Ok(address) if address.is_ipv6() != name.starts_with('[') => false,
            Ok(address) => address.is_loopback() || self.any_address,
            Err(_) => name == "localhost" || self.configured.contains(&name),
        }
    }
}

/// The name without its port; `None` if that is no port.
fn without_port(host: &str) -> Option<&str> {
    let name_end = match host.find(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, rest) = host.split_at(name_end);
    let port = match rest.strip_prefix(':') {
        Some(port) => port,
        None if rest.is_empty() => return Some(name),
        None => return None,
    };
    let is_port = port.is_empty()
        || port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_this_machine_only_its_own_names_and_configured_ones() {
        let hosts = Hosts::new(vec!["kalends.example.com".to_owned()], true);
        for served in [
            "127.0.0.1",
            "127.0.0.1:7878",
            "127.8.9.10:1",
            "LOCALHOST:1",
            "localhost:",
            "[::1]:65535",
            "Kalends.Example.com:443",
        ] {
            assert!(hosts.is_served(served), "{served}");
        }
        for refused in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:7878",
            "kalends.example.com.evil.example",
            "localhost:80x",
            "localhost:+80",
            "localhost:80:80",
            "[::1]evil",
            "::1",
            "[127.0.0.1]",
            "127.0.0.1@evil",
            "192.0.2.1",
            "",
        ] {
            assert!(!hosts.is_served(refused), "{refused}");
        }
    }

    #[test]
    fn elsewhere_an_address_is_a_name_of_its_own() {
        let hosts = Hosts::new(Vec::new(), false);
        assert!(hosts.is_served("10.1.2.3:7878"));
        assert!(hosts.is_served("[2001:db8::1]:7878"));
        assert!(!hosts.is_served("evil.example:7878"));
        assert!(!hosts.is_served("10.1.2.3.evil.example"));
    }
}
