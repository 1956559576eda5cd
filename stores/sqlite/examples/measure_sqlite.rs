//! What the operations of the store cost: `cargo run --release -p cloakroom-store-sqlite --example measure_sqlite [DIRECTORY]`.
//!
//! Each line is the mean of the middle half of many single calls, in microseconds; beside what SQLite itself takes for
//! the same on one thread.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for people")]

use std::path::Path;
use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put, Version};
use cloakroom_core::{Deadline, Key, Store};
use cloakroom_store_sqlite::{SqliteConfig, SqliteStore, Symfony, Synchronous};
use rusqlite::{Connection, params};

const LIFE: Duration = Duration::from_secs(1440);
const RECORDS: usize = 10_000;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let middle = &times[times.len() / 4..times.len() * 3 / 4];
    let mean = middle.iter().sum::<Duration>() / u32::try_from(middle.len()).unwrap();
    let late = times[times.len() * 99 / 100];
    println!("{:>9.1} us, p99 {:>9.1} us  {what}", mean.as_secs_f64() * 1e6, late.as_secs_f64() * 1e6);
}

fn put(bytes: &[u8]) -> Put {
    Put::Payload(Payload::new(bytes.to_vec().into(), LIFE))
}

fn deadline() -> Deadline {
    Deadline::new(LIFE, LIFE)
}

/// As ids are: spread all over the index.
fn key(n: usize) -> Key {
    Key::from_bytes(
        format!("{:032x}", (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).into_bytes(),
    )
}

async fn time(what: &str, times: usize, mut call: impl AsyncFnMut(usize)) {
    let mut all = Vec::new();
    for n in 0..times {
        let begun = Instant::now();
        call(n).await;
        all.push(begun.elapsed());
    }
    report(what, all);
}

async fn version(store: &SqliteStore, key: &Key) -> Version {
    store.load(key, &deadline()).await.unwrap().unwrap().version
}

async fn all(store: &SqliteStore, name: &str) {
    let small = vec![b'x'; 500];
    time(&format!("{name}: create, 500 bytes"), RECORDS, async |n| {
        store.commit(&key(n), Expect::Absent, put(&small), &deadline()).await.unwrap();
    })
    .await;
    time(&format!("{name}: read, 500 bytes"), 100_000, async |n| {
        assert!(store.load(&key(n % RECORDS), &deadline()).await.unwrap().is_some());
    })
    .await;
    time(&format!("{name}: read, absent"), 100_000, async |n| {
        assert!(store.load(&key(RECORDS + n), &deadline()).await.unwrap().is_none());
    })
    .await;
    let mut seen = version(store, &key(7)).await;
    time(&format!("{name}: change by version, 500 bytes"), 20_000, async |_| {
        let outcome = store.commit(&key(7), Expect::Is(&seen), put(&small), &deadline()).await.unwrap();
        let Outcome::Done(Some(now)) = outcome else { unreachable!("nobody else is here") };
        seen = now;
    })
    .await;
    time(&format!("{name}: read and change another, 500 bytes"), 20_000, async |n| {
        let seen = version(store, &key(n % RECORDS)).await;
        store.commit(&key(n % RECORDS), Expect::Is(&seen), put(&small), &deadline()).await.unwrap();
    })
    .await;
    time(&format!("{name}: lock and change, 500 bytes"), 20_000, async |n| {
        let locked = store.lock(&key(n % RECORDS), Claim::Existing, &deadline()).await.unwrap().unwrap();
        store.commit(&key(n % RECORDS), Expect::Held(locked.lease), put(&small), &deadline()).await.unwrap();
    })
    .await;
    time(&format!("{name}: touch"), 20_000, async |n| {
        store.commit(&key(n % RECORDS), Expect::Any, Put::Touch(LIFE), &deadline()).await.unwrap();
    })
    .await;
    for size in [200_000, 1_000_000] {
        let large = vec![b'x'; size];
        store.commit(&key(8), Expect::Any, put(&large), &deadline()).await.unwrap();
        time(&format!("{name}: read, {} KB", size / 1000), 1000, async |_| {
            assert!(store.load(&key(8), &deadline()).await.unwrap().is_some());
        })
        .await;
        time(&format!("{name}: change, {} KB", size / 1000), 300, async |_| {
            store.commit(&key(8), Expect::Any, put(&large), &deadline()).await.unwrap();
        })
        .await;
        time(&format!("{name}: lock and touch, {} KB", size / 1000), 300, async |_| {
            let locked = store.lock(&key(8), Claim::Existing, &deadline()).await.unwrap().unwrap();
            store.commit(&key(8), Expect::Held(locked.lease), Put::Touch(LIFE), &deadline()).await.unwrap();
        })
        .await;
    }
}

/// Many requests at once: what the grouping of commits is for.
async fn together(store: &SqliteStore, name: &str, tasks: usize) {
    const EACH: usize = 1000;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut all = Vec::new();
                for n in 0..EACH {
                    let key = key((task * EACH + n * 7) % RECORDS);
                    let begun = Instant::now();
                    store.commit(&key, Expect::Any, put(&[b'y'; 500]), &deadline()).await.unwrap();
                    all.push(begun.elapsed());
                }
                all
            })
        })
        .collect();
    let (count, mut all) = (tasks.len(), Vec::new());
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let each = (begun.elapsed() / u32::try_from(all.len()).unwrap()).as_secs_f64() * 1e6;
    report(&format!("{name}: change, {count} at once; {each:.1} us each"), all);
}

fn plain(dir: &Path) {
    let conn = Connection::open(dir.join("plain.db")).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         CREATE TABLE t (id BLOB PRIMARY KEY, payload BLOB, expires INTEGER) STRICT; CREATE INDEX e ON t (expires)",
    )
    .unwrap();
    let mut insert =
        conn.prepare("INSERT INTO t VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET payload = ?2, expires = ?3").unwrap();
    let mut write =
        |n: usize| insert.execute(params![key(n % RECORDS).record(), [b'x'; 500], i64::try_from(n).unwrap()]).unwrap();
    for n in 0..RECORDS {
        write(n);
    }
    let mut times = Vec::new();
    for n in 0..20_000 {
        let begun = Instant::now();
        write(n * 7);
        times.push(begun.elapsed());
    }
    report("SQLite alone: upsert with an index on expiry", times);
    let mut read = conn.prepare("SELECT payload FROM t WHERE id = ?1").unwrap();
    let mut times = Vec::new();
    for n in 0..100_000 {
        let begun = Instant::now();
        let payload: Vec<u8> = read.query_row([key(n % RECORDS).record()], |row| row.get(0)).unwrap();
        assert_eq!(payload.len(), 500);
        times.push(begun.elapsed());
    }
    report("SQLite alone: point read", times);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).unwrap();
    plain(dir.path());
    let config = |name: &str| SqliteConfig::new(dir.path().join(name)).max_payload(64 << 20);
    let store = SqliteStore::open(config("native.db")).await.unwrap();
    all(&store, "native").await;
    for tasks in [1, 8, 64] {
        together(&store, "native", tasks).await;
    }
    let store = SqliteStore::open(config("symfony.db").layout(Symfony::default()).migrate(true)).await.unwrap();
    all(&store, "symfony").await;
    together(&store, "symfony", 64).await;
    let store = SqliteStore::open(config("full.db").synchronous(Synchronous::Full)).await.unwrap();
    for n in 0..RECORDS {
        store.commit(&key(n), Expect::Absent, put(b"x"), &deadline()).await.unwrap();
    }
    for tasks in [1, 64] {
        together(&store, "native, synchronous=full", tasks).await;
    }
}
