//! The suite of failures, through a proxy that breaks the network at every byte, on both servers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::store::Claim;
use cloakroom_core::{Deadline, DynStore, Key};
use cloakroom_store_sql::{SqlConfig, SqlStore};
use cloakroom_testkit::conformance::Harness as _;
use cloakroom_testkit::network::{Networked, Server, Trips};
use cloakroom_testkit::proxy::Proxy;
use cloakroom_testkit::servers::mariadb::MariaDb;
use cloakroom_testkit::servers::postgres::Postgres;
use tokio::time::sleep;

use crate::proxy::PINGS;
use crate::servers::{EMPTY, Kind, lend, number, skipped};
use crate::util::{Fresh, LEASE, create, hold, open};

/// A store behind a proxy, and one beside it.
struct Through {
    proxy: Proxy,
    url: String,
    store: SqlStore,
    beside: Fresh,
    own: Option<Own>,
}

/// A server that nobody else uses meanwhile. It is lent by those of earlier cases, or started; and given back as it was.
struct Own {
    server: Option<Lent>,
}

enum Lent {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

static FREE: Mutex<Vec<Lent>> = Mutex::new(Vec::new());

impl Own {
    fn lend(kind: Kind) -> Own {
        let of_kind = |lent: &Lent| matches!(lent, Lent::Postgres(_)) == (kind == Kind::Postgres);
        let free = {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.iter().position(of_kind).map(|at| free.swap_remove(at))
        };
        let server = free.unwrap_or_else(|| match kind {
            // What was acknowledged is to survive.
            Kind::Postgres => Lent::Postgres(Postgres::start(&["synchronous_commit=on"]).unwrap()),
            Kind::MariaDb => Lent::MariaDb(MariaDb::start(&[]).unwrap()),
        });
        Own { server: Some(server) }
    }

    /// A database there with nothing in it.
    fn database(&self) -> (String, String) {
        match self.server.as_ref().unwrap() {
            Lent::Postgres(server) => {
                server.sql("postgres", EMPTY).unwrap();
                (format!("{}?sslmode=disable", server.url("postgres")), "postgres".to_owned())
            }
            Lent::MariaDb(server) => {
                let name = format!("own{}", number());
                server.sql("mysql", &format!("CREATE DATABASE {name}")).unwrap();
                (format!("{}?sslmode=disabled", server.url(&name)), name)
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // A case that failed may have left it stopped.
        if let Some(server) = self.server.take().filter(|_| !std::thread::panicking()) {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        }
    }
}

impl Through {
    /// On the server of all tests, in a database of its own.
    async fn shared(kind: Kind, options: &str) -> Through {
        Through::before(Fresh::lent(lend(kind), options).await, None).await
    }

    /// On a server of its own.
    async fn own(kind: Kind, options: &str) -> Through {
        let own = Own::lend(kind);
        let (address, database) = own.database();
        Through::before(Fresh::at(kind, &address, database, options).await, Some(own)).await
    }

    async fn before(beside: Fresh, own: Option<Own>) -> Through {
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
        match self.own.as_ref()?.server.as_ref()? {
            Lent::Postgres(server) => Some(server),
            Lent::MariaDb(server) => Some(server),
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
    ($module:ident, $kind:ident, $options:literal $(, $server:ident)?) => {
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
            $(
                mod $server {
                    use super::super::Through;
                    use super::{Kind, skipped};

                    cloakroom_testkit::store_server_faults!(unless_skipped!(Through::own(Kind::$kind, $options)));
                }
            )?
        }
    };
}

on!(postgres_native, Postgres, "layout=native", server);
on!(mariadb_native, MariaDb, "layout=native", server);
on!(postgres_transactional, Postgres, "layout=symfony&migrate=yes&lock=transactional", server);
on!(mariadb_transactional, MariaDb, "layout=symfony&migrate=yes&lock=transactional", server);
// A server that ends or hangs takes a connection with all that it holds, be that a transaction or a lock of the session.
// `faults::a_server_that_hangs_is_unavailable_in_time` is about these.
on!(postgres_advisory, Postgres, "layout=symfony&migrate=yes&lock=advisory");
on!(mariadb_advisory, MariaDb, "layout=symfony&migrate=yes&lock=advisory");

/// A lease that could not be given back in an outage is given back afterwards, long before it has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_given_back_when_the_network_is_back() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let through = Through::shared(kind, "layout=native").await;
        let config = SqlConfig::from_url(&through.url).unwrap().lease(Duration::from_mins(10));
        let (store, key) = (SqlStore::open(config).await.unwrap(), through.key("lease"));
        create(&through.beside.store, &key, "data").await;
        for dropped in [false, true] {
            let lease = hold(&store, &key).await.lease;
            through.proxy.swallow_all();
            if dropped {
                drop(lease);
            } else {
                lease.release().await;
            }
            sleep(Duration::from_millis(100)).await;
            through.proxy.heal();
            let limit = Deadline::new(Duration::from_mins(1), Duration::from_secs(20));
            let next = DynStore::lock(&through.beside.store, &key, Claim::Existing, &limit).await.unwrap().unwrap();
            next.lease.release().await;
        }
    }
}
