//! The suite of failures, through a proxy that breaks the network at every byte, or at as many as `CLOAKROOM_CUTS` says.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{DynStore, Key};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::network::{Networked, Server};
use cloakroom_testkit::proxy::Proxy;
use cloakroom_testkit::servers::redis::RedisServer;
use redis::cmd;

use crate::util::{self, Room};

/// A store behind a proxy, and one beside it.
struct Through {
    proxy: Proxy,
    store: RedisStore,
    config: RedisConfig,
    beside: Room,
    own: Option<RedisServer>,
}

impl Through {
    /// On the server of all tests.
    async fn shared() -> Option<Through> {
        Some(Through::on(util::server()?, None).await)
    }

    /// On a server of its own.
    async fn own() -> Option<Through> {
        util::server()?;
        let server = RedisServer::start(&[]).unwrap();
        let through = Through::on(&server, None).await;
        Some(Through { own: Some(server), ..through })
    }

    async fn on(server: &RedisServer, own: Option<RedisServer>) -> Through {
        let beside = Room::on(server, "&lock_expire=1.5").await;
        let proxy = Proxy::before(server.addr()).unwrap();
        let url = format!("redis://{}?prefix={}&lock_expire=1.5", proxy.addr(), beside.prefix);
        let config = RedisConfig::from_url(&url).unwrap();
        let store = RedisStore::open(config.clone()).await.unwrap();
        Through { proxy, store, config, beside, own }
    }
}

impl Networked for Through {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    async fn another(&self) -> Arc<dyn DynStore> {
        Arc::new(RedisStore::open(self.config.clone()).await.unwrap())
    }

    fn trusted(&self) -> Arc<dyn DynStore> {
        Arc::new(self.beside.store.clone())
    }

    fn lock_life(&self) -> Duration {
        self.config.lock_expire
    }

    async fn age(&self, key: &Key, by: Duration) {
        let record = self.beside.record(std::str::from_utf8(key.record()).unwrap());
        let left: i64 = self.beside.raw(cmd("PTTL").arg(&record)).await;
        let left = left - i64::try_from(by.as_millis()).unwrap();
        let _: i64 = self.beside.raw(cmd("PEXPIRE").arg(&record).arg(left.max(0))).await;
    }

    fn server(&self) -> Option<&dyn Server> {
        self.own.as_ref().map(|server| server as &dyn Server)
    }
}

macro_rules! unless_skipped {
    ($through:expr) => {
        match $through.await {
            Some(through) => through,
            None => return,
        }
    };
}

cloakroom_testkit::store_faults!(unless_skipped!(Through::shared()));
cloakroom_testkit::store_server_faults!(unless_skipped!(Through::own()));
