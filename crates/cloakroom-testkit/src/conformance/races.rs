//! Many at once: no update is lost, one creator wins, and logout is final.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloakroom_core::Key;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use tokio::task::{JoinHandle, JoinSet};

use super::Harness;
use super::tools::{
    Dice, LONG, Shared, assert_absent, assert_free, assert_holds, assert_is, commit, create, found, load, lock, number,
    patient, write,
};

const TASKS: usize = 8;

/// The first requests of a new visitor, all with the same id.
pub async fn of_many_creators_one_wins<H: Harness>(harness: H) {
    let store = harness.store();
    for round in 0..20 {
        let key = harness.key(&format!("created-{round}"));
        let mut creators = JoinSet::new();
        for n in 0..TASKS {
            let (store, key): (Shared, _) = (store.clone(), key.clone());
            creators.spawn(async move { (n, commit(&store, &key, Expect::Absent, write(n.to_string())).await) });
        }
        let mut winners = Vec::new();
        while let Some(ended) = creators.join_next().await {
            match ended.unwrap() {
                (n, Outcome::Done(_)) => winners.push(n),
                (_, outcome) => assert_is!(outcome, Outcome::Taken),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_holds(&store, &key, winners[0].to_string()).await;
    }
}

/// One of them has destroyed it.
pub async fn of_many_removers_one_removes<H: Harness>(harness: H) {
    let store = harness.store();
    for round in 0..20 {
        let key = harness.key(&format!("removed-{round}"));
        create(&store, &key, "data").await;
        let mut removers = JoinSet::new();
        for _ in 0..TASKS {
            let (store, key): (Shared, _) = (store.clone(), key.clone());
            removers.spawn(async move { commit(&store, &key, Expect::Any, Put::Remove).await });
        }
        let mut removed = 0;
        while let Some(ended) = removers.join_next().await {
            match ended.unwrap() {
                Outcome::Removed(_) => removed += 1,
                outcome => assert_is!(outcome, Outcome::Gone),
            }
        }
        assert_eq!(removed, 1);
        assert_absent(&store, &key).await;
    }
}

async fn increment_by_version(store: &Shared, key: &Key) {
    let mut record = found(store, key).await;
    loop {
        let next = (number(&record) + 1).to_string();
        match commit(store, key, Expect::Is(&record.version), write(next)).await {
            Outcome::Conflict(now) => record = now,
            outcome => {
                assert_is!(outcome, Outcome::Done(_));
                return;
            }
        }
    }
}

async fn increment_under_lock(store: &Shared, key: &Key) {
    let locked = lock(store, key, Claim::Existing).await.unwrap();
    let next = (number(&locked.record.unwrap()) + 1).to_string();
    assert_is!(commit(store, key, Expect::Held(locked.lease), write(next)).await, Outcome::Done(_));
}

fn incrementer(store: &Shared, key: &Key, task: usize, times: usize) -> JoinHandle<()> {
    let (store, key): (Shared, _) = (Arc::clone(store), key.clone());
    tokio::spawn(async move {
        for _ in 0..times {
            if task.is_multiple_of(2) {
                increment_by_version(&store, &key).await;
            } else {
                increment_under_lock(&store, &key).await;
            }
        }
    })
}

async fn count<H: Harness>(harness: &H, kinds: [usize; TASKS]) {
    let (store, key) = (harness.store(), harness.key("counter"));
    create(&store, &key, "0").await;
    let times = harness.increments().div_ceil(TASKS);
    let tasks: Vec<_> = kinds.into_iter().map(|kind| incrementer(&store, &key, kind, times)).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(&found(&store, &key).await), times * TASKS);
    assert_free(&store, &key).await;
}

/// Compare-and-swap.
pub async fn increments_by_version_lose_none<H: Harness>(harness: H) {
    count(&harness, [0; TASKS]).await;
}

/// Under the lock.
pub async fn increments_under_the_lock_lose_none<H: Harness>(harness: H) {
    count(&harness, [1; TASKS]).await;
}

/// Both ways at once, as `update` and `start` are used side by side.
pub async fn increments_in_both_ways_lose_none<H: Harness>(harness: H) {
    count(&harness, [0, 1, 0, 1, 0, 1, 0, 1]).await;
}

/// Touches beside changes: neither undoes the other.
pub async fn touches_lose_no_increments<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("touched"));
    create(&store, &key, "0").await;
    let times = harness.increments() / 10;
    let done = Arc::new(AtomicBool::new(false));
    let toucher = tokio::spawn({
        let (store, key, done): (Shared, _, _) = (store.clone(), key.clone(), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                assert_is!(commit(&store, &key, Expect::Any, Put::Touch(LONG)).await, Outcome::Done(_));
            }
        }
    });
    let tasks: Vec<_> = (0..4).map(|task| incrementer(&store, &key, task, times / 4)).collect();
    for task in tasks {
        task.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    toucher.await.unwrap();
    assert_eq!(number(&found(&store, &key).await), times / 4 * 4);
}

/// "After a logout is acknowledged", nobody sees the session again, however many were in the midst of a change.
pub async fn a_logout_among_changes_is_final<H: Harness>(harness: H) {
    let store = harness.store();
    let mut dice = Dice::new(7);
    for round in 0..20 {
        let key = harness.key(&format!("logout-{round}"));
        create(&store, &key, "0").await;
        let mut changers = JoinSet::new();
        for task in 0..TASKS {
            let (store, key): (Shared, _) = (store.clone(), key.clone());
            changers.spawn(async move { change_until_gone(&store, &key, task).await });
        }
        for _ in 0..dice.roll(20) {
            assert_is!(commit(&store, &key, Expect::Any, write("0")).await, Outcome::Done(_));
        }
        assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
        for _ in 0..5 {
            assert_absent(&store, &key).await;
        }
        while let Some(ended) = changers.join_next().await {
            ended.unwrap();
        }
        assert_absent(&store, &key).await;
    }
}

async fn change_until_gone(store: &Shared, key: &Key, task: usize) {
    loop {
        let outcome = match task % 3 {
            0 => match load(store, key).await {
                Some(record) => commit(store, key, Expect::Is(&record.version), write("1")).await,
                None => return,
            },
            1 => match lock(store, key, Claim::Existing).await {
                Some(locked) => commit(store, key, Expect::Held(locked.lease), write("2")).await,
                None => return,
            },
            _ => commit(store, key, Expect::Any, Put::Touch(LONG)).await,
        };
        match outcome {
            Outcome::Gone => return,
            outcome => assert_is!(outcome, Outcome::Done(_) | Outcome::Conflict(_)),
        }
    }
}

/// A reader sees a payload that somebody wrote, whole, and never a mixture.
pub async fn readers_see_whole_payloads<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("whole"));
    let most = store.capabilities().max_payload.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let payloads = [vec![b'a'; 300], vec![b'b'; 9000], vec![b'c'; 70_000.min(most)], vec![b'd'; 5]];
    create(&store, &key, payloads[0].clone()).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, key, done): (Shared, _, _) = (store.clone(), key.clone(), Arc::clone(&done));
            let lengths = payloads.each_ref().map(|payload| (payload[0], payload.len()));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let record = store.load(&key, &patient()).await.unwrap().expect_present();
                    if !record.tentative {
                        let first = record.payload[0];
                        assert!(record.payload.iter().all(|byte| *byte == first), "a mixture");
                        assert!(lengths.contains(&(first, record.payload.len())), "a part");
                    }
                }
            })
        })
        .collect();
    for n in 0..harness.increments() / 5 {
        let put = write(payloads[n % payloads.len()].clone());
        if n % 3 == 0 {
            let lease = lock(&store, &key, Claim::Existing).await.unwrap().lease;
            assert_is!(commit(&store, &key, Expect::Held(lease), put).await, Outcome::Done(_));
        } else {
            assert_is!(commit(&store, &key, Expect::Any, put).await, Outcome::Done(_));
        }
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

trait ExpectPresent<T> {
    fn expect_present(self) -> T;
}

impl<T> ExpectPresent<T> for Option<T> {
    fn expect_present(self) -> T {
        let Some(record) = self else { panic!("a record that is only being written was absent") };
        record
    }
}
