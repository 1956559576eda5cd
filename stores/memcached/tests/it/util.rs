//! The servers that all tests of this program share, and short names for what most of them do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom_core::{Deadline, Key, SessionId};
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use cloakroom_testkit::php;
use cloakroom_testkit::servers::memcached::Memcached;

/// One server and two more.
pub(crate) fn three() -> &'static [Memcached; 3] {
    static SERVERS: OnceLock<[Memcached; 3]> = OnceLock::new();
    SERVERS.get_or_init(|| [(); 3].map(|()| Memcached::start(&["-m", "256"]).expect("memcached is needed")))
}

/// Whether tests that need a server are to be skipped.
pub(crate) fn skip() -> bool {
    php::skip("memcached")
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
    MemcachedConfig::from_url(&url).unwrap().prefix(prefix).lock_expire(Duration::from_secs(3))
}

pub(crate) async fn open(servers: &[Memcached], prefix: &str) -> MemcachedStore {
    MemcachedStore::open(config(servers, prefix)).await.unwrap()
}

pub(crate) fn key(id: &str) -> Key {
    Key::from_id(&SessionId::parse(id).unwrap())
}

pub(crate) fn deadline() -> Deadline {
    Deadline::new(Duration::from_secs(20), Duration::from_secs(60))
}
