//! The store itself: reading, waiting for locks, and which of the two a commit needs first.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::line::Lines;
use cloakroom_core::store::{Capabilities, Claim, Expect, Locked, Outcome, Payload, Put, Record, Swept, Version};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Random, Result, Store, SystemRandom, Tasks};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::commit::{Ended, finish};
use crate::layout::{self, Names};
use crate::lock::{Found, Item, MemcachedLease};
use crate::pool::{Failure, Reply, Server};
use crate::ring::Ring;
use crate::wait::Want;
use crate::wire::{Answer, Code, Facts, Flight};
use crate::{Address, MemcachedConfig, MemcachedServer};

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
    pub(crate) lines: Lines,
    /// Which locks are being given back, and how often.
    pub(crate) releases: Mutex<HashMap<Vec<u8>, usize>>,
    pub(crate) tasks: Tasks,
    /// What all locks of this store begin with, and how many there were.
    token: (String, AtomicU64),
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
        let nodes: Vec<_> = config.servers.iter().map(MemcachedServer::node).collect();
        let ring = Ring::new(config.hash, &nodes);
        let server = |server: &MemcachedServer| Server::new(server.address.clone(), config.connections);
        let mut random = [0; 16];
        SystemRandom.fill(&mut random)?;
        let token = format!("cloakroom:{:032x}.", u128::from_be_bytes(random));
        let servers = config.servers.iter().map(server).collect();
        let token = (token, AtomicU64::new(0));
        let (lines, releases, tasks) = (Lines::default(), Mutex::default(), Tasks::default());
        let inner = Inner { config, servers, ring, lines, releases, tasks, token };
        let store = MemcachedStore { inner: Arc::new(inner) };
        store.greet().await;
        Ok(store)
    }

    /// Learns what there is to know about the servers that are there, and says which are not.
    async fn greet(&self) {
        let mut greetings = JoinSet::new();
        for number in 0..self.inner.servers.len() {
            let inner = Arc::clone(&self.inner);
            greetings.spawn(async move { inner.servers[number].greet(&Deadline::new(GREETING, Duration::ZERO)).await });
        }
        while let Some(greeted) = greetings.join_next().await {
            if let Ok(Err(failure)) = greeted {
                tracing::warn!(error = ?failure.of_read(), "a server of the store is not there yet");
            }
        }
    }

    /// Which servers a session's record and its lock lie on, where there can be such a session: for whoever looks for
    /// one by hand.
    pub fn servers_of(&self, key: &Key) -> Option<(&Address, &Address)> {
        let place = self.inner.place(key)?;
        let address = |server: usize| Some(&self.inner.config.servers.get(server)?.address);
        Some((address(place.data)?, address(place.lock)?))
    }
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemcachedStore").field(&self.inner.servers).finish()
    }
}

impl Inner {
    /// Runs to its end even if nobody waits for it any more.
    pub(crate) async fn complete<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.tasks.spawn(&Handle::current(), work).await {
            Ok(ended) => ended,
            Err(source) => Err(Error::unavailable("a task of the Memcached store ended early")
                .with_source(source)
                .or_maybe_applied()),
        }
    }

    /// `None` for names that no record can have.
    pub(crate) fn place(&self, key: &Key) -> Option<Place> {
        let names = Names::of(&self.config.prefix, key)?;
        let data = self.ring.server(layout::data_route(key));
        Some(Place { names, data, lock: self.ring.server(&layout::lock_route(key)) })
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
        capabilities.lock_first = true;
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
                match self.inner.complete(write).await? {
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

    async fn settle(&self) {
        self.inner.tasks.ended().await;
    }
}

impl MemcachedStore {
    /// A new record under a name that nobody holds.
    async fn create(&self, key: &Key, place: Option<Place>, payload: Payload, deadline: &Deadline) -> Result<Outcome> {
        let place = place.ok_or_else(no_such_key)?;
        let Some(lease) = self.acquire(key, place, Want::Create, deadline).await? else { return Ok(Outcome::Taken) };
        let write = finish(Arc::clone(&self.inner), lease, Put::Payload(payload), false, deadline.clone());
        match self.inner.complete(write).await? {
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
                self.inner.complete(finish(Arc::clone(&self.inner), lease, put, false, deadline.clone())).await?
            {
                return Ok(outcome);
            }
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
