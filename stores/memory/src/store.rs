//! The store itself: each call of the contract is one step under the mutex of the record's shard.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::store::{
    Capabilities, Claim, Columns, Expect, List, Locked, Outcome, Payload, Put, Record, Swept, Version,
};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store};
use tokio::time::Instant;

use crate::MemoryConfig;
use crate::lock::{MemoryLease, Waiting};
use crate::sweep::SetAside;
use crate::table::{Full, Shard, Stored, Table, open};

/// Sessions in the memory of this process. All clones share the same records and locks.
#[derive(Clone)]
pub struct MemoryStore {
    pub(crate) table: Arc<Table>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(config: MemoryConfig) -> MemoryStore {
        MemoryStore { table: Arc::new(Table::new(config)) }
    }

    /// How many records there are, expired ones included that no sweep has found yet.
    pub fn len(&self) -> usize {
        self.table.shards.iter().map(|shard| open(shard).schedule.len()).sum()
    }

    /// True if there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What counts towards [`MemoryConfig::max_bytes`].
    pub fn bytes(&self) -> usize {
        self.table.used()
    }

    /// What was set aside, the newest first.
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.table.set_aside()
    }

    /// Makes a record as old as if `by` had passed. For tests.
    #[doc(hidden)]
    pub fn age(&self, key: &Key, by: Duration) {
        self.table.shard(key).age(key, by);
    }

    fn lease(&self, key: &Key) -> MemoryLease {
        MemoryLease::new(&self.table, key)
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new(MemoryConfig::default())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} records, {} bytes)", self.len(), self.bytes())
    }
}

impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_payload = u64::try_from(self.table.config.max_payload).ok();
        capabilities
    }

    async fn load(&self, key: &Key, _: &Deadline) -> Result<Option<Record>> {
        // A call that is always done at once would never let another task have the thread.
        tokio::task::coop::consume_budget().await;
        let now = Instant::now();
        let shard = self.table.shard(key);
        Ok(shard.get(key).filter(|stored| stored.is_alive(now)).map(|stored| stored.seen(now)))
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        tokio::task::coop::consume_budget().await;
        let (mut lease, mut swept) = (None, false);
        loop {
            match self.try_lock(key, claim, &mut lease) {
                Try::Done(locked) => return locked,
                Try::Wait(waiting) => lease = Some(waiting.turn(deadline).await?),
                Try::Full => self.make_room(&mut swept)?,
            }
        }
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        tokio::task::coop::consume_budget().await;
        let (expect, mut lease) = match expect {
            Expect::Absent => (Want::Absent, None),
            Expect::Any => (Want::Any, None),
            Expect::Is(version) => (Want::Is(version), None),
            Expect::Held(lease) => (Want::Held, Some(MemoryLease::recognise(lease, &self.table, key)?)),
            _ => return Err(Error::new(ErrorKind::Unsupported, "commit on a condition that this store does not know")),
        };
        if let Put::Payload(payload) = &put
            && payload.bytes.len() > self.table.config.max_payload
        {
            return Err(Error::new(ErrorKind::TooLarge, "write a session beyond `max_payload`"));
        }
        let mut swept = false;
        loop {
            match self.try_commit(key, &expect, &put, lease.is_some()) {
                Try::Done(outcome) => return outcome,
                Try::Wait(waiting) => lease = Some(waiting.turn(deadline).await?),
                Try::Full => self.make_room(&mut swept)?,
            }
        }
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        Ok(self.table.sweep(step))
    }

    fn as_list(&self) -> Option<&dyn List> {
        Some(self)
    }
}

/// How an attempt under the mutex ended.
enum Try<T> {
    Done(Result<T>),
    /// Somebody else holds the lock.
    Wait(Waiting),
    Full,
}

/// [`Expect`] without the lease, for an attempt that may have to be made again.
enum Want<'a> {
    Absent,
    Any,
    Is(&'a Version),
    Held,
}

impl MemoryStore {
    /// Takes the lock, or makes use of `lease` where its turn has come, and looks at what is there.
    fn try_lock(&self, key: &Key, claim: Claim, lease: &mut Option<MemoryLease>) -> Try<Option<Locked>> {
        let now = Instant::now();
        let mut shard = self.table.shard(key);
        if lease.is_none()
            && let Some(queue) = shard.queue(key).filter(|queue| queue.is_locked())
        {
            return queue.join(&self.table, key).map_or_else(|error| Try::Done(Err(error)), Try::Wait);
        }
        let expired = self.bury(&mut shard, key, now);
        let found = shard.get(key).map(|stored| stored.seen(now));
        let met = match claim {
            Claim::Existing => found.is_some(),
            Claim::New => found.is_none(),
            Claim::Either => true,
            _ => return Try::Done(Err(Error::new(ErrorKind::Unsupported, "lock by a claim that is not known"))),
        };
        if !met {
            return Try::Done(Ok(None));
        }
        if found.is_none() {
            let empty = self.table.record(b"", self.table.config.lifetime, Columns::default(), now);
            if self.table.put(&mut shard, key, empty).is_err() {
                return Try::Full;
            }
        }
        shard.entry(key).queue.take();
        drop(shard);
        drop(expired);
        let lease = lease.take().unwrap_or_else(|| self.lease(key));
        Try::Done(Ok(Some(Locked::new(Box::new(lease), found))))
    }

    /// Carries `put` out if `want` holds; `held` says that the caller has the lock.
    fn try_commit(&self, key: &Key, want: &Want<'_>, put: &Put, held: bool) -> Try<Outcome> {
        let now = Instant::now();
        // Made before the mutex is taken: the copy of a large payload keeps nobody waiting.
        let new = match put {
            Put::Payload(Payload { bytes, ttl, columns, .. }) => {
                Some(self.table.record(bytes, *ttl, columns.clone(), now))
            }
            _ => None,
        };
        let mut shard = self.table.shard(key);
        if !held && let Some(queue) = shard.queue(key).filter(|queue| queue.is_locked()) {
            return queue.join(&self.table, key).map_or_else(|error| Try::Done(Err(error)), Try::Wait);
        }
        // What the holder has found stays his, though its time runs out meanwhile.
        let expired = if matches!(want, Want::Held) { None } else { self.bury(&mut shard, key, now) };
        let found = shard.get(key);
        let refused = match (want, found) {
            (Want::Absent, Some(_)) => Some(Outcome::Taken),
            (Want::Any | Want::Is(_), None) => Some(Outcome::Gone),
            (Want::Is(version), Some(found)) if found.version() != *version => Some(Outcome::Conflict(found.seen(now))),
            _ => None,
        };
        if let Some(outcome) = refused {
            return Try::Done(Ok(outcome));
        }
        let (outcome, old) = match (put, new) {
            (Put::Payload(_), Some(new)) => {
                let version = new.version().clone();
                match self.table.put(&mut shard, key, new) {
                    Ok(old) => (Outcome::Done(Some(version)), old),
                    Err(Full) => return Try::Full,
                }
            }
            (Put::Touch(ttl), _) => match found.map(|found| found.version().clone()) {
                Some(version) => {
                    shard.live(key, now, *ttl);
                    (Outcome::Done(Some(version)), None)
                }
                None => (Outcome::Gone, None),
            },
            (Put::Remove | Put::SetAside, _) => match self.table.take(&mut shard, key) {
                Some(old) => (Outcome::Removed(old.seen(now)), Some(old)),
                None => (Outcome::Gone, None),
            },
            _ => return Try::Done(Err(Error::new(ErrorKind::Unsupported, "commit what this store does not know"))),
        };
        drop(shard);
        if let (Put::SetAside, Some(old)) = (put, &old) {
            self.table.keep_aside(old.payload(), now);
        }
        // Large payloads are freed here, outside of the mutex.
        drop((old, expired));
        Try::Done(Ok(outcome))
    }

    /// Takes an expired record out. The caller holds the lock, or sees that nobody does.
    fn bury(&self, shard: &mut Shard, key: &Key, now: Instant) -> Option<Stored> {
        if shard.get(key)?.is_alive(now) { None } else { self.table.take(shard, key) }
    }

    /// Once for each call: what has expired must not keep new sessions out.
    fn make_room(&self, swept: &mut bool) -> Result<()> {
        if std::mem::replace(swept, true) {
            return Err(Error::new(ErrorKind::TooLarge, "write a session: the store holds `max_bytes` already"));
        }
        self.table.sweep(usize::MAX);
        Ok(())
    }
}
