//! The memory store keeps every promise of the contract.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, Key, Store};
use cloakroom_store_memory::MemoryStore;

#[tokio::test(start_paused = true)]
async fn a_record_and_its_lock() {
    let store = MemoryStore::default();
    let (key, deadline) = (Key::from_bytes(*b"abc"), Deadline::new(Duration::from_secs(1), Duration::from_secs(1)));
    let put = |text: &'static str| Put::Payload(Payload::new(Bytes::from(text), Duration::from_secs(100)));
    assert!(store.load(&key, &deadline).await.unwrap().is_none());
    let Outcome::Done(Some(first)) = store.commit(&key, Expect::Absent, put("a|i:1;"), &deadline).await.unwrap() else {
        panic!()
    };
    let locked = store.lock(&key, Claim::Existing, &deadline).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "a|i:1;");
    let waiter = tokio::spawn({
        let (store, key, deadline) = (store.clone(), key.clone(), deadline.clone());
        async move { store.commit(&key, Expect::Is(&first), put("a|i:9;"), &deadline).await.unwrap() }
    });
    tokio::task::yield_now().await;
    store.commit(&key, Expect::Held(locked.lease), put("a|i:2;"), &deadline).await.unwrap();
    assert!(matches!(waiter.await.unwrap(), Outcome::Conflict(now) if now.payload == "a|i:2;"));
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(store.load(&key, &deadline).await.unwrap().is_none());
    assert_eq!(store.sweep(10).await.unwrap().removed, 1);
    assert_eq!((store.len(), store.bytes()), (0, 0));
}
