//! Waiting is first come, first served, and who leaves the queue is not missed.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use std::sync::{Arc, Mutex};

use cloakroom_core::ErrorKind;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{
    Shared, assert_free, assert_holds, assert_is, begin, commit, create, hold, number, patient, seconds, soon, waiting,
    write,
};

/// Nobody is overtaken by who came later.
pub async fn waiting_is_first_come_first_served<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("queue"));
    create(&store, &key, "data").await;
    let lease = hold(&store, &key).await.lease;
    let (order, mut waiters) = (Arc::new(Mutex::new(Vec::new())), Vec::new());
    for n in 0..8 {
        let (store, key, order): (Shared, _, _) = (store.clone(), key.clone(), Arc::clone(&order));
        waiters.push(
            begin(async move {
                let locked = store.lock(&key, Claim::Existing, &patient()).await?;
                order.lock().unwrap().push(n);
                locked.unwrap().lease.release().await;
                Ok(())
            })
            .await,
        );
    }
    lease.release().await;
    for waiter in waiters {
        soon(waiter).await;
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// A commit stands in the same queue: after who came before it, before who came after it.
pub async fn commits_wait_their_turn<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("turn"));
    create(&store, &key, "0").await;
    let lease = hold(&store, &key).await.lease;
    let lock = |after: usize| {
        let (store, key): (Shared, _) = (store.clone(), key.clone());
        begin(async move {
            let locked = store.lock(&key, Claim::Existing, &patient()).await?.unwrap();
            assert_eq!(number(&locked.record.unwrap()), after, "whose turn it is");
            locked.lease.release().await;
            Ok(())
        })
    };
    let write = |n: usize| {
        let (store, key): (Shared, _) = (store.clone(), key.clone());
        begin(async move { store.commit(&key, Expect::Any, write(n.to_string()), &patient()).await })
    };
    let locks = [lock(0).await];
    let writes = [write(1).await];
    let more_locks = [lock(1).await, lock(1).await];
    let more_writes = [write(2).await];
    let last_locks = [lock(2).await];
    lease.release().await;
    for lock in locks.into_iter().chain(more_locks).chain(last_locks) {
        soon(lock).await;
    }
    for write in writes.into_iter().chain(more_writes) {
        assert_is!(soon(write).await, Outcome::Done(_));
    }
    assert_holds(&store, &key, "2").await;
}

/// A visitor who closes the browser while the request waits.
pub async fn a_waiter_that_is_dropped_is_not_missed<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("left"));
    create(&store, &key, "data").await;
    for leaving in [[0, 1, 2], [2, 3, 4], [0, 2, 4]] {
        let lease = hold(&store, &key).await.lease;
        let mut waiters = Vec::new();
        for n in 0..5 {
            let (store, key): (Shared, _) = (store.clone(), key.clone());
            let lock = async move { store.lock(&key, Claim::Existing, &patient()).await };
            waiters.push((n, begin(lock).await));
        }
        for (_, waiter) in waiters.iter().filter(|(n, _)| leaving.contains(n)) {
            waiter.abort();
        }
        lease.release().await;
        for (n, waiter) in waiters {
            if leaving.contains(&n) {
                assert!(waiter.await.is_err(), "a waiter that left");
            } else {
                soon(waiter).await.unwrap().lease.release().await;
            }
        }
        assert_free(&store, &key).await;
    }
}

/// The lock goes to the next after somebody gave up.
pub async fn a_waiter_that_gave_up_is_not_missed<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("gave-up"));
    create(&store, &key, "data").await;
    let lease = hold(&store, &key).await.lease;
    let (other, name): (Shared, _) = (store.clone(), key.clone());
    let first = begin(async move { other.lock(&name, Claim::Existing, &waiting(seconds(1) / 5)).await }).await;
    let (other, name): (Shared, _) = (store.clone(), key.clone());
    let second = begin(async move { other.lock(&name, Claim::Existing, &patient()).await }).await;
    assert_eq!(first.await.unwrap().unwrap_err().kind(), ErrorKind::Locked);
    assert!(!second.is_finished());
    lease.release().await;
    soon(second).await.unwrap().lease.release().await;
    assert_free(&store, &key).await;
}

/// A queue of two hundred on one record, as a client makes who opens that many connections.
pub async fn a_long_queue_comes_to_its_end<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("long"));
    create(&store, &key, "data").await;
    let lease = hold(&store, &key).await.lease;
    let waiters: Vec<_> = (0..200)
        .map(|_| {
            let (store, key): (Shared, _) = (store.clone(), key.clone());
            tokio::spawn(async move {
                let locked = store.lock(&key, Claim::Existing, &patient()).await?;
                locked.unwrap().lease.release().await;
                Ok(())
            })
        })
        .collect();
    lease.release().await;
    for waiter in waiters {
        soon(waiter).await;
    }
    assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
}
