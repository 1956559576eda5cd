//! Waiting for a busy session: in order, with a limit, and for the file that counts.

use std::fs;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use cloakroom_core::ErrorKind;
use cloakroom_core::line::MOST_WAITING;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, Store};

use crate::child;
use crate::util::{LIFE, Room, Talking, age, key, payload, php, version, wait};

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Another process that holds the session `a` until it is dropped.
fn holder(room: &Room) -> Talking {
    let mut child = Talking::new(child::command("hold", room.dir(), 0));
    while child.line() != "> held" {}
    child
}

/// On a machine without a processor to spare a reader's time may be over before its first look.
#[tokio::test]
async fn a_reader_without_a_processor_still_waits_for_nobody() {
    let room = Room::new();
    room.plant("a", "n|i:1;");
    age(&room.path("a"), LIFE / 2);
    let _holder = holder(&room);
    let busy = async {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(30));
            tokio::task::yield_now().await;
        }
    };
    let reading = tokio::time::timeout(Duration::from_secs(5), room.load("a"));
    let (read, ()) = tokio::join!(reading, busy);
    assert_eq!(read.unwrap().unwrap().unwrap().payload, "n|i:1;");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_come_first_served() {
    let room = Arc::new(Room::new());
    room.create("a", "x").await.unwrap();
    for kind in ["ours", "of another process"] {
        let ours = if kind == "ours" { room.lock("a", Claim::Existing).await.unwrap() } else { None };
        let theirs = (kind != "ours").then(|| holder(&room));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..20 {
            let (ours, order) = (Arc::clone(&room), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let lease = ours.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
                order.lock().unwrap().push(number);
                tokio::time::sleep(Duration::from_millis(1)).await;
                lease.release().await;
            }));
            until("the waiter stands in line", || room.store.waiting() == number + 1).await;
        }
        drop((ours, theirs));
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>(), "{kind}");
        assert_eq!(room.store.waiting(), 0);
    }
}

#[tokio::test]
async fn waiting_has_a_limit_and_takes_nothing_from_others() {
    let room = Arc::new(Room::new());
    room.create("a", "x").await.unwrap();
    room.create("b", "x").await.unwrap();
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    let begun = Instant::now();
    // More than there are threads, on one thread of tokio's.
    let deadline = Deadline::new(Duration::from_secs(5), Duration::from_millis(300));
    let all = (0..100).map(|_| {
        let (room, deadline) = (Arc::clone(&room), deadline.clone());
        tokio::spawn(async move { room.store.lock(&key("a"), Claim::Existing, &deadline).await })
    });
    let all: Vec<_> = all.collect();
    let waiting = async {
        for one in all {
            let error = one.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            assert!(error.waited().unwrap() >= Duration::from_millis(200), "{:?}", error.waited());
        }
    };
    let others = async {
        let mut times = Vec::new();
        while begun.elapsed() < Duration::from_millis(200) {
            let begun = Instant::now();
            room.commit("b", Expect::Any, payload(format!("{}", times.len()))).await.unwrap();
            times.push(begun.elapsed());
            tokio::task::yield_now().await;
        }
        times.sort();
        times
    };
    let ((), times) = tokio::join!(waiting, others);
    // The slowest few belong to the other tests that run meanwhile.
    let (count, most) = (times.len(), times[times.len() * 9 / 10]);
    assert!(count > 100 && most < Duration::from_millis(5), "{count} commits of another session, 90 % in {most:?}");
    assert!(begun.elapsed() < Duration::from_millis(1500));
    assert!(deadline.io_left() > Duration::from_secs(3), "waiting, 30 s in all, is not charged");
    assert_eq!(room.store.waiting(), 0);
    drop(lease);
    room.commit("a", Expect::Any, payload("y")).await.unwrap();
}

/// Each who waits has the file open: without a limit one cookie would use up the process's files.
#[tokio::test]
async fn a_line_has_a_limit() {
    let room = Arc::new(Room::new());
    room.create("a", "x").await.unwrap();
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    let all: Vec<_> = (0..MOST_WAITING + 50)
        .map(|_| {
            let room = Arc::clone(&room);
            tokio::spawn(async move {
                let locked = room.store.lock(&key("a"), Claim::Existing, &wait(20_000)).await;
                locked.map(drop).map_err(|error| error.kind())
            })
        })
        .collect();
    until("the line is full and the others have gone", || {
        room.store.waiting() == MOST_WAITING && all.iter().filter(|one| one.is_finished()).count() == 50
    })
    .await;
    drop(lease);
    let mut turned_away = 0;
    for one in all {
        turned_away += usize::from(one.await.unwrap() == Err(ErrorKind::Locked));
    }
    assert_eq!((turned_away, room.store.waiting()), (50, 0));
}

#[tokio::test]
async fn whoever_leaves_gives_the_place_to_the_next() {
    let room = Arc::new(Room::new());
    room.create("a", "x").await.unwrap();
    let holder = holder(&room);
    let spawn = |limit| {
        let room = Arc::clone(&room);
        tokio::spawn(async move { room.store.lock(&key("a"), Claim::Existing, &wait(limit)).await })
    };
    let first = spawn(20_000);
    until("one waits", || room.store.waiting() == 1).await;
    // The head has asked a thread by now.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let second = spawn(20_000);
    let third = spawn(20_000);
    until("three wait", || room.store.waiting() == 3).await;
    first.abort();
    second.abort();
    until("one waits", || room.store.waiting() == 1).await;
    drop(holder);
    let locked = tokio::time::timeout(Duration::from_secs(5), third).await.expect("handed on").unwrap();
    drop(locked.unwrap().unwrap());

    // Nobody is left: what arrives late is released.
    let holder = self::holder(&room);
    let only = spawn(20_000);
    until("one waits", || room.store.waiting() == 1).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    only.abort();
    until("none waits", || room.store.waiting() == 0).await;
    drop(holder);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let locked = room.store.lock(&key("a"), Claim::Existing, &wait(1000)).await.unwrap();
    assert!(locked.is_some());
}

/// Without a free thread the head tries again and again.
#[tokio::test]
async fn more_busy_sessions_than_threads() {
    let room = Room::with(|config| config.lock_threads(0));
    room.create("a", "x").await.unwrap();
    let holder = holder(&room);
    let lock = room.lock("a", Claim::Existing);
    let free = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(holder);
    };
    let (locked, ()) = tokio::join!(lock, free);
    assert!(locked.unwrap().is_some());
}

/// The logout race: PHP serves the session that was destroyed while it waited.
#[tokio::test]
async fn after_waiting_the_path_must_still_lead_to_the_file() {
    let room = Room::new();
    for claim in [Claim::Existing, Claim::Either] {
        for made_anew in [false, true] {
            let _ = fs::remove_file(room.path("a"));
            room.create("a", "logged in").await.unwrap();
            let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
            let destroy = async {
                until("one waits", || room.store.waiting() == 1).await;
                fs::remove_file(room.path("a")).unwrap();
                if made_anew {
                    room.plant("a", "another");
                }
                lease.release().await;
            };
            let (locked, ()) = tokio::join!(room.lock("a", claim), destroy);
            let record = locked.unwrap().map(|locked| locked.record);
            match (claim, made_anew) {
                (Claim::Existing, false) => assert!(record.is_none()),
                (_, true) => assert_eq!(record.unwrap().unwrap().payload, "another"),
                _ => assert!(record.unwrap().is_none(), "a new, empty one"),
            }
        }
    }
    // Moved away, which only looking at the path shows.
    let _ = fs::remove_file(room.path("a"));
    room.create("a", "x").await.unwrap();
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    let move_away = async {
        until("one waits", || room.store.waiting() == 1).await;
        fs::rename(room.path("a"), room.path("b")).unwrap();
        lease.release().await;
    };
    let (outcome, ()) = tokio::join!(room.commit("a", Expect::Any, payload("y")), move_away);
    assert!(matches!(outcome.unwrap(), Outcome::Gone));
    assert_eq!(room.bytes("b"), b"x");
}

#[tokio::test]
async fn a_removal_does_not_wait_for_ever_and_leaves_nothing_to_who_waits() {
    let room = Room::new();
    room.create("a", "x").await.unwrap();
    let holder = holder(&room);
    let is_x = version("x");
    let commit = async |expect, put| room.store.commit(&key("a"), expect, put, &wait(100)).await;
    for (expect, put) in [
        (Expect::Any, payload("y")),
        (Expect::Is(&is_x), Put::Remove),
        (Expect::Any, Put::SetAside),
        (Expect::Is(&is_x), Put::Touch(LIFE)),
    ] {
        assert_eq!(commit(expect, put).await.unwrap_err().kind(), ErrorKind::Locked);
    }
    assert!(matches!(commit(Expect::Any, Put::Touch(LIFE)).await.unwrap(), Outcome::Done(_)), "a touch needs no lock");
    let begun = Instant::now();
    let outcome = commit(Expect::Any, Put::Remove).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(record) if record.payload == "x"));
    assert!(begun.elapsed() >= Duration::from_millis(90));
    assert!(!room.is_there("a"));
    drop(holder);

    // A PHP worker that waits for the lock gets the unlinked file, but no data.
    room.plant("a", "n|i:7;");
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    let code = "fwrite(STDOUT, \"ready\\n\"); session_start(); fwrite(STDOUT, json_encode($_SESSION) . \"\\n\");";
    let mut waiter = Talking::new(php(room.dir(), "a", code));
    assert_eq!(waiter.line(), "ready");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let outcome = room.commit("a", Expect::Held(lease), Put::Remove).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(_)));
    assert_eq!(waiter.line(), "[]");
}

/// A removal between the opening of a file and its lock, which only the look after the lock shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_and_a_removal_at_once() {
    let room = Room::new();
    let handle = tokio::runtime::Handle::current();
    let mut first = 0;
    for _ in 0..3000 {
        room.create("a", "old").await.unwrap();
        // On threads of their own, since they wait for each other without letting others run.
        let start = Barrier::new(2);
        let [commit, remove] = std::thread::scope(|scope| {
            let both = [payload("new"), Put::Remove].map(|put| {
                scope.spawn(|| {
                    start.wait();
                    handle.block_on(room.commit("a", Expect::Any, put)).unwrap()
                })
            });
            both.map(|one| one.join().unwrap())
        });
        let Outcome::Removed(removed) = remove else { panic!("nothing was there to remove") };
        match commit {
            Outcome::Done(_) => assert_eq!(removed.payload, "new", "what was answered as done was there"),
            Outcome::Gone => assert_eq!(removed.payload, "old"),
            other => panic!("{other:?}"),
        }
        assert!(!room.is_there("a"));
        first += usize::from(removed.payload == "new");
    }
    println!("the commit came first in {first} of 3000 rounds");
}

/// On the pool, a call that nobody waits for any more runs to its end, and gives the lock back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_are_not_begun_or_complete() {
    let room = Arc::new(Room::with(|config| config.io(cloakroom_store_files::Io::Pool)));
    let payloads = [vec![b'a'; 200_000], vec![b'b'; 200_100]];
    room.create("a", &payloads[0]).await.unwrap();
    for round in 0..100 {
        let (ours, new) = (Arc::clone(&room), payloads[(round + 1) % 2].clone());
        let task = tokio::spawn(async move {
            let locked = ours.lock("a", Claim::Existing).await.unwrap().unwrap();
            ours.commit("a", Expect::Held(locked.lease), payload(new)).await.unwrap();
        });
        tokio::time::sleep(Duration::from_micros(round as u64 * 20)).await;
        task.abort();
        let _ = task.await;
        let record = room.load("a").await.unwrap().unwrap();
        assert!(payloads.iter().any(|payload| record.payload == payload), "{} bytes", record.payload.len());
        let begun = Instant::now();
        drop(room.lock("a", Claim::Existing).await.unwrap().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
