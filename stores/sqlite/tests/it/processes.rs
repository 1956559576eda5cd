//! Several processes on the same database: none loses what another wrote, and one that is killed leaves nothing behind.

use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome};
use cloakroom_core::{ErrorKind, Store};
use cloakroom_store_sqlite::SqliteStore;

use crate::child::{Talking, number_of, numbered};
use crate::util::{LIFE, Room, config, count_of, increment, key, payload, wait};

const EACH: usize = 150;

async fn count_together(options: &str) {
    let room = Room::with(&format!("{options}&migrate=yes")).await;
    room.create("counter", "0").await;
    let mut others: Vec<_> = (0..2).map(|_| Talking::plays("count", &room.path(), options, EACH)).collect();
    for n in 0..EACH {
        increment(&room.store, &key("counter"), n % 2 == 1).await;
    }
    for other in &mut others {
        assert_eq!(other.line(), "done");
    }
    assert_eq!(count_of(&room.load("counter").await.unwrap().unwrap().payload), 3 * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_of_three_processes_lose_none() {
    count_together("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_of_three_processes_in_symfonys_layout_lose_none() {
    count_together("layout=symfony").await;
}

/// A new database, opened and written by eight processes in the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_first_writes_all_succeed() {
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let mut all: Vec<_> = (0..8)
            .map(|n| {
                let mut command = std::process::Command::new(std::env::current_exe().unwrap());
                command.args(["child::plays_its_part", "--exact", "--nocapture", "--test-threads=1"]);
                command.env("CLOAKROOM_PART", "first").env("CLOAKROOM_FILE", &path).env("CLOAKROOM_OPTIONS", "");
                command.env("CLOAKROOM_NUMBER", n.to_string()).stdin(std::process::Stdio::piped());
                Talking::new(command)
            })
            .collect();
        for one in &mut all {
            assert_eq!(one.line(), "ready");
        }
        for one in &mut all {
            drop(one.child.stdin.take());
        }
        for one in &mut all {
            assert_eq!(one.line(), "done");
        }
        let store = SqliteStore::open(config(&path, "")).await.unwrap();
        assert_eq!(store.as_list().unwrap().list(None, 100).await.unwrap().len(), 8);
    }
}

/// Many stores in one process, opened at once: the locks of SQLite are the process's, and closing a file loses them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_first_opens_within_one_process_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    let opened: Vec<_> = (0..16)
        .map(|n| {
            let config = config(&path, "");
            tokio::spawn(async move {
                let store = SqliteStore::open(config).await.unwrap();
                store.commit(&key(&n.to_string()), Expect::Absent, payload("x"), &wait(5000)).await.unwrap();
                store
            })
        })
        .collect();
    let mut stores = Vec::new();
    for one in opened {
        stores.push(one.await.unwrap());
    }
    for store in stores {
        assert_eq!(store.as_list().unwrap().list(None, 100).await.unwrap().len(), 16);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_a_killed_process_is_free_when_its_lease_ends() {
    let room = Room::with("lease=2").await;
    room.create("held", "1").await;
    let mut holder = Talking::plays("hold", &room.path(), "lease=2", 0);
    assert_eq!(holder.line(), "held");
    // While it lives, the lease is renewed: longer than it would last.
    let error = room.store.lock(&key("held"), Claim::Existing, &wait(3500)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.waited().unwrap() >= Duration::from_millis(3400));
    let reading = Instant::now();
    assert_eq!(room.load("held").await.unwrap().unwrap().payload, "1");
    assert!(reading.elapsed() < Duration::from_secs(1));
    holder.child.kill().unwrap();
    let killed = Instant::now();
    let put = payload("2");
    let outcome = room.store.commit(&key("held"), Expect::Any, put, &wait(20_000)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert!(room.lock("held", Claim::Existing).await.unwrap().is_some());
}

/// In Symfony's mode the lock is a transaction, and dies with its process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transaction_of_a_killed_process_is_over_at_once() {
    let room = Room::with("layout=symfony&migrate=yes").await;
    room.create("held", "1").await;
    let mut holder = Talking::plays("hold", &room.path(), "layout=symfony", 0);
    assert_eq!(holder.line(), "held");
    let error = room.store.lock(&key("other"), Claim::New, &wait(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    holder.child.kill().unwrap();
    assert!(room.lock("held", Claim::Existing).await.unwrap().is_some());
}

/// `kill -9` at any moment leaves the old session or the new one, never less than what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_midst_of_a_commit_tears_nothing() {
    let kills: usize = std::env::var("CLOAKROOM_SQLITE_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let mut written = 0;
    for round in 0..kills {
        let size = [300, 20_000, 300_000][round % 3];
        let options = if round % 4 == 3 { "layout=symfony&migrate=yes" } else { "lease=1" };
        let room = Room::with(options).await;
        for id in ["a", "b", "c"] {
            room.create(id, numbered(0, size)).await;
        }
        let mut writer = Talking::plays("write", &room.path(), options, size);
        assert_eq!(writer.line(), "0");
        std::thread::sleep(Duration::from_millis(20 + (round as u64 * 7) % 60));
        writer.child.kill().unwrap();
        writer.child.wait().unwrap();
        let mut answered = 0;
        while let Some(Ok(line)) = writer.next_line() {
            answered = line.strip_prefix("> ").and_then(|said| said.parse().ok()).unwrap_or(answered);
        }
        for id in ["a", "b", "c"] {
            let found = room.load(id).await.unwrap().unwrap().payload;
            let number = number_of(&found).expect("a torn session");
            assert!(number == answered || number == answered + 1, "{number}, {answered} were answered");
            let locked = room.lock(id, Claim::Existing).await.unwrap().unwrap();
            assert!(locked.record.unwrap().ttl.unwrap() <= LIFE);
        }
        let whole: String = room.beside().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        written += answered;
    }
    println!("{written} rounds of writing, {kills} kills");
    assert!(written > kills);
}

/// Sixty-four tasks and another process at full speed: nobody ever hears that the database is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stress_of_many_tasks_is_never_told_that_the_database_is_locked() {
    let room = Room::new().await;
    room.create("counter", "0").await;
    let mut other = Talking::plays("count", &room.path(), "", 300);
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let store = room.store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let id = key(&format!("{task}-{}", n % 3));
                    // The time that a request has for talking, as a service has it.
                    let deadline = || cloakroom_core::Deadline::new(Duration::from_secs(5), Duration::from_secs(5));
                    let locked = store.lock(&id, Claim::Either, &deadline()).await.unwrap().unwrap();
                    store.commit(&id, Expect::Held(locked.lease), payload("x"), &deadline()).await.unwrap();
                    store.commit(&id, Expect::Any, payload("y"), &deadline()).await.unwrap();
                    assert!(store.load(&id, &deadline()).await.unwrap().is_some());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(other.line(), "done");
    assert_eq!(count_of(&room.load("counter").await.unwrap().unwrap().payload), 300);
}
