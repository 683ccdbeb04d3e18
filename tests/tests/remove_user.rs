//! The last step when all data of a user go: both graphs remove the user's node, and only when nothing speaks against it.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::sync::Arc;

use kalends::accounts::purge;
use kalends::clock::SystemClock;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use kalends_core::time::Timestamp;
use kalends_tests::graph_rows::{attended, calendar, event};
use kalends_tests::neo4j_server::Neo4jServer;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn write(graph: &dyn Graph, name: &str, fence: u64) -> GraphReply {
    let write = GraphWrite::Apply {
        user: user(name),
        fence: LeaseToken(fence),
        calendar: calendar("work"),
        generation: fence,
        upserts: vec![
            attended(event("one", 1), &["cyd@example.com"]),
            event("two", 1),
        ],
        deletions: Vec::new(),
    };
    graph.write(write).await.unwrap()
}

async fn contract(graph: &dyn Graph) {
    let (ada, bob, cyd) = (user("ada"), user("bob"), user("cyd"));
    let remove = |user: UserId, fence| async move {
        graph.remove_user(&user, LeaseToken(fence)).await.unwrap()
    };
    assert!(!remove(ada.clone(), 4).await, "there is none");
    write(graph, "ada", 5).await;
    write(graph, "bob", 5).await;
    assert!(!remove(ada.clone(), 9).await, "a calendar is left");
    let removal = GraphWrite::RemoveCalendar {
        user: ada.clone(),
        fence: LeaseToken(6),
        calendar: CalendarId::new("work").unwrap(),
    };
    graph.write(removal).await.unwrap();
    // Until the node goes, whoever has an older lease is refused.
    assert_eq!(write(graph, "ada", 5).await, GraphReply::Fenced);
    assert!(!remove(ada.clone(), 5).await, "a later lease wrote");
    assert!(remove(ada.clone(), 6).await);
    assert!(!remove(ada.clone(), 6).await);

    // A writer that slept through all of it brings nothing back, whatever it writes, and leaves no trace of the name.
    assert_eq!(write(graph, "ada", 5).await, GraphReply::Fenced);
    let (user, fence, id) = (ada.clone(), LeaseToken(5), calendar("work").id);
    for late in [
        GraphWrite::RemoveCalendar {
            user: user.clone(),
            fence,
            calendar: id.clone(),
        },
        GraphWrite::Sweep {
            user: user.clone(),
            fence,
            calendar: id.clone(),
            generation: 5,
        },
        GraphWrite::Spare {
            user,
            fence,
            calendar: id,
            generation: 5,
            events: vec!["one".to_owned()],
        },
    ] {
        assert_eq!(graph.write(late).await, Ok(GraphReply::Fenced));
    }
    assert!(!remove(ada.clone(), 5).await, "no node was left behind");
    // Nor one whose first write it would have been, of a user who was removed before anything was written.
    assert!(!remove(cyd.clone(), 6).await);
    assert_eq!(write(graph, "cyd", 5).await, GraphReply::Fenced);
    // An older removal takes nothing back of it, and who was there already goes on.
    assert!(!remove(cyd.clone(), 3).await);
    assert_eq!(write(graph, "cyd", 5).await, GraphReply::Fenced);
    assert!(matches!(
        write(graph, "bob", 5).await,
        GraphReply::Written(_)
    ));
    assert!(matches!(
        write(graph, "cyd", 6).await,
        GraphReply::Written(_)
    ));

    // All of it together, and nobody else.
    write(graph, "ada", 7).await;
    let now = Timestamp::from_ms(1);
    assert_eq!(purge(graph, &ada, now, 0).await, Ok(1));
    assert!(
        !remove(ada.clone(), u64::MAX >> 12).await,
        "it took the node along"
    );
    let left = graph.snapshot(&ada).await.unwrap();
    assert!(left.calendars.is_empty() && left.events.is_empty() && left.contacts.is_empty());
    assert_eq!(graph.snapshot(&bob).await.unwrap().events.len(), 2);
    assert_eq!(purge(graph, &ada, now, 0).await, Ok(0), "twice is harmless");

    // A later lease than the purge's is at work: the user is synced again.
    write(graph, "bob", u64::MAX >> 12).await;
    let refused = purge(graph, &bob, now, 0).await.unwrap_err();
    assert!(refused.detail.contains("later lease"), "{refused:?}");
    assert_eq!(graph.snapshot(&bob).await.unwrap().events.len(), 2);
}

#[tokio::test]
async fn the_embedded_graph_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), Arc::new(SystemClock)).unwrap();
    contract(&store).await;
    store.close().await;
}

#[tokio::test]
async fn neo4j_keeps_the_contract() {
    let (_server, graph) = Neo4jServer::shared().await;
    contract(&graph).await;
}
