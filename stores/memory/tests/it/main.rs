//! The memory store keeps every promise of the suite.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::{DynStore, Key};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};
use cloakroom_testkit::conformance::Harness;

mod bounds;

struct Fresh(MemoryStore);

impl Fresh {
    fn new() -> Fresh {
        Fresh(MemoryStore::new(MemoryConfig::default().max_payload(2 << 20)))
    }
}

impl Harness for Fresh {
    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.0.clone())
    }

    async fn age(&self, key: &Key, by: Duration) {
        self.0.age(key, by);
    }

    async fn second(&self) -> Option<Arc<dyn DynStore>> {
        Some(Arc::new(self.0.clone()))
    }

    async fn aside(&self) -> Option<Vec<Bytes>> {
        Some(self.0.set_aside().into_iter().map(|aside| aside.payload).collect())
    }
}

cloakroom_testkit::store_conformance!(Fresh::new(); aside, columns, limit, list, second, sweep, versions);
