//! The store keeps every promise of the suite, in each of its layouts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::{DynStore, Key};
use cloakroom_testkit::conformance::Harness;

use crate::util::Room;

struct Fresh {
    room: Room,
    symfony: bool,
    shares: bool,
}

impl Fresh {
    async fn native() -> Fresh {
        Fresh { room: Room::with("lease=1&busy=500&max_payload=2097152").await, symfony: false, shares: true }
    }

    async fn symfony(lock: &str) -> Fresh {
        let options = format!("layout=symfony&lock={lock}&migrate=yes&busy=500&max_payload=2097152");
        Fresh { room: Room::with(&options).await, symfony: true, shares: lock != "none" }
    }
}

impl Harness for Fresh {
    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.room.store.clone())
    }

    async fn age(&self, key: &Key, by: Duration) {
        self.room.store.age(key, by).await.unwrap();
    }

    async fn second(&self) -> Option<Arc<dyn DynStore>> {
        if self.shares { Some(Arc::new(self.room.second().await)) } else { None }
    }

    /// As if the holder had been stopped for longer than its lease, and somebody else had come and gone.
    async fn lose_lock(&self, key: &Key) -> bool {
        if self.symfony {
            return false;
        }
        let lose = "UPDATE cloakroom_sessions SET lock_token = 0 WHERE id = ?1 AND lock_token > 0";
        self.room.beside().execute(lose, [key.record()]).unwrap() == 1
    }

    async fn aside(&self) -> Option<Vec<Bytes>> {
        let beside = self.room.beside();
        let Ok(mut aside) = beside.prepare("SELECT payload FROM cloakroom_aside ORDER BY id") else {
            return Some(Vec::new());
        };
        let payloads = aside.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        Some(payloads.map(|payload| payload.unwrap().into()).collect())
    }

    /// Symfony counts in seconds.
    fn tick(&self) -> Duration {
        if self.symfony { Duration::from_secs(1) } else { Duration::from_millis(1) }
    }

    fn increments(&self) -> usize {
        400
    }
}

mod native {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(
        Fresh::native().await;
        aside, columns, limit, list, lost, second, sweep, talks, versions
    );
}

mod transactional {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(
        Fresh::symfony("transactional").await;
        aside, limit, list, second, sweep, talks
    );
}

mod unlocked {
    use super::Fresh;

    cloakroom_testkit::store_conformance!(Fresh::symfony("none").await; aside, limit, list, sweep, talks);
}
