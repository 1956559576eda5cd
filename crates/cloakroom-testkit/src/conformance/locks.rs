//! While one lease is alive, nobody else locks or commits; whoever only reads does not notice.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Put};
use cloakroom_core::{Deadline, ErrorKind};
use tokio::time::{Instant, timeout};

use super::Harness;
use super::tools::{
    LONG, assert_absent, assert_free, assert_holds, assert_is, assert_waits, commit, create, found, hold, later_commit,
    later_lock, lock, patient, seconds, soon, version, waiting, write,
};

/// The lock comes with the record, in one go.
pub async fn a_lock_tells_what_is_there<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("there"));
    create(&store, &key, "data").await;
    let locked = hold(&store, &key).await;
    let record = locked.record.unwrap();
    assert_eq!(record.payload, "data");
    assert!(!record.tentative, "what is read under the lock is certain");
    locked.lease.release().await;
}

/// Two requests that change the same session: one after the other.
pub async fn a_lock_excludes_locks<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("one"));
    create(&store, &key, "1").await;
    let first = hold(&store, &key).await;
    let mut existing = later_lock(&store, &key, Claim::Existing);
    assert_waits(&mut existing).await;
    assert_is!(commit(&store, &key, Expect::Held(first.lease), write("2")).await, Outcome::Done(_));
    let second = soon(existing).await.unwrap();
    assert_eq!(second.record.unwrap().payload, "2");
    let mut either = later_lock(&store, &key, Claim::Either);
    assert_waits(&mut either).await;
    second.lease.release().await;
    soon(either).await.unwrap().lease.release().await;
}

/// "No `commit` but the holder's is done", whichever it is.
pub async fn a_lock_excludes_commits<H: Harness>(harness: H) {
    let store = harness.store();
    // A touch changes no data: it may be done beside the holder.
    for (n, put) in [write("2"), Put::Remove, Put::SetAside].into_iter().enumerate() {
        let key = harness.key(&format!("put-{n}"));
        create(&store, &key, "1").await;
        let seen = version(&store, &key).await;
        let lease = hold(&store, &key).await.lease;
        let mut later = later_commit(&store, &key, (n % 2 == 0).then_some(&seen), put);
        assert_waits(&mut later).await;
        assert_holds(&store, &key, "1").await;
        lease.release().await;
        assert_is!(soon(later).await, Outcome::Done(_) | Outcome::Removed(_));
        assert_free(&store, &key).await;
    }
}

/// What the holder wrote is not overwritten by who read before.
pub async fn a_commit_that_waited_sees_what_the_holder_wrote<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("waited"));
    create(&store, &key, "1").await;
    let seen = version(&store, &key).await;
    let lease = hold(&store, &key).await.lease;
    let mut later = later_commit(&store, &key, Some(&seen), write("mine"));
    assert_waits(&mut later).await;
    assert_is!(commit(&store, &key, Expect::Held(lease), write("2")).await, Outcome::Done(_));
    assert_is!(soon(later).await, Outcome::Conflict(now) if now.payload == "2");
    assert_holds(&store, &key, "2").await;
}

/// "`load` waits for nobody."
pub async fn reading_waits_for_nobody<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("reader"));
    create(&store, &key, "data").await;
    let lease = hold(&store, &key).await.lease;
    let waiter = later_lock(&store, &key, Claim::Existing);
    for _ in 0..20 {
        let record = timeout(seconds(10), store.load(&key, &patient())).await.unwrap().unwrap().unwrap();
        assert_eq!(record.payload, "data");
    }
    lease.release().await;
    soon(waiter).await.unwrap().lease.release().await;
}

/// "Ends at `Deadline::wait_until` with `Locked`", and says for how long it waited.
pub async fn waiting_ends_at_its_limit<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("held"));
    create(&store, &key, "1").await;
    let lease = hold(&store, &key).await.lease;
    let limit = seconds(1) / 2;
    for lock in [true, false] {
        let (begun, deadline) = (Instant::now(), waiting(limit));
        let error = if lock {
            store.lock(&key, Claim::Existing, &deadline).await.unwrap_err()
        } else {
            store.commit(&key, Expect::Any, write("mine"), &deadline).await.unwrap_err()
        };
        let took = begun.elapsed();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(!error.may_have_been_applied());
        let waited = error.waited().unwrap();
        assert!(took * 10 >= limit * 9 && took < seconds(30), "ended after {took:?}");
        assert!(waited <= took && waited > limit / 2, "waited {waited:?} of {limit:?}");
    }
    assert_holds(&store, &key, "1").await;
    assert_is!(commit(&store, &key, Expect::Held(lease), write("2")).await, Outcome::Done(_));
    assert_holds(&store, &key, "2").await;
}

/// A limit of nothing is for who does not want to wait, not for who finds the lock free.
pub async fn a_free_lock_needs_no_waiting<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("free"));
    create(&store, &key, "1").await;
    let at_once = waiting(seconds(0));
    let lease = store.lock(&key, Claim::Existing, &at_once).await.unwrap().unwrap().lease;
    assert_eq!(store.lock(&key, Claim::Existing, &at_once).await.unwrap_err().kind(), ErrorKind::Locked);
    let outcome = store.commit(&key, Expect::Held(lease), write("2"), &at_once).await.unwrap();
    assert_is!(outcome, Outcome::Done(_));
    assert_is!(store.commit(&key, Expect::Any, write("3"), &at_once).await.unwrap(), Outcome::Done(_));
}

/// "Waiting for a live holder does not count" in the time for talking to the store.
pub async fn waiting_is_not_talking<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("patience"));
    create(&store, &key, "1").await;
    let lease = hold(&store, &key).await.lease;
    let (other, name) = (store.clone(), key.clone());
    let mut waiter = tokio::spawn(async move {
        let deadline = Deadline::new(seconds(2), seconds(60));
        other.commit(&name, Expect::Any, write("2"), &deadline).await
    });
    assert!(timeout(seconds(3), &mut waiter).await.is_err(), "it had to wait");
    lease.release().await;
    assert_is!(soon(waiter).await, Outcome::Done(_));
}

/// Giving a lease back leaves the record as it is.
pub async fn a_lease_that_is_released_is_free<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("released"));
    create(&store, &key, "1").await;
    for _ in 0..5 {
        hold(&store, &key).await.lease.release().await;
    }
    assert_is!(commit(&store, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    assert_holds(&store, &key, "2").await;
}

/// "Dropping it releases the lock as well": a handler that panics or is cancelled locks nobody out.
pub async fn a_lease_that_is_dropped_is_free<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("dropped"));
    create(&store, &key, "1").await;
    for _ in 0..3 {
        let locked = hold(&store, &key).await;
        let mut waiter = later_lock(&store, &key, Claim::Existing);
        assert_waits(&mut waiter).await;
        drop(locked);
        drop(soon(waiter).await.unwrap());
    }
    assert_is!(commit(&store, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    assert_holds(&store, &key, "2").await;
}

/// The holder's commit writes and unlocks in one.
pub async fn the_holders_commit_gives_the_lock_back<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("holder"));
    create(&store, &key, "0").await;
    for n in 1..=5_u8 {
        let locked = hold(&store, &key).await;
        let put = if n == 3 { Put::Touch(LONG) } else { write(n.to_string()) };
        assert_is!(commit(&store, &key, Expect::Held(locked.lease), put).await, Outcome::Done(_));
        assert_free(&store, &key).await;
    }
    assert_holds(&store, &key, "5").await;
    let lease = hold(&store, &key).await.lease;
    assert_is!(commit(&store, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_));
    let made = lock(&store, &key, Claim::New).await.unwrap();
    made.lease.release().await;
}

/// Other visitors notice nothing; or, in a layout that states to have one lock for all, they wait for it, and readers still
/// for nobody.
pub async fn a_lock_holds_up_other_records_only_where_there_is_one_lock<H: Harness>(harness: H) {
    let (store, held) = (harness.store(), harness.key("held"));
    create(&store, &held, "held").await;
    let lease = hold(&store, &held).await.lease;
    let waiter = later_lock(&store, &held, Claim::Existing);
    if store.capabilities().one_lock {
        let key = harness.key("other");
        let mut other = later_lock(&store, &key, Claim::New);
        assert_waits(&mut other).await;
        assert_absent(&store, &key).await;
        assert_holds(&store, &held, "held").await;
        assert_is!(commit(&store, &held, Expect::Held(lease), write("written")).await, Outcome::Done(_));
        // Either may have come first.
        let release = async |call| soon::<Option<Locked>>(call).await.unwrap().lease.release().await;
        tokio::join!(release(waiter), release(other));
        return;
    }
    for n in 0..100 {
        let key = harness.key(&format!("other-{n}"));
        let work = async {
            create(&store, &key, "1").await;
            let locked = hold(&store, &key).await;
            assert_is!(commit(&store, &key, Expect::Held(locked.lease), write("2")).await, Outcome::Done(_));
            assert_is!(commit(&store, &key, Expect::Any, Put::Touch(LONG)).await, Outcome::Done(_));
            assert_eq!(found(&store, &key).await.payload, "2");
        };
        timeout(seconds(60), work).await.unwrap();
    }
    assert!(!waiter.is_finished());
    lease.release().await;
    soon(waiter).await.unwrap().lease.release().await;
}

/// A lease is good for its own record only.
pub async fn a_lease_does_nothing_to_another_record<H: Harness>(harness: H) {
    let (store, mine, theirs) = (harness.store(), harness.key("mine"), harness.key("theirs"));
    create(&store, &mine, "mine").await;
    create(&store, &theirs, "theirs").await;
    let lease = hold(&store, &mine).await.lease;
    let outcome = store.commit(&theirs, Expect::Held(lease), write("mine"), &patient()).await;
    assert_is!(outcome, Err(_) | Ok(Outcome::Gone));
    assert_holds(&store, &theirs, "theirs").await;
    assert_holds(&store, &mine, "mine").await;
    assert_free(&store, &mine).await;
}
