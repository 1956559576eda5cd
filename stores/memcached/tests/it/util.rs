//! The servers that all tests of this program share, and short names for what most of them do.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Payload, Put, Record};
use cloakroom_core::{Deadline, Engine, Key, Result, Session, SessionId, Store};
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use cloakroom_testkit::php::skip;
use cloakroom_testkit::process::{as_ordinary_user, give_to_ordinary_user};
use cloakroom_testkit::servers::memcached::Memcached;
use http::header::COOKIE;
use http::{HeaderValue, Request};
use tempfile::TempDir;

pub(crate) const LIFE: Duration = Duration::from_secs(1440);

/// Three servers that no test harms; `None` where they are to be left out.
pub(crate) fn three() -> Option<&'static [Memcached]> {
    static SERVERS: OnceLock<[Memcached; 3]> = OnceLock::new();
    let start = || [(); 3].map(|()| Memcached::start(&["-m", "256"]).expect("memcached is needed"));
    (!skip("memcached")).then(|| &SERVERS.get_or_init(start)[..])
}

/// One of them.
pub(crate) fn one() -> Option<&'static [Memcached]> {
    three().map(|servers| &servers[..1])
}

/// A server to be harmed.
pub(crate) fn own(options: &[&str]) -> Option<Memcached> {
    (!skip("memcached")).then(|| Memcached::start(options).expect("memcached is needed"))
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("t{}.", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// PHP's `session.save_path` of these servers.
pub(crate) fn save_path(servers: &[Memcached]) -> String {
    servers.iter().map(|server| server.addr().to_string()).collect::<Vec<_>>().join(",")
}

pub(crate) fn config(servers: &[Memcached], prefix: &str) -> MemcachedConfig {
    let url = format!("memcached://{}", save_path(servers));
    // A lock that was lost is noticed when it is to be renewed.
    MemcachedConfig::from_url(&url).unwrap().prefix(prefix).lock_expire(Duration::from_secs(3))
}

pub(crate) async fn open(servers: &[Memcached], prefix: &str) -> MemcachedStore {
    MemcachedStore::open(config(servers, prefix)).await.unwrap()
}

pub(crate) fn key(id: &str) -> Key {
    Key::from_id(&SessionId::parse(id).unwrap())
}

/// Limits that nothing reaches.
pub(crate) fn deadline() -> Deadline {
    Deadline::new(Duration::from_secs(20), Duration::from_secs(60))
}

/// Rule 2's limit for talking, and one for waiting.
pub(crate) fn limits(wait: Duration) -> Deadline {
    Deadline::new(Duration::from_millis(250), wait)
}

pub(crate) fn payload(payload: impl Into<Bytes>) -> Put {
    Put::Payload(Payload::new(payload.into(), LIFE))
}

/// A store with a prefix to itself, and its servers to look behind it.
pub(crate) struct Room {
    pub(crate) store: MemcachedStore,
    pub(crate) servers: &'static [Memcached],
    pub(crate) prefix: String,
}

impl Room {
    pub(crate) async fn on(servers: &'static [Memcached]) -> Room {
        let prefix = prefix();
        Room { store: open(servers, &prefix).await, servers, prefix }
    }

    pub(crate) async fn load(&self, id: &str) -> Option<Record> {
        self.store.load(&key(id), &deadline()).await.unwrap()
    }

    pub(crate) async fn found(&self, id: &str) -> Record {
        self.load(id).await.expect("the record is there")
    }

    pub(crate) async fn commit(&self, id: &str, expect: Expect<'_>, put: Put) -> Result<Outcome> {
        self.store.commit(&key(id), expect, put, &deadline()).await
    }

    pub(crate) async fn create(&self, id: &str, text: &str) {
        let outcome = self.commit(id, Expect::Absent, payload(text.to_owned())).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub(crate) async fn hold(&self, id: &str) -> Locked {
        self.store.lock(&key(id), Claim::Existing, &deadline()).await.unwrap().expect("the record is there")
    }

    /// On whichever server.
    pub(crate) fn raw(&self, name: &str) -> Option<Vec<u8>> {
        self.servers.iter().find_map(|server| server.get(&format!("{}{name}", self.prefix)).unwrap())
    }

    pub(crate) fn ttl(&self, name: &str) -> Option<i64> {
        self.servers.iter().find_map(|server| server.ttl(&format!("{}{name}", self.prefix)).unwrap())
    }

    /// Deletes a key without asking whose it is, as PHP does.
    pub(crate) fn delete(&self, name: &str) -> bool {
        let delete = format!("md {}{name}", self.prefix);
        self.servers.iter().any(|server| server.ask(&delete).unwrap() == "HD")
    }
}

/// Waits for something that has to happen, and does soon.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}

/// A server that listens on a socket in the file system alone; it ends when it is dropped.
pub(crate) struct SocketServer {
    pub(crate) path: PathBuf,
    child: Child,
    _dir: TempDir,
}

pub(crate) fn own_socket() -> Option<SocketServer> {
    if skip("memcached") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    give_to_ordinary_user(dir.path()).unwrap();
    let path = dir.path().join("memcached.sock");
    let mut command = Command::new("memcached");
    command.arg("-s").arg(&path).args(["-a", "700"]);
    as_ordinary_user(&mut command);
    let child = command.spawn().expect("memcached is needed");
    let server = SocketServer { path, child, _dir: dir };
    for _ in 0..1000 {
        if std::os::unix::net::UnixStream::connect(&server.path).is_ok() {
            return Some(server);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("memcached does not listen on its socket");
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request of a visitor who sends this id.
pub(crate) fn begin(engine: &Engine, id: Option<&[u8]>) -> Session {
    let mut request = Request::new(());
    if let Some(id) = id {
        let line = [b"PHPSESSID=", id].concat();
        request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(&line).unwrap());
    }
    engine.begin(&request.into_parts().0)
}
