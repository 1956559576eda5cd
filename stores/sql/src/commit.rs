//! Commits: of those who have no lock, and of the holder.

use std::sync::Arc;

use bytes::Bytes;
use cloakroom_core::line::pauses;
use cloakroom_core::store::{Claim, Outcome, Payload, Put, Record};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result};
use tokio::time::{Instant, sleep};

use crate::error::Failure;
use crate::layout::{Dialect, LockMode};
use crate::lock::{Held, SqlLease, give_back};
use crate::native::Native;
use crate::patience::{Gone, Patience};
use crate::shared::{Shared, Way, or_locked};
use crate::store::{Step, Want};
use crate::symfony::SymfonyTable;

/// How often a holder's commit is tried again that the server asks to try again; nobody else is to be in its way.
const RETRIES: usize = 8;

impl Shared {
    pub(crate) async fn try_commit(
        self: &Arc<Self>,
        key: &Key,
        want: &Want,
        put: &Put,
        deadline: &Deadline,
        gone: Gone,
        begun: Instant,
    ) -> Result<Step<Outcome>> {
        self.ready(deadline).await.map_err(Failure::of_read)?;
        let outcome = match &self.way {
            Way::Native(native) => match self.main.get(deadline).await {
                Ok(mut conn) => native.try_commit(&mut conn, key.record(), want, put, deadline).await,
                Err(failure) => Err(failure),
            },
            Way::Symfony(symfony) => self.commit_symfony(symfony, key, want, put, deadline, gone).await,
        };
        match outcome {
            Ok(Step::Done(outcome)) => {
                self.keep_aside_bounded(put, &outcome, deadline).await;
                Ok(Step::Done(outcome))
            }
            Ok(Step::Wait) => Ok(Step::Wait),
            Err(failure) if failure.is_in_the_way() => or_locked(deadline, begun).map(|()| Step::Wait),
            Err(failure) => Err(failure.of_write()),
        }
    }

    async fn commit_symfony(
        &self,
        symfony: &SymfonyTable,
        key: &Key,
        want: &Want,
        put: &Put,
        deadline: &Deadline,
        gone: Gone,
    ) -> Result<Step<Outcome>, Failure> {
        let touch = matches!((want, put), (Want::Any, Put::Touch(_)));
        // Where a connection may have to wait for a lock, it is not one of those that everybody needs.
        let waits = match symfony.texts.lock {
            LockMode::None => false,
            LockMode::Advisory => !touch,
            LockMode::Transactional => true,
        };
        let mut patience = Patience::new(deadline, symfony, key, &self.main, gone);
        if !waits || self.dialect == Dialect::Postgres {
            let mut conn = if waits { self.locks.get(deadline).await? } else { self.main.get(deadline).await? };
            return symfony.change(&mut conn, key, want, put, deadline, &mut patience).await;
        }
        let claim = if matches!(want, Want::Absent) { Claim::Either } else { Claim::Existing };
        let (mut conn, taken) = self.take(symfony, key, claim, deadline, &mut patience).await?;
        let Some(found) = taken else {
            return Ok(Step::Done(Outcome::Gone));
        };
        let refused = match (want, &found) {
            (Want::Absent, Some(_)) => Some(Outcome::Taken),
            (Want::Absent, None) if !matches!(put, Put::Payload(_)) => Some(Outcome::Gone),
            (Want::Is(version), Some(found)) if found.version != *version => Some(Outcome::Conflict(found.clone())),
            _ => None,
        };
        if let Some(outcome) = refused {
            // A row that was made to keep others out goes again.
            symfony.give_back(&mut conn, key, found.is_some(), deadline).await;
            return Ok(Step::Done(outcome));
        }
        symfony.finish(&mut conn, key, found.as_ref(), put, deadline).await.map(Step::Done)
    }

    /// The holder's commit. Its lock is free afterwards, however it ends.
    pub(crate) async fn commit_held(mut lease: SqlLease, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let (shared, key) = (Arc::clone(lease.shared()), lease.key().clone());
        // It may have to wait for a look at the connection that is under way.
        let Some(held) = deadline.io(lease.let_go()).await? else { return Ok(Outcome::Gone) };
        let outcome = match (held, &shared.way) {
            (Held::Row(token), Way::Native(native)) => {
                let outcome = shared.commit_leased(native, &key, token, &put, deadline).await;
                if outcome.is_err() {
                    // Not in the time of who waits for the answer; the next in line comes after it.
                    let (shared, key) = (Arc::clone(&shared), key.clone());
                    lease.shared().clone().spawn(async move {
                        give_back(&shared, &key, Held::Row(token)).await;
                        drop(lease);
                    });
                    return outcome;
                }
                outcome
            }
            (Held::Line, Way::Symfony(symfony)) => {
                shared.commit_in_line(symfony, &key, lease.found(), &put, deadline).await
            }
            (Held::Connection(mut conn), Way::Symfony(symfony)) => {
                let outcome = symfony.finish(&mut conn, &key, lease.found(), &put, deadline).await;
                if matches!(outcome, Err(Failure::NotSent(_))) {
                    symfony.give_back(&mut conn, &key, false, deadline).await;
                }
                outcome.map_err(Failure::of_write)
            }
            _ => Err(Error::unavailable("the connection that held the session's lock broke; nothing was written")),
        };
        if let Ok(outcome) = &outcome {
            shared.keep_aside_bounded(&put, outcome, deadline).await;
        }
        drop(lease);
        outcome
    }

    async fn commit_leased(
        &self,
        native: &Native,
        key: &Key,
        token: i64,
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        let mut conn = self.main.get(deadline).await.map_err(Failure::of_write)?;
        for pause in pauses().take(RETRIES) {
            match native.try_commit(&mut conn, key.record(), &Want::Held(token), put, deadline).await {
                Ok(Step::Done(outcome)) => return Ok(outcome),
                Ok(Step::Wait) => {}
                // A deadlock, at which nothing was done.
                Err(failure) if failure.is_in_the_way() => {}
                Err(failure) => return Err(failure.of_write()),
            }
            sleep(pause).await;
        }
        Err(Error::unavailable("the database asked again and again to try once more"))
    }

    /// Without a lock that anybody else sees, the record has to be as it was found.
    async fn commit_in_line(
        &self,
        symfony: &SymfonyTable,
        key: &Key,
        found: Option<&Record>,
        put: &Put,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        let empty;
        let (want, put) = match (found, put) {
            (Some(found), put) => (Want::Found(found.version.clone()), put),
            (None, Put::Touch(ttl)) => {
                empty = Put::Payload(Payload::new(Bytes::new(), *ttl));
                (Want::Absent, &empty)
            }
            (None, Put::Payload(_)) => (Want::Absent, put),
            (None, _) => return Ok(Outcome::Gone),
        };
        let mut conn = self.main.get(deadline).await.map_err(Failure::of_write)?;
        let (_here, gone) = Gone::pair();
        let mut patience = Patience::new(deadline, symfony, key, &self.main, gone);
        for pause in pauses().take(RETRIES) {
            match symfony.change(&mut conn, key, &want, put, deadline, &mut patience).await {
                Ok(Step::Done(Outcome::Conflict(_) | Outcome::Taken)) => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "write a session that somebody else has changed meanwhile: `lock=none` keeps nobody out",
                    ));
                }
                Ok(Step::Done(outcome)) => return Ok(outcome),
                Ok(Step::Wait) => {}
                Err(failure) if failure.is_in_the_way() => {}
                Err(failure) => return Err(failure.of_write()),
            }
            sleep(pause).await;
        }
        Err(Error::unavailable("the database asked again and again to try once more"))
    }
}
