//! Beside real php-memcached, on the same sessions at the same time.

use std::process::Stdio;
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put, Record};
use cloakroom_core::{Draft, Engine, ErrorKind, Key, Settings, Store};
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use cloakroom_testkit::servers::memcached::Memcached;
use http::HeaderMap;

use crate::php::{PATIENT, Talking, one_beside_php, php, run, three_beside_php};
use crate::util::{LIFE, Room, begin, deadline, key, limits, payload, prefix, save_path, until};

const DAY: u64 = 24 * 60 * 60;

/// The number in `n|i:5;`.
fn number(record: &Record) -> u64 {
    let text = std::str::from_utf8(&record.payload).unwrap();
    text.strip_prefix("n|i:").and_then(|text| text.strip_suffix(';')).expect(text).parse().unwrap()
}

fn counted(n: u64) -> Put {
    payload(format!("n|i:{n};"))
}

/// On three servers lock and data lie apart for some ids and together for others.
async fn rooms() -> Vec<Room> {
    let mut rooms = Vec::new();
    for servers in [one_beside_php(), three_beside_php()].into_iter().flatten() {
        rooms.push(Room::on(servers).await);
    }
    rooms
}

#[tokio::test]
async fn one_session_in_both_directions() {
    for room in rooms().await {
        for id in ["a", "b", "c", "d", "e"] {
            room.create(id, "n|i:41;").await;
            let code = format!("session_id('{id}'); session_start(); echo $_SESSION['n']++;");
            assert_eq!(run(room.php(PATIENT, &code)), "41");
            let record = room.found(id).await;
            assert_eq!(number(&record), 42);
            assert!(record.ttl.unwrap() <= LIFE && record.ttl.unwrap() + Duration::from_secs(60) > LIFE);
            let outcome = room.commit(id, Expect::Is(&record.version), counted(43)).await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)));
            assert_eq!(run(room.php(&["memcached.sess_binary_protocol=0"], &code)), "43");
            assert_eq!(room.raw(id).unwrap(), b"n|i:44;");
        }
        // What PHP makes, we find, with the life that it gives.
        run(room.php(&["session.gc_maxlifetime=100"], "session_id('new'); session_start(); $_SESSION['n'] = 7;"));
        let record = room.found("new").await;
        assert_eq!(number(&record), 7);
        assert!(record.ttl.unwrap() <= Duration::from_secs(100));
        // And PHP's logout is one.
        run(room.php(PATIENT, "session_id('new'); session_start(); session_destroy();"));
        assert!(room.load("new").await.is_none());
    }
}

#[tokio::test]
async fn phps_own_settings_open_the_same_sessions() {
    let Some(servers) = three_beside_php() else { return };
    let (path, prefix) = (save_path(servers), prefix());
    let mut settings = Settings::php();
    settings.set("session.save_handler", "memcached").unwrap();
    settings.set("session.save_path", &path).unwrap();
    settings.set("memcached.sess_prefix", &prefix).unwrap();
    let store = MemcachedStore::open(MemcachedConfig::from_settings(&settings).unwrap()).await.unwrap();
    for id in ["a", "b", "c", "d"] {
        let code = format!("session_id('{id}'); session_start(); $_SESSION['n'] = 1;");
        run(php(&path, &prefix, &[], &code));
        let record = store.load(&key(id), &deadline()).await.unwrap().unwrap();
        assert_eq!(number(&record), 1);
    }
}

#[tokio::test]
async fn a_socket_in_the_file_system_leads_to_the_same_sessions() {
    let Some(server) = crate::util::own_socket() else { return };
    if cloakroom_testkit::php::skip("php") {
        return;
    }
    let path = server.path.display().to_string();
    let store = MemcachedStore::open(MemcachedConfig::from_url(&format!("memcached://{path}")).unwrap()).await.unwrap();
    let made = store.commit(&key("a"), Expect::Absent, counted(1), &deadline()).await.unwrap();
    assert!(matches!(made, Outcome::Done(_)));
    let code = "session_id('a'); session_start(); echo $_SESSION['n']++;";
    assert_eq!(run(php(&path, "memc.sess.key.", &[], code)), "1");
    assert_eq!(number(&store.load(&key("a"), &deadline()).await.unwrap().unwrap()), 2);
}

#[tokio::test]
async fn a_life_above_thirty_days_is_the_same_on_both_sides() {
    let Some(servers) = one_beside_php() else { return };
    let room = Room::on(servers).await;
    for days in [30, 31, 400] {
        let (ours, theirs) = (format!("ours-{days}"), format!("theirs-{days}"));
        let seconds = days * DAY;
        let put = Put::Payload(Payload::new("n|i:1;".into(), Duration::from_secs(seconds)));
        room.commit(&ours, Expect::Absent, put).await.unwrap();
        let setting = format!("session.gc_maxlifetime={seconds}");
        let code = format!("session_id('{theirs}'); session_start(); $_SESSION['n'] = 1;");
        run(room.php(&[&setting], &code));
        for id in [&ours, &theirs] {
            let ttl = u64::try_from(room.ttl(id).unwrap()).unwrap();
            assert!(ttl <= seconds + 1 && ttl + 60 > seconds, "{id}: {ttl}");
            assert!(room.found(id).await.ttl.unwrap().as_secs() + 60 > seconds);
        }
        // Touched by either.
        room.commit(&theirs, Expect::Any, Put::Touch(Duration::from_secs(seconds + 3600))).await.unwrap();
        assert!(u64::try_from(room.ttl(&theirs).unwrap()).unwrap() > seconds + 3500);
        let code = format!("session_id('{ours}'); session_start();");
        run(room.php(&[&format!("session.gc_maxlifetime={}", seconds + 3600)], &code));
        assert!(u64::try_from(room.ttl(&ours).unwrap()).unwrap() > seconds + 3500);
    }
    // Without an end, on both sides.
    run(room.php(&["session.gc_maxlifetime=0"], "session_id('ever'); session_start(); $_SESSION['n'] = 1;"));
    assert_eq!((room.ttl("ever"), room.found("ever").await.ttl), (Some(-1), None));
    room.commit("ever", Expect::Any, Put::Touch(Duration::ZERO)).await.unwrap();
    assert_eq!(room.ttl("ever"), Some(-1));
}

#[tokio::test]
async fn each_waits_for_the_other() {
    for room in rooms().await {
        for id in ["a", "b", "c", "d", "e"] {
            room.create(id, "n|i:1;").await;
            // PHP holds it.
            let code = format!(
                "session_id('{id}'); session_start(); echo \"in\\n\"; fgets(STDIN); $_SESSION['n'] += 10; \
                 session_write_close(); echo \"out\\n\";"
            );
            let mut holder = Talking::new(room.php(PATIENT, &code));
            assert_eq!(holder.line(), "in");
            let short = limits(Duration::from_millis(100));
            let error = room.store.lock(&key(id), Claim::Existing, &short).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            for put in [counted(0), Put::Remove] {
                let error = room.store.commit(&key(id), Expect::Any, put, &short).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Locked, "{id}");
            }
            assert_eq!(number(&room.found(id).await), 1, "reading waits for nobody");
            holder.go_on();
            assert_eq!(holder.line(), "out");
            holder.end();
            // We hold it.
            let locked = room.hold(id).await;
            let mut waiter = Talking::new(room.php(PATIENT, &format!("echo \"here\\n\"; {code}")));
            assert_eq!(waiter.line(), "here");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let n = number(&locked.record.unwrap());
            assert_eq!(n, 11);
            let outcome = room.commit(id, Expect::Held(locked.lease), counted(n + 100)).await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)));
            assert_eq!(waiter.line(), "in");
            waiter.go_on();
            assert_eq!(waiter.line(), "out");
            waiter.end();
            assert_eq!(number(&room.found(id).await), 121);
        }
    }
}

#[tokio::test]
async fn php_gives_up_where_we_hold_the_lock_too_long_for_its_settings() {
    let Some(servers) = one_beside_php() else { return };
    let room = Room::on(servers).await;
    room.create("a", "n|i:1;").await;
    let locked = room.hold("a").await;
    let mut command = room.php(&[], "session_id('a'); var_dump(@session_start());");
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "bool(false)");
    locked.lease.release().await;
    assert_eq!(number(&room.found("a").await), 1);
}

/// Three PHPs and six tasks of ours, with the lock and without, by the store and by whole requests: every increment is
/// there.
async fn count_together(room: &Room, id: &str) {
    const EACH: u64 = 50;
    room.create(id, "n|i:0;").await;
    let code = format!(
        "for ($n = 0; $n < {EACH}; $n++) {{ session_id('{id}'); if (!session_start()) exit(1); $_SESSION['n']++; \
         session_write_close(); usleep(1000); }} echo 'done';"
    );
    let workers: Vec<_> = (0..3).map(|_| room.php(PATIENT, &code).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let mut settings = Settings::php();
    (settings.io_timeout, settings.update_wait) = (Duration::from_secs(20), Duration::from_secs(60));
    let engine = Engine::new(room.store.clone(), settings).unwrap();
    let mut tasks = Vec::new();
    for task in 0..6 {
        let (store, engine, key) = (room.store.clone(), engine.clone(), key(id));
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                match task % 4 {
                    0 => increment_under_lock(&store, &key).await,
                    1 => increment_by_version(&store, &key).await,
                    kind => increment_in_request(&engine, &key, kind == 2).await,
                }
                // PHP asks every few milliseconds only, and would wait long beside who asks all the time.
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for worker in workers {
        let output = tokio::task::spawn_blocking(|| worker.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "done");
    }
    assert_eq!(number(&room.found(id).await), EACH * 9, "{id}");
}

async fn increment_under_lock(store: &MemcachedStore, key: &Key) {
    let locked = store.lock(key, Claim::Existing, &deadline()).await.unwrap().unwrap();
    let next = counted(number(&locked.record.unwrap()) + 1);
    let outcome = store.commit(key, Expect::Held(locked.lease), next, &deadline()).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

async fn increment_by_version(store: &MemcachedStore, key: &Key) {
    let mut record = store.load(key, &deadline()).await.unwrap().unwrap();
    while let Outcome::Conflict(now) = {
        let next = counted(number(&record) + 1);
        store.commit(key, Expect::Is(&record.version), next, &deadline()).await.unwrap()
    } {
        record = now;
    }
}

async fn increment_in_request(engine: &Engine, key: &Key, update: bool) {
    let session = begin(engine, Some(key.record()));
    let add = |s: &mut Draft| s.set("n", &(s.get::<i64>("n")?.unwrap_or(0) + 1));
    if update {
        session.update(add).await.unwrap();
    } else {
        add(&mut session.start().await.unwrap()).unwrap();
    }
    engine.finish(session, &mut HeaderMap::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_beside_php_lose_none() {
    for room in rooms().await {
        // With three servers: one whose lock lies beside its data, and one whose does not.
        let apart = |id: &&str| room.store.servers_of(&key(id)).is_some_and(|(data, lock)| data != lock);
        let ids = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        if room.servers.len() > 1 {
            count_together(&room, ids.iter().find(|id| apart(id)).unwrap()).await;
        }
        count_together(&room, ids.iter().find(|id| !apart(id)).unwrap()).await;
    }
}

#[tokio::test]
async fn a_logout_wins_on_either_side() {
    for room in rooms().await {
        for id in ["a", "b", "c", "d", "e"] {
            // PHP waits while we log out: it finds nothing.
            room.create(id, "n|i:1;").await;
            let locked = room.hold(id).await;
            let code = format!(
                "echo \"here\\n\"; session_id('{id}'); session_start(); echo count($_SESSION), \"\\n\"; session_abort();"
            );
            let mut waiter = Talking::new(room.php(PATIENT, &code));
            assert_eq!(waiter.line(), "here");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let outcome = room.commit(id, Expect::Held(locked.lease), Put::Remove).await.unwrap();
            assert!(matches!(outcome, Outcome::Removed(was) if was.payload == "n|i:1;"));
            assert_eq!(waiter.line(), "0");
            waiter.end();
            assert!(room.load(id).await.is_none());
            // We wait while PHP logs out: the change is gone, and does not bring it back.
            room.create(id, "n|i:1;").await;
            let seen = room.found(id).await.version;
            let code = format!("session_id('{id}'); session_start(); echo \"in\\n\"; fgets(STDIN); session_destroy();");
            let mut holder = Talking::new(room.php(PATIENT, &code));
            assert_eq!(holder.line(), "in");
            let (store, name) = (room.store.clone(), key(id));
            let late =
                tokio::spawn(async move { store.commit(&name, Expect::Is(&seen), counted(2), &deadline()).await });
            let (store, name) = (room.store.clone(), key(id));
            let start = tokio::spawn(async move { store.lock(&name, Claim::Existing, &deadline()).await });
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!late.is_finished() && !start.is_finished());
            holder.go_on();
            holder.end();
            assert!(matches!(late.await.unwrap().unwrap(), Outcome::Gone));
            assert!(start.await.unwrap().unwrap().is_none());
            assert!(room.load(id).await.is_none());
        }
    }
}

#[tokio::test]
async fn new_ids_are_claimed_as_php_claims_them() {
    for room in rooms().await {
        // PHP's: an empty record and a lock, from the start on.
        let code = "session_start(); echo session_id(), \"\\n\"; fgets(STDIN); $_SESSION['n'] = 1;";
        let mut new = Talking::new(room.php(&["session.use_strict_mode=1"], code));
        let id = new.line();
        assert_eq!(room.found(&id).await.payload, "");
        assert!(room.store.lock(&key(&id), Claim::New, &limits(Duration::ZERO)).await.unwrap().is_none());
        let made = room.store.commit(&key(&id), Expect::Absent, counted(9), &limits(Duration::ZERO)).await;
        assert!(made.is_err_and(|error| error.kind() == ErrorKind::Locked), "PHP holds it");
        new.go_on();
        new.end();
        assert_eq!(number(&room.found(&id).await), 1);
        assert!(matches!(room.commit(&id, Expect::Absent, counted(9)).await, Ok(Outcome::Taken)));
        // Ours: the same, so that PHP in strict mode knows the id and waits.
        let id = "0123456789abcdef0123456789abcdef";
        let locked = room.store.lock(&key(id), Claim::New, &deadline()).await.unwrap().unwrap();
        assert_eq!(room.raw(id).unwrap(), b"");
        assert!(room.raw(&format!("lock.{id}")).is_some());
        let code = format!(
            "echo \"here\\n\"; session_id('{id}'); session_start(); echo session_id(), json_encode($_SESSION), \"\\n\";"
        );
        let strict = [PATIENT, &["session.use_strict_mode=1"]].concat();
        let mut waiter = Talking::new(room.php(&strict, &code));
        assert_eq!(waiter.line(), "here");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let outcome = room.commit(id, Expect::Held(locked.lease), counted(5)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        assert_eq!(waiter.line(), format!("{id}{{\"n\":5}}"));
        waiter.end();
    }
}

/// PHP touches what it did not change, and a touch is no change.
#[tokio::test]
async fn a_touch_by_php_is_no_conflict() {
    let Some(servers) = one_beside_php() else { return };
    let room = Room::on(servers).await;
    room.create("a", "n|i:1;").await;
    let seen = room.found("a").await.version;
    run(room.php(PATIENT, "session_id('a'); session_start();"));
    let outcome = room.commit("a", Expect::Is(&seen), counted(2)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
}

/// The defect of PHP's lock: who lost it deletes that of the next holder. Ours notices, and whatever else is done,
/// no change that was acknowledged is lost.
#[tokio::test]
async fn a_lock_that_php_deletes_is_noticed() {
    let Some(servers) = one_beside_php() else { return };
    let room = Room::on(servers).await;
    room.create("a", "n|i:1;").await;
    let code = "session_id('a'); session_start(); echo \"in\\n\"; fgets(STDIN); session_abort();";
    let short = [PATIENT, &["memcached.sess_lock_expire=1"]].concat();
    let mut late = Talking::new(room.php(&short, code));
    assert_eq!(late.line(), "in");
    // PHP's lock ends while PHP is still at work, and is ours then.
    let locked = room.hold("a").await;
    late.go_on();
    late.end();
    let deleted = || room.raw("lock.a").is_none();
    until("PHP deletes our lock", deleted).await;
    // Past the second in which a lock is taken for held without asking.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = room.commit("a", Expect::Held(locked.lease), counted(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, false));
    assert_eq!(number(&room.found("a").await), 1);
}

/// With `sess_locking=0` PHP writes blindly. Nothing can be promised then, but what it wrote is not undone.
#[tokio::test]
async fn a_write_without_a_lock_is_not_undone() {
    let Some(servers) = one_beside_php() else { return };
    let room = Room::on(servers).await;
    room.create("a", "n|i:1;").await;
    let locked = room.hold("a").await;
    run(room.php(&["memcached.sess_locking=0"], "session_id('a'); session_start(); $_SESSION['n'] = 50;"));
    let error = room.commit("a", Expect::Held(locked.lease), counted(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Conflict, false));
    assert_eq!(number(&room.found("a").await), 50);
    // A logout is one all the same.
    let locked = room.hold("a").await;
    run(room.php(&["memcached.sess_locking=0"], "session_id('a'); session_start(); $_SESSION['n'] = 51;"));
    let outcome = room.commit("a", Expect::Held(locked.lease), Put::Remove).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(was) if was.payload == "n|i:51;"));
    assert!(room.load("a").await.is_none());
}

/// What COMPAT.md says of PHP: its lock may have no end, and a session that is too large costs it the one that was there.
#[tokio::test]
async fn what_php_does_that_we_do_not() {
    let Some(servers) = one_beside_php() else { return };
    let room = Room::on(servers).await;
    room.create("a", "n|i:1;").await;
    let code = "session_id('a'); session_start(); echo \"in\\n\"; fgets(STDIN);";
    let mut holder = Talking::new(room.php(&["max_execution_time=0"], code));
    assert_eq!(holder.line(), "in");
    assert_eq!((room.raw("lock.a").unwrap(), room.ttl("lock.a")), (b"1".to_vec(), Some(-1)));
    holder.go_on();
    holder.end();
    let locked = room.hold("a").await;
    assert!(room.raw("lock.a").unwrap().starts_with(b"cloakroom:") && room.ttl("lock.a").unwrap() <= 3);
    let large = vec![b'x'; 1_200_000];
    let error = room.commit("a", Expect::Held(locked.lease), payload(large)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(number(&room.found("a").await), 1);
    for protocol in ["memcached.sess_binary_protocol=0", "memcached.sess_binary_protocol=1"] {
        let code = "session_id('a'); session_start(); $_SESSION['x'] = str_repeat('x', 1200000);";
        room.php(&[PATIENT, &[protocol]].concat(), code).output().unwrap();
        assert!(room.load("a").await.is_none(), "{protocol}");
        room.create("a", "n|i:1;").await;
    }
}

/// Neither a value that is no session nor a name is anything that PHP would stumble over.
#[tokio::test]
async fn nothing_of_ours_has_the_name_of_a_session() {
    let Some(server) = crate::util::own(&[]) else { return };
    let servers: &'static [Memcached] = Box::leak(Box::new([server]));
    let room = Room::on(servers).await;
    room.create("a", "junk").await;
    let outcome = room.commit("a", Expect::Any, Put::SetAside).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(_)));
    room.create("b", "n|i:1;").await;
    room.hold("b").await.lease.release().await;
    let mut keys = servers[0].keys().unwrap();
    keys.retain(|key| !key.starts_with("cloakroom:"));
    assert_eq!(keys, [format!("{}b", room.prefix)]);
    let aside = room.store.set_aside(&deadline()).await.unwrap();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].payload == "junk" && aside[0].age < Duration::from_secs(60));
}

#[tokio::test]
async fn what_is_set_aside_is_bounded_in_number_and_age() {
    let Some(servers) = crate::util::one() else { return };
    let config = crate::util::config(servers, &prefix()).aside(3, Duration::from_secs(100));
    let store = MemcachedStore::open(config).await.unwrap();
    for n in 0..8 {
        store.commit(&key("a"), Expect::Absent, payload(format!("junk {n}")), &deadline()).await.unwrap();
        let outcome = store.commit(&key("a"), Expect::Any, Put::SetAside, &deadline()).await.unwrap();
        assert!(matches!(outcome, Outcome::Removed(_)));
    }
    let mut kept: Vec<_> = store.set_aside(&deadline()).await.unwrap().into_iter().map(|aside| aside.payload).collect();
    kept.sort();
    assert_eq!(kept, ["junk 5", "junk 6", "junk 7"]);
    assert!(servers[0].keys().unwrap().iter().any(|key| key.starts_with("cloakroom:") && key.contains("aside")));
}
