//! The graph in Neo4j: the real client over real HTTP against the emulated server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kalends::emulate::face::FaceOptions;
use kalends_adapters::neo4j::{Databases, UserDatabases};
use kalends_core::failure::FailureKind;
use kalends_core::graph::params::REMOVE_EVENTS_MAX;
use kalends_core::graph::{EventRow, GraphCounts, GraphReply, GraphWrite, cypher};
use kalends_core::id::UserId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use kalends_sim::neo4j::{Fault, Neo4jEmulator, Properties, ServerError};
use kalends_tests::graph_contract;
use kalends_tests::graph_rows::{attended, calendar, event, exception, series};
use kalends_tests::neo4j_server::{Neo4jServer, ties};
use serde_json::json;

fn user() -> UserId {
    UserId::new("ada").expect("a short name")
}

fn apply(upserts: &[EventRow]) -> GraphWrite {
    GraphWrite::Apply {
        user: user(),
        fence: LeaseToken(1),
        calendar: calendar("primary"),
        generation: 1,
        upserts: upserts.to_vec(),
        deletions: Vec::new(),
    }
}

fn written(upserted: u64) -> Result<GraphReply, kalends_core::failure::Failure> {
    Ok(GraphReply::Written(GraphCounts {
        upserted,
        deleted: 0,
    }))
}

#[tokio::test]
async fn neo4j_keeps_the_contract() {
    let (server, graph) = Neo4jServer::shared().await;
    graph_contract::run(&graph, "contract").await;
    assert_eq!(graph.statements_sent(), server.emulator().statements());
}

#[tokio::test]
async fn it_is_the_same_without_compression() {
    let options = FaceOptions {
        gzip: false,
        ..FaceOptions::default()
    };
    let server = Neo4jServer::start(&["a b/ü"], options).await;
    let graph = server.client("kalends", Databases::Shared("a b/ü".to_owned()));
    assert_eq!(graph.write(apply(&[event("a", 1)])).await, written(1));
    assert_eq!(graph.snapshot(&user()).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_page_of_250_events_is_two_statements_and_the_schema_comes_first() {
    let (server, graph) = Neo4jServer::shared().await;
    let rows: Vec<EventRow> = (0..250)
        .map(|index| attended(event(&format!("e{index}"), 1), &["bob@example.com"]))
        .collect();
    graph.write(apply(&rows)).await.unwrap();
    let schema = cypher::ENSURE_SCHEMA.len() as u64;
    assert_eq!(graph.statements_sent(), schema + 2);
    graph.write(apply(&rows)).await.unwrap();
    assert_eq!(graph.statements_sent(), schema + 4);
    let emulator = server.emulator();
    assert_eq!(emulator.graph("neo4j").unwrap().schema_rules(), 6);
}

#[tokio::test]
async fn exceptions_are_tied_to_their_series_whichever_came_first() {
    let (server, graph) = Neo4jServer::shared().await;
    graph.write(apply(&[exception("s", 1, 1)])).await.unwrap();
    graph.write(apply(&[series("s", 1)])).await.unwrap();
    graph.write(apply(&[exception("s", 2, 1)])).await.unwrap();
    let both = [exception("t", 1, 1), series("t", 1)];
    graph.write(apply(&both)).await.unwrap();
    let tie = |from: &str, to: &str| (format!("ada|primary|{from}"), format!("ada|primary|{to}"));
    let emulator = server.emulator();
    let found = emulator.graph("neo4j").unwrap();
    assert_eq!(
        ties(found, "EXCEPTION_OF"),
        [tie("s_1", "s"), tie("s_2", "s"), tie("t_1", "t")]
    );
    assert_eq!(ties(found, "HAS_EVENT").len(), 5);
    assert_eq!(
        ties(found, "HAS_CALENDAR"),
        [("ada".to_owned(), "ada|primary".to_owned())]
    );
}

#[tokio::test]
async fn nodes_have_the_names_that_readers_know() {
    let (server, graph) = Neo4jServer::shared().await;
    let row = EventRow {
        description: Some("d".to_owned()),
        location: Some("l".to_owned()),
        ..attended(exception("s", 1, 1), &["bob@example.com"])
    };
    graph.write(apply(&[row])).await.unwrap();
    let emulator = server.emulator();
    let found = emulator.graph("neo4j").unwrap();
    let names = |label: &str| -> Vec<&str> {
        let (_, node) = found.nodes().find(|(_, node)| node.label == label).unwrap();
        node.properties.keys().map(String::as_str).collect()
    };
    for name in [
        "id",
        "name",
        "startTime",
        "endTime",
        "location",
        "description",
        "createdAt",
        "updatedAt",
        "google_event_id",
        "source",
        "recurring_event_id",
    ] {
        assert!(names("Event").contains(&name), "{name}");
    }
    for name in ["id", "name", "email"] {
        assert!(names("Contact").contains(&name), "{name}");
    }
    let attended = found.relationships().find(|tie| tie.kind == "ATTENDED_BY");
    assert_eq!(attended.unwrap().properties["response_status"], "accepted");
}

#[tokio::test]
async fn what_others_put_into_the_graph_stays() {
    let (server, graph) = Neo4jServer::shared().await;
    let properties = |key: &str| {
        Properties::from([
            ("uid".to_owned(), json!(format!("ada|{key}"))),
            ("key".to_owned(), json!(key)),
            ("user_id".to_owned(), json!("ada")),
            ("organization".to_owned(), json!("Analytical Engines")),
        ])
    };
    let theirs = {
        let mut emulator = server.emulator();
        let found = emulator.graph_mut("neo4j").unwrap();
        let theirs = found
            .create_node("Contact", properties("bob@example.com"))
            .unwrap();
        found.commit();
        theirs
    };
    let row = attended(event("a", 1), &["bob@example.com"]);
    graph
        .write(apply(std::slice::from_ref(&row)))
        .await
        .unwrap();
    {
        let mut emulator = server.emulator();
        let found = emulator.graph_mut("neo4j").unwrap();
        let ours = found.find("Event", "uid", &json!("ada|primary|a"))[0];
        found.set(ours, "rating", json!(5)).unwrap();
        found.commit();
    }
    let newer = EventRow { version: 2, ..row };
    graph.write(apply(&[newer])).await.unwrap();
    let nobody = event("a", 3);
    graph.write(apply(&[nobody])).await.unwrap();
    let emulator = server.emulator();
    let found = emulator.graph("neo4j").unwrap();
    assert_eq!(found.get(theirs, "organization"), "Analytical Engines");
    let ours = found.find("Event", "uid", &json!("ada|primary|a"))[0];
    assert_eq!(*found.get(ours, "rating"), json!(5));
}

#[tokio::test]
async fn each_trouble_is_told_apart_and_the_next_attempt_mends_it() {
    let (server, graph) = Neo4jServer::shared().await;
    graph.write(apply(&[])).await.unwrap();
    let transient = FailureKind::Transient {
        retry_after_ms: None,
    };
    let disk_full = ServerError::new("Neo.DatabaseError.General.UnknownError", "no space left");
    let unheard_of = ServerError::new("Neo.ClientError.Brand.New", "?");
    let mut version = 1;
    for (fault, expected) in [
        (Fault::deadlock(), transient.clone()),
        (Fault::leader_switch(), transient.clone()),
        (Fault::not_a_leader(), transient.clone()),
        (Fault::memory_limit(), FailureKind::TooLarge),
        (Fault::wrong_password(), FailureKind::Misconfigured),
        (Fault::Refused(500, disk_full), transient.clone()),
        (Fault::FailedAfterData(unheard_of), FailureKind::Permanent),
        (Fault::Html(503), transient.clone()),
        (Fault::Html(404), transient.clone()),
        (Fault::CutBody, transient.clone()),
        (Fault::CutConnection, transient.clone()),
        (Fault::LostBefore, transient.clone()),
        (Fault::LostAfter, transient.clone()),
    ] {
        for statement in 0..2 {
            version += 1;
            let email = format!("v{version}@example.com");
            let row = attended(event("a", version), &[&email]);
            {
                let mut emulator = server.emulator();
                emulator.let_pass(statement);
                emulator.inject(fault.clone());
            }
            let failed = graph.write(apply(std::slice::from_ref(&row))).await;
            let failure = failed.expect_err("the fault befell this write");
            assert_eq!(failure.kind, expected, "{fault:?}: {failure}");
            assert!(!failure.detail.contains("kalends@"), "{failure}");
            graph
                .write(apply(std::slice::from_ref(&row)))
                .await
                .unwrap();
            let snapshot = graph.snapshot(&user()).await.unwrap();
            assert_eq!(snapshot.events[0].row, row, "{fault:?}");
            assert_eq!(snapshot.contacts.len(), 2, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn contacts_that_a_crash_left_behind_go_with_the_next_sweep() {
    let (server, graph) = Neo4jServer::shared().await;
    let row = attended(event("a", 1), &["bob@example.com"]);
    graph.write(apply(&[row])).await.unwrap();
    {
        // The event vanishes by another's hand, its contacts stay.
        let mut emulator = server.emulator();
        let found = emulator.graph_mut("neo4j").unwrap();
        let event = found.find("Event", "uid", &json!("ada|primary|a"))[0];
        found.detach_delete(event);
        found.commit();
    }
    assert_eq!(graph.snapshot(&user()).await.unwrap().contacts.len(), 2);
    let sweep = GraphWrite::Sweep {
        user: user(),
        fence: LeaseToken(1),
        calendar: calendar("primary").id,
        generation: 1,
    };
    assert_eq!(graph.write(sweep).await, written(0));
    assert!(graph.snapshot(&user()).await.unwrap().contacts.is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_the_operators_to_mend_and_is_never_shown() {
    let server = Neo4jServer::start(&["neo4j"], FaceOptions::default()).await;
    let graph = server.client("hunter2", Databases::Shared("neo4j".to_owned()));
    // Bad logins, then the server's pause for too many of them.
    for _ in 0..5 {
        let failure = graph.write(apply(&[])).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Misconfigured);
        assert!(!format!("{failure:?} {graph:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = Neo4jServer {
        emulator: Arc::new(Mutex::new(Neo4jEmulator::new(Default::default()))),
        url,
    };
    let graph = server.client("kalends", Databases::Shared("neo4j".to_owned()));
    let failure = graph.write(apply(&[])).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Transient { .. }));
    assert!(failure.detail.contains("paused"), "{failure}");
}

#[tokio::test]
async fn a_missing_shared_database_is_a_wrong_set_up() {
    let server = Neo4jServer::start(&["neo4j"], FaceOptions::default()).await;
    let graph = server.client("kalends", Databases::Shared("other".to_owned()));
    let failure = graph.write(apply(&[])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Misconfigured);
    server.emulator().create_database("other");
    assert_eq!(graph.write(apply(&[])).await, written(0));
    assert!(graph.probe("other").await.unwrap().contains("emulat"));
}

struct Directory(Mutex<BTreeMap<String, String>>);

impl UserDatabases for Directory {
    fn database_of(&self, user: &UserId) -> Option<String> {
        self.0
            .lock()
            .expect("no test panics with it")
            .get(user.as_str())
            .cloned()
    }
}

#[tokio::test]
async fn a_user_without_a_database_is_not_ready_and_becomes_so() {
    let server = Neo4jServer::start(&["neo4j"], FaceOptions::default()).await;
    let directory = Arc::new(Directory(Mutex::default()));
    let graph = server.client("kalends", Databases::PerUser(directory.clone()));
    let write = || apply(&[event("a", 1)]);
    assert_eq!(
        graph.write(write()).await.unwrap_err().kind,
        FailureKind::NotReady
    );
    assert_eq!(graph.statements_sent(), 0);

    // Named, but not made yet; then made; then lost and made anew: the schema is ensured each time.
    directory
        .0
        .lock()
        .unwrap()
        .insert("ada".to_owned(), "ada-db".to_owned());
    for _ in 0..2 {
        assert_eq!(
            graph.write(write()).await.unwrap_err().kind,
            FailureKind::NotReady
        );
        server.emulator().create_database("ada-db");
        assert_eq!(graph.write(write()).await, written(1));
        assert_eq!(server.emulator().graph("ada-db").unwrap().schema_rules(), 6);
        server.emulator().drop_database("ada-db");
    }
    assert_eq!(
        graph.snapshot(&user()).await.unwrap_err().kind,
        FailureKind::NotReady
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_to_be_halved() {
    let options = FaceOptions {
        body_bytes_max: 10_000,
        ..FaceOptions::default()
    };
    let server = Neo4jServer::start(&["neo4j"], options).await;
    let graph = server.client("kalends", Databases::Shared("neo4j".to_owned()));
    let rows: Vec<EventRow> = (0..50)
        .map(|index| event(&format!("e{index}"), 1))
        .collect();
    let failure = graph.write(apply(&rows)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
    let huge = EventRow {
        description: Some("x".repeat(40 * 1024 * 1024)),
        ..event("a", 1)
    };
    let failure = graph.write(apply(&[huge])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
}

#[tokio::test]
async fn a_large_graph_is_read_page_by_page() {
    let (_server, graph) = Neo4jServer::shared().await;
    // More than one statement removes, and more than two pages hold.
    let events = REMOVE_EVENTS_MAX + 203;
    let rows: Vec<EventRow> = (0..events)
        .map(|index| {
            let email = format!("p{index}@example.com");
            attended(event(&format!("e{index}"), 1), &[&email])
        })
        .collect();
    graph.write(apply(&rows)).await.unwrap();
    let snapshot = graph.snapshot(&user()).await.unwrap();
    assert_eq!(snapshot.events.len() as u64, events);
    assert_eq!(snapshot.contacts.len() as u64, events + 1);
    let gone = GraphWrite::RemoveCalendar {
        user: user(),
        fence: LeaseToken(1),
        calendar: calendar("primary").id,
    };
    let counts = GraphCounts {
        upserted: 0,
        deleted: events,
    };
    assert_eq!(graph.write(gone).await, Ok(GraphReply::Written(counts)));
    assert_eq!(graph.snapshot(&user()).await.unwrap(), Default::default());
}
