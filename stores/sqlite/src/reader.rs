//! Reading: on the thread that asks where that is a matter of microseconds, else on tokio's blocking pool.
//!
//! With a write-ahead log a reader waits for no writer. Only while a log is recovered or the last connection of another
//! process is closed is the database locked for a moment.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::Failure;
use crate::file::{Db, Role};
use crate::shared::Base;

/// A read that took longer than this is no matter of microseconds: the disk was asked.
const SLOW: Duration = Duration::from_millis(1);
/// For how long reads then go through the blocking pool, in milliseconds.
const SLOW_FOR: u64 = 100;
/// After how long a database that was replaced or deleted is noticed.
const NOTICED: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(1);

thread_local! {
    /// Each thread has its own favourite connection.
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// The connections for reading. They are opened when they are needed.
#[derive(Debug)]
pub(crate) struct Readers {
    slots: Box<[Mutex<Option<Db>>]>,
    born: Instant,
    /// In milliseconds since `born`.
    slow_until: AtomicU64,
}

impl Readers {
    pub(crate) fn new(count: usize) -> Readers {
        let slots = (0..count.max(1)).map(|_| Mutex::new(None)).collect();
        Readers { slots, born: Instant::now(), slow_until: AtomicU64::new(0) }
    }

    /// Reads at once. `None` where there is no connection to do it with, or the disk is slow these days.
    pub(crate) fn at_once<T>(
        &self,
        base: &Base,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Option<Result<T, Failure>> {
        let begun = Instant::now();
        if self.since(begun) < self.slow_until.load(Ordering::Relaxed) {
            return None;
        }
        let mut slot = self.free().find(|slot| slot.is_some())?;
        let db = slot.as_mut().filter(|db| base.site.is_current(db, NOTICED))?;
        let done = read(&db.conn);
        if begun.elapsed() > SLOW {
            self.slow_until.store(self.since(begun) + SLOW_FOR, Ordering::Relaxed);
        }
        if done.as_ref().is_err_and(Failure::spoils_connection) {
            *slot = None;
        }
        Some(done)
    }

    /// Reads on a thread that may wait: for a connection, for the disk, and until then for who has the database locked.
    pub(crate) fn patiently<T>(
        &self,
        base: &Base,
        until: Instant,
        read: impl Fn(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            let done = self.try_patiently(base, &read);
            if !matches!(done, Err(Failure::Busy)) || Instant::now() >= until {
                return done;
            }
            thread::sleep(PAUSE);
        }
    }

    fn try_patiently<T>(&self, base: &Base, read: impl Fn(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut slot = self.free().next().unwrap_or_else(|| self.own());
        let kept = slot.take().filter(|db| base.site.is_current(db, NOTICED));
        let was_kept = kept.is_some();
        let db = kept.map_or_else(|| base.site.connect(&base.way, Role::Read), Ok)?;
        let mut done = read(&db.conn);
        if !done.as_ref().is_err_and(Failure::spoils_connection) {
            *slot = Some(db);
        } else if was_kept {
            // The connection may be what is wrong. Reading twice is harmless.
            let db = base.site.connect(&base.way, Role::Read)?;
            done = read(&db.conn);
            *slot = (!done.as_ref().is_err_and(Failure::spoils_connection)).then_some(db);
        }
        done
    }

    fn since(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    fn own(&self) -> MutexGuard<'_, Option<Db>> {
        let place = PLACE.with(|place| *place) % self.slots.len();
        self.slots[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots that nobody uses right now, the thread's own first.
    fn free(&self) -> impl Iterator<Item = MutexGuard<'_, Option<Db>>> {
        let place = PLACE.with(|place| *place) % self.slots.len();
        let (before, after) = self.slots.split_at(place);
        after.iter().chain(before).filter_map(|slot| match slot.try_lock() {
            Ok(slot) => Some(slot),
            Err(TryLockError::Poisoned(slot)) => Some(slot.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }
}
