//! The Memcached store keeps every promise of the suite, on one server and on three.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::{DynStore, Key};
use cloakroom_store_memcached::MemcachedStore;
use cloakroom_testkit::conformance::Harness;
use cloakroom_testkit::servers::memcached::Memcached;

use crate::util::{deadline, one, open, prefix, three};

struct Fresh {
    servers: &'static [Memcached],
    prefix: String,
    store: MemcachedStore,
}

impl Fresh {
    async fn new(servers: &'static [Memcached]) -> Fresh {
        let prefix = prefix();
        let store = open(servers, &prefix).await;
        Fresh { servers, prefix, store }
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{}", self.prefix, String::from_utf8_lossy(key.record()))
    }
}

impl Harness for Fresh {
    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    async fn age(&self, key: &Key, by: Duration) {
        let (name, by) = (self.name(key), i64::try_from(by.as_secs()).unwrap());
        for server in self.servers {
            match server.ttl(&name).unwrap() {
                Some(left) if left > by => _ = server.ask(&format!("mg {name} T{}", left - by)).unwrap(),
                Some(_) => _ = server.ask(&format!("md {name}")).unwrap(),
                None => {}
            }
        }
    }

    async fn second(&self) -> Option<Arc<dyn DynStore>> {
        Some(Arc::new(open(self.servers, &self.prefix).await))
    }

    async fn lose_lock(&self, key: &Key) -> bool {
        let name = format!("{}lock.{}", self.prefix, String::from_utf8_lossy(key.record()));
        self.servers.iter().any(|server| server.ask(&format!("md {name}")).unwrap() == "HD")
    }

    async fn aside(&self) -> Option<Vec<Bytes>> {
        let aside = self.store.set_aside(&deadline()).await.unwrap();
        Some(aside.into_iter().map(|aside| aside.payload).collect())
    }

    /// Memcached's clock ticks once a second.
    fn tick(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The suite on so many servers, where they are not left out.
macro_rules! on {
    ($module:ident) => {
        mod $module {
            use super::Fresh;

            cloakroom_testkit::store_conformance!(
                {
                    let Some(servers) = super::$module() else { return };
                    Fresh::new(servers).await
                };
                aside, limit, lost, second, talks, versions
            );
        }
    };
}

on!(one);
on!(three);
