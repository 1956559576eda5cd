//! Where the servers are and how the store behaves: by name, in a URL, or as PHP's settings have it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::{Error, Result, Settings};

use crate::layout;
use crate::ring::{Hash, Node};

/// The port of a server that has none in its address.
const PORT: u16 = 11211;

/// Which servers hold the sessions, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemcachedConfig {
    /// The servers. Their order and how they are written matter where there are several: PHP must have the same.
    pub servers: Vec<MemcachedServer>,
    /// What stands before the id in each key, PHP's `memcached.sess_prefix`; `memc.sess.key.`.
    pub prefix: String,
    /// How sessions are spread over several servers, PHP's `memcached.sess_consistent_hash` and
    /// `memcached.sess_consistent_hash_type`.
    pub hash: Hash,
    /// For how long a lock lives whose holder has died, at least 3 s. While its holder lives it is renewed. PHP's
    /// `memcached.sess_lock_expire`; 10 s.
    pub lock_expire: Duration,
    /// Whether PHP locks its sessions, `memcached.sess_locking`. cloakroom does so in any case; yes.
    pub php_locks: bool,
    /// The life of a record that was made by locking it and has not been written yet; PHP's `session.gc_maxlifetime`,
    /// 1440 s.
    pub lifetime: Duration,
    /// How many connections there may be to each server; 32.
    pub connections: usize,
    /// How many sessions that could not be read are kept on each server for people to look at; 32.
    pub max_aside: u32,
    /// For how long they are kept; a day.
    pub aside_lifetime: Duration,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemcachedServer {
    /// Where it is.
    pub address: Address,
    /// Its share of the sessions, where there are several servers; 1.
    pub weight: u32,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A host (without brackets around an IPv6 address) and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

impl MemcachedServer {
    /// A server of weight 1.
    pub fn new(address: Address) -> MemcachedServer {
        MemcachedServer { address, weight: 1 }
    }

    /// As the ring sees it.
    pub(crate) fn node(&self) -> Node<'_> {
        let (host, port) = match &self.address {
            Address::Tcp(host, port) => (host.as_str(), *port),
            Address::Unix(path) => (path.to_str().unwrap_or_default(), 0),
        };
        Node { host, port, weight: self.weight }
    }
}

impl MemcachedConfig {
    /// These servers, and PHP's defaults.
    pub fn new(servers: Vec<MemcachedServer>) -> MemcachedConfig {
        MemcachedConfig {
            servers,
            prefix: layout::PREFIX.to_owned(),
            hash: Hash::Ketama,
            lock_expire: Duration::from_secs(10),
            php_locks: true,
            lifetime: Duration::from_secs(1440),
            connections: 32,
            max_aside: 32,
            aside_lifetime: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// Reads `memcached://host:port:weight,host2?name=value&…` or `memcached:///path/to/socket`. A port is 11211 and
    /// a weight 1 unless given. The names are those of this struct's fields but for `servers`.
    ///
    /// [`ErrorKind::Config`](cloakroom_core::ErrorKind::Config) names what is not understood.
    ///
    /// ```
    /// use cloakroom_store_memcached::{Hash, MemcachedConfig};
    ///
    /// let config = MemcachedConfig::from_url("memcached://10.0.0.1,10.0.0.2:11212:3?hash=ketama_weighted&prefix=shop.")?;
    /// assert_eq!((config.servers.len(), config.servers[1].weight), (2, 3));
    /// assert_eq!((config.hash, config.prefix.as_str()), (Hash::KetamaWeighted, "shop."));
    /// assert!(MemcachedConfig::from_url("memcached://localhost?prefx=shop.").is_err());
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<MemcachedConfig> {
        let rest = url.strip_prefix("memcached://").ok_or_else(|| {
            Error::config("the address of a Memcached store is `memcached://host:port,…` or `memcached:///path`")
        })?;
        let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
        if servers.contains('@') {
            return Err(Error::config("a name and a password for Memcached (SASL) are not supported"));
        }
        let mut config = MemcachedConfig::new(parse_servers(servers.strip_suffix('/').unwrap_or(servers))?);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.set(name, value).map_err(|error| if query.contains('@') { misplaced() } else { error })?;
        }
        config.checked()
    }

    /// Reads what PHP's session module reads: `session.save_path` (`host:port:weight,host2…`, or a socket's path) and
    /// the `memcached.sess_…` settings.
    ///
    /// Settings that make libmemcached do what cannot be shared are [`ErrorKind::Config`]: SASL, option strings,
    /// replicas, and `sess_remove_failed_servers`, by which PHP looks for a session on another server than the one that
    /// has it. How PHP waits for a lock and for a connection, and whether it speaks the binary protocol, is
    /// PHP's own affair.
    ///
    /// [`ErrorKind::Config`]: cloakroom_core::ErrorKind::Config
    pub fn from_settings(settings: &Settings) -> Result<MemcachedConfig> {
        let path = settings.save_path.as_str();
        if path.starts_with("PERSISTENT=") {
            return Err(Error::config("session.save_path: PERSISTENT= is memcached.sess_persistent=1 today"));
        }
        if path.trim_start().starts_with("--") || path.contains("--SERVER") || path.contains(" --") {
            return Err(Error::config("session.save_path: option strings of libmemcached are not supported"));
        }
        let other = |name: &str| settings.other.get(&format!("memcached.{name}")).map(String::as_str);
        let on = |name: &str| other(name).is_some_and(is_on);
        for secret in ["sess_sasl_username", "sess_sasl_password"] {
            if other(secret).is_some_and(|value| !value.is_empty()) {
                return Err(Error::config(format!("memcached.{secret}: SASL is not supported")));
            }
        }
        if other("sess_number_of_replicas").is_some_and(|value| integer(value) > 0) {
            return Err(Error::config("memcached.sess_number_of_replicas: replicas are not supported"));
        }
        for name in ["sess_remove_failed_servers", "sess_remove_failed"] {
            if on(name) {
                let why = "sessions would move to other servers while one is away, on PHP's side alone";
                return Err(Error::config(format!("memcached.{name}: {why}")));
            }
        }
        let mut config = MemcachedConfig::new(parse_servers(path)?);
        if let Some(prefix) = other("sess_prefix") {
            prefix.clone_into(&mut config.prefix);
        }
        let consistent = other("sess_consistent_hash").is_none_or(is_on);
        config.hash = match (consistent, other("sess_consistent_hash_type").unwrap_or("ketama")) {
            (false, _) => Hash::Modula,
            (true, kind) => hash("memcached.sess_consistent_hash_type", kind)?,
        };
        config.php_locks = other("sess_locking").is_none_or(is_on);
        match other("sess_lock_expire").map_or(0, integer) {
            seconds if seconds > 0 => config.lock_expire = Duration::from_secs(seconds.unsigned_abs().max(3)),
            _ => {}
        }
        config.lifetime = settings.lifetime().max(Duration::from_secs(1));
        config.checked()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = || Error::config(format!("setting `{name}` of the Memcached store wants a number"));
        let seconds = || value.parse().map(Duration::from_secs).map_err(|source| bad().with_source(source));
        match name {
            "prefix" => self.prefix = percent_decode(value),
            "hash" => self.hash = hash(name, value)?,
            "lock_expire" => self.lock_expire = seconds()?,
            "php_locks" => self.php_locks = is_on(value),
            "lifetime" => self.lifetime = seconds()?,
            "connections" => self.connections = value.parse().map_err(|source| bad().with_source(source))?,
            "max_aside" => self.max_aside = value.parse().map_err(|source| bad().with_source(source))?,
            "aside_lifetime" => self.aside_lifetime = seconds()?,
            _ => return Err(Error::unknown_option("a Memcached address", name, "")),
        }
        Ok(())
    }

    /// What is wrong in any case is found before anything is done.
    pub(crate) fn checked(self) -> Result<MemcachedConfig> {
        if self.servers.is_empty() {
            return Err(Error::config("a Memcached store has at least one server"));
        }
        if !layout::is_prefix(&self.prefix) {
            return Err(Error::config("the prefix of Memcached keys has at most 200 bytes, none of them blank"));
        }
        if self.lock_expire < Duration::from_secs(3) {
            return Err(Error::config("lock_expire: Memcached counts whole seconds, and a lock needs at least 3"));
        }
        if self.connections == 0 {
            return Err(Error::config("connections: at least 1"));
        }
        Ok(self)
    }

    /// Sets [`prefix`](MemcachedConfig::prefix).
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> MemcachedConfig {
        self.prefix = prefix.into();
        self
    }

    /// Sets [`hash`](MemcachedConfig::hash).
    #[must_use]
    pub fn hash(mut self, hash: Hash) -> MemcachedConfig {
        self.hash = hash;
        self
    }

    /// Sets [`lock_expire`](MemcachedConfig::lock_expire).
    #[must_use]
    pub fn lock_expire(mut self, lock_expire: Duration) -> MemcachedConfig {
        self.lock_expire = lock_expire;
        self
    }

    /// Sets [`lifetime`](MemcachedConfig::lifetime).
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> MemcachedConfig {
        self.lifetime = lifetime;
        self
    }

    /// Sets [`connections`](MemcachedConfig::connections).
    #[must_use]
    pub fn connections(mut self, connections: usize) -> MemcachedConfig {
        self.connections = connections;
        self
    }

    /// Sets [`max_aside`](MemcachedConfig::max_aside) and [`aside_lifetime`](MemcachedConfig::aside_lifetime).
    #[must_use]
    pub fn aside(mut self, max_aside: u32, aside_lifetime: Duration) -> MemcachedConfig {
        self.max_aside = max_aside;
        self.aside_lifetime = aside_lifetime;
        self
    }
}

/// A list as `memcached_servers_parse` takes it, and IPv6 addresses in brackets.
fn parse_servers(list: &str) -> Result<Vec<MemcachedServer>> {
    list.split(',').map(str::trim).filter(|server| !server.is_empty()).map(parse_server).collect()
}

fn parse_server(server: &str) -> Result<MemcachedServer> {
    let bad = |what: &str| Error::config(format!("a server is `host:port:weight` or a path: {what}"));
    let (host, rest) = if let Some(bracketed) = server.strip_prefix('[') {
        bracketed.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?
    } else {
        server.split_at(server.find(':').unwrap_or(server.len()))
    };
    let rest =
        rest.strip_prefix(':').map_or(Ok(rest), |rest| if rest.is_empty() { Err(bad("no port")) } else { Ok(rest) })?;
    let mut numbers = rest
        .split(':')
        .filter(|number| !number.is_empty())
        .map(|number| number.parse::<u32>().map_err(|source| bad("not a number").with_source(source)));
    if host.is_empty() {
        return Err(bad("no host"));
    }
    let address = if host.starts_with('/') {
        Address::Unix(host.into())
    } else {
        let port = numbers.next().transpose()?.map_or(Ok(PORT), u16::try_from);
        Address::Tcp(host.to_owned(), port.map_err(|source| bad("no such port").with_source(source))?)
    };
    let weight = numbers.next().transpose()?.unwrap_or(1);
    if numbers.next().is_some() {
        return Err(bad("too many colons"));
    }
    Ok(MemcachedServer { address, weight: weight.max(1) })
}

fn hash(setting: &str, name: &str) -> Result<Hash> {
    match name {
        "ketama" => Ok(Hash::Ketama),
        "ketama_weighted" => Ok(Hash::KetamaWeighted),
        "modula" if setting == "hash" => Ok(Hash::Modula),
        _ => Err(Error::config(format!("{setting} is ketama or ketama_weighted"))),
    }
}

/// A `?` in a password makes a query of the rest of it, so that nothing of the query may be repeated.
#[cold]
fn misplaced() -> Error {
    Error::config("an `@` after the `?`: a name and a password for Memcached (SASL) are not supported")
}

/// PHP's notion of a switch that is on.
fn is_on(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "on" | "yes" | "true") || integer(value) != 0
}

/// The number at the beginning of the text, as C's `strtol` has it.
fn integer(value: &str) -> i64 {
    let value = value.trim_start();
    let digits = value.char_indices().skip_while(|&(at, c)| at == 0 && matches!(c, '+' | '-'));
    let end = digits.take_while(|(_, c)| c.is_ascii_digit()).last().map_or(0, |(at, _)| at + 1);
    value[..end].parse().unwrap_or(0)
}

/// `%2F` and its like; what is no such thing stays.
fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        bytes.extend_from_slice(&part.as_bytes()[if code.is_some() { 2 } else { 0 }..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    fn tcp(host: &str, port: u16, weight: u32) -> MemcachedServer {
        MemcachedServer { address: Address::Tcp(host.to_owned(), port), weight }
    }

    fn unix(path: &str, weight: u32) -> MemcachedServer {
        MemcachedServer { address: Address::Unix(path.into()), weight }
    }

    #[test]
    fn reads_its_url() {
        let config = MemcachedConfig::from_url(
            "memcached://a,b:1234,[::1]:11212:2/?prefix=p%2Eq%20&hash=modula&lock_expire=5&php_locks=0&lifetime=60&\
             connections=3&max_aside=7&aside_lifetime=9",
        );
        // A prefix with a blank is no prefix.
        assert_eq!(config.unwrap_err().kind(), ErrorKind::Config);
        let config = MemcachedConfig::from_url(
            "memcached://a,b:1234,[::1]:11212:2/?prefix=p%2Eq&hash=modula&lock_expire=5&php_locks=0&lifetime=60&\
             connections=3&max_aside=7&aside_lifetime=9",
        )
        .unwrap();
        assert_eq!(config.servers, [tcp("a", 11211, 1), tcp("b", 1234, 1), tcp("::1", 11212, 2)]);
        assert_eq!((config.prefix.as_str(), config.hash, config.php_locks), ("p.q", Hash::Modula, false));
        let times = [config.lock_expire, config.lifetime, config.aside_lifetime];
        assert_eq!(times.map(|time| time.as_secs()), [5, 60, 9]);
        assert_eq!((config.connections, config.max_aside), (3, 7));
        let sockets = MemcachedConfig::from_url("memcached:///run/m.sock,/run/n.sock:3").unwrap().servers;
        assert_eq!(sockets, [unix("/run/m.sock", 1), unix("/run/n.sock", 3)]);
    }

    #[test]
    fn refuses_what_it_does_not_understand_and_shows_no_password() {
        for url in [
            "memcached:",
            "memcached://",
            "memcached://a:b",
            "memcached://a:",
            "memcached://a:1:2:3",
            "memcached://:11211",
            "memcached://[::1",
            "memcached://a:99999",
            "memcached://a?x=1",
            "memcached://a?lifetime",
            "memcached://a?hash=crc",
            "memcached://a?lock_expire=2",
            "memcached://a?connections=0",
        ] {
            assert_eq!(MemcachedConfig::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
        for url in ["u:hunter2@h", "u:12?hunter2@h", "u:12?hunter@h", "u:12?lifetime=hunter2@h", "u:12?a=b&hunter2=@h"]
        {
            let error = MemcachedConfig::from_url(&format!("memcached://{url}")).unwrap_err();
            assert!(error.to_string().contains("SASL") && !format!("{error:?}").contains("hunter"), "{url}: {error:?}");
        }
        for query in ["hunter2", "lifetime=hunter2", "x=1&Hunter"] {
            let error = MemcachedConfig::from_url(&format!("memcached://u:12?{query}")).unwrap_err();
            assert!(!format!("{error:?}").to_lowercase().contains("hunter"), "{query}: {error:?}");
        }
        let error = MemcachedConfig::from_url("memcached://a?prefx=1").unwrap_err();
        assert!(error.to_string().contains("`prefx`"), "{error:?}");
    }

    fn settings(path: &str, others: &[(&str, &str)]) -> Result<MemcachedConfig> {
        let mut settings = Settings::php_defaults();
        settings.set("session.save_path", path)?;
        for (name, value) in others {
            settings.set(&format!("memcached.{name}"), value)?;
        }
        MemcachedConfig::from_settings(&settings)
    }

    #[test]
    fn reads_phps_settings() {
        let config = settings("10.0.0.1:11211, mem2:11212:3,/run/m.sock", &[]).unwrap();
        assert_eq!(config.servers, [tcp("10.0.0.1", 11211, 1), tcp("mem2", 11212, 3), unix("/run/m.sock", 1)]);
        assert_eq!((config.prefix.as_str(), config.hash, config.php_locks), ("memc.sess.key.", Hash::Ketama, true));
        assert_eq!((config.lock_expire.as_secs(), config.lifetime.as_secs()), (10, 1440));
        let set = [
            ("sess_prefix", "shop."),
            ("sess_consistent_hash_type", "ketama_weighted"),
            ("sess_locking", "Off"),
            ("sess_lock_expire", "60"),
            ("sess_binary_protocol", "1"),
            ("sess_lock_retries", "5"),
        ];
        let config = settings("a", &set).unwrap();
        assert_eq!((config.prefix.as_str(), config.hash, config.php_locks), ("shop.", Hash::KetamaWeighted, false));
        assert_eq!(config.lock_expire.as_secs(), 60);
        assert_eq!(settings("a", &[("sess_consistent_hash", "0")]).unwrap().hash, Hash::Modula);
        assert_eq!(settings("a", &[("sess_prefix", "")]).unwrap().prefix, "");
        let unset =
            [("sess_sasl_username", ""), ("sess_number_of_replicas", "0"), ("sess_remove_failed_servers", "Off")];
        assert!(settings("a", &unset).is_ok());
    }

    #[test]
    fn refuses_settings_that_cannot_be_shared() {
        for path in ["", "PERSISTENT=a b", "--SERVER=a", "a --BINARY-PROTOCOL"] {
            assert_eq!(settings(path, &[]).unwrap_err().kind(), ErrorKind::Config, "{path}");
        }
        for (name, value) in [
            ("sess_sasl_username", "me"),
            ("sess_sasl_password", "hunter2"),
            ("sess_number_of_replicas", "1"),
            ("sess_remove_failed_servers", "On"),
            ("sess_consistent_hash_type", "crc"),
            ("sess_prefix", "a b"),
        ] {
            let error = settings("a", &[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
