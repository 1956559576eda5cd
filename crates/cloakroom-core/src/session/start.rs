//! The verb `start`: PHP's `session_start`, with the lock held until the session is closed.

use super::started::{Opened, Started};
use super::state::{Found, State};
use super::update::NEW_IDS;
use super::{Open, Session};
use crate::store::{Claim, Expect, Locked, Put};
use crate::{Draft, Error, ErrorKind, Key, Result, SessionId};

/// How [`Session::start_with`] departs from [`Session::start`]; for the PHP facade.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StartOptions {
    id: IdChoice,
    mark: bool,
    exact: bool,
}

#[derive(Clone, Debug, Default)]
enum IdChoice {
    #[default]
    Request,
    Given(Option<SessionId>),
}

impl StartOptions {
    /// This id in the place of the request's, or a new one.
    #[must_use]
    pub fn id(mut self, id: Option<SessionId>) -> StartOptions {
        self.id = IdChoice::Given(id);
        self
    }

    /// Send the cookie even if the id is known.
    #[must_use]
    pub fn mark(mut self, mark: bool) -> StartOptions {
        self.mark = mark;
        self
    }

    /// Send PHP's headers and no others: without the `no-store` beside each cookie.
    #[must_use]
    pub fn exact_headers(mut self) -> StartOptions {
        self.exact = true;
        self
    }
}

impl Session {
    /// PHP's `session_start()`: takes the lock, reads the session, and marks the browser if it has no valid mark.
    ///
    /// The session is written and unlocked when the guard is closed or, if it is dropped, before the head of the
    /// response leaves. Other requests that start or change the same session wait meanwhile; this one waits at most
    /// [`start_wait`](crate::Settings::start_wait) for them.
    ///
    /// A session that cannot be decoded is set aside, as PHP destroys it:
    /// [`Corrupt`](ErrorKind::Corrupt), and the next start begins an empty one.
    pub async fn start(&self) -> Result<Started> {
        self.start_with(StartOptions::default()).await
    }

    /// [`start`](Session::start) with an id of the caller's choice.
    pub async fn start_with(&self, options: StartOptions) -> Result<Started> {
        let mut state = self.enter().await?;
        if let IdChoice::Given(id) = options.id {
            state.forget();
            state.id = id;
            state.found = Found::Unknown;
        }
        if state.gone {
            return Err(Error::gone());
        }
        state.head.exact |= options.exact;
        let opened = state.open().await?;
        if opened.marked || options.mark {
            state.mark(opened.id.clone());
        }
        state.limit();
        state.seen = true;
        state.keep_alive = false;
        state.found = Found::Unknown;
        state.engine.draw_sweep();
        {
            let mut open = self.open();
            *open = match *open {
                Open::Cancelled { .. } => Open::Cancelled { guarded: true },
                _ if state.head_sent => Open::Detached,
                _ => Open::Guarded,
            };
        }
        drop(state);
        Ok(Started::new(self.clone(), opened))
    }
}

impl State {
    /// PHP's open, validate, create and read, under one lock.
    async fn open(&mut self) -> Result<Opened> {
        let deadline = self.start_deadline();
        for _ in 0..=crate::moved::MOST_MOVES {
            let Some(id) = self.id.clone() else { return self.open_new().await };
            let strict = self.seen || self.engine.settings().use_strict_mode;
            let claim = if strict { Claim::Existing } else { Claim::Either };
            let key = Key::from_id(&id);
            let Some(locked) = self.engine.store().lock(&key, claim, &deadline).await? else {
                self.absent()?;
                self.id = None;
                continue;
            };
            if let Some(opened) = self.take_over(id, key, locked).await? {
                return Ok(opened);
            }
        }
        self.absent()?;
        Err(Error::gone())
    }

    async fn open_new(&mut self) -> Result<Opened> {
        self.must_mark()?;
        let deadline = self.start_deadline();
        for _ in 0..NEW_IDS {
            let id = self.engine.new_id()?;
            let key = Key::from_id(&id);
            if let Some(locked) = self.engine.store().lock(&key, Claim::New, &deadline).await? {
                let draft = Draft::new(self.empty());
                return Ok(Opened { id, key, lease: Some(locked.lease), draft, read: None, marked: true });
            }
        }
        Err(Error::new(ErrorKind::Conflict, "every new id was taken"))
    }

    /// Looks into what was locked. `None` if it leads to another id, or is dead; the state knows which.
    async fn take_over(&mut self, id: SessionId, key: Key, locked: Locked) -> Result<Option<Opened>> {
        let Locked { lease, record } = locked;
        let Some(record) = record else {
            let draft = Draft::new(self.empty());
            return Ok(Some(Opened { id, key, lease: Some(lease), draft, read: None, marked: false }));
        };
        let payload = record.payload.clone();
        match self.accept(record) {
            Ok(true) => {}
            Ok(false) => {
                lease.release().await;
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let deadline = self.start_deadline();
                self.engine.store().commit(&key, Expect::Held(lease), Put::SetAside, &deadline).await?;
                tracing::error!(session = %id, %error, "a session that cannot be decoded was set aside");
                self.forget();
                return Err(error);
            }
            Err(error) => {
                lease.release().await;
                return Err(error);
            }
        }
        let bag = match &self.found {
            Found::Present(present) => present.bag.clone(),
            // A pointer whose time is over is as good as nothing; its id is not used again.
            Found::Unknown | Found::Absent => {
                lease.release().await;
                self.id = None;
                return Ok(None);
            }
        };
        let (lease, read) = (Some(lease), Some(payload));
        Ok(Some(Opened { id, key, lease, draft: Draft::new(bag), read, marked: false }))
    }
}
