//! Which record a lock is for: one that exists, one that does not, or whichever.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{
    assert_absent, assert_free, assert_holds, assert_is, assert_waits, commit, create, hold, later_lock, load, lock,
    soon, write,
};

/// PHP's strict mode: an unknown id is neither locked nor made by asking.
pub async fn existing_is_not_met_by_what_is_missing<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("unknown"));
    for _ in 0..2 {
        assert!(lock(&store, &key, Claim::Existing).await.is_none());
        assert_absent(&store, &key).await;
    }
    create(&store, &key, "made").await;
    assert_holds(&store, &key, "made").await;
}

/// A new id never takes over a session.
pub async fn new_is_not_met_by_what_is_there<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("known"));
    create(&store, &key, "data").await;
    for _ in 0..2 {
        assert!(lock(&store, &key, Claim::New).await.is_none());
        assert_holds(&store, &key, "data").await;
    }
    create(&store, &harness.key("empty"), "").await;
    assert!(lock(&store, &harness.key("empty"), Claim::New).await.is_none(), "0 bytes are present");
}

/// A claim that is not met leaves no lock behind.
pub async fn a_claim_that_is_not_met_holds_nothing<H: Harness>(harness: H) {
    let (store, there, missing) = (harness.store(), harness.key("there"), harness.key("missing"));
    create(&store, &there, "data").await;
    assert!(lock(&store, &there, Claim::New).await.is_none());
    assert!(lock(&store, &missing, Claim::Existing).await.is_none());
    assert_free(&store, &there).await;
    create(&store, &missing, "made").await;
    assert_free(&store, &missing).await;
    assert_holds(&store, &there, "data").await;
}

/// What `start` does for a new visitor.
pub async fn new_makes_a_record<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("visitor"));
    let locked = lock(&store, &key, Claim::New).await.unwrap();
    assert!(locked.record.is_none());
    let mut other = later_lock(&store, &key, Claim::Either);
    assert_waits(&mut other).await;
    assert_is!(commit(&store, &key, Expect::Held(locked.lease), write("data")).await, Outcome::Done(_));
    let other = soon(other).await.unwrap();
    assert_eq!(other.record.unwrap().payload, "data");
    other.lease.release().await;
    assert_holds(&store, &key, "data").await;
}

/// PHP without strict mode.
pub async fn either_takes_what_is_there_or_makes_it<H: Harness>(harness: H) {
    let (store, there, missing) = (harness.store(), harness.key("there"), harness.key("missing"));
    create(&store, &there, "data").await;
    let locked = lock(&store, &there, Claim::Either).await.unwrap();
    assert_eq!(locked.record.unwrap().payload, "data");
    locked.lease.release().await;
    let locked = lock(&store, &missing, Claim::Either).await.unwrap();
    assert!(locked.record.is_none());
    assert_is!(commit(&store, &missing, Expect::Held(locked.lease), write("made")).await, Outcome::Done(_));
    assert_holds(&store, &missing, "made").await;
}

/// Where the layout's lock needs a record, it is an empty one.
pub async fn a_new_record_that_is_not_written_is_empty_or_absent<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("unwritten"));
    let lease = lock(&store, &key, Claim::New).await.unwrap().lease;
    lease.release().await;
    let record = load(&store, &key).await;
    assert!(record.as_ref().is_none_or(|record| record.payload.is_empty()), "{record:?}");
    let locked = lock(&store, &key, Claim::Either).await.unwrap();
    assert!(locked.record.is_none_or(|record| record.payload.is_empty()));
    assert_is!(commit(&store, &key, Expect::Held(locked.lease), write("late")).await, Outcome::Done(_));
    assert_holds(&store, &key, "late").await;
}

/// Two requests with the same new id: the second finds the work of the first.
pub async fn a_new_record_is_made_by_one_only<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("both"));
    let first = lock(&store, &key, Claim::New).await.unwrap();
    let second = later_lock(&store, &key, Claim::New);
    assert_is!(commit(&store, &key, Expect::Held(first.lease), write("first")).await, Outcome::Done(_));
    // The second may have seen the record before it was written, or waited for it.
    assert!(soon(second).await.is_none());
    assert_holds(&store, &key, "first").await;
    assert_free(&store, &key).await;
}

/// Destroyed "so that also who waits for its lock does not get it any more".
pub async fn who_waited_for_a_destroyed_record_does_not_get_it<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("destroyed"));
    create(&store, &key, "login").await;
    let lease = hold(&store, &key).await.lease;
    let mut existing = later_lock(&store, &key, Claim::Existing);
    assert_waits(&mut existing).await;
    assert_is!(commit(&store, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_));
    assert!(soon(existing).await.is_none());
    assert_absent(&store, &key).await;
}

/// Without strict mode the waiter begins a new session under the same id, and finds nothing of the old one.
pub async fn who_takes_either_after_a_destruction_begins_afresh<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("restarted"));
    create(&store, &key, "login").await;
    let lease = hold(&store, &key).await.lease;
    let mut either = later_lock(&store, &key, Claim::Either);
    assert_waits(&mut either).await;
    assert_is!(commit(&store, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_));
    let locked = soon(either).await.unwrap();
    assert!(locked.record.is_none_or(|record| record.payload.is_empty()));
    assert_is!(commit(&store, &key, Expect::Held(locked.lease), write("new")).await, Outcome::Done(_));
    assert_holds(&store, &key, "new").await;
}

/// The lock stays with the record of that name while its holder works.
pub async fn a_new_claim_keeps_creators_out<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("claimed"));
    let lease = lock(&store, &key, Claim::New).await.unwrap().lease;
    let (other, name) = (store.clone(), key.clone());
    let create =
        tokio::spawn(
            async move { other.commit(&name, Expect::Absent, write("theirs"), &super::tools::patient()).await },
        );
    // Where the lock is a record, who comes later may learn at once that there is one.
    tokio::task::yield_now().await;
    assert_is!(commit(&store, &key, Expect::Held(lease), write("mine")).await, Outcome::Done(_));
    assert_is!(soon(create).await, Outcome::Taken);
    assert_holds(&store, &key, "mine").await;
}
