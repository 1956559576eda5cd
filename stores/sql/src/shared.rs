//! What all clones of a store share, and reading and locking with it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom_core::line::{Head, Lines};
use cloakroom_core::store::{Claim, Locked, Put, Record};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Running, Tasks};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::{Server, SqlConfig};
use crate::error::Failure;
use crate::layout::{ASIDE_TABLE, Dialect, Layout, LockMode, NATIVE_KEY, NATIVE_TABLE, SYMFONY_KEY, SYMFONY_TABLE};
use crate::lock::{Grip, Held, SqlLease, give_back};
use crate::migrate::Shape;
use crate::native::{Native, fit, millis, random};
use crate::patience::{Gone, Patience};
use crate::pool::{Conn, Pool};
use crate::store::Step;
use crate::sweep::Place;
use crate::symfony::SymfonyTable;
use crate::{migrate, native_sql, symfony_sql};

/// How long opening looks for the server before it goes on without.
pub(crate) const OPENING: Duration = Duration::from_secs(5);

/// What all clones of a store share.
pub(crate) struct Shared {
    pub(crate) dialect: Dialect,
    pub(crate) way: Way,
    /// For single statements.
    pub(crate) main: Pool,
    /// For what waits for or holds a lock by a connection.
    pub(crate) locks: Pool,
    pub(crate) lines: Lines,
    pub(crate) handle: Handle,
    /// What goes on without its caller.
    pub(crate) tasks: Tasks,
    pub(crate) lease: Duration,
    pub(crate) config: SqlConfig,
    pub(crate) shape: OnceCell<Shape>,
    /// One for each kind of row that a sweep looks for.
    pub(crate) swept_to: Mutex<[Place; 2]>,
}

/// The layout, with its statements.
pub(crate) enum Way {
    Native(Native),
    Symfony(SymfonyTable),
}

impl Shared {
    /// Connects to nothing yet.
    pub(crate) fn new(config: SqlConfig, handle: &Handle) -> Result<Shared> {
        let dialect = match config.server {
            Server::Postgres(_) => Dialect::Postgres,
            Server::MySql(_) => Dialect::MySql,
        };
        let table = config.table.as_deref();
        // Beside the sessions, in the same schema.
        let schema = table.and_then(|table| migrate::split(table).0);
        let aside = schema.map_or_else(|| ASIDE_TABLE.to_owned(), |schema| format!("{schema}.{ASIDE_TABLE}"));
        let way = match &config.layout {
            Layout::Native => Way::Native(Native {
                texts: native_sql::Texts::new(dialect, table.unwrap_or(NATIVE_TABLE), &aside)?,
                lifetime: millis(config.lifetime),
                lease: millis(config.lease),
            }),
            Layout::Symfony(symfony) => Way::Symfony(SymfonyTable {
                texts: symfony_sql::Texts::new(dialect, symfony, table.unwrap_or(SYMFONY_TABLE), &aside)?,
            }),
        };
        let main = Pool::new(&config.server, config.connections, handle);
        Ok(Shared {
            dialect,
            way,
            locks: main.beside(config.lock_connections),
            main,
            lines: Lines::default(),
            tasks: Tasks::default(),
            handle: handle.clone(),
            lease: config.lease,
            config,
            shape: OnceCell::new(),
            swept_to: Mutex::default(),
        })
    }

    /// Runs work to its end, whether its caller waits for that or not.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let ended = self.spawn(work).await;
        ended.unwrap_or_else(|_| Err(Error::unavailable("the runtime of the store has ended").or_maybe_applied()))
    }

    /// Begins work that goes on without its caller, and that the end of the program waits for.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Running<T> {
        self.tasks.spawn(&self.handle, work)
    }

    pub(crate) fn lock_mode(&self) -> Option<LockMode> {
        match &self.way {
            Way::Native(_) => None,
            Way::Symfony(symfony) => Some(symfony.texts.lock),
        }
    }

    pub(crate) fn table_name(&self) -> &str {
        let own = if matches!(self.way, Way::Native(_)) { NATIVE_TABLE } else { SYMFONY_TABLE };
        self.config.table.as_deref().unwrap_or(own)
    }

    pub(crate) fn max_payload(&self) -> usize {
        let known = self.shape.get().map(|shape| shape.max_payload);
        // Before the server could be asked: what Symfony's own table takes.
        let assumed = if self.dialect == Dialect::MySql && self.lock_mode().is_some() { 65_535 } else { usize::MAX };
        self.config.max_payload.min(known.unwrap_or(assumed))
    }

    /// Whether the id column has room for a key. Under one that does not fit nothing can ever have been stored.
    pub(crate) fn has_room_for(&self, key: &Key) -> bool {
        key.record().len() <= self.longest_key()
    }

    fn longest_key(&self) -> usize {
        if self.lock_mode().is_some() { SYMFONY_KEY } else { NATIVE_KEY }
    }

    /// What is said to who wants to keep something under such a key.
    pub(crate) fn no_room(&self) -> Error {
        let most = self.longest_key();
        Error::new(ErrorKind::Unsupported, format!("keep a session whose key has more than {most} bytes"))
    }

    pub(crate) fn check_put(&self, put: &mut Put) -> Result<()> {
        let Put::Payload(payload) = put else { return Ok(()) };
        let most = self.max_payload();
        if payload.bytes.len() > most {
            return Err(Error::new(ErrorKind::TooLarge, format!("write a session of more than {most} bytes")));
        }
        fit(payload)
    }

    /// Makes sure, once, that the tables are there. It goes on when the call that wanted it has given up.
    pub(crate) async fn ready(self: &Arc<Self>, deadline: &Deadline) -> Result<(), Failure> {
        if self.shape.initialized() {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let looking = self.handle.spawn(async move { Shared::look(&shared, OPENING).await });
        match deadline.io(looking).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(_)) => Err(Failure::NotSent(Error::unavailable("the runtime of the store has ended"))),
            Err(error) => Err(Failure::NotSent(error)),
        }
        // Whatever it was, the statement that was to come was not sent.
        .map_err(|failure| Failure::NotSent(failure.of_read()))
    }

    pub(crate) async fn look(shared: &Arc<Shared>, limit: Duration) -> Result<(), Failure> {
        let deadline = Deadline::new(limit, Duration::ZERO);
        shared.shape.get_or_try_init(|| migrate::look(shared, &deadline)).await.map(drop)
    }

    pub(crate) async fn load(self: &Arc<Self>, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        if !self.has_room_for(key) {
            return Ok(None);
        }
        self.ready(deadline).await.map_err(Failure::of_read)?;
        match self.load_once(key, deadline).await {
            // A connection may have been closed since it was last used. Asking twice is harmless.
            Err(Failure::Lost(_)) if !deadline.io_left().is_zero() => self.load_once(key, deadline).await,
            loaded => loaded,
        }
        .map_err(Failure::of_read)
    }

    async fn load_once(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>, Failure> {
        let mut conn = self.main.get(deadline).await?;
        match &self.way {
            Way::Native(native) => native.load(&mut conn, key.record(), deadline).await,
            Way::Symfony(symfony) => symfony.load(&mut conn, key, deadline).await,
        }
    }

    pub(crate) async fn try_lock(
        self: Arc<Self>,
        key: Key,
        claim: Claim,
        head: Head,
        deadline: &Deadline,
        gone: Gone,
        begun: Instant,
    ) -> Result<(Step<Option<Locked>>, Option<Head>)> {
        self.ready(deadline).await.map_err(Failure::of_read)?;
        let taken = match &self.way {
            Way::Native(native) => self.take_lease(native, &key, claim, deadline).await,
            Way::Symfony(symfony) => self.take_lock(symfony, &key, claim, deadline, gone).await,
        };
        match taken {
            Ok(Step::Done(Some((grip, found)))) => {
                let lease = SqlLease::new(&self, &key, grip, found.clone(), head);
                Ok((Step::Done(Some(Locked::new(Box::new(lease), found))), None))
            }
            Ok(Step::Done(None)) => Ok((Step::Done(None), None)),
            Ok(Step::Wait) => Ok((Step::Wait, Some(head))),
            Err(failure) if failure.is_in_the_way() => or_locked(deadline, begun).map(|()| (Step::Wait, Some(head))),
            Err(failure) => Err(failure.of_read()),
        }
    }

    async fn take_lease(
        self: &Arc<Self>,
        native: &Native,
        key: &Key,
        claim: Claim,
        deadline: &Deadline,
    ) -> Result<Step<Option<(Grip, Option<Record>)>>, Failure> {
        let token = random()?;
        let mut conn = self.main.get(deadline).await?;
        match native.try_lock(&mut conn, key.record(), claim, token, deadline).await {
            Ok(Step::Done(Some(found))) => Ok(Step::Done(Some((Grip::Row(token), found)))),
            Ok(Step::Done(None)) => Ok(Step::Done(None)),
            Ok(Step::Wait) => Ok(Step::Wait),
            Err(failure) => {
                if !matches!(failure, Failure::NotSent(_)) {
                    // It may have been taken: nobody is to wait for it to run out.
                    let (shared, key) = (Arc::clone(self), key.clone());
                    self.spawn(async move { give_back(&shared, &key, Held::Row(token)).await });
                }
                Err(failure)
            }
        }
    }

    async fn take_lock(
        &self,
        symfony: &SymfonyTable,
        key: &Key,
        claim: Claim,
        deadline: &Deadline,
        gone: Gone,
    ) -> Result<Step<Option<(Grip, Option<Record>)>>, Failure> {
        if symfony.texts.lock == LockMode::None {
            let mut conn = self.main.get(deadline).await?;
            let found = symfony.read(&mut conn, key, deadline).await?;
            let met = match claim {
                Claim::Existing => found.is_some(),
                Claim::New => found.is_none(),
                Claim::Either => true,
                _ => return Err(Failure::NotSent(unknown_claim())),
            };
            return Ok(Step::Done(met.then_some((Grip::Line, found))));
        }
        let mut patience = Patience::new(deadline, symfony, key, &self.main, gone);
        let (conn, taken) = self.take(symfony, key, claim, deadline, &mut patience).await?;
        Ok(Step::Done(taken.map(|found| {
            let slot = Arc::new(tokio::sync::Mutex::new(Some(conn)));
            (Grip::Connection(slot), found)
        })))
    }

    /// Takes Symfony's lock, and says with which connection. Where one breaks, nothing of what it did stays: another is
    /// tried, once, since it may have been closed since it was last used.
    pub(crate) async fn take(
        &self,
        symfony: &SymfonyTable,
        key: &Key,
        claim: Claim,
        deadline: &Deadline,
        patience: &mut Patience<'_>,
    ) -> Result<(Conn, Option<Option<Record>>), Failure> {
        let mut tries = 1;
        loop {
            let mut conn = self.locks.get(deadline).await?;
            match symfony.take(&mut conn, key, claim, deadline, patience).await {
                Ok(taken) => return Ok((conn, taken)),
                Err(Failure::Lost(_)) if tries == 1 && !deadline.io_left().is_zero() => tries += 1,
                Err(failure @ Failure::Lost(_)) => return Err(Failure::NotSent(failure.of_read())),
                Err(failure) => return Err(failure),
            }
        }
    }

    pub(crate) async fn connection(self: &Arc<Self>, deadline: &Deadline) -> Result<Conn, Failure> {
        self.ready(deadline).await?;
        self.main.get(deadline).await
    }
}

/// What was in the way is tried again until the limit for waiting.
pub(crate) fn or_locked(deadline: &Deadline, begun: Instant) -> Result<()> {
    if Instant::now() < deadline.wait_until() { Ok(()) } else { Err(Error::locked(begun.elapsed())) }
}

pub(crate) fn unknown_claim() -> Error {
    Error::new(ErrorKind::Unsupported, "lock by a claim that this store does not know")
}

pub(crate) fn unknown_put() -> Error {
    Error::new(ErrorKind::Unsupported, "commit what this store does not know")
}
