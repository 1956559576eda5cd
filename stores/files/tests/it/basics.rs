//! The contract of a store, case by case.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{ErrorKind, Key, Store};
use cloakroom_store_files::Io;

use crate::util::{LIFE, Room, age, key, payload, version};

#[tokio::test]
async fn writes_reads_and_removes() {
    let room = Room::new();
    assert!(room.load("a").await.unwrap().is_none());
    assert!(matches!(room.create("a", "one").await.unwrap(), Outcome::Done(Some(v)) if v == version("one")));
    assert_eq!(room.bytes("a"), b"one");
    assert_eq!(fs::metadata(room.path("a")).unwrap().permissions().mode() & 0o7777, 0o600);
    let record = room.load("a").await.unwrap().unwrap();
    assert_eq!((&record.payload[..], record.tentative), (&b"one"[..], false));
    let ttl = record.ttl.unwrap();
    assert!(ttl <= LIFE + Duration::from_millis(10) && ttl + Duration::from_secs(5) > LIFE, "{ttl:?}");

    assert!(matches!(room.create("a", "two").await.unwrap(), Outcome::Taken));
    let is_two = version("two");
    let outcome = room.commit("a", Expect::Is(&is_two), payload("three")).await.unwrap();
    assert!(matches!(outcome, Outcome::Conflict(record) if record.payload == "one"));
    let outcome = room.commit("a", Expect::Is(&record.version), payload("three")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(Some(v)) if v == version("three")));
    assert!(matches!(room.commit("a", Expect::Any, payload("x")).await.unwrap(), Outcome::Done(_)));
    assert_eq!(room.bytes("a"), b"x");

    let outcome = room.commit("a", Expect::Any, Put::Remove).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(record) if record.payload == "x"));
    assert!(matches!(room.commit("a", Expect::Any, Put::Remove).await.unwrap(), Outcome::Gone));
    assert!(matches!(room.commit("a", Expect::Any, payload("x")).await.unwrap(), Outcome::Gone));
    assert!(matches!(room.commit("a", Expect::Is(&is_two), payload("x")).await.unwrap(), Outcome::Gone));
    assert!(matches!(room.commit("a", Expect::Any, Put::Touch(LIFE)).await.unwrap(), Outcome::Gone));
    assert_eq!(room.names().iter().filter(|name| !name.starts_with(".cloakroom")).count(), 0);
}

#[tokio::test]
async fn claims() {
    let room = Room::new();
    assert!(room.lock("a", Claim::Existing).await.unwrap().is_none());
    assert!(!room.is_there("a"), "asking must not make it");
    let locked = room.lock("a", Claim::New).await.unwrap().unwrap();
    assert!(locked.record.is_none());
    assert_eq!(room.bytes("a"), b"");
    locked.lease.release().await;
    assert!(room.lock("a", Claim::New).await.unwrap().is_none());
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "", "0 bytes are present");
    let outcome = room.commit("a", Expect::Held(locked.lease), payload("held")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(Some(_))));
    let locked = room.lock("a", Claim::Either).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "held");
    drop(locked.lease);
    let locked = room.lock("b", Claim::Either).await.unwrap().unwrap();
    assert!(locked.record.is_none() && room.is_there("b"));
}

#[tokio::test]
async fn a_lease_is_of_one_record_and_lost_with_its_file() {
    let room = Room::new();
    let other = Room::new();
    for id in ["a", "b"] {
        room.create(id, "1").await.unwrap();
        other.create(id, "1").await.unwrap();
    }
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    let error = room.commit("b", Expect::Held(lease), payload("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    let error = other.commit("a", Expect::Held(lease), payload("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!((room.bytes("a"), room.bytes("b"), other.bytes("a")), (b"1".to_vec(), b"1".to_vec(), b"1".to_vec()));

    // PHP's sweeping removes files that somebody holds.
    let lease = room.lock("a", Claim::Existing).await.unwrap().unwrap().lease;
    fs::remove_file(room.path("a")).unwrap();
    assert!(matches!(room.commit("a", Expect::Held(lease), payload("x")).await.unwrap(), Outcome::Gone));
    assert!(!room.is_there("a"));
}

#[tokio::test]
async fn what_has_expired_is_absent_and_destroyed_under_the_lock() {
    let room = Room::new();
    let old = LIFE + Duration::from_secs(1);
    for id in ["a", "b", "c", "d", "e"] {
        room.plant(id, "old");
        age(&room.path(id), old);
        assert!(room.load(id).await.unwrap().is_none());
        assert!(room.is_there(id), "reading changes nothing");
    }
    assert!(matches!(room.commit("a", Expect::Any, Put::Touch(LIFE)).await.unwrap(), Outcome::Gone));
    assert!(room.load("a").await.unwrap().is_none(), "a touch must not bring it back");
    assert!(matches!(room.commit("a", Expect::Any, payload("x")).await.unwrap(), Outcome::Gone));
    assert!(!room.is_there("a"));
    assert!(room.lock("b", Claim::Existing).await.unwrap().is_none());
    assert!(!room.is_there("b"));
    for (id, claim) in [("c", Claim::Either), ("d", Claim::New)] {
        let locked = room.lock(id, claim).await.unwrap().unwrap();
        assert!(locked.record.is_none());
        assert_eq!(room.bytes(id), b"");
    }
    assert!(matches!(room.create("e", "new").await.unwrap(), Outcome::Done(_)));
    assert_eq!(room.bytes("e"), b"new");
    room.plant("f", "young");
    age(&room.path("f"), Duration::from_secs(1438));
    assert!(room.load("f").await.unwrap().is_some());
}

#[tokio::test]
async fn life_lies_in_the_time_of_the_file() {
    let room = Room::new();
    let short = Duration::from_secs(60);
    let put = Put::Payload(Payload::new("x".into(), short));
    room.commit("a", Expect::Absent, put).await.unwrap();
    let near = |ttl: Option<Duration>, expect: Duration| {
        let ttl = ttl.unwrap();
        assert!(ttl <= expect && ttl + Duration::from_secs(5) > expect, "{ttl:?} for {expect:?}");
    };
    near(room.load("a").await.unwrap().unwrap().ttl, short);
    let mtime = fs::metadata(room.path("a")).unwrap().modified().unwrap();
    let age = SystemTime::now().duration_since(mtime).unwrap();
    assert!(age + short >= LIFE && age + short < LIFE + Duration::from_secs(5), "PHP's sweeping goes by it: {age:?}");
    room.commit("a", Expect::Any, Put::Touch(2 * LIFE)).await.unwrap();
    near(room.load("a").await.unwrap().unwrap().ttl, 2 * LIFE);
    // Writing the same bytes is a touch as well.
    room.commit("a", Expect::Any, payload("x")).await.unwrap();
    near(room.load("a").await.unwrap().unwrap().ttl, LIFE + Duration::from_millis(10));
    room.commit("a", Expect::Any, Put::Touch(Duration::ZERO)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(room.load("a").await.unwrap().is_none());
}

#[tokio::test]
async fn ids_that_no_file_can_have() {
    let room = Room::new();
    let long = "a".repeat(251);
    for id in ["", "../x", "a/b", "a.b", "a_b", "a\0", "é", long.as_str()] {
        assert!(room.load(id).await.unwrap().is_none());
        assert!(room.lock(id, Claim::Existing).await.unwrap().is_none());
        assert_eq!(room.lock(id, Claim::Either).await.unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(room.create(id, "x").await.unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(matches!(room.commit(id, Expect::Any, Put::Remove).await.unwrap(), Outcome::Gone));
    }
    assert_eq!(room.names(), Vec::<String>::new());
    let longest = "a".repeat(250);
    room.create(&longest, vec![b'x'; 100_000]).await.unwrap();
    room.commit(&longest, Expect::Any, payload(vec![b'y'; 90_000])).await.unwrap();
    assert_eq!(room.bytes(&longest), vec![b'y'; 90_000]);
}

#[tokio::test]
async fn levels_of_directories() {
    let room = Room::with(|config| config.depth(2).mode(0o640));
    fs::create_dir_all(room.dir().join("a/b")).unwrap();
    room.create("abc", "deep").await.unwrap();
    let file = room.dir().join("a/b/sess_abc");
    assert_eq!(fs::read(&file).unwrap(), b"deep");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    assert_eq!(room.load("abc").await.unwrap().unwrap().payload, "deep");
    // Not made by PHP, and not by us.
    let error = room.create("xyz", "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!format!("{error:?}").contains("xyz"));
    assert!(room.load("xyz").await.unwrap().is_none());
    assert_eq!(room.create("ab", "x").await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_directory_that_has_vanished_is_an_error() {
    let room = Room::new();
    room.create("a", "x").await.unwrap();
    fs::remove_dir_all(room.dir()).unwrap();
    for error in [
        room.load("a").await.map(|_| ()).unwrap_err(),
        room.lock("a", Claim::Existing).await.map(|_| ()).unwrap_err(),
        room.create("a", "x").await.map(|_| ()).unwrap_err(),
        room.store.sweep(10).await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    // As with PHP, a directory made anew counts at once.
    fs::create_dir(room.dir()).unwrap();
    assert!(room.load("a").await.unwrap().is_none());
    room.create("a", "y").await.unwrap();
    assert_eq!(room.bytes("a"), b"y");
}

#[tokio::test]
async fn set_aside() {
    let room = Room::new();
    for number in 0..105 {
        room.create("a", format!("corrupt {number}")).await.unwrap();
        let outcome = room.commit("a", Expect::Any, Put::SetAside).await.unwrap();
        assert!(matches!(outcome, Outcome::Removed(_)));
    }
    assert!(!room.is_there("a"));
    let names = room.names();
    assert_eq!(names.len(), 100);
    assert!(names.iter().all(|name| !name.contains("/sess_")), "{names:?}");
    let newest = room.dir().join(names.last().unwrap());
    assert_eq!(fs::read(&newest).unwrap(), b"corrupt 104");
    assert_eq!(fs::metadata(&newest).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(newest.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
}

#[tokio::test]
async fn on_the_blocking_pool_and_for_large_records() {
    for io in [Io::Pool, Io::Inline, Io::Auto] {
        let room = Room::with(|config| config.io(io).durability(cloakroom_store_files::Durability::Data));
        let sizes = [0, 1, 4096, 4097, 70_000, 65_536, 1_000_000, 3, 200_000, 0];
        room.create("a", "").await.unwrap();
        for (letter, size) in (b'a'..).zip(sizes) {
            let bytes = vec![letter; size];
            let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
            room.commit("a", Expect::Held(locked.lease), payload(&bytes)).await.unwrap();
            assert!(room.bytes("a") == bytes);
            assert!(room.load("a").await.unwrap().unwrap().payload == bytes);
            assert!(room.lock("a", Claim::Existing).await.unwrap().unwrap().record.unwrap().payload == bytes);
        }
        assert_eq!(room.names(), ["sess_a"], "no redo is left");
    }
}

#[tokio::test]
async fn a_local_file_system_is_not_talked_to() {
    for io in [Io::Inline, Io::Pool] {
        let room = Room::with(|config| config.io(io));
        room.create("a", "x").await.unwrap();
        let spent = cloakroom_core::Deadline::new(Duration::ZERO, Duration::from_secs(1));
        assert!(room.store.load(&key("a"), &spent).await.unwrap().is_some(), "a busy machine is no store that is down");
    }
}

#[tokio::test]
async fn lists_in_order() {
    let room = Room::with(|config| config.depth(1));
    for level in ["a", "b", "c"] {
        fs::create_dir(room.dir().join(level)).unwrap();
    }
    for id in ["c1", "a2", "b1", "a1", "c2"] {
        room.create(id, id.repeat(3)).await.unwrap();
    }
    age(&room.dir().join("b/sess_b1"), 2 * LIFE);
    fs::write(room.dir().join("a/sess_a.bak"), "x").unwrap();
    let list = room.store.as_list().unwrap();
    let ids = |listed: Vec<cloakroom_core::store::Listed>| {
        listed.iter().map(|one| String::from_utf8(one.key.record().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let first = list.list(None, 2).await.unwrap();
    assert_eq!(first[0].size, 6);
    assert_eq!(ids(first), ["a1", "a2"]);
    let after: Key = key("a2");
    assert_eq!(ids(list.list(Some(&after), 10).await.unwrap()), ["c1", "c2"]);
    assert_eq!(ids(list.list(None, 0).await.unwrap()), Vec::<String>::new());
}
