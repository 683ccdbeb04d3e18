//! Where the Redis is, and under which names this fleet's keys stand in it.

use crate::secret::Secret;

/// How a [`RedisStore`](super::RedisStore) reaches its server.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// The address, with user, password and database number, so a secret. One of
    /// `redis://[user:password@]host[:port][/database]` (and `rediss://` for TLS), `unix:///path/to/socket`,
    /// `redis+sentinel://[user:password@]host:port,host:port/service-name[/database]`,
    /// `redis+cluster://[user:password@]host:port,host:port` (with `rediss+` for TLS).
    pub url: Secret,
    /// What the names of all keys begin with: 1 to 64 letters, digits, `-`, `_` or `.`. Two environments that share a
    /// server must have different ones.
    pub prefix: String,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long one answer may take, in milliseconds.
    pub response_timeout_ms: u64,
}
