//! Sweeping: what has expired is found by its index and removed in bounded steps; and what was set aside is forgotten.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Outcome, Put, Swept};
use cloakroom_core::{Deadline, Key, Result};

use crate::error::Failure;
use crate::layout::{Dialect, Expiry, LONGEST_DURATION, LockMode, SymfonyNames, hex};
use crate::pool::{Conn, within};
use crate::shared::{Shared, Way};

/// How long one step may take.
const STEP: Duration = Duration::from_secs(30);
/// How many rows one statement removes at most, so that none holds many others up.
const MOST: usize = 500;
/// The same where each takes a lock of the server's, of which there are not so many.
const MOST_LOCKS: usize = 100;
/// How often a step that somebody got in the way of is tried.
const TRIES: usize = 5;

/// A sweep's own statements: one condition for each kind of row, with the lock's place in it where SQL can tell.
pub(crate) struct Due {
    table: String,
    id: String,
    /// What has expired, as its index has it.
    conditions: Vec<String>,
    /// Whether nobody holds it.
    free: Option<String>,
    /// The row is to be locked, and passed over if it is.
    skip_locked: bool,
    /// Whether a place in line is the only lock there is.
    in_line: bool,
    most: usize,
}

impl Due {
    fn of(shared: &Shared) -> Due {
        let (dialect, now) = (shared.dialect, shared.dialect.now_millis());
        match &shared.way {
            Way::Native(native) => Due {
                table: native.texts.table.clone(),
                id: "id".to_owned(),
                conditions: vec![format!("expires_at <= {now}")],
                free: Some(format!("lock_until <= {now}")),
                skip_locked: dialect == Dialect::Postgres,
                in_line: false,
                most: MOST,
            },
            Way::Symfony(symfony) => {
                let (now, texts) = (dialect.now_seconds(), &symfony.texts);
                let SymfonyNames { id, lifetime, time, .. } = &texts.names;
                // As Symfony's own garbage collection asks, so that the index on the column can answer.
                let absolute = format!("{lifetime} < {now}");
                let duration = match dialect {
                    Dialect::Postgres => format!("{lifetime} < {now} - {time}"),
                    Dialect::MySql => format!("CAST({lifetime} AS SIGNED) + CAST({time} AS SIGNED) < {now}"),
                };
                let conditions = match texts.expiry {
                    Expiry::Absolute => vec![absolute],
                    Expiry::Duration => vec![duration],
                    Expiry::Mixed => vec![
                        format!("{lifetime} > {LONGEST_DURATION} AND {absolute}"),
                        format!("{lifetime} <= {LONGEST_DURATION} AND {duration}"),
                    ],
                };
                let advisory = texts.lock == LockMode::Advisory;
                let free = advisory.then(|| match dialect {
                    Dialect::Postgres => format!("pg_try_advisory_xact_lock({})", advisory_number_sql(id)),
                    Dialect::MySql => format!("IS_FREE_LOCK(SUBSTR({id}, 1, 64)) = 1"),
                });
                Due {
                    table: texts.table.clone(),
                    id: id.clone(),
                    conditions,
                    free,
                    skip_locked: if dialect == Dialect::Postgres {
                        texts.lock != LockMode::Advisory
                    } else {
                        texts.lock == LockMode::Transactional
                    },
                    in_line: texts.lock == LockMode::None,
                    most: if advisory { MOST_LOCKS } else { MOST },
                }
            }
        }
    }
}

/// [`advisory_number`](crate::layout::advisory_number) of a column, in PostgreSQL.
fn advisory_number_sql(id: &str) -> String {
    let bytes = format!("(convert_to({id}, 'UTF8') || '\\x0000000000000000'::bytea)");
    let byte = |at: u32| format!("(get_byte({bytes}, {at})::bigint << {})", at * 8);
    (0..8).map(byte).collect::<Vec<_>>().join(" | ")
}

impl Shared {
    pub(crate) async fn sweep(self: Arc<Self>, step: usize) -> Result<Swept> {
        let due = Due::of(&self);
        let deadline = Deadline::new(STEP, Duration::ZERO);
        let mut left = step.max(1);
        let mut swept = Swept::new(0, true);
        for condition in &due.conditions {
            while left > 0 {
                let batch = left.min(due.most);
                let (removed, looked) =
                    self.sweep_batch(&due, condition, batch, &deadline).await.map_err(Failure::of_write)?;
                swept.removed += removed;
                left -= looked.clamp(removed, left);
                if looked < batch {
                    break;
                }
                if due.most <= batch && left > 0 {
                    // Others are to come between two statements of a large step.
                    tokio::task::yield_now().await;
                }
            }
        }
        swept.done = left > 0;
        Ok(swept)
    }

    /// How many were removed, and how many were found.
    async fn sweep_batch(
        self: &Arc<Self>,
        due: &Due,
        condition: &str,
        batch: usize,
        deadline: &Deadline,
    ) -> Result<(usize, usize), Failure> {
        let mut tries = 1;
        loop {
            let mut conn = self.connection(deadline).await?;
            let swept = match self.dialect {
                Dialect::Postgres if !due.in_line => due.in_one(&mut conn, condition, batch, deadline).await,
                _ => due.in_two(self, &mut conn, condition, batch, deadline).await,
            };
            match swept {
                Err(failure) if failure.is_in_the_way() && tries < TRIES => tries += 1,
                swept => return swept,
            }
        }
    }

    /// After something was set aside: the number and the age of what is kept are bounded.
    pub(crate) async fn keep_aside_bounded(&self, put: &Put, outcome: &Outcome) {
        let (Put::SetAside, Outcome::Removed(_)) = (put, outcome) else { return };
        let aside = match &self.way {
            Way::Native(native) => &native.texts.aside,
            Way::Symfony(symfony) => &symfony.texts.aside,
        };
        let age = crate::native::millis(self.config.aside_lifetime);
        let trim = format!(
            "DELETE FROM {aside} WHERE aside_at < {} - {age}; DELETE FROM {aside} WHERE id <= \
             (SELECT id FROM (SELECT id FROM {aside} ORDER BY id DESC LIMIT 1 OFFSET {}) AS last)",
            self.dialect.now_millis(),
            self.config.max_aside
        );
        let deadline = Deadline::new(STEP, Duration::ZERO);
        let trimmed = async {
            let mut conn = self.main.get(&deadline).await?;
            within(&deadline, conn.flight(trim)).await
        };
        if let Err(failure) = trimmed.await {
            let error = failure.of_read();
            tracing::warn!(%error, "what was set aside could not be bounded");
        }
    }
}

impl Due {
    /// PostgreSQL: one statement that takes what nobody else has.
    async fn in_one(
        &self,
        conn: &mut Conn,
        condition: &str,
        batch: usize,
        deadline: &Deadline,
    ) -> Result<(usize, usize), Failure> {
        let ran = within(deadline, conn.run_once(self.one(condition, batch))).await?;
        let removed = usize::try_from(ran.found).unwrap_or(usize::MAX);
        Ok((removed, removed))
    }

    fn one(&self, condition: &str, batch: usize) -> String {
        let Due { table, free, .. } = self;
        let free = free.as_ref().map(|free| format!(" AND {free}")).unwrap_or_default();
        let skip = if self.skip_locked { " FOR UPDATE SKIP LOCKED" } else { "" };
        // Without an order, so that a lock in the condition is tried only on rows that are taken.
        format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition}{free} \
             LIMIT {batch}{skip})) AND {condition}"
        )
    }

    /// Found first, and then removed by their names under the same condition: locks are taken in the order in which
    /// requests take them.
    async fn in_two(
        &self,
        shared: &Shared,
        conn: &mut Conn,
        condition: &str,
        batch: usize,
        deadline: &Deadline,
    ) -> Result<(usize, usize), Failure> {
        let Due { table, id, free, .. } = self;
        let free = free.as_ref().map(|free| format!(" AND {free}")).unwrap_or_default();
        let skip_locked = self.skip_locked && !self.in_line;
        let skip = if skip_locked { " FOR UPDATE SKIP LOCKED" } else { "" };
        if skip_locked {
            conn.set_open(true);
            within(deadline, conn.flight("START TRANSACTION".to_owned())).await?;
        }
        let mut passed_over = 0;
        let (ids, looked) = loop {
            let find =
                format!("SELECT {id} FROM {table} WHERE {condition}{free} LIMIT {batch} OFFSET {passed_over}{skip}");
            let rows = within(deadline, conn.rows_once(find, &[])).await?;
            let mut ids = Vec::with_capacity(rows.len());
            for row in &rows {
                ids.extend(row.bytes(0).map_err(Failure::Lost)?);
            }
            let is_held = |id: &Bytes| self.in_line && shared.lines.is_busy(&Key::from_bytes(id.to_vec()));
            let looked = ids.len();
            ids.retain(|id| !is_held(id));
            if !ids.is_empty() || looked < batch {
                break (ids, looked);
            }
            passed_over += looked;
        };
        let mut removed = 0;
        if !ids.is_empty() {
            let list = ids.iter().map(|id| literal(shared.dialect, id)).collect::<Vec<_>>().join(", ");
            let delete = format!("DELETE FROM {table} WHERE {id} IN ({list}) AND {condition}{free}");
            let ran = within(deadline, conn.run_once(delete)).await?;
            removed = usize::try_from(ran.found).unwrap_or(usize::MAX);
        }
        if skip_locked {
            within(deadline, conn.flight("COMMIT".to_owned())).await?;
            conn.set_open(false);
        }
        Ok((removed, looked))
    }
}

/// An id in the text of a statement.
fn literal(dialect: Dialect, id: &[u8]) -> String {
    match dialect {
        Dialect::MySql => hex(id),
        // Only Symfony's ids come here, which are text.
        Dialect::Postgres => format!("convert_from({}::bytea, 'UTF8')", hex(id).replacen("x'", "'\\x", 1)),
    }
}
