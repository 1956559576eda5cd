//! What stands after the macro's semicolon is what the store can, no more and no less.

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, ErrorKind};

use super::Harness;
use super::tools::{LONG, commit, create, found, hold, seconds, version, waiting, write};

/// Compares the groups of cases that were asked for with what the store turns out to be able to do: losing an
/// ability fails here, and so does one that nobody tests.
pub async fn the_store_can_what_it_states<H: Harness>(harness: H, stated: &[&str]) {
    let store = harness.store();
    let able = store.capabilities();
    let can = [
        ("aside", harness.aside().await.is_some()),
        ("columns", keeps_columns(&harness).await),
        ("limit", able.max_payload.is_some()),
        ("list", store.as_list().is_some()),
        ("lost", loses_locks(&harness).await),
        ("second", harness.second().await.is_some()),
        ("sweep", !able.expires_by_itself),
        ("talks", talks(&harness).await),
        ("versions", counts_versions(&harness).await),
    ];
    let can: Vec<_> = can.into_iter().filter(|(_, can)| *can).map(|(group, _)| group).collect();
    let mut stated = stated.to_vec();
    stated.sort_unstable();
    assert_eq!(stated, can, "the groups stated on the left, those the store can on the right");
    assert!(!able.shared || can.contains(&"second"), "a shared store has a second handle to test it with");
    assert_eq!(able.one_lock, has_one_lock(&harness).await, "`one_lock` on the left, what was found on the right");
}

async fn keeps_columns<H: Harness>(harness: &H) -> bool {
    let (store, key) = (harness.store(), harness.key("columns"));
    let mut payload = Payload::new(Bytes::from("data"), LONG);
    payload.columns.user = Some("17".to_owned());
    commit(&store, &key, Expect::Absent, Put::Payload(payload)).await;
    found(&store, &key).await.columns.user.is_some()
}

async fn loses_locks<H: Harness>(harness: &H) -> bool {
    let (store, key) = (harness.store(), harness.key("locks"));
    create(&store, &key, "data").await;
    let _held = hold(&store, &key).await;
    harness.lose_lock(&key).await
}

async fn talks<H: Harness>(harness: &H) -> bool {
    let (store, key) = (harness.store(), harness.key("talks"));
    let answer = store.load(&key, &Deadline::new(seconds(0), seconds(60))).await;
    answer.is_err_and(|error| error.kind() == ErrorKind::Unavailable)
}

async fn counts_versions<H: Harness>(harness: &H) -> bool {
    let (store, key) = (harness.store(), harness.key("versions"));
    create(&store, &key, "same").await;
    let seen = version(&store, &key).await;
    commit(&store, &key, Expect::Is(&seen), write("same")).await;
    matches!(commit(&store, &key, Expect::Is(&seen), write("same")).await, Outcome::Conflict(_))
}

async fn has_one_lock<H: Harness>(harness: &H) -> bool {
    let (store, held, other) = (harness.store(), harness.key("held"), harness.key("beside"));
    create(&store, &held, "data").await;
    create(&store, &other, "data").await;
    let _held = hold(&store, &held).await;
    let answer = store.lock(&other, Claim::Existing, &waiting(seconds(0))).await;
    answer.is_err_and(|error| error.kind() == ErrorKind::Locked)
}
