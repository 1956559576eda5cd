//! What `regenerate_id` does: one locked record for another.

use http::HeaderValue;

use super::replace::remove_copy;
use super::update::{NEW_IDS, create, unexpected};
use crate::store::{Claim, Expect, Lease, Outcome, Payload, Put};
use crate::{Deadline, Engine, Error, ErrorKind, Key, Result, SessionId};

/// The old session.
pub(super) struct HeldRecord {
    pub(super) key: Key,
    pub(super) lease: Box<dyn Lease>,
    /// Nothing was found when it was locked, and not every store makes a record by locking it.
    pub(super) may_be_missing: bool,
}

/// The new one.
pub(super) struct Claimed {
    pub(super) id: SessionId,
    pub(super) key: Key,
    pub(super) lease: Box<dyn Lease>,
}

/// A session that is to end as soon as its successor is written. Until then it is as it was, and whoever is cancelled
/// has lost nothing.
pub(super) struct Left {
    pub(super) id: SessionId,
    pub(super) record: HeldRecord,
    /// The cookie that the response had then.
    pub(super) cookie: Option<HeaderValue>,
    pub(super) engine: Engine,
}

/// Makes and locks a new record.
pub(super) async fn claim(engine: &Engine, deadline: &Deadline) -> Result<Claimed> {
    for _ in 0..NEW_IDS {
        let id = engine.new_id()?;
        let key = Key::from_id(&id);
        if let Some(locked) = engine.store().lock(&key, Claim::New, deadline).await? {
            return Ok(Claimed { id, key, lease: locked.lease });
        }
    }
    Err(Error::new(ErrorKind::Conflict, "every new id was taken"))
}

/// Lets the old record go, as `put` says. If that fails, there is no new one.
pub(super) async fn retire(
    engine: &Engine,
    old: HeldRecord,
    put: Put,
    new: Claimed,
    deadline: &Deadline,
) -> Result<Claimed> {
    let failure = match engine.store().commit(&old.key, Expect::Held(old.lease), put, deadline).await {
        Ok(Outcome::Done(_) | Outcome::Removed(_)) => return Ok(new),
        Ok(Outcome::Gone) if old.may_be_missing => return Ok(new),
        // Destroyed by somebody who did not wait for the lock: nothing brings it back, under no id.
        Ok(Outcome::Gone) => Error::gone(),
        Ok(outcome) => unexpected(&outcome),
        Err(error) => error,
    };
    remove_copy(engine, &new.key, Expect::Held(new.lease)).await;
    Err(failure)
}

/// Both where the lock of the old record would be in the way of the new one: it is given back first, and taken again
/// last. At every moment in between the session is whole under one of the two ids.
pub(super) async fn exchange_the_one_lock(
    engine: Engine,
    old: HeldRecord,
    put: Put,
    payload: Payload,
    deadline: Deadline,
) -> Result<Claimed> {
    let HeldRecord { key: old, lease: held, may_be_missing } = old;
    let store = engine.store();
    let delete_old = matches!(put, Put::Remove);
    // What is to end gets nothing of what was written since, such as who has just logged in.
    let kept = if delete_old { Put::Touch(engine.settings().lifetime()) } else { put };
    let left = match store.commit(&old, Expect::Held(held), kept, &deadline).await? {
        Outcome::Done(version) => delete_old.then_some(version),
        Outcome::Gone if may_be_missing => None,
        Outcome::Gone => return Err(Error::gone()),
        outcome => return Err(unexpected(&outcome)),
    };
    let (id, _) = create(&engine, &payload, &deadline).await?;
    let key = Key::from_id(&id);
    let moved = match left {
        None => Ok(()),
        Some(version) => {
            let expect = version.as_ref().map_or(Expect::Any, Expect::Is);
            match store.commit(&old, expect, Put::Remove, &deadline).await {
                Ok(Outcome::Removed(_)) => Ok(()),
                Ok(Outcome::Gone) => Err(Error::gone()),
                Ok(Outcome::Conflict(_)) => {
                    Err(Error::new(ErrorKind::Conflict, "the session was changed while it moved"))
                }
                Ok(outcome) => Err(unexpected(&outcome)),
                Err(error) => Err(error),
            }
        }
    };
    let locked = match moved {
        Ok(()) => store.lock(&key, Claim::Existing, &deadline).await,
        Err(error) => Err(error),
    };
    match locked {
        Ok(Some(locked)) => Ok(Claimed { id, key, lease: locked.lease }),
        Ok(None) => Err(Error::gone()),
        Err(error) => {
            remove_copy(&engine, &key, Expect::Any).await;
            Err(error)
        }
    }
}
