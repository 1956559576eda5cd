//! Beside real php-redis, on the same sessions at the same time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome, Put, Record};
use cloakroom_core::{ErrorKind, Settings, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::php::skip;
use cloakroom_testkit::servers::redis::RedisServer;
use redis::cmd;

use crate::util::{LIFE, Room, cluster, key, payload, prefix, server, wait};

/// What PHP needs to wait for a lock until it gets it.
const PATIENT: &[&str] =
    &["redis.session.locking_enabled=1", "redis.session.lock_retries=20000", "redis.session.lock_wait_time=2000"];

/// PHP without a php.ini, with sessions at `path`.
fn php(handler: &str, path: &str, settings: &[&str], code: &str) -> Command {
    let mut command = Command::new("php");
    command.args(["-n", "-d", "extension=igbinary", "-d", "extension=redis"]);
    let own = ["session.use_cookies=0", "session.cache_limiter=", "session.gc_probability=0"];
    for setting in own.iter().chain(settings) {
        command.arg("-d").arg(setting);
    }
    command
        .arg("-d")
        .arg(format!("session.save_handler={handler}"))
        .arg("-d")
        .arg(format!("session.save_path=\"{path}\""));
    command.arg("-r").arg(code).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> String {
    let output = command.output().expect("run php");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// PHP on the sessions of a room.
fn beside(room: &Room, server: &RedisServer, settings: &[&str], code: &str) -> Command {
    php("redis", &format!("tcp://{}?prefix={}", server.addr(), room.prefix), settings, code)
}

/// A PHP that says a line when it has come so far; killed and reaped at the end.
struct Talking {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    fn new(mut command: Command) -> Talking {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Talking { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("php has ended").unwrap()
    }

    /// Lets it go on behind `fgets(STDIN)`.
    fn go_on(&mut self) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn without_php() -> bool {
    skip("php") || skip("php-redis")
}

fn here() -> Option<&'static RedisServer> {
    server().filter(|_| !without_php())
}

/// The number in `n|i:5;`.
fn number(record: &Record) -> u64 {
    let text = std::str::from_utf8(&record.payload).unwrap();
    text.strip_prefix("n|i:").and_then(|text| text.strip_suffix(';')).expect(text).parse().unwrap()
}

fn counted(n: u64) -> Put {
    payload(format!("n|i:{n};"))
}

#[tokio::test]
async fn one_session_in_both_directions() {
    let Some(server) = here() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "n|i:41;").await;
    let code = "session_id('a'); session_start(); echo $_SESSION['n']++;";
    assert_eq!(run(beside(&room, server, PATIENT, code)), "41");
    let record = room.load("a").await.unwrap().unwrap();
    assert_eq!(number(&record), 42);
    let left = record.ttl.unwrap();
    assert!(left <= LIFE && left + Duration::from_secs(60) > LIFE);
    let outcome = room.commit("a", Expect::Is(&record.version), counted(43)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    assert_eq!(run(beside(&room, server, &[], code)), "43");
    // What PHP makes, we find, under its own prefix and with the life that it gives.
    let code = "session_id('b'); session_start(); $_SESSION['n'] = 7;";
    run(beside(&room, server, &["session.gc_maxlifetime=100"], code));
    let record = room.load("b").await.unwrap().unwrap();
    assert_eq!(number(&record), 7);
    assert!(record.ttl.unwrap() <= Duration::from_secs(100));
}

#[tokio::test]
async fn phps_own_prefix_and_settings() {
    let Some(server) = here() else { return };
    let id = prefix().trim_end_matches(':').to_owned();
    let path = format!("tcp://{}?database=5", server.addr());
    let code = format!("session_id('{id}'); session_start(); $_SESSION['n'] = 1;");
    run(php("redis", &path, &[], &code));
    let mut settings = Settings::php();
    settings.save_handler = "redis".into();
    settings.save_path = path.clone();
    let store = RedisStore::open(RedisConfig::from_settings(&settings).unwrap()).await.unwrap();
    let record = store.load(&key(&id), &wait(0)).await.unwrap().unwrap();
    assert_eq!(number(&record), 1);
    assert_eq!(server.cli(&["-n", "5", "get", &format!("PHPREDIS_SESSION:{id}")]).unwrap(), "n|i:1;");
    let locked = store.lock(&key(&id), Claim::Existing, &wait(0)).await.unwrap().unwrap();
    assert_eq!(server.cli(&["-n", "5", "exists", &format!("PHPREDIS_SESSION:{id}_LOCK")]).unwrap(), "1");
    locked.lease.release().await;
    store.commit(&key(&id), Expect::Any, Put::Remove, &wait(0)).await.unwrap();
}

#[tokio::test]
async fn each_waits_for_the_other() {
    let Some(server) = here() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "n|i:1;").await;
    // PHP holds it.
    let code = "session_id('a'); session_start(); echo \"in\\n\"; fgets(STDIN); $_SESSION['n'] = 5; session_write_close(); echo \"out\\n\";";
    let mut request = Talking::new(beside(&room, server, PATIENT, code));
    assert_eq!(request.line(), "in");
    let held = room.lock_value("a").await.unwrap();
    assert!(held.contains('|'), "PHP's lock: {held}");
    let seen = room.load("a").await.unwrap().unwrap();
    assert_eq!(number(&seen), 1, "reading waits for nobody");
    let error = room.store.lock(&key("a"), Claim::Existing, &wait(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    for put in [counted(2), Put::Remove, Put::SetAside] {
        let error = room.store.commit(&key("a"), Expect::Is(&seen.version), put, &wait(50)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
    }
    assert_eq!(room.lock_value("a").await.unwrap(), held);
    let store = room.store.clone();
    let waiting = tokio::spawn(async move { store.lock(&key("a"), Claim::Existing, &wait(20_000)).await });
    request.go_on();
    assert_eq!(request.line(), "out");
    let locked = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!(number(locked.record.as_ref().unwrap()), 5);

    // We hold it.
    let code =
        "session_id('a'); session_start(); echo \"in\\n\"; $_SESSION['n']++; session_write_close(); echo \"out\\n\";";
    let mut request = Talking::new(beside(&room, server, PATIENT, code));
    tokio::time::sleep(Duration::from_millis(300)).await;
    room.commit("a", Expect::Held(locked.lease), counted(10)).await.unwrap();
    assert_eq!((request.line(), request.line()), ("in".into(), "out".into()));
    assert_eq!(room.value("a").await.unwrap(), b"n|i:11;");
}

/// PHP's workers, an `update` and a `start` of ours, of two processes' worth of stores, all on one number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost() {
    const EACH: u64 = 150;
    let Some(server) = here() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "n|i:0;").await;
    let code = format!(
        "fwrite(STDOUT, \"in\\n\"); session_id('a');
        for ($i = 0; $i < {EACH}; $i++) {{ session_start(); $_SESSION['n']++; session_write_close(); }}
        fwrite(STDOUT, \"done\\n\");"
    );
    let mut workers: Vec<_> = (0..2).map(|_| Talking::new(beside(&room, server, PATIENT, &code))).collect();
    for worker in &mut workers {
        assert_eq!(worker.line(), "in");
    }
    let second = RedisStore::open(room.config.clone()).await.unwrap();
    let mut ours = Vec::new();
    for (store, start) in [(&room.store, true), (&room.store, false), (&second, true), (&second, false)] {
        let store = store.clone();
        ours.push(tokio::spawn(async move {
            for _ in 0..EACH {
                if start {
                    let locked = store.lock(&key("a"), Claim::Existing, &wait(60_000)).await.unwrap().unwrap();
                    let next = counted(number(&locked.record.unwrap()) + 1);
                    let outcome = store.commit(&key("a"), Expect::Held(locked.lease), next, &wait(60_000)).await;
                    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
                    continue;
                }
                let mut record = store.load(&key("a"), &wait(0)).await.unwrap().unwrap();
                loop {
                    let next = counted(number(&record) + 1);
                    let expect = Expect::Is(&record.version);
                    match store.commit(&key("a"), expect, next, &wait(60_000)).await.unwrap() {
                        Outcome::Conflict(now) => record = now,
                        outcome => {
                            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                            break;
                        }
                    }
                }
            }
        }));
    }
    for task in ours {
        task.await.unwrap();
    }
    tokio::task::spawn_blocking(move || workers.iter_mut().for_each(|worker| assert_eq!(worker.line(), "done")))
        .await
        .unwrap();
    assert_eq!(number(&room.load("a").await.unwrap().unwrap()), 6 * EACH);
    assert_eq!(room.lock_value("a").await, None);
}

#[tokio::test]
async fn a_logout_in_php_is_one_for_who_waits_here() {
    let Some(server) = here() else { return };
    let room = Room::on(server, "").await;
    let code = "session_id('a'); session_start(); echo \"in\\n\"; fgets(STDIN); session_destroy(); echo \"out\\n\";";
    for round in 0..10 {
        room.create("a", "n|i:1;").await;
        let mut request = Talking::new(beside(&room, server, PATIENT, code));
        assert_eq!(request.line(), "in");
        let seen = room.load("a").await.unwrap().unwrap().version;
        let store = room.store.clone();
        let holder = tokio::spawn(async move {
            let locked = store.lock(&key("a"), Claim::Existing, &wait(20_000)).await.unwrap();
            // PHP gives its lock back before it deletes, so that we may get it in between.
            tokio::time::sleep(Duration::from_millis(if round % 2 == 0 { 0 } else { 20 })).await;
            match locked {
                Some(locked) => {
                    store.commit(&key("a"), Expect::Held(locked.lease), counted(2), &wait(0)).await.unwrap()
                }
                None => Outcome::Gone,
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        request.go_on();
        assert_eq!(request.line(), "out");
        let held = holder.await.unwrap();
        let changed = room.commit("a", Expect::Is(&seen), counted(3)).await.unwrap();
        assert!(matches!(changed, Outcome::Gone), "{changed:?}");
        // What was written before PHP's DEL is gone with it.
        assert!(matches!(held, Outcome::Gone | Outcome::Done(_)), "{held:?}");
        assert_eq!(room.value("a").await, None);
    }
}

#[tokio::test]
async fn a_logout_here_is_one_for_php_that_waits() {
    let Some(server) = here() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "n|i:1;").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let code = "session_id('a'); session_start(); echo json_encode($_SESSION), \"\\n\"; session_abort();";
    let mut request = Talking::new(beside(&room, server, PATIENT, code));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let outcome = room.commit("a", Expect::Held(locked.lease), Put::Remove).await.unwrap();
    assert!(matches!(outcome, Outcome::Removed(_)));
    assert_eq!(request.line(), "[]");
    drop(request);
    assert_eq!(room.value("a").await, None);
}

#[tokio::test]
async fn of_several_servers_we_choose_the_one_that_php_chooses() {
    if here().is_none() {
        return;
    }
    let servers: Vec<_> = (0..3).map(|_| RedisServer::start(&[]).unwrap()).collect();
    for (weights, prefix) in [([1, 1, 1], ""), ([3, 1, 2], ""), ([1, 5, 1], "&prefix=MY:")] {
        let urls = servers
            .iter()
            .zip(weights)
            .map(|(server, weight)| format!("tcp://{}?weight={weight}{prefix}", server.addr()));
        let path = urls.collect::<Vec<_>>().join(", ");
        let code = "for ($i = 0; $i < 90; $i++) {
            session_id(session_create_id()); session_start(); $_SESSION['n'] = $i; echo session_id(), \"\\n\";
            session_write_close(); $_SESSION = [];
        }";
        let ids = run(php("redis", &path, &[], code));
        let mut settings = Settings::php();
        (settings.save_handler, settings.save_path) = ("redis".into(), path.clone());
        let store = RedisStore::open(RedisConfig::from_settings(&settings).unwrap()).await.unwrap();
        for (n, id) in ids.lines().enumerate() {
            let record = store.load(&key(id), &wait(0)).await.unwrap().unwrap_or_else(|| panic!("{id} of {path}"));
            assert_eq!(number(&record), n as u64);
        }
        assert_eq!(ids.lines().count(), 90);
        let mut shares = BTreeMap::new();
        for (index, server) in servers.iter().enumerate() {
            shares.insert(index, server.cli(&["dbsize"]).unwrap().parse::<u32>().unwrap());
        }
        assert!(shares.values().all(|share| *share > 0), "{weights:?}: {shares:?}");
        // And what we make, PHP finds; a URL of ours names the same servers by the same rule.
        let hosts: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
        let weights = weights.map(|weight| weight.to_string()).join(",");
        let url = format!("redis://{}?weights={weights}{prefix}", hosts.join(","));
        let own = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
        let made: Vec<_> = (0..30).map(|n| format!("{n:x}own{n:029}")).collect();
        for (n, id) in made.iter().enumerate() {
            own.commit(&key(id), Expect::Absent, counted(n as u64), &wait(0)).await.unwrap();
        }
        let code = format!(
            "foreach (explode(' ', '{}') as $id) {{ session_id($id); session_start(); echo $_SESSION['n'], \"\\n\"; session_abort(); }}",
            made.join(" ")
        );
        let found = run(php("redis", &path, &[], &code));
        assert_eq!(
            found.lines().map(str::to_owned).collect::<Vec<_>>(),
            (0..30).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        for server in &servers {
            server.cli(&["flushall"]).unwrap();
        }
    }
}

/// php-redis chooses the server of the lock that it gives back by the prefixed key, so that with several servers
/// most locks stay where they are until they end. We wait for them as for any.
#[tokio::test]
async fn locks_that_php_leaves_behind_end_by_themselves() {
    if here().is_none() {
        return;
    }
    let servers: Vec<_> = (0..2).map(|_| RedisServer::start(&[]).unwrap()).collect();
    let path = servers.iter().map(|server| format!("tcp://{}", server.addr())).collect::<Vec<_>>().join(",");
    let code = "foreach (range('a', 'h') as $letter) { session_id(str_repeat($letter, 32)); session_start(); $_SESSION['n'] = 1; session_write_close(); }";
    run(php("redis", &path, &[PATIENT, &["redis.session.lock_expire=2"]].concat(), code));
    let left: usize = servers
        .iter()
        .map(|server| server.cli(&["keys", "*_LOCK"]).unwrap().lines().filter(|line| !line.is_empty()).count())
        .sum();
    assert!(left > 0 && left < 8, "{left}: if PHP has mended this, COMPAT.md should say so");
    let mut settings = Settings::php();
    (settings.save_handler, settings.save_path) = ("redis".into(), path);
    let store = RedisStore::open(RedisConfig::from_settings(&settings).unwrap()).await.unwrap();
    let begun = Instant::now();
    for letter in 'a'..='h' {
        let id = letter.to_string().repeat(32);
        let locked = store.lock(&key(&id), Claim::Existing, &wait(10_000)).await.unwrap().unwrap();
        store.commit(&key(&id), Expect::Held(locked.lease), counted(2), &wait(0)).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// On a cluster php-redis takes no lock, so that only one at a time can be sure.
#[tokio::test]
async fn one_session_in_both_directions_on_a_cluster() {
    let Some(cluster) = cluster().filter(|_| !without_php()) else { return };
    let prefix = prefix();
    let seeds: Vec<_> = cluster.nodes().iter().map(|node| format!("seed[]={}", node.addr())).collect();
    let path = format!("{}&timeout=2&prefix={prefix}", seeds.join("&"));
    let mut settings = Settings::php();
    (settings.save_handler, settings.save_path) = ("rediscluster".into(), path.clone());
    let store = RedisStore::open(RedisConfig::from_settings(&settings).unwrap()).await.unwrap();
    for id in ["a", "b", "c", "d"] {
        store.commit(&key(id), Expect::Absent, counted(41), &wait(0)).await.unwrap();
        let code = format!("session_id('{id}'); session_start(); echo $_SESSION['n']++;");
        assert_eq!(run(php("rediscluster", &path, PATIENT, &code)), "41");
        let locked = store.lock(&key(id), Claim::Existing, &wait(0)).await.unwrap().unwrap();
        assert_eq!(number(locked.record.as_ref().unwrap()), 42);
        let outcome = store.commit(&key(id), Expect::Held(locked.lease), counted(43), &wait(0)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        assert_eq!(run(php("rediscluster", &path, &[], &code)), "43");
    }
}

/// Handlers without a lock write blindly: nothing can be promised, but that nothing else breaks.
#[tokio::test]
async fn php_without_locking_is_read_and_written_all_the_same() {
    let Some(server) = here() else { return };
    let room = Room::on(server, "").await;
    room.create("a", "n|i:0;").await;
    let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    let code = "session_id('a'); session_start(); $_SESSION['n'] = 9;";
    run(beside(&room, server, &[], code));
    assert_eq!(room.value("a").await.unwrap(), b"n|i:9;", "PHP asked for no lock");
    room.commit("a", Expect::Held(locked.lease), counted(1)).await.unwrap();
    assert_eq!(room.value("a").await.unwrap(), b"n|i:1;");
    let left: Vec<String> = room.raw(cmd("KEYS").arg(format!("{}*", room.prefix))).await;
    assert_eq!(left, [room.record("a")]);
}
