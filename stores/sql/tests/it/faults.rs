//! Failures that are made to happen: each is a typed error in time, nothing is lost, and nothing is done twice.

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store};
use cloakroom_store_sql::{SqlConfig, SqlStore};
use cloakroom_testkit::conformance::Harness as _;
use cloakroom_testkit::servers::mariadb::MariaDb;
use cloakroom_testkit::servers::postgres::Postgres;
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::Proxy;
use crate::servers::{Kind, fresh, skipped};
use crate::util::{Fresh, commit, create, hold, load, open, patient, write};

/// The limits that a request has.
fn usual() -> Deadline {
    Deadline::new(Duration::from_millis(250), Duration::from_secs(5))
}

fn key(name: &str) -> Key {
    Key::from_bytes(name.as_bytes().to_vec())
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(answer: Result<T>) -> Error {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    error
}

/// A server of its own, which can be ended.
enum Own {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Own {
    fn start(kind: Kind) -> Own {
        match kind {
            Kind::Postgres => Own::Postgres(Postgres::start(&[]).unwrap()),
            Kind::MariaDb => Own::MariaDb(MariaDb::start(&[]).unwrap()),
        }
    }

    fn url(&self) -> String {
        match self {
            Own::Postgres(server) => format!("{}?sslmode=disable", server.url("postgres")),
            Own::MariaDb(server) => {
                server.sql("mysql", "CREATE DATABASE IF NOT EXISTS app").unwrap();
                format!("{}?sslmode=disabled", server.url("app"))
            }
        }
    }

    fn stop(&self) {
        match self {
            Own::Postgres(server) => server.stop().unwrap(),
            Own::MariaDb(server) => server.stop().unwrap(),
        }
    }

    fn start_again(&self) {
        match self {
            Own::Postgres(server) => server.start_again().unwrap(),
            Own::MariaDb(server) => server.start_again().unwrap(),
        }
    }

    fn pause(&self, pause: bool) {
        match (self, pause) {
            (Own::Postgres(server), true) => server.pause().unwrap(),
            (Own::Postgres(server), false) => server.resume().unwrap(),
            (Own::MariaDb(server), true) => server.pause().unwrap(),
            (Own::MariaDb(server), false) => server.resume().unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_again_is_of_use_within_a_second() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let server = Own::start(kind);
        let url = server.url();
        let store = open(&url).await;
        let symfony = open(&format!("{url}&layout=symfony&migrate=yes&lock=transactional")).await;
        let both = [&store, &symfony];
        // Several connections of each kind, all of which will be dead.
        for store in both {
            create(store, &key("kept"), "data").await;
            let reads = (0..8).map(|_| {
                let store = store.clone();
                tokio::spawn(async move { load(&store, &key("kept")).await })
            });
            for read in reads.collect::<Vec<_>>() {
                read.await.unwrap();
            }
        }
        let held = hold(&symfony, &key("kept")).await;
        server.stop();
        for store in both {
            let begun = Instant::now();
            let _ = assert_unavailable(store.load(&key("kept"), &usual()).await);
            let _ = assert_unavailable(store.load(&key("missing"), &usual()).await);
            let _ = assert_unavailable(store.lock(&key("missing"), Claim::New, &usual()).await);
            let _ = assert_unavailable(store.commit(&key("other"), Expect::Any, write("x"), &usual()).await);
            let _ = assert_unavailable(store.sweep(10).await);
            assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        }
        // Opening needs no server either.
        let late = open(&url).await;
        let error = commit(&symfony, &key("kept"), Expect::Held(held.lease), write("lost")).await.unwrap_err();
        assert!(!error.may_have_been_applied(), "a transaction that was not committed: {error:?}");
        server.start_again();
        let begun = Instant::now();
        for store in both.into_iter().chain([&late]) {
            loop {
                match store.load(&key("kept"), &usual()).await {
                    Ok(found) => break assert_eq!(found.unwrap().payload, "data"),
                    error => {
                        let _ = assert_unavailable(error);
                    }
                }
            }
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{kind:?} took {took:?}");
        for store in both {
            let outcome = commit(store, &key("kept"), Expect::Any, write("more")).await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)));
        }
        assert_eq!(load(&late, &key("kept")).await.unwrap().payload, "more");
    }
}

/// Nobody closed the idle connections of a server that went away and came back; the first write on them is not lost
/// on one of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_idle_is_tried_before_a_write_is_risked_on_it() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let server = Own::start(kind);
        let store = open(&server.url()).await;
        create(&store, &key("kept"), "data").await;
        let quiet = Instant::now();
        server.stop();
        server.start_again();
        sleep(Duration::from_millis(1100).saturating_sub(quiet.elapsed())).await;
        let outcome = store.commit(&key("kept"), Expect::Any, write("more"), &patient()).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_unavailable_in_time() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let server = Own::start(kind);
        let url = server.url();
        let store = open(&url).await;
        let symfony = open(&format!("{url}&layout=symfony&migrate=yes&lock=advisory")).await;
        let neighbour = open(&format!("{url}&layout=symfony&migrate=yes&lock=advisory")).await;
        for store in [&store, &symfony] {
            create(store, &key("kept"), "data").await;
        }
        // One waits for a lock that somebody holds, when the server stops to answer.
        let held = hold(&neighbour, &key("kept")).await;
        let (waiting, begun) = (symfony.clone(), Instant::now());
        let waiter = tokio::spawn(async move { waiting.lock(&key("kept"), Claim::Existing, &usual()).await });
        sleep(Duration::from_millis(600)).await;
        assert!(!waiter.is_finished(), "a holder is waited for, for as long as the server answers");
        server.pause(true);
        let (stopped, limit) = (Instant::now(), Duration::from_secs(2));
        let _ = assert_unavailable(timeout(limit, waiter).await.unwrap().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(5), "before the limit for waiting");
        for store in [&store, &symfony] {
            let _ = assert_unavailable(timeout(limit, store.load(&key("kept"), &usual())).await.unwrap());
            let _ = assert_unavailable(timeout(limit, store.load(&key("missing"), &usual())).await.unwrap());
            let _ =
                assert_unavailable(timeout(limit, store.lock(&key("kept"), Claim::Existing, &usual())).await.unwrap());
            let (kept, deadline) = (key("kept"), usual());
            let answer = timeout(limit, store.commit(&kept, Expect::Any, write("x"), &deadline));
            let _ = assert_unavailable(answer.await.unwrap());
        }
        assert!(stopped.elapsed() < Duration::from_secs(6));
        server.pause(false);
        drop(held);
        for store in [&store, &symfony] {
            let begun = Instant::now();
            while store.load(&key("kept"), &usual()).await.is_err() {
                assert!(begun.elapsed() < Duration::from_secs(1), "{kind:?}");
            }
            commit(store, &key("kept"), Expect::Any, write("more")).await.unwrap();
        }
    }
}

/// A write whose answer is lost says so, and was done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_not_asked_for_again() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, database) = fresh(kind);
        let (proxy, through) = Proxy::before(&address).await;
        let fresh = Fresh::at(kind, &address, database, "").await;
        let store = open(&format!("{through}&pool=1")).await;
        let key = key("counter");
        create(&store, &key, "0").await;
        let version = "SELECT version FROM cloakroom_sessions".to_owned();
        for n in 1..=5 {
            // A new connection prepares its statements first, which is another answer to lose.
            let seen = load(&store, &key).await.unwrap();
            commit(&store, &key, Expect::Is(&seen.version), write("prepared")).await.unwrap();
            let seen = load(&store, &key).await.unwrap();
            let before = fresh.beside.number(version.clone()).await.unwrap();
            proxy.lose_next_answer();
            let error = assert_unavailable(commit(&store, &key, Expect::Is(&seen.version), write(n.to_string())).await);
            assert!(error.may_have_been_applied() && !error.is_retryable(), "{kind:?}: {error:?}");
            // It arrived, and was carried out; once.
            let begun = Instant::now();
            while fresh.beside.number(version.clone()).await == Some(before) {
                assert!(begun.elapsed() < Duration::from_secs(10), "{kind:?}");
            }
            assert_eq!(load(&store, &key).await.unwrap().payload, n.to_string());
            assert_eq!(fresh.beside.number(version.clone()).await, Some(before + 1));
        }
        // What only reads is asked for again.
        let connections = proxy.connections();
        proxy.lose_next_answer();
        assert_eq!(load(&store, &key).await.unwrap().payload, "5", "{kind:?}");
        assert_eq!(proxy.connections(), connections + 1, "{kind:?}");
    }
}

/// An answer that comes after its question was given up is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_answer_under_way_is_never_used_again() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, _) = fresh(kind);
        let (proxy, through) = Proxy::before(&address).await;
        let store = open(&format!("{through}&pool=1")).await;
        for name in ["one", "two"] {
            create(&store, &key(name), name).await;
        }
        for _ in 0..10 {
            let connections = proxy.connections();
            proxy.keep_answers(true);
            let short = Deadline::new(Duration::from_millis(50), Duration::ZERO);
            let _ = assert_unavailable(store.load(&key("one"), &short).await);
            proxy.keep_answers(false);
            assert_eq!(load(&store, &key("two")).await.unwrap().payload, "two", "{kind:?}");
            assert!(proxy.connections() > connections, "{kind:?}: a new connection was made");
        }
    }
}

/// A request whose visitor went away runs to its end, and its connection is as good as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_costs_no_connection_and_mixes_no_answers() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, _) = fresh(kind);
        let (proxy, through) = Proxy::before(&address).await;
        let store = open(&format!("{through}&pool=1")).await;
        for name in ["one", "two"] {
            create(&store, &key(name), name).await;
        }
        let connections = proxy.connections();
        for n in 0..20_u32 {
            proxy.keep_answers(true);
            let dropped = store.clone();
            let call = tokio::spawn(async move {
                if n % 2 == 0 {
                    load(&dropped, &key("one")).await.map(drop)
                } else {
                    commit(&dropped, &key("one"), Expect::Any, write(n.to_string())).await.ok().map(drop)
                }
            });
            sleep(Duration::from_millis(5)).await;
            call.abort();
            proxy.keep_answers(false);
            assert_eq!(load(&store, &key("two")).await.unwrap().payload, "two", "{kind:?}");
        }
        assert_eq!(load(&store, &key("one")).await.unwrap().payload, "19", "{kind:?}: it ran to its end");
        assert_eq!(proxy.connections(), connections, "{kind:?}");
    }
}

/// All connections are at work for others: that is said at once, and is not "absent".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_is_unavailable_in_time() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, _) = fresh(kind);
        let (proxy, through) = Proxy::before(&address).await;
        let store = open(&format!("{through}&pool=2")).await;
        create(&store, &key("kept"), "data").await;
        proxy.keep_answers(true);
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { load(&store, &key("kept")).await.unwrap().payload })
            })
            .collect();
        sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        let error = assert_unavailable(store.load(&key("kept"), &usual()).await);
        assert!(error.to_string().contains("exhausted"), "{error}");
        let error = assert_unavailable(store.commit(&key("kept"), Expect::Any, write("x"), &usual()).await);
        assert!(!error.may_have_been_applied(), "it was never sent");
        assert!(begun.elapsed() < Duration::from_secs(2));
        proxy.keep_answers(false);
        for busy in busy {
            assert_eq!(busy.await.unwrap(), "data");
        }
        assert_eq!(load(&store, &key("kept")).await.unwrap().payload, "data");
    }
}

/// Open sessions hold connections in Symfony's modes; those of everybody else are not among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_sessions_leave_connections_for_the_others() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let fresh = Fresh::new(kind, "layout=symfony&migrate=yes&lock=transactional&pool=2&lock_pool=3").await;
        let mut leases = Vec::new();
        for n in 0..3 {
            let key = fresh.key(&format!("open-{n}"));
            create(&fresh.store, &key, "data").await;
            leases.push(hold(&fresh.store, &key).await.lease);
        }
        let error = assert_unavailable(fresh.store.lock(&fresh.key("one-more"), Claim::New, &usual()).await);
        assert!(error.to_string().contains("exhausted"), "{error}");
        assert_eq!(load(&fresh.store, &fresh.key("open-0")).await.unwrap().payload, "data");
        leases.pop().unwrap().release().await;
        let lease = fresh.store.lock(&fresh.key("one-more"), Claim::New, &usual()).await.unwrap().unwrap().lease;
        lease.release().await;
    }
}

/// The server says that two were in each other's way and that one has to try again: nothing was done, so it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_tried_again_within_the_limit() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let fresh = Fresh::new(kind, "").await;
        let key = fresh.key("deadlock");
        create(&fresh.store, &key, "0").await;
        // The first two of every so many changes are told that they were in a deadlock.
        fresh
            .beside
            .run(match kind {
                Kind::Postgres => "CREATE SEQUENCE tries; CREATE FUNCTION deadlock() RETURNS trigger LANGUAGE plpgsql AS $$ \
                     BEGIN IF nextval('tries') % 3 <> 0 THEN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END IF; RETURN NEW; END $$; \
                     CREATE TRIGGER deadlock BEFORE UPDATE ON cloakroom_sessions FOR EACH ROW EXECUTE FUNCTION deadlock()"
                    .to_owned(),
                Kind::MariaDb => "CREATE SEQUENCE tries; CREATE TRIGGER deadlock BEFORE UPDATE ON cloakroom_sessions \
                     FOR EACH ROW IF NEXTVAL(tries) % 3 <> 0 THEN \
                     SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213; END IF"
                    .to_owned(),
            })
            .await;
        for n in 1..=4 {
            let seen = load(&fresh.store, &key).await.unwrap();
            let outcome = commit(&fresh.store, &key, Expect::Is(&seen.version), write(n.to_string())).await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)), "{kind:?}: {outcome:?}");
            let lease = hold(&fresh.store, &key).await.lease;
            let outcome = commit(&fresh.store, &key, Expect::Held(lease), write(n.to_string())).await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)), "{kind:?}: {outcome:?}");
            let touched = commit(&fresh.store, &key, Expect::Any, Put::Touch(Duration::from_secs(100))).await.unwrap();
            assert!(matches!(touched, Outcome::Done(_)), "{kind:?}: {touched:?}");
            assert_eq!(load(&fresh.store, &key).await.unwrap().payload, n.to_string());
        }
        fresh
            .beside
            .run(match kind {
                Kind::Postgres => "ALTER SEQUENCE tries INCREMENT 3 RESTART 1".to_owned(),
                Kind::MariaDb => "ALTER SEQUENCE tries INCREMENT 3 RESTART 1 NOCACHE".to_owned(),
            })
            .await;
        let impatient = Deadline::new(Duration::from_secs(10), Duration::from_millis(200));
        let error = fresh.store.commit(&key, Expect::Any, write("never"), &impatient).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{kind:?}: {error:?}");
        assert!(!error.may_have_been_applied());
        assert_eq!(load(&fresh.store, &key).await.unwrap().payload, "4");
    }
}

/// A process that ends with sessions open: its leases run out by the database's clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_a_dead_process_runs_out() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let fresh = Fresh::new(kind, "").await;
        let key = fresh.key("orphan");
        create(&fresh.store, &key, "data").await;
        let (url, name) = (fresh.url.clone(), key.clone());
        let lease = Duration::from_secs(2);
        let taken = tokio::task::spawn_blocking(move || {
            let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let taken = process.block_on(async {
                let store = SqlStore::open(SqlConfig::from_url(&url).unwrap().lease(lease)).await.unwrap();
                let taken = Instant::now();
                let held = hold(&store, &name).await;
                // It lives, and renews it.
                sleep(lease * 2).await;
                std::mem::forget(held);
                taken
            });
            process.shutdown_background();
            taken
        });
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        let locked = hold(&fresh.store, &key).await;
        assert_eq!(locked.record.unwrap().payload, "data");
        let held_for = taken.await.unwrap().elapsed();
        assert!(held_for >= lease * 2, "{kind:?}: it was renewed, {held_for:?}");
        assert!(begun.elapsed() < lease * 2 + lease + Duration::from_secs(4), "{kind:?}: {:?}", begun.elapsed());
        locked.lease.release().await;
    }
}

/// The connection of an open session is ended by an administrator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_loses_the_lock_and_no_data() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        for lock in ["advisory", "transactional"] {
            if skipped(kind) {
                continue;
            }
            let fresh = Fresh::new(kind, &format!("layout=symfony&migrate=yes&lock={lock}")).await;
            let key = fresh.key("killed");
            create(&fresh.store, &key, "data").await;
            let lease = hold(&fresh.store, &key).await.lease;
            assert!(fresh.lose_lock(&key).await);
            let error = assert_unavailable(commit(&fresh.store, &key, Expect::Held(lease), write("lost")).await);
            assert_eq!(error.may_have_been_applied(), lock == "advisory", "{kind:?} {lock}: {error:?}");
            assert_eq!(load(&fresh.store, &key).await.unwrap().payload, "data");
            let outcome = commit(&fresh.store, &key, Expect::Any, write("next")).await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)));
        }
    }
}

/// What was set aside is bounded in number and age.
#[tokio::test]
async fn what_is_set_aside_is_forgotten_in_the_end() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let fresh = Fresh::new(kind, "max_aside=3&aside_lifetime=100").await;
        let key = fresh.key("corrupt");
        for n in 0..6 {
            create(&fresh.store, &key, format!("junk {n}")).await;
            commit(&fresh.store, &key, Expect::Any, Put::SetAside).await.unwrap();
        }
        assert_eq!(fresh.aside().await.unwrap(), ["junk 3", "junk 4", "junk 5"], "{kind:?}");
        fresh.beside.run("UPDATE cloakroom_aside SET aside_at = aside_at - 101000".to_owned()).await;
        create(&fresh.store, &key, "new junk").await;
        commit(&fresh.store, &key, Expect::Any, Put::SetAside).await.unwrap();
        assert_eq!(fresh.aside().await.unwrap(), ["new junk"], "{kind:?}");
    }
}
