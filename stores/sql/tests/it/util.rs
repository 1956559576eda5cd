//! What the tests share: a fresh store on a fresh database, and looking at the rows beside it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Payload, Put, Record, Version};
use cloakroom_core::{Deadline, DynStore, Key, Result, SessionId, Store};
use cloakroom_store_sql::{SqlConfig, SqlStore};
use cloakroom_testkit::conformance::Harness;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use crate::servers::{Kind, Place, lend, number};

/// How long a lease lasts in these tests; a third of it is how soon a lock is known to be lost.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A store in a database of its own.
pub(crate) struct Fresh {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) store: SqlStore,
    pub(crate) beside: Beside,
    symfony: bool,
    /// Which keys are its own.
    number: u32,
    /// The last to go.
    _place: Option<Place>,
}

/// Connections that are not the store's.
#[derive(Clone)]
pub(crate) enum Beside {
    Postgres(sqlx::PgPool),
    MariaDb(sqlx::MySqlPool),
}

impl Beside {
    pub(crate) async fn open(url: &str) -> Beside {
        if url.starts_with("postgres") {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8);
            Beside::Postgres(pool.connect(url).await.unwrap())
        } else {
            let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(8);
            Beside::MariaDb(pool.connect(&url.replacen("mariadb", "mysql", 1)).await.unwrap())
        }
    }

    /// Runs statements that give nothing.
    pub(crate) async fn run(&self, sql: String) {
        match self {
            Beside::Postgres(pool) => drop(pool.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap()),
            Beside::MariaDb(pool) => drop(pool.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap()),
        }
    }

    /// The first column of each row, as bytes.
    pub(crate) async fn column(&self, sql: String) -> Vec<Bytes> {
        match self {
            Beside::Postgres(pool) => {
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap();
                rows.iter().map(|row| row.get_unchecked::<Vec<u8>, _>(0).into()).collect()
            }
            Beside::MariaDb(pool) => {
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap();
                rows.iter().map(|row| row.get_unchecked::<Vec<u8>, _>(0).into()).collect()
            }
        }
    }

    /// The first column of the first row, as a number.
    pub(crate) async fn number(&self, sql: String) -> Option<i64> {
        match self {
            Beside::Postgres(pool) => {
                let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(pool).await.unwrap();
                row.and_then(|row| row.get_unchecked::<Option<i64>, _>(0))
            }
            Beside::MariaDb(pool) => {
                let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(pool).await.unwrap();
                row.and_then(|row| row.get_unchecked::<Option<i64>, _>(0))
            }
        }
    }
}

/// Bytes as both kinds of SQL take them in text.
pub(crate) fn literal(kind: Kind, bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        write!(digits, "{byte:02x}").unwrap();
    }
    match kind {
        Kind::Postgres => format!("'\\x{digits}'::bytea"),
        Kind::MariaDb => format!("x'{digits}'"),
    }
}

impl Fresh {
    /// `options` follow in the URL.
    pub(crate) async fn new(kind: Kind, options: &str) -> Fresh {
        Fresh::lent(lend(kind), options).await
    }

    /// The same on a database that was lent before.
    pub(crate) async fn lent(place: Place, options: &str) -> Fresh {
        let fresh = Fresh::at(place.kind, &place.address, place.database.clone(), options).await;
        Fresh { _place: Some(place), ..fresh }
    }

    /// The same on a database that is there already.
    pub(crate) async fn at(kind: Kind, address: &str, database: String, options: &str) -> Fresh {
        let url = format!("{address}&{options}");
        let beside = Beside::open(address).await;
        let store = open(&url).await;
        Fresh {
            kind,
            store,
            beside,
            symfony: url.contains("layout=symfony"),
            url,
            database,
            number: number(),
            _place: None,
        }
    }

    /// A text for the id's column.
    pub(crate) fn id(&self, key: &Key) -> String {
        let bytes = literal(self.kind, key.record());
        if self.symfony && self.kind == Kind::Postgres { format!("convert_from({bytes}, 'UTF8')") } else { bytes }
    }

    /// How many connections have a statement under way, or wait in the midst of one, besides the one that asks.
    pub(crate) async fn waiting(&self) -> i64 {
        let sql = match self.kind {
            Kind::Postgres => {
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            }
            Kind::MariaDb => {
                "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.PROCESSLIST \
                 WHERE DB = DATABASE() AND COMMAND <> 'Sleep' AND ID <> CONNECTION_ID()"
            }
        };
        self.beside.number(sql.to_owned()).await.unwrap()
    }

    /// The seconds since 1970 as the server counts them.
    pub(crate) fn now(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "floor(extract(epoch FROM clock_timestamp()))::bigint",
            Kind::MariaDb => "UNIX_TIMESTAMP()",
        }
    }
}

/// A store with short leases.
pub(crate) async fn open(url: &str) -> SqlStore {
    SqlStore::open(SqlConfig::from_url(url).unwrap().lease(LEASE)).await.unwrap()
}

impl Harness for Fresh {
    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    /// Who holds a row with a transaction keeps everybody from changing it, also from this: then it is done as soon as
    /// the row is free, if nobody has written it meanwhile.
    async fn age(&self, key: &Key, by: Duration) {
        let id = self.id(key);
        if !self.symfony {
            let (by, t) = (by.as_millis(), "cloakroom_sessions");
            self.beside.run(format!("UPDATE {t} SET expires_at = expires_at - {by} WHERE id = {id}")).await;
            return;
        }
        let (by, t) = (by.as_secs(), "sessions");
        let payload = self.beside.column(format!("SELECT sess_data FROM {t} WHERE sess_id = {id}")).await;
        let Some(payload) = payload.first() else { return };
        let same = literal(self.kind, payload);
        let (beside, age) = (
            self.beside.clone(),
            format!(
                "UPDATE {t} SET sess_lifetime = sess_lifetime - {by}, sess_time = sess_time - {by} \
             WHERE sess_id = {id} AND sess_data = {same}"
            ),
        );
        let aging = tokio::spawn(async move { beside.run(age).await });
        let _ = tokio::time::timeout(Duration::from_millis(500), aging).await;
    }

    /// What another process has: nothing in common with the first but the database.
    async fn second(&self) -> Option<Arc<dyn DynStore>> {
        if self.url.contains("lock=none") {
            return None;
        }
        Some(Arc::new(open(&self.url).await))
    }

    async fn lose_lock(&self, key: &Key) -> bool {
        let id = self.id(key);
        if !self.symfony {
            let held = format!("SELECT lock_token FROM cloakroom_sessions WHERE id = {id} AND lock_token <> 0");
            let held = self.beside.number(held).await.is_some();
            self.beside
                .run(format!("UPDATE cloakroom_sessions SET lock_token = 0, lock_until = 0 WHERE id = {id}"))
                .await;
            return held;
        }
        let Some(holder) = self.holder(key).await else { return false };
        match self.kind {
            Kind::Postgres => self.beside.run(format!("SELECT pg_terminate_backend({holder})")).await,
            Kind::MariaDb => self.beside.run(format!("KILL {holder}")).await,
        }
        // It is gone when somebody else can have what it held.
        while self.holder(key).await == Some(holder) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    async fn aside(&self) -> Option<Vec<Bytes>> {
        Some(self.beside.column("SELECT payload FROM cloakroom_aside".to_owned()).await)
    }

    /// With so many different first bytes as real ids have: locks of PostgreSQL's are told apart by eight of them,
    /// those of MariaDB's are the whole server's.
    fn key(&self, name: &str) -> Key {
        let mut hasher = DefaultHasher::new();
        (self.number, name).hash(&mut hasher);
        let unique = format!("{:08x}{name}", hasher.finish() >> 32);
        let id = if unique.len() <= 128 { unique } else { name.to_owned() };
        Key::from_id(&SessionId::parse(&id).unwrap())
    }

    /// Symfony counts in seconds.
    fn tick(&self) -> Duration {
        if self.symfony { Duration::from_secs(1) } else { Duration::from_millis(2) }
    }

    /// Each of them is several round trips.
    fn increments(&self) -> usize {
        200
    }
}

impl Fresh {
    /// The connection that holds the lock on a record of Symfony's.
    async fn holder(&self, key: &Key) -> Option<i64> {
        let id = self.id(key);
        match (self.kind, self.url.contains("lock=advisory")) {
            (_, _) if self.url.contains("lock=none") => None,
            (Kind::Postgres, true) => {
                let mut bytes = [0; 8];
                bytes.iter_mut().zip(key.record()).for_each(|(to, from)| *to = *from);
                let number = i64::from_le_bytes(bytes);
                self.beside
                    .number(format!(
                        "SELECT pid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
                         AND ((classid::bigint << 32) | objid::bigint) = {number} \
                         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                    ))
                    .await
            }
            (Kind::MariaDb, true) => {
                let name = literal(self.kind, &key.record()[..key.record().len().min(64)]);
                self.beside.number(format!("SELECT CAST(IS_USED_LOCK({name}) AS SIGNED)")).await
            }
            (Kind::Postgres, false) => {
                // Who is in the way of one that wants the row.
                let Beside::Postgres(pool) = &self.beside else { unreachable!() };
                // A connection of its own: a late signal is to hit nobody else.
                let mut waiting = pool.acquire().await.unwrap().detach();
                let pid: i32 = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut waiting).await.unwrap().get(0);
                let want = format!("SELECT 1 FROM sessions WHERE sess_id = {id} FOR UPDATE");
                let wanting = tokio::spawn(async move { waiting.execute(AssertSqlSafe(want)).await.is_ok() });
                let mut found = None;
                while found.is_none() && !wanting.is_finished() {
                    found = self.beside.number(format!("SELECT (pg_blocking_pids({pid}))[1]::bigint")).await;
                }
                self.beside.run(format!("SELECT pg_cancel_backend({pid})")).await;
                let _ = wanting.await;
                found
            }
            (Kind::MariaDb, false) => {
                let Beside::MariaDb(pool) = &self.beside else { unreachable!() };
                // A connection of its own: a late signal is to hit nobody else.
                let mut waiting = pool.acquire().await.unwrap().detach();
                let me: i64 =
                    sqlx::query("SELECT CONNECTION_ID()").fetch_one(&mut waiting).await.unwrap().get_unchecked(0);
                let want = format!("SELECT 1 FROM sessions WHERE sess_id = {id} FOR UPDATE");
                let wanting = tokio::spawn(async move { waiting.execute(AssertSqlSafe(want)).await.is_ok() });
                let mut found = None;
                while found.is_none() && !wanting.is_finished() {
                    // MariaDB looks anew only if nobody has asked for a tenth of a second.
                    tokio::time::sleep(Duration::from_millis(150)).await;
                    found = self
                        .beside
                        .number(format!(
                            "SELECT CAST(b.trx_mysql_thread_id AS SIGNED) FROM information_schema.INNODB_LOCK_WAITS w \
                             JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id \
                             JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id \
                             WHERE r.trx_mysql_thread_id = {me} LIMIT 1"
                        ))
                        .await;
                }
                if found.is_some() {
                    self.beside.run(format!("KILL QUERY {me}")).await;
                }
                let _ = wanting.await;
                found
            }
        }
    }
}

/// Limits that nothing reaches.
pub(crate) fn patient() -> Deadline {
    Deadline::new(Duration::from_mins(1), Duration::from_mins(1))
}

pub(crate) fn write(payload: impl Into<Bytes>) -> Put {
    Put::Payload(Payload::new(payload.into(), Duration::from_mins(24)))
}

pub(crate) async fn load(store: &SqlStore, key: &Key) -> Option<Record> {
    Store::load(store, key, &patient()).await.unwrap()
}

pub(crate) async fn create(store: &SqlStore, key: &Key, payload: impl Into<Bytes>) -> Version {
    match Store::commit(store, key, Expect::Absent, write(payload), &patient()).await.unwrap() {
        Outcome::Done(Some(version)) => version,
        outcome => panic!("{outcome:?}"),
    }
}

pub(crate) async fn commit(store: &SqlStore, key: &Key, expect: Expect<'_>, put: Put) -> Result<Outcome> {
    Store::commit(store, key, expect, put, &patient()).await
}

pub(crate) async fn hold(store: &SqlStore, key: &Key) -> Locked {
    Store::lock(store, key, Claim::Existing, &patient()).await.unwrap().unwrap()
}
