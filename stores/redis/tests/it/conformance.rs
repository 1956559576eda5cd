//! The store keeps every promise of the suite: on one server, on a cluster in both layouts, behind sentinels.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::{DynStore, Key};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::conformance::Harness;
use redis::{Client, Cmd, FromRedisValue, cluster::ClusterClient, cmd};

use crate::util;

/// A store that has a prefix to itself.
struct Fresh {
    store: RedisStore,
    config: RedisConfig,
    server: Plain,
    prefix: String,
    tagged: bool,
}

/// A plain client, past the store.
enum Plain {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

impl Fresh {
    async fn single() -> Option<Fresh> {
        let addr = util::server()?.addr();
        let (prefix, server) = (util::prefix(), Plain::One(Box::new(Client::open(format!("redis://{addr}")).unwrap())));
        Some(Fresh::new(&format!("redis://{addr}?prefix={prefix}"), server, prefix).await)
    }

    async fn cluster(layout: &str) -> Option<Fresh> {
        let cluster = util::cluster()?;
        let (hosts, prefix) = (cluster.hosts(), util::prefix());
        let server =
            Plain::Cluster(Box::new(ClusterClient::new([format!("redis://{}", cluster.nodes()[0].addr())]).unwrap()));
        let url = format!("redis+cluster://{hosts}?prefix={prefix}&layout={layout}&max_payload=4000000");
        Some(Fresh::new(&url, server, prefix).await)
    }

    async fn sentinel() -> Option<Fresh> {
        let all = util::sentinels()?;
        let (hosts, service) = (all.hosts(), cloakroom_testkit::servers::redis::RedisSentinels::SERVICE);
        let master = format!("redis://{}", all.servers()[0].addr());
        let prefix = util::prefix();
        let url = format!("redis+sentinel://{hosts}/{service}?prefix={prefix}");
        Some(Fresh::new(&url, Plain::One(Box::new(Client::open(master).unwrap())), prefix).await)
    }

    async fn new(url: &str, server: Plain, prefix: String) -> Fresh {
        // A lock that was lost is noticed when it is to be renewed.
        let url = format!("{url}&lock_expire=1.5");
        let config = RedisConfig::from_url(&url).unwrap();
        let store = RedisStore::open(config.clone()).await.unwrap();
        Fresh { store, config, server, prefix, tagged: url.contains("layout=tagged") }
    }

    async fn raw<T: FromRedisValue>(&self, command: &mut Cmd) -> T {
        match &self.server {
            Plain::One(client) => {
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                command.query_async(&mut connection).await.unwrap()
            }
            Plain::Cluster(client) => {
                let mut connection = client.get_async_connection().await.unwrap();
                command.query_async(&mut connection).await.unwrap()
            }
        }
    }

    fn record(&self, key: &Key) -> String {
        let id = String::from_utf8(key.record().to_vec()).unwrap();
        if self.tagged { format!("{}{{{id}}}", self.prefix) } else { format!("{}{id}", self.prefix) }
    }
}

impl Harness for Fresh {
    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    async fn age(&self, key: &Key, by: Duration) {
        let record = self.record(key);
        let left: i64 = self.raw(cmd("PTTL").arg(&record)).await;
        let left = left - i64::try_from(by.as_millis()).unwrap();
        let _: i64 = self.raw(cmd("PEXPIRE").arg(&record).arg(left.max(0))).await;
    }

    /// What another process has: nothing in common with the first but the servers.
    async fn second(&self) -> Option<Arc<dyn DynStore>> {
        Some(Arc::new(RedisStore::open(self.config.clone()).await.unwrap()))
    }

    async fn lose_lock(&self, key: &Key) -> bool {
        let record = self.record(key);
        let php_on_a_cluster = matches!(self.server, Plain::Cluster(_)) && !self.tagged;
        let lock = if php_on_a_cluster { format!("cloakroom:lock:{{{record}}}") } else { format!("{record}_LOCK") };
        let lost: i64 = self.raw(cmd("DEL").arg(lock)).await;
        lost == 1
    }

    async fn aside(&self) -> Option<Vec<Bytes>> {
        let mut found = Vec::new();
        for number in 0..100 {
            let copy: Option<Vec<u8>> =
                self.raw(cmd("GET").arg(format!("cloakroom:aside:{}{number}", self.prefix))).await;
            found.extend(copy.map(Bytes::from));
        }
        Some(found)
    }

    /// Each of them is an exchange with a server.
    /// Each of them is an exchange with a server, and there are four kinds of servers.
    fn increments(&self) -> usize {
        400
    }

    /// Redis takes lives in whole seconds, as php-redis gives them.
    fn tick(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The harness, or the end of the case where Redis is to be left out.
macro_rules! unless_skipped {
    ($fresh:expr) => {
        match $fresh.await {
            Some(fresh) => fresh,
            None => return,
        }
    };
}

mod single {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(unless_skipped!(Fresh::single()); aside, limit, lost, second, talks);
}

mod cluster_tagged {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(
        unless_skipped!(Fresh::cluster("tagged")); aside, limit, lost, second, talks
    );
}

mod cluster_php {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(unless_skipped!(Fresh::cluster("php")); aside, limit, lost, second, talks);
}

mod sentinel {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(unless_skipped!(Fresh::sentinel()); aside, limit, lost, second, talks);
}
