//! What the operations of the store cost: `cargo run --release -p cloakroom-store-files --example measure_files [DIRECTORY]`.
//!
//! Each line is the mean of the middle half of many single calls, in microseconds.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for people")]

use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Deadline, Key, Store};
use cloakroom_store_files::{Durability, FilesConfig, FilesStore, Io};

const LIFE: Duration = Duration::from_secs(1440);

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let middle = &times[times.len() / 4..times.len() * 3 / 4];
    let mean = middle.iter().sum::<Duration>() / u32::try_from(middle.len()).unwrap();
    println!("{:>9.1} us  {what}", mean.as_secs_f64() * 1e6);
}

fn put(bytes: &[u8]) -> Put {
    Put::Payload(Payload::new(bytes.to_vec().into(), LIFE))
}

async fn load(store: &FilesStore, what: &str, times: usize) {
    let deadline = Deadline::new(LIFE, LIFE);
    let key = Key::from_bytes(&b"a"[..]);
    let mut all = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        assert!(store.load(&key, &deadline).await.unwrap().is_some());
        all.push(begun.elapsed());
    }
    report(what, all);
}

/// Changes the session from one to the other and back, by comparison with what was read.
async fn update(store: &FilesStore, what: &str, times: usize, one: &[u8], other: &[u8]) {
    let deadline = Deadline::new(LIFE, LIFE);
    let key = Key::from_bytes(&b"a"[..]);
    let _ = store.commit(&key, Expect::Any, Put::Remove, &deadline).await.unwrap();
    let Outcome::Done(Some(mut version)) = store.commit(&key, Expect::Absent, put(one), &deadline).await.unwrap()
    else {
        return;
    };
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for round in 0..times {
        let put = put(if round % 2 == 0 { other } else { one });
        let begun = Instant::now();
        let outcome = store.commit(&key, Expect::Is(&version), put, &deadline).await.unwrap();
        if round % 2 == 0 { &mut there } else { &mut back }.push(begun.elapsed());
        let Outcome::Done(Some(now)) = outcome else { return };
        version = now;
    }
    if one.len() == other.len() {
        there.append(&mut back);
        report(what, there);
    } else {
        report(&format!("{what}, growing"), there);
        report(&format!("{what}, shrinking"), back);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).unwrap();
    let open = |io| FilesStore::open(FilesConfig::new(dir.path()).io(io)).unwrap();
    let store = open(Io::Inline);
    let deadline = Deadline::new(LIFE, LIFE);
    let key = Key::from_bytes(&b"a"[..]);

    let mut small = vec![b'x'; 500];
    let old = small.clone();
    small[250] = b'y';
    update(&store, "change in place, 500 bytes", 100_000, &old, &small).await;
    load(&store, "read, 500 bytes", 100_000).await;
    let absent = Key::from_bytes(&b"absent"[..]);
    let mut all = Vec::new();
    for _ in 0..100_000 {
        let begun = Instant::now();
        assert!(store.load(&absent, &deadline).await.unwrap().is_none());
        all.push(begun.elapsed());
    }
    report("read, absent", all);
    let mut all = Vec::new();
    for round in 0..100_000 {
        let put = put(if round % 2 == 0 { &old } else { &small });
        let begun = Instant::now();
        let locked = store.lock(&key, Claim::Existing, &deadline).await.unwrap().unwrap();
        store.commit(&key, Expect::Held(locked.lease), put, &deadline).await.unwrap();
        all.push(begun.elapsed());
    }
    report("lock and change in place, 500 bytes", all);
    let mut all = Vec::new();
    for _ in 0..50_000 {
        let begun = Instant::now();
        store.commit(&key, Expect::Any, Put::Touch(LIFE), &deadline).await.unwrap();
        all.push(begun.elapsed());
    }
    report("touch", all);
    update(&store, "500 and 600 bytes", 50_000, &old, &[&old[..], &[b'z'; 100]].concat()).await;
    update(&store, "500 and 600 bytes, changed throughout", 20_000, &old, &[b'z'; 600]).await;
    let mut all = Vec::new();
    for round in 0..20_000_u32 {
        let key = Key::from_bytes(format!("new{round}").into_bytes());
        let begun = Instant::now();
        store.commit(&key, Expect::Absent, put(&old), &deadline).await.unwrap();
        all.push(begun.elapsed());
    }
    report("create, 500 bytes", all);
    let begun = Instant::now();
    while !store.sweep(1000).await.unwrap().done {}
    println!("{:>9.1} us  sweep, for each file that stays", begun.elapsed().as_secs_f64() * 1e6 / 20_000.0);
    let mut all = Vec::new();
    for round in 0..20_000_u32 {
        let key = Key::from_bytes(format!("new{round}").into_bytes());
        let begun = Instant::now();
        store.commit(&key, Expect::Any, Put::Remove, &deadline).await.unwrap();
        all.push(begun.elapsed());
    }
    report("remove", all);

    for (io, name) in [(Io::Inline, "inline"), (Io::Auto, "on the pool")] {
        let store = open(io);
        for size in [200_000, 1_000_000] {
            let one = vec![b'x'; size];
            let mut same = one.clone();
            same[size / 2] = b'y';
            let what = format!("{} KB, {name}", size / 1000);
            update(&store, &format!("change one byte of {what}"), 1000, &one, &same).await;
            let grown = [&one[..100], b"more", &one[100..]].concat();
            update(&store, &format!("insert 4 bytes at the start of {what}"), 1000, &one, &grown).await;
            update(&store, &format!("change all of {what}"), 1000, &one, &vec![b'z'; size]).await;
            load(&store, &format!("read {what}"), 1000).await;
        }
    }
    let durable = FilesStore::open(FilesConfig::new(dir.path()).io(Io::Inline).durability(Durability::Data)).unwrap();
    update(&durable, "change in place, 500 bytes, durability=data", 200, &old, &small).await;
    update(&durable, "500 and 600 bytes, durability=data", 200, &old, &[b'z'; 600]).await;
}
