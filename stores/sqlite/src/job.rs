//! What the writing thread is asked to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Locked, Outcome, Put, Record};
use cloakroom_core::{Error, Key, Result, Task};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::commit::{Step, Want, commit};
use crate::error::Failure;
use crate::lock::{Grip, SharedTurn, SqliteLease, Turn};
use crate::native::random;
use crate::shared::Shared;
use crate::way::{Now, Way};

/// An answer, and the turn where the caller needs it for another attempt.
pub(crate) type Reply<T> = oneshot::Sender<Result<(T, Option<Turn>)>>;

pub(crate) struct Job {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) turn: Option<Turn>,
    pub(crate) work: Work,
    pub(crate) born: Instant,
    /// Over when all else of this has been dropped.
    pub(crate) task: Option<Task>,
}

pub(crate) enum Work {
    Commit { key: Key, want: Want, put: Arc<Put>, lease: Option<SqliteLease>, reply: Reply<Step<Outcome>> },
    Claim { key: Key, claim: Claim, shared: Arc<Shared>, reply: Reply<Step<Option<Locked>>> },
    Release { key: Key, token: i64, reply: Option<oneshot::Sender<()>> },
    Sweep { rows: Vec<i64>, last: bool, reply: Reply<Removed> },
    Age { key: Key, by: Duration, reply: Reply<()> },
}

/// What came of a job, to be told when it is committed.
pub(crate) enum Ran {
    Commit(Step<Outcome>),
    Claim(Step<Option<Granted>>),
    Released,
    Swept(Removed),
    Aged,
}

/// What came of a step of a sweep: how many rows it looked at, in their order, and how many of them it removed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Removed {
    pub(crate) seen: usize,
    pub(crate) removed: usize,
}

/// A step of a sweep ends when it has taken so long: requests wait for it.
const STEP: Duration = Duration::from_micros(400);

/// A lock that was taken.
pub(crate) struct Granted {
    pub(crate) grip: Grip,
    pub(crate) found: Option<Record>,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const LEFT: u8 = 2;

/// Decides between the thread, which takes a job up, and its caller, who may give up waiting for that: one of them is
/// first, so that whoever gives up knows whether anything was done.
pub(crate) struct Ticket {
    state: Arc<AtomicU8>,
    /// When waiting for somebody's lock has to end, and since when the caller has been waiting.
    pub(crate) wait_until: Instant,
    pub(crate) begun: Instant,
}

/// The caller's side of a ticket. Dropping it gives up.
pub(crate) struct Seat(Arc<AtomicU8>);

impl Ticket {
    pub(crate) fn new(wait_until: Instant, begun: Instant) -> (Ticket, Seat) {
        let state = Arc::new(AtomicU8::new(WAITING));
        (Ticket { state: Arc::clone(&state), wait_until, begun }, Seat(state))
    }

    fn swap(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Seat {
    /// True if the job was not taken up, and will not be.
    pub(crate) fn leave(&self) -> bool {
        self.0.compare_exchange(WAITING, LEFT, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Job {
    pub(crate) fn new(turn: Option<Turn>, work: Work) -> Job {
        Job { ticket: None, turn, work, born: Instant::now(), task: None }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.state.load(Ordering::Acquire) == LEFT)
    }

    /// True if it may be done; from now on its caller cannot give up without doubt.
    pub(crate) fn take_up(&self) -> bool {
        self.ticket.as_ref().is_none_or(|ticket| ticket.swap(WAITING, TAKEN))
    }

    /// What was done has been rolled back.
    pub(crate) fn put_back(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.swap(TAKEN, WAITING);
        }
    }

    /// Whether it is of the holder of the whole database.
    pub(crate) fn is_of_a_lock(&self) -> bool {
        matches!(self.work, Work::Commit { want: Want::Whole { .. }, .. })
    }

    /// Does it, under the database's lock for writing.
    pub(crate) fn run(&self, way: &Way, transactional: bool, conn: &Connection, now: Now) -> Result<Ran, Failure> {
        Ok(match &self.work {
            Work::Commit { key, want, put, .. } => Ran::Commit(commit(way, conn, key.record(), want, put, now)?),
            Work::Claim { key, claim, .. } => Ran::Claim(take(way, transactional, conn, key.record(), *claim, now)?),
            Work::Release { key, token, .. } => {
                if let Way::Native(native) = way {
                    native.release(conn, key.record(), *token)?;
                }
                Ran::Released
            }
            Work::Sweep { rows, last, .. } => {
                let (begun, mut step) = (Instant::now(), Removed::default());
                for row in rows {
                    if step.seen > 0 && begun.elapsed() > STEP {
                        break;
                    }
                    step.removed += usize::from(way.sweep(conn, *row, now)?);
                    step.seen += 1;
                }
                if *last && step.seen == rows.len() {
                    way.forget_aside(conn, now)?;
                }
                Ran::Swept(step)
            }
            Work::Age { key, by, .. } => {
                way.age(conn, key.record(), *by)?;
                Ran::Aged
            }
        })
    }

    /// Tells the caller. `turn` is that of a lease that was granted.
    pub(crate) fn answer(self, ran: Result<Ran>, granted: Option<SharedTurn>) {
        // What is given back to nobody is dropped in here, and may be a lease, which is one more job.
        let Job { task: _task, turn, work, .. } = self;
        match (work, ran) {
            (Work::Commit { lease, reply, .. }, Ok(Ran::Commit(step))) => {
                if let Some(mut lease) = lease {
                    lease.is_used_up();
                }
                let turn = turn.filter(|_| matches!(step, Step::Wait));
                let _ = reply.send(Ok((step, turn)));
            }
            (Work::Claim { key, shared, reply, .. }, Ok(Ran::Claim(step))) => {
                let _ = reply.send(Ok(match step {
                    Step::Wait => (Step::Wait, turn),
                    Step::Done(None) => (Step::Done(None), None),
                    Step::Done(Some(Granted { grip, found })) => {
                        let lease = SqliteLease::new(shared, key, grip, granted.unwrap_or_default());
                        (Step::Done(Some(Locked::new(Box::new(lease), found))), None)
                    }
                }));
            }
            (Work::Sweep { reply, .. }, Ok(Ran::Swept(step))) => drop(reply.send(Ok((step, None)))),
            (Work::Age { reply, .. }, Ok(Ran::Aged)) => drop(reply.send(Ok(((), None)))),
            (Work::Release { reply, .. }, _) => {
                // So that whoever hears of it finds the line as it is then.
                drop(turn);
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
            }
            // A lease is given back by being dropped.
            (Work::Commit { reply, lease, .. }, Err(error)) => {
                drop(lease);
                let _ = reply.send(Err(error));
            }
            (Work::Claim { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
            (Work::Sweep { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
            (Work::Age { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
            (_, Ok(_)) => {}
        }
    }
}

fn take(
    way: &Way,
    transactional: bool,
    conn: &Connection,
    id: &[u8],
    claim: Claim,
    now: Now,
) -> Result<Step<Option<Granted>>, Failure> {
    if !matches!(claim, Claim::Existing | Claim::New | Claim::Either) {
        return Err(Error::new(cloakroom_core::ErrorKind::Unsupported, "lock by a claim that is not known").into());
    }
    match way {
        Way::Native(native) => {
            let token = random()?;
            Ok(match native.claim(conn, id, claim, token, now)? {
                Step::Wait => Step::Wait,
                Step::Done(claimed) => Step::Done(claimed.map(|claimed| Granted {
                    grip: Grip::Row { token, version: claimed.version },
                    found: claimed.found,
                })),
            })
        }
        Way::Symfony(symfony) => {
            let Some(claimed) = symfony.claim(conn, id, claim, now)? else { return Ok(Step::Done(None)) };
            let found = claimed.found;
            let grip = if transactional {
                Grip::Whole { token: random()? }
            } else {
                Grip::Line { found: found.as_ref().map(|found| found.version.clone()) }
            };
            Ok(Step::Done(Some(Granted { grip, found })))
        }
    }
}
