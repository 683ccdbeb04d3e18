//! Neo4j's password stays with the server that it is for, and no answer holds anybody up.

use std::time::Duration;

use kalends_adapters::neo4j::{ANSWER_BYTES_MAX, Databases, Neo4jGraph, Neo4jSettings};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{Failure, FailureKind};

use super::scripted::{Reply, Request, Server, answer};

const PASSWORD: &str = "planted-graph-password";
/// `neo4j:planted-graph-password` in Base64, as HTTP Basic sends it (RFC 7617), in small letters.
const BASIC: &str = "authorization: basic bmvvngo6cgxhbnrlzc1ncmfwac1wyxnzd29yza==";
/// No test waits for a request's end for so long: nobody ended it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `server` for its version.
async fn probe(server: &Server, timeout_ms: u64) -> Result<String, Failure> {
    let graph = Neo4jGraph::new(Neo4jSettings {
        url: server.address.clone(),
        user: "neo4j".to_owned(),
        password: Secret::new(PASSWORD),
        databases: Databases::Shared("neo4j".to_owned()),
        timeout_ms,
    })
    .unwrap();
    let probed = tokio::time::timeout(PATIENCE, graph.probe("neo4j")).await;
    let probed = probed.expect("a request ends");
    if let Err(failure) = &probed {
        assert!(!failure.detail.contains(PASSWORD), "{failure}");
    }
    probed
}

#[tokio::test]
async fn the_password_does_not_follow_a_redirect() {
    let trap = Server::start(|_: &Request| answer(200, "", "{}")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}/db/neo4j/query/v2\r\n", trap.address);
        let server = Server::start(move |_: &Request| answer(status, &location, "")).await;
        let failure = probe(&server, 10_000).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Misconfigured, "{status}");
        assert!(failure.detail.contains("redirects"), "{failure}");
        // It was sent where it belongs, so that it could have been sent on.
        let asked = server.requests();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].head.contains(BASIC), "{}", asked[0].head);
    }
    assert_eq!(trap.requests().len(), 0);
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_with_the_timeout() {
    let half = b"HTTP/1.1 202 Accepted\r\ncontent-length: 70\r\n\r\n{\"data\":".to_vec();
    for bytes in [half, Vec::new()] {
        let server = Server::start(move |_: &Request| Reply::Hang(bytes.clone())).await;
        let failure = probe(&server, 400).await.unwrap_err();
        assert!(
            matches!(failure.kind, FailureKind::Transient { .. }),
            "{failure}"
        );
        assert!(
            failure.detail.contains("did not answer in time"),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_short() {
    let server = Server::start(|_: &Request| {
        Reply::Endless(b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\n\r\n".to_vec())
    })
    .await;
    let failure = probe(&server, 3_600_000).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
    let bound = ANSWER_BYTES_MAX.to_string();
    assert!(failure.detail.contains(&bound), "{failure}");
}
