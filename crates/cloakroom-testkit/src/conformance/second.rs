//! Two handles on the same records, as two processes have them: each sees what the other did, and waits for it.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use super::Harness;
use super::tools::{
    Dice, LONG, Shared, assert_absent, assert_holds, assert_is, assert_waits, commit, create, found, hold,
    later_commit, later_lock, lock, number, patient, poll_and_drop, seconds, short_of_long, soon, version, waiting,
    write,
};

async fn both<H: Harness>(harness: &H) -> (Shared, Shared) {
    (harness.store(), harness.second().await.unwrap())
}

/// Without any delay.
pub async fn each_handle_sees_what_the_other_wrote<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("shared");
    assert_absent(&there, &key).await;
    create(&here, &key, "1").await;
    assert_holds(&there, &key, "1").await;
    assert_is!(commit(&there, &key, Expect::Absent, write("mine")).await, Outcome::Taken);
    for n in 2..10_u8 {
        let (writer, reader) = if n % 2 == 0 { (&there, &here) } else { (&here, &there) };
        assert_is!(commit(writer, &key, Expect::Any, write(n.to_string())).await, Outcome::Done(_));
        assert_holds(reader, &key, n.to_string()).await;
    }
}

/// A process that starts later finds the records of those before it, with what is left of their lives.
pub async fn a_handle_that_is_made_later_sees_what_was_written<H: Harness>(harness: H) {
    let (here, key, empty) = (harness.store(), harness.key("earlier"), harness.key("empty"));
    create(&here, &key, "data").await;
    create(&here, &empty, "").await;
    harness.age(&key, seconds(300)).await;
    let there = harness.second().await.unwrap();
    assert_holds(&there, &key, "data").await;
    assert_holds(&there, &empty, "").await;
    assert_is!(found(&there, &key).await.ttl, Some(ttl) if ttl <= short_of_long(299) && ttl > short_of_long(360));
}

/// A store that has settled holds up nobody: what its callers dropped is done or given back.
pub async fn a_settled_store_holds_nothing<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("dropped");
    let mut dice = Dice::new(7);
    create(&here, &key, "data").await;
    for n in 0..30 {
        match n % 3 {
            0 => drop(hold(&here, &key).await),
            1 => drop(poll_and_drop(here.lock(&key, Claim::Existing, &patient()), dice.roll(4)).await),
            _ => {
                let (lease, deadline) = (hold(&here, &key).await.lease, patient());
                let commit = here.commit(&key, Expect::Held(lease), Put::Touch(LONG), &deadline);
                drop(poll_and_drop(commit, dice.roll(4)).await);
            }
        }
        here.settle().await;
        let at_once = there.lock(&key, Claim::Existing, &waiting(Duration::ZERO)).await;
        let at_once = at_once.unwrap_or_else(|error| panic!("round {n}: {error}")).unwrap();
        assert_eq!(at_once.record.unwrap().payload, "data");
        at_once.lease.release().await;
    }
}

/// A version that was read here means the same there.
pub async fn a_version_holds_across_handles<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("version");
    create(&here, &key, "1").await;
    let seen = version(&here, &key).await;
    assert_is!(commit(&there, &key, Expect::Any, write("2")).await, Outcome::Done(_));
    assert_is!(commit(&here, &key, Expect::Is(&seen), write("3")).await, Outcome::Conflict(now) if now.payload == "2");
    let seen = version(&there, &key).await;
    assert_is!(commit(&here, &key, Expect::Is(&seen), write("3")).await, Outcome::Done(_));
    assert_holds(&there, &key, "3").await;
}

/// Locks and commits wait for a holder on the other side.
pub async fn a_lock_holds_across_handles<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("lock");
    create(&here, &key, "1").await;
    for (holder, other) in [(&here, &there), (&there, &here)] {
        let lease = hold(holder, &key).await.lease;
        let mut waiter = later_lock(other, &key, Claim::Existing);
        assert_waits(&mut waiter).await;
        assert_holds(other, &key, "1").await;
        lease.release().await;
        let lease = soon(waiter).await.unwrap().lease;
        let mut waiter = later_commit(holder, &key, None, write("1"));
        assert_waits(&mut waiter).await;
        drop(lease);
        assert_is!(soon(waiter).await, Outcome::Done(_));
    }
}

/// A logout there is a logout here, for those who wait as well.
pub async fn a_logout_holds_across_handles<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("logout");
    create(&here, &key, "login").await;
    let seen = version(&here, &key).await;
    let lease = hold(&there, &key).await.lease;
    let mut waiter = later_lock(&here, &key, Claim::Existing);
    assert_waits(&mut waiter).await;
    assert_is!(commit(&there, &key, Expect::Held(lease), Put::Remove).await, Outcome::Removed(_));
    assert!(soon(waiter).await.is_none());
    assert_is!(commit(&here, &key, Expect::Is(&seen), write("back")).await, Outcome::Gone);
    assert_absent(&here, &key).await;
    assert_absent(&there, &key).await;
}

/// One clock for both.
pub async fn an_end_of_life_holds_across_handles<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("expired");
    create(&here, &key, "old").await;
    harness.age(&key, short_of_long(60)).await;
    assert_is!(commit(&there, &key, Expect::Any, Put::Touch(LONG)).await, Outcome::Done(_));
    harness.age(&key, short_of_long(60)).await;
    assert_holds(&here, &key, "old").await;
    harness.age(&key, seconds(61)).await;
    assert_absent(&here, &key).await;
    assert_absent(&there, &key).await;
}

/// Two services that count the same thing.
pub async fn increments_across_handles_lose_none<H: Harness>(harness: H) {
    let (here, there) = both(&harness).await;
    let key = harness.key("counter");
    create(&here, &key, "0").await;
    let times = harness.increments() / 20;
    let mut tasks = Vec::new();
    for task in 0..4 {
        let (store, key): (Shared, _) = (if task % 2 == 0 { here.clone() } else { there.clone() }, key.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..times {
                if (n + task) % 3 == 0 {
                    let locked = lock(&store, &key, Claim::Existing).await.unwrap();
                    let next = (number(&locked.record.unwrap()) + 1).to_string();
                    assert_is!(commit(&store, &key, Expect::Held(locked.lease), write(next)).await, Outcome::Done(_));
                    continue;
                }
                let mut record = found(&store, &key).await;
                while let Outcome::Conflict(now) = {
                    let next = (number(&record) + 1).to_string();
                    commit(&store, &key, Expect::Is(&record.version), write(next)).await
                } {
                    record = now;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(&found(&there, &key).await), times * 4);
}
