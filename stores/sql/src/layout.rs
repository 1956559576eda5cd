//! What a table looks like: its names, its types, what its column of expiry means, and the names of its locks.
//!
//! Symfony's layout is that of `PdoSessionHandler` (Symfony 4 to 7): tables as `createTable` makes them, the rule of
//! `doRead` for what has expired, the lock names of `doAdvisoryLock`.

use cloakroom_core::{Error, Result};

/// Symfony's `MAX_LIFETIME`: what is not larger is a duration, what is larger a point in time.
pub(crate) const LONGEST_DURATION: i64 = 315_576_000;
/// The longest key of each layout, in bytes.
pub(crate) const NATIVE_KEY: usize = 255;
pub(crate) const SYMFONY_KEY: usize = 128;
/// The tables' names, unless told otherwise.
pub(crate) const NATIVE_TABLE: &str = "cloakroom_sessions";
pub(crate) const SYMFONY_TABLE: &str = "sessions";
/// The table of payloads that were set aside.
pub(crate) const ASIDE_TABLE: &str = "cloakroom_aside";

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

/// Symfony's option `lock_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockMode {
    /// `LOCK_NONE`: nobody is kept out. cloakroom compares before it writes; PHP does not.
    None,
    /// `LOCK_ADVISORY`: a lock of the server's under a name made from the id.
    Advisory,
    /// `LOCK_TRANSACTIONAL`, Symfony's default: a row lock, and a transaction that lasts as long as the session is open.
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

/// Which of the two kinds of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    MySql,
}

impl Dialect {
    /// A name as SQL takes it. `schema.table` is two.
    pub(crate) fn quote(self, name: &str) -> Result<String> {
        let plain = |part: &str| {
            let ok = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$';
            !part.is_empty() && part.len() <= 63 && part.bytes().all(ok)
        };
        let parts: Vec<_> = name.split('.').collect();
        if parts.len() > 2 || !parts.iter().all(|part| plain(part)) {
            return Err(Error::config(
                "a name of a table or column is made of letters, digits, `_` and `$`; one dot may stand before it",
            ));
        }
        let mark = match self {
            Dialect::Postgres => "\"",
            Dialect::MySql => "`",
        };
        Ok(parts.iter().map(|part| format!("{mark}{part}{mark}")).collect::<Vec<_>>().join("."))
    }

    /// The server's clock in milliseconds since 1970, as it was when the statement began, so that a statement that asks
    /// twice decides once. No time zone has a say in it, neither the server's nor the session's.
    pub(crate) fn now_millis(self) -> &'static str {
        match self {
            Dialect::Postgres => "(extract(epoch FROM statement_timestamp()) * 1000)::bigint",
            // UNIX_TIMESTAMP(NOW(3)) would be wrong for an hour a year in zones with summer time.
            Dialect::MySql => "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
        }
    }

    /// In whole seconds, rounded down as PHP's `time()`; and of this moment, for a statement may have waited for a lock.
    pub(crate) fn now_seconds(self) -> &'static str {
        match self {
            Dialect::Postgres => "floor(extract(epoch FROM clock_timestamp()))::bigint",
            Dialect::MySql => "CAST(UNIX_TIMESTAMP() AS SIGNED)",
        }
    }

    /// The same as it was when the statement began, which an index can be asked about.
    pub(crate) fn now_seconds_at_first(self) -> &'static str {
        match self {
            Dialect::Postgres => "floor(extract(epoch FROM statement_timestamp()))::bigint",
            Dialect::MySql => self.now_seconds(),
        }
    }

    /// The last point in time that Symfony's column can hold: it is a signed number in one, an unsigned in the other.
    pub(crate) fn last_second(self) -> i64 {
        match self {
            Dialect::Postgres => i64::from(i32::MAX),
            Dialect::MySql => i64::from(u32::MAX),
        }
    }

    /// What makes the native table; to be run as one, and as often as one likes.
    pub(crate) fn native_tables(self, table: &str, index: &str) -> String {
        match self {
            Dialect::Postgres => format!(
                "CREATE TABLE IF NOT EXISTS {table} (id BYTEA NOT NULL PRIMARY KEY, payload BYTEA NOT NULL, \
                 version BIGINT NOT NULL, expires_at BIGINT NOT NULL, created_at BIGINT NOT NULL, \
                 last_seen_at BIGINT NOT NULL, user_id TEXT, address TEXT, agent TEXT, \
                 lock_token BIGINT NOT NULL DEFAULT 0, lock_until BIGINT NOT NULL DEFAULT 0) WITH (fillfactor = 80); \
                 CREATE INDEX IF NOT EXISTS {index} ON {table} (expires_at)"
            ),
            Dialect::MySql => format!(
                "CREATE TABLE IF NOT EXISTS {table} (id VARBINARY({NATIVE_KEY}) NOT NULL PRIMARY KEY, \
                 payload LONGBLOB NOT NULL, version BIGINT NOT NULL, expires_at BIGINT NOT NULL, \
                 created_at BIGINT NOT NULL, last_seen_at BIGINT NOT NULL, user_id VARCHAR(255), \
                 address VARCHAR(255), agent TEXT, lock_token BIGINT NOT NULL DEFAULT 0, \
                 lock_until BIGINT NOT NULL DEFAULT 0, INDEX {index} (expires_at)) \
                 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, ENGINE = InnoDB"
            ),
        }
    }

    /// `PdoSessionHandler::createTable`.
    pub(crate) fn symfony_tables(self, table: &str, index: &str, names: &SymfonyNames) -> String {
        let SymfonyNames { id, data, lifetime, time } = names;
        match self {
            Dialect::Postgres => format!(
                "CREATE TABLE IF NOT EXISTS {table} ({id} VARCHAR(128) NOT NULL PRIMARY KEY, {data} BYTEA NOT NULL, \
                 {lifetime} INTEGER NOT NULL, {time} INTEGER NOT NULL); \
                 CREATE INDEX IF NOT EXISTS {index} ON {table} ({lifetime})"
            ),
            Dialect::MySql => format!(
                "CREATE TABLE IF NOT EXISTS {table} ({id} VARBINARY(128) NOT NULL PRIMARY KEY, {data} BLOB NOT NULL, \
                 {lifetime} INTEGER UNSIGNED NOT NULL, {time} INTEGER UNSIGNED NOT NULL, INDEX {index} ({lifetime})) \
                 COLLATE utf8mb4_bin, ENGINE = InnoDB"
            ),
        }
    }

    /// What makes the table of what was set aside.
    pub(crate) fn aside_table(self, table: &str) -> String {
        match self {
            Dialect::Postgres => format!(
                "CREATE TABLE IF NOT EXISTS {table} (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                 payload BYTEA NOT NULL, aside_at BIGINT NOT NULL)"
            ),
            Dialect::MySql => format!(
                "CREATE TABLE IF NOT EXISTS {table} (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                 payload LONGBLOB NOT NULL, aside_at BIGINT NOT NULL) ENGINE = InnoDB"
            ),
        }
    }
}

/// Symfony's columns, quoted.
#[derive(Debug)]
pub(crate) struct SymfonyNames {
    pub(crate) id: String,
    pub(crate) data: String,
    pub(crate) lifetime: String,
    pub(crate) time: String,
}

impl Symfony {
    pub(crate) fn names(&self, dialect: Dialect) -> Result<SymfonyNames> {
        let quote = |name: &str| {
            if name.contains('.') {
                return Err(Error::config("the name of a column has no dot"));
            }
            dialect.quote(&as_php_means(dialect, name))
        };
        Ok(SymfonyNames {
            id: quote(&self.id_col)?,
            data: quote(&self.data_col)?,
            lifetime: quote(&self.lifetime_col)?,
            time: quote(&self.time_col)?,
        })
    }
}

/// Symfony does not quote its names, so that PostgreSQL takes them in lower case.
pub(crate) fn as_php_means(dialect: Dialect, name: &str) -> String {
    match dialect {
        Dialect::Postgres => name.to_ascii_lowercase(),
        Dialect::MySql => name.to_owned(),
    }
}

impl Expiry {
    /// The end of life in seconds since 1970, of a row whose columns are these. A row is alive up to and in that second.
    pub(crate) fn end_of_life(self, dialect: Dialect, lifetime: &str, time: &str) -> String {
        // As wide as the sum of two can be, and signed: MySQL's columns are not.
        let (lifetime, time) = match dialect {
            Dialect::Postgres => (format!("{lifetime}::bigint"), time.to_owned()),
            Dialect::MySql => (format!("CAST({lifetime} AS SIGNED)"), format!("CAST({time} AS SIGNED)")),
        };
        match self {
            Expiry::Absolute => lifetime,
            Expiry::Duration => format!("({lifetime} + {time})"),
            Expiry::Mixed => {
                format!("CASE WHEN {lifetime} <= {LONGEST_DURATION} THEN {lifetime} + {time} ELSE {lifetime} END")
            }
        }
    }
}

/// `PdoSessionHandler::convertStringToInt` with PHP's usual 64 bits: the first 8 bytes, the lowest first. A 32-bit PHP
/// uses two numbers of 32 bits, which PostgreSQL keeps apart from this one; such a PHP cannot be a neighbour.
pub(crate) fn advisory_number(key: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    for (byte, from) in bytes.iter_mut().zip(key) {
        *byte = *from;
    }
    i64::from_le_bytes(bytes)
}

/// MySQL's name of the same lock: the first 64 bytes.
pub(crate) fn advisory_name(key: &[u8]) -> &[u8] {
    &key[..key.len().min(64)]
}

/// Bytes in the text of a statement of MySQL's.
pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("x'{}'", digits(bytes))
}

/// Bytes in the text of a statement, for a column of bytes.
pub(crate) fn bytes_literal(dialect: Dialect, bytes: &[u8]) -> String {
    match dialect {
        Dialect::MySql => hex(bytes),
        Dialect::Postgres => format!("'\\x{}'::bytea", digits(bytes)),
    }
}

/// The same for a column of text, where there is one: Symfony's ids in PostgreSQL.
pub(crate) fn text_literal(dialect: Dialect, bytes: &[u8]) -> String {
    match dialect {
        Dialect::MySql => hex(bytes),
        Dialect::Postgres => {
            let text = String::from_utf8_lossy(bytes).replace('\0', "").replace('\\', "\\\\").replace('\'', "''");
            format!("E'{text}'")
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_lock_is_symfonys() {
        // What Symfony made of this id on 64 bits.
        assert_eq!(advisory_number(b"38n60v7t4jb2"), 8_374_291_981_562_427_443);
        assert_eq!(advisory_number(b"\xff\xff\xff\xff\xff\xff\xff\xff..."), -1);
        assert_eq!(advisory_number(b"ab"), 0x6261);
        assert_eq!(advisory_number(b""), 0);
    }

    #[test]
    fn the_name_of_a_lock_is_as_long_as_mysql_allows() {
        assert_eq!(advisory_name(&[b'a'; 128]).len(), 64);
        assert_eq!(advisory_name(b"short"), b"short");
    }

    #[test]
    fn names_are_quoted_and_nothing_else_gets_through() {
        assert_eq!(Dialect::Postgres.quote("app.sessions").unwrap(), "\"app\".\"sessions\"");
        assert_eq!(Dialect::MySql.quote("user").unwrap(), "`user`");
        for name in ["", "a b", "a\"b", "a`b", "a;b", "a.b.c", ".a", "caf\u{e9}", "a--b", &"a".repeat(64)] {
            assert!(Dialect::MySql.quote(name).is_err(), "{name}");
        }
    }

    #[test]
    fn bytes_become_digits() {
        assert_eq!(hex(b"\0'\xff"), "x'0027ff'");
        assert_eq!(hex(b""), "x''");
    }

    #[test]
    fn what_is_in_a_statement_stays_within_its_quotes() {
        assert_eq!(text_literal(Dialect::Postgres, br"a'b\c"), r"E'a''b\\c'");
        assert_eq!(text_literal(Dialect::MySql, b"a'"), "x'6127'");
        assert_eq!(bytes_literal(Dialect::Postgres, b"a'"), r"'\x6127'::bytea");
    }
}
