//! Tables that are made by many at once, are there already, or are not there; and a clock that no zone has a say in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloakroom_core::ErrorKind;
use cloakroom_core::store::Expect;
use cloakroom_store_sql::{SqlConfig, SqlStore};
use cloakroom_testkit::conformance::Harness as _;

use crate::servers::{Kind, fresh, mariadb, number, postgres, skipped, sql};
use crate::util::{Beside, Fresh, commit, create, load, open, write};

/// Eight nodes of a service that start together on an empty database, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_nodes_may_make_the_tables_at_once() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        for layout in ["native", "symfony"] {
            for _ in 0..5 {
                let (address, database) = fresh(kind);
                let url = format!("{address}&layout={layout}&migrate=yes");
                let nodes: Vec<_> = (0..8)
                    .map(|_| {
                        let url = url.clone();
                        tokio::spawn(async move { SqlStore::open(SqlConfig::from_url(&url).unwrap()).await })
                    })
                    .collect();
                for (n, node) in nodes.into_iter().enumerate() {
                    let store = node.await.unwrap().unwrap();
                    create(&store, &cloakroom_core::Key::from_bytes(format!("key-{n}").into_bytes()), "data").await;
                }
                let indexes = match kind {
                    Kind::Postgres => "SELECT COUNT(*) FROM pg_indexes WHERE schemaname = 'public'".to_owned(),
                    Kind::MariaDb => format!(
                        "SELECT COUNT(DISTINCT table_name, index_name) FROM information_schema.statistics \
                         WHERE table_schema = '{database}'"
                    ),
                };
                assert_eq!(sql(kind, &database, &indexes), "3", "two primary keys and the index of expiry");
            }
        }
    }
}

/// Whoever runs the service may have no right to make tables.
#[tokio::test]
async fn tables_that_are_there_need_no_right_to_make_them() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, database) = fresh(kind);
        let owner = open(&format!("{address}&pool=4")).await;
        let key = cloakroom_core::Key::from_bytes(*b"key");
        create(&owner, &key, "data").await;
        let user = format!("servant{}", number());
        let restricted = match kind {
            Kind::Postgres => {
                let rights = format!(
                    "CREATE ROLE {user} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
                     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
                );
                sql(kind, &database, &rights);
                format!("{}?sslmode=disable", postgres().url_as(&user, &database))
            }
            Kind::MariaDb => {
                let rights = format!(
                    "CREATE USER {user}@'%'; GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {user}@'%'"
                );
                sql(kind, &database, &rights);
                format!("{}?sslmode=disabled", mariadb().url_as(&user, &database))
            }
        };
        let servant = open(&restricted).await;
        assert_eq!(load(&servant, &key).await.unwrap().payload, "data");
        commit(&servant, &key, Expect::Any, write("more")).await.unwrap();
        let error = SqlStore::open(SqlConfig::from_url(&format!("{restricted}&table=another")).unwrap()).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Config, "{kind:?}: it cannot make this one");
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_and_is_not_to_be_made_is_a_wrong_setup() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, database) = fresh(kind);
        for options in ["migrate=no", "layout=symfony", "table=nowhere.sessions&migrate=no"] {
            let error =
                SqlStore::open(SqlConfig::from_url(&format!("{address}&{options}")).unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{kind:?} {options}");
        }
        sql(kind, &database, "CREATE TABLE sessions (sess_id VARCHAR(128) PRIMARY KEY, payload INT)");
        let url = format!("{address}&layout=symfony&migrate=yes");
        let error = SqlStore::open(SqlConfig::from_url(&url).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{kind:?}: a table with other columns");
    }
}

/// Names as Symfony's options give them, in a schema of their own.
#[tokio::test]
async fn tables_and_columns_may_have_other_names() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let (address, database) = fresh(kind);
        let schema = format!("s{}", number());
        sql(kind, &database, &format!("CREATE SCHEMA {schema}"));
        let options = format!(
            "layout=symfony&migrate=yes&table={schema}.Visits&id_col=Id&data_col=user&lifetime_col=until&time_col=at"
        );
        let store = open(&format!("{address}&{options}")).await;
        let key = cloakroom_core::Key::from_bytes(*b"key");
        create(&store, &key, "data").await;
        commit(&store, &key, Expect::Any, cloakroom_core::store::Put::SetAside).await.unwrap();
        create(&store, &key, "data").await;
        let quoted = if kind == Kind::Postgres { "\"user\"" } else { "`user`" };
        let table = if kind == Kind::Postgres { "visits" } else { "Visits" };
        let found = sql(kind, &database, &format!("SELECT LENGTH({quoted}) FROM {schema}.{table}"));
        assert_eq!(found, "4", "{kind:?}");
        assert_eq!(sql(kind, &database, &format!("SELECT COUNT(*) FROM {schema}.cloakroom_aside")), "1");
        let native = open(&format!("{address}&table={schema}.own")).await;
        create(&native, &key, "data").await;
        assert_eq!(sql(kind, &database, &format!("SELECT COUNT(*) FROM {schema}.own")), "1");
    }
}

/// The servers of these tests live in Newfoundland; sessions of the connection in places that are odd as well.
#[tokio::test]
async fn no_time_zone_changes_anything() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let zones = match kind {
            Kind::Postgres => ["options[TimeZone]=Pacific/Kiritimati", "options[TimeZone]=America/St_Johns"],
            Kind::MariaDb => ["timezone=%2B12:45", "timezone=-11:30"],
        };
        for layout in ["native", "symfony&migrate=yes&lock=none"] {
            let (address, database) = fresh(kind);
            let fresh = Fresh::at(kind, &address, database, &format!("{}&layout={layout}", zones[0])).await;
            if kind == Kind::Postgres {
                let zone = format!("ALTER DATABASE {} SET TimeZone = 'Asia/Kathmandu'", fresh.database);
                sql(kind, "postgres", &zone);
            }
            let elsewhere = open(&fresh.url.replace(zones[0], zones[1])).await;
            let key = fresh.key("clock");
            create(&fresh.store, &key, "data").await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let column = match (layout, kind) {
                ("native", _) => "expires_at / 1000",
                _ => "sess_lifetime",
            };
            let cast = if kind == Kind::Postgres { "bigint" } else { "SIGNED" };
            let (table, end) = (if layout == "native" { "cloakroom_sessions" } else { "sessions" }, column);
            let end = fresh.beside.number(format!("SELECT CAST({end} AS {cast}) FROM {table}")).await.unwrap();
            let life = u64::try_from(end).unwrap() - now;
            assert!((1435..=1442).contains(&life), "{kind:?} {layout}: {life}");
            for store in [&fresh.store, &elsewhere] {
                let ttl = load(store, &key).await.unwrap().ttl.unwrap();
                assert!(ttl > Duration::from_secs(1430) && ttl <= Duration::from_secs(1441), "{kind:?}: {ttl:?}");
            }
            fresh.age(&key, Duration::from_secs(1442)).await;
            assert!(load(&elsewhere, &key).await.is_none());
            assert_eq!(cloakroom_core::Store::sweep(&elsewhere, 10).await.unwrap().removed, 1);
        }
    }
}

/// Also an address, with what follows it.
#[tokio::test]
async fn a_unix_socket_works() {
    if !skipped(Kind::Postgres) {
        let (_, database) = fresh(Kind::Postgres);
        let store = open(&postgres().socket_url(&database)).await;
        create(&store, &cloakroom_core::Key::from_bytes(*b"key"), "data").await;
    }
    if !skipped(Kind::MariaDb) {
        let (_, database) = fresh(Kind::MariaDb);
        let store = open(&mariadb().socket_url(&database)).await;
        create(&store, &cloakroom_core::Key::from_bytes(*b"key"), "data").await;
    }
}

/// At open it is known to be wrong; and nothing of it is shown.
#[tokio::test]
async fn a_wrong_password_is_a_wrong_setup_and_is_not_shown() {
    let mut urls = Vec::new();
    if !skipped(Kind::Postgres) {
        let (_, database) = fresh(Kind::Postgres);
        sql(
            Kind::Postgres,
            &database,
            "DROP ROLE IF EXISTS keyholder; CREATE ROLE keyholder LOGIN SUPERUSER PASSWORD 'sesame'",
        );
        assert!(open(&postgres().url_as("keyholder:sesame", &database)).await.connects().await);
        urls.push(postgres().url_as("keyholder:hunter2", &database));
        urls.push(postgres().url("hunter2"));
    }
    if !skipped(Kind::MariaDb) {
        let (_, database) = fresh(Kind::MariaDb);
        let user = "CREATE OR REPLACE USER keyholder@'%' IDENTIFIED BY 'sesame'; GRANT ALL ON *.* TO keyholder@'%'";
        sql(Kind::MariaDb, &database, user);
        assert!(open(&mariadb().url_as("keyholder:sesame", &database)).await.connects().await);
        urls.push(mariadb().url_as("keyholder:hunter2", &database));
        urls.push(mariadb().url("hunter2"));
    }
    for url in urls {
        let error = SqlStore::open(SqlConfig::from_url(&url).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("hunter2") && !format!("{error:?}").contains("keyholder"), "{error:?}");
    }
}

trait Connects {
    async fn connects(&self) -> bool;
}

impl Connects for SqlStore {
    async fn connects(&self) -> bool {
        load(self, &cloakroom_core::Key::from_bytes(*b"key")).await.is_none()
    }
}

/// A default of the server's that our statements do not rely on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stricter_isolation_of_the_servers_loses_nothing() {
    if skipped(Kind::Postgres) {
        return;
    }
    let (address, database) = fresh(Kind::Postgres);
    let zone = format!("ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'");
    sql(Kind::Postgres, "postgres", &zone);
    let beside = Beside::open(&address).await;
    let store = open(&address).await;
    let key = cloakroom_core::Key::from_bytes(*b"key");
    create(&store, &key, "").await;
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (url, key) = (address.clone(), key.clone());
            tokio::spawn(async move {
                let store = open(&url).await;
                for _ in 0..20 {
                    let mut record = load(&store, &key).await.unwrap();
                    while let cloakroom_core::store::Outcome::Conflict(now) = {
                        let longer = [&record.payload[..], b"x"].concat();
                        commit(&store, &key, Expect::Is(&record.version), write(longer)).await.unwrap()
                    } {
                        record = now;
                    }
                }
            })
        })
        .collect();
    for other in others {
        other.await.unwrap();
    }
    let length = "SELECT LENGTH(payload)::bigint FROM cloakroom_sessions".to_owned();
    assert_eq!(beside.number(length).await, Some(80));
}
