//! Finding the server that holds the keys, and opening one connection to it.
//!
//! One idea serves all three topologies: whatever the address names, there is exactly one server that may write these
//! keys just now, and it is looked for anew at each connecting. A single server is itself. Sentinels are all asked at
//! once who the master is, and of those they name the first that says itself that it is one (`ROLE`) is taken: a
//! sentinel that was cut off may still name the old one. In a Cluster all keys of a queue share one hash tag, so one
//! slot, so one node: it is found by reading one of the keys, which any other node answers with the owner's address
//! (`MOVED`). So there is one kind of connection, and nothing is ever sent twice behind the caller's back.
//!
//! Connections speak RESP3, for only then does the library tell of a loss when it happens, not at the next call.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError,
    TlsCertificates,
};
use tokio::task::JoinSet;

use super::super::BadAddress;
use super::super::failure::{CallError, shown};
use super::super::settings::{Endpoint, Place, RedisSettings, Topology};

/// How often a Cluster may say that the keys are elsewhere before it is not believed any more.
const REDIRECTS_MAX: usize = 4;

/// After how long without traffic the system asks whether the other side is still there, and how often then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

/// The most calls that wait to be written to one connection; more wait in their callers.
const WAITING_TO_BE_WRITTEN_MAX: usize = 1_024;

/// One connection. Clones share it.
#[derive(Clone)]
pub(in super::super) struct Connection {
    multiplexed: MultiplexedConnection,
    lost: Arc<AtomicBool>,
    /// The server, for people: `host:port`, without secrets.
    pub(in super::super) address: String,
}

impl Connection {
    /// Whether it is known to be of no more use.
    pub(in super::super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Says that it is of no more use.
    pub(in super::super) fn give_up(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// The library's own connection, to send something.
    pub(in super::super) fn handle(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }

    /// Sends one command.
    pub(in super::super) async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<T, RedisError> {
        command.query_async(&mut self.handle()).await
    }
}

/// Called with what a server sends unasked.
pub(in super::super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// How to connect. Has no state: each connecting begins from the address.
#[derive(Clone)]
pub(in super::super) struct Dialer {
    place: Place,
    ca_file: Option<PathBuf>,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// A key that stands for all in a Cluster.
    probe_key: String,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Dialer")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Dialer {
    /// Reads the settings. `probe_key` is any key that has the hash tag of all.
    ///
    /// # Errors
    /// If the settings cannot be understood.
    pub(in super::super) fn new(
        settings: &RedisSettings,
        probe_key: String,
    ) -> Result<Dialer, BadAddress> {
        Ok(Dialer {
            place: settings.place()?,
            ca_file: settings.ca_file.clone(),
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
            response_timeout: Duration::from_millis(settings.response_timeout_ms),
            probe_key,
        })
    }

    /// What the address names, for people, without secrets.
    pub(in super::super) fn address(&self) -> String {
        let list = |endpoints: &[Endpoint]| {
            endpoints
                .iter()
                .map(Endpoint::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let place = match &self.place.topology {
            Topology::Single(endpoint) => endpoint.to_string(),
            Topology::Sentinel { sentinels, service } => format!("{} ({service})", list(sentinels)),
            Topology::Cluster(seeds) => list(seeds),
        };
        self.with_database(place)
    }

    /// Whether somebody else decides which server is the master, so that a wrong one is soon another.
    pub(in super::super) fn follows_failover(&self) -> bool {
        !matches!(self.place.topology, Topology::Single(_))
    }

    /// Whether the address is one of a Cluster.
    pub(in super::super) fn is_cluster(&self) -> bool {
        matches!(self.place.topology, Topology::Cluster(_))
    }

    /// Finds the server that holds the keys and connects to it. Takes a few connect timeouts at most.
    ///
    /// # Errors
    /// If it cannot be found or does not let us in.
    pub(in super::super) async fn connect(
        &self,
        on_push: &OnPush,
    ) -> Result<Connection, CallError> {
        match &self.place.topology {
            Topology::Single(endpoint) => self.open(endpoint, on_push).await,
            Topology::Sentinel { sentinels, service } => {
                let ask =
                    |dialer: Dialer, sentinel| async move { dialer.ask_sentinel(&sentinel).await };
                self.first_of(sentinels, ask, on_push)
                    .await
                    .map_err(|error| CallError {
                        detail: format!(
                            "no master `{service}` is found by its sentinels: {}",
                            error.detail
                        ),
                        ..error
                    })
            }
            Topology::Cluster(seeds) => {
                let itself = |_, seed| async move { Ok(seed) };
                self.first_of(seeds, itself, on_push).await
            }
        }
    }

    /// Asks all `guides` at once where the server is; the first that is named and proves to be it is taken.
    async fn first_of<Asked>(
        &self,
        guides: &[Endpoint],
        ask: impl Fn(Dialer, Endpoint) -> Asked,
        on_push: &OnPush,
    ) -> Result<Connection, CallError>
    where
        Asked: Future<Output = Result<Endpoint, CallError>> + Send + 'static,
    {
        let mut attempts = JoinSet::new();
        for guide in guides {
            let named = ask(self.clone(), guide.clone());
            let (dialer, on_push) = (self.clone(), Arc::clone(on_push));
            attempts.spawn(async move { dialer.follow(named.await?, &on_push).await });
        }
        let mut failure: Option<CallError> = None;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(connection)) => return Ok(connection),
                // An answer that an operator must act upon says more than that another host is away.
                Ok(Err(error)) if error.is_refusal || failure.is_none() => failure = Some(error),
                Ok(Err(_)) => {}
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            }
        }
        Err(failure
            .unwrap_or_else(|| CallError::away(format!("nobody answers at {}", self.address()))))
    }

    /// Connects to `endpoint` and makes sure that it is the one: a master, and in a Cluster the keys' owner.
    async fn follow(
        &self,
        mut endpoint: Endpoint,
        on_push: &OnPush,
    ) -> Result<Connection, CallError> {
        for _ in 0..=REDIRECTS_MAX {
            let connection = self.open(&endpoint, on_push).await?;
            let proof: Result<redis::Value, RedisError> = if self.is_cluster() {
                connection
                    .ask(redis::cmd("EXISTS").arg(&self.probe_key))
                    .await
            } else {
                connection.ask(&redis::cmd("ROLE")).await
            };
            match proof {
                Ok(redis::Value::Array(role)) if !is_master(&role) => {
                    return Err(CallError::away(format!(
                        "Redis at {} is named as the master but is none (yet): a failover may be going on",
                        connection.address
                    )));
                }
                Ok(_) => return Ok(connection),
                Err(error) => match error.redirect_node() {
                    Some((address, _)) => endpoint = redirected(address, &endpoint)?,
                    // Whoever may not ask for the role learns it by the check that follows.
                    None if error.code() == Some("NOPERM") => return Ok(connection),
                    None => return Err(CallError::new(&error, &connection.address)),
                },
            }
        }
        Err(CallError::away(format!(
            "the Redis Cluster at {} sends from node to node without end: see `redis-cli --cluster check`",
            self.address()
        )))
    }

    /// Asks one sentinel for the master's address.
    async fn ask_sentinel(&self, sentinel: &Endpoint) -> Result<Endpoint, CallError> {
        let Topology::Sentinel { service, .. } = &self.place.topology else {
            panic!("only an address with sentinels has sentinels to ask");
        };
        let question = || {
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
            command
        };
        let nothing: OnPush = Arc::new(|_| {});
        // A sentinel often has no password though its master has one: it is told ours only if it wants one.
        let answer: Result<Option<(String, u16)>, CallError> =
            match self.open_as(sentinel, None, &nothing).await {
                Ok(connection) => connection
                    .ask(&question())
                    .await
                    .map_err(|error| CallError::new(&error, &connection.address)),
                Err(error) if error.code.as_deref() == Some("NOAUTH") => {
                    let connection = self
                        .open_as(sentinel, Some(self.credentials(0)), &nothing)
                        .await?;
                    connection
                        .ask(&question())
                        .await
                        .map_err(|error| CallError::new(&error, &connection.address))
                }
                Err(error) => Err(error),
            };
        match answer? {
            Some((host, port)) => Ok(Endpoint::Tcp { host, port }),
            None => Err(CallError::refused(format!(
                "the sentinel at {sentinel} knows no master of this name: correct the service name at the address's end \
                 (see `SENTINEL MASTERS`)"
            ))),
        }
    }

    async fn open(&self, endpoint: &Endpoint, on_push: &OnPush) -> Result<Connection, CallError> {
        self.open_as(
            endpoint,
            Some(self.credentials(self.place.database)),
            on_push,
        )
        .await
    }

    /// Who we are, and which database is ours.
    fn credentials(&self, database: u16) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_db(i64::from(database));
        if let Some(user) = &self.place.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.place.password {
            info = info.set_password(password.expose());
        }
        info
    }

    async fn open_as(
        &self,
        endpoint: &Endpoint,
        credentials: Option<RedisConnectionInfo>,
        on_push: &OnPush,
    ) -> Result<Connection, CallError> {
        let address = self.with_database(endpoint.to_string());
        let client = self.client(endpoint, credentials.unwrap_or_default(), &address)?;
        let lost = Arc::new(AtomicBool::new(false));
        let pushed = {
            let (lost, on_push) = (Arc::clone(&lost), Arc::clone(on_push));
            move |push: PushInfo| -> Result<(), redis::aio::SendError> {
                if push.kind == PushKind::Disconnection {
                    lost.store(true, Ordering::Release);
                }
                on_push(push);
                Ok(())
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(WAITING_TO_BE_WRITTEN_MAX)
            .set_push_sender(pushed);
        let multiplexed = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| CallError::new(&error, &address))?;
        Ok(Connection {
            multiplexed,
            lost,
            address,
        })
    }

    fn client(
        &self,
        endpoint: &Endpoint,
        credentials: RedisConnectionInfo,
        address: &str,
    ) -> Result<Client, CallError> {
        let place = match endpoint {
            Endpoint::Tcp { host, port } if self.place.tls => {
                choose_cryptography();
                ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                }
            }
            Endpoint::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
            Endpoint::Socket(path) => ConnectionAddr::Unix(path.clone()),
        };
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY);
        let explain = |error: RedisError| CallError::new(&error, address);
        let info: ConnectionInfo = place
            .into_connection_info()
            .map_err(explain)?
            .set_redis_settings(
                credentials
                    .set_protocol(ProtocolVersion::RESP3)
                    .set_lib_name("kalends", env!("CARGO_PKG_VERSION")),
            )
            .set_tcp_settings(
                TcpSettings::default()
                    .set_nodelay(true)
                    .set_keepalive(keepalive),
            );
        let Some(ca_file) = &self.ca_file else {
            return Client::open(info).map_err(explain);
        };
        // Read each time, so that a renewed file is used without a restart.
        let unreadable = |reason: &str| {
            CallError::refused(format!(
                "the CA file {} for Redis at {address} cannot be used ({}): it must hold certificates in PEM form",
                ca_file.display(),
                shown(reason, 200)
            ))
        };
        let root_cert = std::fs::read(ca_file).map_err(|error| unreadable(&error.to_string()))?;
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(root_cert),
        };
        Client::build_with_tls(info, certificates).map_err(|error| unreadable(&error.to_string()))
    }

    fn with_database(&self, place: String) -> String {
        match self.place.database {
            0 => place,
            database => format!("{place}/{database}"),
        }
    }
}

/// Makes sure that rustls has a process-wide provider of cryptography. The Redis library lets rustls guess it and panics
/// where a program was built with two; this is the one that our HTTP client falls back on. Who chose before us is left.
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails only if another thread was first, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// Whether this answer to `ROLE` is a master's.
fn is_master(role: &[redis::Value]) -> bool {
    role.first()
        .is_some_and(|name| String::from_redis_value_ref(name).is_ok_and(|name| name == "master"))
}

/// The endpoint that a Cluster's `MOVED` names: `host:port`, or `:port` for another port of the same host.
fn redirected(address: &str, from: &Endpoint) -> Result<Endpoint, CallError> {
    let named = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match (named, from) {
        (Some((host, port)), Endpoint::Tcp { host: same, .. }) => Ok(Endpoint::Tcp {
            host: if host.is_empty() || host == "?" {
                same.clone()
            } else {
                host.to_owned()
            },
            port,
        }),
        _ => Err(CallError::away(format!(
            "the Redis Cluster node at {from} names no address of the node that has the keys"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_a_host_or_keeps_it() {
        let from = Endpoint::Tcp {
            host: "a".to_owned(),
            port: 1,
        };
        let to = |address| redirected(address, &from).map(|endpoint| endpoint.to_string());
        assert_eq!(to("b:2"), Ok("b:2".to_owned()));
        assert_eq!(to(":2"), Ok("a:2".to_owned()));
        assert_eq!(to("?:2"), Ok("a:2".to_owned()));
        assert_eq!(to("::1:2"), Ok("[::1]:2".to_owned()));
        assert!(to("b").is_err() && to("b:x").is_err());
    }
}
