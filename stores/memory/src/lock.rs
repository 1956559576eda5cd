//! Locks: one holder a record, first come, first served.
//!
//! A lock is never free while somebody waits for it: whoever gives it back hands it to the first of the queue. A lock
//! that arrives after its waiter left is passed on, since the lease then drops within the channel.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use cloakroom_core::line::{MOST_WAITING, too_many};
use cloakroom_core::store::{BoxFuture, Lease};
use cloakroom_core::{Deadline, Error, Key, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::table::Table;

/// Who holds the lock of one record, and who waits for it.
#[derive(Default)]
pub(crate) struct Queue {
    locked: bool,
    tickets: u64,
    waiters: VecDeque<(u64, oneshot::Sender<MemoryLease>)>,
}

impl Queue {
    pub(crate) fn is_locked(&self) -> bool {
        self.locked
    }

    /// Takes a lock that is free.
    pub(crate) fn take(&mut self) {
        self.locked = true;
    }

    /// A place at the end of the queue, if it is not too long.
    pub(crate) fn join(&mut self, table: &Arc<Table>, key: &Key) -> Result<Waiting> {
        if self.waiters.len() >= MOST_WAITING {
            return Err(too_many());
        }
        let (sender, receiver) = oneshot::channel();
        self.tickets += 1;
        self.waiters.push_back((self.tickets, sender));
        Ok(Waiting { place: Place { table: Arc::clone(table), key: key.clone(), ticket: self.tickets }, receiver })
    }
}

/// A held lock. It cannot be lost: only dropping it, or a commit with it, gives the lock to somebody else.
pub(crate) struct MemoryLease {
    table: Option<Arc<Table>>,
    key: Key,
}

impl MemoryLease {
    /// Stands for a lock that the caller has just taken.
    pub(crate) fn new(table: &Arc<Table>, key: &Key) -> MemoryLease {
        MemoryLease { table: Some(Arc::clone(table)), key: key.clone() }
    }

    /// The lease of this very record of this very store, given back by a caller.
    pub(crate) fn recognise(lease: Box<dyn Lease>, table: &Arc<Table>, key: &Key) -> Result<MemoryLease> {
        let Ok(lease) = lease.into_any().downcast::<MemoryLease>() else {
            return Err(Error::misuse("commit with a lease of another kind of store"));
        };
        let ours = lease.table.as_ref().is_some_and(|theirs| Arc::ptr_eq(theirs, table));
        if !ours || lease.key.record() != key.record() {
            return Err(Error::misuse("commit with the lease of another record"));
        }
        Ok(*lease)
    }
}

impl Lease for MemoryLease {
    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(ready(()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl fmt::Debug for MemoryLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryLease({})", self.key.tag())
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        if let Some(table) = self.table.take() {
            hand_on(table, self.key.clone());
        }
    }
}

/// Gives the lock to the first who still waits for it, or frees it.
fn hand_on(table: Arc<Table>, key: Key) {
    let mut lease = MemoryLease { table: Some(table), key };
    while let Some(table) = lease.table.take() {
        let mut shard = table.shard(&lease.key);
        let Some(queue) = shard.queue(&lease.key) else { return };
        let Some((_, next)) = queue.waiters.pop_front() else {
            queue.locked = false;
            shard.tidy(&lease.key);
            return;
        };
        drop(shard);
        lease.table = Some(table);
        match next.send(lease) {
            Ok(()) => return,
            Err(refused) => lease = refused,
        }
    }
}

/// A place in a queue, and the lock when its turn has come.
pub(crate) struct Waiting {
    place: Place,
    receiver: oneshot::Receiver<MemoryLease>,
}

impl Waiting {
    /// Waits for the turn, at most to the deadline.
    pub(crate) async fn turn(self, deadline: &Deadline) -> Result<MemoryLease> {
        let Waiting { place: _place, receiver } = self;
        let begun = Instant::now();
        match timeout_at(deadline.wait_until(), receiver).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) => Err(Error::unavailable("the queue of a lock is gone")),
            Err(_) => Err(Error::locked(begun.elapsed())),
        }
    }
}

/// Leaves the queue when dropped.
struct Place {
    table: Arc<Table>,
    key: Key,
    ticket: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.key);
        let gone = shard.queue(&self.key).and_then(|queue| {
            let at = queue.waiters.iter().position(|(ticket, _)| *ticket == self.ticket)?;
            queue.waiters.remove(at)
        });
        // A channel holds a waker, which is somebody else's code: not under the mutex.
        drop(shard);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use cloakroom_core::Store;
    use cloakroom_core::store::Claim;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn who_leaves_gives_up_the_place_at_once() {
        let (store, key) = (MemoryStore::default(), Key::from_bytes(*b"key"));
        let deadline = Deadline::new(Duration::ZERO, Duration::from_secs(1));
        let _lease = store.lock(&key, Claim::New, &deadline).await.unwrap();
        for _ in 0..100 {
            let hasty = Duration::from_millis(1);
            let waiting = store.lock(&key, Claim::Either, &deadline);
            assert!(tokio::time::timeout(hasty, waiting).await.is_err());
        }
        assert!(store.lock(&key, Claim::Either, &deadline).await.is_err());
        assert!(store.table.shard(&key).queue(&key).unwrap().waiters.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_has_a_limit() {
        let (store, key) = (MemoryStore::default(), Key::from_bytes(*b"key"));
        let deadline = Deadline::new(Duration::ZERO, Duration::from_secs(1));
        let _lease = store.lock(&key, Claim::New, &deadline).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..MOST_WAITING {
            waiting.push(store.table.shard(&key).queue(&key).unwrap().join(&store.table, &key).unwrap());
        }
        let begun = Instant::now();
        let error = store.lock(&key, Claim::Either, &deadline).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (cloakroom_core::ErrorKind::Locked, Duration::ZERO));
        waiting.pop();
        assert!(store.lock(&key, Claim::Either, &deadline).await.is_err());
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "there was a place again");
    }

    /// The moment between leaving the channel and leaving the queue.
    #[tokio::test(start_paused = true)]
    async fn a_lock_that_nobody_takes_is_passed_on() {
        let (store, key) = (MemoryStore::default(), Key::from_bytes(*b"key"));
        let deadline = Deadline::new(Duration::ZERO, Duration::from_secs(1));
        let lease = store.lock(&key, Claim::New, &deadline).await.unwrap();
        let [first, second, third] =
            [(); 3].map(|()| store.table.shard(&key).queue(&key).unwrap().join(&store.table, &key).unwrap());
        drop((first.receiver, second.receiver));
        drop(lease);
        let lease = third.turn(&deadline).await.unwrap();
        drop((first.place, second.place, lease));
        assert!(store.lock(&key, Claim::Existing, &Deadline::new(Duration::ZERO, Duration::ZERO)).await.is_ok());
    }
}
