//! Stores that had better be locked before they are read: the same promises, in fewer round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom_core::store::{Capabilities, Claim, Expect, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, Engine, ErrorKind, Key, Result, Settings, Store};
use cloakroom_store_memory::MemoryStore;

use crate::support::{Visitor, memory};

/// A memory store that says so, and counts.
#[derive(Clone, Debug)]
struct LockFirst {
    store: MemoryStore,
    loads: Arc<AtomicUsize>,
    locks: Arc<AtomicUsize>,
}

impl LockFirst {
    fn new() -> (LockFirst, Engine) {
        let store = LockFirst { store: memory(), loads: Arc::default(), locks: Arc::default() };
        let engine = Engine::new(store.clone(), Settings::php()).unwrap();
        (store, engine)
    }

    /// How many loads and locks there were since this was last asked.
    fn asked(&self) -> (usize, usize) {
        (self.loads.swap(0, Ordering::Relaxed), self.locks.swap(0, Ordering::Relaxed))
    }
}

impl Store for LockFirst {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.lock_first = true;
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.store.load(key, deadline).await
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        self.locks.fetch_add(1, Ordering::Relaxed);
        self.store.lock(key, claim, deadline).await
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        self.store.commit(key, expect, put, deadline).await
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        self.store.sweep(step).await
    }
}

#[tokio::test]
async fn a_change_reads_under_the_lock() {
    let (store, engine) = LockFirst::new();
    let mut visitor = Visitor::with_session(&engine).await;
    assert_eq!(store.asked(), (0, 0), "a new visitor has nothing to be read");
    visitor.set("n", 2).await;
    assert_eq!(store.asked(), (0, 1));
    assert_eq!(visitor.get("n").await, Some(2));
    assert_eq!(store.asked(), (1, 0));
    // What was read before is compared.
    let session = visitor.begin();
    session.read().await.unwrap();
    session.update(|s| s.set("n", &3)).await.unwrap();
    assert_eq!(store.asked(), (1, 0));
    session.update(|s| s.set("n", &4)).await.unwrap();
    assert_eq!(store.asked(), (0, 0), "it knows what it has written itself");
}

#[tokio::test]
async fn an_update_that_changes_nothing_frees_the_lock() {
    let (store, engine) = LockFirst::new();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    assert_eq!(session.update(|s| s.get::<i64>("n")).await.unwrap(), Some(1));
    assert_eq!(store.asked(), (0, 1));
    let failed = session.update(|_| Err::<(), _>(cloakroom_core::Error::misuse("no"))).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Misuse);
    drop(visitor.begin().start().await.unwrap());
}

#[tokio::test]
async fn an_update_that_changes_nothing_waits_for_nobody() {
    let (store, engine) = LockFirst::new();
    let visitor = Visitor::with_session(&engine).await;
    let holder = visitor.begin();
    let started = holder.start().await.unwrap();
    assert_eq!(visitor.begin().update(|s| s.get::<i64>("n")).await.unwrap(), Some(1));
    assert_eq!(store.asked(), (1, 2));
    started.write_close().await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_not_there_is_made_anew_and_one_that_was_is_gone() {
    let (_, engine) = LockFirst::new();
    let mut visitor = Visitor::with(&engine, "0123456789abcdef0123456789abcdef");
    visitor.set("n", 1).await;
    assert_ne!(visitor.cookie.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    let (late, mut other) = (visitor.begin(), visitor.clone());
    late.read().await.unwrap();
    let session = other.begin();
    session.destroy().await.unwrap();
    other.finish(session).await;
    assert_eq!(late.update(|s| s.set("n", &2)).await.unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(late.update(|s| s.set("n", &2)).await.unwrap_err().kind(), ErrorKind::Gone);
}

#[tokio::test]
async fn an_update_follows_a_session_that_has_moved() {
    let (_, engine) = LockFirst::new();
    let visitor = Visitor::with_session(&engine).await;
    let rotated = visitor.begin().rotate().await.unwrap();
    let mut late = visitor.clone();
    late.set("n", 5).await;
    assert_eq!(late.cookie.as_deref(), Some(rotated.expose_str()));
    assert_eq!(late.get("n").await, Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost() {
    let (_, engine) = LockFirst::new();
    let visitor = Visitor::with_session(&engine).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let visitor = visitor.clone();
            tokio::spawn(async move {
                for turn in 0..100 {
                    let session = visitor.begin();
                    let add = |s: &mut cloakroom_core::Draft| {
                        let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
                        s.set("n", &n)
                    };
                    if (task + turn) % 4 == 0 {
                        add(&mut session.start().await.unwrap()).unwrap();
                    } else {
                        session.update(add).await.unwrap();
                    }
                    visitor.clone().finish(session).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(visitor.clone().get("n").await, Some(801));
}
