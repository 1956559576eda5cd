//! PHP's `session.save_path` of the handlers `redis` and `rediscluster`, read as php-redis reads it
//! (`PS_OPEN_FUNC(redis)`, `PS_OPEN_FUNC(rediscluster)`).

use std::time::Duration;

use cloakroom_core::{Error, Result};

use crate::config::{Login, RedisAddress, RedisConfig, RedisServer, RedisServers};
use crate::url::{PORT, address, decode};

/// A list of servers, separated by commas or blanks.
pub(crate) fn redis(path: &str) -> Result<RedisConfig> {
    let mut config = RedisConfig::new(RedisServers::Single(Vec::new()));
    let mut servers = Vec::new();
    for url in path.split(|c: char| c == ',' || is_space(c)).filter(|url| !url.is_empty()) {
        servers.push(server(url, &mut config)?);
    }
    if servers.is_empty() {
        return Err(Error::config("session.save_path names no Redis server"));
    }
    config.servers = RedisServers::Single(servers);
    Ok(config)
}

fn server(url: &str, config: &mut RedisConfig) -> Result<RedisServer> {
    // A password can stand in it, so that the URL itself is not repeated.
    let bad = |what: &str| Error::config(format!("session.save_path: {what}"));
    let url = url.split('#').next().unwrap_or_default();
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let place = place.strip_prefix("unix:").or_else(|| place.strip_prefix("file:")).map_or(place, |path| {
        // `unix:///path` and `unix:/path`.
        path.strip_prefix("//").unwrap_or(path)
    });
    let address = if place.starts_with('/') {
        RedisAddress::Unix(place.into())
    } else {
        let (scheme, rest) = place.split_once("://").unwrap_or(("tcp", place));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "tcp" => false,
            "tls" | "ssl" | "tlsv1.2" | "tlsv1.3" => true,
            _ => return Err(bad("php-redis knows tcp://, tls:// and unix:// (redis:// is a URL of ours)")),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        // PHP reads a name and a password before the host and does not use them.
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        address(host, PORT, tls)?
    };
    let query = Query::read(query);
    let mut server = RedisServer::new(address);
    if let Some(weight) = query.number("weight") {
        server.weight = u32::try_from(weight).ok().filter(|weight| *weight > 0).ok_or_else(|| bad("weight below 1"))?;
    }
    if let Some(timeout) = query.decimal("timeout") {
        config.connect_timeout = connect_timeout(timeout).ok_or_else(|| bad("timeout not above 0"))?;
    }
    // Below 0, which is PHP's default, no database is selected.
    if let Some(database) = query.number("database").filter(|database| *database >= 0) {
        server.database = u16::try_from(database).map_err(|_| bad("database above 65535"))?;
    }
    server.login = query.login()?;
    server.prefix =
        query.text("prefix").map(|prefix| prefix.map_err(|()| bad("prefix that is not UTF-8"))).transpose()?;
    query.tls(config)?;
    Ok(server)
}

/// A query string: `seed[]=host:port&seed[]=host:port&prefix=…`.
pub(crate) fn rediscluster(path: &str) -> Result<RedisConfig> {
    let bad = |what: &str| Error::config(format!("session.save_path of rediscluster: {what}"));
    let query = Query::read(path);
    let mut config = RedisConfig::new(RedisServers::Single(Vec::new()));
    let tls = query.0.iter().any(|(name, _)| name.starts_with(b"stream["));
    let seeds = query.0.iter().filter(|(name, _)| name.starts_with(b"seed["));
    let seeds = seeds.map(|(_, seed)| {
        let seed = std::str::from_utf8(seed).map_err(|_| bad("a seed that is not UTF-8"))?;
        let (tls, seed) = match seed.split_once("://") {
            Some(("tls" | "ssl", seed)) => (true, seed),
            Some(("tcp", seed)) => (false, seed),
            Some(_) => return Err(bad("a seed that is neither tcp:// nor tls://")),
            None => (tls, seed),
        };
        address(seed, PORT, tls)
    });
    let seeds = seeds.collect::<Result<Vec<_>>>()?;
    if seeds.is_empty() {
        return Err(bad("no seed[]= is named"));
    }
    if let Some(timeout) = query.decimal("timeout").filter(|timeout| *timeout != 0.0) {
        config.connect_timeout = connect_timeout(timeout).ok_or_else(|| bad("timeout below 0"))?;
    }
    let prefix = query.text("prefix").map(|prefix| prefix.map_err(|()| bad("prefix that is not UTF-8"))).transpose()?;
    query.tls(&mut config)?;
    config.servers = RedisServers::Cluster { seeds, login: query.login()? };
    config.layout = crate::config::Layout::Php { prefix };
    Ok(config)
}

/// PHP's time for connecting, where it is one that somebody chose: its default of a day is none.
fn connect_timeout(seconds: f64) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(10);
    let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())?;
    Some(timeout.min(MOST))
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// A query string as PHP's `parse_str` reads it: names and values, later ones first.
struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    fn read(query: &str) -> Query {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Query(pairs.collect())
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(given, _)| given == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &str) -> Option<Result<String, ()>> {
        self.bytes(name).map(|bytes| String::from_utf8(bytes.to_vec()).map_err(drop))
    }

    /// PHP's conversion of a text to a number: as much of it as is one, or 0.
    fn decimal(&self, name: &str) -> Option<f64> {
        let text = String::from_utf8_lossy(self.bytes(name)?);
        let text = text.trim_start();
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        let is_number =
            |part: &&str| part.bytes().any(|byte| byte.is_ascii_digit()) && !part.contains(char::is_alphabetic);
        let longest = ends.rev().map(|end| &text[..end]).filter(is_number).find_map(|part| part.parse().ok());
        Some(longest.unwrap_or(0.0))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "PHP cuts the fraction off as well; what is too large saturates"
    )]
    fn number(&self, name: &str) -> Option<i64> {
        self.decimal(name).map(|number| number as i64)
    }

    /// `auth=password`, `auth[]=user&auth[]=password` or `auth[user]=…&auth[pass]=…` (`redis_extract_auth_info`).
    fn login(&self) -> Result<Login> {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec());
            text.map_err(|_| Error::config("session.save_path: auth that is not UTF-8"))
        };
        let mut list: Vec<(&[u8], &[u8])> = Vec::new();
        for (name, value) in &self.0 {
            let Some(inner) = name.strip_prefix(b"auth[").and_then(|rest| rest.strip_suffix(b"]")) else { continue };
            list.push((inner, value));
        }
        if list.is_empty() {
            return self
                .bytes("auth")
                .filter(|auth| !auth.is_empty())
                .map_or(Ok(Login::default()), |auth| Ok(Login::new(None, text(auth)?)));
        }
        let named = |name: &[u8]| list.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| *value);
        let nth = |index: usize| list.get(index).map(|(_, value)| *value);
        let (user, password) = match list.len() {
            1 => (None, named(b"pass").or(nth(0))),
            2 => (named(b"user").or(nth(0)), named(b"pass").or(nth(1))),
            _ => return Err(Error::config("session.save_path: auth[] has one or two elements")),
        };
        let user = user.filter(|user| !user.is_empty()).map(text).transpose()?;
        match password.filter(|password| !password.is_empty()) {
            Some(password) => Ok(Login::new(user, text(password)?)),
            None => Ok(Login::default()),
        }
    }

    /// php-redis 6 hands `stream[…]` to PHP's TLS.
    fn tls(&self, config: &mut RedisConfig) -> Result<()> {
        let path = |name| self.bytes(name).map(|path| String::from_utf8_lossy(path).into_owned().into());
        let no = |name| self.bytes(name).is_some_and(|value| matches!(value, b"0" | b"" | b"false" | b"off" | b"no"));
        if no("stream[verify_peer]") || no("stream[verify_peer_name]") {
            return Err(Error::config(
                "session.save_path: cloakroom speaks to no TLS server whose certificate it may not check; name who vouches for it by stream[cafile]",
            ));
        }
        config.ca = path("stream[cafile]").or(config.ca.take());
        config.cert = path("stream[local_cert]").or(config.cert.take());
        // PHP looks for the key in the certificate's file where it is not named.
        config.key = path("stream[local_pk]").or(config.key.take()).or(config.cert.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    fn servers(path: &str) -> Vec<RedisServer> {
        match redis(path).unwrap().servers {
            RedisServers::Single(servers) => servers,
            other => panic!("{other:?}"),
        }
    }

    fn tcp(host: &str, port: u16) -> RedisAddress {
        RedisAddress::Tcp(host.into(), port)
    }

    #[test]
    fn addresses_as_php_redis_takes_them() {
        for (path, address) in [
            ("tcp://host:7000", tcp("host", 7000)),
            ("tcp://host", tcp("host", 6379)),
            ("host:7000", tcp("host", 7000)),
            ("127.0.0.1", tcp("127.0.0.1", 6379)),
            ("tcp://[::1]:7000?weight=1", tcp("::1", 7000)),
            ("TCP://host:7000/ignored", tcp("host", 7000)),
            ("tcp://not:used@host:7000", tcp("host", 7000)),
            ("tls://host:7000", RedisAddress::Tls("host".into(), 7000)),
            ("unix:///run/redis.sock?weight=1", RedisAddress::Unix("/run/redis.sock".into())),
            ("unix:/run/redis.sock", RedisAddress::Unix("/run/redis.sock".into())),
            ("/run/redis.sock", RedisAddress::Unix("/run/redis.sock".into())),
        ] {
            assert_eq!(servers(path)[0].address, address, "{path}");
        }
        for path in ["", " , ", "redis://host:6379", "tcp://", "tcp://host:port", "udp://host"] {
            assert_eq!(redis(path).unwrap_err().kind(), ErrorKind::Config, "{path}");
        }
    }

    #[test]
    fn a_list_by_commas_or_blanks() {
        let told = servers("tcp://a:1?weight=2,b:2\t tcp://c:3?weight=3x ,");
        let told: Vec<_> = told.iter().map(|server| (server.address.clone(), server.weight)).collect();
        assert_eq!(told, [(tcp("a", 1), 2), (tcp("b", 2), 1), (tcp("c", 3), 3)]);
    }

    #[test]
    fn options_by_php_rules() {
        let server = &servers("a:1?database=3&prefix=MY%3A&auth=se%2Bcret&persistent=1&retry_interval=100")[0];
        assert_eq!((server.database, server.prefix.as_deref()), (3, Some("MY:")));
        assert!(server.login == Login::new(None, "se+cret"));
        assert_eq!(servers("a:1?prefix=")[0].prefix.as_deref(), Some(""));
        assert_eq!(servers("a:1?database=-1")[0].database, 0);
        assert_eq!(redis("a:1?timeout=2.5").unwrap().connect_timeout, Duration::from_millis(2500));
        assert_eq!(redis("a:1?timeout=86400").unwrap().connect_timeout, Duration::from_secs(10));
        assert_eq!(redis("a:1").unwrap().connect_timeout, Duration::from_millis(500));
        for query in ["weight=0", "weight=-1", "weight=x", "timeout=0", "timeout=-1", "timeout=x", "database=99999"] {
            assert_eq!(redis(&format!("a:1?{query}")).unwrap_err().kind(), ErrorKind::Config, "{query}");
        }
    }

    #[test]
    fn logins_by_php_rules() {
        for (query, login) in [
            ("auth=p", Login::new(None, "p")),
            ("auth[]=p", Login::new(None, "p")),
            ("auth[]=u&auth[]=p", Login::new(Some("u".into()), "p")),
            ("auth%5B%5D=u&auth%5B%5D=p", Login::new(Some("u".into()), "p")),
            ("auth[pass]=p&auth[user]=u", Login::new(Some("u".into()), "p")),
            ("auth[]=&auth[]=p", Login::new(None, "p")),
            ("auth=", Login::default()),
            ("", Login::default()),
        ] {
            assert!(servers(&format!("a:1?{query}"))[0].login == login, "{query}");
        }
        assert!(redis("a:1?auth[]=1&auth[]=2&auth[]=3").is_err());
    }

    #[test]
    fn tls_is_checked_always() {
        let config = redis("tls://a:1?stream[cafile]=/ca.pem&stream[local_cert]=/both.pem").unwrap();
        assert_eq!(config.ca.as_deref(), Some("/ca.pem".as_ref()));
        assert_eq!(
            (config.cert.as_deref(), config.key.as_deref()),
            (Some("/both.pem".as_ref()), Some("/both.pem".as_ref()))
        );
        assert!(redis("tls://a:1?stream[verify_peer]=0").unwrap_err().to_string().contains("cafile"));
    }

    #[test]
    fn a_clusters_path_is_a_query() {
        let config =
            rediscluster("seed[]=a:1&seed[]=b:2&timeout=2&read_timeout=2&failover=error&prefix=X:&auth=p").unwrap();
        let RedisServers::Cluster { seeds, login } = &config.servers else { panic!("a cluster") };
        assert_eq!(seeds, &[tcp("a", 1), tcp("b", 2)]);
        assert!(*login == Login::new(None, "p"));
        assert_eq!((config.connect_timeout, config.names(None).prefix), (Duration::from_secs(2), b"X:".to_vec()));
        assert_eq!(rediscluster("seed[]=a:1").unwrap().names(None).prefix, b"PHPREDIS_CLUSTER_SESSION:");
        for path in ["", "seed=a:1", "seed[]=", "seed[]=a:x", "seed[]=a:1&timeout=-1"] {
            assert_eq!(rediscluster(path).unwrap_err().kind(), ErrorKind::Config, "{path}");
        }
    }
}
