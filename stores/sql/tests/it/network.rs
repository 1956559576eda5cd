//! The suite of failures, through a proxy that breaks the network at every byte, on both servers.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{DynStore, Key};
use cloakroom_store_sql::SqlStore;
use cloakroom_testkit::conformance::Harness as _;
use cloakroom_testkit::network::{Networked, Server, Trips};
use cloakroom_testkit::proxy::Proxy;
use cloakroom_testkit::servers::mariadb::MariaDb;
use cloakroom_testkit::servers::postgres::Postgres;

use crate::proxy::PINGS;
use crate::servers::{Kind, fresh};
use crate::util::{Fresh, LEASE, open};

/// A store behind a proxy, and one beside it.
struct Through {
    proxy: Proxy,
    url: String,
    store: SqlStore,
    beside: Fresh,
    own: Option<Own>,
}

/// A server of its own.
enum Own {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Through {
    /// On the server of all tests, in a database of its own.
    async fn shared(kind: Kind, options: &str) -> Through {
        let (address, database) = fresh(kind);
        Through::on(kind, &address, database, options, None).await
    }

    /// On a server of its own.
    async fn own(kind: Kind, options: &str) -> Through {
        let (own, address) = match kind {
            Kind::Postgres => {
                // What was acknowledged is to survive.
                let server = Postgres::start(&["synchronous_commit=on"]).unwrap();
                let address = format!("{}?sslmode=disable", server.url("postgres"));
                (Own::Postgres(server), address)
            }
            Kind::MariaDb => {
                let server = MariaDb::start(&[]).unwrap();
                server.sql("mysql", "CREATE DATABASE app").unwrap();
                let address = format!("{}?sslmode=disabled", server.url("app"));
                (Own::MariaDb(server), address)
            }
        };
        Through::on(kind, &address, "own".to_owned(), options, Some(own)).await
    }

    async fn on(kind: Kind, address: &str, database: String, options: &str, own: Option<Own>) -> Through {
        let beside = Fresh::at(kind, address, database, options).await;
        let (before, rest) = beside.url.split_once('@').unwrap();
        let (server, after) = rest.split_once('/').unwrap();
        let proxy = Proxy::before(server.parse().unwrap()).unwrap();
        proxy.leave_out(|bytes| PINGS.contains(&bytes));
        let url = format!("{before}@{}/{after}", proxy.addr());
        Through { store: open(&url).await, proxy, url, beside, own }
    }
}

impl Networked for Through {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    async fn another(&self) -> Arc<dyn DynStore> {
        Arc::new(open(&self.url).await)
    }

    fn trusted(&self) -> Arc<dyn DynStore> {
        self.beside.store()
    }

    fn lock_life(&self) -> Duration {
        LEASE
    }

    async fn age(&self, key: &Key, by: Duration) {
        self.beside.age(key, by).await;
    }

    fn server(&self) -> Option<&dyn Server> {
        match self.own.as_ref()? {
            Own::Postgres(server) => Some(server),
            Own::MariaDb(server) => Some(server),
        }
    }

    /// What Symfony's protocol needs; cloakroom's own needs no more than the rules allow.
    fn trips(&self) -> Trips {
        let (ideal, postgres) = (Trips::default(), self.beside.kind == Kind::Postgres);
        match (self.url.contains("layout=symfony"), self.url.contains("lock=advisory")) {
            (false, _) => ideal,
            (true, _) if postgres => Trips { start: 4, ..ideal },
            (true, true) => Trips { start: 4, update: 5, create: 4, ..ideal },
            (true, false) => Trips { start: 4, update: 5, create: 5, touch: 4, ..ideal },
        }
    }

    /// Locks of PostgreSQL's are told apart by eight bytes, those of MariaDB's are the whole server's.
    fn key(&self, name: &str) -> Key {
        self.beside.key(name)
    }
}

macro_rules! on {
    ($module:ident, $kind:ident, $options:literal) => {
        mod $module {
            use super::Through;
            use crate::servers::{Kind, skipped};

            macro_rules! unless_skipped {
                ($through:expr) => {
                    if skipped(Kind::$kind) {
                        return;
                    } else {
                        $through.await
                    }
                };
            }

            cloakroom_testkit::store_faults!(unless_skipped!(Through::shared(Kind::$kind, $options)));
            cloakroom_testkit::store_server_faults!(unless_skipped!(Through::own(Kind::$kind, $options)));
        }
    };
}

on!(postgres_native, Postgres, "layout=native");
on!(mariadb_native, MariaDb, "layout=native");
on!(postgres_transactional, Postgres, "layout=symfony&migrate=yes&lock=transactional");
on!(mariadb_transactional, MariaDb, "layout=symfony&migrate=yes&lock=transactional");
on!(postgres_advisory, Postgres, "layout=symfony&migrate=yes&lock=advisory");
on!(mariadb_advisory, MariaDb, "layout=symfony&migrate=yes&lock=advisory");
