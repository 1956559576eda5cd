//! Times to live: what has expired is not there, whoever comes first.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Put};
use tokio::time::Instant;

use super::Harness;
use super::tools::{
    LONG, assert_absent, assert_holds, assert_is, assert_waits, commit, create, found, hold, later_commit, load, lock,
    seconds, short_of_long, soon, version, write, write_for,
};

/// Before any sweep: the store's clock decides, not the sweeper.
pub async fn the_expired_is_absent<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("expired"));
    create(&store, &key, "old").await;
    harness.age(&key, short_of_long(60)).await;
    assert_holds(&store, &key, "old").await;
    harness.age(&key, seconds(61)).await;
    assert_absent(&store, &key).await;
}

/// What has expired is gone for who read it in time, and touching does not bring it back.
pub async fn the_expired_cannot_be_changed<H: Harness>(harness: H) {
    let store = harness.store();
    for (n, put) in [write("new"), Put::Touch(LONG), Put::Remove, Put::SetAside].into_iter().enumerate() {
        let (any, is) = (harness.key(&format!("any-{n}")), harness.key(&format!("is-{n}")));
        create(&store, &any, "old").await;
        create(&store, &is, "old").await;
        let seen = version(&store, &is).await;
        harness.age(&any, LONG + seconds(1)).await;
        harness.age(&is, LONG + seconds(1)).await;
        let shown = format!("{put:?}");
        let again = match &put {
            Put::Payload(payload) => Put::Payload(payload.clone()),
            Put::Touch(ttl) => Put::Touch(*ttl),
            Put::Remove => Put::Remove,
            _ => Put::SetAside,
        };
        let outcome = commit(&store, &any, Expect::Any, again).await;
        assert!(matches!(outcome, Outcome::Gone), "{shown} on any: {outcome:?}");
        let outcome = commit(&store, &is, Expect::Is(&seen), put).await;
        assert!(matches!(outcome, Outcome::Gone), "{shown} on a version: {outcome:?}");
        assert_absent(&store, &any).await;
        assert_absent(&store, &is).await;
    }
}

/// The name is free again, and nothing of the old record is in the new one.
pub async fn the_expired_can_be_made_anew<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("anew"));
    create(&store, &key, "old and long").await;
    harness.age(&key, LONG + seconds(1)).await;
    create(&store, &key, "new").await;
    assert_holds(&store, &key, "new").await;
    assert_is!(found(&store, &key).await.ttl, Some(ttl) if ttl > short_of_long(120));
}

/// "What is there but has expired is destroyed first", so that the claim on an existing record cannot be met.
pub async fn the_expired_is_not_found_under_the_lock<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("existing"));
    create(&store, &key, "old").await;
    harness.age(&key, LONG + seconds(1)).await;
    assert!(lock(&store, &key, Claim::Existing).await.is_none());
    assert_absent(&store, &key).await;
    create(&store, &key, "new").await;
    assert_holds(&store, &key, "new").await;
}

/// PHP without strict mode goes on with the id; the data are not those of the expired session.
pub async fn a_claim_on_the_expired_begins_afresh<H: Harness>(harness: H) {
    let store = harness.store();
    for (name, claim) in [("new", Claim::New), ("either", Claim::Either)] {
        let key = harness.key(name);
        create(&store, &key, "old").await;
        harness.age(&key, LONG + seconds(1)).await;
        let locked = lock(&store, &key, claim).await.unwrap();
        assert!(locked.record.is_none(), "{claim:?}");
        assert_is!(commit(&store, &key, Expect::Held(locked.lease), write("new")).await, Outcome::Done(_));
        assert_holds(&store, &key, "new").await;
    }
}

/// "Leaves the payload and lets the record live for so long from now on."
pub async fn a_touch_extends_life_and_leaves_the_data<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("touch"));
    create(&store, &key, "data").await;
    for round in 0..4 {
        harness.age(&key, short_of_long(60)).await;
        let seen = version(&store, &key).await;
        let outcome = match round {
            0 | 2 => commit(&store, &key, Expect::Any, Put::Touch(LONG)).await,
            1 => commit(&store, &key, Expect::Is(&seen), Put::Touch(LONG)).await,
            _ => {
                let lease = hold(&store, &key).await.lease;
                commit(&store, &key, Expect::Held(lease), Put::Touch(LONG)).await
            }
        };
        assert_is!(outcome, Outcome::Done(_));
        assert_is!(found(&store, &key).await.ttl, Some(ttl) if ttl > short_of_long(50));
        assert_holds(&store, &key, "data").await;
    }
    harness.age(&key, LONG + seconds(1)).await;
    assert_absent(&store, &key).await;
}

/// From now on means from now on, also when that is less.
pub async fn a_touch_can_shorten_life<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("shorter"));
    create(&store, &key, "data").await;
    assert_is!(commit(&store, &key, Expect::Any, Put::Touch(seconds(60))).await, Outcome::Done(_));
    assert_holds(&store, &key, "data").await;
    harness.age(&key, seconds(61)).await;
    assert_absent(&store, &key).await;
}

/// A write gives the life it says, longer or shorter than the one before.
pub async fn a_write_begins_a_new_life<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("rewritten"));
    create(&store, &key, "1").await;
    harness.age(&key, short_of_long(60)).await;
    assert_is!(commit(&store, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    harness.age(&key, short_of_long(60)).await;
    assert_holds(&store, &key, "2").await;
    assert_is!(commit(&store, &key, Expect::Any, write_for("3", seconds(60))).await, Outcome::Done(_));
    assert_holds(&store, &key, "3").await;
    harness.age(&key, seconds(61)).await;
    assert_absent(&store, &key).await;
}

/// Whether reading counts as activity is not for the store to decide.
pub async fn reading_does_not_extend_life<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("read"));
    create(&store, &key, "data").await;
    harness.age(&key, short_of_long(60)).await;
    assert_holds(&store, &key, "data").await;
    hold(&store, &key).await.lease.release().await;
    harness.age(&key, seconds(61)).await;
    assert_absent(&store, &key).await;
}

/// The core touches by it, so it has to be right.
pub async fn the_remaining_life_is_told<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("ttl"));
    let near = |ttl: Option<std::time::Duration>, expected| {
        let ttl = ttl.unwrap();
        assert!(ttl <= expected + harness.tick() && ttl + seconds(50) > expected, "{ttl:?}, expected {expected:?}");
    };
    create(&store, &key, "data").await;
    near(found(&store, &key).await.ttl, LONG);
    harness.age(&key, seconds(300)).await;
    near(found(&store, &key).await.ttl, short_of_long(300));
    let locked = hold(&store, &key).await;
    near(locked.record.unwrap().ttl, short_of_long(300));
    locked.lease.release().await;
    assert_is!(commit(&store, &key, Expect::Any, Put::Touch(seconds(100))).await, Outcome::Done(_));
    near(found(&store, &key).await.ttl, seconds(100));
    assert_is!(commit(&store, &key, Expect::Any, write_for("data", LONG * 10)).await, Outcome::Done(_));
    near(found(&store, &key).await.ttl, LONG * 10);
}

/// In real time, not a moment too early and within a generous limit.
pub async fn a_short_life_ends_in_time<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("short"));
    let (ttl, begun) = (seconds(2), Instant::now());
    assert_is!(commit(&store, &key, Expect::Absent, write_for("data", ttl)).await, Outcome::Done(_));
    while load(&store, &key).await.is_some() {
        assert!(begun.elapsed() < seconds(60), "still there");
        tokio::time::sleep(ttl / 100).await;
    }
    assert!(begun.elapsed() + harness.tick() >= ttl, "gone after {:?}", begun.elapsed());
    assert_is!(commit(&store, &key, Expect::Any, Put::Touch(LONG)).await, Outcome::Gone);
}

/// Who waits for the lock finds the record as it is when the turn comes: expired.
pub async fn a_record_can_expire_while_a_commit_waits<H: Harness>(harness: H) {
    let store = harness.store();
    // In real time, since not every store lets a record be made older while it is held; a slow machine gets longer.
    for ttl in [2, 10, 60].map(seconds) {
        let key = harness.key(&format!("late-{}", ttl.as_secs()));
        let begun = Instant::now();
        assert_is!(commit(&store, &key, Expect::Absent, write_for("old", ttl)).await, Outcome::Done(_));
        let Some(Locked { lease, record: Some(record), .. }) = lock(&store, &key, Claim::Existing).await else {
            continue;
        };
        if begun.elapsed() > ttl / 3 {
            lease.release().await;
            continue;
        }
        let mut is = later_commit(&store, &key, Some(&record.version), write("mine"));
        assert_waits(&mut is).await;
        tokio::time::sleep_until(begun + ttl + harness.tick() + seconds(1)).await;
        lease.release().await;
        assert_is!(soon(is).await, Outcome::Gone);
        assert_is!(commit(&store, &key, Expect::Any, Put::Touch(LONG)).await, Outcome::Gone);
        assert_absent(&store, &key).await;
        return;
    }
    panic!("a record of a minute's life cannot be locked within it");
}
