//! Symfony's layout: what `PdoSessionHandler` does in each of its lock modes, done beside it.
//!
//! A lock is held by a connection: by its session (advisory) or by its transaction. Who waits for one waits in the
//! server's own queue, as PHP does; trying again and again would starve beside PHP.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Outcome, Put, Record, Version};
use cloakroom_core::{Deadline, Error, Key, Result};
use sqlx::SqlStr;

use crate::error::{Failure, Refusal};
use crate::layout::{Dialect, LockMode, advisory_number, hex};
use crate::native_sql::{What, When};
use crate::patience::Patience;
use crate::pool::{Conn, within};
use crate::row::{Arg, Row};
use crate::shared::unknown_put;
use crate::store::{Step, Want};
use crate::symfony_sql::{ALIVE, DONE, PAYLOAD, TTL, Texts};

/// Records of Symfony's layout.
pub(crate) struct SymfonyTable {
    pub(crate) texts: Texts,
}

impl SymfonyTable {
    pub(crate) async fn load(
        &self,
        conn: &mut Conn,
        key: &Key,
        deadline: &Deadline,
    ) -> Result<Option<Record>, Failure> {
        let rows = within(deadline, conn.rows(&self.texts.load, &[self.id(key)?])).await?;
        rows.first().map(record).transpose().map_err(Failure::Lost)
    }

    /// The id as its column takes it.
    pub(crate) fn id<'k>(&self, key: &'k Key) -> Result<Arg<'k>, Failure> {
        match self.texts.dialect {
            Dialect::MySql => Ok(Arg::Bytes(key.record())),
            Dialect::Postgres => match std::str::from_utf8(key.record()) {
                Ok(text) if !text.contains('\0') => Ok(Arg::Text(text)),
                _ => Err(Failure::NotSent(Error::misuse("Symfony's column of ids holds text, and this key is none"))),
            },
        }
    }

    /// What is there, for who has the lock or needs none. What has expired is destroyed.
    pub(crate) async fn read(
        &self,
        conn: &mut Conn,
        key: &Key,
        deadline: &Deadline,
    ) -> Result<Option<Record>, Failure> {
        let id = self.id(key)?;
        let rows = within(deadline, conn.rows(&self.texts.read[0], &[id])).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if row.flag(ALIVE).map_err(Failure::Lost)? {
            return record(row).map(Some).map_err(Failure::Lost);
        }
        within(deadline, conn.run(&self.texts.bury, &[id])).await?;
        Ok(None)
    }

    /// One statement that finds what it is to change as `want` says, or changes nothing. In the locking modes of
    /// PostgreSQL it takes its turn as well.
    pub(crate) async fn change(
        &self,
        conn: &mut Conn,
        key: &Key,
        want: &Want,
        put: &Put,
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<Step<Outcome>, Failure> {
        let what = what(put)?;
        let (when, same) = match want {
            Want::Is(version) => (When::Is, Some(version.as_bytes())),
            Want::Found(version) => (When::Held, Some(version.as_bytes())),
            Want::Any => (When::Any, None),
            Want::Absent => return self.create(conn, key, put, deadline, patience).await,
            Want::Held(_) => return Err(Failure::NotSent(Error::misuse("this layout has no leases"))),
        };
        let id = self.id(key)?;
        let mut written = match put {
            Put::Payload(payload) => vec![Arg::Bytes(&payload.bytes), Arg::Int(seconds(payload.ttl))],
            Put::Touch(ttl) => vec![Arg::Int(seconds(*ttl))],
            _ => Vec::new(),
        };
        let text = self.texts.change(when, what);
        let row = match self.texts.dialect {
            Dialect::Postgres => {
                let bound = patience.millis();
                let mut args = vec![id];
                self.turn(&mut args, key, &bound, what == What::Touch && when == When::Any);
                args.extend(same.map(|same| Arg::Bytes(same)));
                args.append(&mut written);
                let rows = self.ask(conn, text, &args, deadline, patience).await?;
                rows.into_iter().next()
            }
            Dialect::MySql if matches!(what, What::Remove | What::SetAside) => {
                let is = same.map(|same| hex(same));
                let flight = self.texts.remove_mysql(&hex(key.record()), when, is.as_deref(), what == What::SetAside);
                conn.set_open(true);
                let rows = within(deadline, conn.flight(flight)).await?;
                conn.set_open(false);
                rows.into_iter().next()
            }
            Dialect::MySql => {
                written.push(id);
                written.extend(same.map(|same| Arg::Bytes(same)));
                if within(deadline, conn.run(text, &written)).await?.found > 0 {
                    return Ok(Step::Done(Outcome::Done(version_after(want, put))));
                }
                // Only now, that it was not done, a second look says why.
                let rows = within(deadline, conn.rows(&self.texts.read[0], &[id])).await;
                let rows = rows.map_err(|failure| Failure::NotSent(failure.of_read()))?;
                let Some(row) = rows.into_iter().next() else { return Ok(Step::Done(Outcome::Gone)) };
                return refused(&row, when, same);
            }
        };
        let Some(row) = row else { return Ok(Step::Done(Outcome::Gone)) };
        if !row.flag(DONE).map_err(Failure::Lost)? {
            return refused(&row, when, same);
        }
        Ok(Step::Done(match what {
            What::Write | What::Touch => Outcome::Done(version_after(want, put)),
            What::Remove | What::SetAside => Outcome::Removed(record(&row).map_err(Failure::Lost)?),
        }))
    }

    async fn create(
        &self,
        conn: &mut Conn,
        key: &Key,
        put: &Put,
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<Step<Outcome>, Failure> {
        let Put::Payload(payload) = put else {
            let there = self.load(conn, key, deadline).await?.is_some();
            return Ok(Step::Done(if there { Outcome::Taken } else { Outcome::Gone }));
        };
        let mut args = vec![Arg::Bytes(&payload.bytes), Arg::Int(seconds(payload.ttl)), self.id(key)?];
        let made = Outcome::Done(Some(Version::new(payload.bytes.clone())));
        if self.texts.dialect == Dialect::Postgres {
            let bound = patience.millis();
            self.turn(&mut args, key, &bound, false);
            let rows = self.ask(conn, &self.texts.create, &args, deadline, patience).await?;
            return Ok(Step::Done(if rows.is_empty() { Outcome::Taken } else { made }));
        }
        match within(deadline, conn.run(&self.texts.create, &args)).await {
            Ok(_) => return Ok(Step::Done(made)),
            Err(failure) if failure.refusal() == Some(Refusal::Duplicate) => {}
            Err(failure) => return Err(failure),
        }
        // One that has expired is in the way: destroyed, and tried again.
        let buried = within(deadline, conn.run(&self.texts.bury, &args[2..3])).await;
        let buried = buried.map_err(|failure| Failure::NotSent(failure.of_read()))?;
        Ok(if buried.found > 0 { Step::Wait } else { Step::Done(Outcome::Taken) })
    }

    /// What a statement of PostgreSQL needs to take its turn.
    fn turn<'a>(&self, args: &mut Vec<Arg<'a>>, key: &Key, bound: &'a str, touch: bool) {
        match self.texts.lock {
            LockMode::Advisory if !touch => {
                args.extend([Arg::Text(bound), Arg::Int(advisory_number(key.lock()))]);
            }
            LockMode::Transactional => args.push(Arg::Text(bound)),
            LockMode::Advisory | LockMode::None => {}
        }
    }

    async fn ask(
        &self,
        conn: &mut Conn,
        text: &SqlStr,
        args: &[Arg<'_>],
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<Vec<Row>, Failure> {
        match self.texts.lock {
            LockMode::None => within(deadline, conn.rows(text, args)).await,
            LockMode::Advisory | LockMode::Transactional => {
                patience.waits_with(conn);
                // Until it has its answer, it is closed where it is dropped.
                conn.set_open(true);
                let rows = patience.wait(deadline, text.as_str(), conn.rows(text, args)).await;
                // What was refused has left nothing behind.
                let refused = |failure: &Failure| failure.refusal().is_some();
                conn.set_open(rows.as_ref().is_err_and(|failure| !refused(failure) || patience.was_called_off()));
                rows
            }
        }
    }
}

/// Why a change was not made.
fn refused(row: &Row, when: When, same: Option<&Bytes>) -> Result<Step<Outcome>, Failure> {
    let found = record(row).map_err(Failure::Lost)?;
    Ok(match same {
        _ if when != When::Held && !row.flag(ALIVE).map_err(Failure::Lost)? => Step::Done(Outcome::Gone),
        Some(same) if found.payload != *same => Step::Done(Outcome::Conflict(found)),
        // It was in the way a moment ago and is not any more.
        _ => Step::Wait,
    })
}

pub(crate) fn what(put: &Put) -> Result<What, Failure> {
    match put {
        Put::Payload(_) => Ok(What::Write),
        Put::Touch(_) => Ok(What::Touch),
        Put::Remove => Ok(What::Remove),
        Put::SetAside => Ok(What::SetAside),
        _ => Err(Failure::NotSent(unknown_put())),
    }
}

/// The version that a change leaves, where it is known without asking.
fn version_after(want: &Want, put: &Put) -> Option<Version> {
    match (want, put) {
        (_, Put::Payload(payload)) => Some(Version::new(payload.bytes.clone())),
        (Want::Is(version) | Want::Found(version), _) => Some(version.clone()),
        _ => None,
    }
}

pub(crate) fn record(row: &Row) -> Result<Record> {
    let payload = row.bytes(PAYLOAD)?.unwrap_or_default();
    let ttl = Duration::from_secs(u64::try_from(row.int(TTL)?.unwrap_or(0)).unwrap_or(0));
    Ok(Record::new(payload.clone(), Version::new(payload), Some(ttl)))
}

/// Symfony counts in whole seconds: no life is cut short.
pub(crate) fn seconds(ttl: Duration) -> i64 {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX).min(100 * 365 * 86_400)
}
