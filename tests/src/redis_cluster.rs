//! A Redis Cluster of masters without replicas, each a [`RedisServer`] of its own.

use std::process::{Command, Stdio};

use crate::process::wait_until;
use crate::redis_server::{RedisOptions, RedisServer, free_port};

/// How long a node may be silent before the others say that it failed, in milliseconds.
const NODE_TIMEOUT_MS: &str = "2000";

/// The cluster, until it is dropped.
pub struct RedisCluster {
    /// Its masters; the slots are divided evenly, in this order.
    pub masters: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts `masters` of them (Redis wants three at the least) and waits until every one knows all slots.
    ///
    /// # Panics
    /// If there is no `redis-server` or no `redis-cli`, or they do not find together.
    #[must_use]
    pub fn start(masters: usize, options: &RedisOptions) -> RedisCluster {
        let masters: Vec<RedisServer> = (0..masters)
            .map(|_| {
                let options = options
                    .clone()
                    .set("cluster-enabled", "yes")
                    .set("cluster-port", &free_port().to_string())
                    .set("cluster-node-timeout", NODE_TIMEOUT_MS);
                RedisServer::start(&options)
            })
            .collect();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(
                masters
                    .iter()
                    .map(|master| format!("127.0.0.1:{}", master.port)),
            )
            .arg("--cluster-yes")
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli comes with redis-server");
        assert!(
            created.status.success(),
            "{}{}",
            String::from_utf8_lossy(&created.stdout),
            String::from_utf8_lossy(&created.stderr)
        );
        let cluster = RedisCluster { masters };
        cluster.wait_until_whole();
        cluster
    }

    /// Waits until every master says that all slots are served.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_until_whole(&self) {
        wait_until("all slots of the cluster", || {
            self.masters.iter().all(|master| {
                let info = master.command(&["CLUSTER", "INFO"]).unwrap_or_default();
                info.contains("cluster_state:ok")
            })
        });
    }

    /// The address for a store: all masters.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .masters
            .iter()
            .map(|master| format!("127.0.0.1:{}", master.port))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The master that owns at least one key, by its place in [`RedisCluster::masters`]; all of a queue's keys are in
    /// one slot, so there is one at the most.
    ///
    /// # Panics
    /// If a master does not answer, or more than one owns keys.
    #[must_use]
    pub fn owner(&self) -> Option<usize> {
        let owners: Vec<usize> = (0..self.masters.len())
            .filter(|&master| self.masters[master].cli(&["DBSIZE"]) != "0")
            .collect();
        assert!(owners.len() <= 1, "keys in more than one slot: {owners:?}");
        owners.first().copied()
    }
}
