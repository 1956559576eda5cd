//! Sweeping: what has expired and nothing else, in bounded steps.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant, SystemTime};

use cloakroom_core::Store;
use cloakroom_core::store::{Claim, Expect, Outcome, Put};

use crate::util::{LIFE, Room, age, php};

const OLD: Duration = Duration::from_secs(1442);

async fn round(room: &Room, step: usize) -> (usize, usize) {
    let (mut removed, mut steps) = (0, 0);
    loop {
        let swept = room.store.sweep(step).await.unwrap();
        assert!(swept.removed <= step);
        removed += swept.removed;
        steps += 1;
        if swept.done {
            return (removed, steps);
        }
    }
}

#[tokio::test]
async fn in_bounded_steps() {
    let room = Room::new();
    for number in 0..300 {
        room.plant(&format!("s{number}"), "x");
        if number % 3 == 0 {
            age(&room.path(&format!("s{number}")), OLD);
        }
    }
    let (removed, steps) = round(&room, 7).await;
    assert_eq!(removed, 100);
    assert!(steps >= 300 / 7, "{steps}");
    assert_eq!(room.names().len(), 200);
    assert_eq!(round(&room, 1000).await, (0, 1));
}

/// `CLOAKROOM_FILES` says how many; what a step takes does not depend on it.
#[tokio::test]
async fn a_directory_of_many_files_is_swept_beside_requests() {
    const STEP: usize = 1000;
    let files: usize = std::env::var("CLOAKROOM_FILES").map_or(3000, |files| files.parse().unwrap());
    let room = Room::new();
    for number in 0..files {
        let id = format!("s{number}");
        room.plant(&id, "n|i:1;");
        if number % 2 == 0 {
            age(&room.path(&id), OLD);
        }
    }
    let (mut removed, mut steps, mut longest_step, mut longest_read) = (0, 0, Duration::ZERO, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let swept = room.store.sweep(STEP).await.unwrap();
        longest_step = longest_step.max(begun.elapsed());
        removed += swept.removed;
        steps += 1;
        assert!(swept.removed <= STEP);
        let begun = Instant::now();
        assert_eq!(room.load("s1").await.unwrap().unwrap().payload, "n|i:1;");
        longest_read = longest_read.max(begun.elapsed());
        if swept.done {
            break;
        }
    }
    println!(
        "{removed} of {files} files swept in {steps} steps, the longest {longest_step:?}; a read beside {longest_read:?}"
    );
    assert_eq!(removed, files.div_ceil(2));
    assert!(steps >= files / STEP);
    assert_eq!(fs::read_dir(room.dir()).unwrap().count(), files / 2);
}

#[tokio::test]
async fn leaves_alone_what_is_not_an_expired_session() {
    let room = Room::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("sess_target");
    for path in [&target, &room.dir().join("other"), &room.path("x.bak"), &room.path("locked"), &room.path("young")] {
        fs::write(path, "x").unwrap();
        age(path, OLD);
    }
    age(&room.path("young"), Duration::from_secs(1438));
    symlink(&target, room.path("link")).unwrap();
    symlink(outside.path(), room.path("linked")).unwrap();
    fs::create_dir(room.path("dir")).unwrap();
    let hard = outside.path().join("hard");
    fs::write(&hard, "keep").unwrap();
    age(&hard, OLD);
    fs::hard_link(&hard, room.path("hard")).unwrap();
    // Somebody holds it since it was young.
    let file = fs::File::open(room.path("locked")).unwrap();
    file.try_lock_shared().unwrap();
    let (removed, _) = round(&room, 3).await;
    assert_eq!(removed, 2, "the one with a suffix, as PHP does, and one name of the one with two");
    assert_eq!(room.names(), ["other", "sess_link", "sess_linked", "sess_locked", "sess_young"]);
    assert!(room.path("dir").exists());
    assert_eq!((fs::read(&target).unwrap(), fs::read(&hard).unwrap()), (b"x".to_vec(), b"keep".to_vec()));
    // Closing it alone is not enough: a process that another test has just forked may have it still.
    file.unlock().unwrap();
    assert_eq!(round(&room, 100).await.0, 1);
}

/// The same age that PHP goes by.
#[tokio::test]
async fn agrees_with_php_on_who_has_expired() {
    let (ours, theirs) = (Room::new(), Room::new());
    for room in [&ours, &theirs] {
        for seconds in [0, 1, 1000, 1430, 1450, 2000, 100_000] {
            room.plant(&format!("s{seconds}"), "n|i:1;");
            age(&room.path(&format!("s{seconds}")), Duration::from_secs(seconds));
        }
        room.plant("bad name!", "x");
        age(&room.path("bad name!"), OLD);
    }
    assert_eq!(round(&ours, 100).await.0, 4);
    let php = php(theirs.dir(), "s0", "session_start(); echo session_gc();").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&php.stdout), "4");
    assert_eq!(ours.names(), theirs.names());
}

#[tokio::test]
async fn through_the_levels_of_a_depth() {
    let room = Room::with(|config| config.depth(2));
    for id in ["ab1", "ab2", "ba1", "zz1"] {
        let dir = room.dir().join(&id[..1]).join(&id[1..2]);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("sess_{id}")), "x").unwrap();
        age(&dir.join(format!("sess_{id}")), OLD);
    }
    fs::write(room.dir().join("a/b/sess_ab3"), "young").unwrap();
    // Not where the layout has sessions.
    room.plant("flat", "x");
    age(&room.path("flat"), OLD);
    let elsewhere = Room::new();
    fs::create_dir_all(elsewhere.dir().join("c")).unwrap();
    let beyond = elsewhere.dir().join("c/sess_lc1");
    fs::write(&beyond, "x").unwrap();
    age(&beyond, OLD);
    symlink(elsewhere.dir(), room.dir().join("l")).unwrap();
    let (removed, _) = round(&room, 2).await;
    assert_eq!(removed, 4);
    assert!(room.path("flat").exists() && beyond.exists() && room.dir().join("a/b/sess_ab3").exists());
}

/// Sweepers at full speed beside sessions that are kept alive at the last moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_removes_what_was_touched_meanwhile() {
    let lifetime = Duration::from_millis(40);
    let room = std::sync::Arc::new(Room::with(|config| config.lifetime(lifetime)));
    let end = Instant::now() + Duration::from_secs(2);
    let mut sweepers = Vec::new();
    for _ in 0..2 {
        let room = std::sync::Arc::clone(&room);
        sweepers.push(tokio::spawn(async move {
            let mut removed = 0;
            while Instant::now() < end {
                removed += room.store.sweep(50).await.unwrap().removed;
            }
            removed
        }));
    }
    let mut touchers = Vec::new();
    for number in 0..20 {
        let room = std::sync::Arc::clone(&room);
        touchers.push(tokio::spawn(async move {
            use cloakroom_core::store::Payload;
            let id = format!("s{number}");
            let (mut lives, mut touches) = (0, 0);
            while Instant::now() < end {
                let put = Put::Payload(Payload::new("x".into(), lifetime));
                room.commit(&id, Expect::Absent, put).await.unwrap();
                lives += 1;
                loop {
                    let before = Instant::now();
                    match room.commit(&id, Expect::Any, Put::Touch(lifetime)).await.unwrap() {
                        Outcome::Done(_) => touches += 1,
                        Outcome::Gone => break,
                        other => panic!("{other:?}"),
                    }
                    // As long as it is touched in time it lives.
                    if before.elapsed() < lifetime / 4 {
                        let there = room.load(&id).await.unwrap().is_some();
                        assert!(there || before.elapsed() > lifetime / 2, "removed after it was touched");
                    }
                    if Instant::now() > end {
                        break;
                    }
                    let pause = if touches % 10 == 0 { lifetime * 2 } else { lifetime / 3 };
                    tokio::time::sleep(pause).await;
                }
            }
            (lives, touches)
        }));
    }
    let (mut lives, mut touches, mut removed) = (0, 0, 0);
    for toucher in touchers {
        let (some_lives, some_touches) = toucher.await.unwrap();
        lives += some_lives;
        touches += some_touches;
    }
    for sweeper in sweepers {
        removed += sweeper.await.unwrap();
    }
    println!("{lives} lives, {touches} touches, {removed} removed");
    assert!(removed > 20 && touches > 100);
}

/// Touched between the sweeper's first look and its lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_again_under_the_lock() {
    let room = std::sync::Arc::new(Room::new());
    let end = Instant::now() + Duration::from_secs(1);
    let path = room.path("a");
    let toucher = std::thread::spawn(move || {
        let (mut kept, mut lost) = (0, 0);
        while Instant::now() < end {
            let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            file.set_modified(SystemTime::now() - OLD).unwrap();
            let old = Instant::now();
            while old.elapsed() < Duration::from_micros((kept + lost) % 200) {
                std::hint::spin_loop();
            }
            file.lock_shared().unwrap();
            file.set_modified(SystemTime::now()).unwrap();
            let there = file.metadata().unwrap().nlink() == 1;
            drop(file);
            if there {
                std::thread::sleep(Duration::from_micros(20));
                assert!(path.exists(), "removed after it was touched");
                kept += 1;
            } else {
                lost += 1;
            }
        }
        (kept, lost)
    });
    while !toucher.is_finished() {
        room.store.sweep(10).await.unwrap();
    }
    let (kept, lost) = toucher.join().unwrap();
    println!("touched in time {kept} times, {lost} times too late");
    assert!(kept > 100 && lost > 10);
}

/// Whoever holds the lock at the end of a session's life may be a sweeper about to remove it.
#[tokio::test]
async fn a_touch_at_the_end_waits_for_a_sweeper() {
    let room = Room::new();
    for removes in [true, false] {
        room.plant("a", "x");
        age(&room.path("a"), Duration::from_secs(1439));
        let sweeper = fs::File::open(room.path("a")).unwrap();
        sweeper.lock().unwrap();
        let sweep = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            if removes {
                fs::remove_file(room.path("a")).unwrap();
            }
            drop(sweeper);
        };
        let (outcome, ()) = tokio::join!(room.commit("a", Expect::Any, Put::Touch(LIFE)), sweep);
        match outcome.unwrap() {
            Outcome::Gone => assert!(removes),
            Outcome::Done(_) => assert!(!removes),
            other => panic!("{other:?}"),
        }
    }
    // A PHP request that takes long is no sweeper.
    age(&room.path("a"), Duration::from_secs(1438));
    let request = fs::File::open(room.path("a")).unwrap();
    request.lock().unwrap();
    let outcome = room.commit("a", Expect::Any, Put::Touch(LIFE)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    drop(request);
    assert!(room.load("a").await.unwrap().unwrap().ttl.unwrap() > LIFE / 2);
}

#[tokio::test]
async fn cleans_up_its_own_leftovers() {
    let room = Room::new();
    let (old, new) = ("o".repeat(9_000), "n".repeat(9_500));
    let pending = crate::crash::interrupt(&room, "pending", &old, &new, 5_000);
    let gone = crate::crash::interrupt(&room, "gone", &old, &new, 5_000);
    let fresh = crate::crash::interrupt(&room, "fresh", &old, &new, 5_000);
    let ended = crate::crash::interrupt(&room, "ended", &old, &new, 5_000);
    fs::remove_file(room.path("gone")).unwrap();
    fs::remove_file(room.path("fresh")).unwrap();
    fs::remove_file(room.path("ended")).unwrap();
    room.plant("ended", "x");
    for redo in [&pending, &gone, &ended] {
        age(redo, Duration::from_secs(100));
    }
    let aside = room.dir().join(".cloakroom-0/aside-000000000001-000000000-0");
    fs::write(&aside, "too old").unwrap();
    room.create("bad", "x").await.unwrap();
    room.commit("bad", Expect::Any, Put::SetAside).await.unwrap();
    assert!(!aside.exists(), "also when another is set aside");
    fs::write(&aside, "too old").unwrap();
    round(&room, 100).await;
    assert!(!gone.exists() && !ended.exists() && !aside.exists());
    assert!(pending.exists() && fresh.exists());
    assert_eq!(room.load("pending").await.unwrap().unwrap().payload, new);
    assert_eq!(room.names().iter().filter(|name| name.contains("/aside-")).count(), 1);
    assert!(room.lock("pending", Claim::Existing).await.unwrap().is_some());
}
