//! The handle that a request has of its session, and the verbs on it.

mod exchange;
mod replace;
mod start;
mod started;
mod state;
mod update;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Extensions, HeaderMap, HeaderValue, header};

pub use self::start::StartOptions;
use self::started::Opened;
pub use self::started::Started;
use self::state::{Found, State};
use crate::cookie::{self, CookieValue};
use crate::moved::Move;
use crate::store::{Expect, Outcome, Put};
use crate::{Engine, Error, Key, Result, SessionId, Snapshot};

/// A request's handle of its session.
///
/// It has done nothing until one of its verbs is called; all clones in one request share one state. What it decides
/// about cookies and headers takes effect when the head of the response leaves, all else when the verb returns.
///
/// While a [`Started`] of the same request is open, the other verbs answer [`Misuse`](crate::ErrorKind::Misuse) at once
/// instead of waiting for themselves.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    /// The request's cookies; they are not read before a verb needs them.
    cookies: Vec<HeaderValue>,
    /// The cookie's name when the request began.
    engine: Engine,
    /// A verb has been called.
    touched: AtomicBool,
    /// The head of the response has left, and no verb had been called by then.
    sent_untouched: AtomicBool,
    open: Mutex<Open>,
    state: tokio::sync::Mutex<State>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Open::Returned(opened) = &*self.open.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let session = opened.id.tag();
            tracing::error!(%session, "a session was started and dropped, and its request never finished: nothing was written");
        }
    }
}

/// Where the data of an open `start` are.
enum Open {
    /// None is open.
    No,
    /// With the guard.
    Guarded,
    /// The guard was dropped: they are to be written when the request ends.
    Returned(Opened),
    /// With the guard, and the head of the response has left.
    Detached,
    /// The request was cancelled: they are to be discarded, also those of a guard that is still held.
    Cancelled { guarded: bool },
}

impl Session {
    pub(crate) fn new(engine: Engine, headers: &HeaderMap) -> Session {
        let cookies = headers.get_all(header::COOKIE).iter().cloned().collect();
        let state = tokio::sync::Mutex::new(State::new(engine.clone()));
        let (touched, sent_untouched) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Shared { cookies, engine, touched, sent_untouched, open: Mutex::new(Open::No), state };
        Session { shared: Arc::new(shared) }
    }

    /// The handle that a layer further out has put into the request, if it is for the same cookie.
    pub fn of_request(extensions: &Extensions, name: &str) -> Option<Session> {
        let same = |session: &&Session| session.cookie_name() == name;
        let first = extensions.get::<Session>().filter(same);
        first.or_else(|| extensions.get::<Others>().and_then(|others| others.0.iter().find(same))).cloned()
    }

    /// Puts the handle into a request for the extractors: the first one is `Session`'s own, those with other cookies
    /// are found [by name](Session::of_request).
    pub fn insert_into(&self, extensions: &mut Extensions) {
        if extensions.get::<Session>().is_none() {
            extensions.insert(self.clone());
        } else {
            extensions.get_or_insert_default::<Others>().0.push(self.clone());
        }
    }

    /// The name of the cookie that this handle is for.
    pub fn cookie_name(&self) -> &str {
        &self.shared.engine.settings().name
    }

    /// True if a verb has been called. If not, there is nothing to do when the request ends.
    pub fn is_touched(&self) -> bool {
        self.shared.touched.load(Ordering::Acquire)
    }

    /// A snapshot of the session: waits for nobody's request, marks nobody, changes nothing.
    ///
    /// The first read asks the store; later ones give the same, or what this request has itself committed since. An
    /// absent session reads as an empty one. Reading counts as use: it lets the session live on, at most once in
    /// a minute or a tenth of its lifetime.
    pub async fn read(&self) -> Result<Snapshot> {
        let mut state = self.enter().await?;
        state.look().await?;
        state.keep_alive = true;
        if state.head_sent {
            // Nobody ends this request any more.
            state.touch_if_due().await;
        }
        state.snapshot()
    }

    /// [`read`](Session::read) that does not count as use.
    pub async fn peek(&self) -> Result<Snapshot> {
        let mut state = self.enter().await?;
        state.look().await?;
        state.snapshot()
    }

    /// [`read`](Session::read) that asks the store again.
    pub async fn refresh(&self) -> Result<Snapshot> {
        let mut state = self.enter().await?;
        state.found = Found::Unknown;
        state.look().await?;
        state.keep_alive = true;
        if state.head_sent {
            // Nobody ends this request any more.
            state.touch_if_due().await;
        }
        state.snapshot()
    }

    /// The id that the request works with: the one the browser sent, if it is well-formed, or one made since.
    pub async fn id(&self) -> Option<SessionId> {
        self.state().await.id.clone()
    }

    /// What the request's cookies hold under the session's name.
    pub fn cookie(&self) -> CookieValue {
        cookie::find(self.shared.cookies.iter().map(HeaderValue::as_bytes), self.cookie_name())
    }

    /// Destroys the session and removes the cookie. False if there was none. Afterwards this handle has an empty
    /// session, and an `update` or a `start` begins one with a new id.
    ///
    /// When it returns, the session is dead for everybody, also for requests that are waiting for it. It waits at
    /// most [`update_wait`](crate::Settings::update_wait) for a request that holds the session.
    pub async fn destroy(&self) -> Result<bool> {
        let mut state = self.enter().await?;
        let deadline = state.update_deadline();
        state.found = Found::Unknown;
        let mut existed = false;
        for _ in 0..=crate::moved::MOST_MOVES {
            let Some(id) = state.id.clone().filter(|_| !state.gone) else { break };
            let key = Key::from_id(&id);
            let outcome = state.engine.store().commit(&key, Expect::Any, Put::Remove, &deadline).await;
            let Outcome::Removed(record) = outcome? else { break };
            match state.moved(record.payload) {
                // A logout that comes with the old id of a rotated session is meant for the new one. If this fails
                // now, nothing else leads there any more: the browser has to know it.
                Move::To(next) => state.mark_and_limit(next),
                Move::Over => break,
                Move::Stayed => {
                    existed = true;
                    break;
                }
            }
        }
        state.forget();
        let settings = state.engine.settings().clone();
        if self.cookie() == CookieValue::Absent {
            state.head.drop_cookie(&settings.name);
        } else if let Some(removal) = cookie::unmark(&settings).filter(|_| settings.use_cookies) {
            state.head.set_cookie(&settings.name, removal);
            state.limit();
        }
        Ok(existed)
    }

    /// For adapters: the request has been dropped. What a `start` has changed is discarded, its lock is released.
    pub fn cancel(&self) {
        let mut open = self.open();
        let guarded = matches!(*open, Open::Guarded | Open::Detached | Open::Cancelled { guarded: true });
        let before = std::mem::replace(&mut *open, Open::Cancelled { guarded });
        drop(open);
        drop(before);
    }

    /// Takes other settings and another store from now on, for PHP's settings that a script changes.
    pub async fn reconfigure(&self, engine: Engine) -> Result<()> {
        let mut state = self.enter().await?;
        state.engine = engine;
        state.found = Found::Unknown;
        Ok(())
    }

    pub(crate) async fn finish(&self, out: &mut HeaderMap) -> Result<()> {
        if self.ends_untouched() {
            return Ok(());
        }
        // First the state, so that a `start` that is under way in a task is not overlooked.
        let mut state = self.shared.state.lock().await;
        let open = {
            let mut open = self.open();
            let next = if matches!(*open, Open::Guarded | Open::Detached) { Open::Detached } else { Open::No };
            std::mem::replace(&mut *open, next)
        };
        let written = match open {
            Open::Returned(opened) => opened.close(&mut state).await,
            _ => Ok(()),
        };
        if written.is_ok() {
            state.touch_if_due().await;
            state.head_sent = true;
        }
        state.write_head(out);
        written
    }

    /// For adapters: what [`Engine::finish`] does, at once, if nothing has to be asked of the store for it, as after
    /// nearly every request. False if something has; nothing has been done then.
    pub fn finish_now(&self, out: &mut HeaderMap) -> bool {
        if self.ends_untouched() {
            return true;
        }
        let Ok(mut state) = self.shared.state.try_lock() else { return false };
        if !matches!(*self.open(), Open::No) || state.is_touch_due() {
            return false;
        }
        state.head_sent = true;
        state.write_head(out);
        true
    }

    /// Notes that the head leaves, if no verb has been called: one that is called later can send no cookie any more.
    fn ends_untouched(&self) -> bool {
        let Shared { touched, sent_untouched, .. } = &*self.shared;
        if touched.load(Ordering::SeqCst) {
            return false;
        }
        // A verb that begins at this moment sees this, or is seen here.
        sent_untouched.store(true, Ordering::SeqCst);
        let still = !touched.load(Ordering::SeqCst);
        if !still {
            sent_untouched.store(false, Ordering::SeqCst);
        }
        still
    }

    /// The state, for a verb that must not find the request's own session open.
    async fn enter(&self) -> Result<tokio::sync::MutexGuard<'_, State>> {
        self.not_open()?;
        let mut state = self.state().await;
        // Another clone may have opened it meanwhile.
        self.not_open()?;
        state.head.accessed = true;
        Ok(state)
    }

    fn not_open(&self) -> Result<()> {
        match *self.open() {
            Open::No | Open::Cancelled { guarded: false } => Ok(()),
            Open::Guarded | Open::Detached | Open::Returned(_) | Open::Cancelled { guarded: true } => {
                Err(Error::misuse(
                    "this request has its session open with start(): use that guard, or close it with write_close() \
                 before calling other verbs",
                ))
            }
        }
    }

    /// The state; the cookies are read now.
    async fn state(&self) -> tokio::sync::MutexGuard<'_, State> {
        self.shared.touched.store(true, Ordering::SeqCst);
        let mut state = self.shared.state.lock().await;
        if !state.looked_up {
            state.looked_up = true;
            state.head_sent |= self.shared.sent_untouched.load(Ordering::SeqCst);
            if state.engine.settings().use_cookies {
                state.id = cookie::id_of(&self.cookie());
            }
        }
        state
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The lock is never held across anything that could panic.
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles for further cookies, in nested layers.
#[derive(Clone, Default)]
struct Others(Vec<Session>);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("cookie_name", &self.cookie_name()).finish_non_exhaustive()
    }
}
