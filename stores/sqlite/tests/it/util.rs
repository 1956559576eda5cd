//! What the tests share: a directory with a database, keys, short ways to the store's calls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Payload, Put, Record};
use cloakroom_core::{Deadline, Key, Result, Store};
use cloakroom_store_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::Connection;

pub(crate) const LIFE: Duration = Duration::from_secs(1440);

/// A store on a database in a directory of its own.
pub(crate) struct Room {
    pub(crate) store: SqliteStore,
    pub(crate) config: SqliteConfig,
    dir: tempfile::TempDir,
}

impl Room {
    pub(crate) async fn new() -> Room {
        Room::with("").await
    }

    /// With these options of the URL.
    pub(crate) async fn with(options: &str) -> Room {
        Room::in_dir(tempfile::tempdir().unwrap(), options).await
    }

    pub(crate) async fn in_dir(dir: tempfile::TempDir, options: &str) -> Room {
        let config = config(&dir.path().join("sessions.db"), options);
        Room { store: SqliteStore::open(config.clone()).await.unwrap(), config, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("sessions.db")
    }

    /// What another process has: nothing in common with the first but the file.
    pub(crate) async fn second(&self) -> SqliteStore {
        SqliteStore::open(self.config.clone()).await.unwrap()
    }

    /// A connection of somebody else's. As with any: who reads the file without SQLite takes its locks away.
    pub(crate) fn beside(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        conn.busy_timeout(Duration::from_secs(30)).unwrap();
        conn
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

pub(crate) fn config(path: &Path, options: &str) -> SqliteConfig {
    SqliteConfig::from_url(&format!("sqlite://{}?{options}", path.display())).unwrap()
}

pub(crate) fn key(id: &str) -> Key {
    Key::from_bytes(id.as_bytes())
}

pub(crate) fn wait(millis: u64) -> Deadline {
    Deadline::new(Duration::from_secs(20), Duration::from_millis(millis))
}

pub(crate) fn payload(bytes: impl AsRef<[u8]>) -> Put {
    Put::Payload(Payload::new(Bytes::copy_from_slice(bytes.as_ref()), LIFE))
}

pub(crate) fn count_of(payload: &[u8]) -> usize {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Adds 1 as `update` does, or as `start` does.
pub(crate) async fn increment(store: &SqliteStore, key: &Key, as_update: bool) {
    let next = |record: &Record| payload((count_of(&record.payload) + 1).to_string());
    let patient = || wait(60_000);
    if !as_update {
        let locked = store.lock(key, Claim::Existing, &patient()).await.unwrap().unwrap();
        let put = next(&locked.record.unwrap());
        tokio::task::yield_now().await;
        let outcome = store.commit(key, Expect::Held(locked.lease), put, &patient()).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        return;
    }
    let mut record = store.load(key, &patient()).await.unwrap().unwrap();
    loop {
        match store.commit(key, Expect::Is(&record.version), next(&record), &patient()).await.unwrap() {
            Outcome::Conflict(now) => record = now,
            outcome => {
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                return;
            }
        }
    }
}
