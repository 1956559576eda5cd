//! Sweeping many rows: by the index, in bounded steps, and beside requests that hardly notice.

use std::time::Duration;

use cloakroom_core::store::Expect;
use cloakroom_core::{Key, Store};
use cloakroom_store_sql::SqlStore;
use tokio::time::Instant;

use crate::servers::{Kind, skipped, sql};
use crate::util::{Fresh, commit, load, open, write};

/// How many sessions there are, of which nine of ten have expired.
fn sessions(kind: Kind) -> u64 {
    let many = std::env::var("CLOAKROOM_SQL_SESSIONS").ok().map_or(5_000, |number| number.parse().unwrap());
    // MariaDB keeps rows in the order of their ids, which are random: more than fit into the little memory that it has
    // here make a test of the disk.
    if kind == Kind::MariaDb { many.min(100_000) } else { many }
}

/// Fills the table with sessions of 200 bytes; those whose number ends in 0 are alive.
fn fill(kind: Kind, database: &str, native: bool) {
    let many = sessions(kind);
    let (series, md5, now) = match kind {
        Kind::Postgres => {
            (format!("generate_series(1, {many}) AS s(n)"), "md5(n::text)", "extract(epoch FROM now())::bigint")
        }
        Kind::MariaDb => (format!("(SELECT seq AS n FROM seq_1_to_{many}) AS s"), "md5(n)", "UNIX_TIMESTAMP()"),
    };
    let id = if kind == Kind::Postgres && native { format!("{md5}::bytea") } else { md5.to_owned() };
    let data = match kind {
        Kind::Postgres => "repeat('x', 200)::bytea",
        Kind::MariaDb => "repeat('x', 200)",
    };
    let end = format!("CASE WHEN n % 10 = 0 THEN {now} + 3600 ELSE {now} - 1 - n % 1000 END");
    let insert = if native {
        format!(
            "INSERT INTO cloakroom_sessions (id, payload, version, expires_at, created_at, last_seen_at) \
             SELECT {id}, {data}, n, ({end}) * 1000, 0, 0 FROM {series}"
        )
    } else {
        format!("INSERT INTO sessions SELECT {id}, {data}, {end}, {now} FROM {series}")
    };
    let table = if native { "cloakroom_sessions" } else { "sessions" };
    sql(kind, database, &insert);
    sql(
        kind,
        database,
        &if kind == Kind::Postgres { format!("ANALYZE {table}") } else { format!("ANALYZE TABLE {table}") },
    );
}

/// How many rows of the table were read in the order in which they lie, without an index.
fn scans(kind: Kind, database: &str, table: &str) -> u64 {
    let number = match kind {
        Kind::Postgres => {
            sql(kind, database, &format!("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = '{table}'"))
        }
        Kind::MariaDb => {
            let by_index = format!(
                "SELECT (SELECT ROWS_READ FROM information_schema.TABLE_STATISTICS \
                 WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{table}') - \
                 (SELECT SUM(ROWS_READ) FROM information_schema.INDEX_STATISTICS \
                 WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{table}')"
            );
            sql(kind, database, &by_index)
        }
    };
    number.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_goes_by_the_index_and_in_bounded_steps() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        for options in ["layout=native", "lock=none", "lock=advisory", "lock=transactional"] {
            if skipped(kind) {
                continue;
            }
            let native = options == "layout=native";
            let options = if native { options.to_owned() } else { format!("layout=symfony&migrate=yes&{options}") };
            let name = if kind == Kind::Postgres { "&application_name=sweeper" } else { "" };
            let fresh = Fresh::new(kind, &format!("{options}{name}")).await;
            let table = if native { "cloakroom_sessions" } else { "sessions" };
            if kind == Kind::MariaDb {
                sql(kind, &fresh.database, "SET GLOBAL userstat = 1");
            }
            fill(kind, &fresh.database, native);
            if kind == Kind::MariaDb {
                sql(kind, &fresh.database, "FLUSH TABLE_STATISTICS; FLUSH INDEX_STATISTICS");
            }
            let before = if kind == Kind::Postgres { scans(kind, &fresh.database, table) } else { 0 };
            let (mut removed, mut steps, most) = (0, 0, 4);
            loop {
                let swept = Store::sweep(&fresh.store, 300).await.unwrap();
                assert!(swept.removed <= 300);
                removed += swept.removed as u64;
                steps += 1;
                if swept.done || steps == most {
                    break;
                }
            }
            assert_eq!(removed, (sessions(kind) * 9 / 10).min(300 * most), "{kind:?} {options}");
            drop(fresh.store);
            if kind == Kind::Postgres {
                // What a connection did is counted at its end at the latest.
                let left = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                            AND application_name = 'sweeper'";
                while fresh.beside.number(left.to_owned()).await != Some(0) {}
            }
            let scanned = scans(kind, &fresh.database, table).saturating_sub(before);
            assert!(scanned < sessions(kind) / 10, "{kind:?} {options}: {scanned} rows were looked at in vain");
        }
    }
}

/// Reads, changes and starts for so long; how long each took.
async fn requests(store: &SqlStore, seconds: u64) -> Vec<Duration> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    let mut n = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        n += 10;
        let digest = Key::from_bytes(format!("request-{}", n % 1000).into_bytes());
        let one = Instant::now();
        if let Some(record) = load(store, &digest).await {
            commit(store, &digest, Expect::Is(&record.version), write("changed")).await.unwrap();
        } else {
            commit(store, &digest, Expect::Absent, write("made")).await.unwrap();
        }
        took.push(one.elapsed());
        // A service has other things to do as well.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort();
    took
}

fn percentile(took: &[Duration], percent: usize) -> Duration {
    took[(took.len() * percent / 100).min(took.len() - 1)]
}

/// In the long form, a million sessions, requests beside a sweep take at most half as long again, at the 99th percentile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beside_a_sweep_hardly_notice() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if skipped(kind) {
            continue;
        }
        let fresh = Fresh::new(kind, "layout=native").await;
        fill(kind, &fresh.database, true);
        let long = sessions(kind) >= 100_000;
        let seconds = if long { 20 } else { 1 };
        let store = open(&fresh.url).await;
        requests(&store, 1).await;
        let mut without = requests(&store, seconds).await;
        let (sweeper, begun) = (fresh.store.clone(), Instant::now());
        let sweep = tokio::spawn(async move {
            let mut removed = 0;
            loop {
                let swept = Store::sweep(&sweeper, 500).await.unwrap();
                removed += swept.removed as u64;
                if swept.done {
                    return (removed, begun.elapsed());
                }
                tokio::task::yield_now().await;
            }
        });
        let beside = requests(&store, seconds).await;
        let (removed, took) = sweep.await.unwrap();
        assert_eq!(removed, sessions(kind) * 9 / 10);
        // Before and after, so that what else the machine does is in both.
        without.extend(requests(&store, seconds).await);
        without.sort();
        let (p99, beside_p99) = (percentile(&without, 99), percentile(&beside, 99));
        println!(
            "{kind:?}: {removed} of {} removed in {took:.1?}; p99 {p99:.2?} without ({} requests), {beside_p99:.2?} beside \
             ({} requests)",
            sessions(kind),
            without.len(),
            beside.len()
        );
        if long {
            assert!(beside_p99 < p99 * 3 / 2, "{kind:?}: p99 {p99:?} without, {beside_p99:?} beside a sweep");
        }
    }
}
