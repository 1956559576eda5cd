//! Symfony's layout: what `PdoSessionHandler` does in each of its lock modes, done beside it.
//!
//! A lock is held by a connection: by its session (advisory) or by its transaction. Who waits for one waits in the
//! server's own queue, as PHP does; trying again and again would starve beside PHP.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Outcome, Put, Record, Version};
use cloakroom_core::{Deadline, Error, Key, Result};
use sqlx::SqlStr;

use crate::error::{Failure, Refusal};
use crate::layout::{Dialect, LockMode, advisory_name, advisory_number, hex};
use crate::lock::Patience;
use crate::native_sql::{What, When};
use crate::pool::{Arg, Conn, Row, within};
use crate::store::{Step, Want, unknown_claim, unknown_put};
use crate::symfony_sql::{ALIVE, DONE, PAYLOAD, TTL, Texts};

/// Symfony starts over when it finds a row neither to read nor to make; somebody makes and destroys it meanwhile.
const ROUNDS: usize = 20;

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
    fn id<'k>(&self, key: &'k Key) -> Result<Arg<'k>, Failure> {
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
                return self.refused(&row, when, same);
            }
        };
        let Some(row) = row else { return Ok(Step::Done(Outcome::Gone)) };
        if !row.flag(DONE).map_err(Failure::Lost)? {
            return self.refused(&row, when, same);
        }
        Ok(Step::Done(match what {
            What::Write | What::Touch => Outcome::Done(version_after(want, put)),
            What::Remove | What::SetAside => Outcome::Removed(record(&row).map_err(Failure::Lost)?),
        }))
    }

    /// Why a change was not made.
    fn refused(&self, row: &Row, when: When, same: Option<&Bytes>) -> Result<Step<Outcome>, Failure> {
        let found = record(row).map_err(Failure::Lost)?;
        Ok(match same {
            _ if when != When::Held && !row.flag(ALIVE).map_err(Failure::Lost)? => Step::Done(Outcome::Gone),
            Some(same) if found.payload != *same => Step::Done(Outcome::Conflict(found)),
            // It was in the way a moment ago and is not any more.
            _ => Step::Wait,
        })
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
            LockMode::Advisory | LockMode::Transactional => patience.wait(deadline, conn.rows(text, args)).await,
        }
    }

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
                if failure.refusal().is_some() {
                    self.give_back(conn, key, false).await;
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
        self.give_back(conn, key, true).await;
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
        match self.texts.dialect {
            Dialect::Postgres => {
                let bound = patience.millis();
                let args = [Arg::Int(advisory_number(key.lock())), Arg::Text(&bound)];
                patience.wait(deadline, conn.rows(&ADVISORY_LOCK, &args)).await?;
            }
            Dialect::MySql => {
                let args = [Arg::Bytes(advisory_name(key.lock())), Arg::Int(patience.seconds())];
                let rows = patience.wait(deadline, conn.rows(&GET_LOCK, &args)).await?;
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
            // The connections of this pool are for locks alone, and each lock begins with this.
            Dialect::MySql => format!(
                "SET SESSION innodb_lock_wait_timeout = {}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                 START TRANSACTION",
                patience.seconds().max(1)
            ),
        };
        within(deadline, conn.flight(begin)).await?;
        let id = self.id(key)?;
        let at_once = self.texts.dialect == Dialect::MySql && patience.seconds() == 0;
        for _ in 0..ROUNDS {
            let text = &self.texts.read[if at_once { 2 } else { 1 }];
            let rows = patience.wait(deadline, conn.rows(text, &[id])).await?;
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
            if patience.wait(deadline, conn.run(&self.texts.placeholder, &[id])).await?.found > 0 {
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
                    self.give_back(conn, key, false).await;
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
            self.give_back(conn, key, true).await;
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
            (what, _, found) => {
                if what == What::SetAside && !transaction {
                    // Two statements that belong together, where there is no transaction yet.
                    within(deadline, conn.flight("START TRANSACTION".to_owned())).await?;
                }
                if what == What::SetAside {
                    within(deadline, conn.run(&self.texts.set_aside, &[id])).await?;
                }
                let ran = within(deadline, conn.run(&self.texts.delete, &[id])).await?;
                if what == What::SetAside && !transaction {
                    within(deadline, conn.flight("COMMIT".to_owned())).await?;
                }
                Ok(match found {
                    Some(record) if ran.found > 0 => Outcome::Removed(record.clone()),
                    _ => Outcome::Gone,
                })
            }
        }
    }

    /// Frees the lock. `keep` says that what was done under it is to stay. A connection that cannot is closed, which
    /// frees it as well.
    pub(crate) async fn give_back(&self, conn: &mut Conn, key: &Key, keep: bool) {
        let deadline = Deadline::new(RELEASING, Duration::ZERO);
        let done = match (self.texts.lock, self.texts.dialect) {
            (LockMode::None, _) => Ok(()),
            (LockMode::Transactional, _) => {
                let end = if keep { "COMMIT" } else { "ROLLBACK" };
                within(&deadline, conn.flight(end.to_owned())).await.map(drop)
            }
            (LockMode::Advisory, Dialect::Postgres) => {
                // In a transaction that failed nothing else can be said.
                let end =
                    if keep { Ok(Vec::new()) } else { within(&deadline, conn.flight("ROLLBACK".to_owned())).await };
                let args = [Arg::Int(advisory_number(key.lock()))];
                match end {
                    Ok(_) => within(&deadline, conn.rows(&ADVISORY_UNLOCK, &args)).await.map(drop),
                    Err(failure) => Err(failure),
                }
            }
            (LockMode::Advisory, Dialect::MySql) => {
                let end =
                    if keep { Ok(Vec::new()) } else { within(&deadline, conn.flight("ROLLBACK".to_owned())).await };
                let args = [Arg::Bytes(advisory_name(key.lock()))];
                match end {
                    Ok(_) => within(&deadline, conn.run(&RELEASE_LOCK, &args)).await.map(drop),
                    Err(failure) => Err(failure),
                }
            }
        };
        if done.is_ok() {
            conn.set_open(false);
        }
    }
}

/// How long giving a lock back may take before its connection is closed instead.
const RELEASING: Duration = Duration::from_secs(5);

const GET_LOCK: SqlStr = SqlStr::from_static("SELECT GET_LOCK(?, ?)");
const RELEASE_LOCK: SqlStr = SqlStr::from_static("DO RELEASE_LOCK(?)");
/// The bound is for this statement alone.
const ADVISORY_LOCK: SqlStr = SqlStr::from_static(
    "WITH wait AS MATERIALIZED (SELECT set_config('lock_timeout', $2, true)) SELECT pg_advisory_lock($1) FROM wait",
);
const ADVISORY_UNLOCK: SqlStr = SqlStr::from_static("SELECT pg_advisory_unlock($1)");

fn what(put: &Put) -> Result<What, Failure> {
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

fn record(row: &Row) -> Result<Record> {
    let payload = row.bytes(PAYLOAD)?.unwrap_or_default();
    let ttl = Duration::from_secs(u64::try_from(row.int(TTL)?.unwrap_or(0)).unwrap_or(0));
    Ok(Record::new(payload.clone(), Version::new(payload), Some(ttl)))
}

/// Symfony counts in whole seconds: no life is cut short.
fn seconds(ttl: Duration) -> i64 {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX).min(100 * 365 * 86_400)
}
