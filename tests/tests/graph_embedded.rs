//! The graph in the embedded store, held to the contract of all graphs.

use std::sync::Arc;

use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::time::{Clock, Timestamp};
use kalends_tests::graph_contract;

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}

#[tokio::test]
async fn the_embedded_graph_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), Arc::new(Still)).unwrap();
    graph_contract::run(&store, "first").await;
    // A used graph, opened again.
    store.close().await;
    let store = EmbeddedStore::open(directory.path(), Arc::new(Still)).unwrap();
    graph_contract::run(&store, "second").await;
}
