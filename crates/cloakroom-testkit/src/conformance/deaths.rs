//! Logout wins: what was destroyed stays so, and who is late learns of it.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::ErrorKind;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{
    LONG, assert_absent, assert_free, assert_holds, assert_is, assert_waits, commit, create, hold, later_commit, lock,
    seconds, soon, version, waiting, write,
};

/// Every call on what was destroyed says so, and none brings it back.
pub async fn what_was_destroyed_stays_so<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("dead"));
    create(&store, &key, "login").await;
    let seen = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    for put in [write("back"), Put::Touch(LONG), Put::Remove, Put::SetAside] {
        assert_is!(commit(&store, &key, Expect::Is(&seen), put).await, Outcome::Gone);
        assert_absent(&store, &key).await;
    }
    assert!(lock(&store, &key, Claim::Existing).await.is_none());
    assert_absent(&store, &key).await;
}

/// A save that waits for the request which logs out.
pub async fn a_change_that_waited_for_a_logout_is_gone<H: Harness>(harness: H) {
    let store = harness.store();
    for (n, put) in [write("back"), Put::Touch(LONG), Put::Remove].into_iter().enumerate() {
        let key = harness.key(&format!("logout-{n}"));
        create(&store, &key, "login").await;
        let seen = version(&store, &key).await;
        let lease = hold(&store, &key).await.lease;
        let mut late = later_commit(&store, &key, (n < 2).then_some(&seen), put);
        assert_waits(&mut late).await;
        assert_is!(commit(&store, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_));
        assert_is!(soon(late).await, Outcome::Gone);
        assert_absent(&store, &key).await;
    }
}

/// A logout waits for the holder, and destroys what the holder wrote.
pub async fn a_logout_waits_for_the_holder<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("patient"));
    create(&store, &key, "1").await;
    let lease = hold(&store, &key).await.lease;
    let mut logout = later_commit(&store, &key, None, Put::Remove);
    assert_waits(&mut logout).await;
    assert_is!(commit(&store, &key, Expect::Held(lease), write("2")).await, Outcome::Done(_));
    assert_is!(soon(logout).await, Outcome::Removed(was) if was.payload == "2");
    assert_absent(&store, &key).await;
}

/// At the limit a logout is refused, or done in spite of the holder, whose own write then goes nowhere.
pub async fn a_logout_at_its_limit_is_refused_or_final<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("limit"));
    create(&store, &key, "1").await;
    let lease = hold(&store, &key).await.lease;
    let logout = store.commit(&key, Expect::Any, Put::Remove, &waiting(seconds(1) / 5)).await;
    let late = store.commit(&key, Expect::Held(lease), write("2"), &waiting(seconds(60))).await;
    match logout {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Locked);
            assert_is!(late, Ok(Outcome::Done(_)));
            assert_holds(&store, &key, "2").await;
        }
        Ok(outcome) => {
            assert_is!(outcome, Outcome::Removed(_));
            assert_is!(late, Ok(Outcome::Gone) | Err(_));
            assert_absent(&store, &key).await;
        }
    }
    assert_free(&store, &key).await;
}

/// Destroyed and made again by somebody else while a save waited: it is theirs.
pub async fn a_change_that_waited_does_not_hit_a_successor<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("successor"));
    create(&store, &key, "old").await;
    let seen = version(&store, &key).await;
    let lease = hold(&store, &key).await.lease;
    assert_is!(commit(&store, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_));
    let made = lock(&store, &key, Claim::New).await.unwrap();
    let mut late = later_commit(&store, &key, Some(&seen), write("mine"));
    assert_waits(&mut late).await;
    assert_is!(commit(&store, &key, Expect::Held(made.lease), write("theirs")).await, Outcome::Done(_));
    assert_is!(soon(late).await, Outcome::Conflict(_));
    assert_holds(&store, &key, "theirs").await;
}

/// A claim that was withdrawn: the holder destroys what it made.
pub async fn a_new_record_can_be_destroyed_by_its_maker<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("regretted"));
    let lease = lock(&store, &key, Claim::New).await.unwrap().lease;
    assert_is!(commit(&store, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_) | Outcome::Gone);
    assert_absent(&store, &key).await;
    assert!(lock(&store, &key, Claim::Existing).await.is_none());
}

/// What is set aside is no session any more.
pub async fn what_is_set_aside_is_no_session<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("corrupt"));
    create(&store, &key, "junk|").await;
    let lease = hold(&store, &key).await.lease;
    assert_is!(commit(&store, &key, Expect::Held(lease), Put::SetAside).await, Outcome::Removed(_));
    assert_absent(&store, &key).await;
    assert!(lock(&store, &key, Claim::Existing).await.is_none());
    create(&store, &key, "new").await;
    assert_holds(&store, &key, "new").await;
}
