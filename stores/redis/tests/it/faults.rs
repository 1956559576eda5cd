//! Servers that stop, hang, come back, are full, want another password or have become replicas: typed errors in time,
//! nothing applied twice, and back within a second.

use std::fmt::Debug;
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Lease, Outcome, Put};
use cloakroom_core::{Deadline, ErrorKind, Result, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::proxy::{Proxy, Way};
use cloakroom_testkit::servers::redis::{RedisServer, certificates};
use redis::cmd;
use tokio::time::Instant;

use crate::util::{LIFE, Room, key, payload, request, server, wait};

/// A request may talk for 250 ms; what comes on top is the machine's.
const IN_TIME: Duration = Duration::from_millis(1500);

/// A server that may be harmed.
pub(crate) fn own(options: &[&str]) -> Option<RedisServer> {
    server()?;
    Some(RedisServer::start(options).unwrap())
}

#[track_caller]
pub(crate) fn is_unavailable<T: Debug>(answer: Result<T>, maybe_applied: bool) -> String {
    let error = answer.expect_err("the server does not work");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.may_have_been_applied(), maybe_applied, "{error:?}");
    error.to_string()
}

/// Every call of the contract, on a server that does not answer or is not there.
async fn nothing_works(room: &Room, lease: Box<dyn Lease>) {
    let begun = Instant::now();
    is_unavailable(room.store.load(&key("a"), &request()).await, false);
    is_unavailable(room.store.lock(&key("b"), Claim::Either, &request()).await, false);
    is_unavailable(room.store.commit(&key("b"), Expect::Any, Put::Touch(LIFE), &request()).await, false);
    assert!(begun.elapsed() < 3 * IN_TIME);
    let commits = [payload("2"), Put::Remove, Put::SetAside].map(|put| (Expect::Any, put));
    for (expect, put) in commits.into_iter().chain([(Expect::Held(lease), payload("2"))]) {
        let begun = Instant::now();
        let id = if matches!(expect, Expect::Any) { "b" } else { "a" };
        let error = room.store.commit(&key(id), expect, put, &request()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(begun.elapsed() < IN_TIME);
        // The connection was given up with the first of these calls, so that nothing goes out any more.
        assert!(!error.may_have_been_applied(), "{error:?}");
    }
}

/// Tries until the store works again, and tells how long that took.
async fn back_after(room: &Room) -> Duration {
    let begun = Instant::now();
    while let Err(error) = room.store.load(&key("back"), &request()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(begun.elapsed() < Duration::from_secs(30), "it never came back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_server_that_is_stopped_and_comes_back() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "1").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    server.stop();
    // It is known that the connection is broken, and no other comes about: nothing was sent.
    tokio::time::sleep(Duration::from_millis(100)).await;
    nothing_works(&room, locked.lease).await;
    server.restart().unwrap();
    let took = back_after(&room).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    room.create("a", "1").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet() {
    let Some(server) = own(&[]) else { return };
    server.stop();
    let room = Room::on(&server, "").await;
    is_unavailable(room.store.load(&key("a"), &request()).await, false);
    is_unavailable(room.store.commit(&key("a"), Expect::Absent, payload("1"), &request()).await, false);
    server.restart().unwrap();
    let took = back_after(&room).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    room.create("a", "1").await;
}

/// What was never asked for has not to be given back: an outage makes no heap of tasks that try to.
#[tokio::test]
async fn locks_that_were_never_asked_for_leave_nothing_behind() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    server.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 0..300 {
        is_unavailable(room.store.lock(&key(&format!("id{n}")), Claim::Either, &request()).await, false);
    }
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(alive < 20, "{alive} tasks");
}

/// What nobody waits for any more still takes the lock, after it was given back in vain.
#[tokio::test]
async fn a_lock_that_comes_late_is_given_back() {
    let Some(server) = server() else { return };
    let proxy = Proxy::before(server.addr()).unwrap();
    let beside = Room::on(server, "").await;
    let url = format!("redis://{}?prefix={}", proxy.addr(), beside.prefix);
    let store = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    // The server knows the script.
    beside.lock("other", Claim::Either).await.unwrap().unwrap().lease.release().await;
    let mut seen = 0;
    for n in 0..8 {
        let (id, begun) = (format!("id{n}"), Instant::now());
        store.load(&key(&id), &wait(0)).await.unwrap();
        proxy.delay(Way::Request, Duration::from_millis(220));
        let limit = Deadline::new(Duration::from_millis(110), Duration::ZERO);
        is_unavailable(store.lock(&key(&id), Claim::Either, &limit).await, false);
        // The next connection is a quick one, and overtakes.
        proxy.delay(Way::Request, Duration::ZERO);
        let mut came = None;
        while begun.elapsed() < Duration::from_millis(700) {
            if beside.lock_value(&id).await.is_some() {
                came = came.or(Some(begun.elapsed()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let stayed = beside.lock_value(&id).await.is_some();
        // On a machine that is busy it may come later than anybody looks.
        seen += u32::from(came.is_some() && !stayed);
        if seen == 2 {
            return;
        }
    }
    panic!("the lock stays");
}

#[tokio::test]
async fn a_server_that_hangs_and_goes_on() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "1").await;
    room.create("b", "1").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    server.pause().unwrap();
    nothing_works(&room, locked.lease).await;
    server.resume().unwrap();
    let took = back_after(&room).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Nothing was done, and the lock is free.
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "1");
}

/// What may have been applied is applied once at the most: nobody sends it again.
#[tokio::test]
async fn nothing_is_applied_twice() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "0").await;
    for n in 1..=3_u8 {
        let seen = room.load("a").await.unwrap().unwrap().version;
        server.pause().unwrap();
        let put = payload(n.to_string());
        let lost = room.store.commit(&key("a"), Expect::Is(&seen), put, &request()).await;
        is_unavailable(lost, true);
        server.resume().unwrap();
        back_after(&room).await;
        // It was in the server's socket all the time.
        while room.value("a").await.unwrap() != n.to_string().as_bytes() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let text: String = room.raw(cmd("INFO").arg("commandstats")).await;
        let sets = text.lines().find_map(|line| line.strip_prefix("cmdstat_setex:calls=")?.split(',').next()).unwrap();
        assert_eq!(sets, (n + 1).to_string(), "one for each change");
    }
}

/// Answers that come late belong to who asked, though nobody waits for them any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn late_answers_are_nobody_elses() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    let ids: Vec<_> = (0..40).map(|n| format!("id{n}")).collect();
    for id in &ids {
        room.create(id, format!("{id}{}", "x".repeat(20_000))).await;
    }
    let mut tasks = Vec::new();
    for (task, id) in ids.into_iter().enumerate() {
        let store = room.store.clone();
        tasks.push(tokio::spawn(async move {
            let (mut answers, mut late) = (0, 0);
            for n in 0..100_u64 {
                // Far too little time, now and then; and some leave by themselves.
                let micros = if (n + task as u64).is_multiple_of(3) { 300 } else { 5_000_000 };
                let deadline = Deadline::new(Duration::from_micros(micros), Duration::ZERO);
                let name = key(&id);
                let load = store.load(&name, &deadline);
                let limit = if n % 7 == 0 { Duration::from_micros(200) } else { Duration::from_secs(10) };
                match tokio::time::timeout(limit, load).await {
                    Ok(Ok(record)) => {
                        assert!(record.unwrap().payload.starts_with(id.as_bytes()), "somebody else's answer");
                        answers += 1;
                    }
                    Ok(Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable);
                        late += 1;
                    }
                    Err(_) => late += 1,
                }
            }
            (answers, late)
        }));
    }
    let (mut answers, mut late) = (0, 0);
    for task in tasks {
        let (more, later) = task.await.unwrap();
        (answers, late) = (answers + more, late + later);
    }
    println!("{answers} answers, {late} that came late or were not waited for");
    assert!(answers > 1000 && late > 100);
}

/// An idle connection that the server closed costs nobody a request.
#[tokio::test]
async fn connections_that_were_closed_are_not_used() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "0").await;
    for n in 0..5_u8 {
        let seen = room.load("a").await.unwrap().unwrap().version;
        server.cli(&["client", "kill", "type", "normal"]).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let outcome = room.commit("a", Expect::Is(&seen), payload(n.to_string())).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_) | Outcome::Conflict(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgets_are_sent_again() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "n").await;
    for n in 0..20_u8 {
        server.cli(&["script", "flush"]).unwrap();
        let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
        if n % 2 == 0 {
            server.cli(&["script", "flush"]).unwrap();
        }
        let outcome = room.commit("a", Expect::Held(locked.lease), payload(n.to_string())).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        server.cli(&["script", "flush"]).unwrap();
        room.lock("a", Claim::Existing).await.unwrap().unwrap().lease.release().await;
        assert_eq!(room.lock_value("a").await, None, "round {n}");
    }
    assert_eq!(room.value("a").await.unwrap(), b"19");
}

#[tokio::test]
async fn a_full_server_loses_nothing_and_lets_people_log_out() {
    let Some(server) = own(&["--maxmemory-policy", "noeviction"]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "old").await;
    room.create("b", "old").await;
    let held = room.lock("b", Claim::Existing).await.unwrap().unwrap();
    server.cli(&["config", "set", "maxmemory", "1mb"]).unwrap();
    let seen = room.load("a").await.unwrap().unwrap().version;
    let full = |error: String| error.contains("full");
    assert!(full(is_unavailable(room.commit("new", Expect::Absent, payload("new")).await, false)));
    assert!(full(is_unavailable(room.commit("a", Expect::Is(&seen), payload("new")).await, false)));
    assert!(full(is_unavailable(room.lock("a", Claim::Existing).await, false)));
    assert!(full(is_unavailable(room.commit("b", Expect::Held(held.lease), payload("new")).await, false)));
    assert_eq!(room.value("a").await.unwrap(), b"old");
    assert!(matches!(room.commit("a", Expect::Any, Put::Touch(LIFE)).await, Ok(Outcome::Done(_))));
    // The lock of who could not write is free, though it cannot be taken now.
    assert!(matches!(room.commit("b", Expect::Any, Put::Remove).await, Ok(Outcome::Removed(_))));
    assert!(matches!(room.commit("a", Expect::Is(&seen), Put::Remove).await, Ok(Outcome::Removed(_))));
    server.cli(&["config", "set", "maxmemory", "0"]).unwrap();
    room.create("a", "new").await;
}

#[tokio::test]
async fn a_server_that_has_become_a_replica() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "1").await;
    server.cli(&["replicaof", "127.0.0.1", "1"]).unwrap();
    assert!(room.load("a").await.unwrap().is_some());
    let error = is_unavailable(room.commit("a", Expect::Any, payload("2")).await, false);
    assert!(error.contains("replica"), "{error:?}");
    is_unavailable(room.lock("a", Claim::Existing).await, false);
    is_unavailable(room.commit("a", Expect::Any, Put::Remove).await, false);
    server.cli(&["config", "set", "replica-serve-stale-data", "no"]).unwrap();
    is_unavailable(room.load("a").await, false);
    server.cli(&["replicaof", "no", "one"]).unwrap();
    assert!(matches!(room.commit("a", Expect::Any, payload("2")).await, Ok(Outcome::Done(_))));
}

#[tokio::test]
async fn a_password_that_is_changed() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "").await;
    room.create("a", "1").await;
    server.cli(&["config", "set", "requirepass", "hunter2"]).unwrap();
    server.cli(&["-a", "hunter2", "client", "kill", "type", "normal"]).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = is_unavailable(room.load("a").await, false);
    assert!(error.contains("password"), "{error:?}");
    is_unavailable(room.commit("a", Expect::Any, payload("2")).await, false);
    server.cli(&["-a", "hunter2", "config", "set", "requirepass", ""]).unwrap();
    let took = back_after(&room).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_user_that_may_not_write() {
    let Some(server) = own(&[]) else { return };
    server.cli(&["acl", "setuser", "reader", "on", "nopass", "~*", "+@read", "+hello", "+client"]).unwrap();
    let url = format!("redis://reader:any@{}", server.addr());
    let store = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    assert!(store.load(&key("a"), &wait(0)).await.unwrap().is_none());
    let error = is_unavailable(store.lock(&key("a"), Claim::Either, &wait(0)).await, false);
    assert!(error.contains("NOPERM"), "{error:?}");
}

#[tokio::test]
async fn a_user_with_the_commands_of_the_readme_can_do_everything() {
    let Some(server) = own(&[]) else { return };
    let readme = include_str!("../../README.md");
    let list = readme.split_once("An ACL user needs `").unwrap().1.split('`').next().unwrap();
    let rules = list.split_whitespace().chain(["on", "nopass", "~PHPREDIS_SESSION:*", "~cloakroom:*"]);
    server.cli(&["acl", "setuser", "app"].into_iter().chain(rules).collect::<Vec<_>>()).unwrap();
    let url = format!("redis://app:any@{}/1?wait=1&wait_timeout=0.001", server.addr());
    let mut config = RedisConfig::from_url(&url).unwrap();
    // There is no replica, of which the server tells where it is allowed to.
    let told = RedisStore::open(config.clone()).await.unwrap();
    let error = is_unavailable(told.commit(&key("a"), Expect::Absent, payload("1"), &wait(0)).await, true);
    assert!(error.contains("0 of 1"), "{error}");
    config.wait = 0;
    config.lock_expire = Duration::from_millis(300);
    let store = RedisStore::open(config).await.unwrap();
    let locked = store.lock(&key("a"), Claim::Existing, &wait(0)).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    store.commit(&key("a"), Expect::Held(locked.lease), payload("2"), &wait(0)).await.unwrap();
    store.lock(&key("a"), Claim::Either, &wait(0)).await.unwrap().unwrap().lease.release().await;
    for put in [Put::Touch(LIFE), Put::SetAside] {
        store.commit(&key("a"), Expect::Any, put, &wait(0)).await.unwrap();
    }
    store.commit(&key("a"), Expect::Absent, payload("3"), &wait(0)).await.unwrap();
    let outcome = store.commit(&key("a"), Expect::Any, Put::Remove, &wait(0)).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(_)));
}

/// A holder that was cut off for longer than its lock lives.
#[tokio::test]
async fn a_lock_that_ended_while_the_server_hung_is_lost() {
    let Some(server) = own(&[]) else { return };
    let room = Room::on(&server, "&lock_expire=0.5").await;
    room.create("a", "1").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    server.pause().unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.resume().unwrap();
    back_after(&room).await;
    // The place in line is given up as well, so that the next one in this process gets it.
    let next = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let error = room.commit("a", Expect::Held(locked.lease), payload("late")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let outcome = room.commit("a", Expect::Held(next.lease), payload("2")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    assert_eq!(room.value("a").await.unwrap(), b"2");
}

#[tokio::test]
async fn tls_with_an_authority_of_our_own() {
    if server().is_none() || cloakroom_testkit::php::skip("openssl") {
        return;
    }
    // The server runs as an ordinary user, who may not look into our own directories.
    let dir = tempfile::tempdir().unwrap();
    cloakroom_testkit::process::give_to_ordinary_user(dir.path()).unwrap();
    let [ca, cert, private] = certificates(dir.path()).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let tls = cloakroom_testkit::process::free_addr().unwrap().port();
    let (port, ca, cert, private) = (tls.to_string(), text(&ca), text(&cert), text(&private));
    let server = RedisServer::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &private,
        "--tls-ca-cert-file",
        &ca,
    ]);
    let _server = server.unwrap();
    let open = async |options: &str| {
        let url = format!("rediss://localhost:{tls}?{options}");
        RedisStore::open(RedisConfig::from_url(&url).unwrap()).await
    };
    let store = open(&format!("ca={ca}&cert={cert}&key={private}")).await.unwrap();
    store.commit(&key("a"), Expect::Absent, payload("1"), &wait(0)).await.unwrap();
    assert!(store.load(&key("a"), &wait(0)).await.unwrap().is_some());
    // Without our own certificate, and without knowing who vouches for theirs.
    for options in [format!("ca={ca}"), format!("cert={cert}&key={private}")] {
        let store = open(&options).await.unwrap();
        is_unavailable(store.load(&key("a"), &request()).await, false);
    }
    // A cluster of one node, whose map names the port for TLS.
    let tls = cloakroom_testkit::process::free_addr().unwrap().port();
    let port = tls.to_string();
    let node = RedisServer::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &private,
        "--tls-ca-cert-file",
        &ca,
        "--tls-cluster",
        "yes",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &cloakroom_testkit::process::free_addr().unwrap().port().to_string(),
    ]);
    let node = node.unwrap();
    node.cli(&["cluster", "addslotsrange", "0", "16383"]).unwrap();
    while !node.cli(&["cluster", "info"]).unwrap().contains("cluster_state:ok") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let certificates = format!("ca={ca}&cert={cert}&key={private}");
    let url = format!("rediss+cluster://localhost:{tls}?{certificates}");
    let store = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    store.commit(&key("a"), Expect::Absent, payload("1"), &wait(0)).await.unwrap();
    assert!(store.load(&key("a"), &wait(0)).await.unwrap().is_some());
    // Nobody is there, but the setup is right.
    let url = format!("rediss+sentinel://localhost:1/service?{certificates}");
    let store = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    is_unavailable(store.load(&key("a"), &request()).await, false);
    for options in ["ca=/no/such/file".to_owned(), format!("ca={ca}&cert={private}&key={cert}")] {
        assert_eq!(open(&options).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
