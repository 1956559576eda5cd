//! The two layouts behind one face: what is done to a row, in the terms of each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cloakroom_core::store::{Listed, Payload, Record, Version};
use cloakroom_core::{Key, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use crate::commit::{Seen, Want};
use crate::config::SqliteConfig;
use crate::error::Failure;
use crate::layout::{ASIDE, Layout, NativeTexts, SymfonyTexts};
use crate::native::Native;
use crate::symfony::SymfonyTable;

/// How many kinds of rows a sweep looks for.
pub(crate) const KINDS: usize = 2;

/// The layout, with its statements.
#[derive(Debug)]
pub(crate) enum Way {
    Native(Native),
    Symfony(SymfonyTable),
}

/// The time of day, as all processes of this machine have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now(i64);

/// What was found under an id.
pub(crate) enum Loaded {
    Absent,
    Record(Record),
    /// A record whose payload is larger than asked for.
    Larger,
}

/// A row whose time may have come, by its place in the index of expiry.
pub(crate) struct Due {
    pub(crate) at: i64,
    pub(crate) row: i64,
    pub(crate) expired: bool,
    pub(crate) key: Key,
}

impl Now {
    pub(crate) fn read() -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn millis(self) -> i64 {
        self.0
    }

    /// Rounded down, as PHP's `time()`.
    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl Way {
    pub(crate) fn new(config: &SqliteConfig) -> Result<Way> {
        let aside = Aside {
            makes: config.migrate.unwrap_or(true),
            most: config.max_aside,
            lifetime: millis(config.aside_lifetime),
        };
        Ok(match &config.layout {
            Layout::Native => Way::Native(Native {
                texts: NativeTexts::new(config.table_name())?,
                lifetime: millis(config.lifetime),
                lease: millis(config.lease),
                aside,
            }),
            Layout::Symfony(symfony) => Way::Symfony(SymfonyTable {
                texts: SymfonyTexts::new(config.table_name(), symfony)?,
                expiry: symfony.expiry,
                aside,
            }),
        })
    }

    /// Whether the table is there and has its columns.
    pub(crate) fn check(&self) -> &str {
        match self {
            Way::Native(native) => &native.texts.check,
            Way::Symfony(symfony) => &symfony.texts.check,
        }
    }

    pub(crate) fn make(&self) -> &str {
        match self {
            Way::Native(native) => &native.texts.make,
            Way::Symfony(symfony) => &symfony.texts.make,
        }
    }

    pub(crate) fn load(&self, conn: &Connection, id: &[u8], now: Now, most: i64) -> Result<Loaded, Failure> {
        match self {
            Way::Native(native) => native.load(conn, id, now, most),
            Way::Symfony(symfony) => symfony.load(conn, id, now, most),
        }
    }

    pub(crate) fn look(&self, conn: &Connection, id: &[u8], want: &Want, now: Now) -> Result<Option<Seen>, Failure> {
        match self {
            Way::Native(native) => native.look(conn, id, want, now),
            Way::Symfony(symfony) => symfony.look(conn, id, want, now),
        }
    }

    /// The whole record, for who is to be told what is or was there.
    pub(crate) fn record(&self, conn: &Connection, row: i64, id: &[u8], now: Now) -> Result<Record, Failure> {
        match self {
            Way::Native(native) => native.record(conn, row, now),
            Way::Symfony(symfony) => symfony.record(conn, id, now),
        }
    }

    pub(crate) fn create(&self, conn: &Connection, id: &[u8], payload: &Payload, now: Now) -> Result<Version, Failure> {
        match self {
            Way::Native(native) => native.create(conn, id, payload, now),
            Way::Symfony(symfony) => symfony.create(conn, id, payload, now),
        }
    }

    pub(crate) fn write(&self, conn: &Connection, row: i64, payload: &Payload, now: Now) -> Result<Version, Failure> {
        match self {
            Way::Native(native) => native.write(conn, row, payload, now),
            Way::Symfony(symfony) => symfony.write(conn, row, payload, now),
        }
    }

    /// The version the record has, where that is known.
    pub(crate) fn touch(
        &self,
        conn: &Connection,
        row: i64,
        want: &Want,
        ttl: Duration,
        now: Now,
    ) -> Result<Option<Version>, Failure> {
        match self {
            Way::Native(native) => native.touch(conn, row, want, ttl, now),
            Way::Symfony(symfony) => symfony.touch(conn, row, want, ttl, now),
        }
    }

    pub(crate) fn delete(&self, conn: &Connection, row: i64) -> Result<(), Failure> {
        let text = match self {
            Way::Native(native) => &native.texts.delete,
            Way::Symfony(symfony) => &symfony.texts.delete,
        };
        conn.prepare_cached(text)?.execute([row])?;
        Ok(())
    }

    /// Keeps a payload for people to look at, and no more of them, nor for longer, than is wanted.
    pub(crate) fn set_aside(&self, conn: &Connection, payload: &Bytes, now: Now) -> Result<(), Failure> {
        let aside = self.aside();
        if aside.makes {
            conn.execute_batch(ASIDE.make)?;
        }
        conn.execute(ASIDE.insert, params![&payload[..], now.millis()])?;
        conn.execute(ASIDE.too_old, [now.millis().saturating_sub(aside.lifetime)])?;
        conn.execute(ASIDE.too_many, [aside.most])?;
        Ok(())
    }

    /// At the end of a round of sweeping.
    pub(crate) fn forget_aside(&self, conn: &Connection, now: Now) -> Result<(), Failure> {
        let there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'cloakroom_aside'";
        if conn.prepare_cached(there)?.exists([])? {
            conn.execute(ASIDE.too_old, [now.millis().saturating_sub(self.aside().lifetime)])?;
        }
        Ok(())
    }

    pub(crate) fn statements(&self) -> Vec<(&'static str, String)> {
        let named = |name, text: &String| (name, text.clone());
        match self {
            Way::Native(Native { texts, .. }) => vec![
                named("load", &texts.load),
                named("look", &texts.look),
                named("replace", &texts.replace),
                named("replace_leased", &texts.replace_leased),
                named("renew", &texts.renew),
                named("release", &texts.release),
                named("due", &texts.due),
                named("sweep", &texts.sweep),
                named("list", &texts.list),
            ],
            Way::Symfony(SymfonyTable { texts, .. }) => vec![
                named("load", &texts.load),
                named("look", &texts.look),
                named("write", &texts.write),
                named("due points", &texts.due[0]),
                named("due durations", &texts.due[1]),
                named("sweep", &texts.sweep),
                named("list", &texts.list),
            ],
        }
    }

    fn aside(&self) -> &Aside {
        match self {
            Way::Native(native) => &native.aside,
            Way::Symfony(symfony) => &symfony.aside,
        }
    }

    /// Up to `most` rows behind `after` in the index of expiry.
    pub(crate) fn due(
        &self,
        conn: &Connection,
        kind: usize,
        after: (i64, i64),
        most: usize,
        now: Now,
    ) -> Result<Vec<Due>, Failure> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let (text, now) = match self {
            Way::Native(native) if kind == 0 => (&native.texts.due, now.millis()),
            Way::Native(_) => return Ok(Vec::new()),
            Way::Symfony(symfony) => {
                let Some(text) = symfony.due(kind) else { return Ok(Vec::new()) };
                (text, now.seconds())
            }
        };
        let mut statement = conn.prepare_cached(text)?;
        let rows = statement.query_map(params![now, after.0, after.1, most], |row| {
            let key = match row.get_ref(3)? {
                ValueRef::Blob(id) | ValueRef::Text(id) => Key::from_bytes(id),
                _ => Key::from_bytes([]),
            };
            Ok(Due { at: row.get(0)?, row: row.get(1)?, expired: row.get(2)?, key })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Removes a row if it still has expired and nobody holds it.
    pub(crate) fn sweep(&self, conn: &Connection, row: i64, now: Now) -> Result<bool, Failure> {
        let (text, now) = match self {
            Way::Native(native) => (&native.texts.sweep, now.millis()),
            Way::Symfony(symfony) => (&symfony.texts.sweep, now.seconds()),
        };
        Ok(conn.prepare_cached(text)?.execute([row, now])? > 0)
    }

    pub(crate) fn list(&self, conn: &Connection, after: &[u8], most: usize, now: Now) -> Result<Vec<Listed>, Failure> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        match self {
            Way::Native(native) => native.list(conn, after, most, now),
            Way::Symfony(symfony) => symfony.list(conn, after, most, now),
        }
    }

    pub(crate) fn age(&self, conn: &Connection, id: &[u8], by: Duration) -> Result<(), Failure> {
        match self {
            Way::Native(native) => conn.execute(&native.texts.age, params![millis(by), id])?,
            Way::Symfony(symfony) => {
                conn.execute(&symfony.texts.age, params![seconds(by), crate::symfony::text(id)?])?
            }
        };
        Ok(())
    }
}

/// The bounds of what was set aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aside {
    makes: bool,
    most: u32,
    lifetime: i64,
}

/// A life without end is one of a century.
const CENTURY: i64 = 100 * 365 * 86_400;

pub(crate) fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).min(CENTURY * 1000)
}

/// Symfony counts in whole seconds: no life is cut short.
pub(crate) fn seconds(ttl: Duration) -> i64 {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX).min(CENTURY)
}
