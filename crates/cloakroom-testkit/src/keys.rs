//! Records under keys, in Redis and in Memcached: planting them, and reading what a request left there. What
//! [`store`](crate::store) is for the session directory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure, Result};
use crate::latin1;
use crate::process::Process;
use crate::scenario::{Kind, Planted};
use crate::store::Entry;
use crate::times;

/// Nothing that a scenario asks takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the sessions of a scenario are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the session directory.
    #[default]
    Files,
    /// In a Redis server: `{redis}` is its address in `session.save_path`.
    Redis,
    /// In a Memcached server: `{memcached}` is its address in `session.save_path`.
    Memcached,
}

impl Place {
    /// The name that `session.save_handler` and `CLOAKROOM_SKIP` know.
    pub fn name(self) -> &'static str {
        match self {
            Place::Files => "files",
            Place::Redis => "redis",
            Place::Memcached => "memcached",
        }
    }

    /// The extensions that PHP needs for it, in the order in which they have to be loaded.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Place::Files => &[],
            Place::Redis => &["igbinary", "redis"],
            Place::Memcached => &["igbinary", "msgpack", "memcached"],
        }
    }
}

/// A server with nothing in it, for one scenario at a time.
#[derive(Debug)]
pub struct Keys {
    place: Place,
    addr: SocketAddr,
    _turn: MutexGuard<'static, ()>,
}

impl Keys {
    /// Waits until no other scenario uses the server, starting it if need be, and empties it.
    pub fn open(place: Place) -> Result<Keys> {
        static REDIS: OnceLock<Result<Process>> = OnceLock::new();
        static MEMCACHED: OnceLock<Result<Process>> = OnceLock::new();
        static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
        let (server, turn) = match place {
            Place::Files => return Err(Failure::new("session files have no server")),
            Place::Redis => (&REDIS, &TURNS[0]),
            Place::Memcached => (&MEMCACHED, &TURNS[1]),
        };
        let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let server =
            server.get_or_init(|| start(place)).as_ref().map_err(|failure| Failure::new(failure.to_string()))?;
        let keys = Keys { place, addr: server.addr(), _turn: turn };
        keys.empty()?;
        Ok(keys)
    }

    /// What stands in a scenario for the server's address, and what it stands for.
    pub fn placeholder(&self) -> (&'static str, String) {
        match self.place {
            Place::Memcached => ("{memcached}", self.addr.to_string()),
            Place::Redis | Place::Files => ("{redis}", format!("tcp://{}", self.addr)),
        }
    }

    fn empty(&self) -> Result<()> {
        match self.place {
            Place::Memcached => Memcached::connect(self.addr)?.line("flush_all").map(drop),
            Place::Redis | Place::Files => Redis::connect(self.addr)?.ask(&[b"FLUSHALL"]).map(drop),
        }
    }

    /// Writes or removes one record, its placeholders already filled in.
    pub fn plant(&self, planted: &Planted) -> Result<()> {
        let (key, value) = (latin1::bytes(&planted.name), latin1::bytes(&planted.content.text()));
        let lives = planted.ttl.unwrap_or(0);
        match (self.place, planted.kind) {
            (Place::Memcached, Kind::File) => Memcached::connect(self.addr)?.set(&key, &value, lives),
            (Place::Memcached, Kind::Remove) => Memcached::connect(self.addr)?.delete(&key),
            (Place::Redis, Kind::File) if lives > 0 => {
                let lives = lives.to_string();
                Redis::connect(self.addr)?.ask(&[b"SETEX", &key, lives.as_bytes(), &value]).map(drop)
            }
            (Place::Redis, Kind::File) => Redis::connect(self.addr)?.ask(&[b"SET", &key, &value]).map(drop),
            (Place::Redis, Kind::Remove) => Redis::connect(self.addr)?.ask(&[b"DEL", &key]).map(drop),
            (_, kind) => Err(Failure::new(format!("{}: a record cannot be a {kind:?}", planted.name))),
        }
    }

    /// All records but cloakroom's own, whose keys begin with `cloakroom:`.
    pub fn list(&self) -> Result<BTreeMap<String, Entry>> {
        let mut entries = match self.place {
            Place::Memcached => Memcached::connect(self.addr)?.list()?,
            Place::Redis | Place::Files => Redis::connect(self.addr)?.list()?,
        };
        entries.retain(|name, _| !name.starts_with("cloakroom:"));
        Ok(entries)
    }
}

fn start(place: Place) -> Result<Process> {
    Process::start_shared(place.name(), |addr, dir| {
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        if place == Place::Memcached {
            let mut command = Command::new("memcached");
            command.args(["-l", &host, "-p", &port, "-m", "64"]);
            return command;
        }
        let mut command = Command::new("redis-server");
        command.args(["--bind", &host, "--port", &port, "--save", "", "--appendonly", "no", "--dir"]).arg(dir);
        command
    })
}

fn connect(addr: SocketAddr) -> Result<BufReader<TcpStream>> {
    let doing = || format!("connecting to {addr}");
    let stream = TcpStream::connect(addr).doing(doing)?;
    stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
    Ok(BufReader::new(stream))
}

fn line(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).doing(|| "reading a reply".to_owned())?;
    line.truncate(line.len().saturating_sub(2));
    Ok(line)
}

fn exactly(stream: &mut BufReader<TcpStream>, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes).doing(|| "reading a reply".to_owned())?;
    bytes.truncate(length);
    Ok(bytes)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T> {
    let text = latin1::text(text);
    text.parse().map_err(|_| Failure::new(format!("`{text}` is not a number")))
}

/// As much of Redis's protocol as planting and looking needs.
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn connect(addr: SocketAddr) -> Result<Redis> {
        connect(addr).map(Redis)
    }

    /// Sends one command; its reply as a list of texts, `None` for nil.
    fn ask(&mut self, words: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend([*word, b"\r\n"].concat());
        }
        self.0.get_mut().write_all(&command).doing(|| "asking Redis".to_owned())?;
        let head = line(&mut self.0)?;
        match head.split_first() {
            Some((b'*', count)) => (0..number::<usize>(count)?).map(|_| self.one()).collect(),
            _ => Ok(vec![self.rest(&head)?]),
        }
    }

    fn one(&mut self) -> Result<Option<Vec<u8>>> {
        let head = line(&mut self.0)?;
        self.rest(&head)
    }

    fn rest(&mut self, head: &[u8]) -> Result<Option<Vec<u8>>> {
        match head.split_first() {
            Some((b'$', b"-1")) => Ok(None),
            Some((b'$', length)) => exactly(&mut self.0, number(length)?).map(Some),
            Some((b'+' | b':', text)) => Ok(Some(text.to_vec())),
            _ => Err(Failure::new(format!("Redis said {}", latin1::text(head)))),
        }
    }

    fn list(&mut self) -> Result<BTreeMap<String, Entry>> {
        let keys = self.ask(&[b"KEYS", b"*"])?;
        let mut entries = BTreeMap::new();
        for key in keys.into_iter().flatten() {
            // What is not a text is no session.
            let Ok(Some(value)) = self.ask(&[b"GET", &key]).map(|mut texts| texts.pop().flatten()) else { continue };
            let lives = self.ask(&[b"TTL", &key])?.pop().flatten().unwrap_or_default();
            entries.insert(latin1::text(&key), Entry::record(&value, number(&lives)?));
        }
        Ok(entries)
    }
}

/// As much of Memcached's protocol as planting and looking needs.
struct Memcached(BufReader<TcpStream>);

impl Memcached {
    fn connect(addr: SocketAddr) -> Result<Memcached> {
        connect(addr).map(Memcached)
    }

    fn line(&mut self, command: &str) -> Result<String> {
        self.send(&[command.as_bytes(), b"\r\n"].concat())?;
        Ok(latin1::text(&line(&mut self.0)?))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.get_mut().write_all(bytes).doing(|| "asking Memcached".to_owned())
    }

    fn set(&mut self, key: &[u8], value: &[u8], lives: i64) -> Result<()> {
        let head = format!(" 0 {lives} {}\r\n", value.len());
        self.send(&[b"set ", key, head.as_bytes(), value, b"\r\n"].concat())?;
        match line(&mut self.0)?.as_slice() {
            b"STORED" => Ok(()),
            other => Err(Failure::new(format!("Memcached said {}", latin1::text(other)))),
        }
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.send(&[b"delete ", key, b"\r\n"].concat())?;
        line(&mut self.0).map(drop)
    }

    fn list(&mut self) -> Result<BTreeMap<String, Entry>> {
        self.send(b"lru_crawler metadump hash\r\n")?;
        let mut keys = Vec::new();
        loop {
            let line = latin1::text(&line(&mut self.0)?);
            match line.strip_prefix("key=").and_then(|rest| rest.split_once(" exp=")) {
                Some((key, rest)) => {
                    let ends: i64 = number(rest.split(' ').next().unwrap_or_default().as_bytes())?;
                    keys.push((unescape(key), ends));
                }
                None if line == "END" => break,
                None => return Err(Failure::new(format!("Memcached said {line}"))),
            }
        }
        let (mut entries, now) = (BTreeMap::new(), times::now());
        for (key, ends) in keys {
            let head = self.line(&format!("get {key}"))?;
            // Expired meanwhile, or before.
            let Some(length) = head.strip_prefix("VALUE ").and_then(|rest| rest.rsplit(' ').next()) else { continue };
            let value = exactly(&mut self.0, number(length.as_bytes())?)?;
            line(&mut self.0)?;
            entries.insert(key, Entry::record(&value, if ends < 0 { -1 } else { ends - now }));
        }
        Ok(entries)
    }
}

/// Keys are listed as in URLs; those of scenarios are ASCII.
fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hex = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => out.extend([char::from(byte).to_string().as_str(), &part[2..]]),
            None => out.extend(["%", part]),
        }
    }
    out
}
