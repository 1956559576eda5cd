//! The store itself: whose turn it is, and within which limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::line::pauses;
use cloakroom_core::store::{Capabilities, Claim, Expect, List, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store};
use tokio::time::{Instant, sleep_until};

use crate::commit::{Step, Want};
use crate::config::SqliteConfig;
use crate::file::Role;
use crate::job::Work;
use crate::layout::{Layout, LockMode};
use crate::lock::SqliteLease;
use crate::native::fit;
use crate::shared::{Base, Shared};
use crate::way::Loaded;

/// Sessions in an SQLite database. All clones share the same connections, lines and thread for writing.
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) shared: Arc<Shared>,
    locks: bool,
    native: bool,
}

impl SqliteStore {
    /// A store on this database. What is missing is made: the file, readable for its owner alone, and the table, but in
    /// Symfony's layout, where it is the application's.
    ///
    /// A setup that cannot work is [`Config`](ErrorKind::Config): no such directory, a file that is no database or may
    /// not be written, a link in its place, a table with other columns. A database that is locked by somebody is no error;
    /// it is asked again with each call.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let url = format!("sqlite://{}/sessions.db", directory.path().display());
    /// use cloakroom_store_sqlite::{SqliteConfig, SqliteStore};
    /// // sqlite:///var/lib/app/sessions.db
    /// let store = SqliteStore::open(SqliteConfig::from_url(&url)?).await?;
    /// # drop(store); Ok::<(), cloakroom_core::Error>(()) }).unwrap();
    /// ```
    pub async fn open(config: SqliteConfig) -> Result<SqliteStore> {
        let config = config.checked()?;
        let base = Arc::new(Base::new(&config)?);
        let theirs = Arc::clone(&base);
        let connected = tokio::task::spawn_blocking(move || theirs.site.connect(&theirs.way, Role::Write)).await;
        let db = match connected {
            Ok(Ok(db)) => Some(db),
            Ok(Err(failure)) if failure.is_setup() => return Err(failure.into_setup_error()),
            Ok(Err(failure)) => {
                let error = failure.into_error();
                tracing::warn!(%error, "the SQLite database of sessions cannot be used yet");
                None
            }
            Err(error) => return Err(Error::unavailable("opening was broken off").with_source(error)),
        };
        let locks = match &config.layout {
            Layout::Native => true,
            Layout::Symfony(symfony) => symfony.lock != LockMode::None,
        };
        let native = matches!(config.layout, Layout::Native);
        Ok(SqliteStore { shared: Arc::new(Shared::start(&config, base, db)?), locks, native })
    }

    /// Makes a record as old as if `by` had passed. For tests.
    #[doc(hidden)]
    pub async fn age(&self, key: &Key, by: Duration) -> Result<()> {
        let deadline = Deadline::new(Duration::from_secs(60), Duration::ZERO);
        let key = key.clone();
        let aged = self.shared.ask(None, &deadline, Instant::now(), |reply| Work::Age { key, by, reply });
        aged.await.map(|((), _)| ())
    }

    /// The statements that requests and sweeping make, by name. For tests, which look at how SQLite goes about them.
    #[doc(hidden)]
    pub fn statements(&self) -> Vec<(&'static str, String)> {
        self.shared.base.way.statements()
    }

    fn check_put(&self, put: &mut Put) -> Result<()> {
        let Put::Payload(payload) = put else { return Ok(()) };
        if payload.bytes.len() > self.shared.max_payload {
            return Err(Error::new(ErrorKind::TooLarge, "write a session beyond `max_payload`"));
        }
        if self.native { fit(payload) } else { Ok(()) }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteStore({})", if self.native { "native" } else { "symfony" })
    }
}

impl Store for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.php_locks = self.shared.base.transactional;
        capabilities.one_lock = self.shared.base.transactional;
        capabilities.persistent = true;
        capabilities.shared = self.locks;
        capabilities.max_payload = u64::try_from(self.shared.max_payload).ok();
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        // A call that is always done at once would never let another task have the thread.
        tokio::task::coop::consume_budget().await;
        match self.shared.load(key, deadline).await? {
            Loaded::Record(record) => Ok(Some(record)),
            Loaded::Absent => Ok(None),
            Loaded::Larger => Err(Error::unavailable("a session is larger than SQLite says")),
        }
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let mut wait = Waiting::new(deadline);
        let mut turn = self.shared.turn_to_lock(key, deadline).await?;
        loop {
            let (shared, key) = (Arc::clone(&self.shared), key.clone());
            let work = |reply| Work::Claim { key, claim, shared, reply };
            match self.shared.ask(Some(turn), &wait.talk, wait.begun, work).await? {
                (Step::Done(locked), _) => return Ok(locked),
                (Step::Wait, Some(back)) => turn = back,
                (Step::Wait, None) => return Err(Error::unavailable("a place in line was lost")),
            }
            wait.pause().await?;
        }
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, mut put: Put, deadline: &Deadline) -> Result<Outcome> {
        let mut lease = None;
        let want = match expect {
            Expect::Held(held) => {
                let held = SqliteLease::recognise(held, &self.shared, key)?;
                let want = held.want().ok_or_else(|| Error::misuse("commit with a lease that was used before"))?;
                lease = Some(held);
                want
            }
            Expect::Absent => Want::Absent,
            Expect::Any => Want::Any,
            Expect::Is(version) => Want::Is(version.clone()),
            _ => return Err(Error::new(ErrorKind::Unsupported, "commit on a condition that this store does not know")),
        };
        self.check_put(&mut put)?;
        let mut wait = Waiting::new(deadline);
        let is_touch = matches!((&want, &put), (Want::Any, Put::Touch(_)));
        // Who holds the lock has the turn. A touch changes no data, and need not wait for who does, unless it has to.
        let mut turn = match lease {
            None if self.shared.base.transactional || !is_touch => {
                Some(self.shared.turn_to_write(key, deadline).await?)
            }
            _ => None,
        };
        let put = Arc::new(put);
        loop {
            let (key, want, put, lease) = (key.clone(), want.clone(), Arc::clone(&put), lease.take());
            let work = |reply| Work::Commit { key, want, put, lease, reply };
            match self.shared.ask(turn, &wait.talk, wait.begun, work).await? {
                (Step::Done(outcome), _) => return Ok(outcome),
                (Step::Wait, back) => turn = back,
            }
            wait.pause().await?;
        }
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        self.shared.sweep(step).await
    }

    async fn settle(&self) {
        self.shared.tasks.ended().await;
    }

    fn as_list(&self) -> Option<&dyn List> {
        Some(self)
    }
}

/// Attempts at something that another process is in the way of.
struct Waiting<'d, P> {
    begun: Instant,
    deadline: &'d Deadline,
    /// The first attempt is talking; those after it are waiting, each within the same bound.
    talk: Deadline,
    pauses: P,
}

impl<'d> Waiting<'d, ()> {
    fn new(deadline: &'d Deadline) -> Waiting<'d, impl Iterator<Item = Duration> + Send> {
        Waiting { begun: Instant::now(), deadline, talk: deadline.clone(), pauses: pauses() }
    }
}

impl<P: Iterator<Item = Duration>> Waiting<'_, P> {
    async fn pause(&mut self) -> Result<()> {
        let until = self.deadline.wait_until();
        if Instant::now() >= until {
            return Err(Error::locked(self.begun.elapsed()));
        }
        // One last time at the limit itself.
        sleep_until((Instant::now() + self.pauses.next().unwrap_or_default()).min(until)).await;
        let left = until.saturating_duration_since(Instant::now());
        self.talk = Deadline::new(self.deadline.io_left(), left);
        Ok(())
    }
}
