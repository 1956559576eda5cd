//! The settings of the store, from a URL or one by one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cloakroom_core::{Error, Result};
use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::layout::{Expiry, Layout, LockMode, Symfony};

/// What sqlx takes in a URL of PostgreSQL; it would leave out anything else without an error.
const POSTGRES_OPTIONS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// The same for MySQL and MariaDB.
const MYSQL_OPTIONS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "charset",
    "collation",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "socket",
    "timezone",
    "time-zone",
];

/// The settings of a [`SqlStore`](crate::SqlStore).
#[derive(Clone)]
#[must_use]
pub struct SqlConfig {
    pub(crate) server: Server,
    pub(crate) layout: Layout,
    pub(crate) table: Option<String>,
    pub(crate) connections: u32,
    pub(crate) lock_connections: u32,
    pub(crate) lifetime: Duration,
    pub(crate) lease: Duration,
    pub(crate) max_payload: usize,
    pub(crate) migrate: Option<bool>,
    pub(crate) max_aside: u32,
    pub(crate) aside_lifetime: Duration,
}

/// Which server, and how to get in.
#[derive(Clone)]
pub(crate) enum Server {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

impl SqlConfig {
    /// A database on PostgreSQL, reached as sqlx's options say.
    pub fn postgres(options: PgConnectOptions) -> SqlConfig {
        // Statements name sessions: they belong in nobody's log.
        SqlConfig::new(Server::Postgres(Box::new(options.disable_statement_logging())))
    }

    /// A database on MySQL or MariaDB, reached as sqlx's options say.
    pub fn mysql(options: MySqlConnectOptions) -> SqlConfig {
        let options = options.disable_statement_logging().pipes_as_concat(false).no_engine_substitution(false);
        SqlConfig::new(Server::MySql(Box::new(options)))
    }

    fn new(server: Server) -> SqlConfig {
        SqlConfig {
            server,
            layout: Layout::Native,
            table: None,
            connections: 16,
            lock_connections: 16,
            lifetime: Duration::from_mins(24),
            lease: Duration::from_secs(15),
            max_payload: 8 << 20,
            migrate: None,
            max_aside: 32,
            aside_lifetime: Duration::from_hours(24),
        }
    }

    /// Takes a URL: `postgres://`, `postgresql://`, `mysql://` or `mariadb://`, with this store's options and sqlx's
    /// own after the question mark. An option that neither knows is an error.
    ///
    /// ```
    /// use cloakroom_store_sql::SqlConfig;
    /// SqlConfig::from_url("postgres://app:secret@db.example.com/shop?sslmode=verify-full&pool=32")?;
    /// SqlConfig::from_url("postgres:///shop?host=/run/postgresql")?;
    /// SqlConfig::from_url("mariadb://app@localhost/shop?socket=/run/mysqld/mysqld.sock&layout=symfony&lock=advisory")?;
    /// assert!(SqlConfig::from_url("mysql://app@localhost/shop?sock=/run/mysqld/mysqld.sock").is_err());
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<SqlConfig> {
        let (scheme, _) = url.split_once("://").ok_or_else(no_scheme)?;
        let known = match scheme {
            "postgres" | "postgresql" => POSTGRES_OPTIONS,
            "mysql" | "mariadb" => MYSQL_OPTIONS,
            _ => return Err(no_scheme()),
        };
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        if address.contains('#') || query.contains('#') {
            return Err(Error::config("a `#` in the URL of a database has to be written as %23"));
        }
        let is_theirs =
            |name: &str| known.contains(&name) || scheme.starts_with("postgres") && name.starts_with("options[");
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let (theirs, ours): (Vec<_>, Vec<_>) = pairs.partition(|pair| is_theirs(&decoded_name(pair)));
        let address = match theirs.join("&") {
            theirs if theirs.is_empty() => address.to_owned(),
            theirs => format!("{address}?{theirs}"),
        };
        // What sqlx says of a URL may quote it, and with it the password.
        let refused = |_: sqlx::Error| {
            Error::config(
                "the URL of the database cannot be read: look at host, port, sslmode, and at characters that have to be written as %XX",
            )
        };
        let mut config = if known == POSTGRES_OPTIONS {
            SqlConfig::postgres(PgConnectOptions::from_str(&address).map_err(refused)?)
        } else {
            let address = address.replacen("mariadb://", "mysql://", 1);
            SqlConfig::mysql(MySqlConnectOptions::from_str(&address).map_err(refused)?)
        };
        let mut symfony = SymfonyOptions::default();
        for pair in ours {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            config.set(&name, &value, query, &mut symfony)?;
        }
        symfony.apply(&mut config)?;
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str, query: &str, symfony: &mut SymfonyOptions) -> Result<()> {
        // Whatever stands behind a `?` in a password becomes a value or a name here: neither is repeated as it is.
        let bad = || Error::config(format!("the option `{name}` of an SQL URL cannot have this value"));
        let number = || value.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(bad);
        let seconds = || number().map(|seconds| Duration::from_secs(u64::from(seconds)));
        match name {
            "layout" => symfony.layout = Some(value.to_owned()),
            "lock" => {
                symfony.lock = Some(match value {
                    "none" => LockMode::None,
                    "advisory" => LockMode::Advisory,
                    "transactional" => LockMode::Transactional,
                    _ => return Err(bad()),
                });
            }
            "expiry" => {
                symfony.expiry = Some(match value {
                    "absolute" => Expiry::Absolute,
                    "duration" => Expiry::Duration,
                    "mixed" => Expiry::Mixed,
                    _ => return Err(bad()),
                });
            }
            "id_col" | "data_col" | "lifetime_col" | "time_col" => {
                symfony.columns.push((name.to_owned(), value.to_owned()));
            }
            "table" => self.table = Some(value.to_owned()),
            "pool" => self.connections = number()?,
            "lock_pool" => self.lock_connections = number()?,
            "lifetime" => self.lifetime = seconds()?,
            "lease" => self.lease = seconds()?,
            "max_payload" => self.max_payload = value.parse().map_err(|_| bad())?,
            "max_aside" => self.max_aside = value.parse().map_err(|_| bad())?,
            "aside_lifetime" => self.aside_lifetime = seconds()?,
            "migrate" => {
                self.migrate = Some(match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(bad()),
                });
            }
            _ => return Err(Error::unknown_option("an SQL URL", name, query)),
        }
        Ok(())
    }

    /// Which table, with which columns and locks. [`Layout::Native`] unless told otherwise.
    pub fn layout(self, layout: impl Into<Layout>) -> SqlConfig {
        SqlConfig { layout: layout.into(), ..self }
    }

    /// The table's name, with its schema before a dot where need be; else the layout's own: `cloakroom_sessions`, or
    /// Symfony's `sessions`.
    pub fn table(self, table: impl Into<String>) -> SqlConfig {
        SqlConfig { table: Some(table.into()), ..self }
    }

    /// How many connections are open at most: `all` for single statements, and as many as `locks` more for what
    /// waits for or holds a lock in Symfony's locking modes. 16 and 16.
    pub fn connections(self, all: u32, locks: u32) -> SqlConfig {
        SqlConfig { connections: all.max(1), lock_connections: locks.max(1), ..self }
    }

    /// The life of a record that was made by locking it and has not been written yet; PHP's
    /// `session.gc_maxlifetime`.
    pub fn lifetime(self, lifetime: Duration) -> SqlConfig {
        SqlConfig { lifetime, ..self }
    }

    /// After how long a lock is free whose holder died. A holder that lives renews it three times as often; in
    /// Symfony's locking modes, where a lock ends with its connection, that is how often the connection is tried.
    pub fn lease(self, lease: Duration) -> SqlConfig {
        SqlConfig { lease: lease.max(Duration::from_millis(100)), ..self }
    }

    /// The largest payload in bytes: 8 MiB, or less where the column or the server's `max_allowed_packet` is smaller.
    pub fn max_payload(self, max_payload: usize) -> SqlConfig {
        SqlConfig { max_payload, ..self }
    }

    /// Whether missing tables are made. Unless told otherwise they are in the native layout, and are not in
    /// Symfony's, whose table is the application's.
    pub fn migrate(self, migrate: bool) -> SqlConfig {
        SqlConfig { migrate: Some(migrate), ..self }
    }

    /// How many payloads that were set aside are kept at most, and for how long.
    pub fn aside(self, max_aside: u32, aside_lifetime: Duration) -> SqlConfig {
        SqlConfig { max_aside, aside_lifetime, ..self }
    }

    pub(crate) fn migrates(&self) -> bool {
        self.migrate.unwrap_or(matches!(self.layout, Layout::Native))
    }
}

impl fmt::Debug for SqlConfig {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = match self.server {
            Server::Postgres(_) => "PostgreSQL",
            Server::MySql(_) => "MySQL",
        };
        f.debug_struct("SqlConfig")
            .field("server", &server)
            .field("layout", &self.layout)
            .field("connections", &(self.connections, self.lock_connections))
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// What a URL says of Symfony's layout; `layout=` may stand after it.
#[derive(Default)]
struct SymfonyOptions {
    layout: Option<String>,
    lock: Option<LockMode>,
    expiry: Option<Expiry>,
    columns: Vec<(String, String)>,
}

impl SymfonyOptions {
    fn apply(self, config: &mut SqlConfig) -> Result<()> {
        match self.layout.as_deref() {
            None | Some("native") => {
                let stray = self.lock.map(|_| "lock").or(self.expiry.map(|_| "expiry"));
                match stray.or(self.columns.first().map(|(name, _)| name.as_str())) {
                    Some(name) => {
                        Err(Error::config(format!("the option `{name}` of an SQL URL belongs to `layout=symfony`")))
                    }
                    None => Ok(()),
                }
            }
            Some("symfony") => {
                let mut symfony = Symfony::default();
                symfony.lock = self.lock.unwrap_or(symfony.lock);
                symfony.expiry = self.expiry.unwrap_or(symfony.expiry);
                for (name, value) in self.columns {
                    match name.as_str() {
                        "id_col" => symfony.id_col = value,
                        "data_col" => symfony.data_col = value,
                        "lifetime_col" => symfony.lifetime_col = value,
                        _ => symfony.time_col = value,
                    }
                }
                config.layout = Layout::Symfony(symfony);
                Ok(())
            }
            Some(_) => Err(Error::config("the option `layout` of an SQL URL is `native` or `symfony`")),
        }
    }
}

fn no_scheme() -> Error {
    Error::config("the URL of an SQL store begins with postgres://, postgresql://, mysql:// or mariadb://")
}

fn decoded_name(pair: &str) -> String {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    decode(name).unwrap_or_else(|_| name.to_owned())
}

/// `%XX`, and `+` for a space, as in any query.
fn decode(text: &str) -> Result<String> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(not_decoded)?;
                rest = &rest[2..];
                value
            }
            byte => byte,
        });
    }
    String::from_utf8(out).map_err(|_| not_decoded())
}

fn not_decoded() -> Error {
    Error::config("an option of an SQL URL has a `%` that is not followed by the two digits of a character")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    fn symfony(url: &str) -> Symfony {
        match SqlConfig::from_url(url).unwrap().layout {
            Layout::Symfony(symfony) => symfony,
            Layout::Native => panic!("{url} is native"),
        }
    }

    #[test]
    fn reads_its_url() {
        let url =
            "postgresql://u:p@h:5433/db?sslmode=disable&pool=3&lock_pool=4&options[search_path]=app&max_payload=9";
        let config = SqlConfig::from_url(url).unwrap();
        let Server::Postgres(options) = &config.server else { panic!() };
        assert_eq!((options.get_host(), options.get_port(), options.get_database()), ("h", 5433, Some("db")));
        assert_eq!(options.get_options(), Some("-c search_path=app"));
        assert_eq!((config.connections, config.lock_connections, config.max_payload), (3, 4, 9));
        assert!(config.migrates());
    }

    #[test]
    fn a_unix_socket_is_an_address() {
        let config = SqlConfig::from_url("mariadb://app@localhost/shop?socket=%2Frun%2Fmysqld%2Fmysqld.sock").unwrap();
        let Server::MySql(options) = &config.server else { panic!() };
        assert_eq!(options.get_socket().unwrap(), &std::path::PathBuf::from("/run/mysqld/mysqld.sock"));
        let config = SqlConfig::from_url("postgres:///shop?host=/run/postgresql").unwrap();
        let Server::Postgres(options) = &config.server else { panic!() };
        assert_eq!(options.get_socket().unwrap(), &std::path::PathBuf::from("/run/postgresql"));
    }

    #[test]
    fn symfonys_options_may_stand_anywhere() {
        let found = symfony("mysql://h/db?lock=advisory&id_col=id&layout=symfony&expiry=duration&time_col=t");
        assert_eq!((found.lock, found.expiry), (LockMode::Advisory, Expiry::Duration));
        assert_eq!((found.id_col.as_str(), found.data_col.as_str()), ("id", "sess_data"));
        assert_eq!((found.lifetime_col.as_str(), found.time_col.as_str()), ("sess_lifetime", "t"));
        assert_eq!(symfony("mysql://h/db?layout=symfony").lock, LockMode::Transactional);
    }

    #[test]
    fn refuses_what_it_does_not_know_by_its_name_alone() {
        for (option, name) in [
            ("sock=/x", "`sock`"),
            ("layout=laravel", "`layout`"),
            ("lock=none", "`lock`"),
            ("layout=symfony&lock=row", "`lock`"),
            ("layout=symfony&expiry=never", "`expiry`"),
            ("data_col=x", "`data_col`"),
            ("pool=0", "`pool`"),
            ("migrate=maybe", "`migrate`"),
            ("sslmode=sometimes", "sslmode"),
        ] {
            for scheme in ["postgres", "mysql"] {
                let error = SqlConfig::from_url(&format!("{scheme}://bob:hunter2@h/db?{option}")).unwrap_err();
                let text = format!("{error:?}");
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(text.contains(name), "{option}: {text}");
                assert!(!text.contains("hunter2") && !text.contains("bob"), "{text}");
            }
        }
        for url in [
            "sqlite://x",
            "postgres",
            "postgres://u:hunter2@h:port/db",
            "mysql://u:hunter2@h/db#x?pool=1",
            "postgres://u:12?hunter2@h/db",
            "mysql://u:12?pool=hunter2@h/db",
            "mysql://u:12?HUNTER2",
        ] {
            let error = SqlConfig::from_url(url).unwrap_err();
            assert!(!format!("{error:?}").to_lowercase().contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let config = SqlConfig::from_url("postgres://bob:hunter2@h/db").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
