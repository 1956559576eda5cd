//! The two servers, and a fresh place on them for each test.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use cloakroom_testkit::php::skip;
use cloakroom_testkit::servers::mariadb::MariaDb;
use cloakroom_testkit::servers::postgres::Postgres;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
}

/// Whether the tests of this server are left out.
pub(crate) fn skipped(kind: Kind) -> bool {
    skip(match kind {
        Kind::Postgres => "postgres",
        Kind::MariaDb => "mariadb",
    })
}

pub(crate) fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(&[]).unwrap_or_else(|failure| panic!("{failure}")))
}

pub(crate) fn mariadb() -> &'static MariaDb {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    SERVER.get_or_init(|| MariaDb::start(&[]).unwrap_or_else(|failure| panic!("{failure}")))
}

/// A number that no other test of this program has.
pub(crate) fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A database of its own, and its URL, which ends so that options can follow.
pub(crate) fn fresh(kind: Kind) -> (String, String) {
    let name = format!("t{}", number());
    let create = format!("CREATE DATABASE {name}");
    match kind {
        Kind::Postgres => {
            postgres().sql("postgres", &create).unwrap();
            (format!("{}?sslmode=disable", postgres().url(&name)), name)
        }
        Kind::MariaDb => {
            mariadb().sql("mysql", &create).unwrap();
            (format!("{}?sslmode=disabled", mariadb().url(&name)), name)
        }
    }
}

/// Ends whoever is still in a database of PostgreSQL's, and removes all that is in it.
pub(crate) const EMPTY: &str = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
    WHERE datname = current_database() AND pid <> pg_backend_pid(); \
    DROP SCHEMA public CASCADE; CREATE SCHEMA public";

/// A database that is lent: nobody else uses it meanwhile. One of PostgreSQL's is three hundred files, which cost more
/// than most tests, so those of earlier tests are emptied and lent again.
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) database: String,
    pub(crate) kind: Kind,
}

static FREE: Mutex<VecDeque<(String, String)>> = Mutex::new(VecDeque::new());

/// A database with nothing in it. Who changes its settings takes a [`fresh`] one.
pub(crate) fn lend(kind: Kind) -> Place {
    // The one that has been free for the longest, as far as its last test's tasks are concerned.
    let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (address, database) = match (kind == Kind::Postgres).then(free).flatten() {
        Some((address, database)) => {
            postgres().sql(&database, EMPTY).unwrap();
            (address, database)
        }
        None => fresh(kind),
    };
    Place { address, database, kind }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kind == Kind::Postgres && !std::thread::panicking() {
            let place = (std::mem::take(&mut self.address), std::mem::take(&mut self.database));
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push_back(place);
        }
    }
}

/// Runs SQL beside the store.
pub(crate) fn sql(kind: Kind, database: &str, sql: &str) -> String {
    match kind {
        Kind::Postgres => postgres().sql(database, sql).unwrap(),
        Kind::MariaDb => mariadb().sql(database, sql).unwrap(),
    }
}
