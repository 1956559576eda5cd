//! Whoever knows an id has the session: neither ids nor contents are in anything that may be printed.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use std::fmt::Debug;

use cloakroom_core::Error;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{assert_is, commit, create, found, hold, load, lock, patient, seconds, waiting, write};

const ID: &str = "0badc0ffee0ddf00d0123456789abcde";
const PAYLOAD: &str = "password|s:7:\"hunter2\";";

#[track_caller]
fn assert_hidden(shown: &str) {
    let hidden = ["0badc0ffee", "123456789abcde", "hunter2", "password"];
    assert!(hidden.iter().all(|secret| !shown.contains(secret)), "{shown}");
    // Bytes as numbers, too: "ffee", and "hunter".
    assert!(!shown.contains("102, 102, 101, 101") && !shown.contains("104, 117, 110, 116"), "{shown}");
}

#[track_caller]
fn assert_debug_hidden(shown: &impl Debug) {
    assert_hidden(&format!("{shown:?}"));
    assert_hidden(&format!("{shown:#?}"));
}

/// The store, and everything that it takes and gives.
pub async fn debug_shows_no_ids_and_no_contents<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key(ID));
    create(&store, &key, PAYLOAD).await;
    assert_debug_hidden(&key);
    assert_debug_hidden(&store);
    assert_debug_hidden(&found(&store, &key).await);
    assert_debug_hidden(&Expect::Is(&found(&store, &key).await.version));
    assert_debug_hidden(&write(PAYLOAD));
    let locked = hold(&store, &key).await;
    assert_debug_hidden(&locked);
    assert_debug_hidden(&store);
    assert_debug_hidden(&Expect::Held(locked.lease));
    assert_debug_hidden(&load(&store, &key).await);
    if let Some(listing) = store.as_list() {
        assert_debug_hidden(&listing.list(None, 10).await.unwrap());
    }
    let outcome = commit(&store, &key, Expect::Any, Put::SetAside).await;
    assert_debug_hidden(&outcome);
    assert_is!(outcome, Outcome::Removed(_));
    assert_debug_hidden(&store);
}

/// Errors end up in logs.
pub async fn errors_show_no_ids_and_no_contents<H: Harness>(harness: H) {
    let (store, key, other) = (harness.store(), harness.key(ID), harness.key("other"));
    create(&store, &key, PAYLOAD).await;
    let assert_error_hidden = |error: &Error| {
        assert_debug_hidden(error);
        assert_hidden(&error.to_string());
    };
    // Before the other lock is taken: there are layouts that have one for all records.
    let mine = lock(&store, &other, Claim::New).await.unwrap();
    if let Err(error) = store.commit(&key, Expect::Held(mine.lease), write(PAYLOAD), &patient()).await {
        assert_error_hidden(&error);
    }
    let lease = hold(&store, &key).await.lease;
    assert_error_hidden(&store.lock(&key, Claim::Existing, &waiting(seconds(0))).await.unwrap_err());
    assert_error_hidden(&store.commit(&key, Expect::Any, write(PAYLOAD), &waiting(seconds(0))).await.unwrap_err());
    lease.release().await;
    if let Some(most) = store.capabilities().max_payload {
        let payload = PAYLOAD.repeat(usize::try_from(most).unwrap() / PAYLOAD.len() + 1);
        assert_error_hidden(&store.commit(&key, Expect::Any, write(payload), &patient()).await.unwrap_err());
    }
}
