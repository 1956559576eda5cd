//! The settings of the store, from a URL or one by one.

use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::{Error, Result};

use crate::layout::{Expiry, Layout, LockMode, Symfony};

/// A value of SQLite's has at most 1,000,000,000 bytes, and a row with its other columns no more than that either.
const MOST_PAYLOAD: usize = 999_000_000;

/// What survives a loss of power. The end of the process, `kill -9` included, is always covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// SQLite's `synchronous=NORMAL`: the database stays whole; the last commits before the loss, a logout among them,
    /// may be undone, back to the last checkpoint.
    #[default]
    Normal,
    /// SQLite's `synchronous=FULL`: every commit that was answered, at the price of a flush for each group of them.
    Full,
}

/// The settings of a [`SqliteStore`](crate::SqliteStore).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SqliteConfig {
    pub(crate) path: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) table: Option<String>,
    pub(crate) busy: Duration,
    pub(crate) synchronous: Synchronous,
    pub(crate) lifetime: Duration,
    pub(crate) lease: Duration,
    pub(crate) max_payload: usize,
    pub(crate) migrate: Option<bool>,
    pub(crate) max_aside: u32,
    pub(crate) aside_lifetime: Duration,
    pub(crate) readers: usize,
}

impl SqliteConfig {
    /// The database in this file, which is made if it is not there; its directory has to be.
    pub fn new(path: impl Into<PathBuf>) -> SqliteConfig {
        SqliteConfig {
            path: path.into(),
            layout: Layout::Native,
            table: None,
            busy: Duration::from_secs(5),
            synchronous: Synchronous::Normal,
            lifetime: Duration::from_secs(1440),
            lease: Duration::from_secs(15),
            max_payload: 8 << 20,
            migrate: None,
            max_aside: 32,
            aside_lifetime: Duration::from_secs(24 * 60 * 60),
            readers: 8,
        }
    }

    /// Takes a URL: `sqlite://sessions.db` for a file in the working directory, `sqlite:///var/lib/app/sessions.db` for
    /// one anywhere, and the options of the README after a question mark.
    ///
    /// ```
    /// use cloakroom_store_sqlite::{Layout, SqliteConfig, Symfony, Synchronous};
    /// let config = SqliteConfig::from_url("sqlite:///srv/my%20sessions.db?synchronous=full")?;
    /// assert_eq!(config, SqliteConfig::new("/srv/my sessions.db").synchronous(Synchronous::Full));
    /// let config = SqliteConfig::from_url("sqlite://app.db?layout=symfony&table=php_sessions")?;
    /// assert_eq!(config, SqliteConfig::new("app.db").layout(Symfony::default()).table("php_sessions"));
    /// assert!(SqliteConfig::from_url("sqlite://app.db?layuot=symfony").is_err());
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<SqliteConfig> {
        let rest = url.strip_prefix("sqlite://").ok_or_else(|| Error::config("an SQLite URL begins with sqlite://"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if path.contains('#') || query.contains('#') {
            return Err(Error::config("a `#` in an SQLite URL has to be written as %23"));
        }
        let path = percent_decode(path)?;
        match path.as_slice() {
            b"" | b"/" => return Err(Error::config("an SQLite URL names a file: sqlite:///var/lib/app/sessions.db")),
            b":memory:" => {
                return Err(Error::config("SQLite in memory is no store for sessions: use the store `memory:`"));
            }
            _ => {}
        }
        let mut config = SqliteConfig::new(to_path(&path)?);
        let mut symfony = SymfonyOptions::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = String::from_utf8(percent_decode(value)?)
                .map_err(|_| Error::config(format!("the option `{name}` of an SQLite URL is no text")))?;
            config.set(name, &value, &mut symfony)?;
        }
        symfony.apply(&mut config)?;
        config.checked()
    }

    fn set(&mut self, name: &str, value: &str, symfony: &mut SymfonyOptions) -> Result<()> {
        let bad = || Error::config(format!("the option `{name}` of an SQLite URL cannot be `{value}`"));
        let number = || value.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(bad);
        let seconds = || number().map(|seconds| Duration::from_secs(u64::from(seconds)));
        match name {
            "layout" => symfony.layout = Some(value.to_owned()),
            "lock" => {
                symfony.lock = Some(match value {
                    "none" => LockMode::None,
                    "transactional" => LockMode::Transactional,
                    "advisory" => {
                        return Err(Error::config(
                            "SQLite has no advisory locks, and Symfony's handler refuses `lock=advisory` as well",
                        ));
                    }
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
            "busy" => self.busy = Duration::from_millis(u64::from(number()?)),
            "synchronous" => {
                self.synchronous = match value {
                    "normal" => Synchronous::Normal,
                    "full" => Synchronous::Full,
                    _ => return Err(bad()),
                };
            }
            "lifetime" => self.lifetime = seconds()?,
            "lease" => self.lease = seconds()?,
            "max_payload" => self.max_payload = value.parse().map_err(|_| bad())?,
            "max_aside" => self.max_aside = value.parse().map_err(|_| bad())?,
            "aside_lifetime" => self.aside_lifetime = seconds()?,
            "readers" => self.readers = number()? as usize,
            "migrate" => {
                self.migrate = Some(match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(bad()),
                });
            }
            _ => return Err(Error::config(format!("an SQLite URL has no option `{name}`"))),
        }
        Ok(())
    }

    pub(crate) fn checked(self) -> Result<SqliteConfig> {
        if self.max_payload > MOST_PAYLOAD {
            return Err(Error::config(format!("SQLite takes no payload of more than {MOST_PAYLOAD} bytes")));
        }
        Ok(self)
    }

    /// Which table, with which columns and locks. [`Layout::Native`] unless told otherwise.
    pub fn layout(self, layout: impl Into<Layout>) -> SqliteConfig {
        SqliteConfig { layout: layout.into(), ..self }
    }

    /// The table's name; else the layout's own: `cloakroom_sessions`, or Symfony's `sessions`.
    pub fn table(self, table: impl Into<String>) -> SqliteConfig {
        SqliteConfig { table: Some(table.into()), ..self }
    }

    /// How long what is no request (opening, sweeping, giving back a lock) waits for another process that has the database
    /// locked. Requests have their own limits.
    pub fn busy(self, busy: Duration) -> SqliteConfig {
        SqliteConfig { busy, ..self }
    }

    /// What survives a loss of power.
    pub fn synchronous(self, synchronous: Synchronous) -> SqliteConfig {
        SqliteConfig { synchronous, ..self }
    }

    /// The life of a record that was made by locking it and has not been written yet; PHP's `session.gc_maxlifetime`.
    pub fn lifetime(self, lifetime: Duration) -> SqliteConfig {
        SqliteConfig { lifetime, ..self }
    }

    /// After how long a lock of the native layout is free whose holder died. A holder that lives renews it three times as
    /// often.
    pub fn lease(self, lease: Duration) -> SqliteConfig {
        SqliteConfig { lease: lease.max(Duration::from_millis(100)), ..self }
    }

    /// The largest payload in bytes. SQLite itself takes nearly 1,000,000,000.
    pub fn max_payload(self, max_payload: usize) -> SqliteConfig {
        SqliteConfig { max_payload, ..self }
    }

    /// Whether missing tables are made. Unless told otherwise they are in the native layout, and are not in Symfony's,
    /// whose table is the application's.
    pub fn migrate(self, migrate: bool) -> SqliteConfig {
        SqliteConfig { migrate: Some(migrate), ..self }
    }

    /// How many payloads that were set aside are kept at most, and for how long.
    pub fn aside(self, max_aside: u32, aside_lifetime: Duration) -> SqliteConfig {
        SqliteConfig { max_aside, aside_lifetime, ..self }
    }

    /// How many connections read at the same time at most.
    pub fn readers(self, readers: usize) -> SqliteConfig {
        SqliteConfig { readers: readers.max(1), ..self }
    }

    pub(crate) fn migrates(&self) -> bool {
        self.migrate.unwrap_or(matches!(self.layout, Layout::Native))
    }

    pub(crate) fn table_name(&self) -> &str {
        self.table.as_deref().unwrap_or(self.layout.default_table())
    }

    /// The layout's lock is a transaction of the whole database.
    pub(crate) fn is_transactional(&self) -> bool {
        matches!(&self.layout, Layout::Symfony(symfony) if symfony.lock == LockMode::Transactional)
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
    fn apply(self, config: &mut SqliteConfig) -> Result<()> {
        match self.layout.as_deref() {
            None | Some("native") => {
                let stray = self.lock.map(|_| "lock").or(self.expiry.map(|_| "expiry"));
                match stray.or(self.columns.first().map(|(name, _)| name.as_str())) {
                    Some(name) => {
                        Err(Error::config(format!("the option `{name}` of an SQLite URL belongs to `layout=symfony`")))
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
            Some(_) => Err(Error::config("the option `layout` of an SQLite URL is `native` or `symfony`")),
        }
    }
}

#[cfg(unix)]
fn to_path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    if bytes.contains(&0) {
        return Err(Error::config("the path of an SQLite URL holds a NUL"));
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> Result<PathBuf> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::config("the path of an SQLite URL is no text"))?;
    Ok(PathBuf::from(text))
}

fn percent_decode(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(value.ok_or_else(|| Error::config("an SQLite URL holds a % without two hexadecimal digits"))?);
        rest = &rest[2..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    #[test]
    fn reads_its_url() {
        let url = "sqlite:///a%2Fb.db?table=t&busy=70&synchronous=full&lifetime=60&lease=3&max_payload=9&migrate=no\
                   &max_aside=2&aside_lifetime=5&readers=3";
        let expect = SqliteConfig::new("/a/b.db")
            .table("t")
            .busy(Duration::from_millis(70))
            .synchronous(Synchronous::Full)
            .lifetime(Duration::from_secs(60))
            .lease(Duration::from_secs(3))
            .max_payload(9)
            .migrate(false)
            .aside(2, Duration::from_secs(5))
            .readers(3);
        assert_eq!(SqliteConfig::from_url(url).unwrap(), expect);
        assert_eq!(SqliteConfig::from_url("sqlite://sessions.db").unwrap(), SqliteConfig::new("sessions.db"));
        assert_eq!(SqliteConfig::from_url("sqlite://var/s.db?").unwrap(), SqliteConfig::new("var/s.db"));
    }

    #[test]
    fn symfonys_options_may_stand_anywhere() {
        let config = SqliteConfig::from_url("sqlite://a?lock=none&id_col=i&layout=symfony&expiry=absolute&time_col=t");
        let Layout::Symfony(found) = config.unwrap().layout else { panic!("it is Symfony's") };
        assert_eq!((found.lock, found.expiry), (LockMode::None, Expiry::Absolute));
        assert_eq!((found.id_col.as_str(), found.data_col.as_str()), ("i", "sess_data"));
        assert_eq!((found.lifetime_col.as_str(), found.time_col.as_str()), ("sess_lifetime", "t"));
        assert!(!SqliteConfig::new("a").is_transactional());
        assert!(SqliteConfig::from_url("sqlite://a?layout=symfony").unwrap().is_transactional());
    }

    #[test]
    fn refuses_what_it_does_not_know_by_its_name() {
        for (option, name) in [
            ("layuot=native", "`layuot`"),
            ("layout=laravel", "`layout`"),
            ("lock=none", "`lock`"),
            ("layout=symfony&lock=advisory", "advisory"),
            ("layout=symfony&lock=row", "`lock`"),
            ("layout=symfony&expiry=never", "`expiry`"),
            ("data_col=x", "`data_col`"),
            ("busy=0", "`busy`"),
            ("synchronous=off", "`synchronous`"),
            ("max_payload=1000000000", "999000000"),
            ("readers", "`readers`"),
            ("migrate=maybe", "`migrate`"),
            ("lease=%zz", "%"),
        ] {
            let error = SqliteConfig::from_url(&format!("sqlite://a.db?{option}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{option}");
            assert!(error.to_string().contains(name), "{option}: {error}");
        }
        for url in ["sqlite:a.db", "sqlite://", "sqlite:///", "sqlite://:memory:", "sqlite://a#b", "sqlite://a%0", "x"]
        {
            assert_eq!(SqliteConfig::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
        assert_eq!(SqliteConfig::from_url("sqlite://a%00b").unwrap_err().kind(), ErrorKind::Config);
    }
}
