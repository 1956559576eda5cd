//! What the store makes of a Redis: `cargo run --release -p cloakroom-store-redis --example measure_redis [URL]`.
//!
//! Each line is the time that one operation takes where so many tasks make them at once on sessions of their own, in
//! microseconds of the whole: many divided by their number. The first line is a bare `GET` on the same kind of
//! connection.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for people")]

use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, Key, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};

const LIFE: Duration = Duration::from_secs(1440);
const EACH: u32 = 2000;

fn put(bytes: &[u8]) -> Put {
    Put::Payload(Payload::new(bytes.to_vec().into(), LIFE))
}

/// Runs the operation in so many tasks at once.
async fn measure<F>(what: &str, tasks: u32, operation: impl Fn(Key) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let begun = Instant::now();
    let running: Vec<_> = (0..tasks).map(|task| tokio::spawn(operation(key(task)))).collect();
    for task in running {
        task.await.unwrap();
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(tasks * EACH);
    println!("{each:>9.1} us  {what}, {tasks} at once");
}

fn key(task: u32) -> Key {
    Key::from_bytes(format!("measure{task:03}").into_bytes())
}

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost?prefix=measure:".into());
    let store = RedisStore::open(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let deadline = || Deadline::new(LIFE, LIFE);
    let payload = [b'x'; 500];
    if let Ok(client) = redis::Client::open(url.split('?').next().unwrap_or_default()) {
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        for tasks in [1, 32] {
            let get = |_| {
                let mut connection = connection.clone();
                async move {
                    for _ in 0..EACH {
                        let _: Option<Vec<u8>> =
                            redis::cmd("GET").arg("measure").query_async(&mut connection).await.unwrap();
                    }
                }
            };
            measure("bare GET of nothing", tasks, get).await;
        }
    }
    for task in 0..32 {
        store.commit(&key(task), Expect::Absent, put(&payload), &deadline()).await.unwrap();
    }
    for tasks in [1, 32] {
        let read = |key| {
            let store = store.clone();
            async move {
                for _ in 0..EACH {
                    assert!(store.load(&key, &deadline()).await.unwrap().is_some());
                }
            }
        };
        measure("read, 500 bytes", tasks, read).await;
        let update = |key| {
            let store = store.clone();
            async move {
                for n in 0..EACH {
                    let record = store.load(&key, &deadline()).await.unwrap().unwrap();
                    let mut bytes = record.payload.to_vec();
                    bytes[..4].copy_from_slice(&n.to_be_bytes());
                    let expect = Expect::Is(&record.version);
                    let outcome = store.commit(&key, expect, put(&bytes), &deadline()).await.unwrap();
                    assert!(matches!(outcome, Outcome::Done(_)));
                }
            }
        };
        measure("read and change by version, 500 bytes", tasks, update).await;
        let start = |key| {
            let store = store.clone();
            async move {
                for _ in 0..EACH {
                    let locked = store.lock(&key, Claim::Existing, &deadline()).await.unwrap().unwrap();
                    let held = Expect::Held(locked.lease);
                    let outcome = store.commit(&key, held, put(&[b'y'; 500]), &deadline()).await.unwrap();
                    assert!(matches!(outcome, Outcome::Done(_)));
                }
            }
        };
        measure("lock, read, change and unlock, 500 bytes", tasks, start).await;
    }
    for task in 0..32 {
        store.commit(&key(task), Expect::Any, Put::Remove, &deadline()).await.unwrap();
    }
}
