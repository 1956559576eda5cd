//! Connections: how many there are, that a dirty one is never used again, and one way of asking for both servers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloakroom_core::{Deadline, Error, Result};
use sqlx::SqlStr;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::pool::{PoolConnection, PoolConnectionMetadata, PoolOptions};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySql, Postgres, SqlSafeStr as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Server;
use crate::error::{Failure, sort, sort_connecting};
use crate::layout::Dialect;
use crate::row::{Arg, Row, bind_mysql, bind_postgres};

/// How long connecting is tried on after the request that wanted it gave up; its pauses are a fifth of it at most.
const CONNECTING: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is tried before it is used: the server may have closed it.
const IDLE: Duration = Duration::from_secs(1);
/// What our statements rely on, whatever the server's own settings are: nothing is cut off, and no gaps are locked.
const MYSQL_SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'; \
                             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// A bounded number of connections to one server.
pub(crate) struct Pool {
    db: Db,
    gate: Arc<Semaphore>,
    trouble: Trouble,
    handle: Handle,
}

enum Db {
    Postgres(sqlx::Pool<Postgres>),
    MySql(sqlx::Pool<MySql>),
}

/// When a connection was last found broken. Those that were used last before that may be so as well.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<Instant>>>);

impl Trouble {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_suspect(&self, idle_for: Duration) -> bool {
        let noted = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle_for > IDLE || noted.is_some_and(|noted| noted.elapsed() < idle_for)
    }
}

type Check<'c> = Pin<Box<dyn Future<Output = sqlx::Result<bool>> + Send + 'c>>;

fn options<DB: sqlx::Database>(size: u32, trouble: &Trouble) -> PoolOptions<DB> {
    let trouble = trouble.clone();
    PoolOptions::new().max_connections(size).acquire_timeout(CONNECTING).test_before_acquire(false).before_acquire(
        move |connection: &mut DB::Connection, meta: PoolConnectionMetadata| -> Check<'_> {
            let suspect = trouble.is_suspect(meta.idle_for);
            Box::pin(async move { Ok(!suspect || connection.ping().await.is_ok()) })
        },
    )
}

impl Pool {
    /// Connects to nothing yet.
    pub(crate) fn new(server: &Server, size: u32, handle: &Handle) -> Pool {
        let trouble = Trouble::default();
        let db = match server {
            Server::Postgres(connect) => {
                let options: PgPoolOptions = options(size, &trouble);
                Db::Postgres(options.connect_lazy_with((**connect).clone()))
            }
            Server::MySql(connect) => {
                let options: MySqlPoolOptions = options(size, &trouble);
                let options = options.after_connect(|connection, _| {
                    Box::pin(async { connection.execute(MYSQL_SESSION).await.map(drop) })
                });
                Db::MySql(options.connect_lazy_with((**connect).clone()))
            }
        };
        let gate = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(usize::MAX)));
        Pool { db, gate, trouble, handle: handle.clone() }
    }

    /// A connection, within what is left of the time for talking.
    pub(crate) async fn get(&self, deadline: &Deadline) -> Result<Conn, Failure> {
        let gate = Arc::clone(&self.gate);
        let permit = match Arc::clone(&gate).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match deadline.io(gate.acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(Failure::NotSent(exhausted())),
            },
        };
        let (trouble, handle) = (self.trouble.clone(), self.handle.clone());
        let new = |raw| Conn { raw: Some(raw), permit: Some(permit), busy: false, open: false, trouble, handle };
        match &self.db {
            Db::Postgres(pool) => self.acquire(pool, deadline, |raw| new(Raw::Postgres(raw))).await,
            Db::MySql(pool) => self.acquire(pool, deadline, |raw| new(Raw::MySql(raw))).await,
        }
    }

    /// Whether the server answers at all. Where all connections are busy, it does.
    pub(crate) async fn is_alive(&self, within: Duration) -> bool {
        if self.gate.available_permits() == 0 {
            return true;
        }
        let deadline = Deadline::new(within, Duration::ZERO);
        let ping = async {
            let mut conn = self.get(&deadline).await?;
            crate::pool::within(&deadline, conn.ping()).await
        };
        ping.await.is_ok()
    }

    async fn acquire<DB: sqlx::Database>(
        &self,
        pool: &sqlx::Pool<DB>,
        deadline: &Deadline,
        new: impl FnOnce(PoolConnection<DB>) -> Conn + Send + 'static,
    ) -> Result<Conn, Failure> {
        let acquire = {
            let pool = pool.clone();
            async move { pool.acquire().await.map(new) }
        };
        let acquired = if pool.num_idle() > 0 {
            deadline.io(acquire).await
        } else {
            // Connecting goes on when the request that wanted it has given up, or it might never succeed.
            let connecting = self.handle.spawn(acquire);
            deadline.io(async { connecting.await.unwrap_or(Err(sqlx::Error::PoolClosed)) }).await
        };
        acquired.map_err(Failure::NotSent)?.map_err(sort_connecting)
    }
}

/// A connection for one piece of work. Dropped in the midst of an exchange or of a transaction it is closed; else it
/// goes back to its pool.
pub(crate) struct Conn {
    raw: Option<Raw>,
    permit: Option<OwnedSemaphorePermit>,
    /// An exchange has begun and has not ended.
    busy: bool,
    /// In a transaction, or holding a lock of the session.
    open: bool,
    trouble: Trouble,
    handle: Handle,
}

enum Raw {
    Postgres(PoolConnection<Postgres>),
    MySql(PoolConnection<MySql>),
}

/// How a statement that only writes ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// Rows that its condition found, changed or not.
    pub(crate) found: u64,
    /// MySQL's `LAST_INSERT_ID(…)`.
    pub(crate) told: u64,
}

impl Conn {
    pub(crate) fn dialect(&self) -> Dialect {
        match self.raw {
            Some(Raw::MySql(_)) => Dialect::MySql,
            _ => Dialect::Postgres,
        }
    }

    /// Says that a transaction or a lock of the session begins or has ended.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Says that nobody knows what state it is in: it will be closed.
    pub(crate) fn spoil(&mut self) {
        self.busy = true;
    }

    /// Asks for rows. All of the answer is awaited: PostgreSQL commits only after the last row.
    pub(crate) async fn rows(&mut self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<Vec<Row>, Failure> {
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection) => {
                let rows = bind_postgres(sql, args).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            Raw::MySql(connection) => {
                let rows = bind_mysql(sql, args).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::MySql).collect())
            }
        };
        self.exchange(answer).await
    }

    /// Carries out a statement that gives no rows.
    pub(crate) async fn run(&mut self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<Ran, Failure> {
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection) => {
                let done = bind_postgres(sql, args).execute(&mut **connection).await?;
                Ok(Ran { found: done.rows_affected(), told: 0 })
            }
            Raw::MySql(connection) => {
                let done = bind_mysql(sql, args).execute(&mut **connection).await?;
                Ok(Ran { found: done.rows_affected(), told: done.last_insert_id() })
            }
        };
        self.exchange(answer).await
    }

    /// Asks for rows with a statement that will not come again, and that is therefore not prepared for long. MySQL's is
    /// sent as it is: closing a prepared one has no answer, and what follows would wait for the kernel to acknowledge it.
    pub(crate) async fn rows_once(&mut self, sql: String) -> Result<Vec<Row>, Failure> {
        let sql = AssertSqlSafe(sql).into_sql_str();
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection) => {
                let rows = sqlx::query(sql).persistent(false).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            Raw::MySql(connection) => {
                let rows = connection.fetch_all(sqlx::raw_sql(sql)).await?;
                Ok(rows.into_iter().map(Row::MySql).collect())
            }
        };
        self.exchange(answer).await
    }

    /// The same without rows: how many it found.
    pub(crate) async fn run_once(&mut self, sql: String) -> Result<u64, Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql).into_sql_str());
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection) => connection.execute(sql).await.map(|done| done.rows_affected()),
            Raw::MySql(connection) => connection.execute(sql).await.map(|done| done.rows_affected()),
        };
        self.exchange(answer).await
    }

    /// Sends several statements in one go, and gets the rows of all.
    pub(crate) async fn flight(&mut self, sql: String) -> Result<Vec<Row>, Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql).into_sql_str());
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection) => {
                let rows = connection.fetch_all(sql).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            Raw::MySql(connection) => {
                let rows = connection.fetch_all(sql).await?;
                Ok(rows.into_iter().map(Row::MySql).collect())
            }
        };
        self.exchange(answer).await
    }

    /// The smallest exchange that there is.
    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection) => connection.ping().await,
            Raw::MySql(connection) => connection.ping().await,
        };
        self.exchange(answer).await
    }

    async fn exchange<T>(&mut self, answer: impl AsyncFnOnce(&mut Raw) -> sqlx::Result<T>) -> Result<T, Failure> {
        let Some(raw) = self.raw.as_mut() else {
            return Err(Failure::NotSent(Error::unavailable("the connection to the database is gone")));
        };
        if self.busy {
            return Err(Failure::NotSent(Error::unavailable("the connection to the database broke earlier")));
        }
        self.busy = true;
        match answer(raw).await {
            Ok(answer) => {
                self.busy = false;
                Ok(answer)
            }
            Err(error) => {
                let (failure, good) = sort(error);
                self.busy = !good;
                if !good {
                    self.trouble.note();
                }
                Err(failure)
            }
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let (Some(raw), broken) = (self.raw.take(), self.busy || self.open) else { return };
        // sqlx gives connections back in a task, and panics where there is no runtime for one.
        let _context = self.handle.enter();
        match raw {
            Raw::Postgres(mut connection) => {
                if broken {
                    connection.close_on_drop();
                }
                drop(connection);
            }
            Raw::MySql(mut connection) => {
                if broken {
                    connection.close_on_drop();
                }
                drop(connection);
            }
        }
        self.permit.take();
    }
}

/// Runs one exchange within what is left of the time for talking.
pub(crate) async fn within<T>(
    deadline: &Deadline,
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let nothing_left = deadline.io_left().is_zero();
    match deadline.io(exchange).await {
        Ok(answer) => answer,
        Err(error) if nothing_left => Err(Failure::NotSent(error)),
        Err(error) => Err(Failure::Lost(error)),
    }
}

/// A statement, once and for all.
pub(crate) fn statement(text: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(text)).into_sql_str()
}

#[cold]
fn exhausted() -> Error {
    Error::unavailable("the pool is exhausted: all connections to the database are in use")
}
