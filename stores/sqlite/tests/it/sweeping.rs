//! Sweeping: by the index, a few rows at a time, and beside requests.

use std::time::{Duration, Instant};

use cloakroom_core::store::{Expect, Outcome, Put};
use cloakroom_core::{Key, Store};
use cloakroom_store_sqlite::SqliteStore;
use rusqlite::params;

use crate::util::{LIFE, Room, key, payload, wait};

/// How SQLite goes about a statement.
fn plan(room: &Room, sql: &str) -> String {
    let beside = room.beside();
    let mut explain = beside.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    for parameter in 1..=explain.parameter_count() {
        explain.raw_bind_parameter(parameter, 1).unwrap();
    }
    let (mut rows, mut steps) = (explain.raw_query(), Vec::new());
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get::<_, String>(3).unwrap());
    }
    steps.join("; ")
}

#[tokio::test]
async fn the_sweep_and_every_request_go_by_an_index() {
    for options in ["", "layout=symfony&migrate=yes"] {
        let room = Room::with(options).await;
        room.create("a", "x").await;
        let statements = room.store.statements();
        assert!(statements.len() >= 6);
        for (name, sql) in statements {
            let plan = plan(&room, &sql);
            assert!(
                plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"),
                "{name}: {plan}"
            );
            if name.starts_with("due") {
                assert!(plan.contains("_idx (") && plan.contains('<'), "{name}: {plan}");
            }
        }
    }
}

/// Rows as a service leaves them: many alive, many dead, in no order.
fn plant(room: &Room, count: usize, dead_of_ten: usize) {
    let mut beside = room.beside();
    let all = beside.transaction().unwrap();
    let insert = "INSERT INTO cloakroom_sessions (id, version, expires_at, created_at, last_seen_at, lock_token, lock_until, \
                  payload) VALUES (?1, ?2, unixepoch() * 1000 + ?3, unixepoch() * 1000, unixepoch() * 1000, -?2, \
                  unixepoch() * 1000, ?4)";
    {
        let mut insert = all.prepare(insert).unwrap();
        for n in 0..count {
            let number = i64::try_from(n).unwrap();
            let life = if n % 10 < dead_of_ten { -1 - (number * 7919) % 3_600_000 } else { 3_600_000 };
            insert.execute(params![spread(n).record(), (1_i64 << 60) + number, life, [b'x'; 400]]).unwrap();
        }
    }
    all.commit().unwrap();
}

/// As ids are: spread all over the index.
fn spread(n: usize) -> Key {
    let mixed = (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Key::from_bytes(format!("{mixed:032x}").into_bytes())
}

async fn sweep_all(store: &SqliteStore) -> usize {
    let mut removed = 0;
    loop {
        let swept = store.sweep(1000).await.unwrap();
        removed += swept.removed;
        if swept.done {
            return removed;
        }
    }
}

/// A read and a change by turns, and how long the two take together.
async fn request(store: &SqliteStore, n: usize) -> Duration {
    let key = spread(PRIVATE.start + n * 31 % PRIVATE.len());
    let begun = Instant::now();
    let found = store.load(&key, &wait(5000)).await.unwrap().expect("a live session is gone");
    let outcome = store.commit(&key, Expect::Is(&found.version), payload([b'y'; 400]), &wait(5000)).await;
    assert!(matches!(outcome.unwrap(), Outcome::Done(_)));
    begun.elapsed()
}

fn late(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[times.len() * percent / 100]
}

/// `CLOAKROOM_SQLITE_SESSIONS=1000000` is the long form, which also compares what requests take, for some minutes. The sweep
/// runs and rests by turns of half a second, so that whatever else the machine does is beside both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_beside_requests_removes_the_dead_and_holds_nobody_up() {
    let count = std::env::var("CLOAKROOM_SQLITE_SESSIONS").map_or(20_000, |count| count.parse::<usize>().unwrap());
    let room = Room::new().await;
    plant(&room, count, 5);
    for n in PRIVATE {
        let outcome = room.store.commit(&spread(n), Expect::Absent, payload([b'x'; 400]), &wait(5000)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
    }
    let (may_sweep, mut told) = tokio::sync::watch::channel(false);
    let sweeping = tokio::spawn({
        let store = room.store.clone();
        async move {
            let (mut removed, mut took) = (0, Duration::ZERO);
            loop {
                told.wait_for(|may| *may).await.unwrap();
                let begun = Instant::now();
                let swept = store.sweep(100).await.unwrap();
                (removed, took) = (removed + swept.removed, took + begun.elapsed());
                if swept.done {
                    return (removed, took);
                }
            }
        }
    });
    let (mut without, mut beside) = (Vec::new(), Vec::new());
    let (begun, mut turn) = (Instant::now(), Instant::now());
    while !sweeping.is_finished() && begun.elapsed() < COMPARED {
        let is_on = *may_sweep.borrow();
        let took = request(&room.store, without.len() + beside.len()).await;
        // The first moments of a turn are of the one before.
        if turn.elapsed() > Duration::from_millis(50) {
            if is_on { &mut beside } else { &mut without }.push(took);
        }
        if turn.elapsed() > Duration::from_millis(500) {
            may_sweep.send_replace(!is_on);
            turn = Instant::now();
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    may_sweep.send_replace(true);
    let (removed, took) = sweeping.await.unwrap();
    assert_eq!(removed, count / 2);
    let left: i64 = room.beside().query_row("SELECT count(*) FROM cloakroom_sessions", [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(left).unwrap(), count - count / 2 + PRIVATE.len());
    let [before, after] = [&mut without, &mut beside].map(|times| (late(times, 50), late(times, 99)));
    println!("{removed} removed in {took:?}; median and p99 without {before:?}, beside {after:?}");
    println!("of {} and {} requests", without.len(), beside.len());
    if count >= 1_000_000 {
        assert!(after.1 <= before.1 * 3 / 2, "p99 {:?} without the sweep, {:?} beside it", before.1, after.1);
    }
}

/// For how long at most. The rest is swept without anybody beside it.
const COMPARED: Duration = Duration::from_mins(4);
const PRIVATE: std::ops::Range<usize> = 100_000_000..100_002_000;

/// A row that cannot be removed is passed over, and the round goes on behind it.
#[tokio::test]
async fn a_sweep_survives_errors_and_goes_on() {
    let room = Room::new().await;
    plant(&room, 400, 10);
    let bad = "CREATE TRIGGER refuses BEFORE DELETE ON cloakroom_sessions WHEN old.rowid = 200 BEGIN SELECT raise(ABORT, 'no'); END";
    room.beside().execute_batch(bad).unwrap();
    let (mut removed, mut errors) = (0, 0);
    for _ in 0..200 {
        match room.store.sweep(10).await {
            Ok(swept) => {
                removed += swept.removed;
                if swept.done {
                    break;
                }
            }
            Err(_) => errors += 1,
        }
    }
    assert_eq!(errors, 1);
    assert!((384..400).contains(&removed), "{removed}");
    room.beside().execute_batch("DROP TRIGGER refuses").unwrap();
    assert_eq!(removed + sweep_all(&room.store).await, 400);
}

/// A database that is locked for long makes the sweep wait for its own limit, and no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_waits_no_longer_than_it_may() {
    let room = Room::with("busy=300").await;
    plant(&room, 100, 10);
    let mut beside = room.beside();
    let occupied = beside.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let begun = Instant::now();
    assert_eq!(room.store.sweep(10).await.unwrap_err().kind(), cloakroom_core::ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(occupied);
    assert_eq!(sweep_all(&room.store).await + sweep_all(&room.store).await, 100);
    room.create("a", "x").await;
    assert!(matches!(room.commit("a", Expect::Any, Put::Touch(LIFE)).await, Ok(Outcome::Done(_))));
    assert!(room.store.load(&key("a"), &wait(100)).await.unwrap().is_some());
}
