//! Commits that wait for replicas, and reads that replicas answer.

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Deadline, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::php::skip;
use cloakroom_testkit::proxy::{Proxy, Way};
use cloakroom_testkit::servers::redis::{RedisCluster, RedisSentinels, RedisServer};
use redis::cmd;
use tokio::time::Instant;

use crate::faults::{is_unavailable, own};
use crate::util::{Room, key, payload, prefix, server, wait};

#[tokio::test]
async fn a_commit_can_wait_for_replicas() {
    let Some(master) = own(&["--repl-diskless-sync-delay", "0"]) else { return };
    let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", master.addr().port())]).unwrap();
    master.wait_for_replica().unwrap();
    let room = Room::on(&master, "&wait=1&wait_timeout=0.15").await;
    for n in 0..20_u8 {
        let id = format!("id{n}");
        room.create(&id, "1").await;
        assert_eq!(replica.cli(&["get", &room.record(&id)]).unwrap(), "1", "at once");
        let locked = room.lock(&id, Claim::Existing).await.unwrap().unwrap();
        room.commit(&id, Expect::Held(locked.lease), payload("2")).await.unwrap();
        assert_eq!(replica.cli(&["get", &room.record(&id)]).unwrap(), "2");
    }
    replica.pause().unwrap();
    let locked = room.lock("id0", Claim::Existing).await.unwrap().unwrap();
    let error = is_unavailable(room.commit("id0", Expect::Held(locked.lease), payload("3")).await, true);
    assert!(error.contains("0 of 1"), "{error:?}");
    assert_eq!((room.value("id0").await.unwrap(), room.lock_value("id0").await), (b"3".to_vec(), None));
    // Reading does not stand behind those who wait.
    let waiting = tokio::spawn({
        let store = room.store.clone();
        async move { store.commit(&key("id1"), Expect::Any, payload("3"), &wait(0)).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(room.load("id1").await.unwrap().is_some());
    assert!(!waiting.is_finished());
    is_unavailable(waiting.await.unwrap(), true);
    replica.resume().unwrap();
}

/// Each stands in its own connection's way only.
#[tokio::test]
async fn many_commits_wait_for_replicas_at_once() {
    let Some(master) = own(&["--repl-diskless-sync-delay", "0"]) else { return };
    let proxy = Proxy::before(master.addr()).unwrap();
    let _replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", proxy.addr().port())]).unwrap();
    master.wait_for_replica().unwrap();
    let room = Room::on(&master, "&wait=1&wait_timeout=10").await;
    room.create("id0", "1").await;
    proxy.delay(Way::Request, Duration::from_millis(10));
    proxy.delay(Way::Reply, Duration::from_millis(10));
    let begun = Instant::now();
    let commits: Vec<_> = (1..=100)
        .map(|n| {
            let store = room.store.clone();
            // One after the other would take two seconds.
            let deadline = Deadline::new(Duration::from_secs(1), Duration::ZERO);
            tokio::spawn(
                async move { store.commit(&key(&format!("id{n}")), Expect::Absent, payload("1"), &deadline).await },
            )
        })
        .collect();
    for commit in commits {
        let outcome = commit.await.unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    println!("100 commits with a replica 20 ms away: {:?}", begun.elapsed());
    let clients: String = room.raw(cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal")).await;
    // Those of the commits, that of all others, and the one that asks.
    assert!(clients.lines().count() <= 18, "{clients}");
    // What breaks them all is nobody's error twice.
    master.cli(&["client", "kill", "type", "normal"]).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    room.create("new", "1").await;
}

/// What was sent and is not waited for any more stands in nobody's way.
#[tokio::test]
async fn a_commit_that_is_cancelled_while_it_waits() {
    let Some(server) = own(&[]) else { return };
    // The server knows the script, and has no replica.
    Room::on(&server, "").await.create("other", "1").await;
    let room = Room::on(&server, "&wait=1&wait_timeout=5").await;
    for n in 0..40 {
        let (name, waits) = (key(&format!("id{n}")), wait(0));
        let commit = room.store.commit(&name, Expect::Absent, payload("1"), &waits);
        let left = tokio::time::timeout(Duration::from_millis(20), commit).await;
        assert!(left.is_err(), "{left:?}");
    }
    // Its answer would come after its own wait, so that what it has done tells whether it had a connection.
    let begun = Instant::now();
    let last = tokio::spawn({
        let store = room.store.clone();
        async move { store.commit(&key("last"), Expect::Absent, payload("1"), &wait(0)).await }
    });
    while room.value("last").await.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it waits for those that have left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    last.abort();
}

/// The change is made, and then its replicas are asked for in vain: nobody may take that for a refusal.
#[tokio::test]
async fn a_master_that_becomes_a_replica_while_a_commit_waits() {
    let Some(server) = own(&[]) else { return };
    // So that the server knows the script: that it does not, it would tell after the wait.
    Room::on(&server, "").await.create("other", "1").await;
    let room = Room::on(&server, "&wait=1&wait_timeout=10").await;
    for (sets, held) in [(2, false), (3, true)] {
        room.raw::<()>(cmd("SET").arg(room.record("a")).arg("0")).await;
        let (store, name) = (room.store.clone(), key("a"));
        let lease = if held { Some(room.lock("a", Claim::Existing).await.unwrap().unwrap().lease) } else { None };
        let commit = tokio::spawn(async move {
            let expect = lease.map_or(Expect::Any, Expect::Held);
            store.commit(&name, expect, payload("1"), &wait(0)).await
        });
        while room.value("a").await.unwrap() != b"1" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.cli(&["replicaof", "127.0.0.1", "1"]).unwrap();
        let error = is_unavailable(commit.await.unwrap(), true);
        assert!(error.contains("become a replica"), "{error}");
        server.cli(&["replicaof", "no", "one"]).unwrap();
        assert_eq!((room.value("a").await.unwrap(), room.lock_value("a").await), (b"1".to_vec(), None));
        let text: String = room.raw(cmd("INFO").arg("commandstats")).await;
        assert!(text.contains(&format!("cmdstat_setex:calls={sets},")), "one for each change: {text}");
    }
    // The place in line is free as well.
    room.lock("a", Claim::Existing).await.unwrap().unwrap().lease.release().await;
}

#[tokio::test]
async fn a_user_that_may_not_wait() {
    let Some(server) = own(&[]) else { return };
    server.cli(&["acl", "setuser", "app", "on", "nopass", "~*", "+@all", "-wait"]).unwrap();
    let url = format!("redis://app:any@{}?wait=1", server.addr());
    let store = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let error = is_unavailable(store.commit(&key("a"), Expect::Absent, payload("1"), &wait(0)).await, true);
    assert!(error.contains("NOPERM"), "{error}");
    let record = store.load(&key("a"), &wait(0)).await.unwrap().unwrap();
    assert_eq!(record.payload, "1");
    // What did not change anything needs no replicas.
    let outcome = store.commit(&key("a"), Expect::Absent, payload("2"), &wait(0)).await.unwrap();
    assert!(matches!(outcome, Outcome::Taken), "{outcome:?}");
    is_unavailable(store.commit(&key("a"), Expect::Any, Put::Remove, &wait(0)).await, true);
    assert!(store.load(&key("a"), &wait(0)).await.unwrap().is_none());
}

async fn open(url: &str) -> RedisStore {
    RedisStore::open(RedisConfig::from_url(url).unwrap()).await.unwrap()
}

/// From now on it answers with what it has, and hears nothing more.
fn cut_off(replica: &RedisServer) {
    // Its master does not know this password.
    replica.cli(&["config", "set", "masteruser", "nobody"]).unwrap();
    replica.cli(&["config", "set", "masterauth", "wrong"]).unwrap();
    replica.cli(&["client", "kill", "type", "master"]).unwrap();
}

/// How many keys it was asked for.
fn reads(server: &RedisServer) -> u32 {
    let info = server.cli(&["info", "commandstats"]).unwrap();
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_pttl:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn a_session_that_the_replica_has_not_got_yet() {
    if server().is_none() || skip("sentinel") {
        return;
    }
    let all = tokio::task::spawn_blocking(|| RedisSentinels::start().unwrap()).await.unwrap();
    let prefix = prefix();
    let url = format!("redis+sentinel://{}/{}?prefix={prefix}&replica=yes", all.hosts(), RedisSentinels::SERVICE);
    let store = open(&url).await;
    store.commit(&key("a"), Expect::Absent, payload("1"), &wait(0)).await.unwrap();
    let [master, replica] = all.servers();
    // As if it had not arrived there; cut off, the sentinels would not name it any more.
    replica.cli(&["config", "set", "replica-read-only", "no"]).unwrap();
    let record = format!("{prefix}a");
    while replica.cli(&["del", &record]).unwrap() != "1" {}
    let before = [master, replica].map(reads);
    let found = store.load(&key("a"), &wait(0)).await.unwrap();
    assert_eq!(found.expect("the master has it").payload, "1");
    assert!(store.load(&key("b"), &wait(0)).await.unwrap().is_none());
    let asked = [reads(master) - before[0], reads(replica) - before[1]];
    assert_eq!(asked, [2, 2], "the replica first, and then the master");
}

#[tokio::test]
async fn sessions_that_a_clusters_replicas_have_not_got_yet() {
    if server().is_none() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start().unwrap()).await.unwrap();
    let url = format!("redis+cluster://{}?prefix={}", cluster.hosts(), prefix());
    // The cluster's map names replicas that have something.
    let plain = open(&url).await;
    for n in 0..30 {
        plain.commit(&key(&format!("old{n}")), Expect::Absent, payload("1"), &wait(0)).await.unwrap();
    }
    let knows_all = |node: &RedisServer| {
        let map = node.cli(&["cluster", "slots"]).unwrap();
        cluster.nodes().iter().all(|other| map.contains(&other.addr().port().to_string()))
    };
    while !cluster.nodes().iter().all(knows_all) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = open(&format!("{url}&replica=yes")).await;
    let is_replica = |node: &&RedisServer| node.cli(&["info", "replication"]).unwrap().contains("role:slave");
    let replicas: Vec<_> = cluster.nodes().iter().filter(is_replica).collect();
    assert_eq!(replicas.len(), 3);
    for replica in &replicas {
        cut_off(replica);
    }
    for n in 0..20 {
        let name = key(&format!("id{n}"));
        store.commit(&name, Expect::Absent, payload("1"), &wait(0)).await.unwrap();
        let found = store.load(&name, &wait(0)).await.unwrap();
        assert_eq!(found.expect("the master has it").payload, "1", "{n}");
    }
    assert!(replicas.iter().any(|replica| reads(replica) > 0), "no replica was asked");
}
