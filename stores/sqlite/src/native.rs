//! The native layout: a lock is a lease in the row itself, and every change counts the record's version up.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Columns, Listed, Payload, Record, Version};
use cloakroom_core::{Error, ErrorKind, Key, Random, Result, SystemRandom};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::commit::{Seen, Step, Want};
use crate::error::Failure;
use crate::layout::NativeTexts;
use crate::way::{Aside, Loaded, Now, millis};

/// How many characters of these columns are kept. A browser may send as many as the server takes.
const LONGEST_ADDRESS: usize = 255;
const LONGEST_AGENT: usize = 2000;
const LONGEST_USER: usize = 255;
const VERSION: usize = 8;

/// Records of the native layout.
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) texts: NativeTexts,
    /// The life of a record that has not been written yet, and the length of a lease, in milliseconds.
    pub(crate) lifetime: i64,
    pub(crate) lease: i64,
    pub(crate) aside: Aside,
}

/// A lease that was given: the version of the record behind it, and what there was before.
pub(crate) struct Claimed {
    pub(crate) version: i64,
    pub(crate) found: Option<Record>,
}

impl Native {
    pub(crate) fn load(&self, conn: &Connection, id: &[u8], now: Now, most: i64) -> Result<Loaded, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.load)?;
        let mut rows = statement.query(params![id, now.millis(), most])?;
        let Some(row) = rows.next()? else { return Ok(Loaded::Absent) };
        if row.get_ref(5)?.as_blob_or_null().map_err(rusqlite::Error::from)?.is_none() {
            return Ok(Loaded::Larger);
        }
        Ok(Loaded::Record(record(row, now)?))
    }

    pub(crate) fn look(&self, conn: &Connection, id: &[u8], want: &Want, now: Now) -> Result<Option<Seen>, Failure> {
        let now = now.millis();
        let mut statement = conn.prepare_cached(&self.texts.look)?;
        let seen = statement.query_row([id], |row| {
            let (version, expires_at): (i64, i64) = (row.get(1)?, row.get(2)?);
            let (token, until): (i64, i64) = (row.get(3)?, row.get(4)?);
            let matches = match want {
                Want::Is(expected) => number(expected) == version,
                Want::Leased { token: ours, .. } => *ours == token,
                _ => false,
            };
            Ok(Seen { row: row.get(0)?, alive: expires_at > now, leased: token > 0 && until > now, matches })
        });
        Ok(seen.optional()?)
    }

    pub(crate) fn record(&self, conn: &Connection, row: i64, now: Now) -> Result<Record, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.record)?;
        Ok(statement.query_row([row], |row| record(row, now))?)
    }

    /// The one statement that is enough in most cases; `None` where it changed nothing, which is to be looked into.
    pub(crate) fn replace(
        &self,
        conn: &Connection,
        id: &[u8],
        want: &Want,
        payload: &Payload,
        now: Now,
    ) -> Result<Option<Version>, Failure> {
        let (text, old, check) = match want {
            Want::Is(version) => (&self.texts.replace, number(version), number(version)),
            Want::Leased { token, version } => (&self.texts.replace_leased, *version, *token),
            _ => return Ok(None),
        };
        let new = old.wrapping_add(1);
        let Columns { user, address, agent, .. } = &payload.columns;
        let (expires_at, now) = (now.millis().saturating_add(millis(payload.ttl)), now.millis());
        let bytes = &payload.bytes[..];
        let mut statement = conn.prepare_cached(text)?;
        let done = statement.execute(params![bytes, new, expires_at, now, user, address, agent, id, check])?;
        Ok((done > 0).then(|| version(new)))
    }

    pub(crate) fn write(&self, conn: &Connection, row: i64, payload: &Payload, now: Now) -> Result<Version, Failure> {
        let Columns { user, address, agent, .. } = &payload.columns;
        let (expires_at, now) = (now.millis().saturating_add(millis(payload.ttl)), now.millis());
        let bytes = &payload.bytes[..];
        let mut statement = conn.prepare_cached(&self.texts.write)?;
        let new = statement.query_row(params![bytes, row, expires_at, now, user, address, agent], |row| row.get(0))?;
        Ok(version(new))
    }

    pub(crate) fn create(&self, conn: &Connection, id: &[u8], payload: &Payload, now: Now) -> Result<Version, Failure> {
        let new = random()?;
        self.insert(conn, id, new, payload, (-new, now.millis()), now)?;
        Ok(version(new))
    }

    fn insert(
        &self,
        conn: &Connection,
        id: &[u8],
        version: i64,
        payload: &Payload,
        lease: (i64, i64),
        now: Now,
    ) -> Result<(), Failure> {
        let Columns { user, address, agent, .. } = &payload.columns;
        let (expires_at, now) = (now.millis().saturating_add(millis(payload.ttl)), now.millis());
        let bytes = &payload.bytes[..];
        let mut statement = conn.prepare_cached(&self.texts.insert)?;
        statement.execute(params![bytes, version, expires_at, now, user, address, agent, id, lease.0, lease.1])?;
        Ok(())
    }

    pub(crate) fn touch(
        &self,
        conn: &Connection,
        row: i64,
        want: &Want,
        ttl: Duration,
        now: Now,
    ) -> Result<Option<Version>, Failure> {
        let held = matches!(want, Want::Leased { .. });
        let text = if held { &self.texts.touch_leased } else { &self.texts.touch };
        let expires_at = now.millis().saturating_add(millis(ttl));
        let mut statement = conn.prepare_cached(text)?;
        Ok(Some(version(statement.query_row([expires_at, now.millis(), row], |row| row.get(0))?)))
    }

    /// Takes the lease where it is free. `None` where the claim cannot be met.
    pub(crate) fn claim(
        &self,
        conn: &Connection,
        id: &[u8],
        claim: Claim,
        token: i64,
        now: Now,
    ) -> Result<Step<Option<Claimed>>, Failure> {
        let seen = self.look(conn, id, &Want::Any, now)?;
        let until = now.millis().saturating_add(self.lease);
        match seen {
            Some(seen) if seen.leased => return Ok(Step::Wait),
            Some(seen) if seen.alive => {
                if claim == Claim::New {
                    return Ok(Step::Done(None));
                }
                let found = self.record(conn, seen.row, now)?;
                conn.prepare_cached(&self.texts.take)?.execute([token, until, seen.row])?;
                let version = number(&found.version);
                return Ok(Step::Done(Some(Claimed { version, found: Some(found) })));
            }
            Some(seen) => {
                conn.prepare_cached(&self.texts.delete)?.execute([seen.row])?;
            }
            None => {}
        }
        if claim == Claim::Existing {
            return Ok(Step::Done(None));
        }
        let version = random()?;
        let lifetime = Duration::from_millis(u64::try_from(self.lifetime).unwrap_or(0));
        self.insert(conn, id, version, &Payload::new(Bytes::new(), lifetime), (token, until), now)?;
        Ok(Step::Done(Some(Claimed { version, found: None })))
    }

    /// Lets the lease last longer; false if it is not ours any more.
    pub(crate) fn renew(&self, conn: &Connection, id: &[u8], token: i64, now: Now) -> Result<bool, Failure> {
        let until = now.millis().saturating_add(self.lease);
        Ok(conn.prepare_cached(&self.texts.renew)?.execute(params![until, id, token])? > 0)
    }

    pub(crate) fn release(&self, conn: &Connection, id: &[u8], token: i64) -> Result<(), Failure> {
        conn.prepare_cached(&self.texts.release)?.execute(params![id, token])?;
        Ok(())
    }

    pub(crate) fn list(&self, conn: &Connection, after: &[u8], most: i64, now: Now) -> Result<Vec<Listed>, Failure> {
        let mut statement = conn.prepare_cached(&self.texts.list)?;
        let rows = statement.query_map(params![after, now.millis(), most], |row| {
            let key = Key::from_bytes(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
            let size: i64 = row.get(2)?;
            Ok(Listed::new(key, u64::try_from(size).unwrap_or(0), Some(remaining(row.get(1)?, now))))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// Version, end of life, user, address, agent, payload.
fn record(row: &Row<'_>, now: Now) -> rusqlite::Result<Record> {
    let number: i64 = row.get(0)?;
    let payload = row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?;
    // The version stands behind the payload in the same allocation.
    let mut bytes = Vec::with_capacity(payload.len() + VERSION);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&number.to_be_bytes());
    let mut payload = Bytes::from(bytes);
    let version = Version::new(payload.split_off(payload.len() - VERSION));
    let mut record = Record::new(payload, version, Some(remaining(row.get(1)?, now)));
    let mut columns = Columns::default();
    (columns.user, columns.address, columns.agent) = (row.get(2)?, row.get(3)?, row.get(4)?);
    record.columns = columns;
    Ok(record)
}

fn remaining(expires_at: i64, now: Now) -> Duration {
    Duration::from_millis(u64::try_from(expires_at.saturating_sub(now.millis())).unwrap_or(0))
}

fn version(number: i64) -> Version {
    Version::new(number.to_be_bytes().to_vec())
}

/// A version that is not one of ours is nobody's: no record has the number 0.
fn number(version: &Version) -> i64 {
    version.as_bytes().as_ref().try_into().map_or(0, i64::from_be_bytes)
}

/// A number that nobody will draw again: what a record's versions begin at, and what tells one lease from another.
pub(crate) fn random() -> Result<i64> {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes)?;
    // Half of what the column holds, to leave room for counting.
    Ok((i64::from_be_bytes(bytes) & (i64::MAX >> 1)) | 1)
}

/// What the columns take.
pub(crate) fn fit(payload: &mut Payload) -> Result<()> {
    let columns = &mut payload.columns;
    if columns.user.as_ref().is_some_and(|user| user.chars().count() > LONGEST_USER || user.contains('\0')) {
        return Err(Error::new(ErrorKind::Misuse, "the user of a session is a text of at most 255 characters"));
    }
    for (column, most) in [(&mut columns.address, LONGEST_ADDRESS), (&mut columns.agent, LONGEST_AGENT)] {
        if let Some(text) = column
            && (text.contains('\0') || text.chars().count() > most)
        {
            *text = text.chars().filter(|char| *char != '\0').take(most).collect();
        }
    }
    Ok(())
}
