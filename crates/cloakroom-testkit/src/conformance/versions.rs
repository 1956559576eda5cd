//! Compare-and-swap: a commit that expects a version is done if the record still has it, and changes nothing if not.

#![expect(clippy::panic, reason = "this crate is made of tests")]

use cloakroom_core::store::{Expect, Outcome, Put};

use super::Harness;
use super::tools::{LONG, assert_absent, assert_holds, assert_is, commit, create, found, hold, version, write};

/// The one that was read is the one that is changed.
pub async fn the_version_that_was_read_can_be_changed<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("cas"));
    create(&store, &key, "1").await;
    let seen = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("2")).await, Outcome::Done(_));
    assert_holds(&store, &key, "2").await;
}

/// A re-run needs no second read.
pub async fn a_conflict_tells_the_record_as_it_is_now<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("conflict"));
    create(&store, &key, "1").await;
    let seen = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    let Outcome::Conflict(now) = commit(&store, &key, Expect::Is(&seen), write("mine")).await else {
        panic!("a commit on an old version has to be a conflict");
    };
    assert_eq!(now.payload, "2");
    assert_holds(&store, &key, "2").await;
    assert_is!(commit(&store, &key, Expect::Is(&now.version), write("2 and mine")).await, Outcome::Done(_));
    assert_holds(&store, &key, "2 and mine").await;
}

/// Two requests that read the same: the first wins, the second learns of it.
pub async fn a_version_works_only_once<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("once"));
    create(&store, &key, "0").await;
    let seen = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("A")).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("B")).await, Outcome::Conflict(now) if now.payload == "A");
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("C")).await, Outcome::Conflict(now) if now.payload == "A");
    assert_holds(&store, &key, "A").await;
}

/// "The version the record has now, where the store can tell": a chain of commits without a read between.
pub async fn a_commit_tells_the_version_for_the_next<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("chain"));
    let mut outcome = commit(&store, &key, Expect::Absent, write("0")).await;
    for n in 1..=20 {
        let Outcome::Done(told) = outcome else { panic!("step {n}: {outcome:?}") };
        let is = match told {
            Some(told) => told,
            None => version(&store, &key).await,
        };
        outcome = match n % 4 {
            3 => commit(&store, &key, Expect::Is(&is), Put::Touch(LONG)).await,
            // The lease protects it now, and the version told must still be right afterwards.
            2 => {
                let lease = hold(&store, &key).await.lease;
                commit(&store, &key, Expect::Held(lease), write(n.to_string())).await
            }
            _ => commit(&store, &key, Expect::Is(&is), write(n.to_string())).await,
        };
    }
    assert_is!(outcome, Outcome::Done(_));
    assert_holds(&store, &key, "20").await;
}

/// Locking is not writing: what was read without the lock, or under it, is still the version afterwards.
pub async fn a_lock_alone_leaves_the_version<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("idle"));
    create(&store, &key, "1").await;
    let before = version(&store, &key).await;
    hold(&store, &key).await.lease.release().await;
    assert_is!(commit(&store, &key, Expect::Is(&before), write("2")).await, Outcome::Done(_));
    let locked = hold(&store, &key).await;
    locked.lease.release().await;
    let Some(record) = locked.record else { panic!("a lock on a present record tells of it") };
    assert_is!(commit(&store, &key, Expect::Is(&record.version), write("3")).await, Outcome::Done(_));
    assert_holds(&store, &key, "3").await;
}

/// Read, logout, save: the save is gone; and after a new record was made under the name, it is a conflict.
pub async fn the_version_of_a_dead_record_is_gone<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("dead"));
    create(&store, &key, "old").await;
    let seen = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("mine")).await, Outcome::Gone);
    assert_absent(&store, &key).await;
    create(&store, &key, "somebody else's").await;
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("mine")).await, Outcome::Conflict(_));
    assert_holds(&store, &key, "somebody else's").await;
}

/// "Nothing was changed unless it says `Done` or `Removed`."
pub async fn a_conflict_changes_nothing<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("kept"));
    create(&store, &key, "1").await;
    let old = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    let now = found(&store, &key).await;
    for put in [write("mine"), Put::Touch(LONG * 100), Put::Remove, Put::SetAside] {
        let shown = format!("{put:?}");
        let outcome = commit(&store, &key, Expect::Is(&old), put).await;
        assert!(matches!(&outcome, Outcome::Conflict(now) if now.payload == "2"), "{shown}: {outcome:?}");
        let record = found(&store, &key).await;
        assert_eq!(record.payload, "2", "{shown}");
        assert!(record.ttl <= now.ttl.map(|ttl| ttl + harness.tick()), "{shown} extended the life");
    }
    assert_is!(commit(&store, &key, Expect::Is(&now.version), write("3")).await, Outcome::Done(_));
}

/// Removing, too, can be for one version only.
pub async fn a_version_that_was_read_can_be_removed<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("remove"));
    create(&store, &key, "1").await;
    let old = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Is(&old), Put::Remove).await, Outcome::Conflict(_));
    let now = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Is(&now), Put::Remove).await, Outcome::Removed(was) if was.payload == "2");
    assert_absent(&store, &key).await;
}

/// Group `versions`: a write is a write, even of the same bytes.
pub async fn rewriting_the_same_bytes_is_another_version<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("same"));
    create(&store, &key, "same").await;
    let seen = version(&store, &key).await;
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("same")).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("other")).await, Outcome::Conflict(_));
    assert_holds(&store, &key, "same").await;
}

/// Group `versions`: there and back again is not where it was.
pub async fn there_and_back_again_is_a_conflict<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("aba"));
    create(&store, &key, "A").await;
    let seen = version(&store, &key).await;
    for payload in ["B", "A"] {
        assert_is!(commit(&store, &key, Expect::Any, write(payload)).await, Outcome::Done(_));
    }
    assert_is!(commit(&store, &key, Expect::Is(&seen), write("C")).await, Outcome::Conflict(now) if now.payload == "A");
}

/// Group `versions`: a record that was destroyed and made again is another one.
pub async fn a_record_made_again_is_another_one<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("reborn"));
    for _ in 0..20 {
        create(&store, &key, "A").await;
        let seen = version(&store, &key).await;
        assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
        create(&store, &key, "A").await;
        assert_is!(commit(&store, &key, Expect::Is(&seen), write("C")).await, Outcome::Conflict(_));
        assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    }
}
