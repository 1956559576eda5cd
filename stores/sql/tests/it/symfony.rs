//! Beside Symfony's own `PdoSessionHandler`, run by PHP on the same table at the same time.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, ErrorKind, Key, Store};
use cloakroom_store_sql::SqlStore;
use cloakroom_testkit::conformance::Harness as _;
use cloakroom_testkit::php::skip;

use crate::servers::{Kind, mariadb, postgres, skipped};
use crate::util::{Fresh, commit, create, hold, load, patient, write};

/// Symfony's number of a lock mode.
fn mode(lock: &str) -> &'static str {
    match lock {
        "none" => "0",
        "advisory" => "1",
        _ => "2",
    }
}

/// A store on Symfony's layout, on a table that Symfony made, with PHP beside it.
struct Shared {
    fresh: Fresh,
    lock: &'static str,
}

impl Shared {
    /// `None` where the server or PHP is left out.
    async fn new(kind: Kind, lock: &'static str, options: &str) -> Option<Shared> {
        let extension = if kind == Kind::Postgres { "php-pgsql" } else { "php-mysql" };
        if skipped(kind) || ["php", extension, "symfony"].iter().any(|name| skip(name)) {
            return None;
        }
        // Only a store that makes nothing opens on what Symfony made.
        let (address, database) = crate::servers::fresh(kind);
        let output = php(kind, &database, lock, &["create"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let fresh = Fresh::at(kind, &address, database, &format!("layout=symfony&lock={lock}&{options}")).await;
        Some(Shared { fresh, lock })
    }

    fn store(&self) -> &SqlStore {
        &self.fresh.store
    }

    fn php(&self, arguments: &[&str]) -> Command {
        php(self.fresh.kind, &self.fresh.database, self.lock, arguments)
    }

    /// Runs PHP to its end; what it printed.
    async fn answer(&self, arguments: &[&str]) -> String {
        let mut php = self.php(arguments);
        let output = tokio::task::spawn_blocking(move || php.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn key(&self, name: &str) -> (Key, String) {
        let key = self.fresh.key(name);
        let id = String::from_utf8(key.record().to_vec()).unwrap();
        (key, id)
    }
}

fn php(kind: Kind, database: &str, lock: &str, arguments: &[&str]) -> Command {
    let (dsn, user, extensions) = match kind {
        Kind::Postgres => (postgres().dsn(database), "postgres", ["pdo", "pdo_pgsql", "ctype"].as_slice()),
        Kind::MariaDb => (mariadb().dsn(database), "root", ["mysqlnd", "pdo", "pdo_mysql", "ctype"].as_slice()),
    };
    let mut php = Command::new("php");
    php.arg("-n");
    for extension in extensions {
        php.args(["-d", &format!("extension={extension}")]);
    }
    php.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/neighbour.php"));
    php.args([&dsn, user, mode(lock)]).args(arguments);
    php
}

/// Both servers, in the given lock modes.
fn everywhere(locks: &[&'static str]) -> Vec<(Kind, &'static str)> {
    let kinds = [Kind::Postgres, Kind::MariaDb];
    kinds.into_iter().flat_map(|kind| locks.iter().map(move |lock| (kind, *lock))).collect()
}

fn count_of(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Adds 1 as `update` does, or as `start` does.
async fn increment(store: &SqlStore, key: &Key, as_update: bool) {
    if !as_update {
        let locked = hold(store, key).await;
        let next = (count_of(&locked.record.unwrap().payload) + 1).to_string();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let outcome = commit(store, key, Expect::Held(locked.lease), write(next)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        return;
    }
    let mut record = load(store, key).await.unwrap();
    loop {
        let next = (count_of(&record.payload) + 1).to_string();
        match commit(store, key, Expect::Is(&record.version), write(next)).await.unwrap() {
            Outcome::Conflict(now) => record = now,
            outcome => {
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_from_both_sides_at_once_lose_none() {
    const EACH: u32 = 60;
    for (kind, lock) in everywhere(&["advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let (key, id) = shared.key("counter");
        create(shared.store(), &key, "0").await;
        let both = [false, true].map(|as_update| {
            let (store, key) = (shared.store().clone(), key.clone());
            tokio::spawn(async move {
                for _ in 0..EACH {
                    increment(&store, &key, as_update).await;
                }
            })
        });
        let count = EACH.to_string();
        let arguments = ["count", &id, &count, "1000"];
        let (first, second) = tokio::join!(shared.answer(&arguments), shared.answer(&arguments));
        assert_eq!((first.as_str(), second.as_str()), ("", ""));
        for ours in both {
            ours.await.unwrap();
        }
        let found = load(shared.store(), &key).await.unwrap();
        assert_eq!(count_of(&found.payload), EACH * 4, "{kind:?} {lock}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_side_writes_the_other_reads() {
    for (kind, lock) in everywhere(&["none", "advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let (key, id) = shared.key("both");
        shared.answer(&["write", &id, "user|s:3:\"ann\";"]).await;
        let found = load(shared.store(), &key).await.unwrap();
        assert_eq!(found.payload, "user|s:3:\"ann\";");
        let ttl = found.ttl.unwrap();
        assert!(ttl > Duration::from_secs(1430) && ttl <= Duration::from_secs(1441), "{ttl:?}");
        let outcome =
            commit(shared.store(), &key, Expect::Is(&found.version), write("user|s:3:\"bob\";")).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(shared.answer(&["read", &id]).await, "user|s:3:\"bob\";", "{kind:?} {lock}");
        assert!(matches!(commit(shared.store(), &key, Expect::Any, Put::Remove).await, Ok(Outcome::Removed(_))));
        assert_eq!(shared.answer(&["read", &id]).await, "");
    }
}

/// Symfony's row, and the row that keeps others out, look the same whoever made them.
#[tokio::test]
async fn our_rows_are_as_symfony_makes_them() {
    for (kind, lock) in everywhere(&["advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let ((ours, _), (theirs, id)) = (shared.key("ours"), shared.key("theirs"));
        create(shared.store(), &ours, "x").await;
        shared.answer(&["write", &id, "x"]).await;
        for key in [&ours, &theirs] {
            let (id, now) = (shared.fresh.id(key), shared.fresh.now());
            let number = |what: &str| {
                shared.fresh.beside.number(match kind {
                    Kind::Postgres => format!("SELECT ({what})::bigint FROM sessions WHERE sess_id = {id}"),
                    Kind::MariaDb => {
                        format!("SELECT CAST({what} AS SIGNED) FROM sessions WHERE sess_id = {id}")
                    }
                })
            };
            assert_eq!(number("sess_lifetime - sess_time").await, Some(1440), "{kind:?} {lock}");
            let age = number(&format!("{now} - sess_time")).await.unwrap();
            assert!((0..30).contains(&age), "{age}");
        }
    }
}

/// Starts PHP on a session that it then holds, and waits until it does.
fn php_holds(shared: &Shared, id: &str, micros: &str, then: &str) -> std::process::Child {
    let mut child = shared.php(&["hold", id, micros, then]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_wait_for_php_and_see_what_it_wrote() {
    for (kind, lock) in everywhere(&["advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let (key, id) = shared.key("waiting");
        let version = create(shared.store(), &key, "old").await;
        let mut child = php_holds(&shared, &id, "400000", "new");
        assert_eq!(load(shared.store(), &key).await.unwrap().payload, "old", "reading waits for nobody");
        let at_once = Deadline::new(Duration::from_secs(5), Duration::ZERO);
        let error = shared.store().lock(&key, Claim::Existing, &at_once).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{kind:?} {lock}");
        let error = shared.store().commit(&key, Expect::Any, write("mine"), &at_once).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{kind:?} {lock}");
        let outcome = commit(shared.store(), &key, Expect::Is(&version), write("mine")).await.unwrap();
        assert!(matches!(&outcome, Outcome::Conflict(now) if now.payload == "new"), "{kind:?} {lock}: {outcome:?}");
        child.wait().unwrap();
        let mut child = php_holds(&shared, &id, "200000", "newer");
        let locked = hold(shared.store(), &key).await;
        assert_eq!(locked.record.unwrap().payload, "newer");
        locked.lease.release().await;
        child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_waits_for_us_and_sees_what_we_wrote() {
    for (kind, lock) in everywhere(&["advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let (key, id) = shared.key("counter");
        create(shared.store(), &key, "10").await;
        let locked = hold(shared.store(), &key).await;
        let mut counting = shared.php(&["count", &id, "1", "0"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(counting.try_wait().unwrap().is_none(), "{kind:?} {lock}: PHP has to wait");
        let outcome = commit(shared.store(), &key, Expect::Held(locked.lease), write("20")).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        assert!(tokio::task::spawn_blocking(move || counting.wait().unwrap()).await.unwrap().success());
        assert_eq!(load(shared.store(), &key).await.unwrap().payload, "21");
    }
}

/// A logout of PHP's while one of ours waits, and the reverse: nobody brings the session back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_is_final_for_who_waits() {
    for (kind, lock) in everywhere(&["advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let (key, id) = shared.key("logout");
        let version = create(shared.store(), &key, "login").await;
        let mut child = php_holds(&shared, &id, "300000", "-");
        let (store, waiting) = (shared.store().clone(), key.clone());
        let locker = tokio::spawn(async move { store.lock(&waiting, Claim::Existing, &patient()).await });
        let outcome = commit(shared.store(), &key, Expect::Is(&version), write("back")).await.unwrap();
        assert!(matches!(outcome, Outcome::Gone), "{kind:?} {lock}: {outcome:?}");
        assert!(locker.await.unwrap().unwrap().is_none());
        child.wait().unwrap();
        assert!(load(shared.store(), &key).await.is_none());

        create(shared.store(), &key, "5").await;
        let locked = hold(shared.store(), &key).await;
        let mut reading = shared.php(&["read", &id]).stdout(Stdio::piped()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(reading.try_wait().unwrap().is_none(), "{kind:?} {lock}: PHP has to wait");
        let outcome = commit(shared.store(), &key, Expect::Held(locked.lease), Put::Remove).await.unwrap();
        assert!(matches!(outcome, Outcome::Removed(_)));
        let output = tokio::task::spawn_blocking(move || reading.wait_with_output().unwrap()).await.unwrap();
        assert_eq!(output.stdout, b"", "{kind:?} {lock}: PHP sees no login");
    }
}

/// A new id, without strict mode on either side: whoever is second finds the work of the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_id_is_made_by_one_side_only() {
    for (kind, lock) in everywhere(&["advisory", "transactional"]) {
        let Some(shared) = Shared::new(kind, lock, "").await else { continue };
        let (key, id) = shared.key("fresh");
        let mut child = php_holds(&shared, &id, "300000", "theirs");
        let locked = shared.store().lock(&key, Claim::Either, &patient()).await.unwrap().unwrap();
        assert_eq!(locked.record.unwrap().payload, "theirs", "{kind:?} {lock}");
        locked.lease.release().await;
        child.wait().unwrap();

        let (key, id) = shared.key("another");
        let locked = shared.store().lock(&key, Claim::New, &patient()).await.unwrap().unwrap();
        let mut counting = shared.php(&["count", &id, "1", "0"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(counting.try_wait().unwrap().is_none(), "{kind:?} {lock}: PHP has to wait");
        commit(shared.store(), &key, Expect::Held(locked.lease), write("7")).await.unwrap();
        assert!(tokio::task::spawn_blocking(move || counting.wait().unwrap()).await.unwrap().success());
        assert_eq!(load(shared.store(), &key).await.unwrap().payload, "8");
    }
}

/// Rows of Symfony before 4.4, which a migration left among newer ones.
#[tokio::test]
async fn older_rows_are_read_right() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let Some(shared) = Shared::new(kind, "none", "").await else { continue };
        let now = shared.fresh.now();
        for (name, lifetime, time, alive) in [
            ("duration", "600", format!("{now} - 100"), true),
            ("duration-over", "600", format!("{now} - 700"), false),
            ("longest-duration", "315576000", format!("{now} - 100"), true),
            ("absolute", &format!("{now} + 500"), now.to_string(), true),
            ("absolute-over", &format!("{now} - 2"), format!("{now} - 600"), false),
            ("shortest-absolute", "315576001", now.to_string(), false),
        ] {
            let (key, id) = shared.key(name);
            let row = shared.fresh.id(&key);
            let insert = format!("INSERT INTO sessions VALUES ({row}, 'data', {lifetime}, {time})");
            shared.fresh.beside.run(insert).await;
            let found = load(shared.store(), &key).await;
            assert_eq!(found.is_some(), alive, "{kind:?} {name}");
            assert_eq!(shared.answer(&["read", &id]).await, if alive { "data" } else { "" }, "{kind:?} {name}");
            if let ("duration" | "absolute", Some(found)) = (name, found) {
                let ttl = found.ttl.unwrap().as_secs();
                assert!((490..=500).contains(&ttl), "{name}: {ttl}");
            }
        }
        let mut removed = 0;
        while let Ok(swept) = shared.store().sweep(2).await {
            removed += swept.removed;
            if swept.done {
                break;
            }
        }
        assert_eq!(removed, 3, "{kind:?}");
        let left = shared.fresh.beside.number("SELECT COUNT(*) FROM sessions".to_owned()).await;
        assert_eq!(left, Some(3));
    }
}

/// For a Symfony before 4.4, whose column holds durations alone.
#[tokio::test]
async fn durations_are_written_where_they_are_asked_for() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let Some(shared) = Shared::new(kind, "none", "expiry=duration").await else { continue };
        let (key, id) = shared.key("old");
        create(shared.store(), &key, "data").await;
        let cast = if kind == Kind::Postgres { "sess_lifetime::bigint" } else { "CAST(sess_lifetime AS SIGNED)" };
        assert_eq!(shared.fresh.beside.number(format!("SELECT {cast} FROM sessions")).await, Some(1440));
        assert_eq!(shared.answer(&["read", &id]).await, "data", "this Symfony still reads both");
        assert!(load(shared.store(), &key).await.unwrap().ttl.unwrap() > Duration::from_secs(1430));
        shared.fresh.beside.run("UPDATE sessions SET sess_time = sess_time - 1442".to_owned()).await;
        assert!(load(shared.store(), &key).await.is_none());
        assert_eq!(shared.store().sweep(10).await.unwrap().removed, 1);
    }
}

/// MySQL's BLOB ends at 64 KiB. What is larger is refused before anything is lost.
#[tokio::test]
async fn a_payload_beyond_the_column_is_refused_and_the_old_one_stays() {
    for lock in ["none", "advisory", "transactional"] {
        let Some(shared) = Shared::new(Kind::MariaDb, lock, "").await else { continue };
        let (key, id) = shared.key("large");
        create(shared.store(), &key, vec![b'x'; 65_535]).await;
        assert_eq!(shared.store().capabilities().max_payload, Some(65_535));
        for expect in [Expect::Any, Expect::Held(hold(shared.store(), &key).await.lease)] {
            let error = commit(shared.store(), &key, expect, write(vec![b'y'; 65_536])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
        }
        assert_eq!(load(shared.store(), &key).await.unwrap().payload, vec![b'x'; 65_535]);
        assert_eq!(shared.answer(&["read", &id]).await.len(), 65_535);
        // A column that was made larger is made use of.
        shared.fresh.beside.run("ALTER TABLE sessions MODIFY sess_data MEDIUMBLOB NOT NULL".to_owned()).await;
        let again = crate::util::open(&shared.fresh.url).await;
        commit(&again, &key, Expect::Any, write(vec![b'y'; 100_000])).await.unwrap();
        assert_eq!(load(&again, &key).await.unwrap().payload.len(), 100_000);
    }
}

/// Without locks PHP may overwrite us; but we never overwrite PHP, also not with what was read long before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_locks_nothing_of_phps_is_overwritten() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let Some(shared) = Shared::new(kind, "none", "").await else { continue };
        let (key, id) = shared.key("open");
        create(shared.store(), &key, "1").await;
        let lease = hold(shared.store(), &key).await.lease;
        shared.answer(&["write", &id, "theirs"]).await;
        let error = commit(shared.store(), &key, Expect::Held(lease), write("ours")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(load(shared.store(), &key).await.unwrap().payload, "theirs");
    }
}
