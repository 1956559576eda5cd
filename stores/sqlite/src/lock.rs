//! Locks: what holds them, and that they are given back.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cloakroom_core::line::Head;
use cloakroom_core::store::{BoxFuture, Lease, Version};
use cloakroom_core::{Error, Key, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::commit::Want;
use crate::job::{Job, Work};
use crate::shared::Shared;

/// Whose turn it is within the process: the head of the line for a record, or a part of the gate to the database.
pub(crate) struct Turn {
    _head: Option<Head>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl From<Head> for Turn {
    fn from(head: Head) -> Turn {
        Turn { _head: Some(head), _permit: None }
    }
}

impl From<OwnedSemaphorePermit> for Turn {
    fn from(permit: OwnedSemaphorePermit) -> Turn {
        Turn { _head: None, _permit: Some(permit) }
    }
}

/// A turn that two look after: its lease, and the thread that renews the lease and may find it lost.
pub(crate) type SharedTurn = Arc<Mutex<Option<Turn>>>;

/// Lets the next come forward.
pub(crate) fn take_turn(turn: &SharedTurn) -> Option<Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What holds a lock.
#[derive(Clone)]
pub(crate) enum Grip {
    /// A lease in the row, on a record of this version: the native layout.
    Row { token: i64, version: i64 },
    /// A transaction that has the whole database: Symfony's transactional mode.
    Whole { token: i64 },
    /// The place in line alone, and what was found: Symfony's mode without locks. It is compared when written.
    Line { found: Option<Version> },
}

/// A held lock.
pub(crate) struct SqliteLease {
    shared: Arc<Shared>,
    key: Key,
    grip: Option<Grip>,
    turn: SharedTurn,
}

impl SqliteLease {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, grip: Grip, turn: SharedTurn) -> SqliteLease {
        SqliteLease { shared, key, grip: Some(grip), turn }
    }

    /// The lease of this very record of this very store, given back by a caller.
    pub(crate) fn recognise(lease: Box<dyn Lease>, shared: &Arc<Shared>, key: &Key) -> Result<SqliteLease> {
        let Ok(lease) = lease.into_any().downcast::<SqliteLease>() else {
            return Err(Error::misuse("commit with a lease of another kind of store"));
        };
        if !Arc::ptr_eq(&lease.shared, shared) || lease.key != *key {
            return Err(Error::misuse("commit with the lease of another record"));
        }
        Ok(*lease)
    }

    /// What a commit under this lease expects.
    pub(crate) fn want(&self) -> Option<Want> {
        Some(match self.grip.clone()? {
            Grip::Row { token, version } => Want::Leased { token, version },
            Grip::Whole { .. } => Want::Whole,
            Grip::Line { found } => Want::Found(found),
        })
    }

    /// The commit that used it has freed the lock as well.
    pub(crate) fn is_used_up(&mut self) {
        self.grip = None;
        drop(take_turn(&self.turn));
    }

    fn give_back(&mut self, reply: Option<oneshot::Sender<()>>) {
        let token = match self.grip.take() {
            Some(Grip::Row { token, .. } | Grip::Whole { token }) => token,
            Some(Grip::Line { .. }) => return drop(take_turn(&self.turn)),
            None => return,
        };
        let work = Work::Release { key: self.key.clone(), token, reply };
        // The next in line comes forward when the lock is free, and not before.
        self.shared.send(Job::new(take_turn(&self.turn), work));
    }
}

impl Lease for SqliteLease {
    fn release(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let (reply, released) = oneshot::channel();
        self.give_back(Some(reply));
        Box::pin(async move {
            let _ = released.await;
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl fmt::Debug for SqliteLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteLease({})", self.key.tag())
    }
}

impl Drop for SqliteLease {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
