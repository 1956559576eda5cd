//! Every `session.*` setting under PHP's own name, with PHP's checks (`ext/session/session.c`, `PHP_INI`), and the
//! presets.

mod ini;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use cloakroom_php::{Format, Options, Precision};

use crate::cookie::is_sendable_name;
use crate::id::LONGEST;
use crate::{Error, Result};

/// The largest `cookie_lifetime` that PHP obeys; above it, it leaves the setting as it was.
const LONGEST_COOKIE: i64 = i64::MAX - i32::MAX as i64 - 1;

/// How sessions are kept and cookies are sent: PHP's settings, and a few of cloakroom's own.
///
/// [`Settings::php`] is the default. The fields are PHP's `session.*` settings, less that prefix.
///
/// ```
/// use cloakroom_core::Settings;
/// let mut settings = Settings::php();
/// settings.set("session.gc_maxlifetime", "3600")?;
/// settings.cookie_secure = true;
/// # Ok::<(), cloakroom_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Which handler keeps the sessions: `files`, `redis`, …
    pub save_handler: String,
    /// Where it keeps them, in the handler's own PHP syntax; empty is the system's directory for temporary files.
    pub save_path: String,
    /// The cookie's name.
    pub name: String,
    /// How a session is written.
    pub serialize_handler: Format,
    /// With [`gc_divisor`](Settings::gc_divisor): how often a new session lets expired ones be swept away, beside
    /// the request and never in it. 0 turns it off.
    pub gc_probability: i64,
    /// See [`gc_probability`](Settings::gc_probability).
    pub gc_divisor: i64,
    /// For how many seconds a session lives that nobody uses.
    pub gc_maxlifetime: i64,
    /// Leave the record of an unchanged session alone but for its life.
    pub lazy_write: bool,
    /// Refuse ids that the store does not know.
    pub use_strict_mode: bool,
    /// Take the id from the cookie and send it.
    pub use_cookies: bool,
    /// Take it from nowhere else. Only the PHP facade knows of anything else.
    pub use_only_cookies: bool,
    /// Accepted and without effect: cloakroom never writes ids into pages.
    pub use_trans_sid: bool,
    /// Accepted and without effect, as in PHP with its default settings.
    pub referer_check: String,
    /// For how many seconds the browser keeps the cookie; 0 is until it is closed.
    pub cookie_lifetime: i64,
    /// The cookie's `path`.
    pub cookie_path: String,
    /// The cookie's `domain`; empty is the host alone.
    pub cookie_domain: String,
    /// Send the cookie over TLS only.
    pub cookie_secure: bool,
    /// Hide the cookie from scripts.
    pub cookie_httponly: bool,
    /// The cookie's `SameSite`; empty sends none.
    pub cookie_samesite: String,
    /// Which headers keep caches from mixing visitors up: `nocache`, `public`, `private`, `private_no_expire`, or
    /// anything else for none.
    pub cache_limiter: String,
    /// For how many minutes a cache may keep a page, where the limiter lets it.
    pub cache_expire: i64,
    /// How many characters a new id has: 22 to 256.
    pub sid_length: u32,
    /// How many bits each of them carries: 4 to 6.
    pub sid_bits_per_character: u32,
    /// PHP's `session.upload_progress.enabled`. cloakroom never writes upload progress; since PHP 8.2.36 the setting
    /// also forbids to change others at run time, which the PHP facade obeys.
    pub upload_progress_enabled: bool,
    /// How PHP writes floating-point numbers: -1 for the shortest text that reads back equal, or 0 to 17 digits.
    pub serialize_precision: i64,
    /// Settings of handlers (`redis.session.*`, `memcached.*`) and those without effect here, by their full name.
    pub other: BTreeMap<String, String>,
    /// How long one request may talk to the store in all, where it is talked to: over a network, not on a local file
    /// system. cloakroom's own; 250 ms.
    pub io_timeout: Duration,
    /// How long `start` waits for others. cloakroom's own; 30 s.
    pub start_wait: Duration,
    /// How long `update`, `rotate` and `destroy` wait for others. cloakroom's own; 5 s.
    pub update_wait: Duration,
    /// For how long an id that [`rotate`](crate::Session::rotate) has replaced still leads to the new one.
    /// cloakroom's own; 10 s.
    pub rotation_grace: Duration,
    /// The largest session in bytes. cloakroom's own; 16 MiB.
    pub max_size: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::php()
    }
}

impl Settings {
    /// PHP's defaults with the hardening that its manual recommends (and PHP 8.6 turns on): strict mode, `HttpOnly`,
    /// `SameSite=Lax`.
    pub fn php() -> Settings {
        Settings {
            use_strict_mode: true,
            cookie_httponly: true,
            cookie_samesite: "Lax".into(),
            ..Settings::php_defaults()
        }
    }

    /// What PHP 8.4 does without any php.ini, to the letter.
    pub fn php_defaults() -> Settings {
        Settings {
            save_handler: "files".into(),
            save_path: String::new(),
            name: "PHPSESSID".into(),
            serialize_handler: Format::Php,
            gc_probability: 1,
            gc_divisor: 100,
            gc_maxlifetime: 1440,
            lazy_write: true,
            use_strict_mode: false,
            use_cookies: true,
            use_only_cookies: true,
            use_trans_sid: false,
            referer_check: String::new(),
            cookie_lifetime: 0,
            cookie_path: "/".into(),
            cookie_domain: String::new(),
            cookie_secure: false,
            cookie_httponly: false,
            cookie_samesite: String::new(),
            cache_limiter: "nocache".into(),
            cache_expire: 180,
            sid_length: 32,
            sid_bits_per_character: 4,
            upload_progress_enabled: false,
            serialize_precision: -1,
            other: BTreeMap::new(),
            io_timeout: Duration::from_millis(250),
            start_wait: Duration::from_secs(30),
            update_wait: Duration::from_secs(5),
            rotation_grace: Duration::from_secs(10),
            max_size: 16 << 20,
        }
    }

    /// PHP's defaults, changed by what a php.ini says of `session.*`; the rest of the file is passed over.
    /// `${NAME}` is an earlier setting of the file or a variable of the environment.
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) names the first line with a value that PHP would refuse.
    ///
    /// ```
    /// use cloakroom_core::Settings;
    /// let settings = Settings::from_ini("[Session]\nsession.name = SHOP ; not PHPSESSID\nsession.use_strict_mode = On\n")?;
    /// assert_eq!((settings.name.as_str(), settings.use_strict_mode), ("SHOP", true));
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_ini(text: &str) -> Result<Settings> {
        let mut settings = Settings::php_defaults();
        for line in ini::lines(text, |name| std::env::var(name).ok()) {
            if is_known(&line.name) {
                let set = settings.set(&line.name, &line.value);
                set.map_err(|error| Error::config(format!("php.ini line {}: {error}", line.number)))?;
            }
        }
        Ok(settings)
    }

    /// [`from_ini`](Settings::from_ini) of a file.
    pub fn from_ini_file(path: impl AsRef<Path>) -> Result<Settings> {
        let path = path.as_ref();
        let text = std::fs::read(path)
            .map_err(|error| Error::config(format!("read {}", path.display())).with_source(error))?;
        Settings::from_ini(&String::from_utf8_lossy(&text))
    }

    /// Sets one setting by its full PHP name to what a php.ini would say, with PHP's checks.
    ///
    /// A value that PHP refuses is [`ErrorKind::Config`](crate::ErrorKind::Config), and the former value stays.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let refuse = |why: &str| Err(Error::config(format!("{name}: {why}")));
        match name {
            "session.save_handler" => match value.to_ascii_lowercase().as_str() {
                handler @ ("files" | "redis" | "rediscluster" | "memcached") => self.save_handler = handler.into(),
                _ => return refuse("no such save handler"),
            },
            "session.save_path" if value.contains('\0') => return refuse("must not contain any null bytes"),
            "session.save_path" => self.save_path = value.into(),
            "session.name" if value.is_empty() || ini::is_numeric(value) => {
                return refuse("cannot be numeric or empty");
            }
            "session.name" => self.name = until_nul(value),
            "session.serialize_handler" => match Format::from_name(value) {
                Some(format) => self.serialize_handler = format,
                None => return refuse("no such serialization handler"),
            },
            "session.gc_probability" => self.gc_probability = ini::quantity(value),
            "session.gc_divisor" => self.gc_divisor = ini::quantity(value),
            "session.gc_maxlifetime" => self.gc_maxlifetime = ini::quantity(value),
            "session.lazy_write" => self.lazy_write = ini::boolean(value),
            "session.use_strict_mode" => self.use_strict_mode = ini::boolean(value),
            "session.use_cookies" => self.use_cookies = ini::boolean(value),
            "session.use_only_cookies" => self.use_only_cookies = ini::boolean(value),
            "session.use_trans_sid" => self.use_trans_sid = ini::boolean(value),
            "session.referer_check" => self.referer_check = value.into(),
            "session.cookie_lifetime" => match ini::leading_integer(value) {
                negative if negative < 0 => return refuse("cannot be negative"),
                lifetime if lifetime > LONGEST_COOKIE => {}
                _ => self.cookie_lifetime = ini::quantity(value),
            },
            "session.cookie_path" => self.cookie_path = until_nul(value),
            "session.cookie_domain" => self.cookie_domain = until_nul(value),
            "session.cookie_secure" => self.cookie_secure = ini::boolean(value),
            "session.cookie_httponly" => self.cookie_httponly = ini::boolean(value),
            "session.cookie_samesite" => self.cookie_samesite = until_nul(value),
            "session.cache_limiter" => self.cache_limiter = value.into(),
            "session.cache_expire" => self.cache_expire = ini::quantity(value),
            "session.sid_length" => match value.trim_start().parse() {
                Ok(length @ 22..=256) => self.sid_length = length,
                _ => return refuse("must be between 22 and 256"),
            },
            "session.sid_bits_per_character" => match value.trim_start().parse() {
                Ok(bits @ 4..=6) => self.sid_bits_per_character = bits,
                _ => return refuse("must be between 4 and 6"),
            },
            "session.upload_progress.enabled" => self.upload_progress_enabled = ini::boolean(value),
            "serialize_precision" => match ini::quantity(value) {
                precision if precision < -1 => return refuse("must be -1 or more"),
                precision => self.serialize_precision = precision,
            },
            _ if is_known(name) => _ = self.other.insert(name.into(), value.into()),
            _ => return refuse("no such setting"),
        }
        Ok(())
    }

    /// A setting as PHP's `ini_get` gives it, or `None` for one that PHP does not have.
    pub fn get(&self, name: &str) -> Option<String> {
        let flag = |flag: bool| String::from(if flag { "1" } else { "0" });
        Some(match name {
            "session.save_handler" => self.save_handler.clone(),
            "session.save_path" => self.save_path.clone(),
            "session.name" => self.name.clone(),
            "session.serialize_handler" => self.serialize_handler.name().into(),
            "session.gc_probability" => self.gc_probability.to_string(),
            "session.gc_divisor" => self.gc_divisor.to_string(),
            "session.gc_maxlifetime" => self.gc_maxlifetime.to_string(),
            "session.lazy_write" => flag(self.lazy_write),
            "session.use_strict_mode" => flag(self.use_strict_mode),
            "session.use_cookies" => flag(self.use_cookies),
            "session.use_only_cookies" => flag(self.use_only_cookies),
            "session.use_trans_sid" => flag(self.use_trans_sid),
            "session.referer_check" => self.referer_check.clone(),
            "session.cookie_lifetime" => self.cookie_lifetime.to_string(),
            "session.cookie_path" => self.cookie_path.clone(),
            "session.cookie_domain" => self.cookie_domain.clone(),
            "session.cookie_secure" => flag(self.cookie_secure),
            "session.cookie_httponly" => flag(self.cookie_httponly),
            "session.cookie_samesite" => self.cookie_samesite.clone(),
            "session.cache_limiter" => self.cache_limiter.clone(),
            "session.cache_expire" => self.cache_expire.to_string(),
            "session.sid_length" => self.sid_length.to_string(),
            "session.sid_bits_per_character" => self.sid_bits_per_character.to_string(),
            "session.upload_progress.enabled" => flag(self.upload_progress_enabled),
            "serialize_precision" => self.serialize_precision.to_string(),
            _ => match self.other.get(name) {
                Some(value) => value.clone(),
                None => HANDLERS.iter().find(|(known, _)| *known == name)?.1.into(),
            },
        })
    }

    /// All settings with a field of their own, by name, as PHP would be told of them in a php.ini or by `-d`.
    pub fn ini(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        NAMES.iter().filter_map(|&name| Some((name, self.get(name)?)))
    }

    /// Finds what PHP lets pass and a service should not start with: a cookie name that no cookie can have,
    /// attributes that would break the header, ids that can be guessed.
    pub fn check(&self) -> Result<()> {
        if !is_sendable_name(&self.name) || !self.name.is_ascii() {
            return Err(Error::config("session.name: no cookie can have this name"));
        }
        let attributes = [
            ("session.cookie_path", &self.cookie_path),
            ("session.cookie_domain", &self.cookie_domain),
            ("session.cookie_samesite", &self.cookie_samesite),
        ];
        for (name, value) in attributes {
            if value.contains(|c: char| c == ';' || c.is_control()) {
                return Err(Error::config(format!("{name}: would break the Set-Cookie header")));
            }
        }
        if !matches!(self.cookie_samesite.to_ascii_lowercase().as_str(), "" | "lax" | "strict" | "none") {
            return Err(Error::config("session.cookie_samesite: is Lax, Strict, None or empty"));
        }
        if self.name.starts_with("__Secure-") && !self.cookie_secure {
            return Err(Error::config("session.name: browsers take a __Secure- cookie only with cookie_secure"));
        }
        let host_only = self.cookie_secure && self.cookie_domain.is_empty() && self.cookie_path == "/";
        if self.name.starts_with("__Host-") && !host_only {
            return Err(Error::config(
                "session.name: browsers take a __Host- cookie only with cookie_secure, path / and no domain",
            ));
        }
        if u64::from(self.sid_length) * u64::from(self.sid_bits_per_character) < 128 {
            return Err(Error::config("session.sid_length: ids of less than 128 bits can be guessed"));
        }
        if usize::try_from(self.sid_length).map_or(true, |length| length > LONGEST) {
            return Err(Error::config(format!(
                "session.sid_length: ids of more than {LONGEST} characters never come back"
            )));
        }
        if self.gc_maxlifetime <= 0 {
            return Err(Error::config("session.gc_maxlifetime: sessions would be dead when they are born"));
        }
        Ok(())
    }

    /// How values are written.
    pub(crate) fn php_options(&self) -> Options {
        let digits = u8::try_from(self.serialize_precision);
        Options::default().serialize_precision(digits.map_or(Precision::Shortest, Precision::Digits))
    }

    /// For how long a session lives that nobody uses.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.gc_maxlifetime).unwrap_or(0))
    }
}

impl fmt::Debug for Settings {
    /// Without `save_path` and the handlers' own settings, in which passwords may stand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { io_timeout, start_wait, update_wait, rotation_grace, max_size, .. } = self;
        let named = NAMES.iter().filter(|name| **name != "session.save_path");
        f.debug_map()
            .entries(named.filter_map(|name| Some((name, self.get(name)?))))
            .entry(&"io_timeout", io_timeout)
            .entry(&"start_wait", start_wait)
            .entry(&"update_wait", update_wait)
            .entry(&"rotation_grace", rotation_grace)
            .entry(&"max_size", max_size)
            .finish()
    }
}

impl fmt::Display for Settings {
    /// As a php.ini would say it, one `session.*` setting a line; `save_path` may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ini().try_for_each(|(name, value)| writeln!(f, "{name} = \"{value}\""))
    }
}

/// The settings with a field of their own.
const NAMES: [&str; 25] = [
    "session.save_handler",
    "session.save_path",
    "session.name",
    "session.serialize_handler",
    "session.gc_probability",
    "session.gc_divisor",
    "session.gc_maxlifetime",
    "session.lazy_write",
    "session.use_strict_mode",
    "session.use_cookies",
    "session.use_only_cookies",
    "session.use_trans_sid",
    "session.referer_check",
    "session.cookie_lifetime",
    "session.cookie_path",
    "session.cookie_domain",
    "session.cookie_secure",
    "session.cookie_httponly",
    "session.cookie_samesite",
    "session.cache_limiter",
    "session.cache_expire",
    "session.sid_length",
    "session.sid_bits_per_character",
    "session.upload_progress.enabled",
    "serialize_precision",
];

/// Settings that PHP takes from its ini files only.
const PER_DIRECTORY: [&str; 7] = [
    "session.auto_start",
    "session.upload_progress.enabled",
    "session.upload_progress.cleanup",
    "session.upload_progress.prefix",
    "session.upload_progress.name",
    "session.upload_progress.freq",
    "session.upload_progress.min_freq",
];

/// Settings that are kept as text.
const OTHERS: [&str; 4] =
    ["session.trans_sid_tags", "session.trans_sid_hosts", "unserialize_max_depth", "max_execution_time"];

/// What the handlers' own settings are where nothing says otherwise: those of php-redis 6 and php-memcached 3.2.
const HANDLERS: [(&str, &str); 17] = [
    ("redis.session.locking_enabled", "0"),
    ("redis.session.lock_expire", "0"),
    ("redis.session.lock_retries", "100"),
    ("redis.session.lock_wait_time", "20000"),
    ("redis.session.early_refresh", "0"),
    ("redis.session.compression", "none"),
    ("redis.session.compression_level", "3"),
    ("memcached.sess_locking", "1"),
    ("memcached.sess_lock_expire", "0"),
    ("memcached.sess_lock_wait_min", "150"),
    ("memcached.sess_lock_wait_max", "150"),
    ("memcached.sess_lock_retries", "5"),
    ("memcached.sess_binary_protocol", "1"),
    ("memcached.sess_consistent_hash", "1"),
    ("memcached.sess_consistent_hash_type", "ketama"),
    ("memcached.sess_persistent", "0"),
    ("memcached.sess_prefix", "memc.sess.key."),
];

/// Whether PHP refuses to change this setting while a script runs.
pub fn is_per_directory(name: &str) -> bool {
    PER_DIRECTORY.contains(&name)
}

/// Whether PHP takes this value for this setting with a warning about how the number is written.
pub fn is_odd_number(name: &str, value: &str) -> bool {
    let numbers = [
        "session.gc_probability",
        "session.gc_divisor",
        "session.gc_maxlifetime",
        "session.cookie_lifetime",
        "session.cache_expire",
    ];
    numbers.contains(&name) && !ini::is_quantity(value)
}

/// PHP hands these settings on as C strings.
fn until_nul(value: &str) -> String {
    value.split('\0').next().unwrap_or_default().to_owned()
}

fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
        || OTHERS.contains(&name)
        || is_per_directory(name)
        || ["redis.session.", "redis.clusters.", "memcached."].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, expect: Option<&str>) {
        let mut settings = Settings::php_defaults();
        let before = settings.clone();
        match (settings.set(name, value), expect) {
            (Ok(()), Some(expect)) => assert_eq!(settings.get(name).as_deref(), Some(expect), "{name}={value}"),
            (Err(_), None) => assert_eq!(settings, before),
            (result, _) => panic!("{name}={value}: {result:?}"),
        }
    }

    #[test]
    fn checks_values_as_php_does() {
        check("session.name", "SID", Some("SID"));
        check("session.name", "a.b", Some("a.b"));
        for name in ["", "0", "1e3", " 1", "12 "] {
            check("session.name", name, None);
        }
        check("session.sid_length", "22", Some("22"));
        for length in ["21", "257", "32x", ""] {
            check("session.sid_length", length, None);
        }
        check("session.sid_bits_per_character", "6", Some("6"));
        check("session.sid_bits_per_character", "7", None);
        check("session.cookie_lifetime", "-1", None);
        check("session.cookie_lifetime", "9223372034707292160", Some("0"));
        check("session.cookie_lifetime", "4000000000", Some("4000000000"));
        check("session.gc_maxlifetime", "1h", Some("1"));
        check("session.gc_maxlifetime", "2K", Some("2048"));
        check("session.gc_divisor", "0", Some("0"));
        check("session.cache_expire", "-5", Some("-5"));
        check("session.use_strict_mode", "On", Some("1"));
        check("session.use_strict_mode", "off", Some("0"));
        check("session.serialize_handler", "PHP_Serialize", Some("php_serialize"));
        check("session.serialize_handler", "wddx", None);
        check("session.save_handler", "FILES", Some("files"));
        check("session.save_handler", "user", None);
        check("session.no_such", "1", None);
        check("memory_limit", "1", None);
    }

    #[test]
    fn presets_differ_in_the_hardening_alone() {
        let mut hardened = Settings::php_defaults();
        hardened.use_strict_mode = true;
        hardened.cookie_httponly = true;
        hardened.cookie_samesite = "Lax".into();
        assert_eq!(Settings::php(), hardened);
        assert_eq!(Settings::default(), hardened);
    }

    #[test]
    fn an_ini_says_what_it_says() {
        let settings = Settings::php();
        assert_eq!(Settings::from_ini(&settings.to_string()).unwrap(), settings);
        let error = Settings::from_ini("\n[Session]\nsession.sid_length = 5\n").unwrap_err();
        assert_eq!(error.to_string(), "php.ini line 3: session.sid_length: must be between 22 and 256");
    }

    #[test]
    fn refuses_to_start_with_what_cannot_work() {
        let broken: [fn(&mut Settings); 9] = [
            |s| s.name = "a b".into(),
            |s| s.cookie_path = "/; domain=evil".into(),
            |s| s.cookie_domain = "a\r\nb".into(),
            |s| s.cookie_samesite = "bogus".into(),
            |s| s.name = "__Host-SID".into(),
            |s| s.sid_length = 22,
            |s| s.sid_length = 251,
            |s| s.sid_length = u32::MAX,
            |s| s.gc_maxlifetime = 0,
        ];
        Settings::php().check().unwrap();
        Settings::php_defaults().check().unwrap();
        for change in broken {
            let mut settings = Settings::php();
            change(&mut settings);
            assert_eq!(settings.check().unwrap_err().kind(), crate::ErrorKind::Config);
        }
    }
}
