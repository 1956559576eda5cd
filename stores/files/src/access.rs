//! Getting at a session file: under its lock, or beside somebody who holds it.
//!
//! Mirrors `ps_files_open`, with what PHP leaves out: after the lock has come it looks whether this is still the
//! session's file, finishes what a killed writer left, and does not serve what has expired. Everything here is a plain
//! sequence of system calls without waiting; `store.rs` puts the waiting between.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Record, Version};
use cloakroom_core::{Deadline, Error, Result};
use rustix::fs::{FlockOperation, OFlags};
use tokio::time::Instant;

use crate::file::{self, Inode, PENDING, Seen, Site, Target, try_flock};
use crate::gauge::Gauge;
use crate::sweep::Walk;
use crate::{lock, redo};

/// What all handles of a store share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) site: Site,
    pub(crate) gauge: Gauge,
    pub(crate) walk: Walk,
    /// How many calls wait for locks.
    pub(crate) waiting: AtomicUsize,
}

/// A session file whose exclusive lock is held; in order, and not expired.
pub(crate) struct Held {
    pub(crate) file: OwnedFd,
    pub(crate) seen: Seen,
    /// This call made it, and nobody has written to it.
    pub(crate) made: bool,
}

impl Held {
    pub(crate) fn read(&self) -> Result<Bytes> {
        file::read(&self.file, self.seen.size)
    }
}

/// What a claim met.
pub(crate) enum Entry {
    Held(Held),
    Absent,
    Taken,
}

/// An open file on its way to its lock.
pub(crate) struct Opened {
    pub(crate) file: OwnedFd,
    pub(crate) made: bool,
    /// Its lock is held.
    pub(crate) locked: bool,
    /// Time has passed since it was opened.
    pub(crate) waited: bool,
}

/// How far a step came.
pub(crate) enum Step<T> {
    Done(T),
    /// Somebody holds the lock.
    Busy(Opened, Inode),
    /// The file is not the session's any more.
    Again,
    /// Too large for the thread that asks.
    Large(Opened),
}

enum Found {
    File(Opened),
    Absent,
    Taken,
}

impl Site {
    fn find(&self, target: &Target, claim: Claim) -> Result<Found> {
        let opened = |file, made| Found::File(Opened { file, made, locked: false, waited: false });
        if claim != Claim::New {
            match self.open(target, OFlags::RDWR)? {
                Some(file) => return Ok(opened(file, false)),
                None if claim == Claim::Existing => return Ok(Found::Absent),
                None => {}
            }
        }
        if let Some(file) = self.create(target)? {
            return Ok(opened(file, true));
        }
        let Some(file) = self.open(target, OFlags::RDWR)? else {
            // Gone again between the two; the next round settles it.
            return self.find(target, claim);
        };
        if claim == Claim::New && self.life(&self.look(&file)?).is_some() {
            return Ok(Found::Taken);
        }
        Ok(opened(file, false))
    }

    /// One attempt to get the lock and to do `work` under it.
    pub(crate) fn step<T>(
        &self,
        target: &Target,
        claim: Claim,
        opened: Option<Opened>,
        largest: u64,
        work: impl FnOnce(Entry) -> Result<T>,
    ) -> Result<Step<T>> {
        let found = opened.map_or_else(|| self.find(target, claim), |opened| Ok(Found::File(opened)))?;
        let mut opened = match found {
            Found::File(opened) => opened,
            Found::Absent => return work(Entry::Absent).map(Step::Done),
            Found::Taken => return work(Entry::Taken).map(Step::Done),
        };
        if !opened.locked {
            // Whoever comes later must not slip in before those who wait.
            let line = lock::anybody_waits() && lock::has_line(self.look(&opened.file)?.inode);
            if line || !try_flock(&opened.file, FlockOperation::NonBlockingLockExclusive)? {
                let inode = self.look(&opened.file)?.inode;
                return Ok(Step::Busy(opened, inode));
            }
            opened.locked = true;
        }
        let mut seen = self.look(&opened.file)?;
        // Between an open and a lock that comes at once only a removal is looked for: it shows in fstat.
        if seen.unlinked || (opened.waited && !target.is(seen.inode)?) {
            return Ok(Step::Again);
        }
        if self.life(&seen).is_none() {
            file::destroy(&opened.file, target)?;
            return if claim == Claim::Existing { work(Entry::Absent).map(Step::Done) } else { Ok(Step::Again) };
        }
        let unfinished = seen.mode & PENDING != 0;
        if seen.size > largest || (unfinished && largest != u64::MAX) {
            return Ok(Step::Large(opened));
        }
        if unfinished {
            redo::recover(self, target, opened.file.as_fd(), &seen)?;
            seen = self.look(&opened.file)?;
        }
        // PHP may have been faster with a file that was made here.
        let made = opened.made && seen.size == 0;
        if claim == Claim::New && !made {
            return work(Entry::Taken).map(Step::Done);
        }
        work(Entry::Held(Held { file: opened.file, seen, made })).map(Step::Done)
    }

    pub(crate) fn record(&self, seen: &Seen, payload: Bytes) -> Record {
        Record::new(payload.clone(), Version::new(payload), Some(self.life(seen).unwrap_or_default()))
    }

    /// A look at the record without waiting for anybody.
    pub(crate) fn glance(&self, target: &Target, largest: u64, also_unlocked: bool) -> Result<Glance> {
        loop {
            let Some(file) = self.open(target, OFlags::RDONLY)? else { return Ok(Glance::Absent) };
            // The kernel lets readers in for as long as there are any; who waits to write would wait for ever.
            let gives_way = lock::anybody_waits() && lock::has_line(self.look(&file)?.inode);
            let locked = !gives_way && try_flock(&file, FlockOperation::NonBlockingLockShared)?;
            let seen = self.look(&file)?;
            if seen.unlinked {
                continue;
            }
            if self.life(&seen).is_none() {
                return Ok(Glance::Absent);
            }
            if seen.mode & PENDING != 0 {
                return Ok(Glance::Unfinished);
            }
            if !locked && !also_unlocked {
                return Ok(Glance::Busy);
            }
            if seen.size > largest {
                return Ok(Glance::Large);
            }
            let record = self.record(&seen, file::read(&file, seen.size)?);
            return Ok(if locked { Glance::Sure(record) } else { Glance::Unsure(record, seen) });
        }
    }
}

/// What a look at a record showed.
pub(crate) enum Glance {
    Absent,
    /// Read under a shared lock.
    Sure(Record),
    /// Read while somebody held the lock.
    Unsure(Record, Seen),
    /// Somebody holds the lock.
    Busy,
    /// A killed writer has left work to be finished under the exclusive lock.
    Unfinished,
    /// Too large for the thread that asks.
    Large,
}

/// Whether work that nobody waits for any more may still change something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

impl Inner {
    /// Makes system calls: at once if that is quick, else on the blocking pool, where they run to their end even if
    /// nobody waits for them any more.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: &Deadline,
        large: bool,
        effect: Effect,
        work: impl FnOnce(&Inner, u64) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Nobody is talked to on a local file system: its calls end by themselves, and on a machine with too much to do
        // they end late, without anybody being down. Only what goes over a network, or through another process, has
        // a limit.
        let talks = !self.gauge.is_local();
        if talks && deadline.io_left().is_zero() {
            return Err(Error::unavailable("the time for talking to the store is used up"));
        }
        if !large && let Some(begun) = self.gauge.inline() {
            // Calls that are always done at once would never let another task have the thread.
            tokio::task::coop::consume_budget().await;
            let answer = work(self, self.gauge.largest());
            let took = self.gauge.note(begun);
            if talks {
                deadline.spend(took);
            }
            return answer;
        }
        let inner = Arc::clone(self);
        let job = tokio::task::spawn_blocking(move || work(&inner, u64::MAX));
        let done = if talks { deadline.io(job).await } else { Ok(job.await) };
        match done {
            Ok(Ok(answer)) => answer,
            // It runs to its end although its time is over.
            Err(error) if effect == Effect::Writes => Err(error.or_maybe_applied()),
            Err(error) => Err(error),
            Ok(Err(broken)) if effect == Effect::Writes && broken.is_panic() => {
                Err(Error::unavailable("work on a session file was broken off").with_source(broken).or_maybe_applied())
            }
            Ok(Err(broken)) => Err(Error::unavailable("work on a session file was broken off").with_source(broken)),
        }
    }

    /// Takes the lock, waiting for it if need be, and does `work` under it.
    pub(crate) async fn locked<T, F>(
        self: &Arc<Self>,
        target: &Target,
        claim: Claim,
        deadline: &Deadline,
        mut large: bool,
        effect: Effect,
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Site, &Target, Entry) -> Result<T> + Send + Sync + 'static,
    {
        let begun = Instant::now();
        let work = Arc::new(work);
        let mut opened = None;
        loop {
            let (theirs, work, arrived) = (target.clone(), Arc::clone(&work), opened.take());
            let step = self.run(deadline, large, effect, move |inner, largest| {
                inner.site.step(&theirs, claim, arrived, largest, |entry| work(&inner.site, &theirs, entry))
            });
            match step.await? {
                Step::Done(answer) => return Ok(answer),
                Step::Large(there) => (large, opened) = (true, Some(there)),
                Step::Busy(Opened { file, made, .. }, inode) => {
                    let file = lock::wait(file, inode, deadline, self.site.config.lock_threads, &self.waiting).await?;
                    opened = Some(Opened { file, made, locked: true, waited: true });
                }
                Step::Again if Instant::now() >= deadline.wait_until() => return Err(Error::locked(begun.elapsed())),
                Step::Again => tokio::task::yield_now().await,
            }
        }
    }
}
