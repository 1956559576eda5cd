//! Futures that are dropped midway, as those of a visitor are who closes the browser: the call has not begun, or it
//! runs to its end; and no lock stays behind.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{
    Dice, LONG, Shared, assert_free, assert_holds, assert_is, begin, commit, create, hold, later_lock, load, patient,
    poll_and_drop, seconds, soon, version, write,
};

const ROUNDS: usize = 200;

/// A commit is done or not, and nothing between.
pub async fn a_dropped_commit_is_done_or_not<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("commit"));
    let mut dice = Dice::new(1);
    create(&store, &key, "0").await;
    let mut possible = vec!["0".to_owned()];
    for n in 1..ROUNDS {
        let (deadline, payload) = (patient(), n.to_string());
        let seen = version(&store, &key).await;
        let expect = if n % 2 == 0 { Expect::Any } else { Expect::Is(&seen) };
        let polls = dice.roll(4);
        let ended = poll_and_drop(store.commit(&key, expect, write(payload.clone()), &deadline), polls).await;
        possible.push(payload.clone());
        if let Some(outcome) = ended {
            assert_is!(outcome.unwrap(), Outcome::Done(_) | Outcome::Conflict(_));
        }
        let locked = hold(&store, &key).await;
        let now = String::from_utf8(locked.record.unwrap().payload.to_vec()).unwrap();
        assert!(possible.contains(&now), "{now} was never written");
        assert_is!(commit(&store, &key, Expect::Held(locked.lease), write(payload)).await, Outcome::Done(_));
        // One that runs to its end may do so after a few others.
        possible.drain(..possible.len().saturating_sub(20));
    }
    assert_free(&store, &key).await;
}

/// A lock that nobody waits for any more is free.
pub async fn a_dropped_lock_is_free<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("lock"));
    let mut dice = Dice::new(2);
    create(&store, &key, "data").await;
    for n in 0..ROUNDS {
        let deadline = patient();
        let claim = if n % 2 == 0 { Claim::Existing } else { Claim::Either };
        let polls = dice.roll(4);
        drop(poll_and_drop(store.lock(&key, claim, &deadline), polls).await);
        assert_free(&store, &key).await;
    }
    assert_holds(&store, &key, "data").await;
}

/// The holder's commit, dropped: its lease is gone with it, and the record is the old or the new one.
pub async fn a_dropped_commit_of_the_holder_gives_the_lock_back<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("holder"));
    let mut dice = Dice::new(3);
    create(&store, &key, "old").await;
    for n in 0..ROUNDS {
        let (deadline, lease) = (patient(), hold(&store, &key).await.lease);
        let put = if n % 3 == 0 { Put::Touch(LONG) } else { write("new") };
        let polls = dice.roll(4);
        drop(poll_and_drop(store.commit(&key, Expect::Held(lease), put, &deadline), polls).await);
        assert_free(&store, &key).await;
        let payload = load(&store, &key).await.unwrap().payload;
        assert!(payload == "old" || payload == "new");
        assert_is!(commit(&store, &key, Expect::Any, write("old")).await, Outcome::Done(_));
    }
}

/// "A lock that arrives after its waiter left is passed on": waiters leave in the very moment of the release.
pub async fn a_lock_that_arrives_too_late_is_passed_on<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("late"));
    let mut dice = Dice::new(4);
    create(&store, &key, "data").await;
    for _ in 0..ROUNDS {
        let lease = hold(&store, &key).await.lease;
        let leaving: Vec<_> = (0..=dice.roll(3)).map(|_| later_lock(&store, &key, Claim::Existing)).collect();
        for _ in 0..dice.roll(8) {
            tokio::task::yield_now().await;
        }
        let release = tokio::spawn(lease.release());
        for waiter in &leaving {
            waiter.abort();
        }
        release.await.unwrap();
        for waiter in leaving {
            // One that was faster than its end holds a lock, and drops it here.
            drop(waiter.await);
        }
        assert_free(&store, &key).await;
    }
}

/// A waiter that was woken but never looked again must not keep what it was given.
pub async fn a_waiter_that_was_woken_and_dropped_keeps_nothing<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("woken"));
    create(&store, &key, "data").await;
    for n in 0..20 {
        let (deadline, lease) = (patient(), hold(&store, &key).await.lease);
        let mut waiter = Box::pin(store.lock(&key, Claim::Existing, &deadline));
        assert!(poll_and_drop(waiter.as_mut(), 3).await.is_none(), "the lock is held");
        let (other, name): (Shared, _) = (store.clone(), key.clone());
        let next = begin(async move { other.commit(&name, Expect::Any, write("next"), &patient()).await }).await;
        if n % 2 == 0 {
            lease.release().await;
        } else {
            drop(lease);
        }
        // It is its turn now, and it goes away.
        tokio::time::sleep(seconds(1) / 500).await;
        drop(waiter);
        assert_is!(soon(next).await, Outcome::Done(_));
    }
    assert_free(&store, &key).await;
}
