//! The two limits of every call to a store: time spent talking to it, and time spent waiting for somebody's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Result};

/// How long a store may take for one call.
///
/// The time for talking to the store is one budget for a whole request: each [`io`](Deadline::io) takes from it what
/// it used beyond a fiftieth of the budget, so that a store that answers quickly can be asked as often as one likes. After
/// the head of the response has left, each verb has a budget of its own. Waiting for a live holder of a lock does not
/// count in it and has a limit of its own, which runs from the moment the call was begun.
#[derive(Clone, Debug)]
pub struct Deadline {
    budget: Arc<Budget>,
    lock_wait: Duration,
    wait_until: Instant,
}

#[derive(Debug)]
struct Budget {
    left: AtomicU64,
    /// So long an exchange costs nothing: a request that asks a healthy store a thousand times is no outage.
    free: Duration,
}

impl Deadline {
    /// A fresh budget of `io_timeout`, and a limit for waiting for locks that begins now.
    pub fn new(io_timeout: Duration, lock_wait: Duration) -> Deadline {
        let budget = Budget { left: AtomicU64::new(nanos(io_timeout)), free: io_timeout / 50 };
        Deadline { budget: Arc::new(budget), lock_wait, wait_until: after(lock_wait) }
    }

    /// The same budget, with another limit for waiting that begins now.
    #[must_use]
    pub fn with_lock_wait(&self, lock_wait: Duration) -> Deadline {
        Deadline { budget: Arc::clone(&self.budget), lock_wait, wait_until: after(lock_wait) }
    }

    /// When waiting for a lock has to end.
    pub fn wait_until(&self) -> Instant {
        self.wait_until
    }

    /// How long this call may wait for a lock in all.
    pub fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    /// What is left of the time for talking to the store.
    pub fn io_left(&self) -> Duration {
        Duration::from_nanos(self.budget.left.load(Ordering::Relaxed))
    }

    /// Runs one exchange with the store within what is left of the budget; [`ErrorKind::Unavailable`] beyond it.
    /// Where nothing is left, the exchange is not begun.
    ///
    /// Do not wait for locks in it.
    ///
    /// [`ErrorKind::Unavailable`]: crate::ErrorKind::Unavailable
    pub async fn io<F: Future>(&self, exchange: F) -> Result<F::Output> {
        let (begun, left) = (Instant::now(), self.io_left());
        if left.is_zero() {
            // A timer is as coarse as a millisecond: without this, a quick exchange would still be done.
            return Err(Error::unavailable("no time is left to ask the store"));
        }
        let answer = tokio::time::timeout(left, exchange).await;
        if answer.is_ok() {
            self.spend(begun.elapsed());
        } else {
            self.budget.left.store(0, Ordering::Relaxed);
        }
        answer.map_err(|_| Error::unavailable("the store did not answer in time"))
    }

    /// Takes time from the budget that one exchange used outside of [`io`](Deadline::io).
    pub fn spend(&self, used: Duration) {
        let used = nanos(used.saturating_sub(self.budget.free));
        let update = |left: u64| Some(left.saturating_sub(used));
        let _ = self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

/// That long from now; a limit too far off for the clock is as good as a hundred years.
fn after(wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    Instant::now() + wait.min(CENTURY)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_for_all_exchanges_together() {
        let deadline = Deadline::new(Duration::from_millis(250), Duration::from_secs(5));
        let later = deadline.with_lock_wait(Duration::from_secs(1));
        deadline.io(tokio::time::sleep(Duration::from_millis(200))).await.unwrap();
        let error = later.io(tokio::time::sleep(Duration::from_millis(200))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(deadline.io_left(), Duration::ZERO);
        let error = deadline.io(std::future::ready(())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    /// Found with a loop of updates on an idle Redis, which was "unavailable" after 750 of them.
    #[tokio::test(start_paused = true)]
    async fn quick_exchanges_use_nothing_up() {
        let deadline = Deadline::new(Duration::from_millis(250), Duration::from_secs(5));
        for _ in 0..1000 {
            deadline.io(tokio::time::sleep(Duration::from_millis(4))).await.unwrap();
        }
        assert_eq!(deadline.io_left(), Duration::from_millis(250));
    }
}
