//! Removing what has expired, telling what is there, and what was set aside.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{BoxFuture, List, Listed, Swept};
use cloakroom_core::{Key, Result};
use tokio::time::Instant;

use crate::MemoryStore;
use crate::table::{Shard, Slot, Table, open};

impl Table {
    /// Looks at `step` records whose time may have come, from the shard on at which the last call ended.
    pub(crate) fn sweep(&self, step: usize) -> Swept {
        let now = Instant::now();
        let (mut left, mut removed) = (step.max(1), 0);
        let first = self.next_sweep.load(Ordering::Relaxed);
        for index in first..self.shards.len() {
            let mut shard = open(&self.shards[index]);
            let due: Vec<_> = shard.due(now).take(left).collect();
            left -= due.len();
            let mut progress = false;
            for (slot, key) in due {
                let Some(entry) = shard.entries.get(key.record()) else { continue };
                let alive = entry.record.as_ref().is_some_and(|stored| stored.is_alive(now));
                if alive {
                    shard.reschedule(&key);
                } else if entry.queue.is_locked() {
                    continue;
                } else if self.take(&mut shard, &key).is_some() {
                    removed += 1;
                }
                progress |= !shard.schedule.contains_key(&slot);
            }
            if left == 0 {
                // A shard of which every record is locked is not to hold up the others.
                self.next_sweep.store(if progress { index } else { index + 1 }, Ordering::Relaxed);
                return Swept::new(removed, false);
            }
        }
        self.next_sweep.store(0, Ordering::Relaxed);
        Swept::new(removed, true)
    }

    /// Keeps a copy of a payload that was taken out, and forgets older ones beyond the bounds: their number, their
    /// age, and an eighth of what the store may hold.
    pub(crate) fn keep_aside(&self, payload: &Bytes, now: Instant) {
        let mut aside = open(&self.aside);
        aside.expire(self.config.aside_lifetime, now);
        aside.0.push_front((now, payload.clone()));
        aside.0.truncate(self.config.max_aside);
        while aside.bytes() > self.config.max_bytes / 8 {
            aside.0.pop_back();
        }
    }

    pub(crate) fn set_aside(&self) -> Vec<SetAside> {
        let now = Instant::now();
        let mut aside = open(&self.aside);
        aside.expire(self.config.aside_lifetime, now);
        let seen = |(since, payload): &(Instant, Bytes)| SetAside { payload: payload.clone(), age: now - *since };
        aside.0.iter().map(seen).collect()
    }
}

impl Shard {
    fn due(&self, now: Instant) -> impl Iterator<Item = (Slot, Key)> {
        self.schedule.range(..=(now, u64::MAX)).map(|(slot, key)| (*slot, key.clone()))
    }
}

/// The payloads that were set aside, the newest first.
#[derive(Default)]
pub(crate) struct Aside(VecDeque<(Instant, Bytes)>);

impl Aside {
    fn expire(&mut self, lifetime: Duration, now: Instant) {
        self.0.retain(|(since, _)| now.saturating_duration_since(*since) < lifetime);
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, payload)| payload.len()).sum()
    }
}

/// A payload that was found to be no session and was set aside for people to look at.
#[derive(Clone)]
#[non_exhaustive]
pub struct SetAside {
    /// What was there.
    pub payload: Bytes,
    /// How long ago it was set aside.
    pub age: Duration,
}

impl fmt::Debug for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetAside({} bytes, {:?} ago)", self.payload.len(), self.age)
    }
}

impl List for MemoryStore {
    /// Goes through all records for every page: for people and their tools, not for requests.
    fn list<'a>(&'a self, after: Option<&'a Key>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let now = Instant::now();
        let mut page = BTreeMap::new();
        for shard in &self.table.shards {
            for (name, entry) in &open(shard).entries {
                let Some(stored) = entry.record.as_ref().filter(|stored| stored.is_alive(now)) else { continue };
                if after.is_some_and(|after| name.0.record() <= after.record()) {
                    continue;
                }
                let ttl = stored.expires.saturating_duration_since(now);
                page.insert(name.0.clone(), (stored.size() as u64, ttl));
                if page.len() > limit {
                    page.pop_last();
                }
            }
        }
        let listed = page.into_iter().map(|(key, (size, ttl))| Listed::new(key, size, Some(ttl)));
        Box::pin(ready(Ok(listed.collect())))
    }
}
