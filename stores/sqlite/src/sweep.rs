//! Removing what has expired: found by the index of expiry without any lock, removed a few rows at a time.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::store::Swept;
use cloakroom_core::{Deadline, Key, Result};
use tokio::time::{Instant, sleep};

use crate::job::{Removed, Work};
use crate::shared::Shared;
use crate::way::{KINDS, Now};

/// At most so many rows are removed at once, and fewer where that takes long: a request that comes meanwhile waits for
/// them.
const MOST: usize = 16;
/// After each of these steps the database is left to others for so many times as long as the step took: longer where they
/// have asked for something meanwhile. What is removed has to be brought from the log into the database as well, and that
/// is what requests notice most.
const REST: u32 = 1;
const REST_BESIDE_OTHERS: u32 = 12;
const LONGEST_REST: Duration = Duration::from_millis(50);

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
        let mut asked = self.asked();
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
            let mut at_the_end = at_end && next.kind == KINDS;
            // Who holds or wants a record of these finds what has expired, as this does.
            let dead: Vec<_> = due.iter().filter(|due| due.expired && !self.is_in_line(&due.key)).collect();
            // Before anything can fail: what cannot be removed is passed over until the next round.
            self.set_place(if at_the_end { Place::default() } else { next });
            let mut seen = due.len();
            if !dead.is_empty() || at_the_end {
                let rows = dead.iter().map(|due| due.row).collect();
                let took = self.remove(rows, at_the_end, &deadline).await?;
                removed += took.removed;
                if let (Some(last), true) = (dead.get(took.seen.wrapping_sub(1)), took.seen < dead.len()) {
                    // It took long enough: the rest comes next.
                    self.set_place(Place { kind, after: (last.at, last.row) });
                    seen = took.seen;
                    at_the_end = false;
                }
            }
            left -= seen.min(left);
            if at_the_end || left == 0 {
                return Ok(Swept::new(removed, at_the_end));
            }
            if !due.is_empty() {
                // This step was one of them.
                let others = self.asked().wrapping_sub(asked) > 1;
                asked = self.asked();
                let rest = if others { REST_BESIDE_OTHERS } else { REST };
                sleep((begun.elapsed() * rest).min(LONGEST_REST)).await;
            }
        }
    }

    async fn remove(&self, rows: Vec<i64>, last: bool, deadline: &Deadline) -> Result<Removed> {
        let turn = if self.base.transactional {
            Some(self.turn_to_write(&Key::from_bytes([]), deadline).await?)
        } else {
            None
        };
        let (step, _) = self.ask(turn, deadline, Instant::now(), |reply| Work::Sweep { rows, last, reply }).await?;
        Ok(step)
    }
}
