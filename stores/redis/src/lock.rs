//! Locks: php-redis's lock key, with a token that is ours alone, a life that is renewed for as long as the holder has
//! it, and a release that touches nobody else's.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::line::{Head, pauses};
use cloakroom_core::store::{BoxFuture, Lease};
use cloakroom_core::{Deadline, Error, Key, Random, Result, Running, SystemRandom, Tag};
use redis::Value;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::link::{Link, Question, What};
use crate::script::Script;
use crate::store::Inner;

/// How long one try to give a lock back may take.
const RELEASE: Duration = Duration::from_secs(1);

/// What was asked for on a connection that was given up can arrive so much later than what is asked on the next one.
const LATE: Duration = Duration::from_millis(250);

/// A lock that is held, or may be: from the moment it is asked for until it is known to be gone.
pub(crate) struct RedisLease {
    held: Option<Held>,
    renewal: Option<JoinHandle<()>>,
    /// Until when the record lives that was found under the lock.
    found: Found,
    tag: Tag,
}

/// What was there when the lock was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Nothing,
    Until(Instant),
    ForEver,
}

/// What it takes to give a lock back.
#[derive(Clone)]
struct Held {
    store: Arc<Inner>,
    link: Link,
    lock: Arc<[u8]>,
    token: Arc<[u8]>,
    /// The place in line, kept until the lock is free or lost.
    head: Arc<Mutex<Option<Head>>>,
    runtime: Handle,
}

impl RedisLease {
    /// A lease on a lock that is about to be asked for. Dropped, it sees to it that the lock is free.
    pub(crate) fn prepare(store: &Arc<Inner>, link: &Link, key: &Key, lock: Vec<u8>, head: Head) -> Result<RedisLease> {
        let held = Held {
            store: Arc::clone(store),
            link: link.clone(),
            lock: lock.into(),
            token: token(&store.host)?.into(),
            head: Arc::new(Mutex::new(Some(head))),
            runtime: Handle::current(),
        };
        Ok(RedisLease { held: Some(held), renewal: None, found: Found::Nothing, tag: key.tag() })
    }

    /// The lease of this very record of this very store, given back by a caller.
    pub(crate) fn recognise(lease: Box<dyn Lease>, store: &Arc<Inner>, lock: &[u8]) -> Result<RedisLease> {
        let Ok(lease) = lease.into_any().downcast::<RedisLease>() else {
            return Err(Error::misuse("commit with a lease of another kind of store"));
        };
        match &lease.held {
            Some(held) if Arc::ptr_eq(&held.store, store) && *held.lock == *lock => Ok(*lease),
            _ => Err(Error::misuse("commit with the lease of another record")),
        }
    }

    pub(crate) fn token(&self) -> Arc<[u8]> {
        self.held.as_ref().map_or_else(|| Arc::from([]), |held| Arc::clone(&held.token))
    }

    /// The lock is held: from now on it is kept alive.
    pub(crate) fn keep(&mut self, found: Found) {
        self.found = found;
        if let Some(held) = &self.held {
            self.renewal = Some(held.runtime.spawn(held.clone().renew()));
        }
    }

    /// Whether what was found under the lock must still be there, unless somebody has destroyed it.
    pub(crate) fn must_be_there(&self) -> bool {
        // The server's clock and ours do not tick together.
        const MARGIN: Duration = Duration::from_secs(1);
        match self.found {
            Found::Nothing => false,
            Found::Until(end) => Instant::now() + MARGIN < end,
            Found::ForEver => true,
        }
    }

    /// The server has told that the lock is not ours, so that there is nothing to give back. What is left is the place
    /// in line.
    pub(crate) fn settle(mut self) -> Option<Head> {
        self.end_renewal();
        self.held.take()?.leave()
    }

    fn end_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }

    /// Begins to give the lock back, in a task of its own.
    fn let_go(&mut self) -> Option<Running<()>> {
        // It is renewed from the moment the server has told that it is ours.
        let unsure = self.renewal.is_none();
        self.end_renewal();
        let held = self.held.take()?;
        let (tasks, runtime) = (held.store.tasks.clone(), held.runtime.clone());
        Some(tasks.spawn(&runtime, held.free(unsure)))
    }
}

impl Held {
    /// Gives the lock back; while the server cannot be reached, again and again until the lock has ended by itself.
    /// Where it is `unsure` that we have it, and it is not there, it may still come: then this looks twice.
    async fn free(self, mut unsure: bool) {
        let (begun, mut pause) = (Instant::now(), RELEASE / 20);
        loop {
            match self.ask(&self.store.scripts.release, &[&self.token], RELEASE).await.as_deref() {
                Ok([Value::Int(0)]) if std::mem::take(&mut unsure) => {
                    drop(self.leave());
                    sleep(LATE).await;
                }
                Ok(_) => break,
                Err(error) => {
                    // Who comes next is to learn for himself that the server cannot be reached.
                    drop(self.leave());
                    if begun.elapsed() > self.store.config.lock_expire {
                        tracing::debug!(%error, "a lock in Redis could not be given back; it ends by itself");
                        break;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(RELEASE);
                }
            }
        }
        drop(self.leave());
    }

    /// Lets the lock live on until it is lost.
    async fn renew(self) {
        let life = self.store.config.lock_expire;
        let (pause, millis) = (life / 3, millis(life));
        let mut sure = Instant::now();
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            match self.ask(&self.store.scripts.renew, &[&self.token, &millis], pause).await.as_deref() {
                Ok([Value::Int(0)]) => break,
                Ok(_) => sure = asked,
                Err(_) if sure.elapsed() > life => break,
                Err(_) => {}
            }
        }
        tracing::warn!("a session's lock in Redis was lost while it was held; what its holder writes will be refused");
        drop(self.leave());
    }

    async fn ask(&self, script: &Script, arguments: &[&[u8]], limit: Duration) -> Result<Vec<Value>> {
        let keys: [&[u8]; 1] = [&self.lock];
        let what = What::Script(script, &keys, arguments);
        self.link.ask(&Question::again(&self.lock, what), &Deadline::new(limit, Duration::ZERO)).await
    }

    fn leave(&self) -> Option<Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Lease for RedisLease {
    fn release(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let released = self.let_go();
        Box::pin(async move {
            if let Some(released) = released {
                // It goes on without us.
                let _ = timeout(RELEASE, released).await;
            }
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl fmt::Debug for RedisLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisLease({})", self.tag)
    }
}

/// How a try ended that somebody else's lock can refuse.
pub(crate) enum Tried<T, L> {
    Done(T),
    Locked(L),
}

/// Trying for a lock at the head of a line, until it is had or the time is up.
pub(crate) struct Turn {
    begun: Instant,
    tried: bool,
    pauses: Option<Box<dyn Iterator<Item = Duration> + Send>>,
}

impl Turn {
    pub(crate) fn new(begun: Instant) -> Turn {
        Turn { begun, tried: false, pauses: None }
    }

    /// Tries once. The first try counts as talking to the store; later ones are waiting for a live holder, unless they
    /// fail.
    pub(crate) async fn ask<T, L, F>(
        &mut self,
        deadline: &Deadline,
        attempt: impl FnOnce(Deadline) -> F,
    ) -> Result<Tried<T, L>>
    where
        F: Future<Output = Result<Tried<T, L>>>,
    {
        if !std::mem::replace(&mut self.tried, true) {
            return attempt(deadline.clone()).await;
        }
        let begun = Instant::now();
        let answer = attempt(Deadline::new(deadline.io_left(), Duration::ZERO)).await;
        if !matches!(answer, Ok(Tried::Locked(_))) {
            deadline.spend(begun.elapsed());
        }
        answer
    }

    pub(crate) async fn pause(&mut self, deadline: &Deadline) -> Result<()> {
        let left = deadline.wait_until().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::locked(self.begun.elapsed()));
        }
        let pauses = self.pauses.get_or_insert_with(|| Box::new(pauses()));
        sleep(pauses.next().unwrap_or(left).min(left)).await;
        Ok(())
    }
}

/// A time in milliseconds, as a script wants it.
pub(crate) fn millis(time: Duration) -> Vec<u8> {
    time.as_millis().max(1).to_string().into_bytes()
}

/// php-redis's `hostname|pid`, and something that makes it ours alone: two containers can share both.
fn token(host: &str) -> Result<Vec<u8>> {
    let mut random = [0; 16];
    SystemRandom.fill(&mut random)?;
    Ok(format!("{host}|{}|{:032x}", std::process::id(), u128::from_ne_bytes(random)).into_bytes())
}

/// What this machine is called, for people who look at a lock.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "cloakroom".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_are_the_same() {
        let (one, other) = (token("host").unwrap(), token("host").unwrap());
        assert_ne!(one, other);
        let begin = format!("host|{}|", std::process::id());
        assert!(one.starts_with(begin.as_bytes()) && one.len() == begin.len() + 32);
    }
}
