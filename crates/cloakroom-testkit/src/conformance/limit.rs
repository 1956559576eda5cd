//! Stores with a largest payload: what is larger is refused, and the old data are still there.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use bytes::Bytes;
use cloakroom_core::ErrorKind;
use cloakroom_core::store::{Expect, Outcome};

use super::Harness;
use super::tools::{assert_absent, assert_free, assert_holds, assert_is, commit, create, hold, patient, write};

fn most<H: Harness>(harness: &H) -> usize {
    usize::try_from(harness.store().capabilities().max_payload.unwrap()).unwrap()
}

/// The limit is what it says, to the byte.
pub async fn the_largest_payload_fits<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("largest"));
    let payload = Bytes::from(vec![b'x'; most(&harness)]);
    create(&store, &key, payload.clone()).await;
    assert_holds(&store, &key, &payload).await;
}

/// One byte more is `TooLarge`, whether it would make a record or change one.
pub async fn a_larger_payload_is_refused<H: Harness>(harness: H) {
    let (store, old, new) = (harness.store(), harness.key("old"), harness.key("new"));
    let payload = Bytes::from(vec![b'x'; most(&harness) + 1]);
    create(&store, &old, "old").await;
    let error = store.commit(&old, Expect::Any, write(payload.clone()), &patient()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_holds(&store, &old, "old").await;
    let error = store.commit(&new, Expect::Absent, write(payload), &patient()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_absent(&store, &new).await;
}

/// "A lease is released by the commit, also by one that fails."
pub async fn a_commit_that_fails_gives_the_lock_back<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("fails"));
    create(&store, &key, "old").await;
    let lease = hold(&store, &key).await.lease;
    let payload = vec![b'x'; most(&harness) + 1];
    let error = store.commit(&key, Expect::Held(lease), write(payload), &patient()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!error.may_have_been_applied());
    assert_free(&store, &key).await;
    assert_holds(&store, &key, "old").await;
    assert_is!(commit(&store, &key, Expect::Any, write("new")).await, Outcome::Done(_));
}
