//! The native layout: a lock is a lease in the row itself, and every change counts the record's version up.

use std::time::Duration;

use cloakroom_core::store::{Claim, Columns, Outcome, Payload, Put, Record, Version};
use cloakroom_core::{Deadline, Error, Random, Result, SystemRandom};

use crate::error::{Failure, Refusal};
use crate::layout::{Dialect, hex};
use crate::native_sql::{
    ADDRESS, AGENT, ALIVE, DONE, Fresh, HELD, MINE, PAYLOAD, TTL, Texts, USER, VERSION, What, When,
};
use crate::pool::{Conn, within};
use crate::row::{Arg, Row};
use crate::shared::{unknown_claim, unknown_put};
use crate::store::{Step, Want};

/// Records of the native layout.
pub(crate) struct Native {
    pub(crate) texts: Texts,
    /// The life of a record that has not been written yet, and the length of a lease, in milliseconds.
    pub(crate) lifetime: i64,
    pub(crate) lease: i64,
}

impl Native {
    pub(crate) async fn load(
        &self,
        conn: &mut Conn,
        id: &[u8],
        deadline: &Deadline,
    ) -> Result<Option<Record>, Failure> {
        let rows = within(deadline, conn.rows(&self.texts.load, &[Arg::Bytes(id)])).await?;
        rows.first().map(record).transpose().map_err(Failure::Lost)
    }

    /// Takes the lease where it is free. With it comes what is there.
    pub(crate) async fn try_lock(
        &self,
        conn: &mut Conn,
        id: &[u8],
        claim: Claim,
        token: i64,
        deadline: &Deadline,
    ) -> Result<Step<Option<Option<Record>>>, Failure> {
        let fresh = random()?;
        let rows = match (self.texts.dialect, claim) {
            (Dialect::Postgres, Claim::Existing) => {
                let args = [Arg::Bytes(id), Arg::Int(token), Arg::Int(self.lease)];
                within(deadline, conn.rows(&self.texts.claims[0], &args)).await?
            }
            (Dialect::Postgres, Claim::New | Claim::Either) => {
                let text = &self.texts.claims[if claim == Claim::New { 1 } else { 2 }];
                let (life, lease) = (Arg::Int(self.lifetime), Arg::Int(self.lease));
                let args = [Arg::Bytes(id), Arg::Int(fresh), life, Arg::Int(token), lease];
                within(deadline, conn.rows(text, &args)).await?
            }
            (Dialect::MySql, Claim::Existing | Claim::New | Claim::Either) => {
                let made = Fresh { version: fresh, lifetime: self.lifetime, only_new: claim == Claim::New };
                let made = (claim != Claim::Existing).then_some(made);
                within(deadline, conn.flight(self.texts.claim_mysql(&hex(id), token, self.lease, made))).await?
            }
            _ => return Err(Failure::NotSent(unknown_claim())),
        };
        let Some(row) = rows.first() else {
            // A row that came after the statement began is not seen by it: ask again.
            return Ok(if claim == Claim::Existing { Step::Done(None) } else { Step::Wait });
        };
        let told = told(row).map_err(Failure::Lost)?;
        if row.flag(MINE).map_err(Failure::Lost)? {
            let found = record(row).map_err(Failure::Lost)?;
            let made = claim != Claim::Existing && told.version == Some(fresh);
            return Ok(Step::Done(Some((!made).then_some(found))));
        }
        match claim {
            Claim::New if told.alive => Ok(Step::Done(None)),
            Claim::Existing if !told.held && !told.alive => {
                if self.texts.dialect == Dialect::MySql {
                    within(deadline, conn.run(&self.texts.bury, &[Arg::Bytes(id)])).await?;
                }
                Ok(Step::Done(None))
            }
            _ => Ok(Step::Wait),
        }
    }

    /// Carries `put` out if `want` holds.
    pub(crate) async fn try_commit(
        &self,
        conn: &mut Conn,
        id: &[u8],
        want: &Want,
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Step<Outcome>, Failure> {
        let (when, check) = match want {
            Want::Absent => return self.try_create(conn, id, put, deadline).await,
            Want::Any => (When::Any, None),
            Want::Is(version) | Want::Found(version) => (When::Is, Some(number(version))),
            Want::Held(token) => (When::Held, Some(*token)),
        };
        let what = match put {
            Put::Payload(_) => What::Write,
            Put::Touch(_) => What::Touch,
            Put::Remove => What::Remove,
            Put::SetAside => What::SetAside,
            _ => return Err(Failure::NotSent(unknown_put())),
        };
        let written = match put {
            Put::Payload(payload) => write_args(payload),
            Put::Touch(ttl) => vec![Arg::Int(millis(*ttl))],
            _ => Vec::new(),
        };
        let text = self.texts.change(when, what);
        let row = match self.texts.dialect {
            Dialect::Postgres => {
                let mut args = vec![Arg::Bytes(id)];
                args.extend(check.map(Arg::Int));
                args.extend(written);
                let rows = within(deadline, conn.rows(text, &args)).await?;
                let Some(row) = rows.into_iter().next() else { return Ok(Step::Done(Outcome::Gone)) };
                if let Some(version) = row.int(DONE).map_err(Failure::Lost)? {
                    return done(what, &row, version).map_err(Failure::Lost);
                }
                row
            }
            Dialect::MySql if matches!(what, What::Remove | What::SetAside) => {
                let when = remove_when(when, check);
                let flight = self.texts.remove_mysql(&hex(id), &when, what == What::SetAside);
                conn.set_open(true);
                let rows = within(deadline, conn.flight(flight)).await?;
                conn.set_open(false);
                let Some(row) = rows.into_iter().next() else { return Ok(Step::Done(Outcome::Gone)) };
                if row.flag(DONE).map_err(Failure::Lost)? {
                    return done(what, &row, 0).map_err(Failure::Lost);
                }
                row
            }
            Dialect::MySql => {
                let mut args = written;
                args.push(Arg::Bytes(id));
                args.extend(check.map(Arg::Int));
                let ran = within(deadline, conn.run(text, &args)).await?;
                if ran.found > 0 {
                    return Ok(Step::Done(Outcome::Done(i64::try_from(ran.told).ok().map(version))));
                }
                // Only now, that it was not done, a second look says why.
                let rows = within(deadline, conn.rows(&self.texts.state, &[Arg::Bytes(id)])).await;
                let rows = rows.map_err(|failure| Failure::NotSent(failure.of_read()))?;
                let Some(row) = rows.into_iter().next() else { return Ok(Step::Done(Outcome::Gone)) };
                row
            }
        };
        let told = told(&row).map_err(Failure::Lost)?;
        Ok(match want {
            // Somebody else has it now: to call it gone would be to say that a logout was done.
            Want::Held(_) if told.alive => return Err(Failure::NotSent(Error::lock_lost())),
            Want::Held(_) => Step::Done(Outcome::Gone),
            _ if told.held && !(what == What::Touch && when == When::Any) => Step::Wait,
            _ if !told.alive => Step::Done(Outcome::Gone),
            Want::Is(_) if told.version != check => Step::Done(Outcome::Conflict(record(&row).map_err(Failure::Lost)?)),
            // It was in the way a moment ago and is not any more.
            _ => Step::Wait,
        })
    }

    async fn try_create(
        &self,
        conn: &mut Conn,
        id: &[u8],
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Step<Outcome>, Failure> {
        let Put::Payload(payload) = put else {
            let there = self.load(conn, id, deadline).await?.is_some();
            return Ok(Step::Done(if there { Outcome::Taken } else { Outcome::Gone }));
        };
        let fresh = random()?;
        let mut args = write_args(payload);
        args.insert(1, Arg::Int(fresh));
        args.push(Arg::Bytes(id));
        let made = Step::Done(Outcome::Done(Some(version(fresh))));
        let row = match self.texts.dialect {
            Dialect::Postgres => {
                let rows = within(deadline, conn.rows(&self.texts.create, &args)).await?;
                match rows.into_iter().next() {
                    Some(row) if row.int(DONE).map_err(Failure::Lost)?.is_some() => return Ok(made),
                    // One that came after the statement began is new, and therefore alive.
                    None => return Ok(Step::Done(Outcome::Taken)),
                    Some(row) => row,
                }
            }
            Dialect::MySql => {
                match within(deadline, conn.run(&self.texts.create, &args)).await {
                    Ok(_) => return Ok(made),
                    Err(failure) if failure.refusal() == Some(Refusal::Duplicate) => {}
                    Err(failure) => return Err(failure),
                }
                if within(deadline, conn.run(&self.texts.replace_dead, &args)).await?.found > 0 {
                    return Ok(made);
                }
                let rows = within(deadline, conn.rows(&self.texts.state, &[Arg::Bytes(id)])).await;
                let rows = rows.map_err(|failure| Failure::NotSent(failure.of_read()))?;
                let Some(row) = rows.into_iter().next() else { return Ok(Step::Wait) };
                row
            }
        };
        let told = told(&row).map_err(Failure::Lost)?;
        Ok(if told.alive { Step::Done(Outcome::Taken) } else { Step::Wait })
    }

    /// Lets the lease last longer; false if it is not ours any more.
    pub(crate) async fn renew(&self, conn: &mut Conn, id: &[u8], token: i64) -> Result<bool, Failure> {
        let args = [Arg::Int(self.lease), Arg::Bytes(id), Arg::Int(token)];
        Ok(conn.run(&self.texts.renew, &args).await?.found > 0)
    }

    pub(crate) async fn release(&self, conn: &mut Conn, id: &[u8], token: i64) -> Result<(), Failure> {
        conn.run(&self.texts.release, &[Arg::Bytes(id), Arg::Int(token)]).await.map(drop)
    }
}

/// The condition of a change, in MySQL's text.
fn remove_when(when: When, check: Option<i64>) -> String {
    let free = "expires_at > @cloakroom_now AND lock_until <= @cloakroom_now";
    match (when, check) {
        (When::Is, Some(version)) => format!("(version = {version} AND {free})"),
        (When::Held, Some(token)) => format!("(lock_token = {token})"),
        _ => format!("({free})"),
    }
}

fn done(what: What, row: &Row, now: i64) -> Result<Step<Outcome>> {
    Ok(Step::Done(match what {
        What::Write | What::Touch => Outcome::Done(Some(version(now))),
        What::Remove | What::SetAside => Outcome::Removed(record(row)?),
    }))
}

struct Told {
    version: Option<i64>,
    alive: bool,
    held: bool,
}

fn told(row: &Row) -> Result<Told> {
    Ok(Told { version: row.int(VERSION)?, alive: row.flag(ALIVE)?, held: row.flag(HELD)? })
}

fn record(row: &Row) -> Result<Record> {
    let payload = row.bytes(PAYLOAD)?.unwrap_or_default();
    let ttl = Duration::from_millis(u64::try_from(row.int(TTL)?.unwrap_or(0)).unwrap_or(0));
    let mut record = Record::new(payload, version(row.int(VERSION)?.unwrap_or(0)), Some(ttl));
    let mut columns = Columns::default();
    (columns.user, columns.address, columns.agent) = (row.text(USER)?, row.text(ADDRESS)?, row.text(AGENT)?);
    record.columns = columns;
    Ok(record)
}

/// Payload, life, user, address, agent.
fn write_args(payload: &Payload) -> Vec<Arg<'_>> {
    let columns = &payload.columns;
    vec![
        Arg::Bytes(&payload.bytes),
        Arg::Int(millis(payload.ttl)),
        Arg::Maybe(columns.user.as_deref()),
        Arg::Maybe(columns.address.as_deref()),
        Arg::Maybe(columns.agent.as_deref()),
    ]
}

/// A life without end is one of a century.
pub(crate) fn millis(ttl: Duration) -> i64 {
    const CENTURY: i64 = 100 * 365 * 86_400 * 1000;
    i64::try_from(ttl.as_millis()).unwrap_or(CENTURY).min(CENTURY)
}

fn version(number: i64) -> Version {
    Version::new(number.to_be_bytes().to_vec())
}

/// A version that is not one of ours is nobody's: no record has the number 0.
fn number(version: &Version) -> i64 {
    version.as_bytes().as_ref().try_into().map_or(0, i64::from_be_bytes)
}

/// A number that nobody will draw again: what a record's versions begin at, and what tells one lease from another.
pub(crate) fn random() -> Result<i64, Failure> {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes).map_err(Failure::NotSent)?;
    // Half of what the column holds, to leave room for counting.
    Ok((i64::from_be_bytes(bytes) & (i64::MAX >> 1)) | 1)
}

/// What a column takes: PostgreSQL's text has no NUL, and MySQL's columns have an end.
pub(crate) fn fit(payload: &mut Payload) -> Result<()> {
    let columns = &mut payload.columns;
    if columns.user.as_ref().is_some_and(|user| user.chars().count() > 255 || user.contains('\0')) {
        return Err(Error::misuse("the user of a session is a text of at most 255 characters"));
    }
    for (column, most) in [(&mut columns.address, 255), (&mut columns.agent, 2000)] {
        if let Some(text) = column
            && (text.contains('\0') || text.chars().count() > most)
        {
            *text = text.chars().filter(|char| *char != '\0').take(most).collect();
        }
    }
    Ok(())
}
