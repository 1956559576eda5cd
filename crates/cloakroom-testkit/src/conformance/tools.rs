//! Short names for what nearly every case does.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Payload, Put, Record, Version};
use cloakroom_core::{Deadline, DynStore, Key, Result};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) type Shared = Arc<dyn DynStore>;

/// The life of a record that is not to end within a case.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// How long a call that has to wait is watched.
const WATCH: Duration = Duration::from_millis(80);

/// Panics unless the value has this shape.
macro_rules! assert_is {
    ($value:expr, $pattern:pat $(if $guard:expr)?) => {
        match $value {
            $pattern $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern $(if $guard)?)),
        }
    };
}
pub(crate) use assert_is;

/// Limits that nothing reaches.
pub(crate) fn patient() -> Deadline {
    waiting(Duration::from_secs(120))
}

/// A limit for waiting, and all the time in the world for talking.
pub(crate) fn waiting(lock_wait: Duration) -> Deadline {
    Deadline::new(Duration::from_secs(120), lock_wait)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `LONG` but for some seconds.
pub(crate) fn short_of_long(by: u64) -> Duration {
    LONG.saturating_sub(seconds(by))
}

pub(crate) fn write(payload: impl Into<Bytes>) -> Put {
    write_for(payload, LONG)
}

pub(crate) fn write_for(payload: impl Into<Bytes>, ttl: Duration) -> Put {
    Put::Payload(Payload::new(payload.into(), ttl))
}

pub(crate) async fn commit(store: &Shared, key: &Key, expect: Expect<'_>, put: Put) -> Outcome {
    store.commit(key, expect, put, &patient()).await.unwrap()
}

/// Makes a record that is not there.
pub(crate) async fn create(store: &Shared, key: &Key, payload: impl Into<Bytes>) {
    assert_is!(commit(store, key, Expect::Absent, write(payload)).await, Outcome::Done(_));
}

pub(crate) async fn load(store: &Shared, key: &Key) -> Option<Record> {
    store.load(key, &patient()).await.unwrap()
}

/// The record, which has to be there.
#[track_caller]
pub(crate) fn found(store: &Shared, key: &Key) -> impl Future<Output = Record> {
    let at = std::panic::Location::caller();
    async move { load(store, key).await.unwrap_or_else(|| panic!("no record, asked for at {at}")) }
}

pub(crate) async fn version(store: &Shared, key: &Key) -> Version {
    found(store, key).await.version
}

/// Panics unless the record is there and holds this payload.
#[track_caller]
pub(crate) fn assert_holds(store: &Shared, key: &Key, payload: impl AsRef<[u8]>) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let found = load(store, key).await.unwrap_or_else(|| panic!("no record, asked for at {at}"));
        assert!(found.payload == payload.as_ref(), "another payload than expected at {at}: {:?}", found.payload);
    }
}

/// Panics if the record is there.
#[track_caller]
pub(crate) fn assert_absent(store: &Shared, key: &Key) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let found = load(store, key).await;
        assert!(found.is_none(), "a record where there is to be none at {at}: {found:?}");
    }
}

pub(crate) async fn lock(store: &Shared, key: &Key, claim: Claim) -> Option<Locked> {
    store.lock(key, claim, &patient()).await.unwrap()
}

/// The lock of a record that is there.
pub(crate) async fn hold(store: &Shared, key: &Key) -> Locked {
    lock(store, key, Claim::Existing).await.unwrap()
}

/// Panics unless the lock can be had by who does not wait for it at all.
pub(crate) async fn assert_free(store: &Shared, key: &Key) {
    // Not quite at once: a release may still be on its way to the store.
    let locked = store.lock(key, Claim::Either, &waiting(seconds(20))).await.unwrap();
    locked.unwrap().lease.release().await;
}

pub(crate) fn later_lock(store: &Shared, key: &Key, claim: Claim) -> JoinHandle<Result<Option<Locked>>> {
    let (store, key) = (Arc::clone(store), key.clone());
    tokio::spawn(async move { store.lock(&key, claim, &patient()).await })
}

pub(crate) fn later_commit(store: &Shared, key: &Key, is: Option<&Version>, put: Put) -> JoinHandle<Result<Outcome>> {
    let (store, key, is) = (Arc::clone(store), key.clone(), is.cloned());
    tokio::spawn(async move { store.commit(&key, is.as_ref().map_or(Expect::Any, Expect::Is), put, &patient()).await })
}

/// Watches a call that has to wait for something that does not happen yet.
pub(crate) async fn assert_waits<T: std::fmt::Debug>(call: &mut JoinHandle<T>) {
    if let Ok(early) = timeout(WATCH, call).await {
        panic!("this call had to wait: {early:?}");
    }
}

/// The end of a call that has nothing to wait for any more.
pub(crate) async fn soon<T>(call: JoinHandle<Result<T>>) -> T {
    timeout(seconds(60), call).await.unwrap().unwrap().unwrap()
}

/// Spawns a future and returns once it was polled, so that it stands in its queue before whatever comes next.
pub(crate) async fn begin<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let (polled, was_polled) = tokio::sync::oneshot::channel();
    let call = tokio::spawn(async move {
        let mut future = pin!(future);
        let mut polled = Some(polled);
        poll_fn(|context| {
            let poll = future.as_mut().poll(context);
            if let Some(polled) = polled.take() {
                let _ = polled.send(());
            }
            poll
        })
        .await
    });
    was_polled.await.unwrap();
    // For stores that ask somebody else before they queue.
    tokio::time::sleep(WATCH / 4).await;
    call
}

/// Polls a future up to `times` times, with a moment between, and drops it then.
pub(crate) async fn poll_and_drop<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let poll = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// One of the numbers below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        // Knuth's generator; its upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// A payload that is a number.
pub(crate) fn number(record: &Record) -> usize {
    std::str::from_utf8(&record.payload).unwrap().parse().unwrap()
}
