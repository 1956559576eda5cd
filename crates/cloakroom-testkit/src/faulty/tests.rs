//! A faulty store does what was ordered, at the call it was ordered for.

use std::time::Duration;

use super::{Calls, Fault, Faulty, Op};
use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, ErrorKind, Key, Store};
use cloakroom_store_memory::MemoryStore;

const LIFE: Duration = Duration::from_secs(100);

fn deadline() -> Deadline {
    Deadline::new(Duration::from_millis(250), Duration::from_secs(5))
}

fn write(text: &'static str) -> Put {
    Put::Payload(Payload::new(Bytes::from(text), LIFE))
}

async fn fresh() -> (Faulty<MemoryStore>, Key) {
    let (store, key) = (Faulty::new(MemoryStore::default()), Key::from_bytes(*b"key"));
    store.commit(&key, Expect::Absent, write("old"), &deadline()).await.unwrap();
    store.reset();
    (store, key)
}

async fn text(store: &Faulty<MemoryStore>, key: &Key) -> Bytes {
    store.inner().load(key, &deadline()).await.unwrap().unwrap().payload
}

#[tokio::test(start_paused = true)]
async fn counts_calls_by_kind() {
    let (store, key) = fresh().await;
    store.load(&key, &deadline()).await.unwrap();
    let lease = store.lock(&key, Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
    store.commit(&key, Expect::Held(lease), write("new"), &deadline()).await.unwrap();
    store.commit(&key, Expect::Any, Put::Touch(LIFE), &deadline()).await.unwrap();
    store.commit(&key, Expect::Any, Put::Remove, &deadline()).await.unwrap();
    store.commit(&key, Expect::Any, Put::SetAside, &deadline()).await.unwrap();
    store.sweep(1).await.unwrap();
    let calls = store.clone().calls();
    assert_eq!(calls, Calls { loads: 1, locks: 1, writes: 1, touches: 1, removes: 1, asides: 1, sweeps: 1 });
    assert_eq!(calls.total(), 7);
}

#[tokio::test(start_paused = true)]
async fn fails_at_the_call_that_was_chosen() {
    let (store, key) = fresh().await;
    store.fail_at(Op::Commit, 2, Fault::Unavailable);
    store.fail_at(Op::Write, 2, Fault::Error(ErrorKind::TooLarge));
    store.commit(&key, Expect::Any, write("1"), &deadline()).await.unwrap();
    let error = store.commit(&key, Expect::Any, Put::Touch(LIFE), &deadline()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    let error = store.commit(&key, Expect::Any, write("2"), &deadline()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(text(&store, &key).await, "1");
    store.commit(&key, Expect::Any, write("3"), &deadline()).await.unwrap();
    store.fail_always(Op::Any, Fault::Unavailable);
    for _ in 0..3 {
        assert!(store.load(&key, &deadline()).await.is_err());
    }
    store.heal();
    assert!(store.load(&key, &deadline()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_was_carried_out() {
    let (store, key) = fresh().await;
    store.fail_at(Op::Write, 1, Fault::LostReply);
    let lease = store.lock(&key, Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
    let error = store.commit(&key, Expect::Held(lease), write("new"), &deadline()).await.unwrap_err();
    assert!(error.may_have_been_applied());
    assert_eq!(text(&store, &key).await, "new");
    assert!(store.lock(&key, Claim::Existing, &deadline()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stall_takes_from_the_time_for_talking() {
    let (store, key) = fresh().await;
    store.fail_at(Op::Write, 1, Fault::Stall(Duration::from_millis(200)));
    store.fail_at(Op::Write, 2, Fault::Stall(Duration::from_millis(300)));
    store.fail_at(Op::Write, 3, Fault::Late(Duration::from_millis(300)));
    let limit = deadline();
    store.commit(&key, Expect::Any, write("1"), &limit).await.unwrap();
    // All of it but the fiftieth part of the limit that each exchange has for nothing.
    assert_eq!(limit.io_left(), Duration::from_millis(250 - (200 - 5)));
    let error = store.commit(&key, Expect::Any, write("2"), &deadline()).await.unwrap_err();
    assert!(!error.may_have_been_applied());
    assert_eq!(text(&store, &key).await, "1");
    let error = store.commit(&key, Expect::Any, write("3"), &deadline()).await.unwrap_err();
    assert!(error.may_have_been_applied());
    assert_eq!(text(&store, &key).await, "3");
}

#[tokio::test(start_paused = true)]
async fn a_gate_stops_a_call_until_it_is_opened() {
    let (store, key) = fresh().await;
    let version = store.load(&key, &deadline()).await.unwrap().unwrap().version;
    let mut gate = store.stop_at(Op::Write, 1);
    let late = tokio::spawn({
        let (store, key) = (store.clone(), key.clone());
        async move { store.commit(&key, Expect::Is(&version), write("mine"), &deadline()).await.unwrap() }
    });
    gate.arrived().await;
    store.inner().commit(&key, Expect::Any, Put::Remove, &deadline()).await.unwrap();
    gate.open();
    assert!(matches!(late.await.unwrap(), Outcome::Gone));
}
