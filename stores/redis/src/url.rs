//! The URLs of the store, and what they have in common with PHP's: percent signs, hosts with ports, queries.

use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::{Error, Result};

use crate::config::{Layout, Login, RedisAddress, RedisConfig, RedisServer, RedisServers};

/// Redis' own port, and that of its sentinels.
pub(crate) const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Which servers a URL is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Unix,
    Cluster,
    Sentinel,
}

/// Reads a URL of ours. No error repeats any part of it that could hold a password.
pub(crate) fn read(url: &str) -> Result<RedisConfig> {
    let unknown = || {
        Error::config(
            "the address of Redis begins with redis://, rediss://, redis+unix://, redis+cluster://, rediss+cluster://, redis+sentinel:// or rediss+sentinel://",
        )
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
    let (kind, tls) = match scheme.to_ascii_lowercase().as_str() {
        "redis" => (Kind::Single, false),
        "rediss" => (Kind::Single, true),
        "redis+unix" => (Kind::Unix, false),
        "redis+cluster" => (Kind::Cluster, false),
        "rediss+cluster" => (Kind::Cluster, true),
        "redis+sentinel" => (Kind::Sentinel, false),
        "rediss+sentinel" => (Kind::Sentinel, true),
        _ => return Err(unknown()),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let options = Options::read(query, kind)?;
    let (authority, path) = place.split_once('/').map_or((place, None), |(authority, path)| (authority, Some(path)));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (self::login(login)?, hosts),
        None => (Login::default(), authority),
    };
    let port = if kind == Kind::Sentinel { SENTINEL_PORT } else { PORT };
    let addresses = || hosts.split(',').map(|one| address(one, port, tls)).collect::<Result<Vec<_>>>();
    let path = path.map(decode_text).transpose()?.filter(|path| !path.is_empty());
    let servers = match kind {
        Kind::Single => {
            let database = options.database(path.as_deref())?;
            let servers = addresses()?.into_iter().enumerate().map(|(index, address)| {
                let weight = options.weight(index)?;
                Ok(RedisServer { address, weight, login: login.clone(), database, prefix: None })
            });
            let servers = servers.collect::<Result<Vec<_>>>()?;
            if options.weights.as_ref().is_some_and(|weights| weights.len() != servers.len()) {
                return Err(Error::config("weights= has one number for each server"));
            }
            RedisServers::Single(servers)
        }
        Kind::Unix => {
            let path = path.filter(|_| hosts.is_empty());
            let path = path.ok_or_else(|| Error::config("the address of a socket is redis+unix:///path"))?;
            let address = RedisAddress::Unix(PathBuf::from(format!("/{path}")));
            let database = options.database(None)?;
            RedisServers::Single(vec![RedisServer { login, database, ..RedisServer::new(address) }])
        }
        Kind::Cluster => {
            if path.is_some() {
                return Err(Error::config("a cluster has no databases: nothing stands behind its hosts"));
            }
            RedisServers::Cluster { seeds: addresses()?, login }
        }
        Kind::Sentinel => {
            let (service, database) = match path.as_deref().map(|path| path.split_once('/').unwrap_or((path, ""))) {
                Some((service, database)) => (service, Some(database).filter(|text| !text.is_empty())),
                None => ("", None),
            };
            RedisServers::Sentinel {
                sentinels: addresses()?,
                service: service.to_owned(),
                sentinel_login: options.sentinel_login.clone(),
                login,
                database: options.database(database)?,
            }
        }
    };
    options.into_config(servers)
}

/// What stands behind the `?`.
struct Options {
    config: RedisConfig,
    tagged: bool,
    prefix: Option<String>,
    database: Option<u16>,
    weights: Option<Vec<u32>>,
    sentinel_login: Login,
}

impl Options {
    fn read(query: &str, kind: Kind) -> Result<Options> {
        let mut options = Options {
            config: RedisConfig::new(RedisServers::Single(Vec::new())),
            tagged: false,
            prefix: None,
            database: None,
            weights: None,
            sentinel_login: Login::default(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !options.set(name, decode_text(value)?, kind)? {
                return Err(Error::unknown_option("this kind of Redis address", name, query));
            }
        }
        Ok(options)
    }

    /// Whether this kind of address has such an option.
    fn set(&mut self, name: &str, value: String, kind: Kind) -> Result<bool> {
        let config = &mut self.config;
        match name {
            "prefix" => self.prefix = Some(value),
            "layout" if kind == Kind::Cluster => {
                self.tagged = match value.as_str() {
                    "php" => false,
                    "tagged" => true,
                    _ => return Err(wants(name, "php or tagged")),
                }
            }
            "db" if kind != Kind::Cluster => self.database = Some(number(name, &value)?),
            "weights" if kind == Kind::Single => {
                let weights = value.split(',').map(|weight| number::<u32>(name, weight));
                let weights = weights.collect::<Result<Vec<_>>>()?;
                if weights.contains(&0) {
                    return Err(wants(name, "numbers above 0"));
                }
                self.weights = Some(weights);
            }
            "lock_expire" => config.lock_expire = seconds(name, &value)?,
            "connect_timeout" => config.connect_timeout = seconds(name, &value)?,
            "wait" => config.wait = number(name, &value)?,
            "wait_timeout" => config.wait_timeout = seconds(name, &value)?,
            "replica" => {
                config.replica = match value.as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wants(name, "yes or no")),
                }
            }
            "max_payload" => config.max_payload = number(name, &value)?,
            "max_aside" => config.max_aside = number(name, &value)?,
            "aside_lifetime" => config.aside_lifetime = seconds(name, &value)?,
            "ca" => config.ca = Some(value.into()),
            "cert" => config.cert = Some(value.into()),
            "key" => config.key = Some(value.into()),
            "sentinel_user" if kind == Kind::Sentinel => self.sentinel_login.user = Some(value),
            "sentinel_password" if kind == Kind::Sentinel => self.sentinel_login.password = Some(value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The database of the path, or that of the option; not both.
    fn database(&self, path: Option<&str>) -> Result<u16> {
        match (path, self.database) {
            (Some(_), Some(_)) => Err(Error::config("the database is named twice, in the path and by db=")),
            (Some(path), None) => path.parse().map_err(|_| wants("/database", "a number")),
            (None, database) => Ok(database.unwrap_or(0)),
        }
    }

    fn weight(&self, index: usize) -> Result<u32> {
        let Some(weights) = &self.weights else { return Ok(1) };
        weights.get(index).copied().ok_or_else(|| Error::config("weights= has one number for each server"))
    }

    fn into_config(self, servers: RedisServers) -> Result<RedisConfig> {
        if self.sentinel_login.user.is_some() && self.sentinel_login.password.is_none() {
            return Err(Error::config("sentinel_user= without sentinel_password="));
        }
        let prefix = self.prefix;
        let layout = if self.tagged { Layout::Tagged { prefix } } else { Layout::Php { prefix } };
        Ok(RedisConfig { servers, layout, ..self.config })
    }
}

fn wants(name: &str, what: &str) -> Error {
    Error::config(format!("option `{name}` of the Redis address wants {what}"))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| wants(name, "a number"))
}

fn seconds(name: &str, value: &str) -> Result<Duration> {
    let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| wants(name, "seconds"))
}

/// `user:password`, `:password`, or nothing.
fn login(text: &str) -> Result<Login> {
    let Some((user, password)) = text.split_once(':') else {
        return Err(Error::config("a user of Redis is named with a password: user:password@ or :password@"));
    };
    let user = Some(decode_text(user)?).filter(|user| !user.is_empty());
    Ok(Login::new(user, decode_text(password)?))
}

/// `host`, `host:port`, `[::1]:port`.
pub(crate) fn address(text: &str, default: u16, tls: bool) -> Result<RedisAddress> {
    let bad = || Error::config("a Redis host looks like name:port, 10.0.0.1:port or [::1]:port");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let host = decode_text(host)?;
    if host.is_empty() || host.contains(['/', '@', '?', ' ']) {
        return Err(bad());
    }
    let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| bad()))?;
    Ok(if tls { RedisAddress::Tls(host, port) } else { RedisAddress::Tcp(host, port) })
}

/// Takes percent signs back; what they stand for has to be text.
pub(crate) fn decode_text(text: &str) -> Result<String> {
    String::from_utf8(decode(text, false)).map_err(|_| Error::config("the Redis address holds text that is not UTF-8"))
}

/// Takes percent signs back, and `+` for a blank where a form would have it.
pub(crate) fn decode(text: &str, form: bool) -> Vec<u8> {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 2;
            }
            (b'+', ..) if form => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    fn of(url: &str) -> RedisConfig {
        RedisConfig::from_url(url).unwrap()
    }

    fn single(url: &str) -> Vec<RedisServer> {
        match of(url).servers {
            RedisServers::Single(servers) => servers,
            other => panic!("{other:?}"),
        }
    }

    fn tcp(host: &str, port: u16) -> RedisAddress {
        RedisAddress::Tcp(host.into(), port)
    }

    #[test]
    fn one_server() {
        let server = &single("redis://us%40er:pa%2Fss@host:7000/3")[0];
        assert_eq!(server.address, tcp("host", 7000));
        assert!(server.login == Login::new(Some("us@er".into()), "pa/ss"));
        assert_eq!((server.database, server.weight), (3, 1));
        assert!(single("redis://:secret@host")[0].login == Login::new(None, "secret"));
        assert_eq!(single("redis://host?db=4")[0].database, 4);
        assert_eq!(single("redis://[::1]")[0].address, tcp("::1", 6379));
        assert_eq!(single("rediss://[::1]:7")[0].address, RedisAddress::Tls("::1".into(), 7));
        let server = &single("redis+unix:///run/redis.sock?db=1&prefix=a%3A")[0];
        assert_eq!((&server.address, server.database), (&RedisAddress::Unix("/run/redis.sock".into()), 1));
    }

    #[test]
    fn several_servers() {
        let servers = single("redis://a,b:7000,[::1]/1?weights=1,2,3");
        let told: Vec<_> = servers.iter().map(|server| (&server.address, server.weight, server.database)).collect();
        assert_eq!(told, [(&tcp("a", 6379), 1, 1), (&tcp("b", 7000), 2, 1), (&tcp("::1", 6379), 3, 1)]);
    }

    #[test]
    fn a_cluster_and_sentinels() {
        let config = of("rediss+cluster://:secret@a:1,b?layout=tagged&replica=yes&prefix=x");
        let RedisServers::Cluster { seeds, login } = &config.servers else { panic!("a cluster") };
        assert_eq!(seeds, &[RedisAddress::Tls("a".into(), 1), RedisAddress::Tls("b".into(), 6379)]);
        assert!(*login == Login::new(None, "secret") && config.replica);
        assert_eq!(config.layout, Layout::Tagged { prefix: Some("x".into()) });
        let url = "redis+sentinel://u:p@a,b:2/mymaster/5?sentinel_user=s&sentinel_password=t";
        let RedisServers::Sentinel { sentinels, service, sentinel_login, login, database } = of(url).servers else {
            panic!("sentinels")
        };
        assert_eq!((sentinels, service.as_str(), database), (vec![tcp("a", 26379), tcp("b", 2)], "mymaster", 5));
        assert!(sentinel_login == Login::new(Some("s".into()), "t") && login == Login::new(Some("u".into()), "p"));
    }

    #[test]
    fn every_option() {
        let config = of("redis://a?lock_expire=20&connect_timeout=0.25&wait=2&wait_timeout=0.05&replica=no\
            &max_payload=1000&max_aside=5&aside_lifetime=60&ca=/ca.pem&cert=/c.pem&key=/k.pem");
        assert_eq!((config.lock_expire, config.connect_timeout), (Duration::from_secs(20), Duration::from_millis(250)));
        assert_eq!((config.wait, config.wait_timeout), (2, Duration::from_millis(50)));
        assert_eq!((config.max_payload, config.max_aside), (1000, 5));
        assert_eq!(config.aside_lifetime, Duration::from_secs(60));
        assert_eq!(config.ca.as_deref(), Some("/ca.pem".as_ref()));
        assert!(config.cert.is_some() && config.key.is_some());
    }

    #[test]
    fn what_cannot_be_is_refused_without_telling_secrets() {
        for url in [
            "redis:host",
            "http://hunter2",
            "redis://",
            "redis://user@host",
            "redis://u:hunter2@",
            "redis://u:hunter2@host:port",
            "redis://u:hunter2@ho st",
            "redis://host/db",
            "redis://host/1?db=1",
            "redis://host?weights=1,2",
            "redis://a,b?weights=1",
            "redis://a,b?weights=1,0",
            "redis://host?layout=tagged",
            "redis://host?hunter2",
            "redis://host?HUNTER2=1",
            "redis://host?hunterhunterhunterhunterhunterhunter",
            "redis://:hun?ter2@localhost",
            "redis://:hun?hunter@localhost",
            "redis://:hun?hunter&wait=1@localhost",
            "redis+sentinel://:hun?ter2@localhost/service",
            "redis+unix://:hun?hunter@/run/redis.sock",
            "redis://host?wait=many",
            "redis://host?wait=1&wait_timeout=0",
            "redis://host?lock_expire=0",
            "redis://host?lock_expire=-1",
            "redis://host?replica=yes",
            "redis://host?replica=maybe",
            "redis://host?cert=/c.pem",
            "redis://host?max_aside=0",
            "redis://host?max_payload=536870913",
            "redis://host?prefix=%ff",
            "redis+unix://host/path",
            "redis+unix://",
            "redis+cluster://a/1",
            "redis+cluster://a?db=1",
            "redis+cluster://a?layout=other",
            "redis+cluster://a?prefix=x}",
            "redis+sentinel://a",
            "redis+sentinel://a/s?sentinel_user=hunter2",
            "redis+sentinel://a/s/x",
        ] {
            let error = RedisConfig::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            let told = format!("{error:?}").to_lowercase();
            assert!(!["hunter2", "ter2", "hunter"].iter().any(|secret| told.contains(secret)), "{url}: {told}");
        }
        assert!(RedisConfig::from_url("redis://a?wiat=1").unwrap_err().to_string().contains("wiat"));
    }

    #[test]
    fn percent_signs_are_taken_back() {
        assert_eq!(decode("a%2Fb%zz%4", false), b"a/b%zz%4");
        assert_eq!(decode("a+b", false), b"a+b");
        assert_eq!(decode("a+b%2b", true), b"a b+");
    }
}
