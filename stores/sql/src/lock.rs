//! Locks: what holds them, and that they are given back.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::line::Head;
use cloakroom_core::store::{BoxFuture, Lease, Record};
use cloakroom_core::{Deadline, Error, Key, Result};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::error::Failure;
use crate::pool::Conn;
use crate::shared::{Shared, Way};

/// How long giving a lock back may take before its connection is closed, which frees what a connection holds; and how
/// long after that a lease is given back again.
const RELEASING: Duration = Duration::from_millis(250);
const AGAIN: Duration = Duration::from_millis(100);
/// How long renewing, or trying a connection, may take.
const UPKEEP: Duration = Duration::from_secs(5);

/// What holds a lock.
pub(crate) enum Grip {
    /// A lease in the row: native.
    Row(i64),
    /// The place in line alone: Symfony's mode without locks. Others may change the record; it is compared when written.
    Line,
    /// A connection, by its session or its transaction. Gone when it was found broken.
    Connection(Arc<tokio::sync::Mutex<Option<Conn>>>),
}

/// A held lock.
pub(crate) struct SqlLease {
    shared: Arc<Shared>,
    key: Key,
    grip: Option<Grip>,
    found: Option<Record>,
    /// Shared with the watch: who finds the lock lost lets the next in line come forward.
    head: Arc<Mutex<Option<Head>>>,
    watch: Option<AbortHandle>,
}

impl SqlLease {
    pub(crate) fn new(shared: &Arc<Shared>, key: &Key, grip: Grip, found: Option<Record>, head: Head) -> SqlLease {
        let mut lease = SqlLease {
            shared: Arc::clone(shared),
            key: key.clone(),
            grip: Some(grip),
            found,
            head: Arc::new(Mutex::new(Some(head))),
            watch: None,
        };
        lease.watch = lease.keep_watch();
        lease
    }

    /// The lease of this very record of this very store, given back by a caller.
    pub(crate) fn recognise(lease: Box<dyn Lease>, shared: &Arc<Shared>, key: &Key) -> Result<SqlLease> {
        let Ok(lease) = lease.into_any().downcast::<SqlLease>() else {
            return Err(Error::misuse("commit with a lease of another kind of store"));
        };
        if !Arc::ptr_eq(&lease.shared, shared) || lease.key != *key {
            return Err(Error::misuse("commit with the lease of another record"));
        }
        Ok(*lease)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// What was there when the lock was taken.
    pub(crate) fn found(&self) -> Option<&Record> {
        self.found.as_ref()
    }

    /// Takes the lock out for its last use; nothing is given back then by dropping.
    pub(crate) async fn let_go(&mut self) -> Option<Held> {
        let grip = self.grip.take()?;
        let held = match grip {
            Grip::Row(token) => Held::Row(token),
            Grip::Line => Held::Line,
            // Not before an exchange of the watch has ended: cut off, it would cost the connection.
            Grip::Connection(slot) => match slot.lock().await.take() {
                Some(conn) => Held::Connection(conn),
                None => Held::Lost,
            },
        };
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        Some(held)
    }

    /// Renews a lease, and tries a connection, so that a lock that is lost is known to be.
    fn keep_watch(&self) -> Option<AbortHandle> {
        let (shared, key, head) = (Arc::clone(&self.shared), self.key.clone(), Arc::clone(&self.head));
        let period = shared.lease / 3;
        let lost = move || drop(head.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = match self.grip.as_ref()? {
            Grip::Line => return None,
            Grip::Row(token) => {
                let token = *token;
                self.shared.handle.spawn(async move {
                    loop {
                        sleep(period).await;
                        match renew(&shared, &key, token).await {
                            Ok(true) => {}
                            Ok(false) => return lost(),
                            Err(failure) => {
                                let error = failure.of_read();
                                tracing::warn!(session = %key.tag(), %error, "the lock on a session could not be renewed");
                            }
                        }
                    }
                })
            }
            Grip::Connection(slot) => {
                let slot = Arc::downgrade(slot);
                self.shared.handle.spawn(async move {
                    loop {
                        sleep(period).await;
                        let Some(slot) = slot.upgrade() else { return };
                        let mut conn = slot.lock().await;
                        let Some(held) = conn.as_mut() else { return };
                        if !matches!(timeout(UPKEEP, held.ping()).await, Ok(Ok(()))) {
                            tracing::warn!(session = %key.tag(), "the connection that held the lock on a session broke");
                            conn.take();
                            return lost();
                        }
                    }
                })
            }
        };
        Some(task.abort_handle())
    }
}

async fn renew(shared: &Shared, key: &Key, token: i64) -> Result<bool, Failure> {
    let Way::Native(native) = &shared.way else { return Ok(false) };
    let deadline = Deadline::new(UPKEEP, Duration::ZERO);
    let mut conn = shared.main.get(&deadline).await?;
    crate::pool::within(&deadline, native.renew(&mut conn, key.record(), token)).await
}

/// What was held, in the hands of who makes the last use of it.
pub(crate) enum Held {
    Row(i64),
    Line,
    Connection(Conn),
    Lost,
}

/// Frees a lock, and leaves the record as it is. What cannot be said now is said again beside whoever waits for this, until
/// the lock has run out.
pub(crate) async fn give_back(shared: &Arc<Shared>, key: &Key, held: Held) {
    match (held, &shared.way) {
        (Held::Row(token), Way::Native(_)) => {
            if release(shared, key, token).await.is_ok() {
                return;
            }
            let (shared, key, until) = (Arc::clone(shared), key.clone(), Instant::now() + shared.lease);
            shared.clone().spawn(async move {
                while let Err(failure) = release(&shared, &key, token).await {
                    if Instant::now() > until {
                        let error = failure.of_read();
                        tracing::warn!(session = %key.tag(), %error, "the lock on a session was free only when it had run out");
                        return;
                    }
                    sleep(AGAIN).await;
                }
            });
        }
        (Held::Connection(mut conn), Way::Symfony(symfony)) => {
            let limit = Deadline::new(RELEASING, Duration::ZERO);
            symfony.give_back(&mut conn, key, false, &limit).await;
        }
        _ => {}
    }
}

async fn release(shared: &Shared, key: &Key, token: i64) -> Result<(), Failure> {
    let Way::Native(native) = &shared.way else { return Ok(()) };
    let deadline = Deadline::new(RELEASING, Duration::ZERO);
    let mut conn = shared.main.get(&deadline).await?;
    crate::pool::within(&deadline, native.release(&mut conn, key.record(), token)).await
}

impl Lease for SqlLease {
    fn release(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let shared = Arc::clone(&self.shared);
            let released = shared.spawn(async move {
                if let Some(held) = self.let_go().await {
                    give_back(&self.shared, &self.key, held).await;
                }
            });
            let _ = released.await;
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl fmt::Debug for SqlLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlLease({})", self.key.tag())
    }
}

impl Drop for SqlLease {
    fn drop(&mut self) {
        let Some(grip) = self.grip.take() else {
            // The watch, which has a share of it, may be a moment longer in ending.
            drop(self.head.lock().unwrap_or_else(PoisonError::into_inner).take());
            return;
        };
        let mut rest = SqlLease {
            shared: Arc::clone(&self.shared),
            key: self.key.clone(),
            grip: None,
            found: None,
            head: Arc::clone(&self.head),
            watch: self.watch.take(),
        };
        // The next in line comes forward when the lock is free, and not before.
        self.shared.spawn(async move {
            rest.grip = Some(grip);
            if let Some(held) = rest.let_go().await {
                give_back(&rest.shared, &rest.key, held).await;
            }
        });
    }
}
