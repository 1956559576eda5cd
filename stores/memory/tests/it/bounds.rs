//! What is the memory store's own: its bound on bytes, and that it forgets what it is to forget.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, ErrorKind, Key, Result, Store};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};

const LIFE: Duration = Duration::from_secs(100);

fn deadline() -> Deadline {
    Deadline::new(Duration::from_secs(1), Duration::from_secs(1))
}

fn key(n: usize) -> Key {
    Key::from_bytes(format!("key-{n}").into_bytes())
}

async fn commit(store: &MemoryStore, n: usize, expect: Expect<'_>, length: usize) -> Result<Outcome> {
    let payload = Payload::new(Bytes::from(vec![b'x'; length]), LIFE);
    store.commit(&key(n), expect, Put::Payload(payload), &deadline()).await
}

/// Fills a store of 100 kB with records of 1 kB and tells how many there was room for.
async fn fill(store: &MemoryStore) -> usize {
    for n in 0.. {
        if let Err(error) = commit(store, n, Expect::Absent, 1000).await {
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            return n;
        }
    }
    unreachable!()
}

fn small() -> MemoryStore {
    MemoryStore::new(MemoryConfig::default().max_bytes(100_000).shards(4))
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_new_sessions_and_keeps_the_old() {
    let store = small();
    let count = fill(&store).await;
    assert!((50..100).contains(&count), "{count}");
    assert!(store.bytes() <= 100_000);
    for n in 0..count {
        assert!(store.load(&key(n), &deadline()).await.unwrap().is_some());
        assert!(matches!(commit(&store, n, Expect::Any, 1000).await, Ok(Outcome::Done(_))), "same size");
    }
    assert_eq!(commit(&store, 0, Expect::Any, 3000).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.load(&key(0), &deadline()).await.unwrap().unwrap().payload.len(), 1000);
    while store.bytes() < 99_000 {
        commit(&store, 10_000 + store.len(), Expect::Absent, 0).await.unwrap();
    }
    let mut n = 20_000;
    while let Ok(locked) = store.lock(&key(n), Claim::New, &deadline()).await {
        drop(locked);
        n += 1;
    }
    assert!(n < 20_010);
    assert!(commit(&store, 0, Expect::Any, 10).await.is_ok(), "shrinking makes room");
    assert!(store.lock(&key(n), Claim::New, &deadline()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_expired_make_room() {
    let store = small();
    let count = fill(&store).await;
    tokio::time::advance(LIFE).await;
    assert_eq!(store.len(), count, "nobody has swept");
    assert!(commit(&store, 9999, Expect::Absent, 1000).await.is_ok());
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_behind() {
    let store = small();
    for round in 0..1000 {
        let made = commit(&store, round, Expect::Absent, round % 300).await.unwrap();
        assert!(matches!(made, Outcome::Done(_)));
        let lease = store.lock(&key(round), Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
        assert_eq!(store.lock(&key(round), Claim::Existing, &deadline()).await.unwrap_err().kind(), ErrorKind::Locked);
        if round % 2 == 0 {
            store.commit(&key(round), Expect::Held(lease), Put::Remove, &deadline()).await.unwrap();
        } else {
            drop(lease);
            store.commit(&key(round), Expect::Any, Put::SetAside, &deadline()).await.unwrap();
        }
        assert!(store.lock(&key(round), Claim::Existing, &deadline()).await.unwrap().is_none());
    }
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_is_bounded_in_number_bytes_and_age() {
    let store = MemoryStore::new(MemoryConfig::default().max_bytes(100_000).aside(3, LIFE));
    for n in 0..5 {
        commit(&store, n, Expect::Absent, n).await.unwrap();
        store.commit(&key(n), Expect::Any, Put::SetAside, &deadline()).await.unwrap();
    }
    let lengths = |store: &MemoryStore| store.set_aside().iter().map(|aside| aside.payload.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&store), [4, 3, 2]);
    commit(&store, 0, Expect::Absent, 90_000).await.unwrap();
    store.commit(&key(0), Expect::Any, Put::SetAside, &deadline()).await.unwrap();
    assert_eq!(lengths(&store), [0; 0], "too large to be kept at all");
    commit(&store, 0, Expect::Absent, 7).await.unwrap();
    store.commit(&key(0), Expect::Any, Put::SetAside, &deadline()).await.unwrap();
    assert_eq!(lengths(&store), [7]);
    tokio::time::advance(LIFE).await;
    assert_eq!(lengths(&store), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_only_locked_has_the_configured_life() {
    let store = MemoryStore::new(MemoryConfig::default().lifetime(LIFE));
    drop(store.lock(&key(1), Claim::Either, &deadline()).await.unwrap());
    assert_eq!(store.load(&key(1), &deadline()).await.unwrap().unwrap().ttl, Some(LIFE));
    tokio::time::advance(LIFE).await;
    assert!(store.load(&key(1), &deadline()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_small_record_keeps_no_large_buffer_alive() {
    let store = MemoryStore::default();
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let payload = Payload::new(large.slice(..10), LIFE);
    store.commit(&key(1), Expect::Absent, Put::Payload(payload), &deadline()).await.unwrap();
    assert!(large.is_unique());
}
