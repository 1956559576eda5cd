//! What an application holds: [`Cloakroom`], and how it is built.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{Clock, DynStore, Engine, Random, Result, Session, Settings, Store, SystemClock, SystemRandom};
use http::HeaderMap;
use http::request::Parts;
use tokio::task::JoinSet;

use crate::connect::{Source, open};
use crate::elsewhere::Elsewhere;

/// All sessions of an application: where they are kept and how they are handed out.
///
/// Cloning it is cheap and gives the same one.
#[derive(Clone)]
pub struct Cloakroom {
    engine: Engine,
    /// `None` if the store was not chosen by PHP's settings: then no request chooses another.
    pub(crate) elsewhere: Option<Arc<Elsewhere>>,
}

impl Cloakroom {
    /// Sessions in the store that `url` names, under [`Settings::php`].
    ///
    /// | url | where |
    /// |---|---|
    /// | `files:///var/lib/php/sessions` | PHP's session files; `?depth=N`, `mode=0600`, `io=auto\|inline\|pool`, `durability=none\|data` |
    /// | `memory:` | this process; `?max_bytes=N` |
    /// | `redis://host:6379`, `rediss://…`, `redis+unix:///path`, `redis+cluster://a,b,c`, `redis+sentinel://a,b/service` | Redis and Valkey, as php-redis keeps them (feature `redis`) |
    /// | `memcached://a,b` | Memcached, as php-memcached keeps them (feature `memcached`) |
    /// | `sqlite://sessions.db` | an SQLite database (feature `sqlite`) |
    /// | `postgres://…`, `mysql://…`, `mariadb://…` | a table of our own, or Symfony's with `?layout=symfony` (feature `sql`) |
    ///
    /// Each store's README lists all its options.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let room = cloakroom::Cloakroom::connect("memory:").await?;
    /// # drop(room);
    /// # Ok::<(), cloakroom::Error>(()) }).unwrap();
    /// ```
    pub async fn connect(url: &str) -> Result<Cloakroom> {
        Cloakroom::builder().url(url).build().await
    }

    /// For everything that [`connect`](Cloakroom::connect) leaves at its default.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The layer that gives each request its [`Session`].
    #[cfg(feature = "tower")]
    pub fn layer(&self) -> cloakroom_web_tower::SessionLayer {
        cloakroom_web_tower::SessionLayer::new(self.engine.clone())
    }

    /// What adapters and the PHP facade work with.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        self.engine.settings()
    }

    /// The engine with the settings of one request.
    pub(crate) async fn reconfigured(&self, settings: &Settings) -> Result<Engine> {
        let store = match &self.elsewhere {
            Some(elsewhere) if !Elsewhere::is_same(settings, self.settings()) => elsewhere.store(settings).await?,
            _ => Arc::clone(self.engine.store()),
        };
        Ok(self.engine.reconfigured(settings.clone(), store))
    }

    /// For adapters: the handle for one request, which has done nothing yet.
    pub fn begin(&self, head: &Parts) -> Session {
        self.engine.begin(head)
    }

    /// For adapters: ends a request before the head of its response leaves. See [`Engine::finish`].
    pub async fn finish(&self, session: Session, out: &mut HeaderMap) -> Result<()> {
        self.engine.finish(session, out).await
    }

    /// Removes all expired sessions, in small steps; the number of them.
    pub async fn sweep(&self) -> Result<usize> {
        self.engine.sweep().await
    }

    /// Waits until all work that outlived its request is done, and all locks are given back: call it when the server has
    /// stopped. See [`Engine::shutdown`].
    pub async fn shutdown(&self) {
        let mut all = JoinSet::new();
        for store in self.elsewhere.iter().flat_map(|elsewhere| elsewhere.stores()) {
            let engine = self.engine.reconfigured(self.settings().clone(), store);
            all.spawn(async move { engine.shutdown().await });
        }
        self.engine.shutdown().await;
        while all.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Cloakroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cloakroom").field(self.engine.store()).finish()
    }
}

/// Builds a [`Cloakroom`].
///
/// Without a URL and a store, sessions are where the settings' `save_handler` and `save_path` say, so that a php.ini is
/// enough.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use cloakroom::{Cloakroom, Settings};
/// let mut settings = Settings::php();
/// settings.name = "SHOP".into();
/// settings.cookie_secure = true;
/// let room = Cloakroom::builder().url("memory:").settings(settings).build().await?;
/// # drop(room);
/// # Ok::<(), cloakroom::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    source: Source,
    settings: Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    sweep_every: Option<Duration>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            source: Source::Settings,
            settings: Settings::php(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            sweep_every: None,
        }
    }
}

impl Builder {
    /// The store that this URL names; see [`Cloakroom::connect`].
    pub fn url(mut self, url: impl Into<String>) -> Builder {
        self.source = Source::Url(url.into());
        self
    }

    /// This store.
    pub fn store(mut self, store: impl Store) -> Builder {
        self.source = Source::Store(Arc::new(store));
        self
    }

    /// These settings in the place of [`Settings::php`].
    pub fn settings(mut self, settings: Settings) -> Builder {
        self.settings = settings;
        self
    }

    /// Another clock for cookies.
    pub fn clock(mut self, clock: impl Clock) -> Builder {
        self.clock = Arc::new(clock);
        self
    }

    /// Another source of session ids.
    pub fn random(mut self, random: impl Random) -> Builder {
        self.random = Arc::new(random);
        self
    }

    /// Removes expired sessions so often, in the background, beside what the settings' `gc_probability` does.
    pub fn sweep_every(mut self, period: Duration) -> Builder {
        self.sweep_every = Some(period);
        self
    }

    /// Opens the store. [`ErrorKind::Config`](crate::ErrorKind::Config) says what is wrong with URL or settings.
    pub async fn build(self) -> Result<Cloakroom> {
        let by_settings = matches!(self.source, Source::Settings);
        let store: Arc<dyn DynStore> = open(self.source, &self.settings).await?;
        let engine = Engine::from_parts(store, self.settings, self.clock, self.random)?;
        if let Some(period) = self.sweep_every {
            engine.sweep_every(period);
        }
        Ok(Cloakroom { engine, elsewhere: by_settings.then(Arc::default) })
    }
}
