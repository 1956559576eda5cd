//! The store itself: whose turn it is, and within which limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::line::pauses;
use cloakroom_core::store::{Capabilities, Claim, Expect, List, Locked, Outcome, Put, Record, Swept, Version};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::SqlConfig;
use crate::layout::LockMode;
use crate::lock::SqlLease;
use crate::patience::Gone;
use crate::shared::{OPENING, Shared};

/// Sessions in a database. All clones share the same connections and lines.
#[derive(Clone)]
pub struct SqlStore {
    pub(crate) shared: Arc<Shared>,
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
        let handle = Handle::try_current()
            .map_err(|error| Error::misuse("open an SQL store outside of a tokio runtime").with_source(error))?;
        let shared = Arc::new(Shared::new(config, &handle)?);
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
        if !self.shared.has_room_for(key) {
            return if claim == Claim::Existing { Ok(None) } else { Err(self.shared.no_room()) };
        }
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
        if !self.shared.has_room_for(key) {
            return if matches!(want, Want::Absent) { Err(self.shared.no_room()) } else { Ok(Outcome::Gone) };
        }
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
        // Nobody waits for this when the program ends.
        let swept = self.shared.handle.spawn(async move { shared.sweep(step).await }).await;
        swept.unwrap_or_else(|_| Err(Error::unavailable("the runtime of the store has ended")))
    }

    async fn settle(&self) {
        self.shared.tasks.ended().await;
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
