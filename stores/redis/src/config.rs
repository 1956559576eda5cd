//! Where the servers are and how the store behaves: by name, in a URL, or as PHP's settings have it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::{Error, Key, Result, Settings};

use crate::layout;
use crate::save_path;
use crate::url;

const HOUR: Duration = Duration::from_secs(60 * 60);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Which servers hold the sessions, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The servers.
    pub servers: RedisServers,
    /// How keys are made.
    pub layout: Layout,
    /// For how long a lock lives whose holder has died. While its holder lives it is renewed. PHP's
    /// `redis.session.lock_expire`; 10 s.
    pub lock_expire: Duration,
    /// How long connecting to a server may take, and a fourth of what any answer of a cluster's node may; 0.5 s.
    /// Requests have their own limit and do not wait for it.
    pub connect_timeout: Duration,
    /// How many replicas have to have a change before it counts as done (`WAIT`); 0.
    pub wait: u32,
    /// How long they may take for it; 0.1 s.
    pub wait_timeout: Duration,
    /// Read from replicas, which may be behind; a session that they do not have is looked for at the master. Only with
    /// sentinels and on a cluster; off.
    pub replica: bool,
    /// Whether PHP takes part in the locks, as far as is known: `redis.session.locking_enabled`. It is told on, and
    /// changes nothing: cloakroom always locks. On.
    pub php_locks: bool,
    /// The largest payload of one session; 16 MiB.
    pub max_payload: usize,
    /// How many sessions that could not be read are kept for people to look at; 100.
    pub max_aside: u32,
    /// For how long they are kept; 30 days.
    pub aside_lifetime: Duration,
    /// A file with the certificates (PEM) of who may vouch for the servers, instead of the system's.
    pub ca: Option<PathBuf>,
    /// A file with our own certificate (PEM), where the servers ask for one.
    pub cert: Option<PathBuf>,
    /// A file with its key (PEM).
    pub key: Option<PathBuf>,
}

/// The servers of a store.
#[derive(Clone)]
#[non_exhaustive]
pub enum RedisServers {
    /// One or several servers that know nothing of each other. A session's server is chosen by its id, as php-redis
    /// chooses it.
    Single(Vec<RedisServer>),
    /// A cluster, found by any of its nodes.
    Cluster {
        /// Some of the nodes.
        seeds: Vec<RedisAddress>,
        /// Who we are to all of them.
        login: Login,
    },
    /// A master and its replicas, watched by sentinels.
    Sentinel {
        /// Some of the sentinels.
        sentinels: Vec<RedisAddress>,
        /// What they call the master.
        service: String,
        /// Who we are to the sentinels.
        sentinel_login: Login,
        /// Who we are to the servers.
        login: Login,
        /// Which database; 0.
        database: u16,
    },
}

/// One server.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisServer {
    /// Where it is.
    pub address: RedisAddress,
    /// Its share of the sessions, where there are several servers; 1.
    pub weight: u32,
    /// Who we are to it.
    pub login: Login,
    /// Which database; 0.
    pub database: u16,
    /// The prefix of this server's keys, where it is not that of the layout; php-redis has one for each server.
    pub prefix: Option<String>,
}

/// Who we are to a server.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The user's name; none is Redis' user `default`.
    pub user: Option<String>,
    /// The password; none is no login at all.
    pub password: Option<String>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisAddress {
    /// A host (without brackets around an IPv6 address) and a port.
    Tcp(String, u16),
    /// The same with TLS.
    Tls(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// How keys are made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// php-redis's: a prefix and the id. The prefix is `PHPREDIS_SESSION:`, on a cluster `PHPREDIS_CLUSTER_SESSION:`,
    /// unless one is given.
    Php {
        /// Instead of php-redis's own.
        prefix: Option<String>,
    },
    /// Our own, for clusters: the id is a hash tag, so that all keys of a session share a slot whatever they are
    /// called. The prefix is `cloakroom:session:`, unless one is given.
    Tagged {
        /// Instead of our own.
        prefix: Option<String>,
    },
}

impl RedisConfig {
    /// These servers, and the defaults for everything else.
    pub fn new(servers: RedisServers) -> RedisConfig {
        RedisConfig {
            servers,
            layout: Layout::Php { prefix: None },
            lock_expire: Duration::from_secs(10),
            connect_timeout: Duration::from_millis(500),
            wait: 0,
            wait_timeout: Duration::from_millis(100),
            replica: false,
            php_locks: true,
            max_payload: 16 << 20,
            max_aside: 100,
            aside_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            ca: None,
            cert: None,
            key: None,
        }
    }

    /// One server.
    ///
    /// ```
    /// use cloakroom_store_redis::{RedisAddress, RedisConfig};
    /// let config = RedisConfig::server(RedisAddress::Tcp("localhost".into(), 6379));
    /// # drop(config);
    /// ```
    pub fn server(address: RedisAddress) -> RedisConfig {
        RedisConfig::new(RedisServers::Single(vec![RedisServer::new(address)]))
    }

    /// Reads a URL: `redis://`, `rediss://`, `redis+unix://`, `redis+cluster://`, `redis+sentinel://`. The README of
    /// this crate lists them with all their options.
    ///
    /// ```
    /// use cloakroom_store_redis::RedisConfig;
    /// assert_eq!(RedisConfig::from_url("redis://user:secret@localhost:6379/2?wait=1")?.wait, 1);
    /// assert!(RedisConfig::from_url("redis://localhost?wiat=1").is_err());
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<RedisConfig> {
        url::read(url)?.checked()
    }

    /// Reads PHP's settings: `session.save_handler` (`redis` or `rediscluster`), `session.save_path` in that handler's
    /// own syntax, and `redis.session.*`.
    ///
    /// ```
    /// use cloakroom_core::Settings;
    /// use cloakroom_store_redis::RedisConfig;
    ///
    /// let mut settings = Settings::php();
    /// settings.set("session.save_handler", "redis")?;
    /// settings.set("session.save_path", "tcp://10.0.0.1:6379?weight=2, tcp://10.0.0.2:6379?weight=1")?;
    /// let config = RedisConfig::from_settings(&settings)?;
    /// # drop(config);
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_settings(settings: &Settings) -> Result<RedisConfig> {
        let mut config = match settings.save_handler.as_str() {
            "redis" => save_path::redis(&settings.save_path)?,
            "rediscluster" => save_path::rediscluster(&settings.save_path)?,
            _ => return Err(Error::config("session.save_handler is neither redis nor rediscluster")),
        };
        let named = |name: &str| settings.other.get(name).map(|value| value.trim());
        if let Some(compression) = named("redis.session.compression").filter(|how| !matches!(*how, "" | "none")) {
            let told =
                format!("redis.session.compression = {compression}: cloakroom reads and writes sessions as they are");
            return Err(Error::config(told));
        }
        // 0 is PHP's max_execution_time, which has no meaning here: a lock lives for as long as its holder.
        if let Some(seconds) = named("redis.session.lock_expire").and_then(|text| text.parse().ok()).filter(|s| *s > 0)
        {
            config.lock_expire = Duration::from_secs(seconds);
        }
        let enabled = named("redis.session.locking_enabled").unwrap_or_default().to_ascii_lowercase();
        config.php_locks =
            matches!(enabled.as_str(), "on" | "yes" | "true") || enabled.parse().is_ok_and(|n: i64| n != 0);
        config.checked()
    }

    /// Sets [`wait`](RedisConfig::wait) and [`wait_timeout`](RedisConfig::wait_timeout).
    #[must_use]
    pub fn wait(mut self, replicas: u32, timeout: Duration) -> RedisConfig {
        (self.wait, self.wait_timeout) = (replicas, timeout);
        self
    }

    /// Sets [`layout`](RedisConfig::layout).
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> RedisConfig {
        self.layout = layout;
        self
    }

    /// Sets [`lock_expire`](RedisConfig::lock_expire).
    #[must_use]
    pub fn lock_expire(mut self, lock_expire: Duration) -> RedisConfig {
        self.lock_expire = lock_expire;
        self
    }

    /// What cannot work, found out before anything is tried.
    pub(crate) fn checked(self) -> Result<RedisConfig> {
        let wrong = |what| Err(Error::config(what));
        match &self.servers {
            RedisServers::Single(servers) => {
                let total: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
                if total == 0 || total > i32::MAX.unsigned_abs().into() {
                    return wrong("the weights of the Redis servers are to be above 0, and so is their number");
                }
                if self.replica {
                    return wrong("replica=yes wants sentinels or a cluster: only they know the replicas");
                }
            }
            RedisServers::Cluster { seeds, .. } if seeds.is_empty() => return wrong("no node of the cluster is named"),
            RedisServers::Cluster { seeds, .. } if seeds.iter().any(|seed| matches!(seed, RedisAddress::Unix(_))) => {
                return wrong("a cluster's nodes are reached over TCP only");
            }
            RedisServers::Sentinel { sentinels, .. } if sentinels.is_empty() => return wrong("no sentinel is named"),
            RedisServers::Sentinel { service, .. } if service.is_empty() => {
                return wrong("a sentinel's URL names the service: redis+sentinel://host/service");
            }
            RedisServers::Cluster { .. } | RedisServers::Sentinel { .. } => {}
        }
        if self.is_cluster() && self.names(None).lock(&Key::from_bytes(*b"id")).is_err() {
            return wrong("the prefix has braces that fit no hash tag of a cluster");
        }
        if self.lock_expire < Duration::from_millis(100) || self.connect_timeout.is_zero() {
            return wrong("lock_expire is to be 0.1 s at least, and connect_timeout above 0");
        }
        // Beyond these, times overflow, or Redis does not take them.
        if self.connect_timeout > HOUR || self.wait_timeout > HOUR {
            return wrong("connect_timeout and wait_timeout are to be an hour at the most");
        }
        if self.lock_expire > CENTURY || self.aside_lifetime > CENTURY {
            return wrong("lock_expire and aside_lifetime are to be a hundred years at the most");
        }
        if self.wait > 0 && self.wait_timeout.as_millis() == 0 {
            return wrong("wait_timeout is to be 1 ms at least: 0 would wait for ever");
        }
        if self.max_aside == 0 || self.aside_lifetime.is_zero() {
            return wrong("max_aside and aside_lifetime are to be above 0");
        }
        if self.max_payload > 512 << 20 {
            return wrong("max_payload: Redis holds 512 MiB under one key at the most");
        }
        if self.cert.is_some() != self.key.is_some() {
            return wrong("a certificate and its key are given together: cert=…&key=…");
        }
        Ok(self)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.servers, RedisServers::Cluster { .. })
    }

    /// How the keys of a server are made.
    pub(crate) fn names(&self, server: Option<&RedisServer>) -> layout::Names {
        let cluster = self.is_cluster();
        let (given, usual, tagged) = match &self.layout {
            Layout::Php { prefix } if cluster => (prefix, layout::PHP_CLUSTER, false),
            Layout::Php { prefix } => (prefix, layout::PHP, false),
            Layout::Tagged { prefix } => (prefix, layout::TAGGED, true),
        };
        let own = server.and_then(|server| server.prefix.as_deref());
        let prefix = own.or(given.as_deref()).unwrap_or(usual).as_bytes().to_vec();
        layout::Names { prefix, tagged, cluster }
    }
}

impl RedisServer {
    /// A server with weight 1, no login and database 0.
    pub fn new(address: RedisAddress) -> RedisServer {
        RedisServer { address, weight: 1, login: Login::default(), database: 0, prefix: None }
    }
}

impl Login {
    /// A user (none is `default`) with a password.
    pub fn new(user: Option<String>, password: impl Into<String>) -> Login {
        Login { user, password: Some(password.into()) }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisConfig { servers, layout, lock_expire, connect_timeout, wait, replica, .. } = self;
        f.debug_struct("RedisConfig")
            .field("servers", servers)
            .field("layout", layout)
            .field("lock_expire", lock_expire)
            .field("connect_timeout", connect_timeout)
            .field("wait", wait)
            .field("replica", replica)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisServers::Single(servers) => f.debug_list().entries(servers).finish(),
            RedisServers::Cluster { seeds, .. } => f.debug_tuple("Cluster").field(seeds).finish(),
            RedisServers::Sentinel { sentinels, service, .. } => {
                f.debug_tuple("Sentinel").field(sentinels).field(service).finish()
            }
        }
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} weight {} database {}", self.address, self.weight, self.database)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.password.is_some() { "Login(hidden)" } else { "Login(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    fn settings(path: &str, others: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::php();
        settings.save_handler = "redis".into();
        settings.save_path = path.into();
        for (name, value) in others {
            settings.other.insert((*name).to_owned(), (*value).to_owned());
        }
        settings
    }

    #[test]
    fn phps_settings_are_enough() {
        let config =
            RedisConfig::from_settings(&settings("tcp://a:1", &[("redis.session.lock_expire", "60")])).unwrap();
        assert_eq!(config.lock_expire, Duration::from_secs(60));
        let config = RedisConfig::from_settings(&settings("tcp://a:1", &[("redis.session.lock_expire", "0")])).unwrap();
        assert_eq!(config.lock_expire, Duration::from_secs(10));
        assert!(RedisConfig::from_settings(&settings("a:1", &[("redis.session.compression", "none")])).is_ok());
        let error = RedisConfig::from_settings(&settings("a:1", &[("redis.session.compression", "lzf")])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("redis.session.compression"));
        assert!(RedisConfig::from_settings(&Settings::php()).is_err());
        for (enabled, locks) in [("1", true), ("On", true), ("0", false), ("", false)] {
            let config = RedisConfig::from_settings(&settings("a", &[("redis.session.locking_enabled", enabled)]));
            assert_eq!(config.unwrap().php_locks, locks, "{enabled}");
        }
    }

    #[test]
    fn the_prefix_is_the_layouts_unless_one_is_given() {
        let prefix = |url: &str| String::from_utf8(RedisConfig::from_url(url).unwrap().names(None).prefix).unwrap();
        assert_eq!(prefix("redis://a"), "PHPREDIS_SESSION:");
        assert_eq!(prefix("redis+cluster://a"), "PHPREDIS_CLUSTER_SESSION:");
        assert_eq!(prefix("redis+cluster://a?layout=tagged"), "cloakroom:session:");
        assert_eq!(prefix("redis://a?prefix=MY:"), "MY:");
        assert_eq!(prefix("redis://a?prefix="), "");
        let path = "tcp://a:1?prefix=ONE:, tcp://b:1";
        let config = RedisConfig::from_settings(&settings(path, &[])).unwrap();
        let RedisServers::Single(servers) = &config.servers else { panic!("servers") };
        assert_eq!(config.names(Some(&servers[0])).prefix, b"ONE:");
        assert_eq!(config.names(Some(&servers[1])).prefix, b"PHPREDIS_SESSION:");
    }

    #[test]
    fn times_that_cannot_be_meant_are_refused() {
        for option in ["connect_timeout", "wait_timeout", "lock_expire", "aside_lifetime"] {
            for server in ["redis://a", "redis+cluster://a", "redis+sentinel://a/s"] {
                let of = |time: &str| RedisConfig::from_url(&format!("{server}?wait=1&{option}={time}"));
                for absurd in ["1e19", "1e10", "inf", "NaN", "1e400"] {
                    assert_eq!(of(absurd).expect_err(absurd).kind(), ErrorKind::Config, "{option}={absurd}");
                }
                assert!(of("3600").is_ok(), "{option}");
            }
        }
        let error = RedisConfig::from_settings(&settings("a", &[("redis.session.lock_expire", "9999999999999")]));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn debug_shows_no_password() {
        let url = "redis://user:hunter2@localhost?wait=1";
        let shown = format!("{:?}", RedisConfig::from_url(url).unwrap());
        assert!(shown.contains("localhost") && !shown.contains("hunter2"), "{shown}");
        let url = "redis+sentinel://user:hunter2@localhost/mymaster?sentinel_password=hunter3";
        let shown = format!("{:?}", RedisConfig::from_url(url).unwrap());
        assert!(shown.contains("mymaster") && !shown.contains("hunter"), "{shown}");
    }
}
