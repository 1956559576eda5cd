//! What a table looks like: its names, its columns, what its column of expiry means, and the texts of its statements.
//!
//! Symfony's layout is that of `PdoSessionHandler` (Symfony 4 to 7) on SQLite: the table as `createTable` makes it, and
//! the rule of `doRead` for what has expired.

use cloakroom_core::{Error, Result};

/// Symfony's `MAX_LIFETIME`: what is not larger is a duration, what is larger a point in time.
pub(crate) const LONGEST_DURATION: i64 = 315_576_000;
/// The tables' names, unless told otherwise.
pub(crate) const NATIVE_TABLE: &str = "cloakroom_sessions";
pub(crate) const SYMFONY_TABLE: &str = "sessions";

/// Which table, and who else works with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// cloakroom's own table, with a version, a lease, and columns for user, address and agent.
    Native,
    /// The table of Symfony's `PdoSessionHandler`.
    Symfony(Symfony),
}

/// Symfony's options of the same names (`db_id_col` and so on), and its default values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symfony {
    /// How sessions are locked. It has to be what the PHP application says, where there is one.
    pub lock: LockMode,
    /// What the column of expiry means.
    pub expiry: Expiry,
    /// The column of the id.
    pub id_col: String,
    /// The column of the payload.
    pub data_col: String,
    /// The column of expiry.
    pub lifetime_col: String,
    /// The column with the time of the last write.
    pub time_col: String,
}

/// Symfony's option `lock_mode`. Its third mode, advisory locks, does not exist on SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockMode {
    /// `LOCK_NONE`: nobody is kept out. cloakroom compares before it writes; PHP does not.
    None,
    /// `LOCK_TRANSACTIONAL`, Symfony's default: `BEGIN IMMEDIATE`, and the whole database is locked for writing for as
    /// long as the session is open.
    Transactional,
}

/// What the column of expiry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// The end of life in seconds since 1970 (Symfony 6 and later).
    Absolute,
    /// How many seconds it lives after the time of its last write (before Symfony 4.4).
    Duration,
    /// Both are read, by Symfony's rule (4.4 to 5.4); points in time are written.
    Mixed,
}

impl Default for Symfony {
    fn default() -> Symfony {
        Symfony {
            lock: LockMode::Transactional,
            expiry: Expiry::Mixed,
            id_col: "sess_id".to_owned(),
            data_col: "sess_data".to_owned(),
            lifetime_col: "sess_lifetime".to_owned(),
            time_col: "sess_time".to_owned(),
        }
    }
}

impl From<Symfony> for Layout {
    fn from(symfony: Symfony) -> Layout {
        Layout::Symfony(symfony)
    }
}

impl Layout {
    /// The table's name where none was given.
    pub(crate) fn default_table(&self) -> &'static str {
        match self {
            Layout::Native => NATIVE_TABLE,
            Layout::Symfony(_) => SYMFONY_TABLE,
        }
    }
}

impl Expiry {
    /// The end of life in seconds since 1970. A record is alive up to and in that second.
    pub(crate) fn end_of_life(self, lifetime: i64, time: i64) -> i64 {
        match self {
            Expiry::Mixed if lifetime <= LONGEST_DURATION => lifetime.saturating_add(time),
            Expiry::Absolute | Expiry::Mixed => lifetime,
            Expiry::Duration => lifetime.saturating_add(time),
        }
    }

    /// What is written for a life of so many seconds from `now` on.
    pub(crate) fn written(self, now: i64, ttl: i64) -> i64 {
        match self {
            Expiry::Duration => ttl.min(LONGEST_DURATION),
            Expiry::Absolute | Expiry::Mixed => now.saturating_add(ttl),
        }
    }
}

/// A name as SQL takes it, whatever it is: `order` is one, too.
pub(crate) fn quote(name: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
        return Err(Error::config("a name of a table or column is made of at most 63 letters, digits, `_` and `$`"));
    }
    Ok(format!("\"{name}\""))
}

/// The statements of the native layout. `?1` and so on are explained where they are bound.
///
/// A record is leased while its `lock_token` is above 0 and its `lock_until` is to come. A token that was given back only
/// changes its sign, and numbers keep their widths: where a row keeps its length, SQLite writes the pages that differ, so
/// that locking or touching a session of a megabyte does not write a megabyte.
#[derive(Debug)]
pub(crate) struct NativeTexts {
    pub(crate) check: String,
    pub(crate) make: String,
    pub(crate) load: String,
    pub(crate) look: String,
    pub(crate) record: String,
    pub(crate) insert: String,
    pub(crate) replace: String,
    pub(crate) replace_leased: String,
    pub(crate) write: String,
    pub(crate) touch: String,
    pub(crate) touch_leased: String,
    pub(crate) delete: String,
    pub(crate) take: String,
    pub(crate) renew: String,
    pub(crate) release: String,
    pub(crate) due: String,
    pub(crate) sweep: String,
    pub(crate) list: String,
    pub(crate) age: String,
}

impl NativeTexts {
    pub(crate) fn new(table: &str) -> Result<NativeTexts> {
        let (t, index) = (quote(table)?, quote(&format!("{}_expires_at_idx", &table[..table.len().min(48)]))?);
        let set = "payload = ?1, version = ?2, expires_at = ?3, last_seen_at = ?4, user_id = COALESCE(?5, user_id), \
                   address = COALESCE(?6, address), agent = COALESCE(?7, agent), lock_token = -abs(lock_token)";
        let record = "version, expires_at, user_id, address, agent";
        Ok(NativeTexts {
            check: format!(
                "SELECT id, version, expires_at, created_at, last_seen_at, lock_token, lock_until, user_id, address, \
                 agent, payload FROM {t} LIMIT 0"
            ),
            // The payload comes last, so that the columns before it are found without following a large one's pages. A
            // table with row numbers, since a large payload in the tree of the ids would make that a slow one.
            make: format!(
                "CREATE TABLE IF NOT EXISTS {t} (id BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL, \
                 expires_at INTEGER NOT NULL, created_at INTEGER NOT NULL, last_seen_at INTEGER NOT NULL, \
                 lock_token INTEGER NOT NULL DEFAULT 0, lock_until INTEGER NOT NULL DEFAULT 0, user_id TEXT, \
                 address TEXT, agent TEXT, payload BLOB NOT NULL) STRICT; \
                 CREATE INDEX IF NOT EXISTS {index} ON {t} (expires_at)"
            ),
            load: format!(
                "SELECT {record}, CASE WHEN octet_length(payload) <= ?3 THEN payload END FROM {t} \
                 WHERE id = ?1 AND expires_at > ?2"
            ),
            look: format!("SELECT rowid, version, expires_at, lock_token, lock_until FROM {t} WHERE id = ?1"),
            record: format!("SELECT {record}, payload FROM {t} WHERE rowid = ?1"),
            insert: format!(
                "INSERT INTO {t} (payload, version, expires_at, created_at, last_seen_at, user_id, address, agent, id, \
                 lock_token, lock_until) VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            ),
            replace: format!(
                "UPDATE {t} SET {set} WHERE id = ?8 AND version = ?9 AND expires_at > ?4 \
                 AND (lock_token <= 0 OR lock_until <= ?4)"
            ),
            replace_leased: format!("UPDATE {t} SET {set} WHERE id = ?8 AND lock_token = ?9"),
            write: format!(
                "UPDATE {t} SET {}, version = version + 1 WHERE rowid = ?2 RETURNING version",
                set.replace("version = ?2, ", "")
            ),
            touch: format!("UPDATE {t} SET expires_at = ?1, last_seen_at = ?2 WHERE rowid = ?3 RETURNING version"),
            touch_leased: format!(
                "UPDATE {t} SET expires_at = ?1, last_seen_at = ?2, lock_token = -abs(lock_token) WHERE rowid = ?3 \
                 RETURNING version"
            ),
            delete: format!("DELETE FROM {t} WHERE rowid = ?1"),
            take: format!("UPDATE {t} SET lock_token = ?1, lock_until = ?2 WHERE rowid = ?3"),
            renew: format!("UPDATE {t} SET lock_until = ?1 WHERE id = ?2 AND lock_token = ?3"),
            release: format!("UPDATE {t} SET lock_token = -lock_token WHERE id = ?1 AND lock_token = ?2"),
            due: format!(
                "SELECT expires_at, rowid, true, id FROM {t} WHERE expires_at <= ?1 AND (expires_at, rowid) > (?2, ?3) \
                 AND (lock_token <= 0 OR lock_until <= ?1) ORDER BY expires_at, rowid LIMIT ?4"
            ),
            sweep: format!(
                "DELETE FROM {t} WHERE rowid = ?1 AND expires_at <= ?2 AND (lock_token <= 0 OR lock_until <= ?2)"
            ),
            list: format!(
                "SELECT id, expires_at, octet_length(payload) FROM {t} WHERE id > ?1 AND expires_at > ?2 \
                 ORDER BY id LIMIT ?3"
            ),
            age: format!("UPDATE {t} SET expires_at = expires_at - ?1 WHERE id = ?2"),
        })
    }
}

/// The statements of Symfony's layout.
#[derive(Debug)]
pub(crate) struct SymfonyTexts {
    pub(crate) check: String,
    pub(crate) make: String,
    pub(crate) load: String,
    pub(crate) look: String,
    pub(crate) insert: String,
    pub(crate) write: String,
    pub(crate) touch: String,
    pub(crate) delete: String,
    /// For points in time, and for durations.
    pub(crate) due: [String; 2],
    pub(crate) sweep: String,
    pub(crate) list: String,
    pub(crate) age: String,
}

impl SymfonyTexts {
    pub(crate) fn new(table: &str, symfony: &Symfony) -> Result<SymfonyTexts> {
        let t = quote(table)?;
        let (id, data) = (quote(&symfony.id_col)?, quote(&symfony.data_col)?);
        let (lifetime, time) = (quote(&symfony.lifetime_col)?, quote(&symfony.time_col)?);
        // The name that Symfony 6 gives it.
        let index = quote(&format!("{}_idx", &symfony.lifetime_col[..symfony.lifetime_col.len().min(59)]))?;
        let end = match symfony.expiry {
            Expiry::Absolute => lifetime.clone(),
            Expiry::Duration => format!("({lifetime} + {time})"),
            Expiry::Mixed => {
                format!("CASE WHEN {lifetime} <= {LONGEST_DURATION} THEN {lifetime} + {time} ELSE {lifetime} END")
            }
        };
        let after = format!("({lifetime}, rowid) > (?2, ?3)");
        let points = match symfony.expiry {
            Expiry::Mixed => format!("{lifetime} < ?1 AND {lifetime} > {LONGEST_DURATION}"),
            _ => format!("{lifetime} < ?1"),
        };
        let durations = match symfony.expiry {
            Expiry::Mixed => format!("{lifetime} <= {LONGEST_DURATION}"),
            _ => "true".to_owned(),
        };
        let due = |condition: &str, expired: &str| {
            format!(
                "SELECT {lifetime}, rowid, {expired}, {id} FROM {t} WHERE {condition} AND {after} ORDER BY {lifetime}, rowid LIMIT ?4"
            )
        };
        Ok(SymfonyTexts {
            check: format!("SELECT {id}, {data}, {lifetime}, {time} FROM {t} LIMIT 0"),
            // `PdoSessionHandler::createTable`.
            make: format!(
                "CREATE TABLE IF NOT EXISTS {t} ({id} TEXT NOT NULL PRIMARY KEY, {data} BLOB NOT NULL, \
                 {lifetime} INTEGER NOT NULL, {time} INTEGER NOT NULL); \
                 CREATE INDEX IF NOT EXISTS {index} ON {t} ({lifetime})"
            ),
            load: format!(
                "SELECT {lifetime}, {time}, CASE WHEN octet_length({data}) <= ?2 THEN {data} END FROM {t} WHERE {id} = ?1"
            ),
            look: format!("SELECT rowid, {lifetime}, {time}, {data} FROM {t} WHERE {id} = ?1"),
            insert: format!("INSERT INTO {t} ({data}, {lifetime}, {time}, {id}) VALUES (?1, ?2, ?3, ?4)"),
            write: format!("UPDATE {t} SET {data} = ?1, {lifetime} = ?2, {time} = ?3 WHERE rowid = ?4"),
            touch: format!("UPDATE {t} SET {lifetime} = ?1, {time} = ?2 WHERE rowid = ?3"),
            delete: format!("DELETE FROM {t} WHERE rowid = ?1"),
            due: [due(&points, "true"), due(&durations, &format!("{lifetime} + {time} < ?1"))],
            sweep: format!("DELETE FROM {t} WHERE rowid = ?1 AND {end} < ?2"),
            list: format!(
                "SELECT {id}, {lifetime}, {time}, octet_length({data}) FROM {t} WHERE {id} > ?1 AND {end} >= ?2 \
                 ORDER BY {id} LIMIT ?3"
            ),
            age: format!("UPDATE {t} SET {lifetime} = {lifetime} - ?1 WHERE {id} = ?2"),
        })
    }
}

/// The statements of the table of what was set aside. PHP's SQLite may be older than tables that are STRICT, and would
/// then not read any table of the database.
#[derive(Debug)]
pub(crate) struct AsideTexts {
    pub(crate) make: &'static str,
    pub(crate) insert: &'static str,
    pub(crate) too_old: &'static str,
    pub(crate) too_many: &'static str,
}

pub(crate) const ASIDE: AsideTexts = AsideTexts {
    make: "CREATE TABLE IF NOT EXISTS cloakroom_aside (id INTEGER PRIMARY KEY, payload BLOB NOT NULL, aside_at INTEGER NOT NULL)",
    insert: "INSERT INTO cloakroom_aside (payload, aside_at) VALUES (?1, ?2)",
    too_old: "DELETE FROM cloakroom_aside WHERE aside_at <= ?1",
    too_many: "DELETE FROM cloakroom_aside WHERE id <= (SELECT id FROM cloakroom_aside ORDER BY id DESC LIMIT 1 OFFSET ?1)",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_nothing_else_gets_through() {
        assert_eq!(quote("order").unwrap(), "\"order\"");
        for name in ["", "a b", "a\"b", "a;b", "a.b", "caf\u{e9}", "a--b", &"a".repeat(64)] {
            assert!(quote(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_end_of_life_follows_symfonys_rule() {
        let now = 1_800_000_000;
        assert_eq!(Expiry::Mixed.end_of_life(1440, now), now + 1440);
        assert_eq!(Expiry::Mixed.end_of_life(LONGEST_DURATION, now), now + LONGEST_DURATION);
        assert_eq!(Expiry::Mixed.end_of_life(LONGEST_DURATION + 1, now), LONGEST_DURATION + 1);
        assert_eq!(Expiry::Absolute.end_of_life(1440, now), 1440);
        assert_eq!(Expiry::Duration.end_of_life(now, now), 2 * now);
        assert_eq!(Expiry::Mixed.written(now, 1440), now + 1440);
        assert_eq!(Expiry::Duration.written(now, 1440), 1440);
    }
}
