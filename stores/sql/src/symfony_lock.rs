//! Symfony's locks: taken and given back by a connection, as `PdoSessionHandler` does it.

use bytes::Bytes;
use cloakroom_core::store::{Claim, Outcome, Put, Record, Version};
use cloakroom_core::{Deadline, Key};
use sqlx::SqlStr;

use crate::error::{Failure, Refusal};
use crate::layout::{Dialect, LockMode, advisory_name, advisory_number};
use crate::native_sql::What;
use crate::patience::Patience;
use crate::pool::{Conn, within};
use crate::row::Arg;
use crate::shared::unknown_claim;
use crate::symfony::{SymfonyTable, record, seconds, what};
use crate::symfony_sql::ALIVE;

/// Symfony starts over when it finds a row neither to read nor to make; somebody makes and destroys it meanwhile.
const ROUNDS: usize = 20;

const GET_LOCK: SqlStr = SqlStr::from_static("SELECT GET_LOCK(?, ?)");
const RELEASE_LOCK: SqlStr = SqlStr::from_static("DO RELEASE_LOCK(?)");
/// The bound is for this statement alone.
const ADVISORY_LOCK: SqlStr = SqlStr::from_static(
    "WITH wait AS MATERIALIZED (SELECT set_config('lock_timeout', $2, true)) SELECT pg_advisory_lock($1) FROM wait",
);
const ADVISORY_UNLOCK: SqlStr = SqlStr::from_static("SELECT pg_advisory_unlock($1)");

impl SymfonyTable {
    /// Takes the lock with this connection, which keeps it, and reads what is there. Where `None` is the answer, the
    /// connection is free again.
    pub(crate) async fn take(
        &self,
        conn: &mut Conn,
        key: &Key,
        claim: Claim,
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<Option<Option<Record>>, Failure> {
        if !matches!(claim, Claim::Existing | Claim::New | Claim::Either) {
            return Err(Failure::NotSent(unknown_claim()));
        }
        let taken = match self.texts.lock {
            LockMode::Transactional => self.take_row(conn, key, claim, deadline, patience).await,
            LockMode::Advisory | LockMode::None => self.take_name(conn, key, deadline, patience).await,
        };
        let found = match taken {
            Ok(found) => found,
            Err(failure) => {
                // The server may have refused the wait alone, and then the connection is as good as ever.
                if failure.refusal().is_some() || patience.was_called_off() {
                    self.give_back(conn, key, false, deadline).await;
                }
                if patience.was_called_off() {
                    conn.set_open(true);
                }
                return Err(failure);
            }
        };
        let met = match claim {
            Claim::Existing => found.is_some(),
            Claim::New => found.is_none(),
            _ => true,
        };
        if met {
            return Ok(Some(found));
        }
        self.give_back(conn, key, true, deadline).await;
        Ok(None)
    }

    /// `PdoSessionHandler::doAdvisoryLock`, then `doRead`.
    async fn take_name(
        &self,
        conn: &mut Conn,
        key: &Key,
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<Option<Record>, Failure> {
        conn.set_open(true);
        patience.waits_with(conn);
        match self.texts.dialect {
            Dialect::Postgres => {
                let bound = patience.millis();
                let args = [Arg::Int(advisory_number(key.lock())), Arg::Text(&bound)];
                patience.wait(deadline, ADVISORY_LOCK.as_str(), conn.rows(&ADVISORY_LOCK, &args)).await?;
            }
            Dialect::MySql => {
                let args = [Arg::Bytes(advisory_name(key.lock())), Arg::Int(patience.seconds())];
                let rows = patience.wait(deadline, GET_LOCK.as_str(), conn.rows(&GET_LOCK, &args)).await?;
                let got = rows.first().map(|row| row.int(0)).transpose().map_err(Failure::Lost)?.flatten();
                if got != Some(1) {
                    return Err(Failure::Refused(Refusal::Held, "GET_LOCK".to_owned()));
                }
            }
        }
        self.read(conn, key, deadline).await
    }

    /// `PdoSessionHandler::beginTransaction`, then `doRead` with its row that keeps others out where there is none.
    async fn take_row(
        &self,
        conn: &mut Conn,
        key: &Key,
        claim: Claim,
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<Option<Record>, Failure> {
        conn.set_open(true);
        let begin = match self.texts.dialect {
            Dialect::Postgres => {
                format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}", patience.millis())
            }
            // Each lock begins with this, and no statement outside of one waits for a row without a limit of ours.
            Dialect::MySql => format!(
                "SET SESSION innodb_lock_wait_timeout = {}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                 START TRANSACTION",
                patience.seconds().max(1)
            ),
        };
        within(deadline, conn.flight(begin)).await?;
        patience.waits_with(conn);
        let id = self.id(key)?;
        let at_once = self.texts.dialect == Dialect::MySql && patience.seconds() == 0;
        for _ in 0..ROUNDS {
            let text = &self.texts.read[if at_once { 2 } else { 1 }];
            let rows = patience.wait(deadline, text.as_str(), conn.rows(text, &[id])).await?;
            if let Some(row) = rows.first() {
                if row.flag(ALIVE).map_err(Failure::Lost)? {
                    return record(row).map(Some).map_err(Failure::Lost);
                }
                // The holder is to find nothing of what has expired, and to leave nothing of it.
                if claim == Claim::Existing {
                    within(deadline, conn.run(&self.texts.delete, &[id])).await?;
                } else {
                    let empty = [Arg::Bytes(b""), Arg::Int(0), id];
                    within(deadline, conn.run(&self.texts.write, &empty)).await?;
                }
                return Ok(None);
            }
            if claim == Claim::Existing {
                return Ok(None);
            }
            let placeholder = &self.texts.placeholder;
            if patience.wait(deadline, placeholder.as_str(), conn.run(placeholder, &[id])).await?.found > 0 {
                return Ok(None);
            }
        }
        Err(Failure::Refused(Refusal::Again, "made and destroyed".to_owned()))
    }

    /// What the holder does at the end; the lock is free then. On an error the connection is closed, which frees it too.
    pub(crate) async fn finish(
        &self,
        conn: &mut Conn,
        key: &Key,
        found: Option<&Record>,
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Outcome, Failure> {
        let transaction = self.texts.lock == LockMode::Transactional;
        let change = self.change_held(conn, key, found, put, transaction, deadline).await;
        let outcome = match change {
            Ok(outcome) => outcome,
            Err(failure) => {
                if failure.refusal().is_some() {
                    self.give_back(conn, key, false, deadline).await;
                }
                return Err(match failure {
                    // What is not committed is not done.
                    Failure::Lost(error) if transaction => Failure::NotSent(error),
                    failure => failure,
                });
            }
        };
        if transaction {
            let end = if matches!(outcome, Outcome::Gone) && found.is_some() { "ROLLBACK" } else { "COMMIT" };
            within(deadline, conn.flight(end.to_owned())).await?;
            conn.set_open(false);
        } else {
            self.give_back(conn, key, true, deadline).await;
        }
        Ok(outcome)
    }

    async fn change_held(
        &self,
        conn: &mut Conn,
        key: &Key,
        found: Option<&Record>,
        put: &Put,
        transaction: bool,
        deadline: &Deadline,
    ) -> Result<Outcome, Failure> {
        let id = self.id(key)?;
        match (what(put)?, put, found) {
            (What::Write, Put::Payload(payload), _) => {
                let args = [Arg::Bytes(&payload.bytes), Arg::Int(seconds(payload.ttl)), id];
                // What was there and is not any more was destroyed by somebody who asked for no lock.
                let text = if found.is_some() { &self.texts.write } else { &self.texts.upsert };
                let ran = within(deadline, conn.run(text, &args)).await?;
                let version = Version::new(payload.bytes.clone());
                Ok(if ran.found > 0 { Outcome::Done(Some(version)) } else { Outcome::Gone })
            }
            (_, Put::Touch(ttl), Some(record)) => {
                let args = [Arg::Int(seconds(*ttl)), id];
                let ran = within(deadline, conn.run(&self.texts.touch_held, &args)).await?;
                Ok(if ran.found > 0 { Outcome::Done(Some(record.version.clone())) } else { Outcome::Gone })
            }
            // A record that was claimed and not written is an empty one.
            (_, Put::Touch(ttl), None) => {
                let args = [Arg::Bytes(b""), Arg::Int(seconds(*ttl)), id];
                within(deadline, conn.run(&self.texts.upsert, &args)).await?;
                Ok(Outcome::Done(Some(Version::new(Bytes::new()))))
            }
            (What::SetAside, _, _) if !transaction => {
                // Two statements that belong together, where there is no transaction yet.
                let together = self.set_aside_together(conn, id, deadline).await;
                if together.is_err() {
                    conn.spoil();
                }
                Ok(removed(found, together?))
            }
            (what, _, found) => {
                if what == What::SetAside {
                    within(deadline, conn.run(&self.texts.set_aside, &[id])).await?;
                }
                let ran = within(deadline, conn.run(&self.texts.delete, &[id])).await?;
                Ok(removed(found, ran.found))
            }
        }
    }

    async fn set_aside_together(&self, conn: &mut Conn, id: Arg<'_>, deadline: &Deadline) -> Result<u64, Failure> {
        within(deadline, conn.flight("START TRANSACTION".to_owned())).await?;
        within(deadline, conn.run(&self.texts.set_aside, &[id])).await?;
        let ran = within(deadline, conn.run(&self.texts.delete, &[id])).await?;
        within(deadline, conn.flight("COMMIT".to_owned())).await?;
        Ok(ran.found)
    }

    /// Frees the lock. `keep` says that what was done under it is to stay. A connection that cannot in time is closed,
    /// which frees it as well.
    pub(crate) async fn give_back(&self, conn: &mut Conn, key: &Key, keep: bool, deadline: &Deadline) {
        let done = match (self.texts.lock, self.texts.dialect) {
            (LockMode::None, _) => Ok(()),
            (LockMode::Transactional, _) => {
                let end = if keep { "COMMIT" } else { "ROLLBACK" };
                within(deadline, conn.flight(end.to_owned())).await.map(drop)
            }
            (LockMode::Advisory, Dialect::Postgres) => {
                let args = [Arg::Int(advisory_number(key.lock()))];
                within(deadline, conn.rows(&ADVISORY_UNLOCK, &args)).await.map(drop)
            }
            (LockMode::Advisory, Dialect::MySql) => {
                let args = [Arg::Bytes(advisory_name(key.lock()))];
                within(deadline, conn.run(&RELEASE_LOCK, &args)).await.map(drop)
            }
        };
        if done.is_ok() {
            conn.set_open(false);
        }
    }
}

fn removed(found: Option<&Record>, rows: u64) -> Outcome {
    match found {
        Some(record) if rows > 0 => Outcome::Removed(record.clone()),
        _ => Outcome::Gone,
    }
}
