//! The store itself: reading, waiting for locks, and which of the two a commit needs first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::line::{Head, Lines, pauses};
use cloakroom_core::store::{Capabilities, Claim, Expect, Locked, Outcome, Payload, Put, Record, Swept, Version};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Random, Result, Store, SystemRandom, Tag};
use tokio::time::{Instant, sleep, timeout_at};

use crate::MemcachedConfig;
use crate::commit::{Ended, finish};
use crate::layout::{self, Names};
use crate::lock::{Found, Item, MemcachedLease, PATIENCE};
use crate::pool::{Failure, Reply, Server};
use crate::ring::Ring;
use crate::wire::{Answer, Code, Facts, Flight};

/// How long opening a store may take to find out whether its servers are there.
const GREETING: Duration = Duration::from_millis(500);

/// Sessions in Memcached. All clones share the same connections.
#[derive(Clone)]
pub struct MemcachedStore {
    pub(crate) inner: Arc<Inner>,
}

/// What all handles of a store share.
pub(crate) struct Inner {
    pub(crate) config: MemcachedConfig,
    pub(crate) servers: Vec<Server>,
    ring: Ring,
    lines: Lines,
    /// Which locks are being given back, and how often.
    releases: Mutex<HashMap<Vec<u8>, usize>>,
    /// What all locks of this store begin with, and how many there were.
    token: (String, AtomicU64),
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

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a record and its lock are: their keys, and the numbers of their servers.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) names: Names,
    pub(crate) data: usize,
    pub(crate) lock: usize,
}

impl Place {
    /// One server has both, so that one flight does for both.
    pub(crate) fn is_one(&self) -> bool {
        self.data == self.lock
    }
}

impl MemcachedStore {
    /// A store on these servers. It does not fail because one of them is away: connections are made when they are needed.
    ///
    /// [`ErrorKind::Config`] where the configuration cannot be right.
    pub async fn open(config: MemcachedConfig) -> Result<MemcachedStore> {
        let config = config.checked()?;
        let nodes: Vec<_> = config.servers.iter().map(crate::config::MemcachedServer::node).collect();
        let ring = Ring::new(config.hash, &nodes);
        let server = |server: &crate::MemcachedServer| Server::new(server.address.clone(), config.connections);
        let mut random = [0; 16];
        SystemRandom.fill(&mut random)?;
        let token = format!("cloakroom:{:032x}.", u128::from_be_bytes(random));
        let servers = config.servers.iter().map(server).collect();
        let token = (token, AtomicU64::new(0));
        let inner = Inner { config, servers, ring, lines: Lines::default(), releases: Mutex::default(), token };
        let deadline = Deadline::new(GREETING, Duration::ZERO);
        for server in &inner.servers {
            if let Err(failure) = server.greet(&deadline).await {
                tracing::warn!(error = %failure.of_read(), "a server of the store is not there yet");
            }
        }
        Ok(MemcachedStore { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemcachedStore").field(&self.inner.servers).finish()
    }
}

impl Inner {
    /// `None` for names that no record can have.
    pub(crate) fn place(&self, key: &Key) -> Option<Place> {
        let names = Names::of(&self.config.prefix, key)?;
        let data = self.ring.server(layout::data_route(key));
        Some(Place { names, data, lock: self.ring.server(&layout::lock_route(key)) })
    }

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

    /// A value that no other lock has.
    pub(crate) fn token(&self) -> Bytes {
        format!("{}{}", self.token.0, self.token.1.fetch_add(1, Ordering::Relaxed)).into()
    }

    pub(crate) fn max_payload(&self) -> u64 {
        let sizes = self.servers.iter().map(|server| layout::max_payload(server.item_size_max()));
        sizes.min().unwrap_or(0)
    }

    /// What is there, without a lock, in one round trip.
    pub(crate) async fn read(&self, place: &Place, deadline: &Deadline) -> Result<Found> {
        let flight = || Flight::default().get(&place.names.data, "v c t");
        found(&self.servers[place.data].read(flight, deadline).await?, 0)
    }

    /// Lets a record live for so long from now on, whoever holds the lock.
    async fn touch(&self, place: &Place, life: Duration, deadline: &Deadline) -> Result<Outcome> {
        let flight = |facts: &Facts| {
            let flags = format!("T{} c", layout::expiry(life, facts.time()));
            Some(Flight::default().get(&place.names.data, &flags))
        };
        let reply = self.servers[place.data].write(flight, deadline).await.map_err(Failure::of_write)?;
        touched(reply.answers.first().ok_or_else(refused)?, reply.life)
    }
}

/// The record in an answer to `mg … v c t`.
pub(crate) fn found(reply: &Reply, at: usize) -> Result<Found> {
    match reply.answers.get(at) {
        Some(Answer { code: Code::Done, value, cas, ttl }) => {
            let item = Item { cas: *cas, life: reply.life };
            let ttl = ttl.map(Duration::from_secs);
            let end = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
            Ok(Found { record: Some(Record::new(value.clone(), item.version(), ttl)), item: Some(item), end })
        }
        Some(Answer { code: Code::Missing, .. }) => Ok(Found::default()),
        _ => Err(refused()),
    }
}

/// How an answer to `mg … T c` reads.
pub(crate) fn touched(answer: &Answer, life: u64) -> Result<Outcome> {
    match answer.code {
        Code::Done => Ok(Outcome::Done(Some(Item { cas: answer.cas, life }.version()))),
        Code::Missing => Ok(Outcome::Gone),
        _ => Err(refused()),
    }
}

/// An answer that the command cannot have.
#[cold]
pub(crate) fn refused() -> Error {
    Error::unavailable("talk to a Memcached server: it refused the command; its meta commands are needed, as in 1.6")
}

impl Store for MemcachedStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.php_locks = self.inner.config.php_locks;
        capabilities.expires_by_itself = true;
        capabilities.persistent = true;
        capabilities.shared = true;
        capabilities.max_payload = Some(self.inner.max_payload());
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let Some(place) = self.inner.place(key) else { return Ok(None) };
        Ok(self.inner.read(&place, deadline).await?.record)
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let want = match claim {
            Claim::Existing => Want::Existing,
            Claim::New => Want::New,
            Claim::Either => Want::Either,
            _ => return Err(Error::new(ErrorKind::Unsupported, "lock by a claim that is not known")),
        };
        let Some(place) = self.inner.place(key) else {
            return if want == Want::Existing { Ok(None) } else { Err(no_such_key()) };
        };
        let lease = self.acquire(key, place, want, deadline).await?;
        Ok(lease.map(|lease| {
            let record = lease.found.record.clone();
            Locked::new(Box::new(lease), record)
        }))
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        if !matches!(put, Put::Payload(_) | Put::Touch(_) | Put::Remove | Put::SetAside) {
            return Err(Error::new(ErrorKind::Unsupported, "commit what this store does not know"));
        }
        if let Put::Payload(Payload { bytes, .. }) = &put
            && u64::try_from(bytes.len()).map_or(true, |length| length > self.inner.max_payload())
        {
            return Err(Error::new(ErrorKind::TooLarge, "write a session that is larger than Memcached's items"));
        }
        let place = self.inner.place(key);
        match (expect, put) {
            (Expect::Held(lease), put) => {
                let place = place.ok_or_else(no_such_key)?;
                let lease = MemcachedLease::recognise(lease, &self.inner, &place)?;
                let write = finish(Arc::clone(&self.inner), lease, put, true, deadline.clone());
                match complete(write).await? {
                    Ended::As(outcome) => Ok(outcome),
                    Ended::Changed => Err(changed()),
                }
            }
            (Expect::Absent, Put::Payload(payload)) => self.create(key, place, payload, deadline).await,
            (Expect::Absent, _) => match place {
                Some(place) => {
                    let there = self.inner.read(&place, deadline).await?.record.is_some();
                    Ok(if there { Outcome::Taken } else { Outcome::Gone })
                }
                None => Ok(Outcome::Gone),
            },
            (Expect::Any, put) => self.change(key, place, None, put, deadline).await,
            (Expect::Is(version), put) => self.change(key, place, Some(version), put, deadline).await,
            _ => Err(Error::new(ErrorKind::Unsupported, "commit on a condition that this store does not know")),
        }
    }

    /// Memcached forgets what has expired by itself.
    async fn sweep(&self, _: usize) -> Result<Swept> {
        Ok(Swept::new(0, true))
    }
}

/// What a lock is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
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
    /// A new record under a name that nobody holds.
    async fn create(&self, key: &Key, place: Option<Place>, payload: Payload, deadline: &Deadline) -> Result<Outcome> {
        let place = place.ok_or_else(no_such_key)?;
        let Some(lease) = self.acquire(key, place, Want::Create, deadline).await? else { return Ok(Outcome::Taken) };
        let write = finish(Arc::clone(&self.inner), lease, Put::Payload(payload), false, deadline.clone());
        match complete(write).await? {
            Ended::As(outcome) => Ok(outcome),
            Ended::Changed => Ok(Outcome::Taken),
        }
    }

    /// A change of what is there. A touch of whichever record changes no data and needs no lock.
    async fn change(
        &self,
        key: &Key,
        place: Option<Place>,
        is: Option<&Version>,
        put: Put,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        let Some(place) = place else { return Ok(Outcome::Gone) };
        if let (Put::Touch(life), None) = (&put, is) {
            return self.inner.touch(&place, *life, deadline).await;
        }
        loop {
            let lease = self.acquire(key, place.clone(), Want::Existing, deadline).await?;
            let Some((found, lease)) = lease.and_then(|lease| Some((lease.found.record.clone()?, lease))) else {
                return Ok(Outcome::Gone);
            };
            if is.is_some_and(|version| found.version != *version) {
                return Ok(Outcome::Conflict(found));
            }
            let put = match &put {
                Put::Payload(payload) => Put::Payload(payload.clone()),
                Put::Touch(life) => Put::Touch(*life),
                Put::SetAside => Put::SetAside,
                _ => Put::Remove,
            };
            // A peer that takes no lock was faster: look again.
            if let Ended::As(outcome) =
                complete(finish(Arc::clone(&self.inner), lease, put, false, deadline.clone())).await?
            {
                return Ok(outcome);
            }
        }
    }

    /// Waits for the lock and takes it. Each attempt runs to its end by itself; a lock that arrives when nobody waits
    /// for it any more is given back by its lease.
    async fn acquire(
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
            head = match complete(attempt).await {
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

/// Asks for a lock once, and for what lies behind it. On one server the first attempt asks for both in one flight.
async fn attempt(
    store: Arc<Inner>,
    tag: Tag,
    place: Place,
    want: Want,
    first: bool,
    head: Head,
    deadline: Deadline,
) -> Result<Attempt> {
    let (data, lock) = (&store.servers[place.data], &store.servers[place.lock]);
    let mut lease = MemcachedLease::prepare(&store, place.clone(), tag, head);
    let held = lease.held()?;
    let read = |flight: Flight| flight.get(&place.names.data, "v c t");
    let claim = |flight: Flight, facts: &Facts| {
        let expiry = layout::expiry(store.config.lifetime, facts.time());
        flight.set(&place.names.data, b"", &format!("ME T{expiry} c"))
    };
    let together = place.is_one() && first;
    let flight = |facts: &Facts| {
        let flight = held.ask(Flight::default(), facts);
        Some(match want {
            Want::New if place.is_one() => claim(flight, facts),
            Want::Existing | Want::Either if together => read(flight),
            _ => flight,
        })
    };
    let asked = Instant::now();
    // The lock comes before what is read under it. A claim is exclusive by itself and can be made beside it.
    let (reply, claimed) = if want == Want::New && !place.is_one() {
        let claim = |facts: &Facts| Some(claim(Flight::default(), facts));
        let (reply, claimed) = tokio::join!(lock.write(flight, &deadline), data.write(claim, &deadline));
        (reply.map_err(Failure::of_read)?, Some(claimed.map_err(Failure::of_read)?))
    } else {
        (lock.write(flight, &deadline).await.map_err(Failure::of_read)?, None)
    };
    let got = match reply.answers.first() {
        Some(Answer { code: Code::Done, cas, .. }) => {
            lease.keep(Item { cas: *cas, life: reply.life }, asked).await;
            true
        }
        Some(Answer { code: Code::NotStored, .. }) => false,
        _ => return Err(refused()),
    };
    let made = match (want, &claimed) {
        (Want::New, Some(claimed)) => Some((claimed, claimed.answers.first())),
        (Want::New, None) => Some((&reply, reply.answers.get(1))),
        _ => None,
    };
    if let Some((reply, answer)) = made {
        match answer {
            Some(Answer { code: Code::Done, cas, .. }) => {
                let item = Item { cas: *cas, life: reply.life };
                if !got {
                    // Somebody holds the lock of a record that is not there yet, so that it is not ours to make.
                    let undo = |facts: &Facts| {
                        let flags = format!("C{}", item.cas);
                        (facts.life == item.life).then(|| Flight::default().delete(&place.names.data, &flags))
                    };
                    data.write(undo, &deadline).await.map_err(Failure::of_read)?;
                    return Ok(lease.settle().await.map_or(Attempt::NotMet, Attempt::Busy));
                }
                let end = asked.checked_add(store.config.lifetime);
                lease.found = Found { record: None, item: Some(item), end };
                return Ok(Attempt::Got(lease));
            }
            Some(Answer { code: Code::NotStored, .. }) => {
                if !got {
                    lease.settle().await;
                }
                return Ok(Attempt::NotMet);
            }
            _ => return Err(refused()),
        }
    }
    if !got {
        return Ok(lease.settle().await.map_or(Attempt::NotMet, Attempt::Busy));
    }
    if want == Want::Create {
        return Ok(Attempt::Got(lease));
    }
    lease.found = if together { found(&reply, 1)? } else { store.read(&place, &deadline).await? };
    if want == Want::Existing && lease.found.record.is_none() {
        return Ok(Attempt::NotMet);
    }
    Ok(Attempt::Got(lease))
}

/// Runs to its end even if nobody waits for it any more.
async fn complete<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(ended) => ended,
        Err(source) => {
            Err(Error::unavailable("a task of the Memcached store ended early").with_source(source).or_maybe_applied())
        }
    }
}

#[cold]
fn no_such_key() -> Error {
    Error::new(ErrorKind::Unsupported, "make a session under an id that is too long for Memcached's keys")
}

/// Somebody changed the record under our lock: a peer that takes none.
#[cold]
fn changed() -> Error {
    Error::new(ErrorKind::Conflict, "write a session that somebody changed without its lock; nothing was changed")
}
