//! The end of the program: what it waits for, and for how long.

use std::time::Duration;

use cloakroom_core::store::{Capabilities, Claim, Expect, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, Engine, Key, Result, Settings, Store};
use cloakroom_store_memory::MemoryStore;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Visitor, memory};

/// A store that gives locks back in its own time, and sweeps without end.
#[derive(Debug)]
struct Slow {
    store: MemoryStore,
    settles_in: Duration,
}

impl Store for Slow {
    fn capabilities(&self) -> Capabilities {
        Store::capabilities(&self.store)
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        Store::load(&self.store, key, deadline).await
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        Store::lock(&self.store, key, claim, deadline).await
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        Store::commit(&self.store, key, expect, put, deadline).await
    }

    async fn sweep(&self, _: usize) -> Result<Swept> {
        sleep(Duration::from_millis(10)).await;
        Ok(Swept::new(0, false))
    }

    async fn settle(&self) {
        sleep(self.settles_in).await;
    }
}

fn engine(settles_in: Duration) -> Engine {
    let mut settings = Settings::php();
    (settings.gc_probability, settings.gc_divisor) = (1, 1);
    Engine::new(Slow { store: memory(), settles_in }, settings).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_store_and_not_for_ever() {
    for (settles_in, waited) in [(0, 0), (1, 1), (3600, 2)] {
        let engine = engine(Duration::from_secs(settles_in));
        let begun = Instant::now();
        engine.shutdown().await;
        assert_eq!(begun.elapsed().as_secs(), waited, "{settles_in}");
    }
}

/// A round of sweeping may take hours.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_sweep() {
    let engine = engine(Duration::ZERO);
    Visitor::with_session(&engine).await;
    // It has begun by now.
    sleep(Duration::from_secs(5)).await;
    timeout(Duration::from_secs(1), engine.shutdown()).await.unwrap();
}
