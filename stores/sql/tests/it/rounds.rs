//! How many round trips each operation takes, counted on the wire.

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Key, Store};
use cloakroom_testkit::conformance::Harness as _;

use crate::proxy::Proxy;
use crate::servers::{Kind, fresh, skipped};
use crate::util::{Fresh, commit, hold, load, open, patient, write};

/// Each operation by its name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rounds {
    read: usize,
    absent: usize,
    change: usize,
    conflict: usize,
    touch: usize,
    start_and_write: usize,
    begin_and_write: usize,
    create: usize,
    remove: usize,
}

/// Measures with one connection of each kind that has said everything before, as those of a server that runs have.
async fn measure(kind: Kind, options: &str) -> Rounds {
    let (address, database) = fresh(kind);
    let (proxy, through) = Proxy::before(&address).await;
    let fresh = Fresh::at(kind, &through, database, &format!("{options}&pool=1&lock_pool=1")).await;
    // Another handle is idle beside it: only one is measured.
    let store = open(&fresh.url).await;
    let mut rounds = Rounds::default();
    for round in 0..3 {
        let key = fresh.key(&format!("key-{round}"));
        let other = fresh.key(&format!("other-{round}"));
        rounds = once(&proxy, &store, &key, &other).await;
    }
    rounds
}

async fn once(proxy: &Proxy, store: &cloakroom_store_sql::SqlStore, key: &Key, other: &Key) -> Rounds {
    let mut rounds = Rounds::default();
    proxy.turns();
    assert!(load(store, key).await.is_none());
    rounds.absent = proxy.turns();
    assert!(matches!(commit(store, key, Expect::Absent, write("1")).await, Ok(Outcome::Done(_))));
    rounds.create = proxy.turns();
    let record = load(store, key).await.unwrap();
    rounds.read = proxy.turns();
    assert!(matches!(commit(store, key, Expect::Is(&record.version), write("2")).await, Ok(Outcome::Done(_))));
    rounds.change = proxy.turns();
    let conflict = commit(store, key, Expect::Is(&record.version), write("3")).await;
    assert!(matches!(conflict, Ok(Outcome::Conflict(now)) if now.payload == "2"));
    rounds.conflict = proxy.turns();
    let life = std::time::Duration::from_secs(100);
    assert!(matches!(commit(store, key, Expect::Any, Put::Touch(life)).await, Ok(Outcome::Done(_))));
    rounds.touch = proxy.turns();
    let lease = hold(store, key).await.lease;
    assert!(matches!(commit(store, key, Expect::Held(lease), write("4")).await, Ok(Outcome::Done(_))));
    rounds.start_and_write = proxy.turns();
    let lease = store.lock(other, Claim::New, &patient()).await.unwrap().unwrap().lease;
    assert!(matches!(commit(store, other, Expect::Held(lease), write("4")).await, Ok(Outcome::Done(_))));
    rounds.begin_and_write = proxy.turns();
    assert!(matches!(commit(store, key, Expect::Any, Put::Remove).await, Ok(Outcome::Removed(_))));
    rounds.remove = proxy.turns();
    rounds
}

/// Rule 5 of the protocol: 1 to read, 2 to change, 2 to start and write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_native_layout_needs_one_round_trip_for_each_step() {
    let ideal = |conflict| Rounds {
        read: 1,
        absent: 1,
        change: 1,
        conflict,
        touch: 1,
        start_and_write: 2,
        begin_and_write: 2,
        create: 1,
        remove: 1,
    };
    if !skipped(Kind::Postgres) {
        assert_eq!(measure(Kind::Postgres, "layout=native").await, ideal(1));
    }
    if !skipped(Kind::MariaDb) {
        // MySQL cannot tell what it did not change.
        assert_eq!(measure(Kind::MariaDb, "layout=native").await, ideal(2));
    }
}

/// What Symfony's protocol needs, and never more than 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symfonys_layout_needs_at_most_five_round_trips() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        for lock in ["none", "advisory", "transactional"] {
            if skipped(kind) {
                continue;
            }
            let rounds = measure(kind, &format!("layout=symfony&migrate=yes&lock={lock}")).await;
            let postgres = kind == Kind::Postgres;
            let expected = match lock {
                "none" => Rounds {
                    read: 1,
                    absent: 1,
                    change: 1,
                    conflict: if postgres { 1 } else { 2 },
                    touch: 1,
                    start_and_write: 2,
                    begin_and_write: 2,
                    create: 1,
                    remove: 1,
                },
                // Taking the lock and reading, writing and freeing.
                _ => Rounds {
                    read: 1,
                    absent: 1,
                    change: if postgres { 1 } else { 4 },
                    conflict: if postgres { 1 } else { 3 },
                    touch: if postgres || lock == "advisory" { 1 } else { 4 },
                    start_and_write: 4,
                    // A row that keeps others out is made first, where the row is the lock.
                    begin_and_write: if lock == "advisory" { 4 } else { 5 },
                    create: if postgres { 1 } else { rounds.begin_and_write },
                    remove: if postgres { 1 } else { 4 },
                },
            };
            assert_eq!(rounds, expected, "{kind:?} {lock}");
        }
    }
}
