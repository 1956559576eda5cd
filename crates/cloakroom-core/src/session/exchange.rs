//! What `regenerate_id` does: one locked record for another.

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

pub(super) enum Exchanged {
    New {
        id: SessionId,
        key: Key,
        lease: Box<dyn Lease>,
    },
    /// No new record could be made; the old one is still held.
    Old {
        lease: Box<dyn Lease>,
        error: Error,
    },
}

/// Makes and locks a new record, then lets the old one go.
pub(super) async fn exchange(engine: Engine, old: HeldRecord, put: Put, deadline: Deadline) -> Result<Exchanged> {
    let HeldRecord { key: old, lease: held, may_be_missing } = old;
    let mut error = Error::new(ErrorKind::Conflict, "every new id was taken");
    for _ in 0..NEW_IDS {
        let id = match engine.new_id() {
            Ok(id) => id,
            Err(error) => return Ok(Exchanged::Old { lease: held, error }),
        };
        let key = Key::from_id(&id);
        match engine.store().lock(&key, Claim::New, &deadline).await {
            Ok(Some(locked)) => {
                let failure = match engine.store().commit(&old, Expect::Held(held), put, &deadline).await {
                    Ok(Outcome::Done(_) | Outcome::Removed(_)) => {
                        return Ok(Exchanged::New { id, key, lease: locked.lease });
                    }
                    Ok(Outcome::Gone) if may_be_missing => {
                        return Ok(Exchanged::New { id, key, lease: locked.lease });
                    }
                    // Destroyed by somebody who did not wait for the lock: nothing brings it back, under no id.
                    Ok(Outcome::Gone) => Error::gone(),
                    Ok(outcome) => unexpected(&outcome),
                    Err(error) => error,
                };
                remove_copy(&engine, &key, Expect::Held(locked.lease)).await;
                return Err(failure);
            }
            Ok(None) => {}
            Err(failure) => {
                error = failure;
                break;
            }
        }
    }
    Ok(Exchanged::Old { lease: held, error })
}

/// [`exchange`] where the lock of the old record would be in the way of the new one: it is given back first, and taken
/// again last. At every moment in between the session is whole under one of the two ids.
pub(super) async fn exchange_the_one_lock(
    engine: Engine,
    old: HeldRecord,
    put: Put,
    payload: Payload,
    deadline: Deadline,
) -> Result<Exchanged> {
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
        Ok(Some(locked)) => Ok(Exchanged::New { id, key, lease: locked.lease }),
        Ok(None) => Err(Error::gone()),
        Err(error) => {
            remove_copy(&engine, &key, Expect::Any).await;
            Err(error)
        }
    }
}
