//! Locks that are held while the network breaks: kept or lost, and never by two.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Locked, Outcome};
use cloakroom_core::{Deadline, ErrorKind, Key};

use super::Networked;
use super::outages::Outage;
use super::tools::{PATIENCE, in_time, patient, ready, request, within, write};

async fn hold<N: Networked>(net: &N, key: &Key) -> Locked {
    let outcome = net.trusted().commit(key, Expect::Absent, write("old"), &patient()).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
    net.store().lock(key, Claim::Existing, &patient()).await.unwrap().unwrap()
}

async fn text<N: Networked>(net: &N, key: &Key) -> String {
    let record = net.trusted().load(key, &patient()).await.unwrap().expect("nobody removes it");
    String::from_utf8(record.payload.to_vec()).unwrap()
}

/// The lock comes free for others and for its own process, not later than a lock lives.
async fn assert_comes_free<N: Networked>(net: &N, key: &Key) {
    let wait = net.lock_life() + PATIENCE;
    for store in [net.trusted(), net.store()] {
        let limit = Deadline::new(Duration::from_secs(60), wait);
        match store.lock(key, Claim::Existing, &limit).await {
            Ok(Some(locked)) => locked.lease.release().await,
            other => panic!("the lock does not come free: {other:?}"),
        }
    }
}

/// Somebody else tries for the lock. If he gets it, what he writes stays; if not, the holder has it still.
async fn kept_or_lost<N: Networked>(net: &N, key: &Key, locked: Locked, wait: Duration, heal: impl FnOnce()) {
    let limit = Deadline::new(Duration::from_secs(60), wait);
    let other = net.trusted().lock(key, Claim::Existing, &limit).await;
    let lost = match other {
        Ok(Some(other)) => {
            let written = net.trusted().commit(key, Expect::Held(other.lease), write("other"), &patient()).await;
            assert!(matches!(written, Ok(Outcome::Done(_))), "{written:?}");
            true
        }
        Err(error) if error.kind() == ErrorKind::Locked => false,
        other => panic!("trying for a lock that is held: {other:?}"),
    };
    heal();
    let (store, deadline) = (net.store(), request());
    let mine = store.commit(key, Expect::Held(locked.lease), write("mine"), &deadline);
    let mine = in_time("the holder's commit", mine).await;
    let now = text(net, key).await;
    let before = if lost { "other" } else { "old" };
    match &mine {
        Ok(Outcome::Done(_)) => {
            assert!(!lost, "two held one lock: the holder wrote over what the other one wrote");
            assert_eq!(now, "mine");
        }
        Err(error) if error.may_have_been_applied() => {
            assert!(now == before || (now == "mine" && !lost), "{now}, after {error:?}");
        }
        Err(error) => assert_eq!(now, before, "after {error:?}"),
        Ok(other) => panic!("the holder's commit: {other:?}"),
    }
    ready(net).await;
    assert_comes_free(net, key).await;
}

/// Connections come and go; a lock that is bound to one is lost with it.
pub async fn a_lock_through_a_reset_is_never_held_by_two<N: Networked>(net: N) {
    for round in 0..6 {
        ready(&net).await;
        let key = net.key(&format!("reset-{round}"));
        let locked = hold(&net, &key).await;
        net.proxy().reset();
        let wait = Duration::from_millis(if round % 2 == 0 { 0 } else { 300 });
        kept_or_lost(&net, &key, locked, wait, || {}).await;
    }
}

/// Nobody heard of the holder for longer than a lock lives.
pub async fn a_lock_through_a_long_outage_is_never_held_by_two<N: Networked>(net: N) {
    for (round, outage) in [Outage::Hole, Outage::Refuse, Outage::Stall].into_iter().enumerate() {
        ready(&net).await;
        let key = net.key(&format!("long-{round}"));
        let locked = hold(&net, &key).await;
        outage.begin(net.proxy());
        let wait = net.lock_life() + Duration::from_secs(2);
        kept_or_lost(&net, &key, locked, wait, || net.proxy().heal()).await;
    }
}

/// A holder that gives the lock back, or is dropped, while nobody can hear it.
pub async fn a_lock_that_is_given_back_in_an_outage_comes_free<N: Networked>(net: N) {
    for (round, outage) in [Outage::Refuse, Outage::Hole, Outage::HalfOpen, Outage::Stall].into_iter().enumerate() {
        for dropped in [false, true] {
            ready(&net).await;
            let key = net.key(&format!("back-{round}-{dropped}"));
            let locked = hold(&net, &key).await;
            outage.begin(net.proxy());
            if dropped {
                drop(locked);
            } else {
                within("giving back a lock in an outage", PATIENCE, locked.lease.release()).await;
            }
            // What is tried in the background is tried while it is of no use.
            tokio::time::sleep(Duration::from_millis(50)).await;
            net.proxy().heal();
            ready(&net).await;
            assert_comes_free(&net, &key).await;
            assert_eq!(text(&net, &key).await, "old");
        }
    }
}
