//! Sweeping: what has expired is found by its index and removed in bounded steps; and what was set aside is forgotten.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cloakroom_core::store::{Outcome, Put, Swept};
use cloakroom_core::{Deadline, Key, Result};
use tokio::time::{Instant, sleep};

use crate::error::Failure;
use crate::layout::{Dialect, Expiry, LONGEST_DURATION, LockMode, SymfonyNames, text_literal};
use crate::pool::{Conn, within};
use crate::shared::{Shared, Way};

/// How long one step may take, its rests included.
const STEP: Duration = Duration::from_mins(1);
/// How many rows one statement removes at most, so that none holds anybody up for long; and for how many times as long as
/// that took the server is left to others before the next. InnoDB has more to do afterwards.
const POSTGRES: (usize, u32) = (50, 3);
const MYSQL: (usize, u32) = (20, 4);
/// How often a statement that somebody got in the way of is tried.
const TRIES: usize = 5;

/// What a sweep looks for.
struct Due {
    table: String,
    id: String,
    /// What has expired, one condition for each kind of row, as the index has it; and that index's column.
    conditions: Vec<(String, Option<String>)>,
    /// Whether nobody holds it, as far as a condition can say.
    free: Option<String>,
    /// PostgreSQL's lock on the id, which is tried on each row that was found.
    try_lock: Option<String>,
    /// The row is to be locked, and passed over if it is.
    skip_locked: bool,
    /// Whether a place in line is the only lock there is.
    in_line: bool,
}

/// What one statement found, and what of it was removed: the others are held.
struct Batch {
    found: usize,
    removed: usize,
    /// The last of their ends of life, and how many of those that share it are held.
    last: Option<i64>,
    held_at_last: usize,
}

/// Where a round of sweeping has come to. What was removed leaves traces in an index for a while, and need not be waded
/// through again for each statement.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    from: Option<i64>,
    passed_over: usize,
}

impl Place {
    fn after(self, batch: &Batch) -> Place {
        if batch.last.is_none() {
            let held = batch.found.saturating_sub(batch.removed);
            return Place { passed_over: self.passed_over + held, ..self };
        }
        let before = if batch.last == self.from { self.passed_over } else { 0 };
        Place { from: batch.last, passed_over: before + batch.held_at_last }
    }
}

impl Due {
    fn of(shared: &Shared) -> Due {
        let (dialect, now) = (shared.dialect, shared.dialect.now_millis());
        match &shared.way {
            Way::Native(native) => Due {
                table: native.texts.table.clone(),
                id: "id".to_owned(),
                conditions: vec![(format!("expires_at <= {now}"), Some("expires_at".to_owned()))],
                free: Some(format!("lock_until <= {now}")),
                try_lock: None,
                skip_locked: dialect == Dialect::Postgres,
                in_line: false,
            },
            Way::Symfony(symfony) => {
                let (now, texts) = (dialect.now_seconds_at_first(), &symfony.texts);
                let SymfonyNames { id, lifetime, time, .. } = &texts.names;
                // As Symfony's own garbage collection asks, so that the index on the column can answer.
                let absolute = format!("{lifetime} < {now}");
                let duration = match dialect {
                    Dialect::Postgres => format!("{lifetime} < {now} - {time}"),
                    Dialect::MySql => format!("CAST({lifetime} AS SIGNED) + CAST({time} AS SIGNED) < {now}"),
                };
                let order = Some(lifetime.clone());
                let conditions = match texts.expiry {
                    Expiry::Absolute => vec![(absolute, order)],
                    Expiry::Duration => vec![(duration, None)],
                    Expiry::Mixed => vec![
                        (format!("{lifetime} > {LONGEST_DURATION} AND {absolute}"), order.clone()),
                        (format!("{lifetime} <= {LONGEST_DURATION} AND {duration}"), order),
                    ],
                };
                let advisory = texts.lock == LockMode::Advisory;
                let (free, try_lock) = match dialect {
                    Dialect::Postgres => {
                        (None, Some(format!("pg_try_advisory_xact_lock({})", advisory_number_sql("id"))))
                    }
                    // Whoever takes it later finds what has expired, as this does.
                    Dialect::MySql => (Some(format!("IS_FREE_LOCK(SUBSTR({id}, 1, 64)) = 1")), None),
                };
                Due {
                    table: texts.table.clone(),
                    id: id.clone(),
                    conditions,
                    free: free.filter(|_| advisory),
                    try_lock: try_lock.filter(|_| advisory),
                    skip_locked: texts.lock == LockMode::Transactional,
                    in_line: texts.lock == LockMode::None,
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
        let (at_once, rest) = if self.dialect == Dialect::Postgres { POSTGRES } else { MYSQL };
        let mut left = step.max(1);
        for (kind, (condition, order)) in due.conditions.iter().enumerate() {
            while left > 0 {
                let (begun, most, place) = (Instant::now(), left.min(at_once), self.place(kind));
                let page = Page { condition, order: order.as_deref(), most, place };
                let batch = self.sweep_page(&due, &page, &deadline).await.map_err(Failure::of_write)?;
                left -= batch.removed.min(left);
                let at_end = batch.found < most;
                self.set_place(kind, if at_end { Place::default() } else { place.after(&batch) });
                if at_end {
                    break;
                }
                sleep(begun.elapsed() * rest).await;
            }
        }
        Ok(Swept::new(step.max(1) - left, left > 0))
    }

    fn place(&self, kind: usize) -> Place {
        let places = self.swept_to.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(kind).copied().unwrap_or_default()
    }

    fn set_place(&self, kind: usize, place: Place) {
        let mut places = self.swept_to.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = places.get_mut(kind) {
            *slot = place;
        }
    }

    async fn sweep_page(self: &Arc<Self>, due: &Due, page: &Page<'_>, deadline: &Deadline) -> Result<Batch, Failure> {
        let mut tries = 1;
        loop {
            let mut conn = self.connection(deadline).await?;
            let swept = match self.dialect {
                Dialect::Postgres if !due.in_line => due.in_one(&mut conn, page, deadline).await,
                _ => due.in_two(self, &mut conn, page, deadline).await,
            };
            match swept {
                Err(failure) if failure.is_in_the_way() && tries < TRIES => tries += 1,
                swept => return swept,
            }
        }
    }

    /// After something was set aside: the number and the age of what is kept are bounded. The next one does it if this one
    /// has no time left.
    pub(crate) async fn keep_aside_bounded(&self, put: &Put, outcome: &Outcome, deadline: &Deadline) {
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
        let trimmed = async {
            let mut conn = self.main.get(deadline).await?;
            within(deadline, conn.flight(trim)).await
        };
        if let Err(failure) = trimmed.await {
            let error = failure.of_read();
            tracing::warn!(%error, "what was set aside could not be bounded");
        }
    }
}

/// Which rows one statement is for.
struct Page<'a> {
    condition: &'a str,
    order: Option<&'a str>,
    most: usize,
    place: Place,
}

impl Page<'_> {
    /// What follows the condition.
    fn end(&self) -> String {
        let from = match (self.order, self.place.from) {
            (Some(order), Some(from)) => format!(" AND {order} >= {from}"),
            _ => String::new(),
        };
        let order = self.order.map(|order| format!(" ORDER BY {order}")).unwrap_or_default();
        format!("{from}{order} LIMIT {} OFFSET {}", self.most, self.place.passed_over)
    }
}

impl Due {
    /// PostgreSQL: one statement that takes what nobody else has.
    async fn in_one(&self, conn: &mut Conn, page: &Page<'_>, deadline: &Deadline) -> Result<Batch, Failure> {
        let rows = within(deadline, conn.rows_once(self.one(page))).await?;
        let count = |column: usize| {
            let count = rows.first().map(|row| row.int(column)).transpose().map_err(Failure::Lost)?.flatten();
            Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
        };
        let last = rows.first().map(|row| row.int(2)).transpose().map_err(Failure::Lost)?.flatten();
        Ok(Batch { found: count(0)?, removed: count(1)?, last, held_at_last: count(3)? })
    }

    fn one(&self, page: &Page<'_>) -> String {
        let Due { table, id, free, try_lock, .. } = self;
        let (condition, end) = (page.condition, page.end());
        let free = free.as_ref().map(|free| format!(" AND {free}")).unwrap_or_default();
        let skip = if self.skip_locked { " FOR UPDATE SKIP LOCKED" } else { "" };
        // Each row takes a lock, so that only those of this page may be asked.
        let held = try_lock.as_ref().map(|try_lock| format!(" WHERE {try_lock}")).unwrap_or_default();
        let last = page.order.map_or_else(|| "NULL".to_owned(), str::to_owned);
        format!(
            "WITH due AS MATERIALIZED (SELECT ctid AS place, {id} AS id, {last}::bigint AS last FROM {table} \
             WHERE {condition}{free}{end}{skip}), \
             free AS MATERIALIZED (SELECT place, last FROM due{held}), \
             gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT place FROM free)) AND {condition} RETURNING 1) \
             SELECT (SELECT COUNT(*) FROM due), (SELECT COUNT(*) FROM gone), (SELECT MAX(last) FROM due), \
             (SELECT COUNT(*) FROM due WHERE last = (SELECT MAX(last) FROM due)) - \
             (SELECT COUNT(*) FROM free WHERE last = (SELECT MAX(last) FROM due))"
        )
    }

    /// Found first, and then removed by their names under the same condition: locks are taken in the order in which
    /// requests take them.
    async fn in_two(
        &self,
        shared: &Shared,
        conn: &mut Conn,
        page: &Page<'_>,
        deadline: &Deadline,
    ) -> Result<Batch, Failure> {
        let Due { table, id, free, .. } = self;
        let (condition, end) = (page.condition, page.end());
        let free = free.as_ref().map(|free| format!(" AND {free}")).unwrap_or_default();
        let skip = if self.skip_locked { " FOR UPDATE SKIP LOCKED" } else { "" };
        if self.skip_locked {
            conn.set_open(true);
            within(deadline, conn.flight("START TRANSACTION".to_owned())).await?;
        }
        let last = match (page.order, shared.dialect) {
            (None, _) => "NULL".to_owned(),
            (Some(order), Dialect::Postgres) => format!("{order}::bigint"),
            (Some(order), Dialect::MySql) => format!("CAST({order} AS SIGNED)"),
        };
        // Where a row lies is the surest way back to it; but there may lie another one by then.
        let place = if shared.dialect == Dialect::Postgres { ", ctid::text" } else { "" };
        // By another name, or PostgreSQL would sort by what is told instead of by what has an index.
        let find = format!("SELECT {id}, {last} AS last{place} FROM {table} WHERE {condition}{free}{end}{skip}");
        let rows = within(deadline, conn.rows_once(find)).await?;
        let last = rows.last().map(|row| row.int(1)).transpose().map_err(Failure::Lost)?.flatten();
        let mut batch = Batch { found: rows.len(), removed: 0, last, held_at_last: 0 };
        let (mut ids, mut places) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            let id = row.bytes(0).map_err(Failure::Lost)?.unwrap_or_default();
            if self.in_line && shared.lines.is_busy(&Key::from_bytes(&id[..])) {
                batch.held_at_last += usize::from(row.int(1).map_err(Failure::Lost)? == last);
                continue;
            }
            ids.push(text_literal(shared.dialect, &id));
            if shared.dialect == Dialect::Postgres {
                places.extend(row.text(2).map_err(Failure::Lost)?.map(|place| format!("'{place}'")));
            }
        }
        if !ids.is_empty() {
            let delete = match shared.dialect {
                Dialect::Postgres => {
                    format!("DELETE FROM {table} WHERE ctid = ANY(ARRAY[{}]::tid[]) AND", places.join(", "))
                }
                // Left to itself, MySQL may look through all that has expired to find these.
                Dialect::MySql => format!("DELETE gone FROM {table} AS gone FORCE INDEX (PRIMARY) WHERE"),
            };
            let delete = format!("{delete} {id} IN ({}) AND {condition}{free}", ids.join(", "));
            let removed = within(deadline, conn.run_once(delete)).await?;
            batch.removed = usize::try_from(removed).unwrap_or(usize::MAX);
        }
        if self.skip_locked {
            within(deadline, conn.flight("COMMIT".to_owned())).await?;
            conn.set_open(false);
        }
        Ok(batch)
    }
}
