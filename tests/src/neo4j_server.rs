//! An emulated Neo4j server on a port of its own, and a real client for it.

use std::sync::{Arc, Mutex, MutexGuard};

use kalends::emulate::face::{FaceOptions, serve};
use kalends_adapters::neo4j::{Databases, Neo4jGraph, Neo4jSettings};
use kalends_adapters::secret::Secret;
use kalends_core::time::{Clock, Timestamp};
use kalends_sim::neo4j::{Neo4jEmulator, Neo4jEmulatorSettings, NodeId, PropertyGraph};

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}

/// The server, for as long as the test's runtime lives. Its password is `kalends` unless said otherwise.
pub struct Neo4jServer {
    /// The emulator behind the socket.
    pub emulator: Arc<Mutex<Neo4jEmulator>>,
    /// Where it listens.
    pub url: String,
}

impl Neo4jServer {
    /// Starts a server with these databases.
    ///
    /// # Panics
    /// If this machine has no port to give.
    pub async fn start(databases: &[&str], options: FaceOptions) -> Self {
        let password = Neo4jEmulatorSettings::default().password;
        Neo4jServer::start_with(&password, databases, options).await
    }

    /// As [`Neo4jServer::start`], with this password.
    ///
    /// # Panics
    /// If this machine has no port to give.
    pub async fn start_with(password: &str, databases: &[&str], options: FaceOptions) -> Self {
        let emulator = Arc::new(Mutex::new(Neo4jEmulator::new(Neo4jEmulatorSettings {
            password: password.to_owned(),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            ..Neo4jEmulatorSettings::default()
        })));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("this machine has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        tokio::spawn(serve(
            listener,
            Arc::clone(&emulator),
            Arc::new(Still),
            options,
            std::future::pending(),
        ));
        Neo4jServer {
            emulator,
            url: format!("http://{address}"),
        }
    }

    /// A server with one database, and a client that keeps everybody there.
    pub async fn shared() -> (Self, Neo4jGraph) {
        let server = Neo4jServer::start(&["neo4j"], FaceOptions::default()).await;
        let graph = server.client("kalends", Databases::Shared("neo4j".to_owned()));
        (server, graph)
    }

    /// A client for this server.
    ///
    /// # Panics
    /// Never: the address is good.
    #[must_use]
    pub fn client(&self, password: &str, databases: Databases) -> Neo4jGraph {
        Neo4jGraph::new(Neo4jSettings {
            url: self.url.clone(),
            user: "neo4j".to_owned(),
            password: Secret::new(password.to_owned()),
            databases,
            timeout_ms: 10_000,
        })
        .expect("a loopback address is accepted")
    }

    /// The emulator, to look at or to inject faults into.
    ///
    /// # Panics
    /// If a request made it panic.
    pub fn emulator(&self) -> MutexGuard<'_, Neo4jEmulator> {
        self.emulator.lock().expect("the emulator does not panic")
    }
}

/// The relationships of one type, by the uids of their ends, sorted.
#[must_use]
pub fn ties(graph: &PropertyGraph, kind: &str) -> Vec<(String, String)> {
    let uid = |node: NodeId| {
        graph
            .get(node, "uid")
            .as_str()
            .unwrap_or("no uid")
            .to_owned()
    };
    let mut ties: Vec<(String, String)> = graph
        .relationships()
        .filter(|tie| tie.kind == kind)
        .map(|tie| (uid(tie.from), uid(tie.to)))
        .collect();
    ties.sort();
    ties
}
