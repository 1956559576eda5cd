//! Failures made to happen: typed errors, nothing lost, and usable again within a second after the cause is gone.

use std::fs;
use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, ErrorKind, Result, Store};
use cloakroom_store_sqlite::SqliteStore;
use rusqlite::{Connection, TransactionBehavior};

use crate::util::{LIFE, Room, config, key, payload, wait};

/// What a request has: 250 ms for talking, 5 s for waiting.
fn request() -> Deadline {
    Deadline::new(Duration::from_millis(250), Duration::from_secs(5))
}

/// Somebody who has the database locked for writing: a backup, or a shell that was left open.
fn occupy(conn: &mut Connection) -> rusqlite::Transaction<'_> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap()
}

/// Succeeds within a second.
async fn soon<T>(call: impl AsyncFn() -> Result<T>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(1), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_somebody_keeps_locked_is_unavailable_in_time() {
    let room = Room::with("lease=2").await;
    room.create("a", "old").await;
    let seen = room.load("a").await.unwrap().unwrap().version;
    let mut beside = room.beside();
    let occupied = occupy(&mut beside);
    let begun = Instant::now();
    let calls: [Result<Outcome>; 3] = [
        room.store.commit(&key("a"), Expect::Is(&seen), payload("new"), &request()).await,
        room.store.commit(&key("b"), Expect::Absent, payload("new"), &request()).await,
        room.store.commit(&key("a"), Expect::Any, Put::Remove, &request()).await,
    ];
    for error in calls.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        // Not begun, and never will be.
        assert!(!error.may_have_been_applied(), "{error:?}");
    }
    let error = room.store.lock(&key("a"), Claim::Existing, &request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    // Who only reads does not notice.
    assert_eq!(room.store.load(&key("a"), &request()).await.unwrap().unwrap().payload, "old");
    drop(occupied);
    assert_eq!(room.load("a").await.unwrap().unwrap().payload, "old");
    assert!(room.load("b").await.unwrap().is_none(), "what was given up is not done later");
    let outcome =
        soon(async || room.store.commit(&key("a"), Expect::Is(&seen), payload("new"), &request()).await).await;
    assert!(matches!(outcome, Outcome::Done(_)));
}

/// The commit of a holder that finds the database locked gives the lock back all the same, as soon as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_cannot_write_leaves_no_lock_behind() {
    let room = Room::with("lease=30").await;
    room.create("a", "old").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let mut beside = room.beside();
    let occupied = occupy(&mut beside);
    let error = room.store.commit(&key("a"), Expect::Held(locked.lease), payload("new"), &request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(occupied);
    let begun = Instant::now();
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "old");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// A lease outlives a time in which it cannot be renewed, if nobody else could take it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_an_outage_in_which_nobody_could_take_it() {
    let room = Room::with("lease=1").await;
    room.create("a", "1").await;
    let other = room.second().await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let mut beside = room.beside();
    let occupied = occupy(&mut beside);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(occupied);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = other.lock(&key("a"), Claim::Existing, &wait(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let outcome = room.commit("a", Expect::Held(locked.lease), payload("2")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_waits_for_who_makes_the_table_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    let mut beside = Connection::open(&path).unwrap();
    let occupied = occupy(&mut beside);
    let begun = Instant::now();
    // It is no error: the database may be free later.
    let store = SqliteStore::open(config(&path, "busy=300")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(290) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(store.load(&key("a"), &request()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    drop(occupied);
    soon(async || store.commit(&key("a"), Expect::Absent, payload("x"), &request()).await).await;
    assert_eq!(store.load(&key("a"), &wait(100)).await.unwrap().unwrap().payload, "x");
}

/// Deleted or replaced under a running service: noticed, not written into nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_deleted_is_made_anew() {
    let room = Room::new().await;
    room.create("a", "old").await;
    let seen = room.load("a").await.unwrap().unwrap().version;
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(room.dir().join(format!("sessions.db{end}"))).unwrap();
    }
    let outcome = room.commit("a", Expect::Held(lease), payload("held")).await.unwrap();
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    let outcome = room.commit("a", Expect::Is(&seen), payload("seen")).await.unwrap();
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    room.create("b", "new").await;
    // What is acknowledged now is in the file that others find.
    assert_eq!(room.second().await.load(&key("b"), &wait(100)).await.unwrap().unwrap().payload, "new");
    let begun = Instant::now();
    while room.load("a").await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(1), "readers notice as well");
    }
    assert_eq!(room.load("b").await.unwrap().unwrap().payload, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_went_away_is_unavailable_until_it_is_back() {
    let room = Room::new().await;
    room.create("a", "old").await;
    let (inside, away) = (room.dir().to_owned(), room.dir().with_extension("away"));
    fs::rename(&inside, &away).unwrap();
    let error = room.commit("a", Expect::Any, payload("new")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.may_have_been_applied());
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(room.load("a").await.unwrap_err().kind(), ErrorKind::Unavailable, "and not absent");
    fs::rename(&away, &inside).unwrap();
    let found = soon(async || room.store.load(&key("a"), &request()).await).await;
    assert_eq!(found.unwrap().payload, "old");
    soon(async || room.store.commit(&key("a"), Expect::Any, payload("new"), &request()).await).await;
}

/// Pages of the table are overwritten with something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_database_is_unavailable_and_usable_again_when_it_is_restored() {
    let room = Room::new().await;
    for n in 0..500 {
        room.create(&format!("a{n}"), "x".repeat(500)).await;
    }
    drop(room.store.clone());
    room.beside().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let good = room.dir().join("good.db");
    fs::copy(room.path(), &good).unwrap();
    let (path, damaged) = (room.path(), room.dir().join("damaged.db"));
    let mut bytes = fs::read(&good).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page.fill(0x5a);
    }
    fs::write(&damaged, bytes).unwrap();
    for end in ["-wal", "-shm"] {
        fs::remove_file(room.dir().join(format!("sessions.db{end}"))).unwrap();
    }
    // As whoever restores a backup does it.
    fs::rename(&damaged, &path).unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    for error in [
        room.load("a7").await.unwrap_err(),
        room.commit("a7", Expect::Any, payload("new")).await.unwrap_err(),
        room.lock("a7", Claim::Existing).await.unwrap_err(),
        room.store.sweep(10).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(format!("{error:?}").contains("damaged"), "{error:?}");
        assert!(!error.may_have_been_applied());
    }
    fs::rename(&good, &path).unwrap();
    let found = soon(async || room.store.load(&key("a7"), &request()).await).await;
    assert_eq!(found.unwrap().payload.len(), 500);
    soon(async || room.store.commit(&key("a7"), Expect::Any, payload("new"), &request()).await).await;
}

/// One job that cannot be done does no harm to those of the same group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_takes_no_others_with_it() {
    let room = Room::new().await;
    let trigger = "CREATE TRIGGER refuses BEFORE INSERT ON cloakroom_sessions WHEN CAST(new.payload AS TEXT) LIKE 'bad%' \
                   BEGIN SELECT raise(ROLLBACK, 'no'); END";
    room.beside().execute_batch(trigger).unwrap();
    let mut beside = room.beside();
    let occupied = occupy(&mut beside);
    // They all wait for the same moment, and are in one group then.
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let store = room.store.clone();
            tokio::spawn(async move {
                let text = if n % 10 == 3 { format!("bad{n}") } else { format!("good{n}") };
                store.commit(&key(&format!("{n}")), Expect::Absent, payload(text), &wait(20_000)).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(occupied);
    for (n, task) in tasks.into_iter().enumerate() {
        let outcome = task.await.unwrap();
        if n % 10 == 3 {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable, "{n}");
        } else {
            assert!(matches!(outcome, Ok(Outcome::Done(_))), "{n}: {outcome:?}");
        }
        assert_eq!(room.load(&n.to_string()).await.unwrap().is_some(), n % 10 != 3, "{n}");
    }
}

/// Nobody waits for what was dropped, and nothing of it is done later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_before_it_began_is_not_done() {
    let room = Room::new().await;
    room.create("a", "old").await;
    let mut beside = room.beside();
    let occupied = occupy(&mut beside);
    let dropped = room.commit("a", Expect::Any, payload("dropped"));
    assert!(tokio::time::timeout(Duration::from_millis(200), dropped).await.is_err());
    drop(occupied);
    room.create("b", "later").await;
    assert_eq!(room.load("a").await.unwrap().unwrap().payload, "old");
    assert!(room.load("a").await.unwrap().unwrap().ttl.unwrap() <= LIFE);
}
