//! The two servers, and a fresh place on them for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Runs SQL beside the store.
pub(crate) fn sql(kind: Kind, database: &str, sql: &str) -> String {
    match kind {
        Kind::Postgres => postgres().sql(database, sql).unwrap(),
        Kind::MariaDb => mariadb().sql(database, sql).unwrap(),
    }
}
