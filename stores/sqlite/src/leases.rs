//! The leases that this process has in rows: renewed while they are held, and given back although that failed at first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cloakroom_core::{Key, Task};
use rusqlite::Connection;

use crate::error::Failure;
use crate::lock::{SharedTurn, take_turn};
use crate::way::{Now, Way};

#[derive(Default)]
pub(crate) struct Leases {
    /// By their tokens.
    held: HashMap<i64, Held>,
    owed: Vec<Owed>,
    length: Duration,
    due_at: Option<Instant>,
}

struct Held {
    key: Key,
    turn: SharedTurn,
}

/// One that could not be given back.
struct Owed {
    key: Key,
    token: i64,
    since: Instant,
    /// Over when it was given back, or has run out.
    _task: Option<Task>,
}

/// What was found by looking after them. It counts when it is committed.
pub(crate) struct LookedAfter {
    lost: Vec<i64>,
}

impl Leases {
    pub(crate) fn new(length: Duration) -> Leases {
        Leases { length, ..Leases::default() }
    }

    /// When they have to be looked after; `None` where there are none.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.due_at.filter(|_| !self.held.is_empty() || !self.owed.is_empty())
    }

    pub(crate) fn are_due(&self) -> bool {
        self.due_at().is_some_and(|at| Instant::now() >= at)
    }

    pub(crate) fn hold(&mut self, token: i64, key: Key, turn: SharedTurn) {
        if self.due_at().is_none() {
            self.due_at = Some(Instant::now() + self.length / 3);
        }
        self.held.insert(token, Held { key, turn });
    }

    /// One that was given back, or is to be.
    pub(crate) fn let_go(&mut self, token: i64) {
        self.held.remove(&token);
    }

    /// One that could not be given back: tried again soon, and until it has run out by itself.
    pub(crate) fn owe(&mut self, key: Key, token: i64, since: Instant, task: Option<Task>) {
        tracing::warn!(session = %key.tag(), "the lock on a session could not be given back yet");
        self.owed.push(Owed { key, token, since, _task: task });
        self.look_again();
    }

    /// Soon, after it did not work.
    pub(crate) fn look_again(&mut self) {
        let now = Instant::now();
        self.owed.retain(|owed| now.duration_since(owed.since) < self.length);
        self.due_at = Some(now + self.length / 10);
    }

    /// Renews those that are held and gives back those that are owed, within a transaction.
    pub(crate) fn look_after(&mut self, way: &Way, conn: &Connection) -> Result<LookedAfter, Failure> {
        let looked = self.try_look_after(way, conn);
        if let Err(failure) = &looked {
            let error = failure.again().into_error();
            tracing::warn!(%error, "the locks on sessions could not be renewed");
            self.look_again();
        }
        looked
    }

    fn try_look_after(&self, way: &Way, conn: &Connection) -> Result<LookedAfter, Failure> {
        let (mut lost, now) = (Vec::new(), Now::read());
        let Way::Native(native) = way else { return Ok(LookedAfter { lost }) };
        for (token, held) in &self.held {
            if !native.renew(conn, held.key.record(), *token, now)? {
                lost.push(*token);
            }
        }
        for owed in &self.owed {
            native.release(conn, owed.key.record(), owed.token)?;
        }
        Ok(LookedAfter { lost })
    }

    /// After it was committed: where a lease is not ours any more, the next in line comes forward.
    pub(crate) fn were_looked_after(&mut self, found: LookedAfter) {
        for token in found.lost {
            let Some(held) = self.held.remove(&token) else { continue };
            tracing::warn!(session = %held.key.tag(), "the lock on a session was lost");
            drop(take_turn(&held.turn));
        }
        self.owed.clear();
        self.due_at = Some(Instant::now() + self.length / 3);
    }
}
