//! The guard of an open session: PHP's `$_SESSION` and the functions that end it.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cloakroom_php::Bag;
use http::HeaderValue;

use super::exchange::{Claimed, HeldRecord, Left, claim, exchange_the_one_lock, retire};
use super::replace::remove_copy;
use super::state::{Found, State};
use super::update::unexpected;
use super::{Open, Session};
use crate::store::{Expect, Lease, Outcome, Put};
use crate::{Deadline, Draft, Error, ErrorKind, Key, Result, SessionId, Snapshot};

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
    /// What a `regenerate_id(true)` has left.
    pub(super) left: Option<Box<Left>>,
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
    ///
    /// Other than in PHP, a [`regenerate_id(true)`](Started::regenerate_id) is discarded, too: the session goes on under
    /// its old id.
    pub async fn abort(mut self) -> Snapshot {
        let Opened { id, key, lease, draft, left, .. } = self.take();
        match (lease, left) {
            (Some(lease), Some(left)) => {
                let mut state = self.session.shared.state.lock().await;
                state.return_to(*left, Claimed { id, key, lease }).await;
            }
            (Some(lease), None) => lease.release().await,
            (None, _) => {}
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
        let mut opened = self.take();
        let session = self.session.clone();
        let mut state = session.shared.state.lock().await;
        let deadline = state.update_deadline();
        opened.end_left(&mut state, &deadline).await?;
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
    /// With `delete_old`, as at a login, the old session is dead before anything is written under the new id: when this
    /// one is closed, or [`end_old`](Started::end_old) says so. Other than in PHP, whoever is cancelled before that, by a
    /// timeout or by a visitor who clicks again, has lost nothing: the session is what it was, under its old id.
    /// (Where a store has one lock for all sessions, as SQLite in Symfony's layout, the old one dies here already, as in PHP.)
    ///
    /// Without `delete_old`, the old session stays as it is at this moment.
    ///
    /// If it fails, or its future is dropped, the session is open as before; if it fails while the old session was being
    /// let go, which is only done here without `delete_old`, the session has lost its lock and closing it answers
    /// [`Gone`](crate::ErrorKind::Gone).
    pub async fn regenerate_id(&mut self, delete_old: bool) -> Result<SessionId> {
        let session = self.session.clone();
        let mut state = session.shared.state.lock().await;
        state.must_mark()?;
        let deadline = state.update_deadline();
        // Before the lease is taken and the old session let go: what is too large fails here, and leaves it open.
        let payload = state.payload(self.opened.draft.to_bytes())?;
        let engine = state.engine.clone();
        let may_be_missing = delete_old && self.is_new();
        let opened = &mut *self.opened;
        opened.end_left(&mut state, &deadline).await?;
        let held = |lease| HeldRecord { key: opened.key.clone(), lease, may_be_missing };
        let new = if engine.store().capabilities().one_lock {
            let held = held(opened.lease.take().ok_or_else(Error::gone)?);
            let put = if delete_old { Put::Remove } else { Put::Payload(payload.clone()) };
            engine.complete(exchange_the_one_lock(engine.clone(), held, put, payload, deadline)).await?
        } else {
            // Meanwhile the lease stays where it is.
            let new = if opened.lease.is_some() { Some(claim(&engine, &deadline).await?) } else { None };
            let (new, lease) = new.zip(opened.lease.take()).ok_or_else(Error::gone)?;
            let record = held(lease);
            if delete_old {
                let cookie = state.head.cookie(&engine.settings().name);
                opened.left = Some(Box::new(Left { id: opened.id.clone(), record, cookie, engine: engine.clone() }));
                new
            } else {
                let put = Put::Payload(payload);
                let engine = engine.clone();
                let work = async move { retire(&engine, record, put, new, &deadline).await };
                state.engine.complete(work).await?
            }
        };
        (opened.id, opened.key, opened.lease) = (new.id.clone(), new.key, Some(new.lease));
        (opened.read, opened.marked) = (None, true);
        state.mark(new.id.clone());
        Ok(new.id)
    }

    /// After a [`regenerate_id(true)`](Started::regenerate_id): the old session is dead when this returns, and not only
    /// when this one is closed. That is PHP's order, in which a request that is cancelled in between loses the data.
    pub async fn end_old(&mut self) -> Result<()> {
        let session = self.session.clone();
        let mut state = session.shared.state.lock().await;
        let deadline = state.update_deadline();
        self.opened.end_left(&mut state, &deadline).await
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
        let Opened { id, key, lease, draft, read, marked, left } = &mut *self.opened;
        let empty = Draft::new(Bag::new(draft.bag().format()));
        Opened {
            id: id.clone(),
            key: key.clone(),
            lease: lease.take(),
            draft: std::mem::replace(draft, empty),
            read: read.take(),
            marked: *marked,
            left: left.take(),
        }
    }
}

impl Opened {
    /// PHP's write and close (`php_session_save_current_state`).
    pub(super) async fn close(self, state: &mut State) -> Result<()> {
        let (fresh, id) = (self.marked && self.read.is_none(), self.id.clone());
        let closed = self.write(state).await;
        if let Err(error) = &closed
            && state.id.as_ref() == Some(&id)
        {
            // The browser keeps the id it has: under that one its data may still be.
            state.unwritten |= fresh && !error.may_have_been_applied();
        }
        closed
    }

    async fn write(self, state: &mut State) -> Result<()> {
        let Opened { id, key, lease, draft, read, left, .. } = self;
        let Some(lease) = lease else { return Err(Error::gone()) };
        let settings = state.engine.settings();
        let unchanged = settings.lazy_write && read.is_some_and(|read| read == draft.as_bytes());
        let put = if unchanged {
            Put::Touch(settings.lifetime())
        } else {
            match state.payload(draft.to_bytes()) {
                Ok(payload) => Put::Payload(payload),
                Err(error) => {
                    if let Some(left) = left {
                        state.return_to(*left, Claimed { id, key, lease }).await;
                    }
                    return Err(error);
                }
            }
        };
        let deadline = state.update_deadline();
        state.found = Found::Unknown;
        let outcome = match left {
            None => state.engine.store().commit(&key, Expect::Held(lease), put, &deadline).await?,
            Some(left) => {
                let Left { id: old, record, cookie, .. } = *left;
                let engine = state.engine.clone();
                // In one piece: between the two the session is nowhere.
                let work = async move {
                    let new = retire(&engine, record, Put::Remove, Claimed { id, key, lease }, &deadline).await?;
                    Ok(engine.store().commit(&new.key, Expect::Held(new.lease), put, &deadline).await)
                };
                match state.engine.complete(work).await {
                    Ok(outcome) => outcome?,
                    Err(error) => {
                        state.stay_under(old, cookie, &error);
                        return Err(error);
                    }
                }
            }
        };
        match outcome {
            Outcome::Done(version) => {
                state.committed(draft.into_bag(), version);
                Ok(())
            }
            Outcome::Gone => state.absent(),
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// The request was cancelled. Dropped with the data, a lease releases its lock.
    pub(super) fn discard(self) {
        let Opened { key, lease, left, .. } = self;
        if let Some((left, lease)) = left.zip(lease) {
            let Left { record, engine, .. } = *left;
            let copy = engine.clone();
            engine.spawn(async move {
                record.lease.release().await;
                remove_copy(&copy, &key, Expect::Held(lease)).await;
            });
        }
    }

    /// Ends what a `regenerate_id(true)` has left. If that fails, this one is lost.
    async fn end_left(&mut self, state: &mut State, deadline: &Deadline) -> Result<()> {
        let Some(left) = self.left.take() else { return Ok(()) };
        let Some(lease) = self.lease.take() else { return Err(Error::gone()) };
        let Left { id: old, record, cookie, .. } = *left;
        let new = Claimed { id: self.id.clone(), key: self.key.clone(), lease };
        let (engine, deadline) = (state.engine.clone(), deadline.clone());
        let work = async move { retire(&engine, record, Put::Remove, new, &deadline).await };
        match state.engine.complete(work).await {
            Ok(new) => {
                self.lease = Some(new.lease);
                Ok(())
            }
            Err(error) => {
                state.stay_under(old, cookie, &error);
                Err(error)
            }
        }
    }
}

impl State {
    /// The session did not move: it is what it was.
    async fn return_to(&mut self, left: Left, new: Claimed) {
        let Left { id, record, cookie, .. } = left;
        self.unwritten |= record.may_be_missing;
        record.lease.release().await;
        remove_copy(&self.engine, &new.key, Expect::Held(new.lease)).await;
        self.back_to(id, cookie);
    }

    /// The session could not be moved.
    fn stay_under(&mut self, id: SessionId, cookie: Option<HeaderValue>, error: &Error) {
        self.back_to(id, cookie);
        if error.kind() == ErrorKind::Gone {
            // It is nowhere any more.
            let _ = self.absent();
        }
    }

    fn back_to(&mut self, id: SessionId, cookie: Option<HeaderValue>) {
        let name = self.engine.settings().name.clone();
        match cookie {
            Some(cookie) => self.head.set_cookie(&name, cookie),
            None => self.head.drop_cookie(&name),
        }
        (self.id, self.found) = (Some(id), Found::Unknown);
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
        if std::thread::panicking()
            && let Some(left) = &opened.left
            && let Ok(mut state) = self.session.shared.state.try_lock()
        {
            // A layer further in may make a response of the panic.
            state.back_to(left.id.clone(), left.cookie.clone());
        }
        let mut open = self.session.open();
        match *open {
            Open::Guarded | Open::Detached if std::thread::panicking() => {
                *open = Open::No;
                drop(open);
                opened.discard();
            }
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
            Open::Cancelled { .. } => {
                *open = Open::Cancelled { guarded: false };
                drop(open);
                opened.discard();
            }
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
