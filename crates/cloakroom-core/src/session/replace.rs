//! The verb `rotate`: a new id for a live session, to which the old one leads for a few seconds.

use super::Session;
use super::state::{Found, State};
use super::update::{create, unexpected};
use crate::store::{Claim, Expect, Outcome, Payload, Put};
use crate::{Deadline, Engine, Error, ErrorKind, Key, Result, SessionId, Settings, moved};

impl Session {
    /// Gives the session a new id, for periodic renewal. The browser gets it with this response; requests that are
    /// still on their way with the old one are led to it for [`rotation_grace`](crate::Settings::rotation_grace).
    ///
    /// However many requests do this at once with one old id, there is one new one. Without a session, an empty one
    /// is begun. At a login use [`Started::regenerate_id`](super::Started::regenerate_id) instead, which leaves nothing
    /// under the old id.
    pub async fn rotate(&self) -> Result<SessionId> {
        let mut state = self.enter().await?;
        if state.gone {
            return Err(Error::gone());
        }
        state.must_mark()?;
        let deadline = state.update_deadline();
        let Some(old) = state.id.clone() else { return state.create_empty(&deadline).await };
        let engine = state.engine.clone();
        let rotated = state.engine.complete(rotate(engine, Key::from_id(&old), deadline.clone())).await;
        match rotated {
            Ok(Rotated::Now(id)) => {
                state.seen = true;
                state.found = Found::Unknown;
                state.mark_and_limit(id.clone());
                Ok(id)
            }
            Ok(Rotated::Before(id)) => {
                state.follow(id.clone());
                state.look().await?;
                Ok(state.id.clone().unwrap_or(id))
            }
            Ok(Rotated::Absent) => {
                state.absent()?;
                state.create_empty(&deadline).await
            }
            Err(error) => {
                state.found = Found::Unknown;
                Err(error)
            }
        }
    }
}

/// How often a move is tried that others come before.
const TRIES: usize = 16;

enum Rotated {
    Now(SessionId),
    /// Another request has done it.
    Before(SessionId),
    Absent,
}

async fn rotate(engine: Engine, old: Key, deadline: Deadline) -> Result<Rotated> {
    for _ in 0..TRIES {
        if let Some(rotated) = try_to_rotate(engine.clone(), &old, &deadline).await? {
            return Ok(rotated);
        }
    }
    Err(Error::new(ErrorKind::Conflict, "the session was changed by others each time that it was to move"))
}

/// The new record exists before the old one becomes a pointer to it: a crash in between leaves a usable session.
///
/// `None` if somebody else was faster, which only a lock for all records allows: it would be in the way of the new
/// record, so that it is given back, and the version is compared.
async fn try_to_rotate(engine: Engine, old: &Key, deadline: &Deadline) -> Result<Option<Rotated>> {
    let locked = engine.store().lock(old, Claim::Existing, deadline).await?;
    let Some((lease, record)) = locked.and_then(|locked| Some((locked.lease, locked.record?))) else {
        return Ok(Some(Rotated::Absent));
    };
    let state = State::new(engine);
    let now = state.engine.unix_time();
    match moved::read(&state.parse(&record)?, now) {
        moved::Move::Stayed => {}
        moved::Move::To(id) => {
            lease.release().await;
            return Ok(Some(Rotated::Before(id)));
        }
        moved::Move::Over => {
            lease.release().await;
            return Ok(Some(Rotated::Absent));
        }
    }
    let version = record.version.clone();
    let expect = if state.engine.store().capabilities().one_lock {
        lease.release().await;
        Expect::Is(&version)
    } else {
        Expect::Held(lease)
    };
    let settings = state.engine.settings();
    let payload = Payload { columns: record.columns, ..Payload::new(record.payload, settings.lifetime()) };
    let (new, _) = create(&state.engine, &payload, deadline).await?;
    let grace = settings.rotation_grace;
    let put = if grace.is_zero() {
        Put::Remove
    } else {
        let until = now.saturating_add(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
        Put::Payload(Payload::new(moved::write(settings.serialize_handler, &new, until)?, grace))
    };
    match state.engine.store().commit(old, expect, put, deadline).await {
        Ok(Outcome::Done(_) | Outcome::Removed(_)) => Ok(Some(Rotated::Now(new))),
        // The reply was lost, and the browser needs the id under which the session can be found either way.
        Err(error) if error.may_have_been_applied() => {
            tracing::warn!(session = %old.tag(), %error, "it is unknown whether the old id still holds a session");
            Ok(Some(Rotated::Now(new)))
        }
        outcome => {
            // The old session lives on or is gone: the copy must not.
            remove_copy(&state.engine, &Key::from_id(&new), Expect::Any).await;
            match outcome? {
                Outcome::Gone => Ok(Some(Rotated::Absent)),
                Outcome::Conflict(_) => Ok(None),
                outcome => Err(unexpected(&outcome)),
            }
        }
    }
}

/// Removes the record under a new id that the session does not move to. It has limits of its own, since those of the
/// request may be what made the move fail.
pub(super) async fn remove_copy(engine: &Engine, new: &Key, expect: Expect<'_>) {
    let Settings { io_timeout, update_wait, .. } = *engine.settings();
    let deadline = Deadline::new(io_timeout, update_wait);
    if let Err(error) = engine.store().commit(new, expect, Put::Remove, &deadline).await {
        tracing::warn!(%error, "the record under the new id of a session that did not move stays until it expires");
    }
}

impl State {
    async fn create_empty(&mut self, deadline: &Deadline) -> Result<SessionId> {
        let bag = self.empty();
        self.create(bag, deadline).await?;
        self.id.clone().ok_or_else(Error::gone)
    }
}
