//! What a request knows of its session, shared by all clones of its handle.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_php::Bag;
use http::HeaderMap;

use crate::head::Head;
use crate::moved::{self, Move};
use crate::store::{Claim, Expect, Outcome, Put, Record, Version};
use crate::{Deadline, Engine, Error, ErrorKind, Key, Result, SessionId, Snapshot, cookie, limiter};

/// Reading lets a session live on when its last refresh is older than this, or than a tenth of its lifetime.
const REFRESH_AFTER: Duration = Duration::from_secs(60);

pub(super) struct State {
    /// Settings and store; only PHP's settings of one request change them midway.
    pub(super) engine: Engine,
    pub(super) looked_up: bool,
    /// The id that this request works with.
    pub(super) id: Option<SessionId>,
    /// The store has shown this request a session under `id`.
    pub(super) seen: bool,
    /// What was seen is there no more; this handle never gets another session by itself.
    pub(super) gone: bool,
    /// The browser still has an id that leads to this one; it learns of this one once the session was found there.
    followed: bool,
    /// The browser was to get an id under which nothing could be written so far.
    pub(super) unwritten: bool,
    pub(super) found: Found,
    /// A read wants the session to live on.
    pub(super) keep_alive: bool,
    pub(super) head: Head,
    pub(super) head_sent: bool,
    deadline: Option<Deadline>,
}

/// What the store had under the id when it was asked last.
#[derive(Clone)]
pub(super) enum Found {
    /// It has not been asked.
    Unknown,
    Absent,
    Present(Present),
}

#[derive(Clone)]
pub(super) struct Present {
    pub(super) bag: Bag,
    pub(super) version: Version,
    /// Remaining life when it was found.
    pub(super) ttl: Option<Duration>,
}

impl State {
    pub(super) fn new(engine: Engine) -> State {
        State {
            engine,
            looked_up: false,
            id: None,
            seen: false,
            gone: false,
            followed: false,
            unwritten: false,
            found: Found::Unknown,
            keep_alive: false,
            head: Head::default(),
            head_sent: false,
            deadline: None,
        }
    }

    /// The limits for `start`.
    pub(super) fn start_deadline(&mut self) -> Deadline {
        self.deadline(self.engine.settings().start_wait)
    }

    /// The limits for all other verbs.
    pub(super) fn update_deadline(&mut self) -> Deadline {
        self.deadline(self.engine.settings().update_wait)
    }

    /// The limits for one verb; the time for talking to the store is one budget for the whole request. Nobody waits for
    /// what is done after the head has left, for hours perhaps: there each verb has its own.
    fn deadline(&mut self, lock_wait: Duration) -> Deadline {
        let io_timeout = self.engine.settings().io_timeout;
        if self.head_sent {
            return Deadline::new(io_timeout, lock_wait);
        }
        if let Some(deadline) = &self.deadline {
            return deadline.with_lock_wait(lock_wait);
        }
        self.deadline.insert(Deadline::new(io_timeout, lock_wait)).clone()
    }

    /// Asks the store, unless that has been done.
    pub(super) async fn look(&mut self) -> Result<()> {
        if self.gone {
            return Err(Error::gone());
        }
        if !matches!(self.found, Found::Unknown) {
            return Ok(());
        }
        let deadline = self.update_deadline();
        for _ in 0..=moved::MOST_MOVES {
            let Some(id) = self.id.clone() else {
                self.found = Found::Absent;
                return Ok(());
            };
            let key = Key::from_id(&id);
            let found = match self.engine.store().load(&key, &deadline).await? {
                Some(record) if record.tentative && self.parse(&record).is_err() => {
                    self.look_under_lock(&key, &deadline).await?
                }
                found => found,
            };
            let Some(record) = found else { return self.absent() };
            if self.accept(record)? {
                return Ok(());
            }
        }
        self.absent()
    }

    /// Another writer may be in the midst of its work: what it leaves is true.
    async fn look_under_lock(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let Some(locked) = self.engine.store().lock(key, Claim::Existing, deadline).await? else { return Ok(None) };
        locked.lease.release().await;
        Ok(locked.record)
    }

    /// Takes a record over as what was found. False if it only leads to another id, which is the request's from now on.
    pub(super) fn accept(&mut self, record: Record) -> Result<bool> {
        let bag = self.parse(&record)?;
        match moved::read(&bag, self.engine.unix_time()) {
            Move::Stayed => {
                self.seen = true;
                self.found = Found::Present(Present { bag, version: record.version, ttl: record.ttl });
                if let Some(id) = self.id.clone().filter(|_| self.followed && !self.head_sent) {
                    self.mark_and_limit(id);
                }
                Ok(true)
            }
            Move::To(id) => {
                self.follow(id);
                Ok(false)
            }
            Move::Over => {
                self.absent()?;
                Ok(true)
            }
        }
    }

    /// The session has a new id. The browser gets it as well if there is a session: the response that said so may
    /// have been lost. A late request must not bring it the id of a session that has been destroyed since.
    pub(super) fn follow(&mut self, id: SessionId) {
        // From now on nothing under the new id means that it was there and is no more.
        self.seen = true;
        self.found = Found::Unknown;
        self.id = Some(id);
        self.followed = true;
    }

    /// There is nothing in the store under the request's id.
    pub(super) fn absent(&mut self) -> Result<()> {
        self.found = Found::Absent;
        if self.seen {
            self.gone = true;
            return Err(Error::gone());
        }
        Ok(())
    }

    pub(super) fn parse(&self, record: &Record) -> Result<Bag> {
        self.bag(record.payload.clone())
    }

    /// Indexes a payload; the error for one that is no session names the session by its tag alone.
    pub(super) fn bag(&self, payload: Bytes) -> Result<Bag> {
        let format = self.engine.settings().serialize_handler;
        match Bag::parse(format, payload) {
            Ok(bag) => Ok(bag.with_options(self.engine.settings().php_options())),
            Err(error) => {
                let tag = self.id.as_ref().map(SessionId::tag);
                let tag = tag.map_or_else(String::new, |tag| format!(" {tag}"));
                let message = format!("decode session{tag} ({}): {error}", format.name());
                Err(Error::new(ErrorKind::Corrupt, message).with_source(error))
            }
        }
    }

    /// An empty session.
    pub(super) fn empty(&self) -> Bag {
        let settings = self.engine.settings();
        Bag::new(settings.serialize_handler).with_options(settings.php_options())
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        if self.gone {
            return Err(Error::gone());
        }
        Ok(match &self.found {
            Found::Present(present) => Snapshot::new(present.bag.clone(), true),
            Found::Unknown | Found::Absent => Snapshot::new(self.empty(), false),
        })
    }

    /// What a record's payload says of a move.
    pub(super) fn moved(&self, payload: Bytes) -> Move {
        self.bag(payload).map_or(Move::Stayed, |bag| moved::read(&bag, self.engine.unix_time()))
    }

    /// Gives the browser this id, with the headers that go with a cookie.
    pub(super) fn mark_and_limit(&mut self, id: SessionId) {
        self.mark(id);
        if self.engine.settings().use_cookies {
            self.limit();
        }
    }

    /// Gives the browser this id.
    pub(super) fn mark(&mut self, id: SessionId) {
        let settings = self.engine.settings();
        let cookie = cookie::mark(settings, id.expose(), self.engine.unix_time());
        if let Some(cookie) = cookie.filter(|_| settings.use_cookies) {
            self.head.set_cookie(&settings.name, cookie);
        }
        self.id = Some(id);
        (self.followed, self.unwritten) = (false, false);
    }

    /// Lets the response carry the cache limiter's headers.
    pub(super) fn limit(&mut self) {
        let headers = limiter::headers(self.engine.settings(), self.engine.unix_time());
        self.head.set_limiter(headers);
    }

    /// Nothing marks the browser once the head has left.
    pub(super) fn must_mark(&self) -> Result<()> {
        if self.head_sent && self.engine.settings().use_cookies {
            return Err(Error::misuse(
                "a new session cannot mark the browser once the head of the response has left: call start() or \
                 update() before the body is sent",
            ));
        }
        Ok(())
    }

    /// The session is no more, and the next one gets a new id.
    pub(super) fn forget(&mut self) {
        self.id = None;
        self.seen = false;
        self.gone = false;
        (self.followed, self.unwritten) = (false, false);
        self.found = Found::Absent;
        self.keep_alive = false;
    }

    /// Notes what this request itself has written.
    pub(super) fn committed(&mut self, bag: Bag, version: Option<Version>) {
        self.seen = true;
        self.unwritten = false;
        self.keep_alive = false;
        self.found = match version {
            Some(version) => Found::Present(Present { bag, version, ttl: None }),
            None => Found::Unknown,
        };
    }

    /// Whether a read wants the session to live on, and its last refresh is long enough ago.
    pub(super) fn is_touch_due(&self) -> bool {
        let lifetime = self.engine.settings().lifetime();
        match &self.found {
            Found::Present(Present { ttl: Some(ttl), .. }) if self.keep_alive => {
                lifetime.saturating_sub(*ttl) > REFRESH_AFTER.min(lifetime / 10)
            }
            _ => false,
        }
    }

    /// Adds to a response what has been decided about the browser.
    pub(super) fn write_head(&mut self, out: &mut HeaderMap) {
        if self.unwritten && !self.head.exact {
            let name = self.engine.settings().name.clone();
            self.head.drop_cookie(&name);
        }
        self.head.write(out);
    }

    /// Lets a session that was read live on. That it could not is no reason to fail a request that has its data.
    pub(super) async fn touch_if_due(&mut self) {
        let (Some(id), true) = (&self.id, self.is_touch_due()) else { return };
        self.keep_alive = false;
        let lifetime = self.engine.settings().lifetime();
        let key = Key::from_id(id);
        let deadline = self.deadline(Duration::ZERO);
        match self.engine.store().commit(&key, Expect::Any, Put::Touch(lifetime), &deadline).await {
            Ok(Outcome::Done(_)) => {
                if let Found::Present(present) = &mut self.found {
                    present.ttl = Some(lifetime);
                }
            }
            Ok(Outcome::Gone) => {}
            // Who holds the session writes or touches it.
            Err(error) if error.kind() == ErrorKind::Locked => {}
            Ok(outcome) => tracing::warn!(session = %key.tag(), ?outcome, "a session could not be kept alive"),
            Err(error) => tracing::warn!(session = %key.tag(), %error, "a session could not be kept alive"),
        }
    }
}
