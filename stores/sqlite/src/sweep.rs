//! Removing what has expired: found by the index of expiry without any lock, removed a few rows at a time.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::store::Swept;
use cloakroom_core::{Deadline, Key, Result};
use tokio::time::{Instant, sleep};

use crate::job::Work;
use crate::shared::Shared;
use crate::way::{KINDS, Now};

/// So many rows are removed at once; a request that comes meanwhile waits for them.
const MOST: usize = 16;
/// After each of these steps the database is left to others for so many times as long as the step took.
const REST: u32 = 3;

/// How far a round has come: which kind of rows, and behind which of them in the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    kind: usize,
    after: (i64, i64),
}

impl Default for Place {
    fn default() -> Place {
        Place { kind: 0, after: (i64::MIN, i64::MIN) }
    }
}

impl Shared {
    pub(crate) async fn sweep(self: &Arc<Self>, step: usize) -> Result<Swept> {
        let (mut left, mut removed) = (step.max(1), 0);
        loop {
            let (begun, place, most) = (Instant::now(), self.place(), left.min(MOST));
            let deadline = Deadline::new(self.base.busy, self.base.busy);
            let Place { kind, after } = place;
            let due = self.read(&deadline, move |way, conn| way.due(conn, kind, after, most, Now::read())).await?;
            let at_end = due.len() < most;
            let next = match due.last() {
                _ if at_end => Place { kind: kind + 1, ..Place::default() },
                Some(last) => Place { kind, after: (last.at, last.row) },
                None => Place::default(),
            };
            let is_last = at_end && next.kind == KINDS;
            // Who holds or wants a record of these finds what has expired, as this does.
            let rows = due.iter().filter(|due| due.expired && !self.is_in_line(&due.key)).map(|due| due.row);
            let rows: Vec<_> = rows.collect();
            // Before anything can fail: what cannot be removed is passed over until the next round.
            self.set_place(if is_last { Place::default() } else { next });
            if !rows.is_empty() || is_last {
                removed += self.remove(rows, is_last, &deadline).await?;
            }
            left -= due.len().min(left);
            if is_last || left == 0 {
                return Ok(Swept::new(removed, is_last));
            }
            if !due.is_empty() {
                sleep((begun.elapsed() * REST).min(Duration::from_secs(1))).await;
            }
        }
    }

    async fn remove(&self, rows: Vec<i64>, last: bool, deadline: &Deadline) -> Result<usize> {
        let turn = if self.base.transactional {
            Some(self.turn_to_write(&Key::from_bytes([]), deadline).await?)
        } else {
            None
        };
        let (removed, _) = self.ask(turn, deadline, Instant::now(), |reply| Work::Sweep { rows, last, reply }).await?;
        Ok(removed)
    }
}
