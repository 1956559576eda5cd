//! Symfony's layout: the rows of `PdoSessionHandler`, read and written by its rules.
//!
//! It has no version: a record's version is its payload, compared under the database's lock for writing, which PHP takes
//! for as long as its request lasts.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Listed, Payload, Record, Version};
use cloakroom_core::{Error, ErrorKind, Key, Result};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use crate::commit::{Seen, Want};
use crate::error::Failure;
use crate::layout::{Expiry, SymfonyTexts};
use crate::way::{Aside, Loaded, Now, seconds};

/// Records of Symfony's layout.
#[derive(Debug)]
pub(crate) struct SymfonyTable {
    pub(crate) texts: SymfonyTexts,
    pub(crate) expiry: Expiry,
    pub(crate) aside: Aside,
}

/// A claim that was met, and what there is.
pub(crate) struct Claimed {
    pub(crate) found: Option<Record>,
}

impl SymfonyTable {
    pub(crate) fn load(&self, conn: &Connection, id: &[u8], now: Now, most: i64) -> Result<Loaded, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.load)?;
        let mut rows = statement.query(params![text(id)?, most])?;
        let Some(row) = rows.next()? else { return Ok(Loaded::Absent) };
        let end = self.expiry.end_of_life(row.get(0)?, row.get(1)?);
        if end < now.seconds() {
            return Ok(Loaded::Absent);
        }
        match row.get_ref(2)? {
            ValueRef::Null => Ok(Loaded::Larger),
            value => Ok(Loaded::Record(record(Bytes::copy_from_slice(bytes(value, 2)?), end, now))),
        }
    }

    pub(crate) fn look(&self, conn: &Connection, id: &[u8], want: &Want, now: Now) -> Result<Option<Seen>, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.look)?;
        let seen = statement.query_row([text(id)?], |row| {
            let end = self.expiry.end_of_life(row.get(1)?, row.get(2)?);
            let matches = match want {
                Want::Is(version) | Want::Found(Some(version)) => *version.as_bytes() == bytes(row.get_ref(3)?, 3)?,
                _ => false,
            };
            Ok(Seen { row: row.get(0)?, alive: end >= now.seconds(), leased: false, matches })
        });
        Ok(seen.optional()?)
    }

    pub(crate) fn record(&self, conn: &Connection, id: &[u8], now: Now) -> Result<Record, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.look)?;
        Ok(statement.query_row([text(id)?], |row| {
            let end = self.expiry.end_of_life(row.get(1)?, row.get(2)?);
            Ok(record(Bytes::copy_from_slice(bytes(row.get_ref(3)?, 3)?), end, now))
        })?)
    }

    /// What is there, for who has the database's lock. What has expired is destroyed. `None` where the claim cannot be met.
    pub(crate) fn claim(
        &self,
        conn: &Connection,
        id: &[u8],
        claim: Claim,
        now: Now,
    ) -> Result<Option<Claimed>, Failure> {
        let found = match self.look(conn, id, &Want::Any, now)? {
            Some(seen) if seen.alive => Some(self.record(conn, id, now)?),
            Some(seen) => {
                conn.prepare_cached(&self.texts.delete)?.execute([seen.row])?;
                None
            }
            None => None,
        };
        let met = match claim {
            Claim::Existing => found.is_some(),
            Claim::New => found.is_none(),
            _ => true,
        };
        Ok(met.then_some(Claimed { found }))
    }

    pub(crate) fn create(&self, conn: &Connection, id: &[u8], payload: &Payload, now: Now) -> Result<Version, Failure> {
        let now = now.seconds();
        let lifetime = self.expiry.written(now, seconds(payload.ttl));
        let mut statement = conn.prepare_cached(&self.texts.insert)?;
        statement.execute(params![&payload.bytes[..], lifetime, now, text(id)?])?;
        Ok(Version::new(payload.bytes.clone()))
    }

    pub(crate) fn write(&self, conn: &Connection, row: i64, payload: &Payload, now: Now) -> Result<Version, Failure> {
        let now = now.seconds();
        let lifetime = self.expiry.written(now, seconds(payload.ttl));
        conn.prepare_cached(&self.texts.write)?.execute(params![&payload.bytes[..], lifetime, now, row])?;
        Ok(Version::new(payload.bytes.clone()))
    }

    /// As `PdoSessionHandler::updateTimestamp`.
    pub(crate) fn touch(
        &self,
        conn: &Connection,
        row: i64,
        want: &Want,
        ttl: Duration,
        now: Now,
    ) -> Result<Option<Version>, Failure> {
        let now = now.seconds();
        conn.prepare_cached(&self.texts.touch)?.execute([self.expiry.written(now, seconds(ttl)), now, row])?;
        Ok(match want {
            Want::Is(version) | Want::Found(Some(version)) => Some(version.clone()),
            _ => None,
        })
    }

    /// The statement that looks for points in time, or for durations; `None` where there are none.
    pub(crate) fn due(&self, kind: usize) -> Option<&String> {
        match (self.expiry, kind) {
            (Expiry::Absolute | Expiry::Mixed, 0) => Some(&self.texts.due[0]),
            (Expiry::Duration | Expiry::Mixed, 1) => Some(&self.texts.due[1]),
            _ => None,
        }
    }

    pub(crate) fn list(&self, conn: &Connection, after: &[u8], most: i64, now: Now) -> Result<Vec<Listed>, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.list)?;
        let rows = statement.query_map(params![text(after)?, now.seconds(), most], |row| {
            let key = Key::from_bytes(bytes(row.get_ref(0)?, 0)?);
            let end = self.expiry.end_of_life(row.get(1)?, row.get(2)?);
            let size: i64 = row.get(3)?;
            Ok(Listed::new(key, u64::try_from(size).unwrap_or(0), Some(remaining(end, now))))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// The id as its column has it.
pub(crate) fn text(id: &[u8]) -> Result<&str> {
    std::str::from_utf8(id)
        .map_err(|_| Error::new(ErrorKind::Misuse, "Symfony's column of ids holds text, and this key is none"))
}

/// PHP binds what it writes as BLOB or as TEXT: both are bytes.
fn bytes(value: ValueRef<'_>, column: usize) -> rusqlite::Result<&[u8]> {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Ok(bytes),
        _ => Err(rusqlite::Error::InvalidColumnType(column, String::new(), Type::Null)),
    }
}

fn record(payload: Bytes, end: i64, now: Now) -> Record {
    let version = Version::new(payload.clone());
    Record::new(payload, version, Some(remaining(end, now)))
}

fn remaining(end: i64, now: Now) -> Duration {
    Duration::from_secs(u64::try_from(end.saturating_sub(now.seconds())).unwrap_or(0))
}
