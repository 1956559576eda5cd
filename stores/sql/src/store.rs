//! The store itself: which layout does what, in whose turn, within which limits.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::line::{Head, Lines, pauses};
use cloakroom_core::store::{Capabilities, Claim, Expect, List, Locked, Outcome, Put, Record, Swept, Version};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{Server, SqlConfig};
use crate::error::Failure;
use crate::layout::{ASIDE_TABLE, Dialect, Layout, LockMode, NATIVE_KEY, NATIVE_TABLE, SYMFONY_KEY, SYMFONY_TABLE};
use crate::lock::{Gone, Grip, Held, Patience, SqlLease, give_back};
use crate::migrate::Shape;
use crate::native::{Native, fit, millis, random};
use crate::pool::{Conn, Pool};
use crate::symfony::SymfonyTable;
use crate::{migrate, native_sql, symfony_sql};

/// How long opening looks for the server before it goes on without.
const OPENING: Duration = Duration::from_secs(5);
/// How often a holder's commit is tried again that the server asks to try again; nobody else is to be in its way.
const RETRIES: usize = 8;

/// Sessions in a database. All clones share the same connections and lines.
#[derive(Clone)]
pub struct SqlStore {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) dialect: Dialect,
    pub(crate) way: Way,
    /// For single statements.
    pub(crate) main: Pool,
    /// For what waits for or holds a lock by a connection.
    pub(crate) locks: Pool,
    pub(crate) lines: Lines,
    pub(crate) handle: Handle,
    pub(crate) lease: Duration,
    pub(crate) config: SqlConfig,
    pub(crate) shape: OnceCell<Shape>,
}

/// The layout, with its statements.
pub(crate) enum Way {
    Native(Native),
    Symfony(SymfonyTable),
}

/// How one attempt ended.
pub(crate) enum Step<T> {
    Done(T),
    /// Somebody else is in the way.
    Wait,
}

/// [`Expect`], for attempts that may have to be made again.
#[derive(Clone)]
pub(crate) enum Want {
    Absent,
    Any,
    Is(Version),
    /// As this holder found it, whether its life has ended since or not: where a place in line is all there is of a lock.
    Found(Version),
    /// Of the native layout: the lease in the row.
    Held(i64),
}

impl SqlStore {
    /// A store on this database. A server that is down is no error: it is asked again with each call. One that is
    /// there and lets nobody in, or has no such table where none is to be made, is
    /// [`Config`](cloakroom_core::ErrorKind::Config).
    ///
    /// It has to be called within the tokio runtime that runs its connections.
    ///
    /// ```no_run
    /// # async fn open() -> cloakroom_core::Result<()> {
    /// use cloakroom_store_sql::{SqlConfig, SqlStore};
    /// let store = SqlStore::open(SqlConfig::from_url("postgres://app:secret@localhost/shop")?).await?;
    /// # drop(store); Ok(()) }
    /// ```
    pub async fn open(config: SqlConfig) -> Result<SqlStore> {
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
        let handle = Handle::current();
        let shared = Arc::new(Shared {
            dialect,
            way,
            main: Pool::new(&config.server, config.connections, &handle),
            locks: Pool::new(&config.server, config.lock_connections, &handle),
            lines: Lines::default(),
            handle,
            lease: config.lease,
            config,
            shape: OnceCell::new(),
        });
        match Shared::look(&shared, OPENING).await {
            Ok(()) => {}
            Err(failure) if failure.is_setup() => {
                return Err(Error::config(failure.of_read().to_string()));
            }
            Err(failure) => {
                let error = failure.of_read();
                if error.kind() == ErrorKind::Config {
                    return Err(error);
                }
                tracing::warn!(%error, "the database of sessions cannot be reached yet");
            }
        }
        Ok(SqlStore { shared })
    }
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlStore({:?}, {:?})", self.shared.dialect, self.shared.config.layout)
    }
}

impl Store for SqlStore {
    fn capabilities(&self) -> Capabilities {
        let lock = self.shared.lock_mode();
        let mut capabilities = Capabilities::default();
        capabilities.php_locks = matches!(lock, Some(LockMode::Advisory | LockMode::Transactional));
        capabilities.persistent = true;
        capabilities.shared = lock != Some(LockMode::None);
        capabilities.max_payload = u64::try_from(self.shared.max_payload()).ok();
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let (shared, key, deadline) = (Arc::clone(&self.shared), key.clone(), deadline.clone());
        self.shared.finish(async move { shared.load(&key, &deadline).await }).await
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        self.shared.check_key(key)?;
        let begun = Instant::now();
        let mut turn = Turn { begun, deadline, talk: deadline.clone(), pauses: pauses() };
        let mut head = self.shared.lines.stand(key, deadline).await?;
        loop {
            let (shared, key, talk) = (Arc::clone(&self.shared), key.clone(), turn.talk.clone());
            let (_here, gone) = Gone::pair();
            let attempt = async move { shared.try_lock(key, claim, head, &talk, gone, begun).await };
            match self.shared.finish(attempt).await? {
                (Step::Done(locked), _) => return Ok(locked),
                (Step::Wait, Some(back)) => head = back,
                (Step::Wait, None) => return Err(Error::unavailable("a place in line was lost")),
            }
            turn.pause().await?;
        }
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, mut put: Put, deadline: &Deadline) -> Result<Outcome> {
        let want = match expect {
            Expect::Held(lease) => {
                let lease = SqlLease::recognise(lease, &self.shared, key)?;
                self.shared.check_put(&mut put)?;
                let deadline = deadline.clone();
                return self.shared.finish(async move { Shared::commit_held(lease, put, &deadline).await }).await;
            }
            Expect::Absent => Want::Absent,
            Expect::Any => Want::Any,
            Expect::Is(version) => Want::Is(version.clone()),
            _ => return Err(Error::new(ErrorKind::Unsupported, "commit on a condition that this store does not know")),
        };
        self.shared.check_key(key)?;
        self.shared.check_put(&mut put)?;
        let begun = Instant::now();
        let mut turn = Turn { begun, deadline, talk: deadline.clone(), pauses: pauses() };
        // A touch changes no data, and need not wait for who does.
        let mut head = match (&want, &put) {
            (Want::Any, Put::Touch(_)) => None,
            _ => Some(self.shared.lines.stand(key, deadline).await?),
        };
        let put = Arc::new(put);
        loop {
            let (shared, key, talk) = (Arc::clone(&self.shared), key.clone(), turn.talk.clone());
            let (want, put) = (want.clone(), Arc::clone(&put));
            let (_here, gone) = Gone::pair();
            let attempt = async move {
                let outcome = shared.try_commit(&key, &want, &put, &talk, gone, begun).await?;
                Ok((outcome, head))
            };
            match self.shared.finish(attempt).await? {
                (Step::Done(outcome), _) => return Ok(outcome),
                (Step::Wait, back) => head = back,
            }
            turn.pause().await?;
        }
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        let shared = Arc::clone(&self.shared);
        self.shared.finish(async move { shared.sweep(step).await }).await
    }

    fn as_list(&self) -> Option<&dyn List> {
        Some(self)
    }
}

/// Attempts at something that somebody else is in the way of.
struct Turn<'d, P> {
    begun: Instant,
    deadline: &'d Deadline,
    /// The first attempt is talking; those after it are waiting, each within the same bound.
    talk: Deadline,
    pauses: P,
}

impl<P: Iterator<Item = Duration>> Turn<'_, P> {
    async fn pause(&mut self) -> Result<()> {
        let until = self.deadline.wait_until();
        if Instant::now() >= until {
            return Err(Error::locked(self.begun.elapsed()));
        }
        let pause = self.pauses.next().unwrap_or_default();
        tokio::select! {
            () = sleep(pause) => {}
            // One last time at the limit itself.
            () = sleep_until(until) => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        self.talk = Deadline::new(self.deadline.io_left(), left);
        Ok(())
    }
}

impl Shared {
    /// Runs work to its end, whether its caller waits for that or not.
    async fn finish<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let ended = self.handle.spawn(work).await;
        ended.unwrap_or_else(|_| Err(Error::unavailable("the runtime of the store has ended").or_maybe_applied()))
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

    fn max_payload(&self) -> usize {
        let known = self.shape.get().map(|shape| shape.max_payload);
        // Before the server could be asked: what Symfony's own table takes.
        let assumed = if self.dialect == Dialect::MySql && self.lock_mode().is_some() { 65_535 } else { usize::MAX };
        self.config.max_payload.min(known.unwrap_or(assumed))
    }

    fn check_key(&self, key: &Key) -> Result<()> {
        let most = if self.lock_mode().is_some() { SYMFONY_KEY } else { NATIVE_KEY };
        if key.record().len() > most {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("keep a session whose key has more than {most} bytes"),
            ));
        }
        Ok(())
    }

    fn check_put(&self, put: &mut Put) -> Result<()> {
        let Put::Payload(payload) = put else { return Ok(()) };
        let most = self.max_payload();
        if payload.bytes.len() > most {
            return Err(Error::new(ErrorKind::TooLarge, format!("write a session of more than {most} bytes")));
        }
        fit(payload)
    }

    /// Makes sure, once, that the tables are there. It goes on when the call that wanted it has given up.
    async fn ready(self: &Arc<Self>, deadline: &Deadline) -> Result<(), Failure> {
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

    async fn look(shared: &Arc<Shared>, limit: Duration) -> Result<(), Failure> {
        let deadline = Deadline::new(limit, Duration::ZERO);
        shared.shape.get_or_try_init(|| migrate::look(shared, &deadline)).await.map(drop)
    }

    async fn load(self: &Arc<Self>, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        self.check_key(key)?;
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

    async fn try_lock(
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
            Err(failure) if failure.is_in_the_way() => {
                self.or_locked(deadline, begun).map(|()| (Step::Wait, Some(head)))
            }
            Err(failure) => Err(failure.of_read()),
        }
    }

    /// What was in the way is tried again until the limit for waiting.
    fn or_locked(&self, deadline: &Deadline, begun: Instant) -> Result<()> {
        if Instant::now() < deadline.wait_until() { Ok(()) } else { Err(Error::locked(begun.elapsed())) }
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
                    self.handle.spawn(async move { give_back(&shared, &key, Held::Row(token)).await });
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
        let mut conn = self.locks.get(deadline).await?;
        let mut patience = Patience::new(deadline, self.dialect, &self.main, gone);
        let taken = symfony.take(&mut conn, key, claim, deadline, &mut patience).await?;
        Ok(Step::Done(taken.map(|found| {
            let slot = Arc::new(tokio::sync::Mutex::new(Some(conn)));
            (Grip::Connection(slot), found)
        })))
    }

    async fn try_commit(
        self: &Arc<Self>,
        key: &Key,
        want: &Want,
        put: &Put,
        deadline: &Deadline,
        gone: Gone,
        begun: Instant,
    ) -> Result<Step<Outcome>> {
        self.ready(deadline).await.map_err(Failure::of_read)?;
        let outcome = match &self.way {
            Way::Native(native) => match self.main.get(deadline).await {
                Ok(mut conn) => native.try_commit(&mut conn, key.record(), want, put, deadline).await,
                Err(failure) => Err(failure),
            },
            Way::Symfony(symfony) => self.commit_symfony(symfony, key, want, put, deadline, gone).await,
        };
        match outcome {
            Ok(Step::Done(outcome)) => {
                self.keep_aside_bounded(put, &outcome).await;
                Ok(Step::Done(outcome))
            }
            Ok(Step::Wait) => Ok(Step::Wait),
            Err(failure) if failure.is_in_the_way() => self.or_locked(deadline, begun).map(|()| Step::Wait),
            Err(failure) => Err(failure.of_write()),
        }
    }

    async fn commit_symfony(
        &self,
        symfony: &SymfonyTable,
        key: &Key,
        want: &Want,
        put: &Put,
        deadline: &Deadline,
        gone: Gone,
    ) -> Result<Step<Outcome>, Failure> {
        let touch = matches!((want, put), (Want::Any, Put::Touch(_)));
        // Where a connection may have to wait for a lock, it is not one of those that everybody needs.
        let waits = match symfony.texts.lock {
            LockMode::None => false,
            LockMode::Advisory => !touch,
            LockMode::Transactional => true,
        };
        let mut conn = if waits { self.locks.get(deadline).await? } else { self.main.get(deadline).await? };
        let mut patience = Patience::new(deadline, self.dialect, &self.main, gone);
        if !waits || self.dialect == Dialect::Postgres {
            return symfony.change(&mut conn, key, want, put, deadline, &mut patience).await;
        }
        let claim = if matches!(want, Want::Absent) { Claim::Either } else { Claim::Existing };
        let Some(found) = symfony.take(&mut conn, key, claim, deadline, &mut patience).await? else {
            return Ok(Step::Done(Outcome::Gone));
        };
        let refused = match (want, &found) {
            (Want::Absent, Some(_)) => Some(Outcome::Taken),
            (Want::Absent, None) if !matches!(put, Put::Payload(_)) => Some(Outcome::Gone),
            (Want::Is(version), Some(found)) if found.version != *version => Some(Outcome::Conflict(found.clone())),
            _ => None,
        };
        if let Some(outcome) = refused {
            symfony.give_back(&mut conn, key, false).await;
            return Ok(Step::Done(outcome));
        }
        symfony.finish(&mut conn, key, found.as_ref(), put, deadline).await.map(Step::Done)
    }

    /// The holder's commit. Its lock is free afterwards, however it ends.
    async fn commit_held(mut lease: SqlLease, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let (shared, key) = (Arc::clone(lease.shared()), lease.key().clone());
        let Some(held) = lease.let_go().await else { return Ok(Outcome::Gone) };
        let outcome = match (held, &shared.way) {
            (Held::Row(token), Way::Native(native)) => {
                let outcome = shared.commit_leased(native, &key, token, &put, deadline).await;
                if outcome.is_err() {
                    give_back(&shared, &key, Held::Row(token)).await;
                }
                outcome
            }
            (Held::Line, Way::Symfony(symfony)) => {
                shared.commit_in_line(symfony, &key, lease.found(), &put, deadline).await
            }
            (Held::Connection(mut conn), Way::Symfony(symfony)) => {
                let outcome = symfony.finish(&mut conn, &key, lease.found(), &put, deadline).await;
                if matches!(outcome, Err(Failure::NotSent(_))) {
                    symfony.give_back(&mut conn, &key, false).await;
                }
                outcome.map_err(Failure::of_write)
            }
            _ => Err(Error::unavailable("the connection that held the session's lock broke; nothing was written")),
        };
        if let Ok(outcome) = &outcome {
            shared.keep_aside_bounded(&put, outcome).await;
        }
        drop(lease);
        outcome
    }

    async fn commit_leased(
        &self,
        native: &Native,
        key: &Key,
        token: i64,
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        let mut conn = self.main.get(deadline).await.map_err(Failure::of_write)?;
        for pause in pauses().take(RETRIES) {
            match native.try_commit(&mut conn, key.record(), &Want::Held(token), put, deadline).await {
                Ok(Step::Done(outcome)) => return Ok(outcome),
                Ok(Step::Wait) => {}
                // A deadlock, at which nothing was done.
                Err(failure) if failure.is_in_the_way() => {}
                Err(failure) => return Err(failure.of_write()),
            }
            sleep(pause).await;
        }
        Err(Error::unavailable("the database asked again and again to try once more"))
    }

    /// Without a lock that anybody else sees, the record has to be as it was found.
    async fn commit_in_line(
        &self,
        symfony: &SymfonyTable,
        key: &Key,
        found: Option<&Record>,
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        let empty;
        let (want, put) = match (found, put) {
            (Some(found), put) => (Want::Found(found.version.clone()), put),
            (None, Put::Touch(ttl)) => {
                empty = Put::Payload(cloakroom_core::store::Payload::new(bytes::Bytes::new(), *ttl));
                (Want::Absent, &empty)
            }
            (None, Put::Payload(_)) => (Want::Absent, put),
            (None, _) => return Ok(Outcome::Gone),
        };
        let mut conn = self.main.get(deadline).await.map_err(Failure::of_write)?;
        let (_here, gone) = Gone::pair();
        let mut patience = Patience::new(deadline, self.dialect, &self.main, gone);
        for pause in pauses().take(RETRIES) {
            match symfony.change(&mut conn, key, &want, put, deadline, &mut patience).await {
                Ok(Step::Done(Outcome::Conflict(_) | Outcome::Taken)) => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "write a session that somebody else has changed meanwhile: `lock=none` keeps nobody out",
                    ));
                }
                Ok(Step::Done(outcome)) => return Ok(outcome),
                Ok(Step::Wait) => {}
                Err(failure) if failure.is_in_the_way() => {}
                Err(failure) => return Err(failure.of_write()),
            }
            sleep(pause).await;
        }
        Err(Error::unavailable("the database asked again and again to try once more"))
    }

    pub(crate) async fn connection(self: &Arc<Self>, deadline: &Deadline) -> Result<Conn, Failure> {
        self.ready(deadline).await?;
        self.main.get(deadline).await
    }
}

pub(crate) fn unknown_claim() -> Error {
    Error::new(ErrorKind::Unsupported, "lock by a claim that this store does not know")
}

pub(crate) fn unknown_put() -> Error {
    Error::new(ErrorKind::Unsupported, "commit what this store does not know")
}
