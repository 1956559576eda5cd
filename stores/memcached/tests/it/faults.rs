//! Servers and networks that fail: what is not known is not guessed, nothing is lost or done twice, and all is well
//! again a moment after the server is.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, Error, ErrorKind, Result, Store};
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use cloakroom_testkit::servers::memcached::Memcached;
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::Proxy;
use crate::util::{LIFE, Room, config, deadline, key, limits, one, own, payload, prefix, until};

/// Rule 2's limit, and what a busy machine may add.
pub(crate) const IO: Duration = Duration::from_millis(250);
const SLACK: Duration = Duration::from_secs(2);

async fn load(store: &MemcachedStore, id: &str) -> Result<Option<Bytes>> {
    let record = store.load(&key(id), &limits(Duration::ZERO)).await?;
    Ok(record.map(|record| record.payload))
}

pub(crate) async fn write(store: &MemcachedStore, id: &str, text: &str) -> Result<Outcome> {
    store.commit(&key(id), Expect::Any, payload(text.to_owned()), &limits(Duration::from_secs(1))).await
}

pub(crate) async fn create(store: &MemcachedStore, id: &str, text: &str) {
    let made = store.commit(&key(id), Expect::Absent, payload(text.to_owned()), &deadline()).await;
    assert!(matches!(made, Ok(Outcome::Done(_))), "{made:?}");
}

/// Asks until it works; how long that took.
async fn recovery(store: &MemcachedStore) -> Duration {
    let begun = Instant::now();
    while load(store, "probe").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not again within 20 s");
        sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

pub(crate) async fn behind(server: &Memcached) -> (Proxy, MemcachedStore) {
    let proxy = Proxy::new(server.addr()).await;
    let config = MemcachedConfig::from_url(&format!("memcached://{}", proxy.addr)).unwrap();
    let config = config.prefix(&proxy.prefix).lock_expire(Duration::from_secs(3));
    (proxy, MemcachedStore::open(config).await.unwrap())
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_at_once_and_back_within_a_second() {
    let Some(server) = own(&[]) else { return };
    let servers = [server];
    let store = MemcachedStore::open(config(&servers, "")).await.unwrap();
    create(&store, "a", "1").await;
    let version = store.load(&key("a"), &deadline()).await.unwrap().unwrap().version;
    let held = store.lock(&key("a"), Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
    servers[0].stop();
    let begun = Instant::now();
    let limits = || limits(Duration::from_secs(1));
    let errors: [Error; 6] = [
        load(&store, "a").await.unwrap_err(),
        store.lock(&key("b"), Claim::Existing, &limits()).await.map(drop).unwrap_err(),
        store.lock(&key("c"), Claim::New, &limits()).await.map(drop).unwrap_err(),
        store.commit(&key("d"), Expect::Absent, payload("1"), &limits()).await.unwrap_err(),
        store.commit(&key("e"), Expect::Is(&version), Put::Remove, &limits()).await.unwrap_err(),
        store.commit(&key("a"), Expect::Held(held), payload("2"), &limits()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, false), "{error:?}");
    }
    assert!(begun.elapsed() < IO * 6 + SLACK, "{:?}", begun.elapsed());
    servers[0].restart(&[]).unwrap();
    let recovery = recovery(&store).await;
    assert!(recovery < Duration::from_secs(1), "{recovery:?}");
    // What the server knew is lost with it, and is told to be absent now.
    assert!(load(&store, "a").await.unwrap().is_none());
    let again = store.commit(&key("a"), Expect::Is(&version), payload("2"), &deadline()).await.unwrap();
    assert!(matches!(again, Outcome::Gone));
    create(&store, "a", "new").await;
}

/// Requests that could not even ask for a lock leave nobody behind who asks for them.
#[tokio::test]
async fn a_server_that_is_away_is_not_asked_again_by_who_has_given_up() {
    let Some(server) = own(&[]) else { return };
    let servers = [server];
    let store = MemcachedStore::open(config(&servers, "")).await.unwrap();
    servers[0].stop();
    // That the connection is dead is found by who reads; what was sent on it may have arrived.
    assert!(load(&store, "a").await.is_err());
    for n in 0..20 {
        let claim = if n % 2 == 0 { Claim::New } else { Claim::Either };
        assert!(store.lock(&key(&format!("a-{n}")), claim, &limits(Duration::ZERO)).await.is_err());
        assert!(write(&store, "a", "1").await.is_err());
    }
    let listener = tokio::net::TcpListener::bind(servers[0].addr()).await.unwrap();
    assert!(timeout(Duration::from_secs(1), listener.accept()).await.is_err());
}

/// The numbers for compare-and-swap begin anew with the server, so that one alone says nothing.
#[tokio::test]
async fn a_version_does_not_outlive_the_server() {
    let Some(server) = own(&[]) else { return };
    let servers = [server];
    let store = MemcachedStore::open(config(&servers, "")).await.unwrap();
    let mut versions = Vec::new();
    for n in 0..5 {
        create(&store, &format!("old-{n}"), "old").await;
        versions.push(store.load(&key(&format!("old-{n}")), &deadline()).await.unwrap().unwrap().version);
    }
    let held = store.lock(&key("old-1"), Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
    // The life of a server is known by the second it began in.
    sleep(Duration::from_millis(1100)).await;
    servers[0].restart(&[]).unwrap();
    recovery(&store).await;
    for n in 0..5 {
        create(&store, &format!("old-{n}"), "new").await;
    }
    for (n, version) in versions.iter().enumerate() {
        let id = key(&format!("old-{n}"));
        for put in [payload("late"), Put::Touch(LIFE), Put::Remove] {
            let outcome = store.commit(&id, Expect::Is(version), put, &deadline()).await.unwrap();
            assert!(matches!(outcome, Outcome::Conflict(now) if now.payload == "new"));
        }
    }
    let late = store.commit(&key("old-1"), Expect::Held(held), payload("late"), &deadline()).await;
    let error = late.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, false));
    assert_eq!(load(&store, "old-1").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn a_store_opens_without_its_server() {
    let Some(server) = own(&[]) else { return };
    server.stop();
    let servers = [server];
    let store = MemcachedStore::open(config(&servers, "")).await.unwrap();
    assert_eq!(load(&store, "a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    servers[0].restart(&["-I", "2m"]).unwrap();
    assert!(recovery(&store).await < Duration::from_secs(1));
    create(&store, "a", &"x".repeat(1_500_000)).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_in_time_and_keeps_no_lock() {
    let Some(server) = own(&[]) else { return };
    let servers = [server];
    // So long that no lock ends by itself in this test.
    let store = MemcachedStore::open(config(&servers, "").lock_expire(Duration::from_secs(600))).await.unwrap();
    for id in ["a", "b", "c", "d", "held"] {
        create(&store, id, "1").await;
    }
    let held = store.lock(&key("held"), Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
    // Connections for all that follows: on a new one nothing is sent before the server has said what it is.
    let warm = (deadline(), key("a"));
    let load_a = || store.load(&warm.1, &warm.0);
    let loaded = tokio::join!(load_a(), load_a(), load_a(), load_a(), load_a());
    assert!(loaded.0.is_ok() && loaded.4.is_ok());
    servers[0].pause().unwrap();
    let limits = || limits(Duration::from_secs(60));
    let touched = store.commit(&key("d"), Expect::Any, Put::Touch(LIFE), &limits()).await.unwrap_err();
    assert_eq!((touched.kind(), touched.may_have_been_applied()), (ErrorKind::Unavailable, true));
    let begun = Instant::now();
    let error = store.commit(&key("held"), Expect::Held(held), payload("2"), &limits()).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, true));
    assert!(begun.elapsed() < IO + SLACK);
    let begun = Instant::now();
    assert_eq!(load(&store, "a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < IO + SLACK);
    let begun = Instant::now();
    let error = store.lock(&key("b"), Claim::Existing, &limits()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < IO + SLACK);
    // Dropped in the midst of it.
    drop(timeout(IO / 5, store.lock(&key("c"), Claim::Existing, &limits())).await);
    servers[0].resume().unwrap();
    assert!(recovery(&store).await < Duration::from_secs(1));
    // What was asked for and not answered has arrived now: the locks are given back all the same.
    for id in ["b", "c", "held"] {
        let begun = Instant::now();
        let lease = store.lock(&key(id), Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
        assert!(begun.elapsed() < Duration::from_secs(5), "{id}: {:?}", begun.elapsed());
        lease.release().await;
    }
}

/// What a counter can be, by what was answered so far.
struct Known {
    least: u64,
    most: u64,
    unsure: u32,
}

impl Known {
    /// Takes the answer to an increment in; the error ends the round.
    fn incremented(&mut self, answer: Result<Outcome>) -> Result<()> {
        match answer {
            Ok(outcome) => {
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                (self.least, self.most) = (self.least + 1, self.most + 1);
                Ok(())
            }
            Err(error) => {
                self.most += u64::from(error.may_have_been_applied());
                self.unsure += u32::from(error.may_have_been_applied());
                Err(error)
            }
        }
    }
}

/// A change of what was read, and one under the lock.
async fn increment_twice(store: &MemcachedStore, known: &mut Known) -> Result<()> {
    let limits = limits(Duration::from_secs(10));
    let record = store.load(&key("a"), &limits).await?.expect("it is there");
    let next = number(&record.payload) + 1;
    let put = payload(next.to_string());
    known.incremented(store.commit(&key("a"), Expect::Is(&record.version), put, &limits).await)?;
    let locked = store.lock(&key("a"), Claim::Existing, &limits).await?.expect("it is there");
    assert_eq!(number(&locked.record.unwrap().payload), next);
    let put = payload((next + 1).to_string());
    known.incremented(store.commit(&key("a"), Expect::Held(locked.lease), put, &limits).await)
}

fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Each answer cut off after each of its bytes: a change that was acknowledged is there, one that was refused is not,
/// and one that may be either says so.
#[tokio::test]
async fn an_answer_that_is_cut_off_is_neither_absent_nor_done_twice() {
    let Some(servers) = one() else { return };
    let (proxy, store) = behind(&servers[0]).await;
    let (plain, id) = (MemcachedStore::open(config(servers, &proxy.prefix)).await.unwrap(), key("a"));
    create(&plain, "a", "0").await;
    let mut known = Known { least: 0, most: 0, unsure: 0 };
    for bytes in 1.. {
        // A connection that is there already, since what a server says of itself is long.
        while store.load(&id, &deadline()).await.is_err() {}
        proxy.cut_after(bytes);
        let ended = increment_twice(&store, &mut known).await;
        let cut = proxy.has_cut();
        proxy.heal();
        if let Err(error) = &ended {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        }
        let now = number(&plain.load(&id, &deadline()).await.unwrap().unwrap().payload);
        assert!((known.least..=known.most).contains(&now), "{now} after {bytes} bytes: {ended:?}");
        (known.least, known.most) = (now, now);
        // No lock stays behind.
        plain.lock(&id, Claim::Existing, &deadline()).await.unwrap().unwrap().lease.release().await;
        if !cut {
            assert!(ended.is_ok() && bytes > 50 && known.unsure > 10, "{bytes} bytes, {} times unsure", known.unsure);
            return;
        }
    }
}

#[tokio::test]
async fn a_network_that_swallows_answers_is_unavailable_in_time() {
    let Some(servers) = one() else { return };
    let (proxy, store) = behind(&servers[0]).await;
    create(&store, "a", "1").await;
    proxy.swallow();
    let begun = Instant::now();
    assert_eq!(load(&store, "a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = write(&store, "a", "2").await.unwrap_err();
    // The lock was asked for and did not come, so that nothing was written.
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, false));
    assert!(begun.elapsed() < IO * 2 + SLACK);
    proxy.heal();
    assert!(matches!(write(&store, "a", "3").await, Ok(Outcome::Done(_))));
    assert_eq!(load(&store, "a").await.unwrap().unwrap(), "3");
}

#[tokio::test]
async fn slow_answers_count_for_the_whole_request() {
    let Some(servers) = one() else { return };
    let (proxy, store) = behind(&servers[0]).await;
    create(&store, "a", "1").await;
    proxy.delay(Duration::from_millis(100));
    let budget = limits(Duration::ZERO);
    assert!(store.load(&key("a"), &budget).await.unwrap().is_some());
    assert!(store.load(&key("a"), &budget).await.unwrap().is_some());
    let begun = Instant::now();
    assert_eq!(store.load(&key("a"), &budget).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < IO + SLACK);
}

/// "Waiting for a live holder does not count" in the time for talking, though the server is asked again and again.
#[tokio::test]
async fn waiting_for_another_process_does_not_use_up_the_time_for_talking() {
    let Some(servers) = one() else { return };
    let room = Room::on(servers).await;
    let other = MemcachedStore::open(config(servers, &room.prefix)).await.unwrap();
    room.create("a", "1").await;
    let held = room.hold("a").await;
    let brief = Deadline::new(Duration::from_millis(500), Duration::from_secs(6));
    let error = other.lock(&key("a"), Claim::Existing, &brief).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert!(brief.io_left() > Duration::from_millis(450), "{:?}", brief.io_left());
    held.lease.release().await;
}

#[tokio::test]
async fn a_lock_is_kept_for_as_long_as_it_is_held() {
    let Some(servers) = one() else { return };
    let room = Room::on(servers).await;
    let other = MemcachedStore::open(config(servers, &room.prefix)).await.unwrap();
    room.create("a", "1").await;
    let held = room.hold("a").await;
    // Three lives of a lock that nobody renews.
    let patient = Deadline::new(Duration::from_secs(20), Duration::from_secs(9));
    let error = other.lock(&key("a"), Claim::Existing, &patient).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let outcome = room.commit("a", Expect::Held(held.lease), payload("2")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    assert!(room.raw("lock.a").is_none());
}

/// Memcached knows no condition on two items, so that a lock which is lost in the very last moment is noticed only beside
/// the change. See the README.
#[tokio::test]
async fn a_lock_that_is_lost_in_the_last_moment_is_no_success() {
    let Some(servers) = one() else { return };
    let room = Room::on(servers).await;
    let other = MemcachedStore::open(config(servers, &room.prefix)).await.unwrap();
    for put in [payload("mine"), Put::Remove] {
        room.create("a", "1").await;
        let held = room.hold("a").await;
        assert!(room.delete("lock.a"));
        let theirs = other.lock(&key("a"), Claim::Existing, &deadline()).await.unwrap().unwrap();
        let error = room.commit("a", Expect::Held(held.lease), put).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, true));
        // Their lock is still theirs, and they notice that the record has changed.
        assert!(room.raw("lock.a").is_some());
        let late = other.commit(&key("a"), Expect::Held(theirs.lease), payload("theirs"), &deadline()).await;
        assert!(
            matches!(&late, Err(error) if error.kind() == ErrorKind::Conflict) || matches!(late, Ok(Outcome::Gone))
        );
        room.commit("a", Expect::Any, Put::Remove).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_release_frees_nobody_elses_lock() {
    let Some(servers) = one() else { return };
    let room = Room::on(servers).await;
    let other = MemcachedStore::open(config(servers, &room.prefix)).await.unwrap();
    room.create("a", "1").await;
    let late = room.hold("a").await;
    assert!(room.delete("lock.a"));
    let theirs = other.lock(&key("a"), Claim::Existing, &deadline()).await.unwrap().unwrap();
    let token = room.raw("lock.a").unwrap();
    late.lease.release().await;
    assert_eq!(room.raw("lock.a").unwrap(), token);
    let outcome = other.commit(&key("a"), Expect::Held(theirs.lease), payload("2"), &deadline()).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
}

#[tokio::test]
async fn what_is_larger_than_an_item_is_refused_before_it_is_sent() {
    let Some(server) = own(&[]) else { return };
    let servers: &'static [Memcached] = Box::leak(Box::new([server]));
    let room = Room::on(servers).await;
    room.create("a", "old").await;
    let most = usize::try_from(room.store.capabilities().max_payload.unwrap()).unwrap();
    assert!((1_048_000..1_048_576).contains(&most), "{most}");
    let large = payload(vec![b'x'; most + 1]);
    let error = room.commit("a", Expect::Any, large).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::TooLarge, false));
    assert_eq!(room.found("a").await.payload, "old");
    assert_eq!(servers[0].stat("store_too_large").unwrap(), 0);
}

/// A server that may not make room (-M) drops what it cannot replace. It is put back.
#[tokio::test]
async fn a_server_without_room_loses_no_session() {
    let Some(server) = own(&["-M", "-m", "4"]) else { return };
    let servers: &'static [Memcached] = Box::leak(Box::new([server]));
    let room = Room::on(servers).await;
    room.create("a", "old").await;
    let (mut n, mut refused) = (0, 0);
    while refused == 0 {
        let id = format!("filler-{n}");
        let made = room.commit(&id, Expect::Absent, payload(vec![b'x'; 200_000])).await;
        match made {
            Ok(_) => n += 1,
            Err(error) => {
                assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::TooLarge, false), "{error:?}");
                refused += 1;
            }
        }
        assert!(n < 1000);
    }
    for _ in 0..3 {
        let error = room.commit("a", Expect::Any, payload(vec![b'y'; 200_000])).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::TooLarge, false), "{error:?}");
        let record = room.found("a").await;
        assert_eq!(record.payload, "old");
        assert!(record.ttl.unwrap() + Duration::from_secs(60) > LIFE);
    }
    assert!(matches!(room.commit("a", Expect::Any, payload("new")).await, Ok(Outcome::Done(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_does_for_all_requests_one_after_the_other() {
    let Some(servers) = one() else { return };
    let prefix = prefix();
    let store = MemcachedStore::open(config(servers, &prefix).connections(1)).await.unwrap();
    create(&store, "a", "1").await;
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let put = Put::Payload(Payload::new("x".into(), LIFE));
                let (read, id) = (key("a"), key(&format!("n-{n}")));
                assert!(store.load(&read, &deadline()).await.unwrap().is_some());
                store.commit(&id, Expect::Absent, put, &deadline()).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn ids_that_no_key_can_hold_are_absent() {
    let Some(servers) = one() else { return };
    let room = Room::on(servers).await;
    let id = "x".repeat(250);
    assert!(room.load(&id).await.is_none());
    assert!(room.store.lock(&key(&id), Claim::Existing, &deadline()).await.unwrap().is_none());
    assert!(matches!(room.commit(&id, Expect::Any, Put::Remove).await, Ok(Outcome::Gone)));
    for error in [
        room.store.lock(&key(&id), Claim::Either, &deadline()).await.map(drop).unwrap_err(),
        room.commit(&id, Expect::Absent, payload("1")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

/// "A record whose life ends while its holder is at work … can still be written by him."
#[tokio::test]
async fn a_record_that_expires_under_its_holder_can_be_written_by_him_and_one_that_is_destroyed_cannot() {
    let Some(servers) = one() else { return };
    let room = Room::on(servers).await;
    for id in ["expires", "destroyed"] {
        let life = if id == "expires" { Duration::from_secs(2) } else { LIFE };
        room.commit(id, Expect::Absent, Put::Payload(Payload::new("1".into(), life))).await.unwrap();
        let held = room.hold(id).await;
        if id == "destroyed" {
            assert!(room.delete(id));
        }
        until("it is gone", || room.raw(id).is_none()).await;
        let outcome = room.commit(id, Expect::Held(held.lease), payload("2")).await.unwrap();
        if id == "expires" {
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            assert_eq!(room.found(id).await.payload, "2");
        } else {
            assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
            assert!(room.load(id).await.is_none());
        }
        assert!(room.raw(&format!("lock.{id}")).is_none());
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_used_says_why() {
    for (options, why) in [(&["-C"][..], "compare-and-swap"), (&["-Y", "/dev/null"], "login")] {
        let Some(server) = own(options) else { return };
        let servers = [server];
        let store = MemcachedStore::open(config(&servers, "")).await.unwrap();
        let error = load(&store, "a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(format!("{error:?}").contains(why), "{error:?}");
    }
}
