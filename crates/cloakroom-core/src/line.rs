//! Waiting in line for a lock: first come, first served within a process.
//!
//! For stores whose locks lie on a server. Only the head of a line asks the server whether the lock is free; the others
//! ask nobody. Who holds the lock keeps the place at the head meanwhile, so that the lock goes from hand to hand
//! within a process without anybody trying for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::{Deadline, Error, ErrorKind, Key, Result};

/// So many may wait for one lock within a process; whoever comes then is turned away at once. A visitor
/// sends a handful of requests in parallel. Thousands under one id are an attack, and each of them holds a connection.
pub const MOST_WAITING: usize = 500;

/// What is said to who comes after [`MOST_WAITING`] others: [`ErrorKind::Locked`].
pub fn too_many() -> Error {
    Error::new(ErrorKind::Locked, "stand in a line that is as long as it may get: many requests wait for one session")
}

/// The first pause of [`pauses`].
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest pause of [`pauses`].
const LONGEST: Duration = Duration::from_millis(20);

/// All lines of one store: one for each lock that somebody in this process holds or waits for.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use cloakroom_core::{Deadline, ErrorKind, Key};
/// use cloakroom_core::line::Lines;
///
/// let (lines, key) = (Lines::default(), Key::from_bytes(*b"key"));
/// let deadline = Deadline::new(Duration::ZERO, Duration::from_millis(5));
/// let head = lines.stand(&key, &deadline).await?;
/// assert_eq!(lines.stand(&key, &deadline).await.unwrap_err().kind(), ErrorKind::Locked);
/// drop(head);
/// assert!(lines.stand(&key, &deadline).await.is_ok());
/// # Ok::<(), cloakroom_core::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Lines {
    lines: Arc<Mutex<ByKey>>,
}

/// A line is a semaphore with one permit, which is first come, first served by itself.
type ByKey = HashMap<Arc<[u8]>, Arc<Semaphore>>;

/// The place at the head of a line. Dropping it lets the next come forward.
pub struct Head {
    permit: Option<OwnedSemaphorePermit>,
    _place: Place,
}

/// A place in a line, at its head or not. The last to leave takes the line away.
struct Place {
    lines: Lines,
    key: Arc<[u8]>,
    line: Option<Arc<Semaphore>>,
}

impl Lines {
    /// Stands in the line for the lock of `key` and waits to be its head, at most to the deadline's limit for waiting
    /// and behind [`MOST_WAITING`] others at most: [`ErrorKind::Locked`].
    pub async fn stand(&self, key: &Key, deadline: &Deadline) -> Result<Head> {
        let place = self.join(key.lock());
        let Some(line) = place.line.clone() else { return Err(Error::locked(Duration::ZERO)) };
        // At once where nobody is there, also when there is no time to wait.
        if let Ok(permit) = Arc::clone(&line).try_acquire_owned() {
            return Ok(Head { permit: Some(permit), _place: place });
        }
        // The map, and two for each who waits.
        if Arc::strong_count(&line) > 1 + 2 * MOST_WAITING {
            return Err(too_many());
        }
        let begun = Instant::now();
        match timeout_at(deadline.wait_until(), line.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Head { permit: Some(permit), _place: place }),
            Ok(Err(_)) | Err(_) => Err(Error::locked(begun.elapsed())),
        }
    }

    /// Whether somebody in this process holds the lock of `key` or waits for it.
    pub fn is_busy(&self, key: &Key) -> bool {
        self.open().contains_key(key.lock())
    }

    fn join(&self, key: &[u8]) -> Place {
        let mut lines = self.open();
        if let Some((key, line)) = lines.get_key_value(key) {
            return Place { lines: self.clone(), key: Arc::clone(key), line: Some(Arc::clone(line)) };
        }
        let (key, line): (Arc<[u8]>, _) = (key.into(), Arc::new(Semaphore::new(1)));
        lines.insert(Arc::clone(&key), Arc::clone(&line));
        Place { lines: self.clone(), key, line: Some(line) }
    }

    fn open(&self) -> MutexGuard<'_, ByKey> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({})", self.open().len())
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Head")
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        // Before the place is left, so that the line is not taken away while it still counts this permit.
        self.permit.take();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.open();
        self.line.take();
        // Places are made under this mutex alone: a line that only the map knows is empty and stays so.
        if lines.get(&self.key).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.key);
        }
    }
}

/// Pauses between tries for a lock that somebody outside this process holds: 1 ms, doubled up to 20 ms.
pub fn pauses() -> impl Iterator<Item = Duration> + Send {
    std::iter::successors(Some(SHORTEST), |pause| Some((*pause * 2).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn deadline(wait: u64) -> Deadline {
        Deadline::new(Duration::ZERO, Duration::from_millis(wait))
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_has_a_limit() {
        let (lines, key) = (Lines::default(), Key::from_bytes(*b"key"));
        let head = lines.stand(&key, &deadline(0)).await.unwrap();
        let begun = Instant::now();
        let waiters: Vec<_> = (0..2 * MOST_WAITING)
            .map(|_| {
                let (lines, key) = (lines.clone(), key.clone());
                tokio::spawn(async move { lines.stand(&key, &deadline(1000)).await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(head);
        let mut served = 0;
        for waiter in waiters {
            served += usize::from(waiter.await.unwrap());
        }
        assert!((MOST_WAITING - 2..=MOST_WAITING + 1).contains(&served), "{served}");
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited for the limit of time");
        assert!(lines.open().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_first_served() {
        let (lines, key) = (Lines::default(), Key::from_bytes(*b"key"));
        let head = lines.stand(&key, &deadline(0)).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..5)
            .map(|n| {
                let (lines, key, order) = (lines.clone(), key.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    let _head = lines.stand(&key, &deadline(1000)).await.unwrap();
                    order.lock().unwrap().push(n);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        waiters[2].abort();
        tokio::task::yield_now().await;
        drop(head);
        for waiter in waiters {
            let _ = waiter.await;
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
        assert!(!lines.is_busy(&key));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_line_is_taken_away() {
        let lines = Lines::default();
        for n in 0..100_u8 {
            let key = Key::from_bytes([n]);
            let head = lines.stand(&key, &deadline(0)).await.unwrap();
            assert_eq!(lines.stand(&key, &deadline(0)).await.unwrap_err().kind(), ErrorKind::Locked);
            assert!(lines.is_busy(&key));
            drop(head);
            assert!(!lines.is_busy(&key));
        }
        assert!(lines.open().is_empty());
    }
}
