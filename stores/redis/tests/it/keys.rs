//! What lies in the server: php-redis's keys, values and lives to the letter, the lock, what was set aside; and how often
//! the server is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{ErrorKind, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::servers::redis::RedisServer;
use redis::cmd;

use crate::util::{LIFE, Room, key, payload, server, wait};

#[tokio::test]
async fn a_session_is_one_string_that_lives_for_whole_seconds() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "n|i:1;").await;
    assert_eq!(room.value("a").await.unwrap(), b"n|i:1;");
    let life = async || room.raw::<i64>(cmd("PTTL").arg(room.record("a"))).await;
    assert!((1_439_000..=1_440_000).contains(&life().await));
    for (put, seconds) in [
        (Put::Touch(Duration::from_millis(99_001)), 100),
        (Put::Payload(Payload::new("n|i:2;".into(), Duration::from_millis(59_500))), 60),
        (Put::Touch(Duration::ZERO), 1440),
        (Put::Touch(Duration::from_secs(1 << 40)), i64::from(i32::MAX)),
    ] {
        assert!(matches!(room.commit("a", Expect::Any, put).await.unwrap(), Outcome::Done(_)));
        let left = life().await;
        assert!(left <= seconds * 1000 && left > seconds * 1000 - 900, "{left} ms of {seconds} s");
    }
    // A record that PHP or somebody else made to live for ever.
    let _: i64 = room.raw(cmd("PERSIST").arg(room.record("a"))).await;
    assert_eq!(room.load("a").await.unwrap().unwrap().ttl, None);
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let outcome = room.commit("a", Expect::Held(locked.lease), payload("n|i:3;")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    assert!(room.load("a").await.unwrap().unwrap().ttl.is_some());
}

#[tokio::test]
async fn a_lock_is_php_redis_own_with_a_token_and_a_life() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "&lock_expire=20").await;
    assert_eq!(room.lock_value("a").await, None);
    let locked = room.lock("a", Claim::Either).await.unwrap().unwrap();
    let value = room.lock_value("a").await.unwrap();
    let parts: Vec<&str> = value.split('|').collect();
    assert_eq!((parts[1], parts[2].len()), (std::process::id().to_string().as_str(), 32));
    let left: i64 = room.raw(cmd("PTTL").arg(room.lock_key("a"))).await;
    assert!((19_000..=20_000).contains(&left), "{left}");
    // It needs no record, and leaves none.
    assert_eq!(room.value("a").await, None);
    locked.lease.release().await;
    assert_eq!(room.lock_value("a").await, None);
    assert_eq!(room.value("a").await, None);
}

#[tokio::test]
async fn a_lock_is_renewed_for_as_long_as_it_is_held() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "&lock_expire=0.6").await;
    room.create("a", "1").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(room.lock_value("a").await.is_some());
    }
    drop(locked);
    // Dropped, it is given back, and not only left to end.
    let again = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let outcome = room.commit("a", Expect::Held(again.lease), payload("2")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(room.lock_value("a").await, None, "nothing renews a lock that was given back");
}

/// Somebody has destroyed the session without asking for the lock, as php-redis does between its release and its `DEL`.
#[tokio::test]
async fn what_was_destroyed_past_the_lock_stays_so() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "").await;
    for put in [payload("back"), Put::Touch(LIFE), Put::Remove] {
        room.create("a", "login").await;
        let locked = room.lock("a", Claim::Either).await.unwrap().unwrap();
        let _: i64 = room.raw(cmd("DEL").arg(room.record("a"))).await;
        let outcome = room.commit("a", Expect::Held(locked.lease), put).await.unwrap();
        assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
        assert_eq!((room.value("a").await, room.lock_value("a").await), (None, None));
    }
}

#[tokio::test]
async fn a_record_that_ends_under_its_holder_can_still_be_written_by_him() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "").await;
    let short = Put::Payload(Payload::new("old".into(), Duration::from_secs(1)));
    room.commit("a", Expect::Absent, short).await.unwrap();
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    while room.load("a").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = room.commit("a", Expect::Held(locked.lease), payload("new")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert_eq!(room.value("a").await.unwrap(), b"new");
}

#[tokio::test]
async fn who_has_lost_the_lock_learns_which_way() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "1").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let _: () = room.raw(cmd("SET").arg(room.lock_key("a")).arg("host|1")).await;
    let error = room.commit("a", Expect::Held(locked.lease), payload("mine")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(!error.may_have_been_applied());
    assert_eq!(room.lock_value("a").await.unwrap(), "host|1", "the thief's lock is left alone");
    assert_eq!(room.value("a").await.unwrap(), b"1");
}

#[tokio::test]
async fn what_is_set_aside_is_bounded_in_number_and_age() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "&max_aside=3&aside_lifetime=500").await;
    for n in 0..10 {
        room.create("a", format!("junk {n}")).await;
        let outcome = room.commit("a", Expect::Any, Put::SetAside).await.unwrap();
        assert!(matches!(outcome, Outcome::Removed(was) if was.payload == format!("junk {n}")));
    }
    let pattern = format!("cloakroom:aside:{}*", room.prefix);
    let keys: Vec<String> = room.raw(cmd("KEYS").arg(pattern)).await;
    assert_eq!(keys.len(), 4, "three copies and their counter: {keys:?}");
    let mut kept = Vec::new();
    for key in keys {
        let left: i64 = room.raw(cmd("TTL").arg(&key)).await;
        assert!((490..=500).contains(&left), "{left}");
        kept.push(room.raw::<String>(cmd("GET").arg(&key)).await);
    }
    kept.sort();
    assert_eq!(kept, ["10", "junk 7", "junk 8", "junk 9"]);
    let sessions: Vec<String> = room.raw(cmd("KEYS").arg(format!("{}*", room.prefix))).await;
    assert!(sessions.is_empty(), "{sessions:?}");
}

/// Rule 5: 1 to read, 2 to read and change, 2 to lock and write; each is one write to the server's socket and one
/// answer.
#[tokio::test]
async fn the_server_is_asked_as_seldom_as_can_be() {
    if server().is_none() {
        return;
    }
    // Nobody else may ask it.
    let server = RedisServer::start(&[]).unwrap();
    let room = Room::on(&server, "").await;
    room.create("a", "1").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    room.commit("a", Expect::Held(locked.lease), payload("2")).await.unwrap();
    let calls = async || {
        let text: String = room.raw(cmd("INFO").arg("commandstats")).await;
        let lines = text.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let counts =
            lines.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse::<i64>().unwrap()));
        counts.collect::<BTreeMap<_, _>>()
    };
    let cost = async |what: &str| {
        let before = calls().await;
        match what {
            "read" => drop(room.load("a").await.unwrap()),
            "update" => {
                let record = room.load("a").await.unwrap().unwrap();
                let outcome = room.commit("a", Expect::Is(&record.version), payload("3")).await.unwrap();
                assert!(matches!(outcome, Outcome::Done(_)));
            }
            "start" => {
                let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
                let outcome = room.commit("a", Expect::Held(locked.lease), payload("4")).await.unwrap();
                assert!(matches!(outcome, Outcome::Done(_)));
            }
            "touch" => drop(room.commit("a", Expect::Any, Put::Touch(LIFE)).await.unwrap()),
            _ => drop(room.commit("a", Expect::Any, Put::Remove).await.unwrap()),
        }
        // A background request would come late.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let after = calls().await;
        let own = ["evalsha", "eval", "script|load", "get", "pttl", "expire", "multi", "wait"];
        let spent = own.iter().map(|name| {
            let count = |calls: &BTreeMap<String, i64>| calls.get(*name).copied().unwrap_or_default();
            (*name, count(&after) - count(&before))
        });
        spent.filter(|(_, count)| *count != 0).collect::<Vec<_>>()
    };
    // The get and pttl of a read leave together. Those that a script calls are counted as well.
    assert_eq!(cost("read").await, [("get", 1), ("pttl", 1)]);
    assert_eq!(cost("update").await, [("evalsha", 1), ("get", 3), ("pttl", 1)]);
    assert_eq!(cost("start").await, [("evalsha", 2), ("get", 3), ("pttl", 1)]);
    assert_eq!(cost("touch").await, [("expire", 1)]);
    assert_eq!(cost("remove").await, [("evalsha", 1), ("get", 2), ("pttl", 1)]);
}

#[tokio::test]
async fn a_key_of_another_type_is_corrupt_and_left_alone() {
    let Some(server) = server() else { return };
    let room = Room::on(server, "").await;
    let _: i64 = room.raw(cmd("RPUSH").arg(room.record("a")).arg("x")).await;
    assert_eq!(room.load("a").await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(room.lock("a", Claim::Either).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(room.commit("a", Expect::Any, Put::Remove).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(room.raw::<i64>(cmd("LLEN").arg(room.record("a"))).await, 1);
    assert_eq!(room.lock_value("a").await, None);
}

#[tokio::test]
async fn a_database_and_a_socket_and_a_password() {
    let Some(shared) = server() else { return };
    let room = Room::on(shared, "&db=3").await;
    room.create("a", "three").await;
    assert_eq!(room.value("a").await, None, "this is database 0");
    assert_eq!(shared.cli(&["-n", "3", "get", &room.record("a")]).unwrap(), "three");

    let server = RedisServer::start(&["--requirepass", "se/cret", "--unixsocket", "redis.sock"]).unwrap();
    let socket = server.dir().join("redis.sock");
    let open = async |url: &str| RedisStore::open(RedisConfig::from_url(url).unwrap()).await;
    let store = open(&format!("redis+unix://:se%2Fcret@{}", socket.display())).await.unwrap();
    store.commit(&key("a"), Expect::Absent, payload("x"), &wait(0)).await.unwrap();
    let store = open(&format!("redis://default:se%2Fcret@{}", server.addr())).await.unwrap();
    assert!(store.load(&key("a"), &wait(0)).await.unwrap().is_some());
    for url in [format!("redis://{}", server.addr()), format!("redis://:wrong@{}", server.addr())] {
        let error = open(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
}
