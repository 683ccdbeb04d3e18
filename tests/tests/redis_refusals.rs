//! Redis servers that must not be used as they are: found before the first command, told with the setting that cures
//! it and without the password, and accepted as soon as it is cured.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use kalends_adapters::redis::{RedisStore, Unusable};
use kalends_core::port::Store;
use kalends_core::queue::command::{Command, Reply};
use kalends_tests::redis_server::{RedisOptions, RedisServer, store_at, url};

/// Why a server is refused: `check` and a command say the same.
async fn refusal(store: &RedisStore) -> String {
    let checked = store.check().await;
    let Err(Unusable::Refused { detail }) = checked else {
        panic!("not refused: {checked:?}");
    };
    let unavailable = store.apply(Command::Stats).await.unwrap_err();
    assert_eq!(unavailable.detail, detail);
    detail
}

async fn assert_accepted(store: &RedisStore) {
    assert_eq!(store.check().await, Ok(()));
    let stamped = store.apply(Command::Stats).await.unwrap();
    assert!(matches!(stamped.value, Reply::Stats { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_evict_keys() {
    let server = RedisServer::start(&RedisOptions::default());
    for policy in [
        "allkeys-lru",
        "allkeys-random",
        "volatile-ttl",
        "volatile-lfu",
    ] {
        server.configure("maxmemory-policy", policy);
        let store = store_at(&server.url());
        let detail = refusal(&store).await;
        assert!(detail.contains("maxmemory-policy noeviction"), "{detail}");
        assert!(detail.contains(policy), "{detail}");
        assert_eq!(server.cli(&["DBSIZE"]), "0");
        server.configure("maxmemory-policy", "noeviction");
        assert_accepted(&store).await;
        server.cli(&["FLUSHALL"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica() {
    let master = RedisServer::start(&RedisOptions::default());
    let replica = RedisServer::start(&RedisOptions::default());
    replica.follow(&master);
    let store = store_at(&replica.url());
    let detail = refusal(&store).await;
    assert!(detail.contains("is a replica"), "{detail}");
    replica.promote();
    assert_accepted(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_a_missing_one_and_a_user_without_rights() {
    const WRONG: &str = "planted-wrong-5d1c";
    let server = RedisServer::start(&RedisOptions::default().set("requirepass", "planted-7f3a"));
    assert_accepted(&store_at(&server.url())).await;

    let detail = refusal(&store_at(&url(server.port, Some(WRONG)))).await;
    assert!(detail.contains("password"), "{detail}");
    assert!(!detail.contains(WRONG), "{detail}");
    let detail = refusal(&store_at(&url(server.port, None))).await;
    assert!(detail.contains("password"), "{detail}");

    server.cli(&["ACL", "SETUSER", "reader", "on", ">planted", "~*", "+@read"]);
    let reader = store_at(&format!("redis://reader:planted@127.0.0.1:{}", server.port));
    let detail = refusal(&reader).await;
    assert!(
        detail.contains("NOPERM") || detail.contains("permission"),
        "{detail}"
    );
    server.cli(&["ACL", "SETUSER", "reader", "+@all"]);
    assert_accepted(&reader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_rights_to_its_own_keys_only_is_enough() {
    let server = RedisServer::start(&RedisOptions::default());
    server.cli(&[
        "ACL",
        "SETUSER",
        "kalends",
        "on",
        ">planted",
        "~{test}:*",
        "&{test}:*",
        "+@all",
        "-@admin",
        "-@dangerous",
        "+info",
    ]);
    let store = store_at(&format!(
        "redis://kalends:planted@127.0.0.1:{}",
        server.port
    ));
    assert_accepted(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_without_saying_so() {
    let server = RedisServer::start(&RedisOptions::default().set("cluster-enabled", "yes"));
    let detail = refusal(&store_at(&server.url())).await;
    assert!(detail.contains("redis+cluster://"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_format() {
    let server = RedisServer::start(&RedisOptions::default());
    server.cli(&["SET", "{test}:format", "kalends 999"]);
    let store = store_at(&server.url());
    let detail = refusal(&store).await;
    assert!(detail.contains("kalends 999"), "{detail}");
    server.cli(&["DEL", "{test}:format"]);
    assert_accepted(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_no_refusal() {
    let mut server = RedisServer::start(&RedisOptions::default());
    let store = store_at(&server.url());
    server.kill();
    let checked = store.check().await;
    assert!(matches!(checked, Err(Unusable::Away { .. })), "{checked:?}");
    server.restart();
    assert_accepted(&store).await;
}
