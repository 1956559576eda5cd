//! The verb `update`: a change as one atomic step, without holding anything while the handler thinks.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_php::Bag;

use super::Session;
use super::state::{Found, Present, State};
use crate::store::{Claim, Expect, Outcome, Payload, Put, Version};
use crate::{Deadline, Draft, Engine, Error, ErrorKind, Key, Result, SessionId};

/// After so many conflicts the lock is taken.
const CONFLICTS: u32 = 4;
/// So often a new id may turn out to be taken; twice has never happened to anybody.
pub(super) const NEW_IDS: u32 = 3;

impl Session {
    /// Changes the session in one atomic step: what `f` did is in the store when this returns.
    ///
    /// `f` may run several times, each time on fresh data, because another request was faster; it must do nothing but
    /// compute. An update that changes nothing writes nothing and marks nobody; one whose closure fails commits
    /// nothing. A session that does not exist is made, under a new id.
    pub async fn update<T, F>(&self, f: F) -> Result<T>
    where
        F: FnMut(&mut Draft) -> Result<T> + Send,
    {
        self.try_update(f).await
    }

    /// [`update`](Session::update) for closures with an error type of their own.
    pub async fn try_update<T, E, F>(&self, mut f: F) -> Result<T, E>
    where
        E: From<Error>,
        F: FnMut(&mut Draft) -> Result<T, E> + Send,
    {
        let mut state = self.enter().await?;
        // What an earlier read of this request gave is good enough for a first attempt; the store has the last word.
        let mut fresh = matches!(state.found, Found::Unknown);
        let mut conflicts = 0;
        // One limit for all attempts together.
        let deadline = state.update_deadline();
        if fresh && state.locks_first() {
            // Where somebody holds the lock, an update that has nothing to change need not wait for it.
            match state.update_locked(&mut f, &deadline.with_lock_wait(Duration::ZERO)).await {
                Ok(Some(result)) => return result,
                Err(error) if error.kind() != ErrorKind::Locked => return Err(error.into()),
                Ok(None) | Err(_) => {}
            }
        }
        loop {
            state.look().await?;
            if conflicts == CONFLICTS && matches!(state.found, Found::Present(_)) {
                match state.update_locked(&mut f, &deadline).await? {
                    Some(result) => return result,
                    None => continue,
                }
            }
            let (before, version) = match &state.found {
                Found::Present(Present { bag, version, .. }) => (bag.clone(), Some(version.clone())),
                Found::Unknown | Found::Absent => (state.empty(), None),
            };
            let mut draft = Draft::new(before.clone());
            let result = f(&mut draft);
            if result.is_err() || draft.as_bytes() == before.as_bytes() {
                state.keep_alive = true;
                // A decision not to change is checked, too.
                if fresh || state.id.is_none() || state.is_still(version.as_ref()).await? {
                    return result;
                }
                fresh = true;
                continue;
            }
            let Some(version) = version else {
                state.create(draft.into_bag(), &deadline).await?;
                return result;
            };
            match state.replace(draft.into_bag(), &version, &deadline).await? {
                Attempt::Done => return result,
                Attempt::Conflict => conflicts += 1,
            }
            fresh = true;
        }
    }
}

enum Attempt {
    Done,
    /// Another request was faster; the state has what it left.
    Conflict,
}

impl State {
    /// Whether a first attempt had better read under the lock.
    fn locks_first(&self) -> bool {
        self.id.is_some() && !self.gone && self.engine.store().capabilities().lock_first
    }

    /// Asks again whether the session is as it was. If it is not, the state has what it is now.
    async fn is_still(&mut self, version: Option<&Version>) -> Result<bool> {
        let seen = self.found.clone();
        self.found = Found::Unknown;
        if let Err(error) = self.look().await {
            // Nothing was learned: what was seen is all there is.
            if error.kind() != ErrorKind::Gone {
                self.found = seen;
            }
            return Err(error);
        }
        Ok(match (&self.found, version) {
            (Found::Present(now), Some(version)) => now.version == *version,
            (Found::Absent, None) => true,
            _ => false,
        })
    }

    /// Writes a session that does not exist yet, under a new id.
    pub(super) async fn create(&mut self, bag: Bag, deadline: &Deadline) -> Result<()> {
        self.must_mark()?;
        let payload = self.payload(bag.to_bytes())?;
        let (id, version) = create(&self.engine, &payload, deadline).await?;
        self.engine.draw_sweep();
        self.mark_and_limit(id);
        self.committed(bag, version);
        Ok(())
    }

    async fn replace(&mut self, bag: Bag, version: &Version, deadline: &Deadline) -> Result<Attempt> {
        let Some(id) = self.id.clone() else { return Err(Error::gone()) };
        let put = Put::Payload(self.payload(bag.to_bytes())?);
        // Dropped while it waits, it may have been done.
        let seen = std::mem::replace(&mut self.found, Found::Unknown);
        let outcome = self.engine.store().commit(&Key::from_id(&id), Expect::Is(version), put, deadline).await;
        match outcome {
            Ok(Outcome::Done(version)) => {
                self.committed(bag, version);
                Ok(Attempt::Done)
            }
            Ok(Outcome::Conflict(record)) => {
                self.accept(record)?;
                Ok(Attempt::Conflict)
            }
            Ok(Outcome::Gone) => self.absent().map(|()| Attempt::Conflict),
            Ok(outcome) => Err(unexpected(&outcome)),
            Err(error) => {
                if !error.may_have_been_applied() {
                    self.found = seen;
                }
                Err(error)
            }
        }
    }

    /// The same under the lock: the last resort against faster neighbours, and the first where that is cheaper. `None`
    /// if the session has moved or is not there.
    async fn update_locked<T, E, F>(&mut self, f: &mut F, deadline: &Deadline) -> Result<Option<Result<T, E>>>
    where
        F: FnMut(&mut Draft) -> Result<T, E> + Send,
    {
        let Some(id) = self.id.clone() else { return Err(Error::gone()) };
        let key = Key::from_id(&id);
        let locked = self.engine.store().lock(&key, Claim::Existing, deadline).await?;
        let Some((lease, record)) = locked.and_then(|locked| Some((locked.lease, locked.record?))) else {
            return self.absent().map(|()| None);
        };
        let stayed = self.accept(record)?;
        let Found::Present(Present { bag, .. }) = &self.found else {
            lease.release().await;
            return if stayed { self.absent().map(|()| None) } else { Ok(None) };
        };
        let before = bag.clone();
        let mut draft = Draft::new(before.clone());
        let result = f(&mut draft);
        if result.is_err() || draft.as_bytes() == before.as_bytes() {
            self.keep_alive = true;
            lease.release().await;
            return Ok(Some(result));
        }
        let bag = draft.into_bag();
        let put = Put::Payload(self.payload(bag.to_bytes())?);
        self.found = Found::Unknown;
        match self.engine.store().commit(&key, Expect::Held(lease), put, deadline).await? {
            Outcome::Done(version) => {
                self.committed(bag, version);
                Ok(Some(result))
            }
            Outcome::Gone => self.absent().map(|()| None),
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// What is to be written; an error if it is too large for the settings or for the store, which would say so only
    /// after a login has ended the old session.
    pub(super) fn payload(&self, bytes: Bytes) -> Result<Payload> {
        let settings = self.engine.settings();
        let held = self.engine.store().capabilities().max_payload.and_then(|most| usize::try_from(most).ok());
        let most = held.map_or(settings.max_size, |held| held.min(settings.max_size));
        if bytes.len() > most {
            let message = format!("the session would have {} bytes, {most} are allowed", bytes.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(Payload::new(bytes, settings.lifetime()))
    }
}

/// A store's answer that its contract does not allow here.
#[cold]
pub(super) fn unexpected(outcome: &Outcome) -> Error {
    Error::unavailable(format!("the store answered {outcome:?}, which its contract does not allow here"))
}

/// A new record, under a new id.
pub(super) async fn create(
    engine: &Engine,
    payload: &Payload,
    deadline: &Deadline,
) -> Result<(SessionId, Option<Version>)> {
    for _ in 0..NEW_IDS {
        let id = engine.new_id()?;
        let put = Put::Payload(payload.clone());
        match engine.store().commit(&Key::from_id(&id), Expect::Absent, put, deadline).await? {
            Outcome::Done(version) => return Ok((id, version)),
            Outcome::Taken => {}
            outcome => return Err(unexpected(&outcome)),
        }
    }
    Err(Error::new(ErrorKind::Conflict, "every new id was taken"))
}
