//! Waiting for the lock of a busy session: first come, first served within the process.
//!
//! Mirrors the blocking `flock(LOCK_EX)` of `ps_files_open`, without a thread for each who waits. All who wait for one
//! file stand in one line, and only its head waits on the kernel: first by a few tries, then by a blocking `flock` on a
//! thread of `pool.rs`. That call cannot be called off. A lock that arrives after its waiter has left goes to the next
//! in the line, or is released.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::line::{MOST_WAITING, too_many};
use cloakroom_core::{Deadline, Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::file::{Inode, failed, try_flock};
use crate::pool;

/// Pauses between the tries of the head before it takes a thread. Most holders are done in less.
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_micros(500), Duration::from_millis(1)];
/// The longest pause between tries where no thread is free.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

type Lines = HashMap<Inode, Line>;

static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(Mutex::default);
/// How many stand in all lines together.
static WAITING: AtomicUsize = AtomicUsize::new(0);

fn lines() -> MutexGuard<'static, Lines> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody in this process who waits for one file.
#[derive(Default)]
struct Line {
    waiters: VecDeque<Arc<Notify>>,
    /// A thread waits in `flock` for whoever is the head when it returns.
    asked: bool,
    /// What that thread brought, for the head to take.
    brought: Option<Result<OwnedFd, Errno>>,
}

impl Line {
    fn call_head(&self) {
        if let Some(head) = self.waiters.front() {
            head.notify_one();
        }
    }
}

/// Whether anybody waits for anything; a cheap look before [`has_line`].
pub(crate) fn anybody_waits() -> bool {
    WAITING.load(Ordering::Relaxed) != 0
}

/// Whether somebody waits for this file already, so that a newcomer has to stand in line.
pub(crate) fn has_line(inode: Inode) -> bool {
    lines().get(&inode).is_some_and(|line| !line.waiters.is_empty())
}

/// Waits for the lock of `file`. What is returned holds it; it may be another descriptor of the same file.
pub(crate) async fn wait(
    file: OwnedFd,
    inode: Inode,
    deadline: &Deadline,
    threads: usize,
    waiting: &AtomicUsize,
) -> Result<OwnedFd> {
    let begun = Instant::now();
    let place = Place::take(inode, waiting)?;
    let granted = timeout_at(deadline.wait_until(), place.granted(file, threads)).await;
    granted.unwrap_or_else(|_| Err(Error::locked(begun.elapsed())))
}

/// A place in a line; dropping it leaves the line.
struct Place<'a> {
    inode: Inode,
    called: Arc<Notify>,
    /// How many wait in the same store.
    waiting: &'a AtomicUsize,
}

impl<'a> Place<'a> {
    fn take(inode: Inode, waiting: &'a AtomicUsize) -> Result<Place<'a>> {
        let called = Arc::new(Notify::new());
        let mut lines = lines();
        let waiters = &mut lines.entry(inode).or_default().waiters;
        // Each of them has the file open.
        if waiters.len() >= MOST_WAITING {
            return Err(too_many());
        }
        waiters.push_back(Arc::clone(&called));
        WAITING.fetch_add(1, Ordering::Relaxed);
        waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Place { inode, called, waiting })
    }

    async fn granted(&self, file: OwnedFd, threads: usize) -> Result<OwnedFd> {
        while !self.is_head() {
            self.called.notified().await;
        }
        let mut pauses = TRIES.into_iter();
        let mut file = Some(file);
        let mut pause = LONGEST_PAUSE / 16;
        loop {
            if let Some(brought) = self.brought() {
                return brought.map_err(|errno| failed("lock a session file", errno));
            }
            match &file {
                // A thread has taken our descriptor, or another one's waits for the same file.
                None => self.called.notified().await,
                Some(mine) => {
                    if try_flock(mine, FlockOperation::NonBlockingLockExclusive)? {
                        return file.take().ok_or_else(|| Error::unavailable("lock a session file"));
                    }
                    match pauses.next() {
                        Some(Duration::ZERO) => tokio::task::yield_now().await,
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => {
                            file = file.and_then(|mine| ask(self.inode, mine, threads).err());
                            if file.is_some() {
                                tokio::time::sleep(pause).await;
                                pause = (pause * 2).min(LONGEST_PAUSE);
                            }
                        }
                    }
                }
            }
        }
    }

    fn is_head(&self) -> bool {
        lines()
            .get(&self.inode)
            .and_then(|line| line.waiters.front())
            .is_some_and(|head| Arc::ptr_eq(head, &self.called))
    }

    fn brought(&self) -> Option<Result<OwnedFd, Errno>> {
        lines().get_mut(&self.inode)?.brought.take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut lines = lines();
        let Some(line) = lines.get_mut(&self.inode) else { return };
        let was_head = line.waiters.front().is_some_and(|head| Arc::ptr_eq(head, &self.called));
        line.waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.called));
        if line.waiters.is_empty() {
            // Closing what was brought releases the lock.
            line.brought = None;
            if !line.asked {
                lines.remove(&self.inode);
            }
        } else if was_head {
            line.call_head();
        }
    }
}

/// Lets a thread wait for the lock on behalf of the head, unless one does already. Gives the file back where no thread
/// is free.
fn ask(inode: Inode, file: OwnedFd, threads: usize) -> Result<(), OwnedFd> {
    {
        let mut lines = lines();
        let line = lines.entry(inode).or_default();
        if line.asked {
            return Ok(());
        }
        line.asked = true;
    }
    // By a slot, to have it back if the job is refused.
    let slot = Arc::new(Mutex::new(Some(file)));
    let theirs = Arc::clone(&slot);
    let take = |slot: &Mutex<Option<OwnedFd>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let job = move || {
        if let Some(file) = take(&theirs) {
            let locked = retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive));
            bring(inode, locked.map(|()| file));
        }
    };
    let Err(_refused) = pool::submit(Box::new(job), threads) else { return Ok(()) };
    if let Some(line) = lines().get_mut(&inode) {
        line.asked = false;
    }
    take(&slot).map_or(Ok(()), Err)
}

/// A lock has arrived: for the head, or for nobody.
fn bring(inode: Inode, locked: Result<OwnedFd, Errno>) {
    let mut lines = lines();
    let Some(line) = lines.get_mut(&inode) else { return };
    line.asked = false;
    if line.waiters.is_empty() {
        lines.remove(&inode);
    } else {
        line.brought = Some(locked);
        line.call_head();
    }
}
