//! Stores that ask over a wire: no time left for talking is `Unavailable`, and never an absent record.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, ErrorKind};

use super::Harness;
use super::tools::{assert_free, assert_holds, assert_is, commit, create, hold, seconds, version, write};

fn no_time() -> Deadline {
    Deadline::new(Duration::ZERO, seconds(60))
}

/// For a record that is there as for one that is not.
pub async fn reading_without_time_is_unavailable<H: Harness>(harness: H) {
    let (store, there, missing) = (harness.store(), harness.key("there"), harness.key("missing"));
    create(&store, &there, "data").await;
    for key in [&there, &missing] {
        assert_eq!(store.load(key, &no_time()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let error = store.lock(key, Claim::Existing, &no_time()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert_holds(&store, &there, "data").await;
    assert_free(&store, &there).await;
}

/// Old or new, and the error says so if it may be the new one.
pub async fn a_commit_without_time_is_unavailable<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("commit"));
    create(&store, &key, "0").await;
    for n in 1..=5_u8 {
        let seen = version(&store, &key).await;
        let before = store.load(&key, &super::tools::patient()).await.unwrap().unwrap().payload;
        let error = store.commit(&key, Expect::Is(&seen), write(n.to_string()), &no_time()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let now = hold(&store, &key).await;
        let payload = now.record.unwrap().payload;
        now.lease.release().await;
        let applied = payload == n.to_string() && error.may_have_been_applied();
        assert!(payload == before || applied, "after {error:?}");
    }
    assert_is!(commit(&store, &key, Expect::Any, write("end")).await, Outcome::Done(_));
}

/// A lock whose holder could not write any more is free soon.
pub async fn a_holders_commit_without_time_leaves_no_lock<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("holder"));
    create(&store, &key, "data").await;
    let lease = hold(&store, &key).await.lease;
    let error = store.commit(&key, Expect::Held(lease), Put::Remove, &no_time()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_free(&store, &key).await;
}
