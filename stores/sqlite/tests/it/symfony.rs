//! Beside Symfony's own `PdoSessionHandler`, run by PHP on the same file at the same time.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cloakroom_core::line::MOST_WAITING;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{ErrorKind, Store};
use cloakroom_store_sqlite::{LockMode, SqliteConfig, SqliteStore, Symfony};
use cloakroom_testkit::php::skip;

use crate::child::Talking;
use crate::util::{Room, count_of, increment, key, payload, wait};

/// A store on Symfony's layout, on a table that Symfony made, with PHP beside it.
struct Shared {
    room: Room,
    lock: &'static str,
}

impl Shared {
    async fn new(lock: &'static str, options: &str) -> Option<Shared> {
        if skip("php") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let made = php(&dir.path().join("sessions.db"), lock, &["create"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let room = Room::in_dir(dir, &format!("layout=symfony&lock={lock}&{options}")).await;
        Some(Shared { room, lock })
    }

    fn php(&self, arguments: &[&str]) -> Command {
        php(&self.room.path(), self.lock, arguments)
    }

    /// Runs PHP to its end; what it printed.
    async fn answer(&self, arguments: &[&str]) -> String {
        let mut php = self.php(arguments);
        let output = tokio::task::spawn_blocking(move || php.output().unwrap()).await.unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// PHP on a session that it holds by now.
    fn php_holds(&self, id: &str, micros: &str, then: &str) -> Talking {
        let mut php = Talking::new(self.php(&["hold", id, micros, then]));
        assert_eq!(php.line(), "held");
        php
    }

    fn row(&self, id: &str) -> (Vec<u8>, i64, i64) {
        let row = "SELECT sess_data, sess_lifetime, sess_time FROM sessions WHERE sess_id = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.room.beside().query_row(row, [id], read).unwrap()
    }
}

fn php(file: &Path, lock: &str, arguments: &[&str]) -> Command {
    let mut php = Command::new("php");
    php.args(["-n", "-d", "extension=pdo", "-d", "extension=pdo_sqlite", "-d", "extension=ctype"]);
    php.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/neighbour.php"));
    php.arg(file).arg(if lock == "none" { "0" } else { "2" }).args(arguments);
    php
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_from_both_sides_at_once_lose_none() {
    const EACH: usize = 60;
    let Some(shared) = Shared::new("transactional", "").await else { return };
    shared.room.create("counter", "0").await;
    let both = [false, true].map(|as_update| {
        let store = shared.room.store.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                increment(&store, &key("counter"), as_update).await;
            }
        })
    });
    let count = EACH.to_string();
    let arguments = ["count", "counter", &count, "500"];
    let (first, second) = tokio::join!(shared.answer(&arguments), shared.answer(&arguments));
    assert_eq!((first.as_str(), second.as_str()), ("", ""));
    for ours in both {
        ours.await.unwrap();
    }
    assert_eq!(count_of(&shared.room.load("counter").await.unwrap().unwrap().payload), EACH * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_side_writes_the_other_reads() {
    for lock in ["none", "transactional"] {
        let Some(shared) = Shared::new(lock, "").await else { return };
        shared.answer(&["write", "both", "user|s:3:\"ann\";"]).await;
        let found = shared.room.load("both").await.unwrap().unwrap();
        assert_eq!(found.payload, "user|s:3:\"ann\";");
        let ttl = found.ttl.unwrap();
        assert!(ttl > Duration::from_secs(1430) && ttl <= Duration::from_secs(1441), "{ttl:?}");
        let put = payload("user|s:3:\"bob\";");
        let outcome = shared.room.commit("both", Expect::Is(&found.version), put).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(shared.answer(&["read", "both"]).await, "user|s:3:\"bob\";", "{lock}");
        shared.answer(&["touch", "both"]).await;
        assert_eq!(shared.room.load("both").await.unwrap().unwrap().payload, "user|s:3:\"bob\";");
        assert!(matches!(shared.room.commit("both", Expect::Any, Put::Remove).await, Ok(Outcome::Removed(_))));
        assert_eq!(shared.answer(&["read", "both"]).await, "");
    }
}

/// Symfony's rows look the same whoever made them, with their types.
#[tokio::test]
async fn our_rows_are_as_symfony_makes_them() {
    let Some(shared) = Shared::new("transactional", "").await else { return };
    shared.room.create("ours", "x").await;
    shared.answer(&["write", "theirs", "x"]).await;
    let types = "SELECT typeof(sess_id), typeof(sess_data), typeof(sess_lifetime), typeof(sess_time) FROM sessions \
                 WHERE sess_id = ?1";
    let types = |id: &str| {
        let read = |row: &rusqlite::Row<'_>| Ok([0, 1, 2, 3].map(|column| row.get::<_, String>(column).unwrap()));
        shared.room.beside().query_row(types, [id], read).unwrap()
    };
    assert_eq!(types("ours"), ["text", "blob", "integer", "integer"]);
    assert_eq!(types("ours"), types("theirs"));
    for id in ["ours", "theirs"] {
        let (data, lifetime, time) = shared.row(id);
        assert_eq!((data.as_slice(), lifetime - time), (b"x".as_slice(), 1440), "{id}");
    }
    let (ours, theirs) = (shared.row("ours").2, shared.row("theirs").2);
    assert!((0..30).contains(&(theirs - ours)), "{ours} {theirs}");
    // Ours and Symfony's own `createTable` make the same columns.
    let made = Room::with("layout=symfony&migrate=yes").await;
    let columns = "SELECT group_concat(name || ' ' || type || ' ' || \"notnull\" || ' ' || pk) FROM pragma_table_info('sessions')";
    let of = |room: &Room| room.beside().query_row(columns, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(of(&made), of(&shared.room));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_wait_for_php_and_see_what_it_wrote() {
    let Some(shared) = Shared::new("transactional", "").await else { return };
    shared.room.create("held", "old").await;
    let seen = shared.room.load("held").await.unwrap().unwrap();
    let php = shared.php_holds("held", "400000", "new");
    // Readers wait for nobody, and PHP has not committed yet.
    let reading = Instant::now();
    assert_eq!(shared.room.load("held").await.unwrap().unwrap().payload, "old");
    assert!(reading.elapsed() < Duration::from_millis(300));
    let outcome = shared.room.commit("held", Expect::Is(&seen.version), payload("mine")).await.unwrap();
    assert!(matches!(&outcome, Outcome::Conflict(now) if now.payload == "new"), "{outcome:?}");
    drop(php);
    let php = shared.php_holds("held", "300000", "newer");
    let locked = shared.room.lock("held", Claim::Existing).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "newer");
    locked.lease.release().await;
    drop(php);
    // A logout there while we wait.
    let php = shared.php_holds("held", "300000", "-");
    assert!(shared.room.lock("held", Claim::Existing).await.unwrap().is_none());
    drop(php);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_php_ends_at_its_limit() {
    let Some(shared) = Shared::new("transactional", "").await else { return };
    shared.room.create("held", "old").await;
    let mut php = shared.php_holds("held", "1500000", "new");
    let begun = Instant::now();
    // Of another session, too: SQLite has one lock for all.
    for id in ["held", "other"] {
        let error = shared.room.store.lock(&key(id), Claim::Either, &wait(200)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.waited().unwrap() >= Duration::from_millis(190) && !error.may_have_been_applied());
    }
    // A touch does not wait at all.
    let touch = Put::Touch(Duration::from_secs(100));
    let error = shared.room.store.commit(&key("held"), Expect::Any, touch, &wait(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(begun.elapsed() < Duration::from_millis(1300), "{:?}", begun.elapsed());
    assert!(php.child.wait().unwrap().success());
    assert_eq!(shared.room.load("held").await.unwrap().unwrap().payload, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_waits_for_us() {
    let Some(shared) = Shared::new("transactional", "").await else { return };
    shared.room.create("held", "1").await;
    let locked = shared.room.lock("held", Claim::Existing).await.unwrap().unwrap();
    let php = shared.answer(&["count", "held", "1", "0"]);
    let ours = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = shared.room.commit("held", Expect::Held(locked.lease), payload("10")).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
    };
    tokio::join!(php, ours);
    assert_eq!(shared.room.load("held").await.unwrap().unwrap().payload, "11");
}

/// PHP looks every 100 ms whether the database is free. Requests of ours that lock one after the other leave no gap by
/// themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_gets_its_turn_beside_a_queue_of_ours() {
    let Some(shared) = Shared::new("transactional", "").await else { return };
    shared.room.create("held", "0").await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ours: Vec<_> = (0..6)
        .map(|_| {
            let (store, stop) = (shared.room.store.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let locked = store.lock(&key("ours"), Claim::Either, &wait(20_000)).await.unwrap().unwrap();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    locked.lease.release().await;
                }
            })
        })
        .collect();
    let begun = Instant::now();
    shared.answer(&["count", "held", "5", "0"]).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for one in ours {
        one.await.unwrap();
    }
    assert_eq!(shared.room.load("held").await.unwrap().unwrap().payload, "5");
}

/// Durations of older versions and points in time lie side by side after a migration.
#[tokio::test]
async fn both_kinds_of_expiry_are_read_and_swept_as_symfony_does() {
    let Some(shared) = Shared::new("transactional", "").await else { return };
    let now = "unixepoch()";
    let rows = [
        ("point-alive", format!("{now} + 100"), now.to_owned()),
        ("point-dead", format!("{now} - 100"), format!("{now} - 1540")),
        ("duration-alive", "1440".to_owned(), format!("{now} - 100")),
        ("duration-dead", "1440".to_owned(), format!("{now} - 1540")),
    ];
    let plant = || {
        for (id, lifetime, time) in &rows {
            let insert = format!("INSERT OR REPLACE INTO sessions VALUES ('{id}', x'78', {lifetime}, {time})");
            shared.room.beside().execute(&insert, []).unwrap();
        }
    };
    plant();
    for (id, ..) in &rows {
        let alive = id.ends_with("alive");
        assert_eq!(shared.room.load(id).await.unwrap().is_some(), alive, "{id}");
        assert_eq!(shared.answer(&["read", id]).await == "x", alive, "{id}");
    }
    let ids = || {
        let beside = shared.room.beside();
        let mut all = beside.prepare("SELECT sess_id FROM sessions ORDER BY sess_id").unwrap();
        all.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let mut removed = 0;
    loop {
        let swept = shared.room.store.sweep(1).await.unwrap();
        removed += swept.removed;
        if swept.done {
            break;
        }
    }
    assert_eq!((removed, ids()), (2, vec!["duration-alive".to_owned(), "point-alive".to_owned()]));
    plant();
    shared.answer(&["gc", "nobody"]).await;
    assert_eq!(ids(), ["duration-alive", "point-alive"], "Symfony's own");
    let listed = shared.room.store.as_list().unwrap().list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
}

/// Without locks nothing can be promised beside PHP; what we do under our own lock is compared before it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_locks_a_change_of_phps_is_noticed() {
    let Some(shared) = Shared::new("none", "").await else { return };
    shared.room.create("a", "1").await;
    let locked = shared.room.lock("a", Claim::Existing).await.unwrap().unwrap();
    shared.answer(&["write", "a", "2"]).await;
    let error = shared.room.commit("a", Expect::Held(locked.lease), payload("mine")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(shared.answer(&["read", "a"]).await, "2");
    let locked = shared.room.lock("new", Claim::New).await.unwrap().unwrap();
    shared.answer(&["write", "new", "theirs"]).await;
    let error = shared.room.commit("new", Expect::Held(locked.lease), payload("mine")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(shared.answer(&["read", "new"]).await, "theirs");
}

#[tokio::test]
async fn names_of_tables_and_columns_are_the_applications() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    let table = "CREATE TABLE \"order\" (id TEXT NOT NULL PRIMARY KEY, \"data\" BLOB NOT NULL, \"group\" INTEGER NOT NULL, \
                 at INTEGER NOT NULL)";
    rusqlite::Connection::open(&path).unwrap().execute_batch(table).unwrap();
    let mut symfony = Symfony::default();
    (symfony.lock, symfony.id_col, symfony.data_col) = (LockMode::Transactional, "id".into(), "data".into());
    (symfony.lifetime_col, symfony.time_col) = ("group".into(), "at".into());
    let store = SqliteStore::open(SqliteConfig::new(&path).layout(symfony).table("order")).await.unwrap();
    store.commit(&key("a"), Expect::Absent, payload("x"), &wait(1000)).await.unwrap();
    assert_eq!(store.load(&key("a"), &wait(1000)).await.unwrap().unwrap().payload, "x");
    assert_eq!(store.as_list().unwrap().list(None, 5).await.unwrap().len(), 1);
    assert!(store.sweep(10).await.unwrap().done);
    // What is no text can be no id there.
    let error = store.load(&cloakroom_core::Key::from_bytes(*b"\xff"), &wait(1000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
}

/// The line for the whole database has an end, as the lines for single sessions have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_for_the_database_has_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?layout=symfony&lock=transactional&migrate=yes", dir.path().join("s.db").display());
    let store = SqliteStore::open(SqliteConfig::from_url(&url).unwrap()).await.unwrap();
    let held = store.lock(&key("held"), Claim::New, &wait(1000)).await.unwrap().unwrap();
    let all: Vec<_> = (0..MOST_WAITING + 50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let commit = store.commit(&key(&format!("n{n}")), Expect::Absent, payload("x"), &wait(60_000)).await;
                commit.map(drop).map_err(|error| error.kind())
            })
        })
        .collect();
    let begun = Instant::now();
    while all.iter().filter(|one| one.is_finished()).count() < 50 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody is turned away");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    held.lease.release().await;
    let mut turned_away = 0;
    for one in all {
        turned_away += usize::from(one.await.unwrap() == Err(ErrorKind::Locked));
    }
    assert_eq!(turned_away, 50);
}
