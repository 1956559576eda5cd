//! The race table: lost updates, parallel keys, revived sessions and erased writes; one process, and two.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use cloakroom_testkit::http::{Ask, Reply, send};
use cloakroom_testkit::php::{PhpServer, skip};
use cloakroom_testkit::process::Process;
use cloakroom_testkit::servers::mariadb::MariaDb;
use cloakroom_testkit::servers::memcached::Memcached;
use cloakroom_testkit::servers::postgres::Postgres;
use cloakroom_testkit::servers::redis::{RedisCluster, RedisServer};
use serde_json::Value;

use crate::program::start;

/// Who answers: the example, or its twin in PHP.
pub(crate) enum Peer {
    Ours(Process),
    Php(PhpServer),
}

impl Peer {
    pub(crate) fn ours(url: &str) -> Peer {
        Peer::Ours(start("races", &["--store", url]))
    }

    fn process(&self) -> &Process {
        match self {
            Peer::Ours(process) => process,
            Peer::Php(server) => server.process(),
        }
    }
}

/// How many of 12 times, four of them at once, with a session each, it is so.
fn twelve_times(is_so: impl Fn() -> bool + Sync) -> usize {
    let column = || (0..3).filter(|_| is_so()).count();
    thread::scope(|scope| {
        let columns = [(); 4].map(|()| scope.spawn(column));
        columns.into_iter().map(|column| column.join().unwrap()).sum()
    })
}

/// One or more processes on one store; the n-th client asks the n-th of them.
pub(crate) struct Race {
    pub(crate) servers: Vec<Peer>,
}

impl Race {
    fn on<const N: usize>(url: &str) -> Race {
        Race { servers: (0..N).map(|_| Peer::ours(url)).collect() }
    }

    /// The n-th client's request.
    fn get(&self, client: usize, path: &str, cookie: &str) -> Reply {
        let headers = [("Cookie".to_owned(), cookie.to_owned())];
        let ask = Ask { method: "GET", target: path, headers: &headers, body: b"" };
        send(self.servers[client % self.servers.len()].process().addr(), &ask).unwrap()
    }

    fn json(&self, client: usize, path: &str, cookie: &str) -> Value {
        let reply = self.get(client, path, cookie);
        assert_eq!(reply.status, 200, "{path}: {}", self.said(&reply));
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn said(&self, reply: &Reply) -> String {
        let logs: String = self.servers.iter().map(|peer| peer.process().log_tail()).collect();
        format!("{}{logs}", String::from_utf8_lossy(&reply.body))
    }

    fn login(&self) -> String {
        let reply = self.get(0, "/login", "");
        assert_eq!(reply.status, 200, "{}", self.said(&reply));
        let line = reply.all("set-cookie").next().unwrap().to_owned();
        line.split(';').next().unwrap().to_owned()
    }

    fn alive(&self, cookie: &str) -> bool {
        self.json(1, "/get", cookie) != serde_json::json!({})
    }

    /// A: 8 clients, each with 25 increments, on one session; the share of acknowledged ones that is lost.
    fn lost_increments(&self, mode: fn(usize) -> &'static str) -> i64 {
        let cookie = self.login();
        thread::scope(|scope| {
            for client in 0..8 {
                let cookie = &cookie;
                scope.spawn(move || {
                    for turn in 0..25 {
                        self.json(client, &format!("/inc?d=4&mode={}", mode(client + turn)), cookie);
                    }
                });
            }
        });
        200 - self.json(0, "/get", &cookie)["n"].as_i64().unwrap()
    }

    /// B: 40 parallel requests, each of which sets a key of its own; how many are kept.
    fn keys_kept(&self) -> usize {
        let cookie = self.login();
        let ready = Barrier::new(40);
        thread::scope(|scope| {
            for client in 0..40 {
                let (cookie, ready) = (&cookie, &ready);
                scope.spawn(move || {
                    ready.wait();
                    self.json(client, &format!("/setk?k={client}&d=10"), cookie);
                });
            }
        });
        let all = self.json(0, "/get", &cookie);
        (0..40).filter(|n| all.get(format!("k{n}")) == Some(&1.into())).count()
    }

    /// C: a slow request, writing or only reading, around a logout; how many of 12 sessions live on.
    fn revived(&self, writes: u8) -> usize {
        twelve_times(|| {
            let cookie = self.login();
            thread::scope(|scope| {
                let begun = Instant::now();
                let slow = scope.spawn(|| self.get(0, &format!("/slow?d=150&w={writes}"), &cookie));
                thread::sleep(Duration::from_millis(50));
                assert_eq!(self.json(1, "/logout", &cookie)["destroyed"], true);
                // Else it may have written before the logout.
                let in_time = begun.elapsed() < Duration::from_millis(150);
                let slow = slow.join().unwrap();
                // On a slow machine it may have begun after the logout: then it has a session of its own.
                if slow.all("set-cookie").next().is_none() {
                    // In PHP it holds the lock, and the logout waits for it.
                    let lost = writes == 1 && matches!(self.servers[0], Peer::Ours(_));
                    if in_time || !lost {
                        assert_eq!(slow.status, if lost { 409 } else { 200 });
                    }
                }
            });
            self.alive(&cookie)
        })
    }

    /// D: a slow request that only reads, around a write; how many of 12 writes are erased.
    fn erased(&self) -> usize {
        twelve_times(|| {
            let cookie = self.login();
            thread::scope(|scope| {
                let slow = scope.spawn(|| self.json(0, "/slow?d=120&w=0", &cookie));
                thread::sleep(Duration::from_millis(40));
                self.json(1, "/setk?k=1&d=0", &cookie);
                slow.join().unwrap();
            });
            self.json(0, "/get", &cookie).get("k1").is_none()
        })
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.lost_increments(|_| "update"), 0, "A, update");
        assert_eq!(self.lost_increments(|_| "start"), 0, "A, start");
        assert_eq!(self.lost_increments(|n| if n % 2 == 0 { "update" } else { "start" }), 0, "A, both");
        assert_eq!(self.keys_kept(), 40, "B");
        assert_eq!(self.revived(1), 0, "C-w");
        assert_eq!(self.revived(0), 0, "C-r");
        assert_eq!(self.erased(), 0, "D");
    }
}

#[test]
fn nothing_is_lost_in_memory() {
    Race::on::<1>("memory:").check();
}

#[test]
fn nothing_is_lost_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("files://{}", directory.path().display());
    Race::on::<1>(&url).check();
}

#[test]
fn nothing_is_lost_between_two_processes_on_files() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("files://{}", directory.path().display());
    Race::on::<2>(&url).check();
}

/// One process, and two, on one server; each with sessions of its own.
fn check_one_and_two(url: &str) {
    Race::on::<1>(url).check();
    Race::on::<2>(url).check();
}

#[test]
fn nothing_is_lost_in_redis() {
    if skip("redis") {
        return;
    }
    let server = RedisServer::start(&[]).unwrap();
    check_one_and_two(&format!("redis://{}", server.addr()));
}

/// In the layout of php-redis, and in our own.
#[test]
fn nothing_is_lost_on_a_cluster_of_redis() {
    if skip("redis") {
        return;
    }
    let cluster = RedisCluster::start().unwrap();
    let url = format!("redis+cluster://{}", cluster.hosts());
    Race::on::<2>(&url).check();
    Race::on::<2>(&format!("{url}?layout=tagged")).check();
}

#[test]
fn nothing_is_lost_in_memcached() {
    if skip("memcached") {
        return;
    }
    let server = Memcached::start(&[]).unwrap();
    check_one_and_two(&format!("memcached://{}", server.addr()));
}

#[test]
fn nothing_is_lost_on_three_memcached_servers() {
    if skip("memcached") {
        return;
    }
    let servers = [(); 3].map(|()| Memcached::start(&[]).unwrap());
    let hosts: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    check_one_and_two(&format!("memcached://{}", hosts.join(",")));
}

#[test]
fn nothing_is_lost_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    check_one_and_two(&format!("sqlite://{}/sessions.db", directory.path().display()));
}

#[test]
fn nothing_is_lost_in_postgresql() {
    if skip("postgres") {
        return;
    }
    let server = Postgres::start(&[]).unwrap();
    let url = format!("{}?sslmode=disable", server.url("postgres"));
    check_one_and_two(&url);
    Race::on::<2>(&format!("{url}&layout=symfony&lock=transactional&table=transactional&migrate=yes")).check();
    Race::on::<2>(&format!("{url}&layout=symfony&lock=advisory&table=advisory&migrate=yes")).check();
}

#[test]
fn nothing_is_lost_in_mariadb() {
    if skip("mariadb") {
        return;
    }
    let server = MariaDb::start(&[]).unwrap();
    server.sql("mysql", "CREATE DATABASE races").unwrap();
    let url = format!("{}?sslmode=disabled", server.url("races"));
    check_one_and_two(&url);
    Race::on::<2>(&format!("{url}&layout=symfony&lock=transactional&table=transactional&migrate=yes")).check();
    Race::on::<2>(&format!("{url}&layout=symfony&lock=advisory&table=advisory&migrate=yes")).check();
}

/// `update` holds nothing while a handler thinks, so that 200 increments with 4 ms of thinking by 8 clients take about
/// 25 times 4 ms, and not 200 times.
#[test]
fn updates_do_not_wait_for_each_others_thinking() {
    let race = Race::on::<1>("memory:");
    let cookie = race.login();
    let begun = Instant::now();
    thread::scope(|scope| {
        for client in 0..8 {
            let (race, cookie) = (&race, &cookie);
            scope.spawn(move || race.json(client, "/inc?d=400&mode=update", cookie));
        }
    });
    assert!(begun.elapsed() < Duration::from_millis(8 * 400), "{:?}", begun.elapsed());
}

/// Also where one lock holds up the whole store.
#[test]
fn a_rotated_session_is_found_under_both_ids() {
    let directory = tempfile::tempdir().unwrap();
    let one_lock =
        format!("sqlite://{}/s.db?layout=symfony&lock=transactional&migrate=yes", directory.path().display());
    for url in ["memory:", &one_lock] {
        let race = Race::on::<1>(url);
        let old = race.login();
        let ready = Barrier::new(8);
        let rotate = |client| {
            ready.wait();
            let reply = race.get(client, "/rot", &old);
            assert_eq!(reply.status, 200, "{}", race.said(&reply));
            reply.all("set-cookie").next().unwrap().split(';').next().unwrap().to_owned()
        };
        let new: BTreeSet<_> = thread::scope(|scope| {
            let rotating: Vec<_> = (0..8).map(|client| scope.spawn(move || rotate(client))).collect();
            rotating.into_iter().map(|rotating| rotating.join().unwrap()).collect()
        });
        assert_eq!(new.len(), 1, "each request moved the session");
        let new = new.first().unwrap();
        assert_ne!(&old, new);
        assert!(race.alive(&old) && race.alive(new));
        race.json(0, "/logout", new);
        assert!(!race.alive(new));
        assert_eq!(race.get(0, "/get", &old).status, 409);
    }
}
