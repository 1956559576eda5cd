//! A store with one lock for all records, as Symfony's layout on SQLite has it: nothing waits for itself there, and
//! nothing is lost or left behind on the way.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cloakroom_core::store::{BoxFuture, Capabilities, Claim, Expect, Lease, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, Engine, Error, ErrorKind, Key, Result, Settings, Store};
use cloakroom_store_memory::MemoryStore;
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use crate::support::{Visitor, memory};

#[derive(Clone, Debug)]
struct OneLock {
    store: MemoryStore,
    gate: Arc<Semaphore>,
    no_removals: Arc<AtomicBool>,
    conflicts: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Held {
    lease: Box<dyn Lease>,
    permit: OwnedSemaphorePermit,
}

impl Lease for Held {
    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.lease.release().await;
            drop(self.permit);
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl OneLock {
    fn new() -> (OneLock, Engine) {
        let gate = Arc::new(Semaphore::new(1));
        let store = OneLock { store: memory(), gate, no_removals: Arc::default(), conflicts: Arc::default() };
        let engine = Engine::new(store.clone(), Settings::php()).unwrap();
        (store, engine)
    }

    async fn turn(&self, deadline: &Deadline) -> Result<OwnedSemaphorePermit> {
        // Whoever else is ready comes first.
        tokio::task::yield_now().await;
        let turn = timeout_at(deadline.wait_until(), Arc::clone(&self.gate).acquire_owned()).await;
        turn.map(|permit| permit.unwrap()).map_err(|_| Error::locked(deadline.lock_wait()))
    }
}

impl Store for OneLock {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.one_lock = true;
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        self.store.load(key, deadline).await
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let permit = self.turn(deadline).await?;
        let locked = self.store.lock(key, claim, deadline).await?;
        Ok(locked.map(|Locked { lease, record, .. }| Locked::new(Box::new(Held { lease, permit }), record)))
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let (expect, _permit) = match expect {
            Expect::Held(lease) => {
                let held = lease.into_any().downcast::<Held>().unwrap();
                (Expect::Held(held.lease), held.permit)
            }
            other => (other, self.turn(deadline).await?),
        };
        if matches!(put, Put::Remove) && self.no_removals.load(Ordering::Relaxed) {
            return Err(Error::unavailable("remove a record: this store was told not to"));
        }
        let outcome = self.store.commit(key, expect, put, deadline).await;
        self.conflicts.fetch_add(usize::from(matches!(outcome, Ok(Outcome::Conflict(_)))), Ordering::Relaxed);
        outcome
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        self.store.sweep(step).await
    }
}

/// Found with a shop in which nobody could log in.
#[tokio::test(start_paused = true)]
async fn a_login_and_a_new_id_wait_for_nobody() {
    let (_, engine) = OneLock::new();
    for delete_old in [true, false] {
        let mut visitor = Visitor::with_session(&engine).await;
        let old = visitor.cookie.clone().unwrap();
        let session = visitor.begin();
        let mut s = session.start().await.unwrap();
        s.regenerate_id(delete_old).await.unwrap();
        s.set("user", &7).unwrap();
        s.write_close().await.unwrap();
        visitor.finish(session).await;
        assert_ne!(visitor.cookie.as_ref(), Some(&old));
        assert_eq!((visitor.get("n").await, visitor.get("user").await), (Some(1), Some(7)));
        let mut late = Visitor::with(&engine, &old);
        assert_eq!((late.get("n").await, late.get("user").await), ((!delete_old).then_some(1), None));
    }
    // On a first visit, too.
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    s.regenerate_id(true).await.unwrap();
    s.set("user", &7).unwrap();
    drop(s);
    visitor.finish(session).await;
    assert_eq!(visitor.get("user").await, Some(7));
}

/// Where the old session cannot be ended, it is as it was before the login, and there is no other.
#[tokio::test(start_paused = true)]
async fn a_login_that_fails_leaves_nothing_of_itself() {
    let (store, engine) = OneLock::new();
    let mut visitor = Visitor::with_session(&engine).await;
    let old = visitor.cookie.clone();
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    s.set("user", &7).unwrap();
    store.no_removals.store(true, Ordering::Relaxed);
    assert_eq!(s.regenerate_id(true).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.no_removals.store(false, Ordering::Relaxed);
    assert_eq!(s.write_close().await.unwrap_err().kind(), ErrorKind::Gone);
    let mut headers = HeaderMap::new();
    engine.finish(session, &mut headers).await.unwrap();
    visitor.take(&headers);
    assert_eq!(visitor.cookie, old);
    assert_eq!((visitor.get("n").await, visitor.get("user").await), (Some(1), None));
}

/// Each gives the lock back before it makes the new record, so that they come between each other.
#[tokio::test]
async fn of_rotations_at_once_one_is_done() {
    let (store, engine) = OneLock::new();
    let visitor = Visitor::with_session(&engine).await;
    let rotations: Vec<_> = (0..8)
        .map(|_| {
            let session = visitor.begin();
            tokio::spawn(async move { session.rotate().await.unwrap() })
        })
        .collect();
    let mut ids = Vec::new();
    for rotation in rotations {
        ids.push(rotation.await.unwrap());
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert!(store.conflicts.load(Ordering::Relaxed) > 0, "they did not come between each other");
    assert_eq!(
        store.store.as_list().unwrap().list(None, 10).await.unwrap().len(),
        2,
        "the session and the pointer to it"
    );
}
