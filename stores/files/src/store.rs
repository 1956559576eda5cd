//! The store itself: PHP's `files` handler behind the contract of [`Store`].

use std::any::Any;
use std::fmt;
use std::future::ready;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{
    BoxFuture, Capabilities, Claim, Expect, Lease, List, Locked, Outcome, Payload, Put, Record, Swept, Version,
};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store, Tag};
use rustix::fs::{FlockOperation, OFlags};
use tokio::time::Instant;

use crate::access::{Effect, Entry, Glance, Held, Inner};
use crate::config::{Durability, FilesConfig};
use crate::file::{self, Inode, Seen, Site, Target, failed, try_flock};
use crate::gauge::{Gauge, SMALL};
use crate::sweep::Walk;
use crate::{aside, lock, write};

/// Two reads beside a writer have to lie so far apart.
const APART: Duration = Duration::from_millis(2);
/// A file that was touched more recently may be in the midst of a write whose process has no CPU just now. The kernel
/// sets the time when a write begins, by a clock that ticks every few milliseconds.
const RECENT: i128 = 10_000_000;
/// For so long a reader tries to do without the lock, and at least so often: on a busy machine the time may be over before
/// anything was done with it.
const UNLOCKED: Duration = Duration::from_millis(20);
const LOOKS: u32 = 8;

/// With less life left than this a touch does not trust that the holder of the lock is no sweeper.
const AT_THE_END: Duration = Duration::from_secs(5);
/// Nobody who sweeps holds a lock for so long.
const SWEEPERS: Duration = Duration::from_millis(100);

/// Sessions in PHP's own files.
#[derive(Clone, Debug)]
pub struct FilesStore {
    inner: Arc<Inner>,
}

impl FilesStore {
    /// Opens a directory of sessions. It must be there, as for PHP.
    ///
    /// ```
    /// # fn main() -> cloakroom_core::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path();
    /// use cloakroom_store_files::{FilesConfig, FilesStore};
    /// let store = FilesStore::open(FilesConfig::new(path))?;
    /// # Ok(()) }
    /// ```
    pub fn open(config: FilesConfig) -> Result<FilesStore> {
        let gauge = Gauge::new(&config);
        let site = Site::new(config);
        site.directory_is_there()?;
        Ok(FilesStore { inner: Arc::new(Inner { site, gauge, walk: Walk::default(), waiting: AtomicUsize::new(0) }) })
    }

    /// Opens a directory of sessions with PHP's defaults.
    pub fn new(path: impl Into<std::path::PathBuf>) -> Result<FilesStore> {
        FilesStore::open(FilesConfig::new(path))
    }

    /// The settings.
    pub fn config(&self) -> &FilesConfig {
        &self.inner.site.config
    }

    /// How many calls on the thread that asked took over a millisecond.
    pub fn slow_calls(&self) -> u64 {
        self.inner.gauge.slow()
    }

    /// How many calls wait for locks of session files.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    async fn read_under_lock(&self, target: &Target, deadline: &Deadline, large: bool) -> Result<Option<Record>> {
        let read = |site: &Site, _: &Target, entry| match entry {
            Entry::Held(held) => Ok(Some(site.record(&held.seen, held.read()?))),
            Entry::Absent | Entry::Taken => Ok(None),
        };
        self.inner.locked(target, Claim::Existing, deadline, large, Effect::Reads, read).await
    }

    async fn touch(&self, target: Target, ttl: Duration, deadline: &Deadline) -> Result<Outcome> {
        let theirs = target.clone();
        let try_it = move |inner: &Inner, _| touch(&inner.site, &theirs, ttl, false);
        if let Some(outcome) = self.inner.run(deadline, false, Effect::Writes, try_it).await? {
            return Ok(outcome);
        }
        let work = move |site: &Site, target: &Target, entry| {
            let Entry::Held(held) = entry else { return Ok(Outcome::Gone) };
            carry_out(site, target, &held, &Bytes::new(), &Put::Touch(ttl)).map(|_| Outcome::Done(None))
        };
        let soon = deadline.with_lock_wait(SWEEPERS.min(deadline.wait_until() - Instant::now()));
        match self.inner.locked(&target, Claim::Existing, &soon, false, Effect::Writes, work).await {
            Err(error) if error.kind() == ErrorKind::Locked => {
                let try_it = move |inner: &Inner, _| touch(&inner.site, &target, ttl, true);
                let outcome = self.inner.run(deadline, false, Effect::Writes, try_it).await?;
                Ok(outcome.unwrap_or(Outcome::Gone))
            }
            outcome => outcome,
        }
    }

    async fn commit_held(&self, key: &Key, lease: Box<dyn Lease>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let lease = lease.into_any().downcast::<FileLease>();
        let lease = lease.map_err(|_| Error::misuse("give a lease back to the store that it comes from"))?;
        if lease.target.id() != key.record() || !Arc::ptr_eq(&lease.inner, &self.inner) {
            return Err(Error::misuse("commit with the lease of this very record and store"));
        }
        let large = is_large(&put) || lease.old.len() as u64 > SMALL;
        let work = move |inner: &Inner, _| {
            let FileLease { file, target, mut old, .. } = *lease;
            let seen = inner.site.look(&file)?;
            if seen.unlinked {
                return Ok(Outcome::Gone);
            }
            if seen.size != old.len() as u64 {
                // Somebody writes without the lock.
                old = file::read(&file, seen.size)?;
            }
            carry_out(&inner.site, &target, &Held { file, seen, made: false }, &old, &put)
        };
        self.inner.run(deadline, large, Effect::Writes, work).await
    }
}

impl Store for FilesStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.php_locks = true;
        capabilities.persistent = true;
        capabilities.shared = true;
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let Some(target) = self.inner.site.target(key) else { return Ok(None) };
        let begun = Instant::now();
        let mut large = false;
        let (mut tries, mut looks) = (0, 0);
        let mut earlier: Option<(Instant, Inode, Bytes)> = None;
        loop {
            let started = Instant::now();
            let theirs = target.clone();
            // One of our own commits is over in microseconds; only then is it worth a look without the lock.
            let also_unlocked = tries > 1;
            let look = move |inner: &Inner, largest| inner.site.glance(&theirs, largest, also_unlocked);
            match self.inner.run(deadline, large, Effect::Reads, look).await? {
                Glance::Absent => return Ok(None),
                Glance::Sure(record) => return Ok(Some(record)),
                Glance::Large => large = true,
                Glance::Unfinished => break,
                Glance::Busy => {
                    tries += 1;
                    tokio::task::yield_now().await;
                }
                Glance::Unsure(mut record, seen) => {
                    match &earlier {
                        Some((at, before, bytes)) if *before == seen.inode && *bytes == record.payload => {
                            // By the time before it was read: since then the reader may have had no CPU, and a
                            // write that is under way now would look old.
                            let then = file::now() - file::nanos(started.elapsed());
                            let recent = (-RECENT..RECENT).contains(&(then - seen.ctime));
                            if started - *at >= APART && !recent {
                                record.tentative = true;
                                return Ok(Some(record));
                            }
                        }
                        _ => {
                            let stable = !record.payload.is_empty();
                            earlier = stable.then(|| (Instant::now(), seen.inode, record.payload));
                        }
                    }
                    looks += 1;
                    if looks >= LOOKS && begun.elapsed() >= UNLOCKED {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        self.read_under_lock(&target, deadline, large).await
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let Some(target) = self.inner.site.target(key) else {
            return if claim == Claim::Existing { Ok(None) } else { Err(no_such_file()) };
        };
        let take = |site: &Site, _: &Target, entry| {
            let Entry::Held(held) = entry else { return Ok(None) };
            if held.made {
                sync_directory(site)?;
                return Ok(Some((held.file, Bytes::new(), None)));
            }
            let old = held.read()?;
            let record = site.record(&held.seen, old.clone());
            Ok(Some((held.file, old, Some(record))))
        };
        let locked = self.inner.locked(&target, claim, deadline, false, Effect::Reads, take).await?;
        let inner = Arc::clone(&self.inner);
        Ok(locked.map(|(file, old, record)| Locked::new(Box::new(FileLease { file, target, old, inner }), record)))
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let condition = match expect {
            Expect::Held(lease) => return self.commit_held(key, lease, put, deadline).await,
            Expect::Absent => Condition::Absent,
            Expect::Any => Condition::Any,
            Expect::Is(version) => Condition::Is(version.as_bytes().clone()),
            _ => return Err(Error::misuse("commit with a condition that this store knows")),
        };
        let Some(target) = self.inner.site.target(key) else {
            return if condition == Condition::Absent { Err(no_such_file()) } else { Ok(Outcome::Gone) };
        };
        let claim = match (&condition, &put) {
            (Condition::Absent, Put::Payload(_)) => Claim::New,
            (Condition::Absent, _) => return Err(Error::misuse("only write a record that is to be absent")),
            (Condition::Any, Put::Touch(ttl)) => return self.touch(target, *ttl, deadline).await,
            _ => Claim::Existing,
        };
        let forced = condition == Condition::Any && matches!(put, Put::Remove);
        let large = is_large(&put) || matches!(&condition, Condition::Is(bytes) if bytes.len() as u64 > SMALL);
        let work = move |site: &Site, target: &Target, entry| commit(site, target, entry, &condition, &put);
        match self.inner.locked(&target, claim, deadline, large, Effect::Writes, work).await {
            Err(error) if forced && error.kind() == ErrorKind::Locked => {
                // A logout does not wait for ever. PHP's write will go into a file that no path leads to.
                let work = move |inner: &Inner, _| remove_unlocked(&inner.site, &target);
                self.inner.run(deadline, true, Effect::Writes, work).await
            }
            outcome => outcome,
        }
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        crate::sweep::sweep(&self.inner, step).await
    }

    fn as_list(&self) -> Option<&dyn List> {
        Some(self)
    }
}

/// What must be so under the lock.
#[derive(PartialEq, Eq)]
enum Condition {
    Absent,
    Any,
    /// The bytes themselves are the version. A file made anew that holds the same bytes is the same version: whoever
    /// wrote it went by the same data.
    Is(Bytes),
}

fn commit(site: &Site, target: &Target, entry: Entry, condition: &Condition, put: &Put) -> Result<Outcome> {
    let held = match entry {
        Entry::Held(held) => held,
        Entry::Absent => return Ok(Outcome::Gone),
        Entry::Taken => return Ok(Outcome::Taken),
    };
    if *condition == Condition::Absent {
        let done = carry_out(site, target, &held, &Bytes::new(), put).and_then(|outcome| {
            sync_directory(site)?;
            Ok(outcome)
        });
        if done.is_err() {
            file::destroy(&held.file, target)?;
        }
        return done;
    }
    let old = held.read()?;
    match condition {
        Condition::Is(version) if *version != old => Ok(Outcome::Conflict(site.record(&held.seen, old))),
        _ => carry_out(site, target, &held, &old, put),
    }
}

fn carry_out(site: &Site, target: &Target, held: &Held, old: &Bytes, put: &Put) -> Result<Outcome> {
    let Held { file, seen, .. } = held;
    match put {
        Put::Payload(Payload { bytes, ttl, .. }) => {
            let changed = write::write(site, target, file.as_fd(), seen, old, bytes)?;
            if !changed || *ttl != site.config.lifetime {
                site.set_life(file, *ttl).map_err(Error::or_maybe_applied)?;
            }
            Ok(Outcome::Done(Some(Version::new(bytes.clone()))))
        }
        Put::Touch(ttl) => {
            site.set_life(file, *ttl)?;
            Ok(Outcome::Done(Some(Version::new(old.clone()))))
        }
        Put::Remove => {
            file::destroy(file, target)?;
            Ok(Outcome::Removed(site.record(seen, old.clone())))
        }
        Put::SetAside => {
            aside::keep(site, seen.uid, old)?;
            file::destroy(file, target)?;
            Ok(Outcome::Removed(site.record(seen, old.clone())))
        }
        _ => Err(Error::misuse("ask for a change that this store knows")),
    }
}

/// Extends a life without waiting for the lock, as PHP's `ps_files_update_timestamp` sets the time.
///
/// `None` where that is not safe: the session is about to expire, and whoever holds the lock may be a sweeper.
fn touch(site: &Site, target: &Target, ttl: Duration, in_any_case: bool) -> Result<Option<Outcome>> {
    loop {
        let Some(file) = site.open(target, OFlags::RDONLY)? else { return Ok(Some(Outcome::Gone)) };
        // Keeps sweepers away for the moment; who waits to write goes first.
        let gives_way = lock::anybody_waits() && lock::has_line(site.look(&file)?.inode);
        let locked = !gives_way && try_flock(&file, FlockOperation::NonBlockingLockShared)?;
        let seen = site.look(&file)?;
        if seen.unlinked {
            continue;
        }
        let Some(life) = site.life(&seen) else { return Ok(Some(Outcome::Gone)) };
        if !locked && !in_any_case && life < AT_THE_END {
            return Ok(None);
        }
        site.set_life(&file, ttl)?;
        let gone = site.look(&file)?.unlinked;
        return Ok(Some(if gone { Outcome::Gone } else { Outcome::Done(None) }));
    }
}

fn remove_unlocked(site: &Site, target: &Target) -> Result<Outcome> {
    let Some(file) = site.open(target, OFlags::RDONLY)? else { return Ok(Outcome::Gone) };
    let seen: Seen = site.look(&file)?;
    let mut record = site.record(&seen, file::read(&file, seen.size)?);
    record.tentative = true;
    file::unlink(target)?;
    Ok(Outcome::Removed(record))
}

/// A new name is on the disk only when its directory is.
fn sync_directory(site: &Site) -> Result<()> {
    if site.config.durability != Durability::Data {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = site.config.path.as_path();
    let directory = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    let synced = directory.and_then(rustix::fs::fsync);
    synced.map_err(|errno| failed("flush the save path", errno))
}

fn is_large(put: &Put) -> bool {
    matches!(put, Put::Payload(payload) if payload.bytes.len() as u64 > SMALL)
}

fn no_such_file() -> Error {
    Error::new(ErrorKind::Unsupported, "keep a session under an id that PHP's files handler does not take")
}

/// A held `flock`; closing the file gives it back.
struct FileLease {
    file: OwnedFd,
    target: Target,
    old: Bytes,
    inner: Arc<Inner>,
}

impl fmt::Debug for FileLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileLease({})", Tag::of(self.target.id()))
    }
}

impl Lease for FileLease {
    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(ready(()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
