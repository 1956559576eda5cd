//! Waiting for a lock and taking it, together with what lies behind it.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::line::{Head, pauses};
use cloakroom_core::{Deadline, Error, Key, Result, Tag};
use tokio::time::{Instant, sleep, timeout_at};

use crate::MemcachedStore;
use crate::layout;
use crate::lock::{Found, Item, MemcachedLease, PATIENCE};
use crate::pool::Failure;
use crate::store::{Inner, Place, found, refused};
use crate::wire::{Answer, Code, Facts, Flight};

/// What a lock is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Existing,
    New,
    Either,
    /// Only the lock: the record is made at once, and only if there is none.
    Create,
}

/// How one attempt to get a lock ended.
enum Attempt {
    Got(MemcachedLease),
    /// Somebody else has it.
    Busy(Head),
    NotMet,
}

impl MemcachedStore {
    /// Waits for the lock and takes it. Each attempt runs to its end by itself; a lock that arrives when nobody waits
    /// for it any more is given back by its lease.
    pub(crate) async fn acquire(
        &self,
        key: &Key,
        place: Place,
        want: Want,
        deadline: &Deadline,
    ) -> Result<Option<MemcachedLease>> {
        let begun = Instant::now();
        let mut head = self.inner.stand(key, &place, deadline).await?;
        let mut pauses = pauses();
        let mut first = true;
        loop {
            // Asking whether a lock is still held is part of waiting. It is no longer so once the lock is ours.
            let asked = Instant::now();
            let trial = Deadline::new(deadline.io_left(), Duration::ZERO);
            let attempt = attempt(Arc::clone(&self.inner), key.tag(), place.clone(), want, first, head, trial);
            head = match self.inner.complete(attempt).await {
                Ok(Attempt::Busy(head)) => head,
                ended => {
                    deadline.spend(asked.elapsed());
                    return match ended? {
                        Attempt::Got(lease) => Ok(Some(lease)),
                        Attempt::NotMet | Attempt::Busy(_) => Ok(None),
                    };
                }
            };
            first = false;
            let pause = pauses.next().unwrap_or_default();
            if Instant::now() >= deadline.wait_until() || timeout_at(deadline.wait_until(), sleep(pause)).await.is_err()
            {
                return Err(Error::locked(begun.elapsed()));
            }
        }
    }
}

impl Inner {
    /// Waits to be the head of the line for this lock.
    async fn stand(&self, key: &Key, place: &Place, deadline: &Deadline) -> Result<Head> {
        let begun = Instant::now();
        // A lock that is being given back is as good as free: until it is, we talk to its server and wait for nobody.
        let wait = deadline.wait_until().saturating_duration_since(begun);
        if wait < PATIENCE && open(&self.releases).contains_key(&place.names.lock) {
            let deadline = deadline.with_lock_wait(wait.max(deadline.io_left().min(PATIENCE)));
            return self.lines.stand(key, &deadline).await;
        }
        self.lines.stand(key, deadline).await
    }

    /// The lock of this place is being given back; it is so until what is returned is dropped.
    pub(crate) fn release(self: &Arc<Inner>, place: &Place) -> Release {
        *open(&self.releases).entry(place.names.lock.clone()).or_default() += 1;
        Release { store: Arc::clone(self), lock: place.names.lock.clone() }
    }
}

/// See [`Inner::release`].
pub(crate) struct Release {
    store: Arc<Inner>,
    lock: Vec<u8>,
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = open(&self.store.releases).entry(std::mem::take(&mut self.lock)) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Asks for a lock once, and for what lies behind it.
async fn attempt(
    store: Arc<Inner>,
    tag: Tag,
    place: Place,
    want: Want,
    first: bool,
    head: Head,
    deadline: Deadline,
) -> Result<Attempt> {
    let lease = MemcachedLease::prepare(&store, place, tag, head);
    if want == Want::New {
        claim(&store, lease, &deadline).await
    } else {
        take(&store, lease, want, first, &deadline).await
    }
}

/// What is there is read after the lock is ours: on one server in the same flight, unless the lock was not free just
/// now and is likely not to be so again.
async fn take(
    store: &Inner,
    mut lease: MemcachedLease,
    want: Want,
    first: bool,
    deadline: &Deadline,
) -> Result<Attempt> {
    let held = lease.held()?;
    let place = held.place();
    let together = first && place.is_one() && want != Want::Create;
    let flight = |facts: &Facts| {
        let flight = held.ask(Flight::default(), facts);
        Some(if together { flight.get(&place.names.data, "v c t") } else { flight })
    };
    let asked = Instant::now();
    let reply = match store.servers[place.lock].write(flight, deadline).await {
        Ok(reply) => reply,
        Err(failure) => return Err(lease.not_asked_for(failure).await),
    };
    if !lease.taken(&reply, asked).await? {
        return Ok(lease.settle().await.map_or(Attempt::NotMet, Attempt::Busy));
    }
    lease.found = match want {
        Want::Create => Found::default(),
        _ if together => found(&reply, 1)?,
        _ => store.read(place, deadline).await?,
    };
    Ok(if want == Want::Existing && lease.found.record.is_none() { Attempt::NotMet } else { Attempt::Got(lease) })
}

/// As PHP claims a new id: an empty record is made, which only one can do, and the lock taken. Neither has to come first.
async fn claim(store: &Inner, mut lease: MemcachedLease, deadline: &Deadline) -> Result<Attempt> {
    let held = lease.held()?;
    let place = held.place();
    let (data, lock) = (&store.servers[place.data], &store.servers[place.lock]);
    let make = |flight: Flight, facts: &Facts| {
        let expiry = layout::expiry(store.config.lifetime, facts.time());
        flight.set(&place.names.data, b"", &format!("ME T{expiry} c"))
    };
    let asked = Instant::now();
    let (locked, made, at) = if place.is_one() {
        let both = |facts: &Facts| Some(make(held.ask(Flight::default(), facts), facts));
        match lock.write(both, deadline).await.map(Arc::new) {
            Ok(reply) => (Arc::clone(&reply), reply, 1),
            Err(failure) => return Err(lease.not_asked_for(failure).await),
        }
    } else {
        let lock = lock.write(|facts| Some(held.ask(Flight::default(), facts)), deadline);
        let make = data.write(|facts| Some(make(Flight::default(), facts)), deadline);
        match tokio::join!(lock, make) {
            (Ok(locked), Ok(made)) => (Arc::new(locked), Arc::new(made), 0),
            (Err(failure), _) => return Err(lease.not_asked_for(failure).await),
            (_, Err(failure)) => return Err(failure.of_read()),
        }
    };
    let got = lease.taken(&locked, asked).await?;
    let item = match made.answers.get(at) {
        Some(Answer { code: Code::Done, cas, .. }) => Some(Item { cas: *cas, life: made.life }),
        Some(Answer { code: Code::NotStored, .. }) => None,
        _ => return Err(refused()),
    };
    match (got, item) {
        (true, Some(item)) => {
            lease.found = Found { record: None, item: Some(item), end: asked.checked_add(store.config.lifetime) };
            Ok(Attempt::Got(lease))
        }
        (true, None) => Ok(Attempt::NotMet),
        (false, None) => {
            lease.settle().await;
            Ok(Attempt::NotMet)
        }
        (false, Some(item)) => {
            // Somebody holds the lock of a record that is not there yet: it is not ours to make.
            let undo = |facts: &Facts| {
                let flags = format!("C{}", item.cas);
                (facts.life == item.life).then(|| Flight::default().delete(&place.names.data, &flags))
            };
            let head = lease.settle().await;
            data.write(undo, deadline).await.map_err(Failure::of_read)?;
            Ok(head.map_or(Attempt::NotMet, Attempt::Busy))
        }
    }
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
