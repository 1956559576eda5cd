//! The guard of an open session: PHP's `$_SESSION` and the functions that end it.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cloakroom_php::Bag;

use super::exchange::{Exchanged, HeldRecord, exchange, exchange_the_one_lock};
use super::state::{Found, State};
use super::update::unexpected;
use super::{Open, Session};
use crate::store::{Expect, Lease, Outcome, Put};
use crate::{Draft, Error, Key, Result, SessionId, Snapshot};

/// An open session: the lock is held.
///
/// It can be read and changed as a [`Draft`]. Dropped, it hands its data back to the request, which writes them before
/// the head of the response leaves, whatever its status code; a panic or a cancelled request discards them and
/// releases the lock. Moved into a body or a task that outlives the head, it keeps the lock and must be closed there.
#[must_use = "dropped at once, it is written unchanged when the request ends"]
pub struct Started {
    session: Session,
    /// Taken when it is closed, so that dropping the guard finds nothing to do.
    opened: Box<Opened>,
    closed: bool,
}

/// What an open session consists of.
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) key: Key,
    /// `None` only after a `regenerate_id` that failed midway.
    pub(super) lease: Option<Box<dyn Lease>>,
    pub(super) draft: Draft,
    /// What was read, for PHP's `lazy_write`; `None` for a new session, which is written even if it is empty.
    pub(super) read: Option<Bytes>,
    /// The id is new to the browser.
    pub(super) marked: bool,
}

impl Started {
    pub(super) fn new(session: Session, opened: Opened) -> Started {
        Started { session, opened: Box::new(opened), closed: false }
    }

    /// PHP's `session_id()`.
    pub fn id(&self) -> &SessionId {
        &self.opened.id
    }

    /// True if this start has made the session, and not found it.
    pub fn is_new(&self) -> bool {
        self.opened.read.is_none()
    }

    /// PHP's `session_write_close()`: writes the session, or only lets it live on if nothing has changed, and
    /// releases the lock.
    pub async fn write_close(mut self) -> Result<()> {
        let opened = self.take();
        let session = self.session.clone();
        let mut state = session.shared.state.lock().await;
        opened.close(&mut state).await
    }

    /// PHP's `session_abort()`: discards what was changed and releases the lock. What the session held in memory is
    /// still there to be read.
    pub async fn abort(mut self) -> Snapshot {
        let Opened { lease, draft, .. } = self.take();
        if let Some(lease) = lease {
            lease.release().await;
        }
        Snapshot::new(draft.into_bag(), true)
    }

    /// PHP's `session_reset()`: goes back to what was read. The lock was held, so that the store has not changed.
    pub fn reset(&mut self) -> Result<()> {
        let format = self.opened.draft.bag().format();
        let bag = match &self.opened.read {
            Some(read) => Bag::parse(format, read.clone())?,
            None => Bag::new(format),
        };
        self.opened.draft = Draft::new(bag.with_options(self.opened.draft.bag().options()));
        Ok(())
    }

    /// PHP's `session_destroy()`: the session is dead, and nothing is said to the browser. See
    /// [`Session::destroy`] for a logout.
    pub async fn destroy(self) -> Result<bool> {
        self.end(Put::Remove).await
    }

    /// Ends the session as [`destroy`](Started::destroy) does, and keeps a copy of its record for people to look at.
    pub async fn set_aside(self) -> Result<bool> {
        self.end(Put::SetAside).await
    }

    async fn end(mut self, put: Put) -> Result<bool> {
        let opened = self.take();
        let session = self.session.clone();
        let mut state = session.shared.state.lock().await;
        let deadline = state.update_deadline();
        let expect = opened.lease.map_or(Expect::Any, Expect::Held);
        let outcome = state.engine.store().commit(&opened.key, expect, put, &deadline).await?;
        state.forget();
        match outcome {
            Outcome::Removed(_) => Ok(true),
            Outcome::Gone => Ok(false),
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// PHP's `session_regenerate_id()`: the data go on under a new id, which the browser gets.
    ///
    /// With `delete_old`, as at a login, the old session is dead when this returns; without, it stays as it is at this
    /// moment. Other than in PHP, the new record exists and is locked before the old one is let go.
    ///
    /// If it fails before the old session was let go, the session is open as before; if it fails while that was being
    /// done, or its future is dropped (a timeout around it), the session has lost its lock and closing it answers
    /// [`Gone`](crate::ErrorKind::Gone). With `delete_old`, what the session held is then lost, as it is in PHP when the
    /// process ends or the client goes away before the session is closed: close it soon.
    pub async fn regenerate_id(&mut self, delete_old: bool) -> Result<SessionId> {
        let session = self.session.clone();
        let mut state = session.shared.state.lock().await;
        state.must_mark()?;
        let deadline = state.update_deadline();
        // Before the lease is taken and the old session retired: what is too large fails here, and leaves it open.
        let payload = state.payload(self.opened.draft.to_bytes())?;
        let put = if delete_old { Put::Remove } else { Put::Payload(payload.clone()) };
        let lease = self.opened.lease.take().ok_or_else(Error::gone)?;
        let engine = state.engine.clone();
        let held = HeldRecord { key: self.opened.key.clone(), lease, may_be_missing: delete_old && self.is_new() };
        let exchanged = if engine.store().capabilities().one_lock {
            engine.complete(exchange_the_one_lock(engine.clone(), held, put, payload, deadline)).await?
        } else {
            engine.complete(exchange(engine.clone(), held, put, deadline)).await?
        };
        match exchanged {
            Exchanged::New { id, key, lease } => {
                let opened = &mut *self.opened;
                (opened.id, opened.key, opened.lease) = (id.clone(), key, Some(lease));
                (opened.read, opened.marked) = (None, true);
                state.mark(id.clone());
                Ok(id)
            }
            Exchanged::Old { lease, error } => {
                self.opened.lease = Some(lease);
                Err(error)
            }
        }
    }

    /// PHP's `session_encode()`; `None` where PHP gives false.
    pub fn encode(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.bag().encode()?)
    }

    /// PHP's `session_decode()`: `php` and `php_binary` data are merged into the session, `php_serialize` data
    /// replace it.
    pub fn decode(&mut self, data: &[u8]) -> Result<()> {
        Ok(self.bag_mut().merge(data)?)
    }

    /// Takes the data out for closing; from here on the request has no open session.
    fn take(&mut self) -> Opened {
        self.closed = true;
        let opened = self.take_data();
        let mut open = self.session.open();
        match *open {
            Open::Guarded | Open::Detached => *open = Open::No,
            Open::Cancelled { .. } => *open = Open::Cancelled { guarded: false },
            Open::No | Open::Returned(_) => {}
        }
        opened
    }

    fn take_data(&mut self) -> Opened {
        let Opened { id, key, lease, draft, read, marked } = &mut *self.opened;
        let empty = Draft::new(Bag::new(draft.bag().format()));
        Opened {
            id: id.clone(),
            key: key.clone(),
            lease: lease.take(),
            draft: std::mem::replace(draft, empty),
            read: read.take(),
            marked: *marked,
        }
    }
}

impl Opened {
    /// PHP's write and close (`php_session_save_current_state`).
    pub(super) async fn close(self, state: &mut State) -> Result<()> {
        let fresh = self.marked && self.read.is_none();
        let closed = self.write(state).await;
        if let Err(error) = &closed {
            // The browser keeps the id it has: under that one its data may still be.
            state.unwritten |= fresh && !error.may_have_been_applied();
        }
        closed
    }

    async fn write(self, state: &mut State) -> Result<()> {
        let Opened { key, lease, draft, read, .. } = self;
        let Some(lease) = lease else { return Err(Error::gone()) };
        let settings = state.engine.settings();
        let unchanged = settings.lazy_write && read.is_some_and(|read| read == draft.as_bytes());
        let put =
            if unchanged { Put::Touch(settings.lifetime()) } else { Put::Payload(state.payload(draft.to_bytes())?) };
        let deadline = state.update_deadline();
        state.found = Found::Unknown;
        match state.engine.store().commit(&key, Expect::Held(lease), put, &deadline).await? {
            Outcome::Done(version) => {
                state.committed(draft.into_bag(), version);
                Ok(())
            }
            Outcome::Gone => state.absent(),
            outcome => Err(unexpected(&outcome)),
        }
    }
}

impl Deref for Started {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.opened.draft
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Draft {
        &mut self.opened.draft
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let opened = self.take_data();
        let mut open = self.session.open();
        match *open {
            // Dropped with the data, a lease releases its lock.
            Open::Guarded | Open::Detached if std::thread::panicking() => *open = Open::No,
            Open::Guarded => *open = Open::Returned(opened),
            Open::Detached => {
                *open = Open::No;
                drop(open);
                let session = self.session.clone();
                let engine = session.shared.engine.clone();
                let mut work = Box::pin(async move {
                    let tag = opened.id.tag();
                    let mut state = session.shared.state.lock().await;
                    next_poll().await;
                    if let Err(error) = opened.close(&mut state).await {
                        tracing::error!(session = %tag, %error, "a session that outlived its request was not written");
                    }
                });
                // Takes the state, or queues for it, at once: a verb that came first would wait for this very lock.
                let _ = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                engine.spawn(work);
            }
            Open::Cancelled { .. } => *open = Open::Cancelled { guarded: false },
            Open::No | Open::Returned(_) => {}
        }
    }
}

/// Ends the poll that it is first met in. Whoever made that poll sees to the next.
async fn next_poll() {
    let mut met = false;
    poll_fn(|_| if std::mem::replace(&mut met, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("id", self.id()).finish_non_exhaustive()
    }
}
