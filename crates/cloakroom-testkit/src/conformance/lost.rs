//! Locks with a time to live: a holder that was away too long has lost its lock, and must not act as if it had not.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{
    LONG, assert_absent, assert_free, assert_holds, assert_is, assert_waits, commit, create, hold, later_lock, patient,
    soon, write,
};

/// "If it was lost meanwhile, nothing is done": an error, since `Gone` would tell a logout that there was nothing to end.
pub async fn who_lost_the_lock_changes_nothing<H: Harness>(harness: H) {
    let store = harness.store();
    for (n, put) in [write("mine"), Put::Touch(LONG), Put::Remove, Put::SetAside].into_iter().enumerate() {
        let key = harness.key(&format!("lost-{n}"));
        create(&store, &key, "1").await;
        let lease = hold(&store, &key).await.lease;
        assert!(harness.lose_lock(&key).await);
        let other = hold(&store, &key).await;
        assert_is!(store.commit(&key, Expect::Held(lease), put, &patient()).await, Err(_));
        assert_holds(&store, &key, "1").await;
        assert_is!(commit(&store, &key, Expect::Held(other.lease), write("2")).await, Outcome::Done(_));
        assert_holds(&store, &key, "2").await;
    }
}

/// The record changed hands and came back free: what the late holder writes would undo it.
pub async fn who_lost_the_lock_does_not_undo_what_others_did<H: Harness>(harness: H) {
    let (store, written, removed) = (harness.store(), harness.key("written"), harness.key("removed"));
    for key in [&written, &removed] {
        create(&store, key, "1").await;
    }
    let leases = [hold(&store, &written).await.lease, hold(&store, &removed).await.lease];
    for key in [&written, &removed] {
        assert!(harness.lose_lock(key).await);
    }
    assert_is!(commit(&store, &written, Expect::Any, write("2")).await, Outcome::Done(_));
    assert_is!(commit(&store, &removed, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    let [of_written, of_removed] = leases;
    let late = store.commit(&written, Expect::Held(of_written), write("mine"), &patient()).await;
    assert_is!(late, Err(_));
    let late = store.commit(&removed, Expect::Held(of_removed), write("mine"), &patient()).await;
    assert_is!(late, Ok(Outcome::Gone) | Err(_));
    assert_holds(&store, &written, "2").await;
    assert_absent(&store, &removed).await;
}

/// A late release frees nobody else's lock.
pub async fn who_lost_the_lock_does_not_free_it<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("late"));
    create(&store, &key, "1").await;
    for dropped in [false, true] {
        let late = hold(&store, &key).await.lease;
        assert!(harness.lose_lock(&key).await);
        let other = hold(&store, &key).await.lease;
        if dropped {
            drop(late);
        } else {
            late.release().await;
        }
        let mut third = later_lock(&store, &key, Claim::Existing);
        assert_waits(&mut third).await;
        other.release().await;
        soon(third).await.unwrap().lease.release().await;
    }
    assert_free(&store, &key).await;
}
