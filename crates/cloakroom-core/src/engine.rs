//! What all requests share: the store, the settings, the clock and the random source; the beginning and the end of
//! a request.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::{
    Clock, DynStore, Error, Random, Result, Session, SessionId, Settings, Store, SystemClock, SystemRandom, Tasks,
};

/// How many records a step of sweeping looks at before it lets others run.
const SWEEP_STEP: usize = 500;
/// A request that lets expired records be swept away shall not feel it, nor those that come with it.
const SWEEP_DELAY: Duration = Duration::from_secs(1);
/// How long a store may take to come to rest when the program ends. What it has not given back by then runs out.
const SETTLING: Duration = Duration::from_secs(2);

/// What all requests share. Cloning it is cheap and gives the same one.
///
/// Adapters for web frameworks need [`begin`](Engine::begin) and [`finish`](Engine::finish) and nothing else.
#[derive(Clone)]
pub struct Engine {
    pub(crate) parts: Arc<EngineParts>,
}

pub(crate) struct EngineParts {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn DynStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    tasks: Tasks,
    draws: Arc<Draws>,
}

/// For PHP's draws.
#[derive(Default)]
struct Draws {
    starts: AtomicU64,
    sweeping: AtomicBool,
}

impl Engine {
    /// Sessions in `store` under `settings`, which are [checked](Settings::check) first.
    pub fn new(store: impl Store, settings: Settings) -> Result<Engine> {
        Engine::from_parts(Arc::new(store), settings, Arc::new(SystemClock), Arc::new(SystemRandom))
    }

    /// [`new`](Engine::new) with another clock and another random source, and a store that is already shared.
    pub fn from_parts(
        store: Arc<dyn DynStore>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Engine> {
        settings.check()?;
        let parts = EngineParts { settings, store, clock, random, tasks: Tasks::default(), draws: Arc::default() };
        Ok(Engine { parts: Arc::new(parts) })
    }

    /// The same engine with other settings and another store, for PHP's settings of one request. These settings are
    /// PHP's business and are not checked.
    #[must_use]
    pub fn reconfigured(&self, settings: Settings, store: Arc<dyn DynStore>) -> Engine {
        let EngineParts { clock, random, tasks, draws, .. } = &*self.parts;
        let (clock, random) = (Arc::clone(clock), Arc::clone(random));
        let (tasks, draws) = (tasks.clone(), Arc::clone(draws));
        Engine { parts: Arc::new(EngineParts { settings, store, clock, random, tasks, draws }) }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn DynStore> {
        &self.parts.store
    }

    /// The time of day.
    pub fn unix_time(&self) -> i64 {
        self.parts.clock.unix_time()
    }

    /// The handle for one request. This does nothing yet: no store is asked and no cookie is read.
    pub fn begin(&self, head: &Parts) -> Session {
        Session::new(self.clone(), &head.headers)
    }

    /// Ends a request before the head of its response leaves: what a `start` left open is written and closed, a
    /// session that was read is kept alive, and `out` gets the cookie and the headers that were decided.
    ///
    /// If writing fails, the response must be replaced by the error; call `finish` once more with the headers of that
    /// response, so that the browser learns of what did take effect.
    pub async fn finish(&self, session: Session, out: &mut HeaderMap) -> Result<()> {
        session.finish(out).await
    }

    /// Waits until all work that outlived its request is done, and until the store has given back the locks of requests
    /// that were dropped. A store that cannot, because its server is away, is waited for two seconds.
    pub async fn shutdown(&self) {
        self.parts.tasks.ended().await;
        if timeout(SETTLING, self.parts.store.settle()).await.is_err() {
            tracing::warn!("some locks on sessions could not be given back in time: they end by themselves");
        }
    }

    /// Removes all expired records, in small steps that let others run; the number of them.
    pub async fn sweep(&self) -> Result<usize> {
        let mut removed = 0;
        loop {
            let swept = self.parts.store.sweep(SWEEP_STEP).await?;
            removed += swept.removed;
            if swept.done {
                return Ok(removed);
            }
            tokio::task::yield_now().await;
        }
    }

    /// [Sweeps](Engine::sweep) again and again, until the last handle of this engine is dropped.
    pub fn sweep_every(&self, period: Duration) {
        let parts = Arc::downgrade(&self.parts);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(parts) = parts.upgrade() else { return };
                if let Err(error) = (Engine { parts }).sweep().await {
                    tracing::warn!(%error, "sweeping expired sessions failed");
                }
            }
        });
    }

    /// PHP's draw at the start of a session: `gc_probability` in `gc_divisor` let expired sessions be swept away. Here
    /// that happens beside the request.
    pub(crate) fn draw_sweep(&self) {
        let Settings { gc_probability, gc_divisor, .. } = self.parts.settings;
        if gc_probability <= 0 || gc_divisor <= 0 || self.parts.store.capabilities().expires_by_itself {
            return;
        }
        // A count in the place of PHP's random numbers: as often, and for less.
        let count = self.parts.draws.starts.fetch_add(1, Ordering::Relaxed) % gc_divisor.unsigned_abs();
        let hit = count >= gc_divisor.saturating_sub(gc_probability).unsigned_abs() || gc_probability >= gc_divisor;
        if hit && !self.parts.draws.sweeping.swap(true, Ordering::AcqRel) {
            let engine = self.clone();
            let sweeping = Sweeping(Arc::clone(&self.parts.draws));
            let Ok(runtime) = Handle::try_current() else { return };
            // Not one of those that a shutdown waits for: each step is whole by itself.
            runtime.spawn(async move {
                let _sweeping = sweeping;
                tokio::time::sleep(SWEEP_DELAY).await;
                if let Err(error) = engine.sweep().await {
                    tracing::warn!(%error, "sweeping expired sessions failed");
                }
            });
        }
    }

    pub(crate) fn new_id(&self) -> Result<SessionId> {
        let Settings { sid_length, sid_bits_per_character, .. } = self.parts.settings;
        SessionId::generate(&*self.parts.random, sid_length, sid_bits_per_character)
    }

    /// Starts work that runs to its end whatever becomes of the request; without a runtime it is dropped.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            self.parts.tasks.spawn(&runtime, work);
        }
    }

    /// Runs work of several steps to its end even if the request that waits for it is dropped.
    pub(crate) async fn complete<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let work = self.parts.tasks.spawn(&Handle::current(), work);
        work.await
            .unwrap_or_else(|error| Err(Error::unavailable("the work on the session broke off").with_source(error)))
    }
}

/// Ends with the sweeping, however that ends: a runtime that goes away drops it.
struct Sweeping(Arc<Draws>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.0.sweeping.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.parts.store).finish_non_exhaustive()
    }
}
