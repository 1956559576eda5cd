//! Records in shards, each behind a mutex that is held for nanoseconds, never across an await; and the bound on
//! their bytes.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cloakroom_core::Key;
use cloakroom_core::store::{Columns, Record, Version};
use tokio::time::Instant;

use crate::MemoryConfig;
use crate::lock::Queue;
use crate::sweep::Aside;

/// What a record costs beside key and payload: its places in the two maps and the two allocations.
const OVERHEAD: usize = 400;
const VERSION: usize = size_of::<u64>();

/// What all handles of a store share.
pub(crate) struct Table {
    pub(crate) config: MemoryConfig,
    pub(crate) shards: Box<[Mutex<Shard>]>,
    /// Where the next step of sweeping begins.
    pub(crate) next_sweep: AtomicUsize,
    pub(crate) aside: Mutex<Aside>,
    used: AtomicUsize,
    serial: AtomicU64,
}

/// Some of the records, and the locks on them.
#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) entries: HashMap<Name, Entry>,
    /// When to look at which record. Each has exactly one place here, at its end of life or earlier: extending a
    /// life costs nothing until the sweep comes by.
    pub(crate) schedule: BTreeMap<Slot, Key>,
}

pub(crate) type Slot = (Instant, u64);

/// One name: its record, its lock, or both. An entry with neither is removed.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) record: Option<Stored>,
    pub(crate) queue: Queue,
}

/// One record.
pub(crate) struct Stored {
    payload: Bytes,
    version: Version,
    columns: Option<Box<Columns>>,
    pub(crate) expires: Instant,
    slot: Slot,
}

/// A key that compares by its record alone: a lock's name and a route mean nothing within one process.
pub(crate) struct Name(pub(crate) Key);

/// The bytes of all records would go beyond the limit.
#[derive(Debug)]
pub(crate) struct Full;

impl Table {
    pub(crate) fn new(config: MemoryConfig) -> Table {
        let shards = config.shards.clamp(1, 1 << 16).next_power_of_two();
        Table {
            config,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            next_sweep: AtomicUsize::new(0),
            aside: Mutex::default(),
            used: AtomicUsize::new(0),
            serial: AtomicU64::new(0),
        }
    }

    /// The shard of `key`. Ids are random, so that a plain sum is a good choice; the hash within a shard is keyed.
    pub(crate) fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let fold = |sum: usize, byte: &u8| sum.wrapping_mul(31).wrapping_add(usize::from(*byte));
        let sum = key.record().iter().fold(0, fold);
        open(&self.shards[sum & (self.shards.len() - 1)])
    }

    /// A record that is in no shard yet. Its payload is copied, so that no larger buffer is kept alive by it, and
    /// its version stands behind it in the same allocation.
    pub(crate) fn record(&self, payload: &[u8], ttl: Duration, columns: Columns, now: Instant) -> Stored {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut buffer = BytesMut::with_capacity(payload.len() + VERSION);
        buffer.put_slice(payload);
        buffer.put_u64(serial);
        let mut payload = buffer.freeze();
        let version = Version::new(payload.split_off(payload.len() - VERSION));
        let Columns { user, address, agent, .. } = &columns;
        let none = user.is_none() && address.is_none() && agent.is_none();
        let expires = end_of_life(now, ttl);
        Stored { payload, version, columns: (!none).then(|| columns.into()), expires, slot: (expires, serial) }
    }

    /// Sets room for `more` bytes apart.
    pub(crate) fn reserve(&self, more: usize) -> Result<(), Full> {
        let fits = |used: usize| used.checked_add(more).filter(|sum| *sum <= self.config.max_bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_or(Err(Full), |_| Ok(()))
    }

    /// Gives the room for `less` bytes back.
    pub(crate) fn give_back(&self, less: usize) {
        self.used.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Puts `stored` in the place of what was there, which is left as it is when there is no room.
    pub(crate) fn put(&self, shard: &mut Shard, key: &Key, mut stored: Stored) -> Result<Option<Stored>, Full> {
        let old = shard.get(key);
        if let Some(old) = old {
            stored.inherit(old);
        }
        let (before, after) = (old.map_or(0, |old| old.cost(key)), stored.cost(key));
        self.reserve(after.saturating_sub(before))?;
        self.give_back(before.saturating_sub(after));
        Ok(shard.put(key, stored))
    }

    /// Takes a record out.
    pub(crate) fn take(&self, shard: &mut Shard, key: &Key) -> Option<Stored> {
        let old = shard.take(key)?;
        self.give_back(old.cost(key));
        Some(old)
    }
}

/// Nothing that runs under these mutexes leaves them half done, so that a panic elsewhere need not be feared.
pub(crate) fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A life without end is one of a century.
fn end_of_life(now: Instant, ttl: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now + ttl.min(CENTURY)
}

impl Shard {
    pub(crate) fn get(&self, key: &Key) -> Option<&Stored> {
        self.entries.get(key.record())?.record.as_ref()
    }

    pub(crate) fn queue(&mut self, key: &Key) -> Option<&mut Queue> {
        self.entries.get_mut(key.record()).map(|entry| &mut entry.queue)
    }

    pub(crate) fn entry(&mut self, key: &Key) -> &mut Entry {
        self.entries.entry(Name(key.clone())).or_default()
    }

    /// Forgets an entry that has neither a record nor a lock.
    pub(crate) fn tidy(&mut self, key: &Key) {
        let idle = |entry: &Entry| entry.record.is_none() && !entry.queue.is_locked();
        if self.entries.get(key.record()).is_some_and(idle) {
            self.entries.remove(key.record());
        }
    }

    /// Gives the record a new end of life.
    pub(crate) fn live(&mut self, key: &Key, now: Instant, ttl: Duration) {
        let Some(entry) = self.entries.get_mut(key.record()) else { return };
        let Some(stored) = &mut entry.record else { return };
        stored.expires = end_of_life(now, ttl);
        if stored.expires < stored.slot.0 {
            self.reschedule(key);
        }
    }

    /// Makes a record, its place in the schedule included, as old as if `by` had passed.
    pub(crate) fn age(&mut self, key: &Key, by: Duration) {
        let Some(stored) = self.entries.get_mut(key.record()).and_then(|entry| entry.record.as_mut()) else { return };
        let earlier = |then: Instant| then.checked_sub(by).unwrap_or_else(Instant::now);
        let place = self.schedule.remove(&stored.slot);
        stored.expires = earlier(stored.expires);
        stored.slot.0 = earlier(stored.slot.0);
        self.schedule.insert(stored.slot, place.unwrap_or_else(|| key.clone()));
    }

    /// Moves the record's place in the schedule to its end of life.
    pub(crate) fn reschedule(&mut self, key: &Key) {
        let Some(stored) = self.entries.get_mut(key.record()).and_then(|entry| entry.record.as_mut()) else { return };
        let place = self.schedule.remove(&stored.slot);
        stored.slot.0 = stored.expires;
        self.schedule.insert(stored.slot, place.unwrap_or_else(|| key.clone()));
    }

    fn put(&mut self, key: &Key, mut stored: Stored) -> Option<Stored> {
        let record = &mut self.entry(key).record;
        let Some(old) = record else {
            let slot = record.insert(stored).slot;
            self.schedule.insert(slot, key.clone());
            return None;
        };
        stored.slot = old.slot;
        let early = stored.expires < stored.slot.0;
        let old = record.replace(stored);
        if early {
            self.reschedule(key);
        }
        old
    }

    fn take(&mut self, key: &Key) -> Option<Stored> {
        let old = self.entries.get_mut(key.record())?.record.take()?;
        self.schedule.remove(&old.slot);
        self.tidy(key);
        Some(old)
    }
}

impl Stored {
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        now < self.expires
    }

    pub(crate) fn size(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// The record as a caller sees it. Nothing is copied but counters.
    pub(crate) fn seen(&self, now: Instant) -> Record {
        let ttl = self.expires.saturating_duration_since(now);
        let mut record = Record::new(self.payload.clone(), self.version.clone(), Some(ttl));
        if let Some(columns) = &self.columns {
            record.columns = Columns::clone(columns);
        }
        record
    }

    /// `None` leaves a column as it is.
    fn inherit(&mut self, old: &Stored) {
        let Some(old) = &old.columns else { return };
        let columns = self.columns.get_or_insert_default();
        columns.user = columns.user.take().or_else(|| old.user.clone());
        columns.address = columns.address.take().or_else(|| old.address.clone());
        columns.agent = columns.agent.take().or_else(|| old.agent.clone());
    }

    fn cost(&self, key: &Key) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let columns = self.columns.as_ref().map_or(0, |c| text(&c.user) + text(&c.address) + text(&c.agent));
        OVERHEAD + key.record().len() + self.payload.len() + columns
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.0.record()
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.record().hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.record() == other.0.record()
    }
}

impl Eq for Name {}
