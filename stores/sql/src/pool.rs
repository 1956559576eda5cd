//! Connections: how many there are, that a dirty one is never used again, and one way of asking for both servers.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloakroom_core::{Deadline, Error, Result};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection, Row as _, SqlSafeStr as _, SqlStr,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Server;
use crate::error::{Failure, sort, sort_connecting};
use crate::layout::Dialect;
use crate::row::{Arg, Row, bind_mysql, bind_postgres};

/// How long connecting goes on, also after the request that wanted it gave up.
const CONNECTING: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is tried before it is used: the server may have closed it.
const IDLE: Duration = Duration::from_secs(1);
/// How long saying goodbye to a server may take.
const CLOSING: Duration = Duration::from_secs(1);
/// What the server calls the connection.
const POSTGRES_NUMBER: &str = "SELECT pg_backend_pid()";
/// What our statements rely on, whatever the server's own settings are: nothing is cut off, and no gaps are locked. And
/// what the server calls the connection.
const MYSQL_SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'; \
                             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SELECT CONNECTION_ID()";

/// A bounded number of connections to one server.
///
/// sqlx's own pool asks each connection that comes back whether it lives, without a limit: one whose server has fallen
/// silent keeps its place for ever. Here a connection that was idle is asked when it is wanted, within the limit of
/// the request that wants it.
pub(crate) struct Pool {
    server: Server,
    gate: Arc<Semaphore>,
    idle: Shelf,
    trouble: Trouble,
    handle: Handle,
}

/// The connections that nobody uses. The last to come is the first to go, so that those beyond need grow old and die.
type Shelf = Arc<Mutex<Vec<Idle>>>;

struct Idle {
    raw: Raw,
    since: Instant,
}

/// When a connection was last found broken. Those that were used last before that may be so as well.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<Instant>>>);

impl Trouble {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_suspect(&self, idle_since: Instant) -> bool {
        let noted = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle_since.elapsed() > IDLE || noted.is_some_and(|noted| noted > idle_since)
    }
}

impl Pool {
    /// Connects to nothing yet.
    pub(crate) fn new(server: &Server, size: u32, handle: &Handle) -> Pool {
        let (idle, trouble) = (Shelf::default(), Trouble::default());
        Pool { server: server.clone(), gate: gate(size), idle, trouble, handle: handle.clone() }
    }

    /// Further connections to the same server, with a limit of their own. What is idle is there for both: the connection
    /// on which a request has just read is the one that its write is risked on. Trouble with one is trouble with all.
    pub(crate) fn beside(&self, size: u32) -> Pool {
        let Pool { server, idle, trouble, handle, .. } = self;
        let (server, idle, trouble, handle) = (server.clone(), Arc::clone(idle), trouble.clone(), handle.clone());
        Pool { server, gate: gate(size), idle, trouble, handle }
    }

    /// A connection, within what is left of the time for talking.
    pub(crate) async fn get(&self, deadline: &Deadline) -> Result<Conn, Failure> {
        let gate = Arc::clone(&self.gate);
        let mut permit = match Arc::clone(&gate).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match deadline.io(gate.acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(Failure::NotSent(exhausted())),
            },
        };
        while let Some(Idle { raw, since }) = self.last() {
            let mut conn = self.conn(raw, permit);
            if !self.trouble.is_suspect(since) {
                return Ok(conn);
            }
            match deadline.io(conn.ping()).await {
                Ok(Ok(())) => return Ok(conn),
                Ok(Err(_)) => {}
                Err(error) => {
                    // It stays silent, and so may the others that are as old.
                    self.trouble.note();
                    return Err(Failure::NotSent(error));
                }
            }
            // A broken one is closed; its place is the next one's.
            let Some(place) = conn.permit.take() else { return Err(Failure::NotSent(exhausted())) };
            permit = place;
        }
        // Connecting goes on when the request that wanted it has given up, or it might never succeed.
        let (server, new) = (self.server.clone(), self.maker());
        let connecting = self.handle.spawn(async move {
            match tokio::time::timeout(CONNECTING, connect(&server)).await {
                Ok(raw) => raw.map(|raw| new(raw, permit)).map_err(sort_connecting),
                Err(_) => Err(Failure::NotSent(Error::unavailable("the database could not be reached in time"))),
            }
        });
        let stopped = || Err(Failure::NotSent(Error::unavailable("connecting to the database broke off")));
        deadline.io(async { connecting.await.unwrap_or_else(|_| stopped()) }).await.map_err(Failure::NotSent)?
    }

    /// Whether all places are taken.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.gate.available_permits() == 0
    }

    fn last(&self) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn conn(&self, raw: Raw, permit: OwnedSemaphorePermit) -> Conn {
        self.maker()(raw, permit)
    }

    fn maker(&self) -> impl FnOnce(Raw, OwnedSemaphorePermit) -> Conn + Send + 'static {
        let (idle, trouble, handle) = (Arc::clone(&self.idle), self.trouble.clone(), self.handle.clone());
        move |raw, permit| Conn {
            raw: Some(raw),
            permit: Some(permit),
            busy: false,
            open: false,
            idle,
            trouble,
            handle,
        }
    }
}

fn gate(size: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)))
}

async fn connect(server: &Server) -> sqlx::Result<Raw> {
    match server {
        Server::Postgres(options) => {
            let mut connection = PgConnection::connect_with(options).await?;
            let rows = sqlx::query(POSTGRES_NUMBER).persistent(false).fetch_all(&mut connection).await?;
            let number = rows.first().and_then(|row| row.try_get_unchecked::<i32, _>(0).ok()).unwrap_or_default();
            Ok(Raw::Postgres(Box::new(connection), number.into()))
        }
        Server::MySql(options) => {
            let mut connection = MySqlConnection::connect_with(options).await?;
            let rows = sqlx::raw_sql(MYSQL_SESSION).fetch_all(&mut connection).await?;
            let number = rows.first().and_then(|row| row.try_get_unchecked(0).ok()).unwrap_or_default();
            Ok(Raw::MySql(Box::new(connection), number))
        }
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
    idle: Shelf,
    trouble: Trouble,
    handle: Handle,
}

/// With its number at the server.
enum Raw {
    Postgres(Box<PgConnection>, i64),
    MySql(Box<MySqlConnection>, i64),
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
            Some(Raw::MySql(..)) => Dialect::MySql,
            _ => Dialect::Postgres,
        }
    }

    /// What the server calls it.
    pub(crate) fn number(&self) -> Option<i64> {
        match self.raw {
            Some(Raw::Postgres(_, number) | Raw::MySql(_, number)) => Some(number),
            None => None,
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
            Raw::Postgres(connection, _) => {
                let rows = bind_postgres(sql, args).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            Raw::MySql(connection, _) => {
                let rows = bind_mysql(sql, args).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::MySql).collect())
            }
        };
        self.exchange(answer).await
    }

    /// Carries out a statement that gives no rows.
    pub(crate) async fn run(&mut self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<Ran, Failure> {
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection, _) => {
                let done = bind_postgres(sql, args).execute(&mut **connection).await?;
                Ok(Ran { found: done.rows_affected(), told: 0 })
            }
            Raw::MySql(connection, _) => {
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
            Raw::Postgres(connection, _) => {
                let rows = sqlx::query(sql).persistent(false).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            Raw::MySql(connection, _) => {
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
            Raw::Postgres(connection, _) => connection.execute(sql).await.map(|done| done.rows_affected()),
            Raw::MySql(connection, _) => connection.execute(sql).await.map(|done| done.rows_affected()),
        };
        self.exchange(answer).await
    }

    /// Sends several statements in one go, and gets the rows of all.
    pub(crate) async fn flight(&mut self, sql: String) -> Result<Vec<Row>, Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql).into_sql_str());
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection, _) => {
                let rows = connection.fetch_all(sql).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            Raw::MySql(connection, _) => {
                let rows = connection.fetch_all(sql).await?;
                Ok(rows.into_iter().map(Row::MySql).collect())
            }
        };
        self.exchange(answer).await
    }

    /// The smallest exchange that there is.
    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        let answer = async |raw: &mut Raw| match raw {
            Raw::Postgres(connection, _) => connection.ping().await,
            Raw::MySql(connection, _) => connection.ping().await,
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
        let Some(raw) = self.raw.take() else { return };
        if self.busy {
            // An answer is outstanding: there is nothing to say any more. Others may wait for theirs in vain as well.
            self.trouble.note();
            drop(raw);
        } else if self.open {
            self.handle.spawn(tokio::time::timeout(CLOSING, async move {
                match raw {
                    Raw::Postgres(connection, _) => connection.close().await,
                    Raw::MySql(connection, _) => connection.close().await,
                }
            }));
        } else {
            let idle = Idle { raw, since: Instant::now() };
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        }
        // Only now, so that whoever gets the place finds the connection.
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
