//! Waiting for a lock that somebody else holds, for as long as there is somebody to wait for.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use cloakroom_core::{Deadline, Error, Key, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::error::{Failure, Refusal};
use crate::layout::{Dialect, LockMode, advisory_name, advisory_number, text_literal};
use crate::pool::{Conn, Pool, within};
use crate::row::Arg;
use crate::symfony::SymfonyTable;

/// How long an answer takes that nobody has to be waited for.
const AT_ONCE: Duration = Duration::from_millis(50);
/// So much of a statement is compared: PostgreSQL keeps the first 1,024 bytes of each.
const SHOWN: usize = 200;
/// How long calling a wait off may take.
const CALLING_OFF: Duration = Duration::from_millis(500);
/// How often it is made sure, while a statement waits for a lock, that it does.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// How much later than its limit a wait is cut off that the server cannot bound as finely.
const COARSE: Duration = Duration::from_millis(50);

/// Tells a task that nobody waits for it any more.
pub(crate) struct Gone {
    caller: oneshot::Receiver<()>,
    left: bool,
}

impl Gone {
    /// What the caller keeps, and what the task gets.
    pub(crate) fn pair() -> (oneshot::Sender<()>, Gone) {
        let (sender, receiver) = oneshot::channel();
        (sender, Gone { caller: receiver, left: false })
    }

    /// Returns when the caller has left, and at once ever after.
    async fn left(&mut self) {
        if !self.left {
            let _ = (&mut self.caller).await;
            self.left = true;
        }
    }
}

/// How long a statement may wait in the server for a lock, and that there is somebody to wait for.
pub(crate) struct Patience<'a> {
    until: Instant,
    symfony: &'a SymfonyTable,
    key: &'a Key,
    /// For asking beside what waits.
    pool: &'a Pool,
    gone: Gone,
    /// What the server calls the connection that waits.
    number: Option<i64>,
    called_off: bool,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(
        deadline: &Deadline,
        symfony: &'a SymfonyTable,
        key: &'a Key,
        pool: &'a Pool,
        gone: Gone,
    ) -> Patience<'a> {
        Patience { until: deadline.wait_until(), symfony, key, pool, gone, number: None, called_off: false }
    }

    /// Says which connection it is that waits.
    pub(crate) fn waits_with(&mut self, conn: &Conn) {
        self.number = conn.number();
    }

    /// Whether the wait was called off. Its connection is to be closed then: what calls off may come late, and hit
    /// whatever the connection is used for next.
    pub(crate) fn was_called_off(&self) -> bool {
        self.called_off
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// For PostgreSQL's `lock_timeout`, where 0 would be for ever.
    pub(crate) fn millis(&self) -> String {
        self.left().as_millis().clamp(1, 86_400_000).to_string()
    }

    /// For MySQL, which counts in seconds.
    pub(crate) fn seconds(&self) -> i64 {
        i64::try_from(self.left().as_millis().div_ceil(1000)).unwrap_or(i64::MAX).min(86_400)
    }

    /// Awaits an exchange that waits for a lock; `waiting` is its statement. The time does not count as talking, for as long as somebody is known to
    /// wait; a server that is not there any more, or a connection that has fallen silent, is found out in time.
    pub(crate) async fn wait<T>(
        &mut self,
        deadline: &Deadline,
        waiting: &str,
        exchange: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let io_left = deadline.io_left();
        if io_left.is_zero() {
            return Err(Failure::NotSent(Error::unavailable("no time is left to ask the store")));
        }
        let (dialect, pause) = (self.symfony.texts.dialect, HEARTBEAT.min(io_left / 2));
        // PostgreSQL keeps to the limit itself. MySQL is cut off, which its transaction or lock does not outlive.
        let end = self.until + if dialect == Dialect::Postgres { io_left } else { COARSE.min(io_left) };
        let end = end.max(Instant::now() + io_left);
        let mut exchange = pin!(exchange);
        // Since when the server has known of nobody that waits, where it has said so once.
        let mut talking: Option<Instant> = None;
        loop {
            let begun = talking.unwrap_or_else(Instant::now);
            let pause = pause.min(io_left.saturating_sub(begun.elapsed()) / 2);
            tokio::select! {
                biased;
                answer = &mut exchange => return answer,
                () = self.gone.left() => {
                    // What is free comes at once, and is given back in good order.
                    if let Ok(answer) = timeout(AT_ONCE, &mut exchange).await {
                        return answer;
                    }
                    self.called_off = true;
                    self.call_off(waiting, exchange).await;
                    return Err(Failure::NotSent(Error::unavailable("nobody waits for this any more")));
                }
                () = sleep_until(end) => {
                    return Err(match dialect {
                        Dialect::Postgres => {
                            deadline.spend(io_left);
                            Failure::Lost(Error::unavailable("the store did not answer in time"))
                        }
                        Dialect::MySql => Failure::Refused(Refusal::Held, "cut off".to_owned()),
                    });
                }
                () = sleep(pause) => {}
            }
            let waits = tokio::select! {
                biased;
                answer = &mut exchange => return answer,
                waits = self.somebody_waits(io_left.saturating_sub(begun.elapsed())) => waits,
            };
            match (waits, talking) {
                (Ok(true), _) => talking = None,
                // Between one holder and the next nobody waits for a moment.
                (Ok(false), None) => talking = Some(begun),
                (waits, _) => {
                    // Then all this was talking, and the answer may still be on its way.
                    deadline.spend(if waits.is_ok() { begun.elapsed() } else { io_left });
                    return deadline.io(exchange).await.unwrap_or_else(|error| Err(Failure::Lost(error)));
                }
            }
        }
    }

    /// Ends a wait in the server, where it would go on without us until its limit: requests that come and go would fill
    /// the server with them.
    ///
    /// Through a proxy, or after a failover, the number may be that of somebody else's connection: only a wait with this very
    /// statement is called off. Another process of ours that is hit all the same tries once more.
    async fn call_off<T>(&self, waiting: &str, exchange: impl Future<Output = Result<T, Failure>>) {
        let Some(number) = self.number else { return };
        let deadline = Deadline::new(CALLING_OFF, Duration::ZERO);
        let call_off = async {
            let mut conn = self.pool.get(&deadline).await?;
            let begin = waiting.get(..waiting.len().min(SHOWN)).unwrap_or_default();
            match self.symfony.texts.dialect {
                Dialect::Postgres => {
                    let call_off = format!(
                        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = {number} \
                         AND wait_event_type = 'Lock' AND starts_with(query, {})",
                        text_literal(Dialect::Postgres, begin.as_bytes())
                    );
                    within(&deadline, conn.rows_once(call_off)).await?;
                }
                Dialect::MySql => {
                    // There it is told with the values in their places.
                    let begin = begin.split('?').next().unwrap_or_default();
                    let find = format!(
                        "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number} \
                         AND COMMAND IN ('Query', 'Execute') AND LEFT(INFO, {}) = {}",
                        begin.len(),
                        text_literal(Dialect::MySql, begin.as_bytes())
                    );
                    if !within(&deadline, conn.rows_once(find)).await?.is_empty() {
                        within(&deadline, conn.run_once(format!("KILL QUERY {number}"))).await?;
                    }
                }
            }
            Ok::<_, Failure>(())
        };
        // One that has its answer already has nothing to call off.
        let _ = timeout(CALLING_OFF, async { tokio::join!(call_off, exchange) }).await;
    }

    /// Whether there is anybody, as far as the server tells, that waits for such a lock. An error if it tells nothing.
    async fn somebody_waits(&self, limit: Duration) -> Result<bool, Failure> {
        // Where all connections are busy, the server is there, and there is none to ask it with.
        if self.pool.is_exhausted() {
            return Ok(true);
        }
        let texts = &self.symfony.texts;
        let advisory = match (texts.lock, texts.dialect) {
            (LockMode::Advisory, Dialect::Postgres) => Some(Arg::Int(advisory_number(self.key.lock()))),
            (LockMode::Advisory, Dialect::MySql) => Some(Arg::Bytes(advisory_name(self.key.lock()))),
            _ => None,
        };
        let deadline = Deadline::new(limit, Duration::ZERO);
        let mut conn = self.pool.get(&deadline).await?;
        let rows = match within(&deadline, conn.rows(&texts.waits, advisory.as_slice())).await {
            // A server that does not tell.
            Err(Failure::Refused(..)) => return Ok(true),
            rows => rows?,
        };
        let Some(row) = rows.first() else { return Ok(true) };
        if texts.lock == LockMode::Advisory && texts.dialect == Dialect::MySql {
            let holder = row.int(0).map_err(Failure::Lost)?;
            // That may be the one that was to wait: it has not heard of it.
            return Ok(holder.is_some() && holder != self.number);
        }
        row.flag(0).map_err(Failure::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock may take several waits, and the caller leave in the first.
    #[tokio::test]
    async fn who_has_left_stays_away() {
        let (here, mut gone) = Gone::pair();
        assert!(timeout(Duration::from_millis(1), gone.left()).await.is_err());
        drop(here);
        gone.left().await;
        gone.left().await;
    }
}
