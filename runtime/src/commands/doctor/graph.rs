//! The graph: Neo4j's version, its constraints, and whether this user may write.

use std::sync::Arc;

use kalends_adapters::neo4j::{Databases, Neo4jGraph, Neo4jSettings};
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Graph as _;
use kalends_core::queue::command::LeaseToken;

use super::Findings;
use crate::accounts::Register;
use crate::config::{Config, GraphConfig, GraphDatabases, Neo4jConfig};
use crate::wiring::fresh_seed;

const ROOM: &str = "graph";
/// The oldest Neo4j whose HTTP Query API suffices.
const VERSION_MIN: (u64, u64) = (5, 25);
/// What the name of a self-managed server or of Aura begins with.
const KERNEL: &str = "Neo4j Kernel ";

pub(super) async fn look(config: &Config, register: &Register, findings: &mut Findings) {
    let neo4j = match &config.graph {
        GraphConfig::Embedded => {
            findings.good(ROOM, "in the store's file");
            return;
        }
        GraphConfig::Neo4j(neo4j) => neo4j,
    };
    let Some(database) = database(config, neo4j, register, findings).await else {
        return;
    };
    let settings = Neo4jSettings {
        url: neo4j.url.clone(),
        user: neo4j.user.clone(),
        password: neo4j.password.clone(),
        databases: Databases::Shared(database.clone()),
        timeout_ms: neo4j.request_timeout_ms,
    };
    let graph = match Neo4jGraph::new(settings) {
        Ok(graph) => Arc::new(graph),
        Err(error) => {
            findings.wrong(ROOM, format!("graph.{error}"), "");
            return;
        }
    };
    match graph.probe(&database).await {
        Ok(server) => version(&server, &database, neo4j, findings),
        Err(failure) => {
            tell("Neo4j cannot be asked", &failure, findings);
            return;
        }
    }
    write(&graph, &database, findings).await;
}

/// The database that is looked at: the shared one, or the first user's.
async fn database(
    config: &Config,
    neo4j: &Neo4jConfig,
    register: &Register,
    findings: &mut Findings,
) -> Option<String> {
    let GraphDatabases::Shared(name) = &neo4j.databases else {
        let configured = config
            .users
            .iter()
            .find_map(|user| user.graph_database.clone());
        let added = register.all().await.unwrap_or_default();
        let added = added
            .into_iter()
            .find_map(|stored| stored.account.graph_database);
        let found = configured.or(added);
        if found.is_none() {
            findings.unwise(
                ROOM,
                "each user has a database, and no user has one yet: nothing could be tried",
                "give a user graph_database = \"...\", or `kalends users add USER --graph-database NAME`",
            );
        }
        return found;
    };
    Some(name.clone())
}

fn version(server: &str, database: &str, neo4j: &Neo4jConfig, findings: &mut Findings) {
    let told = format!("{server} at {}, database {database}", neo4j.url);
    let number = server.strip_prefix(KERNEL).unwrap_or_default();
    let mut parts = number.split(['.', ' ', '-']).map(str::parse::<u64>);
    let found = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    match found {
        Some(found) if found < VERSION_MIN => {
            let remedy = format!(
                "Neo4j {}.{} or newer is needed",
                VERSION_MIN.0, VERSION_MIN.1
            );
            findings.wrong(ROOM, told, &remedy);
        }
        _ => findings.good(ROOM, told),
    }
}

/// Writes a node that is nobody's and removes it. Before the first write the adapter makes the constraints, or finds them.
async fn write(graph: &Neo4jGraph, database: &str, findings: &mut Findings) {
    let user = UserId::new(&format!("kalends-doctor-{:016x}", fresh_seed()));
    let user = user.expect("it is a name");
    // The oldest there is: its removal holds up nobody's first write. Where somebody was removed before, the statement makes
    // the node and takes it back at once, as that of any older lease.
    let fence = LeaseToken(1);
    let write = GraphWrite::RemoveCalendar {
        user: user.clone(),
        fence,
        calendar: CalendarId::new("none").expect("it is a name"),
    };
    match graph.write(write).await {
        Ok(GraphReply::Written(_)) => {}
        Ok(GraphReply::Fenced) => {
            findings.good(
                ROOM,
                "the constraints and indexes are there, and a node was written and taken back",
            );
            return;
        }
        Err(failure) => {
            tell("nothing can be written", &failure, findings);
            return;
        }
    }
    findings.good(
        ROOM,
        "the constraints and indexes are there, and a node was written",
    );
    match graph.remove_user(&user, fence).await {
        Ok(true) => findings.good(ROOM, "that node was removed"),
        Ok(false) => {
            let what = format!("the node User {{uid: {:?}}} is gone already", user.as_str());
            findings.unwise(
                ROOM,
                what,
                "look whether another program removes nodes in this database",
            );
        }
        Err(failure) => {
            let what = format!(
                "the node User {{uid: {:?}}} stays in {database}",
                user.as_str()
            );
            findings.wrong(
                ROOM,
                format!("{what}: {}", failure.detail),
                "give the Neo4j user leave to delete nodes",
            );
        }
    }
}

fn tell(what: &str, failure: &Failure, findings: &mut Findings) {
    let what = format!("{what}: {}", failure.detail);
    match failure.kind {
        FailureKind::Transient { .. } => {
            findings.wrong(ROOM, what, "start that Neo4j, or correct graph.url; its HTTP port is meant, not the one of Bolt");
        }
        // The detail says what to do.
        _ => findings.wrong(ROOM, what, ""),
    }
}

#[cfg(test)]
mod tests {
    use kalends_adapters::secret::Secret;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn an_old_neo4j_is_wrong_and_the_needed_one_is_named() {
        let neo4j = Neo4jConfig {
            url: "http://127.0.0.1:7474".to_owned(),
            user: "neo4j".to_owned(),
            password: Secret::new("planted"),
            databases: GraphDatabases::Shared("neo4j".to_owned()),
            request_timeout_ms: 1_000,
        };
        for (number, verdict) in [
            ("4.4.30 (community)", Verdict::Wrong),
            ("5.24.2 (enterprise)", Verdict::Wrong),
            ("5.25.0 (community)", Verdict::Good),
            ("5.26-aura (enterprise)", Verdict::Good),
            ("2026.09.0 (enterprise)", Verdict::Good),
        ] {
            let mut findings = Findings::default();
            version(&format!("{KERNEL}{number}"), "neo4j", &neo4j, &mut findings);
            let [finding] = &findings.0[..] else {
                panic!("{:?}", findings.0);
            };
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.what.contains(number), "{finding:?}");
            let remedy = finding.remedy.as_deref().unwrap_or_default();
            let is_named = remedy.contains("Neo4j 5.25 or newer is needed");
            assert_eq!(is_named, verdict == Verdict::Wrong, "{finding:?}");
        }
    }
}
