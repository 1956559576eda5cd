//! What all clones of a store share, and the way of a call to the threads that read and write.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use cloakroom_core::line::{Lines, MOST_WAITING, too_many};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Tasks};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::config::SqliteConfig;
use crate::error::Failure;
use crate::file::{Db, Site};
use crate::job::{Job, Reply, Ticket, Work};
use crate::lock::Turn;
use crate::reader::Readers;
use crate::sweep::Place;
use crate::way::{Loaded, Now, Way};
use crate::writer::Writer;

/// A payload up to this size is read at once.
const SMALL: i64 = 64 << 10;
/// How many may write at the same time in Symfony's transactional mode. Who locks takes them all.
const GATE: u32 = 1 << 16;

/// What the threads need to know.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) site: Site,
    pub(crate) way: Way,
    pub(crate) lease: Duration,
    pub(crate) busy: Duration,
    /// A lock is a transaction that has the whole database.
    pub(crate) transactional: bool,
}

pub(crate) struct Shared {
    pub(crate) base: Arc<Base>,
    pub(crate) readers: Readers,
    pub(crate) max_payload: usize,
    pub(crate) swept_to: Mutex<Place>,
    lines: Lines,
    /// The line for the whole database. First come, first served, as those for single records.
    gate: Arc<Semaphore>,
    /// How many stand in it.
    waiting: AtomicUsize,
    jobs: mpsc::Sender<Job>,
    /// How many jobs there have been.
    asked: AtomicUsize,
    /// Those that are under way.
    pub(crate) tasks: Tasks,
}

/// A place in the line for the whole database.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Base {
    pub(crate) fn new(config: &SqliteConfig) -> Result<Base> {
        Ok(Base {
            site: Site::find(config)?,
            way: Way::new(config)?,
            lease: config.lease,
            busy: config.busy,
            transactional: config.is_transactional(),
        })
    }
}

impl Shared {
    /// Starts the thread that writes, which ends with the last of those who can ask it for something.
    pub(crate) fn start(config: &SqliteConfig, base: Arc<Base>, db: Option<Db>) -> Result<Shared> {
        let (jobs, inbox) = mpsc::channel();
        let writer = Writer::new(Arc::clone(&base), db, inbox);
        std::thread::Builder::new()
            .name("cloakroom-sqlite".to_owned())
            .spawn(move || writer.work())
            .map_err(|source| Error::unavailable("start the thread that writes").with_source(source))?;
        Ok(Shared {
            base,
            readers: Readers::new(config.readers),
            max_payload: config.max_payload,
            swept_to: Mutex::default(),
            lines: Lines::default(),
            gate: Arc::new(Semaphore::new(GATE as usize)),
            waiting: AtomicUsize::new(0),
            jobs,
            asked: AtomicUsize::new(0),
            tasks: Tasks::default(),
        })
    }

    /// Without a word where the thread has ended: whoever waits for an answer then learns of it.
    pub(crate) fn send(&self, mut job: Job) {
        job.task = Some(self.tasks.begin());
        self.asked.fetch_add(1, Ordering::Relaxed);
        let _ = self.jobs.send(job);
    }

    /// How many jobs there have been.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether somebody in this process holds the lock of a record or waits for it, where there is a line for each.
    pub(crate) fn is_in_line(&self, key: &Key) -> bool {
        self.lines.is_busy(key)
    }

    /// The turn to lock a record.
    pub(crate) async fn turn_to_lock(&self, key: &Key, deadline: &Deadline) -> Result<Turn> {
        if self.base.transactional {
            return self.pass(GATE, deadline).await;
        }
        Ok(self.lines.stand(key, deadline).await?.into())
    }

    /// The turn to change a record without locking it.
    pub(crate) async fn turn_to_write(&self, key: &Key, deadline: &Deadline) -> Result<Turn> {
        if self.base.transactional {
            return self.pass(1, deadline).await;
        }
        Ok(self.lines.stand(key, deadline).await?.into())
    }

    async fn pass(&self, parts: u32, deadline: &Deadline) -> Result<Turn> {
        let gate = &self.gate;
        // At once where nobody is there, also when there is no time to wait.
        if let Ok(permit) = Arc::clone(gate).try_acquire_many_owned(parts) {
            return Ok(permit.into());
        }
        let place = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return Err(too_many());
        }
        let begun = Instant::now();
        let turn = timeout_at(deadline.wait_until(), Arc::clone(gate).acquire_many_owned(parts)).await;
        drop(place);
        match turn {
            Ok(Ok(permit)) => Ok(permit.into()),
            Ok(Err(_)) | Err(_) => Err(Error::locked(begun.elapsed())),
        }
    }

    /// Has the writing thread do something. Dropped or out of time before the thread takes it up, nothing is done.
    pub(crate) async fn ask<T>(
        &self,
        turn: Option<Turn>,
        deadline: &Deadline,
        begun: Instant,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<(T, Option<Turn>)> {
        let io_left = deadline.io_left();
        if io_left.is_zero() {
            return Err(no_time());
        }
        let (reply, mut answer) = oneshot::channel();
        let (ticket, seat) = Ticket::new(deadline.wait_until().into_std(), begun.into_std());
        let asked = Instant::now();
        let mut job = Job::new(turn, work(reply));
        job.ticket = Some(ticket);
        self.send(job);
        let mut limit = asked + io_left;
        if self.base.transactional {
            // Most of the time is spent in waiting for PHP, which is no talking.
            limit = limit.max(deadline.wait_until() + io_left);
        }
        let ended = || Error::unavailable("the thread that writes has ended").or_maybe_applied();
        match timeout_at(limit, &mut answer).await {
            Ok(answer) => {
                if !self.base.transactional {
                    deadline.spend(asked.elapsed());
                }
                answer.unwrap_or_else(|_| Err(ended()))
            }
            Err(_) if seat.leave() => {
                deadline.spend(asked.elapsed());
                Err(Error::unavailable("the SQLite database could not be written to in time"))
            }
            Err(_) => {
                deadline.spend(asked.elapsed());
                let late = || Error::unavailable("the SQLite database did not answer in time").or_maybe_applied();
                answer.try_recv().unwrap_or_else(|_| Err(late()))
            }
        }
    }

    /// Reads a record: at once if it is small.
    pub(crate) async fn load(self: &Arc<Self>, key: &Key, deadline: &Deadline) -> Result<Loaded> {
        let io_left = deadline.io_left();
        if io_left.is_zero() {
            return Err(no_time());
        }
        let begun = std::time::Instant::now();
        let read = |conn: &Connection| self.base.way.load(conn, key.record(), Now::read(), SMALL);
        match self.readers.at_once(&self.base, read) {
            Some(Ok(Loaded::Larger) | Err(_)) | None => {}
            Some(Ok(loaded)) => {
                deadline.spend(begun.elapsed());
                return Ok(loaded);
            }
        }
        let key = key.clone();
        self.read(deadline, move |way, conn| way.load(conn, key.record(), Now::read(), i64::MAX)).await
    }

    /// Reads on the blocking pool.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: &Deadline,
        read: impl Fn(&Way, &Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(self);
        let until = std::time::Instant::now() + deadline.io_left();
        let job = tokio::task::spawn_blocking(move || {
            shared.readers.patiently(&shared.base, until, |conn| read(&shared.base.way, conn))
        });
        match deadline.io(job).await? {
            Ok(done) => done.map_err(Failure::into_error),
            Err(error) => Err(Error::unavailable("reading was broken off").with_source(error)),
        }
    }

    pub(crate) fn place(&self) -> Place {
        *self.swept_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_place(&self, place: Place) {
        *self.swept_to.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

fn no_time() -> Error {
    Error::new(ErrorKind::Unavailable, "no time is left to ask the store")
}
