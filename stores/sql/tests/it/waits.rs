//! Waiting for somebody's lock is no outage, however short the time for talking is.

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome};
use cloakroom_core::{Deadline, Store};
use cloakroom_testkit::conformance::Harness as _;
use tokio::time::{Instant, sleep, timeout};

use crate::servers::{Kind, skipped};
use crate::util::{Fresh, create, load, open, write};

/// Several times as long as may be talked.
const HELD: Duration = Duration::from_millis(800);

fn usual() -> Deadline {
    Deadline::new(Duration::from_millis(250), Duration::from_secs(10))
}

/// A holder in another process is waited for by those who want its lock, for a record that is there and for one that is
/// only being made.
async fn is_waited_for(kind: Kind, lock: &str) {
    if skipped(kind) {
        return;
    }
    let fresh = Fresh::new(kind, &format!("layout=symfony&migrate=yes&lock={lock}")).await;
    let other = open(&fresh.url).await;
    let (there, new) = (fresh.key("there"), fresh.key("new"));
    create(&other, &there, "data").await;
    for key in [&there, &new] {
        let claim = if key == &there { Claim::Existing } else { Claim::New };
        let lease = other.lock(key, claim, &usual()).await.unwrap().unwrap().lease;
        let (store, name, begun) = (fresh.store.clone(), key.clone(), Instant::now());
        let waiting = tokio::spawn(async move { store.lock(&name, Claim::Either, &usual()).await });
        sleep(HELD).await;
        assert!(!waiting.is_finished(), "{:?}", waiting.await);
        let outcome = other.commit(key, Expect::Held(lease), write("written"), &usual()).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        let locked = waiting.await.unwrap().unwrap().unwrap();
        assert!(begun.elapsed() >= HELD);
        assert_eq!(locked.record.unwrap().payload, "written");
        // One that writes without having read waits as well.
        let (store, name) = (other.clone(), key.clone());
        let writing = tokio::spawn(async move { store.commit(&name, Expect::Any, write("next"), &usual()).await });
        sleep(HELD).await;
        assert!(!writing.is_finished(), "{:?}", writing.await);
        locked.lease.release().await;
        assert!(matches!(writing.await.unwrap().unwrap(), Outcome::Done(_)));
        assert_eq!(load(&fresh.store, key).await.unwrap().payload, "next");
    }
}

/// Requests that were aborted while they waited leave nobody behind at the server, which has only so many places.
async fn leaves_nobody_waiting(kind: Kind, lock: &str) {
    if skipped(kind) {
        return;
    }
    let fresh = Fresh::new(kind, &format!("layout=symfony&migrate=yes&lock={lock}")).await;
    let other = open(&fresh.url).await;
    let key = fresh.key("there");
    create(&other, &key, "data").await;
    let held = other.lock(&key, Claim::Existing, &usual()).await.unwrap().unwrap();
    let mut waited = 0;
    for _ in 0..10 {
        let waiting = async { fresh.store.lock(&key, Claim::Existing, &usual()).await };
        assert!(timeout(Duration::from_millis(100), waiting).await.is_err());
        waited = waited.max(fresh.waiting().await);
        let waiting = async { fresh.store.commit(&key, Expect::Any, write("new"), &usual()).await };
        assert!(timeout(Duration::from_millis(100), waiting).await.is_err());
    }
    assert!((1..=4).contains(&waited), "{waited} of at most 20 were seen to wait at once");
    let begun = Instant::now();
    while fresh.waiting().await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(3), "{} are left behind", fresh.waiting().await);
        sleep(Duration::from_millis(50)).await;
    }
    held.lease.release().await;
    let locked = fresh.store.lock(&key, Claim::Existing, &usual()).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "data");
}

macro_rules! on {
    ($($case:ident: $what:ident, $kind:ident, $lock:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $what(Kind::$kind, $lock).await;
            }
        )*
    };
}

on! {
    postgres_advisory_waits_beyond_the_time_for_talking: is_waited_for, Postgres, "advisory";
    postgres_transactional_waits_beyond_the_time_for_talking: is_waited_for, Postgres, "transactional";
    mariadb_advisory_waits_beyond_the_time_for_talking: is_waited_for, MariaDb, "advisory";
    mariadb_transactional_waits_beyond_the_time_for_talking: is_waited_for, MariaDb, "transactional";
    postgres_advisory_leaves_nobody_waiting: leaves_nobody_waiting, Postgres, "advisory";
    postgres_transactional_leaves_nobody_waiting: leaves_nobody_waiting, Postgres, "transactional";
    mariadb_advisory_leaves_nobody_waiting: leaves_nobody_waiting, MariaDb, "advisory";
    mariadb_transactional_leaves_nobody_waiting: leaves_nobody_waiting, MariaDb, "transactional";
}
