//! Tests that need real servers or real processes live in `tests/tests/`; what they share lives here.

pub mod browser;
pub mod fan_out_bench;
pub mod google_server;
pub mod graph_contract;
pub mod graph_model;
pub mod graph_rows;
pub mod http_client;
pub mod kalends_toml;
pub mod metrics_text;
pub mod neo4j_server;
pub mod process;
pub mod redis_cluster;
pub mod redis_ledger;
pub mod redis_load;
pub mod redis_server;
pub mod shown;
pub mod tcp_proxy;
