//! The suite of failures, through a proxy that breaks the network at every byte, or at as many as `CLOAKROOM_CUTS` says.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{DynStore, Key};
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use cloakroom_testkit::network::{Networked, Server, Trips};
use cloakroom_testkit::proxy::Proxy;
use cloakroom_testkit::servers::memcached::Memcached;

use crate::util::{config, one, open, own, prefix};

/// A store behind a proxy, and one beside it.
struct Through {
    proxy: Proxy,
    config: MemcachedConfig,
    store: MemcachedStore,
    trusted: MemcachedStore,
    server: Which,
}

enum Which {
    Shared(&'static Memcached),
    Own(Memcached),
}

impl Deref for Which {
    type Target = Memcached;

    fn deref(&self) -> &Memcached {
        match self {
            Which::Shared(server) => server,
            Which::Own(server) => server,
        }
    }
}

impl Through {
    /// On the server of all tests.
    async fn shared() -> Option<Through> {
        Some(Through::on(Which::Shared(&one()?[0])).await)
    }

    /// On a server of its own.
    async fn own() -> Option<Through> {
        Some(Through::on(Which::Own(own(&[])?)).await)
    }

    async fn on(server: Which) -> Through {
        let (proxy, prefix) = (Proxy::before(server.addr()).unwrap(), prefix());
        let trusted = open(std::slice::from_ref(&*server), &prefix).await;
        let mut config = config(std::slice::from_ref(&*server), &prefix);
        config.servers = MemcachedConfig::from_url(&format!("memcached://{}", proxy.addr())).unwrap().servers;
        let store = MemcachedStore::open(config.clone()).await.unwrap();
        Through { proxy, config, store, trusted, server }
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
        Arc::new(MemcachedStore::open(self.config.clone()).await.unwrap())
    }

    fn trusted(&self) -> Arc<dyn DynStore> {
        Arc::new(self.trusted.clone())
    }

    fn lock_life(&self) -> Duration {
        self.config.lock_expire
    }

    async fn age(&self, key: &Key, by: Duration) {
        let name = format!("{}{}", self.config.prefix, String::from_utf8_lossy(key.record()));
        let left = self.server.ttl(&name).unwrap().unwrap() - i64::try_from(by.as_secs()).unwrap();
        assert_eq!(self.server.ask(&format!("mg {name} T{left}")).unwrap(), "HD");
    }

    /// The lock and what it guards lie under two keys.
    fn trips(&self) -> Trips {
        Trips { create: 2, ..Trips::default() }
    }

    fn server(&self) -> Option<&dyn Server> {
        match &self.server {
            Which::Shared(_) => None,
            Which::Own(server) => Some(server),
        }
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
