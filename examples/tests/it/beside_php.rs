//! The race table with PHP as the other process, on every store that both can lock.

use std::path::Path;

use cloakroom_testkit::php::{Options, PhpServer, skip};
use cloakroom_testkit::servers::mariadb::MariaDb;
use cloakroom_testkit::servers::memcached::Memcached;
use cloakroom_testkit::servers::postgres::Postgres;
use cloakroom_testkit::servers::redis::RedisServer;

use crate::races::{Peer, Race};

/// Half of the clients ask PHP, the other half ours, at `url`; in both orders, as the order says who is logged in and
/// who is slow. `settings` are for PHP.
fn check(url: &str, settings: &[String]) {
    let php = || {
        let own = ["session.use_strict_mode=1", "session.gc_probability=0"].map(str::to_owned);
        let settings = own.into_iter().chain(settings.iter().cloned()).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/races.php");
        Peer::Php(PhpServer::start(&script, &Options { settings, workers: 8 }).unwrap())
    };
    Race { servers: vec![Peer::ours(url), php()] }.check();
    Race { servers: vec![php(), Peer::ours(url)] }.check();
}

fn without(needs: &[&str]) -> bool {
    needs.iter().any(|name| skip(name))
}

/// php.ini's settings, and the extensions that they need.
fn settings(extensions: &[&str], pairs: &[(&str, &str)]) -> Vec<String> {
    let extensions = extensions.iter().map(|name| format!("extension={name}"));
    extensions.chain(pairs.iter().map(|(name, value)| format!("{name}=\"{value}\""))).collect()
}

#[test]
fn nothing_is_lost_beside_php_on_files() {
    if without(&["php"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    check(&format!("files://{path}"), &settings(&[], &[("session.save_path", &path)]));
}

/// With php-redis' lock, and with patience: with its defaults it gives up after 100 tries.
#[test]
fn nothing_is_lost_beside_php_in_redis() {
    if without(&["php", "php-redis", "redis"]) {
        return;
    }
    let server = RedisServer::start(&[]).unwrap();
    let pairs = [
        ("session.save_handler", "redis"),
        ("session.save_path", &format!("tcp://{}", server.addr())),
        ("redis.session.locking_enabled", "1"),
        ("redis.session.lock_retries", "20000"),
        ("redis.session.lock_wait_time", "2000"),
    ];
    check(&format!("redis://{}", server.addr()), &settings(&["igbinary", "redis"], &pairs));
}

/// With php-memcached's lock, which is on by default, and with patience.
#[test]
fn nothing_is_lost_beside_php_in_memcached() {
    if without(&["php", "php-memcached", "memcached"]) {
        return;
    }
    let server = Memcached::start(&[]).unwrap();
    let pairs = [
        ("session.save_handler", "memcached"),
        ("session.save_path", &server.addr().to_string()),
        ("memcached.sess_lock_wait_min", "2"),
        ("memcached.sess_lock_wait_max", "2"),
        ("memcached.sess_lock_retries", "20000"),
    ];
    check(&format!("memcached://{}", server.addr()), &settings(&["igbinary", "msgpack", "memcached"], &pairs));
}

/// Beside Symfony's `PdoSessionHandler` in both of its locking modes, each in a database of its own: `place` makes it and
/// gives its URL with a first option, and what PHP calls it, with its user.
fn check_symfony(extensions: &[&str], place: impl Fn(&str) -> (String, String)) {
    for (lock, mode) in [("advisory", 1), ("transactional", 2)] {
        let (url, dsn_and_user) = place(lock);
        let url = format!("{url}&layout=symfony&lock={lock}&migrate=yes");
        check(&url, &settings(extensions, &[("races.pdo", &format!("{dsn_and_user} {mode}"))]));
    }
}

#[test]
fn nothing_is_lost_beside_symfony_in_postgresql() {
    if without(&["php", "php-pgsql", "symfony", "postgres"]) {
        return;
    }
    let server = Postgres::start(&[]).unwrap();
    check_symfony(&["pdo", "pdo_pgsql", "ctype"], |database| {
        server.sql("postgres", &format!("CREATE DATABASE {database}")).unwrap();
        (format!("{}?sslmode=disable", server.url(database)), format!("{} postgres", server.dsn(database)))
    });
}

#[test]
fn nothing_is_lost_beside_symfony_in_mariadb() {
    if without(&["php", "php-mysql", "symfony", "mariadb"]) {
        return;
    }
    let server = MariaDb::start(&[]).unwrap();
    check_symfony(&["mysqlnd", "pdo", "pdo_mysql", "ctype"], |database| {
        server.sql("mysql", &format!("CREATE DATABASE {database}")).unwrap();
        (format!("{}?sslmode=disabled", server.url(database)), format!("{} root", server.dsn(database)))
    });
}

/// SQLite has no smaller lock than that of the whole database.
#[test]
fn nothing_is_lost_beside_symfony_in_sqlite() {
    if without(&["php", "php-sqlite3", "symfony"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = format!("{}/sessions.db", directory.path().display());
    let pdo = format!("sqlite:{path} root 2");
    let url = format!("sqlite://{path}?layout=symfony&lock=transactional&migrate=yes");
    check(&url, &settings(&["pdo", "pdo_sqlite", "ctype"], &[("races.pdo", &pdo)]));
}
