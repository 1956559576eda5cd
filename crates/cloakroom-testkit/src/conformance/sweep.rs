//! Sweeping removes what has expired, in small steps, and never what is alive or held.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cloakroom_core::store::{Expect, Outcome, Put};
use cloakroom_core::{DynStore, Key};

use super::Harness;
use super::tools::{
    LONG, Shared, assert_absent, assert_holds, assert_is, commit, create, hold, seconds, short_of_long, write,
    write_for,
};

/// Sweeps to the end of a round; tells how many were removed, and the most in one step.
async fn round(store: &Shared, step: usize) -> (usize, usize) {
    let (mut removed, mut most) = (0, 0);
    for _ in 0..10_000 {
        let swept = DynStore::sweep(&**store, step).await.unwrap();
        removed += swept.removed;
        most = most.max(swept.removed);
        if swept.done {
            return (removed, most);
        }
    }
    panic!("a round of sweeping does not come to its end");
}

async fn records<H: Harness>(harness: &H, name: &str, count: usize) -> Vec<Key> {
    let (store, mut keys) = (harness.store(), Vec::new());
    for n in 0..count {
        let key = harness.key(&format!("{name}-{n}"));
        create(&store, &key, Bytes::from(name.to_owned())).await;
        keys.push(key);
    }
    keys
}

async fn expire<H: Harness>(harness: &H, keys: &[Key]) {
    for key in keys {
        harness.age(key, LONG + seconds(1)).await;
    }
}

/// Nothing to do is done at once, or after looking.
pub async fn a_sweep_of_nothing_is_done<H: Harness>(harness: H) {
    let store = harness.store();
    assert_eq!(round(&store, 10).await, (0, 0));
    let alive = records(&harness, "alive", 5).await;
    assert_eq!(round(&store, 10).await, (0, 0));
    assert_eq!(round(&store, 1).await, (0, 0));
    for key in &alive {
        assert_holds(&store, key, "alive").await;
    }
}

/// Every expired one and no other.
pub async fn a_sweep_removes_only_the_expired<H: Harness>(harness: H) {
    let store = harness.store();
    let (alive, dead) = (records(&harness, "alive", 20).await, records(&harness, "dead", 20).await);
    expire(&harness, &dead).await;
    assert_eq!(round(&store, 1000).await.0, 20);
    for key in &alive {
        assert_holds(&store, key, "alive").await;
    }
    for key in &dead {
        assert_absent(&store, key).await;
    }
    assert_eq!(round(&store, 1000).await.0, 0, "they were removed already");
}

/// "Looking at no more than about `step` of them."
pub async fn a_sweep_goes_in_steps<H: Harness>(harness: H) {
    let store = harness.store();
    let dead = records(&harness, "dead", 60).await;
    expire(&harness, &dead).await;
    let (removed, most) = round(&store, 7).await;
    assert_eq!(removed, 60);
    assert!(most <= 14, "{most} in one step of 7");
}

/// "The next call begins anew."
pub async fn a_new_round_finds_what_expired_since<H: Harness>(harness: H) {
    let store = harness.store();
    let keys = records(&harness, "record", 12).await;
    for part in keys.chunks(4) {
        expire(&harness, part).await;
        assert_eq!(round(&store, 3).await.0, 4);
    }
}

/// The end of life that counts is the last one set, longer or shorter.
pub async fn a_sweep_goes_by_the_last_end_of_life<H: Harness>(harness: H) {
    let store = harness.store();
    let (longer, shorter) = (records(&harness, "longer", 3).await, records(&harness, "shorter", 3).await);
    for key in &longer {
        assert_is!(commit(&store, key, Expect::Any, Put::Touch(LONG * 3)).await, Outcome::Done(_));
        harness.age(key, LONG + seconds(1)).await;
    }
    assert_is!(commit(&store, &shorter[0], Expect::Any, Put::Touch(seconds(60))).await, Outcome::Done(_));
    assert_is!(commit(&store, &shorter[1], Expect::Any, write_for("s", seconds(60))).await, Outcome::Done(_));
    let lease = hold(&store, &shorter[2]).await.lease;
    assert_is!(commit(&store, &shorter[2], Expect::Held(lease), write_for("s", seconds(60))).await, Outcome::Done(_));
    for key in &shorter {
        harness.age(key, seconds(61)).await;
    }
    assert_eq!(round(&store, 2).await.0, 3);
    for key in &longer {
        assert_holds(&store, key, "longer").await;
    }
}

/// What somebody holds is left alone, though its time has run out: the holder's write is still good.
pub async fn a_sweep_leaves_the_locked<H: Harness>(harness: H) {
    let store = harness.store();
    let keys = records(&harness, "held", 6).await;
    // Where there is one lock for all records, one is held, and nothing can be removed until it is given back.
    let one_lock = store.capabilities().one_lock;
    let held = if one_lock { 1 } else { 3 };
    let mut leases = Vec::new();
    for key in &keys[..held] {
        leases.push(hold(&store, key).await.lease);
    }
    expire(&harness, &keys).await;
    if one_lock {
        assert!(DynStore::sweep(&*store, 10).await.map_or(true, |swept| swept.removed == 0), "somebody has the lock");
    } else {
        assert_eq!(round(&store, 1).await.0, 6 - held, "those that nobody holds");
    }
    for (key, lease) in keys.iter().zip(leases) {
        assert_is!(commit(&store, key, Expect::Held(lease), write("written")).await, Outcome::Done(_));
        assert_holds(&store, key, "written").await;
    }
    expire(&harness, &keys[..held]).await;
    assert_eq!(round(&store, 1).await.0, if one_lock { 6 } else { held }, "after they were given back");
}

/// Several sweepers at once remove each record once.
pub async fn many_sweepers_remove_each_record_once<H: Harness>(harness: H) {
    let store = harness.store();
    let dead = records(&harness, "dead", 60).await;
    expire(&harness, &dead).await;
    let mut sweepers = Vec::new();
    for _ in 0..4 {
        let store: Shared = store.clone();
        sweepers.push(tokio::spawn(async move { round(&store, 3).await.0 }));
    }
    let mut removed = 0;
    for sweeper in sweepers {
        removed += sweeper.await.unwrap();
    }
    removed += round(&store, 3).await.0;
    assert_eq!(removed, 60);
}

/// Sweeping at full speed beside those who keep their sessions alive: none of them loses it.
pub async fn a_sweep_beside_touches_removes_nothing_alive<H: Harness>(harness: H) {
    let store = harness.store();
    let keys = records(&harness, "busy", 8).await;
    let done = Arc::new(AtomicBool::new(false));
    let sweeper = tokio::spawn({
        let (store, done): (Shared, _) = (store.clone(), Arc::clone(&done));
        async move {
            let mut removed = 0;
            while !done.load(Ordering::Relaxed) {
                removed += round(&store, 3).await.0;
                tokio::task::yield_now().await;
            }
            removed
        }
    });
    for n in 0..harness.increments() / 5 {
        let key = &keys[n % keys.len()];
        harness.age(key, short_of_long(120)).await;
        let put = if n % 2 == 0 { Put::Touch(LONG) } else { write("busy") };
        assert_is!(commit(&store, key, Expect::Any, put).await, Outcome::Done(_));
        if n % 4 == 0 {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(sweeper.await.unwrap(), 0);
    for key in &keys {
        assert_holds(&store, key, "busy").await;
    }
}
