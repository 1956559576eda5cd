//! Locks: php-memcached's lock key (`php_memcached_session.c`, `s_lock_session`), with a value that is ours alone, a
//! life that is renewed for as long as the holder has it, and a release that touches nobody else's.
//!
//! PHP looks at whether the key is there, never at its value, and deletes it without asking whose it is. All that is
//! done to a lock here goes by its number for compare-and-swap. Where an answer was lost and the number is not
//! known, the value tells whether the lock is ours.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::line::Head;
use cloakroom_core::store::{BoxFuture, Lease, Record, Version};
use cloakroom_core::{Deadline, Error, Result, Running, Tag};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::layout;
use crate::pool::{Failure, Reply};
use crate::store::{Inner, Place, refused};
use crate::wait::Release;
use crate::wire::{Answer, Code, Facts, Flight};

/// How long one exchange about a lock may take for which no request waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Pauses between tries to give a lock back, or to renew it, that the server did not answer.
const PAUSE: Duration = Duration::from_millis(250);
/// Whose lock was confirmed within this time is not asked for it again before a commit.
const SURE: Duration = Duration::from_secs(1);

/// An item of one life of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) cas: u64,
    pub(crate) life: u64,
}

impl Item {
    /// As the version of a record.
    pub(crate) fn version(self) -> Version {
        Version::new([self.life.to_be_bytes(), self.cas.to_be_bytes()].concat())
    }
}

/// What was there when the lock was taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The record, unless there is none or this lock has made it.
    pub(crate) record: Option<Record>,
    /// Its item, or the empty one that this lock has made.
    pub(crate) item: Option<Item>,
    /// When its life ends.
    pub(crate) end: Option<Instant>,
}

impl Found {
    /// Whether its life has ended since, as far as can be told from here.
    pub(crate) fn has_ended(&self) -> bool {
        // The server's clock and ours do not tick together.
        const MARGIN: Duration = Duration::from_secs(2);
        self.end.is_some_and(|end| end <= Instant::now() + MARGIN)
    }
}

/// A lock that is held, or may be: from the moment it is asked for until it is known to be gone.
pub(crate) struct MemcachedLease {
    held: Option<Arc<Held>>,
    pub(crate) found: Found,
    tag: Tag,
}

/// What it takes to keep a lock, and to give it back.
pub(crate) struct Held {
    store: Arc<Inner>,
    place: Place,
    token: Bytes,
    state: Mutex<State>,
    renewal: OnceLock<AbortHandle>,
    runtime: Handle,
}

/// What is known about the lock.
pub(crate) struct State {
    item: Known,
    /// When it was last certain that the lock is held.
    sure: Instant,
    /// The place in line, kept until the lock is free or lost.
    head: Option<Head>,
}

enum Known {
    /// An answer was lost, or has not come yet: the lock may be held, under a number that nobody told.
    Unsure,
    Held(Item),
    /// Lost, or given back.
    Over,
}

impl MemcachedLease {
    /// A lease on a lock that is about to be asked for. Dropped, it sees to it that the lock is free.
    pub(crate) fn prepare(store: &Arc<Inner>, place: Place, tag: Tag, head: Head) -> MemcachedLease {
        let state = State { item: Known::Unsure, sure: Instant::now(), head: Some(head) };
        let held = Held {
            store: Arc::clone(store),
            place,
            token: store.token(),
            state: Mutex::new(state),
            renewal: OnceLock::new(),
            runtime: Handle::current(),
        };
        MemcachedLease { held: Some(Arc::new(held)), found: Found::default(), tag }
    }

    /// The lease of this very record of this very store, given back by a caller.
    pub(crate) fn recognise(lease: Box<dyn Lease>, store: &Arc<Inner>, place: &Place) -> Result<MemcachedLease> {
        let Ok(lease) = lease.into_any().downcast::<MemcachedLease>() else {
            return Err(Error::misuse("commit with a lease of another kind of store"));
        };
        match &lease.held {
            Some(held) if Arc::ptr_eq(&held.store, store) && held.place == *place => Ok(*lease),
            _ => Err(Error::misuse("commit with the lease of another record")),
        }
    }

    /// Who holds the lock.
    pub(crate) fn held(&self) -> Result<Arc<Held>> {
        self.held.clone().ok_or_else(lost)
    }

    /// Whether the lock is ours, by the answer to [`Held::ask`]. From now on it is kept alive then.
    pub(crate) async fn taken(&self, reply: &Reply, asked: Instant) -> Result<bool> {
        let held = self.held()?;
        let cas = match reply.answers.first() {
            Some(Answer { code: Code::Done, cas, .. }) => *cas,
            Some(Answer { code: Code::NotStored, .. }) => return Ok(false),
            _ => return Err(refused()),
        };
        let mut state = held.state.lock().await;
        state.item = Known::Held(Item { cas, life: reply.life });
        state.sure = asked;
        let renewal = held.runtime.spawn(renew(Arc::downgrade(&held), held.store.config.lock_expire));
        let _ = held.renewal.set(renewal.abort_handle());
        Ok(true)
    }

    /// Begins to give the lock back, in a task of its own.
    fn let_go(&mut self) -> Option<Running<()>> {
        let held = self.held.take()?;
        let release = held.store.release(&held.place);
        let (tasks, runtime) = (held.store.tasks.clone(), held.runtime.clone());
        Some(tasks.spawn(&runtime, held.free(release)))
    }

    /// The lock was given back together with what was written, if it was still ours.
    pub(crate) fn end(&mut self, state: &mut State) {
        state.end();
        if let Some(held) = self.held.take() {
            held.end_renewal();
        }
    }

    /// The error of who asked for the lock. Where the question was not even sent, there is nothing to give back.
    pub(crate) async fn not_asked_for(self, failure: Failure) -> Error {
        if !failure.sent {
            self.settle().await;
        }
        failure.of_read()
    }

    /// The server has told that somebody else has the lock: what is left is the place in line.
    pub(crate) async fn settle(mut self) -> Option<Head> {
        let held = self.held.take()?;
        let mut state = held.state.lock().await;
        state.item = Known::Over;
        state.head.take()
    }
}

impl Held {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Asks for the lock: alone, or as the first command of a flight.
    pub(crate) fn ask(&self, flight: Flight, facts: &Facts) -> Flight {
        let expiry = layout::expiry(self.store.config.lock_expire, facts.time());
        flight.set(&self.place.names.lock, &self.token, &format!("ME T{expiry} c"))
    }

    /// For a commit: nothing renews or releases the lock meanwhile, and it was ours a moment ago.
    pub(crate) async fn confirmed(&self, deadline: &Deadline) -> Result<(MutexGuard<'_, State>, Item)> {
        // A renewal may be under way: it holds the state for as long as the server may take, longer than a request has.
        let mut state = deadline.io(self.state.lock()).await?;
        if state.sure.elapsed() > SURE || matches!(state.item, Known::Unsure) {
            self.extend(&mut state, deadline).await.map_err(Failure::of_read)?;
        }
        match state.item {
            Known::Held(item) => Ok((state, item)),
            Known::Over | Known::Unsure => Err(lost()),
        }
    }

    /// Extends the lock's life if it is still ours; if not, the state says so.
    async fn extend(&self, state: &mut State, deadline: &Deadline) -> Result<(), Failure> {
        if matches!(state.item, Known::Unsure) {
            self.find(state, deadline).await?;
        }
        let Known::Held(item) = state.item else { return Ok(()) };
        let asked = Instant::now();
        let flight = |facts: &Facts| {
            let expiry = layout::expiry(self.store.config.lock_expire, facts.time());
            let flags = format!("C{} T{expiry} c", item.cas);
            (facts.life == item.life).then(|| Flight::default().set(&self.place.names.lock, &self.token, &flags))
        };
        let reply = match self.store.servers[self.place.lock].write(flight, deadline).await {
            Ok(reply) => reply,
            Err(failure) if failure.restarted => {
                state.item = Known::Over;
                return Ok(());
            }
            Err(failure) => {
                if failure.sent {
                    state.item = Known::Unsure;
                }
                return Err(failure);
            }
        };
        match reply.answers.first() {
            Some(Answer { code: Code::Done, cas, .. }) => {
                state.item = Known::Held(Item { cas: *cas, life: reply.life });
                state.sure = asked;
            }
            _ => state.item = Known::Over,
        }
        Ok(())
    }

    /// Finds out by the lock's value whether it is ours.
    async fn find(&self, state: &mut State, deadline: &Deadline) -> Result<(), Failure> {
        let flight = |_: &Facts| Some(Flight::default().get(&self.place.names.lock, "v c"));
        let reply = self.store.servers[self.place.lock].write(flight, deadline).await?;
        state.item = match reply.answers.first() {
            Some(Answer { code: Code::Done, value, cas, .. }) if *value == self.token => {
                Known::Held(Item { cas: *cas, life: reply.life })
            }
            _ => Known::Over,
        };
        Ok(())
    }

    /// Gives the lock back, and does not give up before it has ended by itself.
    async fn free(self: Arc<Held>, release: Release) {
        let begun = Instant::now();
        let mut state = self.state.lock().await;
        self.end_renewal();
        let mut looked = false;
        while !matches!(state.item, Known::Over) && begun.elapsed() < self.store.config.lock_expire {
            let unsure = matches!(state.item, Known::Unsure);
            match self.let_go(&mut state).await {
                // What was sent and not answered may still arrive after a first look.
                Ok(false) if unsure && !looked => {
                    looked = true;
                    state.item = Known::Unsure;
                }
                Ok(_) => break,
                Err(error) => tracing::debug!(?error, "a lock in Memcached could not be given back yet"),
            }
            drop(state.head.take());
            sleep(PAUSE).await;
        }
        state.end();
        drop(release);
    }

    fn end_renewal(&self) {
        if let Some(renewal) = self.renewal.get() {
            renewal.abort();
        }
    }

    /// Whether it was there to be given back.
    async fn let_go(&self, state: &mut State) -> Result<bool, Failure> {
        let deadline = Deadline::new(PATIENCE, Duration::ZERO);
        if matches!(state.item, Known::Unsure) {
            self.find(state, &deadline).await?;
        }
        let Known::Held(item) = state.item else { return Ok(false) };
        let flight = |facts: &Facts| {
            (facts.life == item.life)
                .then(|| Flight::default().delete(&self.place.names.lock, &format!("C{}", item.cas)))
        };
        match self.store.servers[self.place.lock].write(flight, &deadline).await {
            Ok(_) => Ok(true),
            // Another life of the server has none of its locks.
            Err(failure) if failure.restarted => Ok(true),
            Err(failure) => Err(failure),
        }
    }
}

impl State {
    fn end(&mut self) {
        self.item = Known::Over;
        self.head.take();
    }
}

/// Lets a lock live on until it is given back or lost.
async fn renew(held: Weak<Held>, life: Duration) {
    let mut pause = life / 3;
    loop {
        sleep(pause).await;
        let Some(held) = held.upgrade() else { return };
        let mut state = held.state.lock().await;
        if matches!(state.item, Known::Over) {
            return;
        }
        let asked = held.extend(&mut state, &Deadline::new(PATIENCE.min(life / 3), Duration::ZERO)).await;
        if asked.is_err() && state.sure.elapsed() < life {
            pause = PAUSE;
            continue;
        }
        pause = life / 3;
        if asked.is_err() || matches!(state.item, Known::Over) {
            tracing::warn!(
                "a session's lock in Memcached was lost while it was held; what its holder writes is refused"
            );
            state.end();
            return;
        }
    }
}

/// The error of who holds a lock no more.
#[cold]
pub(crate) fn lost() -> Error {
    Error::unavailable("change a session whose lock was lost; nothing was changed")
}

impl Lease for MemcachedLease {
    fn release(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let freed = self.let_go();
        Box::pin(async {
            if let Some(freed) = freed {
                let _ = timeout(PATIENCE, freed).await;
            }
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl fmt::Debug for MemcachedLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemcachedLease({})", self.tag)
    }
}

impl Drop for MemcachedLease {
    fn drop(&mut self) {
        self.let_go();
    }
}
