//! Round trips, counted between the store and its servers.
//!
//! `waited` are those that a request waits for one after the other, by a delay that each answer has; `flights` are all
//! that there were, also those for which nobody waited.

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, Engine, Key, Session, Settings, Store};
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use http::HeaderMap;

use crate::proxy::{Proxy, round_trips};
use crate::util::{begin, key, payload, prefix, three};

const DELAY: Duration = Duration::from_millis(40);

/// A store behind proxies.
struct Counted {
    store: MemcachedStore,
    proxies: Vec<Proxy>,
}

impl Counted {
    /// On so many servers; connections are there already.
    async fn on(count: usize) -> Option<Counted> {
        let mut proxies = Vec::new();
        for server in three()?.iter().take(count) {
            proxies.push(Proxy::new(server.addr()).await);
        }
        let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.addr.to_string()).collect();
        let config = MemcachedConfig::from_url(&format!("memcached://{}", addresses.join(",")));
        let store = MemcachedStore::open(config.unwrap().prefix(prefix())).await.unwrap();
        let counted = Counted { store, proxies };
        // Two connections to each server.
        for n in 0..20 {
            let (one, two) = (key(&format!("warm-{n}")), key(&format!("up-{n}")));
            let (deadline, other) = (patient(), patient());
            let _ = tokio::join!(counted.store.load(&one, &deadline), counted.store.load(&two, &other));
        }
        for proxy in &counted.proxies {
            proxy.delay(DELAY);
        }
        Some(counted)
    }

    /// An id whose lock lies beside its data, or does not.
    fn id(&self, apart: bool) -> Key {
        let ids = (0..100).map(|n| key(&format!("{n:032x}")));
        let mut ids = ids.filter(|id| {
            let servers = self.store.servers_of(id);
            servers.is_some_and(|(data, lock)| (data != lock) == apart)
        });
        ids.next().unwrap()
    }

    /// What `work` costs; the best of a few, for a busy machine adds to it.
    async fn cost<T>(&self, work: impl AsyncFn() -> T) -> (usize, usize, T) {
        let mut best = None;
        for _ in 0..3 {
            tokio::time::sleep(DELAY * 3).await;
            self.flights();
            let (waited, done) = round_trips(DELAY, work()).await;
            tokio::time::sleep(DELAY * 3).await;
            let flights = self.flights();
            if best.as_ref().is_none_or(|(before, _, _)| waited < *before) {
                best = Some((waited, flights, done));
            }
        }
        best.unwrap()
    }

    fn flights(&self) -> usize {
        self.proxies.iter().map(Proxy::flights).sum()
    }

    /// What `start` and then `put` cost, each.
    async fn start_and(&self, key: &Key, claim: Claim, put: impl Fn() -> Put) -> [(usize, usize); 2] {
        let mut costs = [(9, 9); 2];
        for _ in 0..3 {
            self.settle().await;
            let (waited, locked) = round_trips(DELAY, self.store.lock(key, claim, &patient())).await;
            let lease = locked.unwrap().unwrap().lease;
            let start = (waited, self.flights());
            let deadline = patient();
            let write = self.store.commit(key, Expect::Held(lease), put(), &deadline);
            let (waited, outcome) = round_trips(DELAY, write).await;
            assert!(matches!(outcome.unwrap(), Outcome::Done(_) | Outcome::Removed(_)));
            tokio::time::sleep(DELAY * 3).await;
            let write = (waited, self.flights());
            if start.0 + write.0 < costs[0].0 + costs[1].0 {
                costs = [start, write];
            }
            match claim {
                Claim::New => self.remove(key).await,
                _ => self.put(key).await,
            }
        }
        costs
    }

    async fn settle(&self) {
        tokio::time::sleep(DELAY * 3).await;
        self.flights();
    }

    async fn put(&self, key: &Key) {
        let outcome = self.store.commit(key, Expect::Absent, payload("n|i:1;"), &patient()).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_) | Outcome::Taken));
        self.settle().await;
    }

    async fn remove(&self, key: &Key) {
        self.store.commit(key, Expect::Any, Put::Remove, &patient()).await.unwrap();
        self.settle().await;
    }
}

fn patient() -> Deadline {
    Deadline::new(Duration::from_secs(60), Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_round_trip_reads_and_two_start_and_write_where_one_server_has_both() {
    let Some(counted) = Counted::on(1).await else { return };
    let id = counted.id(false);
    counted.put(&id).await;
    let load = counted.cost(async || counted.store.load(&id, &patient()).await.unwrap().is_some()).await;
    assert_eq!(load, (1, 1, true));
    let touch =
        counted.cost(async || counted.store.commit(&id, Expect::Any, Put::Touch(DELAY), &patient()).await.is_ok());
    assert_eq!(touch.await, (1, 1, true));
    counted.remove(&id).await;
    assert_eq!(counted.start_and(&id, Claim::New, || payload("n|i:2;")).await, [(1, 1), (1, 1)]);
    counted.put(&id).await;
    assert_eq!(counted.start_and(&id, Claim::Existing, || payload("n|i:2;")).await, [(1, 1), (1, 1)]);
    assert_eq!(counted.start_and(&id, Claim::Either, || payload("n|i:2;")).await, [(1, 1), (1, 1)]);
    assert_eq!(counted.start_and(&id, Claim::Existing, || Put::Touch(DELAY * 10_000)).await, [(1, 1), (1, 1)]);
    // The lock is given back after the logout, and nobody waits for that.
    assert_eq!(counted.start_and(&id, Claim::Existing, || Put::Remove).await, [(1, 1), (1, 2)]);
    // A change of what was read before: the lock, then the change.
    let record = counted.store.load(&id, &patient()).await.unwrap().unwrap();
    counted.settle().await;
    let deadline = patient();
    let change = counted.store.commit(&id, Expect::Is(&record.version), payload("n|i:3;"), &deadline);
    let (waited, outcome) = round_trips(DELAY, change).await;
    assert!(matches!(outcome.unwrap(), Outcome::Done(_)));
    assert!((2..4).contains(&waited) && counted.flights() == 2, "{waited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_another_server_costs_one_round_trip_more() {
    let Some(counted) = Counted::on(3).await else { return };
    let id = counted.id(true);
    counted.put(&id).await;
    let load = counted.cost(async || counted.store.load(&id, &patient()).await.unwrap().is_some()).await;
    assert_eq!(load, (1, 1, true));
    // The lock, then what lies behind it; the change beside a look at the lock, and giving it back, for which nobody
    // waits.
    assert_eq!(counted.start_and(&id, Claim::Existing, || payload("n|i:2;")).await, [(2, 2), (1, 3)]);
    counted.remove(&id).await;
    assert_eq!(counted.start_and(&id, Claim::New, || payload("n|i:2;")).await, [(1, 2), (1, 3)]);
    let id = counted.id(false);
    counted.put(&id).await;
    assert_eq!(counted.start_and(&id, Claim::Existing, || payload("n|i:2;")).await, [(1, 1), (1, 1)]);
}

/// Whole requests, as rule 5 counts them: untouched, read, changed, started, and a visitor who is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_costs_what_it_is_to_cost() {
    let Some(counted) = Counted::on(1).await else { return };
    let mut settings = Settings::php();
    settings.io_timeout = Duration::from_secs(60);
    let engine = Engine::new(counted.store.clone(), settings).unwrap();
    let id = counted.id(false);
    counted.put(&id).await;
    let end = async |session: Session| engine.finish(session, &mut HeaderMap::new()).await.unwrap();
    let untouched = counted.cost(async || end(begin(&engine, Some(id.record()))).await).await;
    assert_eq!(untouched, (0, 0, ()));
    let read = async || {
        let session = begin(&engine, Some(id.record()));
        assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
        end(session).await;
    };
    assert_eq!(counted.cost(read).await, (1, 1, ()));
    let change = async || {
        let session = begin(&engine, Some(id.record()));
        session.update(|s| s.set("x", &1)).await.unwrap();
        session.update(|s| s.set("n", &(s.get::<i64>("n")?.unwrap_or(0) + 1))).await.unwrap();
        end(session).await;
    };
    // Each update is one change; the second has read what the first has written.
    let (waited, flights, ()) = counted.cost(change).await;
    assert_eq!((waited, flights), (4, 4));
    let change = async || {
        let session = begin(&engine, Some(id.record()));
        session.update(|s| s.set("n", &(s.get::<i64>("n")?.unwrap_or(0) + 1))).await.unwrap();
        end(session).await;
    };
    assert_eq!(counted.cost(change).await, (2, 2, ()));
    let start = async || {
        let session = begin(&engine, Some(id.record()));
        let mut started = session.start().await.unwrap();
        let n = started.get::<i64>("n").unwrap().unwrap_or(0);
        started.set("n", &(n + 1)).unwrap();
        drop(started);
        end(session).await;
    };
    assert_eq!(counted.cost(start).await, (2, 2, ()));
    let new = async || {
        let session = begin(&engine, None);
        session.update(|s| s.set("n", &1)).await.unwrap();
        end(session).await;
    };
    assert_eq!(counted.cost(new).await, (2, 2, ()));
    let new = async || {
        let session = begin(&engine, None);
        session.start().await.unwrap().set("n", &1).unwrap();
        end(session).await;
    };
    assert_eq!(counted.cost(new).await, (2, 2, ()));
}
