//! What the tests share: servers, stores with a prefix of their own, short ways to the store's calls, a plain client.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Payload, Put, Record};
use cloakroom_core::{Deadline, Key, Result, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::php::skip;
use cloakroom_testkit::servers::redis::{RedisCluster, RedisSentinels, RedisServer};
use redis::{Client, Cmd, FromRedisValue, cmd};

pub(crate) const LIFE: Duration = Duration::from_secs(1440);

/// The one server of most tests; `None` where it is to be left out.
pub(crate) fn server() -> Option<&'static RedisServer> {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    (!skip("redis")).then(|| SERVER.get_or_init(|| RedisServer::start(&["--databases", "16"]).unwrap()))
}

/// A cluster that no test harms.
pub(crate) fn cluster() -> Option<&'static RedisCluster> {
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    (!skip("redis")).then(|| CLUSTER.get_or_init(|| RedisCluster::start().unwrap()))
}

/// Sentinels that no test harms.
pub(crate) fn sentinels() -> Option<&'static RedisSentinels> {
    static SENTINELS: OnceLock<RedisSentinels> = OnceLock::new();
    (!skip("redis") && !skip("sentinel")).then(|| SENTINELS.get_or_init(|| RedisSentinels::start().unwrap()))
}

/// A prefix that no other test of any run uses.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("test{}-{}:", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A store on a server, and the plain client to look behind it.
pub(crate) struct Room {
    pub(crate) store: RedisStore,
    pub(crate) config: RedisConfig,
    pub(crate) prefix: String,
    client: Client,
}

impl Room {
    /// On this server, with more options of the URL (`&wait=1`).
    pub(crate) async fn on(server: &RedisServer, options: &str) -> Room {
        let (prefix, addr) = (prefix(), server.addr());
        let config = RedisConfig::from_url(&format!("redis://{addr}?prefix={prefix}{options}")).unwrap();
        let store = RedisStore::open(config.clone()).await.unwrap();
        Room { store, config, prefix, client: Client::open(format!("redis://{addr}")).unwrap() }
    }

    pub(crate) fn record(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    pub(crate) fn lock_key(&self, id: &str) -> String {
        format!("{}{id}_LOCK", self.prefix)
    }

    /// Asks the server past the store.
    pub(crate) async fn raw<T: FromRedisValue>(&self, command: &mut Cmd) -> T {
        let mut connection = self.client.get_multiplexed_async_connection().await.unwrap();
        command.query_async(&mut connection).await.unwrap()
    }

    pub(crate) async fn value(&self, id: &str) -> Option<Vec<u8>> {
        self.raw(cmd("GET").arg(self.record(id))).await
    }

    pub(crate) async fn lock_value(&self, id: &str) -> Option<String> {
        self.raw(cmd("GET").arg(self.lock_key(id))).await
    }

    pub(crate) async fn load(&self, id: &str) -> Result<Option<Record>> {
        self.store.load(&key(id), &wait(5_000)).await
    }

    pub(crate) async fn lock(&self, id: &str, claim: Claim) -> Result<Option<Locked>> {
        self.store.lock(&key(id), claim, &wait(5_000)).await
    }

    pub(crate) async fn commit(&self, id: &str, expect: Expect<'_>, put: Put) -> Result<Outcome> {
        self.store.commit(&key(id), expect, put, &wait(5_000)).await
    }

    pub(crate) async fn create(&self, id: &str, bytes: impl AsRef<[u8]>) {
        let outcome = self.commit(id, Expect::Absent, payload(bytes)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
}

pub(crate) fn key(id: &str) -> Key {
    Key::from_bytes(id.as_bytes())
}

/// Time enough for talking, and so much for waiting.
pub(crate) fn wait(millis: u64) -> Deadline {
    Deadline::new(Duration::from_secs(20), Duration::from_millis(millis))
}

/// The limits of a request: 250 ms for talking.
pub(crate) fn request() -> Deadline {
    Deadline::new(Duration::from_millis(250), Duration::from_secs(5))
}

pub(crate) fn payload(bytes: impl AsRef<[u8]>) -> Put {
    Put::Payload(Payload::new(bytes.as_ref().to_vec().into(), LIFE))
}
